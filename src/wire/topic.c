/* See topic.h. A pattern is matched by the set of its places that the words so far may have led to,
 * one bit each: so many `#` cost no more than many words. */
#include "src/wire/topic.h"

#include "src/base/assert.h"
#include "src/base/limits.h"

static_assert(MP_TOPIC_WORDS_MAX < 64, "the places of a pattern fit into one number");

static bool is_word_byte(uint8_t c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-';
}

static enum mp_err refuse(struct mp_text *message, const char *what, uint64_t word,
                          struct mp_slice text)
{
    mp_text_put(message, what);
    if (word != 0) {
        mp_text_put(message, " (word ");
        mp_text_put_uint(message, word);
        mp_text_put(message, " of \"");
        mp_text_put_slice(message, text);
        mp_text_put(message, "\")");
    }
    return MP_EINVAL;
}

static enum mp_err refuse_byte(struct mp_text *message, struct mp_slice word, size_t at,
                               uint64_t number, struct mp_slice text)
{
    size_t length = mp_slice_utf8_length(mp_slice_of(word.data + at, word.size - at));
    mp_text_put(message, "a topic's words are made of letters, digits, _ and -, not of '");
    mp_text_put_slice(message, mp_slice_of(word.data + at, length == 0 ? 1 : length));
    return refuse(message, "'", number, text);
}

static bool is_wildcard(struct mp_slice word)
{
    return word.size == 1 && (word.data[0] == '*' || word.data[0] == '#');
}

/* One word, the `number`th from 1. */
static enum mp_err check_word(struct mp_slice word, uint64_t number, struct mp_slice text,
                              bool is_pattern, struct mp_text *message)
{
    if (word.size == 0)
        return refuse(message, "a topic has an empty word", number, text);
    if (word.size > MP_TOPIC_WORD_BYTES_MAX)
        return refuse(message, "a topic's words have at most 64 bytes", number, text);
    if (is_wildcard(word)) {
        if (is_pattern)
            return MP_OK;
        return refuse(message, "* and # stand in patterns only, not in a topic", number, text);
    }
    for (size_t i = 0; i < word.size; i++) {
        if (is_word_byte(word.data[i]))
            continue;
        if (is_pattern && (word.data[i] == '*' || word.data[i] == '#'))
            return refuse(message, "* and # are words of their own in a pattern", number, text);
        return refuse_byte(message, word, i, number, text);
    }
    return MP_OK;
}

/* The word that starts at *at; moves on behind its dot, or to size + 1 behind the last word. */
static struct mp_slice next_word(struct mp_slice text, size_t *at)
{
    size_t start = *at;
    size_t end = start;
    while (end < text.size && text.data[end] != '.')
        end++;
    *at = end + 1;
    return mp_slice_of(text.data + start, end - start);
}

static_assert(MP_TOPIC_WORD_BYTES_MAX == 64 && MP_TOPIC_BYTES_MAX == 512 &&
                  MP_TOPIC_WORDS_MAX == 32,
              "the messages name them");

static enum mp_err check(struct mp_slice text, bool is_pattern, struct mp_text *message)
{
    if (text.size == 0)
        return refuse(message, "a topic is not empty", 0, text);
    if (text.size > MP_TOPIC_BYTES_MAX) {
        mp_text_put(message, "a topic has at most 512 bytes, not ");
        mp_text_put_uint(message, text.size);
        return MP_EINVAL;
    }
    uint64_t number = 0;
    for (size_t at = 0; at <= text.size;) {
        struct mp_slice word = next_word(text, &at);
        if (++number > MP_TOPIC_WORDS_MAX)
            return refuse(message, "a topic has at most 32 words", number, text);
        MP_TRY(check_word(word, number, text, is_pattern, message));
    }
    return MP_OK;
}

enum mp_err mp_topic_name_check(struct mp_slice name, struct mp_text *message)
{
    return check(name, false, message);
}

enum mp_err mp_topic_pattern_check(struct mp_slice pattern, struct mp_text *message)
{
    return check(pattern, true, message);
}

bool mp_topic_is_reserved(struct mp_slice topic)
{
    return topic.size >= 3 && memcmp(topic.data, "run", 3) == 0 &&
           (topic.size == 3 || topic.data[3] == '.');
}

/* With each place that is ahead of a `#` the one behind it: it may stand for no word. */
static uint64_t pass_hashes(uint64_t places, uint64_t hashes)
{
    for (uint64_t more = places & hashes; more != 0; more &= hashes) {
        more = (more << 1) & ~places;
        places |= more;
    }
    return places;
}

bool mp_topic_is_match(struct mp_slice pattern, struct mp_slice topic)
{
    struct mp_slice words[MP_TOPIC_WORDS_MAX];
    uint64_t hashes = 0;
    uint32_t count = 0;
    for (size_t at = 0; at <= pattern.size; count++) {
        mp_assert(count < MP_TOPIC_WORDS_MAX);
        words[count] = next_word(pattern, &at);
        if (mp_slice_is(words[count], "#"))
            hashes |= 1ull << count;
    }
    uint64_t places = pass_hashes(1, hashes);
    for (size_t at = 0; at <= topic.size && places != 0;) {
        struct mp_slice word = next_word(topic, &at);
        uint64_t next = places & hashes;
        for (uint32_t i = 0; i < count; i++)
            if ((places >> i & 1) != 0 &&
                (mp_slice_equal(words[i], word) || mp_slice_is(words[i], "*")))
                next |= 1ull << (i + 1);
        places = pass_hashes(next, hashes);
    }
    return (places >> count & 1) != 0;
}
