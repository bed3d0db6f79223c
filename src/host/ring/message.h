/* What travels in the rings between the host and a worker. Each record's body starts with one of
 * these structs (fixed size, native byte order: both sides are the same program), followed by the
 * variable parts in the order given. Payload bytes are in place, or, with MP_RING_LARGE, in the
 * sender's arena at `at`; the reader sends MP_MSG_RELEASE back when it is done with them.
 *
 * Start of a worker: the host sends CONFIG first, then a LOAD for every module. Calls come after
 * their module. A worker's descriptors are fixed (below); it ends when STOP was read and nothing
 * runs, or when its host is gone. */
#pragma once

#include <stdint.h>

/* Record flags */
#define MP_RING_LARGE    0x1u  /* the payload is in the sender's arena at `at` */
#define MP_RING_ERROR    0x2u  /* the payload is an ERROR map */
#define MP_RING_DESCRIBE 0x4u  /* LOAD: answer with the module's metadata */
#define MP_RING_RETIRE   0x8u  /* COMPLETED: the worker wants to be replaced (memory limit) */
#define MP_RING_MORE     0x10u /* LOAD: more modules of the same set follow */

/* Descriptors of a worker process. */
enum mp_worker_fd {
    MP_WORKER_FD_CHANNEL = 3,    /* the channel */
    MP_WORKER_FD_WAKE = 4,       /* eventfd: written by the host when the worker sleeps */
    MP_WORKER_FD_WAKE_HOST = 5,  /* eventfd: written by the worker when the host sleeps */
    MP_WORKER_FD_HOST_ARENA = 6, /* the host's arena, read-only */
    MP_WORKER_FD_OWN_ARENA = 7   /* the worker's own arena, which the host reads */
};

enum mp_ring_kind {
    /* host -> worker */
    MP_MSG_CONFIG = 1,
    MP_MSG_LOAD,
    MP_MSG_INVOKE,
    MP_MSG_RESULT,
    MP_MSG_CANCEL,
    MP_MSG_STOP,
    MP_MSG_UNLOAD,
    MP_MSG_OPEN_RELEASE,
    MP_MSG_CLOSE_RELEASE,
    /* worker -> host */
    MP_MSG_LOADED,
    MP_MSG_COMPLETED,
    MP_MSG_NESTED,
    MP_MSG_NESTED_CANCEL,
    MP_MSG_LOG,
    MP_MSG_PUBLISH,
    /* both */
    MP_MSG_RELEASE
};

/* CONFIG: payload = map {node, cluster, addr, worker (index from 1), resources {name: value},
 * memory_bytes_max, value_bytes_max, lua_path}. */
struct mp_msg_config {
    uint32_t size;
    uint32_t spare;
};

/* LOAD: name, expected, source. `expected` is empty or a MessagePack array of function names: then
 * function i is the i-th of them (a missing one raises NOT_FOUND when called). Without it,
 * functions are numbered by the sorted order of their names. The source may be LARGE.
 *
 * Modules may require one another in any order: sources are kept as they are read, and the modules
 * run when a LOAD without MP_RING_MORE was read.
 *
 * Unit 0 are the modules of the node's own files. Any other unit was deployed: `require` in it
 * finds its own modules first. A unit's LOADs come behind each other, the last one without
 * MP_RING_MORE. */
struct mp_msg_load {
    uint32_t module;
    uint32_t unit;
    uint32_t name_size;
    uint32_t expected_size;
    uint32_t source_size;
    uint64_t at;
};

/* LOADED: payload = the metadata map, nil (not asked for), or with MP_RING_ERROR an ERROR map.
 * Metadata: {"kind": "module"|"pipeline", "version": "1.0.0", "functions": [{"name", "doc",
 * "params": [{"name","type","doc"}], "returns", "needs": [], "concurrency", "timeout_ms",
 * "idempotent"}], "graph": {…}, "name": pipeline's name, "doc"}; absent fields are left out. */
struct mp_msg_loaded {
    uint32_t module;
    uint32_t size;
    uint64_t at;
};

/* UNLOAD: no call of this unit comes any more, and none runs. Its number, and those of its modules,
 * may be given to others from now on. */
struct mp_msg_unload {
    uint32_t unit;
    uint32_t spare;
};

/* OPEN_RELEASE: payload = an array of [module's name, unit, module's number]: what `require` finds
 * in calls of that release, besides the caller's own unit and the libraries. It comes before the
 * first call that has it, and after the LOADs of its units. CLOSE_RELEASE: no call has it any more;
 * without a payload. Release 0 is always open and has no entries. */
struct mp_msg_release_set {
    uint32_t release;
    uint32_t size;
};

/* INVOKE: context, args. context is empty or a MessagePack array [run_id, step, index, attempt,
 * caller] (nil where there is none); args a MessagePack array, maybe LARGE. The worker moves the
 * record's state from READY to BEGUN before it reads the body, and passes over a REVOKED one. */
struct mp_msg_invoke {
    uint64_t call;
    uint32_t module;
    uint32_t function;
    uint32_t release;
    uint32_t spare;
    uint64_t deadline; /* CLOCK_MONOTONIC, ns; UINT64_MAX: none */
    uint32_t context_size;
    uint32_t args_size;
    uint64_t at;
};

/* COMPLETED: payload = the result, or with MP_RING_ERROR an ERROR map. Exactly one for each call
 * that the worker began, also after CANCEL. */
struct mp_msg_completed {
    uint64_t call;
    uint64_t begun_at; /* CLOCK_MONOTONIC, ns: its function was entered */
    uint64_t ended_at; /* it returned or failed */
    uint64_t run_ns;   /* of this it had the CPU: without waiting for calls and sleeps */
    uint32_t size;
    uint32_t spare;
    uint64_t at;
};

/* NESTED: options, fun, args. A call that a function made; `nested` is the worker's own number for
 * it. options is empty or a map {needs, version, on, timeout_ms, retries}. */
struct mp_msg_nested {
    uint64_t parent;
    uint64_t nested;
    uint32_t options_size;
    uint32_t fun_size;
    uint32_t args_size;
    uint32_t spare;
    uint64_t at;
};

/* RESULT: of a nested call; payload as in COMPLETED. Exactly one for each NESTED whose parent still
 * lives in the worker; the worker passes over numbers that it does not know. */
struct mp_msg_result {
    uint64_t nested;
    uint32_t size;
    uint32_t spare;
    uint64_t at;
};

/* CANCEL: the call is no longer wanted: its coroutine is resumed with a CANCELLED error (payload,
 * an ERROR map), and COMPLETED still comes. NESTED_CANCEL: `id` is a nested number. */
struct mp_msg_cancel {
    uint64_t id;
    uint32_t size;
    uint32_t spare;
};

/* LOG: payload = map {"message", "fields"}. level: 0 debug, 1 info, 2 warn, 3 error. */
struct mp_msg_log {
    uint64_t call; /* 0: none */
    uint32_t level;
    uint32_t size;
};

/* PUBLISH: payload = an array [topic, data] that a function publishes, of a topic that it may
 * publish to. Nothing comes back; the node has it before what the worker sends afterwards. */
struct mp_msg_publish {
    uint32_t size;
    uint32_t spare;
    uint64_t at;
};

/* RELEASE: the block that starts at `at` in the receiver's arena is free again. */
struct mp_msg_release {
    uint64_t at;
};
