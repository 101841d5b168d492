/* The kernels of tools and benchmarks as nvcc made them. SPDX-License-Identifier: Apache-2.0 */
#include "gpu.h"

#ifdef TT_GPU_FATBIN
__asm__(".section .rodata\n"
	".balign 64\n"
	".global tt_gpu_image\n"
	"tt_gpu_image:\n"
	".incbin \"" TT_GPU_FATBIN "\"\n"
	"gpu_image_end:\n"
	".balign 8\n"
	".global tt_gpu_image_size\n"
	"tt_gpu_image_size:\n"
	".quad gpu_image_end - tt_gpu_image\n"
	".text\n");
#else
const unsigned char tt_gpu_image[1];
const size_t tt_gpu_image_size;
#endif
