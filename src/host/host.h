/* The host process of a node: a libuv loop around core/node. It moves bytes between sockets, worker
 * processes and the machine; it decides nothing. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/base/slice.h"

struct mp_host_resource {
    struct mp_slice name;
    struct mp_slice value; /* MessagePack; empty: a resource without data */
};

/* A number or a name, and a port. */
struct mp_host_address {
    const char *host;
    uint16_t port;
};

/* All slices and strings are borrowed until mp_host_run returns. */
struct mp_host_config {
    const char *name;
    const char *cluster;
    const char *host;                   /* to listen on: an address or a name */
    uint16_t port;                      /* 0: any free one */
    const char *advertise_host;         /* what others are told; NULL: where it listens */
    uint16_t advertise_port;            /* 0: the one it listens on */
    const struct mp_host_address *join; /* other nodes of the cluster */
    uint32_t join_count;
    const char *data_dir; /* what must outlive the node; NULL: a temporary folder */
    bool is_insecure;
    uint32_t workers;
    const struct mp_host_resource *resources;
    uint32_t resource_count;
    const char *const *load; /* files and folders of modules */
    uint32_t load_count;
    const char *modules_dir; /* of the functions that every node ships with */
    const char *lua_dir;     /* of the Lua library; workers load it from there */
    uint64_t call_timeout_ms;
    uint64_t run_timeout_ms;
    uint64_t worker_memory;
    uint64_t value_max;
    uint32_t calls_begun_max;
    uint32_t calls_queued_max;
    uint32_t call_depth_max;
    uint32_t graph_steps_max;
    uint32_t runs_kept;
    uint64_t runs_kept_bytes;
    uint64_t runs_kept_age_ms;
    uint64_t drain_ms;
    int log_level; /* 0 debug, 1 info, 2 warn, 3 error */
    bool is_log_json;
};

/* Runs a node until it is told to stop. Returns the exit code: 0 after a clean stop, 1 if it could
 * not start (the reason is on stderr), 128 + the signal's number if a second signal cut the stop
 * short. */
int mp_host_run(const struct mp_host_config *cfg);
