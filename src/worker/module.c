/* Modules. What a module is, and how it is run in an environment of its own, is Lua's matter
 * (lua/mpreg/runtime/module.lua); here its functions get their numbers. Sources are handed over as
 * they are read and run later: when a LOAD came that is not followed by more of its set, when the
 * ring is empty, or before a call. So modules that require one another need no order.
 *
 * A module may have several instances, for different releases. Nearly all have a fixed one, which
 * serves any; for the others it is kept which serves which release, as far as Lua was asked
 * (call.c: w->entering). Lua says when that is to be asked anew. */
#include <lauxlib.h>
#include <luajit.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/limits.h"
#include "src/binding/value.h"
#include "src/worker/worker_internal.h"

#define LOAD_GC_PAUSE 1000 /* percent: collect when ten times as much is there */

#define SET_WAIT    MP_SECONDS(1) /* the host may have had to leave out the last of a set */
#define MODULES_MAX (MP_MODULES_MAX * 16u) /* numbers grow with every version loaded */

static struct mp_module *need_module(struct mp_worker *w, uint32_t number)
{
    if (number >= MODULES_MAX)
        mp_worker_die("a module's number is out of range");
    if (number >= w->module_count) {
        uint32_t count = number + 16;
        void *grown = realloc(w->modules, count * sizeof(struct mp_module));
        if (!grown)
            mp_worker_die("out of memory");
        w->modules = (struct mp_module *)grown;
        memset(w->modules + w->module_count, 0,
               (count - w->module_count) * sizeof(struct mp_module));
        w->module_count = count;
    }
    return &w->modules[number];
}

static struct mp_instance *find_serving(const struct mp_module *m, uint32_t release)
{
    for (uint32_t i = 0; i < m->serving_count; i++) {
        if (m->servings[i].release == release)
            return m->servings[i].instance;
    }
    return NULL;
}

struct mp_function *mp_module_function(struct mp_worker *w, uint32_t module, uint32_t function,
                                       uint32_t release)
{
    if (module >= w->module_count)
        return NULL;
    struct mp_module *m = &w->modules[module];
    struct mp_instance *instance = m->fixed;
    if (MP_UNLIKELY(!instance)) {
        instance = find_serving(m, release);
        if (!instance && m->is_loaded) {
            w->entering.is_known = false;
            return &w->entering;
        }
    }
    if (!instance || function >= instance->count)
        return NULL;
    return &instance->functions[function];
}

void mp_module_read(struct mp_worker *w, struct mp_ring_record *record)
{
    lua_State *L = w->state.L;
    struct mp_msg_load m;
    struct mp_slice body = mp_worker_body(record, sizeof(m));
    memcpy(&m, body.data, sizeof(m));
    bool is_large = record->flags & MP_RING_LARGE;
    uint64_t inside = (uint64_t)m.name_size + m.expected_size + (is_large ? 0 : m.source_size);
    if (inside > body.size - sizeof(m))
        mp_worker_die("a module is not in the ring");
    const uint8_t *at = body.data + sizeof(m);
    struct mp_slice name = mp_slice_of(at, m.name_size);
    struct mp_slice expected = mp_slice_of(at + m.name_size, m.expected_size);
    struct mp_slice source = mp_slice_of(expected.data + m.expected_size, m.source_size);
    if (is_large && !mp_arena_view_get(&w->host_arena, m.at, m.source_size, &source))
        mp_worker_die("a module is not in the host's arena");
    struct mp_pending_load *p = (struct mp_pending_load *)calloc(1, sizeof(*p));
    if (!p)
        mp_worker_die("out of memory");
    p->module = m.module;
    p->is_described = record->flags & MP_RING_DESCRIBE;
    if (w->load_last)
        w->load_last->next = p;
    else
        w->load_first = p;
    w->load_last = p;
    w->is_set_open = record->flags & MP_RING_MORE;
    w->set_until = mp_time_add(w->now, SET_WAIT);
    if (is_large)
        w->args_block = m.at;
    need_module(w, m.module)->unit = m.unit;
    lua_rawgeti(L, LUA_REGISTRYINDEX, w->add_ref);
    lua_pushinteger(L, (lua_Integer)m.module);
    lua_pushinteger(L, (lua_Integer)m.unit);
    lua_pushlstring(L, (const char *)name.data, name.size);
    lua_pushlstring(L, (const char *)source.data, source.size);
    if (expected.size == 0 || mp_value_decode(L, expected, NULL) != MP_OK)
        lua_pushnil(L);
    lua_call(L, 5, 0);
    if (is_large) {
        w->args_block = MP_ARENA_NONE;
        mp_outbox_release(w, m.at);
    }
}

struct mp_instance *mp_module_keep(struct mp_worker *w, lua_State *L, uint32_t module, uint32_t id,
                                   int list)
{
    struct mp_module *m = need_module(w, module);
    for (struct mp_instance *known = m->instances; known; known = known->next) {
        if (known->id == id)
            return known;
    }
    uint32_t count = (uint32_t)lua_objlen(L, list);
    struct mp_instance *instance =
        (struct mp_instance *)calloc(1, sizeof(*instance) + count * sizeof(struct mp_function));
    if (!instance)
        mp_worker_die("out of memory");
    instance->id = id;
    while (instance->count < count) {
        struct mp_function *f = &instance->functions[instance->count++];
        f->ref = LUA_NOREF;
        lua_rawgeti(L, list, (int)instance->count);
        if (lua_isfunction(L, -1))
            f->ref = luaL_ref(L, LUA_REGISTRYINDEX);
        else
            lua_pop(L, 1);
        lua_rawgeti(L, list + 1, (int)instance->count);
        f->empty_is_array = lua_toboolean(L, -1);
        lua_pop(L, 1);
    }
    instance->next = m->instances;
    m->instances = instance;
    return instance;
}

void mp_module_serve(struct mp_worker *w, uint32_t module, struct mp_instance *instance,
                     uint32_t release, bool is_fixed)
{
    struct mp_module *m = need_module(w, module);
    if (is_fixed) {
        m->fixed = instance;
        return;
    }
    if (m->serving_count == m->serving_capacity) {
        uint32_t capacity = m->serving_capacity == 0 ? 4 : m->serving_capacity * 2;
        void *grown = realloc(m->servings, capacity * sizeof(struct mp_serving));
        if (!grown)
            mp_worker_die("out of memory");
        m->servings = (struct mp_serving *)grown;
        m->serving_capacity = capacity;
    }
    m->servings[m->serving_count++] = (struct mp_serving){release, instance};
}

static void ask_anew(struct mp_module *m)
{
    m->fixed = NULL;
    m->serving_count = 0;
}

/* Frees those that no call is in. */
static void free_gone(struct mp_worker *w)
{
    struct mp_instance **at = &w->gone;
    while (*at) {
        struct mp_instance *instance = *at;
        if (mp_call_is_in(w, instance)) {
            at = &instance->next;
            continue;
        }
        *at = instance->next;
        for (uint32_t i = 0; i < instance->count; i++)
            luaL_unref(w->state.L, LUA_REGISTRYINDEX, instance->functions[i].ref);
        free(instance);
    }
}

static void remove_instance(struct mp_worker *w, struct mp_instance **at)
{
    struct mp_instance *instance = *at;
    *at = instance->next;
    instance->next = w->gone;
    w->gone = instance;
}

int mp_module_forget(lua_State *L)
{
    struct mp_worker *w = (struct mp_worker *)lua_touserdata(L, lua_upvalueindex(1));
    if (lua_gettop(L) == 0) {
        for (uint32_t i = 0; i < w->module_count; i++)
            ask_anew(&w->modules[i]);
        return 0;
    }
    lua_Integer module = luaL_checkinteger(L, 1);
    uint32_t id = (uint32_t)luaL_checkinteger(L, 2);
    if (module < 0 || module >= (lua_Integer)w->module_count)
        return 0;
    struct mp_module *m = &w->modules[module];
    for (struct mp_instance **at = &m->instances; *at; at = &(*at)->next) {
        if ((*at)->id == id) {
            ask_anew(m);
            remove_instance(w, at);
            break;
        }
    }
    free_gone(w);
    return 0;
}

/* Calls what is on the stack with its arguments. To go on without it would be to run the wrong
 * code; the host starts another worker. */
static void call_or_die(lua_State *L, int arg_count)
{
    if (lua_pcall(L, arg_count, 0, 0) != 0)
        mp_worker_die(lua_isstring(L, -1) ? lua_tostring(L, -1) : "a release cannot be kept");
}

void mp_module_unload(struct mp_worker *w, struct mp_ring_record *record)
{
    lua_State *L = w->state.L;
    struct mp_msg_unload m;
    memcpy(&m, mp_worker_body(record, sizeof(m)).data, sizeof(m));
    for (uint32_t i = 0; m.unit != 0 && i < w->module_count; i++) {
        struct mp_module *module = &w->modules[i];
        if (module->unit != m.unit)
            continue;
        ask_anew(module);
        while (module->instances)
            remove_instance(w, &module->instances);
        free(module->servings);
        *module = (struct mp_module){0};
    }
    lua_rawgeti(L, LUA_REGISTRYINDEX, w->unload_ref);
    lua_pushinteger(L, (lua_Integer)m.unit);
    call_or_die(L, 1);
    free_gone(w);
    mp_worker_want_tidying(w);
}

void mp_module_open_release(struct mp_worker *w, struct mp_ring_record *record)
{
    lua_State *L = w->state.L;
    struct mp_msg_release_set m;
    struct mp_slice body = mp_worker_body(record, sizeof(m));
    memcpy(&m, body.data, sizeof(m));
    if (m.size > body.size - sizeof(m))
        mp_worker_die("a release is not in the ring");
    lua_rawgeti(L, LUA_REGISTRYINDEX, w->open_ref);
    lua_pushinteger(L, (lua_Integer)m.release);
    if (mp_value_decode(L, mp_slice_of(body.data + sizeof(m), m.size), NULL) != MP_OK)
        mp_worker_die("a release cannot be read");
    call_or_die(L, 2);
}

void mp_module_close_release(struct mp_worker *w, struct mp_ring_record *record)
{
    lua_State *L = w->state.L;
    struct mp_msg_release_set m;
    memcpy(&m, mp_worker_body(record, sizeof(m)).data, sizeof(m));
    lua_rawgeti(L, LUA_REGISTRYINDEX, w->close_ref);
    lua_pushinteger(L, (lua_Integer)m.release);
    call_or_die(L, 1);
    mp_worker_want_tidying(w);
}

static void send_loaded(struct mp_worker *w, uint32_t number, uint16_t flags)
{
    struct mp_msg_loaded m = {.module = number, .size = mp_outbox_size(w)};
    mp_outbox_close(w, MP_MSG_LOADED, flags, mp_slice_of(&m, sizeof(m)), NULL, 0);
}

/* Runs load(number, is_described) → ok, functions, marks, metadata, id, is_fixed; or false, ERROR;
 * or true alone: there is no instance yet. Protected. */
static int load_one(lua_State *L)
{
    struct mp_worker *w = (struct mp_worker *)lua_touserdata(L, 1);
    struct mp_pending_load *p = (struct mp_pending_load *)lua_touserdata(L, 2);
    lua_settop(L, 0);
    lua_rawgeti(L, LUA_REGISTRYINDEX, w->load_ref);
    lua_pushinteger(L, (lua_Integer)p->module);
    lua_pushboolean(L, p->is_described);
    lua_call(L, 2, 6);
    bool is_ok = lua_toboolean(L, 1);
    need_module(w, p->module)->is_loaded = is_ok;
    if (is_ok && lua_istable(L, 2)) {
        struct mp_instance *instance =
            mp_module_keep(w, L, p->module, (uint32_t)lua_tointeger(L, 5), 2);
        if (lua_toboolean(L, 6))
            mp_module_serve(w, p->module, instance, 0, true);
    }
    mp_outbox_open(w, sizeof(struct mp_msg_loaded), 0);
    struct mp_value_error error;
    if (mp_value_encode(L, is_ok ? 4 : 2, &w->outbox.payload, NULL, &error) != MP_OK) {
        mp_outbox_abort(w);
        return luaL_error(L, "the module's description cannot be sent: %s: %s", error.path,
                          error.message);
    }
    send_loaded(w, p->module, is_ok ? 0 : MP_RING_ERROR);
    return 0;
}

static void fail_load(struct mp_worker *w, uint32_t number, const char *message)
{
    struct mp_fault f = {
        .code = w->state.is_refused ? MP_CODE_RESOURCE_EXHAUSTED : MP_CODE_INTERNAL,
        .reason = mp_slice_str(w->state.is_refused ? "WORKER_MEMORY" : "LOAD_ERROR"),
        .message = mp_slice_str(message ? message : "the module cannot be loaded")};
    w->is_loading = false;
    need_module(w, number)->is_loaded = false;
    mp_outbox_abort(w);
    mp_outbox_open(w, sizeof(struct mp_msg_loaded), 0);
    mp_outbox_put_fault(w, &f);
    send_loaded(w, number, MP_RING_ERROR);
    w->wants_collect = w->state.is_refused;
}

void mp_module_load_pending(struct mp_worker *w)
{
    lua_State *L = w->state.L;
    struct mp_channel_status *status = w->channel.status;
    w->is_set_open = false;
    mp_worker_want_tidying(w);
    /* What runs here runs once: compiling it, or collecting behind it, would only delay the start.
     */
    luaJIT_setmode(L, 0, LUAJIT_MODE_ENGINE | LUAJIT_MODE_OFF);
    int pause = lua_gc(L, LUA_GCSETPAUSE, LOAD_GC_PAUSE);
    while (w->load_first) {
        struct mp_pending_load *p = w->load_first;
        w->load_first = p->next;
        if (!w->load_first)
            w->load_last = NULL;
        atomic_store_explicit(&status->running_since, mp_worker_now(), memory_order_relaxed);
        atomic_store_explicit(&status->running, MP_CHANNEL_LOADING | p->module,
                              memory_order_release);
        lua_pushcfunction(L, load_one);
        lua_pushlightuserdata(L, w);
        lua_pushlightuserdata(L, p);
        if (lua_pcall(L, 2, 0, 0) != 0) {
            fail_load(w, p->module, lua_tostring(L, -1));
            lua_pop(L, 1);
        }
        atomic_store_explicit(&status->running, 0, memory_order_release);
        free(p);
    }
    lua_gc(L, LUA_GCSETPAUSE, pause);
    luaJIT_setmode(L, 0, LUAJIT_MODE_ENGINE | LUAJIT_MODE_ON);
}

static void free_instances(struct mp_instance *first)
{
    while (first) {
        struct mp_instance *next = first->next;
        free(first);
        first = next;
    }
}

void mp_module_fini(struct mp_worker *w)
{
    while (w->load_first) {
        struct mp_pending_load *next = w->load_first->next;
        free(w->load_first);
        w->load_first = next;
    }
    for (uint32_t i = 0; i < w->module_count; i++) {
        free_instances(w->modules[i].instances);
        free(w->modules[i].servings);
    }
    free_instances(w->gone);
    free(w->modules);
}
