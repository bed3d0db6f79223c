/* See out.h. Text is made here without the C library's formatting, which core code does not import;
 * long names are cut at a whole UTF-8 character, so that a hostile graph cannot blow messages up.
 */
#include "src/core/graph/out.h"

#include <stdarg.h>

#define SHOWN_BYTES_MAX 100
#define DECIMALS        6
#define DECIMALS_SCALE  1000000u

/* The lowest `count` bytes of a number, the highest first, after a mark that says how many. */
static uint8_t *put_marked(uint8_t *at, uint8_t mark, uint64_t v, unsigned count)
{
    *at++ = mark;
    while (count-- > 0)
        *at++ = (uint8_t)(v >> (8 * count));
    return at;
}

uint8_t *mp_at_large_uint(uint8_t *at, uint64_t v)
{
    if (v <= UINT8_MAX)
        return put_marked(at, 0xcc, v, 1);
    if (v <= UINT16_MAX)
        return put_marked(at, 0xcd, v, 2);
    return v <= UINT32_MAX ? put_marked(at, 0xce, v, 4) : put_marked(at, 0xcf, v, 8);
}

uint8_t *mp_at_large_str_head(uint8_t *at, size_t size)
{
    mp_assert(size <= UINT32_MAX);
    if (size <= UINT8_MAX)
        return put_marked(at, 0xd9, size, 1);
    return size <= UINT16_MAX ? put_marked(at, 0xda, size, 2) : put_marked(at, 0xdb, size, 4);
}

uint8_t *mp_at_large_map(uint8_t *at, uint32_t pairs)
{
    return pairs <= UINT16_MAX ? put_marked(at, 0xde, pairs, 2) : put_marked(at, 0xdf, pairs, 4);
}

void mp_out_large_uint(struct mp_out *o, uint64_t v)
{
    if (o->err == MP_OK)
        o->err = mp_mp_put_uint(o->b, v);
}

void mp_out_float(struct mp_out *o, double v)
{
    uint8_t *at = mp_out_room(o, 9);
    if (at)
        mp_at_float(at, v);
}

void mp_out_str(struct mp_out *o, struct mp_slice s)
{
    if (s.size > MP_OUT_SHORT_MAX) {
        o->err = o->err != MP_OK ? o->err : mp_mp_put_str(o->b, s);
        return;
    }
    uint8_t *at = mp_out_room(o, 1 + s.size);
    if (at)
        mp_at_str(at, s);
}

void mp_out_large_array(struct mp_out *o, uint32_t count)
{
    if (o->err == MP_OK)
        o->err = mp_mp_put_array(o->b, count);
}

void mp_out_large_map(struct mp_out *o, uint32_t pairs)
{
    if (o->err == MP_OK)
        o->err = mp_mp_put_map(o->b, pairs);
}

void mp_out_ms(struct mp_out *o, mp_duration d)
{
    uint8_t *at = mp_out_room(o, MP_AT_MS_MAX);
    if (at)
        mp_at_ms(at, d);
}

void mp_out_bytes(struct mp_out *o, struct mp_slice s)
{
    if (o->err == MP_OK)
        o->err = mp_buf_append(o->b, s);
}

static void put_clipped(struct mp_out *o, struct mp_slice s)
{
    size_t size = s.size;
    if (size > SHOWN_BYTES_MAX) {
        size = SHOWN_BYTES_MAX;
        while (size > 0 && (s.data[size] & 0xc0) == 0x80)
            size--;
    }
    mp_out_bytes(o, mp_slice_of(s.data, size));
    if (size < s.size)
        mp_out_bytes(o, mp_slice_str("…"));
}

static void put_decimal(struct mp_out *o, uint64_t v)
{
    char digits[20];
    size_t at = sizeof(digits);
    do {
        digits[--at] = (char)('0' + v % 10);
        v /= 10;
    } while (v != 0);
    mp_out_bytes(o, mp_slice_of(digits + at, sizeof(digits) - at));
}

void mp_out_say(struct mp_out *o, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    while (*format != '\0') {
        size_t plain = 0;
        while (format[plain] != '\0' && format[plain] != '%')
            plain++;
        mp_out_bytes(o, mp_slice_of(format, plain));
        format += plain;
        if (*format == '\0')
            break;
        if (format[1] == 's')
            put_clipped(o, va_arg(args, struct mp_slice));
        else if (format[1] == 't')
            mp_out_bytes(o, mp_slice_str(va_arg(args, const char *)));
        else
            put_decimal(o, va_arg(args, uint64_t));
        format += 2;
    }
    va_end(args);
}

void mp_out_number(struct mp_out *o, double v)
{
    if (v != v) {
        mp_out_say(o, "nan");
        return;
    }
    if (v < 0) {
        mp_out_say(o, "-");
        v = -v;
    }
    if (v >= 9007199254740992.0) {
        mp_out_say(o, v > 1.7976931348623157e308 ? "inf" : "over 2^53");
        return;
    }
    uint64_t whole = (uint64_t)v;
    uint64_t part = (uint64_t)((v - (double)whole) * DECIMALS_SCALE + 0.5);
    if (part >= DECIMALS_SCALE) {
        whole++;
        part = 0;
    }
    put_decimal(o, whole);
    if (part == 0)
        return;
    char digits[DECIMALS + 1] = ".";
    size_t count = 1;
    for (uint64_t scale = DECIMALS_SCALE / 10; part != 0; scale /= 10) {
        digits[count++] = (char)('0' + part / scale);
        part %= scale;
    }
    mp_out_bytes(o, mp_slice_of(digits, count));
}
