/* The C side of `require "mpreg.native"`: what the command line, written in Lua, needs of C. Calls
 * block; values travel as MessagePack strings; ERRORs are tables where no node is needed to make
 * them (connect) and MessagePack maps else.
 *
 *   conn, ERROR = native.connect{nodes = {"127.0.0.1:7400", …}, timeout_ms = n}
 *   result, error = conn:call(fun, args, {timeout_ms, version, on, cluster, retries, wait, needs})
 *   run, error = conn:run(graph, {timeout_ms, trace, follow, detach}, function(event) … end)
 *   result, error = conn:query(what, payload, {timeout_ms, options}, function() … end)
 *     -- payload may be nil; the function is called each second until the answer is there
 *   list, error = conn:queries(what, {options, …}, {timeout_ms})   -- the same of many, at once
 *   result, error = conn:eval(what, options, text, {timeout_ms}, function(event) … end)
 *   result, error = conn:publish(messages, {timeout_ms})   -- MessagePack of [[topic, data], …]
 *   true, error = conn:subscribe(pattern, {since_ms, queue, timeout_ms}, function(event) … end,
 *                                function(messages, publisher, dropped, after_seq) … end)
 *     -- blocks until the second function returns true; `messages`: see native.next_message
 *   conn:close()   conn:node()   -- "HOST:PORT" that answered
 *   is_open, error = conn:is_open()   -- false once the node has gone, or said that it is about to
 *
 * `args`, `graph`, `payload`, `options` of queries (a map; empty: none), `event`, `result`, `run`
 * and `error` are MessagePack strings. `list` has two values for each query: whether it failed, and
 * its result or error. A field that an options table does not know raises. If SIGINT comes while
 * one of these blocks, the request is cancelled; its end is awaited for at most a second (of eval:
 * five), or until a second SIGINT; then it returns nil, an ERROR with code CANCELLED and reason
 * INTERRUPTED, and third the result (a run object), or fourth the node's ERROR, if one came. An
 * error raised by the event function cancels the run and is raised again.
 *
 *   figures, error = native.bench{nodes, fun, args, options, graph, outstanding, connections,
 *                                 seconds, rate}
 *     figures = {calls, errors, errors_by = {["CODE/REASON"] = n}, unsent, seconds, calls_per_s,
 *                p50_us, p90_us, p99_us, p999_us, max_us, interrupted}
 *     With `graph` (a RUN payload) it measures runs, else calls of `fun` with `args`; `options` are
 *     those of conn:run or conn:call. `calls` are those with a result; src/client/bench.h says what
 *     is measured. An error (MessagePack) means that nothing was measured.
 *
 *   figures, error = native.bench_pub{nodes, topic, pattern, subscribers, size, seconds, rate}
 *     figures = {published, delivered, dropped, seconds, published_per_s, delivered_per_s, p50_us,
 *                p99_us, interrupted}, see src/client/pub_load.h
 *
 *   native.topic_problem(text, is_pattern) → what is wrong with a topic or pattern, or nil
 *   native.next_message(messages, at) → of an array of [topic, seq, at, data] the one at byte `at`
 *                              (0: the first): `at` of the next, topic, seq, at, data (MessagePack)
 *   native.isatty(fd)        → boolean
 *   native.terminal_width()  → columns of stdout's or stderr's terminal, or nil if neither is one
 *   native.now()             → seconds of a monotonic clock, with a fraction
 *   native.list(path)        → {{name =, type = "file" | "folder" | "link" | "other"}, …} by name,
 *                              or nil, message
 *   native.stat(path)        → {type =, size =, mtime =} (links followed), or nil, message
 *   native.realpath(path)    → path, or nil, message
 *   native.cwd()             → path
 *   native.who()             → "user@host", at most 128 bytes
 *   native.pid()             → of this process
 *   native.jobs()            → see jobs.h */
#pragma once

#include <lua.h>

/* A loader for package.preload["mpreg.native"]: pushes the module. */
int mp_client_open(lua_State *L);
