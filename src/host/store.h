/* What must not be lost of deployed code: units and the history's entries, in the file mpreg.db of
 * the data folder. Everything but mp_store_open and mp_store_stop returns at once; answers come on
 * the loop's thread, never from inside a call. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "src/base/buf.h"
#include "src/base/compiler.h"
#include "src/base/slice.h"
#include "src/base/text.h"

struct mp_store;

struct mp_store_answer {
    bool is_missing; /* no whole unit of that hash is kept */
    bool is_error;
    struct mp_slice error;       /* an ERROR map, if is_error */
    struct mp_slice unit;        /* that was read */
    struct mp_slice description; /* of it */
};

/* `a` and what it points at is borrowed for the call. */
typedef void (*mp_store_on_answer)(void *context, uint64_t ticket, const struct mp_store_answer *a);

/* Opens the file in `dir`, making it if need be, and appends an array of all entries that were kept
 * to `entries`. A temporary folder's file is not synced. False: `why` says what is wrong, with the
 * path, and what to do. */
bool mp_store_open(struct mp_store **own_out, const char *dir, bool is_temporary,
                   struct mp_buf *entries, struct mp_text *why);
/* Starts the thread. `context` is what on_answer gets; `node` is named in errors, and borrowed
 * until close. False: `why`. */
bool mp_store_start(struct mp_store *s, uv_loop_t *loop, const char *node, void *context,
                    struct mp_text *why);

/* Keeps a unit by its hash, in place of what may be there. Answered once it is on the disk. */
void mp_store_keep_unit(struct mp_store *s, uint64_t ticket, struct mp_slice unit,
                        struct mp_slice description, mp_store_on_answer on_answer);
/* Keeps the elements of an array of entries, behind those kept before. */
void mp_store_keep_entries(struct mp_store *s, uint64_t ticket, struct mp_slice entries,
                           mp_store_on_answer on_answer);
void mp_store_read_unit(struct mp_store *s, uint64_t ticket, struct mp_slice hash,
                        mp_store_on_answer on_answer);

/* Waits until what was asked for is on the disk, and ends the thread; no answer is given any more,
 * and nothing that is asked for later is done. The loop must run once again before close. NULL is
 * fine, and so is one that was not started. */
void mp_store_stop(struct mp_store *s);
/* After stop. NULL is fine. */
void mp_store_close(struct mp_store *s);
