/* The plain reference of the collectives: types, operators, tolerance. See ref.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include "ref.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* One row a type. Floats: exponent and mantissa bits; `budget` is the largest integer up to which all
 * integers are representable, halved, or less to keep numbers readable. */
struct ref_type {
	const char *name;
	size_t size;
	bool is_signed;
	int ebits, mbits;
	int64_t budget;
};

static const struct ref_type types[tuttiNumTypes] = {
	[tuttiInt8] = { "int8", 1, true, 0, 0, 0 },
	[tuttiUint8] = { "uint8", 1, false, 0, 0, 0 },
	[tuttiInt32] = { "int32", 4, true, 0, 0, 0 },
	[tuttiUint32] = { "uint32", 4, false, 0, 0, 0 },
	[tuttiInt64] = { "int64", 8, true, 0, 0, 0 },
	[tuttiUint64] = { "uint64", 8, false, 0, 0, 0 },
	[tuttiFloat16] = { "half", 2, true, 5, 10, 1024 },
	[tuttiFloat32] = { "float", 4, true, 8, 23, 1 << 20 },
	[tuttiFloat64] = { "double", 8, true, 11, 52, (int64_t)1 << 40 },
	[tuttiBfloat16] = { "bfloat16", 2, true, 8, 7, 128 },
	[tuttiFloat8e4m3] = { "f8e4m3", 1, true, 4, 3, 16 },
	[tuttiFloat8e5m2] = { "f8e5m2", 1, true, 5, 2, 8 },
};

uint64_t ref_mix(uint64_t a, uint64_t b)
{
	uint64_t z = a + 0x9e3779b97f4a7c15u * (b + 1);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

size_t ref_size(tuttiDataType_t type)
{
	return types[type].size;
}

const char *ref_type_name(tuttiDataType_t type)
{
	return types[type].name;
}

const char *ref_op_name(int op)
{
	static const char *const names[] = { "sum", "prod", "max", "min", "avg", "premulsum", "user",
					     "copy" };

	return names[op];
}

bool ref_is_float(tuttiDataType_t type)
{
	return types[type].ebits > 0;
}

/* ---- floats of any width ---- */

static double from_bits(uint64_t bits)
{
	double d;

	memcpy(&d, &bits, sizeof(d));
	return d;
}

static double pow2(int e)
{
	return e < -1022 ? pow2(e + 512) * pow2(-512) : from_bits((uint64_t)(e + 1023) << 52);
}

static int exponent(double x) /* of a normal number */
{
	uint64_t bits;

	memcpy(&bits, &x, sizeof(bits));
	return (int)(bits >> 52 & 0x7ff) - 1023;
}

static double nan_value(void)
{
	return from_bits(0x7ff8000000000000u);
}

static bool is_nan(double x)
{
	return x != x;
}

static double decode_small(uint64_t bits, const struct ref_type *t)
{
	int bias = (1 << (t->ebits - 1)) - 1, top = (1 << t->ebits) - 1;
	int e = (int)(bits >> t->mbits) & top;
	uint64_t m = bits & (((uint64_t)1 << t->mbits) - 1);
	double sign = bits >> (t->ebits + t->mbits) & 1 ? -1.0 : 1.0;
	bool fn = t->ebits == 4; /* e4m3: no infinity, one NaN */

	if (e == top && !fn)
		return m ? nan_value() : sign / 0.0;
	if (e == top && fn && m == 7)
		return nan_value();
	if (e == 0)
		return sign * (double)m * pow2(1 - bias - t->mbits);
	return sign * (double)(m | (uint64_t)1 << t->mbits) * pow2(e - bias - t->mbits);
}

double ref_decode(uint64_t bits, tuttiDataType_t type)
{
	if (type == tuttiFloat64)
		return from_bits(bits);
	if (type == tuttiFloat32) {
		uint32_t low = (uint32_t)bits;
		float f;

		memcpy(&f, &low, sizeof(f));
		return f;
	}
	return decode_small(bits, &types[type]);
}

static uint64_t round_even(double x)
{
	uint64_t low = (uint64_t)x;
	double rest = x - (double)low;

	return low + (rest > 0.5 || (rest == 0.5 && (low & 1)));
}

/* Overflow goes to infinity, or to NaN where there is none; the data here stays far below. */
static uint64_t encode_small(double x, const struct ref_type *t)
{
	int bias = (1 << (t->ebits - 1)) - 1, top = (1 << t->ebits) - 1, e = 1;
	bool fn = t->ebits == 4;
	uint64_t sign, m, inf = (uint64_t)top << t->mbits;

	if (is_nan(x))
		return fn ? inf | 7 : inf | (uint64_t)1 << (t->mbits - 1);
	sign = x < 0 || (x == 0 && 1 / x < 0);
	x = sign ? -x : x;
	sign <<= t->ebits + t->mbits;
	if (x >= pow2(top - bias + 1))
		return sign | inf | (fn ? 7 : 0);
	if (x >= pow2(1 - bias))
		e = exponent(x) + bias;
	m = round_even(x * pow2(t->mbits + bias - e)); /* carries into the exponent as it should */
	m += m >> t->mbits ? (uint64_t)(e - 1) << t->mbits : 0;
	return sign | (m > inf && !fn ? inf : m);
}

uint64_t ref_encode(double value, tuttiDataType_t type)
{
	uint64_t bits = 0;

	if (type == tuttiFloat64) {
		memcpy(&bits, &value, sizeof(value));
	} else if (type == tuttiFloat32) {
		float f = (float)value;
		uint32_t low;

		memcpy(&low, &f, sizeof(f));
		bits = low;
	} else {
		bits = encode_small(value, &types[type]);
	}
	return bits;
}

/* ---- what goes in ---- */

static uint64_t mask(tuttiDataType_t type)
{
	return types[type].size == 8 ? ~(uint64_t)0 : ((uint64_t)1 << 8 * types[type].size) - 1;
}

static int64_t sign_extend(uint64_t bits, tuttiDataType_t type)
{
	int shift = 64 - 8 * (int)types[type].size;

	return types[type].is_signed ? (int64_t)(bits << shift) >> shift : (int64_t)bits;
}

/* A signed integer of magnitude at most budget / n; with fewer than one to spend, only some ranks do. */
static double exact_summand(const struct ref_case *c, int rank, uint64_t h, uint64_t hi)
{
	int64_t budget = types[c->type].budget / (c->op == REF_PREMULSUM ? 2 : 1);
	int64_t per = budget / c->n;

	if (per >= 1)
		return (double)((int64_t)(h % (uint64_t)(2 * per + 1)) - per);
	if (((uint64_t)rank + hi) % (uint64_t)c->n >= (uint64_t)budget)
		return 0.0;
	return h & 1 ? 1.0 : -1.0;
}

static double exact_factor(const struct ref_case *c, int rank, uint64_t h, uint64_t hi)
{
	static const double factors[] = { 1.0, 2.0, -2.0, 0.5, -0.5, -1.0 };

	if (((uint64_t)rank + hi) % (uint64_t)c->n >= 4)
		return 1.0;
	return factors[h % 6];
}

static double float_value(const struct ref_case *c, int rank, size_t i)
{
	uint64_t hi = ref_mix(c->seed, i), h = ref_mix(hi, (uint64_t)rank);
	double unit = (double)(h >> 12) / 4503599627370496.0; /* 0 .. 1 */

	if (c->nans && hi % 61 == 0 && (hi >> 32) % (uint64_t)c->n == (uint64_t)rank)
		return nan_value();
	if (c->op == tuttiMax || c->op == tuttiMin)
		return (unit - 0.5) * 100.0;
	if (c->op == tuttiProd)
		return c->wide ? 0.75 + unit * 0.5 : exact_factor(c, rank, h, hi);
	if (c->wide)
		return (h & 1 ? 1.0 : -1.0) * (0.25 + 3.75 * unit);
	return exact_summand(c, rank, h, hi);
}

static uint64_t value_bits(const struct ref_case *c, int rank, size_t i)
{
	uint64_t h;

	if (ref_is_float(c->type) && c->op < REF_USER)
		return ref_encode(float_value(c, rank, i), c->type);
	h = ref_mix(ref_mix(c->seed, i), (uint64_t)rank);
	if (c->op == tuttiAvg) /* the sum of 17 fits */
		return (types[c->type].is_signed ? h % 15 - 7 : h % 15) & mask(c->type);
	return h & mask(c->type);
}

void ref_fill(const struct ref_case *c, int rank, size_t first, size_t count, void *dst)
{
	size_t size = types[c->type].size;

	for (size_t i = 0; i < count; i++) {
		uint64_t bits = value_bits(c, rank, first + i);

		memcpy((char *)dst + i * size, &bits, size); /* little endian, as the library */
	}
}

static uint64_t scalar_bits(const struct ref_case *c, int rank)
{
	uint64_t h = ref_mix(~c->seed, (uint64_t)rank);

	if (!ref_is_float(c->type))
		return h & mask(c->type);
	if (c->wide)
		return ref_encode(0.5 + (double)(h % 5) * 0.25, c->type);
	return ref_encode(h & 1 ? 2.0 : 1.0, c->type);
}

void ref_scalar(const struct ref_case *c, int rank, void *dst)
{
	uint64_t bits = scalar_bits(c, rank);

	memcpy(dst, &bits, types[c->type].size);
}

/* ---- what comes out ---- */

/* (a, b) is x -> a x + b in integers of half the width: associative, not commutative. */
static uint64_t user_combine(bool commutative, uint64_t low, uint64_t high, tuttiDataType_t type)
{
	int half = 4 * (int)types[type].size;
	uint64_t m = ((uint64_t)1 << half) - 1;
	uint64_t a1 = low >> half & m, b1 = low & m, a2 = high >> half & m, b2 = high & m;

	if (commutative)
		return low ^ high;
	return (a1 * a2 & m) << half | ((a1 * b2 + b1) & m);
}

void ref_user(const void *in, void *inout, size_t count, tuttiDataType_t type, void *context)
{
	const struct ref_case *c = context;
	size_t size = types[type].size;

	for (size_t i = 0; i < count; i++) {
		uint64_t a = 0, b = 0;

		memcpy(&a, (const char *)in + i * size, size);
		memcpy(&b, (char *)inout + i * size, size);
		b = user_combine(c->commutative, a, b, type);
		memcpy((char *)inout + i * size, &b, size);
	}
}

static uint64_t int_step(const struct ref_case *c, uint64_t a, uint64_t b)
{
	int64_t x = sign_extend(a, c->type), y = sign_extend(b, c->type);
	bool less = types[c->type].is_signed ? x < y : a < b;

	switch (c->op) {
	case tuttiProd:
		return a * b & mask(c->type);
	case tuttiMax:
		return less ? b : a;
	case tuttiMin:
		return less ? a : b;
	case REF_USER:
		return user_combine(c->commutative, a, b, c->type);
	default:
		return (a + b) & mask(c->type);
	}
}

static uint64_t int_want(const struct ref_case *c, size_t i)
{
	uint64_t acc = 0;

	for (int r = 0; r < c->n; r++) {
		uint64_t v = value_bits(c, r, i);

		if (c->op == REF_PREMULSUM)
			v = v * scalar_bits(c, r) & mask(c->type);
		acc = r ? int_step(c, acc, v) : v;
	}
	if (c->op != tuttiAvg)
		return acc;
	if (types[c->type].is_signed) /* towards zero, as the division of C */
		return (uint64_t)(sign_extend(acc, c->type) / c->n) & mask(c->type);
	return acc / (uint64_t)c->n;
}

struct range {
	long double want, slack;
	bool nan;
};

static long double growth(long double u, int steps)
{
	long double g = 1.0L;

	for (int i = 0; i < steps; i++)
		g *= 1.0L + u;
	return g - 1.0L;
}

static long double float_fold(const struct ref_case *c, long double acc, long double v)
{
	switch (c->op) {
	case tuttiProd:
		return acc * v;
	case tuttiMax:
		return v > acc ? v : acc;
	case tuttiMin:
		return v < acc ? v : acc;
	default:
		return acc + v;
	}
}

static struct range float_want(const struct ref_case *c, size_t i)
{
	const struct ref_type *t = &types[c->type];
	long double u = pow2(-t->mbits - 1), tiny = pow2(2 - (1 << (t->ebits - 1)) - t->mbits);
	long double acc = 0, size = 0;
	bool nan = false, exact = c->op == tuttiMax || c->op == tuttiMin || (!c->wide && c->op != tuttiAvg);
	int steps = c->wide ? c->n + 1 : 2;

	for (int r = 0; r < c->n; r++) {
		long double v = ref_decode(value_bits(c, r, i), c->type);

		nan |= v != v;
		if (c->op == REF_PREMULSUM)
			v *= ref_decode(scalar_bits(c, r), c->type);
		acc = r ? float_fold(c, acc, v) : v;
		size += v < 0 ? -v : v;
	}
	if (c->op == tuttiProd || !c->wide)
		size = acc < 0 ? -acc : acc;
	if (c->op == tuttiAvg) {
		acc /= c->n;
		size /= c->n;
	}
	return (struct range){ acc, exact ? 0 : growth(u, steps) * size + (long double)steps * tiny, nan };
}

static bool check_float(const struct ref_case *c, size_t i, uint64_t bits, char *why, size_t size)
{
	struct range w = float_want(c, i);
	long double got = ref_decode(bits, c->type), diff = got > w.want ? got - w.want : w.want - got;

	if (w.nan ? got != got : diff <= w.slack)
		return true;
	snprintf(why, size, "element %zu is %.9Lg (0x%" PRIx64 "), want %s%.9Lg within %.3Lg", i, got, bits,
		 w.nan ? "NaN, not " : "", w.want, w.slack);
	return false;
}

bool ref_check(const struct ref_case *c, size_t i, const void *got, char *why, size_t size)
{
	uint64_t bits = 0, want;

	memcpy(&bits, got, types[c->type].size);
	if (ref_is_float(c->type) && c->op < REF_USER)
		return check_float(c, i, bits, why, size);
	want = int_want(c, i);
	if (bits == want)
		return true;
	snprintf(why, size, "element %zu is 0x%" PRIx64 ", want 0x%" PRIx64, i, bits, want);
	return false;
}

size_t ref_check_all(const struct ref_case *c, size_t first, size_t count, const void *got, char *why,
		     size_t size)
{
	for (size_t i = 0; i < count; i++)
		if (!ref_check(c, first + i, (const char *)got + i * types[c->type].size, why, size))
			return i;
	return count;
}

size_t ref_check_copy(const struct ref_case *c, int rank, size_t first, size_t count, const void *got,
		      char *why, size_t size)
{
	for (size_t i = 0; i < count; i++) {
		uint64_t bits = 0, want = value_bits(c, rank, first + i);

		memcpy(&bits, (const char *)got + i * types[c->type].size, types[c->type].size);
		if (bits == want)
			continue;
		snprintf(why, size, "element %zu of rank %d is 0x%" PRIx64 ", want 0x%" PRIx64, first + i,
			 rank, bits, want);
		return i;
	}
	return count;
}

uint64_t ref_hash(const void *p, size_t n)
{
	uint64_t h = n, v;
	size_t i = 0;

	for (; i + 8 <= n; i += 8) {
		memcpy(&v, (const char *)p + i, 8);
		h = ref_mix(h, v);
	}
	for (v = 0; i < n; i++)
		v = v << 8 | ((const unsigned char *)p)[i];
	return ref_mix(h, v);
}
