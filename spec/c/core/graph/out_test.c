/* Text and previews that the machine writes without the C library's formatting. */
#include <math.h>

#include "spec/c/core/graph/graph_harness.h"

static struct spec_alloc counted = {.fail_at = SPEC_NEVER};
static char text[512];

/* What `b` holds, as a C string; b is emptied. */
static const char *taken(struct mp_buf *b)
{
    assert_true(b->size < sizeof(text));
    if (b->size != 0)
        memcpy(text, b->data, b->size);
    text[b->size] = '\0';
    mp_buf_fini(b);
    return text;
}

static const char *number(double v)
{
    struct mp_alloc alloc = spec_alloc_of(&counted);
    struct mp_buf b;
    mp_buf_init(&b, &alloc, 0);
    struct mp_out o = mp_out_of(&b);
    mp_out_number(&o, v);
    assert_int_equal(o.err, MP_OK);
    return taken(&b);
}

static void numbers_are_short(void **state)
{
    (void)state;
    assert_string_equal(number(0), "0");
    assert_string_equal(number(-7), "-7");
    assert_string_equal(number(2.5), "2.5");
    assert_string_equal(number(0.000001), "0.000001");
    assert_string_equal(number(0.9999999), "1");
    assert_string_equal(number(-0.05), "-0.05");
    assert_string_equal(number(9007199254740991.0), "9007199254740991");
    assert_string_equal(number(1e300), "over 2^53");
    assert_string_equal(number(INFINITY), "inf");
    assert_string_equal(number(-INFINITY), "-inf");
    assert_string_equal(number(NAN), "nan");
}

static void long_names_are_cut_at_a_character(void **state)
{
    (void)state;
    struct mp_alloc alloc = spec_alloc_of(&counted);
    struct mp_buf b;
    char name[300] = "a";
    for (int i = 0; i < 100; i++)
        memcpy(name + 1 + 2 * i, "é", 3);
    mp_buf_init(&b, &alloc, 0);
    struct mp_out o = mp_out_of(&b);
    mp_out_say(&o, "<%s|%t|%u>", mp_slice_str(name), "text", (uint64_t)UINT64_MAX);
    const char *got = taken(&b);
    assert_true(mp_slice_is_utf8(mp_slice_str(got)));
    assert_non_null(strstr(got, "é…|text|18446744073709551615>"));
    assert_in_range(strlen(got), 120, 140);
}

static void the_first_error_sticks(void **state)
{
    (void)state;
    struct spec_alloc none = {.fail_at = 0};
    struct mp_alloc alloc = spec_alloc_of(&none);
    struct mp_buf b;
    mp_buf_init(&b, &alloc, 0);
    struct mp_out o = mp_out_of(&b);
    mp_out_map(&o, 1);
    none.fail_at = SPEC_NEVER;
    mp_out_text(&o, "key");
    mp_out_float(&o, 1.5);
    mp_out_ms(&o, MP_US(1500));
    assert_int_equal(o.err, MP_ENOMEM);
    assert_int_equal(b.size, 0);
    mp_buf_fini(&b);
}

static const char *preview_of(const char *json, size_t tail)
{
    struct mp_alloc alloc = spec_alloc_of(&counted);
    struct harness *h = harness_new();
    static char shown[512];
    struct mp_buf b;
    mp_buf_init(&b, &alloc, 0);
    assert_int_equal(mp_mp_put_array(&h->graph, 2), MP_OK);
    tiny_read(json, &h->graph);
    uint8_t *bytes = (uint8_t *)calloc(1, tail);
    memset(bytes, 'y', tail);
    assert_int_equal(mp_mp_put_str(&h->graph, mp_slice_of(bytes, tail)), MP_OK);
    free(bytes);
    struct mp_out o = mp_out_of(&b);
    mp_graph_put_large(&o, mp_buf_slice(&h->graph));
    assert_int_equal(mp_mp_check(mp_buf_slice(&b)), MP_OK);
    const char *found = harness_show_value(h, mp_buf_slice(&b), "[\"$large\"].preview");
    assert_true(strlen(found) < sizeof(shown));
    memcpy(shown, found, strlen(found) + 1);
    mp_buf_fini(&b);
    harness_free(h);
    return shown;
}

static void previews_look_like_json(void **state)
{
    (void)state;
    assert_string_equal(
        preview_of("{\"a\":[],\"b\":{},\"c\":[[1,-2],{\"d\":null}],\"e\":false}", 3),
        "\"[{\"a\":[],\"b\":{},\"c\":[[1,-2],{\"d\":null}],\"e\":false},\"yyy\"]\"");
    const char *cut = preview_of(
        "[\"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\"]", 70000);
    assert_non_null(strstr(cut, "yyy…"));
    assert_true(strlen(cut) < 300);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_are_short),
        cmocka_unit_test(long_names_are_cut_at_a_character),
        cmocka_unit_test(the_first_error_sticks),
        cmocka_unit_test(previews_look_like_json),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
