/* Floor 1: what a device does for all ranks of a communicator at once, as data; seen by C and by kernels (C++). */
#ifndef TT_MEM_PIECE_H
#define TT_MEM_PIECE_H

#include <stddef.h>
#include <stdint.h>

enum { TT_PIECE_RANKS = 64 };

/* Elements of some ranks' inputs are reduced, in the order of ranks, or copied, where it is of one, into some ranks'
 * outputs. An output may be one of the inputs; what a piece writes no other piece touches. All in elements. */
struct tt_piece {
	size_t src_at, dst_at, n;
	uint16_t src, nsrc, dst, ndst; /* the first rank, and how many */
};

#endif
