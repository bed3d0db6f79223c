/* A borrowed range of bytes. It never owns; whoever made it says how long it lives. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct mp_slice {
    const uint8_t *data; /* may be NULL if size is 0 */
    size_t size;
};

static inline struct mp_slice mp_slice_of(const void *data, size_t size)
{
    return (struct mp_slice){.data = (const uint8_t *)data, .size = size};
}

/* From a NUL-terminated string, without the NUL. */
static inline struct mp_slice mp_slice_str(const char *text)
{
    return (struct mp_slice){.data = (const uint8_t *)text, .size = strlen(text)};
}

static inline bool mp_slice_equal(struct mp_slice a, struct mp_slice b)
{
    return a.size == b.size && (a.size == 0 || memcmp(a.data, b.data, a.size) == 0);
}

static inline bool mp_slice_is(struct mp_slice a, const char *text)
{
    return mp_slice_equal(a, mp_slice_str(text));
}

/* Order by bytes, shorter first on a common prefix: <0, 0 or >0. */
int mp_slice_compare(struct mp_slice a, struct mp_slice b);
/* FNV-1a with a final mix; `seed` separates tables. Not for untrusted floods without a seed. */
uint64_t mp_slice_hash(struct mp_slice s, uint64_t seed);
/* Names of steps, modules, functions, resources, nodes, clusters:
 * [A-Za-z0-9_][A-Za-z0-9_-]{0,63}. */
bool mp_slice_is_name(struct mp_slice s);
/* Names joined by dots (a module, or module.function). */
bool mp_slice_is_dotted_name(struct mp_slice s);
/* Whether the bytes are valid UTF-8 (RFC 3629: no surrogates, no overlong forms). */
bool mp_slice_is_utf8(struct mp_slice s);
/* Bytes of the UTF-8 character that s (not empty) starts with; 0 if it starts with none. */
size_t mp_slice_utf8_length(struct mp_slice s);
/* Edits (insert, delete, replace, swap of neighbours) between two names, or 99 if either is longer
 * than 64 bytes: the optimal-string-alignment distance, for "did you mean". */
unsigned mp_slice_distance(struct mp_slice a, struct mp_slice b);
