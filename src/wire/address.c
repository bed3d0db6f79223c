/* See address.h. */
#include "src/wire/address.h"

static bool read_number(struct mp_slice *s, unsigned base, uint32_t max, uint32_t *out)
{
    uint32_t value = 0;
    size_t at = 0;
    for (; at < s->size; at++) {
        uint8_t c = s->data[at];
        unsigned digit = c >= '0' && c <= '9'                 ? (unsigned)(c - '0')
                         : base == 16 && c >= 'a' && c <= 'f' ? (unsigned)(c - 'a') + 10
                         : base == 16 && c >= 'A' && c <= 'F' ? (unsigned)(c - 'A') + 10
                                                              : 99;
        if (digit >= base)
            break;
        value = value * base + digit;
        if (value > max)
            return false;
    }
    if (at == 0)
        return false;
    *s = mp_slice_of(s->data + at, s->size - at);
    *out = value;
    return true;
}

static bool take(struct mp_slice *s, char c)
{
    if (s->size == 0 || s->data[0] != (uint8_t)c)
        return false;
    *s = mp_slice_of(s->data + 1, s->size - 1);
    return true;
}

static bool read_v4(struct mp_slice *s, uint8_t out[4])
{
    for (int i = 0; i < 4; i++) {
        uint32_t part;
        if ((i != 0 && !take(s, '.')) || !read_number(s, 10, 255, &part))
            return false;
        out[i] = (uint8_t)part;
    }
    return true;
}

/* Groups of 16 bits with at most one "::", without zones and embedded IPv4. */
static bool read_v6(struct mp_slice *s, uint8_t out[16])
{
    uint16_t groups[8];
    int count = 0;
    int gap = -1;
    if (s->size >= 2 && s->data[0] == ':' && s->data[1] == ':') {
        gap = 0;
        *s = mp_slice_of(s->data + 2, s->size - 2);
    }
    while (count < 8 && s->size != 0 && s->data[0] != ']') {
        uint32_t group;
        if (!read_number(s, 16, 0xffff, &group))
            return false;
        groups[count++] = (uint16_t)group;
        if (s->size == 0 || s->data[0] == ']')
            break;
        if (!take(s, ':'))
            return false;
        if (s->size != 0 && s->data[0] == ':') {
            if (gap >= 0)
                return false;
            gap = count;
            (void)take(s, ':');
        } else if (s->size == 0 || s->data[0] == ']') {
            return false;
        }
    }
    if (gap < 0 ? count != 8 : count > 7)
        return false;
    memset(out, 0, 16);
    for (int i = 0; i < count; i++) {
        int at = gap >= 0 && i >= gap ? 8 - count + i : i;
        out[2 * at] = (uint8_t)(groups[i] >> 8);
        out[2 * at + 1] = (uint8_t)groups[i];
    }
    return true;
}

enum mp_err mp_address_read(struct mp_slice text, struct mp_address *a)
{
    struct mp_address read = {0};
    struct mp_slice s = text;
    uint32_t port;
    if (take(&s, '[')) {
        if (!read_v6(&s, read.bytes) || !take(&s, ']'))
            return MP_EINVAL;
        read.size = 18;
    } else {
        if (!read_v4(&s, read.bytes))
            return MP_EINVAL;
        read.size = 6;
    }
    if (!take(&s, ':') || !read_number(&s, 10, 65535, &port) || s.size != 0)
        return MP_EINVAL;
    read.bytes[read.size - 2] = (uint8_t)(port >> 8);
    read.bytes[read.size - 1] = (uint8_t)port;
    *a = read;
    return MP_OK;
}

enum mp_err mp_address_of_bytes(struct mp_slice bytes, struct mp_address *a)
{
    if (bytes.size != 6 && bytes.size != 18)
        return MP_ECORRUPT;
    *a = (struct mp_address){.size = (uint8_t)bytes.size};
    memcpy(a->bytes, bytes.data, bytes.size);
    return MP_OK;
}

uint16_t mp_address_port(const struct mp_address *a)
{
    if (a->size == 0)
        return 0;
    return (uint16_t)(a->bytes[a->size - 2] << 8 | a->bytes[a->size - 1]);
}

static void put_hex(struct mp_text *t, unsigned group)
{
    static const char digits[] = "0123456789abcdef";
    char text[5] = {0};
    int at = 0;
    for (int shift = 12; shift >= 0; shift -= 4)
        if (at != 0 || shift == 0 || group >> shift != 0)
            text[at++] = digits[group >> shift & 15];
    mp_text_put(t, text);
}

static unsigned group_at(const struct mp_address *a, int i)
{
    return (unsigned)a->bytes[2 * i] << 8 | a->bytes[2 * i + 1];
}

/* The longest run of at least two zero groups becomes "::", the first of equals. */
static void put_v6(struct mp_text *t, const struct mp_address *a)
{
    int best = -1;
    int best_size = 1;
    for (int i = 0; i < 8; i++) {
        int size = 0;
        while (i + size < 8 && group_at(a, i + size) == 0)
            size++;
        if (size > best_size) {
            best = i;
            best_size = size;
        }
        if (size != 0)
            i += size - 1;
    }
    mp_text_put(t, "[");
    for (int i = 0; i < 8; i++) {
        if (i == best) {
            mp_text_put(t, "::");
            i += best_size - 1;
            continue;
        }
        if (i != 0 && i != best + best_size)
            mp_text_put(t, ":");
        put_hex(t, group_at(a, i));
    }
    mp_text_put(t, "]");
}

void mp_address_put(struct mp_text *t, const struct mp_address *a)
{
    if (a->size == 0)
        return;
    if (a->size == 18) {
        put_v6(t, a);
    } else {
        for (int i = 0; i < 4; i++) {
            mp_text_put(t, i == 0 ? "" : ".");
            mp_text_put_uint(t, a->bytes[i]);
        }
    }
    mp_text_put(t, ":");
    mp_text_put_uint(t, mp_address_port(a));
}

bool mp_address_equal(const struct mp_address *a, const struct mp_address *b)
{
    return a->size == b->size && memcmp(a->bytes, b->bytes, a->size) == 0;
}
