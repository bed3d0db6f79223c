/* Addresses: what people write, what travels, and that each comes back from the other. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "src/base/rng.h"
#include "src/wire/address.h"

static const char *shown(const struct mp_address *a)
{
    static char text[MP_ADDRESS_TEXT_MAX];
    struct mp_text t;
    mp_text_init(&t, text, sizeof(text));
    mp_address_put(&t, a);
    return text;
}

static struct mp_address read(const char *text)
{
    struct mp_address a;
    assert_int_equal(MP_OK, mp_address_read(mp_slice_str(text), &a));
    return a;
}

static void reads_ipv4(void **state)
{
    (void)state;
    static const uint8_t bytes[] = {127, 0, 0, 1, 0x1c, 0xe8};
    struct mp_address a = read("127.0.0.1:7400");
    assert_int_equal(sizeof(bytes), a.size);
    assert_memory_equal(bytes, a.bytes, sizeof(bytes));
    assert_int_equal(7400, mp_address_port(&a));
    assert_string_equal("127.0.0.1:7400", shown(&a));
    struct mp_address highest = read("255.255.255.255:65535");
    assert_string_equal("255.255.255.255:65535", shown(&highest));
    struct mp_address lowest = read("0.0.0.0:0");
    assert_string_equal("0.0.0.0:0", shown(&lowest));
}

static void reads_ipv6(void **state)
{
    (void)state;
    static const uint8_t bytes[] = {0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0,
                                    0,    0,    0,    0,    0, 0, 7, 0, 80};
    struct mp_address a = read("[2001:db8::7]:80");
    assert_int_equal(sizeof(bytes), a.size);
    assert_memory_equal(bytes, a.bytes, sizeof(bytes));
    assert_int_equal(80, mp_address_port(&a));
}

/* RFC 5952: lower case, no leading zeros, the longest run of zeros, the first of equals, and a
 * single zero as it is. */
static void shows_ipv6_in_one_form(void **state)
{
    (void)state;
    static const char *const pairs[][2] = {
        {"[::]:1", "[::]:1"},
        {"[::1]:1", "[::1]:1"},
        {"[1::]:1", "[1::]:1"},
        {"[0:0:0:0:0:0:0:1]:1", "[::1]:1"},
        {"[2001:0DB8:0000:0001:0001:0001:0001:0001]:443", "[2001:db8:0:1:1:1:1:1]:443"},
        {"[2001:db8:0:0:1:0:0:1]:1", "[2001:db8::1:0:0:1]:1"},
        {"[2001:0:0:1:0:0:0:1]:1", "[2001:0:0:1::1]:1"},
        {"[1:2:3:4:5:6:7:8]:1", "[1:2:3:4:5:6:7:8]:1"},
        {"[1:2:3:4:5:6:7::]:1", "[1:2:3:4:5:6:7:0]:1"},
        {"[::2:3:4:5:6:7:8]:1", "[0:2:3:4:5:6:7:8]:1"},
        {"[1:2:3:4:5:6::]:1", "[1:2:3:4:5:6::]:1"},
        {"[fe80::abcd:EF01]:65535", "[fe80::abcd:ef01]:65535"},
        {"[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535",
         "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535"},
    };
    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
        struct mp_address a = read(pairs[i][0]);
        assert_string_equal(pairs[i][1], shown(&a));
    }
}

static void refuses_anything_else(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "",
        ":",
        ":7400",
        "127.0.0.1",
        "127.0.0.1:",
        "127.0.0.1:65536",
        "127.0.0.1:99999999999999999999",
        "127.0.0.1:-1",
        "127.0.0.1:+1",
        "127.0.0.1:1 ",
        " 127.0.0.1:1",
        "127.0.0.1:1:1",
        "127.0.0:1",
        "127.0.0.1.1:1",
        "127.0.0.256:1",
        "127..0.1:1",
        ".127.0.1:1",
        "localhost:7400",
        "node-1.example:7400",
        "::1:7400",
        "[::1]",
        "[::1]:",
        "[::1]7400",
        "[::1:7400",
        "[]:1",
        "[:]:1",
        "[:::]:1",
        "[1]:1",
        "[1:2:3:4:5:6:7]:1",
        "[1:2:3:4:5:6:7:8:9]:1",
        "[1:2:3:4:5:6:7:8::]:1",
        "[1:2:3:4::5:6:7:8]:1",
        "[::1:2:3:4:5:6:7:8]:1",
        "[1::2::3]:1",
        "[1:]:1",
        "[:1]:1",
        "[:1::]:1",
        "[1::2:]:1",
        "[12345::]:1",
        "[g::]:1",
        "[::ffff:127.0.0.1]:1",
        "[fe80::1%eth0]:1",
        "[127.0.0.1]:1",
    };
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        struct mp_address a = read("1.2.3.4:5");
        if (mp_address_read(mp_slice_str(texts[i]), &a) != MP_EINVAL)
            fail_msg("accepted %s", texts[i]);
        assert_string_equal("1.2.3.4:5", shown(&a));
    }
}

static void takes_bytes_of_two_sizes_only(void **state)
{
    (void)state;
    uint8_t bytes[32] = {10, 1, 2, 3, 0, 9};
    for (size_t size = 0; size <= sizeof(bytes); size++) {
        struct mp_address a = read("1.2.3.4:5");
        bool is_fine = size == 6 || size == 18;
        assert_int_equal(is_fine ? MP_OK : MP_ECORRUPT,
                         mp_address_of_bytes(mp_slice_of(bytes, size), &a));
        if (is_fine)
            assert_true(mp_slice_equal(mp_slice_of(bytes, size), mp_address_slice(&a)));
        else
            assert_string_equal("1.2.3.4:5", shown(&a));
    }
}

static void an_empty_one_is_nothing(void **state)
{
    (void)state;
    struct mp_address none = {0};
    struct mp_address some = read("0.0.0.0:0");
    assert_string_equal("", shown(&none));
    assert_int_equal(0, mp_address_port(&none));
    assert_int_equal(0, mp_address_slice(&none).size);
    assert_true(mp_address_equal(&none, &none));
    assert_false(mp_address_equal(&none, &some));
}

static void equal_means_host_and_port(void **state)
{
    (void)state;
    struct mp_address a = read("10.0.0.1:1");
    struct mp_address same = read("10.0.0.1:1");
    struct mp_address port = read("10.0.0.1:2");
    struct mp_address host = read("10.0.0.2:1");
    struct mp_address longer = read("[::1]:1");
    assert_true(mp_address_equal(&a, &same));
    assert_false(mp_address_equal(&a, &port));
    assert_false(mp_address_equal(&a, &host));
    assert_false(mp_address_equal(&a, &longer));
}

/* Many zeros, so that runs of every length and place come up. */
static void what_is_shown_reads_back_equal(void **state)
{
    (void)state;
    struct mp_rng rng;
    mp_rng_init(&rng, 11);
    for (int round = 0; round < 20000; round++) {
        uint8_t bytes[18];
        size_t size = mp_rng_below(&rng, 4) == 0 ? 6 : 18;
        for (size_t i = 0; i < size; i += 2) {
            bool is_zero = mp_rng_below(&rng, 2) == 0;
            bytes[i] = is_zero || mp_rng_below(&rng, 3) == 0 ? 0 : (uint8_t)mp_rng_next(&rng);
            bytes[i + 1] = is_zero ? 0 : (uint8_t)mp_rng_next(&rng);
        }
        struct mp_address a;
        assert_int_equal(MP_OK, mp_address_of_bytes(mp_slice_of(bytes, size), &a));
        struct mp_address back = read(shown(&a));
        assert_true(mp_address_equal(&a, &back));
    }
}

/* Broken texts are refused or mean something; neither reads past the end (sanitizers look). */
static void survives_damaged_texts(void **state)
{
    (void)state;
    static const char alphabet[] = "0123456789abcdefABCDEF:.[]:::..%g \xff";
    struct mp_rng rng;
    mp_rng_init(&rng, 12);
    for (int round = 0; round < 50000; round++) {
        size_t size = mp_rng_below(&rng, 30);
        uint8_t *text = malloc(size == 0 ? 1 : size);
        assert_non_null(text);
        for (size_t i = 0; i < size; i++)
            text[i] = (uint8_t)alphabet[mp_rng_below(&rng, sizeof(alphabet) - 1)];
        if (size > 4 && mp_rng_below(&rng, 2) == 0)
            text[0] = '[';
        struct mp_address a;
        if (mp_address_read(mp_slice_of(text, size), &a) == MP_OK) {
            struct mp_address back = read(shown(&a));
            assert_true(mp_address_equal(&a, &back));
        }
        free(text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_ipv4),
        cmocka_unit_test(reads_ipv6),
        cmocka_unit_test(shows_ipv6_in_one_form),
        cmocka_unit_test(refuses_anything_else),
        cmocka_unit_test(takes_bytes_of_two_sizes_only),
        cmocka_unit_test(an_empty_one_is_nothing),
        cmocka_unit_test(equal_means_host_and_port),
        cmocka_unit_test(what_is_shown_reads_back_equal),
        cmocka_unit_test(survives_damaged_texts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
