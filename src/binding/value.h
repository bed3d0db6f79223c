/* Lua values ⇄ MessagePack, on the Lua stack. The rules, with their reasons, are in value.c; what
 * users read of them is docs/values.md.
 *
 * Bad data never raises a Lua error: it comes back as an enum mp_err with the place in `error`. But
 * Lua itself raises when it is out of memory (growing its stack, making strings and tables), so
 * every function here must run under a protected call. Such an error leaves the out buffer with a
 * part behind its old end, and nothing leaks. Nothing here calls back into Lua code (metatables
 * are looked at, never obeyed), save into a helper of our own for 64-bit integers. */
#pragma once

#include <lua.h>

#include "src/base/buf.h"
#include "src/base/compiler.h"
#include "src/base/err.h"
#include "src/base/slice.h"

#define MP_VALUE_PATH_BYTES    256
#define MP_VALUE_MESSAGE_BYTES 128

/* Filled whole by what fails. */
struct mp_value_error {
    /* MP_EINVAL: the value cannot be sent (UNENCODABLE); MP_ETOOLARGE: the buffer's size_max;
     * MP_ENOMEM; from decoding also MP_ECORRUPT, MP_EDEPTH, MP_ETYPE */
    enum mp_err err;
    /* which argument, from 1, in the functions on argument lists; 0 else */
    uint32_t argument;
    /* inside the value, such as `.items[3].callback`; empty for the value itself */
    char path[MP_VALUE_PATH_BYTES];
    /* such as "a function cannot be sent" */
    char message[MP_VALUE_MESSAGE_BYTES];
    /* what to do about it; empty if there is nothing to say */
    char hint[MP_VALUE_MESSAGE_BYTES];
};

struct mp_value_options {
    /* the value itself, if an empty table, is an empty array (---@return T[]) */
    bool empty_is_array;
};

/* Prepares a state: the marker metatables and the helper for 64-bit integers. Once a state, after
 * the standard libraries were opened and before user code could change them; more often does
 * nothing. Needs the `package` library with `ffi` preloaded. */
void mp_value_open(lua_State *L);

/* Appends the value at `index` to `out`. `opt` and `error` may be NULL. The stack is as before. On
 * failure `out` is as before. */
MP_MUST_USE enum mp_err mp_value_encode(lua_State *L, int index, struct mp_buf *out,
                                        const struct mp_value_options *opt,
                                        struct mp_value_error *error);
/* Appends an array of the `count` stack values from `first` (an absolute index) on. */
MP_MUST_USE enum mp_err mp_value_encode_args(lua_State *L, int first, int count, struct mp_buf *out,
                                             struct mp_value_error *error);

/* Pushes the one value that `bytes` is, nil as Lua nil. Fails on bytes behind it. On failure
 * nothing is pushed. */
MP_MUST_USE enum mp_err mp_value_decode(lua_State *L, struct mp_slice bytes,
                                        struct mp_value_error *error);
/* Pushes the elements of the array that `bytes` is, one by one, at most MP_ARGS_MAX, and tells
 * their number. On failure nothing is pushed and `count` is untouched. */
MP_MUST_USE enum mp_err mp_value_decode_args(lua_State *L, struct mp_slice bytes, int *count,
                                             struct mp_value_error *error);

/* Push the metatable that marks an array (an empty table with it is an empty array, one with other
 * keys than 1 to n is refused) or bytes (the table's [1] is the string). */
void mp_value_push_array_metatable(lua_State *L);
void mp_value_push_bytes_metatable(lua_State *L);
