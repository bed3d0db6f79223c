/* The codecs for Lua:
 *
 *   encode(value) → bytes                    decode(bytes) → value
 *   encode_args(…) → bytes (an array)        decode_args(bytes) → …
 *   json_encode(value[, options]) → text     json_decode(text[, options]) → value
 *   msgpack_to_json(bytes[, options]) → text json_to_msgpack(text[, options]) → bytes
 *   array(t) → t, marked                     is_array(t) → boolean
 *   bytes(s) → an object that is sent as bytes, whatever they spell
 *   null                                     null inside tables
 *
 * Options, all booleans: graph, pretty, sort_keys (json.h).
 *
 * What fails returns nil and a table {message, path, hint, argument, line, column}, where what does
 * not apply is left out. All functions share one scratch buffer, which a userdata in their upvalue
 * owns: so an error that Lua raises half-way leaks nothing. */
#include "src/binding/codec.h"
#include "src/binding/libc_alloc.h"

#include <lauxlib.h>
#include <stdlib.h>

#include "src/binding/value.h"
#include "src/json/json.h"

/* A larger scratch buffer is given back after use. */
#define SCRATCH_KEPT_BYTES (1u << 20)

struct scratch {
    struct mp_buf buf;
    struct mp_buf second; /* of functions with a step in between */
};

static int scratch_gc(lua_State *L)
{
    struct scratch *s = (struct scratch *)lua_touserdata(L, 1);
    mp_buf_fini(&s->buf);
    mp_buf_fini(&s->second);
    return 0;
}

static struct mp_buf *clear(struct mp_buf *b)
{
    if (b->capacity > SCRATCH_KEPT_BYTES)
        mp_buf_fini(b);
    mp_buf_clear(b);
    return b;
}

/* The shared buffers, empty. */
static struct mp_buf *take_scratch(lua_State *L)
{
    return clear(&((struct scratch *)lua_touserdata(L, lua_upvalueindex(1)))->buf);
}

static struct mp_buf *take_second(lua_State *L)
{
    return clear(&((struct scratch *)lua_touserdata(L, lua_upvalueindex(1)))->second);
}

static int return_scratch(lua_State *L, const struct mp_buf *b)
{
    lua_pushlstring(L, (const char *)b->data, b->size);
    return 1;
}

static struct mp_slice check_bytes(lua_State *L, int index)
{
    size_t size;
    const char *data = luaL_checklstring(L, index, &size);
    return mp_slice_of(data, size);
}

static void set_text(lua_State *L, const char *key, const char *text)
{
    if (text[0] == '\0')
        return;
    lua_pushstring(L, text);
    lua_setfield(L, -2, key);
}

static int return_value_error(lua_State *L, const struct mp_value_error *error)
{
    lua_pushnil(L);
    lua_createtable(L, 0, 4);
    set_text(L, "message", error->message);
    set_text(L, "path", error->path);
    set_text(L, "hint", error->hint);
    if (error->argument != 0) {
        lua_pushnumber(L, error->argument);
        lua_setfield(L, -2, "argument");
    }
    return 2;
}

static int return_json_error(lua_State *L, const struct mp_json_error *error)
{
    lua_pushnil(L);
    lua_createtable(L, 0, 4);
    set_text(L, "message", error->message);
    set_text(L, "path", error->path);
    if (error->line != 0) {
        lua_pushnumber(L, error->line);
        lua_setfield(L, -2, "line");
        lua_pushnumber(L, error->column);
        lua_setfield(L, -2, "column");
    }
    return 2;
}

static bool get_option(lua_State *L, int index, const char *name)
{
    lua_getfield(L, index, name);
    bool is_set = lua_toboolean(L, -1);
    lua_pop(L, 1);
    return is_set;
}

static struct mp_json_options check_options(lua_State *L, int index)
{
    struct mp_json_options opt = {0};
    if (lua_isnoneornil(L, index))
        return opt;
    luaL_checktype(L, index, LUA_TTABLE);
    opt.graph = get_option(L, index, "graph");
    opt.pretty = get_option(L, index, "pretty");
    opt.sort_keys = get_option(L, index, "sort_keys");
    return opt;
}

static int codec_encode(lua_State *L)
{
    struct mp_value_error error;
    luaL_checkany(L, 1);
    struct mp_buf *b = take_scratch(L);
    if (mp_value_encode(L, 1, b, NULL, &error) != MP_OK)
        return return_value_error(L, &error);
    return return_scratch(L, b);
}

static int codec_decode(lua_State *L)
{
    struct mp_value_error error;
    if (mp_value_decode(L, check_bytes(L, 1), &error) != MP_OK)
        return return_value_error(L, &error);
    return 1;
}

static int codec_encode_args(lua_State *L)
{
    struct mp_value_error error;
    struct mp_buf *b = take_scratch(L);
    if (mp_value_encode_args(L, 1, lua_gettop(L), b, &error) != MP_OK)
        return return_value_error(L, &error);
    return return_scratch(L, b);
}

static int codec_decode_args(lua_State *L)
{
    struct mp_value_error error;
    int count = 0;
    if (mp_value_decode_args(L, check_bytes(L, 1), &count, &error) != MP_OK)
        return return_value_error(L, &error);
    return count;
}

static int codec_json_encode(lua_State *L)
{
    struct mp_value_error value_error;
    struct mp_json_error error;
    luaL_checkany(L, 1);
    struct mp_json_options opt = check_options(L, 2);
    struct mp_buf *bytes = take_second(L);
    if (mp_value_encode(L, 1, bytes, NULL, &value_error) != MP_OK)
        return return_value_error(L, &value_error);
    struct mp_buf *text = take_scratch(L);
    if (mp_json_from_msgpack(mp_buf_slice(bytes), text, &opt, &error) != MP_OK)
        return return_json_error(L, &error);
    return return_scratch(L, text);
}

static int codec_json_decode(lua_State *L)
{
    struct mp_value_error value_error;
    struct mp_json_error error;
    struct mp_slice text = check_bytes(L, 1);
    struct mp_json_options opt = check_options(L, 2);
    struct mp_buf *bytes = take_scratch(L);
    if (mp_json_to_msgpack(text, bytes, &opt, &error) != MP_OK)
        return return_json_error(L, &error);
    if (mp_value_decode(L, mp_buf_slice(bytes), &value_error) != MP_OK)
        return return_value_error(L, &value_error);
    return 1;
}

static int codec_json_to_msgpack(lua_State *L)
{
    struct mp_json_error error;
    struct mp_slice text = check_bytes(L, 1);
    struct mp_json_options opt = check_options(L, 2);
    struct mp_buf *bytes = take_scratch(L);
    if (mp_json_to_msgpack(text, bytes, &opt, &error) != MP_OK)
        return return_json_error(L, &error);
    return return_scratch(L, bytes);
}

static int codec_msgpack_to_json(lua_State *L)
{
    struct mp_json_error error;
    struct mp_slice bytes = check_bytes(L, 1);
    struct mp_json_options opt = check_options(L, 2);
    struct mp_buf *text = take_scratch(L);
    if (mp_json_from_msgpack(bytes, text, &opt, &error) != MP_OK)
        return return_json_error(L, &error);
    return return_scratch(L, text);
}

static int codec_array(lua_State *L)
{
    lua_settop(L, 1);
    if (lua_isnoneornil(L, 1)) {
        lua_settop(L, 0);
        lua_newtable(L);
    }
    luaL_checktype(L, 1, LUA_TTABLE);
    mp_value_push_array_metatable(L);
    lua_setmetatable(L, 1);
    return 1;
}

static int codec_is_array(lua_State *L)
{
    luaL_checkany(L, 1);
    bool is_array = false;
    if (lua_istable(L, 1) && lua_getmetatable(L, 1)) {
        mp_value_push_array_metatable(L);
        is_array = lua_rawequal(L, -1, -2);
    }
    lua_pushboolean(L, is_array);
    return 1;
}

static int codec_bytes(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TSTRING);
    lua_createtable(L, 1, 0);
    lua_pushvalue(L, 1);
    lua_rawseti(L, -2, 1);
    mp_value_push_bytes_metatable(L);
    lua_setmetatable(L, -2);
    return 1;
}

static const luaL_Reg functions[] = {
    {"encode", codec_encode},
    {"decode", codec_decode},
    {"encode_args", codec_encode_args},
    {"decode_args", codec_decode_args},
    {"json_encode", codec_json_encode},
    {"json_decode", codec_json_decode},
    {"json_to_msgpack", codec_json_to_msgpack},
    {"msgpack_to_json", codec_msgpack_to_json},
    {"array", codec_array},
    {"is_array", codec_is_array},
    {"bytes", codec_bytes},
    {NULL, NULL},
};

static void push_scratch(lua_State *L)
{
    struct scratch *s = (struct scratch *)lua_newuserdata(L, sizeof(*s));
    mp_buf_init(&s->buf, &mp_libc_alloc, 0);
    mp_buf_init(&s->second, &mp_libc_alloc, 0);
    lua_createtable(L, 0, 1);
    lua_pushcfunction(L, scratch_gc);
    lua_setfield(L, -2, "__gc");
    lua_setmetatable(L, -2);
}

int mp_codec_open(lua_State *L)
{
    mp_value_open(L);
    lua_newtable(L);
    push_scratch(L);
    for (const luaL_Reg *f = functions; f->name; f++) {
        lua_pushvalue(L, -1);
        lua_pushcclosure(L, f->func, 1);
        lua_setfield(L, -3, f->name);
    }
    lua_pop(L, 1);
    lua_pushlightuserdata(L, NULL);
    lua_setfield(L, -2, "null");
    return 1;
}
