/* A unit and its description are checked as a whole before anything is taken out of them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "spec/support/alloc.h"
#include "src/wire/unit.h"

static struct spec_alloc memory = {.fail_at = SPEC_NEVER};
static struct mp_alloc alloc;

static void must(enum mp_err err)
{
    assert_int_equal(err, MP_OK);
}

static struct mp_buf new_buf(void)
{
    struct mp_buf b;
    alloc = spec_alloc_of(&memory);
    mp_buf_init(&b, &alloc, 0);
    return b;
}

static void put_module(struct mp_buf *b, const char *name, const char *source)
{
    must(mp_mp_put_array(b, 2));
    must(mp_mp_put_text(b, name));
    must(mp_mp_put_text(b, source));
}

/* Why a unit is refused; NULL if it is not. */
static const char *why_not(struct mp_slice unit)
{
    uint32_t count = 77;
    struct mp_mp_reader r = {NULL, NULL};
    const char *why = NULL;
    enum mp_err err = mp_unit_open(unit, &count, &r, &why);
    if (err == MP_OK)
        return NULL;
    assert_int_equal(err, MP_EINVAL);
    assert_int_equal(count, 77);
    assert_null(r.at);
    assert_non_null(why);
    return why;
}

static void reads_modules_in_order(void **state)
{
    (void)state;
    struct mp_buf b = new_buf();
    struct mp_mp_reader r;
    struct mp_unit_module m;
    uint32_t count;
    const char *why;
    must(mp_mp_put_array(&b, 3));
    put_module(&b, "a", "return {}");
    put_module(&b, "a.b", "");
    must(mp_mp_put_array(&b, 2));
    must(mp_mp_put_text(&b, "b"));
    must(mp_mp_put_bin(&b, mp_slice_str("-- \xff")));
    must(mp_unit_open(mp_buf_slice(&b), &count, &r, &why));
    assert_int_equal(count, 3);
    must(mp_unit_next(&r, &m));
    assert_true(mp_slice_is(m.name, "a"));
    assert_true(mp_slice_is(m.source, "return {}"));
    must(mp_unit_next(&r, &m));
    assert_true(mp_slice_is(m.name, "a.b"));
    assert_int_equal(m.source.size, 0);
    must(mp_unit_next(&r, &m));
    assert_true(mp_slice_is(m.source, "-- \xff"));
    assert_int_equal(mp_unit_next(&r, &m), MP_ENOENT);
    mp_buf_fini(&b);
}

static void refuses_what_is_no_unit(void **state)
{
    (void)state;
    struct mp_buf b = new_buf();
    assert_string_equal(why_not(mp_slice_of(NULL, 0)), "a unit is no list of modules");
    assert_string_equal(why_not(mp_slice_str("\x80")), "a unit is no list of modules");
    assert_string_equal(why_not(mp_slice_str("\x90")), "a unit has no modules");
    assert_string_equal(why_not(mp_slice_str("\x91\x01")),
                        "a unit's module is no pair of a name and a source");
    assert_non_null(why_not(mp_slice_str("\x91\x91\xa1m")));
    assert_non_null(why_not(mp_slice_str("\x91\x93\xa1m\xa1s\xa1t")));
    assert_non_null(why_not(mp_slice_str("\x91\x92\xa1m\x01")));
    assert_non_null(why_not(mp_slice_str("\x91\x92\xc4\x01m\xa1s")));
    assert_null(why_not(mp_slice_str("\x91\x92\xa1m\xa1s")));
    assert_string_equal(why_not(mp_slice_str("\x91\x92\xa1m\xa1s\xc0")),
                        "something follows a unit's modules");
    must(mp_mp_put_array(&b, 2));
    put_module(&b, "m", "return {}");
    put_module(&b, "n", "return {}");
    for (size_t size = 0; size < b.size; size++)
        assert_non_null(why_not(mp_slice_of(b.data, size)));
    assert_null(why_not(mp_buf_slice(&b)));
    mp_buf_fini(&b);
}

static void refuses_bad_names(void **state)
{
    (void)state;
    static const struct {
        const char *first;
        const char *second;
        const char *why;
    } rows[] = {
        {"a", "b", NULL},
        {"a", "a.b", NULL},
        {"a.b", "a", "a unit's modules are not in ascending order of their names"},
        {"a", "a", "a unit's modules are not in ascending order of their names"},
        {"b", "a", "a unit's modules are not in ascending order of their names"},
        {"", "a", "a module's name is not acceptable: letters, digits, '_' and '-', with dots"},
        {"a", "b/c", "a module's name is not acceptable: letters, digits, '_' and '-', with dots"},
        {"../a", "b", "a module's name is not acceptable: letters, digits, '_' and '-', with dots"},
    };
    for (size_t i = 0; i < MP_ARRAY_SIZE(rows); i++) {
        struct mp_buf b = new_buf();
        must(mp_mp_put_array(&b, 2));
        put_module(&b, rows[i].first, "s");
        put_module(&b, rows[i].second, "s");
        const char *why = why_not(mp_buf_slice(&b));
        if (rows[i].why)
            assert_string_equal(why, rows[i].why);
        else
            assert_null(why);
        mp_buf_fini(&b);
    }
}

static bool is_name_taken(size_t size)
{
    static char name[600];
    struct mp_buf b = new_buf();
    for (size_t i = 0; i < size; i++)
        name[i] = i % 40 == 39 ? '.' : 'm';
    name[size] = '\0';
    must(mp_mp_put_array(&b, 1));
    put_module(&b, name, "s");
    bool is_taken = !why_not(mp_buf_slice(&b));
    mp_buf_fini(&b);
    return is_taken;
}

static void keeps_to_its_limits(void **state)
{
    (void)state;
    struct mp_buf b = new_buf();
    char *source = malloc(MP_MODULE_BYTES_MAX + 1);
    assert_non_null(source);
    memset(source, ' ', MP_MODULE_BYTES_MAX + 1);
    assert_true(is_name_taken(MP_MODULE_NAME_BYTES_MAX - 1));
    assert_false(is_name_taken(MP_MODULE_NAME_BYTES_MAX + 1));
    for (uint32_t extra = 0; extra < 2; extra++) {
        mp_buf_clear(&b);
        must(mp_mp_put_array(&b, MP_UNIT_MODULES_MAX + extra));
        for (uint32_t i = 0; i < MP_UNIT_MODULES_MAX + extra; i++) {
            char name[16];
            snprintf(name, sizeof(name), "m%03u", i);
            put_module(&b, name, "s");
        }
        const char *why = why_not(mp_buf_slice(&b));
        assert_true(extra == 0 ? !why : strcmp(why, "a unit has more than 512 modules") == 0);
        mp_buf_clear(&b);
        must(mp_mp_put_array(&b, 1));
        must(mp_mp_put_array(&b, 2));
        must(mp_mp_put_text(&b, "m"));
        must(mp_mp_put_bin(&b, mp_slice_of(source, MP_MODULE_BYTES_MAX + extra)));
        why = why_not(mp_buf_slice(&b));
        assert_true(extra == 0 ? !why : strcmp(why, "a module's source is over 16 MiB") == 0);
        mp_buf_clear(&b);
        must(mp_mp_put_array(&b, 2 + extra));
        for (uint32_t i = 0; i < 2 + extra; i++) {
            char name[2] = {(char)('a' + i), '\0'};
            must(mp_mp_put_array(&b, 2));
            must(mp_mp_put_text(&b, name));
            must(mp_mp_put_str(&b, mp_slice_of(source, i < 2 ? MP_MODULE_BYTES_MAX : 1)));
        }
        why = why_not(mp_buf_slice(&b));
        assert_true(extra == 0 ? !why
                               : strcmp(why, "a unit's sources are over 32 MiB together") == 0);
    }
    free(source);
    mp_buf_fini(&b);
}

static void put_description(struct mp_buf *b, size_t hash_size)
{
    static const uint8_t hash[33] = {1, 2, 3};
    must(mp_mp_put_array(b, 2));
    must(mp_mp_put_bin(b, mp_slice_of(hash, hash_size)));
    must(mp_mp_put_map(b, 1));
    must(mp_mp_put_str_pair(b, "kind", mp_slice_str("module")));
}

static void reads_descriptions(void **state)
{
    (void)state;
    struct mp_buf b = new_buf();
    struct mp_mp_reader r;
    struct mp_unit_description d;
    must(mp_mp_put_array(&b, 2));
    put_description(&b, 32);
    put_description(&b, 32);
    must(mp_unit_description_open(mp_buf_slice(&b), 2, &r));
    for (int i = 0; i < 2; i++) {
        must(mp_unit_description_next(&r, &d));
        assert_int_equal(d.hash.size, 32);
        assert_int_equal(d.hash.data[2], 3);
        must(mp_mp_check(d.metadata));
        assert_int_equal(mp_mp_type_of(d.metadata), MP_MP_MAP);
    }
    assert_int_equal(mp_unit_description_next(&r, &d), MP_ENOENT);
    mp_buf_fini(&b);
}

static void refuses_other_descriptions(void **state)
{
    (void)state;
    struct mp_buf b = new_buf();
    struct mp_mp_reader r;
    must(mp_mp_put_array(&b, 2));
    put_description(&b, 32);
    put_description(&b, 32);
    assert_int_equal(mp_unit_description_open(mp_buf_slice(&b), 1, &r), MP_EINVAL);
    assert_int_equal(mp_unit_description_open(mp_buf_slice(&b), 3, &r), MP_EINVAL);
    for (size_t size = 0; size < b.size; size++)
        assert_int_equal(mp_unit_description_open(mp_slice_of(b.data, size), 2, &r), MP_EINVAL);
    must(mp_buf_append_byte(&b, 0xc0));
    assert_int_equal(mp_unit_description_open(mp_buf_slice(&b), 2, &r), MP_EINVAL);
    for (size_t size = 31; size <= 33; size++) {
        mp_buf_clear(&b);
        must(mp_mp_put_array(&b, 1));
        put_description(&b, size);
        assert_int_equal(mp_unit_description_open(mp_buf_slice(&b), 1, &r),
                         size == 32 ? MP_OK : MP_EINVAL);
    }
    mp_buf_clear(&b);
    must(mp_mp_put_array(&b, 1));
    must(mp_mp_put_array(&b, 2));
    must(mp_mp_put_bin(&b, mp_slice_of("01234567890123456789012345678901", 32)));
    must(mp_mp_put_nil(&b));
    assert_int_equal(mp_unit_description_open(mp_buf_slice(&b), 1, &r), MP_EINVAL);
    mp_buf_fini(&b);
}

static int gives_all_memory_back(void **state)
{
    (void)state;
    return memory.live_bytes == 0 ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_modules_in_order), cmocka_unit_test(refuses_what_is_no_unit),
        cmocka_unit_test(refuses_bad_names),      cmocka_unit_test(keeps_to_its_limits),
        cmocka_unit_test(reads_descriptions),     cmocka_unit_test(refuses_other_descriptions),
    };
    return cmocka_run_group_tests(tests, NULL, gives_all_memory_back);
}
