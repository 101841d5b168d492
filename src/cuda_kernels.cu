/* Reductions on CUDA devices: the bits of reduce_kernels.c for the same order of sources (of NaNs, that they are
 * NaNs). Compiled without fused multiply-add. Each element is one thread's, which reads it from all sources before
 * it writes it: dst may be any source. SPDX-License-Identifier: Apache-2.0 */
#include "cuda_kernels.h"
#include "reduce_convert.h"

#define HERE __device__ __forceinline__

/* ---- types: as memory holds them, and as they are computed with ---- */

template <class M> struct plain {
	typedef M mem;
	typedef M acc;
	static HERE M open(M x) { return x; }
	static HERE M close(M x) { return x; }
};

template <class M, float (*to)(M), M (*from)(float)> struct low {
	typedef M mem;
	typedef float acc;
	static HERE float open(M x) { return to(x); }
	static HERE M close(float x) { return from(x); }
};

/* By the device's instructions, where this is for one. */
static HERE float half_to(uint16_t x)
{
#if defined(__CUDA_ARCH__)
	float f;

	asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(x));
	return f;
#else
	return f16_to(x);
#endif
}

static HERE uint16_t half_from(float f)
{
#if defined(__CUDA_ARCH__)
	uint16_t x;

	asm("cvt.rn.f16.f32 %0, %1;" : "=h"(x) : "f"(f));
	return x;
#else
	return f16_from(f);
#endif
}

typedef low<uint16_t, half_to, half_from> half_;
typedef low<uint16_t, bf16_to, bf16_from> bfloat16_;
typedef low<uint8_t, e4m3_to, e4m3_from> f8e4m3_;
typedef low<uint8_t, e5m2_to, e5m2_from> f8e5m2_;

/* ---- operators ---- */

struct sum {
	template <class A> static HERE A of(A x, A y) { return (A)(x + y); }
};
struct prod {
	template <class A> static HERE A of(A x, A y) { return (A)(x * y); }
};
struct max_ { /* a NaN on either side comes out */
	template <class A> static HERE A of(A x, A y) { return (x > y) | (x != x) ? x : y; }
};
struct min_ {
	template <class A> static HERE A of(A x, A y) { return (x < y) | (x != x) ? x : y; }
};

/* ---- memory ---- */

enum { WORD = 16 };

template <class M> union word {
	uint4 all;
	M each[WORD / sizeof(M)];
};

static HERE unsigned phase(const void *p, unsigned of)
{
	return (unsigned)((uintptr_t)p % of);
}

/* Buffers may begin anywhere, which devices do not load. */
template <class M> static HERE M load(const void *p, size_t i, bool aligned)
{
	const unsigned char *b = (const unsigned char *)p + i * sizeof(M);
	M x;

	if (aligned)
		return ((const M *)p)[i];
	for (unsigned k = 0; k < sizeof(M); k++)
		((unsigned char *)&x)[k] = b[k];
	return x;
}

template <class M> static HERE void store(void *p, size_t i, M x, bool aligned)
{
	unsigned char *b = (unsigned char *)p + i * sizeof(M);

	if (aligned) {
		((M *)p)[i] = x;
		return;
	}
	for (unsigned k = 0; k < sizeof(M); k++)
		b[k] = ((unsigned char *)&x)[k];
}

/* How n elements are cut: single ones, whole words, single ones. */
struct cut {
	size_t head, words;
	bool aligned; /* to elements */
};

static HERE struct cut cut_of(size_t n, unsigned size, unsigned dst_phase, bool same)
{
	struct cut c = { n, 0, dst_phase % size == 0 };

	if (!same || !c.aligned)
		return c;
	c.head = (WORD - dst_phase) % WORD / size;
	c.head = c.head < n ? c.head : n;
	c.words = (n - c.head) / (WORD / size);
	return c;
}

/* ---- folds ---- */

template <class T, class Op> static HERE void fold_one(const struct tt_cuda_fold &a, size_t i, bool aligned)
{
	typedef typename T::mem M;
	typename T::acc x = T::open(load<M>(a.src[0], i, aligned));

	for (int k = 1; k < a.nsrc; k++)
		x = Op::of(x, T::open(load<M>(a.src[k], i, aligned)));
	store<M>(a.dst, i, T::close(x), aligned);
}

/* Some words `stride` apart, so that many loads are under way. */
template <class M, int MANY> static HERE void load_words(word<M> (&w)[MANY], const void *src, size_t head, size_t first,
							 size_t stride)
{
	const uint4 *at = (const uint4 *)((const M *)src + head) + first;

#pragma unroll
	for (int u = 0; u < MANY; u++)
		w[u].all = at[u * stride];
}

template <class T, class Op, int MANY>
static HERE void fold_words(const struct tt_cuda_fold &a, size_t head, size_t first, size_t stride)
{
	typedef typename T::mem M;
	enum { PER = WORD / sizeof(M) };
	typename T::acc x[MANY][PER];
	word<M> w[MANY];

	load_words<M, MANY>(w, a.src[0], head, first, stride);
#pragma unroll
	for (int i = 0; i < MANY * PER; i++)
		x[i / PER][i % PER] = T::open(w[i / PER].each[i % PER]);
	for (int k = 1; k < a.nsrc; k++) {
		load_words<M, MANY>(w, a.src[k], head, first, stride);
#pragma unroll
		for (int i = 0; i < MANY * PER; i++)
			x[i / PER][i % PER] = Op::of(x[i / PER][i % PER], T::open(w[i / PER].each[i % PER]));
	}
#pragma unroll
	for (int i = 0; i < MANY * PER; i++)
		w[i / PER].each[i % PER] = T::close(x[i / PER][i % PER]);
#pragma unroll
	for (int u = 0; u < MANY; u++)
		((uint4 *)((M *)a.dst + head) + first)[u * stride] = w[u].all;
}

template <class T, class Op> static HERE void fold(const struct tt_cuda_fold &a)
{
	typedef typename T::mem M;
	enum { PER = WORD / sizeof(M), MANY = PER >= 16 ? 2 : 4 };
	size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x, stride = (size_t)gridDim.x * blockDim.x, w = i;
	bool same = true, aligned = true;
	struct cut c;

	for (int k = 0; k < a.nsrc; k++) {
		same &= phase(a.src[k], WORD) == phase(a.dst, WORD);
		aligned &= phase(a.src[k], sizeof(M)) == 0;
	}
	c = cut_of(a.n, sizeof(M), phase(a.dst, WORD), same);
	aligned &= c.aligned;
	for (; w + (MANY - 1) * stride < c.words; w += MANY * stride)
		fold_words<T, Op, MANY>(a, c.head, w, stride);
	for (; w < c.words; w += stride)
		fold_words<T, Op, 1>(a, c.head, w, stride);
	for (; i < c.head; i += stride)
		fold_one<T, Op>(a, i, aligned);
	i = c.head + c.words * PER + (size_t)blockIdx.x * blockDim.x + threadIdx.x;
	for (; i < a.n; i += stride)
		fold_one<T, Op>(a, i, aligned);
}

/* ---- scaling ---- */

struct times {
	template <class A> static HERE A of(A x, A by) { return (A)(x * by); }
};
struct over {
	template <class A> static HERE A of(A x, A by) { return (A)(x / by); }
};

/* Computed as Wide. */
template <class T, class Wide, class Op> static HERE void scale(const struct tt_cuda_scale &a, Wide by)
{
	typedef typename T::mem M;
	enum { PER = WORD / sizeof(M) };
	size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x, stride = (size_t)gridDim.x * blockDim.x;
	struct cut c = cut_of(a.n, sizeof(M), phase(a.dst, WORD), phase(a.src, WORD) == phase(a.dst, WORD));
	bool aligned = c.aligned && phase(a.src, sizeof(M)) == 0;
	typedef typename T::acc A;

	for (size_t at = i; at < c.words; at += stride) {
		word<M> w;

		w.all = ((const uint4 *)((const M *)a.src + c.head))[at];
#pragma unroll
		for (int e = 0; e < PER; e++)
			w.each[e] = T::close((A)Op::of((Wide)T::open(w.each[e]), by));
		((uint4 *)((M *)a.dst + c.head))[at] = w.all;
	}
	for (; i < a.n; i += stride) {
		if (i >= c.head && i < c.head + c.words * PER)
			continue;
		store<M>(a.dst, i, T::close((A)Op::of((Wide)T::open(load<M>(a.src, i, aligned)), by)), aligned);
	}
}

template <class T> static HERE typename T::acc factor_of(const struct tt_cuda_scale &a)
{
	const void *p = a.factor_at ? a.factor_at : &a.factor;

	return T::open(load<typename T::mem>(p, 0, phase(p, sizeof(typename T::mem)) == 0));
}

/* ---- the kernels ---- */

#define KERNEL extern "C" __global__ void __launch_bounds__(TT_CUDA_THREADS, 1)

/* `bits` adds and multiplies without overflow, `value` compares, `wide` holds an element and a divisor. */
#define KERNELS(name, bits, value, wide)                                                           \
	KERNEL tt_sum_##name(const __grid_constant__ struct tt_cuda_fold a) { fold<bits, sum>(a); } \
	KERNEL tt_prod_##name(const __grid_constant__ struct tt_cuda_fold a) { fold<bits, prod>(a); } \
	KERNEL tt_max_##name(const __grid_constant__ struct tt_cuda_fold a) { fold<value, max_>(a); } \
	KERNEL tt_min_##name(const __grid_constant__ struct tt_cuda_fold a) { fold<value, min_>(a); } \
	KERNEL tt_pre_##name(const __grid_constant__ struct tt_cuda_scale a)                       \
	{                                                                                          \
		scale<bits, bits::acc, times>(a, factor_of<bits>(a));                              \
	}                                                                                          \
	KERNEL tt_post_##name(const __grid_constant__ struct tt_cuda_scale a)                      \
	{                                                                                          \
		scale<value, wide, over>(a, (wide)a.divisor);                                      \
	}

#define PLAIN(name, bits, value, wide) KERNELS(name, plain<bits>, plain<value>, wide)

PLAIN(int8, uint8_t, int8_t, int32_t)
PLAIN(uint8, uint8_t, uint8_t, uint32_t)
PLAIN(int32, uint32_t, int32_t, int64_t)
PLAIN(uint32, uint32_t, uint32_t, uint32_t)
PLAIN(int64, uint64_t, int64_t, int64_t)
PLAIN(uint64, uint64_t, uint64_t, uint64_t)
PLAIN(float, float, float, float)
PLAIN(double, double, double, double)
KERNELS(half, half_, half_, float)
KERNELS(bfloat16, bfloat16_, bfloat16_, float)
KERNELS(f8e4m3, f8e4m3_, f8e4m3_, float)
KERNELS(f8e5m2, f8e5m2_, f8e5m2_, float)
