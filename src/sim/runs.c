/* What clients know of runs: their ids, what was told of them, how they ended. From that they ask:
 * watch, trace, cancel, resume and list, from any node; and what they are told has to agree. */
#include "src/base/assert.h"
#include "src/base/limits.h"
#include "src/sim/world_internal.h"
#include "src/wire/error.h"
#include "src/wire/frame.h"
#include "src/wire/msgpack.h"

#define KNOWN_LATELY  16            /* runs that are asked about */
#define KEPT_WITHIN   MP_SECONDS(3) /* a run that went on for so long, or ended before, is kept */
#define KEPT_AMONG    40            /* the last so many runs: others may have been let go */
#define CLOSING_MOST  4             /* runs that are over, and not quite kept */
#define FIRST_OF_NAME 's'

static void check(enum mp_err err)
{
    mp_assert(err == MP_OK);
}

/* --- reading --- */

static struct mp_slice value_of(struct mp_slice map, const char *key)
{
    struct mp_slice value = {0};
    return mp_mp_map_get(map, mp_slice_str(key), &value) == MP_OK ? value : (struct mp_slice){0};
}

static struct mp_slice text_of(struct mp_slice map, const char *key)
{
    struct mp_slice text = {0};
    struct mp_slice value = value_of(map, key);
    return value.size != 0 && mp_mp_get_str(value, &text) == MP_OK ? text : (struct mp_slice){0};
}

static int64_t number_of(struct mp_slice map, const char *key)
{
    int64_t number = 0;
    struct mp_slice value = value_of(map, key);
    return value.size != 0 && mp_mp_get_int(value, &number) == MP_OK ? number : 0;
}

/* Which step of its graph has this name ("sa", "sb" …); 32 or more: none. */
static uint32_t step_of(struct mp_slice name)
{
    if (name.size != 2 || name.data[0] != FIRST_OF_NAME || name.data[1] < 'a')
        return UINT32_MAX;
    return (uint32_t)(name.data[1] - 'a');
}

/* --- what is known --- */

static uint32_t find_run(const struct mp_world *w, struct mp_slice id)
{
    for (uint32_t i = w->run_count; i-- > 0;)
        if (id.size == MP_RUN_ID_BYTES && memcmp(w->runs[i].id, id.data, MP_RUN_ID_BYTES) == 0)
            return i + 1;
    return 0;
}

/* The run that a request began, known by what it was told. */
static struct mp_world_run *learn(struct mp_world *w, struct mp_world_request *r,
                                  struct mp_slice id)
{
    if (id.size != MP_RUN_ID_BYTES)
        return NULL;
    r->own_run = find_run(w, id);
    if (r->own_run != 0)
        return &w->runs[r->own_run - 1];
    w->runs = (struct mp_world_run *)mp_world_grow(w, w->runs, &w->run_capacity, w->run_count + 1,
                                                   sizeof(*w->runs));
    struct mp_world_run *run = &w->runs[w->run_count++];
    const struct mp_world_run *from = r->run != 0 ? &w->runs[r->run - 1] : NULL;
    *run = (struct mp_world_run){.node = from ? from->node : r->node,
                                 .first_step = r->first_step,
                                 .begun_at = w->now,
                                 .runs_before = w->report->runs,
                                 .is_resumed = from != NULL};
    run->boot = w->nodes[run->node].boot;
    memcpy(run->id, id.data, MP_RUN_ID_BYTES);
    r->own_run = w->run_count;
    return run;
}

void mp_world_runs_lost(struct mp_world *w, const struct mp_world_node *n, bool is_off)
{
    bool is_sure = !is_off && w->cfg.out_of_memory == 0 && w->cfg.chances.disk_full == 0 &&
                   n->paused_until + KEPT_WITHIN < w->now;
    for (uint32_t i = 0; i < w->run_count; i++) {
        struct mp_world_run *run = &w->runs[i];
        if (run->node == n->number && run->boot == n->boot)
            run->is_kept = is_sure && run->begun_at + KEPT_WITHIN < w->now;
    }
}

void mp_world_runs_disk_lost(struct mp_world *w, const struct mp_world_node *n)
{
    for (uint32_t i = 0; i < w->run_count; i++)
        if (w->runs[i].node == n->number)
            w->runs[i].is_kept = false;
}

void mp_world_runs_fini(struct mp_world *w)
{
    for (uint32_t i = 0; i < w->run_count; i++)
        mp_alloc_free(w->alloc, w->runs[i].events,
                      w->runs[i].event_capacity * sizeof(*w->runs[i].events));
    mp_alloc_free(w->alloc, w->runs, w->run_capacity * sizeof(*w->runs));
}

/* --- asking --- */

/* Steps that need not run again: those that the client saw succeed, with a result that is kept in
 * the record itself. `from`: one that shall run, with all behind it; or more than there are. */
static uint32_t kept_steps(const struct mp_world *w, const struct mp_world_run *run, uint32_t from)
{
    const struct mp_world_node *n = &w->nodes[run->node];
    bool is_sure = run->is_over && w->cfg.out_of_memory == 0 && n->boot == run->boot;
    uint32_t before = from < 32 ? (1u << from) - 1 : UINT32_MAX;
    return is_sure ? run->succeeded & before : 0;
}

/* What is not kept may begin anew. */
static void allow_again(struct mp_world *w, const struct mp_world_run *run, uint32_t kept)
{
    for (uint32_t step = 0; run->first_step + step < w->serial_count; step++) {
        struct mp_world_serial *s = &w->serials[run->first_step + step];
        if (s->step != run->first_step + step || s->root != run->first_step)
            return; /* the last one was the graph's last */
        if (step >= 32 || (kept >> step & 1) == 0)
            s->begins_max += s->begins_run;
    }
}

static void draw_resume(struct mp_world *w, struct mp_world_ask *a, struct mp_world_run *run,
                        struct mp_buf *meta, struct mp_buf *payload)
{
    const struct mp_run_options o = {.has_events = mp_world_chance(w, 300),
                                     .is_detached = mp_world_chance(w, 100)};
    bool has_from = mp_world_chance(w, 200);
    char name[2] = {FIRST_OF_NAME, (char)('a' + mp_rng_below(&w->rng, 3))};
    a->kind = MP_NODE_RUN;
    a->from = has_from ? (uint32_t)(name[1] - 'a') : MP_WORLD_NONE;
    a->kept = kept_steps(w, run, a->from);
    a->first_step = run->first_step;
    run->was_resumed = true;
    allow_again(w, run, a->kept);
    check(mp_run_options_put(meta, &o));
    check(mp_mp_put_map(payload, 1u + has_from));
    check(mp_mp_put_str_pair(payload, "resume", mp_slice_of(run->id, MP_RUN_ID_BYTES)));
    if (has_from)
        check(mp_mp_put_str_pair(payload, "from", mp_slice_of(name, sizeof(name))));
}

bool mp_world_draw_ask(struct mp_world *w, struct mp_world_ask *a, struct mp_buf *meta,
                       struct mp_buf *payload)
{
    static const char *const what[] = {[MP_WORLD_ASK_WATCH] = "watch",
                                       [MP_WORLD_ASK_TRACE] = "trace",
                                       [MP_WORLD_ASK_CANCEL] = "cancel",
                                       [MP_WORLD_ASK_RUNS] = "runs"};
    uint32_t lately = w->run_count < KNOWN_LATELY ? w->run_count : KNOWN_LATELY;
    if (lately == 0)
        return false;
    *a = (struct mp_world_ask){.kind = MP_NODE_QUERY, .what = MP_WORLD_ASK_WATCH};
    a->run = w->run_count - (uint32_t)mp_rng_below(&w->rng, lately);
    struct mp_world_run *run = &w->runs[a->run - 1];
    /* A run that goes on with new code would break the promise of one version. */
    if (mp_world_chance(w, 300) && w->cfg.chances.change == 0) {
        draw_resume(w, a, run, meta, payload);
        return true;
    }
    uint32_t drawn = (uint32_t)mp_rng_below(&w->rng, 10);
    a->what = drawn < 5   ? MP_WORLD_ASK_WATCH
              : drawn < 7 ? MP_WORLD_ASK_TRACE
              : drawn < 8 ? MP_WORLD_ASK_CANCEL
                          : MP_WORLD_ASK_RUNS;
    w->report->watched += a->what == MP_WORLD_ASK_WATCH;
    check(mp_mp_put_array(meta, 2));
    check(mp_mp_put_text(meta, what[a->what]));
    check(mp_mp_put_map(meta, 1));
    check(mp_mp_put_str_pair(meta, "run", mp_slice_of(run->id, MP_RUN_ID_BYTES)));
    return true;
}

/* --- being told --- */

/* What of an event stays, whoever is told it and whenever. */
static uint64_t hash_of(struct mp_slice event)
{
    uint64_t hash = mp_slice_hash(text_of(event, "event"), 1);
    hash = hash * 31 + mp_slice_hash(text_of(event, "step"), 2);
    hash = hash * 31 + mp_slice_hash(value_of(event, "at_ms"), 3);
    return hash | 1;
}

void mp_world_run_event(struct mp_world *w, struct mp_world_request *r,
                        const struct mp_node_effect *e)
{
    struct mp_slice event = e->payload.bytes;
    int64_t seq = number_of(event, "seq");
    bool may_miss = w->cfg.out_of_memory != 0; /* for want of memory, on its way */
    w->report->events++;
    if (seq <= r->seq || (seq != r->seq + 1 && !may_miss))
        mp_world_violation(w, "events", "an event is missing or came twice", e->id);
    r->seq = seq;
    r->is_end_told = mp_slice_is(text_of(event, "event"), "run_finished");
    struct mp_world_run *run = learn(w, r, text_of(event, "run_id"));
    if (!run || seq <= 0) {
        mp_world_violation(w, "events", "an event of no run", e->id);
        return;
    }
    uint32_t before = run->event_capacity;
    run->events = (uint64_t *)mp_world_grow(w, run->events, &run->event_capacity, (uint32_t)seq,
                                            sizeof(*run->events));
    memset(run->events + before, 0, (run->event_capacity - before) * sizeof(*run->events));
    uint64_t hash = hash_of(event);
    if (run->events[seq - 1] != 0 && run->events[seq - 1] != hash)
        mp_world_violation(w, "events", "two were told different things of a run", e->id);
    run->events[seq - 1] = hash;
}

/* How the steps of a run ended, and, if it goes on with another, which ran again. */
static void read_steps(struct mp_world *w, const struct mp_world_request *r, struct mp_slice run,
                       uint64_t request, uint32_t *succeeded)
{
    struct mp_mp_reader reader;
    struct mp_slice step;
    uint32_t count = 0;
    if (mp_mp_get_array(value_of(run, "steps"), &count, &reader) != MP_OK)
        return;
    while (count-- > 0 && mp_mp_take(&reader, &step) == MP_OK) {
        uint32_t place = step_of(text_of(step, "name"));
        bool is_done = mp_slice_is(text_of(step, "status"), "succeeded");
        if (place >= 32)
            continue;
        if (is_done && number_of(step, "bytes_out") <= MP_TRACE_RESULT_MAX)
            *succeeded |= 1u << place;
        if ((r->kept >> place & 1) != 0 && (!is_done || number_of(step, "attempts") != 0))
            mp_world_violation(w, "resumed", "a step ran again that had succeeded", request);
    }
}

/* The run object of a RUN. */
static void run_ended(struct mp_world *w, struct mp_world_request *r,
                      const struct mp_node_effect *e)
{
    uint32_t succeeded = 0;
    struct mp_slice status = text_of(e->payload.bytes, "status");
    struct mp_world_run *run = learn(w, r, text_of(e->payload.bytes, "run_id"));
    if (!run)
        return;
    w->report->resumed += run->is_resumed;
    if (status.size == 0)
        return; /* it was left alone */
    read_steps(w, r, e->payload.bytes, e->id, &succeeded);
    if (r->seq != 0 && !r->is_end_told)
        mp_world_violation(w, "events", "a run ended before its last event", e->id);
    run->is_over = true;
    run->succeeded = succeeded;
}

static void check_list(struct mp_world *w, const struct mp_world_node *n, struct mp_slice list,
                       uint64_t request)
{
    struct mp_mp_reader reader;
    struct mp_slice head;
    uint32_t count = 0;
    uint32_t over = 0;
    if (mp_mp_get_array(value_of(list, "runs"), &count, &reader) != MP_OK)
        mp_world_violation(w, "runs", "no list", request);
    for (uint32_t i = 0; i < w->run_count; i++)
        w->runs[i].is_listed = false;
    while (count-- > 0 && mp_mp_take(&reader, &head) == MP_OK) {
        uint32_t number = find_run(w, text_of(head, "run_id"));
        bool goes_on = mp_slice_is(text_of(head, "status"), "running");
        over += !goes_on;
        if (number == 0)
            continue;
        struct mp_world_run *run = &w->runs[number - 1];
        run->is_listed = true;
        if (goes_on && (run->node != n->number || run->boot != n->boot))
            mp_world_violation(w, "runs", "a run of an earlier boot goes on", request);
        if (mp_slice_is(text_of(head, "status"), "lost") && !run->is_lost) {
            run->is_lost = true;
            w->report->lost_runs++;
        }
    }
    if (over > MP_WORLD_RUNS_KEPT + CLOSING_MOST)
        mp_world_violation(w, "runs", "more runs are kept than should be", request);
    for (uint32_t i = 0; i < w->run_count; i++) {
        const struct mp_world_run *run = &w->runs[i];
        if (run->node == n->number && run->is_kept && run->boot != n->boot && !run->is_listed &&
            w->report->runs < run->runs_before + KEPT_AMONG)
            mp_world_violation(w, "runs", "a run that was kept is not listed", request);
    }
}

void mp_world_run_answered(struct mp_world *w, struct mp_world_node *n, struct mp_world_request *r,
                           const struct mp_node_effect *e)
{
    if (e->frame != MP_FRAME_RESULT)
        return;
    if (r->kind == MP_WORLD_RUN) {
        run_ended(w, r, e);
        return;
    }
    struct mp_slice status = text_of(e->payload.bytes, "status");
    if (r->what == MP_WORLD_ASK_RUNS)
        check_list(w, n, e->payload.bytes, e->id);
    else if (find_run(w, text_of(e->payload.bytes, "run_id")) != r->run)
        mp_world_violation(w, "runs", "another run than was asked for", e->id);
    if (r->what == MP_WORLD_ASK_WATCH && r->seq != 0 && !r->is_end_told)
        mp_world_violation(w, "events", "a watch ended before the last event", e->id);
    if ((r->what == MP_WORLD_ASK_WATCH || r->what == MP_WORLD_ASK_CANCEL) &&
        mp_slice_is(status, "running"))
        mp_world_violation(w, "runs", "a run that goes on is told as its end", e->id);
}
