/* What the files about workers share: workers.c (processes), workers_out.c (messages to them and
 * the blocks that payloads lie in), workers_in.c (messages from them). */
#pragma once

#include "src/host/host_internal.h"

/* A message made of a fixed part and up to three slices. */
struct mp_outgoing {
    uint16_t kind;
    uint16_t flags;
    struct mp_slice parts[4];
};

/* Sends, or keeps until there is room; order is kept. */
void mp_worker_post(struct mp_worker_process *w, const struct mp_outgoing *o);
/* Copies bytes that are too large for a ring into a block of the host's arena; false if it is full.
 */
bool mp_workers_share(struct mp_host *h, struct mp_slice bytes, uint64_t *at);
/* Sends a module as a LOAD of a unit (0: the node's own files). `at` is where its source lies in
 * the host's arena, lent to this worker already; MP_ARENA_NONE: it goes along. */
void mp_worker_load(struct mp_worker_process *w, uint32_t module, uint64_t serial, uint64_t at,
                    uint16_t flags);
/* Tells once that a worker is ready: it was given everything and has answered all of it. */
void mp_worker_check_ready(struct mp_worker_process *w);
/* A block that this worker uses, until it says that it is done or dies; others may use it too. It
 * is given back when nobody does. */
void mp_workers_lend(struct mp_host *h, const struct mp_worker_process *w, uint64_t at);
/* The end of one entry of `lent`. */
void mp_workers_unlend(struct mp_host *h, uint32_t index);
/* Maps the worker's own arena for reading; false if that cannot be. */
bool mp_worker_arena_open(struct mp_host *h, struct mp_worker_process *w, int fd);
void mp_worker_arena_close(struct mp_worker_arena *a);
/* The bytes of a payload that a worker announced; false if they are not where it says. */
bool mp_worker_payload(struct mp_worker_process *w, const struct mp_ring_record *record,
                       struct mp_slice inline_bytes, uint32_t size, uint64_t at,
                       struct mp_rpc_payload *payload);
/* What is known of a call that was sent; NULL if none was. */
struct mp_sent *mp_workers_sent(struct mp_host *h, uint64_t call);
void mp_workers_forget(struct mp_host *h, struct mp_sent *s);
/* Whether the worker has not begun the call; then it never will. */
bool mp_worker_take_back(struct mp_worker_process *w, const struct mp_sent *s);
