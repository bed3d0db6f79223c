/* A ring whose producer writes what it likes: positions, sizes, and both again while the consumer
 * reads. Every record that is read lies inside the ring, whole. */
#include <stdlib.h>

#include "src/base/assert.h"
#include "src/host/ring/ring.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MOVE_BYTES 12 /* what: 1, where: 3, value: 8 */

static struct mp_channel *channel(void)
{
    static struct mp_channel c;
    int fd;
    if (!c.base)
        mp_assert(mp_channel_create(&fd) == MP_OK && mp_channel_open(&c, fd) == MP_OK);
    return &c;
}

static void read_some(struct mp_ring *r)
{
    struct mp_ring_record *record;
    for (int i = 0; i < 64 && (record = mp_ring_next(r)) != NULL; i++) {
        const uint8_t *body = mp_ring_body(record);
        mp_assert((const uint8_t *)record >= r->data);
        mp_assert(body + r->body_size <= r->data + 2 * (size_t)r->capacity);
        mp_assert(r->body_size <= mp_ring_body_max(r));
        volatile uint8_t last = r->body_size != 0 ? body[r->body_size - 1] : 0;
        (void)last;
    }
    mp_assert(r->head - r->released <= r->capacity);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct mp_ring r = channel()->to_host;
    atomic_store(&r.shared->tail, 0);
    atomic_store(&r.shared->head, 0);
    for (; size >= MOVE_BYTES; data += MOVE_BYTES, size -= MOVE_BYTES) {
        uint32_t where = (uint32_t)data[1] | (uint32_t)data[2] << 8 | (uint32_t)data[3] << 16;
        uint64_t value;
        memcpy(&value, data + 4, sizeof(value));
        switch (data[0] % 6) {
        case 0:
            atomic_store(&r.shared->tail, value);
            break;
        case 1: /* a little further, so that it gets somewhere */
            atomic_store(&r.shared->tail, r.head + value % 4096 * MP_RING_ALIGN);
            break;
        case 2: /* anywhere, seldom beyond the end */
            memcpy(r.data + where % (r.capacity - 8), &value, sizeof(value));
            break;
        case 3: /* the next record */
            memcpy(r.data + (r.head & (r.capacity - 1)), &value, sizeof(value));
            break;
        case 4:
            mp_ring_release(&r);
            break;
        default:
            read_some(&r);
        }
    }
    read_some(&r);
    return 0;
}
