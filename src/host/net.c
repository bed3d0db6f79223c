/* Connections: one listening port, told apart by the first byte; frames in, frames out.
 *
 * Reading: a readable socket is read once a turn into one buffer that all connections share; only a
 * frame that has not come whole is kept. A frame with a large payload is read straight into a
 * shared block, from where a worker takes it without a copy. Writing: answers gather in parts and
 * leave with one writev a turn; a large answer leaves from the block it lies in. A client that does
 * not read is first not read from, and at a limit disconnected. */
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "src/base/assert.h"
#include "src/host/host_internal.h"

#define READ_BYTES       (256u << 10)
#define PART_BYTES       (64u << 10)
#define SPARE_PARTS_MAX  64
#define IOV_MAX_USED     64
#define READ_FRONT_BYTES (4u << 10)
#define READS_A_TURN     4 /* of one connection while a large frame comes in */

static void on_conn(uv_poll_t *poll, int status, int events);

/* --- what is watched --- */

static void watch(struct mp_conn *c)
{
    bool is_reading = !c->is_paused && !c->is_starved && c->state != MP_CONN_CLOSING;
    int wanted = (is_reading ? UV_READABLE : 0) | (c->is_blocked ? UV_WRITABLE : 0);
    if (c->state == MP_CONN_CLOSING)
        wanted |= UV_DISCONNECT;
    if (wanted == c->watched)
        return;
    c->watched = wanted;
    if (wanted == 0)
        uv_poll_stop(&c->poll);
    else
        uv_poll_start(&c->poll, wanted, on_conn);
}

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

static void mark_dirty(struct mp_conn *c)
{
    if (c->is_dirty)
        return;
    c->is_dirty = true;
    c->next_dirty = c->host->dirty;
    c->host->dirty = c;
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

/* --- closing --- */

static void on_closed(uv_handle_t *handle)
{
    struct mp_conn *c = (struct mp_conn *)handle->data;
    struct mp_host *h = c->host;
    unmark_dirty(c);
    close(c->fd);
    while (c->out_first) {
        struct mp_out_part *next = c->out_first->next;
        part_free(h, c->out_first);
        c->out_first = next;
    }
    if (c->is_large)
        mp_host_release(h, c->large_handle);
    mp_buf_fini(&c->in);
    h->conns[c->place] = NULL;
    h->conn_count--;
    free(c);
    if (h->is_accept_stopped && !uv_is_closing((uv_handle_t *)&h->listener)) {
        h->is_accept_stopped = false;
        mp_net_accept(h);
    }
}

static void conn_close(struct mp_conn *c)
{
    if (uv_is_closing((uv_handle_t *)&c->poll))
        return;
    struct mp_host *h = c->host;
    bool was_open = c->state == MP_CONN_OPEN || c->state == MP_CONN_CLOSING;
    h->conn_undecided -= c->state == MP_CONN_UNDECIDED || c->state == MP_CONN_PREFACE;
    h->conn_starved -= c->is_starved;
    c->is_starved = false;
    c->state = MP_CONN_CLOSING;
    uv_close((uv_handle_t *)&c->poll, on_closed);
    if (was_open) {
        const struct mp_node_event gone = {.kind = MP_NODE_CLIENT_GONE,
                                           .request = {.client = c->number}};
        mp_host_step(h, &gone);
    }
}

/* Closes once everything is written; nothing more is read. */
static void conn_finish(struct mp_conn *c)
{
    c->is_closing_after_write = true;
    if (c->state == MP_CONN_OPEN) {
        const struct mp_node_event gone = {.kind = MP_NODE_CLIENT_GONE,
                                           .request = {.client = c->number}};
        mp_host_step(c->host, &gone);
    }
    c->host->conn_undecided -= c->state == MP_CONN_UNDECIDED || c->state == MP_CONN_PREFACE;
    c->state = MP_CONN_CLOSING;
    mark_dirty(c);
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

static void conn_write(struct mp_conn *c)
{
    while (c->out_first) {
        struct iovec iov[IOV_MAX_USED];
        int count = gather(c, iov);
        ssize_t size = writev(c->fd, iov, count);
        if (size < 0 && errno == EINTR)
            continue;
        if (size < 0) {
            if (errno != EAGAIN && errno != EWOULDBLOCK) {
                conn_close(c);
                return;
            }
            if (c->out_bytes >= MP_VALUE_INLINE_MAX && mp_host_give_way(c->host))
                continue;
            c->is_blocked = true;
            watch(c);
            return;
        }
        drop_written(c, (size_t)size);
    }
    c->is_blocked = false;
    if (c->is_closing_after_write) {
        shutdown(c->fd, SHUT_WR);
        conn_close(c);
        return;
    }
    if (c->is_paused && c->out_bytes < MP_CONN_OUT_HIGH_BYTES / 2 &&
        c->in_flight < MP_CONN_PENDING_MAX / 2)
        c->is_paused = false;
    watch(c);
}

void mp_net_flush(struct mp_host *h)
{
    while (h->dirty) {
        struct mp_conn *c = h->dirty;
        h->dirty = c->next_dirty;
        c->is_dirty = false;
        if (!c->is_blocked && !uv_is_closing((uv_handle_t *)&c->poll))
            conn_write(c);
    }
}

static struct mp_conn *find_conn(struct mp_host *h, uint64_t client)
{
    uint32_t place = (uint32_t)client;
    if (place >= h->conn_capacity || !h->conns[place] || h->conns[place]->number != client ||
        uv_is_closing((uv_handle_t *)&h->conns[place]->poll))
        return NULL;
    return h->conns[place];
}

static void pause_reading(struct mp_conn *c)
{
    if (c->is_paused)
        return;
    c->is_paused = true;
    watch(c);
}

static void conn_put_frame(struct mp_conn *c, uint64_t id, uint8_t frame, struct mp_slice payload,
                           uint64_t handle)
{
    struct mp_host *h = c->host;
    uint8_t header[MP_FRAME_HEADER_BYTES];
    const struct mp_frame_header f = {.size = (uint32_t)payload.size, .type = frame, .id = id};
    mp_frame_write_header(header, &f);
    bool is_put = out_copy(c, mp_slice_of(header, sizeof(header)));
    if (is_put && handle != 0) {
        is_put = out_share(c, payload, handle);
        if (is_put)
            handle = 0;
    } else if (is_put) {
        is_put = out_copy(c, payload);
    }
    if (handle != 0)
        mp_host_release(h, handle);
    mark_dirty(c);
    if (!is_put || c->out_bytes > MP_CONN_OUT_MAX_BYTES + h->cfg->value_max) {
        mp_log(2, "client %u does not read its answers: disconnected with %zu bytes unsent",
               c->place, c->out_bytes);
        conn_close(c);
        return;
    }
    if (c->out_bytes > MP_CONN_OUT_HIGH_BYTES)
        pause_reading(c);
}

void mp_net_reply(struct mp_host *h, uint64_t client, uint64_t id, uint8_t frame,
                  struct mp_slice payload, uint64_t handle)
{
    struct mp_conn *c = find_conn(h, client);
    if (c && frame != MP_FRAME_EVENT)
        c->in_flight--;
    if (c && c->state == MP_CONN_OPEN)
        conn_put_frame(c, id, frame, payload, handle);
    else if (handle != 0)
        mp_host_release(h, handle);
}

static void conn_put_error(struct mp_conn *c, uint64_t id, enum mp_code code, const char *reason,
                           const char *message)
{
    struct mp_buf b;
    const struct mp_fault fault = {.code = code,
                                   .reason = mp_slice_str(reason),
                                   .message = mp_slice_str(message),
                                   .node = mp_slice_str(c->host->cfg->name)};
    mp_buf_init(&b, mp_host_alloc(), 0);
    if (mp_fault_put(&b, &fault) == MP_OK)
        conn_put_frame(c, id, MP_FRAME_ERROR, mp_buf_slice(&b), 0);
    mp_buf_fini(&b);
}

/* Something that cannot be a frame: said once, then the connection ends. */
static void protocol_error(struct mp_conn *c, const char *message)
{
    conn_put_error(c, 0, MP_CODE_INVALID_ARGUMENT, "PROTOCOL", message);
    if (!uv_is_closing((uv_handle_t *)&c->poll))
        conn_finish(c);
}

/* --- reading --- */

static int64_t wall_ms(void)
{
    uv_timeval64_t tv;
    return uv_gettimeofday(&tv) == 0 ? tv.tv_sec * 1000 + tv.tv_usec / 1000 : 0;
}

static void request(struct mp_conn *c, const struct mp_frame_header *f, struct mp_slice meta,
                    struct mp_slice payload, uint64_t handle)
{
    struct mp_node_event ev = {.request = {.client = c->number,
                                           .id = f->id,
                                           .meta = meta,
                                           .payload = {.bytes = payload, .handle = handle}}};
    switch ((enum mp_frame_type)f->type) {
    case MP_FRAME_CALL:
        ev.kind = MP_NODE_CALL;
        break;
    case MP_FRAME_RUN:
        ev.kind = MP_NODE_RUN;
        ev.request.wall_ms = wall_ms();
        break;
    case MP_FRAME_CANCEL:
        ev.kind = MP_NODE_CANCEL;
        break;
    default:
        ev.kind = MP_NODE_QUERY;
        break;
    }
    if (ev.kind != MP_NODE_CANCEL && ++c->in_flight >= MP_CONN_PENDING_MAX)
        pause_reading(c);
    mp_host_step(c->host, &ev);
}

/* Whether a header can be acted on; else the connection got its error. */
static bool check_header(struct mp_conn *c, const struct mp_frame_header *f, enum mp_err err)
{
    if (err == MP_ECORRUPT) {
        protocol_error(c, f->flags != 0 ? "a frame has flags that this version does not know"
                                        : "a frame's meta part is larger than the frame");
        return false;
    }
    if (f->type < MP_FRAME_CALL || f->type > MP_FRAME_QUERY) {
        protocol_error(c, "a frame has a type that clients do not send");
        return false;
    }
    if (f->id == 0) {
        protocol_error(c, "a request has the id 0");
        return false;
    }
    return true;
}

static bool has_room_for_block(struct mp_conn *c, const struct mp_frame_header *f)
{
    struct mp_host *h = c->host;
    size_t payload = f->size - f->meta_size;
    /* A list of one long string is the usual large argument: 1 byte of array and 5 of string header
     * stand before the long run, which is what should be aligned. */
    uint64_t at = mp_arena_take(h->arena, payload, 6);
    if (at == MP_ARENA_NONE)
        return false;
    c->is_large = true;
    c->large = *f;
    c->large_handle = MP_HANDLE_HOST | at;
    c->large_data = mp_arena_at(h->arena, at);
    c->large_size = payload;
    c->large_got = 0;
    return true;
}

/* Takes one frame off the front of `bytes`. MP_EAGAIN: more is needed (or the connection waits). */
static enum mp_err take_frame(struct mp_conn *c, struct mp_slice *bytes)
{
    struct mp_frame_header f = {0};
    uint32_t size_max = (uint32_t)(c->host->cfg->value_max + MP_FRAME_SLACK_BYTES);
    enum mp_err err = mp_frame_read_header(*bytes, size_max, &f);
    if (err == MP_EAGAIN)
        return err;
    if (!check_header(c, &f, err))
        return MP_ECLOSED;
    if (err == MP_ETOOLARGE) {
        conn_put_error(c, f.id, MP_CODE_RESOURCE_EXHAUSTED, "TOO_LARGE",
                       "the request is larger than --value-max allows");
        c->discard = f.size;
        *bytes =
            mp_slice_of(bytes->data + MP_FRAME_HEADER_BYTES, bytes->size - MP_FRAME_HEADER_BYTES);
        return MP_OK;
    }
    size_t before = MP_FRAME_HEADER_BYTES + f.meta_size;
    size_t whole = MP_FRAME_HEADER_BYTES + (size_t)f.size;
    c->was_large = f.size - f.meta_size >= MP_VALUE_INLINE_MAX;
    if (!c->was_large) {
        if (bytes->size < whole)
            return MP_EAGAIN;
        request(c, &f, mp_slice_of(bytes->data + MP_FRAME_HEADER_BYTES, f.meta_size),
                mp_slice_of(bytes->data + before, f.size - f.meta_size), 0);
        *bytes = mp_slice_of(bytes->data + whole, bytes->size - whole);
        return MP_OK;
    }
    if (bytes->size < before)
        return MP_EAGAIN;
    if (!has_room_for_block(c, &f)) {
        c->is_starved = true;
        c->host->conn_starved++;
        watch(c);
        return MP_EAGAIN;
    }
    /* The meta part waits in `in` until the payload has come. */
    size_t here = bytes->size - before;
    size_t size = here < c->large_size ? here : c->large_size;
    memcpy(c->large_data, bytes->data + before, size);
    c->large_got = size;
    struct mp_slice meta = mp_slice_of(bytes->data + MP_FRAME_HEADER_BYTES, f.meta_size);
    struct mp_slice rest = mp_slice_of(bytes->data + before + size, here - size);
    if (c->large_got == c->large_size) {
        c->is_large = false;
        request(c, &f, meta, mp_slice_of(c->large_data, c->large_size), c->large_handle);
    } else {
        struct mp_buf kept;
        mp_buf_init(&kept, mp_host_alloc(), 0);
        if (mp_buf_append(&kept, meta) != MP_OK) {
            c->is_large = false;
            mp_host_release(c->host, c->large_handle);
            return MP_ENOMEM;
        }
        mp_buf_fini(&c->in);
        c->in = kept;
        rest = mp_slice_of(NULL, 0);
    }
    *bytes = rest;
    return MP_OK;
}

/* Works off what was read; what is left over of a frame stays in `in`. */
static void take_frames(struct mp_conn *c, struct mp_slice bytes)
{
    bool was_kept = bytes.data == c->in.data && c->in.size != 0;
    enum mp_err err = MP_OK;
    while (bytes.size != 0 && err == MP_OK && c->state == MP_CONN_OPEN && !c->is_large) {
        if (c->discard != 0) {
            size_t size = bytes.size < c->discard ? bytes.size : (size_t)c->discard;
            c->discard -= size;
            bytes = mp_slice_of(bytes.data + size, bytes.size - size);
            continue;
        }
        err = take_frame(c, &bytes);
    }
    if (c->state != MP_CONN_OPEN || c->is_large)
        return;
    if (was_kept)
        mp_buf_drop(&c->in, c->in.size - bytes.size);
    else if (mp_buf_append(&c->in, bytes) != MP_OK)
        err = MP_ENOMEM;
    if (c->in.size == 0)
        mp_buf_fini(&c->in);
    if (err == MP_ENOMEM)
        conn_close(c);
}

static void large_arrived(struct mp_conn *c)
{
    struct mp_buf meta = c->in;
    mp_buf_init(&c->in, mp_host_alloc(), 0);
    c->is_large = false;
    request(c, &c->large, mp_buf_slice(&meta), mp_slice_of(c->large_data, c->large_size),
            c->large_handle);
    mp_buf_fini(&meta);
}

/* What the first bytes of a connection say it speaks. */
static void decide(struct mp_conn *c)
{
    uint8_t first;
    ssize_t size = recv(c->fd, &first, 1, MSG_PEEK);
    if (size < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (size <= 0) {
        conn_close(c);
        return;
    }
    if (first >= 0x80) {
        c->state = MP_CONN_PREFACE;
        return;
    }
    if (first == 0x16) {
        mp_log(0, "client %u speaks TLS, which this node does not: closed", c->place);
        conn_close(c);
        return;
    }
    static const char answer[] = "HTTP/1.1 501 Not Implemented\r\nContent-Type: text/plain\r\n"
                                 "Content-Length: 57\r\nConnection: close\r\n\r\n"
                                 "This port speaks mpreg's native protocol, not HTTP, yet.\n";
    if (recv(c->fd, c->host->read_buffer, READ_BYTES, 0) >= 0 && out_copy(c, mp_slice_str(answer)))
        conn_finish(c);
    else
        conn_close(c);
}

/* The preface has come whole: answered with ours, then frames follow. */
static void take_preface(struct mp_conn *c, struct mp_slice *bytes)
{
    uint8_t version = 0;
    uint8_t ours[MP_PREFACE_BYTES];
    enum mp_err err = mp_preface_read(*bytes, &version);
    if (err == MP_EAGAIN)
        return;
    if (err != MP_OK) {
        conn_close(c);
        return;
    }
    mp_preface_write(ours);
    *bytes = mp_slice_of(bytes->data + MP_PREFACE_BYTES, bytes->size - MP_PREFACE_BYTES);
    c->host->conn_undecided--;
    c->state = MP_CONN_OPEN;
    if (!out_copy(c, mp_slice_of(ours, sizeof(ours)))) {
        conn_close(c);
        return;
    }
    mark_dirty(c);
    if (version != MP_PROTOCOL_VERSION) {
        conn_put_error(c, 0, MP_CODE_UNIMPLEMENTED, "PROTOCOL_VERSION",
                       "this node speaks version 1 of the protocol");
        conn_finish(c);
    }
}

static void read_large(struct mp_conn *c)
{
    for (int i = 0; i < READS_A_TURN + YIELDS_A_TURN && c->is_large; i++) {
        ssize_t size = read(c->fd, c->large_data + c->large_got, c->large_size - c->large_got);
        if (size < 0 && errno == EAGAIN && mp_host_give_way(c->host))
            continue;
        if (size < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (size <= 0) {
            conn_close(c);
            return;
        }
        c->large_got += (size_t)size;
        if (c->large_got == c->large_size)
            large_arrived(c);
    }
}

static void take_bytes(struct mp_conn *c, struct mp_slice bytes)
{
    if (c->in.size != 0) {
        if (mp_buf_append(&c->in, bytes) != MP_OK) {
            conn_close(c);
            return;
        }
        bytes = mp_buf_slice(&c->in);
    }
    if (c->state == MP_CONN_PREFACE) {
        struct mp_slice all = bytes;
        take_preface(c, &bytes);
        if (c->state == MP_CONN_PREFACE) {
            if (c->in.size == 0 && mp_buf_append(&c->in, all) != MP_OK)
                conn_close(c);
            return;
        }
        if (c->state != MP_CONN_OPEN)
            return;
        if (c->in.size != 0) {
            mp_buf_drop(&c->in, MP_PREFACE_BYTES);
            bytes = mp_buf_slice(&c->in);
        }
    }
    take_frames(c, bytes);
}

static void conn_read(struct mp_conn *c)
{
    struct mp_host *h = c->host;
    if (c->state == MP_CONN_UNDECIDED)
        decide(c);
    if (c->state != MP_CONN_PREFACE && c->state != MP_CONN_OPEN)
        return;
    if (c->is_large) {
        read_large(c);
        return;
    }
    /* Behind a large frame another one is likely: its front is read alone, and the rest goes
     * straight into its block instead of through this buffer. */
    size_t size_max = c->was_large ? READ_FRONT_BYTES : READ_BYTES;
    ssize_t size = read(c->fd, h->read_buffer, size_max);
    if (size < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (size <= 0) {
        conn_close(c);
        return;
    }
    take_bytes(c, mp_slice_of(h->read_buffer, (size_t)size));
    if (c->is_large)
        read_large(c);
}

static void on_conn(uv_poll_t *poll, int status, int events)
{
    struct mp_conn *c = (struct mp_conn *)poll->data;
    mp_host_woken(c->host);
    if (status < 0) {
        conn_close(c);
        return;
    }
    if (events & UV_WRITABLE) {
        c->is_blocked = false;
        conn_write(c);
    }
    if ((events & UV_READABLE) && !uv_is_closing((uv_handle_t *)poll))
        conn_read(c);
}

void mp_net_feed_starved(struct mp_host *h)
{
    for (uint32_t i = 0; h->conn_starved != 0 && i < h->conn_capacity; i++) {
        struct mp_conn *c = h->conns[i];
        if (!c || !c->is_starved)
            continue;
        c->is_starved = false;
        h->conn_starved--;
        take_frames(c, mp_buf_slice(&c->in));
        if (!uv_is_closing((uv_handle_t *)&c->poll))
            watch(c);
        if (c->is_starved)
            return;
    }
}

/* --- accepting --- */

static bool grow_conns(struct mp_host *h)
{
    uint32_t capacity = h->conn_capacity == 0 ? 64 : h->conn_capacity * 2;
    struct mp_conn **conns = realloc(h->conns, capacity * sizeof(struct mp_conn *));
    if (!conns)
        return false;
    h->conns = conns;
    uint32_t *generations = realloc(h->conn_generations, capacity * sizeof(uint32_t));
    if (!generations)
        return false;
    h->conn_generations = generations;
    for (uint32_t i = h->conn_capacity; i < capacity; i++) {
        conns[i] = NULL;
        generations[i] = 0;
    }
    h->conn_capacity = capacity;
    return true;
}

static void conn_open(struct mp_host *h, int fd)
{
    uint32_t place = 0;
    while (place < h->conn_capacity && h->conns[place])
        place++;
    struct mp_conn *c = NULL;
    if (h->conn_count < MP_CONNS_MAX && (place < h->conn_capacity || grow_conns(h)))
        c = calloc(1, sizeof(*c));
    if (!c || uv_poll_init(&h->loop, &c->poll, fd) != 0) {
        mp_log(2, "a connection was refused: %u are open", h->conn_count);
        free(c);
        close(fd);
        return;
    }
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    c->host = h;
    c->fd = fd;
    c->place = place;
    c->number = (uint64_t)++h->conn_generations[place] << 32 | place;
    c->opened_at = h->now;
    c->poll.data = c;
    mp_buf_init(&c->in, mp_host_alloc(), 0);
    h->conns[place] = c;
    h->conn_count++;
    h->conn_undecided++;
    watch(c);
}

/* Without a free descriptor the listener would be ready for ever: who knocks waits until a
 * connection closes. */
static void stop_accepting(struct mp_host *h)
{
    mp_log(2, "no connection can be accepted until one closes: too many open files");
    if (h->conn_count == 0)
        return;
    h->is_accept_stopped = true;
    uv_poll_stop(&h->listener);
}

static void on_listener(uv_poll_t *poll, int status, int events)
{
    struct mp_host *h = (struct mp_host *)poll->data;
    (void)events;
    mp_host_woken(h);
    if (status < 0)
        return;
    for (int i = 0; i < 64; i++) {
        int fd = accept4(h->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            if (errno == EMFILE || errno == ENFILE)
                stop_accepting(h);
            return;
        }
        conn_open(h, fd);
    }
}

static bool is_loopback(const struct sockaddr *addr)
{
    if (addr->sa_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)(const void *)addr;
        return ntohl(in->sin_addr.s_addr) >> 24 == 127;
    }
    const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)(const void *)addr;
    return IN6_IS_ADDR_LOOPBACK(&in6->sin6_addr);
}

static bool bind_one(struct mp_host *h, const struct addrinfo *ai)
{
    int fd = socket(ai->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return false;
    int on = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(fd, ai->ai_addr, ai->ai_addrlen) != 0 || listen(fd, 1024) != 0) {
        int saved = errno;
        close(fd);
        errno = saved;
        return false;
    }
    h->listen_fd = fd;
    return true;
}

static void name_addr(struct mp_host *h)
{
    struct sockaddr_storage addr;
    socklen_t size = sizeof(addr);
    char host[64] = "?";
    char port[16] = "?";
    if (getsockname(h->listen_fd, (struct sockaddr *)&addr, &size) == 0)
        getnameinfo((struct sockaddr *)&addr, size, host, sizeof(host), port, sizeof(port),
                    NI_NUMERICHOST | NI_NUMERICSERV);
    bool is_v6 = strchr(host, ':') != NULL;
    snprintf(h->addr, sizeof(h->addr), is_v6 ? "[%s]:%s" : "%s:%s", host, port);
}

bool mp_net_listen(struct mp_host *h)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    struct addrinfo *found = NULL;
    char port[8];
    snprintf(port, sizeof(port), "%u", h->cfg->port);
    int err = getaddrinfo(h->cfg->host, port, &hints, &found);
    if (err != 0) {
        mp_log(3, "--listen %s:%s: %s", h->cfg->host, port, gai_strerror(err));
        return false;
    }
    if (!is_loopback(found->ai_addr) && !h->cfg->is_insecure) {
        mp_log(3,
               "--listen %s:%s is not a loopback address, and the cluster has no keys: refused "
               "(--insecure overrides)",
               h->cfg->host, port);
        freeaddrinfo(found);
        return false;
    }
    h->read_buffer = mp_xalloc(READ_BYTES);
    bool is_bound = bind_one(h, found);
    if (!is_bound)
        mp_log(3, "--listen %s:%s: %s", h->cfg->host, port, strerror(errno));
    freeaddrinfo(found);
    if (!is_bound)
        return false;
    name_addr(h);
    h->listener.data = h;
    return uv_poll_init(&h->loop, &h->listener, h->listen_fd) == 0;
}

void mp_net_accept(struct mp_host *h)
{
    uv_poll_start(&h->listener, UV_READABLE, on_listener);
}

/* --- the rest --- */

void mp_net_goaway(struct mp_host *h)
{
    for (uint32_t i = 0; i < h->conn_capacity; i++)
        if (h->conns[i] && h->conns[i]->state == MP_CONN_OPEN)
            conn_put_frame(h->conns[i], 0, MP_FRAME_GOAWAY, mp_slice_of(NULL, 0), 0);
}

void mp_net_housekeeping(struct mp_host *h)
{
    for (uint32_t i = 0; h->conn_undecided != 0 && i < h->conn_capacity; i++) {
        struct mp_conn *c = h->conns[i];
        if (c && (c->state == MP_CONN_UNDECIDED || c->state == MP_CONN_PREFACE) &&
            h->now - c->opened_at >= MP_MS(MP_PREFACE_TIMEOUT_MS))
            conn_close(c);
    }
}

void mp_net_close_all(struct mp_host *h)
{
    for (uint32_t i = 0; i < h->conn_capacity; i++)
        if (h->conns[i])
            conn_close(h->conns[i]);
}
