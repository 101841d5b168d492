/* The kernels as nvcc made them, for all kinds of devices that the build names. SPDX-License-Identifier: Apache-2.0 */
#include "cuda_code.h"

#ifdef TT_CUDA_FATBIN
__asm__(".section .rodata\n"
	".balign 64\n"
	".global tt_cuda_image\n"
	".hidden tt_cuda_image\n"
	"tt_cuda_image:\n"
	".incbin \"" TT_CUDA_FATBIN "\"\n"
	"image_end:\n"
	".balign 8\n"
	".global tt_cuda_image_size\n"
	".hidden tt_cuda_image_size\n"
	"tt_cuda_image_size:\n"
	".quad image_end - tt_cuda_image\n"
	".text\n");
#else
const unsigned char tt_cuda_image[1];
const size_t tt_cuda_image_size;
#endif
