/* The worker process: everything that user code could harm lives here and nothing else does. It
 * dies with its host, writes no core file, gains no privileges, and leaves the terminal's signals
 * to the host. Its life is: take up the channel, read the configuration, loop (loop.c) until the
 * host says stop. */
#include "src/worker/worker.h"

#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "src/base/limits.h"
#include "src/binding/libc_alloc.h"
#include "src/worker/confine.h"
#include "src/worker/worker_internal.h"

static void confine(int argc, char **argv)
{
    const char *why = "a worker is started by its host";
    if (argc < 2 || !mp_confine(argv[1], &why))
        mp_worker_die(why);
}

static void take_up(struct mp_worker *w)
{
    w->alloc = mp_libc_alloc;
    w->args_block = MP_ARENA_NONE;
    w->nested_free = MP_WORKER_NONE;
    w->value_bytes_max = MP_VALUE_BYTES_MAX;
    w->memory_bytes_max = MP_WORKER_MEMORY_BYTES;
    mp_buf_init(&w->config, &w->alloc, 0);
    mp_heap_init(&w->timers, &w->alloc);
    mp_map_init(&w->parked, &w->alloc);
    if (mp_channel_open(&w->channel, MP_WORKER_FD_CHANNEL) != MP_OK ||
        mp_arena_view_open(&w->host_arena, MP_WORKER_FD_HOST_ARENA) != MP_OK ||
        mp_arena_open(&w->arena, MP_WORKER_FD_OWN_ARENA) != MP_OK)
        mp_worker_die("its descriptors are not those of a worker");
    if (mp_state_open(&w->state, w->memory_bytes_max) != MP_OK)
        mp_worker_die("out of memory");
}

static void leave(struct mp_worker *w)
{
    mp_state_close(&w->state);
    mp_module_fini(w);
    mp_call_fini(w);
    mp_outbox_fini(w);
    mp_buf_fini(&w->config);
    mp_arena_free(w->arena);
    mp_arena_view_close(&w->host_arena);
    mp_channel_close(&w->channel);
}

int mp_worker_main(int argc, char **argv)
{
    static struct mp_worker worker;
    confine(argc, argv);
    take_up(&worker);
    int code = mp_worker_loop(&worker);
    leave(&worker);
    return code;
}
