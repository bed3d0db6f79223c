/* The generator gives the published sequence, and draws below a bound evenly. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "src/base/rng.h"

static void gives_the_published_sequence(void **state)
{
    (void)state;
    /* splitmix64 from seed 1234567, as its authors' reference program prints it */
    static const uint64_t expected[] = {6457827717110365317u, 3203168211198807973u,
                                        9817491932198370423u, 4593380528125082431u,
                                        16408922859458223821u};
    struct mp_rng rng;
    mp_rng_init(&rng, 1234567);
    for (int i = 0; i < 5; i++)
        assert_true(mp_rng_next(&rng) == expected[i]);
}

static void stays_below_its_bound(void **state)
{
    (void)state;
    static const uint64_t bounds[] = {1, 2, 3, 7, 1000, 1ull << 32, (1ull << 63) + 1, UINT64_MAX};
    struct mp_rng rng;
    mp_rng_init(&rng, 1);
    for (int b = 0; b < 8; b++)
        for (int i = 0; i < 10000; i++)
            assert_true(mp_rng_below(&rng, bounds[b]) < bounds[b]);
}

static void draws_evenly(void **state)
{
    (void)state;
    enum { SIDES = 6, ROLLS = 600000 };
    uint32_t seen[SIDES] = {0};
    struct mp_rng rng;
    mp_rng_init(&rng, 2);
    for (int i = 0; i < ROLLS; i++)
        seen[mp_rng_below(&rng, SIDES)]++;
    for (int side = 0; side < SIDES; side++)
        assert_in_range(seen[side], ROLLS / SIDES - 1500, ROLLS / SIDES + 1500); /* 5 sigma */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gives_the_published_sequence),
        cmocka_unit_test(stays_below_its_bound),
        cmocka_unit_test(draws_evenly),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
