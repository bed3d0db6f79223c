/* The runs that a node keeps: their heads always, their bodies in memory while they are young, and
 * everything on the disk a moment later. Opaque bytes all of them; a head is small and says what a
 * list of runs shows, a body is the rest of a record, a part is detail that is kept beside it (a
 * large result, the events of a run that goes on).
 *
 * Nothing waits for the disk. A run that goes on is written at once; one that has ended is written
 * behind: after MP_ARCHIVE_DELAY_MS, a bounded number of bytes at a time, so a run that is pushed
 * out before its turn comes costs no write. What the disk cannot take in time is dropped and
 * counted: parts first, then the oldest bodies.
 *
 * Kept are at most count_max runs, bytes_max bytes and what is no older than age_ms_max; the oldest
 * goes first, but none that still goes on, and not the one that was put last. */
#pragma once

#include <stdbool.h>

#include "src/base/alloc.h"
#include "src/base/compiler.h"
#include "src/base/err.h"
#include "src/base/limits.h"
#include "src/base/slice.h"
#include "src/base/time.h"

#define MP_ARCHIVE_NONE UINT32_MAX

struct mp_archive;

struct mp_archive_config {
    uint32_t count_max;  /* from 1 to MP_ARCHIVE_RUNS_MAX */
    uint64_t bytes_max;  /* heads, bodies and parts */
    uint64_t age_ms_max; /* since the run began */
};

enum mp_archive_event_kind {
    MP_ARCHIVE_RESTORED, /* put: a head that is on the disk already, with its `bytes`; no body */
    MP_ARCHIVE_PUT,      /* put: replaces what was put under the id before, its progress too */
    MP_ARCHIVE_PUT_PART, /* part */
    MP_ARCHIVE_LOST,     /* lost: what was put of it while it went on is all that will come */
    MP_ARCHIVE_KEPT,     /* kept: the end of KEEP or KEEP_PART */
    MP_ARCHIVE_FLUSH, /* the node ends: what waits is written now, MP_ARCHIVE_STEP_RECORDS a step,
                         until mp_archive_is_flushed() */
    MP_ARCHIVE_TIMER
};

struct mp_archive_event {
    enum mp_archive_event_kind kind;
    int64_t wall_ms; /* Unix time; of all but KEPT */
    union {
        struct {
            struct mp_slice run_id; /* MP_RUN_ID_BYTES; copied, as all of these */
            int64_t started_ms;     /* Unix time */
            bool goes_on;           /* RESTORED: it did when its node died */
            uint64_t bytes;         /* RESTORED: of its body and parts */
            struct mp_slice head;   /* not empty */
            struct mp_slice body;   /* PUT: not empty */
        } put;
        struct {
            struct mp_slice run_id; /* of a run that was put */
            struct mp_slice name;
            struct mp_slice bytes;
            bool is_progress; /* the next PUT of the run takes its place, on the disk too */
        } part;
        struct {
            struct mp_slice run_id;
        } lost;
        struct {
            uint64_t ticket;
            bool is_error;
        } kept;
    };
};

enum mp_archive_effect_kind {
    MP_ARCHIVE_KEEP,      /* write head and body, in place of what there is; KEPT follows */
    MP_ARCHIVE_KEEP_PART, /* write a part; KEPT follows */
    MP_ARCHIVE_FORGET     /* delete everything of the run */
};

struct mp_archive_effect {
    enum mp_archive_effect_kind kind;
    uint64_t ticket; /* below 2^32 */
    char run_id[MP_RUN_ID_BYTES];
    struct mp_slice name; /* KEEP_PART */
    struct mp_slice head; /* KEEP */
    struct mp_slice body; /* KEEP; KEEP_PART: the part */
};

/* Valid, with all slices, until the next step. */
struct mp_archive_effects {
    const struct mp_archive_effect *items;
    uint32_t count;
};

struct mp_archive_run {
    char run_id[MP_RUN_ID_BYTES];
    int64_t started_ms;
    bool goes_on;
    bool is_lost;         /* it went on when its node died, or its end could not be put */
    bool is_bodyless;     /* its body was dropped before the disk had it */
    struct mp_slice head; /* borrowed until the next step */
    struct mp_slice body; /* the same; empty: read it from the disk, unless is_bodyless */
};

MP_MUST_USE enum mp_err mp_archive_new(struct mp_archive **own_out,
                                       const struct mp_archive_config *cfg, struct mp_alloc *a);
/* MP_ENOMEM: a run is not kept, or detail of it, or not all that FLUSH is about sets out;
 * everything else is as before, and `out` is to be carried out. MP_ENOENT: PUT_PART for a run that
 * is not here. MP_EFULL: PUT_PART, the disk is too far behind; the part is dropped and counted. */
MP_MUST_USE enum mp_err mp_archive_step(struct mp_archive *a, mp_time now,
                                        const struct mp_archive_event *ev,
                                        struct mp_archive_effects *out);
mp_time mp_archive_deadline(const struct mp_archive *a);
void mp_archive_free(struct mp_archive *a);

/* A run's place by its id; MP_ARCHIVE_NONE. Places are good until the next step. */
uint32_t mp_archive_find(const struct mp_archive *a, struct mp_slice run_id);
/* The run that was put last for the first time, and the one before another; MP_ARCHIVE_NONE at the
 * end. */
uint32_t mp_archive_newest(const struct mp_archive *a);
uint32_t mp_archive_older(const struct mp_archive *a, uint32_t place);
void mp_archive_get(const struct mp_archive *a, uint32_t place, struct mp_archive_run *run);
uint32_t mp_archive_count(const struct mp_archive *a);
uint64_t mp_archive_bytes(const struct mp_archive *a);
/* Details that were dropped, for want of memory, or because the disk was too slow or refused them.
 */
uint64_t mp_archive_dropped(const struct mp_archive *a);
/* Whether everything that was put is on its way to the disk. */
bool mp_archive_is_flushed(const struct mp_archive *a);
/* Bytes that a part may have now without being dropped. */
uint64_t mp_archive_room(const struct mp_archive *a);
