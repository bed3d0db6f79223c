/* The executable `mpreg`: the command line and the worker process in one.
 *
 * Called as "mpreg-worker" (or with that as its first argument) it is a worker, called as
 * "mpreg-session" the session of a REPL, called as "mpreg-check" it tries a unit, and no Lua state
 * of ours is made. Else it makes a Lua state in which the C side of the command line is at hand
 * under `mpreg.codec`, `mpreg.native`, `mpreg.editline`, `mpreg.host` and `mpreg.program`, finds
 * the Lua library beside the executable, and runs `mpreg.cli`, whose result is the exit code.
 *
 * The library is where the executable is: ../lua and ../modules in the build tree,
 * ../share/mpreg/lua and ../share/mpreg/modules once installed. */
#include <errno.h>
#include <fcntl.h>
#include <lauxlib.h>
#include <limits.h>
#include <lua.h>
#include <lualib.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/binding/chunk.h"
#include "src/binding/client.h"
#include "src/binding/codec.h"
#include "src/binding/editline.h"
#include "src/check/check.h"
#include "src/main/host_binding.h"
#include "src/session/session.h"
#include "src/worker/worker.h"

#define EXIT_FAILED      1
#define EXIT_INTERRUPTED 130

struct program {
    char lua_dir[PATH_MAX];
    char modules_dir[PATH_MAX];
    int argc;
    char **argv;
    int exit_code;
};

static bool is_called(const char *name, const char *what)
{
    const char *slash = strrchr(name, '/');
    return strcmp(slash != NULL ? slash + 1 : name, what) == 0;
}

/* Started with a closed stdout, the next socket would get its number, and our output. */
static void open_standard_files(void)
{
    for (int fd = 0; fd <= 2; fd++) {
        if (fcntl(fd, F_GETFD) == -1 && errno == EBADF &&
            open("/dev/null", fd == 0 ? O_RDONLY : O_WRONLY) != fd)
            abort();
    }
}

static bool is_folder(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

/* Joins a folder and what lies below it; false if that is too long. */
static bool join(char out[PATH_MAX], const char *folder, const char *below)
{
    int size = snprintf(out, PATH_MAX, "%s/%s", folder, below);
    return size > 0 && size < PATH_MAX;
}

/* Finds the Lua library and the modules beside the executable. */
static bool find_library(struct program *p)
{
    char self[PATH_MAX];
    ssize_t size = readlink("/proc/self/exe", self, sizeof(self) - 1);
    if (size < 0)
        return false;
    self[size] = '\0';
    /* Two up: the folder that build/ or bin/ is in. */
    for (int i = 0; i < 2; i++) {
        char *slash = strrchr(self, '/');
        if (slash == NULL)
            return false;
        *slash = '\0';
    }
    char probe[PATH_MAX];
    if (join(probe, self, "lua/mpreg/cli") && is_folder(probe))
        return join(p->lua_dir, self, "lua") && join(p->modules_dir, self, "modules");
    return join(probe, self, "share/mpreg/lua/mpreg/cli") && is_folder(probe) &&
           join(p->lua_dir, self, "share/mpreg/lua") &&
           join(p->modules_dir, self, "share/mpreg/modules");
}

static int open_program(lua_State *L)
{
    lua_getfield(L, LUA_REGISTRYINDEX, "mpreg.program");
    const struct program *p = (const struct program *)lua_touserdata(L, -1);
    lua_createtable(L, 0, 3);
    lua_pushliteral(L, MPREG_VERSION);
    lua_setfield(L, -2, "version");
    lua_pushstring(L, p->lua_dir);
    lua_setfield(L, -2, "lua_dir");
    lua_pushstring(L, p->modules_dir);
    lua_setfield(L, -2, "modules_dir");
    return 1;
}

static void preload(lua_State *L, const char *name, lua_CFunction loader)
{
    lua_getglobal(L, "package");
    lua_getfield(L, -1, "preload");
    lua_pushcfunction(L, loader);
    lua_setfield(L, -2, name);
    lua_pop(L, 2);
}

/* Our own library, then the system's: neither LUA_PATH nor a file that happens to lie in the
 * current folder may stand in for a part of the program. */
static void set_path(lua_State *L, const char *lua_dir)
{
    static const char here[] = "./?.lua;";
    lua_getglobal(L, "package");
    lua_getfield(L, -1, "path");
    const char *path = lua_tostring(L, -1);
    if (strncmp(path, here, sizeof(here) - 1) == 0)
        path += sizeof(here) - 1;
    lua_pushfstring(L, "%s/?.lua;%s/?/init.lua;%s", lua_dir, lua_dir, path);
    lua_setfield(L, -3, "path");
    lua_pop(L, 2);
}

/* Everything that may raise, under lua_cpcall, which throws results away. */
static int run(lua_State *L)
{
    struct program *p = (struct program *)lua_touserdata(L, 1);
    unsetenv("LUA_PATH");
    unsetenv("LUA_CPATH");
    luaL_openlibs(L);
    mp_chunk_open(L);
    lua_pushlightuserdata(L, p);
    lua_setfield(L, LUA_REGISTRYINDEX, "mpreg.program");
    preload(L, "mpreg.codec", mp_codec_open);
    preload(L, "mpreg.native", mp_client_open);
    preload(L, "mpreg.editline", mp_editline_open);
    preload(L, "mpreg.host", mp_host_open);
    preload(L, "mpreg.program", open_program);
    set_path(L, p->lua_dir);

    lua_getglobal(L, "require");
    lua_pushliteral(L, "mpreg.cli");
    lua_call(L, 1, 1);
    lua_getfield(L, -1, "main");
    lua_createtable(L, p->argc, 0);
    for (int i = 1; i < p->argc; i++) {
        lua_pushstring(L, p->argv[i]);
        lua_rawseti(L, -2, i);
    }
    lua_call(L, 1, 1);
    p->exit_code = (int)lua_tointeger(L, -1);
    return 0;
}

/* Where nothing is cancelled (reading stdin, say), an interrupt just ends the command. Requests in
 * flight and a node that serves have handlers of their own. */
static void on_interrupt(int signal_number)
{
    (void)signal_number;
    _exit(EXIT_INTERRUPTED);
}

int main(int argc, char **argv)
{
    if (argc > 0 && is_called(argv[0], "mpreg-worker"))
        return mp_worker_main(argc, argv);
    if (argc > 0 && is_called(argv[0], "mpreg-session"))
        return mp_session_main(argc, argv);
    if (argc > 0 && is_called(argv[0], "mpreg-check"))
        return mp_check_main(argc, argv);
    if (argc > 1 && strcmp(argv[1], "mpreg-worker") == 0)
        return mp_worker_main(argc - 1, argv + 1);

    open_standard_files();
    /* A reader that goes away is noticed by the write that fails. */
    signal(SIGPIPE, SIG_IGN);
    signal(SIGINT, on_interrupt);
    static struct program program;
    program.argc = argc;
    program.argv = argv;
    if (!find_library(&program)) {
        fputs("error: INTERNAL/NO_LIBRARY: the Lua library is not beside the executable\n", stderr);
        return EXIT_FAILED;
    }
    lua_State *L = luaL_newstate();
    if (L == NULL) {
        fputs("error: RESOURCE_EXHAUSTED/OUT_OF_MEMORY: no memory for Lua\n", stderr);
        return EXIT_FAILED;
    }
    program.exit_code = EXIT_FAILED;
    if (lua_cpcall(L, run, &program) != 0)
        fprintf(stderr, "error: INTERNAL/BUG: %s\n", lua_tostring(L, -1));
    lua_close(L);
    return program.exit_code;
}
