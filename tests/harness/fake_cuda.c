/* The fake CUDA driver behind the functions of fake.h, called as a user's program calls a driver: the library finds
 * it by itself. Threads have no context but after fake_use. SPDX-License-Identifier: Apache-2.0 */
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base.h"
#include "fake.h"
#include "ranks.h"

static struct {
	pthread_mutex_t lock;
	void *ctx[4];
	int (*init)(unsigned flags);
	int (*retain)(void **ctx, int device);
	int (*set)(void *ctx);
	int (*push)(void *ctx);
	int (*pop)(void **ctx);
	int (*alloc)(void **p, size_t n);
	int (*free)(void *p);
	void *(*view)(const void *p);
	int (*live)(void);
	int (*stream_create)(void **stream, unsigned flags);
	int (*stream_destroy)(void *stream);
	int (*stream_query)(void *stream);
	int (*host_func)(void *stream, void (*fn)(void *), void *arg);
} cuda = { .lock = PTHREAD_MUTEX_INITIALIZER };

static _Thread_local int device;

static void must(int e, const char *what)
{
	if (!e)
		return;
	fprintf(stderr, "the test's own %s: CUDA error %d\n", what, e);
	abort();
}

static void load(void)
{
	const struct tt_symbol rows[] = {
		{ &cuda.init, "cuInit" }, { &cuda.retain, "cuDevicePrimaryCtxRetain" },
		{ &cuda.set, "cuCtxSetCurrent" }, { &cuda.push, "cuCtxPushCurrent" },
		{ &cuda.pop, "cuCtxPopCurrent" }, { &cuda.alloc, "cuMemAlloc_v2" }, { &cuda.free, "cuFakeFree" },
		{ &cuda.view, "cuFakeView" }, { &cuda.live, "cuFakeLive" },
		{ &cuda.stream_create, "cuStreamCreate" },
		{ &cuda.stream_destroy, "cuStreamDestroy_v2" }, { &cuda.stream_query, "cuStreamQuery" },
		{ &cuda.host_func, "cuLaunchHostFunc" },
	};
	void *so = dlopen("libcuda.so.1", RTLD_NOW);
	const char *missing = so ? tt_symbols(so, rows, sizeof(rows) / sizeof(rows[0])) : dlerror();

	if (missing) {
		fprintf(stderr, "TEST_DEVICE=cuda: %s: see tests/cuda\n", missing);
		abort();
	}
	must(cuda.init(0), "cuInit");
	for (int i = 0; i < 4 && i < test_setting("FAKE_CUDA_DEVICES", 1); i++)
		must(cuda.retain(&cuda.ctx[i], i), "cuDevicePrimaryCtxRetain");
}

static void start(void)
{
	pthread_mutex_lock(&cuda.lock);
	if (!cuda.ctx[0])
		load();
	pthread_mutex_unlock(&cuda.lock);
}

static void use(bool on)
{
	must(cuda.set(on ? cuda.ctx[device] : NULL), "cuCtxSetCurrent");
}

static void place(int n)
{
	device = n;
	use(true);
}

static int live(void)
{
	return cuda.live();
}

static void begin(void)
{
	must(cuda.push(cuda.ctx[device]), "cuCtxPushCurrent");
}

static void end(int e, const char *what)
{
	void *ctx;

	must(e, what);
	must(cuda.pop(&ctx), "cuCtxPopCurrent");
}

static void *alloc(size_t n)
{
	void *p;

	begin();
	end(cuda.alloc(&p, n), "cuMemAlloc");
	return p;
}

static void release(void *p)
{
	must(cuda.free(p), "cuFakeFree");
}

static void *view(const void *p)
{
	return cuda.view(p);
}

static tuttiStream_t queue_new(void)
{
	void *stream;

	begin();
	end(cuda.stream_create(&stream, 1), "cuStreamCreate");
	return stream;
}

static void queue_free(tuttiStream_t queue)
{
	must(cuda.stream_destroy(queue), "cuStreamDestroy");
}

static bool is_idle(tuttiStream_t queue)
{
	enum { NOT_READY = 600 };
	int e;

	begin();
	e = cuda.stream_query(queue);
	end(e == NOT_READY ? 0 : e, "cuStreamQuery");
	return !e;
}

static void wait_until(void *arg)
{
	const _Atomic int *set = arg;

	while (!atomic_load(set))
		usleep(200);
}

static void hold(tuttiStream_t queue, const _Atomic int *until_set)
{
	begin();
	end(cuda.host_func(queue, wait_until, (void *)until_set), "cuLaunchHostFunc");
}

const struct fake_device fake_cuda = {
	.start = start, .place = place, .live = live, .use = use, .alloc = alloc, .free = release, .view = view,
	.queue_default = (tuttiStream_t)2, /* CU_STREAM_PER_THREAD */
	.queue_new = queue_new, .queue_free = queue_free, .is_idle = is_idle, .hold = hold,
};
