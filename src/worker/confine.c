#include "src/worker/confine.h"

#include <malloc.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

/* Large strings come and go with each call: glibc would map and unmap each of them. */
#define MMAP_THRESHOLD_BYTES (32 << 20)
#define TRIM_THRESHOLD_BYTES (64 << 20)

/* For memory that Lua's allocator does not see (FFI, machine code): twice Lua's limit, and this
 * much for the process itself. */
#define DATA_EXTRA_BYTES (256u << 20)

bool mp_confine(const char *host, const char **why)
{
    struct rlimit none = {0};
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) {
        *why = "it cannot be tied to its host";
        return false;
    }
    if (getppid() != (pid_t)strtol(host, NULL, 10))
        _exit(0);
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || setrlimit(RLIMIT_CORE, &none) != 0) {
        *why = "its rights cannot be limited";
        return false;
    }
    signal(SIGINT, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGTERM, SIG_IGN); /* the host drains, and ends its workers */
    signal(SIGHUP, SIG_IGN);
    mallopt(M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES);
    mallopt(M_TRIM_THRESHOLD, TRIM_THRESHOLD_BYTES);
    return true;
}

bool mp_confine_memory(size_t lua_bytes_max)
{
#ifdef MP_SANITIZE
    (void)lua_bytes_max; /* shadow memory counts too */
    return true;
#else
    struct rlimit r;
    if (getrlimit(RLIMIT_DATA, &r) != 0)
        return true;
    rlim_t bytes = (rlim_t)lua_bytes_max * 2 + DATA_EXTRA_BYTES;
    if (r.rlim_max == RLIM_INFINITY || bytes < r.rlim_max)
        r.rlim_max = bytes;
    r.rlim_cur = r.rlim_max;
    return setrlimit(RLIMIT_DATA, &r) == 0;
#endif
}
