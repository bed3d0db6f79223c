/* What a function gives and raises, and what its caller gets. */
#include "spec/c/worker/json.h"

static const char source[] =
    "local mpreg = require 'mpreg'\n"
    "local M = {}\n"
    "function M.a_all(...) return { n = select('#', ...), ... } end\n"
    "function M.b_count(...) return select('#', ...) end\n"
    "function M.c_fail(how)\n"
    "  if how == 'text' then error('went wrong') end\n"
    "  if how == 'bare' then error('went wrong', 0) end\n"
    "  if how == 'table' then error { code = 'NOT_FOUND', message = 'no row', retry = false } end\n"
    "  if how == 'own' then error { code = 'NO_ROW', message = 'no row', row = 7 } end\n"
    "  if how == 'nil' then error() end\n"
    "  if how == 'number' then error(42) end\n"
    "  if how == 'silent' then error({ 1 }) end\n"
    "  if how == 'object' then error(setmetatable({}, { __tostring = function() return 'o!' end "
    "})) end\n"
    "  if how == 'made' then error(mpreg.error('ABORTED', 'again', { hint = 'wait' })) end\n"
    "  if how == 'index' then return how.x.y end\n"
    "  if how == 'unsendable' then error { code = 'ABORTED', message = 'm', f = print } end\n"
    "  if how == 'deep' then return (M.d_raise(how)) end\n"
    "end\n"
    "function M.d_raise() error('from below') end\n"
    "function M.e_nil(second) return nil, second end\n"
    "function M.f_nothing() end\n"
    "function M.g_bad(how)\n"
    "  if how == 'function' then return print end\n"
    "  if how == 'inside' then return { items = { 1, 2, { callback = print } } } end\n"
    "  if how == 'cycle' then local t = {} t.t = t return t end\n"
    "  if how == 'holes' then return { [1] = 1, [3] = 3 } end\n"
    "  if how == 'large' then return ('x'):rep(3000) end\n"
    "  if how == 'largetable' then local t = {} for i = 1, 3000 do t[i] = i end return t end\n"
    "end\n"
    "function M.h_tostring() return tostring(mpreg.error('NOT_FOUND', 'gone')) end\n"
    "--- A list.\n"
    "---@return string[]\n"
    "function M.i_list() return {} end\n"
    "--- A map.\n"
    "---@return table\n"
    "function M.j_map() return {} end\n"
    "function M.k_array() return { mpreg.array {}, mpreg.null, {} } end\n"
    "function M.l_overflow() return 1 + M.l_overflow() end\n"
    "function M.m_rethrow() local ok, e = pcall(M.c_fail, 'made') error(e) end\n"
    "return M\n";

enum { ALL, COUNT, FAIL, RAISE, NIL, NOTHING, BAD, TOSTRING, LIST, MAP, ARRAY, OVERFLOW, RETHROW };

static int start(void **state)
{
    struct host *h = (struct host *)calloc(1, sizeof(*h));
    json_start(h, (struct host_config){.value_bytes_max = 2000}, source);
    *state = h;
    return 0;
}

static int stop(void **state)
{
    host_stop((struct host *)*state);
    free(*state);
    return 0;
}

static void test_arguments_arrive(void **state)
{
    struct host *h = (struct host *)*state;
    json_call(h, COUNT, "[]", "0");
    json_call(h, COUNT, "[null,null]", "2");
    json_call(h, COUNT, "[1,null,3,null]", "4");
    json_call(h, FAIL, "[1]", "null");
}

static void test_first_value_is_the_result(void **state)
{
    struct host *h = (struct host *)*state;
    json_call(h, NOTHING, "[]", "null");
    json_call(h, NIL, "[null]", "null");
    json_call(h, NIL, "[]", "null");
    json_call_error(
        h, NIL, "[\"it failed\"]",
        "{\"code\":\"UNKNOWN\",\"message\":\"it failed\",\"reason\":\"FUNCTION_ERROR\"}");
    json_call_error(h, NIL, "[{\"code\":\"NOT_FOUND\",\"message\":\"gone\",\"reason\":\"NO_ROW\"}]",
                    "{\"code\":\"NOT_FOUND\",\"message\":\"gone\",\"reason\":\"NO_ROW\"}");
    json_call_error(h, NIL, "[false]",
                    "{\"code\":\"UNKNOWN\",\"message\":\"false\",\"reason\":\"FUNCTION_ERROR\"}");
}

#define FRAME(line, fun)                                                                           \
    "{\"file\":\"m.lua\",\"function\":\"" fun "\",\"line\":" line ",\"node\":\"n1\"}"

static void test_errors_have_a_place(void **state)
{
    struct host *h = (struct host *)*state;
    json_call_error(h, FAIL, "[\"text\"]",
                    "{\"code\":\"UNKNOWN\",\"message\":\"went wrong\",\"reason\":\"FUNCTION_"
                    "ERROR\",\"traceback\":[" FRAME("6", "c_fail") "]}");
    json_call_error(h, FAIL, "[\"bare\"]",
                    "{\"code\":\"UNKNOWN\",\"message\":\"went wrong\",\"reason\":\"FUNCTION_"
                    "ERROR\",\"traceback\":[" FRAME("7", "c_fail") "]}");
    json_call_error(
        h, FAIL, "[\"deep\"]",
        "{\"code\":\"UNKNOWN\",\"message\":\"from below\",\"reason\":\"FUNCTION_"
        "ERROR\",\"traceback\":[" FRAME("19", "d_raise") "," FRAME("17", "c_fail") "]}");
    json_call_error(
        h, FAIL, "[\"index\"]",
        "{\"code\":\"UNKNOWN\",\"message\":\"attempt to index field 'x' (a nil "
        "value)\",\"reason\":\"FUNCTION_ERROR\",\"traceback\":[" FRAME("15", "c_fail") "]}");
    json_call_error(h, RETHROW, "[]",
                    "{\"code\":\"ABORTED\",\"hint\":\"wait\",\"message\":\"again\",\"reason\":"
                    "\"FUNCTION_ERROR\",\"traceback\":[" FRAME("39", "m_rethrow") "]}");
}

static void test_error_tables(void **state)
{
    struct host *h = (struct host *)*state;
    json_call_error(h, FAIL, "[\"table\"]",
                    "{\"code\":\"NOT_FOUND\",\"message\":\"no row\",\"reason\":\"FUNCTION_ERROR\","
                    "\"retry\":false,\"traceback\":[" FRAME("8", "c_fail") "]}");
    json_call_error(h, FAIL, "[\"own\"]",
                    "{\"code\":\"UNKNOWN\",\"message\":\"no row\",\"reason\":\"NO_ROW\",\"row\":7,"
                    "\"traceback\":[" FRAME("9", "c_fail") "]}");
    json_call_error(h, FAIL, "[\"made\"]",
                    "{\"code\":\"ABORTED\",\"hint\":\"wait\",\"message\":\"again\",\"reason\":"
                    "\"FUNCTION_ERROR\",\"traceback\":[" FRAME("14", "c_fail") "]}");
    json_call_error(h, FAIL, "[\"unsendable\"]",
                    "{\"code\":\"ABORTED\",\"message\":\"m\",\"reason\":\"FUNCTION_ERROR\","
                    "\"traceback\":[" FRAME("16", "c_fail") "]}");
}

static void test_other_errors(void **state)
{
    struct host *h = (struct host *)*state;
    json_call_error(h, FAIL, "[\"nil\"]",
                    "{\"code\":\"UNKNOWN\",\"message\":\"a nil was raised as an error\",\"reason\":"
                    "\"FUNCTION_ERROR\",\"traceback\":[" FRAME("10", "c_fail") "]}");
    json_call_error(h, FAIL, "[\"number\"]",
                    "{\"code\":\"UNKNOWN\",\"message\":\"42\",\"reason\":"
                    "\"FUNCTION_ERROR\",\"traceback\":[" FRAME("11", "c_fail") "]}");
    json_call_error(
        h, FAIL, "[\"silent\"]",
        "{\"code\":\"UNKNOWN\",\"message\":\"a table without a message was "
        "raised\",\"reason\":\"FUNCTION_ERROR\",\"traceback\":[" FRAME("12", "c_fail") "]}");
    json_call_error(h, FAIL, "[\"object\"]",
                    "{\"code\":\"UNKNOWN\",\"message\":\"o!\",\"reason\":"
                    "\"FUNCTION_ERROR\",\"traceback\":[" FRAME("13", "c_fail") "]}");
    json_call(h, TOSTRING, "[]", "\"NOT_FOUND/FUNCTION_ERROR: gone\"");
}

static void test_stack_overflow_is_an_error(void **state)
{
    struct host *h = (struct host *)*state;
    json_invoke(h, 1, OVERFLOW, "[]");
    struct answer a = host_expect(h, MP_MSG_COMPLETED);
    assert_int_equal(a.flags, MP_RING_ERROR);
    struct mp_fault f;
    assert_int_equal(mp_fault_read(mp_buf_slice(&a.payload), &f), MP_OK);
    assert_true(mp_slice_is(f.reason, "FUNCTION_ERROR"));
    assert_true(mp_slice_is(f.message, "stack overflow"));
    answer_fini(&a);
    json_call(h, COUNT, "[]", "0");
}

static void test_what_cannot_be_sent(void **state)
{
    struct host *h = (struct host *)*state;
    json_call_error(h, BAD, "[\"function\"]",
                    "{\"code\":\"INTERNAL\",\"hint\":\"send data, or the function's "
                    "name\",\"message\":\"result: a "
                    "function cannot be sent\",\"reason\":\"UNENCODABLE\"}");
    json_call_error(h, BAD, "[\"inside\"]",
                    "{\"code\":\"INTERNAL\",\"hint\":\"send data, or the function's "
                    "name\",\"message\":\"result.items[3].callback: a "
                    "function cannot be sent\",\"reason\":\"UNENCODABLE\"}");
    json_call_error(h, BAD, "[\"cycle\"]",
                    "{\"code\":\"INTERNAL\",\"message\":\"result.t: a cycle: this table contains "
                    "itself\",\"reason\":\"UNENCODABLE\"}");
    json_call_error(h, BAD, "[\"holes\"]",
                    "{\"code\":\"INTERNAL\",\"hint\":\"fill holes with mpreg.null, or use string "
                    "keys (tostring(k))\",\"message\":\"result[2]: a list has a hole "
                    "here\",\"reason\":\"UNENCODABLE\"}");
    json_call_error(h, BAD, "[\"large\"]",
                    "{\"code\":\"RESOURCE_EXHAUSTED\",\"message\":\"the result is larger than 2000 "
                    "bytes (--value-max)\",\"reason\":\"TOO_LARGE\"}");
    json_call_error(h, BAD, "[\"largetable\"]",
                    "{\"code\":\"RESOURCE_EXHAUSTED\",\"message\":\"the result is larger than 2000 "
                    "bytes (--value-max)\",\"reason\":\"TOO_LARGE\"}");
}

static void test_empty_tables(void **state)
{
    struct host *h = (struct host *)*state;
    json_call(h, LIST, "[]", "[]");
    json_call(h, MAP, "[]", "{}");
    json_call(h, ARRAY, "[]", "[[],null,{}]");
}

static void test_unknown_functions(void **state)
{
    struct host *h = (struct host *)*state;
    const char *expected = "{\"code\":\"NOT_FOUND\",\"message\":\"the module has no such "
                           "function\",\"reason\":\"UNKNOWN_FUNCTION\"}";
    json_call_error(h, 99, "[]", expected);
    struct mp_buf args = json_value("[]");
    assert_non_null(host_invoke(h, 1, 5, 0, mp_buf_slice(&args)));
    mp_buf_fini(&args);
    json_expect_error(h, 1, expected);
}

static void test_arguments_that_are_no_values(void **state)
{
    struct host *h = (struct host *)*state;
    assert_non_null(host_invoke(h, 1, 0, COUNT, mp_slice_of("\x92\x01", 2)));
    struct answer a = host_expect(h, MP_MSG_COMPLETED);
    assert_int_equal(a.flags, MP_RING_ERROR);
    struct mp_fault f;
    assert_int_equal(mp_fault_read(mp_buf_slice(&a.payload), &f), MP_OK);
    assert_int_equal(f.code, MP_CODE_INVALID_ARGUMENT);
    assert_true(mp_slice_is(f.reason, "BAD_VALUE"));
    answer_fini(&a);
    json_call(h, COUNT, "[]", "0");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_arguments_arrive, start, stop),
        cmocka_unit_test_setup_teardown(test_first_value_is_the_result, start, stop),
        cmocka_unit_test_setup_teardown(test_errors_have_a_place, start, stop),
        cmocka_unit_test_setup_teardown(test_error_tables, start, stop),
        cmocka_unit_test_setup_teardown(test_other_errors, start, stop),
        cmocka_unit_test_setup_teardown(test_stack_overflow_is_an_error, start, stop),
        cmocka_unit_test_setup_teardown(test_what_cannot_be_sent, start, stop),
        cmocka_unit_test_setup_teardown(test_empty_tables, start, stop),
        cmocka_unit_test_setup_teardown(test_unknown_functions, start, stop),
        cmocka_unit_test_setup_teardown(test_arguments_that_are_no_values, start, stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
