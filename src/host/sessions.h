/* REPL sessions: a process each, for one connection, in which Lua is evaluated (src/session). The
 * machine knows nothing of them: what a session calls, it calls as any client does. */
#pragma once

#include "src/host/net_internal.h"

struct mp_session;

/* An EVAL frame of a connection. Takes `handle`. Its answers, and that it failed, go out over the
 * connection. */
void mp_session_eval(struct mp_conn *c, const struct mp_frame_header *f, struct mp_slice meta,
                     struct mp_slice payload, uint64_t handle);
/* Interrupts an evaluation, whose answer still comes. False: `id` is none of this connection. */
bool mp_session_cancel(struct mp_host *h, uint64_t client, uint64_t id);
/* The connection is gone, and its session with it. */
void mp_session_client_gone(struct mp_host *h, uint64_t client);

/* Sees to those that were interrupted, and those that wait for their connection. */
void mp_sessions_check(struct mp_host *h);
mp_time mp_sessions_deadline(const struct mp_host *h);
/* Whether something is being evaluated. */
bool mp_sessions_are_running(const struct mp_host *h);
/* Ends them all; false once none is left. Called until then. */
bool mp_sessions_kill_all(struct mp_host *h);
