/* What leaves over connections: it gathers in parts, which are reused, and goes with one writev a
 * connection and turn. A payload that lies in a shared block is a part of its own and leaves from
 * there. */
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "src/base/assert.h"
#include "src/host/net_internal.h"

#define PART_BYTES      (64u << 10)
#define SPARE_PARTS_MAX 64
#define IOV_MAX_USED    64

/* --- parts --- */

static void part_free(struct mp_host *h, struct mp_out_part *p)
{
    if (p->handle != 0)
        mp_host_release(h, p->handle);
    if (p->capacity != PART_BYTES || h->spare_part_count == SPARE_PARTS_MAX) {
        free(p);
        return;
    }
    p->next = h->spare_parts;
    h->spare_parts = p;
    h->spare_part_count++;
}

static struct mp_out_part *part_append(struct mp_conn *c, size_t capacity)
{
    struct mp_host *h = c->host;
    struct mp_out_part *p = h->spare_parts;
    if (capacity == PART_BYTES && p) {
        h->spare_parts = p->next;
        h->spare_part_count--;
    } else {
        p = malloc(sizeof(*p) + capacity);
        if (!p)
            return NULL;
    }
    *p = (struct mp_out_part){.capacity = capacity, .data = p->bytes};
    if (c->out_last)
        c->out_last->next = p;
    else
        c->out_first = p;
    c->out_last = p;
    return p;
}

/* Copies bytes behind what is on its way out; false without memory. */
static bool out_copy(struct mp_conn *c, struct mp_slice bytes)
{
    while (bytes.size != 0) {
        struct mp_out_part *p = c->out_last;
        if (!p || p->handle != 0 || p->size == p->capacity) {
            size_t capacity = bytes.size > PART_BYTES ? bytes.size : PART_BYTES;
            p = part_append(c, capacity);
            if (!p)
                return false;
        }
        size_t room = p->capacity - p->size;
        size_t size = bytes.size < room ? bytes.size : room;
        memcpy(p->bytes + p->size, bytes.data, size);
        p->size += size;
        c->out_bytes += size;
        bytes = mp_slice_of(bytes.data + size, bytes.size - size);
    }
    return true;
}

static bool out_share(struct mp_conn *c, struct mp_slice bytes, uint64_t handle)
{
    struct mp_out_part *p = part_append(c, 0);
    if (!p)
        return false;
    p->data = bytes.data;
    p->size = bytes.size;
    p->handle = handle;
    c->out_bytes += bytes.size;
    return true;
}

void mp_conn_mark_dirty(struct mp_conn *c)
{
    if (c->is_dirty)
        return;
    c->is_dirty = true;
    c->next_dirty = c->host->dirty;
    c->host->dirty = c;
}

bool mp_conn_put(struct mp_conn *c, struct mp_slice bytes)
{
    mp_conn_mark_dirty(c);
    return out_copy(c, bytes);
}

/* A connection may end between its last answer and the flush. */
static void unmark_dirty(struct mp_conn *c)
{
    struct mp_conn **at = &c->host->dirty;
    while (c->is_dirty && *at != c)
        at = &(*at)->next_dirty;
    if (c->is_dirty)
        *at = c->next_dirty;
    c->is_dirty = false;
}

void mp_conn_drop_unsent(struct mp_conn *c)
{
    unmark_dirty(c);
    while (c->out_first) {
        struct mp_out_part *next = c->out_first->next;
        part_free(c->host, c->out_first);
        c->out_first = next;
    }
}

/* --- writing --- */

static int gather(const struct mp_conn *c, struct iovec *iov)
{
    int count = 0;
    for (struct mp_out_part *p = c->out_first; p && count < IOV_MAX_USED; p = p->next) {
        /* iovec takes a writable pointer although writev writes nothing there */
        union {
            const uint8_t *read;
            void *any;
        } at = {.read = p->data + p->sent};
        iov[count++] = (struct iovec){.iov_base = at.any, .iov_len = p->size - p->sent};
    }
    return count;
}

static void drop_written(struct mp_conn *c, size_t size)
{
    c->out_bytes -= size;
    while (c->out_first) {
        struct mp_out_part *p = c->out_first;
        size_t left = p->size - p->sent;
        if (size < left) {
            p->sent += size;
            return;
        }
        size -= left;
        c->out_first = p->next;
        if (!p->next)
            c->out_last = NULL;
        part_free(c->host, p);
    }
}

static size_t high_mark(const struct mp_conn *c)
{
    return c->is_link ? MP_CONN_OUT_HIGH_BYTES : MP_CONN_STREAM_HIGH_BYTES;
}

/* When more is unsent than should be, and when most of that has left again. */
static void tell_pressure(struct mp_conn *c)
{
    size_t low = c->is_link ? MP_CONN_OUT_HIGH_BYTES / 2 : MP_CONN_STREAM_LOW_BYTES;
    bool is_high = c->out_bytes > (c->is_high ? low : high_mark(c));
    if (c->state != MP_CONN_OPEN || is_high == c->is_high)
        return;
    c->is_high = is_high;
    const struct mp_node_event ev = {.kind = MP_NODE_PRESSURE,
                                     .pressure = {.client = c->number, .is_high = is_high}};
    mp_host_step(c->host, &ev);
}

/* May step the machine at its end, which may close the connection. */
void mp_conn_write(struct mp_conn *c)
{
    while (c->out_first) {
        struct iovec iov[IOV_MAX_USED];
        int count = gather(c, iov);
        ssize_t size = writev(c->fd, iov, count);
        if (size < 0 && errno == EINTR)
            continue;
        if (size < 0) {
            if (errno != EAGAIN && errno != EWOULDBLOCK) {
                mp_conn_close(c);
                return;
            }
            if (c->out_bytes >= MP_VALUE_INLINE_MAX && mp_host_give_way(c->host))
                continue;
            c->is_blocked = true;
            mp_conn_watch(c);
            tell_pressure(c);
            return;
        }
        drop_written(c, (size_t)size);
    }
    c->is_blocked = false;
    c->answer_bytes = 0;
    if (c->is_closing_after_write) {
        shutdown(c->fd, SHUT_WR);
        mp_conn_close(c);
        return;
    }
    if (c->is_paused && c->in_flight < MP_CONN_PENDING_MAX / 2)
        c->is_paused = false;
    mp_conn_watch(c);
    tell_pressure(c);
}

void mp_net_flush(struct mp_host *h)
{
    while (h->dirty) {
        struct mp_conn *c = h->dirty;
        h->dirty = c->next_dirty;
        c->is_dirty = false;
        if (!c->is_blocked && !uv_is_closing((uv_handle_t *)&c->poll))
            mp_conn_write(c);
    }
}

/* --- frames --- */

/* Something was put, or there was no memory for it; `answer_bytes` of it are part of answers. */
static void after_put(struct mp_conn *c, bool is_put, size_t answer_bytes)
{
    mp_conn_mark_dirty(c);
    if (!is_put || c->out_bytes > MP_CONN_OUT_MAX_BYTES + c->host->cfg->value_max) {
        mp_log(2, "%s %u does not read its answers: disconnected with %zu bytes unsent",
               c->is_link ? "link" : "client", c->place, c->out_bytes);
        mp_conn_close(c);
        return;
    }
    c->answer_bytes += answer_bytes;
    if (c->out_bytes > MP_CONN_OUT_HIGH_BYTES && c->answer_bytes > MP_CONN_OUT_HIGH_BYTES)
        mp_conn_pause(c);
    if (c->out_bytes <= high_mark(c))
        return;
    /* What gathered in this turn is no pressure yet if the socket takes it. */
    if (!c->is_link && !c->is_blocked)
        mp_conn_write(c);
    else
        tell_pressure(c);
}

void mp_conn_put_frame(struct mp_conn *c, const struct mp_outgoing_frame *o)
{
    struct mp_host *h = c->host;
    uint8_t header[MP_FRAME_HEADER_BYTES];
    uint64_t handle = o->handle;
    mp_assert(o->meta.size <= UINT16_MAX);
    const struct mp_frame_header f = {.size = (uint32_t)(o->meta.size + o->payload.size),
                                      .type = o->type,
                                      .meta_size = (uint16_t)o->meta.size,
                                      .id = o->id};
    mp_frame_write_header(header, &f);
    bool is_put = out_copy(c, mp_slice_of(header, sizeof(header))) && out_copy(c, o->meta);
    if (is_put && handle != 0) {
        is_put = out_share(c, o->payload, handle);
        if (is_put)
            handle = 0;
    } else if (is_put) {
        is_put = out_copy(c, o->payload);
    }
    if (handle != 0)
        mp_host_release(h, handle);
    bool is_answer = o->type != MP_FRAME_MESSAGES;
    after_put(c, is_put, is_answer ? MP_FRAME_HEADER_BYTES + (size_t)f.size : 0);
}

void mp_net_reply(struct mp_host *h, uint64_t client, const struct mp_outgoing_frame *o)
{
    struct mp_conn *c = mp_conn_find(h, client);
    bool is_end = o->type == MP_FRAME_RESULT || o->type == MP_FRAME_ERROR;
    if (c && is_end && !mp_conn_end_subscription(c, o->id) && c->in_flight != 0)
        c->in_flight--;
    if (c && c->state == MP_CONN_OPEN)
        mp_conn_put_frame(c, o);
    else if (o->handle != 0)
        mp_host_release(h, o->handle);
}

void mp_net_events(struct mp_host *h, uint64_t client, struct mp_slice frames)
{
    struct mp_conn *c = mp_conn_find(h, client);
    if (c && c->state == MP_CONN_OPEN)
        after_put(c, out_copy(c, frames), frames.size);
}

void mp_net_send_frame(struct mp_host *h, const struct mp_node_effect *e)
{
    struct mp_conn *c = mp_conn_find(h, e->client);
    if (!c || c->state != MP_CONN_OPEN) {
        if (e->payload.handle != 0)
            mp_host_release(h, e->payload.handle);
        return;
    }
    if (e->frame == MP_FRAME_HELLO)
        mp_conn_become_link(c);
    const struct mp_outgoing_frame o = {.type = e->frame,
                                        .id = e->id,
                                        .meta = e->context,
                                        .payload = e->payload.bytes,
                                        .handle = e->payload.handle};
    mp_conn_put_frame(c, &o);
}

bool mp_conn_make_error(struct mp_conn *c, struct mp_buf *b, enum mp_code code, const char *reason,
                        const char *message)
{
    const struct mp_fault fault = {.code = code,
                                   .reason = mp_slice_str(reason),
                                   .message = mp_slice_str(message),
                                   .node = mp_slice_str(c->host->cfg->name)};
    mp_buf_init(b, mp_host_alloc(), 0);
    return mp_fault_put(b, &fault) == MP_OK;
}

void mp_conn_put_error(struct mp_conn *c, uint64_t id, enum mp_code code, const char *reason,
                       const char *message)
{
    struct mp_buf b;
    if (mp_conn_make_error(c, &b, code, reason, message)) {
        const struct mp_outgoing_frame o = {
            .type = MP_FRAME_ERROR, .id = id, .payload = mp_buf_slice(&b)};
        mp_conn_put_frame(c, &o);
    }
    mp_buf_fini(&b);
}

bool mp_net_has_unsent(const struct mp_host *h)
{
    for (uint32_t i = 0; i < h->conn_capacity; i++)
        if (h->conns[i] && h->conns[i]->out_first)
            return true;
    return false;
}
