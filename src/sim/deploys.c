/* Changes of what is deployed: what clients ask for, what becomes of it, and that all agree in the
 * end. Every entry that any node ever kept is in the world's books, with the request that it came
 * of: `by` says which. What is live on a node is worked out from the books once more. */
#include "src/base/assert.h"
#include "src/sim/world_internal.h"
#include "src/wire/error.h"
#include "src/wire/frame.h"
#include "src/wire/msgpack.h"

#define PADDING       20000 /* bytes of every PADDED_EACH-th version, which travel in shared blocks */
#define PADDED_EACH   7
#define SALT_OTHER    1000000 /* above: another content of the same version */
#define BY_BYTES      16
#define ANSWERED_IN   MP_SECONDS(20)
#define DEPLOY_GAP    MP_MS(700)
#define FORGOTTEN_IN  MP_SECONDS(15) /* code that is not live any more */
#define SETTLED_IN    MP_SECONDS(5)
#define DOWN_LASTS    MP_SECONDS(2)
#define AGREED_WITHIN MP_SECONDS(30)
#define QUIET_WITHIN  MP_SECONDS(60)

static void check(enum mp_err err)
{
    mp_assert(err == MP_OK);
}

/* --- asking --- */

/* What is deployed: a bit for each module. */
struct change {
    uint32_t modules;
    uint32_t versions[MP_WORLD_DEPLOYED];
    uint64_t salt; /* 0: the content that this version always has */
    bool is_lower;
    bool is_broken;
};

static void put_version(struct mp_text *text, const struct change *c, uint32_t module)
{
    mp_text_put(text, c->is_lower ? "0.9." : "1.0.");
    mp_text_put_uint(text, c->versions[module]);
}

static void put_source(struct mp_world *w, const struct change *c, uint32_t module,
                       struct mp_buf *payload)
{
    char data[32];
    struct mp_text version;
    struct mp_buf source;
    uint32_t k = c->versions[module];
    mp_buf_init(&source, w->alloc, 0);
    mp_text_init(&version, data, sizeof(data));
    put_version(&version, c, module);
    if (c->is_broken)
        check(mp_mp_put_text(&source, "end end"));
    else
        mp_world_put_metadata(&source, module, data, c->salt != 0 ? c->salt : k,
                              k % PADDED_EACH == 0 ? PADDING : 0);
    check(mp_mp_put_bin(payload, mp_buf_slice(&source)));
    mp_buf_fini(&source);
}

static void put_unit(struct mp_world *w, const struct change *c, struct mp_buf *payload)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < MP_WORLD_DEPLOYED; i++)
        count += c->modules >> i & 1;
    check(mp_mp_put_array(payload, count));
    for (uint32_t i = 0; i < MP_WORLD_DEPLOYED; i++) {
        if ((c->modules >> i & 1) == 0)
            continue;
        check(mp_mp_put_array(payload, 2));
        check(mp_mp_put_text(payload, mp_world_modules[i]));
        put_source(w, c, i, payload);
    }
}

static void put_by(struct mp_buf *meta, uint32_t number)
{
    char data[BY_BYTES];
    struct mp_text by;
    mp_text_init(&by, data, sizeof(data));
    mp_text_put(&by, "c");
    mp_text_put_uint(&by, number);
    check(mp_mp_put_str_pair(meta, "by", mp_text_slice(&by)));
}

static void put_head(struct mp_buf *meta, const char *what, uint32_t pairs, uint32_t number)
{
    check(mp_mp_put_array(meta, 2));
    check(mp_mp_put_text(meta, what));
    check(mp_mp_put_map(meta, pairs));
    put_by(meta, number);
}

static void put_nodes(struct mp_world *w, struct mp_buf *meta)
{
    uint32_t count = 1 + (uint32_t)mp_rng_below(&w->rng, 2);
    check(mp_mp_put_text(meta, mp_world_chance(w, 500) ? "only" : "skip"));
    check(mp_mp_put_array(meta, count));
    for (uint32_t i = 0; i < count; i++) {
        char name[16];
        check(mp_mp_put_str(
            meta, mp_world_name_of((uint32_t)mp_rng_below(&w->rng, w->name_count), name)));
    }
}

/* Mostly the next version of one module; sometimes one that the rules refuse, or that is no code.
 */
static struct change draw_change(struct mp_world *w)
{
    uint32_t module = (uint32_t)mp_rng_below(&w->rng, MP_WORLD_DEPLOYED);
    uint32_t drawn = (uint32_t)mp_rng_below(&w->rng, 100);
    struct change c = {.modules = 1u << module};
    bool is_first = w->versions[module] == 0;
    if (mp_world_chance(w, 200))
        c.modules = (1u << MP_WORLD_DEPLOYED) - 1;
    c.is_broken = drawn < 8;
    c.is_lower = drawn >= 8 && drawn < 15;
    for (uint32_t i = 0; i < MP_WORLD_DEPLOYED; i++) {
        bool is_new = is_first || w->versions[i] == 0 || drawn < 15 || drawn >= 33;
        if ((c.modules >> i & 1) != 0 && is_new)
            w->versions[i]++;
        c.versions[i] = w->versions[i];
    }
    if (drawn >= 15 && drawn < 22 && !is_first)
        c.salt = SALT_OTHER + mp_rng_below(&w->rng, SALT_OTHER);
    return c;
}

static void request_deploy(struct mp_world *w, uint32_t number, struct mp_buf *meta,
                           struct mp_buf *payload)
{
    const struct change c = draw_change(w);
    bool has_scope = mp_world_chance(w, 200);
    bool is_forced = mp_world_chance(w, 80);
    bool has_expect = mp_world_chance(w, 50);
    put_head(meta, "deploy", 1u + has_scope + is_forced + has_expect, number);
    if (has_scope)
        put_nodes(w, meta);
    if (is_forced)
        check(mp_mp_put_bool_pair(meta, "force", true));
    if (has_expect)
        check(mp_mp_put_str_pair(meta, "expect",
                                 mp_slice_str(mp_world_chance(w, 500) ? "none" : "01234567")));
    put_unit(w, &c, payload);
    if (mp_world_chance(w, w->cfg.chances.malformed))
        mp_buf_drop(payload, mp_rng_below(&w->rng, payload->size));
}

static void put_module_name(struct mp_world *w, struct mp_buf *meta)
{
    uint32_t module = (uint32_t)mp_rng_below(&w->rng, MP_WORLD_DEPLOYED);
    const char *name = mp_world_modules[mp_world_chance(w, 30) ? MP_WORLD_MODULE_LATE : module];
    check(mp_mp_put_str_pair(meta, "module", mp_slice_str(name)));
}

static void request_rollback(struct mp_world *w, uint32_t number, struct mp_buf *meta)
{
    bool has_version = mp_world_chance(w, 300);
    put_head(meta, "rollback", 2u + has_version, number);
    put_module_name(w, meta);
    if (has_version)
        check(mp_mp_put_str_pair(meta, "to",
                                 mp_slice_str(mp_world_chance(w, 500) ? "^1.0" : "1.0.1")));
}

void mp_world_request_change(struct mp_world *w, struct mp_world_node *n, uint32_t number,
                             struct mp_buf *meta, struct mp_buf *payload)
{
    static const char *const asked[] = {"history", "source", "undeploy", "undeploy"};
    uint32_t drawn = (uint32_t)mp_rng_below(&w->rng, 100);
    (void)n;
    if (drawn < 70) {
        request_deploy(w, number, meta, payload);
    } else if (drawn < 85) {
        request_rollback(w, number, meta);
    } else {
        put_head(meta, asked[drawn % MP_ARRAY_SIZE(asked)], 2, number);
        put_module_name(w, meta);
    }
}

/* --- books --- */

static void read_entry(const struct mp_world_entry *e, struct mp_deploy_entry *out)
{
    check(mp_deploy_read_entry(mp_buf_slice(&e->bytes), out));
}

static uint32_t request_in(struct mp_slice by)
{
    uint32_t number = 0;
    for (size_t i = 1; i < by.size; i++)
        number = number * 10 + by.data[i] - '0';
    return number;
}

/* Who makes an entry knows all that it made before, and gives no version twice; what is live may be
 * deployed again. */
static void check_version(struct mp_world *w, const struct mp_world_node *n,
                          const struct mp_world_entry *made)
{
    struct mp_deploy_entry e;
    read_entry(made, &e);
    if (e.action != MP_DEPLOY_DEPLOY || e.is_forced || mp_slice_equal(e.previous, e.hash) ||
        mp_world_name_in(w, e.stamp.node) != n->name)
        return;
    for (uint32_t i = 0; i < w->entry_count; i++) {
        struct mp_deploy_entry other;
        read_entry(&w->entries[i], &other);
        if ((w->entries[i].keepers >> n->number & 1) != 0 &&
            mp_slice_equal(other.stamp.node, e.stamp.node) &&
            mp_slice_equal(other.module, e.module) && mp_slice_equal(other.version, e.version) &&
            !mp_slice_equal(other.hash, e.hash))
            mp_world_violation(w, "history", "a version was given twice", made->request);
    }
}

void mp_world_entry_kept(struct mp_world *w, const struct mp_world_node *n, struct mp_slice entry)
{
    struct mp_deploy_entry e;
    for (uint32_t i = 0; i < w->entry_count; i++)
        if (mp_slice_equal(mp_buf_slice(&w->entries[i].bytes), entry)) {
            w->entries[i].keepers |= 1ull << n->number;
            return;
        }
    w->entries = (struct mp_world_entry *)mp_world_grow(w, w->entries, &w->entry_capacity,
                                                        w->entry_count + 1, sizeof(*w->entries));
    struct mp_world_entry *new = &w->entries[w->entry_count++];
    *new = (struct mp_world_entry){.keepers = 1ull << n->number};
    mp_buf_init(&new->bytes, w->alloc, 0);
    check(mp_buf_append(&new->bytes, entry));
    read_entry(new, &e);
    new->request = request_in(e.by);
    if (new->request == 0 || new->request > w->request_count)
        mp_world_violation(w, "history", "a change that nobody asked for", e.stamp.epoch);
    check_version(w, n, new);
}

void mp_world_deploys_fini(struct mp_world *w)
{
    for (uint32_t i = 0; i < w->entry_count; i++)
        mp_buf_fini(&w->entries[i].bytes);
    mp_alloc_free(w->alloc, w->entries, w->entry_capacity * sizeof(*w->entries));
}

/* --- answers --- */

bool mp_world_is_harm(const struct mp_world *w, struct mp_slice error, uint32_t function)
{
    static const char *const reasons[] = {"NOT_HERE",         "NO_RELEASE", "NO_CODE",
                                          "UNKNOWN_FUNCTION", "NO_VERSION", "UNSATISFIABLE",
                                          "DUPLICATE",        "NODE_LOST"};
    struct mp_fault fault;
    if (!w->is_calm || mp_world_functions[function].module >= MP_WORLD_DEPLOYED ||
        mp_fault_read(error, &fault) != MP_OK)
        return false;
    for (size_t i = 0; i < MP_ARRAY_SIZE(reasons); i++)
        if (mp_slice_is(fault.reason, reasons[i]))
            return true;
    return false;
}

/* Whether calls that begin on a node have what the node takes for live. */
static bool is_taken_up(const struct mp_world_node *n, struct mp_slice module)
{
    struct mp_deploy_entry e;
    const uint8_t *unit = mp_world_release_unit(n, mp_node_release(n->node), module);
    bool is_live = mp_deploy_find(mp_node_deploy(n->node), module, false, &e) &&
                   e.action != MP_DEPLOY_UNDEPLOY;
    return is_live ? unit && memcmp(unit, e.unit.data, e.unit.size) == 0 : !unit;
}

/* Whether calls that begin on a node have what came of an entry, or of a later one. */
static bool has_since(const struct mp_world *w, const struct mp_world_node *n,
                      struct mp_slice module, uint64_t epoch)
{
    const uint8_t *unit = mp_world_release_unit(n, mp_node_release(n->node), module);
    for (uint32_t i = 0; i < w->entry_count; i++) {
        struct mp_deploy_entry e;
        read_entry(&w->entries[i], &e);
        bool is_it = e.action == MP_DEPLOY_UNDEPLOY
                         ? !unit
                         : unit && memcmp(unit, e.unit.data, e.unit.size) == 0;
        if (is_it && e.stamp.epoch >= epoch && mp_slice_equal(e.module, module))
            return true;
    }
    return false;
}

static void check_live(struct mp_world *w, struct mp_slice node, struct mp_slice module,
                       uint64_t epoch)
{
    uint32_t name = mp_world_name_in(w, node);
    for (uint32_t i = 0; i < w->node_count; i++) {
        const struct mp_world_node *n = &w->nodes[i];
        if (n->node && n->name == name && !has_since(w, n, module, epoch))
            mp_world_violation(w, "deploys-harm-nobody", "said to be live and it is not: node",
                               i + 1u);
    }
}

static bool get_text(struct mp_slice map, const char *key, struct mp_slice *text)
{
    struct mp_slice value;
    return mp_mp_map_get(map, mp_slice_str(key), &value) == MP_OK &&
           mp_mp_get_str(value, text) == MP_OK;
}

static bool get_int(struct mp_slice map, const char *key, int64_t *number)
{
    struct mp_slice value;
    return mp_mp_map_get(map, mp_slice_str(key), &value) == MP_OK &&
           mp_mp_get_int(value, number) == MP_OK;
}

static void check_result(struct mp_world *w, uint32_t request, struct mp_slice result)
{
    struct mp_slice nodes;
    struct mp_slice value;
    struct mp_slice module;
    struct mp_mp_reader r;
    uint32_t count;
    int64_t epoch;
    bool is_unchanged = false;
    bool is_there = false;
    if (!get_text(result, "module", &module) || !get_int(result, "epoch", &epoch) ||
        mp_mp_map_get(result, mp_slice_str("nodes"), &nodes) != MP_OK ||
        mp_mp_get_array(nodes, &count, &r) != MP_OK ||
        mp_mp_map_get(result, mp_slice_str("unchanged"), &value) != MP_OK ||
        mp_mp_get_bool(value, &is_unchanged) != MP_OK) {
        mp_world_violation(w, "right-result", "the answer to a deploy that is none", request);
        return;
    }
    for (uint32_t i = 0; i < w->entry_count; i++)
        is_there = is_there || w->entries[i].request == request;
    if (is_there == is_unchanged)
        mp_world_violation(w, "history", "a deploy succeeded and changed nothing", request);
    for (uint32_t i = 0; w->is_calm && i < count; i++) {
        struct mp_slice name;
        struct mp_slice state;
        check(mp_mp_take(&r, &value));
        if (get_text(value, "node", &name) && get_text(value, "state", &state) &&
            mp_slice_is(state, "live"))
            check_live(w, name, module, (uint64_t)epoch);
        else
            mp_world_violation(w, "deploys-harm-nobody", "a node is behind without a fault",
                               i + 1u);
    }
}

/* Whether a change was refused for what it was. */
static bool is_by_rule(struct mp_slice error)
{
    static const char *const reasons[] = {
        "LOAD_ERROR",  "VERSION_LOWER", "VERSION_REUSED", "BAD_OPTION", "EXPECTATION_FAILED",
        "NO_PREVIOUS", "NO_VERSION",    "NOT_DEPLOYED",   "NO_NODE",    "UNKNOWN_MODULE"};
    struct mp_fault fault;
    if (mp_fault_read(error, &fault) != MP_OK)
        return false;
    for (size_t i = 0; i < MP_ARRAY_SIZE(reasons); i++)
        if (mp_slice_is(fault.reason, reasons[i]))
            return true;
    return false;
}

void mp_world_change_answered(struct mp_world *w, struct mp_world_node *n,
                              const struct mp_node_effect *e)
{
    struct mp_world_request *r = &w->requests[e->id - 1];
    struct mp_slice ignored;
    if (e->frame != MP_FRAME_RESULT) {
        if (w->is_calm && !is_by_rule(e->payload.bytes))
            mp_world_violation(w, "deploys-harm-nobody", "a deploy failed without a fault", e->id);
        r->is_refused = true;
        w->report->changes_refused++;
        return;
    }
    mp_world_log(w, n, "deploys", e->payload.bytes);
    if (mp_mp_map_get(e->payload.bytes, mp_slice_str("epoch"), &ignored) != MP_OK)
        return; /* a history, or a source */
    r->is_made = true;
    w->report->changes++;
    check_result(w, (uint32_t)e->id, e->payload.bytes);
}

/* --- that all agree --- */

static bool fails(struct mp_world *w, bool is_told, const char *what, uint64_t number)
{
    if (is_told)
        mp_world_violation(w, "history", what, number);
    return false;
}

static bool knows(const struct mp_world_node *n, const struct mp_deploy_entry *e)
{
    return mp_deploy_knows(mp_node_deploy(n->node), e->module, e->is_pipeline, &e->stamp);
}

static bool is_kept(const struct mp_world *w, const struct mp_world_entry *e)
{
    for (uint32_t i = 0; i < w->node_count; i++)
        if (mp_world_is_up(&w->nodes[i]) && (e->keepers >> i & 1) != 0)
            return true;
    return false;
}

/* Of two nodes of one name each may have made a change at the same time: one of the two counts. */
static bool keeps_twin(const struct mp_world *w, const struct mp_world_node *n,
                       const struct mp_deploy_entry *e)
{
    for (uint32_t i = 0; i < w->entry_count; i++) {
        struct mp_deploy_entry other;
        read_entry(&w->entries[i], &other);
        if ((w->entries[i].keepers >> n->number & 1) != 0 && other.stamp.epoch == e->stamp.epoch &&
            mp_slice_equal(other.stamp.node, e->stamp.node) &&
            mp_slice_equal(other.module, e->module) && other.is_pipeline == e->is_pipeline)
            return true;
    }
    return false;
}

static bool check_entry(struct mp_world *w, const struct mp_world_node *first,
                        const struct mp_world_node *n, const struct mp_world_entry *kept,
                        bool is_told)
{
    struct mp_deploy_entry e;
    read_entry(kept, &e);
    if (is_kept(w, kept) && !knows(n, &e))
        return fails(w, is_told, "a change that a node kept is not known to node", n->number + 1u);
    if (knows(n, &e) && (kept->keepers >> n->number & 1) == 0 && !keeps_twin(w, n, &e))
        return fails(w, is_told, "a change that is known is not kept by node", n->number + 1u);
    if (knows(n, &e) && kept->request != 0 && w->requests[kept->request - 1].is_refused)
        return fails(w, is_told, "a deploy was refused and is in the history", kept->request);
    if (knows(n, &e) && knows(first, &e) &&
        mp_deploy_is_overtaken(mp_node_deploy(first->node), e.module, e.is_pipeline, &e.stamp) !=
            mp_deploy_is_overtaken(mp_node_deploy(n->node), e.module, e.is_pipeline, &e.stamp))
        return fails(w, is_told, "what is overtaken differs at node", n->number + 1u);
    return true;
}

static bool is_later(const struct mp_deploy_stamp *a, const struct mp_deploy_stamp *b)
{
    return a->epoch != b->epoch ? a->epoch > b->epoch : mp_slice_compare(a->node, b->node) > 0;
}

/* The last entry whose scope a node is in is what is live on it. */
static bool check_what_is_live(struct mp_world *w, const struct mp_world_node *n, uint32_t module,
                               bool is_told)
{
    char data[16];
    struct mp_slice name = mp_slice_str(mp_world_modules[module]);
    struct mp_deploy_entry last = {0};
    struct mp_deploy_entry live;
    for (uint32_t i = 0; i < w->entry_count; i++) {
        struct mp_deploy_entry e;
        read_entry(&w->entries[i], &e);
        if (mp_slice_equal(e.module, name) && knows(n, &e) &&
            mp_deploy_is_in_scope(&e, mp_world_name_of(n->name, data)) &&
            is_later(&e.stamp, &last.stamp))
            last = e;
    }
    bool is_any = mp_deploy_find(mp_node_deploy(n->node), name, false, &live);
    if (is_any != (last.stamp.epoch != 0) ||
        (is_any && (is_later(&last.stamp, &live.stamp) || is_later(&live.stamp, &last.stamp))))
        return fails(w, is_told, "something else is live on node", n->number + 1u);
    return true;
}

/* Whether the code of all that is live on a node is kept by somebody who is up. */
static bool is_code_kept(const struct mp_world *w, const struct mp_world_node *n)
{
    struct mp_deploy_entry e;
    for (uint32_t i = 0; mp_deploy_live_at(mp_node_deploy(n->node), i, &e); i++) {
        bool is_any = false;
        for (uint32_t k = 0; k < w->node_count; k++)
            is_any = is_any || (mp_world_is_up(&w->nodes[k]) &&
                                mp_world_is_stored(&w->nodes[k], e.unit.data));
        if (!is_any)
            return false;
    }
    return true;
}

bool mp_world_check_code(struct mp_world *w, const struct mp_world_node *first,
                         const struct mp_world_node *n, bool is_told)
{
    if (mp_deploy_digest(mp_node_deploy(first->node)) != mp_deploy_digest(mp_node_deploy(n->node)))
        return fails(w, is_told, "the histories differ, of node", n->number + 1u);
    for (uint32_t i = 0; i < w->entry_count; i++)
        if (!check_entry(w, first, n, &w->entries[i], is_told))
            return false;
    bool is_whole = is_code_kept(w, n);
    if (is_whole && !mp_node_is_up_to_date(n->node))
        return fails(w, is_told, "what is live was not taken up by node", n->number + 1u);
    for (uint32_t i = 0; i < MP_WORLD_DEPLOYED; i++) {
        if (!check_what_is_live(w, n, i, is_told))
            return false;
        if (is_whole && !is_taken_up(n, mp_slice_str(mp_world_modules[i])))
            return fails(w, is_told, "calls do not have what is live on node", n->number + 1u);
    }
    return true;
}

bool mp_world_is_deployed(const struct mp_world_node *n, uint32_t module)
{
    return mp_world_release_unit(n, mp_node_release(n->node),
                                 mp_slice_str(mp_world_modules[module]));
}

static uint32_t live_unit_count(const struct mp_world_node *n)
{
    const struct mp_deploy *d = mp_node_deploy(n->node);
    struct mp_deploy_entry e;
    uint32_t count = 0;
    for (uint32_t i = 0; mp_deploy_live_at(d, i, &e); i++) {
        struct mp_deploy_entry other;
        bool is_first = true;
        for (uint32_t k = 0; is_first && k < i && mp_deploy_live_at(d, k, &other); k++)
            is_first = !mp_slice_equal(other.unit, e.unit);
        count += is_first;
    }
    return count;
}

bool mp_world_code_is_quiet(const struct mp_world *w, const struct mp_world_node *n)
{
    if (mp_node_deploy_count(n->node) != 0)
        return false;
    if (!mp_node_is_up_to_date(n->node))
        return !is_code_kept(w, n); /* it looks for code that is lost */
    uint32_t units = live_unit_count(n);
    return n->job_count == 0 && mp_node_unit_count(n->node) == units &&
           mp_world_loaded_count(n) == units &&
           mp_node_release_count(n->node) == (mp_node_release(n->node) != 0) &&
           mp_world_open_count(n) == mp_node_release_count(n->node);
}

/* --- one after another --- */

/* Deploys the next version of the first module; the request's number. */
static uint32_t deploy_next(struct mp_world *w, struct mp_world_node *n)
{
    struct mp_buf meta;
    struct mp_buf payload;
    struct change c = {.modules = 1, .versions = {++w->versions[0]}};
    mp_buf_init(&meta, w->alloc, 0);
    mp_buf_init(&payload, w->alloc, 0);
    put_head(&meta, "deploy", 1, w->request_count + 1);
    put_unit(w, &c, &payload);
    uint32_t request = mp_world_ask_change(w, n, &meta, &payload);
    mp_buf_fini(&meta);
    mp_buf_fini(&payload);
    return request;
}

static void wait_until_answered(struct mp_world *w, uint32_t request)
{
    mp_time until = w->now + ANSWERED_IN;
    while (w->now < until && !w->is_broken && w->requests[request - 1].answers == 0 &&
           !w->requests[request - 1].is_gone)
        mp_world_run(w, w->now + MP_MS(10));
}

static void put_sample(struct mp_world *w)
{
    uint64_t memory = 0;
    mp_world_run(w, w->now + FORGOTTEN_IN);
    for (uint32_t i = 0; i < w->cfg.nodes; i++)
        memory += w->nodes[i].bytes;
    w->report->samples[w->report->sample_count++] = (double)memory / w->cfg.nodes;
}

void mp_world_live_deploys(struct mp_world *w)
{
    mp_world_start_all(w);
    mp_world_run(w, w->now + SETTLED_IN);
    for (uint32_t i = 0; i < w->cfg.deploys && w->report->violation_count == 0; i++) {
        uint32_t request = deploy_next(w, &w->nodes[i % w->cfg.nodes]);
        wait_until_answered(w, request);
        if (!w->requests[request - 1].is_made)
            mp_world_violation(w, "deploys-harm-nobody", "a deploy did not succeed", request);
        mp_world_run(w, w->now + mp_rng_below(&w->rng, DEPLOY_GAP));
        if (i + 1 == w->cfg.deploys / 2 || i + 1 == w->cfg.deploys)
            put_sample(w);
    }
    mp_world_wait_until_agreed(w, AGREED_WITHIN);
    mp_world_wait_until_quiet(w, QUIET_WITHIN);
}

/* --- one that is disturbed --- */

/* Nodes that have that version's entry. */
static uint32_t holder_count(const struct mp_world *w, uint32_t request)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < w->entry_count; i++) {
        struct mp_deploy_entry e;
        read_entry(&w->entries[i], &e);
        for (uint32_t k = 0; w->entries[i].request == request && k < w->node_count; k++)
            count += mp_world_is_up(&w->nodes[k]) && knows(&w->nodes[k], &e);
    }
    return count;
}

/* All at once: each has only what it kept. */
static void restart_all(struct mp_world *w)
{
    for (uint32_t i = 0; i < w->cfg.nodes; i++)
        if (w->nodes[i].node)
            mp_world_node_crash(w, &w->nodes[i], false);
    for (uint32_t i = 0; i < w->cfg.nodes; i++)
        mp_world_node_start(w, &w->nodes[i]);
    mp_world_wait_until_agreed(w, AGREED_WITHIN);
    mp_world_wait_until_quiet(w, QUIET_WITHIN);
}

void mp_world_live_sweep(struct mp_world *w)
{
    struct mp_world_node *victim = &w->nodes[w->cfg.crash_node];
    mp_world_start_all(w);
    mp_world_run(w, w->now + SETTLED_IN);
    wait_until_answered(w, deploy_next(w, &w->nodes[w->cfg.nodes - 1]));
    mp_world_run(w, w->now + SETTLED_IN);
    w->victim = w->cfg.crash_node;
    w->victim_steps = w->cfg.crash_step;
    uint32_t request = deploy_next(w, &w->nodes[0]);
    wait_until_answered(w, request);
    w->victim = MP_WORLD_NONE; /* it is over: nothing dies any more */
    mp_world_run(w, w->now + DOWN_LASTS);
    if (!victim->node)
        mp_world_node_start(w, victim);
    w->is_healed = true;
    w->report->healed_ms = mp_world_wait_until_agreed(w, AGREED_WITHIN);
    mp_world_wait_until_quiet(w, QUIET_WITHIN);
    const struct mp_world_request *r = &w->requests[request - 1];
    uint32_t count = holder_count(w, request);
    if (count != 0 && count != w->cfg.nodes)
        mp_world_violation(w, "history", "so many nodes have a deploy, not all and not none",
                           count);
    if (r->is_made && count != w->cfg.nodes)
        mp_world_violation(w, "history", "a deploy succeeded, and so many nodes have it", count);
    if (w->cfg.crash_node != 0 && !r->is_made && !r->is_refused)
        mp_world_violation(w, "one-answer", "a deploy was never answered", request);
    restart_all(w);
    if (holder_count(w, request) != count)
        mp_world_violation(w, "history", "after all were restarted other nodes have a deploy",
                           count);
}
