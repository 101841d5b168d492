/* Questions about the device: what it says of itself, pointers, and how long the calls take that an operation is made
 * of. SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda_code.h"
#include "gpu_probe.h"

/* ---- attributes ---- */

static const struct {
	int id;
	const char *name, *why;
} attributes[] = {
	{ 75, "capability_major", NULL },
	{ 76, "capability_minor", NULL },
	{ 16, "processors", NULL },
	{ 38, "l2_bytes", "figures count from sizes above this on" },
	{ 40, "copy_engines", NULL },
	{ 83, "managed", NULL },
	{ 88, "pageable_access", "1: the device reads what malloc gives; tutti takes it for host memory still" },
	{ 89, "concurrent_managed", NULL },
	{ 91, "registered_pointer_is_same", "0: the device's address of registered memory must be asked for" },
	{ 95, "cooperative_launch", "0: no interpreter in one grid" },
	{ 98, "wait_flush", "1: a wait can flush what RDMA wrote" },
	{ 102, "vmm", "0: memory between processes by legacy IPC alone" },
	{ 103, "vmm_fd", NULL },
	{ 110, "rdma_of_vmm", NULL },
	{ 116, "rdma", "0: RDMA goes by way of pinned memory" },
	{ 117, "flush_options", NULL },
	{ 118, "writes_ordering", "below 100 the network must flush after it received" },
	{ 122, "memops_64", NULL },
	{ 123, "wait_nor", NULL },
	{ 124, "dma_buf", "0: nvidia-peermem or staging" },
	{ 125, "ipc_events", NULL },
	{ 128, "fabric", NULL },
	{ 132, "multicast", NULL },
	{ 133, "mps", "0: processes on it take turns" },
	{ 134, "host_numa", NULL },
	{ 146, "host_dma_buf", NULL },
};

static bool peers(void)
{
	int n = 0, can;
	char what[48];

	ASK("devices", cuDeviceGetCount, &n);
	answer("devices", NULL, "%d", n);
	for (int i = 0; i < n; i++)
		for (int k = 0; k < n; k++) {
			if (i == k)
				continue;
			snprintf(what, sizeof(what), "peer_%d_to_%d", i, k);
			ASK(what, cuDeviceCanAccessPeer, &can, i, k);
			answer(what, NULL, "%d", can);
		}
	return true;
}

static bool bus(void)
{
	char id[32] = "";

	ASK("bus", cuDeviceGetPCIBusId, id, sizeof(id), probe.device);
	answer("bus", NULL, "%s", id);
	return true;
}

static bool device(void)
{
	static const char *const settings[] = { "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_MAX_CONNECTIONS",
						"CUDA_MODULE_LOADING", "CUDA_LAUNCH_BLOCKING",
						"CUDA_MPS_PIPE_DIRECTORY" };
	char name[128] = "";
	size_t left, total;

	ASK("name", cuDeviceGetName, name, sizeof(name), probe.device);
	answer("name", NULL, "%s", name);
	bus();
	ASK("memory", cuMemGetInfo, &left, &total);
	answer("memory", NULL, "%zu MiB free of %zu MiB", left >> 20, total >> 20);
	for (size_t i = 0; i < sizeof(settings) / sizeof(settings[0]); i++)
		if (getenv(settings[i]))
			answer("setting", NULL, "%s=%s", settings[i], getenv(settings[i]));
	for (size_t i = 0; i < sizeof(attributes) / sizeof(attributes[0]); i++) {
		int value = 0, e = GPU(cuDeviceGetAttribute, &value, attributes[i].id, probe.device);

		if (e)
			refused(attributes[i].name, "cuDeviceGetAttribute", e);
		else
			answer(attributes[i].name, attributes[i].why, "%d", value);
	}
	return peers();
}

/* ---- pointers ---- */

static void facts(const char *what, const void *p)
{
	static const struct {
		int id;
		const char *name;
	} ids[] = { { 2, "type" }, { 8, "managed" }, { 9, "device" }, { 10, "ipc" }, { 15, "rdma" } };
	char line[160] = "";

	for (size_t i = 0; i < sizeof(ids) / sizeof(ids[0]); i++) {
		uint64_t value = 0;
		void *out[] = { &value };
		int id = ids[i].id, e = GPU(cuPointerGetAttributes, 1, &id, out, (gpu_ptr)p);
		size_t n = strlen(line);

		if (e)
			snprintf(line + n, sizeof(line) - n, "%s error %d, ", ids[i].name, e);
		else
			snprintf(line + n, sizeof(line) - n, "%s %d, ", ids[i].name, (int)value);
	}
	line[strlen(line) - 2] = 0;
	answer(what, NULL, "%s", line);
}

/* As the library asks at each call. */
static int query(const void *p)
{
	int ids[] = { 2, 8, 9, 3, 1 };
	uint64_t v[5];
	void *out[] = { &v[0], &v[1], &v[2], &v[3], &v[4] };

	return GPU(cuPointerGetAttributes, 5, ids, out, (gpu_ptr)p);
}

static void time_query(const char *what, const void *p)
{
	enum { TIMES = 2000 };
	double start = gpu_now_us();
	int e = 0;

	for (int i = 0; i < TIMES && !e; i++)
		e = query(p);
	if (e)
		refused(what, "cuPointerGetAttributes", e);
	else
		answer(what, "a call of the API asks up to four times", "%.0f ns",
		       (gpu_now_us() - start) * 1e3 / TIMES);
}

static void *without_context(void *p)
{
	time_query("query_without_context", p);
	return NULL;
}

static bool pointers(void)
{
	void *host = calloc(1, 4096), *pinned;
	gpu_ptr on_device, managed;
	pthread_t t;

	facts("pageable", host);
	ASK("pinned", cuMemHostAlloc, &pinned, 4096, GPU_PORTABLE | GPU_DEVICEMAP);
	facts("pinned", pinned);
	ASK("device", cuMemAlloc, &on_device, 4096);
	facts("device", (void *)on_device);
	time_query("query_pageable", host);
	time_query("query_device", (void *)on_device);
	if (!pthread_create(&t, NULL, without_context, (void *)on_device))
		pthread_join(t, NULL);
	ASK("managed", cuMemAllocManaged, &managed, 4096, GPU_ATTACH_GLOBAL);
	facts("managed", (void *)managed);
	return true;
}

/* A driver may not look at the handle before it reads what it points to. */
static bool bad_stream(void)
{
	static char none[4096];
	void *ctx = NULL;

	ASK("of_garbage", cuStreamGetCtx, none, &ctx);
	answer("of_garbage", "tutti cannot tell a wrong stream from a right one", "a context, %p", ctx);
	return true;
}

/* ---- times of calls ---- */

enum { TIMES = 200 };

static bool launches(void *s)
{
	struct gpu_big_args big = { 0 };
	double start = 0;
	gpu_ptr p;
	void *fn;

	ASK_KERNEL("empty", "gpu_empty", &fn);
	for (int i = -10; i < TIMES; i++) {
		if (!i)
			start = gpu_now_us();
		ASK("empty", cuLaunchKernel, fn, 1, 1, 1, 32, 1, 1, 0, s, NULL, NULL);
	}
	answer("empty_call", NULL, "%.2f us", (gpu_now_us() - start) / TIMES);
	ASK("empty", cuStreamSynchronize, s);
	answer("empty", "back to back", "%.2f us", (gpu_now_us() - start) / TIMES);
	start = gpu_now_us();
	for (int i = 0; i < TIMES; i++) {
		ASK("empty", cuLaunchKernel, fn, 1, 1, 1, 32, 1, 1, 0, s, NULL, NULL);
		ASK("empty", cuStreamSynchronize, s);
	}
	answer("empty_and_wait", "no call with its end can be shorter", "%.2f us", (gpu_now_us() - start) / TIMES);
	ASK_KERNEL("big", "gpu_big", &fn);
	ASK("big", cuMemAlloc, &p, 4096);
	big.out = (uint32_t *)p;
	start = gpu_now_us();
	for (int i = 0; i < TIMES; i++) {
		void *list[] = { &big };

		ASK("big", cuLaunchKernel, fn, 1, 1, 1, 32, 1, 1, 0, s, list, NULL);
	}
	ASK("big", cuStreamSynchronize, s);
	answer("big", "3.6 KB of arguments, as our reductions have", "%.2f us", (gpu_now_us() - start) / TIMES);
	return true;
}

static bool cooperative(void *s)
{
	double start = gpu_now_us();
	void *fn;

	ASK_KERNEL("cooperative", "gpu_empty", &fn);
	for (int i = 0; i < TIMES; i++)
		ASK("cooperative", cuLaunchCooperativeKernel, fn, 8, 1, 1, 32, 1, 1, 0, s, NULL);
	ASK("cooperative", cuStreamSynchronize, s);
	answer("cooperative", NULL, "%.2f us", (gpu_now_us() - start) / TIMES);
	return true;
}

static void nothing(void *arg)
{
}

static bool host_calls(void *s)
{
	double start = gpu_now_us();

	for (int i = 0; i < TIMES; i++)
		ASK("host_function", cuLaunchHostFunc, s, nothing, NULL);
	ASK("host_function", cuStreamSynchronize, s);
	answer("host_function", "how pageable memory is staged", "%.2f us", (gpu_now_us() - start) / TIMES);
	return true;
}

static bool events(void *const *s)
{
	void *e[2];
	double start;

	for (int i = 0; i < 2; i++)
		ASK("event", cuEventCreate, &e[i], GPU_NO_TIMING);
	start = gpu_now_us();
	for (int i = 0; i < TIMES; i++)
		ASK("event_record", cuEventRecord, e[0], s[0]);
	ASK("event_record", cuStreamSynchronize, s[0]);
	answer("event_record", NULL, "%.2f us", (gpu_now_us() - start) / TIMES);
	start = gpu_now_us();
	for (int i = 0; i < TIMES; i++) {
		ASK("event_hop", cuEventRecord, e[i % 2], s[i % 2]);
		ASK("event_hop", cuStreamWaitEvent, s[!(i % 2)], e[i % 2], 0);
	}
	for (int i = 0; i < 2; i++)
		ASK("event_hop", cuStreamSynchronize, s[i]);
	answer("event_hop", "from one stream to another", "%.2f us", (gpu_now_us() - start) / TIMES);
	return true;
}

/* What one kernel for all ranks of a process costs: each rank's event, one launch, one event for all. */
static bool joined(void *const *s, int n)
{
	void *e[9], *fn;
	double start;

	ASK_KERNEL("joined_8", "gpu_empty", &fn);
	for (int i = 0; i <= n; i++)
		ASK("joined_8", cuEventCreate, &e[i], GPU_NO_TIMING);
	start = gpu_now_us();
	for (int k = 0; k < TIMES; k++) {
		for (int i = 1; i < n; i++) {
			ASK("joined_8", cuEventRecord, e[i], s[i]);
			ASK("joined_8", cuStreamWaitEvent, s[0], e[i], 0);
		}
		ASK("joined_8", cuLaunchKernel, fn, 1, 1, 1, 32, 1, 1, 0, s[0], NULL, NULL);
		ASK("joined_8", cuEventRecord, e[n], s[0]);
		for (int i = 1; i < n; i++)
			ASK("joined_8", cuStreamWaitEvent, s[i], e[n], 0);
	}
	for (int i = 0; i < n; i++)
		ASK("joined_8", cuStreamSynchronize, s[i]);
	answer("joined_8", "8 ranks of one process: is a call of 8 B under 10 us?", "%.2f us",
	       (gpu_now_us() - start) / TIMES);
	return true;
}

static bool calls(void)
{
	void *s[8];

	if (!probe_streams("streams", s, 8))
		return false;
	launches(s[0]);
	cooperative(s[0]);
	host_calls(s[0]);
	events(s);
	return joined(s, 8);
}

/* ---- our own code ---- */

static bool code(void)
{
	const struct tt_cuda *f = tt_cuda_open(false);
	double start = gpu_now_us();

	if (!f)
		return refused("library", "tt_cuda_open", GPU_NONE);
	tt_cuda_code_open(f);
	answer("library", NULL, "%.1f ms, %s", (gpu_now_us() - start) * 1e-3, tt_cuda_code_words());
	start = gpu_now_us();
	tt_cuda_code_load(probe.device);
	answer("load", "part of the first call on a device", "%.1f ms", (gpu_now_us() - start) * 1e-3);
	return true;
}

const struct question probe_device[] = {
	{ .name = "device", .ask = device }, { .name = "pointers", .ask = pointers },
	{ .name = "stream", .ask = bad_stream }, { .name = "calls", .ask = calls },
	{ .name = "code", .ask = code }, { .name = NULL },
};
