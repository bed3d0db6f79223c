/* Functions that publish to topics. */
#include "spec/c/worker/json.h"

static const char source[] =
    "local mpreg = require 'mpreg'\n"
    "local early = { pcall(mpreg.publish, 'a.b', 1) }\n"
    "local M = {}\n"
    "function M.a_publish(...) return mpreg.publish(...) end\n"
    "function M.b_order()\n"
    "  mpreg.publish('t', 1)\n"
    "  mpreg.publish('t', 2)\n"
    "  mpreg.call('x.y')\n"
    "  mpreg.publish('t', 3)\n"
    "end\n"
    "function M.c_try(topic, data)\n"
    "  local ok, err = pcall(mpreg.publish, topic, data)\n"
    "  return ok or { err.code, err.reason, err.message }\n"
    "end\n"
    "function M.d_early() return { early[1], early[2].reason } end\n"
    "function M.e_many(n, size)\n"
    "  local text = ('x'):rep(size)\n"
    "  for i = 1, n do mpreg.publish('t', { i, text }) end\n"
    "  return n\n"
    "end\n"
    "function M.f_unsendable() return M.c_try('t', { deep = { print } }) end\n"
    "function M.g_sort()\n"
    "  table.sort({ 2, 1 }, function(a, b) mpreg.publish('t', a) return a < b end)\n"
    "end\n"
    "return M\n";

enum { PUBLISH, ORDER, TRY, EARLY, MANY, UNSENDABLE, SORT };

static int start(void **state)
{
    struct host *h = (struct host *)calloc(1, sizeof(*h));
    json_start(h, (struct host_config){0}, source);
    *state = h;
    return 0;
}

static int stop(void **state)
{
    host_stop((struct host *)*state);
    free(*state);
    return 0;
}

static void expect_message(struct host *h, const char *expected)
{
    struct answer a = host_expect(h, MP_MSG_PUBLISH);
    json_check(&a, expected);
    answer_fini(&a);
}

static void a_message_goes_to_the_node(void **state)
{
    struct host *h = (struct host *)*state;
    json_invoke(h, 1, PUBLISH, "[\"quakes.chile\",{\"mag\":6.1}]");
    expect_message(h, "[\"quakes.chile\",{\"mag\":6.1}]");
    json_expect_result(h, 1, "null");
    json_invoke(h, 2, PUBLISH, "[\"t\"]");
    expect_message(h, "[\"t\",null]");
    json_expect_result(h, 2, "null");
}

static void messages_keep_their_place(void **state)
{
    struct host *h = (struct host *)*state;
    json_invoke(h, 1, ORDER, "[]");
    expect_message(h, "[\"t\",1]");
    expect_message(h, "[\"t\",2]");
    uint64_t nested = json_nested(h, 1, NULL, "x.y", "[]");
    json_result(h, nested, "null", 0);
    expect_message(h, "[\"t\",3]");
    json_expect_result(h, 1, "null");
}

static void a_callback_may_publish(void **state)
{
    struct host *h = (struct host *)*state;
    json_invoke(h, 1, SORT, "[]");
    struct answer a = host_expect(h, MP_MSG_PUBLISH);
    answer_fini(&a);
    json_expect_result(h, 1, "null");
}

static void bad_topics_are_refused(void **state)
{
    struct host *h = (struct host *)*state;
    static const char *const topics[] = {"", "a..b", "a.*", "#", "a b", "a.", "run", "run.01.x"};
    for (size_t i = 0; i < MP_ARRAY_SIZE(topics); i++) {
        char args[64];
        snprintf(args, sizeof(args), "[\"%s\",1]", topics[i]);
        json_invoke(h, 1, TRY, args);
        struct answer a = host_expect(h, MP_MSG_COMPLETED);
        char *text = json_text(mp_buf_slice(&a.payload));
        assert_memory_equal(text, "[\"INVALID_ARGUMENT\",\"BAD_TOPIC\",",
                            strlen("[\"INVALID_ARGUMENT\",\"BAD_TOPIC\","));
        free(text);
        answer_fini(&a);
    }
    json_call(h, TRY, "[5,1]",
              "[\"INVALID_ARGUMENT\",\"BAD_TOPIC\",\"mpreg.publish: the topic must be a string, "
              "not a number\"]");
}

static void data_that_cannot_be_sent_is_refused(void **state)
{
    struct host *h = (struct host *)*state;
    json_call(h, UNSENDABLE, "[]",
              "[\"INVALID_ARGUMENT\",\"UNENCODABLE\",\"the data.deep[1]: a function cannot be "
              "sent\"]");
}

static void nothing_is_published_while_a_module_loads(void **state)
{
    json_call((struct host *)*state, EARLY, "[]", "[false,\"NOT_IN_CALL\"]");
}

static void a_function_waits_for_room(void **state)
{
    struct host *h = (struct host *)*state;
    uint32_t count = 0;
    json_invoke(h, 1, MANY, "[20000,500]"); /* ten times what the ring holds */
    for (; count < 20000; count++) {
        struct answer a = host_expect(h, MP_MSG_PUBLISH);
        answer_fini(&a);
    }
    json_expect_result(h, 1, "20000");
}

static void large_messages_come_whole(void **state)
{
    struct host *h = (struct host *)*state;
    json_invoke(h, 1, MANY, "[3,200000]");
    for (unsigned i = 1; i <= 3; i++) {
        struct answer a = host_expect(h, MP_MSG_PUBLISH);
        assert_true(a.flags & MP_RING_LARGE);
        assert_true(a.payload.size > 200000);
        assert_int_equal(mp_mp_check(mp_buf_slice(&a.payload)), MP_OK);
        answer_fini(&a);
    }
    json_expect_result(h, 1, "3");
}

/* The host does not read: the function hears of it, and the worker does not grow. */
static void a_host_that_takes_nothing_is_told(void **state)
{
    struct host *h = (struct host *)*state;
    json_invoke(h, 1, MANY, "[20000,500]");
    host_wake(h);
    uint64_t until = host_now() + 1200000000u;
    while (host_now() < until)
        poll(NULL, 0, 50);
    struct answer a = host_next(h);
    uint32_t count = 0;
    while (a.kind == MP_MSG_PUBLISH) {
        count++;
        answer_fini(&a);
        a = host_next(h);
    }
    assert_int_equal(a.kind, MP_MSG_COMPLETED);
    assert_int_equal(a.flags & MP_RING_ERROR, MP_RING_ERROR);
    struct mp_fault f;
    assert_int_equal(mp_fault_read(mp_buf_slice(&a.payload), &f), MP_OK);
    assert_true(mp_slice_is(f.reason, "QUEUE_FULL"));
    assert_in_range(count, 1000, 4000);
    answer_fini(&a);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, start, stop)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_message_goes_to_the_node),
        TEST(messages_keep_their_place),
        TEST(a_callback_may_publish),
        TEST(bad_topics_are_refused),
        TEST(data_that_cannot_be_sent_is_refused),
        TEST(nothing_is_published_while_a_module_loads),
        TEST(a_function_waits_for_room),
        TEST(large_messages_come_whole),
        TEST(a_host_that_takes_nothing_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
