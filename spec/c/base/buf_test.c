/* Buffers: growth, limits, dropping from the front, and failures that change nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "spec/support/alloc.h"
#include "src/base/buf.h"
#include "src/base/rng.h"

static void agrees_with_a_plain_array(void **state)
{
    (void)state;
    static uint8_t model[1u << 20];
    size_t size = 0;
    struct spec_alloc a = {.fail_at = SPEC_NEVER};
    struct mp_alloc alloc = spec_alloc_of(&a);
    struct mp_buf b;
    struct mp_rng rng;
    mp_rng_init(&rng, 3);
    mp_buf_init(&b, &alloc, 0);
    for (int round = 0; round < 20000; round++) {
        size_t part = mp_rng_below(&rng, 100);
        if (mp_rng_below(&rng, 3) == 0 || size + part > sizeof(model)) {
            size_t count = mp_rng_below(&rng, size + 1);
            mp_buf_drop(&b, count);
            memmove(model, model + count, size - count);
            size -= count;
        } else if (part == 1) {
            model[size++] = (uint8_t)round;
            assert_int_equal(mp_buf_append_byte(&b, (uint8_t)round), MP_OK);
        } else {
            for (size_t i = 0; i < part; i++)
                model[size + i] = (uint8_t)mp_rng_next(&rng);
            assert_int_equal(mp_buf_append(&b, mp_slice_of(model + size, part)), MP_OK);
            size += part;
        }
        assert_true(mp_slice_equal(mp_buf_slice(&b), mp_slice_of(model, size)));
    }
    mp_buf_fini(&b);
    mp_buf_fini(&b);
    assert_int_equal(a.live_bytes, 0);
}

static void keeps_to_its_limit_exactly(void **state)
{
    (void)state;
    struct spec_alloc a = {.fail_at = SPEC_NEVER};
    struct mp_alloc alloc = spec_alloc_of(&a);
    for (size_t limit = 1; limit < 200; limit++) {
        struct mp_buf b;
        mp_buf_init(&b, &alloc, limit);
        for (size_t i = 0; i < limit; i++)
            assert_int_equal(mp_buf_append_byte(&b, 'x'), MP_OK);
        assert_int_equal(mp_buf_append_byte(&b, 'x'), MP_ETOOLARGE);
        assert_int_equal(b.size, limit);
        assert_true(a.live_bytes <= limit);
        mp_buf_drop(&b, 1);
        assert_int_equal(mp_buf_append(&b, mp_slice_str("ab")), MP_ETOOLARGE);
        assert_int_equal(mp_buf_append_byte(&b, 'x'), MP_OK);
        mp_buf_fini(&b);
    }
    assert_int_equal(a.live_bytes, 0);
}

static void refuses_sizes_that_would_overflow(void **state)
{
    (void)state;
    struct spec_alloc a = {.fail_at = SPEC_NEVER};
    struct mp_alloc alloc = spec_alloc_of(&a);
    struct mp_buf b;
    mp_buf_init(&b, &alloc, 0);
    assert_int_equal(mp_buf_append_byte(&b, 'x'), MP_OK);
    assert_int_equal(mp_buf_reserve(&b, SIZE_MAX), MP_ETOOLARGE);
    assert_int_equal(mp_buf_reserve(&b, SIZE_MAX / 2), MP_ETOOLARGE);
    assert_int_equal(b.size, 1);
    assert_int_equal(b.data[0], 'x');
    mp_buf_fini(&b);
}

static void is_as_before_when_memory_is_out(void **state)
{
    (void)state;
    struct spec_alloc a = {.fail_at = 1};
    struct mp_alloc alloc = spec_alloc_of(&a);
    struct mp_buf b;
    mp_buf_init(&b, &alloc, 0);
    assert_int_equal(mp_buf_append(&b, mp_slice_str("hello")), MP_OK);
    assert_int_equal(mp_buf_reserve(&b, 1000), MP_ENOMEM);
    assert_true(mp_slice_is(mp_buf_slice(&b), "hello"));
    mp_buf_clear(&b);
    assert_int_equal(b.size, 0);
    mp_buf_fini(&b);
    assert_int_equal(a.live_bytes, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(agrees_with_a_plain_array),
        cmocka_unit_test(keeps_to_its_limit_exactly),
        cmocka_unit_test(refuses_sizes_that_would_overflow),
        cmocka_unit_test(is_as_before_when_memory_is_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
