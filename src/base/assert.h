/* Assertions that stay on in release builds: a broken promise between two pieces of our own code
 * ends the process. Input from outside is checked, never asserted.
 *
 * Core archives import nothing but memcpy and its like, so a failed assertion does not print: it
 * traps, and the debugger or the core file shows where. The hosted programs print the place first
 * through the hook, if one is set. */
#pragma once

#include <assert.h> /* static_assert only */

#include "src/base/compiler.h"

/* Called with file, line and condition before the trap; NULL for none. Set once by main(). */
extern void (*mp_assert_hook)(const char *file, int line, const char *condition);

MP_NORETURN void mp_assert_failed(const char *file, int line, const char *condition);

#define mp_assert(condition)                                                                       \
    do {                                                                                           \
        if (MP_UNLIKELY(!(condition)))                                                             \
            mp_assert_failed(__FILE__, __LINE__, #condition);                                      \
    } while (0)

#ifdef MP_SLOW_CHECKS
#define mp_assert_slow(condition) mp_assert(condition)
#else
#define mp_assert_slow(condition) ((void)0)
#endif
