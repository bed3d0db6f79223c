/* Bytes as a graph, through its whole life: the first eight seed what becomes of its calls, of
 * time, of memory; the rest is the graph. Whatever it is, the machine answers every call, ends by
 * itself, gives back all memory, and what it tells is well-formed. */
#include <stdint.h>
#include <stdlib.h>

#include "spec/support/alloc.h"
#include "src/base/rng.h"
#include "src/core/graph/graph.h"
#include "src/wire/msgpack.h"

#define CALLS_MAX 2000
#define TURNS_MAX 3000
#define STEPS_MAX 64
#define BYTES_MAX (64u << 10)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct fuzz {
    struct mp_graph *g;
    struct mp_rng rng;
    struct mp_slice input;
    mp_time now;
    uint64_t open[CALLS_MAX];
    uint32_t count;
    uint64_t fetches[CALLS_MAX];
    uint32_t fetches_count;
    uint64_t seq; /* of the last event that was read */
    bool is_over;
};

static void must(bool is_so)
{
    if (!is_so)
        abort();
}

static void take(struct fuzz *f, const struct mp_graph_effects *effects)
{
    for (uint32_t i = 0; i < effects->count; i++) {
        const struct mp_graph_effect *e = &effects->items[i];
        must(!f->is_over);
        switch (e->kind) {
        case MP_GRAPH_INVOKE:
            must(mp_mp_check(e->invoke.args) != MP_ECORRUPT); /* but perhaps too deep */
            if (f->count < CALLS_MAX)
                f->open[f->count++] = e->invoke.invocation;
            break;
        case MP_GRAPH_FETCH:
            must(e->fetch.node.size != 0);
            if (f->fetches_count < CALLS_MAX)
                f->fetches[f->fetches_count++] = e->fetch.fetch;
            break;
        case MP_GRAPH_REFUSED:
            must(mp_mp_check(e->refused.error) == MP_OK);
            f->is_over = true;
            break;
        case MP_GRAPH_FINISHED:
            must(mp_mp_check(e->finished.run) == MP_OK);
            f->is_over = true;
            break;
        default:
            break;
        }
    }
}

/* What others ask, at any time. */
static void ask(struct fuzz *f)
{
    struct spec_alloc counted = {.fail_at = SPEC_NEVER};
    struct mp_alloc alloc = spec_alloc_of(&counted);
    struct mp_buf b;
    mp_buf_init(&b, &alloc, 0);
    uint64_t count = mp_graph_event_count(f->g);
    for (uint64_t seq = mp_rng_below(&f->rng, 8) ? f->seq + 1 : 1; seq <= count; seq++)
        if (mp_graph_put_event(f->g, seq, &b) == MP_OK) {
            must(mp_mp_check(mp_buf_slice(&b)) == MP_OK);
            mp_buf_clear(&b);
        }
    f->seq = count;
    if (mp_rng_below(&f->rng, 8) == 0 && mp_graph_put_record(f->g, f->now, &b) == MP_OK) {
        must(mp_mp_check(mp_buf_slice(&b)) == MP_OK);
        mp_buf_clear(&b);
        must(mp_graph_put_receipts(f->g, &b) == MP_OK);
        must(mp_mp_check(mp_buf_slice(&b)) == MP_OK);
    }
    mp_buf_fini(&b);
}

static bool step(struct fuzz *f, const struct mp_graph_event *ev)
{
    struct mp_graph_effects effects;
    enum mp_err err = mp_graph_step(f->g, f->now, ev, &effects);
    take(f, &effects);
    f->is_over |= err == MP_ENOMEM;
    ask(f);
    return err == MP_OK;
}

/* Some value: a part of the input if it is one, else something small. */
static struct mp_slice some_value(struct fuzz *f)
{
    static const uint8_t list[] = {0x93, 0x01, 0x81, 0xa1, 'a', 0xc3, 0x90};
    if (f->input.size != 0 && mp_rng_below(&f->rng, 2)) {
        size_t at = mp_rng_below(&f->rng, f->input.size);
        struct mp_mp_reader r =
            mp_mp_reader_of(mp_slice_of(f->input.data + at, f->input.size - at));
        struct mp_slice value;
        if (mp_mp_take(&r, &value) == MP_OK)
            return value;
    }
    return mp_slice_of(list, sizeof(list));
}

static const char *some_node(struct fuzz *f)
{
    static const char *const nodes[] = {"n1", "n2", "n3"};
    return nodes[mp_rng_below(&f->rng, MP_ARRAY_SIZE(nodes))];
}

static void answer_fetch(struct fuzz *f)
{
    struct mp_graph_event ev = {.kind = MP_GRAPH_FETCHED};
    uint32_t i = (uint32_t)mp_rng_below(&f->rng, f->fetches_count);
    ev.fetched.fetch = f->fetches[i];
    ev.fetched.is_lost = mp_rng_below(&f->rng, 4) == 0;
    if (!ev.fetched.is_lost)
        ev.fetched.value = some_value(f);
    f->fetches[i] = f->fetches[--f->fetches_count];
    step(f, &ev);
}

static void lose_node(struct fuzz *f)
{
    struct mp_graph_event ev = {.kind = MP_GRAPH_LOST};
    ev.lost.node = mp_slice_str(some_node(f));
    step(f, &ev);
}

static void answer(struct fuzz *f)
{
    uint32_t i = (uint32_t)mp_rng_below(&f->rng, f->count);
    struct mp_graph_event ev = {.kind = MP_GRAPH_COMPLETED};
    uint8_t bytes[64];
    struct mp_buf error = {.data = NULL};
    struct spec_alloc counted = {.fail_at = SPEC_NEVER};
    struct mp_alloc alloc = spec_alloc_of(&counted);
    mp_buf_init(&error, &alloc, 0);
    if (mp_rng_below(&f->rng, 4) == 0) {
        struct mp_fault fault = {.code =
                                     (enum mp_code)(1 + mp_rng_below(&f->rng, MP_CODE_COUNT - 1)),
                                 .message = mp_slice_str("no")};
        if (mp_rng_below(&f->rng, 4) == 0) {
            fault.code = MP_CODE_DATA_LOSS;
            fault.reason = mp_slice_str("RESULT_LOST");
        } else if (mp_rng_below(&f->rng, 4) == 0) {
            fault.code = MP_CODE_INVALID_ARGUMENT;
            fault.reason = mp_slice_str("MISSING_FIELD");
            fault.message = mp_slice_str(".a is missing in .b");
        }
        ev.kind = MP_GRAPH_FAILED_CALL;
        must(mp_fault_put(&error, &fault) == MP_OK);
        ev.failed.invocation = f->open[i];
        ev.failed.error = mp_rng_below(&f->rng, 8) ? mp_buf_slice(&error) : some_value(f);
        ev.failed.node = mp_slice_str("n2");
        ev.failed.never_began = mp_rng_below(&f->rng, 4) == 0;
        ev.failed.is_confirmed = mp_rng_below(&f->rng, 2) == 0;
    } else {
        ev.completed.invocation = f->open[i];
        ev.completed.value = some_value(f);
        ev.completed.node = mp_slice_str(some_node(f));
        ev.completed.is_held = mp_rng_below(&f->rng, 3) == 0;
        ev.completed.held = mp_rng_next(&f->rng);
        ev.completed.held_bytes = mp_rng_below(&f->rng, BYTES_MAX + BYTES_MAX / 16);
        ev.completed.version = mp_slice_str("1.0.0");
        ev.completed.timing.run = mp_rng_below(&f->rng, MP_MS(10));
        for (size_t k = 0; k < sizeof(bytes); k++)
            bytes[k] = (uint8_t)mp_rng_next(&f->rng);
        if (mp_rng_below(&f->rng, 16) == 0)
            ev.completed.value = mp_slice_of(bytes, mp_rng_below(&f->rng, sizeof(bytes)));
    }
    f->open[i] = f->open[--f->count];
    step(f, &ev);
    mp_buf_fini(&error);
}

static void turn(struct fuzz *f)
{
    struct mp_graph_event ev = {.kind = MP_GRAPH_TIMER};
    f->now += mp_rng_below(&f->rng, MP_MS(5));
    if (mp_rng_below(&f->rng, 200) == 0) {
        ev.kind = MP_GRAPH_CANCEL_RUN;
        step(f, &ev);
    } else if (mp_rng_below(&f->rng, 60) == 0) {
        lose_node(f);
    } else if (f->fetches_count != 0 && mp_rng_below(&f->rng, 3) != 0) {
        answer_fetch(f);
    } else if (f->count != 0 && mp_rng_below(&f->rng, 8) != 0) {
        answer(f);
    } else {
        mp_time at = mp_graph_deadline(f->g);
        must(at != MP_NEVER || f->count != 0 || f->fetches_count != 0);
        f->now = at != MP_NEVER && at > f->now ? at : f->now;
        step(f, &ev);
    }
}

static void preset(struct fuzz *f, struct mp_slice name)
{
    const struct mp_graph_event ev = {
        .kind = MP_GRAPH_PRESET,
        .preset = {.name = name, .value = some_value(f), .node = mp_slice_str(some_node(f))}};
    if (!f->is_over && mp_rng_below(&f->rng, 8) == 0)
        step(f, &ev);
}

static bool resolve(struct fuzz *f, struct mp_slice graph)
{
    struct mp_graph_effects effects;
    struct mp_graph_event ev = {.kind = MP_GRAPH_LOAD, .load = {.graph = graph}};
    uint32_t steps[STEPS_MAX];
    struct mp_slice names[STEPS_MAX]; /* in the graph's own bytes */
    uint32_t count = 0;
    enum mp_err err = mp_graph_step(f->g, f->now, &ev, &effects);
    f->is_over = err != MP_OK;
    for (uint32_t i = 0; i < effects.count; i++)
        if (effects.items[i].kind == MP_GRAPH_RESOLVE) {
            names[count] = effects.items[i].resolve.name;
            steps[count++] = effects.items[i].resolve.step;
        } else {
            f->is_over = true;
        }
    for (uint32_t i = 0; err == MP_OK && !f->is_over && i < count; i++) {
        ev = (struct mp_graph_event){.kind = MP_GRAPH_RESOLVED};
        ev.resolved.step = steps[i];
        ev.resolved.workers = (uint32_t)mp_rng_below(&f->rng, 4);
        ev.resolved.is_idempotent = mp_rng_below(&f->rng, 2) == 0;
        ev.resolved.is_refused = mp_rng_below(&f->rng, 64) == 0;
        ev.resolved.fault.code = MP_CODE_NOT_FOUND;
        if (!step(f, &ev))
            return false;
        preset(f, names[i]);
    }
    return err == MP_OK && !f->is_over;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct fuzz f;
    uint64_t seed = 0;
    if (size < 8)
        return 0;
    memcpy(&seed, data, 8);
    f = (struct fuzz){.now = 1, .input = mp_slice_of(data + 8, size - 8)};
    mp_rng_init(&f.rng, seed);
    struct spec_alloc counted = {.fail_at = SPEC_NEVER};
    if (mp_rng_below(&f.rng, 4) == 0)
        counted.fail_at = mp_rng_below(&f.rng, 200);
    struct mp_alloc alloc = spec_alloc_of(&counted);
    struct mp_graph_config cfg = {.run_id = mp_slice_str("run"),
                                  .node = mp_slice_str("n1"),
                                  .steps_max = STEPS_MAX,
                                  .value_bytes_max = BYTES_MAX,
                                  .kept_bytes_max = 4 * BYTES_MAX,
                                  .timeout = MP_SECONDS(5),
                                  .has_trace = mp_rng_below(&f.rng, 2) != 0};
    f.g = (struct mp_graph *)aligned_alloc(16, mp_graph_size());
    if (mp_graph_init(f.g, &cfg, &alloc, seed) == MP_OK) {
        if (resolve(&f, f.input)) {
            struct mp_graph_event ev = {.kind = MP_GRAPH_START};
            step(&f, &ev);
        }
        for (int i = 0; i < TURNS_MAX && !f.is_over && f.count < CALLS_MAX; i++)
            turn(&f);
        mp_graph_fini(f.g);
    }
    must(counted.live_bytes == 0);
    free(f.g);
    return 0;
}
