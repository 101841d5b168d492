/* Streams that share a queue of the hardware, and launches that wait until they are done: what stops where each rank
 * works on its own stream does not where one kernel works for all. Run by queues.sh, over a driver that is a fake.
 * SPDX-License-Identifier: Apache-2.0 */
#include <dlfcn.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "comm.h"
#include "cuda_code.h"
#include "fake.h"
#include "ranks.h"
#include "test.h"

enum { N = 3000 };

static struct {
	int (*retain)(void **ctx, int device);
	int (*set)(void *ctx);
	int (*alloc)(void **p, size_t n);
	int (*stream_create)(void **stream, unsigned flags);
	int (*launches)(void);
} cuda;

/* False: a build without kernels. */
static bool start(void)
{
	const struct tt_symbol rows[] = {
		{ &cuda.retain, "cuDevicePrimaryCtxRetain" }, { &cuda.set, "cuCtxSetCurrent" },
		{ &cuda.alloc, "cuMemAlloc_v2" }, { &cuda.stream_create, "cuStreamCreate" },
		{ &cuda.launches, "cuFakeLaunches" },
	};
	void *so;

	fake_start();
	so = dlopen("libcuda.so.1", RTLD_NOW);
	CHECKF(so, "%s: run by tests/cuda/queues.sh", dlerror());
	CHECK(!tt_symbols(so, rows, sizeof(rows) / sizeof(rows[0])));
	tt_mem_look();
	setenv("TUTTI_LOG", "none", 0);
	return tt_cuda_code_has(tuttiFloat32);
}

static float *floats(float x)
{
	float *p = fake_alloc(N * sizeof(float)), *v = fake_view(p);

	for (int i = 0; i < N; i++)
		v[i] = x;
	return p;
}

static bool holds(const float *p, float x)
{
	const float *v = fake_view(p);

	for (int i = 0; i < N; i++)
		if (v[i] != x)
			return false;
	return true;
}

/* ---- one queue of the hardware: rank 0 has enqueued its call before rank 1 begins ---- */

static _Atomic int in, looked;

static void one_queue_rank(struct rank *r)
{
	bool one_kernel = *(const bool *)r->arg;
	tuttiStream_t q = fake_queue_new();
	float *x = floats((float)r->rank);

	while (!one_kernel && atomic_load(&in) < r->rank)
		sleep_s(0.001);
	RANK_OK(r, FAKE(tuttiAllReduce(x, x, N, tuttiFloat32, tuttiSum, r->comm, q)));
	atomic_fetch_add(&in, 1);
	if (one_kernel) {
		fake_queue_sync(q);
		RANK_CHECKF(r, holds(x, (float)(r->n * (r->n - 1) / 2)), "not the sum");
	} else {
		while (atomic_load(&in) < r->n)
			sleep_s(0.001);
		RANK_CHECKF(r, !fake_queue_wait(q, 0.5), "streams of one queue did not stop each other");
		atomic_fetch_add(&looked, 1);
		while (atomic_load(&looked) < r->n) /* abort lets all streams go */
			sleep_s(0.001);
		tuttiCommAbort(r->comm);
		r->comm = NULL;
		fake_queue_sync(q);
	}
	fake_queue_free(q);
	fake_free(x);
}

static void one_queue(bool one_kernel)
{
	setenv("FAKE_CUDA_QUEUES", "1", 1);
	setenv("TUTTI_ONE_KERNEL", one_kernel ? "1" : "0", 1);
	if (start())
		ranks_run(4, 30, one_queue_rank, &one_kernel);
	unsetenv("FAKE_CUDA_QUEUES"); /* sanitizers run all tests in one process */
}

static void stops(void)
{
	one_queue(false);
}

static void goes(void)
{
	one_queue(true);
}

/* ---- launches that wait: one thread for all ranks ---- */

static void all_ranks(void)
{
	enum { RANKS = 4 };
	tuttiStream_t q[RANKS];
	tuttiComm_t c[RANKS];
	float *x[RANKS];

	CHECK(tuttiCommInitAll(c, RANKS, NULL) == tuttiSuccess);
	CHECK(tuttiGroupStart() == tuttiSuccess);
	for (int i = 0; i < RANKS; i++) {
		q[i] = fake_queue_new();
		x[i] = floats((float)i);
		CHECK(tuttiAllReduce(x[i], x[i], N, tuttiFloat32, tuttiSum, c[i], q[i]) == tuttiSuccess);
	}
	CHECKF(FAKE(tuttiGroupEnd()) == tuttiSuccess, "%s", tuttiGetLastError(NULL));
	for (int i = 0; i < RANKS; i++) {
		fake_queue_sync(q[i]);
		CHECK(holds(x[i], RANKS * (RANKS - 1) / 2));
		fake_queue_free(q[i]);
		fake_free(x[i]);
		CHECK(tuttiCommDestroy(c[i]) == tuttiSuccess);
	}
}

/* In a child, which SIGALRM ends where it never comes back. */
static void blocking(const char *one_kernel, int want)
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		setenv("FAKE_CUDA_LAUNCH_BLOCKING", "1", 1);
		setenv("TUTTI_ONE_KERNEL", one_kernel, 1);
		signal(SIGALRM, SIG_DFL);
		if (start()) {
			if (want)
				alarm(1);
			all_ranks();
		} else if (want) {
			raise(want);
		}
		_exit(0);
	}
	CHECK(pid > 0 && waitpid(pid, &status, 0) == pid);
	CHECKF(want ? WIFSIGNALED(status) && WTERMSIG(status) == want : WIFEXITED(status) && !WEXITSTATUS(status),
	       "status %x", status);
}

static void blocking_stops(void)
{
	blocking("0", SIGALRM);
}

static void blocking_goes(void)
{
	blocking("1", 0);
}

/* ---- how many launches ---- */

static void launches_rank(struct rank *r)
{
	tuttiStream_t q = fake_queue_new();
	float *x = floats(1), *y = fake_alloc((size_t)r->n * N * sizeof(float));
	int before = 0;

	RANK_OK(r, tuttiBarrier(r->comm, NULL));
	before = cuda.launches();
	RANK_OK(r, tuttiBarrier(r->comm, NULL));
	RANK_OK(r, FAKE(tuttiAllReduce(x, x, N, tuttiFloat32, tuttiAvg, r->comm, q)));
	RANK_OK(r, FAKE(tuttiAllGather(x, y, N, tuttiFloat32, r->comm, q)));
	RANK_OK(r, FAKE(tuttiReduceScatter(y, x, N, tuttiFloat32, tuttiMax, r->comm, q)));
	RANK_OK(r, FAKE(tuttiReduce(x, x, N, tuttiFloat32, tuttiProd, 0, r->comm, q)));
	RANK_OK(r, FAKE(tuttiBroadcast(x, x, N, tuttiFloat32, 0, r->comm, q)));
	RANK_OK(r, FAKE(tuttiBarrier(r->comm, q)));
	RANK_OK(r, FAKE(tuttiAllReduce(x, x, 0, tuttiFloat32, tuttiSum, r->comm, q)));
	RANK_OK(r, tuttiBarrier(r->comm, NULL));
	RANK_CHECKF(r, cuda.launches() - before == 5, "%d launches for five collectives of data",
		    cuda.launches() - before);
	fake_queue_sync(q);
	RANK_CHECKF(r, holds(x, 1), "not 1 but %g", (double)*(float *)fake_view(x));
	fake_queue_free(q);
	fake_free(x);
	fake_free(y);
}

static void launches(void)
{
	if (start())
		for (int n = 1; n < 10; n += 2)
			ranks_run(n, 30, launches_rank, NULL);
}

/* ---- ranks on two devices, and on one again ---- */

static void devices_rank(struct rank *r)
{
	void *ctx, *p[2], *q[2];
	float *x;

	for (int d = 0; d < 2; d++)
		RANK_CHECKF(r, !cuda.retain(&ctx, d) && !cuda.set(ctx) && !cuda.alloc(&p[d], N * sizeof(float)) &&
				       !cuda.stream_create(&q[d], 1), "device %d", d);
	for (int i = 0; i < 6; i++) {
		int d = i % 2 ? r->rank % 2 : i / 2 % 2;

		r->step = i;
		x = fake_view(p[d]);
		for (int k = 0; k < N; k++)
			x[k] = (float)(r->rank + i);
		RANK_OK(r, FAKE(tuttiAllReduce(p[d], p[d], N, tuttiFloat32, tuttiSum, r->comm, q[d])));
		fake_queue_sync(q[d]);
		RANK_CHECKF(r, holds(p[d], (float)(r->n * (r->n - 1) / 2 + r->n * i)), "not the sum");
	}
	for (int d = 0; d < 2; d++) {
		fake_queue_free(q[d]);
		fake_free(p[d]);
	}
}

static void devices(void)
{
	setenv("FAKE_CUDA_DEVICES", "2", 1);
	if (start())
		ranks_run(3, 30, devices_rank, NULL);
}

const struct test tests[] = {
	{ "launches that wait, each rank on its stream", blocking_stops, 30 }, /* these two first: they fork */
	{ "launches that wait, one kernel", blocking_goes, 30 },
	{ "one queue of the hardware, each rank on its stream", stops, 60 },
	{ "one queue of the hardware, one kernel", goes, 60 },
	{ "one launch for each collective", launches, 60 },
	{ "two devices", devices, 60 },
};
const int ntests = sizeof(tests) / sizeof(tests[0]);
