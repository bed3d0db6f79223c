/* What the files of the catalog share.
 *
 *   catalog.c    its life, this node's own entry, steps
 *   modules.c    modules, their functions, which nodes hold them
 *   deployed.c   deployed modules
 *   members.c    nodes, their resources and topics, those that are forgotten
 *   entries.c    what other nodes say: checked, then merged
 *   exchange.c   what is said to other nodes
 *   find.c, explain.c, documents.c   answers
 *
 * A module is what (kind, name, version, hash, unit) name; its identity is these as one string. All
 * functions of it get their keys when its metadata is here. */
#pragma once

#include "src/core/catalog/catalog.h"
#include "src/wire/msgpack.h"

/* What a module is known by. */
struct mp_catalog_identity {
    struct mp_slice name;
    struct mp_slice version;
    struct mp_slice hash; /* lower-case hex digits */
    struct mp_slice unit; /* of a deployed one; empty: it is loaded */
    bool is_pipeline;
};

/* The private part of a module. */
struct mp_catalog_record {
    struct mp_slice identity; /* a block of its own; name, version and hash point into it */
    uint32_t *holders;        /* numbers of the nodes whose entries mention it, ascending */
    uint32_t holder_count;
    uint32_t holder_capacity;
    uint32_t next_same_hash; /* module, or MP_CATALOG_NONE */
    uint32_t next_pipeline;  /* the same name in another version or content */
    uint32_t refusals;       /* metadata that was no good */
    bool is_pinned;          /* an entry that is being read mentions it */
    bool is_retired;         /* a deployed one that is gone; its place waits for another */
    uint32_t spare_first;    /* of it: places of functions that wait as well */
    uint32_t spare_count;
    size_t scope_size; /* of a deployed one: allocated */
};

/* A node. */
struct mp_catalog_member {
    struct mp_slice name; /* a block of its own; empty: the number is not in use */
    enum mp_catalog_node_state state;
    mp_time since;   /* of its state */
    uint64_t listed; /* the generation that membership lists; 0: any */
    bool has_entry;
    bool has_news; /* of its topics; see mp_catalog_take_interest */
    /* its entry */
    uint64_t generation;
    uint64_t counter;
    struct mp_slice entry;        /* as it travels; of this node empty: it is written afresh */
    struct mp_catalog_about said; /* points into the entry */
    uint32_t *resources;          /* ascending */
    uint32_t *modules;
    uint32_t resource_count;
    uint32_t module_count;
    uint32_t module_capacity; /* of this node, whose list grows */
    void *block;              /* of any other: entry, resources and modules */
    size_t block_size;
};

/* A resource's name, which stands for itself by its place. */
struct mp_catalog_resource {
    struct mp_slice name; /* a block of its own; empty: not in use */
    uint32_t uses;        /* nodes that have it */
    uint32_t next_free;
};

/* What was last known of a node that is forgotten. */
struct mp_catalog_tombstone {
    struct mp_slice name; /* a block of its own; empty: not in use */
    uint64_t generation;
    uint64_t counter;
};

/* --- modules.c --- */

/* Makes room for `wanted` items in an array that doubles. MP_ENOMEM. */
MP_MUST_USE enum mp_err mp_catalog_grow(struct mp_alloc *a, void **array, uint32_t *capacity,
                                        uint32_t wanted, size_t item);
/* The text under `key` of a map; empty if there is none. */
struct mp_slice mp_catalog_text_of(struct mp_slice map, const char *key);
/* What a module's metadata says that it is; `name` is its file's, which counts for modules. */
struct mp_catalog_identity mp_catalog_identity_of(struct mp_slice name, struct mp_slice hash,
                                                  struct mp_slice metadata);
/* Why this can be no module, in c->why; NULL if it can. */
const char *mp_catalog_check_identity(struct mp_catalog *c, const struct mp_catalog_identity *i);
/* Why its functions cannot be taken, in c->why; NULL if they can. */
const char *mp_catalog_check_functions(struct mp_catalog *c, struct mp_slice metadata);
/* Whether metadata names the functions that the module has, in their order. */
bool mp_catalog_has_functions(const struct mp_catalog *c, uint32_t module,
                              struct mp_slice metadata);
bool mp_catalog_get_module(const struct mp_catalog *c, const struct mp_catalog_identity *i,
                           uint32_t *module);
/* A new one without metadata and holders. MP_ENOMEM, MP_EFULL. */
MP_MUST_USE enum mp_err
mp_catalog_new_module(struct mp_catalog *c, const struct mp_catalog_identity *i, uint32_t *module);
/* Takes the newest module out again; it has neither metadata nor holders. */
void mp_catalog_drop_module(struct mp_catalog *c);
/* Copies metadata that was checked, and gives its functions their keys. MP_ENOMEM. */
MP_MUST_USE enum mp_err mp_catalog_describe(struct mp_catalog *c, uint32_t module,
                                            struct mp_slice metadata);
void mp_catalog_free_modules(struct mp_catalog *c);
/* Takes functions and metadata of a module away, which leaves it as one that nobody described. */
void mp_catalog_undescribe(struct mp_catalog *c, uint32_t module);

MP_MUST_USE enum mp_err mp_catalog_reserve_holder(struct mp_catalog *c, uint32_t module);
/* Room for it was reserved. */
void mp_catalog_add_holder(struct mp_catalog *c, uint32_t module, uint32_t node);
void mp_catalog_remove_holder(struct mp_catalog *c, uint32_t module, uint32_t node);
/* Whether a node has it: holds it, or is in the scope of a deployed one. */
bool mp_catalog_is_holder(const struct mp_catalog *c, uint32_t module, uint32_t node);
/* The nodes that have it, dead ones too, one by one: *cursor is 0 at first. False at the end. */
bool mp_catalog_next_holder(const struct mp_catalog *c, uint32_t module, uint32_t *cursor,
                            uint32_t *node);
/* Whether any live node holds it; of a deployed one, whether it is live here. */
bool mp_catalog_is_provided(const struct mp_catalog *c, uint32_t module);
/* Whether it is what callers get under its name: provided, and not shadowed. */
bool mp_catalog_is_offered(const struct mp_catalog *c, uint32_t module);
/* Whether a query means it. */
static inline bool mp_catalog_is_meant(const struct mp_catalog *c, uint32_t module, uint32_t pin)
{
    return c->modules[module].is_deployed ? mp_catalog_pin(module) == pin : pin == 0;
}

/* --- deployed.c --- */

/* Events DEPLOY, RETIRE and LIVE. *why: it is refused. MP_ENOMEM. */
MP_MUST_USE enum mp_err mp_catalog_deploy(struct mp_catalog *c, const struct mp_catalog_deployed *d,
                                          const char **why);
void mp_catalog_retire(struct mp_catalog *c, uint32_t module);
MP_MUST_USE enum mp_err mp_catalog_set_live(struct mp_catalog *c,
                                            const struct mp_catalog_live *items, uint32_t count);
/* Whether a live deployed module has the name and the kind of a loaded one. */
bool mp_catalog_is_hidden(const struct mp_catalog *c, uint32_t module);
bool mp_catalog_is_in_scope(const struct mp_catalog *c, uint32_t module, uint32_t node);

/* --- members.c --- */

static inline bool mp_catalog_is_live(const struct mp_catalog *c, uint32_t node)
{
    return c->members[node].state == MP_CATALOG_NODE_LIVE;
}

/* Whether a stands after b in some order of numbers. */
typedef bool mp_catalog_is_after(const struct mp_catalog *c, uint32_t a, uint32_t b);
/* A heap sort. */
void mp_catalog_sort(const struct mp_catalog *c, uint32_t *items, uint32_t count,
                     mp_catalog_is_after *after);
void mp_catalog_sort_numbers(const struct mp_catalog *c, uint32_t *items, uint32_t count);
/* Sorts numbers and drops repeated ones; what is left. */
uint32_t mp_catalog_sort_unique(const struct mp_catalog *c, uint32_t *items, uint32_t count);
/* The place of a number in a sorted list, or where it would go. */
uint32_t mp_catalog_search(const uint32_t *items, uint32_t count, uint32_t item);

/* The resource of that name with one use more. MP_ENOMEM. */
MP_MUST_USE enum mp_err mp_catalog_use_resource(struct mp_catalog *c, struct mp_slice name,
                                                uint32_t *resource);
void mp_catalog_release_resource(struct mp_catalog *c, uint32_t resource);
bool mp_catalog_has_resource(const struct mp_catalog *c, uint32_t node, uint32_t resource);
bool mp_catalog_has_named(const struct mp_catalog *c, uint32_t node, struct mp_slice resource);

/* Events NODE and NODE_GONE; *changed says whether providers may be others now. MP_ENOMEM. */
MP_MUST_USE enum mp_err mp_catalog_set_member(struct mp_catalog *c, mp_time now,
                                              const struct mp_catalog_event *ev, bool *changed);
MP_MUST_USE enum mp_err mp_catalog_forget_member(struct mp_catalog *c, uint32_t node,
                                                 bool *changed);
/* Takes a node's entry away, from digests and holders too. */
void mp_catalog_clear_entry(struct mp_catalog *c, uint32_t node);
/* Whether a stamp of a node is one of before it was forgotten. */
bool mp_catalog_is_stale(const struct mp_catalog *c, struct mp_slice owner, uint64_t generation,
                         uint64_t counter);
/* Lets go of what is remembered of a forgotten node: it is back. */
void mp_catalog_drop_tombstone(struct mp_catalog *c, struct mp_slice owner);
/* <0, 0, >0 by (generation, counter). */
int mp_catalog_compare_stamps(uint64_t generation_a, uint64_t counter_a, uint64_t generation_b,
                              uint64_t counter_b);
/* Adds the entry of a node to the digests, or takes it out. */
void mp_catalog_count_in(struct mp_catalog *c, uint32_t node);
void mp_catalog_count_out(struct mp_catalog *c, uint32_t node);
void mp_catalog_free_members(struct mp_catalog *c);

/* --- entries.c --- */

/* What became of ENTRIES. */
struct mp_catalog_merged {
    bool is_changed;
    bool is_outdone; /* this node's own entry is another one now */
    bool is_missing; /* metadata should be asked for */
    const char *dropped;
};

MP_MUST_USE enum mp_err mp_catalog_merge(struct mp_catalog *c, struct mp_slice bytes,
                                         struct mp_catalog_merged *out);
/* Whether a stamp that somebody tells of is newer than what is here. */
bool mp_catalog_is_newer(const struct mp_catalog *c, struct mp_slice owner, uint64_t generation,
                         uint64_t counter);
/* Elements of a list of unsigned integers, names and so on. */
MP_MUST_USE enum mp_err mp_catalog_take_uint(struct mp_mp_reader *r, uint64_t *v);
MP_MUST_USE enum mp_err mp_catalog_take_str(struct mp_mp_reader *r, struct mp_slice *v);
MP_MUST_USE enum mp_err mp_catalog_take_array(struct mp_mp_reader *r, uint32_t *count);

/* The hex digits of a hash of at most MP_HASH_BYTES_MAX, and back; false if it is none. */
struct mp_catalog_hex {
    uint8_t digits[2 * 32];
};
bool mp_catalog_hex_of(struct mp_slice bytes, struct mp_catalog_hex *room, struct mp_slice *hex);
bool mp_catalog_bytes_of(struct mp_slice hex, struct mp_catalog_hex *room, struct mp_slice *bytes);

/* --- exchange.c --- */

/* Whether an ENTRIES step should tell that metadata is missing. */
bool mp_catalog_is_missing_any(const struct mp_catalog *c);
/* News of this node's entry into c->news. */
void mp_catalog_write_news(struct mp_catalog *c);

/* --- find.c --- */

/* The n-th resource that a call of f needs, its own first; false when there are no more. */
bool mp_catalog_need_at(const struct mp_catalog_function *f, const struct mp_catalog_query *q,
                        uint32_t n, struct mp_slice *name);
bool mp_catalog_fits(const struct mp_catalog *c, const struct mp_catalog_function *f,
                     struct mp_slice constraint);
