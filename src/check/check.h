/* The process in which a unit is loaded before it is deployed: whatever goes wrong there harms
 * nobody. The host (src/host/check.c) starts it and says what to load; what it means to load and
 * describe a module is Lua's matter (lua/mpreg/runtime/check.lua). */
#pragma once

/* Tries one unit. argv: the host's process id, and the folder of the Lua library. Descriptor 3 is
 * the socket to the host. Returns the exit code: 0 once it has answered. */
int mp_check_main(int argc, char **argv);
