/* Payloads of MP_VALUE_INLINE_MAX bytes and more do not pass through a ring: their bytes lie in a
 * shared arena and the ring carries where. One process writes an arena and gives its blocks out and
 * back; others map it read-only. The file is sparse: only touched pages take memory, and big freed
 * blocks are handed back to the kernel once more than a few MiB are idle.
 *
 * The host has one arena that all its workers read (so a call can move to another worker without a
 * copy); each worker has one that the host reads. A reader tells the writer when it is done with a
 * block (MP_MSG_RELEASE). */
#pragma once

#include <stdbool.h>

#include "src/base/compiler.h"
#include "src/base/err.h"
#include "src/base/slice.h"

#define MP_ARENA_NONE UINT64_MAX

struct mp_arena; /* opaque, on the heap */

/* A sealed, sparse memfd for an arena of `bytes` (rounded up to blocks) that another process will
 * write; MP_EIO. The caller owns the descriptor. */
MP_MUST_USE enum mp_err mp_arena_make_file(size_t bytes, int *fd);
/* The writer's side: a sealed memfd of `bytes` (rounded up to blocks); MP_EIO, MP_ENOMEM. `fd` is
 * the arena's, for handing to readers. */
MP_MUST_USE enum mp_err mp_arena_create(struct mp_arena **own_out, size_t bytes, int *fd);
/* The writer's side over a file that another process created. */
MP_MUST_USE enum mp_err mp_arena_open(struct mp_arena **own_out, int fd);
void mp_arena_free(struct mp_arena *a);

/* A block of at least `size` bytes whose byte `aligned_at` is 64-byte aligned: the kernel copies
 * long runs several times faster when the long run itself is aligned, not the header before it.
 * Returns the offset of the block's first byte, or MP_ARENA_NONE if nothing fits now. */
uint64_t mp_arena_take(struct mp_arena *a, size_t size, unsigned aligned_at);
/* Gives back the block that starts at `offset`; false if none does (a reader told nonsense). */
bool mp_arena_give(struct mp_arena *a, uint64_t offset);
uint8_t *mp_arena_at(struct mp_arena *a, uint64_t offset);
/* Bytes in blocks given out. */
size_t mp_arena_used(const struct mp_arena *a);

/* The reader's side. */
struct mp_arena_view {
    const uint8_t *data;
    size_t size;
};

MP_MUST_USE enum mp_err mp_arena_view_open(struct mp_arena_view *v, int fd);
void mp_arena_view_close(struct mp_arena_view *v);
/* The bytes at [offset, offset + size); false if they are not inside the arena. */
bool mp_arena_view_get(const struct mp_arena_view *v, uint64_t offset, uint64_t size,
                       struct mp_slice *bytes);
