/* See pub_load.h. The batch is made once; only its id and the time in its messages' data are new
 * each time. A few batches are outstanding, so that the node always has one to work on; it accepts
 * one when all of its messages are on their way to the subscribers' connections, and that is what
 * holds the publisher back. Subscribers are read before anything more is published. */
#include "src/client/pub_load.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "src/client/sockets.h"
#include "src/wire/frame.h"
#include "src/wire/msgpack.h"
#include "src/wire/peer.h"

#define BATCH_BYTES     (MP_VALUE_INLINE_MAX - 1024) /* more would go another way through the node */
#define BATCHES_MAX     8                            /* outstanding */
#define READ_BYTES      (256u << 10)
#define READS_A_TURN    4
#define EVENTS_MAX      64
#define ID_OFFSET       8
#define FRAME_BYTES_MAX ((1u << 30) + MP_FRAME_SLACK_BYTES)
#define SUBSCRIPTION_ID 1

struct conn {
    int fd;
    bool is_subscribed;
    uint64_t seq; /* of the last message that came, or was told to be lost */
    uint64_t delivered;
    uint64_t dropped;
    struct mp_buf in;
};

struct load {
    const struct mp_pub_load_config *config;
    struct mp_pub_load_result *result;
    struct mp_buf *error;
    int epoll;
    int *fds;
    struct conn *conns; /* 0: the publisher */
    uint32_t count;
    struct mp_buf batch;
    uint32_t batch_count; /* its messages */
    size_t *times;        /* where in it the times stand */
    size_t sent;          /* bytes of the batch that is being written; 0: none */
    uint64_t batches;     /* sent, the one that is being written included */
    uint32_t outstanding;
    uint32_t subscribed;
    mp_time began;
    mp_time ends;
    mp_time last_accepted;
    mp_time last_delivered;
    mp_time now;
};

static enum mp_err open_load(struct load *l);
static void close_load(struct load *l);
static enum mp_err make_batch(struct load *l);
static enum mp_err subscribe_all(struct load *l);
static enum mp_err turn(struct load *l, int timeout_ms);
static enum mp_err receive(struct load *l, struct conn *c);
static enum mp_err take_frame(struct load *l, struct conn *c, const struct mp_frame_header *h,
                              const uint8_t *body);
static enum mp_err take_messages(struct load *l, struct conn *c, struct mp_slice meta,
                                 struct mp_slice payload);
static enum mp_err publish(struct load *l);
static enum mp_err break_promise(struct load *l, const char *what);

static mp_time clock_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return MP_SECONDS((mp_time)t.tv_sec) + (mp_time)t.tv_nsec;
}

static bool is_interrupted(const struct load *l)
{
    return l->config->interrupts && *l->config->interrupts != 0;
}

/* Whether all that was accepted is accounted for. */
static bool is_done(const struct load *l)
{
    bool is_whole = l->outstanding == 0 && l->sent == 0;
    for (uint32_t i = 1; i < l->count && is_whole; i++)
        is_whole = l->conns[i].delivered + l->conns[i].dropped >= l->result->published;
    return is_whole;
}

static enum mp_err run(struct load *l)
{
    enum mp_err err = subscribe_all(l);
    l->began = clock_now();
    l->now = l->began;
    l->last_accepted = l->began;
    l->last_delivered = l->began;
    l->ends = mp_time_add(l->began, l->config->duration);
    while (err == MP_OK) {
        bool is_over = l->now >= l->ends || is_interrupted(l);
        mp_time last = l->last_accepted > l->last_delivered ? l->last_accepted : l->last_delivered;
        if (is_over && (is_done(l) || (l->config->interrupts && *l->config->interrupts > 1) ||
                        l->now > mp_time_add(last, l->config->drain)))
            break;
        if (!is_over || l->sent != 0)
            err = publish(l);
        if (err == MP_OK)
            err = turn(l, l->config->rate > 0 && !is_over ? 1 : 100);
    }
    return err;
}

enum mp_err mp_pub_load_run(const struct mp_pub_load_config *config,
                            struct mp_pub_load_result *result, struct mp_buf *error)
{
    if (config->subscribers > MP_PUB_LOAD_SUBSCRIBERS_MAX || config->size < MP_PUB_LOAD_SIZE_MIN ||
        config->size > MP_VALUE_BYTES_CEILING || !(config->rate >= 0))
        return MP_EINVAL;
    struct load l = {.config = config,
                     .result = result,
                     .error = error,
                     .epoll = -1,
                     .count = config->subscribers + 1};
    memset(result, 0, sizeof(*result));
    mp_histogram_init(&result->latencies);
    mp_buf_clear(error);
    mp_buf_init(&l.batch, config->alloc, 0);
    enum mp_err err = open_load(&l);
    if (err == MP_OK)
        err = make_batch(&l);
    if (err == MP_OK)
        err = run(&l);
    for (uint32_t i = 1; err == MP_OK && i < l.count; i++) {
        result->delivered += l.conns[i].delivered;
        result->dropped += l.conns[i].dropped;
    }
    result->publishing = l.last_accepted - l.began;
    result->delivering = l.last_delivered - l.began;
    result->is_interrupted = is_interrupted(&l);
    if (err == MP_OK && !result->is_interrupted && !is_done(&l))
        err = break_promise(&l, "messages were lost, and nobody was told");
    close_load(&l);
    return err;
}

static enum mp_err open_load(struct load *l)
{
    const struct mp_pub_load_config *config = l->config;
    const struct mp_sockets_config sockets = {.nodes = config->nodes,
                                              .nodes_count = config->nodes_count,
                                              .interrupts = config->interrupts};
    l->fds = (int *)mp_alloc_take(config->alloc, l->count * sizeof(*l->fds));
    l->conns = (struct conn *)mp_alloc_take(config->alloc, l->count * sizeof(*l->conns));
    for (uint32_t i = 0; l->conns && i < l->count; i++) {
        l->conns[i] = (struct conn){.fd = -1};
        mp_buf_init(&l->conns[i].in, config->alloc, 0);
    }
    if (!l->fds || !l->conns)
        return MP_ENOMEM;
    enum mp_err err = mp_sockets_connect(&sockets, l->count, l->fds, l->error);
    if (err != MP_OK)
        return err;
    for (uint32_t i = 0; i < l->count; i++)
        l->conns[i].fd = l->fds[i];
    l->epoll = epoll_create1(EPOLL_CLOEXEC);
    for (uint32_t i = 0; l->epoll >= 0 && i < l->count; i++) {
        struct epoll_event e = {.events = EPOLLIN, .data.u32 = i};
        if (epoll_ctl(l->epoll, EPOLL_CTL_ADD, l->fds[i], &e) != 0)
            return MP_EIO;
    }
    return l->epoll >= 0 ? MP_OK : MP_EIO;
}

static void close_load(struct load *l)
{
    struct mp_alloc *a = l->config->alloc;
    for (uint32_t i = 0; l->conns && i < l->count; i++) {
        if (l->conns[i].fd >= 0)
            close(l->conns[i].fd);
        mp_buf_fini(&l->conns[i].in);
    }
    if (l->epoll >= 0)
        close(l->epoll);
    mp_alloc_free(a, l->times, l->batch_count * sizeof(*l->times));
    mp_alloc_free(a, l->conns, l->count * sizeof(*l->conns));
    mp_alloc_free(a, l->fds, l->count * sizeof(*l->fds));
    mp_buf_fini(&l->batch);
}

/* --- what is sent --- */

/* [topic, data], of which the last config->size bytes are the data. */
static enum mp_err put_message(struct load *l, struct mp_slice data)
{
    enum mp_err err = mp_mp_put_array(&l->batch, 2);
    if (err == MP_OK)
        err = mp_mp_put_str(&l->batch, l->config->topic);
    return err == MP_OK ? mp_mp_put_bin(&l->batch, data) : err;
}

static enum mp_err make_batch(struct load *l)
{
    const struct mp_pub_load_config *config = l->config;
    size_t each = config->size + config->topic.size + 16;
    uint32_t count = each < BATCH_BYTES ? (uint32_t)(BATCH_BYTES / each) : 1;
    uint8_t *data = (uint8_t *)mp_alloc_take(config->alloc, config->size);
    size_t *times = (size_t *)mp_alloc_take(config->alloc, count * sizeof(*times));
    const uint8_t header[MP_FRAME_HEADER_BYTES] = {0};
    enum mp_err err = data && times ? MP_OK : MP_ENOMEM;
    if (data)
        memset(data, 'x', config->size);
    if (err == MP_OK)
        err = mp_buf_append(&l->batch, mp_slice_of(header, sizeof(header)));
    if (err == MP_OK)
        err = mp_mp_put_array(&l->batch, 0); /* the meta part */
    if (err == MP_OK)
        err = mp_mp_put_array(&l->batch, count);
    for (uint32_t i = 0; err == MP_OK && i < count; i++) {
        err = put_message(l, mp_slice_of(data, config->size));
        times[i] = l->batch.size - config->size;
    }
    mp_alloc_free(config->alloc, data, config->size);
    if (err != MP_OK) {
        mp_alloc_free(config->alloc, times, count * sizeof(*times));
        return err;
    }
    l->times = times;
    l->batch_count = count;
    const struct mp_frame_header f = {.size = (uint32_t)(l->batch.size - MP_FRAME_HEADER_BYTES),
                                      .type = MP_FRAME_PUBLISH,
                                      .meta_size = 1};
    mp_frame_write_header(l->batch.data, &f);
    return MP_OK;
}

static void stamp(struct load *l)
{
    uint64_t id = ++l->batches;
    for (unsigned i = 0; i < 8; i++)
        l->batch.data[ID_OFFSET + i] = (uint8_t)(id >> (8 * i));
    for (uint32_t i = 0; i < l->batch_count; i++)
        memcpy(l->batch.data + l->times[i], &l->now, sizeof(l->now));
}

static bool is_due(const struct load *l)
{
    if (l->outstanding == BATCHES_MAX || l->now >= l->ends || is_interrupted(l))
        return false;
    double due = (double)l->batches * l->batch_count / l->config->rate * 1e9;
    return l->config->rate <= 0 || (double)(l->now - l->began) >= due;
}

static enum mp_err lost(struct load *l)
{
    return mp_sockets_refuse(l->error, MP_CODE_UNAVAILABLE, "CONNECTION_LOST",
                             "the connection to the node was lost", NULL);
}

static enum mp_err watch(struct load *l, bool is_writing)
{
    struct epoll_event e = {.events = EPOLLIN | (is_writing ? EPOLLOUT : 0)};
    return epoll_ctl(l->epoll, EPOLL_CTL_MOD, l->conns[0].fd, &e) == 0 ? MP_OK : MP_EIO;
}

/* Writes batches while they are due and the socket takes them. */
static enum mp_err publish(struct load *l)
{
    bool was_blocked = l->sent != 0;
    while (l->sent != 0 || is_due(l)) {
        if (l->sent == 0) {
            stamp(l);
            l->outstanding++;
        }
        ssize_t n =
            send(l->conns[0].fd, l->batch.data + l->sent, l->batch.size - l->sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno != EAGAIN)
            return lost(l);
        l->sent += n > 0 ? (size_t)n : 0;
        if (l->sent != l->batch.size && l->sent != 0)
            return was_blocked ? MP_OK : watch(l, true);
        if (l->sent == 0) { /* not a byte of it fits: it is made anew, with its time */
            l->outstanding--;
            l->batches--;
            return MP_OK;
        }
        l->sent = 0;
    }
    return was_blocked ? watch(l, false) : MP_OK;
}

static enum mp_err send_all(struct load *l, int fd, struct mp_slice bytes)
{
    for (size_t done = 0; done < bytes.size;) {
        ssize_t n = send(fd, bytes.data + done, bytes.size - done, MSG_NOSIGNAL);
        if (n < 0 && errno != EINTR)
            return lost(l); /* an empty socket has room for a frame as small as this */
        done += n > 0 ? (size_t)n : 0;
    }
    return MP_OK;
}

/* Until all subscriptions are in force. */
static enum mp_err subscribe_all(struct load *l)
{
    struct mp_buf meta;
    struct mp_buf frame;
    const struct mp_subscribe_options options = {.pattern = l->config->pattern};
    mp_buf_init(&meta, l->config->alloc, 0);
    mp_buf_init(&frame, l->config->alloc, 0);
    enum mp_err err = mp_subscribe_options_put(&meta, &options);
    if (err == MP_OK)
        err = mp_frame_put(&frame, MP_FRAME_SUBSCRIBE, SUBSCRIPTION_ID, mp_buf_slice(&meta),
                           mp_slice_of(NULL, 0));
    for (uint32_t i = 1; err == MP_OK && i < l->count; i++)
        err = send_all(l, l->conns[i].fd, mp_buf_slice(&frame));
    mp_buf_fini(&frame);
    mp_buf_fini(&meta);
    mp_time until = mp_time_add(clock_now(), l->config->drain);
    while (err == MP_OK && l->subscribed < l->count - 1) {
        err = turn(l, 100);
        if (err == MP_OK && is_interrupted(l))
            err =
                mp_sockets_refuse(l->error, MP_CODE_CANCELLED, "INTERRUPTED", "interrupted", NULL);
        else if (err == MP_OK && l->now > until)
            err = mp_sockets_refuse(l->error, MP_CODE_DEADLINE_EXCEEDED, "NO_ANSWER",
                                    "the node did not answer a subscription", NULL);
    }
    return err;
}

/* --- what comes --- */

static enum mp_err turn(struct load *l, int timeout_ms)
{
    struct epoll_event events[EVENTS_MAX];
    int count = epoll_wait(l->epoll, events, EVENTS_MAX, timeout_ms);
    enum mp_err err = MP_OK;
    l->now = clock_now();
    for (int i = 0; err == MP_OK && i < count; i++)
        if (events[i].events & ~(uint32_t)EPOLLOUT)
            err = receive(l, &l->conns[events[i].data.u32]);
    return err;
}

/* Takes all whole frames off the front of what came. */
static enum mp_err take_frames(struct load *l, struct conn *c)
{
    size_t used = 0;
    enum mp_err err = MP_OK;
    while (err == MP_OK) {
        struct mp_frame_header h;
        struct mp_slice rest = mp_slice_of(c->in.data + used, c->in.size - used);
        err = mp_frame_read_header(rest, FRAME_BYTES_MAX, &h);
        if (err == MP_EAGAIN || (err == MP_OK && rest.size - MP_FRAME_HEADER_BYTES < h.size))
            break;
        if (err != MP_OK)
            return break_promise(l, "the node sent bytes that are no frame");
        err = take_frame(l, c, &h, rest.data + MP_FRAME_HEADER_BYTES);
        used += MP_FRAME_HEADER_BYTES + (size_t)h.size;
    }
    mp_buf_drop(&c->in, used);
    return err == MP_EAGAIN ? MP_OK : err;
}

static enum mp_err receive(struct load *l, struct conn *c)
{
    for (unsigned i = 0; i < READS_A_TURN; i++) {
        enum mp_err err = mp_buf_reserve(&c->in, READ_BYTES);
        if (err != MP_OK)
            return err;
        ssize_t n = read(c->fd, c->in.data + c->in.size, READ_BYTES);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return MP_OK;
        if (n <= 0)
            return lost(l);
        c->in.size += (size_t)n;
        err = take_frames(l, c);
        if (err != MP_OK || n < (ssize_t)READ_BYTES)
            return err;
    }
    return MP_OK;
}

static enum mp_err take_frame(struct load *l, struct conn *c, const struct mp_frame_header *h,
                              const uint8_t *body)
{
    struct mp_slice meta = mp_slice_of(body, h->meta_size);
    struct mp_slice payload = mp_slice_of(body + h->meta_size, h->size - h->meta_size);
    switch (h->type) {
    case MP_FRAME_MESSAGES:
        return take_messages(l, c, meta, payload);
    case MP_FRAME_RESULT:
        l->outstanding--;
        l->result->published += l->batch_count;
        l->last_accepted = l->now;
        return MP_OK;
    case MP_FRAME_EVENT:
        l->subscribed += !c->is_subscribed;
        c->is_subscribed = true;
        return MP_OK;
    case MP_FRAME_ERROR:
        mp_buf_clear(l->error);
        return mp_buf_append(l->error, payload) == MP_OK ? MP_ECLOSED : MP_ENOMEM;
    default:
        return MP_OK; /* GOAWAY: what was sent still ends */
    }
}

/* One message: its place in the order, and the time in it. */
static bool take_message(struct mp_mp_reader *r, uint64_t *seq, mp_time *time)
{
    struct mp_mp_token array;
    struct mp_mp_token topic;
    struct mp_mp_token number;
    struct mp_mp_token at;
    struct mp_mp_token data;
    if (mp_mp_next(r, &array) != MP_OK || array.type != MP_MP_ARRAY || array.count != 4 ||
        mp_mp_next(r, &topic) != MP_OK || topic.type != MP_MP_STR ||
        mp_mp_next(r, &number) != MP_OK || number.type != MP_MP_UINT ||
        mp_mp_next(r, &at) != MP_OK || at.type != MP_MP_UINT || mp_mp_next(r, &data) != MP_OK ||
        data.type != MP_MP_BIN || data.bytes.size < sizeof(*time))
        return false;
    *seq = number.u;
    memcpy(time, data.bytes.data, sizeof(*time));
    return true;
}

static enum mp_err take_messages(struct load *l, struct conn *c, struct mp_slice meta,
                                 struct mp_slice payload)
{
    struct mp_peer_messages m;
    struct mp_mp_reader r;
    uint32_t count = 0;
    if (mp_peer_messages_read(meta, &m) != MP_OK || mp_mp_get_array(payload, &count, &r) != MP_OK)
        return break_promise(l, "the node sent messages in a form that nobody knows");
    c->dropped += m.dropped;
    for (uint32_t i = 0; i < count; i++) {
        uint64_t seq;
        mp_time time;
        if (!take_message(&r, &seq, &time))
            return break_promise(l, "the node sent a message that nobody published here");
        if (seq <= c->seq)
            return break_promise(l, "the node sent messages out of order");
        if (i == 0 && time <= l->now)
            mp_histogram_add(&l->result->latencies, l->now - time);
        c->seq = seq;
    }
    c->delivered += count;
    l->last_delivered = l->now;
    return MP_OK;
}

static enum mp_err break_promise(struct load *l, const char *what)
{
    return mp_sockets_refuse(l->error, MP_CODE_DATA_LOSS, "BROKEN_PROMISE", what,
                             "does somebody else publish to this topic?");
}
