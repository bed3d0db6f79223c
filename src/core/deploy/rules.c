/* What a new entry may be: the rules of versions, what a deploy expects, its stamp and its parent.
 * They hold for what this node knows; of two deploys that did not know each other the later one
 * counts, whatever they say. */
#include "src/base/assert.h"
#include "src/core/deploy/deploy_internal.h"
#include "src/wire/version.h"

#define SHOWN_DIGITS 8u /* of a hash, in versions and messages */

/* --- versions --- */

/* The version that a wish names, or the one of who names none. */
static struct mp_slice named_version(const struct mp_deploy_wish *w)
{
    return w->version.size != 0 ? w->version : mp_slice_str("0.0.0");
}

enum mp_err mp_deploy_version(const struct mp_deploy_wish *w, struct mp_text *room)
{
    struct mp_version v;
    struct mp_slice named = named_version(w);
    bool is_marked = w->is_forced || w->version.size == 0;
    size_t size = named.size + (is_marked ? 1 + SHOWN_DIGITS : 0);
    mp_assert(room->size == 0);
    mp_assert(w->hash.size == MP_UNIT_HASH_BYTES);
    if (mp_version_read(named, &v) != MP_OK || size > MP_VERSION_BYTES_MAX ||
        size >= room->capacity)
        return MP_EINVAL;
    mp_text_put_slice(room, named);
    if (is_marked) {
        mp_text_put(room, v.build.size != 0 ? "." : "+");
        mp_deploy_text_hex(room, w->hash, SHOWN_DIGITS);
    }
    return MP_OK;
}

/* --- whether a deploy is allowed --- */

struct refusal {
    const struct mp_deploy_wish *w;
    struct mp_fault *fault;
    struct mp_text *message;
    struct mp_text *hint;
};

static bool refuse(struct refusal *r, enum mp_code code, const char *reason)
{
    *r->fault = (struct mp_fault){.code = code,
                                  .reason = mp_slice_str(reason),
                                  .message = mp_text_slice(r->message),
                                  .hint = mp_text_slice(r->hint)};
    return false;
}

static bool refuse_version(struct refusal *r)
{
    mp_text_put_slice(r->message, r->w->module);
    mp_text_put(r->message, ": its version can be none: ");
    mp_text_put_slice(r->message, r->w->version);
    mp_text_put(r->hint, "versions look like 1.2.3 or 1.2.3-rc.1, in at most 64 bytes with the "
                         "digits of the hash that --force adds");
    return refuse(r, MP_CODE_INVALID_ARGUMENT, "BAD_VERSION");
}

/* The value of a hex digit, in either case; -1: it is none. */
static int digit_of(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool is_digits(struct mp_slice s)
{
    for (size_t i = 0; i < s.size; i++)
        if (digit_of(s.data[i]) < 0)
            return false;
    return s.size >= MP_DEPLOY_EXPECT_MIN && s.size <= 2 * MP_UNIT_HASH_BYTES;
}

static bool begins_with(struct mp_slice hash, struct mp_slice digits)
{
    for (size_t i = 0; i < digits.size; i++) {
        int half = i % 2 == 0 ? hash.data[i / 2] >> 4 : hash.data[i / 2] & 15;
        if (half != digit_of(digits.data[i]))
            return false;
    }
    return true;
}

/* `live` is what is live, or NULL. */
static bool is_expected(struct refusal *r, const struct mp_deploy_entry *live)
{
    struct mp_slice expect = r->w->expect;
    bool is_none = mp_slice_is(expect, "none");
    if (expect.size == 0 || (is_none && !live))
        return true;
    if (!is_none && !is_digits(expect)) {
        mp_text_put_slice(r->message, r->w->module);
        mp_text_put(r->message, ": not a hash that could be expected: ");
        mp_text_put_slice(r->message, expect);
        mp_text_put(r->hint, "--expect takes 8 to 64 hex digits of a hash, or none");
        return refuse(r, MP_CODE_INVALID_ARGUMENT, "BAD_OPTION");
    }
    if (live && !is_none && begins_with(live->hash, expect))
        return true;
    mp_text_put_slice(r->message, r->w->module);
    mp_text_put(r->message, ": expected ");
    mp_text_put_slice(r->message, is_none ? mp_slice_str("nothing") : expect);
    mp_text_put(r->message, " to be live, but ");
    if (live) {
        mp_text_put_slice(r->message, live->version);
        mp_text_put(r->message, " (");
        mp_deploy_text_hex(r->message, live->hash,
                           is_none || expect.size < SHOWN_DIGITS ? SHOWN_DIGITS : expect.size);
        mp_text_put(r->message, ") is");
    } else {
        mp_text_put(r->message, "nothing is");
    }
    mp_text_put(r->hint, "somebody else changed it: mpreg history ");
    mp_text_put_slice(r->hint, r->w->module);
    return refuse(r, MP_CODE_FAILED_PRECONDITION, "EXPECTATION_FAILED");
}

static bool has_room(const struct mp_deploy *d, struct refusal *r, const struct mp_deploy_module *m)
{
    if (!m && d->module_count == MP_MODULES_MAX) {
        mp_text_put_slice(r->message, r->w->module);
        mp_text_put(r->message, ": there are modules of ");
        mp_text_put_uint(r->message, MP_MODULES_MAX);
        mp_text_put(r->message, " names already, and more are not kept");
        return refuse(r, MP_CODE_RESOURCE_EXHAUSTED, "TOO_MANY_MODULES");
    }
    if (d->entry_count < MP_DEPLOY_ENTRIES_MAX)
        return true;
    mp_text_put_slice(r->message, r->w->module);
    mp_text_put(r->message, ": the history has ");
    mp_text_put_uint(r->message, MP_DEPLOY_ENTRIES_MAX);
    mp_text_put(r->message, " entries, and more are not kept");
    return refuse(r, MP_CODE_RESOURCE_EXHAUSTED, "HISTORY_FULL");
}

/* Whether two versions are the same for users: "1.2" and "1.2.0" are. */
static bool is_same(const struct mp_version *a, const struct mp_version *b)
{
    return mp_version_compare(a, b) == 0 && mp_slice_equal(a->build, b->build);
}

static bool is_unused(struct refusal *r, const struct mp_deploy_module *m, struct mp_slice named,
                      const struct mp_version *version)
{
    for (uint32_t i = m->count; i-- > 0;) {
        struct mp_deploy_entry e;
        struct mp_version other = {0};
        mp_deploy_entry_of(m->records[i], &e);
        if (e.action == MP_DEPLOY_UNDEPLOY || mp_slice_equal(e.hash, r->w->hash) ||
            mp_version_read(e.version, &other) != MP_OK || !is_same(&other, version))
            continue;
        mp_text_put_slice(r->message, r->w->module);
        mp_text_put(r->message, " ");
        mp_text_put_slice(r->message, named);
        mp_text_put(r->message, " was deployed with other content: ");
        mp_deploy_text_hex(r->message, e.hash, SHOWN_DIGITS);
        mp_text_put(r->message, ", and this is ");
        mp_deploy_text_hex(r->message, r->w->hash, SHOWN_DIGITS);
        mp_text_put(r->hint, "raise its _VERSION, or deploy it with --force");
        return refuse(r, MP_CODE_ALREADY_EXISTS, "VERSION_REUSED");
    }
    return true;
}

static bool is_no_lower(struct refusal *r, const struct mp_deploy_entry *live,
                        struct mp_slice named, const struct mp_version *version)
{
    struct mp_version other;
    enum mp_err err = mp_version_read(live->version, &other);
    mp_assert(err == MP_OK); /* entries are checked when they come */
    if (mp_version_compare(version, &other) >= 0)
        return true;
    mp_text_put_slice(r->message, r->w->module);
    mp_text_put(r->message, " ");
    mp_text_put_slice(r->message, named);
    mp_text_put(r->message, " is lower than ");
    mp_text_put_slice(r->message, live->version);
    mp_text_put(r->message, ", which is live");
    mp_text_put(r->hint, "raise its _VERSION, go back with mpreg rollback ");
    mp_text_put_slice(r->hint, r->w->module);
    mp_text_put(r->hint, ", or deploy it with --force");
    return refuse(r, MP_CODE_FAILED_PRECONDITION, "VERSION_LOWER");
}

bool mp_deploy_is_allowed(const struct mp_deploy *d, const struct mp_deploy_wish *w,
                          struct mp_fault *fault, struct mp_text *message, struct mp_text *hint)
{
    struct refusal r = {.w = w, .fault = fault, .message = message, .hint = hint};
    char digits[MP_VERSION_BYTES_MAX + 1];
    struct mp_text named;
    struct mp_version version = {0};
    struct mp_deploy_entry entry;
    const struct mp_deploy_module *m = mp_deploy_module_of(d, w->module, w->is_pipeline);
    const struct mp_deploy_entry *live = NULL;
    mp_text_init(&named, digits, sizeof(digits));
    if (mp_deploy_version(w, &named) != MP_OK ||
        mp_version_read(mp_text_slice(&named), &version) != MP_OK)
        return refuse_version(&r);
    if (m && m->live && !m->live->is_undeploy) {
        mp_deploy_entry_of(m->live, &entry);
        live = &entry;
    }
    if (!is_expected(&r, live) || !has_room(d, &r, m))
        return false;
    bool is_same_content = live && mp_slice_equal(live->hash, w->hash);
    if (!m || w->is_forced || is_same_content)
        return true;
    return is_unused(&r, m, mp_text_slice(&named), &version) &&
           (!live || is_no_lower(&r, live, mp_text_slice(&named), &version));
}

/* --- stamps --- */

uint64_t mp_deploy_next_epoch(const struct mp_deploy *d, int64_t wall_ms)
{
    uint64_t wall = wall_ms > 0 ? (uint64_t)wall_ms * 1024 : 0;
    return wall > d->epoch_max ? wall : d->epoch_max + 1;
}

void mp_deploy_set_parent(const struct mp_deploy *d, struct mp_deploy_entry *e)
{
    const struct mp_deploy_module *m = mp_deploy_module_of(d, e->module, e->is_pipeline);
    e->parent = (struct mp_deploy_stamp){0};
    e->previous = mp_slice_of(NULL, 0);
    if (!m)
        return;
    e->parent = mp_deploy_stamp_of(m->records[m->count - 1]);
    if (m->live) {
        struct mp_deploy_entry live;
        mp_deploy_entry_of(m->live, &live);
        e->previous = live.hash;
    }
}
