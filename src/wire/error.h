/* The ERROR object that users see, wherever a failure happened: a MessagePack map with the keys
 * code, reason, message, hint, fun, step, index, node, version, attempt, traceback, cause, faults.
 * Absent fields are left out. */
#pragma once

#include "src/base/buf.h"
#include "src/base/err.h"
#include "src/base/slice.h"

/* The canonical RPC codes: name, HTTP status, whether `retries` covers it. */
#define MP_CODE_LIST(X)                                                                            \
    X(CANCELLED, 499, false)                                                                       \
    X(UNKNOWN, 500, true)                                                                          \
    X(INVALID_ARGUMENT, 400, false)                                                                \
    X(DEADLINE_EXCEEDED, 504, true)                                                                \
    X(NOT_FOUND, 404, false)                                                                       \
    X(ALREADY_EXISTS, 409, false)                                                                  \
    X(PERMISSION_DENIED, 403, false)                                                               \
    X(RESOURCE_EXHAUSTED, 429, true)                                                               \
    X(FAILED_PRECONDITION, 412, false)                                                             \
    X(ABORTED, 409, true)                                                                          \
    X(OUT_OF_RANGE, 400, false)                                                                    \
    X(UNIMPLEMENTED, 501, false)                                                                   \
    X(INTERNAL, 500, true)                                                                         \
    X(UNAVAILABLE, 503, true)                                                                      \
    X(DATA_LOSS, 500, false)                                                                       \
    X(UNAUTHENTICATED, 401, false)

enum mp_code {
    MP_CODE_NONE = 0,
#define MP_CODE_ENUM(name, http, retry) MP_CODE_##name,
    MP_CODE_LIST(MP_CODE_ENUM)
#undef MP_CODE_ENUM
        MP_CODE_COUNT
};

const char *mp_code_name(enum mp_code code);
/* MP_CODE_NONE if the text names none. */
enum mp_code mp_code_of(struct mp_slice name);
bool mp_code_is_retried(enum mp_code code);

/* A failure before it is encoded. Slices are borrowed; empty ones (and 0, MP_CODE_NONE) are left
 * out. `traceback`, `cause` and `faults` are encoded values. */
struct mp_fault {
    enum mp_code code;
    struct mp_slice reason;
    struct mp_slice message;
    struct mp_slice hint;
    struct mp_slice fun;
    struct mp_slice step;
    int64_t index; /* from 1; 0: none */
    struct mp_slice node;
    struct mp_slice version;
    int64_t attempt; /* from 1; 0: none */
    struct mp_slice traceback;
    struct mp_slice cause;
    struct mp_slice faults;
    /* From reading: the function said retry = false. */
    bool is_final;
};

/* Appends the ERROR map. */
MP_MUST_USE enum mp_err mp_fault_put(struct mp_buf *b, const struct mp_fault *f);
/* Reads an ERROR map; slices point into `bytes`. Unknown keys are passed over. A code that is not
 * canonical becomes MP_CODE_UNKNOWN and, if there is no reason, the reason. Anything that is no
 * map: MP_ETYPE or MP_ECORRUPT. */
MP_MUST_USE enum mp_err mp_fault_read(struct mp_slice bytes, struct mp_fault *f);
/* Appends the ERROR map in `error` with the fields of `extra` added where it lacks them; other keys
 * stay as they are. */
MP_MUST_USE enum mp_err mp_fault_put_extended(struct mp_buf *b, struct mp_slice error,
                                              const struct mp_fault *extra);
