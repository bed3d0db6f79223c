/* A whole host with a script in place of the core: this file has the functions of core/node/node.h
 * that the host calls, so the archive's are not linked. A spec's script hears every event, and the
 * effects that it emits are carried out. Workers are stand-ins too (fake_worker): they answer LOADs
 * as the sources tell them to, and write down what they got. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "src/check/check.h"
#include "src/host/host_internal.h"
#include "src/wire/error.h"
#include "src/wire/msgpack.h"

#define SEEN_MAX    256
#define EFFECTS_MAX 256

/* An event of `stored`, copied. */
struct seen {
    enum mp_node_event_kind kind;
    uint64_t ticket;
    bool is_missing;
    bool is_error;
    uint32_t unit;
    uint32_t first_module;
    uint8_t hash[MP_UNIT_HASH_BYTES];
    uint8_t *bytes;
    size_t size;
    char code[32];
    char reason[32];
    char message[512];
    mp_time at;
};

static struct {
    char dir[64];
    char data[96];
    uint32_t workers;
    bool is_over;
    uint32_t deaths;
    uint32_t ready;
    bool is_start_seen;
    void (*on_event)(const struct mp_node_event *ev, const struct seen *s);
    mp_time deadline;
    struct seen seen[SEEN_MAX];
    uint32_t seen_count;
    struct mp_node_effect effects[EFFECTS_MAX];
    uint8_t *owned[2 * EFFECTS_MAX];
    uint32_t effect_count;
    uint32_t owned_count;
} spec;

struct mp_node {
    int nothing;
};

/* --- what scripts use --- */

static inline struct mp_slice own_bytes(struct mp_slice s)
{
    uint8_t *copy = (uint8_t *)malloc(s.size + 1);
    if (s.size != 0)
        memcpy(copy, s.data, s.size);
    spec.owned[spec.owned_count++] = copy;
    return mp_slice_of(copy, s.size);
}

static inline struct mp_node_effect *emit(enum mp_node_effect_kind kind)
{
    struct mp_node_effect *e = &spec.effects[spec.effect_count++];
    *e = (struct mp_node_effect){.kind = kind};
    return e;
}

static inline void emit_with(enum mp_node_effect_kind kind, uint64_t ticket, struct mp_slice bytes,
                             struct mp_slice context)
{
    struct mp_node_effect *e = emit(kind);
    e->id = ticket;
    e->payload.bytes = own_bytes(bytes);
    e->context = own_bytes(context);
}

static inline void end(void)
{
    spec.is_over = true;
    emit(MP_NODE_DRAINED);
}

/* --- the core --- */

enum mp_err mp_node_new(struct mp_node **own_out, const struct mp_node_config *cfg,
                        struct mp_alloc *a, uint64_t seed)
{
    (void)a;
    (void)seed;
    spec.workers = cfg->workers;
    *own_out = (struct mp_node *)calloc(1, sizeof(**own_out));
    return MP_OK;
}

static inline void see(const struct mp_node_event *ev, mp_time now)
{
    struct seen *s = &spec.seen[spec.seen_count++];
    struct mp_fault fault = {0};
    assert_true(spec.seen_count < SEEN_MAX);
    *s = (struct seen){.kind = ev->kind,
                       .ticket = ev->stored.ticket,
                       .is_missing = ev->stored.is_missing,
                       .is_error = ev->stored.is_error,
                       .unit = ev->stored.unit,
                       .first_module = ev->stored.first_module,
                       .size = ev->stored.bytes.size,
                       .at = now};
    memcpy(s->hash, ev->stored.hash, sizeof(s->hash));
    s->bytes = (uint8_t *)malloc(s->size + 1);
    if (s->size != 0)
        memcpy(s->bytes, ev->stored.bytes.data, s->size);
    if (s->is_error && mp_fault_read(ev->stored.bytes, &fault) == MP_OK) {
        snprintf(s->code, sizeof(s->code), "%s", mp_code_name(fault.code));
        snprintf(s->reason, sizeof(s->reason), "%.*s", (int)fault.reason.size,
                 (const char *)fault.reason.data);
        snprintf(s->message, sizeof(s->message), "%.*s", (int)fault.message.size,
                 (const char *)fault.message.data);
    }
}

enum mp_err mp_node_step(struct mp_node *n, mp_time now, const struct mp_node_event *ev,
                         struct mp_node_effects *out)
{
    (void)n;
    bool is_stored = ev->kind == MP_NODE_RESTORED || ev->kind == MP_NODE_CHECKED ||
                     ev->kind == MP_NODE_KEPT || ev->kind == MP_NODE_FOUND ||
                     ev->kind == MP_NODE_LOADED;
    while (spec.owned_count > 0)
        free(spec.owned[--spec.owned_count]);
    spec.effect_count = 0;
    if (is_stored)
        see(ev, now);
    if (ev->kind == MP_NODE_START) {
        spec.is_start_seen = true;
        for (uint32_t i = 0; i < spec.workers; i++)
            emit(MP_NODE_WORKER_START)->worker = i;
    }
    if (ev->kind == MP_NODE_WORKER_READY)
        spec.ready++;
    if (ev->kind == MP_NODE_WORKER_DIED) {
        spec.deaths++;
        if (!spec.is_over)
            emit(MP_NODE_WORKER_START)->worker = ev->worker.worker;
    }
    if (ev->kind == MP_NODE_TIMER)
        spec.deadline = MP_NEVER;
    if (!spec.is_over)
        spec.on_event(ev, is_stored ? &spec.seen[spec.seen_count - 1] : NULL);
    *out = (struct mp_node_effects){.items = spec.effects, .count = spec.effect_count};
    return MP_OK;
}

mp_time mp_node_deadline(const struct mp_node *n)
{
    (void)n;
    return spec.deadline;
}

void mp_node_free(struct mp_node *n)
{
    free(n);
}

bool mp_node_worker_has(const struct mp_node *n, uint32_t worker, uint64_t call)
{
    (void)n;
    (void)worker;
    return call != 0;
}

bool mp_node_has_code(const struct mp_node *n)
{
    (void)n;
    return true;
}

uint32_t mp_node_outstanding(const struct mp_node *n)
{
    (void)n;
    return 0;
}

struct mp_slice mp_node_function_of(const struct mp_node *n, uint64_t call)
{
    (void)n;
    (void)call;
    return mp_slice_of(NULL, 0);
}

/* --- a worker --- */

struct fake_worker {
    struct mp_channel channel;
    struct mp_arena_view arena;
    int64_t place; /* from 1 */
    int log;
};

static inline void fake_log(const struct fake_worker *w, const char *format, ...)
{
    char line[512];
    va_list args;
    int size = snprintf(line, sizeof(line), "w%d ", (int)w->place);
    va_start(args, format);
    size += vsnprintf(line + size, sizeof(line) - (size_t)size - 1, format, args);
    va_end(args);
    line[size++] = '\n';
    if (write(w->log, line, (size_t)size) != size)
        abort();
}

static inline void fake_wait(long ms)
{
    const struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    nanosleep(&t, NULL);
}

static inline void fake_answer(struct fake_worker *w, uint16_t kind, uint16_t flags,
                               struct mp_slice head, struct mp_slice payload)
{
    const uint64_t one = 1;
    uint32_t size = (uint32_t)(head.size + payload.size);
    struct mp_ring_record *r = mp_ring_reserve(&w->channel.to_host, size, kind, flags);
    if (!r)
        abort();
    memcpy(mp_ring_body(r), head.data, head.size);
    memcpy(mp_ring_body(r) + head.size, payload.data, payload.size);
    if (mp_ring_publish(&w->channel.to_host) &&
        write(MP_WORKER_FD_WAKE_HOST, &one, sizeof(one)) != sizeof(one))
        abort();
}

static inline bool has_word(struct mp_slice s, const char *word)
{
    return memmem(s.data, s.size, word, strlen(word)) != NULL;
}

static inline void fake_load(struct fake_worker *w, const struct mp_ring_record *record,
                             const uint8_t *body)
{
    static const uint8_t described[] = "\x81\xa9"
                                       "functions\x90";
    static const uint8_t nothing[] = "\xc0";
    static const uint8_t error[] = "\x82\xa4"
                                   "code\xb0INVALID_ARGUMENT\xa6reason\xaaLOAD_ERROR";
    struct mp_msg_load m;
    memcpy(&m, body, sizeof(m));
    struct mp_slice name = mp_slice_of(body + sizeof(m), m.name_size);
    struct mp_slice source = mp_slice_of(name.data + m.name_size + m.expected_size, m.source_size);
    bool is_large = (record->flags & MP_RING_LARGE) != 0;
    if (is_large && !mp_arena_view_get(&w->arena, m.at, m.source_size, &source))
        abort();
    fake_log(w, "LOAD unit=%u module=%u name=%.*s expected=%u size=%u sum=%llx large=%d more=%d",
             m.unit, m.module, (int)name.size, (const char *)name.data, m.expected_size,
             m.source_size, (unsigned long long)mp_slice_hash(source, 0), is_large,
             (record->flags & MP_RING_MORE) != 0);
    if (has_word(source, "CRASH") || (has_word(source, "LATER") && access("crash", F_OK) == 0)) {
        atomic_store(&w->channel.status->running, MP_CHANNEL_LOADING | m.module);
        kill(getpid(), SIGKILL);
    }
    if (has_word(source, "SLOW"))
        fake_wait(700);
    if (is_large) {
        const struct mp_msg_release release = {.at = m.at};
        fake_answer(w, MP_MSG_RELEASE, 0, mp_slice_of(&release, sizeof(release)),
                    mp_slice_of(nothing, 0));
    }
    struct mp_slice payload = mp_slice_of(nothing, 1);
    bool is_error = has_word(source, "FAIL");
    if (is_error)
        payload = mp_slice_of(error, sizeof(error) - 1);
    else if (record->flags & MP_RING_DESCRIBE)
        payload = mp_slice_of(described, sizeof(described) - 1);
    const struct mp_msg_loaded answer = {.module = m.module, .size = (uint32_t)payload.size};
    fake_answer(w, MP_MSG_LOADED, is_error ? MP_RING_ERROR : 0,
                mp_slice_of(&answer, sizeof(answer)), payload);
}

static inline void fake_invoke(struct fake_worker *w, const uint8_t *body)
{
    struct mp_msg_invoke m;
    memcpy(&m, body, sizeof(m));
    fake_log(w, "INVOKE module=%u release=%u", m.module, m.release);
    if (m.function != 7)
        return;
    atomic_store(&w->channel.status->running_since, mp_host_clock());
    atomic_store(&w->channel.status->running, m.call);
    fake_wait(700);
    atomic_store(&w->channel.status->running, 0);
}

static inline void fake_message(struct fake_worker *w, struct mp_ring_record *record)
{
    const uint8_t *body = mp_ring_body(record);
    struct mp_msg_config config;
    struct mp_msg_unload unload;
    struct mp_msg_release_set set;
    struct mp_slice value;
    switch (record->kind) {
    case MP_MSG_CONFIG:
        memcpy(&config, body, sizeof(config));
        if (mp_mp_map_get(mp_slice_of(body + sizeof(config), config.size), mp_slice_str("worker"),
                          &value) != MP_OK ||
            mp_mp_get_int(value, &w->place) != MP_OK)
            abort();
        fake_log(w, "CONFIG");
        break;
    case MP_MSG_LOAD:
        fake_load(w, record, body);
        break;
    case MP_MSG_INVOKE:
        fake_invoke(w, body);
        break;
    case MP_MSG_UNLOAD:
        memcpy(&unload, body, sizeof(unload));
        fake_log(w, "UNLOAD unit=%u", unload.unit);
        break;
    case MP_MSG_OPEN_RELEASE:
    case MP_MSG_CLOSE_RELEASE:
        memcpy(&set, body, sizeof(set));
        fake_log(w, "%s release=%u size=%u sum=%llx",
                 record->kind == MP_MSG_OPEN_RELEASE ? "OPEN" : "CLOSE", set.release, set.size,
                 (unsigned long long)mp_slice_hash(mp_slice_of(body + sizeof(set), set.size), 0));
        break;
    case MP_MSG_STOP:
        _exit(0);
    default:
        break;
    }
}

static inline int fake_worker_main(void)
{
    struct fake_worker w = {.log = open("workers", O_WRONLY | O_APPEND | O_CREAT, 0600)};
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (w.log < 0 || mp_channel_open(&w.channel, MP_WORKER_FD_CHANNEL) != MP_OK ||
        mp_arena_view_open(&w.arena, MP_WORKER_FD_HOST_ARENA) != MP_OK)
        abort();
    for (;;) {
        struct mp_ring_record *record = mp_ring_next(&w.channel.to_worker);
        if (!record) {
            fake_wait(1);
            continue;
        }
        fake_message(&w, record);
        mp_ring_release(&w.channel.to_worker);
    }
}

/* What a process of the spec is, see host's spawn; false: the spec itself. */
static inline bool is_child(int argc, char **argv, int *code)
{
    if (argc > 0 && strcmp(argv[0], "mpreg-worker") == 0)
        *code = fake_worker_main();
    else if (argc > 0 && strcmp(argv[0], "mpreg-check") == 0)
        *code = mp_check_main(argc, argv);
    else
        return false;
    return true;
}

/* --- running it --- */

static inline void put_file(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static inline int set_up(void **state)
{
    (void)state;
    memset(&spec, 0, sizeof(spec));
    snprintf(spec.dir, sizeof(spec.dir), "/tmp/mpreg-host-test-XXXXXX");
    assert_non_null(mkdtemp(spec.dir));
    assert_int_equal(chdir(spec.dir), 0); /* children's too */
    snprintf(spec.data, sizeof(spec.data), "%s/data", spec.dir);
    assert_int_equal(mkdir("modules", 0700), 0);
    put_file("modules/own.lua", "return {}");
    return 0;
}

static inline void forget_seen(void)
{
    for (uint32_t i = 0; i < spec.seen_count; i++)
        free(spec.seen[i].bytes);
    spec.seen_count = 0;
}

static inline int remove_one(const char *path, const struct stat *st, int type, struct FTW *place)
{
    (void)st;
    (void)type;
    (void)place;
    return remove(path);
}

static inline int tear_down(void **state)
{
    (void)state;
    forget_seen();
    while (spec.owned_count > 0)
        free(spec.owned[--spec.owned_count]);
    assert_int_equal(chdir("/"), 0);
    assert_int_equal(nftw(spec.dir, remove_one, 8, FTW_DEPTH | FTW_PHYS), 0);
    return 0;
}

/* Runs a node until the script calls end(). */
static inline void run_host(uint32_t workers,
                            void (*on_event)(const struct mp_node_event *ev, const struct seen *s))
{
    const struct mp_host_resource resources[] = {
        {.name = mp_slice_str("gpu")},
        {.name = mp_slice_str("data"), .value = mp_slice_str("\x81\xa4path\xa5there")}};
    const struct mp_host_config cfg = {.name = "n1",
                                       .cluster = "c",
                                       .host = "127.0.0.1",
                                       .data_dir = spec.data,
                                       .workers = workers,
                                       .modules_dir = "modules",
                                       .lua_dir = "lua",
                                       .resources = resources,
                                       .resource_count = MP_ARRAY_SIZE(resources),
                                       .worker_memory = MP_WORKER_MEMORY_BYTES,
                                       .value_max = MP_VALUE_BYTES_MAX,
                                       .drain_ms = 1000,
                                       .log_level = getenv("SPEC_LOG") ? 0 : 9};
    spec.on_event = on_event;
    spec.deadline = MP_NEVER;
    spec.is_over = false;
    spec.is_start_seen = false;
    spec.ready = 0;
    /* The line that says that it is ready is none of the spec's. */
    fflush(stdout);
    int kept = dup(1);
    int null = open("/dev/null", O_WRONLY);
    assert_true(kept >= 0 && null >= 0 && dup2(null, 1) == 1);
    int code = mp_host_run(&cfg);
    fflush(stdout);
    assert_int_equal(dup2(kept, 1), 1);
    close(kept);
    close(null);
    assert_int_equal(code, 0);
}

/* What workers wrote down so far; borrowed until it is asked for again. */
static inline const char *worker_log(void)
{
    static char text[1 << 20];
    int fd = open("workers", O_RDONLY);
    ssize_t size = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);
    text[size < 0 ? 0 : size] = '\0';
    if (fd >= 0)
        close(fd);
    return text;
}

static inline uint32_t count_lines(const char *part)
{
    uint32_t count = 0;
    for (const char *at = worker_log(); (at = strstr(at, part)) != NULL; at++)
        count++;
    return count;
}
