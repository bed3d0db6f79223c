/* Functions that call functions, sleep, wait side by side, and are cancelled. */
#include "spec/c/worker/json.h"

static const char source[] =
    "local mpreg = require 'mpreg'\n"
    "local M = {}\n"
    "function M.a_call(...) return mpreg.call(...) end\n"
    "function M.b_try(...)\n"
    "  local value, err = mpreg.try(...)\n"
    "  return { value = value, code = err and err.code, text = err and tostring(err) }\n"
    "end\n"
    "local gpu = mpreg.with { needs = { 'gpu' }, version = '^1.2', on = 'n2', timeout = '1.5s',\n"
    "  retries = 2 }\n"
    "function M.c_with(...) return gpu.call(...) end\n"
    "function M.d_all(calls) return mpreg.all(calls) end\n"
    "function M.e_sleep(s) mpreg.sleep(s) return 'slept' end\n"
    "function M.f_wrap()\n"
    "  local each = coroutine.wrap(function()\n"
    "    for i = 1, 2 do coroutine.yield(i .. mpreg.call('x.inner', i)) end\n"
    "    return 'end'\n"
    "  end)\n"
    "  return { each(), each(), each() }\n"
    "end\n"
    "function M.g_sort()\n"
    "  local t = { 3, 1, 2 }\n"
    "  table.sort(t, function(a, b) return mpreg.call('x.less', a, b) end)\n"
    "end\n"
    "function M.h_gsub()\n"
    "  local co = coroutine.wrap(function(c) return mpreg.call('x.up', c) end)\n"
    "  return (('abc'):gsub('.', co))\n"
    "end\n"
    "function M.i_bad() return mpreg.call('x.y', 1, { deep = { print } }) end\n"
    "function M.j_stubborn()\n"
    "  local n = 0\n"
    "  for i = 1, 3 do\n"
    "    local _, err = mpreg.try('x.y', i)\n"
    "    if err and err.code == 'CANCELLED' then n = n + 1 end\n"
    "    if not pcall(mpreg.sleep, 0) then n = n + 1 end\n"
    "  end\n"
    "  return n\n"
    "end\n"
    "function M.k_pcall()\n"
    "  local ok, err = pcall(mpreg.call, 'x.y')\n"
    "  return { ok = ok, message = err.message }\n"
    "end\n"
    "function M.l_metamethod()\n"
    "  local mt = { __index = function(_, k) return mpreg.call('x.get', k) end }\n"
    "  return setmetatable({}, mt).key\n"
    "end\n"
    "function M.m_name() return mpreg.call(42) end\n"
    "function M.n_echo(x) return x end\n"
    "function M.o_yield() coroutine.yield(1) end\n"
    "local shared = coroutine.create(function()\n"
    "  while true do coroutine.yield(mpreg.call('x.y')) end\n"
    "end)\n"
    "function M.p_shared() return { coroutine.resume(shared) } end\n"
    "return M\n";

enum {
    CALL,
    TRY,
    WITH,
    ALL,
    SLEEP,
    WRAP,
    SORT,
    GSUB,
    BAD,
    STUBBORN,
    PCALL,
    METAMETHOD,
    NAME,
    ECHO,
    YIELD,
    SHARED
};

#define FRAME(line, fun)                                                                           \
    "{\"file\":\"m.lua\",\"function\":\"" fun "\",\"line\":" line ",\"node\":\"n1\"}"

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

static void test_call(void **state)
{
    struct host *h = (struct host *)*state;
    json_invoke(h, 5, CALL, "[\"x.y\",1,null,\"z\"]");
    uint64_t n = json_nested(h, 5, NULL, "x.y", "[1,null,\"z\"]");
    json_call(h, ECHO, "[\"others run meanwhile\"]", "\"others run meanwhile\"");
    json_result(h, n, "{\"v\":1}", 0);
    json_expect_result(h, 5, "{\"v\":1}");
    json_result(h, n, "1", 0); /* no longer known: passed over */
    json_result(h, 12345678901, "1", 0);
    json_call(h, ECHO, "[1]", "1");
}

static void test_call_raises(void **state)
{
    struct host *h = (struct host *)*state;
    json_invoke(h, 5, CALL, "[\"x.y\"]");
    uint64_t n = json_nested(h, 5, NULL, "x.y", "[]");
    json_result(h, n,
                "{\"code\":\"ABORTED\",\"message\":\"m\",\"fun\":\"x.y\",\"traceback\":[{\"node\":"
                "\"n2\",\"file\":\"x.lua\",\"line\":3}]}",
                MP_RING_ERROR);
    json_expect_error(h, 5,
                      "{\"code\":\"ABORTED\",\"fun\":\"x.y\",\"message\":\"m\",\"traceback\":[{"
                      "\"file\":\"x.lua\",\"line\":3,\"node\":\"n2\"}," FRAME("3", "a_call") "]}");
    json_invoke(h, 5, WITH, "[\"x.y\"]");
    n = json_nested(h, 5,
                    "{\"needs\":[\"gpu\"],\"on\":\"n2\",\"retries\":2,\"timeout_ms\":1500,"
                    "\"version\":\"^1.2\"}",
                    "x.y", "[]");
    json_result(h, n, "7", 0);
    json_expect_result(h, 5, "7");
}

static void test_error_goes_through_frames(void **state)
{
    struct host *h = (struct host *)*state;
    json_invoke(h, 5, METAMETHOD, "[]");
    uint64_t n = json_nested(h, 5, NULL, "x.get", "[\"key\"]");
    json_result(h, n, "\"v\"", 0);
    json_expect_result(h, 5, "\"v\"");
    json_invoke(h, 6, METAMETHOD, "[]");
    n = json_nested(h, 6, NULL, "x.get", "[\"key\"]");
    json_result(h, n, "{\"code\":\"ABORTED\",\"message\":\"m\"}", MP_RING_ERROR);
    struct answer a = host_expect(h, MP_MSG_COMPLETED);
    struct mp_fault f;
    assert_int_equal(mp_fault_read(mp_buf_slice(&a.payload), &f), MP_OK);
    char *text = json_text(f.traceback);
    assert_non_null(strstr(text, "\"function\":\"l_metamethod"));
    free(text);
    answer_fini(&a);
}

static void test_try(void **state)
{
    struct host *h = (struct host *)*state;
    json_invoke(h, 5, TRY, "[\"x.y\"]");
    uint64_t n = json_nested(h, 5, NULL, "x.y", "[]");
    json_result(h, n, "{\"code\":\"ABORTED\",\"message\":\"m\"}", MP_RING_ERROR);
    json_expect_result(h, 5, "{\"code\":\"ABORTED\",\"text\":\"ABORTED: m\"}");
    json_invoke(h, 5, PCALL, "[]");
    n = json_nested(h, 5, NULL, "x.y", "[]");
    json_result(h, n, "{\"code\":\"ABORTED\",\"message\":\"m\"}", MP_RING_ERROR);
    json_expect_result(h, 5, "{\"message\":\"m\",\"ok\":false}");
}

static void test_all_gives_results_in_order(void **state)
{
    struct host *h = (struct host *)*state;
    json_call(h, ALL, "[[]]", "[]");
    json_invoke(h, 5, ALL, "[[[\"x.a\",1],[\"x.b\"],[\"x.c\",null,3]]]");
    uint64_t a = json_nested(h, 5, NULL, "x.a", "[1]");
    uint64_t b = json_nested(h, 5, NULL, "x.b", "[]");
    uint64_t c = json_nested(h, 5, NULL, "x.c", "[null,3]");
    json_result(h, c, "\"C\"", 0);
    json_result(h, a, "\"A\"", 0);
    json_result(h, b, "null", 0);
    json_expect_result(h, 5, "[\"A\",null,\"C\"]");
}

static void test_all_cancels_the_rest(void **state)
{
    struct host *h = (struct host *)*state;
    json_invoke(h, 5, ALL, "[[[\"x.a\"],[\"x.b\"],[\"x.c\"]]]");
    uint64_t a = json_nested(h, 5, NULL, "x.a", "[]");
    uint64_t b = json_nested(h, 5, NULL, "x.b", "[]");
    uint64_t c = json_nested(h, 5, NULL, "x.c", "[]");
    json_result(h, b, "{\"code\":\"ABORTED\",\"message\":\"m\"}", MP_RING_ERROR);
    json_nested_cancel(h, c);
    json_nested_cancel(h, a);
    json_expect_error(h, 5,
                      "{\"code\":\"ABORTED\",\"index\":2,\"message\":\"m\",\"traceback\":[" FRAME(
                          "11", "d_all") "]}");
}

static void test_sleep(void **state)
{
    struct host *h = (struct host *)*state;
    json_invoke(h, 5, SLEEP, "[0.03]");
    json_invoke(h, 6, SLEEP, "[0.01]");
    json_invoke(h, 7, SLEEP, "[0]");
    uint64_t began = host_now();
    json_expect_result(h, 7, "\"slept\"");
    json_expect_result(h, 6, "\"slept\"");
    json_expect_result(h, 5, "\"slept\"");
    assert_true(host_now() - began >= 30000000);
}

static void test_cancel(void **state)
{
    struct host *h = (struct host *)*state;
    json_invoke(h, 5, SLEEP, "[1000]");
    json_call(h, ECHO, "[1]", "1");
    host_cancel(h, 5);
    json_expect_error(h, 5,
                      "{\"code\":\"CANCELLED\",\"message\":\"it was "
                      "cancelled\",\"traceback\":[" FRAME("12", "e_sleep") "]}");
    json_invoke(h, 6, STUBBORN, "[]");
    uint64_t n = json_nested(h, 6, NULL, "x.y", "[1]");
    host_cancel(h, 6);
    json_nested_cancel(h, n);
    json_expect_result(h, 6, "6");
    host_cancel(h, 6); /* over: passed over */
    json_call(h, ECHO, "[1]", "1");
}

static void test_own_coroutines_let_calls_through(void **state)
{
    struct host *h = (struct host *)*state;
    json_invoke(h, 5, WRAP, "[]");
    uint64_t n = json_nested(h, 5, NULL, "x.inner", "[1]");
    json_result(h, n, "\"a\"", 0);
    n = json_nested(h, 5, NULL, "x.inner", "[2]");
    json_result(h, n, "\"b\"", 0);
    json_expect_result(h, 5, "[\"1a\",\"2b\",\"end\"]");
}

static void test_a_waiting_coroutine_is_its_calls_own(void **state)
{
    struct host *h = (struct host *)*state;
    json_invoke(h, 5, SHARED, "[]");
    uint64_t n = json_nested(h, 5, NULL, "x.y", "[]");
    json_call(h, SHARED, "[]", "[false,\"cannot resume a coroutine that waits in another call\"]");
    json_result(h, n, "1", 0);
    json_expect_result(h, 5, "[true,1]");
    json_invoke(h, 6, SHARED, "[]");
    n = json_nested(h, 6, NULL, "x.y", "[]");
    json_result(h, n, "2", 0);
    json_expect_result(h, 6, "[true,2]");
}

static void expect_refusal(struct host *h, uint32_t function, const char *message)
{
    json_invoke(h, 1, function, "[]");
    struct answer a = host_expect(h, MP_MSG_COMPLETED);
    assert_int_equal(a.flags, MP_RING_ERROR);
    struct mp_fault f;
    assert_int_equal(mp_fault_read(mp_buf_slice(&a.payload), &f), MP_OK);
    char *text = strndup((const char *)f.message.data, f.message.size);
    assert_string_equal(text, message);
    free(text);
    answer_fini(&a);
}

static void test_no_waiting_across_c(void **state)
{
    struct host *h = (struct host *)*state;
    expect_refusal(h, SORT,
                   "mpreg.call cannot be used inside a table.sort callback: it would have to wait "
                   "there");
    expect_refusal(h, GSUB,
                   "mpreg.call cannot be used inside a string.gsub callback: it would have to wait "
                   "there");
    expect_refusal(h, YIELD, "attempt to yield from outside a coroutine");
}

static void test_bad_arguments(void **state)
{
    struct host *h = (struct host *)*state;
    expect_refusal(h, BAD, "argument 2.deep[1]: a function cannot be sent");
    expect_refusal(h, NAME, "mpreg.call: the function's name must be a string, not a number");
    json_call(h, ECHO, "[1]", "1");
}

static void test_many_wait_at_once(void **state)
{
    struct host *h = (struct host *)*state;
    enum { MANY = 1000 };
    static uint64_t nested[MANY];
    for (uint64_t i = 0; i < MANY; i++)
        json_invoke(h, 100 + i, CALL, "[\"x.y\"]");
    for (uint64_t i = 0; i < MANY; i++)
        nested[i] = json_nested(h, 100 + i, NULL, "x.y", "[]");
    for (uint64_t i = MANY; i-- > 0;)
        json_result(h, nested[i], "1", 0);
    for (uint64_t i = MANY; i-- > 0;)
        json_expect_result(h, 100 + i, "1");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_call, start, stop),
        cmocka_unit_test_setup_teardown(test_call_raises, start, stop),
        cmocka_unit_test_setup_teardown(test_error_goes_through_frames, start, stop),
        cmocka_unit_test_setup_teardown(test_try, start, stop),
        cmocka_unit_test_setup_teardown(test_all_gives_results_in_order, start, stop),
        cmocka_unit_test_setup_teardown(test_all_cancels_the_rest, start, stop),
        cmocka_unit_test_setup_teardown(test_sleep, start, stop),
        cmocka_unit_test_setup_teardown(test_cancel, start, stop),
        cmocka_unit_test_setup_teardown(test_own_coroutines_let_calls_through, start, stop),
        cmocka_unit_test_setup_teardown(test_a_waiting_coroutine_is_its_calls_own, start, stop),
        cmocka_unit_test_setup_teardown(test_no_waiting_across_c, start, stop),
        cmocka_unit_test_setup_teardown(test_bad_arguments, start, stop),
        cmocka_unit_test_setup_teardown(test_many_wait_at_once, start, stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
