/* JSON ⇄ MessagePack from C: forms, places of failures, buffers, memory. What Lua sees of it, and
 * the properties, are in spec/lua/codec_spec.lua. */
#include <math.h>
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
#include "src/json/json.h"
#include "src/wire/msgpack.h"

#define SEED 11

struct fixture {
    struct spec_alloc memory;
    struct mp_alloc alloc;
    struct mp_buf bytes;
    struct mp_buf text;
    struct mp_json_error error;
};

static struct fixture fixture;

static int set_up(void **state)
{
    fixture.memory = (struct spec_alloc){.fail_at = SPEC_NEVER};
    fixture.alloc = spec_alloc_of(&fixture.memory);
    mp_buf_init(&fixture.bytes, &fixture.alloc, 0);
    mp_buf_init(&fixture.text, &fixture.alloc, 0);
    *state = &fixture;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = (struct fixture *)*state;
    mp_buf_fini(&f->bytes);
    mp_buf_fini(&f->text);
    return f->memory.live_bytes == 0 ? 0 : -1;
}

static enum mp_err read_text(struct fixture *f, const char *text, const struct mp_json_options *opt)
{
    /* a copy of its own length, so that the sanitizer sees each byte read too far */
    size_t size = strlen(text);
    uint8_t *copy = (uint8_t *)malloc(size + 1);
    assert_non_null(copy);
    memcpy(copy, text, size);
    mp_buf_clear(&f->bytes);
    enum mp_err err = mp_json_to_msgpack(mp_slice_of(copy, size), &f->bytes, opt, &f->error);
    free(copy);
    if (err == MP_OK)
        assert_int_equal(mp_mp_check(mp_buf_slice(&f->bytes)), MP_OK);
    return err;
}

/* Reads, prints, and compares with what is expected. */
static void assert_prints(struct fixture *f, const char *text, const char *expected,
                          const struct mp_json_options *opt)
{
    assert_int_equal(read_text(f, text, opt), MP_OK);
    mp_buf_clear(&f->text);
    assert_int_equal(mp_json_from_msgpack(mp_buf_slice(&f->bytes), &f->text, opt, &f->error),
                     MP_OK);
    assert_int_equal(mp_buf_append_byte(&f->text, 0), MP_OK);
    assert_string_equal((const char *)f->text.data, expected);
}

static void reads_and_prints(void **state)
{
    struct fixture *f = (struct fixture *)*state;
    static const char *const cases[][2] = {
        {" [ 1 , -1 , true , false , null ] ", "[1,-1,true,false,null]"},
        {"1.0", "1"},
        {"1e3", "1000"},
        {"-0", "-0"},
        {"0.1", "0.1"},
        {"-4.5", "-4.5"},
        {"100.25", "100.25"},
        {"0.30000000000000004", "0.30000000000000004"},
        {"5e-324", "4.94065645841247e-324"},
        {"1.7976931348623157e308", "1.7976931348623157e+308"},
        {"9007199254740992", "9007199254740992"},
        {"9007199254740993", "{\"$int\":\"9007199254740993\"}"},
        {"-9007199254740993", "{\"$int\":\"-9007199254740993\"}"},
        {"9007199254740994.0", "9007199254740994.0"},
        {"9223372036854775808", "9.223372036854776e+18"},
        {"1e-400", "0"},
        {"\"\\u0041\\n\\u0000\\\"\\/\"", "\"A\\n\\u0000\\\"/\""},
        {"\"\\ud83d\\ude00\"", "\"\xf0\x9f\x98\x80\""},
        {"\"\\\\ud800\"", "\"\\\\ud800\""},
        {"\"\x7f\xc2\x9b\"", "\"\\u007f\\u009b\""},
        {"{\"$int\":\"18446744073709551615\"}", "{\"$int\":\"18446744073709551615\"}"},
        {"{\"$int\":\"-9223372036854775808\"}", "{\"$int\":\"-9223372036854775808\"}"},
        {"{\"$int\":\"7\"}", "7"},
        {"{\"$bytes\":\"/wA=\"}", "{\"$bytes\":\"/wA=\"}"},
        {"{\"$lit\":{\"$int\":\"7\"}}", "{\"$lit\":{\"$int\":\"7\"}}"},
        {"{\"$lit\":{\"$lit\":{\"$int\":\"7\"}}}", "{\"$lit\":{\"$lit\":7}}"},
        {"{\"$lit\":{\"$lit\":{\"$int\":\"7\"}},\"b\":1}",
         "{\"$lit\":{\"$lit\":{\"$int\":\"7\"}},\"b\":1}"},
        {"{\"$lit\":{\"$int\":\"7\"},\"b\":1}", "{\"$lit\":7,\"b\":1}"},
        {"{\"$lit\":[{\"$int\":\"7\"}]}", "[7]"},
        {"{\"$lit\":5}", "5"},
        {"{\"$ref\":\"a.b\"}", "{\"$ref\":\"a.b\"}"},
        {"{\"$int\":\"7\",\"b\":1}", "{\"$int\":\"7\",\"b\":1}"},
    };
    for (size_t i = 0; i < MP_ARRAY_SIZE(cases); i++)
        assert_prints(f, cases[i][0], cases[i][1], NULL);
}

static void keeps_the_operators_of_graphs(void **state)
{
    struct fixture *f = (struct fixture *)*state;
    const struct mp_json_options graph = {.graph = true};
    static const char *const same[] = {
        "{\"args\":[{\"$ref\":\"x\"},{\"$lit\":{\"$ref\":\"x\"}}]}",
        "{\"args\":[{\"$lit\":{\"$int\":\"7\"}}]}",
        "{\"args\":[{\"$lit\":{\"$lit\":7}}]}",
        "{\"args\":[{\"$lit\":{\"a\":{\"$lit\":{\"$int\":\"7\"}}}}]}",
        "{\"args\":[{\"$int\":\"9007199254740993\"}]}",
        "{\"input\":{\"a\":{\"$lit\":{\"$int\":\"7\"}}}}",
    };
    for (size_t i = 0; i < MP_ARRAY_SIZE(same); i++)
        assert_prints(f, same[i], same[i], &graph);
    /* as a value, $lit data of a graph is what it protects */
    assert_prints(f, same[0], "{\"args\":[{\"$ref\":\"x\"},{\"$ref\":\"x\"}]}", NULL);
    /* a $lit operator is a map of one pair in MessagePack */
    assert_int_equal(read_text(f, "{\"$lit\":{\"$int\":\"7\"}}", &graph), MP_OK);
    static const uint8_t expected[] = {0x81, 0xa4, '$', 'l', 'i', 't',  0x81,
                                       0xa4, '$',  'i', 'n', 't', 0xa1, '7'};
    assert_int_equal(f->bytes.size, sizeof(expected));
    assert_memory_equal(f->bytes.data, expected, sizeof(expected));
}

static void tells_the_place_of_what_it_refuses(void **state)
{
    struct fixture *f = (struct fixture *)*state;
    static const struct {
        const char *text;
        uint32_t line;
        uint32_t column;
        const char *path;
        const char *message;
    } cases[] = {
        {"", 1, 1, "", "empty"},
        {" \n ", 2, 2, "", "empty"},
        {"nul", 1, 1, "", "no JSON value"},
        {"{\n \"a\": [1, tru]}", 2, 11, ".a[1]", "no JSON value"},
        {"[1,2", 1, 5, "[2]", "ends in the middle"},
        {"\"abc", 1, 5, "", "ends in the middle"},
        {"[1,]", 1, 4, "[1]", "not expected"},
        {"[1 2]", 1, 4, "[1]", "comma or ]"},
        {"[1 \"a\\\"b\"]", 1, 4, "[1]", "comma or ]"},
        {"{\"a\" 1}", 1, 6, ".a", "colon"},
        {"{\"a\":1 \"b\":2}", 1, 8, ".a", "comma or }"},
        {"{\"a\":\"\"1}", 1, 8, ".a", "comma or }"},
        {"{\"a\":[]true}", 1, 8, ".a", "comma or }"},
        {"{a:1}", 1, 2, "", "no JSON value"},
        {"{1:1}", 1, 2, "", "double quotes"},
        {"1 2", 1, 3, "", "behind the value"},
        {"[] x", 1, 4, "", "behind the value"},
        {"\"\xc3\xa4\n\"", 1, 3, "", "control character"},
        {"-", 1, 1, "", "digit"},
        {"\"\\x\"", 1, 3, "", "backslash"},
        {"[\"\\u12g4\"]", 1, 7, "", "hexadecimal"},
        {"[\"\xc3\xa4\", \"\xff\"]", 1, 8, "[2]", "UTF-8"},
        {"\"\xed\xa0\x80\"", 1, 2, "", "UTF-8"},
        {"{\"a\":1,\"\xff\":1}", 1, 9, "", "UTF-8"},
        {"[\"\\ud83d\"]", 1, 3, "", "surrogate"},
        {"[\"\\ude00\\ud83d\"]", 1, 3, "", "surrogate"},
        {"{\"a\":{\"k\":1,\"k\":2}}", 1, 14, ".a.k", "twice"},
        {"[1,18446744073709551615]", 1, 4, "[2]", "exactly"},
        {"[-9223372036854775809]", 1, 2, "[1]", "exactly"},
        {"18446744073709551615", 1, 1, "", "exactly"},
        {"1e400", 1, 1, "", "too large"},
        {"{\"a\":[1,{\"$int\":\"x\"}]}", 1, 9, ".a[2]", "$int"},
        {"{\"a\":[1,{\"$int\":7}]}", 1, 9, ".a[2]", "$int"},
        {"{\"$int\":\"18446744073709551616\"}", 1, 1, "", "$int"},
        {"{\"$int\":\"-9223372036854775809\"}", 1, 1, "", "$int"},
        {"{\"$int\":\"007\"}", 1, 1, "", "$int"},
        {"{\"$int\":\"-0\"}", 1, 1, "", "$int"},
        {"{\"$int\":\"\"}", 1, 1, "", "$int"},
        {"[[],{\"$bytes\":\"/w=\"}]", 1, 5, "[2]", "$bytes"},
        {"{\"$bytes\":\"/x==\"}", 1, 1, "", "$bytes"},
        {"{\"$bytes\":\"====\"}", 1, 1, "", "$bytes"},
        {"{\"$bytes\":[]}", 1, 1, "", "$bytes"},
    };
    for (size_t i = 0; i < MP_ARRAY_SIZE(cases); i++) {
        assert_int_equal(read_text(f, cases[i].text, NULL), MP_EINVAL);
        assert_int_equal(f->bytes.size, 0);
        if (!strstr(f->error.message, cases[i].message) || f->error.line != cases[i].line ||
            f->error.column != cases[i].column || strcmp(f->error.path, cases[i].path) != 0)
            fail_msg("%s: %u:%u %s: %s", cases[i].text, f->error.line, f->error.column,
                     f->error.path, f->error.message);
    }
}

static char *repeated(const char *part, size_t count, const char *middle, const char *tail)
{
    size_t size = (strlen(part) + strlen(tail)) * count + strlen(middle) + 1;
    char *text = (char *)malloc(size);
    assert_non_null(text);
    char *at = text;
    for (size_t i = 0; i < count; i++)
        at = stpcpy(at, part);
    at = stpcpy(at, middle);
    for (size_t i = 0; i < count; i++)
        at = stpcpy(at, tail);
    return text;
}

static void caps_nesting(void **state)
{
    struct fixture *f = (struct fixture *)*state;
    static const struct {
        const char *open;
        size_t count;
        const char *middle;
        const char *close;
        enum mp_err err;
    } cases[] = {
        {"[", MP_DEPTH_MAX, "", "]", MP_OK},
        {"[", MP_DEPTH_MAX + 1, "", "]", MP_EDEPTH},
        {"[", MP_DEPTH_MAX, "{\"$int\":\"7\"}", "]", MP_OK},
        {"[", 100000, "", "]", MP_EDEPTH},
        {"[", 100000, "", "", MP_EDEPTH},
        {"{\"a\":", 100000, "1", "}", MP_EDEPTH},
        {"{\"$lit\":", 100000, "1", "}", MP_EDEPTH},
        {"{\"$lit\":{\"$int\":", MP_DEPTH_MAX, "1", "}}", MP_OK},
        {"{\"$lit\":{\"$int\":", MP_DEPTH_MAX + 1, "1", "}}", MP_EDEPTH},
    };
    for (size_t i = 0; i < MP_ARRAY_SIZE(cases); i++) {
        char *text = repeated(cases[i].open, cases[i].count, cases[i].middle, cases[i].close);
        assert_int_equal(read_text(f, text, NULL), cases[i].err);
        free(text);
        if (cases[i].err == MP_OK) {
            mp_buf_clear(&f->text);
            assert_int_equal(
                mp_json_from_msgpack(mp_buf_slice(&f->bytes), &f->text, NULL, &f->error), MP_OK);
        } else {
            assert_non_null(strstr(f->error.message, "nesting is over 128"));
        }
    }
}

/* Containers of random lengths around the header widths, keys far and near the doubled one. */
static void put_random_text(struct mp_buf *b, struct mp_rng *rng, unsigned depth, int *leaves)
{
    char text[64];
    uint64_t kind = mp_rng_below(rng, 4);
    uint64_t count = mp_rng_below(rng, depth == 0 ? 300 : 20);
    if (depth == 4 || kind < 2 || *leaves > 3000) {
        ++*leaves;
        snprintf(text, sizeof(text), "%llu", (unsigned long long)mp_rng_below(rng, 1000));
        assert_int_equal(mp_buf_append(b, mp_slice_str(text)), MP_OK);
        return;
    }
    assert_int_equal(mp_buf_append_byte(b, kind == 2 ? '[' : '{'), MP_OK);
    for (uint64_t i = 0; i < count; i++) {
        if (i != 0)
            assert_int_equal(mp_buf_append_byte(b, ','), MP_OK);
        if (kind == 3) {
            snprintf(text, sizeof(text), "\"k%u\":", (unsigned)i);
            assert_int_equal(mp_buf_append(b, mp_slice_str(text)), MP_OK);
        }
        put_random_text(b, rng, depth + 1, leaves);
    }
    assert_int_equal(mp_buf_append_byte(b, kind == 2 ? ']' : '}'), MP_OK);
}

static void keeps_containers_of_every_length(void **state)
{
    struct fixture *f = (struct fixture *)*state;
    struct mp_rng rng;
    mp_rng_init(&rng, SEED);
    struct mp_buf text;
    mp_buf_init(&text, &f->alloc, 0);
    for (int round = 0; round < 300; round++) {
        int leaves = 0;
        mp_buf_clear(&text);
        put_random_text(&text, &rng, 0, &leaves);
        /* behind other bytes, which stay */
        mp_buf_clear(&f->bytes);
        mp_buf_clear(&f->text);
        assert_int_equal(mp_buf_append_byte(&f->bytes, '!'), MP_OK);
        assert_int_equal(mp_buf_append_byte(&f->text, '!'), MP_OK);
        assert_int_equal(mp_json_to_msgpack(mp_buf_slice(&text), &f->bytes, NULL, &f->error),
                         MP_OK);
        assert_int_equal(f->bytes.data[0], '!');
        struct mp_slice value = mp_slice_of(f->bytes.data + 1, f->bytes.size - 1);
        assert_int_equal(mp_mp_check(value), MP_OK);
        assert_int_equal(mp_json_from_msgpack(value, &f->text, NULL, &f->error), MP_OK);
        assert_int_equal(f->text.data[0], '!');
        assert_true(
            mp_slice_equal(mp_slice_of(f->text.data + 1, f->text.size - 1), mp_buf_slice(&text)));
    }
    mp_buf_fini(&text);
}

static void finds_a_repeated_key_among_many(void **state)
{
    struct fixture *f = (struct fixture *)*state;
    char key[32];
    for (unsigned count = 2; count < 5000; count = count * 3 / 2 + 1) {
        struct mp_buf text;
        mp_buf_init(&text, &f->alloc, 0);
        assert_int_equal(mp_buf_append_byte(&text, '{'), MP_OK);
        for (unsigned i = 0; i < count; i++) {
            snprintf(key, sizeof(key), "\"k%u\":{\"k1\":[],\"k2\":1},", i);
            assert_int_equal(mp_buf_append(&text, mp_slice_str(key)), MP_OK);
        }
        size_t size = text.size;
        assert_int_equal(mp_buf_append(&text, mp_slice_str("\"z\":1}")), MP_OK);
        mp_buf_clear(&f->bytes);
        assert_int_equal(mp_json_to_msgpack(mp_buf_slice(&text), &f->bytes, NULL, &f->error),
                         MP_OK);
        text.size = size;
        snprintf(key, sizeof(key), "\"k%u\":1}", count / 2);
        assert_int_equal(mp_buf_append(&text, mp_slice_str(key)), MP_OK);
        mp_buf_clear(&f->bytes);
        assert_int_equal(mp_json_to_msgpack(mp_buf_slice(&text), &f->bytes, NULL, &f->error),
                         MP_EINVAL);
        snprintf(key, sizeof(key), ".k%u", count / 2);
        assert_string_equal(f->error.path, key);
        mp_buf_fini(&text);
    }
}

static void refuses_what_has_no_json_form(void **state)
{
    struct fixture *f = (struct fixture *)*state;
    static const struct {
        uint8_t bytes[12];
        size_t size;
        enum mp_err err;
        const char *path;
        const char *message;
    } cases[] = {
        {{0xcb, 0x7f, 0xf8, 0, 0, 0, 0, 0, 0}, 9, MP_EINVAL, "", "NaN"},
        {{0x91, 0xcb, 0xff, 0xf0, 0, 0, 0, 0, 0, 0}, 10, MP_EINVAL, "[1]", "infinity"},
        {{0x81, 1, 2}, 3, MP_EINVAL, "", "no string"},
        {{0x81, 0xc4, 1, 0xff, 2}, 5, MP_EINVAL, "", "UTF-8"},
        {{0x81, 0xa1, 0xff, 2}, 4, MP_EINVAL, "", "UTF-8"},
        {{0x92, 1, 0x81, 0xa1, 'a', 0xd4, 5, 1}, 8, MP_EINVAL, "[2].a", "extension"},
        {{0x92, 1}, 2, MP_ECORRUPT, NULL, NULL},
        {{0x91, 0x91}, 2, MP_ECORRUPT, NULL, NULL},
        {{1, 1}, 2, MP_ECORRUPT, NULL, NULL},
        {{0xc1}, 1, MP_ECORRUPT, NULL, NULL},
        {{0}, 0, MP_ECORRUPT, NULL, NULL},
        {{0xdd, 0xff, 0xff, 0xff, 0xff}, 5, MP_ECORRUPT, NULL, NULL},
    };
    const struct mp_json_options options[] = {
        {0}, {.pretty = true}, {.sort_keys = true}, {.pretty = true, .sort_keys = true}};
    for (size_t i = 0; i < MP_ARRAY_SIZE(cases) * MP_ARRAY_SIZE(options); i++) {
        size_t k = i / MP_ARRAY_SIZE(options);
        mp_buf_clear(&f->text);
        assert_int_equal(mp_json_from_msgpack(mp_slice_of(cases[k].bytes, cases[k].size), &f->text,
                                              &options[i % MP_ARRAY_SIZE(options)], &f->error),
                         cases[k].err);
        assert_int_equal(f->text.size, 0);
        if (!cases[k].message)
            continue;
        assert_string_equal(f->error.path, cases[k].path);
        assert_non_null(strstr(f->error.message, cases[k].message));
    }
}

static void prints_bytes_and_broken_text_as_base64(void **state)
{
    struct fixture *f = (struct fixture *)*state;
    static const uint8_t broken[] = {0x93, 0xa1, 0xff, 0xc4, 0, 0xc4, 4, 0, 1, 2, 3};
    assert_int_equal(
        mp_json_from_msgpack(mp_slice_of(broken, sizeof(broken)), &f->text, NULL, &f->error),
        MP_OK);
    assert_int_equal(mp_buf_append_byte(&f->text, 0), MP_OK);
    assert_string_equal((const char *)f->text.data,
                        "[{\"$bytes\":\"/w==\"},{\"$bytes\":\"\"},{\"$bytes\":\"AAECAw==\"}]");
}

/* A double of any magnitude, or one with few decimals, as people write them. */
static double random_double(struct mp_rng *rng)
{
    static const double powers[] = {1, 10, 100, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11};
    uint64_t bits = mp_rng_next(rng);
    double v;
    if (mp_rng_below(rng, 2)) {
        v = (double)(int64_t)(bits >> mp_rng_below(rng, 64));
        return v / powers[mp_rng_below(rng, MP_ARRAY_SIZE(powers))];
    }
    memcpy(&v, &bits, 8);
    return v;
}

static void prints_doubles_as_the_shortest_of_three(void **state)
{
    struct fixture *f = (struct fixture *)*state;
    struct mp_rng rng;
    mp_rng_init(&rng, SEED);
    for (int round = 0; round < 200000; round++) {
        double v = random_double(&rng);
        bool is_integer = fabs(v) <= 9007199254740992.0 && v == floor(v);
        if (!isfinite(v) || is_integer)
            continue;
        char expected[40];
        for (int digits = 15; digits <= 17; digits++) {
            snprintf(expected, sizeof(expected), "%.*g", digits, v);
            if (strtod(expected, NULL) == v)
                break;
        }
        if (!strpbrk(expected, ".e"))
            strcat(expected, ".0");
        mp_buf_clear(&f->bytes);
        mp_buf_clear(&f->text);
        assert_int_equal(mp_mp_put_float(&f->bytes, v), MP_OK);
        assert_int_equal(mp_json_from_msgpack(mp_buf_slice(&f->bytes), &f->text, NULL, &f->error),
                         MP_OK);
        if (!mp_slice_is(mp_buf_slice(&f->text), expected))
            fail_msg("%s is printed as %.*s", expected, (int)f->text.size, f->text.data);
        mp_buf_clear(&f->bytes);
        assert_int_equal(mp_json_to_msgpack(mp_buf_slice(&f->text), &f->bytes, NULL, &f->error),
                         MP_OK);
        double back;
        assert_int_equal(mp_mp_get_number(mp_buf_slice(&f->bytes), &back), MP_OK);
        assert_memory_equal(&back, &v, 8);
    }
}

static void prints_prettily(void **state)
{
    struct fixture *f = (struct fixture *)*state;
    const struct mp_json_options pretty = {.pretty = true, .sort_keys = true};
    assert_prints(f, "{\"b\":[1,{}],\"a\":{\"$int\":\"9007199254740993\"},\"aa\":[]}",
                  "{\"a\": {\"$int\": \"9007199254740993\"}, \"aa\": [], \"b\": [1, {}]}", &pretty);
    assert_prints(f,
                  "{\"long\":\"................................................................\","
                  "\"list\":[[1,2],[3,4]]}",
                  "{\n  \"list\": [[1, 2], [3, 4]],\n"
                  "  \"long\": "
                  "\"................................................................\"\n}",
                  &pretty);
    assert_prints(f,
                  "[{\"$lit\":{\"$int\":"
                  "[\"................................................................\",1]}}]",
                  "[\n  {\"$lit\": {\n    \"$int\": [\n      "
                  "\"................................................................\",\n"
                  "      1\n    ]\n  }}\n]",
                  &pretty);
}

/* A document that uses every kind of memory: wide, long objects, forms, sorted. */
static const char *memory_text(void)
{
    static char text[8192];
    char *at = stpcpy(text, "[");
    for (int i = 0; i < 40; i++)
        at += sprintf(at, "{\"a%d\":{\"$int\":\"5\"}},", i);
    at = stpcpy(at, "{");
    for (int i = 0; i < 99; i++)
        at += sprintf(at, "\"key%d\":\"\\n%d\",", i, i);
    strcpy(at, "\"z\":0}]");
    return text;
}

static void survives_each_failed_allocation(void **state)
{
    struct fixture *f = (struct fixture *)*state;
    const struct mp_json_options opt = {.sort_keys = true, .pretty = true};
    enum mp_err err = MP_ENOMEM;
    size_t n = 0;
    for (; err != MP_OK; n++) {
        mp_buf_fini(&f->bytes);
        mp_buf_fini(&f->text);
        assert_int_equal(f->memory.live_bytes, 0);
        f->memory = (struct spec_alloc){.fail_at = n};
        err = read_text(f, memory_text(), NULL);
        if (err == MP_OK)
            err = mp_json_from_msgpack(mp_buf_slice(&f->bytes), &f->text, &opt, &f->error);
        else
            assert_int_equal(f->bytes.size, 0);
        assert_true(err == MP_OK || err == MP_ENOMEM);
        assert_true(err == MP_OK || f->text.size == 0);
        assert_true(n < 1000);
    }
    assert_true(n > 5);
}

static void keeps_to_the_buffer_s_limit(void **state)
{
    struct fixture *f = (struct fixture *)*state;
    struct mp_buf small;
    mp_buf_init(&small, &f->alloc, 100);
    struct mp_slice text = mp_slice_str(memory_text());
    assert_int_equal(mp_json_to_msgpack(text, &small, NULL, &f->error), MP_ETOOLARGE);
    assert_non_null(strstr(f->error.message, "100 bytes"));
    assert_int_equal(small.size, 0);
    assert_int_equal(read_text(f, memory_text(), NULL), MP_OK);
    assert_int_equal(mp_json_from_msgpack(mp_buf_slice(&f->bytes), &small, NULL, &f->error),
                     MP_ETOOLARGE);
    assert_non_null(strstr(f->error.message, "100 bytes"));
    assert_int_equal(small.size, 0);
    mp_buf_fini(&small);
}

static void takes_no_memory_for_small_documents_once_the_buffers_are_warm(void **state)
{
    struct fixture *f = (struct fixture *)*state;
    const char *text = "{\"id\":17,\"name\":\"quake \\u00e4\",\"mag\":4.5,\"ok\":[true,null]}";
    assert_prints(f, text, "{\"id\":17,\"name\":\"quake \xc3\xa4\",\"mag\":4.5,\"ok\":[true,null]}",
                  NULL);
    size_t count = f->memory.count;
    for (int i = 0; i < 100; i++) {
        assert_int_equal(read_text(f, text, NULL), MP_OK);
        mp_buf_clear(&f->text);
        assert_int_equal(mp_json_from_msgpack(mp_buf_slice(&f->bytes), &f->text, NULL, &f->error),
                         MP_OK);
    }
    assert_int_equal(f->memory.count, count);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(reads_and_prints),
        TEST(keeps_the_operators_of_graphs),
        TEST(tells_the_place_of_what_it_refuses),
        TEST(caps_nesting),
        TEST(keeps_containers_of_every_length),
        TEST(finds_a_repeated_key_among_many),
        TEST(refuses_what_has_no_json_form),
        TEST(prints_bytes_and_broken_text_as_base64),
        TEST(prints_doubles_as_the_shortest_of_three),
        TEST(prints_prettily),
        TEST(survives_each_failed_allocation),
        TEST(keeps_to_the_buffer_s_limit),
        TEST(takes_no_memory_for_small_documents_once_the_buffers_are_warm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
