/* An entry as an array of 18 values, always in the shortest form: so that one change is the same
 * bytes wherever it is, and sums over bytes tell what two nodes know.
 *
 *   module, epoch, node, action, is a pipeline, is forced, version, hash (bin), unit (bin), place,
 *   parent's epoch and node, previous (bin), origin's epoch and node, by, scope, nodes [name…]
 *
 * Numbers stand for action and scope; what there is not is 0 or empty. */
#include "src/base/assert.h"
#include "src/core/deploy/deploy_internal.h"
#include "src/wire/msgpack.h"
#include "src/wire/version.h"

#define PARTS     18u
#define EPOCH_MAX (1ull << 53) /* exact in a double */

static_assert(MP_DEPLOY_ENTRY_BYTES_MAX <= UINT16_MAX, "a record keeps its size in 16 bits");
static_assert(MP_DEPLOY_NODES_MAX * (MP_NODE_NAME_BYTES_MAX + 2) + MP_MODULE_NAME_BYTES_MAX +
                      MP_DEPLOY_BY_BYTES_MAX + MP_VERSION_BYTES_MAX + 3 * MP_NODE_NAME_BYTES_MAX +
                      3 * MP_UNIT_HASH_BYTES + 128 <
                  MP_DEPLOY_ENTRY_BYTES_MAX,
              "the largest entry that its parts allow is no larger than an entry may be");

/* --- values in their shortest form --- */

static size_t bytes_of_uint(uint64_t v)
{
    if (v <= 0x7f)
        return 1;
    if (v <= UINT8_MAX)
        return 2;
    if (v <= UINT16_MAX)
        return 3;
    return v <= UINT32_MAX ? 5 : 9;
}

/* Of a length of which up to `fixed` fit into the first byte, and up to 255 into one more if there
 * is such a form. */
static size_t bytes_of_length(size_t length, size_t fixed, bool has_short)
{
    if (length <= fixed)
        return 1;
    if (has_short && length <= UINT8_MAX)
        return 2;
    return length <= UINT16_MAX ? 3 : 5;
}

static bool is_shortest(uint8_t marker, size_t size, const struct mp_mp_token *t)
{
    switch (t->type) {
    case MP_MP_UINT:
        return marker < 0xd0 && size == bytes_of_uint(t->u); /* 0xd0 on are signed */
    case MP_MP_STR:
        return size == bytes_of_length(t->bytes.size, 31, true) + t->bytes.size;
    case MP_MP_BIN:
        return marker == (t->bytes.size <= UINT8_MAX ? 0xc4 : 0xc5) && t->bytes.size <= UINT16_MAX;
    case MP_MP_ARRAY:
        return size == bytes_of_length(t->count, 15, false);
    default:
        return true;
    }
}

static bool take(struct mp_mp_reader *r, enum mp_mp_type type, struct mp_mp_token *t)
{
    const uint8_t *start = r->at;
    return mp_mp_next(r, t) == MP_OK && t->type == type &&
           is_shortest(*start, (size_t)(r->at - start), t);
}

static bool take_uint(struct mp_mp_reader *r, uint64_t *v)
{
    struct mp_mp_token t;
    if (!take(r, MP_MP_UINT, &t))
        return false;
    *v = t.u;
    return true;
}

static bool take_number(struct mp_mp_reader *r, uint32_t *v)
{
    uint64_t wide;
    if (!take_uint(r, &wide) || wide > UINT32_MAX)
        return false;
    *v = (uint32_t)wide;
    return true;
}

static bool take_bool(struct mp_mp_reader *r, bool *v)
{
    struct mp_mp_token t;
    if (!take(r, MP_MP_BOOL, &t))
        return false;
    *v = t.b;
    return true;
}

static bool take_bytes(struct mp_mp_reader *r, enum mp_mp_type type, struct mp_slice *v)
{
    struct mp_mp_token t;
    if (!take(r, type, &t))
        return false;
    *v = t.bytes;
    return true;
}

static bool take_stamp(struct mp_mp_reader *r, struct mp_deploy_stamp *s)
{
    return take_uint(r, &s->epoch) && take_bytes(r, MP_MP_STR, &s->node);
}

/* --- checks --- */

static bool is_stamp(const struct mp_deploy_stamp *s)
{
    return s->epoch != 0 && s->epoch <= EPOCH_MAX && mp_slice_is_name(s->node);
}

/* One of an earlier entry, or none. */
static bool is_earlier(const struct mp_deploy_stamp *s, const struct mp_deploy_entry *e)
{
    if (s->epoch == 0)
        return s->node.size == 0;
    return is_stamp(s) && mp_deploy_compare(s, &e->stamp) < 0;
}

static const char *check_content(const struct mp_deploy_entry *e)
{
    struct mp_version version;
    if (e->action == MP_DEPLOY_UNDEPLOY) {
        bool is_empty = e->version.size == 0 && e->hash.size == 0 && e->unit.size == 0;
        return is_empty && e->place == 0 ? NULL : "an undeploy has content";
    }
    if (e->version.size > MP_VERSION_BYTES_MAX || mp_version_read(e->version, &version) != MP_OK)
        return "an entry's version is none";
    if (e->hash.size != MP_UNIT_HASH_BYTES || e->unit.size != MP_UNIT_HASH_BYTES)
        return "an entry's hashes are not of 32 bytes";
    return e->place < MP_UNIT_MODULES_MAX ? NULL : "an entry's place is in no unit";
}

static const char *check_relatives(const struct mp_deploy_entry *e)
{
    if (!is_earlier(&e->parent, e))
        return "an entry's parent is not earlier";
    if (e->previous.size != 0 && (e->previous.size != MP_UNIT_HASH_BYTES || e->parent.epoch == 0))
        return "what an entry replaces is no hash";
    if (!is_earlier(&e->origin, e) || (e->origin.epoch != 0) != (e->action == MP_DEPLOY_ROLLBACK))
        return "an entry's origin does not suit it";
    return NULL;
}

static const char *check_scope(const struct mp_deploy_entry *e)
{
    if (e->scope == MP_DEPLOY_EVERYWHERE)
        return e->nodes.size == 0 ? NULL : "an entry for all nodes names some";
    if (e->nodes.size == 0)
        return "an entry for some nodes names none";
    struct mp_mp_token t;
    struct mp_mp_reader r = mp_mp_reader_of(e->nodes);
    if (!take(&r, MP_MP_ARRAY, &t) || t.count == 0 || t.count > MP_DEPLOY_NODES_MAX)
        return "an entry's nodes are no list of 1 to 64";
    for (uint32_t i = 0, count = t.count; i < count; i++)
        if (!take(&r, MP_MP_STR, &t) || !mp_slice_is_name(t.bytes))
            return "an entry's nodes have no acceptable names";
    return mp_mp_is_at_end(&r) ? NULL : "an entry's nodes are no list of 1 to 64";
}

static const char *check(const struct mp_deploy_entry *e)
{
    if (e->module.size > MP_MODULE_NAME_BYTES_MAX || !mp_slice_is_dotted_name(e->module))
        return "an entry's module has no acceptable name";
    if (!is_stamp(&e->stamp))
        return "an entry has no stamp";
    if (e->by.size > MP_DEPLOY_BY_BYTES_MAX || !mp_slice_is_utf8(e->by))
        return "an entry's maker is no short text";
    const char *why = check_content(e);
    if (!why)
        why = check_relatives(e);
    return why ? why : check_scope(e);
}

/* --- reading --- */

/* All but the nodes, in order. */
static bool take_parts(struct mp_mp_reader *r, struct mp_deploy_entry *e)
{
    uint32_t action;
    uint32_t scope;
    bool is_good = take_bytes(r, MP_MP_STR, &e->module) && take_stamp(r, &e->stamp) &&
                   take_number(r, &action) && take_bool(r, &e->is_pipeline) &&
                   take_bool(r, &e->is_forced) && take_bytes(r, MP_MP_STR, &e->version) &&
                   take_bytes(r, MP_MP_BIN, &e->hash) && take_bytes(r, MP_MP_BIN, &e->unit) &&
                   take_number(r, &e->place) && take_stamp(r, &e->parent) &&
                   take_bytes(r, MP_MP_BIN, &e->previous) && take_stamp(r, &e->origin) &&
                   take_bytes(r, MP_MP_STR, &e->by) && take_number(r, &scope);
    if (!is_good || action > MP_DEPLOY_UNDEPLOY || scope > MP_DEPLOY_SKIP)
        return false;
    e->action = (enum mp_deploy_action)action;
    e->scope = (enum mp_deploy_scope)scope;
    return true;
}

const char *mp_deploy_check_entry(struct mp_slice bytes, struct mp_deploy_entry *e)
{
    struct mp_mp_token t;
    struct mp_deploy_entry read = {0};
    struct mp_mp_reader r = mp_mp_reader_of(bytes);
    if (bytes.size == 0 || bytes.size > MP_DEPLOY_ENTRY_BYTES_MAX)
        return "an entry is too large";
    if (!take(&r, MP_MP_ARRAY, &t) || t.count != PARTS || !take_parts(&r, &read) ||
        mp_mp_take(&r, &read.nodes) != MP_OK || !mp_mp_is_at_end(&r))
        return "an entry is malformed";
    if (read.scope == MP_DEPLOY_EVERYWHERE && read.nodes.size == 1 && read.nodes.data[0] == 0x90)
        read.nodes = mp_slice_of(NULL, 0);
    const char *why = check(&read);
    if (!why)
        *e = read;
    return why;
}

enum mp_err mp_deploy_read_entry(struct mp_slice bytes, struct mp_deploy_entry *e)
{
    return mp_deploy_check_entry(bytes, e) ? MP_ECORRUPT : MP_OK;
}

void mp_deploy_entry_of(const struct mp_deploy_record *r, struct mp_deploy_entry *e)
{
    const char *why = mp_deploy_check_entry(mp_slice_of(r->bytes, r->size), e);
    mp_assert(!why); /* or it would not have been kept */
}

/* --- writing --- */

static enum mp_err put_stamp(struct mp_buf *out, const struct mp_deploy_stamp *s)
{
    MP_TRY(mp_mp_put_uint(out, s->epoch));
    return mp_mp_put_str(out, s->node);
}

static enum mp_err put_entry(struct mp_buf *out, const struct mp_deploy_entry *e)
{
    MP_TRY(mp_mp_put_array(out, PARTS));
    MP_TRY(mp_mp_put_str(out, e->module));
    MP_TRY(put_stamp(out, &e->stamp));
    MP_TRY(mp_mp_put_uint(out, e->action));
    MP_TRY(mp_mp_put_bool(out, e->is_pipeline));
    MP_TRY(mp_mp_put_bool(out, e->is_forced));
    MP_TRY(mp_mp_put_str(out, e->version));
    MP_TRY(mp_mp_put_bin(out, e->hash));
    MP_TRY(mp_mp_put_bin(out, e->unit));
    MP_TRY(mp_mp_put_uint(out, e->place));
    MP_TRY(put_stamp(out, &e->parent));
    MP_TRY(mp_mp_put_bin(out, e->previous));
    MP_TRY(put_stamp(out, &e->origin));
    MP_TRY(mp_mp_put_str(out, e->by));
    MP_TRY(mp_mp_put_uint(out, e->scope));
    if (e->scope == MP_DEPLOY_EVERYWHERE)
        return mp_mp_put_array(out, 0);
    return mp_mp_put_raw(out, e->nodes);
}

enum mp_err mp_deploy_put_entry(struct mp_buf *out, const struct mp_deploy_entry *e)
{
    size_t before = out->size;
    if (e->action > MP_DEPLOY_UNDEPLOY || e->scope > MP_DEPLOY_SKIP || check(e))
        return MP_EINVAL;
    enum mp_err err = put_entry(out, e);
    if (err != MP_OK)
        out->size = before;
    return err;
}

/* --- stamps --- */

int mp_deploy_compare(const struct mp_deploy_stamp *a, const struct mp_deploy_stamp *b)
{
    if (a->epoch != b->epoch)
        return a->epoch < b->epoch ? -1 : 1;
    return mp_slice_compare(a->node, b->node);
}

struct mp_deploy_stamp mp_deploy_stamp_of(const struct mp_deploy_record *r)
{
    return (struct mp_deploy_stamp){.epoch = r->epoch,
                                    .node = mp_slice_of(r->bytes + r->node_at, r->node_size)};
}

/* --- scopes --- */

bool mp_deploy_is_in_scope(const struct mp_deploy_entry *e, struct mp_slice node)
{
    if (e->scope == MP_DEPLOY_EVERYWHERE || e->nodes.size == 0)
        return e->scope != MP_DEPLOY_ONLY;
    struct mp_mp_token t;
    struct mp_mp_reader r = mp_mp_reader_of(e->nodes);
    bool is_named = false;
    if (mp_mp_next(&r, &t) == MP_OK && t.type == MP_MP_ARRAY)
        while (!is_named && !mp_mp_is_at_end(&r) && mp_mp_next(&r, &t) == MP_OK)
            is_named = t.type == MP_MP_STR && mp_slice_equal(t.bytes, node);
    return is_named == (e->scope == MP_DEPLOY_ONLY);
}

/* --- hashes as text --- */

static char digit_at(struct mp_slice hash, size_t i)
{
    static const char digits[] = "0123456789abcdef";
    return digits[i % 2 == 0 ? hash.data[i / 2] >> 4 : hash.data[i / 2] & 15];
}

enum mp_err mp_deploy_put_hex(struct mp_buf *out, struct mp_slice hash)
{
    char digits[2 * MP_UNIT_HASH_BYTES];
    mp_assert(hash.size == MP_UNIT_HASH_BYTES);
    for (size_t i = 0; i < sizeof(digits); i++)
        digits[i] = digit_at(hash, i);
    return mp_mp_put_str(out, mp_slice_of(digits, sizeof(digits)));
}

void mp_deploy_text_hex(struct mp_text *out, struct mp_slice hash, size_t digits)
{
    mp_assert(digits <= 2 * hash.size);
    for (size_t i = 0; i < digits; i++) {
        char digit = digit_at(hash, i);
        mp_text_put_slice(out, mp_slice_of(&digit, 1));
    }
}
