/* Slices: order, names, UTF-8 against the table of RFC 3629, distance against the plain recursion
 * that defines it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "src/base/rng.h"
#include "src/base/slice.h"

#define SLICE(text) mp_slice_of("" text, sizeof(text) - 1)

static void orders_by_bytes_and_then_by_length(void **state)
{
    (void)state;
    const struct mp_slice sorted[] = {SLICE(""),   SLICE("\0"), SLICE("a"),   SLICE("a\0"),
                                      SLICE("ab"), SLICE("b"),  SLICE("\xff")};
    const size_t count = sizeof(sorted) / sizeof(sorted[0]);
    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j < count; j++) {
            int order = mp_slice_compare(sorted[i], sorted[j]);
            assert_int_equal((order > 0) - (order < 0), (i > j) - (i < j));
            assert_int_equal(mp_slice_equal(sorted[i], sorted[j]), i == j);
        }
    assert_true(mp_slice_equal(mp_slice_of(NULL, 0), SLICE("")));
}

static void hashes_equal_bytes_equally_and_others_apart(void **state)
{
    (void)state;
    uint8_t bytes[40] = {0};
    for (size_t size = 1; size <= 40; size++)
        for (size_t i = 0; i < size; i++) {
            uint64_t before = mp_slice_hash(mp_slice_of(bytes, size), 1);
            assert_true(before == mp_slice_hash(mp_slice_of(bytes, size), 1));
            assert_true(before != mp_slice_hash(mp_slice_of(bytes, size), 2));
            bytes[i] ^= 1;
            assert_true(before != mp_slice_hash(mp_slice_of(bytes, size), 1));
            bytes[i] ^= 1;
        }
}

static void knows_names(void **state)
{
    (void)state;
    static const char *const good[] = {"a", "_", "0", "a-b", "A_9-", "n1"};
    static const char *const bad[] = {"",   "-a", "a.b", "a b", "\xc3\xa4", "a/b",
                                      "a:", "@",  "[",   "`",   "{"};
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
        assert_true(mp_slice_is_name(mp_slice_str(good[i])));
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_false(mp_slice_is_name(mp_slice_str(bad[i])));
    assert_false(mp_slice_is_name(SLICE("a\0")));
    char longest[66];
    memset(longest, 'x', sizeof(longest));
    assert_true(mp_slice_is_name(mp_slice_of(longest, 64)));
    assert_false(mp_slice_is_name(mp_slice_of(longest, 65)));
}

static void knows_dotted_names(void **state)
{
    (void)state;
    static const char *const good[] = {"a", "a.b", "geo.grid.cells", "a-1.b_2"};
    static const char *const bad[] = {"", ".", "a.", ".a", "a..b", "a.-b", "a. b"};
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
        assert_true(mp_slice_is_dotted_name(mp_slice_str(good[i])));
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_false(mp_slice_is_dotted_name(mp_slice_str(bad[i])));
}

/* The code points of the bytes, decoded the long way; false if they are not UTF-8. */
static bool decodes(const uint8_t *p, size_t size)
{
    for (size_t i = 0; i < size;) {
        size_t more = p[i] < 0x80         ? 0
                      : p[i] >> 5 == 0x06 ? 1
                      : p[i] >> 4 == 0x0e ? 2
                      : p[i] >> 3 == 0x1e ? 3
                                          : 9;
        if (more == 9 || i + more >= size)
            return false;
        uint32_t code = more == 0 ? p[i] : p[i] & (0x3fu >> more);
        for (size_t k = 1; k <= more; k++) {
            if (p[i + k] >> 6 != 2)
                return false;
            code = code << 6 | (p[i + k] & 0x3fu);
        }
        static const uint32_t least[] = {0, 0x80, 0x800, 0x10000};
        if (code < least[more] || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff))
            return false;
        i += more + 1;
    }
    return true;
}

static void knows_utf8(void **state)
{
    (void)state;
    /* All sequences of up to three bytes, and four around every border. */
    uint8_t p[4];
    for (uint32_t v = 0; v < 1u << 24; v++) {
        p[0] = (uint8_t)(v >> 16);
        p[1] = (uint8_t)(v >> 8);
        p[2] = (uint8_t)v;
        if (p[0] < 0x80 && (v & 0xffff) != 0)
            continue;
        size_t size = p[0] < 0x80 ? 1 : p[0] < 0xe0 && p[2] == 0 ? 2 : 3;
        if (mp_slice_is_utf8(mp_slice_of(p, size)) != decodes(p, size))
            fail_msg("%02x %02x %02x (%zu)", p[0], p[1], p[2], size);
    }
    static const uint8_t edges[] = {0x00, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xff};
    for (p[0] = 0xef; p[0] != 0; p[0]++)
        for (int i = 0; i < 1000; i++) {
            p[1] = edges[i / 100];
            p[2] = edges[i / 10 % 10];
            p[3] = edges[i % 10];
            assert_int_equal(mp_slice_is_utf8(mp_slice_of(p, 4)), decodes(p, 4));
        }
    assert_true(mp_slice_is_utf8(mp_slice_of(NULL, 0)));
}

/* Long texts take another path: one bad byte anywhere in mostly plain ones is still found. */
static void finds_a_bad_byte_anywhere(void **state)
{
    (void)state;
    uint8_t text[300];
    struct mp_rng rng;
    mp_rng_init(&rng, 17);
    for (int round = 0; round < 20000; round++) {
        size_t size = mp_rng_below(&rng, sizeof(text)) + 1;
        memset(text, 'a', size);
        for (uint64_t k = mp_rng_below(&rng, 3); k > 0; k--) {
            size_t at = mp_rng_below(&rng, size);
            if (at + 2 < size)
                memcpy(text + at, "\xe2\x82\xac", 3);
        }
        if (mp_rng_below(&rng, 2))
            text[mp_rng_below(&rng, size)] = (uint8_t)(0x80 + mp_rng_below(&rng, 128));
        assert_int_equal(mp_slice_is_utf8(mp_slice_of(text, size)), decodes(text, size));
    }
}

/* The definition of the optimal-string-alignment distance, without memory of what it worked out. */
static unsigned naive_distance(const char *a, size_t m, const char *b, size_t n)
{
    if (m == 0 || n == 0)
        return (unsigned)(m + n);
    unsigned best = naive_distance(a, m - 1, b, n - 1) + (a[m - 1] != b[n - 1]);
    unsigned other = naive_distance(a, m - 1, b, n) + 1;
    best = other < best ? other : best;
    other = naive_distance(a, m, b, n - 1) + 1;
    best = other < best ? other : best;
    if (m > 1 && n > 1 && a[m - 1] == b[n - 2] && a[m - 2] == b[n - 1]) {
        other = naive_distance(a, m - 2, b, n - 2) + 1;
        best = other < best ? other : best;
    }
    return best;
}

static void measures_distance_as_it_is_defined(void **state)
{
    (void)state;
    struct mp_rng rng;
    mp_rng_init(&rng, 23);
    for (int round = 0; round < 3000; round++) {
        char a[7];
        char b[7];
        size_t m = mp_rng_below(&rng, 7);
        size_t n = mp_rng_below(&rng, 7);
        for (size_t i = 0; i < m; i++)
            a[i] = (char)('a' + mp_rng_below(&rng, 3));
        for (size_t i = 0; i < n; i++)
            b[i] = (char)('a' + mp_rng_below(&rng, 3));
        assert_int_equal(mp_slice_distance(mp_slice_of(a, m), mp_slice_of(b, n)),
                         naive_distance(a, m, b, n));
    }
    assert_int_equal(mp_slice_distance(SLICE("claen"), SLICE("clean")), 1);
    char longest[65];
    memset(longest, 'x', sizeof(longest));
    assert_int_equal(mp_slice_distance(mp_slice_of(longest, 64), SLICE("")), 64);
    assert_int_equal(mp_slice_distance(mp_slice_of(longest, 65), SLICE("x")), 99);
    assert_int_equal(mp_slice_distance(SLICE("x"), mp_slice_of(longest, 65)), 99);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(orders_by_bytes_and_then_by_length),
        cmocka_unit_test(hashes_equal_bytes_equally_and_others_apart),
        cmocka_unit_test(knows_names),
        cmocka_unit_test(knows_dotted_names),
        cmocka_unit_test(knows_utf8),
        cmocka_unit_test(finds_a_bad_byte_anywhere),
        cmocka_unit_test(measures_distance_as_it_is_defined),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
