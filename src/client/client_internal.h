/* What client.c (requests, frames) and connect.c (finding a node) share. */
#pragma once

#include "src/base/buf.h"
#include "src/base/heap.h"
#include "src/client/client.h"

#define MP_CLIENT_PORT_BYTES 5

enum mp_client_state {
    MP_CLIENT_CONNECTING, /* no node yet */
    MP_CLIENT_OPEN,
    MP_CLIENT_LEAVING, /* GOAWAY came: what is in flight ends, nothing new */
    MP_CLIENT_LOST,    /* no connection, and there will be none */
    MP_CLIENT_CLOSING  /* mp_client_close was called */
};

/* One TCP connection, or the attempt at one. It outlives its use until libuv has closed it. */
struct mp_client_link {
    uv_tcp_t tcp;
    uv_connect_t connect;
    uv_write_t write;
    struct mp_client *client;
};

/* A name being resolved; stale once client->lookup is another. */
struct mp_client_lookup {
    uv_getaddrinfo_t request;
    struct mp_client *client;
};

struct mp_client_request {
    uint64_t id; /* 0: free */
    uint32_t generation;
    uint32_t next_free; /* slot + 1 */
    uint64_t timeout_ms;
    bool has_own_deadline; /* the node does not know of it, so its answer is not waited for */
    void *context;
    mp_client_answer_cb on_answer;
    mp_client_messages_cb on_messages; /* of a subscription; else NULL */
};

struct mp_client {
    uv_loop_t *loop;
    struct mp_alloc *alloc;
    enum mp_client_state state;
    uint32_t handles; /* libuv handles and requests that still point here */
    void *context;
    mp_client_ready_cb on_ready;
    void *closed_context;
    mp_client_closed_cb on_closed;
    uint32_t answer_bytes_max;

    /* finding a node */
    char (*nodes)[MP_CLIENT_NODE_BYTES + 1];
    uint32_t nodes_count;
    uint32_t node; /* index of the one being tried, then of the one connected to */
    bool has_begun;
    mp_time give_up_at;
    struct sockaddr_storage addresses[MP_CLIENT_ADDRESSES_MAX];
    uint32_t addresses_count;
    uint32_t address;
    struct mp_client_lookup *lookup;
    struct mp_buf tried; /* "a:1 (connection refused), b:2 (timed out)" */

    /* the connection */
    struct mp_client_link *link;
    uv_prepare_t flush;
    uv_timer_t timer; /* while connecting: of the attempt; then: of the earliest deadline */
    bool is_writing;
    bool is_write_dead;
    struct mp_buf in;
    struct mp_buf out;
    struct mp_buf sending;
    struct mp_buf meta;
    struct mp_buf error; /* what new requests are refused with */

    /* requests */
    struct mp_client_request *requests;
    uint32_t *places; /* of the heap */
    uint32_t slots;
    uint32_t free_slot; /* slot + 1, 0: none */
    uint32_t in_flight;
    struct mp_heap deadlines;
};

/* connect.c: HOST:PORT, [IPv6]:PORT; `host` has room for MP_CLIENT_NODE_BYTES and a NUL, `port` for
 * MP_CLIENT_PORT_BYTES and a NUL. False if it is neither, or the port is not 1 to 65535. */
bool mp_client_split_node(const char *node, char *host, char *port);
/* Takes the next address or node until an attempt is under way or none is left. */
void mp_client_seek(struct mp_client *c);
/* Gives the current address up, saying why, and goes on. */
void mp_client_attempt_failed(struct mp_client *c, const char *why);
void mp_client_attempt_timed_out(struct mp_client *c);

/* client.c: (re)starts the timer. */
void mp_client_arm(struct mp_client *c, uint64_t ms);
/* A link connected; the preface is exchanged next. */
void mp_client_link_connected(struct mp_client *c);
/* No node answered. */
void mp_client_give_up(struct mp_client *c);
/* Closes and forgets the current link. */
void mp_client_drop_link(struct mp_client *c);
/* A handle or request of libuv no longer points to the client, which is freed with the last. */
void mp_client_release(struct mp_client *c);
