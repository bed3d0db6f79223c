/* Bytes of another node at a history that has some entries: the first byte says how often memory
 * runs out, the rest is one entry, a list of entries and a summary in turn. An entry that is read
 * is written as the same bytes. Whatever it is, what the history says afterwards is well-formed, is
 * taken by another one without a complaint, and all memory comes back. */
#include <stdint.h>
#include <stdlib.h>

#include "spec/support/alloc.h"
#include "src/core/deploy/deploy.h"
#include "src/wire/msgpack.h"

#define WALL_MS 1700000000000

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool is_so)
{
    if (!is_so)
        abort();
}

static struct mp_deploy *open_history(struct mp_alloc *a, const char *name)
{
    struct mp_deploy *d;
    const struct mp_deploy_config cfg = {.node = mp_slice_str(name)};
    must(mp_deploy_new(&d, &cfg, a) == MP_OK);
    return d;
}

static struct mp_deploy_effects take(struct mp_deploy *d, struct mp_slice bytes)
{
    struct mp_deploy_effects out;
    const struct mp_deploy_event ev = {
        .kind = MP_DEPLOY_ENTRIES, .wall_ms = WALL_MS, .entries = bytes};
    enum mp_err err = mp_deploy_step(d, &ev, &out);
    must(err == MP_OK || err == MP_ENOMEM);
    must(out.new_count != 0 ? mp_mp_check(out.fresh) == MP_OK : out.fresh.size == 0);
    return out;
}

/* A deploy, a trial and an undeploy of modules a and b. */
static void begin(struct mp_deploy *d, struct mp_buf *b)
{
    static const uint8_t hash[32] = {1};
    mp_buf_clear(b);
    must(mp_mp_put_array(b, 3) == MP_OK);
    for (uint32_t i = 0; i < 3; i++) {
        struct mp_deploy_entry e = {.module = mp_slice_str(i == 2 ? "b" : "a"),
                                    .stamp = {1000 + i, mp_slice_str("n2")},
                                    .action = i == 2 ? MP_DEPLOY_UNDEPLOY : MP_DEPLOY_DEPLOY,
                                    .scope = i == 1 ? MP_DEPLOY_ONLY : MP_DEPLOY_EVERYWHERE};
        if (i != 2) {
            e.version = mp_slice_str("1.0.0");
            e.hash = e.unit = mp_slice_of(hash, sizeof(hash));
        }
        if (i == 1)
            e.nodes = mp_slice_of("\x91\xa2n3", 4);
        must(mp_deploy_put_entry(b, &e) == MP_OK);
    }
    must(take(d, mp_buf_slice(b)).new_count == 3);
}

static void read_entry(struct mp_slice bytes, struct mp_buf *b)
{
    struct mp_deploy_entry e;
    if (mp_deploy_read_entry(bytes, &e) != MP_OK)
        return;
    mp_buf_clear(b);
    must(mp_deploy_put_entry(b, &e) == MP_OK);
    must(mp_slice_equal(mp_buf_slice(b), bytes));
    (void)mp_deploy_is_in_scope(&e, mp_slice_str("n1"));
}

static void ask(const struct mp_deploy *d, struct mp_slice module, struct mp_buf *b)
{
    char texts[2][512];
    struct mp_text message;
    struct mp_text hint;
    struct mp_fault fault;
    struct mp_deploy_entry e;
    struct mp_deploy_entry partner;
    static const uint8_t hash[32] = {2};
    const struct mp_deploy_wish w = {.module = module,
                                     .version = mp_slice_str("1.0.0"),
                                     .hash = mp_slice_of(hash, sizeof(hash)),
                                     .unit = mp_slice_of(hash, sizeof(hash))};
    mp_buf_clear(b);
    must(mp_deploy_put_history(d, module, b) == MP_OK && mp_mp_check(mp_buf_slice(b)) == MP_OK);
    for (int i = 0; i < 2; i++) {
        mp_text_init(&message, texts[0], sizeof(texts[0]));
        mp_text_init(&hint, texts[1], sizeof(texts[1]));
        if (mp_deploy_rollback_target(d, module, mp_slice_str(i == 0 ? "" : "^1"), &e, &fault,
                                      &message, &hint))
            (void)mp_deploy_rollback_partner(d, &e, &partner);
    }
    mp_text_init(&message, texts[0], sizeof(texts[0]));
    mp_text_init(&hint, texts[1], sizeof(texts[1]));
    (void)mp_deploy_is_allowed(d, &w, &fault, &message, &hint);
    (void)mp_deploy_is_overtaken_lately(d, module, true, WALL_MS);
}

/* What it says is good for another one, which then knows the same. */
static void check(const struct mp_deploy *d, struct mp_alloc *a, struct mp_buf *b)
{
    struct mp_deploy_entry e;
    bool differs;
    struct mp_deploy *other = open_history(a, "n6");
    mp_buf_clear(b);
    must(mp_deploy_put_differences(d, mp_slice_str("\x90"), SIZE_MAX, b, &differs) == MP_OK);
    must(!differs && !take(other, mp_buf_slice(b)).dropped);
    must(mp_deploy_digest(d) == mp_deploy_digest(other));
    mp_buf_clear(b);
    must(mp_deploy_put_summary(other, b) == MP_OK);
    must(mp_deploy_put_differences(d, mp_buf_slice(b), 0, b, &differs) == MP_ENOENT && !differs);
    mp_deploy_free(other);
    for (uint32_t i = 0; mp_deploy_live_at(d, i, &e); i++) {
        must(e.action != MP_DEPLOY_UNDEPLOY);
        ask(d, e.module, b);
    }
    ask(d, mp_slice_str("b"), b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct spec_alloc counted = {.fail_at = SPEC_NEVER};
    struct mp_alloc alloc = spec_alloc_of(&counted);
    struct mp_buf b;
    bool differs;
    if (size < 1)
        return 0;
    struct mp_slice bytes = mp_slice_of(data + 1, size - 1);
    struct mp_deploy *d = open_history(&alloc, "n1");
    mp_buf_init(&b, &alloc, 0);
    begin(d, &b);
    read_entry(bytes, &b);
    mp_buf_clear(&b);
    (void)!mp_deploy_put_differences(d, bytes, 100, &b, &differs);
    if ((data[0] & 1) != 0)
        counted.fail_at = counted.count + data[0] / 2;
    (void)take(d, bytes);
    counted.fail_at = SPEC_NEVER;
    (void)take(d, bytes);
    check(d, &alloc, &b);
    mp_deploy_free(d);
    mp_buf_fini(&b);
    must(counted.live_bytes == 0);
    return 0;
}
