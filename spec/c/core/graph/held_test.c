/* Results that stay where they were made: when they are holes, when they come, and what becomes of
 * a run whose holders are lost. */
#include "spec/c/core/graph/graph_harness.h"

#define S(name, options) "{\"name\":\"" name "\",\"call\":\"m." name "\"" options "}"
#define ARGS(list)       ",\"args\":[" list "]"
#define REF(path)        "{\"$ref\":\"" path "\"}"
#define OR(path, value)  "{\"$ref\":\"" path "\",\"default\":" value "}"
#define FORM             "{\"$large\":{\"bytes\":70000,\"type\":\"map\",\"preview\":\"{\"}}"
#define LOST             "{\"code\":\"DATA_LOSS\",\"reason\":\"RESULT_LOST\",\"message\":\"it was lost\"}"
#define GONE             "{\"code\":\"UNAVAILABLE\",\"reason\":\"NODE_LOST\",\"message\":\"gone\"}"

static void shows(struct harness *h, const char *path, const char *wanted)
{
    const char *got = harness_show(h, path);
    if (strcmp(got, wanted) != 0)
        fail_msg("%s: wanted %s, got %s", path, wanted, got);
}

static void is_given(struct harness *h, const char *step, uint32_t index, const char *wanted)
{
    const char *got = harness_args(h, step, index);
    if (strcmp(got, wanted) != 0)
        fail_msg("%s: wanted %s, got %s", step, wanted, got);
}

static struct harness *begin(const char *once, const char *json)
{
    struct harness *h = harness_new();
    h->once = once;
    harness_begin(h, json);
    return h;
}

static void a_held_result_is_a_hole_for_the_steps_that_read_it(void **state)
{
    (void)state;
    struct harness *h = begin(
        NULL, "{\"trace\":true,\"output\":" REF("b") ",\"steps\":[" S("a", "") "," S(
                  "b", ARGS("1," REF("a") ",{\"k\":[" REF("a.rows[2]") "]}," OR("a", "5"))) "]}");
    harness_hold(h, "a", "n2", 4711);
    assert_true(harness_find(h, "b", 0)->has_holes);
    is_given(h, "b", 0,
             "[1,ext72[\"n2\",4711,\"\"],{\"k\":[ext72[\"n2\",4711,\".rows[2]\"]]},"
             "ext72[\"n2\",4711,\"\"]]");
    harness_complete(h, "b", "\"done\"");
    assert_int_equal(h->fetches_count, 0);
    assert_int_equal(h->status, MP_GRAPH_SUCCEEDED);
    shows(h, ".output", "\"done\"");
    shows(h, ".levels[1].results.a", FORM);
    shows(h, ".steps[1].bytes_out", "70000");
    shows(h, ".steps[1].node", "\"n2\"");
    shows(h, ".summary.nodes", "[\"n1\",\"n2\"]");
    shows(h, ".summary.remote_calls", "1");
    shows(h, ".summary.bytes_moved", "7");
    shows(h, ".summary.cross_cluster_hops", "0");
    harness_free(h);
}

static void only_the_form_counts_as_kept_and_only_the_hole_as_argument(void **state)
{
    (void)state;
    struct harness *h = harness_new();
    h->cfg.kept_bytes_max = 300;
    h->cfg.value_bytes_max = 100;
    harness_begin(h, "{\"output\":1,\"steps\":[" S("a", "") "," S("b", ARGS(REF("a"))) "]}");
    harness_hold_at(h, "a", 0, "n2", 1, 90);
    is_given(h, "b", 0, "[ext72[\"n2\",1,\"\"]]");
    harness_complete(h, "b", "1");
    assert_int_equal(h->status, MP_GRAPH_SUCCEEDED);
    harness_free(h);
    h = harness_new();
    h->cfg.value_bytes_max = 80;
    harness_begin(h, "{\"steps\":[" S("a", "") "]}");
    harness_hold_at(h, "a", 0, "n2", 1, 90);
    shows(h, ".error.reason", "\"TOO_LARGE\"");
    harness_free(h);
}

static void what_depends_on_the_content_waits_for_one_fetch(void **state)
{
    (void)state;
    struct harness *h = begin(
        NULL,
        "{\"output\":" REF("e") ",\"steps\":[" S("a", "") "," S(
            "w",
            ",\"when\":" REF("a.yes") ARGS(REF(
                "a.n"))) "," S("u",
                               ",\"unless\":" REF(
                                   "a.yes")) "," S("e",
                                                   ",\"each\":" REF("a.list") ARGS(
                                                       "{\"$item\":\"\"}")) "," S("d",
                                                                                  ARGS(OR(
                                                                                      "a.no",
                                                                                      "7"))) "]}");
    harness_hold(h, "a", "n2", 9);
    assert_int_equal(h->fetches_count, 1);
    assert_string_equal(h->fetches[0].node, "n2");
    assert_int_equal(h->fetches[0].bytes, 70000);
    assert_int_equal(h->count, 1);
    harness_fetched(h, 9, "{\"yes\":true,\"n\":5,\"list\":[1,2]}");
    is_given(h, "w", 0, "[5]");
    is_given(h, "e", 1, "[1]");
    is_given(h, "d", 0, "[7]");
    assert_false(harness_find(h, "w", 0)->has_holes);
    harness_complete(h, "w", "1");
    harness_complete(h, "d", "1");
    harness_complete_at(h, "e", 1, "10");
    harness_complete_at(h, "e", 2, "20");
    assert_int_equal(h->fetches_count, 1);
    shows(h, ".output", "[10,20]");
    shows(h, ".steps[3].status", "\"skipped\"");
    shows(h, ".steps[1].bytes_out", "70000");
    harness_free(h);
}

static void the_output_is_fetched_when_everything_has_succeeded(void **state)
{
    (void)state;
    struct harness *h = begin(
        NULL,
        "{\"output\":{\"x\":" REF("a.x") ",\"b\":" REF("b") ",\"c\":" OR(
            "c.z", REF("d.y")) "},\"steps\":[" S("a", "") "," S("b", "") "," S("c",
                                                                               "") "," S("d",
                                                                                         "") "]}");
    harness_hold(h, "a", "n2", 1);
    harness_hold(h, "c", "n1", 3);
    harness_hold(h, "d", "n3", 4);
    assert_int_equal(h->fetches_count, 0);
    harness_complete(h, "b", "2");
    assert_int_equal(harness_fetching(h), 2);
    harness_fetched(h, 3, "{\"no\":1}");
    assert_int_equal(harness_fetching(h), 2); /* now the default is needed */
    harness_fetched(h, 4, "{\"y\":44}");
    assert_int_equal(h->run.size, 0);
    harness_fetched(h, 1, "{\"x\":11}");
    assert_int_equal(h->status, MP_GRAPH_SUCCEEDED);
    shows(h, ".output", "{\"x\":11,\"b\":2,\"c\":44}");
    /* 7 for each held answer; the one that n1 had moved nowhere */
    shows(h, ".summary.bytes_moved", "29");
    shows(h, ".summary.remote_calls", "2");
    harness_free(h);
    h = begin(NULL, "{\"steps\":[" S("a", "") "," S("b", "") "]}");
    harness_hold(h, "a", "n2", 1);
    harness_complete(h, "b", "2");
    assert_int_equal(harness_fetching(h), 1);
    harness_fetched(h, 1, "[]");
    shows(h, ".output", "{\"a\":[],\"b\":2}");
    harness_free(h);
}

static void a_run_that_failed_or_was_cancelled_fetches_nothing(void **state)
{
    (void)state;
    struct harness *h = begin(NULL, "{\"steps\":[" S("a", "") "," S("b", "") "]}");
    harness_hold(h, "a", "n2", 1);
    harness_fail(h, "b", "{\"code\":\"NOT_FOUND\",\"message\":\"no\"}");
    assert_int_equal(h->status, MP_GRAPH_FAILED);
    assert_int_equal(h->fetches_count, 0);
    shows(h, ".results", "{\"a\":" FORM "}");
    harness_free(h);
    h = begin(NULL, "{\"steps\":[" S("a", "") "]}");
    harness_hold(h, "a", "n2", 1);
    assert_int_equal(harness_fetching(h), 1);
    harness_cancel(h);
    assert_int_equal(h->status, MP_GRAPH_CANCELLED);
    harness_fetched(h, 1, "1");
    assert_int_equal(h->err, MP_OK);
    harness_free(h);
}

static void what_has_come_is_no_hole_any_more_and_counts_as_kept(void **state)
{
    (void)state;
    struct harness *h = begin(
        NULL, "{\"output\":1,\"steps\":[" S("a", "") "," S("w", ",\"when\":" REF("a.x")) "," S(
                  "l", ARGS(REF("w") "," REF("a.x"))) "]}");
    harness_hold(h, "a", "n2", 1);
    harness_fetched(h, 1, "{\"x\":1}");
    harness_complete(h, "w", "0");
    is_given(h, "l", 0, "[0,1]");
    assert_false(harness_find(h, "l", 0)->has_holes);
    harness_complete(h, "l", "0");
    assert_int_equal(h->status, MP_GRAPH_SUCCEEDED);
    harness_free(h);
    h = harness_new();
    h->cfg.kept_bytes_max = 100;
    harness_begin(h, "{\"steps\":[" S("a", "") "," S("w", ",\"when\":" REF("a.x")) "]}");
    harness_hold(h, "a", "n2", 1);
    harness_fetched(h, 1,
                    "\"0123456789012345678901234567890123456789012345678901234567890123456789"
                    "0123456789012345678901234567890123456789\"");
    shows(h, ".error.reason", "\"RUN_TOO_LARGE\"");
    shows(h, ".error.step", "\"a\"");
    shows(h, ".steps[2].status", "\"skipped\"");
    harness_free(h);
}

static void elements_that_are_held_are_fetched_at_once(void **state)
{
    (void)state;
    struct harness *h =
        begin(NULL, "{\"steps\":[" S("a", "") "," S("e", ",\"each\":[1,2,3],\"concurrency\":2" ARGS(
                                                             "{\"$item\":\"\"}," REF("a.k"))) "]}");
    harness_hold(h, "a", "n3", 5);
    is_given(h, "e", 1, "[1,ext72[\"n3\",5,\".k\"]]");
    is_given(h, "e", 2, "[2,ext72[\"n3\",5,\".k\"]]");
    harness_hold_at(h, "e", 2, "n2", 22, 70000);
    assert_int_equal(harness_fetching(h), 1);
    assert_null(harness_find(h, "e", 3)); /* it has not completed yet */
    harness_fetched(h, 22, "\"two\"");
    is_given(h, "e", 3, "[3,ext72[\"n3\",5,\".k\"]]");
    harness_complete_at(h, "e", 1, "1");
    harness_hold_at(h, "e", 3, "n2", 33, 70000);
    harness_fetched(h, 33, NULL);
    is_given(h, "e", 3, "[3,ext72[\"n3\",5,\".k\"]]");
    assert_int_equal(harness_find(h, "e", 3)->attempt, 2);
    harness_complete_at(h, "e", 3, "3");
    shows(h, ".output", "{\"e\":[1,\"two\",3]}");
    shows(h, ".steps[2].items",
          "{\"total\":3,\"succeeded\":3,\"failed\":0,\"skipped\":0,\"retried\":1}");
    shows(h, ".steps[2].nodes", "[\"n2\",\"n1\"]");
    harness_free(h);
    h = begin("e", "{\"steps\":[" S("e", ",\"each\":[1]") "]}");
    harness_hold_at(h, "e", 1, "n2", 1, 70000);
    harness_fetched(h, 1, NULL);
    shows(h, ".error.reason", "\"RESULT_LOST\"");
    shows(h, ".error.node", "\"n2\"");
    shows(h, ".error.index", "1");
    harness_free(h);
}

static void a_lost_result_that_is_needed_is_made_again(void **state)
{
    (void)state;
    struct harness *h = begin(
        NULL, "{\"output\":" REF("d") ",\"steps\":[" S("a", ARGS("1")) "," S(
                  "b", ARGS(REF("a"))) "," S("c", "") "," S("d", ARGS(REF("b") "," REF("c"))) "]}");
    harness_hold(h, "a", "n2", 1);
    harness_hold(h, "b", "n3", 2);
    harness_lose(h, "n2"); /* nobody needs that any more */
    assert_int_equal(harness_open(h), 1);
    harness_lose(h, "n3"); /* b, and for b also a */
    is_given(h, "a", 0, "[1]");
    assert_int_equal(harness_find(h, "a", 0)->attempt, 2);
    assert_null(harness_find(h, "b", 0));
    harness_complete(h, "c", "3");
    assert_null(harness_find(h, "d", 0));
    harness_hold(h, "a", "n4", 11);
    is_given(h, "b", 0, "[ext72[\"n4\",11,\"\"]]");
    harness_complete(h, "b", "22");
    is_given(h, "d", 0, "[22,3]");
    harness_complete(h, "d", "4");
    assert_int_equal(h->status, MP_GRAPH_SUCCEEDED);
    shows(h, ".output", "4");
    shows(h, ".steps[1].attempts", "2");
    shows(h, ".steps[2].attempts", "2");
    shows(h, ".summary.retries", "2");
    assert_string_equal(harness_events(h),
                        "run_started step_started step_started step_succeeded step_started "
                        "step_succeeded step_retried step_retried step_succeeded step_succeeded "
                        "level_completed step_succeeded level_completed step_started "
                        "step_succeeded level_completed run_finished");
    harness_free(h);
}

static void a_lost_result_that_may_not_be_made_again_fails_the_run(void **state)
{
    (void)state;
    struct harness *h =
        begin("a", "{\"steps\":[" S("a", ",\"on_error\":\"skip\",\"retries\":5") "," S(
                       "c", "") "," S("b", ARGS(REF("a") "," REF("c"))) "]}");
    harness_hold(h, "a", "n2", 1);
    harness_lose(h, "n9");
    harness_lose(h, "n2");
    harness_complete(h, "c", "1");
    assert_int_equal(h->status, MP_GRAPH_FAILED);
    shows(h, ".error.code", "\"DATA_LOSS\"");
    shows(h, ".error.reason", "\"RESULT_LOST\"");
    shows(h, ".error.step", "\"a\"");
    shows(h, ".error.node", "\"n2\"");
    shows(h, ".steps[1].status", "\"failed\"");
    shows(h, ".steps[1].attempts", "1");
    shows(h, ".steps[3].because_step", "\"a\"");
    harness_free(h);
}

static void a_step_is_made_again_only_so_often(void **state)
{
    (void)state;
    struct harness *h = begin(NULL, "{\"steps\":[" S("a", "") "]}");
    for (uint64_t i = 0; i < MP_GRAPH_RERUNS_MAX; i++) {
        harness_hold(h, "a", "n2", i);
        harness_fetched(h, i, NULL);
        assert_int_equal(h->run.size, 0);
    }
    harness_hold(h, "a", "n2", 99);
    harness_lose(h, "n2"); /* its fetch is under way */
    assert_int_equal(h->run.size, 0);
    harness_fetched(h, 99, NULL);
    shows(h, ".error.reason", "\"RESULT_LOST\"");
    shows(h, ".steps[1].attempts", "4");
    harness_free(h);
}

static void a_call_that_cannot_get_its_input_waits_for_the_truth(void **state)
{
    (void)state;
    struct harness *h =
        begin("b", "{\"output\":1,\"steps\":[" S("a", "") "," S("b", ARGS(REF("a.x"))) "]}");
    harness_hold(h, "a", "n2", 1);
    harness_fail_at(h, "b", 0, LOST, true);
    assert_null(harness_find(h, "b", 0));
    mp_time before = h->now;
    harness_timer(h);
    assert_int_equal(h->now - before, MP_MS(200));
    is_given(h, "b", 0, "[ext72[\"n2\",1,\".x\"]]");
    assert_int_equal(harness_find(h, "b", 0)->attempt, 1);
    harness_lose(h, "n2"); /* who runs may have it already */
    assert_null(harness_find(h, "a", 0));
    harness_fail_at(h, "b", 0, LOST, true);
    assert_int_equal(harness_find(h, "a", 0)->attempt, 2);
    assert_null(harness_find(h, "b", 0));
    harness_complete(h, "a", "{\"x\":5}");
    is_given(h, "b", 0, "[5]");
    assert_int_equal(harness_find(h, "b", 0)->attempt, 1);
    harness_complete(h, "b", "5");
    assert_int_equal(h->status, MP_GRAPH_SUCCEEDED);
    shows(h, ".steps[2].attempts", "1");
    harness_free(h);
}

static void it_does_not_wait_for_ever(void **state)
{
    (void)state;
    struct harness *h = begin("b", "{\"output\":1,\"steps\":[" S("a", "") "," S(
                                       "b", ",\"retries\":1" ARGS(REF("a.x"))) "]}");
    harness_hold(h, "a", "n2", 1);
    for (int i = 0; i < MP_GRAPH_LOST_PAUSES_MAX; i++) {
        harness_fail_at(h, "b", 0, LOST, true);
        assert_int_equal(h->run.size, 0);
        harness_timer(h);
    }
    harness_fail_at(h, "b", 0, LOST, true);
    shows(h, ".error.reason", "\"RESULT_LOST\"");
    shows(h, ".error.step", "\"b\"");
    shows(h, ".steps[2].attempts", "0");
    harness_free(h);
}

static void a_call_that_began_is_repeated_only_if_it_may(void **state)
{
    (void)state;
    const char *json = "{\"output\":1,\"steps\":[" S("a", "") "," S("b", ARGS(REF("a.x"))) "]}";
    struct harness *h = begin("b", json);
    harness_hold(h, "a", "n2", 1);
    harness_fail(h, "b", LOST);
    shows(h, ".error.step", "\"b\"");
    assert_int_equal(h->status, MP_GRAPH_FAILED);
    harness_free(h);
    h = begin("a", json);
    harness_hold(h, "a", "n2", 1);
    harness_fail(h, "b", LOST);
    harness_timer(h);
    assert_int_equal(harness_find(h, "b", 0)->attempt, 2);
    harness_lose(h, "n2");
    harness_fail(h, "b", LOST);
    shows(h, ".error.step", "\"a\"");
    shows(h, ".steps[1].attempts", "1");
    harness_free(h);
}

static void elements_wait_for_an_input_that_is_made_again(void **state)
{
    (void)state;
    struct harness *h = begin("e", "{\"output\":" REF("e") ",\"steps\":[" S("a", "") "," S(
                                       "e", ",\"each\":[1,2,3,4],\"concurrency\":2" ARGS(
                                                "{\"$item\":\"\"}," REF("a"))) "]}");
    harness_hold(h, "a", "n2", 1);
    harness_lose(h, "n2");
    harness_fail_at(h, "e", 1, LOST, true);
    assert_non_null(harness_find(h, "a", 0));
    harness_complete_at(h, "e", 2, "2"); /* it had its input in time */
    assert_null(harness_find(h, "e", 3));
    harness_hold(h, "a", "n3", 7);
    is_given(h, "e", 1, "[1,ext72[\"n3\",7,\"\"]]");
    is_given(h, "e", 3, "[3,ext72[\"n3\",7,\"\"]]");
    harness_complete_at(h, "e", 1, "1");
    harness_complete_at(h, "e", 3, "3");
    harness_complete_at(h, "e", 4, "4");
    shows(h, ".output", "[1,2,3,4]");
    shows(h, ".steps[2].attempts", "4");
    harness_free(h);
}

static void what_waits_for_a_lost_input_ends_when_the_run_fails(void **state)
{
    (void)state;
    struct harness *h =
        begin(NULL, "{\"output\":1,\"steps\":[" S("a", "") "," S("b", ARGS(REF("a"))) "," S(
                        "e", ",\"each\":[1,2]" ARGS(REF("a"))) "," S("x", "") "]}");
    harness_hold(h, "a", "n2", 1);
    harness_lose(h, "n2");
    harness_fail_at(h, "b", 0, LOST, true);
    harness_fail_at(h, "e", 1, LOST, true);
    harness_fail_at(h, "e", 2, LOST, true);
    harness_fail(h, "x", "{\"code\":\"NOT_FOUND\",\"message\":\"no\"}");
    assert_int_equal(h->run.size, 0); /* a runs */
    harness_fail(h, "a", GONE);
    assert_int_equal(h->status, MP_GRAPH_FAILED);
    shows(h, ".error.step", "\"x\"");
    shows(h, ".steps[2].status", "\"cancelled\"");
    shows(h, ".steps[3].status", "\"cancelled\"");
    harness_free(h);
    h = begin(NULL, "{\"output\":1,\"steps\":[" S("a", "") "," S("b", ARGS(REF("a"))) "," S(
                        "x", "") "]}");
    harness_hold(h, "a", "n2", 1);
    harness_fail(h, "x", "{\"code\":\"NOT_FOUND\",\"message\":\"no\"}");
    harness_lose(h, "n2");
    harness_fail_at(h, "b", 0, LOST, true); /* nothing starts again now */
    assert_int_equal(h->status, MP_GRAPH_FAILED);
    shows(h, ".steps[2].error.reason", "\"RESULT_LOST\"");
    shows(h, ".steps[2].error.step", "\"b\"");
    harness_free(h);
}

static void a_cancelled_run_drops_what_waits(void **state)
{
    (void)state;
    struct harness *h =
        begin(NULL, "{\"output\":1,\"steps\":[" S("a", "") "," S("b", ARGS(REF("a"))) "," S(
                        "e", ",\"each\":[1,2]" ARGS(REF("a"))) "]}");
    harness_hold(h, "a", "n2", 1);
    harness_hold_at(h, "e", 2, "n3", 2, 70000);
    harness_lose(h, "n2");
    harness_fail_at(h, "b", 0, LOST, true);
    harness_fail_at(h, "e", 1, LOST, true);
    harness_cancel(h);
    harness_fetched(h, 2, "1");
    harness_fail(h, "a", "{\"code\":\"CANCELLED\",\"message\":\"no\"}");
    assert_int_equal(h->status, MP_GRAPH_CANCELLED);
    harness_free(h);
}

static void a_field_that_the_executor_misses_fails_the_step_as_here(void **state)
{
    (void)state;
    struct harness *h = begin(NULL, "{\"steps\":[" S("a", "") "," S(
                                        "b", ",\"retries\":3" ARGS(REF("a.deep.colour"))) "]}");
    struct mp_buf value;
    struct mp_buf message;
    struct mp_slice found;
    char error[512];
    mp_buf_init(&value, &h->plain_alloc, 0);
    mp_buf_init(&message, &h->plain_alloc, 0);
    harness_hold(h, "a", "n2", 1);
    tiny_read("{\"deep\":{\"color\":1,\"size\":2}}", &value);
    assert_int_equal(
        mp_graph_cut(mp_buf_slice(&value), mp_slice_str(".deep.colour"), &found, &message),
        MP_ENOENT);
    snprintf(error, sizeof(error),
             "{\"code\":\"INVALID_ARGUMENT\",\"reason\":\"MISSING_FIELD\",\"message\":\"%.*s\","
             "\"hint\":\"look\"}",
             (int)message.size, (const char *)message.data);
    harness_fail_at(h, "b", 0, error, true);
    assert_int_equal(h->status, MP_GRAPH_FAILED);
    shows(h, ".error.message",
          "\"a.deep.colour is missing in a.deep; the keys there: color, size\"");
    shows(h, ".error.reason", "\"MISSING_FIELD\"");
    shows(h, ".error.hint", "\"look\"");
    shows(h, ".error.step", "\"b\"");
    shows(h, ".steps[2].attempts", "0");
    shows(h, ".steps[2].node", "null");
    shows(h, ".summary.retries", "0");
    assert_int_equal(
        mp_graph_cut(mp_buf_slice(&value), mp_slice_str(".deep.size"), &found, &message), MP_OK);
    assert_int_equal(message.size, 0);
    assert_true(mp_slice_equal(found, mp_slice_str("\x02")));
    assert_int_equal(mp_graph_cut(mp_buf_slice(&value), mp_slice_str("deep"), &found, &message),
                     MP_EINVAL);
    assert_int_equal(mp_graph_cut((struct mp_slice){0}, mp_slice_str(".x"), &found, &message),
                     MP_ENOENT);
    mp_buf_clear(&message);
    assert_int_equal(mp_graph_put_large_form(mp_buf_slice(&value), &message), MP_OK);
    assert_string_equal(harness_show_value(h, mp_buf_slice(&message), "[\"$large\"].type"),
                        "\"map\"");
    assert_int_equal(mp_graph_put_large_form(mp_slice_str("\xc1"), &message), MP_ECORRUPT);
    mp_buf_fini(&value);
    mp_buf_fini(&message);
    harness_free(h);
}

static void a_value_from_outside_is_never_a_hole(void **state)
{
    (void)state;
    struct harness *h = begin(NULL, "{\"steps\":[" S("a", "") "]}");
    harness_complete_bytes(h, harness_find(h, "a", 0), mp_slice_of("\xd4\x48\x90", 3));
    shows(h, ".error.reason", "\"BAD_RESULT\"");
    harness_free(h);
}

static void a_value_that_is_broken_when_it_comes_fails_its_step(void **state)
{
    (void)state;
    struct harness *h = begin(NULL, "{\"steps\":[" S("a", "") "]}");
    harness_hold(h, "a", "n2", 1);
    struct mp_graph_event ev = {.kind = MP_GRAPH_FETCHED};
    ev.fetched.fetch = h->fetches[0].fetch;
    ev.fetched.value = mp_slice_str("\xc1");
    harness_step(h, &ev);
    shows(h, ".error.reason", "\"BAD_RESULT\"");
    shows(h, ".error.step", "\"a\"");
    harness_free(h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_held_result_is_a_hole_for_the_steps_that_read_it),
        cmocka_unit_test(only_the_form_counts_as_kept_and_only_the_hole_as_argument),
        cmocka_unit_test(what_depends_on_the_content_waits_for_one_fetch),
        cmocka_unit_test(the_output_is_fetched_when_everything_has_succeeded),
        cmocka_unit_test(a_run_that_failed_or_was_cancelled_fetches_nothing),
        cmocka_unit_test(what_has_come_is_no_hole_any_more_and_counts_as_kept),
        cmocka_unit_test(elements_that_are_held_are_fetched_at_once),
        cmocka_unit_test(a_lost_result_that_is_needed_is_made_again),
        cmocka_unit_test(a_lost_result_that_may_not_be_made_again_fails_the_run),
        cmocka_unit_test(a_step_is_made_again_only_so_often),
        cmocka_unit_test(a_call_that_cannot_get_its_input_waits_for_the_truth),
        cmocka_unit_test(it_does_not_wait_for_ever),
        cmocka_unit_test(a_call_that_began_is_repeated_only_if_it_may),
        cmocka_unit_test(elements_wait_for_an_input_that_is_made_again),
        cmocka_unit_test(what_waits_for_a_lost_input_ends_when_the_run_fails),
        cmocka_unit_test(a_cancelled_run_drops_what_waits),
        cmocka_unit_test(a_field_that_the_executor_misses_fails_the_step_as_here),
        cmocka_unit_test(a_value_from_outside_is_never_a_hole),
        cmocka_unit_test(a_value_that_is_broken_when_it_comes_fails_its_step),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
