/* JSON text ⇄ MessagePack, without loss in either direction:
 *
 *   MessagePack                                 JSON
 *   int within ±2^53                            integer
 *   int beyond                                  {"$int": "9007199254740993"}
 *   float                                       the shortest digits that read back as it
 *   str (valid UTF-8)                           string
 *   bin, and str that is no UTF-8               {"$bytes": "<base64>"}
 *   a map whose only key is $int, $bytes, $lit  {"$lit": {…}}
 *
 * Read back, an integral number within ±2^53 is an int however it is written (1.0, 1e3); -0 is a
 * float. A plain integer beyond is an int if it fits 64 bits with a sign, a float if a double holds
 * it exactly, and refused otherwise. `$int` takes -2^63 to 2^64-1. `$lit` protects the one object
 * that it holds, and not what is deeper in there. A `$int` or `$bytes` alone in its object with
 * anything but such a string is refused.
 *
 * A graph (option `graph`) is a template, in which `{"$lit": …}` is an operator that must stay
 * where it is, as every other $ form does; only $int and $bytes are read as values. What `$lit`
 * holds, and the value of the outermost key `input`, is data, for which the rules above hold again.
 */
#pragma once

#include "src/base/buf.h"
#include "src/base/compiler.h"
#include "src/base/err.h"
#include "src/base/slice.h"

struct mp_json_options {
    bool graph;
    /* printing: over several lines, indented by two, what fits into 80 columns on one */
    bool pretty;
    /* printing: keys of each object in the order of their bytes */
    bool sort_keys;
};

/* Filled whole by what fails. */
struct mp_json_error {
    char message[256];
    /* of the text that was read, from 1, columns in characters; 0 when printing */
    uint32_t line;
    uint32_t column;
    /* inside the value, such as `.steps[3].args`; may be empty */
    char path[128];
};

/* Reads exactly one JSON value and appends it in the shortest form. `opt` and `error` may be NULL.
 * MP_EINVAL: not acceptable; MP_EDEPTH: nested deeper than MP_DEPTH_MAX; MP_ENOMEM and MP_ETOOLARGE
 * from the buffer. `out` is then as before. Takes memory from the buffer's allocator beside the
 * buffer only for long objects; what yajl needs for long strings comes from malloc. */
MP_MUST_USE enum mp_err mp_json_to_msgpack(struct mp_slice text, struct mp_buf *out,
                                           const struct mp_json_options *opt,
                                           struct mp_json_error *error);

/* Appends the text of exactly one value (without a newline behind it). The text is valid UTF-8 and
 * has no raw control characters (except newlines if pretty). MP_EINVAL: no JSON form (NaN,
 * infinities, keys that are no text, extensions); MP_ECORRUPT: not one well-formed value;
 * MP_EDEPTH; MP_ENOMEM and MP_ETOOLARGE from the buffer. `out` is then as before. */
MP_MUST_USE enum mp_err mp_json_from_msgpack(struct mp_slice value, struct mp_buf *out,
                                             const struct mp_json_options *opt,
                                             struct mp_json_error *error);
