/* See error.h. */
#include "src/wire/error.h"

#include "src/wire/msgpack.h"

struct code_row {
    const char *name;
    bool is_retried;
};

static const struct code_row codes[] = {{"NONE", false},
#define MP_CODE_ROW(name, http, retry) {#name, retry},
                                        MP_CODE_LIST(MP_CODE_ROW)
#undef MP_CODE_ROW
};

const char *mp_code_name(enum mp_code code)
{
    return (unsigned)code < MP_CODE_COUNT ? codes[code].name : "UNKNOWN";
}

enum mp_code mp_code_of(struct mp_slice name)
{
    for (unsigned i = 1; i < MP_CODE_COUNT; i++)
        if (mp_slice_is(name, codes[i].name))
            return (enum mp_code)i;
    return MP_CODE_NONE;
}

bool mp_code_is_retried(enum mp_code code)
{
    return (unsigned)code < MP_CODE_COUNT && codes[code].is_retried;
}

enum field_kind { FIELD_TEXT, FIELD_INT, FIELD_RAW };

struct field {
    const char *name;
    enum field_kind kind;
    size_t offset;
};

static const struct field fields[] = {
    {"reason", FIELD_TEXT, offsetof(struct mp_fault, reason)},
    {"message", FIELD_TEXT, offsetof(struct mp_fault, message)},
    {"hint", FIELD_TEXT, offsetof(struct mp_fault, hint)},
    {"fun", FIELD_TEXT, offsetof(struct mp_fault, fun)},
    {"step", FIELD_TEXT, offsetof(struct mp_fault, step)},
    {"index", FIELD_INT, offsetof(struct mp_fault, index)},
    {"node", FIELD_TEXT, offsetof(struct mp_fault, node)},
    {"version", FIELD_TEXT, offsetof(struct mp_fault, version)},
    {"attempt", FIELD_INT, offsetof(struct mp_fault, attempt)},
    {"traceback", FIELD_RAW, offsetof(struct mp_fault, traceback)},
    {"cause", FIELD_RAW, offsetof(struct mp_fault, cause)},
    {"faults", FIELD_RAW, offsetof(struct mp_fault, faults)},
};

static const struct mp_slice *text_field(const struct mp_fault *f, size_t i)
{
    return (const struct mp_slice *)(const void *)((const char *)f + fields[i].offset);
}

static const int64_t *int_field(const struct mp_fault *f, size_t i)
{
    return (const int64_t *)(const void *)((const char *)f + fields[i].offset);
}

static bool has_field(const struct mp_fault *f, size_t i)
{
    return fields[i].kind == FIELD_INT ? *int_field(f, i) != 0 : text_field(f, i)->size != 0;
}

static enum mp_err put_field(struct mp_buf *b, const struct mp_fault *f, size_t i)
{
    enum mp_err err = mp_mp_put_text(b, fields[i].name);
    if (err != MP_OK)
        return err;
    if (fields[i].kind == FIELD_INT)
        return mp_mp_put_int(b, *int_field(f, i));
    if (fields[i].kind == FIELD_RAW)
        return mp_mp_put_raw(b, *text_field(f, i));
    return mp_mp_put_str(b, *text_field(f, i));
}

enum mp_err mp_fault_put(struct mp_buf *b, const struct mp_fault *f)
{
    uint32_t pairs = 1;
    for (size_t i = 0; i < MP_ARRAY_SIZE(fields); i++)
        pairs += has_field(f, i);
    pairs += f->is_final;
    enum mp_err err = mp_mp_put_map(b, pairs);
    if (err == MP_OK)
        err = mp_mp_put_text(b, "code");
    if (err == MP_OK)
        err = mp_mp_put_text(b, mp_code_name(f->code));
    for (size_t i = 0; err == MP_OK && i < MP_ARRAY_SIZE(fields); i++)
        if (has_field(f, i))
            err = put_field(b, f, i);
    if (err == MP_OK && f->is_final) {
        err = mp_mp_put_text(b, "retry");
        if (err == MP_OK)
            err = mp_mp_put_bool(b, false);
    }
    return err;
}

static void read_field(struct mp_fault *f, struct mp_slice key, struct mp_slice value)
{
    bool flag;
    if (mp_slice_is(key, "retry") && mp_mp_get_bool(value, &flag) == MP_OK && !flag)
        f->is_final = true;
    for (size_t i = 0; i < MP_ARRAY_SIZE(fields); i++) {
        if (!mp_slice_is(key, fields[i].name))
            continue;
        struct mp_slice *text = (struct mp_slice *)(void *)((char *)f + fields[i].offset);
        int64_t *number = (int64_t *)(void *)((char *)f + fields[i].offset);
        if (fields[i].kind == FIELD_RAW)
            *text = value;
        else if (fields[i].kind == FIELD_TEXT && mp_mp_get_str(value, text) != MP_OK)
            *text = mp_slice_of(NULL, 0);
        else if (fields[i].kind == FIELD_INT && mp_mp_get_int(value, number) != MP_OK)
            *number = 0;
    }
}

enum mp_err mp_fault_read(struct mp_slice bytes, struct mp_fault *f)
{
    struct mp_fault out = {.code = MP_CODE_UNKNOWN};
    struct mp_slice code = {0};
    uint32_t count;
    struct mp_mp_reader r;
    enum mp_err err = mp_mp_get_map(bytes, &count, &r);
    for (uint32_t i = 0; err == MP_OK && i < count; i++) {
        struct mp_slice key_value;
        struct mp_slice value;
        struct mp_slice key;
        err = mp_mp_take(&r, &key_value);
        if (err == MP_OK)
            err = mp_mp_take(&r, &value);
        if (err != MP_OK)
            return err;
        if (mp_mp_get_str(key_value, &key) != MP_OK)
            continue;
        if (mp_slice_is(key, "code"))
            (void)(mp_mp_get_str(value, &code) != MP_OK);
        else
            read_field(&out, key, value);
    }
    if (err != MP_OK)
        return err;
    if (mp_code_of(code) != MP_CODE_NONE)
        out.code = mp_code_of(code);
    else if (out.reason.size == 0)
        out.reason = code;
    *f = out;
    return MP_OK;
}

enum mp_err mp_fault_put_extended(struct mp_buf *b, struct mp_slice error,
                                  const struct mp_fault *extra)
{
    struct mp_fault have;
    uint32_t count;
    struct mp_mp_reader r;
    enum mp_err err = mp_fault_read(error, &have);
    if (err == MP_OK)
        err = mp_mp_get_map(error, &count, &r);
    if (err != MP_OK)
        return err;
    uint32_t added = 0;
    for (size_t i = 0; i < MP_ARRAY_SIZE(fields); i++)
        added += has_field(extra, i) && !has_field(&have, i);
    err = mp_mp_put_map(b, count + added);
    if (err == MP_OK)
        err = mp_mp_put_raw(b, mp_slice_of(r.at, (size_t)(r.end - r.at)));
    for (size_t i = 0; err == MP_OK && i < MP_ARRAY_SIZE(fields); i++)
        if (has_field(extra, i) && !has_field(&have, i))
            err = put_field(b, extra, i);
    return err;
}
