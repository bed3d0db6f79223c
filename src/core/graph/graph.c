/* The machine's four calls: memory, phases, the list of effects, and what happens when memory runs
 * out. The work is in the other files:
 *
 *   check.c order.c fault.c      a graph's bytes become steps and edges, or faults
 *   path.c template.c depth.c    references and the values they stand in
 *   run.c call.c each.c          steps, attempts and elements as they run
 *   held.c                       results that stay where they were made
 *   event.c tries.c              what happened
 *   record.c summary.c           what is told about it
 *   receipt.c result.c           what a cancel came to; results of single steps
 *   plan.c preview.c out.c       the plan; large values; writing
 *
 * Running out of memory anywhere in a step throws that step's effects away, which nobody has seen
 * yet, and ends the run with what needs no more memory than its record. */
#include "src/core/graph/graph_internal.h"

#define EFFECTS_KEPT       1024 /* slots kept between steps */
#define SCRATCH_BYTES_KEPT (64u << 10)

size_t mp_graph_size(void)
{
    return (sizeof(struct mp_graph) + 15) / 16 * 16;
}

static void init_buffers(struct mp_graph *g, struct mp_alloc *a)
{
    mp_buf_init(&g->own_names, a, 0);
    mp_buf_init(&g->input_bytes, a, 0);
    mp_buf_init(&g->fault_bytes, a, 0);
    mp_buf_init(&g->output_bytes, a, 0);
    mp_buf_init(&g->scratch, a, 0);
    mp_buf_init(&g->told_names, a, 0);
    mp_buf_init(&g->message, a, 0);
    mp_buf_init(&g->hint, a, 0);
    mp_buf_init(&g->fault, a, 0);
    mp_buf_init(&g->hole, a, 0);
    mp_map_init(&g->by_name, a);
    mp_map_init(&g->interned, a);
    mp_heap_init(&g->timers, a);
}

enum mp_err mp_graph_init(struct mp_graph *g, const struct mp_graph_config *cfg, struct mp_alloc *a,
                          uint64_t seed)
{
    mp_assert(cfg->steps_max <= MP_GRAPH_EDGE_STEP);
    memset(g, 0, sizeof(*g));
    g->alloc = a;
    g->config = *cfg;
    g->deadline = MP_NEVER;
    g->cancel_give_up = MP_NEVER;
    g->ready_first = g->ready_last = MP_GRAPH_NONE;
    g->ended_first = g->ended_last = MP_GRAPH_NONE;
    g->retry_first = g->retry_last = MP_GRAPH_NONE;
    g->again_first = MP_GRAPH_NONE;
    g->ebb_first = MP_GRAPH_NONE;
    g->calls_free = MP_GRAPH_NONE;
    g->tries_free = MP_GRAPH_NONE;
    mp_rng_init(&g->rng, seed);
    init_buffers(g, a);
    struct mp_slice *const names[] = {&g->config.run_id, &g->config.node, &g->config.resumed_from};
    size_t size = 1;
    for (size_t i = 0; i < MP_ARRAY_SIZE(names); i++)
        size += names[i]->size;
    enum mp_err err = mp_buf_reserve(&g->own_names, size);
    for (size_t i = 0; err == MP_OK && i < MP_ARRAY_SIZE(names); i++) {
        size_t at = g->own_names.size;
        err = mp_buf_append(&g->own_names, *names[i]);
        *names[i] = mp_slice_of(g->own_names.data + at, names[i]->size);
    }
    if (err == MP_OK)
        return MP_OK;
    mp_graph_fini(g);
    return MP_ENOMEM;
}

void *mp_graph_grow(struct mp_graph *g, void *p, uint32_t *capacity, size_t item, uint32_t need)
{
    if (need <= *capacity && p)
        return p;
    uint32_t more = *capacity == 0 ? 16 : *capacity;
    while (more < need)
        more *= 2;
    void *q = g->alloc->resize(g->alloc->context, p, *capacity * item, more * item);
    if (q)
        *capacity = more;
    return q;
}

enum mp_err mp_graph_copy(struct mp_graph *g, struct mp_slice s, struct mp_slice *own)
{
    if (s.size == 0) {
        *own = (struct mp_slice){0};
        return MP_OK;
    }
    uint8_t *bytes = mp_alloc_take(g->alloc, s.size);
    if (!bytes)
        return MP_ENOMEM;
    memcpy(bytes, s.data, s.size);
    *own = mp_slice_of(bytes, s.size);
    return MP_OK;
}

void mp_graph_drop(struct mp_graph *g, struct mp_slice *own)
{
    mp_alloc_free(g->alloc, (void *)(uintptr_t)own->data, own->size);
    *own = (struct mp_slice){0};
}

enum mp_err mp_graph_intern(struct mp_graph *g, struct mp_slice s, uint32_t *id)
{
    *id = 0;
    if (s.size == 0 || mp_map_get(&g->interned, s, id))
        return MP_OK;
    struct mp_slice *names = mp_graph_grow(g, g->interned_names, &g->interned_capacity,
                                           sizeof(*names), g->interned_count + 1);
    if (!names)
        return MP_ENOMEM;
    g->interned_names = names;
    struct mp_slice own;
    enum mp_err err = mp_graph_copy(g, s, &own);
    if (err != MP_OK)
        return err;
    err = mp_map_set(&g->interned, own, g->interned_count + 1);
    if (err != MP_OK) {
        mp_graph_drop(g, &own);
        return err;
    }
    names[g->interned_count++] = own;
    *id = g->interned_count;
    return MP_OK;
}

enum mp_err mp_graph_intern_near(struct mp_graph *g, struct mp_slice name, uint32_t guess,
                                 uint32_t *id)
{
    if (guess == 0 || !mp_slice_equal(name, mp_graph_interned(g, guess)))
        return mp_graph_intern(g, name, id);
    *id = guess;
    return MP_OK;
}

struct mp_slice mp_graph_interned(const struct mp_graph *g, uint32_t id)
{
    mp_assert(id <= g->interned_count);
    return id == 0 ? (struct mp_slice){0} : g->interned_names[id - 1];
}

struct mp_graph_effect *mp_graph_effect_add(struct mp_graph *g, enum mp_graph_effect_kind kind)
{
    struct mp_graph_effect *effects =
        mp_graph_grow(g, g->effects, &g->effects_capacity, sizeof(*effects), g->effects_count + 1);
    if (!effects)
        return NULL;
    g->effects = effects;
    size_t *offsets =
        mp_graph_grow(g, g->offsets, &g->offsets_capacity, sizeof(*offsets), g->effects_count + 1);
    if (!offsets)
        return NULL;
    g->offsets = offsets;
    struct mp_graph_effect *e = &g->effects[g->effects_count];
    g->offsets[g->effects_count++] = g->scratch.size;
    *e = (struct mp_graph_effect){.kind = kind};
    return e;
}

/* Scratch moved while it grew: only now are the addresses of built bytes final. */
static void seal_effects(struct mp_graph *g)
{
    if (!g->scratch.data)
        return; /* nothing was built */
    for (uint32_t i = 0; i < g->effects_count; i++) {
        struct mp_graph_effect *e = &g->effects[i];
        const uint8_t *bytes = g->scratch.data + g->offsets[i];
        if (e->kind == MP_GRAPH_INVOKE)
            e->invoke.args.data = bytes;
        else if (e->kind == MP_GRAPH_REFUSED)
            e->refused.error.data = bytes;
        else if (e->kind == MP_GRAPH_FINISHED)
            e->finished.run.data = bytes;
    }
}

static void clear_effects(struct mp_graph *g)
{
    if (g->effects_capacity > EFFECTS_KEPT) {
        mp_alloc_free(g->alloc, g->effects, g->effects_capacity * sizeof(*g->effects));
        mp_alloc_free(g->alloc, g->offsets, g->offsets_capacity * sizeof(*g->offsets));
        g->effects = NULL;
        g->offsets = NULL;
        g->effects_capacity = 0;
        g->offsets_capacity = 0;
    }
    g->effects_count = 0;
    g->summary_size = 0;
    if (g->scratch.capacity > SCRATCH_BYTES_KEPT)
        mp_buf_fini(&g->scratch);
    mp_buf_clear(&g->scratch);
}

/* --- phases --- */

static enum mp_err refuse(struct mp_graph *g)
{
    struct mp_graph_effect *e = mp_graph_effect_add(g, MP_GRAPH_REFUSED);
    if (!e)
        return MP_ENOMEM;
    size_t before = g->scratch.size;
    enum mp_err err = mp_graph_fault_put_all(g, &g->scratch);
    e->refused.error.size = g->scratch.size - before;
    g->phase = MP_GRAPH_PHASE_OVER;
    g->status = MP_GRAPH_FAILED;
    return err;
}

/* A refusal that is no fault of the graph. */
static enum mp_err refuse_with(struct mp_graph *g, enum mp_code code, const char *reason,
                               const char *text)
{
    struct mp_graph_effect *e = mp_graph_effect_add(g, MP_GRAPH_REFUSED);
    if (!e)
        return MP_ENOMEM;
    struct mp_fault f = {
        .code = code, .reason = mp_slice_str(reason), .message = mp_slice_str(text)};
    size_t before = g->scratch.size;
    enum mp_err err = mp_fault_put(&g->scratch, &f);
    e->refused.error.size = g->scratch.size - before;
    g->phase = MP_GRAPH_PHASE_OVER;
    g->status = code == MP_CODE_CANCELLED ? MP_GRAPH_CANCELLED : MP_GRAPH_FAILED;
    return err;
}

static enum mp_err on_load(struct mp_graph *g, const struct mp_graph_event *ev)
{
    enum mp_err err = mp_graph_load(g, ev->load.graph, ev->load.input);
    g->phase = MP_GRAPH_PHASE_LOADED;
    /* Between the passes `result` holds a step's body, which is the driver's. */
    for (uint32_t i = 0; err != MP_OK && i < g->count; i++)
        g->steps[i].result = (struct mp_slice){0};
    for (uint32_t i = 0; err == MP_OK && i < g->count; i++) {
        const struct mp_graph_step_record *s = &g->steps[i];
        if (s->has_fault || s->fun.size == 0)
            continue;
        struct mp_graph_effect *e = mp_graph_effect_add(g, MP_GRAPH_RESOLVE);
        if (!e)
            return MP_ENOMEM;
        e->resolve.step = i;
        e->resolve.name = s->name;
        e->resolve.fun = s->fun;
        e->resolve.version = s->version_wanted;
        e->resolve.on = s->on;
        e->resolve.cluster = s->cluster;
        e->resolve.needs = s->needs.count != 0 ? g->needs + s->needs.first : NULL;
        e->resolve.needs_count = s->needs.count;
        g->resolves_left++;
    }
    return err;
}

static enum mp_err on_resolved(struct mp_graph *g, const struct mp_graph_event *ev)
{
    uint32_t i = ev->resolved.step;
    mp_assert(i < g->count && !g->steps[i].is_resolved);
    mp_assert(g->resolves_left != 0);
    struct mp_graph_step_record *s = &g->steps[i];
    s->is_resolved = true;
    g->resolves_left--;
    s->workers = ev->resolved.workers;
    s->is_idempotent = ev->resolved.is_idempotent;
    s->is_refused = ev->resolved.is_refused;
    if (s->is_refused)
        return s->is_preset && !s->is_gone ? MP_OK
                                           : mp_graph_fault_add_resolver(g, i, &ev->resolved.fault);
    uint32_t before = i == 0 ? 0 : i - 1; /* most steps go where their neighbours go */
    enum mp_err err = mp_graph_intern_near(g, ev->resolved.version, g->steps[before].plan_version,
                                           &s->plan_version);
    return err != MP_OK ? err
                        : mp_graph_intern_near(g, ev->resolved.node, g->steps[before].plan_node,
                                               &s->plan_node);
}

static enum mp_err on_running(struct mp_graph *g, const struct mp_graph_event *ev)
{
    enum mp_err err = MP_OK;
    if (g->now >= g->deadline)
        return mp_graph_time_out(g);
    if (ev->kind == MP_GRAPH_COMPLETED)
        err = mp_graph_call_completed(g, ev);
    else if (ev->kind == MP_GRAPH_FAILED_CALL)
        err = mp_graph_call_failed(g, ev);
    else if (ev->kind == MP_GRAPH_CANCEL_RUN)
        err = mp_graph_cancel(g);
    else if (ev->kind == MP_GRAPH_FETCHED)
        err = mp_graph_held_fetched(g, ev);
    else if (ev->kind == MP_GRAPH_LOST)
        err = mp_graph_held_lost(g, ev->lost.node);
    if (err == MP_OK)
        err = mp_graph_call_timers(g);
    return err != MP_OK ? err : mp_graph_advance(g);
}

/* Some step has no provider, but of so many faults this was not kept, and those that were kept are
 * gone with the steps that are preset. */
static enum mp_err add_dropped_fault(struct mp_graph *g)
{
    static const char reason[] = "UNKNOWN_FUNCTION";
    for (uint32_t i = 0; g->faults_dropped != 0 && i < g->count; i++) {
        if (!g->steps[i].is_refused || g->steps[i].is_preset)
            continue;
        const struct mp_fault f = {.code = MP_CODE_NOT_FOUND,
                                   .reason = mp_slice_str(reason),
                                   .message = mp_slice_str("nobody can run its function")};
        return mp_graph_fault_add_resolver(g, i, &f);
    }
    return MP_OK;
}

static enum mp_err on_start(struct mp_graph *g)
{
    mp_graph_preset_settle(g);
    enum mp_err err = g->faults_count == 0 ? add_dropped_fault(g) : MP_OK;
    if (err != MP_OK)
        return err;
    return g->faults_count != 0 ? refuse(g) : mp_graph_start(g);
}

static enum mp_err take_event(struct mp_graph *g, const struct mp_graph_event *ev)
{
    switch (g->phase) {
    case MP_GRAPH_PHASE_NEW:
        return ev->kind == MP_GRAPH_LOAD ? on_load(g, ev) : MP_EINVAL;
    case MP_GRAPH_PHASE_LOADED:
        if (ev->kind == MP_GRAPH_RESOLVED)
            return on_resolved(g, ev);
        if (ev->kind == MP_GRAPH_PRESET)
            return mp_graph_preset(g, ev);
        if (ev->kind == MP_GRAPH_FROM)
            return mp_graph_preset_from(g, ev);
        if (ev->kind == MP_GRAPH_TIMER || ev->kind == MP_GRAPH_LOST)
            return MP_OK;
        if (ev->kind == MP_GRAPH_CANCEL_RUN)
            return refuse_with(g, MP_CODE_CANCELLED, "RUN_CANCELLED",
                               "the run was cancelled before it began");
        if (ev->kind != MP_GRAPH_START || g->resolves_left != 0)
            return MP_EINVAL;
        return on_start(g);
    case MP_GRAPH_PHASE_RUNNING:
        if (ev->kind == MP_GRAPH_LOAD || ev->kind == MP_GRAPH_RESOLVED ||
            ev->kind == MP_GRAPH_FROM || ev->kind == MP_GRAPH_PRESET || ev->kind == MP_GRAPH_START)
            return MP_EINVAL;
        return on_running(g, ev);
    case MP_GRAPH_PHASE_OVER:
        return MP_OK;
    case MP_GRAPH_PHASE_DEAD:
        break;
    }
    return MP_ENOMEM;
}

/* The driver's mistake, which changed nothing. */
static bool is_refusal(const struct mp_graph_event *ev, enum mp_err err)
{
    return err == MP_EINVAL || (ev->kind == MP_GRAPH_FROM && err == MP_ENOENT) ||
           (ev->kind == MP_GRAPH_PRESET && (err == MP_ENOENT || err == MP_ETOOLARGE));
}

/* What has happened in the step stays in the log: it did happen. */
static enum mp_err recover(struct mp_graph *g)
{
    clear_effects(g);
    if (g->has_begun)
        return mp_graph_collapse(g);
    return refuse_with(g, MP_CODE_RESOURCE_EXHAUSTED, "OUT_OF_MEMORY",
                       "there is not enough memory for this graph");
}

enum mp_err mp_graph_step(struct mp_graph *g, mp_time now, const struct mp_graph_event *ev,
                          struct mp_graph_effects *out)
{
    mp_assert(now >= g->now);
    g->now = now;
    g->serial++;
    clear_effects(g);
    mp_graph_ebb(g);
    enum mp_err err = take_event(g, ev);
    bool is_refused = is_refusal(ev, err);
    if (err != MP_OK && !is_refused && g->phase != MP_GRAPH_PHASE_DEAD) {
        err = recover(g);
        if (err != MP_OK)
            g->phase = MP_GRAPH_PHASE_DEAD;
    }
    if (err != MP_OK)
        g->effects_count = 0;
    seal_effects(g);
    *out = (struct mp_graph_effects){.items = g->effects, .count = g->effects_count};
    return err == MP_OK || is_refused ? err : MP_ENOMEM;
}

mp_time mp_graph_deadline(const struct mp_graph *g)
{
    if (g->phase != MP_GRAPH_PHASE_RUNNING)
        return MP_NEVER;
    mp_time at = mp_heap_first(&g->timers);
    at = g->deadline < at ? g->deadline : at;
    return g->cancel_give_up < at ? g->cancel_give_up : at;
}

enum mp_graph_status mp_graph_status_of(const struct mp_graph *g)
{
    return g->status;
}

/* --- the end --- */

static void free_steps(struct mp_graph *g)
{
    for (uint32_t i = 0; i < g->count; i++) {
        mp_graph_drop(g, &g->steps[i].result);
        mp_graph_drop(g, &g->steps[i].error);
        mp_graph_tries_free(g, i);
        mp_graph_each_free(g, i);
    }
    mp_alloc_free(g->alloc, g->steps, g->count * sizeof(*g->steps));
}

static void free_arrays(struct mp_graph *g)
{
    struct mp_alloc *a = g->alloc;
    mp_alloc_free(a, g->pieces.items, g->pieces.capacity * sizeof(*g->pieces.items));
    mp_alloc_free(a, g->bound.items, g->bound.capacity * sizeof(*g->bound.items));
    mp_alloc_free(a, g->needs, g->needs_capacity * sizeof(*g->needs));
    mp_alloc_free(a, g->edges, g->edges_capacity * sizeof(*g->edges));
    mp_alloc_free(a, g->dependents, g->dependents_capacity * sizeof(*g->dependents));
    mp_alloc_free(a, g->level_first, ((size_t)g->levels + 1) * sizeof(uint32_t));
    mp_alloc_free(a, g->level_left, (size_t)g->levels * sizeof(uint32_t));
    mp_alloc_free(a, g->by_level, (size_t)g->count * sizeof(uint32_t));
    mp_alloc_free(a, g->faults, g->faults_capacity * sizeof(*g->faults));
    mp_alloc_free(a, g->calls, g->calls_capacity * sizeof(*g->calls));
    mp_alloc_free(a, g->timer_places, g->places_capacity * sizeof(*g->timer_places));
    mp_alloc_free(a, g->effects, g->effects_capacity * sizeof(*g->effects));
    mp_alloc_free(a, g->offsets, g->offsets_capacity * sizeof(*g->offsets));
    for (uint32_t i = 0; i < g->interned_count; i++)
        mp_graph_drop(g, &g->interned_names[i]);
    mp_alloc_free(a, g->interned_names, g->interned_capacity * sizeof(*g->interned_names));
    for (uint32_t i = 0; i < g->tries_count; i++)
        mp_graph_drop(g, &g->tries[i].error);
    mp_alloc_free(a, g->tries, g->tries_capacity * sizeof(*g->tries));
    mp_alloc_free(a, g->log, g->log_capacity * sizeof(*g->log));
}

void mp_graph_fini(struct mp_graph *g)
{
    if (!g->alloc)
        return;
    free_steps(g);
    free_arrays(g);
    mp_graph_drop(g, &g->error);
    mp_heap_fini(&g->timers);
    mp_map_fini(&g->interned);
    mp_map_fini(&g->by_name);
    mp_buf_fini(&g->hole);
    mp_buf_fini(&g->fault);
    mp_buf_fini(&g->hint);
    mp_buf_fini(&g->message);
    mp_buf_fini(&g->told_names);
    mp_buf_fini(&g->scratch);
    mp_buf_fini(&g->output_bytes);
    mp_buf_fini(&g->fault_bytes);
    mp_buf_fini(&g->input_bytes);
    mp_buf_fini(&g->own_names);
    memset(g, 0, sizeof(*g));
}
