/* How attempts went: which are kept, what retries and waiting cost, the slowest element. */
#include "spec/c/core/graph/graph_harness.h"

#define REF(path) "{\"$ref\":\"" path "\"}"
#define NO        "{\"code\":\"INTERNAL\",\"message\":\"no\"}"

static void shows(struct harness *h, const char *path, const char *wanted)
{
    const char *got = harness_show(h, path);
    if (strcmp(got, wanted) != 0)
        fail_msg("%s: wanted %s, got %s", path, wanted, got);
}

static void a_step_that_succeeds_at_once_has_no_tries(void **state)
{
    (void)state;
    struct harness *h =
        harness_run("{\"steps\":[{\"name\":\"a\",\"call\":\"m.a\",\"retries\":3}]}");
    h->now += MP_MS(2);
    harness_complete(h, "a", "1");
    shows(h, ".steps[1].tries", "(missing)");
    shows(h, ".steps[1].slowest", "(missing)");
    shows(h, ".steps[1].retry_ms", "0");
    shows(h, ".steps[1].wait_ms", "0");
    harness_free(h);
}

static void every_attempt_is_kept_with_its_times_and_its_error(void **state)
{
    (void)state;
    struct harness *h = harness_run(
        "{\"steps\":[{\"name\":\"a\",\"call\":\"m.a\",\"retries\":2,\"backoff_ms\":0}]}");
    h->now += MP_MS(3);
    harness_fail(h, "a", NO);
    h->now += MP_MS(4);
    harness_complete(h, "a", "1");
    shows(h, ".steps[1].attempts", "2");
    shows(h, ".steps[1].tries[1]",
          "{\"attempt\":1,\"node\":\"n2\",\"worker\":2,\"started_ms\":0,\"queue_ms\":0,"
          "\"network_ms\":0,\"run_ms\":1,\"delay_ms\":0,\"error\":{\"code\":\"INTERNAL\","
          "\"message\":\"no\",\"fun\":\"m.a\",\"step\":\"a\",\"node\":\"n2\",\"attempt\":1}}");
    shows(h, ".steps[1].tries[2]",
          "{\"attempt\":2,\"node\":\"n1\",\"worker\":1,\"started_ms\":3,\"queue_ms\":0.1,"
          "\"network_ms\":0.02,\"run_ms\":2,\"delay_ms\":0,\"error\":null}");
    shows(h, ".steps[1].tries[3]", "(missing)");
    shows(h, ".steps[1].retry_ms", "3");
    harness_free(h);
}

static void a_pause_counts_as_time_of_retries(void **state)
{
    (void)state;
    struct harness *h = harness_run(
        "{\"steps\":[{\"name\":\"a\",\"call\":\"m.a\",\"retries\":1,\"backoff_ms\":100}]}");
    mp_time began = h->now;
    h->now += MP_MS(3);
    harness_fail(h, "a", NO);
    harness_timer(h);
    double pause = (double)(h->now - began - MP_MS(3)) / 1e6;
    assert_true(pause >= 50 && pause <= 100);
    h->now += MP_MS(4);
    harness_complete(h, "a", "1");
    assert_true(strtod(harness_show(h, ".steps[1].retry_ms"), NULL) - pause - 3 < 0.001);
    assert_true(strtod(harness_show(h, ".steps[1].tries[1].delay_ms"), NULL) - pause < 0.001);
    assert_true(strtod(harness_show(h, ".steps[1].tries[2].started_ms"), NULL) - pause - 3 < 0.001);
    harness_free(h);
}

static void the_only_attempt_is_kept_if_it_failed(void **state)
{
    (void)state;
    struct harness *h = harness_run("{\"steps\":[{\"name\":\"a\",\"call\":\"m.a\"}]}");
    h->now += MP_MS(7);
    harness_fail(h, "a", NO);
    shows(h, ".steps[1].tries[1].error.code", "\"INTERNAL\"");
    shows(h, ".steps[1].tries[2]", "(missing)");
    shows(h, ".steps[1].retry_ms", "7");
    harness_free(h);
}

static void of_many_attempts_the_first_and_the_last_are_kept(void **state)
{
    (void)state;
    struct harness *h = harness_run(
        "{\"steps\":[{\"name\":\"a\",\"call\":\"m.a\",\"retries\":100,\"backoff_ms\":0}]}");
    for (int i = 0; i < 99; i++)
        harness_fail(h, "a", NO);
    size_t tries = h->g->tries_count;
    assert_int_equal(tries, 99); /* each is told by an event */
    harness_complete(h, "a", "1");
    shows(h, ".steps[1].tries[1].attempt", "1");
    shows(h, ".steps[1].tries[8].attempt", "8");
    shows(h, ".steps[1].tries[9].attempt", "93");
    shows(h, ".steps[1].tries[16].attempt", "100");
    shows(h, ".steps[1].tries[16].error", "null");
    shows(h, ".steps[1].tries[17]", "(missing)");
    /* run_started, step_started, then the 50th retry */
    assert_string_equal(harness_event(h, 52, ".attempt"), "50");
    assert_string_equal(harness_event(h, 52, ".error.attempt"), "50");
    harness_free(h);
}

static void attempts_that_no_event_tells_take_no_room(void **state)
{
    (void)state;
    struct harness *h = harness_new();
    h->workers = 100;
    harness_begin(h,
                  "{\"input\":[1,2,3,4,5,6,7,8,9,10],\"steps\":[{\"name\":\"e\",\"call\":\"m.e\","
                  "\"each\":" REF("input") ",\"retries\":20,\"backoff_ms\":0}]}");
    for (uint32_t i = 1; i <= 10; i++) {
        for (int k = 0; k < 20; k++)
            harness_fail_at(h, "e", i, NO, false);
        harness_complete_at(h, "e", i, "1");
    }
    assert_true(h->g->tries_count <=
                MP_GRAPH_PROGRESS_PARTS + MP_GRAPH_TRIES_FIRST + MP_GRAPH_TRIES_LAST + 1);
    shows(h, ".steps[1].tries[1].index", "1");
    shows(h, ".steps[1].tries[8].attempt", "8");
    shows(h, ".steps[1].tries[16].index", "10");
    shows(h, ".steps[1].tries[16].attempt", "20");
    shows(h, ".summary.retries", "200");
    harness_free(h);
}

static void retries_beyond_what_a_run_tells_are_counted(void **state)
{
    (void)state;
    struct harness *h = harness_run(
        "{\"steps\":[{\"name\":\"a\",\"call\":\"m.a\",\"retries\":5,\"backoff_ms\":0}]}");
    h->g->retries_told = MP_GRAPH_RETRIES_TOLD - 1;
    harness_fail(h, "a", NO);
    harness_fail(h, "a", NO);
    harness_complete(h, "a", "1");
    assert_string_equal(harness_events(h), "run_started step_started step_retried step_succeeded "
                                           "level_completed run_finished");
    shows(h, ".summary.retries", "2");
    shows(h, ".steps[1].tries[3].attempt", "3");
    harness_free(h);
}

static void a_long_error_is_kept_as_its_message(void **state)
{
    (void)state;
    struct harness *h = harness_run(
        "{\"steps\":[{\"name\":\"a\",\"call\":\"m.a\",\"retries\":1,\"backoff_ms\":0}]}");
    char long_text[MP_GRAPH_TRY_ERROR_MAX / 3 + 1];
    char error[MP_GRAPH_TRY_ERROR_MAX + 1000];
    memset(long_text, 'x', sizeof(long_text));
    long_text[sizeof(long_text) - 1] = '\0';
    memcpy(long_text + MP_GRAPH_TRY_TEXT_MAX - 1, "\xc3\xa4", 2); /* cut before, not within */
    snprintf(
        error, sizeof(error),
        "{\"code\":\"INTERNAL\",\"reason\":\"WHY\",\"message\":\"%s\",\"p\":\"%s\",\"q\":\"%s\"}",
        long_text, long_text, long_text);
    harness_fail(h, "a", error);
    harness_complete(h, "a", "1");
    shows(h, ".steps[1].tries[1].error.reason", "\"WHY\"");
    shows(h, ".steps[1].tries[1].error.step", "(missing)");
    assert_int_equal(strlen(harness_show(h, ".steps[1].tries[1].error.message")),
                     MP_GRAPH_TRY_TEXT_MAX - 1 + 2);
    assert_string_equal(harness_event(h, 3, ".error.reason"), "\"WHY\"");
    harness_free(h);
}

static void an_attempt_that_never_began_is_kept_though_not_counted(void **state)
{
    (void)state;
    struct harness *h = harness_run(
        "{\"steps\":[{\"name\":\"a\",\"call\":\"m.a\",\"retries\":1,\"backoff_ms\":0}]}");
    h->now += MP_MS(5);
    harness_fail_at(h, "a", 0, "{\"code\":\"UNAVAILABLE\"}", true);
    harness_complete(h, "a", "1");
    shows(h, ".steps[1].attempts", "1");
    shows(h, ".steps[1].tries[1].node", "null");
    shows(h, ".steps[1].tries[1].worker", "null");
    shows(h, ".steps[1].tries[1].queue_ms", "5");
    shows(h, ".steps[1].retry_ms", "5");
    harness_free(h);
}

static void an_attempt_whose_result_is_lost_counts_as_failed(void **state)
{
    (void)state;
    struct harness *h = harness_run(
        "{\"steps\":[{\"name\":\"a\",\"call\":\"m.a\"},{\"name\":\"c\",\"call\":\"m.c\"},"
        "{\"name\":\"b\",\"call\":\"m.b\",\"args\":[" REF("a") "," REF("c") "]}]}");
    h->now += MP_MS(2);
    harness_hold(h, "a", "n2", 7);
    h->now += MP_MS(10);
    harness_lose(h, "n2");
    shows(h, ".steps", "(missing)");
    h->now += MP_MS(3);
    harness_complete(h, "a", "1");
    harness_complete(h, "c", "1");
    harness_complete(h, "b", "1");
    shows(h, ".steps[1].tries[1].error.reason", "\"RESULT_LOST\"");
    shows(h, ".steps[1].tries[1].node", "\"n2\"");
    shows(h, ".steps[1].tries[1].run_ms", "2");
    shows(h, ".steps[1].tries[2].error", "null");
    shows(h, ".steps[1].tries[2].started_ms", "12");
    shows(h, ".steps[1].retry_ms", "2");
    assert_string_equal(harness_event(h, 5, ".event"), "\"step_retried\"");
    assert_string_equal(harness_event(h, 5, ".error.reason"), "\"RESULT_LOST\"");
    harness_free(h);
}

static void a_step_waits_while_too_many_calls_are_out(void **state)
{
    (void)state;
    struct harness *h = harness_new();
    h->workers = 100000;
    assert_int_equal(mp_mp_put_array(&h->input, MP_GRAPH_OUTSTANDING_MAX), MP_OK);
    for (int i = 0; i < MP_GRAPH_OUTSTANDING_MAX; i++)
        assert_int_equal(mp_mp_put_uint(&h->input, 1), MP_OK);
    harness_begin(h, "{\"steps\":[{\"name\":\"e\",\"call\":\"m.e\",\"each\":" REF(
                         "input") "},"
                                  "{\"name\":\"a\",\"call\":\"m.a\"},"
                                  "{\"name\":\"b\",\"call\":\"m.b\",\"args\":[" REF("a") "]}]}");
    h->now += MP_MS(1);
    harness_complete(h, "a", "1"); /* the last element takes its place */
    assert_null(harness_find(h, "b", 0));
    h->now += MP_MS(6);
    harness_complete_at(h, "e", 1, "1");
    assert_non_null(harness_find(h, "b", 0));
    struct mp_buf run;
    mp_buf_init(&run, &h->plain_alloc, 0);
    assert_int_equal(mp_graph_put_run(h->g, h->now, &run), MP_OK);
    struct mp_slice bytes = mp_buf_slice(&run);
    assert_string_equal(harness_show_value(h, bytes, ".steps[3].wait_ms"), "6");
    assert_string_equal(harness_show_value(h, bytes, ".steps[3].started_ms"), "7");
    assert_string_equal(harness_show_value(h, bytes, ".steps[1].wait_ms"), "0");
    mp_buf_fini(&run);
    harness_cancel(h);
    harness_free(h);
}

static void the_slowest_element_is_shown(void **state)
{
    (void)state;
    struct harness *h = harness_run(
        "{\"input\":[1,2,3,4],\"steps\":[{\"name\":\"e\",\"call\":\"m.e\",\"each\":" REF(
            "input") ",\"concurrency\":2,\"retries\":1,\"backoff_ms\":0,\"on_error\":\"skip\"}]}");
    h->now += MP_MS(1);
    harness_complete_at(h, "e", 1, "1");
    h->now += MP_MS(1);
    harness_complete_at(h, "e", 2, "1"); /* after 2 ms */
    h->now += MP_MS(1);
    harness_fail_at(h, "e", 3, NO, false); /* of 1 ms it took 2, and goes on */
    h->now += MP_MS(1);
    harness_complete_at(h, "e", 4, "1"); /* 2 ms, not more than element 2 */
    h->now += MP_MS(3);
    harness_complete_at(h, "e", 3, "1");
    shows(h, ".steps[1].slowest",
          "{\"index\":3,\"node\":\"n1\",\"worker\":1,\"attempts\":2,\"started_ms\":1,"
          "\"ended_ms\":7,\"queue_ms\":0.1,\"network_ms\":0.02,\"run_ms\":3,\"retry_ms\":2}");
    shows(h, ".steps[1].retry_ms", "2");
    shows(h, ".steps[1].tries[1].index", "3");
    shows(h, ".steps[1].tries[2]", "(missing)");
    harness_free(h);
    h = harness_run(
        "{\"input\":[],\"steps\":[{\"name\":\"e\",\"call\":\"m.e\",\"each\":" REF("input") "}]}");
    shows(h, ".steps[1].slowest", "(missing)");
    harness_free(h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_step_that_succeeds_at_once_has_no_tries),
        cmocka_unit_test(every_attempt_is_kept_with_its_times_and_its_error),
        cmocka_unit_test(a_pause_counts_as_time_of_retries),
        cmocka_unit_test(the_only_attempt_is_kept_if_it_failed),
        cmocka_unit_test(of_many_attempts_the_first_and_the_last_are_kept),
        cmocka_unit_test(attempts_that_no_event_tells_take_no_room),
        cmocka_unit_test(retries_beyond_what_a_run_tells_are_counted),
        cmocka_unit_test(a_long_error_is_kept_as_its_message),
        cmocka_unit_test(an_attempt_that_never_began_is_kept_though_not_counted),
        cmocka_unit_test(an_attempt_whose_result_is_lost_counts_as_failed),
        cmocka_unit_test(a_step_waits_while_too_many_calls_are_out),
        cmocka_unit_test(the_slowest_element_is_shown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
