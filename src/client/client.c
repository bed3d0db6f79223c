/* See client.h. Requests live in slots; an id is (generation of the slot, slot + 1), so an answer
 * finds its request without a table, and an answer that comes after its request was given up on is
 * told from one that nobody ever asked for: the first is passed over, the second means that the
 * other side does not speak the protocol, and ends the connection.
 *
 * Frames are appended to `out` and leave in one write per loop turn (from the prepare callback,
 * just before the loop sleeps). `in` holds what was read and not yet parsed; a frame is handed over
 * in place. It grows with what has arrived, never with what a header promises. */
#include "src/client/client.h"

#include <stdio.h>

#include "src/base/assert.h"
#include "src/client/client_internal.h"
#include "src/wire/error.h"
#include "src/wire/msgpack.h"
#include "src/wire/peer.h"

#define READ_BYTES    (256u << 10) /* room for one read */
#define KEEP_BYTES    (8u << 20)   /* a buffer that grew larger is given back once empty */
#define MESSAGE_BYTES 512

static struct mp_slice put_error(struct mp_client *c, enum mp_code code, const char *reason,
                                 struct mp_slice message, const char *hint, struct mp_slice cause);
static struct mp_slice bare_error(void);
static enum mp_err put_question(struct mp_client *c, struct mp_slice what, struct mp_slice options);
static void on_handle_closed(uv_handle_t *handle);
static void free_client(struct mp_client *c);
static enum mp_err take_slot(struct mp_client *c, uint32_t *slot);
static enum mp_err grow_slots(struct mp_client *c);
static enum mp_err send_request(struct mp_client *c, uint8_t type, struct mp_slice payload,
                                const struct mp_client_request *wanted, uint64_t *id);
static void free_slot(struct mp_client *c, uint32_t slot);
static struct mp_client_request *find(struct mp_client *c, uint64_t id);
static void finish(struct mp_client *c, uint32_t slot, enum mp_client_answer answer,
                   struct mp_slice payload);
static void lose(struct mp_client *c, const char *why, struct mp_slice cause);
static void schedule(struct mp_client *c);
static void on_timer(uv_timer_t *timer);
static void on_flush(uv_prepare_t *flush);
static void on_written(uv_write_t *write, int status);
static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf);
static void on_read(uv_stream_t *stream, ssize_t size, const uv_buf_t *buf);
static bool read_preface(struct mp_client *c, size_t *used);
static size_t read_frames(struct mp_client *c, size_t used);
static bool handle_frame(struct mp_client *c, const struct mp_frame_header *h, struct mp_slice meta,
                         struct mp_slice payload);
static bool read_batch(struct mp_slice meta, struct mp_slice payload, struct mp_client_batch *b);

enum mp_err mp_client_connect(const struct mp_client_config *config, mp_client_ready_cb on_ready,
                              struct mp_client **client)
{
    if (config->nodes_count == 0 || config->nodes_count > MP_CLIENT_NODES_MAX)
        return MP_EINVAL;
    for (uint32_t i = 0; i < config->nodes_count; i++)
        if (strlen(config->nodes[i]) > MP_CLIENT_NODE_BYTES)
            return MP_EINVAL;
    struct mp_alloc *a = config->alloc;
    struct mp_client *c = (struct mp_client *)mp_alloc_take(a, sizeof(*c));
    if (!c)
        return MP_ENOMEM;
    *c = (struct mp_client){.loop = config->loop,
                            .alloc = a,
                            .context = config->context,
                            .on_ready = on_ready,
                            .nodes_count = config->nodes_count,
                            .answer_bytes_max = MP_CLIENT_ANSWER_BYTES_MAX,
                            .give_up_at = MP_NEVER};
    if (config->answer_bytes_max != 0 && config->answer_bytes_max < c->answer_bytes_max)
        c->answer_bytes_max = config->answer_bytes_max;
    if (config->timeout_ms != 0 && config->timeout_ms <= MP_TIMEOUT_MS_MAX)
        c->give_up_at = mp_time_add(uv_hrtime(), MP_MS(config->timeout_ms));
    mp_buf_init(&c->tried, a, MP_CLIENT_NODES_MAX * (MP_CLIENT_NODE_BYTES + MESSAGE_BYTES));
    mp_buf_init(&c->in, a, 0);
    mp_buf_init(&c->out, a, MP_CLIENT_OUT_BYTES_MAX);
    mp_buf_init(&c->sending, a, MP_CLIENT_OUT_BYTES_MAX);
    mp_buf_init(&c->meta, a, MP_FRAME_META_BYTES_MAX);
    mp_buf_init(&c->error, a, 0);
    mp_heap_init(&c->deadlines, a);
    size_t nodes_bytes = config->nodes_count * sizeof(*c->nodes);
    c->nodes = (char(*)[MP_CLIENT_NODE_BYTES + 1]) mp_alloc_take(a, nodes_bytes);
    if (!c->nodes) {
        mp_alloc_free(a, c, sizeof(*c));
        return MP_ENOMEM;
    }
    for (uint32_t i = 0; i < config->nodes_count; i++)
        memcpy(c->nodes[i], config->nodes[i], strlen(config->nodes[i]) + 1);
    /* Neither of these can fail; both call back only once started. */
    uv_timer_init(c->loop, &c->timer);
    uv_prepare_init(c->loop, &c->flush);
    c->timer.data = c;
    c->flush.data = c;
    c->handles = 2;
    mp_client_arm(c, 0);
    *client = c;
    return MP_OK;
}

void mp_client_close(struct mp_client *c, void *context, mp_client_closed_cb on_closed)
{
    mp_assert(c->state != MP_CLIENT_CLOSING);
    c->state = MP_CLIENT_CLOSING;
    c->closed_context = context;
    c->on_closed = on_closed;
    if (c->lookup) {
        uv_cancel((uv_req_t *)&c->lookup->request);
        c->lookup = NULL;
    }
    mp_client_drop_link(c);
    uv_close((uv_handle_t *)&c->timer, on_handle_closed);
    uv_close((uv_handle_t *)&c->flush, on_handle_closed);
}

enum mp_err mp_client_call(struct mp_client *c, const struct mp_call_options *options,
                           struct mp_slice args, void *context, mp_client_answer_cb on_answer,
                           uint64_t *id)
{
    mp_buf_clear(&c->meta);
    enum mp_err err = mp_call_options_put(&c->meta, options);
    if (err != MP_OK)
        return err;
    const struct mp_client_request wanted = {
        .timeout_ms = options->timeout_ms, .context = context, .on_answer = on_answer};
    return send_request(c, MP_FRAME_CALL, args, &wanted, id);
}

enum mp_err mp_client_run(struct mp_client *c, const struct mp_run_options *options,
                          struct mp_slice payload, void *context, mp_client_answer_cb on_answer,
                          uint64_t *id)
{
    mp_buf_clear(&c->meta);
    enum mp_err err = mp_run_options_put(&c->meta, options);
    if (err != MP_OK)
        return err;
    const struct mp_client_request wanted = {
        .timeout_ms = options->timeout_ms, .context = context, .on_answer = on_answer};
    return send_request(c, MP_FRAME_RUN, payload, &wanted, id);
}

enum mp_err mp_client_query(struct mp_client *c, struct mp_slice what, struct mp_slice options,
                            struct mp_slice payload, uint64_t timeout_ms, void *context,
                            mp_client_answer_cb on_answer, uint64_t *id)
{
    enum mp_err err = put_question(c, what, options);
    if (err != MP_OK)
        return err;
    const struct mp_client_request wanted = {.timeout_ms =
                                                 timeout_ms != 0 ? timeout_ms : MP_CLIENT_QUERY_MS,
                                             .context = context,
                                             .on_answer = on_answer};
    return send_request(c, MP_FRAME_QUERY, payload, &wanted, id);
}

enum mp_err mp_client_eval(struct mp_client *c, struct mp_slice what, struct mp_slice options,
                           struct mp_slice text, uint64_t timeout_ms, void *context,
                           mp_client_answer_cb on_answer, uint64_t *id)
{
    if (text.size > MP_CLIENT_ANSWER_BYTES_MAX - MP_FRAME_META_BYTES_MAX)
        return MP_ETOOLARGE;
    enum mp_err err = put_question(c, what, options);
    if (err != MP_OK)
        return err;
    struct mp_buf payload;
    mp_buf_init(&payload, c->alloc, 0);
    err = mp_mp_put_str(&payload, text);
    const struct mp_client_request wanted = {.timeout_ms = timeout_ms,
                                             .has_own_deadline = true,
                                             .context = context,
                                             .on_answer = on_answer};
    if (err == MP_OK)
        err = send_request(c, MP_FRAME_EVAL, mp_buf_slice(&payload), &wanted, id);
    mp_buf_fini(&payload);
    return err;
}

enum mp_err mp_client_publish(struct mp_client *c, struct mp_slice messages, uint64_t timeout_ms,
                              void *context, mp_client_answer_cb on_answer, uint64_t *id)
{
    mp_buf_clear(&c->meta);
    enum mp_err err = mp_mp_put_array(&c->meta, 0);
    if (err != MP_OK)
        return err;
    const struct mp_client_request wanted = {.timeout_ms =
                                                 timeout_ms != 0 ? timeout_ms : MP_CLIENT_QUERY_MS,
                                             .context = context,
                                             .on_answer = on_answer};
    return send_request(c, MP_FRAME_PUBLISH, messages, &wanted, id);
}

enum mp_err mp_client_subscribe(struct mp_client *c, const struct mp_subscribe_options *options,
                                uint64_t timeout_ms, void *context, mp_client_answer_cb on_answer,
                                mp_client_messages_cb on_messages, uint64_t *id)
{
    mp_buf_clear(&c->meta);
    enum mp_err err = mp_subscribe_options_put(&c->meta, options);
    if (err != MP_OK)
        return err;
    const struct mp_client_request wanted = {.timeout_ms = timeout_ms,
                                             .has_own_deadline = true,
                                             .context = context,
                                             .on_answer = on_answer,
                                             .on_messages = on_messages};
    return send_request(c, MP_FRAME_SUBSCRIBE, mp_slice_of(NULL, 0), &wanted, id);
}

void mp_client_cancel(struct mp_client *c, uint64_t id)
{
    if (!find(c, id) || (c->state != MP_CLIENT_OPEN && c->state != MP_CLIENT_LEAVING))
        return;
    const struct mp_slice none = {0};
    /* Without memory for 16 bytes the request simply runs on to its own end. */
    if (mp_frame_put(&c->out, MP_FRAME_CANCEL, id, none, none) == MP_OK)
        uv_prepare_start(&c->flush, on_flush);
}

bool mp_client_is_open(const struct mp_client *c)
{
    return c->state == MP_CLIENT_OPEN;
}

struct mp_slice mp_client_error(const struct mp_client *c)
{
    return mp_buf_slice(&c->error);
}

struct mp_slice mp_client_node(const struct mp_client *c)
{
    if (c->state == MP_CLIENT_CONNECTING || !c->has_begun)
        return mp_slice_of(NULL, 0);
    return mp_slice_str(c->nodes[c->node]);
}

uint32_t mp_client_requests(const struct mp_client *c)
{
    return c->in_flight;
}

void mp_client_arm(struct mp_client *c, uint64_t ms)
{
    uv_update_time(c->loop);
    uv_timer_start(&c->timer, on_timer, ms, 0);
}

void mp_client_link_connected(struct mp_client *c)
{
    uint8_t preface[MP_PREFACE_BYTES];
    mp_preface_write(preface);
    uv_tcp_nodelay(&c->link->tcp, 1);
    mp_buf_clear(&c->in);
    mp_buf_clear(&c->out);
    if (mp_buf_append(&c->out, mp_slice_of(preface, sizeof(preface))) != MP_OK) {
        mp_client_attempt_failed(c, "out of memory");
        return;
    }
    int status = uv_read_start((uv_stream_t *)&c->link->tcp, on_alloc, on_read);
    if (status != 0) {
        mp_client_attempt_failed(c, uv_strerror(status));
        return;
    }
    uv_prepare_start(&c->flush, on_flush);
}

void mp_client_give_up(struct mp_client *c)
{
    uv_timer_stop(&c->timer);
    c->state = MP_CLIENT_LOST;
    struct mp_buf message;
    mp_buf_init(&message, c->alloc, 0);
    enum mp_err err = mp_buf_append(&message, mp_slice_str("no node answered: "));
    if (err == MP_OK)
        err = mp_buf_append(&message, mp_buf_slice(&c->tried));
    struct mp_slice error =
        put_error(c, MP_CODE_UNAVAILABLE, "NO_NODE",
                  err == MP_OK ? mp_buf_slice(&message) : mp_slice_str("no node answered"),
                  "is a node running? start one with `mpreg node`", mp_slice_of(NULL, 0));
    mp_buf_fini(&message);
    c->on_ready(c->context, error);
}

void mp_client_drop_link(struct mp_client *c)
{
    struct mp_client_link *link = c->link;
    c->link = NULL;
    c->is_writing = false;
    c->is_write_dead = false;
    if (link)
        uv_close((uv_handle_t *)&link->tcp, on_handle_closed);
}

void mp_client_release(struct mp_client *c)
{
    mp_assert(c->handles > 0);
    c->handles--;
    if (c->handles == 0) {
        mp_assert(c->state == MP_CLIENT_CLOSING);
        free_client(c);
    }
}

/* What can be said without memory. */
static struct mp_slice bare_error(void)
{
    return mp_slice_str("\x81\xa4"
                        "code"
                        "\xab"
                        "UNAVAILABLE");
}

/* Fills c->error and returns it; without memory a ready-made map. */
static struct mp_slice put_error(struct mp_client *c, enum mp_code code, const char *reason,
                                 struct mp_slice message, const char *hint, struct mp_slice cause)
{
    const struct mp_fault fault = {.code = code,
                                   .reason = mp_slice_str(reason),
                                   .message = message,
                                   .hint = hint ? mp_slice_str(hint) : mp_slice_of(NULL, 0),
                                   .cause = cause};
    struct mp_buf b;
    mp_buf_init(&b, c->alloc, 0);
    if (mp_fault_put(&b, &fault) != MP_OK) {
        mp_buf_fini(&b);
        return bare_error();
    }
    mp_buf_fini(&c->error);
    c->error = b;
    return mp_buf_slice(&c->error);
}

/* The meta part [what, options]. */
static enum mp_err put_question(struct mp_client *c, struct mp_slice what, struct mp_slice options)
{
    mp_buf_clear(&c->meta);
    enum mp_err err = mp_mp_put_array(&c->meta, options.size == 0 ? 1 : 2);
    if (err == MP_OK)
        err = mp_mp_put_str(&c->meta, what);
    return err == MP_OK ? mp_buf_append(&c->meta, options) : err;
}

static void on_handle_closed(uv_handle_t *handle)
{
    struct mp_client *c;
    if (handle->type == UV_TCP) {
        struct mp_client_link *link = (struct mp_client_link *)(void *)handle;
        c = link->client;
        mp_alloc_free(c->alloc, link, sizeof(*link));
    } else {
        c = (struct mp_client *)handle->data;
    }
    mp_client_release(c);
}

static void free_client(struct mp_client *c)
{
    void *context = c->closed_context;
    mp_client_closed_cb on_closed = c->on_closed;
    struct mp_alloc *a = c->alloc;
    mp_heap_fini(&c->deadlines);
    mp_alloc_free(a, c->places, c->slots * sizeof(*c->places));
    mp_alloc_free(a, c->requests, c->slots * sizeof(*c->requests));
    mp_buf_fini(&c->error);
    mp_buf_fini(&c->meta);
    mp_buf_fini(&c->sending);
    mp_buf_fini(&c->out);
    mp_buf_fini(&c->in);
    mp_buf_fini(&c->tried);
    mp_alloc_free(a, c->nodes, c->nodes_count * sizeof(*c->nodes));
    mp_alloc_free(a, c, sizeof(*c));
    if (on_closed)
        on_closed(context);
}

/* --- requests --- */

static enum mp_err take_slot(struct mp_client *c, uint32_t *slot)
{
    if (c->free_slot == 0) {
        enum mp_err err = grow_slots(c);
        if (err != MP_OK)
            return err;
    }
    *slot = c->free_slot - 1;
    c->free_slot = c->requests[*slot].next_free;
    return MP_OK;
}

static enum mp_err grow_slots(struct mp_client *c)
{
    if (c->slots >= MP_CLIENT_REQUESTS_MAX)
        return MP_EFULL;
    uint32_t slots = c->slots == 0 ? 16 : c->slots * 2;
    if (slots > MP_CLIENT_REQUESTS_MAX)
        slots = MP_CLIENT_REQUESTS_MAX;
    struct mp_client_request *requests =
        (struct mp_client_request *)mp_alloc_take(c->alloc, slots * sizeof(*requests));
    uint32_t *places = (uint32_t *)mp_alloc_take(c->alloc, slots * sizeof(*places));
    if (!requests || !places) {
        mp_alloc_free(c->alloc, requests, slots * sizeof(*requests));
        mp_alloc_free(c->alloc, places, slots * sizeof(*places));
        return MP_ENOMEM;
    }
    if (c->slots != 0) {
        memcpy(requests, c->requests, c->slots * sizeof(*requests));
        memcpy(places, c->places, c->slots * sizeof(*places));
    }
    for (uint32_t i = c->slots; i < slots; i++) {
        requests[i] = (struct mp_client_request){.next_free = i + 1 < slots ? i + 2 : 0};
        places[i] = MP_HEAP_NONE;
    }
    mp_alloc_free(c->alloc, c->requests, c->slots * sizeof(*requests));
    mp_alloc_free(c->alloc, c->places, c->slots * sizeof(*places));
    c->requests = requests;
    c->places = places;
    c->free_slot = c->slots + 1;
    c->slots = slots;
    return MP_OK;
}

static enum mp_err send_request(struct mp_client *c, uint8_t type, struct mp_slice payload,
                                const struct mp_client_request *wanted, uint64_t *id)
{
    if (c->state != MP_CLIENT_OPEN)
        return MP_ECLOSED;
    if (payload.size > MP_CLIENT_ANSWER_BYTES_MAX - MP_FRAME_META_BYTES_MAX)
        return MP_ETOOLARGE;
    if (c->out.size + c->sending.size + payload.size > MP_CLIENT_OUT_BYTES_MAX / 2 &&
        c->out.size + c->sending.size != 0)
        return MP_EFULL;
    uint32_t slot;
    enum mp_err err = take_slot(c, &slot);
    if (err != MP_OK)
        return err;
    struct mp_client_request *r = &c->requests[slot];
    uint64_t new_id = (uint64_t)r->generation << 32 | (slot + 1);
    bool has_deadline = wanted->timeout_ms != 0 && wanted->timeout_ms <= MP_TIMEOUT_MS_MAX;
    if (has_deadline) {
        uint64_t grace_ms = wanted->has_own_deadline ? 0 : MP_CLIENT_GRACE_MS;
        mp_time at = mp_time_add(uv_hrtime(), MP_MS(wanted->timeout_ms + grace_ms));
        err = mp_heap_set(&c->deadlines, c->places, slot, at);
    }
    if (err == MP_OK)
        err = mp_frame_put(&c->out, type, new_id, mp_buf_slice(&c->meta), payload);
    if (err != MP_OK) {
        mp_heap_remove(&c->deadlines, c->places, slot);
        r->next_free = c->free_slot;
        c->free_slot = slot + 1;
        return err;
    }
    r->id = new_id;
    r->timeout_ms = wanted->timeout_ms;
    r->has_own_deadline = wanted->has_own_deadline;
    r->context = wanted->context;
    r->on_answer = wanted->on_answer;
    r->on_messages = wanted->on_messages;
    c->in_flight++;
    if (has_deadline)
        schedule(c);
    uv_prepare_start(&c->flush, on_flush);
    *id = new_id;
    return MP_OK;
}

static void free_slot(struct mp_client *c, uint32_t slot)
{
    struct mp_client_request *r = &c->requests[slot];
    mp_heap_remove(&c->deadlines, c->places, slot);
    r->id = 0;
    r->generation++;
    r->next_free = c->free_slot;
    c->free_slot = slot + 1;
    c->in_flight--;
}

static struct mp_client_request *find(struct mp_client *c, uint64_t id)
{
    uint32_t slot = (uint32_t)id - 1;
    return id != 0 && slot < c->slots && c->requests[slot].id == id ? &c->requests[slot] : NULL;
}

static void finish(struct mp_client *c, uint32_t slot, enum mp_client_answer answer,
                   struct mp_slice payload)
{
    const struct mp_client_request r = c->requests[slot];
    free_slot(c, slot);
    r.on_answer(r.context, r.id, answer, payload);
}

/* The connection is gone: every request ends with the same error. */
static void lose(struct mp_client *c, const char *why, struct mp_slice cause)
{
    char text[MP_CLIENT_NODE_BYTES + MESSAGE_BYTES];
    struct mp_fault fault = {0};
    if (cause.size != 0 && mp_fault_read(cause, &fault) != MP_OK)
        cause = mp_slice_of(NULL, 0);
    int size =
        (int)(fault.message.size < MESSAGE_BYTES / 2 ? fault.message.size : MESSAGE_BYTES / 2);
    snprintf(text, sizeof(text), "the connection to %s was lost: %s%s%.*s", c->nodes[c->node], why,
             size != 0 ? ": " : "", size, size != 0 ? (const char *)fault.message.data : "");
    put_error(c, MP_CODE_UNAVAILABLE, "CONNECTION_LOST", mp_slice_str(text), NULL, cause);
    c->state = MP_CLIENT_LOST;
    mp_client_drop_link(c);
    uv_prepare_stop(&c->flush);
    mp_buf_fini(&c->out);
    for (uint32_t slot = 0; slot < c->slots && c->state == MP_CLIENT_LOST; slot++)
        if (c->requests[slot].id != 0)
            finish(c, slot, MP_CLIENT_ERROR, mp_buf_slice(&c->error));
    if (c->state == MP_CLIENT_LOST)
        uv_timer_stop(&c->timer);
}

/* --- deadlines --- */

static void schedule(struct mp_client *c)
{
    mp_time at = mp_heap_first(&c->deadlines);
    mp_time now = uv_hrtime();
    if (at == MP_NEVER)
        uv_timer_stop(&c->timer);
    else
        mp_client_arm(c, at <= now ? 0 : (at - now) / 1000000 + 1);
}

static void on_timer(uv_timer_t *timer)
{
    struct mp_client *c = (struct mp_client *)timer->data;
    if (c->state == MP_CLIENT_CONNECTING) {
        if (c->has_begun)
            mp_client_attempt_timed_out(c);
        else
            mp_client_seek(c);
        return;
    }
    uint32_t slot;
    mp_time now = uv_hrtime();
    while (c->state != MP_CLIENT_CLOSING && mp_heap_pop(&c->deadlines, c->places, now, &slot)) {
        const struct mp_client_request *r = &c->requests[slot];
        char text[MP_CLIENT_NODE_BYTES + MESSAGE_BYTES];
        snprintf(text, sizeof(text), "%s did not answer within the deadline of %llu ms",
                 c->nodes[c->node], (unsigned long long)r->timeout_ms);
        const char *reason = r->has_own_deadline ? "DEADLINE_EXCEEDED" : "NO_ANSWER";
        mp_client_cancel(c, r->id);
        const struct mp_fault fault = {.code = MP_CODE_DEADLINE_EXCEEDED,
                                       .reason = mp_slice_str(reason),
                                       .message = mp_slice_str(text)};
        struct mp_buf b;
        mp_buf_init(&b, c->alloc, 0);
        bool is_told = mp_fault_put(&b, &fault) == MP_OK;
        finish(c, slot, MP_CLIENT_ERROR, is_told ? mp_buf_slice(&b) : bare_error());
        mp_buf_fini(&b);
    }
    if (c->state != MP_CLIENT_CLOSING)
        schedule(c);
}

/* --- writing --- */

static void on_flush(uv_prepare_t *flush)
{
    struct mp_client *c = (struct mp_client *)flush->data;
    uv_prepare_stop(flush);
    if (c->is_writing || !c->link || c->out.size == 0)
        return;
    if (c->is_write_dead) {
        mp_buf_clear(&c->out);
        return;
    }
    struct mp_buf swap = c->sending;
    c->sending = c->out;
    c->out = swap;
    uv_buf_t buf = {.base = (char *)c->sending.data, .len = c->sending.size};
    uv_stream_t *stream = (uv_stream_t *)&c->link->tcp;
    int sent = uv_try_write(stream, &buf, 1);
    size_t done = sent > 0 ? (size_t)sent : 0;
    int status = sent >= 0 || sent == UV_EAGAIN ? 0 : sent;
    if (status == 0 && done < c->sending.size) {
        buf.base += done;
        buf.len -= done;
        status = uv_write(&c->link->write, stream, &buf, 1, on_written);
        c->is_writing = status == 0;
    }
    /* A broken pipe: what the node said before it closed is still to be read, so the end of the
     * connection is told by the reading side. */
    c->is_write_dead = status != 0;
    if (!c->is_writing) {
        mp_buf_clear(&c->sending);
        if (c->sending.capacity > KEEP_BYTES)
            mp_buf_fini(&c->sending);
    }
}

static void on_written(uv_write_t *write, int status)
{
    struct mp_client_link *link = (struct mp_client_link *)(void *)write->handle;
    struct mp_client *c = link->client;
    if (c->link != link)
        return;
    mp_buf_clear(&c->sending);
    if (c->sending.capacity > KEEP_BYTES)
        mp_buf_fini(&c->sending);
    c->is_writing = false;
    c->is_write_dead = status != 0;
    if (c->out.size != 0)
        uv_prepare_start(&c->flush, on_flush);
}

/* --- reading --- */

/* Offers what is left of a large frame that has begun, so that it ends at the buffer's end and
 * nothing behind it needs to be moved; else room for many small ones. */
static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    (void)suggested;
    struct mp_client *c = ((struct mp_client_link *)(void *)handle)->client;
    size_t wanted = READ_BYTES;
    size_t exact = 0;
    struct mp_frame_header h;
    buf->base = NULL;
    buf->len = 0;
    if (c->state != MP_CLIENT_CONNECTING &&
        mp_frame_read_header(mp_buf_slice(&c->in), c->answer_bytes_max, &h) == MP_OK) {
        size_t rest = MP_FRAME_HEADER_BYTES + (size_t)h.size - c->in.size;
        exact = rest > READ_BYTES ? rest : 0;
        /* at most doubling what has really come */
        wanted = exact != 0 && c->in.size > READ_BYTES ? c->in.size : READ_BYTES;
        wanted = exact != 0 && exact < wanted ? exact : wanted;
    }
    if (mp_buf_reserve(&c->in, wanted) != MP_OK)
        return; /* libuv reports UV_ENOBUFS to on_read */
    size_t room = c->in.capacity - c->in.size;
    buf->base = (char *)c->in.data + c->in.size;
    buf->len = exact != 0 && exact < room ? exact : room;
}

static void on_read(uv_stream_t *stream, ssize_t size, const uv_buf_t *buf)
{
    (void)buf;
    struct mp_client_link *link = (struct mp_client_link *)(void *)stream;
    struct mp_client *c = link->client;
    if (c->link != link || size == 0)
        return;
    if (size < 0) {
        const char *why = size == UV_EOF       ? "the node closed it"
                          : size == UV_ENOBUFS ? "out of memory"
                                               : uv_strerror((int)size);
        if (c->state == MP_CLIENT_CONNECTING)
            mp_client_attempt_failed(c, size == UV_EOF ? "closed without an answer" : why);
        else
            lose(c, why, mp_slice_of(NULL, 0));
        return;
    }
    c->in.size += (size_t)size;
    size_t used = 0;
    if (c->state == MP_CLIENT_CONNECTING && !read_preface(c, &used))
        return;
    used = read_frames(c, used);
    if (c->link != link)
        return;
    mp_buf_drop(&c->in, used);
    if (c->in.size == 0 && c->in.capacity > KEEP_BYTES)
        mp_buf_fini(&c->in);
}

/* True once the connection stands; false if more bytes are needed or the attempt failed. */
static bool read_preface(struct mp_client *c, size_t *used)
{
    uint8_t version;
    enum mp_err err = mp_preface_read(mp_buf_slice(&c->in), &version);
    if (err == MP_EAGAIN)
        return false;
    if (err != MP_OK) {
        mp_client_attempt_failed(c, "what answers there is no mpreg node");
        return false;
    }
    if (version != MP_PROTOCOL_VERSION) {
        char text[MESSAGE_BYTES];
        snprintf(text, sizeof(text),
                 "it speaks version %u of the protocol, this program version %u", version,
                 MP_PROTOCOL_VERSION);
        mp_client_attempt_failed(c, text);
        return false;
    }
    *used = MP_PREFACE_BYTES;
    c->state = MP_CLIENT_OPEN;
    uv_timer_stop(&c->timer);
    c->on_ready(c->context, mp_slice_of(NULL, 0));
    return c->state != MP_CLIENT_CLOSING;
}

/* Handles all whole frames; returns how many bytes they were. */
static size_t read_frames(struct mp_client *c, size_t used)
{
    while (c->link) {
        struct mp_slice rest = mp_slice_of(c->in.data + used, c->in.size - used);
        struct mp_frame_header h;
        enum mp_err err = mp_frame_read_header(rest, c->answer_bytes_max, &h);
        if (err == MP_EAGAIN)
            break;
        if (err == MP_ETOOLARGE) {
            lose(c, "the node's answer is too large", mp_slice_of(NULL, 0));
            break;
        }
        if (err != MP_OK) {
            lose(c, "the node sent bytes that are no frame", mp_slice_of(NULL, 0));
            break;
        }
        size_t whole = MP_FRAME_HEADER_BYTES + (size_t)h.size;
        if (rest.size < whole)
            break;
        const uint8_t *meta = rest.data + MP_FRAME_HEADER_BYTES;
        if (!handle_frame(c, &h, mp_slice_of(meta, h.meta_size),
                          mp_slice_of(meta + h.meta_size, h.size - h.meta_size))) {
            lose(c, "the node sent a frame that means nothing here", mp_slice_of(NULL, 0));
            break;
        }
        used += whole;
    }
    return used;
}

static bool is_map(struct mp_slice payload)
{
    return payload.size != 0 && mp_mp_type_of(payload) == MP_MP_MAP &&
           mp_mp_check(payload) == MP_OK;
}

/* False if the other side broke the protocol. */
static bool handle_frame(struct mp_client *c, const struct mp_frame_header *h, struct mp_slice meta,
                         struct mp_slice payload)
{
    struct mp_client_batch batch = {0};
    if (h->type == MP_FRAME_GOAWAY) {
        if (c->state == MP_CLIENT_OPEN) {
            c->state = MP_CLIENT_LEAVING;
            put_error(c, MP_CODE_UNAVAILABLE, "DRAINING", mp_slice_str("the node is about to stop"),
                      NULL, mp_slice_of(NULL, 0));
        }
        return true;
    }
    if (h->type == MP_FRAME_ERROR && !is_map(payload))
        return false;
    if (h->type == MP_FRAME_ERROR && h->id == 0) {
        lose(c, "the node ended it", payload);
        return true;
    }
    if (h->type != MP_FRAME_RESULT && h->type != MP_FRAME_ERROR && h->type != MP_FRAME_EVENT &&
        !(h->type == MP_FRAME_MESSAGES && read_batch(meta, payload, &batch)))
        return false;
    struct mp_client_request *r = find(c, h->id);
    if (!r) {
        uint32_t slot = (uint32_t)h->id - 1;
        return slot < c->slots && (h->id >> 32) < c->requests[slot].generation;
    }
    if (h->type == MP_FRAME_MESSAGES) {
        if (!r->on_messages)
            return false;
        r->on_messages(r->context, r->id, &batch);
        return true;
    }
    if (h->type != MP_FRAME_EVENT) {
        enum mp_client_answer end = h->type == MP_FRAME_RESULT ? MP_CLIENT_RESULT : MP_CLIENT_ERROR;
        finish(c, (uint32_t)h->id - 1, end, payload);
        return true;
    }
    if (!is_map(payload))
        return false;
    r->on_answer(r->context, r->id, MP_CLIENT_EVENT, payload);
    return true;
}

/* Whether the payload is an array is all that is checked of it. */
static bool read_batch(struct mp_slice meta, struct mp_slice payload, struct mp_client_batch *b)
{
    struct mp_peer_messages m;
    if (mp_peer_messages_read(meta, &m) != MP_OK || payload.size == 0 ||
        mp_mp_type_of(payload) != MP_MP_ARRAY || mp_mp_check(payload) != MP_OK)
        return false;
    *b = (struct mp_client_batch){.publisher = m.publisher,
                                  .dropped = m.dropped,
                                  .after_seq = m.after_seq,
                                  .messages = payload};
    return true;
}
