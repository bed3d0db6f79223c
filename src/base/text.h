/* English for people, built in a fixed array: what does not fit is cut, never overrun. The result
 * is always NUL-terminated. Core code has no snprintf; this is what it uses instead. */
#pragma once

#include "src/base/slice.h"

struct mp_text {
    char *data;
    size_t size; /* without the NUL */
    size_t capacity;
};

/* Over a caller's array of `capacity` > 0 bytes. */
void mp_text_init(struct mp_text *t, char *data, size_t capacity);
void mp_text_put(struct mp_text *t, const char *s);
/* Cuts at a UTF-8 boundary. Control characters and bytes that are no UTF-8 become '?': the text may
 * go into an ERROR object or onto a terminal. */
void mp_text_put_slice(struct mp_text *t, struct mp_slice s);
void mp_text_put_uint(struct mp_text *t, uint64_t v);
/* A size as people read it: "64 MiB", "1200 bytes". */
void mp_text_put_bytes(struct mp_text *t, uint64_t bytes);

static inline struct mp_slice mp_text_slice(const struct mp_text *t)
{
    return (struct mp_slice){.data = (const uint8_t *)t->data, .size = t->size};
}
