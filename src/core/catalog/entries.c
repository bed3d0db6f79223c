/* What other nodes say, merged. On the wire it is a map:
 *
 *   entries  [[owner, generation, counter,
 *              {workers, version, resources: [name…], topics: [pattern…]},
 *              [[module, hash, version, is a pipeline]…]]…]
 *   modules  [[hash, module, version, metadata]…]
 *
 * `topics` is left out where there are none.
 *
 * An entry is checked as a whole before anything of it is taken in, and kept as it came, since it
 * goes on to others. A malformed one is dropped, the rest of the message is not. Everything of an
 * entry is prepared before the old one gives way: what runs out of memory changes nothing.
 *
 * Of two entries of one owner the one with the higher (generation, counter) counts, whichever came
 * first and however often: so all nodes end with the same. */
#include "src/base/assert.h"
#include "src/base/defects.h"
#include "src/base/limits.h"
#include "src/core/catalog/catalog_internal.h"
#include "src/wire/msgpack.h"
#include "src/wire/topic.h"

static_assert(sizeof(struct mp_catalog_hex) == 2 * MP_HASH_BYTES_MAX, "room for all digits");

/* --- reading --- */

enum mp_err mp_catalog_take_uint(struct mp_mp_reader *r, uint64_t *v)
{
    struct mp_mp_token t;
    enum mp_err err = mp_mp_next(r, &t);
    if (err != MP_OK)
        return err;
    if (t.type != MP_MP_UINT)
        return MP_ETYPE;
    *v = t.u;
    return MP_OK;
}

enum mp_err mp_catalog_take_str(struct mp_mp_reader *r, struct mp_slice *v)
{
    struct mp_mp_token t;
    enum mp_err err = mp_mp_next(r, &t);
    if (err != MP_OK)
        return err;
    if (t.type != MP_MP_STR)
        return MP_ETYPE;
    *v = t.bytes;
    return MP_OK;
}

enum mp_err mp_catalog_take_array(struct mp_mp_reader *r, uint32_t *count)
{
    struct mp_mp_token t;
    enum mp_err err = mp_mp_next(r, &t);
    if (err != MP_OK)
        return err;
    if (t.type != MP_MP_ARRAY)
        return MP_ETYPE;
    *count = t.count;
    return MP_OK;
}

bool mp_catalog_hex_of(struct mp_slice bytes, struct mp_catalog_hex *room, struct mp_slice *hex)
{
    static const char digits[] = "0123456789abcdef";
    if (bytes.size > MP_HASH_BYTES_MAX)
        return false;
    for (size_t i = 0; i < bytes.size; i++) {
        room->digits[2 * i] = (uint8_t)digits[bytes.data[i] >> 4];
        room->digits[2 * i + 1] = (uint8_t)digits[bytes.data[i] & 15];
    }
    *hex = mp_slice_of(room->digits, 2 * bytes.size);
    return true;
}

static int digit_of(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool mp_catalog_bytes_of(struct mp_slice hex, struct mp_catalog_hex *room, struct mp_slice *bytes)
{
    if (hex.size % 2 != 0 || hex.size > sizeof(room->digits))
        return false;
    for (size_t i = 0; i < hex.size / 2; i++) {
        int high = digit_of(hex.data[2 * i]);
        int low = digit_of(hex.data[2 * i + 1]);
        if (high < 0 || low < 0)
            return false;
        room->digits[i] = (uint8_t)(high << 4 | low);
    }
    *bytes = mp_slice_of(room->digits, hex.size / 2);
    return true;
}

struct entry {
    struct mp_slice bytes;
    struct mp_slice owner;
    uint64_t generation;
    uint64_t counter;
    struct mp_catalog_about said;
    struct mp_slice modules;
    uint32_t resource_count;
    uint32_t module_count;
};

static enum mp_err take_hash(struct mp_mp_reader *r, struct mp_catalog_hex *room,
                             struct mp_slice *hex)
{
    struct mp_mp_token t;
    enum mp_err err = mp_mp_next(r, &t);
    if (err != MP_OK)
        return err;
    return t.type == MP_MP_BIN && mp_catalog_hex_of(t.bytes, room, hex) ? MP_OK : MP_ETYPE;
}

/* One module of an entry; the hash's digits lie in `room`. */
static enum mp_err take_module(struct mp_catalog *c, struct mp_mp_reader *r,
                               struct mp_catalog_hex *room, struct mp_catalog_identity *i)
{
    uint32_t parts;
    struct mp_mp_token t = {0};
    enum mp_err err = mp_catalog_take_array(r, &parts);
    *i = (struct mp_catalog_identity){0};
    if (err == MP_OK && parts != 4)
        err = MP_ETYPE;
    if (err == MP_OK)
        err = mp_catalog_take_str(r, &i->name);
    if (err == MP_OK)
        err = take_hash(r, room, &i->hash);
    if (err == MP_OK)
        err = mp_catalog_take_str(r, &i->version);
    if (err == MP_OK)
        err = mp_mp_next(r, &t);
    if (err == MP_OK && t.type != MP_MP_BOOL)
        err = MP_ETYPE;
    if (err != MP_OK)
        return err;
    i->is_pipeline = t.b;
    return mp_catalog_check_identity(c, i) ? MP_ETYPE : MP_OK;
}

static const char *check_modules(struct mp_catalog *c, struct entry *e)
{
    struct mp_mp_reader r;
    if (mp_mp_get_array(e->modules, &e->module_count, &r) != MP_OK)
        return "an entry's modules are no list";
    if (e->module_count > MP_MODULES_MAX)
        return "an entry has too many modules";
    for (uint32_t i = 0; i < e->module_count; i++) {
        struct mp_catalog_identity identity;
        struct mp_catalog_hex room;
        if (take_module(c, &r, &room, &identity) != MP_OK)
            return "an entry has a malformed module";
    }
    return NULL;
}

/* An entry of a node without subscribers, or of one that knows no topics, has none. */
static const char *check_topics(struct mp_slice map, struct entry *e)
{
    uint32_t count;
    struct mp_mp_reader r;
    if (mp_mp_map_get(map, mp_slice_str("topics"), &e->said.topics) != MP_OK) {
        e->said.topics = (struct mp_slice){0};
        return NULL;
    }
    if (mp_mp_get_array(e->said.topics, &count, &r) != MP_OK)
        return "an entry's topics are no list";
    struct mp_slice last = {0};
    size_t size = 0;
    for (uint32_t i = 0; i < count; i++) {
        struct mp_slice pattern;
        char bytes[8]; /* what is wrong with it nobody is told */
        struct mp_text message;
        mp_text_init(&message, bytes, sizeof(bytes));
        if (mp_catalog_take_str(&r, &pattern) != MP_OK ||
            mp_topic_pattern_check(pattern, &message) != MP_OK ||
            mp_slice_compare(last, pattern) >= 0)
            return "an entry's topics are no patterns in ascending order";
        last = pattern;
        size += pattern.size;
    }
    if (count > MP_TOPIC_INTEREST_MAX || size > MP_TOPIC_INTEREST_BYTES_MAX)
        return "an entry has too many topics";
    return NULL;
}

static const char *check_said(struct mp_slice map, struct entry *e)
{
    struct mp_slice value;
    int64_t workers;
    struct mp_mp_reader r;
    if (mp_mp_map_get(map, mp_slice_str("workers"), &value) != MP_OK ||
        mp_mp_get_int(value, &workers) != MP_OK || workers < 0 || workers > UINT32_MAX)
        return "an entry has no number of workers";
    if (mp_mp_map_get(map, mp_slice_str("version"), &value) != MP_OK ||
        mp_mp_get_str(value, &e->said.version) != MP_OK ||
        e->said.version.size > MP_VERSION_BYTES_MAX || !mp_slice_is_utf8(e->said.version))
        return "an entry has no program version";
    e->said.workers = (uint32_t)workers;
    if (mp_mp_map_get(map, mp_slice_str("resources"), &e->said.resources) != MP_OK ||
        mp_mp_get_array(e->said.resources, &e->resource_count, &r) != MP_OK)
        return "an entry's resources are no list";
    if (e->resource_count > MP_CATALOG_RESOURCES_MAX)
        return "an entry has too many resources";
    for (uint32_t i = 0; i < e->resource_count; i++) {
        struct mp_slice name;
        if (mp_catalog_take_str(&r, &name) != MP_OK || !mp_slice_is_name(name))
            return "an entry has a resource whose name is not acceptable";
    }
    return check_topics(map, e);
}

/* Reads and checks an entry; why it is malformed, or NULL. */
static const char *read_entry(struct mp_catalog *c, struct mp_slice bytes, struct entry *e)
{
    uint32_t parts;
    struct mp_slice said;
    struct mp_mp_reader r = mp_mp_reader_of(bytes);
    *e = (struct entry){.bytes = bytes};
    if (bytes.size > MP_CATALOG_ENTRY_BYTES_MAX)
        return "an entry is too large";
    if (mp_catalog_take_array(&r, &parts) != MP_OK || parts != 5)
        return "an entry is no list of five";
    if (mp_catalog_take_str(&r, &e->owner) != MP_OK || !mp_slice_is_name(e->owner))
        return "an entry's owner has no acceptable name";
    if (mp_catalog_take_uint(&r, &e->generation) != MP_OK ||
        mp_catalog_take_uint(&r, &e->counter) != MP_OK)
        return "an entry has no stamp";
    if (mp_mp_take(&r, &said) != MP_OK || mp_mp_take(&r, &e->modules) != MP_OK)
        return "an entry is cut off";
    const char *why = check_said(said, e);
    return why ? why : check_modules(c, e);
}

/* --- merging an entry --- */

bool mp_catalog_is_newer(const struct mp_catalog *c, struct mp_slice owner, uint64_t generation,
                         uint64_t counter)
{
    uint32_t node;
    if (mp_catalog_is_stale(c, owner, generation, counter))
        return false;
    if (!mp_map_get(&c->by_member, owner, &node))
        return true;
    const struct mp_catalog_member *m = &c->members[node];
    if (node == MP_CATALOG_SELF)
        return false;
    if (!m->has_entry)
        return true;
    int order = mp_catalog_compare_stamps(generation, counter, m->generation, m->counter);
    return mp_has_defect(c->defects, MP_DEFECT_OLDER_ENTRY_WINS) ? order != 0 : order > 0;
}

/* What an entry becomes. The block holds resources, modules and the entry's bytes. */
struct prepared {
    uint8_t *block;
    size_t size;
    uint32_t *resources;
    uint32_t *modules;
    uint32_t resource_count; /* used so far, each once for its mention */
    uint32_t module_count;
    uint32_t new_from; /* modules from here on were made for it */
    bool is_cut;       /* some modules found no place */
};

static void abandon(struct mp_catalog *c, struct prepared *p)
{
    for (uint32_t i = 0; i < p->module_count; i++)
        c->records[p->modules[i]].is_pinned = false;
    while (c->module_count > p->new_from)
        mp_catalog_drop_module(c);
    for (uint32_t i = 0; i < p->resource_count; i++)
        mp_catalog_release_resource(c, p->resources[i]);
    mp_alloc_free(c->alloc, p->block, p->size);
}

static enum mp_err prepare_resources(struct mp_catalog *c, const struct entry *e,
                                     struct prepared *p)
{
    uint32_t count;
    struct mp_mp_reader r;
    enum mp_err err = mp_mp_get_array(e->said.resources, &count, &r);
    for (uint32_t i = 0; err == MP_OK && i < count; i++) {
        struct mp_slice name;
        err = mp_catalog_take_str(&r, &name);
        if (err == MP_OK)
            err = mp_catalog_use_resource(c, name, &p->resources[p->resource_count]);
        if (err == MP_OK)
            p->resource_count++;
    }
    return err;
}

static enum mp_err prepare_modules(struct mp_catalog *c, const struct entry *e, struct prepared *p)
{
    uint32_t count;
    struct mp_mp_reader r;
    enum mp_err err = mp_mp_get_array(e->modules, &count, &r);
    for (uint32_t i = 0; err == MP_OK && i < count; i++) {
        struct mp_catalog_identity identity;
        struct mp_catalog_hex room;
        uint32_t module;
        err = take_module(c, &r, &room, &identity);
        if (err == MP_OK && !mp_catalog_get_module(c, &identity, &module))
            err = mp_catalog_new_module(c, &identity, &module);
        if (err == MP_EFULL) {
            p->is_cut = true;
            err = MP_OK;
            continue;
        }
        if (err == MP_OK)
            err = mp_catalog_reserve_holder(c, module);
        if (err == MP_OK) {
            c->records[module].is_pinned = true;
            p->modules[p->module_count++] = module;
        }
    }
    return err;
}

static enum mp_err prepare(struct mp_catalog *c, const struct entry *e, struct prepared *p)
{
    *p = (struct prepared){.new_from = c->module_count};
    size_t numbers = ((size_t)e->resource_count + e->module_count) * sizeof(uint32_t);
    p->size = numbers + e->bytes.size;
    p->block = mp_alloc_take(c->alloc, p->size);
    if (!p->block)
        return MP_ENOMEM;
    p->resources = (uint32_t *)(void *)p->block;
    p->modules = p->resources + e->resource_count;
    memcpy(p->block + numbers, e->bytes.data, e->bytes.size);
    enum mp_err err = prepare_resources(c, e, p);
    if (err == MP_OK)
        err = prepare_modules(c, e, p);
    if (err != MP_OK)
        abandon(c, p);
    return err;
}

/* Each resource is in use once for the node, however often its entry mentions it. */
static uint32_t drop_repeated(struct mp_catalog *c, uint32_t *resources, uint32_t count)
{
    uint32_t kept = 0;
    mp_catalog_sort_numbers(c, resources, count);
    for (uint32_t i = 0; i < count; i++)
        if (kept == 0 || resources[kept - 1] != resources[i])
            resources[kept++] = resources[i];
        else
            mp_catalog_release_resource(c, resources[i]);
    return kept;
}

static void commit(struct mp_catalog *c, uint32_t node, const struct entry *e, struct prepared *p)
{
    struct mp_catalog_member *m = &c->members[node];
    const uint8_t *bytes = p->block + (p->size - e->bytes.size);
    bool had_same_topics = mp_slice_equal(m->said.topics, e->said.topics);
    p->resource_count = drop_repeated(c, p->resources, p->resource_count);
    p->module_count = mp_catalog_sort_unique(c, p->modules, p->module_count);
    mp_catalog_clear_entry(c, node);
    m->has_entry = true;
    m->generation = e->generation;
    m->counter = e->counter;
    m->entry = mp_slice_of(bytes, e->bytes.size);
    m->said = e->said;
    m->said.version =
        mp_slice_of(bytes + (e->said.version.data - e->bytes.data), e->said.version.size);
    m->said.resources =
        mp_slice_of(bytes + (e->said.resources.data - e->bytes.data), e->said.resources.size);
    if (e->said.topics.size != 0)
        m->said.topics =
            mp_slice_of(bytes + (e->said.topics.data - e->bytes.data), e->said.topics.size);
    m->resources = p->resources;
    m->resource_count = p->resource_count;
    m->modules = p->modules;
    m->module_count = p->module_count;
    m->block = p->block;
    m->block_size = p->size;
    for (uint32_t i = 0; i < m->module_count; i++) {
        c->records[m->modules[i]].is_pinned = false;
        mp_catalog_add_holder(c, m->modules[i], node);
    }
    if (!had_same_topics)
        mp_catalog_note_interest(c, node);
    mp_catalog_count_in(c, node);
    mp_catalog_drop_tombstone(c, m->name);
}

/* An entry of this node's own name and boot, but later than what it has: one that was refused the
 * name wrote it under the same generation. Ours has to be the later one, or that one stays for
 * ever. */
static void outdo(struct mp_catalog *c, const struct entry *e, struct mp_catalog_merged *out)
{
    struct mp_catalog_member *self = &c->members[MP_CATALOG_SELF];
    if (e->generation != self->generation || e->counter <= self->counter ||
        e->counter > UINT32_MAX) /* nobody added so many modules */
        return;
    mp_catalog_count_out(c, MP_CATALOG_SELF);
    self->counter = e->counter + 1;
    mp_catalog_count_in(c, MP_CATALOG_SELF);
    out->is_outdone = true;
}

static enum mp_err merge_entry(struct mp_catalog *c, struct mp_slice bytes,
                               struct mp_catalog_merged *out)
{
    struct entry e;
    struct prepared p;
    uint32_t node;
    const char *why = read_entry(c, bytes, &e);
    if (why) {
        out->dropped = why;
        return MP_OK;
    }
    /* One of a node that membership has not told of yet comes again with a digest. */
    if (!mp_map_get(&c->by_member, e.owner, &node))
        return MP_OK;
    if (node == MP_CATALOG_SELF)
        outdo(c, &e, out);
    if (!mp_catalog_is_newer(c, e.owner, e.generation, e.counter))
        return MP_OK;
    /* Nor does one of a boot that membership does not list: its name may yet be refused, and then
     * the entry of the rightful holder would be older for ever. */
    if (c->members[node].listed != 0 && e.generation > c->members[node].listed)
        return MP_OK;
    enum mp_err err = prepare(c, &e, &p);
    if (err != MP_OK)
        return err;
    commit(c, node, &e, &p);
    out->is_changed = true;
    if (p.is_cut)
        out->dropped = "there are too many modules";
    return MP_OK;
}

/* --- metadata --- */

struct description {
    struct mp_catalog_identity identity;
    struct mp_catalog_hex room;
    struct mp_slice metadata;
};

static bool read_description(struct mp_slice bytes, struct description *d)
{
    uint32_t parts;
    struct mp_mp_reader r = mp_mp_reader_of(bytes);
    struct mp_slice name;
    struct mp_slice version;
    struct mp_slice hash;
    if (mp_catalog_take_array(&r, &parts) != MP_OK || parts != 4 ||
        take_hash(&r, &d->room, &hash) != MP_OK || mp_catalog_take_str(&r, &name) != MP_OK ||
        mp_catalog_take_str(&r, &version) != MP_OK || mp_mp_take(&r, &d->metadata) != MP_OK ||
        mp_mp_type_of(d->metadata) != MP_MP_MAP)
        return false;
    d->identity = (struct mp_catalog_identity){.name = name, .version = version, .hash = hash};
    return true;
}

/* Why metadata does not describe the module that it should; NULL if it does. */
static const char *check_description(struct mp_catalog *c, const struct description *d)
{
    const struct mp_catalog_identity said =
        mp_catalog_identity_of(d->identity.name, d->identity.hash, d->metadata);
    if (said.is_pipeline != d->identity.is_pipeline ||
        !mp_slice_equal(said.name, d->identity.name) ||
        !mp_slice_equal(said.version, d->identity.version))
        return "a module's description is that of another one";
    if (d->metadata.size > MP_MODULE_BYTES_MAX ||
        d->metadata.size > MP_CATALOG_METADATA_BYTES_MAX ||
        c->metadata_bytes > MP_CATALOG_METADATA_BYTES_MAX - d->metadata.size)
        return "a module's description is too large";
    return mp_catalog_check_functions(c, d->metadata);
}

static enum mp_err merge_description(struct mp_catalog *c, struct mp_slice bytes,
                                     struct mp_catalog_merged *out)
{
    struct description d;
    if (!read_description(bytes, &d)) {
        out->dropped = "a module's description is malformed";
        return MP_OK;
    }
    /* Kinds of one name and content are two modules; at most one of them is what it says. */
    for (int kind = 0; kind < 2; kind++) {
        uint32_t module;
        d.identity.is_pipeline = kind == 1;
        if (!mp_catalog_get_module(c, &d.identity, &module) ||
            c->modules[module].metadata.size != 0)
            continue;
        const char *why = check_description(c, &d);
        if (why) {
            out->dropped = why;
            c->records[module].refusals++;
            continue;
        }
        enum mp_err err = mp_catalog_describe(c, module, d.metadata);
        if (err != MP_OK)
            return err;
        out->is_changed = true;
    }
    return MP_OK;
}

/* --- a message --- */

typedef enum mp_err merge_one(struct mp_catalog *c, struct mp_slice bytes,
                              struct mp_catalog_merged *out);

static enum mp_err merge_list(struct mp_catalog *c, struct mp_slice bytes, const char *key,
                              merge_one *one, struct mp_catalog_merged *out, uint32_t *count)
{
    struct mp_slice list;
    struct mp_mp_reader r;
    *count = 0;
    if (mp_mp_map_get(bytes, mp_slice_str(key), &list) != MP_OK)
        return MP_OK;
    if (mp_mp_get_array(list, count, &r) != MP_OK) {
        out->dropped = "entries or modules are no list";
        return MP_OK;
    }
    enum mp_err err = MP_OK;
    for (uint32_t i = 0; err == MP_OK && i < *count; i++) {
        struct mp_slice item;
        err = mp_mp_take(&r, &item);
        if (err == MP_OK)
            err = one(c, item, out);
    }
    return err;
}

enum mp_err mp_catalog_merge(struct mp_catalog *c, struct mp_slice bytes,
                             struct mp_catalog_merged *out)
{
    uint32_t entries;
    uint32_t modules;
    *out = (struct mp_catalog_merged){0};
    if (bytes.size == 0 || mp_mp_check(bytes) != MP_OK || mp_mp_type_of(bytes) != MP_MP_MAP) {
        out->dropped = "entries are no map in MessagePack";
        return MP_OK;
    }
    enum mp_err err = merge_list(c, bytes, "entries", merge_entry, out, &entries);
    if (err == MP_OK)
        err = merge_list(c, bytes, "modules", merge_description, out, &modules);
    /* Metadata that was no good is not asked for at once again: that could go on for ever. */
    out->is_missing =
        err == MP_OK && (entries != 0 || out->is_changed) && mp_catalog_is_missing_any(c);
    return err;
}
