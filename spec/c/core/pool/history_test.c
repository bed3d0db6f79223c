/* Long random histories of the worker pool: a small model of workers keeps to the pool's effects,
 * does what workers do (begin, wait, answer, crash, be stopped, have no room), and checks after
 * each event that the pool counts right, and in the end that every task ended exactly once. */
#include "spec/c/core/pool/driver.h"

#include <time.h>

#include "src/base/rng.h"

#define TASKS_MAX 4096

enum place { ENDED, WAITING, UNBEGUN, BEGUN };

struct model_task {
    uint64_t id;
    enum place place;
    uint32_t worker;
    uint32_t function;
    bool is_cancelled; /* by us */
    bool is_told;      /* CANCEL_CALL has come */
};

struct model_worker {
    enum { NONE, STARTING, READY, DYING } state;
    bool is_stopped;
    uint64_t running;
    mp_time since;
    uint64_t progress;
    uint64_t ring[TASKS_MAX]; /* sent, oldest first */
    uint32_t ring_count;
};

static struct model_task model[TASKS_MAX];
static struct model_worker workers[MP_POOL_WORKERS_MAX];
static struct mp_rng rng;
static uint32_t tasks_submitted;
static uint32_t tasks_ended;
static struct mp_pool_event to_do[16384]; /* answers that the driver owes */
static uint32_t to_do_count;

static bool chance(uint32_t percent)
{
    return mp_rng_below(&rng, 100) < percent;
}

static struct model_task *model_of(uint64_t id)
{
    struct model_task *t = &model[(uint32_t)id];
    assert_int_equal(id, t->id);
    return t;
}

static void ring_remove(struct model_worker *w, uint64_t id)
{
    uint32_t i = 0;
    while (i < w->ring_count && w->ring[i] != id)
        i++;
    assert_true(i < w->ring_count);
    memmove(&w->ring[i], &w->ring[i + 1], (--w->ring_count - i) * sizeof(*w->ring));
}

static void model_end(struct model_task *t)
{
    assert_int_not_equal(ENDED, t->place);
    t->place = ENDED;
    tasks_ended++;
}

static void owe(struct mp_pool_event ev)
{
    assert_true(to_do_count < 16384);
    to_do[to_do_count++] = ev;
}

static void on_send(const struct mp_pool_effect *e)
{
    struct model_task *t = model_of(e->task);
    struct model_worker *w = &workers[e->worker];
    assert_int_equal(WAITING, t->place);
    assert_true(w->state == READY || w->state == DYING); /* the pool may not know it yet */
    assert_int_equal(MP_POOL_WORKER_READY, pool->workers[e->worker].state);
    if (chance(2)) {
        owe((struct mp_pool_event){.kind = MP_POOL_RETURNED,
                                   .worker = e->worker,
                                   .task = e->task,
                                   .returned = {.is_back = true, .is_full = true}});
        t->place = UNBEGUN; /* until the pool has heard */
        t->worker = e->worker;
        return;
    }
    t->place = UNBEGUN;
    t->worker = e->worker;
    w->ring[w->ring_count++] = e->task;
}

static bool is_in_ring(const struct model_worker *w, uint64_t id)
{
    for (uint32_t i = 0; i < w->ring_count; i++)
        if (w->ring[i] == id)
            return true;
    return false;
}

static void on_revoke(const struct mp_pool_effect *e)
{
    struct model_task *t = model_of(e->task);
    struct model_worker *w = &workers[e->worker];
    assert_int_equal(e->worker, t->worker);
    if (t->place == UNBEGUN && !is_in_ring(w, e->task))
        return; /* it is on its way back */
    bool is_back = t->place == UNBEGUN;
    if (is_back)
        ring_remove(w, e->task);
    owe((struct mp_pool_event){.kind = MP_POOL_RETURNED,
                               .worker = e->worker,
                               .task = e->task,
                               .returned = {.is_back = is_back}});
}

static void on_probe(uint32_t i)
{
    const struct model_worker *w = &workers[i];
    bool has_unread = false;
    for (uint32_t k = 0; k < w->ring_count; k++)
        has_unread = has_unread || model_of(w->ring[k])->place == UNBEGUN;
    owe((struct mp_pool_event){.kind = MP_POOL_PROBED,
                               .worker = i,
                               .probed = {.running = w->running,
                                          .since = w->since,
                                          .progress = w->progress,
                                          .has_unread = has_unread,
                                          .has_room = !w->is_stopped || chance(50)}});
}

static void on_end(const struct mp_pool_effect *e)
{
    struct model_task *t = model_of(e->task);
    bool is_gone = e->end == MP_POOL_GONE || e->end == MP_POOL_TAKEN_BACK;
    assert_int_equal(t->is_cancelled, is_gone);
    if (is_gone)
        assert_int_equal(t->place == BEGUN, e->end == MP_POOL_GONE);
    model_end(t);
}

static void carry_out(const struct mp_pool_effect *e)
{
    struct model_worker *w = &workers[e->worker];
    switch (e->kind) {
    case MP_POOL_SEND:
        on_send(e);
        break;
    case MP_POOL_REVOKE:
        on_revoke(e);
        break;
    case MP_POOL_CANCEL_CALL:
        assert_int_equal(BEGUN, model_of(e->task)->place);
        model_of(e->task)->is_told = true;
        break;
    case MP_POOL_PROBE:
        on_probe(e->worker);
        break;
    case MP_POOL_START:
        assert_int_equal(NONE, w->state);
        *w = (struct model_worker){.state = STARTING};
        break;
    case MP_POOL_STOP:
        assert_int_equal(0, w->ring_count);
        w->state = DYING;
        break;
    case MP_POOL_KILL:
        w->state = DYING;
        break;
    case MP_POOL_END:
        on_end(e);
        break;
    }
}

static void check_counts(void)
{
    uint32_t at[MP_POOL_WORKERS_MAX] = {0};
    uint32_t waiting = 0;
    uint32_t active = 0;
    for (uint32_t i = 0; i < TASKS_MAX; i++) {
        active += model[i].place != ENDED;
        waiting += model[i].place == WAITING;
        if (model[i].place == UNBEGUN || model[i].place == BEGUN)
            at[model[i].worker]++;
    }
    assert_int_equal(active, pool->live);
    assert_int_equal(waiting, pool->queued);
    uint32_t serving = 0;
    for (uint32_t i = 0; i < pool->worker_count; i++) {
        assert_int_equal(at[i], pool->workers[i].sent);
        if (at[i] == 0)
            assert_int_equal(0, pool->workers[i].load_ns);
        serving += pool->workers[i].state == MP_POOL_WORKER_STARTING ||
                   pool->workers[i].state == MP_POOL_WORKER_READY;
    }
    assert_int_equal(pool->workers_wanted, serving);
}

/* Takes an event through the pool, and whatever that makes the driver owe. */
static void drive(struct mp_pool_event ev)
{
    to_do_count = 0;
    owe(ev);
    for (uint32_t next = 0; next < to_do_count; next++) {
        const struct mp_pool_event e = to_do[next];
        if (e.kind == MP_POOL_RETURNED && e.returned.is_back)
            model_of(e.task)->place = WAITING;
        assert_int_equal(MP_OK, step(&e));
        for (uint32_t i = 0; i < seen_count; i++)
            carry_out(&seen[i]);
    }
    check_counts();
}

static void model_died(uint32_t i)
{
    static uint64_t unbegun[TASKS_MAX];
    struct model_worker *w = &workers[i];
    uint32_t count = 0;
    for (uint32_t k = 0; k < w->ring_count; k++)
        if (model_of(w->ring[k])->place == UNBEGUN) {
            unbegun[count++] = w->ring[k];
            if (!model_of(w->ring[k])->is_cancelled)
                model_of(w->ring[k])->place = WAITING;
        }
    uint64_t running = w->running;
    *w = (struct model_worker){.state = NONE};
    drive((struct mp_pool_event){
        .kind = MP_POOL_DIED,
        .worker = i,
        .died = {.running = running, .unbegun = unbegun, .unbegun_count = count}});
}

/* Something that a ready worker does by itself. */
static void work(uint32_t i)
{
    struct model_worker *w = &workers[i];
    if (w->is_stopped)
        return;
    w->progress++;
    if (w->running != 0) {
        struct model_task *t = model_of(w->running);
        uint64_t id = w->running;
        if (chance(3)) {
            w->state = DYING;
            return;
        }
        if (chance(30))
            return; /* goes on computing */
        w->running = 0;
        if (chance(40) && !t->is_told)
            return; /* waits for something */
        ring_remove(w, id);
        model_end(t);
        if (t->is_cancelled) {
            t->place = BEGUN; /* the pool has the last word */
            tasks_ended--;
        }
        drive((struct mp_pool_event){.kind = MP_POOL_DONE,
                                     .worker = i,
                                     .task = id,
                                     .done = {.run = now - w->since, .is_retiring = chance(2)}});
        return;
    }
    /* Begins the next, or resumes one that waits. */
    uint32_t from = w->ring_count == 0 ? 0 : (uint32_t)mp_rng_below(&rng, w->ring_count);
    for (uint32_t k = 0; k < w->ring_count; k++) {
        struct model_task *t = model_of(w->ring[k]);
        if (t->place == UNBEGUN || (t->place == BEGUN && (k >= from || t->is_told))) {
            t->place = BEGUN;
            w->running = t->id;
            w->since = now;
            return;
        }
    }
}

static void submit_random(void)
{
    uint32_t slot = (uint32_t)mp_rng_below(&rng, 400);
    struct model_task *t = &model[slot];
    if (t->place != ENDED)
        return;
    uint32_t function = (uint32_t)mp_rng_below(&rng, 12);
    *t = (struct model_task){.id = (t->id >> 32 == 0 ? 1ull << 32 | slot : t->id + (1ull << 32)),
                             .place = WAITING,
                             .function = function};
    tasks_submitted++;
    drive((struct mp_pool_event){
        .kind = MP_POOL_SUBMIT,
        .task = t->id,
        .submit = {.function = function, .concurrency = function % 4, .is_nested = chance(20)}});
}

static void cancel_random(void)
{
    struct model_task *t = &model[mp_rng_below(&rng, 400)];
    if (t->place == ENDED || t->is_cancelled)
        return;
    t->is_cancelled = true;
    drive((struct mp_pool_event){.kind = MP_POOL_CANCEL, .task = t->id});
}

static void worker_random(void)
{
    uint32_t i = (uint32_t)mp_rng_below(&rng, pool->worker_count);
    struct model_worker *w = &workers[i];
    if (w->state == STARTING && chance(50)) {
        if (chance(10)) {
            model_died(i);
            return;
        }
        w->state = READY;
        drive((struct mp_pool_event){.kind = MP_POOL_READY, .worker = i});
    } else if (w->state == DYING && chance(50)) {
        model_died(i);
    } else if (w->state == READY) {
        if (chance(1))
            w->is_stopped = !w->is_stopped;
        else if (w->is_stopped && chance(5))
            w->is_stopped = false;
        work(i);
    }
}

static void tick(mp_duration span)
{
    now += span;
    if (mp_pool_deadline(pool) <= now)
        drive((struct mp_pool_event){.kind = MP_POOL_TIMER});
}

/* Everybody behaves until nothing is left. */
static void quiesce(uint64_t seed)
{
    for (uint32_t round = 0; pool->live != 0; round++) {
        if (round > 200000)
            fail_msg("seed %llu: %u tasks do not end", (unsigned long long)seed, pool->live);
        for (uint32_t i = 0; i < pool->worker_count; i++) {
            workers[i].is_stopped = false;
            if (workers[i].state == STARTING) {
                workers[i].state = READY;
                drive((struct mp_pool_event){.kind = MP_POOL_READY, .worker = i});
            } else if (workers[i].state == DYING) {
                model_died(i);
            } else if (workers[i].state == READY) {
                work(i);
            }
        }
        tick(MP_MS(1));
    }
}

static void history(uint64_t seed)
{
    mp_rng_init(&rng, seed);
    memset(model, 0, sizeof(model));
    memset(workers, 0, sizeof(workers));
    tasks_submitted = tasks_ended = 0;
    uint32_t count = 1 + (uint32_t)mp_rng_below(&rng, 4);
    open_pool(count, 1 + (uint32_t)mp_rng_below(&rng, 20), 1 + (uint32_t)mp_rng_below(&rng, 200));
    for (uint32_t i = 0; i < count; i++)
        workers[i] = (struct model_worker){.state = READY};
    for (int i = 0; i < 4000; i++) {
        uint64_t what = mp_rng_below(&rng, 100);
        if (what < 25)
            submit_random();
        else if (what < 30)
            cancel_random();
        else if (what < 85)
            worker_random();
        else
            tick(mp_rng_below(&rng, 100) < 90 ? mp_rng_below(&rng, MP_MS(3)) : MP_MS(100));
    }
    quiesce(seed);
    assert_int_equal(tasks_submitted, tasks_ended);
    assert_int_equal(0, pool->queued);
    for (uint32_t i = 0; i < pool->worker_count; i++) {
        assert_int_equal(0, pool->workers[i].sent);
        assert_int_equal(0, pool->workers[i].load_ns);
        assert_int_equal(0, pool->workers[i].zombies);
    }
    assert_int_equal(0, close_pool(NULL));
}

static void ends_every_task_once_whatever_happens(void **state)
{
    (void)state;
    const char *given = getenv("MPREG_SEED");
    uint64_t first = given ? strtoull(given, NULL, 10) : (uint64_t)time(NULL);
    for (uint64_t seed = first; seed < first + (given ? 1 : 100); seed++) {
        print_message("# pool_test: MPREG_SEED=%llu\n", (unsigned long long)seed);
        history(seed);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(ends_every_task_once_whatever_happens)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
