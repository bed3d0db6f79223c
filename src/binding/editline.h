/* The C side of `require "mpreg.editline"`: lines typed at a terminal, with editing, history and
 * completion, over libedit. One editor a process; only `mpreg repl` loads it.
 *
 *   editline.open(program, entries_max, function(text) … end)
 *     `text` is the line up to the cursor; the function, called on Tab, gives
 *       nothing                 there is nothing to complete
 *       from, insert, list      from byte `from` of the line (1-based) up to the cursor stands
 *                               `insert` instead; `list`, if not nil, is shown below
 *     An error in it counts as nothing.
 *   line = editline.read(prompt)   without its line end; blocks
 *     nil, "interrupt"             Ctrl-C: what was typed is dropped
 *     nil, "end"                   Ctrl-D on an empty line, or the terminal is gone
 *   editline.close()               the terminal is as it was; later `open` may be called again
 *   editline.remember(text)        the newest entry of the history; it may have several lines
 *   editline.store(path, text, is_whole)   → true, or nil and why not
 *     Appends to a file that its owner alone can read (or, whole, replaces it), and makes its
 *     folders.
 *
 * While it is open an interrupt outside of `read` and of requests is passed over: it is meant for
 * what has just ended. */
#pragma once

#include <lua.h>

/* A loader for package.preload["mpreg.editline"]: pushes the module. */
int mp_editline_open(lua_State *L);
