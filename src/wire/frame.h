/* Frames of the native protocol (docs/protocol.md is its specification, byte by byte).
 *
 * Each side first sends a preface of 8 bytes; its first byte is over 0x7f, which tells it apart
 * from HTTP and TLS on the same port. Then frames: a header of 16 bytes, a meta part (MessagePack,
 * small, read by the node) and a payload (MessagePack, opaque to the node). Integers are
 * little-endian. */
#pragma once

#include <stdbool.h>

#include "src/base/buf.h"
#include "src/base/compiler.h"
#include "src/base/err.h"
#include "src/base/limits.h"
#include "src/base/slice.h"

#define MP_PROTOCOL_VERSION   1
#define MP_PREFACE_BYTES      8
#define MP_FRAME_HEADER_BYTES 16

/* 0x9d 'm' 'p' 'r' 'g', version, flags (0), 0 */
#define MP_PREFACE_MAGIC       "\x9dmprg"
#define MP_PREFACE_MAGIC_BYTES 5

enum mp_frame_type {
    /* client -> node */
    MP_FRAME_CALL = 1,    /* meta [fun, timeout_ms, options]; payload: array of arguments */
    MP_FRAME_RUN = 2,     /* meta [options]; payload: a graph, or {pipeline, input} */
    MP_FRAME_CANCEL = 3,  /* id of a request of this connection; meta and payload empty */
    MP_FRAME_QUERY = 4,   /* meta [what, options]; payload depends on what */
    MP_FRAME_EVAL = 5,    /* meta [what, options]; payload: a text for the connection's session */
    MP_FRAME_PUBLISH = 6, /* payload: array of [topic, data] */
    MP_FRAME_SUBSCRIBE =
        7, /* meta [pattern, options]; EVENT, then MESSAGES, until it is cancelled */
    /* node -> client */
    MP_FRAME_RESULT = 16, /* the end of a request: its value */
    MP_FRAME_ERROR = 17,  /* the end of a request: an ERROR map; id 0: of the connection */
    MP_FRAME_EVENT = 18,  /* an event map; more frames with this id follow */
    MP_FRAME_GOAWAY = 19, /* id 0: the node is about to stop; requests in flight still end */
    MP_FRAME_MESSAGES =
        20, /* of one publisher, for a subscription; more frames with this id follow */
    /* node -> node (src/wire/peer.h has their meta parts) */
    MP_FRAME_HELLO = 32,   /* who one is: the first frame of each side of a link */
    MP_FRAME_REFUSED = 33, /* instead of HELLO; payload: an ERROR map. Then the link is closed */
    MP_FRAME_PING = 34,    /* are you there? */
    MP_FRAME_PONG = 35,
    MP_FRAME_SYNC = 36,    /* id: the stage, 1 to 7; payload: digests, or what differs */
    MP_FRAME_WANT = 37,    /* payload: a request for catalog entries and modules */
    MP_FRAME_HAVE = 38,    /* payload: what was wanted */
    MP_FRAME_FETCH = 39,   /* a part of a held result; RESULT or ERROR with the same id follows */
    MP_FRAME_RELEASE = 40, /* what was held for a run; RESULT follows */
    MP_FRAME_FORWARD = 41, /* a request for another node; its answer comes back the same way */
    MP_FRAME_RUNS = 42,    /* payload: the sender's runs that go on; id: whether it asks for such */
    MP_FRAME_STAGE = 43,   /* have a unit ready; payload: the unit, or nothing. RESULT or ERROR */
    MP_FRAME_SWITCH = 44,  /* payload: entries of the history, just made. RESULT or ERROR */
    MP_FRAME_CODE = 45,    /* a unit by its hash; RESULT with the unit, or ERROR */
    MP_FRAME_LIST = 46,    /* payload: what a release is; RESULT once calls of it may come */
    MP_FRAME_PUBLISHED = 47, /* messages of one publisher for whom they concern there; RESULT */
    MP_FRAME_BACKLOG = 48    /* what is kept of a pattern; RESULT with the messages */
};

struct mp_frame_header {
    uint32_t size; /* bytes after the header: meta and payload */
    uint8_t type;
    uint8_t flags; /* 0 in version 1; others are a protocol error */
    uint16_t meta_size;
    uint64_t id; /* chosen by the client, not 0, unique among its requests in flight */
};

void mp_preface_write(uint8_t out[MP_PREFACE_BYTES]);
/* MP_EAGAIN with too few bytes, MP_ECORRUPT for another magic; else the other side's version. */
MP_MUST_USE enum mp_err mp_preface_read(struct mp_slice bytes, uint8_t *version);

void mp_frame_write_header(uint8_t out[MP_FRAME_HEADER_BYTES], const struct mp_frame_header *h);
/* MP_EAGAIN with too few bytes; MP_ECORRUPT if meta is larger than the frame or flags are unknown;
 * MP_ETOOLARGE if size is over size_max (h is filled in, so the request can be answered by id). */
MP_MUST_USE enum mp_err mp_frame_read_header(struct mp_slice bytes, uint32_t size_max,
                                             struct mp_frame_header *h);
/* Appends a whole frame. */
MP_MUST_USE enum mp_err mp_frame_put(struct mp_buf *b, uint8_t type, uint64_t id,
                                     struct mp_slice meta, struct mp_slice payload);

/* What a caller may ask of a call, in the options map of CALL: {needs: [..], version, on, cluster,
 * retries, wait}. Slices are borrowed from the bytes that were read. */
struct mp_call_options {
    struct mp_slice fun;
    uint64_t timeout_ms;     /* 0: the node's default */
    struct mp_slice version; /* constraint; empty: none */
    struct mp_slice on;      /* node; empty: any */
    struct mp_slice cluster; /* empty: this one */
    uint32_t retries;
    bool is_waiting; /* queue for a provider instead of failing at once */
    uint32_t needs_count;
    struct mp_slice needs[MP_NEEDS_MAX]; /* the first needs_count are set */
};

/* Reads a CALL's meta. On MP_EINVAL, the only failure, `*why` is a static English text that names
 * the field. Unknown options are an error: a misspelt one must not be passed over. */
MP_MUST_USE enum mp_err mp_call_options_read(struct mp_slice meta, struct mp_call_options *o,
                                             const char **why);
MP_MUST_USE enum mp_err mp_call_options_put(struct mp_buf *b, const struct mp_call_options *o);
/* Reads only an options map (as nested calls carry it, with timeout_ms inside) into options that
 * are zeroed; empty: all stay as they are. */
MP_MUST_USE enum mp_err mp_call_options_read_map(struct mp_slice map, struct mp_call_options *o,
                                                 const char **why);

/* Options of RUN, [{timeout_ms, trace, follow, detach, topic}]; QUERY "plan" has none. `topic` is
 * borrowed from the bytes that were read. */
struct mp_run_options {
    uint64_t timeout_ms;
    bool has_trace;        /* levels in the run object */
    bool has_events;       /* EVENT frames */
    bool is_detached;      /* RESULT {run_id} at once; the run outlives the connection */
    struct mp_slice topic; /* that events are published to as well; empty: none */
};

MP_MUST_USE enum mp_err mp_run_options_read(struct mp_slice meta, struct mp_run_options *o,
                                            const char **why);
MP_MUST_USE enum mp_err mp_run_options_put(struct mp_buf *b, const struct mp_run_options *o);

/* Options of SUBSCRIBE, [pattern, {since_ms, queue}]. */
struct mp_subscribe_options {
    struct mp_slice pattern; /* a text; whether it is a pattern is not looked at */
    uint64_t since_ms;       /* messages of the time from so long ago come first; 0: none */
    uint64_t queue;          /* messages that may wait for the subscriber; 0: the node's bound */
};

MP_MUST_USE enum mp_err mp_subscribe_options_read(struct mp_slice meta,
                                                  struct mp_subscribe_options *o, const char **why);
MP_MUST_USE enum mp_err mp_subscribe_options_put(struct mp_buf *b,
                                                 const struct mp_subscribe_options *o);
