/* What is kept of each topic that was published to here: the newest messages, in a ring of bytes
 * that grows as it needs. All rings together are bounded: the topic that was published to least
 * recently goes first. Without memory a message is not kept; nobody waits for it. */
#include "src/core/topic/topic_internal.h"
#include "src/wire/topic.h"

#define RING_BYTES_LEAST 256u

static struct mp_slice topic_of(const struct mp_topic_ring *g)
{
    return mp_slice_of(g->topic, g->topic_size);
}

/* --- life --- */

void mp_topic_backlog_init(struct mp_topic *t)
{
    struct mp_topic_backlog *b = &t->backlog;
    *b = (struct mp_topic_backlog){.keep_at = MP_NEVER};
    mp_topic_list_init(&b->rings);
    mp_topic_list_init(&b->dirty);
    mp_topic_index_init(&b->by_topic, t->alloc);
    mp_buf_init(&b->keep, t->alloc, 0);
    mp_buf_init(&b->forget, t->alloc, 0);
    mp_buf_init(&b->gone, t->alloc, MP_TOPIC_FORGET_BYTES);
}

static void ring_free(struct mp_topic *t, struct mp_topic_ring *g)
{
    struct mp_topic_backlog *b = &t->backlog;
    mp_topic_list_remove(&g->link);
    mp_topic_list_remove(&g->dirty);
    mp_topic_index_remove(&b->by_topic, topic_of(g));
    if (b->last == g)
        b->last = NULL;
    b->bytes -= g->capacity;
    mp_alloc_free(t->alloc, g->data, g->capacity);
    mp_alloc_free(t->alloc, g, sizeof(*g) + g->topic_size);
}

void mp_topic_backlog_fini(struct mp_topic *t)
{
    struct mp_topic_backlog *b = &t->backlog;
    while (!mp_topic_list_is_empty(&b->rings))
        ring_free(t, MP_TOPIC_OF(b->rings.next, struct mp_topic_ring, link));
    mp_topic_index_fini(&b->by_topic);
    mp_buf_fini(&b->keep);
    mp_buf_fini(&b->forget);
    mp_buf_fini(&b->gone);
}

/* --- a ring --- */

static const struct mp_topic_record *record_at(const struct mp_topic_ring *g, size_t at)
{
    return (const struct mp_topic_record *)(const void *)(g->data + at);
}

const struct mp_topic_record *mp_topic_ring_first(const struct mp_topic_ring *g)
{
    return g->count == 0 ? NULL : record_at(g, g->head);
}

const struct mp_topic_record *mp_topic_ring_next(const struct mp_topic_ring *g,
                                                 const struct mp_topic_record *r)
{
    size_t at = (size_t)((const uint8_t *)r - g->data) + mp_topic_record_bytes((size_t)r->size);
    if (g->is_wrapped && at == g->limit)
        at = 0;
    return at == g->tail ? NULL : record_at(g, at);
}

/* The oldest one goes. */
static void drop_first(struct mp_topic *t, struct mp_topic_ring *g, mp_time now)
{
    const struct mp_topic_record *r = record_at(g, g->head);
    size_t size = mp_topic_record_bytes((size_t)r->size);
    if (t->is_kept && r->seq <= g->kept_seq) {
        g->forget_seq = r->seq;
        mp_topic_keep_wake(t, g, now);
    }
    g->head += size;
    g->bytes -= size;
    g->count--;
    if (g->is_wrapped && g->head == g->limit) {
        g->head = 0;
        g->is_wrapped = false;
    }
    if (g->count == 0) {
        mp_assert(g->bytes == 0);
        g->head = g->tail = 0;
        g->is_wrapped = false;
    }
}

/* Where `size` bytes may be written; false: nowhere. */
static bool find_place(struct mp_topic_ring *g, size_t size)
{
    if (g->is_wrapped)
        return g->head - g->tail >= size;
    if (g->capacity - g->tail >= size)
        return true;
    if (g->count == 0 || g->head < size)
        return false;
    g->limit = g->tail;
    g->tail = 0;
    g->is_wrapped = true;
    return true;
}

/* Makes a ring larger, with its records in one piece. */
static enum mp_err ring_grow(struct mp_topic *t, struct mp_topic_ring *g, size_t size)
{
    size_t capacity = g->capacity == 0 ? RING_BYTES_LEAST : g->capacity * 2;
    while (capacity < g->bytes + size)
        capacity *= 2;
    uint8_t *data = mp_alloc_take(t->alloc, capacity);
    if (!data)
        return MP_ENOMEM;
    size_t first = (g->is_wrapped ? g->limit : g->tail) - g->head;
    if (g->count != 0)
        memcpy(data, g->data + g->head, first);
    if (g->is_wrapped)
        memcpy(data + first, g->data, g->tail);
    mp_alloc_free(t->alloc, g->data, g->capacity);
    t->backlog.bytes += capacity - g->capacity;
    g->data = data;
    g->capacity = capacity;
    g->head = 0;
    g->tail = g->bytes;
    g->is_wrapped = false;
    return MP_OK;
}

/* Makes a place for `size` bytes: the oldest go if the ring may not grow. False: there is none. */
static bool make_place(struct mp_topic *t, struct mp_topic_ring *g, size_t size, mp_time now)
{
    while (!find_place(g, size)) {
        bool may_grow = g->capacity < MP_TOPIC_BACKLOG_BYTES || g->count == 0;
        if (may_grow && ring_grow(t, g, size) == MP_OK)
            continue;
        if (g->count == 0)
            return false;
        drop_first(t, g, now);
    }
    return true;
}

/* --- topics --- */

static void vanish(struct mp_topic *t, struct mp_topic_ring *g, mp_time now)
{
    mp_topic_keep_gone(t, g, now);
    ring_free(t, g);
}

static struct mp_topic_ring *oldest(const struct mp_topic *t)
{
    return MP_TOPIC_OF(t->backlog.rings.next, struct mp_topic_ring, link);
}

static struct mp_topic_ring *ring_of(struct mp_topic *t, struct mp_slice topic, mp_time now)
{
    struct mp_topic_backlog *b = &t->backlog;
    if (b->last && mp_slice_equal(topic_of(b->last), topic))
        return b->last;
    struct mp_topic_ring *g = mp_topic_index_find(&b->by_topic, topic);
    if (!g) {
        if (b->by_topic.map.count == MP_TOPIC_BACKLOGS_MAX)
            vanish(t, oldest(t), now);
        g = mp_alloc_take(t->alloc, sizeof(*g) + topic.size);
        if (!g)
            return NULL;
        *g = (struct mp_topic_ring){.topic_size = (uint32_t)topic.size};
        memcpy(g->topic, topic.data, topic.size);
        if (mp_topic_index_add(&b->by_topic, topic_of(g), g) != MP_OK) {
            mp_alloc_free(t->alloc, g, sizeof(*g) + topic.size);
            return NULL;
        }
        mp_topic_list_add(&b->rings, &g->link);
    }
    b->last = g;
    return g;
}

static bool is_old(const struct mp_topic_record *r, uint64_t wall_ms)
{
    return wall_ms > MP_TOPIC_BACKLOG_MS && r->at_ms < wall_ms - MP_TOPIC_BACKLOG_MS;
}

void mp_topic_backlog_add(struct mp_topic *t, mp_time now, uint64_t wall_ms,
                          const struct mp_topic_message *m, bool is_kept)
{
    struct mp_topic_backlog *b = &t->backlog;
    struct mp_topic_ring *g = ring_of(t, m->topic, now);
    if (!g)
        return;
    size_t size = mp_topic_record_bytes(m->bytes.size);
    while (g->count != 0 &&
           (g->count >= MP_TOPIC_BACKLOG_MESSAGES || g->bytes + size > MP_TOPIC_BACKLOG_BYTES ||
            is_old(mp_topic_ring_first(g), wall_ms)))
        drop_first(t, g, now);
    if (make_place(t, g, size, now)) {
        mp_topic_record_write(g->data + g->tail, m);
        g->tail += size;
        g->bytes += size;
        g->count++;
        g->last_seq = m->seq;
    }
    g->published_at = now;
    mp_topic_list_remove(&g->link);
    mp_topic_list_add(&b->rings, &g->link);
    if (is_kept)
        g->kept_seq = m->seq;
    else if (t->is_kept && !g->dirty.next)
        mp_topic_keep_wake(t, g, now);
    while (b->bytes > MP_TOPIC_BACKLOGS_BYTES_MAX && oldest(t) != g)
        vanish(t, oldest(t), now);
}

mp_time mp_topic_backlog_deadline(const struct mp_topic *t)
{
    if (mp_topic_list_is_empty(&t->backlog.rings))
        return MP_NEVER;
    return mp_time_add(oldest(t)->published_at, MP_MS(MP_TOPIC_BACKLOG_MS));
}

void mp_topic_backlog_expire(struct mp_topic *t, mp_time now)
{
    while (mp_topic_backlog_deadline(t) <= now)
        vanish(t, oldest(t), now);
}

/* --- asking --- */

/* What is to be said of a backlog. */
struct amount {
    size_t bytes;
    uint32_t messages;
};

/* Adds what matches to a merge, and counts what of it is new enough. */
static enum mp_err add_matching(struct mp_topic *t, struct mp_topic_merge *merge,
                                struct mp_slice pattern, uint64_t since_ms, struct amount *all)
{
    const struct mp_topic_backlog *b = &t->backlog;
    for (struct mp_topic_link *l = b->rings.next; l != &b->rings; l = l->next) {
        const struct mp_topic_ring *g = MP_TOPIC_OF(l, struct mp_topic_ring, link);
        if (g->count == 0 || !mp_topic_is_match(pattern, topic_of(g)))
            continue;
        size_t end = g->is_wrapped ? g->limit : g->tail;
        const struct mp_topic_cursor c = {
            .pieces = {mp_slice_of(g->data + g->head, end - g->head),
                       mp_slice_of(g->data, g->is_wrapped ? g->tail : 0)}};
        MP_TRY(mp_topic_merge_add(merge, &c));
        for (const struct mp_topic_record *r = mp_topic_ring_first(g); r;
             r = mp_topic_ring_next(g, r)) {
            if (r->at_ms < since_ms)
                continue;
            all->bytes += (size_t)r->size;
            all->messages++;
        }
    }
    return MP_OK;
}

/* Appends what a merge has from since_ms on, without the oldest if it is more than may be. */
static enum mp_err put_newest(struct mp_topic *t, struct mp_topic_merge *merge, uint64_t since_ms,
                              struct amount left, uint32_t *count)
{
    uint32_t publisher;
    const struct mp_topic_record *r;
    for (; (r = mp_topic_merge_peek(merge, &publisher)) != NULL; mp_topic_merge_pass(merge)) {
        if (r->at_ms < since_ms)
            continue;
        bool is_too_much = left.messages > MP_TOPIC_PUBLISH_MAX ||
                           (left.bytes > MP_TOPIC_ANSWER_BYTES_MAX && left.messages > 1);
        left.bytes -= (size_t)r->size;
        left.messages--;
        if (is_too_much)
            continue;
        MP_TRY(mp_buf_append(&t->answer, mp_topic_record_message(r)));
        (*count)++;
    }
    mp_assert(left.messages == 0 && left.bytes == 0);
    return MP_OK;
}

enum mp_err mp_topic_backlog_query(struct mp_topic *t, struct mp_slice pattern, uint64_t since_ms,
                                   uint64_t wall_ms, struct mp_slice *array)
{
    struct mp_topic_merge merge;
    struct amount all = {0};
    uint32_t count = 0;
    if (wall_ms > MP_TOPIC_BACKLOG_MS && since_ms < wall_ms - MP_TOPIC_BACKLOG_MS)
        since_ms = wall_ms - MP_TOPIC_BACKLOG_MS;
    mp_topic_merge_init(&merge, t->alloc);
    mp_buf_clear(&t->answer);
    enum mp_err err = mp_buf_reserve(&t->answer, MP_TOPIC_HEADER_BYTES);
    t->answer.size = err == MP_OK ? MP_TOPIC_HEADER_BYTES : 0;
    if (err == MP_OK)
        err = add_matching(t, &merge, pattern, since_ms, &all);
    if (err == MP_OK)
        err = put_newest(t, &merge, since_ms, all, &count);
    mp_topic_merge_fini(&merge);
    MP_TRY(err);
    const uint8_t *start = mp_topic_put_header(t->answer.data + MP_TOPIC_HEADER_BYTES, count);
    *array = mp_slice_of(start, (size_t)(t->answer.data + t->answer.size - start));
    return MP_OK;
}
