/* The end of a process whose own promise is broken. */
#include "src/base/assert.h"

void (*mp_assert_hook)(const char *file, int line, const char *condition);

void mp_assert_failed(const char *file, int line, const char *condition)
{
    if (mp_assert_hook)
        mp_assert_hook(file, line, condition);
    __builtin_trap();
}
