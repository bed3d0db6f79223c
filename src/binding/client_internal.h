/* What client.c (connections) and bench.c (load generators) share: reading arguments out of Lua's
 * tables. All raise on what is wrong. */
#pragma once

#include <lua.h>
#include <stdint.h>

#include "src/base/slice.h"
#include "src/wire/frame.h"

/* A field of the table at `index`: its number, or `otherwise` without one. */
double mp_native_number_field(lua_State *L, int index, const char *key, double otherwise);
/* The same of a whole number from 0 to `largest`; 0 without one. */
uint64_t mp_native_whole_field(lua_State *L, int index, const char *key, uint64_t largest);
/* Reads the list `nodes` of the table at 1; its strings stay in that table. */
uint32_t mp_native_read_nodes(lua_State *L, const char **nodes);
/* The string on top of the stack, which `key` names. */
struct mp_slice mp_native_text_option(lua_State *L, const char *key);
/* Strings stay in the table at `index`, so slices into them hold while it does. */
void mp_native_read_call_options(lua_State *L, int index, struct mp_call_options *o);
void mp_native_read_run_options(lua_State *L, int index, struct mp_run_options *o);
/* A broken connection is reported by write(), not by a signal that ends the program. */
void mp_native_ignore_sigpipe(void);

/* native.bench and native.bench_pub, see client.h. */
int mp_native_bench(lua_State *L);
int mp_native_bench_pub(lua_State *L);
