/* JSON of any bytes: text → MessagePack → text → the same MessagePack, in every layout; and any
 * bytes as MessagePack, printed. The first byte chooses the options. */
#include <stdio.h>
#include <stdlib.h>

#include "spec/support/alloc.h"
#include "src/base/assert.h"
#include "src/json/json.h"
#include "src/wire/msgpack.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct world {
    struct spec_alloc memory;
    struct mp_alloc alloc;
    struct mp_buf bytes;
    struct mp_buf text;
    struct mp_buf again;
    struct mp_json_error error;
};

static void check_error(const struct mp_json_error *error)
{
    mp_assert(error->message[0] != '\0');
    mp_assert(mp_slice_is_utf8(mp_slice_str(error->path)));
    mp_assert(mp_slice_is_utf8(mp_slice_str(error->message)));
}

static void check_text(struct mp_slice text)
{
    mp_assert(mp_slice_is_utf8(text));
    for (size_t i = 0; i < text.size; i++)
        mp_assert(text.data[i] >= 0x20 || text.data[i] == '\n');
}

/* Keys in sorted order come back in another, so there only the size can be compared. */
static void read_back(struct world *w, const struct mp_json_options *opt)
{
    mp_buf_clear(&w->text);
    mp_buf_clear(&w->again);
    mp_assert(mp_json_from_msgpack(mp_buf_slice(&w->bytes), &w->text, opt, &w->error) == MP_OK);
    check_text(mp_buf_slice(&w->text));
    mp_assert(mp_json_to_msgpack(mp_buf_slice(&w->text), &w->again, opt, &w->error) == MP_OK);
    mp_assert(w->again.size == w->bytes.size);
    mp_assert(opt->sort_keys || mp_slice_equal(mp_buf_slice(&w->again), mp_buf_slice(&w->bytes)));
}

static void from_text(struct world *w, struct mp_slice text, struct mp_json_options opt)
{
    mp_buf_clear(&w->bytes);
    w->error = (struct mp_json_error){.message = ""};
    if (mp_json_to_msgpack(text, &w->bytes, &opt, &w->error) != MP_OK) {
        mp_assert(w->bytes.size == 0 && w->error.line != 0 && w->error.column != 0);
        check_error(&w->error);
        return;
    }
    mp_assert(mp_mp_check(mp_buf_slice(&w->bytes)) == MP_OK);
    for (unsigned layout = 0; layout < 4; layout++) {
        opt.pretty = layout & 1;
        opt.sort_keys = layout & 2;
        read_back(w, &opt);
    }
}

static void from_bytes(struct world *w, struct mp_slice bytes, const struct mp_json_options *opt)
{
    mp_buf_clear(&w->text);
    w->error = (struct mp_json_error){.message = ""};
    if (mp_json_from_msgpack(bytes, &w->text, opt, &w->error) == MP_OK)
        check_text(mp_buf_slice(&w->text));
    else
        mp_assert(w->text.size == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    static struct world w;
    w.memory = (struct spec_alloc){.fail_at = SPEC_NEVER};
    w.alloc = spec_alloc_of(&w.memory);
    mp_buf_init(&w.bytes, &w.alloc, 0);
    mp_buf_init(&w.text, &w.alloc, 0);
    mp_buf_init(&w.again, &w.alloc, 0);
    struct mp_json_options opt = {
        .graph = data[0] & 1, .pretty = data[0] & 2, .sort_keys = data[0] & 4};
    struct mp_slice rest = mp_slice_of(data + 1, size - 1);
    from_text(&w, rest, opt);
    from_bytes(&w, rest, &opt);
    mp_buf_fini(&w.bytes);
    mp_buf_fini(&w.text);
    mp_buf_fini(&w.again);
    mp_assert(w.memory.live_bytes == 0);
    return 0;
}
