/* The node for Lua: what `require "mpreg.host"` returns. */
#pragma once

#include <lua.h>

/* A loader for package.preload["mpreg.host"]: pushes a table with `run(config)`, which serves until
 * the node is told to stop and returns the exit code. */
int mp_host_open(lua_State *L);
