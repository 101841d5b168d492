/* What the host and the kernels of tools and benchmarks (gpu_kernels.cu, C++) share. Each kernel takes one of these,
 * the empty one none. */
#ifndef TT_GPU_KERNELS_H
#define TT_GPU_KERNELS_H

#include <stddef.h>
#include <stdint.h>

struct gpu_spin_args { /* gpu_spin: until the word is not 0, or the time is over */
	const uint32_t *word;
	uint32_t *began; /* set to 1; or NULL */
	uint64_t ns;
};

struct gpu_copy_args { /* gpu_copy: words of 16 bytes */
	void *dst;
	const void *src;
	size_t words;
};

struct gpu_fma_args { /* gpu_fma: each thread 64 multiply-adds a turn */
	float *out;
	int turns;
};

struct gpu_pong_args { /* gpu_pong: for i of 1..n, waits for i in `ask` and stores it in `answer` */
	const uint32_t *ask;
	uint32_t *answer;
	int n;
	uint64_t ns;
};

struct gpu_big_args { /* gpu_big: as many bytes as our reductions take */
	uint32_t *out;
	unsigned char bytes[3592];
};

#endif
