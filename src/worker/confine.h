/* What a process that runs user code gives up when it starts: it dies with its host, writes no core
 * file, gains no privileges, leaves the terminal's signals to the host, and has a bound on memory.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/* `host` is the host's process id as text. Ends the process if that is not its parent (any more).
 * False with a static text in `*why`. */
bool mp_confine(const char *host, const char **why);
/* The backstop behind Lua's own limit. False: it cannot be set. */
bool mp_confine_memory(size_t lua_bytes_max);
