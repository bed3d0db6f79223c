/* What the specs of runs say to nodes of the cluster harness, and what they look at; cmocka.h comes
 * before it. */
#pragma once

#include "spec/c/core/node/cluster_asserts.h"
#include "spec/support/tiny_json.h"
#include "src/core/graph/graph.h"

#define REF(path) "{\"$ref\":\"" path "\"}"
#define STEP(name, fun, on, args)                                                                  \
    "{\"name\":\"" name "\",\"call\":\"m." fun "\",\"on\":\"" on "\",\"args\":[" args "]}"
#define GRAPH(steps) "{\"name\":\"invented\",\"steps\":[" steps "]}"
#define QUICK        GRAPH(STEP("x", "echo", "a", "1"))
/* x, then y, then z, which the spec ends. */
#define CHAIN                                                                                      \
    GRAPH(STEP("x", "echo", "a", "1") "," STEP("y", "echo", "a",                                   \
                                               REF("x")) "," STEP("z", "slow", "a", REF("y")))

struct spec_id {
    char text[MP_RUN_ID_BYTES + 1];
};

/* `options`: JSON. */
static inline void begin_with(struct spec_cluster *c, uint64_t client, uint64_t id,
                              const char *payload, const char *options)
{
    struct spec_alloc counted = {.fail_at = SPEC_NEVER};
    struct mp_alloc alloc = spec_alloc_of(&counted);
    struct mp_buf b;
    struct mp_buf meta;
    mp_buf_init(&b, &alloc, 0);
    mp_buf_init(&meta, &alloc, 0);
    (void)tiny_read(payload, &b);
    MUST(mp_mp_put_array(&meta, 1) == MP_OK);
    (void)tiny_read(options, &meta);
    cluster_request(c, client, MP_NODE_RUN, id, mp_buf_slice(&meta), mp_buf_slice(&b));
    mp_buf_fini(&b);
    mp_buf_fini(&meta);
}

static inline void begin_run(struct spec_cluster *c, uint64_t client, uint64_t id,
                             const char *payload)
{
    begin_with(c, client, id, payload, "{}");
}

/* `from` NULL: what had not succeeded. */
static inline void resume(struct spec_cluster *c, uint64_t client, uint64_t id, struct spec_id run,
                          const char *from)
{
    char payload[160];
    if (from)
        snprintf(payload, sizeof(payload), "{\"resume\":\"%s\",\"from\":\"%s\"}", run.text, from);
    else
        snprintf(payload, sizeof(payload), "{\"resume\":\"%s\"}", run.text);
    begin_run(c, client, id, payload);
}

/* `options`: the rest of the map, as ",\"step\":\"x\"". */
static inline void ask_with(struct spec_cluster *c, uint64_t client, uint64_t id, const char *what,
                            struct spec_id run, const char *options)
{
    struct spec_alloc counted = {.fail_at = SPEC_NEVER};
    struct mp_alloc alloc = spec_alloc_of(&counted);
    struct mp_buf meta;
    char text[256];
    mp_buf_init(&meta, &alloc, 0);
    snprintf(text, sizeof(text), "[\"%s\",{\"run\":\"%s\"%s}]", what, run.text, options);
    (void)tiny_read(text, &meta);
    cluster_request(c, client, MP_NODE_QUERY, id, mp_buf_slice(&meta), (struct mp_slice){0});
    mp_buf_fini(&meta);
}

static inline void ask(struct spec_cluster *c, uint64_t client, uint64_t id, const char *what,
                       struct spec_id run)
{
    ask_with(c, client, id, what, run, "");
}

static inline void ask_result(struct spec_cluster *c, uint64_t client, uint64_t id,
                              struct spec_id run, const char *step)
{
    char options[96];
    snprintf(options, sizeof(options), ",\"step\":\"%s\"", step);
    ask_with(c, client, id, "result", run, options);
}

/* What stands at a path of a value, as JSON; one of a few buffers. */
static inline const char *show_value(struct mp_slice value, const char *path)
{
    static char texts[4][65536];
    static uint32_t next;
    char *text = texts[next++ % 4];
    struct spec_alloc counted = {.fail_at = SPEC_NEVER};
    struct mp_alloc alloc = spec_alloc_of(&counted);
    struct tiny_text t = {.at = text, .left = sizeof(texts[0])};
    struct mp_buf message;
    struct mp_slice found;
    mp_buf_init(&message, &alloc, 0);
    enum mp_err err =
        value.size == 0 ? MP_ENOENT : mp_graph_cut(value, mp_slice_str(path), &found, &message);
    mp_buf_fini(&message);
    if (err != MP_OK)
        return "(missing)";
    struct mp_mp_reader r = mp_mp_reader_of(found);
    tiny_write(&t, &r);
    return text;
}

/* The same of the answer to a request. */
static inline const char *show(struct spec_cluster *c, uint64_t client, uint64_t id,
                               const char *path)
{
    const struct spec_reply *r = cluster_answer(c, client, id);
    return r ? show_value(cluster_bytes(r), path) : "(no answer)";
}

static inline void assert_shows(struct spec_cluster *c, uint64_t client, uint64_t id,
                                const char *path, const char *wanted)
{
    const char *got = show(c, client, id, path);
    if (strcmp(got, wanted) != 0)
        fail_msg("request %d, %s: wanted %s, got %s (%s)", (int)id, path, wanted, got,
                 show(c, client, id, ".reason"));
}

static inline void assert_status(struct spec_cluster *c, uint64_t client, uint64_t id,
                                 const char *status)
{
    char wanted[40];
    snprintf(wanted, sizeof(wanted), "\"%s\"", status);
    assert_shows(c, client, id, ".status", wanted);
}

static inline struct spec_id id_in(struct mp_slice map)
{
    struct spec_id run = {{0}};
    struct mp_slice value;
    struct mp_slice text;
    assert_int_equal(mp_mp_map_get(map, mp_slice_str("run_id"), &value), MP_OK);
    assert_int_equal(mp_mp_get_str(value, &text), MP_OK);
    assert_int_equal(text.size, MP_RUN_ID_BYTES);
    memcpy(run.text, text.data, text.size);
    return run;
}

/* The run that a request began, as its answer says. */
static inline struct spec_id run_of(struct spec_cluster *c, uint64_t client, uint64_t id)
{
    const struct spec_reply *r = cluster_answer(c, client, id);
    assert_non_null(r);
    return id_in(cluster_bytes(r));
}

/* Begins one that nobody waits for. */
static inline struct spec_id begin_detached(struct spec_cluster *c, uint64_t client, uint64_t id,
                                            const char *graph)
{
    begin_with(c, client, id, graph, "{\"detach\":true}");
    return run_of(c, client, id);
}

/* --- events --- */

/* The n-th event (from 1) that a request was told; NULL: so many there are not. */
static inline const struct spec_reply *event_of(struct spec_cluster *c, uint64_t client,
                                                uint64_t id, uint32_t n)
{
    for (uint32_t i = 0; i < c->reply_count; i++) {
        const struct spec_reply *r = &c->replies[i];
        if (r->client == client && r->id == id && r->frame == MP_FRAME_EVENT && --n == 0)
            return r;
    }
    return NULL;
}

static inline int64_t seq_of(const struct spec_reply *r)
{
    int64_t seq = 0;
    struct mp_slice value;
    assert_int_equal(mp_mp_map_get(cluster_bytes(r), mp_slice_str("seq"), &value), MP_OK);
    assert_int_equal(mp_mp_get_int(value, &seq), MP_OK);
    return seq;
}

/* Since the run began. */
static inline mp_duration at_of(const struct spec_reply *r)
{
    double ms = 0;
    struct mp_slice value;
    assert_int_equal(mp_mp_map_get(cluster_bytes(r), mp_slice_str("at_ms"), &value), MP_OK);
    assert_int_equal(mp_mp_get_number(value, &ms), MP_OK);
    return (mp_duration)(ms * 1e6 + 0.5);
}

/* How many events a request was told: in order, without gaps, from `first` on, and none behind its
 * answer. */
static inline uint32_t events_from(struct spec_cluster *c, uint64_t client, uint64_t id,
                                   int64_t first)
{
    uint32_t count = 0;
    bool is_answered = false;
    for (uint32_t i = 0; i < c->reply_count; i++) {
        const struct spec_reply *r = &c->replies[i];
        if (r->client != client || r->id != id)
            continue;
        assert_false(is_answered);
        is_answered = r->frame != MP_FRAME_EVENT;
        if (!is_answered)
            assert_int_equal(seq_of(r), first + count++);
    }
    return count;
}

static inline uint32_t events(struct spec_cluster *c, uint64_t client, uint64_t id)
{
    return events_from(c, client, id, 1);
}

/* Two requests were told the same, byte by byte, from an event on. */
static inline void assert_same_events(struct spec_cluster *c, uint64_t client, uint64_t id,
                                      uint64_t other, uint64_t other_id, uint32_t from)
{
    for (uint32_t n = from;; n++) {
        const struct spec_reply *a = event_of(c, client, id, n);
        const struct spec_reply *b = event_of(c, other, other_id, n + 1 - from);
        assert_true((a == NULL) == (b == NULL));
        if (!a)
            return;
        assert_int_equal(a->size, b->size);
        assert_memory_equal(a->data, b->data, a->size);
    }
}

static inline void press(struct spec_cluster *c, uint32_t node, uint64_t client, bool is_high)
{
    const struct mp_node_event ev = {.kind = MP_NODE_PRESSURE,
                                     .pressure = {.client = client, .is_high = is_high}};
    cluster_step(c, node, &ev);
}

/* A client goes away. */
static inline void leave(struct spec_cluster *c, uint64_t client)
{
    cluster_close(c, client);
    cluster_run(c, MP_MS(1));
}

/* --- workers and nodes --- */

static inline void finish(struct spec_cluster *c, uint32_t node)
{
    assert_true(cluster_finish(c, node, SPEC_SLOW));
    cluster_run(c, MP_MS(5));
}

/* The slow call of a node fails. */
static inline void fail_slow(struct spec_cluster *c, uint32_t node)
{
    struct spec_task *t = cluster_task_of(c, node, SPEC_SLOW);
    assert_non_null(t);
    cluster_fail_task(c, node, t, MP_CODE_INTERNAL, "ERROR");
    cluster_run(c, MP_MS(5));
}

/* Dies and comes back, with what is on its disk. */
static inline void reboot(struct spec_cluster *c, uint32_t node, const char *name)
{
    cluster_kill(c, node);
    cluster_run(c, MP_MS(1));
    cluster_boot(c, node, &(struct spec_boot){.name = name});
    cluster_add_module(c, node, "m");
    for (uint32_t i = 0; i < c->count; i++)
        if (i != node && c->nodes[i].node)
            cluster_seed(c, node, i, cluster_address(i));
    cluster_run(c, MP_SECONDS(3));
}

/* How often a function began anywhere. */
static inline uint32_t begins(const struct spec_cluster *c, enum spec_function function)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < SPEC_NODES_MAX; i++)
        count += c->nodes[i].begins[function];
    return count;
}
