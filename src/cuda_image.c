/* The kernels as nvcc made them, for all kinds of devices that the build names. SPDX-License-Identifier: Apache-2.0 */
#include "cuda_code.h"
#include "cuda_dev.h"

#ifdef TT_CUDA_FATBIN
#define IMAGE(name, file)                                                                          \
	__asm__(".section .rodata\n"                                                               \
		".balign 64\n"                                                                     \
		".global " name "\n"                                                               \
		".hidden " name "\n" name ":\n"                                                    \
		".incbin \"" file "\"\n" name "_end:\n"                                            \
		".balign 8\n"                                                                      \
		".global " name "_size\n"                                                          \
		".hidden " name "_size\n" name "_size:\n"                                          \
		".quad " name "_end - " name "\n"                                                  \
		".text\n")
IMAGE("tt_cuda_image", TT_CUDA_FATBIN);
IMAGE("tt_dev_image", TT_DEV_FATBIN);
#else
const unsigned char tt_cuda_image[1], tt_dev_image[1];
const size_t tt_cuda_image_size, tt_dev_image_size;
#endif
