/* Data of which every result is known exactly, bit for bit, whatever the order of the additions: small
 * integers whose partial results all fit into the type's significand, so no tolerance is needed.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "perf_common.h"

const char *const perf_type_names[tuttiNumTypes] = { "int8",   "uint8", "int32",  "uint32",
						     "int64",  "uint64", "half",  "float",
						     "double", "bfloat16", "f8e4m3", "f8e5m2" };
const char *const perf_op_names[PERF_NOPS] = { "sum", "prod", "max", "min", "avg", "mulsum" };

/* exact: all integers up to it are values of the type; two: the largest power of two to multiply up to,
 * at most 62, so that expected results can be worked out in 64 bits. */
static const struct {
	uint8_t size;
	bool is_float, is_signed;
	int8_t exp_bits, man_bits;
	int exact, two;
} types[tuttiNumTypes] = {
	[tuttiInt8] = { 1, false, true, 0, 0, 127, 6 },
	[tuttiUint8] = { 1, false, false, 0, 0, 255, 7 },
	[tuttiInt32] = { 4, false, true, 0, 0, 1 << 20, 30 },
	[tuttiUint32] = { 4, false, false, 0, 0, 1 << 20, 31 },
	[tuttiInt64] = { 8, false, true, 0, 0, 1 << 20, 62 },
	[tuttiUint64] = { 8, false, false, 0, 0, 1 << 20, 62 },
	[tuttiFloat16] = { 2, true, true, 5, 10, 2048, 15 },
	[tuttiFloat32] = { 4, true, true, 8, 23, 1 << 24, 62 },
	[tuttiFloat64] = { 8, true, true, 11, 52, 1 << 24, 62 },
	[tuttiBfloat16] = { 2, true, true, 8, 7, 256, 62 },
	[tuttiFloat8e4m3] = { 1, true, true, 4, 3, 16, 8 },
	[tuttiFloat8e5m2] = { 1, true, true, 5, 2, 8, 15 },
};

/* The data repeats after a prime number of elements: cheap to make, and a chunk in a wrong place shows. */
enum { PERIOD = 4099 };

size_t perf_type_size(tuttiDataType_t type)
{
	return types[type].size;
}

/* Writes v, which the type can hold exactly. */
static void encode(tuttiDataType_t type, int64_t v, void *out)
{
	uint64_t bits = (uint64_t)v;

	if (types[type].is_float && v) {
		int eb = types[type].exp_bits, mb = types[type].man_bits, e;
		double m = frexp(fabs((double)v), &e); /* |v| = m * 2^e, m in [0.5, 1) */
		uint64_t frac = (uint64_t)ldexp(2 * m - 1, mb);
		uint64_t exp = (uint64_t)(e - 1 + (1 << (eb - 1)) - 1);

		bits = ((uint64_t)(v < 0) << (eb + mb)) | exp << mb | frac;
	}
	memcpy(out, &bits, types[type].size); /* little endian */
}

static uint32_t mix(uint64_t x)
{
	x ^= x >> 33;
	x *= 0xff51afd7ed558ccdull;
	x ^= x >> 29;
	x *= 0xc4ceb9fe1a85ec53ull;
	return (uint32_t)(x >> 32);
}

/* A value of at most `limit` in size, of either sign where the type has one. */
static int64_t spread(uint32_t h, int limit, bool is_signed)
{
	return is_signed ? (int64_t)(h % (2u * (unsigned)limit + 1)) - limit
			 : (int64_t)(h % ((unsigned)limit + 1));
}

/* The average is `base` exactly: what one rank has more another has less. */
static int64_t average_part(const struct perf_case *c, int turn, uint32_t base_hash, int limit)
{
	int base = limit >= 2 ? 1 + (int)(base_hash % (unsigned)(limit - 1)) : 0;

	if (limit < 2)
		return c->nranks > 1 && turn == 0 ? 1 : c->nranks > 1 && turn == 1 ? -1 : 0;
	if (turn == c->nranks - 1 && c->nranks % 2)
		return base;
	return turn % 2 ? base + 1 : base - 1;
}

/* Rank `rank`'s input at element i. Where not all ranks can add something without leaving the exact
 * range, only as many as fit do, and which ones moves with i. */
static int64_t value(const struct perf_case *c, int rank, size_t i)
{
	int exact = types[c->type].exact, two = types[c->type].two;
	bool sign = types[c->type].is_signed;
	uint32_t h = mix(c->seed << 40 ^ (uint64_t)(rank + 1) << 24 ^ i);
	int turn = (int)(((size_t)rank + i) % (size_t)c->nranks);
	int limit = exact / c->nranks;

	switch (c->op) {
	case tuttiProd:
		return turn < two && h & 1 ? (sign && h & 2 ? -2 : 2) : (sign && h & 4 ? -1 : 1);
	case tuttiMax:
	case tuttiMin:
		return spread(h, exact, sign);
	case tuttiAvg:
		return average_part(c, turn, mix(c->seed << 40 ^ i), limit);
	case PERF_MULSUM:
		limit /= 2;
		return limit ? spread(h, limit, sign) : turn < exact / 2;
	default:
		return limit ? spread(h, limit, sign) : turn < exact;
	}
}

static int64_t scalar_of(int rank)
{
	return 1 + rank % 2;
}

void perf_mulsum_scalar(tuttiDataType_t type, int rank, void *out)
{
	encode(type, scalar_of(rank), out);
}

/* Unsigned arithmetic wraps as the integer types do. */
static int64_t reduce_value(const struct perf_case *c, size_t i)
{
	uint64_t acc = (uint64_t)value(c, 0, i) * (uint64_t)(c->op == PERF_MULSUM ? scalar_of(0) : 1);

	for (int r = 1; r < c->nranks; r++) {
		int64_t v = value(c, r, i);

		if (c->op == tuttiProd)
			acc *= (uint64_t)v;
		else if (c->op == tuttiMax)
			acc = (int64_t)acc > v ? acc : (uint64_t)v;
		else if (c->op == tuttiMin)
			acc = (int64_t)acc < v ? acc : (uint64_t)v;
		else
			acc += (uint64_t)v * (uint64_t)(c->op == PERF_MULSUM ? scalar_of(r) : 1);
	}
	return c->op == tuttiAvg ? (int64_t)acc / c->nranks : (int64_t)acc;
}

/* Fills out from one period of the data. */
static void repeat(const uint8_t *period, size_t size, size_t first, size_t count, uint8_t *out)
{
	size_t done = 0, at = first % PERIOD;

	while (done < count) {
		size_t n = PERIOD - at < count - done ? PERIOD - at : count - done;

		memcpy(out + done * size, period + at * size, n * size);
		done += n;
		at = 0;
	}
}

static void fill(const struct perf_case *c, int rank, size_t first, size_t count, void *out)
{
	static _Thread_local uint8_t period[PERIOD * 8];
	size_t size = types[c->type].size, n = count < PERIOD ? count : PERIOD;

	for (size_t k = 0; k < n; k++) {
		size_t i = (first + k) % PERIOD;

		encode(c->type, rank < 0 ? reduce_value(c, i) : value(c, rank, i), period + i * size);
	}
	repeat(period, size, first, count, out);
}

void perf_input(const struct perf_case *c, int rank, size_t first, size_t count, void *out)
{
	fill(c, rank, first, count, out);
}

void perf_reduced(const struct perf_case *c, size_t first, size_t count, void *out)
{
	fill(c, -1, first, count, out);
}
