/* A binary min-heap of deadlines, indexed so that an entry can be moved or removed: each entry
 * carries a caller's key, and the heap tells the caller where it now stands through `place`.
 *
 * The caller keeps an array `uint32_t place[]` indexed by key; MP_HEAP_NONE says "not in the heap".
 */
#pragma once

#include <stdbool.h>

#include "src/base/alloc.h"
#include "src/base/compiler.h"
#include "src/base/err.h"
#include "src/base/time.h"

#define MP_HEAP_NONE UINT32_MAX

struct mp_heap_entry {
    mp_time at;
    uint32_t key;
};

struct mp_heap {
    /* read */
    uint32_t count;
    /* private */
    uint32_t capacity;
    struct mp_heap_entry *entries;
    struct mp_alloc *alloc;
};

void mp_heap_init(struct mp_heap *h, struct mp_alloc *a);
void mp_heap_fini(struct mp_heap *h);
/* Inserts key at `at`, or moves it there if it is in the heap. Equal times are ordered by key.
 * MP_ENOMEM only when inserting; the heap is then as before. */
MP_MUST_USE enum mp_err mp_heap_set(struct mp_heap *h, uint32_t *place, uint32_t key, mp_time at);
/* Removes key if it is in the heap. */
void mp_heap_remove(struct mp_heap *h, uint32_t *place, uint32_t key);
/* The earliest time, or MP_NEVER. */
static inline mp_time mp_heap_first(const struct mp_heap *h)
{
    return h->count == 0 ? MP_NEVER : h->entries[0].at;
}
/* The key that is due then, of a heap that is not empty. */
static inline uint32_t mp_heap_first_key(const struct mp_heap *h)
{
    return h->entries[0].key;
}
/* Takes the earliest key if it is due at `now`; false if none is. */
bool mp_heap_pop(struct mp_heap *h, uint32_t *place, mp_time now, uint32_t *key);
