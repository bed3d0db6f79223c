/* What the files of the worker share. One process has one worker and one Lua state.
 *
 * Where Lua errors can arise: the loop enters Lua through one protected call per batch (loop.c);
 * functions run in coroutines, which catch their own errors. So whatever in here takes memory of
 * Lua is called either in that protected call or in a coroutine. */
#pragma once

#include <lua.h>
#include <stdbool.h>
#include <stdint.h>

#include "src/base/buf.h"
#include "src/base/heap.h"
#include "src/base/map.h"
#include "src/binding/state.h"
#include "src/host/ring/arena.h"
#include "src/host/ring/message.h"
#include "src/host/ring/ring.h"
#include "src/wire/error.h"

#define MP_WORKER_NONE UINT32_MAX

/* --- outbox.c --- */

enum mp_outbox_place {
    MP_OUTBOX_CLOSED,
    MP_OUTBOX_RING,    /* the payload grows in a reserved record */
    MP_OUTBOX_SCRATCH, /* in a buffer of the worker's: the ring is short of room */
    MP_OUTBOX_ARENA,   /* in a block of the own arena */
    MP_OUTBOX_HEAP     /* large, and the arena is full */
};

/* A message that waits for room. */
struct mp_held {
    struct mp_held *next;
    uint16_t kind;
    uint16_t flags;
    uint32_t body_size;
    uint8_t *payload; /* large, still to be put into the arena; NULL if there is none */
    size_t payload_size;
    uint8_t body[];
};

struct mp_outbox {
    /* read: while a payload is written */
    struct mp_buf payload;
    /* private */
    struct mp_alloc alloc;
    enum mp_outbox_place place;
    struct mp_ring_record *record; /* reserved for what is being written, or NULL */
    uint64_t at;                   /* the arena block */
    uint32_t lead;                 /* bytes in the record before the payload */
    uint8_t *scratch;
    struct mp_held *first; /* in order; while there are any, everything new goes behind them */
    struct mp_held *last;
    size_t held_bytes;
    uint32_t unpublished;
};

/* --- modules and calls --- */

struct mp_function {
    int ref; /* LUA_NOREF: the module lacks it */
    bool empty_is_array;
    bool is_known; /* it has run */
    uint64_t mean_ns;
};

/* A module's functions as one instance of it has them (lua/mpreg/runtime/module.lua). */
struct mp_instance {
    struct mp_instance *next;
    uint32_t id;
    uint32_t count;
    struct mp_function functions[];
};

/* Which instance a release's calls enter. */
struct mp_serving {
    uint32_t release;
    struct mp_instance *instance;
};

struct mp_module {
    bool is_loaded;
    uint32_t unit;
    struct mp_instance *fixed; /* serves every release; NULL: see below */
    struct mp_instance *instances;
    struct mp_serving *servings; /* releases that were asked for, in no order */
    uint32_t serving_count;
    uint32_t serving_capacity;
};

/* A LOAD that was read and not yet carried out. */
struct mp_pending_load {
    struct mp_pending_load *next;
    uint32_t module;
    bool is_described;
};

/* A nested call whose result has not come. */
struct mp_nested {
    uint32_t generation;
    uint32_t call;     /* slot, or MP_WORKER_NONE if free */
    uint32_t position; /* the caller's number for it */
    uint32_t next;
    uint32_t previous;
};

/* A call that was begun, and the coroutine that it runs on. Slots are reused. */
struct mp_call {
    uint64_t id;
    uint64_t begun_at;
    uint64_t run_ns;
    uint64_t deadline;
    struct mp_function *function; /* NULL: the slot is free */
    uint32_t module;
    uint32_t release;
    uint32_t number; /* the function's, in its module */
    lua_State *co;   /* NULL: the slot has none now */
    int co_ref;
    uint32_t slot;
    uint32_t nested_first; /* list of its outstanding nested calls */
    uint32_t nested_count;
    bool is_co_new; /* its body has not begun */
    bool is_parked; /* waits, and is in `parked` */
    bool is_cancelled;
    bool has_text; /* wrote part of a line */
    struct mp_buf context;
    struct mp_buf cancelled; /* the ERROR map of the cancellation */
};

enum mp_outcome { MP_OUTCOME_NONE, MP_OUTCOME_DONE, MP_OUTCOME_WAIT };

/* What a parked call is resumed with. */
struct mp_event {
    uint32_t position;
    bool is_error;
    bool has_value;
    struct mp_slice value;
};

struct mp_worker {
    struct mp_channel channel;
    struct mp_arena *arena;
    struct mp_arena_view host_arena;
    struct mp_alloc alloc;
    struct mp_state state;
    struct mp_outbox outbox;
    uint64_t now; /* of the last switch */

    /* configuration */
    struct mp_buf config; /* the map that the host sent */
    struct mp_slice resources;
    size_t value_bytes_max;
    size_t memory_bytes_max;
    bool is_configured;
    bool is_stopping;
    bool did_something;
    bool wants_collect; /* the memory limit was met: collect before anything else */
    bool wants_tidying;
    uint64_t untidy_since;

    /* Lua functions and tables of lua/mpreg/runtime, as registry references */
    int turn_ref;
    int body_ref;
    int add_ref;
    int load_ref;
    int unload_ref;
    int open_ref;
    int close_ref;
    int failure_ref;
    int flush_ref;
    int error_metatable_ref;

    struct mp_module *modules; /* by the host's number */
    uint32_t module_count;
    struct mp_instance *gone;    /* forgotten; freed once no call is in them */
    struct mp_function entering; /* what calls enter whose module has no instance for them yet */
    bool is_loading;             /* modules are being run */
    struct mp_pending_load *load_first;
    struct mp_pending_load *load_last;
    bool is_set_open;   /* more of the modules that belong together are to come */
    uint64_t set_until; /* but not after this time */

    struct mp_call **calls;
    uint32_t call_count;
    uint32_t call_capacity;
    uint32_t *free_calls; /* stack of slots */
    uint32_t free_count;
    uint32_t *timer_places;
    struct mp_heap timers;
    struct mp_map parked; /* id -> slot */
    uint32_t running_count;
    struct mp_nested *nested;
    uint32_t nested_count;
    uint32_t nested_free;

    /* the call that has the CPU */
    struct mp_call *call;
    struct mp_slice args;
    uint64_t args_block; /* host's arena block to release; MP_ARENA_NONE */
    enum mp_outcome outcome;
    uint16_t outcome_flags;
    struct mp_event event;

    /* sleeping */
    uint64_t spin_ns;
    uint64_t hog_until; /* no spinning before: somebody computes on this core */
    uint64_t hog_pause;
    uint32_t sleeps;
    uint32_t short_sleeps;
};

/* The only clock. */
uint64_t mp_worker_now(void);
/* There is garbage to collect when the worker is idle. */
void mp_worker_want_tidying(struct mp_worker *w);

/* Starts a message whose body is `lead` bytes and then a payload that the caller appends to
 * w->outbox.payload; size_max bounds it (0: no bound). One at a time. */
void mp_outbox_open(struct mp_worker *w, uint32_t lead, size_t size_max);
/* Makes room for a payload of about `size` bytes whose byte `aligned_at` should be aligned. */
void mp_outbox_expect(struct mp_worker *w, size_t size, unsigned aligned_at);
/* Forgets the message, if one is open. */
void mp_outbox_abort(struct mp_worker *w);
/* Ends it. The lead consists of `header` (a struct of message.h, whose `at` is filled in) and
 * `more`. */
void mp_outbox_close(struct mp_worker *w, uint16_t kind, uint16_t flags, struct mp_slice header,
                     const struct mp_slice *more, unsigned more_count);
/* The size of the payload so far. */
uint32_t mp_outbox_size(const struct mp_worker *w);
/* A message without a payload. */
void mp_outbox_send(struct mp_worker *w, uint16_t kind, struct mp_slice body);
/* Tells the host that it may have a block of its arena back. */
void mp_outbox_release(struct mp_worker *w, uint64_t at);
/* Makes what was sent visible, and wakes the host if it sleeps. */
void mp_outbox_publish(struct mp_worker *w);
/* Sends what waits, as far as there is room; true if nothing waits any more. */
bool mp_outbox_flush(struct mp_worker *w);
/* False while so much waits that logs are dropped. */
bool mp_outbox_takes_logs(const struct mp_worker *w);
/* Waits, without running anything else, until what a function publishes may be added to what waits
 * for the host; false if that takes too long. */
bool mp_outbox_await_room(struct mp_worker *w);
void mp_outbox_fini(struct mp_worker *w);

/* Ends with an ERROR payload in w->outbox.payload, without memory of Lua's. */
void mp_outbox_put_fault(struct mp_worker *w, const struct mp_fault *f);

/* --- call.c --- */
void mp_call_invoke(struct mp_worker *w, struct mp_ring_record *record);
void mp_call_result(struct mp_worker *w, struct mp_ring_record *record);
void mp_call_cancel(struct mp_worker *w, struct mp_ring_record *record);
void mp_call_fire_timers(struct mp_worker *w);
/* After Lua raised out of the protected call: answers the call that it was about. */
void mp_call_recover(struct mp_worker *w);
/* take() and give(…) of the coroutines' body. */
int mp_call_take(lua_State *L);
int mp_call_give(lua_State *L);
/* called() → module, release of the call that enters; enter(functions, marks, id, is_fixed) keeps
 * the instance that was found, and gives the function. */
int mp_call_called(lua_State *L);
int mp_call_enter(lua_State *L);
/* Whether a call is in one of an instance's functions. */
bool mp_call_is_in(const struct mp_worker *w, const struct mp_instance *instance);
/* Forgets what the call still waits for, and tells the host. */
void mp_call_drop_nested(struct mp_worker *w, struct mp_call *call);
void mp_call_fini(struct mp_worker *w);

/* --- library.c --- */
/* Pushes the table of C functions that lua/mpreg uses. */
void mp_library_push(struct mp_worker *w, lua_State *L);
/* Raises an ERROR table. */
int mp_library_raise(struct mp_worker *w, lua_State *L, enum mp_code code, const char *reason,
                     const char *message, const char *hint);

/* --- module.c --- */
void mp_module_read(struct mp_worker *w, struct mp_ring_record *record);
/* Loads what was read. */
void mp_module_load_pending(struct mp_worker *w);
void mp_module_unload(struct mp_worker *w, struct mp_ring_record *record);
void mp_module_open_release(struct mp_worker *w, struct mp_ring_record *record);
void mp_module_close_release(struct mp_worker *w, struct mp_ring_record *record);
/* What a call enters; NULL if there is none: w->entering if the instance is still to be found. */
struct mp_function *mp_module_function(struct mp_worker *w, uint32_t module, uint32_t function,
                                       uint32_t release);
/* Keeps the functions of an instance: the list of them and that of their marks are at `list` and
 * the index after it. Known ones stay as they are. */
struct mp_instance *mp_module_keep(struct mp_worker *w, lua_State *L, uint32_t module, uint32_t id,
                                   int list);
/* `instance` serves a release, or (is_fixed) all. */
void mp_module_serve(struct mp_worker *w, uint32_t module, struct mp_instance *instance,
                     uint32_t release, bool is_fixed);
/* forget(module, id): the instance serves nobody any more; forget(): which ones serve whom is to be
 * asked anew. */
int mp_module_forget(lua_State *L);
void mp_module_fini(struct mp_worker *w);

/* --- config.c --- */
void mp_worker_configure(struct mp_worker *w, struct mp_ring_record *record);

/* --- loop.c --- */
/* Until STOP; returns the exit code. */
int mp_worker_loop(struct mp_worker *w);
/* The body of a record that the host wrote, cut to what it holds; an empty slice if it is shorter
 * than `least`. */
struct mp_slice mp_worker_body(struct mp_ring_record *record, size_t least);
/* Ends the process: the host broke a promise. */
MP_NORETURN void mp_worker_die(const char *why);
