/* Paths of references, `.key`, `["any key"]`, `[n]`, walked over MessagePack bytes: what is found
 * is cut out as a slice, nothing is decoded. A path is checked when the graph is loaded; walking
 * relies on that. */
#include "src/core/graph/graph_internal.h"

/* More digits than any list has elements are still an index: one that is missing. */
#define INDEX_MAX (INT64_MAX / 16)

struct segment {
    bool is_index;
    int64_t index;
    struct mp_slice key; /* with its backslashes */
};

static bool is_key_byte(uint8_t c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-';
}

static bool take_bare_key(struct mp_slice path, size_t *at, struct segment *s)
{
    size_t first = *at;
    while (*at < path.size && is_key_byte(path.data[*at]))
        ++*at;
    s->is_index = false;
    s->key = mp_slice_of(path.data + first, *at - first);
    return s->key.size != 0;
}

/* After `["`: the key up to `"]`. A backslash keeps the next byte as it is. */
static bool take_quoted_key(struct mp_slice path, size_t *at, struct segment *s)
{
    size_t first = *at;
    while (*at < path.size && path.data[*at] != '"')
        *at += path.data[*at] == '\\' ? 2 : 1;
    if (*at + 1 >= path.size || path.data[*at + 1] != ']')
        return false;
    s->is_index = false;
    s->key = mp_slice_of(path.data + first, *at - first);
    *at += 2;
    return true;
}

/* After `[`: a number other than 0 up to `]`. */
static bool take_index(struct mp_slice path, size_t *at, struct segment *s)
{
    bool is_negative = *at < path.size && path.data[*at] == '-';
    *at += is_negative;
    size_t first = *at;
    int64_t n = 0;
    while (*at < path.size && path.data[*at] >= '0' && path.data[*at] <= '9') {
        n = n > INDEX_MAX ? n : n * 10 + (path.data[*at] - '0');
        ++*at;
    }
    if (*at == first || n == 0 || *at >= path.size || path.data[*at] != ']')
        return false;
    ++*at;
    s->is_index = true;
    s->index = is_negative ? -n : n;
    return true;
}

/* The segment at `*at`, which moves behind it; false if there is none that is well-formed. */
static bool take_segment(struct mp_slice path, bool may_be_bare, size_t *at, struct segment *s)
{
    if (*at >= path.size)
        return false;
    if (path.data[*at] == '.') {
        ++*at;
        return take_bare_key(path, at, s);
    }
    if (path.data[*at] != '[')
        return may_be_bare && take_bare_key(path, at, s);
    ++*at;
    if (*at < path.size && path.data[*at] == '"') {
        ++*at;
        return take_quoted_key(path, at, s);
    }
    return take_index(path, at, s);
}

bool mp_graph_path_is_valid(struct mp_slice path, bool is_item)
{
    size_t at = 0;
    struct segment s;
    if (is_item && path.size != 0 && path.data[0] == '.')
        return false;
    while (at < path.size)
        if (!take_segment(path, is_item && at == 0, &at, &s))
            return false;
    return true;
}

static bool is_key(struct mp_slice written, struct mp_slice key)
{
    size_t k = 0;
    for (size_t i = 0; i < written.size; i++) {
        if (written.data[i] == '\\' && i + 1 < written.size)
            i++;
        if (k >= key.size || key.data[k] != written.data[i])
            return false;
        k++;
    }
    return k == key.size;
}

static enum mp_err find_key(struct mp_slice map, struct mp_slice key, struct mp_slice *found)
{
    uint32_t count;
    struct mp_mp_reader r;
    if (mp_mp_get_map(map, &count, &r) != MP_OK)
        return MP_ENOENT;
    for (uint32_t i = 0; i < count; i++) {
        struct mp_slice name;
        struct mp_slice text;
        if (mp_mp_take(&r, &name) != MP_OK)
            return MP_ENOENT;
        bool is_it = mp_mp_get_str(name, &text) == MP_OK && is_key(key, text);
        if (is_it)
            return mp_mp_take(&r, found) == MP_OK ? MP_OK : MP_ENOENT;
        if (mp_mp_skip(&r) != MP_OK)
            return MP_ENOENT;
    }
    return MP_ENOENT;
}

static enum mp_err find_index(struct mp_slice array, int64_t index, struct mp_slice *found)
{
    uint32_t count;
    struct mp_mp_reader r;
    if (mp_mp_get_array(array, &count, &r) != MP_OK)
        return MP_ENOENT;
    int64_t at = index > 0 ? index - 1 : (int64_t)count + index;
    if (at < 0 || at >= (int64_t)count)
        return MP_ENOENT;
    return mp_mp_array_get(array, (uint32_t)at, found) == MP_OK ? MP_OK : MP_ENOENT;
}

enum mp_err mp_graph_path_walk(struct mp_slice value, struct mp_slice path, struct mp_slice *found,
                               size_t *stopped_at, struct mp_slice *inside)
{
    size_t at = 0;
    while (at < path.size) {
        size_t before = at;
        struct segment s;
        bool is_valid = take_segment(path, at == 0, &at, &s);
        mp_assert(is_valid);
        struct mp_slice next;
        enum mp_err err =
            s.is_index ? find_index(value, s.index, &next) : find_key(value, s.key, &next);
        if (err != MP_OK) {
            *stopped_at = before;
            *inside = value;
            return MP_ENOENT;
        }
        value = next;
    }
    *found = value;
    return MP_OK;
}

struct mp_slice mp_graph_path_head(struct mp_slice reference)
{
    size_t at = 0;
    while (at < reference.size && reference.data[at] != '.' && reference.data[at] != '[')
        at++;
    return mp_slice_of(reference.data, at);
}
