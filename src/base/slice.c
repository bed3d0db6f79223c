/* Operations on byte ranges that need more than a line. */
#include "src/base/slice.h"

#define DISTANCE_NAME_MAX 64

int mp_slice_compare(struct mp_slice a, struct mp_slice b)
{
    size_t common = a.size < b.size ? a.size : b.size;
    int order = common == 0 ? 0 : memcmp(a.data, b.data, common);
    if (order != 0)
        return order;
    return a.size < b.size ? -1 : a.size > b.size;
}

uint64_t mp_slice_hash(struct mp_slice s, uint64_t seed)
{
    uint64_t hash = 0xcbf29ce484222325u ^ (seed * 0x9e3779b97f4a7c15u);
    size_t i = 0;
    for (; i + 8 <= s.size; i += 8) {
        uint64_t word;
        memcpy(&word, s.data + i, 8);
        hash = (hash ^ word) * 0xff51afd7ed558ccdu;
        hash ^= hash >> 32;
    }
    for (; i < s.size; i++)
        hash = (hash ^ s.data[i]) * 0x100000001b3u;
    hash ^= hash >> 33;
    hash *= 0xc4ceb9fe1a85ec53u;
    return hash ^ (hash >> 33);
}

static bool is_name_byte(uint8_t c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

bool mp_slice_is_name(struct mp_slice s)
{
    if (s.size == 0 || s.size > 64 || !is_name_byte(s.data[0]))
        return false;
    for (size_t i = 1; i < s.size; i++)
        if (!is_name_byte(s.data[i]) && s.data[i] != '-')
            return false;
    return true;
}

bool mp_slice_is_dotted_name(struct mp_slice s)
{
    size_t start = 0;
    for (size_t i = 0; i <= s.size; i++) {
        if (i < s.size && s.data[i] != '.')
            continue;
        if (!mp_slice_is_name(mp_slice_of(s.data + start, i - start)))
            return false;
        start = i + 1;
    }
    return true;
}

/* The length of the sequence that starts at p, or 0 if none valid does. */
static size_t utf8_length(const uint8_t *p, size_t left)
{
    uint8_t c = p[0];
    if (c < 0x80)
        return 1;
    size_t length = c >= 0xC2 && c <= 0xDF   ? 2
                    : (c & 0xF0) == 0xE0     ? 3
                    : c >= 0xF0 && c <= 0xF4 ? 4
                                             : 0;
    if (length == 0 || length > left)
        return 0;
    for (size_t i = 1; i < length; i++)
        if ((p[i] & 0xC0) != 0x80)
            return 0;
    if ((c == 0xE0 && p[1] < 0xA0) || (c == 0xED && p[1] > 0x9F) || (c == 0xF0 && p[1] < 0x90) ||
        (c == 0xF4 && p[1] > 0x8F))
        return 0;
    return length;
}

/* Bytes of plain ASCII at the front, in steps of 64: long texts are mostly that. */
static size_t ascii_front(struct mp_slice s)
{
    size_t i = 0;
    for (; i + 64 <= s.size; i += 64) {
        uint64_t words[8];
        memcpy(words, s.data + i, sizeof(words));
        uint64_t all = words[0] | words[1] | words[2] | words[3];
        all |= words[4] | words[5] | words[6] | words[7];
        if ((all & 0x8080808080808080u) != 0)
            break;
    }
    return i;
}

bool mp_slice_is_utf8(struct mp_slice s)
{
    size_t i = ascii_front(s);
    while (i < s.size) {
        uint64_t word;
        if (i + 8 <= s.size) {
            memcpy(&word, s.data + i, 8);
            if ((word & 0x8080808080808080u) == 0) {
                i += 8;
                continue;
            }
        }
        size_t length = utf8_length(s.data + i, s.size - i);
        if (length == 0)
            return false;
        i += length;
    }
    return true;
}

size_t mp_slice_utf8_length(struct mp_slice s)
{
    return utf8_length(s.data, s.size);
}

unsigned mp_slice_distance(struct mp_slice a, struct mp_slice b)
{
    if (a.size > DISTANCE_NAME_MAX || b.size > DISTANCE_NAME_MAX)
        return 99;
    uint8_t rows[3][DISTANCE_NAME_MAX + 1];
    for (size_t j = 0; j <= b.size; j++)
        rows[0][j] = (uint8_t)j;
    for (size_t i = 1; i <= a.size; i++) {
        uint8_t *now = rows[i % 3];
        const uint8_t *last = rows[(i + 2) % 3];
        const uint8_t *before = rows[(i + 1) % 3];
        now[0] = (uint8_t)i;
        for (size_t j = 1; j <= b.size; j++) {
            unsigned best = last[j - 1] + (a.data[i - 1] != b.data[j - 1]);
            best = last[j] + 1u < best ? last[j] + 1u : best;
            best = now[j - 1] + 1u < best ? now[j - 1] + 1u : best;
            if (i > 1 && j > 1 && a.data[i - 1] == b.data[j - 2] &&
                a.data[i - 2] == b.data[j - 1] && before[j - 2] + 1u < best)
                best = before[j - 2] + 1u;
            now[j] = (uint8_t)best;
        }
    }
    return rows[a.size % 3][b.size];
}
