/* Datagrams out of any bytes: nothing is read past the end; what can be read can be put again and
 * is read as the same; and a membership takes whatever can be read, and its parts as entries,
 * without breaking an invariant. The checksum is mended first, or nothing would get past it. */
#include <stdlib.h>

#include "spec/support/alloc.h"
#include "src/base/assert.h"
#include "src/core/membership/membership.h"
#include "src/wire/gossip.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_again(const struct mp_gossip *g)
{
    struct mp_gossip_writer w;
    struct mp_gossip again;
    mp_gossip_begin(&w, g);
    struct mp_slice items = g->items;
    struct mp_gossip_item item;
    while (mp_gossip_next(&items, &item)) {
        /* Numbers may have been longer than they need be, never shorter. */
        bool is_put = item.is_news ? mp_gossip_put_news(&w, &item.news)
                                   : mp_gossip_put_member(&w, &item.member);
        mp_assert(is_put);
    }
    mp_assert(mp_gossip_read(mp_gossip_end(&w), &again) == MP_OK);
    mp_assert(again.kind == g->kind && again.seq == g->seq && again.load == g->load);
    mp_assert(mp_slice_equal(again.name, g->name) && mp_slice_equal(again.target, g->target));
    mp_assert(again.generation == g->generation && again.incarnation == g->incarnation);
    mp_assert(again.items.size <= g->items.size);
}

static void feed(struct mp_alloc *alloc, struct mp_slice datagram, struct mp_slice raw)
{
    const struct mp_address here = {.size = 6, .bytes = {127, 0, 0, 1, 0x1c, 0xe8}};
    const struct mp_membership_config cfg = {.name = mp_slice_str("n1"),
                                             .cluster = mp_slice_str("default"),
                                             .addr = here,
                                             .generation = 5,
                                             .members_max = 16};
    struct mp_membership *m = NULL;
    struct mp_membership_effects out;
    mp_assert(mp_membership_new(&m, &cfg, alloc, 1) == MP_OK);
    mp_time now = MP_SECONDS(5);
    struct mp_membership_event ev = {.kind = MP_MEMBERSHIP_START, .start = {.addr = here}};
    mp_assert(mp_membership_step(m, now, &ev, &out) == MP_OK);
    for (int i = 0; i < 3; i++) {
        ev.kind = MP_MEMBERSHIP_DATAGRAM;
        ev.datagram.from = (struct mp_address){.size = 6, .bytes = {127, 0, 0, 2, 0x1c, 0xe8}};
        ev.datagram.bytes = datagram;
        mp_assert(mp_membership_step(m, now, &ev, &out) == MP_OK);
        ev.kind = MP_MEMBERSHIP_ENTRIES;
        ev.entries.bytes = raw;
        mp_assert(mp_membership_step(m, now, &ev, &out) == MP_OK);
        ev.kind = MP_MEMBERSHIP_TIMER;
        for (int k = 0; k < 30 && mp_membership_deadline(m) != MP_NEVER; k++) {
            now = now < mp_membership_deadline(m) ? mp_membership_deadline(m) : now;
            mp_assert(mp_membership_step(m, now, &ev, &out) == MP_OK);
        }
    }
    mp_membership_free(m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct spec_alloc memory = {.fail_at = SPEC_NEVER};
    struct mp_alloc alloc = spec_alloc_of(&memory);
    struct mp_gossip_writer w;
    struct mp_gossip g;
    struct mp_slice bytes = mp_slice_of(data, size);
    if (size >= 16 && size <= sizeof(w.data)) {
        memcpy(w.data, data, size);
        w.size = size;
        uint64_t cluster = mp_slice_hash(mp_slice_str("default"), 0);
        for (unsigned i = 0; i < 8; i++)
            w.data[8 + i] = (uint8_t)(cluster >> (8 * i));
        bytes = mp_gossip_end(&w);
    }
    if (mp_gossip_read(bytes, &g) == MP_OK) {
        check_again(&g);
        feed(&alloc, bytes, g.items);
    }
    feed(&alloc, bytes, mp_slice_of(data, size));
    mp_assert(memory.live_bytes == 0);
    return 0;
}
