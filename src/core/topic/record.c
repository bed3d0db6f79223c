/* Messages in memory, and several lists of them put in order: a heap of lists by their first
 * messages. Within a list the order is what it is, whatever its times say. */
#include "src/core/topic/topic_internal.h"

void mp_topic_record_write(uint8_t *out, const struct mp_topic_message *m)
{
    const struct mp_topic_record r = {.seq = m->seq, .at_ms = m->at_ms, .size = m->bytes.size};
    memcpy(out, &r, sizeof(r));
    memcpy(out + sizeof(r), m->bytes.data, m->bytes.size);
}

void mp_topic_merge_init(struct mp_topic_merge *m, struct mp_alloc *a)
{
    *m = (struct mp_topic_merge){.alloc = a};
}

void mp_topic_merge_fini(struct mp_topic_merge *m)
{
    if (m->alloc)
        mp_alloc_free(m->alloc, m->cursors, m->capacity * sizeof(*m->cursors));
    *m = (struct mp_topic_merge){.alloc = m->alloc};
}

static const struct mp_topic_record *first_of(const struct mp_topic_cursor *c)
{
    return (const struct mp_topic_record *)(const void *)c->pieces[0].data;
}

static bool is_before(const struct mp_topic_cursor *a, const struct mp_topic_cursor *b)
{
    const struct mp_topic_record *x = first_of(a);
    const struct mp_topic_record *y = first_of(b);
    if (x->at_ms != y->at_ms)
        return x->at_ms < y->at_ms;
    int order = a->publisher == b->publisher ? 0 : mp_slice_compare(a->name, b->name);
    return order != 0 ? order < 0 : x->seq < y->seq;
}

static void sift_down(struct mp_topic_merge *m, uint32_t i)
{
    struct mp_topic_cursor c = m->cursors[i];
    for (;;) {
        uint32_t child = 2 * i + 1;
        if (child >= m->count)
            break;
        if (child + 1 < m->count && is_before(&m->cursors[child + 1], &m->cursors[child]))
            child++;
        if (!is_before(&m->cursors[child], &c))
            break;
        m->cursors[i] = m->cursors[child];
        i = child;
    }
    m->cursors[i] = c;
}

enum mp_err mp_topic_merge_add(struct mp_topic_merge *m, const struct mp_topic_cursor *c)
{
    struct mp_topic_cursor added = *c;
    if (added.pieces[0].size == 0) {
        added.pieces[0] = added.pieces[1];
        added.pieces[1] = (struct mp_slice){0};
    }
    if (added.pieces[0].size == 0)
        return MP_OK;
    MP_TRY(mp_topic_grow(m->alloc, (void **)&m->cursors, &m->capacity, m->count + 1,
                         sizeof(*m->cursors)));
    uint32_t i = m->count++;
    while (i > 0 && is_before(&added, &m->cursors[(i - 1) / 2])) {
        m->cursors[i] = m->cursors[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    m->cursors[i] = added;
    return MP_OK;
}

const struct mp_topic_record *mp_topic_merge_peek(const struct mp_topic_merge *m,
                                                  uint32_t *publisher)
{
    if (m->count == 0)
        return NULL;
    *publisher = m->cursors[0].publisher;
    return first_of(&m->cursors[0]);
}

void mp_topic_merge_pass(struct mp_topic_merge *m)
{
    mp_assert(m->count != 0);
    struct mp_topic_cursor *c = &m->cursors[0];
    size_t size = mp_topic_record_bytes((size_t)first_of(c)->size);
    mp_assert(size <= c->pieces[0].size);
    c->pieces[0] = mp_slice_of(c->pieces[0].data + size, c->pieces[0].size - size);
    if (c->pieces[0].size == 0) {
        c->pieces[0] = c->pieces[1];
        c->pieces[1] = (struct mp_slice){0};
    }
    if (c->pieces[0].size == 0)
        *c = m->cursors[--m->count];
    if (m->count != 0)
        sift_down(m, 0);
}
