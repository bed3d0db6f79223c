/* Which functions, pipelines and resources there are, and which nodes have them.
 *
 * Each node owns one entry, which only it changes: its resources, workers and modules, ordered by
 * (generation, counter). Merging is "the newer one wins, per owner": it commutes and cannot
 * conflict. An entry names modules by the hash of their content; what a module is (its functions,
 * their help, a pipeline's graph) is its metadata, which is the same wherever the module is and
 * therefore travels once to each node, by hash, when an entry mentions a module that was not known
 * there. Functions get dense keys here, one for each name, version and content.
 *
 * Modules that are deployed (core/deploy) are in no entry: every node in their scope has them, or
 * gets them before it serves them. They come by DEPLOY, with the numbers that the driver gave them,
 * stand beside the loaded ones of the same name, and go by RETIRE. A query says with `pin` which of
 * them it means; without one it means loaded modules.
 *
 * The entry of a node that is gone stays known by its number, so that no stale copy revives it.
 * Nodes have the dense numbers that core/membership gave them; 0 is this node. */
#pragma once

#include <stdbool.h>

#include "src/base/alloc.h"
#include "src/base/buf.h"
#include "src/base/compiler.h"
#include "src/base/err.h"
#include "src/base/map.h"
#include "src/base/slice.h"
#include "src/base/text.h"
#include "src/base/time.h"
#include "src/wire/error.h"
#include "src/wire/version.h"

#define MP_CATALOG_NONE    UINT32_MAX
#define MP_CATALOG_SELF    0u
#define MP_CATALOG_BUCKETS 64u /* as those of core/membership: mp_slice_hash(owner, 0) % 64 */

struct mp_catalog_function {
    struct mp_slice name; /* module.function */
    uint32_t key;         /* its place in the catalog: dense, stable */
    uint32_t module;
    uint32_t index;        /* in the module's list, as workers number it */
    uint32_t next;         /* the same name in another version or content, or MP_CATALOG_NONE */
    struct mp_slice needs; /* a MessagePack array of names, or empty */
    uint32_t concurrency;  /* at once on a node; 0: no limit */
    mp_duration timeout;   /* of one call; 0: none of its own */
    bool is_idempotent;
    struct mp_slice subscribe; /* patterns of topics whose messages it is called with: a MessagePack
                                  text or array of texts, or empty */
    struct mp_slice metadata;  /* the map that the module described it with */
    /* how long the node refuses it from now on; the node sets it before it asks for the document */
    uint64_t refused_ms;
};

struct mp_catalog_module {
    struct mp_slice name;
    struct mp_slice version_text;
    struct mp_version version;
    struct mp_slice hash;     /* hex of the content's SHA-256 */
    struct mp_slice metadata; /* as a worker described it */
    struct mp_slice graph;    /* of a pipeline; else empty */
    uint32_t host_module;     /* as host and workers know it; MP_CATALOG_NONE: not on this node */
    uint32_t first_function;
    uint32_t function_count;
    bool is_pipeline;
    bool is_deployed;
    bool is_live;     /* deployed: what this node's callers get */
    bool is_shadowed; /* loaded: callers get a deployed one of that name */
    /* deployed: a change of it was overtaken lately; the node sets it before it asks for the
     * document */
    bool is_overtaken;
    bool is_scoped;         /* deployed: only nodes in its scope have it */
    bool is_scope_excluded; /* `scope` lists those that do not */
    struct mp_slice scope;  /* a MessagePack array of nodes' names, or empty */
};

/* How a query names a deployed module: its place in the catalog. */
static inline uint32_t mp_catalog_pin(uint32_t module)
{
    return module + 1;
}

struct mp_catalog {
    /* read */
    uint32_t module_count;
    uint32_t function_count;
    struct mp_catalog_module *modules;
    struct mp_catalog_function *functions;
    struct mp_slice node;
    struct mp_slice cluster;
    /* private */
    struct mp_catalog_record *records; /* of the module in the same place */
    struct mp_catalog_member *members; /* by number; this node's is always there */
    struct mp_catalog_resource *resources;
    struct mp_catalog_tombstone *tombstones; /* a ring once it is full */
    uint32_t module_capacity;
    uint32_t record_capacity;
    uint32_t function_capacity;
    uint32_t member_capacity;
    uint32_t resource_count;
    uint32_t resource_capacity;
    uint32_t resource_free; /* the first unused place, or MP_CATALOG_NONE */
    uint32_t tombstone_count;
    uint32_t tombstone_capacity;
    uint32_t tombstone_next;   /* the one that the next overwrites */
    uint32_t unknown_count;    /* modules whose metadata is not here */
    uint32_t retired_count;    /* of them, places of deployed modules that are gone */
    uint32_t live_count;       /* deployed modules that are live here */
    uint64_t metadata_bytes;   /* of all modules */
    uint32_t subscribed_count; /* functions with patterns of topics */
    uint32_t news_count;       /* members of whose topics nobody was told yet */
    uint32_t news_first;       /* none of them is below */
    struct mp_map by_name;     /* function name -> highest version's key */
    struct mp_map pipelines;   /* pipeline name -> highest version's module */
    struct mp_map identities;  /* see catalog_internal.h -> module */
    struct mp_map by_hash;     /* hash -> one of the modules with that content */
    struct mp_map by_member;   /* node name -> number */
    struct mp_map by_resource;
    struct mp_map by_tombstone;
    uint64_t digests[MP_CATALOG_BUCKETS];
    uint64_t defects;
    struct mp_buf names; /* of node, cluster and resources, and the program's version */
    struct mp_buf news;
    struct mp_buf topics; /* of this node's entry */
    struct mp_alloc *alloc;
    char why[256];
};

struct mp_catalog_config {
    struct mp_slice node;
    struct mp_slice cluster;
    const struct mp_slice *resources; /* names; all copied */
    uint32_t resource_count;
    uint32_t workers;
    struct mp_slice version; /* of the program */
    uint64_t generation;     /* of this boot */
    uint64_t defects;        /* see base/defects.h; 0 */
};

enum mp_catalog_node_state { MP_CATALOG_NODE_LIVE, MP_CATALOG_NODE_DEAD, MP_CATALOG_NODE_LEFT };

enum mp_catalog_event_kind {
    MP_CATALOG_ADD,       /* add: a module of this node */
    MP_CATALOG_NODE,      /* node: a member is new, or its state changed */
    MP_CATALOG_NODE_GONE, /* number: it is forgotten; nothing older of it is taken in any more */
    MP_CATALOG_ENTRIES, /* entries: what mp_catalog_put_entries() or _put_have() wrote elsewhere */
    MP_CATALOG_GENERATION, /* generation: this boot's was raised */
    MP_CATALOG_DEPLOY,     /* deploy: a deployed module of this node */
    MP_CATALOG_RETIRE,     /* number: the place of a deployed module that no call names any more */
    MP_CATALOG_TOPICS,     /* topics: the patterns that clients of this node subscribe to */
    MP_CATALOG_LIVE        /* live: the deployed modules that are live here, all of them */
};

/* A deployed module. Its identity are name, version, hash, unit and kind. */
struct mp_catalog_deployed {
    struct mp_slice name;
    struct mp_slice version;
    struct mp_slice hash; /* hex digits */
    struct mp_slice unit; /* bytes that tell its unit from others */
    bool is_pipeline;
    uint32_t host_module;
    struct mp_slice metadata; /* copied */
};

struct mp_catalog_live {
    uint32_t module;
    bool is_scope_excluded;
    struct mp_slice scope; /* an array of names, copied; empty: everywhere */
};

struct mp_catalog_event {
    enum mp_catalog_event_kind kind;
    union {
        struct {
            uint32_t host_module;
            struct mp_slice name;
            struct mp_slice hash;
            struct mp_slice metadata; /* copied */
        } add;
        struct {
            uint32_t number;
            struct mp_slice name; /* copied */
            enum mp_catalog_node_state state;
            uint64_t generation; /* its entries count up to this one; 0: all do */
        } node;
        uint32_t number;
        struct {
            struct mp_slice bytes;
        } entries;
        uint64_t generation;
        struct mp_catalog_deployed deploy;
        struct {
            const struct mp_catalog_live *items;
            uint32_t count;
        } live;
        struct mp_slice topics; /* a MessagePack array of texts; copied */
    };
};

enum mp_catalog_effect_kind {
    MP_CATALOG_CHANGED,  /* who has what changed: routes are stale, who waits may try again */
    MP_CATALOG_REFUSED,  /* ADD, DEPLOY: not added; `why` says so (valid until the next step) */
    MP_CATALOG_ANNOUNCE, /* this node's entry is a newer one now: news.bytes are for everybody */
    MP_CATALOG_MISSING,  /* entries name modules whose metadata is not here: mp_catalog_put_missing
                          */
    MP_CATALOG_DROPPED   /* part of ENTRIES was malformed or over a limit; `why` */
};

struct mp_catalog_effect {
    enum mp_catalog_effect_kind kind;
    const char *why;
    struct mp_slice news; /* at most 160 bytes; valid until the next step */
};

#define MP_CATALOG_EFFECTS_MAX 4

struct mp_catalog_effects {
    uint32_t count;
    struct mp_catalog_effect items[MP_CATALOG_EFFECTS_MAX];
};

MP_MUST_USE enum mp_err mp_catalog_init(struct mp_catalog *c, const struct mp_catalog_config *cfg,
                                        struct mp_alloc *a, uint64_t seed);
/* MP_ENOMEM leaves the catalog as before (of ENTRIES: whole entries may have been taken in; the
 * rest comes with a later digest). ADD always has CHANGED or REFUSED. */
MP_MUST_USE enum mp_err mp_catalog_step(struct mp_catalog *c, mp_time now,
                                        const struct mp_catalog_event *ev,
                                        struct mp_catalog_effects *out);
mp_time mp_catalog_deadline(const struct mp_catalog *c);
void mp_catalog_fini(struct mp_catalog *c);

/* --- finding --- */

/* What a caller asks for. */
struct mp_catalog_query {
    struct mp_slice fun;
    struct mp_slice version;
    struct mp_slice on;
    struct mp_slice cluster;
    const struct mp_slice *needs;
    uint32_t needs_count;
    uint32_t pin; /* the deployed module that `fun` is in; 0: it is in a loaded one */
};

struct mp_catalog_provider {
    uint32_t node;
    uint32_t function;
};

/* Appends the providers of a query to `out`, as struct mp_catalog_provider: all live nodes that
 * have the highest version which fits and which any of them has together with all resources.
 * MP_ENOENT if there is none; mp_catalog_explain then says why. MP_ENOMEM. */
MP_MUST_USE enum mp_err mp_catalog_find(const struct mp_catalog *c,
                                        const struct mp_catalog_query *q, struct mp_buf *out);
/* The function on this node that fits, or NULL. */
const struct mp_catalog_function *mp_catalog_find_here(const struct mp_catalog *c,
                                                       const struct mp_catalog_query *q);
/* Whether waiting could help: a provider may still appear. False for what is refused for good (bad
 * name, another cluster). */
bool mp_catalog_may_appear(const struct mp_catalog *c, const struct mp_catalog_query *q);

/* Why find() gave nothing: fills in code, reason, message, hint, fun. Texts lie in the two buffers.
 * `now` lets it say how long ago the last node that had it went away. */
void mp_catalog_explain(const struct mp_catalog *c, mp_time now, const struct mp_catalog_query *q,
                        struct mp_fault *fault, struct mp_text *message, struct mp_text *hint);
/* The place of a deployed module; MP_CATALOG_NONE if it is not here. `host_module` and `metadata`
 * are not looked at. */
uint32_t mp_catalog_find_deployed(const struct mp_catalog *c, const struct mp_catalog_deployed *d);
/* The graph of a pipeline by name, the deployed one if `pin` is not 0; false and a fault as above
 * if no live node has one. */
bool mp_catalog_pipeline(const struct mp_catalog *c, struct mp_slice name, uint32_t pin,
                         struct mp_slice *graph, struct mp_fault *fault, struct mp_text *message,
                         struct mp_text *hint);

/* What a node says of itself; false if nothing is known. */
struct mp_catalog_about {
    uint32_t workers;
    struct mp_slice version;
    struct mp_slice resources; /* a MessagePack array of names */
    struct mp_slice topics;    /* the same of patterns; empty: there are none */
};
bool mp_catalog_about(const struct mp_catalog *c, uint32_t node, struct mp_catalog_about *out);

/* --- topics --- */

/* A member whose patterns may be others since it was last asked for here, or who came or went. */
struct mp_catalog_interest {
    uint32_t node;
    bool is_live;
    struct mp_slice topics; /* as above; empty: nothing is to go there (any more) */
};
/* One by one; false when there is none. */
bool mp_catalog_take_interest(struct mp_catalog *c, struct mp_catalog_interest *out);
/* A member's interest is to be taken again. */
void mp_catalog_note_interest(struct mp_catalog *c, uint32_t node);
/* The functions that are called with messages, one by one: *key is 0 at first. Of one name it is
 * the one that a caller without wishes gets. NULL at the end. */
const struct mp_catalog_function *mp_catalog_next_subscribed(const struct mp_catalog *c,
                                                             uint32_t *key);

/* --- telling other nodes --- */

/* Order-independent sums over (owner, generation, counter) of all entries, one for each bucket. */
void mp_catalog_digests(const struct mp_catalog *c, uint64_t out[MP_CATALOG_BUCKETS]);
/* Appends all entries in the buckets of `mask`, for ENTRIES elsewhere. */
MP_MUST_USE enum mp_err mp_catalog_put_entries(const struct mp_catalog *c, uint64_t mask,
                                               struct mp_buf *out);
/* Appends a request for the entry that `news` (of ANNOUNCE elsewhere) tells of, for
 * mp_catalog_put_have() there. MP_ENOENT if it is not newer than what is here; MP_ECORRUPT. */
MP_MUST_USE enum mp_err mp_catalog_put_wanted(const struct mp_catalog *c, struct mp_slice news,
                                              struct mp_buf *out);
/* Appends a request for the metadata of modules that is missing; MP_ENOENT if none is. */
MP_MUST_USE enum mp_err mp_catalog_put_missing(const struct mp_catalog *c, struct mp_buf *out);
/* Appends what is known of what was requested, about `bytes_max` at most (what does not fit is left
 * out, and asked for again); MP_ENOENT if that is nothing, MP_ECORRUPT for a malformed request. */
MP_MUST_USE enum mp_err mp_catalog_put_have(const struct mp_catalog *c, struct mp_slice request,
                                            size_t bytes_max, struct mp_buf *out);

/* --- documents of the commands: {"functions": [...]}, {"modules": [...]}, in order of name, the
 * highest version first, with the live nodes that have them --- */
MP_MUST_USE enum mp_err mp_catalog_put_functions(const struct mp_catalog *c, struct mp_buf *out);
MP_MUST_USE enum mp_err mp_catalog_put_modules(const struct mp_catalog *c, struct mp_buf *out);
