/* Things by their keys. The map's entries and the items stand in the same order, so that a removal,
 * which moves the last one into the gap, is the same in both. */
#include "src/core/topic/topic_internal.h"

enum mp_err mp_topic_grow(struct mp_alloc *a, void **array, uint32_t *capacity, uint32_t wanted,
                          size_t size)
{
    if (wanted <= *capacity)
        return MP_OK;
    uint32_t next = *capacity == 0 ? 4 : *capacity;
    while (next < wanted)
        next *= 2;
    void *grown = a->resize(a->context, *array, *capacity * size, next * size);
    if (!grown)
        return MP_ENOMEM;
    *array = grown;
    *capacity = next;
    return MP_OK;
}

void mp_topic_index_init(struct mp_topic_index *x, struct mp_alloc *a)
{
    *x = (struct mp_topic_index){0};
    mp_map_init(&x->map, a);
}

void mp_topic_index_fini(struct mp_topic_index *x)
{
    if (x->map.alloc)
        mp_alloc_free(x->map.alloc, x->items, x->capacity * sizeof(*x->items));
    mp_map_fini(&x->map);
    x->items = NULL;
    x->capacity = 0;
}

void *mp_topic_index_find(const struct mp_topic_index *x, struct mp_slice key)
{
    uint32_t place;
    return mp_map_get(&x->map, key, &place) ? x->items[place] : NULL;
}

enum mp_err mp_topic_index_add(struct mp_topic_index *x, struct mp_slice key, void *item)
{
    uint32_t place = x->map.count;
    MP_TRY(mp_topic_grow(x->map.alloc, (void **)&x->items, &x->capacity, place + 1,
                         sizeof(*x->items)));
    MP_TRY(mp_map_set(&x->map, key, place));
    mp_assert(x->map.count == place + 1);
    x->items[place] = item;
    return MP_OK;
}

void mp_topic_index_remove(struct mp_topic_index *x, struct mp_slice key)
{
    uint32_t place;
    bool is_there = mp_map_get(&x->map, key, &place);
    mp_assert(is_there);
    is_there = mp_map_remove(&x->map, key);
    mp_assert(is_there);
    uint32_t last = x->map.count;
    if (place == last)
        return;
    x->items[place] = x->items[last];
    enum mp_err err = mp_map_set(&x->map, x->map.entries[place].key, place);
    mp_assert(err == MP_OK); /* it is there: nothing is taken */
}
