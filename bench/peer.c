/* bench-peer: measures Redis (FCALL), Tarantool (CALL) or bench-echo with the load generator of
 * `mpreg bench`, so that all are measured by the same code.
 *
 *   bench-peer redis|tarantool|echo PORT -c OUTSTANDING -k CONNECTIONS -d SECONDS -s BYTES
 *   bench-peer redis|tarantool PORT … --fib N
 *
 * The echo function gets a string of BYTES; with --fib the function `fib` gets a number. Redis gets
 * its functions from here; Tarantool has them from bench/tarantool.lua. One JSON object is printed.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "src/client/load.h"
#include "src/wire/frame.h"
#include "src/wire/msgpack.h"

#define ANSWER_BYTES_MAX   (1u << 30)
#define LINE_BYTES_MAX     4096
#define TARANTOOL_GREETING 128
#define TARANTOOL_PREFIX   14 /* size, header map, request type, sync */
#define TARANTOOL_SYNC_AT  10
#define DRAIN_SECONDS      5

struct options {
    const char *peer;
    int port;
    uint32_t outstanding;
    uint32_t connections;
    double seconds;
    size_t bytes;
    int fib; /* 0: echo */
};

static void die(const char *what)
{
    fprintf(stderr, "bench-peer: %s%s%s\n", what, errno ? ": " : "", errno ? strerror(errno) : "");
    exit(1);
}

static void *resize(void *context, void *p, size_t old_size, size_t new_size)
{
    (void)context;
    (void)old_size;
    if (new_size == 0) {
        free(p);
        return NULL;
    }
    return realloc(p, new_size);
}

static struct mp_alloc heap = {.resize = resize};

static void must(enum mp_err err)
{
    if (err != MP_OK)
        die(mp_err_text(err));
}

/* --- Redis: answers in order --- */

static const char redis_functions[] =
    "#!lua name=mpreg_bench\n"
    "local function fib(n) if n < 2 then return n end return fib(n - 1) + fib(n - 2) end\n"
    "redis.register_function('echo', function(keys, args) return args[1] end)\n"
    "redis.register_function('fib', function(keys, args) return fib(tonumber(args[1])) end)\n";

static void put_format(struct mp_buf *b, const char *format, size_t number)
{
    char text[64];
    snprintf(text, sizeof(text), format, number);
    must(mp_buf_append(b, mp_slice_str(text)));
}

static void put_bulk(struct mp_buf *b, struct mp_slice s)
{
    put_format(b, "$%zu\r\n", s.size);
    must(mp_buf_append(b, s));
    must(mp_buf_append(b, mp_slice_str("\r\n")));
}

static void redis_request(struct mp_buf *b, const struct options *o, struct mp_slice text)
{
    char number[16];
    snprintf(number, sizeof(number), "%d", o->fib);
    must(mp_buf_append(b, mp_slice_str("*4\r\n")));
    put_bulk(b, mp_slice_str("FCALL"));
    put_bulk(b, mp_slice_str(o->fib ? "fib" : "echo"));
    put_bulk(b, mp_slice_str("0"));
    put_bulk(b, o->fib ? mp_slice_str(number) : text);
}

static enum mp_err redis_parse(void *context, struct mp_slice bytes, struct mp_load_answer *a)
{
    (void)context;
    const uint8_t *end = (const uint8_t *)memchr(bytes.data, '\n', bytes.size);
    if (!end)
        return bytes.size < LINE_BYTES_MAX ? MP_EAGAIN : MP_ECORRUPT;
    size_t line = (size_t)(end - bytes.data) + 1;
    a->size = line;
    if (bytes.data[0] == '-') {
        a->is_error = true;
        snprintf(a->kind, sizeof(a->kind), "%.*s", (int)(line < 80 ? line - 2 : 80),
                 (const char *)bytes.data + 1);
    } else if (bytes.data[0] == '$') {
        long size = strtol((const char *)bytes.data + 1, NULL, 10);
        if (size < 0 || size > ANSWER_BYTES_MAX)
            return MP_ECORRUPT;
        a->size = line + (size_t)size + 2;
    } else if (bytes.data[0] != ':' && bytes.data[0] != '+') {
        return MP_ECORRUPT;
    }
    return bytes.size < a->size ? MP_EAGAIN : MP_OK;
}

/* --- Tarantool: answers by number --- */

static void tarantool_request(struct mp_buf *b, const struct options *o, struct mp_slice text)
{
    static const uint8_t prefix[TARANTOOL_PREFIX] = {0xce, 0,    0,    0,    0,
                                                     0x82, 0x00, 0x0a, 0x01, 0xce};
    must(mp_buf_append(b, mp_slice_of(prefix, sizeof(prefix))));
    must(mp_mp_put_map(b, 2));
    must(mp_mp_put_uint(b, 0x22));
    must(mp_mp_put_text(b, o->fib ? "fib" : "echo"));
    must(mp_mp_put_uint(b, 0x21));
    must(mp_mp_put_array(b, 1));
    must(o->fib ? mp_mp_put_int(b, o->fib) : mp_mp_put_str(b, text));
    uint32_t size = htonl((uint32_t)b->size - 5);
    memcpy(b->data + 1, &size, sizeof(size));
}

static void tarantool_patch(uint8_t *prefix, uint32_t slot)
{
    uint32_t sync = htonl(slot);
    memcpy(prefix + TARANTOOL_SYNC_AT, &sync, sizeof(sync));
}

static enum mp_err tarantool_parse(void *context, struct mp_slice bytes, struct mp_load_answer *a)
{
    (void)context;
    uint32_t size;
    if (bytes.size < 5)
        return MP_EAGAIN;
    if (bytes.data[0] != 0xce)
        return MP_ECORRUPT;
    memcpy(&size, bytes.data + 1, sizeof(size));
    a->size = 5 + (size_t)ntohl(size);
    if (a->size > ANSWER_BYTES_MAX)
        return MP_ECORRUPT;
    if (bytes.size < a->size)
        return MP_EAGAIN;
    struct mp_mp_reader r = mp_mp_reader_of(mp_slice_of(bytes.data + 5, a->size - 5));
    struct mp_mp_token t;
    if (mp_mp_next(&r, &t) != MP_OK || t.type != MP_MP_MAP)
        return MP_ECORRUPT;
    for (uint32_t i = t.count; i != 0; i--) {
        struct mp_mp_token key;
        struct mp_mp_token value;
        if (mp_mp_next(&r, &key) != MP_OK || mp_mp_next(&r, &value) != MP_OK ||
            key.type != MP_MP_UINT || value.type != MP_MP_UINT)
            return MP_ECORRUPT;
        if (key.u == 0 && value.u != 0) {
            a->is_error = true;
            snprintf(a->kind, sizeof(a->kind), "Tarantool error %u", (unsigned)(value.u & 0x7fff));
        }
        if (key.u == 1)
            a->slot = (uint32_t)value.u;
    }
    return MP_OK;
}

/* --- bench-echo: our own frames --- */

static void echo_request(struct mp_buf *b, const struct options *o, struct mp_slice text)
{
    (void)o;
    struct mp_buf meta;
    struct mp_buf args;
    mp_buf_init(&meta, &heap, 0);
    mp_buf_init(&args, &heap, 0);
    const struct mp_call_options options = {.fun = mp_slice_str("mpreg.echo")};
    must(mp_call_options_put(&meta, &options));
    must(mp_mp_put_array(&args, 1));
    must(mp_mp_put_str(&args, text));
    must(mp_frame_put(b, MP_FRAME_CALL, 1, mp_buf_slice(&meta), mp_buf_slice(&args)));
    mp_buf_fini(&args);
    mp_buf_fini(&meta);
}

static void echo_patch(uint8_t *prefix, uint32_t slot)
{
    uint64_t id = (uint64_t)slot + 1;
    memcpy(prefix + 8, &id, sizeof(id));
}

static enum mp_err echo_parse(void *context, struct mp_slice bytes, struct mp_load_answer *a)
{
    (void)context;
    struct mp_frame_header h;
    enum mp_err err = mp_frame_read_header(bytes, ANSWER_BYTES_MAX, &h);
    if (err != MP_OK)
        return err;
    a->size = MP_FRAME_HEADER_BYTES + (size_t)h.size;
    a->slot = (uint32_t)h.id - 1;
    return bytes.size < a->size ? MP_EAGAIN : MP_OK;
}

/* --- connections --- */

static void read_exactly(int fd, void *out, size_t size)
{
    for (size_t done = 0; done < size;) {
        ssize_t n = read(fd, (char *)out + done, size - done);
        if (n <= 0)
            die("read");
        done += (size_t)n;
    }
}

static void greet(const struct options *o, int fd, bool is_first)
{
    if (strcmp(o->peer, "tarantool") == 0) {
        char greeting[TARANTOOL_GREETING];
        read_exactly(fd, greeting, sizeof(greeting));
    } else if (strcmp(o->peer, "echo") == 0) {
        uint8_t preface[MP_PREFACE_BYTES];
        mp_preface_write(preface);
        if (write(fd, preface, sizeof(preface)) != sizeof(preface))
            die("write");
        read_exactly(fd, preface, sizeof(preface));
    } else if (is_first) {
        char answer[256] = {0};
        struct mp_buf b;
        mp_buf_init(&b, &heap, 0);
        must(mp_buf_append(&b, mp_slice_str("*4\r\n$8\r\nFUNCTION\r\n$4\r\nLOAD\r\n"
                                            "$7\r\nREPLACE\r\n")));
        put_bulk(&b, mp_slice_str(redis_functions));
        if (write(fd, b.data, b.size) != (ssize_t)b.size ||
            read(fd, answer, sizeof(answer) - 1) <= 0)
            die("FUNCTION LOAD");
        if (answer[0] != '$') {
            errno = 0;
            die(answer);
        }
        mp_buf_fini(&b);
    }
}

static int connect_one(const struct options *o, bool is_first)
{
    int on = 1;
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_port = htons((uint16_t)o->port),
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || connect(fd, (const struct sockaddr *)&a, sizeof(a)) != 0)
        die("connect");
    greet(o, fd, is_first);
    if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) != 0 ||
        fcntl(fd, F_SETFL, O_NONBLOCK) != 0)
        die("socket");
    return fd;
}

static void read_options(int argc, char **argv, struct options *o)
{
    *o = (struct options){.outstanding = 1, .connections = 1, .seconds = 1, .bytes = 32};
    if (argc < 3)
        die("bench-peer redis|tarantool|echo PORT -c N -k CONNECTIONS -d SECONDS -s BYTES");
    o->peer = argv[1];
    o->port = atoi(argv[2]);
    for (int i = 3; i + 1 < argc; i += 2) {
        const char *value = argv[i + 1];
        if (strcmp(argv[i], "-c") == 0)
            o->outstanding = (uint32_t)atoi(value);
        else if (strcmp(argv[i], "-k") == 0)
            o->connections = (uint32_t)atoi(value);
        else if (strcmp(argv[i], "-d") == 0)
            o->seconds = atof(value);
        else if (strcmp(argv[i], "-s") == 0)
            o->bytes = (size_t)atol(value);
        else if (strcmp(argv[i], "--fib") == 0)
            o->fib = atoi(value);
        else
            die(argv[i]);
    }
}

static void print(const struct mp_load_result *r)
{
    double seconds = (double)r->elapsed / 1e9;
    printf("{\"calls\":%llu,\"errors\":%llu,\"seconds\":%.6f,\"calls_per_s\":%.1f,"
           "\"p50_us\":%.2f,\"p90_us\":%.2f,\"p99_us\":%.2f,\"p999_us\":%.2f,\"max_us\":%.2f}\n",
           (unsigned long long)r->calls, (unsigned long long)r->errors, seconds,
           seconds > 0 ? (double)r->calls / seconds : 0,
           (double)mp_histogram_at(&r->latencies, 0.5) / 1e3,
           (double)mp_histogram_at(&r->latencies, 0.9) / 1e3,
           (double)mp_histogram_at(&r->latencies, 0.99) / 1e3,
           (double)mp_histogram_at(&r->latencies, 0.999) / 1e3, (double)r->latencies.max / 1e3);
    for (uint32_t i = 0; i < r->kinds_count; i++)
        fprintf(stderr, "%s: %llu\n", r->kinds[i].name, (unsigned long long)r->kinds[i].count);
}

int main(int argc, char **argv)
{
    struct options o;
    errno = 0;
    read_options(argc, argv, &o);
    struct mp_buf request;
    mp_buf_init(&request, &heap, 0);
    char *text = (char *)malloc(o.bytes + 1);
    int *fds = (int *)calloc(o.connections + 1, sizeof(int));
    struct mp_load_result *result = (struct mp_load_result *)malloc(sizeof(*result));
    if (!text || !fds || !result)
        die("malloc");
    memset(text, 'x', o.bytes);
    struct mp_slice payload = mp_slice_of(text, o.bytes);
    struct mp_load_protocol p = {0};
    if (strcmp(o.peer, "redis") == 0) {
        redis_request(&request, &o, payload);
        p.parse = redis_parse;
    } else if (strcmp(o.peer, "tarantool") == 0) {
        tarantool_request(&request, &o, payload);
        p.prefix_bytes = TARANTOOL_PREFIX;
        p.patch = tarantool_patch;
        p.parse = tarantool_parse;
    } else if (strcmp(o.peer, "echo") == 0) {
        echo_request(&request, &o, payload);
        p.prefix_bytes = MP_FRAME_HEADER_BYTES;
        p.patch = echo_patch;
        p.parse = echo_parse;
    } else {
        die(o.peer);
    }
    p.request = mp_buf_slice(&request);
    for (uint32_t i = 0; i < o.connections; i++)
        fds[i] = connect_one(&o, i == 0);
    const struct mp_load_config config = {.protocol = &p,
                                          .alloc = &heap,
                                          .fds = fds,
                                          .connections = o.connections,
                                          .outstanding = o.outstanding,
                                          .duration = (mp_duration)(o.seconds * 1e9),
                                          .drain = MP_SECONDS(DRAIN_SECONDS)};
    must(mp_load_run(&config, result));
    print(result);
    return result->errors == 0 ? 0 : 1;
}
