/* What goes wrong in the first phase, drawn from the seed; and how it is all made good again. */
#include "src/base/assert.h"
#include "src/sim/world_internal.h"

#define CUT_LONGEST       MP_SECONDS(20)
#define PARTITION_LONGEST MP_SECONDS(25)
#define STALLS_LONGEST    MP_SECONDS(8)
#define STALL_LONGEST     MP_SECONDS(3)
#define STALL_GAP         MP_SECONDS(2)
#define LAG_LONGEST       MP_SECONDS(2)
#define CLOCK_LONGEST     MP_SECONDS(3600)
#define DOWN_LONGEST      MP_SECONDS(20)
#define PRESSURE_LONGEST  MP_SECONDS(3)
#define LATENCY_HEALED    MP_MS(1)

static uint32_t up_count(const struct mp_world *w)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < w->node_count; i++)
        count += mp_world_is_up(&w->nodes[i]);
    return count;
}

/* Two nodes, up or not. */
static bool draw_pair(struct mp_world *w, uint32_t *a, uint32_t *b)
{
    *a = (uint32_t)mp_rng_below(&w->rng, w->cfg.nodes);
    *b = (uint32_t)mp_rng_below(&w->rng, w->cfg.nodes);
    return *a != *b;
}

static void put_cut(struct mp_world *w, uint32_t from, uint32_t to, mp_time until)
{
    uint32_t place = w->cut_count;
    for (uint32_t i = 0; i < w->cut_count; i++)
        if (w->cuts[i].until <= w->now)
            place = i;
    if (place == MP_WORLD_CUTS_MAX)
        return;
    if (place == w->cut_count)
        w->cut_count++;
    mp_world_log_time(w, &w->nodes[from], "is not heard any more by one, for", until - w->now);
    mp_world_log_time(w, &w->nodes[to], "does not hear that one, for", until - w->now);
    w->cuts[place] = (struct mp_world_cut){.from = from, .to = to, .until = until};
}

static void cut(struct mp_world *w)
{
    uint32_t a;
    uint32_t b;
    mp_time until = w->now + mp_rng_below(&w->rng, CUT_LONGEST);
    if (!draw_pair(w, &a, &b))
        return;
    put_cut(w, a, b, until);
    if (mp_world_chance(w, 500))
        put_cut(w, b, a, until);
}

static void part(struct mp_world *w)
{
    for (uint32_t i = 0; i < w->node_count; i++)
        w->sides[i] = mp_world_chance(w, 500);
    w->parted_until = w->now + mp_rng_below(&w->rng, PARTITION_LONGEST);
    mp_world_log_time(w, NULL, "is parted for", w->parted_until - w->now);
    for (uint32_t i = 0; i < w->node_count; i++)
        if (w->sides[i] != 0 && w->nodes[i].node)
            mp_world_log(w, &w->nodes[i], "is on the other side", mp_slice_str(""));
}

void mp_world_stall(struct mp_world *w, struct mp_world_node *n)
{
    /* Every other slow node is one to which everything comes late instead. */
    if (n->is_slow && n->number % 2 == 1) {
        n->lags_until = MP_NEVER;
        n->lag_longest = LAG_LONGEST;
        return;
    }
    if (mp_world_is_paused(w, n) || (!n->is_slow && w->now >= n->stalls_until))
        return;
    mp_duration how_long = mp_rng_below(&w->rng, STALL_LONGEST);
    mp_world_node_pause(w, n, how_long);
    mp_world_plan(w, how_long + mp_rng_below(&w->rng, STALL_GAP),
                  (struct mp_world_happening){
                      .kind = MP_WORLD_NODE_STALLS, .node = n->number, .number = n->boot});
}

static void crash(struct mp_world *w, struct mp_world_node *n)
{
    if (up_count(w) < 3)
        return;
    mp_world_node_crash(w, n, mp_world_chance(w, 400));
    if (mp_world_chance(w, 300))
        mp_world_disk_lost(w, n);
    if (n->number >= w->cfg.nodes) {
        n->is_removed = true;
        return;
    }
    /* Without the seed nobody would ever hear of a new name. */
    if (mp_world_chance(w, 100) && !w->cfg.faults.is_seed_lost && !w->topics) {
        n->name = mp_world_new_name(w);
        mp_world_disk_lost(w, n);
    } else if (mp_world_chance(w, 100) && n->number != 0) {
        n->is_removed = true;
        return;
    }
    mp_world_plan(w, mp_world_latency(w, DOWN_LONGEST),
                  (struct mp_world_happening){.kind = MP_WORLD_NODE_STARTS, .node = n->number});
}

static void leave(struct mp_world *w, struct mp_world_node *n)
{
    if (up_count(w) < 3 || n->number == 0 || mp_world_is_paused(w, n))
        return;
    mp_world_node_leave(w, n);
    /* Nobody dials one that said goodbye, so without its seed it would stay alone. */
    n->is_removed =
        mp_world_chance(w, 300) || n->number >= w->cfg.nodes || w->cfg.faults.is_seed_lost;
    mp_world_plan(w, MP_SECONDS(1) + mp_rng_below(&w->rng, DOWN_LONGEST),
                  (struct mp_world_happening){.kind = MP_WORLD_NODE_STARTS, .node = n->number});
}

/* Another node takes a name that is in use, or was a moment ago. */
static void clash(struct mp_world *w)
{
    uint32_t extra = w->cfg.nodes + (uint32_t)mp_rng_below(&w->rng, MP_WORLD_EXTRAS);
    /* Not that of the seed: nobody would find the one that displaced it. */
    const struct mp_world_node *holder = &w->nodes[1 + mp_rng_below(&w->rng, w->cfg.nodes - 1)];
    struct mp_world_node *n = &w->nodes[extra];
    if (n->node || w->cfg.faults.is_seed_lost)
        return;
    n->name = holder->name;
    mp_world_disk_lost(w, n);
    mp_world_node_start(w, n);
}

static void press(struct mp_world *w, struct mp_world_node *n)
{
    if (n->conn_count == 0 || mp_world_is_paused(w, n))
        return;
    uint32_t place = (uint32_t)mp_rng_below(&w->rng, n->conn_count);
    struct mp_world_conn *c = &n->conns[place];
    uint64_t number = (uint64_t)c->generation << 32 | place;
    const struct mp_node_event ev = {.kind = MP_NODE_PRESSURE,
                                     .pressure = {.client = number, .is_high = true}};
    if (c->kind == MP_WORLD_CONN_FREE || c->is_high)
        return;
    c->is_high = true;
    mp_world_step(w, n, &ev);
    mp_world_plan(
        w, mp_world_latency(w, PRESSURE_LONGEST),
        (struct mp_world_happening){.kind = MP_WORLD_EASED, .node = n->number, .number = number});
}

static bool is_held(const struct mp_world *w, uint32_t name)
{
    for (uint32_t i = 0; i < w->node_count; i++)
        if (w->nodes[i].name == name && (w->nodes[i].node || !w->nodes[i].is_removed))
            return true;
    return false;
}

/* Somebody asks to forget a member that is dead for good. */
static void forget(struct mp_world *w, struct mp_world_node *n)
{
    struct mp_member_info info;
    if (mp_world_is_paused(w, n))
        return;
    for (uint32_t name = 0; name < w->name_count; name++)
        if (!is_held(w, name) && !w->names[name].is_forgotten && mp_world_view(n, name, &info) &&
            info.state >= MP_MEMBER_DEAD) {
            char data[16];
            mp_world_log(w, n, "is asked to forget", mp_world_name_of(name, data));
            mp_world_forget(w, n, name);
            return;
        }
}

static void happen_to(struct mp_world *w, struct mp_world_node *n, enum mp_world_fault fault)
{
    switch (fault) {
    case MP_WORLD_CUT:
        cut(w);
        break;
    case MP_WORLD_PARTITION:
        part(w);
        break;
    case MP_WORLD_STALL:
        n->stalls_until = w->now + mp_rng_below(&w->rng, STALLS_LONGEST);
        mp_world_stall(w, n);
        break;
    case MP_WORLD_LAG:
        n->lags_until = w->now + mp_rng_below(&w->rng, STALLS_LONGEST);
        n->lag_longest = mp_rng_below(&w->rng, LAG_LONGEST) + 1;
        mp_world_log_time(w, n, "hears late, by", n->lag_longest);
        break;
    case MP_WORLD_CLOCK:
        n->clock += mp_world_latency(w, CLOCK_LONGEST);
        mp_world_log(w, n, "has another time", mp_slice_str(""));
        mp_world_set_timer(w, n);
        break;
    case MP_WORLD_CRASH:
        crash(w, n);
        break;
    case MP_WORLD_LEAVE:
        leave(w, n);
        break;
    case MP_WORLD_CLASH:
        clash(w);
        break;
    case MP_WORLD_PRESSURE:
        press(w, n);
        break;
    case MP_WORLD_FORGET:
        forget(w, n);
        break;
    case MP_WORLD_FAULTS:
        break;
    }
}

void mp_world_fault_due(struct mp_world *w)
{
    const struct mp_world_faults *f = &w->cfg.faults;
    uint32_t sum = 0;
    for (uint32_t i = 0; i < MP_WORLD_FAULTS; i++)
        sum += f->weights[i];
    if (sum == 0 || w->now >= w->faults_until)
        return;
    uint32_t drawn = (uint32_t)mp_rng_below(&w->rng, sum);
    uint32_t fault = 0;
    while (drawn >= f->weights[fault])
        drawn -= f->weights[fault++];
    struct mp_world_node *n = mp_world_any_node(w);
    if (n) {
        w->report->faults++;
        happen_to(w, n, (enum mp_world_fault)fault);
    }
    mp_world_plan(w, mp_rng_below(&w->rng, 2 * f->gap) + 1,
                  (struct mp_world_happening){.kind = MP_WORLD_FAULT_DUE});
}

void mp_world_heal(struct mp_world *w)
{
    w->is_healed = true;
    mp_world_log(w, NULL, "heals", mp_slice_str(""));
    w->cfg.faults.loss = 0;
    w->cfg.faults.duplicated = 0;
    w->cfg.faults.late = 0;
    w->cfg.faults.garbage = 0;
    w->cfg.out_of_memory = 0;
    w->cfg.latency_longest = LATENCY_HEALED;
    w->cfg.chances.fails = 0;
    w->cfg.chances.dies = 0;
    w->cfg.chances.spins = 0;
    w->cfg.chances.start_fails = 0;
    w->cfg.chances.retires = 0;
    w->cfg.chances.is_full = 0;
    w->cfg.chances.disk_full = 0;
    w->cfg.chances.load_fails = 0;
    mp_world_network_heal(w);
    for (uint32_t i = 0; i < w->node_count; i++) {
        struct mp_world_node *n = &w->nodes[i];
        n->stalls_until = 0;
        n->lags_until = 0;
        n->disk_full_until = 0;
        if (!n->node && !n->is_removed)
            mp_world_node_start(w, n);
        else if (n->node && mp_world_is_paused(w, n))
            mp_world_node_pause(w, n, 0);
    }
    if (w->cfg.faults.is_seed_lost)
        mp_world_introduce_strangers(w);
}
