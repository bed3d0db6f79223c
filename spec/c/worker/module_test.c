/* LOAD and LOADED, and what functions see of their node. */
#include "spec/c/worker/json.h"

/* The next message must be LOADED for this module; checks the payload. */
static void expect_loaded(struct host *h, uint32_t module, bool is_error, const char *expected)
{
    struct answer a = host_expect(h, MP_MSG_LOADED);
    assert_int_equal(a.id, module);
    assert_int_equal(a.flags & MP_RING_ERROR ? 1 : 0, is_error);
    if (expected)
        json_check(&a, expected);
    answer_fini(&a);
}

static void test_set_in_any_order(void **state)
{
    (void)state;
    struct host h;
    host_start(&h);
    host_configure(&h, (struct host_config){0});
    host_load(&h, 4, "a", "local b = require 'b' return { f = b.f }",
              MP_RING_DESCRIBE | MP_RING_MORE);
    host_load(&h, 2, "broken", "return +", MP_RING_MORE);
    host_wake(&h);
    /* the set is open: nothing is loaded, however long the ring is empty */
    while (!mp_ring_is_empty(&h.channel.to_worker) &&
           atomic_load(&h.channel.to_worker.shared->sleeping) == 0)
        ;
    assert_true(mp_ring_is_empty(&h.channel.to_host));
    host_load(&h, 9, "b", "return { f = function(x) return x end }", MP_RING_DESCRIBE);
    expect_loaded(&h, 4, false,
                  "{\"functions\":[{\"name\":\"f\",\"params\":[{\"name\":\"x\"}]}],\"kind\":"
                  "\"module\",\"version\":\"0.0.0\"}");
    expect_loaded(&h, 2, true,
                  "{\"code\":\"INVALID_ARGUMENT\",\"message\":\"broken.lua:1: unexpected symbol "
                  "near '+'\",\"reason\":\"SYNTAX_ERROR\"}");
    expect_loaded(&h, 9, false, NULL);
    struct mp_buf args = json_value("[5]");
    assert_non_null(host_invoke(&h, 1, 4, 0, mp_buf_slice(&args)));
    mp_buf_fini(&args);
    json_expect_result(&h, 1, "5");
    host_stop(&h);
}

static void test_set_whose_last_never_comes(void **state)
{
    (void)state;
    struct host h;
    host_start(&h);
    host_configure(&h, (struct host_config){0});
    host_load(&h, 0, "a", "return { f = function(x) return x end }", MP_RING_MORE);
    expect_loaded(&h, 0, false, "null");
    host_stop(&h);
}

static void test_not_described(void **state)
{
    (void)state;
    struct host h;
    host_start(&h);
    host_configure(&h, (struct host_config){0});
    host_load(&h, 0, "a", "return { f = function(x) return x end }", 0);
    expect_loaded(&h, 0, false, "null");
    host_stop(&h);
}

static void test_functions_in_the_order_asked_for(void **state)
{
    (void)state;
    struct host h;
    host_start(&h);
    host_configure(&h, (struct host_config){0});
    struct mp_buf expected = json_value("[\"z\",\"gone\",\"a\"]");
    const char *source = "return { a = function() return 'a' end, z = function() return 'z' end }";
    struct mp_msg_load m = {.module = 0,
                            .name_size = 1,
                            .expected_size = (uint32_t)expected.size,
                            .source_size = (uint32_t)strlen(source)};
    uint8_t *at = host_reserve(&h, sizeof(m) + 1 + expected.size + strlen(source), MP_MSG_LOAD, 0);
    at = host_put(at, mp_slice_of(&m, sizeof(m)));
    at = host_put(at, mp_slice_str("m"));
    at = host_put(at, mp_buf_slice(&expected));
    host_put(at, mp_slice_str(source));
    mp_buf_fini(&expected);
    expect_loaded(&h, 0, false, "null");
    json_call(&h, 0, "[]", "\"z\"");
    json_call_error(&h, 1, "[]",
                    "{\"code\":\"NOT_FOUND\",\"message\":\"the module has no such "
                    "function\",\"reason\":\"UNKNOWN_FUNCTION\"}");
    json_call(&h, 2, "[]", "\"a\"");
    host_stop(&h);
}

static void test_large_source(void **state)
{
    (void)state;
    struct host h;
    struct mp_buf source;
    mp_buf_init(&source, &host_alloc, 0);
    host_start(&h);
    host_configure(&h, (struct host_config){0});
    for (int i = 0; i < 5000; i++)
        assert_int_equal(mp_buf_append(&source, mp_slice_str("-- a line of comment\n")), MP_OK);
    assert_int_equal(
        mp_buf_append(&source, mp_slice_str("return { line = function() error('x') end }")), MP_OK);
    host_load_bytes(&h, 0, "m", mp_buf_slice(&source), 0);
    mp_buf_fini(&source);
    expect_loaded(&h, 0, false, "null");
    json_call_error(&h, 0, "[]",
                    "{\"code\":\"UNKNOWN\",\"message\":\"x\",\"reason\":\"FUNCTION_ERROR\","
                    "\"traceback\":[{\"file\":\"m.lua\",\"function\":\"line\",\"line\":5001,"
                    "\"node\":\"n1\"}]}");
    assert_int_equal(mp_arena_used(h.arena), 0);
    host_stop(&h);
}

static void test_memory_limit_while_loading(void **state)
{
    (void)state;
    struct host h;
    host_start(&h);
    host_configure(&h, (struct host_config){.memory_bytes_max = 16u << 20});
    host_load(&h, 0, "greedy", "local t = {} for i = 1, 1e9 do t[i] = { i } end return t", 0);
    host_load(&h, 1, "m", "return { f = function() return 1 end }", 0);
    struct answer a = host_expect(&h, MP_MSG_LOADED);
    struct mp_fault f;
    assert_int_equal(a.flags, MP_RING_ERROR);
    assert_int_equal(mp_fault_read(mp_buf_slice(&a.payload), &f), MP_OK);
    answer_fini(&a);
    expect_loaded(&h, 1, false, "null");
    host_stop(&h);
}

static const char node_source[] =
    "local mpreg = require 'mpreg'\n"
    "local M = {}\n"
    "function M.a_resource(name)\n"
    "  local r = mpreg.resource(name)\n"
    "  if type(r) == 'table' then r.changed = true end\n"
    "  return { value = mpreg.resource(name), is_nil = r == nil }\n"
    "end\n"
    "function M.b_node() return mpreg.node() end\n"
    "function M.c_context()\n"
    "  local c = mpreg.context()\n"
    "  return { c.run_id or 0, c.step or 0, c.index or 0, c.attempt or 0, c.caller or 0,\n"
    "    c.deadline_ms and (c.deadline_ms > 1000 and 'far' or 'near') or 'none' }\n"
    "end\n"
    "function M.d_log(level, message, fields) mpreg.log[level](message, fields) end\n"
    "function M.e_print(...) print(...) end\n"
    "function M.f_write() io.write('a') mpreg.call('x.y') io.write('b\\nrest') end\n"
    "function M.g_unsendable() mpreg.log.info('m', { f = print }) end\n"
    "function M.h_long() print(('x'):rep(20000)) end\n"
    "function M.i_write_fail() io.write('partial') error('x', 0) end\n"
    "return M\n";

enum { RESOURCE, NODE, CONTEXT, LOG, PRINT, WRITE, UNSENDABLE, LONG, WRITE_FAIL };

static int start(void **state)
{
    struct host *h = (struct host *)calloc(1, sizeof(*h));
    struct mp_buf resources = json_value("{\"data\":{\"path\":\"x\"},\"plain\":null,\"n\":5}");
    json_start(h, (struct host_config){.resources = mp_buf_slice(&resources)}, node_source);
    mp_buf_fini(&resources);
    *state = h;
    return 0;
}

static int stop(void **state)
{
    host_stop((struct host *)*state);
    free(*state);
    return 0;
}

static void test_resources(void **state)
{
    struct host *h = (struct host *)*state;
    json_call(h, RESOURCE, "[\"data\"]", "{\"is_nil\":false,\"value\":{\"path\":\"x\"}}");
    json_call(h, RESOURCE, "[\"plain\"]", "{\"is_nil\":false,\"value\":true}");
    json_call(h, RESOURCE, "[\"n\"]", "{\"is_nil\":false,\"value\":5}");
    json_call(h, RESOURCE, "[\"lacking\"]", "{\"is_nil\":true}");
}

static void test_node_and_context(void **state)
{
    struct host *h = (struct host *)*state;
    json_call(h, NODE, "[]",
              "{\"addr\":\"127.0.0.1:7400\",\"cluster\":\"default\",\"name\":\"n1\"}");
    json_call(h, CONTEXT, "[]", "[0,0,0,0,0,\"none\"]");
    struct mp_buf context = json_value("[\"01KB\",\"strong\",3,1,null]");
    struct mp_msg_invoke m = {.call = 8,
                              .function = CONTEXT,
                              .deadline = host_now() + 60000000000u,
                              .context_size = (uint32_t)context.size,
                              .args_size = 1};
    uint8_t *at = host_reserve(h, sizeof(m) + context.size + 1, MP_MSG_INVOKE, 0);
    at = host_put(host_put(at, mp_slice_of(&m, sizeof(m))), mp_buf_slice(&context));
    *at = 0x90;
    mp_buf_fini(&context);
    json_expect_result(h, 8, "[\"01KB\",\"strong\",3,1,0,\"far\"]");
}

static void test_log(void **state)
{
    struct host *h = (struct host *)*state;
    json_invoke(h, 3, LOG, "[\"warn\",\"low\",{\"n\":1}]");
    json_log(h, 3, 2, "{\"fields\":{\"n\":1},\"message\":\"low\"}");
    json_expect_result(h, 3, "null");
    json_invoke(h, 4, LOG, "[\"debug\",7]");
    json_log(h, 4, 0, "{\"message\":\"7\"}");
    json_expect_result(h, 4, "null");
    json_invoke(h, 5, UNSENDABLE, "[]");
    json_log(h, 5, 1, "{\"message\":\"m\"}");
    json_expect_result(h, 5, "null");
}

static void test_print(void **state)
{
    struct host *h = (struct host *)*state;
    json_invoke(h, 3, PRINT, "[1,\"two\",null,true]");
    json_log(h, 3, 1, "{\"message\":\"1\\ttwo\\tnil\\ttrue\"}");
    json_expect_result(h, 3, "null");
    json_invoke(h, 4, LONG, "[]");
    const size_t lengths[] = {8192, 8192, 3616};
    for (size_t i = 0; i < MP_ARRAY_SIZE(lengths); i++) {
        struct answer a = host_expect(h, MP_MSG_LOG);
        struct mp_slice text;
        assert_int_equal(mp_mp_map_get(mp_buf_slice(&a.payload), mp_slice_str("message"), &text),
                         MP_OK);
        assert_int_equal(text.size, lengths[i] + 3);
        answer_fini(&a);
    }
    json_expect_result(h, 4, "null");
}

static void test_lines_of_calls_are_kept_apart(void **state)
{
    struct host *h = (struct host *)*state;
    json_invoke(h, 3, WRITE, "[]");
    uint64_t n = json_nested(h, 3, NULL, "x.y", "[]");
    json_invoke(h, 4, PRINT, "[\"whole\"]");
    json_log(h, 4, 1, "{\"message\":\"whole\"}");
    json_expect_result(h, 4, "null");
    json_result(h, n, "null", 0);
    json_log(h, 3, 1, "{\"message\":\"ab\"}");
    json_expect_result(h, 3, "null");
}

static void test_text_of_a_call_ends_with_it(void **state)
{
    struct host *h = (struct host *)*state;
    json_invoke(h, 3, WRITE, "[]");
    uint64_t n = json_nested(h, 3, NULL, "x.y", "[]");
    json_result(h, n, "null", 0);
    json_log(h, 3, 1, "{\"message\":\"ab\"}");
    json_expect_result(h, 3, "null");
    json_log(h, 3, 1, "{\"message\":\"rest\"}");
    json_invoke(h, 4, WRITE_FAIL, "[]");
    json_log(h, 4, 1, "{\"message\":\"partial\"}");
    struct answer a = host_expect(h, MP_MSG_COMPLETED);
    assert_int_equal(a.flags, MP_RING_ERROR);
    answer_fini(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_set_in_any_order),
        cmocka_unit_test(test_set_whose_last_never_comes),
        cmocka_unit_test(test_not_described),
        cmocka_unit_test(test_functions_in_the_order_asked_for),
        cmocka_unit_test(test_large_source),
        cmocka_unit_test(test_memory_limit_while_loading),
        cmocka_unit_test_setup_teardown(test_resources, start, stop),
        cmocka_unit_test_setup_teardown(test_node_and_context, start, stop),
        cmocka_unit_test_setup_teardown(test_log, start, stop),
        cmocka_unit_test_setup_teardown(test_print, start, stop),
        cmocka_unit_test_setup_teardown(test_lines_of_calls_are_kept_apart, start, stop),
        cmocka_unit_test_setup_teardown(test_text_of_a_call_ends_with_it, start, stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
