/* Counts past 2^32: more bytes than 32 bits tell, in memory that is mostly never touched. Wants some 5 GiB
 * for each of two ranks, so only with TEST_LONG and only where the machine has it.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <sys/mman.h>

#include "ranks.h"
#include "test.h"

#define BIG (((size_t)1 << 32) + 12345)

static size_t available_bytes(void)
{
	FILE *f = fopen("/proc/meminfo", "re");
	unsigned long long kib = 0;
	char line[128];

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "MemAvailable: %llu", &kib) == 1)
			break;
	if (f)
		fclose(f);
	return (size_t)kib << 10;
}

static unsigned char *sparse(struct rank *r, size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	RANK_CHECKF(r, p != MAP_FAILED, "cannot map %zu bytes", bytes);
	return p;
}

/* Marks at the ends and around 2^31 and 2^32, where a narrow index would land wrong. */
static const size_t marks[] = { 0, 4095, ((size_t)1 << 31) - 1, (size_t)1 << 31, ((size_t)1 << 32) - 1,
				(size_t)1 << 32, BIG - 1 };
enum { MARKS = sizeof(marks) / sizeof(marks[0]) };

static void broadcast_rank(struct rank *r)
{
	unsigned char *p = sparse(r, BIG);

	for (int i = 0; r->rank == 0 && i < MARKS; i++)
		p[marks[i]] = (unsigned char)(i + 1);
	RANK_OK(r, tuttiBroadcast(p, p, BIG, tuttiInt8, 0, r->comm, NULL));
	for (int i = 0; i < MARKS; i++)
		RANK_CHECKF(r, p[marks[i]] == i + 1, "byte %zu is %d, want %d", marks[i], p[marks[i]], i + 1);
	RANK_CHECKF(r, p[1] == 0 && p[BIG - 2] == 0, "bytes between the marks are not zero");
	munmap(p, BIG);
}

static void sum_rank(struct rank *r)
{
	unsigned char *p = sparse(r, BIG);

	for (int i = 0; i < MARKS; i++)
		p[marks[i]] = (unsigned char)(i + 1 + r->rank);
	RANK_OK(r, tuttiAllReduce(p, p, BIG, tuttiUint8, tuttiSum, r->comm, NULL));
	for (int i = 0; i < MARKS; i++)
		RANK_CHECKF(r, p[marks[i]] == 2 * i + 3, "byte %zu is %d, want %d", marks[i], p[marks[i]],
			    2 * i + 3);
	munmap(p, BIG);
}

static void large(void)
{
	if (!test_setting("TEST_LONG", 0)) {
		printf("skipped: set TEST_LONG=1 for counts past 2^32\n");
		return;
	}
	if (available_bytes() < (size_t)10 << 30) {
		printf("skipped: counts past 2^32 want 10 GiB of free memory, here are %.1f\n",
		       (double)available_bytes() / (1 << 30));
		return;
	}
	ranks_run(2, 300, broadcast_rank, NULL);
	ranks_run(2, 300, sum_rank, NULL);
}

const struct test tests[] = { { "counts past 2^32", large, 600 } };
const int ntests = sizeof(tests) / sizeof(tests[0]);
