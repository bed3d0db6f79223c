/* A load generator over connections that already stand: it keeps a number of requests outstanding,
 * or sends them at a rate, and measures. What a request and an answer look like is told by a
 * struct mp_load_protocol, so that other servers can be measured by exactly the same code.
 *
 * Nothing is allocated per call; per loop turn and connection there is one read, one clock reading
 * and one write. It does not spin: between answers it sleeps in epoll. */
#pragma once

#include <signal.h>

#include "src/base/alloc.h"
#include "src/base/compiler.h"
#include "src/base/err.h"
#include "src/base/slice.h"
#include "src/client/histogram.h"

#define MP_LOAD_OUTSTANDING_MAX 65536 /* more: refused */
#define MP_LOAD_CONNECTIONS_MAX 4096  /* more: refused */
#define MP_LOAD_KINDS_MAX       64    /* kinds of error told apart; the others count as the last */
#define MP_LOAD_KIND_BYTES      96

struct mp_load_answer {
    size_t size;   /* the whole answer */
    uint32_t slot; /* which request it answers; not read if answers come in order */
    bool is_none;  /* it answers no request: passed over */
    bool is_error;
    char kind[MP_LOAD_KIND_BYTES]; /* of an error: CODE/REASON */
};

struct mp_load_protocol {
    struct mp_slice request; /* as sent, but for its first prefix_bytes (at most 64) */
    size_t prefix_bytes;
    /* Makes the prefix that of slot `slot`; NULL if answers come in order. */
    void (*patch)(uint8_t *prefix, uint32_t slot);
    /* The first answer in `bytes`: MP_OK with `*a` filled (it came zeroed but for `kind`), or
     * MP_EAGAIN, with a->size if it can be known already, else 0; anything else ends the
     * connection. */
    enum mp_err (*parse)(void *context, struct mp_slice bytes, struct mp_load_answer *a);
    void *context;
};

struct mp_load_config {
    const struct mp_load_protocol *protocol;
    struct mp_alloc *alloc;
    const int *fds; /* connected, non-blocking; stay the caller's */
    uint32_t connections;
    uint32_t outstanding; /* of all connections together, at least one each */
    mp_duration duration;
    mp_duration drain;  /* how long answers are awaited after that */
    uint64_t calls_max; /* stop after so many; 0: no limit */
    double rate;        /* calls/s; 0: as fast as answers come */
    /* Counts interrupts: the first ends the measurement, the second also the drain. May be NULL. */
    const volatile sig_atomic_t *interrupts;
};

struct mp_load_result {
    uint64_t calls;      /* ended with a result */
    uint64_t errors;     /* ended otherwise, or not at all */
    uint64_t unsent;     /* at a rate: due, but the outstanding ones were too many to send them */
    mp_duration elapsed; /* from the first request to the last answer */
    bool is_interrupted;
    uint32_t kinds_count;
    struct {
        char name[MP_LOAD_KIND_BYTES];
        uint64_t count;
    } kinds[MP_LOAD_KINDS_MAX];
    /* Of calls with a result. At a rate, a latency counts from when the call was due. */
    struct mp_histogram latencies;
};

/* MP_EINVAL if the numbers do not fit together, MP_ENOMEM, MP_EIO if the system refuses a
 * descriptor. Lost connections are counted as errors of their calls (UNAVAILABLE/CONNECTION_LOST),
 * calls without an answer too (DEADLINE_EXCEEDED/NO_ANSWER). */
MP_MUST_USE enum mp_err mp_load_run(const struct mp_load_config *config,
                                    struct mp_load_result *result);
