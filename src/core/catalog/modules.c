/* Modules, their functions, and which nodes hold them. A module is made when an entry mentions it
 * and described when its metadata comes, which is copied once; everything else points into the
 * copy. Modules that were described stay, so that keys of functions never change their meaning; one
 * that nobody holds and nobody described makes room when the table is full.
 *
 * Invariants: functions of one name form a chain from by_name, and pipelines of one name a chain
 * from pipelines: the highest version first, contents of one version in order of their hash, which
 * is the same order on every node. Holders are in ascending order. */
#include "src/base/assert.h"
#include "src/base/limits.h"
#include "src/core/catalog/catalog_internal.h"
#include "src/wire/msgpack.h"
#include "src/wire/topic.h"

static_assert(MP_MODULE_NAME_BYTES_MAX + 1 + 64 <= MP_FUNCTION_BYTES_MAX,
              "a function's name is its module's, a dot and a name");

enum mp_err mp_catalog_grow(struct mp_alloc *a, void **array, uint32_t *capacity, uint32_t wanted,
                            size_t item)
{
    if (wanted <= *capacity)
        return MP_OK;
    uint32_t next = *capacity == 0 ? 4 : *capacity * 2;
    while (next < wanted)
        next *= 2;
    void *grown = a->resize(a->context, *array, *capacity * item, next * item);
    if (!grown)
        return MP_ENOMEM;
    *array = grown;
    *capacity = next;
    return MP_OK;
}

struct mp_slice mp_catalog_text_of(struct mp_slice map, const char *key)
{
    struct mp_slice value;
    struct mp_slice text;
    if (map.size != 0 && mp_mp_map_get(map, mp_slice_str(key), &value) == MP_OK &&
        mp_mp_get_str(value, &text) == MP_OK)
        return text;
    return mp_slice_of(NULL, 0);
}

/* A module without _VERSION ranks lowest. A pipeline is known by the name that it gives itself, not
 * by its file's. */
struct mp_catalog_identity mp_catalog_identity_of(struct mp_slice name, struct mp_slice hash,
                                                  struct mp_slice metadata)
{
    struct mp_slice version = mp_catalog_text_of(metadata, "version");
    struct mp_slice own = mp_catalog_text_of(metadata, "name");
    bool is_pipeline = mp_slice_is(mp_catalog_text_of(metadata, "kind"), "pipeline");
    return (struct mp_catalog_identity){
        .name = is_pipeline && own.size != 0 ? own : name,
        .version = version.size != 0 ? version : mp_slice_str("0.0.0"),
        .hash = hash,
        .is_pipeline = is_pipeline,
    };
}

static bool is_hash(struct mp_slice hash)
{
    if (hash.size % 2 != 0 || hash.size > 2 * MP_HASH_BYTES_MAX)
        return false;
    for (size_t i = 0; i < hash.size; i++) {
        uint8_t b = hash.data[i];
        if (!(b >= '0' && b <= '9') && !(b >= 'a' && b <= 'f'))
            return false;
    }
    return true;
}

const char *mp_catalog_check_identity(struct mp_catalog *c, const struct mp_catalog_identity *i)
{
    struct mp_version version;
    struct mp_text why;
    mp_text_init(&why, c->why, sizeof(c->why));
    if (!mp_slice_is_dotted_name(i->name) || i->name.size > MP_MODULE_NAME_BYTES_MAX) {
        mp_text_put(&why, "its name is not acceptable: letters, digits, '_' and '-', with dots");
        return c->why;
    }
    if (i->version.size > MP_VERSION_BYTES_MAX || mp_version_read(i->version, &version) != MP_OK) {
        mp_text_put(&why, "its _VERSION is no version such as 1.2.0: ");
        mp_text_put_slice(&why, i->version);
        return c->why;
    }
    return is_hash(i->hash) ? NULL : "its hash is not one of at most 32 bytes in hex digits";
}

/* --- functions: what metadata says of them --- */

static bool get_list(struct mp_slice map, const char *key, uint32_t *count, struct mp_mp_reader *r)
{
    struct mp_slice list;
    return map.size != 0 && mp_mp_map_get(map, mp_slice_str(key), &list) == MP_OK &&
           mp_mp_get_array(list, count, r) == MP_OK;
}

static bool is_pattern(struct mp_slice value)
{
    struct mp_slice text;
    char bytes[8];
    struct mp_text why;
    mp_text_init(&why, bytes, sizeof(bytes)); /* its own node has said what is wrong with it */
    return mp_mp_get_str(value, &text) == MP_OK && mp_topic_pattern_check(text, &why) == MP_OK;
}

/* A pattern of topics, or an array of some. */
static bool are_patterns(struct mp_slice value)
{
    uint32_t count;
    struct mp_mp_reader r;
    if (mp_mp_get_array(value, &count, &r) != MP_OK)
        return is_pattern(value);
    bool is_good = count <= MP_SUBSCRIBE_MAX;
    for (uint32_t i = 0; is_good && i < count; i++) {
        struct mp_slice item;
        is_good = mp_mp_take(&r, &item) == MP_OK && is_pattern(item);
    }
    return is_good;
}

/* Why a function cannot be taken; NULL if it can. */
static const char *check_function(struct mp_catalog *c, struct mp_slice map)
{
    uint32_t needs;
    struct mp_mp_reader r;
    struct mp_text why;
    struct mp_slice name = mp_catalog_text_of(map, "name");
    mp_text_init(&why, c->why, sizeof(c->why));
    if (!mp_slice_is_name(name)) {
        mp_text_put(&why, "the name of a function is not acceptable: ");
        mp_text_put_slice(&why, name);
        return c->why;
    }
    if (get_list(map, "needs", &needs, &r) && needs > MP_NEEDS_MAX) {
        mp_text_put_slice(&why, name);
        mp_text_put(&why, " needs more resources than ");
        mp_text_put_uint(&why, MP_NEEDS_MAX);
        return c->why;
    }
    struct mp_slice subscribe;
    if (mp_mp_map_get(map, mp_slice_str("subscribe"), &subscribe) != MP_OK ||
        are_patterns(subscribe))
        return NULL;
    mp_text_put_slice(&why, name);
    mp_text_put(&why, " subscribes to what is no pattern of topics, or to more than ");
    mp_text_put_uint(&why, MP_SUBSCRIBE_MAX);
    return c->why;
}

const char *mp_catalog_check_functions(struct mp_catalog *c, struct mp_slice metadata)
{
    uint32_t count;
    struct mp_mp_reader r;
    if (!get_list(metadata, "functions", &count, &r))
        return NULL;
    if (count > MP_MODULE_FUNCTIONS_MAX) {
        struct mp_text why;
        mp_text_init(&why, c->why, sizeof(c->why));
        mp_text_put(&why, "it has more functions than ");
        mp_text_put_uint(&why, MP_MODULE_FUNCTIONS_MAX);
        return c->why;
    }
    for (uint32_t i = 0; i < count; i++) {
        struct mp_slice map;
        if (mp_mp_take(&r, &map) != MP_OK)
            return "what describes it is no MessagePack";
        const char *why = check_function(c, map);
        if (why)
            return why;
    }
    return NULL;
}

bool mp_catalog_has_functions(const struct mp_catalog *c, uint32_t module, struct mp_slice metadata)
{
    const struct mp_catalog_module *m = &c->modules[module];
    uint32_t count;
    struct mp_mp_reader r;
    if (m->is_pipeline || !get_list(metadata, "functions", &count, &r))
        return m->function_count == 0;
    bool is_same = count == m->function_count;
    for (uint32_t i = 0; is_same && i < count; i++) {
        struct mp_slice map;
        is_same = mp_mp_take(&r, &map) == MP_OK;
        if (!is_same)
            break;
        struct mp_slice name = c->functions[m->first_function + i].name;
        name = mp_slice_of(name.data + m->name.size + 1, name.size - m->name.size - 1);
        is_same = mp_slice_equal(name, mp_catalog_text_of(map, "name"));
    }
    return is_same;
}

/* A number above 0, at most `max`; 0 if there is none. */
static uint64_t uint_of(struct mp_slice map, const char *key, uint64_t max)
{
    struct mp_slice value;
    int64_t number;
    if (mp_mp_map_get(map, mp_slice_str(key), &value) != MP_OK ||
        mp_mp_get_int(value, &number) != MP_OK || number <= 0)
        return 0;
    return (uint64_t)number < max ? (uint64_t)number : max;
}

/* Every entry of an array is a name. */
static bool is_name_list(struct mp_slice list)
{
    uint32_t count;
    struct mp_mp_reader r;
    if (mp_mp_get_array(list, &count, &r) != MP_OK)
        return false;
    for (uint32_t i = 0; i < count; i++) {
        struct mp_mp_token t;
        if (mp_mp_next(&r, &t) != MP_OK || t.type != MP_MP_STR || !mp_slice_is_name(t.bytes))
            return false;
    }
    return true;
}

/* The function's entry from its metadata map; its name is allocated. */
static enum mp_err read_function(struct mp_catalog *c, struct mp_slice module_name,
                                 struct mp_slice map, struct mp_catalog_function *f)
{
    struct mp_slice name = mp_catalog_text_of(map, "name");
    if (!mp_slice_is_name(name))
        return MP_ECORRUPT;
    size_t size = module_name.size + 1 + name.size;
    uint8_t *full = mp_alloc_take(c->alloc, size);
    if (!full)
        return MP_ENOMEM;
    memcpy(full, module_name.data, module_name.size);
    full[module_name.size] = '.';
    memcpy(full + module_name.size + 1, name.data, name.size);
    *f = (struct mp_catalog_function){
        .name = mp_slice_of(full, size),
        .next = MP_CATALOG_NONE,
        .concurrency = (uint32_t)uint_of(map, "concurrency", UINT32_MAX),
        .timeout = MP_MS(uint_of(map, "timeout_ms", MP_TIMEOUT_MS_MAX)),
        .metadata = map,
    };
    struct mp_slice value;
    if (mp_mp_map_get(map, mp_slice_str("needs"), &value) == MP_OK && is_name_list(value))
        f->needs = value;
    if (mp_mp_map_get(map, mp_slice_str("idempotent"), &value) == MP_OK &&
        mp_mp_get_bool(value, &f->is_idempotent) != MP_OK)
        f->is_idempotent = false;
    if (mp_mp_map_get(map, mp_slice_str("subscribe"), &value) == MP_OK && are_patterns(value))
        f->subscribe = value;
    return MP_OK;
}

/* --- chains --- */

/* Whether module a stands before b in a chain. */
static bool ranks_before(const struct mp_catalog *c, uint32_t a, uint32_t b)
{
    const struct mp_catalog_module *x = &c->modules[a];
    const struct mp_catalog_module *y = &c->modules[b];
    int order = mp_version_compare(&x->version, &y->version);
    if (order != 0)
        return order > 0;
    order = mp_slice_compare(x->hash, y->hash);
    return order != 0 ? order < 0 : mp_slice_compare(x->version_text, y->version_text) < 0;
}

/* Puts a function into the chain of its name. */
static enum mp_err chain(struct mp_catalog *c, uint32_t key)
{
    struct mp_catalog_function *f = &c->functions[key];
    uint32_t first;
    if (!mp_map_get(&c->by_name, f->name, &first))
        return mp_map_set(&c->by_name, f->name, key);
    if (ranks_before(c, f->module, c->functions[first].module)) {
        f->next = first;
        return mp_map_set(&c->by_name, f->name, key);
    }
    struct mp_catalog_function *before = &c->functions[first];
    while (before->next != MP_CATALOG_NONE &&
           !ranks_before(c, f->module, c->functions[before->next].module))
        before = &c->functions[before->next];
    f->next = before->next;
    before->next = key;
    return MP_OK;
}

static void free_name(struct mp_catalog *c, const struct mp_catalog_function *f)
{
    mp_alloc_free(c->alloc, (void *)(uintptr_t)f->name.data, f->name.size);
}

/* The map's key is the name of some function of the chain: of another one now, if there is one. */
static void rekey(struct mp_map *map, struct mp_slice old, struct mp_slice name, uint32_t first)
{
    (void)mp_map_remove(map, old);
    if (first == MP_CATALOG_NONE)
        return;
    enum mp_err err = mp_map_set(map, name, first);
    mp_assert(err == MP_OK); /* there is the room of the one removed */
}

/* Takes a function out of the chain of its name; its place holds nothing then. */
static void drop_function(struct mp_catalog *c, struct mp_catalog_function *f)
{
    uint32_t first = MP_CATALOG_NONE;
    bool is_there = mp_map_get(&c->by_name, f->name, &first);
    bool is_chained = is_there && first == f->key;
    if (is_chained) {
        first = f->next;
    } else if (is_there) {
        struct mp_catalog_function *before = &c->functions[first];
        while (before->next != MP_CATALOG_NONE && before->next != f->key)
            before = &c->functions[before->next];
        is_chained = before->next == f->key;
        if (is_chained)
            before->next = f->next;
    }
    if (is_chained)
        rekey(&c->by_name, f->name, first != MP_CATALOG_NONE ? c->functions[first].name : f->name,
              first);
    free_name(c, f);
    c->subscribed_count -= f->subscribe.size != 0;
    f->name = mp_slice_of(NULL, 0);
    f->metadata = f->name;
    f->needs = f->name;
    f->subscribe = f->name;
}

/* Places for that many functions behind each other: those that a retired module left, or new ones.
 * What is left of a spare range is spare no more, which costs little: versions of a module have
 * about as many functions. */
static enum mp_err take_places(struct mp_catalog *c, uint32_t module, uint32_t count,
                               uint32_t *first)
{
    struct mp_catalog_record *r = &c->records[module];
    if (count == 0 || r->spare_count < count) {
        *first = c->function_count;
        return mp_catalog_grow(c->alloc, (void **)&c->functions, &c->function_capacity,
                               c->function_count + count, sizeof(*c->functions));
    }
    *first = r->spare_first;
    return MP_OK;
}

/* All functions of the module, or none. */
static enum mp_err add_functions(struct mp_catalog *c, uint32_t module)
{
    uint32_t count;
    struct mp_mp_reader r;
    struct mp_catalog_module *m = &c->modules[module];
    m->first_function = c->function_count;
    m->function_count = 0;
    if (!get_list(m->metadata, "functions", &count, &r))
        return MP_OK;
    enum mp_err err = take_places(c, module, count, &m->first_function);
    for (uint32_t i = 0; err == MP_OK && i < count; i++) {
        struct mp_slice map;
        uint32_t key = m->first_function + i;
        err = mp_mp_take(&r, &map);
        if (err == MP_OK)
            err = read_function(c, m->name, map, &c->functions[key]);
        if (err != MP_OK)
            break;
        c->functions[key].key = key;
        c->functions[key].module = module;
        c->functions[key].index = i;
        m->function_count++;
        c->subscribed_count += c->functions[key].subscribe.size != 0;
        err = chain(c, key);
    }
    if (err == MP_OK) {
        uint32_t end = m->first_function + m->function_count;
        c->function_count = end > c->function_count ? end : c->function_count;
        if (count != 0 && m->first_function == c->records[module].spare_first)
            c->records[module].spare_count = 0;
        return MP_OK;
    }
    while (m->function_count != 0)
        drop_function(c, &c->functions[m->first_function + --m->function_count]);
    return err;
}

/* Puts a pipeline into the chain of its name. */
static enum mp_err add_pipeline(struct mp_catalog *c, uint32_t module)
{
    struct mp_catalog_module *m = &c->modules[module];
    struct mp_catalog_record *r = &c->records[module];
    uint32_t first = MP_CATALOG_NONE;
    if (mp_mp_map_get(m->metadata, mp_slice_str("graph"), &m->graph) != MP_OK)
        m->graph = mp_slice_of(NULL, 0);
    if (!mp_map_get(&c->pipelines, m->name, &first) || ranks_before(c, module, first)) {
        r->next_pipeline = first;
        return mp_map_set(&c->pipelines, m->name, module);
    }
    struct mp_catalog_record *before = &c->records[first];
    while (before->next_pipeline != MP_CATALOG_NONE &&
           !ranks_before(c, module, before->next_pipeline))
        before = &c->records[before->next_pipeline];
    r->next_pipeline = before->next_pipeline;
    before->next_pipeline = module;
    return MP_OK;
}

enum mp_err mp_catalog_describe(struct mp_catalog *c, uint32_t module, struct mp_slice metadata)
{
    struct mp_catalog_module *m = &c->modules[module];
    mp_assert(m->metadata.size == 0 && metadata.size != 0);
    uint8_t *block = mp_alloc_take(c->alloc, metadata.size);
    if (!block)
        return MP_ENOMEM;
    memcpy(block, metadata.data, metadata.size);
    m->metadata = mp_slice_of(block, metadata.size);
    enum mp_err err = m->is_pipeline ? add_pipeline(c, module) : add_functions(c, module);
    if (err != MP_OK) {
        mp_alloc_free(c->alloc, block, metadata.size);
        m->metadata = mp_slice_of(NULL, 0);
        m->graph = mp_slice_of(NULL, 0);
        return err;
    }
    c->metadata_bytes += metadata.size;
    c->unknown_count--;
    return MP_OK;
}

/* Takes a pipeline out of the chain of its name. */
static void drop_pipeline(struct mp_catalog *c, uint32_t module)
{
    struct mp_catalog_record *r = &c->records[module];
    struct mp_slice name = c->modules[module].name;
    uint32_t first;
    bool is_there = mp_map_get(&c->pipelines, name, &first);
    mp_assert(is_there);
    if (first == module) {
        first = r->next_pipeline;
    } else {
        struct mp_catalog_record *before = &c->records[first];
        while (before->next_pipeline != module)
            before = &c->records[before->next_pipeline];
        before->next_pipeline = r->next_pipeline;
    }
    rekey(&c->pipelines, name, first != MP_CATALOG_NONE ? c->modules[first].name : name, first);
    r->next_pipeline = MP_CATALOG_NONE;
}

void mp_catalog_undescribe(struct mp_catalog *c, uint32_t module)
{
    struct mp_catalog_module *m = &c->modules[module];
    struct mp_catalog_record *r = &c->records[module];
    mp_assert(m->metadata.size != 0);
    if (m->is_pipeline)
        drop_pipeline(c, module);
    if (m->function_count > r->spare_count) {
        r->spare_first = m->first_function;
        r->spare_count = m->function_count;
    }
    while (m->function_count != 0)
        drop_function(c, &c->functions[m->first_function + --m->function_count]);
    c->metadata_bytes -= m->metadata.size;
    mp_alloc_free(c->alloc, (void *)(uintptr_t)m->metadata.data, m->metadata.size);
    m->metadata = mp_slice_of(NULL, 0);
    m->graph = mp_slice_of(NULL, 0);
    c->unknown_count++;
}

/* --- modules --- */

/* Kind, name, version and hash, with separators that none of them holds; and the unit. */
static size_t identity_size(const struct mp_catalog_identity *i)
{
    return 1 + i->name.size + 1 + i->version.size + 1 + i->hash.size + i->unit.size;
}

static void write_identity(const struct mp_catalog_identity *i, uint8_t *out)
{
    const struct mp_slice parts[] = {i->name, i->version, i->hash};
    bool is_deployed = i->unit.size != 0;
    *out++ = i->is_pipeline ? (is_deployed ? 'P' : 'p') : (is_deployed ? 'M' : 'm');
    for (int k = 0; k < 3; k++) {
        if (parts[k].size != 0)
            memcpy(out, parts[k].data, parts[k].size);
        out += parts[k].size;
        if (k < 2)
            *out++ = '\n';
    }
    if (is_deployed)
        memcpy(out, i->unit.data, i->unit.size);
}

bool mp_catalog_get_module(const struct mp_catalog *c, const struct mp_catalog_identity *i,
                           uint32_t *module)
{
    uint8_t bytes[3 + MP_MODULE_NAME_BYTES_MAX + MP_VERSION_BYTES_MAX + 2 * MP_HASH_BYTES_MAX +
                  MP_UNIT_HASH_BYTES];
    size_t size = identity_size(i);
    if (size > sizeof(bytes))
        return false;
    write_identity(i, bytes);
    return mp_map_get(&c->identities, mp_slice_of(bytes, size), module);
}

/* Takes a module out of the maps and frees it; its place holds nothing then. */
static void unlink_module(struct mp_catalog *c, uint32_t module)
{
    struct mp_catalog_record *r = &c->records[module];
    struct mp_slice hash = c->modules[module].hash;
    uint32_t first = MP_CATALOG_NONE;
    mp_assert(r->holder_count == 0 && c->modules[module].metadata.size == 0);
    (void)mp_map_remove(&c->identities, r->identity);
    bool is_there = mp_map_get(&c->by_hash, hash, &first);
    mp_assert(is_there);
    if (first == module) {
        /* The key's bytes are this module's. */
        (void)mp_map_remove(&c->by_hash, hash);
        if (r->next_same_hash != MP_CATALOG_NONE) {
            enum mp_err err =
                mp_map_set(&c->by_hash, c->modules[r->next_same_hash].hash, r->next_same_hash);
            mp_assert(err == MP_OK); /* there is the room of the one removed */
        }
    } else {
        struct mp_catalog_record *before = &c->records[first];
        while (before->next_same_hash != module)
            before = &c->records[before->next_same_hash];
        before->next_same_hash = r->next_same_hash;
    }
    mp_alloc_free(c->alloc, r->holders, r->holder_capacity * sizeof(*r->holders));
    mp_alloc_free(c->alloc, (void *)(uintptr_t)r->identity.data, r->identity.size);
    c->unknown_count--;
}

void mp_catalog_drop_module(struct mp_catalog *c)
{
    mp_assert(c->module_count != 0);
    unlink_module(c, c->module_count - 1);
    c->module_count--;
}

/* A place for one more module, perhaps that of one which nobody holds and nobody described.
 * MP_EFULL if there is none. */
static enum mp_err find_place(struct mp_catalog *c, uint32_t *module)
{
    for (uint32_t i = 0; c->retired_count != 0 && i < c->module_count; i++)
        if (c->records[i].is_retired) {
            *module = i;
            return MP_OK;
        }
    if (c->module_count < MP_MODULES_MAX) {
        *module = c->module_count;
        enum mp_err err = mp_catalog_grow(c->alloc, (void **)&c->modules, &c->module_capacity,
                                          c->module_count + 1, sizeof(*c->modules));
        if (err != MP_OK)
            return err;
        return mp_catalog_grow(c->alloc, (void **)&c->records, &c->record_capacity,
                               c->module_count + 1, sizeof(*c->records));
    }
    if (c->unknown_count == 0)
        return MP_EFULL;
    for (uint32_t i = 0; i < c->module_count; i++)
        if (c->modules[i].metadata.size == 0 && c->records[i].holder_count == 0 &&
            !c->records[i].is_pinned) {
            *module = i;
            return MP_OK;
        }
    return MP_EFULL;
}

/* Makes room for a key, so that to set it cannot fail. */
static enum mp_err reserve_key(struct mp_map *map, struct mp_slice key)
{
    uint32_t value;
    if (mp_map_get(map, key, &value))
        return MP_OK;
    enum mp_err err = mp_map_set(map, key, MP_CATALOG_NONE);
    if (err == MP_OK)
        (void)mp_map_remove(map, key);
    return err;
}

static enum mp_err reserve_keys(struct mp_catalog *c, struct mp_slice identity,
                                struct mp_slice hash)
{
    enum mp_err err = reserve_key(&c->identities, identity);
    return err != MP_OK ? err : reserve_key(&c->by_hash, hash);
}

/* Into the maps, in which there is room. */
static void link_module(struct mp_catalog *c, uint32_t module)
{
    struct mp_catalog_record *r = &c->records[module];
    uint32_t first;
    enum mp_err err = mp_map_set(&c->identities, r->identity, module);
    mp_assert(err == MP_OK);
    if (mp_map_get(&c->by_hash, c->modules[module].hash, &first)) {
        r->next_same_hash = c->records[first].next_same_hash;
        c->records[first].next_same_hash = module;
        return;
    }
    err = mp_map_set(&c->by_hash, c->modules[module].hash, module);
    mp_assert(err == MP_OK);
}

/* A module whose slices point into its identity, which lies in `block`. */
static struct mp_catalog_module module_in(const struct mp_catalog_identity *i, const uint8_t *block)
{
    const uint8_t *version = block + 1 + i->name.size + 1;
    struct mp_catalog_module m = {
        .name = mp_slice_of(block + 1, i->name.size),
        .version_text = mp_slice_of(version, i->version.size),
        .hash = mp_slice_of(version + i->version.size + 1, i->hash.size),
        .host_module = MP_CATALOG_NONE,
        .is_pipeline = i->is_pipeline,
        .is_deployed = i->unit.size != 0,
    };
    enum mp_err err = mp_version_read(m.version_text, &m.version);
    mp_assert(err == MP_OK); /* it was checked */
    return m;
}

enum mp_err mp_catalog_new_module(struct mp_catalog *c, const struct mp_catalog_identity *i,
                                  uint32_t *module)
{
    uint32_t place;
    size_t size = identity_size(i);
    enum mp_err err = find_place(c, &place);
    if (err != MP_OK)
        return err;
    uint8_t *block = mp_alloc_take(c->alloc, size);
    if (!block)
        return MP_ENOMEM;
    write_identity(i, block);
    const struct mp_catalog_module m = module_in(i, block);
    err = reserve_keys(c, mp_slice_of(block, size), m.hash);
    if (err != MP_OK) {
        mp_alloc_free(c->alloc, block, size);
        return err;
    }
    struct mp_catalog_record r = {.identity = mp_slice_of(block, size),
                                  .next_same_hash = MP_CATALOG_NONE,
                                  .next_pipeline = MP_CATALOG_NONE};
    if (place < c->module_count) {
        r.spare_first = c->records[place].spare_first;
        r.spare_count = c->records[place].spare_count;
        c->retired_count -= c->records[place].is_retired;
        unlink_module(c, place);
    }
    c->modules[place] = m;
    c->records[place] = r;
    link_module(c, place);
    c->unknown_count++;
    c->module_count += place == c->module_count;
    c->modules[place].is_shadowed = mp_catalog_is_hidden(c, place);
    *module = place;
    return MP_OK;
}

void mp_catalog_free_modules(struct mp_catalog *c)
{
    for (uint32_t i = 0; i < c->function_count; i++)
        free_name(c, &c->functions[i]);
    for (uint32_t i = 0; i < c->module_count; i++) {
        struct mp_catalog_record *r = &c->records[i];
        const struct mp_slice metadata = c->modules[i].metadata;
        mp_alloc_free(c->alloc, (void *)(uintptr_t)metadata.data, metadata.size);
        mp_alloc_free(c->alloc, (void *)(uintptr_t)c->modules[i].scope.data, r->scope_size);
        mp_alloc_free(c->alloc, r->holders, r->holder_capacity * sizeof(*r->holders));
        mp_alloc_free(c->alloc, (void *)(uintptr_t)r->identity.data, r->identity.size);
    }
    mp_alloc_free(c->alloc, c->functions, c->function_capacity * sizeof(*c->functions));
    mp_alloc_free(c->alloc, c->modules, c->module_capacity * sizeof(*c->modules));
    mp_alloc_free(c->alloc, c->records, c->record_capacity * sizeof(*c->records));
    mp_map_fini(&c->by_name);
    mp_map_fini(&c->pipelines);
    mp_map_fini(&c->identities);
    mp_map_fini(&c->by_hash);
}

/* --- holders --- */

enum mp_err mp_catalog_reserve_holder(struct mp_catalog *c, uint32_t module)
{
    struct mp_catalog_record *r = &c->records[module];
    return mp_catalog_grow(c->alloc, (void **)&r->holders, &r->holder_capacity, r->holder_count + 1,
                           sizeof(*r->holders));
}

void mp_catalog_add_holder(struct mp_catalog *c, uint32_t module, uint32_t node)
{
    struct mp_catalog_record *r = &c->records[module];
    uint32_t at = mp_catalog_search(r->holders, r->holder_count, node);
    if (at < r->holder_count && r->holders[at] == node)
        return;
    mp_assert(r->holder_count < r->holder_capacity);
    memmove(r->holders + at + 1, r->holders + at, (r->holder_count - at) * sizeof(*r->holders));
    r->holders[at] = node;
    r->holder_count++;
}

void mp_catalog_remove_holder(struct mp_catalog *c, uint32_t module, uint32_t node)
{
    struct mp_catalog_record *r = &c->records[module];
    uint32_t at = mp_catalog_search(r->holders, r->holder_count, node);
    mp_assert(at < r->holder_count && r->holders[at] == node);
    r->holder_count--;
    memmove(r->holders + at, r->holders + at + 1, (r->holder_count - at) * sizeof(*r->holders));
}

bool mp_catalog_is_holder(const struct mp_catalog *c, uint32_t module, uint32_t node)
{
    if (c->modules[module].is_deployed)
        return mp_catalog_is_in_scope(c, module, node);
    const struct mp_catalog_record *r = &c->records[module];
    uint32_t at = mp_catalog_search(r->holders, r->holder_count, node);
    return at < r->holder_count && r->holders[at] == node;
}

bool mp_catalog_next_holder(const struct mp_catalog *c, uint32_t module, uint32_t *cursor,
                            uint32_t *node)
{
    const struct mp_catalog_record *r = &c->records[module];
    if (!c->modules[module].is_deployed) {
        if (*cursor >= r->holder_count)
            return false;
        *node = r->holders[(*cursor)++];
        return true;
    }
    while (*cursor < c->member_capacity) {
        *node = (*cursor)++;
        if (mp_catalog_is_in_scope(c, module, *node))
            return true;
    }
    return false;
}

/* Whether callers without wishes get this one of all functions of its name. */
static bool is_first_offered(const struct mp_catalog *c, const struct mp_catalog_function *f)
{
    uint32_t key;
    if (!mp_map_get(&c->by_name, f->name, &key))
        return false;
    while (key != MP_CATALOG_NONE && !mp_catalog_is_offered(c, c->functions[key].module))
        key = c->functions[key].next;
    return key == f->key;
}

const struct mp_catalog_function *mp_catalog_next_subscribed(const struct mp_catalog *c,
                                                             uint32_t *key)
{
    while (c->subscribed_count != 0 && *key < c->function_count) {
        const struct mp_catalog_function *f = &c->functions[(*key)++];
        if (f->subscribe.size != 0 && is_first_offered(c, f))
            return f;
    }
    return NULL;
}

bool mp_catalog_is_offered(const struct mp_catalog *c, uint32_t module)
{
    return !c->modules[module].is_shadowed && mp_catalog_is_provided(c, module);
}

bool mp_catalog_is_provided(const struct mp_catalog *c, uint32_t module)
{
    if (c->modules[module].is_deployed)
        return c->modules[module].is_live;
    const struct mp_catalog_record *r = &c->records[module];
    for (uint32_t i = 0; i < r->holder_count; i++)
        if (mp_catalog_is_live(c, r->holders[i]))
            return true;
    return false;
}
