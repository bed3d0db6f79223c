/* Lua drives: `require "mpreg.runtime.check"` gives a function that is called with this library:
 *
 *   read() → unit, others        waits for a request; a unit is a list of {name, source}, and
 *                                `others` a list of units
 *   send(is_ok, value)           answers, once: the array of metadata, or an ERROR
 *   node() → name, cluster, address, and resource(name) → value, as functions have them
 *   deadline(seconds)            from now on: see below
 *   deadline(nil) → message      ends that; the error that was raised, or nil
 *
 * When the deadline has passed, an error "FILE:LINE: did not finish loading within 2 s" is raised
 * in whatever the caller of deadline() has called, again and again until all of that has returned:
 * a module that catches the error is stopped again. The first error leaves an error handler some
 * time to do its work. A timer's signal sets the hook that raises, as in a session: a count hook
 * from the start would be in the way of the memory limit's, which both set the only one there is.
 * The signal comes again and again, since that one may replace ours.
 *
 * Nothing is compiled here: code runs once, and compiled code would not heed the hook. A loop
 * inside C does not either: then the host ends the process.
 *
 * If Lua fails as a whole, the failure is answered from here.
 *
 * Starting all this takes some tens of milliseconds, more than most checks. So the process serves
 * one request after the other, and runs none of the modules itself: read() forks for each request,
 * and returns in the child alone. The child answers through a pipe, which takes the place of the
 * socket, and the parent passes the answer on and ends the child, whatever that still does. A child
 * that ends without an answer takes the parent along, with the same signal or status: what ended it
 * is for the host to tell. The next unit finds the process as the first one did. */
#include "src/check/check.h"

#include <errno.h>
#include <fcntl.h>
#include <lauxlib.h>
#include <luajit.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "src/base/limits.h"
#include "src/binding/libc_alloc.h"
#include "src/binding/state.h"
#include "src/binding/value.h"
#include "src/wire/error.h"
#include "src/wire/msgpack.h"
#include "src/worker/confine.h"

#define FD                 3
#define HEAD_BYTES         5 /* of an answer: size and status */
#define RELAY_BYTES        (64u << 10)
#define ALARM_AGAIN_US     10000
#define FIRST_INSTRUCTIONS 1000 /* between the first error and the second */
#define LATE_BYTES         512
#define GC_PAUSE           1000 /* percent: collect when ten times as much is there */

enum argument { ARG_PROGRAM, ARG_HOST, ARG_LUA_DIR, ARG_COUNT };

/* One for the process: a signal's handler has no other way to it. */
static struct mp_state state;
static const char *lua_dir;
static struct mp_buf in;
static struct mp_buf config; /* what workers are told of the node */
static bool is_answered;

static struct {
    volatile sig_atomic_t is_armed;
    double seconds;
    lua_State *L; /* the coroutine that asked for it, */
    int depth;    /* and the functions that are active in it while the asking one runs */
    bool is_late;
    char message[LATE_BYTES]; /* the first error */
} limit;

static MP_NORETURN void die(const char *why)
{
    fprintf(stderr, "mpreg check %d: %s\n", (int)getpid(), why);
    _exit(1);
}

/* --- the deadline --- */

static void on_hook(lua_State *L, lua_Debug *ar)
{
    lua_Debug level;
    if (!limit.is_armed) {
        lua_sethook(L, NULL, 0, 0);
        return;
    }
    /* Not in whoever set the deadline: only in what it has called. */
    if (L == limit.L && lua_getstack(L, limit.depth, &level) == 0)
        return;
    lua_sethook(L, on_hook, LUA_MASKCOUNT, limit.is_late ? 1 : FIRST_INSTRUCTIONS);
    lua_getinfo(L, "Sl", ar);
    luaL_where(L, ar->currentline > 0 ? 0 : 1);
    lua_pushfstring(L, "%sdid not finish loading within %f s", lua_tostring(L, -1), limit.seconds);
    if (!limit.is_late)
        snprintf(limit.message, sizeof(limit.message), "%s", lua_tostring(L, -1));
    limit.is_late = true;
    lua_error(L);
}

static void on_alarm(int number)
{
    int saved = errno;
    (void)number;
    if (limit.is_armed && lua_gethook(state.L) != on_hook)
        lua_sethook(state.L, on_hook, LUA_MASKCOUNT, 1);
    errno = saved;
}

static void set_timer(double seconds)
{
    const struct itimerval timer = {
        .it_value = {.tv_sec = (time_t)seconds,
                     .tv_usec = (suseconds_t)((seconds - (double)(time_t)seconds) * 1e6)},
        .it_interval = {.tv_usec = seconds > 0 ? ALARM_AGAIN_US : 0}};
    setitimer(ITIMER_REAL, &timer, NULL);
}

static int count_levels(lua_State *L)
{
    lua_Debug level;
    int count = 0;
    while (lua_getstack(L, count, &level) == 1)
        count++;
    return count;
}

static int check_deadline(lua_State *L)
{
    if (!lua_isnoneornil(L, 1)) {
        double seconds = luaL_checknumber(L, 1);
        luaL_argcheck(L, seconds > 0 && seconds < 3600, 1, "seconds");
        limit.seconds = seconds;
        limit.L = L;
        limit.depth = count_levels(L) - 1; /* without this one */
        limit.is_late = false;
        limit.is_armed = 1;
        set_timer(seconds);
        return 0;
    }
    limit.is_armed = 0;
    set_timer(0);
    if (lua_gethook(L) == on_hook)
        lua_sethook(L, NULL, 0, 0);
    if (!limit.is_late)
        return 0;
    lua_pushstring(L, limit.message);
    return 1;
}

/* --- a process for each request --- */

/* The host sees the end of this process as that of the child. */
static MP_NORETURN void end_as(pid_t child)
{
    int status = 0;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    if (WIFSIGNALED(status)) {
        signal(WTERMSIG(status), SIG_DFL);
        raise(WTERMSIG(status));
    }
    _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 1);
}

/* Of what comes from `fd`, up to `size` bytes; 0: nothing more comes. */
static size_t read_some(int fd, uint8_t *bytes, size_t size)
{
    ssize_t got;
    do {
        got = read(fd, bytes, size);
    } while (got < 0 && errno == EINTR);
    return got > 0 ? (size_t)got : 0;
}

static void write_all(struct mp_slice bytes)
{
    size_t sent = 0;
    while (sent < bytes.size) {
        ssize_t size = write(FD, bytes.data + sent, bytes.size - sent);
        if (size < 0 && errno != EINTR)
            _exit(0); /* who asked is gone */
        sent += size > 0 ? (size_t)size : 0;
    }
}

/* Passes the child's answer on as it comes, as long as it says that it is. */
static void relay(int fd, pid_t child)
{
    static uint8_t bytes[RELAY_BYTES];
    size_t size = 0;
    while (size < HEAD_BYTES) {
        size_t got = read_some(fd, bytes + size, HEAD_BYTES - size);
        if (got == 0)
            end_as(child);
        size += got;
    }
    write_all(mp_slice_of(bytes, size));
    size_t left =
        bytes[0] | (size_t)bytes[1] << 8 | (size_t)bytes[2] << 16 | (size_t)bytes[3] << 24;
    while (left != 0) {
        size = read_some(fd, bytes, left < sizeof(bytes) ? left : sizeof(bytes));
        if (size == 0)
            end_as(child);
        write_all(mp_slice_of(bytes, size));
        left -= size;
    }
}

/* Starts a child for the request, and is true in there. In the parent it is false, when the child
 * is gone. */
static bool is_child_for_it(void)
{
    int fds[2];
    pid_t parent = getpid();
    if (pipe(fds) != 0)
        die("there is no pipe for a process of its own");
    pid_t child = fork();
    if (child < 0)
        die("a process of its own could not be started");
    if (child == 0) {
        if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != parent ||
            dup2(fds[1], FD) != FD || fcntl(FD, F_SETFD, FD_CLOEXEC) != 0)
            _exit(1);
        close(fds[0]);
        close(fds[1]);
        return true;
    }
    close(fds[1]);
    relay(fds[0], child);
    close(fds[0]);
    kill(child, SIGKILL);
    while (waitpid(child, NULL, 0) < 0 && errno == EINTR) {
    }
    return false;
}

/* --- request and answer --- */

static bool fill(size_t size)
{
    while (in.size < size) {
        if (mp_buf_reserve(&in, size - in.size) != MP_OK)
            die("out of memory");
        size_t got = read_some(FD, in.data + in.size, size - in.size);
        if (got == 0)
            return false;
        in.size += got;
    }
    return true;
}

/* A string of either kind as a Lua string. */
static void push_bytes(lua_State *L, struct mp_mp_reader *r)
{
    struct mp_mp_token t;
    if (mp_mp_next(r, &t) != MP_OK || (t.type != MP_MP_STR && t.type != MP_MP_BIN))
        die("the host sent something else than a unit");
    lua_pushlstring(L, t.bytes.size != 0 ? (const char *)t.bytes.data : "", t.bytes.size);
}

static uint32_t read_array(struct mp_mp_reader *r)
{
    struct mp_mp_token t;
    if (mp_mp_next(r, &t) != MP_OK || t.type != MP_MP_ARRAY)
        die("the host sent something else than a unit");
    return t.count;
}

static void push_unit(lua_State *L, struct mp_mp_reader *r)
{
    uint32_t count = read_array(r);
    lua_createtable(L, (int)count, 0);
    for (uint32_t i = 0; i < count; i++) {
        if (read_array(r) != 2)
            die("the host sent something else than a unit");
        lua_createtable(L, 2, 0);
        for (int k = 1; k <= 2; k++) {
            push_bytes(L, r);
            lua_rawseti(L, -2, k);
        }
        lua_rawseti(L, -2, (int)i + 1);
    }
}

/* Takes a request into `in`; its size. */
static uint32_t take_request(void)
{
    if (!fill(4))
        _exit(0); /* the host needs it no more */
    const uint8_t *at = in.data;
    uint32_t size = at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
    if (!fill(4 + (size_t)size))
        _exit(0);
    return size;
}

static int check_read(lua_State *L)
{
    /* A collection in a child would touch, and so copy, all that it shares with this process. */
    lua_gc(L, LUA_GCSETPAUSE, GC_PAUSE);
    lua_gc(L, LUA_GCCOLLECT, 0);
    uint32_t size = take_request();
    while (!is_child_for_it()) {
        mp_buf_fini(&in);
        size = take_request();
    }
    struct mp_mp_reader r = mp_mp_reader_of(mp_slice_of(in.data + 4, size));
    if (read_array(&r) != 3)
        die("the host sent something else than a unit");
    lua_settop(L, 0);
    push_unit(L, &r);
    uint32_t count = read_array(&r);
    lua_createtable(L, (int)count, 0);
    for (uint32_t i = 0; i < count; i++) {
        push_unit(L, &r);
        lua_rawseti(L, -2, (int)i + 1);
    }
    if (mp_buf_append(&config, mp_slice_of(r.at, (size_t)(r.end - r.at))) != MP_OK)
        die("out of memory");
    mp_buf_fini(&in);
    return 2;
}

static int check_node(lua_State *L)
{
    static const char *const keys[] = {"node", "cluster", "addr"};
    for (unsigned i = 0; i < MP_ARRAY_SIZE(keys); i++) {
        struct mp_slice value;
        struct mp_slice text;
        if (mp_mp_map_get(mp_buf_slice(&config), mp_slice_str(keys[i]), &value) == MP_OK &&
            mp_mp_get_str(value, &text) == MP_OK)
            lua_pushlstring(L, (const char *)text.data, text.size);
        else
            lua_pushliteral(L, "");
    }
    return 3;
}

static int check_resource(lua_State *L)
{
    struct mp_slice name;
    struct mp_slice value;
    struct mp_value_error error;
    name.data = (const uint8_t *)luaL_checklstring(L, 1, &name.size);
    if (mp_mp_map_get(mp_buf_slice(&config), mp_slice_str("resources"), &value) != MP_OK ||
        mp_mp_map_get(value, name, &value) != MP_OK)
        return 0;
    if (mp_value_decode(L, value, &error) != MP_OK)
        return luaL_error(L, "%s", error.message);
    return 1;
}

static void answer(bool is_ok, struct mp_slice bytes)
{
    const uint8_t head[] = {(uint8_t)bytes.size, (uint8_t)(bytes.size >> 8),
                            (uint8_t)(bytes.size >> 16), (uint8_t)(bytes.size >> 24), !is_ok};
    const struct mp_slice parts[2] = {mp_slice_of(head, sizeof(head)), bytes};
    is_answered = true;
    for (unsigned i = 0; i < 2; i++)
        write_all(parts[i]);
}

static int check_send(lua_State *L)
{
    struct mp_value_error error;
    struct mp_buf out;
    luaL_argcheck(L, !is_answered, 1, "it was answered already");
    mp_buf_init(&out, &mp_libc_alloc, MP_CHECK_ANSWER_BYTES_MAX);
    enum mp_err err = mp_value_encode(L, 2, &out, NULL, &error);
    if (err == MP_OK)
        answer(lua_toboolean(L, 1), mp_buf_slice(&out));
    mp_buf_fini(&out);
    if (err == MP_ETOOLARGE)
        return luaL_error(L, "the description of the modules is larger than 33 MiB");
    if (err != MP_OK)
        return luaL_error(L, "the description of the modules cannot be sent: %s: %s", error.path,
                          error.message);
    return 0;
}

/* Lua failed outside of what it catches. */
static void answer_failure(const char *message)
{
    struct mp_buf out;
    const struct mp_fault fault = {
        .code = state.is_refused ? MP_CODE_RESOURCE_EXHAUSTED : MP_CODE_INTERNAL,
        .reason = mp_slice_str(state.is_refused ? "WORKER_MEMORY" : "LOAD_ERROR"),
        .message = mp_slice_str(state.is_refused ? "loading it takes more than 256 MiB of memory"
                                : message        ? message
                                                 : "the unit cannot be loaded")};
    mp_buf_init(&out, &mp_libc_alloc, 0);
    if (mp_fault_put(&out, &fault) != MP_OK)
        die("out of memory");
    answer(false, mp_buf_slice(&out));
    mp_buf_fini(&out);
}

/* --- starting --- */

static int run(lua_State *L)
{
    static const luaL_Reg functions[] = {{"read", check_read},         {"send", check_send},
                                         {"deadline", check_deadline}, {"node", check_node},
                                         {"resource", check_resource}, {NULL, NULL}};
    lua_pushfstring(L, "%s/?.lua;%s/?/init.lua", lua_dir, lua_dir);
    mp_state_set_path(L, lua_tostring(L, -1), NULL);
    lua_settop(L, 0);
    luaJIT_setmode(L, 0, LUAJIT_MODE_ENGINE | LUAJIT_MODE_OFF);
    lua_getglobal(L, "require");
    lua_pushliteral(L, "mpreg.runtime.check");
    lua_call(L, 1, 1);
    lua_newtable(L);
    for (const luaL_Reg *f = functions; f->name; f++) {
        lua_pushcfunction(L, f->func);
        lua_setfield(L, -2, f->name);
    }
    lua_call(L, 1, 0);
    return 0;
}

int mp_check_main(int argc, char **argv)
{
    const char *why = "a unit is tried by its host";
    if (argc != ARG_COUNT || !mp_confine(argv[ARG_HOST], &why))
        die(why);
    lua_dir = argv[ARG_LUA_DIR];
    mp_buf_init(&in, &mp_libc_alloc, 0);
    mp_buf_init(&config, &mp_libc_alloc, 0);
    if (fcntl(FD, F_SETFD, FD_CLOEXEC) != 0)
        die("its socket is not there");
    if (!mp_confine_memory(MP_CHECK_BYTES_MAX))
        die("the memory limit cannot be set");
    if (mp_state_open(&state, MP_CHECK_BYTES_MAX) != MP_OK)
        die("out of memory");
    const struct sigaction action = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
    sigaction(SIGALRM, &action, NULL);
    int status = lua_cpcall(state.L, run, NULL);
    limit.is_armed = 0;
    if (!is_answered)
        answer_failure(status != 0 ? lua_tostring(state.L, -1) : NULL);
    /* Whatever the modules left in the state (finalizers, say) does not run any more. */
    _exit(0);
}
