/* See version.h. A constraint is read part by part each time: they are short, and only a caller who
 * gives one pays. */
#include "src/wire/version.h"

static bool is_digit(uint8_t c)
{
    return c >= '0' && c <= '9';
}

/* Digits at the front of *s; false if there are none or the number is over 9 digits. */
static bool take_number(struct mp_slice *s, uint32_t *n)
{
    size_t i = 0;
    uint32_t v = 0;
    while (i < s->size && is_digit(s->data[i]) && i < 9)
        v = v * 10 + (s->data[i++] - '0');
    if (i == 0 || (i < s->size && is_digit(s->data[i])))
        return false;
    *s = mp_slice_of(s->data + i, s->size - i);
    *n = v;
    return true;
}

static bool take_byte(struct mp_slice *s, char c)
{
    if (s->size == 0 || s->data[0] != (uint8_t)c)
        return false;
    *s = mp_slice_of(s->data + 1, s->size - 1);
    return true;
}

/* Identifiers joined by dots: [0-9A-Za-z-]+ */
static bool take_identifiers(struct mp_slice *s, struct mp_slice *out)
{
    size_t i = 0;
    size_t part = 0;
    for (; i < s->size; i++) {
        uint8_t c = s->data[i];
        if (c == '.') {
            if (part == 0)
                return false;
            part = 0;
            continue;
        }
        if (!is_digit(c) && !(c >= 'a' && c <= 'z') && !(c >= 'A' && c <= 'Z') && c != '-')
            break;
        part++;
    }
    if (part == 0)
        return false;
    *out = mp_slice_of(s->data, i);
    *s = mp_slice_of(s->data + i, s->size - i);
    return true;
}

/* How many of major, minor, patch were there; 0 if it is no version. */
static unsigned read_parts(struct mp_slice s, struct mp_version *v)
{
    *v = (struct mp_version){0};
    unsigned parts = 1;
    if (!take_number(&s, &v->major))
        return 0;
    if (take_byte(&s, '.')) {
        parts = 2;
        if (!take_number(&s, &v->minor))
            return 0;
        if (take_byte(&s, '.')) {
            parts = 3;
            if (!take_number(&s, &v->patch))
                return 0;
        }
    }
    if (take_byte(&s, '-') && !take_identifiers(&s, &v->pre))
        return 0;
    if (take_byte(&s, '+') && !take_identifiers(&s, &v->build))
        return 0;
    return s.size == 0 ? parts : 0;
}

enum mp_err mp_version_read(struct mp_slice text, struct mp_version *v)
{
    struct mp_version read;
    if (read_parts(text, &read) == 0)
        return MP_EINVAL;
    *v = read;
    return MP_OK;
}

static struct mp_slice take_identifier(struct mp_slice *s)
{
    size_t i = 0;
    while (i < s->size && s->data[i] != '.')
        i++;
    struct mp_slice part = mp_slice_of(s->data, i);
    size_t used = i < s->size ? i + 1 : i;
    *s = mp_slice_of(s->data + used, s->size - used);
    return part;
}

static bool is_numeric(struct mp_slice s)
{
    for (size_t i = 0; i < s.size; i++)
        if (!is_digit(s.data[i]))
            return false;
    return s.size != 0;
}

/* semver §11.4 */
static int compare_pre(struct mp_slice a, struct mp_slice b)
{
    if (a.size == 0 || b.size == 0)
        return (a.size == 0) - (b.size == 0);
    while (a.size != 0 && b.size != 0) {
        struct mp_slice x = take_identifier(&a);
        struct mp_slice y = take_identifier(&b);
        int order;
        if (is_numeric(x) && is_numeric(y))
            order = x.size != y.size ? (x.size < y.size ? -1 : 1) : mp_slice_compare(x, y);
        else if (is_numeric(x) != is_numeric(y))
            order = is_numeric(x) ? -1 : 1;
        else
            order = mp_slice_compare(x, y);
        if (order != 0)
            return order;
    }
    return (a.size != 0) - (b.size != 0);
}

static int compare_number(uint32_t a, uint32_t b)
{
    return (a > b) - (a < b);
}

int mp_version_compare(const struct mp_version *a, const struct mp_version *b)
{
    int order = compare_number(a->major, b->major);
    if (order == 0)
        order = compare_number(a->minor, b->minor);
    if (order == 0)
        order = compare_number(a->patch, b->patch);
    return order != 0 ? order : compare_pre(a->pre, b->pre);
}

/* Exact: the same rank, and the same build if the constraint names one. */
static bool is_exact(const struct mp_version *want, const struct mp_version *v)
{
    return mp_version_compare(v, want) == 0 &&
           (want->build.size == 0 || mp_slice_equal(want->build, v->build));
}

/* ^1.2.3: the leftmost number that is not 0 stays. */
static bool is_caret(const struct mp_version *want, unsigned parts, const struct mp_version *v)
{
    if (mp_version_compare(v, want) < 0 || v->major != want->major)
        return false;
    if (want->major != 0 || parts < 2)
        return true;
    if (v->minor != want->minor)
        return false;
    return want->minor != 0 || parts < 3 || v->patch == want->patch;
}

/* ~1.2.3: major and minor stay; ~1: major stays. */
static bool is_tilde(const struct mp_version *want, unsigned parts, const struct mp_version *v)
{
    return mp_version_compare(v, want) >= 0 && v->major == want->major &&
           (parts < 2 || v->minor == want->minor);
}

enum verdict { PART_INVALID, PART_NO, PART_YES };

static enum verdict check_part(struct mp_slice part, const struct mp_version *v)
{
    char op = '=';
    bool or_equal = false;
    if (part.size != 0 && !is_digit(part.data[0])) {
        op = (char)part.data[0];
        part = mp_slice_of(part.data + 1, part.size - 1);
        if (op == '>' || op == '<')
            or_equal = take_byte(&part, '=');
        else if (op != '=' && op != '^' && op != '~')
            return PART_INVALID;
    }
    struct mp_version want;
    unsigned parts = read_parts(part, &want);
    if (parts == 0)
        return PART_INVALID;
    int order = mp_version_compare(v, &want);
    bool holds = false;
    switch (op) {
    case '>':
        holds = order > 0 || (or_equal && order == 0);
        break;
    case '<':
        holds = order < 0 || (or_equal && order == 0);
        break;
    case '^':
        holds = is_caret(&want, parts, v);
        break;
    case '~':
        holds = is_tilde(&want, parts, v);
        break;
    default:
        holds = is_exact(&want, v);
    }
    return holds ? PART_YES : PART_NO;
}

static enum verdict check_all(struct mp_slice constraint, const struct mp_version *v)
{
    enum verdict verdict = PART_INVALID;
    size_t i = 0;
    while (i < constraint.size) {
        if (constraint.data[i] == ',' || constraint.data[i] == ' ') {
            i++;
            continue;
        }
        size_t start = i;
        while (i < constraint.size && constraint.data[i] != ',' && constraint.data[i] != ' ')
            i++;
        enum verdict part = check_part(mp_slice_of(constraint.data + start, i - start), v);
        if (part == PART_INVALID)
            return PART_INVALID;
        if (verdict != PART_NO)
            verdict = part;
    }
    return verdict;
}

bool mp_version_constraint_is_valid(struct mp_slice constraint)
{
    const struct mp_version any = {0};
    return constraint.size == 0 || check_all(constraint, &any) != PART_INVALID;
}

bool mp_version_matches(struct mp_slice constraint, const struct mp_version *v)
{
    return constraint.size == 0 || check_all(constraint, v) == PART_YES;
}
