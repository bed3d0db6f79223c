/* See heap.h. Invariant: place[entries[i].key] == i for every i < count. */
#include "src/base/heap.h"

#include "src/base/assert.h"

/* Without a branch: which of two children is the earlier one cannot be predicted. */
static bool is_before(struct mp_heap_entry a, struct mp_heap_entry b)
{
    return (a.at < b.at) | ((a.at == b.at) & (a.key < b.key));
}

static void put(struct mp_heap *h, uint32_t *place, uint32_t i, struct mp_heap_entry e)
{
    h->entries[i] = e;
    place[e.key] = i;
}

static void sift_up(struct mp_heap *h, uint32_t *place, uint32_t i)
{
    struct mp_heap_entry e = h->entries[i];
    while (i > 0 && is_before(e, h->entries[(i - 1) / 2])) {
        put(h, place, i, h->entries[(i - 1) / 2]);
        i = (i - 1) / 2;
    }
    put(h, place, i, e);
}

static void sift_down(struct mp_heap *h, uint32_t *place, uint32_t i)
{
    struct mp_heap_entry e = h->entries[i];
    for (;;) {
        uint32_t child = 2 * i + 1;
        if (child >= h->count)
            break;
        if (child + 1 < h->count)
            child += is_before(h->entries[child + 1], h->entries[child]);
        if (!is_before(h->entries[child], e))
            break;
        put(h, place, i, h->entries[child]);
        i = child;
    }
    put(h, place, i, e);
}

void mp_heap_init(struct mp_heap *h, struct mp_alloc *a)
{
    *h = (struct mp_heap){.alloc = a};
}

void mp_heap_fini(struct mp_heap *h)
{
    if (h->alloc)
        mp_alloc_free(h->alloc, h->entries, h->capacity * sizeof(*h->entries));
    h->entries = NULL;
    h->count = 0;
    h->capacity = 0;
}

enum mp_err mp_heap_set(struct mp_heap *h, uint32_t *place, uint32_t key, mp_time at)
{
    uint32_t i = place[key];
    if (i != MP_HEAP_NONE) {
        mp_assert(i < h->count && h->entries[i].key == key);
        mp_time before = h->entries[i].at;
        h->entries[i].at = at;
        if (at < before)
            sift_up(h, place, i);
        else if (at > before)
            sift_down(h, place, i);
        return MP_OK;
    }
    if (h->count == h->capacity) {
        uint32_t capacity = h->capacity == 0 ? 64 : h->capacity * 2;
        void *entries =
            h->alloc->resize(h->alloc->context, h->entries, h->capacity * sizeof(*h->entries),
                             capacity * sizeof(*h->entries));
        if (!entries)
            return MP_ENOMEM;
        h->entries = (struct mp_heap_entry *)entries;
        h->capacity = capacity;
    }
    put(h, place, h->count, (struct mp_heap_entry){.at = at, .key = key});
    h->count++;
    sift_up(h, place, h->count - 1);
    return MP_OK;
}

void mp_heap_remove(struct mp_heap *h, uint32_t *place, uint32_t key)
{
    uint32_t i = place[key];
    if (i == MP_HEAP_NONE)
        return;
    mp_assert(i < h->count && h->entries[i].key == key);
    place[key] = MP_HEAP_NONE;
    h->count--;
    if (i == h->count)
        return;
    struct mp_heap_entry removed = h->entries[i];
    put(h, place, i, h->entries[h->count]);
    if (is_before(h->entries[i], removed))
        sift_up(h, place, i);
    else
        sift_down(h, place, i);
}

bool mp_heap_pop(struct mp_heap *h, uint32_t *place, mp_time now, uint32_t *key)
{
    if (h->count == 0 || h->entries[0].at > now)
        return false;
    *key = h->entries[0].key;
    mp_heap_remove(h, place, *key);
    return true;
}
