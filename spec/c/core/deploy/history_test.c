/* A history says of each entry whether it is live, was superseded by somebody who knew it, or was
 * overtaken by somebody who did not. */
#include "spec/c/core/deploy/deploy_harness.h"

struct two {
    struct place n1;
    struct place n2;
};

static void open_two(struct two *t)
{
    must(place_open(&t->n1, "n1"));
    must(place_open(&t->n2, "n2"));
}

static void close_two(struct two *t)
{
    place_close(&t->n1);
    place_close(&t->n2);
}

static void join(struct two *t)
{
    tell_all(&t->n1, &t->n2);
    tell_all(&t->n2, &t->n1);
    assert_int_equal(mp_deploy_digest(t->n1.deploy), mp_deploy_digest(t->n2.deploy));
}

static void assert_history(const struct two *t, const char *expected)
{
    assert_string_equal(history(&t->n1, "m"), expected);
    assert_string_equal(history(&t->n2, "m"), expected);
}

static void names_what_was_superseded(void **state)
{
    (void)state;
    struct two t;
    open_two(&t);
    deploy(&t.n1, "m", "1.0.0");
    join(&t);
    deploy(&t.n2, "m", "1.1.0");
    join(&t);
    undeploy(&t.n1, "m");
    join(&t);
    assert_history(&t, "nil live, 1.1.0 superseded, 1.0.0 superseded");
    assert_false(mp_deploy_is_overtaken_lately(t.n1.deploy, mp_slice_str("m"), false, WALL_MS));
    close_two(&t);
}

static void names_what_was_overtaken(void **state)
{
    (void)state;
    struct two t;
    open_two(&t);
    deploy(&t.n1, "m", "1.0.0");
    join(&t);
    deploy(&t.n1, "m", "1.1.0");
    deploy(&t.n1, "m", "1.2.0");
    t.n2.wall_ms += 1;
    deploy(&t.n2, "m", "2.0.0");
    join(&t);
    assert_history(&t, "2.0.0 live, 1.2.0 overtaken, 1.1.0 overtaken, 1.0.0 superseded");
    /* It stays so, whoever goes on from there. */
    deploy(&t.n1, "m", "2.1.0");
    join(&t);
    assert_history(&t, "2.1.0 live, 2.0.0 superseded, 1.2.0 overtaken, 1.1.0 overtaken, "
                       "1.0.0 superseded");
    close_two(&t);
}

/* Two first deploys of a module do not know of each other either. */
static void names_a_first_deploy_that_was_overtaken(void **state)
{
    (void)state;
    struct two t;
    open_two(&t);
    deploy(&t.n1, "m", "1.0.0");
    deploy(&t.n2, "m", "2.0.0");
    deploy(&t.n2, "w", "2.0.0");
    join(&t);
    assert_history(&t, "2.0.0 live, 1.0.0 overtaken");
    assert_false(mp_deploy_is_overtaken_lately(t.n1.deploy, mp_slice_str("w"), false, WALL_MS));
    close_two(&t);
}

/* n2 tries a version alone; n1, which is not in that scope, knows and deploys to all. */
static void does_not_take_a_trial_for_overtaken(void **state)
{
    (void)state;
    struct two t;
    open_two(&t);
    deploy(&t.n1, "m", "1.0.0");
    join(&t);
    make(&t.n2, (struct change){.module = "m", .version = "1.1.0", .only = "n2"});
    join(&t);
    assert_string_equal(live(&t.n1, "m"), "1.0.0");
    assert_string_equal(live(&t.n2, "m"), "1.1.0");
    assert_string_equal(history(&t.n1, "m"), "1.1.0 superseded, 1.0.0 live");
    assert_string_equal(history(&t.n2, "m"), "1.1.0 live, 1.0.0 superseded");
    deploy(&t.n1, "m", "1.2.0");
    join(&t);
    assert_history(&t, "1.2.0 live, 1.1.0 superseded, 1.0.0 superseded");
    close_two(&t);
}

static void takes_a_trial_that_nobody_knew_for_overtaken(void **state)
{
    (void)state;
    struct two t;
    open_two(&t);
    deploy(&t.n1, "m", "1.0.0");
    join(&t);
    make(&t.n2, (struct change){.module = "m", .version = "1.1.0", .only = "n2"});
    t.n1.wall_ms += 1;
    deploy(&t.n1, "m", "1.2.0");
    join(&t);
    assert_history(&t, "1.2.0 live, 1.1.0 overtaken, 1.0.0 superseded");
    close_two(&t);
}

static void marks_what_was_overtaken_for_a_day(void **state)
{
    (void)state;
    struct two t;
    const struct mp_slice m = mp_slice_str("m");
    const struct mp_deploy_stamp first = {(uint64_t)WALL_MS * 1024, mp_slice_str("n1")};
    const struct mp_deploy_stamp second = {(uint64_t)WALL_MS * 1024, mp_slice_str("n2")};
    const struct mp_deploy_stamp other = {(uint64_t)WALL_MS * 1024 + 1, mp_slice_str("n2")};
    open_two(&t);
    deploy(&t.n1, "m", "1.0.0");
    deploy(&t.n2, "m", "2.0.0");
    join(&t);
    const struct mp_deploy *d = t.n1.deploy;
    assert_true(mp_deploy_is_overtaken_lately(d, m, false, WALL_MS - 1));
    assert_true(mp_deploy_is_overtaken_lately(d, m, false, WALL_MS + MP_DEPLOY_MARKED_MS));
    assert_false(mp_deploy_is_overtaken_lately(d, m, false, WALL_MS + MP_DEPLOY_MARKED_MS + 1));
    assert_false(mp_deploy_is_overtaken_lately(d, mp_slice_str("w"), false, WALL_MS));
    assert_true(mp_deploy_is_overtaken(d, m, false, &first));
    assert_false(mp_deploy_is_overtaken(d, m, false, &second));
    assert_false(mp_deploy_is_overtaken(d, m, false, &other));
    assert_false(mp_deploy_is_overtaken(d, mp_slice_str("w"), false, &first));
    close_two(&t);
}

static void assert_int(struct mp_slice map, const char *key, int64_t expected)
{
    int64_t v;
    must(mp_mp_get_int(value_of(map, key), &v));
    assert_int_equal(v, expected);
}

static void writes_a_document(void **state)
{
    (void)state;
    struct place p;
    struct mp_buf b = new_buf();
    struct mp_slice entry;
    uint32_t count;
    struct mp_mp_reader r;
    must(place_open(&p, "n1"));
    assert_int_equal(mp_deploy_put_history(p.deploy, mp_slice_str("m"), &b), MP_ENOENT);
    deploy(&p, "m", "1.0.0");
    p.wall_ms += 5;
    make(&p, (struct change){.module = "m", .version = "1.1.0", .skip = "n2 n3"});
    undeploy(&p, "m");
    must(mp_deploy_put_history(p.deploy, mp_slice_str("m"), &b));
    must(mp_mp_check(mp_buf_slice(&b)));
    const struct mp_slice entries = value_of(mp_buf_slice(&b), "entries");
    must(mp_mp_array_get(entries, 2, &entry));
    assert_int(entry, "epoch", WALL_MS * 1024);
    assert_int(entry, "at", WALL_MS);
    assert_true(mp_slice_is(text_of(entry, "action"), "deploy"));
    assert_true(mp_slice_is(text_of(entry, "version"), "1.0.0"));
    assert_true(mp_slice_is(text_of(entry, "hash"),
                            "312e302e30000000000000000000000000000000000000000000000000000000"));
    assert_true(mp_slice_is(text_of(entry, "previous"), "nil"));
    assert_true(mp_slice_is(text_of(entry, "by"), "ada@host"));
    assert_true(mp_slice_is(text_of(entry, "node"), "n1"));
    assert_true(mp_slice_is(text_of(entry, "state"), "superseded"));
    assert_true(mp_slice_is(text_of(entry, "kind"), "module"));
    must(mp_mp_get_map(entry, &count, &r));
    assert_int_equal(count, 10);
    must(mp_mp_array_get(entries, 1, &entry));
    assert_int(entry, "at", WALL_MS + 5);
    assert_true(mp_slice_is(text_of(entry, "previous"),
                            "312e302e30000000000000000000000000000000000000000000000000000000"));
    assert_true(mp_slice_is(text_of(entry, "scope"), "skip"));
    must(mp_mp_get_array(value_of(entry, "nodes"), &count, &r));
    assert_int_equal(count, 2);
    must(mp_mp_array_get(entries, 0, &entry));
    assert_int(entry, "epoch", (WALL_MS + 5) * 1024 + 1);
    assert_true(mp_slice_is(text_of(entry, "action"), "undeploy"));
    assert_true(mp_slice_is(text_of(entry, "version"), "nil"));
    assert_true(mp_slice_is(text_of(entry, "hash"), "nil"));
    assert_true(mp_slice_is(text_of(entry, "state"), "live"));
    mp_buf_fini(&b);
    place_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_what_was_superseded),
        cmocka_unit_test(names_what_was_overtaken),
        cmocka_unit_test(names_a_first_deploy_that_was_overtaken),
        cmocka_unit_test(does_not_take_a_trial_for_overtaken),
        cmocka_unit_test(takes_a_trial_that_nobody_knew_for_overtaken),
        cmocka_unit_test(marks_what_was_overtaken_for_a_day),
        cmocka_unit_test(writes_a_document),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
