/* Messages of this node and of others. They are read as a whole before any of them is given to
 * anybody: one that is no good refuses all. This node's own get their seq and time, are given to
 * subscriptions, functions and members, and kept; those of others are given to subscriptions only:
 * their node has seen to the rest. */
#include "src/core/topic/topic_internal.h"
#include "src/wire/msgpack.h"
#include "src/wire/topic.h"

#define ENCODED_KEPT_BYTES (1u << 20)      /* a larger buffer is let go of after use */
#define ENVELOPE_BYTES_MAX (1 + 3 + 9 + 9) /* a message's bytes besides topic and data */

/* --- publishers --- */

enum mp_err mp_topic_publisher_take(struct mp_topic *t, struct mp_slice name, uint32_t *number)
{
    struct mp_topic_publisher *p = mp_topic_index_find(&t->by_publisher, name);
    if (p) {
        p->refs++;
        *number = p->number;
        return MP_OK;
    }
    uint32_t place = 0;
    while (place < t->publisher_count && t->publishers[place])
        place++;
    MP_TRY(mp_topic_grow(t->alloc, (void **)&t->publishers, &t->publisher_capacity, place + 1,
                         sizeof(struct mp_topic_publisher *)));
    p = mp_alloc_take(t->alloc, sizeof(*p) + name.size);
    if (!p)
        return MP_ENOMEM;
    *p = (struct mp_topic_publisher){.number = place, .refs = 1, .size = (uint32_t)name.size};
    memcpy(p->name, name.data, name.size);
    enum mp_err err = mp_topic_index_add(&t->by_publisher, mp_topic_publisher_name(p), p);
    if (err != MP_OK) {
        mp_alloc_free(t->alloc, p, sizeof(*p) + name.size);
        return err;
    }
    t->publishers[place] = p;
    if (place == t->publisher_count)
        t->publisher_count++;
    *number = place;
    return MP_OK;
}

void mp_topic_publisher_release(struct mp_topic *t, uint32_t number)
{
    struct mp_topic_publisher *p = t->publishers[number];
    if (--p->refs != 0)
        return;
    mp_topic_index_remove(&t->by_publisher, mp_topic_publisher_name(p));
    t->publishers[number] = NULL;
    mp_alloc_free(t->alloc, p, sizeof(*p) + p->size);
}

/* --- reading --- */

static enum mp_err take_str(struct mp_mp_reader *r, struct mp_slice *text)
{
    struct mp_mp_token token;
    MP_TRY(mp_mp_next(r, &token));
    if (token.type != MP_MP_STR)
        return MP_ECORRUPT;
    *text = token.bytes;
    return MP_OK;
}

static enum mp_err take_uint(struct mp_mp_reader *r, uint64_t *v)
{
    struct mp_mp_token token;
    MP_TRY(mp_mp_next(r, &token));
    if (token.type != MP_MP_UINT)
        return MP_ECORRUPT;
    *v = token.u;
    return MP_OK;
}

static enum mp_err take_array(struct mp_mp_reader *r, uint32_t *count)
{
    struct mp_mp_token token;
    MP_TRY(mp_mp_next(r, &token));
    if (token.type != MP_MP_ARRAY)
        return MP_ECORRUPT;
    *count = token.count;
    return MP_OK;
}

/* [topic, seq, at, data], or, if it is new, [topic, data]. Nothing behind data is looked at. */
static enum mp_err take_message(struct mp_mp_reader *r, bool is_new, struct mp_topic_message *m)
{
    uint32_t count;
    const uint8_t *start = r->at;
    if (take_array(r, &count) != MP_OK || count != (is_new ? 2 : 4) ||
        take_str(r, &m->topic) != MP_OK)
        return MP_ECORRUPT;
    if (!is_new && (take_uint(r, &m->seq) != MP_OK || take_uint(r, &m->at_ms) != MP_OK))
        return MP_ECORRUPT;
    if (mp_mp_take(r, &m->data) != MP_OK)
        return MP_ECORRUPT;
    m->bytes = mp_slice_of(start, (size_t)(r->at - start));
    return MP_OK;
}

enum mp_err mp_topic_read_message(struct mp_slice bytes, struct mp_topic_message *m)
{
    struct mp_mp_reader r = mp_mp_reader_of(bytes);
    MP_TRY(take_message(&r, false, m));
    return mp_mp_is_at_end(&r) ? MP_OK : MP_ECORRUPT;
}

/* Whether a name is known to be one: it is that of the message before, or has been matched. */
static bool is_known(struct mp_topic *t, struct mp_slice topic)
{
    struct mp_topic_matches m;
    if (t->message_count != 0 && mp_slice_equal(t->messages[t->message_count - 1].topic, topic))
        return true;
    return mp_topic_cache_find(t, topic, mp_slice_hash(topic, 0), &m);
}

static enum mp_err check_name(struct mp_topic *t, struct mp_slice topic)
{
    struct mp_text message;
    if (is_known(t, topic))
        return MP_OK;
    mp_text_init(&message, t->message, sizeof(t->message));
    return mp_topic_name_check(topic, &message);
}

static enum mp_err begin_reading(struct mp_topic *t, struct mp_slice array, struct mp_mp_reader *r,
                                 uint32_t *count)
{
    t->message_count = 0;
    *r = mp_mp_reader_of(array);
    if (take_array(r, count) != MP_OK)
        return MP_ECORRUPT;
    if (*count > MP_TOPIC_PUBLISH_MAX)
        return MP_ETOOLARGE;
    return mp_topic_grow(t->alloc, (void **)&t->messages, &t->message_capacity, *count,
                         sizeof(*t->messages));
}

enum mp_err mp_topic_read_messages(struct mp_topic *t, struct mp_slice array, uint64_t after)
{
    struct mp_mp_reader r;
    uint32_t count;
    enum mp_err err = begin_reading(t, array, &r, &count);
    if (err != MP_OK)
        return err == MP_ETOOLARGE ? MP_ECORRUPT : err;
    for (uint32_t i = 0; i < count; i++) {
        struct mp_topic_message *m = &t->messages[i];
        err = take_message(&r, false, m);
        if (err == MP_OK && (m->seq <= after || check_name(t, m->topic) != MP_OK))
            err = MP_ECORRUPT;
        t->message[0] = '\0';
        MP_TRY(err);
        after = m->seq;
        t->message_count++;
    }
    return mp_mp_is_at_end(&r) ? MP_OK : MP_ECORRUPT;
}

/* --- this node's own --- */

static uint8_t *write_be(uint8_t *out, uint8_t marker, uint64_t v, unsigned bytes)
{
    *out++ = marker;
    for (unsigned i = bytes; i-- > 0;)
        *out++ = (uint8_t)(v >> (8 * i));
    return out;
}

static uint8_t *write_uint(uint8_t *out, uint64_t v)
{
    if (v <= 0x7f) {
        *out = (uint8_t)v;
        return out + 1;
    }
    if (v <= UINT8_MAX)
        return write_be(out, 0xcc, v, 1);
    if (v <= UINT16_MAX)
        return write_be(out, 0xcd, v, 2);
    return v <= UINT32_MAX ? write_be(out, 0xce, v, 4) : write_be(out, 0xcf, v, 8);
}

static_assert(MP_TOPIC_BYTES_MAX <= UINT16_MAX, "its length is written in two bytes");

/* Appends the message as it goes out; m->bytes is its place in t->encoded, which may yet move. */
static enum mp_err encode(struct mp_topic *t, struct mp_topic_message *m)
{
    struct mp_buf *b = &t->encoded;
    MP_TRY(mp_buf_reserve(b, ENVELOPE_BYTES_MAX + m->topic.size + m->data.size));
    uint8_t *start = b->data + b->size;
    uint8_t *out = start;
    *out++ = 0x94;
    if (m->topic.size <= 31)
        *out++ = (uint8_t)(0xa0 | m->topic.size);
    else
        out = m->topic.size <= UINT8_MAX ? write_be(out, 0xd9, m->topic.size, 1)
                                         : write_be(out, 0xda, m->topic.size, 2);
    memcpy(out, m->topic.data, m->topic.size);
    out = write_uint(out + m->topic.size, m->seq);
    out = write_uint(out, m->at_ms);
    memcpy(out, m->data.data, m->data.size);
    out += m->data.size;
    m->bytes = mp_slice_of(NULL, (size_t)(out - start));
    b->size += m->bytes.size;
    return MP_OK;
}

static enum mp_err read_new(struct mp_topic *t, const struct mp_topic_event *ev)
{
    struct mp_mp_reader r;
    uint32_t count;
    uint64_t at_ms = ev->wall_ms > t->at_ms ? ev->wall_ms : t->at_ms;
    MP_TRY(begin_reading(t, ev->publish, &r, &count));
    mp_buf_clear(&t->encoded);
    for (uint32_t i = 0; i < count; i++) {
        struct mp_topic_message *m = &t->messages[i];
        t->bad_index = i;
        MP_TRY(take_message(&r, true, m));
        MP_TRY(check_name(t, m->topic));
        m->seq = t->seq + 1 + i;
        m->at_ms = at_ms;
        MP_TRY(encode(t, m));
        t->message_count++;
    }
    t->bad_index = 0;
    return mp_mp_is_at_end(&r) ? MP_OK : MP_ECORRUPT;
}

enum mp_err mp_topic_publish(struct mp_topic *t, mp_time now, const struct mp_topic_event *ev)
{
    MP_TRY(read_new(t, ev));
    const uint8_t *at = t->encoded.data;
    for (uint32_t i = 0; i < t->message_count; i++) {
        struct mp_topic_message *m = &t->messages[i];
        m->bytes.data = at;
        at += m->bytes.size;
        mp_topic_backlog_add(t, now, ev->wall_ms, m, false);
        struct mp_topic_matches matches = mp_topic_matches_of(t, m->topic);
        for (uint32_t k = 0; k < matches.count; k++)
            mp_topic_sink_give(t, matches.sinks[k], MP_TOPIC_OWN, m);
        t->seq = m->seq;
        t->at_ms = m->at_ms;
    }
    t->stats.published += t->message_count;
    if (t->encoded.capacity > ENCODED_KEPT_BYTES)
        mp_buf_fini(&t->encoded);
    return MP_OK;
}

/* --- those of others --- */

/* What was lost on the way here may have matched any subscription: all of them are told. */
static void tell_all(struct mp_topic *t, uint32_t publisher, const struct mp_topic_event *ev)
{
    const struct mp_topic_message *next = t->message_count != 0 ? &t->messages[0] : NULL;
    const struct mp_topic_batch lost = {.dropped = ev->receive.dropped,
                                        .after_seq = ev->receive.after_seq,
                                        .dropped_seq = next ? next->seq - 1 : UINT64_MAX,
                                        .dropped_at = next ? next->at_ms : UINT64_MAX};
    for (struct mp_topic_link *l = t->clients.next; l != &t->clients; l = l->next) {
        struct mp_topic_client *c = MP_TOPIC_OF(l, struct mp_topic_client, link);
        for (struct mp_topic_link *k = c->sinks.next; k != &c->sinks; k = k->next)
            mp_topic_sink_miss(t, MP_TOPIC_OF(k, struct mp_topic_sink, of_client), publisher,
                               &lost);
    }
    t->stats.dropped += ev->receive.dropped;
}

enum mp_err mp_topic_receive(struct mp_topic *t, const struct mp_topic_event *ev)
{
    uint32_t publisher;
    struct mp_slice name = ev->receive.publisher;
    if (!mp_slice_is_name(name) ||
        mp_slice_equal(name, mp_topic_publisher_name(t->publishers[MP_TOPIC_OWN])))
        return MP_ECORRUPT;
    MP_TRY(mp_topic_read_messages(t, ev->receive.messages, 0));
    MP_TRY(mp_topic_publisher_take(t, name, &publisher));
    if (ev->receive.dropped != 0)
        tell_all(t, publisher, ev);
    for (uint32_t i = 0; i < t->message_count; i++) {
        const struct mp_topic_message *m = &t->messages[i];
        struct mp_topic_matches matches = mp_topic_matches_of(t, m->topic);
        for (uint32_t k = 0; k < matches.count; k++)
            if (matches.sinks[k]->kind == MP_TOPIC_SINK_CLIENT)
                mp_topic_sink_give(t, matches.sinks[k], publisher, m);
    }
    t->stats.received += t->message_count;
    mp_topic_publisher_release(t, publisher);
    return MP_OK;
}
