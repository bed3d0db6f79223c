/* The worker pool of one node.
 *
 * A task is in one place at a time: HELD (its function's concurrency is used up), QUEUED (no worker
 * has it), SENT (in a worker's ring, maybe begun), REVOKING (asked back), ZOMBIE (nobody waits for
 * it but a worker still has it). Only task_move() changes that.
 *
 * Lists: held tasks hang on their function, queued ones on one of two queues (children of running
 * calls first: a parent waits for them), sent ones on their worker in the order they were sent. As
 * a worker reads its ring in order, what it has not begun is always a tail of its list.
 *
 * A worker that no answer has come from for PROBE_AFTER is probed: the driver looks which task has
 * the CPU, and whether the worker reads its ring. If one task has had the CPU for longer than that,
 * or nothing is read although no task has it (the process is stopped, or starved), the worker gets
 * nothing new, and its unbegun tail is taken back as soon as another worker could take it. This
 * bounds what a long computation costs the calls behind it, without a timer while nothing is
 * outstanding. A worker whose tasks all wait for something has no load, whatever they cost before.
 *
 * A task that nobody waits for and that has kept the CPU for SUSPECT_AFTER since makes its worker a
 * suspect: it is replaced at once, and killed later unless the task ends. A stopped worker without
 * such a task is never replaced: there is nothing to show that it is broken. */
#include "src/core/pool/pool.h"

#include <string.h>

#include "src/base/assert.h"

#define STAY_NS       MP_US(50) /* two wake-ups: below that a warm worker beats an idle one */
#define AHEAD_NS      MP_MS(2)  /* what may wait in a ring; more waits here, for any worker */
#define BUSY_NS       MP_MS(1)  /* with more to do, another node had better take a call */
#define PROBE_AFTER   MP_MS(1)
#define PROBE_SLOW    MP_MS(50)
#define ZOMBIE_PROBE  MP_MS(10)
#define STUCK_AFTER   MP_MS(20)
#define SUSPECT_AFTER MP_MS(5)      /* so long a call may take to end once nobody waits for it */
#define STOP_WAIT     MP_SECONDS(1) /* for a worker told to stop; then it is killed */
#define LEAVING_MIN   4             /* retiring workers that are let be, however few are wanted */
#define DISPATCH_MAX  256           /* tasks sent or ended in one step */
#define EFFECTS_BASE  (16 + 4 * MP_POOL_WORKERS_MAX + DISPATCH_MAX)
#define COST_FIRST    MP_US(20) /* of a function never seen */
#define COST_STEP     MP_US(10) /* what one sample may always add to it */
#define COST_CHEAP    MP_US(2)  /* a call that takes less than handing it over */
#define STAY_CHEAP_NS                                                                              \
    MP_US(400) /* cheap calls stay longer: a second worker takes more than it gives */
#define START_AGAIN     MP_MS(100) /* after a worker that never got ready, doubled */
#define START_AGAIN_MAX MP_SECONDS(10)

enum task_state {
    TASK_FREE,
    TASK_HELD,
    TASK_QUEUED,
    TASK_SENT,
    TASK_REVOKING,   /* asked back to run elsewhere */
    TASK_CANCELLING, /* asked back to be dropped */
    TASK_ZOMBIE
};

struct mp_pool_task {
    uint64_t id;
    uint32_t next;
    uint32_t previous;
    uint32_t function;
    uint32_t worker;
    uint32_t cost_ns;
    uint8_t state;
    bool is_nested;
    mp_time cancelled_at;
};

struct mp_pool_function {
    uint32_t cost_ns; /* moving average of CPU time; 0: never seen */
    uint32_t active;  /* tasks past the concurrency gate */
    uint32_t concurrency;
    uint32_t held_first;
    uint32_t held_last;
    uint8_t crash_count;
    mp_time crashes[MP_CRASHES_MAX];
    mp_time refused_until;
    mp_duration refused_for;
};

static bool may_move(enum task_state from, enum task_state to)
{
    static const uint8_t allowed[] = {
        [TASK_FREE] = 1 << TASK_HELD | 1 << TASK_QUEUED,
        [TASK_HELD] = 1 << TASK_QUEUED | 1 << TASK_FREE,
        [TASK_QUEUED] = 1 << TASK_SENT | 1 << TASK_FREE,
        [TASK_SENT] = 1 << TASK_REVOKING | 1 << TASK_CANCELLING | 1 << TASK_QUEUED | 1 << TASK_FREE,
        [TASK_REVOKING] = 1 << TASK_SENT | 1 << TASK_QUEUED | 1 << TASK_CANCELLING | 1 << TASK_FREE,
        [TASK_CANCELLING] = 1 << TASK_ZOMBIE | 1 << TASK_FREE,
        [TASK_ZOMBIE] = 1 << TASK_FREE,
    };
    return (allowed[from] >> to & 1) != 0;
}

static void task_move(struct mp_pool_task *t, enum task_state to)
{
    mp_assert(may_move((enum task_state)t->state, to));
    t->state = (uint8_t)to;
}

static uint32_t slot_of(uint64_t task)
{
    return (uint32_t)task;
}

static struct mp_pool_task *find(const struct mp_pool *p, uint64_t task)
{
    uint32_t slot = slot_of(task);
    if (slot >= p->task_capacity || p->tasks[slot].state == TASK_FREE || p->tasks[slot].id != task)
        return NULL;
    return &p->tasks[slot];
}

/* --- effects: room for any step is made when a task comes, so that no other step can fail --- */

static enum mp_err reserve_effects(struct mp_pool *p, uint32_t wanted)
{
    if (wanted <= p->effect_capacity)
        return MP_OK;
    uint32_t capacity = p->effect_capacity == 0 ? 64 : p->effect_capacity;
    while (capacity < wanted)
        capacity *= 2;
    void *grown =
        p->alloc->resize(p->alloc->context, p->effects, p->effect_capacity * sizeof(*p->effects),
                         capacity * sizeof(*p->effects));
    if (!grown)
        return MP_ENOMEM;
    p->effects = (struct mp_pool_effect *)grown;
    p->effect_capacity = capacity;
    return MP_OK;
}

static void emit(struct mp_pool *p, enum mp_pool_effect_kind kind, uint32_t worker, uint64_t task,
                 enum mp_pool_end end)
{
    mp_assert(p->effect_count < p->effect_capacity);
    p->effects[p->effect_count++] =
        (struct mp_pool_effect){.kind = kind, .worker = worker, .task = task, .end = end};
}

/* --- lists of tasks, linked by slot --- */

static void list_append(struct mp_pool *p, uint32_t *first, uint32_t *last, uint32_t slot)
{
    p->tasks[slot].next = MP_POOL_NONE;
    p->tasks[slot].previous = *last;
    if (*last == MP_POOL_NONE)
        *first = slot;
    else
        p->tasks[*last].next = slot;
    *last = slot;
}

static void list_prepend(struct mp_pool *p, uint32_t *first, uint32_t *last, uint32_t slot)
{
    p->tasks[slot].next = *first;
    p->tasks[slot].previous = MP_POOL_NONE;
    if (*first == MP_POOL_NONE)
        *last = slot;
    else
        p->tasks[*first].previous = slot;
    *first = slot;
}

static void list_remove(struct mp_pool *p, uint32_t *first, uint32_t *last, uint32_t slot)
{
    struct mp_pool_task *t = &p->tasks[slot];
    if (t->previous == MP_POOL_NONE)
        *first = t->next;
    else
        p->tasks[t->previous].next = t->next;
    if (t->next == MP_POOL_NONE)
        *last = t->previous;
    else
        p->tasks[t->next].previous = t->previous;
}

static void worker_detach(struct mp_pool *p, struct mp_pool_task *t)
{
    struct mp_pool_worker *w = &p->workers[t->worker];
    list_remove(p, &w->first, &w->last, slot_of(t->id));
    mp_assert(w->sent > 0 && w->load_ns >= t->cost_ns);
    w->sent--;
    w->load_ns -= t->cost_ns;
    w->zombies -= t->state == TASK_ZOMBIE;
}

/* The task waits for something: what it costs is no longer ahead of the others. */
static void settle(struct mp_pool *p, struct mp_pool_task *t)
{
    struct mp_pool_worker *w = &p->workers[t->worker];
    mp_assert(w->load_ns >= t->cost_ns);
    w->load_ns -= t->cost_ns;
    t->cost_ns = 0;
}

static void settle_all(struct mp_pool *p, struct mp_pool_worker *w)
{
    for (uint32_t slot = w->last; w->load_ns != 0; slot = p->tasks[slot].previous)
        settle(p, &p->tasks[slot]);
}

/* --- starting and ending tasks --- */

static void enqueue(struct mp_pool *p, struct mp_pool_task *t, bool is_first)
{
    int q = t->is_nested ? 0 : 1;
    task_move(t, TASK_QUEUED);
    p->queued++;
    if (is_first)
        list_prepend(p, &p->queue_first[q], &p->queue_last[q], slot_of(t->id));
    else
        list_append(p, &p->queue_first[q], &p->queue_last[q], slot_of(t->id));
}

/* The task leaves the pool; its function may let the next held one through. */
static void finish(struct mp_pool *p, struct mp_pool_task *t)
{
    struct mp_pool_function *f = &p->functions[t->function];
    bool was_held = t->state == TASK_HELD;
    task_move(t, TASK_FREE);
    mp_assert(p->live > 0);
    p->live--;
    if (was_held)
        return;
    mp_assert(f->active > 0);
    f->active--;
    if (f->held_first == MP_POOL_NONE || f->active >= f->concurrency)
        return;
    struct mp_pool_task *next = &p->tasks[f->held_first];
    list_remove(p, &f->held_first, &f->held_last, slot_of(next->id));
    p->queued--;
    f->active++;
    enqueue(p, next, false);
}

static void end(struct mp_pool *p, struct mp_pool_task *t, enum mp_pool_end how)
{
    uint64_t id = t->id;
    finish(p, t);
    emit(p, MP_POOL_END, 0, id, how);
}

/* Takes a task out of whichever waiting list it is in. */
static void unqueue(struct mp_pool *p, struct mp_pool_task *t)
{
    p->queued--;
    if (t->state == TASK_HELD) {
        struct mp_pool_function *f = &p->functions[t->function];
        list_remove(p, &f->held_first, &f->held_last, slot_of(t->id));
    } else {
        int q = t->is_nested ? 0 : 1;
        list_remove(p, &p->queue_first[q], &p->queue_last[q], slot_of(t->id));
    }
}

/* --- dispatch --- */

static bool is_usable(const struct mp_pool *p, uint32_t i, bool is_nested)
{
    const struct mp_pool_worker *w = &p->workers[i];
    return w->state == MP_POOL_WORKER_READY && !w->is_computing && !w->is_stuck && !w->is_full &&
           (is_nested || w->sent < p->cfg.begun_max);
}

/* The lowest-numbered worker while it has little to do (it is warm, the others sleep), else the one
 * with the least; none if every one has enough ahead of it. */
static uint32_t choose(const struct mp_pool *p, const struct mp_pool_task *t)
{
    bool is_nested = t->is_nested;
    uint32_t cost = p->functions[t->function].cost_ns;
    mp_duration stay = cost != 0 && cost < COST_CHEAP ? STAY_CHEAP_NS : STAY_NS;
    uint32_t best = MP_POOL_NONE;
    for (uint32_t i = 0; i < p->worker_count; i++) {
        if (!is_usable(p, i, is_nested))
            continue;
        if (p->workers[i].load_ns < stay)
            return i;
        if (best == MP_POOL_NONE || p->workers[i].load_ns < p->workers[best].load_ns)
            best = i;
    }
    return best != MP_POOL_NONE && p->workers[best].load_ns < AHEAD_NS ? best : MP_POOL_NONE;
}

static void send(struct mp_pool *p, struct mp_pool_task *t, uint32_t worker, mp_time now)
{
    struct mp_pool_worker *w = &p->workers[worker];
    const struct mp_pool_function *f = &p->functions[t->function];
    task_move(t, TASK_SENT);
    t->worker = worker;
    t->cost_ns = f->cost_ns != 0 ? f->cost_ns : (uint32_t)COST_FIRST;
    list_append(p, &w->first, &w->last, slot_of(t->id));
    if (w->sent == 0)
        w->active_at = now;
    w->is_tail_begun = false;
    w->sent++;
    w->load_ns += t->cost_ns;
    if (w->probe_at == MP_NEVER) {
        w->probe_at = now + PROBE_AFTER;
        w->still_since = now;
    }
    emit(p, MP_POOL_SEND, worker, t->id, MP_POOL_GONE);
}

/* Sends what waits, as far as workers take it. Tasks of a function that is refused meanwhile end.
 */
static void dispatch(struct mp_pool *p, mp_time now)
{
    uint32_t count = 0;
    bool has_ended = false;
    for (int q = 0; q < 2; q++) {
        while (p->queue_first[q] != MP_POOL_NONE) {
            struct mp_pool_task *t = &p->tasks[p->queue_first[q]];
            bool is_refused = p->functions[t->function].refused_until > now;
            uint32_t worker = is_refused ? MP_POOL_NONE : choose(p, t);
            if (!is_refused && worker == MP_POOL_NONE)
                break;
            if (count++ == DISPATCH_MAX) {
                p->is_cut = true;
                return;
            }
            unqueue(p, t);
            if (is_refused) {
                end(p, t, MP_POOL_CRASH_LOOP);
                has_ended = true;
            } else {
                send(p, t, worker, now);
            }
        }
    }
    /* What ended may have let a nested call through, whose queue was passed before. */
    p->is_cut = has_ended && p->queue_first[0] != MP_POOL_NONE;
}

/* Asks back what a worker has not begun, newest first. How much that is, only the answers show: the
 * driver stops being asked at the first task that was begun. False if there is nothing to ask. */
static bool revoke_last(struct mp_pool *p, uint32_t worker)
{
    struct mp_pool_worker *w = &p->workers[worker];
    if (w->is_tail_begun || w->last == MP_POOL_NONE || p->tasks[w->last].state != TASK_SENT)
        return false;
    struct mp_pool_task *t = &p->tasks[w->last];
    task_move(t, TASK_REVOKING);
    emit(p, MP_POOL_REVOKE, worker, t->id, MP_POOL_GONE);
    return true;
}

static bool other_is_usable(const struct mp_pool *p, uint32_t worker)
{
    for (uint32_t i = 0; i < p->worker_count; i++)
        if (i != worker && is_usable(p, i, false) && p->workers[i].load_ns < AHEAD_NS)
            return true;
    return false;
}

/* Whether what the worker has not begun had better run elsewhere. */
static bool is_blocked(const struct mp_pool_worker *w)
{
    return w->is_computing || w->is_stuck || w->state == MP_POOL_WORKER_SUSPECT ||
           w->state == MP_POOL_WORKER_RETIRING;
}

/* Somebody has time, and nothing waits here: it may take over what waits behind a computation. */
static void relieve(struct mp_pool *p)
{
    if (p->queue_first[0] != MP_POOL_NONE || p->queue_first[1] != MP_POOL_NONE)
        return;
    for (uint32_t i = 0; i < p->worker_count; i++)
        if (is_blocked(&p->workers[i]) && !p->workers[i].is_tail_begun && other_is_usable(p, i))
            revoke_last(p, i);
}

/* --- workers --- */

static uint32_t count_state(const struct mp_pool *p, enum mp_pool_worker_state state)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < p->worker_count; i++)
        count += p->workers[i].state == state;
    return count;
}

/* Starts one worker at that time; false if there is no place now. */
static bool worker_start(struct mp_pool *p, mp_time at)
{
    uint32_t i = 0;
    while (i < p->worker_count && p->workers[i].state != MP_POOL_WORKER_NONE)
        i++;
    if (i == MP_POOL_WORKERS_MAX)
        return false;
    if (i == p->worker_count)
        p->worker_count++;
    p->workers[i] = (struct mp_pool_worker){.restarts = p->workers[i].restarts,
                                            .state = MP_POOL_WORKER_STARTING,
                                            .first = MP_POOL_NONE,
                                            .last = MP_POOL_NONE,
                                            .active_at = at,
                                            .probe_at = MP_NEVER,
                                            .kill_at = MP_NEVER,
                                            .start_at = at};
    return true;
}

/* Starts as many as are missing; without a place for them they follow when one that leaves is gone.
 */
static void start_missing(struct mp_pool *p, mp_time at)
{
    uint32_t count = count_state(p, MP_POOL_WORKER_STARTING) + count_state(p, MP_POOL_WORKER_READY);
    while (count < p->workers_wanted && worker_start(p, at))
        count++;
}

static void worker_stop_if_idle(struct mp_pool *p, uint32_t i, mp_time now)
{
    struct mp_pool_worker *w = &p->workers[i];
    if (w->state != MP_POOL_WORKER_RETIRING || w->sent != 0)
        return;
    w->state = MP_POOL_WORKER_ENDING;
    w->probe_at = MP_NEVER;
    w->kill_at = mp_time_add(now, STOP_WAIT);
    emit(p, MP_POOL_STOP, i, 0, MP_POOL_GONE);
}

/* A worker retires with calls that may wait for long. Of too many such the oldest is given up. */
static void limit_retiring(struct mp_pool *p, mp_time now)
{
    uint32_t max = p->workers_wanted > LEAVING_MIN ? p->workers_wanted : LEAVING_MIN;
    if (count_state(p, MP_POOL_WORKER_RETIRING) <= max)
        return;
    struct mp_pool_worker *oldest = NULL;
    for (uint32_t i = 0; i < p->worker_count; i++) {
        struct mp_pool_worker *w = &p->workers[i];
        if (w->state == MP_POOL_WORKER_RETIRING && (!oldest || w->retired_at < oldest->retired_at))
            oldest = w;
    }
    oldest->kill_at = now;
}

/* From now on it gets nothing new; another takes its place. */
static void worker_replace(struct mp_pool *p, uint32_t i, enum mp_pool_worker_state state,
                           mp_time now)
{
    p->workers[i].state = state;
    p->workers[i].retired_at = now;
    p->restarts++;
    limit_retiring(p, now);
    start_missing(p, now);
    revoke_last(p, i);
}

static void crashed(struct mp_pool_function *f, mp_time now)
{
    uint8_t kept = 0;
    for (uint8_t i = 0; i < f->crash_count; i++)
        if (now - f->crashes[i] < MP_MS(MP_CRASH_WINDOW_MS))
            f->crashes[kept++] = f->crashes[i];
    if (kept == MP_CRASHES_MAX)
        memmove(f->crashes, f->crashes + 1, --kept * sizeof(f->crashes[0]));
    f->crashes[kept++] = now;
    f->crash_count = kept;
    if (kept < MP_CRASHES_MAX)
        return;
    bool is_recent =
        f->refused_until != 0 && now < mp_time_add(f->refused_until, MP_MS(MP_CRASH_LOOP_MS_MAX));
    f->refused_for = is_recent ? f->refused_for * 2 : MP_MS(MP_CRASH_LOOP_MS);
    if (f->refused_for > MP_MS(MP_CRASH_LOOP_MS_MAX))
        f->refused_for = MP_MS(MP_CRASH_LOOP_MS_MAX);
    f->refused_until = mp_time_add(now, f->refused_for);
    f->crash_count = 0;
}

/* --- events --- */

static enum mp_err grow_tasks(struct mp_pool *p, uint32_t slot)
{
    if (slot < p->task_capacity)
        return MP_OK;
    uint32_t capacity = p->task_capacity == 0 ? 256 : p->task_capacity;
    while (capacity <= slot)
        capacity *= 2;
    void *grown =
        p->alloc->resize(p->alloc->context, p->tasks, p->task_capacity * sizeof(*p->tasks),
                         capacity * sizeof(*p->tasks));
    if (!grown)
        return MP_ENOMEM;
    p->tasks = (struct mp_pool_task *)grown;
    memset(p->tasks + p->task_capacity, 0, (capacity - p->task_capacity) * sizeof(*p->tasks));
    p->task_capacity = capacity;
    return MP_OK;
}

static void forget(struct mp_pool *p, uint32_t key)
{
    if (key >= p->function_capacity)
        return;
    mp_assert(p->functions[key].held_first == MP_POOL_NONE);
    p->functions[key] =
        (struct mp_pool_function){.held_first = MP_POOL_NONE, .held_last = MP_POOL_NONE};
}

static enum mp_err grow_functions(struct mp_pool *p, uint32_t key)
{
    if (key < p->function_capacity)
        return MP_OK;
    uint32_t capacity = p->function_capacity == 0 ? 64 : p->function_capacity;
    while (capacity <= key)
        capacity *= 2;
    void *grown = p->alloc->resize(p->alloc->context, p->functions,
                                   p->function_capacity * sizeof(*p->functions),
                                   capacity * sizeof(*p->functions));
    if (!grown)
        return MP_ENOMEM;
    p->functions = (struct mp_pool_function *)grown;
    for (uint32_t i = p->function_capacity; i < capacity; i++)
        p->functions[i] =
            (struct mp_pool_function){.held_first = MP_POOL_NONE, .held_last = MP_POOL_NONE};
    p->function_capacity = capacity;
    return MP_OK;
}

static enum mp_err submit(struct mp_pool *p, mp_time now, const struct mp_pool_event *ev)
{
    uint32_t slot = slot_of(ev->task);
    enum mp_err err = reserve_effects(p, EFFECTS_BASE + p->live + 1);
    if (err == MP_OK)
        err = grow_tasks(p, slot);
    if (err == MP_OK)
        err = grow_functions(p, ev->submit.function);
    if (err != MP_OK)
        return err;
    struct mp_pool_task *t = &p->tasks[slot];
    struct mp_pool_function *f = &p->functions[ev->submit.function];
    mp_assert(t->state == TASK_FREE);
    if (f->refused_until > now) {
        emit(p, MP_POOL_END, 0, ev->task, MP_POOL_CRASH_LOOP);
        return MP_OK;
    }
    if (p->queued >= p->cfg.queued_max && !ev->submit.is_nested) {
        emit(p, MP_POOL_END, 0, ev->task, MP_POOL_QUEUE_FULL);
        return MP_OK;
    }
    p->live++;
    t->id = ev->task;
    t->function = ev->submit.function;
    t->is_nested = ev->submit.is_nested;
    f->concurrency = ev->submit.concurrency;
    if (f->concurrency != 0 && f->active >= f->concurrency) {
        task_move(t, TASK_HELD);
        p->queued++;
        list_append(p, &f->held_first, &f->held_last, slot);
        return MP_OK;
    }
    f->active++;
    /* The common case: straight to a worker. */
    uint32_t worker = MP_POOL_NONE;
    if (p->queue_first[0] == MP_POOL_NONE && (t->is_nested || p->queue_first[1] == MP_POOL_NONE))
        worker = choose(p, t);
    if (worker == MP_POOL_NONE) {
        enqueue(p, t, false);
        return MP_OK;
    }
    task_move(t, TASK_QUEUED);
    send(p, t, worker, now);
    return MP_OK;
}

static void cancel(struct mp_pool *p, mp_time now, uint64_t id)
{
    struct mp_pool_task *t = find(p, id);
    if (!t)
        return;
    t->cancelled_at = now;
    switch ((enum task_state)t->state) {
    case TASK_HELD:
    case TASK_QUEUED:
        unqueue(p, t);
        end(p, t, MP_POOL_TAKEN_BACK);
        dispatch(p, now); /* it may have held up another one of its function */
        break;
    case TASK_SENT:
        task_move(t, TASK_CANCELLING);
        emit(p, MP_POOL_REVOKE, t->worker, t->id, MP_POOL_GONE);
        break;
    case TASK_REVOKING:
        task_move(t, TASK_CANCELLING); /* the answer to the REVOKE under way decides */
        break;
    default:
        break;
    }
}

/* An eighth of the news each time; never 0, which means "not seen". A worker's clock runs on while
 * somebody else has its core, so one sample counts for at most a few times what is usual: a
 * function that has really become slower is believed within some calls. */
static void learn(struct mp_pool_function *f, uint32_t run)
{
    if (f->cost_ns != 0 && run > 4 * f->cost_ns + COST_STEP)
        run = 4 * f->cost_ns + (uint32_t)COST_STEP;
    f->cost_ns = f->cost_ns == 0 ? run : f->cost_ns - f->cost_ns / 8 + run / 8;
    f->cost_ns += f->cost_ns == 0;
}

static void done(struct mp_pool *p, mp_time now, const struct mp_pool_event *ev)
{
    struct mp_pool_task *t = find(p, ev->task);
    mp_assert(t && t->worker == ev->worker);
    struct mp_pool_worker *w = &p->workers[ev->worker];
    struct mp_pool_function *f = &p->functions[t->function];
    bool was_zombie = t->state == TASK_ZOMBIE || t->state == TASK_CANCELLING;
    uint64_t id = t->id;
    worker_detach(p, t);
    uint32_t run = ev->done.run > MP_SECONDS(2) ? (uint32_t)MP_SECONDS(2) : (uint32_t)ev->done.run;
    learn(f, run);
    w->active_at = now;
    w->is_computing = false;
    w->is_stuck = false;
    w->is_full = false;
    w->done++;
    finish(p, t);
    if (was_zombie)
        emit(p, MP_POOL_END, 0, id, MP_POOL_GONE);
    if (w->suspect == id) {
        w->suspect = 0;
        w->kill_at = MP_NEVER;
        if (w->state == MP_POOL_WORKER_SUSPECT)
            w->state = MP_POOL_WORKER_RETIRING;
    }
    if (ev->done.is_retiring && w->state == MP_POOL_WORKER_READY)
        worker_replace(p, ev->worker, MP_POOL_WORKER_RETIRING, now);
    worker_stop_if_idle(p, ev->worker, now);
    if (p->queued != 0)
        dispatch(p, now);
    relieve(p);
}

/* A chain of answers to REVOKE: each that came back asks for the one before it. What came back is
 * sent elsewhere when the chain ends, so that it keeps its order. */
static void came_back(struct mp_pool *p, mp_time now, const struct mp_pool_event *ev,
                      struct mp_pool_task *t)
{
    struct mp_pool_worker *w = &p->workers[ev->worker];
    bool is_cancelled = t->state == TASK_CANCELLING;
    worker_detach(p, t);
    if (is_cancelled)
        end(p, t, MP_POOL_TAKEN_BACK);
    else
        enqueue(p, t, true);
    if (ev->returned.is_full) {
        w->is_full = true;
        w->probe_at = mp_time_add(now, PROBE_AFTER);
    } else if (!is_cancelled && revoke_last(p, ev->worker)) {
        return;
    }
    worker_stop_if_idle(p, ev->worker, now);
    dispatch(p, now);
}

static void returned(struct mp_pool *p, mp_time now, const struct mp_pool_event *ev)
{
    struct mp_pool_task *t = find(p, ev->task);
    mp_assert(t && t->worker == ev->worker);
    struct mp_pool_worker *w = &p->workers[ev->worker];
    if (ev->returned.is_back) {
        came_back(p, now, ev, t);
        return;
    }
    w->is_tail_begun = w->is_tail_begun || w->last == slot_of(t->id);
    if (t->state == TASK_REVOKING) {
        task_move(t, TASK_SENT);
        dispatch(p, now);
        return;
    }
    mp_assert(t->state == TASK_CANCELLING);
    task_move(t, TASK_ZOMBIE);
    w->zombies++;
    emit(p, MP_POOL_CANCEL_CALL, ev->worker, t->id, MP_POOL_GONE);
    emit(p, MP_POOL_PROBE, ev->worker, 0, MP_POOL_GONE);
}

static bool is_among(uint64_t id, const uint64_t *list, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        if (list[i] == id)
            return true;
    return false;
}

/* One task of a worker that died. */
static void orphan(struct mp_pool *p, struct mp_pool_task *t, const struct mp_pool_event *ev,
                   mp_time now)
{
    bool is_wanted = t->state != TASK_ZOMBIE && t->state != TASK_CANCELLING;
    bool was_running = t->id == ev->died.running;
    bool was_begun = was_running || !is_among(t->id, ev->died.unbegun, ev->died.unbegun_count);
    worker_detach(p, t);
    if (was_running)
        crashed(&p->functions[t->function], now);
    if (!is_wanted) {
        end(p, t, was_begun ? MP_POOL_GONE : MP_POOL_TAKEN_BACK);
    } else if (was_running) {
        end(p, t, MP_POOL_LOST_SUSPECT);
    } else if (was_begun) {
        end(p, t, MP_POOL_LOST_NEIGHBOUR);
    } else {
        enqueue(p, t, true);
    }
}

static void died(struct mp_pool *p, mp_time now, const struct mp_pool_event *ev)
{
    struct mp_pool_worker *w = &p->workers[ev->worker];
    enum mp_pool_worker_state state = w->state;
    mp_assert(state != MP_POOL_WORKER_NONE);
    /* Newest first, so that putting back at the front keeps the order. */
    while (w->last != MP_POOL_NONE)
        orphan(p, &p->tasks[w->last], ev, now);
    mp_assert(w->sent == 0 && w->load_ns == 0);
    w->state = MP_POOL_WORKER_NONE;
    w->restarts++;
    w->probe_at = MP_NEVER;
    w->kill_at = MP_NEVER;
    w->start_at = MP_NEVER;
    if (state == MP_POOL_WORKER_STARTING) {
        mp_duration pause = START_AGAIN << (p->failed_starts < 7 ? p->failed_starts : 7);
        p->failed_starts++;
        start_missing(p, mp_time_add(now, pause < START_AGAIN_MAX ? pause : START_AGAIN_MAX));
        p->restarts++;
    } else {
        p->restarts += state == MP_POOL_WORKER_READY;
        start_missing(p, now);
    }
    dispatch(p, now);
}

/* A task that nobody waits for has the CPU. */
static void watch_zombie(struct mp_pool *p, mp_time now, uint32_t i, const struct mp_pool_task *t,
                         mp_time since)
{
    struct mp_pool_worker *w = &p->workers[i];
    mp_time from = since > t->cancelled_at ? since : t->cancelled_at;
    if (mp_time_add(from, SUSPECT_AFTER) > now) {
        w->probe_at = mp_time_add(from, SUSPECT_AFTER);
        return;
    }
    if (w->kill_at == MP_NEVER) {
        w->suspect = t->id;
        w->kill_at = mp_time_add(from, MP_MS(MP_WORKER_KILL_AFTER_MS));
    }
    if (w->state == MP_POOL_WORKER_READY)
        worker_replace(p, i, MP_POOL_WORKER_SUSPECT, now);
}

static mp_duration next_probe(mp_duration held)
{
    return held / 4 < PROBE_AFTER ? PROBE_AFTER : held / 4 > PROBE_SLOW ? PROBE_SLOW : held / 4;
}

static void probed_idle(struct mp_pool *p, mp_time now, const struct mp_pool_event *ev)
{
    struct mp_pool_worker *w = &p->workers[ev->worker];
    w->is_computing = false;
    w->is_stuck = ev->probed.has_unread && now - w->still_since >= STUCK_AFTER;
    if (ev->probed.has_unread) {
        w->probe_at = now + next_probe(now - w->still_since);
    } else {
        /* All that it has waits for something. */
        settle_all(p, w);
        w->probe_at = w->zombies != 0 ? now + ZOMBIE_PROBE
                      : w->is_full    ? now + PROBE_AFTER
                                      : MP_NEVER;
    }
}

static void probed(struct mp_pool *p, mp_time now, const struct mp_pool_event *ev)
{
    struct mp_pool_worker *w = &p->workers[ev->worker];
    if (w->state == MP_POOL_WORKER_NONE || w->state == MP_POOL_WORKER_ENDING)
        return;
    if (ev->probed.progress != w->progress || ev->probed.running != 0) {
        w->progress = ev->probed.progress;
        w->still_since = now;
    }
    w->is_full = w->is_full && !ev->probed.has_room;
    if (ev->probed.running == 0) {
        probed_idle(p, now, ev);
    } else {
        struct mp_pool_task *t = find(p, ev->probed.running);
        if (t && t->worker != ev->worker)
            t = NULL;
        mp_duration held = now - ev->probed.since;
        w->is_stuck = false;
        w->is_computing = t && held >= PROBE_AFTER;
        w->probe_at = now + next_probe(held);
        if (t && t->state == TASK_ZOMBIE)
            watch_zombie(p, now, ev->worker, t, ev->probed.since);
    }
    dispatch(p, now);
    relieve(p);
}

static void tick_worker(struct mp_pool *p, uint32_t i, mp_time now)
{
    struct mp_pool_worker *w = &p->workers[i];
    if (w->state == MP_POOL_WORKER_STARTING && w->start_at <= now) {
        w->start_at = MP_NEVER;
        emit(p, MP_POOL_START, i, 0, MP_POOL_GONE);
        return;
    }
    if (w->kill_at <= now) {
        w->kill_at = MP_NEVER;
        emit(p, MP_POOL_KILL, i, 0, MP_POOL_GONE);
        return;
    }
    if (w->probe_at > now)
        return;
    bool must_look = w->zombies != 0 || w->is_full || w->is_stuck;
    if (w->sent == 0 && !must_look) {
        w->probe_at = MP_NEVER;
    } else if (!must_look && now - w->active_at < PROBE_AFTER) {
        w->probe_at = w->active_at + PROBE_AFTER;
    } else {
        w->probe_at = now + PROBE_SLOW;
        emit(p, MP_POOL_PROBE, i, 0, MP_POOL_GONE);
    }
}

static void tick(struct mp_pool *p, mp_time now)
{
    for (uint32_t i = 0; i < p->worker_count; i++)
        if (p->workers[i].state != MP_POOL_WORKER_NONE)
            tick_worker(p, i, now);
}

static void resize(struct mp_pool *p, mp_time now, uint32_t workers)
{
    mp_assert(workers >= 1 && workers <= MP_WORKERS_MAX);
    if (p->workers_wanted < workers)
        p->workers_wanted = workers;
    start_missing(p, now);
    tick(p, now);
}

static void ready(struct mp_pool *p, mp_time now, uint32_t worker)
{
    struct mp_pool_worker *w = &p->workers[worker];
    if (w->state != MP_POOL_WORKER_STARTING)
        return;
    w->state = MP_POOL_WORKER_READY;
    p->failed_starts = 0;
    dispatch(p, now);
    relieve(p);
}

static void yielded(struct mp_pool *p, mp_time now, const struct mp_pool_event *ev)
{
    struct mp_pool_worker *w = &p->workers[ev->worker];
    struct mp_pool_task *t = find(p, ev->task);
    w->active_at = now;
    w->is_computing = false;
    if (t && t->worker == ev->worker && t->state >= TASK_SENT)
        settle(p, t);
    if (p->queued != 0)
        dispatch(p, now);
}

enum mp_err mp_pool_step(struct mp_pool *p, mp_time now, const struct mp_pool_event *ev,
                         struct mp_pool_effects *out)
{
    enum mp_err err = MP_OK;
    p->effect_count = 0;
    switch (ev->kind) {
    case MP_POOL_SUBMIT:
        err = submit(p, now, ev);
        break;
    case MP_POOL_CANCEL:
        cancel(p, now, ev->task);
        break;
    case MP_POOL_DONE:
        done(p, now, ev);
        break;
    case MP_POOL_RETURNED:
        returned(p, now, ev);
        break;
    case MP_POOL_READY:
        ready(p, now, ev->worker);
        break;
    case MP_POOL_DIED:
        died(p, now, ev);
        break;
    case MP_POOL_PROBED:
        probed(p, now, ev);
        break;
    case MP_POOL_YIELDED:
        yielded(p, now, ev);
        break;
    case MP_POOL_FORGET:
        forget(p, ev->forget);
        break;
    case MP_POOL_RESIZE:
        err = reserve_effects(p, EFFECTS_BASE + p->live);
        if (err == MP_OK)
            resize(p, now, ev->resize.workers);
        break;
    case MP_POOL_TIMER:
        tick(p, now);
        if (p->queued != 0)
            dispatch(p, now);
        break;
    }
    *out = (struct mp_pool_effects){.items = p->effects, .count = p->effect_count};
    return err;
}

enum mp_err mp_pool_init(struct mp_pool *p, const struct mp_pool_config *cfg, struct mp_alloc *a,
                         uint64_t seed)
{
    (void)seed;
    memset(p, 0, sizeof(*p));
    p->cfg = *cfg;
    p->alloc = a;
    for (int q = 0; q < 2; q++) {
        p->queue_first[q] = MP_POOL_NONE;
        p->queue_last[q] = MP_POOL_NONE;
    }
    return MP_OK;
}

void mp_pool_fini(struct mp_pool *p)
{
    if (!p->alloc)
        return;
    mp_alloc_free(p->alloc, p->tasks, p->task_capacity * sizeof(*p->tasks));
    mp_alloc_free(p->alloc, p->functions, p->function_capacity * sizeof(*p->functions));
    mp_alloc_free(p->alloc, p->effects, p->effect_capacity * sizeof(*p->effects));
    memset(p, 0, sizeof(*p));
}

mp_time mp_pool_deadline(const struct mp_pool *p)
{
    mp_time at = p->is_cut ? 0 : MP_NEVER;
    for (uint32_t i = 0; i < p->worker_count; i++) {
        const struct mp_pool_worker *w = &p->workers[i];
        if (w->state == MP_POOL_WORKER_STARTING)
            at = mp_time_earlier(at, w->start_at);
        else if (w->state != MP_POOL_WORKER_NONE)
            at = mp_time_earlier(at, mp_time_earlier(w->probe_at, w->kill_at));
    }
    return at;
}

bool mp_pool_has(const struct mp_pool *p, uint32_t worker, uint64_t task)
{
    const struct mp_pool_task *t = find(p, task);
    return t && t->worker == worker && t->state >= TASK_SENT;
}

uint32_t mp_pool_where(const struct mp_pool *p, uint64_t task)
{
    const struct mp_pool_task *t = find(p, task);
    return t && t->state >= TASK_SENT ? t->worker : MP_POOL_NONE;
}

mp_time mp_pool_refused_until(const struct mp_pool *p, uint32_t function, mp_time now)
{
    if (function >= p->function_capacity || p->functions[function].refused_until <= now)
        return 0;
    return p->functions[function].refused_until;
}

bool mp_pool_is_busy(const struct mp_pool *p)
{
    for (uint32_t i = 0; p->queued == 0 && i < p->worker_count; i++)
        if (is_usable(p, i, false) && p->workers[i].load_ns < BUSY_NS)
            return false;
    return true;
}

bool mp_pool_is_blocked(const struct mp_pool *p)
{
    for (uint32_t i = 0; i < p->worker_count; i++)
        if (is_usable(p, i, true))
            return false;
    return true;
}

uint32_t mp_pool_ready_count(const struct mp_pool *p)
{
    return count_state(p, MP_POOL_WORKER_READY);
}
