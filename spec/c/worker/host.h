/* The specs' stand-in for a host: a worker in a forked process behind a real channel. */
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "src/base/limits.h"
#include "src/host/ring/arena.h"
#include "src/host/ring/message.h"
#include "src/host/ring/ring.h"
#include "src/wire/error.h"
#include "src/wire/msgpack.h"
#include "src/worker/worker.h"

#define HOST_ARENA_BYTES (256u << 20)
#define HOST_WAIT_MS     20000

struct host {
    struct mp_channel channel;
    struct mp_arena *arena;
    struct mp_arena_view worker_arena;
    int wake_worker;
    int wake_host;
    pid_t pid;
};

/* A message from the worker, copied out. */
struct answer {
    uint16_t kind;
    uint16_t flags;
    uint64_t id;     /* call, module, nested number or arena offset */
    uint64_t parent; /* NESTED */
    uint32_t level;  /* LOG */
    uint64_t run_ns;
    struct mp_buf lead; /* NESTED: options and name */
    struct mp_buf payload;
    uint32_t options_size;
};

static inline void *host_resize(void *context, void *p, size_t old_size, size_t new_size)
{
    (void)context;
    (void)old_size;
    if (new_size == 0) {
        free(p);
        return NULL;
    }
    return realloc(p, new_size);
}

static struct mp_alloc host_alloc = {.resize = host_resize};

static inline uint64_t host_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline void host_place(int fd, int at)
{
    if (dup2(fd, at) != at)
        abort();
}

static inline void host_run_worker(const int fds[5])
{
    /* Two steps: a descriptor must not be overwritten before it was placed. */
    int high[5];
    for (int i = 0; i < 5; i++)
        high[i] = fcntl(fds[i], F_DUPFD, 64);
    for (int i = 0; i < 5; i++)
        host_place(high[i], MP_WORKER_FD_CHANNEL + i);
    /* the specs' own handlers would take what shall end the worker */
    const int fatal[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL};
    for (size_t i = 0; i < MP_ARRAY_SIZE(fatal); i++)
        signal(fatal[i], SIG_DFL);
    char parent[16];
    snprintf(parent, sizeof(parent), "%d", (int)getppid());
    char name[] = "mpreg-worker";
    char *argv[] = {name, parent, NULL};
    _exit(mp_worker_main(2, argv));
}

static inline void host_start(struct host *h)
{
    int fds[5];
    *h = (struct host){0};
    assert_int_equal(mp_channel_create(&fds[0]), MP_OK);
    h->wake_worker = fds[1] = eventfd(0, 0);
    h->wake_host = fds[2] = eventfd(0, EFD_NONBLOCK);
    assert_int_equal(mp_arena_create(&h->arena, HOST_ARENA_BYTES, &fds[3]), MP_OK);
    struct mp_arena *own;
    assert_int_equal(mp_arena_create(&own, HOST_ARENA_BYTES, &fds[4]), MP_OK);
    assert_int_equal(mp_channel_open(&h->channel, fds[0]), MP_OK);
    assert_int_equal(mp_arena_view_open(&h->worker_arena, fds[4]), MP_OK);
    fflush(NULL);
    h->pid = fork();
    if (h->pid == 0)
        host_run_worker(fds);
    close(fds[0]);
    mp_arena_free(own);
}

static inline void host_wake(struct host *h)
{
    if (!mp_ring_publish(&h->channel.to_worker))
        return;
    uint64_t one = 1;
    ssize_t n = write(h->wake_worker, &one, sizeof(one));
    (void)n;
}

static inline uint8_t *host_reserve(struct host *h, size_t body, uint16_t kind, uint16_t flags)
{
    struct mp_ring_record *r = mp_ring_reserve(&h->channel.to_worker, (uint32_t)body, kind, flags);
    if (!r) {
        fail_msg("the ring to the worker is full");
        abort();
    }
    return mp_ring_body(r);
}

static inline uint8_t *host_put(uint8_t *at, struct mp_slice s)
{
    if (s.size != 0)
        memcpy(at, s.data, s.size);
    return at + s.size;
}

struct host_config {
    size_t memory_bytes_max;
    size_t value_bytes_max;
    struct mp_slice resources; /* encoded map, or empty */
};

static inline void host_configure(struct host *h, struct host_config c)
{
    struct mp_buf b;
    mp_buf_init(&b, &host_alloc, 0);
    int err = mp_mp_put_map(&b, 8);
    err |= mp_mp_put_text(&b, "node") | mp_mp_put_text(&b, "n1");
    err |= mp_mp_put_text(&b, "cluster") | mp_mp_put_text(&b, "default");
    err |= mp_mp_put_text(&b, "addr") | mp_mp_put_text(&b, "127.0.0.1:7400");
    err |= mp_mp_put_text(&b, "worker") | mp_mp_put_uint(&b, 1);
    err |= mp_mp_put_text(&b, "memory_bytes_max");
    err |= mp_mp_put_uint(&b, c.memory_bytes_max ? c.memory_bytes_max : MP_WORKER_MEMORY_BYTES);
    err |= mp_mp_put_text(&b, "value_bytes_max");
    err |= mp_mp_put_uint(&b, c.value_bytes_max ? c.value_bytes_max : MP_VALUE_BYTES_MAX);
    err |= mp_mp_put_text(&b, "lua_path");
    const char *root = getenv("MPREG_SOURCE");
    char path[1024];
    snprintf(path, sizeof(path), "%s/lua/?.lua;%s/lua/?/init.lua", root ? root : SPEC_SOURCE,
             root ? root : SPEC_SOURCE);
    err |= mp_mp_put_text(&b, path);
    err |= mp_mp_put_text(&b, "resources");
    err |= c.resources.size != 0 ? mp_mp_put_raw(&b, c.resources) : mp_mp_put_map(&b, 0);
    assert_int_equal(err, MP_OK);
    struct mp_msg_config m = {.size = (uint32_t)b.size};
    uint8_t *at = host_reserve(h, sizeof(m) + b.size, MP_MSG_CONFIG, 0);
    at = host_put(at, mp_slice_of(&m, sizeof(m)));
    host_put(at, mp_buf_slice(&b));
    mp_buf_fini(&b);
}

static inline void host_load_into(struct host *h, uint32_t unit, uint32_t module, const char *name,
                                  struct mp_slice source, uint16_t flags)
{
    struct mp_msg_load m = {.module = module,
                            .unit = unit,
                            .name_size = (uint32_t)strlen(name),
                            .source_size = (uint32_t)source.size};
    bool is_large = source.size >= MP_VALUE_INLINE_MAX;
    if (is_large) {
        m.at = mp_arena_take(h->arena, source.size, 0);
        assert_true(m.at != MP_ARENA_NONE);
        memcpy(mp_arena_at(h->arena, m.at), source.data, source.size);
        flags |= MP_RING_LARGE;
    }
    uint8_t *at =
        host_reserve(h, sizeof(m) + m.name_size + (is_large ? 0 : source.size), MP_MSG_LOAD, flags);
    at = host_put(at, mp_slice_of(&m, sizeof(m)));
    at = host_put(at, mp_slice_str(name));
    if (!is_large)
        host_put(at, source);
}

static inline void host_load_bytes(struct host *h, uint32_t module, const char *name,
                                   struct mp_slice source, uint16_t flags)
{
    host_load_into(h, 0, module, name, source, flags);
}

static inline void host_load(struct host *h, uint32_t module, const char *name, const char *source,
                             uint16_t flags)
{
    host_load_bytes(h, module, name, mp_slice_str(source), flags);
}

static inline void host_unload(struct host *h, uint32_t unit)
{
    struct mp_msg_unload m = {.unit = unit};
    host_put(host_reserve(h, sizeof(m), MP_MSG_UNLOAD, 0), mp_slice_of(&m, sizeof(m)));
}

static inline void host_release(struct host *h, uint16_t kind, uint32_t release,
                                struct mp_slice payload)
{
    struct mp_msg_release_set m = {.release = release, .size = (uint32_t)payload.size};
    uint8_t *at = host_reserve(h, sizeof(m) + payload.size, kind, 0);
    host_put(host_put(at, mp_slice_of(&m, sizeof(m))), payload);
}

/* Not yet visible; NULL if the ring is full. */
static inline struct mp_ring_record *host_invoke_in(struct host *h, uint32_t release, uint64_t call,
                                                    uint32_t module, uint32_t function,
                                                    struct mp_slice args)
{
    struct mp_msg_invoke m = {.call = call,
                              .module = module,
                              .function = function,
                              .release = release,
                              .deadline = UINT64_MAX,
                              .args_size = (uint32_t)args.size};
    bool is_large = args.size >= MP_VALUE_INLINE_MAX;
    if (is_large) {
        m.at = mp_arena_take(h->arena, args.size, 0);
        assert_true(m.at != MP_ARENA_NONE);
        memcpy(mp_arena_at(h->arena, m.at), args.data, args.size);
    }
    struct mp_ring_record *r =
        mp_ring_reserve(&h->channel.to_worker, (uint32_t)(sizeof(m) + (is_large ? 0 : args.size)),
                        MP_MSG_INVOKE, is_large ? MP_RING_LARGE : 0);
    if (!r)
        return NULL;
    uint8_t *at = host_put(mp_ring_body(r), mp_slice_of(&m, sizeof(m)));
    if (!is_large)
        host_put(at, args);
    return r;
}

static inline struct mp_ring_record *host_invoke(struct host *h, uint64_t call, uint32_t module,
                                                 uint32_t function, struct mp_slice args)
{
    return host_invoke_in(h, 0, call, module, function, args);
}

static inline void host_result(struct host *h, uint64_t nested, struct mp_slice value,
                               uint16_t flags)
{
    struct mp_msg_result m = {.nested = nested, .size = (uint32_t)value.size};
    uint8_t *at = host_reserve(h, sizeof(m) + value.size, MP_MSG_RESULT, flags);
    host_put(host_put(at, mp_slice_of(&m, sizeof(m))), value);
}

static inline void host_cancel(struct host *h, uint64_t call)
{
    struct mp_buf b;
    mp_buf_init(&b, &host_alloc, 0);
    struct mp_fault f = {.code = MP_CODE_CANCELLED, .message = mp_slice_str("it was cancelled")};
    assert_int_equal(mp_fault_put(&b, &f), MP_OK);
    struct mp_msg_cancel m = {.id = call, .size = (uint32_t)b.size};
    uint8_t *at = host_reserve(h, sizeof(m) + b.size, MP_MSG_CANCEL, 0);
    host_put(host_put(at, mp_slice_of(&m, sizeof(m))), mp_buf_slice(&b));
    mp_buf_fini(&b);
}

static inline void answer_fini(struct answer *a)
{
    mp_buf_fini(&a->lead);
    mp_buf_fini(&a->payload);
}

static inline void host_take_payload(struct host *h, struct answer *a, struct mp_slice in_place,
                                     uint32_t size, uint64_t at)
{
    struct mp_slice bytes = mp_slice_of(in_place.data, size);
    if (a->flags & MP_RING_LARGE) {
        assert_true(mp_arena_view_get(&h->worker_arena, at, size, &bytes));
    } else {
        assert_true(size <= in_place.size);
    }
    assert_int_equal(mp_buf_append(&a->payload, bytes), MP_OK);
    if (a->flags & MP_RING_LARGE) {
        struct mp_msg_release m = {.at = at};
        host_put(host_reserve(h, sizeof(m), MP_MSG_RELEASE, 0), mp_slice_of(&m, sizeof(m)));
        host_wake(h);
    }
}

static inline void host_read(struct host *h, struct mp_ring_record *r, struct answer *a)
{
    struct mp_slice body = mp_slice_of(mp_ring_body(r), r->size - sizeof(*r));
    *a = (struct answer){.kind = r->kind, .flags = r->flags};
    mp_buf_init(&a->lead, &host_alloc, 0);
    mp_buf_init(&a->payload, &host_alloc, 0);
    if (r->kind == MP_MSG_COMPLETED) {
        struct mp_msg_completed m;
        memcpy(&m, body.data, sizeof(m));
        a->id = m.call;
        a->run_ns = m.run_ns;
        host_take_payload(h, a, mp_slice_of(body.data + sizeof(m), body.size - sizeof(m)), m.size,
                          m.at);
    } else if (r->kind == MP_MSG_LOADED) {
        struct mp_msg_loaded m;
        memcpy(&m, body.data, sizeof(m));
        a->id = m.module;
        host_take_payload(h, a, mp_slice_of(body.data + sizeof(m), body.size - sizeof(m)), m.size,
                          m.at);
    } else if (r->kind == MP_MSG_NESTED) {
        struct mp_msg_nested m;
        memcpy(&m, body.data, sizeof(m));
        a->id = m.nested;
        a->parent = m.parent;
        a->options_size = m.options_size;
        size_t lead = m.options_size + m.fun_size;
        assert_true(sizeof(m) + lead <= body.size);
        assert_int_equal(mp_buf_append(&a->lead, mp_slice_of(body.data + sizeof(m), lead)), MP_OK);
        host_take_payload(h, a,
                          mp_slice_of(body.data + sizeof(m) + lead, body.size - sizeof(m) - lead),
                          m.args_size, m.at);
    } else if (r->kind == MP_MSG_PUBLISH) {
        struct mp_msg_publish m;
        memcpy(&m, body.data, sizeof(m));
        host_take_payload(h, a, mp_slice_of(body.data + sizeof(m), body.size - sizeof(m)), m.size,
                          m.at);
    } else if (r->kind == MP_MSG_NESTED_CANCEL || r->kind == MP_MSG_RELEASE) {
        memcpy(&a->id, body.data, sizeof(a->id));
        if (r->kind == MP_MSG_RELEASE)
            assert_true(mp_arena_give(h->arena, a->id));
    } else {
        assert_int_equal(r->kind, MP_MSG_LOG);
        struct mp_msg_log m;
        memcpy(&m, body.data, sizeof(m));
        a->id = m.call;
        a->level = m.level;
        host_take_payload(h, a, mp_slice_of(body.data + sizeof(m), body.size - sizeof(m)), m.size,
                          0);
    }
}

/* The next message that is no RELEASE; fails after a while. */
static inline struct answer host_next(struct host *h)
{
    uint64_t until = host_now() + HOST_WAIT_MS * 1000000ull;
    host_wake(h);
    for (;;) {
        struct mp_ring_record *r = mp_ring_next(&h->channel.to_host);
        if (r) {
            struct answer a;
            host_read(h, r, &a);
            mp_ring_release(&h->channel.to_host);
            if (a.kind != MP_MSG_RELEASE)
                return a;
            answer_fini(&a);
            continue;
        }
        assert_false(h->channel.to_host.is_broken);
        if (host_now() > until)
            fail_msg("nothing came from the worker");
        if (!mp_ring_prepare_sleep(&h->channel.to_host))
            continue;
        struct pollfd p = {.fd = h->wake_host, .events = POLLIN};
        poll(&p, 1, 100);
        uint64_t value;
        ssize_t n = read(h->wake_host, &value, sizeof(value));
        (void)n;
        mp_ring_wake(&h->channel.to_host);
        int status;
        if (waitpid(h->pid, &status, WNOHANG) == h->pid) {
            h->pid = 0;
            if (mp_ring_is_empty(&h->channel.to_host))
                fail_msg("the worker ended with status %d", status);
        }
    }
}

/* The next message, which must be of this kind; the others but logs fail the spec. */
static inline struct answer host_expect(struct host *h, uint16_t kind)
{
    for (;;) {
        struct answer a = host_next(h);
        if (a.kind == kind)
            return a;
        if (a.kind != MP_MSG_LOG)
            fail_msg("a message of kind %d came instead of %d", a.kind, kind);
        answer_fini(&a);
    }
}

/* Sends STOP and waits for the end: exit code 0. */
static inline void host_stop(struct host *h)
{
    if (h->pid != 0) {
        host_reserve(h, 0, MP_MSG_STOP, 0);
        host_wake(h);
        int status = 0;
        assert_int_equal(waitpid(h->pid, &status, 0), h->pid);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 0);
    }
    mp_arena_view_close(&h->worker_arena);
    mp_arena_free(h->arena);
    mp_channel_close(&h->channel);
    close(h->wake_worker);
    close(h->wake_host);
}
