/* Trying units in processes that serve nobody. */
#pragma once

#include <stdbool.h>

#include "src/core/node/node.h"

struct mp_host;

void mp_checks_init(struct mp_host *h);
/* Nothing of it runs any more, see mp_checks_kill_all. */
void mp_checks_fini(struct mp_host *h);
/* CHECK_UNIT; CHECKED follows, never from inside this call. */
void mp_check_unit(struct mp_host *h, const struct mp_node_effect *e);
/* Ends what takes too long, and processes that nobody needed for a while. */
void mp_checks_check(struct mp_host *h);
mp_time mp_checks_deadline(const struct mp_host *h);
/* Gives all of it up, without events; true while something is still there. */
bool mp_checks_kill_all(struct mp_host *h);
