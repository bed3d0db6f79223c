/* Deployed units in the workers, and the releases that calls find them through; what the store
 * keeps of them for the node. Each function carries out the effect of its name in core/node/node.h;
 * the event that ends one is given later, never from inside these calls. */
#pragma once

#include <stdbool.h>

#include "src/core/node/node.h"

struct mp_host;
struct mp_worker_process;

/* The store has been started. */
void mp_units_init(struct mp_host *h);
void mp_units_fini(struct mp_host *h);

void mp_units_read_module(struct mp_host *h, const struct mp_node_effect *e);
/* A unit that could not be loaded has no number, and is not to be unloaded. */
void mp_units_load(struct mp_host *h, const struct mp_node_effect *e);
void mp_units_unload(struct mp_host *h, const struct mp_node_effect *e);
void mp_units_open_release(struct mp_host *h, const struct mp_node_effect *e);
void mp_units_close_release(struct mp_host *h, const struct mp_node_effect *e);

/* Appends an array of all units that a release names. */
MP_MUST_USE enum mp_err mp_units_put_release(const struct mp_host *h, uint32_t release,
                                             struct mp_buf *out);

/* Gives a worker that has started the units and releases that it lacks, as fast as it takes them.
 */
void mp_units_feed(struct mp_host *h, struct mp_worker_process *w);
/* A worker has answered the LOAD of a deployed module; the payload is worth a look if is_error. */
void mp_units_loaded(struct mp_host *h, struct mp_worker_process *w, uint64_t serial,
                     uint32_t module, bool is_error, struct mp_slice payload);
/* A worker ended; `module` is the one that it loaded just then, UINT32_MAX if it did not. */
void mp_units_worker_died(struct mp_host *h, const struct mp_worker_process *w, uint32_t module,
                          const char *how);
/* Feeds workers, and tells which loads have ended. */
void mp_units_check(struct mp_host *h);
/* Whether a load has not ended yet. */
bool mp_units_are_loading(const struct mp_host *h);
mp_time mp_units_deadline(const struct mp_host *h);
