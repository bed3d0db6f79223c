/* The router's promises one by one. How calls are shared is in balance_test.c. */
#include "spec/c/core/router/driver.h"

#include "src/base/rng.h"

static int setup(void **state)
{
    (void)state;
    open_router(8, 1);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    close_router();
    return 0;
}

static uint32_t find(const char *key)
{
    return mp_router_find(router, mp_slice_str(key));
}

/* --- routes --- */

static void keeps_a_route_with_its_candidates(void **state)
{
    (void)state;
    assert_int_equal(MP_ROUTER_NONE, find("a"));
    char key[] = "a";
    struct mp_router_provider providers[] = {{.node = 3, .function = 1},
                                             {.node = 9, .function = 2}};
    assert_int_equal(MP_OK, try_route(key, providers, 2, 0));
    uint32_t route = seen.route;
    key[0] = 'x';
    providers[0].node = 77;
    assert_int_equal(route, find("a"));
    assert_int_equal(MP_ROUTER_NONE, find("x"));
    assert_int_equal(MP_ROUTER_NONE, find(""));
    uint32_t count;
    const struct mp_router_provider *kept = mp_router_candidates(router, route, &count);
    assert_int_equal(2, count);
    assert_int_equal(3, kept[0].node);
    assert_int_equal(1, kept[0].function);
    assert_int_equal(9, kept[1].node);
    assert_int_equal(2, kept[1].function);
}

static void an_empty_list_is_kept_and_picks_nothing(void **state)
{
    (void)state;
    uint32_t route = route_to("nobody", 1, 0, 0);
    assert_int_equal(route, find("nobody"));
    uint32_t count = 1;
    (void)mp_router_candidates(router, route, &count);
    assert_int_equal(0, count);
    assert_int_equal(MP_OK, try_pick(route));
    assert_false(seen.is_picked);
}

static void a_key_that_comes_again_is_replaced(void **state)
{
    (void)state;
    route_to("a", 1, 5, 0);
    uint32_t other = route_to("b", 20, 1, 0);
    for (uint32_t size = 0; size < 40; size += 3) {
        uint32_t count;
        uint32_t route = route_to("a", 2, size, 0);
        assert_int_equal(route, find("a"));
        assert_int_not_equal(other, route);
        const struct mp_router_provider *kept = mp_router_candidates(router, route, &count);
        assert_int_equal(size, count);
        for (uint32_t i = 0; i < count; i++)
            assert_int_equal(2 + i, kept[i].node);
    }
    route_to("a", 2, 1, 0);
    assert_int_equal(20, pick(find("b")));
    given_up(20);
}

static void no_route_holds_after_a_flush(void **state)
{
    (void)state;
    route_to("a", 1, 3, 0);
    route_to("b", 4, 3, 0);
    flush();
    assert_int_equal(MP_ROUTER_NONE, find("a"));
    assert_int_equal(MP_ROUTER_NONE, find("b"));
    size_t requests = memory.count;
    uint32_t route = route_to("a", 7, 3, 0);
    assert_int_equal(requests, memory.count); /* in the memory of the stale one */
    assert_int_equal(route, find("a"));
    assert_int_equal(MP_ROUTER_NONE, find("b"));
    assert_in_range(pick(route), 7, 9);
}

static void name(char *key, uint32_t i)
{
    key[0] = (char)('A' + i / 26);
    key[1] = (char)('a' + i % 26);
    key[2] = '\0';
}

static void the_least_recently_used_route_makes_room(void **state)
{
    (void)state;
    char key[3];
    for (uint32_t i = 0; i < 8; i++) {
        name(key, i);
        route_to(key, 1 + i, 1, 0);
    }
    name(key, 0); /* a pick is a use */
    assert_int_equal(1, pick(find(key)));
    given_up(1);
    for (uint32_t i = 8; i < 12; i++) {
        name(key, i);
        route_to(key, 1 + i, 1, 0);
    }
    for (uint32_t i = 0; i < 12; i++) {
        name(key, i);
        bool is_kept = i == 0 || i > 4;
        assert_int_equal(is_kept, find(key) != MP_ROUTER_NONE);
        if (is_kept) {
            assert_int_equal(1 + i, pick(find(key)));
            given_up(1 + i);
        }
    }
}

static void stale_routes_make_room_first(void **state)
{
    (void)state;
    char key[3];
    for (uint32_t i = 0; i < 7; i++) {
        name(key, i);
        route_to(key, 1, 1, 0);
    }
    flush();
    for (uint32_t i = 20; i < 28; i++) {
        name(key, i);
        route_to(key, i, 1, 0);
    }
    for (uint32_t i = 20; i < 28; i++) {
        name(key, i);
        assert_int_equal(i, pick(find(key)));
        given_up(i);
    }
}

/* Against a plain list: keys, flushes, uses and evictions in random order. */
static void behaves_like_a_plain_list_of_routes(void **state)
{
    (void)state;
    uint32_t first[30];
    uint64_t used[30] = {0}; /* 0: not there */
    uint64_t clock = 0;
    struct mp_rng rng;
    mp_rng_init(&rng, 5);
    for (int round = 0; round < 20000; round++) {
        uint32_t k = (uint32_t)mp_rng_below(&rng, 30);
        char key[3];
        name(key, k);
        uint32_t route = find(key);
        assert_int_equal(used[k] != 0, route != MP_ROUTER_NONE);
        if (mp_rng_below(&rng, 200) == 0) {
            flush();
            memset(used, 0, sizeof(used));
        } else if (route != MP_ROUTER_NONE && mp_rng_below(&rng, 4) != 0) {
            uint32_t node = pick(route);
            assert_in_range(node, first[k], first[k] + 2);
            given_up(node);
            used[k] = ++clock;
        } else {
            uint32_t kept = 0;
            uint32_t oldest = k;
            for (uint32_t i = 0; i < 30; i++) {
                kept += used[i] != 0;
                if (used[i] != 0 && (used[oldest] == 0 || used[i] < used[oldest]))
                    oldest = i;
            }
            if (used[k] == 0 && kept == 8)
                used[oldest] = 0;
            first[k] = (uint32_t)mp_rng_below(&rng, 100);
            route_to(key, first[k], 1 + (uint32_t)mp_rng_below(&rng, 3), 0);
            used[k] = ++clock;
        }
    }
}

static void huge_lists_make_room_for_each_other(void **state)
{
    (void)state;
    const uint32_t size = MP_ROUTER_CANDIDATES_MAX / 4;
    static const char *const keys[] = {"a", "b", "c", "d", "e"};
    struct mp_router_provider *providers = calloc(size, sizeof(*providers));
    assert_non_null(providers);
    for (uint32_t i = 0; i < size; i++)
        providers[i] = (struct mp_router_provider){.node = 1 + i % 10000, .function = FUNCTION};
    for (int i = 0; i < 5; i++)
        assert_int_equal(MP_OK, try_route(keys[i], providers, size, 0));
    free(providers);
    assert_int_equal(MP_ROUTER_NONE, find("a"));
    for (int i = 1; i < 5; i++)
        assert_int_not_equal(MP_ROUTER_NONE, find(keys[i]));
    assert_in_range(pick(find("e")), 1, 10000);
}

/* --- picks --- */

static void pick_as(uint32_t route, bool is_local_busy, const uint32_t *avoid, uint32_t count)
{
    struct mp_router_event ev = {
        .kind = MP_ROUTER_PICK,
        .pick = {.route = route, .is_local_busy = is_local_busy, .avoid_count = count}};
    for (uint32_t i = 0; i < count; i++)
        ev.pick.avoid[i] = avoid[i];
    assert_int_equal(MP_OK, step(&ev));
}

static void this_node_is_preferred_while_it_is_not_busy(void **state)
{
    (void)state;
    uint32_t route = route_to("f", 0, 3, 0);
    for (uint32_t i = 0; i < 100; i++) {
        pick_as(route, false, NULL, 0);
        assert_int_equal(0, seen.provider.node);
        assert_int_equal(FUNCTION, seen.provider.function);
        assert_int_equal(i + 1, mp_router_outstanding(router, 0));
    }
    /* Busy, it competes with what it has outstanding. */
    for (uint32_t i = 0; i < 100; i++)
        assert_int_not_equal(0, pick(route));
    static const uint32_t local[] = {0};
    for (uint32_t i = 0; i < 100; i++) {
        pick_as(route, false, local, 1);
        assert_int_not_equal(0, seen.provider.node);
    }
    for (uint32_t i = 0; i < 100; i++)
        given_up(0);
    assert_int_equal(0, mp_router_outstanding(router, 0));
    uint32_t locals = 0;
    for (uint32_t i = 0; i < 100; i++)
        locals += pick(route) == 0;
    assert_in_range(locals, 40, 100);
}

static void a_busy_node_shares_with_the_others(void **state)
{
    (void)state;
    uint32_t route = route_to("f", 0, 3, 0);
    uint32_t picked[3] = {0};
    for (int i = 0; i < 3000; i++) {
        uint32_t node = pick(route);
        picked[node]++;
        now += MP_MS(1);
        ended(node, MP_MS(1));
    }
    for (int i = 0; i < 3; i++)
        assert_in_range(picked[i], 800, 1200);
}

static void what_is_avoided_is_never_picked(void **state)
{
    (void)state;
    static const uint32_t sizes[] = {1, 2, 3, 8, 9, 16, 17, 100};
    struct mp_rng rng;
    mp_rng_init(&rng, 3);
    for (size_t s = 0; s < MP_ARRAY_SIZE(sizes); s++)
        for (int round = 0; round < 300; round++) {
            uint32_t count = sizes[s];
            uint32_t route = route_to("f", 0, count, round % 2 == 0 ? 0 : 1000);
            uint32_t avoid[MP_ROUTER_AVOID_MAX];
            uint32_t avoid_count = (uint32_t)mp_rng_below(&rng, MP_ROUTER_AVOID_MAX + 1);
            for (uint32_t i = 0; i < avoid_count; i++)
                avoid[i] = (uint32_t)mp_rng_below(&rng, count + 1);
            uint32_t left = 0;
            for (uint32_t n = 0; n < count; n++) {
                bool is_avoided = false;
                for (uint32_t i = 0; i < avoid_count; i++)
                    is_avoided |= avoid[i] == n;
                left += !is_avoided;
            }
            pick_as(route, round % 3 != 0, avoid, avoid_count);
            assert_int_equal(left != 0, seen.is_picked);
            if (!seen.is_picked)
                continue;
            assert_in_range(seen.provider.node, 0, count - 1);
            for (uint32_t i = 0; i < avoid_count; i++)
                assert_int_not_equal(avoid[i], seen.provider.node);
            given_up(seen.provider.node);
        }
    for (uint32_t n = 0; n < 100; n++)
        assert_int_equal(0, mp_router_outstanding(router, n));
}

/* All but one of a long list are the same node, which is avoided: chance does not find the one. */
static void the_only_one_left_is_found(void **state)
{
    (void)state;
    static struct mp_router_provider providers[10000];
    for (uint32_t i = 0; i < 10000; i++)
        providers[i] = (struct mp_router_provider){.node = 4, .function = i};
    providers[7777].node = 5;
    assert_int_equal(MP_OK, try_route("f", providers, 10000, 0));
    uint32_t route = seen.route;
    static const uint32_t avoid[] = {4, 5};
    for (int i = 0; i < 100; i++) {
        pick_as(route, true, avoid, 1);
        assert_true(seen.is_picked);
        assert_int_equal(5, seen.provider.node);
        assert_int_equal(7777, seen.provider.function);
    }
    pick_as(route, true, avoid, 2);
    assert_false(seen.is_picked);
}

static void a_full_provider_is_taken_only_if_all_are(void **state)
{
    (void)state;
    static const uint32_t sizes[] = {1, 2, 16, 17, 500};
    for (size_t s = 0; s < MP_ARRAY_SIZE(sizes); s++) {
        uint32_t count = sizes[s];
        uint32_t route = route_to("f", 1, count, 2);
        for (uint32_t i = 0; i < 2 * count; i++)
            assert_in_range(mp_router_outstanding(router, pick(route)), 1, 2);
        for (uint32_t i = 0; i < count; i++) /* all are full: the surplus is spread, too */
            pick(route);
        uint32_t total = 0;
        for (uint32_t n = 1; n <= count; n++) {
            assert_in_range(mp_router_outstanding(router, n), 2, 6);
            total += mp_router_outstanding(router, n);
            while (mp_router_outstanding(router, n) > 2)
                ended(n, MP_MS(1));
        }
        assert_int_equal(3 * count, total);
        ended(count, MP_SECONDS(10)); /* the only one with room is the slowest */
        assert_int_equal(count, pick(route));
        for (uint32_t n = 1; n <= count; n++)
            while (mp_router_outstanding(router, n) > 0)
                given_up(n);
    }
}

static void a_full_local_node_is_not_preferred(void **state)
{
    (void)state;
    uint32_t route = route_to("f", 0, 2, 1);
    pick_as(route, false, NULL, 0);
    assert_int_equal(0, seen.provider.node);
    pick_as(route, false, NULL, 0);
    assert_int_equal(1, seen.provider.node);
}

/* The limit counts the function, the load counts the node. */
static void other_functions_count_as_load_only(void **state)
{
    (void)state;
    static const struct mp_router_provider g[] = {{.node = 1, .function = 99}};
    assert_int_equal(MP_OK, try_route("g", g, 1, 0));
    uint32_t other = seen.route;
    for (int i = 0; i < 5; i++)
        pick(other);
    uint32_t alone = route_to("alone", 1, 1, 1);
    assert_int_equal(1, pick(alone));
    given_up(1);
    uint32_t both = route_to("both", 1, 2, 1);
    assert_int_equal(2, pick(both)); /* less loaded */
    assert_int_equal(1, pick(both)); /* 2 is full now */
}

static void ten_thousand_candidates_share_evenly(void **state)
{
    (void)state;
    uint32_t route = route_to("f", 1, 10000, 0);
    for (int i = 0; i < 20000; i++)
        pick(route);
    uint32_t highest = 0;
    for (uint32_t n = 1; n <= 10000; n++)
        if (mp_router_outstanding(router, n) > highest)
            highest = mp_router_outstanding(router, n);
    assert_in_range(highest, 2, 6); /* one random choice would reach 9 or so */
}

static void allocates_nothing_once_providers_were_seen(void **state)
{
    (void)state;
    uint32_t route = route_to("f", 0, 20, 0);
    uint32_t limited = route_to("g", 0, 20, 3);
    for (int i = 0; i < 2000; i++)
        given_up(pick(i % 2 == 0 ? route : limited));
    size_t requests = memory.count;
    for (int i = 0; i < 2000; i++) {
        now += MP_US(10);
        ended(pick(find(i % 2 == 0 ? "f" : "g")), MP_US(10));
        told_load((uint32_t)i % 30, 3);
    }
    assert_int_equal(requests, memory.count);
}

/* --- what is learnt --- */

static uint32_t picks_of_first(uint32_t route, uint32_t count)
{
    uint32_t picked = 0;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t node = pick(route);
        picked += node == 1;
        given_up(node);
    }
    return picked;
}

static void the_load_of_others_counts_and_fades(void **state)
{
    (void)state;
    uint32_t route = route_to("f", 1, 2, 0);
    told_load(1, 8);
    assert_int_equal(0, picks_of_first(route, 100));
    now += MP_MS(500);
    assert_int_equal(0, picks_of_first(route, 100));
    now += MP_SECONDS(5);
    assert_in_range(picks_of_first(route, 100), 20, 80);
    told_load(2, 1); /* that was one of ours */
    assert_in_range(picks_of_first(route, 100), 20, 80);
    told_load(2, 2);
    assert_int_equal(100, picks_of_first(route, 100));
    told_load(2, 0);
    assert_in_range(picks_of_first(route, 100), 20, 80);
}

static void our_own_part_of_a_load_is_not_counted_twice(void **state)
{
    (void)state;
    uint32_t first = route_to("first", 1, 1, 0);
    for (int i = 0; i < 5; i++)
        pick(first);
    told_load(1, 6); /* five of these are ours */
    told_load(2, 1);
    uint32_t route = route_to("f", 1, 2, 0);
    assert_int_equal(0, picks_of_first(route, 100));
    for (int i = 0; i < 5; i++)
        given_up(1);
    assert_in_range(picks_of_first(route, 100), 20, 80);
    for (int i = 0; i < 5; i++)
        pick(first);
    told_load(1, 3); /* it had not seen all of ours yet */
    for (int i = 0; i < 5; i++)
        given_up(1);
    assert_int_equal(100, picks_of_first(route, 100));
}

static void learn_times(uint32_t route, mp_duration first, mp_duration second)
{
    for (int i = 0; i < 40; i++) {
        uint32_t node = pick(route);
        ended(node, node == 1 ? first : second);
    }
}

static void what_was_learnt_of_a_dead_node_is_forgotten(void **state)
{
    (void)state;
    uint32_t route = route_to("f", 1, 2, 0);
    learn_times(route, MP_SECONDS(1), MP_MS(1));
    told_load(1, 50);
    assert_int_equal(0, picks_of_first(route, 100));
    gone(1);
    assert_in_range(picks_of_first(route, 100), 20, 80);
}

static void calls_of_a_dead_node_still_end(void **state)
{
    (void)state;
    uint32_t route = route_to("f", 1, 1, 0);
    pick(route);
    pick(route);
    gone(1);
    assert_int_equal(2, mp_router_outstanding(router, 1));
    given_up(1);
    ended(1, MP_MS(1));
    assert_int_equal(0, mp_router_outstanding(router, 1));
    gone(5000); /* never heard of */
    told_load(5000, 1);
    assert_int_equal(0, mp_router_outstanding(router, 5000));
}

/* A failure that came at once does not make a slow node look fast, nor a fast one slow. */
static void what_was_given_up_teaches_nothing(void **state)
{
    (void)state;
    uint32_t route = route_to("f", 1, 2, 0);
    learn_times(route, MP_MS(100), MP_MS(1));
    uint32_t alone = route_to("alone", 1, 1, 0);
    for (int i = 0; i < 1000; i++) {
        pick(alone);
        given_up(1);
    }
    assert_int_equal(0, picks_of_first(route, 50));
}

/* One answer out of many that took a thousand times as long does not make a node slow. */
static void one_late_answer_is_forgiven(void **state)
{
    (void)state;
    uint32_t route = route_to("f", 1, 2, 0);
    learn_times(route, MP_MS(1), MP_MS(1));
    uint32_t alone = route_to("alone", 1, 1, 0);
    pick(alone);
    ended(1, MP_SECONDS(1));
    assert_in_range(picks_of_first(route, 100), 20, 80);
}

/* However slow it was, if it is compared all the time it has its turn within a few seconds. */
static void a_slow_one_has_its_turn_within_seconds(void **state)
{
    (void)state;
    uint32_t route = route_to("f", 1, 2, 0);
    learn_times(route, MP_MS(400), MP_MS(1));
    uint32_t picked = 0;
    for (int i = 0; i < 5000; i++) {
        uint32_t node = pick(route);
        now += MP_MS(1);
        picked += node == 1;
        ended(node, MP_MS(node == 1 ? 400 : 1));
    }
    assert_in_range(picked, 1, 20);
}

/* More functions on nodes than are remembered: counts stay right, also with all of them busy. */
static void more_providers_than_can_be_remembered(void **state)
{
    (void)state;
    const uint32_t nodes = MP_ROUTER_STATS_MAX / 2;
    struct mp_router_provider *providers = calloc(3 * nodes, sizeof(*providers));
    assert_non_null(providers);
    for (uint32_t i = 0; i < 3 * nodes; i++)
        providers[i] = (struct mp_router_provider){.node = 1 + i % nodes, .function = i / nodes};
    for (int is_busy = 0; is_busy < 2; is_busy++)
        for (uint32_t i = 0; i < 3 * nodes; i++) {
            assert_int_equal(MP_OK, try_route("f", &providers[i], 1, 0));
            assert_int_equal(providers[i].node, pick(seen.route));
            now += MP_US(1);
            if (!is_busy)
                step(&(struct mp_router_event){.kind = MP_ROUTER_ENDED,
                                               .ended = {.node = providers[i].node,
                                                         .function = providers[i].function,
                                                         .is_measured = true,
                                                         .took = MP_MS(1)}});
        }
    for (uint32_t i = 0; i < 3 * nodes; i++)
        step(&(struct mp_router_event){
            .kind = MP_ROUTER_ENDED,
            .ended = {.node = providers[i].node, .function = providers[i].function}});
    for (uint32_t i = 1; i <= nodes; i++)
        assert_int_equal(0, mp_router_outstanding(router, i));
    free(providers);
}

/* Each once, on nodes that nobody else here uses. */
static void see_providers(uint32_t first, uint32_t count)
{
    for (uint32_t node = first; node < first + count; node++) {
        assert_int_equal(node, pick(route_to("passing", node, 1, 0)));
        ended(node, MP_MS(1));
    }
}

static void only_what_is_idle_and_long_unused_makes_room(void **state)
{
    (void)state;
    const uint32_t half = MP_ROUTER_STATS_MAX / 2;
    learn_times(route_to("f", 1, 2, 0), MP_SECONDS(1), MP_MS(1));
    pick(route_to("busy", 5, 1, 1));
    for (uint32_t i = 0; i < 5; i++) {
        see_providers(10 + i * half, half);
        assert_int_equal(2, pick(find("f"))); /* the better one is used … */
        ended(2, MP_MS(1));
        pick(route_to("slow", 1, 1, 0)); /* … and so is the other, elsewhere */
        ended(1, MP_SECONDS(1));
    }
    assert_int_equal(0, picks_of_first(find("f"), 5));
    see_providers(10, 2 * half);
    assert_in_range(picks_of_first(find("f"), 100), 20, 80);
    assert_int_equal(6, pick(route_to("two", 5, 2, 1))); /* 5 is still full */
}

/* Odd times: clocks at the ends of their range, no time at all, an age. */
static void survives_odd_times(void **state)
{
    (void)state;
    static const mp_duration times[] = {0, 1, MP_SECONDS(1), MP_NEVER / 2, MP_NEVER};
    uint32_t route = route_to("f", 1, 3, 0);
    struct mp_rng rng;
    mp_rng_init(&rng, 6);
    for (int i = 0; i < 5000; i++) {
        now = times[mp_rng_below(&rng, MP_ARRAY_SIZE(times))];
        uint32_t node = pick(route);
        told_load(node, (uint32_t)mp_rng_next(&rng));
        now = times[mp_rng_below(&rng, MP_ARRAY_SIZE(times))];
        if (mp_rng_below(&rng, 8) != 0)
            ended(node, times[mp_rng_below(&rng, MP_ARRAY_SIZE(times))]);
    }
}

/* --- memory --- */

#define SCRIPT_STEPS 200

/* One step of a fixed story of routes, picks and ends. */
static enum mp_err script(int at)
{
    char key[3];
    name(key, (uint32_t)at % 11);
    uint32_t route = find(key);
    if (at % 50 == 49) {
        flush();
    } else if (route == MP_ROUTER_NONE || at % 7 == 0) {
        struct mp_router_provider providers[40];
        uint32_t count = (uint32_t)at % 40;
        for (uint32_t i = 0; i < count; i++)
            providers[i] =
                (struct mp_router_provider){.node = 1 + i * 3, .function = (uint32_t)at % 5};
        return try_route(key, providers, count, 0);
    } else {
        return try_pick(route);
    }
    return MP_OK;
}

/* Each allocation fails once, from every place of the story on; the step has no effect, and when
 * there is memory again the same step works. */
static void a_failed_allocation_leaves_it_intact(void **state)
{
    (void)state;
    close_router();
    bool has_failed = true;
    for (size_t n = 1; has_failed; n++) {
        has_failed = false;
        open_router(8, 1);
        memory.fail_at = n;
        uint32_t outstanding = 0;
        for (int at = 0; at < SCRIPT_STEPS; at++) {
            enum mp_err err = script(at);
            if (err != MP_OK) {
                assert_int_equal(MP_ENOMEM, err);
                assert_false(seen.is_picked);
                assert_int_equal(MP_ROUTER_NONE, seen.route);
                has_failed = true;
                memory.fail_at = SPEC_NEVER;
                assert_int_equal(MP_OK, script(at));
            }
            outstanding += seen.is_picked;
            uint32_t total = 0;
            for (uint32_t i = 0; i < 200; i++)
                total += mp_router_outstanding(router, i);
            assert_int_equal(outstanding, total);
        }
        close_router();
    }
    memory = (struct spec_alloc){.fail_at = 0};
    alloc = spec_alloc_of(&memory);
    const struct mp_router_config cfg = {.routes_max = 8};
    assert_int_equal(MP_ENOMEM, mp_router_new(&router, &cfg, &alloc, 1));
    assert_null(router);
    open_router(8, 1);
}

static void a_route_survives_a_failed_replacement(void **state)
{
    (void)state;
    route_to("a", 1, 2, 0);
    memory.fail_at = 0;
    struct mp_router_provider providers[30] = {{.node = 9}};
    assert_int_equal(MP_ENOMEM, try_route("a", providers, 30, 0));
    assert_int_equal(MP_ENOMEM, try_route("b", providers, 1, 0));
    memory.fail_at = SPEC_NEVER;
    uint32_t count;
    const struct mp_router_provider *kept = mp_router_candidates(router, find("a"), &count);
    assert_int_equal(2, count);
    assert_int_equal(1, kept[0].node);
    assert_int_equal(MP_ROUTER_NONE, find("b"));
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(keeps_a_route_with_its_candidates),
        TEST(an_empty_list_is_kept_and_picks_nothing),
        TEST(a_key_that_comes_again_is_replaced),
        TEST(no_route_holds_after_a_flush),
        TEST(the_least_recently_used_route_makes_room),
        TEST(stale_routes_make_room_first),
        TEST(behaves_like_a_plain_list_of_routes),
        TEST(huge_lists_make_room_for_each_other),
        TEST(this_node_is_preferred_while_it_is_not_busy),
        TEST(a_busy_node_shares_with_the_others),
        TEST(what_is_avoided_is_never_picked),
        TEST(the_only_one_left_is_found),
        TEST(a_full_provider_is_taken_only_if_all_are),
        TEST(a_full_local_node_is_not_preferred),
        TEST(other_functions_count_as_load_only),
        TEST(ten_thousand_candidates_share_evenly),
        TEST(allocates_nothing_once_providers_were_seen),
        TEST(the_load_of_others_counts_and_fades),
        TEST(our_own_part_of_a_load_is_not_counted_twice),
        TEST(what_was_learnt_of_a_dead_node_is_forgotten),
        TEST(calls_of_a_dead_node_still_end),
        TEST(what_was_given_up_teaches_nothing),
        TEST(one_late_answer_is_forgiven),
        TEST(a_slow_one_has_its_turn_within_seconds),
        TEST(more_providers_than_can_be_remembered),
        TEST(only_what_is_idle_and_long_unused_makes_room),
        TEST(survives_odd_times),
        TEST(a_failed_allocation_leaves_it_intact),
        TEST(a_route_survives_a_failed_replacement),
    };
#undef TEST
    return cmocka_run_group_tests(tests, NULL, NULL);
}
