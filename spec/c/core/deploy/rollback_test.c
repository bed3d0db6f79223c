/* A rollback goes to what was live before, a second one further back. */
#include "spec/c/core/deploy/deploy_harness.h"

static struct answer answered;

/* Asks where a rollback leads; the version, or NULL if it leads nowhere. */
static const char *target(const struct place *p, const char *module, const char *version,
                          struct mp_deploy_entry *e)
{
    static char text[MP_VERSION_BYTES_MAX + 1];
    answer_init(&answered);
    answered.is_good =
        mp_deploy_rollback_target(p->deploy, mp_slice_str(module), mp_slice_str(version), e,
                                  &answered.fault, &answered.message_text, &answered.hint_text);
    if (!answered.is_good)
        return NULL;
    assert_int_equal(e->action, MP_DEPLOY_DEPLOY);
    snprintf(text, sizeof(text), "%.*s", (int)e->version.size, (const char *)e->version.data);
    return text;
}

/* Rolls back, and says to what. */
static const char *back(struct place *p, const char *module, const char *version)
{
    struct mp_deploy_entry e;
    if (!target(p, module, version, &e))
        return NULL;
    make(p, (struct change){.module = module, .back_to = &e});
    return live(p, module);
}

static void assert_no_previous(const char *message)
{
    assert_refused(&answered, MP_CODE_FAILED_PRECONDITION, "NO_PREVIOUS", message,
                   "what there was: mpreg history m");
}

static void goes_further_back_each_time(void **state)
{
    (void)state;
    struct place p;
    must(place_open(&p, "n1"));
    deploy(&p, "m", "1.0.0");
    deploy(&p, "m", "1.1.0");
    deploy(&p, "m", "1.2.0");
    assert_string_equal(back(&p, "m", ""), "1.1.0");
    assert_string_equal(back(&p, "m", ""), "1.0.0");
    assert_null(back(&p, "m", ""));
    assert_no_previous("m 1.0.0 is the first that was deployed here");
    assert_string_equal(history(&p, "m"), "1.0.0 live, 1.1.0 superseded, 1.2.0 superseded, "
                                          "1.1.0 superseded, 1.0.0 superseded");
    place_close(&p);
}

static void does_not_meet_again_what_it_left(void **state)
{
    (void)state;
    struct place p;
    must(place_open(&p, "n1"));
    deploy(&p, "m", "1.0.0");
    deploy(&p, "m", "1.1.0");
    assert_string_equal(back(&p, "m", ""), "1.0.0");
    deploy(&p, "m", "1.2.0");
    assert_string_equal(back(&p, "m", ""), "1.0.0");
    assert_null(back(&p, "m", ""));
    place_close(&p);
}

static void passes_over_the_same_content(void **state)
{
    (void)state;
    struct place p;
    must(place_open(&p, "n1"));
    deploy(&p, "m", "1.0.0");
    deploy(&p, "m", "1.1.0");
    deploy(&p, "m", "1.1.0");
    assert_string_equal(back(&p, "m", ""), "1.0.0");
    place_close(&p);
}

/* Two that go back without knowing of each other go back once. */
static void goes_back_once_for_two_at_once(void **state)
{
    (void)state;
    struct place n1;
    struct place n2;
    must(place_open(&n1, "n1"));
    must(place_open(&n2, "n2"));
    for (unsigned i = 0; i < 3; i++)
        deploy(&n1, "m", i == 0 ? "1.0.0" : i == 1 ? "1.1.0" : "1.2.0");
    tell_all(&n1, &n2);
    assert_string_equal(back(&n1, "m", ""), "1.1.0");
    assert_string_equal(back(&n2, "m", ""), "1.1.0");
    tell_all(&n1, &n2);
    assert_string_equal(live(&n2, "m"), "1.1.0");
    assert_string_equal(back(&n2, "m", ""), "1.0.0");
    place_close(&n1);
    place_close(&n2);
}

static void brings_back_what_was_undeployed(void **state)
{
    (void)state;
    struct place p;
    must(place_open(&p, "n1"));
    deploy(&p, "m", "1.0.0");
    deploy(&p, "m", "1.1.0");
    undeploy(&p, "m");
    undeploy(&p, "m");
    assert_string_equal(back(&p, "m", ""), "1.1.0");
    assert_string_equal(back(&p, "m", ""), "1.0.0");
    undeploy(&p, "m"); /* of a rollback */
    assert_string_equal(back(&p, "m", ""), "1.0.0");
    deploy(&p, "m", "2.0.0");
    undeploy(&p, "m");
    deploy(&p, "m", "2.1.0");
    assert_string_equal(back(&p, "m", ""), "2.0.0"); /* over the undeploy */
    place_close(&p);
}

static void names_nothing_if_nothing_was(void **state)
{
    (void)state;
    struct place p;
    struct mp_deploy_entry e = {.place = 7};
    must(place_open(&p, "n1"));
    undeploy(&p, "m");
    assert_null(target(&p, "m", "", &e));
    assert_no_previous("m: nothing of it was ever live here");
    assert_int_equal(e.place, 7); /* untouched */
    place_close(&p);
}

static void goes_to_a_version(void **state)
{
    (void)state;
    struct place p;
    must(place_open(&p, "n1"));
    deploy(&p, "m", "1.0.0");
    deploy(&p, "m", "1.1.0");
    make(&p, (struct change){.module = "m", .version = "1.1.0+61626364", .content = "abcd"});
    deploy(&p, "m", "2.0.0");
    assert_string_equal(back(&p, "m", "^1.0"), "1.1.0+61626364"); /* the latest */
    assert_string_equal(back(&p, "m", "1.1.0"), "1.1.0");         /* another than what is live */
    assert_string_equal(back(&p, "m", "1.1.0+61626364"), "1.1.0+61626364");
    assert_string_equal(back(&p, "m", "2.0.0"), "2.0.0"); /* forwards too */
    assert_string_equal(back(&p, "m", ""), "1.1.0+61626364");
    assert_null(back(&p, "m", ">=3"));
    assert_refused(&answered, MP_CODE_FAILED_PRECONDITION, "NO_VERSION",
                   "no deploy of m to go back to matches >=3; 1.1.0+61626364 is live; "
                   "there are: 2.0.0, 1.1.0, 1.0.0",
                   "");
    undeploy(&p, "m");
    assert_string_equal(back(&p, "m", "1.1.0+61626364"), "1.1.0+61626364");
    assert_null(back(&p, "m", "about 1"));
    assert_refused(&answered, MP_CODE_INVALID_ARGUMENT, "BAD_OPTION",
                   "not a version constraint: about 1",
                   "parts such as =1.2.3 >=1.0 <2 ^1.2 ~1.2.3, joined by commas");
    place_close(&p);
}

static void names_a_few_versions(void **state)
{
    (void)state;
    struct place p;
    must(place_open(&p, "n1"));
    for (unsigned i = 0; i < 12; i++) {
        char version[8];
        snprintf(version, sizeof(version), "1.%u", i);
        deploy(&p, "m", version);
    }
    assert_null(back(&p, "m", "2"));
    assert_refused(&answered, MP_CODE_FAILED_PRECONDITION, "NO_VERSION",
                   "no deploy of m to go back to matches 2; 1.11 is live; there are: 1.10, 1.9, "
                   "1.8, 1.7, 1.6, 1.5, 1.4, 1.3 and 3 more",
                   "");
    place_close(&p);
}

static void knows_no_other_modules(void **state)
{
    (void)state;
    struct place p;
    must(place_open(&p, "n1"));
    assert_null(back(&p, "m", ""));
    assert_refused(&answered, MP_CODE_NOT_FOUND, "UNKNOWN_MODULE",
                   "no module or pipeline m was ever deployed here",
                   "mpreg modules lists what is deployed");
    deploy(&p, "quakes", "1.0.0");
    deploy(&p, "quake", "1.0.0");
    make(&p, (struct change){.module = "qukes", .version = "1.0.0", .only = "n2"});
    assert_null(back(&p, "quaks", ""));
    assert_refused(&answered, MP_CODE_NOT_FOUND, "UNKNOWN_MODULE",
                   "no module or pipeline quaks was ever deployed here", "did you mean quake?");
    assert_null(back(&p, "qukes", "")); /* it is for n2 */
    assert_refused(&answered, MP_CODE_NOT_FOUND, "UNKNOWN_MODULE",
                   "no module or pipeline qukes was ever deployed here", "did you mean quakes?");
    place_close(&p);
}

/* What counts on other nodes only is no target here, and a trial is left by going back. */
static void goes_back_within_its_scope(void **state)
{
    (void)state;
    struct place p;
    must(place_open(&p, "n1"));
    deploy(&p, "m", "1.0.0");
    make(&p, (struct change){.module = "m", .version = "1.1.0", .only = "n2"});
    make(&p, (struct change){.module = "m", .version = "1.2.0", .only = "n1"});
    assert_null(back(&p, "m", "1.1.0"));
    assert_string_equal(back(&p, "m", ""), "1.0.0");
    assert_null(back(&p, "m", ""));
    place_close(&p);
}

/* A rollback may come before the deploy that it names. */
static void goes_on_from_an_origin_that_is_missing(void **state)
{
    (void)state;
    struct place n1;
    struct place n2;
    struct mp_deploy_entry e;
    struct mp_buf told[4];
    must(place_open(&n1, "n1"));
    must(place_open(&n2, "n2"));
    for (size_t i = 0; i < 4; i++)
        told[i] = new_buf();
    make_told(&n1, (struct change){.module = "m", .version = "1.0.0"}, &told[0]);
    make_told(&n1, (struct change){.module = "m", .version = "1.1.0"}, &told[1]);
    make_told(&n1, (struct change){.module = "m", .version = "1.2.0"}, &told[2]);
    assert_string_equal(target(&n1, "m", "", &e), "1.1.0");
    const struct mp_deploy_stamp origin = e.stamp;
    make_told(&n1, (struct change){.module = "m", .back_to = &e}, &told[3]);
    (void)give(&n2, &told[3]);
    deploy(&n2, "m", "3.0.0");
    assert_string_equal(target(&n2, "m", "", &e), "1.1.0");
    assert_int_equal(e.stamp.epoch, origin.epoch);
    assert_int_equal(e.origin.epoch, 0);
    struct mp_buf made_up = new_buf();
    assert_int_equal(mp_deploy_put_entry(&made_up, &e), MP_OK);
    mp_buf_fini(&made_up);
    assert_string_equal(back(&n2, "m", ""), "1.1.0");
    assert_null(back(&n2, "m", ""));
    (void)give(&n2, &told[0]);
    (void)give(&n2, &told[2]);
    assert_string_equal(back(&n2, "m", ""), "1.0.0");
    for (size_t i = 0; i < 4; i++)
        mp_buf_fini(&told[i]);
    place_close(&n1);
    place_close(&n2);
}

/* Rolls back a name that a module and a pipeline have: "module pipeline" that are live then. */
static const char *both_back(struct place *p, const char *name, const char *version)
{
    static char text[2 * MP_VERSION_BYTES_MAX + 2];
    struct mp_deploy_entry e[2];
    if (!target(p, name, version, &e[0]))
        return NULL;
    uint32_t count = mp_deploy_rollback_partner(p->deploy, &e[0], &e[1]) ? 2 : 1;
    struct mp_buf told = new_buf();
    struct mp_buf nodes = new_buf();
    must(mp_mp_put_array(&told, count));
    for (uint32_t i = 0; i < count; i++) {
        const struct change c = {.module = name, .is_pipeline = e[i].is_pipeline, .back_to = &e[i]};
        const struct mp_deploy_entry made = entry_of(p, &c, &nodes);
        must(mp_deploy_put_entry(&told, &made));
    }
    assert_int_equal(give(p, &told).new_count, count);
    mp_buf_fini(&told);
    mp_buf_fini(&nodes);
    int size = snprintf(text, sizeof(text), "%s ", live(p, name));
    snprintf(text + size, sizeof(text) - (size_t)size, "%s", live_kind(p, name, true));
    return text;
}

static void goes_back_as_one_with_what_came_as_one(void **state)
{
    (void)state;
    struct place p;
    must(place_open(&p, "n1"));
    deploy_both(&p, "m", "1.0.0");
    deploy_both(&p, "m", "1.1.0");
    assert_string_equal(all_live(&p), "m 1.1.0, m 1.1.0");
    assert_string_equal(both_back(&p, "m", ""), "1.0.0 1.0.0");
    assert_null(both_back(&p, "m", ""));
    assert_string_equal(both_back(&p, "m", "1.1.0"), "1.1.0 1.1.0");
    assert_string_equal(history(&p, "m"),
                        "1.1.0 live, 1.1.0 live, 1.0.0 superseded, 1.0.0 superseded, "
                        "1.1.0 superseded, 1.1.0 superseded, 1.0.0 superseded, 1.0.0 superseded");
    place_close(&p);
}

static void goes_back_with_what_was_changed_last(void **state)
{
    (void)state;
    struct place p;
    must(place_open(&p, "n1"));
    deploy_both(&p, "m", "1.0.0");
    deploy_both(&p, "m", "1.1.0");
    make(&p, (struct change){.module = "m", .version = "1.2.0", .is_pipeline = true});
    assert_string_equal(both_back(&p, "m", ""), "1.1.0 1.1.0");
    assert_string_equal(both_back(&p, "m", ""), "1.0.0 1.0.0");
    deploy(&p, "m", "1.3.0");
    assert_string_equal(both_back(&p, "m", ""), "1.0.0 1.0.0");
    make(&p, (struct change){.module = "m", .is_pipeline = true});
    assert_string_equal(both_back(&p, "m", ""), "1.0.0 1.0.0");
    place_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(goes_further_back_each_time),
        cmocka_unit_test(does_not_meet_again_what_it_left),
        cmocka_unit_test(passes_over_the_same_content),
        cmocka_unit_test(goes_back_once_for_two_at_once),
        cmocka_unit_test(brings_back_what_was_undeployed),
        cmocka_unit_test(names_nothing_if_nothing_was),
        cmocka_unit_test(goes_to_a_version),
        cmocka_unit_test(names_a_few_versions),
        cmocka_unit_test(knows_no_other_modules),
        cmocka_unit_test(goes_back_within_its_scope),
        cmocka_unit_test(goes_on_from_an_origin_that_is_missing),
        cmocka_unit_test(goes_back_as_one_with_what_came_as_one),
        cmocka_unit_test(goes_back_with_what_was_changed_last),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
