/* Patterns against topics: the machine, which has many patterns at once, and the plain matcher for
 * one are compared with what patterns mean, word for word, over random ones of few letters, while
 * patterns come and go. */
#include "spec/c/core/topic/topic_harness.h"

#include <stdlib.h>
#include <time.h>

#include "src/base/rng.h"
#include "src/wire/topic.h"

#define PATTERNS 64
#define WORDS    8

static struct mp_rng rng;
static char patterns[PATTERNS][2 * WORDS]; /* by subscription; empty: not in force */
static uint64_t pairs;
static uint64_t matches;

/* What a pattern of one-letter words means. */
static bool means(const char *pattern, const char *name)
{
    if (*pattern == '\0')
        return *name == '\0';
    const char *rest = pattern[1] == '\0' ? "" : pattern + 2;
    const char *name_rest = *name == '\0' || name[1] == '\0' ? "" : name + 2;
    if (*pattern == '#')
        return means(rest, name) || (*name != '\0' && means(pattern, name_rest));
    return *name != '\0' && (*pattern == '*' || *pattern == *name) && means(rest, name_rest);
}

static void draw(char *text, const char *letters)
{
    uint64_t words = 1 + mp_rng_below(&rng, WORDS);
    for (uint64_t i = 0; i < words; i++) {
        text[2 * i] = letters[mp_rng_below(&rng, strlen(letters))];
        text[2 * i + 1] = '.';
    }
    text[2 * words - 1] = '\0';
}

static void change(void)
{
    uint64_t i = mp_rng_below(&rng, PATTERNS);
    if (patterns[i][0] != '\0') {
        of_client(MP_TOPIC_UNSUBSCRIBE, i % 5, i);
        patterns[i][0] = '\0';
        return;
    }
    draw(patterns[i], "aab*#");
    subscribe(i % 5, i, patterns[i]);
}

static void compare(const char *name)
{
    uint32_t got[PATTERNS] = {0};
    publish(name, 1);
    for (uint32_t i = 0; i < out.count; i++) {
        assert_int_equal(1, out.items[i].count);
        got[out.items[i].id]++;
    }
    for (uint32_t i = 0; i < PATTERNS; i++) {
        bool is_match = patterns[i][0] != '\0' && means(patterns[i], name);
        if (got[i] != is_match)
            fail_msg("%s against %s: %u, not %d", patterns[i], name, got[i], is_match);
        if (patterns[i][0] == '\0')
            continue;
        assert_int_equal(is_match,
                         mp_topic_is_match(mp_slice_str(patterns[i]), mp_slice_str(name)));
        pairs++;
        matches += is_match;
    }
}

static void history(uint64_t seed)
{
    char name[2 * WORDS];
    set_up(NULL);
    memset(patterns, 0, sizeof(patterns));
    mp_rng_init(&rng, seed);
    for (int round = 0; round < 200; round++) {
        for (uint64_t i = mp_rng_below(&rng, 10); i > 0; i--)
            change();
        for (int i = 0; i < 20; i++) {
            draw(name, "aab");
            compare(name);
        }
    }
    tear_down(NULL);
}

static void patterns_match_what_they_mean(void **state)
{
    (void)state;
    const char *given = getenv("MPREG_SEED");
    uint64_t first = given ? strtoull(given, NULL, 10) : (uint64_t)time(NULL);
    for (uint64_t seed = first; seed < first + (given ? 1 : 8); seed++) {
        print_message("# trie_test: MPREG_SEED=%llu\n", (unsigned long long)seed);
        history(seed);
    }
    print_message("# %llu pairs, %llu matches\n", (unsigned long long)pairs,
                  (unsigned long long)matches);
    assert_true(given || pairs >= 500000);
    assert_true(matches > pairs / 20);
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Hundreds of patterns of sixteen `#` each, which match in more ways than could ever be tried. */
static void many_hashes_do_not_explode(void **state)
{
    (void)state;
    char pattern[128] = "";
    char name[128] = "";
    for (int i = 0; i < 15; i++)
        strcat(pattern, i % 2 == 0 ? "#.a." : "#.*.");
    for (int i = 0; i < 32; i++)
        strcat(name, i == 0 ? "a" : ".a");
    size_t size = strlen(pattern);
    for (uint64_t i = 0; i < 400; i++) {
        snprintf(pattern + size, sizeof(pattern) - size, "b%d", (int)i);
        subscribe(7, i, pattern);
        pattern[2 * (i % 30)] = pattern[2 * (i % 30)] == '#' ? 'a' : '#';
    }
    double began = seconds();
    for (int i = 0; i < 100; i++) {
        name[0] = (char)('a' + i % 26);
        assert_false(mp_topic_is_wanted(topic, mp_slice_str(name)));
        subscribe(8, 1, "x");
        of_client(MP_TOPIC_UNSUBSCRIBE, 8, 1);
    }
    assert_true(seconds() - began < 5);
}

static void many_patterns_come_and_go(void **state)
{
    (void)state;
    char pattern[64];
    for (uint64_t i = 0; i < 20000; i++) {
        snprintf(pattern, sizeof(pattern), "w%d.*.%d.#", (int)(i % 1000), (int)i);
        subscribe(i % 10, i, pattern);
    }
    publish("w7.x.1007.y.z", 1);
    says("7/1007 n1 w7.x.1007.y.z:1=1;");
    for (uint64_t i = 0; i < 20000; i += 2)
        of_client(MP_TOPIC_UNSUBSCRIBE, i % 10, i);
    publish("w8.x.1008", 2);
    says("");
    publish("w9.x.1009", 3);
    says("9/1009 n1 w9.x.1009:3=3;");
    for (uint64_t i = 0; i < 10; i++)
        of_client(MP_TOPIC_CLIENT_GONE, i, 0);
    publish("w9.x.1009", 4);
    says("");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(patterns_match_what_they_mean),
        cmocka_unit_test_setup_teardown(many_hashes_do_not_explode, set_up, tear_down),
        cmocka_unit_test_setup_teardown(many_patterns_come_and_go, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
