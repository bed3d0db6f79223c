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
    size_t room = t->capacity - 1 - t->size;
    size_t size = s.size < room ? s.size : room;
    if (size < s.size)
        while (size > 0 && (s.data[size] & 0xC0) == 0x80)
            size--;
    for (size_t i = 0; i < size; i++)
        t->data[t->size + i] = s.data[i] < 0x20 || s.data[i] == 0x7f ? '?' : (char)s.data[i];
    t->size += size;
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
