/* Which version of each deployed module is live, and how it came to that: the history of all
 * deploys, rollbacks and undeploys, the same on every node in the end.
 *
 * An entry is one change of one module. It is never altered, and entries are never dropped: merging
 * is the union of two sets, so it commutes. They are ordered by (epoch, node): the epoch is the
 * stamp of a hybrid logical clock (Kulkarni et al., "Logical Physical Clocks", 2014, §3), in one
 * number: Unix time in ms * 1024 + a count, so that it is exact in a double until the year 2248.
 * The last entry of a module is what is live. An entry names its parent, the last entry of the
 * module that its maker knew. So everybody sees of two entries whether the later one was made by
 * somebody who knew the earlier one: an entry is overtaken if a later one has a parent that is
 * earlier than it. (If an entry between them is the parent, that one's maker knew it or overtook
 * it.)
 *
 * An entry may be for some nodes only (a trial: `only` or `skip`). What is live on a node is the
 * last entry in whose scope it is. A parent is the last one known in whatever scope: who deploys to
 * all nodes and knows of a trial elsewhere does not overtake it.
 *
 * Modules that were deployed as one unit have entries of their own with one epoch. A pipeline is
 * deployed like a module, but has a space of names of its own: a module may have the same name. */
#pragma once

#include <stdbool.h>

#include "src/base/alloc.h"
#include "src/base/buf.h"
#include "src/base/compiler.h"
#include "src/base/err.h"
#include "src/base/limits.h"
#include "src/base/map.h"
#include "src/base/slice.h"
#include "src/base/text.h"
#include "src/wire/error.h"

enum mp_deploy_action { MP_DEPLOY_DEPLOY, MP_DEPLOY_ROLLBACK, MP_DEPLOY_UNDEPLOY };
enum mp_deploy_scope { MP_DEPLOY_EVERYWHERE, MP_DEPLOY_ONLY, MP_DEPLOY_SKIP };

/* What tells one entry of a module from another. */
struct mp_deploy_stamp {
    uint64_t epoch; /* 0: none */
    struct mp_slice node;
};

/* An entry. On the wire and in the store it is an array of these, in this order, each stamp as two
 * elements; all slices are borrowed. */
struct mp_deploy_entry {
    struct mp_slice module; /* its name, or a pipeline's */
    struct mp_deploy_stamp stamp;
    enum mp_deploy_action action;
    bool is_pipeline;
    bool is_forced;
    struct mp_slice version; /* with "+" and 8 digits of the hash where CONTRACT §7 wants it; empty:
                                UNDEPLOY */
    struct mp_slice hash;    /* 32 bytes: SHA-256 of the module's source; empty: UNDEPLOY */
    struct mp_slice unit;    /* 32 bytes: of the unit that it came in; empty: UNDEPLOY */
    uint32_t place;          /* in the unit */
    struct mp_deploy_stamp parent; /* the last entry of the module that its maker knew */
    struct mp_slice previous;      /* hash of what was live at its maker; empty: nothing was */
    struct mp_deploy_stamp origin; /* of ROLLBACK: the DEPLOY that is live again; else none */
    struct mp_slice by;            /* who asked, for people: "user@host"; at most 128 bytes */
    enum mp_deploy_scope scope;
    struct mp_slice nodes; /* of ONLY and SKIP: an array of 1 to 64 names; else empty */
};

struct mp_deploy_config {
    struct mp_slice node; /* copied */
    uint64_t defects;
};

enum mp_deploy_event_kind {
    MP_DEPLOY_ENTRIES,  /* entries: an array of entries, of whom ever */
    MP_DEPLOY_RESTORED, /* the same, of this node's own store: no clock is asked, nothing to keep */
};

struct mp_deploy_event {
    enum mp_deploy_event_kind kind;
    int64_t wall_ms; /* Unix time here */
    struct mp_slice entries;
};

/* What an ENTRIES or RESTORED step did. */
struct mp_deploy_effects {
    bool is_changed;       /* what is live here is something else now */
    uint32_t new_count;    /* entries that were not known */
    struct mp_slice fresh; /* of ENTRIES: they alone, as an array, to be kept; empty if there are
                              none; valid until the next step */
    uint32_t ahead_count;  /* refused: their epoch is over 10 s ahead of wall_ms */
    uint64_t ahead_epoch;  /* the highest of them */
    const char *dropped;   /* why some entry was malformed or over a limit; static, or NULL */
};

struct mp_deploy;

MP_MUST_USE enum mp_err mp_deploy_new(struct mp_deploy **own_out,
                                      const struct mp_deploy_config *cfg, struct mp_alloc *a);
/* MP_ENOMEM: some entries may have been taken in (fresh says which); the rest comes again. Known
 * entries change nothing. An entry whose stamp is known with other contents is dropped. */
MP_MUST_USE enum mp_err mp_deploy_step(struct mp_deploy *d, const struct mp_deploy_event *ev,
                                       struct mp_deploy_effects *out);
void mp_deploy_free(struct mp_deploy *d);

/* --- making a change --- */

/* One module of a deploy that is asked for. */
struct mp_deploy_wish {
    struct mp_slice module;
    struct mp_slice version; /* its _VERSION; empty: it has none */
    struct mp_slice hash;    /* 32 bytes */
    struct mp_slice unit;    /* 32 bytes */
    struct mp_slice expect;  /* hex digits that what is live here has to begin with, at least 8; or
                                "none": nothing is live; empty: anything */
    bool is_pipeline;
    bool is_forced;
};

/* Whether a deploy may be made, as far as this node knows. False: it may not, and `fault` says why,
 * for people; its texts lie in the two buffers, which are empty before.
 *
 *   INVALID_ARGUMENT/BAD_VERSION            its version is none, or too long
 *   INVALID_ARGUMENT/BAD_OPTION             `expect` is neither digits nor "none"
 *   RESOURCE_EXHAUSTED/TOO_MANY_MODULES, HISTORY_FULL
 *   FAILED_PRECONDITION/EXPECTATION_FAILED  something else is live (both are named)
 *   ALREADY_EXISTS/VERSION_REUSED           an entry of the module has that version, another hash
 *   FAILED_PRECONDITION/VERSION_LOWER       than the live one
 *
 * The last two are not asked of a forced one, nor of the very content that is live already. */
bool mp_deploy_is_allowed(const struct mp_deploy *d, const struct mp_deploy_wish *w,
                          struct mp_fault *fault, struct mp_text *message, struct mp_text *hint);
/* The version that it gets: its own, with "+" and 8 hex digits if it is forced or has none ("0.0.0"
 * then); behind a "+" of its own they follow a ".". `room` is empty, with a capacity of more than
 * MP_VERSION_BYTES_MAX. MP_EINVAL: too long, or no version. */
MP_MUST_USE enum mp_err mp_deploy_version(const struct mp_deploy_wish *w, struct mp_text *room);
/* The next stamp's epoch: higher than that of every entry known, and at least the wall clock. */
uint64_t mp_deploy_next_epoch(const struct mp_deploy *d, int64_t wall_ms);
/* Fills in what a new entry of e->module (and e->is_pipeline) says of what was before: parent and
 * previous. Pointers are into the machine. */
void mp_deploy_set_parent(const struct mp_deploy *d, struct mp_deploy_entry *e);
/* What ROLLBACK of a module would make live again: what was live here before the deploy that is
 * live now was made (one further back each time: `origin` of a rollback is followed), or, with
 * `version` (a constraint as for calls), the latest other deploy that matches. After an UNDEPLOY:
 * what that took away. It is always a DEPLOY, whose stamp is the `origin` to be named; pointers are
 * into the machine. False: FAILED_PRECONDITION/NO_PREVIOUS, FAILED_PRECONDITION/NO_VERSION (with
 * those there are), INVALID_ARGUMENT/BAD_OPTION (no constraint), or NOT_FOUND/UNKNOWN_MODULE with
 * the nearest name as the hint. */
bool mp_deploy_rollback_target(const struct mp_deploy *d, struct mp_slice name,
                               struct mp_slice version, struct mp_deploy_entry *target,
                               struct mp_fault *fault, struct mp_text *message,
                               struct mp_text *hint);
/* The pipeline of the same name as a target that is a module, or the other way round, that was
 * deployed together with it and is not live now: it goes back with it. */
bool mp_deploy_rollback_partner(const struct mp_deploy *d, const struct mp_deploy_entry *target,
                                struct mp_deploy_entry *partner);
/* Appends an entry. MP_EINVAL, and nothing is appended: one that the reader would not read. */
MP_MUST_USE enum mp_err mp_deploy_put_entry(struct mp_buf *out, const struct mp_deploy_entry *e);
/* MP_ECORRUPT for anything else than what the writer writes. */
MP_MUST_USE enum mp_err mp_deploy_read_entry(struct mp_slice bytes, struct mp_deploy_entry *e);

/* --- asking --- */

/* The entry that is live here, also an UNDEPLOY; false: it was never deployed. */
bool mp_deploy_find(const struct mp_deploy *d, struct mp_slice name, bool is_pipeline,
                    struct mp_deploy_entry *e);
/* Live modules and pipelines here in ascending order of name (its bytes), a module before the
 * pipeline of its name, without those that are undeployed; false at the end. */
bool mp_deploy_live_at(const struct mp_deploy *d, uint32_t index, struct mp_deploy_entry *e);
uint32_t mp_deploy_live_count(const struct mp_deploy *d);
/* Whether there is an entry of the module with that stamp. */
bool mp_deploy_knows(const struct mp_deploy *d, struct mp_slice module, bool is_pipeline,
                     const struct mp_deploy_stamp *stamp);
/* Whether a node is in an entry's scope. */
bool mp_deploy_is_in_scope(const struct mp_deploy_entry *e, struct mp_slice node);
/* The document of `history`, of the module and the pipeline of a name: {"module", "entries":
 * [{epoch, at (Unix ms), action, kind: module|pipeline, version, hash (hex; both nil of an
 * undeploy), previous (hex or nil), by, node, state: live|superseded|overtaken, scope: only|skip
 * and nodes if it is not for all}]}, the newest first. `live` is the entry that counts here.
 * MP_ENOENT: neither was ever deployed. */
MP_MUST_USE enum mp_err mp_deploy_put_history(const struct mp_deploy *d, struct mp_slice name,
                                              struct mp_buf *out);
/* Whether an entry of the module was overtaken that was made in the day before `wall_ms`: `modules`
 * marks it so. */
bool mp_deploy_is_overtaken_lately(const struct mp_deploy *d, struct mp_slice name,
                                   bool is_pipeline, int64_t wall_ms);
/* Whether this very entry is overtaken. */
bool mp_deploy_is_overtaken(const struct mp_deploy *d, struct mp_slice name, bool is_pipeline,
                            const struct mp_deploy_stamp *stamp);

/* --- telling other nodes --- */

/* A sum over all entries that does not depend on their order; 0 without any. */
uint64_t mp_deploy_digest(const struct mp_deploy *d);
/* Appends what somebody else needs to tell what differs: an array of [module, digest] in ascending
 * order of the names. */
MP_MUST_USE enum mp_err mp_deploy_put_summary(const struct mp_deploy *d, struct mp_buf *out);
/* Appends, as one array, all entries of modules of which `summary` (of another node) has another
 * digest or none, about `bytes_max` at most but always whole modules and at least one; MP_ENOENT if
 * there is nothing that the other one lacks, MP_ECORRUPT. *differs: the other one may have entries
 * that are not here. */
MP_MUST_USE enum mp_err mp_deploy_put_differences(const struct mp_deploy *d,
                                                  struct mp_slice summary, size_t bytes_max,
                                                  struct mp_buf *out, bool *differs);
