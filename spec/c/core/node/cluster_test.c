/* Calls between nodes: answers, errors, deadlines and cancels on every stage of their way, lost
 * links, nodes that turn a call down, and back-pressure. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "spec/c/core/node/cluster_asserts.h"

static void a_call_goes_where_its_function_is(void **state)
{
    (void)state;
    uint64_t client;
    struct spec_cluster *c = cluster_begin(2, 2, &client);
    cluster_call(c, client, 1, &(struct spec_call){.fun = "m.echo"});
    cluster_call(c, client, 2, &(struct spec_call){.fun = "m.echo", .payload_bytes = 200000});
    cluster_call(c, client, 3, &(struct spec_call){.fun = "m.big"});
    cluster_run(c, MP_MS(5));
    const struct spec_reply *r = cluster_answer(c, client, 1);
    assert_result(c, client, 1);
    assert_int_equal(r->size, 2);
    assert_memory_equal(r->data, "\x91\x01", 2);
    assert_result(c, client, 2);
    assert_true(cluster_answer(c, client, 2)->size > 200000);
    assert_result(c, client, 3); /* no step of a run: nothing is held */
    assert_true(cluster_answer(c, client, 3)->size > SPEC_BIG_BYTES);
    cluster_end(c);
}

static void an_error_comes_back_with_its_traceback(void **state)
{
    (void)state;
    uint64_t client;
    struct spec_cluster *c = cluster_begin(2, 2, &client);
    cluster_call(c, client, 1, &(struct spec_call){.fun = "m.fail"});
    cluster_run(c, MP_MS(5));
    const struct mp_fault fault = assert_reason(c, client, 1, "ERROR");
    assert_true(mp_slice_is(fault.node, "b"));
    assert_true(mp_slice_is(fault.fun, "m.fail"));
    assert_int_equal(fault.traceback.size, 7);
    assert_int_equal(fault.attempt, 1);
    cluster_end(c);
}

static void the_deadline_travels(void **state)
{
    (void)state;
    uint64_t client;
    struct spec_cluster *c = cluster_begin(2, 2, &client);
    cluster_call(c, client, 1, &(struct spec_call){.fun = "m.slow", .timeout_ms = 100});
    cluster_run(c, MP_MS(50));
    assert_null(cluster_answer(c, client, 1));
    assert_non_null(cluster_task_of(c, 1, SPEC_SLOW));
    cluster_run(c, MP_MS(55));
    assert_reason(c, client, 1, "DEADLINE_EXCEEDED");
    assert_true(cluster_task_of(c, 1, SPEC_SLOW) == NULL ||
                cluster_task_of(c, 1, SPEC_SLOW)->is_cancelled);
    cluster_end(c);
}

/* Cancelled at each moment of its way, to the microsecond: one answer, and nothing is left. */
static void a_cancel_may_come_at_any_moment(void **state)
{
    (void)state;
    uint64_t client;
    struct spec_cluster *c = cluster_begin(2, 2, &client);
    uint64_t id = 0;
    uint32_t cancelled = 0;
    for (mp_duration after = 0; after < MP_US(600); after += MP_US(10)) {
        cluster_call(c, client, ++id, &(struct spec_call){.fun = "m.echo"});
        cluster_run(c, after);
        cluster_cancel(c, client, id);
        cluster_run(c, MP_MS(3));
        const struct spec_reply *r = cluster_answer(c, client, id);
        assert_non_null(r);
        cancelled += r->frame == MP_FRAME_ERROR;
        if (r->frame == MP_FRAME_ERROR)
            assert_reason(c, client, id, "CANCELLED");
    }
    assert_true(cancelled > 10 && cancelled < id);
    cluster_end(c);
}

static void a_running_call_is_cancelled_there(void **state)
{
    (void)state;
    uint64_t client;
    struct spec_cluster *c = cluster_begin(2, 2, &client);
    cluster_call(c, client, 1, &(struct spec_call){.fun = "m.slow"});
    cluster_run(c, MP_MS(5));
    assert_non_null(cluster_task_of(c, 1, SPEC_SLOW));
    cluster_cancel(c, client, 1);
    assert_reason(c, client, 1, "CANCELLED");
    cluster_run(c, MP_MS(5));
    assert_null(cluster_task_of(c, 1, SPEC_SLOW));
    cluster_call(c, client, 2, &(struct spec_call){.fun = "m.slow"});
    cluster_run(c, MP_MS(5));
    cluster_close(c, client); /* who goes away cancels as well */
    cluster_run(c, MP_MS(5));
    assert_null(cluster_task_of(c, 1, SPEC_SLOW));
    cluster_end(c);
}

static void what_may_have_begun_is_lost_with_the_link(void **state)
{
    (void)state;
    uint64_t client;
    struct spec_cluster *c = cluster_begin(2, 2, &client);
    cluster_call(c, client, 1, &(struct spec_call){.fun = "m.slow"});
    cluster_run(c, MP_MS(5));
    cluster_break(c, cluster_link(c, 0, "b")->client);
    cluster_run(c, MP_MS(5));
    const struct mp_fault fault = assert_reason(c, client, 1, "NODE_LOST");
    assert_true(mp_slice_is(fault.node, "b"));
    assert_int_equal(c->nodes[1].begins[SPEC_SLOW], 1);
    cluster_end(c);
}

static void an_idempotent_one_runs_again_once(void **state)
{
    (void)state;
    uint64_t client;
    struct spec_cluster *c = cluster_begin(3, 6, &client);
    cluster_call(c, client, 1, &(struct spec_call){.fun = "m.idem"});
    cluster_run(c, MP_MS(5));
    uint32_t first = cluster_task_of(c, 1, SPEC_IDEM) ? 1 : 2;
    cluster_break(c, cluster_link(c, 0, first == 1 ? "b" : "c")->client);
    cluster_run(c, MP_MS(20));
    assert_null(cluster_answer(c, client, 1));
    assert_true(cluster_finish(c, 3 - first, SPEC_IDEM)); /* the other one has it */
    cluster_run(c, MP_MS(5));
    assert_result(c, client, 1);
    /* And no more often. */
    cluster_call(c, client, 2, &(struct spec_call){.fun = "m.idem"});
    for (int i = 0; i < 2; i++) {
        cluster_run(c, MP_MS(20));
        uint32_t at = cluster_task_of(c, 1, SPEC_IDEM) ? 1 : 2;
        assert_non_null(cluster_task_of(c, at, SPEC_IDEM));
        assert_null(cluster_answer(c, client, 2));
        cluster_break(c, cluster_link(c, 0, at == 1 ? "b" : "c")->client);
    }
    cluster_run(c, MP_MS(20));
    assert_reason(c, client, 2, "NODE_LOST");
    cluster_end(c);
}

static void retries_are_for_what_was_lost_too(void **state)
{
    (void)state;
    uint64_t client;
    struct spec_cluster *c = cluster_begin(2, 2, &client);
    cluster_call(c, client, 1, &(struct spec_call){.fun = "m.slow", .retries = 1});
    cluster_run(c, MP_MS(5));
    cluster_break(c, cluster_link(c, 0, "b")->client);
    cluster_run(c, MP_MS(500));
    assert_int_equal(c->nodes[1].begins[SPEC_SLOW], 2);
    assert_true(cluster_finish(c, 1, SPEC_SLOW));
    cluster_run(c, MP_MS(5));
    assert_result(c, client, 1);
    cluster_end(c);
}

/* The link is lost at the very moment at which the attempt's own time is up. */
static void a_lost_attempt_may_be_overdue_as_well(void **state)
{
    (void)state;
    for (int offset = 0; offset < 40; offset++) {
        uint64_t client;
        struct spec_cluster *c = cluster_begin(2, 2, &client);
        cluster_call(c, client, 1,
                     &(struct spec_call){.fun = "m.slow", .retries = 2, .timeout_ms = 20000});
        cluster_call(c, client, 2, &(struct spec_call){.fun = "m.idem", .timeout_ms = 3000});
        cluster_run(c, MP_MS(5));
        c->is_cut[0][1] = c->is_cut[1][0] = true;
        c->has_frames_lost[0][1] = c->has_frames_lost[1][0] = true;
        /* A slow driver: membership finds the other one dead in the step in which time is up. */
        mp_time stop = c->now + MP_MS(2000 + 100 * offset);
        while (c->nodes[0].node->links_up != 0 && c->now < stop)
            cluster_run(c, MP_MS(1));
        c->now = stop;
        cluster_run(c, MP_SECONDS(30));
        assert_non_null(cluster_answer(c, client, 1));
        assert_non_null(cluster_answer(c, client, 2));
        cluster_end(c);
    }
}

static void a_draining_node_turns_calls_down(void **state)
{
    (void)state;
    uint64_t client;
    struct spec_cluster *c = cluster_begin(3, 6, &client);
    cluster_call(c, client, 100, &(struct spec_call){.fun = "m.echo", .on = "b"});
    cluster_call(c, client, 101, &(struct spec_call){.fun = "m.echo", .on = "c"});
    cluster_run(c, MP_MS(20));
    /* b drains; what a has sent until it hears of that is turned down. */
    c->is_cut[1][0] = c->is_cut[1][2] = true;
    const struct mp_node_event drain = {.kind = MP_NODE_DRAIN};
    for (uint64_t id = 1; id <= 20; id++)
        cluster_call(c, client, id, &(struct spec_call){.fun = "m.slow"});
    cluster_step(c, 1, &drain);
    cluster_run(c, MP_MS(5));
    for (uint64_t id = 1; id <= 20; id++)
        assert_null(cluster_answer(c, client, id));
    assert_int_equal(c->nodes[1].begins[SPEC_SLOW], 0);
    assert_int_equal(c->nodes[2].begins[SPEC_SLOW], 20);
    for (uint64_t id = 1; id <= 20; id++) {
        assert_true(cluster_finish(c, 2, SPEC_SLOW));
        cluster_run(c, MP_MS(1));
    }
    for (uint64_t id = 1; id <= 20; id++)
        assert_result(c, client, id);
    /* By now a knows, and does not even ask. */
    cluster_call(c, client, 30, &(struct spec_call){.fun = "m.echo", .on = "b"});
    cluster_run(c, MP_MS(5));
    (void)assert_reason(c, client, 30, "NO_NODE");
    cluster_kill(c, 1);
    cluster_end(c);
}

static void a_dead_address_is_passed_over(void **state)
{
    (void)state;
    uint64_t client;
    struct spec_cluster *c = cluster_begin(3, 6, &client);
    cluster_run(c, MP_SECONDS(40)); /* links of old are maybe up */
    cluster_kill(c, 1);
    cluster_run(c, MP_MS(1));
    for (uint64_t id = 1; id <= 20; id++)
        cluster_call(c, client, id, &(struct spec_call){.fun = "m.echo"});
    cluster_run(c, MP_MS(50));
    for (uint64_t id = 1; id <= 20; id++)
        assert_result(c, client, id);
    cluster_end(c);
}

static void under_pressure_calls_wait(void **state)
{
    (void)state;
    uint64_t client;
    struct spec_cluster *c = cluster_begin(2, 2, &client);
    uint64_t link = cluster_link(c, 0, "b")->client;
    struct mp_node_event ev = {.kind = MP_NODE_PRESSURE,
                               .pressure = {.client = link, .is_high = true}};
    cluster_step(c, 0, &ev);
    for (uint64_t id = 1; id <= 5; id++)
        cluster_call(c, client, id, &(struct spec_call){.fun = "m.echo"});
    cluster_run(c, MP_MS(5));
    assert_int_equal(c->nodes[1].begins[SPEC_ECHO], 0);
    cluster_cancel(c, client, 2); /* while it is queued: it never goes out */
    assert_reason(c, client, 2, "CANCELLED");
    ev.pressure.is_high = false;
    cluster_step(c, 0, &ev);
    cluster_run(c, MP_MS(5));
    assert_int_equal(c->nodes[1].begins[SPEC_ECHO], 4);
    for (uint64_t id = 1; id <= 5; id++)
        if (id != 2)
            assert_result(c, client, id);
    cluster_end(c);
}

/* What was not sent when its link ended goes over the next one, and costs no attempt. */
static void what_was_queued_goes_over_the_next_link(void **state)
{
    (void)state;
    uint64_t client;
    struct spec_cluster *c = cluster_begin(2, 2, &client);
    uint64_t link = cluster_link(c, 0, "b")->client;
    const struct mp_node_event ev = {.kind = MP_NODE_PRESSURE,
                                     .pressure = {.client = link, .is_high = true}};
    cluster_step(c, 0, &ev);
    cluster_call(c, client, 1, &(struct spec_call){.fun = "m.fail"});
    cluster_break(c, link);
    cluster_run(c, MP_MS(5));
    const struct mp_fault fault = assert_reason(c, client, 1, "ERROR");
    assert_int_equal(fault.attempt, 1);
    cluster_end(c);
}

/* Sent and lost in one step: the frame never left, so its bytes may go, and nothing has begun. */
static void what_the_driver_has_not_seen_was_not_sent(void **state)
{
    (void)state;
    uint64_t client;
    struct spec_cluster *c = cluster_begin(2, 2, &client);
    struct mp_node *n = c->nodes[0].node;
    uint64_t connection = cluster_link(c, 0, "b")->client;
    uint32_t link = mp_node_link_of_client(n, connection);
    struct mp_node_event ev = {.kind = MP_NODE_PRESSURE,
                               .pressure = {.client = connection, .is_high = true}};
    cluster_step(c, 0, &ev);
    cluster_call(c, client, 1, &(struct spec_call){.fun = "m.echo", .payload_bytes = 1000});
    n->steps++;
    n->effect_count = 0;
    n->links[link].is_high = false;
    mp_node_outs_flush(n, link);
    assert_int_equal(n->effect_count, 1);
    assert_int_equal(n->effects[0].frame, MP_FRAME_CALL);
    mp_node_outs_lost(n, c->now, link);
    assert_int_equal(n->effect_count, 0);
    ev.kind = MP_NODE_TIMER;
    cluster_step(c, 0, &ev);
    const struct mp_fault fault = assert_reason(c, client, 1, "NODE_LOST");
    assert_int_equal(fault.attempt, 0); /* none that counts */
    assert_int_equal(c->nodes[1].begins[SPEC_ECHO], 0);
    cluster_end(c);
}

static void entries_and_metadata_travel(void **state)
{
    (void)state;
    struct spec_cluster *c = cluster_new(3);
    cluster_boot_all(c, 4, 0);
    uint64_t ours[MP_CATALOG_BUCKETS];
    uint64_t theirs[MP_CATALOG_BUCKETS];
    cluster_add_module(c, 2, "late");
    cluster_run(c, MP_SECONDS(6));
    mp_catalog_digests(mp_node_catalog(c->nodes[0].node), ours);
    for (uint32_t i = 1; i < 4; i++) {
        const struct mp_catalog *catalog = mp_node_catalog(c->nodes[i].node);
        mp_catalog_digests(catalog, theirs);
        assert_memory_equal(ours, theirs, sizeof(ours));
        assert_int_equal(catalog->function_count, 7);
    }
    uint64_t client = cluster_client(c, 3);
    cluster_call(c, client, 1, &(struct spec_call){.fun = "late.echo"});
    cluster_run(c, MP_MS(20));
    assert_result(c, client, 1);
    cluster_end(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_call_goes_where_its_function_is),
        cmocka_unit_test(an_error_comes_back_with_its_traceback),
        cmocka_unit_test(the_deadline_travels),
        cmocka_unit_test(a_cancel_may_come_at_any_moment),
        cmocka_unit_test(a_running_call_is_cancelled_there),
        cmocka_unit_test(what_may_have_begun_is_lost_with_the_link),
        cmocka_unit_test(an_idempotent_one_runs_again_once),
        cmocka_unit_test(retries_are_for_what_was_lost_too),
        cmocka_unit_test(a_lost_attempt_may_be_overdue_as_well),
        cmocka_unit_test(a_draining_node_turns_calls_down),
        cmocka_unit_test(a_dead_address_is_passed_over),
        cmocka_unit_test(under_pressure_calls_wait),
        cmocka_unit_test(what_was_queued_goes_over_the_next_link),
        cmocka_unit_test(what_the_driver_has_not_seen_was_not_sent),
        cmocka_unit_test(entries_and_metadata_travel),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
