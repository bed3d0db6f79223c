/* What the files of the host share. */
#pragma once

#include <uv.h>

#include "src/base/buf.h"
#include "src/base/compiler.h"
#include "src/base/limits.h"
#include "src/base/text.h"
#include "src/core/node/node.h"
#include "src/host/data.h"
#include "src/host/host.h"
#include "src/host/ring/arena.h"
#include "src/host/ring/message.h"
#include "src/host/ring/ring.h"
#include "src/wire/address.h"
#include "src/wire/frame.h"

/* --- memory (memory.c) --- */

/* Before anything is allocated: how malloc deals with large blocks. */
void mp_host_memory_init(void);
/* So many bytes that were kept for long (deployed code, say) have been freed: now and then, what is
 * free between others is given back to the system. */
void mp_host_memory_freed(size_t size);
/* malloc with size classes kept for reuse; aborts never. One for the whole host. */
struct mp_alloc *mp_host_alloc(void);
/* malloc that ends the process when there is no memory. */
void *mp_xalloc(size_t size);

/* --- log (log.c) --- */

void mp_log_init(int level, bool is_json, const char *node);
bool mp_log_is_on(int level);
/* One line to stderr; `fields` is text that follows as it is (logfmt), or NULL. */
void mp_log(int level, const char *format, ...) MP_PRINTF(2, 3);
/* A line that a function wrote: its text is escaped, its origin told. */
void mp_log_function(int level, const char *fun, uint32_t worker, struct mp_slice message,
                     struct mp_slice fields_json);

/* --- modules (modules.c) --- */

#define MP_MODULE_FREE UINT32_MAX /* `unit` of a place that no module has */

enum mp_module_state { MP_MODULE_UNKNOWN, MP_MODULE_KNOWN, MP_MODULE_FAILED };

struct mp_host_module {
    uint32_t unit; /* 0: of the node's own files; else deployed, see units.h */
    char *name;
    char *path;      /* for messages of the log only; NULL if it was deployed */
    uint8_t *source; /* of a deployed one: in its unit's bytes */
    size_t source_size;
    char hash[65];
    enum mp_module_state state;
    struct mp_buf expected; /* names of its functions, once known */
};

struct mp_modules {
    struct mp_host_module *items;
    uint32_t own_count; /* the node's own, which come first */
    uint32_t count;
    uint32_t capacity;
};

/* Finds and reads module files below a file or folder; what cannot be read is logged and left out.
 * False if `path` itself is not there. */
bool mp_modules_add(struct mp_modules *m, const char *path);
void mp_modules_fini(struct mp_modules *m);
/* Makes room for `count` modules of a unit beside each other, in places that UNLOAD_UNIT freed or
 * behind all others; false if there is none. What is in the places is for the caller to fill. */
bool mp_modules_reserve(struct mp_modules *m, uint32_t count, uint32_t *first);
/* Frees the places of a unit's modules. */
void mp_modules_free_places(struct mp_modules *m, uint32_t first, uint32_t count);
/* Keeps the names of a module's functions in their order, for workers that load it later. */
void mp_module_keep_expected(struct mp_host_module *m, struct mp_slice metadata);
/* SHA-256; may be called from any thread. */
void mp_host_sha256(struct mp_slice bytes, uint8_t hash[MP_UNIT_HASH_BYTES]);

/* --- the host --- */

struct mp_host;

/* Bytes on their way out of a connection: own ones, or a shared block. */
struct mp_out_part {
    struct mp_out_part *next;
    const uint8_t *data;
    size_t size;
    size_t sent;
    uint64_t handle; /* of the block that data lies in; 0: own bytes */
    size_t capacity;
    uint8_t bytes[];
};

enum mp_conn_state {
    MP_CONN_UNDECIDED,  /* said nothing yet */
    MP_CONN_PREFACE,    /* its preface has not come whole */
    MP_CONN_CONNECTING, /* a dial: the socket is not connected yet */
    MP_CONN_GREETING,   /* a dial: our preface was sent, the other one has not come whole */
    MP_CONN_OPEN,
    MP_CONN_CLOSING
};

struct mp_conn {
    struct mp_host *host;
    uv_poll_t poll;
    int fd;
    uint32_t place;
    uint64_t number; /* place and generation: the node's `client` */
    enum mp_conn_state state;
    int watched; /* events that poll waits for */
    mp_time opened_at;
    struct mp_buf in; /* a frame that has not come whole */
    /* a frame that is read straight into a shared block */
    bool is_large;
    bool was_large; /* the last frame was */
    struct mp_frame_header large;
    uint64_t large_handle;
    uint8_t *large_data;
    size_t large_size;
    size_t large_got;
    uint64_t discard; /* bytes of a refused frame still to come */
    struct mp_out_part *out_first;
    struct mp_out_part *out_last;
    size_t out_bytes;
    size_t answer_bytes; /* of what was appended since all was written: not messages of topics */
    uint32_t in_flight;  /* requests that are not answered yet, without subscriptions */
    uint64_t *subscriptions; /* their ids, in order */
    uint32_t subscription_count;
    uint32_t subscription_capacity;
    bool is_dirty;   /* on the list of connections to write */
    bool is_blocked; /* writes wait for the socket */
    bool is_paused;  /* not read: too many answers on their way out */
    bool is_starved; /* not read: no shared block for its frame now */
    bool is_closing_after_write;
    bool is_dialled; /* this node began it */
    bool is_link;    /* HELLO was sent or received: the other side is a node */
    bool is_high;    /* the machine was told that more is unsent than should be */
    struct mp_conn *next_dirty;
    /* of a dial under way */
    uint64_t dial;
    mp_time dial_until;
    const char *dial_why; /* of its failure; static */
    struct mp_conn *next_dial;
};

struct mp_sent {
    uint64_t call;
    uint64_t position; /* of its record in the ring */
    struct mp_ring_record *record;
    uint64_t block; /* in the host's arena, taken for this attempt; MP_ARENA_NONE */
    uint32_t worker;
};

/* A LOAD that was sent to a worker. */
struct mp_load {
    uint32_t module;
    uint64_t serial; /* of the unit, see units.c; 0: the node's own files */
};

struct mp_worker_process {
    struct mp_host *host;
    uint32_t place;
    uint64_t incarnation; /* place and generation */
    bool is_ready;
    bool is_dirty;         /* its ring has something unpublished */
    uv_process_t *process; /* freed by libuv's close, which may outlive the worker */
    struct mp_channel channel;
    int wake_fd;
    uint32_t arena;        /* its place in the host's list of arenas */
    struct mp_load *loads; /* that it has not answered, in order */
    uint32_t load_count;
    uint32_t load_capacity;
    uint32_t units_given;  /* units in places below that were sent to it, while it is not fed */
    bool is_fed;           /* it got all units and all releases that there were when it started */
    struct mp_buf pending; /* messages that its ring had no room for */
    bool is_killed_for_load;
    bool has_broken_rules; /* was told, and killed for it */
};

/* The arena of a worker, read here. Answers may point into it after the worker is gone. */
struct mp_worker_arena {
    struct mp_arena_view view;
    struct mp_worker_process *worker; /* NULL: it is gone */
    uint32_t users;                   /* blocks that are still in use here */
};

/* A block of the host's arena that one worker reads. */
struct mp_lent {
    uint64_t at;
    uint64_t incarnation;
};

struct mp_session;
struct mp_store;
struct mp_units;
struct mp_checks;

struct mp_host {
    const struct mp_host_config *cfg;
    struct mp_node *node;
    uv_loop_t loop;
    uv_poll_t listener;
    int listen_fd;
    uv_timer_t timer;
    uv_signal_t signals[2];
    uv_poll_t wake;
    int wake_fd;
    mp_time now;
    mp_time timer_at;               /* when `timer` fires; MP_NEVER */
    char addr[MP_ADDRESS_TEXT_MAX]; /* that it listens on */
    int family;                     /* of that: AF_INET or AF_INET6 */
    bool is_any;                    /* it is a wildcard */
    struct mp_address reach;        /* as others reach it */
    char reach_text[MP_ADDRESS_TEXT_MAX];
    struct mp_udp *udp;
    struct mp_data *data;
    struct mp_store *store;
    struct mp_units *units;
    struct mp_checks *checks;
    struct mp_seeds *seeds;
    struct mp_buf facts;        /* see mp_workers_facts */
    struct mp_conn *dial_first; /* under way, the oldest first */
    struct mp_conn *dial_last;
    struct mp_modules modules;
    uint64_t describer; /* incarnation that describes modules; UINT64_MAX: none */
    struct mp_arena *arena;
    int arena_fd;
    struct mp_worker_process *workers[MP_POOL_WORKERS_MAX];
    uint32_t worker_count; /* places used so far */
    uint32_t workers_alive;
    struct mp_session *sessions;
    uint32_t session_count;
    struct mp_worker_arena *arenas;
    uint32_t arena_count;
    struct mp_buf published; /* by functions: an array of [topic, data], see workers_in.c */
    uint32_t published_count;
    uint64_t incarnations;
    struct mp_lent *lent;
    uint32_t lent_count;
    uint32_t lent_capacity;
    struct mp_sent *sent; /* by the low half of the call's number */
    uint32_t sent_capacity;
    struct mp_conn **conns;
    uint32_t *conn_generations;
    uint32_t conn_capacity;
    uint32_t conn_count;
    uint32_t conn_undecided;
    uint32_t conn_starved;
    bool is_accept_stopped; /* no descriptor was left; goes on when a connection closes */
    struct mp_conn *dirty;
    struct mp_out_part *spare_parts;
    uint32_t spare_part_count;
    uint8_t *read_buffer;
    uint32_t yields_left;         /* in this turn, see mp_host_give_way */
    struct mp_node_event *events; /* that came up while effects were carried out */
    uint32_t event_count;
    uint32_t event_capacity;
    bool is_stepping;
    /* spinning */
    mp_duration spin;
    mp_time hog_until; /* no spinning before: somebody computes on this core */
    mp_duration hog_pause;
    uint32_t sleeps_since_hit;
    uint32_t short_sleeps;
    bool had_input;
    bool is_ready_told;
    bool is_draining;
    bool is_drained; /* but for sessions */
    bool is_over;
    mp_time drain_at;
    int exit_code;
};

/* Handles of shared blocks: the host's arena, or a worker's. 0 is none. */
#define MP_HANDLE_HOST   (1ull << 62)
#define MP_HANDLE_WORKER (1ull << 63)

/* host.c */
/* Unix time in milliseconds. */
int64_t mp_host_wall_ms(void);
#define YIELDS_A_TURN 16
/* Lets the other side of a large transfer run, which usually makes room (or bytes) for us: cheaper
 * than asking the kernel to wake us. False when this turn has given way often enough, or when
 * somebody else computes on this core. */
bool mp_host_give_way(struct mp_host *h);
mp_time mp_host_clock(void);
/* Each callback of the loop calls this first: the first of a turn reads the clock, since the loop
 * may have slept for long since it was last read. */
void mp_host_woken(struct mp_host *h);
/* Takes one event through the node and carries out what it wants. */
void mp_host_step(struct mp_host *h, const struct mp_node_event *ev);
/* The same for an event with borrowed bytes: never while effects are carried out. */
void mp_host_tell(struct mp_host *h, const struct mp_node_event *ev);
void mp_host_release(struct mp_host *h, uint64_t handle);

/* listen.c */
/* Binds TCP and UDP and works out what others are told; why not is logged. */
bool mp_net_listen(struct mp_host *h);
/* From now on connections are taken; before, they wait in the kernel's queue. */
void mp_net_accept(struct mp_host *h);

/* net.c, net_out.c */
void mp_net_flush(struct mp_host *h);
struct mp_outgoing_frame {
    uint8_t type;
    uint64_t id;
    struct mp_slice meta;
    struct mp_slice payload;
    uint64_t handle; /* taken: released once written or dropped */
};

/* Appends an answer, or what comes before it, to a client's connection. */
void mp_net_reply(struct mp_host *h, uint64_t client, const struct mp_outgoing_frame *o);
/* Whole EVENT frames. */
void mp_net_events(struct mp_host *h, uint64_t client, struct mp_slice frames);
/* SEND_FRAME; as with a reply, the handle is taken. */
void mp_net_send_frame(struct mp_host *h, const struct mp_node_effect *e);
void mp_net_close(struct mp_host *h, uint64_t client);
void mp_net_goaway(struct mp_host *h);
/* Whether something is still on its way out of a connection. */
bool mp_net_has_unsent(const struct mp_host *h);
void mp_net_housekeeping(struct mp_host *h);
/* Lets connections read on that waited for a shared block. */
void mp_net_feed_starved(struct mp_host *h);
/* Takes no more connections, and closes those that are there. */
void mp_net_close_all(struct mp_host *h);

/* dial.c */
/* Begins a connection to another node; DIALED follows, never from inside this call. */
void mp_dial(struct mp_host *h, uint64_t dial, const struct mp_address *addr);
/* Gives up the dials that took too long. */
void mp_dial_check(struct mp_host *h);
mp_time mp_dial_deadline(const struct mp_host *h);

/* udp.c */
/* One socket at the address of the TCP listener. `errno` says why not. */
bool mp_udp_open(struct mp_host *h, const struct sockaddr *addr, uint32_t size);
/* From now on datagrams are taken. */
void mp_udp_start(struct mp_host *h);
/* Keeps a datagram until the end of the turn; what cannot be sent is dropped. */
void mp_udp_send(struct mp_host *h, const struct mp_address *to, struct mp_slice bytes);
void mp_udp_flush(struct mp_host *h);
void mp_udp_free(struct mp_host *h);

/* seeds.c */
/* Tells the machine where each --join points: numbers at once, names once they are resolved. */
void mp_seeds_start(struct mp_host *h);
/* Resolves again what is due. */
void mp_seeds_check(struct mp_host *h);
mp_time mp_seeds_deadline(const struct mp_host *h);
void mp_seeds_stop(struct mp_host *h);
/* Whether the resolver still works on a name; then the loop cannot end. */
bool mp_seeds_are_busy(const struct mp_host *h);
void mp_seeds_free(struct mp_host *h);

/* spawn.c */
/* Starts this program under another name, args[0], with nothing to read, the host's standard error
 * as both outputs and `fd` as descriptor 3. NULL: the log says why `what` could not be started. The
 * result's `data` is `context`; libuv's close of it frees it (mp_host_close_process). */
uv_process_t *mp_host_spawn(struct mp_host *h, const char *what, const char *const *args, int fd,
                            uv_exit_cb on_exit, void *context);
void mp_host_close_process(uv_process_t *process);

/* workers.c */
/* "SIGSEGV", or "a signal" for one that nobody knows. */
const char *mp_signal_name(int number);
/* Appends what the worker of that number (from 1) is told of its node: CONFIG's map in message.h.
 */
MP_MUST_USE enum mp_err mp_workers_put_config(const struct mp_host *h, uint32_t number,
                                              struct mp_buf *b);
void mp_workers_start(struct mp_host *h, uint32_t place);
void mp_workers_stop(struct mp_host *h, uint32_t place);
void mp_workers_kill(struct mp_host *h, uint32_t place);
void mp_workers_send(struct mp_host *h, const struct mp_node_effect *e);
void mp_workers_revoke(struct mp_host *h, uint32_t place, uint64_t call);
void mp_workers_cancel(struct mp_host *h, const struct mp_node_effect *e);
void mp_workers_result(struct mp_host *h, const struct mp_node_effect *e);
void mp_workers_probe(struct mp_host *h, uint32_t place);
/* Reads what workers sent; whether there was anything. */
bool mp_workers_drain(struct mp_host *h);
bool mp_workers_have_messages(struct mp_host *h);
void mp_workers_flush(struct mp_host *h);
/* Announces sleep on all rings; false if something came meanwhile. */
bool mp_workers_prepare_sleep(struct mp_host *h);
void mp_workers_wake(struct mp_host *h);
void mp_workers_check_loads(struct mp_host *h);
bool mp_workers_are_backed_up(const struct mp_host *h);
bool mp_workers_are_loading(const struct mp_host *h);
bool mp_workers_all_ready(const struct mp_host *h);
/* A MessagePack array with [pid, resident bytes] for each place, nil for an empty one; borrowed
 * until it is asked for again. Empty without memory. */
struct mp_slice mp_workers_facts(struct mp_host *h);
/* Gives back a block in a worker's arena. */
void mp_workers_release(struct mp_host *h, uint64_t handle);
void mp_workers_kill_all(struct mp_host *h);
