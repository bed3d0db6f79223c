/* What the files of the history of deploys share.
 *
 *   deploy.c     its life, merging
 *   entry.c      an entry's bytes, read and written
 *   rules.c      what a new entry may be
 *   rollback.c   what a rollback leads to
 *   history.c    what is live, what was overtaken, the document
 *   exchange.c   what is said to other nodes
 *
 * Entries are kept as they came, in blocks that never move, with what orders them beside;
 * everything else is read out of the bytes when it is asked for. Names of modules and keys of maps
 * point into the blocks. */
#pragma once

#include "src/core/deploy/deploy.h"

/* An entry that is kept. */
struct mp_deploy_record {
    uint64_t epoch;
    uint16_t size;    /* of bytes */
    uint16_t node_at; /* the stamp's node in bytes */
    uint8_t node_size;
    bool is_here;     /* this node is in its scope */
    bool is_undeploy; /* nothing is live by it */
    uint8_t bytes[];
};

struct mp_deploy_module {
    struct mp_slice name;              /* points into its first record */
    bool is_pipeline;                  /* which has a space of names of its own */
    struct mp_deploy_record **records; /* ascending by stamp */
    uint32_t count;
    uint32_t capacity;
    const struct mp_deploy_record *live; /* the last one that is here; NULL: none is */
    uint64_t digest;
    size_t bytes; /* of all its entries */
};

struct mp_deploy {
    struct mp_alloc *alloc;
    uint64_t defects;
    struct mp_deploy_module *modules; /* in the order in which they came */
    uint32_t *order;                  /* of all by name, a module before the pipeline of its name */
    uint32_t *live;                   /* of those that something is live of, in the same order */
    uint32_t module_count;
    uint32_t live_count;
    uint32_t module_capacity; /* of the three lists, each with its own: a growth may fail between */
    uint32_t order_capacity;
    uint32_t live_capacity;
    uint32_t entry_count;
    uint64_t epoch_max;
    uint64_t digest;
    struct mp_map by_name[2]; /* of modules, of pipelines: name → place in modules */
    struct mp_buf fresh;      /* behind room for the largest header of an array */
    uint8_t node_size;
    uint8_t node[MP_NODE_NAME_BYTES_MAX];
};

/* --- entry.c --- */

/* Reads and checks an entry; why it is malformed (static), or NULL. */
const char *mp_deploy_check_entry(struct mp_slice bytes, struct mp_deploy_entry *e);
/* What a record holds; it was checked when it came. */
void mp_deploy_entry_of(const struct mp_deploy_record *r, struct mp_deploy_entry *e);
struct mp_deploy_stamp mp_deploy_stamp_of(const struct mp_deploy_record *r);
/* <0, 0, >0 */
int mp_deploy_compare(const struct mp_deploy_stamp *a, const struct mp_deploy_stamp *b);
/* Appends the hex digits of a hash as a text. */
MP_MUST_USE enum mp_err mp_deploy_put_hex(struct mp_buf *out, struct mp_slice hash);
/* The first `digits` hex digits of a hash, for people. */
void mp_deploy_text_hex(struct mp_text *out, struct mp_slice hash, size_t digits);

/* --- deploy.c --- */

static inline struct mp_slice mp_deploy_node_of(const struct mp_deploy *d)
{
    return mp_slice_of(d->node, d->node_size);
}

/* The module or pipeline of that name, or NULL. */
const struct mp_deploy_module *mp_deploy_module_of(const struct mp_deploy *d, struct mp_slice name,
                                                   bool is_pipeline);
/* How many records of a module come before a stamp: the place of the one that has it, if one does.
 */
uint32_t mp_deploy_place_of(const struct mp_deploy_module *m, const struct mp_deploy_stamp *stamp);
/* The record with that stamp, or NULL. */
const struct mp_deploy_record *mp_deploy_record_at(const struct mp_deploy_module *m,
                                                   const struct mp_deploy_stamp *stamp);
