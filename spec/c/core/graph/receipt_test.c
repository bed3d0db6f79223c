/* What a cancelled run says of each step. */
#include "spec/c/core/graph/graph_harness.h"

#define REF(path) "{\"$ref\":\"" path "\"}"
#define CANCELLED "{\"code\":\"CANCELLED\"}"
#define NO        "{\"code\":\"INTERNAL\"}"

/* The outcomes, joined by spaces. */
static void receipts(struct harness *h, const char *wanted)
{
    struct mp_buf b;
    struct mp_slice one;
    struct mp_slice value;
    struct mp_slice text;
    struct mp_mp_reader r;
    uint32_t count;
    char got[512] = "";
    mp_buf_init(&b, &h->plain_alloc, 0);
    assert_int_equal(mp_graph_put_receipts(h->g, &b), MP_OK);
    assert_int_equal(mp_mp_get_array(mp_buf_slice(&b), &count, &r), MP_OK);
    assert_int_equal(count, h->g->count);
    for (uint32_t i = 0; i < count; i++) {
        assert_int_equal(mp_mp_take(&r, &one), MP_OK);
        assert_int_equal(mp_mp_map_get(one, mp_slice_str("name"), &value), MP_OK);
        assert_int_equal(mp_mp_get_str(value, &text), MP_OK);
        assert_true(mp_slice_equal(text, h->g->steps[i].name));
        assert_int_equal(mp_mp_map_get(one, mp_slice_str("outcome"), &value), MP_OK);
        assert_int_equal(mp_mp_get_str(value, &text), MP_OK);
        snprintf(got + strlen(got), sizeof(got) - strlen(got), i == 0 ? "%.*s" : " %.*s",
                 (int)text.size, (const char *)text.data);
    }
    if (h->status == MP_GRAPH_CANCELLED) {
        assert_int_equal(mp_mp_map_get(h->run, mp_slice_str("receipts"), &value), MP_OK);
        assert_true(mp_slice_equal(value, mp_buf_slice(&b)));
    }
    mp_buf_fini(&b);
    if (strcmp(got, wanted) != 0)
        fail_msg("wanted %s, got %s", wanted, got);
}

static const char mixed[] =
    "{\"steps\":[{\"name\":\"done\",\"call\":\"m.f\"},{\"name\":\"runs\",\"call\":\"m.f\"},"
    "{\"name\":\"queued\",\"call\":\"m.f\"},"
    "{\"name\":\"skipped\",\"call\":\"m.f\",\"when\":" REF(
        "done.no") "},"
                   "{\"name\":\"later\",\"call\":\"m.f\",\"args\":[" REF(
                       "runs") "]},"
                               "{\"name\":\"silent\",\"call\":\"m.f\"}]}";

static void each_step_says_what_became_of_it(void **state)
{
    (void)state;
    struct harness *h = harness_run(mixed);
    harness_complete(h, "done", "{}");
    harness_cancel(h);
    assert_int_equal(h->run.size, 0);
    harness_fail(h, "runs", CANCELLED);
    harness_fail_at(h, "queued", 0, CANCELLED, true);
    assert_int_equal(h->run.size, 0); /* one is still to be heard of */
    harness_fail(h, "silent", CANCELLED);
    assert_int_equal(h->status, MP_GRAPH_CANCELLED);
    receipts(h, "done stopped never_started never_started never_started stopped");
    harness_free(h);
}

static void who_does_not_confirm_in_time_is_unreachable(void **state)
{
    (void)state;
    struct harness *h = harness_run(mixed);
    mp_time began = h->now;
    harness_complete(h, "done", "{}");
    harness_cancel(h);
    harness_fail(h, "runs", CANCELLED);
    h->is_unconfirmed = true;
    harness_fail_at(h, "queued", 0, "{\"code\":\"UNAVAILABLE\",\"reason\":\"NODE_LOST\"}", false);
    assert_int_equal(h->run.size, 0);
    harness_timer(h);
    assert_int_equal(h->now - began, MP_MS(MP_GRAPH_CANCEL_GRACE_MS));
    assert_int_equal(h->status, MP_GRAPH_CANCELLED);
    receipts(h, "done stopped unreachable never_started never_started unreachable");
    harness_free(h);
}

static void what_ends_by_itself_before_the_cancel_arrives_is_done(void **state)
{
    (void)state;
    struct harness *h = harness_run(mixed);
    harness_cancel(h);
    harness_complete(h, "done", "{}");
    harness_fail(h, "runs", NO);
    harness_fail(h, "queued", CANCELLED);
    harness_fail(h, "silent", CANCELLED);
    assert_int_equal(h->status, MP_GRAPH_CANCELLED);
    receipts(h, "done done stopped never_started never_started stopped");
    harness_free(h);
}

static void an_earlier_attempt_that_may_go_on_counts(void **state)
{
    (void)state;
    struct harness *h =
        harness_run("{\"steps\":[{\"name\":\"a\",\"call\":\"m.f\",\"retries\":1,\"backoff_ms\":0},"
                    "{\"name\":\"b\",\"call\":\"m.f\",\"retries\":1,\"backoff_ms\":1000}]}");
    h->is_unconfirmed = true;
    harness_fail(h, "a", "{\"code\":\"UNAVAILABLE\",\"reason\":\"NODE_LOST\"}");
    h->is_unconfirmed = false;
    harness_fail(h, "b", NO);
    harness_cancel(h); /* b pauses: its one attempt has ended */
    harness_fail(h, "a", CANCELLED);
    receipts(h, "unreachable stopped");
    harness_free(h);
}

static void an_attempt_that_was_given_up_is_waited_for(void **state)
{
    (void)state;
    struct harness *h = harness_run(
        "{\"steps\":[{\"name\":\"a\",\"call\":\"m.f\",\"retries\":1,\"backoff_ms\":30000,"
        "\"timeout_ms\":10}]}");
    h->now += MP_MS(10 + MP_GRAPH_ANSWER_GRACE_MS);
    harness_timer(h); /* nobody answered by the deadline */
    harness_cancel(h);
    assert_int_equal(h->run.size, 0);
    receipts(h, "unreachable");
    harness_fail(h, "a", CANCELLED);
    receipts(h, "stopped");
    assert_int_equal(h->status, MP_GRAPH_CANCELLED);
    harness_free(h);
}

static void elements_are_told_as_one_step(void **state)
{
    (void)state;
    static const char list[] =
        "{\"input\":[1,2,3,4],\"steps\":[{\"name\":\"e\",\"call\":\"m.e\",\"each\":" REF(
            "input") ",\"concurrency\":2}]}";
    struct harness *h = harness_run(list);
    harness_complete_at(h, "e", 1, "1");
    harness_cancel(h);
    harness_fail_at(h, "e", 2, CANCELLED, false);
    harness_fail_at(h, "e", 3, CANCELLED, true);
    receipts(h, "stopped");
    harness_free(h);
    h = harness_run(list);
    harness_cancel(h);
    harness_fail_at(h, "e", 1, CANCELLED, true);
    harness_fail_at(h, "e", 2, CANCELLED, true);
    receipts(h, "never_started");
    harness_free(h);
    h = harness_run(list);
    harness_cancel(h);
    harness_fail_at(h, "e", 1, CANCELLED, false);
    h->is_unconfirmed = true;
    harness_fail_at(h, "e", 2, CANCELLED, false);
    receipts(h, "unreachable");
    harness_free(h);
    /* What one asked for may go on, though it succeeded. */
    h = harness_run(list);
    h->is_unconfirmed = true;
    harness_complete_at(h, "e", 1, "1");
    h->is_unconfirmed = false;
    harness_cancel(h);
    harness_fail_at(h, "e", 2, CANCELLED, false);
    harness_fail_at(h, "e", 3, CANCELLED, false);
    receipts(h, "unreachable");
    harness_free(h);
}

static void what_its_own_error_skipped_is_done(void **state)
{
    (void)state;
    struct harness *h = harness_run(
        "{\"steps\":[{\"name\":\"a\",\"call\":\"m.f\",\"on_error\":\"skip\"},"
        "{\"name\":\"b\",\"call\":\"m.f\"},{\"name\":\"c\",\"call\":\"m.f\",\"args\":[" REF(
            "a") "]}]}");
    harness_fail(h, "a", NO);
    harness_cancel(h);
    harness_fail(h, "b", CANCELLED);
    receipts(h, "done stopped never_started");
    harness_free(h);
}

static void a_run_that_was_not_cancelled_has_them_too_when_asked(void **state)
{
    (void)state;
    struct mp_buf b;
    struct harness *h = harness_new();
    tiny_read("{\"steps\":[{\"name\":\"a\",\"call\":\"m.f\"},{\"name\":\"b\",\"call\":\"m.f\","
              "\"args\":[" REF("a") "]},{\"name\":\"c\",\"call\":\"m.f\",\"after\":[\"b\"]}]}",
              &h->graph);
    harness_load_bytes(h);
    mp_buf_init(&b, &h->plain_alloc, 0);
    assert_int_equal(mp_graph_put_receipts(h->g, &b), MP_EINVAL);
    mp_buf_fini(&b);
    harness_start(h);
    receipts(h, "unreachable never_started never_started");
    harness_complete(h, "a", "1");
    harness_fail(h, "b", NO);
    receipts(h, "done done never_started");
    assert_string_equal(harness_show(h, ".receipts"), "(missing)");
    harness_free(h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_step_says_what_became_of_it),
        cmocka_unit_test(who_does_not_confirm_in_time_is_unreachable),
        cmocka_unit_test(what_ends_by_itself_before_the_cancel_arrives_is_done),
        cmocka_unit_test(an_earlier_attempt_that_may_go_on_counts),
        cmocka_unit_test(an_attempt_that_was_given_up_is_waited_for),
        cmocka_unit_test(elements_are_told_as_one_step),
        cmocka_unit_test(what_its_own_error_skipped_is_done),
        cmocka_unit_test(a_run_that_was_not_cancelled_has_them_too_when_asked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
