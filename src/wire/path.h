/* The place of something inside a value, as users read and write it: .key (letters, digits, `_`,
 * `-`), ["any other key"], [n] from 1. Built into memory of the caller, part by part from the
 * outside inwards; what does not fit ends in an ellipsis. */
#pragma once

#include "src/base/slice.h"

struct mp_path {
    /* read: NUL-terminated text */
    char *text;
    size_t size;
    /* private */
    size_t capacity;
    bool is_full;
};

/* `text` is borrowed for the life of the path; capacity >= 8. The path is empty then. */
void mp_path_init(struct mp_path *p, char *text, size_t capacity);
/* Adds a key. Control characters and bytes that are no UTF-8 are escaped, so the text is safe to
 * print on a terminal; a key longer than 64 bytes is cut. */
void mp_path_add_key(struct mp_path *p, struct mp_slice key);
/* Adds an index, as it is to be read (from 1). */
void mp_path_add_index(struct mp_path *p, uint64_t index);
/* Adds text as it stands, such as `[true]`. */
void mp_path_add_text(struct mp_path *p, struct mp_slice text);
