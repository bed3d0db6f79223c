/* Names and texts of enum mp_err, generated from its one list. */
#include "src/base/err.h"

static const char *const texts[] = {
#define MP_ERR_TEXT(name, text) text,
    MP_ERR_LIST(MP_ERR_TEXT)
#undef MP_ERR_TEXT
};

static const char *const names[] = {
#define MP_ERR_NAME(name, text) #name,
    MP_ERR_LIST(MP_ERR_NAME)
#undef MP_ERR_NAME
};

const char *mp_err_text(enum mp_err err)
{
    return (unsigned)err < MP_ERR_COUNT ? texts[err] : "unknown error";
}

const char *mp_err_name(enum mp_err err)
{
    return (unsigned)err < MP_ERR_COUNT ? names[err] : "MP_E?";
}
