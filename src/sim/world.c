/* Time, the nodes' events and effects, and the books in which promises are kept. See world.h. */
#include "src/base/assert.h"
#include "src/sim/world_internal.h"
#include "src/wire/msgpack.h"

#define STEPS_AT_ONCE_MAX 200000u /* more without time passing: it goes in circles */

/* --- memory --- */

void *mp_world_take(struct mp_world *w, size_t size)
{
    void *p = mp_alloc_take(w->alloc, size);
    mp_assert(p);
    memset(p, 0, size);
    return p;
}

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

/* --- chance --- */

bool mp_world_chance(struct mp_world *w, uint16_t of_1000)
{
    return mp_rng_below(&w->rng, 1000) < of_1000;
}

mp_duration mp_world_latency(struct mp_world *w, mp_duration longest)
{
    return mp_rng_below(&w->rng, longest >> mp_rng_below(&w->rng, 14)) + 1;
}

/* --- books --- */

void mp_world_violation(struct mp_world *w, const char *invariant, const char *what,
                        uint64_t number)
{
    struct mp_world_report *r = w->report;
    if (r->violation_count < MP_WORLD_VIOLATIONS_MAX) {
        struct mp_world_violation *v = &r->violations[r->violation_count];
        struct mp_text text;
        v->at = w->now - MP_WORLD_BEGINS_AT;
        v->invariant = invariant;
        mp_text_init(&text, v->text, sizeof(v->text));
        mp_text_put(&text, what);
        mp_text_put(&text, ": ");
        mp_text_put_uint(&text, number);
        mp_world_log(w, NULL, "BROKEN", mp_text_slice(&text));
    }
    r->violation_count++;
}

void mp_world_log(struct mp_world *w, const struct mp_world_node *n, const char *what,
                  struct mp_slice text)
{
    if (w->cfg.on_log)
        w->cfg.on_log(w->cfg.log_context, w->now - MP_WORLD_BEGINS_AT, n ? n->number + 1 : 0, what,
                      text);
}

void mp_world_log_time(struct mp_world *w, const struct mp_world_node *n, const char *what,
                       mp_duration how_long)
{
    char data[32];
    struct mp_text text;
    mp_text_init(&text, data, sizeof(data));
    mp_text_put_uint(&text, how_long / MP_MS(1));
    mp_text_put(&text, " ms");
    mp_world_log(w, n, what, mp_text_slice(&text));
}

uint32_t mp_world_new_serial(struct mp_world *w, uint32_t origin, const struct mp_world_function *f,
                             uint32_t begins_max, uint32_t root)
{
    w->serials = (struct mp_world_serial *)mp_world_grow(w, w->serials, &w->serial_capacity,
                                                         w->serial_count + 1, sizeof(*w->serials));
    w->serials[w->serial_count] =
        (struct mp_world_serial){.function = (uint32_t)(f - mp_world_functions),
                                 .root = root != 0 ? root : w->serial_count,
                                 .begins_max = begins_max,
                                 .origin = origin,
                                 .first_arrival = MP_WORLD_NONE};
    return w->serial_count++;
}

struct mp_rpc_payload mp_world_shared(struct mp_world *w, const struct mp_world_node *n,
                                      struct mp_slice bytes)
{
    w->blocks = (struct mp_world_block *)mp_world_grow(w, w->blocks, &w->block_capacity,
                                                       w->block_count + 1, sizeof(*w->blocks));
    struct mp_world_block *block = &w->blocks[w->block_count++];
    *block = (struct mp_world_block){
        .bytes = mp_alloc_take(w->alloc, bytes.size), .size = bytes.size, .node = n->number};
    mp_assert(block->bytes);
    memcpy(block->bytes, bytes.data, bytes.size);
    w->blocks_live++;
    return (struct mp_rpc_payload){.bytes = mp_slice_of(block->bytes, bytes.size),
                                   .handle = w->block_count};
}

struct mp_rpc_payload mp_world_payload(struct mp_world *w, const struct mp_world_node *n,
                                       struct mp_slice bytes)
{
    if (bytes.size == 0 || !mp_world_chance(w, w->cfg.chances.is_large))
        return (struct mp_rpc_payload){.bytes = bytes};
    return mp_world_shared(w, n, bytes);
}

static void free_block(struct mp_world *w, struct mp_world_block *block)
{
    mp_alloc_free(w->alloc, block->bytes, block->size);
    block->bytes = NULL;
    w->blocks_live--;
}

void mp_world_give_block(struct mp_world *w, const struct mp_world_node *n, uint64_t handle)
{
    if (handle == 0)
        return;
    if (handle > w->block_count || !w->blocks[handle - 1].bytes ||
        w->blocks[handle - 1].node != n->number) {
        mp_world_violation(w, "blocks", "a block went out twice, or never came in", handle);
        return;
    }
    free_block(w, &w->blocks[handle - 1]);
}

void mp_world_drop_blocks(struct mp_world *w, const struct mp_world_node *n)
{
    for (uint32_t i = 0; w->blocks_live != 0 && i < w->block_count; i++)
        if (w->blocks[i].bytes && w->blocks[i].node == n->number)
            free_block(w, &w->blocks[i]);
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
    switch (h->kind) {
    case MP_WORLD_REQUEST_DUE:
    case MP_WORLD_CANCEL_DUE:
        mp_world_client_happening(w, h);
        break;
    case MP_WORLD_WORKER_STARTED:
    case MP_WORLD_WORKER_DIES:
    case MP_WORLD_TURN_ENDS:
    case MP_WORLD_MESSAGES:
    case MP_WORLD_WAKES:
        mp_world_worker_happening(w, h);
        break;
    case MP_WORLD_DATAGRAM_DUE:
    case MP_WORLD_DIAL_DUE:
    case MP_WORLD_LINK_DUE:
    case MP_WORLD_LINK_WATCHED:
    case MP_WORLD_LINK_ALONE:
    case MP_WORLD_EASED:
        mp_world_network_happening(w, h);
        break;
    case MP_WORLD_LATE_MODULE:
    case MP_WORLD_DRAIN:
    case MP_WORLD_NODE_STARTS:
    case MP_WORLD_NODE_ENDS:
    case MP_WORLD_NODE_STALLS:
        mp_world_node_happening(w, h);
        break;
    case MP_WORLD_CODE_DUE:
        mp_world_code_happening(w, h);
        break;
    case MP_WORLD_FAULT_DUE:
        mp_world_fault_due(w);
        break;
    case MP_WORLD_TOPIC_DUE:
        mp_world_topic_due(w);
        break;
    }
}

/* --- stepping --- */

static void digest(struct mp_world *w, const struct mp_world_node *n,
                   const struct mp_node_effect *e)
{
    const uint64_t fields[] = {w->now,   n->number,   e->kind,           e->frame,    e->is_error,
                               e->level, e->worker,   e->module,         e->function, e->client,
                               e->id,    e->deadline, e->payload.handle, e->release,  e->unit};
    uint64_t d = w->report->digest;
    d = mp_slice_hash(mp_slice_of(fields, sizeof(fields)), d);
    d = mp_slice_hash(mp_address_slice(&e->addr), d);
    d = mp_slice_hash(e->context, d);
    w->report->digest = mp_slice_hash(e->payload.bytes, d);
}

void mp_world_set_timer(struct mp_world *w, struct mp_world_node *n)
{
    if (!n->node) {
        mp_heap_remove(&w->timers, w->timer_places, n->number);
        return;
    }
    mp_time due = mp_node_deadline(n->node);
    if (due != MP_NEVER)
        due = due > n->clock ? due - n->clock : 0;
    if (due < n->paused_until)
        due = n->paused_until;
    if (due == MP_NEVER) {
        mp_heap_remove(&w->timers, w->timer_places, n->number);
        return;
    }
    enum mp_err err = mp_heap_set(&w->timers, w->timer_places, n->number, due);
    mp_assert(err == MP_OK);
}

static void step_once(struct mp_world *w, struct mp_world_node *n, const struct mp_node_event *ev)
{
    struct mp_node_effects out = {0};
    w->report->steps++;
    w->may_fail = true;
    enum mp_err err = mp_node_step(n->node, mp_world_clock(w, n), ev, &out);
    w->may_fail = false;
    if (err != MP_OK && (err != MP_ENOMEM || w->cfg.out_of_memory == 0))
        mp_world_violation(w, "progress", "a step failed", (uint64_t)err);
    for (uint32_t i = 0; i < out.count; i++) {
        digest(w, n, &out.items[i]);
        mp_world_node_effect(w, n, &out.items[i]);
    }
    mp_world_watch_step(w, n);
    if (++w->steps_at_now == STEPS_AT_ONCE_MAX) {
        mp_world_violation(w, "progress", "it goes in circles: steps without time passing",
                           w->steps_at_now);
        w->is_broken = true;
    }
}

void mp_world_answer(struct mp_world *w, const struct mp_node_event *ev)
{
    w->events = (struct mp_node_event *)mp_world_grow(w, w->events, &w->event_capacity,
                                                      w->event_count + 1, sizeof(*w->events));
    w->events[w->event_count++] = *ev;
}

void mp_world_step(struct mp_world *w, struct mp_world_node *n, const struct mp_node_event *ev)
{
    mp_assert(n->node);
    if (w->victim == n->number && w->victim_steps != 0 && --w->victim_steps == 0) {
        mp_world_node_crash(w, n, w->cfg.seed % 2 == 0);
        return;
    }
    step_once(w, n, ev);
    while (w->event_first < w->event_count && !w->is_broken) {
        const struct mp_node_event next = w->events[w->event_first++];
        step_once(w, n, &next);
    }
    w->event_first = 0;
    w->event_count = 0;
    mp_world_set_timer(w, n);
}

void mp_world_step_surely(struct mp_world *w, struct mp_world_node *n,
                          const struct mp_node_event *ev)
{
    uint32_t out_of_memory = w->cfg.out_of_memory;
    w->cfg.out_of_memory = 0;
    mp_world_step(w, n, ev);
    w->cfg.out_of_memory = out_of_memory;
}

void mp_world_run(struct mp_world *w, mp_time until)
{
    const struct mp_node_event timer = {.kind = MP_NODE_TIMER};
    while (!w->is_broken) {
        mp_time due = mp_heap_first(&w->timers);
        mp_time next = mp_heap_first(&w->heap);
        mp_time at = due < next ? due : next;
        if (at > until)
            break;
        if (at > w->now) {
            w->now = at;
            w->steps_at_now = 0;
        }
        uint32_t key;
        if (due <= w->now) { /* the step sets the node's timer anew */
            mp_world_step(w, &w->nodes[mp_heap_first_key(&w->timers)], &timer);
        } else if (mp_heap_pop(&w->heap, w->places, w->now, &key)) {
            const struct mp_world_happening h = take_happening(w, key);
            happen(w, &h);
        }
    }
    if (until > w->now) {
        w->now = until;
        w->steps_at_now = 0;
    }
}

/* --- a whole life --- */

static void begin(struct mp_world *w)
{
    w->now = MP_WORLD_BEGINS_AT;
    w->happening_free = MP_WORLD_NONE;
    w->datagram_free = MP_WORLD_NONE;
    w->link_free = MP_WORLD_NONE;
    w->victim = MP_WORLD_NONE;
    mp_rng_init(&w->rng, w->cfg.seed);
    mp_rng_init(&w->failures, ~w->cfg.seed);
    mp_heap_init(&w->heap, w->alloc);
    mp_heap_init(&w->timers, w->alloc);
    (void)mp_world_new_serial(w, 0, &mp_world_functions[0], UINT32_MAX, 0); /* 0 means none */
    mp_world_nodes_init(w);
    mp_world_clients_init(w);
    mp_world_topics_init(w);
}

static void end(struct mp_world *w)
{
    mp_world_nodes_fini(w);
    mp_world_network_fini(w);
    mp_world_clients_fini(w);
    mp_world_deploys_fini(w);
    mp_world_topics_fini(w);
    for (uint32_t i = 0; i < w->block_count; i++)
        if (w->blocks[i].bytes)
            free_block(w, &w->blocks[i]);
    mp_heap_fini(&w->heap);
    mp_heap_fini(&w->timers);
    mp_alloc_free(w->alloc, w->happenings, w->happening_capacity * sizeof(*w->happenings));
    mp_alloc_free(w->alloc, w->places, w->happening_capacity * sizeof(*w->places));
    mp_alloc_free(w->alloc, w->events, w->event_capacity * sizeof(*w->events));
    mp_alloc_free(w->alloc, w->serials, w->serial_capacity * sizeof(*w->serials));
    mp_alloc_free(w->alloc, w->arrivals, w->arrival_capacity * sizeof(*w->arrivals));
    mp_alloc_free(w->alloc, w->blocks, w->block_capacity * sizeof(*w->blocks));
}

void mp_world_live(const struct mp_world_config *cfg, struct mp_alloc *a,
                   struct mp_world_report *report)
{
    struct mp_world *w = mp_alloc_take(a, sizeof(*w));
    mp_assert(w);
    memset(w, 0, sizeof(*w));
    memset(report, 0, sizeof(*report));
    w->cfg = *cfg;
    w->report = report;
    w->alloc = a;
    report->converged_ms = -1;
    report->healed_ms = -1;
    begin(w);
    mp_world_scenario(w);
    report->virtual_time = w->now - MP_WORLD_BEGINS_AT;
    end(w);
    mp_alloc_free(a, w, sizeof(*w));
}
