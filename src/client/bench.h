/* The load generator for nodes: `mpreg bench`. It blocks, and uses no event loop. */
#pragma once

#include "src/base/buf.h"
#include "src/client/load.h"
#include "src/wire/frame.h"

struct mp_bench_config {
    struct mp_alloc *alloc;
    const char *const *nodes; /* as for mp_client_connect */
    uint32_t nodes_count;
    /* Calls of options.fun with `payload` (an array of arguments), or, if is_run, runs of `payload`
     * (a graph, or pipeline and input). */
    bool is_run;
    struct mp_call_options call;
    struct mp_run_options run;
    struct mp_slice payload;
    uint32_t outstanding; /* in flight at once, over all connections */
    uint32_t connections;
    mp_duration duration;
    double rate;                             /* calls/s; 0: the next call follows an answer */
    const volatile sig_atomic_t *interrupts; /* as in load.h */
};

/* Connects, sends one call before the clock starts (whose connection, first allocation and first
 * compilation are thereby not measured), then measures for `duration`, then awaits what is still
 * outstanding. A call ends well with a RESULT, a run with one whose status is `succeeded`.
 *
 * MP_ECLOSED: nothing was measured, `error` holds the ERROR map: no node, or the first call was
 * refused because nothing like it can run (unknown function, bad argument …; other errors of the
 * first call do not matter). MP_EINVAL: the numbers do not fit together (see load.h), MP_ETOOLARGE:
 * the request is too large for a frame, MP_ENOMEM, MP_EIO. */
MP_MUST_USE enum mp_err mp_bench_run(const struct mp_bench_config *config,
                                     struct mp_load_result *result, struct mp_buf *error);
