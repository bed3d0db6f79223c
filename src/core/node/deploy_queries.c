/* The queries of clients about deploys, and how each change begins. */
#include "src/base/assert.h"
#include "src/core/node/deploys_internal.h"
#include "src/wire/msgpack.h"
#include "src/wire/unit.h"

/* Why something cannot be, with the room for its texts. */
struct complaint {
    char message_bytes[512];
    char hint_bytes[256];
    struct mp_text message;
    struct mp_text hint;
    struct mp_fault fault;
};

static void complaint_init(struct complaint *c)
{
    mp_text_init(&c->message, c->message_bytes, sizeof(c->message_bytes));
    mp_text_init(&c->hint, c->hint_bytes, sizeof(c->hint_bytes));
    c->fault = (struct mp_fault){0};
}

static bool read_nodes(struct mp_slice options, const char *key, struct mp_slice *nodes,
                       uint32_t *count)
{
    struct mp_mp_reader r;
    *count = 0;
    if (mp_mp_map_get(options, mp_slice_str(key), nodes) != MP_OK ||
        mp_mp_type_of(*nodes) == MP_MP_NIL)
        return true;
    if (mp_mp_get_array(*nodes, count, &r) != MP_OK || *count > MP_DEPLOY_NODES_MAX)
        return false;
    for (uint32_t i = 0; i < *count; i++) {
        struct mp_mp_token t;
        if (mp_mp_next(&r, &t) != MP_OK || t.type != MP_MP_STR || !mp_slice_is_name(t.bytes))
            return false;
    }
    return true;
}

/* There is no such node; the hint has those that there are. */
static void refuse_node(struct mp_node *n, struct mp_node_deploy *d, struct mp_slice name)
{
    char message_bytes[1024];
    char hint_bytes[256];
    struct mp_text message;
    struct mp_text hint;
    struct mp_fault fault = {0};
    const struct mp_catalog_query q = {.fun = mp_slice_str("mpreg.node"), .on = name};
    mp_text_init(&message, message_bytes, sizeof(message_bytes));
    mp_text_init(&hint, hint_bytes, sizeof(hint_bytes));
    mp_catalog_explain(&n->catalog, n->now, &q, &fault, &message, &hint);
    fault.fun = (struct mp_slice){0};
    mp_node_deploy_refuse_fault(n, d, &fault);
}

/* All nodes that are named are known; else the deploy is refused. */
static bool are_known(struct mp_node *n, struct mp_node_deploy *d)
{
    uint32_t count;
    struct mp_mp_reader r;
    if (d->nodes.size == 0 || mp_mp_get_array(d->nodes, &count, &r) != MP_OK)
        return true;
    for (uint32_t i = 0; i < count; i++) {
        struct mp_mp_token t;
        if (mp_mp_next(&r, &t) != MP_OK)
            return false;
        if (mp_slice_equal(t.bytes, n->catalog.node) ||
            mp_membership_find(n->membership, t.bytes) != MP_MEMBER_NONE)
            continue;
        refuse_node(n, d, t.bytes);
        return false;
    }
    return true;
}

static bool flag_of(struct mp_slice options, const char *key)
{
    struct mp_slice value;
    bool flag = false;
    return mp_mp_map_get(options, mp_slice_str(key), &value) == MP_OK &&
           mp_mp_get_bool(value, &flag) == MP_OK && flag;
}

static struct mp_node_deploy *begin(struct mp_node *n, const struct mp_node_event *ev,
                                    struct mp_slice *options)
{
    struct mp_node_deploy *d = n->is_draining ? NULL : mp_node_deploy_new(n);
    if (n->is_draining) {
        mp_node_refuse(n, ev->request.client, ev->request.id, MP_CODE_UNAVAILABLE, "DRAINING",
                       "the node is about to stop");
        return NULL;
    }
    if (!d ||
        !mp_node_deploy_own(n, d, *options, ev->request.payload.bytes, options, &d->unit_bytes)) {
        if (d)
            mp_node_deploy_free(n, d);
        mp_node_refuse(n, ev->request.client, ev->request.id, MP_CODE_RESOURCE_EXHAUSTED,
                       "QUEUE_FULL", "the node has as many deploys as it takes at once");
        return NULL;
    }
    d->client = ev->request.client;
    d->id = ev->request.id;
    d->wall_ms = mp_node_wall(n, n->now);
    d->by = mp_node_text_of(*options, "by");
    if (d->by.size > MP_DEPLOY_BY_BYTES_MAX || !mp_slice_is_utf8(d->by))
        d->by = (struct mp_slice){0};
    d->module = mp_node_text_of(*options, "module");
    return d;
}

static void begin_deploy(struct mp_node *n, const struct mp_node_event *ev, struct mp_slice options)
{
    uint32_t only;
    uint32_t skip;
    uint32_t count = 0;
    struct mp_mp_reader r;
    struct mp_slice only_nodes = {0};
    struct mp_slice skip_nodes = {0};
    const char *why = "only and skip are lists of at most 64 names of nodes";
    struct mp_node_deploy *d = begin(n, ev, &options);
    if (!d)
        return;
    d->expect = mp_node_text_of(options, "expect");
    d->is_forced = flag_of(options, "force");
    if (!read_nodes(options, "only", &only_nodes, &only) ||
        !read_nodes(options, "skip", &skip_nodes, &skip) || (only != 0 && skip != 0)) {
        mp_node_deploy_refuse_text(n, d, MP_CODE_INVALID_ARGUMENT, "BAD_OPTION", why);
        return;
    }
    d->scope = only != 0 ? MP_DEPLOY_ONLY : skip != 0 ? MP_DEPLOY_SKIP : MP_DEPLOY_EVERYWHERE;
    d->nodes = only != 0 ? only_nodes : skip != 0 ? skip_nodes : (struct mp_slice){0};
    if (mp_unit_open(d->unit_bytes, &count, &r, &why) != MP_OK)
        mp_node_deploy_refuse_text(n, d, MP_CODE_INVALID_ARGUMENT, "BAD_UNIT", why);
    else if (d->expect.size != 0 && count != 1)
        mp_node_deploy_refuse_text(n, d, MP_CODE_INVALID_ARGUMENT, "BAD_OPTION",
                                   "--expect is for a deploy of one module");
    else if (are_known(n, d) && !mp_node_deploy_check(n, d))
        mp_node_deploy_no_memory(n, d);
}

static enum mp_err put_entries(struct mp_buf *b, const struct mp_deploy_entry *entries,
                               uint32_t count)
{
    enum mp_err err = mp_mp_put_array(b, count);
    for (uint32_t i = 0; err == MP_OK && i < count; i++)
        err = mp_deploy_put_entry(b, &entries[i]);
    return err;
}

static void begin_rollback(struct mp_node *n, mp_time now, const struct mp_node_event *ev,
                           struct mp_slice options)
{
    struct complaint c;
    struct mp_deploy_entry target[2];
    struct mp_node_deploy *d = begin(n, ev, &options);
    complaint_init(&c);
    if (!d)
        return;
    d->action = MP_DEPLOY_ROLLBACK;
    d->is_rule_free = true;
    d->unit_bytes = (struct mp_slice){0};
    if (!mp_deploy_rollback_target(n->deploy, d->module, mp_node_text_of(options, "to"), &target[0],
                                   &c.fault, &c.message, &c.hint)) {
        mp_node_deploy_refuse_fault(n, d, &c.fault);
        return;
    }
    uint32_t count = mp_deploy_rollback_partner(n->deploy, &target[0], &target[1]) ? 2 : 1;
    memcpy(d->hash, target[0].unit.data, sizeof(d->hash));
    if (put_entries(&d->version, target, count) != MP_OK || !mp_node_deploy_list(n, d))
        mp_node_deploy_no_memory(n, d);
    else
        mp_node_deploy_stage(n, now, d);
}

/* The entries of the module and the pipeline of a name that are live here; how many. `kind` is one
 * of these words, or empty: both. */
static uint32_t find_live(const struct mp_node *n, struct mp_slice name, struct mp_slice kind,
                          struct mp_deploy_entry out[2])
{
    uint32_t count = 0;
    for (int is_pipeline = 0; is_pipeline < 2; is_pipeline++)
        if ((kind.size == 0 || mp_slice_is(kind, is_pipeline ? "pipeline" : "module")) &&
            mp_deploy_find(n->deploy, name, is_pipeline, &out[count]) &&
            out[count].action != MP_DEPLOY_UNDEPLOY)
            count++;
    return count;
}

/* The fault for a module that was never deployed, with the nearest name. */
static void put_unknown(struct mp_node *n, struct mp_slice module, const char *what,
                        struct mp_fault *fault, struct mp_text *message, struct mp_text *hint)
{
    struct mp_deploy_entry e;
    if (!mp_deploy_find(n->deploy, module, false, &e) &&
        !mp_deploy_find(n->deploy, module, true, &e) &&
        !mp_deploy_rollback_target(n->deploy, module, (struct mp_slice){0}, &e, fault, message,
                                   hint))
        return;
    *fault = (struct mp_fault){.code = MP_CODE_NOT_FOUND, .reason = mp_slice_str("NOT_DEPLOYED")};
    mp_text_init(message, message->data, message->capacity);
    mp_text_init(hint, hint->data, hint->capacity);
    mp_text_put_slice(message, module);
    mp_text_put(message, what);
    mp_text_put(hint, "what was done to it: mpreg history ");
    mp_text_put_slice(hint, module);
    fault->message = mp_text_slice(message);
    fault->hint = mp_text_slice(hint);
}

static void begin_undeploy(struct mp_node *n, mp_time now, const struct mp_node_event *ev,
                           struct mp_slice options)
{
    struct complaint c;
    struct mp_deploy_entry live[2];
    uint32_t count;
    struct mp_node_deploy *d = begin(n, ev, &options);
    complaint_init(&c);
    if (!d)
        return;
    d->action = MP_DEPLOY_UNDEPLOY;
    d->is_rule_free = true;
    d->unit_bytes = (struct mp_slice){0};
    count = find_live(n, d->module, mp_node_text_of(options, "kind"), live);
    if (count == 0) {
        put_unknown(n, d->module, " is not deployed now", &c.fault, &c.message, &c.hint);
        mp_node_deploy_refuse_fault(n, d, &c.fault);
        return;
    }
    if (put_entries(&d->version, live, count) != MP_OK || !mp_node_deploy_list(n, d)) {
        mp_node_deploy_no_memory(n, d);
        return;
    }
    /* There is nothing to have ready. */
    mp_node_deploy_members(d, &count)[0].state = MP_NODE_DEPLOY_STAGED;
    mp_node_deploy_stage(n, now, d);
}

static void history(struct mp_node *n, const struct mp_node_event *ev, struct mp_slice options)
{
    struct complaint c;
    struct mp_buf b;
    complaint_init(&c);
    mp_buf_init(&b, n->alloc, 0);
    enum mp_err err = mp_deploy_put_history(n->deploy, mp_node_text_of(options, "module"), &b);
    if (err == MP_OK) {
        mp_node_reply(n, ev->request.client, ev->request.id, MP_FRAME_RESULT,
                      mp_node_keep(n, mp_buf_slice(&b)));
    } else if (err == MP_ENOENT) {
        put_unknown(n, mp_node_text_of(options, "module"), " was never deployed", &c.fault,
                    &c.message, &c.hint);
        c.fault.node = n->catalog.node;
        mp_node_reply(n, ev->request.client, ev->request.id, MP_FRAME_ERROR,
                      mp_node_error(n, &c.fault));
    } else {
        mp_node_refuse(n, ev->request.client, ev->request.id, MP_CODE_RESOURCE_EXHAUSTED,
                       "OUT_OF_MEMORY", "the node has no memory to answer");
    }
    mp_buf_fini(&b);
}

/* The module of that name that this node has loaded, or MP_CATALOG_NONE. */
static uint32_t find_loaded(const struct mp_node *n, struct mp_slice name)
{
    uint32_t found = MP_CATALOG_NONE;
    for (uint32_t i = 0; i < n->catalog.module_count; i++) {
        const struct mp_catalog_module *m = &n->catalog.modules[i];
        if (!m->is_deployed && m->host_module != MP_CATALOG_NONE && mp_slice_equal(m->name, name) &&
            (found == MP_CATALOG_NONE || !m->is_pipeline))
            found = i;
    }
    return found;
}

/* Who has loaded a module of that name; the fault says what to do. */
static void put_elsewhere(struct mp_node *n, struct mp_slice name, struct mp_fault *fault,
                          struct mp_text *message, struct mp_text *hint)
{
    bool is_known = false;
    for (uint32_t i = 0; i < n->catalog.module_count; i++)
        is_known = is_known || (!n->catalog.modules[i].is_deployed &&
                                mp_slice_equal(n->catalog.modules[i].name, name));
    if (!is_known) {
        put_unknown(n, name, " is not deployed now, and not loaded here", fault, message, hint);
        return;
    }
    *fault = (struct mp_fault){.code = MP_CODE_NOT_FOUND, .reason = mp_slice_str("NOT_DEPLOYED")};
    mp_text_put_slice(message, name);
    mp_text_put(message, " is not deployed, and this node has not loaded it");
    mp_text_put(hint, "mpreg modules says which nodes have: ask one of them");
    fault->message = mp_text_slice(message);
    fault->hint = mp_text_slice(hint);
}

/* What is to be read is noted, with the effect that has it read; false: there is no memory. */
static bool ask_source(struct mp_node *n, struct mp_node_asked *asked, struct mp_slice version,
                       enum mp_node_effect_kind kind, struct mp_slice unit)
{
    asked->ticket = ++n->reads;
    asked->is_source = true;
    if (version.size > sizeof(asked->version))
        version.size = sizeof(asked->version);
    memcpy(asked->version, version.data, version.size);
    asked->version_size = (uint32_t)version.size;
    if (!mp_node_make_room(n) ||
        mp_buf_append(&n->asked, mp_slice_of(asked, sizeof(*asked))) != MP_OK)
        return false;
    struct mp_node_effect *e = mp_node_emit(n, kind);
    e->id = mp_node_ticket(MP_NODE_TICKET_READ, 0, (uint32_t)asked->ticket);
    if (kind == MP_NODE_READ_MODULE)
        e->module = n->catalog.modules[asked->loaded].host_module;
    else
        e->payload.bytes = mp_node_keep(n, unit);
    return true;
}

/* The source of what is live under a name, a module before a pipeline: from the store, or as this
 * node has loaded it. See mp_node_source_found. */
static void source(struct mp_node *n, const struct mp_node_event *ev, struct mp_slice options)
{
    struct complaint c;
    struct mp_deploy_entry e[2];
    struct mp_slice name = mp_node_text_of(options, "module");
    struct mp_node_asked asked = {
        .client = ev->request.client, .id = ev->request.id, .loaded = MP_CATALOG_NONE};
    bool is_asked = false;
    uint32_t loaded = find_loaded(n, name);
    uint32_t live = find_live(n, name, mp_node_text_of(options, "kind"), e);
    complaint_init(&c);
    if (live == 0 && loaded == MP_CATALOG_NONE) {
        put_elsewhere(n, name, &c.fault, &c.message, &c.hint);
        c.fault.node = n->catalog.node;
        mp_node_reply(n, ev->request.client, ev->request.id, MP_FRAME_ERROR,
                      mp_node_error(n, &c.fault));
        return;
    }
    /* A loaded module hides a deployed pipeline of its name, not a deployed module. */
    if (live != 0 && (!e[0].is_pipeline || loaded == MP_CATALOG_NONE ||
                      n->catalog.modules[loaded].is_pipeline)) {
        asked.place = e[0].place;
        memcpy(asked.hash, e[0].hash.data, sizeof(asked.hash));
        is_asked = ask_source(n, &asked, e[0].version, MP_NODE_READ_UNIT, e[0].unit);
    } else {
        asked.loaded = loaded;
        is_asked = ask_source(n, &asked, n->catalog.modules[loaded].version_text,
                              MP_NODE_READ_MODULE, (struct mp_slice){0});
    }
    if (!is_asked)
        mp_node_refuse(n, ev->request.client, ev->request.id, MP_CODE_RESOURCE_EXHAUSTED,
                       "OUT_OF_MEMORY", "the node has no memory to answer");
}

static enum mp_err put_source(struct mp_node *n, struct mp_buf *b,
                              const struct mp_node_asked *asked, struct mp_slice found)
{
    struct mp_slice item;
    struct mp_slice name;
    struct mp_slice text;
    MP_TRY(mp_mp_put_map(b, 4));
    MP_TRY(mp_mp_put_str_pair(b, "version", mp_slice_of(asked->version, asked->version_size)));
    if (asked->loaded != MP_CATALOG_NONE) {
        const struct mp_catalog_module *m = &n->catalog.modules[asked->loaded];
        MP_TRY(mp_mp_put_str_pair(b, "module", m->name));
        MP_TRY(mp_mp_put_str_pair(b, "hash", m->hash));
        MP_TRY(mp_mp_put_text(b, "source"));
        return mp_slice_is_utf8(found) ? mp_mp_put_str(b, found) : mp_mp_put_bin(b, found);
    }
    MP_TRY(mp_mp_array_get(found, asked->place, &item));
    MP_TRY(mp_mp_array_get(item, 0, &name));
    MP_TRY(mp_mp_array_get(item, 1, &text));
    MP_TRY(mp_mp_put_text(b, "module"));
    MP_TRY(mp_mp_put_raw(b, name));
    MP_TRY(mp_node_put_hex(b, "hash", mp_slice_of(asked->hash, sizeof(asked->hash))));
    MP_TRY(mp_mp_put_text(b, "source"));
    return mp_mp_put_raw(b, text);
}

void mp_node_source_found(struct mp_node *n, const struct mp_node_asked *asked,
                          const struct mp_node_event *ev)
{
    struct mp_buf b;
    struct mp_slice kept = {0};
    mp_buf_init(&b, n->alloc, 0);
    if (!ev->stored.is_missing && !ev->stored.is_error &&
        put_source(n, &b, asked, ev->stored.bytes) == MP_OK)
        kept = mp_node_keep(n, mp_buf_slice(&b));
    mp_buf_fini(&b);
    if (kept.size != 0)
        mp_node_reply(n, asked->client, asked->id, MP_FRAME_RESULT, kept);
    else
        mp_node_refuse(n, asked->client, asked->id, MP_CODE_DATA_LOSS, "NO_CODE",
                       "this node has not kept the source; ask another one");
}

bool mp_node_deploy_query(struct mp_node *n, mp_time now, const struct mp_node_event *ev,
                          struct mp_slice what, struct mp_slice options)
{
    if (mp_slice_is(what, "deploy"))
        begin_deploy(n, ev, options);
    else if (mp_slice_is(what, "rollback"))
        begin_rollback(n, now, ev, options);
    else if (mp_slice_is(what, "undeploy"))
        begin_undeploy(n, now, ev, options);
    else if (mp_slice_is(what, "history"))
        history(n, ev, options);
    else if (mp_slice_is(what, "source"))
        source(n, ev, options);
    else
        return false;
    return true;
}
