/* Processes of our own program that are no workers: they speak with the host over one socket. */
#include <stdlib.h>

#include "src/host/host_internal.h"

static void on_closed(uv_handle_t *handle)
{
    free(handle);
}

void mp_host_close_process(uv_process_t *process)
{
    uv_close((uv_handle_t *)process, on_closed);
}

uv_process_t *mp_host_spawn(struct mp_host *h, const char *what, const char *const *args, int fd,
                            uv_exit_cb on_exit, void *context)
{
    const int fds[] = {-1, 2, 2, fd};
    uv_stdio_container_t stdio[MP_ARRAY_SIZE(fds)];
    for (size_t i = 0; i < MP_ARRAY_SIZE(fds); i++) {
        stdio[i].flags = fds[i] < 0 ? UV_IGNORE : UV_INHERIT_FD;
        stdio[i].data.fd = fds[i];
    }
    const uv_process_options_t options = {.file = "/proc/self/exe",
                                          .args = (char **)(uintptr_t)args,
                                          .stdio = stdio,
                                          .stdio_count = MP_ARRAY_SIZE(fds),
                                          .exit_cb = on_exit};
    uv_process_t *process = mp_xalloc(sizeof(*process));
    process->data = context;
    int err = uv_spawn(&h->loop, process, &options);
    if (err == 0)
        return process;
    mp_log(3, "%s could not be started: %s", what, uv_strerror(err));
    mp_host_close_process(process);
    return NULL;
}
