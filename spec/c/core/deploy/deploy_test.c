/* Entries are taken in once, in whatever order, and what is live follows from the set of them. */
#include "spec/c/core/deploy/deploy_harness.h"
#include "src/base/defects.h"

static void has_nothing_at_first(void **state)
{
    (void)state;
    struct place p;
    struct mp_deploy_entry e;
    must(place_open(&p, "n1"));
    assert_string_equal(live(&p, "m"), "never");
    assert_false(mp_deploy_live_at(p.deploy, 0, &e));
    assert_int_equal(mp_deploy_digest(p.deploy), 0);
    assert_int_equal(mp_deploy_next_epoch(p.deploy, WALL_MS), (uint64_t)WALL_MS * 1024);
    assert_int_equal(mp_deploy_next_epoch(p.deploy, -5), 1);
    place_close(&p);
}

static void refuses_a_node_without_a_name(void **state)
{
    (void)state;
    struct mp_deploy *d = NULL;
    const struct mp_deploy_config cfg = {.node = mp_slice_str("n.1")};
    assert_int_equal(mp_deploy_new(&d, &cfg, plain_alloc()), MP_EINVAL);
    assert_null(d);
    mp_deploy_free(d);
}

static void makes_the_last_entry_live(void **state)
{
    (void)state;
    struct place p;
    must(place_open(&p, "n1"));
    deploy(&p, "m", "1.0.0");
    assert_string_equal(live(&p, "m"), "1.0.0");
    deploy(&p, "m", "1.1.0");
    deploy(&p, "b", "2.0.0");
    deploy(&p, "a.b", "3.0.0");
    make(&p, (struct change){.module = "a", .version = "1.0.0", .is_pipeline = true});
    assert_string_equal(all_live(&p), "a 1.0.0, a.b 3.0.0, b 2.0.0, m 1.1.0");
    undeploy(&p, "b");
    assert_string_equal(live(&p, "b"), "none");
    assert_string_equal(all_live(&p), "a 1.0.0, a.b 3.0.0, m 1.1.0");
    deploy(&p, "b", "2.0.0");
    assert_string_equal(all_live(&p), "a 1.0.0, a.b 3.0.0, b 2.0.0, m 1.1.0");
    place_close(&p);
}

/* n1 makes three changes of a module, and n2 hears of them. */
struct three {
    struct place n1;
    struct place n2;
    struct mp_buf told[3];
};

static void open_three(struct three *t)
{
    static const char *const versions[] = {"1.0.0", "1.1.0", NULL};
    must(place_open(&t->n1, "n1"));
    must(place_open(&t->n2, "n2"));
    for (size_t i = 0; i < 3; i++) {
        t->told[i] = new_buf();
        make_told(&t->n1, (struct change){.module = "m", .version = versions[i]}, &t->told[i]);
    }
}

static void close_three(struct three *t)
{
    for (size_t i = 0; i < 3; i++)
        mp_buf_fini(&t->told[i]);
    place_close(&t->n1);
    place_close(&t->n2);
}

static void takes_entries_in_any_order(void **state)
{
    (void)state;
    static const unsigned orders[6][3] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2},
                                          {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};
    for (size_t i = 0; i < 6; i++) {
        struct three t;
        open_three(&t);
        for (size_t k = 0; k < 3; k++) {
            const struct mp_deploy_effects out = give(&t.n2, &t.told[orders[i][k]]);
            assert_int_equal(out.new_count, 1);
            assert_true(mp_slice_equal(out.fresh, mp_buf_slice(&t.told[orders[i][k]])));
            assert_int_equal(give(&t.n2, &t.told[orders[i][k]]).new_count, 0);
        }
        assert_string_equal(live(&t.n2, "m"), "none");
        assert_string_equal(history(&t.n2, "m"), "nil live, 1.1.0 superseded, 1.0.0 superseded");
        assert_int_equal(mp_deploy_digest(t.n1.deploy), mp_deploy_digest(t.n2.deploy));
        close_three(&t);
    }
}

static void says_when_what_is_live_changed(void **state)
{
    (void)state;
    struct three t;
    open_three(&t);
    assert_true(give(&t.n2, &t.told[1]).is_changed);
    assert_false(give(&t.n2, &t.told[0]).is_changed); /* earlier than what is live */
    assert_false(give(&t.n2, &t.told[1]).is_changed); /* known */
    assert_true(give(&t.n2, &t.told[2]).is_changed);
    close_three(&t);
    open_three(&t);
    assert_false(give(&t.n2, &t.told[2]).is_changed); /* nothing is still nothing */
    assert_int_equal(mp_deploy_live_count(t.n2.deploy), 0);
    close_three(&t);
}

static void tells_what_is_new_alone(void **state)
{
    (void)state;
    struct three t;
    struct mp_buf all = new_buf();
    struct mp_slice entries;
    open_three(&t);
    must(mp_mp_put_array(&all, 3));
    for (size_t i = 0; i < 3; i++) {
        must(mp_mp_array_get(mp_buf_slice(&t.told[i]), 0, &entries));
        must(mp_buf_append(&all, entries));
    }
    (void)give(&t.n2, &t.told[1]);
    struct mp_deploy_effects out = give(&t.n2, &all);
    assert_int_equal(out.new_count, 2);
    must(mp_mp_check(out.fresh));
    assert_int_equal(out.fresh.size, t.told[0].size + t.told[2].size - 1);
    out = give(&t.n2, &all);
    assert_int_equal(out.fresh.size, 0);
    assert_false(out.is_changed);
    mp_buf_fini(&all);
    close_three(&t);
}

static void lists_many_fresh_ones(void **state)
{
    (void)state;
    static const uint32_t counts[] = {15, 16, 300, 66000};
    struct place n1;
    struct place n2;
    must(place_open(&n1, "n1"));
    for (size_t i = 0; i < MP_ARRAY_SIZE(counts); i++) {
        struct mp_buf all = new_buf();
        uint32_t count = 0;
        struct mp_mp_reader r;
        must(place_open(&n2, "n2"));
        must(mp_mp_put_array(&all, counts[i]));
        for (uint32_t k = 0; k < counts[i]; k++) {
            const struct mp_deploy_entry e = {.module = mp_slice_str("m"),
                                              .stamp = {k + 1, mp_slice_str("n1")},
                                              .action = MP_DEPLOY_UNDEPLOY};
            must(mp_deploy_put_entry(&all, &e));
        }
        const struct mp_deploy_effects out = give(&n2, &all);
        assert_int_equal(out.new_count, counts[i]);
        must(mp_mp_get_array(out.fresh, &count, &r));
        assert_int_equal(count, counts[i]);
        assert_true(mp_slice_equal(out.fresh, mp_buf_slice(&all)));
        place_close(&n2);
        mp_buf_fini(&all);
    }
    place_close(&n1);
}

static void orders_one_moment_by_node(void **state)
{
    (void)state;
    struct place n1;
    struct place n2;
    must(place_open(&n1, "n1"));
    must(place_open(&n2, "n2"));
    deploy(&n1, "m", "1.0.0");
    deploy(&n2, "m", "2.0.0");
    tell_all(&n1, &n2);
    tell_all(&n2, &n1);
    assert_string_equal(live(&n1, "m"), "2.0.0");
    assert_string_equal(live(&n2, "m"), "2.0.0");
    place_close(&n1);
    place_close(&n2);
}

/* The simulator may plant this, to show that somebody notices. */
static void takes_an_older_entry_for_live_with_the_defect(void **state)
{
    (void)state;
    struct three t;
    struct mp_deploy *d;
    struct mp_deploy_effects out;
    struct mp_deploy_entry e;
    const struct mp_deploy_config cfg = {.node = mp_slice_str("n3"),
                                         .defects = 1ull << MP_DEFECT_OLDER_ENTRY_WINS};
    open_three(&t);
    must(mp_deploy_new(&d, &cfg, plain_alloc()));
    for (size_t i = 2; i-- > 0;) {
        const struct mp_deploy_event ev = {MP_DEPLOY_ENTRIES, WALL_MS, mp_buf_slice(&t.told[i])};
        must(mp_deploy_step(d, &ev, &out));
    }
    assert_true(mp_deploy_find(d, mp_slice_str("m"), false, &e));
    assert_true(mp_slice_is(e.version, "1.0.0"));
    mp_deploy_free(d);
    close_three(&t);
}

static void keeps_to_scopes(void **state)
{
    (void)state;
    struct place nodes[3];
    static const char *const names[] = {"n1", "n2", "n3"};
    for (size_t i = 0; i < 3; i++)
        must(place_open(&nodes[i], names[i]));
    deploy(&nodes[0], "m", "1.0.0");
    make(&nodes[0], (struct change){.module = "m", .version = "1.1.0", .only = "n2 n9"});
    make(&nodes[0], (struct change){.module = "w", .version = "1.0.0", .skip = "n2"});
    tell_all(&nodes[0], &nodes[1]);
    tell_all(&nodes[0], &nodes[2]);
    assert_string_equal(all_live(&nodes[0]), "m 1.0.0, w 1.0.0");
    assert_string_equal(all_live(&nodes[1]), "m 1.1.0");
    assert_string_equal(live(&nodes[1], "w"), "never");
    assert_string_equal(all_live(&nodes[2]), "m 1.0.0, w 1.0.0");
    for (size_t i = 0; i < 3; i++)
        place_close(&nodes[i]);
}

static void refuses_what_is_ahead_of_the_clock(void **state)
{
    (void)state;
    struct place n1;
    struct place n2;
    struct mp_buf told = new_buf();
    must(place_open(&n1, "n1"));
    must(place_open(&n2, "n2"));
    n1.wall_ms += MP_DEPLOY_AHEAD_MS;
    make_told(&n1, (struct change){.module = "m", .version = "1.0.0"}, &told);
    assert_int_equal(give(&n2, &told).new_count, 1);
    n1.wall_ms += 1;
    make_told(&n1, (struct change){.module = "m", .version = "1.1.0"}, &told);
    struct mp_deploy_effects out = give(&n2, &told);
    assert_int_equal(out.new_count, 0);
    assert_int_equal(out.ahead_count, 1);
    assert_int_equal(out.ahead_epoch, (uint64_t)n1.wall_ms * 1024);
    assert_false(out.is_changed);
    /* The clock of who is asked goes on from what it knows, not from what it refused. */
    assert_int_equal(mp_deploy_next_epoch(n2.deploy, n2.wall_ms),
                     (uint64_t)(n1.wall_ms - 1) * 1024 + 1);
    must(give_as(&n2, MP_DEPLOY_RESTORED, mp_buf_slice(&told), &out));
    assert_int_equal(out.new_count, 1);
    assert_int_equal(out.ahead_count, 0);
    assert_int_equal(out.fresh.size, 0);
    assert_string_equal(live(&n2, "m"), "1.1.0");
    mp_buf_fini(&told);
    place_close(&n1);
    place_close(&n2);
}

static void drops_what_is_malformed(void **state)
{
    (void)state;
    struct three t;
    struct mp_buf b = new_buf();
    struct mp_deploy_effects out;
    open_three(&t);
    must(give_as(&t.n2, MP_DEPLOY_ENTRIES, mp_slice_of(NULL, 0), &out));
    assert_non_null(out.dropped);
    must(give_as(&t.n2, MP_DEPLOY_ENTRIES, mp_slice_str("\x81\x01\x02"), &out));
    assert_non_null(out.dropped);
    /* One that is none is passed over, and the rest counts. */
    must(mp_mp_put_array(&b, 2));
    must(mp_mp_put_text(&b, "?"));
    must(mp_buf_append(&b, mp_slice_of(t.told[0].data + 1, t.told[0].size - 1)));
    out = give(&t.n2, &b);
    assert_string_equal(out.dropped, "an entry is malformed");
    assert_int_equal(out.new_count, 1);
    /* A cut ends it. */
    b.size--;
    out = give(&t.n2, &b);
    assert_string_equal(out.dropped, "a list of entries is cut off");
    mp_buf_fini(&b);
    close_three(&t);
}

static void keeps_the_first_of_one_stamp(void **state)
{
    (void)state;
    struct place p;
    struct mp_buf first = new_buf();
    struct mp_buf second = new_buf();
    struct mp_deploy_entry e = {.module = mp_slice_str("m"),
                                .stamp = {5, mp_slice_str("n1")},
                                .action = MP_DEPLOY_UNDEPLOY};
    must(place_open(&p, "n1"));
    must(mp_mp_put_array(&first, 1));
    must(mp_deploy_put_entry(&first, &e));
    e.by = mp_slice_str("eve");
    must(mp_mp_put_array(&second, 1));
    must(mp_deploy_put_entry(&second, &e));
    assert_int_equal(give(&p, &first).new_count, 1);
    uint64_t digest = mp_deploy_digest(p.deploy);
    const struct mp_deploy_effects out = give(&p, &second);
    assert_string_equal(out.dropped, "two entries of a module have one stamp");
    assert_int_equal(out.new_count, 0);
    assert_int_equal(mp_deploy_digest(p.deploy), digest);
    mp_buf_fini(&first);
    mp_buf_fini(&second);
    place_close(&p);
}

static void keeps_so_many_names(void **state)
{
    (void)state;
    struct place p;
    struct mp_buf b = new_buf();
    must(place_open(&p, "n1"));
    must(mp_mp_put_array(&b, MP_MODULES_MAX + 1));
    for (uint32_t i = 0; i <= MP_MODULES_MAX; i++) {
        char name[16];
        snprintf(name, sizeof(name), "m%u", i);
        const struct mp_deploy_entry e = {.module = mp_slice_str(name),
                                          .stamp = {i + 1, mp_slice_str("n1")},
                                          .action = MP_DEPLOY_UNDEPLOY};
        must(mp_deploy_put_entry(&b, &e));
    }
    const struct mp_deploy_effects out = give(&p, &b);
    assert_string_equal(out.dropped, "there are too many modules");
    assert_int_equal(out.new_count, MP_MODULES_MAX);
    assert_string_equal(live(&p, "m4095"), "none");
    assert_string_equal(live(&p, "m4096"), "never");
    mp_buf_fini(&b);
    place_close(&p);
}

/* An entry costs its bytes, 24 more, and room to grow. */
static void keeps_entries_compactly(void **state)
{
    (void)state;
    struct place p;
    struct mp_buf told = new_buf();
    must(place_open(&p, "n1"));
    size_t bytes = 0;
    for (unsigned i = 0; i < 4096; i++) {
        make_told(&p, (struct change){.module = "m", .version = "1.0.0"}, &told);
        bytes += told.size - 1;
    }
    assert_true(p.memory.live_bytes < bytes + 4096 * 24 + 4096);
    mp_buf_fini(&told);
    place_close(&p);
}

/* --- without memory --- */

/* Fails each allocation in turn: what was taken in is told, and the rest comes again. */
static void survives_a_lack_of_memory(void **state)
{
    (void)state;
    struct place source;
    struct mp_buf all = new_buf();
    const struct mp_slice none = mp_slice_str("\x90");
    bool differs;
    must(place_open(&source, "n1"));
    for (unsigned i = 0; i < 40; i++) {
        char module[8];
        char version[8];
        snprintf(module, sizeof(module), "m%u", i % 7);
        snprintf(version, sizeof(version), "1.%u", i);
        deploy(&source, module, version);
    }
    must(mp_deploy_put_differences(source.deploy, none, SIZE_MAX, &all, &differs));
    size_t n = 0;
    for (bool is_done = false; !is_done; n++) {
        struct place p;
        struct mp_deploy_effects out;
        struct mp_buf kept = new_buf();
        enum mp_err err = place_open(&p, "n2");
        must(err);
        p.memory.fail_at = p.memory.count + n;
        err = give_as(&p, MP_DEPLOY_ENTRIES, mp_buf_slice(&all), &out);
        is_done = err == MP_OK;
        assert_true(is_done || err == MP_ENOMEM);
        assert_null(out.dropped);
        uint32_t first = out.new_count;
        if (out.fresh.size != 0)
            must(mp_buf_append(&kept, out.fresh));
        p.memory.fail_at = SPEC_NEVER;
        /* What was told as fresh is what is known, and no more. */
        struct place copy;
        must(place_open(&copy, "n3"));
        if (first != 0)
            assert_int_equal(give(&copy, &kept).new_count, first);
        assert_int_equal(mp_deploy_digest(copy.deploy), mp_deploy_digest(p.deploy));
        place_close(&copy);
        assert_int_equal(give(&p, &all).new_count, 40 - first);
        assert_int_equal(mp_deploy_digest(p.deploy), mp_deploy_digest(source.deploy));
        assert_string_equal(history(&p, "m3"), history(&source, "m3"));
        mp_buf_fini(&kept);
        place_close(&p);
    }
    assert_true(n > 40);
    mp_buf_fini(&all);
    place_close(&source);
}

static void needs_memory_for_one_block_at_first(void **state)
{
    (void)state;
    struct spec_alloc memory = {.fail_at = 0};
    struct mp_alloc alloc = spec_alloc_of(&memory);
    struct mp_deploy *d = NULL;
    const struct mp_deploy_config cfg = {.node = mp_slice_str("n1")};
    assert_int_equal(mp_deploy_new(&d, &cfg, &alloc), MP_ENOMEM);
    assert_null(d);
    assert_int_equal(memory.live_bytes, 0);
}

/* What is written goes into a buffer whole or not at all. */
static void writes_all_or_nothing(void **state)
{
    (void)state;
    struct place p;
    struct spec_alloc memory = {.fail_at = SPEC_NEVER};
    struct mp_alloc alloc = spec_alloc_of(&memory);
    struct mp_deploy_entry e;
    must(place_open(&p, "n1"));
    for (unsigned i = 0; i < 30; i++)
        deploy(&p, i % 2 == 0 ? "a" : "b", "1.0.0");
    assert_true(mp_deploy_find(p.deploy, mp_slice_str("a"), false, &e));
    for (unsigned what = 0; what < 4; what++) {
        enum mp_err err = MP_ENOMEM;
        for (size_t n = 0; err != MP_OK; n++) {
            struct mp_buf b;
            bool differs;
            mp_buf_init(&b, &alloc, 0);
            memory.fail_at = SPEC_NEVER;
            must(mp_buf_append_byte(&b, 7));
            memory.fail_at = memory.count + n;
            err = what == 0   ? mp_deploy_put_entry(&b, &e)
                  : what == 1 ? mp_deploy_put_history(p.deploy, mp_slice_str("a"), &b)
                  : what == 2
                      ? mp_deploy_put_summary(p.deploy, &b)
                      : mp_deploy_put_differences(p.deploy, mp_slice_str("\x90"), 1, &b, &differs);
            assert_true(err == MP_OK || (err == MP_ENOMEM && b.size == 1));
            mp_buf_fini(&b);
        }
    }
    assert_int_equal(memory.live_bytes, 0);
    place_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(has_nothing_at_first),
        cmocka_unit_test(refuses_a_node_without_a_name),
        cmocka_unit_test(makes_the_last_entry_live),
        cmocka_unit_test(takes_entries_in_any_order),
        cmocka_unit_test(says_when_what_is_live_changed),
        cmocka_unit_test(tells_what_is_new_alone),
        cmocka_unit_test(lists_many_fresh_ones),
        cmocka_unit_test(orders_one_moment_by_node),
        cmocka_unit_test(takes_an_older_entry_for_live_with_the_defect),
        cmocka_unit_test(keeps_to_scopes),
        cmocka_unit_test(refuses_what_is_ahead_of_the_clock),
        cmocka_unit_test(drops_what_is_malformed),
        cmocka_unit_test(keeps_the_first_of_one_stamp),
        cmocka_unit_test(keeps_so_many_names),
        cmocka_unit_test(keeps_entries_compactly),
        cmocka_unit_test(survives_a_lack_of_memory),
        cmocka_unit_test(needs_memory_for_one_block_at_first),
        cmocka_unit_test(writes_all_or_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
