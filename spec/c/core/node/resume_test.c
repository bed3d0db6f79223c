/* Runs that go on with what an earlier one had: which steps run again and which do not, whatever
 * became of the node, of its disk, and of large results here and elsewhere. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "spec/c/core/node/runs_harness.h"

static struct spec_cluster *begin(uint64_t clients[3])
{
    struct spec_cluster *c = cluster_begin(3, 7, &clients[0]);
    clients[1] = cluster_client(c, 1);
    clients[2] = cluster_client(c, 2);
    return c;
}

/* A run of which z failed; the steps before had succeeded. */
static struct spec_id failed_run(struct spec_cluster *c, uint64_t client, uint64_t id,
                                 const char *graph, uint32_t slow_node)
{
    begin_run(c, client, id, graph);
    cluster_run(c, MP_MS(50));
    fail_slow(c, slow_node);
    assert_status(c, client, id, "failed");
    return run_of(c, client, id);
}

static void what_had_succeeded_does_not_run_again(void **state)
{
    (void)state;
    uint64_t clients[3];
    struct spec_cluster *c = begin(clients);
    struct spec_id run = failed_run(c, clients[0], 1, CHAIN, 0);
    uint32_t echoes = begins(c, SPEC_ECHO);
    assert_int_equal(echoes, 2);
    begin_run(c, clients[0], 2, "{\"resume\":7}");
    assert_reason(c, clients[0], 2, "BAD_RUN_ID");
    resume(c, clients[0], 3, run, NULL);
    cluster_run(c, MP_MS(5));
    resume(c, clients[1], 4, run, NULL); /* twice: each is a run of its own */
    cluster_run(c, MP_MS(5));
    finish(c, 0);
    finish(c, 0);
    char from[40];
    snprintf(from, sizeof(from), "\"%s\"", run.text);
    for (uint32_t i = 0; i < 2; i++) {
        assert_status(c, clients[i], 3 + i, "succeeded");
        assert_shows(c, clients[i], 3 + i, ".resumed_from", from);
        assert_shows(c, clients[i], 3 + i, ".output", "{\"z\":null}");
        assert_shows(c, clients[i], 3 + i, ".steps[1].attempts", "0");
        assert_shows(c, clients[i], 3 + i, ".lost_results", "(missing)");
    }
    assert_int_equal(begins(c, SPEC_ECHO), echoes);
    ask(c, clients[0], 5, "runs", run);
    assert_shows(c, clients[0], 5, ".runs[1].resumed_from", from);
    assert_shows(c, clients[0], 5, ".runs[3].status", "\"failed\"");
    cluster_end(c);
}

static void a_resumed_run_is_followed_and_left(void **state)
{
    (void)state;
    uint64_t clients[3];
    char payload[100];
    struct spec_cluster *c = begin(clients);
    struct spec_id run = failed_run(c, clients[0], 1, CHAIN, 0);
    snprintf(payload, sizeof(payload), "{\"resume\":\"%s\"}", run.text);
    begin_with(c, clients[0], 2, payload, "{\"follow\":true}");
    begin_with(c, clients[1], 2, payload, "{\"follow\":true}");
    begin_with(c, clients[1], 3, payload, "{\"detach\":true}");
    cluster_run(c, MP_MS(10));
    struct spec_id left = run_of(c, clients[1], 3);
    assert_true(strcmp(left.text, run.text) != 0);
    for (uint32_t i = 0; i < 3; i++)
        finish(c, 0);
    assert_status(c, clients[0], 2, "succeeded");
    assert_status(c, clients[1], 2, "succeeded");
    assert_true(events(c, clients[0], 2) > 6);
    assert_int_equal(events(c, clients[1], 2), events(c, clients[0], 2));
    ask(c, clients[0], 4, "trace", left);
    assert_status(c, clients[0], 4, "succeeded");
    cluster_end(c);
}

static void a_succeeded_run_runs_again_only_from_a_step_on(void **state)
{
    (void)state;
    uint64_t clients[3];
    struct spec_cluster *c = begin(clients);
    begin_run(c, clients[0], 1, CHAIN);
    cluster_run(c, MP_MS(50));
    finish(c, 0);
    struct spec_id run = run_of(c, clients[0], 1);
    resume(c, clients[1], 2, run, NULL);
    resume(c, clients[1], 3, run, "yy");
    cluster_run(c, MP_MS(5));
    assert_reason(c, clients[1], 2, "RUN_SUCCEEDED");
    struct mp_fault fault = assert_reason(c, clients[1], 3, "UNKNOWN_STEP");
    assert_true(mp_slice_is(fault.hint, "did you mean y?"));
    resume(c, clients[1], 4, run, "y");
    cluster_run(c, MP_MS(5));
    finish(c, 0);
    assert_status(c, clients[1], 4, "succeeded");
    assert_int_equal(begins(c, SPEC_ECHO), 3); /* x, y, and y */
    assert_int_equal(begins(c, SPEC_SLOW), 2);
    resume(c, clients[1], 5, run, "x");
    cluster_run(c, MP_MS(5));
    finish(c, 0);
    assert_int_equal(begins(c, SPEC_ECHO), 5);
    cluster_end(c);
}

static void a_run_that_goes_on_is_not_resumed(void **state)
{
    (void)state;
    uint64_t clients[3];
    struct spec_cluster *c = begin(clients);
    struct spec_id run = begin_detached(c, clients[0], 1, CHAIN);
    cluster_run(c, MP_MS(50));
    resume(c, clients[0], 2, run, NULL);
    resume(c, clients[1], 2, run, "x");
    cluster_run(c, MP_MS(5));
    assert_reason(c, clients[0], 2, "RUN_GOES_ON");
    assert_reason(c, clients[1], 2, "RUN_GOES_ON");
    finish(c, 0);
    cluster_end(c);
}

/* --- after a restart --- */

static void a_run_is_resumed_from_the_disk(void **state)
{
    (void)state;
    uint64_t clients[3];
    struct spec_cluster *c = begin(clients);
    struct spec_id run = failed_run(c, clients[0], 1, CHAIN, 0);
    cluster_run(c, MP_SECONDS(1));
    reboot(c, 0, "a");
    resume(c, clients[2], 2, run, NULL);
    cluster_run(c, MP_MS(10));
    finish(c, 0);
    assert_status(c, clients[2], 2, "succeeded");
    assert_int_equal(begins(c, SPEC_ECHO), 2);
    cluster_end(c);
}

static void a_lost_run_is_resumed_with_what_had_finished(void **state)
{
    (void)state;
    uint64_t clients[3];
    struct spec_cluster *c = begin(clients);
    struct spec_id run = begin_detached(c, clients[0], 1, CHAIN);
    cluster_run(c, MP_MS(300));
    for (uint32_t boot = 0; boot < 2; boot++) {
        reboot(c, 0, "a");
        resume(c, clients[1], 2 + boot, run, NULL);
        cluster_run(c, MP_MS(300));
    }
    finish(c, 0);
    assert_status(c, clients[1], 3, "succeeded");
    assert_shows(c, clients[1], 3, ".output", "{\"z\":null}");
    assert_int_equal(begins(c, SPEC_ECHO), 2);
    cluster_end(c);
}

/* --- pipelines that changed --- */

static void add_pipeline(struct spec_cluster *c, uint32_t node, const char *graph)
{
    struct spec_alloc counted = {.fail_at = SPEC_NEVER};
    struct mp_alloc alloc = spec_alloc_of(&counted);
    char text[1024];
    char hash[65] = "00000000000000000000000000000000000000000000000000000000000000";
    struct mp_buf b;
    mp_buf_init(&b, &alloc, 0);
    snprintf(text, sizeof(text), "{\"kind\":\"pipeline\",\"version\":\"1.0.0\",\"graph\":%s}",
             graph);
    snprintf(hash + 48, 17, "%016llx", (unsigned long long)mp_slice_hash(mp_slice_str(graph), 1));
    (void)tiny_read(text, &b);
    const struct mp_node_event ev = {.kind = MP_NODE_MODULE,
                                     .module = {.host_module = 1,
                                                .name = mp_slice_str("pipe"),
                                                .hash = mp_slice_of(hash, 64),
                                                .metadata = mp_buf_slice(&b)}};
    cluster_step(c, node, &ev);
    mp_buf_fini(&b);
}

static void a_pipeline_that_changed_its_shape_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *graph;
        const char *why; /* NULL: it may be resumed */
    } changes[] = {
        {GRAPH(STEP("x", "echo", "a", "7") "," STEP("y", "echo", "a",
                                                    REF("x")) "," STEP("z", "idem", "a", REF("y"))),
         "step z calls another function now"},
        {GRAPH(STEP("x", "echo", "a", "7") "," STEP("y", "echo", "a", "1") "," STEP("z", "slow",
                                                                                    "a", REF("y"))),
         "step y depends on other steps now"},
        {GRAPH(STEP("x", "echo", "a", "7") "," STEP("y", "echo", "a",
                                                    REF("x")) "," STEP("w", "slow", "a", REF("y"))),
         "step w was not there before"},
        {GRAPH(STEP("x", "echo", "a", "7") "," STEP("y", "echo", "a", REF("x"))),
         "some steps are not there any more"},
        {GRAPH(STEP("x", "echo", "a",
                    "7") ","
                         "{\"name\":\"y\",\"call\":\"m.echo\",\"on\":\"a\",\"each\":" REF(
                             "x") ",\"args\":"
                                  "[1]}," STEP("z", "slow", "a", REF("y"))),
         "step y is made for each element of a list now"},
        {GRAPH(STEP("z", "slow", "a", REF("y") ",9") "," STEP("y", "echo", "a", REF("x")) "," STEP(
             "x", "echo", "a", "7")),
         NULL}, /* other arguments, another order: the same shape */
    };
    uint64_t clients[3];
    struct spec_cluster *c = begin(clients);
    add_pipeline(c, 0, CHAIN);
    struct spec_id run = failed_run(c, clients[0], 1, "{\"pipeline\":\"pipe\"}", 0);
    cluster_run(c, MP_SECONDS(1));
    for (uint32_t i = 0; i < MP_ARRAY_SIZE(changes); i++) {
        cluster_kill(c, 0);
        cluster_boot(c, 0, &(struct spec_boot){.name = "a"});
        cluster_add_module(c, 0, "m");
        add_pipeline(c, 0, changes[i].graph);
        cluster_seed(c, 0, 0, cluster_address(1));
        cluster_run(c, MP_SECONDS(3));
        resume(c, clients[1], 10 + i, run, NULL);
        cluster_run(c, MP_MS(10));
        if (!changes[i].why) {
            finish(c, 0);
            assert_status(c, clients[1], 10 + i, "succeeded");
            continue;
        }
        struct mp_fault fault = assert_reason(c, clients[1], 10 + i, "GRAPH_CHANGED");
        char message[512];
        snprintf(message, sizeof(message), "%.*s", (int)fault.message.size,
                 (const char *)fault.message.data);
        if (!strstr(message, changes[i].why))
            fail_msg("wanted %s, got %s", changes[i].why, message);
        assert_int_equal(c->nodes[0].node->watch_count, 0);
    }
    assert_int_equal(begins(c, SPEC_ECHO), 2);
    reboot(c, 0, "a"); /* without it */
    resume(c, clients[1], 30, run, NULL);
    cluster_run(c, MP_MS(10));
    assert_int_equal(cluster_answer(c, clients[1], 30)->frame, MP_FRAME_ERROR);
    cluster_end(c);
}

static void a_refused_resume_leaves_no_watcher(void **state)
{
    (void)state;
    uint64_t clients[3];
    char payload[100];
    struct spec_cluster *c = begin(clients);
    add_pipeline(c, 0, CHAIN);
    struct spec_id run = failed_run(c, clients[0], 1, "{\"pipeline\":\"pipe\"}", 0);
    cluster_run(c, MP_SECONDS(1));
    cluster_kill(c, 0);
    cluster_boot(c, 0, &(struct spec_boot){.name = "a"});
    cluster_add_module(c, 0, "m");
    add_pipeline(c, 0, QUICK);
    uint64_t client = cluster_client(c, 0);
    snprintf(payload, sizeof(payload), "{\"resume\":\"%s\"}", run.text);
    begin_with(c, client, 2, payload, "{\"follow\":true}");
    cluster_run(c, MP_MS(10));
    assert_reason(c, client, 2, "GRAPH_CHANGED");
    press(c, 0, client, true);
    press(c, 0, client, false);
    assert_int_equal(c->nodes[0].node->watch_count, 0);
    assert_int_equal(c->nodes[0].node->over_count, 0);
    cluster_end(c);
}

/* --- large results --- */

/* x makes one on a node, and z, on another, reads it. */
#define LARGE(maker, reader)                                                                       \
    GRAPH("{\"name\":\"x\",\"call\":\"m.big\",\"on\":\"" maker                                     \
          "\"}," STEP("z", "slow", reader, REF("x.n")))

static void a_large_result_is_kept_and_read_back(void **state)
{
    (void)state;
    static const char *const graphs[] = {LARGE("a", "a"), LARGE("b", "a"), LARGE("b", "c"),
                                         LARGE("b", "b")};
    static const uint32_t readers[] = {0, 0, 2, 1};
    for (uint32_t boots = 0; boots < 2; boots++)
        for (uint32_t i = 0; i < MP_ARRAY_SIZE(graphs); i++) {
            uint64_t clients[3];
            struct spec_cluster *c = begin(clients);
            struct spec_id run = failed_run(c, clients[0], 1, graphs[i], readers[i]);
            cluster_run(c, MP_SECONDS(10)); /* whoever held it has let go */
            if (boots)
                reboot(c, 0, "a");
            ask_result(c, clients[1], 2, run, "x");
            resume(c, clients[1], 3, run, NULL);
            cluster_run(c, MP_MS(20));
            assert_int_equal(cluster_answer(c, clients[1], 2)->frame, MP_FRAME_RESULT);
            assert_true(cluster_answer(c, clients[1], 2)->size > SPEC_BIG_BYTES);
            finish(c, readers[i]);
            assert_status(c, clients[1], 3, "succeeded");
            assert_int_equal(begins(c, SPEC_BIG), 1);
            /* What was taken over is kept with the new run too. */
            struct spec_id next = run_of(c, clients[1], 3);
            resume(c, clients[1], 4, next, "z");
            cluster_run(c, MP_MS(20));
            finish(c, readers[i]);
            assert_status(c, clients[1], 4, "succeeded");
            assert_int_equal(begins(c, SPEC_BIG), 1);
            cluster_end(c);
        }
}

/* The failure is told before all is gathered that the record shall have. */
static void a_resume_waits_for_what_is_gathered(void **state)
{
    (void)state;
    for (uint32_t asks = 0; asks < 2; asks++) {
        uint64_t clients[3];
        struct spec_cluster *c = begin(clients);
        begin_run(c, clients[0], 1, LARGE("b", "c"));
        cluster_run(c, MP_MS(50));
        struct spec_task *t = cluster_task_of(c, 2, SPEC_SLOW);
        cluster_fail_task(c, 2, t, MP_CODE_INTERNAL, "ERROR");
        while (!cluster_answer(c, clients[0], 1))
            cluster_run(c, MP_US(10));
        struct spec_id run = run_of(c, clients[0], 1);
        if (asks == 1)
            c->latency = MP_MS(50);
        ask(c, clients[0], 2, "runs", run);
        assert_shows(c, clients[0], 2, ".runs[1].status", "\"failed\"");
        resume(c, clients[0], 3, run, NULL);
        ask(c, clients[0], 4, "trace", run);
        cluster_run(c, MP_MS(400));
        finish(c, 2);
        cluster_run(c, MP_MS(100));
        assert_status(c, clients[0], 3, "succeeded");
        assert_status(c, clients[0], 4, "failed");
        assert_int_equal(begins(c, SPEC_BIG), 1);
        cluster_end(c);
    }
}

static void a_node_that_stops_does_not_wait_for_what_is_gathered(void **state)
{
    (void)state;
    uint64_t clients[3];
    struct spec_cluster *c = begin(clients);
    begin_run(c, clients[0], 1, LARGE("b", "c"));
    cluster_run(c, MP_MS(50));
    const struct mp_node_event drain = {.kind = MP_NODE_DRAIN};
    cluster_step(c, 0, &drain);
    cluster_run(c, MP_MS(20));
    fail_slow(c, 2);
    cluster_run(c, MP_SECONDS(2));
    assert_true(c->nodes[0].is_drained);
    struct spec_id run = run_of(c, clients[0], 1);
    reboot(c, 0, "a");
    ask(c, clients[1], 2, "trace", run);
    cluster_run(c, MP_MS(20));
    assert_status(c, clients[1], 2, "failed");
    cluster_end(c);
}

static void a_step_whose_result_is_gone_runs_again_if_it_is_needed(void **state)
{
    (void)state;
    uint64_t clients[3];
    struct spec_cluster *c = begin(clients);
    /* u is read by v, which succeeded; x by z, which did not. */
    struct spec_id run = failed_run(
        c, clients[0], 1,
        "{\"output\":" REF("z") ",\"steps\":["
                                "{\"name\":\"u\",\"call\":\"m.big\",\"on\":\"a\"}," STEP(
                                    "v", "size", "a",
                                    REF("u")) ","
                                              "{\"name\":\"x\",\"call\":\"m.big\","
                                              "\"on\":\"a\"}," STEP("z", "slow", "a",
                                                                    REF("x.n") "," REF("v")) "]}",
        0);
    cluster_run(c, MP_SECONDS(1));
    assert_non_null(disk_find(&c->nodes[0].disk, run.text, "result/u"));
    disk_drop(&c->nodes[0].disk, run.text, "result/");
    ask_result(c, clients[1], 2, run, "x");
    resume(c, clients[1], 3, run, NULL);
    cluster_run(c, MP_MS(20));
    finish(c, 0);
    assert_status(c, clients[1], 3, "succeeded");
    assert_shows(c, clients[1], 3, ".lost_results", "[\"x\"]");
    assert_int_equal(begins(c, SPEC_BIG), 3);
    struct spec_id next = run_of(c, clients[1], 3);
    cluster_run(c, MP_SECONDS(1));
    ask_result(c, clients[1], 4, next, "x");
    ask_result(c, clients[1], 5, next, "u");
    cluster_run(c, MP_MS(20));
    assert_true(cluster_answer(c, clients[1], 4)->size > SPEC_BIG_BYTES);
    assert_reason(c, clients[1], 5, "RESULT_LOST"); /* what stands for it is not it */
    reboot(c, 0, "a");
    ask_result(c, clients[1], 6, run, "x");
    ask_result(c, clients[1], 7, next, "x");
    cluster_run(c, MP_MS(20));
    assert_reason(c, clients[1], 6, "RESULT_LOST");
    assert_true(cluster_answer(c, clients[1], 7)->size > SPEC_BIG_BYTES);
    cluster_end(c);
}

static void a_result_that_is_held_elsewhere_is_shown(void **state)
{
    (void)state;
    uint64_t clients[3];
    struct spec_cluster *c = begin(clients);
    uint64_t gone = cluster_client(c, 0);
    begin_run(c, clients[0], 1, LARGE("b", "c"));
    cluster_run(c, MP_MS(50));
    ask(c, clients[0], 2, "runs", (struct spec_id){""});
    struct spec_id run = {{0}};
    memcpy(run.text, show(c, clients[0], 2, ".runs[1].run_id") + 1, MP_RUN_ID_BYTES);
    ask_result(c, clients[2], 3, run, "x");
    ask_result(c, gone, 3, run, "x");
    leave(c, gone);
    cluster_run(c, MP_MS(20));
    assert_true(cluster_answer(c, clients[2], 3)->size > SPEC_BIG_BYTES);
    assert_null(cluster_answer(c, gone, 3));
    finish(c, 2);
    assert_status(c, clients[0], 1, "succeeded");
    ask_result(c, clients[2], 4, run, "x"); /* for a moment it is still there */
    cluster_run(c, MP_MS(20));
    assert_true(cluster_answer(c, clients[2], 4)->size > SPEC_BIG_BYTES);
    cluster_run(c, MP_SECONDS(120));
    ask_result(c, clients[2], 5, run, "x");
    cluster_run(c, MP_MS(20));
    assert_reason(c, clients[2], 5, "RESULT_LOST");
    cluster_end(c);
}

/* Its holder dies before what it has is fetched. */
static void what_its_holder_took_along_runs_again(void **state)
{
    (void)state;
    uint64_t clients[3];
    struct spec_cluster *c = begin(clients);
    begin_run(c, clients[0], 1, LARGE("b", "c"));
    cluster_run(c, MP_MS(50));
    cluster_kill(c, 1);
    fail_slow(c, 2);
    cluster_run(c, MP_SECONDS(5));
    assert_status(c, clients[0], 1, "failed");
    struct spec_id run = run_of(c, clients[0], 1);
    ask_result(c, clients[0], 2, run, "x");
    cluster_boot(c, 1, &(struct spec_boot){.name = "b"});
    cluster_add_module(c, 1, "m");
    cluster_seed(c, 1, 0, cluster_address(0));
    cluster_run(c, MP_SECONDS(5));
    assert_reason(c, clients[0], 2, "RESULT_LOST");
    resume(c, clients[0], 3, run, NULL);
    cluster_run(c, MP_MS(50));
    finish(c, 2);
    assert_status(c, clients[0], 3, "succeeded");
    assert_shows(c, clients[0], 3, ".lost_results", "[\"x\"]");
    assert_int_equal(begins(c, SPEC_BIG), 2);
    cluster_end(c);
}

static void a_resume_that_waits_for_the_disk_is_cancelled_or_too_late(void **state)
{
    (void)state;
    uint64_t clients[3];
    struct spec_cluster *c = begin(clients);
    struct spec_id run = failed_run(c, clients[0], 1, LARGE("a", "a"), 0);
    cluster_run(c, MP_SECONDS(1));
    reboot(c, 0, "a");
    uint64_t client = cluster_client(c, 0);
    c->disk_latency = MP_MS(100);
    resume(c, client, 2, run, NULL);
    resume(c, client, 3, run, NULL);
    cluster_run(c, MP_MS(150));
    cluster_cancel(c, client, 2);
    assert_reason(c, client, 2, "CANCELLED");
    const struct mp_node_event drain = {.kind = MP_NODE_DRAIN};
    cluster_step(c, 0, &drain);
    cluster_run(c, MP_MS(300));
    assert_reason(c, client, 3, "DRAINING");
    assert_int_equal(c->nodes[0].node->run_count, 0);
    cluster_end(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_had_succeeded_does_not_run_again),
        cmocka_unit_test(a_resumed_run_is_followed_and_left),
        cmocka_unit_test(a_succeeded_run_runs_again_only_from_a_step_on),
        cmocka_unit_test(a_run_that_goes_on_is_not_resumed),
        cmocka_unit_test(a_run_is_resumed_from_the_disk),
        cmocka_unit_test(a_lost_run_is_resumed_with_what_had_finished),
        cmocka_unit_test(a_pipeline_that_changed_its_shape_is_refused),
        cmocka_unit_test(a_refused_resume_leaves_no_watcher),
        cmocka_unit_test(a_large_result_is_kept_and_read_back),
        cmocka_unit_test(a_resume_waits_for_what_is_gathered),
        cmocka_unit_test(a_node_that_stops_does_not_wait_for_what_is_gathered),
        cmocka_unit_test(a_step_whose_result_is_gone_runs_again_if_it_is_needed),
        cmocka_unit_test(a_result_that_is_held_elsewhere_is_shown),
        cmocka_unit_test(what_its_holder_took_along_runs_again),
        cmocka_unit_test(a_resume_that_waits_for_the_disk_is_cancelled_or_too_late),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
