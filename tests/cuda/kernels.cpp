/* The kernels of src/cuda_kernels.cu, compiled for the host and run a thread after the other, against the host's own
 * reductions: all types and operators, sizes about words and tiles, buffers that begin anywhere, in place. Half, which
 * devices convert by instructions (cvt.rn.f16.f32, cvt.f32.f16), against what PTX says of those: to the nearest, ties to
 * even, small numbers kept. What it cannot show: that devices do so, and speed. SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define __device__
#define __forceinline__ inline
#define __global__
#define __grid_constant__
#define __launch_bounds__(...)

struct uint4 {
	unsigned x, y, z, w;
};
struct index3 {
	unsigned x;
};
static index3 blockIdx, blockDim, gridDim, threadIdx;

#include "../../src/cuda_kernels.cu"

extern "C" {
#define restrict
#include "tutti.h"
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
void tt_reduce_pre(void *dst, const void *src, size_t n, tuttiDataType_t type, const tt_op *op);
void tt_reduce_post(void *dst, const void *src, size_t n, tuttiDataType_t type, const tt_op *op);
size_t tt_type_size(tuttiDataType_t t);
const char *tt_type_name(tuttiDataType_t t);
int tt_pieces(int coll, int nranks, int root, size_t count, tt_piece *out);
}

typedef void (*fold_fn)(tt_cuda_fold);
typedef void (*scale_fn)(tt_cuda_scale);
typedef void (*all_fn)(tt_cuda_all);
struct row {
	tuttiDataType_t type;
	fold_fn fold[4];
	scale_fn pre, post;
	all_fn all[4];
};
#define ROW(t, name)                                                                               \
	{ t, { tt_sum_##name, tt_prod_##name, tt_max_##name, tt_min_##name }, tt_pre_##name, tt_post_##name, \
	  { tt_all_sum_##name, tt_all_prod_##name, tt_all_max_##name, tt_all_min_##name } }
static const row rows[] = {
	ROW(tuttiInt8, int8), ROW(tuttiUint8, uint8), ROW(tuttiInt32, int32), ROW(tuttiUint32, uint32),
	ROW(tuttiInt64, int64), ROW(tuttiUint64, uint64), ROW(tuttiFloat32, float), ROW(tuttiFloat64, double),
	ROW(tuttiFloat16, half), ROW(tuttiBfloat16, bfloat16), ROW(tuttiFloat8e4m3, f8e4m3),
	ROW(tuttiFloat8e5m2, f8e5m2),
};

enum { ROOM = 70000, MANY = 5 };
alignas(64) static unsigned char source[MANY][ROOM], mine[ROOM], theirs[ROOM];
static uint64_t seed = 1;
static int tests, failures;

static uint32_t roll(uint32_t n)
{
	seed = seed * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(seed >> 33) % n;
}

template <class Fn, class Args> static void run(Fn fn, const Args &args, unsigned blocks, unsigned threads)
{
	gridDim.x = blocks;
	blockDim.x = threads;
	for (blockIdx.x = 0; blockIdx.x < blocks; blockIdx.x++)
		for (threadIdx.x = 0; threadIdx.x < threads; threadIdx.x++)
			fn(args);
}

/* NaNs are equal: of which payload, devices and hosts decide. */
static bool is_nan(tuttiDataType_t type, const unsigned char *p)
{
	uint16_t h;
	float f;
	double d;

	switch (type) {
	case tuttiFloat32:
		memcpy(&f, p, 4);
		return isnan(f);
	case tuttiFloat64:
		memcpy(&d, p, 8);
		return isnan(d);
	case tuttiFloat16:
		memcpy(&h, p, 2);
		return (h & 0x7fff) > 0x7c00;
	case tuttiBfloat16:
		memcpy(&h, p, 2);
		return (h & 0x7fff) > 0x7f80;
	case tuttiFloat8e4m3:
		return (*p & 0x7f) == 0x7f;
	case tuttiFloat8e5m2:
		return (*p & 0x7f) > 0x7c;
	default:
		return false;
	}
}

static void compare(const row &r, const char *what, size_t n, size_t at, const unsigned char *got)
{
	size_t size = tt_type_size(r.type);

	tests++;
	for (size_t i = 0; i < n; i++) {
		const unsigned char *a = got + i * size, *b = theirs + at + i * size;

		if (memcmp(a, b, size) && !(is_nan(r.type, a) && is_nan(r.type, b))) {
			failures++;
			printf("FAIL %s %s, %zu elements: element %zu\n", what, tt_type_name(r.type), n, i);
			return;
		}
	}
	if (got == mine + at && (mine[at + n * size] != 0xa5 || (at && mine[at - 1] != 0xa5))) {
		failures++;
		printf("FAIL %s %s, %zu elements: wrote beside them\n", what, tt_type_name(r.type), n);
	}
}

/* Random bits hold every special value; small numbers besides, as most pairs of random ones saturate. */
static void fill(tuttiDataType_t type)
{
	bool small = roll(2);

	for (int k = 0; k < MANY; k++)
		for (size_t i = 0; i < ROOM; i++)
			source[k][i] = (unsigned char)roll(256);
	if (small && type == tuttiFloat32)
		for (int k = 0; k < MANY; k++)
			for (size_t i = 0; i + 4 <= ROOM; i += 4) {
				float f = (float)((int)roll(2000) - 1000) / 7;

				memcpy(source[k] + i, &f, 4);
			}
	memset(mine, 0xa5, sizeof(mine));
	memset(theirs, 0xa5, sizeof(theirs));
}

static void folds(const row &r, size_t n, bool together)
{
	static const char *const names[] = { "sum", "prod", "max", "min" };
	size_t size = tt_type_size(r.type), at = roll(40) * (together ? size : 1);

	for (int op = 0; op < 4; op++) {
		tt_op o = {};
		tt_cuda_fold a = {};
		const void *src[MANY];
		bool in_place;

		fill(r.type);
		o.kind = op;
		o.commutative = true;
		a.n = n;
		a.nsrc = 2 + (int)roll(MANY - 1);
		in_place = roll(3) == 0;
		for (int k = 0; k < a.nsrc; k++)
			a.src[k] = src[k] = source[k] + (together ? at : roll(40));
		tt_reduce_run(theirs + at, src, a.nsrc, n, r.type, &o, 0);
		a.dst = in_place ? (void *)src[roll((uint32_t)a.nsrc)] : mine + at;
		run(r.fold[op], a, 1 + roll(4), 32);
		compare(r, names[op], n, at, (unsigned char *)a.dst);
	}
}

static void scales(const row &r, size_t n, bool together)
{
	size_t size = tt_type_size(r.type), at = roll(40) * (together ? size : 1);

	for (int post = 0; post < 2; post++) {
		tt_op o = {};
		tt_cuda_scale a = {};

		fill(r.type);
		o.kind = post ? (int)tuttiAvg : 5;
		o.nranks = a.divisor = 1 + (int)roll(300);
		memcpy(&o.scalar, source[1], size);
		if (roll(2))
			a.factor = o.scalar;
		else
			a.factor_at = source[1]; /* as it is in a device's memory */
		a.n = n;
		a.src = source[0] + (together ? at : roll(40));
		(post ? tt_reduce_post : tt_reduce_pre)(theirs + at, a.src, n, r.type, &o);
		a.dst = roll(3) ? mine + at : (void *)a.src;
		run(post ? r.post : r.pre, a, 1 + roll(4), 32);
		compare(r, post ? "avg" : "premulsum", n, at, (unsigned char *)a.dst);
	}
}

/* ---- all ranks at once: collectives as pieces, ranks in place and not ---- */

enum { ALLREDUCE, ALLGATHER, REDUCESCATTER, BROADCAST, REDUCE }; /* of enum tt_coll */
enum { AVG = 4, PREMULSUM, COPY };
alignas(64) static unsigned char result[MANY][ROOM], before[2][MANY][ROOM];

static bool by_block(int coll)
{
	return coll == ALLGATHER || coll == REDUCESCATTER;
}

static all_fn kernel_of(const row &r, int op)
{
	static const all_fn copies[] = { tt_all_copy_1, tt_all_copy_2, tt_all_copy_4, tt_all_copy_8 };

	return op == COPY ? copies[__builtin_ctzl(tt_type_size(r.type))] : r.all[op < AVG ? op : 0];
}

static void place_buffers(tt_cuda_all &a, int coll, int p, size_t block, size_t size, bool together)
{
	size_t at = roll(40) * (together ? size : 1);

	for (int k = 0; k < p; k++) {
		size_t shift = (size_t)k * block, here = together ? at : roll(40);
		unsigned char *in = source[k] + here, *out = result[k] + (together ? at : roll(40));

		if (roll(2))
			out = coll == REDUCESCATTER ? in + shift : in;
		a.src[k] = coll == ALLGATHER && out == in ? in + shift : in;
		a.dst[k] = out;
	}
}

static uint64_t factors[MANY];

/* What the host makes of a piece, from memory as it was. */
static void expect(const row &r, const tt_cuda_all &a, const tt_piece &p, const tt_op &o, int op)
{
	static unsigned char scaled[MANY][ROOM];
	size_t size = tt_type_size(r.type);
	const void *src[MANY];

	for (int k = 0; k < p.nsrc; k++) {
		const unsigned char *at = (const unsigned char *)a.src[p.src + k];
		bool in_source = at >= source[0] && at < source[0] + sizeof(source);
		tt_op pre = o;

		src[k] = (in_source ? before[0][0] + (at - source[0]) : before[1][0] + (at - result[0])) +
			 p.src_at * size;
		pre.scalar = factors[p.src + k];
		if (op != PREMULSUM)
			continue;
		tt_reduce_pre(scaled[k], src[k], p.n, r.type, &pre);
		src[k] = scaled[k];
	}
	if (op == COPY)
		memcpy(theirs, src[0], p.n * size);
	else
		tt_reduce_run(theirs, src, p.nsrc, p.n, r.type, &o, 0);
	if (op == AVG)
		tt_reduce_post(theirs, theirs, p.n, r.type, &o);
}

/* Every output; then, with the outputs as they were, that nothing else has changed. */
static void compare_all(const row &r, const tt_cuda_all &a, const tt_op &o, int op)
{
	static const char *const names[] = { "all sum", "all prod", "all max", "all min", "all avg", "all premulsum",
					     "all copy" };
	size_t size = tt_type_size(r.type);

	for (unsigned b = 0; b < a.npieces; b++) {
		const tt_piece &p = a.piece[b];

		expect(r, a, p, o, op);
		for (int k = 0; k < p.ndst; k++)
			compare(r, names[op], p.n, 0, (unsigned char *)a.dst[p.dst + k] + p.dst_at * size);
	}
	for (unsigned b = 0; b < a.npieces; b++)
		for (int k = 0; k < a.piece[b].ndst; k++) {
			unsigned char *at = (unsigned char *)a.dst[a.piece[b].dst + k] + a.piece[b].dst_at * size;
			bool in_source = at >= source[0] && at < source[0] + sizeof(source);

			memcpy(at, in_source ? before[0][0] + (at - source[0]) : before[1][0] + (at - result[0]),
			       a.piece[b].n * size);
		}
	if (memcmp(source, before[0], sizeof(source)) || memcmp(result, before[1], sizeof(result))) {
		failures++;
		printf("FAIL %s %s: wrote beside its outputs\n", names[op], tt_type_name(r.type));
	}
}

static void alls(const row &r, size_t n, bool together)
{
	static const int reducing[] = { ALLREDUCE, REDUCESCATTER, REDUCE }, moving[] = { ALLGATHER, BROADCAST };
	size_t size = tt_type_size(r.type);

	for (int op = 0; op <= COPY; op++) {
		int coll = op == COPY ? moving[roll(2)] : reducing[roll(3)], p = 1 + (int)roll(MANY);
		size_t count = by_block(coll) ? n / (size_t)p : n;
		tt_cuda_all a = {};
		tt_op o = {};

		fill(r.type);
		memset(result, 0xa5, sizeof(result));
		place_buffers(a, coll, p, by_block(coll) ? count * size : 0, size, together);
		memcpy(before[0], source, sizeof(source));
		memcpy(before[1], result, sizeof(result));
		a.npieces = (unsigned)tt_pieces(coll, p, (int)roll((uint32_t)p), count, a.piece);
		if (!a.npieces)
			continue;
		o.kind = op < AVG ? op : op == AVG ? (int)tuttiAvg : 5;
		o.commutative = true;
		o.nranks = p;
		a.divisor = op == AVG ? p : 0;
		a.scales = op == PREMULSUM;
		for (int k = 0; k < p; k++) {
			memcpy(&factors[k], source[k] + 8 * k, size);
			a.factor[k] = factors[k];
			if (roll(2)) {
				a.factor[k] = (uintptr_t)&factors[k];
				a.factors_at |= (uint64_t)1 << k;
			}
		}
		/* One rank's sum is a copy: no number is rounded. */
		run(kernel_of(r, p == 1 && op < AVG ? (int)COPY : op), a, a.npieces * (1 + roll(3)), 32);
		compare_all(r, a, o, op);
	}
}

/* ---- half ---- */

static uint16_t half_of(double a) /* not negative */
{
	double ulp = a < 0x1p-14 ? 0x1p-24 : ldexp(1, ilogb(a) - 10), v = nearbyint(a / ulp) * ulp;

	if (isinf(a) || v > 65504)
		return 0x7c00;
	return (uint16_t)(v < 0x1p-14 ? v * 0x1p24 : ldexp(v, 10 - ilogb(v)) + 1024 * (ilogb(v) + 14));
}

static bool half_is_right(uint32_t bits)
{
	float f = float_of(bits);
	uint16_t h = f16_from(f);

	if (f != f)
		return (h & 0x7c00) == 0x7c00 && (h & 0x3ff);
	return h == (half_of(f < 0 ? -f : f) | (bits >> 16 & 0x8000));
}

/* All that rounding depends on; TEST_LONG=1: all there are. */
static void halves(void)
{
	static const uint32_t low[] = { 0, 1, 0xfff, 0x1000, 0x1001, 0x1fff };
	bool all = getenv("TEST_LONG");
	long wrong = 0;

	for (uint32_t high = 0; high < 1u << 19; high++)
		for (uint32_t i = 0; i < (all ? 1u << 13 : 6); i++)
			wrong += !half_is_right(high << 13 | (all ? i : low[i]));
	tests++;
	failures += wrong != 0;
	if (wrong)
		printf("FAIL float to half: %ld wrong\n", wrong);
	wrong = 0;
	for (uint32_t h = 0; h < 1u << 16; h++) {
		double m = h & 0x3ff, want = h & 0x7c00 ? ldexp(1024 + m, (int)(h >> 10 & 31) - 25) : ldexp(m, -24);
		float f = f16_to((uint16_t)h), a = fabsf(f);

		if ((h & 0x7c00) != 0x7c00)
			wrong += a != want || signbit(f) != (h >> 15 != 0);
		else
			wrong += h & 0x3ff ? f == f : !isinf(f) || signbit(f) != (h >> 15 != 0);
	}
	tests++;
	failures += wrong != 0;
	if (wrong)
		printf("FAIL half to float: %ld wrong\n", wrong);
}

int main(void)
{
	halves();
	static const size_t sizes[] = { 0, 1, 2, 3, 7, 8, 15, 16, 17, 33, 100, 511, 512, 513, 1030, 4100, 8200 };

	for (const row &r : rows)
		for (size_t n : sizes)
			for (int together = 0; together < 2; together++) {
				folds(r, n, together);
				scales(r, n, together);
				alls(r, n, together);
			}
	printf("%d passed, %d failed\n", tests - failures, failures);
	return failures != 0;
}
