/* Pseudo-random numbers for protocols and tests, never for secrets: splitmix64 (Steele, Lea, Flood,
 * "Fast splittable pseudorandom number generators", OOPSLA 2014). The same seed gives the same run.
 */
#pragma once

#include <stdint.h>

struct mp_rng {
    uint64_t state;
};

void mp_rng_init(struct mp_rng *r, uint64_t seed);
uint64_t mp_rng_next(struct mp_rng *r);
/* Uniform in [0, bound) without modulo bias; bound > 0. */
uint64_t mp_rng_below(struct mp_rng *r, uint64_t bound);
