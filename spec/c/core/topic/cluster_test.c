/* Random lives of three machines that talk to one another as nodes do: what is between them is
 * late, batches get lost, connections take nothing for a while, subscriptions come, with and
 * without what is kept, and go, nodes begin anew. What each subscription gets is checked against
 * all that was ever published: of each publisher in order, nothing twice, nothing that does not
 * match; and whatever is missing was told. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

#include "spec/support/alloc.h"
#include "src/base/limits.h"
#include "src/base/rng.h"
#include "src/core/topic/topic.h"
#include "src/wire/msgpack.h"
#include "src/wire/topic.h"

#define NODES      3
#define SUBS       40
#define MESSAGES   4000
#define LETTERS    2000
#define WALL       1700000000000u
#define EVENTS     3000
#define NAME_BYTES 16
#define TELL_DELAY MP_MS(120) /* until what a node wants is known to all */

static const char *const names[NODES] = {"n0", "n1", "n2"};

/* A message that was published. */
struct published {
    uint64_t seq;
    uint32_t life; /* of its publisher */
    mp_time at;
    bool is_known; /* its publisher had heard, in that life, what others want */
    char topic[NAME_BYTES];
};

struct sub {
    bool is_there;
    uint32_t node;
    uint64_t client;
    uint64_t id;
    char pattern[NAME_BYTES];
    mp_time joined_at; /* nobody is waited for any more */
    /* of each publisher */
    uint32_t first_life[NODES];
    uint32_t life[NODES];   /* that was heard last; 0: none, or one from before */
    uint64_t last[NODES];   /* that was delivered of that life */
    uint64_t told[NODES];   /* that may be missing, and are not accounted for yet */
    mp_time sure_at[NODES]; /* what is published from then on comes, or is told */
};

/* Something on its way to a node. */
struct letter {
    mp_time at;
    uint32_t to;
    uint32_t from;
    enum mp_topic_event_kind kind; /* as it will be there; CLIENT_GONE: a lost batch comes back */
    uint32_t life;                 /* of the receiver, if it is for that one only */
    uint32_t from_life;
    uint64_t a;
    uint64_t b;
    struct mp_buf bytes;
};

struct node {
    struct mp_topic *topic;
    uint32_t life;
    struct published *all;
    uint32_t count;
    uint64_t seq;
    mp_time known_at; /* from when on it knows what others want */
};

static struct spec_alloc counted;
static struct mp_alloc alloc;
static struct spec_alloc plain;
static struct mp_alloc plain_alloc;
static struct mp_rng rng;
static mp_time now;
static struct node nodes[NODES];
static struct sub subs[SUBS];
static struct letter letters[LETTERS];
static uint32_t letter_count;
static uint64_t next_id;
static uint64_t delivered;
static bool is_short; /* memory fails now and then: what is dropped for it may go untold */

static bool chance(uint32_t percent)
{
    return mp_rng_below(&rng, 100) < percent;
}

static void draw(char *text, const char *alphabet)
{
    uint64_t words = 1 + mp_rng_below(&rng, 3);
    for (uint64_t i = 0; i < words; i++) {
        text[2 * i] = alphabet[mp_rng_below(&rng, strlen(alphabet))];
        text[2 * i + 1] = '.';
    }
    text[2 * words - 1] = '\0';
}

static struct letter *post(uint32_t from, uint32_t to, enum mp_topic_event_kind kind,
                           mp_duration delay)
{
    assert_true(letter_count < LETTERS);
    struct letter *l = &letters[letter_count++];
    *l = (struct letter){.at = now + delay, .to = to, .from = from, .kind = kind};
    l->life = nodes[to].life;
    l->from_life = nodes[from].life;
    mp_buf_init(&l->bytes, &plain_alloc, 0);
    return l;
}

static void put_bytes(struct letter *l, struct mp_slice bytes)
{
    assert_int_equal(MP_OK, mp_buf_append(&l->bytes, bytes));
}

/* --- what a subscription gets --- */

static uint32_t number_of(struct mp_slice name)
{
    for (uint32_t i = 0; i < NODES; i++)
        if (mp_slice_is(name, names[i]))
            return i;
    fail();
    return 0;
}

/* Messages of a life between two seqs that match and were not delivered. */
static uint64_t missing(const struct sub *s, uint32_t publisher, uint64_t after, uint64_t before)
{
    uint64_t count = 0;
    const struct node *n = &nodes[publisher];
    for (uint32_t i = 0; i < n->count; i++) {
        const struct published *p = &n->all[i];
        if (p->life != s->life[publisher] || p->seq <= after || p->seq >= before ||
            p->at < s->sure_at[publisher] || p->life < s->first_life[publisher] ||
            (p->life != s->first_life[publisher] && !p->is_known))
            continue;
        count += mp_topic_is_match(mp_slice_str(s->pattern), mp_slice_str(p->topic));
    }
    return count;
}

/* What was published, by the number that is its data. */
static const struct published *find(uint32_t publisher, uint64_t seq, uint64_t data)
{
    const struct node *n = &nodes[publisher];
    assert_true(data < n->count);
    assert_int_equal(seq, n->all[data].seq);
    return &n->all[data];
}

static void take_message(struct sub *s, uint32_t publisher, struct mp_slice message)
{
    struct mp_slice v;
    int64_t seq;
    int64_t data;
    if (mp_mp_array_get(message, 1, &v) != MP_OK || mp_mp_get_int(v, &seq) != MP_OK ||
        mp_mp_array_get(message, 3, &v) != MP_OK || mp_mp_get_int(v, &data) != MP_OK ||
        mp_mp_array_get(message, 0, &v) != MP_OK || mp_mp_get_str(v, &v) != MP_OK)
        fail();
    const struct published *p = find(publisher, (uint64_t)seq, (uint64_t)data);
    assert_true(mp_slice_is(v, p->topic));
    assert_true(mp_topic_is_match(mp_slice_str(s->pattern), v));
    if (p->life < s->life[publisher])
        return; /* what an earlier life had sent was late */
    if (p->life != s->life[publisher]) {
        s->life[publisher] = p->life;
        s->last[publisher] = 0;
    }
    if (p->seq <= s->last[publisher])
        fail_msg("%s gets %s:%d after %d", s->pattern, names[publisher], (int)p->seq,
                 (int)s->last[publisher]);
    uint64_t gone = missing(s, publisher, s->last[publisher], p->seq);
    if (gone > s->told[publisher] && !is_short)
        fail_msg("%s at %s: %d of %s are missing between %d and %d, %d were told", s->pattern,
                 names[s->node], (int)gone, names[publisher], (int)s->last[publisher], (int)p->seq,
                 (int)s->told[publisher]);
    s->told[publisher] = 0;
    s->last[publisher] = p->seq;
    delivered++;
}

static void deliver(uint32_t node, const struct mp_topic_effect *e)
{
    struct sub *s = NULL;
    uint32_t count;
    struct mp_mp_reader r;
    uint32_t publisher = number_of(e->publisher);
    for (uint32_t i = 0; i < SUBS; i++)
        if (subs[i].is_there && subs[i].node == node && subs[i].client == e->client &&
            subs[i].id == e->id)
            s = &subs[i];
    assert_non_null(s);
    s->told[publisher] += e->dropped;
    assert_int_equal(MP_OK, mp_mp_get_array(e->payload, &count, &r));
    assert_int_equal(count, e->count);
    for (uint32_t i = 0; i < count; i++) {
        struct mp_slice message;
        assert_int_equal(MP_OK, mp_mp_take(&r, &message));
        take_message(s, publisher, message);
    }
    assert_true(mp_mp_is_at_end(&r));
}

/* --- what nodes send --- */

static void step(uint32_t node, struct mp_topic_event ev);

static void forward(uint32_t node, const struct mp_topic_effect *e)
{
    mp_duration delay = MP_MS(mp_rng_below(&rng, 20));
    /* what is lost is told to be; some of it has arrived all the same, or arrives twice never */
    bool is_lost = chance(3);
    if (!is_lost) {
        struct letter *l = post(node, e->member, MP_TOPIC_RECEIVE, delay);
        l->a = e->dropped;
        l->b = e->after_seq;
        put_bytes(l, e->payload);
    }
    struct letter *back = post(node, node, MP_TOPIC_ACKED, delay + 1 + MP_MS(1));
    back->a = e->member;
    back->b = is_lost;
}

static void gather(uint32_t node, const struct mp_topic_effect *e)
{
    for (uint32_t i = 0; i < NODES; i++) {
        if (i == node)
            continue;
        struct letter *l = post(node, i, MP_TOPIC_BACKLOG_ASKED, MP_MS(mp_rng_below(&rng, 50)));
        l->a = e->gather;
        l->b = e->since_ms;
        put_bytes(l, e->pattern);
    }
    post(node, node, MP_TOPIC_GATHER_END, MP_MS(150))->a = e->gather;
}

static void tell_interest(uint32_t node)
{
    struct mp_buf b;
    mp_buf_init(&b, &plain_alloc, 0);
    while (mp_topic_put_interest(nodes[node].topic, &b) != MP_OK)
        counted.fail_at = SPEC_NEVER;
    for (uint32_t i = 0; i < NODES; i++)
        if (i != node)
            put_bytes(post(node, i, MP_TOPIC_INTEREST, MP_MS(100)), mp_buf_slice(&b));
    mp_buf_fini(&b);
}

static void carry_out(uint32_t node, const struct mp_topic_effects *out)
{
    for (uint32_t i = 0; i < out->count; i++) {
        const struct mp_topic_effect *e = &out->items[i];
        if (e->kind == MP_TOPIC_DELIVER)
            deliver(node, e);
        else if (e->kind == MP_TOPIC_FORWARD)
            forward(node, e);
        else if (e->kind == MP_TOPIC_GATHER)
            gather(node, e);
        else
            fail();
    }
}

static enum mp_err try_step(uint32_t node, struct mp_topic_event ev, struct mp_topic_effects *out)
{
    if (is_short && chance(20))
        counted.fail_at = counted.count + mp_rng_below(&rng, 6);
    ev.wall_ms = WALL + now / MP_MS(1);
    enum mp_err err = mp_topic_step(nodes[node].topic, now, &ev, out);
    counted.fail_at = SPEC_NEVER;
    carry_out(node, out);
    if (err == MP_ENOMEM) {
        assert_true(is_short);
        err = mp_topic_step(nodes[node].topic, now, &ev, out);
        carry_out(node, out);
    }
    if (out->is_interest_changed)
        tell_interest(node);
    return err;
}

static void step(uint32_t node, struct mp_topic_event ev)
{
    struct mp_topic_effects out;
    enum mp_err err = try_step(node, ev, &out);
    bool may_be_over = ev.kind == MP_TOPIC_GATHERED || ev.kind == MP_TOPIC_GATHER_END;
    if (err != MP_OK && (!may_be_over || err != MP_ENOENT))
        fail_msg("event %d: %s", (int)ev.kind, mp_err_name(err));
}

static void run_timers(uint32_t node)
{
    for (int i = 0; mp_topic_deadline(nodes[node].topic) <= now; i++) {
        assert_true(i < 1000);
        step(node, (struct mp_topic_event){.kind = MP_TOPIC_TIMER});
    }
}

/* --- letters --- */

static void answer(struct letter *l)
{
    struct mp_topic_effects out;
    struct mp_topic_event ev = {.kind = MP_TOPIC_BACKLOG_ASKED,
                                .member = l->from,
                                .asked = {.pattern = mp_buf_slice(&l->bytes), .since_ms = l->b}};
    assert_int_equal(MP_OK, try_step(l->to, ev, &out));
    struct letter *back = post(l->to, l->from, MP_TOPIC_GATHERED, MP_MS(mp_rng_below(&rng, 50)));
    back->life = l->from_life;
    back->a = l->a;
    back->b = out.upto_seq;
    put_bytes(back, out.answer);
}

static void open_letter(struct letter *l)
{
    struct mp_slice bytes = mp_buf_slice(&l->bytes);
    struct mp_topic_event ev = {.kind = l->kind, .member = l->from};
    if (l->kind == MP_TOPIC_BACKLOG_ASKED) {
        answer(l);
        return;
    }
    if (l->kind == MP_TOPIC_RECEIVE) {
        ev.receive.publisher = mp_slice_str(names[l->from]);
        ev.receive.dropped = l->a;
        ev.receive.after_seq = l->b;
        ev.receive.messages = bytes;
    } else if (l->kind == MP_TOPIC_ACKED) {
        ev.member = (uint32_t)l->a;
        ev.is_lost = l->b != 0;
    } else if (l->kind == MP_TOPIC_INTEREST) {
        ev.interest = bytes;
    } else if (l->kind == MP_TOPIC_GATHERED) {
        ev.gathered.gather = l->a;
        ev.gathered.publisher = mp_slice_str(names[l->from]);
        ev.gathered.upto_seq = l->b;
        ev.gathered.messages = bytes;
    } else {
        ev.gather_end = l->a;
    }
    step(l->to, ev);
}

/* Whether another letter between the same two of the same kind has to come first. */
static bool is_first(uint32_t i)
{
    for (uint32_t k = 0; k < i; k++)
        if (letters[k].to == letters[i].to && letters[k].from == letters[i].from &&
            letters[k].kind == letters[i].kind)
            return false;
    return true;
}

static void bring_letters(void)
{
    for (uint32_t i = 0; i < letter_count;) {
        if (letters[i].at > now || !is_first(i)) {
            i++;
            continue;
        }
        struct letter l = letters[i];
        memmove(&letters[i], &letters[i + 1], (--letter_count - i) * sizeof(*letters));
        /* what an earlier life has asked for is nobody's */
        bool is_answer = l.kind == MP_TOPIC_ACKED || l.kind == MP_TOPIC_GATHERED ||
                         l.kind == MP_TOPIC_GATHER_END;
        if (!is_answer || l.life == nodes[l.to].life)
            open_letter(&l);
        mp_buf_fini(&l.bytes);
        i = 0;
    }
}

/* --- what happens --- */

static void publish(uint32_t node)
{
    struct mp_buf b;
    struct node *n = &nodes[node];
    uint64_t count = 1 + mp_rng_below(&rng, 4);
    mp_buf_init(&b, &plain_alloc, 0);
    assert_int_equal(MP_OK, mp_mp_put_array(&b, (uint32_t)count));
    for (uint64_t i = 0; i < count; i++) {
        struct published *p = &n->all[n->count];
        *p = (struct published){
            .seq = ++n->seq, .life = n->life, .at = now, .is_known = now >= n->known_at};
        draw(p->topic, "ab");
        if (mp_mp_put_array(&b, 2) != MP_OK || mp_mp_put_text(&b, p->topic) != MP_OK ||
            mp_mp_put_uint(&b, n->count) != MP_OK)
            fail();
        n->count++;
    }
    step(node, (struct mp_topic_event){.kind = MP_TOPIC_PUBLISH, .publish = mp_buf_slice(&b)});
    mp_buf_fini(&b);
}

/* Whoever begins with what is kept hears of all that was published, if it has not left the backlog:
 * here nothing does. */
static void subscribe(struct sub *s)
{
    bool has_since = chance(50);
    *s = (struct sub){.is_there = true,
                      .node = (uint32_t)mp_rng_below(&rng, NODES),
                      .client = mp_rng_below(&rng, 4),
                      .id = ++next_id,
                      .joined_at = now + TELL_DELAY + MP_MS(50)};
    draw(s->pattern, "ab*#");
    for (uint32_t i = 0; i < NODES; i++) {
        s->first_life[i] = nodes[i].life;
        s->life[i] = i == s->node ? nodes[i].life : 0;
        if (has_since)
            continue;
        s->last[i] = i == s->node ? nodes[i].seq : 0;
        s->sure_at[i] = i == s->node ? now : now + TELL_DELAY;
    }
    step(s->node, (struct mp_topic_event){.kind = MP_TOPIC_SUBSCRIBE,
                                          .client = s->client,
                                          .id = s->id,
                                          .subscribe = {.pattern = mp_slice_str(s->pattern),
                                                        .has_since = has_since,
                                                        .queue_max = chance(30) ? 5 : 0}});
}

static void unsubscribe(struct sub *s)
{
    s->is_there = false;
    step(s->node,
         (struct mp_topic_event){.kind = MP_TOPIC_UNSUBSCRIBE, .client = s->client, .id = s->id});
}

static void open_node(uint32_t i)
{
    const struct mp_topic_config cfg = {.node = mp_slice_str(names[i])};
    assert_int_equal(MP_OK, mp_topic_new(&nodes[i].topic, &cfg, &alloc));
    nodes[i].life++;
    nodes[i].seq = 0;
    nodes[i].known_at = now + TELL_DELAY;
}

/* A node ends and begins anew: its subscriptions are over, others forget it and hear of it again.
 * What others sent to it is lost, or comes to its next life; what it sent comes. */
static void restart(uint32_t i)
{
    for (uint32_t k = 0; k < SUBS; k++) {
        if (subs[k].node == i)
            subs[k].is_there = false;
        if (subs[k].joined_at > now) /* its backlog went with it before it was asked for */
            subs[k].sure_at[i] = now + TELL_DELAY;
    }
    mp_topic_free(nodes[i].topic);
    now += MP_MS(5);
    open_node(i);
    for (uint32_t k = 0; k < NODES; k++)
        if (k != i)
            tell_interest(k);
    tell_interest(i);
}

static void something_happens(void)
{
    uint32_t node = (uint32_t)mp_rng_below(&rng, NODES);
    struct sub *s = &subs[mp_rng_below(&rng, SUBS)];
    uint64_t what = mp_rng_below(&rng, 1000);
    if (what < 500 && nodes[node].count + 4 < MESSAGES)
        publish(node);
    else if (what < 560 && !s->is_there)
        subscribe(s);
    else if (what < 600 && s->is_there)
        unsubscribe(s);
    else if (what < 680)
        step(node, (struct mp_topic_event){.kind = chance(60) ? MP_TOPIC_READY : MP_TOPIC_BLOCKED,
                                           .client = mp_rng_below(&rng, 4)});
    else if (what < 682)
        restart(node);
    else
        now += MP_MS(mp_rng_below(&rng, 8));
}

static void go_on(void)
{
    bring_letters();
    for (uint32_t i = 0; i < NODES; i++)
        run_timers(i);
}

/* All is calm, and all connections take what there is: now everybody has everything, or was told.
 */
static void settle(void)
{
    for (int i = 0; i < 600; i++) {
        for (uint32_t k = 0; k < NODES * 4; k++)
            step(k % NODES, (struct mp_topic_event){.kind = MP_TOPIC_READY, .client = k / NODES});
        now += MP_MS(5);
        go_on();
    }
    for (uint32_t i = 0; i < NODES; i++) {
        publish(i);
        go_on();
    }
    /* what was lost is told after a second, or lost again then */
    for (int i = 0; i < 60; i++) {
        now += MP_MS(100);
        go_on();
    }
    for (uint32_t i = 0; i < NODES; i++)
        assert_int_equal(0, mp_topic_get_stats(nodes[i].topic).queued_bytes);
}

static void check_end(struct sub *s)
{
    for (uint32_t i = 0; i < NODES; i++) {
        if (s->life[i] == 0)
            s->life[i] = s->first_life[i];
        if (s->life[i] != nodes[i].life || is_short)
            continue;
        uint64_t gone = missing(s, i, s->last[i], UINT64_MAX);
        if (gone > s->told[i])
            fail_msg("%s at %s: %d of %s never came after %d, %d were told", s->pattern,
                     names[s->node], (int)gone, names[i], (int)s->last[i], (int)s->told[i]);
    }
}

static void live(uint64_t seed)
{
    mp_rng_init(&rng, seed);
    now = MP_SECONDS(1000);
    memset(subs, 0, sizeof(subs));
    for (uint32_t i = 0; i < NODES; i++) {
        nodes[i] = (struct node){.all = calloc(MESSAGES + 64, sizeof(struct published))};
        open_node(i);
    }
    for (int i = 0; i < EVENTS; i++) {
        something_happens();
        go_on();
    }
    settle();
    for (uint32_t i = 0; i < SUBS; i++)
        if (subs[i].is_there)
            check_end(&subs[i]);
    for (uint32_t i = 0; i < NODES; i++) {
        mp_topic_free(nodes[i].topic);
        free(nodes[i].all);
    }
    while (letter_count != 0)
        mp_buf_fini(&letters[--letter_count].bytes);
    assert_int_equal(0, counted.live_bytes);
    assert_int_equal(0, plain.live_bytes);
}

static void lives(uint32_t count)
{
    const char *given = getenv("MPREG_SEED");
    uint64_t first = given ? strtoull(given, NULL, 10) : (uint64_t)time(NULL);
    counted = (struct spec_alloc){.fail_at = SPEC_NEVER};
    alloc = spec_alloc_of(&counted);
    plain = (struct spec_alloc){.fail_at = SPEC_NEVER};
    plain_alloc = spec_alloc_of(&plain);
    delivered = 0;
    for (uint64_t seed = first; seed < first + (given ? 1 : count); seed++) {
        print_message("# cluster_test: MPREG_SEED=%llu\n", (unsigned long long)seed);
        live(seed);
    }
    print_message("# %llu messages\n", (unsigned long long)delivered);
    assert_true(given || delivered > 1000ull * count);
}

static void all_that_is_published_comes_in_order_or_is_told(void **state)
{
    (void)state;
    is_short = false;
    lives(40);
}

static void without_memory_there_is_still_order(void **state)
{
    (void)state;
    is_short = true;
    lives(20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_that_is_published_comes_in_order_or_is_told),
        cmocka_unit_test(without_memory_there_is_still_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
