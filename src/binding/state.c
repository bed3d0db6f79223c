/* Lua states with a memory limit. The allocator is the C library's with a counter in front.
 *
 * To let an allocation fail is the last resort: Lua never collects because of a failure, so garbage
 * alone could exhaust the limit; and some LuaJIT versions do not survive a failure inside compiled
 * code. So at the limit the allocator goes on, up to half as much again, and asks for attention: it
 * makes the collector hurry (compiled code returns to the interpreter when a cycle ends) and sets a
 * hook, which the interpreter runs before its next instruction. The hook collects all garbage and,
 * if what is left is still too much, raises Lua's own "not enough memory". Whoever catches that has
 * a sixteenth more, to get by, until the state is told to forget it. Only what outgrows the half as
 * well, such as one huge string, makes an allocation fail. */
#include "src/binding/state.h"

#include <lauxlib.h>
#include <lualib.h>
#include <stdlib.h>

#include "src/binding/chunk.h"
#include "src/binding/codec.h"
#include "src/binding/value.h"

#define STEP_PERCENT   200  /* the collector's pace: Lua's default */
#define STEP_HURRIED   2000 /* and when the limit is met */
#define SLACK_FRACTION 16   /* what a collection must free at least, or the error is raised */

/* The hook has no other way to its state. */
static char state_key;

static void on_pressure(lua_State *L, lua_Debug *ar)
{
    (void)ar;
    lua_sethook(L, NULL, 0, 0);
    lua_pushlightuserdata(L, &state_key);
    lua_rawget(L, LUA_REGISTRYINDEX);
    struct mp_state *s = (struct mp_state *)lua_touserdata(L, -1);
    lua_pop(L, 1);
    lua_gc(L, LUA_GCSETSTEPMUL, STEP_PERCENT);
    size_t slack = s->bytes_max / SLACK_FRACTION;
    size_t enough = s->bytes_max + s->granted - slack;
    if (s->bytes > enough)
        lua_gc(L, LUA_GCCOLLECT, 0);
    s->is_pressed = false;
    if (s->bytes <= enough)
        return;
    s->is_refused = true;
    if (s->bytes > s->bytes_max)
        s->granted = s->bytes - s->bytes_max;
    s->granted += slack;
    lua_pushliteral(L, "not enough memory");
    lua_error(L);
}

static void press(struct mp_state *s)
{
    s->is_pressed = true;
    lua_gc(s->L, LUA_GCSETSTEPMUL, STEP_HURRIED);
    lua_gc(s->L, LUA_GCRESTART, 0); /* at once, not when twice as much is in use */
    lua_sethook(s->L, on_pressure, LUA_MASKCOUNT, 1);
}

static void *counted_resize(void *context, void *p, size_t old_size, size_t new_size)
{
    struct mp_state *s = (struct mp_state *)context;
    if (new_size == 0) {
        free(p);
        s->bytes -= old_size;
        return NULL;
    }
    size_t grown_bytes = s->bytes - old_size + new_size;
    if (MP_UNLIKELY(new_size > old_size && s->bytes_max != 0 &&
                    grown_bytes > s->bytes_max + s->granted)) {
        if (s->L && !s->is_pressed)
            press(s);
        if (grown_bytes > s->bytes_max + s->bytes_max / 2) {
            s->is_refused = true;
            return NULL;
        }
    }
    void *grown = realloc(p, new_size);
    if (!grown) {
        s->is_refused = true;
        return NULL;
    }
    s->bytes = grown_bytes;
    return grown;
}

static int open_libraries(lua_State *L)
{
    luaL_openlibs(L);
    lua_pushlightuserdata(L, &state_key);
    lua_pushvalue(L, 1);
    lua_rawset(L, LUA_REGISTRYINDEX);
    mp_chunk_open(L);
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
    int status = lua_cpcall(s->L, open_libraries, s);
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

bool mp_state_recover(struct mp_state *s)
{
    size_t slack = s->bytes_max / SLACK_FRACTION;
    lua_gc(s->L, LUA_GCCOLLECT, 0);
    s->is_refused = false;
    s->granted = 0;
    if (s->bytes_max == 0 || s->bytes <= s->bytes_max - slack * 4)
        return true;
    if (s->bytes > s->bytes_max - slack && s->bytes < s->bytes_max + slack * 4)
        s->granted = s->bytes - (s->bytes_max - slack) + slack;
    return false;
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
