/* What is told about a run: the run object, the plan, events. */
#include "spec/c/core/graph/graph_harness.h"

#define REF(path) "{\"$ref\":\"" path "\"}"

static void shows(struct harness *h, const char *path, const char *wanted)
{
    const char *got = harness_show(h, path);
    if (strcmp(got, wanted) != 0)
        fail_msg("%s: wanted %s, got %s", path, wanted, got);
}

static const char two[] = "{\"name\":\"pair\",\"steps\":["
                          "{\"name\":\"a\",\"call\":\"m.a\",\"needs\":[\"gpu\",\"ds\"]},"
                          "{\"name\":\"b\",\"call\":\"m.b\",\"args\":[" REF("a") "]}]}";

static void the_run_object_has_its_keys_in_order(void **state)
{
    (void)state;
    struct harness *h = harness_new();
    h->cfg.has_trace = true;
    harness_begin(h, two);
    h->now += MP_US(2120);
    harness_complete(h, "a", "[1]");
    h->now += MP_US(3000);
    harness_complete(h, "b", "\"x\"");
    shows(
        h, "",
        "{\"run_id\":\"01KBSPEC\",\"status\":\"succeeded\",\"output\":{\"b\":\"x\"},\"error\":null,"
        "\"levels\":[{\"level\":0,\"total_levels\":2,\"steps\":[\"a\"],\"results\":{\"a\":[1]},"
        "\"available\":[\"a\"],\"available_count\":1,\"progress\":50,\"duration_ms\":2.12},"
        "{\"level\":1,\"total_levels\":2,\"steps\":[\"b\"],\"results\":{\"b\":\"x\"},"
        "\"available\":[\"a\",\"b\"],\"available_count\":2,\"progress\":100,\"duration_ms\":3}],"
        "\"steps\":[{\"name\":\"a\",\"call\":\"m.a\",\"version\":\"1.2.0\",\"status\":"
        "\"succeeded\","
        "\"node\":\"n1\",\"worker\":1,\"level\":0,\"attempts\":1,\"depends_on\":[],"
        "\"started_ms\":0,\"queue_ms\":0.1,\"network_ms\":0.02,\"run_ms\":2,\"bytes_in\":5,"
        "\"bytes_out\":2,\"error\":null,\"ended_ms\":2.12,\"wait_ms\":0,\"retry_ms\":0},"
        "{\"name\":\"b\",\"call\":\"m.b\",\"version\":\"1.2.0\",\"status\":\"succeeded\","
        "\"node\":\"n1\",\"worker\":1,\"level\":1,\"attempts\":1,\"depends_on\":[\"a\"],"
        "\"started_ms\":2.12,\"queue_ms\":0.1,\"network_ms\":0.02,\"run_ms\":2,\"bytes_in\":5,"
        "\"bytes_out\":2,\"error\":null,\"ended_ms\":5.12,\"wait_ms\":0,\"retry_ms\":0}],"
        "\"summary\":{\"total_ms\":5.12,\"levels\":2,\"level_ms\":[2.12,3],\"steps\":2,"
        "\"succeeded\":2,\"failed\":0,\"skipped\":0,\"cancelled\":0,\"timed_out\":0,\"retries\":0,"
        "\"bottleneck_level\":0,\"bottleneck_step\":\"a\",\"critical_path\":[\"a\",\"b\"],"
        "\"critical_path_ms\":4.24,\"parallelism\":0.78125,\"nodes\":[\"n1\"],\"remote_calls\":0,"
        "\"bytes_moved\":0,\"cross_cluster_hops\":0},\"name\":\"pair\"}");
    harness_free(h);
}

static void levels_come_only_on_request(void **state)
{
    (void)state;
    struct harness *h = harness_run(two);
    harness_complete(h, "a", "1");
    harness_complete(h, "b", "1");
    shows(h, ".levels", "(missing)");
    shows(h, ".results", "(missing)");
    harness_free(h);
}

static void a_failed_run_shows_incomplete_levels_as_such(void **state)
{
    (void)state;
    struct harness *h = harness_run(
        "{\"trace\":true,\"steps\":[{\"name\":\"a\",\"call\":\"m.a\"},"
        "{\"name\":\"b\",\"call\":\"m.b\",\"args\":[" REF(
            "a") "]},"
                 "{\"name\":\"c\",\"call\":\"m.c\",\"args\":[" REF(
                     "a") "]},"
                          "{\"name\":\"d\",\"call\":\"m.d\",\"args\":[" REF("b") "]}]}");
    harness_complete(h, "a", "1");
    harness_fail(h, "b", "{\"code\":\"INTERNAL\"}");
    harness_complete(h, "c", "3");
    shows(h, ".levels[1].complete", "(missing)");
    shows(h, ".levels[2].complete", "false");
    shows(h, ".levels[2].results", "{\"c\":3}");
    shows(h, ".levels[2].progress", "33.3333333");
    shows(h, ".levels[2].available", "[\"a\",\"c\"]");
    shows(h, ".levels[3]", "(missing)");
    harness_free(h);
}

static void put_long_text(struct harness *h, struct mp_buf *b, size_t size)
{
    mp_buf_init(b, &h->plain_alloc, 0);
    assert_int_equal(mp_mp_put_array(b, 2), MP_OK);
    tiny_read("{\"k\":[1,-2.5,true,null]}", b);
    uint8_t *text = (uint8_t *)malloc(size);
    memset(text, 'x', size);
    assert_int_equal(mp_mp_put_str(b, mp_slice_of(text, size)), MP_OK);
    free(text);
}

static void large_results_are_shown_by_size_type_and_beginning(void **state)
{
    (void)state;
    struct mp_buf large;
    struct harness *h = harness_run("{\"trace\":true,\"output\":" REF(
        "b") ",\"steps\":["
             "{\"name\":\"a\",\"call\":\"m.a\"},"
             "{\"name\":\"b\",\"call\":\"m.b\",\"args\":[" REF("a[2]") "]}]}");
    put_long_text(h, &large, 100000);
    harness_complete_bytes(h, harness_find(h, "a", 0), mp_buf_slice(&large));
    size_t with_large = h->counted.live_bytes;
    assert_int_equal(harness_find(h, "b", 0)->args.size, 100006);
    harness_complete(h, "b", "1");
    /* Nobody reads it again: only its short form is kept. */
    assert_true(h->counted.live_bytes < with_large - 90000);
    shows(h, ".levels[1].results.a[\"$large\"].bytes", "100022");
    shows(h, ".levels[1].results.a[\"$large\"].type", "\"list\"");
    const char *preview = harness_show(h, ".levels[1].results.a[\"$large\"].preview");
    assert_int_equal(strncmp(preview, "\"[{\"k\":[1,-2.5,true,null]},\"xxx", 31), 0);
    assert_true(strlen(preview) < MP_GRAPH_PREVIEW_BYTES + 10);
    shows(h, ".steps[1].bytes_out", "100022");
    mp_buf_fini(&large);
    harness_free(h);
}

static void large_results_of_the_output_stay_whole(void **state)
{
    (void)state;
    struct mp_buf large;
    struct mp_slice found;
    struct harness *h = harness_run("{\"output\":{\"all\":" REF(
        "a") "},\"steps\":["
             "{\"name\":\"a\",\"call\":\"m.a\"},{\"name\":\"b\",\"call\":\"m.b\","
             "\"args\":[" REF("a[1]") "]}]}");
    put_long_text(h, &large, 100000);
    harness_complete_bytes(h, harness_find(h, "a", 0), mp_buf_slice(&large));
    harness_complete(h, "b", "1");
    assert_int_equal(mp_mp_map_get(h->run, mp_slice_str("output"), &found), MP_OK);
    assert_int_equal(mp_mp_map_get(found, mp_slice_str("all"), &found), MP_OK);
    assert_true(mp_slice_equal(found, mp_buf_slice(&large)));
    mp_buf_fini(&large);
    harness_free(h);
}

static void events_tell_the_run_as_it_happens(void **state)
{
    (void)state;
    struct harness *h = harness_new();
    harness_begin(h, "{\"steps\":[{\"name\":\"a\",\"call\":\"m.a\",\"retries\":1,\"backoff_ms\":0},"
                     "{\"name\":\"b\",\"call\":\"m.b\",\"when\":" REF(
                         "a.x") "},"
                                "{\"name\":\"c\",\"call\":\"m.c\",\"each\":" REF("a.list") "}]}");
    harness_fail(h, "a", "{\"code\":\"INTERNAL\"}");
    harness_complete(h, "a", "{\"list\":[1,2]}");
    harness_complete_at(h, "c", 1, "1");
    harness_complete_at(h, "c", 2, "2");
    assert_string_equal(harness_events(h),
                        "run_started step_started step_retried step_succeeded step_skipped "
                        "level_completed step_started step_progress step_succeeded level_completed "
                        "run_finished");
    harness_free(h);
    h = harness_new();
    harness_begin(h,
                  "{\"steps\":[{\"name\":\"a\",\"call\":\"m.a\"},{\"name\":\"b\",\"call\":\"m.b\","
                  "\"args\":[" REF("a") "]}]}");
    harness_fail(h, "a", "{\"code\":\"INTERNAL\"}");
    assert_string_equal(harness_events(h),
                        "run_started step_started step_failed step_skipped run_finished");
    harness_free(h);
}

static void long_lists_are_told_in_few_events(void **state)
{
    (void)state;
    struct harness *h = harness_new();
    h->workers = 100;
    assert_int_equal(mp_mp_put_map(&h->input, 1), MP_OK);
    assert_int_equal(mp_mp_put_text(&h->input, "list"), MP_OK);
    assert_int_equal(mp_mp_put_array(&h->input, 1000), MP_OK);
    for (int i = 0; i < 1000; i++)
        assert_int_equal(mp_mp_put_uint(&h->input, 1), MP_OK);
    harness_begin(h, "{\"steps\":[{\"name\":\"e\",\"call\":\"m.e\",\"each\":" REF(
                         "input.list") ","
                                       "\"retries\":1,\"backoff_ms\":0}]}");
    for (uint32_t i = 1; i <= 1000; i++) {
        harness_fail_at(h, "e", i, "{\"code\":\"INTERNAL\"}", false);
        harness_complete_at(h, "e", i, "1");
    }
    size_t count = 1;
    for (const char *s = harness_events(h); *s; s++)
        count += *s == ' ';
    assert_int_equal(count, 1 + 1 + 20 + 19 + 1 + 1 + 1);
    harness_free(h);
}

static void the_plan_says_what_would_run_where(void **state)
{
    (void)state;
    struct mp_buf plan;
    struct harness *h = harness_new();
    tiny_read(two, &h->graph);
    harness_load_bytes(h);
    mp_buf_init(&plan, &h->plain_alloc, 0);
    assert_int_equal(mp_graph_put_plan(h->g, &plan), MP_OK);
    assert_string_equal(
        harness_show_value(h, mp_buf_slice(&plan), ""),
        "{\"name\":\"pair\",\"levels\":[[\"a\"],[\"b\"]],\"steps\":["
        "{\"name\":\"a\",\"call\":\"m.a\",\"version\":\"1.2.0\",\"node\":\"n1\",\"level\":0,"
        "\"depends_on\":[],\"each\":false,\"needs\":[\"gpu\",\"ds\"]},"
        "{\"name\":\"b\",\"call\":\"m.b\",\"version\":\"1.2.0\",\"node\":\"n1\",\"level\":1,"
        "\"depends_on\":[\"a\"],\"each\":false,\"needs\":[]}]}");
    mp_buf_fini(&plan);
    harness_free(h);
    h = harness_new();
    tiny_read("{\"steps\":[]}", &h->graph);
    harness_load_bytes(h);
    mp_buf_init(&plan, &h->plain_alloc, 0);
    assert_int_equal(mp_graph_put_plan(h->g, &plan), MP_EINVAL);
    mp_buf_fini(&plan);
    harness_free(h);
}

static void a_run_can_be_shown_while_it_runs(void **state)
{
    (void)state;
    struct mp_buf run;
    struct harness *h = harness_run(two);
    h->now += MP_MS(2);
    harness_complete(h, "a", "1");
    h->now += MP_MS(2);
    mp_buf_init(&run, &h->plain_alloc, 0);
    assert_int_equal(mp_graph_put_run(h->g, h->now, &run), MP_OK);
    struct mp_slice bytes = mp_buf_slice(&run);
    assert_string_equal(harness_show_value(h, bytes, ".status"), "\"running\"");
    assert_string_equal(harness_show_value(h, bytes, ".output"), "null");
    assert_string_equal(harness_show_value(h, bytes, ".steps[2].status"), "\"running\"");
    assert_string_equal(harness_show_value(h, bytes, ".steps[2].ended_ms"), "null");
    assert_string_equal(harness_show_value(h, bytes, ".summary.total_ms"), "4");
    assert_string_equal(harness_show_value(h, bytes, ".summary.level_ms"), "[2,2]");
    mp_buf_fini(&run);
    harness_complete(h, "b", "1");
    harness_free(h);
}

static void the_critical_path_goes_back_through_the_last_input(void **state)
{
    (void)state;
    struct harness *h = harness_run("{\"steps\":[{\"name\":\"a\",\"call\":\"m.a\"},"
                                    "{\"name\":\"b\",\"call\":\"m.b\"},"
                                    "{\"name\":\"c\",\"call\":\"m.c\",\"args\":[" REF("a") "," REF(
                                        "b") "]},{\"name\":\"d\",\"call\":\"m.d\"}]}");
    h->now += MP_MS(3);
    harness_complete(h, "b", "1");
    harness_complete(h, "a", "1");
    h->now += MP_MS(3);
    harness_complete(h, "d", "1");
    harness_complete(h, "c", "1");
    shows(h, ".summary.critical_path", "[\"a\",\"c\"]");
    shows(h, ".summary.bottleneck_step", "\"a\"");
    harness_free(h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_run_object_has_its_keys_in_order),
        cmocka_unit_test(levels_come_only_on_request),
        cmocka_unit_test(a_failed_run_shows_incomplete_levels_as_such),
        cmocka_unit_test(large_results_are_shown_by_size_type_and_beginning),
        cmocka_unit_test(large_results_of_the_output_stay_whole),
        cmocka_unit_test(events_tell_the_run_as_it_happens),
        cmocka_unit_test(long_lists_are_told_in_few_events),
        cmocka_unit_test(the_plan_says_what_would_run_where),
        cmocka_unit_test(a_run_can_be_shown_while_it_runs),
        cmocka_unit_test(the_critical_path_goes_back_through_the_last_input),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
