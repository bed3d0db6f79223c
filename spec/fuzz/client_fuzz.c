/* The client, whatever a server says after its preface: each request ends at most once, events come
 * only before its end, and once closed the client leaves nothing behind. */
#include <stdio.h>
#include <stdlib.h>
#include <uv.h>

#include "spec/support/alloc.h"
#include "src/base/assert.h"
#include "src/client/client.h"
#include "src/wire/error.h"

#define REQUESTS 3
#define TURNS    4

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct world {
    uv_loop_t loop;
    uv_tcp_t listener;
    uv_tcp_t peer;
    char address[32];
    bool has_peer;
    bool is_ready;
    bool is_refused;
    bool is_closed;
    bool is_peer_closed;
    uint64_t ids[REQUESTS];
    uint32_t ends[REQUESTS];
};

static struct world *world;

static void on_peer(uv_stream_t *server, int status)
{
    mp_assert(status == 0 && !world->has_peer);
    uv_tcp_init(&world->loop, &world->peer);
    mp_assert(uv_accept(server, (uv_stream_t *)&world->peer) == 0);
    world->has_peer = true;
}

static void open_world(void)
{
    struct sockaddr_in any;
    int size = sizeof(any);
    world = (struct world *)calloc(1, sizeof(*world));
    mp_assert(world && uv_loop_init(&world->loop) == 0);
    uv_ip4_addr("127.0.0.1", 0, &any);
    uv_tcp_init(&world->loop, &world->listener);
    uv_tcp_bind(&world->listener, (const struct sockaddr *)&any, 0);
    mp_assert(uv_listen((uv_stream_t *)&world->listener, 4, on_peer) == 0);
    uv_tcp_getsockname(&world->listener, (struct sockaddr *)&any, &size);
    snprintf(world->address, sizeof(world->address), "127.0.0.1:%d", ntohs(any.sin_port));
}

static void on_ready(void *context, struct mp_slice error)
{
    (void)context;
    world->is_ready = error.size == 0;
    world->is_refused = error.size != 0;
    uv_stop(&world->loop);
}

static void on_answer(void *context, uint64_t id, enum mp_client_answer answer,
                      struct mp_slice payload)
{
    struct mp_fault f;
    (void)context;
    uint32_t i = 0;
    while (i < REQUESTS && world->ids[i] != id)
        i++;
    mp_assert(i < REQUESTS && world->ends[i] == 0);
    if (answer != MP_CLIENT_EVENT)
        world->ends[i]++;
    if (answer == MP_CLIENT_ERROR)
        mp_assert(mp_fault_read(payload, &f) == MP_OK);
}

static void on_closed(void *context)
{
    (void)context;
    world->is_closed = true;
    uv_stop(&world->loop);
}

static void on_peer_closed(uv_handle_t *handle)
{
    (void)handle;
    world->is_peer_closed = true;
    uv_stop(&world->loop);
}

static void say(const void *bytes, size_t size)
{
    uv_buf_t buf = uv_buf_init((char *)(uintptr_t)bytes, (unsigned)size);
    if (size != 0)
        (void)uv_try_write((uv_stream_t *)&world->peer, &buf, 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!world)
        open_world();
    struct spec_alloc memory = {.fail_at = SPEC_NEVER};
    struct mp_alloc alloc = spec_alloc_of(&memory);
    const char *node = world->address;
    const struct mp_client_config config = {.loop = &world->loop,
                                            .alloc = &alloc,
                                            .nodes = &node,
                                            .nodes_count = 1,
                                            .answer_bytes_max = 1u << 20};
    struct mp_client *c;
    world->has_peer = world->is_ready = world->is_refused = world->is_closed = false;
    world->is_peer_closed = false;
    memset(world->ends, 0, sizeof(world->ends));
    mp_assert(mp_client_connect(&config, on_ready, &c) == MP_OK);
    while (!world->has_peer)
        uv_run(&world->loop, UV_RUN_NOWAIT);
    say("\x9dmprg\x01\0\0", MP_PREFACE_BYTES);
    while (!world->is_ready && !world->is_refused)
        uv_run(&world->loop, UV_RUN_ONCE);
    mp_assert(world->is_ready);
    const struct mp_call_options call = {.fun = mp_slice_str("a.b"), .timeout_ms = 60000};
    const struct mp_run_options run = {.has_events = true};
    struct mp_slice none = {0};
    mp_assert(mp_client_call(c, &call, none, NULL, on_answer, &world->ids[0]) == MP_OK);
    mp_assert(mp_client_run(c, &run, none, NULL, on_answer, &world->ids[1]) == MP_OK);
    mp_assert(mp_client_query(c, mp_slice_str("x"), none, none, 0, NULL, on_answer,
                              &world->ids[2]) == MP_OK);
    say(data, size);
    for (int i = 0; i < TURNS; i++)
        uv_run(&world->loop, UV_RUN_NOWAIT);
    mp_client_close(c, NULL, on_closed);
    while (!world->is_closed)
        uv_run(&world->loop, UV_RUN_ONCE);
    mp_assert(memory.live_bytes == 0);
    /* Reset, so that a million connections do not use up the ports. */
    uv_tcp_close_reset(&world->peer, on_peer_closed);
    while (!world->is_peer_closed)
        uv_run(&world->loop, UV_RUN_ONCE);
    return 0;
}
