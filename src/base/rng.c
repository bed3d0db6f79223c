/* See rng.h. */
#include "src/base/rng.h"

#include "src/base/assert.h"

void mp_rng_init(struct mp_rng *r, uint64_t seed)
{
    r->state = seed;
}

uint64_t mp_rng_next(struct mp_rng *r)
{
    uint64_t z = (r->state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

uint64_t mp_rng_below(struct mp_rng *r, uint64_t bound)
{
    mp_assert(bound > 0);
    /* The lowest 2^64 mod bound numbers are drawn again. They are below bound: nearly never is it
     * worth a division to know how many they are. */
    uint64_t x = mp_rng_next(r);
    while (x < bound && x < (0 - bound) % bound)
        x = mp_rng_next(r);
    return x % bound;
}
