/* How calls are shared, in virtual time: a client keeps so many calls outstanding, and nodes that
 * are invented here take their time for them. */
#include "spec/c/core/router/driver.h"

#include "src/base/rng.h"

#define NODES_MAX 6
#define CALLS_MAX 64
#define SEEDS     2

enum noise {
    STEADY,
    UNIFORM,     /* from half of it to one and a half */
    EXPONENTIAL, /* many short ones, a few long ones */
    HICCUPS,     /* one of a hundred takes fifty times as long */
    NOISES
};

struct node {
    mp_duration mean;
    enum noise noise;
    bool is_queue;           /* one call after the other; else all at once */
    mp_duration first_extra; /* of the first call: a link is made */
    bool is_failing;         /* ends at once, without an answer */
    bool is_hung;
    /* what happened */
    bool has_begun;
    mp_time free_at;
    uint32_t picked;
};

struct call {
    mp_time began;
    mp_time ends;
    uint32_t node;
};

static struct node nodes[NODES_MAX];
static struct call calls[CALLS_MAX];
static uint32_t call_count;
static struct mp_rng world;

static mp_duration draw(const struct node *n)
{
    switch (n->noise) {
    case UNIFORM:
        return n->mean / 2 + mp_rng_below(&world, n->mean);
    case EXPONENTIAL: {
        uint64_t tries = 1; /* geometric, which is exponential in steps of a 32nd */
        while (mp_rng_below(&world, 32) != 0)
            tries++;
        return n->mean * tries / 32;
    }
    case HICCUPS:
        return mp_rng_below(&world, 100) == 0 ? 50 * n->mean : n->mean;
    default:
        return n->mean;
    }
}

static void begin_call(uint32_t route)
{
    assert_true(call_count < CALLS_MAX);
    uint32_t node = pick(route);
    assert_in_range(node, 1, NODES_MAX - 1);
    struct node *n = &nodes[node];
    mp_duration time = n->is_failing ? MP_US(5) : draw(n);
    if (!n->has_begun)
        time += n->first_extra;
    n->has_begun = true;
    n->picked++;
    mp_time from = n->is_queue && n->free_at > now ? n->free_at : now;
    n->free_at = from + time;
    calls[call_count++] =
        (struct call){.began = now, .ends = n->is_hung ? MP_NEVER : from + time, .node = node};
}

static void end_first_call(void)
{
    uint32_t first = 0;
    for (uint32_t i = 1; i < call_count; i++)
        if (calls[i].ends < calls[first].ends)
            first = i;
    struct call c = calls[first];
    assert_true(c.ends != MP_NEVER);
    calls[first] = calls[--call_count];
    now = c.ends;
    if (nodes[c.node].is_failing)
        given_up(c.node);
    else
        ended(c.node, c.ends - c.began);
}

static uint32_t open_world(uint32_t node_count, const struct node *model, uint64_t seed)
{
    open_router(16, seed);
    mp_rng_init(&world, seed + 1000);
    call_count = 0;
    for (uint32_t i = 1; i <= node_count; i++)
        nodes[i] = *model;
    return route_to("f", 1, node_count, 0);
}

static void close_world(void)
{
    while (call_count != 0)
        given_up(calls[--call_count].node);
    for (uint32_t i = 0; i < NODES_MAX; i++)
        assert_int_equal(0, mp_router_outstanding(router, i));
    close_router();
}

/* So many calls, with so many outstanding, counted from here on. */
static void run_calls(uint32_t route, uint32_t outstanding, uint32_t count)
{
    for (uint32_t i = 1; i < NODES_MAX; i++)
        nodes[i].picked = 0;
    for (uint32_t i = 0; i < count; i++) {
        while (call_count >= outstanding)
            end_first_call();
        begin_call(route);
    }
}

/* As many as fit into a span of time. */
static void run_for(uint32_t route, uint32_t outstanding, mp_duration span)
{
    mp_time until = now + span;
    for (uint32_t i = 1; i < NODES_MAX; i++)
        nodes[i].picked = 0;
    while (now < until) {
        while (call_count >= outstanding)
            end_first_call();
        begin_call(route);
    }
}

static mp_duration at_most(mp_duration span, mp_duration bound)
{
    return span < bound ? span : bound;
}

static const uint32_t outstandings[] = {1, 2, 16};
static const mp_duration means[] = {MP_US(20), MP_MS(1), MP_MS(50)};

static void check_equal_ones(const struct node *model, uint32_t outstanding)
{
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        uint32_t route = open_world(2, model, seed);
        run_calls(route, outstanding, 10000);
        if (nodes[1].picked < 4000 || nodes[1].picked > 6000)
            fail_msg("seed %d, %u outstanding, mean %llu ns, noise %d, queue %d: %u of 10000",
                     (int)seed, outstanding, (unsigned long long)model->mean, model->noise,
                     model->is_queue, nodes[1].picked);
        close_world();
    }
}

static void two_equal_ones_share_evenly(void **state)
{
    (void)state;
    for (size_t o = 0; o < MP_ARRAY_SIZE(outstandings); o++)
        for (size_t m = 0; m < MP_ARRAY_SIZE(means); m++)
            for (int noise = STEADY; noise < NOISES; noise++)
                for (uint32_t is_queue = 0; is_queue < (o == 0 ? 1 : 2); is_queue++)
                    check_equal_ones(&(struct node){.mean = means[m],
                                                    .noise = (enum noise)noise,
                                                    .is_queue = is_queue != 0},
                                     outstandings[o]);
}

/* The first call of each makes a link and takes hundreds of times as long. */
static void a_slow_first_call_is_forgiven(void **state)
{
    (void)state;
    for (size_t o = 0; o < MP_ARRAY_SIZE(outstandings); o++)
        for (int noise = STEADY; noise < NOISES; noise++)
            check_equal_ones(&(struct node){.mean = MP_US(40),
                                            .noise = (enum noise)noise,
                                            .first_extra = MP_MS(10)},
                             outstandings[o]);
}

/* One is so many times slower: its share in per mille, of 10,000 calls. */
static uint32_t share_of_slow(uint32_t node_count, uint32_t factor, const struct node *model,
                              uint32_t outstanding, uint64_t seed)
{
    uint32_t route = open_world(node_count, model, seed);
    nodes[1].mean *= factor;
    run_calls(route, outstanding, 10000);
    uint32_t share = nodes[1].picked / 10;
    close_world();
    return share;
}

static void check_slow_one(uint32_t node_count, const struct node *model, uint32_t outstanding)
{
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        uint32_t share = share_of_slow(node_count, 10, model, outstanding, seed);
        if (share > 200)
            fail_msg("seed %d, %u nodes, %u outstanding, mean %llu ns, noise %d, queue %d: %u "
                     "per mille",
                     (int)seed, node_count, outstanding, (unsigned long long)model->mean,
                     model->noise, model->is_queue, share);
    }
}

static void one_that_is_ten_times_slower_gets_little(void **state)
{
    (void)state;
    for (uint32_t node_count = 2; node_count <= 5; node_count += 3)
        for (size_t o = 0; o < MP_ARRAY_SIZE(outstandings); o++)
            for (size_t m = 0; m < MP_ARRAY_SIZE(means); m++)
                for (int noise = STEADY; noise < NOISES; noise++)
                    for (uint32_t is_queue = 0; is_queue < (o == 0 ? 1 : 2); is_queue++)
                        check_slow_one(node_count,
                                       &(struct node){.mean = means[m],
                                                      .noise = (enum noise)noise,
                                                      .is_queue = is_queue != 0},
                                       outstandings[o]);
}

/* A slow one is not forgotten: it has its turn often enough to notice a change. (One that takes
 * seconds has it every few of its own times.) */
static void a_slow_one_is_tried_again(void **state)
{
    (void)state;
    for (size_t o = 0; o < MP_ARRAY_SIZE(outstandings); o++)
        for (size_t m = 0; m < MP_ARRAY_SIZE(means); m++)
            for (uint32_t factor = 3; factor <= 100; factor += 97) {
                if (means[m] * factor > MP_MS(500))
                    continue;
                const struct node model = {.mean = means[m]};
                const mp_duration span = at_most(100 * means[m] * factor, MP_SECONDS(5));
                uint32_t route = open_world(2, &model, 1);
                nodes[1].mean *= factor;
                run_for(route, outstandings[o], 4 * span);
                for (int i = 0; i < 4; i++) {
                    run_for(route, outstandings[o], span);
                    assert_in_range(nodes[1].picked, 1, nodes[2].picked / 2);
                }
                close_world();
            }
}

static void one_that_is_fast_again_gets_its_share_back(void **state)
{
    (void)state;
    for (size_t o = 0; o < MP_ARRAY_SIZE(outstandings); o++)
        for (size_t m = 0; m < MP_ARRAY_SIZE(means); m++)
            for (int noise = STEADY; noise <= EXPONENTIAL; noise++) {
                const struct node model = {.mean = means[m], .noise = (enum noise)noise};
                uint32_t route = open_world(2, &model, 3);
                nodes[1].mean *= 10;
                run_for(route, outstandings[o], at_most(2000 * means[m], MP_SECONDS(2)));
                nodes[1].mean = model.mean;
                run_for(route, outstandings[o], at_most(500 * means[m], MP_SECONDS(4)));
                run_calls(route, outstandings[o], 4000);
                assert_in_range(nodes[1].picked, 1600, 2400);
                close_world();
            }
}

static void one_that_becomes_slow_is_noticed(void **state)
{
    (void)state;
    for (size_t o = 0; o < MP_ARRAY_SIZE(outstandings); o++)
        for (size_t m = 0; m < MP_ARRAY_SIZE(means); m++) {
            const struct node model = {.mean = means[m], .noise = EXPONENTIAL};
            uint32_t route = open_world(2, &model, 4);
            run_calls(route, outstandings[o], 2000);
            nodes[1].mean *= 10;
            run_calls(route, outstandings[o], 200);
            run_calls(route, outstandings[o], 2000);
            assert_in_range(nodes[1].picked, 0, 400);
            close_world();
        }
}

/* Its links are open and nothing comes back: it holds few calls, not all of them. */
static void one_that_hangs_collects_few_calls(void **state)
{
    (void)state;
    for (size_t m = 0; m < MP_ARRAY_SIZE(means); m++) {
        const struct node model = {.mean = means[m], .noise = EXPONENTIAL};
        uint32_t route = open_world(2, &model, 5);
        run_calls(route, 16, 1000);
        nodes[1].is_hung = true;
        run_calls(route, 16, 100);
        uint32_t first = nodes[1].picked;
        run_calls(route, 60, 4000);
        assert_in_range(first + nodes[1].picked, 0, 16);
        close_world();
    }
}

/* What ends without an answer says nothing about time: it is as good as it was, and no better. */
static void quick_failures_do_not_attract_calls(void **state)
{
    (void)state;
    for (size_t m = 0; m < MP_ARRAY_SIZE(means); m++) {
        const struct node model = {.mean = means[m], .noise = UNIFORM};
        uint32_t route = open_world(2, &model, 6);
        run_calls(route, 1, 1000);
        nodes[1].is_failing = true;
        run_calls(route, 1, 4000);
        assert_in_range(nodes[1].picked, 1000, 2400);
        nodes[1].is_failing = false;
        nodes[1].mean *= 10;
        run_calls(route, 1, 1000);
        nodes[1].is_failing = true; /* a slow one that fails is still a slow one */
        run_calls(route, 1, 4000);
        assert_in_range(nodes[1].picked, 0, 800);
        close_world();
    }
}

/* Two seconds pass between calls: that alone is no reason to try the slow one. */
static void rare_calls_go_to_the_fast_one(void **state)
{
    (void)state;
    const struct node model = {.mean = MP_MS(10)};
    uint32_t route = open_world(2, &model, 7);
    nodes[1].mean *= 10;
    for (int i = 0; i < 1000; i++) {
        begin_call(route);
        end_first_call();
        now += MP_SECONDS(2);
    }
    assert_in_range(nodes[1].picked, 10, 100);
    close_world();
}

/* A fresh provider is tried soon, and is not thought slow for its first call. */
static void a_new_one_gets_its_share(void **state)
{
    (void)state;
    const struct node model = {.mean = MP_MS(1), .noise = UNIFORM};
    for (size_t o = 0; o < MP_ARRAY_SIZE(outstandings); o++) {
        (void)open_world(3, &model, 8);
        uint32_t route = route_to("f", 1, 2, 0);
        run_calls(route, outstandings[o], 1000);
        nodes[3].first_extra = MP_MS(300);
        flush();
        route = route_to("f", 1, 3, 0);
        run_calls(route, outstandings[o], 3000);
        assert_in_range(nodes[3].picked, 700, 1300);
        close_world();
    }
}

static void the_same_seed_makes_the_same_picks(void **state)
{
    (void)state;
    uint32_t picked[2][NODES_MAX];
    const struct node model = {.mean = MP_US(100), .noise = EXPONENTIAL};
    for (int turn = 0; turn < 3; turn++) {
        uint32_t route = open_world(5, &model, turn == 2 ? 10 : 9);
        mp_rng_init(&world, 1); /* only the router's differs */
        run_calls(route, 7, 5000);
        for (uint32_t i = 1; i < NODES_MAX; i++)
            picked[turn != 0][i] = nodes[i].picked;
        if (turn == 1)
            assert_memory_equal(picked[0] + 1, picked[1] + 1, sizeof(picked[0]) - 4);
        if (turn == 2)
            assert_memory_not_equal(picked[0] + 1, picked[1] + 1, sizeof(picked[0]) - 4);
        close_world();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_equal_ones_share_evenly),
        cmocka_unit_test(a_slow_first_call_is_forgiven),
        cmocka_unit_test(one_that_is_ten_times_slower_gets_little),
        cmocka_unit_test(a_slow_one_is_tried_again),
        cmocka_unit_test(one_that_is_fast_again_gets_its_share_back),
        cmocka_unit_test(one_that_becomes_slow_is_noticed),
        cmocka_unit_test(one_that_hangs_collects_few_calls),
        cmocka_unit_test(quick_failures_do_not_attract_calls),
        cmocka_unit_test(rare_calls_go_to_the_fast_one),
        cmocka_unit_test(a_new_one_gets_its_share),
        cmocka_unit_test(the_same_seed_makes_the_same_picks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
