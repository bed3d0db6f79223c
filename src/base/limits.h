/* Every fixed bound of the system, with what happens there. Those that an operator may set are
 * flags of the node, with their defaults in lua/mpreg/cli/node_config.lua. */
#pragma once

/* --- names and values --- */
#define MP_FUNCTION_BYTES_MAX  512         /* module.function; longer: refused */
#define MP_DEPTH_MAX           128         /* nesting of a value; deeper: refused (UNENCODABLE) */
#define MP_VALUE_BYTES_MAX     (64u << 20) /* --value-max; larger: refused (TOO_LARGE) */
#define MP_VALUE_BYTES_CEILING (1u << 30)  /* what --value-max may be set to */
#define MP_VALUE_INLINE_MAX    (64u << 10) /* from here a payload goes through the shared area */
#define MP_ARGS_MAX            1000        /* arguments of one call; more: refused */
#define MP_NEEDS_MAX           32          /* resources that one call may need; more: refused */

/* --- native protocol --- */
#define MP_FRAME_META_BYTES_MAX (64u << 10) /* meta part of a frame; more: protocol error */
#define MP_FRAME_SLACK_BYTES    (1u << 20)  /* a frame may be value-max plus this */
#define MP_PREFACE_TIMEOUT_MS   5000        /* nothing sent by then: closed */
#define MP_CONN_PENDING_MAX     65536 /* requests in flight on one connection; then it is not read */
#define MP_CONN_OUT_HIGH_BYTES  (1u << 20)   /* unsent answers: the node stops reading requests */
#define MP_CONN_OUT_MAX_BYTES   (128u << 20) /* unsent answers: plus one value, then closed */
#define MP_CONNS_MAX            10000        /* open connections; the next one is closed */

/* --- native client --- */
#define MP_CLIENT_NODES_MAX     64    /* nodes to try; more: refused */
#define MP_CLIENT_NODE_BYTES    300   /* HOST:PORT; longer: refused */
#define MP_CLIENT_ADDRESSES_MAX 16    /* addresses of one name; the rest are passed over */
#define MP_CLIENT_CONNECT_MS    5000  /* to reach one node and hear its preface; then the next */
#define MP_CLIENT_QUERY_MS      30000 /* a query's deadline if its caller gives none */
#define MP_CLIENT_GRACE_MS      1000  /* after a deadline the node should have answered */
#define MP_CLIENT_REQUESTS_MAX  MP_CONN_PENDING_MAX /* on one connection; more: refused */
#define MP_CLIENT_OUT_BYTES_MAX (2u << 30)          /* unsent requests; more: refused */
/* one answer; larger: the connection is closed */
#define MP_CLIENT_ANSWER_BYTES_MAX (MP_VALUE_BYTES_CEILING + MP_FRAME_SLACK_BYTES)

/* --- calls --- */
#define MP_TIMEOUT_MS_MAX   (366ull * 86400 * 1000) /* a longer deadline: refused */
#define MP_RETRIES_MAX      1000                    /* of a call or step; more: refused */
#define MP_BACKOFF_MS       100   /* first pause before a retry, doubled, jittered */
#define MP_BACKOFF_MS_MAX   30000 /* the pause grows no further */
#define MP_NESTED_CALLS_MAX 65536 /* mpreg.all in one call; more: QUEUE_FULL */

/* --- workers --- */
#define MP_WORKERS_MAX          256
#define MP_WORKER_MEMORY_BYTES  (256u << 20) /* --worker-memory; over it: WORKER_MEMORY */
#define MP_RING_BYTES           (1u << 20)   /* one direction; full: calls wait in the host */
#define MP_WORKER_KILL_AFTER_MS 250          /* after a deadline, a call that still computes */
#define MP_LOAD_TIMEOUT_MS      2000         /* loading a module; longer: the module is left out */
#define MP_CRASHES_MAX          5            /* workers killed by one function in a minute */
#define MP_CRASH_WINDOW_MS      60000
#define MP_CRASH_LOOP_MS        10000 /* first refusal, doubled */
#define MP_CRASH_LOOP_MS_MAX    300000

/* --- modules --- */
#define MP_MODULES_MAX           4096
#define MP_MODULE_BYTES_MAX      (16u << 20) /* a source file; larger: the module is left out */
#define MP_MODULE_FUNCTIONS_MAX  4096
#define MP_LOAD_FOLDER_DEPTH_MAX 32 /* folders below --load */

/* --- graphs --- */
#define MP_GRAPH_EACH_MAX        1000000      /* elements of one `each`; more: TOO_LARGE */
#define MP_GRAPH_OUTSTANDING_MAX 16384        /* calls of one run handed out at once; others wait */
#define MP_GRAPH_FAULTS_MAX      1000         /* faults listed of one graph */
#define MP_TRACE_RESULT_MAX      (64u << 10)  /* a larger result is shown as $large */
#define MP_TRACE_AVAILABLE_STEPS 200          /* larger graphs leave `available` out */
#define MP_GRAPH_ARGS_BYTES_MAX  (128u << 20) /* handed out at once; others wait */
#define MP_GRAPH_ANSWER_GRACE_MS 100          /* past its deadline an attempt counts as lost */
#define MP_GRAPH_CANCEL_GRACE_MS 1000         /* a cancelled run waits so long for its calls */
#define MP_GRAPH_NAME_BYTES_MAX  256          /* of a graph; longer: BAD_OPTION */
#define MP_GRAPH_GUESSES_MAX     20000        /* names compared for suggestions in one check */
#define MP_GRAPH_DEFAULTS_BYTES  (16u << 20)  /* and 8 graphs: defaults in defaults; more: faults */
#define MP_GRAPH_KEYS_SHOWN_MAX  20           /* keys listed by MISSING_FIELD */
#define MP_GRAPH_CYCLE_SHOWN_MAX 20           /* steps listed by CYCLE */
#define MP_GRAPH_PREVIEW_BYTES   160          /* preview of a large result */
#define MP_GRAPH_PROGRESS_PARTS  20           /* step_progress events of one `each` */
#define MP_RUN_KEPT_BYTES_MAX    (1u << 30)   /* results held by one run; more: RUN_TOO_LARGE */
#define MP_RUNS_MAX              1024         /* runs at once on a node; more: QUEUE_FULL */
