/* A single-producer single-consumer ring of records in memory shared by the host and one worker,
 * and the channel that holds two of them, one for each direction.
 *
 * The data area is mapped twice in a row, so a record never wraps and is read and written in one
 * piece. The producer reserves records and publishes them together; the consumer reads records and
 * releases them together: one shared-cache-line write a batch on each side. Neither side trusts the
 * other: positions and sizes that come out of shared memory are checked against the ring's bounds,
 * and each side works from its own copies of what it wrote.
 *
 * Sleeping: a consumer that found nothing sets `sleeping`, fences, looks once more, and then blocks
 * on its eventfd; a producer that published sees the flag and writes the eventfd (the classic
 * store-load handshake; both fences are sequentially consistent). */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>

#include "src/base/compiler.h"
#include "src/base/err.h"
#include "src/base/slice.h"

#define MP_RING_ALIGN 16u

/* How far a record has come. A call that was not begun can be taken back: whoever moves the state
 * away from READY first owns it. */
enum mp_ring_state { MP_RING_READY = 0, MP_RING_BEGUN = 1, MP_RING_REVOKED = 2 };

/* Each record starts so; its body follows. */
struct mp_ring_record {
    uint32_t size; /* whole record, a multiple of MP_RING_ALIGN */
    _Atomic uint32_t state;
    uint16_t kind;  /* enum mp_ring_kind */
    uint16_t flags; /* MP_RING_… of message.h */
    uint32_t spare;
};

/* Positions of one ring in shared memory; each on a cache line of its own. */
struct mp_ring_shared {
    _Alignas(MP_CACHE_LINE) _Atomic uint64_t tail;     /* bytes produced */
    _Alignas(MP_CACHE_LINE) _Atomic uint64_t head;     /* bytes consumed */
    _Alignas(MP_CACHE_LINE) _Atomic uint32_t sleeping; /* the consumer blocks on its eventfd */
};

/* One side's view. */
struct mp_ring {
    struct mp_ring_shared *shared;
    uint8_t *data;
    uint32_t capacity;
    uint64_t tail;      /* producer: reserved up to here */
    uint64_t published; /* producer: visible up to here */
    uint32_t last;      /* producer: bytes of the record reserved last; 0: it was given back */
    uint64_t head;      /* consumer: read up to here; producer: last seen of the other side */
    uint64_t released;  /* consumer: released up to here */
    uint64_t seen;      /* consumer: last seen tail */
    uint32_t body_size; /* consumer: of the record that next returned last, as it was checked */
    bool is_broken;     /* consumer: the other side wrote nonsense; nothing more is read */
};

/* What a worker publishes about itself besides its ring. */
struct mp_channel_status {
    /* The call that has the CPU, 0 for none; MP_CHANNEL_LOADING | module while a module loads. */
    _Alignas(MP_CACHE_LINE) _Atomic uint64_t running;
    _Atomic uint64_t running_since; /* CLOCK_MONOTONIC, ns */
    _Atomic uint64_t memory_bytes;  /* of the Lua state */
    _Atomic uint64_t turns;         /* grows with each call begun or resumed */
};

#define MP_CHANNEL_LOADING (1ull << 63)

struct mp_channel {
    struct mp_ring to_worker;
    struct mp_ring to_host;
    struct mp_channel_status *status;
    /* private */
    void *base;
    size_t mapped_bytes;
};

/* A sealed memfd that holds a channel; MP_EIO. The caller owns the descriptor. */
MP_MUST_USE enum mp_err mp_channel_create(int *fd);
/* Maps the channel behind `fd` (which may be closed afterwards); MP_EIO. */
MP_MUST_USE enum mp_err mp_channel_open(struct mp_channel *c, int fd);
void mp_channel_close(struct mp_channel *c);

/* Producer: room for a record with `body` bytes after its header, or NULL if the ring is full now.
 * kind and flags are set, the state is READY. Nothing is visible before publish. */
struct mp_ring_record *mp_ring_reserve(struct mp_ring *r, uint32_t body, uint16_t kind,
                                       uint16_t flags);
/* Producer: shortens the body of the record that was reserved last. */
void mp_ring_trim(struct mp_ring *r, struct mp_ring_record *record, uint32_t body);
/* Producer: gives back the record that was reserved last. */
void mp_ring_unreserve(struct mp_ring *r, struct mp_ring_record *record);
/* Makes all reserved records visible. True if the consumer sleeps: then write its eventfd. */
bool mp_ring_publish(struct mp_ring *r);
/* The largest body that can ever fit. */
uint32_t mp_ring_body_max(const struct mp_ring *r);

/* Consumer: the next record, or NULL. It stays valid until mp_ring_release; its body has
 * r->body_size bytes, whatever a hostile producer makes of the size in the record afterwards. A
 * record whose size is impossible marks the ring as broken and reads as NULL. */
struct mp_ring_record *mp_ring_next(struct mp_ring *r);
/* Gives back the space of all records that next has returned. */
void mp_ring_release(struct mp_ring *r);
bool mp_ring_is_empty(struct mp_ring *r);
/* Consumer: announces sleep; false if records came meanwhile (then it is awake again). */
bool mp_ring_prepare_sleep(struct mp_ring *r);
void mp_ring_wake(struct mp_ring *r);

/* The body behind a record's header. */
static inline uint8_t *mp_ring_body(struct mp_ring_record *record)
{
    return (uint8_t *)(record + 1);
}
