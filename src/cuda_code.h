/* Floor 1: the kernels of CUDA devices, where this build has them. */
#ifndef TT_CUDA_CODE_H
#define TT_CUDA_CODE_H

#include "cuda_kernels.h"
#include "cuda_lib.h"
#include "mem.h"

extern const unsigned char tt_cuda_image[]; /* of nvcc (cuda_image.c) */
extern const size_t tt_cuda_image_size;     /* 0: built without */

void tt_cuda_code_open(const struct tt_cuda *f); /* once */
/* Into the current context, before anything waits there: a driver that loads at the first launch may wait for what
 * runs. */
void tt_cuda_code_load(int device);
bool tt_cuda_code_has(tuttiDataType_t type);
const char *tt_cuda_code_words(void); /* "kernels", or why there are none and what happens instead */
/* An error of CUDA's. `sms`: the device's processors. */
int tt_cuda_code_run(tuttiStream_t queue, int sms, void *dst, const void *const *src, int nsrc, size_t count,
		     tuttiDataType_t type, const struct tt_op *op, enum tt_scale scale);
/* All pieces in one launch; there is one at least. */
int tt_cuda_code_run_all(tuttiStream_t queue, int sms, const struct tt_mem_all *all);

#endif
