/* See system.h. What the system refuses comes back as nil and its text. */
#include "src/binding/system.h"

#include <dirent.h>
#include <errno.h>
#include <lauxlib.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uv.h>

#define PATH_BYTES_MAX 4096
#define WHO_BYTES_MAX  128

static int return_errno(lua_State *L, int number)
{
    lua_pushnil(L);
    lua_pushstring(L, strerror(number));
    return 2;
}

static int is_tty(lua_State *L)
{
    lua_pushboolean(L, isatty((int)luaL_checkinteger(L, 1)));
    return 1;
}

static int terminal_width(lua_State *L)
{
    for (int fd = STDOUT_FILENO; fd <= STDERR_FILENO; fd++) {
        struct winsize size;
        if (ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) {
            lua_pushinteger(L, size.ws_col);
            return 1;
        }
    }
    return 0;
}

static int now(lua_State *L)
{
    lua_pushnumber(L, (double)uv_hrtime() / 1e9);
    return 1;
}

static const char *type_name(mode_t mode)
{
    return S_ISREG(mode) ? "file" : S_ISDIR(mode) ? "folder" : S_ISLNK(mode) ? "link" : "other";
}

static int is_wanted(const struct dirent *entry)
{
    return strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

/* Asked of the file itself, since not every file system tells it in the folder. */
static const char *type_in(const char *folder, const char *name)
{
    char path[PATH_BYTES_MAX];
    struct stat s;
    size_t folder_size = strlen(folder);
    size_t name_size = strlen(name);
    if (folder_size + name_size + 2 > sizeof(path))
        return "other";
    memcpy(path, folder, folder_size);
    path[folder_size] = '/';
    memcpy(path + folder_size + 1, name, name_size + 1);
    return lstat(path, &s) == 0 ? type_name(s.st_mode) : "other";
}

struct listing {
    const char *path;
    struct dirent **entries;
    int count;
};

static int push_listing(lua_State *L)
{
    const struct listing *l = (const struct listing *)lua_touserdata(L, 1);
    lua_createtable(L, l->count, 0);
    for (int i = 0; i < l->count; i++) {
        lua_createtable(L, 0, 2);
        lua_pushstring(L, l->entries[i]->d_name);
        lua_setfield(L, -2, "name");
        lua_pushstring(L, type_in(l->path, l->entries[i]->d_name));
        lua_setfield(L, -2, "type");
        lua_rawseti(L, -2, i + 1);
    }
    return 1;
}

static int list(lua_State *L)
{
    struct listing l = {.path = luaL_checkstring(L, 1)};
    /* Made before the list, so that nothing can raise while the list is ours to free. */
    lua_pushcfunction(L, push_listing);
    l.count = scandir(l.path, &l.entries, is_wanted, by_name);
    if (l.count < 0)
        return return_errno(L, errno);
    lua_pushlightuserdata(L, &l);
    int status = lua_pcall(L, 1, 1, 0);
    for (int i = 0; i < l.count; i++)
        free(l.entries[i]);
    free(l.entries);
    return status == 0 ? 1 : lua_error(L);
}

static int stat_path(lua_State *L)
{
    struct stat s;
    if (stat(luaL_checkstring(L, 1), &s) != 0)
        return return_errno(L, errno);
    lua_createtable(L, 0, 3);
    lua_pushstring(L, type_name(s.st_mode));
    lua_setfield(L, -2, "type");
    lua_pushnumber(L, (double)s.st_size);
    lua_setfield(L, -2, "size");
    lua_pushnumber(L, (double)s.st_mtim.tv_sec + (double)s.st_mtim.tv_nsec / 1e9);
    lua_setfield(L, -2, "mtime");
    return 1;
}

static int real_path(lua_State *L)
{
    char path[PATH_BYTES_MAX];
    if (!realpath(luaL_checkstring(L, 1), path))
        return return_errno(L, errno);
    lua_pushstring(L, path);
    return 1;
}

static int cwd(lua_State *L)
{
    char path[PATH_BYTES_MAX];
    if (!getcwd(path, sizeof(path)))
        return return_errno(L, errno);
    lua_pushstring(L, path);
    return 1;
}

/* A user without a name, as in many a container, is told by number. */
static int who(lua_State *L)
{
    char text[WHO_BYTES_MAX + 1];
    char user[64];
    char host[UV_MAXHOSTNAMESIZE];
    size_t size = sizeof(host);
    uv_passwd_t passwd;
    if (uv_os_get_passwd(&passwd) == 0) {
        snprintf(user, sizeof(user), "%s", passwd.username);
        uv_os_free_passwd(&passwd);
    } else {
        snprintf(user, sizeof(user), "uid%ld", (long)getuid());
    }
    if (uv_os_gethostname(host, &size) != 0)
        host[0] = '\0';
    snprintf(text, sizeof(text), "%s@%s", user, host);
    lua_pushstring(L, text);
    return 1;
}

static int pid(lua_State *L)
{
    lua_pushinteger(L, getpid());
    return 1;
}

void mp_system_register(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"isatty", is_tty},  {"terminal_width", terminal_width},
        {"now", now},        {"list", list},
        {"stat", stat_path}, {"realpath", real_path},
        {"cwd", cwd},        {"who", who},
        {"pid", pid},        {NULL, NULL},
    };
    luaL_register(L, NULL, functions);
}
