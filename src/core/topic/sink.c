/* Receivers: what each has got of whom, what it lost, and what leaves the queues at a step's end.
 *
 * What is dropped is told in its place. A receiver counts for each publisher what was dropped since
 * the last message of it that was queued; the next one that is queued begins a batch that says so.
 * If none comes, it is said once the queue is empty. */
#include "src/core/topic/topic_internal.h"
#include "src/wire/msgpack.h"

/* --- life --- */

void mp_topic_sink_init(struct mp_topic_sink *s, enum mp_topic_sink_kind kind, struct mp_topic *t)
{
    *s = (struct mp_topic_sink){.kind = kind, .messages_max = MP_TOPIC_QUEUE_MESSAGES_MAX};
    mp_topic_queue_init(&s->queue, t);
}

void mp_topic_sink_fini(struct mp_topic_sink *s, struct mp_topic *t)
{
    mp_assert(!s->spent.next);
    mp_topic_list_remove(&s->dirty);
    mp_topic_queue_clear(&s->queue, t);
    for (uint32_t i = 0; i < s->heard_count; i++)
        mp_topic_publisher_release(t, s->heard[i].publisher);
    mp_alloc_free(t->alloc, s->heard, s->heard_capacity * sizeof(*s->heard));
}

/* --- what was heard of whom --- */

static uint32_t heard_place(const struct mp_topic_sink *s, uint32_t publisher)
{
    uint32_t low = 0;
    uint32_t high = s->heard_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (s->heard[middle].publisher < publisher)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Forgets the publisher that nothing has come of for longest and of which nothing is to be said. */
static void forget_one(struct mp_topic *t, struct mp_topic_sink *s)
{
    uint32_t worst = MP_TOPIC_NONE;
    for (uint32_t i = 0; i < s->heard_count; i++) {
        const struct mp_topic_heard *h = &s->heard[i];
        if (h->queued == 0 && h->dropped == 0 && h->joined_seq == 0 &&
            (worst == MP_TOPIC_NONE || h->heard_at < s->heard[worst].heard_at))
            worst = i;
    }
    if (worst == MP_TOPIC_NONE)
        return;
    mp_topic_publisher_release(t, s->heard[worst].publisher);
    s->heard_count--;
    memmove(&s->heard[worst], &s->heard[worst + 1], (s->heard_count - worst) * sizeof(*s->heard));
}

struct mp_topic_heard *mp_topic_sink_heard(struct mp_topic *t, struct mp_topic_sink *s,
                                           uint32_t publisher)
{
    if (s->heard_last < s->heard_count && s->heard[s->heard_last].publisher == publisher)
        return &s->heard[s->heard_last];
    uint32_t place = heard_place(s, publisher);
    if (place == s->heard_count || s->heard[place].publisher != publisher) {
        if (s->heard_count >= MP_TOPIC_HEARD_MAX)
            forget_one(t, s);
        if (mp_topic_grow(t->alloc, (void **)&s->heard, &s->heard_capacity, s->heard_count + 1,
                          sizeof(*s->heard)) != MP_OK)
            return NULL;
        place = heard_place(s, publisher);
        memmove(&s->heard[place + 1], &s->heard[place],
                (s->heard_count - place) * sizeof(*s->heard));
        s->heard[place] = (struct mp_topic_heard){.publisher = publisher};
        s->heard_count++;
        t->publishers[publisher]->refs++;
    }
    s->heard_last = place;
    return &s->heard[place];
}

/* --- messages come --- */

static void note_drop(struct mp_topic *t, struct mp_topic_sink *s, struct mp_topic_heard *h,
                      const struct mp_topic_batch *lost)
{
    if (h->dropped == 0) {
        s->gaps++;
        h->after_seq = lost->after_seq;
    }
    h->dropped += lost->dropped;
    h->dropped_seq = lost->dropped_seq;
    h->dropped_at = lost->dropped_at;
    mp_topic_sink_wake(s, &t->dirty);
}

void mp_topic_sink_miss(struct mp_topic *t, struct mp_topic_sink *s, uint32_t publisher,
                        const struct mp_topic_batch *lost)
{
    struct mp_topic_heard *h = mp_topic_sink_heard(t, s, publisher);
    if (h)
        note_drop(t, s, h, lost);
}

/* Whether a message came by gathering; with the first one that did not, that is over. */
static bool has_come(struct mp_topic_heard *h, const struct mp_topic_message *m)
{
    if (h->joined_seq == 0)
        return false;
    if (mp_topic_is_gathered(m->seq, m->at_ms, h))
        return true;
    h->joined_seq = 0;
    return false;
}

static bool has_room(const struct mp_topic *t, const struct mp_topic_sink *s, size_t size)
{
    const struct mp_topic_queue *q = &s->queue;
    if (q->messages >= s->messages_max)
        return false;
    if (q->messages != 0 && q->bytes + size > MP_TOPIC_QUEUE_BYTES_MAX)
        return false;
    return t->queued_bytes + size <= MP_TOPIC_QUEUES_BYTES_MAX || t->queued_bytes == 0;
}

/* Whether the next message may go into a batch that is open. */
static bool is_fit(const struct mp_topic_sink *s, const struct mp_topic_batch *b,
                   const struct mp_topic_heard *h, size_t size)
{
    return b && b->publisher == h->publisher && h->dropped == 0 &&
           s->kind != MP_TOPIC_SINK_FUNCTION && b->bytes + size <= MP_TOPIC_BATCH_BYTES;
}

static enum mp_err put(struct mp_topic *t, struct mp_topic_sink *s, struct mp_topic_heard *h,
                       struct mp_slice message)
{
    struct mp_topic_queue *q = &s->queue;
    if (is_fit(s, mp_topic_queue_open(q), h, message.size))
        return mp_topic_queue_put(q, t, message);
    const struct mp_topic_batch like = {.publisher = h->publisher,
                                        .dropped = h->dropped,
                                        .after_seq = h->dropped != 0 ? h->after_seq : h->last_seq,
                                        .dropped_seq = h->dropped_seq,
                                        .dropped_at = h->dropped_at};
    MP_TRY(mp_topic_queue_begin(q, t, &like, message.size));
    h->queued++;
    if (h->dropped != 0)
        s->gaps--;
    h->dropped = 0;
    enum mp_err err = mp_topic_queue_put(q, t, message);
    mp_assert(err == MP_OK); /* there is room for it */
    return MP_OK;
}

void mp_topic_sink_give(struct mp_topic *t, struct mp_topic_sink *s, uint32_t publisher,
                        const struct mp_topic_message *m)
{
    struct mp_topic_heard *h = mp_topic_sink_heard(t, s, publisher);
    if (!h) {
        t->stats.dropped++;
        return;
    }
    if (has_come(h, m))
        return;
    h->heard_at = t->steps;
    if (!has_room(t, s, m->bytes.size) || put(t, s, h, m->bytes) != MP_OK) {
        t->stats.dropped++;
        note_drop(t, s, h,
                  &(struct mp_topic_batch){.dropped = 1,
                                           .after_seq = h->last_seq,
                                           .dropped_seq = m->seq,
                                           .dropped_at = m->at_ms});
        return;
    }
    h->last_seq = m->seq;
    s->is_lost = false;
    mp_topic_sink_wake(s, &t->dirty);
}

/* --- and go --- */

static void spend(struct mp_topic *t, struct mp_topic_sink *s)
{
    if (!s->spent.next)
        mp_topic_list_add(&t->spent, &s->spent);
}

/* What is told of a batch: its messages, and what was dropped ahead of them. */
static void fill(struct mp_topic *t, struct mp_topic_effect *e, const struct mp_topic_batch *b)
{
    e->publisher = mp_topic_publisher_name(t->publishers[b->publisher]);
    e->count = b->count;
    e->dropped = b->dropped;
    e->after_seq = b->dropped != 0 ? b->after_seq : 0;
}

static struct mp_slice no_messages(void)
{
    return mp_slice_str("\x90");
}

/* The first batch of a client's queue, or of what was gathered for it. */
static bool deliver(struct mp_topic *t, struct mp_topic_sink *s, struct mp_topic_queue *q)
{
    struct mp_topic_effect *e = mp_topic_effect(t, MP_TOPIC_DELIVER);
    struct mp_slice messages;
    if (!e)
        return false;
    const struct mp_topic_batch *b = mp_topic_queue_first(q, &messages);
    fill(t, e, b);
    e->client = s->key[0];
    e->id = s->key[1];
    s->client->given += (size_t)b->bytes + MP_TOPIC_HEADER_BYTES;
    t->stats.delivered += b->count;
    if (q == &s->queue)
        s->heard[heard_place(s, b->publisher)].queued--;
    e->payload = mp_topic_queue_take(q, t);
    spend(t, s);
    return true;
}

/* Tells a client what was dropped after all that was queued. */
static bool deliver_gaps(struct mp_topic *t, struct mp_topic_sink *s)
{
    for (uint32_t i = 0; i < s->heard_count && s->gaps != 0; i++) {
        struct mp_topic_heard *h = &s->heard[i];
        if (h->dropped == 0)
            continue;
        struct mp_topic_effect *e = mp_topic_effect(t, MP_TOPIC_DELIVER);
        if (!e)
            return false;
        fill(t, e,
             &(struct mp_topic_batch){
                 .publisher = h->publisher, .dropped = h->dropped, .after_seq = h->after_seq});
        e->client = s->key[0];
        e->id = s->key[1];
        e->payload = no_messages();
        h->dropped = 0;
        s->gaps--;
    }
    return true;
}

/* The queue that a client's messages come from now: what was gathered goes first. NULL: nothing is
 * left, or, if is_short, more comes with the next step. */
static struct mp_topic_queue *source_of(struct mp_topic *t, struct mp_topic_sink *s, size_t bytes,
                                        bool *is_short)
{
    struct mp_topic_gather *g = s->gather;
    if (g && mp_topic_queue_is_empty(&g->queue)) {
        /* what effects point to already may not move */
        enum mp_err err = g->queue.buf.size != 0 && g->merge.count != 0
                              ? MP_EAGAIN
                              : mp_topic_gather_pour(t, g, bytes);
        *is_short = err == MP_ENOMEM || err == MP_EAGAIN;
        if (*is_short)
            return NULL;
        if (err == MP_ENOENT) {
            /* its last effects may still point into it */
            s->gather = NULL;
            g->sink = NULL;
            mp_topic_list_add(&t->gathers_over, &g->link);
            g = NULL;
        }
    }
    if (g)
        return &g->queue;
    return mp_topic_queue_is_empty(&s->queue) ? NULL : &s->queue;
}

/* True: it has given away what it may; false: it goes on with the next step. */
static bool flush_client(struct mp_topic *t, struct mp_topic_sink *s)
{
    struct mp_topic_client *c = s->client;
    if (c->is_blocked || (s->gather && !s->gather->is_joined))
        return true;
    if (c->turn != t->steps) {
        c->turn = t->steps;
        c->given = 0;
    }
    while (c->given < MP_TOPIC_TURN_BYTES) {
        bool is_short = false;
        struct mp_topic_queue *q = source_of(t, s, MP_TOPIC_TURN_BYTES - c->given, &is_short);
        if (!q)
            return !is_short && deliver_gaps(t, s);
        if (!deliver(t, s, q))
            return false;
    }
    return !s->gather && s->gaps == 0 && mp_topic_queue_is_empty(&s->queue);
}

static bool tell_missed(struct mp_topic *t, struct mp_topic_sink *s, uint64_t dropped)
{
    struct mp_topic_effect *e = mp_topic_effect(t, MP_TOPIC_MISSED);
    if (!e)
        return false;
    e->function = MP_TOPIC_OF(s, struct mp_topic_group, sink)->number;
    e->dropped = dropped;
    return true;
}

/* One message, a batch of its own. */
static bool call(struct mp_topic *t, struct mp_topic_sink *s)
{
    struct mp_slice bytes;
    struct mp_topic_message m;
    struct mp_topic_batch *b = mp_topic_queue_first(&s->queue, &bytes);
    if (b->dropped != 0 && !tell_missed(t, s, b->dropped))
        return false;
    b->dropped = 0;
    struct mp_topic_effect *e = mp_topic_effect(t, MP_TOPIC_CALL);
    if (!e)
        return false;
    enum mp_err err = mp_topic_read_message(bytes, &m);
    mp_assert(err == MP_OK);
    fill(t, e, b);
    e->function = MP_TOPIC_OF(s, struct mp_topic_group, sink)->number;
    e->topic = m.topic;
    e->seq = m.seq;
    e->at_ms = m.at_ms;
    e->data = m.data;
    s->heard[heard_place(s, b->publisher)].queued--;
    (void)mp_topic_queue_take(&s->queue, t);
    spend(t, s);
    t->stats.called++;
    t->room--;
    return true;
}

static bool flush_function(struct mp_topic *t, struct mp_topic_sink *s)
{
    while (!mp_topic_queue_is_empty(&s->queue)) {
        if (t->room == 0) {
            mp_topic_list_add(&t->starved, &s->dirty);
            return true;
        }
        if (!call(t, s))
            return false;
    }
    for (uint32_t i = 0; i < s->heard_count && s->gaps != 0; i++) {
        struct mp_topic_heard *h = &s->heard[i];
        if (h->dropped == 0)
            continue;
        if (!tell_missed(t, s, h->dropped))
            return false;
        h->dropped = 0;
        s->gaps--;
    }
    return true;
}

/* One batch; or, once all have arrived, what was dropped behind them. What a lost batch leaves to
 * be told goes with the next message, or after MP_TOPIC_RETELL_MS: at once it would only be lost
 * again. */
static bool flush_member(struct mp_topic *t, struct mp_topic_sink *s)
{
    bool is_empty = mp_topic_queue_is_empty(&s->queue);
    if (s->is_forwarding || (is_empty && (s->gaps == 0 || s->is_lost)))
        return true;
    struct mp_topic_effect *e = mp_topic_effect(t, MP_TOPIC_FORWARD);
    if (!e)
        return false;
    struct mp_topic_heard *h = &s->heard[heard_place(s, MP_TOPIC_OWN)];
    if (is_empty) {
        s->flying = (struct mp_topic_batch){
            .publisher = MP_TOPIC_OWN, .dropped = h->dropped, .after_seq = h->after_seq};
        h->dropped = 0;
        s->gaps--;
        e->payload = no_messages();
    } else {
        struct mp_slice messages;
        s->flying = *mp_topic_queue_first(&s->queue, &messages);
        h->queued--;
        e->payload = mp_topic_queue_take(&s->queue, t);
        spend(t, s);
    }
    fill(t, e, &s->flying);
    e->member = MP_TOPIC_OF(s, struct mp_topic_group, sink)->number;
    s->is_forwarding = true;
    t->stats.forwarded += s->flying.count;
    return true;
}

void mp_topic_sink_acked(struct mp_topic *t, struct mp_topic_sink *s, bool is_lost)
{
    if (!s->is_forwarding)
        return;
    s->is_forwarding = false;
    mp_topic_sink_wake(s, &t->dirty);
    if (!is_lost)
        return;
    uint64_t lost = s->flying.count + s->flying.dropped;
    t->stats.dropped += s->flying.count;
    if (!mp_topic_queue_is_empty(&s->queue)) {
        struct mp_slice messages;
        struct mp_topic_batch *b = mp_topic_queue_first(&s->queue, &messages);
        b->dropped += lost;
        b->after_seq = s->flying.after_seq;
        return;
    }
    struct mp_topic_heard *h = &s->heard[heard_place(s, MP_TOPIC_OWN)];
    s->gaps += h->dropped == 0;
    h->dropped += lost;
    h->after_seq = s->flying.after_seq;
    s->is_lost = true;
}

static bool flush_sink(struct mp_topic *t, struct mp_topic_sink *s)
{
    switch (s->kind) {
    case MP_TOPIC_SINK_CLIENT:
        return flush_client(t, s);
    case MP_TOPIC_SINK_FUNCTION:
        return flush_function(t, s);
    case MP_TOPIC_SINK_MEMBER:
    default:
        return flush_member(t, s);
    }
}

void mp_topic_flush(struct mp_topic *t, mp_time now)
{
    struct mp_topic_link left[2]; /* those that had no turn go first with the next step */
    mp_topic_list_init(&left[0]);
    mp_topic_list_init(&left[1]);
    uint32_t effects = t->effect_count;
    while (!mp_topic_list_is_empty(&t->dirty)) {
        struct mp_topic_sink *s = MP_TOPIC_OF(t->dirty.next, struct mp_topic_sink, dirty);
        mp_topic_list_remove(&s->dirty);
        if (!flush_sink(t, s))
            mp_topic_list_add(&left[s->spent.next != NULL], &s->dirty);
    }
    for (uint32_t i = 0; i < 2; i++) {
        while (!mp_topic_list_is_empty(&left[i])) {
            struct mp_topic_link *l = left[i].next;
            mp_topic_list_remove(l);
            mp_topic_list_add(&t->dirty, l);
        }
    }
    t->flush_at = MP_NEVER;
    if (!mp_topic_list_is_empty(&t->dirty)) /* if nothing went out, there was no memory */
        t->flush_at = t->effect_count != effects ? now : mp_time_add(now, MP_MS(MP_TOPIC_RETRY_MS));
}

void mp_topic_tidy(struct mp_topic *t)
{
    while (!mp_topic_list_is_empty(&t->spent)) {
        struct mp_topic_sink *s = MP_TOPIC_OF(t->spent.next, struct mp_topic_sink, spent);
        mp_topic_list_remove(&s->spent);
        mp_topic_queue_tidy(&s->queue, t);
        if (s->gather)
            mp_topic_queue_tidy(&s->gather->queue, t);
    }
    while (!mp_topic_list_is_empty(&t->gathers_over))
        mp_topic_gather_free(t, MP_TOPIC_OF(t->gathers_over.next, struct mp_topic_gather, link));
}
