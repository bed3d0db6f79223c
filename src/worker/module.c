/* Modules. What a module is, and how it is run in an environment of its own, is Lua's matter
 * (lua/mpreg/runtime/module.lua); here its functions get their numbers. Sources are handed over as
 * they are read and run later: when a LOAD came that is not followed by more of its set, when the
 * ring is empty, or before a call. So modules that require one another need no order. */
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

struct mp_function *mp_module_function(struct mp_worker *w, uint32_t module, uint32_t function)
{
    if (module >= w->module_count || function >= w->modules[module].count)
        return NULL;
    return &w->modules[module].functions[function];
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
    need_module(w, m.module);
    lua_rawgeti(L, LUA_REGISTRYINDEX, w->add_ref);
    lua_pushinteger(L, (lua_Integer)m.module);
    lua_pushlstring(L, (const char *)name.data, name.size);
    lua_pushlstring(L, (const char *)source.data, source.size);
    if (expected.size == 0 || mp_value_decode(L, expected, NULL) != MP_OK)
        lua_pushnil(L);
    lua_call(L, 4, 0);
    if (is_large) {
        w->args_block = MP_ARENA_NONE;
        mp_outbox_release(w, m.at);
    }
}

/* The list of functions and that of their marks are at index 2 and 3. */
static void keep_functions(struct mp_worker *w, lua_State *L, struct mp_module *module)
{
    uint32_t count = (uint32_t)lua_objlen(L, 2);
    struct mp_function *functions =
        (struct mp_function *)calloc(count == 0 ? 1 : count, sizeof(*functions));
    if (!functions)
        mp_worker_die("out of memory");
    for (uint32_t i = 0; i < count; i++) {
        functions[i].ref = LUA_NOREF;
        lua_rawgeti(L, 2, (int)i + 1);
        if (lua_isfunction(L, -1))
            functions[i].ref = luaL_ref(L, LUA_REGISTRYINDEX);
        else
            lua_pop(L, 1);
        lua_rawgeti(L, 3, (int)i + 1);
        functions[i].empty_is_array = lua_toboolean(L, -1);
        lua_pop(L, 1);
    }
    *module = (struct mp_module){.is_loaded = true, .count = count, .functions = functions};
    (void)w;
}

static void send_loaded(struct mp_worker *w, uint32_t number, uint16_t flags)
{
    struct mp_msg_loaded m = {.module = number, .size = mp_outbox_size(w)};
    mp_outbox_close(w, MP_MSG_LOADED, flags, mp_slice_of(&m, sizeof(m)), NULL, 0);
}

/* Runs load(number, is_described) → ok, functions, marks, metadata; or false, ERROR. Protected. */
static int load_one(lua_State *L)
{
    struct mp_worker *w = (struct mp_worker *)lua_touserdata(L, 1);
    struct mp_pending_load *p = (struct mp_pending_load *)lua_touserdata(L, 2);
    lua_settop(L, 0);
    lua_rawgeti(L, LUA_REGISTRYINDEX, w->load_ref);
    lua_pushinteger(L, (lua_Integer)p->module);
    lua_pushboolean(L, p->is_described);
    lua_call(L, 2, 4);
    bool is_ok = lua_toboolean(L, 1);
    if (is_ok)
        keep_functions(w, L, need_module(w, p->module));
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
    w->wants_tidying = w->load_first != NULL;
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

void mp_module_fini(struct mp_worker *w)
{
    while (w->load_first) {
        struct mp_pending_load *next = w->load_first->next;
        free(w->load_first);
        w->load_first = next;
    }
    for (uint32_t i = 0; i < w->module_count; i++)
        free(w->modules[i].functions);
    free(w->modules);
}
