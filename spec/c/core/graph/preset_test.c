/* Runs that go on with another one's results: presets, what is kept of a run, single results. */
#include "spec/c/core/graph/graph_harness.h"

#define S(name, options) "{\"name\":\"" name "\",\"call\":\"m." name "\"" options "}"
#define ARGS(list)       ",\"args\":[" list "]"
#define REF(path)        "{\"$ref\":\"" path "\"}"
#define NO               "{\"code\":\"INTERNAL\"}"

static const char chain[] = "{\"name\":\"chain\",\"trace\":true,\"steps\":[" S("a", "") "," S(
    "b", ARGS(REF("a"))) "," S("c", ARGS(REF("b"))) "]}";

static void shows(struct harness *h, const char *path, const char *wanted)
{
    const char *got = harness_show(h, path);
    if (strcmp(got, wanted) != 0)
        fail_msg("%s: wanted %s, got %s", path, wanted, got);
}

static struct harness *load(const char *json)
{
    struct harness *h = harness_new();
    h->cfg.resumed_from = mp_slice_str("01KBBEFORE");
    tiny_read(json, &h->graph);
    return h;
}

static enum mp_err preset_bytes(struct harness *h, const char *step, struct mp_slice value)
{
    const struct mp_graph_event ev = {.kind = MP_GRAPH_PRESET,
                                      .preset = {.name = mp_slice_str(step),
                                                 .value = value,
                                                 .node = mp_slice_str("n7"),
                                                 .version = mp_slice_str("0.9.0")}};
    return harness_step(h, &ev);
}

static enum mp_err preset(struct harness *h, const char *step, const char *json)
{
    struct mp_buf value;
    mp_buf_init(&value, &h->plain_alloc, 0);
    tiny_read(json, &value);
    enum mp_err err = preset_bytes(h, step, mp_buf_slice(&value));
    mp_buf_fini(&value);
    return err;
}

static void a_preset_step_has_succeeded_from_the_start(void **state)
{
    (void)state;
    struct harness *h = load(chain);
    harness_load_bytes(h);
    assert_int_equal(preset(h, "a", "[1]"), MP_OK);
    harness_start(h);
    assert_null(harness_find(h, "a", 0));
    assert_string_equal(harness_args(h, "b", 0), "[[1]]");
    assert_string_equal(harness_events(h),
                        "run_started step_succeeded level_completed step_started");
    assert_string_equal(harness_event(h, 1, ".resumed_from"), "\"01KBBEFORE\"");
    assert_string_equal(harness_event(h, 2, ".step"), "\"a\"");
    assert_string_equal(harness_event(h, 2, ".attempts"), "0");
    assert_string_equal(harness_event(h, 2, ".result"), "[1]");
    assert_string_equal(harness_event(h, 3, ".progress"), "33.3333333");
    h->now += MP_MS(1);
    harness_complete(h, "b", "2");
    harness_complete(h, "c", "3");
    assert_int_equal(h->status, MP_GRAPH_SUCCEEDED);
    shows(h, ".resumed_from", "\"01KBBEFORE\"");
    shows(h, ".output", "{\"c\":3}");
    shows(h, ".steps[1]",
          "{\"name\":\"a\",\"call\":\"m.a\",\"version\":\"0.9.0\",\"status\":\"succeeded\","
          "\"node\":\"n7\",\"worker\":null,\"level\":0,\"attempts\":0,\"depends_on\":[],"
          "\"started_ms\":null,\"queue_ms\":0,\"network_ms\":0,\"run_ms\":0,\"bytes_in\":0,"
          "\"bytes_out\":2,\"error\":null,\"ended_ms\":0,\"wait_ms\":0,\"retry_ms\":0}");
    shows(h, ".levels[1].duration_ms", "0");
    shows(h, ".levels[1].results", "{\"a\":[1]}");
    shows(h, ".summary.nodes", "[\"n1\"]");
    shows(h, ".summary.succeeded", "3");
    harness_free(h);
}

static void a_run_whose_steps_are_all_preset_is_over_at_once(void **state)
{
    (void)state;
    struct harness *h = load(chain);
    harness_load_bytes(h);
    assert_int_equal(preset(h, "c", "3"), MP_OK);
    assert_int_equal(preset(h, "a", "1"), MP_OK);
    assert_int_equal(preset(h, "b", "2"), MP_OK);
    harness_start(h);
    assert_int_equal(h->count, 0);
    assert_int_equal(h->status, MP_GRAPH_SUCCEEDED);
    shows(h, ".output", "{\"c\":3}");
    shows(h, ".summary.bottleneck_step", "null");
    assert_string_equal(harness_events(h),
                        "run_started step_succeeded step_succeeded step_succeeded level_completed "
                        "level_completed level_completed run_finished");
    harness_free(h);
}

static void a_step_after_what_is_not_preset_can_be(void **state)
{
    (void)state;
    struct harness *h = load(chain);
    harness_load_bytes(h);
    assert_int_equal(preset(h, "b", "{\"x\":2}"), MP_OK);
    harness_start(h);
    assert_non_null(harness_find(h, "a", 0));
    assert_string_equal(harness_args(h, "c", 0), "[{\"x\":2}]");
    assert_string_equal(harness_events(h), "run_started step_succeeded step_started step_started");
    harness_complete(h, "c", "3");
    harness_complete(h, "a", "1");
    shows(h, ".output", "{\"c\":3}");
    harness_free(h);
}

static void a_preset_step_needs_no_provider(void **state)
{
    (void)state;
    struct harness *h = load(chain);
    h->refuse_step = "a"; /* told before the preset */
    harness_load_bytes(h);
    assert_int_equal(preset(h, "a", "1"), MP_OK);
    harness_start(h);
    assert_int_equal(h->refused.size, 0);
    assert_non_null(harness_find(h, "b", 0));
    harness_free(h);
    h = load(chain);
    h->refuse_step = "a";
    harness_load_bytes(h);
    assert_int_equal(preset(h, "b", "1"), MP_OK);
    harness_start(h);
    shows(h, ".reason", "\"UNKNOWN_FUNCTION\"");
    shows(h, ".step", "\"a\"");
    harness_free(h);
}

static void a_refusal_after_the_preset_is_passed_over(void **state)
{
    (void)state;
    struct mp_graph_effects out;
    struct harness *h = load(chain);
    h->g = (struct mp_graph *)aligned_alloc(16, mp_graph_size());
    assert_int_equal(mp_graph_init(h->g, &h->cfg, &h->alloc, 1), MP_OK);
    struct mp_graph_event ev = {.kind = MP_GRAPH_LOAD, .load = {mp_buf_slice(&h->graph), {0}}};
    assert_int_equal(mp_graph_step(h->g, h->now, &ev, &out), MP_OK);
    assert_int_equal(preset(h, "a", "1"), MP_OK);
    for (uint32_t i = 0; i < 3; i++) {
        ev = (struct mp_graph_event){.kind = MP_GRAPH_RESOLVED, .resolved = {.step = i}};
        ev.resolved.is_refused = i == 0;
        ev.resolved.fault.code = MP_CODE_NOT_FOUND;
        assert_int_equal(harness_step(h, &ev), MP_OK);
    }
    harness_start(h);
    assert_non_null(harness_find(h, "b", 0));
    harness_free(h);
}

static void a_refusal_that_found_no_room_among_many_is_not_forgotten(void **state)
{
    (void)state;
    uint32_t count = 2 * MP_GRAPH_FAULTS_MAX + 1;
    struct harness *h = harness_new();
    assert_int_equal(mp_mp_put_map(&h->graph, 1), MP_OK);
    assert_int_equal(mp_mp_put_text(&h->graph, "steps"), MP_OK);
    assert_int_equal(mp_mp_put_array(&h->graph, count), MP_OK);
    for (uint32_t i = 0; i < count; i++) {
        char json[64];
        snprintf(json, sizeof(json), "{\"name\":\"s%u\",\"call\":\"m.f\"}", i);
        tiny_read(json, &h->graph);
    }
    h->g = (struct mp_graph *)aligned_alloc(16, mp_graph_size());
    assert_int_equal(mp_graph_init(h->g, &h->cfg, &h->alloc, 1), MP_OK);
    struct mp_graph_effects out;
    struct mp_graph_event ev = {.kind = MP_GRAPH_LOAD, .load = {mp_buf_slice(&h->graph), {0}}};
    assert_int_equal(mp_graph_step(h->g, h->now, &ev, &out), MP_OK);
    for (uint32_t i = 0; i < count; i++) {
        ev = (struct mp_graph_event){.kind = MP_GRAPH_RESOLVED, .resolved = {.step = i}};
        ev.resolved.is_refused = true;
        ev.resolved.fault.code = MP_CODE_NOT_FOUND;
        assert_int_equal(harness_step(h, &ev), MP_OK);
    }
    for (uint32_t i = 0; i + 1 < count; i++) {
        char name[16];
        snprintf(name, sizeof(name), "s%u", i);
        assert_int_equal(preset(h, name, "1"), MP_OK);
    }
    harness_start(h);
    shows(h, ".reason", "\"UNKNOWN_FUNCTION\"");
    shows(h, ".step", "\"s2000\"");
    harness_free(h);
}

static void a_preset_that_is_no_good_is_refused_and_changes_nothing(void **state)
{
    (void)state;
    static const uint8_t half[] = {0x92, 0x01};
    struct harness *h = load(chain);
    h->cfg.value_bytes_max = 9;
    h->cfg.kept_bytes_max = 12;
    harness_load_bytes(h);
    assert_int_equal(preset(h, "x", "1"), MP_ENOENT);
    assert_int_equal(preset_bytes(h, "a", mp_slice_of(half, 2)), MP_EINVAL);
    assert_int_equal(preset_bytes(h, "a", (struct mp_slice){0}), MP_EINVAL);
    assert_int_equal(preset(h, "a", "\"more than eight\""), MP_ETOOLARGE);
    assert_int_equal(preset(h, "a", "\"seven..\""), MP_OK);
    assert_int_equal(preset(h, "a", "1"), MP_EINVAL);
    assert_int_equal(preset(h, "b", "\"seven..\""), MP_ETOOLARGE);
    h->err = MP_OK;
    harness_start(h);
    assert_string_equal(harness_args(h, "b", 0), "[\"seven..\"]");
    assert_int_equal(preset(h, "b", "1"), MP_EINVAL); /* too late */
    h->err = MP_OK;
    harness_complete(h, "b", "2");
    harness_complete(h, "c", "3");
    assert_int_equal(h->status, MP_GRAPH_SUCCEEDED);
    harness_free(h);
}

static void conditions_and_lists_read_presets(void **state)
{
    (void)state;
    struct harness *h = load("{\"steps\":[" S("a", "") "," S("no", ",\"when\":" REF("a.no")) "," S(
        "e", ",\"each\":" REF(
                 "a.list")) "," S("p", ",\"each\":" REF("a.list")) "," S("z", ARGS(REF("p"))) "]}");
    harness_load_bytes(h);
    assert_int_equal(preset(h, "a", "{\"list\":[1,2]}"), MP_OK);
    assert_int_equal(preset(h, "p", "[10,20]"), MP_OK);
    harness_start(h);
    assert_non_null(harness_find(h, "e", 2));
    assert_null(harness_find(h, "p", 1));
    assert_string_equal(harness_args(h, "z", 0), "[[10,20]]");
    harness_complete_at(h, "e", 1, "1");
    harness_complete_at(h, "e", 2, "2");
    harness_complete(h, "z", "3");
    shows(h, ".output", "{\"e\":[1,2],\"z\":3}");
    shows(h, ".steps[2].status", "\"skipped\"");
    shows(h, ".steps[4].items", "(missing)");
    harness_free(h);
}

static void a_preset_step_may_run_if_its_large_result_is_needed_again(void **state)
{
    (void)state;
    struct mp_buf large;
    struct harness *h = load("{\"output\":1,\"steps\":[" S("a", "") "," S(
        "b", ARGS(REF("a"))) "," S("s", "") "," S("c", ARGS(REF("b") "," REF("s"))) "]}");
    harness_load_bytes(h);
    mp_buf_init(&large, &h->plain_alloc, 0);
    uint8_t *text = (uint8_t *)calloc(1, 70000);
    assert_int_equal(mp_mp_put_str(&large, mp_slice_of(text, 70000)), MP_OK);
    free(text);
    assert_int_equal(preset_bytes(h, "a", mp_buf_slice(&large)), MP_OK);
    mp_buf_fini(&large);
    harness_start(h);
    h->now += MP_MS(2);
    harness_hold(h, "b", "n2", 7); /* now nobody needs a any more */
    harness_lose(h, "n2");
    assert_non_null(harness_find(h, "a", 0));
    h->now += MP_MS(2);
    harness_complete(h, "a", "1");
    harness_complete(h, "b", "2");
    harness_complete(h, "s", "2");
    harness_complete(h, "c", "3");
    assert_int_equal(h->status, MP_GRAPH_SUCCEEDED);
    shows(h, ".steps[1].attempts", "1");
    shows(h, ".steps[1].retry_ms", "0");
    shows(h, ".steps[1].tries[1].error.reason", "\"RESULT_LOST\"");
    shows(h, ".steps[1].tries[1].started_ms", "0");
    harness_free(h);
}

/* --- from a step on, and without what is gone --- */

static enum mp_err from(struct harness *h, const char *step)
{
    const struct mp_graph_event ev = {.kind = MP_GRAPH_FROM, .from = {.name = mp_slice_str(step)}};
    return harness_step(h, &ev);
}

/* Its result, of 100,000 bytes, is gone. */
static enum mp_err preset_gone(struct harness *h, const char *step)
{
    struct mp_buf form;
    mp_buf_init(&form, &h->plain_alloc, 0);
    tiny_read("{\"$large\":{\"bytes\":100000,\"type\":\"string\",\"preview\":\"x\"}}", &form);
    const struct mp_graph_event ev = {.kind = MP_GRAPH_PRESET,
                                      .preset = {.name = mp_slice_str(step),
                                                 .value = mp_buf_slice(&form),
                                                 .node = mp_slice_str("n7"),
                                                 .version = mp_slice_str("0.9.0"),
                                                 .is_gone = true,
                                                 .bytes = 100000}};
    enum mp_err err = harness_step(h, &ev);
    mp_buf_fini(&form);
    return err;
}

/* Two branches that join: from one step on only what is behind it runs. */
static void from_a_step_on_what_is_behind_it_runs(void **state)
{
    (void)state;
    static const char forked[] =
        "{\"name\":\"f\",\"steps\":[" S("a", "") "," S("b", ARGS(REF("a"))) "," S(
            "c",
            ARGS(REF("a"))) "," S("d",
                                  ",\"after\":[\"b\"]") "," S("e",
                                                              ARGS(REF("c") "," REF("d"))) "]}";
    struct harness *h = load(forked);
    harness_load_bytes(h);
    assert_int_equal(from(h, "nobody"), MP_ENOENT);
    assert_int_equal(from(h, "b"), MP_OK);
    for (char name[2] = "a"; name[0] <= 'e'; name[0]++)
        assert_int_equal(preset(h, name, "1"), MP_OK);
    harness_start(h);
    assert_null(harness_find(h, "a", 0));
    assert_null(harness_find(h, "c", 0));
    assert_string_equal(harness_args(h, "b", 0), "[1]");
    harness_complete(h, "b", "2");
    harness_complete(h, "d", "4");
    assert_string_equal(harness_args(h, "e", 0), "[1,4]");
    harness_complete(h, "e", "5");
    assert_int_equal(h->status, MP_GRAPH_SUCCEEDED);
    shows(h, ".output", "{\"b\":2,\"e\":5}");
    shows(h, ".lost_results", "(missing)");
    harness_free(h);
}

static void from_the_first_step_on_everything_runs(void **state)
{
    (void)state;
    struct harness *h = load(chain);
    h->refuse_step = "c"; /* its provider is wanted after all */
    harness_load_bytes(h);
    assert_int_equal(from(h, "a"), MP_OK);
    assert_int_equal(preset(h, "c", "3"), MP_OK);
    harness_start(h);
    assert_int_equal(h->count, 0);
    assert_true(h->refused.size != 0);
    harness_free(h);
}

static void a_result_that_is_gone_and_not_needed_stays_gone(void **state)
{
    (void)state;
    struct mp_graph_result result;
    struct harness *h = load(chain);
    h->refuse_step = "a"; /* it need not run */
    harness_load_bytes(h);
    assert_int_equal(preset_gone(h, "a"), MP_OK);
    assert_int_equal(preset(h, "b", "2"), MP_OK);
    harness_start(h);
    assert_null(harness_find(h, "a", 0));
    assert_string_equal(harness_event(h, 2, ".bytes_out"), "100000");
    assert_int_equal(mp_graph_result_of(h->g, mp_slice_str("a"), &result), MP_OK);
    assert_false(result.is_here || result.is_held); /* its $large form is not it */
    assert_int_equal(result.bytes, 100000);
    harness_complete(h, "c", "3");
    assert_int_equal(h->status, MP_GRAPH_SUCCEEDED);
    shows(h, ".lost_results", "(missing)");
    shows(h, ".levels[1].results.a[\"$large\"].bytes", "100000");
    harness_free(h);
}

/* a is needed by b, whose result is gone and needed too. */
static void a_result_that_is_gone_and_needed_is_made_again(void **state)
{
    (void)state;
    struct harness *h = load(chain);
    harness_load_bytes(h);
    assert_int_equal(preset_gone(h, "b"), MP_OK);
    assert_int_equal(preset_gone(h, "a"), MP_OK);
    harness_start(h);
    assert_non_null(harness_find(h, "a", 0));
    assert_null(harness_find(h, "b", 0));
    harness_complete(h, "a", "1");
    assert_string_equal(harness_args(h, "b", 0), "[1]");
    harness_complete(h, "b", "2");
    harness_complete(h, "c", "3");
    assert_int_equal(h->status, MP_GRAPH_SUCCEEDED);
    shows(h, ".lost_results", "[\"a\",\"b\"]");
    shows(h, ".steps[1].attempts", "1");
    shows(h, ".steps[1].bytes_out", "1");
    harness_free(h);
}

static void a_result_that_the_output_shows_is_made_again(void **state)
{
    (void)state;
    struct harness *h =
        load("{\"output\":" REF("a") ",\"steps\":[" S("a", "") "," S("b", ARGS(REF("a"))) "]}");
    harness_load_bytes(h);
    assert_int_equal(preset_gone(h, "a"), MP_OK);
    assert_int_equal(preset(h, "b", "2"), MP_OK);
    harness_start(h);
    harness_complete(h, "a", "[7]");
    assert_int_equal(h->status, MP_GRAPH_SUCCEEDED);
    shows(h, ".output", "[7]");
    shows(h, ".lost_results", "[\"a\"]");
    harness_free(h);
}

static void a_refusal_counts_when_a_gone_result_is_needed(void **state)
{
    (void)state;
    struct harness *h = load(chain);
    h->refuse_step = "a";
    harness_load_bytes(h);
    assert_int_equal(preset_gone(h, "a"), MP_OK);
    harness_start(h);
    assert_int_equal(h->count, 0);
    assert_true(h->refused.size != 0);
    harness_free(h);
}

/* A large result that nobody reads any more can be had whole during the step in which that came to
 * be so, and not afterwards. */
static void a_large_result_ebbs_after_the_step_that_needed_it_last(void **state)
{
    (void)state;
    struct mp_graph_result result;
    char large[32];
    struct harness *h = load("{\"output\":" REF("c") ",\"steps\":[" S("a", "") "," S("b", "") "," S(
        "c", ARGS(REF("b"))) "]}");
    harness_load_bytes(h);
    harness_start(h);
    struct mp_buf value;
    mp_buf_init(&value, &h->plain_alloc, 0);
    uint8_t *text = (uint8_t *)calloc(1, 70000);
    assert_int_equal(mp_mp_put_str(&value, mp_slice_of(text, 70000)), MP_OK);
    free(text);
    const struct mp_graph_event ev = {
        .kind = MP_GRAPH_COMPLETED,
        .completed = {.invocation = harness_find(h, "a", 0)->invocation,
                      .value = mp_buf_slice(&value),
                      .node = mp_slice_str("n1"),
                      .version = mp_slice_str("1.0.0")}};
    assert_int_equal(harness_step(h, &ev), MP_OK);
    mp_buf_fini(&value);
    assert_int_equal(mp_graph_result_of(h->g, mp_slice_str("a"), &result), MP_OK);
    assert_true(result.is_here && result.value.size > 70000);
    const char *shown = harness_event(h, 4, ".result[\"$large\"].bytes");
    assert_true(strlen(shown) < sizeof(large));
    memcpy(large, shown, strlen(shown) + 1);
    harness_complete(h, "b", "2");
    assert_int_equal(mp_graph_result_of(h->g, mp_slice_str("a"), &result), MP_OK);
    assert_false(result.is_here || result.is_held);
    assert_int_equal(result.bytes, 70005);
    assert_string_equal(harness_event(h, 4, ".result[\"$large\"].bytes"), large);
    harness_complete(h, "c", "3");
    assert_int_equal(h->status, MP_GRAPH_SUCCEEDED);
    harness_free(h);
}

static void the_shape_is_what_the_graph_asks_for(void **state)
{
    (void)state;
    struct mp_buf shape;
    struct harness *h = load("{\"steps\":[" S("a", "") "," S(
        "b", ",\"each\":" REF("a") ARGS(REF("a"))) "," S("c", ",\"after\":[\"b\"]") "]}");
    mp_buf_init(&shape, &h->plain_alloc, 0);
    h->refuse_step = "b"; /* that is no fault of its own */
    harness_load_bytes(h);
    assert_int_equal(mp_graph_put_shape(h->g, &shape), MP_OK);
    assert_string_equal(
        harness_show_value(h, mp_buf_slice(&shape), ""),
        "[{\"name\":\"a\",\"call\":\"m.a\",\"depends_on\":[],\"level\":0,\"each\":false},"
        "{\"name\":\"b\",\"call\":\"m.b\",\"depends_on\":[\"a\"],\"level\":1,\"each\":true},"
        "{\"name\":\"c\",\"call\":\"m.c\",\"depends_on\":[\"b\"],\"level\":2,\"each\":false}]");
    mp_buf_fini(&shape);
    harness_free(h);
    h = load("{\"steps\":[" S("a", ARGS(REF("b"))) "," S("b", ARGS(REF("a"))) "]}");
    mp_buf_init(&shape, &h->plain_alloc, 0);
    harness_load_bytes(h);
    assert_int_equal(mp_graph_put_shape(h->g, &shape), MP_EINVAL);
    assert_int_equal(from(h, "a"), MP_OK); /* it has no levels, which harms nothing */
    mp_buf_fini(&shape);
    harness_start(h);
    harness_free(h);
}

/* --- what is kept --- */

static const char *record(struct harness *h, const char *path)
{
    struct mp_buf b;
    mp_buf_init(&b, &h->plain_alloc, 0);
    assert_int_equal(mp_graph_put_record(h->g, h->now, &b), MP_OK);
    assert_int_equal(mp_mp_check(mp_buf_slice(&b)), MP_OK);
    const char *text = harness_show_value(h, mp_buf_slice(&b), path);
    mp_buf_fini(&b);
    return text;
}

static void a_record_has_all_results_and_no_levels(void **state)
{
    (void)state;
    struct harness *h = harness_run(chain);
    harness_complete(h, "a", "1");
    assert_string_equal(record(h, ".status"), "\"running\"");
    assert_string_equal(record(h, ".results"), "{\"a\":1}");
    assert_string_equal(record(h, ".levels"), "(missing)");
    assert_string_equal(record(h, ".receipts"), "(missing)");
    harness_fail(h, "b", NO);
    assert_string_equal(record(h, ".status"), "\"failed\"");
    assert_string_equal(record(h, ".results"), "{\"a\":1}");
    shows(h, ".levels[1].level", "0");
    harness_free(h);
    h = harness_run(chain);
    harness_complete(h, "a", "1");
    harness_complete(h, "b", "2");
    harness_complete(h, "c", "3");
    assert_string_equal(record(h, ".results"), "{\"a\":1,\"b\":2,\"c\":3}");
    shows(h, ".results", "(missing)");
    harness_free(h);
    h = harness_run(chain);
    harness_complete(h, "a", "1");
    harness_cancel(h);
    harness_fail(h, "b", "{\"code\":\"CANCELLED\"}");
    assert_string_equal(record(h, ".receipts[2]"), "{\"name\":\"b\",\"outcome\":\"stopped\"}");
    assert_string_equal(record(h, ".results"), "{\"a\":1}");
    harness_free(h);
}

static void nothing_is_told_of_a_run_before_it_begins(void **state)
{
    (void)state;
    struct mp_buf b;
    struct harness *h = load(chain);
    harness_load_bytes(h);
    mp_buf_init(&b, &h->plain_alloc, 0);
    assert_int_equal(mp_graph_put_record(h->g, h->now, &b), MP_EINVAL);
    assert_int_equal(mp_graph_put_event(h->g, 1, &b), MP_EINVAL);
    assert_int_equal(mp_graph_event_count(h->g), 0);
    mp_buf_fini(&b);
    harness_free(h);
}

/* --- single results --- */

static void a_result_can_be_had_whole(void **state)
{
    (void)state;
    struct mp_graph_result r;
    struct harness *h = harness_run(chain);
    assert_int_equal(mp_graph_result_of(h->g, mp_slice_str("x"), &r), MP_ENOENT);
    assert_int_equal(mp_graph_result_of(h->g, mp_slice_str("a"), &r), MP_ENOENT);
    harness_complete(h, "a", "[1,2]");
    assert_int_equal(mp_graph_result_of(h->g, mp_slice_str("a"), &r), MP_OK);
    assert_true(r.is_here && !r.is_held);
    assert_int_equal(r.bytes, 3);
    assert_string_equal(harness_show_value(h, r.value, ""), "[1,2]");
    harness_hold(h, "b", "n2", 4711);
    assert_int_equal(mp_graph_result_of(h->g, mp_slice_str("b"), &r), MP_OK);
    assert_true(!r.is_here && r.is_held);
    assert_true(mp_slice_is(r.node, "n2"));
    assert_int_equal(r.held, 4711);
    assert_int_equal(r.bytes, 70000);
    harness_complete(h, "c", "1");
    harness_free(h);
    h = harness_run(chain);
    harness_complete(h, "a", "1");
    harness_hold(h, "b", "n2", 4711);
    harness_fail(h, "c", NO);
    harness_lose(h, "n2"); /* a run that is over hears nothing more */
    assert_int_equal(mp_graph_result_of(h->g, mp_slice_str("b"), &r), MP_OK);
    assert_true(r.is_held);
    harness_free(h);
}

static void what_did_not_succeed_wants_its_inputs(void **state)
{
    (void)state;
    struct harness *h = harness_run(chain);
    struct mp_graph_result r;
    struct mp_buf large;
    mp_buf_init(&large, &h->plain_alloc, 0);
    uint8_t *text = (uint8_t *)calloc(1, 70000);
    assert_int_equal(mp_mp_put_str(&large, mp_slice_of(text, 70000)), MP_OK);
    free(text);
    assert_false(mp_graph_wants_result(h->g, mp_slice_str("x")));
    assert_true(mp_graph_wants_result(h->g, mp_slice_str("a")));
    harness_complete_bytes(h, harness_find(h, "a", 0), mp_buf_slice(&large));
    harness_complete_bytes(h, harness_find(h, "b", 0), mp_buf_slice(&large));
    assert_false(mp_graph_wants_result(h->g, mp_slice_str("a")));
    assert_int_equal(mp_graph_result_of(h->g, mp_slice_str("a"), &r), MP_OK);
    assert_true(r.is_here); /* until the next step: whoever wants to keep it can */
    harness_fail(h, "c", NO);
    assert_int_equal(mp_graph_result_of(h->g, mp_slice_str("a"), &r), MP_OK);
    assert_true(!r.is_here && !r.is_held); /* large, and nobody reads it again */
    assert_int_equal(r.bytes, large.size);
    assert_true(mp_graph_wants_result(h->g, mp_slice_str("b")));
    assert_int_equal(mp_graph_result_of(h->g, mp_slice_str("b"), &r), MP_OK);
    assert_true(r.is_here);
    assert_true(mp_slice_equal(r.value, mp_buf_slice(&large)));
    assert_false(mp_graph_wants_result(h->g, mp_slice_str("c")));
    mp_buf_fini(&large);
    harness_free(h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_preset_step_has_succeeded_from_the_start),
        cmocka_unit_test(a_run_whose_steps_are_all_preset_is_over_at_once),
        cmocka_unit_test(a_step_after_what_is_not_preset_can_be),
        cmocka_unit_test(a_preset_step_needs_no_provider),
        cmocka_unit_test(a_refusal_after_the_preset_is_passed_over),
        cmocka_unit_test(a_refusal_that_found_no_room_among_many_is_not_forgotten),
        cmocka_unit_test(a_preset_that_is_no_good_is_refused_and_changes_nothing),
        cmocka_unit_test(conditions_and_lists_read_presets),
        cmocka_unit_test(a_preset_step_may_run_if_its_large_result_is_needed_again),
        cmocka_unit_test(from_a_step_on_what_is_behind_it_runs),
        cmocka_unit_test(from_the_first_step_on_everything_runs),
        cmocka_unit_test(a_result_that_is_gone_and_not_needed_stays_gone),
        cmocka_unit_test(a_result_that_is_gone_and_needed_is_made_again),
        cmocka_unit_test(a_result_that_the_output_shows_is_made_again),
        cmocka_unit_test(a_refusal_counts_when_a_gone_result_is_needed),
        cmocka_unit_test(a_large_result_ebbs_after_the_step_that_needed_it_last),
        cmocka_unit_test(the_shape_is_what_the_graph_asks_for),
        cmocka_unit_test(a_record_has_all_results_and_no_levels),
        cmocka_unit_test(nothing_is_told_of_a_run_before_it_begins),
        cmocka_unit_test(a_result_can_be_had_whole),
        cmocka_unit_test(what_did_not_succeed_wants_its_inputs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
