/* The MessagePack walker on any bytes: it stays inside, and its functions agree with one another.
 */
#include <stdlib.h>

#include "src/base/assert.h"
#include "src/base/limits.h"
#include "src/wire/msgpack.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void walk_map(struct mp_slice value)
{
    uint32_t count;
    struct mp_mp_reader r;
    if (mp_mp_get_map(value, &count, &r) != MP_OK)
        return;
    for (uint32_t i = 0; i < count; i++) {
        struct mp_slice key;
        struct mp_slice found;
        struct mp_slice text;
        mp_assert(mp_mp_take(&r, &key) == MP_OK);
        if (mp_mp_get_str(key, &text) == MP_OK)
            mp_assert(mp_mp_map_get(value, text, &found) == MP_OK);
        mp_assert(mp_mp_skip(&r) == MP_OK);
    }
    mp_assert(mp_mp_is_at_end(&r));
}

static void walk_array(struct mp_slice value)
{
    uint32_t count;
    struct mp_mp_reader r;
    if (mp_mp_get_array(value, &count, &r) != MP_OK)
        return;
    for (uint32_t i = 0; i < count; i++) {
        struct mp_slice element;
        struct mp_slice found;
        mp_assert(mp_mp_take(&r, &element) == MP_OK);
        if (i < 16) {
            mp_assert(mp_mp_array_get(value, i, &found) == MP_OK);
            mp_assert(mp_slice_equal(element, found));
        }
    }
    struct mp_slice none;
    mp_assert(mp_mp_array_get(value, count, &none) == MP_ENOENT);
    mp_assert(mp_mp_is_at_end(&r));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct mp_slice bytes = mp_slice_of(data, size);
    struct mp_mp_reader r = mp_mp_reader_of(bytes);
    struct mp_slice value;
    struct mp_mp_token token;
    while (mp_mp_take(&r, &value) == MP_OK) {
        mp_assert(value.size != 0 && mp_mp_check(value) == MP_OK);
        walk_map(value);
        walk_array(value);
        int64_t i;
        double d;
        bool b;
        (void)(mp_mp_get_int(value, &i) == MP_OK);
        (void)(mp_mp_get_number(value, &d) == MP_OK);
        (void)(mp_mp_get_bool(value, &b) == MP_OK);
        (void)mp_mp_type_of(value);
    }
    /* what cannot be taken leaves the reader where it was, and its tokens can still be read */
    const uint8_t *before = r.at;
    mp_assert(mp_mp_skip(&r) != MP_OK && r.at == before);
    while (mp_mp_next(&r, &token) == MP_OK)
        mp_assert(r.at <= data + size);
    (void)(mp_mp_map_get(bytes, mp_slice_str("code"), &value) == MP_OK);
    (void)(mp_mp_array_get(bytes, 3, &value) == MP_OK);
    return 0;
}
