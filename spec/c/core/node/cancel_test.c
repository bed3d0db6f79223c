/* Cancelled runs: they end once what they had asked for has ended, here, elsewhere and all the way
 * down, and as soon as that can no longer be known. The functions of these nodes go on until the
 * spec ends them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "spec/c/core/node/cluster_asserts.h"
#include "spec/support/tiny_json.h"

#define STEP(name, fun, on) "{\"name\":\"" name "\",\"call\":\"m." fun "\",\"on\":\"" on "\"}"
#define WHILE               MP_MS(200) /* in which an answer that came at once would have come */

static struct spec_cluster *begin(uint32_t count, uint64_t *client)
{
    struct spec_cluster *c = cluster_begin(count, 0xf, client);
    c->is_deaf = true;
    return c;
}

static void begin_run(struct spec_cluster *c, uint64_t client, uint64_t id, const char *graph)
{
    struct spec_alloc counted = {.fail_at = SPEC_NEVER};
    struct mp_alloc alloc = spec_alloc_of(&counted);
    struct mp_buf b;
    mp_buf_init(&b, &alloc, 0);
    (void)tiny_read(graph, &b);
    cluster_request(c, client, MP_NODE_RUN, id, mp_slice_of("\x91\x80", 2), mp_buf_slice(&b));
    mp_buf_fini(&b);
}

static void run(struct spec_cluster *c, uint64_t client, uint64_t id, const char *graph)
{
    begin_run(c, client, id, graph);
    cluster_run(c, MP_MS(10));
}

static struct mp_slice text_in(struct mp_slice map, const char *key)
{
    struct mp_slice value = {0};
    struct mp_slice text = {0};
    assert_int_equal(mp_mp_map_get(map, mp_slice_str(key), &value), MP_OK);
    assert_int_equal(mp_mp_get_str(value, &text), MP_OK);
    return text;
}

static void assert_status(struct spec_cluster *c, uint64_t client, uint64_t id, const char *status)
{
    const struct spec_reply *r = cluster_answer(c, client, id);
    assert_non_null(r);
    assert_int_equal(r->frame, MP_FRAME_RESULT);
    assert_true(mp_slice_is(text_in(cluster_bytes(r), "status"), status));
}

/* The run was cancelled, and that is what it came to: an outcome for each step. */
static void assert_receipts(struct spec_cluster *c, uint64_t client, uint64_t id,
                            const char *const *outcomes)
{
    const struct spec_reply *r = cluster_answer(c, client, id);
    struct mp_slice receipts = {0};
    struct mp_mp_reader reader;
    uint32_t count;
    assert_status(c, client, id, "cancelled");
    assert_int_equal(mp_mp_map_get(cluster_bytes(r), mp_slice_str("receipts"), &receipts), MP_OK);
    assert_int_equal(mp_mp_get_array(receipts, &count, &reader), MP_OK);
    for (uint32_t i = 0; i < count; i++) {
        struct mp_slice receipt;
        assert_non_null(outcomes[i]);
        assert_int_equal(mp_mp_take(&reader, &receipt), MP_OK);
        struct mp_slice outcome = text_in(receipt, "outcome");
        if (!mp_slice_is(outcome, outcomes[i]))
            fail_msg("run %d, step %d: %.*s instead of %s", (int)id, (int)i, (int)outcome.size,
                     (const char *)outcome.data, outcomes[i]);
    }
    assert_null(outcomes[count]);
}

#define RECEIPTS(c, client, id, ...)                                                               \
    assert_receipts(c, client, id, (const char *const[]){__VA_ARGS__, NULL})

/* What runs as `task` on a node calls a function, by that number. */
static void call_on(struct spec_cluster *c, uint32_t node, const struct spec_task *task,
                    uint64_t nested, const char *fun, const char *on)
{
    static const uint8_t args[] = {0x91, 0x01};
    struct spec_alloc counted = {.fail_at = SPEC_NEVER};
    struct mp_alloc alloc = spec_alloc_of(&counted);
    struct mp_buf options;
    mp_buf_init(&options, &alloc, 0);
    MUST(mp_mp_put_map(&options, on ? 1 : 0) == MP_OK);
    if (on)
        MUST(mp_mp_put_text(&options, "on") == MP_OK && mp_mp_put_text(&options, on) == MP_OK);
    const struct mp_node_event ev = {
        .kind = MP_NODE_NESTED,
        .nested = {.worker = task->worker,
                   .incarnation = 1ull << 32 | task->worker,
                   .parent = task->call,
                   .nested = nested,
                   .options = mp_buf_slice(&options),
                   .fun = mp_slice_str(fun),
                   .args = {.bytes = mp_slice_of(args, sizeof(args))}}};
    cluster_step(c, node, &ev);
    mp_buf_fini(&options);
}

/* The task of a function ends, and a moment passes. */
static void finish(struct spec_cluster *c, uint32_t node, enum spec_function function)
{
    assert_true(cluster_finish(c, node, function));
    cluster_run(c, MP_MS(10));
}

static void cancel(struct spec_cluster *c, uint64_t client, uint64_t id)
{
    cluster_cancel(c, client, id);
    cluster_run(c, WHILE);
}

static void break_between(struct spec_cluster *c, uint32_t one, uint32_t other)
{
    for (uint32_t i = 1; i <= c->conn_count; i++) {
        struct spec_conn *k = &c->conns[i];
        if ((k->node[0] == one && k->node[1] == other) ||
            (k->node[0] == other && k->node[1] == one))
            cluster_break(c, 1ull << 32 | i);
    }
}

static void it_is_answered_when_its_step_has_ended(void **state)
{
    (void)state;
    static const char *const graphs[] = {"{\"steps\":[" STEP("s", "slow", "a") "]}",
                                         "{\"steps\":[" STEP("s", "slow", "b") "]}"};
    for (uint32_t i = 0; i < 2; i++) {
        uint64_t client;
        struct spec_cluster *c = begin(2, &client);
        run(c, client, 1, graphs[i]);
        struct spec_task *t = cluster_task_of(c, i, SPEC_SLOW);
        assert_non_null(t);
        cancel(c, client, 1);
        assert_true(t->is_cancelled);
        assert_null(cluster_answer(c, client, 1));
        cancel(c, client, 1); /* twice is once */
        assert_null(cluster_answer(c, client, 1));
        cluster_fail_task(c, i, t, MP_CODE_CANCELLED, "CANCELLED");
        cluster_run(c, MP_MS(10));
        RECEIPTS(c, client, 1, "stopped");
        if (i == 1)
            assert_int_equal(c->answer.flags, MP_PEER_HAS_BEGUN);
        cluster_end(c);
    }
}

/* With the workers of other specs, which heed it, this takes a moment. */
static void it_is_answered_in_a_moment(void **state)
{
    (void)state;
    uint64_t client;
    struct spec_cluster *c = begin(2, &client);
    c->is_deaf = false;
    run(c, client, 1, "{\"steps\":[" STEP("s", "slow", "b") "," STEP("t", "slow", "a") "]}");
    cluster_cancel(c, client, 1);
    cluster_run(c, MP_MS(2));
    RECEIPTS(c, client, 1, "stopped", "stopped");
    cluster_end(c);
}

static void what_was_done_all_the_same_succeeds(void **state)
{
    (void)state;
    uint64_t client;
    struct spec_cluster *c = begin(2, &client);
    run(c, client, 1, "{\"steps\":[" STEP("s", "slow", "a") "," STEP("t", "slow", "b") "]}");
    cancel(c, client, 1);
    finish(c, 0, SPEC_SLOW);
    assert_null(cluster_answer(c, client, 1));
    finish(c, 1, SPEC_SLOW);
    RECEIPTS(c, client, 1, "done", "done");
    cluster_end(c);
}

static void what_never_began_needs_no_wait(void **state)
{
    (void)state;
    uint64_t client;
    struct spec_cluster *c = begin(2, &client);
    break_between(c, 0, 1);
    cluster_run(c, MP_MS(1));
    begin_run(c, client, 1, "{\"steps\":[" STEP("s", "slow", "b") "]}");
    cluster_run(c, MP_US(50)); /* the link is being dialled */
    cluster_cancel(c, client, 1);
    RECEIPTS(c, client, 1, "never_started");
    assert_int_equal(c->nodes[1].begins[SPEC_SLOW], 0);
    cluster_end(c);
}

static void a_lost_link_ends_the_wait(void **state)
{
    (void)state;
    uint64_t client;
    struct spec_cluster *c = begin(2, &client);
    run(c, client, 1, "{\"steps\":[" STEP("s", "slow", "b") "]}");
    cancel(c, client, 1);
    assert_null(cluster_answer(c, client, 1));
    break_between(c, 0, 1);
    cluster_run(c, MP_MS(10));
    RECEIPTS(c, client, 1, "unreachable");
    /* So does a dead node. */
    run(c, client, 2, "{\"steps\":[" STEP("s", "slow", "b") "]}");
    cancel(c, client, 2);
    cluster_kill(c, 1);
    cluster_run(c, MP_MS(10));
    RECEIPTS(c, client, 2, "unreachable");
    cluster_end(c);
}

static void it_waits_for_a_helper_too(void **state)
{
    (void)state;
    uint64_t client;
    struct spec_cluster *c = cluster_new(5);
    c->is_deaf = true;
    c->is_cut[0][2] = c->is_cut[2][0] = true;
    for (uint32_t i = 0; i < 3; i++) {
        static const char *const names[] = {"a", "b", "c"};
        cluster_boot(c, i, &(struct spec_boot){.name = names[i]});
        cluster_add_module(c, i, "m");
        if (i != 0)
            cluster_seed(c, i, 0, cluster_address(i - 1));
    }
    cluster_run(c, MP_SECONDS(15));
    client = cluster_client(c, 0);
    run(c, client, 1, "{\"steps\":[" STEP("s", "slow", "c") "]}");
    cancel(c, client, 1);
    assert_null(cluster_answer(c, client, 1));
    cluster_fail_task(c, 2, cluster_task_of(c, 2, SPEC_SLOW), MP_CODE_CANCELLED, "CANCELLED");
    cluster_run(c, MP_MS(10));
    RECEIPTS(c, client, 1, "stopped");
    /* A helper that loses it says so. */
    run(c, client, 2, "{\"steps\":[" STEP("s", "slow", "c") "]}");
    cancel(c, client, 2);
    break_between(c, 1, 2);
    cluster_run(c, MP_MS(10));
    RECEIPTS(c, client, 2, "unreachable");
    assert_int_equal(c->answer.flags, MP_PEER_HAS_BEGUN | MP_PEER_IS_LOST);
    while (cluster_finish(c, 2, SPEC_SLOW))
        cluster_run(c, MP_MS(10));
    cluster_end(c);
}

/* a: the step; b: what it calls; c, or a again: what that calls. */
static void it_waits_all_the_way_down(void **state)
{
    (void)state;
    static const char *const last[] = {"c", "a", "b"};
    static const uint32_t last_nodes[] = {2, 0, 1};
    for (uint32_t i = 0; i < 3; i++) {
        uint64_t client;
        struct spec_cluster *c = begin(3, &client);
        run(c, client, 1, "{\"steps\":[" STEP("s", "slow", "a") "]}");
        call_on(c, 0, cluster_task_of(c, 0, SPEC_SLOW), 1, "m.idem", "b");
        cluster_run(c, MP_MS(10));
        struct spec_task *middle = cluster_task_of(c, 1, SPEC_IDEM);
        call_on(c, 1, middle, 1, "m.idem", last[i]);
        cluster_run(c, MP_MS(10));
        cancel(c, client, 1);
        for (uint32_t k = 0; k < SPEC_TASKS; k++)
            for (uint32_t n = 0; n < 3; n++)
                assert_true(c->nodes[n].tasks[k].call == 0 || c->nodes[n].tasks[k].is_cancelled);
        cluster_fail_task(c, 0, cluster_task_of(c, 0, SPEC_SLOW), MP_CODE_CANCELLED, "CANCELLED");
        cluster_fail_task(c, 1, middle, MP_CODE_CANCELLED, "CANCELLED");
        cluster_run(c, MP_MS(10));
        assert_null(cluster_answer(c, client, 1));
        finish(c, last_nodes[i], SPEC_IDEM);
        RECEIPTS(c, client, 1, "stopped");
        cluster_end(c);
    }
}

/* b answers a's call only when c's has ended; that a link below was lost, a hears. */
static void an_answer_tells_of_what_was_lost_below(void **state)
{
    (void)state;
    uint64_t client;
    struct spec_cluster *c = begin(3, &client);
    run(c, client, 1, "{\"steps\":[" STEP("s", "slow", "b") "]}");
    struct spec_task *step = cluster_task_of(c, 1, SPEC_SLOW);
    call_on(c, 1, step, 1, "m.slow", "c");
    cluster_run(c, MP_MS(10));
    cancel(c, client, 1);
    break_between(c, 1, 2);
    cluster_run(c, MP_MS(10));
    assert_null(cluster_answer(c, client, 1));
    cluster_fail_task(c, 1, step, MP_CODE_CANCELLED, "CANCELLED");
    cluster_run(c, MP_MS(10));
    RECEIPTS(c, client, 1, "unreachable");
    assert_int_equal(c->answer.flags, MP_PEER_HAS_BEGUN | MP_PEER_IS_UNSURE);
    while (cluster_finish(c, 2, SPEC_SLOW))
        cluster_run(c, MP_MS(10));
    cluster_end(c);
}

/* A step whose function ended while a call of its own goes on, on the node where it ran. */
static void an_answer_waits_for_what_was_left_behind(void **state)
{
    (void)state;
    for (uint32_t is_lost = 0; is_lost < 2; is_lost++) {
        uint64_t client;
        struct spec_cluster *c = begin(3, &client);
        run(c, client, 1, "{\"steps\":[" STEP("s", "slow", "b") "]}");
        call_on(c, 1, cluster_task_of(c, 1, SPEC_SLOW), 1, "m.idem", "b");
        cluster_run(c, MP_MS(10));
        finish(c, 1, SPEC_SLOW);
        assert_true(cluster_task_of(c, 1, SPEC_IDEM)->is_cancelled);
        assert_null(cluster_answer(c, client, 1));
        if (is_lost) { /* nobody is there any more to be answered */
            break_between(c, 0, 1);
            cluster_run(c, MP_MS(10));
            assert_status(c, client, 1, "failed");
        }
        finish(c, 1, SPEC_IDEM);
        assert_status(c, client, 1, is_lost ? "failed" : "succeeded");
        cluster_end(c);
    }
}

static void a_client_and_a_function_wait_for_nothing(void **state)
{
    (void)state;
    uint64_t client;
    struct spec_cluster *c = begin(2, &client);
    cluster_call(c, client, 1, &(struct spec_call){.fun = "m.slow", .on = "b"});
    cluster_call(c, client, 2, &(struct spec_call){.fun = "m.slow", .on = "b", .timeout_ms = 50});
    cluster_run(c, MP_MS(10));
    cluster_cancel(c, client, 1);
    assert_reason(c, client, 1, "CANCELLED");
    cluster_run(c, MP_MS(100));
    assert_reason(c, client, 2, "DEADLINE_EXCEEDED");
    while (cluster_finish(c, 1, SPEC_SLOW))
        cluster_run(c, MP_MS(10));
    cluster_end(c);
}

/* --- memory --- */

/* Allocation `fail_at` of `node`, counted from when the run goes on, and 3 more fail. */
static size_t live(uint32_t node, size_t fail_at)
{
    uint64_t client;
    struct spec_cluster *c = begin(3, &client);
    run(c, client, 1, "{\"steps\":[" STEP("s", "slow", "b") "," STEP("t", "idem", "a") "]}");
    struct spec_alloc *counted = &c->nodes[node].counted;
    size_t before = counted->count;
    counted->fail_at = fail_at == SPEC_NEVER ? SPEC_NEVER : before + fail_at;
    c->fail_until[node] = fail_at == SPEC_NEVER ? 0 : before + fail_at + 4;
    call_on(c, 1, cluster_task_of(c, 1, SPEC_SLOW), 1, "m.idem", "b");
    call_on(c, 0, cluster_task_of(c, 0, SPEC_IDEM), 1, "m.slow", "c");
    cluster_run(c, MP_MS(10));
    /* One result is kept for what it left behind, the other call is cancelled. */
    (void)cluster_finish(c, 1, SPEC_SLOW);
    cluster_run(c, MP_MS(10));
    cluster_cancel(c, client, 1);
    cluster_run(c, MP_MS(10));
    for (uint32_t k = 0; k < 10; k++) {
        for (uint32_t i = 0; i < 3; i++)
            (void)(cluster_finish(c, i, SPEC_IDEM) || cluster_finish(c, i, SPEC_SLOW));
        cluster_run(c, MP_SECONDS(1));
    }
    if (!cluster_answer(c, client, 1))
        fail_msg("allocation %zu of node %u: the run has no answer", fail_at, node);
    size_t taken = counted->count - before;
    counted->fail_at = SPEC_NEVER;
    cluster_end(c);
    return taken;
}

static void it_survives_without_memory(void **state)
{
    (void)state;
    for (uint32_t node = 0; node < 3; node++) {
        size_t all = live(node, SPEC_NEVER);
        size_t step = getenv("SPEC_ALL") ? 1 : 1 + all / 200;
        for (size_t i = 0; i < all; i += step)
            (void)live(node, i);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_is_answered_when_its_step_has_ended),
        cmocka_unit_test(it_is_answered_in_a_moment),
        cmocka_unit_test(what_was_done_all_the_same_succeeds),
        cmocka_unit_test(what_never_began_needs_no_wait),
        cmocka_unit_test(a_lost_link_ends_the_wait),
        cmocka_unit_test(it_waits_for_a_helper_too),
        cmocka_unit_test(it_waits_all_the_way_down),
        cmocka_unit_test(an_answer_tells_of_what_was_lost_below),
        cmocka_unit_test(an_answer_waits_for_what_was_left_behind),
        cmocka_unit_test(a_client_and_a_function_wait_for_nothing),
        cmocka_unit_test(it_survives_without_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
