/* See text.h. */
#include "src/base/text.h"

#include "src/base/assert.h"

void mp_text_init(struct mp_text *t, char *data, size_t capacity)
{
    mp_assert(capacity > 0);
    *t = (struct mp_text){.data = data, .capacity = capacity};
    data[0] = '\0';
}

void mp_text_put(struct mp_text *t, const char *s)
{
    mp_text_put_slice(t, mp_slice_str(s));
}

void mp_text_put_slice(struct mp_text *t, struct mp_slice s)
{
    size_t i = 0;
    while (i < s.size) {
        struct mp_slice rest = mp_slice_of(s.data + i, s.size - i);
        size_t length = mp_slice_utf8_length(rest);
        bool is_shown = length != 0 && rest.data[0] >= 0x20 && rest.data[0] != 0x7f &&
                        !(rest.data[0] == 0xc2 && rest.data[1] < 0xa0);
        i += length == 0 ? 1 : length;
        if (!is_shown)
            rest = mp_slice_of("?", 1);
        length = is_shown ? length : 1;
        if (length > t->capacity - 1 - t->size)
            break;
        memcpy(t->data + t->size, rest.data, length);
        t->size += length;
    }
    t->data[t->size] = '\0';
}

void mp_text_put_uint(struct mp_text *t, uint64_t v)
{
    char digits[20];
    size_t at = sizeof(digits);
    do {
        digits[--at] = (char)('0' + v % 10);
        v /= 10;
    } while (v != 0);
    mp_text_put_slice(t, mp_slice_of(digits + at, sizeof(digits) - at));
}

void mp_text_put_bytes(struct mp_text *t, uint64_t bytes)
{
    static const char *const units[] = {" bytes", " KiB", " MiB", " GiB"};
    size_t unit = 0;
    while (unit < 3 && bytes >= 1024 && bytes % 1024 == 0) {
        bytes /= 1024;
        unit++;
    }
    mp_text_put_uint(t, bytes);
    mp_text_put(t, units[unit]);
}
