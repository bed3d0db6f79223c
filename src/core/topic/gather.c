/* Subscriptions that begin with what is kept. From the first moment what comes for one is queued.
 * Meanwhile all nodes are asked for their backlogs, this one answers at once; when all have
 * answered, or the time is up, what they sent goes out in the order of (time, publisher, seq), and
 * then the queue.
 *
 * Nothing comes twice: of each publisher the last message that came by gathering is remembered, and
 * what comes of it or from before is left out, until something later comes. It is told by both seq
 * and time: a publisher that began anew counts from 1 again, but later. Nothing is missing: whoever
 * is asked sends on, from the moment of its answer, what it publishes from then on. */
#include "src/core/topic/topic_internal.h"
#include "src/wire/topic.h"

static struct mp_slice pattern_of(const struct mp_topic_gather *g)
{
    return mp_slice_of(g->pattern, g->pattern_size);
}

/* --- parts --- */

/* Adds the messages that were read last as those of a publisher, of which the part now takes care.
 */
static enum mp_err add_part(struct mp_topic *t, struct mp_topic_gather *g, uint32_t publisher)
{
    size_t bytes = 0;
    for (uint32_t i = 0; i < t->message_count; i++)
        bytes += mp_topic_record_bytes(t->messages[i].bytes.size);
    MP_TRY(mp_topic_grow(t->alloc, (void **)&g->parts, &g->part_capacity, g->part_count + 1,
                         sizeof(*g->parts)));
    struct mp_topic_part *p = &g->parts[g->part_count];
    *p = (struct mp_topic_part){.publisher = publisher};
    mp_buf_init(&p->records, t->alloc, 0);
    if (g->bytes + bytes > MP_TOPIC_GATHER_BYTES_MAX ||
        t->gathered_bytes + bytes > MP_TOPIC_GATHERS_BYTES_MAX) {
        p->left_out = t->message_count;
        t->stats.dropped += p->left_out;
        g->part_count++;
        return MP_OK;
    }
    MP_TRY(mp_buf_reserve(&p->records, bytes));
    for (uint32_t i = 0; i < t->message_count; i++) {
        const struct mp_topic_message *m = &t->messages[i];
        mp_topic_record_write(p->records.data + p->records.size, m);
        p->records.size += mp_topic_record_bytes(m->bytes.size);
        p->last_seq = m->seq;
        p->last_at = m->at_ms > p->last_at ? m->at_ms : p->last_at;
    }
    g->bytes += bytes;
    t->gathered_bytes += bytes;
    g->part_count++;
    return MP_OK;
}

static enum mp_err add_own(struct mp_topic *t, struct mp_topic_gather *g, uint64_t wall_ms)
{
    struct mp_slice array;
    MP_TRY(mp_topic_backlog_query(t, pattern_of(g), g->since_ms, wall_ms, &array));
    MP_TRY(mp_topic_read_messages(t, array, 0));
    MP_TRY(add_part(t, g, MP_TOPIC_OWN));
    t->publishers[MP_TOPIC_OWN]->refs++;
    return MP_OK;
}

/* --- life --- */

enum mp_err mp_topic_gather_new(struct mp_topic *t, mp_time now, const struct mp_topic_event *ev,
                                struct mp_topic_sink *s)
{
    struct mp_slice pattern = ev->subscribe.pattern;
    if (t->gather_count == MP_TOPIC_GATHERS_MAX)
        return MP_EFULL;
    MP_TRY(mp_topic_effects_reserve(t, 1));
    struct mp_topic_gather *g = mp_alloc_take(t->alloc, sizeof(*g) + pattern.size);
    if (!g)
        return MP_ENOMEM;
    *g = (struct mp_topic_gather){.number = t->gather_number + 1,
                                  .deadline = mp_time_add(now, MP_MS(MP_TOPIC_GATHER_MS)),
                                  .sink = s,
                                  .since_ms = ev->subscribe.since_ms,
                                  .pattern_size = (uint32_t)pattern.size};
    memcpy(g->pattern, pattern.data, pattern.size);
    mp_topic_merge_init(&g->merge, t->alloc);
    mp_topic_queue_init(&g->queue, t);
    t->gather_count++;
    enum mp_err err = add_own(t, g, ev->wall_ms);
    if (err != MP_OK) {
        mp_topic_gather_free(t, g);
        return err;
    }
    t->gather_number = g->number;
    mp_topic_list_add(&t->gathers, &g->link);
    s->gather = g;
    struct mp_topic_effect *e = mp_topic_effect(t, MP_TOPIC_GATHER);
    e->client = s->key[0];
    e->id = s->key[1];
    e->gather = g->number;
    e->pattern = pattern_of(g);
    e->since_ms = g->since_ms;
    return MP_OK;
}

void mp_topic_gather_free(struct mp_topic *t, struct mp_topic_gather *g)
{
    if (g->sink)
        g->sink->gather = NULL;
    mp_topic_list_remove(&g->link);
    mp_topic_merge_fini(&g->merge);
    mp_topic_queue_clear(&g->queue, t);
    for (uint32_t i = 0; i < g->part_count; i++) {
        mp_buf_fini(&g->parts[i].records);
        mp_topic_publisher_release(t, g->parts[i].publisher);
    }
    mp_alloc_free(t->alloc, g->parts, g->part_capacity * sizeof(*g->parts));
    mp_assert(t->gather_count != 0 && t->gathered_bytes >= g->bytes);
    t->gather_count--;
    t->gathered_bytes -= g->bytes;
    mp_alloc_free(t->alloc, g, sizeof(*g) + g->pattern_size);
}

/* --- answers --- */

static struct mp_topic_gather *gather_of(struct mp_topic *t, uint64_t number)
{
    for (struct mp_topic_link *l = t->gathers.next; l != &t->gathers; l = l->next) {
        struct mp_topic_gather *g = MP_TOPIC_OF(l, struct mp_topic_gather, link);
        if (g->number == number)
            return g;
    }
    return NULL;
}

/* Whether the messages that were read last are an answer to what was asked. */
static bool is_answer(const struct mp_topic *t, const struct mp_topic_gather *g, uint64_t upto_seq)
{
    for (uint32_t i = 0; i < t->message_count; i++)
        if (t->messages[i].seq > upto_seq ||
            !mp_topic_is_match(pattern_of(g), t->messages[i].topic))
            return false;
    return true;
}

static bool has_answered(const struct mp_topic_gather *g, uint32_t publisher)
{
    for (uint32_t i = 0; i < g->part_count; i++)
        if (g->parts[i].publisher == publisher)
            return true;
    return false;
}

enum mp_err mp_topic_gathered(struct mp_topic *t, const struct mp_topic_event *ev)
{
    struct mp_topic_gather *g = gather_of(t, ev->gathered.gather);
    uint32_t publisher;
    if (!g)
        return MP_ENOENT;
    if (!mp_slice_is_name(ev->gathered.publisher))
        return MP_ECORRUPT;
    MP_TRY(mp_topic_read_messages(t, ev->gathered.messages, 0));
    if (!is_answer(t, g, ev->gathered.upto_seq))
        return MP_ECORRUPT;
    MP_TRY(mp_topic_publisher_take(t, ev->gathered.publisher, &publisher));
    enum mp_err err = has_answered(g, publisher) ? MP_ECORRUPT : add_part(t, g, publisher);
    if (err != MP_OK)
        mp_topic_publisher_release(t, publisher);
    return err;
}

/* --- joining what goes on --- */

/* What a subscription is to know of a publisher before it joins. May be done again. */
static enum mp_err prepare(struct mp_topic *t, struct mp_topic_gather *g, struct mp_topic_part *p)
{
    struct mp_topic_heard *h = mp_topic_sink_heard(t, g->sink, p->publisher);
    if (!h)
        return MP_ENOMEM;
    h->joined_seq = p->last_seq;
    h->joined_at = p->last_at;
    if (p->left_out == 0)
        return MP_OK;
    const struct mp_topic_batch like = {.publisher = p->publisher, .dropped = p->left_out};
    MP_TRY(mp_topic_queue_begin(&g->queue, t, &like, 0));
    p->left_out = 0;
    return MP_OK;
}

static void join_part(struct mp_topic *t, struct mp_topic_sink *s, const struct mp_topic_part *p)
{
    struct mp_topic_heard *h = mp_topic_sink_heard(t, s, p->publisher);
    mp_assert(h && h->joined_seq == p->last_seq);
    mp_topic_queue_leave_out(&s->queue, t, h);
    if (h->dropped != 0 && mp_topic_is_gathered(h->dropped_seq, h->dropped_at, h)) {
        h->dropped = 0;
        s->gaps--;
    }
    if (h->after_seq < p->last_seq && h->dropped_seq > p->last_seq)
        h->after_seq = p->last_seq;
    if (h->last_seq < p->last_seq)
        h->last_seq = p->last_seq;
}

/* MP_ENOMEM: it waits on. */
static enum mp_err join(struct mp_topic *t, struct mp_topic_gather *g)
{
    mp_topic_merge_fini(&g->merge);
    for (uint32_t i = 0; i < g->part_count; i++) {
        struct mp_topic_part *p = &g->parts[i];
        if (p->last_seq == 0 && p->left_out == 0)
            continue;
        const struct mp_topic_cursor c = {.pieces = {mp_buf_slice(&p->records)},
                                          .publisher = p->publisher,
                                          .name =
                                              mp_topic_publisher_name(t->publishers[p->publisher])};
        MP_TRY(prepare(t, g, p));
        MP_TRY(mp_topic_merge_add(&g->merge, &c));
    }
    for (uint32_t i = 0; i < g->part_count; i++)
        if (g->parts[i].last_seq != 0)
            join_part(t, g->sink, &g->parts[i]);
    g->is_joined = true;
    mp_topic_list_remove(&g->link);
    mp_topic_sink_wake(g->sink, &t->dirty);
    return MP_OK;
}

enum mp_err mp_topic_gather_end(struct mp_topic *t, uint64_t number)
{
    struct mp_topic_gather *g = gather_of(t, number);
    return g ? join(t, g) : MP_ENOENT;
}

void mp_topic_gather_expire(struct mp_topic *t, mp_time now)
{
    while (!mp_topic_list_is_empty(&t->gathers)) {
        struct mp_topic_gather *g = MP_TOPIC_OF(t->gathers.next, struct mp_topic_gather, link);
        if (g->deadline > now)
            return;
        if (join(t, g) != MP_OK)
            g->deadline = mp_time_add(now, MP_MS(MP_TOPIC_RETRY_MS));
    }
}

static enum mp_err pour_one(struct mp_topic *t, struct mp_topic_queue *q, uint32_t publisher,
                            struct mp_slice message)
{
    const struct mp_topic_batch *b = mp_topic_queue_open(q);
    if (!b || b->publisher != publisher || b->bytes + message.size > MP_TOPIC_BATCH_BYTES) {
        const struct mp_topic_batch like = {.publisher = publisher};
        MP_TRY(mp_topic_queue_begin(q, t, &like, message.size));
    }
    return mp_topic_queue_put(q, t, message);
}

enum mp_err mp_topic_gather_pour(struct mp_topic *t, struct mp_topic_gather *g, size_t bytes)
{
    uint32_t publisher;
    const struct mp_topic_record *r;
    while ((r = mp_topic_merge_peek(&g->merge, &publisher)) != NULL && g->queue.bytes < bytes) {
        enum mp_err err = pour_one(t, &g->queue, publisher, mp_topic_record_message(r));
        if (err != MP_OK)
            return g->queue.messages != 0 ? MP_OK : err;
        mp_topic_merge_pass(&g->merge);
    }
    return mp_topic_queue_is_empty(&g->queue) ? MP_ENOENT : MP_OK;
}
