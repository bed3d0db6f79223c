/* MessagePack of any bytes → Lua → MessagePack: what can be decoded can be encoded, and that comes
 * back as the same bytes again. */
#include <lauxlib.h>
#include <lualib.h>
#include <stdlib.h>

#include "spec/support/alloc.h"
#include "src/base/assert.h"
#include "src/binding/value.h"
#include "src/wire/msgpack.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct world {
    struct spec_alloc memory;
    struct mp_alloc alloc;
    struct mp_buf first;
    struct mp_buf second;
    struct mp_slice input;
};

static void check_args(lua_State *L, struct mp_slice bytes)
{
    struct mp_value_error error = {.err = MP_OK};
    int top = lua_gettop(L);
    int count = -1;
    if (mp_value_decode_args(L, bytes, &count, &error) == MP_OK) {
        mp_assert(lua_gettop(L) == top + count);
        lua_settop(L, top);
    } else {
        mp_assert(lua_gettop(L) == top && count == -1 && error.message[0] != '\0');
    }
}

static int run(lua_State *L)
{
    struct world *w = (struct world *)lua_touserdata(L, 1);
    struct mp_value_error error = {.err = MP_OK};
    check_args(L, w->input);
    if (mp_value_decode(L, w->input, &error) != MP_OK) {
        mp_assert(lua_gettop(L) == 1 && error.message[0] != '\0');
        mp_assert(mp_slice_is_utf8(mp_slice_str(error.path)));
        return 0;
    }
    mp_assert(mp_mp_check(w->input) == MP_OK);
    mp_assert(lua_gettop(L) == 2);
    mp_assert(mp_value_encode(L, 2, &w->first, NULL, &error) == MP_OK);
    mp_assert(mp_mp_check(mp_buf_slice(&w->first)) == MP_OK);
    mp_assert(mp_value_decode(L, mp_buf_slice(&w->first), &error) == MP_OK);
    mp_assert(mp_value_encode(L, 3, &w->second, NULL, &error) == MP_OK);
    /* the order of a map's keys may differ */
    mp_assert(w->first.size == w->second.size);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static lua_State *L;
    static struct world w;
    if (!L) {
        L = luaL_newstate();
        luaL_openlibs(L);
        mp_value_open(L);
        w.memory = (struct spec_alloc){.fail_at = SPEC_NEVER};
        w.alloc = spec_alloc_of(&w.memory);
        mp_buf_init(&w.first, &w.alloc, 0);
        mp_buf_init(&w.second, &w.alloc, 0);
    }
    mp_buf_clear(&w.first);
    mp_buf_clear(&w.second);
    w.input = mp_slice_of(data, size);
    lua_settop(L, 0);
    lua_pushcfunction(L, run);
    lua_pushlightuserdata(L, &w);
    /* nothing but memory may raise, and there is enough for what the fuzzer gives */
    mp_assert(lua_pcall(L, 1, 0, 0) == 0);
    return 0;
}
