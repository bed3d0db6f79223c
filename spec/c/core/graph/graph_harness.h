/* A graph machine for specs, driven by hand: the calls it hands out are kept in a list, the spec
 * answers them by the step's name, and looks at what came out by paths. Time moves only when told.
 */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "spec/support/alloc.h"
#include "spec/support/tiny_json.h"
#include "src/core/graph/graph_internal.h"

#define HARNESS_CALLS_MAX 70000

struct harness_call {
    uint64_t invocation;
    char step[72];
    uint32_t index;
    uint32_t attempt;
    mp_time deadline;
    struct mp_slice args; /* owned */
    bool is_cancelled;
    bool is_answered;
    bool has_holes;
};

struct harness_fetch {
    uint64_t fetch;
    char node[72];
    uint64_t held;
    uint64_t bytes;
    bool is_answered;
};

struct harness {
    struct spec_alloc counted; /* the machine's memory */
    struct spec_alloc plain;
    struct mp_alloc alloc;
    struct mp_alloc plain_alloc;
    struct mp_graph_config cfg;
    struct mp_buf graph;
    struct mp_buf input;
    struct mp_graph *g;
    mp_time now;
    struct harness_call *calls;
    uint32_t count;
    struct harness_fetch fetches[256];
    uint32_t fetches_count;
    const char *once;    /* a step that is not idempotent; the others are */
    struct mp_slice run; /* owned */
    struct mp_slice refused;
    struct mp_buf events; /* as they were told */
    uint64_t seq;         /* of the last of them */
    bool has_missed;      /* for lack of memory */
    bool is_unconfirmed;  /* answers from now on: something of the calls may go on */
    enum mp_graph_status status;
    enum mp_err err; /* of the last step */
    uint32_t workers;
    uint64_t seed;
    const char *refuse_step; /* the resolver knows no function of this step */
    char text[65536];
};

static inline struct mp_slice harness_copy(struct mp_slice s)
{
    uint8_t *p = (uint8_t *)malloc(s.size + 1);
    memcpy(p, s.data, s.size);
    return mp_slice_of(p, s.size);
}

/* An empty harness; change cfg before harness_load. */
static inline struct harness *harness_new(void)
{
    struct harness *h = (struct harness *)calloc(1, sizeof(*h));
    h->counted.fail_at = SPEC_NEVER;
    h->plain.fail_at = SPEC_NEVER;
    h->alloc = spec_alloc_of(&h->counted);
    h->plain_alloc = spec_alloc_of(&h->plain);
    h->cfg = (struct mp_graph_config){.run_id = mp_slice_str("01KBSPEC"),
                                      .node = mp_slice_str("n1"),
                                      .steps_max = 100000,
                                      .value_bytes_max = 64u << 20,
                                      .kept_bytes_max = 256u << 20,
                                      .timeout = MP_SECONDS(3600)};
    h->calls = (struct harness_call *)calloc(HARNESS_CALLS_MAX, sizeof(*h->calls));
    h->now = MP_SECONDS(5);
    h->workers = 1;
    h->seed = 1;
    mp_buf_init(&h->graph, &h->plain_alloc, 0);
    mp_buf_init(&h->input, &h->plain_alloc, 0);
    mp_buf_init(&h->events, &h->plain_alloc, 0);
    return h;
}

/* Reads the events that are new, as a watcher does who was there from the start. */
static inline void harness_watch(struct harness *h)
{
    while (h->err == MP_OK && h->seq < mp_graph_event_count(h->g)) {
        size_t before = h->events.size;
        enum mp_err err = mp_graph_put_event(h->g, ++h->seq, &h->events);
        h->has_missed |= err == MP_ENOMEM;
        assert_true(err == MP_OK || err == MP_ENOMEM);
        assert_int_equal(mp_mp_check(mp_slice_of(h->events.data + before, h->events.size - before)),
                         err == MP_OK ? MP_OK : MP_ECORRUPT);
    }
}

/* Whoever comes late is told the same. Not asked where a step ran again, or where a value came that
 * had been held: in these specs it is smaller than its form says. */
static inline void harness_watch_again(struct harness *h)
{
    struct mp_buf late;
    mp_buf_init(&late, &h->plain_alloc, 0);
    assert_int_equal(h->seq, mp_graph_event_count(h->g));
    for (uint64_t seq = 1; seq <= h->seq; seq++)
        assert_int_equal(mp_graph_put_event(h->g, seq, &late), MP_OK);
    assert_int_equal(late.size, h->events.size);
    assert_memory_equal(late.data, h->events.data, late.size);
    assert_int_equal(mp_graph_put_event(h->g, 0, &late), MP_EINVAL);
    assert_int_equal(mp_graph_put_event(h->g, h->seq + 1, &late), MP_EINVAL);
    mp_buf_fini(&late);
}

static inline void harness_free(struct harness *h)
{
    if (h->g) {
        if (h->seq != 0 && !h->has_missed && !h->g->has_rerun && h->fetches_count == 0 &&
            h->err == MP_OK)
            harness_watch_again(h);
        mp_graph_fini(h->g);
        free(h->g);
        if (h->counted.live_bytes != 0)
            fail_msg("%zu bytes are left over", h->counted.live_bytes);
    }
    for (uint32_t i = 0; i < h->count; i++)
        free((void *)(uintptr_t)h->calls[i].args.data);
    free(h->calls);
    free((void *)(uintptr_t)h->run.data);
    free((void *)(uintptr_t)h->refused.data);
    mp_buf_fini(&h->graph);
    mp_buf_fini(&h->input);
    mp_buf_fini(&h->events);
    free(h);
}

static inline void harness_take(struct harness *h, const struct mp_graph_effects *effects)
{
    for (uint32_t i = 0; i < effects->count; i++) {
        const struct mp_graph_effect *e = &effects->items[i];
        assert_int_equal(h->run.size + h->refused.size, 0); /* the last effect is the last */
        if (e->kind == MP_GRAPH_INVOKE) {
            assert_true(h->count < HARNESS_CALLS_MAX);
            struct harness_call *c = &h->calls[h->count++];
            c->invocation = e->invoke.invocation;
            c->index = e->invoke.index;
            c->attempt = e->invoke.attempt;
            c->deadline = e->invoke.deadline;
            c->has_holes = e->invoke.has_holes;
            c->args = harness_copy(e->invoke.args);
            assert_int_equal(mp_mp_check(c->args), MP_OK);
            memcpy(c->step, e->invoke.name.data, e->invoke.name.size);
        } else if (e->kind == MP_GRAPH_CANCEL) {
            for (uint32_t k = 0; k < h->count; k++)
                h->calls[k].is_cancelled |= h->calls[k].invocation == e->cancel.invocation;
        } else if (e->kind == MP_GRAPH_FETCH) {
            assert_true(h->fetches_count < MP_ARRAY_SIZE(h->fetches));
            struct harness_fetch *f = &h->fetches[h->fetches_count++];
            *f = (struct harness_fetch){
                .fetch = e->fetch.fetch, .held = e->fetch.held, .bytes = e->fetch.bytes};
            memcpy(f->node, e->fetch.node.data, e->fetch.node.size);
        } else if (e->kind == MP_GRAPH_REFUSED) {
            assert_int_equal(mp_mp_check(e->refused.error), MP_OK);
            h->refused = harness_copy(e->refused.error);
        } else if (e->kind == MP_GRAPH_FINISHED) {
            assert_int_equal(mp_mp_check(e->finished.run), MP_OK);
            h->run = harness_copy(e->finished.run);
            h->status = e->finished.status;
        }
    }
}

static inline enum mp_err harness_step(struct harness *h, const struct mp_graph_event *ev)
{
    struct mp_graph_effects effects;
    h->err = mp_graph_step(h->g, h->now, ev, &effects);
    harness_watch(h);
    harness_take(h, &effects);
    return h->err;
}

/* LOAD and RESOLVED of the graph in h->graph. */
static inline void harness_load_bytes(struct harness *h)
{
    struct mp_graph_effects effects;
    struct mp_graph_event ev = {.kind = MP_GRAPH_LOAD};
    h->g = (struct mp_graph *)aligned_alloc(16, mp_graph_size());
    h->err = mp_graph_init(h->g, &h->cfg, &h->alloc, h->seed);
    if (h->err != MP_OK) {
        free(h->g);
        h->g = NULL;
        return;
    }
    ev.load.graph = mp_buf_slice(&h->graph);
    ev.load.input = mp_buf_slice(&h->input);
    h->err = mp_graph_step(h->g, h->now, &ev, &effects);
    uint32_t count = effects.count;
    struct mp_graph_effect *items = (struct mp_graph_effect *)calloc(count + 1, sizeof(*items));
    if (count != 0)
        memcpy(items, effects.items, count * sizeof(*items));
    for (uint32_t i = 0; i < count; i++) {
        if (items[i].kind != MP_GRAPH_RESOLVE) {
            struct mp_graph_effects one = {.items = &items[i], .count = 1};
            harness_take(h, &one);
            continue;
        }
        ev = (struct mp_graph_event){.kind = MP_GRAPH_RESOLVED};
        ev.resolved.step = items[i].resolve.step;
        ev.resolved.version = mp_slice_str("1.2.0");
        ev.resolved.node = mp_slice_str("n1");
        ev.resolved.workers = h->workers;
        ev.resolved.is_idempotent = !h->once || !mp_slice_is(items[i].resolve.name, h->once);
        if (h->refuse_step && mp_slice_is(items[i].resolve.name, h->refuse_step)) {
            ev.resolved.is_refused = true;
            ev.resolved.fault = (struct mp_fault){.code = MP_CODE_NOT_FOUND,
                                                  .reason = mp_slice_str("UNKNOWN_FUNCTION"),
                                                  .message = mp_slice_str("nobody has it")};
        }
        if (harness_step(h, &ev) != MP_OK || h->refused.size != 0)
            break;
    }
    free(items);
}

static inline void harness_start(struct harness *h)
{
    struct mp_graph_event ev = {.kind = MP_GRAPH_START};
    if (h->refused.size == 0 && h->err == MP_OK)
        harness_step(h, &ev);
}

/* Loads and starts a graph. */
static inline void harness_begin(struct harness *h, const char *json)
{
    tiny_read(json, &h->graph);
    harness_load_bytes(h);
    if (h->g)
        harness_start(h);
}

static inline struct harness *harness_run(const char *json)
{
    struct harness *h = harness_new();
    harness_begin(h, json);
    return h;
}

/* The oldest unanswered call of a step (and element); NULL if there is none. */
static inline struct harness_call *harness_find(struct harness *h, const char *step, uint32_t index)
{
    for (uint32_t i = 0; i < h->count; i++)
        if (!h->calls[i].is_answered && strcmp(h->calls[i].step, step) == 0 &&
            h->calls[i].index == index)
            return &h->calls[i];
    return NULL;
}

static inline uint32_t harness_open(const struct harness *h)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < h->count; i++)
        count += !h->calls[i].is_answered && !h->calls[i].is_cancelled;
    return count;
}

static inline void harness_complete_bytes(struct harness *h, struct harness_call *c,
                                          struct mp_slice value)
{
    struct mp_graph_event ev = {.kind = MP_GRAPH_COMPLETED};
    c->is_answered = true;
    ev.completed.invocation = c->invocation;
    ev.completed.value = value;
    ev.completed.node = mp_slice_str("n1");
    ev.completed.version = mp_slice_str("1.2.0");
    ev.completed.worker = 1;
    ev.completed.bytes_in = 5;
    ev.completed.is_unconfirmed = h->is_unconfirmed;
    ev.completed.timing =
        (struct mp_graph_timing){.queue = MP_US(100), .network = MP_US(20), .run = MP_MS(2)};
    harness_step(h, &ev);
}

static inline void harness_complete_at(struct harness *h, const char *step, uint32_t index,
                                       const char *json)
{
    struct mp_buf value;
    struct harness_call *c = harness_find(h, step, index);
    if (!c)
        fail_msg("step %s (element %u) was not handed out", step, index);
    mp_buf_init(&value, &h->plain_alloc, 0);
    tiny_read(json, &value);
    harness_complete_bytes(h, c, mp_buf_slice(&value));
    mp_buf_fini(&value);
}

static inline void harness_complete(struct harness *h, const char *step, const char *json)
{
    harness_complete_at(h, step, 0, json);
}

/* The step's result stays on `node` under the number `held`. */
static inline void harness_hold_at(struct harness *h, const char *step, uint32_t index,
                                   const char *node, uint64_t held, uint64_t bytes)
{
    struct mp_buf form;
    struct mp_graph_event ev = {.kind = MP_GRAPH_COMPLETED};
    struct harness_call *c = harness_find(h, step, index);
    if (!c)
        fail_msg("step %s (element %u) was not handed out", step, index);
    mp_buf_init(&form, &h->plain_alloc, 0);
    tiny_read("{\"$large\":{\"bytes\":70000,\"type\":\"map\",\"preview\":\"{\"}}", &form);
    c->is_answered = true;
    ev.completed.invocation = c->invocation;
    ev.completed.value = mp_buf_slice(&form);
    ev.completed.node = mp_slice_str(node);
    ev.completed.version = mp_slice_str("1.2.0");
    ev.completed.worker = 1;
    ev.completed.bytes_moved = 7;
    ev.completed.is_held = true;
    ev.completed.held = held;
    ev.completed.held_bytes = bytes;
    ev.completed.timing = (struct mp_graph_timing){.network = MP_US(20), .run = MP_MS(2)};
    harness_step(h, &ev);
    mp_buf_fini(&form);
}

static inline void harness_hold(struct harness *h, const char *step, const char *node,
                                uint64_t held)
{
    harness_hold_at(h, step, 0, node, held, 70000);
}

static inline uint32_t harness_fetching(const struct harness *h)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < h->fetches_count; i++)
        count += !h->fetches[i].is_answered;
    return count;
}

/* Answers the oldest open FETCH of `held`: with the value, or as lost. */
static inline void harness_fetched(struct harness *h, uint64_t held, const char *json)
{
    struct mp_graph_event ev = {.kind = MP_GRAPH_FETCHED};
    struct mp_buf value;
    struct harness_fetch *f = NULL;
    for (uint32_t i = h->fetches_count; i > 0; i--)
        if (h->fetches[i - 1].held == held && !h->fetches[i - 1].is_answered)
            f = &h->fetches[i - 1];
    if (!f)
        fail_msg("%llu is not fetched", (unsigned long long)held);
    mp_buf_init(&value, &h->plain_alloc, 0);
    f->is_answered = true;
    ev.fetched.fetch = f->fetch;
    ev.fetched.is_lost = !json;
    if (json)
        tiny_read(json, &value);
    ev.fetched.value = mp_buf_slice(&value);
    harness_step(h, &ev);
    mp_buf_fini(&value);
}

static inline void harness_lose(struct harness *h, const char *node)
{
    struct mp_graph_event ev = {.kind = MP_GRAPH_LOST, .lost = {.node = mp_slice_str(node)}};
    harness_step(h, &ev);
}

/* `error` is an ERROR as JSON. */
static inline void harness_fail_at(struct harness *h, const char *step, uint32_t index,
                                   const char *error, bool never_began)
{
    struct mp_buf value;
    struct mp_graph_event ev = {.kind = MP_GRAPH_FAILED_CALL};
    struct harness_call *c = harness_find(h, step, index);
    if (!c)
        fail_msg("step %s (element %u) was not handed out", step, index);
    mp_buf_init(&value, &h->plain_alloc, 0);
    tiny_read(error, &value);
    c->is_answered = true;
    ev.failed.invocation = c->invocation;
    ev.failed.error = mp_buf_slice(&value);
    ev.failed.node = never_began ? (struct mp_slice){0} : mp_slice_str("n2");
    ev.failed.worker = never_began ? 0 : 2;
    ev.failed.never_began = never_began;
    ev.failed.is_confirmed = !h->is_unconfirmed;
    ev.failed.timing = (struct mp_graph_timing){.run = never_began ? 0 : MP_MS(1)};
    harness_step(h, &ev);
    mp_buf_fini(&value);
}

static inline void harness_fail(struct harness *h, const char *step, const char *error)
{
    harness_fail_at(h, step, 0, error, false);
}

/* Moves time to the machine's own deadline. */
static inline void harness_timer(struct harness *h)
{
    struct mp_graph_event ev = {.kind = MP_GRAPH_TIMER};
    assert_true(mp_graph_deadline(h->g) != MP_NEVER);
    h->now = mp_graph_deadline(h->g) > h->now ? mp_graph_deadline(h->g) : h->now;
    harness_step(h, &ev);
}

static inline void harness_cancel(struct harness *h)
{
    struct mp_graph_event ev = {.kind = MP_GRAPH_CANCEL_RUN};
    harness_step(h, &ev);
}

static inline const char *harness_show_value(struct harness *h, struct mp_slice value,
                                             const char *path)
{
    struct tiny_text t = {.at = h->text, .left = sizeof(h->text)};
    struct mp_slice found;
    struct mp_slice inside;
    size_t stopped_at;
    if (value.size == 0 ||
        mp_graph_path_walk(value, mp_slice_str(path), &found, &stopped_at, &inside) != MP_OK)
        return "(missing)";
    struct mp_mp_reader r = mp_mp_reader_of(found);
    tiny_write(&t, &r);
    return h->text;
}

/* What stands at a path of the run object, or of the refusal, as JSON. */
static inline const char *harness_show(struct harness *h, const char *path)
{
    return harness_show_value(h, h->run.size != 0 ? h->run : h->refused, path);
}

static inline const char *harness_args(struct harness *h, const char *step, uint32_t index)
{
    struct harness_call *c = harness_find(h, step, index);
    return c ? harness_show_value(h, c->args, "") : "(not handed out)";
}

/* The kinds of the events so far, joined by spaces. */
static inline const char *harness_events(struct harness *h)
{
    struct tiny_text t = {.at = h->text, .left = sizeof(h->text)};
    h->text[0] = '\0';
    for (uint64_t seq = 1; seq <= mp_graph_event_count(h->g); seq++) {
        const char *name = mp_graph_event_name(h->g, seq);
        if (seq > 1)
            tiny_put(&t, " ", 1);
        tiny_put(&t, name, strlen(name));
    }
    return h->text;
}

/* What stands at a path of an event, as JSON. */
static inline const char *harness_event(struct harness *h, uint64_t seq, const char *path)
{
    struct mp_buf body;
    mp_buf_init(&body, &h->plain_alloc, 0);
    assert_int_equal(mp_graph_put_event(h->g, seq, &body), MP_OK);
    const char *text = harness_show_value(h, mp_buf_slice(&body), path);
    mp_buf_fini(&body);
    return text;
}
