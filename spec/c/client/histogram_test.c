/* Percentiles of the histogram lie within 1 % of those of the sorted list. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "src/base/rng.h"
#include "src/client/histogram.h"

#define COUNT 20000

static int by_size(const void *a, const void *b)
{
    const mp_duration *x = (const mp_duration *)a;
    const mp_duration *y = (const mp_duration *)b;
    return *x < *y ? -1 : *x > *y;
}

static void percentiles_are_within_a_percent(void **state)
{
    (void)state;
    static mp_duration all[COUNT];
    static struct mp_histogram h;
    struct mp_rng rng;
    mp_rng_init(&rng, 11);
    for (unsigned magnitude = 1; magnitude < 62; magnitude++) {
        mp_histogram_init(&h);
        for (int i = 0; i < COUNT; i++) {
            all[i] = mp_rng_below(&rng, (uint64_t)1 << magnitude);
            mp_histogram_add(&h, all[i]);
        }
        qsort(all, COUNT, sizeof(all[0]), by_size);
        assert_int_equal(h.count, COUNT);
        assert_int_equal(h.max, all[COUNT - 1]);
        const double shares[] = {0.001, 0.5, 0.9, 0.99, 0.999, 1};
        for (int i = 0; i < 6; i++) {
            mp_duration want = all[(int)(shares[i] * COUNT + 0.5) - 1];
            mp_duration got = mp_histogram_at(&h, shares[i]);
            mp_duration off = got > want ? got - want : want - got;
            assert_true(off <= want / 100);
        }
    }
}

static void extremes_have_a_slot(void **state)
{
    (void)state;
    static struct mp_histogram h;
    mp_histogram_init(&h);
    assert_int_equal(mp_histogram_at(&h, 0.5), 0);
    mp_histogram_add(&h, 0);
    mp_histogram_add(&h, UINT64_MAX);
    assert_int_equal(mp_histogram_at(&h, 0.5), 0);
    assert_true(mp_histogram_at(&h, 1) > UINT64_MAX / 128 * 127);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(percentiles_are_within_a_percent),
                                       cmocka_unit_test(extremes_have_a_slot)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
