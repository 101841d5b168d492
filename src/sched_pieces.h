/* Floor 2: a collective as pieces, for one device that reaches the buffers of all ranks. */
#ifndef TT_SCHED_PIECES_H
#define TT_SCHED_PIECES_H

#include "mem_piece.h"
#include "sched.h"

/* At most one for each rank, and at most TT_PIECE_RANKS ranks; `count` is that of a block. Returns how many. */
int tt_pieces(enum tt_coll coll, int nranks, int root, size_t count, struct tt_piece *out);

#endif
