/* Floor 1: memory of CUDA devices that ranks of one host share. */
#ifndef TT_CUDA_SHARE_H
#define TT_CUDA_SHARE_H

#include "cuda_lib.h"
#include "mem.h"

void tt_cuda_share_open(const struct tt_cuda *f); /* once */
/* For users, on the current device and in reach of all that can: memory that can be shared later. False: the driver has
 * no such memory, or none left; not given by it. */
bool tt_cuda_share_alloc(size_t n, void **p);
bool tt_cuda_share_free(void *p);
void tt_cuda_share_trim(void); /* no stream waits for this library any more */
extern const struct tt_mem_sharing tt_cuda_sharing;

#endif
