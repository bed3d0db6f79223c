/* Chunks of Lua without the bytecode that LuaJIT compiles wrongly. `for k, v in pairs(t)` and `for
 * k, v in next, t` become ITERN, which LuaJIT patches to the plain ITERC when the compiler gives a
 * loop up. From the day that ITERN was compiled (2021) until 2026 that patch has been wrong in one
 * way or another: a loop that runs just then ends early, or leaves an element out, without an
 * error. Here every chunk has ITERC from the start, so nothing is left to patch
 * (docs/decisions/0010). */
#pragma once

#include <lua.h>

/* Makes load, loadstring, loadfile, dofile and require give such chunks in this state. The standard
 * libraries are open. Raises when the form of this LuaJIT's bytecode is not known. */
void mp_chunk_open(lua_State *L);

/* Replaces the Lua function on top, a main chunk, by one without ITERN that has its environment.
 * May raise. */
void mp_chunk_settle(lua_State *L);
