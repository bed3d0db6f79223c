/* The meta parts of what nodes say to each other: what was written reads the same, what is cut or
 * changed is refused or reads as something within all limits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "spec/support/alloc.h"
#include "src/base/rng.h"
#include "src/wire/msgpack.h"
#include "src/wire/peer.h"

enum { HELLO, CALL, ANSWER, FORWARD, FETCH, RELEASE, MESSAGES, BACKLOG, UPTO, KINDS };

union message {
    struct mp_peer_hello hello;
    struct mp_peer_call call;
    struct mp_peer_answer answer;
    struct mp_peer_forward forward;
    struct mp_peer_fetch fetch;
    struct mp_peer_release release;
    struct mp_peer_messages messages;
    struct mp_peer_backlog backlog;
    struct mp_peer_upto upto;
};

static struct spec_alloc counted;
static struct mp_alloc alloc;

static int set_up(void **state)
{
    (void)state;
    counted = (struct spec_alloc){.fail_at = SPEC_NEVER};
    alloc = spec_alloc_of(&counted);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    assert_int_equal(counted.live_bytes, 0);
    return 0;
}

static struct mp_slice name_of(struct mp_rng *rng)
{
    static const char letters[] =
        "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijkl";
    return mp_slice_of(letters + mp_rng_below(rng, 10), 1 + mp_rng_below(rng, 54));
}

static uint64_t number_of(struct mp_rng *rng)
{
    return mp_rng_next(rng) >> mp_rng_below(rng, 64);
}

static union message make(int kind, struct mp_rng *rng)
{
    union message m;
    memset(&m, 0, sizeof(m));
    if (kind == HELLO) {
        m.hello = (struct mp_peer_hello){.cluster = name_of(rng),
                                         .name = name_of(rng),
                                         .generation = number_of(rng) | 1,
                                         .addr = {.size = mp_rng_below(rng, 2) == 0 ? 6 : 18},
                                         .flags = (uint8_t)number_of(rng),
                                         .version = name_of(rng)};
        for (uint32_t i = 0; i < m.hello.addr.size; i++)
            m.hello.addr.bytes[i] = (uint8_t)mp_rng_next(rng);
    } else if (kind == CALL) {
        m.call.fun = name_of(rng);
        m.call.remaining_ns = number_of(rng);
        m.call.version = mp_rng_below(rng, 2) == 0 ? name_of(rng) : mp_slice_of("", 0);
        m.call.needs_count = (uint32_t)mp_rng_below(rng, MP_NEEDS_MAX + 1);
        for (uint32_t i = 0; i < m.call.needs_count; i++)
            m.call.needs[i] = name_of(rng);
        m.call.attempt = (uint32_t)number_of(rng);
        m.call.depth = (uint32_t)number_of(rng);
        m.call.context =
            mp_rng_below(rng, 2) == 0 ? mp_slice_of("\x92\x01\x02", 3) : mp_slice_of(NULL, 0);
        m.call.flags = (uint32_t)number_of(rng);
        m.call.run = number_of(rng);
        m.call.coordinator = mp_rng_below(rng, 2) == 0 ? name_of(rng) : mp_slice_of("", 0);
    } else if (kind == ANSWER) {
        m.answer = (struct mp_peer_answer){.load = (uint32_t)number_of(rng),
                                           .queue_ns = number_of(rng),
                                           .run_ns = number_of(rng),
                                           .worker = (uint32_t)number_of(rng),
                                           .flags = (uint32_t)number_of(rng),
                                           .held = number_of(rng),
                                           .held_bytes = number_of(rng),
                                           .moved = number_of(rng)};
    } else if (kind == FORWARD) {
        m.forward.target = name_of(rng);
        m.forward.passed_count = (uint32_t)mp_rng_below(rng, MP_RELAY_NODES_MAX + 1);
        for (uint32_t i = 0; i < m.forward.passed_count; i++)
            m.forward.passed[i] = name_of(rng);
        m.forward.type = (uint8_t)mp_rng_next(rng);
        m.forward.meta = name_of(rng);
    } else if (kind == RELEASE) {
        m.release = (struct mp_peer_release){.run = number_of(rng), .coordinator = name_of(rng)};
    } else if (kind == MESSAGES) {
        m.messages = (struct mp_peer_messages){.publisher = name_of(rng),
                                               .dropped = number_of(rng),
                                               .after_seq = number_of(rng),
                                               .generation = number_of(rng) | 1};
    } else if (kind == BACKLOG) {
        m.backlog = (struct mp_peer_backlog){
            .pattern = name_of(rng), .since_ms = number_of(rng) >> 1, .asker = name_of(rng)};
    } else if (kind == UPTO) {
        m.upto = (struct mp_peer_upto){.seq = number_of(rng)};
    } else {
        m.fetch = (struct mp_peer_fetch){
            .held = number_of(rng), .path = name_of(rng), .is_late = mp_rng_below(rng, 2) != 0};
    }
    return m;
}

static enum mp_err put(int kind, struct mp_buf *b, const union message *m)
{
    switch (kind) {
    case HELLO:
        return mp_peer_hello_put(b, &m->hello);
    case CALL:
        return mp_peer_call_put(b, &m->call);
    case ANSWER:
        return mp_peer_answer_put(b, &m->answer);
    case FORWARD:
        return mp_peer_forward_put(b, &m->forward);
    case RELEASE:
        return mp_peer_release_put(b, &m->release);
    case MESSAGES:
        return mp_peer_messages_put(b, &m->messages);
    case BACKLOG:
        return mp_peer_backlog_put(b, &m->backlog);
    case UPTO:
        return mp_peer_upto_put(b, &m->upto);
    default:
        return mp_peer_fetch_put(b, &m->fetch);
    }
}

static enum mp_err read(int kind, struct mp_slice bytes, union message *m)
{
    switch (kind) {
    case HELLO:
        return mp_peer_hello_read(bytes, &m->hello);
    case CALL:
        return mp_peer_call_read(bytes, &m->call);
    case ANSWER:
        return mp_peer_answer_read(bytes, &m->answer);
    case FORWARD:
        return mp_peer_forward_read(bytes, &m->forward);
    case RELEASE:
        return mp_peer_release_read(bytes, &m->release);
    case MESSAGES:
        return mp_peer_messages_read(bytes, &m->messages);
    case BACKLOG:
        return mp_peer_backlog_read(bytes, &m->backlog);
    case UPTO:
        return mp_peer_upto_read(bytes, &m->upto);
    default:
        return mp_peer_fetch_read(bytes, &m->fetch);
    }
}

static void what_is_written_reads_the_same(void **state)
{
    (void)state;
    struct mp_rng rng;
    struct mp_buf b;
    struct mp_buf again;
    mp_rng_init(&rng, 1);
    mp_buf_init(&b, &alloc, 0);
    mp_buf_init(&again, &alloc, 0);
    for (int kind = 0; kind < KINDS; kind++)
        for (int i = 0; i < 500; i++) {
            const union message m = make(kind, &rng);
            union message got;
            memset(&got, 0, sizeof(got));
            mp_buf_clear(&b);
            mp_buf_clear(&again);
            assert_int_equal(put(kind, &b, &m), MP_OK);
            assert_int_equal(read(kind, mp_buf_slice(&b), &got), MP_OK);
            assert_int_equal(put(kind, &again, &got), MP_OK);
            assert_true(mp_slice_equal(mp_buf_slice(&b), mp_buf_slice(&again)));
        }
    mp_buf_fini(&b);
    mp_buf_fini(&again);
}

/* Cut anywhere it is refused; with a byte changed it reads as something that can be written. */
static void what_is_broken_is_refused(void **state)
{
    (void)state;
    struct mp_rng rng;
    struct mp_buf b;
    struct mp_buf again;
    uint32_t refused = 0;
    mp_rng_init(&rng, 2);
    mp_buf_init(&b, &alloc, 0);
    mp_buf_init(&again, &alloc, 0);
    for (int kind = 0; kind < KINDS; kind++)
        for (int i = 0; i < 200; i++) {
            const union message m = make(kind, &rng);
            union message got;
            mp_buf_clear(&b);
            assert_int_equal(put(kind, &b, &m), MP_OK);
            size_t cut = mp_rng_below(&rng, b.size);
            assert_int_equal(read(kind, mp_slice_of(b.data, cut), &got), MP_ECORRUPT);
            b.data[mp_rng_below(&rng, b.size)] = (uint8_t)mp_rng_next(&rng);
            memset(&got, 0, sizeof(got));
            if (read(kind, mp_buf_slice(&b), &got) != MP_OK) {
                refused++;
                continue;
            }
            mp_buf_clear(&again);
            assert_int_equal(put(kind, &again, &got), MP_OK);
            assert_int_equal(read(kind, mp_buf_slice(&again), &got), MP_OK);
        }
    assert_true(refused > 100);
    mp_buf_fini(&b);
    mp_buf_fini(&again);
}

static void later_versions_may_add_elements(void **state)
{
    (void)state;
    struct mp_rng rng;
    struct mp_buf b;
    mp_rng_init(&rng, 3);
    mp_buf_init(&b, &alloc, 0);
    for (int kind = 0; kind < KINDS; kind++) {
        const union message m = make(kind, &rng);
        union message got;
        mp_buf_clear(&b);
        assert_int_equal(put(kind, &b, &m), MP_OK);
        b.data[0]++; /* a short array has its count there */
        assert_int_equal(mp_mp_put_text(&b, "more"), MP_OK);
        assert_int_equal(read(kind, mp_buf_slice(&b), &got), MP_OK);
        b.data[0] = 0x90; /* none at all */
        assert_int_equal(read(kind, mp_slice_of(b.data, 1), &got), MP_ECORRUPT);
    }
    mp_buf_fini(&b);
}

static void limits_are_kept(void **state)
{
    (void)state;
    struct mp_rng rng;
    struct mp_buf b;
    union message got;
    mp_rng_init(&rng, 4);
    mp_buf_init(&b, &alloc, 0);
    union message m = make(HELLO, &rng);
    m.hello.generation = 0;
    assert_int_equal(put(HELLO, &b, &m), MP_OK);
    assert_int_equal(read(HELLO, mp_buf_slice(&b), &got), MP_ECORRUPT);
    m = make(HELLO, &rng);
    m.hello.name = mp_slice_str("no name");
    mp_buf_clear(&b);
    assert_int_equal(put(HELLO, &b, &m), MP_OK);
    assert_int_equal(read(HELLO, mp_buf_slice(&b), &got), MP_ECORRUPT);
    mp_buf_clear(&b);
    assert_int_equal(mp_mp_put_array(&b, 4), MP_OK);
    assert_int_equal(mp_mp_put_text(&b, "target"), MP_OK);
    assert_int_equal(mp_mp_put_array(&b, MP_RELAY_NODES_MAX + 1), MP_OK);
    for (uint32_t i = 0; i <= MP_RELAY_NODES_MAX; i++)
        assert_int_equal(mp_mp_put_text(&b, "x"), MP_OK);
    assert_int_equal(mp_mp_put_uint(&b, 1), MP_OK);
    assert_int_equal(mp_mp_put_bin(&b, mp_slice_str("")), MP_OK);
    assert_int_equal(read(FORWARD, mp_buf_slice(&b), &got), MP_ECORRUPT);
    m = make(MESSAGES, &rng);
    m.messages.publisher = mp_slice_str("");
    mp_buf_clear(&b);
    assert_int_equal(put(MESSAGES, &b, &m), MP_OK);
    assert_int_equal(read(MESSAGES, mp_buf_slice(&b), &got), MP_ECORRUPT);
    m = make(BACKLOG, &rng);
    m.backlog.since_ms = UINT64_MAX;
    mp_buf_clear(&b);
    assert_int_equal(put(BACKLOG, &b, &m), MP_OK);
    assert_int_equal(read(BACKLOG, mp_buf_slice(&b), &got), MP_ECORRUPT);
    mp_buf_fini(&b);
}

static void writing_fails_without_memory(void **state)
{
    (void)state;
    struct mp_rng rng;
    struct mp_buf b;
    mp_rng_init(&rng, 5);
    for (int kind = 0; kind < KINDS; kind++) {
        const union message m = make(kind, &rng);
        for (size_t fail_at = 0;; fail_at++) {
            counted.fail_at = counted.count + fail_at;
            mp_buf_init(&b, &alloc, 0);
            enum mp_err err = put(kind, &b, &m);
            mp_buf_fini(&b);
            counted.fail_at = SPEC_NEVER;
            if (err == MP_OK)
                break;
            assert_int_equal(err, MP_ENOMEM);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_is_written_reads_the_same, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_is_broken_is_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(later_versions_may_add_elements, set_up, tear_down),
        cmocka_unit_test_setup_teardown(limits_are_kept, set_up, tear_down),
        cmocka_unit_test_setup_teardown(writing_fails_without_memory, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
