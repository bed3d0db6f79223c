/* The native protocol's client (docs/protocol.md): one connection to the first node of a list that
 * answers, many requests on it at once, answers by callback.
 *
 * All functions and callbacks run on the thread of the loop. Callbacks come only from inside
 * uv_run, never from inside a function here, so a caller sees a request's id before its answer.
 * Every function may be called from inside a callback, save where it says otherwise. */
#pragma once

#include <uv.h>

#include "src/base/alloc.h"
#include "src/base/compiler.h"
#include "src/base/err.h"
#include "src/base/slice.h"
#include "src/wire/frame.h"

struct mp_client;

enum mp_client_answer {
    MP_CLIENT_EVENT,  /* an event map; more follow for this id */
    MP_CLIENT_RESULT, /* the end: the value */
    MP_CLIENT_ERROR   /* the end: an ERROR map */
};

/* Once per mp_client_connect: `error` is empty if the connection stands, else an ERROR map, and
 * then the client can only be closed. Borrowed for the call. */
typedef void (*mp_client_ready_cb)(void *context, struct mp_slice error);
/* `payload` is borrowed for the call. Nothing comes for an id after its RESULT or ERROR. */
typedef void (*mp_client_answer_cb)(void *context, uint64_t id, enum mp_client_answer answer,
                                    struct mp_slice payload);
/* Messages of one publisher in its order, of a subscription; all is borrowed for the call. */
struct mp_client_batch {
    struct mp_slice publisher;
    uint64_t dropped;   /* so many that matched were lost after `after_seq` and before these */
    uint64_t after_seq; /* 0: the first ones were */
    struct mp_slice messages; /* an array of [topic, seq, at, data], possibly empty; well formed,
                                 but what its elements are is not looked at */
};
typedef void (*mp_client_messages_cb)(void *context, uint64_t id,
                                      const struct mp_client_batch *batch);
/* After mp_client_close: the client's memory is gone. */
typedef void (*mp_client_closed_cb)(void *context);

struct mp_client_config {
    uv_loop_t *loop;
    struct mp_alloc *alloc; /* must outlive the client */
    /* HOST:PORT, names or addresses, IPv6 in brackets; tried in turn. Copied. */
    const char *const *nodes;
    uint32_t nodes_count;
    uint64_t timeout_ms;       /* to connect, all nodes together; 0: MP_CLIENT_CONNECT_MS each */
    uint32_t answer_bytes_max; /* a larger answer ends the connection; 0: the largest allowed */
    void *context;             /* of on_ready */
};

/* Starts to connect. MP_EINVAL without nodes or with more than MP_CLIENT_NODES_MAX, MP_ENOMEM,
 * MP_EIO if the loop refuses a handle. What is wrong with a node's name is told by `on_ready`, as
 * is everything else that can go wrong: code UNAVAILABLE, reason NO_NODE, every node named with
 * what happened there. */
MP_MUST_USE enum mp_err mp_client_connect(const struct mp_client_config *config,
                                          mp_client_ready_cb on_ready, struct mp_client **client);
/* Closes at once; requests in flight are forgotten (the node cancels them) and their callbacks do
 * not come. The client is freed later, from the loop; `on_closed` may be NULL. Once per client. */
void mp_client_close(struct mp_client *c, void *context, mp_client_closed_cb on_closed);

/* Requests. Slices are copied. The answer comes by `on_answer`; `*id` is never 0.
 * MP_ECLOSED: not connected, or the node is about to stop (mp_client_error says what);
 * MP_EFULL: MP_CLIENT_REQUESTS_MAX are in flight, or MP_CLIENT_OUT_BYTES_MAX wait to be sent;
 * MP_ETOOLARGE: meta or payload is too large for a frame; MP_ENOMEM.
 *
 * With a timeout in the options the node answers at its end; a node that does not within a second
 * more is given up on: the request ends with DEADLINE_EXCEEDED/NO_ANSWER and is cancelled. Without
 * one the node's own default holds. */
MP_MUST_USE enum mp_err mp_client_call(struct mp_client *c, const struct mp_call_options *options,
                                       struct mp_slice args, void *context,
                                       mp_client_answer_cb on_answer, uint64_t *id);
/* `payload`: a graph, or a map of pipeline and input. */
MP_MUST_USE enum mp_err mp_client_run(struct mp_client *c, const struct mp_run_options *options,
                                      struct mp_slice payload, void *context,
                                      mp_client_answer_cb on_answer, uint64_t *id);
/* `options`: a MessagePack map; empty: none. `payload` may be empty. timeout_ms 0:
 * MP_CLIENT_QUERY_MS. */
MP_MUST_USE enum mp_err mp_client_query(struct mp_client *c, struct mp_slice what,
                                        struct mp_slice options, struct mp_slice payload,
                                        uint64_t timeout_ms, void *context,
                                        mp_client_answer_cb on_answer, uint64_t *id);
/* `what`: "eval" or "complete"; `options` as for a query. `text`: of any length, sent as one str.
 * The node sets no deadline; at the end of timeout_ms (0: none) the request ends with
 * DEADLINE_EXCEEDED and is cancelled. */
MP_MUST_USE enum mp_err mp_client_eval(struct mp_client *c, struct mp_slice what,
                                       struct mp_slice options, struct mp_slice text,
                                       uint64_t timeout_ms, void *context,
                                       mp_client_answer_cb on_answer, uint64_t *id);
/* `messages`: an array of [topic, data]. RESULT once the node has accepted all of them; it accepts
 * all or none. timeout_ms as for a query. */
MP_MUST_USE enum mp_err mp_client_publish(struct mp_client *c, struct mp_slice messages,
                                          uint64_t timeout_ms, void *context,
                                          mp_client_answer_cb on_answer, uint64_t *id);
/* EVENT `subscribed` comes once the subscription is in force, then messages until it is cancelled,
 * or the connection ends, or timeout_ms (0: never) are over: DEADLINE_EXCEEDED. What `on_messages`
 * has not returned from is not read, so a slow consumer is waited for by the node, which drops what
 * its queue does not hold, and tells. */
MP_MUST_USE enum mp_err mp_client_subscribe(struct mp_client *c,
                                            const struct mp_subscribe_options *options,
                                            uint64_t timeout_ms, void *context,
                                            mp_client_answer_cb on_answer,
                                            mp_client_messages_cb on_messages, uint64_t *id);
/* Asks the node to end a request; its answer (usually ERROR CANCELLED) still comes. Does nothing
 * for an id that is not in flight. */
void mp_client_cancel(struct mp_client *c, uint64_t id);

/* Whether requests are accepted. */
bool mp_client_is_open(const struct mp_client *c);
/* The ERROR map that requests are refused with; empty while the client is open. Borrowed until the
 * client closes. */
struct mp_slice mp_client_error(const struct mp_client *c);
/* HOST:PORT of the node that answered, as it was given; empty before. */
struct mp_slice mp_client_node(const struct mp_client *c);
uint32_t mp_client_requests(const struct mp_client *c);
