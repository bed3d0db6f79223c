/* The walker never reads past its end nor believes a count, and the writers choose the shortest
 * form, which the walker reads back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "spec/support/alloc.h"
#include "src/base/limits.h"
#include "src/base/rng.h"
#include "src/wire/msgpack.h"

#define SEED 20
#define BYTES(...)                                                                                 \
    mp_slice_of((const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

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

/* A copy that ends where its memory ends, so that the sanitizer sees each byte read too far. */
static struct mp_slice exact_copy(struct mp_slice s)
{
    uint8_t *copy = (uint8_t *)malloc(s.size == 0 ? 1 : s.size);
    assert_non_null(copy);
    if (s.size != 0)
        memcpy(copy, s.data, s.size);
    return mp_slice_of(copy, s.size);
}

static void free_copy(struct mp_slice s)
{
    free((void *)(uintptr_t)s.data);
}

static void assert_written(struct fixture *f, struct mp_slice expected)
{
    assert_int_equal(f->buf.size, expected.size);
    assert_memory_equal(f->buf.data, expected.data, expected.size);
    mp_buf_clear(&f->buf);
}

static void writes_integers_in_the_shortest_form(void **state)
{
    struct fixture *f = (struct fixture *)*state;
    static const struct {
        int64_t value;
        size_t size;
        uint8_t first;
    } cases[] = {
        {0, 1, 0x00},          {127, 1, 0x7f},       {128, 2, 0xcc},         {255, 2, 0xcc},
        {256, 3, 0xcd},        {65535, 3, 0xcd},     {65536, 5, 0xce},       {4294967295, 5, 0xce},
        {4294967296, 9, 0xcf}, {INT64_MAX, 9, 0xcf}, {-1, 1, 0xff},          {-32, 1, 0xe0},
        {-33, 2, 0xd0},        {-128, 2, 0xd0},      {-129, 3, 0xd1},        {-32768, 3, 0xd1},
        {-32769, 5, 0xd2},     {INT32_MIN, 5, 0xd2}, {-2147483649, 9, 0xd3}, {INT64_MIN, 9, 0xd3},
    };
    for (size_t i = 0; i < MP_ARRAY_SIZE(cases); i++) {
        assert_int_equal(mp_mp_put_int(&f->buf, cases[i].value), MP_OK);
        assert_int_equal(f->buf.size, cases[i].size);
        assert_int_equal(f->buf.data[0], cases[i].first);
        int64_t back;
        assert_int_equal(mp_mp_get_int(mp_buf_slice(&f->buf), &back), MP_OK);
        assert_true(back == cases[i].value);
        mp_buf_clear(&f->buf);
    }
}

static void writes_headers_in_the_shortest_form(void **state)
{
    struct fixture *f = (struct fixture *)*state;
    assert_int_equal(mp_mp_put_array(&f->buf, 15), MP_OK);
    assert_written(f, BYTES(0x9f));
    assert_int_equal(mp_mp_put_array(&f->buf, 16), MP_OK);
    assert_written(f, BYTES(0xdc, 0, 16));
    assert_int_equal(mp_mp_put_array(&f->buf, 65536), MP_OK);
    assert_written(f, BYTES(0xdd, 0, 1, 0, 0));
    assert_int_equal(mp_mp_put_map(&f->buf, 15), MP_OK);
    assert_written(f, BYTES(0x8f));
    assert_int_equal(mp_mp_put_map(&f->buf, 16), MP_OK);
    assert_written(f, BYTES(0xde, 0, 16));
    assert_int_equal(mp_mp_put_map(&f->buf, 65536), MP_OK);
    assert_written(f, BYTES(0xdf, 0, 1, 0, 0));
    assert_int_equal(mp_mp_put_nil(&f->buf), MP_OK);
    assert_int_equal(mp_mp_put_bool(&f->buf, true), MP_OK);
    assert_int_equal(mp_mp_put_bool(&f->buf, false), MP_OK);
    assert_written(f, BYTES(0xc0, 0xc3, 0xc2));
}

static void reads_back_texts_of_each_width(void **state)
{
    struct fixture *f = (struct fixture *)*state;
    static const size_t sizes[] = {0, 1, 31, 32, 255, 256, 65535, 65536};
    uint8_t *text = (uint8_t *)malloc(65536);
    assert_non_null(text);
    memset(text, 'x', 65536);
    for (size_t i = 0; i < MP_ARRAY_SIZE(sizes) * 2; i++) {
        struct mp_slice s = mp_slice_of(text, sizes[i / 2]);
        assert_int_equal(i % 2 ? mp_mp_put_bin(&f->buf, s) : mp_mp_put_str(&f->buf, s), MP_OK);
        struct mp_mp_reader r = mp_mp_reader_of(mp_buf_slice(&f->buf));
        struct mp_mp_token t;
        assert_int_equal(mp_mp_next(&r, &t), MP_OK);
        assert_int_equal(t.type, i % 2 ? MP_MP_BIN : MP_MP_STR);
        assert_true(mp_slice_equal(t.bytes, s));
        assert_true(mp_mp_is_at_end(&r));
        mp_buf_clear(&f->buf);
    }
    free(text);
}

static void reads_each_form(void **state)
{
    (void)state;
    struct mp_slice bytes = BYTES(0xca, 0x3f, 0xc0, 0, 0, 0xd0, 5, 0xd4, 7, 1, 0xc7, 2, 9, 1, 2,
                                  0xe0, 0xcf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff);
    struct mp_mp_reader r = mp_mp_reader_of(bytes);
    struct mp_mp_token t;
    assert_int_equal(mp_mp_next(&r, &t), MP_OK);
    assert_true(t.type == MP_MP_FLOAT && t.f == 1.5);
    assert_int_equal(mp_mp_next(&r, &t), MP_OK);
    assert_true(t.type == MP_MP_UINT && t.u == 5);
    assert_int_equal(mp_mp_next(&r, &t), MP_OK);
    assert_true(t.type == MP_MP_EXT && t.ext_type == 7 && t.bytes.size == 1);
    assert_int_equal(mp_mp_next(&r, &t), MP_OK);
    assert_true(t.type == MP_MP_EXT && t.ext_type == 9 && t.bytes.size == 2);
    assert_int_equal(mp_mp_next(&r, &t), MP_OK);
    assert_true(t.type == MP_MP_INT && t.i == -32);
    assert_int_equal(mp_mp_next(&r, &t), MP_OK);
    assert_true(t.type == MP_MP_UINT && t.u == UINT64_MAX);
    assert_int_equal(mp_mp_next(&r, &t), MP_ECORRUPT);
}

static void put_random(struct fixture *f, struct mp_rng *rng, unsigned depth)
{
    uint64_t kind = mp_rng_below(rng, depth < 4 ? 9 : 7);
    uint64_t size = mp_rng_below(rng, 40);
    uint8_t text[40];
    memset(text, 'a', sizeof(text));
    enum mp_err err = MP_OK;
    switch (kind) {
    case 0:
        err = mp_mp_put_nil(&f->buf);
        break;
    case 1:
        err = mp_mp_put_bool(&f->buf, size % 2);
        break;
    case 2:
        err = mp_mp_put_uint(&f->buf, mp_rng_next(rng) >> mp_rng_below(rng, 64));
        break;
    case 3:
        err = mp_mp_put_int(&f->buf, (int64_t)(mp_rng_next(rng) | 1ull << 63));
        break;
    case 4:
        err = mp_mp_put_float(&f->buf, (double)size / 3);
        break;
    case 5:
        err = mp_mp_put_str(&f->buf, mp_slice_of(text, size));
        break;
    case 6:
        err = mp_mp_put_bin(&f->buf, mp_slice_of(text, size));
        break;
    case 7:
        err = mp_mp_put_array(&f->buf, (uint32_t)size / 4);
        for (uint64_t i = 0; i < size / 4; i++)
            put_random(f, rng, depth + 1);
        break;
    default:
        err = mp_mp_put_map(&f->buf, (uint32_t)size / 4);
        for (uint64_t i = 0; i < size / 4 * 2; i++)
            put_random(f, rng, depth + 1);
    }
    assert_int_equal(err, MP_OK);
}

static void refuses_truncation_at_every_byte(void **state)
{
    struct fixture *f = (struct fixture *)*state;
    struct mp_rng rng;
    mp_rng_init(&rng, SEED);
    for (int round = 0; round < 300; round++) {
        mp_buf_clear(&f->buf);
        put_random(f, &rng, 0);
        assert_int_equal(mp_mp_check(mp_buf_slice(&f->buf)), MP_OK);
        for (size_t size = 0; size < f->buf.size; size++) {
            struct mp_slice cut = exact_copy(mp_slice_of(f->buf.data, size));
            assert_int_equal(mp_mp_check(cut), MP_ECORRUPT);
            struct mp_mp_reader r = mp_mp_reader_of(cut);
            assert_int_equal(mp_mp_skip(&r), MP_ECORRUPT);
            assert_ptr_equal(r.at, cut.data);
            free_copy(cut);
        }
    }
}

static void refuses_counts_that_the_bytes_cannot_hold(void **state)
{
    (void)state;
    const struct mp_slice cases[] = {
        BYTES(0xdd, 0xff, 0xff, 0xff, 0xff),
        BYTES(0xdf, 0xff, 0xff, 0xff, 0xff),
        BYTES(0xdb, 0xff, 0xff, 0xff, 0xff, 'a'),
        BYTES(0xc6, 0xff, 0xff, 0xff, 0xff, 'a'),
        BYTES(0xc9, 0xff, 0xff, 0xff, 0xff, 1, 1),
        BYTES(0xdf, 0x80, 0, 0, 0, 1, 1),
        BYTES(0x82, 1, 2, 3),
        BYTES(0x92, 1),
        BYTES(0xdc, 0xff),
        BYTES(0xc1),
    };
    for (size_t i = 0; i < MP_ARRAY_SIZE(cases); i++) {
        struct mp_slice s = exact_copy(cases[i]);
        assert_int_equal(mp_mp_check(s), MP_ECORRUPT);
        free_copy(s);
    }
}

static void refuses_deep_nesting_without_recursing(void **state)
{
    (void)state;
    const size_t depth = 100000;
    uint8_t *bytes = (uint8_t *)malloc(depth);
    assert_non_null(bytes);
    for (unsigned form = 0; form < 2; form++) {
        /* arrays of one; maps of one with the key 1 */
        for (size_t i = 0; i < depth; i++)
            bytes[i] = form == 0 ? 0x91 : i % 2 ? 0x01 : 0x81;
        bytes[depth - 1] = 0xc0;
        assert_int_equal(mp_mp_check(mp_slice_of(bytes, depth)), MP_EDEPTH);
    }
    memset(bytes, 0x91, depth);
    size_t most = MP_DEPTH_MAX + 8;
    bytes[most] = 0xc0;
    assert_int_equal(mp_mp_check(mp_slice_of(bytes, most + 1)), MP_OK);
    bytes[most] = 0x91;
    bytes[most + 1] = 0xc0;
    assert_int_equal(mp_mp_check(mp_slice_of(bytes, most + 2)), MP_EDEPTH);
    free(bytes);
}

static void refuses_bytes_behind_the_value(void **state)
{
    (void)state;
    assert_int_equal(mp_mp_check(BYTES(1, 1)), MP_ECORRUPT);
    assert_int_equal(mp_mp_check(mp_slice_of(NULL, 0)), MP_ECORRUPT);
}

static void finds_entries(void **state)
{
    (void)state;
    /* {"a": [1, 2], "b": "x", 5: nil, "a": 3} */
    struct mp_slice map =
        BYTES(0x84, 0xa1, 'a', 0x92, 1, 2, 0xa1, 'b', 0xa1, 'x', 5, 0xc0, 0xa1, 'a', 3);
    struct mp_slice value;
    assert_int_equal(mp_mp_map_get(map, mp_slice_str("a"), &value), MP_OK);
    assert_true(mp_slice_equal(value, BYTES(0x92, 1, 2)));
    struct mp_slice element;
    assert_int_equal(mp_mp_array_get(value, 1, &element), MP_OK);
    assert_true(mp_slice_equal(element, BYTES(2)));
    assert_int_equal(mp_mp_array_get(value, 2, &element), MP_ENOENT);
    assert_int_equal(mp_mp_array_get(map, 0, &element), MP_ETYPE);
    assert_int_equal(mp_mp_map_get(map, mp_slice_str("b"), &value), MP_OK);
    struct mp_slice text;
    assert_int_equal(mp_mp_get_str(value, &text), MP_OK);
    assert_true(mp_slice_is(text, "x"));
    assert_int_equal(mp_mp_map_get(map, mp_slice_str("c"), &value), MP_ENOENT);
    assert_int_equal(mp_mp_map_get(element, mp_slice_str("c"), &value), MP_ETYPE);
}

static void reads_scalars_or_says_why_not(void **state)
{
    (void)state;
    int64_t i;
    assert_int_equal(mp_mp_get_int(BYTES(0xcf, 0x80, 0, 0, 0, 0, 0, 0, 0), &i), MP_ERANGE);
    assert_int_equal(mp_mp_get_int(BYTES(0xcb, 0x3f, 0xf8, 0, 0, 0, 0, 0, 0), &i), MP_ETYPE);
    assert_int_equal(mp_mp_get_int(BYTES(0xcb, 0x7f, 0xf8, 0, 0, 0, 0, 0, 0), &i), MP_ERANGE);
    assert_int_equal(mp_mp_get_int(BYTES(0xcb, 0x40, 0x08, 0, 0, 0, 0, 0, 0), &i), MP_OK);
    assert_int_equal(i, 3);
    assert_int_equal(mp_mp_get_int(BYTES(0xc0), &i), MP_ETYPE);
    double d;
    assert_int_equal(mp_mp_get_number(BYTES(0xff), &d), MP_OK);
    assert_true(d == -1);
    assert_int_equal(mp_mp_get_number(BYTES(0xa0), &d), MP_ETYPE);
    bool b;
    assert_int_equal(mp_mp_get_bool(BYTES(0xc3), &b), MP_OK);
    assert_true(b);
    assert_int_equal(mp_mp_get_bool(BYTES(1), &b), MP_ETYPE);
    struct mp_slice text;
    assert_int_equal(mp_mp_get_str(BYTES(0xc4, 0), &text), MP_ETYPE);
    assert_int_equal(mp_mp_get_str(BYTES(0xa1), &text), MP_ECORRUPT);
    assert_int_equal(mp_mp_type_of(BYTES(0x80)), MP_MP_MAP);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(writes_integers_in_the_shortest_form),
        TEST(writes_headers_in_the_shortest_form),
        TEST(reads_back_texts_of_each_width),
        TEST(reads_each_form),
        TEST(refuses_truncation_at_every_byte),
        TEST(refuses_counts_that_the_bytes_cannot_hold),
        TEST(refuses_deep_nesting_without_recursing),
        TEST(refuses_bytes_behind_the_value),
        TEST(finds_entries),
        TEST(reads_scalars_or_says_why_not),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
