/* Types, operators and memory of the kernels for CUDA devices. SPDX-License-Identifier: Apache-2.0 */
#ifndef TT_CUDA_TYPES_CUH
#define TT_CUDA_TYPES_CUH

#include <stddef.h>

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

#endif
