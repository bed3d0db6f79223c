/* Small questions to the operating system that the command line, written in Lua, has to ask: part
 * of `mpreg.native` (see client.h for what each function gives). */
#pragma once

#include <lua.h>

/* Sets isatty, terminal_width, now, list, stat, realpath, cwd, who and pid in the table on top. */
void mp_system_register(lua_State *L);
