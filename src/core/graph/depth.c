/* How deep a value is nested. What a run is given is bounded, so that what it puts together, with
 * the run object around it, stays within what every reader of ours accepts. Extensions are no
 * values: what stands for held results in arguments is one, and must not come from outside. */
#include "src/core/graph/graph_internal.h"

enum mp_err mp_graph_depth_check(struct mp_slice value, uint32_t depth_max)
{
    uint64_t left[MP_DEPTH_MAX + 1]; /* values still to come at each depth */
    uint32_t depth = 0;
    struct mp_mp_reader r = mp_mp_reader_of(value);
    mp_assert(depth_max <= MP_DEPTH_MAX);
    left[0] = 1;
    for (;;) {
        while (left[depth] == 0) {
            if (depth == 0)
                return mp_mp_is_at_end(&r) ? MP_OK : MP_ECORRUPT;
            depth--;
        }
        left[depth]--;
        struct mp_mp_token t;
        enum mp_err err = mp_mp_next(&r, &t);
        if (err != MP_OK)
            return err;
        if (t.type == MP_MP_EXT)
            return MP_ECORRUPT;
        if (t.type != MP_MP_ARRAY && t.type != MP_MP_MAP)
            continue;
        if (depth == depth_max)
            return MP_EDEPTH;
        left[++depth] = t.type == MP_MP_MAP ? 2 * (uint64_t)t.count : t.count;
    }
}
