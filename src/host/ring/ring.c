/* See ring.h. The producer keeps its tail and a cached head, the consumer its head and a cached
 * tail, so that the other side's cache line is read only when the cached value does not suffice. */
#include "src/host/ring/ring.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "src/base/assert.h"
#include "src/base/limits.h"

#define CONTROL_BYTES 4096u

struct control {
    struct mp_ring_shared to_worker;
    struct mp_ring_shared to_host;
    struct mp_channel_status status;
};

static_assert(sizeof(struct control) <= CONTROL_BYTES, "the control page holds the control block");
static_assert((MP_RING_BYTES & (MP_RING_BYTES - 1)) == 0, "positions are masked");
static_assert(sizeof(struct mp_ring_record) == MP_RING_ALIGN, "bodies are aligned");

enum mp_err mp_channel_create(int *fd)
{
    int made = memfd_create("mpreg-channel", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (made < 0)
        return MP_EIO;
    if (ftruncate(made, CONTROL_BYTES + 2 * MP_RING_BYTES) != 0 ||
        fcntl(made, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
        close(made);
        return MP_EIO;
    }
    *fd = made;
    return MP_OK;
}

/* Maps `bytes` of the file twice in a row at `at`. */
static bool map_twice(uint8_t *at, int fd, off_t offset, size_t bytes)
{
    const int flags = MAP_SHARED | MAP_FIXED;
    return mmap(at, bytes, PROT_READ | PROT_WRITE, flags, fd, offset) != MAP_FAILED &&
           mmap(at + bytes, bytes, PROT_READ | PROT_WRITE, flags, fd, offset) != MAP_FAILED;
}

enum mp_err mp_channel_open(struct mp_channel *c, int fd)
{
    size_t total = CONTROL_BYTES + 4u * MP_RING_BYTES;
    uint8_t *base = mmap(NULL, total, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED)
        return MP_EIO;
    if (mmap(base, CONTROL_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) ==
            MAP_FAILED ||
        !map_twice(base + CONTROL_BYTES, fd, CONTROL_BYTES, MP_RING_BYTES) ||
        !map_twice(base + CONTROL_BYTES + 2 * MP_RING_BYTES, fd, CONTROL_BYTES + MP_RING_BYTES,
                   MP_RING_BYTES)) {
        munmap(base, total);
        return MP_EIO;
    }
    struct control *control = (struct control *)(void *)base;
    *c = (struct mp_channel){.base = base, .mapped_bytes = total, .status = &control->status};
    c->to_worker = (struct mp_ring){
        .shared = &control->to_worker, .data = base + CONTROL_BYTES, .capacity = MP_RING_BYTES};
    c->to_host = (struct mp_ring){.shared = &control->to_host,
                                  .data = base + CONTROL_BYTES + 2 * MP_RING_BYTES,
                                  .capacity = MP_RING_BYTES};
    return MP_OK;
}

void mp_channel_close(struct mp_channel *c)
{
    if (c->base)
        munmap(c->base, c->mapped_bytes);
    *c = (struct mp_channel){0};
}

uint32_t mp_ring_body_max(const struct mp_ring *r)
{
    return r->capacity / 2 - (uint32_t)sizeof(struct mp_ring_record);
}

struct mp_ring_record *mp_ring_reserve(struct mp_ring *r, uint32_t body, uint16_t kind,
                                       uint16_t flags)
{
    mp_assert(body <= mp_ring_body_max(r));
    uint32_t size = (uint32_t)sizeof(struct mp_ring_record) + body;
    size = (size + MP_RING_ALIGN - 1) & ~(MP_RING_ALIGN - 1);
    if (r->capacity - (r->tail - r->head) < size) {
        uint64_t head = atomic_load_explicit(&r->shared->head, memory_order_acquire);
        /* A consumer can only have taken what was published, and never goes back. */
        if (head < r->head || head > r->published || head % MP_RING_ALIGN != 0)
            return NULL;
        r->head = head;
        if (r->capacity - (r->tail - r->head) < size)
            return NULL;
    }
    struct mp_ring_record *record =
        (struct mp_ring_record *)(void *)(r->data + (r->tail & (r->capacity - 1)));
    record->size = size;
    atomic_store_explicit(&record->state, MP_RING_READY, memory_order_relaxed);
    record->kind = kind;
    record->flags = flags;
    record->spare = 0;
    r->tail += size;
    r->last = size;
    return record;
}

static bool is_last(const struct mp_ring *r, const struct mp_ring_record *record)
{
    return r->last != 0 && r->tail - r->published >= r->last &&
           r->data + ((r->tail - r->last) & (r->capacity - 1)) == (const uint8_t *)record;
}

void mp_ring_trim(struct mp_ring *r, struct mp_ring_record *record, uint32_t body)
{
    uint32_t size = (uint32_t)sizeof(struct mp_ring_record) + body;
    size = (size + MP_RING_ALIGN - 1) & ~(MP_RING_ALIGN - 1);
    mp_assert(is_last(r, record));
    mp_assert(size <= r->last);
    r->tail -= r->last - size;
    r->last = size;
    record->size = size;
}

void mp_ring_unreserve(struct mp_ring *r, struct mp_ring_record *record)
{
    mp_assert(is_last(r, record));
    r->tail -= r->last;
    r->last = 0;
}

bool mp_ring_publish(struct mp_ring *r)
{
    if (r->published == r->tail)
        return false;
    r->published = r->tail;
    atomic_store_explicit(&r->shared->tail, r->tail, memory_order_release);
    atomic_thread_fence(memory_order_seq_cst);
    return atomic_load_explicit(&r->shared->sleeping, memory_order_relaxed) != 0;
}

static bool is_next_ready(struct mp_ring *r)
{
    if (r->is_broken)
        return false;
    if (r->seen != r->head)
        return true;
    uint64_t tail = atomic_load_explicit(&r->shared->tail, memory_order_acquire);
    if (tail < r->head || tail - r->released > r->capacity || tail % MP_RING_ALIGN != 0) {
        r->is_broken = true;
        return false;
    }
    r->seen = tail;
    return tail != r->head;
}

struct mp_ring_record *mp_ring_next(struct mp_ring *r)
{
    if (!is_next_ready(r))
        return NULL;
    struct mp_ring_record *record =
        (struct mp_ring_record *)(void *)(r->data + (r->head & (r->capacity - 1)));
    uint32_t size = *(volatile uint32_t *)&record->size;
    if (size < sizeof(*record) || size % MP_RING_ALIGN != 0 || size > r->seen - r->head ||
        size > r->capacity / 2) {
        r->is_broken = true;
        return NULL;
    }
    r->head += size;
    r->body_size = size - (uint32_t)sizeof(*record);
    return record;
}

void mp_ring_release(struct mp_ring *r)
{
    if (r->released == r->head)
        return;
    r->released = r->head;
    atomic_store_explicit(&r->shared->head, r->head, memory_order_release);
}

bool mp_ring_is_empty(struct mp_ring *r)
{
    return !is_next_ready(r);
}

bool mp_ring_prepare_sleep(struct mp_ring *r)
{
    atomic_store_explicit(&r->shared->sleeping, 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_seq_cst);
    if (mp_ring_is_empty(r))
        return true;
    mp_ring_wake(r);
    return false;
}

void mp_ring_wake(struct mp_ring *r)
{
    atomic_store_explicit(&r->shared->sleeping, 0, memory_order_relaxed);
}
