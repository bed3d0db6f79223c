/* See path.h. A part goes in whole or not at all: the first that does not fit is replaced by an
 * ellipsis, and those after it are dropped, so a text never ends in half an escape. */
#include "src/wire/path.h"

#include "src/base/assert.h"

#define KEY_SHOWN_MAX 64
#define ELLIPSIS      "\xe2\x80\xa6"
/* `["`, each byte as \xNN, an ellipsis, `"]` */
#define PART_BYTES_MAX (2 + 4 * KEY_SHOWN_MAX + 3 + 2)

void mp_path_init(struct mp_path *p, char *text, size_t capacity)
{
    mp_assert(capacity >= 8);
    *p = (struct mp_path){.text = text, .capacity = capacity};
    text[0] = '\0';
}

void mp_path_add_text(struct mp_path *p, struct mp_slice text)
{
    if (p->is_full)
        return;
    /* an ellipsis and the NUL fit always */
    if (p->size + text.size + 4 > p->capacity) {
        text = mp_slice_str(ELLIPSIS);
        p->is_full = true;
    }
    if (text.size != 0)
        memcpy(p->text + p->size, text.data, text.size);
    p->size += text.size;
    p->text[p->size] = '\0';
}

static bool is_plain(struct mp_slice key)
{
    if (key.size == 0 || key.size > KEY_SHOWN_MAX)
        return false;
    for (size_t i = 0; i < key.size; i++) {
        uint8_t c = key.data[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
              c == '_' || c == '-'))
            return false;
    }
    return true;
}

static size_t put_escaped(char *out, uint8_t c, bool is_utf8)
{
    static const char digits[] = "0123456789abcdef";
    if (c == '"' || c == '\\') {
        out[0] = '\\';
        out[1] = (char)c;
        return 2;
    }
    if (c >= 0x20 && c != 0x7f && (c < 0x80 || is_utf8)) {
        out[0] = (char)c;
        return 1;
    }
    out[0] = '\\';
    out[1] = 'x';
    out[2] = digits[c >> 4];
    out[3] = digits[c & 15];
    return 4;
}

void mp_path_add_key(struct mp_path *p, struct mp_slice key)
{
    char part[PART_BYTES_MAX];
    size_t size = 0;
    if (is_plain(key)) {
        part[size++] = '.';
        memcpy(part + size, key.data, key.size);
        mp_path_add_text(p, mp_slice_of(part, size + key.size));
        return;
    }
    size_t shown = key.size <= KEY_SHOWN_MAX ? key.size : KEY_SHOWN_MAX;
    /* cut before, not inside, a sequence of several bytes */
    while (shown < key.size && shown != 0 && (key.data[shown] & 0xC0) == 0x80)
        shown--;
    /* C1 controls (U+0080 to U+009F) move a terminal's cursor too: then all of it is escaped */
    bool is_utf8 = mp_slice_is_utf8(mp_slice_of(key.data, shown));
    for (size_t i = 0; is_utf8 && i + 1 < shown; i++)
        is_utf8 = key.data[i] != 0xC2 || key.data[i + 1] >= 0xA0;
    part[size++] = '[';
    part[size++] = '"';
    for (size_t i = 0; i < shown; i++)
        size += put_escaped(part + size, key.data[i], is_utf8);
    if (shown < key.size) {
        memcpy(part + size, ELLIPSIS, 3);
        size += 3;
    }
    part[size++] = '"';
    part[size++] = ']';
    mp_assert(size <= sizeof(part));
    mp_path_add_text(p, mp_slice_of(part, size));
}

void mp_path_add_index(struct mp_path *p, uint64_t index)
{
    char part[24];
    size_t at = sizeof(part);
    part[--at] = ']';
    do {
        part[--at] = (char)('0' + index % 10);
        index /= 10;
    } while (index != 0);
    part[--at] = '[';
    mp_path_add_text(p, mp_slice_of(part + at, sizeof(part) - at));
}
