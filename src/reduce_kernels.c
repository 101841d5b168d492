/* Reduction loops, written plainly for the compiler to vectorise; compiled once for each instruction set
 * with TT_KERNELS naming the table. Lines of functions that differ by type and operator alone come from
 * macros that take the whole names. SPDX-License-Identifier: Apache-2.0 */
#include "reduce_kernels.h"

#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "reduce_convert.h"

/* Exact aliasing of dst and a source is harmless to a vector loop, but the compiler cannot know it. */
#if defined(__clang__)
#define VECTOR_LOOP _Pragma("clang loop vectorize(assume_safety)")
#else
#define VECTOR_LOOP _Pragma("GCC ivdep")
#endif

#define ANYWHERE __attribute__((aligned(1), may_alias))
typedef int8_t ANYWHERE s8;
typedef uint8_t ANYWHERE u8;
typedef int32_t ANYWHERE s32;
typedef uint32_t ANYWHERE u32;
typedef int64_t ANYWHERE s64;
typedef uint64_t ANYWHERE u64;
typedef uint16_t ANYWHERE u16;
typedef float ANYWHERE f32;
typedef double ANYWHERE f64;

/* ---- native types. Sums and products of signed integers wrap: they are those of unsigned ones. ---- */

#define ADD(x, y) ((x) + (y))
#define MUL(x, y) ((x) * (y))
#define MAX(x, y) ((x) > (y) ? (x) : (y))
#define MIN(x, y) ((x) < (y) ? (x) : (y))
/* A NaN on either side comes out. */
#define FMAX(x, y) ((((x) > (y)) | ((x) != (x))) ? (x) : (y))
#define FMIN(x, y) ((((x) < (y)) | ((x) != (x))) ? (x) : (y))

#define FOLD(two, three, T, OP)                                                                    \
	static void two(void *dst, const void *a, const void *b, size_t n)                         \
	{                                                                                          \
		T *d = dst;                                                                        \
		const T *x = a, *y = b;                                                            \
		VECTOR_LOOP                                                                        \
		for (size_t i = 0; i < n; i++)                                                     \
			d[i] = (T)OP(x[i], y[i]);                                                  \
	}                                                                                          \
	static void three(void *dst, const void *a, const void *b, const void *c, size_t n)        \
	{                                                                                          \
		T *d = dst;                                                                        \
		const T *x = a, *y = b, *z = c;                                                    \
		VECTOR_LOOP                                                                        \
		for (size_t i = 0; i < n; i++) {                                                   \
			T t = (T)OP(x[i], y[i]);                                                   \
			d[i] = (T)OP(t, z[i]);                                                     \
		}                                                                                  \
	}

FOLD(sum2_u8, sum3_u8, u8, ADD)
FOLD(sum2_u32, sum3_u32, u32, ADD)
FOLD(sum2_u64, sum3_u64, u64, ADD)
FOLD(sum2_f32, sum3_f32, f32, ADD)
FOLD(sum2_f64, sum3_f64, f64, ADD)
FOLD(prod2_u8, prod3_u8, u8, MUL)
FOLD(prod2_u32, prod3_u32, u32, MUL)
FOLD(prod2_u64, prod3_u64, u64, MUL)
FOLD(prod2_f32, prod3_f32, f32, MUL)
FOLD(prod2_f64, prod3_f64, f64, MUL)
FOLD(max2_s8, max3_s8, s8, MAX)
FOLD(max2_u8, max3_u8, u8, MAX)
FOLD(max2_s32, max3_s32, s32, MAX)
FOLD(max2_u32, max3_u32, u32, MAX)
FOLD(max2_s64, max3_s64, s64, MAX)
FOLD(max2_u64, max3_u64, u64, MAX)
FOLD(max2_f32, max3_f32, f32, FMAX)
FOLD(max2_f64, max3_f64, f64, FMAX)
FOLD(min2_s8, min3_s8, s8, MIN)
FOLD(min2_u8, min3_u8, u8, MIN)
FOLD(min2_s32, min3_s32, s32, MIN)
FOLD(min2_u32, min3_u32, u32, MIN)
FOLD(min2_s64, min3_s64, s64, MIN)
FOLD(min2_u64, min3_u64, u64, MIN)
FOLD(min2_f32, min3_f32, f32, FMIN)
FOLD(min2_f64, min3_f64, f64, FMIN)

#define SCALE_MUL(name, T)                                                                         \
	static void name(void *dst, const void *src, size_t n, const void *factor)                 \
	{                                                                                          \
		T *d = dst;                                                                        \
		const T *x = src;                                                                  \
		T f = *(const T *)factor;                                                          \
		VECTOR_LOOP                                                                        \
		for (size_t i = 0; i < n; i++)                                                     \
			d[i] = (T)(x[i] * f);                                                      \
	}
SCALE_MUL(mul_u8, u8)
SCALE_MUL(mul_u32, u32)
SCALE_MUL(mul_u64, u64)
SCALE_MUL(mul_f32, f32)
SCALE_MUL(mul_f64, f64)

/* `Wide` holds both an element and the divisor; sums of int8 over 200 ranks divide by 200, not -56. */
#define SCALE_DIV(name, T, Wide)                                                                   \
	static void name(void *dst, const void *src, size_t n, int divisor)                        \
	{                                                                                          \
		T *d = dst;                                                                        \
		const T *x = src;                                                                  \
		Wide by = (Wide)divisor;                                                           \
		VECTOR_LOOP                                                                        \
		for (size_t i = 0; i < n; i++)                                                     \
			d[i] = (T)((Wide)x[i] / by);                                               \
	}
SCALE_DIV(div_s8, s8, int32_t)
SCALE_DIV(div_u8, u8, uint32_t)
SCALE_DIV(div_s32, s32, int64_t)
SCALE_DIV(div_u32, u32, uint32_t)
SCALE_DIV(div_s64, s64, int64_t)
SCALE_DIV(div_u64, u64, uint64_t)
SCALE_DIV(div_f32, f32, float)
SCALE_DIV(div_f64, f64, double)

/* ---- conversions ---- */

#define CONVERT(unpack_name, pack_name, T, to, from)                                               \
	static void unpack_name(float *dst, const void *src, size_t n)                             \
	{                                                                                          \
		const T *x = src;                                                                  \
		VECTOR_LOOP                                                                        \
		for (size_t i = 0; i < n; i++)                                                     \
			dst[i] = to(x[i]);                                                         \
	}                                                                                          \
	static void pack_name(void *dst, const float *src, size_t n)                               \
	{                                                                                          \
		T *d = dst;                                                                        \
		VECTOR_LOOP                                                                        \
		for (size_t i = 0; i < n; i++)                                                     \
			d[i] = from(src[i]);                                                       \
	}
CONVERT(unpack_bf16, pack_bf16, u16, bf16_to, bf16_from)
CONVERT(unpack_e4m3, pack_e4m3, u8, e4m3_to, e4m3_from)
CONVERT(unpack_e5m2, pack_e5m2, u8, e5m2_to, e5m2_from)

#if defined(__F16C__)
static void unpack_f16(float *dst, const void *src, size_t n)
{
	const u16 *x = src;
	size_t i = 0;

	for (; i + 8 <= n; i += 8)
		_mm256_storeu_ps(dst + i, _mm256_cvtph_ps(_mm_loadu_si128((const void *)(x + i))));
	for (; i < n; i++)
		dst[i] = _cvtsh_ss(x[i]);
}

static void pack_f16(void *dst, const float *src, size_t n)
{
	u16 *d = dst;
	size_t i = 0;

	for (; i + 8 <= n; i += 8)
		_mm_storeu_si128((void *)(d + i), _mm256_cvtps_ph(_mm256_loadu_ps(src + i), 0));
	for (; i < n; i++)
		d[i] = (uint16_t)_cvtss_sh(src[i], 0);
}
#else
CONVERT(unpack_f16, pack_f16, u16, f16_to, f16_from)
#endif

/* ---- stores past the cache ---- */

#if defined(__AVX512F__)
static void stream(void *dst, const void *src, size_t bytes)
{
	for (size_t i = 0; i < bytes; i += 64)
		_mm512_stream_si512((void *)((char *)dst + i),
				    _mm512_loadu_si512((const char *)src + i));
}
#elif defined(__AVX2__)
static void stream(void *dst, const void *src, size_t bytes)
{
	for (size_t i = 0; i < bytes; i += 32)
		_mm256_stream_si256((void *)((char *)dst + i),
				    _mm256_loadu_si256((const void *)((const char *)src + i)));
}
#elif defined(__SSE2__)
static void stream(void *dst, const void *src, size_t bytes)
{
	for (size_t i = 0; i < bytes; i += 16)
		_mm_stream_si128((void *)((char *)dst + i),
				 _mm_loadu_si128((const void *)((const char *)src + i)));
}
#else
static void stream(void *dst, const void *src, size_t bytes)
{
	memcpy(dst, src, bytes);
}
#endif

static void fence(void)
{
#if defined(__SSE2__)
	_mm_sfence();
#endif
}

#define STRING(x) #x
#define STRING_OF(x) STRING(x)

const struct tt_kernels TT_KERNELS = {
	.name = STRING_OF(TT_KERNELS),
	.fold2 = {
		[tuttiInt8] = { sum2_u8, prod2_u8, max2_s8, min2_s8 },
		[tuttiUint8] = { sum2_u8, prod2_u8, max2_u8, min2_u8 },
		[tuttiInt32] = { sum2_u32, prod2_u32, max2_s32, min2_s32 },
		[tuttiUint32] = { sum2_u32, prod2_u32, max2_u32, min2_u32 },
		[tuttiInt64] = { sum2_u64, prod2_u64, max2_s64, min2_s64 },
		[tuttiUint64] = { sum2_u64, prod2_u64, max2_u64, min2_u64 },
		[tuttiFloat32] = { sum2_f32, prod2_f32, max2_f32, min2_f32 },
		[tuttiFloat64] = { sum2_f64, prod2_f64, max2_f64, min2_f64 },
	},
	.fold3 = {
		[tuttiInt8] = { sum3_u8, prod3_u8, max3_s8, min3_s8 },
		[tuttiUint8] = { sum3_u8, prod3_u8, max3_u8, min3_u8 },
		[tuttiInt32] = { sum3_u32, prod3_u32, max3_s32, min3_s32 },
		[tuttiUint32] = { sum3_u32, prod3_u32, max3_u32, min3_u32 },
		[tuttiInt64] = { sum3_u64, prod3_u64, max3_s64, min3_s64 },
		[tuttiUint64] = { sum3_u64, prod3_u64, max3_u64, min3_u64 },
		[tuttiFloat32] = { sum3_f32, prod3_f32, max3_f32, min3_f32 },
		[tuttiFloat64] = { sum3_f64, prod3_f64, max3_f64, min3_f64 },
	},
	.unpack = {
		[tuttiFloat16] = unpack_f16,
		[tuttiBfloat16] = unpack_bf16,
		[tuttiFloat8e4m3] = unpack_e4m3,
		[tuttiFloat8e5m2] = unpack_e5m2,
	},
	.pack = {
		[tuttiFloat16] = pack_f16,
		[tuttiBfloat16] = pack_bf16,
		[tuttiFloat8e4m3] = pack_e4m3,
		[tuttiFloat8e5m2] = pack_e5m2,
	},
	.mul = {
		[tuttiInt8] = mul_u8, [tuttiUint8] = mul_u8,
		[tuttiInt32] = mul_u32, [tuttiUint32] = mul_u32,
		[tuttiInt64] = mul_u64, [tuttiUint64] = mul_u64,
		[tuttiFloat32] = mul_f32, [tuttiFloat64] = mul_f64,
	},
	.div = {
		[tuttiInt8] = div_s8, [tuttiUint8] = div_u8,
		[tuttiInt32] = div_s32, [tuttiUint32] = div_u32,
		[tuttiInt64] = div_s64, [tuttiUint64] = div_u64,
		[tuttiFloat32] = div_f32, [tuttiFloat64] = div_f64,
	},
	.stream = stream,
	.fence = fence,
};
