/* An operator of one's own that does not commute: functions x -> a x + b applied in rank order.
 * Run it with tutti-run -n 4. SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <tutti.h>

enum { COUNT = 1000 };

/* One element is one function: a in the upper half, b in the lower, both modulo 2^32. */
static uint64_t function(uint32_t a, uint32_t b)
{
	return (uint64_t)a << 32 | b;
}

/* First f, then g. */
static uint64_t then(uint64_t f, uint64_t g)
{
	uint32_t fa = (uint32_t)(f >> 32), fb = (uint32_t)f, ga = (uint32_t)(g >> 32), gb = (uint32_t)g;

	return function(ga * fa, ga * fb + gb);
}

/* `in` holds the lower ranks. tutti may call it for any part of the data, whole elements at a time. */
static void compose(const void *in, void *inout, size_t count, tuttiDataType_t type, void *context)
{
	const uint64_t *f = in;
	uint64_t *g = inout;

	for (size_t i = 0; i < count; i++)
		g[i] = then(f[i], g[i]);
}

static uint64_t input(int rank, int i)
{
	return function(2 * (uint32_t)rank + 3, (uint32_t)(rank * 7 + i));
}

int main(void)
{
	static uint64_t data[COUNT];
	tuttiComm_t comm;
	tuttiRedOp_t op;
	int rank, size, wrong = 0;

	if (tuttiCommInitFromEnv(&comm, NULL) != tuttiSuccess)
		goto fail;
	tuttiCommUserRank(comm, &rank);
	tuttiCommCount(comm, &size);
	if (tuttiRedOpCreateUser(&op, compose, 0 /* does not commute */, NULL, comm) != tuttiSuccess)
		goto fail;
	for (int i = 0; i < COUNT; i++)
		data[i] = input(rank, i);
	if (tuttiAllReduce(data, data, COUNT, tuttiUint64, op, comm, NULL) != tuttiSuccess)
		goto fail;
	tuttiRedOpDestroy(op, comm);
	tuttiCommDestroy(comm);

	for (int i = 0; i < COUNT; i++) {
		uint64_t expected = input(0, i);

		for (int r = 1; r < size; r++)
			expected = then(expected, input(r, i));
		wrong += data[i] != expected;
	}
	printf("rank %d: %d of %d wrong\n", rank, wrong, COUNT);
	return wrong != 0;
fail:
	fprintf(stderr, "%s\n", tuttiGetLastError(NULL));
	return 1;
}
