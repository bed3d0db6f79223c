/* Texts for people: cut, never overrun; always UTF-8, and nothing in them that a terminal obeys. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "src/base/rng.h"
#include "src/base/text.h"

static void puts_texts_and_numbers(void **state)
{
    (void)state;
    char bytes[200];
    struct mp_text t;
    mp_text_init(&t, bytes, sizeof(bytes));
    assert_string_equal(bytes, "");
    mp_text_put(&t, "n = ");
    mp_text_put_uint(&t, 0);
    mp_text_put(&t, ", ");
    mp_text_put_uint(&t, UINT64_MAX);
    mp_text_put(&t, ", ");
    mp_text_put_bytes(&t, 64u << 20);
    mp_text_put(&t, ", ");
    mp_text_put_bytes(&t, 1200);
    mp_text_put(&t, ", ");
    mp_text_put_bytes(&t, 0);
    assert_string_equal(bytes, "n = 0, 18446744073709551615, 64 MiB, 1200 bytes, 0 bytes");
    assert_int_equal(t.size, strlen(bytes));
}

static void hides_control_characters_and_broken_bytes(void **state)
{
    (void)state;
    char bytes[100];
    struct mp_text t;
    mp_text_init(&t, bytes, sizeof(bytes));
    mp_text_put_slice(&t, mp_slice_of("a\x1b[2J\n\x7f\0b", 9));
    assert_string_equal(bytes, "a?[2J???b");
    mp_text_init(&t, bytes, sizeof(bytes));
    mp_text_put(&t, "\xff\xc3\xa4\xc2\x9b\xe2\x82");
    assert_string_equal(bytes, "?\xc3\xa4???");
}

static void cuts_at_a_whole_character_and_stays_in_its_array(void **state)
{
    (void)state;
    struct mp_rng rng;
    mp_rng_init(&rng, 29);
    for (int round = 0; round < 20000; round++) {
        char bytes[80];
        size_t capacity = mp_rng_below(&rng, 64) + 1;
        memset(bytes, '!', sizeof(bytes));
        struct mp_text t;
        mp_text_init(&t, bytes, capacity);
        for (int part = 0; part < 4; part++) {
            uint8_t piece[40];
            size_t size = mp_rng_below(&rng, sizeof(piece));
            for (size_t i = 0; i < size; i++)
                piece[i] = (uint8_t)mp_rng_next(&rng);
            if (mp_rng_below(&rng, 2))
                memcpy(piece, "gr\xc3\xbc\xc3\x9f\xe2\x82\xac\xf0\x9f\x98\x80", 13);
            mp_text_put_slice(&t, mp_slice_of(piece, size));
        }
        assert_true(t.size < capacity);
        assert_int_equal(t.size, strlen(bytes));
        assert_true(mp_slice_is_utf8(mp_text_slice(&t)));
        for (size_t i = capacity; i < sizeof(bytes); i++)
            assert_int_equal(bytes[i], '!');
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(puts_texts_and_numbers),
        cmocka_unit_test(hides_control_characters_and_broken_bytes),
        cmocka_unit_test(cuts_at_a_whole_character_and_stays_in_its_array),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
