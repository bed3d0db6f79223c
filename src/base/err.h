/* What a function of ours can report to its caller. One list: name and text.
 * What a *user* is told is an ERROR object (wire/error.h); these are for us. */
#pragma once

#define MP_ERR_LIST(X)                                                                             \
    X(MP_OK, "success")                                                                            \
    X(MP_ENOMEM, "out of memory, or a memory limit was reached")                                   \
    X(MP_EINVAL, "an argument is not acceptable")                                                  \
    X(MP_EAGAIN, "more bytes are needed")                                                          \
    X(MP_ECORRUPT, "the bytes are not in the expected format")                                     \
    X(MP_ETOOLARGE, "a size is over its limit")                                                    \
    X(MP_EDEPTH, "nesting is over its limit")                                                      \
    X(MP_ENOENT, "there is no such thing")                                                         \
    X(MP_EEXIST, "there is one already")                                                           \
    X(MP_EFULL, "a queue or table is full")                                                        \
    X(MP_ETYPE, "the value has another type")                                                      \
    X(MP_ERANGE, "a number is out of range")                                                       \
    X(MP_EIO, "the operating system refused")                                                      \
    X(MP_ECLOSED, "the other side closed")                                                         \
    X(MP_ETIMEDOUT, "the time was up")                                                             \
    X(MP_ECANCELLED, "it was cancelled")

enum mp_err {
#define MP_ERR_ENUM(name, text) name,
    MP_ERR_LIST(MP_ERR_ENUM)
#undef MP_ERR_ENUM
        MP_ERR_COUNT
};

/* A static English text; never NULL. */
const char *mp_err_text(enum mp_err err);
/* The constant's name, such as "MP_ENOMEM"; never NULL. */
const char *mp_err_name(enum mp_err err);

/* Returns the error of an expression from the function around it. */
#define MP_TRY(expression)                                                                         \
    do {                                                                                           \
        enum mp_err try_err = (expression);                                                        \
        if (try_err != MP_OK)                                                                      \
            return try_err;                                                                        \
    } while (0)
