/* See client.h. Each connection has a loop of its own, which runs only while a function here
 * blocks. Callbacks of the client come from inside uv_run, and no Lua error may leave through
 * libuv: so everything that touches Lua there runs under lua_cpcall, and an error waits on the
 * stack until the loop has returned. */
#include "src/binding/client.h"
#include "src/binding/client_internal.h"
#include "src/binding/jobs.h"
#include "src/binding/libc_alloc.h"

#include <lauxlib.h>
#include <signal.h>
#include <stdlib.h>
#include <uv.h>

#include "src/base/assert.h"
#include "src/binding/system.h"
#include "src/client/client.h"
#include "src/wire/error.h"
#include "src/wire/msgpack.h"
#include "src/wire/topic.h"

#define CONN_TYPE    "mpreg.native.conn"
#define INTERRUPT_MS 1000 /* how long the end of an interrupted request is awaited */
#define EVAL_MS      5000 /* the same of an `eval`: a session may have to be ended first */
#define RUN_MS       6000 /* of a run: the node waits until its calls have really ended */
#define QUERIES_MAX  256  /* asked at once by one `queries` */

#define TOPIC_PROBLEM_BYTES 1024
#define TICK_MS             1000 /* how often somebody is told that a query is not answered yet */

struct conn {
    uv_loop_t loop;
    uv_signal_t sigint;
    uv_timer_t patience;
    uv_timer_t ticks;         /* while a query takes long */
    struct mp_client *client; /* NULL: closed */
    bool has_loop;
    bool is_busy;

    /* of connecting */
    bool is_ready;
    struct mp_buf error;

    /* of the request that blocks */
    lua_State *L;
    uint64_t id; /* 0: none */
    bool is_done;
    enum mp_client_answer answer;
    int payload; /* reference of the answer's string, or LUA_NOREF */
    int on_event;
    int on_batch;    /* of a subscription */
    bool has_enough; /* it said so */
    uint32_t interrupts;
    uint64_t interrupt_ms; /* how long the end of an interrupted request is awaited */
    bool has_failed;       /* an error of Lua's lies on the stack */

    /* of queries that block together: `id` is 0 */
    uint64_t ids[QUERIES_MAX]; /* 0: answered */
    uint32_t ids_count;
    uint32_t awaited;
    int answers; /* reference of the table of their answers */
};

/* --- errors --- */

static void set_text(lua_State *L, const char *key, struct mp_slice text)
{
    if (text.size == 0)
        return;
    lua_pushlstring(L, (const char *)text.data, text.size);
    lua_setfield(L, -2, key);
}

/* nil and the ERROR as a table. */
static int return_fault(lua_State *L, const struct mp_fault *f)
{
    lua_pushnil(L);
    lua_createtable(L, 0, 4);
    set_text(L, "code", mp_slice_str(mp_code_name(f->code)));
    set_text(L, "reason", f->reason);
    set_text(L, "message", f->message);
    set_text(L, "hint", f->hint);
    return 2;
}

/* nil and the ERROR as MessagePack. */
static int return_fault_bytes(lua_State *L, const struct mp_fault *f)
{
    struct mp_buf b;
    uint8_t room[512];
    mp_buf_init(&b, &mp_libc_alloc, 0);
    if (mp_fault_put(&b, f) != MP_OK || b.size > sizeof(room)) {
        mp_buf_fini(&b);
        return luaL_error(L, "not enough memory");
    }
    size_t size = b.size;
    memcpy(room, b.data, size);
    mp_buf_fini(&b);
    lua_pushnil(L);
    lua_pushlstring(L, (const char *)room, size);
    return 2;
}

static struct mp_fault interrupted(void)
{
    return (struct mp_fault){.code = MP_CODE_CANCELLED,
                             .reason = mp_slice_str("INTERRUPTED"),
                             .message = mp_slice_str("interrupted")};
}

/* A request that could not even be sent. */
static int return_refusal(lua_State *L, struct conn *c, enum mp_err err)
{
    struct mp_fault f = {.code = MP_CODE_INVALID_ARGUMENT};
    if (err == MP_ECLOSED && mp_client_error(c->client).size != 0) {
        struct mp_slice error = mp_client_error(c->client);
        lua_pushnil(L);
        lua_pushlstring(L, (const char *)error.data, error.size);
        return 2;
    }
    if (err == MP_ETOOLARGE) {
        f.reason = mp_slice_str("TOO_LARGE");
        f.message = mp_slice_str("the request is larger than the protocol can carry");
    } else if (err == MP_EFULL) {
        f.code = MP_CODE_RESOURCE_EXHAUSTED;
        f.reason = mp_slice_str("QUEUE_FULL");
        f.message = mp_slice_str("too many requests are in flight on this connection");
    } else {
        return luaL_error(L, "%s", mp_err_text(err));
    }
    return return_fault_bytes(L, &f);
}

/* --- running the loop --- */

static void done(struct conn *c)
{
    c->is_done = true;
    uv_stop(&c->loop);
}

static void on_patience(uv_timer_t *timer)
{
    done((struct conn *)timer->data);
}

static void on_sigint(uv_signal_t *signal, int number)
{
    (void)number;
    struct conn *c = (struct conn *)signal->data;
    c->interrupts++;
    if (c->id == 0 || c->interrupts > 1) {
        done(c);
        return;
    }
    mp_client_cancel(c->client, c->id);
    uv_timer_start(&c->patience, on_patience, c->interrupt_ms, 0);
}

static void block(struct conn *c)
{
    uv_signal_start(&c->sigint, on_sigint, SIGINT);
    while (!c->is_done)
        uv_run(&c->loop, UV_RUN_DEFAULT);
    uv_signal_stop(&c->sigint);
    uv_timer_stop(&c->patience);
    uv_timer_stop(&c->ticks);
}

static void on_closed(void *context)
{
    struct conn *c = (struct conn *)context;
    c->client = NULL;
}

/* Frees everything; idempotent. */
static void close_conn(struct conn *c)
{
    if (!c->has_loop)
        return;
    c->has_loop = false;
    if (c->client)
        mp_client_close(c->client, c, on_closed);
    uv_close((uv_handle_t *)&c->sigint, NULL);
    uv_close((uv_handle_t *)&c->patience, NULL);
    uv_close((uv_handle_t *)&c->ticks, NULL);
    uv_run(&c->loop, UV_RUN_DEFAULT);
    int status = uv_loop_close(&c->loop);
    mp_assert(status == 0);
    mp_assert(!c->client);
    mp_buf_fini(&c->error);
}

/* --- connecting --- */

static void on_ready(void *context, struct mp_slice error)
{
    struct conn *c = (struct conn *)context;
    c->is_ready = error.size == 0;
    mp_buf_clear(&c->error);
    if (mp_buf_append(&c->error, error) != MP_OK)
        mp_buf_clear(&c->error);
    done(c);
}

/* A field of the table at `index`: its number, or `otherwise` without one. */
double mp_native_number_field(lua_State *L, int index, const char *key, double otherwise)
{
    lua_getfield(L, index, key);
    double n = lua_isnil(L, -1) ? otherwise : lua_tonumber(L, -1);
    if (!lua_isnil(L, -1) && lua_type(L, -1) != LUA_TNUMBER)
        luaL_error(L, "%s: expected a number, got %s", key, luaL_typename(L, -1));
    lua_pop(L, 1);
    return n;
}

uint64_t mp_native_whole_field(lua_State *L, int index, const char *key, uint64_t largest)
{
    double n = mp_native_number_field(L, index, key, 0);
    if (!(n >= 0 && n <= (double)largest))
        luaL_error(L, "%s: expected a number from 0 to %f", key, (double)largest);
    return (uint64_t)n;
}

/* Reads the list `nodes` of the table at 1; its strings stay in that table. */
uint32_t mp_native_read_nodes(lua_State *L, const char **nodes)
{
    lua_getfield(L, 1, "nodes");
    luaL_checktype(L, -1, LUA_TTABLE);
    size_t count = lua_objlen(L, -1);
    if (count == 0 || count > MP_CLIENT_NODES_MAX)
        luaL_error(L, "nodes: expected a list of 1 to %d HOST:PORT", MP_CLIENT_NODES_MAX);
    for (size_t i = 0; i < count; i++) {
        lua_rawgeti(L, -1, (int)i + 1);
        if (lua_type(L, -1) != LUA_TSTRING || lua_objlen(L, -1) > MP_CLIENT_NODE_BYTES)
            luaL_error(L, "nodes: expected a list of HOST:PORT");
        nodes[i] = lua_tostring(L, -1);
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
    return (uint32_t)count;
}

/* A broken connection is reported by write(), not by a signal that ends the program. */
void mp_native_ignore_sigpipe(void)
{
    struct sigaction now;
    if (sigaction(SIGPIPE, NULL, &now) == 0 && now.sa_handler == SIG_DFL)
        signal(SIGPIPE, SIG_IGN);
}

static int native_connect(lua_State *L)
{
    const char *nodes[MP_CLIENT_NODES_MAX];
    luaL_checktype(L, 1, LUA_TTABLE);
    struct mp_client_config config = {
        .alloc = &mp_libc_alloc,
        .nodes = nodes,
        .nodes_count = mp_native_read_nodes(L, nodes),
        .timeout_ms = mp_native_whole_field(L, 1, "timeout_ms", MP_TIMEOUT_MS_MAX),
    };
    struct conn *c = (struct conn *)lua_newuserdata(L, sizeof(*c));
    memset(c, 0, sizeof(*c));
    luaL_getmetatable(L, CONN_TYPE);
    lua_setmetatable(L, -2);
    mp_native_ignore_sigpipe();
    mp_buf_init(&c->error, &mp_libc_alloc, 0);
    if (uv_loop_init(&c->loop) != 0)
        return luaL_error(L, "no event loop: too many open files?");
    c->has_loop = true;
    uv_timer_init(&c->loop, &c->patience);
    c->patience.data = c;
    uv_timer_init(&c->loop, &c->ticks);
    c->ticks.data = c;
    if (uv_signal_init(&c->loop, &c->sigint) != 0) {
        uv_close((uv_handle_t *)&c->patience, NULL);
        uv_close((uv_handle_t *)&c->ticks, NULL);
        uv_run(&c->loop, UV_RUN_DEFAULT);
        uv_loop_close(&c->loop);
        c->has_loop = false;
        return luaL_error(L, "no signal handler: too many open files?");
    }
    c->sigint.data = c;
    config.loop = &c->loop;
    config.context = c;
    enum mp_err err = mp_client_connect(&config, on_ready, &c->client);
    if (err != MP_OK)
        return luaL_error(L, "%s", mp_err_text(err));
    block(c);
    if (c->is_ready)
        return 1;
    struct mp_fault f = {.code = MP_CODE_UNAVAILABLE, .reason = mp_slice_str("NO_NODE")};
    if (c->interrupts != 0)
        f = interrupted();
    else if (mp_fault_read(mp_buf_slice(&c->error), &f) != MP_OK)
        f.message = mp_slice_str("no node answered");
    return_fault(L, &f);
    close_conn(c);
    return 2;
}

/* --- requests --- */

static struct conn *check_conn(lua_State *L)
{
    struct conn *c = (struct conn *)luaL_checkudata(L, 1, CONN_TYPE);
    if (!c->client)
        luaL_error(L, "the connection is closed");
    if (c->is_busy)
        luaL_error(L, "the connection is busy: one blocking request at a time");
    return c;
}

static struct mp_slice check_bytes(lua_State *L, int index)
{
    size_t size;
    const char *data = luaL_checklstring(L, index, &size);
    return mp_slice_of(data, size);
}

struct arrival {
    struct conn *c;
    struct mp_slice payload;
    int reference; /* of the string made of it */
};

static int keep_payload(lua_State *L)
{
    struct arrival *a = (struct arrival *)lua_touserdata(L, 1);
    lua_pushlstring(L, (const char *)a->payload.data, a->payload.size);
    a->reference = luaL_ref(L, LUA_REGISTRYINDEX);
    return 0;
}

static int pass_event(lua_State *L)
{
    const struct arrival *a = (const struct arrival *)lua_touserdata(L, 1);
    lua_rawgeti(L, LUA_REGISTRYINDEX, a->c->on_event);
    lua_pushlstring(L, (const char *)a->payload.data, a->payload.size);
    lua_call(L, 1, 0);
    return 0;
}

/* Calls the event function; an error in it ends the request. */
static void tell(struct conn *c, struct arrival *a)
{
    if (c->on_event == LUA_NOREF || c->interrupts != 0 || c->has_failed)
        return;
    c->has_failed = lua_cpcall(c->L, pass_event, a) != 0;
    if (c->has_failed) {
        mp_client_cancel(c->client, c->id);
        uv_timer_start(&c->patience, on_patience, c->interrupt_ms, 0);
    }
}

static void on_tick(uv_timer_t *timer)
{
    struct arrival a = {.c = (struct conn *)timer->data, .reference = LUA_NOREF};
    tell(a.c, &a);
}

static void on_answer(void *context, uint64_t id, enum mp_client_answer answer,
                      struct mp_slice payload)
{
    struct arrival a = {.c = (struct conn *)context, .payload = payload, .reference = LUA_NOREF};
    struct conn *c = a.c;
    if (id != c->id || c->is_done)
        return; /* of a request that was given up on */
    if (answer == MP_CLIENT_EVENT) {
        tell(c, &a);
        return;
    }
    c->answer = answer;
    if (!c->has_failed) {
        c->has_failed = lua_cpcall(c->L, keep_payload, &a) != 0;
        c->payload = a.reference;
    }
    done(c);
}

static void prepare(lua_State *L, struct conn *c)
{
    luaL_checkstack(L, 8, "too many values");
    c->L = L;
    c->id = 0;
    c->is_done = false;
    c->payload = LUA_NOREF;
    c->on_event = LUA_NOREF;
    c->on_batch = LUA_NOREF;
    c->has_enough = false;
    c->interrupts = 0;
    c->interrupt_ms = INTERRUPT_MS;
    c->has_failed = false;
}

/* Waits for the request `c->id` and returns what it gave. */
static int finish(lua_State *L, struct conn *c)
{
    c->is_busy = true;
    block(c);
    c->is_busy = false;
    c->id = 0;
    luaL_unref(L, LUA_REGISTRYINDEX, c->on_event);
    luaL_unref(L, LUA_REGISTRYINDEX, c->on_batch);
    if (c->has_failed)
        return lua_error(L); /* it is on top */
    if (c->has_enough) {
        lua_pushboolean(L, true);
        return 1;
    }
    bool has_payload = c->payload != LUA_NOREF;
    if (has_payload) {
        lua_rawgeti(L, LUA_REGISTRYINDEX, c->payload);
        luaL_unref(L, LUA_REGISTRYINDEX, c->payload);
    }
    if (c->interrupts != 0) {
        const struct mp_fault f = interrupted();
        int payload_at = lua_gettop(L);
        return_fault_bytes(L, &f);
        if (!has_payload)
            return 2;
        if (c->answer != MP_CLIENT_RESULT)
            lua_pushnil(L);
        lua_pushvalue(L, payload_at);
        return c->answer == MP_CLIENT_RESULT ? 3 : 4;
    }
    mp_assert(has_payload);
    if (c->answer == MP_CLIENT_RESULT)
        return 1;
    lua_pushnil(L);
    lua_insert(L, -2);
    return 2;
}

struct mp_slice mp_native_text_option(lua_State *L, const char *key)
{
    if (lua_type(L, -1) != LUA_TSTRING)
        luaL_error(L, "%s: expected a string, got %s", key, luaL_typename(L, -1));
    return check_bytes(L, -1);
}

static void read_needs(lua_State *L, struct mp_call_options *o)
{
    luaL_checktype(L, -1, LUA_TTABLE);
    size_t count = lua_objlen(L, -1);
    if (count > MP_NEEDS_MAX)
        luaL_error(L, "needs: more than %d resources", MP_NEEDS_MAX);
    for (size_t i = 0; i < count; i++) {
        lua_rawgeti(L, -1, (int)i + 1);
        o->needs[i] = mp_native_text_option(L, "needs");
        lua_pop(L, 1);
    }
    o->needs_count = (uint32_t)count;
}

/* Strings stay in the table at `index`, so slices into them hold while it does. */
void mp_native_read_call_options(lua_State *L, int index, struct mp_call_options *o)
{
    if (lua_isnoneornil(L, index))
        return;
    luaL_checktype(L, index, LUA_TTABLE);
    for (lua_pushnil(L); lua_next(L, index) != 0; lua_pop(L, 1)) {
        const char *key = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "?";
        if (strcmp(key, "timeout_ms") == 0)
            o->timeout_ms = mp_native_whole_field(L, index, key, MP_TIMEOUT_MS_MAX);
        else if (strcmp(key, "version") == 0)
            o->version = mp_native_text_option(L, key);
        else if (strcmp(key, "on") == 0)
            o->on = mp_native_text_option(L, key);
        else if (strcmp(key, "cluster") == 0)
            o->cluster = mp_native_text_option(L, key);
        else if (strcmp(key, "retries") == 0)
            o->retries = (uint32_t)mp_native_whole_field(L, index, key, MP_RETRIES_MAX);
        else if (strcmp(key, "wait") == 0)
            o->is_waiting = lua_toboolean(L, -1);
        else if (strcmp(key, "needs") == 0)
            read_needs(L, o);
        else
            luaL_error(L, "unknown option '%s'", key);
    }
}

void mp_native_read_run_options(lua_State *L, int index, struct mp_run_options *o)
{
    if (lua_isnoneornil(L, index))
        return;
    luaL_checktype(L, index, LUA_TTABLE);
    for (lua_pushnil(L); lua_next(L, index) != 0; lua_pop(L, 1)) {
        const char *key = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "?";
        if (strcmp(key, "timeout_ms") == 0)
            o->timeout_ms = mp_native_whole_field(L, index, key, MP_TIMEOUT_MS_MAX);
        else if (strcmp(key, "trace") == 0)
            o->has_trace = lua_toboolean(L, -1);
        else if (strcmp(key, "follow") == 0)
            o->has_events = lua_toboolean(L, -1);
        else if (strcmp(key, "detach") == 0)
            o->is_detached = lua_toboolean(L, -1);
        else if (strcmp(key, "topic") == 0)
            o->topic = mp_native_text_option(L, key);
        else
            luaL_error(L, "unknown option '%s'", key);
    }
}

/* The function at `index`, if there is one, is told what comes before the answer. */
static void hear(lua_State *L, struct conn *c, int index)
{
    if (lua_isnoneornil(L, index))
        return;
    lua_pushvalue(L, index);
    c->on_event = luaL_ref(L, LUA_REGISTRYINDEX);
}

static void check_function(lua_State *L, int index)
{
    if (!lua_isnoneornil(L, index))
        luaL_checktype(L, index, LUA_TFUNCTION);
}

static int conn_call(lua_State *L)
{
    struct conn *c = check_conn(L);
    struct mp_call_options o = {.fun = check_bytes(L, 2)};
    struct mp_slice args = check_bytes(L, 3);
    mp_native_read_call_options(L, 4, &o);
    prepare(L, c);
    enum mp_err err = mp_client_call(c->client, &o, args, c, on_answer, &c->id);
    return err != MP_OK ? return_refusal(L, c, err) : finish(L, c);
}

static int conn_run(lua_State *L)
{
    struct conn *c = check_conn(L);
    struct mp_run_options o = {0};
    struct mp_slice graph = check_bytes(L, 2);
    mp_native_read_run_options(L, 3, &o);
    check_function(L, 4);
    prepare(L, c);
    c->interrupt_ms = RUN_MS;
    hear(L, c, 4);
    enum mp_err err = mp_client_run(c->client, &o, graph, c, on_answer, &c->id);
    if (err == MP_OK)
        return finish(L, c);
    luaL_unref(L, LUA_REGISTRYINDEX, c->on_event);
    return return_refusal(L, c, err);
}

struct question {
    struct mp_slice what;
    struct mp_slice options;
    struct mp_slice payload;
    uint64_t timeout_ms;
};

/* Strings stay in the table at `index`, so slices into them hold while it does. */
static void read_query_options(lua_State *L, int index, struct question *q)
{
    if (lua_isnoneornil(L, index))
        return;
    luaL_checktype(L, index, LUA_TTABLE);
    for (lua_pushnil(L); lua_next(L, index) != 0; lua_pop(L, 1)) {
        const char *key = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "?";
        if (strcmp(key, "timeout_ms") == 0)
            q->timeout_ms = mp_native_whole_field(L, index, key, MP_TIMEOUT_MS_MAX);
        else if (strcmp(key, "options") == 0)
            q->options = mp_native_text_option(L, key);
        else
            luaL_error(L, "unknown option '%s'", key);
    }
}

/* query(WHAT, PAYLOAD, {timeout_ms =, options =}, function() … end, function(event) … end): the
 * first function is called each second until the answer is there; the second with what the node
 * tells before it, and then there is no deadline but a given one. One of them at most. */
static int conn_query(lua_State *L)
{
    struct conn *c = check_conn(L);
    struct question q = {.what = check_bytes(L, 2)};
    if (!lua_isnoneornil(L, 3))
        q.payload = check_bytes(L, 3);
    read_query_options(L, 4, &q);
    check_function(L, 5);
    check_function(L, 6);
    bool is_watching = !lua_isnoneornil(L, 6);
    bool is_ticking = !lua_isnoneornil(L, 5);
    if (is_watching && is_ticking)
        return luaL_error(L, "a query that is watched has no ticks");
    if (is_watching && q.timeout_ms == 0)
        q.timeout_ms = MP_TIMEOUT_MS_MAX;
    prepare(L, c);
    hear(L, c, is_watching ? 6 : 5);
    if (is_ticking) {
        uv_update_time(&c->loop);
        uv_timer_start(&c->ticks, on_tick, TICK_MS, TICK_MS);
    }
    enum mp_err err = mp_client_query(c->client, q.what, q.options, q.payload, q.timeout_ms, c,
                                      on_answer, &c->id);
    if (err == MP_OK)
        return finish(L, c);
    uv_timer_stop(&c->ticks);
    luaL_unref(L, LUA_REGISTRYINDEX, c->on_event);
    return return_refusal(L, c, err);
}

/* eval(WHAT, OPTIONS, TEXT, {timeout_ms =}, function(event) … end) */
static int conn_eval(lua_State *L)
{
    struct conn *c = check_conn(L);
    struct mp_slice what = check_bytes(L, 2);
    struct mp_slice options = check_bytes(L, 3);
    struct mp_slice text = check_bytes(L, 4);
    uint64_t timeout_ms = 0;
    if (!lua_isnoneornil(L, 5)) {
        luaL_checktype(L, 5, LUA_TTABLE);
        timeout_ms = mp_native_whole_field(L, 5, "timeout_ms", MP_TIMEOUT_MS_MAX);
    }
    check_function(L, 6);
    prepare(L, c);
    c->interrupt_ms = EVAL_MS;
    hear(L, c, 6);
    enum mp_err err =
        mp_client_eval(c->client, what, options, text, timeout_ms, c, on_answer, &c->id);
    if (err == MP_OK)
        return finish(L, c);
    luaL_unref(L, LUA_REGISTRYINDEX, c->on_event);
    return return_refusal(L, c, err);
}

struct part {
    struct conn *c;
    uint32_t place;
    bool is_error;
    struct mp_slice payload;
};

/* Of the query at a place, from 1: whether it failed, and its answer, side by side. */
static int keep_part(lua_State *L)
{
    const struct part *part = (const struct part *)lua_touserdata(L, 1);
    lua_rawgeti(L, LUA_REGISTRYINDEX, part->c->answers);
    lua_pushboolean(L, part->is_error);
    lua_rawseti(L, -2, (int)part->place * 2 + 1);
    lua_pushlstring(L, (const char *)part->payload.data, part->payload.size);
    lua_rawseti(L, -2, (int)part->place * 2 + 2);
    return 0;
}

static void on_part(void *context, uint64_t id, enum mp_client_answer answer,
                    struct mp_slice payload)
{
    struct conn *c = (struct conn *)context;
    struct part part = {.c = c, .is_error = answer == MP_CLIENT_ERROR, .payload = payload};
    while (part.place < c->ids_count && c->ids[part.place] != id)
        part.place++;
    if (part.place == c->ids_count || answer == MP_CLIENT_EVENT || c->is_done)
        return; /* of queries that were given up on */
    c->ids[part.place] = 0;
    c->awaited--;
    c->has_failed = lua_cpcall(c->L, keep_part, &part) != 0;
    if (c->has_failed || c->awaited == 0)
        done(c);
}

/* Queries without an answer are withdrawn; what still comes for them is passed over. */
static void end_queries(lua_State *L, struct conn *c)
{
    for (uint32_t i = 0; i < c->ids_count; i++)
        if (c->ids[i] != 0 && c->client)
            mp_client_cancel(c->client, c->ids[i]);
    c->ids_count = 0;
    luaL_unref(L, LUA_REGISTRYINDEX, c->answers);
}

/* queries(WHAT, {OPTIONS, …}, {timeout_ms =}): the same question with each of the options (empty:
 * none), all at once. Gives a list with two values for each: whether it failed, and its answer. */
static int conn_queries(lua_State *L)
{
    struct conn *c = check_conn(L);
    struct question q = {.what = check_bytes(L, 2)};
    luaL_checktype(L, 3, LUA_TTABLE);
    read_query_options(L, 4, &q);
    size_t count = lua_objlen(L, 3);
    if (count > QUERIES_MAX)
        return luaL_error(L, "more than %d queries at once", QUERIES_MAX);
    for (size_t i = 0; i < count; i++) {
        lua_rawgeti(L, 3, (int)i + 1);
        if (lua_type(L, -1) != LUA_TSTRING)
            return luaL_error(L, "options: expected strings");
        lua_pop(L, 1);
    }
    prepare(L, c);
    lua_createtable(L, (int)count * 2, 0);
    int answers_at = lua_gettop(L);
    if (count == 0)
        return 1;
    lua_pushvalue(L, answers_at);
    c->answers = luaL_ref(L, LUA_REGISTRYINDEX);
    c->ids_count = 0;
    for (size_t i = 0; i < count; i++) {
        lua_rawgeti(L, 3, (int)i + 1); /* the table keeps it */
        q.options = check_bytes(L, -1);
        lua_pop(L, 1);
        enum mp_err err = mp_client_query(c->client, q.what, q.options, q.payload, q.timeout_ms, c,
                                          on_part, &c->ids[i]);
        if (err != MP_OK) {
            end_queries(L, c);
            return return_refusal(L, c, err);
        }
        c->ids_count++;
    }
    c->awaited = c->ids_count;
    c->is_busy = true;
    block(c);
    c->is_busy = false;
    end_queries(L, c);
    if (c->has_failed)
        return lua_error(L); /* it is on top */
    if (c->interrupts != 0) {
        const struct mp_fault f = interrupted();
        return return_fault_bytes(L, &f);
    }
    lua_pushvalue(L, answers_at);
    return 1;
}

/* --- topics --- */

/* publish(MESSAGES, {timeout_ms =}) */
static int conn_publish(lua_State *L)
{
    struct conn *c = check_conn(L);
    struct mp_slice messages = check_bytes(L, 2);
    uint64_t timeout_ms = 0;
    if (!lua_isnoneornil(L, 3)) {
        luaL_checktype(L, 3, LUA_TTABLE);
        timeout_ms = mp_native_whole_field(L, 3, "timeout_ms", MP_TIMEOUT_MS_MAX);
    }
    prepare(L, c);
    enum mp_err err = mp_client_publish(c->client, messages, timeout_ms, c, on_answer, &c->id);
    return err != MP_OK ? return_refusal(L, c, err) : finish(L, c);
}

struct batch_arrival {
    struct conn *c;
    const struct mp_client_batch *batch;
};

/* The function says whether it has had enough. */
static int pass_batch(lua_State *L)
{
    const struct batch_arrival *a = (const struct batch_arrival *)lua_touserdata(L, 1);
    const struct mp_client_batch *b = a->batch;
    lua_rawgeti(L, LUA_REGISTRYINDEX, a->c->on_batch);
    lua_pushlstring(L, (const char *)b->messages.data, b->messages.size);
    lua_pushlstring(L, (const char *)b->publisher.data, b->publisher.size);
    lua_pushnumber(L, (lua_Number)b->dropped);
    lua_pushnumber(L, (lua_Number)b->after_seq);
    lua_call(L, 4, 1);
    a->c->has_enough = lua_toboolean(L, -1);
    return 0;
}

static void on_messages(void *context, uint64_t id, const struct mp_client_batch *batch)
{
    struct conn *c = (struct conn *)context;
    struct batch_arrival a = {.c = c, .batch = batch};
    if (id != c->id || c->is_done || c->interrupts != 0 || c->has_failed)
        return;
    c->has_failed = lua_cpcall(c->L, pass_batch, &a) != 0;
    if (!c->has_failed && !c->has_enough)
        return;
    /* The end that the node tells is not waited for: much may come before it. */
    mp_client_cancel(c->client, id);
    done(c);
}

static void read_subscribe_options(lua_State *L, int index, struct mp_subscribe_options *o,
                                   uint64_t *timeout_ms)
{
    luaL_checktype(L, index, LUA_TTABLE);
    for (lua_pushnil(L); lua_next(L, index) != 0; lua_pop(L, 1)) {
        const char *key = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "?";
        if (strcmp(key, "timeout_ms") == 0)
            *timeout_ms = mp_native_whole_field(L, index, key, MP_TIMEOUT_MS_MAX);
        else if (strcmp(key, "since_ms") == 0)
            o->since_ms = mp_native_whole_field(L, index, key, MP_TIMEOUT_MS_MAX);
        else if (strcmp(key, "queue") == 0)
            o->queue = mp_native_whole_field(L, index, key, MP_TOPIC_QUEUE_MESSAGES_MAX);
        else
            luaL_error(L, "unknown option '%s'", key);
    }
}

/* subscribe(PATTERN, {since_ms, queue, timeout_ms}, on_event, on_batch) */
static int conn_subscribe(lua_State *L)
{
    struct conn *c = check_conn(L);
    struct mp_subscribe_options o = {.pattern = check_bytes(L, 2)};
    uint64_t timeout_ms = 0;
    read_subscribe_options(L, 3, &o, &timeout_ms);
    luaL_checktype(L, 4, LUA_TFUNCTION);
    luaL_checktype(L, 5, LUA_TFUNCTION);
    prepare(L, c);
    lua_pushvalue(L, 4);
    c->on_event = luaL_ref(L, LUA_REGISTRYINDEX);
    lua_pushvalue(L, 5);
    c->on_batch = luaL_ref(L, LUA_REGISTRYINDEX);
    enum mp_err err =
        mp_client_subscribe(c->client, &o, timeout_ms, c, on_answer, on_messages, &c->id);
    if (err == MP_OK)
        return finish(L, c);
    luaL_unref(L, LUA_REGISTRYINDEX, c->on_event);
    luaL_unref(L, LUA_REGISTRYINDEX, c->on_batch);
    return return_refusal(L, c, err);
}

/* topic_problem(TEXT, is_pattern): nil, or what is wrong with it. */
static int native_topic_problem(lua_State *L)
{
    char text[TOPIC_PROBLEM_BYTES];
    struct mp_text message;
    mp_text_init(&message, text, sizeof(text));
    struct mp_slice topic = check_bytes(L, 1);
    enum mp_err err = lua_toboolean(L, 2) ? mp_topic_pattern_check(topic, &message)
                                          : mp_topic_name_check(topic, &message);
    if (err == MP_OK)
        return 0;
    lua_pushstring(L, text);
    return 1;
}

/* next_message(MESSAGES, AT): of an array of [topic, seq, at, data] the one that begins at byte AT
 * (0: the first): AT of the one behind it, topic, seq, at, MessagePack of data; nothing at the end.
 */
static int native_next_message(lua_State *L)
{
    struct mp_slice bytes = check_bytes(L, 1);
    double at = luaL_checknumber(L, 2);
    luaL_argcheck(L, at >= 0 && at <= (double)bytes.size, 2, "not in the messages");
    struct mp_mp_reader r = {.at = bytes.data + (size_t)at, .end = bytes.data + bytes.size};
    struct mp_mp_token t[4];
    struct mp_slice data;
    if (at == 0 && (mp_mp_next(&r, &t[0]) != MP_OK || t[0].type != MP_MP_ARRAY))
        return luaL_error(L, "the node's messages are no array");
    if (mp_mp_is_at_end(&r))
        return 0;
    for (int i = 0; i < 4; i++)
        if (mp_mp_next(&r, &t[i]) != MP_OK)
            return luaL_error(L, "a message of the node cannot be read");
    if (t[0].type != MP_MP_ARRAY || t[0].count != 4 || t[1].type != MP_MP_STR ||
        t[2].type != MP_MP_UINT || t[3].type != MP_MP_UINT || mp_mp_take(&r, &data) != MP_OK)
        return luaL_error(L, "a message of the node cannot be read");
    lua_pushnumber(L, (lua_Number)(r.at - bytes.data));
    lua_pushlstring(L, (const char *)t[1].bytes.data, t[1].bytes.size);
    lua_pushnumber(L, (lua_Number)t[2].u);
    lua_pushnumber(L, (lua_Number)t[3].u);
    lua_pushlstring(L, (const char *)data.data, data.size);
    return 5;
}

static int conn_close(lua_State *L)
{
    struct conn *c = (struct conn *)luaL_checkudata(L, 1, CONN_TYPE);
    if (c->is_busy)
        return luaL_error(L, "the connection is busy");
    close_conn(c);
    return 0;
}

/* The collector also runs while a request blocks, but then its connection is referred to. */
static int conn_gc(lua_State *L)
{
    close_conn((struct conn *)luaL_checkudata(L, 1, CONN_TYPE));
    return 0;
}

/* Takes notice of what came, or broke, while nothing blocked. */
static int conn_is_open(lua_State *L)
{
    struct conn *c = (struct conn *)luaL_checkudata(L, 1, CONN_TYPE);
    if (c->client && !c->is_busy)
        uv_run(&c->loop, UV_RUN_NOWAIT);
    if (c->client && mp_client_is_open(c->client)) {
        lua_pushboolean(L, true);
        return 1;
    }
    struct mp_slice error = c->client ? mp_client_error(c->client) : mp_slice_of(NULL, 0);
    lua_pushboolean(L, false);
    if (error.size == 0)
        return 1;
    lua_pushlstring(L, (const char *)error.data, error.size);
    return 2;
}

static int conn_node(lua_State *L)
{
    struct conn *c = check_conn(L);
    struct mp_slice node = mp_client_node(c->client);
    lua_pushlstring(L, (const char *)node.data, node.size);
    return 1;
}

int mp_client_open(lua_State *L)
{
    static const luaL_Reg methods[] = {
        {"call", conn_call},       {"run", conn_run},
        {"query", conn_query},     {"queries", conn_queries},
        {"eval", conn_eval},       {"close", conn_close},
        {"publish", conn_publish}, {"subscribe", conn_subscribe},
        {"node", conn_node},       {"is_open", conn_is_open},
        {"__gc", conn_gc},         {NULL, NULL},
    };
    luaL_newmetatable(L, CONN_TYPE);
    luaL_register(L, NULL, methods);
    lua_pushvalue(L, -1);
    lua_setfield(L, -2, "__index");
    lua_pop(L, 1);
    lua_newtable(L);
    lua_pushcfunction(L, native_connect);
    lua_setfield(L, -2, "connect");
    lua_pushcfunction(L, mp_native_bench);
    lua_setfield(L, -2, "bench");
    lua_pushcfunction(L, mp_native_bench_pub);
    lua_setfield(L, -2, "bench_pub");
    lua_pushcfunction(L, native_topic_problem);
    lua_setfield(L, -2, "topic_problem");
    lua_pushcfunction(L, native_next_message);
    lua_setfield(L, -2, "next_message");
    mp_jobs_register(L);
    mp_system_register(L);
    return 1;
}
