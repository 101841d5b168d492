/* Floor 1: memory of CUDA devices that ranks of one host share. */
#ifndef TT_CUDA_SHARE_H
#define TT_CUDA_SHARE_H

#include "cuda_lib.h"
#include "mem.h"

void tt_cuda_share_open(const struct tt_cuda *f); /* once */
extern const struct tt_mem_sharing tt_cuda_sharing;

#endif
