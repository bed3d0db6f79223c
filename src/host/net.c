/* Connections: one listening port, told apart by the first byte; frames in, frames out.
 *
 * Reading: a readable socket is read once a turn into one buffer that all connections share; only a
 * frame that has not come whole is kept. A frame with a large payload is read straight into a
 * shared block, from where a worker takes it without a copy. Writing: answers gather in parts and
 * leave with one writev a turn; a large answer leaves from the block it lies in. A client that does
 * not read its answers is first not read from, and at a limit disconnected. Messages of topics do
 * not count for that: the machine is told of the pressure and holds them back, and the client can
 * still cancel what it cannot follow.
 *
 * A link, which is a connection on which HELLO was sent or received, is always read: two nodes that
 * each waited for the other to read would wait for ever. The machine is told of the pressure and
 * holds back instead; only the limit is the same. */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "src/base/assert.h"
#include "src/host/net_internal.h"
#include "src/host/sessions.h"

#define READ_FRONT_BYTES (4u << 10)
#define READS_A_TURN     4  /* of one connection while a large frame comes in */
#define READS_AT_END     64 /* of a link that was reset: what it had said still counts */

/* Types of frames: answers of a node, and from HELLO on what only nodes say. */
#define ANSWER_FIRST  16u
#define BETWEEN_FIRST MP_FRAME_HELLO
#define TYPE_MAX      63u

static void on_conn(uv_poll_t *poll, int status, int events);

/* --- what is watched --- */

void mp_conn_watch(struct mp_conn *c)
{
    bool is_reading = !c->is_paused && !c->is_starved && c->state != MP_CONN_CLOSING &&
                      c->state != MP_CONN_CONNECTING;
    bool is_writing = c->is_blocked || c->state == MP_CONN_CONNECTING;
    int wanted = (is_reading ? UV_READABLE : 0) | (is_writing ? UV_WRITABLE : 0);
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

/* --- closing --- */

static void on_closed(uv_handle_t *handle)
{
    struct mp_conn *c = (struct mp_conn *)handle->data;
    struct mp_host *h = c->host;
    close(c->fd);
    mp_conn_drop_unsent(c);
    if (c->is_large)
        mp_host_release(h, c->large_handle);
    mp_buf_fini(&c->in);
    free(c->subscriptions);
    h->conns[c->place] = NULL;
    h->conn_count--;
    free(c);
    if (h->is_accept_stopped && !uv_is_closing((uv_handle_t *)&h->listener)) {
        h->is_accept_stopped = false;
        mp_net_accept(h);
    }
}

static void tell_gone(struct mp_conn *c)
{
    const struct mp_node_event gone = {.kind = MP_NODE_CLIENT_GONE,
                                       .request = {.client = c->number}};
    mp_session_client_gone(c->host, c->number);
    mp_host_step(c->host, &gone);
}

void mp_conn_close(struct mp_conn *c)
{
    if (uv_is_closing((uv_handle_t *)&c->poll))
        return;
    struct mp_host *h = c->host;
    enum mp_conn_state state = c->state;
    h->conn_undecided -= state == MP_CONN_UNDECIDED || state == MP_CONN_PREFACE;
    h->conn_starved -= c->is_starved;
    c->is_starved = false;
    c->state = MP_CONN_CLOSING;
    uv_close((uv_handle_t *)&c->poll, on_closed);
    if (state == MP_CONN_CONNECTING || state == MP_CONN_GREETING)
        mp_dial_ended(c);
    else if (state == MP_CONN_OPEN)
        tell_gone(c);
}

/* Closes once everything is written; nothing more is read. */
void mp_conn_finish(struct mp_conn *c)
{
    enum mp_conn_state state = c->state;
    c->host->conn_undecided -= state == MP_CONN_UNDECIDED || state == MP_CONN_PREFACE;
    c->is_closing_after_write = true;
    c->state = MP_CONN_CLOSING;
    mp_conn_mark_dirty(c);
    if (state == MP_CONN_OPEN)
        tell_gone(c);
}

struct mp_conn *mp_conn_find(struct mp_host *h, uint64_t client)
{
    uint32_t place = (uint32_t)client;
    if (place >= h->conn_capacity || !h->conns[place] || h->conns[place]->number != client ||
        uv_is_closing((uv_handle_t *)&h->conns[place]->poll))
        return NULL;
    return h->conns[place];
}

void mp_conn_pause(struct mp_conn *c)
{
    if (c->is_paused || c->is_link || c->is_dialled)
        return;
    c->is_paused = true;
    mp_conn_watch(c);
}

/* HELLO came or went: from now on the other side is a node. One whose machine or network has gone
 * without a word must not stay for hours. */
void mp_conn_become_link(struct mp_conn *c)
{
    const struct {
        int level;
        int option;
        int value;
    } options[] = {{SOL_SOCKET, SO_KEEPALIVE, 1},
                   {IPPROTO_TCP, TCP_KEEPIDLE, MP_LINK_KEEPALIVE_MS / 1000},
                   {IPPROTO_TCP, TCP_KEEPINTVL, 1},
                   {IPPROTO_TCP, TCP_USER_TIMEOUT, MP_LINK_SILENT_MS}};
    if (c->is_link)
        return;
    c->is_link = true;
    for (size_t i = 0; i < MP_ARRAY_SIZE(options); i++)
        setsockopt(c->fd, options[i].level, options[i].option, &options[i].value, sizeof(int));
    c->is_paused = false;
    mp_conn_watch(c);
}

void mp_net_close(struct mp_host *h, uint64_t client)
{
    struct mp_conn *c = mp_conn_find(h, client);
    if (c && c->state == MP_CONN_OPEN)
        mp_conn_finish(c);
}

/* Something that cannot be a frame: said once, then the connection ends. */
static void protocol_error(struct mp_conn *c, const char *message)
{
    mp_conn_put_error(c, 0, MP_CODE_INVALID_ARGUMENT, "PROTOCOL", message);
    if (!uv_is_closing((uv_handle_t *)&c->poll))
        mp_conn_finish(c);
}

/* --- reading --- */

/* A frame that no client sends. */
static void frame_between(struct mp_conn *c, const struct mp_frame_header *f, struct mp_slice meta,
                          struct mp_slice payload, uint64_t handle)
{
    const struct mp_node_event ev = {.kind = MP_NODE_FRAME,
                                     .frame = {.client = c->number,
                                               .type = f->type,
                                               .id = f->id,
                                               .meta = meta,
                                               .payload = {.bytes = payload, .handle = handle},
                                               .wall_ms = mp_host_wall_ms()}};
    if (f->type == MP_FRAME_HELLO)
        mp_conn_become_link(c);
    mp_host_step(c->host, &ev);
}

static void deliver(struct mp_conn *c, const struct mp_frame_header *f, struct mp_slice meta,
                    struct mp_slice payload, uint64_t handle)
{
    if (f->type > MP_FRAME_SUBSCRIBE) {
        frame_between(c, f, meta, payload, handle);
        return;
    }
    if (f->type == MP_FRAME_CANCEL && mp_session_cancel(c->host, c->number, f->id))
        return;
    if (f->type == MP_FRAME_SUBSCRIBE && !mp_conn_begin_subscription(c, f->id)) {
        if (handle != 0)
            mp_host_release(c->host, handle);
        return;
    }
    if (f->type != MP_FRAME_CANCEL && f->type != MP_FRAME_SUBSCRIBE &&
        ++c->in_flight >= MP_CONN_PENDING_MAX)
        mp_conn_pause(c);
    if (f->type == MP_FRAME_EVAL) {
        mp_session_eval(c, f, meta, payload, handle);
        return;
    }
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
        ev.request.wall_ms = mp_host_wall_ms();
        break;
    case MP_FRAME_CANCEL:
        ev.kind = MP_NODE_CANCEL;
        break;
    case MP_FRAME_PUBLISH:
        ev.kind = MP_NODE_PUBLISH;
        ev.request.wall_ms = mp_host_wall_ms();
        break;
    case MP_FRAME_SUBSCRIBE:
        ev.kind = MP_NODE_SUBSCRIBE;
        ev.request.wall_ms = mp_host_wall_ms();
        break;
    default:
        ev.kind = MP_NODE_QUERY;
        ev.request.wall_ms = mp_host_wall_ms();
        ev.request.facts = mp_workers_facts(c->host);
        break;
    }
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
    bool is_node = c->is_link || c->is_dialled;
    uint8_t last_request = is_node ? MP_FRAME_QUERY : MP_FRAME_SUBSCRIBE;
    bool is_request = f->type >= MP_FRAME_CALL && f->type <= last_request;
    bool is_known = f->type >= (is_node ? ANSWER_FIRST : BETWEEN_FIRST) && f->type <= TYPE_MAX;
    if (!is_request && !is_known) {
        protocol_error(c, "a frame has a type that clients do not send");
        return false;
    }
    if (is_request && f->id == 0) {
        protocol_error(c, "a request has the id 0");
        return false;
    }
    return true;
}

/* Whoever waits for the value is told: the sender of a request, or who waits here for an answer. */
static void refuse_large(struct mp_conn *c, const struct mp_frame_header *f)
{
    c->discard = f->size;
    if (f->type != MP_FRAME_RESULT && f->type != MP_FRAME_ERROR && f->type != MP_FRAME_EVENT) {
        mp_conn_put_error(c, f->id, MP_CODE_RESOURCE_EXHAUSTED, "TOO_LARGE",
                          "the request is larger than --value-max allows");
        return;
    }
    struct mp_buf b;
    const struct mp_frame_header error = {.type = MP_FRAME_ERROR, .id = f->id};
    if (f->type != MP_FRAME_EVENT &&
        mp_conn_make_error(c, &b, MP_CODE_RESOURCE_EXHAUSTED, "TOO_LARGE",
                           "the answer of another node is larger than --value-max allows here"))
        frame_between(c, &error, mp_slice_of(NULL, 0), mp_buf_slice(&b), 0);
    if (f->type != MP_FRAME_EVENT)
        mp_buf_fini(&b);
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
        refuse_large(c, &f);
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
        deliver(c, &f, mp_slice_of(bytes->data + MP_FRAME_HEADER_BYTES, f.meta_size),
                mp_slice_of(bytes->data + before, f.size - f.meta_size), 0);
        *bytes = mp_slice_of(bytes->data + whole, bytes->size - whole);
        return MP_OK;
    }
    if (bytes->size < before)
        return MP_EAGAIN;
    if (!has_room_for_block(c, &f)) {
        c->is_starved = true;
        c->host->conn_starved++;
        mp_conn_watch(c);
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
        deliver(c, &f, meta, mp_slice_of(c->large_data, c->large_size), c->large_handle);
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
        mp_conn_close(c);
}

static void large_arrived(struct mp_conn *c)
{
    struct mp_buf meta = c->in;
    mp_buf_init(&c->in, mp_host_alloc(), 0);
    c->is_large = false;
    deliver(c, &c->large, mp_buf_slice(&meta), mp_slice_of(c->large_data, c->large_size),
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
        mp_conn_close(c);
        return;
    }
    if (first >= 0x80) {
        c->state = MP_CONN_PREFACE;
        return;
    }
    if (first == 0x16) {
        mp_log(0, "client %u speaks TLS, which this node does not: closed", c->place);
        mp_conn_close(c);
        return;
    }
    static const char answer[] = "HTTP/1.1 501 Not Implemented\r\nContent-Type: text/plain\r\n"
                                 "Content-Length: 57\r\nConnection: close\r\n\r\n"
                                 "This port speaks mpreg's native protocol, not HTTP, yet.\n";
    if (recv(c->fd, c->host->read_buffer, MP_NET_READ_BYTES, 0) >= 0 &&
        mp_conn_put(c, mp_slice_str(answer)))
        mp_conn_finish(c);
    else
        mp_conn_close(c);
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
        mp_conn_close(c);
        return;
    }
    mp_preface_write(ours);
    *bytes = mp_slice_of(bytes->data + MP_PREFACE_BYTES, bytes->size - MP_PREFACE_BYTES);
    c->host->conn_undecided--;
    c->state = MP_CONN_OPEN;
    if (!mp_conn_put(c, mp_slice_of(ours, sizeof(ours)))) {
        mp_conn_close(c);
        return;
    }
    if (version != MP_PROTOCOL_VERSION) {
        mp_conn_put_error(c, 0, MP_CODE_UNIMPLEMENTED, "PROTOCOL_VERSION",
                          "this node speaks version 1 of the protocol");
        mp_conn_finish(c);
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
            mp_conn_close(c);
            return;
        }
        c->large_got += (size_t)size;
        if (c->large_got == c->large_size)
            large_arrived(c);
    }
}

static void take_any_preface(struct mp_conn *c, struct mp_slice *bytes)
{
    if (c->state == MP_CONN_PREFACE)
        take_preface(c, bytes);
    else
        mp_dial_take_preface(c, bytes);
}

static void take_bytes(struct mp_conn *c, struct mp_slice bytes)
{
    if (c->in.size != 0) {
        if (mp_buf_append(&c->in, bytes) != MP_OK) {
            mp_conn_close(c);
            return;
        }
        bytes = mp_buf_slice(&c->in);
    }
    if (c->state == MP_CONN_PREFACE || c->state == MP_CONN_GREETING) {
        struct mp_slice all = bytes;
        take_any_preface(c, &bytes);
        if (c->state == MP_CONN_PREFACE || c->state == MP_CONN_GREETING) {
            if (c->in.size == 0 && mp_buf_append(&c->in, all) != MP_OK)
                mp_conn_close(c);
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
    if (c->state != MP_CONN_PREFACE && c->state != MP_CONN_GREETING && c->state != MP_CONN_OPEN)
        return;
    if (c->is_large) {
        read_large(c);
        return;
    }
    /* Behind a large frame another one is likely: its front is read alone, and the rest goes
     * straight into its block instead of through this buffer. */
    size_t size_max = c->was_large ? READ_FRONT_BYTES : MP_NET_READ_BYTES;
    ssize_t size = read(c->fd, h->read_buffer, size_max);
    if (size < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (size <= 0) {
        mp_conn_close(c);
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
    if (c->state == MP_CONN_CONNECTING) {
        mp_dial_woken(c);
        return;
    }
    if (status < 0) {
        for (int i = 0;
             i < READS_AT_END && c->is_link && c->state == MP_CONN_OPEN && !c->is_starved; i++)
            conn_read(c);
        mp_conn_close(c);
        return;
    }
    if (events & UV_WRITABLE) {
        c->is_blocked = false;
        mp_conn_write(c);
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
            mp_conn_watch(c);
        if (c->is_starved)
            return;
    }
}

/* --- opening --- */

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

struct mp_conn *mp_conn_new(struct mp_host *h, int fd, enum mp_conn_state state)
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
        return NULL;
    }
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    c->host = h;
    c->fd = fd;
    c->place = place;
    c->number = (uint64_t)++h->conn_generations[place] << 32 | place;
    c->opened_at = h->now;
    c->state = state;
    c->poll.data = c;
    mp_buf_init(&c->in, mp_host_alloc(), 0);
    h->conns[place] = c;
    h->conn_count++;
    h->conn_undecided += state == MP_CONN_UNDECIDED;
    mp_conn_watch(c);
    return c;
}

/* --- the rest --- */

/* Other nodes hear it from the machine, as a goodbye. */
void mp_net_goaway(struct mp_host *h)
{
    const struct mp_outgoing_frame goaway = {.type = MP_FRAME_GOAWAY};
    for (uint32_t i = 0; i < h->conn_capacity; i++)
        if (h->conns[i] && h->conns[i]->state == MP_CONN_OPEN && !h->conns[i]->is_link &&
            !h->conns[i]->is_dialled)
            mp_conn_put_frame(h->conns[i], &goaway);
}

void mp_net_housekeeping(struct mp_host *h)
{
    for (uint32_t i = 0; h->conn_undecided != 0 && i < h->conn_capacity; i++) {
        struct mp_conn *c = h->conns[i];
        if (c && (c->state == MP_CONN_UNDECIDED || c->state == MP_CONN_PREFACE) &&
            h->now - c->opened_at >= MP_MS(MP_PREFACE_TIMEOUT_MS))
            mp_conn_close(c);
    }
}

void mp_net_close_all(struct mp_host *h)
{
    if (!uv_is_closing((uv_handle_t *)&h->listener))
        uv_poll_stop(&h->listener);
    h->is_accept_stopped = false; /* for good */
    for (uint32_t i = 0; i < h->conn_capacity; i++)
        if (h->conns[i])
            mp_conn_close(h->conns[i]);
}
