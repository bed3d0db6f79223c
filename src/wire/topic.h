/* Names of topics and patterns over them: words joined by dots. A word has 1 to 64 of the
 * characters A-Z a-z 0-9 _ -; in a pattern a word may also be `*`, which stands for exactly one
 * word, or `#`, which stands for any number of words, also none, at any place. */
#pragma once

#include <stdbool.h>

#include "src/base/compiler.h"
#include "src/base/err.h"
#include "src/base/slice.h"
#include "src/base/text.h"

/* Whether `name` is a topic that may be published to. MP_EINVAL: it is not, and `message` (not
 * NULL; what is in it is kept) says what is wrong and where, for people. */
MP_MUST_USE enum mp_err mp_topic_name_check(struct mp_slice name, struct mp_text *message);
/* The same for a pattern. */
MP_MUST_USE enum mp_err mp_topic_pattern_check(struct mp_slice pattern, struct mp_text *message);
/* Whether a topic is one of runs (`run`, or `run.` and more), to which only nodes publish. */
bool mp_topic_is_reserved(struct mp_slice topic);
/* Whether a pattern matches a topic, both of which have been checked. Costs at most words times
 * words, whatever the pattern. */
bool mp_topic_is_match(struct mp_slice pattern, struct mp_slice topic);
