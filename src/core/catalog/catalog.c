/* The catalog of one node: modules as its workers described them. Entries are only ever added here;
 * a module's metadata is copied once and everything else points into it. Invariant: functions of
 * one name form a chain from by_name, the highest version first. */
#include "src/core/catalog/catalog.h"

#include "src/base/assert.h"
#include "src/base/limits.h"
#include "src/wire/msgpack.h"

static enum mp_err copy_names(struct mp_catalog *c, const struct mp_catalog_config *cfg)
{
    size_t total = cfg->node.size + cfg->cluster.size;
    for (uint32_t i = 0; i < cfg->resource_count; i++)
        total += cfg->resources[i].size;
    enum mp_err err = mp_buf_reserve(&c->names, total + 1);
    if (err != MP_OK)
        return err;
    /* Reserved: the buffer does not move any more, so slices into it stay good. */
    struct mp_slice *targets[2] = {&c->node, &c->cluster};
    const struct mp_slice sources[2] = {cfg->node, cfg->cluster};
    for (int i = 0; err == MP_OK && i < 2; i++) {
        *targets[i] = mp_slice_of(c->names.data + c->names.size, sources[i].size);
        err = mp_buf_append(&c->names, sources[i]);
    }
    for (uint32_t i = 0; err == MP_OK && i < cfg->resource_count; i++) {
        c->resources[i] = mp_slice_of(c->names.data + c->names.size, cfg->resources[i].size);
        err = mp_buf_append(&c->names, cfg->resources[i]);
    }
    return err;
}

enum mp_err mp_catalog_init(struct mp_catalog *c, const struct mp_catalog_config *cfg,
                            struct mp_alloc *a, uint64_t seed)
{
    (void)seed;
    *c = (struct mp_catalog){.alloc = a};
    mp_map_init(&c->by_name, a);
    mp_map_init(&c->pipelines, a);
    mp_buf_init(&c->names, a, 0);
    if (cfg->resource_count != 0) {
        c->resources = mp_alloc_take(a, cfg->resource_count * sizeof(*c->resources));
        if (!c->resources)
            return MP_ENOMEM;
    }
    c->resource_count = cfg->resource_count;
    enum mp_err err = copy_names(c, cfg);
    if (err != MP_OK)
        mp_catalog_fini(c);
    return err;
}

/* The one block that copy_module() made. */
static void free_module(struct mp_catalog *c, const struct mp_catalog_module *m)
{
    mp_alloc_free(c->alloc, (void *)(uintptr_t)m->metadata.data,
                  m->metadata.size + m->name.size + m->hash.size);
}

static void free_name(struct mp_catalog *c, const struct mp_catalog_function *f)
{
    mp_alloc_free(c->alloc, (void *)(uintptr_t)f->name.data, f->name.size);
}

void mp_catalog_fini(struct mp_catalog *c)
{
    if (!c->alloc)
        return;
    for (uint32_t i = 0; i < c->module_count; i++)
        free_module(c, &c->modules[i]);
    for (uint32_t i = 0; i < c->function_count; i++)
        free_name(c, &c->functions[i]);
    mp_alloc_free(c->alloc, c->functions, c->function_capacity * sizeof(*c->functions));
    mp_alloc_free(c->alloc, c->modules, c->module_capacity * sizeof(*c->modules));
    mp_alloc_free(c->alloc, c->resources, c->resource_count * sizeof(*c->resources));
    mp_map_fini(&c->by_name);
    mp_map_fini(&c->pipelines);
    mp_buf_fini(&c->names);
    *c = (struct mp_catalog){0};
}

mp_time mp_catalog_deadline(const struct mp_catalog *c)
{
    (void)c;
    return MP_NEVER;
}

/* --- adding a module --- */

static enum mp_err grow(struct mp_alloc *a, void **array, uint32_t *capacity, uint32_t wanted,
                        size_t item)
{
    if (wanted <= *capacity)
        return MP_OK;
    uint32_t next = *capacity == 0 ? 16 : *capacity * 2;
    while (next < wanted)
        next *= 2;
    void *grown = a->resize(a->context, *array, *capacity * item, next * item);
    if (!grown)
        return MP_ENOMEM;
    *array = grown;
    *capacity = next;
    return MP_OK;
}

static struct mp_slice text_of(struct mp_slice map, const char *key)
{
    struct mp_slice value;
    struct mp_slice text;
    if (mp_mp_map_get(map, mp_slice_str(key), &value) == MP_OK &&
        mp_mp_get_str(value, &text) == MP_OK)
        return text;
    return mp_slice_of(NULL, 0);
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
    struct mp_slice name = text_of(map, "name");
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
    return MP_OK;
}

/* Puts a function into the chain of its name, ordered by version, highest first. */
static enum mp_err chain(struct mp_catalog *c, uint32_t key)
{
    struct mp_catalog_function *f = &c->functions[key];
    const struct mp_version *version = &c->modules[f->module].version;
    uint32_t first;
    if (!mp_map_get(&c->by_name, f->name, &first))
        return mp_map_set(&c->by_name, f->name, key);
    if (mp_version_compare(version, &c->modules[c->functions[first].module].version) > 0) {
        f->next = first;
        return mp_map_set(&c->by_name, f->name, key);
    }
    struct mp_catalog_function *before = &c->functions[first];
    while (before->next != MP_CATALOG_NONE &&
           mp_version_compare(version, &c->modules[c->functions[before->next].module].version) <= 0)
        before = &c->functions[before->next];
    f->next = before->next;
    before->next = key;
    return MP_OK;
}

/* Takes the function that was added last out of the catalog again. */
static void drop_last_function(struct mp_catalog *c)
{
    const struct mp_catalog_function *f = &c->functions[--c->function_count];
    uint32_t first = MP_CATALOG_NONE;
    if (mp_map_get(&c->by_name, f->name, &first) && first == f->key) {
        if (f->next == MP_CATALOG_NONE) {
            (void)mp_map_remove(&c->by_name, f->name);
        } else {
            enum mp_err err = mp_map_set(&c->by_name, f->name, f->next);
            mp_assert(err == MP_OK); /* the key is there, so nothing grows */
        }
    } else if (first != MP_CATALOG_NONE) {
        struct mp_catalog_function *before = &c->functions[first];
        while (before->next != MP_CATALOG_NONE && before->next != f->key)
            before = &c->functions[before->next];
        before->next = before->next == f->key ? f->next : before->next;
    }
    free_name(c, f);
}

/* All functions of the module, or none. */
static enum mp_err add_functions(struct mp_catalog *c, uint32_t module, struct mp_slice list)
{
    uint32_t count;
    struct mp_mp_reader r;
    struct mp_catalog_module *m = &c->modules[module];
    if (mp_mp_get_array(list, &count, &r) != MP_OK)
        return MP_OK; /* a pipeline has none */
    enum mp_err err = grow(c->alloc, (void **)&c->functions, &c->function_capacity,
                           c->function_count + count, sizeof(*c->functions));
    m->first_function = c->function_count;
    for (uint32_t i = 0; err == MP_OK && i < count; i++) {
        struct mp_slice map;
        uint32_t key = c->function_count;
        err = mp_mp_take(&r, &map);
        if (err == MP_OK)
            err = read_function(c, m->name, map, &c->functions[key]);
        if (err != MP_OK)
            break;
        c->functions[key].key = key;
        c->functions[key].module = module;
        c->functions[key].index = i;
        c->function_count++;
        err = chain(c, key);
    }
    m->function_count = c->function_count - m->first_function;
    while (err != MP_OK && c->function_count > m->first_function)
        drop_last_function(c);
    return err;
}

/* The loaded module of that name and version, or NULL. */
static const struct mp_catalog_module *
same_version(const struct mp_catalog *c, struct mp_slice name, const struct mp_version *version)
{
    for (uint32_t i = 0; i < c->module_count; i++)
        if (mp_slice_equal(c->modules[i].name, name) &&
            mp_version_compare(&c->modules[i].version, version) == 0)
            return &c->modules[i];
    return NULL;
}

/* A module without _VERSION ranks lowest. */
static struct mp_slice version_of(struct mp_slice metadata)
{
    struct mp_slice text = text_of(metadata, "version");
    return text.size != 0 ? text : mp_slice_str("0.0.0");
}

/* A pipeline is known by the name that it gives itself, not by its file's. */
static struct mp_slice name_of(const struct mp_catalog_event *ev)
{
    struct mp_slice name = {0};
    if (mp_slice_is(text_of(ev->add.metadata, "kind"), "pipeline"))
        name = text_of(ev->add.metadata, "name");
    return name.size != 0 ? name : ev->add.name;
}

/* Why the functions of a module cannot be taken; NULL if they can. */
static const char *check_functions(struct mp_catalog *c, struct mp_slice metadata,
                                   struct mp_text *why)
{
    uint32_t count;
    struct mp_mp_reader r;
    struct mp_slice list;
    if (mp_mp_map_get(metadata, mp_slice_str("functions"), &list) != MP_OK ||
        mp_mp_get_array(list, &count, &r) != MP_OK)
        return NULL;
    if (count > MP_MODULE_FUNCTIONS_MAX) {
        mp_text_put(why, "it has more functions than ");
        mp_text_put_uint(why, MP_MODULE_FUNCTIONS_MAX);
        return c->why;
    }
    for (uint32_t i = 0; i < count; i++) {
        struct mp_slice map;
        if (mp_mp_take(&r, &map) == MP_OK && mp_slice_is_name(text_of(map, "name")))
            continue;
        mp_text_put(why, "the name of a function is not acceptable: ");
        mp_text_put_slice(why, text_of(map, "name"));
        return c->why;
    }
    return NULL;
}

static const char *check_new(struct mp_catalog *c, const struct mp_catalog_event *ev,
                             struct mp_version *version)
{
    struct mp_slice text = version_of(ev->add.metadata);
    struct mp_text why;
    mp_text_init(&why, c->why, sizeof(c->why));
    if (!mp_slice_is_dotted_name(name_of(ev))) {
        mp_text_put(&why, "its name is not acceptable: letters, digits, '_' and '-', with dots");
        return c->why;
    }
    if (mp_version_read(text, version) != MP_OK) {
        mp_text_put(&why, "its _VERSION is no version such as 1.2.0: ");
        mp_text_put_slice(&why, text);
        return c->why;
    }
    const struct mp_catalog_module *same = same_version(c, name_of(ev), version);
    if (same) {
        mp_text_put(&why, "version ");
        mp_text_put_slice(&why, text);
        mp_text_put(&why, mp_slice_equal(same->hash, ev->add.hash)
                              ? " is loaded already, with the same content"
                              : " is loaded already, with other content: the first one stays");
        return c->why;
    }
    if (c->module_count >= MP_MODULES_MAX)
        return "there are too many modules";
    return check_functions(c, ev->add.metadata, &why);
}

/* One block holds metadata, name and hash; the module's slices point into it. */
static enum mp_err copy_module(struct mp_catalog *c, const struct mp_catalog_event *ev,
                               struct mp_catalog_module *m)
{
    struct mp_slice metadata = ev->add.metadata;
    struct mp_slice name = name_of(ev);
    size_t size = metadata.size + name.size + ev->add.hash.size;
    uint8_t *block = mp_alloc_take(c->alloc, size);
    if (!block)
        return MP_ENOMEM;
    memcpy(block, metadata.data, metadata.size);
    memcpy(block + metadata.size, name.data, name.size);
    if (ev->add.hash.size != 0)
        memcpy(block + metadata.size + name.size, ev->add.hash.data, ev->add.hash.size);
    *m = (struct mp_catalog_module){
        .host_module = ev->add.host_module,
        .metadata = mp_slice_of(block, metadata.size),
        .name = mp_slice_of(block + metadata.size, name.size),
        .hash = mp_slice_of(block + metadata.size + name.size, ev->add.hash.size),
    };
    m->version_text = version_of(m->metadata);
    m->is_pipeline = mp_slice_is(text_of(m->metadata, "kind"), "pipeline");
    return mp_version_read(m->version_text, &m->version);
}

/* The pipeline under its name, unless a higher version has it. */
static enum mp_err add_pipeline(struct mp_catalog *c, uint32_t module)
{
    struct mp_catalog_module *m = &c->modules[module];
    uint32_t other;
    if (mp_mp_map_get(m->metadata, mp_slice_str("graph"), &m->graph) != MP_OK)
        m->graph = mp_slice_of(NULL, 0);
    if (mp_map_get(&c->pipelines, m->name, &other) &&
        mp_version_compare(&c->modules[other].version, &m->version) > 0)
        return MP_OK;
    return mp_map_set(&c->pipelines, m->name, module);
}

enum mp_err mp_catalog_step(struct mp_catalog *c, mp_time now, const struct mp_catalog_event *ev,
                            struct mp_catalog_effects *out)
{
    (void)now;
    mp_assert(ev->kind == MP_CATALOG_ADD);
    struct mp_version version;
    const char *why = check_new(c, ev, &version);
    if (why) {
        *out = (struct mp_catalog_effects){.kind = MP_CATALOG_REFUSED, .why = why};
        return MP_OK;
    }
    enum mp_err err = grow(c->alloc, (void **)&c->modules, &c->module_capacity, c->module_count + 1,
                           sizeof(*c->modules));
    struct mp_catalog_module *m = err == MP_OK ? &c->modules[c->module_count] : NULL;
    if (err == MP_OK)
        err = copy_module(c, ev, m);
    if (err != MP_OK)
        return err;
    struct mp_slice list;
    if (m->is_pipeline)
        err = add_pipeline(c, c->module_count);
    else if (mp_mp_map_get(m->metadata, mp_slice_str("functions"), &list) == MP_OK)
        err = add_functions(c, c->module_count, list);
    if (err != MP_OK) {
        free_module(c, m);
        return err;
    }
    c->module_count++;
    *out = (struct mp_catalog_effects){.kind = MP_CATALOG_CHANGED};
    return MP_OK;
}

/* --- finding --- */

static bool has_resource(const struct mp_catalog *c, struct mp_slice name)
{
    for (uint32_t i = 0; i < c->resource_count; i++)
        if (mp_slice_equal(c->resources[i], name))
            return true;
    return false;
}

/* The n-th resource that a call of f needs, its own first; false when there are no more. */
static bool need_at(const struct mp_catalog_function *f, const struct mp_catalog_query *q,
                    uint32_t n, struct mp_slice *name)
{
    uint32_t own = 0;
    struct mp_mp_reader r;
    if (f->needs.size != 0 && mp_mp_get_array(f->needs, &own, &r) != MP_OK)
        own = 0;
    if (n >= own) {
        if (n - own >= q->needs_count)
            return false;
        *name = q->needs[n - own];
        return true;
    }
    struct mp_slice value;
    return mp_mp_array_get(f->needs, n, &value) == MP_OK && mp_mp_get_str(value, name) == MP_OK;
}

static bool is_satisfied(const struct mp_catalog *c, const struct mp_catalog_function *f,
                         const struct mp_catalog_query *q)
{
    struct mp_slice name;
    for (uint32_t n = 0; need_at(f, q, n, &name); n++)
        if (!has_resource(c, name))
            return false;
    return true;
}

static bool is_here(const struct mp_catalog *c, const struct mp_catalog_query *q)
{
    return (q->on.size == 0 || mp_slice_equal(q->on, c->node)) &&
           (q->cluster.size == 0 || mp_slice_equal(q->cluster, c->cluster));
}

/* The first of the chain whose version matches, or NULL. */
static const struct mp_catalog_function *match_version(const struct mp_catalog *c, uint32_t key,
                                                       struct mp_slice constraint)
{
    while (key != MP_CATALOG_NONE) {
        const struct mp_catalog_function *f = &c->functions[key];
        if (mp_version_matches(constraint, &c->modules[f->module].version))
            return f;
        key = f->next;
    }
    return NULL;
}

const struct mp_catalog_function *mp_catalog_find(const struct mp_catalog *c,
                                                  const struct mp_catalog_query *q)
{
    uint32_t key;
    if (!mp_map_get(&c->by_name, q->fun, &key) || !is_here(c, q))
        return NULL;
    const struct mp_catalog_function *f =
        q->version.size == 0 ? &c->functions[key] : match_version(c, key, q->version);
    return f && is_satisfied(c, f, q) ? f : NULL;
}

bool mp_catalog_may_appear(const struct mp_catalog *c, const struct mp_catalog_query *q)
{
    return mp_slice_is_dotted_name(q->fun) && mp_version_constraint_is_valid(q->version) &&
           (q->cluster.size == 0 || mp_slice_equal(q->cluster, c->cluster));
}

/* --- explaining --- */

/* The name in the map nearest to `name`; empty if none is near. */
static struct mp_slice nearest(const struct mp_map *names, struct mp_slice name)
{
    unsigned best = name.size < 6 ? 2 : 3;
    struct mp_slice found = {0};
    for (uint32_t i = 0; i < names->count; i++) {
        unsigned distance = mp_slice_distance(names->entries[i].key, name);
        if (distance < best || (distance == best && found.size == 0)) {
            best = distance;
            found = names->entries[i].key;
        }
    }
    return found;
}

/* "echo" is near "mpreg.echo", and "stat.mean" is in a module that is there. */
static struct mp_slice nearest_by_last_part(const struct mp_map *names, struct mp_slice name)
{
    size_t start = name.size;
    while (start > 0 && name.data[start - 1] != '.')
        start--;
    struct mp_slice last = mp_slice_of(name.data + start, name.size - start);
    for (uint32_t i = 0; i < names->count; i++) {
        struct mp_slice key = names->entries[i].key;
        if (key.size > last.size && key.data[key.size - last.size - 1] == '.' &&
            mp_slice_equal(mp_slice_of(key.data + key.size - last.size, last.size), last))
            return key;
    }
    return (struct mp_slice){0};
}

static void suggest(const struct mp_map *names, struct mp_slice name, struct mp_fault *fault,
                    struct mp_text *hint)
{
    struct mp_slice near = nearest(names, name);
    if (near.size == 0)
        near = nearest_by_last_part(names, name);
    if (near.size == 0)
        return;
    mp_text_put(hint, "did you mean ");
    mp_text_put_slice(hint, near);
    mp_text_put(hint, "?");
    fault->hint = mp_text_slice(hint);
}

static void explain_unknown(const struct mp_catalog *c, const struct mp_catalog_query *q,
                            struct mp_fault *fault, struct mp_text *message, struct mp_text *hint)
{
    fault->code = MP_CODE_NOT_FOUND;
    fault->reason = mp_slice_str("UNKNOWN_FUNCTION");
    mp_text_put(message, "no node has a function ");
    mp_text_put_slice(message, q->fun);
    suggest(&c->by_name, q->fun, fault, hint);
    uint32_t module;
    if (mp_map_get(&c->pipelines, q->fun, &module)) {
        mp_text_init(hint, hint->data, hint->capacity);
        mp_text_put(hint, "it is a pipeline: run it");
        fault->hint = mp_text_slice(hint);
    }
}

static void explain_version(const struct mp_catalog *c, const struct mp_catalog_query *q,
                            uint32_t key, struct mp_fault *fault, struct mp_text *message)
{
    fault->code = MP_CODE_FAILED_PRECONDITION;
    fault->reason = mp_slice_str("NO_VERSION");
    mp_text_put(message, "no version of ");
    mp_text_put_slice(message, q->fun);
    mp_text_put(message, " matches ");
    mp_text_put_slice(message, q->version);
    mp_text_put(message, "; there are: ");
    for (bool is_first = true; key != MP_CATALOG_NONE; key = c->functions[key].next) {
        mp_text_put(message, is_first ? "" : ", ");
        mp_text_put_slice(message, c->modules[c->functions[key].module].version_text);
        is_first = false;
    }
}

/* Lists the needed resources that the node has (or lacks) behind `lead`; false if there are none.
 */
static bool put_needed(const struct mp_catalog *c, const struct mp_catalog_function *f,
                       const struct mp_catalog_query *q, bool is_there, const char *lead,
                       const char *verb, struct mp_text *message)
{
    bool is_first = true;
    struct mp_slice name;
    for (uint32_t n = 0; need_at(f, q, n, &name); n++) {
        if (has_resource(c, name) != is_there)
            continue;
        if (is_first) {
            mp_text_put(message, lead);
            mp_text_put_slice(message, c->node);
        }
        mp_text_put(message, is_first ? verb : " and ");
        mp_text_put_slice(message, name);
        is_first = false;
    }
    return !is_first;
}

static void explain_needs(const struct mp_catalog *c, const struct mp_catalog_function *f,
                          const struct mp_catalog_query *q, struct mp_fault *fault,
                          struct mp_text *message)
{
    fault->code = MP_CODE_FAILED_PRECONDITION;
    fault->reason = mp_slice_str("UNSATISFIABLE");
    mp_text_put_slice(message, q->fun);
    mp_text_put(message, " needs ");
    struct mp_slice name;
    for (uint32_t n = 0; need_at(f, q, n, &name); n++) {
        mp_text_put(message, n == 0 ? "" : " and ");
        mp_text_put_slice(message, name);
    }
    bool has_any = put_needed(c, f, q, true, ": ", " has ", message);
    (void)put_needed(c, f, q, false, has_any ? "; " : ": ", " lacks ", message);
}

void mp_catalog_explain(const struct mp_catalog *c, const struct mp_catalog_query *q,
                        struct mp_fault *fault, struct mp_text *message, struct mp_text *hint)
{
    uint32_t key = MP_CATALOG_NONE;
    *fault = (struct mp_fault){.fun = q->fun};
    if (!mp_slice_is_dotted_name(q->fun)) {
        fault->code = MP_CODE_INVALID_ARGUMENT;
        fault->reason = mp_slice_str("BAD_NAME");
        fault->fun = mp_slice_of(NULL, 0); /* it may be any bytes */
        mp_text_put(message, "not the name of a function: ");
        mp_text_put_slice(message, q->fun);
        mp_text_put(hint, "functions are named module.function");
        fault->hint = mp_text_slice(hint);
    } else if (!mp_version_constraint_is_valid(q->version)) {
        fault->code = MP_CODE_INVALID_ARGUMENT;
        fault->reason = mp_slice_str("BAD_VERSION");
        mp_text_put(message, "not a version constraint: ");
        mp_text_put_slice(message, q->version);
        mp_text_put(hint, "parts such as =1.2.3 >=1.0 <2 ^1.2 ~1.2.3, joined by commas");
        fault->hint = mp_text_slice(hint);
    } else if (q->cluster.size != 0 && !mp_slice_equal(q->cluster, c->cluster)) {
        fault->code = MP_CODE_PERMISSION_DENIED;
        fault->reason = mp_slice_str("CLUSTER_MISMATCH");
        mp_text_put(message, "this node belongs to cluster ");
        mp_text_put_slice(message, c->cluster);
        mp_text_put(message, " and does not forward to cluster ");
        mp_text_put_slice(message, q->cluster);
    } else if (!mp_map_get(&c->by_name, q->fun, &key)) {
        explain_unknown(c, q, fault, message, hint);
    } else if (q->on.size != 0 && !mp_slice_equal(q->on, c->node)) {
        fault->code = MP_CODE_UNAVAILABLE;
        fault->reason = mp_slice_str("NO_NODE");
        mp_text_put(message, "there is no node ");
        mp_text_put_slice(message, q->on);
        mp_text_put(message, " in cluster ");
        mp_text_put_slice(message, c->cluster);
        mp_text_put(hint, "nodes: ");
        mp_text_put_slice(hint, c->node);
        fault->hint = mp_text_slice(hint);
    } else {
        const struct mp_catalog_function *f = match_version(c, key, q->version);
        if (!f)
            explain_version(c, q, key, fault, message);
        else
            explain_needs(c, f, q, fault, message);
    }
    fault->message = mp_text_slice(message);
}

bool mp_catalog_pipeline(const struct mp_catalog *c, struct mp_slice name, struct mp_slice *graph,
                         struct mp_fault *fault, struct mp_text *message, struct mp_text *hint)
{
    uint32_t module;
    if (mp_map_get(&c->pipelines, name, &module)) {
        *graph = c->modules[module].graph;
        return true;
    }
    *fault =
        (struct mp_fault){.code = MP_CODE_NOT_FOUND, .reason = mp_slice_str("UNKNOWN_PIPELINE")};
    mp_text_put(message, "no node has a pipeline ");
    mp_text_put_slice(message, name);
    suggest(&c->pipelines, name, fault, hint);
    fault->message = mp_text_slice(message);
    return false;
}

/* --- documents --- */

#define TRY(expression)                                                                            \
    do {                                                                                           \
        enum mp_err try_err = (expression);                                                        \
        if (try_err != MP_OK)                                                                      \
            return try_err;                                                                        \
    } while (0)

static enum mp_err put_nodes(const struct mp_catalog *c, struct mp_buf *out)
{
    TRY(mp_mp_put_text(out, "nodes"));
    TRY(mp_mp_put_array(out, 1));
    return mp_mp_put_str(out, c->node);
}

static enum mp_err put_text_pair(struct mp_buf *out, const char *key, struct mp_slice text)
{
    TRY(mp_mp_put_text(out, key));
    return mp_mp_put_str(out, text);
}

/* `key` of the metadata, or `otherwise` (encoded) if it is not there. */
static enum mp_err put_from(struct mp_buf *out, struct mp_slice metadata, const char *key,
                            struct mp_slice otherwise)
{
    struct mp_slice value = otherwise;
    if (mp_mp_map_get(metadata, mp_slice_str(key), &value) != MP_OK)
        value = otherwise;
    TRY(mp_mp_put_text(out, key));
    return mp_mp_put_raw(out, value);
}

static enum mp_err put_function(const struct mp_catalog *c, const struct mp_catalog_function *f,
                                struct mp_buf *out)
{
    static const uint8_t nil[] = {0xc0};
    static const uint8_t empty[] = {0x90};
    const struct mp_catalog_module *m = &c->modules[f->module];
    TRY(mp_mp_put_map(out, f->refused_ms != 0 ? 9 : 8));
    TRY(put_text_pair(out, "name", f->name));
    TRY(put_text_pair(out, "module", m->name));
    TRY(put_text_pair(out, "version", m->version_text));
    TRY(put_nodes(c, out));
    TRY(put_from(out, f->metadata, "needs", mp_slice_of(empty, 1)));
    TRY(put_from(out, f->metadata, "doc", mp_slice_of(nil, 1)));
    TRY(put_from(out, f->metadata, "params", mp_slice_of(empty, 1)));
    if (f->refused_ms != 0) {
        TRY(mp_mp_put_text(out, "refused_ms"));
        TRY(mp_mp_put_uint(out, f->refused_ms));
    }
    return put_from(out, f->metadata, "returns", mp_slice_of(nil, 1));
}

/* --- sorted documents: what is shown has an order, whatever order modules came in --- */

/* Whether entry `a` stands after entry `b`. */
typedef bool is_after(const struct mp_catalog *c, uint32_t a, uint32_t b);

static bool is_name_after(const struct mp_catalog *c, uint32_t a, uint32_t b)
{
    return mp_slice_compare(c->by_name.entries[a].key, c->by_name.entries[b].key) > 0;
}

/* By name, the highest version first, as functions are. */
static bool is_module_after(const struct mp_catalog *c, uint32_t a, uint32_t b)
{
    int order = mp_slice_compare(c->modules[a].name, c->modules[b].name);
    return order != 0 ? order > 0
                      : mp_version_compare(&c->modules[a].version, &c->modules[b].version) < 0;
}

static void sift_down(const struct mp_catalog *c, is_after *after, uint32_t *index, uint32_t i,
                      uint32_t count)
{
    for (uint32_t child = 2 * i + 1; child < count; child = 2 * i + 1) {
        if (child + 1 < count && after(c, index[child + 1], index[child]))
            child++;
        if (!after(c, index[child], index[i]))
            return;
        uint32_t moved = index[i];
        index[i] = index[child];
        index[child] = moved;
        i = child;
    }
}

/* The numbers below `count` in order (a heap sort), from the catalog's allocator; NULL if there is
 * no memory or nothing to sort. */
static uint32_t *sorted_index(const struct mp_catalog *c, uint32_t count, is_after *after)
{
    uint32_t *index = count != 0 ? mp_alloc_take(c->alloc, count * sizeof(*index)) : NULL;
    if (!index)
        return NULL;
    for (uint32_t i = 0; i < count; i++)
        index[i] = i;
    for (uint32_t i = count / 2; i-- > 0;)
        sift_down(c, after, index, i, count);
    for (uint32_t last = count; last-- > 1;) {
        uint32_t largest = index[0];
        index[0] = index[last];
        index[last] = largest;
        sift_down(c, after, index, 0, last);
    }
    return index;
}

static enum mp_err put_functions(const struct mp_catalog *c, const uint32_t *index,
                                 struct mp_buf *out)
{
    TRY(mp_mp_put_map(out, 1));
    TRY(mp_mp_put_text(out, "functions"));
    TRY(mp_mp_put_array(out, c->function_count));
    for (uint32_t i = 0; i < c->by_name.count; i++)
        for (uint32_t key = c->by_name.entries[index[i]].value; key != MP_CATALOG_NONE;
             key = c->functions[key].next)
            TRY(put_function(c, &c->functions[key], out));
    return MP_OK;
}

enum mp_err mp_catalog_put_functions(const struct mp_catalog *c, struct mp_buf *out)
{
    uint32_t *index = sorted_index(c, c->by_name.count, is_name_after);
    if (!index && c->by_name.count != 0)
        return MP_ENOMEM;
    enum mp_err err = put_functions(c, index, out);
    mp_alloc_free(c->alloc, index, c->by_name.count * sizeof(*index));
    return err;
}

static enum mp_err put_module(const struct mp_catalog *c, const struct mp_catalog_module *m,
                              struct mp_buf *out)
{
    TRY(mp_mp_put_map(out, 8));
    TRY(put_text_pair(out, "name", m->name));
    TRY(put_text_pair(out, "version", m->version_text));
    TRY(put_text_pair(out, "hash", m->hash));
    TRY(put_text_pair(out, "origin", mp_slice_str("loaded")));
    TRY(mp_mp_put_text(out, "live"));
    TRY(mp_mp_put_bool(out, true));
    TRY(put_nodes(c, out));
    TRY(mp_mp_put_text(out, "shadowed"));
    TRY(mp_mp_put_bool(out, false));
    TRY(mp_mp_put_text(out, "differs"));
    return mp_mp_put_bool(out, false);
}

static uint32_t count_pipelines(const struct mp_catalog *c)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < c->module_count; i++)
        count += c->modules[i].is_pipeline;
    return count;
}

static enum mp_err put_pipeline(const struct mp_catalog *c, const struct mp_catalog_module *m,
                                struct mp_buf *out)
{
    static const uint8_t nil[] = {0xc0};
    TRY(mp_mp_put_map(out, 5));
    TRY(put_text_pair(out, "name", m->name));
    TRY(put_text_pair(out, "hash", m->hash));
    TRY(put_text_pair(out, "origin", mp_slice_str("loaded")));
    TRY(put_nodes(c, out));
    return put_from(out, m->metadata, "doc", mp_slice_of(nil, 1));
}

/* A pipeline comes in a file as a module does, but is none: it is listed apart. */
static enum mp_err put_modules(const struct mp_catalog *c, const uint32_t *index,
                               struct mp_buf *out)
{
    uint32_t pipelines = count_pipelines(c);
    TRY(mp_mp_put_map(out, 2));
    TRY(mp_mp_put_text(out, "modules"));
    TRY(mp_mp_put_array(out, c->module_count - pipelines));
    for (uint32_t i = 0; i < c->module_count; i++)
        if (!c->modules[index[i]].is_pipeline)
            TRY(put_module(c, &c->modules[index[i]], out));
    TRY(mp_mp_put_text(out, "pipelines"));
    TRY(mp_mp_put_array(out, pipelines));
    for (uint32_t i = 0; i < c->module_count; i++)
        if (c->modules[index[i]].is_pipeline)
            TRY(put_pipeline(c, &c->modules[index[i]], out));
    return MP_OK;
}

enum mp_err mp_catalog_put_modules(const struct mp_catalog *c, struct mp_buf *out)
{
    uint32_t *index = sorted_index(c, c->module_count, is_module_after);
    if (!index && c->module_count != 0)
        return MP_ENOMEM;
    enum mp_err err = put_modules(c, index, out);
    mp_alloc_free(c->alloc, index, c->module_count * sizeof(*index));
    return err;
}

enum mp_err mp_catalog_put_resources(const struct mp_catalog *c, struct mp_buf *out)
{
    TRY(mp_mp_put_array(out, c->resource_count));
    for (uint32_t i = 0; i < c->resource_count; i++)
        TRY(mp_mp_put_str(out, c->resources[i]));
    return MP_OK;
}
