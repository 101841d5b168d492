/* What the threads of a block do to bytes in src/dev_kernels.cu, compiled for the host and run a thread after the
 * other, against the host's own reductions and copies. The rest of the kernel is src/dev_run.h, which
 * tests/unit/interpreter.c runs. SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define __device__
#define __forceinline__ inline __attribute__((unused))
#define __global__
#define __grid_constant__
#define __shared__
#define __launch_bounds__(...)

struct uint4 {
	unsigned x, y, z, w;
};
struct index3 {
	unsigned x;
};
static index3 blockIdx, blockDim, threadIdx;

static inline void __syncthreads(void)
{
}

static inline int __syncthreads_or(int x)
{
	return x;
}

#include "../../src/dev_kernels.cu"

extern "C" {
struct tt_op {
	int kind;
	bool commutative;
	int nranks;
	uint64_t scalar;
	tuttiUserOp_t fn;
	void *context;
};
void tt_reduce_run(void *dst, const void *const *src, int nsrc, size_t n, tuttiDataType_t type, const tt_op *op,
		   int store);
size_t tt_type_size(tuttiDataType_t t);
}

enum { ROOM = 20000, MANY = 5, THREADS = 32 };
alignas(64) static char source[MANY][ROOM], mine[ROOM], theirs[ROOM];
static uint64_t seed = 1;
static int tests, failures;

static uint32_t roll(uint32_t n)
{
	seed = seed * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(seed >> 33) % n;
}

/* Of random bits in floats some are NaNs, whose payloads may differ; small numbers are none. */
static void fill(bool floats)
{
	for (int k = 0; k < MANY; k++)
		for (size_t i = 0; i < ROOM; i++)
			source[k][i] = (char)(roll(256) & (floats ? 0x3b : 0xff));
	memset(mine, 0x5a, sizeof(mine));
	memset(theirs, 0x5a, sizeof(theirs));
}

static void compare(const char *what, int type, size_t n)
{
	tests++;
	if (!memcmp(mine, theirs, ROOM))
		return;
	failures++;
	printf("FAIL %s of type %d, %zu elements\n", what, type, n);
}

static void copies(size_t n)
{
	size_t to = roll(40), from = roll(2) ? to : roll(40);

	fill(false);
	memcpy(theirs + to, source[0] + from, n);
	for (threadIdx.x = 0; threadIdx.x < THREADS; threadIdx.x++)
		dev_copy(mine + to, source[0] + from, n);
	compare("a copy", -1, n);
}

static void folds(int type, size_t n, bool together)
{
	size_t size = tt_type_size((tuttiDataType_t)type), at = roll(40) * (together ? size : 1);

	for (int op = 0; op < 4; op++) {
		struct tt_dev_launch launch = {};
		struct tt_dev_bind bind = {};
		struct dev_shared shared;
		struct dev_block b = {};
		tt_op o = {};
		int nsrc = 2 + (int)roll(MANY - 1);

		fill(type >= tuttiFloat16);
		launch.op = (uint32_t)op;
		bind.type = (uint32_t)type;
		b.launch = &launch;
		b.bind = &bind;
		b.shared = &shared;
		o.kind = op;
		o.commutative = true;
		for (int k = 0; k < nsrc; k++)
			shared.src[k] = source[k] + (together ? at : roll(40));
		tt_reduce_run(theirs + at, shared.src, nsrc, n, (tuttiDataType_t)type, &o, 0);
		for (threadIdx.x = 0; threadIdx.x < THREADS; threadIdx.x++)
			dev_reduce(&b, mine + at, (uint32_t)nsrc, n);
		compare("a fold", type, n);
	}
}

int main(void)
{
	static const size_t sizes[] = { 0, 1, 2, 3, 7, 8, 15, 16, 17, 33, 100, 511, 513, 2050 };

	blockDim.x = THREADS;
	for (size_t n : sizes) {
		for (int i = 0; i < 20; i++)
			copies(n);
		for (int type = 0; type < tuttiNumTypes; type++)
			for (int together = 0; together < 2; together++)
				folds(type, n, together);
	}
	printf("%d passed, %d failed\n", tests - failures, failures);
	return failures != 0;
}
