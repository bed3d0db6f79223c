/* The node's log: one line an entry, on stderr, as text or as JSON. Text from outside is escaped,
 * so that nothing a function writes can forge a line or drive a terminal. */
#include <stdarg.h>
#include <stdio.h>
#include <time.h>

#include "src/host/host_internal.h"

#define LINE_BYTES 4096

static struct {
    int level;
    bool is_json;
    const char *node;
} config = {.level = 1, .node = ""};

static const char *const level_names[] = {"debug", "info", "warn", "error"};

void mp_log_init(int level, bool is_json, const char *node)
{
    config.level = level;
    config.is_json = is_json;
    config.node = node;
}

bool mp_log_is_on(int level)
{
    return level >= config.level;
}

struct line {
    char bytes[LINE_BYTES];
    size_t size;
};

static void put(struct line *l, const char *text)
{
    while (*text && l->size < LINE_BYTES - 2)
        l->bytes[l->size++] = *text++;
}

/* Control bytes as JSON writes them, and in JSON also quotes and backslashes. */
static void put_escaped(struct line *l, struct mp_slice s)
{
    for (size_t i = 0; i < s.size && l->size < LINE_BYTES - 16; i++) {
        char escape[8];
        uint8_t c = s.data[i];
        if (config.is_json && (c == '"' || c == '\\'))
            snprintf(escape, sizeof(escape), "\\%c", c);
        else if (c == '\n')
            snprintf(escape, sizeof(escape), "\\n");
        else if (c < 0x20 || c == 0x7f)
            snprintf(escape, sizeof(escape), "\\u%04x", c);
        else
            snprintf(escape, sizeof(escape), "%c", c);
        put(l, escape);
    }
}

static void put_time(struct line *l)
{
    struct timespec now;
    struct tm parts;
    char text[40];
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &parts);
    size_t size = strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &parts);
    snprintf(text + size, sizeof(text) - size, ".%03ldZ", now.tv_nsec / 1000000);
    put(l, text);
}

static void begin(struct line *l, int level)
{
    l->size = 0;
    if (config.is_json) {
        put(l, "{\"at\":\"");
        put_time(l);
        put(l, "\",\"level\":\"");
        put(l, level_names[level]);
        put(l, "\",\"node\":\"");
        put_escaped(l, mp_slice_str(config.node));
        put(l, "\",\"message\":\"");
        return;
    }
    put_time(l);
    put(l, " ");
    put(l, level_names[level]);
    put(l, level == 1 || level == 2 ? "  " : " ");
}

static void finish(struct line *l)
{
    l->bytes[l->size++] = '\n';
    fwrite(l->bytes, 1, l->size, stderr);
}

void mp_log(int level, const char *format, ...)
{
    if (!mp_log_is_on(level))
        return;
    struct line l;
    char text[2048];
    va_list args;
    va_start(args, format);
    int size = vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    begin(&l, level);
    if (size > 0)
        put_escaped(&l, mp_slice_str(text));
    if (config.is_json)
        put(&l, "\"}");
    finish(&l);
}

void mp_log_function(int level, const char *fun, uint32_t worker, struct mp_slice message,
                     struct mp_slice fields_json)
{
    if (!mp_log_is_on(level))
        return;
    struct line l;
    char where[64];
    begin(&l, level);
    put_escaped(&l, message);
    if (config.is_json) {
        snprintf(where, sizeof(where), "\",\"worker\":%u", worker);
        put(&l, where);
        put(&l, ",\"fun\":\"");
        put_escaped(&l, mp_slice_str(fun));
        put(&l, "\"");
        if (fields_json.size != 0 && l.size + fields_json.size < LINE_BYTES - 32) {
            put(&l, ",\"fields\":");
            memcpy(l.bytes + l.size, fields_json.data, fields_json.size);
            l.size += fields_json.size;
        }
        put(&l, "}");
    } else {
        if (fun[0] != '\0') {
            put(&l, "  fun=");
            put_escaped(&l, mp_slice_str(fun));
        }
        snprintf(where, sizeof(where), " worker=%u", worker);
        put(&l, where);
        if (fields_json.size > 2) {
            put(&l, " ");
            if (l.size + fields_json.size < LINE_BYTES - 32) {
                memcpy(l.bytes + l.size, fields_json.data, fields_json.size);
                l.size += fields_json.size;
            }
        }
    }
    finish(&l);
}
