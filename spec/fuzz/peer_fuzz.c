/* Any bytes as the meta part of a frame between nodes: they are refused, or read as something
 * within all limits that writes and reads as the same. The first byte says which message it is. */
#include <stdint.h>
#include <stdlib.h>

#include "spec/support/alloc.h"
#include "src/wire/peer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool is_so)
{
    if (!is_so)
        abort();
}

#define ROUND(kind)                                                                                \
    static void round_##kind(struct mp_buf *b, struct mp_buf *again, struct mp_slice bytes)        \
    {                                                                                              \
        struct mp_peer_##kind m;                                                                   \
        if (mp_peer_##kind##_read(bytes, &m) != MP_OK)                                             \
            return;                                                                                \
        must(mp_peer_##kind##_put(b, &m) == MP_OK);                                                \
        must(mp_peer_##kind##_read(mp_buf_slice(b), &m) == MP_OK);                                 \
        must(mp_peer_##kind##_put(again, &m) == MP_OK);                                            \
        must(mp_slice_equal(mp_buf_slice(b), mp_buf_slice(again)));                                \
    }

ROUND(hello)
ROUND(call)
ROUND(answer)
ROUND(forward)
ROUND(fetch)
ROUND(release)
ROUND(messages)
ROUND(backlog)
ROUND(upto)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static void (*const rounds[])(struct mp_buf * b, struct mp_buf * again,
                                  struct mp_slice bytes) = {
        round_hello,   round_call,     round_answer,  round_forward, round_fetch,
        round_release, round_messages, round_backlog, round_upto};
    struct spec_alloc counted = {.fail_at = SPEC_NEVER};
    struct mp_alloc alloc = spec_alloc_of(&counted);
    struct mp_buf b;
    struct mp_buf again;
    if (size == 0)
        return 0;
    mp_buf_init(&b, &alloc, 0);
    mp_buf_init(&again, &alloc, 0);
    rounds[data[0] % MP_ARRAY_SIZE(rounds)](&b, &again, mp_slice_of(data + 1, size - 1));
    mp_buf_fini(&b);
    mp_buf_fini(&again);
    must(counted.live_bytes == 0);
    return 0;
}
