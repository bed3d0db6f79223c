/* Where a rollback leads. What counts are the entries in whose scope this node is, in their order.
 * Each but an UNDEPLOY stands for a DEPLOY: itself, or a ROLLBACK's origin. A rollback goes from
 * the DEPLOY that is live now to that for which the entry before it stood: so a second one goes
 * further back, and what was rolled back from is not met again.
 *
 * A module and a pipeline may have one name. Then it is the one that was changed last that goes
 * back, a module if both were; and the other one goes with it to what was deployed together with
 * the target. So what came as one unit goes as one. */
#include "src/base/assert.h"
#include "src/core/deploy/deploy_internal.h"
#include "src/wire/version.h"

struct search {
    const struct mp_deploy_module *module;
    struct mp_slice name;
    struct mp_slice version; /* a constraint, or empty */
    struct mp_fault *fault;
    struct mp_text *message;
    struct mp_text *hint;
};

/* Replaces a ROLLBACK by the DEPLOY for which it stands. One that has not come here is made up: the
 * ROLLBACK has the same content. What went before it is not known. */
static void resolve(const struct mp_deploy_module *m, struct mp_deploy_entry *e)
{
    if (e->action != MP_DEPLOY_ROLLBACK)
        return;
    const struct mp_deploy_record *r = mp_deploy_record_at(m, &e->origin);
    if (r && !r->is_undeploy) {
        struct mp_deploy_entry origin;
        mp_deploy_entry_of(r, &origin);
        if (origin.action == MP_DEPLOY_DEPLOY) {
            *e = origin;
            return;
        }
    }
    e->action = MP_DEPLOY_DEPLOY;
    e->stamp = e->origin;
    e->origin = (struct mp_deploy_stamp){0};
    e->parent = (struct mp_deploy_stamp){0};
    e->previous = (struct mp_slice){0};
}

static bool fail(struct search *s, enum mp_code code, const char *reason)
{
    *s->fault = (struct mp_fault){.code = code,
                                  .reason = mp_slice_str(reason),
                                  .message = mp_text_slice(s->message),
                                  .hint = mp_text_slice(s->hint)};
    return false;
}

/* --- one back --- */

/* The content that was live here before the records from `end` on, other than that of `live`, which
 * may be NULL. */
static bool find_before(const struct search *s, uint32_t end, const struct mp_deploy_entry *live,
                        struct mp_deploy_entry *target)
{
    for (uint32_t i = end; i-- > 0;) {
        const struct mp_deploy_record *r = s->module->records[i];
        if (!r->is_here || r->is_undeploy)
            continue;
        struct mp_deploy_entry e;
        mp_deploy_entry_of(r, &e);
        resolve(s->module, &e);
        if (live && mp_slice_equal(e.unit, live->unit) && e.place == live->place)
            continue;
        *target = e;
        return true;
    }
    return false;
}

static bool go_back(struct search *s, const struct mp_deploy_entry *live, uint32_t end,
                    struct mp_deploy_entry *target)
{
    if (find_before(s, end, live, target))
        return true;
    mp_text_put_slice(s->message, s->name);
    if (live) {
        mp_text_put(s->message, " ");
        mp_text_put_slice(s->message, live->version);
        mp_text_put(s->message, " is the first that was deployed here");
    } else {
        mp_text_put(s->message, ": nothing of it was ever live here");
    }
    mp_text_put(s->hint, "what there was: mpreg history ");
    mp_text_put_slice(s->hint, s->name);
    return fail(s, MP_CODE_FAILED_PRECONDITION, "NO_PREVIOUS");
}

/* --- to a version --- */

/* Whether a record is a DEPLOY to which one may go back. */
static bool is_candidate(const struct mp_deploy_record *r, const struct mp_deploy_entry *live,
                         struct mp_deploy_entry *e)
{
    if (!r->is_here || r->is_undeploy)
        return false;
    mp_deploy_entry_of(r, e);
    return e->action == MP_DEPLOY_DEPLOY &&
           (!live || !mp_slice_equal(e->unit, live->unit) || e->place != live->place);
}

static void list_versions(struct search *s, const struct mp_deploy_entry *live)
{
    struct mp_deploy_entry e;
    uint32_t count = 0;
    for (uint32_t i = s->module->count; i-- > 0;) {
        if (!is_candidate(s->module->records[i], live, &e))
            continue;
        if (count++ >= MP_DEPLOY_SHOWN_MAX)
            continue;
        mp_text_put(s->message, count == 1 ? "; there are: " : ", ");
        mp_text_put_slice(s->message, e.version);
    }
    if (count > MP_DEPLOY_SHOWN_MAX) {
        mp_text_put(s->message, " and ");
        mp_text_put_uint(s->message, count - MP_DEPLOY_SHOWN_MAX);
        mp_text_put(s->message, " more");
    }
}

static bool go_to_version(struct search *s, const struct mp_deploy_entry *live,
                          struct mp_deploy_entry *target)
{
    struct mp_deploy_entry e;
    struct mp_version version = {0};
    if (!mp_version_constraint_is_valid(s->version)) {
        mp_text_put(s->message, "not a version constraint: ");
        mp_text_put_slice(s->message, s->version);
        mp_text_put(s->hint, "parts such as =1.2.3 >=1.0 <2 ^1.2 ~1.2.3, joined by commas");
        return fail(s, MP_CODE_INVALID_ARGUMENT, "BAD_OPTION");
    }
    for (uint32_t i = s->module->count; i-- > 0;)
        if (is_candidate(s->module->records[i], live, &e) &&
            mp_version_read(e.version, &version) == MP_OK &&
            mp_version_matches(s->version, &version)) {
            *target = e;
            return true;
        }
    mp_text_put(s->message, "no deploy of ");
    mp_text_put_slice(s->message, s->name);
    mp_text_put(s->message, " to go back to matches ");
    mp_text_put_slice(s->message, s->version);
    if (live) {
        mp_text_put(s->message, "; ");
        mp_text_put_slice(s->message, live->version);
        mp_text_put(s->message, " is live");
    }
    list_versions(s, live);
    return fail(s, MP_CODE_FAILED_PRECONDITION, "NO_VERSION");
}

/* --- no such module --- */

/* The name nearest to one that is not there, or an empty one; the first of those that are as near.
 */
static struct mp_slice nearest(const struct mp_deploy *d, struct mp_slice name)
{
    unsigned best = name.size < 6 ? 3 : 4;
    struct mp_slice found = {0};
    for (uint32_t i = 0; i < d->module_count; i++) {
        const struct mp_deploy_module *m = &d->modules[d->order[i]];
        unsigned distance = m->live ? mp_slice_distance(m->name, name) : best;
        if (distance < best) {
            best = distance;
            found = m->name;
        }
    }
    return found;
}

static bool fail_unknown(const struct mp_deploy *d, struct search *s)
{
    struct mp_slice near = nearest(d, s->name);
    mp_text_put(s->message, "no module or pipeline ");
    mp_text_put_slice(s->message, s->name);
    mp_text_put(s->message, " was ever deployed here");
    if (near.size != 0) {
        mp_text_put(s->hint, "did you mean ");
        mp_text_put_slice(s->hint, near);
        mp_text_put(s->hint, "?");
    } else {
        mp_text_put(s->hint, "mpreg modules lists what is deployed");
    }
    return fail(s, MP_CODE_NOT_FOUND, "UNKNOWN_MODULE");
}

/* --- modules and pipelines --- */

static bool find_target(struct search *s, struct mp_deploy_entry *target)
{
    struct mp_deploy_entry entry;
    mp_deploy_entry_of(s->module->live, &entry);
    resolve(s->module, &entry);
    const struct mp_deploy_entry *live = s->module->live->is_undeploy ? NULL : &entry;
    if (s->version.size != 0)
        return go_to_version(s, live, target);
    return go_back(s, live, mp_deploy_place_of(s->module, &entry.stamp), target);
}

/* The module or pipeline of a name of which anything was ever live here, or NULL. */
static const struct mp_deploy_module *known(const struct mp_deploy *d, struct mp_slice name,
                                            bool is_pipeline)
{
    const struct mp_deploy_module *m = mp_deploy_module_of(d, name, is_pipeline);
    return m && m->live ? m : NULL;
}

static bool was_changed_before(const struct mp_deploy_module *a, const struct mp_deploy_module *b)
{
    struct mp_deploy_stamp stamp = mp_deploy_stamp_of(a->live);
    struct mp_deploy_stamp other = mp_deploy_stamp_of(b->live);
    return mp_deploy_compare(&stamp, &other) < 0;
}

bool mp_deploy_rollback_target(const struct mp_deploy *d, struct mp_slice name,
                               struct mp_slice version, struct mp_deploy_entry *target,
                               struct mp_fault *fault, struct mp_text *message,
                               struct mp_text *hint)
{
    const struct mp_deploy_module *first = known(d, name, false);
    const struct mp_deploy_module *second = known(d, name, true);
    struct search s = {
        .name = name, .version = version, .fault = fault, .message = message, .hint = hint};
    if (!first || (second && was_changed_before(first, second))) {
        const struct mp_deploy_module *swapped = first;
        first = second;
        second = swapped;
    }
    if (!first)
        return fail_unknown(d, &s);
    s.module = first;
    if (find_target(&s, target))
        return true;
    if (!second)
        return false;
    /* What is said is what was said of the first. */
    char ignored[1];
    struct mp_text none;
    struct mp_fault other;
    mp_text_init(&none, ignored, sizeof(ignored));
    s = (struct search){.module = second,
                        .name = name,
                        .version = version,
                        .fault = &other,
                        .message = &none,
                        .hint = &none};
    return find_target(&s, target);
}

bool mp_deploy_rollback_partner(const struct mp_deploy *d, const struct mp_deploy_entry *target,
                                struct mp_deploy_entry *partner)
{
    const struct mp_deploy_module *m = known(d, target->module, !target->is_pipeline);
    const struct mp_deploy_record *r = m ? mp_deploy_record_at(m, &target->stamp) : NULL;
    struct mp_deploy_entry live;
    if (!r || !r->is_here || r->is_undeploy)
        return false;
    mp_deploy_entry_of(m->live, &live);
    mp_deploy_entry_of(r, partner);
    return partner->action == MP_DEPLOY_DEPLOY && mp_slice_equal(partner->unit, target->unit) &&
           (m->live->is_undeploy || !mp_slice_equal(live.unit, partner->unit) ||
            live.place != partner->place);
}
