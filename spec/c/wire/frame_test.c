/* Prefaces, frame headers and the options of calls and runs: what is written reads back, what is
 * cut anywhere asks for more or is refused, and every refusal names its field. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "spec/support/alloc.h"
#include "src/base/rng.h"
#include "src/wire/frame.h"
#include "src/wire/msgpack.h"

struct fixture {
    struct spec_alloc memory;
    struct mp_alloc alloc;
    struct mp_buf b;
};

static int setup(void **state)
{
    static struct fixture f;
    f = (struct fixture){.memory = {.fail_at = SPEC_NEVER}};
    f.alloc = spec_alloc_of(&f.memory);
    mp_buf_init(&f.b, &f.alloc, 0);
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    mp_buf_fini(&f->b);
    return f->memory.live_bytes == 0 ? 0 : -1;
}

static void must(enum mp_err err)
{
    assert_int_equal(err, MP_OK);
}

/* --- prefaces and headers --- */

static void reads_its_own_preface_and_no_other(void **state)
{
    (void)state;
    uint8_t preface[MP_PREFACE_BYTES];
    uint8_t version = 77;
    mp_preface_write(preface);
    assert_true(preface[0] >= 0x80);
    for (size_t size = 0; size < MP_PREFACE_BYTES; size++)
        assert_int_equal(mp_preface_read(mp_slice_of(preface, size), &version), MP_EAGAIN);
    assert_int_equal(version, 77);
    must(mp_preface_read(mp_slice_of(preface, sizeof(preface)), &version));
    assert_int_equal(version, MP_PROTOCOL_VERSION);
    /* A wrong byte is told as soon as it is there. */
    for (size_t i = 0; i < MP_PREFACE_MAGIC_BYTES; i++) {
        preface[i] ^= 0x20;
        assert_int_equal(mp_preface_read(mp_slice_of(preface, i + 1), &version), MP_ECORRUPT);
        assert_int_equal(mp_preface_read(mp_slice_of(preface, 8), &version), MP_ECORRUPT);
        preface[i] ^= 0x20;
    }
}

static void writes_headers_byte_by_byte(void **state)
{
    (void)state;
    const struct mp_frame_header h = {
        .size = 0x04030201, .type = 16, .meta_size = 0x0605, .id = 0x1122334455667788u};
    static const uint8_t expected[] = {1,    2,    3,    4,    16,   0,    5,    6,
                                       0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11};
    uint8_t bytes[MP_FRAME_HEADER_BYTES];
    mp_frame_write_header(bytes, &h);
    assert_memory_equal(bytes, expected, sizeof(expected));
    struct mp_frame_header read;
    for (size_t size = 0; size < sizeof(bytes); size++)
        assert_int_equal(mp_frame_read_header(mp_slice_of(bytes, size), UINT32_MAX, &read),
                         MP_EAGAIN);
    must(mp_frame_read_header(mp_slice_of(bytes, sizeof(bytes)), UINT32_MAX, &read));
    assert_int_equal(read.size, h.size);
    assert_int_equal(read.type, h.type);
    assert_int_equal(read.meta_size, h.meta_size);
    assert_true(read.id == h.id);
}

static void refuses_headers_that_cannot_be(void **state)
{
    (void)state;
    struct mp_frame_header h = {.size = 100, .type = 1, .meta_size = 100, .id = 9};
    struct mp_frame_header read;
    uint8_t bytes[MP_FRAME_HEADER_BYTES];
    struct mp_slice all = mp_slice_of(bytes, sizeof(bytes));
    mp_frame_write_header(bytes, &h);
    must(mp_frame_read_header(all, 100, &read));
    assert_int_equal(mp_frame_read_header(all, 99, &read), MP_ETOOLARGE);
    assert_int_equal(read.id, 9); /* so that the request can be answered */
    h.meta_size = 101;
    mp_frame_write_header(bytes, &h);
    assert_int_equal(mp_frame_read_header(all, 1000, &read), MP_ECORRUPT);
    h.meta_size = 0;
    h.flags = 1;
    mp_frame_write_header(bytes, &h);
    assert_int_equal(mp_frame_read_header(all, 1000, &read), MP_ECORRUPT);
    h.flags = 0;
    h.size = UINT32_MAX;
    mp_frame_write_header(bytes, &h);
    assert_int_equal(mp_frame_read_header(all, 1000, &read), MP_ETOOLARGE);
}

static void puts_whole_frames_or_nothing(void **state)
{
    struct fixture *f = *state;
    static uint8_t meta[UINT16_MAX + 1];
    struct mp_frame_header h;
    must(mp_frame_put(&f->b, MP_FRAME_CALL, 3, mp_slice_str("meta"), mp_slice_str("payload")));
    must(mp_frame_put(&f->b, MP_FRAME_CANCEL, 4, mp_slice_of(NULL, 0), mp_slice_of(NULL, 0)));
    must(mp_frame_read_header(mp_buf_slice(&f->b), 1000, &h));
    assert_int_equal(h.size, 11);
    assert_int_equal(h.meta_size, 4);
    assert_int_equal(h.id, 3);
    assert_memory_equal(f->b.data + MP_FRAME_HEADER_BYTES, "metapayload", 11);
    mp_buf_drop(&f->b, MP_FRAME_HEADER_BYTES + h.size);
    must(mp_frame_read_header(mp_buf_slice(&f->b), 0, &h));
    assert_int_equal(h.type, MP_FRAME_CANCEL);
    assert_int_equal(f->b.size, MP_FRAME_HEADER_BYTES);
    assert_int_equal(
        mp_frame_put(&f->b, 1, 1, mp_slice_of(meta, UINT16_MAX + 1), mp_slice_of(NULL, 0)),
        MP_ETOOLARGE);
    f->memory.fail_at = 0;
    assert_int_equal(mp_frame_put(&f->b, 1, 1, mp_slice_of(meta, 1000), mp_slice_of(NULL, 0)),
                     MP_ENOMEM);
    assert_int_equal(f->b.size, MP_FRAME_HEADER_BYTES);
}

/* --- options of calls --- */

static void assert_same_options(const struct mp_call_options *a, const struct mp_call_options *b)
{
    assert_true(mp_slice_equal(a->fun, b->fun));
    assert_true(a->timeout_ms == b->timeout_ms);
    assert_true(mp_slice_equal(a->version, b->version));
    assert_true(mp_slice_equal(a->on, b->on));
    assert_true(mp_slice_equal(a->cluster, b->cluster));
    assert_int_equal(a->retries, b->retries);
    assert_int_equal(a->is_waiting, b->is_waiting);
    assert_int_equal(a->needs_count, b->needs_count);
    for (uint32_t i = 0; i < a->needs_count; i++)
        assert_true(mp_slice_equal(a->needs[i], b->needs[i]));
}

static void call_options_survive_the_way(void **state)
{
    struct fixture *f = *state;
    struct mp_rng rng;
    mp_rng_init(&rng, 41);
    for (int round = 0; round < 5000; round++) {
        struct mp_call_options o = {.fun = mp_slice_str("weather.mean")};
        struct mp_call_options read;
        const char *why = NULL;
        uint64_t has = mp_rng_next(&rng);
        o.timeout_ms = has & 1 ? 1 + mp_rng_below(&rng, MP_TIMEOUT_MS_MAX) : 0;
        o.version = has & 2 ? mp_slice_str("^1.2 <1.9") : o.version;
        o.on = has & 4 ? mp_slice_str("n1") : o.on;
        o.cluster = has & 8 ? mp_slice_str("eu-central") : o.cluster;
        o.retries = has & 16 ? (uint32_t)mp_rng_below(&rng, MP_RETRIES_MAX + 1) : 0;
        o.is_waiting = (has & 32) != 0;
        o.needs_count = has & 64 ? (uint32_t)mp_rng_below(&rng, MP_NEEDS_MAX + 1) : 0;
        for (uint32_t i = 0; i < o.needs_count; i++)
            o.needs[i] = mp_slice_str(i % 2 ? "gpu" : "ds2");
        mp_buf_clear(&f->b);
        must(mp_call_options_put(&f->b, &o));
        must(mp_mp_check(mp_buf_slice(&f->b)));
        must(mp_call_options_read(mp_buf_slice(&f->b), &read, &why));
        assert_same_options(&o, &read);
        for (size_t cut = 0; cut < f->b.size; cut++) {
            why = NULL;
            assert_int_equal(mp_call_options_read(mp_slice_of(f->b.data, cut), &read, &why),
                             MP_EINVAL);
            assert_non_null(why);
        }
        must(mp_buf_append_byte(&f->b, 0xc0));
        assert_int_equal(mp_call_options_read(mp_buf_slice(&f->b), &read, &why), MP_EINVAL);
    }
}

#define BYTES(text) mp_slice_of("" text, sizeof(text) - 1)

struct refusal {
    struct mp_slice meta;
    const char *why;
};

static void every_refusal_of_a_call_names_its_field(void **state)
{
    (void)state;
    static const char meta[] = "meta: expected [function, timeout_ms, options]";
    static const char fun[] = "function: expected a name such as module.function";
    static const char timeout[] = "timeout_ms: expected a positive number of milliseconds";
    static const char needs[] = "needs: expected a list of resource names";
    static const char retries[] = "retries: expected a number from 0 to 1000";
    static const char keys[] = "options: expected a map with names as keys";
    const struct refusal refusals[] = {
        {BYTES(""), meta},
        {BYTES("\xc0"), meta},
        {BYTES("\x90"), meta},
        {BYTES("\x94\xa1"
               "f\xc0\xc0\xc0"),
         meta},
        {BYTES("\x91\xa0"), fun},
        {BYTES("\x91\x07"), fun},
        {BYTES("\x91\xc4\x01"
               "f"),
         fun},
        {BYTES("\x91\xa1"
               "f\xc0"),
         "meta: bytes are left over"},
        {BYTES("\x92\xa1"
               "f\x92\xc0\xc1"),
         "timeout_ms: malformed"},
        {BYTES("\x92\xa1"
               "f\x00"),
         timeout},
        {BYTES("\x92\xa1"
               "f\xff"),
         timeout},
        {BYTES("\x92\xa1"
               "f\xa1"
               "5"),
         timeout},
        {BYTES("\x92\xa1"
               "f\xcf\xff\xff\xff\xff\xff\xff\xff\xff"),
         timeout},
        {BYTES("\x92\xa1"
               "f\xcb\x3f\xf8\x00\x00\x00\x00\x00\x00"),
         timeout}, /* 1.5 */
        {BYTES("\x93\xa1"
               "f\xc0\xc1"),
         "options: malformed"},
        {BYTES("\x93\xa1"
               "f\xc0\x80\xc0"),
         "options: malformed"},
        {BYTES("\x93\xa1"
               "f\xc0\x90"),
         "options: expected a map"},
        {BYTES("\x93\xa1"
               "f\xc0\x81\x01\xc0"),
         keys},
        {BYTES("\x93\xa1"
               "f\xc0\x81\xa5"
               "needs\x01"),
         needs},
        {BYTES("\x93\xa1"
               "f\xc0\x81\xa5"
               "needs\x91\x01"),
         needs},
        {BYTES("\x93\xa1"
               "f\xc0\x81\xa5"
               "needs\x91\xa3"
               "a b"),
         needs},
        {BYTES("\x93\xa1"
               "f\xc0\x81\xa5"
               "needs\x81\xa1"
               "a\xc3"),
         needs},
        {BYTES("\x93\xa1"
               "f\xc0\x81\xaatimeout_ms\x00"),
         timeout},
        {BYTES("\x93\xa1"
               "f\xc0\x81\xa2"
               "on\x01"),
         "on: expected the name of a node"},
        {BYTES("\x93\xa1"
               "f\xc0\x81\xa2"
               "on\xa2"
               "a."),
         "on: expected the name of a node"},
        {BYTES("\x93\xa1"
               "f\xc0\x81\xa7"
               "cluster\xa1"
               "/"),
         "cluster: expected the name of a cluster"},
        {BYTES("\x93\xa1"
               "f\xc0\x81\xa7"
               "version\x02"),
         "version: expected a constraint such as \">=1.2 <2\""},
        {BYTES("\x93\xa1"
               "f\xc0\x81\xa7"
               "retries\xff"),
         retries},
        {BYTES("\x93\xa1"
               "f\xc0\x81\xa7"
               "retries\xcd\x03\xe9"),
         retries}, /* 1001 */
        {BYTES("\x93\xa1"
               "f\xc0\x81\xa7"
               "retries\xc0"),
         retries},
        {BYTES("\x93\xa1"
               "f\xc0\x81\xa4"
               "wait\x01"),
         "wait: expected true or false"},
        {BYTES("\x93\xa1"
               "f\xc0\x81\xa5"
               "waits\xc3"),
         "unknown option (known: needs, version, on, cluster, retries, wait, timeout_ms)"},
    };
    for (size_t i = 0; i < sizeof(refusals) / sizeof(refusals[0]); i++) {
        struct mp_call_options o;
        const char *why = "nothing";
        assert_int_equal(mp_call_options_read(refusals[i].meta, &o, &why), MP_EINVAL);
        assert_string_equal(why, refusals[i].why);
    }
}

static void takes_what_callers_leave_out(void **state)
{
    struct fixture *f = *state;
    struct mp_call_options o;
    const char *why;
    must(mp_call_options_read(BYTES("\x91\xa1"
                                    "f"),
                              &o, &why));
    assert_true(mp_slice_is(o.fun, "f"));
    assert_int_equal(o.timeout_ms, 0);
    must(mp_call_options_read(BYTES("\x93\xa1"
                                    "f\xc0\xc0"),
                              &o, &why));
    must(mp_call_options_read(BYTES("\x93\xa1"
                                    "f\xc0\x82\xa5"
                                    "needs\x80\xa2on\xc0"),
                              &o, &why));
    assert_int_equal(o.needs_count, 0); /* an empty map is an empty list */
    must(mp_call_options_read(BYTES("\x92\xa1"
                                    "f\xcb\x40\x59\x00\x00\x00\x00\x00\x00"),
                              &o, &why));
    assert_int_equal(o.timeout_ms, 100); /* 100.0 */
    for (uint32_t count = MP_NEEDS_MAX; count <= MP_NEEDS_MAX + 1; count++) {
        mp_buf_clear(&f->b);
        must(mp_mp_put_map(&f->b, 1));
        must(mp_mp_put_text(&f->b, "needs"));
        must(mp_mp_put_array(&f->b, count));
        for (uint32_t i = 0; i < count; i++)
            must(mp_mp_put_text(&f->b, "r"));
        o = (struct mp_call_options){0};
        enum mp_err err = mp_call_options_read_map(mp_buf_slice(&f->b), &o, &why);
        assert_int_equal(err, count <= MP_NEEDS_MAX ? MP_OK : MP_EINVAL);
    }
    assert_string_equal(why, "needs: more than 32 resources");
    o = (struct mp_call_options){0};
    must(mp_call_options_read_map(mp_slice_of(NULL, 0), &o, &why));
    assert_int_equal(mp_call_options_read_map(BYTES("\x80\xc0"), &o, &why), MP_EINVAL);
    assert_string_equal(why, "options: bytes are left over");
}

/* --- options of runs --- */

static void run_options_survive_the_way(void **state)
{
    struct fixture *f = *state;
    for (int has = 0; has < 32; has++) {
        const struct mp_run_options o = {.topic = mp_slice_str(has & 16 ? "quakes.run" : ""),
                                         .timeout_ms = has & 1 ? MP_TIMEOUT_MS_MAX : 0,
                                         .has_trace = (has & 2) != 0,
                                         .has_events = (has & 4) != 0,
                                         .is_detached = (has & 8) != 0};
        struct mp_run_options read;
        const char *why = NULL;
        mp_buf_clear(&f->b);
        must(mp_run_options_put(&f->b, &o));
        must(mp_run_options_read(mp_buf_slice(&f->b), &read, &why));
        assert_true(read.timeout_ms == o.timeout_ms);
        assert_int_equal(read.has_trace, o.has_trace);
        assert_int_equal(read.has_events, o.has_events);
        assert_int_equal(read.is_detached, o.is_detached);
        assert_true(mp_slice_equal(read.topic, o.topic));
        for (size_t cut = 1; cut < f->b.size; cut++) {
            assert_int_equal(mp_run_options_read(mp_slice_of(f->b.data, cut), &read, &why),
                             MP_EINVAL);
            assert_string_equal(why, "meta: expected [options]");
        }
    }
}

static void every_refusal_of_a_run_names_its_field(void **state)
{
    (void)state;
    const struct refusal refusals[] = {
        {BYTES("\xc0"), "meta: expected [options]"},
        {BYTES("\x92\x80\x80"), "meta: expected [options]"},
        {BYTES("\x91\x80\x80"), "meta: expected [options]"},
        {BYTES("\x91\xc0"), "options: expected a map"},
        {BYTES("\x91\x81\x01\xc3"), "options: expected a map with names as keys"},
        {BYTES("\x91\x81\xa5"
               "trace\x01"),
         "trace: expected true or false"},
        {BYTES("\x91\x81\xa6"
               "follow\xc0"),
         "follow: expected true or false"},
        {BYTES("\x91\x81\xa6"
               "detach\xa1"
               "y"),
         "detach: expected true or false"},
        {BYTES("\x91\x81\xaatimeout_ms\x00"),
         "timeout_ms: expected a positive number of milliseconds"},
        {BYTES("\x91\x81\xa6"
               "traces\xc3"),
         "unknown option (known: timeout_ms, trace, follow, detach, topic)"},
        {BYTES("\x91\x81\xa5"
               "topic\xa0"),
         "topic: expected a text that is not empty"},
        {BYTES("\x91\x81\xa5"
               "topic\x01"),
         "topic: expected a text that is not empty"},
    };
    struct mp_run_options o;
    const char *why;
    for (size_t i = 0; i < sizeof(refusals) / sizeof(refusals[0]); i++) {
        why = "nothing";
        assert_int_equal(mp_run_options_read(refusals[i].meta, &o, &why), MP_EINVAL);
        assert_string_equal(why, refusals[i].why);
    }
    must(mp_run_options_read(mp_slice_of(NULL, 0), &o, &why));
    must(mp_run_options_read(BYTES("\x90"), &o, &why));
    must(mp_run_options_read(BYTES("\x91\x80"), &o, &why));
}

/* --- options of subscriptions --- */

static void subscribe_options_survive_the_way(void **state)
{
    struct fixture *f = *state;
    for (int has = 0; has < 4; has++) {
        const struct mp_subscribe_options o = {.pattern = mp_slice_str("a.*.#"),
                                               .since_ms = has & 1 ? 300000 : 0,
                                               .queue = has & 2 ? 7 : 0};
        struct mp_subscribe_options read;
        const char *why = NULL;
        mp_buf_clear(&f->b);
        must(mp_subscribe_options_put(&f->b, &o));
        must(mp_subscribe_options_read(mp_buf_slice(&f->b), &read, &why));
        assert_true(mp_slice_equal(read.pattern, o.pattern));
        assert_true(read.since_ms == o.since_ms && read.queue == o.queue);
        for (size_t cut = 0; cut < f->b.size; cut++)
            assert_int_equal(mp_subscribe_options_read(mp_slice_of(f->b.data, cut), &read, &why),
                             MP_EINVAL);
    }
}

static void every_refusal_of_a_subscription_names_its_field(void **state)
{
    (void)state;
    const struct refusal refusals[] = {
        {mp_slice_of(NULL, 0), "meta: expected [pattern, options]"},
        {BYTES("\x90"), "meta: expected [pattern, options]"},
        {BYTES("\x93\xa1x\x80\x80"), "meta: expected [pattern, options]"},
        {BYTES("\x91\x01"), "pattern: expected a text such as \"news.*\""},
        {BYTES("\x92\xa1x\xc0"), "options: expected a map"},
        {BYTES("\x92\xa1x\x81\x01\xc3"), "options: expected a map with names as keys"},
        {BYTES("\x92\xa1x\x81\xa5"
               "queue\x00"),
         "queue: expected a positive number of messages"},
        {BYTES("\x92\xa1x\x81\xa8since_ms\xff"),
         "since_ms: expected a positive number of milliseconds"},
        {BYTES("\x92\xa1x\x81\xa5since\x01"), "unknown option (known: since_ms, queue)"},
    };
    struct mp_subscribe_options o;
    const char *why;
    for (size_t i = 0; i < sizeof(refusals) / sizeof(refusals[0]); i++) {
        why = "nothing";
        assert_int_equal(mp_subscribe_options_read(refusals[i].meta, &o, &why), MP_EINVAL);
        assert_string_equal(why, refusals[i].why);
    }
    must(mp_subscribe_options_read(BYTES("\x91\xa1x"), &o, &why));
    must(mp_subscribe_options_read(BYTES("\x92\xa1x\x80"), &o, &why));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_its_own_preface_and_no_other),
        cmocka_unit_test(writes_headers_byte_by_byte),
        cmocka_unit_test(refuses_headers_that_cannot_be),
        cmocka_unit_test_setup_teardown(puts_whole_frames_or_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(call_options_survive_the_way, setup, teardown),
        cmocka_unit_test(every_refusal_of_a_call_names_its_field),
        cmocka_unit_test_setup_teardown(takes_what_callers_leave_out, setup, teardown),
        cmocka_unit_test_setup_teardown(run_options_survive_the_way, setup, teardown),
        cmocka_unit_test(every_refusal_of_a_run_names_its_field),
        cmocka_unit_test_setup_teardown(subscribe_options_survive_the_way, setup, teardown),
        cmocka_unit_test(every_refusal_of_a_subscription_names_its_field),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
