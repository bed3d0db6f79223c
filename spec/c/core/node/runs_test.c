/* Runs, asked about and watched: while they go on, a moment after their end, and when only the disk
 * knows them; from their coordinator, from another node and through a helper. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "spec/c/core/node/runs_harness.h"

/* --- asking --- */

/* Client 0 is a's, the coordinator's; 1 and 2 are those of b and c. */
static struct spec_cluster *begin(uint64_t clients[3])
{
    struct spec_cluster *c = cluster_begin(3, 7, &clients[0]);
    clients[1] = cluster_client(c, 1);
    clients[2] = cluster_client(c, 2);
    return c;
}

static void a_run_that_goes_on_is_asked_from_anywhere(void **state)
{
    (void)state;
    uint64_t clients[3];
    struct spec_cluster *c = begin(clients);
    struct spec_id run = begin_detached(c, clients[0], 1, CHAIN);
    cluster_run(c, MP_MS(5));
    for (uint32_t i = 0; i < 3; i++) {
        ask(c, clients[i], 10, "trace", run);
        ask_result(c, clients[i], 11, run, "x");
        ask_result(c, clients[i], 12, run, "z");
        ask_result(c, clients[i], 13, run, "zz");
        cluster_run(c, MP_MS(5));
        assert_status(c, clients[i], 10, "running");
        assert_shows(c, clients[i], 10, ".levels[2].results", "{\"y\":[[1]]}");
        assert_shows(c, clients[i], 11, "", "[1]");
        assert_reason(c, clients[i], 12, "NO_RESULT");
        struct mp_fault fault = assert_reason(c, clients[i], 13, "UNKNOWN_STEP");
        assert_true(mp_slice_is(fault.hint, "did you mean z?"));
        assert_true(mp_slice_is(fault.step, "zz"));
    }
    finish(c, 0);
    cluster_end(c);
}

static void what_ended_a_moment_ago_is_asked(void **state)
{
    (void)state;
    uint64_t clients[3];
    struct spec_cluster *c = begin(clients);
    begin_with(c, clients[0], 1, CHAIN, "{\"follow\":true}");
    cluster_run(c, MP_MS(5));
    finish(c, 0);
    assert_status(c, clients[0], 1, "succeeded");
    struct spec_id run = run_of(c, clients[0], 1);
    for (uint32_t i = 0; i < 3; i++) {
        ask(c, clients[i], 10, "trace", run);
        ask_result(c, clients[i], 11, run, "z");
        ask(c, clients[i], 12, "watch", run);
        ask(c, clients[i], 13, "cancel", run);
        cluster_run(c, MP_MS(5));
        assert_status(c, clients[i], 10, "succeeded");
        assert_shows(c, clients[i], 10, ".levels[3].progress", "100");
        assert_shows(c, clients[i], 11, "", "null");
        assert_status(c, clients[i], 12, "succeeded");
        assert_shows(c, clients[i], 12, ".levels", "(missing)");
        assert_same_events(c, clients[0], 1, clients[i], 12, 1);
        assert_status(c, clients[i], 13, "succeeded");
        assert_shows(c, clients[i], 13, ".steps[3]", "{\"name\":\"z\",\"outcome\":\"done\"}");
    }
    assert_int_equal(c->disk_reads, 0);
    cluster_end(c);
}

static void what_only_the_disk_knows_is_asked(void **state)
{
    (void)state;
    uint64_t clients[3];
    struct spec_cluster *c = begin(clients);
    struct spec_id run = begin_detached(c, clients[0], 1, CHAIN);
    cluster_run(c, MP_MS(5));
    finish(c, 0);
    ask(c, clients[1], 2, "trace", run);
    cluster_run(c, MP_SECONDS(1));
    reboot(c, 0, "a");
    clients[0] = cluster_client(c, 0);
    for (uint32_t i = 0; i < 3; i++) {
        ask(c, clients[i], 10, "trace", run);
        ask_result(c, clients[i], 11, run, "y");
        ask(c, clients[i], 12, "watch", run);
        ask(c, clients[i], 13, "cancel", run);
        ask_result(c, clients[i], 14, run, "yy");
        ask(c, clients[i], 15, "runs", run);
        cluster_run(c, MP_MS(20));
        assert_status(c, clients[i], 10, "succeeded");
        assert_shows(c, clients[i], 11, "", "[[1]]");
        assert_status(c, clients[i], 12, "succeeded");
        assert_shows(c, clients[i], 12, ".levels", "(missing)");
        assert_int_equal(events(c, clients[i], 12), 0);
        assert_shows(c, clients[i], 13, ".steps",
                     "[{\"name\":\"x\",\"outcome\":\"done\"},{\"name\":\"y\",\"outcome\":\"done\"},"
                     "{\"name\":\"z\",\"outcome\":\"done\"}]");
        assert_reason(c, clients[i], 14, "UNKNOWN_STEP");
    }
    /* The levels are made of what was kept; they are what they were. */
    char levels[8192];
    snprintf(levels, sizeof(levels), "%s", show(c, clients[1], 2, ".levels"));
    assert_shows(c, clients[1], 10, ".levels", levels);
    assert_shows(c, clients[0], 15, ".runs[1].status", "\"succeeded\"");
    assert_shows(c, clients[0], 15, ".runs[1].steps", "3");
    assert_shows(c, clients[1], 15, ".runs", "[]");
    assert_true(c->disk_reads >= 12);
    cluster_end(c);
}

static void runs_are_listed_the_newest_first(void **state)
{
    (void)state;
    uint64_t clients[3];
    struct spec_cluster *c = begin(clients);
    struct spec_id runs[5];
    for (uint32_t i = 0; i < 5; i++) {
        runs[i] = begin_detached(c, clients[0], i + 1, i % 2 == 0 ? CHAIN : QUICK);
        cluster_run(c, MP_MS(30));
    }
    finish(c, 0); /* the first one: it was kept while it went on */
    ask_with(c, clients[0], 10, "runs", runs[0], "");
    ask_with(c, clients[0], 11, "runs", runs[0], ",\"limit\":2");
    ask_with(c, clients[0], 12, "runs", runs[0], ",\"limit\":\"x\"");
    for (uint32_t i = 0; i < 5; i++) {
        char path[32];
        char id[200];
        snprintf(path, sizeof(path), ".runs[%d].run_id", (int)(5 - i));
        snprintf(id, sizeof(id), "\"%s\"", runs[i].text);
        assert_shows(c, clients[0], 10, path, id);
    }
    assert_shows(c, clients[0], 10, ".runs[1].status", "\"running\"");
    assert_shows(c, clients[0], 10, ".runs[2].status", "\"succeeded\"");
    assert_shows(c, clients[0], 10, ".runs[5].status", "\"succeeded\"");
    assert_shows(c, clients[0], 10, ".runs[6]", "(missing)");
    assert_shows(c, clients[0], 10, ".node", "\"a\"");
    assert_shows(c, clients[0], 11, ".runs[3]", "(missing)");
    assert_reason(c, clients[0], 12, "BAD_REQUEST");
    finish(c, 0);
    finish(c, 0);
    cluster_end(c);
}

static void what_is_no_run_is_refused(void **state)
{
    (void)state;
    static const char *const what[] = {"trace", "watch", "cancel"};
    uint64_t clients[3];
    struct spec_cluster *c = begin(clients);
    struct spec_id run = begin_detached(c, clients[0], 1, QUICK);
    struct spec_id other = run;
    struct spec_id nobodys = run;
    struct spec_id small = run;
    other.text[20] = other.text[20] == '7' ? '8' : '7'; /* of the same node */
    nobodys.text[12] = nobodys.text[12] == '7' ? '8' : '7';
    for (uint32_t i = 0; small.text[i] != '\0'; i++)
        if (small.text[i] >= 'A')
            small.text[i] = (char)(small.text[i] - 'A' + 'a');
    struct spec_id bad[] = {{"8ZZZZZZZZZZZZZZZZZZZZZZZZZ"}, {"nonsense"}, {""}, {"U0000"}};
    cluster_run(c, MP_MS(5));
    for (uint32_t i = 0; i < 3; i++)
        for (uint32_t k = 0; k < MP_ARRAY_SIZE(what); k++) {
            ask(c, clients[i], 10 + 100 * k, what[k], other);
            ask(c, clients[i], 11 + 100 * k, what[k], nobodys);
            ask(c, clients[i], 12 + 100 * k, what[k], small);
            cluster_run(c, MP_MS(5));
            assert_reason(c, clients[i], 10 + 100 * k, "UNKNOWN_RUN");
            assert_reason(c, clients[i], 11 + 100 * k, "UNKNOWN_RUN");
            assert_status(c, clients[i], 12 + 100 * k, "succeeded");
            for (uint32_t b = 0; b < MP_ARRAY_SIZE(bad); b++) {
                ask(c, clients[i], 20 + 100 * k + b, what[k], bad[b]);
                assert_reason(c, clients[i], 20 + 100 * k + b, "BAD_RUN_ID");
            }
        }
    ask(c, clients[0], 900, "result", run);
    ask_with(c, clients[0], 901, "result", run, ",\"step\":7");
    ask_with(c, clients[0], 902, "watch", run, ",\"after\":\"x\"");
    for (uint64_t id = 900; id <= 902; id++)
        assert_reason(c, clients[0], id, "BAD_REQUEST");
    resume(c, clients[1], 910, bad[1], NULL);
    resume(c, clients[1], 911, other, NULL);
    cluster_run(c, MP_MS(5));
    assert_reason(c, clients[1], 910, "BAD_RUN_ID");
    assert_reason(c, clients[1], 911, "UNKNOWN_RUN");
    cluster_end(c);
}

static void the_bound_on_kept_runs_holds_on_the_disk_too(void **state)
{
    (void)state;
    uint64_t client;
    struct spec_cluster *c = cluster_new(3);
    cluster_boot(c, 0, &(struct spec_boot){.name = "a", .runs_kept = 5});
    cluster_add_module(c, 0, "m");
    cluster_run(c, MP_SECONDS(1));
    client = cluster_client(c, 0);
    struct spec_id first = begin_detached(c, client, 1, QUICK);
    cluster_run(c, MP_SECONDS(1));
    for (uint64_t id = 2; id < 50; id++) {
        begin_run(c, client, id, QUICK);
        cluster_run(c, MP_MS(id % 7 == 0 ? 300 : 5));
    }
    cluster_run(c, MP_SECONDS(1));
    ask(c, client, 100, "runs", first);
    ask(c, client, 101, "trace", first);
    cluster_run(c, MP_MS(5));
    assert_shows(c, client, 100, ".runs[6]", "(missing)");
    assert_reason(c, client, 101, "UNKNOWN_RUN");
    assert_int_equal(c->nodes[0].disk.count, 10); /* heads and bodies */
    cluster_end(c);
}

/* --- when nodes end --- */

static void whoever_asks_for_a_run_of_a_dead_node_is_told(void **state)
{
    (void)state;
    uint64_t clients[3];
    struct spec_cluster *c = begin(clients);
    struct spec_id run = begin_detached(c, clients[0], 1, CHAIN);
    cluster_run(c, MP_MS(200));
    ask(c, clients[1], 10, "watch", run);
    cluster_run(c, MP_MS(5));
    assert_true(events(c, clients[1], 10) > 4);
    cluster_kill(c, 0);
    cluster_run(c, MP_MS(1)); /* at once: as soon as the connection is known to have ended */
    assert_reason(c, clients[1], 10, "COORDINATOR_LOST");
    cluster_run(c, MP_SECONDS(10));
    ask(c, clients[2], 11, "trace", run);
    resume(c, clients[2], 12, run, NULL);
    cluster_run(c, MP_MS(5));
    struct mp_fault fault = assert_reason(c, clients[2], 11, "COORDINATOR_LOST");
    assert_true(mp_slice_is(fault.node, "a"));
    assert_reason(c, clients[2], 12, "COORDINATOR_LOST");
    cluster_end(c);
}

static void a_lost_run_is_listed_with_what_finished(void **state)
{
    (void)state;
    uint64_t clients[3];
    struct spec_cluster *c = begin(clients);
    struct spec_id run = begin_detached(c, clients[0], 1, CHAIN);
    struct spec_id fresh;
    cluster_run(c, MP_MS(300));
    fresh = begin_detached(c, clients[0], 2, CHAIN);
    cluster_run(c, MP_MS(1)); /* nothing of it is kept */
    reboot(c, 0, "a");
    clients[0] = cluster_client(c, 0);
    ask(c, clients[0], 10, "runs", run);
    ask(c, clients[1], 11, "trace", run);
    ask_result(c, clients[1], 12, run, "y");
    ask_result(c, clients[1], 13, run, "z");
    ask(c, clients[1], 14, "cancel", run);
    ask(c, clients[1], 15, "watch", run);
    ask(c, clients[1], 16, "trace", fresh);
    cluster_run(c, MP_MS(10));
    assert_shows(c, clients[0], 10, ".runs[1].status", "\"lost\"");
    assert_shows(c, clients[0], 10, ".runs[2]", "(missing)");
    assert_status(c, clients[1], 11, "lost");
    assert_shows(c, clients[1], 11, ".error.reason", "\"COORDINATOR_LOST\"");
    assert_shows(c, clients[1], 11, ".results", "{\"x\":[1],\"y\":[[1]]}");
    assert_shows(c, clients[1], 11, ".levels[2].results", "{\"y\":[[1]]}");
    assert_shows(c, clients[1], 11, ".levels[3].complete", "false");
    assert_shows(c, clients[1], 11, ".steps[1].status", "\"succeeded\"");
    assert_shows(c, clients[1], 11, ".summary.succeeded", "2");
    assert_shows(c, clients[1], 12, "", "[[1]]");
    assert_reason(c, clients[1], 13, "NO_RESULT");
    assert_shows(c, clients[1], 14, ".steps[1].outcome", "\"done\"");
    assert_shows(c, clients[1], 14, ".steps[3].outcome", "\"unreachable\"");
    assert_status(c, clients[1], 15, "lost");
    assert_reason(c, clients[1], 16, "UNKNOWN_RUN");
    cluster_end(c);
}

static void a_node_that_stops_writes_what_waits(void **state)
{
    (void)state;
    uint64_t clients[3];
    struct spec_cluster *c = begin(clients);
    struct spec_id run = begin_detached(c, clients[0], 1, QUICK);
    cluster_run(c, MP_MS(2));
    assert_int_equal(c->nodes[0].disk.count, 0);
    const struct mp_node_event drain = {.kind = MP_NODE_DRAIN};
    cluster_step(c, 0, &drain);
    cluster_run(c, MP_MS(10));
    assert_true(c->nodes[0].is_drained);
    assert_int_equal(c->nodes[0].disk.count, 2);
    reboot(c, 0, "a");
    ask(c, clients[1], 2, "trace", run);
    cluster_run(c, MP_MS(10));
    assert_status(c, clients[1], 2, "succeeded");
    cluster_end(c);
}

static void a_disk_that_is_full_costs_only_records(void **state)
{
    (void)state;
    uint64_t clients[3];
    struct spec_cluster *c = begin(clients);
    c->nodes[0].disk.is_full = true;
    struct spec_id run = begin_detached(c, clients[0], 1, CHAIN);
    cluster_run(c, MP_MS(300));
    finish(c, 0);
    cluster_run(c, MP_SECONDS(1));
    assert_string_equal(c->nodes[0].log, "records of runs are not kept: full");
    ask(c, clients[1], 2, "trace", run);
    ask(c, clients[0], 3, "runs", run);
    cluster_run(c, MP_MS(5));
    assert_status(c, clients[1], 2, "succeeded");
    assert_shows(c, clients[0], 3, ".runs[1].status", "\"succeeded\"");
    assert_true(strcmp(show(c, clients[0], 3, ".dropped"), "0") != 0);
    reboot(c, 0, "a");
    ask(c, clients[1], 4, "trace", run);
    cluster_run(c, MP_MS(5));
    assert_reason(c, clients[1], 4, "UNKNOWN_RUN");
    cluster_end(c);
}

static void a_damaged_record_is_told_as_such(void **state)
{
    (void)state;
    uint64_t clients[3];
    struct spec_cluster *c = begin(clients);
    struct spec_id run = begin_detached(c, clients[0], 1, QUICK);
    cluster_run(c, MP_SECONDS(1));
    for (uint32_t kind = 0; kind < 3; kind++) {
        static const char *const bodies[] = {"\x80", "\x81\xa3run\x81\xa5steps\x01",
                                             "\x81\xa3run\x80"};
        static const size_t sizes[] = {1, 13, 6};
        disk_put(&c->nodes[0].disk, run.text, SPEC_BODY, mp_slice_of(bodies[kind], sizes[kind]));
        reboot(c, 0, "a");
        uint64_t id = 10 + 10 * kind;
        ask(c, clients[1], id, "trace", run);
        ask_result(c, clients[1], id + 1, run, "x");
        ask(c, clients[1], id + 2, "cancel", run);
        ask(c, clients[1], id + 3, "watch", run);
        resume(c, clients[1], id + 4, run, NULL);
        cluster_run(c, MP_MS(10));
        assert_reason(c, clients[1], id, "BAD_RECORD");
        for (uint64_t k = 1; k < 5; k++)
            assert_non_null(cluster_answer(c, clients[1], id + k));
    }
    cluster_end(c);
}

static void requests_that_wait_for_the_disk_are_bounded(void **state)
{
    (void)state;
    uint64_t clients[3];
    struct spec_cluster *c = begin(clients);
    struct spec_id run = begin_detached(c, clients[0], 1, QUICK);
    cluster_run(c, MP_SECONDS(1));
    reboot(c, 0, "a");
    clients[0] = cluster_client(c, 0);
    uint64_t gone = cluster_client(c, 0);
    c->disk_latency = MP_SECONDS(1);
    for (uint64_t id = 1; id <= MP_RUN_ASKS_MAX; id++)
        ask(c, id % 2 == 0 ? clients[0] : gone, id, "trace", run);
    ask(c, clients[0], 5000, "trace", run);
    assert_reason(c, clients[0], 5000, "QUEUE_FULL");
    cluster_cancel(c, clients[0], 2);
    assert_reason(c, clients[0], 2, "CANCELLED");
    leave(c, gone);
    ask(c, clients[0], 5001, "trace", run);
    cluster_run(c, MP_SECONDS(3));
    assert_status(c, clients[0], 4, "succeeded");
    assert_status(c, clients[0], MP_RUN_ASKS_MAX, "succeeded");
    assert_status(c, clients[0], 5001, "succeeded");
    cluster_end(c);
}

/* --- cancelling --- */

static void a_run_is_cancelled_by_its_id(void **state)
{
    (void)state;
    uint64_t clients[3];
    struct spec_cluster *c = begin(clients);
    begin_run(c, clients[0], 1, CHAIN);
    cluster_run(c, MP_MS(200));
    ask(c, clients[0], 2, "runs", (struct spec_id){""});
    struct spec_id run = {{0}};
    memcpy(run.text, show(c, clients[0], 2, ".runs[1].run_id") + 1, MP_RUN_ID_BYTES);
    ask(c, clients[1], 3, "cancel", run);
    ask(c, clients[2], 4, "cancel", run); /* twice */
    cluster_run(c, MP_MS(20));
    assert_status(c, clients[0], 1, "cancelled");
    for (uint32_t i = 1; i < 3; i++) {
        assert_status(c, clients[i], i + 2, "cancelled");
        assert_shows(c, clients[i], i + 2, ".steps",
                     "[{\"name\":\"x\",\"outcome\":\"done\"},{\"name\":\"y\",\"outcome\":\"done\"},"
                     "{\"name\":\"z\",\"outcome\":\"stopped\"}]");
    }
    cluster_run(c, MP_SECONDS(1));
    reboot(c, 0, "a");
    ask(c, clients[1], 5, "cancel", run); /* and again, long after */
    cluster_run(c, MP_MS(20));
    assert_shows(c, clients[1], 5, ".steps[3].outcome", "\"stopped\"");
    cluster_end(c);
}

/* --- watching --- */

static void a_late_watcher_is_told_what_an_early_one_was(void **state)
{
    (void)state;
    uint64_t clients[3];
    struct spec_cluster *c = begin(clients);
    struct spec_id run = begin_detached(c, clients[0], 1, CHAIN);
    ask(c, clients[1], 2, "watch", run);
    cluster_run(c, MP_MS(300));
    ask(c, clients[2], 3, "watch", run);
    ask_with(c, clients[2], 4, "watch", run, ",\"after\":3");
    cluster_run(c, MP_MS(5));
    uint32_t before = events(c, clients[1], 2);
    assert_true(before >= 6);
    assert_int_equal(events(c, clients[2], 3), before);
    assert_int_equal(events_from(c, clients[2], 4, 4), before - 3);
    finish(c, 0);
    ask(c, clients[0], 5, "watch", run);
    ask_with(c, clients[0], 6, "watch", run, ",\"after\":1000");
    cluster_run(c, MP_MS(5));
    assert_true(events(c, clients[1], 2) > before);
    assert_same_events(c, clients[1], 2, clients[2], 3, 1);
    assert_same_events(c, clients[1], 2, clients[2], 4, 4);
    assert_same_events(c, clients[1], 2, clients[0], 5, 1);
    assert_int_equal(events(c, clients[0], 6), 0);
    for (uint64_t id = 3; id <= 4; id++)
        assert_status(c, clients[2], id, "succeeded");
    assert_status(c, clients[0], 6, "succeeded");
    cluster_end(c);
}

static void a_slow_watcher_disturbs_nobody_and_catches_up(void **state)
{
    (void)state;
    uint64_t clients[3];
    struct spec_cluster *c = begin(clients);
    uint64_t slow = cluster_client(c, 0);
    struct spec_id run = begin_detached(c, clients[0], 1, CHAIN);
    ask(c, slow, 2, "watch", run);
    ask(c, clients[0], 2, "watch", run);
    uint32_t before = events(c, slow, 2);
    press(c, 0, slow, true);
    press(c, 0, slow, true);
    cluster_run(c, MP_MS(100));
    finish(c, 0);
    assert_int_equal(events(c, slow, 2), before);
    assert_status(c, clients[0], 2, "succeeded");
    cluster_run(c, MP_SECONDS(30));
    press(c, 0, slow, false);
    assert_same_events(c, clients[0], 2, slow, 2, 1);
    assert_status(c, slow, 2, "succeeded");
    cluster_end(c);
}

static void a_watcher_that_does_not_read_is_given_up(void **state)
{
    (void)state;
    uint64_t clients[3];
    struct spec_cluster *c = begin(clients);
    uint64_t slow = cluster_client(c, 0);
    uint64_t follower = cluster_client(c, 0);
    begin_with(c, follower, 1, CHAIN, "{\"follow\":true}");
    cluster_run(c, MP_MS(1));
    struct spec_id run = id_in(cluster_bytes(event_of(c, follower, 1, 1)));
    ask(c, slow, 2, "watch", run);
    press(c, 0, slow, true);
    press(c, 0, follower, true);
    cluster_run(c, MP_MS(100));
    finish(c, 0);
    cluster_run(c, MP_MS(MP_WATCH_BEHIND_MS - 1000));
    assert_null(cluster_answer(c, slow, 2));
    assert_null(cluster_answer(c, follower, 1));
    cluster_run(c, MP_MS(2000));
    assert_reason(c, slow, 2, "WATCHER_BEHIND");
    assert_reason(c, follower, 1, "WATCHER_BEHIND");
    assert_int_equal(c->nodes[0].node->watch_count, 0);
    cluster_end(c);
}

static void a_thousand_watchers_are_told_the_same(void **state)
{
    (void)state;
    uint64_t clients[3];
    struct spec_cluster *c = begin(clients);
    struct spec_id run = begin_detached(c, clients[0], 1, CHAIN);
    for (uint64_t i = 0; i < 1000; i++)
        ask(c, clients[i % 3], 100 + i, "watch", run);
    cluster_run(c, MP_MS(100));
    finish(c, 0);
    cluster_run(c, MP_MS(20));
    for (uint64_t i = 0; i < 1000; i += 97)
        assert_same_events(c, clients[0], 100, clients[i % 3], 100 + i, 1);
    for (uint64_t i = 0; i < 1000; i += 1)
        assert_status(c, clients[i % 3], 100 + i, "succeeded");
    cluster_end(c);
}

/* So much is told in one step, however many want to hear it. */
static void what_is_told_in_one_step_is_bounded(void **state)
{
    (void)state;
    uint64_t clients[3];
    struct spec_cluster *c = begin(clients);
    const char *graph =
        GRAPH("{\"name\":\"x\",\"call\":\"m.echo\",\"on\":\"a\",\"each\":[1,2,3,4,5,6,7,8],"
              "\"args\":[{\"$item\":\"\"}]}," STEP("z", "slow", "a", ""));
    struct spec_id run = begin_detached(c, clients[0], 1, graph);
    for (uint64_t i = 0; i < 2000; i++)
        ask(c, clients[0], 100 + i, "watch", run);
    press(c, 0, clients[0], true);
    cluster_run(c, MP_MS(20));
    finish(c, 0);
    uint32_t before = c->reply_count;
    press(c, 0, clients[0], false);
    uint64_t bytes = 0;
    for (uint32_t i = before; i < c->reply_count; i++)
        bytes += c->replies[i].frame == MP_FRAME_EVENT ? c->replies[i].size : 0;
    assert_true(bytes > 0 && bytes < MP_WATCHES_STEP_BYTES + 10000);
    cluster_run(c, MP_MS(20));
    for (uint64_t i = 0; i < 2000; i += 111)
        assert_status(c, clients[0], 100 + i, "succeeded");
    cluster_end(c);
}

static void a_watch_that_ends_leaves_the_run_alone(void **state)
{
    (void)state;
    uint64_t clients[3];
    struct spec_cluster *c = begin(clients);
    uint64_t gone = cluster_client(c, 0);
    uint64_t gone_there = cluster_client(c, 1);
    struct spec_id run = begin_detached(c, clients[0], 1, CHAIN);
    ask(c, gone, 2, "watch", run);
    ask(c, gone_there, 2, "watch", run);
    ask(c, clients[0], 3, "watch", run);
    ask(c, clients[1], 3, "watch", run);
    cluster_run(c, MP_MS(5));
    assert_int_equal(c->nodes[0].node->watch_count, 4);
    leave(c, gone);
    leave(c, gone_there);
    cluster_cancel(c, clients[0], 3);
    cluster_cancel(c, clients[1], 3);
    cluster_run(c, MP_MS(5));
    assert_reason(c, clients[0], 3, "CANCELLED");
    assert_reason(c, clients[1], 3, "CANCELLED");
    assert_int_equal(c->nodes[0].node->watch_count, 0);
    finish(c, 0);
    ask(c, clients[0], 4, "trace", run);
    assert_status(c, clients[0], 4, "succeeded");
    cluster_end(c);
}

static void a_follower_is_told_the_end_behind_the_events(void **state)
{
    (void)state;
    uint64_t clients[3];
    struct spec_cluster *c = begin(clients);
    begin_with(c, clients[0], 1, QUICK, "{\"follow\":true}");
    begin_with(c, clients[0], 2, QUICK, "{\"follow\":true,\"detach\":true}");
    begin_with(c, clients[0], 3, CHAIN, "{\"follow\":true}");
    cluster_run(c, MP_MS(5));
    assert_int_equal(events(c, clients[0], 1), 5);
    assert_status(c, clients[0], 1, "succeeded");
    assert_int_equal(events(c, clients[0], 2), 0); /* it does not wait, so it is not told */
    assert_shows(c, clients[0], 2, ".status", "(missing)");
    cluster_cancel(c, clients[0], 3);
    cluster_run(c, MP_MS(5));
    assert_status(c, clients[0], 3, "cancelled");
    assert_true(events(c, clients[0], 3) > 4);
    cluster_end(c);
}

/* Short steps do not cost their watcher a wake-up each, and none waits longer than that. */
static void what_happens_within_a_millisecond_is_told_together(void **state)
{
    (void)state;
    uint64_t clients[3];
    struct spec_cluster *c = begin(clients);
    mp_time began_at = c->now;
    begin_with(c, clients[0], 1,
               GRAPH(STEP("x", "echo", "a", "1") "," STEP("y", "echo", "b", REF("x")) "," STEP(
                   "z", "slow", "a", REF("y"))),
               "{\"follow\":true}");
    cluster_run(c, MP_MS(20));
    uint32_t count = events(c, clients[0], 1);
    assert_int_equal(count, 8); /* z has started */
    uint32_t tellings = 1;
    assert_int_equal(event_of(c, clients[0], 1, 1)->at, began_at);
    for (uint32_t i = 2; i <= count; i++) {
        mp_time before = event_of(c, clients[0], 1, i - 1)->at;
        mp_time at = event_of(c, clients[0], 1, i)->at;
        assert_true(at == before || at >= before + MP_MS(1));
        assert_true(at <= began_at + at_of(event_of(c, clients[0], 1, i)) + MP_MS(1));
        tellings += at != before;
    }
    assert_int_equal(tellings, 2);
    mp_time ends_at = c->now;
    finish(c, 0);
    assert_true(events(c, clients[0], 1) > count);
    assert_int_equal(cluster_answer(c, clients[0], 1)->at, ends_at);
    cluster_end(c);
}

static void a_refused_run_leaves_no_watcher(void **state)
{
    (void)state;
    uint64_t clients[3];
    struct spec_cluster *c = begin(clients);
    begin_with(c, clients[0], 1, GRAPH(STEP("x", "ehco", "a", "")), "{\"follow\":true}");
    begin_with(c, clients[0], 2, GRAPH(STEP("x", "echo", "a", REF("y"))), "{\"follow\":true}");
    assert_reason(c, clients[0], 1, "UNKNOWN_FUNCTION");
    assert_reason(c, clients[0], 2, "UNKNOWN_STEP");
    assert_int_equal(c->nodes[0].node->watch_count, 0);
    press(c, 0, clients[0], true);
    press(c, 0, clients[0], false);
    cluster_run(c, MP_MS(1));
    assert_int_equal(c->nodes[0].node->over_count, 0);
    cluster_end(c);
}

static void watchers_are_bounded(void **state)
{
    (void)state;
    uint64_t clients[3];
    struct spec_cluster *c = begin(clients);
    struct spec_id run = begin_detached(c, clients[0], 1, CHAIN);
    c->nodes[0].node->watch_count += MP_WATCHES_MAX; /* as if there were others */
    ask(c, clients[0], 2, "watch", run);
    begin_with(c, clients[0], 3, QUICK, "{\"follow\":true}");
    assert_reason(c, clients[0], 2, "QUEUE_FULL");
    assert_reason(c, clients[0], 3, "QUEUE_FULL");
    c->nodes[0].node->watch_count -= MP_WATCHES_MAX;
    cluster_run(c, MP_MS(5));
    finish(c, 0);
    cluster_end(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_run_that_goes_on_is_asked_from_anywhere),
        cmocka_unit_test(what_ended_a_moment_ago_is_asked),
        cmocka_unit_test(what_only_the_disk_knows_is_asked),
        cmocka_unit_test(runs_are_listed_the_newest_first),
        cmocka_unit_test(what_is_no_run_is_refused),
        cmocka_unit_test(the_bound_on_kept_runs_holds_on_the_disk_too),
        cmocka_unit_test(whoever_asks_for_a_run_of_a_dead_node_is_told),
        cmocka_unit_test(a_lost_run_is_listed_with_what_finished),
        cmocka_unit_test(a_node_that_stops_writes_what_waits),
        cmocka_unit_test(a_disk_that_is_full_costs_only_records),
        cmocka_unit_test(a_damaged_record_is_told_as_such),
        cmocka_unit_test(requests_that_wait_for_the_disk_are_bounded),
        cmocka_unit_test(a_run_is_cancelled_by_its_id),
        cmocka_unit_test(a_late_watcher_is_told_what_an_early_one_was),
        cmocka_unit_test(a_slow_watcher_disturbs_nobody_and_catches_up),
        cmocka_unit_test(a_watcher_that_does_not_read_is_given_up),
        cmocka_unit_test(a_thousand_watchers_are_told_the_same),
        cmocka_unit_test(what_is_told_in_one_step_is_bounded),
        cmocka_unit_test(a_watch_that_ends_leaves_the_run_alone),
        cmocka_unit_test(a_follower_is_told_the_end_behind_the_events),
        cmocka_unit_test(what_happens_within_a_millisecond_is_told_together),
        cmocka_unit_test(a_refused_run_leaves_no_watcher),
        cmocka_unit_test(watchers_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
