/* The codecs for Lua: what `require "mpreg.codec"` returns. */
#pragma once

#include <lua.h>

/* Pushes a new table with the functions that codec.c describes. Prepares the state with
 * mp_value_open, whose conditions hold. A lua_CFunction. */
int mp_codec_open(lua_State *L);
