/* See load.h. Each connection owns a range of slots; a slot is one request that is free or in
 * flight. Small requests are copied into the connection's output buffer, which has room for all its
 * slots; large ones are written by gathering: the slot's own prefix, then the bytes that all share.
 *
 * The input buffer holds whole answers in place. A large answer that begins at the buffer's front
 * is read up to its end and no further, so that nothing large is ever moved. */
#include "src/client/load.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "src/base/assert.h"

#define READ_BYTES   (64u << 10)
#define PREFIX_MAX   64
#define SMALL_BYTES  (32u << 10) /* a larger request is gathered, not copied */
#define PARTS_MAX    64          /* of one gathering write */
#define EVENTS_MAX   256
#define IN_BYTES_MAX ((size_t)2 << 30)
#define TIMER_KEY    UINT32_MAX

struct slot {
    mp_time since; /* sent, or due */
    uint32_t next; /* in the list of free slots, or in the order of sending; + 1 */
    uint8_t prefix[PREFIX_MAX];
};

struct conn {
    int fd;
    bool is_lost;
    bool wants_writing;
    uint32_t slots_first; /* its range of slots */
    uint32_t slots_end;
    uint32_t free; /* list of slots; + 1, 0: none */
    uint32_t in_flight;
    /* in the order of sending: in flight (answers in order), or to be gathered */
    uint32_t first;
    uint32_t last;
    uint32_t unwritten; /* of gathered ones: the first that is not wholly written */
    uint8_t *in;
    size_t in_size;
    size_t in_capacity;
    uint8_t *out;
    size_t out_size;
    size_t out_capacity;
    size_t out_at; /* of out, or within the first unwritten request */
};

struct load {
    const struct mp_load_config *config;
    const struct mp_load_protocol *protocol;
    struct mp_load_result *result;
    struct conn *conns;
    struct slot *slots;
    int epoll;
    int timer;
    bool is_small;
    uint32_t in_flight;
    uint32_t turn; /* connection whose turn it is, at a rate */
    uint32_t lost;
    uint64_t sent;
    mp_time began;
    mp_time ends;
    mp_time last_answer;
};

static mp_time clock_now(void);
static enum mp_err open_load(struct load *l);
static void close_load(struct load *l);
static bool is_sending(const struct load *l, mp_time now);
static bool send_one(struct load *l, struct conn *c, mp_time since);
static void send_due(struct load *l, mp_time now);
static mp_time due(const struct load *l, uint64_t call);
static void set_timer(struct load *l, mp_time at);
static void turn(struct load *l);
static void receive(struct load *l, struct conn *c);
static bool make_room(struct load *l, struct conn *c, size_t *room);
static bool parse(struct load *l, struct conn *c, mp_time now);
static bool settle(struct load *l, struct conn *c, const struct mp_load_answer *a, mp_time now);
static void flush(struct load *l, struct conn *c);
static bool write_copied(struct conn *c);
static bool write_gathered(struct load *l, struct conn *c);
static void watch(struct load *l, struct conn *c);
static void lose(struct load *l, struct conn *c);
static void count_error(struct load *l, const char *kind);

enum mp_err mp_load_run(const struct mp_load_config *config, struct mp_load_result *result)
{
    const struct mp_load_protocol *p = config->protocol;
    if (config->connections == 0 || config->connections > MP_LOAD_CONNECTIONS_MAX ||
        config->outstanding < config->connections ||
        config->outstanding > MP_LOAD_OUTSTANDING_MAX || p->request.size == 0 ||
        p->prefix_bytes > PREFIX_MAX || p->prefix_bytes > p->request.size || !(config->rate >= 0))
        return MP_EINVAL;
    struct load l = {.config = config,
                     .protocol = p,
                     .result = result,
                     .epoll = -1,
                     .timer = -1,
                     .is_small = p->request.size <= SMALL_BYTES};
    memset(result, 0, sizeof(*result));
    mp_histogram_init(&result->latencies);
    enum mp_err err = open_load(&l);
    if (err != MP_OK) {
        close_load(&l);
        return err;
    }
    l.began = clock_now();
    l.last_answer = l.began;
    l.ends = mp_time_add(l.began, config->duration);
    mp_time gives_up = mp_time_add(l.ends, config->drain);
    set_timer(&l, config->rate > 0 ? l.began : l.ends);
    for (uint32_t i = 0; config->rate <= 0 && i < config->connections; i++) {
        while (is_sending(&l, l.began) && send_one(&l, &l.conns[i], l.began))
            continue;
        flush(&l, &l.conns[i]);
    }
    for (;;) {
        mp_time now = clock_now();
        bool goes_on = is_sending(&l, now) && l.lost < config->connections;
        if (!goes_on && l.in_flight == 0)
            break;
        if (config->interrupts && *config->interrupts != 0 && now + config->drain < gives_up)
            gives_up = now + config->drain;
        if (now >= gives_up || (config->interrupts && *config->interrupts > 1))
            break;
        if (!goes_on)
            set_timer(&l, gives_up);
        turn(&l);
    }
    result->elapsed = l.last_answer - l.began;
    result->is_interrupted = config->interrupts && *config->interrupts != 0;
    mp_time until = result->is_interrupted ? l.last_answer : l.ends;
    while (config->rate > 0 && due(&l, l.sent + result->unsent) < until)
        result->unsent++;
    for (uint32_t i = 0; i < l.in_flight; i++)
        count_error(&l, "DEADLINE_EXCEEDED/NO_ANSWER");
    close_load(&l);
    return MP_OK;
}

static mp_time clock_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return MP_SECONDS((mp_time)t.tv_sec) + (mp_time)t.tv_nsec;
}

static enum mp_err open_conn(struct load *l, uint32_t index, uint32_t first_slot, uint32_t slots)
{
    struct conn *c = &l->conns[index];
    const struct mp_load_protocol *p = l->protocol;
    c->fd = l->config->fds[index];
    c->slots_first = first_slot;
    c->slots_end = first_slot + slots;
    c->in_capacity = READ_BYTES;
    c->in = (uint8_t *)mp_alloc_take(l->config->alloc, c->in_capacity);
    if (l->is_small) {
        c->out_capacity = slots * p->request.size;
        c->out = (uint8_t *)mp_alloc_take(l->config->alloc, c->out_capacity);
    }
    if (!c->in || (l->is_small && !c->out))
        return MP_ENOMEM;
    for (uint32_t i = first_slot; i < first_slot + slots; i++) {
        struct slot *s = &l->slots[i];
        memcpy(s->prefix, p->request.data, p->prefix_bytes);
        if (p->patch)
            p->patch(s->prefix, i);
        s->next = c->free;
        c->free = i + 1;
    }
    struct epoll_event e = {.events = EPOLLIN, .data.u32 = index};
    return epoll_ctl(l->epoll, EPOLL_CTL_ADD, c->fd, &e) == 0 ? MP_OK : MP_EIO;
}

static enum mp_err open_load(struct load *l)
{
    const struct mp_load_config *config = l->config;
    size_t conns_bytes = config->connections * sizeof(*l->conns);
    size_t slots_bytes = config->outstanding * sizeof(*l->slots);
    l->conns = (struct conn *)mp_alloc_take(config->alloc, conns_bytes);
    l->slots = (struct slot *)mp_alloc_take(config->alloc, slots_bytes);
    if (l->conns)
        memset(l->conns, 0, conns_bytes);
    if (!l->conns || !l->slots)
        return MP_ENOMEM;
    memset(l->slots, 0, slots_bytes);
    l->epoll = epoll_create1(EPOLL_CLOEXEC);
    l->timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    struct epoll_event e = {.events = EPOLLIN, .data.u32 = TIMER_KEY};
    if (l->epoll < 0 || l->timer < 0 || epoll_ctl(l->epoll, EPOLL_CTL_ADD, l->timer, &e) != 0)
        return MP_EIO;
    uint32_t first = 0;
    enum mp_err err = MP_OK;
    for (uint32_t i = 0; err == MP_OK && i < config->connections; i++) {
        uint32_t slots = config->outstanding / config->connections +
                         (i < config->outstanding % config->connections);
        err = open_conn(l, i, first, slots);
        first += slots;
    }
    return err;
}

static void close_load(struct load *l)
{
    struct mp_alloc *a = l->config->alloc;
    for (uint32_t i = 0; l->conns && i < l->config->connections; i++) {
        mp_alloc_free(a, l->conns[i].out, l->conns[i].out_capacity);
        mp_alloc_free(a, l->conns[i].in, l->conns[i].in_capacity);
    }
    mp_alloc_free(a, l->slots, l->config->outstanding * sizeof(*l->slots));
    mp_alloc_free(a, l->conns, l->config->connections * sizeof(*l->conns));
    if (l->timer >= 0)
        close(l->timer);
    if (l->epoll >= 0)
        close(l->epoll);
}

/* --- when to send --- */

static bool is_sending(const struct load *l, mp_time now)
{
    const struct mp_load_config *config = l->config;
    return now < l->ends && (config->calls_max == 0 || l->sent < config->calls_max) &&
           !(config->interrupts && *config->interrupts != 0);
}

/* When the call of this number is due, at a rate. */
static mp_time due(const struct load *l, uint64_t call)
{
    return l->began + (mp_time)((double)call * 1e9 / l->config->rate);
}

static void set_timer(struct load *l, mp_time at)
{
    const struct itimerspec t = {.it_value = {.tv_sec = (time_t)(at / MP_SECONDS(1)),
                                              .tv_nsec = (long)(at % MP_SECONDS(1))}};
    timerfd_settime(l->timer, TFD_TIMER_ABSTIME, &t, NULL);
}

/* False if no slot is free. What was sent leaves with the next flush. */
static bool send_one(struct load *l, struct conn *c, mp_time since)
{
    const struct mp_load_protocol *p = l->protocol;
    if (c->free == 0 || c->is_lost)
        return false;
    uint32_t index = c->free;
    struct slot *s = &l->slots[index - 1];
    c->free = s->next;
    s->next = 0;
    s->since = since;
    if (!p->patch || !l->is_small) {
        if (c->last != 0 && c->first != 0)
            l->slots[c->last - 1].next = index;
        c->first = c->first == 0 ? index : c->first;
        c->unwritten = c->unwritten == 0 ? index : c->unwritten;
        c->last = index;
    }
    if (l->is_small) {
        uint8_t *out = c->out + c->out_size;
        memcpy(out, s->prefix, p->prefix_bytes);
        memcpy(out + p->prefix_bytes, p->request.data + p->prefix_bytes,
               p->request.size - p->prefix_bytes);
        c->out_size += p->request.size;
    }
    c->in_flight++;
    l->in_flight++;
    l->sent++;
    return true;
}

/* At a rate: what is due goes to the connections in turn; the timer is set for the next. */
static void send_due(struct load *l, mp_time now)
{
    uint32_t connections = l->config->connections;
    uint32_t refused = 0;
    while (refused < connections && due(l, l->sent) <= now && is_sending(l, due(l, l->sent)) &&
           is_sending(l, now)) {
        struct conn *c = &l->conns[l->turn];
        l->turn = (l->turn + 1) % connections;
        refused = send_one(l, c, due(l, l->sent)) ? 0 : refused + 1;
    }
    for (uint32_t i = 0; i < connections; i++)
        flush(l, &l->conns[i]);
    /* Without a free slot the next answer is what wakes. */
    mp_time next = due(l, l->sent);
    set_timer(l, refused < connections && next < l->ends ? next : l->ends);
}

/* --- one turn of the loop --- */

static void turn(struct load *l)
{
    struct epoll_event events[EVENTS_MAX];
    int count = epoll_wait(l->epoll, events, EVENTS_MAX, -1);
    for (int i = 0; i < count; i++) {
        if (events[i].data.u32 == TIMER_KEY) {
            uint64_t expirations;
            if (read(l->timer, &expirations, sizeof(expirations)) < 0)
                continue;
            continue;
        }
        struct conn *c = &l->conns[events[i].data.u32];
        if ((events[i].events & ~(uint32_t)EPOLLOUT) != 0 && !c->is_lost)
            receive(l, c);
        if (l->config->rate <= 0 || (events[i].events & EPOLLOUT) != 0)
            flush(l, c);
    }
    if (l->config->rate > 0)
        send_due(l, clock_now());
}

static void receive(struct load *l, struct conn *c)
{
    size_t room;
    if (!make_room(l, c, &room)) {
        lose(l, c);
        return;
    }
    ssize_t n = read(c->fd, c->in + c->in_size, room);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        lose(l, c);
        return;
    }
    c->in_size += (size_t)n;
    if (!parse(l, c, clock_now()))
        lose(l, c);
}

/* How much to read next: to the end of the answer that has begun if it is a large one. */
static bool make_room(struct load *l, struct conn *c, size_t *room)
{
    struct mp_load_answer a = {0};
    size_t whole = 0;
    if (c->in_size != 0 &&
        l->protocol->parse(l->protocol->context, mp_slice_of(c->in, c->in_size), &a) == MP_EAGAIN)
        whole = a.size;
    if (whole > IN_BYTES_MAX)
        return false;
    size_t wanted = whole > READ_BYTES ? whole : c->in_size + READ_BYTES;
    if (wanted > c->in_capacity) {
        struct mp_alloc *a_ = l->config->alloc;
        uint8_t *in = (uint8_t *)a_->resize(a_->context, c->in, c->in_capacity, wanted);
        if (!in)
            return false;
        c->in = in;
        c->in_capacity = wanted;
    }
    *room = whole > READ_BYTES ? whole - c->in_size : READ_BYTES;
    return true;
}

/* Takes all whole answers; false if the bytes make no sense. */
static bool parse(struct load *l, struct conn *c, mp_time now)
{
    size_t at = 0;
    struct mp_load_answer a;
    while (at < c->in_size) {
        a.size = 0;
        a.slot = 0;
        a.is_none = false;
        a.is_error = false;
        enum mp_err err =
            l->protocol->parse(l->protocol->context, mp_slice_of(c->in + at, c->in_size - at), &a);
        if (err == MP_EAGAIN)
            break;
        if (err != MP_OK || a.size == 0 || a.size > c->in_size - at)
            return false;
        at += a.size;
        if (!a.is_none && !settle(l, c, &a, now))
            return false;
    }
    c->in_size -= at;
    if (c->in_size != 0 && at != 0)
        memmove(c->in, c->in + at, c->in_size);
    return true;
}

/* A request is answered; in the closed loop its slot is used again at once. */
static bool settle(struct load *l, struct conn *c, const struct mp_load_answer *a, mp_time now)
{
    uint32_t index = l->protocol->patch ? a->slot + 1 : c->first;
    if (c->in_flight == 0 || index <= c->slots_first || index > c->slots_end)
        return false;
    struct slot *s = &l->slots[index - 1];
    if (s->since == 0 || (!l->is_small && index == c->unwritten))
        return false; /* answered twice, or before it was sent */
    if (!l->protocol->patch)
        c->first = s->next;
    if (a->is_error) {
        count_error(l, a->kind);
    } else {
        mp_histogram_add(&l->result->latencies, now > s->since ? now - s->since : 0);
        l->result->calls++;
    }
    s->since = 0;
    s->next = c->free;
    c->free = index;
    c->in_flight--;
    l->in_flight--;
    l->last_answer = now;
    if (l->config->rate <= 0 && is_sending(l, now))
        send_one(l, c, now);
    return true;
}

/* --- writing --- */

static void flush(struct load *l, struct conn *c)
{
    if (c->is_lost)
        return;
    bool is_well = l->is_small ? write_copied(c) : write_gathered(l, c);
    if (!is_well)
        lose(l, c);
    else
        watch(l, c);
}

static bool write_copied(struct conn *c)
{
    while (c->out_at < c->out_size) {
        ssize_t n = write(c->fd, c->out + c->out_at, c->out_size - c->out_at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            break;
        c->out_at += (size_t)n;
    }
    if (c->out_at < c->out_size) {
        /* the rest to the front: there must be room for a request of every slot */
        memmove(c->out, c->out + c->out_at, c->out_size - c->out_at);
        c->out_size -= c->out_at;
        c->out_at = 0;
        return errno == EAGAIN;
    }
    c->out_size = 0;
    c->out_at = 0;
    return true;
}

/* One part of a request, less its first `skip` bytes. */
static void add_part(struct iovec *parts, int *count, const uint8_t *data, size_t size,
                     size_t *skip)
{
    if (*skip >= size) {
        *skip -= size;
        return;
    }
    parts[*count].iov_base = (void *)(uintptr_t)(data + *skip);
    parts[*count].iov_len = size - *skip;
    (*count)++;
    *skip = 0;
}

static bool write_gathered(struct load *l, struct conn *c)
{
    const struct mp_load_protocol *p = l->protocol;
    while (c->unwritten != 0) {
        struct iovec parts[PARTS_MAX];
        int count = 0;
        size_t skip = c->out_at;
        for (uint32_t i = c->unwritten; i != 0 && count + 2 <= PARTS_MAX;
             i = l->slots[i - 1].next) {
            add_part(parts, &count, l->slots[i - 1].prefix, p->prefix_bytes, &skip);
            add_part(parts, &count, p->request.data + p->prefix_bytes,
                     p->request.size - p->prefix_bytes, &skip);
        }
        ssize_t n = writev(c->fd, parts, count);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno == EAGAIN;
        c->out_at += (size_t)n;
        while (c->out_at >= p->request.size) {
            c->out_at -= p->request.size;
            c->unwritten = l->slots[c->unwritten - 1].next;
            if (p->patch)
                c->first = c->unwritten;
        }
    }
    return true;
}

/* Writability is asked for only while something waits. */
static void watch(struct load *l, struct conn *c)
{
    bool wants = l->is_small ? c->out_size != 0 : c->unwritten != 0;
    if (wants == c->wants_writing)
        return;
    c->wants_writing = wants;
    struct epoll_event e = {.events = EPOLLIN | (wants ? EPOLLOUT : 0),
                            .data.u32 = (uint32_t)(c - l->conns)};
    epoll_ctl(l->epoll, EPOLL_CTL_MOD, c->fd, &e);
}

static void lose(struct load *l, struct conn *c)
{
    epoll_ctl(l->epoll, EPOLL_CTL_DEL, c->fd, NULL);
    c->is_lost = true;
    l->lost++;
    l->in_flight -= c->in_flight;
    for (; c->in_flight != 0; c->in_flight--)
        count_error(l, "UNAVAILABLE/CONNECTION_LOST");
}

static void count_error(struct load *l, const char *kind)
{
    struct mp_load_result *r = l->result;
    uint32_t i = 0;
    r->errors++;
    while (i < r->kinds_count && strcmp(r->kinds[i].name, kind) != 0)
        i++;
    if (i == MP_LOAD_KINDS_MAX)
        i--;
    if (i == r->kinds_count) {
        r->kinds_count++;
        snprintf(r->kinds[i].name, sizeof(r->kinds[i].name), "%s", kind);
    }
    r->kinds[i].count++;
}
