/* Versions rank as semver.org says, and constraints hold for exactly what they name. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "src/base/compiler.h"
#include "src/wire/version.h"

static struct mp_version version(const char *text)
{
    struct mp_version v;
    if (mp_version_read(mp_slice_str(text), &v) != MP_OK)
        fail_msg("no version: %s", text);
    return v;
}

static void reads_versions(void **state)
{
    (void)state;
    const struct mp_version v = version("1.22.333-rc.1+3fa9c1d2");
    assert_int_equal(v.major, 1);
    assert_int_equal(v.minor, 22);
    assert_int_equal(v.patch, 333);
    assert_true(mp_slice_is(v.pre, "rc.1"));
    assert_true(mp_slice_is(v.build, "3fa9c1d2"));
    assert_int_equal(version("2").minor, 0);
    assert_int_equal(version("2.7").minor, 7);
    assert_int_equal(version("999999999.0.0").major, 999999999);
    assert_true(mp_slice_is(version("1-a-b").pre, "a-b"));
}

static void refuses_what_is_no_version(void **state)
{
    (void)state;
    static const char *const bad[] = {"",
                                      "v1.2.3",
                                      "1.",
                                      "1.2.",
                                      "1.2.3.",
                                      "1.2.3.4",
                                      ".1",
                                      "1..2",
                                      "a",
                                      "1.2.x",
                                      "-1",
                                      "1.2.3-",
                                      "1.2.3+",
                                      "1.2.3-a.",
                                      "1.2-.a",
                                      "1.2-a..b",
                                      "1.2+a_b",
                                      "1 .2",
                                      " 1",
                                      "1 ",
                                      "1.2.3-é",
                                      "1.2.3+a+b",
                                      "1000000000.0.0",
                                      "99999999999999999999"};
    struct mp_version v = {.major = 7};
    for (size_t i = 0; i < MP_ARRAY_SIZE(bad); i++)
        if (mp_version_read(mp_slice_str(bad[i]), &v) == MP_OK)
            fail_msg("read as a version: %s", bad[i]);
    assert_int_equal(v.major, 7); /* untouched */
}

static void ranks_as_semver_says(void **state)
{
    (void)state;
    /* semver.org, §11, and what lies between */
    static const char *const rising[] = {
        "0.0.0-0",    "0.0.0",        "0.0.1-alpha",   "0.0.1",
        "0.1.0",      "0.9.9",        "1.0.0-1",       "1.0.0-2",
        "1.0.0-11",   "1.0.0-alpha",  "1.0.0-alpha.1", "1.0.0-alpha.beta",
        "1.0.0-beta", "1.0.0-beta.2", "1.0.0-beta.11", "1.0.0-rc.1",
        "1.0.0",      "1.0.1",        "1.0.10",        "1.2.0",
        "1.10.0",     "2.0.0-a",      "2.0.0",         "10.0.0"};
    for (size_t i = 0; i < MP_ARRAY_SIZE(rising); i++)
        for (size_t j = 0; j < MP_ARRAY_SIZE(rising); j++) {
            const struct mp_version a = version(rising[i]);
            const struct mp_version b = version(rising[j]);
            int order = mp_version_compare(&a, &b);
            if ((order > 0) - (order < 0) != (i > j) - (i < j))
                fail_msg("%s against %s: %d", rising[i], rising[j], order);
        }
    const struct mp_version plain = version("1.2.0");
    const struct mp_version built = version("1.2+3fa9c1d2");
    assert_int_equal(mp_version_compare(&plain, &built), 0);
}

struct constraint_case {
    const char *constraint;
    const char *holds[8]; /* up to the first NULL */
    const char * not [8];
};

static const struct constraint_case cases[] = {
    {"", {"0.0.0", "9.9.9", "1.0.0-rc.1"}, {0}},
    {"1.2.3", {"1.2.3", "1.2.3+x"}, {"1.2.4", "1.2.2", "1.2.3-rc.1", "2.2.3"}},
    {"=1.2.3", {"1.2.3", "1.2.3+x"}, {"1.2.4"}},
    {"1.2", {"1.2.0", "1.2"}, {"1.2.1", "1.3.0"}},
    {"1.2.0+3fa9c1d2", {"1.2.0+3fa9c1d2"}, {"1.2.0", "1.2.0+00000000"}},
    {">1.2", {"1.2.1", "2.0.0", "1.3.0-rc"}, {"1.2.0", "1.1.9", "1.2.0-rc"}},
    {">=1.2", {"1.2.0", "1.2.1"}, {"1.1.9", "1.2.0-rc"}},
    {"<2", {"1.9.9", "0.0.0"}, {"2.0.0", "2.0.1"}},
    {"<=2", {"2.0.0", "1.0.0"}, {"2.0.1"}},
    {"^1.2.3", {"1.2.3", "1.9.0"}, {"1.2.2", "2.0.0", "0.9.0"}},
    {"^1.2", {"1.2.0", "1.9.9"}, {"1.1.9", "2.0.0"}},
    {"^1", {"1.0.0", "1.9.9"}, {"0.9.9", "2.0.0"}},
    {"^0.2.3", {"0.2.3", "0.2.9"}, {"0.2.2", "0.3.0", "1.0.0"}},
    {"^0.0.3", {"0.0.3"}, {"0.0.2", "0.0.4", "0.1.0"}},
    {"^0.0", {"0.0.0", "0.0.9"}, {"0.1.0"}},
    {"^0", {"0.0.0", "0.9.9"}, {"1.0.0"}},
    {"~1.2.3", {"1.2.3", "1.2.9"}, {"1.2.2", "1.3.0"}},
    {"~1.2", {"1.2.0", "1.2.9"}, {"1.1.9", "1.3.0"}},
    {"~1", {"1.0.0", "1.9.9"}, {"0.9.9", "2.0.0"}},
    {">=1.2 <2", {"1.2.0", "1.9.9"}, {"1.1.9", "2.0.0"}},
    {">=1.2,<2", {"1.2.0", "1.9.9"}, {"1.1.9", "2.0.0"}},
    {" >=1.2 , <2 ", {"1.2.0"}, {"2.0.0"}},
    {"^1 <1.5 >1.1.0", {"1.1.1", "1.4.9"}, {"1.1.0", "1.5.0"}},
    {"=1.0.0-rc.1", {"1.0.0-rc.1"}, {"1.0.0", "1.0.0-rc.2"}},
    {"2 1", {0}, {"1.0.0", "2.0.0"}},
};

static void holds_for_exactly_what_it_names(void **state)
{
    (void)state;
    for (size_t i = 0; i < MP_ARRAY_SIZE(cases); i++) {
        const struct mp_slice constraint = mp_slice_str(cases[i].constraint);
        assert_true(mp_version_constraint_is_valid(constraint));
        for (size_t k = 0; k < 8 && cases[i].holds[k]; k++) {
            const struct mp_version v = version(cases[i].holds[k]);
            if (!mp_version_matches(constraint, &v))
                fail_msg("'%s' should match %s", cases[i].constraint, cases[i].holds[k]);
        }
        for (size_t k = 0; k < 8 && cases[i].not [k]; k++) {
            const struct mp_version v = version(cases[i].not [k]);
            if (mp_version_matches(constraint, &v))
                fail_msg("'%s' should not match %s", cases[i].constraint, cases[i].not [k]);
        }
    }
}

static void an_invalid_constraint_matches_nothing(void **state)
{
    (void)state;
    static const char *const bad[] = {" ",    ",",   "x",     ">",   ">=",          "==1", "=>1",
                                      "!1",   "^",   "~>1.2", "1 x", ">=1.0 <",     "*",   "1.x",
                                      ">= 1", "1;2", "^^1",   "<>1", "99999999999", "\xff"};
    const struct mp_version v = version("1.0.0");
    for (size_t i = 0; i < MP_ARRAY_SIZE(bad); i++) {
        if (mp_version_constraint_is_valid(mp_slice_str(bad[i])))
            fail_msg("taken as a constraint: '%s'", bad[i]);
        assert_false(mp_version_matches(mp_slice_str(bad[i]), &v));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_versions),
        cmocka_unit_test(refuses_what_is_no_version),
        cmocka_unit_test(ranks_as_semver_says),
        cmocka_unit_test(holds_for_exactly_what_it_names),
        cmocka_unit_test(an_invalid_constraint_matches_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
