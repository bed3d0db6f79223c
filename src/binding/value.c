/* The rules of values, and what both directions share.
 *
 *   Lua                                    MessagePack       back in Lua
 *   nil; mpreg.null (lightuserdata NULL)   nil               nil as a whole value, else mpreg.null
 *   boolean                                bool              boolean
 *   number, integral within ±2^53          int               number
 *   any other number, and -0               float 64          number
 *   int64_t, uint64_t cdata                int               number within ±2^53, else cdata
 *   string, valid UTF-8                    str               string
 *   any other string; mpreg.bytes(s)       bin               string
 *   table with keys 1…n                    array             table
 *   table with string keys; empty table    map               table
 *   mpreg.array(t)                         array             table, marked if it is empty
 *
 * A number does not remember whether it was an integer or a float, so MessagePack's 1 and 1.0 are
 * one thing in Lua, and 1 goes out again: the shorter form. Unsigned integers over 2^63-1 have a
 * home as uint64_t cdata: other programs send them, and nothing is lost on the way back.
 *
 * Which kind a table is, its keys decide, never its metatable: markers apart, metatables are
 * ignored and access is raw, so what __index would invent is not sent. An empty table is the one
 * case that keys cannot decide; hence the array marker.
 *
 * LuaJIT's C API neither makes nor reads 64-bit cdata, but lua_topointer gives the address of
 * a cdata's bytes, and a small Lua helper (kept in the registry, made before user code could
 * change `ffi`) tells and makes the types. It runs for such integers only. */
#include "src/binding/value.h"

#include <lauxlib.h>
#include <stdio.h>
#include <string.h>

#include "src/base/assert.h"
#include "src/binding/value_internal.h"

/* Their addresses are registry keys. */
static char array_key;
static char bytes_key;
static char kind_key;
static char make_key;

/* Compiled traces may share one boxed integer, and ours are written after they were made: so the
 * helpers are interpreted. */
static const char helper_source[] =
    "local ffi, jit = require 'ffi', require 'jit'\n"
    "local signed, unsigned = ffi.typeof 'int64_t', ffi.typeof 'uint64_t'\n"
    "local istype = ffi.istype\n"
    "local function kind(v)\n"
    "  return istype(signed, v) and 1 or istype(unsigned, v) and 2 or 0\n"
    "end\n"
    "local function make(is_unsigned)\n"
    "  if is_unsigned then return unsigned() end\n"
    "  return signed()\n"
    "end\n"
    "jit.off(kind)\n"
    "jit.off(make)\n"
    "return kind, make\n";

/* Pops the value and keeps it. */
static void keep(lua_State *L, void *key)
{
    lua_pushlightuserdata(L, key);
    lua_insert(L, -2);
    lua_rawset(L, LUA_REGISTRYINDEX);
}

static void push_kept(lua_State *L, void *key)
{
    lua_pushlightuserdata(L, key);
    lua_rawget(L, LUA_REGISTRYINDEX);
}

static int bytes_tostring(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_rawgeti(L, 1, 1);
    return 1;
}

void mp_value_open(lua_State *L)
{
    push_kept(L, &make_key);
    bool is_open = !lua_isnil(L, -1);
    lua_pop(L, 1);
    if (is_open)
        return;
    lua_createtable(L, 0, 1);
    lua_pushliteral(L, "mpreg.array");
    lua_setfield(L, -2, "__name");
    keep(L, &array_key);
    lua_createtable(L, 0, 2);
    lua_pushliteral(L, "mpreg.bytes");
    lua_setfield(L, -2, "__name");
    lua_pushcfunction(L, bytes_tostring);
    lua_setfield(L, -2, "__tostring");
    keep(L, &bytes_key);
    if (luaL_loadbuffer(L, helper_source, sizeof(helper_source) - 1, "=mpreg.value") != 0)
        lua_error(L);
    lua_call(L, 0, 2);
    keep(L, &make_key);
    keep(L, &kind_key);
}

void mp_value_push_array_metatable(lua_State *L)
{
    push_kept(L, &array_key);
    mp_assert(lua_istable(L, -1));
}

void mp_value_push_bytes_metatable(lua_State *L)
{
    push_kept(L, &bytes_key);
    mp_assert(lua_istable(L, -1));
}

enum mp_value_int mp_value_get_int(lua_State *L, int index, uint64_t *bits)
{
    lua_pushvalue(L, index);
    push_kept(L, &kind_key);
    lua_insert(L, -2);
    lua_call(L, 1, 1);
    enum mp_value_int kind = (enum mp_value_int)lua_tointeger(L, -1);
    lua_pop(L, 1);
    if (kind != MP_VALUE_NO_INT)
        memcpy(bits, lua_topointer(L, index), 8);
    return kind;
}

void mp_value_push_int(lua_State *L, enum mp_value_int kind, uint64_t bits)
{
    push_kept(L, &make_key);
    lua_pushboolean(L, kind == MP_VALUE_UINT64);
    lua_call(L, 1, 1);
    /* the object is new and nobody else's: its bytes are ours to set */
    memcpy((void *)(uintptr_t)lua_topointer(L, -1), &bits, 8);
}

enum mp_value_mark mp_value_mark_of(lua_State *L, int index)
{
    if (!lua_getmetatable(L, index))
        return MP_VALUE_UNMARKED;
    enum mp_value_mark mark = MP_VALUE_UNMARKED;
    push_kept(L, &array_key);
    if (lua_rawequal(L, -1, -2)) {
        mark = MP_VALUE_ARRAY;
    } else {
        push_kept(L, &bytes_key);
        if (lua_rawequal(L, -1, -3))
            mark = MP_VALUE_BYTES;
        lua_pop(L, 1);
    }
    lua_pop(L, 2);
    return mark;
}

enum mp_err mp_value_fail(struct mp_value_error *error, enum mp_err err, const char *message,
                          const char *hint)
{
    if (error) {
        error->err = err;
        snprintf(error->message, sizeof(error->message), "%s", message);
        snprintf(error->hint, sizeof(error->hint), "%s", hint);
    }
    return err;
}
