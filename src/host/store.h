/* What a node keeps on its disk. Of deployed code, in the file mpreg.db of the data folder, nothing
 * may be lost: units and the history's entries. Of runs and messages, in runs.db, the last moments
 * may be, if the machine loses its power. Everything but mp_store_open and mp_store_stop returns at
 * once; answers come on the loop's thread, never from inside a call. */
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
    bool is_missing; /* what was to be read is not kept */
    bool is_error;
    struct mp_slice error;       /* an ERROR map, if is_error */
    struct mp_slice found;       /* what was read: a unit, a run, a part */
    struct mp_slice description; /* of a unit that was read */
};

/* `a` and what it points at is borrowed for the call. */
typedef void (*mp_store_on_answer)(void *context, uint64_t ticket, const struct mp_store_answer *a);

/* Arrays of what was kept. */
struct mp_store_restored {
    struct mp_buf entries;
    struct mp_buf heads;    /* of runs, in the order in which they were kept first */
    struct mp_buf messages; /* [topic, seq, at, data], by seq */
};
void mp_store_restored_init(struct mp_store_restored *r);
void mp_store_restored_fini(struct mp_store_restored *r);

/* Opens the files in `dir`, making them if need be, and gives what was kept: `out` is empty before,
 * and after a failure. A temporary folder's files are not synced. False: `why` says what is wrong,
 * with the path, and what to do. A runs.db that is damaged, or of another version, is no failure:
 * it is moved to runs.db.damaged-1 (or another number, to 9), and a new one begun. */
bool mp_store_open(struct mp_store **own_out, const char *dir, bool is_temporary,
                   struct mp_store_restored *out, struct mp_text *why);
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

/* Of runs and messages. What is asked here is done in order, and waits for what is asked of code;
 * never the other way round for longer than one transaction takes. `run` is a run's id; `which` the
 * MessagePack array [run's id, part's name].
 *
 * Keeps `record`, the array [head, body], in place of what was kept of the run and of its parts
 * "progress/…"; its other parts stay. */
void mp_store_keep_run(struct mp_store *s, uint64_t ticket, struct mp_slice run,
                       struct mp_slice record, mp_store_on_answer on_answer);
/* Keeps bytes as a part, in place of what it was. Parts of a run of which no head is kept are
 * deleted when the file is opened. */
void mp_store_keep_run_part(struct mp_store *s, uint64_t ticket, struct mp_slice which,
                            struct mp_slice bytes, mp_store_on_answer on_answer);
/* Head, body and all parts. */
void mp_store_forget_run(struct mp_store *s, struct mp_slice run);
/* Finds the array [head, body, [part "progress/…" as bin, by name …]]. */
void mp_store_read_run(struct mp_store *s, uint64_t ticket, struct mp_slice run,
                       mp_store_on_answer on_answer);
void mp_store_read_run_part(struct mp_store *s, uint64_t ticket, struct mp_slice which,
                            mp_store_on_answer on_answer);
/* An array of [topic, seq, at, data]; one of a topic and seq that is kept takes its place. */
void mp_store_keep_messages(struct mp_store *s, uint64_t ticket, struct mp_slice messages,
                            mp_store_on_answer on_answer);
/* An array of [topic, seq]: that topic's messages up to and with seq. */
void mp_store_forget_messages(struct mp_store *s, struct mp_slice messages);

/* Waits until what was asked for is on the disk, and ends the thread; no answer is given any more,
 * and nothing that is asked for later is done. The loop must run once again before close. NULL is
 * fine, and so is one that was not started. */
void mp_store_stop(struct mp_store *s);
/* After stop. NULL is fine. */
void mp_store_close(struct mp_store *s);
