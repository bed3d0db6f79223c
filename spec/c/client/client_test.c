/* The client against a server that is scripted, in the same loop: what arrives is collected in
 * `got`, and each test says what to answer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "spec/support/alloc.h"
#include "src/base/buf.h"
#include "src/client/client.h"
#include "src/wire/error.h"
#include "src/wire/msgpack.h"

#define WAIT_MS 20000

struct world {
    uv_loop_t loop;
    struct spec_alloc counter;
    struct mp_alloc alloc;
    uv_timer_t guard;
    bool is_late;

    /* the server */
    uv_tcp_t listener;
    uv_tcp_t peer;
    bool has_peer;
    bool is_peer_gone;
    char address[32];
    struct mp_buf got;
    char chunk[65536];
    void (*on_got)(struct world *w);

    /* the client */
    struct mp_client *client;
    bool is_ready;
    bool is_refused;
    bool is_closed;
    struct mp_buf ready_error;
    uint32_t answers;
    uint32_t events;
    uint64_t last_id;
    enum mp_client_answer last;
    struct mp_buf payload;
    uint32_t batches;
    uint64_t dropped;
    uint64_t after_seq;
    struct mp_buf publisher;
};

static void on_guard(uv_timer_t *timer)
{
    ((struct world *)timer->data)->is_late = true;
}

static void on_chunk_room(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    (void)suggested;
    struct world *w = (struct world *)handle->data;
    *buf = uv_buf_init(w->chunk, sizeof(w->chunk));
}

static void on_peer_closed(uv_handle_t *handle)
{
    ((struct world *)handle->data)->is_peer_gone = true;
}

static void close_peer(struct world *w)
{
    if (w->has_peer && !uv_is_closing((uv_handle_t *)&w->peer))
        uv_close((uv_handle_t *)&w->peer, on_peer_closed);
}

static void on_chunk(uv_stream_t *stream, ssize_t size, const uv_buf_t *buf)
{
    struct world *w = (struct world *)stream->data;
    if (size < 0) {
        close_peer(w);
        return;
    }
    assert_int_equal(mp_buf_append(&w->got, mp_slice_of(buf->base, (size_t)size)), MP_OK);
    if (w->on_got)
        w->on_got(w);
}

static void on_peer(uv_stream_t *server, int status)
{
    struct world *w = (struct world *)server->data;
    assert_int_equal(status, 0);
    assert_false(w->has_peer);
    uv_tcp_init(&w->loop, &w->peer);
    w->peer.data = w;
    w->has_peer = true;
    assert_int_equal(uv_accept(server, (uv_stream_t *)&w->peer), 0);
    uv_read_start((uv_stream_t *)&w->peer, on_chunk_room, on_chunk);
}

/* Everything at once; what the socket does not take is waited for by trying again. */
static void say(struct world *w, const void *bytes, size_t size)
{
    size_t done = 0;
    while (done < size) {
        uv_buf_t buf = uv_buf_init((char *)(uintptr_t)bytes + done, (unsigned)(size - done));
        int n = uv_try_write((uv_stream_t *)&w->peer, &buf, 1);
        if (n == UV_EAGAIN) {
            uv_run(&w->loop, UV_RUN_NOWAIT);
            continue;
        }
        assert_true(n > 0);
        done += (size_t)n;
    }
}

static void say_frame(struct world *w, uint8_t type, uint64_t id, struct mp_slice payload)
{
    struct mp_buf b;
    mp_buf_init(&b, &w->alloc, 0);
    assert_int_equal(mp_frame_put(&b, type, id, mp_slice_of(NULL, 0), payload), MP_OK);
    say(w, b.data, b.size);
    mp_buf_fini(&b);
}

static void say_error(struct world *w, uint64_t id, enum mp_code code, const char *message)
{
    struct mp_buf b;
    const struct mp_fault f = {.code = code, .message = mp_slice_str(message)};
    mp_buf_init(&b, &w->alloc, 0);
    assert_int_equal(mp_fault_put(&b, &f), MP_OK);
    say_frame(w, MP_FRAME_ERROR, id, mp_buf_slice(&b));
    mp_buf_fini(&b);
}

static void say_preface(struct world *w)
{
    uint8_t preface[MP_PREFACE_BYTES];
    mp_preface_write(preface);
    say(w, preface, sizeof(preface));
}

/* The client's preface is at the front of `got`: dropped and answered. */
static void greet(struct world *w)
{
    uint8_t version;
    if (w->got.size < MP_PREFACE_BYTES)
        return;
    assert_int_equal(mp_preface_read(mp_buf_slice(&w->got), &version), MP_OK);
    assert_int_equal(version, MP_PROTOCOL_VERSION);
    mp_buf_drop(&w->got, MP_PREFACE_BYTES);
    w->on_got = NULL;
    say_preface(w);
}

/* The i-th whole frame that came. */
static bool frame_at(struct world *w, uint32_t index, struct mp_frame_header *h,
                     struct mp_slice *meta, struct mp_slice *payload)
{
    size_t at = 0;
    for (uint32_t i = 0;; i++) {
        struct mp_slice rest = mp_slice_of(w->got.data + at, w->got.size - at);
        if (mp_frame_read_header(rest, UINT32_MAX, h) != MP_OK ||
            rest.size < MP_FRAME_HEADER_BYTES + h->size)
            return false;
        if (i == index) {
            *meta = mp_slice_of(rest.data + MP_FRAME_HEADER_BYTES, h->meta_size);
            *payload = mp_slice_of(meta->data + h->meta_size, h->size - h->meta_size);
            return true;
        }
        at += MP_FRAME_HEADER_BYTES + h->size;
    }
}

static void on_ready(void *context, struct mp_slice error)
{
    struct world *w = (struct world *)context;
    w->is_ready = error.size == 0;
    w->is_refused = error.size != 0;
    uv_stop(&w->loop);
    assert_int_equal(mp_buf_append(&w->ready_error, error), MP_OK);
}

static void on_answer(void *context, uint64_t id, enum mp_client_answer answer,
                      struct mp_slice payload)
{
    struct world *w = (struct world *)context;
    w->last_id = id;
    w->last = answer;
    mp_buf_clear(&w->payload);
    assert_int_equal(mp_buf_append(&w->payload, payload), MP_OK);
    if (answer == MP_CLIENT_EVENT)
        w->events++;
    else
        w->answers++;
    uv_stop(&w->loop);
}

static void on_messages(void *context, uint64_t id, const struct mp_client_batch *batch)
{
    struct world *w = (struct world *)context;
    w->last_id = id;
    w->batches++;
    w->dropped = batch->dropped;
    w->after_seq = batch->after_seq;
    mp_buf_clear(&w->publisher);
    mp_buf_clear(&w->payload);
    assert_int_equal(mp_buf_append(&w->publisher, batch->publisher), MP_OK);
    assert_int_equal(mp_buf_append(&w->payload, batch->messages), MP_OK);
    uv_stop(&w->loop);
}

static void on_closed(void *context)
{
    ((struct world *)context)->is_closed = true;
    uv_stop(&((struct world *)context)->loop);
}

/* Callbacks stop the loop: a timer's would else be followed by a wait for the next event. */
#define RUN_UNTIL(w, condition)                                                                    \
    do {                                                                                           \
        while (!(condition)) {                                                                     \
            uv_run(&(w)->loop, UV_RUN_ONCE);                                                       \
            if ((w)->is_late)                                                                      \
                fail_msg("waited in vain for: %s", #condition);                                    \
        }                                                                                          \
    } while (0)

static int set_up(void **state)
{
    struct world *w = (struct world *)calloc(1, sizeof(*w));
    w->counter.fail_at = SPEC_NEVER;
    w->alloc = spec_alloc_of(&w->counter);
    uv_loop_init(&w->loop);
    uv_timer_init(&w->loop, &w->guard);
    w->guard.data = w;
    uv_timer_start(&w->guard, on_guard, WAIT_MS, 0);
    mp_buf_init(&w->got, &w->alloc, 0);
    mp_buf_init(&w->ready_error, &w->alloc, 0);
    mp_buf_init(&w->payload, &w->alloc, 0);
    mp_buf_init(&w->publisher, &w->alloc, 0);
    struct sockaddr_in any;
    uv_ip4_addr("127.0.0.1", 0, &any);
    uv_tcp_init(&w->loop, &w->listener);
    w->listener.data = w;
    uv_tcp_bind(&w->listener, (const struct sockaddr *)&any, 0);
    uv_listen((uv_stream_t *)&w->listener, 16, on_peer);
    int size = sizeof(any);
    uv_tcp_getsockname(&w->listener, (struct sockaddr *)&any, &size);
    snprintf(w->address, sizeof(w->address), "127.0.0.1:%d", ntohs(any.sin_port));
    w->on_got = greet;
    *state = w;
    return 0;
}

static int tear_down(void **state)
{
    struct world *w = (struct world *)*state;
    if (w->client)
        mp_client_close(w->client, w, on_closed);
    close_peer(w);
    uv_close((uv_handle_t *)&w->listener, NULL);
    uv_close((uv_handle_t *)&w->guard, NULL);
    uv_run(&w->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&w->loop), 0);
    assert_true(!w->client || w->is_closed);
    mp_buf_fini(&w->publisher);
    mp_buf_fini(&w->payload);
    mp_buf_fini(&w->ready_error);
    mp_buf_fini(&w->got);
    assert_int_equal(w->counter.live_bytes, 0);
    free(w);
    return 0;
}

static void connect_to(struct world *w, const char *const *nodes, uint32_t count,
                       uint64_t timeout_ms)
{
    const struct mp_client_config config = {.loop = &w->loop,
                                            .alloc = &w->alloc,
                                            .nodes = nodes,
                                            .nodes_count = count,
                                            .timeout_ms = timeout_ms,
                                            .answer_bytes_max = 32u << 20,
                                            .context = w};
    assert_int_equal(mp_client_connect(&config, on_ready, &w->client), MP_OK);
}

static void connect_client(struct world *w)
{
    const char *node = w->address;
    connect_to(w, &node, 1, 0);
    RUN_UNTIL(w, w->is_ready || w->is_refused);
}

static uint64_t call(struct world *w, const char *fun, struct mp_slice args, uint64_t timeout_ms)
{
    uint64_t id = 0;
    const struct mp_call_options o = {.fun = mp_slice_str(fun), .timeout_ms = timeout_ms};
    assert_int_equal(mp_client_call(w->client, &o, args, w, on_answer, &id), MP_OK);
    assert_int_not_equal(id, 0);
    return id;
}

static void assert_error(const struct mp_buf *b, enum mp_code code, const char *reason,
                         const char *part)
{
    struct mp_fault f;
    assert_int_equal(mp_fault_read(mp_buf_slice(b), &f), MP_OK);
    assert_int_equal(f.code, code);
    assert_true(mp_slice_is(f.reason, reason));
    assert_non_null(memmem(f.message.data, f.message.size, part, strlen(part)));
}

static const struct mp_slice none = {0};
static const struct mp_slice one_arg = {(const uint8_t *)"\x91\x01", 2};

static void a_call_travels_and_its_answer_comes_back(void **state)
{
    struct world *w = (struct world *)*state;
    connect_client(w);
    assert_true(w->is_ready);
    assert_true(mp_slice_is(mp_client_node(w->client), w->address));
    uint64_t id = call(w, "a.b", one_arg, 250);
    struct mp_frame_header h;
    struct mp_slice meta;
    struct mp_slice payload;
    RUN_UNTIL(w, frame_at(w, 0, &h, &meta, &payload));
    assert_int_equal(h.type, MP_FRAME_CALL);
    assert_int_equal(h.id, id);
    struct mp_call_options o;
    const char *why = NULL;
    assert_int_equal(mp_call_options_read(meta, &o, &why), MP_OK);
    assert_true(mp_slice_is(o.fun, "a.b"));
    assert_int_equal(o.timeout_ms, 250);
    assert_true(mp_slice_equal(payload, one_arg));
    say_frame(w, MP_FRAME_RESULT, id, mp_slice_str("\x05"));
    RUN_UNTIL(w, w->answers == 1);
    assert_int_equal(w->last, MP_CLIENT_RESULT);
    assert_int_equal(w->last_id, id);
    assert_true(mp_slice_is(mp_buf_slice(&w->payload), "\x05"));
    assert_int_equal(mp_client_requests(w->client), 0);
}

static void answers_may_come_in_any_order(void **state)
{
    struct world *w = (struct world *)*state;
    uint64_t ids[100];
    connect_client(w);
    for (int round = 0; round < 3; round++) {
        w->answers = 0;
        for (int i = 0; i < 100; i++)
            ids[i] = call(w, "a.b", one_arg, i % 2 ? 60000 : 0);
        for (int i = 99; i >= 0; i--) {
            uint32_t before = w->answers;
            say_frame(w, MP_FRAME_RESULT, ids[i], mp_slice_str("\x05"));
            RUN_UNTIL(w, w->answers == before + 1);
            assert_int_equal(w->last_id, ids[i]);
        }
    }
    assert_int_equal(mp_client_requests(w->client), 0);
}

static void events_precede_the_end_of_a_run(void **state)
{
    struct world *w = (struct world *)*state;
    uint64_t id;
    const struct mp_run_options o = {.has_events = true};
    connect_client(w);
    assert_int_equal(mp_client_run(w->client, &o, mp_slice_str("\x80"), w, on_answer, &id), MP_OK);
    say_frame(w, MP_FRAME_EVENT, id, mp_slice_str("\x80"));
    say_frame(w, MP_FRAME_EVENT, id, mp_slice_str("\x80"));
    say_frame(w, MP_FRAME_RESULT, id, mp_slice_str("\x80"));
    RUN_UNTIL(w, w->answers == 1);
    assert_int_equal(w->events, 2);
}

static void frames_may_come_a_byte_at_a_time(void **state)
{
    struct world *w = (struct world *)*state;
    connect_client(w);
    uint64_t id = call(w, "a.b", one_arg, 0);
    struct mp_buf b;
    mp_buf_init(&b, &w->alloc, 0);
    assert_int_equal(
        mp_frame_put(&b, MP_FRAME_RESULT, id, mp_slice_str("meta"), mp_slice_str("\xa5hello")),
        MP_OK);
    for (size_t i = 0; i < b.size; i++) {
        say(w, b.data + i, 1);
        uv_run(&w->loop, UV_RUN_NOWAIT);
    }
    mp_buf_fini(&b);
    RUN_UNTIL(w, w->answers == 1);
    assert_true(mp_slice_is(mp_buf_slice(&w->payload), "\xa5hello"));
}

static void large_values_arrive_whole(void **state)
{
    struct world *w = (struct world *)*state;
    size_t size = 9u << 20;
    uint8_t *value = (uint8_t *)malloc(size);
    for (size_t i = 0; i < size; i++)
        value[i] = (uint8_t)(i * 2654435761u >> 13);
    connect_client(w);
    for (int round = 0; round < 2; round++) {
        uint64_t id = call(w, "a.b", mp_slice_of(value, size), 0);
        struct mp_frame_header h;
        struct mp_slice meta;
        struct mp_slice payload;
        RUN_UNTIL(w, frame_at(w, 0, &h, &meta, &payload));
        assert_int_equal(payload.size, size);
        assert_memory_equal(payload.data, value, size);
        mp_buf_clear(&w->got);
        say_frame(w, MP_FRAME_RESULT, id, mp_slice_of(value, size));
        RUN_UNTIL(w, w->answers == (uint32_t)round + 1);
        assert_int_equal(w->payload.size, size);
        assert_memory_equal(w->payload.data, value, size);
    }
    free(value);
}

static void an_error_ends_its_request_alone(void **state)
{
    struct world *w = (struct world *)*state;
    connect_client(w);
    uint64_t first = call(w, "a.b", one_arg, 0);
    call(w, "a.c", one_arg, 0);
    say_error(w, first, MP_CODE_NOT_FOUND, "no such function");
    RUN_UNTIL(w, w->answers == 1);
    assert_int_equal(w->last, MP_CLIENT_ERROR);
    assert_error(&w->payload, MP_CODE_NOT_FOUND, "", "no such function");
    assert_int_equal(mp_client_requests(w->client), 1);
    assert_true(mp_client_is_open(w->client));
}

static void a_lost_connection_ends_every_request(void **state)
{
    struct world *w = (struct world *)*state;
    uint64_t id;
    connect_client(w);
    for (int i = 0; i < 3; i++)
        call(w, "a.b", one_arg, i == 1 ? 5000 : 0);
    RUN_UNTIL(w, w->got.size != 0);
    close_peer(w);
    RUN_UNTIL(w, w->answers == 3);
    assert_int_equal(w->last, MP_CLIENT_ERROR);
    assert_error(&w->payload, MP_CODE_UNAVAILABLE, "CONNECTION_LOST", w->address);
    const struct mp_call_options o = {.fun = mp_slice_str("a.b")};
    assert_int_equal(mp_client_call(w->client, &o, one_arg, w, on_answer, &id), MP_ECLOSED);
    assert_true(mp_slice_equal(mp_client_error(w->client), mp_buf_slice(&w->payload)));
}

static void the_node_may_end_the_connection_with_a_reason(void **state)
{
    struct world *w = (struct world *)*state;
    struct mp_fault f;
    connect_client(w);
    call(w, "a.b", one_arg, 0);
    say_error(w, 0, MP_CODE_INVALID_ARGUMENT, "this id is in use");
    RUN_UNTIL(w, w->answers == 1);
    assert_error(&w->payload, MP_CODE_UNAVAILABLE, "CONNECTION_LOST", "this id is in use");
    assert_int_equal(mp_fault_read(mp_buf_slice(&w->payload), &f), MP_OK);
    assert_int_not_equal(f.cause.size, 0);
}

static void goaway_lets_requests_in_flight_end(void **state)
{
    struct world *w = (struct world *)*state;
    uint64_t id = 0;
    connect_client(w);
    uint64_t first = call(w, "a.b", one_arg, 0);
    say_frame(w, MP_FRAME_GOAWAY, 0, none);
    RUN_UNTIL(w, !mp_client_is_open(w->client));
    const struct mp_call_options o = {.fun = mp_slice_str("a.b")};
    assert_int_equal(mp_client_call(w->client, &o, one_arg, w, on_answer, &id), MP_ECLOSED);
    say_frame(w, MP_FRAME_RESULT, first, mp_slice_str("\x05"));
    RUN_UNTIL(w, w->answers == 1);
    assert_int_equal(w->last, MP_CLIENT_RESULT);
}

static void cancel_sends_a_frame_and_waits_for_the_end(void **state)
{
    struct world *w = (struct world *)*state;
    struct mp_frame_header h;
    struct mp_slice meta;
    struct mp_slice payload;
    connect_client(w);
    uint64_t id = call(w, "a.b", one_arg, 0);
    mp_client_cancel(w->client, id);
    mp_client_cancel(w->client, id + 77);
    RUN_UNTIL(w, frame_at(w, 1, &h, &meta, &payload));
    assert_int_equal(h.type, MP_FRAME_CANCEL);
    assert_int_equal(h.id, id);
    assert_int_equal(h.size, 0);
    assert_int_equal(w->answers, 0);
    say_error(w, id, MP_CODE_CANCELLED, "cancelled");
    RUN_UNTIL(w, w->answers == 1);
    assert_false(frame_at(w, 2, &h, &meta, &payload));
}

static void a_node_that_misses_a_deadline_is_not_waited_for(void **state)
{
    struct world *w = (struct world *)*state;
    struct mp_frame_header h;
    struct mp_slice meta;
    struct mp_slice payload;
    connect_client(w);
    uint64_t id = call(w, "a.b", one_arg, 1);
    RUN_UNTIL(w, w->answers == 1);
    assert_error(&w->payload, MP_CODE_DEADLINE_EXCEEDED, "NO_ANSWER", w->address);
    RUN_UNTIL(w, frame_at(w, 1, &h, &meta, &payload));
    assert_int_equal(h.type, MP_FRAME_CANCEL);
    /* its late answer is passed over, and the connection goes on */
    say_frame(w, MP_FRAME_RESULT, id, mp_slice_str("\x05"));
    id = call(w, "a.b", one_arg, 0);
    say_frame(w, MP_FRAME_RESULT, id, mp_slice_str("\x06"));
    RUN_UNTIL(w, w->answers == 2);
    assert_int_equal(w->last_id, id);
}

static void expect_loss(struct world *w, const void *bytes, size_t size, const char *part)
{
    connect_client(w);
    call(w, "a.b", one_arg, 0);
    say(w, bytes, size);
    RUN_UNTIL(w, w->answers == 1);
    assert_error(&w->payload, MP_CODE_UNAVAILABLE, "CONNECTION_LOST", part);
}

static void garbage_ends_the_connection(void **state)
{
    expect_loss((struct world *)*state, "HTTP/1.1 400 Bad Request\r\n\r\n", 28, "no frame");
}

static void an_answer_over_the_limit_ends_the_connection(void **state)
{
    expect_loss((struct world *)*state, "\xff\xff\xff\xff\x10\0\0\0\1\0\0\0\0\0\0\0", 16,
                "too large");
}

static void an_answer_that_nobody_asked_for_ends_the_connection(void **state)
{
    expect_loss((struct world *)*state, "\0\0\0\0\x10\0\0\0\x09\0\0\0\0\0\0\0", 16,
                "means nothing");
}

static void a_frame_of_unknown_type_ends_the_connection(void **state)
{
    expect_loss((struct world *)*state, "\0\0\0\0\x63\0\0\0\1\0\0\0\0\0\0\0", 16, "means nothing");
}

static void an_error_that_is_no_map_ends_the_connection(void **state)
{
    expect_loss((struct world *)*state, "\1\0\0\0\x11\0\0\0\1\0\0\0\0\0\0\0\xc0", 17,
                "means nothing");
}

static void say_other_version(struct world *w)
{
    if (w->got.size >= MP_PREFACE_BYTES)
        say(w, "\x9dmprg\x02\0\0", MP_PREFACE_BYTES);
}

static void say_http(struct world *w)
{
    say(w, "HTTP/1.1 400", 12);
}

static void close_at_once(struct world *w)
{
    close_peer(w);
}

static void say_nothing(struct world *w)
{
    (void)w;
}

static void expect_refusal(struct world *w, void (*answer)(struct world *w), const char *part)
{
    w->on_got = answer;
    connect_client(w);
    assert_true(w->is_refused);
    assert_error(&w->ready_error, MP_CODE_UNAVAILABLE, "NO_NODE", part);
    assert_error(&w->ready_error, MP_CODE_UNAVAILABLE, "NO_NODE", w->address);
}

static void another_version_is_named(void **state)
{
    expect_refusal((struct world *)*state, say_other_version, "version 2");
}

static void another_protocol_is_told(void **state)
{
    expect_refusal((struct world *)*state, say_http, "no mpreg node");
}

static void a_node_that_closes_at_once_is_told(void **state)
{
    expect_refusal((struct world *)*state, close_at_once, "closed without an answer");
}

static void a_silent_node_is_given_up_on(void **state)
{
    struct world *w = (struct world *)*state;
    const char *node = w->address;
    w->on_got = say_nothing;
    connect_to(w, &node, 1, 50);
    RUN_UNTIL(w, w->is_ready || w->is_refused);
    assert_error(&w->ready_error, MP_CODE_UNAVAILABLE, "NO_NODE", "timed out");
}

static void the_first_node_that_answers_is_taken(void **state)
{
    struct world *w = (struct world *)*state;
    const char *nodes[] = {"127.0.0.1:1", "nonsense", "[::1]:1", w->address};
    connect_to(w, nodes, 4, 0);
    RUN_UNTIL(w, w->is_ready || w->is_refused);
    assert_true(w->is_ready);
    assert_true(mp_slice_is(mp_client_node(w->client), w->address));
}

static void names_are_resolved(void **state)
{
    struct world *w = (struct world *)*state;
    char node[64];
    snprintf(node, sizeof(node), "localhost:%s", strchr(w->address, ':') + 1);
    const char *nodes[] = {node};
    connect_to(w, nodes, 1, 0);
    RUN_UNTIL(w, w->is_ready || w->is_refused);
    assert_true(w->is_ready);
}

static void every_node_that_failed_is_named(void **state)
{
    struct world *w = (struct world *)*state;
    const char *nodes[] = {"127.0.0.1:1", "nonsense", "127.0.0.1:99999", "[::1:5", "a:b:1"};
    connect_to(w, nodes, 5, 0);
    RUN_UNTIL(w, w->is_ready || w->is_refused);
    assert_true(w->is_refused);
    for (int i = 0; i < 5; i++)
        assert_error(&w->ready_error, MP_CODE_UNAVAILABLE, "NO_NODE", nodes[i]);
    assert_error(&w->ready_error, MP_CODE_UNAVAILABLE, "NO_NODE", "connection refused");
    assert_error(&w->ready_error, MP_CODE_UNAVAILABLE, "NO_NODE", "HOST:PORT");
    struct mp_fault f;
    assert_int_equal(mp_fault_read(mp_buf_slice(&w->ready_error), &f), MP_OK);
    assert_non_null(memmem(f.hint.data, f.hint.size, "mpreg node", 10));
}

static void closing_while_connecting_leaves_nothing_behind(void **state)
{
    struct world *w = (struct world *)*state;
    const char *node = w->address;
    w->on_got = say_nothing;
    connect_to(w, &node, 1, 0);
    uv_run(&w->loop, UV_RUN_ONCE);
    uv_run(&w->loop, UV_RUN_NOWAIT);
}

static void too_many_requests_are_refused(void **state)
{
    struct world *w = (struct world *)*state;
    const struct mp_call_options o = {.fun = mp_slice_str("a.b")};
    uint64_t id;
    connect_client(w);
    for (uint32_t i = 0; i < MP_CLIENT_REQUESTS_MAX; i++)
        call(w, "a.b", one_arg, 0);
    assert_int_equal(mp_client_call(w->client, &o, one_arg, w, on_answer, &id), MP_EFULL);
}

static void messages_are_published_as_they_are_given(void **state)
{
    struct world *w = (struct world *)*state;
    struct mp_frame_header h;
    struct mp_slice meta;
    struct mp_slice payload;
    uint64_t id;
    connect_client(w);
    struct mp_slice messages = mp_slice_str("\x91\x92\xa1t\x05");
    assert_int_equal(mp_client_publish(w->client, messages, 0, w, on_answer, &id), MP_OK);
    RUN_UNTIL(w, frame_at(w, 0, &h, &meta, &payload));
    assert_int_equal(h.type, MP_FRAME_PUBLISH);
    assert_int_equal(h.id, id);
    assert_true(mp_slice_is(meta, "\x90"));
    assert_true(mp_slice_equal(payload, messages));
    say_frame(w, MP_FRAME_RESULT, id, mp_slice_str("\x81\xa3seq\x01"));
    RUN_UNTIL(w, w->answers == 1);
    assert_int_equal(w->last, MP_CLIENT_RESULT);
}

static void say_messages(struct world *w, uint64_t id, const char *meta, const char *payload)
{
    struct mp_buf b;
    mp_buf_init(&b, &w->alloc, 0);
    assert_int_equal(
        mp_frame_put(&b, MP_FRAME_MESSAGES, id, mp_slice_str(meta), mp_slice_str(payload)), MP_OK);
    say(w, b.data, b.size);
    mp_buf_fini(&b);
}

static uint64_t subscribe(struct world *w, uint64_t timeout_ms)
{
    const struct mp_subscribe_options o = {.pattern = mp_slice_str("a.#"), .since_ms = 5000};
    uint64_t id = 0;
    assert_int_equal(mp_client_subscribe(w->client, &o, timeout_ms, w, on_answer, on_messages, &id),
                     MP_OK);
    return id;
}

#define ONE_MESSAGE                                                                                \
    "\x91\x94\xa3"                                                                                 \
    "a.b"                                                                                          \
    "\x07\x08\x09"

static void a_subscription_gets_batches_until_it_is_cancelled(void **state)
{
    struct world *w = (struct world *)*state;
    struct mp_frame_header h;
    struct mp_slice meta;
    struct mp_slice payload;
    struct mp_subscribe_options o;
    const char *why = NULL;
    connect_client(w);
    uint64_t id = subscribe(w, 0);
    RUN_UNTIL(w, frame_at(w, 0, &h, &meta, &payload));
    assert_int_equal(h.type, MP_FRAME_SUBSCRIBE);
    assert_int_equal(mp_subscribe_options_read(meta, &o, &why), MP_OK);
    assert_true(mp_slice_is(o.pattern, "a.#"));
    assert_int_equal(o.since_ms, 5000);
    say_frame(w, MP_FRAME_EVENT, id, mp_slice_str("\x81\xa1s\x01"));
    RUN_UNTIL(w, w->events == 1);
    say_messages(w, id, "\x93\xa2n1\x03\x02", ONE_MESSAGE);
    RUN_UNTIL(w, w->batches == 1);
    assert_int_equal(w->last_id, id);
    assert_int_equal(w->dropped, 3);
    assert_int_equal(w->after_seq, 2);
    assert_true(mp_slice_is(mp_buf_slice(&w->publisher), "n1"));
    assert_true(mp_slice_is(mp_buf_slice(&w->payload), ONE_MESSAGE));
    mp_client_cancel(w->client, id);
    RUN_UNTIL(w, frame_at(w, 1, &h, &meta, &payload));
    assert_int_equal(h.type, MP_FRAME_CANCEL);
    assert_int_equal(h.id, id);
    say_error(w, id, MP_CODE_CANCELLED, "as you like");
    RUN_UNTIL(w, w->answers == 1);
    assert_int_equal(w->last, MP_CLIENT_ERROR);
    /* what was on its way is passed over */
    say_messages(w, id, "\x93\xa2n1\x00\x02", ONE_MESSAGE);
    uint64_t next = call(w, "a.b", one_arg, 0);
    say_frame(w, MP_FRAME_RESULT, next, mp_slice_str("\x05"));
    RUN_UNTIL(w, w->answers == 2);
    assert_int_equal(w->batches, 1);
}

static void a_subscription_ends_with_its_own_deadline(void **state)
{
    struct world *w = (struct world *)*state;
    connect_client(w);
    subscribe(w, 20);
    RUN_UNTIL(w, w->answers == 1);
    assert_error(&w->payload, MP_CODE_DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED", "20 ms");
}

static void messages_that_cannot_be_end_the_connection(void **state)
{
    static const char *const broken[][2] = {
        {"", ONE_MESSAGE},                           /* no meta part */
        {"\x92\xa2n1\x01", ONE_MESSAGE},             /* too short a one */
        {"\x93\xa2n1\xa1x\x01", ONE_MESSAGE},        /* a text for a number */
        {"\x93\xa2n1\x01\x01", "\x81\x01\x02"},      /* a map for an array */
        {"\x93\xa2n1\x01\x01", "\x92\x94\xa1t\x01"}, /* an array without its end */
        {"\x93\xa2n1\x01\x01", ""},                  /* nothing */
    };
    struct world *w = (struct world *)*state;
    for (size_t i = 0; i < MP_ARRAY_SIZE(broken); i++) {
        w->on_got = greet;
        w->has_peer = w->is_peer_gone = w->is_ready = w->is_closed = false;
        w->answers = 0;
        mp_buf_clear(&w->got);
        connect_client(w);
        uint64_t id = subscribe(w, 0);
        RUN_UNTIL(w, w->got.size != 0);
        say_messages(w, id, broken[i][0], broken[i][1]);
        RUN_UNTIL(w, w->answers == 1);
        assert_error(&w->payload, MP_CODE_UNAVAILABLE, "CONNECTION_LOST", "means nothing");
        assert_int_equal(w->batches, 0);
        mp_client_close(w->client, w, on_closed);
        w->client = NULL;
        RUN_UNTIL(w, w->is_closed && w->is_peer_gone);
    }
}

static void messages_of_a_call_end_the_connection(void **state)
{
    struct world *w = (struct world *)*state;
    connect_client(w);
    uint64_t id = call(w, "a.b", one_arg, 0);
    RUN_UNTIL(w, w->got.size != 0);
    say_messages(w, id, "\x93\xa2n1\x00\x00", ONE_MESSAGE);
    RUN_UNTIL(w, w->answers == 1);
    assert_error(&w->payload, MP_CODE_UNAVAILABLE, "CONNECTION_LOST", "means nothing");
}

/* Wherever memory runs out, the client ends in order, and every accepted request has its answer. */
static void survives_every_failing_allocation(void **state)
{
    struct world *w = (struct world *)*state;
    struct spec_alloc counter = {.fail_at = 0};
    struct mp_alloc alloc = spec_alloc_of(&counter);
    const char *node = w->address;
    bool is_done = false;
    for (size_t n = 0; !is_done; n++) {
        counter = (struct spec_alloc){.fail_at = n};
        w->on_got = greet;
        w->has_peer = w->is_peer_gone = w->is_ready = w->is_refused = w->is_closed = false;
        w->answers = 0;
        mp_buf_clear(&w->got);
        const struct mp_client_config config = {
            .loop = &w->loop, .alloc = &alloc, .nodes = &node, .nodes_count = 1, .context = w};
        if (mp_client_connect(&config, on_ready, &w->client) != MP_OK) {
            w->client = NULL;
            assert_int_equal(counter.live_bytes, 0);
            continue;
        }
        RUN_UNTIL(w, w->is_ready || w->is_refused);
        const struct mp_call_options o = {.fun = mp_slice_str("a.b"), .timeout_ms = 60000};
        uint64_t id;
        if (w->is_ready && mp_client_call(w->client, &o, one_arg, w, on_answer, &id) == MP_OK) {
            RUN_UNTIL(w, w->got.size != 0);
            say_frame(w, MP_FRAME_RESULT, id, mp_slice_str("\x05"));
            RUN_UNTIL(w, w->answers == 1);
            is_done = counter.count < n;
        }
        mp_client_close(w->client, w, on_closed);
        w->client = NULL;
        /* the third allocation is the link: from there on the server sees a connection */
        RUN_UNTIL(w, w->is_closed && (n <= 2 || w->is_peer_gone));
        assert_int_equal(counter.live_bytes, 0);
    }
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_call_travels_and_its_answer_comes_back),
        TEST(answers_may_come_in_any_order),
        TEST(events_precede_the_end_of_a_run),
        TEST(frames_may_come_a_byte_at_a_time),
        TEST(large_values_arrive_whole),
        TEST(an_error_ends_its_request_alone),
        TEST(a_lost_connection_ends_every_request),
        TEST(the_node_may_end_the_connection_with_a_reason),
        TEST(goaway_lets_requests_in_flight_end),
        TEST(cancel_sends_a_frame_and_waits_for_the_end),
        TEST(a_node_that_misses_a_deadline_is_not_waited_for),
        TEST(garbage_ends_the_connection),
        TEST(an_answer_over_the_limit_ends_the_connection),
        TEST(an_answer_that_nobody_asked_for_ends_the_connection),
        TEST(a_frame_of_unknown_type_ends_the_connection),
        TEST(an_error_that_is_no_map_ends_the_connection),
        TEST(another_version_is_named),
        TEST(another_protocol_is_told),
        TEST(a_node_that_closes_at_once_is_told),
        TEST(a_silent_node_is_given_up_on),
        TEST(the_first_node_that_answers_is_taken),
        TEST(names_are_resolved),
        TEST(every_node_that_failed_is_named),
        TEST(closing_while_connecting_leaves_nothing_behind),
        TEST(too_many_requests_are_refused),
        TEST(messages_are_published_as_they_are_given),
        TEST(a_subscription_gets_batches_until_it_is_cancelled),
        TEST(a_subscription_ends_with_its_own_deadline),
        TEST(messages_that_cannot_be_end_the_connection),
        TEST(messages_of_a_call_end_the_connection),
        TEST(survives_every_failing_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
