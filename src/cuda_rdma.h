/* Floor 1: memory of CUDA devices that NICs read and write themselves. */
#ifndef TT_CUDA_RDMA_H
#define TT_CUDA_RDMA_H

#include "cuda_lib.h"
#include "mem.h"

void tt_cuda_rdma_open(const struct tt_cuda *f);
extern const struct tt_mem_rdma tt_cuda_rdma;

#endif
