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
/* unsent bytes of a subscriber's connection: messages wait in the node, until few are left */
#define MP_CONN_STREAM_HIGH_BYTES (256u << 10)
#define MP_CONN_STREAM_LOW_BYTES  (64u << 10)
#define MP_CONN_SUBSCRIPTIONS_MAX 16384 /* of one connection; more: TOO_MANY_SUBSCRIPTIONS */

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
#define MP_TIMEOUT_MS_MAX (366ull * 86400 * 1000) /* a longer deadline: refused */
#define MP_RETRIES_MAX    1000                    /* of a call or step; more: refused */
#define MP_BACKOFF_MS     100   /* first pause before a retry, doubled, jittered */
#define MP_BACKOFF_MS_MAX 30000 /* the pause grows no further */
#define MP_LEFT_BEHIND_MS_MAX                                                                      \
    1000 /* an answer waits so long for calls that its function left behind; then it goes out */
#define MP_NESTED_CALLS_MAX 65536 /* mpreg.all in one call; more: QUEUE_FULL */

/* --- sessions --- */
#define MP_SESSIONS_MAX          64         /* REPL sessions on a node; more: TOO_MANY_SESSIONS */
#define MP_EVAL_BYTES_MAX        (1u << 20) /* evaluated at once; more: TOO_LARGE */
#define MP_EVALS_WAITING_MAX     64         /* in one session; more: QUEUE_FULL */
#define MP_SESSION_KILL_AFTER_MS 1000       /* interrupted, it did not stop */

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
#define MP_MODULES_MAX           4096        /* names; more: left out, TOO_MANY_MODULES */
#define MP_MODULE_BYTES_MAX      (16u << 20) /* a source file; larger: the module is left out */
#define MP_MODULE_FUNCTIONS_MAX  4096
#define MP_SUBSCRIBED_MAX        4096 /* functions with patterns in a cluster; more: not called */
#define MP_SUBSCRIBE_MAX         32   /* patterns of one function; more: the module is left out */
#define MP_UNIT_MODULES_MAX      512  /* modules that are deployed together */
#define MP_UNIT_BYTES_MAX        (32u << 20) /* their sources */
#define MP_UNIT_HASH_BYTES       32          /* SHA-256 */
#define MP_LOAD_FOLDER_DEPTH_MAX 32          /* folders below --load */

/* --- graphs --- */
#define MP_GRAPH_EACH_MAX        1000000      /* elements of one `each`; more: TOO_LARGE */
#define MP_GRAPH_OUTSTANDING_MAX 16384        /* calls of one run handed out at once; others wait */
#define MP_GRAPH_FAULTS_MAX      1000         /* faults listed of one graph */
#define MP_TRACE_RESULT_MAX      (64u << 10)  /* a larger result is shown as $large */
#define MP_TRACE_AVAILABLE_STEPS 200          /* larger graphs leave `available` out */
#define MP_GRAPH_ARGS_BYTES_MAX  (128u << 20) /* handed out at once; others wait */
#define MP_GRAPH_ANSWER_GRACE_MS 100          /* past its deadline an attempt counts as lost */
#define MP_GRAPH_CANCEL_GRACE_MS 5000         /* a cancelled run waits so long for its calls */
#define MP_GRAPH_NAME_BYTES_MAX  256          /* of a graph; longer: BAD_OPTION */
#define MP_GRAPH_GUESSES_MAX     20000        /* names compared for suggestions in one check */
#define MP_GRAPH_DEFAULTS_BYTES  (16u << 20)  /* and 8 graphs: defaults in defaults; more: faults */
#define MP_GRAPH_KEYS_SHOWN_MAX  20           /* keys listed by MISSING_FIELD */
#define MP_GRAPH_CYCLE_SHOWN_MAX 20           /* steps listed by CYCLE */
#define MP_GRAPH_PREVIEW_BYTES   160          /* preview of a large result */
#define MP_GRAPH_PROGRESS_PARTS  20           /* step_progress events of one `each` */
#define MP_GRAPH_RETRIES_TOLD    65536 /* step_retried events of one run; more: only counted */
#define MP_GRAPH_TRIES_FIRST     8     /* attempts of one step that are kept, from the first on */
#define MP_GRAPH_TRIES_LAST      8     /* and from the last back; those between are left out */
#define MP_GRAPH_TRY_ERROR_MAX   (8u << 10)  /* error of a failed attempt; longer: message alone */
#define MP_GRAPH_TRY_BYTES_MAX   (16u << 20) /* all such errors of one run; more: likewise */
#define MP_GRAPH_TRY_TEXT_MAX    200         /* a message that is kept alone; the rest is cut */
#define MP_GRAPH_RERUNS_MAX      3           /* of a step whose result was lost; then RESULT_LOST */
#define MP_GRAPH_LOST_PAUSE_MS   200         /* a call that could not get an input waits so long */
#define MP_GRAPH_LOST_PAUSES_MAX 10          /* of one call; then RESULT_LOST */
#define MP_RUN_KEPT_BYTES_MAX    (1u << 30)  /* results held by one run; more: RUN_TOO_LARGE */
#define MP_RUNS_MAX              1024        /* runs at once on a node; more: QUEUE_FULL */
#define MP_RUNS_RECENT_MAX       32          /* over, with their events; older ones have records */
#define MP_RUNS_RECENT_BYTES     (256u << 10) /* one that is larger is let go at once */
#define MP_WATCHES_MAX           16384        /* watchers of all runs of a node; more: QUEUE_FULL */
#define MP_WATCH_STEP_BYTES      (256u << 10) /* told to one of them at once */
#define MP_WATCHES_STEP_BYTES    (4u << 20)   /* and to all; the rest in the next step */
#define MP_WATCH_GATHER_MS       1  /* between two tellings of a connection, while runs go on */
#define MP_WATCH_TOLD_PLACES     64 /* connections of which it is known when they were told last */
#define MP_WATCH_BEHIND_MS       60000       /* after a run's end; then it is given up */
#define MP_WATCH_AGAIN_MS        100         /* without memory for an event */
#define MP_RUN_KEEP_FIRST_MS     20          /* a run that lasts longer is kept while it goes on */
#define MP_RUN_KEEP_EACH_MS      100         /* and what happened in it, so often */
#define MP_RUN_PART_BYTES        (1u << 20)  /* of events that are kept at once */
#define MP_RUN_PARTS_MAX         10000       /* such parts; further events are kept at the end */
#define MP_RUN_LARGE_BYTES_MAX   (64u << 20) /* large results that are kept of one run */
#define MP_RUN_ASKS_MAX          1024 /* requests that wait for a record from the disk; QUEUE_FULL */

/* --- recorded runs --- */
#define MP_RUN_ID_BYTES              26     /* a ULID */
#define MP_ARCHIVE_RUNS_MAX          100000 /* --runs-kept goes no higher */
#define MP_ARCHIVE_DELAY_MS          100    /* from the end of a run to its way to the disk */
#define MP_ARCHIVE_STEP_RECORDS      256    /* that set out at once; others wait so long again */
#define MP_ARCHIVE_HURRIED_RECORDS   16     /* the same, when more runs end than are kept */
#define MP_ARCHIVE_WRITING_BYTES_MAX (4u << 20)  /* of records on their way at once; others wait */
#define MP_ARCHIVE_BEHIND_BYTES_MAX  (64u << 20) /* not on the disk yet; more: dropped, counted */
#define MP_ARCHIVE_MEMORY_BYTES      (8u << 20)  /* of bodies that the disk has; older ones go */
#define MP_ARCHIVE_AGE_LOOK_MS       60000       /* what is too old is looked for so often */

/* --- nodes of a cluster --- */
#define MP_MEMBERS_MAX         20000  /* known at once, dead ones included; more: not taken in */
#define MP_RELAY_NODES_MAX     3      /* nodes that a request passes on its way; more: refused */
#define MP_OUTS_MAX            262144 /* requests to other nodes at once; more: QUEUE_FULL */
#define MP_LINKS_IDLE_MAX      16     /* own ones that carry nothing; the longest idle is closed */
#define MP_SYNC_LINKS_MIN      8      /* with fewer links digests are compared with any member */
#define MP_SYNC_RANDOM_EACH    16     /* and else each so many times */
#define MP_LINK_IDLE_MS        15000  /* a link is idle after so long without a request */
#define MP_LINK_GREETING_MS    5000   /* from the preface to the HELLO of the other side */
#define MP_LINK_UNDECIDED_MS   1000   /* a claimant of a name waits so long, then it asks again */
#define MP_LINK_GOODBYE_MS     1000   /* a node that stops waits so long for others to hear it */
#define MP_LINK_BACKOFF_MS     50     /* before a failed dial is repeated, doubled */
#define MP_LINK_BACKOFF_MS_MAX 10000
#define MP_REROUTES_MAX        8            /* nodes tried for a call that never began */
#define MP_HELD_BYTES_MAX      (256u << 20) /* results kept for other nodes' runs; more: sent on */
#define MP_HELD_MAX            65536        /* the same, counted */
#define MP_HELD_RELEASED_BYTES (16u << 20)  /* of runs that are over; the oldest go */
#define MP_HELD_RELEASED_MS    60000        /* and stay no longer, nor when room is needed */
#define MP_HOLES_MAX           1024 /* parts of one call's arguments that are held elsewhere */
#define MP_HAVE_BYTES_MAX      (4u << 20) /* of catalog entries in one answer; the rest comes later */
#define MP_PLAN_PROVIDERS_MAX  1024       /* whose workers count for the concurrency of an `each` */

/* --- router --- */
#define MP_ROUTER_ROUTES_MAX     4096 /* routes_max goes no higher; the least recently used goes */
#define MP_ROUTER_CANDIDATES_MAX (4u << 20) /* in all routes, likewise; one may pass it alone */
#define MP_ROUTER_NODES_MAX      (1u << 20) /* numbers of nodes; a higher one is a fault of ours */
#define MP_ROUTER_STATS_MAX      65536      /* functions on nodes; likewise, busy ones excepted */
#define MP_ROUTER_TRIALS         4          /* answers until a provider is known */
#define MP_ROUTER_DRAWS_MAX      16         /* draws for two that may be taken; then one by one */
#define MP_ROUTER_SCAN_MAX       1024       /* looked at for a free one; then all count as full */

/* --- catalog --- */
#define MP_MODULE_NAME_BYTES_MAX      440         /* dotted; longer: the module is left out */
#define MP_VERSION_BYTES_MAX          64          /* of a module or program; longer: left out */
#define MP_HASH_BYTES_MAX             32          /* of a module's content; longer: left out */
#define MP_CATALOG_RESOURCES_MAX      1024        /* of one node; more: its entry is dropped */
#define MP_CATALOG_ENTRY_BYTES_MAX    (4u << 20)  /* of one node; larger: dropped */
#define MP_CATALOG_METADATA_BYTES_MAX (64u << 20) /* of all modules; more of others': dropped */
#define MP_CATALOG_REFUSALS_MAX       3    /* metadata that was no good; then not asked for again */
#define MP_CATALOG_WANTED_MAX         1024 /* modules asked for at once; the rest the next time */
#define MP_CATALOG_TOMBSTONES_MAX     1024 /* forgotten nodes; more: the oldest is let go */
#define MP_CATALOG_NODES_MAX          (1u << 20) /* numbers of nodes; membership gives no higher */
#define MP_CATALOG_SHOWN_MAX          8          /* nodes named in a message; then "and 7 more" */

/* --- deploys --- */
#define MP_DEPLOY_ENTRY_BYTES_MAX 8192       /* of one change; larger: refused */
#define MP_DEPLOY_ENTRIES_MAX     (1u << 20) /* changes of all modules; more: refused, HISTORY_FULL */
#define MP_DEPLOY_NODES_MAX       64         /* --only or --skip; more: refused */
#define MP_DEPLOY_BY_BYTES_MAX    128        /* who asked for a change; longer: refused */
#define MP_DEPLOY_AHEAD_MS        10000      /* a stamp ahead of the clock; more: CLOCK_SKEW */
#define MP_DEPLOY_EXPECT_MIN      8          /* digits that --expect takes; fewer: BAD_OPTION */
#define MP_DEPLOY_MARKED_MS       86400000   /* `modules` marks what was overtaken for so long */
#define MP_DEPLOY_SHOWN_MAX       8          /* versions named in a message; then "and 7 more" */
#define MP_RELEASE_BYTES          16         /* of the id of a release */
#define MP_RELEASES_MAX           1024       /* that calls under way name */
#define MP_UNITS_MAX              1024       /* that a node has or gathers at once */
#define MP_DEPLOYS_MAX            64         /* under way on a node, its own and those of others */
#define MP_DEPLOY_STAGE_MS        5000       /* until every node has the code ready */
#define MP_DEPLOY_SWITCH_MS       5000       /* then until every node says that it has switched */
#define MP_RELEASE_KEPT_MS        1000       /* a release that no call has any more */
#define MP_UNIT_KEPT_MS           8000       /* code that is staged, in memory */
#define MP_UNIT_RETRY_MS          1000       /* before code that could not be had is tried again */
#define MP_CODE_SWEEP_MS          500
#define MP_STORE_REQUESTS_MAX     1024 /* that the store has not answered; more: QUEUE_FULL */
#define MP_CHECKS_MAX             2    /* processes that try units; the other units wait */
#define MP_CHECKS_WAITING_MAX     64   /* units that wait to be tried; more: QUEUE_FULL */
#define MP_CHECK_BYTES_MAX        (256u << 20) /* Lua's memory in such a process; more: refused */
#define MP_CHECK_REQUEST_BYTES_MAX                                                                 \
    (128u << 20) /* a unit and what it may require; more: TOO_LARGE */
#define MP_CHECK_ANSWER_BYTES_MAX (MP_UNIT_BYTES_MAX + (1u << 20)) /* more: TOO_LARGE */
#define MP_CHECK_TIMEOUT_MS       3000   /* from request to answer; longer: killed, LOAD_TIMEOUT */
#define MP_CHECK_SPARE_MS         600000 /* a process is kept ready so long after the last check */
#define MP_UNITS_LOADED_MAX       4096   /* in the workers at once; more: TOO_MANY_UNITS */
#define MP_MODULE_NUMBERS_MAX     (16 * MP_MODULES_MAX) /* of all units; more: TOO_MANY_UNITS */
#define MP_UNIT_LOAD_WAIT_MS      250 /* a load counts as done, whoever is not done then */
#define MP_UNIT_CRASHES_MAX       3   /* workers in a row that a unit ends; then it is withheld */

/* --- what is kept of runs and messages --- */
#define MP_STORE_RECORD_BYTES_MAX   (512u << 20) /* of a run, or a part; larger: TOO_LARGE */
#define MP_STORE_RUN_REQUESTS_MAX   16384 /* that the store has not answered; more: QUEUE_FULL */
#define MP_STORE_RUN_BYTES_MAX      (64u << 20) /* in them; likewise, one may pass it alone */
#define MP_STORE_COMMIT_BYTES_MAX   (1u << 20)  /* in one transaction; the rest comes after code */
#define MP_STORE_HEADS_MAX          100000      /* told at a start; the oldest beyond are deleted */
#define MP_STORE_HEADS_BYTES_MAX    (64u << 20) /* likewise */
#define MP_STORE_MESSAGES_BYTES_MAX (64u << 20) /* likewise */
#define MP_STORE_DAMAGED_MAX        9           /* files moved aside; the last is overwritten */
#define MP_STORE_COMPLAIN_EACH_MS   10000       /* what fails of runs is logged once in so long */

/* --- topics --- */
#define MP_TOPIC_BYTES_MAX          512        /* of a topic or pattern; longer: BAD_TOPIC */
#define MP_TOPIC_WORDS_MAX          32         /* in it; more: BAD_TOPIC */
#define MP_TOPIC_WORD_BYTES_MAX     64         /* of a word; longer: BAD_TOPIC */
#define MP_TOPIC_PUBLISH_MAX        65536      /* messages published at once; more: TOO_LARGE */
#define MP_TOPIC_PATTERNS_MAX       (1u << 20) /* of all receivers; more: QUEUE_FULL */
#define MP_TOPIC_FUNCTIONS_MAX      65536 /* numbers of functions; the driver gives no higher */
#define MP_TOPIC_MEMBER_NUMBERS_MAX (1u << 20) /* numbers of nodes; membership gives no higher */
#define MP_TOPIC_QUEUE_MESSAGES_MAX 65536      /* that wait for one receiver; more: dropped, told */
#define MP_TOPIC_QUEUE_BYTES_MAX    (8u << 20) /* likewise; one larger message may wait alone */
#define MP_TOPIC_QUEUES_BYTES_MAX   (256u << 20) /* that wait for all; more: dropped */
#define MP_TOPIC_BATCH_BYTES        (256u << 10) /* from here a batch of messages is closed */
#define MP_TOPIC_TURN_BYTES         (1u << 20) /* given to a connection at once; then the others */
#define MP_TOPIC_HEARD_MAX          256        /* publishers whose last seq a subscription knows */
#define MP_TOPIC_CACHE_TOPICS       4096 /* whose receivers are known; another takes a place */
#define MP_TOPIC_CACHE_MATCHES_MAX  (1u << 20) /* receivers in it; more: it is emptied */
#define MP_TOPIC_INTEREST_MAX       1024 /* patterns told to others; more: `word.#`, then `#` */
#define MP_TOPIC_INTEREST_BYTES_MAX (32u << 10) /* their bytes; likewise */
#define MP_TOPIC_BACKLOG_MESSAGES   1000        /* kept of a topic; the oldest go */
#define MP_TOPIC_BACKLOG_BYTES      (1u << 20)  /* likewise; the newest is kept whatever its size */
#define MP_TOPIC_BACKLOG_MS         3600000     /* likewise */
#define MP_TOPIC_BACKLOGS_MAX       16384       /* topics; the least recently published goes */
#define MP_TOPIC_BACKLOGS_BYTES_MAX (64u << 20) /* of all of them; likewise */
#define MP_TOPIC_ANSWER_BYTES_MAX   (8u << 20)  /* of a backlog that is asked for: the newest */
#define MP_TOPIC_ASKED_MS           5000 /* who asked for a backlog gets what matches for so long */
#define MP_TOPIC_ASKED_MAX          16384 /* of these at once; the oldest ends */
#define MP_TOPIC_GATHER_MS          2000  /* until other nodes have answered; then without them */
#define MP_TOPIC_GATHERS_MAX        256 /* subscriptions with --since that begin; more: QUEUE_FULL */
#define MP_TOPIC_GATHER_BYTES_MAX   (64u << 20)  /* gathered for one; more: left out, told */
#define MP_TOPIC_GATHERS_BYTES_MAX  (256u << 20) /* for all of them; likewise */
#define MP_TOPIC_CALLS_MAX          1024 /* of functions with messages, at once; the others wait */
#define MP_TOPIC_TELL_MS            100  /* between two changes of the patterns told to others */
#define MP_TOPIC_RETRY_MS           10   /* what was held up by a lack of memory is tried again */
#define MP_TOPIC_RETELL_MS          1000 /* what was lost on its way to a member is told again */
#define MP_TOPIC_KEEP_MS            250  /* between two writes of what is new */
#define MP_TOPIC_KEEP_BYTES         (4u << 20) /* of one of them; the rest comes with the next */
#define MP_TOPIC_FORGET_BYTES       (1u << 20) /* of topics to forget; more: at the next start */

/* --- other nodes --- */
#define MP_SEEDS_MAX         64    /* --join; more: refused */
#define MP_SEED_RETRY_MS     30000 /* a name that was not resolved is tried again */
#define MP_SEED_AGAIN_MS     60000 /* one that was may have moved */
#define MP_DIAL_MS           2000  /* to connect and hear the other preface; longer: it failed */
#define MP_LINK_KEEPALIVE_MS 5000  /* a silent link is asked whether it is still there */
#define MP_LINK_SILENT_MS    10000 /* unacknowledged for so long: it is closed */
#define MP_LISTEN_TRIES      16    /* port 0: numbers tried until one is free for TCP and UDP */
#define MP_DATAGRAMS_A_TURN  256   /* taken at once; the rest wait in the kernel */
#define MP_UDP_RECEIVE_BYTES                                                                       \
    (1 << 20)                 /* that wait there, if the system allows so many; more are lost */
#define MP_LAST_WORDS_MS 1000 /* at its end a node waits so long for what is unsent */

/* --- membership --- */
#define MP_NODE_NAME_BYTES_MAX   64   /* of a node; longer: refused */
#define MP_DATAGRAM_BYTES_MAX    1200 /* longer: dropped; what does not fit waits for the next */
#define MP_GOSSIP_UPDATES_MAX    1024 /* waiting to be told; more: the most told is dropped */
#define MP_GOSSIP_ENTRIES_TOLD   128  /* while so many wait, entries are taken in but not told on */
#define MP_GOSSIP_NEWS_MAX       256  /* waiting to be told; more: the most told is dropped */
#define MP_GOSSIP_SEEN_MAX       1024 /* news remembered as heard; more: the oldest is dropped */
#define MP_GOSSIP_HOPS_MAX       20   /* news that came further is not told on */
#define MP_MEMBER_PINGS_MAX      128  /* unanswered at once; more: not sent */
#define MP_MEMBER_CLASHES_MAX    8 /* names disputed at once; more: dropped, the next contact asks */
#define MP_MEMBERS_DEAD_KEPT     1024 /* dead ones beyond these go at MP_MEMBER_DEAD_KEPT_S */
#define MP_MEMBER_DEAD_KEPT_S    (7 * 86400)
#define MP_MEMBERS_FORGOTTEN_MAX 1024 /* tombstones; more: some are dropped */
