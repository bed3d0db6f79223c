/* See frame.h. */
#include "src/wire/frame.h"

#include "src/wire/msgpack.h"

static uint64_t load_le(const uint8_t *p, unsigned bytes)
{
    uint64_t v = 0;
    for (unsigned i = 0; i < bytes; i++)
        v |= (uint64_t)p[i] << (8 * i);
    return v;
}

void mp_preface_write(uint8_t out[MP_PREFACE_BYTES])
{
    memset(out, 0, MP_PREFACE_BYTES);
    memcpy(out, MP_PREFACE_MAGIC, MP_PREFACE_MAGIC_BYTES);
    out[5] = MP_PROTOCOL_VERSION;
}

enum mp_err mp_preface_read(struct mp_slice bytes, uint8_t *version)
{
    size_t have = bytes.size < MP_PREFACE_MAGIC_BYTES ? bytes.size : MP_PREFACE_MAGIC_BYTES;
    if (have != 0 && memcmp(bytes.data, MP_PREFACE_MAGIC, have) != 0)
        return MP_ECORRUPT;
    if (bytes.size < MP_PREFACE_BYTES)
        return MP_EAGAIN;
    *version = bytes.data[5];
    return MP_OK;
}

/* Written out, so that it becomes two stores. */
void mp_frame_write_header(uint8_t out[MP_FRAME_HEADER_BYTES], const struct mp_frame_header *h)
{
    out[0] = (uint8_t)h->size;
    out[1] = (uint8_t)(h->size >> 8);
    out[2] = (uint8_t)(h->size >> 16);
    out[3] = (uint8_t)(h->size >> 24);
    out[4] = h->type;
    out[5] = h->flags;
    out[6] = (uint8_t)h->meta_size;
    out[7] = (uint8_t)(h->meta_size >> 8);
    out[8] = (uint8_t)h->id;
    out[9] = (uint8_t)(h->id >> 8);
    out[10] = (uint8_t)(h->id >> 16);
    out[11] = (uint8_t)(h->id >> 24);
    out[12] = (uint8_t)(h->id >> 32);
    out[13] = (uint8_t)(h->id >> 40);
    out[14] = (uint8_t)(h->id >> 48);
    out[15] = (uint8_t)(h->id >> 56);
}

enum mp_err mp_frame_read_header(struct mp_slice bytes, uint32_t size_max,
                                 struct mp_frame_header *h)
{
    if (bytes.size < MP_FRAME_HEADER_BYTES)
        return MP_EAGAIN;
    *h = (struct mp_frame_header){.size = (uint32_t)load_le(bytes.data, 4),
                                  .type = bytes.data[4],
                                  .flags = bytes.data[5],
                                  .meta_size = (uint16_t)load_le(bytes.data + 6, 2),
                                  .id = load_le(bytes.data + 8, 8)};
    if (h->flags != 0 || h->meta_size > h->size)
        return MP_ECORRUPT;
    return h->size > size_max ? MP_ETOOLARGE : MP_OK;
}

enum mp_err mp_frame_put(struct mp_buf *b, uint8_t type, uint64_t id, struct mp_slice meta,
                         struct mp_slice payload)
{
    if (meta.size > UINT16_MAX || payload.size > UINT32_MAX - meta.size)
        return MP_ETOOLARGE;
    enum mp_err err = mp_buf_reserve(b, MP_FRAME_HEADER_BYTES + meta.size + payload.size);
    if (err != MP_OK)
        return err;
    const struct mp_frame_header h = {.size = (uint32_t)(meta.size + payload.size),
                                      .type = type,
                                      .meta_size = (uint16_t)meta.size,
                                      .id = id};
    mp_frame_write_header(b->data + b->size, &h);
    b->size += MP_FRAME_HEADER_BYTES;
    err = mp_buf_append(b, meta);
    return err != MP_OK ? err : mp_buf_append(b, payload);
}

static enum mp_err fail(const char **why, const char *text)
{
    *why = text;
    return MP_EINVAL;
}

/* The next pair of an options map. */
static enum mp_err take_option(struct mp_mp_reader *pairs, struct mp_slice *key,
                               struct mp_slice *value, const char **why)
{
    struct mp_slice name;
    if (mp_mp_take(pairs, &name) != MP_OK || mp_mp_take(pairs, value) != MP_OK ||
        mp_mp_get_str(name, key) != MP_OK)
        return fail(why, "options: expected a map with names as keys");
    return MP_OK;
}

static enum mp_err read_timeout(struct mp_slice value, uint64_t *timeout_ms, const char **why)
{
    if (mp_mp_type_of(value) == MP_MP_NIL)
        return MP_OK;
    int64_t ms;
    if (mp_mp_get_int(value, &ms) != MP_OK || ms <= 0 || (uint64_t)ms > MP_TIMEOUT_MS_MAX)
        return fail(why, "timeout_ms: expected a positive number of milliseconds");
    *timeout_ms = (uint64_t)ms;
    return MP_OK;
}

static enum mp_err read_needs(struct mp_slice value, struct mp_call_options *o, const char **why)
{
    uint32_t count;
    struct mp_mp_reader r;
    enum mp_mp_type type = mp_mp_type_of(value);
    if (type == MP_MP_NIL)
        return MP_OK;
    if (type == MP_MP_MAP && mp_mp_get_map(value, &count, &r) == MP_OK && count == 0)
        return MP_OK;
    if (mp_mp_get_array(value, &count, &r) != MP_OK)
        return fail(why, "needs: expected a list of resource names");
    if (count > MP_NEEDS_MAX)
        return fail(why, "needs: more than 32 resources");
    for (uint32_t i = 0; i < count; i++) {
        struct mp_slice item;
        if (mp_mp_take(&r, &item) != MP_OK || mp_mp_get_str(item, &o->needs[i]) != MP_OK ||
            !mp_slice_is_name(o->needs[i]))
            return fail(why, "needs: expected a list of resource names");
    }
    o->needs_count = count;
    return MP_OK;
}

static enum mp_err read_name(struct mp_slice value, struct mp_slice *name, const char **why,
                             const char *text)
{
    if (mp_mp_type_of(value) == MP_MP_NIL)
        return MP_OK;
    if (mp_mp_get_str(value, name) != MP_OK || !mp_slice_is_name(*name))
        return fail(why, text);
    return MP_OK;
}

static enum mp_err read_call_option(struct mp_slice key, struct mp_slice value,
                                    struct mp_call_options *o, const char **why)
{
    if (mp_slice_is(key, "needs"))
        return read_needs(value, o, why);
    if (mp_slice_is(key, "timeout_ms"))
        return read_timeout(value, &o->timeout_ms, why);
    if (mp_slice_is(key, "on"))
        return read_name(value, &o->on, why, "on: expected the name of a node");
    if (mp_slice_is(key, "cluster"))
        return read_name(value, &o->cluster, why, "cluster: expected the name of a cluster");
    if (mp_slice_is(key, "version")) {
        if (mp_mp_type_of(value) == MP_MP_NIL || mp_mp_get_str(value, &o->version) == MP_OK)
            return MP_OK;
        return fail(why, "version: expected a constraint such as \">=1.2 <2\"");
    }
    if (mp_slice_is(key, "retries")) {
        int64_t retries;
        if (mp_mp_get_int(value, &retries) != MP_OK || retries < 0 || retries > MP_RETRIES_MAX)
            return fail(why, "retries: expected a number from 0 to 1000");
        o->retries = (uint32_t)retries;
        return MP_OK;
    }
    if (mp_slice_is(key, "wait"))
        return mp_mp_get_bool(value, &o->is_waiting) == MP_OK
                   ? MP_OK
                   : fail(why, "wait: expected true or false");
    return fail(why, "unknown option (known: needs, version, on, cluster, retries, wait, "
                     "timeout_ms)");
}

enum mp_err mp_call_options_read_map(struct mp_slice map, struct mp_call_options *o,
                                     const char **why)
{
    uint32_t count = 0;
    struct mp_mp_reader r = {0};
    if (map.size == 0 || mp_mp_type_of(map) == MP_MP_NIL)
        return MP_OK;
    if (mp_mp_get_map(map, &count, &r) != MP_OK)
        return fail(why, "options: expected a map");
    for (uint32_t i = 0; i < count; i++) {
        struct mp_slice key;
        struct mp_slice value;
        MP_TRY(take_option(&r, &key, &value, why));
        enum mp_err err = read_call_option(key, value, o, why);
        if (err != MP_OK)
            return err;
    }
    return mp_mp_is_at_end(&r) ? MP_OK : fail(why, "options: bytes are left over");
}

/* The fields but not the long array of needs, which needs_count governs. */
static void clear_options(struct mp_call_options *o)
{
    memset(o, 0, offsetof(struct mp_call_options, needs));
}

enum mp_err mp_call_options_read(struct mp_slice meta, struct mp_call_options *o, const char **why)
{
    clear_options(o);
    uint32_t count;
    struct mp_mp_reader r;
    struct mp_mp_token fun;
    if (mp_mp_get_array(meta, &count, &r) != MP_OK || count < 1 || count > 3)
        return fail(why, "meta: expected [function, timeout_ms, options]");
    if (mp_mp_next(&r, &fun) != MP_OK || fun.type != MP_MP_STR || fun.bytes.size == 0 ||
        fun.bytes.size > MP_FUNCTION_BYTES_MAX)
        return fail(why, "function: expected a name such as module.function");
    o->fun = fun.bytes;
    struct mp_slice value;
    if (count >= 2) {
        if (mp_mp_take(&r, &value) != MP_OK)
            return fail(why, "timeout_ms: malformed");
        enum mp_err err = read_timeout(value, &o->timeout_ms, why);
        if (err != MP_OK)
            return err;
    }
    if (count < 3)
        return mp_mp_is_at_end(&r) ? MP_OK : fail(why, "meta: bytes are left over");
    if (mp_mp_take(&r, &value) != MP_OK || !mp_mp_is_at_end(&r))
        return fail(why, "options: malformed");
    return mp_call_options_read_map(value, o, why);
}

static enum mp_err put_text_option(struct mp_buf *b, const char *key, struct mp_slice value)
{
    if (value.size == 0)
        return MP_OK;
    enum mp_err err = mp_mp_put_text(b, key);
    return err != MP_OK ? err : mp_mp_put_str(b, value);
}

static enum mp_err put_options_map(struct mp_buf *b, const struct mp_call_options *o)
{
    uint32_t pairs = (o->version.size != 0) + (o->on.size != 0) + (o->cluster.size != 0) +
                     (o->retries != 0) + o->is_waiting + (o->needs_count != 0);
    enum mp_err err = mp_mp_put_map(b, pairs);
    if (err == MP_OK)
        err = put_text_option(b, "version", o->version);
    if (err == MP_OK)
        err = put_text_option(b, "on", o->on);
    if (err == MP_OK)
        err = put_text_option(b, "cluster", o->cluster);
    if (err == MP_OK && o->retries != 0) {
        err = mp_mp_put_text(b, "retries");
        if (err == MP_OK)
            err = mp_mp_put_uint(b, o->retries);
    }
    if (err == MP_OK && o->is_waiting) {
        err = mp_mp_put_text(b, "wait");
        if (err == MP_OK)
            err = mp_mp_put_bool(b, true);
    }
    if (err == MP_OK && o->needs_count != 0) {
        err = mp_mp_put_text(b, "needs");
        if (err == MP_OK)
            err = mp_mp_put_array(b, o->needs_count);
        for (uint32_t i = 0; err == MP_OK && i < o->needs_count; i++)
            err = mp_mp_put_str(b, o->needs[i]);
    }
    return err;
}

enum mp_err mp_call_options_put(struct mp_buf *b, const struct mp_call_options *o)
{
    bool has_map = o->version.size != 0 || o->on.size != 0 || o->cluster.size != 0 ||
                   o->retries != 0 || o->is_waiting || o->needs_count != 0;
    uint32_t count = has_map ? 3 : o->timeout_ms != 0 ? 2 : 1;
    enum mp_err err = mp_mp_put_array(b, count);
    if (err == MP_OK)
        err = mp_mp_put_str(b, o->fun);
    if (err == MP_OK && count >= 2)
        err = o->timeout_ms != 0 ? mp_mp_put_uint(b, o->timeout_ms) : mp_mp_put_nil(b);
    if (err == MP_OK && count == 3)
        err = put_options_map(b, o);
    return err;
}

static enum mp_err read_flag(struct mp_slice value, bool *flag, const char **why, const char *text)
{
    return mp_mp_get_bool(value, flag) == MP_OK ? MP_OK : fail(why, text);
}

static enum mp_err read_run_option(struct mp_slice key, struct mp_slice value,
                                   struct mp_run_options *o, const char **why)
{
    if (mp_slice_is(key, "timeout_ms"))
        return read_timeout(value, &o->timeout_ms, why);
    if (mp_slice_is(key, "trace"))
        return read_flag(value, &o->has_trace, why, "trace: expected true or false");
    if (mp_slice_is(key, "follow"))
        return read_flag(value, &o->has_events, why, "follow: expected true or false");
    if (mp_slice_is(key, "detach"))
        return read_flag(value, &o->is_detached, why, "detach: expected true or false");
    if (mp_slice_is(key, "topic")) {
        bool is_text = mp_mp_get_str(value, &o->topic) == MP_OK && o->topic.size != 0;
        return is_text ? MP_OK : fail(why, "topic: expected a text that is not empty");
    }
    return fail(why, "unknown option (known: timeout_ms, trace, follow, detach, topic)");
}

enum mp_err mp_run_options_read(struct mp_slice meta, struct mp_run_options *o, const char **why)
{
    *o = (struct mp_run_options){0};
    uint32_t count;
    struct mp_mp_reader r;
    if (meta.size == 0)
        return MP_OK;
    if (mp_mp_check(meta) != MP_OK || mp_mp_get_array(meta, &count, &r) != MP_OK || count > 1)
        return fail(why, "meta: expected [options]");
    if (count == 0)
        return MP_OK;
    struct mp_mp_reader pairs;
    if (mp_mp_get_map(mp_slice_of(r.at, (size_t)(r.end - r.at)), &count, &pairs) != MP_OK)
        return fail(why, "options: expected a map");
    for (uint32_t i = 0; i < count; i++) {
        struct mp_slice key;
        struct mp_slice value;
        MP_TRY(take_option(&pairs, &key, &value, why));
        enum mp_err err = read_run_option(key, value, o, why);
        if (err != MP_OK)
            return err;
    }
    return MP_OK;
}

static enum mp_err put_flag(struct mp_buf *b, const char *key, bool flag)
{
    if (!flag)
        return MP_OK;
    enum mp_err err = mp_mp_put_text(b, key);
    return err != MP_OK ? err : mp_mp_put_bool(b, true);
}

enum mp_err mp_run_options_put(struct mp_buf *b, const struct mp_run_options *o)
{
    uint32_t pairs =
        (o->timeout_ms != 0) + o->has_trace + o->has_events + o->is_detached + (o->topic.size != 0);
    enum mp_err err = mp_mp_put_array(b, 1);
    if (err == MP_OK)
        err = mp_mp_put_map(b, pairs);
    if (err == MP_OK && o->timeout_ms != 0) {
        err = mp_mp_put_text(b, "timeout_ms");
        if (err == MP_OK)
            err = mp_mp_put_uint(b, o->timeout_ms);
    }
    if (err == MP_OK)
        err = put_flag(b, "trace", o->has_trace);
    if (err == MP_OK)
        err = put_flag(b, "follow", o->has_events);
    if (err == MP_OK)
        err = put_flag(b, "detach", o->is_detached);
    if (err == MP_OK)
        err = put_text_option(b, "topic", o->topic);
    return err;
}

static enum mp_err read_subscribe_option(struct mp_slice key, struct mp_slice value,
                                         struct mp_subscribe_options *o, const char **why)
{
    bool is_since = mp_slice_is(key, "since_ms");
    int64_t number;
    if (!is_since && !mp_slice_is(key, "queue"))
        return fail(why, "unknown option (known: since_ms, queue)");
    if (mp_mp_type_of(value) == MP_MP_NIL)
        return MP_OK;
    if (mp_mp_get_int(value, &number) != MP_OK || number <= 0)
        return fail(why, is_since ? "since_ms: expected a positive number of milliseconds"
                                  : "queue: expected a positive number of messages");
    if (is_since)
        o->since_ms = (uint64_t)number;
    else
        o->queue = (uint64_t)number;
    return MP_OK;
}

enum mp_err mp_subscribe_options_read(struct mp_slice meta, struct mp_subscribe_options *o,
                                      const char **why)
{
    uint32_t count;
    struct mp_mp_reader r;
    struct mp_slice item;
    *o = (struct mp_subscribe_options){0};
    if (meta.size == 0 || mp_mp_check(meta) != MP_OK ||
        mp_mp_get_array(meta, &count, &r) != MP_OK || count < 1 || count > 2)
        return fail(why, "meta: expected [pattern, options]");
    if (mp_mp_take(&r, &item) != MP_OK || mp_mp_get_str(item, &o->pattern) != MP_OK)
        return fail(why, "pattern: expected a text such as \"news.*\"");
    if (count == 1)
        return MP_OK;
    struct mp_mp_reader pairs;
    if (mp_mp_get_map(mp_slice_of(r.at, (size_t)(r.end - r.at)), &count, &pairs) != MP_OK)
        return fail(why, "options: expected a map");
    for (uint32_t i = 0; i < count; i++) {
        struct mp_slice key;
        struct mp_slice value;
        MP_TRY(take_option(&pairs, &key, &value, why));
        enum mp_err err = read_subscribe_option(key, value, o, why);
        if (err != MP_OK)
            return err;
    }
    return MP_OK;
}

enum mp_err mp_subscribe_options_put(struct mp_buf *b, const struct mp_subscribe_options *o)
{
    uint32_t pairs = (o->since_ms != 0) + (o->queue != 0);
    MP_TRY(mp_mp_put_array(b, pairs != 0 ? 2 : 1));
    MP_TRY(mp_mp_put_str(b, o->pattern));
    if (pairs == 0)
        return MP_OK;
    MP_TRY(mp_mp_put_map(b, pairs));
    if (o->since_ms != 0)
        MP_TRY(mp_mp_put_uint_pair(b, "since_ms", o->since_ms));
    return o->queue != 0 ? mp_mp_put_uint_pair(b, "queue", o->queue) : MP_OK;
}
