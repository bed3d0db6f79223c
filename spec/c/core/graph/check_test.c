/* What the check of a graph refuses, and how it says so. Zero steps run in all of these. */
#include "spec/c/core/graph/graph_harness.h"

#define STEP(text) "{\"name\":\"a\",\"call\":\"m.f\"," text "}"

static struct harness *refused(const char *json)
{
    struct harness *h = harness_run(json);
    if (h->refused.size == 0)
        fail_msg("not refused: %s", json);
    assert_int_equal(h->count, 0);
    assert_int_equal(mp_graph_status_of(h->g), MP_GRAPH_FAILED);
    return h;
}

/* The graph has exactly one fault. */
static void refuses(const char *json, const char *reason, const char *message)
{
    struct harness *h = refused(json);
    char wanted[80];
    snprintf(wanted, sizeof(wanted), "\"%s\"", reason);
    assert_string_equal(harness_show(h, ".code"), "\"INVALID_ARGUMENT\"");
    if (strcmp(harness_show(h, ".reason"), wanted) != 0)
        fail_msg("%s\n%s", json, harness_show(h, ""));
    if (!strstr(harness_show(h, ".message"), message))
        fail_msg("%s\n%s", json, harness_show(h, ".message"));
    assert_string_equal(harness_show(h, ".faults[2]"), "(missing)");
    harness_free(h);
}

static void refuses_step(const char *options, const char *reason, const char *message)
{
    char json[1024];
    snprintf(
        json, sizeof(json),
        "{\"steps\":[{\"name\":\"a\",\"call\":\"m.f\"%s%s},{\"name\":\"other\",\"call\":\"m.g\"}]}",
        *options ? "," : "", options);
    refuses(json, reason, message);
}

static void what_is_no_graph(void **state)
{
    (void)state;
    refuses("[]", "BAD_GRAPH", "a graph is a map");
    refuses("\"steps\"", "BAD_GRAPH", "a graph is a map");
    refuses("{}", "EMPTY_GRAPH", "no `steps`");
    refuses("{\"steps\":[]}", "EMPTY_GRAPH", "no steps");
    refuses("{\"steps\":{}}", "EMPTY_GRAPH", "no steps");
    refuses("{\"steps\":{\"a\":1}}", "BAD_GRAPH", "`steps` must be a list");
    refuses("{\"steps\":[7]}", "BAD_GRAPH", "step 1 is no map");
    refuses("{\"steps\":[" STEP("\"args\":[]") "],\"ouput\":1}", "UNKNOWN_OPTION", "`ouput`");
    refuses("{\"steps\":[" STEP("\"args\":[]") "],\"timeout_ms\":0}", "BAD_OPTION", "timeout_ms");
    refuses("{\"steps\":[" STEP("\"args\":[]") "],\"timeout_ms\":\"1s\"}", "BAD_OPTION",
            "timeout_ms");
    refuses("{\"steps\":[" STEP("\"args\":[]") "],\"name\":5}", "BAD_OPTION", "`name`");
    refuses("{\"steps\":[" STEP("\"args\":[]") "],\"trace\":1}", "BAD_OPTION", "`trace`");
}

static void bad_names(void **state)
{
    (void)state;
    refuses("{\"steps\":[{\"call\":\"m.f\"}]}", "BAD_NAME", "step 1 has no name");
    refuses("{\"steps\":[{\"name\":\"a b\",\"call\":\"m.f\"}]}", "BAD_NAME", "`a b`");
    refuses("{\"steps\":[{\"name\":7,\"call\":\"m.f\"}]}", "BAD_NAME", "(no string)");
    refuses("{\"steps\":[{\"name\":\"\",\"call\":\"m.f\"}]}", "BAD_NAME", "step 1");
    refuses("{\"steps\":[{\"name\":\"input\",\"call\":\"m.f\"}]}", "BAD_NAME", "the run's input");
    refuses("{\"steps\":[{\"name\":\"a\",\"call\":\"m.f x\"}]}", "BAD_NAME", "`m.f x`");
    refuses("{\"steps\":[{\"name\":\"a\"}]}", "BAD_OPTION", "`call` is missing");
    refuses("{\"steps\":[{\"name\":\"a\",\"call\":7}]}", "BAD_OPTION", "`call` must be");
    refuses("{\"steps\":[" STEP("\"needs\":[]") "," STEP("\"needs\":[]") "]}", "DUPLICATE_STEP",
            "step 1 and step 2 are both called `a`");
    refuses_step("\"needs\":[\"a b\"]", "BAD_NAME", "`a b`");
    refuses_step("\"on\":\"n 1\"", "BAD_NAME", "`n 1`");
    refuses_step("\"cluster\":\"\"", "BAD_OPTION", "cluster");
}

static void bad_options(void **state)
{
    (void)state;
    refuses_step("\"args\":7", "BAD_OPTION", "`args` must be a list");
    refuses_step("\"args\":{\"a\":1}", "BAD_OPTION", "`args` must be a list");
    refuses_step("\"args\":{\"$ref\":\"other\"}", "BAD_OPTION", "`args` must be a list");
    refuses_step("\"needs\":\"gpu\"", "BAD_OPTION", "`needs`");
    refuses_step("\"needs\":[1]", "BAD_OPTION", "`needs`");
    refuses_step("\"version\":1", "BAD_OPTION", "`version`");
    refuses_step("\"retries\":-1", "BAD_OPTION", "`retries`");
    refuses_step("\"retries\":1.5", "BAD_OPTION", "`retries`");
    refuses_step("\"retries\":1001", "BAD_OPTION", "`retries`");
    refuses_step("\"retries\":true", "BAD_OPTION", "`retries`");
    refuses_step("\"backoff_ms\":-1", "BAD_OPTION", "`backoff_ms`");
    refuses_step("\"backoff_ms\":40000", "BAD_OPTION", "`backoff_ms`");
    refuses_step("\"timeout_ms\":0", "BAD_OPTION", "`timeout_ms`");
    refuses_step("\"timeout_ms\":-5", "BAD_OPTION", "`timeout_ms`");
    refuses_step("\"timeout_ms\":1e30", "BAD_OPTION", "`timeout_ms`");
    refuses_step("\"when\":true", "BAD_OPTION", "`when` must be a reference");
    refuses_step("\"when\":\"other.x\"", "BAD_OPTION", "`when` must be a reference");
    refuses_step("\"unless\":{\"$lit\":1}", "BAD_OPTION", "`unless` must be a reference");
    refuses_step("\"on_error\":\"ignore\"", "BAD_OPTION", "`on_error`");
    refuses_step("\"on_error\":{\"defualt\":1}", "BAD_OPTION", "`on_error`");
    refuses_step("\"on_error\":{\"default\":1,\"x\":2}", "BAD_OPTION", "`on_error`");
    refuses_step("\"each\":7", "BAD_OPTION", "`each`");
    refuses_step("\"each\":\"other\"", "BAD_OPTION", "`each`");
    refuses_step("\"each\":[],\"concurrency\":0", "BAD_OPTION", "`concurrency`");
    refuses_step("\"concurrency\":2", "BAD_OPTION", "`concurrency` is for");
    refuses_step("\"after\":\"other\"", "BAD_OPTION", "`after`");
    refuses_step("\"after\":[1]", "BAD_OPTION", "`after`");
    refuses_step("\"retires\":3", "UNKNOWN_OPTION", "`retires`");
    refuses_step("\"retries\":1,\"retries\":2", "BAD_OPTION", "given twice");
}

static void bad_references(void **state)
{
    (void)state;
    refuses_step("\"args\":[{\"$ref\":\"othr.x\"}]", "UNKNOWN_STEP", "`othr`");
    refuses_step("\"after\":[\"othr\"]", "UNKNOWN_STEP", "`othr`");
    refuses_step("\"args\":[{\"$ref\":\"a.x\"}]", "SELF_REFERENCE", "`a.x`");
    refuses_step("\"each\":{\"$ref\":\"a\"}", "SELF_REFERENCE", "`a`");
    refuses_step("\"after\":[\"a\"]", "SELF_REFERENCE", "after itself");
    refuses_step("\"args\":[{\"$ref\":\"other.\"}]", "BAD_PATH", "`other.`");
    refuses_step("\"args\":[{\"$ref\":\"other[0]\"}]", "BAD_PATH", "`other[0]`");
    refuses_step("\"args\":[{\"$ref\":\"\"}]", "BAD_PATH", "is no path");
    refuses_step("\"args\":[{\"$ref\":7}]", "BAD_PATH", "must be a string");
    refuses_step("\"args\":[{\"$ref\":\"input[\"}]", "BAD_PATH", "`input[`");
    refuses_step("\"args\":[{\"$ref\":\"other\",\"x\":1}]", "UNKNOWN_OPERATOR", "stands alone");
    refuses_step("\"args\":[{\"$reff\":\"other\"}]", "UNKNOWN_OPERATOR", "`$reff`");
    refuses_step("\"args\":[{\"x\":1,\"$ref\":\"other\"}]", "UNKNOWN_OPERATOR", "`$ref`");
    refuses_step("\"args\":[{\"$lit\":1,\"default\":2}]", "UNKNOWN_OPERATOR", "stands alone");
    refuses_step("\"args\":[{\"deep\":[[{\"a\":1,\"b\":{\"$x\":1}}]]}]", "UNKNOWN_OPERATOR",
                 "`$x`");
    refuses_step("\"args\":[{\"$ref\":\"other\",\"default\":{\"$ref\":\"nobody\"}}]",
                 "UNKNOWN_STEP", "`nobody`");
    refuses_step("\"args\":[{\"$item\":\"\"}]", "BAD_ITEM", "`$item`");
    refuses_step("\"args\":[{\"$index\":true}]", "BAD_ITEM", "`$index`");
    refuses_step("\"each\":[{\"$item\":\"\"}]", "BAD_ITEM", "`$item`");
    refuses_step("\"each\":[1],\"args\":[{\"$index\":1}]", "BAD_ITEM", "$index");
    refuses_step("\"each\":[1],\"args\":[{\"$item\":\".a\"}]", "BAD_PATH", "`.a`");
    refuses_step("\"each\":[1],\"args\":[{\"$item\":1}]", "BAD_PATH", "must be a string");
    refuses_step("\"on_error\":{\"default\":{\"$ref\":\"other\"}}", "UNKNOWN_OPERATOR",
                 "no reference here");
    refuses("{\"steps\":[" STEP("\"args\":[]") "],\"output\":{\"$ref\":\"b\"}}", "UNKNOWN_STEP",
            "`b`");
    refuses("{\"steps\":[" STEP("\"args\":[]") "],\"output\":{\"$ref\":\"a[\"}}", "BAD_PATH",
            "`a[`");
    refuses("{\"steps\":[" STEP("\"args\":[]") "],\"input\":{\"$ref\":\"a\"}}", "UNKNOWN_OPERATOR",
            "no reference here");
}

static void hints(void **state)
{
    (void)state;
    struct harness *h = refused("{\"steps\":[{\"name\":\"events\",\"call\":\"m.f\",\"retires\":2},"
                                "{\"name\":\"b\",\"call\":\"m.f\",\"args\":[{\"$ref\":\"evnets.x\"}"
                                ",{\"$rfe\":1},{\"$ref\":\"inptu\"}]}],"
                                "\"ouput\":1}");
    assert_string_equal(harness_show(h, ".faults[1].hint"), "\"did you mean output?\"");
    assert_string_equal(harness_show(h, ".faults[2].hint"), "\"did you mean retries?\"");
    assert_string_equal(harness_show(h, ".faults[3].hint"), "\"did you mean events?\"");
    assert_string_equal(harness_show(h, ".faults[4].hint"), "\"did you mean $ref?\"");
    assert_string_equal(harness_show(h, ".faults[5].hint"), "\"did you mean input?\"");
    harness_free(h);
}

static void all_faults_are_told_at_once_in_step_order(void **state)
{
    (void)state;
    struct harness *h = harness_new();
    h->refuse_step = "b";
    harness_begin(h, "{\"steps\":[{\"name\":\"a\",\"call\":\"m.f\",\"args\":[{\"$ref\":\"c\"}]},"
                     "{\"name\":\"b\",\"call\":\"m.missing\"},"
                     "{\"name\":\"c\",\"call\":\"m.f\",\"args\":[{\"$ref\":\"a\"}],\"retries\":-1},"
                     "{\"name\":\"d\",\"call\":\"m.f\",\"args\":[{\"$ref\":\"zzzz\"}]}],"
                     "\"output\":{\"$ref\":\"e\"}}");
    assert_string_equal(harness_show(h, ".reason"), "\"CYCLE\"");
    assert_string_equal(harness_show(h, ".message"), "\"a -> c -> a\"");
    assert_string_equal(harness_show(h, ".step"), "\"a\"");
    assert_string_equal(harness_show(h, ".faults[1].reason"), "\"CYCLE\"");
    assert_string_equal(harness_show(h, ".faults[2].reason"), "\"UNKNOWN_FUNCTION\"");
    assert_string_equal(harness_show(h, ".faults[2].code"), "\"NOT_FOUND\"");
    assert_string_equal(harness_show(h, ".faults[2].step"), "\"b\"");
    assert_string_equal(harness_show(h, ".faults[2].fun"), "\"m.missing\"");
    assert_string_equal(harness_show(h, ".faults[3].reason"), "\"BAD_OPTION\"");
    assert_string_equal(harness_show(h, ".faults[4].reason"), "\"UNKNOWN_STEP\"");
    assert_string_equal(harness_show(h, ".faults[5].reason"), "\"UNKNOWN_STEP\"");
    assert_string_equal(harness_show(h, ".faults[5].step"), "(missing)");
    assert_string_equal(harness_show(h, ".faults[6]"), "(missing)");
    harness_free(h);
}

static void a_resolver_fault_alone_keeps_its_code(void **state)
{
    (void)state;
    struct harness *h = harness_new();
    h->refuse_step = "b";
    harness_begin(h, "{\"steps\":[{\"name\":\"a\",\"call\":\"m.f\"},"
                     "{\"name\":\"b\",\"call\":\"m.x\"}]}");
    assert_string_equal(harness_show(h, ".code"), "\"NOT_FOUND\"");
    assert_string_equal(harness_show(h, ".step"), "\"b\"");
    assert_int_equal(h->count, 0);
    harness_free(h);
}

static void each_knot_of_cycles_is_told_once(void **state)
{
    (void)state;
    struct harness *h =
        refused("{\"steps\":[{\"name\":\"p\",\"call\":\"m.f\",\"args\":[{\"$ref\":\"x\"}]},"
                "{\"name\":\"x\",\"call\":\"m.f\",\"after\":[\"y\"]},"
                "{\"name\":\"y\",\"call\":\"m.f\",\"when\":{\"$ref\":\"z.ok\"}},"
                "{\"name\":\"z\",\"call\":\"m.f\",\"each\":{\"$ref\":\"x\",\"default\":[]}},"
                "{\"name\":\"q\",\"call\":\"m.f\",\"args\":[{\"$ref\":\"p\"},{\"$ref\":\"r\","
                "\"default\":1}]},"
                "{\"name\":\"r\",\"call\":\"m.f\",\"args\":[{\"$ref\":\"x\"},{\"$ref\":\"q\"}]}]}");
    assert_string_equal(harness_show(h, ".faults[1].message"), "\"x -> z -> y -> x\"");
    assert_string_equal(harness_show(h, ".faults[2].message"), "\"q -> r -> q\"");
    assert_string_equal(harness_show(h, ".faults[3]"), "(missing)");
    harness_free(h);
}

/* A graph of `count` steps, step i depending on step (i + 1) mod count. */
static void put_ring(struct mp_buf *b, uint32_t count)
{
    char text[64];
    assert_int_equal(mp_mp_put_map(b, 1), MP_OK);
    assert_int_equal(mp_mp_put_text(b, "steps"), MP_OK);
    assert_int_equal(mp_mp_put_array(b, count), MP_OK);
    for (uint32_t i = 0; i < count; i++) {
        snprintf(text, sizeof(text), "{\"name\":\"s%u\",\"call\":\"m.f\",\"after\":[\"s%u\"]}", i,
                 (i + 1) % count);
        tiny_read(text, b);
    }
}

static void a_cycle_of_100000_steps_is_told_shortly(void **state)
{
    (void)state;
    struct harness *h = harness_new();
    put_ring(&h->graph, 100000);
    harness_load_bytes(h);
    harness_start(h);
    assert_string_equal(harness_show(h, ".reason"), "\"CYCLE\"");
    const char *message = harness_show(h, ".message");
    assert_non_null(strstr(message, "s0 -> s99999 -> s99998"));
    assert_non_null(strstr(message, "(99980 more) -> s0"));
    harness_free(h);
}

static void too_many_steps_are_refused(void **state)
{
    (void)state;
    struct harness *h = harness_new();
    h->cfg.steps_max = 3;
    harness_begin(h, "{\"steps\":[{},{},{},{}]}");
    assert_string_equal(harness_show(h, ".reason"), "\"TOO_LARGE\"");
    assert_string_equal(harness_show(h, ".message"), "\"the graph has 4 steps, the limit is 3\"");
    harness_free(h);
}

static void faults_beyond_the_limit_are_left_out(void **state)
{
    (void)state;
    struct harness *h = harness_new();
    assert_int_equal(mp_mp_put_map(&h->graph, 1), MP_OK);
    assert_int_equal(mp_mp_put_text(&h->graph, "steps"), MP_OK);
    assert_int_equal(mp_mp_put_array(&h->graph, 50000), MP_OK);
    for (uint32_t i = 0; i < 50000; i++)
        tiny_read("{\"nam\":\"x\"}", &h->graph);
    harness_load_bytes(h);
    harness_start(h);
    assert_string_equal(harness_show(h, ".reason"), "\"BAD_NAME\"");
    assert_string_not_equal(harness_show(h, ".faults[1000]"), "(missing)");
    assert_string_equal(harness_show(h, ".faults[1001]"), "(missing)");
    harness_free(h);
}

static void bytes_that_are_no_value_and_deep_nesting_are_refused(void **state)
{
    (void)state;
    static const uint8_t cut[] = {0x81, 0xa5, 's', 't', 'e'};
    struct harness *h = harness_new();
    assert_int_equal(mp_buf_append(&h->graph, mp_slice_of(cut, sizeof(cut))), MP_OK);
    harness_load_bytes(h);
    harness_start(h);
    assert_string_equal(harness_show(h, ".reason"), "\"BAD_GRAPH\"");
    harness_free(h);
    h = harness_new();
    assert_int_equal(mp_mp_put_map(&h->graph, 1), MP_OK);
    assert_int_equal(mp_mp_put_text(&h->graph, "steps"), MP_OK);
    for (int i = 0; i < 100000; i++)
        assert_int_equal(mp_mp_put_array(&h->graph, 1), MP_OK);
    assert_int_equal(mp_mp_put_nil(&h->graph), MP_OK);
    harness_load_bytes(h);
    harness_start(h);
    assert_string_equal(harness_show(h, ".reason"), "\"BAD_GRAPH\"");
    assert_string_equal(harness_show(h, ".message"), "\"the graph is nested too deep\"");
    harness_free(h);
}

static void defaults_nest_as_deep_as_values(void **state)
{
    (void)state;
    struct harness *h = harness_new();
    assert_int_equal(mp_mp_put_map(&h->graph, 2), MP_OK);
    assert_int_equal(mp_mp_put_text(&h->graph, "steps"), MP_OK);
    tiny_read("[{\"name\":\"a\",\"call\":\"m.f\"}]", &h->graph);
    assert_int_equal(mp_mp_put_text(&h->graph, "output"), MP_OK);
    for (int i = 0; i < 126; i++) {
        assert_int_equal(mp_mp_put_map(&h->graph, 2), MP_OK);
        assert_int_equal(mp_mp_put_text(&h->graph, "$ref"), MP_OK);
        assert_int_equal(mp_mp_put_text(&h->graph, "input.x"), MP_OK);
        assert_int_equal(mp_mp_put_text(&h->graph, "default"), MP_OK);
    }
    assert_int_equal(mp_mp_put_uint(&h->graph, 7), MP_OK);
    harness_load_bytes(h);
    harness_start(h);
    harness_complete(h, "a", "1");
    assert_string_equal(harness_show(h, ".output"), "7");
    harness_free(h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_no_graph),
        cmocka_unit_test(bad_names),
        cmocka_unit_test(bad_options),
        cmocka_unit_test(bad_references),
        cmocka_unit_test(hints),
        cmocka_unit_test(all_faults_are_told_at_once_in_step_order),
        cmocka_unit_test(a_resolver_fault_alone_keeps_its_code),
        cmocka_unit_test(each_knot_of_cycles_is_told_once),
        cmocka_unit_test(a_cycle_of_100000_steps_is_told_shortly),
        cmocka_unit_test(too_many_steps_are_refused),
        cmocka_unit_test(faults_beyond_the_limit_are_left_out),
        cmocka_unit_test(bytes_that_are_no_value_and_deep_nesting_are_refused),
        cmocka_unit_test(defaults_nest_as_deep_as_values),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
