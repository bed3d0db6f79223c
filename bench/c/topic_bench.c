/* What topics cost inside the core. First a message with ten matching subscriptions among more and
 * more that do not match; then what one and ten subscriptions with wildcards get a second, in
 * batches of 100 messages of 64 bytes. Figures of the quickest of many blocks: the others were
 * disturbed. */
#include <stdio.h>
#include <stdlib.h>

#include "bench/c/bench.h"
#include "src/core/topic/topic.h"
#include "src/wire/msgpack.h"

static void must(enum mp_err err)
{
    if (err != MP_OK)
        abort();
}

static void subscribe(struct mp_topic *t, uint64_t client, const char *pattern)
{
    struct mp_topic_effects out;
    const struct mp_topic_event ev = {.kind = MP_TOPIC_SUBSCRIBE,
                                      .client = client,
                                      .id = 1,
                                      .subscribe = {.pattern = mp_slice_str(pattern)}};
    must(mp_topic_step(t, 1, &ev, &out));
}

static struct mp_topic *make(void)
{
    struct mp_topic *t;
    const struct mp_topic_config cfg = {.node = mp_slice_str("n1")};
    must(mp_topic_new(&t, &cfg, mp_host_alloc()));
    return t;
}

/* `count` messages of 64 bytes to the topics a.N.b, N going on from `first` below `topics`. */
static void put_messages(struct mp_buf *b, uint32_t count, uint32_t first, uint32_t topics)
{
    char name[32];
    static const char data[] = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ";
    mp_buf_clear(b);
    must(mp_mp_put_array(b, count));
    for (uint32_t i = 0; i < count; i++) {
        snprintf(name, sizeof(name), "a.%u.b", (first + i) % topics);
        must(mp_mp_put_array(b, 2));
        must(mp_mp_put_text(b, name));
        must(mp_mp_put_text(b, data));
    }
}

/* Nanoseconds for a message out of a batch. */
static double cost(struct mp_topic *t, struct mp_slice batch, uint32_t count, uint32_t delivered)
{
    double least = 1e9;
    struct mp_topic_effects out;
    const struct mp_topic_event ev = {
        .kind = MP_TOPIC_PUBLISH, .wall_ms = 1700000000000, .publish = batch};
    for (uint32_t block = 0; block < 300; block++) {
        double began = bench_seconds();
        for (uint32_t i = 0; i < 10; i++) {
            uint32_t got = 0;
            must(mp_topic_step(t, 1, &ev, &out));
            for (uint32_t k = 0; k < out.count; k++)
                got += out.items[k].count;
            if (got != delivered * count)
                abort();
        }
        double took = bench_seconds() - began;
        least = took < least ? took : least;
    }
    return least * 1e9 / (10.0 * count);
}

/* Nanoseconds to find who gets a topic that was not asked for lately. */
static double cost_of_new(struct mp_topic *t)
{
    double least = 1e9;
    static char names[20000][24];
    for (uint32_t i = 0; i < 20000; i++)
        snprintf(names[i], sizeof(names[i]), "a.%u.b", i);
    for (uint32_t block = 0; block < 200; block++) {
        double began = bench_seconds();
        for (uint32_t i = 0; i < 1000; i++)
            if (!mp_topic_is_wanted(t, mp_slice_str(names[(block * 1000 + i) % 20000])))
                abort();
        double took = bench_seconds() - began;
        least = took < least ? took : least;
    }
    return least * 1e9 / 1000;
}

static void measure_matching(uint32_t count)
{
    struct mp_topic *t = make();
    struct mp_buf b;
    char pattern[32];
    mp_buf_init(&b, mp_host_alloc(), 0);
    for (uint32_t i = 0; i < count; i++) {
        if (i < 10)
            snprintf(pattern, sizeof(pattern), i % 2 == 0 ? "a.*.b" : "#.b");
        else
            snprintf(pattern, sizeof(pattern), i % 2 == 0 ? "c.*.%u" : "%u.#", i);
        subscribe(t, i, pattern);
    }
    put_messages(&b, 1000, 0, 100);
    double known = cost(t, mp_buf_slice(&b), 1000, 10);
    printf("%13u %13.0f %13.0f\n", count, known, cost_of_new(t));
    mp_buf_fini(&b);
    mp_topic_free(t);
}

static void measure_delivery(uint32_t subscriptions, uint32_t batch)
{
    struct mp_topic *t = make();
    struct mp_buf b;
    mp_buf_init(&b, mp_host_alloc(), 0);
    for (uint32_t i = 0; i < subscriptions; i++)
        subscribe(t, i, "a.*.b");
    put_messages(&b, batch, 0, 1);
    double ns = cost(t, mp_buf_slice(&b), batch, subscriptions);
    printf("%13u %13u %13.0f %13.0f %13.1f\n", subscriptions, batch, ns, ns / subscriptions,
           1e3 * subscriptions / ns);
    mp_buf_fini(&b);
    mp_topic_free(t);
}

int main(void)
{
    printf(
        "ten of so many subscriptions match: a message of 100 known topics; a topic that is new\n");
    printf("%13s %13s %13s\n", "subscriptions", "ns a message", "ns to match");
    static const uint32_t counts[] = {10, 1000, 100000};
    for (uint32_t i = 0; i < 3; i++)
        measure_matching(counts[i]);
    printf("\n64-byte messages in batches\n");
    printf("%13s %13s %13s %13s %13s\n", "subscriptions", "batch", "ns a message", "ns a delivery",
           "millions/s");
    static const uint32_t batches[] = {1, 100, 1000};
    for (uint32_t i = 0; i < 3; i++) {
        measure_delivery(1, batches[i]);
        measure_delivery(10, batches[i]);
    }
    return 0;
}
