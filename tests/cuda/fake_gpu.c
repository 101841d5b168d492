/* The kernels of our tools (tools/gpu_kernels.h) on the fake driver: functions that the thread of the stream calls.
 * SPDX-License-Identifier: Apache-2.0 */
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "fake_libcuda.h"
#include "gpu_kernels.h"

enum { PATIENCE = 20 }; /* limits of kernels are for GPUs: here the host is slow as well */

struct fake_gpu_kernel {
	const char *name;
	size_t size;
	void (*run)(const void *args, int device);
};

struct launched {
	const struct fake_gpu_kernel *k;
	int device;
	unsigned char args[4096];
};

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint32_t look(const uint32_t *p)
{
	return atomic_load_explicit((const _Atomic uint32_t *)p, memory_order_acquire);
}

static void tell(uint32_t *p, uint32_t v)
{
	atomic_store_explicit((_Atomic uint32_t *)p, v, memory_order_release);
}

static void run_empty(const void *args, int device)
{
}

static void run_spin(const void *args, int device)
{
	const struct gpu_spin_args *a = args;
	uint64_t start = now_ns();

	if (a->began)
		tell(reach(a->began, 4, device), 1);
	while (!look(reach(a->word, 4, device)) && now_ns() - start < PATIENCE * a->ns)
		sched_yield();
}

static void run_pong(const void *args, int device)
{
	const struct gpu_pong_args *a = args;
	uint64_t start = now_ns();

	for (uint32_t i = 1; i <= (uint32_t)a->n; i++) {
		while (look(reach(a->ask, 4, device)) != i) {
			if (now_ns() - start > PATIENCE * a->ns)
				return;
			sched_yield();
		}
		tell(reach(a->answer, 4, device), i);
	}
}

static void run_copy(const void *args, int device)
{
	const struct gpu_copy_args *a = args;

	memcpy(reach(a->dst, a->words * 16, device), reach(a->src, a->words * 16, device), a->words * 16);
}

static void run_fma(const void *args, int device)
{
	const struct gpu_fma_args *a = args;
	uint64_t end = now_ns() + (uint64_t)a->turns * 1000;

	while (now_ns() < end)
		sched_yield();
}

static void run_big(const void *args, int device)
{
	const struct gpu_big_args *a = args;

	tell(reach(a->out, 4, device), a->bytes[sizeof(a->bytes) - 1]);
}

static const struct fake_gpu_kernel kernels[] = {
	{ "gpu_empty", 0, run_empty },
	{ "gpu_spin", sizeof(struct gpu_spin_args), run_spin },
	{ "gpu_pong", sizeof(struct gpu_pong_args), run_pong },
	{ "gpu_copy", sizeof(struct gpu_copy_args), run_copy },
	{ "gpu_fma", sizeof(struct gpu_fma_args), run_fma },
	{ "gpu_big", sizeof(struct gpu_big_args), run_big },
};
enum { N = sizeof(kernels) / sizeof(kernels[0]) };

const void *fake_gpu_find(const char *name)
{
	for (int i = 0; i < N; i++)
		if (!strcmp(kernels[i].name, name))
			return &kernels[i];
	return NULL;
}

bool fake_gpu_is(const void *kernel)
{
	for (int i = 0; i < N; i++)
		if (kernel == &kernels[i])
			return true;
	return false;
}

static void call(void *arg)
{
	struct launched *l = arg;

	l->k->run(l->args, l->device);
}

int fake_gpu_launch(const void *kernel, void *stream, void **args)
{
	struct launched l;

	IN_CONTEXT();
	l.k = kernel;
	l.device = current()->device;
	if (l.k->size)
		memcpy(l.args, args[0], l.k->size);
	return enqueue(stream, call, &l, sizeof(l));
}

/* FAKE_CUDA_HANG's. */
int fake_never(void)
{
	for (;;)
		pause();
}
