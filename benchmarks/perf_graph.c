/* -G: the timed calls as one CUDA graph. What one kernel does for all ranks of a device is captured if all of their
 * streams belong to one capture: it begins on the stream of the process's first rank, which the others' then wait for,
 * and which waits for them before it ends. SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include <stdlib.h>

#include "gpu.h"
#include "perf_common.h"

static struct {
	pthread_barrier_t come; /* ranks of this process */
	int n;
	void *origin, **joined; /* events: of the first rank's stream, of the others' */
	void *graph, *exec;
} g;

static void must(int e, const char *what)
{
	if (e)
		perf_die("-G: %s: %s", what, gpu_words(e));
}
#define MUST(name, ...) must(GPU(name, __VA_ARGS__), #name)

static void meet(void)
{
	pthread_barrier_wait(&g.come);
}

void perf_graph_start(int ranks)
{
	g.n = ranks;
	g.joined = calloc((size_t)ranks, sizeof *g.joined);
	if (!g.joined || pthread_barrier_init(&g.come, NULL, (unsigned)ranks))
		perf_die("-G: no memory for %d ranks", ranks);
}

void perf_graph_begin(int i, tuttiStream_t s)
{
	MUST(cuEventCreate, i ? &g.joined[i] : &g.origin, GPU_NO_TIMING);
	meet();
	if (!i) {
		MUST(cuStreamBeginCapture, s, GPU_RELAXED);
		MUST(cuEventRecord, g.origin, s);
	}
	meet();
	if (i)
		MUST(cuStreamWaitEvent, s, g.origin, 0);
}

void perf_graph_end(int i, tuttiStream_t s)
{
	if (i)
		MUST(cuEventRecord, g.joined[i], s);
	meet();
	for (int k = 1; !i && k < g.n; k++)
		MUST(cuStreamWaitEvent, s, g.joined[k], 0);
	if (!i) {
		MUST(cuStreamEndCapture, s, &g.graph);
		MUST(cuGraphInstantiateWithFlags, &g.exec, g.graph, 0);
	}
	meet();
	MUST(cuEventDestroy, i ? g.joined[i] : g.origin);
}

void perf_graph_launch(int i, tuttiStream_t s)
{
	if (!i)
		MUST(cuGraphLaunch, g.exec, s);
}

void perf_graph_free(int i)
{
	meet();
	if (i)
		return;
	MUST(cuGraphExecDestroy, g.exec);
	MUST(cuGraphDestroy, g.graph);
}
