/* A unit or a description out of any bytes: what is opened is read to its end, module by module,
 * and nothing of it lies outside. The first byte is how many modules the description should have.
 */
#include <stdlib.h>

#include "src/base/assert.h"
#include "src/wire/unit.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool is_inside(struct mp_slice whole, struct mp_slice part)
{
    return part.size == 0 ||
           (part.data >= whole.data && part.data + part.size <= whole.data + whole.size);
}

static void read_unit(struct mp_slice bytes)
{
    uint32_t count;
    struct mp_mp_reader r;
    struct mp_unit_module m;
    struct mp_unit_module last = {0};
    const char *why = NULL;
    if (mp_unit_open(bytes, &count, &r, &why) != MP_OK) {
        mp_assert(why != NULL);
        return;
    }
    mp_assert(count != 0 && count <= MP_UNIT_MODULES_MAX);
    for (uint32_t i = 0; i < count; i++) {
        mp_assert(mp_unit_next(&r, &m) == MP_OK);
        mp_assert(is_inside(bytes, m.name) && is_inside(bytes, m.source));
        mp_assert(mp_slice_is_dotted_name(m.name));
        mp_assert(i == 0 || mp_slice_compare(last.name, m.name) < 0);
        last = m;
    }
    mp_assert(mp_unit_next(&r, &m) == MP_ENOENT);
}

static void read_description(struct mp_slice bytes, uint32_t count)
{
    struct mp_mp_reader r;
    struct mp_unit_description d;
    if (mp_unit_description_open(bytes, count, &r) != MP_OK)
        return;
    for (uint32_t i = 0; i < count; i++) {
        mp_assert(mp_unit_description_next(&r, &d) == MP_OK);
        mp_assert(d.hash.size == MP_UNIT_HASH_BYTES && is_inside(bytes, d.metadata));
        mp_assert(mp_mp_check(d.metadata) == MP_OK);
    }
    mp_assert(mp_unit_description_next(&r, &d) == MP_ENOENT);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    read_unit(mp_slice_of(data + 1, size - 1));
    read_description(mp_slice_of(data + 1, size - 1), data[0]);
    return 0;
}
