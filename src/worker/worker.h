/* The worker process: runs Lua functions for its host, see worker.c. */
#pragma once

/* The whole life of a worker: argv[1] is the host's process id; descriptors are those of enum
 * mp_worker_fd. Returns the exit code. */
int mp_worker_main(int argc, char **argv);
