/* The kernel whose blocks run schedules (dev_run.h). Words that other devices and the host see have the scope of the
 * system. The bits are those of cuda_kernels.cu. SPDX-License-Identifier: Apache-2.0 */
#include "../include/tutti.h"
#include "cuda_types.cuh"
#include "dev_proto.h"

#define DEV_FN HERE
#define DEV_THREAD threadIdx.x
#define DEV_THREADS blockDim.x
#define DEV_SOON 64 /* tens of microseconds */
#define DEV_SPINS 10000

struct dev_shared {
	const void *src[TT_DEV_SRCS];
};
struct dev_block;

static HERE void dev_sync(void)
{
	__syncthreads();
}

static HERE bool dev_any(bool x)
{
	return __syncthreads_or(x);
}

/* ---- words: tests/cuda/dev_kernels.cpp, on a host, does without ---- */

#if defined(__CUDA_ARCH__)
#define ON_DEVICE(...) asm volatile(__VA_ARGS__)
#else
#define ON_DEVICE(...) (void)p
#endif

static HERE uint32_t dev_load(const uint32_t *p)
{
	uint32_t x = 0;

	ON_DEVICE("ld.acquire.sys.u32 %0, [%1];" : "=r"(x) : "l"(p) : "memory");
	return x;
}

static HERE void dev_store(uint32_t *p, uint32_t x)
{
	ON_DEVICE("st.release.sys.u32 [%0], %1;" :: "l"(p), "r"(x) : "memory");
}

/* Each half is one access, and it is no matter which comes first. */
static HERE void dev_load2(const uint64_t *p, uint64_t *x, uint64_t *y)
{
	*x = *y = 0;
	ON_DEVICE("ld.relaxed.sys.v2.u64 {%0, %1}, [%2];" : "=l"(*x), "=l"(*y) : "l"(p) : "memory");
}

static HERE void dev_store2(uint64_t *p, uint64_t x, uint64_t y)
{
	ON_DEVICE("st.relaxed.sys.v2.u64 [%0], {%1, %2};" :: "l"(p), "l"(x), "l"(y) : "memory");
}

static HERE uint32_t dev_load4(const char *p)
{
	uint32_t x = 0;

	if (phase(p, 4) == 0)
		return *(const uint32_t *)p;
	for (unsigned k = 0; k < 4; k++)
		x |= (uint32_t)(unsigned char)p[k] << (8 * k);
	return x;
}

static HERE void dev_store4(char *p, uint32_t x)
{
	if (phase(p, 4) == 0) {
		*(uint32_t *)p = x;
		return;
	}
	for (unsigned k = 0; k < 4; k++)
		p[k] = (char)(x >> (8 * k));
}

static HERE void dev_pause(uint32_t n)
{
}

/* ---- bytes ---- */

enum { UNROLL = 4 };

static HERE void dev_copy(void *dst, const void *src, uint64_t n)
{
	struct cut c = cut_of(n, 1, phase(dst, WORD), phase(src, WORD) == phase(dst, WORD));
	uint4 *to = (uint4 *)((char *)dst + c.head);
	const uint4 *from = (const uint4 *)((const char *)src + c.head);
	size_t w = DEV_THREAD;

	for (; w + (UNROLL - 1) * DEV_THREADS < c.words; w += UNROLL * DEV_THREADS) {
		uint4 x[UNROLL];

#pragma unroll
		for (int u = 0; u < UNROLL; u++)
			x[u] = from[w + u * DEV_THREADS];
#pragma unroll
		for (int u = 0; u < UNROLL; u++)
			to[w + u * DEV_THREADS] = x[u];
	}
	for (; w < c.words; w += DEV_THREADS)
		to[w] = from[w];
	for (size_t i = DEV_THREAD; i < c.head; i += DEV_THREADS)
		((char *)dst)[i] = ((const char *)src)[i];
	for (size_t i = c.head + c.words * WORD + DEV_THREAD; i < n; i += DEV_THREADS)
		((char *)dst)[i] = ((const char *)src)[i];
}

/* ---- reductions: each element is one thread's, which reads it from all sources before it writes it ---- */

struct sources {
	void *dst;
	const void *const *src; /* shared */
	uint32_t n;
};

template <class T, class Op> static HERE void fold_one(const struct sources &s, size_t i, bool aligned)
{
	typedef typename T::mem M;
	typename T::acc x = T::open(load<M>(s.src[0], i, aligned));

#pragma unroll 1
	for (uint32_t k = 1; k < s.n; k++)
		x = Op::of(x, T::open(load<M>(s.src[k], i, aligned)));
	store<M>(s.dst, i, T::close(x), aligned);
}

template <class T, class Op> static HERE void fold_word(const struct sources &s, size_t head, size_t w)
{
	typedef typename T::mem M;
	enum { PER = WORD / sizeof(M) };
	typename T::acc x[PER];
	word<M> v;

	v.all = ((const uint4 *)((const M *)s.src[0] + head))[w];
#pragma unroll
	for (int i = 0; i < PER; i++)
		x[i] = T::open(v.each[i]);
	for (uint32_t k = 1; k < s.n; k++) {
		v.all = ((const uint4 *)((const M *)s.src[k] + head))[w];
#pragma unroll
		for (int i = 0; i < PER; i++)
			x[i] = Op::of(x[i], T::open(v.each[i]));
	}
#pragma unroll
	for (int i = 0; i < PER; i++)
		v.each[i] = T::close(x[i]);
	((uint4 *)((M *)s.dst + head))[w] = v.all;
}

template <class T, class Op> static HERE void fold(const struct sources &s, size_t n)
{
	typedef typename T::mem M;
	enum { PER = WORD / sizeof(M) };
	bool same = true, aligned = true;
	struct cut c;

	for (uint32_t k = 0; k < s.n; k++) {
		same &= phase(s.src[k], WORD) == phase(s.dst, WORD);
		aligned &= phase(s.src[k], sizeof(M)) == 0;
	}
	c = cut_of(n, sizeof(M), phase(s.dst, WORD), same);
	aligned &= c.aligned;
#pragma unroll 1
	for (size_t w = DEV_THREAD; w < c.words; w += DEV_THREADS)
		fold_word<T, Op>(s, c.head, w);
#pragma unroll 1
	for (size_t i = DEV_THREAD; i < n - c.words * PER; i += DEV_THREADS)
		fold_one<T, Op>(s, i < c.head ? i : i + c.words * PER, aligned);
}

/* `bits` adds and multiplies without overflow, `value` compares. */
template <class Bits, class Value> static HERE void fold_by(uint32_t op, const struct sources &s, size_t n)
{
	switch (op) {
	case tuttiSum:
		return fold<Bits, sum>(s, n);
	case tuttiProd:
		return fold<Bits, prod>(s, n);
	case tuttiMax:
		return fold<Value, max_>(s, n);
	default:
		return fold<Value, min_>(s, n);
	}
}

static HERE void dev_reduce(const struct dev_block *b, void *dst, uint32_t nsrc, uint64_t n);

#include "dev_run.h"

static HERE void dev_reduce(const struct dev_block *b, void *dst, uint32_t nsrc, uint64_t n)
{
	struct sources s = { dst, b->shared->src, nsrc };
	uint32_t op = b->launch->op;

	switch (b->bind->type) {
	case tuttiInt8:
		return fold_by<plain<uint8_t>, plain<int8_t> >(op, s, n);
	case tuttiUint8:
		return fold_by<plain<uint8_t>, plain<uint8_t> >(op, s, n);
	case tuttiInt32:
		return fold_by<plain<uint32_t>, plain<int32_t> >(op, s, n);
	case tuttiUint32:
		return fold_by<plain<uint32_t>, plain<uint32_t> >(op, s, n);
	case tuttiInt64:
		return fold_by<plain<uint64_t>, plain<int64_t> >(op, s, n);
	case tuttiUint64:
		return fold_by<plain<uint64_t>, plain<uint64_t> >(op, s, n);
	case tuttiFloat16:
		return fold_by<half_, half_>(op, s, n);
	case tuttiFloat32:
		return fold_by<plain<float>, plain<float> >(op, s, n);
	case tuttiFloat64:
		return fold_by<plain<double>, plain<double> >(op, s, n);
	case tuttiBfloat16:
		return fold_by<bfloat16_, bfloat16_>(op, s, n);
	case tuttiFloat8e4m3:
		return fold_by<f8e4m3_, f8e4m3_>(op, s, n);
	default:
		return fold_by<f8e5m2_, f8e5m2_>(op, s, n);
	}
}

extern "C" __global__ void __launch_bounds__(TT_DEV_THREADS, 1)
	tt_dev_run(const __grid_constant__ struct tt_dev_launch launch)
{
	__shared__ struct dev_shared shared;

	(void)dev_run(&launch, blockIdx.x, &shared);
}
