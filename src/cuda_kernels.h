/* Floor 1: what the host and the kernels (cuda_kernels.cu, C++) share: their names and arguments. A kernel's name is
 * tt_<operator>_<type>, with types as tt_type_name prints them; that of all ranks' tt_all_<operator>_<type>, or
 * tt_all_copy_<bytes of an element>. */
#ifndef TT_CUDA_KERNELS_H
#define TT_CUDA_KERNELS_H

#include "mem_piece.h"

enum { TT_CUDA_THREADS = 512, TT_CUDA_SRCS = 448 }; /* a kernel's arguments are 4 KiB at most */

struct tt_cuda_fold { /* sum, prod, max, min: as tt_reduce_run */
	void *dst;
	size_t n;
	int nsrc;
	const void *src[TT_CUDA_SRCS];
};

struct tt_cuda_scale { /* pre, post: as tt_reduce_pre of PreMulSum and tt_reduce_post of Avg */
	void *dst;
	const void *src;
	size_t n;
	uint64_t factor; /* an element of the type */
	const void *factor_at; /* or where it is, in the device's reach */
	int divisor;
};

/* sum, prod, max, min of all ranks at once, or copies: pieces, each by as many blocks as the others. Sums are scaled
 * before (PreMulSum: each source by its factor, rounded) and after (Avg). */
struct tt_cuda_all {
	const void *src[TT_PIECE_RANKS];
	void *dst[TT_PIECE_RANKS];
	uint64_t factor[TT_PIECE_RANKS]; /* elements of the type, or where they are */
	uint64_t factors_at;             /* a bit for each rank: where */
	struct tt_piece piece[TT_PIECE_RANKS];
	uint32_t npieces;
	int scales, divisor; /* whether by factors; 0: not Avg */
};

#endif
