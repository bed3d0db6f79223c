/* What the files about connections share: listen.c (the port), dial.c (connections that this node
 * begins), net.c (what comes in, and their lives), net_out.c (what leaves). */
#pragma once

#include "src/host/host_internal.h"
#include "src/wire/error.h"

#define MP_NET_READ_BYTES                                                                          \
    (256u << 10) /* read at once, into a buffer that all connections share                         \
                  */

struct sockaddr_storage;

/* --- addresses (listen.c) --- */

/* IPv4 that is mapped into IPv6 becomes IPv4 again. */
struct mp_address mp_net_address_of(const struct sockaddr_storage *addr);
/* As a socket of `family` takes it; the size of it, or 0 if such a socket cannot reach it. */
uint32_t mp_net_sockaddr_of(const struct mp_address *a, int family, struct sockaddr_storage *addr);

/* --- connections (net.c) --- */

/* Takes the descriptor. NULL if there is no room for another connection; that is logged. */
struct mp_conn *mp_conn_new(struct mp_host *h, int fd, enum mp_conn_state state);
/* Ends it now. The machine hears of it, unless it never knew of the connection. */
void mp_conn_close(struct mp_conn *c);
/* Waits for what its state asks for. */
void mp_conn_watch(struct mp_conn *c);
/* Ends it once everything is written; nothing more is read. */
void mp_conn_finish(struct mp_conn *c);
/* NULL if it is gone, or on its way. */
struct mp_conn *mp_conn_find(struct mp_host *h, uint64_t client);
/* Does not read on until half of what is too much has gone; links are always read. */
void mp_conn_pause(struct mp_conn *c);
/* HELLO came or went: from now on the other side is a node. */
void mp_conn_become_link(struct mp_conn *c);

/* --- subscriptions (subscriptions.c) --- */

/* Counts one that begins; false if it cannot, which the client was told. */
bool mp_conn_begin_subscription(struct mp_conn *c, uint64_t id);
/* One that has ended, or false: the request of this id is none. */
bool mp_conn_end_subscription(struct mp_conn *c, uint64_t id);

/* --- what leaves (net_out.c) --- */

/* Appends bytes that leave at the end of the turn; false without memory. */
bool mp_conn_put(struct mp_conn *c, struct mp_slice bytes);
/* The same with a frame; the connection may be closed afterwards. */
void mp_conn_put_frame(struct mp_conn *c, const struct mp_outgoing_frame *o);
void mp_conn_put_error(struct mp_conn *c, uint64_t id, enum mp_code code, const char *reason,
                       const char *message);
/* An ERROR map of this node in a fresh buffer, to be freed in any case; false without memory. */
bool mp_conn_make_error(struct mp_conn *c, struct mp_buf *b, enum mp_code code, const char *reason,
                        const char *message);
void mp_conn_mark_dirty(struct mp_conn *c);
/* Writes what the socket takes. May step the machine at its end, which may close the connection. */
void mp_conn_write(struct mp_conn *c);
void mp_conn_drop_unsent(struct mp_conn *c);

/* --- dials (dial.c) --- */

/* The socket of a dial is connected, or will never be. */
void mp_dial_woken(struct mp_conn *c);
/* Takes the other side's preface off the front of `bytes`, once it has come whole. */
void mp_dial_take_preface(struct mp_conn *c, struct mp_slice *bytes);
/* A dial's connection is closed before it was one: the machine is told why. */
void mp_dial_ended(struct mp_conn *c);
