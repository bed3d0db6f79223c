/* CONFIG: the first message. Its map is kept, and read again where a function asks for a part of
 * it; the Lua side (lua/mpreg/runtime/worker.lua) is loaded from the path that it names. */
#include <lauxlib.h>
#include <stdio.h>
#include <string.h>

#include "src/base/limits.h"
#include "src/wire/msgpack.h"
#include "src/worker/confine.h"
#include "src/worker/worker_internal.h"

static size_t get_size(struct mp_slice map, const char *key, size_t otherwise)
{
    struct mp_slice value;
    int64_t n;
    if (mp_mp_map_get(map, mp_slice_str(key), &value) != MP_OK ||
        mp_mp_get_int(value, &n) != MP_OK || n <= 0)
        return otherwise;
    return (size_t)n;
}

static void keep_field(lua_State *L, const char *key, int *ref)
{
    lua_getfield(L, -1, key);
    *ref = luaL_ref(L, LUA_REGISTRYINDEX);
}

/* Runs lua/mpreg/runtime/worker.lua with the C functions and keeps what it returns. */
static int open_runtime(lua_State *L)
{
    struct mp_worker *w = (struct mp_worker *)lua_touserdata(L, 1);
    lua_getfield(L, LUA_GLOBALSINDEX, "package");
    lua_getfield(L, -1, "loaded");
    mp_library_push(w, L);
    lua_setfield(L, -2, "mpreg.worker");
    lua_getfield(L, LUA_GLOBALSINDEX, "require");
    lua_pushliteral(L, "mpreg.runtime.worker");
    lua_call(L, 1, 1);
    keep_field(L, "body", &w->body_ref);
    keep_field(L, "add", &w->add_ref);
    keep_field(L, "load", &w->load_ref);
    keep_field(L, "unload", &w->unload_ref);
    keep_field(L, "open", &w->open_ref);
    keep_field(L, "close", &w->close_ref);
    keep_field(L, "enter", &w->entering.ref);
    keep_field(L, "failure", &w->failure_ref);
    keep_field(L, "flush", &w->flush_ref);
    keep_field(L, "error_metatable", &w->error_metatable_ref);
    return 0;
}

void mp_worker_configure(struct mp_worker *w, struct mp_ring_record *record)
{
    struct mp_msg_config m;
    struct mp_slice body = mp_worker_body(record, sizeof(m));
    memcpy(&m, body.data, sizeof(m));
    if (w->is_configured || m.size > body.size - sizeof(m) ||
        mp_buf_append(&w->config, mp_slice_of(body.data + sizeof(m), m.size)) != MP_OK)
        mp_worker_die("the configuration cannot be read");
    w->is_configured = true;
    struct mp_slice map = mp_buf_slice(&w->config);
    w->memory_bytes_max = get_size(map, "memory_bytes_max", MP_WORKER_MEMORY_BYTES);
    w->value_bytes_max = get_size(map, "value_bytes_max", MP_VALUE_BYTES_MAX);
    w->state.bytes_max = w->memory_bytes_max;
    if (!mp_confine_memory(w->memory_bytes_max))
        mp_worker_die("the memory limit cannot be set");
    struct mp_slice value;
    if (mp_mp_map_get(map, mp_slice_str("resources"), &value) == MP_OK)
        w->resources = value;
    lua_State *L = w->state.L;
    struct mp_slice path;
    if (mp_mp_map_get(map, mp_slice_str("lua_path"), &value) == MP_OK &&
        mp_mp_get_str(value, &path) == MP_OK) {
        lua_pushlstring(L, (const char *)path.data, path.size);
        mp_state_set_path(L, lua_tostring(L, -1), NULL);
        lua_pop(L, 1);
    }
    lua_pushcfunction(L, open_runtime);
    lua_pushlightuserdata(L, w);
    if (lua_pcall(L, 1, 0, 0) != 0) {
        char why[512];
        snprintf(why, sizeof(why), "the Lua library cannot be loaded: %s", lua_tostring(L, -1));
        mp_worker_die(why);
    }
}
