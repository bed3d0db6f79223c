/* Lists of members over links, and when to compare digests: once a second with one random member
 * that is reached directly, and with whoever has just come back from the dead, because it knows the
 * other half of a partition. */
#include "src/core/membership/membership_internal.h"

#define PICKS 8u /* tries to find one that is reached directly */

void mp_swim_entries(struct mp_membership *m, mp_time now, struct mp_slice bytes)
{
    if (mp_gossip_check(bytes) != MP_OK) {
        m->dropped++;
        return;
    }
    struct mp_gossip_item item;
    while (mp_gossip_next(&bytes, &item))
        if (!item.is_news)
            mp_swim_hear(m, now, &item.member, MP_SWIM_ENTRIES);
}

void mp_swim_sync_run(struct mp_membership *m, mp_time now)
{
    if (now < m->sync_at)
        return;
    m->sync_at = now + MP_SWIM_SYNC_PAUSE * 3 / 4 + mp_rng_below(&m->rng, MP_SWIM_SYNC_PAUSE / 2);
    for (uint32_t i = 0; i < PICKS; i++) {
        uint32_t n = mp_swim_random_live(m, MP_MEMBER_NONE);
        if (n == MP_MEMBER_NONE)
            return;
        if (mp_swim_via(m, n) != MP_MEMBER_NONE)
            continue;
        struct mp_membership_effect *e = mp_swim_emit(m, MP_MEMBERSHIP_SYNC, n);
        if (e)
            e->sync.is_any = true;
        return;
    }
}

void mp_swim_revived(struct mp_membership *m, mp_time now, uint32_t n)
{
    if (m->revived_at != 0 && now - m->revived_at < MP_SWIM_REVIVAL_PAUSE)
        return;
    m->revived_at = now;
    mp_swim_emit(m, MP_MEMBERSHIP_SYNC, n);
}
