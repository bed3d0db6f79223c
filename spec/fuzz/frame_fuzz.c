/* Frames and their meta parts out of any bytes: nothing is read past the end, and options that can
 * be read can be put again and read as the same. */
#include <stdlib.h>

#include "spec/support/alloc.h"
#include "src/base/assert.h"
#include "src/wire/frame.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void same_text(struct mp_slice a, struct mp_slice b)
{
    mp_assert(mp_slice_equal(a, b));
}

static void check_call(struct mp_alloc *alloc, struct mp_slice meta)
{
    struct mp_call_options first;
    struct mp_call_options second;
    const char *why = NULL;
    if (mp_call_options_read(meta, &first, &why) != MP_OK) {
        mp_assert(why != NULL);
        return;
    }
    mp_assert(first.fun.size != 0 && first.fun.size <= MP_FUNCTION_BYTES_MAX);
    mp_assert(first.needs_count <= MP_NEEDS_MAX && first.retries <= MP_RETRIES_MAX);
    struct mp_buf b;
    mp_buf_init(&b, alloc, 0);
    mp_assert(mp_call_options_put(&b, &first) == MP_OK);
    mp_assert(mp_call_options_read(mp_buf_slice(&b), &second, &why) == MP_OK);
    same_text(first.fun, second.fun);
    same_text(first.version, second.version);
    same_text(first.on, second.on);
    same_text(first.cluster, second.cluster);
    mp_assert(first.timeout_ms == second.timeout_ms && first.retries == second.retries);
    mp_assert(first.is_waiting == second.is_waiting && first.needs_count == second.needs_count);
    for (uint32_t i = 0; i < first.needs_count; i++)
        same_text(first.needs[i], second.needs[i]);
    mp_buf_fini(&b);
}

static void check_run(struct mp_alloc *alloc, struct mp_slice meta)
{
    struct mp_run_options first;
    struct mp_run_options second;
    const char *why = NULL;
    if (mp_run_options_read(meta, &first, &why) != MP_OK) {
        mp_assert(why != NULL);
        return;
    }
    struct mp_buf b;
    mp_buf_init(&b, alloc, 0);
    mp_assert(mp_run_options_put(&b, &first) == MP_OK);
    mp_assert(mp_run_options_read(mp_buf_slice(&b), &second, &why) == MP_OK);
    mp_assert(first.timeout_ms == second.timeout_ms && first.has_trace == second.has_trace);
    mp_assert(first.has_events == second.has_events && first.is_detached == second.is_detached);
    mp_buf_fini(&b);
}

static void check_subscribe(struct mp_alloc *alloc, struct mp_slice meta)
{
    struct mp_subscribe_options first;
    struct mp_subscribe_options second;
    const char *why = NULL;
    if (mp_subscribe_options_read(meta, &first, &why) != MP_OK) {
        mp_assert(why != NULL);
        return;
    }
    struct mp_buf b;
    mp_buf_init(&b, alloc, 0);
    mp_assert(mp_subscribe_options_put(&b, &first) == MP_OK);
    mp_assert(mp_subscribe_options_read(mp_buf_slice(&b), &second, &why) == MP_OK);
    same_text(first.pattern, second.pattern);
    mp_assert(first.since_ms == second.since_ms && first.queue == second.queue);
    mp_buf_fini(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct spec_alloc memory = {.fail_at = SPEC_NEVER};
    struct mp_alloc alloc = spec_alloc_of(&memory);
    struct mp_slice bytes = mp_slice_of(data, size);
    struct mp_frame_header h;
    uint8_t version;
    if (mp_preface_read(bytes, &version) == MP_OK)
        bytes = mp_slice_of(data + MP_PREFACE_BYTES, size - MP_PREFACE_BYTES);
    while (mp_frame_read_header(bytes, UINT32_MAX, &h) == MP_OK) {
        uint8_t again[MP_FRAME_HEADER_BYTES];
        mp_frame_write_header(again, &h);
        mp_assert(memcmp(again, bytes.data, sizeof(again)) == 0);
        mp_assert(h.meta_size <= h.size);
        if (bytes.size - MP_FRAME_HEADER_BYTES < h.size)
            break;
        struct mp_slice meta = mp_slice_of(bytes.data + MP_FRAME_HEADER_BYTES, h.meta_size);
        check_call(&alloc, meta);
        check_run(&alloc, meta);
        check_subscribe(&alloc, meta);
        size_t whole = MP_FRAME_HEADER_BYTES + (size_t)h.size;
        bytes = mp_slice_of(bytes.data + whole, bytes.size - whole);
    }
    check_call(&alloc, mp_slice_of(data, size));
    check_run(&alloc, mp_slice_of(data, size));
    check_subscribe(&alloc, mp_slice_of(data, size));
    mp_assert(memory.live_bytes == 0);
    return 0;
}
