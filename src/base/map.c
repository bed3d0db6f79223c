/* See map.h. The index holds at most half as many entries as slots, so a probe is short and always
 * meets an empty slot. */
#include "src/base/map.h"

#include "src/base/assert.h"

static uint32_t hash_of(struct mp_slice key)
{
    return (uint32_t)mp_slice_hash(key, 0);
}

/* The slot that holds key, or the empty one where it would go. */
static uint32_t find_slot(const struct mp_map *m, struct mp_slice key, uint32_t hash)
{
    uint32_t slot = hash & (m->slots - 1);
    while (m->index[slot] != 0) {
        const struct mp_map_entry *e = &m->entries[m->index[slot] - 1];
        if (e->hash == hash && mp_slice_equal(e->key, key))
            break;
        slot = (slot + 1) & (m->slots - 1);
    }
    return slot;
}

static enum mp_err grow(struct mp_map *m)
{
    uint32_t capacity = m->capacity == 0 ? 8 : m->capacity * 2;
    uint32_t slots = capacity * 2;
    uint32_t *index = mp_alloc_take(m->alloc, slots * sizeof(*index));
    if (!index)
        return MP_ENOMEM;
    void *entries =
        m->alloc->resize(m->alloc->context, m->entries, m->capacity * sizeof(*m->entries),
                         capacity * sizeof(*m->entries));
    if (!entries) {
        mp_alloc_free(m->alloc, index, slots * sizeof(*index));
        return MP_ENOMEM;
    }
    mp_alloc_free(m->alloc, m->index, m->slots * sizeof(*m->index));
    memset(index, 0, slots * sizeof(*index));
    m->entries = (struct mp_map_entry *)entries;
    m->capacity = capacity;
    m->index = index;
    m->slots = slots;
    for (uint32_t i = 0; i < m->count; i++)
        m->index[find_slot(m, m->entries[i].key, m->entries[i].hash)] = i + 1;
    return MP_OK;
}

void mp_map_init(struct mp_map *m, struct mp_alloc *a)
{
    *m = (struct mp_map){.alloc = a};
}

void mp_map_fini(struct mp_map *m)
{
    if (m->alloc) {
        mp_alloc_free(m->alloc, m->index, m->slots * sizeof(*m->index));
        mp_alloc_free(m->alloc, m->entries, m->capacity * sizeof(*m->entries));
    }
    *m = (struct mp_map){.alloc = m->alloc};
}

bool mp_map_get(const struct mp_map *m, struct mp_slice key, uint32_t *value)
{
    if (m->count == 0)
        return false;
    uint32_t found = m->index[find_slot(m, key, hash_of(key))];
    if (found == 0)
        return false;
    *value = m->entries[found - 1].value;
    return true;
}

enum mp_err mp_map_set(struct mp_map *m, struct mp_slice key, uint32_t value)
{
    uint32_t hash = hash_of(key);
    if (m->slots != 0) {
        uint32_t found = m->index[find_slot(m, key, hash)];
        if (found != 0) {
            m->entries[found - 1].value = value;
            return MP_OK;
        }
    }
    if (m->count == m->capacity) {
        enum mp_err err = grow(m);
        if (err != MP_OK)
            return err;
    }
    m->entries[m->count] = (struct mp_map_entry){.key = key, .value = value, .hash = hash};
    m->index[find_slot(m, key, hash)] = m->count + 1;
    m->count++;
    return MP_OK;
}

bool mp_map_remove(struct mp_map *m, struct mp_slice key)
{
    if (m->count == 0)
        return false;
    uint32_t slot = find_slot(m, key, hash_of(key));
    if (m->index[slot] == 0)
        return false;
    uint32_t gone = m->index[slot] - 1;
    /* Close the gap in the probe sequences (backward-shift deletion). */
    uint32_t hole = slot;
    for (uint32_t next = (hole + 1) & (m->slots - 1); m->index[next] != 0;
         next = (next + 1) & (m->slots - 1)) {
        uint32_t home = m->entries[m->index[next] - 1].hash & (m->slots - 1);
        if (((next - home) & (m->slots - 1)) >= ((next - hole) & (m->slots - 1))) {
            m->index[hole] = m->index[next];
            hole = next;
        }
    }
    m->index[hole] = 0;
    m->count--;
    if (gone != m->count) {
        struct mp_map_entry last = m->entries[m->count];
        slot = last.hash & (m->slots - 1);
        while (m->index[slot] != m->count + 1)
            slot = (slot + 1) & (m->slots - 1);
        m->entries[gone] = last;
        m->index[slot] = gone + 1;
    }
    return true;
}
