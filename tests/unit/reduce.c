/* Every type, operator, number of sources, alignment, aliasing and instruction set against plain
 * arithmetic on single elements. SPDX-License-Identifier: Apache-2.0 */
#include "reduce.h"
#include "reduce_kernels.h"
#include "test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_SOURCES = 9, MAX_N = 5000, SLACK = 128 };

static const char *const isas[] = { "generic", "sse2", "avx2", "avx512" };

/* ---- the reference: 8- and 16-bit floats by their definition ---- */

struct format {
	int mantissa, bias, max_exp; /* largest exponent of a finite number */
	double max;
	bool infinite; /* overflow gives infinity; else the largest number */
};

static struct format format_of(tuttiDataType_t t)
{
	switch (t) {
	case tuttiFloat16:
		return (struct format){ 10, 15, 15, 65504, true };
	case tuttiBfloat16:
		return (struct format){ 7, 127, 127, 0x1.fep127, true };
	case tuttiFloat8e4m3:
		return (struct format){ 3, 7, 8, 448, false };
	default:
		return (struct format){ 2, 15, 15, 57344, false };
	}
}

static float decode(tuttiDataType_t t, uint32_t x)
{
	struct format f = format_of(t);
	int bits = (int)tt_type_size(t) * 8, e = (int)(x << 1 & ((1u << bits) - 1)) >> (f.mantissa + 1);
	uint32_t m = x & ((1u << f.mantissa) - 1);
	double v = e ? ldexp((double)m + (1 << f.mantissa), e - f.bias - f.mantissa)
		     : ldexp((double)m, 1 - f.bias - f.mantissa);

	if (t == tuttiFloat8e4m3 && e == 15 && m == 7)
		v = NAN;
	else if (t != tuttiFloat8e4m3 && e - f.bias > f.max_exp)
		v = m ? NAN : INFINITY;
	return (float)(x >> (bits - 1) & 1 ? -v : v);
}

/* The value that x is rounded to, nearest even. */
static float rounded(tuttiDataType_t t, float x)
{
	struct format f = format_of(t);
	int e;
	double v;

	if (isnan(x) || x == 0)
		return x;
	if (isinf(x))
		return f.infinite ? x : copysignf((float)f.max, x);
	e = ilogb(x);
	if (e < 1 - f.bias)
		e = 1 - f.bias;
	v = ldexp(nearbyint(ldexp(x, f.mantissa - e)), e - f.mantissa);
	if (fabs(v) > f.max)
		v = copysign(f.infinite ? INFINITY : f.max, v);
	return (float)v;
}

static bool is_low(tuttiDataType_t t)
{
	return t == tuttiFloat16 || t == tuttiBfloat16 || t >= tuttiFloat8e4m3;
}

static bool is_signed(tuttiDataType_t t)
{
	return t == tuttiInt8 || t == tuttiInt32 || t == tuttiInt64;
}

static uint64_t load(const void *p, size_t size)
{
	uint64_t x = 0;

	memcpy(&x, p, size);
	return x;
}

static double combine(double a, double b, int op, bool single)
{
	if (op == tuttiMax)
		return a > b || isnan(a) ? a : b;
	if (op == tuttiMin)
		return a < b || isnan(a) ? a : b;
	if (single)
		return op == tuttiProd ? (float)a * (float)b : (float)a + (float)b;
	return op == tuttiProd ? a * b : a + b;
}

static uint64_t combine_int(uint64_t a, uint64_t b, int op, bool sign)
{
	bool less = sign ? (int64_t)a < (int64_t)b : a < b;

	if (op == tuttiMax || op == tuttiMin)
		return less == (op == tuttiMax) ? b : a;
	return op == tuttiProd ? a * b : a + b;
}

static uint64_t widen(uint64_t x, tuttiDataType_t t)
{
	int shift = 64 - 8 * (int)tt_type_size(t);

	return is_signed(t) ? (uint64_t)((int64_t)(x << shift) >> shift) : x;
}

static double value(uint64_t x, tuttiDataType_t t)
{
	float f;
	double d;

	if (is_low(t))
		return decode(t, (uint32_t)x);
	memcpy(&f, &x, sizeof(f));
	memcpy(&d, &x, sizeof(d));
	return t == tuttiFloat32 ? f : d;
}

static bool same(double a, double b)
{
	return (isnan(a) && isnan(b)) || (a == b && signbit(a) == signbit(b));
}

static bool is_float(tuttiDataType_t t)
{
	return is_low(t) || t == tuttiFloat32 || t == tuttiFloat64;
}

/* Whether `got` is the reduction of k elements x. */
static bool correct(uint64_t got, const uint64_t *x, int k, tuttiDataType_t t, int op)
{
	size_t size = tt_type_size(t);
	uint64_t acc = widen(x[0], t);
	double sum = 0;

	if (is_float(t)) {
		sum = value(x[0], t);
		for (int j = 1; j < k; j++)
			sum = combine(sum, value(x[j], t), op, t != tuttiFloat64);
		return same(value(got, t), is_low(t) ? rounded(t, (float)sum) : sum);
	}
	for (int j = 1; j < k; j++)
		acc = combine_int(acc, widen(x[j], t), op, is_signed(t));
	return got == (size == 8 ? acc : acc & ((1ull << 8 * size) - 1));
}

/* ---- the cases ---- */

struct buffers {
	char *src[MAX_SOURCES], *copy[MAX_SOURCES], *dst;
};

static void buffers_open(struct buffers *b)
{
	for (int j = 0; j < MAX_SOURCES; j++) {
		b->src[j] = malloc(MAX_N * 8 + SLACK);
		b->copy[j] = malloc(MAX_N * 8 + SLACK);
		CHECK(b->src[j] && b->copy[j]);
	}
	b->dst = malloc(MAX_N * 8 + SLACK);
	CHECK(b->dst);
}

static void buffers_close(struct buffers *b)
{
	for (int j = 0; j < MAX_SOURCES; j++) {
		free(b->src[j]);
		free(b->copy[j]);
	}
	free(b->dst);
}

/* Random bits are rarely near each other in a float: half of the elements differ in low bits only. */
static void fill(char *p, size_t n, uint64_t *state)
{
	for (size_t i = 0; i < n; i++)
		p[i] = (char)test_rand(state);
	for (size_t i = 0; i + 8 <= n; i += 16)
		memcpy(p + i, "\x00\x3c\x80\x3f\x00\x3c\xf0\x3f", 8), p[i + test_rand(state) % 2] ^= 3;
}

struct one {
	tuttiDataType_t type;
	int op, k, alias; /* alias: source that dst is, or -1 */
	size_t n, dst_shift, src_shift;
	enum tt_store store;
};

static void run_one(struct buffers *b, const struct one *c, uint64_t *state)
{
	size_t size = tt_type_size(c->type);
	const void *src[MAX_SOURCES];
	char *dst = c->alias < 0 ? b->dst + c->dst_shift : b->src[c->alias] + c->src_shift;
	struct tt_op op = { .kind = c->op, .commutative = true, .nranks = c->k };

	for (int j = 0; j < c->k; j++) {
		fill(b->src[j], c->n * size + SLACK, state);
		memcpy(b->copy[j], b->src[j], c->n * size + SLACK);
		src[j] = b->src[j] + c->src_shift;
	}
	memset(dst + c->n * size, 0x5a, 8);
	tt_reduce_run(dst, src, c->k, c->n, c->type, &op, c->store);
	CHECKF(load(dst + c->n * size, 8) == 0x5a5a5a5a5a5a5a5a, "wrote behind the end");
	for (size_t i = 0; i < c->n; i++) {
		uint64_t x[MAX_SOURCES], got = load(dst + i * size, size);

		for (int j = 0; j < c->k; j++)
			x[j] = load(b->copy[j] + c->src_shift + i * size, size);
		CHECKF(c->k == 1 ? got == x[0] : correct(got, x, c->k, c->type, c->op),
		       "%s: %s %s of %d, alias %d, n %zu, shifts %zu %zu, store %d: element %zu is "
		       "%#llx (from %#llx, %#llx ...)", tt_reduce_isa(), tt_type_name(c->type),
		       tt_op_name(c->op), c->k, c->alias, c->n, c->dst_shift, c->src_shift, c->store,
		       i, (unsigned long long)got, (unsigned long long)x[0],
		       (unsigned long long)x[c->k > 1]);
	}
}

static void type_cases(struct buffers *b, tuttiDataType_t type, uint64_t *state)
{
	static const size_t lengths[] = { 1, 7, 64, 129, 1030, 3001 };
	size_t size = tt_type_size(type);

	for (int op = tuttiSum; op <= tuttiMin; op++)
		for (int k = 1; k <= MAX_SOURCES; k += 1 + (k > 4)) {
			struct one c = { .type = type, .op = op, .k = k,
					 .n = lengths[test_rand(state) % 6],
					 .dst_shift = test_rand(state) % 64,
					 .src_shift = test_rand(state) % 64,
					 .alias = (int)(test_rand(state) % (unsigned)(k + 1)) - 1,
					 .store = test_rand(state) % 2 };

			run_one(b, &c, state);
			c.alias = -1;
			c.dst_shift = c.dst_shift / size * size;
			c.store = TT_STORE_STREAM;
			run_one(b, &c, state);
		}
}

static void all_cases(void)
{
	int rounds = getenv("TEST_LONG") ? 200 : getenv("TEST_QUICK") ? 1 : 6, used = 0;
	uint64_t state = test_seed();
	struct buffers b;

	buffers_open(&b);
	for (size_t i = 0; i < sizeof(isas) / sizeof(isas[0]); i++) {
		if (!tt_reduce_use(isas[i]))
			continue;
		used++;
		CHECK(strcmp(tt_reduce_isa(), isas[i]) == 0);
		for (int round = 0; round < rounds; round++)
			for (int t = 0; t < tuttiNumTypes; t++)
				type_cases(&b, (tuttiDataType_t)t, &state);
	}
	CHECK(used > 0);
	buffers_close(&b);
}

/* All values of the small types: x + 0 rounds to x again, subnormals and infinities included. */
static void every_value(void)
{
	static const tuttiDataType_t low[] = { tuttiFloat16, tuttiBfloat16, tuttiFloat8e4m3,
					       tuttiFloat8e5m2 };
	static uint16_t x[65536], y[65536];
	struct tt_op op = { .kind = tuttiMax };
	const void *src[2] = { x, x };

	for (size_t s = 0; s < sizeof(isas) / sizeof(isas[0]); s++)
		for (size_t t = 0; t < 4 && tt_reduce_use(isas[s]); t++) {
			size_t size = tt_type_size(low[t]), n = size == 1 ? 256 : 65536;

			for (size_t i = 0; i < n; i++)
				size == 1 ? (void)(((uint8_t *)x)[i] = (uint8_t)i)
					  : (void)(x[i] = (uint16_t)i);
			tt_reduce_run(y, src, 2, n, low[t], &op, TT_STORE_PLAIN);
			for (size_t i = 0; i < n; i++) {
				float got = decode(low[t], (uint32_t)load((char *)y + i * size, size));

				CHECKF(same(got, rounded(low[t], decode(low[t], (uint32_t)i))),
				       "%s %s %#zx became %g", isas[s], tt_type_name(low[t]), i,
				       (double)got);
			}
		}
}

/* Float32 values around each border between two float16, bfloat16 or fp8 numbers, through a sum. */
static void rounding(void)
{
	uint64_t state = test_seed();
	struct tt_op op = { .kind = tuttiSum };

	for (size_t s = 0; s < sizeof(isas) / sizeof(isas[0]); s++)
		for (int i = 0; i < 40000 && tt_reduce_use(isas[s]); i++) {
			tuttiDataType_t t = (tuttiDataType_t)((int[]){ 6, 9, 10, 11 })[i % 4];
			uint64_t a = test_rand(&state), c = a ^ (1u << test_rand(&state) % 16);
			uint64_t mask = tt_type_size(t) == 1 ? 0xff : 0xffff, got = 0, x[2];
			const void *src[2] = { &x[0], &x[1] };

			x[0] = a & mask;
			x[1] = c & mask;
			tt_reduce_run(&got, src, 2, 1, t, &op, TT_STORE_PLAIN);
			CHECKF(correct(got, x, 2, t, tuttiSum), "%s %s %#llx + %#llx = %#llx", isas[s],
			       tt_type_name(t), (unsigned long long)x[0], (unsigned long long)x[1],
			       (unsigned long long)got);
		}
}

static void subnormals(void)
{
	float a[3] = { 1e-40f, 0x1p-149f, -1e-39f }, z[3] = { 0 }, d[3];
	double e = 0x1p-1074, zero = 0, f;
	const void *src[2] = { a, z }, *src64[2] = { &e, &zero };
	struct tt_op op = { .kind = tuttiSum };

	tt_reduce_run(d, src, 2, 3, tuttiFloat32, &op, TT_STORE_PLAIN);
	CHECK(memcmp(a, d, sizeof(a)) == 0);
	tt_reduce_run(&f, src64, 2, 1, tuttiFloat64, &op, TT_STORE_PLAIN);
	CHECK(f == e);
}

static void scaling(void)
{
	int32_t i[3] = { -7, 7, INT32_MIN }, j[3];
	int8_t b[2] = { -100, 127 }, c[2];
	uint16_t h = 0x4200, g; /* 3.0 in float16 */
	float f[2] = { 10, -1 }, by = 0.5f;
	struct tt_op avg = { .kind = tuttiAvg, .nranks = 2 }, mul = { .kind = TT_OP_PREMULSUM };
	int32_t three = -3;

	tt_reduce_post(j, i, 3, tuttiInt32, &avg);
	CHECK(j[0] == -3 && j[1] == 3 && j[2] == INT32_MIN / 2);
	avg.nranks = 200;
	tt_reduce_post(c, b, 2, tuttiInt8, &avg);
	CHECK(c[0] == 0 && c[1] == 0);
	avg.nranks = 4;
	tt_reduce_post(&g, &h, 1, tuttiFloat16, &avg);
	CHECK(g == 0x3a00); /* 0.75 */
	memcpy(&mul.scalar, &by, sizeof(by));
	tt_reduce_pre(f, f, 2, tuttiFloat32, &mul);
	CHECK(f[0] == 5 && f[1] == -0.5f);
	memcpy(&mul.scalar, &three, sizeof(three));
	tt_reduce_pre(j, i, 2, tuttiInt32, &mul);
	CHECK(j[0] == 21 && j[1] == -21);
	mul.scalar = 0x3800; /* 0.5 */
	tt_reduce_pre(&g, &h, 1, tuttiFloat16, &mul);
	CHECK(g == 0x3e00); /* 1.5 */
	avg.kind = tuttiSum;
	tt_reduce_post(&g, &h, 1, tuttiFloat16, &avg);
	CHECK(g == h);
}

/* Not commutative: keeps the left operand's high half and adds low halves; associative. */
static void keep_left(const void *in, void *inout, size_t count, tuttiDataType_t type, void *context)
{
	const uint32_t *a = in;
	uint32_t *b = inout;

	for (size_t i = 0; i < count; i++)
		b[i] = (a[i] & 0xffff0000) | ((a[i] + b[i]) & 0xffff);
	++*(int *)context;
}

static void user_operator(void)
{
	enum { N = 3000 };
	static uint32_t x[4][N], d[N];

	for (int alias = -1; alias < 4; alias++) {
		int calls = 0;
		struct tt_op op = { .kind = TT_OP_USER, .fn = keep_left, .context = &calls };
		const void *src[4] = { x[0], x[1], x[2], x[3] };
		uint32_t *dst = alias < 0 ? d : x[alias];

		for (uint32_t j = 0; j < 4; j++)
			for (uint32_t i = 0; i < N; i++)
				x[j][i] = (j + 1) << 16 | (i + j);
		tt_reduce_run(dst, src, 4, N, tuttiUint32, &op, TT_STORE_PLAIN);
		CHECK(calls >= 3);
		for (uint32_t i = 0; i < N; i++)
			CHECKF(dst[i] == (1u << 16 | (4 * i + 6)), "alias %d element %u: %#x", alias, i,
			       dst[i]);
	}
}

static void copies(void)
{
	uint64_t state = test_seed();
	struct buffers b;

	buffers_open(&b);
	for (int i = 0; i < 500; i++) {
		size_t from = test_rand(&state) % 64, to = test_rand(&state) % 64;
		size_t n = test_rand(&state) % (i % 2 ? 200 : 20000);

		fill(b.src[0], n + SLACK, &state);
		memset(b.dst, 0x77, n + SLACK);
		tt_copy_bytes(b.dst + to, b.src[0] + from, n, test_rand(&state) % 2);
		CHECK(memcmp(b.dst + to, b.src[0] + from, n) == 0);
		CHECK(b.dst[to + n] == 0x77 && (to == 0 || b.dst[to - 1] == 0x77));
	}
	buffers_close(&b);
}

const struct test tests[] = {
	{ "reduce: types x operators x sources x alignment x aliasing", all_cases, 0 },
	{ "reduce: every value of the small types", every_value, 0 },
	{ "reduce: rounding to nearest even", rounding, 0 },
	{ "reduce: subnormals are kept", subnormals, 0 },
	{ "reduce: average and premultiplied sum", scaling, 0 },
	{ "reduce: user operators", user_operator, 0 },
	{ "reduce: copies", copies, 0 },
};
const int ntests = sizeof(tests) / sizeof(tests[0]);
