/* What a command that stays waits for, besides answers of nodes: files that are saved, processes
 * that it has started, and signals. Part of `mpreg.native`.
 *
 *   jobs = native.jobs()       from now on SIGINT, SIGTERM and SIGHUP are events of `wait`
 *   number = jobs:watch(path)  of a folder; or nil, message. A folder has one number, however often
 *                              it is watched and by whatever path
 *   pid = jobs:start(words)    a program (words[1]; a path) and its arguments, in a session of its
 *                              own: what a terminal sends does not reach it. Its stdin is empty;
 *                              or nil, message
 *   jobs:signal(pid, number)   does nothing once it has ended
 *   event = jobs:wait(ms)      the next event; nil after `ms` without one. Without `ms`: for ever
 *     {kind = "signal", number}
 *     {kind = "saved", watch, name}    a file was written and closed, or renamed to that name
 *     {kind = "made", watch, name}     something else came: a folder, a link
 *     {kind = "gone", watch, name}     something is no longer there under that name
 *     {kind = "lost", watch}           the folder itself is gone, and its number; without `watch`:
 *                                      there was too much to tell, anything may have happened
 *     {kind = "output", pid, is_error, text}
 *     {kind = "ended", pid, code, signal}      after all of its output
 *   jobs:close()               signals do again what they did; processes stay */
#pragma once

#include <lua.h>

/* Sets jobs in the table on top. */
void mp_jobs_register(lua_State *L);
