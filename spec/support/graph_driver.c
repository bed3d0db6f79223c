/* Drives the graph machine in virtual time, for specs. Standard input is a stream of MessagePack
 * maps, one a graph:
 *
 *   graph, input   what the machine is given (input may be left out)
 *   presets        results that are known, by step (may be left out)
 *   config         seed, trace, timeout, kept_max, value_max, steps_max, workers,
 * cancel_at; times in nanoseconds script         by step: what its calls come to. result   the
 * value; left out: the arguments fails    by index as text ("0": no element): attempts that fail
 * first code, final  of those failures run      a list of times; attempt a of element i takes the
 * ((i + 7 a) mod n)-th queue, network   times refuse   an ERROR map: what the resolver says lost
 * never answered, not even at the deadline unbegun  its failures never began
 *
 * Standard output is one map for each: run or refused, events (as they were told at once), late
 * (the same, made when the run was over), plan, calls, most_out, leaked. Calls run on the nodes n1
 * and n2 in turn, without a limit; those that are over their deadline fail there, cancelled ones
 * fail at once. The order of answers at one moment is that of handing out. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "spec/support/alloc.h"
#include "src/base/heap.h"
#include "src/core/graph/graph.h"
#include "src/wire/msgpack.h"

#define CALLS_MAX (1u << 22)

struct call {
    uint64_t invocation;
    uint32_t index;
    uint32_t attempt;
    mp_time handed;
    mp_time deadline;
    mp_duration queue;
    mp_duration network;
    mp_duration run;
    struct mp_slice value; /* owned; of a success */
    struct mp_slice code;
    bool is_failure;
    bool is_final;
    bool is_unbegun;
    bool is_late;
    bool is_cancelled;
    bool is_answered;
};

struct world {
    struct mp_alloc plain;
    struct mp_slice script;
    struct call *calls;
    uint32_t calls_count;
    uint32_t capacity;
    uint32_t *places;
    uint32_t out;
    uint32_t most_out;
    uint32_t workers;
    struct mp_heap heap;
    struct mp_buf events;
    uint32_t events_count;
    struct mp_buf late;
    struct mp_slice run;
    struct mp_slice refused;
};

static void check(enum mp_err err)
{
    if (err == MP_OK)
        return;
    fprintf(stderr, "graph_driver: %s\n", mp_err_text(err));
    exit(1);
}

static struct mp_slice copy(struct mp_slice s)
{
    uint8_t *p = (uint8_t *)malloc(s.size + 1);
    memcpy(p, s.data, s.size);
    return mp_slice_of(p, s.size);
}

static void drop(struct mp_slice s)
{
    free((void *)(uintptr_t)s.data);
}

static bool get(struct mp_slice map, const char *key, struct mp_slice *value)
{
    return map.size != 0 && mp_mp_map_get(map, mp_slice_str(key), value) == MP_OK;
}

static uint64_t get_uint(struct mp_slice map, const char *key, uint64_t fallback)
{
    struct mp_slice value;
    double n;
    return get(map, key, &value) && mp_mp_get_number(value, &n) == MP_OK ? (uint64_t)n : fallback;
}

static bool get_flag(struct mp_slice map, const char *key)
{
    struct mp_slice value;
    bool b;
    return get(map, key, &value) && mp_mp_get_bool(value, &b) == MP_OK && b;
}

static struct mp_slice script_of(const struct world *w, struct mp_slice step)
{
    struct mp_slice entry = {0};
    if (w->script.size == 0 || mp_mp_map_get(w->script, step, &entry) != MP_OK)
        return (struct mp_slice){0};
    return entry;
}

/* The ((index + 7 attempt) mod n)-th of the list of times. */
static mp_duration run_time(struct mp_slice entry, uint32_t index, uint32_t attempt)
{
    struct mp_slice list;
    struct mp_slice one;
    uint32_t count;
    struct mp_mp_reader r;
    double n;
    if (!get(entry, "run", &list) || mp_mp_get_array(list, &count, &r) != MP_OK || count == 0)
        return MP_MS(1);
    check(mp_mp_array_get(list, (index + 7 * attempt) % count, &one));
    check(mp_mp_get_number(one, &n));
    return (mp_duration)n;
}

static void plan_outcome(struct call *c, struct mp_slice entry, struct mp_slice args)
{
    char index[16];
    struct mp_slice value;
    snprintf(index, sizeof(index), "%u", c->index);
    c->queue = get_uint(entry, "queue", 0);
    c->network = get_uint(entry, "network", 0);
    c->run = run_time(entry, c->index, c->attempt);
    c->is_failure = get(entry, "fails", &value) && get_uint(value, index, 0) >= c->attempt;
    c->is_final = get_flag(entry, "final");
    c->is_unbegun = get_flag(entry, "unbegun");
    c->code = mp_slice_str("UNKNOWN");
    if (get(entry, "code", &value))
        check(mp_mp_get_str(value, &c->code));
    if (!c->is_failure)
        c->value = copy(get(entry, "result", &value) ? value : args);
}

static void on_invoke(struct world *w, const struct mp_graph_effect *e, mp_time now)
{
    if (w->calls_count == w->capacity) {
        w->capacity = w->capacity == 0 ? 64 : w->capacity * 2;
        w->calls = (struct call *)realloc(w->calls, w->capacity * sizeof(*w->calls));
        w->places = (uint32_t *)realloc(w->places, w->capacity * sizeof(*w->places));
    }
    if (w->calls_count == CALLS_MAX)
        check(MP_ETOOLARGE);
    struct mp_slice entry = script_of(w, e->invoke.name);
    struct call *c = &w->calls[w->calls_count];
    *c = (struct call){.invocation = e->invoke.invocation,
                       .index = e->invoke.index,
                       .attempt = e->invoke.attempt,
                       .handed = now,
                       .deadline = e->invoke.deadline};
    plan_outcome(c, entry, e->invoke.args);
    mp_time at = now + c->queue + c->network + c->run;
    if (at >= c->deadline) {
        c->is_late = true;
        at = get_flag(entry, "lost") ? MP_NEVER : c->deadline;
    }
    w->places[w->calls_count] = MP_HEAP_NONE;
    check(mp_heap_set(&w->heap, w->places, w->calls_count++, at));
    w->out++;
    w->most_out = w->out > w->most_out ? w->out : w->most_out;
}

static void on_cancel(struct world *w, uint64_t invocation, mp_time now)
{
    for (uint32_t i = w->calls_count; i > 0; i--) {
        struct call *c = &w->calls[i - 1];
        if (c->invocation != invocation)
            continue;
        c->is_cancelled = true;
        if (!c->is_answered)
            check(mp_heap_set(&w->heap, w->places, i - 1, now));
        return;
    }
    check(MP_ENOENT);
}

static void on_resolve(struct world *w, struct mp_graph *g, mp_time now, uint32_t step,
                       struct mp_slice name)
{
    struct mp_graph_effects none;
    struct mp_slice refusal;
    struct mp_graph_event ev = {.kind = MP_GRAPH_RESOLVED};
    ev.resolved.step = step;
    ev.resolved.version = mp_slice_str("1.0.0");
    ev.resolved.node = mp_slice_str("n1");
    ev.resolved.workers = w->workers;
    if (get(script_of(w, name), "refuse", &refusal)) {
        ev.resolved.is_refused = true;
        check(mp_fault_read(refusal, &ev.resolved.fault));
    }
    check(mp_graph_step(g, now, &ev, &none));
}

static void watch(struct world *w, struct mp_graph *g)
{
    while (w->events_count < mp_graph_event_count(g))
        check(mp_graph_put_event(g, ++w->events_count, &w->events));
}

static void carry_out(struct world *w, const struct mp_graph_effects *effects, mp_time now)
{
    for (uint32_t i = 0; i < effects->count; i++) {
        const struct mp_graph_effect *e = &effects->items[i];
        switch (e->kind) {
        case MP_GRAPH_INVOKE:
            on_invoke(w, e, now);
            break;
        case MP_GRAPH_CANCEL:
            on_cancel(w, e->cancel.invocation, now);
            break;
        case MP_GRAPH_REFUSED:
            w->refused = copy(e->refused.error);
            break;
        case MP_GRAPH_FINISHED:
            check(mp_mp_check(e->finished.run));
            w->run = copy(e->finished.run);
            break;
        case MP_GRAPH_RESOLVE:
        case MP_GRAPH_FETCH: /* it holds nothing back */
            check(MP_EINVAL);
        }
    }
}

static void answer(struct world *w, struct mp_graph *g, mp_time now, uint32_t i)
{
    struct call *c = &w->calls[i];
    struct mp_buf error;
    struct mp_graph_effects effects;
    struct mp_graph_timing timing = {.queue = c->queue, .network = c->network, .run = c->run};
    struct mp_slice node = mp_slice_str(i % 2 == 0 ? "n1" : "n2");
    mp_buf_init(&error, &w->plain, 0);
    c->is_answered = true;
    w->out--;
    if (c->is_late || c->is_cancelled) {
        mp_duration past = c->queue + c->network < now - c->handed ? c->queue + c->network : 0;
        timing = (struct mp_graph_timing){.queue = past ? c->queue : 0,
                                          .network = past ? c->network : 0,
                                          .run = now - c->handed - past};
    }
    struct mp_graph_event ev = {.kind = MP_GRAPH_COMPLETED};
    if (c->is_failure || c->is_late || c->is_cancelled) {
        struct mp_fault f = {.code = c->is_cancelled ? MP_CODE_CANCELLED
                                     : c->is_late    ? MP_CODE_DEADLINE_EXCEEDED
                                                     : mp_code_of(c->code),
                             .reason = mp_slice_str("INVENTED"),
                             .message = mp_slice_str("it was told to fail"),
                             .is_final = c->is_final && !c->is_late};
        check(mp_mp_put_map(&error, 0));
        error.size = 0;
        check(mp_fault_put(&error, &f));
        ev.kind = MP_GRAPH_FAILED_CALL;
        ev.failed.invocation = c->invocation;
        ev.failed.error = mp_buf_slice(&error);
        ev.failed.node = node;
        ev.failed.version = mp_slice_str("1.0.0");
        ev.failed.worker = i % 4 + 1;
        ev.failed.bytes_in = 10;
        ev.failed.timing = timing;
        ev.failed.never_began = c->is_unbegun;
        ev.failed.is_confirmed = true;
    } else {
        ev.completed.invocation = c->invocation;
        ev.completed.value = c->value;
        ev.completed.node = node;
        ev.completed.version = mp_slice_str("1.0.0");
        ev.completed.worker = i % 4 + 1;
        ev.completed.bytes_in = 10;
        ev.completed.timing = timing;
    }
    check(mp_graph_step(g, now, &ev, &effects));
    watch(w, g);
    carry_out(w, &effects, now);
    mp_buf_fini(&error);
}

static void run(struct world *w, struct mp_graph *g, mp_time now, mp_time cancel_at)
{
    struct mp_graph_effects effects;
    struct mp_graph_event ev = {.kind = MP_GRAPH_START};
    check(mp_graph_step(g, now, &ev, &effects));
    watch(w, g);
    carry_out(w, &effects, now);
    while (w->run.size == 0 && w->refused.size == 0) {
        mp_time timer = mp_graph_deadline(g);
        mp_time next = mp_heap_first(&w->heap);
        mp_time at = timer < next ? timer : next;
        uint32_t call;
        if (cancel_at <= at) {
            now = cancel_at > now ? cancel_at : now;
            cancel_at = MP_NEVER;
            ev.kind = MP_GRAPH_CANCEL_RUN;
        } else if (at == MP_NEVER) {
            fprintf(stderr, "graph_driver: the run waits for nothing\n");
            exit(1);
        } else {
            now = at > now ? at : now;
            if (timer > next && mp_heap_pop(&w->heap, w->places, now, &call)) {
                answer(w, g, now, call);
                continue;
            }
            ev.kind = MP_GRAPH_TIMER;
        }
        check(mp_graph_step(g, now, &ev, &effects));
        watch(w, g);
        carry_out(w, &effects, now);
    }
}

static void put(struct mp_buf *out, const char *key, struct mp_slice value)
{
    check(mp_mp_put_text(out, key));
    if (value.size == 0)
        check(mp_mp_put_nil(out));
    else
        check(mp_mp_put_raw(out, value));
}

static void put_answer(struct world *w, struct mp_slice plan, size_t leaked, struct mp_buf *out)
{
    check(mp_mp_put_map(out, 8));
    put(out, "run", w->run);
    put(out, "refused", w->refused);
    put(out, "plan", plan);
    check(mp_mp_put_text(out, "events"));
    check(mp_mp_put_array(out, w->events_count));
    check(mp_buf_append(out, mp_buf_slice(&w->events)));
    check(mp_mp_put_text(out, "late"));
    check(mp_mp_put_array(out, w->events_count));
    check(mp_buf_append(out, mp_buf_slice(&w->late)));
    check(mp_mp_put_text(out, "calls"));
    check(mp_mp_put_uint(out, w->calls_count));
    check(mp_mp_put_text(out, "most_out"));
    check(mp_mp_put_uint(out, w->most_out));
    check(mp_mp_put_text(out, "leaked"));
    check(mp_mp_put_uint(out, leaked));
}

static void preset_all(struct mp_graph *g, mp_time now, struct mp_slice presets)
{
    uint32_t count;
    struct mp_mp_reader r;
    struct mp_slice name;
    struct mp_graph_effects none;
    if (mp_mp_get_map(presets, &count, &r) != MP_OK)
        return; /* an empty table */
    for (uint32_t i = 0; i < count; i++) {
        struct mp_graph_event ev = {
            .kind = MP_GRAPH_PRESET,
            .preset = {.node = mp_slice_str("n9"), .version = mp_slice_str("0.9.0")}};
        check(mp_mp_take(&r, &name));
        check(mp_mp_get_str(name, &ev.preset.name));
        check(mp_mp_take(&r, &ev.preset.value));
        check(mp_graph_step(g, now, &ev, &none));
    }
}

static void serve(struct mp_slice doc, struct mp_buf *out)
{
    struct world w = {0};
    struct spec_alloc counted = {.fail_at = SPEC_NEVER};
    struct spec_alloc uncounted = {.fail_at = SPEC_NEVER};
    struct mp_alloc alloc = spec_alloc_of(&counted);
    struct mp_slice config = {0};
    struct mp_slice presets;
    struct mp_graph_effects effects;
    struct mp_graph_event ev = {.kind = MP_GRAPH_LOAD};
    struct mp_buf plan;
    mp_time now = MP_SECONDS(1000);
    w.plain = spec_alloc_of(&uncounted);
    mp_heap_init(&w.heap, &w.plain);
    mp_buf_init(&w.events, &w.plain, 0);
    mp_buf_init(&w.late, &w.plain, 0);
    mp_buf_init(&plan, &w.plain, 0);
    get(doc, "script", &w.script);
    get(doc, "config", &config);
    w.workers = (uint32_t)get_uint(config, "workers", 2);
    struct mp_graph_config cfg = {.run_id = mp_slice_str("01KBSPEC"),
                                  .node = mp_slice_str("n1"),
                                  .steps_max = (uint32_t)get_uint(config, "steps_max", 100000),
                                  .value_bytes_max = get_uint(config, "value_max", 64 << 20),
                                  .kept_bytes_max = get_uint(config, "kept_max", 256 << 20),
                                  .timeout = get_uint(config, "timeout", MP_SECONDS(3600)),
                                  .has_trace = get_flag(config, "trace")};
    struct mp_graph *g = (struct mp_graph *)aligned_alloc(16, mp_graph_size());
    check(mp_graph_init(g, &cfg, &alloc, get_uint(config, "seed", 1)));
    if (!get(doc, "graph", &ev.load.graph))
        check(MP_EINVAL);
    if (!get(doc, "input", &ev.load.input))
        ev.load.input = (struct mp_slice){0};
    check(mp_graph_step(g, now, &ev, &effects));
    /* The effects are gone after the next step: keep what answering them needs. */
    uint32_t count = effects.count;
    struct mp_graph_effect *resolves =
        (struct mp_graph_effect *)calloc(count + 1, sizeof(*resolves));
    if (count != 0)
        memcpy(resolves, effects.items, count * sizeof(*resolves));
    for (uint32_t i = 0; i < count; i++)
        on_resolve(&w, g, now, resolves[i].resolve.step, resolves[i].resolve.name);
    free(resolves);
    if (get(doc, "presets", &presets))
        preset_all(g, now, presets);
    if (mp_graph_put_plan(g, &plan) != MP_OK)
        mp_buf_clear(&plan);
    uint64_t cancel_after = get_uint(config, "cancel_at", MP_NEVER);
    run(&w, g, now, cancel_after == MP_NEVER ? MP_NEVER : now + cancel_after);
    for (uint32_t seq = 1; seq <= w.events_count; seq++)
        check(mp_graph_put_event(g, seq, &w.late));
    mp_graph_fini(g);
    put_answer(&w, mp_buf_slice(&plan), counted.live_bytes, out);
    for (uint32_t i = 0; i < w.calls_count; i++)
        drop(w.calls[i].value);
    drop(w.run);
    drop(w.refused);
    free(w.calls);
    free(w.places);
    free(g);
    mp_heap_fini(&w.heap);
    mp_buf_fini(&w.events);
    mp_buf_fini(&w.late);
    mp_buf_fini(&plan);
}

int main(void)
{
    struct spec_alloc a = {.fail_at = SPEC_NEVER};
    struct mp_alloc alloc = spec_alloc_of(&a);
    struct mp_buf in;
    struct mp_buf out;
    size_t got;
    mp_buf_init(&in, &alloc, 0);
    mp_buf_init(&out, &alloc, 0);
    do {
        check(mp_buf_reserve(&in, 1 << 16));
        got = fread(in.data + in.size, 1, 1 << 16, stdin);
        in.size += got;
    } while (got != 0);
    struct mp_mp_reader r = mp_mp_reader_of(mp_buf_slice(&in));
    while (!mp_mp_is_at_end(&r)) {
        struct mp_slice doc;
        check(mp_mp_take(&r, &doc));
        mp_buf_clear(&out);
        serve(doc, &out);
        check(mp_mp_check(mp_buf_slice(&out)));
        if (fwrite(out.data, 1, out.size, stdout) != out.size)
            check(MP_EIO);
    }
    mp_buf_fini(&in);
    mp_buf_fini(&out);
    return 0;
}
