/* The ERROR object: what is put is read back, strangers are tolerated, nonsense is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "spec/support/alloc.h"
#include "src/wire/error.h"
#include "src/wire/msgpack.h"

struct fixture {
    struct spec_alloc memory;
    struct mp_alloc alloc;
    struct mp_buf buf;
};

static struct fixture fixture;

static int set_up(void **state)
{
    fixture.memory = (struct spec_alloc){.fail_at = SPEC_NEVER};
    fixture.alloc = spec_alloc_of(&fixture.memory);
    mp_buf_init(&fixture.buf, &fixture.alloc, 0);
    *state = &fixture;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = (struct fixture *)*state;
    mp_buf_fini(&f->buf);
    return f->memory.live_bytes == 0 ? 0 : -1;
}

static const uint8_t frames[] = {0x91, 0x80};
static const uint8_t cause[] = {0x81, 0xa4, 'c', 'o', 'd', 'e', 0xa7,
                                'U',  'N',  'K', 'N', 'O', 'W', 'N'};

static struct mp_fault full_fault(void)
{
    return (struct mp_fault){.code = MP_CODE_NOT_FOUND,
                             .reason = mp_slice_str("UNKNOWN_FUNCTION"),
                             .message = mp_slice_str("no such function"),
                             .hint = mp_slice_str("did you mean weather.clean?"),
                             .fun = mp_slice_str("weather.claen"),
                             .step = mp_slice_str("clean"),
                             .index = 3,
                             .node = mp_slice_str("n2"),
                             .version = mp_slice_str("1.0.0"),
                             .attempt = 2,
                             .traceback = mp_slice_of(frames, sizeof(frames)),
                             .cause = mp_slice_of(cause, sizeof(cause)),
                             .faults = mp_slice_of(frames, sizeof(frames)),
                             .is_final = true};
}

static void assert_same(const struct mp_fault *a, const struct mp_fault *b)
{
    assert_int_equal(a->code, b->code);
    assert_true(mp_slice_equal(a->reason, b->reason));
    assert_true(mp_slice_equal(a->message, b->message));
    assert_true(mp_slice_equal(a->hint, b->hint));
    assert_true(mp_slice_equal(a->fun, b->fun));
    assert_true(mp_slice_equal(a->step, b->step));
    assert_int_equal(a->index, b->index);
    assert_true(mp_slice_equal(a->node, b->node));
    assert_true(mp_slice_equal(a->version, b->version));
    assert_int_equal(a->attempt, b->attempt);
    assert_true(mp_slice_equal(a->traceback, b->traceback));
    assert_true(mp_slice_equal(a->cause, b->cause));
    assert_true(mp_slice_equal(a->faults, b->faults));
    assert_int_equal(a->is_final, b->is_final);
}

static void reads_back_what_it_puts(void **state)
{
    struct fixture *f = (struct fixture *)*state;
    struct mp_fault out = full_fault();
    struct mp_fault in;
    assert_int_equal(mp_fault_put(&f->buf, &out), MP_OK);
    assert_int_equal(mp_mp_check(mp_buf_slice(&f->buf)), MP_OK);
    assert_int_equal(mp_fault_read(mp_buf_slice(&f->buf), &in), MP_OK);
    assert_same(&in, &out);
    mp_buf_clear(&f->buf);
    struct mp_fault bare = {.code = MP_CODE_INTERNAL};
    assert_int_equal(mp_fault_put(&f->buf, &bare), MP_OK);
    uint32_t pairs;
    struct mp_mp_reader r;
    assert_int_equal(mp_mp_get_map(mp_buf_slice(&f->buf), &pairs, &r), MP_OK);
    assert_int_equal(pairs, 1);
}

static void names_each_code(void **state)
{
    (void)state;
    for (int code = 1; code < MP_CODE_COUNT; code++)
        assert_int_equal(mp_code_of(mp_slice_str(mp_code_name((enum mp_code)code))), code);
    assert_int_equal(mp_code_of(mp_slice_str("NONE")), MP_CODE_NONE);
    assert_int_equal(mp_code_of(mp_slice_of(NULL, 0)), MP_CODE_NONE);
    assert_true(mp_code_is_retried(MP_CODE_UNAVAILABLE));
    assert_false(mp_code_is_retried(MP_CODE_INVALID_ARGUMENT));
    assert_false(mp_code_is_retried((enum mp_code)999));
    assert_string_equal(mp_code_name((enum mp_code)999), "UNKNOWN");
}

static void put_map(struct fixture *f, const char *const *texts, uint32_t pairs)
{
    mp_buf_clear(&f->buf);
    assert_int_equal(mp_mp_put_map(&f->buf, pairs), MP_OK);
    for (uint32_t i = 0; i < pairs * 2; i++)
        assert_int_equal(mp_mp_put_text(&f->buf, texts[i]), MP_OK);
}

static void makes_a_strange_code_the_reason(void **state)
{
    struct fixture *f = (struct fixture *)*state;
    struct mp_fault fault;
    const char *const alone[] = {"code", "OUT_OF_TEA", "message", "none left"};
    put_map(f, alone, 2);
    assert_int_equal(mp_fault_read(mp_buf_slice(&f->buf), &fault), MP_OK);
    assert_int_equal(fault.code, MP_CODE_UNKNOWN);
    assert_true(mp_slice_is(fault.reason, "OUT_OF_TEA"));
    const char *const both[] = {"reason", "POT_EMPTY", "code", "OUT_OF_TEA"};
    put_map(f, both, 2);
    assert_int_equal(mp_fault_read(mp_buf_slice(&f->buf), &fault), MP_OK);
    assert_int_equal(fault.code, MP_CODE_UNKNOWN);
    assert_true(mp_slice_is(fault.reason, "POT_EMPTY"));
}

static void passes_over_what_it_does_not_know(void **state)
{
    struct fixture *f = (struct fixture *)*state;
    struct mp_fault fault;
    /* wrong types are as absent; unknown and odd keys are nothing */
    static const uint8_t bytes[] = {0x84, 0xa7, 'm', 'e', 's',  's', 'a',  'g',  'e',
                                    5,    0xa5, 'i', 'n', 'd',  'e', 'x',  0xa1, '3',
                                    0xa3, 'f',  'o', 'o', 0x91, 1,   0x91, 1,    0xc0};
    assert_int_equal(mp_fault_read(mp_slice_of(bytes, sizeof(bytes)), &fault), MP_OK);
    assert_int_equal(fault.code, MP_CODE_UNKNOWN);
    assert_int_equal(fault.message.size, 0);
    assert_int_equal(fault.index, 0);
    (void)f;
}

static void refuses_what_is_no_error(void **state)
{
    struct fixture *f = (struct fixture *)*state;
    struct mp_fault fault = {.code = MP_CODE_ABORTED};
    static const uint8_t text[] = {0xa1, 'x'};
    assert_int_equal(mp_fault_read(mp_slice_of(text, 2), &fault), MP_ETYPE);
    assert_int_equal(mp_fault_read(mp_slice_of(NULL, 0), &fault), MP_ECORRUPT);
    assert_int_equal(fault.code, MP_CODE_ABORTED);
    struct mp_fault out = full_fault();
    assert_int_equal(mp_fault_put(&f->buf, &out), MP_OK);
    for (size_t size = 0; size < f->buf.size; size++) {
        uint8_t *cut = (uint8_t *)malloc(size + 1);
        assert_non_null(cut);
        memcpy(cut, f->buf.data, size);
        assert_int_equal(mp_fault_read(mp_slice_of(cut, size), &fault), MP_ECORRUPT);
        free(cut);
    }
}

static void extends_only_what_is_absent(void **state)
{
    struct fixture *f = (struct fixture *)*state;
    const char *const texts[] = {"code", "ABORTED", "node", "n1", "colour", "blue"};
    put_map(f, texts, 3);
    struct mp_buf extended;
    mp_buf_init(&extended, &f->alloc, 0);
    struct mp_fault extra = full_fault();
    assert_int_equal(mp_fault_put_extended(&extended, mp_buf_slice(&f->buf), &extra), MP_OK);
    assert_int_equal(mp_mp_check(mp_buf_slice(&extended)), MP_OK);
    struct mp_fault in;
    assert_int_equal(mp_fault_read(mp_buf_slice(&extended), &in), MP_OK);
    assert_int_equal(in.code, MP_CODE_ABORTED);
    assert_true(mp_slice_is(in.node, "n1"));
    assert_true(mp_slice_is(in.step, "clean"));
    assert_int_equal(in.index, 3);
    struct mp_slice colour;
    assert_int_equal(mp_mp_map_get(mp_buf_slice(&extended), mp_slice_str("colour"), &colour),
                     MP_OK);
    mp_buf_fini(&extended);
}

static void survives_each_failed_allocation(void **state)
{
    struct fixture *f = (struct fixture *)*state;
    struct mp_fault out = full_fault();
    enum mp_err err = MP_ENOMEM;
    for (size_t n = 0; err != MP_OK; n++) {
        mp_buf_fini(&f->buf);
        f->memory = (struct spec_alloc){.fail_at = n};
        err = mp_fault_put(&f->buf, &out);
        assert_true(err == MP_OK || err == MP_ENOMEM);
        assert_true(n < 100);
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(reads_back_what_it_puts),         TEST(names_each_code),
        TEST(makes_a_strange_code_the_reason), TEST(passes_over_what_it_does_not_know),
        TEST(refuses_what_is_no_error),        TEST(extends_only_what_is_absent),
        TEST(survives_each_failed_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
