/* Code that is deployed together: a unit, and what a worker said of it.
 *
 *   unit         [[module's name, source (str or bin)]…], in ascending order of the names' bytes
 *   description  [[SHA-256 of the source (bin), metadata (map: host/ring/message.h)]…], in the
 *                same order
 *
 * A unit is known by the SHA-256 of its bytes. */
#pragma once

#include "src/base/buf.h"
#include "src/base/compiler.h"
#include "src/base/err.h"
#include "src/base/limits.h"
#include "src/base/slice.h"
#include "src/wire/msgpack.h"

struct mp_unit_module {
    struct mp_slice name;
    struct mp_slice source;
};

struct mp_unit_description {
    struct mp_slice hash;
    struct mp_slice metadata;
};

/* Checks a unit as a whole: 1 to MP_UNIT_MODULES_MAX modules with acceptable distinct names in
 * order, sources of at most MP_MODULE_BYTES_MAX each and MP_UNIT_BYTES_MAX together. MP_EINVAL with
 * a static text in *why; then `r` and `count` are not set. */
MP_MUST_USE enum mp_err mp_unit_open(struct mp_slice unit, uint32_t *count, struct mp_mp_reader *r,
                                     const char **why);
/* The next module of an opened unit. MP_ENOENT: there are no more. */
MP_MUST_USE enum mp_err mp_unit_next(struct mp_mp_reader *r, struct mp_unit_module *m);
/* The same for a description, which has to be one of `count` modules. MP_EINVAL. */
MP_MUST_USE enum mp_err mp_unit_description_open(struct mp_slice description, uint32_t count,
                                                 struct mp_mp_reader *r);
MP_MUST_USE enum mp_err mp_unit_description_next(struct mp_mp_reader *r,
                                                 struct mp_unit_description *d);
