/* Floor 1: SHA-256 (FIPS 180-4) and HMAC-SHA256 (RFC 2104) for the handshake of connections. */
#ifndef TT_HMAC_H
#define TT_HMAC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { TT_SHA256_BYTES = 32 };

void tt_sha256(const void *p, size_t n, uint8_t out[TT_SHA256_BYTES]);
void tt_hmac(const uint8_t *key, size_t keylen, const void *p, size_t n,
	     uint8_t out[TT_SHA256_BYTES]);
/* Whether two digests are equal, in a time that does not tell where they differ. */
bool tt_hmac_equal(const uint8_t a[TT_SHA256_BYTES], const uint8_t b[TT_SHA256_BYTES]);

#endif
