/* Reductions on CUDA devices: the bits of reduce_kernels.c for the same order of sources (of NaNs, that they are
 * NaNs). Compiled without fused multiply-add. Each element is one thread's, which reads it from all sources before
 * it writes it: dst may be any source. SPDX-License-Identifier: Apache-2.0 */
#include "cuda_kernels.h"
#include "cuda_types.cuh"

/* ---- scaling of an element ---- */

struct times {
	template <class A> static HERE A of(A x, A by) { return (A)(x * by); }
};
struct over {
	template <class A> static HERE A of(A x, A by) { return (A)(x / by); }
};

struct unscaled {
	template <class T> static HERE typename T::acc before(const struct tt_cuda_all &, int, typename T::acc x) { return x; }
	template <class M> static HERE M after(const struct tt_cuda_all &, M x) { return x; }
};

/* After the sum computed as Wide. Rounded before and after it, as memory between the steps would do. */
template <class V, class Wide> struct scaled {
	template <class T> static HERE typename T::acc before(const struct tt_cuda_all &a, int rank, typename T::acc x)
	{
		if (!a.scales)
			return x;
		const void *p = a.factors_at >> rank & 1 ? (const void *)a.factor[rank] : &a.factor[rank];
		bool even = phase(p, sizeof(typename T::mem)) == 0;

		return T::open(T::close(times::of(x, T::open(load<typename T::mem>(p, 0, even)))));
	}
	template <class M> static HERE M after(const struct tt_cuda_all &a, M x)
	{
		typedef typename V::acc A;

		if (!a.divisor)
			return x;
		return (M)V::close((A)over::of((Wide)V::open((typename V::mem)x), (Wide)a.divisor));
	}
};

/* ---- folds: what is folded is a view, of one rank's sources or of all ranks ---- */

struct view_one {
	const struct tt_cuda_fold &a;

	HERE size_t n() const { return a.n; }
	HERE int nsrc() const { return a.nsrc; }
	HERE int ndst() const { return 1; }
	HERE const void *src(int k) const { return a.src[k]; }
	HERE void *dst(int) const { return a.dst; }
	HERE bool skips(int) const { return false; }
	template <class T> HERE typename T::acc before(int, typename T::acc x) const { return x; }
	template <class M> HERE M after(M x) const { return x; }
	HERE size_t first() const { return (size_t)blockIdx.x * blockDim.x + threadIdx.x; }
	HERE size_t stride() const { return (size_t)gridDim.x * blockDim.x; }
};

/* The piece of this block: each has every npieces-th. */
template <class S, unsigned SIZE> struct view_all {
	const struct tt_cuda_all &a;
	const struct tt_piece &p;

	HERE view_all(const struct tt_cuda_all &all) : a(all), p(all.piece[blockIdx.x % all.npieces]) {}
	HERE size_t n() const { return p.n; }
	HERE int nsrc() const { return p.nsrc; }
	HERE int ndst() const { return p.ndst; }
	HERE const void *src(int k) const { return (const char *)a.src[p.src + k] + p.src_at * SIZE; }
	HERE void *dst(int k) const { return (char *)a.dst[p.dst + k] + p.dst_at * SIZE; }
	HERE bool skips(int k) const { return p.nsrc == 1 && !a.scales && !a.divisor && dst(k) == src(0); }
	template <class T> HERE typename T::acc before(int k, typename T::acc x) const
	{
		return S::template before<T>(a, p.src + k, x);
	}
	template <class M> HERE M after(M x) const { return S::template after<M>(a, x); }
	HERE size_t first() const { return (size_t)(blockIdx.x / a.npieces) * blockDim.x + threadIdx.x; }
	HERE size_t stride() const { return (size_t)(gridDim.x / a.npieces) * blockDim.x; }
};

template <class T, class Op, class View> static HERE void fold_one(const View &v, size_t i, bool aligned)
{
	typedef typename T::mem M;
	typename T::acc x = v.template before<T>(0, T::open(load<M>(v.src(0), i, aligned)));
	M y;

#pragma unroll 1
	for (int k = 1; k < v.nsrc(); k++)
		x = Op::of(x, v.template before<T>(k, T::open(load<M>(v.src(k), i, aligned))));
	y = v.after(T::close(x));
#pragma unroll 1
	for (int k = 0; k < v.ndst(); k++)
		if (!v.skips(k))
			store<M>(v.dst(k), i, y, aligned);
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

template <class T, class Op, int MANY, class View>
static HERE void fold_words(const View &v, size_t head, size_t first, size_t stride)
{
	typedef typename T::mem M;
	enum { PER = WORD / sizeof(M) };
	typename T::acc x[MANY][PER];
	word<M> w[MANY];

	load_words<M, MANY>(w, v.src(0), head, first, stride);
#pragma unroll
	for (int i = 0; i < MANY * PER; i++)
		x[i / PER][i % PER] = v.template before<T>(0, T::open(w[i / PER].each[i % PER]));
#pragma unroll 1
	for (int k = 1; k < v.nsrc(); k++) {
		load_words<M, MANY>(w, v.src(k), head, first, stride);
#pragma unroll
		for (int i = 0; i < MANY * PER; i++)
			x[i / PER][i % PER] = Op::of(x[i / PER][i % PER],
						     v.template before<T>(k, T::open(w[i / PER].each[i % PER])));
	}
#pragma unroll
	for (int i = 0; i < MANY * PER; i++)
		w[i / PER].each[i % PER] = v.after(T::close(x[i / PER][i % PER]));
#pragma unroll 1
	for (int k = 0; k < v.ndst(); k++) {
		if (v.skips(k))
			continue;
#pragma unroll
		for (int u = 0; u < MANY; u++)
			((uint4 *)((M *)v.dst(k) + head) + first)[u * stride] = w[u].all;
	}
}

template <class T, class Op, class View> static HERE void fold(const View &v)
{
	typedef typename T::mem M;
	enum { PER = WORD / sizeof(M), MANY = PER >= 16 ? 2 : 4 };
	const size_t first = v.first(), stride = v.stride();
	const unsigned at = phase(v.dst(0), WORD);
	bool same = true, aligned = true;
	size_t i = first, w = first;
	struct cut c;

	for (int k = 0; k < v.nsrc(); k++) {
		same &= phase(v.src(k), WORD) == at;
		aligned &= phase(v.src(k), sizeof(M)) == 0;
	}
	for (int k = 0; k < v.ndst(); k++) {
		same &= phase(v.dst(k), WORD) == at;
		aligned &= phase(v.dst(k), sizeof(M)) == 0;
	}
	c = cut_of(v.n(), sizeof(M), at, same);
	for (; w + (MANY - 1) * stride < c.words; w += MANY * stride)
		fold_words<T, Op, MANY>(v, c.head, w, stride);
	for (; w < c.words; w += stride)
		fold_words<T, Op, 1>(v, c.head, w, stride);
	for (; i < c.head; i += stride)
		fold_one<T, Op>(v, i, aligned);
	for (i = c.head + c.words * PER + first; i < v.n(); i += stride)
		fold_one<T, Op>(v, i, aligned);
}

template <class T, class Op> static HERE void of_one(const struct tt_cuda_fold &a)
{
	fold<T, Op>(view_one{ a });
}

template <class T, class Op, class S> static HERE void of_all(const struct tt_cuda_all &a)
{
	fold<T, Op>(view_all<S, sizeof(typename T::mem)>(a));
}

/* ---- scaling ---- */

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
#define ALL(name, type, op, scaling)                                                               \
	KERNEL tt_all_##name(const __grid_constant__ struct tt_cuda_all a) { of_all<type, op, scaling>(a); }

#define KERNELS(name, bits, value, wide)                                                           \
	KERNEL tt_sum_##name(const __grid_constant__ struct tt_cuda_fold a) { of_one<bits, sum>(a); } \
	KERNEL tt_prod_##name(const __grid_constant__ struct tt_cuda_fold a) { of_one<bits, prod>(a); } \
	KERNEL tt_max_##name(const __grid_constant__ struct tt_cuda_fold a) { of_one<value, max_>(a); } \
	KERNEL tt_min_##name(const __grid_constant__ struct tt_cuda_fold a) { of_one<value, min_>(a); } \
	typedef scaled<value, wide> scaled_##name;                                                 \
	ALL(sum_##name, bits, sum, scaled_##name)                                                  \
	ALL(prod_##name, bits, prod, unscaled)                                                     \
	ALL(max_##name, value, max_, unscaled)                                                     \
	ALL(min_##name, value, min_, unscaled)                                                     \
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

/* Of one source each. */
ALL(copy_1, plain<uint8_t>, sum, unscaled)
ALL(copy_2, plain<uint16_t>, sum, unscaled)
ALL(copy_4, plain<uint32_t>, sum, unscaled)
ALL(copy_8, plain<uint64_t>, sum, unscaled)
