/* SHA-256 and HMAC-SHA256 against the vectors of FIPS 180-4 and RFC 4231.
 * SPDX-License-Identifier: Apache-2.0 */
#include "hmac.h"
#include "test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void check_hex(const uint8_t *digest, const char *want)
{
	char text[2 * TT_SHA256_BYTES + 1];

	for (int i = 0; i < TT_SHA256_BYTES; i++)
		snprintf(text + 2 * i, 3, "%02x", digest[i]);
	CHECKF(strcmp(text, want) == 0, "%s, expected %s", text, want);
}

static void sha_is(const char *text, const char *want)
{
	uint8_t out[TT_SHA256_BYTES];

	tt_sha256(text, strlen(text), out);
	check_hex(out, want);
}

static void sha_vectors(void)
{
	sha_is("", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
	sha_is("abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
	sha_is("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
	       "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
}

static void sha_million(void)
{
	char *text = malloc(1000000);
	uint8_t out[TT_SHA256_BYTES];

	CHECK(text);
	memset(text, 'a', 1000000);
	tt_sha256(text, 1000000, out);
	check_hex(out, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
	free(text);
}

static void hmac_is(uint8_t key, size_t keylen, const char *text, const char *want)
{
	uint8_t keys[131], out[TT_SHA256_BYTES];

	memset(keys, key, sizeof(keys));
	tt_hmac(keys, keylen, text, strlen(text), out);
	check_hex(out, want);
}

static void hmac_vectors(void)
{
	uint8_t out[TT_SHA256_BYTES];
	char data[51] = { 0 };

	hmac_is(0x0b, 20, "Hi There",
		"b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
	tt_hmac((const uint8_t *)"Jefe", 4, "what do ya want for nothing?", 28, out);
	check_hex(out, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
	memset(data, 0xdd, 50);
	hmac_is(0xaa, 20, data,
		"773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe");
	hmac_is(0xaa, 131, "Test Using Larger Than Block-Size Key - Hash Key First",
		"60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
}

static void equality(void)
{
	uint8_t a[TT_SHA256_BYTES] = { 1 }, b[TT_SHA256_BYTES] = { 1 };

	CHECK(tt_hmac_equal(a, b));
	b[TT_SHA256_BYTES - 1] = 0x80;
	CHECK(!tt_hmac_equal(a, b));
}

const struct test tests[] = {
	{ "sha256: vectors", sha_vectors, 0 },
	{ "sha256: a million a", sha_million, 0 },
	{ "hmac: vectors", hmac_vectors, 0 },
	{ "hmac: equality", equality, 0 },
};
const int ntests = sizeof(tests) / sizeof(tests[0]);
