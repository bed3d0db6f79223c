/* Time is a number that is passed in; only the host reads a clock. */
#pragma once

#include <stdint.h>

/* Nanoseconds of a monotonic clock whose zero means nothing. */
typedef uint64_t mp_time;
/* A span in nanoseconds. */
typedef uint64_t mp_duration;

#define MP_NEVER      UINT64_MAX
#define MP_US(n)      ((mp_duration)(n)*1000u)
#define MP_MS(n)      ((mp_duration)(n)*1000000u)
#define MP_SECONDS(n) ((mp_duration)(n)*1000000000u)

/* t + d, saturating at MP_NEVER. */
static inline mp_time mp_time_add(mp_time t, mp_duration d)
{
    return d > MP_NEVER - t ? MP_NEVER : t + d;
}

static inline mp_time mp_time_earlier(mp_time a, mp_time b)
{
    return a < b ? a : b;
}
