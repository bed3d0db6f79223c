/* The only place for compiler extensions. */
#pragma once

#define MP_MUST_USE      __attribute__((warn_unused_result))
#define MP_PRINTF(f, a)  __attribute__((format(printf, f, a)))
#define MP_NORETURN      __attribute__((noreturn))
#define MP_LIKELY(x)     __builtin_expect(!!(x), 1)
#define MP_UNLIKELY(x)   __builtin_expect(!!(x), 0)
#define MP_CACHE_LINE    64
#define MP_ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
