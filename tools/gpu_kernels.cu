/* Kernels of tutti-gpu-probe and of the benchmarks. SPDX-License-Identifier: Apache-2.0 */
#include "gpu_kernels.h"

#define KERNEL extern "C" __global__ void

static __device__ __forceinline__ uint64_t now(void)
{
	uint64_t t;

	asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(t));
	return t;
}

static __device__ __forceinline__ uint32_t look(const uint32_t *p)
{
	return *(const volatile uint32_t *)p;
}

static __device__ __forceinline__ void tell(uint32_t *p, uint32_t v)
{
	__threadfence_system();
	*(volatile uint32_t *)p = v;
	__threadfence_system();
}

KERNEL gpu_empty(void)
{
}

KERNEL gpu_spin(const __grid_constant__ struct gpu_spin_args a)
{
	uint64_t start = now();

	if (a.began && blockIdx.x == gridDim.x - 1 && threadIdx.x == 0)
		tell(a.began, 1);
	if (threadIdx.x == 0)
		while (!look(a.word) && now() - start < a.ns)
			;
	__syncthreads();
}

KERNEL gpu_pong(const __grid_constant__ struct gpu_pong_args a)
{
	uint64_t start = now();

	for (uint32_t i = 1; i <= (uint32_t)a.n; i++) {
		while (look(a.ask) != i)
			if (now() - start > a.ns)
				return;
		tell(a.answer, i);
	}
}

KERNEL __launch_bounds__(512, 1) gpu_copy(const __grid_constant__ struct gpu_copy_args a)
{
	const uint4 *src = (const uint4 *)a.src;
	uint4 *dst = (uint4 *)a.dst;
	size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x, stride = (size_t)gridDim.x * blockDim.x;

	for (; i + 3 * stride < a.words; i += 4 * stride) {
		uint4 w[4];

#pragma unroll
		for (int u = 0; u < 4; u++)
			w[u] = src[i + u * stride];
#pragma unroll
		for (int u = 0; u < 4; u++)
			dst[i + u * stride] = w[u];
	}
	for (; i < a.words; i += stride)
		dst[i] = src[i];
}

KERNEL gpu_fma(const __grid_constant__ struct gpu_fma_args a)
{
	float x = (float)threadIdx.x, y = (float)blockIdx.x, z = 1;

	for (int t = 0; t < a.turns; t++)
#pragma unroll
		for (int i = 0; i < 64; i++)
			x = fmaf(x, 0.999f, i & 1 ? y : z);
	if (x == 0.125f) /* never; or nothing of it would be done */
		a.out[0] = x;
}

KERNEL gpu_big(const __grid_constant__ struct gpu_big_args a)
{
	if (threadIdx.x == 0 && blockIdx.x == 0)
		a.out[0] = a.bytes[3591];
}
