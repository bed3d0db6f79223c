/* Numbers and base64, both ways. Numbers do not depend on the process's locale, which a function
 * of a user may have changed. */
#include <float.h>
#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/assert.h"
#include "src/json/json_internal.h"

#define EXACT_DIGITS_MAX   15 /* decimal digits that a double always keeps */
#define EXACT_POWER_MAX    22 /* 10^22 is the largest power of ten that is a double */
#define SHORT_DECIMALS_MAX 9

static const double powers[EXACT_POWER_MAX + 1] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                                   1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                                                   1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};

enum mp_json_form mp_json_form_of(struct mp_slice key)
{
    if (key.size < 4 || key.data[0] != '$')
        return MP_JSON_PLAIN;
    if (mp_slice_is(key, "$int"))
        return MP_JSON_INT;
    if (mp_slice_is(key, "$bytes"))
        return MP_JSON_BYTES;
    return mp_slice_is(key, "$lit") ? MP_JSON_LIT : MP_JSON_PLAIN;
}

/* Few digits times or by an exact power of ten is one rounding, hence right (W. D. Clinger, "How to
 * read floating point numbers accurately", 1990). False: use the long way. */
static bool read_short(const char *text, size_t size, double *v)
{
    size_t i = text[0] == '-';
    uint64_t digits = 0;
    int count = 0;
    int exponent = 0;
    bool is_fraction = false;
    for (; i < size && text[i] != 'e' && text[i] != 'E'; i++) {
        if (text[i] == '.') {
            is_fraction = true;
            continue;
        }
        digits = digits * 10 + (uint64_t)(text[i] - '0');
        exponent -= is_fraction;
        count += count != 0 || text[i] != '0';
        if (count > EXACT_DIGITS_MAX)
            return false;
    }
    if (i < size) {
        i++;
        bool is_negative = text[i] == '-';
        i += text[i] == '-' || text[i] == '+';
        int power = 0;
        for (; i < size && power < 1000; i++)
            power = power * 10 + (text[i] - '0');
        exponent += is_negative ? -power : power;
    }
    if (exponent < -EXACT_POWER_MAX || exponent > EXACT_POWER_MAX)
        return false;
    double d = (double)digits;
    d = exponent < 0 ? d / powers[-exponent] : d * powers[exponent];
    *v = text[0] == '-' ? -d : d;
    return true;
}

double mp_json_number_read(const char *text, size_t size)
{
    double v;
    if (read_short(text, size, &v))
        return v;
    /* the end of the token is no end of the text: copy, and if it is long, to the heap */
    char local[128];
    char *copy = size < sizeof(local) ? local : (char *)malloc(size + 1);
    if (!copy)
        abort();
    memcpy(copy, text, size);
    copy[size] = '\0';
    locale_t plain = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    v = strtod_l(copy, NULL, plain);
    freelocale(plain);
    if (copy != local)
        free(copy);
    return v;
}

size_t mp_json_uint_print(uint64_t v, char text[MP_JSON_NUMBER_BYTES])
{
    char digits[20];
    size_t at = sizeof(digits);
    do {
        digits[--at] = (char)('0' + v % 10);
        v /= 10;
    } while (v != 0);
    memcpy(text, digits + at, sizeof(digits) - at);
    return sizeof(digits) - at;
}

/* Numbers with few decimals, the usual ones: if v is an integer of at most 15 digits over a power
 * of ten, those digits are what %.15g prints. */
static size_t print_short(double v, char *text)
{
    double magnitude = fabs(v);
    if (magnitude < 1e-4 || magnitude >= 1e15)
        return 0;
    for (int decimals = 0; decimals <= SHORT_DECIMALS_MAX; decimals++) {
        double scaled = magnitude * powers[decimals];
        if (scaled >= 1e15)
            return 0;
        uint64_t whole = (uint64_t)(scaled + 0.5);
        if ((double)whole / powers[decimals] != magnitude)
            continue;
        uint64_t unit = (uint64_t)powers[decimals];
        size_t size = 0;
        if (v < 0)
            text[size++] = '-';
        size += mp_json_uint_print(whole / unit, text + size);
        if (decimals == 0)
            return size;
        char fraction[MP_JSON_NUMBER_BYTES];
        size_t digits = mp_json_uint_print(whole % unit + unit, fraction);
        text[size++] = '.';
        memcpy(text + size, fraction + 1, digits - 1);
        return size + digits - 1;
    }
    return 0;
}

static size_t print_long(double v, char *text)
{
    locale_t plain = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    locale_t before = uselocale(plain);
    int size = 0;
    for (int digits = EXACT_DIGITS_MAX; digits <= DBL_DECIMAL_DIG; digits++) {
        size = snprintf(text, MP_JSON_NUMBER_BYTES, "%.*g", digits, v);
        if (strtod(text, NULL) == v)
            break;
    }
    uselocale(before);
    freelocale(plain);
    return (size_t)size;
}

size_t mp_json_number_print(double v, char text[MP_JSON_NUMBER_BYTES])
{
    mp_assert(isfinite(v));
    size_t size = print_short(v, text);
    if (size != 0)
        return size;
    size = print_long(v, text);
    mp_assert(size != 0 && size + 2 < MP_JSON_NUMBER_BYTES);
    if (fabs(v) > (double)MP_JSON_EXACT_MAX && !memchr(text, '.', size) &&
        !memchr(text, 'e', size)) {
        memcpy(text + size, ".0", 2);
        size += 2;
    }
    return size;
}

bool mp_json_int_read(struct mp_slice text, bool *is_negative, uint64_t *bits)
{
    bool has_sign = text.size != 0 && text.data[0] == '-';
    const uint8_t *digits = text.data + has_sign;
    size_t count = text.size - has_sign;
    if (count == 0 || count > 20 || (digits[0] == '0' && text.size != 1))
        return false;
    uint64_t v = 0;
    for (size_t i = 0; i < count; i++) {
        if (digits[i] < '0' || digits[i] > '9')
            return false;
        unsigned digit = digits[i] - '0';
        if (v > (UINT64_MAX - digit) / 10)
            return false;
        v = v * 10 + digit;
    }
    if (has_sign && v > (uint64_t)1 << 63)
        return false;
    *is_negative = has_sign;
    *bits = has_sign ? 0 - v : v;
    return true;
}

static int base64_digit(uint8_t c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

bool mp_json_base64_read(struct mp_slice text, uint8_t *out, size_t *size)
{
    if (text.size % 4 != 0)
        return false;
    size_t padding = 0;
    while (padding < 2 && padding < text.size && text.data[text.size - 1 - padding] == '=')
        padding++;
    size_t written = 0;
    for (size_t i = 0; i < text.size; i += 4) {
        bool is_last = i + 4 == text.size;
        uint32_t group = 0;
        for (size_t k = 0; k < 4; k++) {
            bool is_pad = is_last && k >= 4 - padding;
            int digit = is_pad ? 0 : base64_digit(text.data[i + k]);
            if (digit < 0)
                return false;
            group = group << 6 | (uint32_t)digit;
        }
        size_t bytes = is_last ? 3 - padding : 3;
        /* bits that say nothing must be zero: one text for one value */
        if ((group & ((1u << (8 * (3 - bytes))) - 1)) != 0)
            return false;
        for (size_t k = 0; k < bytes; k++)
            out[written++] = (uint8_t)(group >> (16 - 8 * k));
    }
    *size = written;
    return true;
}

void mp_json_base64_print(struct mp_slice bytes, uint8_t *out)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < bytes.size; i += 3) {
        size_t left = bytes.size - i;
        uint32_t group = (uint32_t)bytes.data[i] << 16;
        if (left > 1)
            group |= (uint32_t)bytes.data[i + 1] << 8;
        if (left > 2)
            group |= bytes.data[i + 2];
        *out++ = (uint8_t)digits[group >> 18];
        *out++ = (uint8_t)digits[group >> 12 & 63];
        *out++ = left > 1 ? (uint8_t)digits[group >> 6 & 63] : '=';
        *out++ = left > 2 ? (uint8_t)digits[group & 63] : '=';
    }
}
