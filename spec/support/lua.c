/* spec-lua [-e CODE] [-l MODULE] [SCRIPT [ARG…]]: a LuaJIT interpreter with our C modules built in,
 * under which busted runs the specs of the bindings (`busted --lua=build/spec/spec-lua`): so that
 * sanitizers see them, and no shared library has to be found. */
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/binding/chunk.h"
#include "src/binding/client.h"
#include "src/binding/codec.h"

static const luaL_Reg modules[] = {
    {"mpreg.codec", mp_codec_open},
    {"mpreg.native", mp_client_open},
    {NULL, NULL},
};

static int traceback(lua_State *L)
{
    if (!lua_isstring(L, 1)) {
        if (lua_isnoneornil(L, 1) || !luaL_callmeta(L, 1, "__tostring"))
            return 1;
        lua_replace(L, 1);
    }
    luaL_traceback(L, L, lua_tostring(L, 1), 1);
    return 1;
}

/* Calls the function below its `count` arguments; 0, or 1 with the error told. */
static int run(lua_State *L, int count)
{
    int function = lua_gettop(L) - count;
    lua_pushcfunction(L, traceback);
    lua_insert(L, function);
    int failed = lua_pcall(L, count, 0, function);
    /* an error without a value is busted's way to end */
    if (failed && !lua_isnil(L, -1))
        fprintf(stderr, "spec-lua: %s\n",
                lua_isstring(L, -1) ? lua_tostring(L, -1) : "an error that is no text");
    lua_settop(L, function - 1);
    return failed != 0;
}

static int run_loaded(lua_State *L, int load_status, int count)
{
    if (load_status == 0)
        return run(L, count);
    fprintf(stderr, "spec-lua: %s\n", lua_tostring(L, -1));
    return 1;
}

static void set_arg(lua_State *L, int argc, char **argv, int script)
{
    lua_createtable(L, argc, 1);
    for (int i = 0; i < argc; i++) {
        lua_pushstring(L, argv[i]);
        lua_rawseti(L, -2, i - script);
    }
    lua_setglobal(L, "arg");
}

static int require(lua_State *L, const char *name)
{
    lua_getglobal(L, "require");
    lua_pushstring(L, name);
    return run(L, 1);
}

static int run_script(lua_State *L, int argc, char **argv, int script)
{
    int status = luaL_loadfile(L, argv[script]);
    if (status == 0)
        mp_chunk_settle(L);
    for (int i = script + 1; status == 0 && i < argc; i++)
        lua_pushstring(L, argv[i]);
    return run_loaded(L, status, argc - script - 1);
}

int main(int argc, char **argv)
{
    lua_State *L = luaL_newstate();
    if (!L)
        return 1;
    luaL_openlibs(L);
    mp_chunk_open(L);
    lua_getglobal(L, "package");
    lua_getfield(L, -1, "preload");
    for (const luaL_Reg *m = modules; m->name; m++) {
        lua_pushcfunction(L, m->func);
        lua_setfield(L, -2, m->name);
    }
    lua_settop(L, 0);
    int script = 1;
    while (script + 1 < argc && (!strcmp(argv[script], "-e") || !strcmp(argv[script], "-l")))
        script += 2;
    set_arg(L, argc, argv, script < argc ? script : 0);
    int failed = 0;
    for (int i = 1; !failed && i < script; i += 2)
        failed = argv[i][1] == 'l' ? require(L, argv[i + 1])
                                   : run_loaded(L, luaL_loadstring(L, argv[i + 1]), 0);
    if (!failed && script < argc)
        failed = run_script(L, argc, argv, script);
    lua_close(L);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
