/* The process of a REPL session. The host (src/host/sessions.c) starts it for one connection and
 * sends it EVAL frames; what they mean is Lua's matter (lua/mpreg/session). */
#pragma once

/* The whole life of a session. argv: the host's process id, the node's HOST:PORT, its name and
 * cluster, the folder of the Lua library, the limits on Lua's memory and on a value in bytes.
 * Descriptor 3 is the socket to the host. Returns the exit code. */
int mp_session_main(int argc, char **argv);
