/* An ERROR object out of any bytes: what is read can be put again, and reads as the same. */
#include <stdlib.h>

#include "spec/support/alloc.h"
#include "src/base/assert.h"
#include "src/wire/error.h"
#include "src/wire/msgpack.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct spec_alloc memory = {.fail_at = SPEC_NEVER};
    struct mp_alloc alloc = spec_alloc_of(&memory);
    struct mp_slice bytes = mp_slice_of(data, size);
    struct mp_fault fault;
    if (mp_fault_read(bytes, &fault) != MP_OK)
        return 0;
    struct mp_buf out;
    mp_buf_init(&out, &alloc, 0);
    mp_assert(mp_fault_put(&out, &fault) == MP_OK);
    struct mp_fault again;
    mp_assert(mp_fault_read(mp_buf_slice(&out), &again) == MP_OK);
    mp_assert(again.code == fault.code && again.index == fault.index);
    mp_assert(mp_slice_equal(again.reason, fault.reason));
    mp_assert(mp_slice_equal(again.message, fault.message));
    mp_assert(mp_slice_equal(again.cause, fault.cause));
    mp_assert(again.is_final == fault.is_final);
    struct mp_fault extra = {.code = MP_CODE_INTERNAL,
                             .node = mp_slice_str("n1"),
                             .step = mp_slice_str("s"),
                             .index = 2};
    mp_buf_clear(&out);
    if (mp_mp_check(bytes) == MP_OK) {
        mp_assert(mp_fault_put_extended(&out, bytes, &extra) == MP_OK);
        mp_assert(mp_mp_check(mp_buf_slice(&out)) == MP_OK);
    }
    mp_buf_fini(&out);
    mp_assert(memory.live_bytes == 0);
    return 0;
}
