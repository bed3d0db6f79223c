/* Lua states. The allocator is the C library's with a counter in front: at the limit it refuses to
 * grow, which Lua turns into its error "not enough memory". What is freed is always allowed, and so
 * is shrinking, so that a collection can bring a full state back below its limit. */
#include "src/binding/state.h"

#include <lauxlib.h>
#include <lualib.h>
#include <stdlib.h>

#include "src/binding/codec.h"
#include "src/binding/value.h"

static void *counted_resize(void *context, void *p, size_t old_size, size_t new_size)
{
    struct mp_state *s = (struct mp_state *)context;
    if (new_size == 0) {
        free(p);
        s->bytes -= old_size;
        return NULL;
    }
    if (new_size > old_size && s->bytes_max != 0 &&
        new_size - old_size > s->bytes_max - (s->bytes < s->bytes_max ? s->bytes : s->bytes_max)) {
        s->is_refused = true;
        return NULL;
    }
    void *grown = realloc(p, new_size);
    if (!grown) {
        s->is_refused = true;
        return NULL;
    }
    s->bytes += new_size - old_size;
    return grown;
}

static int open_libraries(lua_State *L)
{
    luaL_openlibs(L);
    mp_value_open(L);
    lua_getfield(L, LUA_GLOBALSINDEX, "package");
    lua_getfield(L, -1, "preload");
    lua_pushcfunction(L, mp_codec_open);
    lua_setfield(L, -2, "mpreg.codec");
    return 0;
}

enum mp_err mp_state_open(struct mp_state *s, size_t bytes_max)
{
    *s = (struct mp_state){.bytes_max = bytes_max};
    s->L = lua_newstate(counted_resize, s);
    if (!s->L)
        return MP_ENOMEM;
    lua_gc(s->L, LUA_GCSTOP, 0);
    int status = lua_cpcall(s->L, open_libraries, NULL);
    lua_gc(s->L, LUA_GCRESTART, -1);
    if (status != 0) {
        mp_state_close(s);
        return MP_ENOMEM;
    }
    return MP_OK;
}

void mp_state_close(struct mp_state *s)
{
    if (s->L)
        lua_close(s->L);
    s->L = NULL;
}

void mp_state_set_path(lua_State *L, const char *path, const char *cpath)
{
    lua_getfield(L, LUA_GLOBALSINDEX, "package");
    if (path) {
        lua_pushstring(L, path);
        lua_setfield(L, -2, "path");
    }
    if (cpath) {
        lua_pushstring(L, cpath);
        lua_setfield(L, -2, "cpath");
    }
    lua_pop(L, 1);
}
