/* Scenarios: what is in a world, how it lives through its two phases, what is measured on the way,
 * and that nothing is left over in the end. */
#include "src/base/assert.h"
#include "src/sim/world_internal.h"

#define START_GAP        MP_MS(20)
#define STARTS_LAST      MP_SECONDS(10) /* many nodes start closer to each other */
#define KNOWN_WITHIN     MP_SECONDS(30)
#define AGREED_WITHIN    MP_SECONDS(30) /* after everything is healed */
#define REDIALLED_WITHIN MP_SECONDS(90) /* where only the dead's own addresses are left */
#define PARTED_WITHIN    MP_SECONDS(10) /* after a partition, however long it was */
#define SETTLING_LASTS   MP_SECONDS(40) /* after the start: links to seeds are closed */
#define QUIET_WITHIN     MP_SECONDS(60)
#define LIFE_MAX         MP_SECONDS(7200) /* a node that is not quiet by then never will be */
#define LOOKED_EACH      MP_MS(100)
#define MEASURED_EACH    MP_MS(10)
#define STRAGGLERS_LAST  MP_SECONDS(3)
#define ADDITION_GAP     MP_MS(300)
#define NOTICED_WITHIN   MP_SECONDS(10) /* a death on one side of a partition */
#define ASKED_ALL_UP_TO  16             /* nodes: each is asked for everything in the end */
#define FALSE_DEATH_LOSS 100 /* of 1,000: with no more than that nobody is taken for dead */
#define DETECTED_WITHIN  MP_SECONDS(30)
#define DISK_FULL_MOST   40 /* of 1,000; so below */
#define LOAD_FAILS_MOST  40

/* --- what is in a world --- */

/* Each seed leans another way. */
static void draw_chances(struct mp_rng *rng, struct mp_world_chances *out)
{
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
                                          .is_huge = 30,
                                          .start_fails = 300,
                                          .is_full = 100,
                                          .begins_meanwhile = 500,
                                          .disk_full = 0,
                                          .load_fails = 0,
                                          .change = 0,
                                          .ask = 0};
    uint16_t chances[sizeof(most) / sizeof(uint16_t)];
    memcpy(chances, &most, sizeof(most));
    for (size_t i = 0; i < MP_ARRAY_SIZE(chances); i++)
        chances[i] = (uint16_t)mp_rng_below(rng, chances[i] + 1u);
    memcpy(out, chances, sizeof(chances));
}

void mp_world_defaults(struct mp_world_config *cfg, uint64_t seed)
{
    struct mp_rng rng;
    mp_rng_init(&rng, seed ^ 0x776f726c64u);
    *cfg = (struct mp_world_config){.seed = seed,
                                    .scenario = MP_WORLD_GRAPH,
                                    .nodes = 1,
                                    .workers = 1 + (uint32_t)mp_rng_below(&rng, 4),
                                    .clients = 1 + (uint32_t)mp_rng_below(&rng, 8),
                                    .requests = 150 + (uint32_t)mp_rng_below(&rng, 150),
                                    .is_drained = mp_rng_below(&rng, 8) == 0,
                                    .latency_longest = MP_MS(1)};
    draw_chances(&rng, &cfg->chances);
}

static void draw_faults(struct mp_rng *rng, struct mp_world_faults *f)
{
    const struct mp_world_faults most = {
        .loss = 200, .duplicated = 100, .late = 100, .garbage = 20};
    static const uint16_t weights[MP_WORLD_FAULTS] = {
        [MP_WORLD_CUT] = 40,   [MP_WORLD_PARTITION] = 15, [MP_WORLD_STALL] = 25,
        [MP_WORLD_LAG] = 20,   [MP_WORLD_CLOCK] = 15,     [MP_WORLD_CRASH] = 40,
        [MP_WORLD_LEAVE] = 15, [MP_WORLD_CLASH] = 10,     [MP_WORLD_PRESSURE] = 20,
        [MP_WORLD_FORGET] = 10};
    f->loss = (uint16_t)mp_rng_below(rng, (most.loss >> mp_rng_below(rng, 4)) + 1u);
    f->duplicated = (uint16_t)mp_rng_below(rng, most.duplicated);
    f->late = (uint16_t)mp_rng_below(rng, most.late);
    f->garbage = (uint16_t)mp_rng_below(rng, most.garbage);
    f->late_longest = MP_MS(1 + mp_rng_below(rng, 2000));
    f->gap = MP_MS(200 + mp_rng_below(rng, 3000));
    f->is_seed_lost = mp_rng_below(rng, 3) == 0;
    for (uint32_t i = 0; i < MP_WORLD_FAULTS; i++)
        f->weights[i] = (uint16_t)mp_rng_below(rng, weights[i] + 1u);
    f->weights[MP_WORLD_CRASH]++;
}

static void draw_routing(struct mp_world_config *cfg, struct mp_rng *rng)
{
    struct mp_world_faults *f = &cfg->faults;
    cfg->chances.run = 0;
    if (mp_rng_below(rng, 3) == 0)
        return; /* only the functions and the workers fail */
    f->gap = MP_MS(200 + mp_rng_below(rng, 2000));
    f->weights[MP_WORLD_CUT] = 60;
    f->weights[MP_WORLD_CRASH] = (uint16_t)mp_rng_below(rng, 30);
    f->weights[MP_WORLD_STALL] = (uint16_t)mp_rng_below(rng, 10);
    f->weights[MP_WORLD_PRESSURE] = (uint16_t)mp_rng_below(rng, 20);
}

/* Nobody asks for anything but topics. Every other world has faults; names stay with their nodes,
 * by which messages are known. */
static void draw_topics(struct mp_world_config *cfg, struct mp_rng *rng)
{
    cfg->requests = 0;
    cfg->clients = 0;
    if (mp_rng_below(rng, 2) == 0)
        return;
    draw_faults(rng, &cfg->faults);
    cfg->faults.is_seed_lost = false;
    cfg->faults.weights[MP_WORLD_CLASH] = 0;
    cfg->faults.weights[MP_WORLD_FORGET] = 0;
    cfg->faults.weights[MP_WORLD_CLOCK] = 0; /* it jumps past the hour that messages are kept for */
    if (mp_rng_below(rng, 8) == 0)
        cfg->out_of_memory = 1u << mp_rng_below(rng, 10);
}

void mp_world_draw(struct mp_world_config *cfg, enum mp_world_scenario scenario, uint32_t nodes,
                   uint64_t seed)
{
    struct mp_rng rng;
    mp_rng_init(&rng, seed ^ 0x6e6f646573u);
    mp_world_defaults(cfg, seed);
    cfg->scenario = scenario;
    cfg->nodes = nodes;
    if (scenario == MP_WORLD_GRAPH) {
        cfg->chances.run = 700;
        cfg->chances.ask = 300;
    }
    if (nodes == 1 && scenario == MP_WORLD_GRAPH)
        return;
    cfg->is_drained = false;
    cfg->workers = 1 + (uint32_t)mp_rng_below(&rng, 3);
    cfg->faults_last = MP_SECONDS(10) + mp_rng_below(&rng, MP_SECONDS(20));
    cfg->idle_last = MP_SECONDS(60);
    if (scenario == MP_WORLD_MEMBERSHIP || scenario == MP_WORLD_CATALOG) {
        cfg->workers = 1;
        cfg->requests = 0;
        cfg->clients = 0;
        cfg->crashes = nodes <= 200 ? 200 : nodes <= 500 ? 60 : nodes <= 2000 ? 20 : 3;
        cfg->additions = nodes <= 200 ? 200 : 50;
        return;
    }
    cfg->latency_longest = MP_MS(1) << mp_rng_below(&rng, 6);
    if (scenario == MP_WORLD_ROUTING) {
        draw_routing(cfg, &rng);
    } else if (scenario == MP_WORLD_TOPICS) {
        draw_topics(cfg, &rng);
    } else if (scenario == MP_WORLD_DEPLOY && mp_rng_below(&rng, 2) == 0) {
        cfg->chances.malformed = 0; /* only functions and workers fail */
    } else {
        draw_faults(&rng, &cfg->faults);
        if (mp_rng_below(&rng, 8) == 0)
            cfg->out_of_memory = 1u << mp_rng_below(&rng, 10);
        cfg->chances.disk_full = (uint16_t)mp_rng_below(&rng, DISK_FULL_MOST);
        cfg->chances.load_fails = (uint16_t)mp_rng_below(&rng, LOAD_FAILS_MOST);
    }
    if (scenario == MP_WORLD_MIXED)
        cfg->chances.ask = (uint16_t)mp_rng_below(&rng, 300);
    if (nodes > MP_WORLD_CHANGED_UP_TO)
        return;
    if (scenario == MP_WORLD_DEPLOY)
        cfg->chances.change = (uint16_t)(80 + mp_rng_below(&rng, 120));
    else if (scenario == MP_WORLD_MIXED && mp_rng_below(&rng, 2) == 0)
        cfg->chances.change = (uint16_t)(20 + mp_rng_below(&rng, 60));
}

/* --- starting, and being left alone --- */

void mp_world_start_all(struct mp_world *w)
{
    mp_duration gap = START_GAP;
    if (gap * w->cfg.nodes > STARTS_LAST)
        gap = STARTS_LAST / w->cfg.nodes;
    for (uint32_t i = 0; i < w->cfg.nodes; i++)
        mp_world_plan(w, gap * i,
                      (struct mp_world_happening){.kind = MP_WORLD_NODE_STARTS, .node = i});
    mp_world_run(w, w->now + gap * (w->cfg.nodes - 1));
}

/* Waits until all know all, and says how long it took in ms; < 0: they never did. */
static double wait_until_known(struct mp_world *w, mp_duration within)
{
    mp_time began = w->now;
    while (!mp_world_is_everybody_known(w)) {
        if (w->now >= began + within || w->is_broken) {
            mp_world_violation(w, "members", "not all know all after so many ms",
                               within / MP_MS(1));
            return -1;
        }
        mp_world_run(w, w->now + (w->cfg.nodes > 200 ? LOOKED_EACH : MEASURED_EACH));
    }
    return (double)(w->now - began) / 1e6;
}

static void put_sample(struct mp_world *w, mp_duration took)
{
    struct mp_world_report *r = w->report;
    if (r->sample_count < MP_WORLD_SAMPLES_MAX)
        r->samples[r->sample_count++] = (double)took / 1e6;
}

/* --- membership --- */

static uint64_t bytes_sent(const struct mp_world *w)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < w->node_count; i++)
        sum += w->nodes[i].bytes_sent;
    return sum;
}

static void watch_idle(struct mp_world *w)
{
    uint64_t memory = 0;
    mp_world_run(w, w->now + SETTLING_LASTS);
    uint64_t before = bytes_sent(w);
    double seconds = (double)w->cfg.idle_last / 1e9;
    mp_world_run(w, w->now + w->cfg.idle_last);
    mp_world_keep_links_alive(w, w->cfg.idle_last);
    for (uint32_t i = 0; i < w->cfg.nodes; i++)
        memory += w->nodes[i].bytes;
    w->report->bytes_per_node_s = (double)(bytes_sent(w) - before) / seconds / w->cfg.nodes;
    w->report->node_bytes = (double)memory / w->cfg.nodes;
}

/* Cut in two halves for a while, in which each buries the other. */
static void watch_partition(struct mp_world *w)
{
    w->is_death_watched = false;
    for (uint32_t i = 0; i < w->node_count; i++)
        w->sides[i] = i % 2;
    w->parted_until = w->now + w->cfg.partition;
    mp_world_run(w, w->parted_until);
    w->report->healed_ms = wait_until_known(w, PARTED_WITHIN);
    mp_world_run(w, w->now + DETECTED_WITHIN);
    w->is_death_watched = w->cfg.faults.loss <= FALSE_DEATH_LOSS;
}

static bool lists_alive(const struct mp_world_node *n, uint32_t name)
{
    struct mp_member_info info;
    return mp_world_view(n, name, &info) && info.state <= MP_MEMBER_SUSPECT;
}

/* One crash: how long until nobody takes it for alive any more. */
static void watch_crash(struct mp_world *w, uint32_t *waiting)
{
    struct mp_world_node *victim = mp_world_any_node(w);
    mp_time began = w->now;
    uint32_t count = 0;
    if (victim->is_slow)
        return;
    for (uint32_t i = 0; i < w->cfg.nodes; i++)
        if (mp_world_is_up(&w->nodes[i]) && !w->nodes[i].is_slow && i != victim->number)
            waiting[count++] = i;
    mp_world_node_crash(w, victim, mp_world_chance(w, 500));
    while (count != 0 && w->now < began + DETECTED_WITHIN && !w->is_broken) {
        mp_world_run(w, w->now + MEASURED_EACH);
        for (uint32_t i = count; i-- > 0;)
            if (!lists_alive(&w->nodes[waiting[i]], victim->name))
                waiting[i] = waiting[--count];
    }
    put_sample(w, w->now - began);
    if (count != 0)
        mp_world_violation(w, "members", "a crash is not known to so many nodes", count);
    mp_world_node_start(w, victim);
    (void)wait_until_known(w, KNOWN_WITHIN);
}

static void live_membership(struct mp_world *w)
{
    uint32_t *waiting = (uint32_t *)mp_world_take(w, w->cfg.nodes * sizeof(*waiting));
    mp_world_start_all(w);
    w->report->converged_ms = wait_until_known(w, KNOWN_WITHIN);
    w->is_death_watched = w->cfg.faults.loss <= FALSE_DEATH_LOSS;
    watch_idle(w);
    if (w->cfg.partition != 0)
        watch_partition(w);
    for (uint32_t i = 0; i < w->cfg.crashes && w->report->violation_count == 0; i++)
        watch_crash(w, waiting);
    mp_alloc_free(w->alloc, waiting, w->cfg.nodes * sizeof(*waiting));
}

/* --- catalog --- */

static bool finds(struct mp_world *w, const struct mp_world_node *n, struct mp_slice fun)
{
    const struct mp_catalog_query q = {.fun = fun};
    struct mp_buf found;
    mp_buf_init(&found, w->alloc, 0);
    enum mp_err err = mp_catalog_find(mp_node_catalog(n->node), &q, &found);
    mp_buf_fini(&found);
    return err == MP_OK;
}

/* One module that appears on one node: how long until every node finds it. */
static void watch_addition(struct mp_world *w, uint32_t number, uint32_t *waiting)
{
    char data[32];
    struct mp_slice fun = mp_world_invented_name(number, data, sizeof(data));
    struct mp_world_node *n = mp_world_any_node(w);
    mp_time began = w->now;
    uint32_t count = 0;
    for (uint32_t i = 0; i < w->cfg.nodes; i++)
        if (mp_world_is_up(&w->nodes[i]))
            waiting[count++] = i;
    mp_world_add_invented(w, n, number);
    while (count != 0 && w->now < began + KNOWN_WITHIN && !w->is_broken) {
        mp_world_run(w, w->now + MEASURED_EACH);
        for (uint32_t i = count; i-- > 0;)
            if (finds(w, &w->nodes[waiting[i]], fun))
                waiting[i] = waiting[--count];
    }
    put_sample(w, w->now - began);
    if (count != 0)
        mp_world_violation(w, "catalog", "a module is not known to so many nodes", count);
}

/* After the faults: all must agree, and within the bound. */
/* Milliseconds that it took; -1: in vain. */
double mp_world_wait_until_agreed(struct mp_world *w, mp_duration within)
{
    mp_time began = w->now;
    while (w->now < began + within && !w->is_broken) {
        if (mp_world_check_agreed(w, false))
            return (double)(w->now - began) / 1e6;
        mp_world_run(w, w->now + LOOKED_EACH);
    }
    if (!w->is_broken)
        (void)mp_world_check_agreed(w, true);
    return -1;
}

/* Whether what appeared in either half is known everywhere, and nothing of the forgotten node. */
static bool knows_both_halves(struct mp_world *w, uint32_t number, bool is_told)
{
    bool is_kept = true;
    for (uint32_t i = 0; i < w->node_count; i++) {
        char data[32];
        const struct mp_world_node *n = &w->nodes[i];
        if (!mp_world_is_up(n))
            continue;
        bool is_revived = finds(w, n, mp_world_invented_name(number, data, sizeof(data)));
        bool is_missing = false;
        for (uint32_t k = 1; k <= 2; k++)
            is_missing =
                is_missing || !finds(w, n, mp_world_invented_name(number + k, data, sizeof(data)));
        if (is_revived && is_told)
            mp_world_violation(w, "forgotten", "a function of a forgotten node is known to node",
                               i + 1);
        if (is_missing && is_told)
            mp_world_violation(w, "catalog", "a function from one half is not known to node",
                               i + 1);
        is_kept = is_kept && !is_revived && !is_missing;
    }
    return is_kept;
}

/* One half buries a node and forgets it while the other half still knows it: the dead must not come
 * back with what the other half remembers, and what is new on either side must reach both. */
static void watch_forgetting(struct mp_world *w, uint32_t number)
{
    if (w->cfg.nodes < 4)
        return;
    struct mp_world_node *victim = &w->nodes[w->cfg.nodes - 1];
    uint32_t by = (w->cfg.nodes - 1) % 2;
    for (uint32_t i = 0; i < w->node_count; i++)
        w->sides[i] = i % 2;
    mp_world_add_invented(w, victim, number);
    mp_world_run(w, w->now + MP_SECONDS(2));
    mp_world_node_crash(w, victim, true);
    victim->is_removed = true;
    victim->name = MP_WORLD_NONE;
    w->parted_until = MP_NEVER;
    mp_world_run(w, w->now + NOTICED_WITHIN);
    mp_world_forget(w, &w->nodes[by], w->cfg.nodes - 1);
    mp_world_add_invented(w, &w->nodes[by], number + 1);
    mp_world_add_invented(w, &w->nodes[1 - by], number + 2);
    mp_world_run(w, w->now + NOTICED_WITHIN);
    mp_world_heal(w);
    w->report->healed_ms = mp_world_wait_until_agreed(w, AGREED_WITHIN);
    mp_time until = w->now + KNOWN_WITHIN;
    while (!knows_both_halves(w, number, false) && w->now < until && !w->is_broken)
        mp_world_run(w, w->now + LOOKED_EACH);
    (void)knows_both_halves(w, number, true);
}

static void live_catalog(struct mp_world *w)
{
    uint32_t *waiting = (uint32_t *)mp_world_take(w, w->cfg.nodes * sizeof(*waiting));
    mp_world_start_all(w);
    w->report->converged_ms = wait_until_known(w, KNOWN_WITHIN);
    for (uint32_t i = 0; i < w->cfg.additions && w->report->violation_count == 0; i++) {
        watch_addition(w, i, waiting);
        mp_world_run(w, w->now + mp_rng_below(&w->rng, ADDITION_GAP));
    }
    if (w->cfg.nodes <= 200)
        watch_forgetting(w, w->cfg.additions);
    mp_alloc_free(w->alloc, waiting, w->cfg.nodes * sizeof(*waiting));
}

/* --- quiet --- */

static bool is_quiet(const struct mp_world *w)
{
    if (w->is_asking || w->blocks_live != 0 || !mp_world_clients_are_answered(w))
        return false;
    for (uint32_t i = 0; i < w->node_count; i++) {
        const struct mp_world_node *n = &w->nodes[i];
        if (n->node && (mp_node_outstanding(n->node) != 0 || mp_node_numbers_in_use(n->node) != 0 ||
                        mp_node_held_count(n->node) != 0 || mp_node_pool(n->node)->queued != 0 ||
                        !mp_world_workers_are_idle(w, n) || !mp_world_code_is_quiet(w, n)))
            return false;
    }
    return true;
}

static void check_node_quiet(struct mp_world *w, struct mp_world_node *n)
{
    mp_world_workers_check_idle(w, n);
    if (mp_node_outstanding(n->node) != 0)
        mp_world_violation(w, "quiet", "calls and runs left over", mp_node_outstanding(n->node));
    if (mp_node_numbers_in_use(n->node) != 0)
        mp_world_violation(w, "quiet", "numbers of calls left over",
                           mp_node_numbers_in_use(n->node));
    if (mp_node_pool(n->node)->queued != 0)
        mp_world_violation(w, "quiet", "tasks left in the queue", mp_node_pool(n->node)->queued);
    if (mp_node_held_count(n->node) != 0)
        mp_world_violation(w, "quiet", "results held for runs that are over",
                           mp_node_held_count(n->node));
    if (!mp_world_code_is_quiet(w, n)) {
        mp_world_violation(w, "quiet", "deploys left over", mp_node_deploy_count(n->node));
        mp_world_violation(w, "quiet", "releases left over", mp_node_release_count(n->node));
        mp_world_violation(w, "quiet", "units left over", mp_node_unit_count(n->node));
    }
    if (n->state == MP_WORLD_NODE_LEAVING && n->drained != 1)
        mp_world_violation(w, "quiet", "it was never DRAINED", n->drained);
}

static bool are_all_up(const struct mp_world *w)
{
    for (uint32_t i = 0; i < w->node_count; i++)
        if (!w->nodes[i].is_removed && !mp_world_is_up(&w->nodes[i]))
            return false;
    return true;
}

static void wait_until_all_up(struct mp_world *w, mp_duration within)
{
    mp_time until = w->now + within;
    while (!are_all_up(w) && w->now < until && !w->is_broken)
        mp_world_run(w, w->now + LOOKED_EACH);
}

void mp_world_wait_until_quiet(struct mp_world *w, mp_duration within)
{
    mp_time until = w->now + within;
    while (!is_quiet(w) && w->now < until && !w->is_broken)
        mp_world_run(w, w->now + LOOKED_EACH);
    /* Runs that are over are swept by the next step, whichever it is. */
    const struct mp_node_event timer = {.kind = MP_NODE_TIMER};
    for (uint32_t i = 0; i < w->node_count && !w->is_broken; i++)
        if (w->nodes[i].node) {
            mp_world_step(w, &w->nodes[i], &timer);
            check_node_quiet(w, &w->nodes[i]);
        }
    mp_world_clients_check_answered(w);
    if (w->blocks_live != 0)
        mp_world_violation(w, "blocks", "blocks that never went out", w->blocks_live);
}

/* --- with clients --- */

static void ask(struct mp_world *w, mp_duration late_module_within)
{
    w->is_asking = true;
    mp_world_plan(w, 0, (struct mp_world_happening){.kind = MP_WORLD_REQUEST_DUE});
    for (uint32_t i = 0; i < w->cfg.nodes; i++)
        if ((w->nodes[i].modules >> MP_WORLD_MODULE_LATE & 1) != 0)
            mp_world_plan(w, mp_rng_below(&w->rng, late_module_within),
                          (struct mp_world_happening){.kind = MP_WORLD_LATE_MODULE, .node = i});
}

static void live_alone(struct mp_world *w)
{
    mp_world_node_start(w, &w->nodes[0]);
    ask(w, MP_MS(300));
    mp_world_wait_until_quiet(w, LIFE_MAX);
}

/* The node that all joined goes for good, so that nobody meets again through it. */
static void lose_seed(struct mp_world *w)
{
    struct mp_world_node *n = &w->nodes[0];
    if (!n->node || w->cfg.nodes < 4)
        return;
    mp_world_node_crash(w, n, true);
    n->is_removed = true;
}

static void live_together(struct mp_world *w)
{
    mp_world_start_all(w);
    w->report->converged_ms = wait_until_known(w, KNOWN_WITHIN);
    if (w->cfg.faults.is_seed_lost)
        lose_seed(w);
    if (w->is_calm)
        (void)mp_world_wait_until_agreed(w, AGREED_WITHIN);
    w->faults_until = w->now + w->cfg.faults_last;
    ask(w, w->cfg.faults_last / 2);
    mp_world_plan(w, 0, (struct mp_world_happening){.kind = MP_WORLD_FAULT_DUE});
    if (w->topics)
        mp_world_plan(w, 0, (struct mp_world_happening){.kind = MP_WORLD_TOPIC_DUE});
    mp_world_run(w, w->faults_until);
    w->is_asking = false;
    mp_world_heal(w);
    mp_duration within = w->cfg.faults.is_seed_lost ? REDIALLED_WITHIN : AGREED_WITHIN;
    w->report->healed_ms = mp_world_wait_until_agreed(w, within);
    /* Who was about to leave comes back later, and has to find its place then. */
    wait_until_all_up(w, QUIET_WITHIN);
    (void)mp_world_wait_until_agreed(w, within);
    /* Once what the faults held up is over, nothing makes a call wait. */
    mp_world_run(w, w->now + STRAGGLERS_LAST);
    if (w->topics)
        mp_world_topics_end(w);
    mp_world_wait_until_quiet(w, QUIET_WITHIN);
    if (w->report->violation_count == 0 && w->cfg.nodes <= ASKED_ALL_UP_TO)
        mp_world_ask_everything(w);
    mp_world_wait_until_quiet(w, QUIET_WITHIN);
}

void mp_world_scenario(struct mp_world *w)
{
    const struct mp_world_faults *f = &w->cfg.faults;
    w->has_network_faults = f->loss != 0 || f->late != 0;
    for (uint32_t i = 0; i < MP_WORLD_FAULTS; i++)
        w->has_network_faults = w->has_network_faults || f->weights[i] != 0;
    w->is_calm = w->cfg.scenario == MP_WORLD_DEPLOY && !w->has_network_faults &&
                 w->cfg.out_of_memory == 0 && w->cfg.chances.disk_full == 0 &&
                 w->cfg.chances.load_fails == 0 && w->cfg.crash_step == 0;
    if (w->cfg.scenario == MP_WORLD_MEMBERSHIP)
        live_membership(w);
    else if (w->cfg.scenario == MP_WORLD_CATALOG)
        live_catalog(w);
    else if (w->cfg.nodes == 1)
        live_alone(w);
    else if (w->cfg.deploys != 0)
        mp_world_live_deploys(w);
    else if (w->cfg.crash_step != 0)
        mp_world_live_sweep(w);
    else
        live_together(w);
}
