/* The process in which a unit is loaded before it is deployed: whatever goes wrong there harms
 * nobody. The host (src/host/check.c) starts it and says what to load; what it means to load and
 * describe a module is Lua's matter (lua/mpreg/runtime/check.lua). */
#pragma once

/* Tries units, one after the other, until the host closes the socket, which is descriptor 3. argv:
 * the host's process id, and the folder of the Lua library. Returns the exit code. */
int mp_check_main(int argc, char **argv);
