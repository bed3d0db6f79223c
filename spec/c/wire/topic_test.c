/* Names of topics and patterns: what is refused and what is said of it; and every pattern of up to
 * four words against every topic of up to five, compared with the definition, word for word. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "src/base/limits.h"
#include "src/wire/topic.h"

static char said[512];

static enum mp_err check(const char *text, bool is_pattern)
{
    struct mp_text message;
    mp_text_init(&message, said, sizeof(said));
    return is_pattern ? mp_topic_pattern_check(mp_slice_str(text), &message)
                      : mp_topic_name_check(mp_slice_str(text), &message);
}

static void refused(const char *text, bool is_pattern, const char *why)
{
    assert_int_equal(MP_EINVAL, check(text, is_pattern));
    assert_string_equal(why, said);
}

static void names_are_words_joined_by_dots(void **state)
{
    (void)state;
    assert_int_equal(MP_OK, check("quakes.us-west.M_5", false));
    assert_int_equal(MP_OK, check("-", false));
    assert_string_equal("", said);
    refused("", false, "a topic is not empty");
    refused("a..b", false, "a topic has an empty word (word 2 of \"a..b\")");
    refused(".a", false, "a topic has an empty word (word 1 of \".a\")");
    refused("a.", false, "a topic has an empty word (word 2 of \"a.\")");
    refused("a.b c", false,
            "a topic's words are made of letters, digits, _ and -, not of ' ' (word 2 of \"a.b "
            "c\")");
    refused("caf\xc3\xa9", false,
            "a topic's words are made of letters, digits, _ and -, not of '\xc3\xa9' (word 1 of "
            "\"caf\xc3\xa9\")");
    refused("a\xff", false,
            "a topic's words are made of letters, digits, _ and -, not of '?' (word 1 of \"a?\")");
}

static void wildcards_are_words_of_patterns(void **state)
{
    (void)state;
    assert_int_equal(MP_OK, check("#", true));
    assert_int_equal(MP_OK, check("a.*.#.b.#", true));
    refused("a.*", false, "* and # stand in patterns only, not in a topic (word 2 of \"a.*\")");
    refused("#", false, "* and # stand in patterns only, not in a topic (word 1 of \"#\")");
    refused("a.b*", true, "* and # are words of their own in a pattern (word 2 of \"a.b*\")");
    refused("##", true, "* and # are words of their own in a pattern (word 1 of \"##\")");
}

static void long_ones_are_refused(void **state)
{
    (void)state;
    char text[4096];
    memset(text, 'a', sizeof(text));
    text[64] = '\0';
    assert_int_equal(MP_OK, check(text, false));
    text[64] = 'a';
    text[65] = '\0';
    assert_int_equal(MP_EINVAL, check(text, false));
    assert_memory_equal("a topic's words have at most 64 bytes (word 1 of", said, 47);
    text[65] = 'a';
    text[513] = '\0';
    refused(text, true, "a topic has at most 512 bytes, not 513");
    for (size_t i = 0; i < 66; i++)
        text[i] = i % 2 == 0 ? 'a' : '.';
    text[63] = '\0';
    assert_int_equal(MP_OK, check(text, true));
    text[63] = '.';
    text[65] = '\0';
    assert_int_equal(MP_EINVAL, check(text, true));
    assert_memory_equal("a topic has at most 32 words (word 33 of", said, 39);
}

/* What a pattern means, as it is defined: slow, and plain. */
static bool means(const char *pattern, const char *topic)
{
    if (*pattern == '\0')
        return *topic == '\0';
    const char *rest = pattern[1] == '\0' ? "" : pattern + 2;
    if (*pattern == '#')
        return means(rest, topic) ||
               (*topic != '\0' && means(pattern, topic[1] == '\0' ? "" : topic + 2));
    return *topic != '\0' && (*pattern == '*' || *pattern == *topic) &&
           means(rest, topic[1] == '\0' ? "" : topic + 2);
}

/* The number'th text of one-letter words out of `letters`; false behind the last of `words_max`. */
static bool text_of(uint32_t number, const char *letters, uint32_t words_max, char *text)
{
    uint32_t base = (uint32_t)strlen(letters);
    uint32_t words = 1;
    for (uint32_t many = base; number >= many; many *= base, words++)
        number -= many;
    if (words > words_max)
        return false;
    for (uint32_t i = 0; i < words; i++, number /= base) {
        text[2 * i] = letters[number % base];
        text[2 * i + 1] = '.';
    }
    text[2 * words - 1] = '\0';
    return true;
}

static void patterns_match_what_they_mean(void **state)
{
    (void)state;
    char pattern[16];
    char topic[16];
    uint32_t matches = 0;
    for (uint32_t p = 0; text_of(p, "ab*#", 4, pattern); p++) {
        for (uint32_t t = 0; text_of(t, "abc", 5, topic); t++) {
            bool is_match = mp_topic_is_match(mp_slice_str(pattern), mp_slice_str(topic));
            assert_int_equal(means(pattern, topic), is_match);
            matches += is_match;
        }
    }
    assert_true(matches > 1000);
}

static void words_are_compared_whole(void **state)
{
    (void)state;
    assert_true(mp_topic_is_match(mp_slice_str("ab.#.cd"), mp_slice_str("ab.x.y.cd")));
    assert_false(mp_topic_is_match(mp_slice_str("ab.#.cd"), mp_slice_str("ab.x.y.cde")));
    assert_false(mp_topic_is_match(mp_slice_str("ab"), mp_slice_str("a")));
    assert_true(mp_topic_is_match(mp_slice_str("a.#"), mp_slice_str("a")));
}

static void many_hashes_cost_no_more(void **state)
{
    (void)state;
    const char *pattern = "#.a.#.a.#.a.#.a.#.a.#.a.#.a.#.a.#.a.#.a.#.a.#.a.#.a.#.a.#.a.#.b";
    const char *topic = "a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a";
    for (int i = 0; i < 10000; i++)
        assert_false(mp_topic_is_match(mp_slice_str(pattern), mp_slice_str(topic)));
}

static void topics_of_runs_are_told_from_others(void **state)
{
    (void)state;
    assert_true(mp_topic_is_reserved(mp_slice_str("run")));
    assert_true(mp_topic_is_reserved(mp_slice_str("run.01KB.step_started")));
    assert_false(mp_topic_is_reserved(mp_slice_str("runs")));
    assert_false(mp_topic_is_reserved(mp_slice_str("ru")));
    assert_false(mp_topic_is_reserved(mp_slice_str("a.run")));
    assert_false(mp_topic_is_reserved(mp_slice_str("")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_words_joined_by_dots),
        cmocka_unit_test(wildcards_are_words_of_patterns),
        cmocka_unit_test(long_ones_are_refused),
        cmocka_unit_test(patterns_match_what_they_mean),
        cmocka_unit_test(words_are_compared_whole),
        cmocka_unit_test(many_hashes_cost_no_more),
        cmocka_unit_test(topics_of_runs_are_told_from_others),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
