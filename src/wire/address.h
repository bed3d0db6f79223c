/* Where a node is reached: an IP address and a port, TCP and UDP alike. Names are resolved by the
 * host; what travels between nodes is always numeric. */
#pragma once

#include <stdbool.h>

#include "src/base/compiler.h"
#include "src/base/err.h"
#include "src/base/slice.h"
#include "src/base/text.h"

#define MP_ADDRESS_BYTES_MAX 18
#define MP_ADDRESS_TEXT_MAX  64

struct mp_address {
    uint8_t size;                        /* 0: none; 6: IPv4 and port; 18: IPv6 and port */
    uint8_t bytes[MP_ADDRESS_BYTES_MAX]; /* network order, the port last */
};

/* "127.0.0.1:7400" or "[::1]:7400". MP_EINVAL for anything else, names included. */
MP_MUST_USE enum mp_err mp_address_read(struct mp_slice text, struct mp_address *a);
/* From the bytes that travel; MP_ECORRUPT unless there are 6 or 18 of them. */
MP_MUST_USE enum mp_err mp_address_of_bytes(struct mp_slice bytes, struct mp_address *a);
/* As text, IPv6 in the form of RFC 5952; nothing for an empty address. */
void mp_address_put(struct mp_text *t, const struct mp_address *a);
bool mp_address_equal(const struct mp_address *a, const struct mp_address *b);
uint16_t mp_address_port(const struct mp_address *a);

static inline struct mp_slice mp_address_slice(const struct mp_address *a)
{
    return mp_slice_of(a->bytes, a->size);
}
