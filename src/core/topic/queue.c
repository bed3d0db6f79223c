/* A receiver's queue: one buffer with batches, each of which can be sent as it stands. A batch is
 * taken off without being copied: an effect points to it until the next step begins, and only then
 * the queue is tidied. A queue that is empty has no buffer: those that were used are kept for
 * whoever needs one next, so that quiet receivers cost nothing. */
#include "src/core/topic/topic_internal.h"
#include "src/wire/msgpack.h"

#define TIDY_BYTES (64u << 10) /* of taken batches, ahead of others, that are worth a copy */

static_assert(sizeof(struct mp_topic_batch) % 8 == 0, "the next one is aligned");

/* --- buffers --- */

static void take_spare(struct mp_topic_queue *q, struct mp_topic *t)
{
    if (q->buf.capacity != 0 || t->spare.count == 0)
        return;
    t->spare.count--;
    q->buf.data = t->spare.items[t->spare.count].data;
    q->buf.capacity = t->spare.items[t->spare.count].capacity;
    t->spare.bytes -= q->buf.capacity;
}

static void give_back(struct mp_topic_queue *q, struct mp_topic *t)
{
    struct mp_topic_spare *spare = &t->spare;
    if (q->buf.capacity == 0)
        return;
    if (spare->count == MP_TOPIC_SPARE_MAX ||
        q->buf.capacity > MP_TOPIC_SPARE_BYTES - spare->bytes) {
        mp_buf_fini(&q->buf);
        return;
    }
    spare->items[spare->count].data = q->buf.data;
    spare->items[spare->count].capacity = q->buf.capacity;
    spare->count++;
    spare->bytes += q->buf.capacity;
    mp_buf_init(&q->buf, t->alloc, 0);
}

void mp_topic_spare_fini(struct mp_topic *t)
{
    while (t->spare.count != 0) {
        t->spare.count--;
        mp_alloc_free(t->alloc, t->spare.items[t->spare.count].data,
                      t->spare.items[t->spare.count].capacity);
    }
}

/* --- queues --- */

void mp_topic_queue_init(struct mp_topic_queue *q, struct mp_topic *t)
{
    *q = (struct mp_topic_queue){.open = SIZE_MAX};
    mp_buf_init(&q->buf, t->alloc, 0);
}

void mp_topic_queue_clear(struct mp_topic_queue *q, struct mp_topic *t)
{
    mp_assert(t->queued_bytes >= q->bytes);
    t->queued_bytes -= q->bytes;
    mp_buf_clear(&q->buf);
    give_back(q, t);
    q->head = 0;
    q->open = SIZE_MAX;
    q->messages = 0;
    q->bytes = 0;
}

static size_t aligned(size_t at)
{
    return (at + 7) & ~(size_t)7;
}

static struct mp_topic_batch *batch_at(const struct mp_topic_queue *q, size_t at)
{
    mp_assert(at % 8 == 0 && at + sizeof(struct mp_topic_batch) <= q->buf.size);
    return (struct mp_topic_batch *)(void *)(q->buf.data + at);
}

static size_t messages_at(size_t batch)
{
    return batch + sizeof(struct mp_topic_batch) + MP_TOPIC_HEADER_BYTES;
}

enum mp_err mp_topic_queue_begin(struct mp_topic_queue *q, struct mp_topic *t,
                                 const struct mp_topic_batch *like, size_t bytes)
{
    take_spare(q, t);
    size_t start = aligned(q->buf.size);
    MP_TRY(mp_buf_reserve(&q->buf, messages_at(start) + bytes - q->buf.size));
    if (mp_topic_queue_is_empty(q))
        q->head = start;
    q->buf.size = messages_at(start);
    q->open = start;
    *batch_at(q, start) = *like;
    return MP_OK;
}

enum mp_err mp_topic_queue_put(struct mp_topic_queue *q, struct mp_topic *t,
                               struct mp_slice message)
{
    MP_TRY(mp_buf_append(&q->buf, message));
    struct mp_topic_batch *b = mp_topic_queue_open(q);
    b->count++;
    b->bytes += message.size;
    q->messages++;
    q->bytes += message.size;
    t->queued_bytes += message.size;
    return MP_OK;
}

struct mp_topic_batch *mp_topic_queue_first(const struct mp_topic_queue *q,
                                            struct mp_slice *messages)
{
    struct mp_topic_batch *b = batch_at(q, q->head);
    *messages = mp_slice_of(q->buf.data + messages_at(q->head), (size_t)b->bytes);
    return b;
}

uint8_t *mp_topic_put_header(uint8_t *end, uint32_t count)
{
    if (count <= 15) {
        end[-1] = (uint8_t)(0x90 | count);
        return end - 1;
    }
    end[-1] = (uint8_t)count;
    end[-2] = (uint8_t)(count >> 8);
    if (count <= UINT16_MAX) {
        end[-3] = 0xdc;
        return end - 3;
    }
    end[-3] = (uint8_t)(count >> 16);
    end[-4] = (uint8_t)(count >> 24);
    end[-5] = 0xdd;
    return end - 5;
}

struct mp_slice mp_topic_queue_take(struct mp_topic_queue *q, struct mp_topic *t)
{
    const struct mp_topic_batch *b = batch_at(q, q->head);
    uint8_t *messages = q->buf.data + messages_at(q->head);
    uint8_t *start = mp_topic_put_header(messages, b->count);
    size_t end = messages_at(q->head) + (size_t)b->bytes;
    mp_assert(end <= q->buf.size && q->messages >= b->count && q->bytes >= b->bytes);
    q->messages -= b->count;
    q->bytes -= (size_t)b->bytes;
    t->queued_bytes -= (size_t)b->bytes;
    if (q->open == q->head)
        q->open = SIZE_MAX;
    q->head = end == q->buf.size ? end : aligned(end);
    return mp_slice_of(start, (size_t)(messages - start) + (size_t)b->bytes);
}

void mp_topic_queue_tidy(struct mp_topic_queue *q, struct mp_topic *t)
{
    if (mp_topic_queue_is_empty(q)) {
        mp_topic_queue_clear(q, t);
        return;
    }
    if (q->head < TIDY_BYTES || q->head < q->buf.size / 2)
        return;
    mp_buf_drop(&q->buf, q->head);
    if (q->open != SIZE_MAX)
        q->open -= q->head;
    q->head = 0;
}

/* --- leaving out --- */

/* Copies the messages of a batch down to `to`, without those that have come already. */
static uint8_t *filter(struct mp_topic_queue *q, struct mp_topic *t, struct mp_topic_batch *b,
                       struct mp_slice messages, uint8_t *to, const struct mp_topic_heard *h)
{
    struct mp_mp_reader r = mp_mp_reader_of(messages);
    uint32_t count = b->count;
    for (uint32_t i = 0; i < count; i++) {
        struct mp_slice bytes;
        struct mp_topic_message m;
        enum mp_err err = mp_mp_take(&r, &bytes);
        mp_assert(err == MP_OK);
        err = mp_topic_read_message(bytes, &m);
        mp_assert(err == MP_OK);
        if (!mp_topic_is_gathered(m.seq, m.at_ms, h)) {
            memmove(to, bytes.data, bytes.size);
            to += bytes.size;
            continue;
        }
        b->count--;
        b->bytes -= bytes.size;
        q->messages--;
        q->bytes -= bytes.size;
        t->queued_bytes -= bytes.size;
    }
    if (b->dropped != 0 && mp_topic_is_gathered(b->dropped_seq, b->dropped_at, h))
        b->dropped = 0;
    if (b->after_seq < h->joined_seq && b->dropped_seq > h->joined_seq)
        b->after_seq = h->joined_seq;
    return to;
}

void mp_topic_queue_leave_out(struct mp_topic_queue *q, struct mp_topic *t,
                              struct mp_topic_heard *h)
{
    size_t to = q->head;
    size_t open = SIZE_MAX;
    size_t end = q->head;
    for (size_t from = q->head; from < q->buf.size;) {
        struct mp_topic_batch b = *batch_at(q, from);
        size_t next = aligned(messages_at(from) + (size_t)b.bytes);
        struct mp_slice messages = mp_slice_of(q->buf.data + messages_at(from), (size_t)b.bytes);
        uint8_t *into = q->buf.data + messages_at(to);
        if (b.publisher == h->publisher) {
            into = filter(q, t, &b, messages, into, h);
        } else {
            memmove(into, messages.data, messages.size);
            into += messages.size;
        }
        if (b.count != 0 || b.dropped != 0) {
            *batch_at(q, to) = b;
            if (q->open == from)
                open = to;
            end = (size_t)(into - q->buf.data);
            to = aligned(end);
        } else {
            h->queued--;
        }
        from = next;
    }
    q->buf.size = end;
    q->open = open;
}
