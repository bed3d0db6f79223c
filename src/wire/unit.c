/* See unit.h. Both are read once as a whole when they are opened, so that whoever walks them later
 * meets nothing that was not checked. */
#include "src/wire/unit.h"

/* --- units --- */

enum mp_err mp_unit_next(struct mp_mp_reader *r, struct mp_unit_module *m)
{
    struct mp_mp_token pair;
    struct mp_mp_token name;
    struct mp_mp_token source;
    if (mp_mp_is_at_end(r))
        return MP_ENOENT;
    MP_TRY(mp_mp_next(r, &pair));
    if (pair.type != MP_MP_ARRAY || pair.count != 2)
        return MP_ECORRUPT;
    MP_TRY(mp_mp_next(r, &name));
    MP_TRY(mp_mp_next(r, &source));
    if (name.type != MP_MP_STR || (source.type != MP_MP_STR && source.type != MP_MP_BIN))
        return MP_ECORRUPT;
    *m = (struct mp_unit_module){.name = name.bytes, .source = source.bytes};
    return MP_OK;
}

/* Why a unit's modules, of which there are `count`, are not good; NULL if they are. */
static const char *check_modules(struct mp_mp_reader r, uint32_t count)
{
    size_t size = 0;
    struct mp_slice last = {0};
    for (uint32_t i = 0; i < count; i++) {
        struct mp_unit_module m;
        if (mp_unit_next(&r, &m) != MP_OK)
            return "a unit's module is no pair of a name and a source";
        if (m.name.size > MP_MODULE_NAME_BYTES_MAX || !mp_slice_is_dotted_name(m.name))
            return "a module's name is not acceptable: letters, digits, '_' and '-', with dots";
        if (i != 0 && mp_slice_compare(last, m.name) >= 0)
            return "a unit's modules are not in ascending order of their names";
        if (m.source.size > MP_MODULE_BYTES_MAX)
            return "a module's source is over 16 MiB";
        last = m.name;
        size += m.source.size;
        if (size > MP_UNIT_BYTES_MAX)
            return "a unit's sources are over 32 MiB together";
    }
    return mp_mp_is_at_end(&r) ? NULL : "something follows a unit's modules";
}

enum mp_err mp_unit_open(struct mp_slice unit, uint32_t *count, struct mp_mp_reader *r,
                         const char **why)
{
    uint32_t modules;
    struct mp_mp_reader inside;
    if (unit.size == 0 || mp_mp_get_array(unit, &modules, &inside) != MP_OK)
        *why = "a unit is no list of modules";
    else if (modules == 0)
        *why = "a unit has no modules";
    else if (modules > MP_UNIT_MODULES_MAX)
        *why = "a unit has more than 512 modules";
    else
        *why = check_modules(inside, modules);
    if (*why)
        return MP_EINVAL;
    *count = modules;
    *r = inside;
    return MP_OK;
}

/* --- descriptions --- */

enum mp_err mp_unit_description_next(struct mp_mp_reader *r, struct mp_unit_description *d)
{
    struct mp_mp_token pair;
    struct mp_mp_token hash;
    struct mp_slice metadata;
    if (mp_mp_is_at_end(r))
        return MP_ENOENT;
    MP_TRY(mp_mp_next(r, &pair));
    if (pair.type != MP_MP_ARRAY || pair.count != 2)
        return MP_ECORRUPT;
    MP_TRY(mp_mp_next(r, &hash));
    MP_TRY(mp_mp_take(r, &metadata));
    if (hash.type != MP_MP_BIN || hash.bytes.size != MP_UNIT_HASH_BYTES ||
        mp_mp_type_of(metadata) != MP_MP_MAP)
        return MP_ECORRUPT;
    *d = (struct mp_unit_description){.hash = hash.bytes, .metadata = metadata};
    return MP_OK;
}

enum mp_err mp_unit_description_open(struct mp_slice description, uint32_t count,
                                     struct mp_mp_reader *r)
{
    uint32_t modules;
    struct mp_mp_reader inside;
    if (description.size == 0 || mp_mp_get_array(description, &modules, &inside) != MP_OK ||
        modules != count)
        return MP_EINVAL;
    struct mp_mp_reader walk = inside;
    for (uint32_t i = 0; i < count; i++) {
        struct mp_unit_description d;
        if (mp_unit_description_next(&walk, &d) != MP_OK)
            return MP_EINVAL;
    }
    if (!mp_mp_is_at_end(&walk))
        return MP_EINVAL;
    *r = inside;
    return MP_OK;
}
