/* Promises that concern several nodes: what they know of each other, where calls go, and that all
 * agree in the end. A small world is looked through after each step, a larger one bit by bit; where
 * a node's members are as they were when all of them were looked at, there is nothing to see. */
#include "src/base/assert.h"
#include "src/sim/world_internal.h"
#include "src/wire/frame.h"

#define WHOLE_UP_TO      64   /* nodes: all members are looked at after each step */
#define PARTLY_UP_TO     2000 /* nodes: a few members after each step; beyond, none */
#define MEMBERS_A_STEP   4
#define FALSE_DEATH_ONCE MP_SECONDS(10) /* many will hear of it: it is one */

/* --- what nodes know of each other --- */

static void put_word(struct mp_world *w, uint32_t name, uint64_t generation, uint32_t incarnation)
{
    struct mp_world_name *n = &w->names[name];
    for (uint32_t i = n->word_count; i-- > 0;)
        if (n->words[i].generation == generation) {
            if (incarnation > n->words[i].incarnation)
                n->words[i].incarnation = incarnation;
            return;
        }
    n->words = (struct mp_world_word *)mp_world_grow(w, n->words, &n->word_capacity,
                                                     n->word_count + 1, sizeof(*n->words));
    n->words[n->word_count++] =
        (struct mp_world_word){.generation = generation, .incarnation = incarnation};
}

static bool was_said(const struct mp_world_name *n, const struct mp_member_info *info)
{
    for (uint32_t i = n->word_count; i-- > 0;)
        if (n->words[i].generation == info->generation)
            return info->incarnation <= n->words[i].incarnation;
    return false;
}

static bool is_older(const struct mp_member_info *info, const struct mp_world_view *than)
{
    if (info->generation != than->generation)
        return info->generation < than->generation;
    if (info->incarnation != than->incarnation)
        return info->incarnation < than->incarnation;
    return (uint8_t)info->state < than->state;
}

/* What the member never said counts in each step that it is listed. */
static void break_word(struct mp_world *w, struct mp_world_node *n, const char *what,
                       uint64_t number)
{
    mp_world_violation(w, "own-word", what, number);
    n->changes_seen = 0;
}

static void look_at(struct mp_world *w, struct mp_world_node *n, uint32_t member)
{
    struct mp_member_info info;
    if (!mp_membership_get(mp_node_membership(n->node), member, &info))
        return;
    uint32_t name = mp_world_name_in(w, info.name);
    if (name == MP_WORLD_NONE) {
        break_word(w, n, "a member that never was is listed by node", n->number);
        return;
    }
    n->views = (struct mp_world_view *)mp_world_grow(w, n->views, &n->view_capacity, name + 1,
                                                     sizeof(*n->views));
    struct mp_world_view *v = &n->views[name];
    if (member != MP_MEMBER_SELF && !was_said(&w->names[name], &info))
        break_word(w, n, "a node heard what the member itself never said: member", name + 1u);
    if (v->is_there && member != MP_MEMBER_SELF && is_older(&info, v))
        mp_world_violation(w, "views", "what a node knew of a member went back: member", name + 1u);
    *v = (struct mp_world_view){.generation = info.generation,
                                .incarnation = info.incarnation,
                                .state = (uint8_t)info.state,
                                .stamp = n->view_cursor,
                                .is_there = true};
}

static void look_at_all(struct mp_world *w, struct mp_world_node *n)
{
    n->view_cursor++;
    n->unseen = 0;
    for (uint32_t i = 0; i < mp_membership_end(mp_node_membership(n->node)); i++)
        look_at(w, n, i);
    for (uint32_t i = 0; i < n->view_capacity; i++) {
        struct mp_world_view *v = &n->views[i];
        if (!v->is_there || v->stamp == n->view_cursor)
            continue;
        v->is_there = false;
        if (!w->names[i].is_forgotten)
            mp_world_violation(w, "remembered", "a member vanished from a node's list: member",
                               i + 1u);
    }
}

static void look_at_some(struct mp_world *w, struct mp_world_node *n)
{
    uint32_t end = mp_membership_end(mp_node_membership(n->node));
    for (uint32_t i = 0; i < MEMBERS_A_STEP && i < end; i++, n->view_cursor++) {
        if (n->unseen == 0)
            continue;
        n->unseen--;
        look_at(w, n, n->view_cursor % end);
    }
}

bool mp_world_view(const struct mp_world_node *n, uint32_t name, struct mp_member_info *info)
{
    char data[16];
    const struct mp_membership *m = mp_node_membership(n->node);
    uint32_t member = mp_membership_find(m, mp_world_name_of(name, data));
    return member != MP_MEMBER_NONE && mp_membership_get(m, member, info);
}

/* Its current life is taken for dead although it can be reached, and was for a while. */
static bool is_falsely_dead(const struct mp_world *w, const struct mp_world_node *by,
                            const struct mp_world_node *n, const struct mp_member_info *info)
{
    return mp_world_is_up(n) && n != by && !n->is_slow && !mp_world_is_paused(w, n) &&
           info->generation == mp_membership_generation(mp_node_membership(n->node)) &&
           !mp_world_is_cut(w, by->number, n->number) && !mp_world_is_cut(w, n->number, by->number);
}

static struct mp_world_node *holder_of(const struct mp_world *w, uint32_t name)
{
    /* Nearly always the node that had the name first. */
    if (name < w->cfg.nodes && w->nodes[name].name == name)
        return &w->nodes[name];
    for (uint32_t i = 0; i < w->node_count; i++)
        if (w->nodes[i].name == name)
            return &w->nodes[i];
    return NULL;
}

static void find_false_deaths(struct mp_world *w, const struct mp_world_node *by)
{
    const struct mp_membership *m = mp_node_membership(by->node);
    for (uint32_t i = 0; i < mp_membership_end(m); i++) {
        struct mp_member_info info;
        if (!mp_membership_get(m, i, &info) || info.state < MP_MEMBER_DEAD)
            continue;
        uint32_t name = mp_world_name_in(w, info.name);
        struct mp_world_node *n = name == MP_WORLD_NONE ? NULL : holder_of(w, name);
        if (!n || !is_falsely_dead(w, by, n, &info) || w->now < n->falsely_dead_until)
            continue;
        n->falsely_dead_until = w->now + FALSE_DEATH_ONCE;
        w->report->false_deaths++;
        if (w->is_death_watched)
            mp_world_violation(w, "false-death", "taken for dead although it can be reached: node",
                               n->number + 1u);
    }
}

void mp_world_watch_step(struct mp_world *w, struct mp_world_node *n)
{
    struct mp_member_info self;
    if (w->cfg.nodes == 1)
        return;
    const struct mp_membership *m = mp_node_membership(n->node);
    if (mp_membership_changes(m) != n->changes_seen) {
        n->changes_seen = mp_membership_changes(m);
        n->unseen = mp_membership_end(m);
        if (mp_membership_get(m, MP_MEMBER_SELF, &self))
            put_word(w, n->name, self.generation, self.incarnation);
        if (mp_membership_live_count(m) < n->last_live)
            find_false_deaths(w, n);
        n->last_live = mp_membership_live_count(m);
    }
    mp_world_topics_watch(w, n);
    if (w->cfg.nodes > WHOLE_UP_TO && w->cfg.nodes <= PARTLY_UP_TO)
        look_at_some(w, n);
    else if (w->cfg.nodes <= WHOLE_UP_TO && n->unseen != 0)
        look_at_all(w, n);
}

/* --- where calls go --- */

static const struct mp_world_arrival *arrival_at(const struct mp_world *w, uint32_t serial,
                                                 uint32_t node)
{
    for (uint32_t i = w->serials[serial].first_arrival; i != MP_WORLD_NONE; i = w->arrivals[i].next)
        if (w->arrivals[i].node == node)
            return &w->arrivals[i];
    return NULL;
}

/* The nodes that a call had passed when n sent it on, n included. */
static struct mp_world_arrival path_through(const struct mp_world *w, uint32_t serial, uint32_t n)
{
    struct mp_world_arrival path = {0};
    const struct mp_world_arrival *a =
        w->serials[serial].origin == n ? NULL : arrival_at(w, serial, n);
    if (a)
        path = *a;
    if (path.path_count < MP_WORLD_PATH_MAX)
        path.path[path.path_count++] = n;
    return path;
}

static uint32_t serial_of(const struct mp_world *w, const struct mp_world_frame *f)
{
    if (f->type != MP_FRAME_CALL && f->type != MP_WORLD_FRAME_FORWARD)
        return 0;
    uint32_t serial = mp_world_serial_in(mp_slice_of(f->bytes + f->meta_size, f->payload_size));
    return serial < w->serial_count ? serial : 0;
}

void mp_world_watch_sent(struct mp_world *w, struct mp_world_node *n, uint32_t to,
                         const struct mp_world_frame *f)
{
    struct mp_member_info info;
    uint32_t serial = serial_of(w, f);
    if (serial == 0)
        return;
    w->report->remote_calls++;
    if (mp_world_view(n, w->nodes[to].name, &info) && info.state == MP_MEMBER_DEAD) {
        mp_world_log(w, n, "sends a call to", info.name);
        mp_world_violation(w, "dead-ends", "a call was sent to one that is known to be dead",
                           serial);
    }
    if (w->serials[serial].origin == n->number)
        return;
    w->report->relayed_calls++;
    const struct mp_world_arrival path = path_through(w, serial, n->number);
    for (uint32_t i = 0; i < path.path_count; i++)
        if (path.path[i] == to)
            mp_world_violation(w, "routing-loop", "a call goes where it came from", serial);
    if (path.path_count > MP_WORLD_HOPS_MAX)
        mp_world_violation(w, "routing-loop", "a call passes too many nodes", serial);
}

void mp_world_watch_came(struct mp_world *w, struct mp_world_node *n, uint32_t from,
                         const struct mp_world_frame *f)
{
    uint32_t serial = serial_of(w, f);
    mp_world_topics_came(w, n, f->type, mp_slice_of(f->bytes + f->meta_size, f->payload_size));
    if (serial == 0)
        return;
    struct mp_world_arrival arrival = path_through(w, serial, from);
    arrival.node = n->number;
    for (uint32_t i = w->serials[serial].first_arrival; i != MP_WORLD_NONE; i = w->arrivals[i].next)
        if (w->arrivals[i].node == n->number) {
            arrival.next = w->arrivals[i].next;
            w->arrivals[i] = arrival;
            return;
        }
    w->arrivals = (struct mp_world_arrival *)mp_world_grow(
        w, w->arrivals, &w->arrival_capacity, w->arrival_count + 1, sizeof(*w->arrivals));
    arrival.next = w->serials[serial].first_arrival;
    w->serials[serial].first_arrival = w->arrival_count;
    w->arrivals[w->arrival_count++] = arrival;
}

/* --- that all agree --- */

static uint32_t up_count(const struct mp_world *w)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < w->node_count; i++)
        count += mp_world_is_up(&w->nodes[i]) && !w->nodes[i].is_slow;
    return count;
}

static bool is_known(const struct mp_world_node *by, const struct mp_world_node *n)
{
    struct mp_member_info info;
    return mp_world_view(by, n->name, &info) && info.state <= MP_MEMBER_SUSPECT &&
           info.generation == mp_membership_generation(mp_node_membership(n->node));
}

bool mp_world_is_everybody_known(const struct mp_world *w)
{
    uint32_t up = up_count(w);
    for (uint32_t i = 0; i < w->node_count; i++) {
        const struct mp_world_node *n = &w->nodes[i];
        if (!mp_world_is_up(n) || n->is_slow)
            continue;
        uint32_t live = mp_membership_live_count(mp_node_membership(n->node));
        if (w->cfg.slow == 0 ? live != up : live < up)
            return false;
    }
    for (uint32_t i = 0; i < w->node_count; i++)
        for (uint32_t k = 0; k < w->node_count; k++) {
            const struct mp_world_node *by = &w->nodes[i];
            const struct mp_world_node *n = &w->nodes[k];
            bool is_asked = mp_world_is_up(by) && mp_world_is_up(n) && !by->is_slow && !n->is_slow;
            if (is_asked && w->cfg.nodes <= PARTLY_UP_TO && !is_known(by, n))
                return false;
        }
    return true;
}

static bool fails(struct mp_world *w, bool is_told, const char *invariant, const char *what,
                  uint32_t node)
{
    if (is_told)
        mp_world_violation(w, invariant, what, node + 1u);
    return false;
}

static bool is_held(const struct mp_world *w, uint32_t name)
{
    for (uint32_t i = 0; i < w->node_count; i++)
        if (w->nodes[i].name == name && w->nodes[i].node)
            return true;
    return false;
}

static void log_view(struct mp_world *w, const struct mp_world_node *by,
                     const struct mp_world_node *n)
{
    static const char *const states[] = {"alive", "suspect", "dead", "left"};
    struct mp_member_info info;
    char data[160];
    struct mp_text text;
    mp_text_init(&text, data, sizeof(data));
    mp_text_put(&text, "node ");
    mp_text_put_uint(&text, n->number + 1u);
    mp_text_put(&text, " of generation ");
    mp_text_put_uint(&text, mp_membership_generation(mp_node_membership(n->node)));
    if (mp_world_view(by, n->name, &info)) {
        mp_text_put(&text, " as ");
        mp_text_put(&text, states[info.state]);
        mp_text_put(&text, " in generation ");
        mp_text_put_uint(&text, info.generation);
        mp_text_put(&text, ", at ");
        mp_address_put(&text, &info.addr);
    } else {
        mp_text_put(&text, " not at all");
    }
    mp_world_log(w, by, "lists", mp_text_slice(&text));
}

/* Unless it came back since, or whoever was asked to forget it went before telling anybody. A later
 * boot, of which that one had not heard, was never forgotten. */
static bool must_be_forgotten(const struct mp_world *w, uint32_t name)
{
    const struct mp_world_name *n = &w->names[name];
    const struct mp_world_node *by = &w->nodes[n->forgotten_by];
    return n->is_forgotten && by->node && by->boot == n->forgotten_in && !is_held(w, name);
}

static bool check_members(struct mp_world *w, const struct mp_world_node *n, uint32_t up,
                          bool is_told)
{
    struct mp_member_info info;
    if (mp_membership_live_count(mp_node_membership(n->node)) != up)
        return fails(w, is_told, "members", "not as many are alive as there are, says node",
                     n->number);
    for (uint32_t i = 0; i < w->node_count; i++) {
        const struct mp_world_node *other = &w->nodes[i];
        if (!mp_world_is_up(other))
            continue;
        if (other != n && other->name == n->name)
            return fails(w, is_told, "names", "two have the same name in the end: node", n->number);
        if (is_told && !is_known(n, other))
            log_view(w, n, other);
        if (!is_known(n, other))
            return fails(w, is_told, "members", "one that is up is not listed so by node",
                         n->number);
    }
    for (uint32_t name = 0; name < w->name_count; name++)
        if (must_be_forgotten(w, name) && mp_world_view(n, name, &info) &&
            info.generation <= w->names[name].forgotten_generation)
            return fails(w, is_told, "forgotten", "one that was to be forgotten is listed by node",
                         n->number);
    return true;
}

static void log_providers(struct mp_world *w, const struct mp_world_node *by,
                          const struct mp_buf *found, uint32_t expected, struct mp_slice fun)
{
    char data[160];
    struct mp_text text;
    mp_text_init(&text, data, sizeof(data));
    mp_text_put_slice(&text, fun);
    mp_text_put(&text, " at members");
    for (size_t i = 0; i < found->size / sizeof(struct mp_catalog_provider); i++) {
        struct mp_catalog_provider p;
        struct mp_member_info info;
        memcpy(&p, found->data + i * sizeof(p), sizeof(p));
        mp_text_put(&text, " ");
        if (mp_membership_get(mp_node_membership(by->node), p.node, &info))
            mp_text_put_slice(&text, info.name);
        else
            mp_text_put_uint(&text, p.node);
    }
    mp_text_put(&text, ", not at so many: ");
    mp_text_put_uint(&text, expected);
    mp_world_log(w, by, "knows", mp_text_slice(&text));
}

/* Whether n has to take another node for one that serves a module. */
static bool is_provider(const struct mp_world_node *n, const struct mp_world_node *other,
                        uint32_t module)
{
    char data[16];
    struct mp_deploy_entry e;
    if (!mp_world_is_deployed(n, module))
        return mp_world_has_module(other, module);
    return !mp_deploy_find(mp_node_deploy(n->node), mp_slice_str(mp_world_modules[module]), false,
                           &e) ||
           mp_deploy_is_in_scope(&e, mp_world_name_of(other->name, data));
}

static bool check_functions(struct mp_world *w, const struct mp_world_node *n, bool is_told)
{
    struct mp_buf found;
    bool is_kept = true;
    mp_buf_init(&found, w->alloc, 0);
    for (uint32_t i = 0; i < MP_WORLD_FUNCTIONS; i++) {
        const struct mp_world_function *f = &mp_world_functions[i];
        char data[32];
        struct mp_text text;
        uint32_t providers = 0;
        if (mp_world_is_deployed(n, f->module) && !mp_node_is_up_to_date(n->node))
            continue; /* its code is lost: an older one is live, whose scope nobody knows any more
                       */
        mp_text_init(&text, data, sizeof(data));
        mp_world_put_function_name(f, &text);
        const struct mp_catalog_query q = {.fun = mp_text_slice(&text),
                                           .pin = mp_node_pin(n->node, mp_text_slice(&text))};
        for (uint32_t k = 0; k < w->node_count; k++)
            providers += mp_world_is_up(&w->nodes[k]) && is_provider(n, &w->nodes[k], f->module);
        mp_buf_clear(&found);
        enum mp_err err = mp_catalog_find(mp_node_catalog(n->node), &q, &found);
        if (err != MP_OK)
            mp_buf_clear(&found);
        if (found.size / sizeof(struct mp_catalog_provider) != providers) {
            if (is_told)
                log_providers(w, n, &found, providers, q.fun);
            is_kept = fails(w, is_told, "catalog", "who has which function is not known to node",
                            n->number);
            break;
        }
    }
    mp_buf_fini(&found);
    return is_kept;
}

static bool check_links(struct mp_world *w, const struct mp_world_node *n, bool is_told)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < n->conn_count; i++) {
        const struct mp_world_conn *c = &n->conns[i];
        if (c->kind != MP_WORLD_CONN_LINK)
            continue;
        const struct mp_world_end *other = &w->links[c->link].ends[1 - c->side];
        count++;
        if (!other->is_open)
            return fails(w, is_told, "links", "a link leads to nobody: node", n->number);
        for (uint32_t k = 0; k < i; k++)
            if (n->conns[k].kind == MP_WORLD_CONN_LINK &&
                w->links[n->conns[k].link].ends[1 - n->conns[k].side].node == other->node)
                return fails(w, is_told, "links", "two links lead to the same node: node",
                             n->number);
    }
    if (mp_node_link_count(n->node) > count)
        return fails(w, is_told, "links", "there are fewer links than it thinks: node", n->number);
    return true;
}

static bool are_digests_equal(struct mp_world *w, const struct mp_world_node *a,
                              const struct mp_world_node *b, bool is_told)
{
    uint64_t of_a[MP_SYNC_BUCKETS];
    uint64_t of_b[MP_SYNC_BUCKETS];
    mp_membership_digests(mp_node_membership(a->node), of_a);
    mp_membership_digests(mp_node_membership(b->node), of_b);
    if (memcmp(of_a, of_b, sizeof(of_a)) != 0)
        return fails(w, is_told, "members", "the digests differ, of node", b->number);
    mp_catalog_digests(mp_node_catalog(a->node), of_a);
    mp_catalog_digests(mp_node_catalog(b->node), of_b);
    if (memcmp(of_a, of_b, sizeof(of_a)) != 0)
        return fails(w, is_told, "catalog", "the digests differ, of node", b->number);
    return true;
}

bool mp_world_check_agreed(struct mp_world *w, bool is_told)
{
    const struct mp_world_node *first = NULL;
    uint32_t up = up_count(w);
    for (uint32_t i = 0; i < w->node_count; i++) {
        const struct mp_world_node *n = &w->nodes[i];
        if (!mp_world_is_up(n))
            continue;
        if (!first)
            first = n;
        if (!check_members(w, n, up, is_told) || !are_digests_equal(w, first, n, is_told) ||
            !mp_world_check_code(w, first, n, is_told) || !check_functions(w, n, is_told) ||
            !check_links(w, n, is_told))
            return false;
    }
    return true;
}
