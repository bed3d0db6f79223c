/* Paths of references: which are well-formed, and what they find. */
#include "spec/c/core/graph/graph_harness.h"

static void accepts(const char *path, bool is_item)
{
    if (!mp_graph_path_is_valid(mp_slice_str(path), is_item))
        fail_msg("%s is refused", path);
}

static void refuses(const char *path, bool is_item)
{
    if (mp_graph_path_is_valid(mp_slice_str(path), is_item))
        fail_msg("%s is accepted", path);
}

static void keys_quoted_keys_and_places_are_paths(void **state)
{
    (void)state;
    accepts("", false);
    accepts(".a", false);
    accepts(".a-b_C9.d", false);
    accepts("[1]", false);
    accepts("[-1]", false);
    accepts("[\"any key\"]", false);
    accepts("[\"a \\\"quoted\\\" ] key\"].b[2][\"\"]", false);
    accepts("a", true);
    accepts("a.b", true);
    accepts("[1]", true);
    accepts("", true);
}

static void everything_else_is_not(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "a",    ".",     "..a",  ".a.",  ".a..b", "[]",    "[0]",      "[-0]",
        "[a]",  "[1",    "[1 ]", "[ 1]", "[1.5]", "[\"a]", "[\"a\"",   "[\"a\\\"]",
        ".a b", ".é",    "[-]",  "[+1]", ".a[",   "[1]a",  "[\"a\"b]", "[\"",
        ".a]",  "[--1]", " .a",  ".a ",  "[1]]",  ".$ref", "['a']",    "[\"a\"]\"]"};
    for (size_t i = 0; i < MP_ARRAY_SIZE(bad); i++)
        refuses(bad[i], false);
    refuses(".a", true);
    refuses("a b", true);
    refuses("0]", true);
}

static void check(const char *json, const char *path, const char *wanted)
{
    struct harness *h = harness_new();
    tiny_read(json, &h->graph);
    assert_string_equal(harness_show_value(h, mp_buf_slice(&h->graph), path), wanted);
    harness_free(h);
}

static void paths_find_what_is_there(void **state)
{
    (void)state;
    static const char json[] =
        "{\"a\":[1,{\"b c\":\"x\",\"\":2},null],\"q\\\"]\":3,\"n\":null,\"1\":\"key\",\"list\":[]}";
    check(json, ".a[1]", "1");
    check(json, ".a[-3]", "1");
    check(json, ".a[2][\"b c\"]", "\"x\"");
    check(json, ".a[2][\"\"]", "2");
    check(json, ".a[3]", "null");
    check(json, "[\"q\\\"]\"]", "3");
    check(json, ".n", "null");
    check(json, ".1", "\"key\"");
    check(json, "a[-1]", "null");
}

static void paths_find_nothing_else(void **state)
{
    (void)state;
    static const char json[] = "{\"a\":[1,2],\"s\":\"text\",\"n\":null,\"1\":true}";
    check(json, ".b", "(missing)");
    check(json, ".a[3]", "(missing)");
    check(json, ".a[-3]", "(missing)");
    check(json, ".a[99999999999999999999]", "(missing)");
    check(json, ".a[-99999999999999999999]", "(missing)");
    check(json, ".a.x", "(missing)");
    check(json, ".a.1", "(missing)");
    check(json, "[1]", "(missing)");
    check(json, ".s[1]", "(missing)");
    check(json, ".s.length", "(missing)");
    check(json, ".n.x", "(missing)");
}

static void broken_bytes_are_a_missing_field(void **state)
{
    (void)state;
    struct mp_slice found;
    struct mp_slice inside;
    size_t at;
    /* A map of two pairs that ends in its first, and a list of four that has one. */
    const uint8_t map[] = {0x82, 0xa1, 'a'};
    const uint8_t list[] = {0x94, 0x01};
    assert_int_equal(
        mp_graph_path_walk(mp_slice_of(map, sizeof(map)), mp_slice_str(".b"), &found, &at, &inside),
        MP_ENOENT);
    assert_int_equal(mp_graph_path_walk(mp_slice_of(list, sizeof(list)), mp_slice_str("[-1]"),
                                        &found, &at, &inside),
                     MP_ENOENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_quoted_keys_and_places_are_paths),
        cmocka_unit_test(everything_else_is_not),
        cmocka_unit_test(paths_find_what_is_there),
        cmocka_unit_test(paths_find_nothing_else),
        cmocka_unit_test(broken_bytes_are_a_missing_field),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
