/* The heap of deadlines behaves like a plain table of times that is searched from end to end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "spec/support/alloc.h"
#include "src/base/heap.h"
#include "src/base/rng.h"

#define KEYS 200

/* The key that is due first (equal times: the smallest key), or MP_HEAP_NONE. */
static uint32_t first_of(const mp_time *at, const bool *there)
{
    uint32_t best = MP_HEAP_NONE;
    for (uint32_t k = 0; k < KEYS; k++)
        if (there[k] && (best == MP_HEAP_NONE || at[k] < at[best]))
            best = k;
    return best;
}

static void agrees_with_a_plain_table(void **state)
{
    (void)state;
    mp_time at[KEYS] = {0};
    bool there[KEYS] = {false};
    uint32_t place[KEYS];
    struct spec_alloc a = {.fail_at = SPEC_NEVER};
    struct mp_alloc alloc = spec_alloc_of(&a);
    struct mp_heap h;
    struct mp_rng rng;
    mp_rng_init(&rng, 11);
    mp_heap_init(&h, &alloc);
    for (uint32_t k = 0; k < KEYS; k++)
        place[k] = MP_HEAP_NONE;
    assert_int_equal(mp_heap_first(&h), MP_NEVER);
    for (int round = 0; round < 50000; round++) {
        uint32_t key = (uint32_t)mp_rng_below(&rng, KEYS);
        uint64_t what = mp_rng_below(&rng, 10);
        if (what < 5) {
            /* few different times, so that many are equal */
            at[key] = mp_rng_below(&rng, 50);
            there[key] = true;
            assert_int_equal(mp_heap_set(&h, place, key, at[key]), MP_OK);
        } else if (what < 8) {
            mp_heap_remove(&h, place, key);
            there[key] = false;
        } else {
            mp_time now = mp_rng_below(&rng, 50);
            uint32_t due;
            uint32_t expected = first_of(at, there);
            bool is_due = expected != MP_HEAP_NONE && at[expected] <= now;
            assert_int_equal(mp_heap_pop(&h, place, now, &due), is_due);
            if (is_due) {
                assert_int_equal(due, expected);
                there[due] = false;
            }
        }
        uint32_t first = first_of(at, there);
        assert_int_equal(mp_heap_first(&h), first == MP_HEAP_NONE ? MP_NEVER : at[first]);
        for (uint32_t k = 0; k < KEYS; k++)
            assert_int_equal(place[k] != MP_HEAP_NONE, there[k]);
    }
    mp_heap_fini(&h);
    assert_int_equal(a.live_bytes, 0);
}

static void is_as_before_when_memory_is_out(void **state)
{
    (void)state;
    uint32_t place[1000];
    struct spec_alloc a = {.fail_at = 1};
    struct mp_alloc alloc = spec_alloc_of(&a);
    struct mp_heap h;
    mp_heap_init(&h, &alloc);
    for (uint32_t k = 0; k < 1000; k++)
        place[k] = MP_HEAP_NONE;
    uint32_t count = 0;
    while (mp_heap_set(&h, place, count, 1000 - count) == MP_OK)
        count++;
    assert_true(count > 0 && count < 1000);
    assert_int_equal(place[count], MP_HEAP_NONE);
    assert_int_equal(h.count, count);
    /* Moving one needs no memory. */
    assert_int_equal(mp_heap_set(&h, place, 0, 1), MP_OK);
    uint32_t key;
    assert_true(mp_heap_pop(&h, place, 1, &key));
    assert_int_equal(key, 0);
    mp_heap_fini(&h);
    assert_int_equal(a.live_bytes, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(agrees_with_a_plain_table),
        cmocka_unit_test(is_as_before_when_memory_is_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
