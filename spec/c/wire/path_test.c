/* Paths are short, printable and never end in half an escape. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "src/base/rng.h"
#include "src/wire/path.h"

static void shows_keys_and_indices(void **state)
{
    (void)state;
    char text[200];
    struct mp_path p;
    mp_path_init(&p, text, sizeof(text));
    assert_string_equal(text, "");
    mp_path_add_key(&p, mp_slice_str("items"));
    mp_path_add_index(&p, 3);
    mp_path_add_key(&p, mp_slice_str("call-back_2"));
    mp_path_add_key(&p, mp_slice_str("odd key"));
    mp_path_add_key(&p, mp_slice_str(""));
    mp_path_add_key(&p, mp_slice_str("gr\xc3\xbc\xc3\x9f"));
    mp_path_add_text(&p, mp_slice_str("[true]"));
    assert_string_equal(text,
                        ".items[3].call-back_2[\"odd key\"][\"\"][\"gr\xc3\xbc\xc3\x9f\"][true]");
    assert_int_equal(p.size, strlen(text));
}

static void escapes_what_a_terminal_would_obey(void **state)
{
    (void)state;
    char text[200];
    struct mp_path p;
    mp_path_init(&p, text, sizeof(text));
    mp_path_add_key(&p, mp_slice_str("a\"\\\x1b[2J\n"));
    assert_string_equal(text, "[\"a\\\"\\\\\\x1b[2J\\x0a\"]");
    mp_path_init(&p, text, sizeof(text));
    mp_path_add_key(&p, mp_slice_str("\xff\x80"));
    assert_string_equal(text, "[\"\\xff\\x80\"]");
    mp_path_init(&p, text, sizeof(text));
    mp_path_add_key(&p, mp_slice_str("\xc2\x9b"));
    assert_string_equal(text, "[\"\\xc2\\x9b\"]");
}

static void ends_in_an_ellipsis_when_it_is_full(void **state)
{
    (void)state;
    struct mp_rng rng;
    mp_rng_init(&rng, 5);
    for (size_t capacity = 8; capacity < 300; capacity++) {
        char text[300];
        memset(text, '!', sizeof(text));
        struct mp_path p;
        mp_path_init(&p, text, capacity);
        uint8_t key[200];
        for (int part = 0; part < 40; part++) {
            size_t size = mp_rng_below(&rng, sizeof(key));
            for (size_t i = 0; i < size; i++)
                key[i] = (uint8_t)mp_rng_next(&rng);
            mp_path_add_key(&p, mp_slice_of(key, size));
            mp_path_add_index(&p, mp_rng_next(&rng));
        }
        assert_int_equal(strlen(text), p.size);
        assert_true(p.size < capacity);
        assert_true(mp_slice_is_utf8(mp_slice_str(text)));
        assert_string_equal(text + p.size - 3, "\xe2\x80\xa6");
        for (size_t i = capacity; i < sizeof(text); i++)
            assert_int_equal(text[i], '!');
    }
}

static void cuts_long_keys_between_characters(void **state)
{
    (void)state;
    char text[400];
    struct mp_path p;
    mp_path_init(&p, text, sizeof(text));
    char key[101] = "a";
    for (int i = 0; i < 49; i++)
        memcpy(key + 1 + 2 * i, "\xc3\xa4", 2);
    mp_path_add_key(&p, mp_slice_str(key));
    assert_true(mp_slice_is_utf8(mp_slice_str(text)));
    assert_int_equal(p.size, 2 + 63 + 3 + 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shows_keys_and_indices),
        cmocka_unit_test(escapes_what_a_terminal_would_obey),
        cmocka_unit_test(ends_in_an_ellipsis_when_it_is_full),
        cmocka_unit_test(cuts_long_keys_between_characters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
