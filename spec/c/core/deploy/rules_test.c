/* What may be deployed, under which version, and what is said if it may not. */
#include "spec/c/core/deploy/deploy_harness.h"

static struct mp_deploy_wish wish(const char *module, const char *version, const char *content)
{
    return (struct mp_deploy_wish){.module = mp_slice_str(module),
                                   .version = mp_slice_str(version),
                                   .hash = hash_of(content),
                                   .unit = hash_of(content)};
}

static struct answer ask(const struct place *p, struct mp_deploy_wish w)
{
    static struct answer a;
    answer_init(&a);
    a.is_good = mp_deploy_is_allowed(p->deploy, &w, &a.fault, &a.message_text, &a.hint_text);
    return a;
}

#define assert_no(p, w, ...)                                                                       \
    do {                                                                                           \
        struct answer no;                                                                          \
        struct mp_deploy_wish asked = (w);                                                         \
        answer_init(&no);                                                                          \
        no.is_good =                                                                               \
            mp_deploy_is_allowed((p)->deploy, &asked, &no.fault, &no.message_text, &no.hint_text); \
        assert_refused(&no, __VA_ARGS__);                                                          \
    } while (0)

static void allows_what_is_new(void **state)
{
    (void)state;
    struct place p;
    must(place_open(&p, "n1"));
    assert_true(ask(&p, wish("m", "1.0.0", "a")).is_good);
    assert_true(ask(&p, wish("m", "", "a")).is_good);
    deploy(&p, "m", "1.0.0");
    assert_true(ask(&p, wish("m", "1.0.1", "a")).is_good);
    assert_true(ask(&p, wish("m", "2.0.0-rc.1", "a")).is_good);
    assert_true(ask(&p, wish("m", "1.0.0", "1.0.0")).is_good); /* what is live already */
    assert_true(ask(&p, wish("m", "0.9.0", "1.0.0")).is_good); /* likewise */
    place_close(&p);
}

static void refuses_a_version_with_other_content(void **state)
{
    (void)state;
    struct place p;
    must(place_open(&p, "n1"));
    deploy(&p, "m", "1.0.0");
    deploy(&p, "m", "1.1.0");
    assert_no(&p, wish("m", "1.1", "abcd"), MP_CODE_ALREADY_EXISTS, "VERSION_REUSED",
              "m 1.1 was deployed with other content: 312e312e, and this is 61626364",
              "raise its _VERSION, or deploy it with --force");
    undeploy(&p, "m");
    assert_no(&p, wish("m", "1.0.0", "abcd"), MP_CODE_ALREADY_EXISTS, "VERSION_REUSED",
              "m 1.0.0 was deployed with other content: 312e302e, and this is 61626364",
              "raise its _VERSION, or deploy it with --force");
    assert_true(ask(&p, wish("m", "1.0.0", "1.0.0")).is_good);
    assert_true(ask(&p, wish("m", "0.5.0", "abcd")).is_good); /* nothing is live */
    assert_true(ask(&p, wish("w", "1.0.0", "abcd")).is_good);
    place_close(&p);
}

/* Also of what counts on other nodes only. */
static void knows_versions_of_trials(void **state)
{
    (void)state;
    struct place p;
    must(place_open(&p, "n1"));
    make(&p, (struct change){.module = "m", .version = "1.0.0", .only = "n2"});
    assert_int_equal(ask(&p, wish("m", "1.0.0", "abcd")).fault.code, MP_CODE_ALREADY_EXISTS);
    assert_true(ask(&p, wish("m", "0.9.0", "abcd")).is_good);
    place_close(&p);
}

static void refuses_a_lower_version(void **state)
{
    (void)state;
    struct place p;
    must(place_open(&p, "n1"));
    deploy(&p, "m", "1.10.0");
    assert_no(&p, wish("m", "1.9.0", "abcd"), MP_CODE_FAILED_PRECONDITION, "VERSION_LOWER",
              "m 1.9.0 is lower than 1.10.0, which is live",
              "raise its _VERSION, go back with mpreg rollback m, or deploy it with --force");
    assert_no(&p, wish("m", "", "abcd"), MP_CODE_FAILED_PRECONDITION, "VERSION_LOWER",
              "m 0.0.0+61626364 is lower than 1.10.0, which is live",
              "raise its _VERSION, go back with mpreg rollback m, or deploy it with --force");
    struct mp_deploy_wish forced = wish("m", "1.9.0", "abcd");
    forced.is_forced = true;
    assert_true(ask(&p, forced).is_good);
    place_close(&p);
}

static void counts_a_forced_version_as_another_one(void **state)
{
    (void)state;
    struct place p;
    must(place_open(&p, "n1"));
    make(&p, (struct change){.module = "m", .version = "1.0.0+6162", .content = "ab"});
    make(&p, (struct change){.module = "m", .version = "1.0.0+6364", .content = "cd"});
    assert_true(ask(&p, wish("m", "1.0.0", "ef")).is_good);
    deploy(&p, "w", "0.0.0+aa");
    assert_true(ask(&p, wish("w", "", "other")).is_good);
    place_close(&p);
}

static void keeps_to_what_is_expected(void **state)
{
    (void)state;
    struct place p;
    struct mp_deploy_wish w = wish("m", "1.1.0", "abcd");
    must(place_open(&p, "n1"));
    w.expect = mp_slice_str("none");
    assert_true(ask(&p, w).is_good);
    w.expect = mp_slice_str("312e302e");
    assert_no(&p, w, MP_CODE_FAILED_PRECONDITION, "EXPECTATION_FAILED",
              "m: expected 312e302e to be live, but nothing is",
              "somebody else changed it: mpreg history m");
    deploy(&p, "m", "1.0.0");
    assert_true(ask(&p, w).is_good);
    w.expect = mp_slice_str("312E302E3");
    assert_true(ask(&p, w).is_good);
    w.expect = mp_slice_str("312e302e4");
    assert_int_equal(ask(&p, w).fault.code, MP_CODE_FAILED_PRECONDITION);
    w.is_forced = true;
    w.expect = mp_slice_str("none");
    assert_no(&p, w, MP_CODE_FAILED_PRECONDITION, "EXPECTATION_FAILED",
              "m: expected nothing to be live, but "
              "1.0.0 (312e302e) is",
              "somebody else changed it: mpreg history m");
    undeploy(&p, "m");
    assert_true(ask(&p, w).is_good);
    place_close(&p);
}

static void refuses_what_cannot_be_expected(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "None", "312e302", "312e302g", "nothing",
        "312e302e300000000000000000000000000000000000000000000000000000000"};
    struct place p;
    must(place_open(&p, "n1"));
    for (size_t i = 0; i < MP_ARRAY_SIZE(bad); i++) {
        struct mp_deploy_wish w = wish("m", "1.1.0", "abcd");
        w.expect = mp_slice_str(bad[i]);
        const struct answer a = ask(&p, w);
        assert_int_equal(a.fault.code, MP_CODE_INVALID_ARGUMENT);
        assert_true(mp_slice_is(a.fault.reason, "BAD_OPTION"));
    }
    place_close(&p);
}

static void keeps_modules_and_pipelines_apart(void **state)
{
    (void)state;
    struct place p;
    struct mp_deploy_wish w = wish("m", "2.0.0", "abcd");
    must(place_open(&p, "n1"));
    deploy(&p, "m", "1.0.0");
    w.is_pipeline = true;
    w.version = mp_slice_str("0.5.0");
    assert_true(ask(&p, w).is_good);
    w.expect = mp_slice_str("none");
    assert_true(ask(&p, w).is_good);
    make(&p, (struct change){.module = "m", .version = "3.0.0", .is_pipeline = true});
    assert_int_equal(ask(&p, w).fault.code, MP_CODE_FAILED_PRECONDITION);
    assert_true(ask(&p, wish("m", "2.0.0", "x")).is_good);
    assert_true(ask(&p, wish("m", "3.0.0", "x")).is_good);
    assert_string_equal(all_live(&p), "m 1.0.0, m 3.0.0");
    place_close(&p);
}

static void refuses_what_is_no_version(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "one", "1.2.3.4", "1.0.0-a23456789a123456789a123456789a123456789a123456789a1234567890"};
    struct place p;
    must(place_open(&p, "n1"));
    for (size_t i = 0; i < MP_ARRAY_SIZE(bad); i++) {
        const struct answer a = ask(&p, wish("m", bad[i], "abcd"));
        assert_int_equal(a.fault.code, MP_CODE_INVALID_ARGUMENT);
        assert_true(mp_slice_is(a.fault.reason, "BAD_VERSION"));
    }
    place_close(&p);
}

static void refuses_more_names_than_are_kept(void **state)
{
    (void)state;
    struct place p;
    must(place_open(&p, "n1"));
    for (unsigned i = 0; i < MP_MODULES_MAX; i++) {
        char name[16];
        snprintf(name, sizeof(name), "m%u", i);
        undeploy(&p, name);
    }
    assert_true(ask(&p, wish("m7", "1.0.0", "a")).is_good);
    assert_no(&p, wish("other", "1.0.0", "a"), MP_CODE_RESOURCE_EXHAUSTED, "TOO_MANY_MODULES",
              "other: there are modules of 4096 names already, and more are not kept", "");
    place_close(&p);
}

static const char *version_of(const char *version, bool is_forced, enum mp_err expected)
{
    static char room[MP_VERSION_BYTES_MAX + 1];
    struct mp_text text;
    struct mp_deploy_wish w = wish("m", version, "abcd");
    w.is_forced = is_forced;
    mp_text_init(&text, room, sizeof(room));
    assert_int_equal(mp_deploy_version(&w, &text), expected);
    return room;
}

static void marks_versions_with_the_hash(void **state)
{
    (void)state;
    assert_string_equal(version_of("1.2.0", false, MP_OK), "1.2.0");
    assert_string_equal(version_of("1.2.0", true, MP_OK), "1.2.0+61626364");
    assert_string_equal(version_of("1.2.0-rc.1+b7", true, MP_OK), "1.2.0-rc.1+b7.61626364");
    assert_string_equal(version_of("", false, MP_OK), "0.0.0+61626364");
    assert_string_equal(version_of("", true, MP_OK), "0.0.0+61626364");
    assert_string_equal(version_of("x", false, MP_EINVAL), "");
    const char *longest = "1.0.0-a23456789a123456789a123456789a123456789a123456789";
    assert_int_equal(strlen(longest), 55);
    assert_int_equal(strlen(version_of(longest, true, MP_OK)), 64);
    assert_string_equal(
        version_of("1.0.0-a23456789a123456789a123456789a123456789a1234567890", true, MP_EINVAL),
        "");
}

static void gives_rising_stamps(void **state)
{
    (void)state;
    struct place p;
    uint64_t wall = (uint64_t)WALL_MS * 1024;
    must(place_open(&p, "n1"));
    deploy(&p, "m", "1.0.0");
    assert_int_equal(mp_deploy_next_epoch(p.deploy, WALL_MS), wall + 1);
    assert_int_equal(mp_deploy_next_epoch(p.deploy, WALL_MS - 5000), wall + 1);
    assert_int_equal(mp_deploy_next_epoch(p.deploy, WALL_MS + 1), wall + 1024);
    for (unsigned i = 0; i < 2000; i++) /* more in one ms than the count has room for */
        undeploy(&p, "m");
    assert_int_equal(mp_deploy_next_epoch(p.deploy, WALL_MS), wall + 2001);
    place_close(&p);
}

static void names_what_was_before(void **state)
{
    (void)state;
    struct place p;
    struct mp_deploy_entry e = {.module = mp_slice_str("m")};
    must(place_open(&p, "n1"));
    mp_deploy_set_parent(p.deploy, &e);
    assert_int_equal(e.parent.epoch, 0);
    assert_int_equal(e.previous.size, 0);
    deploy(&p, "m", "1.0.0");
    uint64_t first = mp_deploy_next_epoch(p.deploy, 0) - 1;
    mp_deploy_set_parent(p.deploy, &e);
    assert_int_equal(e.parent.epoch, first);
    assert_true(mp_slice_equal(e.previous, hash_of("1.0.0")));
    /* A trial elsewhere is known, and what it replaced there is live here. */
    make(&p, (struct change){.module = "m", .version = "1.1.0", .only = "n2"});
    mp_deploy_set_parent(p.deploy, &e);
    assert_int_equal(e.parent.epoch, first + 1);
    assert_true(mp_slice_equal(e.previous, hash_of("1.0.0")));
    undeploy(&p, "m");
    mp_deploy_set_parent(p.deploy, &e);
    assert_int_equal(e.parent.epoch, first + 2);
    assert_int_equal(e.previous.size, 0);
    place_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(allows_what_is_new),
        cmocka_unit_test(refuses_a_version_with_other_content),
        cmocka_unit_test(knows_versions_of_trials),
        cmocka_unit_test(refuses_a_lower_version),
        cmocka_unit_test(counts_a_forced_version_as_another_one),
        cmocka_unit_test(keeps_to_what_is_expected),
        cmocka_unit_test(refuses_what_cannot_be_expected),
        cmocka_unit_test(keeps_modules_and_pipelines_apart),
        cmocka_unit_test(refuses_what_is_no_version),
        cmocka_unit_test(refuses_more_names_than_are_kept),
        cmocka_unit_test(marks_versions_with_the_hash),
        cmocka_unit_test(gives_rising_stamps),
        cmocka_unit_test(names_what_was_before),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
