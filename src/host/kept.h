/* What a node keeps on its disk: effects of the machine go to the store, its answers come back as
 * events. */
#pragma once

#include "src/core/node/node.h"

struct mp_host;
struct mp_store_restored;

/* Tells the machine what was kept, before it starts. */
void mp_kept_restore(struct mp_host *h, const struct mp_store_restored *restored);
/* Carries out one of the effects KEEP_…, READ_… (but READ_MODULE) and FORGET_…. Its event is given
 * later, never from inside this call. */
void mp_kept_carry_out(struct mp_host *h, const struct mp_node_effect *e);
