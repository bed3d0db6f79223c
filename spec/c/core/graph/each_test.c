/* Steps with `each`: elements, concurrency, and what becomes of those that fail. */
#include "spec/c/core/graph/graph_harness.h"

#define UNAVAILABLE "{\"code\":\"UNAVAILABLE\",\"reason\":\"GONE\"}"
#define NOT_FOUND   "{\"code\":\"NOT_FOUND\",\"reason\":\"NONE\"}"

/* One step `e` with these options, and `next`, which refers to it. */
static struct harness *begin(const char *options)
{
    char json[2048];
    snprintf(json, sizeof(json),
             "{\"input\":{\"list\":[{\"n\":1},{\"n\":2},{\"n\":3},{\"n\":4},{\"n\":5}],\"no\":7,"
             "\"map\":{},\"full\":{\"a\":1}},\"steps\":[{\"name\":\"e\",\"call\":\"m.e\",%s},"
             "{\"name\":\"next\",\"call\":\"m.next\",\"args\":[{\"$ref\":\"e\"}]}]}",
             options);
    return harness_run(json);
}

static void shows(struct harness *h, const char *path, const char *wanted)
{
    const char *got = harness_show(h, path);
    if (strcmp(got, wanted) != 0)
        fail_msg("%s: wanted %s, got %s", path, wanted, got);
}

static void results_come_in_the_order_of_the_list(void **state)
{
    (void)state;
    struct harness *h =
        begin("\"each\":{\"$ref\":\"input.list\"},\"args\":[{\"$item\":\"n\"},"
              "{\"$index\":true},{\"all\":{\"$item\":\"\"}},{\"$ref\":\"input.no\"}]");
    /* Four for each worker of the providers, of which there is one. */
    assert_int_equal(harness_open(h), 4);
    assert_string_equal(harness_args(h, "e", 3), "[3,3,{\"all\":{\"n\":3}},7]");
    harness_complete_at(h, "e", 3, "\"c\"");
    assert_int_equal(harness_open(h), 4);
    harness_complete_at(h, "e", 5, "\"e\"");
    harness_complete_at(h, "e", 1, "\"a\"");
    harness_complete_at(h, "e", 4, "null");
    assert_null(harness_find(h, "next", 0));
    harness_complete_at(h, "e", 2, "\"b\"");
    assert_string_equal(harness_args(h, "next", 0), "[[\"a\",\"b\",\"c\",null,\"e\"]]");
    harness_complete(h, "next", "1");
    shows(h, ".steps[1].items",
          "{\"total\":5,\"succeeded\":5,\"failed\":0,\"skipped\":0,\"retried\":0}");
    shows(h, ".steps[1].nodes", "[\"n1\"]");
    shows(h, ".steps[1].attempts", "5");
    shows(h, ".steps[1].run_ms", "10");
    harness_free(h);
}

static void concurrency_is_kept(void **state)
{
    (void)state;
    struct harness *h = begin("\"each\":[1,2,3,4,5],\"concurrency\":2,\"args\":[{\"$item\":\"\"}]");
    for (uint32_t i = 1; i <= 5; i++) {
        assert_int_equal(harness_open(h), i == 5 ? 1 : 2);
        harness_complete_at(h, "e", i, "1");
    }
    assert_string_equal(harness_args(h, "next", 0), "[[1,1,1,1,1]]");
    harness_free(h);
}

static void an_empty_list_or_map_gives_an_empty_list(void **state)
{
    (void)state;
    static const char *const options[] = {"\"each\":[]", "\"each\":{}",
                                          "\"each\":{\"$ref\":\"input.map\"}",
                                          "\"each\":{\"$ref\":\"input.x\",\"default\":[]}",
                                          "\"each\":[],\"args\":[{\"$ref\":\"input.x\"}]"};
    for (size_t i = 0; i < MP_ARRAY_SIZE(options); i++) {
        struct harness *h = begin(options[i]);
        assert_string_equal(harness_args(h, "next", 0), "[[]]");
        harness_complete(h, "next", "1");
        shows(h, ".steps[1].items.total", "0");
        shows(h, ".steps[1].attempts", "0");
        harness_free(h);
    }
}

static void anything_else_is_not_a_list(void **state)
{
    (void)state;
    static const char *const options[] = {"\"each\":{\"$ref\":\"input.no\"}",
                                          "\"each\":{\"$ref\":\"input.full\"}",
                                          "\"each\":{\"a\":{\"$ref\":\"input.no\"}}",
                                          "\"each\":{\"$ref\":\"input.x\",\"default\":null}"};
    for (size_t i = 0; i < MP_ARRAY_SIZE(options); i++) {
        struct harness *h = begin(options[i]);
        shows(h, ".error.reason", "\"NOT_A_LIST\"");
        shows(h, ".error.code", "\"INVALID_ARGUMENT\"");
        shows(h, ".error.step", "\"e\"");
        harness_free(h);
    }
}

static void a_list_may_hold_references(void **state)
{
    (void)state;
    struct harness *h = begin("\"each\":[{\"$ref\":\"input.no\"},{\"x\":{\"$ref\":\"input.list[1]."
                              "n\"}},{\"$lit\":{\"$k\":1}}],"
                              "\"args\":[{\"$item\":\"\"}]");
    assert_string_equal(harness_args(h, "e", 1), "[7]");
    assert_string_equal(harness_args(h, "e", 2), "[{\"x\":1}]");
    assert_string_equal(harness_args(h, "e", 3), "[{\"$k\":1}]");
    harness_free(h);
}

static void one_failure_starts_no_more_and_cancels_the_rest(void **state)
{
    (void)state;
    struct harness *h = begin("\"each\":[1,2,3,4,5],\"concurrency\":3,\"retries\":1");
    harness_complete_at(h, "e", 1, "1");
    harness_fail_at(h, "e", 4, UNAVAILABLE, false); /* it waits for its next attempt */
    harness_fail_at(h, "e", 3, NOT_FOUND, false);
    assert_int_equal(h->status, MP_GRAPH_FAILED);
    assert_true(harness_find(h, "e", 2)->is_cancelled);
    assert_null(harness_find(h, "e", 5));
    shows(h, ".error.index", "3");
    shows(h, ".error.step", "\"e\"");
    shows(h, ".steps[1].status", "\"failed\"");
    shows(h, ".steps[1].items",
          "{\"total\":5,\"succeeded\":1,\"failed\":1,\"skipped\":0,\"retried\":1}");
    shows(h, ".steps[2].status", "\"skipped\"");
    shows(h, ".results", "{}");
    harness_free(h);
}

static void late_answers_of_cancelled_elements_are_passed_over(void **state)
{
    (void)state;
    struct harness *h =
        harness_run("{\"steps\":[{\"name\":\"e\",\"call\":\"m.e\",\"each\":[1,2,3]},"
                    "{\"name\":\"other\",\"call\":\"m.o\",\"retries\":1,\"backoff_ms\":0}]}");
    harness_fail_at(h, "e", 1, NOT_FOUND, false);
    harness_complete_at(h, "e", 2, "2");
    assert_int_equal(h->err, MP_OK);
    harness_fail(h, "other", UNAVAILABLE); /* a step that was handed out keeps its retries */
    harness_fail_at(h, "e", 3, "{\"code\":\"CANCELLED\"}", false);
    harness_complete(h, "other", "\"kept\"");
    shows(h, ".results", "{\"other\":\"kept\"}");
    shows(h, ".steps[1].items.succeeded", "0");
    harness_free(h);
}

static void skip_leaves_elements_out(void **state)
{
    (void)state;
    struct harness *h = begin("\"each\":[1,2,3],\"on_error\":\"skip\"");
    harness_fail_at(h, "e", 2, NOT_FOUND, false);
    harness_complete_at(h, "e", 1, "\"a\"");
    harness_complete_at(h, "e", 3, "\"c\"");
    assert_string_equal(harness_args(h, "next", 0), "[[\"a\",\"c\"]]");
    harness_complete(h, "next", "1");
    shows(h, ".steps[1].status", "\"succeeded\"");
    shows(h, ".steps[1].items",
          "{\"total\":3,\"succeeded\":2,\"failed\":0,\"skipped\":1,\"retried\":0}");
    shows(h, ".steps[1].error.index", "2");
    harness_free(h);
}

static void a_default_stands_in_for_elements(void **state)
{
    (void)state;
    struct harness *h = begin("\"each\":{\"$ref\":\"input.list\"},\"args\":[{\"$item\":\"n\"}],"
                              "\"on_error\":{\"default\":{\"d\":{\"$lit\":{\"$x\":0}}}}");
    for (uint32_t i = 1; i <= 5; i++)
        if (i % 2 == 0)
            harness_fail_at(h, "e", i, NOT_FOUND, false);
        else
            harness_complete_at(h, "e", i, "1");
    assert_string_equal(harness_args(h, "next", 0),
                        "[[1,{\"d\":{\"$x\":0}},1,{\"d\":{\"$x\":0}},1]]");
    harness_complete(h, "next", "1");
    shows(h, ".steps[1].defaulted", "true");
    shows(h, ".steps[1].items.succeeded", "5");
    harness_free(h);
}

static void a_field_that_an_element_lacks_is_its_own_failure(void **state)
{
    (void)state;
    struct harness *h = begin(
        "\"each\":[{\"a\":1},{\"b\":2},3],\"args\":[{\"$item\":\"a\"}],\"on_error\":\"skip\"");
    harness_complete_at(h, "e", 1, "\"a\"");
    assert_string_equal(harness_args(h, "next", 0), "[[\"a\"]]");
    harness_complete(h, "next", "1");
    shows(h, ".steps[1].items.skipped", "2");
    shows(h, ".steps[1].error.message", "\"$item.a is missing; the keys there: b\"");
    harness_free(h);
    h = begin("\"each\":[{\"a\":1},{\"b\":2},3],\"args\":[{\"$item\":\"a\"}]");
    shows(h, ".error.reason", "\"MISSING_FIELD\"");
    shows(h, ".error.index", "2");
    harness_free(h);
}

static void a_reference_of_args_is_looked_up_once_for_the_whole_step(void **state)
{
    (void)state;
    struct harness *h = begin("\"each\":[1,2],\"args\":[{\"$ref\":\"input.gone\"},{\"$item\":\"\"}]"
                              ",\"on_error\":\"skip\"");
    shows(h, ".steps[1].status", "\"skipped\"");
    shows(h, ".steps[1].error.index", "(missing)");
    shows(h, ".steps[1].error.reason", "\"MISSING_FIELD\"");
    harness_free(h);
}

static void elements_are_retried_alone(void **state)
{
    (void)state;
    struct harness *h =
        begin("\"each\":[\"x\",\"y\"],\"args\":[{\"$item\":\"\"},{\"$index\":true}],"
              "\"retries\":2,\"backoff_ms\":10,\"timeout_ms\":100");
    harness_fail_at(h, "e", 2, UNAVAILABLE, false);
    harness_timer(h);
    assert_int_equal(harness_find(h, "e", 2)->attempt, 2);
    assert_string_equal(harness_args(h, "e", 2), "[\"y\",2]");
    assert_int_equal(harness_find(h, "e", 2)->deadline - h->now, MP_MS(100));
    harness_fail_at(h, "e", 2, UNAVAILABLE, false);
    harness_timer(h);
    harness_complete_at(h, "e", 2, "2");
    harness_complete_at(h, "e", 1, "1");
    harness_complete(h, "next", "1");
    shows(h, ".steps[1].items.retried", "1");
    shows(h, ".steps[1].attempts", "4");
    shows(h, ".summary.retries", "2");
    shows(h, ".steps[1].nodes", "[\"n2\",\"n1\"]");
    shows(h, ".summary.remote_calls", "2");
    harness_free(h);
}

/* Answers every open call of the step with its own arguments' first element, in turns. */
static void answer_all(struct harness *h)
{
    static const uint8_t one[] = {0x01};
    for (uint32_t i = 0; i < h->count && h->run.size == 0; i++)
        if (!h->calls[i].is_answered)
            harness_complete_bytes(h, &h->calls[i], mp_slice_of(one, 1));
}

static void a_list_of_50000_elements_is_no_trouble(void **state)
{
    (void)state;
    struct harness *h = harness_new();
    h->workers = 8;
    assert_int_equal(mp_mp_put_map(&h->graph, 1), MP_OK);
    assert_int_equal(mp_mp_put_text(&h->graph, "steps"), MP_OK);
    assert_int_equal(mp_mp_put_array(&h->graph, 1), MP_OK);
    assert_int_equal(mp_mp_put_map(&h->graph, 4), MP_OK);
    tiny_read("\"name\"", &h->graph);
    tiny_read("\"e\"", &h->graph);
    tiny_read("\"call\"", &h->graph);
    tiny_read("\"m.e\"", &h->graph);
    tiny_read("\"args\"", &h->graph);
    tiny_read("[{\"$item\":\"\"}]", &h->graph);
    tiny_read("\"each\"", &h->graph);
    assert_int_equal(mp_mp_put_array(&h->graph, 50000), MP_OK);
    for (uint32_t i = 0; i < 50000; i++)
        assert_int_equal(mp_mp_put_uint(&h->graph, i), MP_OK);
    harness_load_bytes(h);
    harness_start(h);
    assert_int_equal(harness_open(h), 32);
    answer_all(h);
    assert_int_equal(h->status, MP_GRAPH_SUCCEEDED);
    shows(h, ".steps[1].items.succeeded", "50000");
    shows(h, ".output.e[50000]", "1");
    harness_free(h);
}

static void calls_out_at_once_are_bounded(void **state)
{
    (void)state;
    struct harness *h = harness_new();
    assert_int_equal(mp_mp_put_map(&h->graph, 1), MP_OK);
    assert_int_equal(mp_mp_put_text(&h->graph, "steps"), MP_OK);
    assert_int_equal(mp_mp_put_array(&h->graph, 20000), MP_OK);
    for (int i = 0; i < 20000; i++) {
        char text[64];
        snprintf(text, sizeof(text), "{\"name\":\"s%d\",\"call\":\"m.f\"}", i);
        tiny_read(text, &h->graph);
    }
    harness_load_bytes(h);
    harness_start(h);
    assert_int_equal(h->count, MP_GRAPH_OUTSTANDING_MAX);
    harness_complete(h, "s0", "1");
    assert_int_equal(h->count, MP_GRAPH_OUTSTANDING_MAX + 1);
    answer_all(h);
    assert_int_equal(h->status, MP_GRAPH_SUCCEEDED);
    shows(h, ".summary.succeeded", "20000");
    harness_free(h);
}

static void a_cancelled_list_with_an_element_between_attempts_is_not_complete(void **state)
{
    (void)state;
    struct harness *h =
        harness_run("{\"steps\":[{\"name\":\"a\",\"call\":\"m.a\",\"each\":[1,2],\"retries\":1}]}");
    harness_fail_at(h, "a", 1, "{\"code\":\"UNAVAILABLE\",\"message\":\"no\"}", false);
    harness_cancel(h);
    harness_complete_at(h, "a", 2, "2");
    assert_int_equal(h->status, MP_GRAPH_CANCELLED);
    assert_string_equal(harness_show(h, ".steps[1].status"), "\"cancelled\"");
    harness_free(h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(results_come_in_the_order_of_the_list),
        cmocka_unit_test(concurrency_is_kept),
        cmocka_unit_test(an_empty_list_or_map_gives_an_empty_list),
        cmocka_unit_test(anything_else_is_not_a_list),
        cmocka_unit_test(a_list_may_hold_references),
        cmocka_unit_test(one_failure_starts_no_more_and_cancels_the_rest),
        cmocka_unit_test(late_answers_of_cancelled_elements_are_passed_over),
        cmocka_unit_test(skip_leaves_elements_out),
        cmocka_unit_test(a_default_stands_in_for_elements),
        cmocka_unit_test(a_field_that_an_element_lacks_is_its_own_failure),
        cmocka_unit_test(a_reference_of_args_is_looked_up_once_for_the_whole_step),
        cmocka_unit_test(elements_are_retried_alone),
        cmocka_unit_test(a_list_of_50000_elements_is_no_trouble),
        cmocka_unit_test(calls_out_at_once_are_bounded),
        cmocka_unit_test(a_cancelled_list_with_an_element_between_attempts_is_not_complete),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
