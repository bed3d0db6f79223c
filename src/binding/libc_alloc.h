/* Memory of the C library, for whatever takes a struct mp_alloc. */
#pragma once

#include "src/base/alloc.h"

extern struct mp_alloc mp_libc_alloc;
