/* Why a query has no provider, in words. Live nodes come first: who has the function, in which
 * versions, with which resources; then those that had what is missing, and since when they are
 * gone. However many nodes there are, a message names a few. */
#include "src/base/limits.h"
#include "src/core/catalog/catalog_internal.h"

/* What all parts of an explanation share. */
struct explanation {
    const struct mp_catalog *c;
    const struct mp_catalog_query *q;
    mp_time now;
    struct mp_fault *fault;
    struct mp_text *message;
    struct mp_text *hint;
};

static void say(struct explanation *e, const char *text)
{
    mp_text_put(e->message, text);
}

static void say_slice(struct explanation *e, struct mp_slice text)
{
    mp_text_put_slice(e->message, text);
}

static void say_name(struct explanation *e, uint32_t node)
{
    say_slice(e, e->c->members[node].name);
}

static void blame(struct explanation *e, enum mp_code code, const char *reason)
{
    e->fault->code = code;
    e->fault->reason = mp_slice_str(reason);
}

/* --- near misses --- */

/* Whether a live node has a pipeline of the chain that starts with `module`. */
static bool is_chain_live(const struct mp_catalog *c, uint32_t module)
{
    for (; module != MP_CATALOG_NONE; module = c->records[module].next_pipeline)
        if (mp_catalog_is_offered(c, module))
            return true;
    return false;
}

static bool is_live_pipeline(const struct mp_catalog *c, struct mp_slice name)
{
    uint32_t first;
    return mp_map_get(&c->pipelines, name, &first) && is_chain_live(c, first);
}

/* Whether a live node has what a name in one of the maps stands for. */
static bool is_name_live(const struct mp_catalog *c, const struct mp_map *names, uint32_t place)
{
    uint32_t first = names->entries[place].value;
    if (names == &c->pipelines)
        return is_chain_live(c, first);
    for (; first != MP_CATALOG_NONE; first = c->functions[first].next)
        if (mp_catalog_is_offered(c, c->functions[first].module))
            return true;
    return false;
}

/* The name in the map nearest to `name`; empty if none is near. Of several at the same distance the
 * first in order, whatever order modules came in. */
static struct mp_slice nearest(const struct mp_catalog *c, const struct mp_map *names,
                               struct mp_slice name)
{
    unsigned best = name.size < 6 ? 2 : 3;
    struct mp_slice found = {0};
    for (uint32_t i = 0; i < names->count; i++) {
        struct mp_slice key = names->entries[i].key;
        unsigned distance = mp_slice_distance(key, name);
        bool is_better = distance < best || (distance == best &&
                                             (found.size == 0 || mp_slice_compare(key, found) < 0));
        if (is_better && is_name_live(c, names, i)) {
            best = distance;
            found = key;
        }
    }
    return found;
}

/* "echo" is near "mpreg.echo", and "stat.mean" is in a module that is there. */
static struct mp_slice nearest_by_last_part(const struct mp_catalog *c, const struct mp_map *names,
                                            struct mp_slice name)
{
    struct mp_slice found = {0};
    size_t start = name.size;
    while (start > 0 && name.data[start - 1] != '.')
        start--;
    struct mp_slice last = mp_slice_of(name.data + start, name.size - start);
    for (uint32_t i = 0; i < names->count; i++) {
        struct mp_slice key = names->entries[i].key;
        if (key.size > last.size && key.data[key.size - last.size - 1] == '.' &&
            mp_slice_equal(mp_slice_of(key.data + key.size - last.size, last.size), last) &&
            (found.size == 0 || mp_slice_compare(key, found) < 0) && is_name_live(c, names, i))
            found = key;
    }
    return found;
}

static void suggest(const struct mp_catalog *c, const struct mp_map *names, struct mp_slice name,
                    struct mp_fault *fault, struct mp_text *hint)
{
    struct mp_slice near = nearest(c, names, name);
    if (near.size == 0)
        near = nearest_by_last_part(c, names, name);
    if (near.size == 0)
        return;
    mp_text_put(hint, "did you mean ");
    mp_text_put_slice(hint, near);
    mp_text_put(hint, "?");
    fault->hint = mp_text_slice(hint);
}

/* --- nodes that are gone --- */

static void put_span(struct mp_text *text, mp_duration span)
{
    static const struct {
        uint64_t seconds;
        const char *unit;
    } units[] = {{86400, " d"}, {3600, " h"}, {60, " min"}, {1, " s"}};
    uint64_t seconds = span / MP_SECONDS(1);
    int i = 0;
    while (i < 3 && seconds < 2 * units[i].seconds)
        i++;
    mp_text_put_uint(text, seconds / units[i].seconds);
    mp_text_put(text, units[i].unit);
}

/* "left 12 s ago", "is dead for 12 s" */
static void put_gone(const struct mp_catalog *c, mp_time now, uint32_t node, struct mp_text *text)
{
    const struct mp_catalog_member *m = &c->members[node];
    mp_duration span = now > m->since ? now - m->since : 0;
    bool has_left = m->state == MP_CATALOG_NODE_LEFT;
    mp_text_put(text, has_left ? "left " : "is dead for ");
    put_span(text, span);
    if (has_left)
        mp_text_put(text, " ago");
}

/* Whether node a, which is gone, is the better one to name: it went later, or is first by name. */
static bool is_later(const struct mp_catalog *c, uint32_t a, uint32_t b)
{
    if (b == MP_CATALOG_NONE || c->members[a].since != c->members[b].since)
        return b == MP_CATALOG_NONE || c->members[a].since > c->members[b].since;
    return mp_slice_compare(c->members[a].name, c->members[b].name) < 0;
}

/* The node that went last of those that are gone and hold the module, if it went later than `best`.
 */
static uint32_t last_holder(const struct mp_catalog *c, uint32_t module, uint32_t best)
{
    uint32_t cursor = 0;
    uint32_t node;
    if (c->modules[module].is_deployed)
        return best; /* every node had it */
    while (mp_catalog_next_holder(c, module, &cursor, &node))
        if (!mp_catalog_is_live(c, node) && is_later(c, node, best))
            best = node;
    return best;
}

/* "; n4 had it, and left 12 s ago" */
static void say_had(struct explanation *e, const char *what, uint32_t node)
{
    say(e, "; ");
    say_name(e, node);
    say(e, " had ");
    say(e, what);
    say(e, ", and ");
    put_gone(e->c, e->now, node, e->message);
}

/* --- lists of nodes --- */

/* A few nodes in order of name, and how many more there are. */
struct some_nodes {
    uint32_t items[MP_CATALOG_SHOWN_MAX];
    uint32_t count;
    uint32_t total;
};

static void note(const struct mp_catalog *c, struct some_nodes *s, uint32_t node)
{
    s->total++;
    uint32_t at = s->count;
    while (at > 0 && mp_slice_compare(c->members[s->items[at - 1]].name, c->members[node].name) > 0)
        at--;
    if (at == MP_CATALOG_SHOWN_MAX)
        return;
    uint32_t moved = s->count < MP_CATALOG_SHOWN_MAX ? s->count++ : MP_CATALOG_SHOWN_MAX - 1;
    for (; moved > at; moved--)
        s->items[moved] = s->items[moved - 1];
    s->items[at] = node;
}

/* "n1", "n1 and n3", "n1, n2 and 7 more" */
static void put_nodes(const struct mp_catalog *c, const struct some_nodes *s, struct mp_text *text)
{
    uint32_t more = s->total - s->count;
    for (uint32_t i = 0; i < s->count; i++) {
        bool is_last = i + 1 == s->count && more == 0;
        mp_text_put(text, i == 0 ? "" : is_last ? " and " : ", ");
        mp_text_put_slice(text, c->members[s->items[i]].name);
    }
    if (more == 0)
        return;
    mp_text_put(text, " and ");
    mp_text_put_uint(text, more);
    mp_text_put(text, " more");
}

/* Whether the query means a function, in a version that fits; with `is_any` any version does. */
static bool is_meant(const struct explanation *e, uint32_t key, bool is_any)
{
    const struct mp_catalog_function *f = &e->c->functions[key];
    return mp_catalog_is_meant(e->c, f->module, e->q->pin) &&
           (is_any || mp_catalog_fits(e->c, f, e->q->version));
}

/* Whether a live node holds a version of the function of that chain which fits. With `is_any` any
 * version does. */
static bool holds_fitting(const struct explanation *e, uint32_t key, uint32_t until, uint32_t node,
                          bool is_any)
{
    const struct mp_catalog *c = e->c;
    for (; key != until; key = c->functions[key].next)
        if (is_meant(e, key, is_any) && mp_catalog_is_holder(c, c->functions[key].module, node))
            return true;
    return false;
}

/* Live nodes with any version of a function. */
static void note_holders(const struct explanation *e, uint32_t first, struct some_nodes *s)
{
    const struct mp_catalog *c = e->c;
    for (uint32_t key = first; key != MP_CATALOG_NONE; key = c->functions[key].next) {
        uint32_t cursor = 0;
        uint32_t node;
        while (is_meant(e, key, true) &&
               mp_catalog_next_holder(c, c->functions[key].module, &cursor, &node))
            if (mp_catalog_is_live(c, node) && !holds_fitting(e, first, key, node, true))
                note(c, s, node);
    }
}

/* --- no such function --- */

static void explain_unknown(struct explanation *e)
{
    uint32_t key;
    uint32_t gone = MP_CATALOG_NONE;
    const struct mp_catalog *c = e->c;
    blame(e, MP_CODE_NOT_FOUND, "UNKNOWN_FUNCTION");
    say(e, "no node has a function ");
    say_slice(e, e->q->fun);
    if (mp_map_get(&c->by_name, e->q->fun, &key))
        for (; key != MP_CATALOG_NONE; key = c->functions[key].next)
            gone = last_holder(c, c->functions[key].module, gone);
    if (gone != MP_CATALOG_NONE)
        say_had(e, "it", gone);
    else
        suggest(c, &c->by_name, e->q->fun, e->fault, e->hint);
    if (is_live_pipeline(c, e->q->fun)) {
        mp_text_init(e->hint, e->hint->data, e->hint->capacity);
        mp_text_put(e->hint, "it is a pipeline: run it");
        e->fault->hint = mp_text_slice(e->hint);
    }
}

/* --- no such version --- */

static void explain_version(struct explanation *e, uint32_t key, uint32_t on)
{
    const struct mp_catalog *c = e->c;
    const struct mp_catalog_module *last = NULL;
    blame(e, MP_CODE_FAILED_PRECONDITION, "NO_VERSION");
    say(e, "no version of ");
    say_slice(e, e->q->fun);
    if (on != MP_CATALOG_NONE) {
        say(e, " on ");
        say_name(e, on);
    }
    say(e, " matches ");
    say_slice(e, e->q->version);
    say(e, "; there are: ");
    for (; key != MP_CATALOG_NONE; key = c->functions[key].next) {
        uint32_t module = c->functions[key].module;
        const struct mp_catalog_module *m = &c->modules[module];
        bool is_there = on != MP_CATALOG_NONE ? mp_catalog_is_holder(c, module, on)
                                              : mp_catalog_is_provided(c, module);
        if (!is_there || !is_meant(e, key, true) ||
            (last && mp_slice_equal(last->version_text, m->version_text)))
            continue;
        say(e, last ? ", " : "");
        say_slice(e, m->version_text);
        last = m;
    }
}

/* --- no resources --- */

static void say_needed(struct explanation *e, const struct mp_catalog_function *f)
{
    struct mp_slice name;
    say_slice(e, e->q->fun);
    say(e, " needs ");
    for (uint32_t n = 0; mp_catalog_need_at(f, e->q, n, &name); n++) {
        say(e, n == 0 ? "" : " and ");
        say_slice(e, name);
    }
}

/* How many of the needed resources a node has, or lacks. */
static uint32_t count_needed(struct explanation *e, const struct mp_catalog_function *f,
                             uint32_t node, bool is_there)
{
    uint32_t count = 0;
    struct mp_slice name;
    for (uint32_t n = 0; mp_catalog_need_at(f, e->q, n, &name); n++)
        count += mp_catalog_has_named(e->c, node, name) == is_there;
    return count;
}

/* Lists the needed resources that the node has, or lacks. */
static void say_which(struct explanation *e, const struct mp_catalog_function *f, uint32_t node,
                      bool is_there)
{
    bool is_first = true;
    struct mp_slice name;
    for (uint32_t n = 0; mp_catalog_need_at(f, e->q, n, &name); n++) {
        if (mp_catalog_has_named(e->c, node, name) != is_there)
            continue;
        say(e, is_first ? "" : " and ");
        say_slice(e, name);
        is_first = false;
    }
}

/* "n1 has gpu; n1 lacks ds2 and tpu" */
static void explain_one(struct explanation *e, const struct mp_catalog_function *f, uint32_t node)
{
    bool has_any = count_needed(e, f, node, true) != 0;
    if (has_any) {
        say_name(e, node);
        say(e, " has ");
        say_which(e, f, node, true);
        say(e, "; ");
    }
    say_name(e, node);
    say(e, " lacks ");
    say_which(e, f, node, false);
}

/* Live nodes with a version that fits and the same needs as f: those that have some of the needed
 * resources, and all. */
struct candidates {
    struct some_nodes all;
    struct some_nodes partly;
};

static void note_candidates(struct explanation *e, uint32_t first,
                            const struct mp_catalog_function *f, struct candidates *s)
{
    const struct mp_catalog *c = e->c;
    for (uint32_t key = first; key != MP_CATALOG_NONE; key = c->functions[key].next) {
        const struct mp_catalog_function *g = &c->functions[key];
        uint32_t cursor = 0;
        uint32_t node;
        if (!is_meant(e, key, false) || !mp_slice_equal(g->needs, f->needs))
            continue;
        while (mp_catalog_next_holder(c, g->module, &cursor, &node)) {
            if (!mp_catalog_is_live(c, node) || holds_fitting(e, first, key, node, false))
                continue;
            note(c, &s->all, node);
            if (count_needed(e, f, node, true) != 0)
                note(c, &s->partly, node);
        }
    }
}

static bool has_any_named(const struct mp_catalog *c, const struct some_nodes *s,
                          struct mp_slice name)
{
    for (uint32_t i = 0; i < s->count; i++)
        if (mp_catalog_has_named(c, s->items[i], name))
            return true;
    return false;
}

/* "n3 has gpu, n5 has ds2, none has both"; "n1 and n2 lack ds2" */
static void explain_many(struct explanation *e, const struct mp_catalog_function *f,
                         const struct candidates *s)
{
    if (s->partly.count == 0) {
        put_nodes(e->c, &s->all, e->message);
        say(e, " lack ");
        say_which(e, f, s->all.items[0], false);
        return;
    }
    for (uint32_t i = 0; i < s->partly.count; i++) {
        say(e, i == 0 ? "" : ", ");
        say_name(e, s->partly.items[i]);
        say(e, " has ");
        say_which(e, f, s->partly.items[i], true);
    }
    uint32_t more = s->partly.total - s->partly.count;
    if (more != 0) {
        say(e, ", and ");
        mp_text_put_uint(e->message, more);
        say(e, more == 1 ? " more has some" : " more have some");
    }
    uint32_t needed = 0;
    bool is_named = false;
    struct mp_slice name;
    for (; mp_catalog_need_at(f, e->q, needed, &name); needed++) {
        uint32_t resource;
        bool is_somewhere = mp_map_get(&e->c->by_resource, name, &resource);
        /* With more nodes than are listed, one of the others may have it. */
        if (is_somewhere && (more != 0 || has_any_named(e->c, &s->partly, name)))
            continue;
        say(e, is_named ? " or " : ", none has ");
        say_slice(e, name);
        is_named = true;
    }
    if (!is_named)
        say(e, needed == 2 ? ", none has both" : ", none has all");
}

/* Of a needed resource that no candidate has: which other node has it, or had it. */
static void explain_elsewhere(struct explanation *e, struct mp_slice name,
                              const struct some_nodes *candidates)
{
    const struct mp_catalog *c = e->c;
    uint32_t resource;
    uint32_t gone = MP_CATALOG_NONE;
    struct some_nodes live = {0};
    if (candidates->total > candidates->count || has_any_named(c, candidates, name) ||
        !mp_map_get(&c->by_resource, name, &resource))
        return;
    for (uint32_t i = 0; i < c->member_capacity; i++) {
        if (!c->members[i].has_entry || !mp_catalog_has_resource(c, i, resource))
            continue;
        if (mp_catalog_is_live(c, i))
            note(c, &live, i);
        else if (is_later(c, i, gone))
            gone = i;
    }
    if (live.count != 0) {
        say(e, "; ");
        put_nodes(c, &live, e->message);
        say(e, live.total == 1 ? " has " : " have ");
        say_slice(e, name);
        say(e, " but not the function");
    } else if (gone != MP_CATALOG_NONE) {
        say(e, "; ");
        say_name(e, gone);
        say(e, " had ");
        say_slice(e, name);
        say(e, ", and ");
        put_gone(c, e->now, gone, e->message);
    }
}

/* A node that is gone and had the function with all that it needs: it is the one that is missed. */
static uint32_t last_provider(struct explanation *e, uint32_t key)
{
    const struct mp_catalog *c = e->c;
    uint32_t best = MP_CATALOG_NONE;
    for (; key != MP_CATALOG_NONE; key = c->functions[key].next) {
        const struct mp_catalog_function *f = &c->functions[key];
        uint32_t cursor = 0;
        uint32_t node;
        if (!is_meant(e, key, false))
            continue;
        while (mp_catalog_next_holder(c, f->module, &cursor, &node))
            if (!mp_catalog_is_live(c, node) && is_later(c, node, best) &&
                count_needed(e, f, node, false) == 0)
                best = node;
    }
    return best;
}

static void explain_needs(struct explanation *e, uint32_t first,
                          const struct mp_catalog_function *f, uint32_t on)
{
    struct candidates s = {0};
    struct mp_slice name;
    blame(e, MP_CODE_FAILED_PRECONDITION, "UNSATISFIABLE");
    say_needed(e, f);
    say(e, ": ");
    if (on != MP_CATALOG_NONE) {
        explain_one(e, f, on);
        return;
    }
    note_candidates(e, first, f, &s);
    if (s.all.total == 1)
        explain_one(e, f, s.all.items[0]);
    else
        explain_many(e, f, &s);
    uint32_t gone = last_provider(e, first);
    if (gone != MP_CATALOG_NONE) {
        say_had(e, "all", gone);
        return;
    }
    for (uint32_t n = 0; n < 3 && mp_catalog_need_at(f, e->q, n, &name); n++)
        explain_elsewhere(e, name, &s.all);
}

/* --- the node that was asked for --- */

static void explain_no_node(struct explanation *e)
{
    struct some_nodes live = {0};
    const struct mp_catalog *c = e->c;
    blame(e, MP_CODE_UNAVAILABLE, "NO_NODE");
    say(e, "there is no node ");
    say_slice(e, e->q->on);
    say(e, " in cluster ");
    say_slice(e, c->cluster);
    for (uint32_t i = 0; i < c->member_capacity; i++)
        if (c->members[i].name.size != 0 && mp_catalog_is_live(c, i))
            note(c, &live, i);
    mp_text_put(e->hint, "nodes: ");
    put_nodes(c, &live, e->hint);
    e->fault->hint = mp_text_slice(e->hint);
}

static void explain_gone_node(struct explanation *e, uint32_t node)
{
    blame(e, MP_CODE_UNAVAILABLE, "NO_NODE");
    say(e, "node ");
    say_name(e, node);
    say(e, " ");
    put_gone(e->c, e->now, node, e->message);
}

/* "n2 has no function f; n1 and n3 have it" */
static void explain_not_on(struct explanation *e, uint32_t first, uint32_t node)
{
    struct some_nodes live = {0};
    blame(e, MP_CODE_NOT_FOUND, "UNKNOWN_FUNCTION");
    say_name(e, node);
    say(e, " has no function ");
    say_slice(e, e->q->fun);
    note_holders(e, first, &live);
    say(e, "; ");
    put_nodes(e->c, &live, e->message);
    say(e, live.total == 1 ? " has it" : " have it");
}

/* --- all together --- */

/* The highest function of a chain that fits and that a live node has, or `on` has; or NULL. */
static const struct mp_catalog_function *best_of(const struct explanation *e, uint32_t key,
                                                 uint32_t on, bool is_any)
{
    const struct mp_catalog *c = e->c;
    for (; key != MP_CATALOG_NONE; key = c->functions[key].next) {
        const struct mp_catalog_function *f = &c->functions[key];
        if (is_meant(e, key, is_any) &&
            (on != MP_CATALOG_NONE
                 ? mp_catalog_is_holder(c, f->module, on)
                 : f->module + 1 == e->q->pin || mp_catalog_is_provided(c, f->module)))
            return f;
    }
    return NULL;
}

static void explain_known(struct explanation *e, uint32_t key)
{
    const struct mp_catalog *c = e->c;
    const struct mp_catalog_query *q = e->q;
    uint32_t on = MP_CATALOG_NONE;
    if (q->on.size != 0 && !mp_map_get(&c->by_member, q->on, &on)) {
        explain_no_node(e);
        return;
    }
    if (on != MP_CATALOG_NONE && !mp_catalog_is_live(c, on)) {
        explain_gone_node(e, on);
        return;
    }
    if (!best_of(e, key, on, true)) {
        explain_not_on(e, key, on);
        return;
    }
    const struct mp_catalog_function *f = best_of(e, key, on, false);
    if (f)
        explain_needs(e, key, f, on);
    else
        explain_version(e, key, on);
}

/* What no node could ever serve; false if there is nothing of the kind. */
static bool explain_bad_query(struct explanation *e)
{
    const struct mp_catalog_query *q = e->q;
    if (!mp_slice_is_dotted_name(q->fun)) {
        blame(e, MP_CODE_INVALID_ARGUMENT, "BAD_NAME");
        e->fault->fun = mp_slice_of(NULL, 0); /* it may be any bytes */
        say(e, "not the name of a function: ");
        say_slice(e, q->fun);
        mp_text_put(e->hint, "functions are named module.function");
        e->fault->hint = mp_text_slice(e->hint);
        return true;
    }
    if (!mp_version_constraint_is_valid(q->version)) {
        blame(e, MP_CODE_INVALID_ARGUMENT, "BAD_VERSION");
        say(e, "not a version constraint: ");
        say_slice(e, q->version);
        mp_text_put(e->hint, "parts such as =1.2.3 >=1.0 <2 ^1.2 ~1.2.3, joined by commas");
        e->fault->hint = mp_text_slice(e->hint);
        return true;
    }
    if (q->cluster.size == 0 || mp_slice_equal(q->cluster, e->c->cluster))
        return false;
    blame(e, MP_CODE_PERMISSION_DENIED, "CLUSTER_MISMATCH");
    say(e, "this node belongs to cluster ");
    say_slice(e, e->c->cluster);
    say(e, " and does not forward to cluster ");
    say_slice(e, q->cluster);
    return true;
}

void mp_catalog_explain(const struct mp_catalog *c, mp_time now, const struct mp_catalog_query *q,
                        struct mp_fault *fault, struct mp_text *message, struct mp_text *hint)
{
    uint32_t key = MP_CATALOG_NONE;
    struct explanation e = {
        .c = c, .q = q, .now = now, .fault = fault, .message = message, .hint = hint};
    *fault = (struct mp_fault){.fun = q->fun};
    if (!explain_bad_query(&e)) {
        if (mp_map_get(&c->by_name, q->fun, &key) && best_of(&e, key, MP_CATALOG_NONE, true))
            explain_known(&e, key);
        else
            explain_unknown(&e);
    }
    fault->message = mp_text_slice(message);
}

bool mp_catalog_pipeline(const struct mp_catalog *c, struct mp_slice name, uint32_t pin,
                         struct mp_slice *graph, struct mp_fault *fault, struct mp_text *message,
                         struct mp_text *hint)
{
    uint32_t module = MP_CATALOG_NONE;
    uint32_t gone = MP_CATALOG_NONE;
    if (mp_map_get(&c->pipelines, name, &module))
        for (; module != MP_CATALOG_NONE; module = c->records[module].next_pipeline) {
            if (!mp_catalog_is_meant(c, module, pin))
                continue;
            if (pin != 0 || mp_catalog_is_provided(c, module)) {
                *graph = c->modules[module].graph;
                return true;
            }
            gone = last_holder(c, module, gone);
        }
    *fault =
        (struct mp_fault){.code = MP_CODE_NOT_FOUND, .reason = mp_slice_str("UNKNOWN_PIPELINE")};
    mp_text_put(message, "no node has a pipeline ");
    mp_text_put_slice(message, name);
    if (gone != MP_CATALOG_NONE) {
        bool has_left = c->members[gone].state == MP_CATALOG_NODE_LEFT;
        mp_text_put(message, "; ");
        mp_text_put_slice(message, c->members[gone].name);
        mp_text_put(message, has_left ? " had it, and left" : " had it, and is dead");
    } else {
        suggest(c, &c->pipelines, name, fault, hint);
    }
    fault->message = mp_text_slice(message);
    return false;
}
