/* What the micro-benchmarks share. */
#pragma once

#include <stdlib.h>
#include <time.h>

#include "src/core/node/node.h"
#include "src/host/host_internal.h"

static inline double bench_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static inline struct mp_node *bench_node(const char *name, uint64_t seed)
{
    struct mp_node *n = NULL;
    const struct mp_node_config cfg = {.name = mp_slice_str(name),
                                       .cluster = mp_slice_str("default"),
                                       .generation = 1,
                                       .workers = 1,
                                       .call_timeout = MP_SECONDS(30),
                                       .run_timeout = MP_SECONDS(30),
                                       .value_bytes_max = 1 << 20,
                                       .calls_begun_max = 4096,
                                       .calls_queued_max = 65536,
                                       .call_depth_max = 32,
                                       .graph_steps_max = 1000};
    if (mp_node_new(&n, &cfg, mp_host_alloc(), seed) != MP_OK)
        abort();
    return n;
}
