/* See host_binding.h. The config table comes from lua/mpreg/cli/node_config.lua, which has checked
 * every field; here a missing one is a mistake of ours and raises. Strings stay alive on the Lua
 * stack (the table is at index 1) as long as the node runs. */
#include "src/main/host_binding.h"

#include <lauxlib.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "src/base/limits.h"
#include "src/host/host.h"

static uint64_t number_field(lua_State *L, const char *name)
{
    lua_getfield(L, 1, name);
    if (!lua_isnumber(L, -1) || lua_tonumber(L, -1) < 0)
        luaL_error(L, "host config: %s is missing", name);
    uint64_t number = (uint64_t)lua_tonumber(L, -1);
    lua_pop(L, 1);
    return number;
}

static const char *text_field(lua_State *L, int table, const char *name)
{
    lua_getfield(L, table, name);
    if (lua_type(L, -1) != LUA_TSTRING)
        luaL_error(L, "host config: %s is missing", name);
    const char *text = lua_tostring(L, -1);
    lua_pop(L, 1); /* the table keeps it */
    return text;
}

static bool flag_field(lua_State *L, const char *name)
{
    lua_getfield(L, 1, name);
    bool flag = lua_toboolean(L, -1) != 0;
    lua_pop(L, 1);
    return flag;
}

/* Processors that this process may use. */
static uint32_t processor_count(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof(set), &set) != 0)
        return 1;
    int count = CPU_COUNT(&set);
    return count < 1 ? 1 : count > MP_WORKERS_MAX ? MP_WORKERS_MAX : (uint32_t)count;
}

static struct mp_slice string_at(lua_State *L, int index)
{
    size_t size = 0;
    const char *text = lua_tolstring(L, index, &size);
    return mp_slice_of(text, size);
}

static void read_resources(lua_State *L, struct mp_host_config *cfg)
{
    uint32_t count = 0;
    lua_getfield(L, 1, "resources");
    luaL_checktype(L, -1, LUA_TTABLE);
    for (lua_pushnil(L); lua_next(L, -2) != 0; lua_pop(L, 1))
        count++;
    struct mp_host_resource *list = lua_newuserdata(L, (count + 1) * sizeof(*list));
    lua_setfield(L, 1, "_resource_list");
    uint32_t i = 0;
    for (lua_pushnil(L); lua_next(L, -2) != 0; lua_pop(L, 1)) {
        list[i].name = string_at(L, -2);
        list[i].value = lua_type(L, -1) == LUA_TSTRING ? string_at(L, -1) : mp_slice_of(NULL, 0);
        i++;
    }
    lua_pop(L, 1);
    cfg->resources = list;
    cfg->resource_count = count;
}

static void read_load(lua_State *L, struct mp_host_config *cfg)
{
    lua_getfield(L, 1, "load");
    luaL_checktype(L, -1, LUA_TTABLE);
    uint32_t count = (uint32_t)lua_objlen(L, -1);
    const char **paths = lua_newuserdata(L, (count + 1) * sizeof(*paths));
    lua_setfield(L, 1, "_load_list");
    for (uint32_t i = 0; i < count; i++) {
        lua_rawgeti(L, -1, (int)i + 1);
        paths[i] = luaL_checkstring(L, -1);
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
    cfg->load = paths;
    cfg->load_count = count;
}

/* The {host, port} on top of the stack, which goes. */
static struct mp_host_address take_address(lua_State *L)
{
    struct mp_host_address address = {0};
    luaL_checktype(L, -1, LUA_TTABLE);
    address.host = text_field(L, lua_gettop(L), "host");
    lua_getfield(L, -1, "port");
    address.port = (uint16_t)luaL_checkinteger(L, -1);
    lua_pop(L, 2);
    return address;
}

static void read_addresses(lua_State *L, struct mp_host_config *cfg)
{
    lua_getfield(L, 1, "listen");
    const struct mp_host_address listen = take_address(L);
    cfg->host = listen.host;
    cfg->port = listen.port;
    lua_getfield(L, 1, "advertise");
    if (lua_isnil(L, -1)) {
        lua_pop(L, 1);
    } else {
        const struct mp_host_address advertise = take_address(L);
        cfg->advertise_host = advertise.host;
        cfg->advertise_port = advertise.port;
    }
    lua_getfield(L, 1, "join");
    luaL_checktype(L, -1, LUA_TTABLE);
    uint32_t count = (uint32_t)lua_objlen(L, -1);
    struct mp_host_address *list = lua_newuserdata(L, (count + 1) * sizeof(*list));
    lua_setfield(L, 1, "_join_list");
    for (uint32_t i = 0; i < count; i++) {
        lua_rawgeti(L, -1, (int)i + 1);
        list[i] = take_address(L);
    }
    lua_pop(L, 1);
    cfg->join = list;
    cfg->join_count = count;
}

/* Ties this process to the one that started it: when that has ended, this one stops as if told to.
 * False: it has ended already. */
static bool tie_to_parent(uint64_t pid)
{
    return prctl(PR_SET_PDEATHSIG, SIGTERM) == 0 && (uint64_t)getppid() == pid;
}

static int log_level_of(lua_State *L)
{
    static const char *const names[] = {"debug", "info", "warn", "error"};
    const char *name = text_field(L, 1, "log_level");
    for (int i = 0; i < 4; i++)
        if (mp_slice_is(mp_slice_str(name), names[i]))
            return i;
    return luaL_error(L, "host config: log_level is none of debug, info, warn, error");
}

static int run(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TTABLE);
    struct mp_host_config cfg = {0};
    cfg.name = text_field(L, 1, "name");
    cfg.cluster = text_field(L, 1, "cluster");
    read_addresses(L, &cfg);
    lua_getfield(L, 1, "data");
    cfg.data_dir = lua_isnil(L, -1) ? NULL : luaL_checkstring(L, -1);
    lua_pop(L, 1); /* the table keeps it */
    cfg.is_insecure = flag_field(L, "insecure");
    lua_getfield(L, 1, "workers");
    cfg.workers = lua_isnil(L, -1) ? processor_count() : (uint32_t)luaL_checkinteger(L, -1);
    lua_pop(L, 1);
    read_resources(L, &cfg);
    read_load(L, &cfg);
    cfg.modules_dir = text_field(L, 1, "modules_dir");
    cfg.lua_dir = text_field(L, 1, "lua_dir");
    cfg.call_timeout_ms = number_field(L, "call_timeout_ms");
    cfg.run_timeout_ms = number_field(L, "run_timeout_ms");
    cfg.worker_memory = number_field(L, "worker_memory");
    cfg.value_max = number_field(L, "value_max");
    cfg.calls_begun_max = (uint32_t)number_field(L, "calls_begun_max");
    cfg.calls_queued_max = (uint32_t)number_field(L, "calls_queued_max");
    cfg.call_depth_max = (uint32_t)number_field(L, "call_depth_max");
    cfg.graph_steps_max = (uint32_t)number_field(L, "graph_steps_max");
    cfg.runs_kept = (uint32_t)number_field(L, "runs_kept");
    cfg.runs_kept_bytes = number_field(L, "runs_kept_bytes");
    cfg.runs_kept_age_ms = number_field(L, "runs_kept_age_ms");
    cfg.drain_ms = number_field(L, "drain_ms");
    cfg.log_level = log_level_of(L);
    cfg.is_log_json = mp_slice_is(mp_slice_str(text_field(L, 1, "log_format")), "json");
    uint64_t parent = number_field(L, "parent");
    lua_gc(L, LUA_GCCOLLECT, 0);
    lua_pushinteger(L, parent != 0 && !tie_to_parent(parent) ? 1 : mp_host_run(&cfg));
    return 1;
}

int mp_host_open(lua_State *L)
{
    static const luaL_Reg functions[] = {{"run", run}, {NULL, NULL}};
    lua_createtable(L, 0, 1);
    luaL_register(L, NULL, functions);
    return 1;
}
