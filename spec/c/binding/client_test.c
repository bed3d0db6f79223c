/* `mpreg.native` from Lua, against a server in a thread that does what the function's name says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "src/binding/client.h"
#include "src/wire/error.h"
#include "src/wire/frame.h"
#include "src/wire/msgpack.h"

#define ROOM_BYTES (4u << 20)

struct server {
    pthread_t thread;
    int listener;
    uint64_t hanging; /* id of a request that waits for its CANCEL */
    struct mp_alloc alloc;
};

static void *resize(void *context, void *p, size_t old_size, size_t new_size)
{
    (void)context;
    (void)old_size;
    if (new_size == 0) {
        free(p);
        return NULL;
    }
    return realloc(p, new_size);
}

static bool read_all(int fd, void *out, size_t size)
{
    for (size_t done = 0; done < size;) {
        ssize_t n = read(fd, (char *)out + done, size - done);
        if (n <= 0)
            return false;
        done += (size_t)n;
    }
    return true;
}

static void answer(struct server *s, int fd, uint8_t type, uint64_t id, struct mp_slice payload)
{
    struct mp_buf b;
    mp_buf_init(&b, &s->alloc, 0);
    if (mp_frame_put(&b, type, id, mp_slice_of(NULL, 0), payload) != MP_OK)
        abort();
    for (size_t done = 0; done < b.size;) {
        ssize_t n = send(fd, b.data + done, b.size - done, MSG_NOSIGNAL);
        if (n <= 0)
            break;
        done += (size_t)n;
    }
    mp_buf_fini(&b);
}

static void answer_error(struct server *s, int fd, uint64_t id, enum mp_code code)
{
    struct mp_buf b;
    const struct mp_fault f = {.code = code, .message = mp_slice_str("so it is")};
    mp_buf_init(&b, &s->alloc, 0);
    if (mp_fault_put(&b, &f) != MP_OK)
        abort();
    answer(s, fd, MP_FRAME_ERROR, id, mp_buf_slice(&b));
    mp_buf_fini(&b);
}

/* False if the connection is to be closed. */
static bool handle_call(struct server *s, int fd, uint64_t id, struct mp_slice meta,
                        struct mp_slice payload)
{
    struct mp_call_options o;
    const char *why = "";
    if (mp_call_options_read(meta, &o, &why) != MP_OK)
        return false;
    if (mp_slice_is(o.fun, "test.echo")) {
        answer(s, fd, MP_FRAME_RESULT, id, payload);
    } else if (mp_slice_is(o.fun, "test.fail")) {
        answer_error(s, fd, id, MP_CODE_NOT_FOUND);
    } else if (mp_slice_is(o.fun, "test.options")) {
        /* the third element of the meta array, or nil */
        struct mp_slice options = mp_slice_str("\xc0");
        (void)(mp_mp_array_get(meta, 2, &options) == MP_OK);
        answer(s, fd, MP_FRAME_RESULT, id, options);
    } else if (mp_slice_is(o.fun, "test.hang")) {
        s->hanging = id;
        kill(getpid(), SIGINT);
    } else if (mp_slice_is(o.fun, "test.deaf")) {
        kill(getpid(), SIGINT);
        usleep(1000);
        kill(getpid(), SIGINT);
    } else {
        return false;
    }
    return true;
}

static bool handle(struct server *s, int fd, const struct mp_frame_header *h, struct mp_slice meta,
                   struct mp_slice payload)
{
    if (h->type == MP_FRAME_CALL)
        return handle_call(s, fd, h->id, meta, payload);
    if (h->type == MP_FRAME_CANCEL && h->id == s->hanging) {
        answer_error(s, fd, h->id, MP_CODE_CANCELLED);
        return true;
    }
    if (h->type == MP_FRAME_QUERY) {
        answer(s, fd, MP_FRAME_RESULT, h->id, meta);
        return true;
    }
    if (h->type == MP_FRAME_RUN && mp_slice_is(payload, "\xa4hang")) {
        answer(s, fd, MP_FRAME_EVENT, h->id, mp_slice_str("\x81\xa1n\x01"));
        s->hanging = h->id;
        return true;
    }
    if (h->type != MP_FRAME_RUN)
        return true;
    answer(s, fd, MP_FRAME_EVENT, h->id, mp_slice_str("\x81\xa1n\x01"));
    answer(s, fd, MP_FRAME_EVENT, h->id, mp_slice_str("\x81\xa1n\x02"));
    answer(s, fd, MP_FRAME_RESULT, h->id, payload);
    return true;
}

static void serve(struct server *s, int fd)
{
    uint8_t preface[MP_PREFACE_BYTES];
    uint8_t *room = (uint8_t *)malloc(ROOM_BYTES);
    bool goes_on = read_all(fd, preface, sizeof(preface)) &&
                   write(fd, preface, sizeof(preface)) == sizeof(preface);
    while (goes_on) {
        uint8_t header[MP_FRAME_HEADER_BYTES];
        struct mp_frame_header h;
        goes_on =
            read_all(fd, header, sizeof(header)) &&
            mp_frame_read_header(mp_slice_of(header, sizeof(header)), ROOM_BYTES, &h) == MP_OK &&
            read_all(fd, room, h.size) &&
            handle(s, fd, &h, mp_slice_of(room, h.meta_size),
                   mp_slice_of(room + h.meta_size, h.size - h.meta_size));
    }
    free(room);
    close(fd);
}

static void *serve_all(void *context)
{
    struct server *s = (struct server *)context;
    int fd;
    while ((fd = accept(s->listener, NULL, NULL)) >= 0)
        serve(s, fd);
    return NULL;
}

static struct server server;
static char node[32];

static int set_up_server(void **state)
{
    (void)state;
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(a);
    server.alloc.resize = resize;
    server.listener = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(server.listener, (const struct sockaddr *)&a, sizeof(a)) != 0 ||
        listen(server.listener, 8) != 0 ||
        getsockname(server.listener, (struct sockaddr *)&a, &size) != 0)
        return 1;
    snprintf(node, sizeof(node), "127.0.0.1:%d", ntohs(a.sin_port));
    return pthread_create(&server.thread, NULL, serve_all, &server);
}

static int tear_down_server(void **state)
{
    (void)state;
    shutdown(server.listener, SHUT_RDWR);
    pthread_join(server.thread, NULL);
    close(server.listener);
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
    lua_pushstring(L, node);
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
            "c:close() c:close()\n"
            "assert(not pcall(c.call, c, 'test.echo', ''))\n");
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
        cmocka_unit_test(options_travel),
        cmocka_unit_test(runs_give_events),
        cmocka_unit_test(an_interrupt_cancels_the_request),
        cmocka_unit_test(a_second_interrupt_returns_at_once),
        cmocka_unit_test(without_a_node_connect_says_why),
        cmocka_unit_test(a_lost_connection_is_told),
        cmocka_unit_test(the_system_answers_small_questions),
    };
    return cmocka_run_group_tests(tests, set_up_server, tear_down_server);
}
