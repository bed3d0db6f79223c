/* Writing long maps and messages without checking every single put: the first error sticks, and is
 * looked at once, at the end. */
#pragma once

#include "src/base/buf.h"
#include "src/base/time.h"
#include "src/wire/msgpack.h"

struct mp_out {
    struct mp_buf *b;
    enum mp_err err;
};

static inline struct mp_out mp_out_of(struct mp_buf *b)
{
    return (struct mp_out){.b = b, .err = MP_OK};
}

/* MessagePack */
void mp_out_nil(struct mp_out *o);
void mp_out_bool(struct mp_out *o, bool v);
void mp_out_uint(struct mp_out *o, uint64_t v);
void mp_out_float(struct mp_out *o, double v);
void mp_out_str(struct mp_out *o, struct mp_slice s);
/* Inline, so that the lengths of keys are known when this is compiled. */
static inline void mp_out_text(struct mp_out *o, const char *text)
{
    mp_out_str(o, mp_slice_str(text));
}
/* An empty slice is nil. */
void mp_out_str_or_nil(struct mp_out *o, struct mp_slice s);
void mp_out_array(struct mp_out *o, uint32_t count);
void mp_out_map(struct mp_out *o, uint32_t pairs);
/* An encoded value; nil for an empty slice. */
void mp_out_raw(struct mp_out *o, struct mp_slice s);
/* Milliseconds, rounded to a microsecond. */
void mp_out_ms(struct mp_out *o, mp_duration d);

/* Plain text: %s a struct mp_slice (cut if it is long), %t a const char *, %u a uint64_t. */
void mp_out_say(struct mp_out *o, const char *format, ...);
void mp_out_bytes(struct mp_out *o, struct mp_slice s);
/* A number as text: integers whole, others with at most six decimals. */
void mp_out_number(struct mp_out *o, double v);
