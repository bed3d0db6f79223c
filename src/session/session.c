/* Reads one EVAL after the other, has lua/mpreg/session evaluate it, and writes what comes of it.
 * Lua drives: this is the library that it requires as "mpreg.session.native":
 *
 *   read() → id, what, options, text   waits for the next EVAL; nothing: the host is gone
 *   send(type, id, bytes)              "event", "result" or "error"
 *   run(f, on_error) → ok, …           as xpcall, and an interrupt stops what runs
 *   is_interrupted() → boolean         whether one came in the last run()
 *   node() → name, cluster, addr
 *   value_bytes_max
 *
 * An interrupt is SIGUSR1, which the host repeats. Its handler sets a hook, which the interpreter
 * runs before its next instruction (nothing is compiled here), and which raises an error before
 * each instruction until run() ends: who catches it is stopped again. A request to the cluster
 * waits in libuv, which stops for SIGINT as it does on the command line: the handler passes the
 * signal on while that is so. */
#include "src/session/session.h"

#include <errno.h>
#include <fcntl.h>
#include <lauxlib.h>
#include <luajit.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "src/base/limits.h"
#include "src/binding/client.h"
#include "src/binding/libc_alloc.h"
#include "src/binding/state.h"
#include "src/binding/value.h"
#include "src/wire/frame.h"
#include "src/wire/msgpack.h"
#include "src/worker/confine.h"

#define FD 3

enum argument {
    ARG_PROGRAM,
    ARG_HOST,
    ARG_ADDR,
    ARG_NAME,
    ARG_CLUSTER,
    ARG_LUA_DIR,
    ARG_MEMORY,
    ARG_VALUE,
    ARG_COUNT
};

/* One for the process: a signal's handler has no other way to it. */
static struct mp_state state;
static char **arguments;
static struct mp_buf in;
static volatile sig_atomic_t is_armed;
static volatile sig_atomic_t is_interrupted;

static MP_NORETURN void die(const char *why)
{
    fprintf(stderr, "mpreg session %d: %s\n", (int)getpid(), why);
    _exit(1);
}

/* --- interrupts --- */

static void on_hook(lua_State *L, lua_Debug *ar)
{
    (void)ar;
    if (!is_armed) {
        lua_sethook(L, NULL, 0, 0);
        return;
    }
    lua_sethook(L, on_hook, LUA_MASKCOUNT, 1);
    lua_pushliteral(L, "interrupted");
    lua_error(L);
}

static void on_signal(int number)
{
    struct sigaction now;
    int saved = errno;
    (void)number;
    if (is_armed) {
        is_interrupted = 1;
        lua_sethook(state.L, on_hook, LUA_MASKCALL | LUA_MASKRET | LUA_MASKCOUNT, 1);
        if (sigaction(SIGINT, NULL, &now) == 0 && now.sa_handler != SIG_DFL &&
            now.sa_handler != SIG_IGN)
            raise(SIGINT);
    }
    errno = saved;
}

static void disarm(lua_State *L)
{
    is_armed = 0;
    lua_sethook(L, NULL, 0, 0);
}

/* Nothing is to be interrupted any more: what handles the error must come to its end. */
static int on_error(lua_State *L)
{
    disarm(L);
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_insert(L, 1);
    lua_call(L, lua_gettop(L) - 1, 1);
    return 1;
}

static int session_run(lua_State *L)
{
    lua_settop(L, 2);
    lua_pushcclosure(L, on_error, 1);
    lua_insert(L, 1);
    is_interrupted = 0;
    is_armed = 1;
    int status = lua_pcall(L, 0, LUA_MULTRET, 1);
    disarm(L);
    lua_pushboolean(L, status == 0);
    lua_replace(L, 1);
    return lua_gettop(L);
}

static int session_is_interrupted(lua_State *L)
{
    lua_pushboolean(L, is_interrupted != 0);
    return 1;
}

/* --- frames --- */

/* False at the end. */
static bool fill(size_t size)
{
    while (in.size < size) {
        if (mp_buf_reserve(&in, size - in.size) != MP_OK)
            die("out of memory");
        ssize_t got = read(FD, in.data + in.size, size - in.size);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return false;
        in.size += (size_t)got;
    }
    return true;
}

/* The meta part's [what, options] onto the stack; false if it is none. */
static bool push_meta(lua_State *L, struct mp_slice meta)
{
    struct mp_mp_reader r;
    struct mp_slice item;
    struct mp_slice what;
    uint32_t count = 0;
    if (mp_mp_get_array(meta, &count, &r) != MP_OK || count == 0 || count > 2 ||
        mp_mp_take(&r, &item) != MP_OK || mp_mp_get_str(item, &what) != MP_OK)
        return false;
    lua_pushlstring(L, (const char *)what.data, what.size);
    if (count == 2 && mp_mp_take(&r, &item) == MP_OK && mp_mp_type_of(item) == MP_MP_MAP)
        return mp_value_decode(L, item, NULL) == MP_OK;
    lua_newtable(L);
    return count == 1;
}

static int session_read(lua_State *L)
{
    struct mp_frame_header f;
    struct mp_slice text;
    mp_buf_clear(&in);
    if (!fill(MP_FRAME_HEADER_BYTES))
        return 0;
    uint32_t size_max = MP_EVAL_BYTES_MAX + MP_FRAME_META_BYTES_MAX + 64;
    if (mp_frame_read_header(mp_buf_slice(&in), size_max, &f) != MP_OK || f.type != MP_FRAME_EVAL)
        die("the host sent a frame that is no EVAL");
    if (!fill(MP_FRAME_HEADER_BYTES + (size_t)f.size))
        return 0;
    const uint8_t *meta = in.data + MP_FRAME_HEADER_BYTES;
    char id[24];
    snprintf(id, sizeof(id), "%llu", (unsigned long long)f.id);
    lua_settop(L, 0);
    lua_pushstring(L, id);
    bool is_good =
        push_meta(L, mp_slice_of(meta, f.meta_size)) &&
        mp_mp_get_str(mp_slice_of(meta + f.meta_size, f.size - f.meta_size), &text) == MP_OK;
    if (!is_good) {
        lua_settop(L, 1);
        return 1;
    }
    lua_pushlstring(L, (const char *)text.data, text.size);
    return 4;
}

/* False: the host is gone. */
static bool send_all(struct mp_slice bytes)
{
    size_t sent = 0;
    while (sent < bytes.size) {
        ssize_t size = send(FD, bytes.data + sent, bytes.size - sent, MSG_NOSIGNAL);
        if (size < 0 && errno != EINTR)
            return false;
        sent += size > 0 ? (size_t)size : 0;
    }
    return true;
}

/* The first frame: an EVENT of nothing. From here on, signals are handled. */
static void tell_ready(void)
{
    uint8_t header[MP_FRAME_HEADER_BYTES];
    const struct mp_frame_header f = {.type = MP_FRAME_EVENT};
    mp_frame_write_header(header, &f);
    if (!send_all(mp_slice_of(header, sizeof(header))))
        _exit(0);
}

static int session_send(lua_State *L)
{
    static const char *const names[] = {"event", "result", "error", NULL};
    static const uint8_t types[] = {MP_FRAME_EVENT, MP_FRAME_RESULT, MP_FRAME_ERROR};
    uint8_t type = types[luaL_checkoption(L, 1, NULL, names)];
    uint64_t id = strtoull(luaL_checkstring(L, 2), NULL, 10);
    struct mp_slice payload;
    payload.data = (const uint8_t *)luaL_checklstring(L, 3, &payload.size);
    uint8_t header[MP_FRAME_HEADER_BYTES];
    const struct mp_frame_header f = {.size = (uint32_t)payload.size, .type = type, .id = id};
    mp_frame_write_header(header, &f);
    if (!send_all(mp_slice_of(header, sizeof(header))) || !send_all(payload))
        _exit(0); /* the host is gone */
    return 0;
}

static int session_node(lua_State *L)
{
    lua_pushstring(L, arguments[ARG_NAME]);
    lua_pushstring(L, arguments[ARG_CLUSTER]);
    lua_pushstring(L, arguments[ARG_ADDR]);
    return 3;
}

/* --- starting --- */

static const luaL_Reg functions[] = {
    {"read", session_read}, {"send", session_send},
    {"run", session_run},   {"is_interrupted", session_is_interrupted},
    {"node", session_node}, {NULL, NULL},
};

static int open_native(lua_State *L)
{
    lua_newtable(L);
    for (const luaL_Reg *f = functions; f->name; f++) {
        lua_pushcfunction(L, f->func);
        lua_setfield(L, -2, f->name);
    }
    lua_pushnumber(L, (lua_Number)strtoull(arguments[ARG_VALUE], NULL, 10));
    lua_setfield(L, -2, "value_bytes_max");
    return 1;
}

static int run(lua_State *L)
{
    lua_getglobal(L, "package");
    lua_getfield(L, -1, "preload");
    lua_pushcfunction(L, open_native);
    lua_setfield(L, -2, "mpreg.session.native");
    lua_pushcfunction(L, mp_client_open);
    lua_setfield(L, -2, "mpreg.native");
    lua_pushfstring(L, "%s/?.lua;%s/?/init.lua", arguments[ARG_LUA_DIR], arguments[ARG_LUA_DIR]);
    mp_state_set_path(L, lua_tostring(L, -1), NULL);
    lua_settop(L, 0);
    luaJIT_setmode(L, 0, LUAJIT_MODE_ENGINE | LUAJIT_MODE_OFF);
    lua_getglobal(L, "require");
    lua_pushliteral(L, "mpreg.session");
    lua_call(L, 1, 1);
    tell_ready();
    lua_call(L, 0, 0);
    return 0;
}

int mp_session_main(int argc, char **argv)
{
    const char *why = "a session is started by its host";
    if (argc != ARG_COUNT || !mp_confine(argv[ARG_HOST], &why))
        die(why);
    arguments = argv;
    size_t memory = (size_t)strtoull(argv[ARG_MEMORY], NULL, 10);
    mp_buf_init(&in, &mp_libc_alloc, 0);
    if (fcntl(FD, F_SETFD, FD_CLOEXEC) != 0)
        die("its socket is not there");
    if (!mp_confine_memory(memory))
        die("the memory limit cannot be set");
    if (mp_state_open(&state, memory) != MP_OK)
        die("out of memory");
    const struct sigaction action = {.sa_handler = on_signal}; /* no SA_RESTART: reads end */
    sigaction(SIGUSR1, &action, NULL);
    if (lua_cpcall(state.L, run, NULL) != 0)
        die(lua_tostring(state.L, -1));
    mp_state_close(&state);
    mp_buf_fini(&in);
    return 0;
}
