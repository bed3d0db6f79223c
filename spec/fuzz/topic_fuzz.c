/* Bytes of another node, and of the store, at a machine for topics that has subscriptions,
 * functions, members and a subscription that gathers. The first byte says how often memory runs
 * out; the rest is what came from another node, what was kept, a list of patterns, and names, in
 * turn. Whatever it is, what goes out is well-formed, a pattern means the same to the machine and
 * to the plain matcher, and all memory comes back. */
#include <stdint.h>
#include <stdlib.h>

#include "spec/support/alloc.h"
#include "src/base/limits.h"
#include "src/core/topic/topic.h"
#include "src/wire/msgpack.h"
#include "src/wire/topic.h"

#define WALL 1700000000000u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct mp_topic *t;
static mp_time now;

static void must(bool is_so)
{
    if (!is_so)
        abort();
}

static void check(const struct mp_topic_effect *e)
{
    if (e->kind == MP_TOPIC_CALL) {
        must(mp_mp_check(e->data) == MP_OK && e->topic.size != 0);
        return;
    }
    if (e->kind == MP_TOPIC_MISSED || e->kind == MP_TOPIC_GATHER)
        return;
    uint32_t count;
    struct mp_mp_reader r;
    must(mp_mp_check(e->payload) == MP_OK);
    must(mp_mp_get_array(e->payload, &count, &r) == MP_OK && count == e->count);
    must(count != 0 || e->dropped != 0);
}

static enum mp_err step(struct mp_topic_event ev)
{
    struct mp_topic_effects out;
    ev.wall_ms = WALL + now / MP_MS(1);
    enum mp_err err = mp_topic_step(t, now, &ev, &out);
    for (uint32_t i = 0; i < out.count; i++)
        check(&out.items[i]);
    must(out.answer.size == 0 || mp_mp_check(out.answer) == MP_OK);
    return err;
}

static void subscribe(uint64_t id, struct mp_slice pattern, bool has_since)
{
    (void)step((struct mp_topic_event){
        .kind = MP_TOPIC_SUBSCRIBE,
        .client = 1,
        .id = id,
        .subscribe = {.pattern = pattern, .has_since = has_since, .queue_max = 3}});
}

static void begin(void)
{
    subscribe(1, mp_slice_str("#"), false);
    subscribe(2, mp_slice_str("a.*"), false);
    subscribe(3, mp_slice_str("#"), true);
    (void)step((struct mp_topic_event){.kind = MP_TOPIC_FUNCTION,
                                       .function = {.function = 1,
                                                    .patterns = mp_slice_str("\x92\xa1#\xa3"
                                                                             "a.*")}});
    (void)step((struct mp_topic_event){
        .kind = MP_TOPIC_INTEREST, .member = 1, .interest = mp_slice_str("\x91\xa1#")});
}

static void take(struct mp_slice bytes)
{
    (void)step((struct mp_topic_event){.kind = MP_TOPIC_RESTORED, .restored = bytes});
    (void)step((struct mp_topic_event){
        .kind = MP_TOPIC_RECEIVE,
        .receive = {.publisher = mp_slice_str("n2"), .dropped = 1, .messages = bytes}});
    (void)step((struct mp_topic_event){.kind = MP_TOPIC_RECEIVE,
                                       .receive = {.publisher = bytes, .messages = bytes}});
    (void)step((struct mp_topic_event){
        .kind = MP_TOPIC_GATHERED,
        .gathered = {
            .gather = 1, .publisher = mp_slice_str("n3"), .upto_seq = 1000, .messages = bytes}});
    (void)step((struct mp_topic_event){.kind = MP_TOPIC_PUBLISH, .publish = bytes});
    (void)step((struct mp_topic_event){.kind = MP_TOPIC_INTEREST, .member = 2, .interest = bytes});
    (void)step((struct mp_topic_event){
        .kind = MP_TOPIC_BACKLOG_ASKED, .member = 3, .asked = {.pattern = mp_slice_str("#")}});
    (void)step((struct mp_topic_event){.kind = MP_TOPIC_GATHER_END, .gather_end = 1});
}

/* The bytes up to the first zero as a pattern, the rest as a topic. */
static void compare(struct mp_slice bytes)
{
    char room[256];
    struct mp_text why;
    size_t end = 0;
    while (end < bytes.size && bytes.data[end] != 0)
        end++;
    struct mp_slice pattern = mp_slice_of(bytes.data, end);
    struct mp_slice name =
        end < bytes.size ? mp_slice_of(bytes.data + end + 1, bytes.size - end - 1) : pattern;
    mp_text_init(&why, room, sizeof(room));
    bool is_good = mp_topic_pattern_check(pattern, &why) == MP_OK;
    is_good = mp_topic_name_check(name, &why) == MP_OK && is_good;
    (void)step((struct mp_topic_event){.kind = MP_TOPIC_CLIENT_GONE, .client = 1});
    for (uint32_t i = 1; i <= 3; i++)
        (void)step((struct mp_topic_event){.kind = MP_TOPIC_MEMBER_GONE, .member = i});
    (void)step((struct mp_topic_event){
        .kind = MP_TOPIC_FUNCTION, .function = {.function = 1, .patterns = mp_slice_str("\x90")}});
    subscribe(9, pattern, false);
    bool is_wanted = mp_topic_is_wanted(t, name);
    if (is_good)
        must(is_wanted == mp_topic_is_match(pattern, name));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct spec_alloc counted = {.fail_at = SPEC_NEVER};
    struct mp_alloc alloc = spec_alloc_of(&counted);
    const struct mp_topic_config cfg = {.node = mp_slice_str("n1"), .room = 2, .is_kept = true};
    if (size < 1)
        return 0;
    now = MP_SECONDS(10000);
    must(mp_topic_new(&t, &cfg, &alloc) == MP_OK);
    begin();
    if ((data[0] & 1) != 0)
        counted.fail_at = counted.count + data[0] / 2;
    take(mp_slice_of(data + 1, size - 1));
    counted.fail_at = SPEC_NEVER;
    take(mp_slice_of(data + 1, size - 1));
    now += MP_SECONDS(10);
    for (int i = 0; i < 100 && mp_topic_deadline(t) <= now; i++)
        (void)step((struct mp_topic_event){.kind = MP_TOPIC_TIMER});
    compare(mp_slice_of(data + 1, size - 1));
    mp_topic_free(t);
    must(counted.live_bytes == 0);
    return 0;
}
