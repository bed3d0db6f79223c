/* See jobs.h. Callbacks run inside uv_run, out of which no Lua error may leave: they put events on
 * a list, and `wait` makes tables of them afterwards. */
#include "src/binding/jobs.h"

#include <errno.h>
#include <lauxlib.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>
#include <uv.h>

#include "src/base/assert.h"

#define JOBS_TYPE   "mpreg.native.jobs"
#define SIGNALS     3
#define WORDS_MAX   256
#define CHUNK_BYTES 4096
#define WAIT_MS_MAX 1e9
#define FOLDER_EVENTS                                                                              \
    (IN_CLOSE_WRITE | IN_MOVED_TO | IN_CREATE | IN_MOVED_FROM | IN_DELETE | IN_DELETE_SELF |       \
     IN_MOVE_SELF | IN_ONLYDIR)

static const int signal_numbers[SIGNALS] = {SIGINT, SIGTERM, SIGHUP};

enum event_kind { SIGNALLED, SAVED, MADE, GONE, LOST, OUTPUT, ENDED };

struct event {
    struct event *next;
    enum event_kind kind;
    int number; /* a signal, a watch (0: any), a pid */
    int code;
    int signal;
    bool is_error;
    size_t size;
    char text[];
};

struct child {
    struct child *next;
    struct jobs *jobs;
    uv_process_t process;
    uv_pipe_t streams[2]; /* stdout, stderr */
    int pid;
    int open; /* handles that are not closed */
    int code;
    int signal;
};

struct jobs {
    uv_loop_t loop;
    uv_signal_t signals[SIGNALS];
    uv_poll_t poll; /* of inotify */
    uv_timer_t timer;
    int inotify;
    bool is_open;
    bool is_late;
    struct child *children;
    struct event *first;
    struct event **last; /* where the next one goes */
    char chunk[CHUNK_BYTES];
};

/* --- events --- */

static void *allocate(size_t size)
{
    void *p = calloc(1, size);
    if (p == NULL)
        abort(); /* the command line has nothing to lose */
    return p;
}

static struct event *add(struct jobs *j, enum event_kind kind, int number, const char *text,
                         size_t size)
{
    struct event *e = (struct event *)allocate(sizeof(*e) + size);
    e->kind = kind;
    e->number = number;
    e->size = size;
    if (size != 0)
        memcpy(e->text, text, size);
    *j->last = e;
    j->last = &e->next;
    return e;
}

static struct event *take(struct jobs *j)
{
    struct event *e = j->first;
    if (e == NULL)
        return NULL;
    j->first = e->next;
    if (j->first == NULL)
        j->last = &j->first;
    return e;
}

static void on_signal(uv_signal_t *handle, int number)
{
    add((struct jobs *)handle->data, SIGNALLED, number, NULL, 0);
}

/* --- folders --- */

static void add_change(struct jobs *j, const struct inotify_event *e)
{
    size_t size = e->len == 0 ? 0 : strlen(e->name);
    if (e->mask & IN_Q_OVERFLOW)
        add(j, LOST, 0, NULL, 0);
    else if (e->mask & (IN_DELETE_SELF | IN_MOVE_SELF)) {
        /* One that was moved would go on telling of a folder elsewhere. */
        add(j, LOST, e->wd, NULL, 0);
        inotify_rm_watch(j->inotify, e->wd);
    } else if (e->mask & (IN_DELETE | IN_MOVED_FROM))
        add(j, GONE, e->wd, e->name, size);
    else if ((e->mask & (IN_CLOSE_WRITE | IN_MOVED_TO)) && !(e->mask & IN_ISDIR))
        add(j, SAVED, e->wd, e->name, size);
    else if (e->mask & (IN_CREATE | IN_MOVED_TO))
        add(j, MADE, e->wd, e->name, size);
}

static void on_inotify(uv_poll_t *handle, int status, int events)
{
    struct jobs *j = (struct jobs *)handle->data;
    (void)status;
    (void)events;
    union {
        struct inotify_event aligned;
        char bytes[CHUNK_BYTES];
    } b;
    ssize_t size;
    while ((size = read(j->inotify, b.bytes, sizeof(b.bytes))) > 0) {
        for (ssize_t at = 0; at < size;) {
            const struct inotify_event *e = (const struct inotify_event *)(b.bytes + at);
            add_change(j, e);
            at += (ssize_t)(sizeof(*e) + e->len);
        }
    }
}

/* --- children --- */

static void on_child_closed(uv_handle_t *handle)
{
    struct child *c = (struct child *)handle->data;
    struct jobs *j = c->jobs;
    if (--c->open != 0)
        return;
    if (j->is_open && c->pid != 0) {
        struct event *e = add(j, ENDED, c->pid, NULL, 0);
        e->code = c->code;
        e->signal = c->signal;
    }
    struct child **at = &j->children;
    while (*at != c)
        at = &(*at)->next;
    *at = c->next;
    free(c);
}

static void on_exit_of_child(uv_process_t *process, int64_t status, int signal_number)
{
    struct child *c = (struct child *)process->data;
    c->code = (int)status;
    c->signal = signal_number;
    uv_close((uv_handle_t *)process, on_child_closed);
}

static void on_room(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    struct jobs *j = ((struct child *)handle->data)->jobs;
    (void)suggested;
    *buf = uv_buf_init(j->chunk, sizeof(j->chunk));
}

static void on_output(uv_stream_t *stream, ssize_t size, const uv_buf_t *buf)
{
    struct child *c = (struct child *)stream->data;
    if (size > 0) {
        struct event *e = add(c->jobs, OUTPUT, c->pid, buf->base, (size_t)size);
        e->is_error = (uv_pipe_t *)stream == &c->streams[1];
    } else if (size < 0) {
        uv_close((uv_handle_t *)stream, on_child_closed);
    }
}

/* A child whose program could not be started is gone with its pipes. */
static int spawn(struct jobs *j, char **words, int *pid)
{
    struct child *c = (struct child *)allocate(sizeof(*c));
    c->jobs = j;
    c->next = j->children;
    j->children = c;
    uv_stdio_container_t stdio[3] = {{.flags = UV_IGNORE}};
    for (int i = 0; i < 2; i++) {
        uv_pipe_init(&j->loop, &c->streams[i], 0);
        c->streams[i].data = c;
        stdio[i + 1].flags = UV_CREATE_PIPE | UV_WRITABLE_PIPE;
        stdio[i + 1].data.stream = (uv_stream_t *)&c->streams[i];
    }
    uv_process_options_t options = {.file = words[0],
                                    .args = words,
                                    .exit_cb = on_exit_of_child,
                                    .flags = UV_PROCESS_DETACHED,
                                    .stdio = stdio,
                                    .stdio_count = 3};
    int err = uv_spawn(&j->loop, &c->process, &options);
    c->process.data = c;
    c->open = 3;
    if (err != 0) {
        uv_close((uv_handle_t *)&c->process, on_child_closed);
        for (int i = 0; i < 2; i++)
            uv_close((uv_handle_t *)&c->streams[i], on_child_closed);
        return err;
    }
    c->pid = c->process.pid;
    *pid = c->pid;
    for (int i = 0; i < 2; i++)
        uv_read_start((uv_stream_t *)&c->streams[i], on_room, on_output);
    return 0;
}

/* --- the Lua side --- */

static struct jobs *check_jobs(lua_State *L)
{
    struct jobs *j = (struct jobs *)luaL_checkudata(L, 1, JOBS_TYPE);
    if (!j->is_open)
        luaL_error(L, "the jobs are closed");
    return j;
}

static int return_uv_error(lua_State *L, int err)
{
    lua_pushnil(L);
    lua_pushstring(L, uv_strerror(err));
    return 2;
}

static int jobs_watch(lua_State *L)
{
    struct jobs *j = check_jobs(L);
    int number = inotify_add_watch(j->inotify, luaL_checkstring(L, 2), FOLDER_EVENTS);
    if (number < 0) {
        lua_pushnil(L);
        lua_pushstring(L, errno == ENOSPC
                              ? "more folders than a user may watch (fs.inotify.max_user_watches)"
                              : strerror(errno));
        return 2;
    }
    lua_pushinteger(L, number);
    return 1;
}

static int jobs_start(lua_State *L)
{
    char *words[WORDS_MAX + 1];
    struct jobs *j = check_jobs(L);
    luaL_checktype(L, 2, LUA_TTABLE);
    size_t count = lua_objlen(L, 2);
    if (count == 0 || count > WORDS_MAX)
        return luaL_error(L, "expected 1 to %d words", WORDS_MAX);
    luaL_checkstack(L, (int)count + 4, "too many words");
    for (size_t i = 0; i < count; i++) {
        lua_rawgeti(L, 2, (int)i + 1);
        if (lua_type(L, -1) != LUA_TSTRING)
            return luaL_error(L, "expected a list of strings");
        /* They stay on the stack; libuv does not write to them. */
        memcpy(&words[i], &(const char *){lua_tostring(L, -1)}, sizeof(words[i]));
    }
    words[count] = NULL;
    int pid = 0;
    int err = spawn(j, words, &pid);
    if (err != 0)
        return return_uv_error(L, err);
    lua_pushinteger(L, pid);
    return 1;
}

/* Only to children of ours that have not been waited for: their numbers are nobody else's. */
static int jobs_signal(lua_State *L)
{
    struct jobs *j = check_jobs(L);
    int pid = (int)luaL_checkinteger(L, 2);
    int number = (int)luaL_checkinteger(L, 3);
    for (struct child *c = j->children; c != NULL; c = c->next)
        if (c->pid == pid && !uv_is_closing((uv_handle_t *)&c->process))
            uv_process_kill(&c->process, number);
    return 0;
}

static void set_integer(lua_State *L, const char *key, int number)
{
    lua_pushinteger(L, number);
    lua_setfield(L, -2, key);
}

/* The first event, which goes once its table is made. */
static int push_event(lua_State *L, struct jobs *j)
{
    static const char *const kinds[] = {"signal", "saved",  "made", "gone",
                                        "lost",   "output", "ended"};
    const struct event *e = j->first;
    lua_createtable(L, 0, 4);
    lua_pushstring(L, kinds[e->kind]);
    lua_setfield(L, -2, "kind");
    if (e->kind == SIGNALLED) {
        set_integer(L, "number", e->number);
    } else if (e->kind == OUTPUT || e->kind == ENDED) {
        set_integer(L, "pid", e->number);
    } else if (e->number != 0) {
        set_integer(L, "watch", e->number);
    }
    if (e->kind == ENDED) {
        set_integer(L, "code", e->code);
        set_integer(L, "signal", e->signal);
    } else if (e->kind == OUTPUT) {
        lua_pushboolean(L, e->is_error);
        lua_setfield(L, -2, "is_error");
    }
    if (e->kind != SIGNALLED && e->kind != LOST && e->kind != ENDED) {
        lua_pushlstring(L, e->text, e->size);
        lua_setfield(L, -2, e->kind == OUTPUT ? "text" : "name");
    }
    free(take(j));
    return 1;
}

/* Timers come first in a turn of the loop: without the stop it would then wait for something else.
 */
static void on_late(uv_timer_t *timer)
{
    ((struct jobs *)timer->data)->is_late = true;
    uv_stop(timer->loop);
}

static int jobs_wait(lua_State *L)
{
    struct jobs *j = check_jobs(L);
    j->is_late = false;
    if (!lua_isnoneornil(L, 2)) {
        double ms = luaL_checknumber(L, 2);
        luaL_argcheck(L, ms >= 0 && ms <= WAIT_MS_MAX, 2, "out of range");
        uv_update_time(&j->loop);
        uv_timer_start(&j->timer, on_late, (uint64_t)ms, 0);
    }
    while (j->first == NULL && !j->is_late)
        uv_run(&j->loop, UV_RUN_ONCE);
    uv_timer_stop(&j->timer);
    return j->first == NULL ? 0 : push_event(L, j);
}

static void close_children(struct jobs *j)
{
    for (struct child *c = j->children; c != NULL; c = c->next) {
        uv_handle_t *handles[] = {(uv_handle_t *)&c->process, (uv_handle_t *)&c->streams[0],
                                  (uv_handle_t *)&c->streams[1]};
        for (int i = 0; i < 3; i++)
            if (!uv_is_closing(handles[i]))
                uv_close(handles[i], on_child_closed);
    }
}

static int jobs_close(lua_State *L)
{
    struct jobs *j = (struct jobs *)luaL_checkudata(L, 1, JOBS_TYPE);
    if (!j->is_open)
        return 0;
    j->is_open = false;
    close_children(j);
    for (int i = 0; i < SIGNALS; i++)
        uv_close((uv_handle_t *)&j->signals[i], NULL);
    uv_close((uv_handle_t *)&j->poll, NULL);
    uv_close((uv_handle_t *)&j->timer, NULL);
    uv_run(&j->loop, UV_RUN_DEFAULT);
    int status = uv_loop_close(&j->loop);
    mp_assert(status == 0);
    close(j->inotify);
    while (j->first != NULL)
        free(take(j));
    return 0;
}

static int native_jobs(lua_State *L)
{
    struct jobs *j = (struct jobs *)lua_newuserdata(L, sizeof(*j));
    memset(j, 0, sizeof(*j));
    j->last = &j->first;
    luaL_getmetatable(L, JOBS_TYPE);
    lua_setmetatable(L, -2);
    j->inotify = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    if (j->inotify < 0)
        return luaL_error(L, "files cannot be watched: %s", strerror(errno));
    if (uv_loop_init(&j->loop) != 0) {
        close(j->inotify);
        return luaL_error(L, "no event loop: too many open files?");
    }
    j->is_open = true;
    uv_timer_init(&j->loop, &j->timer);
    j->timer.data = j;
    uv_poll_init(&j->loop, &j->poll, j->inotify);
    j->poll.data = j;
    uv_poll_start(&j->poll, UV_READABLE, on_inotify);
    for (int i = 0; i < SIGNALS; i++) {
        int err = uv_signal_init(&j->loop, &j->signals[i]);
        mp_assert(err == 0); /* the loop has its pipe for them since it began */
        j->signals[i].data = j;
        uv_signal_start(&j->signals[i], on_signal, signal_numbers[i]);
    }
    return 1;
}

void mp_jobs_register(lua_State *L)
{
    static const luaL_Reg methods[] = {
        {"watch", jobs_watch}, {"start", jobs_start}, {"signal", jobs_signal},
        {"wait", jobs_wait},   {"close", jobs_close}, {"__gc", jobs_close},
        {NULL, NULL},
    };
    luaL_newmetatable(L, JOBS_TYPE);
    luaL_register(L, NULL, methods);
    lua_pushvalue(L, -1);
    lua_setfield(L, -2, "__index");
    lua_pop(L, 1);
    lua_pushcfunction(L, native_jobs);
    lua_setfield(L, -2, "jobs");
}
