/* A machine for topics with a plain driver around it: what a spec needs to say what happens and to
 * see what comes of it. Times and payloads are small numbers and texts. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "spec/support/alloc.h"
#include "src/core/topic/topic.h"
#include "src/wire/msgpack.h"

#define WALL 1700000000000u

static struct spec_alloc counted;
static struct mp_alloc alloc;
static struct mp_topic *topic;
static struct mp_topic_effects out;
static mp_time now;
static struct mp_buf payload;
static struct mp_topic_config config;

static inline void must(enum mp_err err)
{
    assert_int_equal(MP_OK, err);
}

static inline void open_topic(void)
{
    must(mp_topic_new(&topic, &config, &alloc));
}

static inline int set_up(void **state)
{
    (void)state;
    counted = (struct spec_alloc){.fail_at = SPEC_NEVER};
    alloc = spec_alloc_of(&counted);
    mp_buf_init(&payload, &alloc, 0);
    now = MP_SECONDS(100000);
    config = (struct mp_topic_config){.node = mp_slice_str("n1"), .room = 1000};
    open_topic();
    return 0;
}

static inline int tear_down(void **state)
{
    (void)state;
    mp_topic_free(topic);
    mp_buf_fini(&payload);
    assert_int_equal(0, counted.live_bytes);
    return 0;
}

static inline uint64_t wall(void)
{
    return WALL + now / MP_MS(1);
}

static inline enum mp_err step(struct mp_topic_event ev)
{
    ev.wall_ms = wall();
    return mp_topic_step(topic, now, &ev, &out);
}

static inline enum mp_err try_subscribe(uint64_t client, uint64_t id, const char *pattern)
{
    return step((struct mp_topic_event){.kind = MP_TOPIC_SUBSCRIBE,
                                        .client = client,
                                        .id = id,
                                        .subscribe = {.pattern = mp_slice_str(pattern)}});
}

static inline void subscribe(uint64_t client, uint64_t id, const char *pattern)
{
    must(try_subscribe(client, id, pattern));
}

static inline void of_client(enum mp_topic_event_kind kind, uint64_t client, uint64_t id)
{
    must(step((struct mp_topic_event){.kind = kind, .client = client, .id = id}));
}

static inline void timer(void)
{
    must(step((struct mp_topic_event){.kind = MP_TOPIC_TIMER}));
}

/* Texts with blanks between them, as an array. */
static inline struct mp_slice list_of(const char *texts)
{
    uint32_t count = 0;
    mp_buf_clear(&payload);
    for (const char *p = texts; *p != '\0'; p++)
        count += *p != ' ' && (p == texts || p[-1] == ' ');
    must(mp_mp_put_array(&payload, count));
    while (*texts != '\0') {
        size_t size = strcspn(texts, " ");
        must(mp_mp_put_str(&payload, mp_slice_of(texts, size)));
        texts += size + (texts[size] == ' ');
    }
    return mp_buf_slice(&payload);
}

static inline enum mp_err interest(uint32_t member, const char *patterns)
{
    return step((struct mp_topic_event){
        .kind = MP_TOPIC_INTEREST, .member = member, .interest = list_of(patterns)});
}

static inline enum mp_err function(uint32_t number, const char *patterns)
{
    return step(
        (struct mp_topic_event){.kind = MP_TOPIC_FUNCTION,
                                .function = {.function = number, .patterns = list_of(patterns)}});
}

/* Publishes `count` messages to a topic; the data of each is a number that goes on from `data`. */
static inline enum mp_err try_publish(const char *name, uint64_t data, uint32_t count)
{
    mp_buf_clear(&payload);
    must(mp_mp_put_array(&payload, count));
    for (uint32_t i = 0; i < count; i++) {
        must(mp_mp_put_array(&payload, 2));
        must(mp_mp_put_text(&payload, name));
        must(mp_mp_put_uint(&payload, data + i));
    }
    return step(
        (struct mp_topic_event){.kind = MP_TOPIC_PUBLISH, .publish = mp_buf_slice(&payload)});
}

static inline void publish(const char *name, uint64_t data)
{
    must(try_publish(name, data, 1));
}

static inline void put_message(const char *name, uint64_t seq, uint64_t at_ms, uint64_t data)
{
    must(mp_mp_put_array(&payload, 4));
    must(mp_mp_put_text(&payload, name));
    must(mp_mp_put_uint(&payload, seq));
    must(mp_mp_put_uint(&payload, at_ms));
    must(mp_mp_put_uint(&payload, data));
}

/* What another node published: seqs from `seq` on. */
static inline void begin_messages(uint32_t count)
{
    mp_buf_clear(&payload);
    must(mp_mp_put_array(&payload, count));
}

static inline enum mp_err receive(const char *publisher, uint64_t dropped, uint64_t after_seq)
{
    return step((struct mp_topic_event){.kind = MP_TOPIC_RECEIVE,
                                        .receive = {.publisher = mp_slice_str(publisher),
                                                    .dropped = dropped,
                                                    .after_seq = after_seq,
                                                    .messages = mp_buf_slice(&payload)}});
}

static inline enum mp_err gathered(uint64_t gather, const char *publisher, uint64_t upto_seq)
{
    return step((struct mp_topic_event){.kind = MP_TOPIC_GATHERED,
                                        .gathered = {.gather = gather,
                                                     .publisher = mp_slice_str(publisher),
                                                     .upto_seq = upto_seq,
                                                     .messages = mp_buf_slice(&payload)}});
}

static inline enum mp_err gather_end(uint64_t gather)
{
    return step((struct mp_topic_event){.kind = MP_TOPIC_GATHER_END, .gather_end = gather});
}

static inline enum mp_err since(uint64_t client, uint64_t id, const char *pattern, uint64_t ms)
{
    return step((struct mp_topic_event){
        .kind = MP_TOPIC_SUBSCRIBE,
        .client = client,
        .id = id,
        .subscribe = {.pattern = mp_slice_str(pattern), .has_since = true, .since_ms = ms}});
}

static inline enum mp_err ack(uint32_t member, bool is_lost)
{
    return step(
        (struct mp_topic_event){.kind = MP_TOPIC_ACKED, .member = member, .is_lost = is_lost});
}

/* --- what came of it, as text --- */

static char said[1 << 16];
static size_t said_size;

static inline void say(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    said_size += (size_t)vsnprintf(said + said_size, sizeof(said) - said_size, format, args);
    va_end(args);
    assert_true(said_size < sizeof(said));
}

/* Messages as topic:seq=data; the array has to be well-formed and to have as many as it says. */
static inline void say_messages(struct mp_slice array, uint32_t count)
{
    uint32_t found;
    struct mp_mp_reader r;
    must(mp_mp_check(array));
    must(mp_mp_get_array(array, &found, &r));
    assert_int_equal(count, found);
    for (uint32_t i = 0; i < count; i++) {
        struct mp_slice message;
        struct mp_slice v;
        int64_t seq;
        int64_t data;
        must(mp_mp_take(&r, &message));
        must(mp_mp_array_get(message, 1, &v));
        must(mp_mp_get_int(v, &seq));
        must(mp_mp_array_get(message, 3, &v));
        must(mp_mp_get_int(v, &data));
        must(mp_mp_array_get(message, 0, &v));
        must(mp_mp_get_str(v, &v));
        say(" %.*s:%d=%d", (int)v.size, (const char *)v.data, (int)seq, (int)data);
    }
}

static inline void say_effect(const struct mp_topic_effect *e)
{
    int64_t data;
    switch (e->kind) {
    case MP_TOPIC_DELIVER:
        say("%d/%d %.*s", (int)e->client, (int)e->id, (int)e->publisher.size,
            (const char *)e->publisher.data);
        break;
    case MP_TOPIC_CALL:
        must(mp_mp_get_int(e->data, &data));
        say("f%d %.*s %.*s:%d=%d;", (int)e->function, (int)e->publisher.size,
            (const char *)e->publisher.data, (int)e->topic.size, (const char *)e->topic.data,
            (int)e->seq, (int)data);
        return;
    case MP_TOPIC_MISSED:
        say("f%d missed %d;", (int)e->function, (int)e->dropped);
        return;
    case MP_TOPIC_FORWARD:
        say("m%d", (int)e->member);
        break;
    case MP_TOPIC_GATHER:
        say("gather %d %.*s;", (int)e->gather, (int)e->pattern.size, (const char *)e->pattern.data);
        return;
    case MP_TOPIC_KEEP:
        say("keep");
        break;
    case MP_TOPIC_FORGET:
    default:
        must(mp_mp_check(e->payload));
        say("forget %d;", (int)e->count);
        return;
    }
    if (e->dropped != 0)
        say(" -%d>%d", (int)e->dropped, (int)e->after_seq);
    say_messages(e->payload, e->count);
    say(";");
}

/* What the last step said, in one line. */
static inline const char *effects(void)
{
    said_size = 0;
    said[0] = '\0';
    for (uint32_t i = 0; i < out.count; i++)
        say_effect(&out.items[i]);
    return said;
}

#define says(text) assert_string_equal(text, effects())
