/* The worker pool in virtual time: single situations, step by step. Long random histories are in
 * history_test.c. */
#include "spec/c/core/pool/driver.h"

static uint64_t task(uint32_t slot)
{
    return 1ull << 32 | slot;
}

/* The only effect of that kind in the last step. */
static const struct mp_pool_effect *the(enum mp_pool_effect_kind kind)
{
    const struct mp_pool_effect *found = NULL;
    for (uint32_t i = 0; i < seen_count; i++)
        if (seen[i].kind == kind) {
            assert_null(found);
            found = &seen[i];
        }
    assert_non_null(found);
    return found;
}

static int setup(void **state)
{
    (void)state;
    open_pool(2, 100, 1000);
    return 0;
}

static void submit_as(uint32_t slot, uint32_t function, uint32_t concurrency, bool is_nested)
{
    const struct mp_pool_event ev = {
        .kind = MP_POOL_SUBMIT,
        .task = task(slot),
        .submit = {.function = function, .concurrency = concurrency, .is_nested = is_nested}};
    assert_int_equal(MP_OK, step(&ev));
}

static void submit(uint32_t slot, uint32_t function)
{
    submit_as(slot, function, 0, false);
}

static void cancel(uint32_t slot)
{
    step(&(struct mp_pool_event){.kind = MP_POOL_CANCEL, .task = task(slot)});
}

static void done_after(uint32_t worker, uint32_t slot, mp_duration run)
{
    assert_true(mp_pool_has(pool, worker, task(slot)));
    step(&(struct mp_pool_event){
        .kind = MP_POOL_DONE, .worker = worker, .task = task(slot), .done = {.run = run}});
}

static void returned(uint32_t worker, uint32_t slot, bool is_back)
{
    step(&(struct mp_pool_event){.kind = MP_POOL_RETURNED,
                                 .worker = worker,
                                 .task = task(slot),
                                 .returned = {.is_back = is_back}});
}

/* The worker's processor is with that task (or, negative, with none) since so long. */
static void probed(uint32_t worker, int slot, mp_duration held, bool has_unread)
{
    step(&(struct mp_pool_event){.kind = MP_POOL_PROBED,
                                 .worker = worker,
                                 .probed = {.running = slot < 0 ? 0 : task((uint32_t)slot),
                                            .since = now - held,
                                            .progress = 7,
                                            .has_unread = has_unread,
                                            .has_room = true}});
}

static void died_with(uint32_t worker, int slot, const uint64_t *unbegun, uint32_t count)
{
    step(&(struct mp_pool_event){.kind = MP_POOL_DIED,
                                 .worker = worker,
                                 .died = {.running = slot < 0 ? 0 : task((uint32_t)slot),
                                          .unbegun = unbegun,
                                          .unbegun_count = count}});
}

/* Lets so much time pass, in one go, and fires the timer if it is due. */
static void pass(mp_duration span)
{
    now += span;
    seen_count = 0;
    if (mp_pool_deadline(pool) <= now)
        step(&(struct mp_pool_event){.kind = MP_POOL_TIMER});
}

/* Sends a task that from now on computes on worker 0; the pool has seen it do so for 1 ms. */
static void compute_on_first(uint32_t slot)
{
    submit(slot, 1);
    assert_int_equal(0, the(MP_POOL_SEND)->worker);
    pass(MP_MS(1));
    assert_int_equal(0, the(MP_POOL_PROBE)->worker);
    probed(0, (int)slot, MP_MS(1), false);
    assert_true(pool->workers[0].is_computing);
}

/* --- dispatch --- */

static void sends_to_the_warm_worker_then_to_the_one_with_least(void **state)
{
    (void)state;
    submit(0, 1);
    assert_int_equal(0, the(MP_POOL_SEND)->worker);
    submit(1, 1);
    submit(2, 1);
    assert_int_equal(0, the(MP_POOL_SEND)->worker);
    submit(3, 1); /* 60 us are ahead on the first */
    assert_int_equal(1, the(MP_POOL_SEND)->worker);
    for (uint32_t i = 0; i < 3; i++)
        done_after(0, i, MP_US(1));
    assert_int_equal(0, pool->workers[0].load_ns);
    assert_int_equal(3, pool->workers[0].done);
    assert_int_equal(MP_NEVER, pool->workers[0].kill_at);
}

static void keeps_what_would_wait_long_for_any_worker(void **state)
{
    (void)state;
    submit(0, 1);
    done_after(0, 0, MP_MS(3));
    submit(0, 1);
    submit(1, 1);
    submit(2, 1);
    assert_int_equal(0, seen_count);
    assert_int_equal(1, pool->queued);
    done_after(1, 1, MP_MS(3));
    assert_int_equal(1, the(MP_POOL_SEND)->worker);
    assert_int_equal(0, pool->queued);
}

static void takes_back_what_waits_behind_a_computation_in_order(void **state)
{
    (void)state;
    compute_on_first(0);
    submit(1, 2);
    assert_int_equal(1, the(MP_POOL_SEND)->worker); /* nothing new for it */
    /* Both compute, each with two behind: they were sent before that was known. */
    done_after(1, 1, MP_US(1));
    done_after(0, 0, MP_US(1));
    for (uint32_t i = 0; i < 4; i++)
        submit(i, 3);
    assert_int_equal(3, pool->workers[0].sent);
    pass(MP_MS(1));
    assert_int_equal(2, count_of(MP_POOL_PROBE));
    probed(0, 0, MP_MS(1), true);
    assert_int_equal(task(2), the(MP_POOL_REVOKE)->task);
    returned(0, 2, true);
    assert_int_equal(task(1),
                     the(MP_POOL_REVOKE)->task); /* nothing is sent before the chain ends */
    returned(0, 1, true);
    assert_int_equal(task(0), the(MP_POOL_REVOKE)->task);
    returned(0, 0, false);
    assert_int_equal(2, count_of(MP_POOL_SEND));
    assert_int_equal(task(1), seen[0].task);
    assert_int_equal(task(2), seen[1].task);
    assert_int_equal(1, seen[0].worker);
    /* It is not asked again: its newest was begun. */
    pass(MP_MS(10));
    probed(0, 0, MP_MS(10), false);
    assert_int_equal(0, count_of(MP_POOL_REVOKE));
}

static void takes_back_as_soon_as_somebody_has_time(void **state)
{
    (void)state;
    submit(0, 1);
    done_after(0, 0, MP_MS(3));
    submit(0, 1);
    submit(1, 1);
    pass(MP_MS(1));
    probed(0, 0, MP_MS(1), false);
    probed(1, 1, MP_MS(1), false);
    submit(2, 2);
    assert_int_equal(1, pool->queued);
    done_after(1, 1, MP_MS(3));
    assert_int_equal(task(2), the(MP_POOL_SEND)->task);
    done_after(1, 2, MP_US(1));
    /* Now one that is behind a computation when the other worker ends its own. */
    done_after(0, 0, MP_MS(3));
    for (uint32_t i = 3; i < 6; i++)
        submit(i, 3);
    assert_int_equal(3, pool->workers[0].sent);
    submit(6, 1);
    assert_int_equal(1, the(MP_POOL_SEND)->worker);
    pass(MP_MS(1));
    probed(1, 6, MP_MS(1), false);
    returned(1, 6, false);
    probed(0, 3, MP_MS(1), true);
    assert_int_equal(0, count_of(MP_POOL_REVOKE)); /* where to? */
    done_after(1, 6, MP_MS(1));
    assert_int_equal(task(5), the(MP_POOL_REVOKE)->task);
    returned(0, 5, true);
    assert_int_equal(task(4), the(MP_POOL_REVOKE)->task);
    returned(0, 4, true);
    assert_int_equal(task(3), the(MP_POOL_REVOKE)->task);
    returned(0, 3, false);
    assert_int_equal(2, count_of(MP_POOL_SEND));
    assert_int_equal(1, seen[0].worker);
}

static void does_not_count_what_waits(void **state)
{
    (void)state;
    mp_pool_fini(pool);
    free(pool);
    open_pool(1, 100, 1000);
    submit(0, 1);
    done_after(0, 0, MP_MS(5));
    submit(0, 1);
    submit(1, 2);
    assert_int_equal(1, pool->queued);
    /* It made a call: its child is not behind it. */
    step(&(struct mp_pool_event){.kind = MP_POOL_YIELDED, .worker = 0, .task = task(0)});
    assert_int_equal(task(1), the(MP_POOL_SEND)->task);
    done_after(0, 1, MP_US(1));
    done_after(0, 0, MP_MS(5));
    /* It sleeps, of which nobody tells. */
    submit(0, 1);
    submit(1, 2);
    assert_int_equal(1, pool->queued);
    pass(MP_MS(1));
    the(MP_POOL_PROBE);
    probed(0, -1, 0, false);
    assert_int_equal(task(1), the(MP_POOL_SEND)->task);
    /* What others say of tasks that it does not have changes nothing. */
    step(&(struct mp_pool_event){.kind = MP_POOL_YIELDED, .worker = 0, .task = task(77)});
}

static void notices_a_worker_that_reads_nothing(void **state)
{
    (void)state;
    submit(0, 1);
    submit(1, 1);
    pass(MP_MS(1));
    probed(0, -1, 0, true);
    assert_false(pool->workers[0].is_stuck);
    for (int i = 0; i < 30 && !pool->workers[0].is_stuck; i++) {
        pass(MP_MS(1));
        if (count_of(MP_POOL_PROBE))
            probed(0, -1, 0, true);
    }
    assert_true(pool->workers[0].is_stuck);
    assert_int_equal(task(1), the(MP_POOL_REVOKE)->task);
    returned(0, 1, true);
    returned(0, 0, true);
    assert_int_equal(2, count_of(MP_POOL_SEND));
    assert_int_equal(1, seen[0].worker);
    assert_int_equal(task(0), seen[0].task);
    /* It has nothing any more, but is looked at, and serves again once it reads. */
    submit(2, 1);
    assert_int_equal(1, the(MP_POOL_SEND)->worker);
    pass(MP_MS(50));
    assert_true(count_of(MP_POOL_PROBE) >= 1);
    probed(0, -1, 0, false);
    assert_false(pool->workers[0].is_stuck);
    submit(3, 1);
    assert_int_equal(0, the(MP_POOL_SEND)->worker);
    assert_int_equal(0, count_of(MP_POOL_KILL));
}

static void tries_a_full_ring_again_later(void **state)
{
    (void)state;
    mp_pool_fini(pool);
    free(pool);
    open_pool(1, 100, 1000);
    submit(0, 1);
    const struct mp_pool_event full = {.kind = MP_POOL_RETURNED,
                                       .worker = 0,
                                       .task = task(0),
                                       .returned = {.is_back = true, .is_full = true}};
    step(&full);
    assert_int_equal(0, count_of(MP_POOL_SEND));
    assert_int_equal(1, pool->queued);
    pass(MP_MS(1));
    the(MP_POOL_PROBE);
    step(&(struct mp_pool_event){.kind = MP_POOL_PROBED, .probed = {.has_unread = true}});
    assert_int_equal(0, count_of(MP_POOL_SEND));
    pass(MP_MS(50));
    the(MP_POOL_PROBE);
    probed(0, -1, 0, false);
    assert_int_equal(task(0), the(MP_POOL_SEND)->task);
}

/* --- limits --- */

static void keeps_to_the_limits(void **state)
{
    (void)state;
    mp_pool_fini(pool);
    free(pool);
    open_pool(1, 2, 3);
    for (uint32_t i = 0; i < 5; i++)
        submit(i, 1);
    assert_int_equal(2, pool->workers[0].sent);
    assert_int_equal(3, pool->queued);
    submit(5, 1);
    assert_int_equal(MP_POOL_QUEUE_FULL, the(MP_POOL_END)->end);
    assert_int_equal(5, pool->live);
    submit_as(6, 1, 0, true); /* its parent waits */
    assert_int_equal(0, the(MP_POOL_SEND)->worker);
    done_after(0, 6, 1);
    assert_int_equal(0, seen_count); /* two are begun still */
    done_after(0, 0, 1);
    assert_int_equal(task(2), the(MP_POOL_SEND)->task);
}

static void lets_a_function_run_as_often_as_it_may(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 5; i++)
        submit_as(i, 1, 2, false);
    assert_int_equal(2, pool->workers[0].sent);
    assert_int_equal(3, pool->queued);
    submit(9, 2);
    assert_int_equal(task(9), the(MP_POOL_SEND)->task); /* others pass */
    cancel(2);
    assert_int_equal(MP_POOL_TAKEN_BACK, the(MP_POOL_END)->end);
    done_after(0, 1, 1);
    assert_int_equal(task(3), the(MP_POOL_SEND)->task);
    /* One that nobody waits for still runs. */
    cancel(0);
    returned(0, 0, false);
    assert_int_equal(0, count_of(MP_POOL_SEND));
    done_after(0, 0, 1);
    assert_int_equal(MP_POOL_GONE, the(MP_POOL_END)->end);
    assert_int_equal(task(4), the(MP_POOL_SEND)->task);
}

/* --- deadlines --- */

static void drops_what_had_not_begun(void **state)
{
    (void)state;
    submit(0, 1);
    cancel(0);
    assert_int_equal(task(0), the(MP_POOL_REVOKE)->task);
    returned(0, 0, true);
    assert_int_equal(MP_POOL_TAKEN_BACK, the(MP_POOL_END)->end);
    assert_int_equal(0, pool->live);
    cancel(0); /* nobody knows it any more */
    assert_int_equal(0, seen_count);
}

static void lets_a_call_end_shortly_after_its_deadline(void **state)
{
    (void)state;
    compute_on_first(0);
    cancel(0);
    returned(0, 0, false);
    the(MP_POOL_CANCEL_CALL);
    the(MP_POOL_PROBE);
    probed(0, 0, MP_MS(1), false);
    assert_int_equal(0, count_of(MP_POOL_START));
    pass(MP_MS(4));
    done_after(0, 0, MP_MS(5));
    assert_int_equal(MP_POOL_GONE, the(MP_POOL_END)->end);
    pass(MP_SECONDS(1));
    assert_int_equal(0, count_of(MP_POOL_KILL));
    assert_int_equal(0, pool->restarts);
}

/* The task of compute_on_first is past its deadline and computes on. */
static void make_suspect(uint32_t slot)
{
    cancel(slot);
    returned(0, slot, false);
    probed(0, (int)slot, MP_MS(1), false);
    pass(MP_MS(5));
    the(MP_POOL_PROBE);
    probed(0, (int)slot, MP_MS(6), false);
    assert_int_equal(MP_POOL_WORKER_SUSPECT, pool->workers[0].state);
    pass(0);
    assert_int_equal(2, the(MP_POOL_START)->worker);
}

static void replaces_and_kills_a_worker_that_computes_on(void **state)
{
    (void)state;
    submit(7, 5); /* had begun, and waits */
    compute_on_first(0);
    make_suspect(0);
    uint32_t kills = 0;
    for (int i = 0; i < 240; i++) {
        pass(MP_MS(1));
        kills += count_of(MP_POOL_KILL);
        if (count_of(MP_POOL_PROBE))
            probed(0, 0, MP_MS(6 + i), false);
    }
    assert_int_equal(0, kills);
    pass(MP_MS(5));
    assert_int_equal(0, the(MP_POOL_KILL)->worker);
    died_with(0, 0, NULL, 0);
    assert_int_equal(2, count_of(MP_POOL_END));
    for (uint32_t i = 0; i < 2; i++)
        assert_int_equal(seen[i].task == task(0) ? MP_POOL_GONE : MP_POOL_LOST_NEIGHBOUR,
                         seen[i].end);
    assert_int_equal(0, count_of(MP_POOL_START)); /* that was done before */
    assert_int_equal(1, pool->restarts);
}

static void lets_a_suspect_retire_whose_call_ended(void **state)
{
    (void)state;
    submit(7, 5);
    compute_on_first(0);
    make_suspect(0);
    pass(MP_MS(200));
    done_after(0, 0, MP_MS(206));
    assert_int_equal(MP_POOL_WORKER_RETIRING, pool->workers[0].state);
    pass(MP_SECONDS(60)); /* its other call waits for long */
    assert_int_equal(0, count_of(MP_POOL_KILL));
    submit(8, 5);
    assert_int_not_equal(0, the(MP_POOL_SEND)->worker);
    done_after(0, 7, 1);
    assert_int_equal(0, the(MP_POOL_STOP)->worker);
    pass(MP_MS(999));
    assert_int_equal(0, count_of(MP_POOL_KILL));
    pass(MP_MS(1)); /* it does not */
    assert_int_equal(0, the(MP_POOL_KILL)->worker);
    died_with(0, -1, NULL, 0);
    assert_int_equal(MP_POOL_WORKER_NONE, pool->workers[0].state);
}

static void moves_what_a_dying_worker_had_not_begun(void **state)
{
    (void)state;
    submit(0, 1);
    submit(1, 2);
    submit(2, 2);
    const uint64_t unbegun[] = {task(2), task(1)};
    died_with(0, 0, unbegun, 2);
    assert_int_equal(MP_POOL_LOST_SUSPECT, the(MP_POOL_END)->end);
    assert_int_equal(2, count_of(MP_POOL_SEND));
    uint64_t order[2];
    uint32_t count = 0;
    for (uint32_t i = 0; i < seen_count; i++)
        if (seen[i].kind == MP_POOL_SEND)
            order[count++] = seen[i].task;
    assert_int_equal(task(1), order[0]);
    assert_int_equal(task(2), order[1]);
    pass(0);
    the(MP_POOL_START);
}

static void gives_up_the_oldest_of_too_many_that_retire(void **state)
{
    (void)state;
    mp_pool_fini(pool);
    free(pool);
    open_pool(1, 100, 1000);
    uint32_t worker = 0;
    for (uint32_t i = 0; i < 5; i++) {
        submit(2 * i, 1); /* waits for ever */
        submit(2 * i + 1, 2);
        step(&(struct mp_pool_event){.kind = MP_POOL_DONE,
                                     .worker = worker,
                                     .task = task(2 * i + 1),
                                     .done = {.run = 1, .is_retiring = true}});
        pass(0);
        if (i == 4)
            break;
        assert_int_equal(0, count_of(MP_POOL_KILL));
        worker = the(MP_POOL_START)->worker;
        step(&(struct mp_pool_event){.kind = MP_POOL_READY, .worker = worker});
    }
    assert_int_equal(0, the(MP_POOL_KILL)->worker);
    died_with(0, -1, NULL, 0);
    assert_int_equal(MP_POOL_LOST_NEIGHBOUR, the(MP_POOL_END)->end);
}

/* --- crashes --- */

/* Runs the function until it has killed so many workers. */
static void crash(uint32_t function, uint32_t times)
{
    for (uint32_t i = 0; i < times; i++) {
        submit(0, function);
        uint32_t worker = the(MP_POOL_SEND)->worker;
        died_with(worker, 0, NULL, 0);
        assert_int_equal(MP_POOL_LOST_SUSPECT, the(MP_POOL_END)->end);
        pass(MP_MS(100));
        step(&(struct mp_pool_event){.kind = MP_POOL_READY, .worker = the(MP_POOL_START)->worker});
    }
}

static bool is_refused(uint32_t function)
{
    submit(0, function);
    if (count_of(MP_POOL_END) == 1) {
        assert_int_equal(MP_POOL_CRASH_LOOP, the(MP_POOL_END)->end);
        return true;
    }
    done_after(the(MP_POOL_SEND)->worker, 0, 1);
    return false;
}

static void refuses_a_function_that_kills_workers(void **state)
{
    (void)state;
    crash(1, 4);
    assert_false(is_refused(1));
    pass(MP_SECONDS(61)); /* long ago */
    crash(1, 4);
    assert_false(is_refused(1));
    crash(2, 1);
    crash(1, 1);
    assert_true(is_refused(1));
    assert_false(is_refused(2));
    mp_time until = mp_pool_refused_until(pool, 1, now);
    assert_true(until > now && until - now <= MP_SECONDS(10));
    assert_int_equal(0, mp_pool_refused_until(pool, 2, now));
    assert_int_equal(0, mp_pool_refused_until(pool, 4000, now));
    pass(until - now - 1);
    assert_true(is_refused(1));
    pass(1);
    assert_int_equal(0, mp_pool_refused_until(pool, 1, now));
    assert_false(is_refused(1));
}

static void doubles_the_refusal_up_to_five_minutes(void **state)
{
    (void)state;
    static const uint32_t seconds[] = {10, 20, 40, 80, 160, 300, 300};
    for (uint32_t i = 0; i < sizeof(seconds) / sizeof(*seconds); i++) {
        crash(1, 5);
        mp_time until = mp_pool_refused_until(pool, 1, now);
        /* crash() lets 100 ms pass after the last one */
        assert_int_equal(MP_SECONDS(seconds[i]) - MP_MS(100), until - now);
        pass(until - now);
    }
    pass(MP_SECONDS(301)); /* it was good for long enough */
    crash(1, 5);
    assert_int_equal(MP_SECONDS(10) - MP_MS(100), mp_pool_refused_until(pool, 1, now) - now);
}

static void refuses_also_what_was_queued(void **state)
{
    (void)state;
    mp_pool_fini(pool);
    free(pool);
    open_pool(1, 1, 1000);
    crash(1, 4);
    for (uint32_t i = 0; i < 600; i++)
        submit_as(i, 1, i < 300 ? 0 : 400, false);
    submit(600, 2);
    died_with(0, 0, NULL, 0);
    uint32_t ends = count_of(MP_POOL_END);
    pass(0);
    ends += count_of(MP_POOL_END);
    step(&(struct mp_pool_event){.kind = MP_POOL_READY, .worker = the(MP_POOL_START)->worker});
    for (;;) {
        ends += count_of(MP_POOL_END);
        if (count_of(MP_POOL_SEND) != 0)
            done_after(the(MP_POOL_SEND)->worker, 600, 1);
        else if (mp_pool_deadline(pool) > now)
            break;
        else
            pass(0);
    }
    assert_int_equal(600, ends);
    assert_int_equal(0, pool->live);
}

static void starts_again_after_longer_and_longer(void **state)
{
    (void)state;
    static const uint32_t pauses_ms[] = {100, 200, 400, 800, 1600, 3200, 6400, 10000, 10000};
    died_with(0, -1, NULL, 0);
    pass(0);
    the(MP_POOL_START);
    for (uint32_t i = 0; i < sizeof(pauses_ms) / sizeof(*pauses_ms); i++) {
        died_with(0, -1, NULL, 0);
        pass(MP_MS(pauses_ms[i]) - 1);
        assert_int_equal(0, count_of(MP_POOL_START));
        pass(1);
        assert_int_equal(0, the(MP_POOL_START)->worker);
    }
    step(&(struct mp_pool_event){.kind = MP_POOL_READY, .worker = 0});
    died_with(0, -1, NULL, 0);
    pass(0);
    the(MP_POOL_START);
}

/* --- memory --- */

static void submits_or_leaves_everything_as_it_was(void **state)
{
    (void)state;
    uint32_t refused = 0;
    counted.fail_at = 0;
    for (uint32_t i = 0; i < 2000;) {
        const struct mp_pool_event ev = {
            .kind = MP_POOL_SUBMIT, .task = task(i), .submit = {.function = i % 300}};
        uint32_t live = pool->live;
        uint32_t queued = pool->queued;
        enum mp_err err = step(&ev);
        if (err == MP_OK) {
            i++;
            continue;
        }
        assert_int_equal(MP_ENOMEM, err);
        assert_int_equal(0, seen_count);
        assert_int_equal(live, pool->live);
        assert_int_equal(queued, pool->queued);
        refused++;
        /* One more allocation may succeed. */
        counted.fail_at = counted.count + 1;
    }
    assert_true(refused > 3);
    /* Nothing else needs memory. */
    counted.fail_at = 0;
    died_with(0, -1, NULL, 0);
    died_with(1, -1, NULL, 0);
    pass(0);
    assert_int_equal(2, count_of(MP_POOL_START));
}

int main(void)
{
#define IN_POOL(f) cmocka_unit_test_setup_teardown(f, setup, close_pool)
    const struct CMUnitTest tests[] = {
        IN_POOL(sends_to_the_warm_worker_then_to_the_one_with_least),
        IN_POOL(keeps_what_would_wait_long_for_any_worker),
        IN_POOL(takes_back_what_waits_behind_a_computation_in_order),
        IN_POOL(takes_back_as_soon_as_somebody_has_time),
        IN_POOL(does_not_count_what_waits),
        IN_POOL(notices_a_worker_that_reads_nothing),
        IN_POOL(tries_a_full_ring_again_later),
        IN_POOL(keeps_to_the_limits),
        IN_POOL(lets_a_function_run_as_often_as_it_may),
        IN_POOL(drops_what_had_not_begun),
        IN_POOL(lets_a_call_end_shortly_after_its_deadline),
        IN_POOL(replaces_and_kills_a_worker_that_computes_on),
        IN_POOL(lets_a_suspect_retire_whose_call_ended),
        IN_POOL(moves_what_a_dying_worker_had_not_begun),
        IN_POOL(gives_up_the_oldest_of_too_many_that_retire),
        IN_POOL(refuses_a_function_that_kills_workers),
        IN_POOL(doubles_the_refusal_up_to_five_minutes),
        IN_POOL(refuses_also_what_was_queued),
        IN_POOL(starts_again_after_longer_and_longer),
        IN_POOL(submits_or_leaves_everything_as_it_was),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
