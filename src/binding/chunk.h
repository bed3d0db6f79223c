/* Keeps away from what LuaJIT compiles wrongly (docs/decisions/0010 names the faults):
 *
 * - `for k, v in pairs(t)` and `for k, v in next, t` become ITERN, which is patched to the plain
 *   ITERC when the compiler gives the loop up. That patch was wrong in one way or another from the
 *   year in which ITERN began to be compiled, 2021, until 2026: a loop that ran just then ended
 *   early, or left an element out, without an error. Here every chunk has ITERC from the start:
 *   nothing is patched.
 * - On x86, versions before November 2023 fuse loads into later instructions also where the value
 *   has changed until then, that of the next element of a table for one. They do not fuse here. */
#pragma once

#include <lua.h>

/* Makes load, loadstring, loadfile, dofile and require give such chunks in this state, and sets
 * what its compiler must not do. The standard libraries are open. Raises when the form of this
 * LuaJIT's bytecode is not known. */
void mp_chunk_open(lua_State *L);

/* Replaces the Lua function on top, a main chunk, by one without ITERN that has its environment.
 * May raise. */
void mp_chunk_settle(lua_State *L);
