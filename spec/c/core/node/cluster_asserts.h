/* What specs of several nodes assert, over the harness; cmocka.h comes before it. */
#pragma once

#include "spec/c/core/node/cluster_harness.h"

static inline void assert_result(struct spec_cluster *c, uint64_t client, uint64_t id)
{
    const struct spec_reply *r = cluster_answer(c, client, id);
    struct mp_fault fault;
    assert_non_null(r);
    if (r->frame != MP_FRAME_RESULT && mp_fault_read(cluster_bytes(r), &fault) == MP_OK)
        print_error("%.*s: %.*s\n", (int)fault.reason.size, (const char *)fault.reason.data,
                    (int)fault.message.size, (const char *)fault.message.data);
    assert_int_equal(r->frame, MP_FRAME_RESULT);
}

static inline struct mp_fault assert_reason(struct spec_cluster *c, uint64_t client, uint64_t id,
                                            const char *reason)
{
    struct mp_fault fault;
    const struct spec_reply *r = cluster_answer(c, client, id);
    assert_non_null(r);
    assert_int_equal(r->frame, MP_FRAME_ERROR);
    assert_int_equal(mp_fault_read(cluster_bytes(r), &fault), MP_OK);
    if (!mp_slice_is(fault.reason, reason))
        print_error("%.*s: %.*s\n", (int)fault.reason.size, (const char *)fault.reason.data,
                    (int)fault.message.size, (const char *)fault.message.data);
    assert_true(mp_slice_is(fault.reason, reason));
    return fault;
}

/* Nothing is left over. */
static inline void cluster_end(struct spec_cluster *c)
{
    cluster_run(c, MP_SECONDS(5));
    assert_true(cluster_is_quiet(c));
    cluster_free(c);
}
