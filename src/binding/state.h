/* A Lua state whose memory is counted and bounded. */
#pragma once

#include <lua.h>
#include <stdbool.h>
#include <stddef.h>

#include "src/base/compiler.h"
#include "src/base/err.h"

struct mp_state {
    /* read */
    lua_State *L;
    size_t bytes;     /* in use, garbage included */
    size_t bytes_max; /* may be changed at any time; 0: no limit */
    bool is_refused;  /* "not enough memory" was raised since mp_state_recover */
    /* private */
    bool is_pressed; /* the limit was met, and the hook has not run yet */
    size_t granted;  /* above bytes_max, for whoever handles the error */
};

/* Opens a state with the standard libraries (its chunks are those of chunk.h), `require
 * "mpreg.codec"` and the values' markers. `s` must stay where it is until close. MP_ENOMEM. */
MP_MUST_USE enum mp_err mp_state_open(struct mp_state *s, size_t bytes_max);
/* Accepts a zeroed state; idempotent. */
void mp_state_close(struct mp_state *s);

/* After "not enough memory": collects all garbage. True if there is room again; else the state is
 * given a little more, so that what runs in it can end. May raise (from finalizers). */
bool mp_state_recover(struct mp_state *s);

/* Makes package.path and package.cpath these texts (NULL: as it is). May raise. */
void mp_state_set_path(lua_State *L, const char *path, const char *cpath);
