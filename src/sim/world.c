/* Time, the node's events and effects, and the books in which promises are kept. See world.h. */
#include "src/base/assert.h"
#include "src/sim/world_internal.h"
#include "src/wire/msgpack.h"

#define HAPPENINGS_AT_ONCE_MAX 200000u          /* more without time passing: it goes in circles */
#define LIFE_MAX               MP_SECONDS(7200) /* a world that is not quiet by then never will */

/* --- memory --- */

void *mp_world_grow(struct mp_world *w, void *array, uint32_t *capacity, uint32_t wanted,
                    size_t item)
{
    if (wanted <= *capacity)
        return array;
    uint32_t next = *capacity == 0 ? 16 : *capacity;
    while (next < wanted)
        next *= 2;
    void *grown = w->alloc->resize(w->alloc->context, array, *capacity * item, next * item);
    mp_assert(grown);
    memset((uint8_t *)grown + *capacity * item, 0, (next - *capacity) * item);
    *capacity = next;
    return grown;
}

static void *node_resize(void *context, void *p, size_t old_size, size_t new_size)
{
    struct mp_world *w = (struct mp_world *)context;
    if (new_size > old_size && w->may_fail && w->cfg.out_of_memory != 0 &&
        mp_rng_below(&w->failures, 1000000) < w->cfg.out_of_memory) {
        w->report->failed_allocations++;
        return NULL;
    }
    void *q = w->alloc->resize(w->alloc->context, p, old_size, new_size);
    mp_assert(q || new_size == 0);
    w->node_bytes += new_size - old_size;
    return q;
}

/* --- chance --- */

bool mp_world_chance(struct mp_world *w, uint16_t of_1000)
{
    return mp_rng_below(&w->rng, 1000) < of_1000;
}

mp_duration mp_world_latency(struct mp_world *w, mp_duration longest)
{
    return mp_rng_below(&w->rng, longest >> mp_rng_below(&w->rng, 14)) + 1;
}

void mp_world_defaults(struct mp_world_config *cfg, uint64_t seed)
{
    struct mp_rng rng;
    mp_rng_init(&rng, seed ^ 0x776f726c64u);
    *cfg = (struct mp_world_config){.seed = seed,
                                    .workers = 1 + (uint32_t)mp_rng_below(&rng, 4),
                                    .clients = 1 + (uint32_t)mp_rng_below(&rng, 8),
                                    .requests = 150 + (uint32_t)mp_rng_below(&rng, 150),
                                    .is_drained = mp_rng_below(&rng, 8) == 0};
    const struct mp_world_chances most = {.run = 300,
                                          .query = 60,
                                          .malformed = 40,
                                          .cancelled = 150,
                                          .client_leaves = 60,
                                          .calls_on = 400,
                                          .sleeps = 300,
                                          .fails = 200,
                                          .dies = 15,
                                          .spins = 8,
                                          .retires = 40,
                                          .is_large = 300,
                                          .start_fails = 300,
                                          .is_full = 100,
                                          .begins_meanwhile = 500};
    uint16_t chances[sizeof(most) / sizeof(uint16_t)];
    memcpy(chances, &most, sizeof(most));
    for (size_t i = 0; i < MP_ARRAY_SIZE(chances); i++)
        chances[i] = (uint16_t)mp_rng_below(&rng, chances[i] + 1u);
    memcpy(&cfg->chances, chances, sizeof(chances));
}

/* --- books --- */

void mp_world_violation(struct mp_world *w, const char *what, uint64_t number)
{
    struct mp_world_report *r = w->report;
    if (r->violation_count < MP_WORLD_VIOLATIONS_MAX) {
        struct mp_world_violation *v = &r->violations[r->violation_count];
        struct mp_text text;
        v->at = w->now;
        mp_text_init(&text, v->text, sizeof(v->text));
        mp_text_put(&text, what);
        mp_text_put(&text, ": ");
        mp_text_put_uint(&text, number);
    }
    r->violation_count++;
}

uint32_t mp_world_new_serial(struct mp_world *w, uint32_t begins_max)
{
    w->serials = (struct mp_world_serial *)mp_world_grow(w, w->serials, &w->serial_capacity,
                                                         w->serial_count + 1, sizeof(*w->serials));
    w->serials[w->serial_count] = (struct mp_world_serial){.begins_max = begins_max};
    return w->serial_count++;
}

struct mp_rpc_payload mp_world_payload(struct mp_world *w, struct mp_slice bytes)
{
    if (bytes.size == 0 || !mp_world_chance(w, w->cfg.chances.is_large))
        return (struct mp_rpc_payload){.bytes = bytes};
    w->blocks = (struct mp_world_block *)mp_world_grow(w, w->blocks, &w->block_capacity,
                                                       w->block_count + 1, sizeof(*w->blocks));
    struct mp_world_block *block = &w->blocks[w->block_count++];
    block->bytes = mp_alloc_take(w->alloc, bytes.size);
    block->size = bytes.size;
    mp_assert(block->bytes);
    memcpy(block->bytes, bytes.data, bytes.size);
    w->blocks_live++;
    return (struct mp_rpc_payload){.bytes = mp_slice_of(block->bytes, bytes.size),
                                   .handle = w->block_count};
}

static void free_block(struct mp_world *w, struct mp_world_block *block)
{
    mp_alloc_free(w->alloc, block->bytes, block->size);
    block->bytes = NULL;
}

void mp_world_give_block(struct mp_world *w, uint64_t handle)
{
    if (handle == 0)
        return;
    if (handle > w->block_count || !w->blocks[handle - 1].bytes) {
        mp_world_violation(w, "a block went out twice, or never came in", handle);
        return;
    }
    free_block(w, &w->blocks[handle - 1]);
    w->blocks_live--;
}

uint32_t mp_world_serial_in(struct mp_slice bytes)
{
    struct mp_slice value;
    int64_t serial;
    if (bytes.size == 0 || mp_mp_array_get(bytes, 0, &value) != MP_OK ||
        mp_mp_get_int(value, &serial) != MP_OK || serial <= 0 || serial > INT32_MAX)
        return 0;
    return (uint32_t)serial;
}

/* --- happenings --- */

void mp_world_plan(struct mp_world *w, mp_duration after, struct mp_world_happening h)
{
    if (w->happening_free == MP_WORLD_NONE) {
        uint32_t before = w->happening_capacity;
        uint32_t same = before;
        w->happenings = (struct mp_world_happening *)mp_world_grow(
            w, w->happenings, &w->happening_capacity, before + 1, sizeof(*w->happenings));
        w->places = (uint32_t *)mp_world_grow(w, w->places, &same, before + 1, sizeof(*w->places));
        for (uint32_t i = w->happening_capacity; i-- > before;) {
            w->places[i] = MP_HEAP_NONE;
            w->happenings[i].place = w->happening_free;
            w->happening_free = i;
        }
    }
    uint32_t key = w->happening_free;
    w->happening_free = w->happenings[key].place;
    w->happenings[key] = h;
    enum mp_err err = mp_heap_set(&w->heap, w->places, key, mp_time_add(w->now, after));
    mp_assert(err == MP_OK);
}

static struct mp_world_happening take_happening(struct mp_world *w, uint32_t key)
{
    struct mp_world_happening h = w->happenings[key];
    w->happenings[key].place = w->happening_free;
    w->happening_free = key;
    return h;
}

static void happen(struct mp_world *w, const struct mp_world_happening *h)
{
    const struct mp_node_event drain = {.kind = MP_NODE_DRAIN};
    switch (h->kind) {
    case MP_WORLD_REQUEST_DUE:
    case MP_WORLD_CANCEL_DUE:
    case MP_WORLD_LATE_MODULE:
        mp_world_client_happening(w, h);
        break;
    case MP_WORLD_DRAIN:
        w->is_draining = true;
        mp_world_step(w, &drain);
        break;
    case MP_WORLD_WORKER_STARTED:
    case MP_WORLD_WORKER_DIES:
    case MP_WORLD_TURN_ENDS:
    case MP_WORLD_MESSAGES:
    case MP_WORLD_WAKES:
        mp_world_worker_happening(w, h);
        break;
    }
}

/* --- the node --- */

static void digest(struct mp_world *w, const struct mp_node_effect *e)
{
    const uint64_t fields[] = {w->now,    e->kind,   e->frame,    e->is_error,
                               e->level,  e->worker, e->module,   e->function,
                               e->client, e->id,     e->deadline, e->payload.handle};
    uint64_t d = w->report->digest;
    d = mp_slice_hash(mp_slice_of(fields, sizeof(fields)), d);
    d = mp_slice_hash(e->context, d);
    w->report->digest = mp_slice_hash(e->payload.bytes, d);
}

static void carry_out(struct mp_world *w, const struct mp_node_effect *e)
{
    digest(w, e);
    switch (e->kind) {
    case MP_NODE_REPLY:
        mp_world_reply(w, e);
        mp_world_give_block(w, e->payload.handle);
        break;
    case MP_NODE_RELEASE:
        mp_world_give_block(w, e->payload.handle);
        break;
    case MP_NODE_LOG:
        break;
    case MP_NODE_DRAINED:
        if (++w->drained != 1 || !w->is_draining || mp_node_outstanding(w->node) != 0)
            mp_world_violation(w, "DRAINED at the wrong time", w->drained);
        break;
    default:
        mp_world_worker_effect(w, e);
        break;
    }
}

static void step_once(struct mp_world *w, const struct mp_node_event *ev)
{
    struct mp_node_effects out = {0};
    w->may_fail = true;
    enum mp_err err = mp_node_step(w->node, w->now, ev, &out);
    w->may_fail = false;
    if (err != MP_OK && (err != MP_ENOMEM || w->cfg.out_of_memory == 0))
        mp_world_violation(w, "a step failed", (uint64_t)err);
    for (uint32_t i = 0; i < out.count; i++)
        carry_out(w, &out.items[i]);
    if (++w->steps_at_now == HAPPENINGS_AT_ONCE_MAX)
        mp_world_violation(w, "it goes in circles: steps without time passing", w->steps_at_now);
}

void mp_world_answer(struct mp_world *w, const struct mp_node_event *ev)
{
    w->events = (struct mp_node_event *)mp_world_grow(w, w->events, &w->event_capacity,
                                                      w->event_count + 1, sizeof(*w->events));
    w->events[w->event_count++] = *ev;
}

void mp_world_step(struct mp_world *w, const struct mp_node_event *ev)
{
    step_once(w, ev);
    while (w->event_first < w->event_count && w->steps_at_now < HAPPENINGS_AT_ONCE_MAX) {
        const struct mp_node_event next = w->events[w->event_first++];
        step_once(w, &next);
    }
    w->event_first = 0;
    w->event_count = 0;
}

void mp_world_step_surely(struct mp_world *w, const struct mp_node_event *ev)
{
    uint32_t out_of_memory = w->cfg.out_of_memory;
    w->cfg.out_of_memory = 0;
    mp_world_step(w, ev);
    w->cfg.out_of_memory = out_of_memory;
}

/* --- life --- */

static void begin(struct mp_world *w)
{
    static const struct mp_slice resources[] = {{(const uint8_t *)"gpu", 3}};
    const struct mp_node_config node = {
        .name = mp_slice_str("n1"),
        .cluster = mp_slice_str("default"),
        .resources = resources,
        .resource_count = 1,
        .workers = w->cfg.workers,
        .call_timeout = MP_WORLD_CALL_TIMEOUT,
        .run_timeout = MP_WORLD_RUN_TIMEOUT,
        .value_bytes_max = 1u << 20,
        .calls_begun_max = 1 + (uint32_t)mp_rng_below(&w->rng, 64),
        .calls_queued_max = 8 + (uint32_t)mp_rng_below(&w->rng, 500),
        .call_depth_max = 4,
        .graph_steps_max = 1000,
    };
    enum mp_err err = mp_node_new(&w->node, &node, &w->node_alloc, mp_rng_next(&w->rng));
    mp_assert(err == MP_OK);
    w->now = MP_SECONDS(1000);
    const struct mp_node_event start = {.kind = MP_NODE_START,
                                        .start = {.addr = mp_slice_str("127.0.0.1:7400")}};
    mp_world_add_modules(w);
    mp_world_step_surely(w, &start);
    mp_world_plan(w, 0, (struct mp_world_happening){.kind = MP_WORLD_REQUEST_DUE});
    mp_world_plan(w, MP_MS(mp_rng_below(&w->rng, 300)),
                  (struct mp_world_happening){.kind = MP_WORLD_LATE_MODULE});
}

static void live(struct mp_world *w)
{
    const struct mp_node_event timer = {.kind = MP_NODE_TIMER};
    for (;;) {
        mp_time due = mp_node_deadline(w->node);
        mp_time next = mp_heap_first(&w->heap);
        mp_time at = due < next ? due : next;
        if (at == MP_NEVER || w->steps_at_now >= HAPPENINGS_AT_ONCE_MAX)
            return;
        if (at > w->now) {
            w->now = at;
            w->steps_at_now = 0;
        }
        if (w->now > LIFE_MAX) {
            mp_world_violation(w, "it never gets quiet: seconds", w->now / MP_SECONDS(1));
            return;
        }
        uint32_t key;
        if (due <= w->now) {
            mp_world_step(w, &timer);
        } else if (mp_heap_pop(&w->heap, w->places, w->now, &key)) {
            const struct mp_world_happening h = take_happening(w, key);
            happen(w, &h);
        }
    }
}

static void check_quiet(struct mp_world *w)
{
    /* Runs that are over are swept by the next step, whichever it is. */
    const struct mp_node_event timer = {.kind = MP_NODE_TIMER};
    mp_world_step(w, &timer);
    mp_world_clients_check_answered(w);
    mp_world_workers_check_idle(w);
    if (mp_node_outstanding(w->node) != 0)
        mp_world_violation(w, "calls and runs left over", mp_node_outstanding(w->node));
    if (mp_node_numbers_in_use(w->node) != 0)
        mp_world_violation(w, "numbers of calls left over", mp_node_numbers_in_use(w->node));
    if (mp_node_pool(w->node)->queued != 0)
        mp_world_violation(w, "tasks left in the queue", mp_node_pool(w->node)->queued);
    if (w->blocks_live != 0)
        mp_world_violation(w, "blocks that never went out", w->blocks_live);
    if (w->is_draining && w->drained != 1)
        mp_world_violation(w, "it was never DRAINED", w->drained);
}

static void end(struct mp_world *w)
{
    mp_node_free(w->node);
    if (w->node_bytes != 0)
        mp_world_violation(w, "bytes of memory left over", w->node_bytes);
    mp_world_workers_fini(w);
    for (uint32_t i = 0; i < w->block_count; i++)
        free_block(w, &w->blocks[i]);
    mp_heap_fini(&w->heap);
    mp_alloc_free(w->alloc, w->happenings, w->happening_capacity * sizeof(*w->happenings));
    mp_alloc_free(w->alloc, w->places, w->happening_capacity * sizeof(*w->places));
    mp_alloc_free(w->alloc, w->events, w->event_capacity * sizeof(*w->events));
    mp_alloc_free(w->alloc, w->requests, w->request_capacity * sizeof(*w->requests));
    mp_alloc_free(w->alloc, w->serials, w->serial_capacity * sizeof(*w->serials));
    mp_alloc_free(w->alloc, w->blocks, w->block_capacity * sizeof(*w->blocks));
    mp_alloc_free(w->alloc, w->clients, w->cfg.clients * sizeof(*w->clients));
}

void mp_world_live(const struct mp_world_config *cfg, struct mp_alloc *a,
                   struct mp_world_report *report)
{
    struct mp_world *w = mp_alloc_take(a, sizeof(*w));
    mp_assert(w);
    memset(w, 0, sizeof(*w));
    *report = (struct mp_world_report){0};
    w->cfg = *cfg;
    w->report = report;
    w->alloc = a;
    w->node_alloc = (struct mp_alloc){.resize = node_resize, .context = w};
    w->happening_free = MP_WORLD_NONE;
    mp_rng_init(&w->rng, cfg->seed);
    mp_rng_init(&w->failures, ~cfg->seed);
    mp_heap_init(&w->heap, a);
    w->clients = mp_alloc_take(a, cfg->clients * sizeof(*w->clients));
    mp_assert(w->clients);
    for (uint32_t i = 0; i < cfg->clients; i++)
        w->clients[i] = i;
    (void)mp_world_new_serial(w, UINT32_MAX); /* 0 means none */
    begin(w);
    live(w);
    check_quiet(w);
    report->virtual_time = w->now - MP_SECONDS(1000);
    end(w);
    mp_alloc_free(a, w, sizeof(*w));
}
