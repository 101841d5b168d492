/* SHA-256 and HMAC-SHA256, small and plain: they run a few times per connection.
 * SPDX-License-Identifier: Apache-2.0 */
#include "hmac.h"

#include <string.h>

enum { BLOCK = 64 };

struct sha {
	uint32_t h[8];
	uint64_t bytes;
	uint8_t block[BLOCK]; /* the first bytes % BLOCK of it wait for more */
};

static const uint32_t k[64] = {
	0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
	0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
	0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
	0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
	0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
	0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
	0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
	0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static uint32_t rotr(uint32_t x, int n)
{
	return x >> n | x << (32 - n);
}

static uint32_t load_be(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void store_be(uint8_t *p, uint32_t x)
{
	for (int i = 0; i < 4; i++)
		p[i] = (uint8_t)(x >> (24 - 8 * i));
}

/* The message schedule of one block (FIPS 180-4, 6.2.2, step 1). */
static void expand(uint32_t w[64], const uint8_t *block)
{
	for (int i = 0; i < 16; i++)
		w[i] = load_be(block + 4 * i);
	for (int i = 16; i < 64; i++) {
		uint32_t a = w[i - 15], b = w[i - 2];
		uint32_t s0 = rotr(a, 7) ^ rotr(a, 18) ^ (a >> 3);
		uint32_t s1 = rotr(b, 17) ^ rotr(b, 19) ^ (b >> 10);

		w[i] = w[i - 16] + s0 + w[i - 7] + s1;
	}
}

static void compress(uint32_t h[8], const uint8_t *block)
{
	uint32_t w[64], v[8];

	expand(w, block);
	memcpy(v, h, sizeof(v));
	for (int i = 0; i < 64; i++) {
		uint32_t s1 = rotr(v[4], 6) ^ rotr(v[4], 11) ^ rotr(v[4], 25);
		uint32_t s0 = rotr(v[0], 2) ^ rotr(v[0], 13) ^ rotr(v[0], 22);
		uint32_t choice = (v[4] & v[5]) ^ (~v[4] & v[6]);
		uint32_t majority = (v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]);
		uint32_t t = v[7] + s1 + choice + k[i] + w[i];

		memmove(v + 1, v, 7 * sizeof(v[0]));
		v[4] += t;
		v[0] = t + s0 + majority;
	}
	for (int i = 0; i < 8; i++)
		h[i] += v[i];
}

static void sha_begin(struct sha *s)
{
	static const uint32_t start[8] = { 0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
					   0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19 };

	memcpy(s->h, start, sizeof(start));
	s->bytes = 0;
}

static void sha_add(struct sha *s, const void *p, size_t n)
{
	const uint8_t *in = p;

	while (n > 0) {
		size_t held = s->bytes % BLOCK, take = BLOCK - held < n ? BLOCK - held : n;

		memcpy(s->block + held, in, take);
		s->bytes += take;
		in += take;
		n -= take;
		if (s->bytes % BLOCK == 0)
			compress(s->h, s->block);
	}
}

static void sha_end(struct sha *s, uint8_t out[TT_SHA256_BYTES])
{
	static const uint8_t pad[BLOCK] = { 0x80 };
	uint64_t bits = s->bytes * 8;
	uint8_t length[8];

	sha_add(s, pad, 1 + (BLOCK + 55 - s->bytes % BLOCK) % BLOCK);
	store_be(length, (uint32_t)(bits >> 32));
	store_be(length + 4, (uint32_t)bits);
	sha_add(s, length, sizeof(length));
	for (int i = 0; i < 8; i++)
		store_be(out + 4 * i, s->h[i]);
}

void tt_sha256(const void *p, size_t n, uint8_t out[TT_SHA256_BYTES])
{
	struct sha s;

	sha_begin(&s);
	sha_add(&s, p, n);
	sha_end(&s, out);
}

/* One of the two layers: H((key ^ byte) || p). */
static void layer(const uint8_t key[BLOCK], uint8_t byte, const void *p, size_t n, uint8_t *out)
{
	uint8_t mixed[BLOCK];
	struct sha s;

	for (int i = 0; i < BLOCK; i++)
		mixed[i] = key[i] ^ byte;
	sha_begin(&s);
	sha_add(&s, mixed, BLOCK);
	sha_add(&s, p, n);
	sha_end(&s, out);
	explicit_bzero(mixed, sizeof(mixed));
	explicit_bzero(&s, sizeof(s));
}

void tt_hmac(const uint8_t *key, size_t keylen, const void *p, size_t n,
	     uint8_t out[TT_SHA256_BYTES])
{
	uint8_t whole[BLOCK] = { 0 }, inner[TT_SHA256_BYTES];

	if (keylen > BLOCK)
		tt_sha256(key, keylen, whole);
	else if (keylen > 0)
		memcpy(whole, key, keylen);
	layer(whole, 0x36, p, n, inner);
	layer(whole, 0x5c, inner, sizeof(inner), out);
	explicit_bzero(whole, sizeof(whole));
}

bool tt_hmac_equal(const uint8_t a[TT_SHA256_BYTES], const uint8_t b[TT_SHA256_BYTES])
{
	uint8_t differ = 0;

	for (int i = 0; i < TT_SHA256_BYTES; i++)
		differ |= a[i] ^ b[i];
	return differ == 0;
}
