/* What the two directions of value.h share. */
#pragma once

#include "src/binding/value.h"
#include "src/wire/path.h"

/* LuaJIT's type of FFI objects, which lua.h does not name. */
#define MP_LUA_TCDATA 10

/* Integers up to here (and down to minus this) are Lua numbers, others are 64-bit cdata. */
#define MP_EXACT_MAX 9007199254740992

enum mp_value_int { MP_VALUE_NO_INT, MP_VALUE_INT64, MP_VALUE_UINT64 };

/* What the cdata at `index` is; its 8 bytes go to `bits`. */
enum mp_value_int mp_value_get_int(lua_State *L, int index, uint64_t *bits);
/* Pushes a new int64_t or uint64_t cdata. */
void mp_value_push_int(lua_State *L, enum mp_value_int kind, uint64_t bits);

enum mp_value_mark { MP_VALUE_UNMARKED, MP_VALUE_ARRAY, MP_VALUE_BYTES };

/* The mark of the table at `index`; other metatables are none. */
enum mp_value_mark mp_value_mark_of(lua_State *L, int index);

/* Fills `error` (which may be NULL) and returns `err`. The path is left alone. */
enum mp_err mp_value_fail(struct mp_value_error *error, enum mp_err err, const char *message,
                          const char *hint);
