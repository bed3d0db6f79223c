/* What the protocol's timing and traffic are tuned by, each with its reason. Bounds on memory stand
 * in base/limits.h. */
#pragma once

#include "src/base/time.h"

/* A probe each period costs a node two datagrams of about 50 bytes sent (a ping and, on average, an
 * ack): 0.9 kB/s with headers. 500 ms missed the bar for detection. */
#define MP_SWIM_PERIOD MP_MS(200)

/* Waiting for a direct ack: srtt + 4 var as in RFC 6298. The floor lets a busy scheduler pass; the
 * ceiling leaves room for the indirect probes; the first guess, for want of any measurement,
 * suits a continent. */
#define MP_SWIM_RTO_MIN   MP_MS(20)
#define MP_SWIM_RTO_MAX   MP_SWIM_PERIOD
#define MP_SWIM_RTO_GUESS MP_MS(100)
/* A probe ends after so many ping timeouts (but no sooner than the period): one for the direct
 * ping, two round trips for the indirect one, one to spare. */
#define MP_SWIM_PROBE_RTOS 4u

#define MP_SWIM_HELPERS 3u /* indirect probes: as in SWIM and Lifeguard */

/* Lifeguard's local health multiplier: 0 is well; the paper's maximum. */
#define MP_SWIM_HEALTH_MAX 8u

/* Suspicion lasts at least this, times max(1, log10(N) / 2): a gossip round trip with a lost
 * datagram; and without confirmations 6 times that. At 100 nodes 0.5 s to 3 s. */
#define MP_SWIM_SUSPICION_MIN MP_MS(500)
#define MP_SWIM_SUSPICION_MAX 6u /* times the minimum */
#define MP_SWIM_CONFIRMATIONS 3u /* that shorten it to the minimum: as in Lifeguard */
/* Of those who hear a suspicion about so many probe the suspect at once: enough for the
 * confirmations, and no flood on a node that is merely slow. */
#define MP_SWIM_WITNESSES 16u

/* Each item is sent ceil(6 log10(N + 1)) times by each who hears it: the chance that a node
 * misses it is below 1e-5 at 100 nodes without loss, below 1e-4 with 10 %. */
#define MP_SWIM_SPREAD       6u
#define MP_SWIM_GOSSIP_PAUSE MP_MS(100)
#define MP_SWIM_FANOUT       3u

/* Digest exchange: the guarantee behind gossip. */
#define MP_SWIM_SYNC_PAUSE MP_SECONDS(1)
/* At most one exchange so often because a dead member came back: when a partition heals, one of
 * them tells of all others. */
#define MP_SWIM_REVIVAL_PAUSE MP_MS(200)

/* The dead are redialled with doubling pauses, and one of them at random each 5 s, so that two
 * halves meet within 10 s. No more than one a period, which bounds the traffic. */
#define MP_SWIM_REDIAL_MIN    MP_SECONDS(1)
#define MP_SWIM_REDIAL_MAX    MP_SECONDS(60)
#define MP_SWIM_REDIAL_RANDOM MP_SECONDS(5)
#define MP_SWIM_REDIAL_LOOK   16u /* dead members looked at in a period */

/* A name clash: so many pings in so long must all be lost before a name changes hands. */
#define MP_SWIM_CLASH_PINGS 4u
#define MP_SWIM_CLASH_PAUSE MP_MS(125)
/* After its first contact a node's claim to its name is provisional for so long. */
#define MP_SWIM_SETTLE MP_SECONDS(2)

/* A step that comes so late was preceded by a stop of this process, not by silence of others. */
#define MP_SWIM_PAUSE_MIN MP_SECONDS(2)

#define MP_SWIM_GOODBYES 8u /* members told on leaving; they tell the others */
