/* What is said to other nodes: digests, entries, and requests for them. Entries of others go on as
 * they came, byte for byte; this node's is written afresh each time. A request names owners of
 * entries, and modules whose metadata is missing by their hash:
 *
 *   entries  [owner…]
 *   modules  [hash…]
 *
 * News of an entry is [owner, generation, counter]. */
#include "src/base/assert.h"
#include "src/base/limits.h"
#include "src/core/catalog/catalog_internal.h"
#include "src/wire/msgpack.h"

void mp_catalog_digests(const struct mp_catalog *c, uint64_t out[MP_CATALOG_BUCKETS])
{
    memcpy(out, c->digests, sizeof(c->digests));
}

/* --- entries --- */

static enum mp_err put_hash(struct mp_slice hex, struct mp_buf *out)
{
    struct mp_catalog_hex room;
    struct mp_slice bytes;
    bool is_good = mp_catalog_bytes_of(hex, &room, &bytes);
    mp_assert(is_good); /* modules are checked before they are made */
    return mp_mp_put_bin(out, bytes);
}

static enum mp_err put_stamp(const struct mp_catalog *c, uint32_t parts, struct mp_buf *out)
{
    const struct mp_catalog_member *self = &c->members[MP_CATALOG_SELF];
    MP_TRY(mp_mp_put_array(out, parts));
    MP_TRY(mp_mp_put_str(out, c->node));
    MP_TRY(mp_mp_put_uint(out, self->generation));
    return mp_mp_put_uint(out, self->counter);
}

static enum mp_err put_own_entry(const struct mp_catalog *c, struct mp_buf *out)
{
    const struct mp_catalog_member *self = &c->members[MP_CATALOG_SELF];
    MP_TRY(put_stamp(c, 5, out));
    bool has_topics = self->said.topics.size != 0;
    MP_TRY(mp_mp_put_map(out, 3 + has_topics));
    MP_TRY(mp_mp_put_text(out, "workers"));
    MP_TRY(mp_mp_put_uint(out, self->said.workers));
    MP_TRY(mp_mp_put_text(out, "version"));
    MP_TRY(mp_mp_put_str(out, self->said.version));
    MP_TRY(mp_mp_put_text(out, "resources"));
    MP_TRY(mp_mp_put_raw(out, self->said.resources));
    if (has_topics) {
        MP_TRY(mp_mp_put_text(out, "topics"));
        MP_TRY(mp_mp_put_raw(out, self->said.topics));
    }
    MP_TRY(mp_mp_put_array(out, self->module_count));
    for (uint32_t i = 0; i < self->module_count; i++) {
        const struct mp_catalog_module *m = &c->modules[self->modules[i]];
        MP_TRY(mp_mp_put_array(out, 4));
        MP_TRY(mp_mp_put_str(out, m->name));
        MP_TRY(put_hash(m->hash, out));
        MP_TRY(mp_mp_put_str(out, m->version_text));
        MP_TRY(mp_mp_put_bool(out, m->is_pipeline));
    }
    return MP_OK;
}

static enum mp_err put_entry(const struct mp_catalog *c, uint32_t node, struct mp_buf *out)
{
    return node == MP_CATALOG_SELF ? put_own_entry(c, out)
                                   : mp_mp_put_raw(out, c->members[node].entry);
}

static bool is_in(const struct mp_catalog_member *m, uint64_t mask)
{
    return m->has_entry && (mask >> (mp_slice_hash(m->name, 0) % MP_CATALOG_BUCKETS) & 1) != 0;
}

static enum mp_err put_entries(const struct mp_catalog *c, uint64_t mask, struct mp_buf *out)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < c->member_capacity; i++)
        count += is_in(&c->members[i], mask);
    MP_TRY(mp_mp_put_map(out, 1));
    MP_TRY(mp_mp_put_text(out, "entries"));
    MP_TRY(mp_mp_put_array(out, count));
    for (uint32_t i = 0; i < c->member_capacity; i++)
        if (is_in(&c->members[i], mask))
            MP_TRY(put_entry(c, i, out));
    return MP_OK;
}

/* What could not be written whole is taken back. */
static enum mp_err or_nothing(enum mp_err err, struct mp_buf *out, size_t before)
{
    if (err != MP_OK)
        out->size = before;
    return err;
}

enum mp_err mp_catalog_put_entries(const struct mp_catalog *c, uint64_t mask, struct mp_buf *out)
{
    size_t before = out->size;
    return or_nothing(put_entries(c, mask, out), out, before);
}

/* --- news, and what is wanted --- */

void mp_catalog_write_news(struct mp_catalog *c)
{
    mp_buf_clear(&c->news);
    enum mp_err err = put_stamp(c, 3, &c->news);
    mp_assert(err == MP_OK); /* its room was taken at the start */
}

static enum mp_err put_wanted(struct mp_slice owner, struct mp_buf *out)
{
    MP_TRY(mp_mp_put_map(out, 1));
    MP_TRY(mp_mp_put_text(out, "entries"));
    MP_TRY(mp_mp_put_array(out, 1));
    return mp_mp_put_str(out, owner);
}

enum mp_err mp_catalog_put_wanted(const struct mp_catalog *c, struct mp_slice news,
                                  struct mp_buf *out)
{
    struct mp_mp_reader r = mp_mp_reader_of(news);
    struct mp_slice owner;
    uint64_t generation;
    uint64_t counter;
    uint32_t parts;
    size_t before = out->size;
    if (news.size == 0 || mp_catalog_take_array(&r, &parts) != MP_OK || parts != 3 ||
        mp_catalog_take_str(&r, &owner) != MP_OK || !mp_slice_is_name(owner) ||
        mp_catalog_take_uint(&r, &generation) != MP_OK ||
        mp_catalog_take_uint(&r, &counter) != MP_OK || !mp_mp_is_at_end(&r))
        return MP_ECORRUPT;
    if (!mp_catalog_is_newer(c, owner, generation, counter))
        return MP_ENOENT;
    return or_nothing(put_wanted(owner, out), out, before);
}

/* A module of a live node whose metadata may still be had. */
static bool is_missing(const struct mp_catalog *c, uint32_t module)
{
    return c->modules[module].metadata.size == 0 && !c->records[module].is_retired &&
           c->records[module].refusals < MP_CATALOG_REFUSALS_MAX &&
           mp_catalog_is_provided(c, module);
}

bool mp_catalog_is_missing_any(const struct mp_catalog *c)
{
    for (uint32_t i = 0; c->unknown_count != 0 && i < c->module_count; i++)
        if (is_missing(c, i))
            return true;
    return false;
}

static enum mp_err put_missing(const struct mp_catalog *c, uint32_t count, struct mp_buf *out)
{
    MP_TRY(mp_mp_put_map(out, 1));
    MP_TRY(mp_mp_put_text(out, "modules"));
    MP_TRY(mp_mp_put_array(out, count));
    for (uint32_t i = 0; count != 0 && i < c->module_count; i++)
        if (is_missing(c, i)) {
            MP_TRY(put_hash(c->modules[i].hash, out));
            count--;
        }
    return MP_OK;
}

enum mp_err mp_catalog_put_missing(const struct mp_catalog *c, struct mp_buf *out)
{
    uint32_t count = 0;
    size_t before = out->size;
    for (uint32_t i = 0;
         c->unknown_count != 0 && i < c->module_count && count < MP_CATALOG_WANTED_MAX; i++)
        count += is_missing(c, i);
    return count == 0 ? MP_ENOENT : or_nothing(put_missing(c, count, out), out, before);
}

/* --- answering a request --- */

struct answer {
    struct mp_buf entries; /* without the list's header */
    struct mp_buf modules;
    uint32_t entry_count;
    uint32_t module_count;
    size_t bytes_max;
};

/* Whether an answer has room for `size` bytes more: the first item always has. */
static bool has_room(const struct answer *a, size_t size)
{
    size_t used = a->entries.size + a->modules.size;
    return used == 0 || (used < a->bytes_max && size <= a->bytes_max - used);
}

static enum mp_err answer_entry(const struct mp_catalog *c, struct mp_slice owner, struct answer *a)
{
    uint32_t node;
    if (!mp_map_get(&c->by_member, owner, &node) || !c->members[node].has_entry ||
        !has_room(a, c->members[node].entry.size))
        return MP_OK;
    a->entry_count++;
    return put_entry(c, node, &a->entries);
}

/* All modules of that content: the same file may have several names. */
static enum mp_err answer_module(const struct mp_catalog *c, struct mp_slice hash, struct answer *a)
{
    struct mp_catalog_hex room;
    struct mp_slice hex;
    uint32_t module = MP_CATALOG_NONE;
    if (!mp_catalog_hex_of(hash, &room, &hex) || !mp_map_get(&c->by_hash, hex, &module))
        return MP_OK;
    for (; module != MP_CATALOG_NONE; module = c->records[module].next_same_hash) {
        const struct mp_catalog_module *m = &c->modules[module];
        if (m->metadata.size == 0 || m->is_deployed || !has_room(a, m->metadata.size))
            continue;
        a->module_count++;
        MP_TRY(mp_mp_put_array(&a->modules, 4));
        MP_TRY(mp_mp_put_bin(&a->modules, hash));
        MP_TRY(mp_mp_put_str(&a->modules, m->name));
        MP_TRY(mp_mp_put_str(&a->modules, m->version_text));
        MP_TRY(mp_mp_put_raw(&a->modules, m->metadata));
    }
    return MP_OK;
}

/* One list of a request, whose elements are all of `type`. */
static enum mp_err answer_list(const struct mp_catalog *c, struct mp_slice request, const char *key,
                               enum mp_mp_type type, struct answer *a)
{
    struct mp_slice list;
    struct mp_mp_reader r;
    uint32_t count;
    if (mp_mp_map_get(request, mp_slice_str(key), &list) != MP_OK)
        return MP_OK;
    if (mp_mp_get_array(list, &count, &r) != MP_OK)
        return MP_ECORRUPT;
    for (uint32_t i = 0; i < count; i++) {
        struct mp_mp_token t;
        if (mp_mp_next(&r, &t) != MP_OK || t.type != type)
            return MP_ECORRUPT;
        MP_TRY(type == MP_MP_STR ? answer_entry(c, t.bytes, a) : answer_module(c, t.bytes, a));
    }
    return MP_OK;
}

static enum mp_err put_answer(const struct answer *a, struct mp_buf *out)
{
    MP_TRY(mp_mp_put_map(out, 2));
    MP_TRY(mp_mp_put_text(out, "entries"));
    MP_TRY(mp_mp_put_array(out, a->entry_count));
    MP_TRY(mp_buf_append(out, mp_buf_slice(&a->entries)));
    MP_TRY(mp_mp_put_text(out, "modules"));
    MP_TRY(mp_mp_put_array(out, a->module_count));
    return mp_buf_append(out, mp_buf_slice(&a->modules));
}

enum mp_err mp_catalog_put_have(const struct mp_catalog *c, struct mp_slice request,
                                size_t bytes_max, struct mp_buf *out)
{
    struct answer a = {.bytes_max = bytes_max};
    size_t before = out->size;
    if (request.size == 0 || mp_mp_check(request) != MP_OK || mp_mp_type_of(request) != MP_MP_MAP)
        return MP_ECORRUPT;
    mp_buf_init(&a.entries, c->alloc, 0);
    mp_buf_init(&a.modules, c->alloc, 0);
    enum mp_err err = answer_list(c, request, "entries", MP_MP_STR, &a);
    if (err == MP_OK)
        err = answer_list(c, request, "modules", MP_MP_BIN, &a);
    if (err == MP_OK && a.entry_count + a.module_count == 0)
        err = MP_ENOENT;
    if (err == MP_OK)
        err = put_answer(&a, out);
    mp_buf_fini(&a.modules);
    mp_buf_fini(&a.entries);
    return or_nothing(err, out, before);
}
