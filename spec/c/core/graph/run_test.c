/* Runs: when steps start, what they are given, what becomes of a run whose steps fail, are skipped,
 * take too long or are cancelled. */
#include "spec/c/core/graph/graph_harness.h"

#define S(name, options) "{\"name\":\"" name "\",\"call\":\"m." name "\"" options "}"
#define ARGS(list)       ",\"args\":[" list "]"
#define REF(path)        "{\"$ref\":\"" path "\"}"
#define OR(path, value)  "{\"$ref\":\"" path "\",\"default\":" value "}"

#define UNAVAILABLE "{\"code\":\"UNAVAILABLE\",\"reason\":\"GONE\",\"message\":\"gone\"}"
#define NOT_FOUND   "{\"code\":\"NOT_FOUND\",\"reason\":\"NONE\",\"message\":\"none\"}"
#define LATE        "{\"code\":\"DEADLINE_EXCEEDED\",\"reason\":\"TIMEOUT\",\"message\":\"late\"}"

static void shows(struct harness *h, const char *path, const char *wanted)
{
    const char *got = harness_show(h, path);
    if (strcmp(got, wanted) != 0)
        fail_msg("%s: wanted %s, got %s", path, wanted, got);
}

/* Statuses of the first steps, joined by spaces. */
static void statuses(struct harness *h, const char *wanted)
{
    char got[512] = "";
    for (int i = 1; i < 20; i++) {
        char path[40];
        snprintf(path, sizeof(path), ".steps[%d].status", i);
        const char *one = harness_show(h, path);
        if (strcmp(one, "(missing)") == 0)
            break;
        strcat(got, i == 1 ? "" : " ");
        strncat(got, one + 1, strlen(one) - 2);
    }
    assert_string_equal(got, wanted);
}

static void a_step_starts_when_its_own_inputs_are_there(void **state)
{
    (void)state;
    struct harness *h = harness_run("{\"steps\":[" S("d", ARGS(REF("b.x") "," REF("c"))) "," S(
        "a", ARGS("1")) "," S("b", ARGS("2")) "," S("c", ARGS(REF("a[1]"))) "]}");
    assert_int_equal(h->count, 2);
    assert_string_equal(harness_args(h, "a", 0), "[1]");
    harness_complete(h, "b", "{\"x\":\"bx\"}");
    assert_int_equal(h->count, 2);
    harness_complete(h, "a", "[10,11]");
    assert_string_equal(harness_args(h, "c", 0), "[10]");
    harness_complete(h, "c", "null");
    assert_string_equal(harness_args(h, "d", 0), "[\"bx\",null]");
    harness_complete(h, "d", "\"done\"");
    assert_int_equal(h->status, MP_GRAPH_SUCCEEDED);
    shows(h, ".output", "{\"d\":\"done\"}");
    shows(h, ".error", "null");
    shows(h, ".summary.levels", "3");
    harness_free(h);
}

static void strings_are_never_references(void **state)
{
    (void)state;
    struct harness *h =
        harness_run("{\"steps\":[" S("echo", ARGS("\"echo\",\"$ref\",\"b.x\"")) "," S(
            "b", ARGS("{\"$lit\":{\"$ref\":\"echo\"}},{\"$lit\":{\"$lit\":1}},{\"a\":[{}]}")) "]}");
    assert_string_equal(harness_args(h, "echo", 0), "[\"echo\",\"$ref\",\"b.x\"]");
    assert_string_equal(harness_args(h, "b", 0), "[{\"$ref\":\"echo\"},{\"$lit\":1},{\"a\":[{}]}]");
    harness_free(h);
}

static void references_stand_at_any_depth_and_in_any_order(void **state)
{
    (void)state;
    struct harness *h =
        harness_run("{\"input\":{\"min\":2.5,\"lit\":{\"$lit\":{\"$x\":1}}},\"steps\":[" S(
            "a",
            ARGS("{\"k\":[[" REF("input.min") ",{\"z\":" REF(
                "input") "}]],\"default\":3},"
                         "{\"default\":[4],\"$ref\":\"input.no\"},{\"default\":1,\"x\":2}")) "]}");
    assert_string_equal(harness_args(h, "a", 0),
                        "[{\"k\":[[2.5,{\"z\":{\"min\":2.5,\"lit\":{\"$x\":1}}}]],\"default\":3},"
                        "[4],{\"default\":1,\"x\":2}]");
    harness_free(h);
}

static void an_input_given_replaces_the_graphs_own(void **state)
{
    (void)state;
    struct harness *h = harness_new();
    tiny_read("{\"a\":{\"$ref\":\"data\"}}", &h->input);
    harness_begin(h, "{\"input\":{\"a\":1,\"b\":2},\"steps\":[" S(
                         "a", ARGS(REF("input.a") "," OR("input.b", "\"none\""))) "]}");
    assert_string_equal(harness_args(h, "a", 0), "[{\"$ref\":\"data\"},\"none\"]");
    harness_free(h);
}

static void a_missing_field_fails_the_step_and_names_the_keys(void **state)
{
    (void)state;
    struct harness *h = harness_run("{\"steps\":[" S("a", "") "," S(
        "b", ARGS(REF("a.deep.colour"))) "," S("c", ARGS(REF("b"))) "]}");
    harness_complete(h, "a", "{\"deep\":{\"color\":1,\"size\":2}}");
    assert_int_equal(h->status, MP_GRAPH_FAILED);
    shows(h, ".error.code", "\"INVALID_ARGUMENT\"");
    shows(h, ".error.reason", "\"MISSING_FIELD\"");
    shows(h, ".error.step", "\"b\"");
    shows(h, ".error.message",
          "\"a.deep.colour is missing in a.deep; the keys there: color, size\"");
    shows(h, ".error.hint", "\"did you mean color?\"");
    shows(h, ".steps[2].attempts", "0");
    shows(h, ".steps[2].started_ms", "null");
    shows(h, ".results", "{\"a\":{\"deep\":{\"color\":1,\"size\":2}}}");
    shows(h, ".output", "null");
    statuses(h, "succeeded failed skipped");
    harness_free(h);
}

static void the_keys_of_a_missing_field_are_at_most_twenty(void **state)
{
    (void)state;
    struct harness *h = harness_run(
        "{\"input\":{\"a1\":1,\"a2\":1,\"a3\":1,\"a4\":1,\"a5\":1,\"a6\":1,\"a7\":1,\"a8\":1,"
        "\"a9\":1,\"b1\":1,\"b2\":1,\"b3\":1,\"b4\":1,\"b5\":1,\"b6\":1,\"b7\":1,\"b8\":1,"
        "\"b9\":1,\"c1\":1,\"c2\":1,\"c3\":1,\"c4\":1},\"steps\":[" S(
            "a", ARGS(REF("input.missing"))) "]}");
    assert_non_null(strstr(harness_show(h, ".error.message"), ", c1, c2 and 2 more"));
    harness_free(h);
}

static void a_missing_field_of_the_output_fails_the_run(void **state)
{
    (void)state;
    struct harness *h =
        harness_run("{\"output\":{\"x\":[" REF("a.no") "]},\"steps\":[" S("a", "") "]}");
    harness_complete(h, "a", "[1,2]");
    assert_int_equal(h->status, MP_GRAPH_FAILED);
    shows(h, ".error.reason", "\"MISSING_FIELD\"");
    shows(h, ".error.message", "\"output: a.no is missing; there is a list of 2\"");
    shows(h, ".results.a", "[1,2]");
    harness_free(h);
}

static void two_branches_join_by_defaults(void **state)
{
    (void)state;
    const char *graph = "{\"output\":" OR("left", REF("right")) ",\"steps\":[" S("test", "") "," S(
        "left",
        ",\"when\":" REF(
            "test.ok")) "," S("right",
                              ",\"unless\":" REF(
                                  "test.ok")) "," S("join",
                                                    ARGS(OR(
                                                        "left.v",
                                                        REF("right.v")))) "," S("only_left",
                                                                                ARGS(REF(
                                                                                    "left"))) "]}";
    struct harness *h = harness_run(graph);
    harness_complete(h, "test", "{\"ok\":true}");
    harness_complete(h, "left", "{\"v\":\"L\"}");
    assert_string_equal(harness_args(h, "join", 0), "[\"L\"]");
    harness_complete(h, "only_left", "1");
    harness_complete(h, "join", "1");
    shows(h, ".output", "{\"v\":\"L\"}");
    statuses(h, "succeeded succeeded skipped succeeded succeeded");
    shows(h, ".steps[3].because", "\"unless\"");
    harness_free(h);
    h = harness_run(graph);
    harness_complete(h, "test", "{}");
    harness_complete(h, "right", "{\"v\":\"R\"}");
    assert_string_equal(harness_args(h, "join", 0), "[\"R\"]");
    harness_complete(h, "join", "1");
    shows(h, ".output", "{\"v\":\"R\"}");
    statuses(h, "succeeded skipped succeeded succeeded skipped");
    shows(h, ".steps[5].because", "\"input\"");
    shows(h, ".steps[5].because_step", "\"left\"");
    harness_free(h);
}

static void skipping_passes_on_over_references_but_not_over_after(void **state)
{
    (void)state;
    struct harness *h = harness_run(
        "{\"input\":{},\"steps\":[" S("a", ",\"when\":" REF("input.x")) "," S("b", ARGS(REF("a"))) "," S(
            "c",
            ",\"when\":" REF(
                "b")) "," S("d",
                            ",\"after\":[\"a\",\"c\"]") "," S("e",
                                                              ",\"unless\":" REF(
                                                                  "a.x")) "," S("f",
                                                                                ",\"unless\":" OR(
                                                                                    "a.x",
                                                                                    "null")) "]}");
    assert_int_equal(harness_open(h), 2);
    harness_complete(h, "d", "4");
    harness_complete(h, "f", "6");
    statuses(h, "skipped skipped skipped succeeded skipped succeeded");
    shows(h, ".output", "{\"d\":4,\"f\":6}");
    shows(h, ".summary.skipped", "4");
    harness_free(h);
}

static void null_and_false_are_false_and_all_else_is_true(void **state)
{
    (void)state;
    struct harness *h = harness_run(
        "{\"input\":{\"n\":null,\"f\":false,\"z\":0,\"e\":\"\",\"l\":[]},\"steps\":"
        "[" S("n", ",\"when\":" REF("input.n")) "," S(
            "f",
            ",\"when\":" REF(
                "input."
                "f")) "," S("z",
                            ",\"when\":" REF(
                                "input.z")) "," S("e",
                                                  ",\"when\":" REF(
                                                      "input.e")) "," S("l",
                                                                        ",\"when\":" REF(
                                                                            "input.l")) "," S("m",
                                                                                              ",\"w"
                                                                                              "hen"
                                                                                              "\""
                                                                                              ":" REF(
                                                                                                  "input.l[1]")) "]}");
    harness_complete(h, "z", "1");
    harness_complete(h, "e", "1");
    harness_complete(h, "l", "1");
    statuses(h, "skipped skipped succeeded succeeded succeeded skipped");
    harness_free(h);
}

static void a_skipped_step_is_null_in_the_output(void **state)
{
    (void)state;
    struct harness *h = harness_run("{\"output\":[" REF("b") "," OR("b", "5") "," REF(
        "a") "],\"steps\":[" S("a", "") "," S("b", ",\"when\":" REF("a.x")) "]}");
    harness_complete(h, "a", "{}");
    shows(h, ".output", "[null,5,{}]");
    harness_free(h);
}

static void without_an_output_all_leaves_are_given(void **state)
{
    (void)state;
    struct harness *h = harness_run("{\"steps\":[" S("early", "") "," S("a", "") "," S(
        "b", ",\"after\":[\"early\"]" ARGS(REF("a"))) "," S("s", ",\"when\":" REF("a.no")) "]}");
    harness_complete(h, "early", "1");
    harness_complete(h, "a", "2");
    harness_complete(h, "b", "3");
    /* `after` is no reference: `early` is a leaf too. */
    shows(h, ".output", "{\"early\":1,\"b\":3}");
    harness_free(h);
}

static void a_failed_step_fails_the_run_and_what_was_handed_out_finishes(void **state)
{
    (void)state;
    struct harness *h =
        harness_run("{\"steps\":[" S("bad", "") "," S("behind", ARGS(REF("bad"))) "," S(
            "further",
            ARGS(OR("behind",
                    "1"))) "," S("slow",
                                 "") "," S("next",
                                           ARGS(REF("slow"))) "," S("mixed",
                                                                    ",\"after\":[\"bad\"]" ARGS(
                                                                        REF("slow"))) "]}");
    harness_fail(h, "bad", NOT_FOUND);
    assert_int_equal(h->run.size, 0);
    assert_int_equal(harness_open(h), 1);
    harness_complete(h, "slow", "\"kept\"");
    assert_int_equal(h->status, MP_GRAPH_FAILED);
    statuses(h, "failed skipped skipped succeeded cancelled skipped");
    shows(h, ".error.code", "\"NOT_FOUND\"");
    shows(h, ".error.step", "\"bad\"");
    shows(h, ".error.fun", "\"m.bad\"");
    shows(h, ".error.node", "\"n2\"");
    shows(h, ".error.attempt", "1");
    shows(h, ".steps[1].error.reason", "\"NONE\"");
    shows(h, ".results", "{\"slow\":\"kept\"}");
    shows(h, ".summary.cancelled", "1");
    shows(h, ".steps[3].because_step", "\"behind\"");
    harness_free(h);
}

static void the_first_failure_is_the_runs_error(void **state)
{
    (void)state;
    struct harness *h = harness_run("{\"steps\":[" S("a", "") "," S("b", "") "]}");
    harness_fail(h, "b", NOT_FOUND);
    harness_fail(h, "a", UNAVAILABLE);
    shows(h, ".error.step", "\"b\"");
    shows(h, ".summary.failed", "2");
    harness_free(h);
}

static void on_error_skips_or_stands_in(void **state)
{
    (void)state;
    struct harness *h = harness_run(
        "{\"steps\":[" S("a", ",\"on_error\":\"skip\"") "," S("b", ARGS(REF("a"))) "," S(
            "c", ",\"on_error\":{\"default\":{\"$lit\":{\"$k\":1}}}") "," S("d",
                                                                            ARGS(REF("c"))) "]}");
    harness_fail(h, "a", NOT_FOUND);
    harness_fail(h, "c", NOT_FOUND);
    assert_string_equal(harness_args(h, "d", 0), "[{\"$k\":1}]");
    harness_complete(h, "d", "1");
    assert_int_equal(h->status, MP_GRAPH_SUCCEEDED);
    statuses(h, "skipped skipped succeeded succeeded");
    shows(h, ".steps[1].because", "\"error\"");
    shows(h, ".steps[1].error.reason", "\"NONE\"");
    shows(h, ".steps[3].defaulted", "true");
    shows(h, ".steps[3].error.reason", "\"NONE\"");
    shows(h, ".steps[4].error", "null");
    harness_free(h);
}

static void on_error_covers_a_missing_field_too(void **state)
{
    (void)state;
    struct harness *h = harness_run("{\"input\":{},\"steps\":[" S(
        "a", ",\"on_error\":{\"default\":7}" ARGS(REF("input.x"))) "]}");
    assert_int_equal(h->status, MP_GRAPH_SUCCEEDED);
    shows(h, ".output", "{\"a\":7}");
    shows(h, ".steps[1].error.reason", "\"MISSING_FIELD\"");
    harness_free(h);
}

static void retries_cover_some_codes_only(void **state)
{
    (void)state;
    static const struct {
        const char *error;
        bool is_retried;
    } cases[] = {{UNAVAILABLE, true},
                 {LATE, true},
                 {"{\"code\":\"RESOURCE_EXHAUSTED\"}", true},
                 {"{\"code\":\"ABORTED\"}", true},
                 {"{\"code\":\"UNKNOWN\"}", true},
                 {"{\"code\":\"INTERNAL\"}", true},
                 {NOT_FOUND, false},
                 {"{\"code\":\"INVALID_ARGUMENT\"}", false},
                 {"{\"code\":\"FAILED_PRECONDITION\"}", false},
                 {"{\"code\":\"PERMISSION_DENIED\"}", false},
                 {"{\"code\":\"CANCELLED\"}", false},
                 {"{\"code\":\"UNIMPLEMENTED\"}", false},
                 {"{\"code\":\"UNAVAILABLE\",\"retry\":false}", false}};
    for (size_t i = 0; i < MP_ARRAY_SIZE(cases); i++) {
        struct harness *h = harness_run("{\"steps\":[" S("a", ",\"retries\":1") "]}");
        harness_fail(h, "a", cases[i].error);
        if ((h->run.size == 0) != cases[i].is_retried)
            fail_msg("%s", cases[i].error);
        harness_free(h);
    }
}

static void retries_wait_longer_each_time_with_jitter(void **state)
{
    (void)state;
    uint64_t first[2];
    for (uint64_t seed = 0; seed < 2; seed++) {
        struct harness *h = harness_new();
        h->seed = seed;
        harness_begin(h, "{\"steps\":[" S("a", ",\"retries\":12,\"backoff_ms\":100") "]}");
        uint64_t full = MP_MS(100);
        for (uint32_t attempt = 1; attempt <= 12; attempt++) {
            assert_int_equal(harness_find(h, "a", 0)->attempt, attempt);
            harness_fail(h, "a", UNAVAILABLE);
            assert_null(harness_find(h, "a", 0));
            uint64_t pause = mp_graph_deadline(h->g) - h->now;
            assert_in_range(pause, full / 2, full);
            if (attempt == 1)
                first[seed] = pause;
            full = full * 2 < MP_MS(MP_BACKOFF_MS_MAX) ? full * 2 : MP_MS(MP_BACKOFF_MS_MAX);
            harness_timer(h);
        }
        harness_fail(h, "a", UNAVAILABLE);
        shows(h, ".steps[1].attempts", "13");
        shows(h, ".summary.retries", "12");
        shows(h, ".error.attempt", "13");
        harness_free(h);
    }
    assert_int_not_equal(first[0], first[1]);
}

static void what_never_began_is_no_attempt(void **state)
{
    (void)state;
    struct harness *h = harness_run("{\"steps\":[" S("a", "") "]}");
    h->now += MP_MS(7);
    harness_fail_at(h, "a", 0, UNAVAILABLE, true);
    shows(h, ".steps[1].attempts", "0");
    shows(h, ".steps[1].node", "null");
    shows(h, ".steps[1].queue_ms", "7");
    shows(h, ".summary.remote_calls", "0");
    harness_free(h);
}

static void an_error_says_which_attempt_of_the_step_it_was(void **state)
{
    (void)state;
    struct harness *h = harness_run("{\"steps\":[" S("a", ",\"retries\":1,\"backoff_ms\":0") "]}");
    harness_fail(h, "a", UNAVAILABLE);
    harness_fail(h, "a",
                 "{\"code\":\"INTERNAL\",\"attempt\":1,\"step\":\"inner\",\"fun\":\"m.inner\","
                 "\"index\":9,\"data\":{\"kept\":[1]}}");
    shows(h, ".error.attempt", "2");
    shows(h, ".error.step", "\"a\"");
    shows(h, ".error.index", "(missing)");
    shows(h, ".error.fun", "\"m.inner\"");
    shows(h, ".error.data", "{\"kept\":[1]}");
    harness_free(h);
}

static void an_attempt_has_the_earlier_of_two_deadlines(void **state)
{
    (void)state;
    struct harness *h = harness_run("{\"timeout_ms\":1000,\"steps\":[" S(
        "a", ",\"timeout_ms\":50,\"retries\":1,"
             "\"backoff_ms\":0") "," S("b", ",\"timeout_ms\":5000") "," S("c", "") "]}");
    assert_int_equal(harness_find(h, "a", 0)->deadline - h->now, MP_MS(50));
    assert_int_equal(harness_find(h, "b", 0)->deadline - h->now, MP_MS(1000));
    assert_int_equal(harness_find(h, "c", 0)->deadline - h->now, MP_MS(1000));
    h->now += MP_MS(50);
    harness_fail(h, "a", LATE);
    assert_int_equal(harness_find(h, "a", 0)->attempt, 2);
    assert_int_equal(harness_find(h, "a", 0)->deadline - h->now, MP_MS(50));
    h->now += MP_MS(50);
    harness_fail(h, "a", LATE);
    harness_complete(h, "b", "1");
    harness_complete(h, "c", "1");
    statuses(h, "timed_out succeeded succeeded");
    assert_int_equal(h->status, MP_GRAPH_FAILED);
    shows(h, ".summary.timed_out", "1");
    harness_free(h);
}

static void an_attempt_that_nobody_answers_is_lost_after_its_deadline(void **state)
{
    (void)state;
    struct harness *h = harness_run(
        "{\"steps\":[" S("a", ",\"timeout_ms\":50,\"retries\":1,\"backoff_ms\":10") "]}");
    struct harness_call *lost = harness_find(h, "a", 0);
    harness_timer(h);
    assert_true(lost->is_cancelled);
    lost->is_answered = true;
    harness_timer(h);
    struct harness_call *second = harness_find(h, "a", 0);
    assert_non_null(second);
    assert_int_equal(second->attempt, 2);
    lost->is_answered = false;
    harness_complete(h, "a", "\"too late\""); /* the oldest: the lost one */
    assert_int_equal(h->run.size, 0);
    harness_complete(h, "a", "\"in time\"");
    shows(h, ".output.a", "\"in time\"");
    harness_free(h);
}

static void a_run_over_its_time_ends_at_once(void **state)
{
    (void)state;
    struct harness *h = harness_new();
    h->cfg.timeout = MP_MS(200);
    harness_begin(h, "{\"timeout_ms\":5000,\"steps\":[" S("a", "") "," S("b", "") "," S(
                         "c", ARGS(REF("a"))) "]}");
    h->now += MP_MS(10);
    harness_complete(h, "b", "\"done\"");
    harness_timer(h);
    assert_int_equal(h->status, MP_GRAPH_TIMED_OUT);
    assert_true(h->calls[0].is_cancelled);
    statuses(h, "timed_out succeeded cancelled");
    shows(h, ".status", "\"timed_out\"");
    shows(h, ".error.code", "\"DEADLINE_EXCEEDED\"");
    shows(h, ".error.reason", "\"RUN_TIMEOUT\"");
    shows(h, ".error.message", "\"the run was not done after 200 ms\"");
    shows(h, ".results", "{\"b\":\"done\"}");
    shows(h, ".summary.total_ms", "200");
    /* The answer that was still to come is passed over. */
    harness_complete(h, "a", "1");
    assert_int_equal(h->err, MP_OK);
    harness_free(h);
}

static void a_cancelled_run_waits_for_its_calls_but_not_for_ever(void **state)
{
    (void)state;
    const char *graph = "{\"steps\":[" S("a", "") "," S("b", "") "," S("c", ARGS(REF("a"))) "," S(
        "r", ",\"retries\":3") "," S("e", ",\"each\":[1,2,3],\"concurrency\":2") "]}";
    struct harness *h = harness_run(graph);
    harness_fail(h, "r", UNAVAILABLE);
    harness_cancel(h);
    assert_int_equal(harness_open(h), 0);
    assert_int_equal(h->run.size, 0);
    harness_fail(h, "a", "{\"code\":\"CANCELLED\"}");
    harness_complete(h, "b", "\"was done\"");
    harness_complete_at(h, "e", 1, "1");
    harness_fail_at(h, "e", 2, "{\"code\":\"CANCELLED\"}", false);
    assert_int_equal(h->status, MP_GRAPH_CANCELLED);
    statuses(h, "cancelled succeeded cancelled cancelled cancelled");
    shows(h, ".error.code", "\"CANCELLED\"");
    shows(h, ".error.reason", "\"RUN_CANCELLED\"");
    shows(h, ".results", "{\"b\":\"was done\"}");
    harness_free(h);
    h = harness_run(graph);
    harness_cancel(h);
    harness_cancel(h);
    harness_timer(h);
    assert_int_equal(h->status, MP_GRAPH_CANCELLED);
    statuses(h, "cancelled cancelled cancelled cancelled cancelled");
    harness_free(h);
}

static void a_run_can_be_cancelled_before_it_begins(void **state)
{
    (void)state;
    struct harness *h = harness_new();
    tiny_read("{\"steps\":[" S("a", "") "]}", &h->graph);
    harness_load_bytes(h);
    harness_cancel(h);
    shows(h, ".reason", "\"RUN_CANCELLED\"");
    harness_free(h);
}

static void a_result_that_is_no_value_fails_the_step(void **state)
{
    (void)state;
    static const uint8_t bad[] = {0x92, 0x01};
    struct harness *h = harness_run("{\"steps\":[" S("a", "") "," S("b", "") "]}");
    harness_complete_bytes(h, harness_find(h, "a", 0), mp_slice_of(bad, sizeof(bad)));
    harness_complete_bytes(h, harness_find(h, "b", 0), (struct mp_slice){0});
    shows(h, ".steps[1].error.reason", "\"BAD_RESULT\"");
    shows(h, ".steps[2].error.reason", "\"BAD_RESULT\"");
    harness_free(h);
    h = harness_run("{\"steps\":[" S("a", "") "]}");
    harness_fail(h, "a", "[1]");
    shows(h, ".error.reason", "\"BAD_ERROR\"");
    harness_free(h);
}

static void values_and_runs_have_a_largest_size(void **state)
{
    (void)state;
    struct harness *h = harness_new();
    h->cfg.value_bytes_max = 20;
    harness_begin(
        h, "{\"steps\":[" S("a", "") "," S("b", "") "," S("c", ARGS(REF("b") "," REF("b"))) "]}");
    harness_complete(h, "a", "\"0123456789012345678901234567\"");
    harness_complete(h, "b", "\"0123456789\"");
    shows(h, ".error.reason", "\"TOO_LARGE\"");
    shows(h, ".error.message", "\"the result is over the limit of 20 bytes\"");
    harness_free(h);
    h = harness_new();
    h->cfg.value_bytes_max = 20;
    harness_begin(h, "{\"steps\":[" S("b", "") "," S("c", ARGS(REF("b") "," REF("b"))) "]}");
    harness_complete(h, "b", "\"0123456789\"");
    shows(h, ".error.message", "\"the arguments are over the limit of 20 bytes\"");
    harness_free(h);
    h = harness_new();
    h->cfg.value_bytes_max = 20;
    harness_begin(h, "{\"steps\":[" S("a", "") "," S("b", "") "]}");
    harness_complete(h, "a", "\"0123456789\"");
    harness_complete(h, "b", "\"0123456789\"");
    shows(h, ".error.message", "\"the output is over the limit of 20 bytes\"");
    shows(h, ".results.b", "\"0123456789\"");
    harness_free(h);
    h = harness_new();
    h->cfg.kept_bytes_max = 20;
    harness_begin(h, "{\"steps\":[" S("a", "") "," S("b", ",\"on_error\":\"skip\"") "]}");
    harness_complete(h, "a", "\"0123456789\"");
    harness_complete(h, "b", "\"0123456789\"");
    shows(h, ".error.reason", "\"RUN_TOO_LARGE\"");
    harness_free(h);
}

/* `levels` lists in one another. */
static void put_deep(struct mp_buf *b, int levels)
{
    for (int i = 0; i < levels; i++)
        assert_int_equal(mp_mp_put_array(b, 1), MP_OK);
    assert_int_equal(mp_mp_put_nil(b), MP_OK);
}

static void nesting_has_a_limit_everywhere(void **state)
{
    (void)state;
    struct spec_alloc counted = {.fail_at = SPEC_NEVER};
    struct mp_alloc alloc = spec_alloc_of(&counted);
    struct mp_buf deep;
    struct harness *h = harness_run("{\"steps\":[" S("a", "") "," S("b", "") "]}");
    mp_buf_init(&deep, &alloc, 0);
    put_deep(&deep, MP_DEPTH_MAX + 1);
    harness_complete_bytes(h, harness_find(h, "a", 0), mp_buf_slice(&deep));
    mp_buf_clear(&deep);
    put_deep(&deep, MP_DEPTH_MAX);
    harness_complete_bytes(h, harness_find(h, "b", 0), mp_buf_slice(&deep));
    statuses(h, "failed succeeded");
    shows(h, ".error.reason", "\"BAD_RESULT\"");
    assert_int_equal(mp_mp_check(h->run), MP_OK);
    harness_free(h);
    h = harness_run(
        "{\"trace\":true,\"output\":[[" REF("a") "]],\"steps\":[" S("a", ",\"each\":[1]") "]}");
    harness_complete_bytes(h, harness_find(h, "a", 1), mp_buf_slice(&deep));
    shows(h, ".error.reason", "\"UNENCODABLE\"");
    shows(h, ".error.message", "\"the output is nested deeper than 128\"");
    assert_int_equal(mp_mp_check(h->run), MP_OK);
    mp_buf_fini(&deep);
    harness_free(h);
}

static void answers_to_nothing_are_refused(void **state)
{
    (void)state;
    struct harness *h = harness_run("{\"steps\":[" S("a", "") "," S("b", "") "]}");
    struct harness_call *a = harness_find(h, "a", 0);
    harness_complete(h, "a", "1");
    harness_complete_bytes(h, a, mp_slice_str("\x01"));
    assert_int_equal(h->err, MP_EINVAL);
    struct mp_graph_event ev = {.kind = MP_GRAPH_START};
    assert_int_equal(harness_step(h, &ev), MP_EINVAL);
    harness_complete(h, "b", "1");
    shows(h, ".output", "{\"a\":1,\"b\":1}");
    harness_free(h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_step_starts_when_its_own_inputs_are_there),
        cmocka_unit_test(strings_are_never_references),
        cmocka_unit_test(references_stand_at_any_depth_and_in_any_order),
        cmocka_unit_test(an_input_given_replaces_the_graphs_own),
        cmocka_unit_test(a_missing_field_fails_the_step_and_names_the_keys),
        cmocka_unit_test(the_keys_of_a_missing_field_are_at_most_twenty),
        cmocka_unit_test(a_missing_field_of_the_output_fails_the_run),
        cmocka_unit_test(two_branches_join_by_defaults),
        cmocka_unit_test(skipping_passes_on_over_references_but_not_over_after),
        cmocka_unit_test(null_and_false_are_false_and_all_else_is_true),
        cmocka_unit_test(a_skipped_step_is_null_in_the_output),
        cmocka_unit_test(without_an_output_all_leaves_are_given),
        cmocka_unit_test(a_failed_step_fails_the_run_and_what_was_handed_out_finishes),
        cmocka_unit_test(the_first_failure_is_the_runs_error),
        cmocka_unit_test(on_error_skips_or_stands_in),
        cmocka_unit_test(on_error_covers_a_missing_field_too),
        cmocka_unit_test(retries_cover_some_codes_only),
        cmocka_unit_test(retries_wait_longer_each_time_with_jitter),
        cmocka_unit_test(what_never_began_is_no_attempt),
        cmocka_unit_test(an_error_says_which_attempt_of_the_step_it_was),
        cmocka_unit_test(an_attempt_has_the_earlier_of_two_deadlines),
        cmocka_unit_test(an_attempt_that_nobody_answers_is_lost_after_its_deadline),
        cmocka_unit_test(a_run_over_its_time_ends_at_once),
        cmocka_unit_test(a_cancelled_run_waits_for_its_calls_but_not_for_ever),
        cmocka_unit_test(a_run_can_be_cancelled_before_it_begins),
        cmocka_unit_test(a_result_that_is_no_value_fails_the_step),
        cmocka_unit_test(values_and_runs_have_a_largest_size),
        cmocka_unit_test(nesting_has_a_limit_everywhere),
        cmocka_unit_test(answers_to_nothing_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
