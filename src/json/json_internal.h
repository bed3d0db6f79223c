/* What the files of this folder share. */
#pragma once

#include "src/base/limits.h"
#include "src/json/json.h"

#define MP_JSON_EXACT_MAX 9007199254740992

/* Room for any number's text. */
#define MP_JSON_NUMBER_BYTES 32

/* The keys that make an object a form of its own when they stand alone in it. */
enum mp_json_form { MP_JSON_PLAIN, MP_JSON_INT, MP_JSON_BYTES, MP_JSON_LIT };

enum mp_json_form mp_json_form_of(struct mp_slice key);

/* The double nearest to a JSON number's text, infinite if it is too large. */
double mp_json_number_read(const char *text, size_t size);
/* The shortest of %.15g, %.16g and %.17g that reads back as the finite `v`; a number beyond ±2^53
 * that would look like an integer gets a `.0`. Returns the length. */
size_t mp_json_number_print(double v, char text[MP_JSON_NUMBER_BYTES]);

/* Whether text is a decimal integer in -2^63 … 2^64-1, without superfluous zeros or signs. Negative
 * ones come as two's complement. */
bool mp_json_int_read(struct mp_slice text, bool *is_negative, uint64_t *bits);
size_t mp_json_uint_print(uint64_t v, char text[MP_JSON_NUMBER_BYTES]);

/* Base64 with the standard alphabet and padding; `out` may be the text itself. False if it is not
 * exactly that (the out bytes are then spoilt). */
bool mp_json_base64_read(struct mp_slice text, uint8_t *out, size_t *size);
/* Writes 4 * ceil(size / 3) bytes. */
void mp_json_base64_print(struct mp_slice bytes, uint8_t *out);
