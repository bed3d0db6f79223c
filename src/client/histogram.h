/* A histogram of durations with a relative error below 1 % (128 steps to each doubling), of fixed
 * size: adding costs a few instructions and never fails. */
#pragma once

#include "src/base/time.h"

#define MP_HISTOGRAM_STEPS 128
#define MP_HISTOGRAM_SLOTS (MP_HISTOGRAM_STEPS * 58)

struct mp_histogram {
    /* read */
    uint64_t count;
    mp_duration max; /* exact */
    /* private */
    uint64_t slots[MP_HISTOGRAM_SLOTS];
};

void mp_histogram_init(struct mp_histogram *h);
void mp_histogram_add(struct mp_histogram *h, mp_duration d);
/* The duration below or at which `share` (0 to 1) of those added lie; 0 if there are none. Never
 * over `max`. */
mp_duration mp_histogram_at(const struct mp_histogram *h, double share);
