/* `mpreg.native` from Lua, against a server in a thread that does what the function's name says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>

#include "spec/support/fake_node.h"
#include "src/binding/client.h"

static struct fake_node server;

static int set_up_server(void **state)
{
    (void)state;
    return fake_node_start(&server);
}

static int tear_down_server(void **state)
{
    (void)state;
    fake_node_stop(&server);
    return 0;
}

/* Runs Lua with `native`, and `node` to connect to; what raises fails the test. */
static void run_lua(const char *code)
{
    lua_State *L = luaL_newstate();
    luaL_openlibs(L);
    lua_pushcfunction(L, mp_client_open);
    lua_call(L, 0, 1);
    lua_setglobal(L, "native");
    lua_pushstring(L, server.addr);
    lua_setglobal(L, "node");
    if (luaL_dostring(L, code) != 0) {
        char text[1024];
        snprintf(text, sizeof(text), "%s", lua_tostring(L, -1));
        lua_close(L);
        fail_msg("%s", text);
    }
    lua_close(L);
}

static void calls_give_results_and_errors(void **state)
{
    (void)state;
    run_lua("local c = assert(native.connect{nodes = {'127.0.0.1:1', node}})\n"
            "assert(c:node() == node)\n"
            "for i = 1, 100 do assert(c:call('test.echo', '\\145\\5') == '\\145\\5') end\n"
            "local big = ('x'):rep(3000000)\n"
            "assert(c:call('test.echo', big) == big)\n"
            "local ok, err = c:call('test.fail', '\\144')\n"
            "assert(ok == nil and err:find('NOT_FOUND') and err:find('so it is'))\n"
            "local q = c:query('functions')\n"
            "assert(q == '\\145\\169functions')\n"
            "q = c:query('links', nil, {options = '\\129\\162on\\162n2', timeout_ms = 5000})\n"
            "assert(q == '\\146\\165links\\129\\162on\\162n2')\n"
            "assert(not pcall(c.query, c, 'links', nil, {on = 'n2'}))\n"
            "c:close() c:close()\n"
            "assert(not pcall(c.call, c, 'test.echo', ''))\n");
}

static void a_query_that_takes_long_says_so_each_second(void **state)
{
    (void)state;
    run_lua(
        "local c = assert(native.connect{nodes = {node}})\n"
        "local ticks = 0\n"
        "local function tick() ticks = ticks + 1 end\n"
        "assert(c:query('links', 'payload', {}, tick) and ticks == 0)\n"
        "assert(c:query('query.slow', nil, nil, tick) and ticks == 1)\n"
        "local ok, err = pcall(c.query, c, 'query.slow', nil, nil, function() error('no') end)\n"
        "assert(not ok and err:find('no'))\n"
        "assert(not pcall(c.query, c, 'links', nil, nil, 5))\n"
        "assert(c:call('test.echo', '\\145\\5') == '\\145\\5' and ticks == 1)\n");
}

static void a_query_gives_events(void **state)
{
    (void)state;
    run_lua(
        "local c = assert(native.connect{nodes = {node}})\n"
        "local seen = {}\n"
        "local function on_event(e) seen[#seen + 1] = e end\n"
        "assert(c:query('watch', nil, nil, nil, on_event) == '\\145\\165watch')\n"
        "assert(#seen == 3 and seen[3] == '\\129\\161n\\1')\n"
        "assert(c:query('watch', nil, {timeout_ms = 5000}) == '\\145\\165watch')\n"
        "local ok, err = pcall(c.query, c, 'watch', nil, nil, nil, function() error('no') end)\n"
        "assert(not ok and err:find('no'))\n"
        "ok, err = pcall(c.query, c, 'watch', nil, nil, on_event, on_event)\n"
        "assert(not ok and err:find('ticks'))\n"
        "assert(not pcall(c.query, c, 'watch', nil, nil, nil, 5))\n"
        "local none\n"
        "none, err = c:query('query.hang', nil, nil, nil, on_event)\n"
        "assert(none == nil and err:find('INTERRUPTED') and #seen == 3)\n");
}

static void many_queries_are_asked_at_once(void **state)
{
    (void)state;
    run_lua("local c = assert(native.connect{nodes = {node}})\n"
            "assert(#c:queries('links', {}) == 0)\n"
            "local list = c:queries('links', {'', '\\129\\162on\\162n2'}, {timeout_ms = 5000})\n"
            "assert(#list == 4 and list[1] == false and list[3] == false)\n"
            "assert(list[2] == '\\145\\165links')\n"
            "assert(list[4] == '\\146\\165links\\129\\162on\\162n2')\n"
            "local many = {}\n"
            "for i = 1, 256 do many[i] = '\\129\\162on\\205' .. string.char(i / 256, i % 256) end\n"
            "list = c:queries('links', many)\n"
            "for i = 1, 256 do assert(list[2 * i] == '\\146\\165links' .. many[i]) end\n"
            "many[257] = ''\n"
            "assert(not pcall(c.queries, c, 'links', many))\n"
            "assert(not pcall(c.queries, c, 'links', {1}))\n"
            "assert(c:call('test.echo', '\\145\\5') == '\\145\\5')\n");
}

static void queries_fail_one_by_one_or_are_interrupted_together(void **state)
{
    (void)state;
    run_lua("local c = assert(native.connect{nodes = {node}})\n"
            "local list = c:queries('query.fail', {'', ''})\n"
            "assert(list[1] and list[3] and list[4]:find('NOT_FOUND'))\n"
            "local none, err = c:queries('query.hang', {'', ''})\n"
            "assert(none == nil and err:find('INTERRUPTED'))\n"
            "assert(c:call('test.echo', '\\145\\5') == '\\145\\5')\n"
            "list = c:queries('query.close', {'', ''})\n"
            "assert(list[1] and list[3] and list[4]:find('CONNECTION_LOST'))\n"
            "c:close()\n");
}

static void options_travel(void **state)
{
    (void)state;
    run_lua(
        "local c = assert(native.connect{nodes = {node}})\n"
        "local o = c:call('test.options', '\\144', {timeout_ms = 5000, retries = 3, wait = true,"
        "  on = 'n1', version = '^1', cluster = 'c', needs = {'gpu', 'ds'}})\n"
        "for _, part in ipairs{'retries\\3', 'wait\\195', 'on\\162n1', 'gpu', 'ds', '^1'} do\n"
        "  assert(o:find(part, 1, true), part) end\n"
        "local ok, err = pcall(c.call, c, 'test.echo', '', {retires = 1})\n"
        "assert(not ok and err:find(\"unknown option 'retires'\"))\n"
        "ok, err = pcall(c.call, c, 'test.echo', '', {timeout_ms = 'x'})\n"
        "assert(not ok and err:find('timeout_ms: expected a number'))\n");
}

static void runs_give_events(void **state)
{
    (void)state;
    run_lua("local c = assert(native.connect{nodes = {node}})\n"
            "local seen = {}\n"
            "local run = c:run('\\128', {follow = true}, function(e) seen[#seen + 1] = e end)\n"
            "assert(run == '\\128' and #seen == 2 and seen[2] == '\\129\\161n\\2')\n"
            "assert(c:run('\\128', {trace = true}) == '\\128')\n"
            "local ok, err = pcall(c.run, c, '\\164hang', {follow = true},\n"
            "  function() error('from the event', 0) end)\n"
            "assert(not ok and err == 'from the event')\n"
            "ok, err = pcall(c.run, c, '\\128', {follow = true},\n"
            "  function() c:call('test.echo', '') end)\n"
            "assert(not ok and err:find('busy'))\n"
            "assert(c:call('test.echo', '\\144') == '\\144')\n");
}

static void evals_give_events_and_answers(void **state)
{
    (void)state;
    run_lua("local c = assert(native.connect{nodes = {node}})\n"
            "local seen = {}\n"
            "local r = c:eval('eval', '\\128', '1', {}, function(e) seen[#seen + 1] = e end)\n"
            "assert(r == '\\146\\164eval\\128' and #seen == 1 and seen[1] == '\\129\\161n\\1')\n"
            "assert(c:eval('eval', '\\129\\164name\\161x', '') == "
            "'\\146\\164eval\\129\\164name\\161x')\n"
            "local long = ('x'):rep(100000)\n"
            "assert(c:eval('complete', '\\128', long):sub(-100000) == long)\n"
            "local none, err = c:eval('eval', '\\128', 'fail')\n"
            "assert(none == nil and err:find('SYNTAX_ERROR'))\n"
            "local ok = pcall(c.eval, c, 'eval', '\\128', '1', {}, function() error('x', 0) end)\n"
            "assert(not ok and c:is_open())\n"
            "assert(not pcall(c.eval, c, 'eval', '\\128', '1', {timeout_ms = 'x'}))\n"
            "c:close()\n"
            "assert(not c:is_open())\n");
}

static void an_eval_ends_with_its_time(void **state)
{
    (void)state;
    run_lua("local c = assert(native.connect{nodes = {node}})\n"
            "local began = native.now()\n"
            "local none, err = c:eval('eval', '\\128', 'silent', {timeout_ms = 50})\n"
            "assert(none == nil and err:find('DEADLINE_EXCEEDED') and err:find('50 ms'))\n"
            "assert(native.now() - began >= 0.05)\n"
            "assert(c:eval('eval', '\\128', '1'))\n");
}

static void an_interrupt_cancels_an_eval(void **state)
{
    (void)state;
    run_lua("local c = assert(native.connect{nodes = {node}})\n"
            "local none, err, result, other = c:eval('eval', '\\128', 'hang')\n"
            "assert(none == nil and result == nil and err:find('INTERRUPTED'))\n"
            "assert(other:find('CANCELLED'))\n"
            "none, err, result, other = c:eval('eval', '\\128', 'deaf')\n"
            "assert(none == nil and err:find('INTERRUPTED') and result == nil and other == nil)\n"
            "assert(c:eval('eval', '\\128', '1'))\n");
}

static void a_connection_that_broke_is_not_open(void **state)
{
    (void)state;
    run_lua("local c = assert(native.connect{nodes = {node}})\n"
            "assert(c:is_open())\n"
            "local none, err = c:query('query.close')\n"
            "assert(none == nil and err:find('CONNECTION_LOST') and not c:is_open())\n"
            "assert(select(2, c:is_open()):find('CONNECTION_LOST'))\n");
}

static void an_interrupt_cancels_the_request(void **state)
{
    (void)state;
    run_lua("local c = assert(native.connect{nodes = {node}})\n"
            "for _ = 1, 3 do\n"
            "  local ok, err = c:call('test.hang', '\\144')\n"
            "  assert(ok == nil and err:find('CANCELLED') and err:find('INTERRUPTED'))\n"
            "end\n"
            "assert(c:call('test.echo', '\\144') == '\\144')\n");
}

static void a_second_interrupt_returns_at_once(void **state)
{
    (void)state;
    run_lua("local c = assert(native.connect{nodes = {node}})\n"
            "local began = native.now()\n"
            "local ok, err = c:call('test.deaf', '\\144')\n"
            "assert(ok == nil and err:find('INTERRUPTED'))\n"
            "assert(c:call('test.echo', '\\144') == '\\144')\n");
}

static void without_a_node_connect_says_why(void **state)
{
    (void)state;
    run_lua("local c, err = native.connect{nodes = {'127.0.0.1:1', 'x'}, timeout_ms = 5000}\n"
            "assert(c == nil and err.code == 'UNAVAILABLE' and err.reason == 'NO_NODE')\n"
            "assert(err.message:find('127.0.0.1:1 (connection refused)', 1, true), err.message)\n"
            "assert(err.hint:find('mpreg node', 1, true))\n"
            "assert(not pcall(native.connect, {nodes = {}}))\n"
            "assert(not pcall(native.connect, {}))\n");
}

static void a_lost_connection_is_told(void **state)
{
    (void)state;
    run_lua("local c = assert(native.connect{nodes = {node}})\n"
            "local ok, err = c:call('test.unheard', '\\144')\n"
            "assert(ok == nil and err:find('CONNECTION_LOST'))\n"
            "ok, err = c:call('test.echo', '\\144')\n"
            "assert(ok == nil and err:find('CONNECTION_LOST'))\n");
}

static void bench_gives_figures(void **state)
{
    (void)state;
    run_lua("local f = assert(native.bench{nodes = {node}, fun = 'test.third', args = '\\144',\n"
            "  outstanding = 8, connections = 2, seconds = 0.05})\n"
            "assert(f.calls > 0 and f.errors > 0 and not f.interrupted)\n"
            "assert(f.errors_by['UNAVAILABLE/THIRD'] == f.errors)\n"
            "assert(f.p50_us > 0 and f.p50_us <= f.p99_us and f.p99_us <= f.max_us)\n"
            "assert(math.abs(f.calls_per_s * f.seconds - f.calls) < 1)\n"
            "local none, err = native.bench{nodes = {node}, fun = 'test.fail', args = '\\144'}\n"
            "assert(none == nil and err:find('NOT_FOUND'))\n"
            "none, err = native.bench{nodes = {'127.0.0.1:1'}, fun = 'test.echo', args = '\\144'}\n"
            "assert(none == nil and err:find('NO_NODE') and err:find('mpreg node', 1, true))\n"
            "f = native.bench{nodes = {node}, graph = '\\129\\166status\\169succeeded',\n"
            "  seconds = 0.02}\n"
            "assert(f.calls > 0 and f.errors == 0)\n"
            "assert(not pcall(native.bench, {nodes = {node}, fun = 'test.echo', args = '',\n"
            "  outstanding = 1, connections = 2}))\n");
}

static void the_system_answers_small_questions(void **state)
{
    (void)state;
    run_lua("local dir = native.realpath('.')\n"
            "assert(dir == native.cwd())\n"
            "local name = os.tmpname()\n"
            "assert(native.stat(name).type == 'file' and native.stat(name).size == 0)\n"
            "assert(native.stat('/').type == 'folder')\n"
            "local found, last\n"
            "for _, entry in ipairs(native.list('/tmp')) do\n"
            "  assert(not last or last < entry.name) last = entry.name\n"
            "  if '/tmp/' .. entry.name == name then found = entry.type end\n"
            "end\n"
            "os.remove(name)\n"
            "assert(found == 'file')\n"
            "local none, why = native.stat(name)\n"
            "assert(none == nil and why:find('No such file'))\n"
            "none, why = native.list(name)\n"
            "assert(none == nil and why:find('No such file'))\n"
            "assert(native.now() <= native.now())\n"
            "assert(type(native.isatty(0)) == 'boolean')\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(calls_give_results_and_errors),
        cmocka_unit_test(a_query_that_takes_long_says_so_each_second),
        cmocka_unit_test(a_query_gives_events),
        cmocka_unit_test(many_queries_are_asked_at_once),
        cmocka_unit_test(queries_fail_one_by_one_or_are_interrupted_together),
        cmocka_unit_test(options_travel),
        cmocka_unit_test(runs_give_events),
        cmocka_unit_test(evals_give_events_and_answers),
        cmocka_unit_test(an_eval_ends_with_its_time),
        cmocka_unit_test(an_interrupt_cancels_an_eval),
        cmocka_unit_test(a_connection_that_broke_is_not_open),
        cmocka_unit_test(an_interrupt_cancels_the_request),
        cmocka_unit_test(a_second_interrupt_returns_at_once),
        cmocka_unit_test(without_a_node_connect_says_why),
        cmocka_unit_test(a_lost_connection_is_told),
        cmocka_unit_test(bench_gives_figures),
        cmocka_unit_test(the_system_answers_small_questions),
    };
    return cmocka_run_group_tests(tests, set_up_server, tear_down_server);
}
