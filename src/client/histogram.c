/* See histogram.h. Durations below MP_HISTOGRAM_STEPS nanoseconds have a slot each; from there on
 * each doubling has MP_HISTOGRAM_STEPS slots, twice as wide as those before. */
#include "src/client/histogram.h"

#include <string.h>

#include "src/base/assert.h"

#define STEPS_LOG2 7

static_assert(1 << STEPS_LOG2 == MP_HISTOGRAM_STEPS, "the slots are found by shifting");

static unsigned highest_bit(uint64_t v)
{
    unsigned bit = 0;
    for (unsigned step = 32; step != 0; step /= 2) {
        if (v >> step != 0) {
            v >>= step;
            bit += step;
        }
    }
    return bit;
}

static uint32_t slot_of(mp_duration d)
{
    if (d < MP_HISTOGRAM_STEPS)
        return (uint32_t)d;
    unsigned shift = highest_bit(d) - STEPS_LOG2;
    return (shift + 1) * MP_HISTOGRAM_STEPS + (uint32_t)(d >> shift) - MP_HISTOGRAM_STEPS;
}

/* The middle of a slot's range. */
static mp_duration middle(uint32_t slot)
{
    if (slot < MP_HISTOGRAM_STEPS)
        return slot;
    unsigned shift = slot / MP_HISTOGRAM_STEPS - 1;
    uint64_t low = (uint64_t)(slot % MP_HISTOGRAM_STEPS + MP_HISTOGRAM_STEPS) << shift;
    return low + (((uint64_t)1 << shift) >> 1);
}

void mp_histogram_init(struct mp_histogram *h)
{
    memset(h, 0, sizeof(*h));
}

void mp_histogram_add(struct mp_histogram *h, mp_duration d)
{
    uint32_t slot = slot_of(d);
    mp_assert(slot < MP_HISTOGRAM_SLOTS);
    h->slots[slot]++;
    h->count++;
    h->max = d > h->max ? d : h->max;
}

mp_duration mp_histogram_at(const struct mp_histogram *h, double share)
{
    uint64_t seen = 0;
    for (uint32_t i = 0; i < MP_HISTOGRAM_SLOTS; i++) {
        seen += h->slots[i];
        if (seen != 0 && (double)seen >= share * (double)h->count) {
            mp_duration d = middle(i);
            return d < h->max ? d : h->max;
        }
    }
    return h->max;
}
