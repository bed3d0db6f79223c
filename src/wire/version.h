/* Versions of modules: Semantic Versioning 2.0.0 (semver.org, §9 to §11), and constraints on them.
 */
#pragma once

#include <stdbool.h>

#include "src/base/compiler.h"
#include "src/base/err.h"
#include "src/base/slice.h"

struct mp_version {
    uint32_t major;
    uint32_t minor;
    uint32_t patch;
    struct mp_slice pre;   /* after '-', borrowed; empty for a release */
    struct mp_slice build; /* after '+', borrowed; without meaning for the order */
};

/* "1.2.3", "1.2.3-rc.1+3fa9c1d2"; a missing minor or patch is 0 ("1.2"). MP_EINVAL. */
MP_MUST_USE enum mp_err mp_version_read(struct mp_slice text, struct mp_version *v);
/* <0, 0, >0 by precedence; build is passed over. */
int mp_version_compare(const struct mp_version *a, const struct mp_version *b);
/* Whether a constraint is well formed: parts "=1.2.3" ">1" ">=1.0" "<2" "<=2" "^1.2" "~1.2.3" or a
 * bare version (exact), all of which must hold, separated by commas or spaces. */
bool mp_version_constraint_is_valid(struct mp_slice constraint);
/* An empty constraint matches everything; an invalid one nothing. */
bool mp_version_matches(struct mp_slice constraint, const struct mp_version *v);
