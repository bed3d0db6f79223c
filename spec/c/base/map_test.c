/* The map behaves like a plain list of pairs under random inserts, replacements and removals. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "spec/support/alloc.h"
#include "src/base/map.h"
#include "src/base/rng.h"

#define KEYS 300

static void agrees_with_a_plain_list(void **state)
{
    (void)state;
    char names[KEYS][16];
    bool there[KEYS] = {false};
    uint32_t values[KEYS] = {0};
    uint32_t count = 0;
    struct spec_alloc a = {.fail_at = SPEC_NEVER};
    struct mp_alloc alloc = spec_alloc_of(&a);
    struct mp_map m;
    struct mp_rng rng;
    mp_rng_init(&rng, 7);
    mp_map_init(&m, &alloc);
    for (int i = 0; i < KEYS; i++)
        snprintf(names[i], sizeof(names[i]), "k%d", i);
    for (int round = 0; round < 100000; round++) {
        uint32_t k = (uint32_t)mp_rng_below(&rng, KEYS);
        struct mp_slice key = mp_slice_str(names[k]);
        if (mp_rng_below(&rng, 2)) {
            values[k] = (uint32_t)round;
            assert_int_equal(mp_map_set(&m, key, values[k]), MP_OK);
            count += !there[k];
            there[k] = true;
        } else {
            assert_int_equal(mp_map_remove(&m, key), there[k]);
            count -= there[k];
            there[k] = false;
        }
        assert_int_equal(m.count, count);
        uint32_t probe = (uint32_t)mp_rng_below(&rng, KEYS);
        uint32_t value;
        assert_int_equal(mp_map_get(&m, mp_slice_str(names[probe]), &value), there[probe]);
        if (there[probe])
            assert_int_equal(value, values[probe]);
    }
    mp_map_fini(&m);
    assert_int_equal(a.live_bytes, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(agrees_with_a_plain_list)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
