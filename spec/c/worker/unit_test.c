/* Units beside each other, and releases, in a real worker. What `require` finds is the matter of
 * spec/lua/runtime/unit_spec.lua. */
#include "spec/c/worker/json.h"

#define REST_MS 200 /* four times as long as a worker waits before it collects */
#define TURNS   1000

static void load(struct host *h, uint32_t unit, uint32_t module, const char *name,
                 const char *source, uint16_t flags)
{
    host_load_into(h, unit, module, name, mp_slice_str(source), flags);
}

static void expect_loaded(struct host *h, uint32_t module)
{
    struct answer a = host_expect(h, MP_MSG_LOADED);
    assert_int_equal(a.id, module);
    if (a.flags & MP_RING_ERROR)
        json_check(&a, "a module that loads");
    answer_fini(&a);
}

static void open_release(struct host *h, uint32_t release, const char *entries)
{
    struct mp_buf b = json_value(entries);
    host_release(h, MP_MSG_OPEN_RELEASE, release, mp_buf_slice(&b));
    mp_buf_fini(&b);
}

static void close_release(struct host *h, uint32_t release)
{
    host_release(h, MP_MSG_CLOSE_RELEASE, release, mp_slice_of(NULL, 0));
}

static void invoke(struct host *h, uint32_t release, uint64_t call, uint32_t module,
                   uint32_t function, const char *args)
{
    struct mp_buf b = json_value(args);
    assert_non_null(host_invoke_in(h, release, call, module, function, mp_buf_slice(&b)));
    mp_buf_fini(&b);
}

static void call(struct host *h, uint32_t release, uint32_t module, const char *expected)
{
    invoke(h, release, 1, module, 0, "[]");
    json_expect_result(h, 1, expected);
}

enum { A = 5, B_OLD = 7, B_NEW = 9 };

/* Module a of unit 1 and two versions of b, of units 2 and 3. */
static void start_with(struct host *h, const char *a, const char *b_old, const char *b_new)
{
    host_start(h);
    host_configure(h, (struct host_config){0});
    load(h, 1, A, "a", a, 0);
    expect_loaded(h, A);
    load(h, 2, B_OLD, "b", b_old, 0);
    load(h, 3, B_NEW, "b", b_new, 0);
    expect_loaded(h, B_OLD);
    expect_loaded(h, B_NEW);
    open_release(h, 1, "[[\"a\",1,5],[\"b\",2,7]]");
    open_release(h, 2, "[[\"a\",1,5],[\"b\",3,9]]");
}

static void test_each_release_sees_its_versions(void **state)
{
    (void)state;
    struct host h;
    start_with(&h, "local b = require 'b' return { f = function() return { b.v, b.f() } end }",
               "n = 0 return { v = 1, f = function() n = n + 1 return n end }",
               "n = 0 return { v = 2, f = function() n = n + 1 return n end }");
    call(&h, 1, A, "[1,1]");
    call(&h, 2, A, "[2,1]");
    call(&h, 1, A, "[1,2]");
    call(&h, 1, B_OLD, "3");
    call(&h, 2, B_NEW, "2");
    close_release(&h, 1);
    host_unload(&h, 2);
    call(&h, 2, A, "[2,3]");
    open_release(&h, 1, "[[\"a\",1,5],[\"b\",3,9]]");
    call(&h, 1, A, "[2,4]");
    host_stop(&h);
}

static void test_late_require_resolves_for_the_call(void **state)
{
    (void)state;
    struct host h;
    start_with(&h,
               "local mpreg = require 'mpreg' return { f = function(name) mpreg.call('x.y') "
               "return require(name).v end }",
               "return { v = 1 }", "return { v = 2 }");
    invoke(&h, 1, 11, A, 0, "[\"b\"]");
    invoke(&h, 2, 12, A, 0, "[\"b\"]");
    uint64_t first = json_nested(&h, 11, NULL, "x.y", "[]");
    uint64_t second = json_nested(&h, 12, NULL, "x.y", "[]");
    json_result(&h, second, "null", 0);
    json_expect_result(&h, 12, "2");
    json_result(&h, first, "null", 0);
    json_expect_result(&h, 11, "1");
    host_stop(&h);
}

static void test_loading_for_a_call_is_its_own_time(void **state)
{
    (void)state;
    struct host h;
    start_with(&h,
               "local b = require 'b' print('loading') while b.v == 2 do end "
               "return { f = function() return b.v end }",
               "return { v = 1 }", "return { v = 2 }");
    invoke(&h, 1, 21, A, 0, "[]");
    json_log(&h, 21, 1, "{\"message\":\"loading\"}");
    json_expect_result(&h, 21, "1");
    invoke(&h, 2, 22, A, 0, "[]");
    host_wake(&h);
    for (int ms = 0; atomic_load(&h.channel.status->running) != 22 && ms < HOST_WAIT_MS; ms++)
        poll(NULL, 0, 1);
    assert_int_equal(atomic_load(&h.channel.status->running), 22);
    assert_int_equal(kill(h.pid, SIGKILL), 0);
    assert_int_equal(waitpid(h.pid, NULL, 0), h.pid);
    h.pid = 0;
    host_stop(&h);
}

static void test_what_fails_for_one_release(void **state)
{
    (void)state;
    struct host h;
    start_with(&h,
               "local b = require 'b'\nif b.v == 2 then require('mpreg').call('x.y') end\n"
               "return { f = function() return b.v end }",
               "return { v = 1 }", "return { v = 2, _VERSION = '2.0.0' }");
    for (int i = 0; i < 2; i++) {
        invoke(&h, 2, 31, A, 0, "[]");
        json_expect_error(
            &h, 31,
            "{\"code\":\"INVALID_ARGUMENT\",\"hint\":\"the module was loaded for this call, with b "
            "2.0.0\",\"message\":\"module 'a' cannot be loaded: a.lua: mpreg.call cannot be used "
            "while a module loads: only its functions can call "
            "others\",\"reason\":\"LOAD_ERROR\"}");
        call(&h, 1, A, "1");
    }
    host_stop(&h);
}

static void test_function_that_a_version_lacks(void **state)
{
    (void)state;
    struct host h;
    start_with(&h, "local b = require 'b' return { f = b.f, g = function() return 'g' end }",
               "return { f = function() return 'f' end }", "return {}");
    invoke(&h, 1, 41, A, 0, "[]");
    json_expect_result(&h, 41, "\"f\"");
    invoke(&h, 2, 42, A, 0, "[]");
    json_expect_error(&h, 42,
                      "{\"code\":\"NOT_FOUND\",\"message\":\"the module has no such "
                      "function\",\"reason\":\"UNKNOWN_FUNCTION\"}");
    invoke(&h, 2, 43, A, 1, "[]");
    json_expect_result(&h, 43, "\"g\"");
    invoke(&h, 2, 44, A, 9, "[]");
    json_expect_error(&h, 44,
                      "{\"code\":\"NOT_FOUND\",\"message\":\"the module has no such "
                      "function\",\"reason\":\"UNKNOWN_FUNCTION\"}");
    host_stop(&h);
}

static void test_traceback_of_a_call_that_loads(void **state)
{
    (void)state;
    struct host h;
    start_with(&h, "local b = require 'b'\nreturn {\n  f = function() return b.fail() end }",
               "return { fail = function()\n  error('no') end }", "return {}");
    invoke(&h, 1, 51, A, 0, "[]");
    json_expect_error(&h, 51,
                      "{\"code\":\"UNKNOWN\",\"message\":\"no\",\"reason\":\"FUNCTION_ERROR\","
                      "\"traceback\":[{\"file\":\"b.lua\",\"function\":\"fail\",\"line\":2,"
                      "\"node\":\"n1\"},{\"file\":\"a.lua\",\"function\":\"f\",\"line\":3,"
                      "\"node\":\"n1\"}]}");
    host_stop(&h);
}

/* A call outlives its release and its unit: a host that keeps its word lets none run, but the
 * worker must not fall over one that was cancelled and has not ended. */
static void test_call_that_runs_while_its_unit_goes(void **state)
{
    (void)state;
    struct host h;
    start_with(&h,
               "local mpreg, b = require 'mpreg', require 'b'\n"
               "return { f = function() mpreg.call('x.y') return b.v end }",
               "return { v = 1 }", "return { v = 2 }");
    invoke(&h, 1, 61, A, 0, "[]");
    uint64_t nested = json_nested(&h, 61, NULL, "x.y", "[]");
    close_release(&h, 1);
    close_release(&h, 2);
    host_unload(&h, 1);
    host_unload(&h, 2);
    load(&h, 4, A, "other", "return { f = function() return 'other' end }", 0);
    expect_loaded(&h, A);
    call(&h, 0, A, "\"other\"");
    json_result(&h, nested, "null", 0);
    json_expect_result(&h, 61, "1");
    host_stop(&h);
}

/* The worker tidies up before it sleeps, and tells how much it has at the end of a turn. */
/* It collects when nothing has come for a while, and asleep it changes nothing. */
static uint64_t memory_at_rest(struct host *h)
{
    uint64_t bytes = 0;
    call(h, 0, 0, "0");
    for (int same = 0; same < REST_MS; same++) {
        uint64_t now = atomic_load(&h->channel.status->memory_bytes);
        if (now != bytes || atomic_load(&h->channel.to_worker.shared->sleeping) == 0)
            same = 0;
        bytes = now;
        poll(NULL, 0, 1);
    }
    return bytes;
}

static void test_units_come_and_go_without_a_trace(void **state)
{
    (void)state;
    struct host h;
    host_start(&h);
    host_configure(&h, (struct host_config){0});
    load(&h, 0, 0, "m", "return { f = function() return 0 end }", 0);
    expect_loaded(&h, 0);
    load(&h, 2, 2, "b", "return { v = 7 }", 0);
    expect_loaded(&h, 2);
    uint64_t before = 0;
    for (int i = 0; i < TURNS; i++) {
        load(&h, 1, 1, "a",
             "local b = require 'b' local t = {} for i = 1, 1000 do t[i] = i end "
             "--- A function.\nreturn { f = function() return t[b.v] end, g = print, h = error }",
             0);
        expect_loaded(&h, 1);
        open_release(&h, 1, "[[\"a\",1,1],[\"b\",2,2]]");
        call(&h, 1, 1, "7");
        close_release(&h, 1);
        host_unload(&h, 1);
        if (i == TURNS / 20)
            before = memory_at_rest(&h);
    }
    uint64_t after = memory_at_rest(&h);
    if (after > before + before / 10)
        fail_msg("%u KiB, then %u KiB", (unsigned)(before >> 10), (unsigned)(after >> 10));
    host_stop(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_release_sees_its_versions),
        cmocka_unit_test(test_late_require_resolves_for_the_call),
        cmocka_unit_test(test_loading_for_a_call_is_its_own_time),
        cmocka_unit_test(test_what_fails_for_one_release),
        cmocka_unit_test(test_function_that_a_version_lacks),
        cmocka_unit_test(test_traceback_of_a_call_that_loads),
        cmocka_unit_test(test_call_that_runs_while_its_unit_goes),
        cmocka_unit_test(test_units_come_and_go_without_a_trace),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
