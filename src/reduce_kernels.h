/* The inner loops of reduce.c, one table per instruction set. Pointers may be unaligned; dst may equal
 * any source exactly. Built by reduce_kernels.c, which is compiled once for each set. */
#ifndef TT_REDUCE_KERNELS_H
#define TT_REDUCE_KERNELS_H

#include "base.h"

enum { TT_KERNEL_OPS = 4 }; /* sum prod max min, by tuttiRedOp_t */

struct tt_kernels {
	const char *name;
	/* dst = a op b, dst = (a op b) op c: NULL for the types that are added in float32. */
	void (*fold2[tuttiNumTypes][TT_KERNEL_OPS])(void *dst, const void *a, const void *b, size_t n);
	void (*fold3[tuttiNumTypes][TT_KERNEL_OPS])(void *dst, const void *a, const void *b,
						    const void *c, size_t n);
	/* The conversions of the others; pack rounds to nearest even. */
	void (*unpack[tuttiNumTypes])(float *dst, const void *src, size_t n);
	void (*pack[tuttiNumTypes])(void *dst, const float *src, size_t n);
	/* dst = src * factor, dst = src / divisor (truncating for integers). */
	void (*mul[tuttiNumTypes])(void *dst, const void *src, size_t n, const void *factor);
	void (*div[tuttiNumTypes])(void *dst, const void *src, size_t n, int divisor);
	/* Copies past the cache; dst is 64-byte aligned, bytes a multiple of 64. Then fence, once. */
	void (*stream)(void *dst, const void *src, size_t bytes);
	void (*fence)(void);
};

extern const struct tt_kernels tt_kernels_sse2, tt_kernels_avx2, tt_kernels_avx512, tt_kernels_generic;

/* For tests: uses the named set from now on; false where this CPU or build has not got it. */
bool tt_reduce_use(const char *isa);

#endif
