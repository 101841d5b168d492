/* The kernel whose blocks run schedules on the fake driver, compiled for the host, each block a thread: all ranks of a
 * device as a cooperative grid, or one rank as an ordinary kernel. FAKE_CUDA_BLOCKS: how many a processor takes;
 * FAKE_CUDA_TELL=1: says at the end how many there were of each. SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "../harness/dev_host.h"
#include "fake_libcuda.h"

struct grid {
	struct tt_dev_launch launch;
	struct tt_dev_link *links[TT_DEV_RANKS];
	unsigned blocks;
	int device;
	bool together; /* as a cooperative grid */
};

struct block {
	const struct grid *grid;
	unsigned at;
	pthread_t thread;
	struct dev_shared shared;
};

static _Atomic int grids, kernels;

/* For a script to see that the path was taken. */
__attribute__((destructor)) static void tell(void)
{
	if (setting("FAKE_CUDA_TELL", 0))
		fprintf(stderr, "fake libcuda: %d grids, %d kernels of one rank\n", atomic_load(&grids),
			atomic_load(&kernels));
}

int cuOccupancyMaxActiveBlocksPerMultiprocessor(int *n, void *fn, int threads, size_t shared)
{
	IN_CONTEXT();
	*n = (int)setting("FAKE_CUDA_BLOCKS", 32);
	return 0;
}

/* What blocks reach under the addresses of a launch; at the time when it runs. */
static void reach_rank(struct grid *g, int r)
{
	struct tt_dev_rank *k = &g->launch.ranks[r];
	uint32_t n;

	k->prog = reach(k->prog, sizeof(*k->prog), g->device);
	k->bind = reach(k->bind, sizeof(*k->bind), g->device);
	k->in = k->in ? cuFakeView(k->in) : NULL;
	k->out = k->out ? cuFakeView(k->out) : NULL;
	k->tmp = k->tmp ? cuFakeView(k->tmp) : NULL;
	n = k->prog->nlinks;
	g->links[r] = calloc(n + 1, sizeof(struct tt_dev_link));
	if (!g->links[r])
		wrong("no memory");
	if (n)
		memcpy(g->links[r], reach(k->links, n * sizeof(struct tt_dev_link), g->device),
		       n * sizeof(struct tt_dev_link));
	for (uint32_t i = 0; i < n; i++) {
		struct tt_dev_link *l = &g->links[r][i];

		l->mine = reach(l->mine, sizeof(*l->mine), g->device);
		l->theirs = reach(l->theirs, sizeof(*l->theirs), g->device);
		l->slots = reach(l->slots, TT_DEV_SLOTS * g->launch.slot_bytes, g->device);
		l->packets = reach(l->packets, TT_DEV_SLOTS * 16 * (size_t)g->launch.packets, g->device);
	}
	k->links = g->links[r];
}

static void *run_one(void *arg)
{
	struct block *b = arg;

	(void)dev_host_block(&b->grid->launch, b->at, &b->shared);
	return NULL;
}

static void run_grid(void *arg)
{
	struct grid *g = arg;
	struct block *blocks = calloc(g->blocks, sizeof(*blocks));

	if (!blocks)
		wrong("no memory");
	for (uint32_t r = 0; r < g->launch.nranks; r++)
		reach_rank(g, (int)r);
	for (unsigned i = 0; i < g->blocks; i++) {
		blocks[i].grid = g;
		blocks[i].at = i;
		if (pthread_create(&blocks[i].thread, NULL, run_one, &blocks[i]))
			wrong("no thread for a block");
	}
	for (unsigned i = 0; i < g->blocks; i++)
		pthread_join(blocks[i].thread, NULL);
	for (uint32_t r = 0; r < g->launch.nranks; r++)
		free(g->links[r]);
	atomic_fetch_add(g->together ? &grids : &kernels, 1);
	free(blocks);
}

bool fake_grid_is(const void *kernel)
{
	return kernel == (const void *)cuLaunchCooperativeKernel;
}

/* Blocks that are not of a cooperative grid run at a time where there is room, which nobody checks. */
int fake_grid_launch(void *stream, unsigned blocks, unsigned threads, bool together, void **args)
{
	struct grid g = { .blocks = blocks, .together = together };
	int sms;

	IN_CONTEXT();
	cuDeviceGetAttribute(&sms, 16, current()->device);
	if (!blocks || threads != TT_DEV_THREADS)
		return BAD_VALUE;
	if (blocks > sms * setting("FAKE_CUDA_BLOCKS", 32))
		return together ? 720 : (wrong("blocks wait for others that have no room"), 0);
	g.launch = *(const struct tt_dev_launch *)args[0];
	g.device = current()->device;
	if (!together && g.launch.nranks > 1)
		wrong("ranks of one device wait for each other in no cooperative grid");
	return enqueue(stream, run_grid, &g, sizeof(g));
}

int cuLaunchCooperativeKernel(void *fn, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
			      unsigned shared, void *stream, void **args)
{
	if (fake_gpu_is(fn))
		return fake_gpu_launch(fn, stream, args);
	if (!fake_grid_is(fn) || gy != 1 || gz != 1 || by != 1 || bz != 1 || shared)
		return BAD_VALUE;
	return fake_grid_launch(stream, gx, bx, true, args);
}

/* ---- memory that begins as something ---- */

struct fill {
	void *at;
	size_t n;
	unsigned char value;
	int device;
};

static void run_fill(void *arg)
{
	const struct fill *f = arg;

	memset(reach(f->at, f->n, f->device), f->value, f->n);
}

int cuMemsetD8Async(void *p, unsigned char value, size_t n, void *stream)
{
	struct fill f;

	IN_CONTEXT();
	f = (struct fill){ p, n, value, current()->device };
	return enqueue(stream, run_fill, &f, sizeof(f));
}
