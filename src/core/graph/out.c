/* See out.h. Text is made here without the C library's formatting, which core code does not import;
 * long names are cut at a whole UTF-8 character, so that a hostile graph cannot blow messages up.
 */
#include "src/core/graph/out.h"

#include <stdarg.h>

#define SHOWN_BYTES_MAX 100
#define DECIMALS        6
#define DECIMALS_SCALE  1000000u

void mp_out_float(struct mp_out *o, double v)
{
    uint8_t *at = mp_out_room(o, 9);
    if (at)
        mp_at_float(at, v);
}

void mp_out_str(struct mp_out *o, struct mp_slice s)
{
    uint8_t *at = mp_out_begin(o, MP_AT_STR_MAX(s));
    if (at)
        mp_out_end(o, mp_at_str(at, s));
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
