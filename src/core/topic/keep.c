/* What is written down of the backlog, for a node that has somewhere to write: what is new goes out
 * every now and then, as much as may go at once and only when the last has been written; what
 * leaves the backlog is to be forgotten. What is new and leaves before it was written is never
 * written. */
#include "src/core/topic/topic_internal.h"
#include "src/wire/msgpack.h"

/* --- when --- */

static void schedule(struct mp_topic *t, mp_time now)
{
    struct mp_topic_backlog *b = &t->backlog;
    if (b->is_keeping || b->keep_at != MP_NEVER)
        return;
    mp_time next = b->kept_last == 0 ? now : mp_time_add(b->kept_last, MP_MS(MP_TOPIC_KEEP_MS));
    b->keep_at = next > now ? next : now;
}

void mp_topic_keep_wake(struct mp_topic *t, struct mp_topic_ring *g, mp_time now)
{
    if (!g->dirty.next)
        mp_topic_list_add(&t->backlog.dirty, &g->dirty);
    schedule(t, now);
}

static enum mp_err put_forget(struct mp_buf *b, const struct mp_topic_ring *g, uint64_t seq)
{
    size_t before = b->size;
    enum mp_err err = mp_mp_put_array(b, 2);
    if (err == MP_OK)
        err = mp_mp_put_str(b, mp_slice_of(g->topic, g->topic_size));
    if (err == MP_OK)
        err = mp_mp_put_uint(b, seq);
    if (err != MP_OK)
        b->size = before;
    return err;
}

void mp_topic_keep_gone(struct mp_topic *t, struct mp_topic_ring *g, mp_time now)
{
    if (!t->is_kept || g->kept_seq == 0)
        return;
    if (put_forget(&t->backlog.gone, g, g->kept_seq) != MP_OK)
        return; /* it is found to be too old, or too much, at the next start */
    t->backlog.gone_count++;
    schedule(t, now);
}

void mp_topic_kept(struct mp_topic *t, mp_time now)
{
    struct mp_topic_backlog *b = &t->backlog;
    b->is_keeping = false;
    if (!mp_topic_list_is_empty(&b->dirty) || b->gone_count != 0)
        schedule(t, now);
}

/* --- what --- */

static enum mp_err begin(struct mp_buf *b)
{
    mp_buf_clear(b);
    MP_TRY(mp_buf_reserve(b, MP_TOPIC_HEADER_BYTES));
    b->size = MP_TOPIC_HEADER_BYTES;
    return MP_OK;
}

static struct mp_slice finish(struct mp_buf *b, uint32_t count)
{
    const uint8_t *start = mp_topic_put_header(b->data + MP_TOPIC_HEADER_BYTES, count);
    return mp_slice_of(start, (size_t)(b->data + b->size - start));
}

/* Appends what is new of a topic; MP_EFULL: more than may go at once. */
static enum mp_err put_new(struct mp_topic *t, struct mp_topic_ring *g, uint32_t *count)
{
    struct mp_buf *b = &t->backlog.keep;
    for (const struct mp_topic_record *r = mp_topic_ring_first(g); r;
         r = mp_topic_ring_next(g, r)) {
        if (r->seq <= g->kept_seq)
            continue;
        if (*count != 0 && b->size + (size_t)r->size > MP_TOPIC_KEEP_BYTES)
            return MP_EFULL;
        MP_TRY(mp_buf_append(b, mp_topic_record_message(r)));
        g->kept_seq = r->seq;
        (*count)++;
    }
    return MP_OK;
}

/* Goes through the topics with something to keep or to forget, until memory or bytes run out. */
static enum mp_err collect(struct mp_topic *t, uint32_t *kept, uint32_t *forgotten)
{
    struct mp_topic_backlog *b = &t->backlog;
    while (!mp_topic_list_is_empty(&b->dirty)) {
        struct mp_topic_ring *g = MP_TOPIC_OF(b->dirty.next, struct mp_topic_ring, dirty);
        if (g->forget_seq != 0) {
            MP_TRY(put_forget(&b->forget, g, g->forget_seq));
            g->forget_seq = 0;
            (*forgotten)++;
        }
        MP_TRY(put_new(t, g, kept));
        mp_topic_list_remove(&g->dirty);
    }
    return MP_OK;
}

void mp_topic_keep_run(struct mp_topic *t, mp_time now)
{
    struct mp_topic_backlog *b = &t->backlog;
    uint32_t kept = 0;
    uint32_t forgotten = 0;
    if (now < b->keep_at)
        return;
    b->keep_at = mp_time_add(now, MP_MS(MP_TOPIC_RETRY_MS));
    if (mp_topic_effects_reserve(t, 2) != MP_OK || begin(&b->keep) != MP_OK ||
        begin(&b->forget) != MP_OK || mp_buf_append(&b->forget, mp_buf_slice(&b->gone)) != MP_OK)
        return;
    forgotten = b->gone_count;
    mp_buf_fini(&b->gone);
    b->gone_count = 0;
    enum mp_err err = collect(t, &kept, &forgotten);
    b->kept_last = now;
    b->is_keeping = kept != 0;
    b->keep_at = MP_NEVER;
    if (err != MP_OK)
        schedule(t, now);
    if (kept != 0) {
        struct mp_topic_effect *e = mp_topic_effect(t, MP_TOPIC_KEEP);
        e->count = kept;
        e->payload = finish(&b->keep, kept);
    }
    if (forgotten != 0) {
        struct mp_topic_effect *e = mp_topic_effect(t, MP_TOPIC_FORGET);
        e->count = forgotten;
        e->payload = finish(&b->forget, forgotten);
    }
}

/* --- an earlier life --- */

/* When a message was published, on this life's clock. */
static mp_time time_of(mp_time now, uint64_t wall_ms, uint64_t at_ms)
{
    uint64_t age_ms = wall_ms > at_ms ? wall_ms - at_ms : 0;
    return age_ms > now / MP_MS(1) ? 0 : now - MP_MS(age_ms);
}

enum mp_err mp_topic_restore(struct mp_topic *t, mp_time now, const struct mp_topic_event *ev)
{
    MP_TRY(mp_topic_read_messages(t, ev->restored, t->seq));
    for (uint32_t i = 0; i < t->message_count; i++) {
        const struct mp_topic_message *m = &t->messages[i];
        mp_topic_backlog_add(t, time_of(now, ev->wall_ms, m->at_ms), ev->wall_ms, m, true);
        t->seq = m->seq;
        t->at_ms = m->at_ms > t->at_ms ? m->at_ms : t->at_ms;
    }
    return MP_OK;
}
