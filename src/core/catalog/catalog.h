/* Which functions, pipelines and resources there are, and who has them. Today it knows its own
 * node; entries of other nodes will stand beside it, which is why answers speak of nodes. */
#pragma once

#include <stdbool.h>

#include "src/base/alloc.h"
#include "src/base/buf.h"
#include "src/base/compiler.h"
#include "src/base/err.h"
#include "src/base/map.h"
#include "src/base/slice.h"
#include "src/base/text.h"
#include "src/base/time.h"
#include "src/core/catalog/version.h"
#include "src/wire/error.h"

#define MP_CATALOG_NONE UINT32_MAX

struct mp_catalog_function {
    struct mp_slice name; /* module.function */
    uint32_t key;         /* its place in the catalog: dense, stable */
    uint32_t module;
    uint32_t index;        /* in the module's list, as workers number it */
    uint32_t next;         /* the same name in another version, or MP_CATALOG_NONE */
    struct mp_slice needs; /* a MessagePack array of names, or empty */
    uint32_t concurrency;  /* at once on this node; 0: no limit */
    mp_duration timeout;   /* of one call; 0: none of its own */
    bool is_idempotent;
    struct mp_slice metadata; /* the map that the module described it with */
    /* how long the node refuses it from now on; the node sets it before it asks for the document */
    uint64_t refused_ms;
};

struct mp_catalog_module {
    struct mp_slice name;
    struct mp_slice version_text;
    struct mp_version version;
    struct mp_slice hash;     /* hex of the content's SHA-256 */
    struct mp_slice metadata; /* as the worker described it */
    struct mp_slice graph;    /* of a pipeline; else empty */
    uint32_t host_module;     /* the number under which host and workers know it */
    uint32_t first_function;
    uint32_t function_count;
    bool is_pipeline;
};

struct mp_catalog {
    /* read */
    uint32_t module_count;
    uint32_t function_count;
    struct mp_catalog_module *modules;
    struct mp_catalog_function *functions;
    struct mp_slice node;
    struct mp_slice cluster;
    /* private */
    uint32_t module_capacity;
    uint32_t function_capacity;
    struct mp_slice *resources;
    uint32_t resource_count;
    struct mp_map by_name;   /* function name -> highest version's key */
    struct mp_map pipelines; /* pipeline name -> module */
    struct mp_buf names;     /* of node, cluster, resources */
    struct mp_alloc *alloc;
    char why[256];
};

struct mp_catalog_config {
    struct mp_slice node;
    struct mp_slice cluster;
    const struct mp_slice *resources; /* names; all copied */
    uint32_t resource_count;
};

enum mp_catalog_event_kind { MP_CATALOG_ADD };

struct mp_catalog_event {
    enum mp_catalog_event_kind kind;
    struct {
        uint32_t host_module;
        struct mp_slice name;
        struct mp_slice hash;
        struct mp_slice metadata; /* copied */
    } add;
};

enum mp_catalog_effect_kind {
    MP_CATALOG_CHANGED, /* there are new functions: who waits for one may try again */
    MP_CATALOG_REFUSED  /* not added; `why` says so (valid until the next step) */
};

struct mp_catalog_effects {
    enum mp_catalog_effect_kind kind;
    const char *why;
};

MP_MUST_USE enum mp_err mp_catalog_init(struct mp_catalog *c, const struct mp_catalog_config *cfg,
                                        struct mp_alloc *a, uint64_t seed);
/* Always exactly one effect. MP_ENOMEM leaves the catalog as before. */
MP_MUST_USE enum mp_err mp_catalog_step(struct mp_catalog *c, mp_time now,
                                        const struct mp_catalog_event *ev,
                                        struct mp_catalog_effects *out);
mp_time mp_catalog_deadline(const struct mp_catalog *c);
void mp_catalog_fini(struct mp_catalog *c);

/* What a caller asks for. */
struct mp_catalog_query {
    struct mp_slice fun;
    struct mp_slice version;
    struct mp_slice on;
    struct mp_slice cluster;
    const struct mp_slice *needs;
    uint32_t needs_count;
};

/* The provider for a query, or NULL; mp_catalog_explain then says why. */
const struct mp_catalog_function *mp_catalog_find(const struct mp_catalog *c,
                                                  const struct mp_catalog_query *q);
/* Whether waiting could help: a provider may still appear. False for what is refused for good (bad
 * name, another cluster). */
bool mp_catalog_may_appear(const struct mp_catalog *c, const struct mp_catalog_query *q);

/* Why find() gave nothing: fills in code, reason, message, hint, fun. Texts lie in the two buffers.
 */
void mp_catalog_explain(const struct mp_catalog *c, const struct mp_catalog_query *q,
                        struct mp_fault *fault, struct mp_text *message, struct mp_text *hint);
/* The graph of a pipeline by name; false and a fault as above if there is none. */
bool mp_catalog_pipeline(const struct mp_catalog *c, struct mp_slice name, struct mp_slice *graph,
                         struct mp_fault *fault, struct mp_text *message, struct mp_text *hint);

/* Documents of the commands: {"functions": [...]}, {"modules": [...]}, in order of name, the
 * highest version first. */
MP_MUST_USE enum mp_err mp_catalog_put_functions(const struct mp_catalog *c, struct mp_buf *out);
MP_MUST_USE enum mp_err mp_catalog_put_modules(const struct mp_catalog *c, struct mp_buf *out);
/* The node's own resources, an array of names. */
MP_MUST_USE enum mp_err mp_catalog_put_resources(const struct mp_catalog *c, struct mp_buf *out);
