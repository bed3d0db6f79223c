/* Bytes of another node at a catalog that knows a few: the first byte says how often memory runs
 * out and whether nodes die in between, the rest is ENTRIES, news and a request in turn. Whatever
 * it is, what the catalog says afterwards is well-formed, is taken by another catalog without a
 * complaint, and all memory comes back. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "spec/support/alloc.h"
#include "src/core/catalog/catalog.h"
#include "src/wire/msgpack.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool is_so)
{
    if (!is_so)
        abort();
}

static bool open_catalog(struct mp_catalog *c, struct mp_alloc *alloc, const char *name)
{
    static const struct mp_slice resources[] = {{(const uint8_t *)"gpu", 3}};
    const struct mp_catalog_config cfg = {.node = mp_slice_str(name),
                                          .cluster = mp_slice_str("default"),
                                          .resources = resources,
                                          .resource_count = 1,
                                          .workers = 2,
                                          .version = mp_slice_str("0.1.0"),
                                          .generation = 1};
    struct mp_catalog_effects out;
    struct mp_catalog_event ev = {.kind = MP_CATALOG_NODE};
    if (mp_catalog_init(c, &cfg, alloc, 1) != MP_OK)
        return false;
    for (uint32_t i = 1; i < 5; i++) {
        char other[3] = {'n', (char)('1' + i), '\0'};
        ev.node.number = i;
        ev.node.name = mp_slice_str(other);
        ev.node.state = i == 4 ? MP_CATALOG_NODE_DEAD : MP_CATALOG_NODE_LIVE;
        if (mp_catalog_step(c, 1, &ev, &out) != MP_OK) {
            mp_catalog_fini(c);
            return false;
        }
    }
    return true;
}

static void take(struct mp_catalog *c, struct mp_slice bytes, bool must_be_good)
{
    struct mp_catalog_effects out;
    const struct mp_catalog_event ev = {.kind = MP_CATALOG_ENTRIES, .entries = {bytes}};
    enum mp_err err = mp_catalog_step(c, 2, &ev, &out);
    must(err == MP_OK || err == MP_ENOMEM);
    must(out.count <= MP_CATALOG_EFFECTS_MAX);
    for (uint32_t i = 0; must_be_good && i < out.count; i++)
        must(out.items[i].kind != MP_CATALOG_DROPPED);
}

static void ask(struct mp_catalog *c, struct mp_slice fun)
{
    char texts[2][512];
    struct mp_text message;
    struct mp_text hint;
    struct mp_fault fault;
    const struct mp_slice needs[] = {mp_slice_str("gpu"), mp_slice_str("ds1")};
    struct mp_catalog_query q = {.fun = fun, .needs = needs};
    for (q.needs_count = 0; q.needs_count <= 2; q.needs_count++) {
        mp_text_init(&message, texts[0], sizeof(texts[0]));
        mp_text_init(&hint, texts[1], sizeof(texts[1]));
        mp_catalog_explain(c, 3, &q, &fault, &message, &hint);
        must(mp_slice_is_utf8(fault.message));
    }
}

/* What it says is good for another one, and news to itself no more. */
static void check(struct mp_catalog *c, struct mp_buf *b)
{
    struct spec_alloc counted = {.fail_at = SPEC_NEVER};
    struct mp_alloc alloc = spec_alloc_of(&counted);
    struct mp_catalog other;
    uint64_t before[MP_CATALOG_BUCKETS];
    uint64_t after[MP_CATALOG_BUCKETS];
    mp_buf_clear(b);
    must(mp_catalog_put_entries(c, UINT64_MAX, b) == MP_OK);
    mp_catalog_digests(c, before);
    take(c, mp_buf_slice(b), true);
    mp_catalog_digests(c, after);
    must(memcmp(before, after, sizeof(before)) == 0);
    must(open_catalog(&other, &alloc, "n6"));
    take(&other, mp_buf_slice(b), true);
    mp_catalog_fini(&other);
    must(counted.live_bytes == 0);
    mp_buf_clear(b);
    must(mp_catalog_put_functions(c, b) == MP_OK && mp_mp_check(mp_buf_slice(b)) == MP_OK);
    mp_buf_clear(b);
    must(mp_catalog_put_modules(c, b) == MP_OK && mp_mp_check(mp_buf_slice(b)) == MP_OK);
    for (uint32_t i = 0; i < c->function_count && i < 8; i++)
        ask(c, c->functions[i].name);
    ask(c, mp_slice_str("m.f"));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct spec_alloc counted = {.fail_at = SPEC_NEVER};
    struct mp_alloc alloc = spec_alloc_of(&counted);
    struct mp_catalog c;
    struct mp_buf b;
    struct mp_catalog_effects out;
    if (size < 1)
        return 0;
    uint8_t mode = data[0];
    struct mp_slice bytes = mp_slice_of(data + 1, size - 1);
    must(open_catalog(&c, &alloc, "n1"));
    mp_buf_init(&b, &alloc, 0);
    if ((mode & 1) != 0)
        counted.fail_at = counted.count + mode / 4;
    take(&c, bytes, false);
    (void)!mp_catalog_put_wanted(&c, bytes, &b);
    (void)!mp_catalog_put_have(&c, bytes, 1000, &b);
    (void)!mp_catalog_put_missing(&c, &b);
    counted.fail_at = SPEC_NEVER;
    take(&c, bytes, false);
    if ((mode & 2) != 0) {
        const struct mp_catalog_event gone = {.kind = MP_CATALOG_NODE_GONE, .number = 1};
        must(mp_catalog_step(&c, 3, &gone, &out) == MP_OK);
    }
    check(&c, &b);
    mp_buf_fini(&b);
    mp_catalog_fini(&c);
    must(counted.live_bytes == 0);
    return 0;
}
