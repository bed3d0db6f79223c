/* The load generator for topics: `mpreg bench pub`. One connection publishes, in batches, and
 * others subscribe; all of them in one thread, so that a node on one processor is measured by a
 * client on another. It blocks, and uses no event loop. */
#pragma once

#include <signal.h>

#include "src/base/alloc.h"
#include "src/base/buf.h"
#include "src/base/compiler.h"
#include "src/base/err.h"
#include "src/base/slice.h"
#include "src/client/histogram.h"

#define MP_PUB_LOAD_SUBSCRIBERS_MAX 4096 /* more: refused */
#define MP_PUB_LOAD_SIZE_MIN        8    /* bytes of a message's data: the time stands in them */

struct mp_pub_load_config {
    struct mp_alloc *alloc;
    const char *const *nodes; /* as for mp_client_connect; all connections go to the same one */
    uint32_t nodes_count;
    struct mp_slice topic;
    struct mp_slice pattern; /* of every subscriber */
    uint32_t subscribers;
    uint32_t size; /* bytes of a message's data, from MP_PUB_LOAD_SIZE_MIN to --value-max */
    mp_duration duration;
    mp_duration drain; /* once nothing has come for so long, nothing more is awaited */
    double rate;       /* messages/s; 0: a batch follows as soon as an earlier one is accepted */
    const volatile sig_atomic_t *interrupts; /* the first ends it; may be NULL */
};

struct mp_pub_load_result {
    uint64_t published;     /* accepted by the node */
    uint64_t delivered;     /* to all subscribers together, by the last of them */
    uint64_t dropped;       /* told to subscribers */
    mp_duration publishing; /* from the first batch to the last one's acceptance */
    mp_duration delivering; /* from the first batch to the last delivery */
    bool is_interrupted;
    /* From when a batch was made to when its first message was read, per frame of messages. */
    struct mp_histogram latencies;
};

/* Connects, subscribes, publishes for `duration`, and then awaits what was accepted. It is checked
 * that each subscriber gets its messages in order, and that what is missing was told.
 *
 * MP_ECLOSED: `error` holds the ERROR map: no node, a bad topic, a lost connection, or a broken
 * promise (DATA_LOSS). MP_EINVAL: the numbers do not fit, MP_ENOMEM, MP_EIO. */
MP_MUST_USE enum mp_err mp_pub_load_run(const struct mp_pub_load_config *config,
                                        struct mp_pub_load_result *result, struct mp_buf *error);
