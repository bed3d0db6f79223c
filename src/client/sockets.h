/* Connections of load generators: plain sockets on which both prefaces were exchanged. It blocks.
 */
#pragma once

#include <signal.h>

#include "src/base/buf.h"
#include "src/base/compiler.h"
#include "src/base/err.h"
#include "src/wire/error.h"

struct mp_sockets_config {
    const char *const *nodes; /* as for mp_client_connect */
    uint32_t nodes_count;
    const volatile sig_atomic_t *interrupts; /* the first ends it; may be NULL */
};

/* Makes `count` connections, non-blocking, to the first node that answers. MP_ECLOSED: not all
 * could be made, none is open, and `error` holds the ERROR map that says why. */
MP_MUST_USE enum mp_err mp_sockets_connect(const struct mp_sockets_config *config, uint32_t count,
                                           int *fds, struct mp_buf *error);
/* Makes the ERROR map `error`, in place of what it held: MP_ECLOSED, or MP_ENOMEM. */
MP_MUST_USE enum mp_err mp_sockets_refuse(struct mp_buf *error, enum mp_code code,
                                          const char *reason, const char *message,
                                          const char *hint);
