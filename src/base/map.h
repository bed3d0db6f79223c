/* A hash map from byte strings (borrowed: the caller keeps them alive) to 32-bit values. Open
 * addressing, linear probing; iteration is in insertion order, so nothing depends on the hash. */
#pragma once

#include <stdbool.h>

#include "src/base/alloc.h"
#include "src/base/compiler.h"
#include "src/base/err.h"
#include "src/base/slice.h"

struct mp_map_entry {
    struct mp_slice key;
    uint32_t value;
    uint32_t hash;
};

struct mp_map {
    /* read: entries[0 .. count), in insertion order (a removal moves the last one into the gap) */
    uint32_t count;
    struct mp_map_entry *entries;
    /* private */
    uint32_t capacity; /* of entries */
    uint32_t slots;    /* power of two, or 0 */
    uint32_t *index;   /* slot -> entry + 1, 0 empty */
    struct mp_alloc *alloc;
};

void mp_map_init(struct mp_map *m, struct mp_alloc *a);
void mp_map_fini(struct mp_map *m);
/* The value under key; false if there is none. */
bool mp_map_get(const struct mp_map *m, struct mp_slice key, uint32_t *value);
/* Inserts or replaces (the first key's bytes stay). MP_ENOMEM leaves the map as before. */
MP_MUST_USE enum mp_err mp_map_set(struct mp_map *m, struct mp_slice key, uint32_t value);
/* Removes key; false if it was not there. */
bool mp_map_remove(struct mp_map *m, struct mp_slice key);
