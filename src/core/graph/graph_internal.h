/* What the files of the graph machine share; nobody outside this folder includes it.
 *
 * A graph is loaded into flat arrays: steps, template pieces, edges. Names, paths and literal parts
 * of templates are slices of the graph's own bytes, which the driver keeps until the machine's end.
 */
#pragma once

#include "src/base/assert.h"
#include "src/base/heap.h"
#include "src/base/limits.h"
#include "src/base/map.h"
#include "src/base/rng.h"
#include "src/core/graph/graph.h"
#include "src/core/graph/out.h"
#include "src/wire/msgpack.h"

#define MP_GRAPH_NONE  UINT32_MAX
#define MP_GRAPH_INPUT (UINT32_MAX - 1) /* target of a reference to the run's input */

/* --- templates --- */

enum mp_graph_piece_kind {
    MP_GRAPH_PIECE_RAW,
    MP_GRAPH_PIECE_REF,
    MP_GRAPH_PIECE_ITEM,
    MP_GRAPH_PIECE_INDEX,
    MP_GRAPH_PIECE_HOLE /* only in bound templates: a reference to a held result */
};

/* A template is a run of pieces; building the value is writing them one after the other. The pieces
 * of a reference's default follow it, and are passed over when the reference holds. */
struct mp_graph_piece {
    enum mp_graph_piece_kind kind;
    uint32_t step;          /* REF, HOLE: its target, or MP_GRAPH_INPUT */
    uint32_t default_count; /* REF: pieces of its default */
    bool has_default;
    struct mp_slice text; /* RAW: bytes; ITEM: path; REF, HOLE: path after the step's name */
};

struct mp_graph_range {
    uint32_t first;
    uint32_t count;
};

struct mp_graph_pieces {
    struct mp_graph_piece *items; /* NULL if there are none */
    uint32_t count;
    uint32_t capacity;
};

/* The pieces of a range, borrowed: valid until more are compiled. */
static inline struct mp_graph_pieces mp_graph_pieces_of(const struct mp_graph_pieces *all,
                                                        struct mp_graph_range range)
{
    return (struct mp_graph_pieces){.items = range.count != 0 ? all->items + range.first : NULL,
                                    .count = range.count};
}

/* Where a template stands decides which forms it may hold. */
enum mp_graph_place {
    MP_GRAPH_PLACE_ARGS,      /* references */
    MP_GRAPH_PLACE_EACH_ARGS, /* references, $item, $index */
    MP_GRAPH_PLACE_VALUE,     /* `each`, `when`, `unless`: references */
    MP_GRAPH_PLACE_OUTPUT,    /* references, which make no edge */
    MP_GRAPH_PLACE_DATA       /* `input`, a default of `on_error`: $lit alone */
};

/* What a template is bound for: what becomes of references to results that are held elsewhere, and
 * to skipped steps. */
enum mp_graph_bind {
    MP_GRAPH_BIND_VALUE, /* nothing that it reads may be held */
    MP_GRAPH_BIND_ARGS,  /* references to held results become holes */
    MP_GRAPH_BIND_OUTPUT /* as VALUE; a skipped step is null */
};

/* Why a template could not be built. */
struct mp_graph_miss {
    bool is_skipped; /* the referred step was skipped; else a field is missing */
    uint32_t step;   /* as in the piece; MP_GRAPH_NONE: $item */
    struct mp_slice path;
    size_t path_at;         /* where in `path` the field that is missing stands */
    struct mp_slice inside; /* the value that lacks it */
};

/* --- steps --- */

enum mp_graph_state {
    MP_GRAPH_PENDING,
    MP_GRAPH_READY, /* its inputs are there; shown as pending */
    MP_GRAPH_ACTIVE,
    MP_GRAPH_DONE,
    MP_GRAPH_BROKEN,
    MP_GRAPH_SKIPPED,
    MP_GRAPH_STOPPED,
    MP_GRAPH_LATE,
    MP_GRAPH_STATES
};

enum mp_graph_on_error {
    MP_GRAPH_ON_ERROR_FAIL,
    MP_GRAPH_ON_ERROR_SKIP,
    MP_GRAPH_ON_ERROR_DEFAULT
};

/* Why a step was skipped. */
enum mp_graph_because {
    MP_GRAPH_BECAUSE_NONE,
    MP_GRAPH_BECAUSE_WHEN,
    MP_GRAPH_BECAUSE_UNLESS,
    MP_GRAPH_BECAUSE_INPUT,   /* it refers to a skipped step */
    MP_GRAPH_BECAUSE_FAILURE, /* it depends on a failed step */
    MP_GRAPH_BECAUSE_ERROR    /* its own error, on_error = "skip" */
};

/* An edge: the step at the other end, with what the dependence is in the top bits. */
#define MP_GRAPH_EDGE_STRICT 0x80000000u /* a reference without a default: skipping passes on */
#define MP_GRAPH_EDGE_REF    0x40000000u /* a reference of any kind: the result is read */
#define MP_GRAPH_EDGE_STEP   0x3fffffffu

struct mp_graph_each;
struct mp_graph_tries;

struct mp_graph_step_record {
    /* as loaded */
    struct mp_slice name;
    struct mp_slice fun;
    struct mp_slice version_wanted;
    struct mp_slice on;
    struct mp_slice cluster;
    struct mp_graph_range needs;
    struct mp_graph_range args;
    struct mp_graph_range when;
    struct mp_graph_range unless;
    struct mp_graph_range each;
    struct mp_graph_range on_error_value;
    struct mp_graph_range deps;
    struct mp_graph_range dependents;
    mp_duration timeout; /* 0: none */
    mp_duration backoff;
    uint32_t retries;
    uint32_t concurrency; /* 0: by the providers' workers */
    uint32_t level;
    uint32_t workers;
    uint32_t plan_version; /* interned */
    uint32_t plan_node;
    enum mp_graph_on_error on_error;
    bool has_fault;
    bool is_resolved;
    bool has_each;
    bool is_referred;      /* by another step: not a leaf */
    bool is_output_needed; /* the output reads it */
    bool is_output_strict; /* and not only as a default */
    bool is_idempotent;
    bool is_refused; /* nobody can run it */
    bool is_preset;  /* its result was given: it counts as succeeded from the start */
    bool is_gone;    /* PRESET: the result itself was not kept */
    bool is_again;   /* it runs, whatever is preset for it */
    bool is_ebbing;  /* it is on the list of results that may be shrunk */
    /* as it runs */
    enum mp_graph_state state;
    enum mp_graph_because because;
    bool is_defaulted;
    bool is_queued;       /* in the ready queue */
    bool is_shrunk;       /* `result` is the $large form: the whole is gone */
    bool is_held;         /* `result` is the $large form: the whole is at `holder` */
    bool is_lost;         /* what `holder` had is lost */
    bool is_listed;       /* to be looked at again */
    bool is_blocked;      /* running: waits for a value before its next call */
    bool has_run;         /* a call of it began, as far as is known */
    bool has_failed;      /* stopped, but by its own error, which came after the cancel */
    uint32_t out;         /* calls whose answer is still to come */
    uint32_t unconfirmed; /* calls that may go on, though they were answered */
    uint32_t because_step;
    uint32_t waiting; /* inputs that have not ended */
    uint32_t readers; /* referring steps that have not ended */
    uint32_t ebb_next;
    uint32_t attempts;
    uint32_t retries_made;
    uint32_t version; /* interned: what ran */
    uint32_t node;
    uint32_t worker;
    uint32_t ended_seq; /* from 1, in the order of ending */
    uint32_t queue_next;
    uint32_t ended_next;
    uint32_t again_next;
    uint32_t parked; /* its call that waits for inputs, plus 1; 0: none */
    uint32_t reruns; /* because its result was lost */
    uint32_t holder; /* interned; of its result, 0: none */
    uint64_t held;   /* under which the holder has it */
    uint64_t held_bytes;
    uint64_t fetch;        /* that is under way; 0: none */
    uint32_t retries_told; /* events about elements */
    mp_time started_at;    /* MP_NEVER: not started */
    mp_time ended_at;
    mp_time ready_at;  /* until its first call is out; then MP_NEVER */
    mp_time handed_at; /* its last attempt, or its elements, or when its result was lost */
    mp_duration wait;  /* from ready to handed out */
    mp_duration retry; /* that went into failed attempts, and between them */
    struct mp_graph_timing timing;
    uint64_t bytes_in;
    uint64_t bytes_out;
    struct mp_slice result;       /* owned, unless it lies in the graph */
    struct mp_slice error;        /* owned */
    struct mp_graph_tries *tries; /* NULL until an attempt fails */
    struct mp_graph_each *items;
};

/* --- attempts --- */

struct mp_graph_try {
    uint32_t attempt;
    uint32_t index; /* element from 1, or 0 */
    uint32_t node;  /* interned */
    uint32_t worker;
    mp_time handed_at;
    struct mp_graph_timing timing;
    mp_duration delay;     /* until the next */
    struct mp_slice error; /* owned; empty: it succeeded */
    bool is_told;          /* an event needs it */
    uint32_t next_free;
};

/* Which of the machine's tries are the step's. */
struct mp_graph_tries {
    uint32_t count; /* of all that there were */
    uint32_t first[MP_GRAPH_TRIES_FIRST];
    uint32_t last[MP_GRAPH_TRIES_LAST]; /* a ring */
    struct mp_graph_timing timing;      /* of those of the step itself, not of elements */
};

/* One element's result while its step assembles them. */
struct mp_graph_item {
    size_t offset;
    uint32_t size;
    uint8_t state; /* enum mp_graph_item_state */
};

enum mp_graph_item_state {
    MP_GRAPH_ITEM_OPEN,
    MP_GRAPH_ITEM_DONE,
    MP_GRAPH_ITEM_DEFAULTED,
    MP_GRAPH_ITEM_SKIPPED,
    MP_GRAPH_ITEM_BROKEN
};

/* An element that has ended. */
struct mp_graph_element {
    uint32_t index; /* 0: none */
    uint32_t node;
    uint32_t worker;
    uint32_t attempts;
    mp_time began_at;
    mp_time ended_at;
    struct mp_graph_timing timing;
    mp_duration retry;
};

struct mp_graph_each {
    struct mp_buf list_bytes;     /* if the list had to be built */
    struct mp_mp_reader list;     /* at the next element */
    struct mp_graph_pieces args;  /* with its references filled in */
    struct mp_buf values;         /* results as they come */
    struct mp_graph_item *states; /* total entries */
    uint32_t total;
    uint32_t next; /* elements taken off the list */
    uint32_t active;
    uint32_t succeeded;
    uint32_t failed;
    uint32_t skipped;
    uint32_t retried;
    uint32_t told; /* progress events so far */
    uint32_t calls_first;
    struct mp_graph_element slowest;
    uint32_t *nodes; /* interned */
    uint32_t nodes_count;
    uint32_t nodes_capacity;
};

/* --- calls --- */

enum mp_graph_call_state {
    MP_GRAPH_CALL_FREE,
    MP_GRAPH_CALL_OUT,
    MP_GRAPH_CALL_PAUSED,  /* until its timer */
    MP_GRAPH_CALL_QUEUED,  /* for its next attempt */
    MP_GRAPH_CALL_PARKED,  /* its step waits for inputs that were lost */
    MP_GRAPH_CALL_FETCHED, /* an element that completed; its result is on its way */
    MP_GRAPH_CALL_DROPPED, /* nobody wants it, but it stands in the queue */
    MP_GRAPH_CALL_GIVEN_UP /* nobody wants the answer, which is still to come */
};

struct mp_graph_call {
    uint64_t invocation;
    enum mp_graph_call_state state;
    uint32_t step;
    uint32_t index; /* element from 1, or 0 */
    uint32_t attempt;
    uint32_t uncounted; /* attempts that the step's `retries` do not count */
    uint32_t losses;    /* of inputs that it could not get, or of its result */
    bool has_holes;
    uint32_t holder; /* of an element's result; interned */
    uint64_t fetch;
    uint32_t serial; /* of the machine's step that handed it out */
    uint32_t next;   /* free list, or queue for the next attempt */
    uint32_t list_prev;
    uint32_t list_next; /* calls of one `each` */
    struct mp_slice item;
    size_t args_bytes;
    mp_time handed_at; /* or when the last attempt failed; MP_NEVER before the first */
    mp_time deadline;
    /* of all its attempts: what an element shows if it is the slowest */
    mp_time began_at;
    struct mp_graph_timing timing;
    mp_duration retry;
    uint32_t node; /* interned; of the last */
    uint32_t worker;
};

/* --- what is told --- */

enum mp_graph_told_kind {
    MP_GRAPH_TOLD_RUN_STARTED,
    MP_GRAPH_TOLD_STEP_STARTED,
    MP_GRAPH_TOLD_STEP_SUCCEEDED,
    MP_GRAPH_TOLD_STEP_FAILED,
    MP_GRAPH_TOLD_STEP_SKIPPED,
    MP_GRAPH_TOLD_STEP_RETRIED,
    MP_GRAPH_TOLD_STEP_PROGRESS,
    MP_GRAPH_TOLD_LEVEL_COMPLETED,
    MP_GRAPH_TOLD_RUN_FINISHED
};

/* An event; its number is its place in the log, from 1. */
struct mp_graph_told {
    mp_time at;
    uint32_t step; /* or level */
    uint32_t a;    /* STEP_STARTED: elements; STEP_RETRIED: its try; STEP_PROGRESS: elements done;
                      LEVEL_COMPLETED: steps that succeeded before it */
    uint32_t b;    /* STEP_RETRIED: attempt; STEP_PROGRESS: elements */
    uint8_t kind;
};

/* --- faults of a graph --- */

struct mp_graph_fault_entry {
    uint32_t step; /* position; the graph's own come first, the output's last */
    bool is_resolver;
    size_t offset;
    size_t size;
};

enum mp_graph_phase {
    MP_GRAPH_PHASE_NEW,
    MP_GRAPH_PHASE_LOADED,
    MP_GRAPH_PHASE_RUNNING,
    MP_GRAPH_PHASE_OVER, /* the last effect is out; later answers are passed over */
    MP_GRAPH_PHASE_DEAD
};

enum mp_graph_mode { MP_GRAPH_GOING, MP_GRAPH_FAILING, MP_GRAPH_CANCELLING };

struct mp_graph {
    struct mp_alloc *alloc;
    struct mp_graph_config config;
    struct mp_buf own_names; /* the config's slices */
    struct mp_rng rng;
    enum mp_graph_phase phase;
    enum mp_graph_mode mode;
    enum mp_graph_status status;
    bool has_begun;
    mp_time now;
    uint32_t serial; /* of machine steps */

    /* the graph */
    struct mp_slice name;
    struct mp_slice input;
    struct mp_buf input_bytes; /* if it had to be built */
    struct mp_graph_step_record *steps;
    uint32_t count;
    struct mp_map by_name;
    struct mp_graph_pieces pieces;
    struct mp_slice *needs;
    uint32_t needs_count;
    uint32_t needs_capacity;
    uint32_t *edges; /* dependencies, step by step */
    uint32_t edges_count;
    uint32_t edges_capacity;
    uint32_t *dependents; /* the same edges turned round */
    uint32_t dependents_capacity;
    uint32_t *level_first; /* levels + 1 places in by_level */
    uint32_t *level_left;  /* steps of the level that neither succeeded nor were skipped */
    uint32_t *by_level;    /* steps by level, then in their order */
    uint32_t levels;
    struct mp_graph_range output;
    bool has_output;
    bool has_own_input;
    mp_duration timeout;
    uint32_t resolves_left;

    /* its faults */
    struct mp_graph_fault_entry *faults;
    uint32_t faults_count;
    uint32_t faults_capacity;
    uint32_t faults_dropped;
    struct mp_buf fault_bytes;
    uint32_t guesses_left;
    uint64_t defaults_left; /* bytes of defaults still to be passed over while compiling */

    /* the run */
    mp_time began_at;
    mp_time ended_at;
    mp_time deadline;       /* MP_NEVER: none */
    mp_time cancel_give_up; /* MP_NEVER unless cancelling */
    uint32_t counts[MP_GRAPH_STATES];
    uint32_t ended;
    uint32_t ends; /* counted on when a step runs again */
    uint32_t levels_done;
    uint32_t levels_undone; /* steps of such levels that run again */
    uint32_t done_before;   /* steps that succeeded in levels told so far */
    size_t kept_bytes;
    bool has_lost_results; /* dropped when memory ran out */
    struct mp_buf output_bytes;
    struct mp_slice error; /* owned; of the run */
    uint32_t ready_first;
    uint32_t ready_last;
    uint32_t ended_first; /* steps whose end has not been passed on */
    uint32_t ended_last;
    uint32_t ebb_first;   /* steps whose result is to be shrunk */
    uint32_t gone_rerun;  /* steps that run because their preset result is gone */
    uint32_t again_first; /* steps to be looked at again */
    uint32_t again_last;

    /* results that stay where they were made */
    bool has_held;  /* there was one */
    bool has_rerun; /* one was lost, and its step ran again */
    uint32_t fetches;
    uint32_t fetches_open;
    uint32_t holes;      /* put into arguments so far */
    uint32_t lost_input; /* of the step that was looked at last */
    uint64_t bytes_moved;
    struct mp_buf hole;

    /* calls */
    struct mp_graph_call *calls;
    uint32_t *timer_places;
    uint32_t calls_count;
    uint32_t calls_capacity;
    uint32_t places_capacity;
    uint32_t calls_free;
    uint32_t retry_first;
    uint32_t retry_last;
    uint32_t invocations;
    uint32_t outstanding;
    size_t outstanding_bytes;
    uint32_t remote_calls;
    struct mp_heap timers;

    /* attempts that are kept, events */
    struct mp_graph_try *tries;
    uint32_t tries_count;
    uint32_t tries_capacity;
    uint32_t tries_free;
    size_t tries_bytes; /* of their errors */
    struct mp_graph_told *log;
    uint32_t log_count;
    uint32_t log_capacity;
    uint32_t retries_told;

    /* interned names of nodes and versions; 0 is none */
    struct mp_map interned;
    struct mp_slice *interned_names;
    uint32_t interned_count;
    uint32_t interned_capacity;

    /* effects of this step */
    struct mp_graph_effect *effects;
    size_t *offsets; /* of an effect's built bytes in scratch */
    uint32_t effects_count;
    uint32_t effects_capacity;
    uint32_t offsets_capacity;
    struct mp_buf scratch;
    struct mp_buf told_names; /* of steps that succeeded, by_level [0, told_end), as level events
                                 have them */
    uint32_t told_end;
    size_t summary_at; /* in scratch: the summary of a run that is over; who asks again gets that */
    size_t summary_size; /* 0: there is none */
    struct mp_graph_pieces bound;
    struct mp_buf message;
    struct mp_buf hint;
    struct mp_buf fault; /* an ERROR map being made */
};

/* Deepest nesting of an error that is kept: with what surrounds it, a run object stays readable. */
#define MP_GRAPH_ERROR_DEPTH_MAX 100
/* Keys of an ERROR map that are kept; further ones are left out. */
#define MP_GRAPH_ERROR_KEYS_MAX 64

/* depth.c: whether `value` is one well-formed value of at most `depth_max` containers in one
 * another. MP_ECORRUPT, MP_EDEPTH. */
MP_MUST_USE enum mp_err mp_graph_depth_check(struct mp_slice value, uint32_t depth_max);

/* graph.c: memory and effects */

/* Makes room for `need` items of `item` bytes behind `p`; the (possibly moved) array, or NULL with
 * everything as before. */
void *mp_graph_grow(struct mp_graph *g, void *p, uint32_t *capacity, size_t item, uint32_t need);
MP_MUST_USE enum mp_err mp_graph_copy(struct mp_graph *g, struct mp_slice s, struct mp_slice *own);
void mp_graph_drop(struct mp_graph *g, struct mp_slice *own);
/* The number under which a name is kept; 0 for the empty one. */
MP_MUST_USE enum mp_err mp_graph_intern(struct mp_graph *g, struct mp_slice s, uint32_t *id);
/* The same, found without hashing if it is the name under `guess` (0: no guess). */
MP_MUST_USE enum mp_err mp_graph_intern_near(struct mp_graph *g, struct mp_slice name,
                                             uint32_t guess, uint32_t *id);
struct mp_slice mp_graph_interned(const struct mp_graph *g, uint32_t id);
/* A zeroed effect at the end of the list; NULL without memory. Its built bytes start at the
 * scratch buffer's end of this moment. */
struct mp_graph_effect *mp_graph_effect_add(struct mp_graph *g, enum mp_graph_effect_kind kind);

/* check.c, order.c */
MP_MUST_USE enum mp_err mp_graph_load(struct mp_graph *g, struct mp_slice graph,
                                      struct mp_slice input);
/* Adds a dependence of `step` (the one being loaded) on `target`. `seen` has two entries a step. */
MP_MUST_USE enum mp_err mp_graph_order_add(struct mp_graph *g, uint32_t step, uint32_t target,
                                           uint32_t flags);
/* Dependents, levels; tells every cycle. */
MP_MUST_USE enum mp_err mp_graph_order_all(struct mp_graph *g);

/* fault.c */
#define MP_GRAPH_AT_GRAPH   0u           /* a fault of the graph itself */
#define MP_GRAPH_AT_STEP(i) ((i) + 1u)   /* of a step */
#define MP_GRAPH_AT_OUTPUT  (UINT32_MAX) /* of the output */
/* An INVALID_ARGUMENT fault with the text in g->message and, if not empty, g->hint. */
MP_MUST_USE enum mp_err mp_graph_fault_add(struct mp_graph *g, uint32_t at, const char *reason);
MP_MUST_USE enum mp_err mp_graph_fault_add_resolver(struct mp_graph *g, uint32_t step,
                                                    const struct mp_fault *f);
/* What the resolver said about the step does not matter. */
void mp_graph_fault_drop_resolver(struct mp_graph *g, uint32_t step);
/* Appends the ERROR map of a refused graph. */
MP_MUST_USE enum mp_err mp_graph_fault_put_all(struct mp_graph *g, struct mp_buf *out);
/* A cleared g->message (and g->hint) to write into. */
struct mp_out mp_graph_message(struct mp_graph *g);
/* Keeps in *best whichever of *best and `candidate` is nearer to `wanted`. */
void mp_graph_guess(struct mp_graph *g, struct mp_slice wanted, struct mp_slice candidate,
                    struct mp_slice *best, unsigned *distance);
/* Puts "did you mean best?" into g->hint, unless best is empty. */
MP_MUST_USE enum mp_err mp_graph_hint(struct mp_graph *g, struct mp_slice best);
/* Makes an ERROR map in g->fault of the text in g->message and g->hint. */
MP_MUST_USE enum mp_err mp_graph_make_error(struct mp_graph *g, enum mp_code code,
                                            const char *reason, uint32_t step, uint32_t index,
                                            struct mp_slice *error);
/* The same for a template that could not be built. */
MP_MUST_USE enum mp_err mp_graph_make_missing(struct mp_graph *g, const struct mp_graph_miss *miss,
                                              uint32_t step, uint32_t index,
                                              struct mp_slice *error);

/* preset.c */
MP_MUST_USE enum mp_err mp_graph_preset(struct mp_graph *g, const struct mp_graph_event *ev);
MP_MUST_USE enum mp_err mp_graph_preset_from(struct mp_graph *g, const struct mp_graph_event *ev);
/* Decides at START which steps run after all, because somebody wants a result that is gone. */
void mp_graph_preset_settle(struct mp_graph *g);
/* Their names, an array. */
void mp_graph_preset_put_rerun(const struct mp_graph *g, struct mp_out *o);

/* path.c */
bool mp_graph_path_is_valid(struct mp_slice path, bool is_item);
/* MP_ENOENT: `stopped_at` is where in the path, `inside` the value reached. */
MP_MUST_USE enum mp_err mp_graph_path_walk(struct mp_slice value, struct mp_slice path,
                                           struct mp_slice *found, size_t *stopped_at,
                                           struct mp_slice *inside);
/* Splits "step.path" after the name. */
struct mp_slice mp_graph_path_head(struct mp_slice reference);

/* template.c */
MP_MUST_USE enum mp_err mp_graph_template_compile(struct mp_graph *g, uint32_t at,
                                                  enum mp_graph_place place, struct mp_slice value,
                                                  struct mp_graph_range *range);
/* Whether `value` has the form of a reference. */
bool mp_graph_template_is_ref(struct mp_slice value);
/* Fills a template's references in: `into` then holds no REF pieces. MP_ENOENT with `miss` told. */
MP_MUST_USE enum mp_err mp_graph_template_bind(struct mp_graph *g, struct mp_graph_range range,
                                               enum mp_graph_bind how, struct mp_graph_pieces *into,
                                               struct mp_graph_miss *miss);
/* Whether a reference with a default stands for its target's value, which must not be held. */
bool mp_graph_template_holds(const struct mp_graph *g, const struct mp_graph_piece *ref);
/* Appends the bound template's value for one element. MP_ETOOLARGE over `bytes_max`; MP_ENOENT as
 * for binding, from $item or from a hole whose value has come in the meantime. */
MP_MUST_USE enum mp_err mp_graph_template_join(struct mp_graph *g,
                                               const struct mp_graph_pieces *bound,
                                               struct mp_slice item, uint32_t index,
                                               size_t bytes_max, struct mp_buf *out,
                                               struct mp_graph_miss *miss);

/* run.c */
/* Shrinks what nobody has to read any more since the last step. */
void mp_graph_ebb(struct mp_graph *g);
MP_MUST_USE enum mp_err mp_graph_start(struct mp_graph *g);
MP_MUST_USE enum mp_err mp_graph_cancel(struct mp_graph *g);
/* Carries on after any event: passes ends on, hands out, finishes. */
MP_MUST_USE enum mp_err mp_graph_advance(struct mp_graph *g);
MP_MUST_USE enum mp_err mp_graph_time_out(struct mp_graph *g);
/* Ends everything at once, without the memory for better. */
MP_MUST_USE enum mp_err mp_graph_collapse(struct mp_graph *g);
/* The step ended. `error` is an ERROR map that is copied. */
void mp_graph_step_succeed(struct mp_graph *g, uint32_t step, struct mp_slice own_result);
MP_MUST_USE enum mp_err mp_graph_step_fail(struct mp_graph *g, uint32_t step, struct mp_slice error,
                                           enum mp_code code, bool is_fatal);
void mp_graph_step_skip(struct mp_graph *g, uint32_t step, enum mp_graph_because because,
                        uint32_t because_step);
void mp_graph_step_stop(struct mp_graph *g, uint32_t step);
void mp_graph_step_move(struct mp_graph *g, uint32_t step, enum mp_graph_state state);
/* Its first call is handed out: it runs, and is told so unless it ran before. */
void mp_graph_step_begin(struct mp_graph *g, uint32_t step);
/* Puts a step that has calls to hand out into the ready queue. */
void mp_graph_step_queue(struct mp_graph *g, uint32_t step);
/* Has the step looked at again before anything else is handed out: whether its inputs are there,
 * whether it can go on. */
void mp_graph_step_look_again(struct mp_graph *g, uint32_t step);
/* Ends the step because its arguments could not be bound: MP_ENOENT, MP_ETOOLARGE. Other errors are
 * returned. */
MP_MUST_USE enum mp_err mp_graph_step_fail_args(struct mp_graph *g, uint32_t step, enum mp_err why,
                                                const struct mp_graph_miss *miss);
/* Fails the step, or its element `index`, for a value over value_bytes_max. */
MP_MUST_USE enum mp_err mp_graph_step_fail_large(struct mp_graph *g, uint32_t step, uint32_t index,
                                                 const char *what);
/* Takes `bytes` into account; false if that is more than the run may keep. */
bool mp_graph_keep(struct mp_graph *g, size_t bytes);
/* Fails the step and with it the run: there is no room for its result. */
MP_MUST_USE enum mp_err mp_graph_step_fail_kept(struct mp_graph *g, uint32_t step);

/* call.c */
bool mp_graph_call_has_room(const struct mp_graph *g);
/* Hands out the first attempt of a plain step, or of an element. The bound arguments are joined
 * for it. MP_ENOENT, MP_ETOOLARGE: as mp_graph_template_join, nothing handed out. */
MP_MUST_USE enum mp_err mp_graph_call_begin(struct mp_graph *g, uint32_t step, uint32_t index,
                                            struct mp_slice item, struct mp_graph_miss *miss);
/* Hands out the next attempt of a call that waits for it, unless inputs are missing again. */
MP_MUST_USE enum mp_err mp_graph_call_again(struct mp_graph *g, uint32_t call);
/* Puts the call into the queue for its next attempt. */
void mp_graph_call_queue(struct mp_graph *g, uint32_t call);
/* The result of an element is there, or lost. */
MP_MUST_USE enum mp_err mp_graph_call_fetched(struct mp_graph *g, uint32_t call,
                                              const struct mp_graph_event *e);
MP_MUST_USE enum mp_err mp_graph_call_completed(struct mp_graph *g, const struct mp_graph_event *e);
MP_MUST_USE enum mp_err mp_graph_call_failed(struct mp_graph *g, const struct mp_graph_event *e);
MP_MUST_USE enum mp_err mp_graph_call_timers(struct mp_graph *g);
/* A CANCEL effect for a call that is out. */
MP_MUST_USE enum mp_err mp_graph_call_cancel(struct mp_graph *g, uint32_t call);
/* Nobody wants it any more: cancels what is out and frees the rest. */
MP_MUST_USE enum mp_err mp_graph_call_give_up(struct mp_graph *g, uint32_t call);
void mp_graph_call_free(struct mp_graph *g, uint32_t call);

/* each.c */
MP_MUST_USE enum mp_err mp_graph_each_begin(struct mp_graph *g, uint32_t step);
/* Hands out elements as far as concurrency and room allow. */
MP_MUST_USE enum mp_err mp_graph_each_go_on(struct mp_graph *g, uint32_t step);
MP_MUST_USE enum mp_err mp_graph_each_completed(struct mp_graph *g, uint32_t step, uint32_t index,
                                                struct mp_slice value);
MP_MUST_USE enum mp_err mp_graph_each_failed(struct mp_graph *g, uint32_t step, uint32_t index,
                                             struct mp_slice error, enum mp_code code,
                                             bool is_fatal);
/* An element's arguments could not be joined: MP_ENOENT, MP_ETOOLARGE; others are returned. */
MP_MUST_USE enum mp_err mp_graph_each_fail_args(struct mp_graph *g, uint32_t step, uint32_t index,
                                                enum mp_err why, const struct mp_graph_miss *miss);
/* Its inputs, of which some were lost, are there again. */
MP_MUST_USE enum mp_err mp_graph_each_resume(struct mp_graph *g, uint32_t step);
/* Whether it waits for nothing but inputs. */
bool mp_graph_each_is_parked(const struct mp_graph *g, uint32_t step);
MP_MUST_USE enum mp_err mp_graph_each_give_up(struct mp_graph *g, uint32_t step);
MP_MUST_USE enum mp_err mp_graph_each_ran_on(struct mp_graph *g, uint32_t step, uint32_t node);
bool mp_graph_each_has_more(const struct mp_graph *g, uint32_t step);
/* Frees what only a running step needs. */
void mp_graph_each_settle(struct mp_graph *g, uint32_t step);
void mp_graph_each_free(struct mp_graph *g, uint32_t step);

/* held.c: results that stay where they were made */

enum mp_graph_held_state {
    MP_GRAPH_HELD_READY,
    MP_GRAPH_HELD_WAIT, /* for a value, or for a step that runs again */
    MP_GRAPH_HELD_LOST  /* for good: g->lost_input */
};
/* Sees to it that what a template needs is there: has values fetched, lost ones made again. With
 * `may_be_holes` those that stay with their holders need not come. What it waits for has the step
 * looked at again. `state` is only made worse. */
MP_MUST_USE enum mp_err mp_graph_held_prepare(struct mp_graph *g, struct mp_graph_range range,
                                              bool may_be_holes, enum mp_graph_held_state *state);
/* The same for the arguments of a step whose next call is to be handed out. If `may` comes back
 * false it waits, or has been ended because an input is lost for good. */
MP_MUST_USE enum mp_err mp_graph_held_may_call(struct mp_graph *g, uint32_t step, bool *may);
/* The same for the output. */
MP_MUST_USE enum mp_err mp_graph_held_prepare_output(struct mp_graph *g, bool *is_ready);
/* A FETCH effect; `key` is a step, or a call with MP_GRAPH_FETCH_CALL. */
#define MP_GRAPH_FETCH_CALL 0x80000000u
MP_MUST_USE enum mp_err mp_graph_held_fetch(struct mp_graph *g, uint32_t key, uint32_t holder,
                                            uint64_t held, uint64_t bytes, uint64_t *fetch);
MP_MUST_USE enum mp_err mp_graph_held_fetched(struct mp_graph *g, const struct mp_graph_event *e);
MP_MUST_USE enum mp_err mp_graph_held_lost(struct mp_graph *g, struct mp_slice node);
/* Whether something that the step's arguments read is known to be lost, or is being made again. */
bool mp_graph_held_has_lost(const struct mp_graph *g, uint32_t step);
/* Encodes a hole into g->hole. */
MP_MUST_USE enum mp_err mp_graph_held_put_hole(struct mp_graph *g,
                                               const struct mp_graph_step_record *s,
                                               struct mp_slice path);
/* The ERROR map of a MISSING_FIELD that was found by whoever filled the holes, as if it had been
 * found here: with the name of the step that lacks the field, which only this machine knows. */
MP_MUST_USE enum mp_err mp_graph_held_make_missing(struct mp_graph *g, uint32_t step,
                                                   const struct mp_fault *f,
                                                   struct mp_slice *error);

/* record.c, summary.c */
enum mp_graph_record {
    MP_GRAPH_RECORD_ANSWER, /* what a run answers: with `levels` if they were asked for */
    MP_GRAPH_RECORD_TRACE,  /* with them in any case */
    MP_GRAPH_RECORD_KEPT    /* without them, with all `results` */
};
MP_MUST_USE enum mp_err mp_graph_record_put(struct mp_graph *g, enum mp_graph_record kind,
                                            struct mp_buf *out);
const char *mp_graph_state_name(enum mp_graph_state state);
const char *mp_graph_because_name(enum mp_graph_because because);
const char *mp_graph_status_name(enum mp_graph_status status);
/* The value, or its $large form. */
void mp_graph_put_result(struct mp_out *o, const struct mp_graph_step_record *s);
void mp_graph_put_large(struct mp_out *o, struct mp_slice value);
uint32_t mp_graph_count_done(const struct mp_graph *g, uint32_t level);
/* The pair "depends_on". */
void mp_graph_put_deps(struct mp_graph *g, struct mp_out *o, const struct mp_graph_step_record *s);
mp_duration mp_graph_level_duration(const struct mp_graph *g, uint32_t level);
/* The pairs of a complete level; `before` steps succeeded in the levels before it when it was told.
 */
void mp_graph_put_level(struct mp_graph *g, struct mp_out *o, uint32_t level, uint32_t before);
uint32_t mp_graph_level_pairs(const struct mp_graph *g);
MP_MUST_USE enum mp_err mp_graph_summary_put(struct mp_graph *g, struct mp_out *o);
/* receipt.c: the array of mp_graph_put_receipts() */
void mp_graph_receipts_put(const struct mp_graph *g, struct mp_out *o);

/* tries.c */

/* Keeps how an attempt of the step went; `t.error` is made of `error` (an ERROR map, cut if it is
 * long; empty: it succeeded). `id` is its place in g->tries. */
MP_MUST_USE enum mp_err mp_graph_try_add(struct mp_graph *g, uint32_t step, struct mp_graph_try t,
                                         struct mp_slice error, uint32_t *id);
/* The attempt that the step succeeded with counts as failed after all: its result is lost. */
MP_MUST_USE enum mp_err mp_graph_try_lose(struct mp_graph *g, uint32_t step, struct mp_slice error,
                                          uint32_t *id);
void mp_graph_tries_free(struct mp_graph *g, uint32_t step);
/* The pairs "tries", of a step that has some, and "slowest". */
void mp_graph_put_tries(struct mp_graph *g, struct mp_out *o, const struct mp_graph_step_record *s);
void mp_graph_put_slowest(struct mp_graph *g, struct mp_out *o, const struct mp_graph_each *e);

/* event.c: entries of the log, left out if there is no memory for them */
void mp_graph_log_reserve(struct mp_graph *g);
void mp_graph_tell_run_started(struct mp_graph *g);
void mp_graph_tell_step_started(struct mp_graph *g, uint32_t step);
void mp_graph_tell_step_ended(struct mp_graph *g, uint32_t step);
void mp_graph_tell_retried(struct mp_graph *g, uint32_t step, uint32_t attempt, uint32_t try);
void mp_graph_tell_progress(struct mp_graph *g, uint32_t step);
void mp_graph_tell_level(struct mp_graph *g, uint32_t level);
void mp_graph_tell_run_finished(struct mp_graph *g);
