/* Modules of a node by their numbers. Its own files are found and read once, before the loop runs.
 * A file's module name is its name without ".lua"; in a folder, the path from that folder with
 * dots, and init.lua stands for its folder. Specs are passed over. Behind them are those of the
 * units that are loaded (units.c), each unit's in a row; a number is given anew once its unit is
 * unloaded. */
#include <dirent.h>
#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "src/base/assert.h"
#include "src/host/host_internal.h"
#include "src/wire/msgpack.h"

static char *join(const char *a, const char *separator, const char *b)
{
    size_t size = strlen(a) + strlen(separator) + strlen(b) + 1;
    char *joined = mp_xalloc(size);
    snprintf(joined, size, "%s%s%s", a, separator, b);
    return joined;
}

static bool ends_with(const char *text, const char *end)
{
    size_t size = strlen(text);
    size_t end_size = strlen(end);
    return size >= end_size && strcmp(text + size - end_size, end) == 0;
}

static bool read_file(const char *path, uint8_t **bytes, size_t *size)
{
    FILE *f = fopen(path, "rb");
    struct stat st;
    if (!f || fstat(fileno(f), &st) != 0 || !S_ISREG(st.st_mode)) {
        mp_log(3, "module file %s cannot be read: %s", path,
               f ? "it is no regular file" : strerror(errno));
        if (f)
            fclose(f);
        return false;
    }
    if (st.st_size > MP_MODULE_BYTES_MAX) {
        mp_log(3, "module file %s is left out: %lld bytes are more than 16 MiB", path,
               (long long)st.st_size);
        fclose(f);
        return false;
    }
    *bytes = mp_xalloc((size_t)st.st_size + 1);
    *size = fread(*bytes, 1, (size_t)st.st_size, f);
    fclose(f);
    return true;
}

void mp_host_sha256(struct mp_slice bytes, uint8_t hash[MP_UNIT_HASH_BYTES])
{
    unsigned size = MP_UNIT_HASH_BYTES;
    /* Hashing needs nothing of the system's OpenSSL configuration, which takes a while to read. */
    OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG, NULL);
    bool is_hashed = EVP_Digest(bytes.data, bytes.size, hash, &size, EVP_sha256(), NULL) == 1;
    mp_assert(is_hashed);
}

static void hash_source(struct mp_host_module *m)
{
    uint8_t hash[MP_UNIT_HASH_BYTES];
    mp_host_sha256(mp_slice_of(m->source, m->source_size), hash);
    for (unsigned i = 0; i < MP_UNIT_HASH_BYTES; i++)
        snprintf(m->hash + 2 * i, 3, "%02x", hash[i]);
}

static void grow(struct mp_modules *m, uint32_t count)
{
    if (count <= m->capacity)
        return;
    uint32_t capacity = m->capacity == 0 ? 16 : m->capacity * 2;
    while (capacity < count)
        capacity *= 2;
    struct mp_host_module *items = mp_xalloc(capacity * sizeof(*items));
    if (m->count != 0)
        memcpy(items, m->items, m->count * sizeof(*items));
    free(m->items);
    m->items = items;
    m->capacity = capacity;
}

/* Takes `own_name`. */
static void add_file(struct mp_modules *m, const char *path, char *own_name)
{
    uint8_t *source = NULL;
    size_t size = 0;
    if (!mp_slice_is_dotted_name(mp_slice_str(own_name))) {
        mp_log(3, "module file %s is left out: \"%s\" is no module name (letters, digits, _ and -)",
               path, own_name);
        free(own_name);
        return;
    }
    if (m->count == MP_MODULES_MAX || !read_file(path, &source, &size)) {
        if (m->count == MP_MODULES_MAX)
            mp_log(3, "module file %s is left out: there are %d modules already", path,
                   MP_MODULES_MAX);
        free(own_name);
        return;
    }
    grow(m, m->count + 1);
    struct mp_host_module *module = &m->items[m->count++];
    m->own_count = m->count;
    *module = (struct mp_host_module){
        .name = own_name, .path = join(path, "", ""), .source = source, .source_size = size};
    mp_buf_init(&module->expected, mp_host_alloc(), 0);
    hash_source(module);
}

/* "geo" and "grid" make "geo.grid"; init stands for the folder itself. */
static char *module_name(const char *prefix, const char *file)
{
    char *stem = join(file, "", "");
    stem[strlen(stem) - 4] = '\0';
    char *name;
    if (strcmp(stem, "init") == 0 && prefix[0] != '\0')
        name = join(prefix, "", "");
    else
        name = join(prefix, prefix[0] != '\0' ? "." : "", stem);
    free(stem);
    return name;
}

static int keep_entry(const struct dirent *e)
{
    return e->d_name[0] != '.' && strcmp(e->d_name, "spec") != 0;
}

static void add_folder(struct mp_modules *m, const char *path, const char *prefix, unsigned depth)
{
    struct dirent **entries = NULL;
    int count = scandir(path, &entries, keep_entry, alphasort);
    if (count < 0) {
        mp_log(3, "folder %s cannot be read: %s", path, strerror(errno));
        return;
    }
    for (int i = 0; i < count; i++) {
        const char *name = entries[i]->d_name;
        char *inner = join(path, "/", name);
        struct stat st;
        if (stat(inner, &st) == 0 && S_ISDIR(st.st_mode) && depth < MP_LOAD_FOLDER_DEPTH_MAX) {
            char *inner_prefix = join(prefix, prefix[0] != '\0' ? "." : "", name);
            add_folder(m, inner, inner_prefix, depth + 1);
            free(inner_prefix);
        } else if (ends_with(name, ".lua") && !ends_with(name, "_spec.lua")) {
            add_file(m, inner, module_name(prefix, name));
        }
        free(inner);
        free(entries[i]);
    }
    free(entries);
}

bool mp_modules_add(struct mp_modules *m, const char *path)
{
    struct stat st;
    if (stat(path, &st) != 0) {
        mp_log(3, "--load %s: %s", path, strerror(errno));
        return false;
    }
    if (S_ISDIR(st.st_mode)) {
        add_folder(m, path, "", 0);
        return true;
    }
    const char *slash = strrchr(path, '/');
    const char *file = slash ? slash + 1 : path;
    if (!ends_with(file, ".lua")) {
        mp_log(3, "--load %s: a module file ends in .lua", path);
        return false;
    }
    add_file(m, path, module_name("", file));
    return true;
}

void mp_modules_fini(struct mp_modules *m)
{
    for (uint32_t i = 0; i < m->count; i++) {
        free(m->items[i].name);
        free(m->items[i].path);
        if (m->items[i].unit == 0)
            free(m->items[i].source);
        mp_buf_fini(&m->items[i].expected);
    }
    free(m->items);
    *m = (struct mp_modules){0};
}

/* --- places of deployed modules --- */

bool mp_modules_reserve(struct mp_modules *m, uint32_t count, uint32_t *first)
{
    uint32_t free_count = 0;
    uint32_t i = m->own_count;
    while (free_count < count && i < m->count)
        free_count = m->items[i++].unit == MP_MODULE_FREE ? free_count + 1 : 0;
    uint32_t at = i - free_count;
    if (count > MP_MODULE_NUMBERS_MAX || at > MP_MODULE_NUMBERS_MAX - count)
        return false;
    grow(m, at + count);
    for (uint32_t k = m->count; k < at + count; k++)
        m->items[k] = (struct mp_host_module){.unit = MP_MODULE_FREE};
    if (m->count < at + count)
        m->count = at + count;
    *first = at;
    return true;
}

void mp_modules_free_places(struct mp_modules *m, uint32_t first, uint32_t count)
{
    for (uint32_t i = first; i < first + count; i++) {
        free(m->items[i].name);
        mp_buf_fini(&m->items[i].expected);
        m->items[i] = (struct mp_host_module){.unit = MP_MODULE_FREE};
    }
    while (m->count > m->own_count && m->items[m->count - 1].unit == MP_MODULE_FREE)
        m->count--;
}

void mp_module_keep_expected(struct mp_host_module *module, struct mp_slice metadata)
{
    struct mp_slice list;
    struct mp_mp_reader r;
    uint32_t count;
    if (mp_mp_map_get(metadata, mp_slice_str("functions"), &list) != MP_OK ||
        mp_mp_get_array(list, &count, &r) != MP_OK)
        return;
    enum mp_err err = mp_mp_put_array(&module->expected, count);
    for (uint32_t i = 0; err == MP_OK && i < count; i++) {
        struct mp_slice function;
        struct mp_slice name;
        err = mp_mp_take(&r, &function);
        if (err == MP_OK)
            err = mp_mp_map_get(function, mp_slice_str("name"), &name);
        if (err == MP_OK)
            err = mp_mp_put_raw(&module->expected, name);
    }
    if (err != MP_OK)
        mp_buf_clear(&module->expected);
}
