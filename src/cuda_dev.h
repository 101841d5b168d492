/* Floor 1: schedules as grids of blocks on CUDA devices: the kernel of dev_kernels.cu, where this build has it. */
#ifndef TT_CUDA_DEV_H
#define TT_CUDA_DEV_H

#include "cuda_lib.h"
#include "dev_proto.h"

extern const unsigned char tt_dev_image[]; /* of nvcc (cuda_image.c) */
extern const size_t tt_dev_image_size;     /* 0: built without */

void tt_cuda_dev_open(const struct tt_cuda *f); /* once */
/* Into the current context, as tt_cuda_code_load. */
void tt_cuda_dev_load(int device);
uint32_t tt_cuda_dev_room(int device); /* blocks that it runs at a time; 0: there is no kernel */
/* Enqueues blocks that run at a time: of several ranks as a cooperative grid, of one as an ordinary kernel.
 * Unsupported, with nothing enqueued: there is no kernel, or more blocks than a device of `sms` processors has room
 * for. */
tuttiResult_t tt_cuda_dev_run(tuttiStream_t queue, int sms, const struct tt_dev_launch *launch, uint32_t blocks);

#endif
