/* Runs, asked about and watched from nodes that reach the coordinator only through others; and
 * watchers there that do not read: nothing is gathered for them on the way. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "spec/c/core/node/runs_harness.h"

/* A line of nodes in which each reaches only its neighbours; a is the coordinator, and the client
 * is one of the last. */
static struct spec_cluster *begin(uint32_t count, uint64_t *here, uint64_t *there)
{
    static const char *const names[] = {"a", "b", "c", "d"};
    struct spec_cluster *c = cluster_new(5);
    for (uint32_t i = 0; i < count; i++)
        for (uint32_t k = 0; k + 1 < i; k++)
            c->is_cut[i][k] = c->is_cut[k][i] = true;
    for (uint32_t i = 0; i < count; i++) {
        cluster_boot(c, i, &(struct spec_boot){.name = names[i]});
        cluster_add_module(c, i, "m");
        if (i != 0)
            cluster_seed(c, i, 0, cluster_address(i - 1));
    }
    cluster_run(c, MP_SECONDS(15));
    *here = cluster_client(c, 0);
    *there = cluster_client(c, count - 1);
    return c;
}

/* The connection between two nodes, as both number it. */
static uint64_t between(struct spec_cluster *c, uint32_t one, uint32_t other)
{
    for (uint32_t i = c->conn_count; i > 0; i--) {
        const struct spec_conn *k = &c->conns[i];
        if (!k->is_closing && ((k->node[0] == one && k->node[1] == other) ||
                               (k->node[0] == other && k->node[1] == one)))
            return 1ull << 32 | i;
    }
    fail_msg("no link");
    return 0;
}

static void requests_about_runs_pass_through_a_helper(void **state)
{
    (void)state;
    uint64_t here;
    uint64_t there;
    struct spec_cluster *c = begin(3, &here, &there);
    struct spec_id run = begin_detached(c, here, 1, CHAIN);
    cluster_run(c, MP_MS(50));
    ask(c, there, 2, "trace", run);
    ask(c, there, 3, "watch", run);
    ask_result(c, there, 4, run, "x");
    resume(c, there, 5, run, NULL);
    ask(c, there, 6, "watch", run);
    cluster_run(c, MP_MS(10));
    assert_true(c->frames[MP_FRAME_FORWARD] >= 4);
    cluster_cancel(c, there, 6);
    ask(c, there, 7, "cancel", run);
    cluster_run(c, MP_MS(20));
    assert_status(c, there, 2, "running");
    assert_status(c, there, 3, "cancelled");
    assert_true(events(c, there, 3) > 5);
    assert_shows(c, there, 4, "", "[1]");
    assert_reason(c, there, 5, "RUN_GOES_ON");
    assert_reason(c, there, 6, "CANCELLED");
    assert_status(c, there, 7, "cancelled");
    resume(c, there, 8, run, NULL);
    cluster_run(c, MP_MS(10));
    finish(c, 0);
    assert_status(c, there, 8, "succeeded");
    assert_shows(c, there, 8, ".output", "{\"z\":null}");
    cluster_end(c);
}

static void a_watcher_behind_a_helper_hears_that_the_coordinator_died(void **state)
{
    (void)state;
    uint64_t here;
    uint64_t there;
    struct spec_cluster *c = begin(3, &here, &there);
    struct spec_id run = begin_detached(c, here, 1, CHAIN);
    ask(c, there, 2, "watch", run);
    ask(c, there, 3, "watch", run);
    cluster_run(c, MP_MS(50));
    press(c, 2, there, true);
    cluster_run(c, MP_MS(5));
    cluster_kill(c, 0);
    cluster_run(c, MP_MS(10)); /* at once, though it does not read */
    assert_reason(c, there, 2, "COORDINATOR_LOST");
    assert_reason(c, there, 3, "COORDINATOR_LOST");
    press(c, 2, there, false);
    cluster_end(c);
}

static void the_helper_of_a_watcher_dies(void **state)
{
    (void)state;
    uint64_t here;
    uint64_t there;
    struct spec_cluster *c = begin(3, &here, &there);
    struct spec_id run = begin_detached(c, here, 1, CHAIN);
    ask(c, there, 2, "watch", run);
    cluster_run(c, MP_MS(50));
    cluster_kill(c, 1);
    cluster_run(c, MP_MS(10));
    assert_reason(c, there, 2, "COORDINATOR_LOST");
    cluster_run(c, MP_SECONDS(10));
    assert_int_equal(c->nodes[0].node->watch_count, 0);
    finish(c, 0);
    cluster_end(c);
}

/* Membership says nothing any more once a node has left, so it never hears that the coordinator is
 * a new boot now. */
static void one_who_leaves_does_not_dial_the_coordinators_next_boot_for_ever(void **state)
{
    (void)state;
    uint64_t here;
    uint64_t there;
    struct spec_cluster *c = begin(2, &here, &there);
    struct spec_id run = begin_detached(c, here, 1, CHAIN);
    cluster_run(c, MP_MS(50));
    cluster_kill(c, 0);
    cluster_run(c, MP_MS(1));
    cluster_boot(c, 0, &(struct spec_boot){.name = "a"});
    const struct mp_node_event drain = {.kind = MP_NODE_DRAIN};
    ask(c, there, 2, "watch", run);
    cluster_step(c, 1, &drain);
    cluster_run(c, MP_SECONDS(30));
    assert_reason(c, there, 2, "COORDINATOR_LOST");
    assert_true(c->nodes[1].is_drained);
    cluster_end(c);
}

/* Over one hop and over two; what the client pauses, and what a link does. */
static void one_who_does_not_read_behind_other_nodes_is_waited_for(void **state)
{
    (void)state;
    for (uint32_t count = 2; count <= 3; count++)
        for (uint32_t presses_link = 0; presses_link < count - 1; presses_link++) {
            uint64_t here;
            uint64_t there;
            struct spec_cluster *c = begin(count, &here, &there);
            struct spec_id run = begin_detached(c, here, 1, CHAIN);
            ask(c, there, 2, "watch", run);
            ask(c, here, 2, "watch", run);
            cluster_run(c, MP_MS(1));
            uint32_t node = presses_link ? 1 : count - 1;
            uint64_t conn = presses_link ? between(c, 1, 2) : there;
            press(c, node, conn, true);
            cluster_run(c, MP_MS(1));
            uint32_t before = events(c, there, 2);
            uint32_t sent = c->frames[MP_FRAME_EVENT];
            cluster_run(c, MP_MS(100));
            struct spec_id other = begin_detached(c, here, 3, CHAIN); /* something else goes on */
            cluster_run(c, MP_MS(50));
            finish(c, 0);
            assert_int_equal(events(c, there, 2), before);
            assert_int_equal(c->frames[MP_FRAME_EVENT], sent);  /* nobody sends in vain */
            assert_int_equal(c->nodes[0].node->watch_count, 1); /* its place is kept */
            for (uint64_t id = 100; id < 100 + 2 * MP_RUNS_RECENT_MAX; id++) {
                begin_run(c, here, id, QUICK); /* others push it out of memory */
                cluster_run(c, MP_MS(2));
            }
            press(c, node, conn, false);
            cluster_run(c, MP_MS(20));
            assert_same_events(c, here, 2, there, 2, 1);
            assert_status(c, there, 2, "succeeded");
            finish(c, 0);
            ask(c, there, 4, "trace", other);
            cluster_run(c, MP_MS(20));
            assert_status(c, there, 4, "succeeded");
            cluster_end(c);
        }
}

static void a_paused_watch_is_cancelled_or_left(void **state)
{
    (void)state;
    uint64_t here;
    uint64_t there;
    struct spec_cluster *c = begin(2, &here, &there);
    uint64_t gone = cluster_client(c, 1);
    struct spec_id run = begin_detached(c, here, 1, CHAIN);
    ask(c, there, 2, "watch", run);
    ask(c, gone, 3, "watch", run);
    cluster_run(c, MP_MS(50));
    for (uint32_t i = 0; i < 3; i++) { /* again and again */
        press(c, 1, there, true);
        cluster_run(c, i * MP_US(70));
        press(c, 1, there, false);
        cluster_run(c, i * MP_US(70));
    }
    press(c, 1, there, true);
    press(c, 1, gone, true);
    cluster_run(c, MP_MS(5));
    cluster_cancel(c, there, 2);
    leave(c, gone);
    assert_reason(c, there, 2, "CANCELLED");
    (void)events(c, there, 2);
    press(c, 1, there, false);
    cluster_run(c, MP_MS(50));
    assert_int_equal(c->nodes[0].node->watch_count, 0);
    assert_int_equal(c->nodes[1].node->out_count, 0);
    finish(c, 0);
    cluster_end(c);
}

static void one_who_never_reads_is_given_up(void **state)
{
    (void)state;
    uint64_t here;
    uint64_t there;
    struct spec_cluster *c = begin(3, &here, &there);
    struct spec_id run = begin_detached(c, here, 1, CHAIN);
    ask(c, there, 2, "watch", run);
    cluster_run(c, MP_MS(1));
    press(c, 2, there, true);
    cluster_run(c, MP_MS(20));
    finish(c, 0);
    cluster_run(c, MP_MS(MP_WATCH_BEHIND_MS) + MP_SECONDS(1));
    assert_reason(c, there, 2, "WATCHER_BEHIND");
    assert_int_equal(c->nodes[0].node->watch_count, 0);
    cluster_end(c);
}

/* Pressed and released at any moment of a run: the events are the same, none is missing. */
static void pressure_comes_and_goes_at_any_moment(void **state)
{
    (void)state;
    for (mp_duration after = 0; after < MP_MS(2); after += MP_US(50)) {
        uint64_t here;
        uint64_t there;
        struct spec_cluster *c = begin(2, &here, &there);
        struct spec_id run = begin_detached(c, here, 1, CHAIN);
        ask(c, there, 2, "watch", run);
        ask(c, here, 2, "watch", run);
        cluster_run(c, after);
        press(c, 1, there, true);
        cluster_run(c, after % MP_US(350));
        press(c, 1, there, false);
        cluster_run(c, MP_MS(5));
        press(c, 1, there, true);
        finish(c, 0);
        press(c, 1, there, false);
        cluster_run(c, MP_MS(5));
        assert_same_events(c, here, 2, there, 2, 1);
        assert_status(c, there, 2, "succeeded");
        (void)events(c, there, 2);
        cluster_end(c);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_about_runs_pass_through_a_helper),
        cmocka_unit_test(a_watcher_behind_a_helper_hears_that_the_coordinator_died),
        cmocka_unit_test(the_helper_of_a_watcher_dies),
        cmocka_unit_test(one_who_leaves_does_not_dial_the_coordinators_next_boot_for_ever),
        cmocka_unit_test(one_who_does_not_read_behind_other_nodes_is_waited_for),
        cmocka_unit_test(a_paused_watch_is_cancelled_or_left),
        cmocka_unit_test(one_who_never_reads_is_given_up),
        cmocka_unit_test(pressure_comes_and_goes_at_any_moment),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
