/* What strangers and broken peers may send: every parser of boot on any bytes, which must neither read past the
 * end nor pass on what is not sane. SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "boot_wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

static void expect(bool sane)
{
	if (!sane)
		__builtin_trap();
}

/* Reads all that a table points to, so that a sanitizer sees a pointer that is out of it. */
static unsigned int walk_table(const uint8_t *p, size_t n)
{
	int ranks = tt_table_check(p, n), i;
	const void **entries, *blob;
	size_t *sizes, blob_size, k;
	unsigned int sum = 0;

	if (ranks == 0)
		return 0;
	entries = calloc((size_t)ranks, sizeof(*entries));
	sizes = calloc((size_t)ranks, sizeof(*sizes));
	expect(entries != NULL && sizes != NULL);
	tt_table_point(p, entries, sizes, &blob, &blob_size);
	for (i = 0; i < ranks; i++)
		for (k = 0; k < sizes[i]; k++)
			sum += ((const uint8_t *)entries[i])[k];
	for (k = 0; k < blob_size; k++)
		sum += ((const uint8_t *)blob)[k];
	free(entries);
	free(sizes);
	return sum;
}

static void walk_frame(const struct tt_frame *f)
{
	char words[64];
	struct tt_proc proc;
	struct tt_join join;
	struct tt_hello hello;
	const uint8_t *entry;
	uint64_t first;
	size_t size;

	if (tt_proc_parse(f->p, f->n, &proc))
		expect(proc.naddrs <= TT_MAX_ADDRS && memchr(proc.host, 0, sizeof(proc.host)) != NULL);
	if (tt_join_parse(f->p, f->n, &join, &entry, &size))
		expect(join.rank < join.n && entry + size == f->p + f->n);
	if (tt_words_parse(f->p, f->n, 8, &first, words, sizeof(words)))
		expect(strlen(words) < sizeof(words));
	if (f->n >= sizeof(hello)) {
		memcpy(&hello, f->p, sizeof(hello));
		expect(!tt_hello_valid(&hello) || strlen(hello.transport) < sizeof(hello.transport));
	}
	walk_table(f->p, f->n);
}

static void walk_id(const uint8_t *p, size_t n)
{
	struct tt_root_id id;
	struct tt_addr a = { .family = 4 };
	size_t at = 0, len;

	if (n < sizeof(id))
		return;
	memcpy(&id, p, sizeof(id));
	for (; (len = tt_id_get(&id, at, &a)) > 0; at += len)
		expect((a.family == 4 || a.family == 6) && at + len <= sizeof(id.addrs));
	expect(!tt_id_valid(&id) || (at > 0 && at == id.used));
	tt_id_put(&id, &a); /* onto any bytes */
	expect(id.used <= sizeof(id.addrs) || memcmp(&id, p, sizeof(id)) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	struct tt_frame f = { .p = p, .n = n };
	size_t at = 0;
	int64_t used;

	walk_id(p, n);
	walk_frame(&f);
	while ((used = tt_frame_next(p + at, n - at, 1 << 16, &f)) > 0) {
		expect(f.p + f.n <= p + n);
		walk_frame(&f);
		at += (size_t)used;
	}
	return 0;
}
