/* What the files about runs share.
 *
 *   runs.c         the life of a run: its graph machine, its calls, its end
 *   run_begin.c    how one begins: what it runs, anew or resumed
 *   run_watch.c    who is told what happens in it
 *   run_record.c   what is kept of it, while it goes on and afterwards
 *   run_trace.c    a kept record as people get to see it
 *   run_ask.c      what is asked of kept records
 *   run_queries.c  what clients ask about runs, of whatever node */
#pragma once

#include "src/core/node/node_internal.h"
#include "src/wire/msgpack.h"

struct mp_node_run {
    uint32_t release;
    struct mp_graph *graph; /* NULL: the place is free */
    struct mp_buf holders;  /* members that hold something for it, uint32_t each */
    bool is_held_anywhere;  /* there was no memory to note one of them */
    uint64_t number;        /* low half: place */
    uint64_t client;
    uint64_t id;       /* of the client's request */
    bool has_follower; /* the client is told of the events, and of the end behind them */
    bool is_detached;
    bool is_plan;
    bool is_begun; /* it was not refused */
    bool is_answered;
    bool is_over;    /* its place is given back when nobody needs the machine any more */
    bool is_dead;    /* nothing can be had of the machine any more */
    bool is_kept;    /* the archive knows of it */
    bool is_closing; /* large results are fetched, to be kept */
    uint32_t over_next;
    uint32_t parts;    /* that the archive was given of its events */
    uint64_t kept;     /* events in them */
    size_t kept_bytes; /* of large results */
    mp_time keep_at;   /* when the archive is to be given more */
    mp_time started_at;
    mp_time ended_at;
    size_t memory;      /* of its machine then */
    int64_t started_ms; /* Unix time */
    char run_id[MP_RUN_ID_BYTES + 1];
    struct mp_buf watches;  /* struct mp_node_watch */
    struct mp_buf receipts; /* struct mp_node_receipt */
    struct mp_buf gathers;  /* struct mp_node_run_gather */
    uint8_t *own_graph;     /* what the slices below point into; the machine borrows some */
    size_t own_graph_size;
    struct mp_slice answer; /* the run object, once it is over; the machine's */
    struct mp_slice graph_bytes;
    struct mp_slice input;
    struct mp_slice pipeline;     /* its name, if the run was asked for by it */
    struct mp_slice resumed_from; /* a run's id */
    struct mp_slice topic;        /* that the caller wants its events on */
    uint64_t topics_generation;   /* at which it was last asked whether anybody wants the events */
    bool is_topic_wanted;
};

/* One who is told of a run. */
struct mp_node_watch {
    uint64_t client;
    uint64_t id;
    uint64_t next;    /* seq of the event to be told next */
    bool is_follow;   /* the one who began the run, and waits for its end */
    bool is_paused;   /* it is told no events, which stay here for when it asks anew */
    mp_time told_at;  /* when last; 0: never */
    uint64_t told_in; /* number of the step in which `told_bytes` were told */
    size_t told_bytes;
};

/* What a resumed run begins with. */
struct mp_node_resume {
    struct mp_slice run_id;
    struct mp_slice graph;
    struct mp_slice input;    /* empty: the graph's own */
    struct mp_slice pipeline; /* its name; empty: the graph came with the run */
    struct mp_slice steps;    /* as the record has them */
    struct mp_slice results;  /* of those that succeeded, in that order; large ones as $large */
    struct mp_slice whole;    /* map of large results, as far as they were kept, in that order */
    struct mp_slice from;     /* a step; empty: what had not succeeded */
};

/* run_ask.c: requests about runs, answered from what is kept */
#define MP_NODE_STEP_BYTES_MAX 64 /* of a step's name */
enum mp_node_ask_kind {
    MP_NODE_ASK_TRACE,
    MP_NODE_ASK_RESULT,
    MP_NODE_ASK_WATCH,
    MP_NODE_ASK_CANCEL,
    MP_NODE_ASK_RESUME,
    MP_NODE_ASK_KINDS
};

/* A request about a run that is over: who asked for what; and for RESUME what was read so far. */
struct mp_node_run_ask {
    enum mp_node_ask_kind kind;
    uint32_t ticket; /* of what is being read; 0: nothing */
    bool is_part;    /* it is a part, not the record */
    uint64_t client;
    uint64_t id;
    int64_t wall_ms;
    uint64_t after; /* WATCH: the last event that is known already */
    bool is_paused; /* WATCH */
    char run_id[MP_RUN_ID_BYTES + 1];
    struct mp_run_options options;     /* RESUME */
    char step[MP_NODE_STEP_BYTES_MAX]; /* RESULT; RESUME: from; empty: none */
    size_t step_size;
    struct mp_slice topic; /* of the options, in own_topic */
    uint8_t *own_topic;
    /* RESUME: the record, and its large results as they are read, one after the other */
    uint8_t *own_record;
    size_t record_size;
    struct mp_node_resume resume; /* its slices point into own_record */
    struct mp_mp_reader steps;    /* behind the one whose result is being read */
    struct mp_slice reading;      /* its name */
    struct mp_buf whole;          /* pairs of a name and a result */
    uint32_t whole_count;
};

/* Who waits for a run's end to hear what became of its steps. */
struct mp_node_receipt {
    uint64_t client;
    uint64_t id;
};

/* A large result that is fetched from its holder: at the end of a run in order to be kept, or for a
 * client that wants to see it. */
struct mp_node_run_gather {
    uint64_t fetch;
    uint32_t step;
    bool is_asked; /* by this client */
    uint64_t client;
    uint64_t id;
};

/* run_begin.c */
/* The text of a run's id: MP_RUN_ID_BYTES digits and a NUL. */
void mp_node_run_id_make(struct mp_node *n, int64_t wall_ms, char out[MP_RUN_ID_BYTES + 1]);
/* Which node a run id names: the hash of its name. False: it is no run id. */
bool mp_node_run_id_read(struct mp_slice text, char out[MP_RUN_ID_BYTES + 1], uint32_t *identity);
/* Begins a run with what an earlier one had. It is answered in any case. */
void mp_node_run_resume(struct mp_node *n, mp_time now, uint64_t client, uint64_t id,
                        int64_t wall_ms, const struct mp_run_options *o,
                        const struct mp_node_resume *r);

/* runs.c */
/* The run is over: its machine stays a while for who comes late, if it was one. */
void mp_node_run_end(struct mp_node *n, mp_time now, struct mp_node_run *run);
void mp_node_run_out_of_memory(struct mp_node *n, mp_time now, struct mp_node_run *run);
/* A run that goes on, or whose end is not long ago, by its id; NULL. */
struct mp_node_run *mp_node_run_by_id(struct mp_node *n, struct mp_slice run_id);
struct mp_node_run *mp_node_run_take_place(struct mp_node *n);
bool mp_node_run_load(struct mp_node *n, mp_time now, struct mp_node_run *run);
void mp_node_run_step(struct mp_node *n, mp_time now, struct mp_node_run *run,
                      const struct mp_graph_event *ev);
void mp_node_run_reply(struct mp_node *n, struct mp_node_run *run, uint8_t frame,
                       struct mp_slice bytes);
/* A FETCH for a run; false: it could not be sent. */
bool mp_node_run_fetch(struct mp_node *n, uint64_t number, uint64_t fetch, struct mp_slice node,
                       uint64_t held);
/* What was kept for the run, here and elsewhere, is given back. */
void mp_node_run_release(struct mp_node *n, struct mp_node_run *run);

/* run_ask.c */
void mp_node_ask_refuse(struct mp_node *n, const struct mp_node_run_ask *a, enum mp_code code,
                        const char *reason, const char *message, const char *hint);
void mp_node_ask_no_memory(struct mp_node *n, const struct mp_node_run_ask *a);
void mp_node_ask_unknown(struct mp_node *n, const struct mp_node_run_ask *a);
void mp_node_ask_answer(struct mp_node *n, const struct mp_node_run_ask *a, enum mp_err err,
                        struct mp_slice bytes);
/* From memory or from the disk. */
void mp_node_ask_archive(struct mp_node *n, mp_time now, const struct mp_node_run_ask *asked);
/* The results of a record's run. */
struct mp_slice mp_node_record_results(struct mp_slice body, struct mp_slice run);
/* A large result, from the disk. */
void mp_node_ask_part(struct mp_node *n, const struct mp_node_run_ask *asked, struct mp_slice step);
/* The request waits until the run's record is whole, which mp_node_asks_of_run() says. */
void mp_node_ask_later(struct mp_node *n, const struct mp_node_run_ask *asked);
void mp_node_asks_of_run(struct mp_node *n, mp_time now, struct mp_slice run_id);
/* The value under a key of a map; empty for none and for nil. */
struct mp_slice mp_node_value_of(struct mp_slice map, const char *key);
/* A step of a run object by its name. */
bool mp_node_ask_find_step(struct mp_slice run, struct mp_slice name, struct mp_slice *step);
bool mp_node_ask_has_succeeded(struct mp_slice step);
/* A map of run_id, status and `steps`, whose value follows. */
MP_MUST_USE enum mp_err mp_node_ask_put_cancelled(struct mp_buf *b, struct mp_slice run_id,
                                                  struct mp_slice status);

/* run_queries.c */
/* A RUN that resumes an earlier run. True: another node has it now, with its payload. */
bool mp_node_run_ask_resume(struct mp_node *n, mp_time now, const struct mp_node_event *ev,
                            const struct mp_run_options *o);
/* NOT_FOUND/UNKNOWN_STEP, with the nearest of the steps that there are. */
void mp_node_run_refuse_step(struct mp_node *n, uint64_t client, uint64_t id, struct mp_slice steps,
                             struct mp_slice name);

/* run_watch.c */
/* Publishes the events behind `from` to those topics of theirs that somebody subscribed to, and to
 * the topic that whoever began the run asked for. */
void mp_node_run_publish(struct mp_node *n, mp_time now, struct mp_node_run *run, uint64_t from);
/* Has a client told what happens from the event w->next on. False: no memory, or there are too
 * many. */
bool mp_node_watch_add(struct mp_node *n, struct mp_node_run *run, const struct mp_node_watch *w);
/* Forgets all watches of a run of which nothing is to be told. */
void mp_node_watch_drop(struct mp_node *n, struct mp_node_run *run);
/* Something happened in the run: whoever watches is told, as far as connections take it. */
void mp_node_watch_tell(struct mp_node *n, mp_time now, struct mp_node_run *run);
/* Ends all watches of a run with an error. */
void mp_node_watch_end(struct mp_node *n, struct mp_node_run *run, enum mp_code code,
                       const char *reason, const char *message);

/* Everybody who waits for the run's receipts has them. */
void mp_node_receipts_end(struct mp_node *n, struct mp_node_run *run);

/* run_record.c */
/* What a list of runs shows of a run, or of one whose node died: a map. `body_size`: of its record,
 * once it has one. */
MP_MUST_USE enum mp_err mp_node_record_put_head(struct mp_node *n, mp_time now,
                                                struct mp_node_run *run, size_t body_size,
                                                struct mp_buf *b);
MP_MUST_USE enum mp_err mp_node_record_put_lost_head(struct mp_slice head, struct mp_buf *b);
/* The record of a run that has just ended. */
void mp_node_record_ended(struct mp_node *n, mp_time now, struct mp_node_run *run);
/* The run cannot go on, and nothing can be had of its machine. */
void mp_node_record_lost(struct mp_node *n, mp_time now, const struct mp_node_run *run);
/* New events: large results are kept at once, and the rest in a while. */
void mp_node_record_events(struct mp_node *n, mp_time now, struct mp_node_run *run, uint64_t from);
void mp_node_record_progress(struct mp_node *n, mp_time now, struct mp_node_run *run);
/* Fetches a held result for a client. False: it cannot be had. */
bool mp_node_record_ask(struct mp_node *n, struct mp_node_run *run, uint32_t step, uint64_t client,
                        uint64_t id);
/* A value that was fetched so has come, or is lost. */
void mp_node_record_gathered(struct mp_node *n, struct mp_node_run *run, uint64_t fetch,
                             bool is_lost, struct mp_slice value);

/* run_trace.c */
/* Appends a kept run as a run object with `levels`. `body` as the archive has it; `progress`: an
 * array of parts, each the bytes of an array of events, for a run that went on when its node died.
 * MP_ECORRUPT: it is no record. */
MP_MUST_USE enum mp_err mp_node_trace_put(struct mp_node *n, struct mp_slice head,
                                          struct mp_slice body, struct mp_slice progress,
                                          struct mp_buf *out);
