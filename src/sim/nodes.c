/* Nodes: how they start, crash, come back and leave; what each keeps on its disk; and which part of
 * the world carries out which of their effects. */
#include "src/base/assert.h"
#include "src/sim/world_internal.h"

#define WALL_MS     1700000000000ull
#define LEAVES_IN   MP_MS(50)     /* what a node that is done still has to say is written */
#define WORD_LASTS  MP_SECONDS(5) /* under way to a node that stands still */
#define SET_BACK_MS 100000000u    /* a wall clock that was set wrong */

/* --- names and addresses --- */

uint32_t mp_world_new_name(struct mp_world *w)
{
    w->names = (struct mp_world_name *)mp_world_grow(w, w->names, &w->name_capacity,
                                                     w->name_count + 1, sizeof(*w->names));
    return w->name_count++;
}

struct mp_slice mp_world_name_of(uint32_t name, char *data)
{
    struct mp_text text;
    mp_text_init(&text, data, 16);
    mp_text_put(&text, "n");
    mp_text_put_uint(&text, name + 1u);
    return mp_text_slice(&text);
}

uint32_t mp_world_name_in(const struct mp_world *w, struct mp_slice text)
{
    uint64_t number = 0;
    if (text.size < 2 || text.size > 10 || text.data[0] != 'n')
        return MP_WORLD_NONE;
    for (size_t i = 1; i < text.size; i++) {
        if (text.data[i] < '0' || text.data[i] > '9')
            return MP_WORLD_NONE;
        number = number * 10 + text.data[i] - '0';
    }
    return number == 0 || number > w->name_count ? MP_WORLD_NONE : (uint32_t)number - 1;
}

struct mp_address mp_world_address_of(uint32_t node)
{
    uint16_t port = 7400;
    return (struct mp_address){.size = 6,
                               .bytes = {10, (uint8_t)(node >> 16), (uint8_t)(node >> 8),
                                         (uint8_t)node, (uint8_t)(port >> 8), (uint8_t)port}};
}

uint32_t mp_world_node_at(const struct mp_world *w, const struct mp_address *a)
{
    if (a->size != 6 || a->bytes[0] != 10 || mp_address_port(a) != 7400)
        return MP_WORLD_NONE;
    uint32_t node = (uint32_t)a->bytes[1] << 16 | (uint32_t)a->bytes[2] << 8 | a->bytes[3];
    return node < w->node_count ? node : MP_WORLD_NONE;
}

mp_time mp_world_clock(const struct mp_world *w, const struct mp_world_node *n)
{
    return mp_time_add(w->now, n->clock);
}

struct mp_world_node *mp_world_any_node(struct mp_world *w)
{
    uint32_t up = 0;
    for (uint32_t i = 0; i < w->node_count; i++)
        up += mp_world_is_up(&w->nodes[i]);
    if (up == 0)
        return NULL;
    uint32_t skip = (uint32_t)mp_rng_below(&w->rng, up);
    for (uint32_t i = 0;; i++)
        if (mp_world_is_up(&w->nodes[i]) && skip-- == 0)
            return &w->nodes[i];
}

bool mp_world_has_module(const struct mp_world_node *n, uint32_t module)
{
    return (n->modules >> module & 1) != 0 &&
           (module != MP_WORLD_MODULE_LATE || n->is_late_module_there);
}

/* --- memory --- */

static void *node_resize(void *context, void *p, size_t old_size, size_t new_size)
{
    struct mp_world_node *n = (struct mp_world_node *)context;
    struct mp_world *w = n->world;
    if (new_size > old_size && w->may_fail && w->cfg.out_of_memory != 0 &&
        mp_rng_below(&w->failures, 1000000) < w->cfg.out_of_memory) {
        w->report->failed_allocations++;
        return NULL;
    }
    void *q = w->alloc->resize(w->alloc->context, p, old_size, new_size);
    mp_assert(q || new_size == 0);
    n->bytes += new_size - old_size;
    return q;
}

/* --- birth --- */

/* Not all nodes have all, but each module and resource is somewhere. */
static void draw_belongings(struct mp_world *w)
{
    for (uint32_t i = 0; i < w->cfg.nodes; i++) {
        struct mp_world_node *n = &w->nodes[i];
        bool is_alone = w->cfg.nodes == 1;
        for (uint32_t k = 0; k < MP_WORLD_MODULES; k++)
            if (is_alone || k == i % MP_WORLD_MODULES || mp_world_chance(w, 400))
                n->modules |= 1u << k;
        for (uint32_t k = 0; k < MP_WORLD_RESOURCES; k++)
            if (is_alone ? k == 0 : k == i % MP_WORLD_RESOURCES || mp_world_chance(w, 300))
                n->resources |= 1u << k;
    }
}

void mp_world_nodes_init(struct mp_world *w)
{
    uint32_t count = w->cfg.nodes + MP_WORLD_EXTRAS;
    w->node_count = count;
    w->nodes = (struct mp_world_node *)mp_world_take(w, count * sizeof(*w->nodes));
    w->timer_places = (uint32_t *)mp_world_take(w, count * sizeof(*w->timer_places));
    w->sides = (uint8_t *)mp_world_take(w, count);
    for (uint32_t i = 0; i < count; i++) {
        struct mp_world_node *n = &w->nodes[i];
        w->timer_places[i] = MP_HEAP_NONE;
        n->world = w;
        n->number = i;
        n->name = i < w->cfg.nodes ? mp_world_new_name(w) : MP_WORLD_NONE;
        n->alloc = (struct mp_alloc){.resize = node_resize, .context = n};
        n->conn_free = MP_WORLD_NONE;
        n->is_removed = i >= w->cfg.nodes;
        n->is_slow = i >= w->cfg.nodes - w->cfg.slow && i < w->cfg.nodes;
        if (w->cfg.nodes > 1)
            n->clock = mp_rng_below(&w->rng, MP_SECONDS(100000));
        mp_world_code_init(w, n);
    }
    draw_belongings(w);
}

static void tell_seed(struct mp_world *w, struct mp_world_node *n, uint32_t number, uint32_t seed)
{
    const struct mp_node_event ev = {.kind = MP_NODE_SEED,
                                     .seed = {.number = number, .addr = mp_world_address_of(seed)}};
    mp_world_step_surely(w, n, &ev);
}

/* Where it is told to join: all the first node, the first node itself or another one; and some a
 * second one, unless the first is to be the only one and get lost. */
static void tell_seeds(struct mp_world *w, struct mp_world_node *n)
{
    uint32_t other = (uint32_t)mp_rng_below(&w->rng, w->cfg.nodes);
    if (w->cfg.nodes == 1)
        return;
    tell_seed(w, n, 0, n->number == 0 ? other : 0);
    if (w->cfg.scenario == MP_WORLD_MIXED && !w->cfg.faults.is_seed_lost && mp_world_chance(w, 300))
        tell_seed(w, n, 1, other);
}

/* Whether a node dials another one, sooner or later, without being told to. */
static bool knows(const struct mp_world_node *n, const struct mp_world_node *other)
{
    struct mp_member_info info;
    struct mp_address there = mp_world_address_of(other->number);
    return mp_world_view(n, other->name, &info) && info.state != MP_MEMBER_LEFT &&
           mp_address_equal(&info.addr, &there);
}

/* Marks all whom the marked ones know or who know one of them. */
static void mark_acquainted(const struct mp_world *w, uint8_t *is_marked)
{
    bool is_new = true;
    while (is_new) {
        is_new = false;
        for (uint32_t i = 0; i < w->node_count; i++)
            for (uint32_t k = 0; k < w->node_count; k++) {
                const struct mp_world_node *n = &w->nodes[i];
                const struct mp_world_node *other = &w->nodes[k];
                if (is_marked[i] == is_marked[k] || !mp_world_is_up(n) || !mp_world_is_up(other) ||
                    !knows(n, other))
                    continue;
                is_marked[i] = is_marked[k] = 1;
                is_new = true;
            }
    }
}

void mp_world_introduce_strangers(struct mp_world *w)
{
    const struct mp_world_node *first = NULL;
    memset(w->sides, 0, w->node_count);
    for (uint32_t i = 0; i < w->node_count; i++) {
        struct mp_world_node *n = &w->nodes[i];
        if (!mp_world_is_up(n) || w->sides[i] != 0)
            continue;
        if (first) {
            mp_world_log(w, n, "is told another seed", mp_slice_str(""));
            tell_seed(w, n, 0, first->number);
        } else {
            first = n;
        }
        w->sides[i] = 1;
        mark_acquainted(w, w->sides);
    }
}

/* One more than what is persisted, or the wall clock's time if that is later, as hosts do it. The
 * wall clock may have been set back meanwhile, and the disk may be another one. */
static uint64_t next_generation(struct mp_world *w, const struct mp_world_node *n)
{
    uint64_t wall = WALL_MS + w->now / MP_MS(1);
    if (w->cfg.faults.weights[MP_WORLD_CRASH] != 0 && n->boot > 1 && mp_world_chance(w, 300))
        wall -= mp_rng_below(&w->rng, SET_BACK_MS);
    return n->disk >= wall ? n->disk + 1 : wall;
}

static void create(struct mp_world *w, struct mp_world_node *n)
{
    struct mp_slice resources[MP_WORLD_RESOURCES];
    char name[16];
    struct mp_node_config cfg = {
        .name = mp_world_name_of(n->name, name),
        .cluster = mp_slice_str("default"),
        .resources = resources,
        .is_kept = w->topics && n->number % 2 == 0,
        .generation = next_generation(w, n),
        .defects = w->cfg.defects,
        .workers = w->cfg.workers,
        .call_timeout = MP_WORLD_CALL_TIMEOUT,
        .run_timeout = MP_WORLD_RUN_TIMEOUT,
        .value_bytes_max = 1u << 20,
        .calls_begun_max = 1 + (uint32_t)mp_rng_below(&w->rng, 64),
        .calls_queued_max = 8 + (uint32_t)mp_rng_below(&w->rng, 500),
        .call_depth_max = 4,
        .graph_steps_max = 1000,
        .runs_kept = MP_WORLD_RUNS_KEPT,
        .runs_kept_bytes = 8u << 20,
        .runs_kept_age = MP_SECONDS(3600),
    };
    for (uint32_t i = 0; i < MP_WORLD_RESOURCES; i++)
        if ((n->resources >> i & 1) != 0)
            resources[cfg.resource_count++] = mp_slice_str(mp_world_resources[i]);
    n->disk = cfg.generation;
    enum mp_err err = mp_node_new(&n->node, &cfg, &n->alloc, mp_rng_next(&w->rng));
    mp_assert(err == MP_OK);
}

void mp_world_node_start(struct mp_world *w, struct mp_world_node *n)
{
    mp_assert(!n->node);
    n->boot++;
    create(w, n);
    n->state = MP_WORLD_NODE_UP;
    n->is_removed = false;
    n->is_known = false;
    n->started_at = w->now;
    char name[16];
    mp_world_log(w, n, "starts as", mp_world_name_of(n->name, name));
    n->drained = 0;
    n->changes_seen = 0;
    n->unseen = 0;
    n->last_live = 0;
    if (n->views)
        memset(n->views, 0, n->view_capacity * sizeof(*n->views));
    mp_world_code_restore(w, n);
    mp_world_records_restore(w, n);
    if (w->cfg.scenario != MP_WORLD_MEMBERSHIP)
        for (uint32_t i = 0; i < MP_WORLD_MODULES; i++)
            if (mp_world_has_module(n, i))
                mp_world_add_module(w, n, i);
    const struct mp_node_event start = {
        .kind = MP_NODE_START,
        .start = {.addr = mp_world_address_of(n->number), .wall_ms = mp_world_wall(w, n)}};
    mp_world_step_surely(w, n, &start);
    tell_seeds(w, n);
    if (n->is_slow)
        mp_world_stall(w, n);
}

/* --- death --- */

static void stop(struct mp_world *w, struct mp_world_node *n, bool is_off)
{
    mp_world_topics_node_ended(w, n);
    mp_world_network_lost(w, n, is_off);
    mp_world_clients_lost(w, n);
    mp_world_runs_lost(w, n, is_off);
    mp_world_workers_lost(n);
    mp_world_code_lost(w, n);
    if (is_off)
        mp_world_records_power_cut(w, n);
    mp_world_drop_blocks(w, n);
    mp_node_free(n->node);
    n->node = NULL;
    if (n->bytes != 0)
        mp_world_violation(w, "memory", "bytes left over", n->bytes);
    n->bytes = 0;
    n->state = is_off ? MP_WORLD_NODE_OFF : MP_WORLD_NODE_DOWN;
    n->paused_until = 0;
    mp_world_set_timer(w, n);
}

void mp_world_node_crash(struct mp_world *w, struct mp_world_node *n, bool is_off)
{
    w->report->crashes++;
    mp_world_log(w, n, "crashes", mp_slice_str(is_off ? "with its machine" : "alone"));
    w->names[n->name].lost_at = w->now;
    stop(w, n, is_off);
}

void mp_world_node_leave(struct mp_world *w, struct mp_world_node *n)
{
    const struct mp_node_event drain = {.kind = MP_NODE_DRAIN};
    n->state = MP_WORLD_NODE_LEAVING;
    mp_world_topics_node_ended(w, n);
    mp_world_log(w, n, "leaves", mp_slice_str(""));
    mp_world_step(w, n, &drain);
}

void mp_world_node_pause(struct mp_world *w, struct mp_world_node *n, mp_duration how_long)
{
    if (!mp_world_is_paused(w, n))
        n->paused_from = w->now;
    n->paused_until = w->now + how_long;
    mp_world_clients_wait(w, n, how_long);
    mp_world_log_time(w, n, "stands still", how_long);
    mp_world_set_timer(w, n);
}

static void on_drained(struct mp_world *w, struct mp_world_node *n)
{
    if (++n->drained != 1 || n->state != MP_WORLD_NODE_LEAVING || mp_node_outstanding(n->node) != 0)
        mp_world_violation(w, "quiet", "DRAINED at the wrong time", n->number);
    if (w->cfg.nodes > 1)
        mp_world_plan(w, LEAVES_IN,
                      (struct mp_world_happening){
                          .kind = MP_WORLD_NODE_ENDS, .node = n->number, .number = n->boot});
}

/* Its name is another's: that must be true, or have been when the other said so. */
static void on_stop(struct mp_world *w, struct mp_world_node *n)
{
    mp_time lost_at = w->names[n->name].lost_at;
    bool is_taken = lost_at != 0 && lost_at >= n->started_at && w->now - lost_at <= WORD_LASTS;
    for (uint32_t i = 0; i < w->node_count; i++)
        is_taken = is_taken || (w->nodes[i].node && i != n->number && w->nodes[i].name == n->name);
    if (!is_taken)
        mp_world_violation(w, "names", "a node ends because of a name that nobody else has",
                           n->number + 1u);
    mp_world_log(w, n, "ends", mp_slice_str("its name is taken"));
    n->state = MP_WORLD_NODE_LEAVING;
    n->is_removed = true;
    mp_world_plan(w, 0,
                  (struct mp_world_happening){
                      .kind = MP_WORLD_NODE_ENDS, .node = n->number, .number = n->boot});
}

static void give_late_module(struct mp_world *w, struct mp_world_node *n)
{
    n->is_late_module_there = true;
    w->late_modules++;
    mp_world_add_module(w, n, MP_WORLD_MODULE_LATE);
}

void mp_world_node_happening(struct mp_world *w, const struct mp_world_happening *h)
{
    struct mp_world_node *n = &w->nodes[h->node];
    if (h->kind == MP_WORLD_NODE_STARTS) {
        if (!n->node && !n->is_removed)
            mp_world_node_start(w, n);
        return;
    }
    if (!n->node)
        return;
    if (h->kind != MP_WORLD_NODE_STALLS && mp_world_is_paused(w, n)) {
        mp_world_plan(w, n->paused_until - w->now, *h);
        return;
    }
    if (h->kind == MP_WORLD_NODE_ENDS && h->number == n->boot) {
        if (n->drained != 0)
            w->names[n->name].lost_at = w->now;
        stop(w, n, false);
    } else if (h->kind == MP_WORLD_NODE_STALLS && h->number == n->boot) {
        mp_world_stall(w, n);
    } else if (h->kind == MP_WORLD_DRAIN) {
        mp_world_node_leave(w, n);
    } else if (h->kind == MP_WORLD_LATE_MODULE && !n->is_late_module_there) {
        give_late_module(w, n);
    }
}

void mp_world_nodes_fini(struct mp_world *w)
{
    for (uint32_t i = 0; i < w->node_count; i++) {
        struct mp_world_node *n = &w->nodes[i];
        if (n->node)
            stop(w, n, false);
        mp_world_workers_fini(w, n);
        mp_world_code_fini(w, n);
        mp_alloc_free(w->alloc, n->conns, n->conn_capacity * sizeof(*n->conns));
        mp_alloc_free(w->alloc, n->views, n->view_capacity * sizeof(*n->views));
    }
    for (uint32_t i = 0; i < w->name_count; i++)
        mp_alloc_free(w->alloc, w->names[i].words,
                      w->names[i].word_capacity * sizeof(*w->names[i].words));
    mp_alloc_free(w->alloc, w->names, w->name_capacity * sizeof(*w->names));
    mp_alloc_free(w->alloc, w->timer_places, w->node_count * sizeof(*w->timer_places));
    mp_alloc_free(w->alloc, w->sides, w->node_count);
    mp_alloc_free(w->alloc, w->nodes, w->node_count * sizeof(*w->nodes));
}

/* --- effects --- */

static bool is_to_node(const struct mp_world_node *n, const struct mp_node_effect *e)
{
    const struct mp_world_conn *c = mp_world_conn(n, e->client);
    return c && c->kind == MP_WORLD_CONN_LINK;
}

static void reply(struct mp_world *w, struct mp_world_node *n, const struct mp_node_effect *e)
{
    if (is_to_node(n, e))
        mp_world_send_frame(w, n, e);
    else
        mp_world_reply(w, n, e);
    mp_world_give_block(w, n, e->payload.handle);
}

void mp_world_node_effect(struct mp_world *w, struct mp_world_node *n,
                          const struct mp_node_effect *e)
{
    struct mp_node_effect events = *e;
    struct mp_node_effect event;
    switch (e->kind) {
    case MP_NODE_REPLY:
        reply(w, n, e);
        break;
    case MP_NODE_EVENTS:
        while (mp_node_next_event(&events, &event))
            reply(w, n, &event);
        if (events.payload.bytes.size != 0)
            mp_world_violation(w, "one-answer", "EVENTS that are no whole frames", n->number);
        break;
    case MP_NODE_SEND_FRAME:
        mp_world_send_frame(w, n, e);
        mp_world_give_block(w, n, e->payload.handle);
        break;
    case MP_NODE_RELEASE:
        mp_world_give_block(w, n, e->payload.handle);
        break;
    case MP_NODE_SEND_DATAGRAM:
        mp_world_send_datagram(w, n, e);
        break;
    case MP_NODE_DIAL:
        mp_world_dial(w, n, e);
        break;
    case MP_NODE_CLOSE:
        mp_world_close(w, n, e);
        break;
    case MP_NODE_PERSIST:
        if (e->id <= n->disk)
            mp_world_violation(w, "views", "a generation that is kept is none that was raised",
                               n->number);
        n->disk = e->id;
        break;
    case MP_NODE_STOP:
        on_stop(w, n);
        break;
    case MP_NODE_LOG:
        mp_world_log(w, n, "says", e->payload.bytes);
        break;
    case MP_NODE_DRAINED:
        on_drained(w, n);
        break;
    default:
        if (!mp_world_code_effect(w, n, e))
            mp_world_worker_effect(w, n, e);
        break;
    }
}
