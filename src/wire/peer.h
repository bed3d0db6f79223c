/* What nodes say to each other over links: the meta parts of the frames that only peers send
 * (docs/protocol.md, part two). All are MessagePack arrays whose elements stand in a fixed order;
 * further elements are passed over, so that a later version may add some. Readers never allocate;
 * slices are borrowed from the bytes that were read. */
#pragma once

#include <stdbool.h>

#include "src/base/buf.h"
#include "src/base/compiler.h"
#include "src/base/err.h"
#include "src/base/limits.h"
#include "src/base/slice.h"
#include "src/wire/address.h"

/* [cluster, name, generation, address, flags, program version] */
struct mp_peer_hello {
    struct mp_slice cluster;
    struct mp_slice name;
    uint64_t generation;
    struct mp_address addr;
    uint8_t flags; /* as in core/membership */
    struct mp_slice version;
};

/* A call on its way to the node that shall run it:
 * [function, remaining ns, version, [needs], attempt, depth, context, flags, run, coordinator,
 * release] */
#define MP_PEER_MAY_HOLD  1u /* a large result may stay there, for `run` of the sender */
#define MP_PEER_HAS_HOLES 2u /* its arguments have parts that are held elsewhere */
#define MP_PEER_IS_NESTED 4u /* a function waits for it */

struct mp_peer_call {
    struct mp_slice fun;
    uint64_t remaining_ns;
    struct mp_slice version; /* exact; empty: any */
    uint32_t needs_count;
    struct mp_slice needs[MP_NEEDS_MAX];
    uint32_t attempt;
    uint32_t depth;
    struct mp_slice context; /* one value, or empty */
    uint32_t flags;
    uint64_t run;
    struct mp_slice coordinator; /* of the run; empty: it is no step */
    struct mp_slice release;     /* its id, MP_RELEASE_BYTES; empty or left out: nothing is deployed
                                    in it */
};

/* How it went, in the meta part of its RESULT or ERROR:
 * [load, queue ns, run ns, worker, flags, held, held bytes, moved bytes] */
#define MP_PEER_HAS_BEGUN  1u  /* its function was entered */
#define MP_PEER_NOT_HERE   2u  /* refused before anything began: another node may do it */
#define MP_PEER_IS_HELD    4u  /* the result stayed there; the payload is its $large form */
#define MP_PEER_IS_LOST    8u  /* a helper on the way lost it, through no fault of its own */
#define MP_PEER_NO_RELEASE 16u /* with NOT_HERE: its release is not known there; LIST tells it */
#define MP_PEER_IS_UNSURE  32u /* something below it may still run, where nobody can look */

struct mp_peer_answer {
    uint32_t load; /* calls outstanding on the node that answers */
    uint64_t queue_ns;
    uint64_t run_ns;
    uint32_t worker; /* from 1; 0: none */
    uint32_t flags;
    uint64_t held;
    uint64_t held_bytes;
    uint64_t moved; /* bytes that were fetched from other nodes for it */
};

/* A request that travels through another node: [target, [nodes passed], inner type, inner meta] */
struct mp_peer_forward {
    struct mp_slice target;
    uint32_t passed_count;
    struct mp_slice passed[MP_RELAY_NODES_MAX];
    uint8_t type;
    struct mp_slice meta;
};

/* [held, path], or [held, path, 1] */
struct mp_peer_fetch {
    uint64_t held;
    struct mp_slice path;
    bool is_late; /* also if it has been released, and has not been let go of yet */
};

/* [run, coordinator]: by name, since it may have come through another node */
struct mp_peer_release {
    uint64_t run;
    struct mp_slice coordinator;
};

/* [unit's hash, flags, epoch, expect]: of a unit that is about to be live. */
#define MP_STAGE_IS_DEPLOY 1u /* what CONTRACT §7 says of versions is checked */
#define MP_STAGE_IS_FORCED 2u
#define MP_STAGE_IS_EMPTY                                                                          \
    4u /* there is nothing to load: an undeploy, which asks the clocks alone */

struct mp_peer_stage {
    struct mp_slice unit;
    uint32_t flags;
    uint64_t epoch;         /* about what its entries will have */
    struct mp_slice expect; /* as in core/deploy */
};

/* [unit's hash] */
struct mp_peer_code {
    struct mp_slice unit;
};

/* [publisher, dropped, after_seq, generation]: of PUBLISHED, and without the last of MESSAGES,
 * which goes to clients. The payload is an array of [topic, seq, at, data], which may be empty if
 * messages were dropped. */
struct mp_peer_messages {
    struct mp_slice publisher; /* the node that accepted them */
    uint64_t dropped;          /* so many were lost right before the first one here, */
    uint64_t after_seq;        /* and after the one of that number */
    uint64_t generation;       /* of the publisher's boot; 0: it is left out */
};

/* [pattern, since, asker]: what the node has kept of what it accepted itself. It also takes the
 * asker to be interested in the pattern for a while. By name, as in PUBLISHED: the request may have
 * come through another node. */
struct mp_peer_backlog {
    struct mp_slice pattern; /* a text; whether it is a pattern is not looked at */
    uint64_t since_ms;       /* Unix time */
    struct mp_slice asker;
};

/* [upto]: in the answer to BACKLOG. What has a higher number comes as PUBLISHED. */
struct mp_peer_upto {
    uint64_t seq;
};

MP_MUST_USE enum mp_err mp_peer_messages_put(struct mp_buf *b, const struct mp_peer_messages *m);
MP_MUST_USE enum mp_err mp_peer_messages_read(struct mp_slice meta, struct mp_peer_messages *m);
MP_MUST_USE enum mp_err mp_peer_backlog_put(struct mp_buf *b, const struct mp_peer_backlog *q);
MP_MUST_USE enum mp_err mp_peer_backlog_read(struct mp_slice meta, struct mp_peer_backlog *q);
MP_MUST_USE enum mp_err mp_peer_upto_put(struct mp_buf *b, const struct mp_peer_upto *u);
MP_MUST_USE enum mp_err mp_peer_upto_read(struct mp_slice meta, struct mp_peer_upto *u);
MP_MUST_USE enum mp_err mp_peer_stage_put(struct mp_buf *b, const struct mp_peer_stage *s);
MP_MUST_USE enum mp_err mp_peer_stage_read(struct mp_slice meta, struct mp_peer_stage *s);
MP_MUST_USE enum mp_err mp_peer_code_put(struct mp_buf *b, const struct mp_peer_code *c);
MP_MUST_USE enum mp_err mp_peer_code_read(struct mp_slice meta, struct mp_peer_code *c);

MP_MUST_USE enum mp_err mp_peer_hello_put(struct mp_buf *b, const struct mp_peer_hello *h);
MP_MUST_USE enum mp_err mp_peer_call_put(struct mp_buf *b, const struct mp_peer_call *c);
MP_MUST_USE enum mp_err mp_peer_answer_put(struct mp_buf *b, const struct mp_peer_answer *a);
MP_MUST_USE enum mp_err mp_peer_forward_put(struct mp_buf *b, const struct mp_peer_forward *f);
MP_MUST_USE enum mp_err mp_peer_fetch_put(struct mp_buf *b, const struct mp_peer_fetch *f);
MP_MUST_USE enum mp_err mp_peer_release_put(struct mp_buf *b, const struct mp_peer_release *r);
/* MP_ECORRUPT for anything else than what the writer would write. */
MP_MUST_USE enum mp_err mp_peer_hello_read(struct mp_slice meta, struct mp_peer_hello *h);
MP_MUST_USE enum mp_err mp_peer_call_read(struct mp_slice meta, struct mp_peer_call *c);
MP_MUST_USE enum mp_err mp_peer_answer_read(struct mp_slice meta, struct mp_peer_answer *a);
MP_MUST_USE enum mp_err mp_peer_forward_read(struct mp_slice meta, struct mp_peer_forward *f);
MP_MUST_USE enum mp_err mp_peer_fetch_read(struct mp_slice meta, struct mp_peer_fetch *f);
MP_MUST_USE enum mp_err mp_peer_release_read(struct mp_slice meta, struct mp_peer_release *r);
