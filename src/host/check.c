/* A unit is tried in a process of its own (src/check) with a socket to it. A request goes there: a
 * u32 size and an array [unit, [units that it may require besides], what workers are told of the
 * node]; an answer comes back: a u32 size, a byte that says what it is (0: the array of the
 * modules' metadata; 1: an ERROR map) and so many bytes. Numbers are little-endian. Then the
 * process is ready for the next one: each unit is loaded in a child that it forks. It is not
 * trusted: what it sends is checked as bytes from a socket are.
 *
 * Starting one takes some tens of milliseconds, more than most checks; so it is kept for a while
 * after the last check. Hashes are made on libuv's threads, since a unit may have 32 MiB.
 *
 * The processes run with a nice value of 5, so whoever serves calls gets the processor first and
 * most of it. SCHED_IDLE would be gentler still, but beside busy workers it starves: with two
 * spinning processes on each core, 25 ms of work took 120 ms as usual, 0.3 s with nice 5, 0.8 s (at
 * worst 2 s) with nice 10, and 8 s with SCHED_IDLE, longer than a check may take; with one on each
 * core it was 1.6 s. SCHED_BATCH shares the processor evenly with the workers. */
#include "src/host/check.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "src/base/assert.h"
#include "src/host/host_internal.h"
#include "src/host/units.h"
#include "src/wire/error.h"
#include "src/wire/msgpack.h"
#include "src/wire/unit.h"

#define READ_BYTES    (64u << 10)
#define HEAD_BYTES    5 /* of an answer: size and status */
#define SIZE_BYTES    4 /* of a request */
#define NICE          5
#define MESSAGE_BYTES 256
#define ANSWER_GOOD   0
#define ANSWER_ERROR  1

struct job {
    struct job *next;
    struct mp_host *host;
    uint64_t ticket;
    uv_work_t work;
    uint8_t *request;
    size_t request_size;
    struct mp_slice unit; /* in the request */
    uint32_t count;       /* modules; 0: it is none */
    uint8_t hash[MP_UNIT_HASH_BYTES];
    uint8_t (*hashes)[MP_UNIT_HASH_BYTES]; /* of the sources */
    /* why it is not even tried; NULL: it is */
    enum mp_code code;
    const char *reason;
    const char *message;
};

struct process {
    struct process *next;
    struct mp_host *host;
    uv_process_t *process;
    uv_poll_t poll;
    int fd;
    int watched;
    struct job *job; /* NULL: it is ready for one */
    size_t sent;     /* of its request */
    struct mp_buf in;
    mp_time until; /* of the job */
    bool is_over;  /* killed: nothing more is wanted of it */
};

struct mp_checks {
    struct process *first;
    struct job *job_first; /* hashed, and waiting for a process */
    struct job *job_last;
    uint32_t outstanding; /* jobs in all */
    uint32_t hashing;     /* jobs on libuv's threads */
    mp_time spare_until;  /* 0 when one ended by itself: it might do so for ever */
    bool is_over;
};

static void dispatch(struct mp_host *h);
static void on_socket(uv_poll_t *poll, int status, int events);

void mp_checks_init(struct mp_host *h)
{
    h->checks = mp_xalloc(sizeof(*h->checks));
}

void mp_checks_fini(struct mp_host *h)
{
    mp_assert(!h->checks || (!h->checks->first && h->checks->outstanding == 0));
    free(h->checks);
    h->checks = NULL;
}

/* --- the end of a job --- */

static void free_job(struct job *j)
{
    j->host->checks->outstanding--;
    free(j->request);
    free(j->hashes);
    free(j);
}

static void tell_and_free(struct job *own_j, bool is_error, struct mp_slice bytes)
{
    struct mp_host *h = own_j->host;
    struct mp_node_event ev = {.kind = MP_NODE_CHECKED,
                               .stored = {.is_error = is_error, .bytes = bytes}};
    ev.stored.ticket = own_j->ticket;
    memcpy(ev.stored.hash, own_j->hash, sizeof(ev.stored.hash));
    free_job(own_j);
    if (!h->checks->is_over)
        mp_host_tell(h, &ev);
}

static void fail(struct job *own_j, enum mp_code code, const char *reason, const char *message)
{
    struct mp_buf b;
    const struct mp_fault fault = {.code = code,
                                   .reason = mp_slice_str(reason),
                                   .message = mp_slice_str(message),
                                   .node = mp_slice_str(own_j->host->cfg->name)};
    mp_buf_init(&b, mp_host_alloc(), 0);
    if (mp_fault_put(&b, &fault) != MP_OK)
        mp_buf_clear(&b);
    tell_and_free(own_j, true, mp_buf_slice(&b));
    mp_buf_fini(&b);
}

/* [[hash of the source, metadata]…] from [metadata…]. MP_ETYPE, MP_ECORRUPT: it is no such array.
 */
static enum mp_err put_description(const struct job *j, struct mp_slice answer, struct mp_buf *out)
{
    struct mp_mp_reader r;
    uint32_t count = 0;
    MP_TRY(mp_mp_check(answer));
    MP_TRY(mp_mp_get_array(answer, &count, &r));
    if (count != j->count)
        return MP_ETYPE;
    MP_TRY(mp_mp_put_array(out, count));
    for (uint32_t i = 0; i < count; i++) {
        struct mp_slice metadata;
        MP_TRY(mp_mp_take(&r, &metadata));
        if (mp_mp_type_of(metadata) != MP_MP_MAP)
            return MP_ETYPE;
        MP_TRY(mp_mp_put_array(out, 2));
        MP_TRY(mp_mp_put_bin(out, mp_slice_of(j->hashes[i], MP_UNIT_HASH_BYTES)));
        MP_TRY(mp_mp_put_raw(out, metadata));
    }
    return MP_OK;
}

static void finish(struct job *own_j, uint8_t status, struct mp_slice answer)
{
    struct mp_buf description;
    struct mp_fault fault;
    mp_buf_init(&description, mp_host_alloc(), 0);
    enum mp_err err = MP_ETYPE;
    if (status == ANSWER_GOOD)
        err = put_description(own_j, answer, &description);
    else if (status == ANSWER_ERROR && mp_mp_check(answer) == MP_OK)
        err = mp_fault_read(answer, &fault);
    if (err == MP_ENOMEM)
        fail(own_j, MP_CODE_RESOURCE_EXHAUSTED, "OUT_OF_MEMORY", "the node has no memory left");
    else if (err != MP_OK)
        fail(own_j, MP_CODE_INTERNAL, "LOAD_CRASHED",
             "the process that loaded it did not answer with a description");
    else
        tell_and_free(own_j, status == ANSWER_ERROR,
                      status == ANSWER_ERROR ? answer : mp_buf_slice(&description));
    mp_buf_fini(&description);
}

/* --- a process --- */

static void watch(struct process *p)
{
    bool is_writing = p->job && p->sent < p->job->request_size;
    int wanted = p->is_over ? 0 : UV_READABLE | (is_writing ? UV_WRITABLE : 0);
    if (wanted == p->watched)
        return;
    p->watched = wanted;
    if (wanted == 0)
        uv_poll_stop(&p->poll);
    else
        uv_poll_start(&p->poll, wanted, on_socket);
}

static void kill_now(struct process *p)
{
    p->is_over = true;
    watch(p);
    uv_process_kill(p->process, SIGKILL);
}

/* The process has served its purpose; its job is the caller's. */
static struct job *end_process(struct process *p)
{
    struct job *j = p->job;
    p->job = NULL;
    kill_now(p);
    return j;
}

static void write_request(struct process *p)
{
    while (!p->is_over && p->job && p->sent < p->job->request_size) {
        ssize_t size =
            send(p->fd, p->job->request + p->sent, p->job->request_size - p->sent, MSG_NOSIGNAL);
        if (size <= 0)
            break; /* full, or it has just ended: then its end is told */
        p->sent += (size_t)size;
    }
    watch(p);
}

/* Ends the job if its answer is there whole, or if the process broke the rules. */
static void take_answer(struct process *p)
{
    if (p->in.size < HEAD_BYTES)
        return;
    const uint8_t *at = p->in.data;
    uint32_t size = at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
    if (!p->job || p->sent < p->job->request_size) {
        struct job *j = end_process(p);
        if (j)
            fail(j, MP_CODE_INTERNAL, "LOAD_CRASHED",
                 "the process that was to load it answered before it was asked");
        else
            p->host->checks->spare_until = 0;
    } else if (size > MP_CHECK_ANSWER_BYTES_MAX) {
        fail(end_process(p), MP_CODE_RESOURCE_EXHAUSTED, "TOO_LARGE",
             "the description of its modules is larger than 33 MiB");
    } else if (p->in.size > HEAD_BYTES + (size_t)size) {
        fail(end_process(p), MP_CODE_INTERNAL, "LOAD_CRASHED",
             "the process that loaded it said more than its answer");
    } else if (p->in.size == HEAD_BYTES + (size_t)size) {
        struct job *j = p->job;
        p->job = NULL;
        p->sent = 0;
        finish(j, at[SIZE_BYTES], mp_slice_of(at + HEAD_BYTES, size));
        mp_buf_fini(&p->in);
    }
}

/* False: there is nothing more now. */
static bool read_once(struct process *p)
{
    if (mp_buf_reserve(&p->in, READ_BYTES) != MP_OK) {
        struct job *j = end_process(p);
        if (j)
            fail(j, MP_CODE_RESOURCE_EXHAUSTED, "OUT_OF_MEMORY", "the node has no memory left");
        return false;
    }
    ssize_t size = recv(p->fd, p->in.data + p->in.size, READ_BYTES, MSG_DONTWAIT);
    if (size <= 0) {
        /* It closed its end: it is ending, and its end is told. */
        bool is_later = size < 0 && (errno == EAGAIN || errno == EINTR);
        if (!is_later && p->watched != 0) {
            uv_poll_stop(&p->poll);
            p->watched = 0;
        }
        return false;
    }
    p->in.size += (size_t)size;
    take_answer(p);
    return !p->is_over;
}

static void on_socket(uv_poll_t *poll, int status, int events)
{
    struct process *p = (struct process *)poll->data;
    struct mp_host *h = p->host;
    mp_host_woken(h);
    if (status < 0)
        events = UV_READABLE;
    if (events & UV_WRITABLE)
        write_request(p);
    if ((events & UV_READABLE) && !p->is_over)
        (void)read_once(p);
    if (!p->job)
        dispatch(h);
}

static void on_poll_closed(uv_handle_t *handle)
{
    struct process *p = (struct process *)handle->data;
    close(p->fd);
    mp_buf_fini(&p->in);
    free(p);
}

static void on_exit_of_check(uv_process_t *process, int64_t status, int signal)
{
    struct process *p = (struct process *)process->data;
    struct mp_host *h = p->host;
    char message[MESSAGE_BYTES];
    mp_host_woken(h);
    while (!p->is_over && read_once(p)) { /* what it had said before it ended still counts */
    }
    struct process **at = &h->checks->first;
    while (*at != p)
        at = &(*at)->next;
    *at = p->next;
    struct job *j = p->job;
    mp_host_close_process(process);
    uv_close((uv_handle_t *)&p->poll, on_poll_closed);
    if (signal != 0)
        snprintf(message, sizeof(message), "loading it ended the process: signal %d (%s)", signal,
                 mp_signal_name(signal));
    else
        snprintf(message, sizeof(message), "loading it ended the process: exit status %lld",
                 (long long)status);
    if (j) {
        fail(j, MP_CODE_INTERNAL, "LOAD_CRASHED", message);
    } else if (!p->is_over) {
        mp_log(2, "a process for trying units (pid %d) ended with %s %lld", process->pid,
               signal != 0 ? "signal" : "status",
               signal != 0 ? (long long)signal : (long long)status);
        h->checks->spare_until = 0;
    }
    dispatch(h);
}

/* NULL: the log says why. */
static struct process *start(struct mp_host *h)
{
    int fds[2];
    char host_pid[24];
    snprintf(host_pid, sizeof(host_pid), "%d", (int)getpid());
    const char *args[] = {"mpreg-check", host_pid, h->cfg->lua_dir, NULL};
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0) {
        mp_log(3, "a process for trying units could not be started: %s", strerror(errno));
        return NULL;
    }
    struct process *p = mp_xalloc(sizeof(*p));
    p->host = h;
    p->fd = fds[0];
    p->poll.data = p;
    mp_buf_init(&p->in, mp_host_alloc(), 0);
    bool is_polled = uv_poll_init(&h->loop, &p->poll, p->fd) == 0; /* makes it non-blocking */
    if (is_polled)
        p->process =
            mp_host_spawn(h, "a process for trying units", args, fds[1], on_exit_of_check, p);
    close(fds[1]);
    if (!p->process) {
        if (is_polled) {
            uv_close((uv_handle_t *)&p->poll, on_poll_closed);
        } else {
            close(p->fd);
            free(p);
        }
        return NULL;
    }
    setpriority(PRIO_PROCESS, (id_t)uv_process_get_pid(p->process), NICE);
    p->next = h->checks->first;
    h->checks->first = p;
    watch(p);
    return p;
}

/* --- who gets which job --- */

static struct process *find_spare(const struct mp_checks *c, uint32_t *living)
{
    struct process *spare = NULL;
    *living = 0;
    for (struct process *p = c->first; p; p = p->next) {
        *living += !p->is_over;
        if (!p->is_over && !p->job)
            spare = p;
    }
    return spare;
}

static struct job *next_job(struct mp_checks *c)
{
    struct job *j = c->job_first;
    c->job_first = j->next;
    if (!c->job_first)
        c->job_last = NULL;
    return j;
}

/* Gives jobs to processes, and sees to it that there is one for the next. */
static void dispatch(struct mp_host *h)
{
    struct mp_checks *c = h->checks;
    uint32_t living = 0;
    while (!c->is_over) {
        struct process *spare = find_spare(c, &living);
        bool is_wanted = c->job_first ? !spare && living < MP_CHECKS_MAX
                                      : living == 0 && h->now < c->spare_until;
        if (is_wanted)
            spare = start(h);
        if (!c->job_first)
            return;
        if (spare) {
            spare->job = next_job(c);
            spare->until = mp_time_add(h->now, MP_MS(MP_CHECK_TIMEOUT_MS));
            c->spare_until = mp_time_add(h->now, MP_MS(MP_CHECK_SPARE_MS));
            write_request(spare);
            continue;
        }
        if (living != 0)
            return;
        fail(next_job(c), MP_CODE_UNAVAILABLE, "NO_PROCESS",
             "a process for trying it could not be started; the node's log says why");
    }
}

/* --- taking a job --- */

static void on_hash(uv_work_t *work)
{
    struct job *j = (struct job *)work->data;
    struct mp_mp_reader r;
    struct mp_unit_module m;
    const char *why = NULL;
    uint32_t count = 0;
    if (j->reason)
        return;
    mp_host_sha256(j->unit, j->hash);
    if (mp_unit_open(j->unit, &count, &r, &why) != MP_OK) {
        j->code = MP_CODE_INVALID_ARGUMENT;
        j->reason = "BAD_UNIT";
        j->message = why;
        return;
    }
    j->count = count;
    j->hashes = mp_xalloc(count * sizeof(*j->hashes));
    for (uint32_t i = 0; i < count; i++) {
        if (mp_unit_next(&r, &m) != MP_OK)
            mp_assert(false); /* it was opened, so it was checked */
        mp_host_sha256(m.source, j->hashes[i]);
    }
}

static void after_hash(uv_work_t *work, int status)
{
    struct job *j = (struct job *)work->data;
    struct mp_host *h = j->host;
    struct mp_checks *c = h->checks;
    (void)status; /* nobody cancels it */
    mp_host_woken(h);
    c->hashing--;
    if (c->is_over) {
        free_job(j);
        return;
    }
    if (j->reason) {
        fail(j, j->code, j->reason, j->message);
        return;
    }
    if (c->job_last)
        c->job_last->next = j;
    else
        c->job_first = j;
    c->job_last = j;
    dispatch(h);
}

static void put_request(struct job *j, struct mp_slice unit, struct mp_slice others)
{
    static const uint8_t no_units[] = {0x90};
    static const uint8_t no_config[] = {0x80};
    struct mp_buf config;
    struct mp_slice parts[3] = {unit, others, mp_slice_of(no_config, sizeof(no_config))};
    if (others.size == 0)
        parts[1] = mp_slice_of(no_units, sizeof(no_units));
    mp_buf_init(&config, mp_host_alloc(), 0);
    if (mp_workers_put_config(j->host, 1, &config) == MP_OK)
        parts[2] = mp_buf_slice(&config);
    size_t size = 1 + parts[0].size + parts[1].size + parts[2].size;
    j->request_size = SIZE_BYTES + size;
    j->request = mp_xalloc(j->request_size);
    uint8_t *at = j->request;
    for (unsigned i = 0; i < SIZE_BYTES; i++)
        *at++ = (uint8_t)(size >> 8 * i);
    *at++ = 0x93; /* an array of three */
    j->unit = mp_slice_of(at, unit.size);
    for (unsigned i = 0; i < 3; i++) {
        if (parts[i].size != 0)
            memcpy(at, parts[i].data, parts[i].size);
        at += parts[i].size;
    }
    mp_buf_fini(&config);
}

void mp_check_unit(struct mp_host *h, const struct mp_node_effect *e)
{
    struct mp_checks *c = h->checks;
    struct job *j = mp_xalloc(sizeof(*j));
    struct mp_buf others;
    mp_buf_init(&others, mp_host_alloc(), 0);
    enum mp_err err = mp_units_put_release(h, e->release, &others);
    j->host = h;
    j->ticket = e->id;
    j->work.data = j;
    c->outstanding++;
    if (c->outstanding > MP_CHECKS_WAITING_MAX) {
        j->code = MP_CODE_RESOURCE_EXHAUSTED;
        j->reason = "QUEUE_FULL";
        j->message = "too many deploys wait to be tried on this node (64): try again";
    } else if (err != MP_OK) {
        j->code = MP_CODE_RESOURCE_EXHAUSTED;
        j->reason = "OUT_OF_MEMORY";
        j->message = "the node has no memory left";
    } else if (e->payload.bytes.size > MP_CHECK_REQUEST_BYTES_MAX ||
               others.size > MP_CHECK_REQUEST_BYTES_MAX - e->payload.bytes.size) {
        j->code = MP_CODE_RESOURCE_EXHAUSTED;
        j->reason = "TOO_LARGE";
        j->message = "what is deployed and what it may require have more than 128 MiB together";
    } else {
        put_request(j, e->payload.bytes, mp_buf_slice(&others));
    }
    mp_buf_fini(&others);
    c->hashing++;
    int queued = uv_queue_work(&h->loop, &j->work, on_hash, after_hash);
    mp_assert(queued == 0); /* it only fails without a function */
}

/* --- time, and the end --- */

void mp_checks_check(struct mp_host *h)
{
    struct mp_checks *c = h->checks;
    struct process *next = NULL;
    bool has_ended = false;
    for (struct process *p = c->first; p; p = next) {
        next = p->next;
        if (p->is_over)
            continue;
        if (p->job && h->now >= p->until) {
            has_ended = true;
            fail(end_process(p), MP_CODE_INVALID_ARGUMENT, "LOAD_TIMEOUT",
                 "it did not finish loading within 3 s");
        } else if (!p->job && h->now >= c->spare_until) {
            kill_now(p);
        }
    }
    if (has_ended)
        dispatch(h);
}

mp_time mp_checks_deadline(const struct mp_host *h)
{
    mp_time at = MP_NEVER;
    for (const struct process *p = h->checks->first; p; p = p->next) {
        mp_time mine = p->job ? p->until : h->checks->spare_until;
        if (!p->is_over && mine < at)
            at = mine;
    }
    return at;
}

bool mp_checks_kill_all(struct mp_host *h)
{
    struct mp_checks *c = h->checks;
    c->is_over = true;
    while (c->job_first)
        free_job(next_job(c));
    for (struct process *p = c->first; p; p = p->next) {
        struct job *j = end_process(p);
        if (j)
            free_job(j);
    }
    return c->first || c->hashing != 0;
}
