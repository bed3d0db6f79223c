/* The C functions under `require "mpreg"`: what lua/mpreg calls `mpreg.worker`. They check what
 * would break the worker; what a user may get wrong is checked in Lua, where the texts are.
 *
 *   begin(position, options, fun, …)  starts a nested call; options: encoded, or nil
 *   sleep(seconds)                    starts the timer
 *   wait()                            yields until something came for this call
 *   event() → position, ok, value     what came; position 0 for the timer and for a cancellation
 *   drop()                            cancels the nested calls that are outstanding
 *   in_call() → boolean               a function runs (not: a module loads)
 *   loading(boolean)                  a module loads, or no longer
 *   release() → number                of the call; 0: none
 *   forget(module, id), forget()      see worker_internal.h, as for called() and enter(…)
 *   context() → run_id, step, index, attempt, caller, milliseconds left
 *   node() → name, cluster, address
 *   resource(name) → value
 *   publish(topic, data)              hands a message to the node; waits while the ring is full
 *   log(level, message, fields)       a table that cannot be sent is left out
 *   take_text() → slot                the call writes text; its slot from 1, or 0
 *
 * A yield to the scheduler hands out `mark`, by which a coroutine of the user's own (sandbox.lua)
 * tells it from the user's yields and passes it on. */
#include <lauxlib.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/limits.h"
#include "src/binding/value.h"
#include "src/wire/msgpack.h"
#include "src/wire/topic.h"
#include "src/worker/worker_internal.h"

#define OPTIONS_BYTES_MAX (8u << 10)
#define LOG_TEXT_MAX      (16u << 10)
#define LOG_BYTES_MAX     (48u << 10)

#define TOPIC_PROBLEM_BYTES 1024

static char mark;

static struct mp_worker *worker_of(lua_State *L)
{
    return (struct mp_worker *)lua_touserdata(L, lua_upvalueindex(1));
}

static void set_text(lua_State *L, const char *key, const char *text)
{
    if (!text || text[0] == '\0')
        return;
    lua_pushstring(L, text);
    lua_setfield(L, -2, key);
}

int mp_library_raise(struct mp_worker *w, lua_State *L, enum mp_code code, const char *reason,
                     const char *message, const char *hint)
{
    lua_createtable(L, 0, 4);
    set_text(L, "code", mp_code_name(code));
    set_text(L, "reason", reason);
    set_text(L, "message", message);
    set_text(L, "hint", hint);
    lua_rawgeti(L, LUA_REGISTRYINDEX, w->error_metatable_ref);
    lua_setmetatable(L, -2);
    return lua_error(L);
}

static struct mp_call *need_call(struct mp_worker *w, lua_State *L)
{
    if (!w->call || w->is_loading)
        mp_library_raise(w, L, MP_CODE_FAILED_PRECONDITION, "NOT_IN_CALL",
                         "this is possible only while a function runs", NULL);
    return w->call;
}

/* A place for one more nested call. */
static uint32_t take_nested(struct mp_worker *w)
{
    if (w->nested_free == MP_WORKER_NONE) {
        uint32_t count = w->nested_count == 0 ? 64 : w->nested_count * 2;
        void *grown = realloc(w->nested, count * sizeof(struct mp_nested));
        if (!grown)
            mp_worker_die("out of memory");
        w->nested = (struct mp_nested *)grown;
        for (uint32_t i = count; i-- > w->nested_count;) {
            w->nested[i] =
                (struct mp_nested){.call = MP_WORKER_NONE, .generation = 1, .next = w->nested_free};
            w->nested_free = i;
        }
        w->nested_count = count;
    }
    uint32_t index = w->nested_free;
    w->nested_free = w->nested[index].next;
    return index;
}

static uint64_t link_nested(struct mp_worker *w, struct mp_call *call, uint32_t position)
{
    uint32_t index = take_nested(w);
    struct mp_nested *n = &w->nested[index];
    n->call = call->slot;
    n->position = position;
    n->previous = MP_WORKER_NONE;
    n->next = call->nested_first;
    if (n->next != MP_WORKER_NONE)
        w->nested[n->next].previous = index;
    call->nested_first = index;
    call->nested_count++;
    return (uint64_t)n->generation << 32 | index;
}

static int raise_argument(struct mp_worker *w, lua_State *L, const struct mp_value_error *error)
{
    char message[MP_VALUE_PATH_BYTES + MP_VALUE_MESSAGE_BYTES + 32];
    if (error->err == MP_ETOOLARGE) {
        snprintf(message, sizeof(message), "the arguments are larger than %zu bytes (--value-max)",
                 w->value_bytes_max);
        return mp_library_raise(w, L, MP_CODE_RESOURCE_EXHAUSTED, "TOO_LARGE", message, NULL);
    }
    if (error->err == MP_ENOMEM)
        return mp_library_raise(w, L, MP_CODE_RESOURCE_EXHAUSTED, "WORKER_MEMORY",
                                "no memory is left for the arguments", NULL);
    snprintf(message, sizeof(message), "argument %u%s: %s", (unsigned)error->argument, error->path,
             error->message);
    return mp_library_raise(w, L, MP_CODE_INVALID_ARGUMENT, "UNENCODABLE", message, error->hint);
}

static int library_begin(lua_State *L)
{
    struct mp_worker *w = worker_of(L);
    struct mp_call *call = need_call(w, L);
    uint32_t position = (uint32_t)luaL_checkinteger(L, 1);
    struct mp_slice parts[2] = {{0}, {0}};
    if (!lua_isnil(L, 2))
        parts[0].data = (const uint8_t *)luaL_checklstring(L, 2, &parts[0].size);
    parts[1].data = (const uint8_t *)luaL_checklstring(L, 3, &parts[1].size);
    luaL_argcheck(L, parts[0].size <= OPTIONS_BYTES_MAX, 2, "too many options");
    luaL_argcheck(L, parts[1].size <= MP_FUNCTION_BYTES_MAX, 3, "the name is too long");
    if (call->is_cancelled)
        return 0;
    if (call->nested_count >= MP_NESTED_CALLS_MAX)
        return mp_library_raise(w, L, MP_CODE_RESOURCE_EXHAUSTED, "QUEUE_FULL",
                                "too many nested calls of one call are outstanding", NULL);
    struct mp_msg_nested m = {.parent = call->id,
                              .options_size = (uint32_t)parts[0].size,
                              .fun_size = (uint32_t)parts[1].size};
    struct mp_value_error error;
    mp_outbox_open(w, (uint32_t)(sizeof(m) + parts[0].size + parts[1].size), w->value_bytes_max);
    enum mp_err err = mp_value_encode_args(L, 4, lua_gettop(L) - 3, &w->outbox.payload, &error);
    if (err == MP_OK && w->outbox.payload.size > w->value_bytes_max)
        error.err = err = MP_ETOOLARGE;
    if (err != MP_OK) {
        mp_outbox_abort(w);
        return raise_argument(w, L, &error);
    }
    m.nested = link_nested(w, call, position);
    m.args_size = mp_outbox_size(w);
    mp_outbox_close(w, MP_MSG_NESTED, 0, mp_slice_of(&m, sizeof(m)), parts, 2);
    return 0;
}

static int library_sleep(lua_State *L)
{
    struct mp_worker *w = worker_of(L);
    struct mp_call *call = need_call(w, L);
    double seconds = luaL_checknumber(L, 1);
    luaL_argcheck(L, seconds >= 0 && seconds < INFINITY, 1, "must be zero or more and finite");
    if (call->is_cancelled)
        return 0;
    mp_duration span = seconds >= 1e9 ? MP_SECONDS(1000000000) : (mp_duration)(seconds * 1e9);
    if (mp_heap_set(&w->timers, w->timer_places, call->slot, mp_time_add(mp_worker_now(), span)) !=
        MP_OK)
        mp_worker_die("out of memory");
    return 0;
}

static int library_wait(lua_State *L)
{
    struct mp_worker *w = worker_of(L);
    struct mp_call *call = need_call(w, L);
    if (call->is_cancelled)
        return 0;
    w->outcome = MP_OUTCOME_WAIT;
    lua_pushlightuserdata(L, &mark);
    return lua_yield(L, 1);
}

static int library_event(lua_State *L)
{
    struct mp_worker *w = worker_of(L);
    struct mp_call *call = need_call(w, L);
    struct mp_event event = w->event;
    if (call->is_cancelled)
        event = (struct mp_event){
            .is_error = true, .has_value = true, .value = mp_buf_slice(&call->cancelled)};
    lua_pushinteger(L, (lua_Integer)event.position);
    lua_pushboolean(L, !event.is_error);
    struct mp_value_error error;
    if (!event.has_value) {
        lua_pushnil(L);
    } else if (mp_value_decode(L, event.value, &error) != MP_OK) {
        return mp_library_raise(w, L, MP_CODE_INTERNAL, "BAD_VALUE", error.message, error.hint);
    } else if (event.is_error && lua_istable(L, -1)) {
        lua_rawgeti(L, LUA_REGISTRYINDEX, w->error_metatable_ref);
        lua_setmetatable(L, -2);
    }
    return 3;
}

static int library_drop(lua_State *L)
{
    struct mp_worker *w = worker_of(L);
    mp_call_drop_nested(w, need_call(w, L));
    return 0;
}

static int library_in_call(lua_State *L)
{
    struct mp_worker *w = worker_of(L);
    lua_pushboolean(L, w->call != NULL && !w->is_loading);
    return 1;
}

static int library_loading(lua_State *L)
{
    worker_of(L)->is_loading = lua_toboolean(L, 1);
    return 0;
}

static int library_release(lua_State *L)
{
    struct mp_worker *w = worker_of(L);
    lua_pushinteger(L, w->call ? (lua_Integer)w->call->release : 0);
    return 1;
}

static int library_context(lua_State *L)
{
    struct mp_worker *w = worker_of(L);
    struct mp_call *call = need_call(w, L);
    int count = 0;
    lua_settop(L, 0);
    if (call->context.size != 0 &&
        mp_value_decode_args(L, mp_buf_slice(&call->context), &count, NULL) != MP_OK)
        lua_settop(L, 0);
    lua_settop(L, 5);
    uint64_t now = mp_worker_now();
    if (call->deadline == MP_NEVER)
        lua_pushnil(L);
    else
        lua_pushnumber(L, call->deadline > now ? (double)(call->deadline - now) / 1e6 : 0);
    return 6;
}

static void push_config_text(struct mp_worker *w, lua_State *L, const char *key)
{
    struct mp_slice value;
    struct mp_slice text;
    if (mp_mp_map_get(mp_buf_slice(&w->config), mp_slice_str(key), &value) == MP_OK &&
        mp_mp_get_str(value, &text) == MP_OK)
        lua_pushlstring(L, (const char *)text.data, text.size);
    else
        lua_pushliteral(L, "");
}

static int library_node(lua_State *L)
{
    struct mp_worker *w = worker_of(L);
    push_config_text(w, L, "node");
    push_config_text(w, L, "cluster");
    push_config_text(w, L, "addr");
    return 3;
}

static int library_resource(lua_State *L)
{
    struct mp_worker *w = worker_of(L);
    size_t size;
    const char *name = luaL_checklstring(L, 1, &size);
    struct mp_slice value;
    if (w->resources.size == 0 ||
        mp_mp_map_get(w->resources, mp_slice_of(name, size), &value) != MP_OK) {
        lua_pushnil(L);
        return 1;
    }
    if (mp_mp_type_of(value) == MP_MP_NIL) {
        lua_pushboolean(L, true);
        return 1;
    }
    struct mp_value_error error;
    if (mp_value_decode(L, value, &error) != MP_OK)
        return mp_library_raise(w, L, MP_CODE_INTERNAL, "BAD_VALUE", error.message, error.hint);
    return 1;
}

/* The map's text fields fit: they are cut before. */
static bool put_log(struct mp_worker *w, lua_State *L, struct mp_slice message, bool has_fields)
{
    struct mp_buf *b = &w->outbox.payload;
    mp_outbox_open(w, sizeof(struct mp_msg_log), LOG_BYTES_MAX);
    enum mp_err err = mp_mp_put_map(b, has_fields ? 2 : 1);
    if (err == MP_OK)
        err = mp_mp_put_text(b, "message");
    if (err == MP_OK)
        err = mp_slice_is_utf8(message) ? mp_mp_put_str(b, message) : mp_mp_put_bin(b, message);
    if (err == MP_OK && has_fields)
        err = mp_mp_put_text(b, "fields");
    if (err == MP_OK && has_fields)
        err = mp_value_encode(L, 3, b, NULL, NULL);
    if (err == MP_OK && b->size <= LOG_BYTES_MAX)
        return true;
    mp_outbox_abort(w);
    return false;
}

static int library_log(lua_State *L)
{
    struct mp_worker *w = worker_of(L);
    struct mp_slice message;
    lua_Integer level = luaL_checkinteger(L, 1);
    luaL_argcheck(L, level >= 0 && level <= 3, 1, "unknown level");
    message.data = (const uint8_t *)luaL_checklstring(L, 2, &message.size);
    if (message.size > LOG_TEXT_MAX)
        message.size = LOG_TEXT_MAX;
    if (!mp_outbox_takes_logs(w))
        return 0;
    bool has_fields = lua_istable(L, 3);
    if (!put_log(w, L, message, has_fields) && !put_log(w, L, message, false))
        return 0;
    struct mp_msg_log m = {
        .call = w->call ? w->call->id : 0, .level = (uint32_t)level, .size = mp_outbox_size(w)};
    mp_outbox_close(w, MP_MSG_LOG, 0, mp_slice_of(&m, sizeof(m)), NULL, 0);
    return 0;
}

/* Raises if the topic is none that a function may publish to. */
static void check_topic(struct mp_worker *w, lua_State *L, struct mp_slice topic)
{
    char text[TOPIC_PROBLEM_BYTES];
    struct mp_text message;
    mp_text_init(&message, text, sizeof(text));
    enum mp_err err = mp_topic_name_check(topic, &message);
    if (err == MP_OK && mp_topic_is_reserved(topic)) {
        mp_text_put(&message, "topics that begin with run. are those of runs");
        err = MP_EINVAL;
    }
    if (err != MP_OK)
        mp_library_raise(w, L, MP_CODE_INVALID_ARGUMENT, "BAD_TOPIC", text, NULL);
}

static int raise_data(struct mp_worker *w, lua_State *L, const struct mp_value_error *error)
{
    char message[MP_VALUE_PATH_BYTES + MP_VALUE_MESSAGE_BYTES + 32];
    if (error->err == MP_ETOOLARGE) {
        snprintf(message, sizeof(message), "the message is larger than %zu bytes (--value-max)",
                 w->value_bytes_max);
        return mp_library_raise(w, L, MP_CODE_RESOURCE_EXHAUSTED, "TOO_LARGE", message, NULL);
    }
    if (error->err == MP_ENOMEM)
        return mp_library_raise(w, L, MP_CODE_RESOURCE_EXHAUSTED, "WORKER_MEMORY",
                                "no memory is left for the message", NULL);
    snprintf(message, sizeof(message), "the data%s: %s", error->path, error->message);
    return mp_library_raise(w, L, MP_CODE_INVALID_ARGUMENT, "UNENCODABLE", message, error->hint);
}

static int library_publish(lua_State *L)
{
    struct mp_worker *w = worker_of(L);
    struct mp_buf *b = &w->outbox.payload;
    struct mp_slice topic;
    struct mp_value_error error = {0};
    need_call(w, L);
    topic.data = (const uint8_t *)luaL_checklstring(L, 1, &topic.size);
    check_topic(w, L, topic);
    lua_settop(L, 2);
    if (!mp_outbox_await_room(w))
        return mp_library_raise(w, L, MP_CODE_RESOURCE_EXHAUSTED, "QUEUE_FULL",
                                "the node takes no messages now: too many wait for it", NULL);
    mp_outbox_open(w, sizeof(struct mp_msg_publish), w->value_bytes_max);
    error.err = mp_mp_put_array(b, 2);
    if (error.err == MP_OK)
        error.err = mp_mp_put_str(b, topic);
    if (error.err == MP_OK)
        error.err = mp_value_encode(L, 2, b, NULL, &error);
    if (error.err == MP_OK && b->size > w->value_bytes_max)
        error.err = MP_ETOOLARGE;
    if (error.err != MP_OK) {
        mp_outbox_abort(w);
        return raise_data(w, L, &error);
    }
    if (w->outbox.place == MP_OUTBOX_HEAP) {
        /* Blocks that the host is done with come back only when the loop reads on. */
        mp_outbox_abort(w);
        return mp_library_raise(w, L, MP_CODE_RESOURCE_EXHAUSTED, "QUEUE_FULL",
                                "the node has too many large messages of this worker",
                                "let the function wait between them (mpreg.sleep)");
    }
    struct mp_msg_publish m = {.size = mp_outbox_size(w)};
    mp_outbox_close(w, MP_MSG_PUBLISH, 0, mp_slice_of(&m, sizeof(m)), NULL, 0);
    return 0;
}

static int library_take_text(lua_State *L)
{
    struct mp_worker *w = worker_of(L);
    if (w->call)
        w->call->has_text = true;
    lua_pushinteger(L, w->call ? (lua_Integer)w->call->slot + 1 : 0);
    return 1;
}

static const luaL_Reg functions[] = {
    {"begin", library_begin},       {"sleep", library_sleep},
    {"wait", library_wait},         {"event", library_event},
    {"drop", library_drop},         {"in_call", library_in_call},
    {"context", library_context},   {"node", library_node},
    {"resource", library_resource}, {"publish", library_publish},
    {"log", library_log},           {"take_text", library_take_text},
    {"take", mp_call_take},         {"give", mp_call_give},
    {"called", mp_call_called},     {"enter", mp_call_enter},
    {"forget", mp_module_forget},   {"loading", library_loading},
    {"release", library_release},   {NULL, NULL},
};

void mp_library_push(struct mp_worker *w, lua_State *L)
{
    lua_newtable(L);
    for (const luaL_Reg *f = functions; f->name; f++) {
        lua_pushlightuserdata(L, w);
        lua_pushcclosure(L, f->func, 1);
        lua_setfield(L, -2, f->name);
    }
    lua_pushlightuserdata(L, &mark);
    lua_setfield(L, -2, "mark");
}
