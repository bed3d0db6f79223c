/* Calls in virtual time: single situations, and long random histories against a model that knows of
 * each call who asked, who its parent is and whether an attempt is under way. */
#include "src/core/rpc/rpc.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "spec/support/alloc.h"
#include "src/base/limits.h"

static struct spec_alloc counted;
static struct mp_alloc alloc;
static struct mp_rpc rpc;
static mp_time now;
static struct mp_rpc_effect seen[4096];
static uint32_t seen_count;
static uint64_t begun;

static enum mp_err step(const struct mp_rpc_event *ev)
{
    struct mp_rpc_effects out = {0};
    enum mp_err err = mp_rpc_step(&rpc, now, ev, &out);
    assert_true(out.count <= 4096);
    if (out.count != 0)
        memcpy(seen, out.items, out.count * sizeof(*seen));
    seen_count = out.count;
    begun = out.begun;
    return err;
}

static int setup(void **state)
{
    (void)state;
    const struct mp_rpc_config cfg = {.waiting_max = 3};
    counted = (struct spec_alloc){.fail_at = SPEC_NEVER};
    alloc = spec_alloc_of(&counted);
    now = MP_SECONDS(1000);
    return mp_rpc_init(&rpc, &cfg, &alloc, 1) == MP_OK ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    mp_rpc_fini(&rpc);
    mp_rpc_fini(&rpc);
    return counted.live_bytes == 0 ? 0 : -1;
}

static uint32_t count_of(enum mp_rpc_effect_kind kind)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < seen_count; i++)
        count += seen[i].kind == kind;
    return count;
}

static const struct mp_rpc_effect *the(enum mp_rpc_effect_kind kind)
{
    const struct mp_rpc_effect *found = NULL;
    for (uint32_t i = 0; i < seen_count; i++)
        if (seen[i].kind == kind) {
            assert_null(found);
            found = &seen[i];
        }
    assert_non_null(found);
    return found;
}

static struct mp_rpc_event begin_of(uint64_t id, mp_duration timeout, uint32_t retries)
{
    return (struct mp_rpc_event){
        .kind = MP_RPC_BEGIN,
        .begin = {.origin = {.kind = MP_RPC_CLIENT, .owner = 1ull << 32 | 3, .id = id},
                  .target = {.function = 5},
                  .args = {.bytes = mp_slice_str("args")},
                  .deadline = now + timeout,
                  .retries = retries}};
}

static uint64_t begin(uint64_t id, mp_duration timeout, uint32_t retries)
{
    const struct mp_rpc_event ev = begin_of(id, timeout, retries);
    assert_int_equal(MP_OK, step(&ev));
    assert_int_equal(begun, the(MP_RPC_SUBMIT)->call);
    return begun;
}

static uint64_t begin_child(uint64_t parent, uint64_t id)
{
    struct mp_rpc_event ev = begin_of(id, MP_SECONDS(5), 0);
    ev.begin.origin = (struct mp_rpc_origin){.kind = MP_RPC_NESTED, .owner = 7, .id = id};
    ev.begin.parent = parent;
    assert_int_equal(MP_OK, step(&ev));
    return begun;
}

/* A call for a step of a run, or from another node; `id` may then be cancelled with cancel(). */
static uint64_t begin_for(enum mp_rpc_origin_kind kind, uint64_t id, mp_duration timeout)
{
    struct mp_rpc_event ev = begin_of(id, timeout, 0);
    ev.begin.origin.kind = kind;
    assert_int_equal(MP_OK, step(&ev));
    return begun;
}

static void cancel(enum mp_rpc_origin_kind kind, uint64_t id)
{
    step(&(struct mp_rpc_event){
        .kind = MP_RPC_CANCEL_ORIGIN,
        .origin = {.kind = kind, .owner = kind == MP_RPC_NESTED ? 7 : 1ull << 32 | 3, .id = id}});
}

static void outcome(uint64_t call, bool is_error, bool is_retryable, bool is_neighbour)
{
    step(&(struct mp_rpc_event){.kind = MP_RPC_OUTCOME,
                                .call = call,
                                .outcome = {.is_error = is_error,
                                            .is_retryable = is_retryable,
                                            .is_neighbour = is_neighbour,
                                            .has_begun = true}});
}

static void ended(uint64_t call)
{
    step(&(struct mp_rpc_event){.kind = MP_RPC_ENDED, .call = call});
}

static void lost(uint64_t call)
{
    step(
        &(struct mp_rpc_event){.kind = MP_RPC_ENDED, .call = call, .outcome = {.is_unsure = true}});
}

static void expect_answer(enum mp_rpc_answer answer, bool is_confirmed)
{
    assert_int_equal(answer, the(MP_RPC_ANSWER)->answer.answer);
    assert_int_equal(is_confirmed, the(MP_RPC_ANSWER)->answer.is_confirmed);
}

static void pass(mp_duration span)
{
    now += span;
    seen_count = 0;
    if (mp_rpc_deadline(&rpc) <= now)
        step(&(struct mp_rpc_event){.kind = MP_RPC_TIMER});
}

/* --- one call --- */

static void answers_with_the_outcome(void **state)
{
    (void)state;
    uint64_t call = begin(9, MP_SECONDS(5), 0);
    const struct mp_rpc_call *c = mp_rpc_get(&rpc, call);
    assert_true(mp_slice_is(c->args.bytes, "args"));
    assert_int_equal(now + MP_SECONDS(5), mp_rpc_deadline(&rpc));
    outcome(call, false, false, false);
    const struct mp_rpc_effect *a = the(MP_RPC_ANSWER);
    assert_int_equal(MP_RPC_RESULT, a->answer.answer);
    assert_int_equal(9, a->answer.origin.id);
    assert_int_equal(1, a->answer.attempt);
    assert_null(mp_rpc_get(&rpc, call));
    assert_int_equal(MP_NEVER, mp_rpc_deadline(&rpc));
    assert_int_equal(0, rpc.live);
    /* Its place is taken again, under another number. */
    assert_int_not_equal(call, begin(9, MP_SECONDS(5), 0));
}

static void answers_at_the_deadline_and_waits_for_the_attempt(void **state)
{
    (void)state;
    uint64_t call = begin(1, MP_MS(100), 0);
    pass(MP_MS(100) - 1);
    assert_int_equal(0, seen_count);
    pass(1);
    assert_int_equal(MP_RPC_DEADLINE, the(MP_RPC_ANSWER)->answer.answer);
    assert_int_equal(MP_MS(100), the(MP_RPC_ANSWER)->answer.timeout);
    assert_int_equal(call, the(MP_RPC_ABANDON)->call);
    assert_int_equal(0, rpc.live);
    assert_int_equal(1, rpc.used);
    ended(call);
    assert_int_equal(0, seen_count);
    assert_int_equal(0, rpc.used);
}

static void retries_with_growing_pauses(void **state)
{
    (void)state;
    uint64_t call = begin(1, MP_SECONDS(50), 3);
    mp_duration pause = MP_MS(100);
    for (uint32_t attempt = 1; attempt <= 3; attempt++) {
        outcome(call, true, true, false);
        assert_int_equal(0, seen_count);
        mp_duration wait = mp_rpc_deadline(&rpc) - now;
        assert_true(wait >= pause / 2 && wait <= pause);
        pass(wait);
        assert_int_equal(call, the(MP_RPC_SUBMIT)->call);
        pause *= 2;
    }
    outcome(call, true, true, false);
    assert_int_equal(MP_RPC_ERROR, the(MP_RPC_ANSWER)->answer.answer);
    assert_int_equal(4, the(MP_RPC_ANSWER)->answer.attempt);
}

static void waits_on_for_a_provider_without_using_retries(void **state)
{
    (void)state;
    struct mp_rpc_event ev = begin_of(1, MP_SECONDS(2), 0);
    ev.begin.is_patient = true;
    assert_int_equal(MP_OK, step(&ev));
    uint64_t call = begun;
    const struct mp_rpc_event absent = {
        .kind = MP_RPC_OUTCOME,
        .call = call,
        .outcome = {.is_error = true, .is_retryable = true, .is_absent = true}};
    for (int i = 0; i < 5; i++) {
        step(&absent);
        assert_int_equal(0, seen_count);
        pass(mp_rpc_deadline(&rpc) - now);
        assert_int_equal(call, the(MP_RPC_SUBMIT)->call);
        assert_int_equal(1, mp_rpc_get(&rpc, call)->attempt);
    }
    step(&absent);
    pass(MP_SECONDS(2)); /* nobody came */
    while (count_of(MP_RPC_ANSWER) == 0) {
        step(&absent);
        if (count_of(MP_RPC_ANSWER) == 0)
            pass(mp_rpc_deadline(&rpc) - now);
    }
    assert_int_equal(0, rpc.live);
    /* What has begun is another matter. */
    assert_int_equal(MP_OK, step(&ev));
    call = begun;
    outcome(call, true, true, false);
    assert_int_equal(MP_RPC_ERROR, the(MP_RPC_ANSWER)->answer.answer);
}

static void does_not_retry_what_makes_no_sense(void **state)
{
    (void)state;
    uint64_t call = begin(1, MP_SECONDS(50), 3);
    outcome(call, true, false, false); /* its code says so */
    the(MP_RPC_ANSWER);
    call = begin(2, MP_MS(20), 3);
    outcome(call, true, true, false); /* the pause would be over too late */
    assert_int_equal(MP_RPC_ERROR, the(MP_RPC_ANSWER)->answer.answer);
    call = begin(3, MP_SECONDS(50), 3);
    outcome(call, true, true, false);
    step(&(struct mp_rpc_event){.kind = MP_RPC_CANCEL, .call = call});
    assert_int_equal(MP_RPC_CANCELLED, the(MP_RPC_ANSWER)->answer.answer);
    assert_int_equal(0, rpc.used);
}

static void runs_a_lost_neighbour_again_once_if_idempotent(void **state)
{
    (void)state;
    struct mp_rpc_event ev = begin_of(1, MP_SECONDS(5), 0);
    ev.begin.target.is_idempotent = true;
    assert_int_equal(MP_OK, step(&ev));
    uint64_t call = begun;
    outcome(call, true, true, true);
    assert_int_equal(call, the(MP_RPC_SUBMIT)->call);
    outcome(call, true, true, true);
    assert_int_equal(MP_RPC_ERROR, the(MP_RPC_ANSWER)->answer.answer);
    /* One that had the processor is no neighbour. */
    assert_int_equal(MP_OK, step(&ev));
    outcome(begun, true, true, false);
    assert_int_equal(MP_RPC_ERROR, the(MP_RPC_ANSWER)->answer.answer);
    /* Without the mark it is not run again either. */
    call = begin(2, MP_SECONDS(5), 0);
    outcome(call, true, true, true);
    the(MP_RPC_ANSWER);
}

static void keeps_to_a_functions_own_timeout(void **state)
{
    (void)state;
    struct mp_rpc_event ev = begin_of(1, MP_SECONDS(5), 1);
    ev.begin.target.timeout = MP_MS(100);
    assert_int_equal(MP_OK, step(&ev));
    uint64_t call = begun;
    pass(MP_MS(100));
    the(MP_RPC_ABANDON);
    assert_int_equal(0, count_of(MP_RPC_ANSWER));
    pass(MP_MS(500)); /* the next attempt waits for the end of this one */
    assert_int_equal(0, seen_count);
    ended(call);
    assert_int_equal(0, seen_count);
    pass(MP_MS(100));
    assert_int_equal(call, the(MP_RPC_SUBMIT)->call);
    pass(MP_MS(100));
    assert_int_equal(MP_RPC_DEADLINE, the(MP_RPC_ANSWER)->answer.answer);
    assert_int_equal(MP_MS(100), the(MP_RPC_ANSWER)->answer.timeout);
    ended(call);
    /* It may also end by itself; that is too late, but counts as its end. */
    assert_int_equal(MP_OK, step(&ev));
    call = begun;
    pass(MP_MS(100));
    ended(call);
    assert_int_equal(MP_OK, step(&ev));
    pass(MP_SECONDS(10)); /* the whole deadline while an abandoned attempt goes on */
    pass(MP_SECONDS(10));
    assert_int_equal(0, rpc.live);
}

static void waits_for_a_provider_within_bounds(void **state)
{
    (void)state;
    struct mp_rpc_event ev = begin_of(1, MP_MS(100), 0);
    ev.begin.target.function = MP_RPC_NONE;
    ev.begin.query = mp_slice_str("what was asked for");
    uint64_t calls[3];
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(MP_OK, step(&ev));
        assert_int_equal(0, seen_count);
        calls[i] = begun;
    }
    assert_int_equal(MP_EFULL, step(&ev));
    uint32_t slot = 0;
    const struct mp_rpc_call *c = mp_rpc_next_waiting(&rpc, &slot);
    assert_int_equal(calls[0], c->id);
    assert_true(mp_slice_is(c->query, "what was asked for"));
    step(&(struct mp_rpc_event){
        .kind = MP_RPC_RESOLVED, .call = calls[0], .resolved = {.target = {.function = 8}}});
    assert_int_equal(8, mp_rpc_get(&rpc, the(MP_RPC_SUBMIT)->call)->target.function);
    assert_int_equal(2, rpc.waiting);
    pass(MP_MS(100));
    assert_int_equal(3, count_of(MP_RPC_ANSWER));
    assert_int_equal(1, count_of(MP_RPC_ABANDON));
    assert_int_equal(0, rpc.waiting);
    ended(calls[0]);
    assert_int_equal(0, rpc.used);
}

static void gives_a_block_back_once(void **state)
{
    (void)state;
    struct mp_rpc_event ev = begin_of(1, MP_SECONDS(5), 1);
    ev.begin.args.handle = 77;
    assert_int_equal(MP_OK, step(&ev));
    uint64_t call = begun;
    outcome(call, true, true, false);
    assert_int_equal(0, count_of(MP_RPC_RELEASE)); /* the next attempt needs it */
    pass(MP_MS(100));
    the(MP_RPC_SUBMIT);
    pass(MP_SECONDS(5));
    assert_int_equal(0, count_of(MP_RPC_RELEASE)); /* a worker reads it still */
    ended(call);
    assert_int_equal(77, the(MP_RPC_RELEASE)->handle);
}

/* --- trees and owners --- */

static void cancels_the_whole_tree(void **state)
{
    (void)state;
    uint64_t root = begin(1, MP_SECONDS(5), 0);
    uint64_t child = begin_child(root, 1);
    uint64_t grandchild = begin_child(child, 2);
    uint64_t other = begin_child(root, 3);
    step(&(struct mp_rpc_event){
        .kind = MP_RPC_CANCEL_ORIGIN,
        .origin = {.kind = MP_RPC_CLIENT, .owner = 1ull << 32 | 3, .id = 1}});
    assert_int_equal(MP_RPC_CANCELLED, the(MP_RPC_ANSWER)->answer.answer);
    assert_int_equal(4, count_of(MP_RPC_ABANDON));
    assert_int_equal(0, rpc.live);
    ended(grandchild);
    ended(root);
    ended(other);
    ended(child);
    assert_int_equal(0, rpc.used);
}

static void cancels_children_when_their_parent_ends(void **state)
{
    (void)state;
    uint64_t root = begin(1, MP_SECONDS(5), 1);
    uint64_t child = begin_child(root, 1);
    outcome(root, true, true, false); /* another attempt will make its own */
    assert_int_equal(child, the(MP_RPC_ABANDON)->call);
    assert_int_equal(0, count_of(MP_RPC_ANSWER));
    ended(child);
    pass(MP_MS(100));
    child = begin_child(root, 2);
    outcome(root, false, false, false);
    assert_int_equal(child, the(MP_RPC_ABANDON)->call);
    assert_int_equal(root, the(MP_RPC_ANSWER)->call);
}

static void forgets_what_an_owner_asked_for(void **state)
{
    (void)state;
    uint64_t root = begin(1, MP_SECONDS(5), 0);
    begin(2, MP_SECONDS(5), 0);
    begin_child(root, 1);
    const struct mp_rpc_origin client = {.kind = MP_RPC_CLIENT, .owner = 1ull << 32 | 3};
    step(&(struct mp_rpc_event){.kind = MP_RPC_OWNER_GONE, .origin = client});
    assert_int_equal(3, count_of(MP_RPC_ABANDON));
    assert_int_equal(0, count_of(MP_RPC_ANSWER));
    assert_int_equal(0, rpc.live);
    step(&(struct mp_rpc_event){.kind = MP_RPC_OWNER_GONE, .origin = client});
    assert_int_equal(0, seen_count);
    /* The next in that place is somebody else. */
    struct mp_rpc_event ev = begin_of(1, MP_SECONDS(5), 0);
    ev.begin.origin.owner = 2ull << 32 | 3;
    assert_int_equal(MP_OK, step(&ev));
    step(&(struct mp_rpc_event){.kind = MP_RPC_OWNER_GONE, .origin = client});
    assert_int_equal(1, rpc.live);
}

/* --- ends that somebody counts on --- */

static const enum mp_rpc_origin_kind counting[] = {MP_RPC_RUN, MP_RPC_PEER};

static void a_cancelled_step_is_answered_when_its_attempt_has_ended(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 2; i++) {
        uint64_t call = begin_for(counting[i], 1, MP_SECONDS(5));
        cancel(counting[i], 1);
        assert_int_equal(call, the(MP_RPC_ABANDON)->call);
        assert_int_equal(1, seen_count);
        assert_int_equal(1, rpc.live);
        cancel(counting[i], 1); /* twice changes nothing */
        assert_int_equal(0, seen_count);
        ended(call);
        expect_answer(MP_RPC_CANCELLED, true);
        assert_int_equal(0, rpc.used);
    }
}

static void what_was_done_before_it_heard_of_that_is_the_answer(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 2; i++) {
        uint64_t call = begin_for(counting[i], 1, MP_SECONDS(5));
        cancel(counting[i], 1);
        outcome(call, false, false, false);
        expect_answer(MP_RPC_RESULT, true);
        call = begin_for(counting[i], 2, MP_SECONDS(5));
        cancel(counting[i], 2);
        outcome(call, true, true, true); /* an error is none, and nothing begins again */
        expect_answer(MP_RPC_CANCELLED, true);
        assert_true(the(MP_RPC_ANSWER)->answer.has_begun);
        assert_int_equal(0, rpc.used);
    }
}

static void what_has_no_attempt_is_answered_at_once(void **state)
{
    (void)state;
    struct mp_rpc_event ev = begin_of(1, MP_SECONDS(5), 1);
    ev.begin.origin.kind = MP_RPC_RUN;
    ev.begin.target.function = MP_RPC_NONE;
    assert_int_equal(MP_OK, step(&ev));
    cancel(MP_RPC_RUN, 1);
    expect_answer(MP_RPC_CANCELLED, true);
    assert_false(the(MP_RPC_ANSWER)->answer.has_begun);
    assert_int_equal(0, rpc.waiting);
    ev.begin.target.function = 5;
    assert_int_equal(MP_OK, step(&ev));
    outcome(begun, true, true, false); /* and it pauses */
    cancel(MP_RPC_RUN, 1);
    expect_answer(MP_RPC_CANCELLED, true);
    assert_int_equal(0, rpc.used);
}

static void all_that_it_asked_for_has_ended_too(void **state)
{
    (void)state;
    uint64_t root = begin_for(MP_RPC_RUN, 1, MP_SECONDS(9));
    uint64_t child = begin_child(root, 1);
    uint64_t grandchild = begin_child(child, 2);
    uint64_t other = begin_child(root, 3);
    /* One of them was given up long ago, and goes on all the same. */
    cancel(MP_RPC_NESTED, 3);
    expect_answer(MP_RPC_CANCELLED, false);
    cancel(MP_RPC_RUN, 1);
    assert_int_equal(3, count_of(MP_RPC_ABANDON));
    assert_int_equal(0, count_of(MP_RPC_ANSWER));
    ended(root);
    ended(child);
    ended(other);
    assert_int_equal(0, count_of(MP_RPC_ANSWER));
    assert_int_equal(3, rpc.used); /* the tree stands as long as its leaf */
    ended(grandchild);
    expect_answer(MP_RPC_CANCELLED, true);
    assert_int_equal(0, rpc.used);
}

static void what_was_lost_is_not_confirmed(void **state)
{
    (void)state;
    uint64_t root = begin_for(MP_RPC_RUN, 1, MP_SECONDS(9));
    cancel(MP_RPC_RUN, 1);
    lost(root);
    expect_answer(MP_RPC_CANCELLED, false);
    root = begin_for(MP_RPC_PEER, 2, MP_SECONDS(9));
    uint64_t child = begin_child(root, 1);
    uint64_t grandchild = begin_child(child, 2);
    cancel(MP_RPC_PEER, 2);
    lost(grandchild);
    ended(child);
    ended(root);
    expect_answer(MP_RPC_CANCELLED, false);
    /* Also long before, and though it was tried again. */
    root = begin_for(MP_RPC_RUN, 3, MP_SECONDS(9));
    struct mp_rpc_event ev = begin_of(1, MP_SECONDS(5), 0);
    ev.begin.origin = (struct mp_rpc_origin){.kind = MP_RPC_NESTED, .owner = 7, .id = 1};
    ev.begin.parent = root;
    ev.begin.target.is_idempotent = true;
    assert_int_equal(MP_OK, step(&ev));
    child = begun;
    step(&(struct mp_rpc_event){
        .kind = MP_RPC_OUTCOME,
        .call = child,
        .outcome = {.is_error = true, .is_neighbour = true, .is_unsure = true}});
    the(MP_RPC_SUBMIT);
    outcome(child, false, false, false);
    cancel(MP_RPC_RUN, 3);
    ended(root);
    expect_answer(MP_RPC_CANCELLED, false);
    assert_int_equal(0, rpc.used);
}

static void a_run_hears_by_the_deadline_and_another_node_when_it_is_so(void **state)
{
    (void)state;
    uint64_t of_run = begin_for(MP_RPC_RUN, 1, MP_MS(500));
    uint64_t of_peer = begin_for(MP_RPC_PEER, 1, MP_MS(500));
    cancel(MP_RPC_RUN, 1);
    cancel(MP_RPC_PEER, 1);
    pass(MP_MS(500));
    expect_answer(MP_RPC_CANCELLED, false);
    assert_int_equal(of_run, the(MP_RPC_ANSWER)->call);
    pass(MP_SECONDS(1));
    assert_int_equal(0, seen_count);
    ended(of_run);
    assert_int_equal(0, seen_count);
    ended(of_peer);
    expect_answer(MP_RPC_CANCELLED, true);
    /* Without a cancellation the one is told at the deadline, the other once it has ended. */
    of_run = begin_for(MP_RPC_RUN, 2, MP_MS(500));
    of_peer = begin_for(MP_RPC_PEER, 2, MP_MS(500));
    pass(MP_MS(500));
    assert_int_equal(2, count_of(MP_RPC_ABANDON));
    expect_answer(MP_RPC_DEADLINE, false);
    ended(of_peer);
    expect_answer(MP_RPC_DEADLINE, true);
    assert_int_equal(MP_MS(500), the(MP_RPC_ANSWER)->answer.timeout);
    ended(of_run);
    assert_int_equal(0, rpc.used);
}

static void an_answer_waits_for_what_its_function_left_behind(void **state)
{
    (void)state;
    for (int is_error = 0; is_error < 2; is_error++) {
        uint64_t root = begin_for(MP_RPC_PEER, 1, MP_SECONDS(5));
        uint64_t child = begin_child(root, 1);
        outcome(root, is_error, false, false);
        assert_int_equal(root, the(MP_RPC_KEEP)->call);
        assert_int_equal(child, the(MP_RPC_ABANDON)->call);
        assert_int_equal(0, count_of(MP_RPC_ANSWER));
        cancel(MP_RPC_PEER, 1); /* that comes too late */
        assert_int_equal(0, seen_count);
        ended(child);
        expect_answer(is_error ? MP_RPC_ERROR : MP_RPC_RESULT, true);
        assert_int_equal(0, count_of(MP_RPC_DROP));
    }
    /* A run may try again after an error; of a result nothing depends on it. */
    uint64_t root = begin_for(MP_RPC_RUN, 2, MP_MS(700));
    uint64_t child = begin_child(root, 1);
    outcome(root, true, false, false);
    the(MP_RPC_KEEP);
    pass(MP_MS(700));
    expect_answer(MP_RPC_ERROR, false);
    ended(child);
    root = begin_for(MP_RPC_RUN, 3, MP_SECONDS(5));
    child = begin_child(root, 1);
    outcome(root, false, false, false);
    expect_answer(MP_RPC_RESULT, false);
    ended(child);
    /* Unless it is cancelled: then it is to have stopped. */
    root = begin_for(MP_RPC_RUN, 4, MP_SECONDS(5));
    child = begin_child(root, 1);
    cancel(MP_RPC_RUN, 4);
    outcome(root, false, false, false);
    the(MP_RPC_KEEP);
    ended(child);
    expect_answer(MP_RPC_RESULT, true);
    /* Or it is a part of a step, and the step may be cancelled while others of it go on. */
    struct mp_rpc_event ev = begin_of(5, MP_SECONDS(5), 0);
    ev.begin.origin.kind = MP_RPC_RUN;
    ev.begin.is_part = true;
    assert_int_equal(MP_OK, step(&ev));
    root = begun;
    child = begin_child(root, 1);
    outcome(root, false, false, false);
    the(MP_RPC_KEEP);
    assert_int_equal(0, count_of(MP_RPC_ANSWER));
    ended(child);
    expect_answer(MP_RPC_RESULT, true);
    assert_int_equal(0, rpc.used);
}

static void what_never_ends_holds_no_answer_back_for_ever(void **state)
{
    (void)state;
    uint64_t root = begin_for(MP_RPC_PEER, 1, MP_SECONDS(50));
    uint64_t child = begin_child(root, 1);
    outcome(root, false, false, false);
    pass(MP_MS(MP_LEFT_BEHIND_MS_MAX) - 1);
    assert_int_equal(0, seen_count);
    pass(1);
    expect_answer(MP_RPC_RESULT, false);
    ended(child);
    /* Nobody is left to be answered. */
    root = begin_for(MP_RPC_PEER, 2, MP_SECONDS(50));
    child = begin_child(root, 1);
    outcome(root, false, false, false);
    const struct mp_rpc_origin peer = {.kind = MP_RPC_PEER, .owner = 1ull << 32 | 3};
    step(&(struct mp_rpc_event){.kind = MP_RPC_OWNER_GONE, .origin = peer});
    assert_int_equal(root, the(MP_RPC_DROP)->call);
    assert_int_equal(1, seen_count);
    ended(child);
    assert_int_equal(0, rpc.used);
}

/* --- memory --- */

static void begins_or_leaves_everything_as_it_was(void **state)
{
    (void)state;
    static uint8_t large[1000];
    uint32_t refused = 0;
    uint32_t in_a_row = 0;
    uint32_t count = 0;
    static uint64_t calls[1500];
    counted.fail_at = 0;
    while (count < 1500) {
        struct mp_rpc_event ev = begin_of(count, MP_SECONDS(5), 0);
        ev.begin.origin.owner = 1ull << 32 | count % 40;
        if (count % 3 == 0)
            ev.begin.context = mp_slice_of(large, sizeof(large));
        size_t bytes = counted.live_bytes;
        enum mp_err err = step(&ev);
        if (err == MP_OK) {
            calls[count++] = begun;
            counted.fail_at = counted.count;
            in_a_row = 0;
            continue;
        }
        assert_int_equal(MP_ENOMEM, err);
        assert_int_equal(count, rpc.live);
        assert_int_equal(count, rpc.used);
        assert_true(counted.live_bytes >= bytes);
        refused++;
        /* The n-th refusal in a row lets n allocations succeed. */
        counted.fail_at = counted.count + ++in_a_row;
    }
    assert_true(refused > 500);
    /* Nothing else needs memory. */
    counted.fail_at = 0;
    pass(MP_SECONDS(5));
    assert_int_equal(1500, count_of(MP_RPC_ANSWER));
    for (uint32_t i = 0; i < count; i++)
        ended(calls[i]);
    assert_int_equal(0, rpc.used);
}

/* --- random histories --- */

#define MODEL_MAX 512

struct model_call {
    uint64_t id; /* 0: none */
    uint64_t parent;
    uint64_t owner;
    uint64_t handle;
    enum mp_rpc_origin_kind kind;
    bool is_running; /* SUBMIT came, and no end of it yet */
    bool is_abandoned;
    bool is_over; /* answered, or dropped with its owner or parent */
    bool is_kept;
    bool was_lost; /* an attempt of it, or of one below */
    uint64_t origin_id;
};

static struct model_call model[MODEL_MAX];
static struct mp_rng rng;
static uint32_t handles_out;

static struct model_call *model_of(uint64_t id)
{
    for (uint32_t i = 0; i < MODEL_MAX; i++)
        if (model[i].id == id)
            return &model[i];
    fail_msg("an effect about a call that is not there");
    return NULL;
}

static struct model_call *random_call(void)
{
    struct model_call *m = &model[mp_rng_below(&rng, MODEL_MAX)];
    return m->id != 0 ? m : NULL;
}

static struct model_call *parent_of(const struct model_call *m)
{
    return m->parent != 0 ? model_of(m->parent) : NULL;
}

/* Whether nothing of it runs any more, and that is sure. */
static bool is_confirmed(const struct model_call *root)
{
    for (uint32_t i = 0; i < MODEL_MAX; i++) {
        const struct model_call *m = &model[i];
        if (m->id == 0 || !m->is_running)
            continue;
        while (m && m != root)
            m = parent_of(m);
        if (m)
            return false;
    }
    return !root->was_lost;
}

static void note_answer(struct model_call *m, const struct mp_rpc_effect *e)
{
    assert_false(m->is_over);
    assert_int_equal(m->kind, e->answer.origin.kind);
    assert_int_equal(m->origin_id, e->answer.origin.id);
    assert_int_equal(is_confirmed(m), e->answer.is_confirmed);
    assert_false(m->is_kept && e->answer.answer != MP_RPC_RESULT &&
                 e->answer.answer != MP_RPC_ERROR);
    if (m->kind == MP_RPC_PEER && e->answer.answer != MP_RPC_RESULT &&
        e->answer.answer != MP_RPC_ERROR)
        assert_true(e->answer.is_confirmed || m->was_lost);
    m->is_kept = false;
    m->is_over = true;
}

static void note(const struct mp_rpc_effect *e)
{
    struct model_call *m = model_of(e->call);
    switch (e->kind) {
    case MP_RPC_SUBMIT:
        assert_false(m->is_running);
        assert_false(m->is_over);
        m->is_running = true;
        m->is_abandoned = false;
        break;
    case MP_RPC_ABANDON:
        assert_true(m->is_running);
        assert_false(m->is_abandoned);
        m->is_abandoned = true;
        break;
    case MP_RPC_ANSWER:
        note_answer(m, e);
        break;
    case MP_RPC_KEEP:
        assert_false(m->is_kept || m->is_running || m->is_over);
        m->is_kept = true;
        break;
    case MP_RPC_DROP:
        assert_true(m->is_kept);
        m->is_kept = false;
        break;
    case MP_RPC_RELEASE:
        assert_true(m->handle != 0 && m->handle == e->handle);
        m->handle = 0;
        handles_out--;
        break;
    }
}

/* Takes an event through, and lets go of what has no more to come. */
static void drive(const struct mp_rpc_event *ev)
{
    assert_int_equal(MP_OK, step(ev));
    for (uint32_t i = 0; i < seen_count; i++)
        note(&seen[i]);
    uint32_t live = 0;
    uint32_t used = 0;
    for (uint32_t i = 0; i < MODEL_MAX; i++) {
        struct model_call *m = &model[i];
        if (m->id == 0)
            continue;
        const struct mp_rpc_call *c = mp_rpc_get(&rpc, m->id);
        if (!c || c->state == MP_RPC_ZOMBIE) {
            m->is_over = true;
            assert_true(!m->is_running || m->is_abandoned);
            assert_false(m->is_kept);
        }
        if (!c) {
            assert_false(m->is_running);
            assert_int_equal(0, m->handle);
            *m = (struct model_call){0};
            continue;
        }
        used++;
        live += c->state != MP_RPC_ZOMBIE;
        assert_int_equal(!c->is_attempt_over, m->is_running);
        assert_true(m->is_running || c->state != MP_RPC_ACTIVE);
        /* What is over is gone. */
        if (c->state >= MP_RPC_ENDING && !m->is_running)
            assert_int_not_equal(MP_RPC_NONE, c->first_child);
    }
    assert_int_equal(live, rpc.live);
    assert_int_equal(used, rpc.used);
    assert_true(live != 0 || mp_rpc_deadline(&rpc) == MP_NEVER);
}

static void begin_random(void)
{
    static uint64_t serial;
    struct model_call *m = &model[mp_rng_below(&rng, MODEL_MAX)];
    if (m->id != 0)
        return;
    const struct mp_rpc_call *parent = NULL;
    struct model_call *p = random_call();
    if (p && mp_rng_below(&rng, 2))
        parent = mp_rpc_get(&rpc, p->id);
    if (parent && (parent->state != MP_RPC_ACTIVE || p->is_abandoned))
        parent = NULL;
    struct mp_rpc_event ev =
        begin_of(++serial, MP_MS(mp_rng_below(&rng, 2000)), (uint32_t)mp_rng_below(&rng, 3));
    static const enum mp_rpc_origin_kind kinds[] = {MP_RPC_CLIENT, MP_RPC_RUN, MP_RPC_PEER};
    ev.begin.origin.kind = parent ? MP_RPC_NESTED : kinds[mp_rng_below(&rng, 3)];
    ev.begin.retries = ev.begin.origin.kind > MP_RPC_NESTED ? 0 : ev.begin.retries;
    ev.begin.origin.owner = 1ull << 32 | mp_rng_below(&rng, 5);
    ev.begin.parent = parent ? parent->id : 0;
    ev.begin.target.is_idempotent = mp_rng_below(&rng, 2);
    ev.begin.target.timeout = mp_rng_below(&rng, 3) == 0 ? MP_MS(mp_rng_below(&rng, 300)) : 0;
    ev.begin.args.handle = mp_rng_below(&rng, 3) == 0 ? serial : 0;
    if (parent && ev.begin.deadline > parent->attempt_deadline)
        ev.begin.deadline = parent->attempt_deadline;
    if (!parent && rpc.waiting < 3 && mp_rng_below(&rng, 10) == 0)
        ev.begin.target.function = MP_RPC_NONE;
    struct mp_rpc_effects out = {0};
    assert_int_equal(MP_OK, mp_rpc_step(&rpc, now, &ev, &out));
    *m = (struct model_call){.id = out.begun,
                             .parent = ev.begin.parent,
                             .owner = ev.begin.origin.owner,
                             .kind = ev.begin.origin.kind,
                             .origin_id = serial,
                             .handle = ev.begin.args.handle};
    handles_out += m->handle != 0;
    for (uint32_t i = 0; i < out.count; i++)
        note(&out.items[i]);
}

static void end_random(void)
{
    struct model_call *m = random_call();
    if (!m || !m->is_running)
        return;
    m->is_running = false;
    bool is_unsure = mp_rng_below(&rng, 20) == 0;
    for (struct model_call *above = m; is_unsure && above; above = parent_of(above))
        above->was_lost = true;
    struct mp_rpc_event ev = {
        .kind = MP_RPC_ENDED, .call = m->id, .outcome = {.is_unsure = is_unsure}};
    if (!m->is_abandoned || mp_rng_below(&rng, 3) == 0)
        ev = (struct mp_rpc_event){.kind = MP_RPC_OUTCOME,
                                   .call = m->id,
                                   .outcome = {.is_unsure = is_unsure,
                                               .is_error = mp_rng_below(&rng, 2),
                                               .is_retryable = mp_rng_below(&rng, 2),
                                               .is_neighbour = mp_rng_below(&rng, 4) == 0,
                                               .has_begun = true}};
    drive(&ev);
}

static void resolve_random(void)
{
    uint32_t slot = 0;
    const struct mp_rpc_call *c = mp_rpc_next_waiting(&rpc, &slot);
    if (c)
        drive(&(struct mp_rpc_event){
            .kind = MP_RPC_RESOLVED, .call = c->id, .resolved = {.target = {.function = 2}}});
}

static void history(uint64_t seed)
{
    mp_rng_init(&rng, seed);
    memset(model, 0, sizeof(model));
    handles_out = 0;
    assert_int_equal(0, setup(NULL));
    for (int i = 0; i < 3000; i++) {
        uint64_t what = mp_rng_below(&rng, 100);
        const struct model_call *m = random_call();
        if (what < 45)
            begin_random();
        else if (what < 80)
            end_random();
        else if (what < 85 && m)
            drive(&(struct mp_rpc_event){.kind = MP_RPC_CANCEL, .call = m->id});
        else if (what < 88 && m)
            drive(&(struct mp_rpc_event){
                .kind = MP_RPC_CANCEL_ORIGIN,
                .origin = {.kind = m->kind, .owner = m->owner, .id = m->origin_id}});
        else if (what < 89)
            drive(&(struct mp_rpc_event){
                .kind = MP_RPC_OWNER_GONE,
                .origin = {.kind = (enum mp_rpc_origin_kind)mp_rng_below(&rng, MP_RPC_ORIGIN_KINDS),
                           .owner = 1ull << 32 | mp_rng_below(&rng, 5)}});
        else if (what < 91)
            resolve_random();
        else {
            now += mp_rng_below(&rng, MP_MS(20));
            if (mp_rpc_deadline(&rpc) <= now)
                drive(&(struct mp_rpc_event){.kind = MP_RPC_TIMER});
        }
    }
    for (uint32_t round = 0; rpc.used != 0; round++) {
        if (round > 60000)
            fail_msg("seed %llu: %u calls do not end", (unsigned long long)seed, rpc.used);
        end_random();
        now += MP_MS(1);
        if (mp_rpc_deadline(&rpc) <= now)
            drive(&(struct mp_rpc_event){.kind = MP_RPC_TIMER});
    }
    assert_int_equal(0, handles_out);
    assert_int_equal(0, teardown(NULL));
}

static void answers_every_call_once_whatever_happens(void **state)
{
    (void)state;
    const char *given = getenv("MPREG_SEED");
    uint64_t first = given ? strtoull(given, NULL, 10) : (uint64_t)time(NULL);
    print_message("# rpc_test: MPREG_SEED=%llu and the 19 after it\n", (unsigned long long)first);
    for (uint64_t seed = first; seed < first + 20; seed++)
        history(seed);
}

int main(void)
{
#define WITH_RPC(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        WITH_RPC(answers_with_the_outcome),
        WITH_RPC(answers_at_the_deadline_and_waits_for_the_attempt),
        WITH_RPC(retries_with_growing_pauses),
        WITH_RPC(waits_on_for_a_provider_without_using_retries),
        WITH_RPC(does_not_retry_what_makes_no_sense),
        WITH_RPC(runs_a_lost_neighbour_again_once_if_idempotent),
        WITH_RPC(keeps_to_a_functions_own_timeout),
        WITH_RPC(waits_for_a_provider_within_bounds),
        WITH_RPC(gives_a_block_back_once),
        WITH_RPC(cancels_the_whole_tree),
        WITH_RPC(cancels_children_when_their_parent_ends),
        WITH_RPC(forgets_what_an_owner_asked_for),
        WITH_RPC(a_cancelled_step_is_answered_when_its_attempt_has_ended),
        WITH_RPC(what_was_done_before_it_heard_of_that_is_the_answer),
        WITH_RPC(what_has_no_attempt_is_answered_at_once),
        WITH_RPC(all_that_it_asked_for_has_ended_too),
        WITH_RPC(what_was_lost_is_not_confirmed),
        WITH_RPC(a_run_hears_by_the_deadline_and_another_node_when_it_is_so),
        WITH_RPC(an_answer_waits_for_what_its_function_left_behind),
        WITH_RPC(what_never_ends_holds_no_answer_back_for_ever),
        WITH_RPC(begins_or_leaves_everything_as_it_was),
        cmocka_unit_test(answers_every_call_once_whatever_happens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
