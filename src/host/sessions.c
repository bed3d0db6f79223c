/* A session is a child process with a socket to it. Over the socket go frames of the native
 * protocol: EVAL there, EVENT, RESULT and ERROR back, one evaluation at a time; further ones wait
 * here, as does the first until the process said that it is ready (READY_ID): before, a signal
 * would end it. To interrupt is a signal (SIGUSR1), repeated until the answer comes; what does not
 * answer within a second loops inside C, and is killed. The process is not trusted: what it sends
 * is checked as bytes from a socket are.
 *
 * The process belongs to a connection and dies with it. If the process ends first, the evaluations
 * that wait are answered with SESSION_LOST, and the next one starts another. */
#include "src/host/sessions.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "src/base/assert.h"
#include "src/host/net_internal.h"

#define READ_BYTES     (64u << 10)
#define READS_A_TURN   4
#define FD_OF_SESSION  3
#define SIGNAL_AGAIN   MP_MS(50)
#define PAUSE_LOOK     MP_MS(20)
#define ARGUMENT_BYTES 24
#define READY_ID       0 /* an EVENT with this id and nothing in it is a session's first frame */

struct eval {
    struct eval *next;
    uint64_t id;
    struct mp_buf frame;
};

struct mp_session {
    struct mp_session *next;
    struct mp_host *host;
    uint64_t client; /* 0: it is gone */
    uv_process_t *process;
    uv_poll_t poll;
    int fd;
    int watched;
    struct mp_buf in;
    size_t sent;        /* of the first evaluation's frame */
    struct eval *first; /* the process has this one */
    struct eval *last;
    uint32_t waiting; /* evaluations, the first one included */
    bool is_ready;    /* it handles signals, and reads */
    bool is_paused;   /* not read: its connection has too much unsent */
    bool is_killed;
    bool is_interrupted; /* the first evaluation */
    mp_time signal_at;
    mp_time kill_at;
};

static void on_socket(uv_poll_t *poll, int status, int events);

/* --- answers --- */

static void answer(struct mp_session *s, uint64_t id, uint8_t frame, struct mp_slice payload)
{
    const struct mp_outgoing_frame o = {.type = frame, .id = id, .payload = payload};
    if (s->client != 0)
        mp_net_reply(s->host, s->client, &o);
}

static void answer_error(struct mp_session *s, uint64_t id, enum mp_code code, const char *reason,
                         const char *message)
{
    struct mp_buf b;
    const struct mp_fault fault = {.code = code,
                                   .reason = mp_slice_str(reason),
                                   .message = mp_slice_str(message),
                                   .node = mp_slice_str(s->host->cfg->name)};
    mp_buf_init(&b, mp_host_alloc(), 0);
    if (mp_fault_put(&b, &fault) == MP_OK)
        answer(s, id, MP_FRAME_ERROR, mp_buf_slice(&b));
    mp_buf_fini(&b);
}

/* Forgets the first evaluation. */
static void drop_first(struct mp_session *s)
{
    struct eval *e = s->first;
    s->first = e->next;
    if (!s->first)
        s->last = NULL;
    s->sent = 0;
    s->waiting--;
    s->is_interrupted = false;
    mp_buf_fini(&e->frame);
    free(e);
}

/* --- the socket --- */

static void watch(struct mp_session *s)
{
    bool is_writing = s->is_ready && s->first && s->sent < s->first->frame.size;
    int wanted = (s->is_paused ? 0 : UV_READABLE) | (is_writing ? UV_WRITABLE : 0);
    if (s->is_killed)
        wanted = 0;
    if (wanted == s->watched)
        return;
    s->watched = wanted;
    if (wanted == 0)
        uv_poll_stop(&s->poll);
    else
        uv_poll_start(&s->poll, wanted, on_socket);
}

static void kill_now(struct mp_session *s)
{
    s->is_killed = true;
    watch(s);
    uv_process_kill(s->process, SIGKILL);
}

static void break_off(struct mp_session *s, const char *what)
{
    mp_log(3, "a session (pid %d) is ended: %s", uv_process_get_pid(s->process), what);
    kill_now(s);
}

/* Hands the first evaluation to the process, as far as its socket takes it. */
static void write_first(struct mp_session *s)
{
    while (s->is_ready && !s->is_killed && s->first && s->sent < s->first->frame.size) {
        const struct mp_buf *b = &s->first->frame;
        ssize_t size = send(s->fd, b->data + s->sent, b->size - s->sent, MSG_NOSIGNAL);
        if (size <= 0)
            break; /* full, or it has just ended: then its end is told */
        s->sent += (size_t)size;
    }
    watch(s);
}

/* False: nothing more can be read from this process. */
static bool take_frame(struct mp_session *s, const struct mp_frame_header *f,
                       struct mp_slice payload)
{
    bool is_end = f->type == MP_FRAME_RESULT || f->type == MP_FRAME_ERROR;
    if (!s->is_ready && f->type == MP_FRAME_EVENT && f->id == READY_ID && f->size == 0) {
        s->is_ready = true;
        write_first(s);
        return true;
    }
    if ((!is_end && f->type != MP_FRAME_EVENT) || !s->first || f->id != s->first->id ||
        s->sent < s->first->frame.size) {
        break_off(s, "it sent a frame that answers nothing");
        return false;
    }
    answer(s, f->id, f->type, payload);
    if (is_end) {
        drop_first(s);
        write_first(s);
    }
    return true;
}

static void take_frames(struct mp_session *s)
{
    struct mp_slice bytes = mp_buf_slice(&s->in);
    uint32_t size_max = (uint32_t)(s->host->cfg->value_max + MP_FRAME_SLACK_BYTES);
    for (;;) {
        struct mp_frame_header f = {0};
        enum mp_err err = mp_frame_read_header(bytes, size_max, &f);
        if (err == MP_EAGAIN)
            break;
        if (err != MP_OK) {
            break_off(s, "it sent a frame that is broken or too large");
            return;
        }
        size_t whole = MP_FRAME_HEADER_BYTES + (size_t)f.size;
        if (bytes.size < whole)
            break;
        size_t before = MP_FRAME_HEADER_BYTES + f.meta_size;
        if (!take_frame(s, &f, mp_slice_of(bytes.data + before, whole - before)))
            return;
        bytes = mp_slice_of(bytes.data + whole, bytes.size - whole);
    }
    mp_buf_drop(&s->in, s->in.size - bytes.size);
}

/* Who prints faster than the client reads is not read for a while. */
static bool has_much_unsent(const struct mp_session *s)
{
    const struct mp_conn *c = s->client != 0 ? mp_conn_find(s->host, s->client) : NULL;
    return c && c->out_bytes > MP_CONN_OUT_HIGH_BYTES;
}

/* False: there is nothing more now. */
static bool read_once(struct mp_session *s)
{
    if (has_much_unsent(s)) {
        s->is_paused = true;
        watch(s);
        return false;
    }
    if (mp_buf_reserve(&s->in, READ_BYTES) != MP_OK) {
        break_off(s, "no memory is left for what it sends");
        return false;
    }
    ssize_t size = recv(s->fd, s->in.data + s->in.size, READ_BYTES, MSG_DONTWAIT);
    if (size < 0 && (errno == EAGAIN || errno == EINTR))
        return false;
    if (size <= 0) {
        kill_now(s); /* it closed its end: it is ending */
        return false;
    }
    s->in.size += (size_t)size;
    take_frames(s);
    return !s->is_killed;
}

static void on_socket(uv_poll_t *poll, int status, int events)
{
    struct mp_session *s = (struct mp_session *)poll->data;
    mp_host_woken(s->host);
    if (status < 0)
        events = UV_READABLE;
    if (events & UV_WRITABLE)
        write_first(s);
    for (unsigned i = 0; (events & UV_READABLE) && !s->is_killed && i < READS_A_TURN; i++)
        if (!read_once(s))
            break;
}

/* --- the end --- */

static void on_poll_closed(uv_handle_t *handle)
{
    struct mp_session *s = (struct mp_session *)handle->data;
    close(s->fd);
    mp_buf_fini(&s->in);
    free(s);
}

static void unlink_session(struct mp_session *s)
{
    struct mp_session **at = &s->host->sessions;
    while (*at != s)
        at = &(*at)->next;
    *at = s->next;
    s->host->session_count--;
}

static void lose_evals(struct mp_session *s)
{
    static const char interrupted[] =
        "what ran did not stop within a second of being interrupted, so the session was ended; its "
        "variables are gone";
    static const char ended[] = "the session's process ended; its variables are gone";
    bool is_first = true;
    while (s->first) {
        const char *why = is_first && s->is_interrupted ? interrupted : ended;
        answer_error(s, s->first->id, MP_CODE_UNAVAILABLE, "SESSION_LOST", why);
        drop_first(s);
        is_first = false;
    }
}

static void on_exit_of_session(uv_process_t *process, int64_t status, int signal)
{
    struct mp_session *s = (struct mp_session *)process->data;
    mp_host_woken(s->host);
    if (!s->is_killed)
        mp_log(2, "a session (pid %d) ended with %s %lld", process->pid,
               signal != 0 ? "signal" : "status",
               signal != 0 ? (long long)signal : (long long)status);
    while (!s->is_killed && read_once(s)) { /* what it had said before it ended still counts */
    }
    unlink_session(s);
    lose_evals(s);
    mp_host_close_process(process);
    uv_close((uv_handle_t *)&s->poll, on_poll_closed);
}

/* --- starting --- */

static bool spawn(struct mp_host *h, struct mp_session *s, int fd)
{
    char host_pid[ARGUMENT_BYTES];
    char memory[ARGUMENT_BYTES];
    char value[ARGUMENT_BYTES];
    const struct mp_host_config *cfg = h->cfg;
    snprintf(host_pid, sizeof(host_pid), "%d", (int)getpid());
    snprintf(memory, sizeof(memory), "%llu", (unsigned long long)cfg->worker_memory);
    snprintf(value, sizeof(value), "%llu", (unsigned long long)cfg->value_max);
    const char *args[] = {"mpreg-session", host_pid, h->addr, cfg->name, cfg->cluster,
                          cfg->lua_dir,    memory,   value,   NULL};
    s->process = mp_host_spawn(h, "a session", args, fd, on_exit_of_session, s);
    return s->process != NULL;
}

static struct mp_session *start(struct mp_host *h, uint64_t client)
{
    int fds[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0) {
        mp_log(3, "a session could not be started: %s", strerror(errno));
        return NULL;
    }
    struct mp_session *s = mp_xalloc(sizeof(*s));
    s->host = h;
    s->client = client;
    s->fd = fds[0];
    s->poll.data = s;
    mp_buf_init(&s->in, mp_host_alloc(), 0);
    bool is_polled = uv_poll_init(&h->loop, &s->poll, s->fd) == 0; /* makes it non-blocking */
    bool is_started = is_polled && spawn(h, s, fds[1]);
    close(fds[1]);
    if (!is_started) {
        if (is_polled) {
            uv_close((uv_handle_t *)&s->poll, on_poll_closed);
        } else {
            close(s->fd);
            free(s);
        }
        return NULL;
    }
    s->next = h->sessions;
    h->sessions = s;
    h->session_count++;
    watch(s);
    return s;
}

static struct mp_session *find(struct mp_host *h, uint64_t client)
{
    struct mp_session *s = h->sessions;
    while (s && (s->client != client || s->is_killed))
        s = s->next;
    return s;
}

/* --- what connections want --- */

static void refuse(struct mp_conn *c, uint64_t id, enum mp_code code, const char *reason,
                   const char *message)
{
    c->in_flight--;
    mp_conn_put_error(c, id, code, reason, message);
}

void mp_session_eval(struct mp_conn *c, const struct mp_frame_header *f, struct mp_slice meta,
                     struct mp_slice payload, uint64_t handle)
{
    struct mp_host *h = c->host;
    struct eval *e = mp_xalloc(sizeof(*e));
    e->id = f->id;
    mp_buf_init(&e->frame, mp_host_alloc(), 0);
    bool is_large = payload.size > MP_EVAL_BYTES_MAX;
    enum mp_err err =
        is_large ? MP_ETOOLARGE : mp_frame_put(&e->frame, MP_FRAME_EVAL, f->id, meta, payload);
    if (handle != 0)
        mp_host_release(h, handle);
    struct mp_session *s = NULL;
    if (err == MP_ETOOLARGE) {
        refuse(c, f->id, MP_CODE_RESOURCE_EXHAUSTED, "TOO_LARGE",
               "what is evaluated at once may have 1 MiB: split it");
    } else if (err != MP_OK) {
        refuse(c, f->id, MP_CODE_RESOURCE_EXHAUSTED, "OUT_OF_MEMORY",
               "the node has no memory left");
    } else if (h->is_draining) {
        refuse(c, f->id, MP_CODE_UNAVAILABLE, "DRAINING", "the node is about to stop");
    } else {
        s = find(h, c->number);
        if (!s && h->session_count >= MP_SESSIONS_MAX)
            refuse(c, f->id, MP_CODE_RESOURCE_EXHAUSTED, "TOO_MANY_SESSIONS",
                   "the node has as many sessions as it may have (64): end one, or ask another "
                   "node (-n)");
        else if (!s && !(s = start(h, c->number)))
            refuse(c, f->id, MP_CODE_UNAVAILABLE, "NO_SESSION",
                   "a session's process could not be started; the node's log says why");
        if (s && s->waiting >= MP_EVALS_WAITING_MAX) {
            s = NULL;
            refuse(c, f->id, MP_CODE_RESOURCE_EXHAUSTED, "QUEUE_FULL",
                   "too many evaluations wait in this session (64): wait for some of them");
        }
    }
    if (!s) {
        mp_buf_fini(&e->frame);
        free(e);
        return;
    }
    if (s->last)
        s->last->next = e;
    else
        s->first = e;
    s->last = e;
    s->waiting++;
    if (s->first == e)
        write_first(s);
}

static void interrupt(struct mp_session *s)
{
    if (s->is_interrupted)
        return;
    s->is_interrupted = true;
    s->signal_at = mp_time_add(s->host->now, SIGNAL_AGAIN);
    s->kill_at = mp_time_add(s->host->now, MP_MS(MP_SESSION_KILL_AFTER_MS));
    uv_process_kill(s->process, SIGUSR1);
}

static void answer_unbegun(struct mp_session *s, uint64_t id)
{
    answer_error(s, id, MP_CODE_CANCELLED, "CANCELLED", "it was cancelled before it began");
}

static void cancel_waiting(struct mp_session *s, struct eval *before)
{
    struct eval *e = before->next;
    before->next = e->next;
    if (s->last == e)
        s->last = before;
    s->waiting--;
    answer_unbegun(s, e->id);
    mp_buf_fini(&e->frame);
    free(e);
}

bool mp_session_cancel(struct mp_host *h, uint64_t client, uint64_t id)
{
    struct mp_session *s = find(h, client);
    if (!s || !s->first)
        return false;
    if (s->first->id == id && s->sent == 0) {
        answer_unbegun(s, id);
        drop_first(s);
        write_first(s);
        return true;
    }
    if (s->first->id == id) {
        interrupt(s);
        return true;
    }
    for (struct eval *e = s->first; e->next; e = e->next) {
        if (e->next->id != id)
            continue;
        cancel_waiting(s, e);
        return true;
    }
    return false;
}

void mp_session_client_gone(struct mp_host *h, uint64_t client)
{
    for (struct mp_session *s = h->sessions; s; s = s->next) {
        if (s->client != client)
            continue;
        s->client = 0;
        kill_now(s);
    }
}

/* --- all of them --- */

void mp_sessions_check(struct mp_host *h)
{
    for (struct mp_session *s = h->sessions; s; s = s->next) {
        if (s->is_killed)
            continue;
        if (s->is_paused && !has_much_unsent(s)) {
            s->is_paused = false;
            watch(s);
        }
        if (!s->is_interrupted)
            continue;
        if (h->now >= s->kill_at) {
            mp_log(2, "a session (pid %d) is killed: it did not stop when it was interrupted",
                   uv_process_get_pid(s->process));
            kill_now(s);
        } else if (h->now >= s->signal_at) {
            s->signal_at = mp_time_add(h->now, SIGNAL_AGAIN);
            uv_process_kill(s->process, SIGUSR1);
        }
    }
}

mp_time mp_sessions_deadline(const struct mp_host *h)
{
    mp_time at = MP_NEVER;
    for (const struct mp_session *s = h->sessions; s; s = s->next) {
        mp_time mine = MP_NEVER;
        if (!s->is_killed && s->is_interrupted)
            mine = s->signal_at < s->kill_at ? s->signal_at : s->kill_at;
        if (!s->is_killed && s->is_paused && mp_time_add(h->now, PAUSE_LOOK) < mine)
            mine = mp_time_add(h->now, PAUSE_LOOK);
        at = mine < at ? mine : at;
    }
    return at;
}

bool mp_sessions_are_running(const struct mp_host *h)
{
    for (const struct mp_session *s = h->sessions; s; s = s->next)
        if (s->first)
            return true;
    return false;
}

bool mp_sessions_kill_all(struct mp_host *h)
{
    for (struct mp_session *s = h->sessions; s; s = s->next)
        kill_now(s);
    return h->sessions != NULL;
}
