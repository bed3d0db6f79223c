/* See bench.h. What is specific to our protocol: the frame that is sent again and again with
 * another id, and what an answer means. load.c does the rest. */
#include "src/client/bench.h"

#include <stdio.h>
#include <unistd.h>

#include "src/base/assert.h"
#include "src/client/sockets.h"
#include "src/wire/error.h"
#include "src/wire/msgpack.h"

#define ERROR_BYTES_MAX (64u << 10) /* a larger first error is not kept */
#define DRAIN_MS        5000
#define PROBE_SECONDS   3600
#define ID_OFFSET       8

struct bench {
    const struct mp_bench_config *config;
    struct mp_buf request;
    struct mp_buf *first_error; /* the ERROR map of the first call that failed */
    int *fds;
    bool is_connected;
};

static enum mp_err build_request(struct bench *b);
static enum mp_err connect_all(struct bench *b);
static enum mp_err probe(struct bench *b, const struct mp_load_config *all,
                         struct mp_load_result *result);
static void patch(uint8_t *prefix, uint32_t slot);
static enum mp_err parse(void *context, struct mp_slice bytes, struct mp_load_answer *a);
static void read_run(struct bench *b, struct mp_slice payload, struct mp_load_answer *a);
static void read_error(struct bench *b, struct mp_slice error, struct mp_load_answer *a);

static bool is_interrupted(const struct bench *b)
{
    return b->config->interrupts && *b->config->interrupts != 0;
}

enum mp_err mp_bench_run(const struct mp_bench_config *config, struct mp_load_result *result,
                         struct mp_buf *error)
{
    if (config->connections == 0 || config->connections > MP_LOAD_CONNECTIONS_MAX ||
        config->outstanding < config->connections || config->outstanding > MP_LOAD_OUTSTANDING_MAX)
        return MP_EINVAL;
    struct bench b = {.config = config, .first_error = error};
    mp_buf_clear(error);
    mp_buf_init(&b.request, config->alloc, 0);
    enum mp_err err = build_request(&b);
    if (err == MP_OK)
        err = connect_all(&b);
    const struct mp_load_protocol protocol = {.request = mp_buf_slice(&b.request),
                                              .prefix_bytes = MP_FRAME_HEADER_BYTES,
                                              .patch = patch,
                                              .parse = parse,
                                              .context = &b};
    uint64_t timeout_ms = config->is_run ? config->run.timeout_ms : config->call.timeout_ms;
    const struct mp_load_config load = {.protocol = &protocol,
                                        .alloc = config->alloc,
                                        .fds = b.fds,
                                        .connections = config->connections,
                                        .outstanding = config->outstanding,
                                        .duration = config->duration,
                                        .drain = MP_MS(timeout_ms + MP_CLIENT_GRACE_MS > DRAIN_MS
                                                           ? timeout_ms + MP_CLIENT_GRACE_MS
                                                           : DRAIN_MS),
                                        .rate = config->rate,
                                        .interrupts = config->interrupts};
    if (err == MP_OK)
        err = probe(&b, &load, result);
    if (err == MP_OK)
        err = mp_load_run(&load, result);
    for (uint32_t i = 0; b.is_connected && i < config->connections; i++)
        close(b.fds[i]);
    mp_alloc_free(config->alloc, b.fds, config->connections * sizeof(*b.fds));
    mp_buf_fini(&b.request);
    return err;
}

static enum mp_err build_request(struct bench *b)
{
    const struct mp_bench_config *config = b->config;
    struct mp_buf meta;
    mp_buf_init(&meta, config->alloc, MP_FRAME_META_BYTES_MAX);
    enum mp_err err = config->is_run ? mp_run_options_put(&meta, &config->run)
                                     : mp_call_options_put(&meta, &config->call);
    if (err == MP_OK)
        err = mp_frame_put(&b->request, config->is_run ? MP_FRAME_RUN : MP_FRAME_CALL, 1,
                           mp_buf_slice(&meta), config->payload);
    mp_buf_fini(&meta);
    return err;
}

static enum mp_err connect_all(struct bench *b)
{
    const struct mp_bench_config *config = b->config;
    const struct mp_sockets_config sockets = {.nodes = config->nodes,
                                              .nodes_count = config->nodes_count,
                                              .interrupts = config->interrupts};
    b->fds = (int *)mp_alloc_take(config->alloc, config->connections * sizeof(*b->fds));
    if (!b->fds)
        return MP_ENOMEM;
    enum mp_err err = mp_sockets_connect(&sockets, config->connections, b->fds, b->first_error);
    b->is_connected = err == MP_OK;
    return err;
}

/* --- calls --- */

/* Whether a call that ends so can never do better. */
static bool is_hopeless(struct mp_slice error)
{
    struct mp_fault f;
    return error.size != 0 && mp_fault_read(error, &f) == MP_OK &&
           (f.code == MP_CODE_NOT_FOUND || f.code == MP_CODE_INVALID_ARGUMENT ||
            f.code == MP_CODE_FAILED_PRECONDITION || f.code == MP_CODE_UNIMPLEMENTED ||
            f.code == MP_CODE_PERMISSION_DENIED || f.code == MP_CODE_UNAUTHENTICATED ||
            mp_slice_is(f.reason, "TOO_LARGE"));
}

/* One call on the first connection, to see that it makes sense. */
static enum mp_err probe(struct bench *b, const struct mp_load_config *all,
                         struct mp_load_result *result)
{
    struct mp_load_config one = *all;
    one.connections = 1;
    one.outstanding = 1;
    one.calls_max = 1;
    one.duration = MP_SECONDS(PROBE_SECONDS);
    one.drain = 0;
    one.rate = 0;
    enum mp_err err = mp_load_run(&one, result);
    if (err != MP_OK || result->calls == 1)
        return err;
    if (is_interrupted(b))
        return mp_sockets_refuse(b->first_error, MP_CODE_CANCELLED, "INTERRUPTED", "interrupted",
                                 NULL);
    if (is_hopeless(mp_buf_slice(b->first_error)))
        return MP_ECLOSED;
    if (result->kinds_count != 0 && strstr(result->kinds[0].name, "CONNECTION_LOST")) {
        if (b->first_error->size != 0)
            return MP_ECLOSED;
        return mp_sockets_refuse(b->first_error, MP_CODE_UNAVAILABLE, "CONNECTION_LOST",
                                 "the connection was lost in the first call", NULL);
    }
    return MP_OK;
}

static void patch(uint8_t *prefix, uint32_t slot)
{
    uint64_t id = (uint64_t)slot + 1;
    for (unsigned i = 0; i < 8; i++)
        prefix[ID_OFFSET + i] = (uint8_t)(id >> (8 * i));
}

static enum mp_err parse(void *context, struct mp_slice bytes, struct mp_load_answer *a)
{
    struct bench *b = (struct bench *)context;
    struct mp_frame_header h;
    enum mp_err err = mp_frame_read_header(bytes, MP_CLIENT_ANSWER_BYTES_MAX, &h);
    if (err != MP_OK)
        return err;
    a->size = MP_FRAME_HEADER_BYTES + (size_t)h.size;
    if (bytes.size < a->size)
        return MP_EAGAIN;
    struct mp_slice payload =
        mp_slice_of(bytes.data + MP_FRAME_HEADER_BYTES + h.meta_size, h.size - h.meta_size);
    if (h.type == MP_FRAME_ERROR)
        read_error(b, payload, a);
    if (h.id == 0 && h.type != MP_FRAME_GOAWAY)
        return MP_ECORRUPT;
    a->is_none = h.type == MP_FRAME_GOAWAY || h.type == MP_FRAME_EVENT;
    if (a->is_none)
        return MP_OK;
    if ((h.type != MP_FRAME_RESULT && h.type != MP_FRAME_ERROR) || h.id > UINT32_MAX)
        return MP_ECORRUPT;
    a->slot = (uint32_t)h.id - 1;
    if (h.type == MP_FRAME_RESULT && b->config->is_run)
        read_run(b, payload, a);
    return MP_OK;
}

/* A run that did not succeed counts as its error. */
static void read_run(struct bench *b, struct mp_slice payload, struct mp_load_answer *a)
{
    struct mp_slice value;
    struct mp_slice status = mp_slice_str("a run without a status");
    if (mp_mp_map_get(payload, mp_slice_str("status"), &value) == MP_OK)
        (void)(mp_mp_get_str(value, &status) == MP_OK);
    if (mp_slice_is(status, "succeeded"))
        return;
    if (mp_mp_map_get(payload, mp_slice_str("error"), &value) == MP_OK &&
        mp_mp_type_of(value) == MP_MP_MAP) {
        read_error(b, value, a);
        return;
    }
    a->is_error = true;
    snprintf(a->kind, sizeof(a->kind), "%.*s", (int)(status.size < 64 ? status.size : 64),
             (const char *)status.data);
}

static void read_error(struct bench *b, struct mp_slice error, struct mp_load_answer *a)
{
    struct mp_fault f;
    a->is_error = true;
    if (mp_fault_read(error, &f) != MP_OK) {
        snprintf(a->kind, sizeof(a->kind), "UNKNOWN");
        return;
    }
    snprintf(a->kind, sizeof(a->kind), "%s%s%.*s", mp_code_name(f.code),
             f.reason.size != 0 ? "/" : "", (int)(f.reason.size < 64 ? f.reason.size : 64),
             f.reason.size != 0 ? (const char *)f.reason.data : "");
    if (b->first_error->size == 0 && error.size <= ERROR_BYTES_MAX &&
        mp_buf_append(b->first_error, error) != MP_OK)
        mp_buf_clear(b->first_error);
}
