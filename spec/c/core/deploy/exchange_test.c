/* Nodes that tell each other what differs end with the same history, whoever talked to whom. */
#include <stdlib.h>
#include <time.h>

#include "spec/c/core/deploy/deploy_harness.h"
#include "src/base/rng.h"

/* --- summaries and differences --- */

static void sends_what_the_other_one_lacks(void **state)
{
    (void)state;
    struct place n1;
    struct place n2;
    bool differs;
    must(place_open(&n1, "n1"));
    must(place_open(&n2, "n2"));
    assert_false(tell(&n1, &n2, SIZE_MAX, &differs));
    assert_false(differs);
    deploy(&n1, "m", "1.0.0");
    assert_false(tell(&n2, &n1, SIZE_MAX, &differs)); /* n2 has nothing, and sees that n1 has */
    assert_true(differs);
    assert_true(tell(&n1, &n2, SIZE_MAX, &differs));
    assert_false(differs);
    assert_string_equal(live(&n2, "m"), "1.0.0");
    assert_false(tell(&n1, &n2, SIZE_MAX, &differs));
    assert_false(differs);
    deploy(&n1, "a", "1.0.0");
    deploy(&n2, "z", "1.0.0");
    deploy(&n1, "m", "1.1.0");
    deploy(&n2, "m", "1.2.0");
    assert_true(tell(&n1, &n2, SIZE_MAX, &differs));
    assert_true(differs);
    assert_true(tell(&n2, &n1, SIZE_MAX, &differs));
    assert_true(differs); /* n2 cannot tell that it knows all of n1's */
    assert_false(tell(&n2, &n1, SIZE_MAX, &differs));
    assert_false(differs);
    assert_string_equal(all_live(&n1), "a 1.0.0, m 1.2.0, z 1.0.0");
    assert_int_equal(mp_deploy_digest(n1.deploy), mp_deploy_digest(n2.deploy));
    place_close(&n1);
    place_close(&n2);
}

static uint32_t entries_within(const struct place *p, size_t bytes_max)
{
    struct mp_buf b = new_buf();
    struct mp_mp_reader r;
    uint32_t count;
    bool differs;
    must(mp_deploy_put_differences(p->deploy, mp_slice_str("\x90"), bytes_max, &b, &differs));
    must(mp_mp_check(mp_buf_slice(&b)));
    must(mp_mp_get_array(mp_buf_slice(&b), &count, &r));
    mp_buf_fini(&b);
    return count;
}

static void sends_whole_modules_and_at_least_one(void **state)
{
    (void)state;
    struct place p;
    struct mp_buf told = new_buf();
    must(place_open(&p, "n1"));
    for (unsigned i = 0; i < 12; i++)
        make_told(&p, (struct change){.module = i % 2 == 0 ? "a" : "b", .version = "1.0.0"}, &told);
    size_t size = told.size - 1; /* of the last; none is larger */
    assert_int_equal(entries_within(&p, 0), 6);
    assert_int_equal(entries_within(&p, 7 * size), 6);
    assert_int_equal(entries_within(&p, 12 * size), 12);
    assert_int_equal(entries_within(&p, SIZE_MAX), 12);
    mp_buf_fini(&told);
    place_close(&p);
}

static void tells_a_module_from_the_pipeline_of_its_name(void **state)
{
    (void)state;
    struct place n1;
    struct place n2;
    bool differs;
    must(place_open(&n1, "n1"));
    must(place_open(&n2, "n2"));
    deploy(&n1, "m", "1.0.0");
    make(&n2, (struct change){.module = "m", .version = "2.0.0", .is_pipeline = true});
    assert_true(tell(&n1, &n2, SIZE_MAX, &differs));
    assert_true(differs);
    assert_true(tell(&n2, &n1, SIZE_MAX, &differs));
    assert_string_equal(all_live(&n1), "m 1.0.0, m 2.0.0");
    assert_string_equal(all_live(&n2), "m 1.0.0, m 2.0.0");
    assert_false(tell(&n1, &n2, SIZE_MAX, &differs));
    assert_false(differs);
    place_close(&n1);
    place_close(&n2);
}

static void refuses_what_is_no_summary(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t size;
    } bad[] = {{"", 0},
               {"\x80", 1},
               {"\x91", 1},
               {"\x91\x92\xa1m", 4},
               {"\x91\x92\xa1m\xa1m", 6},
               {"\x91\x92\x01\x01", 4},
               {"\x91\x93\xa1m\x01\x01", 6},
               {"\x91\x92\xa1m\x01\x01", 6},
               {"\x92\x92\xa1m\x01\x92\xa1m\x01", 9},
               {"\x92\x92\xa1n\x01\x92\xa1m\x01", 9}};
    struct place p;
    struct mp_buf b = new_buf();
    must(place_open(&p, "n1"));
    for (int known = 0; known < 2; known++) {
        for (size_t i = 0; i < MP_ARRAY_SIZE(bad); i++) {
            bool differs = true;
            struct mp_slice bytes = mp_slice_of(bad[i].bytes, bad[i].size);
            if (mp_deploy_put_differences(p.deploy, bytes, 100, &b, &differs) != MP_ECORRUPT)
                fail_msg("summary %zu", i);
            assert_int_equal(b.size, 0);
        }
        deploy(&p, "m", "1.0.0");
    }
    mp_buf_fini(&b);
    place_close(&p);
}

/* --- random histories --- */

#ifdef MP_SANITIZE
#define RUNS 2000 /* each takes ten times as long */
#else
#define RUNS 20000
#endif
#define NODES_MAX   5
#define MODULES_MAX 3
#define MADE_MAX    64

/* An entry as whoever made it knows it. */
struct made {
    struct mp_buf list; /* of this one */
    struct mp_deploy_entry entry;
    bool is_overtaken;
};

struct world {
    struct mp_rng rng;
    struct place nodes[NODES_MAX];
    unsigned node_count;
    unsigned sides; /* a bit a node: those of one side of a partition do not hear the others */
    struct made made[MADE_MAX];
    unsigned made_count;
};

static const char *const modules[MODULES_MAX] = {"a", "b", "b.c"};

static unsigned below(struct world *w, unsigned bound)
{
    return (unsigned)mp_rng_below(&w->rng, bound);
}

static bool are_together(const struct world *w, unsigned a, unsigned b)
{
    return (w->sides >> a & 1) == (w->sides >> b & 1);
}

static void keep_made(struct world *w, const struct mp_buf *told)
{
    struct made *m = &w->made[w->made_count++];
    struct mp_slice bytes;
    m->list = new_buf();
    must(mp_buf_append(&m->list, mp_buf_slice(told)));
    must(mp_mp_array_get(mp_buf_slice(&m->list), 0, &bytes));
    must(mp_deploy_read_entry(bytes, &m->entry));
}

/* Somebody changes something, for some or all, and some hear of it at once. */
static void change(struct world *w)
{
    static const char *const versions[] = {"1.0.0", "1.1.0", "2.0.0"};
    static const char *const scopes[] = {"n1", "n2 n3", "n1 n3 n5"};
    unsigned maker = below(w, w->node_count);
    struct place *p = &w->nodes[maker];
    struct mp_buf told = new_buf();
    struct mp_deploy_entry target;
    struct answer a;
    struct change c = {.module = modules[below(w, MODULES_MAX)]};
    unsigned what = below(w, 8);
    p->wall_ms += below(w, 3);
    answer_init(&a);
    if (what < 2 &&
        mp_deploy_rollback_target(p->deploy, mp_slice_str(c.module), mp_slice_of(NULL, 0), &target,
                                  &a.fault, &a.message_text, &a.hint_text))
        c.back_to = &target;
    else if (what < 7)
        c.version = versions[below(w, 3)];
    if (below(w, 4) == 0)
        c.only = scopes[below(w, 3)];
    else if (below(w, 4) == 0)
        c.skip = scopes[below(w, 3)];
    make_told(p, c, &told);
    keep_made(w, &told);
    for (unsigned i = 0; i < w->node_count; i++)
        if (i != maker && are_together(w, i, maker) && below(w, 2) == 0)
            (void)give(&w->nodes[i], &told);
    mp_buf_fini(&told);
}

static size_t some_bytes(struct world *w)
{
    static const size_t sizes[] = {0, 300, 1000, SIZE_MAX};
    return sizes[below(w, 4)];
}

/* `a` sends its summary, `b` answers with what it has, and asks back if it lacks something. */
static void exchange(struct world *w, unsigned a, unsigned b)
{
    bool differs = false;
    (void)tell(&w->nodes[b], &w->nodes[a], some_bytes(w), &differs);
    if (differs)
        (void)tell(&w->nodes[a], &w->nodes[b], some_bytes(w), &differs);
}

static bool are_equal(const struct world *w)
{
    for (unsigned i = 1; i < w->node_count; i++)
        if (mp_deploy_digest(w->nodes[i].deploy) != mp_deploy_digest(w->nodes[0].deploy))
            return false;
    return true;
}

/* --- what has to come out, the long way --- */

static int compare(const struct mp_deploy_stamp *a, const struct mp_deploy_stamp *b)
{
    if (a->epoch != b->epoch)
        return a->epoch < b->epoch ? -1 : 1;
    return mp_slice_compare(a->node, b->node);
}

static int compare_made(const void *a, const void *b)
{
    const struct made *x = (const struct made *)a;
    const struct made *y = (const struct made *)b;
    int order = mp_slice_compare(x->entry.module, y->entry.module);
    return order != 0 ? order : compare(&x->entry.stamp, &y->entry.stamp);
}

static bool is_overtaken(const struct world *w, unsigned i)
{
    const struct mp_deploy_entry *e = &w->made[i].entry;
    for (unsigned k = 0; k < w->made_count; k++) {
        const struct mp_deploy_entry *later = &w->made[k].entry;
        if (mp_slice_equal(later->module, e->module) && compare(&later->stamp, &e->stamp) > 0 &&
            compare(&later->parent, &e->stamp) < 0)
            return true;
    }
    return false;
}

/* The last entry of a module in whose scope a node is, or -1. */
static int live_of(const struct world *w, struct mp_slice module, const struct place *p)
{
    int found = -1;
    for (unsigned i = 0; i < w->made_count; i++)
        if (mp_slice_equal(w->made[i].entry.module, module) &&
            mp_deploy_is_in_scope(&w->made[i].entry, mp_slice_str(p->name)))
            found = (int)i;
    return found;
}

static void check_history(const struct world *w, const struct place *p, const char *module)
{
    struct mp_buf b = new_buf();
    struct mp_mp_reader r = {NULL, NULL};
    int found = live_of(w, mp_slice_str(module), p);
    uint32_t count = 0;
    enum mp_err err = mp_deploy_put_history(p->deploy, mp_slice_str(module), &b);
    if (err == MP_OK)
        must(mp_mp_get_array(value_of(mp_buf_slice(&b), "entries"), &count, &r));
    for (unsigned i = w->made_count; i-- > 0;) {
        const struct mp_deploy_entry *e = &w->made[i].entry;
        struct mp_slice entry;
        int64_t epoch;
        if (!mp_slice_is(e->module, module))
            continue;
        assert_true(count-- != 0);
        must(mp_mp_take(&r, &entry));
        must(mp_mp_get_int(value_of(entry, "epoch"), &epoch));
        assert_int_equal(epoch, e->stamp.epoch);
        assert_true(mp_slice_equal(text_of(entry, "node"), e->stamp.node));
        assert_true(mp_slice_is(text_of(entry, "state"), (int)i == found           ? "live"
                                                         : w->made[i].is_overtaken ? "overtaken"
                                                                                   : "superseded"));
        if (p == w->nodes)
            assert_int_equal(
                mp_deploy_is_overtaken(p->deploy, e->module, e->is_pipeline, &e->stamp),
                w->made[i].is_overtaken);
    }
    assert_int_equal(count, 0);
    mp_buf_fini(&b);
}

static void check_live(const struct world *w, const struct place *p)
{
    uint32_t at = 0;
    for (unsigned i = 0; i < MODULES_MAX; i++) {
        struct mp_deploy_entry e;
        int found = live_of(w, mp_slice_str(modules[i]), p);
        assert_int_equal(mp_deploy_find(p->deploy, mp_slice_str(modules[i]), false, &e),
                         found >= 0);
        if (found < 0 || w->made[found].entry.action == MP_DEPLOY_UNDEPLOY)
            continue;
        assert_int_equal(compare(&e.stamp, &w->made[found].entry.stamp), 0);
        assert_true(mp_deploy_live_at(p->deploy, at++, &e));
        assert_int_equal(compare(&e.stamp, &w->made[found].entry.stamp), 0);
        assert_true(mp_slice_is(e.module, modules[i]));
    }
    assert_int_equal(mp_deploy_live_count(p->deploy), at);
}

static void run(uint64_t seed)
{
    static struct world w;
    static const char *const names[NODES_MAX] = {"n1", "n2", "n3", "n4", "n5"};
    w.made_count = 0;
    mp_rng_init(&w.rng, seed);
    w.node_count = 3 + below(&w, 3);
    w.sides = 0;
    for (unsigned i = 0; i < w.node_count; i++) {
        must(place_open(&w.nodes[i], names[i]));
        w.nodes[i].wall_ms += below(&w, 6);
    }
    unsigned steps = 4 + below(&w, 24);
    for (unsigned i = 0; i < steps; i++) {
        unsigned a = below(&w, w.node_count);
        unsigned b = below(&w, w.node_count);
        unsigned what = below(&w, 8);
        if (what == 0)
            w.sides = below(&w, 2) == 0 ? 0 : below(&w, 32);
        else if (what < 5)
            change(&w);
        else if (a != b && are_together(&w, a, b))
            exchange(&w, a, b);
    }
    for (unsigned i = 0; i < 400 && !are_equal(&w); i++)
        exchange(&w, below(&w, w.node_count), below(&w, w.node_count));
    assert_true(are_equal(&w));
    qsort(w.made, w.made_count, sizeof(*w.made), compare_made);
    for (unsigned i = 0; i < w.made_count; i++)
        w.made[i].is_overtaken = is_overtaken(&w, i);
    for (unsigned i = 0; i < w.node_count; i++) {
        check_live(&w, &w.nodes[i]);
        for (unsigned k = 0; k < MODULES_MAX; k++)
            check_history(&w, &w.nodes[i], modules[k]);
        place_close(&w.nodes[i]);
    }
    for (unsigned i = 0; i < w.made_count; i++)
        mp_buf_fini(&w.made[i].list);
}

static uint64_t running; /* the seed of what runs; 0: nothing does */

/* MPREG_SEED=N runs that one alone. */
static void ends_with_the_same_everywhere(void **state)
{
    (void)state;
    const char *given = getenv("MPREG_SEED");
    uint64_t first = given ? strtoull(given, NULL, 10) : (uint64_t)time(NULL) * 100000;
    uint64_t count = given ? 1 : RUNS;
    print_message("# exchange_test: MPREG_SEED=%llu and the %llu after it\n",
                  (unsigned long long)first, (unsigned long long)(count - 1));
    for (running = first; running < first + count; running++)
        run(running);
    running = 0;
}

static int tell_seed(void **state)
{
    (void)state;
    if (running != 0)
        print_message("# exchange_test: MPREG_SEED=%llu failed\n", (unsigned long long)running);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sends_what_the_other_one_lacks),
        cmocka_unit_test(sends_whole_modules_and_at_least_one),
        cmocka_unit_test(tells_a_module_from_the_pipeline_of_its_name),
        cmocka_unit_test(refuses_what_is_no_summary),
        cmocka_unit_test_teardown(ends_with_the_same_everywhere, tell_seed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
