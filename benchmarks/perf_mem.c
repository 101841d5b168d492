/* Where the buffers of the perf programs are: memory of the host, or of CUDA devices with streams of theirs.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "gpu.h"
#include "perf_common.h"

const char *const perf_memory_names[PERF_MEMORIES] = { "host", "cuda", "managed", "pinned" };

enum { STAGE = 4 << 20 };

static int devices; /* 0: host memory */
static _Thread_local void *stage; /* pinned */

static void must(int e, const char *what)
{
	if (e)
		perf_die("%s: %s", what, gpu_words(e));
}

int perf_mem_start(enum perf_memory memory)
{
	const char *why;

	if (memory == PERF_HOST)
		return 0;
	devices = gpu_load(&why);
	if (!devices)
		perf_die("--memory %s: %s", perf_memory_names[memory], why);
	return devices;
}

void perf_mem_use(int device)
{
	if (devices)
		must(gpu_use(device), "cuDevicePrimaryCtxRetain");
}

void perf_mem_name(int device, char *out, size_t n)
{
	if (devices)
		must(GPU(cuDeviceGetName, out, (int)n, device), "cuDeviceGetName");
}

/* The library's own where memory is to be registered, as nccl-tests do with -R. */
static void *device_memory(const struct perf_args *a, size_t n)
{
	gpu_ptr p = 0;
	void *at = NULL;

	if (a->memory == PERF_PINNED)
		must(GPU(cuMemHostAlloc, &at, n, GPU_PORTABLE | GPU_DEVICEMAP), "cuMemHostAlloc");
	else if (a->memory == PERF_MANAGED)
		must(GPU(cuMemAllocManaged, &p, n, GPU_ATTACH_GLOBAL), "cuMemAllocManaged");
	else if (!a->registered)
		must(GPU(cuMemAlloc, &p, n), "cuMemAlloc");
	else if (tuttiMemAlloc(&at, n) != tuttiSuccess)
		perf_die("MemAlloc: %s", tuttiGetLastError(NULL));
	return at ? at : (void *)p;
}

void perf_buf_new(struct perf_buf *b, const struct perf_args *a, size_t n)
{
	void *view = NULL;

	*b = (struct perf_buf){ .n = n, .memory = a->memory, .registered = a->registered };
	if (a->memory == PERF_HOST && a->registered) {
		if (tuttiMemAlloc(&view, n) != tuttiSuccess)
			perf_die("MemAlloc: %s", tuttiGetLastError(NULL));
	} else if (a->memory == PERF_HOST || a->memory == PERF_CUDA) {
		if (posix_memalign(&view, 4096, n))
			perf_die("no memory for a buffer of %zu bytes", n);
	}
	b->at = a->memory == PERF_HOST ? view : device_memory(a, n);
	b->view = view ? view : b->at;
	if (b->memory == PERF_CUDA && !stage) /* before ranks wait for each other, for which a driver may wait */
		must(GPU(cuMemHostAlloc, &stage, STAGE, GPU_PORTABLE | GPU_DEVICEMAP), "cuMemHostAlloc");
	memset(b->view, 0x5a, n); /* touches every page before the clock runs */
}

void perf_buf_free(struct perf_buf *b)
{
	if (b->view != b->at || (b->memory == PERF_HOST && !b->registered))
		free(b->view);
	if (b->registered && b->memory <= PERF_CUDA) {
		if (tuttiMemFree(b->at) != tuttiSuccess)
			perf_die("MemFree: %s", tuttiGetLastError(NULL));
	} else if (b->memory == PERF_PINNED) {
		must(GPU(cuMemFreeHost, b->at), "cuMemFreeHost");
	} else if (b->memory != PERF_HOST) {
		must(GPU(cuMemFree, (gpu_ptr)b->at), "cuMemFree");
	}
}

/* The fake driver of the tests refuses pageable memory: through a page of pinned memory, a piece at a time. */
static void copy(struct perf_buf *b, size_t n, bool in, void *stream)
{
	if (b->view == b->at)
		return;
	for (size_t at = 0, part; at < n; at += part) {
		gpu_ptr here = (gpu_ptr)stage, there = (gpu_ptr)b->at + at;

		part = n - at < STAGE ? n - at : STAGE;
		if (in)
			memcpy(stage, b->view + at, part);
		must(GPU(cuMemcpyAsync, in ? there : here, in ? here : there, part, stream), "cuMemcpyAsync");
		must(GPU(cuStreamSynchronize, stream), "cuStreamSynchronize");
		if (!in)
			memcpy(b->view + at, stage, part);
	}
}

void perf_buf_put(struct perf_buf *b, size_t n, tuttiStream_t stream)
{
	copy(b, n, true, stream);
}

void perf_buf_get(struct perf_buf *b, size_t n, tuttiStream_t stream)
{
	copy(b, n, false, stream);
}

/* NULL: the default stream; of a device, or blocking calls on the host. */
tuttiStream_t perf_stream_new(const struct perf_args *a)
{
	void *s = NULL;

	if (devices && !a->stream_null)
		must(GPU(cuStreamCreate, &s, GPU_NON_BLOCKING), "cuStreamCreate");
	if (devices || a->blocking || a->stream_null)
		return s;
	if (tuttiHostStreamCreate((tuttiStream_t *)&s) != tuttiSuccess)
		perf_die("HostStreamCreate: %s", tuttiGetLastError(NULL));
	return s;
}

void perf_stream_free(tuttiStream_t s)
{
	if (devices && s)
		must(GPU(cuStreamDestroy, s), "cuStreamDestroy");
	else if (s && tuttiHostStreamDestroy(s) != tuttiSuccess)
		perf_die("HostStreamDestroy: %s", tuttiGetLastError(NULL));
}

tuttiResult_t perf_stream_wait(tuttiStream_t s, tuttiComm_t comm)
{
	tuttiResult_t r = tuttiSuccess;

	if (!devices)
		return s ? tuttiHostStreamSynchronize(s) : tuttiSuccess;
	must(GPU(cuStreamSynchronize, s), "cuStreamSynchronize");
	return tuttiCommGetAsyncError(comm, &r) == tuttiSuccess ? r : tuttiInternalError;
}
