/* Which device a rank is of: config.device, CommInitAll's list, the thread's context; several devices, and several
 * ranks on one, in one process. Run by home.sh, over the fake driver with two devices.
 * SPDX-License-Identifier: Apache-2.0 */
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "comm.h"
#include "cuda_code.h"
#include "fake.h"
#include "ranks.h"
#include "test.h"

enum { N = 3000, MANY = 4 };

static struct {
	int (*init)(unsigned flags);
	int (*retain)(void **ctx, int device);
	int (*set)(void *ctx);
	int (*alloc)(void **p, size_t n);
	int (*stream_create)(void **stream, unsigned flags);
	int (*stream_synchronize)(void *stream);
	int (*facts)(unsigned n, int *which, void **out, const void *p);
} cuda;

static void load_driver(void)
{
	const struct tt_symbol rows[] = {
		{ &cuda.init, "cuInit" }, { &cuda.retain, "cuDevicePrimaryCtxRetain" },
		{ &cuda.set, "cuCtxSetCurrent" }, { &cuda.alloc, "cuMemAlloc_v2" },
		{ &cuda.stream_create, "cuStreamCreate" },
		{ &cuda.stream_synchronize, "cuStreamSynchronize" }, { &cuda.facts, "cuPointerGetAttributes" },
	};
	void *so = dlopen("libcuda.so.1", RTLD_NOW);

	CHECKF(so, "%s: run by tests/cuda/home.sh", dlerror());
	CHECK(!tt_symbols(so, rows, sizeof(rows) / sizeof(rows[0])));
}

static void start(void)
{
	setenv("FAKE_CUDA_DEVICES", "2", 1);
	fake_start();
	load_driver();
}

static void on_device(int device)
{
	void *ctx;

	CHECK(!cuda.retain(&ctx, device) && !cuda.set(ctx));
}

static float *memory(int device)
{
	void *p;

	on_device(device);
	CHECK(!cuda.alloc(&p, N * sizeof(float)));
	return p;
}

static void is_device(tuttiComm_t c, int want)
{
	int device = 99;

	CHECK(tuttiCommCuDevice(c, &device) == tuttiSuccess);
	CHECKF(device == want, "on device %d, not %d", device, want);
}

static void says(tuttiResult_t got, tuttiResult_t want, const char *words)
{
	CHECKF(got == want && strstr(tuttiGetLastError(NULL), words), "%s: %s", tuttiGetErrorString(got),
	       tuttiGetLastError(NULL));
}

/* One thread, all ranks in a group, which waits for nothing. */
static void sum_of(tuttiComm_t *c, float **x, tuttiStream_t *q, int n)
{
	for (int i = 0; i < n; i++)
		for (int k = 0; k < N; k++)
			((float *)fake_view(x[i]))[k] = (float)(i + k % 5);
	CHECK(tuttiGroupStart() == tuttiSuccess);
	for (int i = 0; i < n; i++)
		CHECKF(FAKE(tuttiAllReduce(x[i], x[i], N, tuttiFloat32, tuttiSum, c[i], q[i])) == tuttiSuccess, "%s",
		       tuttiGetLastError(NULL));
	CHECKF(FAKE(tuttiGroupEnd()) == tuttiSuccess, "%s", tuttiGetLastError(NULL));
}

static void is_sum(const float *x, int n)
{
	const float *v = fake_view(x);

	for (int k = 0; k < N; k++)
		CHECKF(v[k] == (float)(n * (n - 1) / 2 + n * (k % 5)), "element %d is %g", k, (double)v[k]);
}

static void destroy(tuttiComm_t *c, int n)
{
	for (int i = 0; i < n; i++)
		CHECK(tuttiCommDestroy(c[i]) == tuttiSuccess);
}

/* Four ranks on two devices. */
static void list(void)
{
	static const int devices[MANY] = { 0, 1, 0, 1 };
	tuttiStream_t q[MANY];
	tuttiComm_t c[MANY];
	float *x[MANY];

	start();
	CHECKF(tuttiCommInitAll(c, MANY, devices) == tuttiSuccess, "%s", tuttiGetLastError(NULL));
	for (int i = 0; i < MANY; i++) {
		is_device(c[i], devices[i]);
		x[i] = memory(devices[i]);
		CHECK(!cuda.stream_create((void **)&q[i], 1));
	}
	for (int turn = 0; turn < 3; turn++) {
		sum_of(c, x, q, MANY);
		for (int i = 0; i < MANY; i++) {
			on_device(devices[i]);
			fake_queue_sync(q[i]);
			is_sum(x[i], MANY);
		}
	}
	destroy(c, MANY);
}

/* Their devices are those of the list, whatever the thread works on. */
static void linked(const char *blocks)
{
	tuttiStream_t q[2];
	tuttiComm_t c[2];
	float *x[2];

	setenv("TUTTI_DEVICE_LINKS", "1", 1);
	setenv("TUTTI_CUDA_DEVICE_DRIVEN", blocks, 1);
	start();
	CHECK(!cuda.set(NULL));
	CHECKF(tuttiCommInitAll(c, 2, (int[]){ 0, 1 }) == tuttiSuccess, "%s", tuttiGetLastError(NULL));
	for (int i = 0; i < 2; i++) {
		CHECK(c[i]->peers && tt_peers_drive(c[i]->peers) == (*blocks == '1' && tt_cuda_code_has(tuttiFloat32)));
		x[i] = memory(i);
		CHECK(!cuda.stream_create((void **)&q[i], 1));
	}
	sum_of(c, x, q, 2);
	for (int i = 0; i < 2; i++) {
		on_device(i);
		fake_queue_sync(q[i]);
		is_sum(x[i], 2);
	}
	destroy(c, 2);
}

static void links(void)
{
	linked("0");
}

static void blocks(void)
{
	linked("1");
}

/* NULL is a stream of each device. */
static void null_streams(void)
{
	static const int devices[] = { 0, 1 };
	tuttiStream_t q[2] = { NULL, NULL };
	float *x[2], *y[2];
	tuttiComm_t c[2];

	start();
	CHECK(tuttiCommInitAll(c, 2, devices) == tuttiSuccess);
	for (int i = 0; i < 2; i++)
		x[i] = memory(i);
	sum_of(c, x, q, 2);
	CHECK(tuttiCommDestroy(c[0]) == tuttiSuccess && tuttiCommDestroy(c[1]) == tuttiSuccess);
	for (int i = 0; i < 2; i++)
		is_sum(x[i], 2);
	CHECK(tuttiCommInitAll(c, 2, (int[]){ 1, 1 }) == tuttiSuccess);
	for (int i = 0; i < 2; i++)
		y[i] = memory(1);
	if (tt_cuda_code_has(tuttiFloat32)) { /* one kernel for both; without, they would wait for each other */
		sum_of(c, y, q, 2);
	} else {
		CHECK(tuttiGroupStart() == tuttiSuccess);
		for (int i = 0; i < 2; i++)
			CHECK(tuttiAllReduce(y[i], y[i], N, tuttiFloat32, tuttiSum, c[i], NULL) == tuttiSuccess);
		says(tuttiGroupEnd(), tuttiInvalidUsage, "share a stream");
	}
	on_device(1);
	CHECK(!cuda.stream_synchronize(NULL)); /* Destroy leaves one kernel for all to the stream */
	destroy(c, 2);
	for (int i = 0; i < 2 && tt_cuda_code_has(tuttiFloat32); i++)
		is_sum(y[i], 2);
}

static void bound(void)
{
	tuttiConfig_t config = TUTTI_CONFIG_INITIALIZER;
	float *there, *here;
	tuttiUniqueId id;
	tuttiComm_t c[2];

	start();
	there = memory(0);
	here = memory(1);
	on_device(0);
	config.device = 1;
	CHECK(tuttiGetUniqueId(&id) == tuttiSuccess);
	CHECK(tuttiCommInitRankConfig(&c[0], 1, id, 0, &config) == tuttiSuccess);
	is_device(c[0], 1);
	says(FAKE(tuttiAllReduce(there, there, N, tuttiFloat32, tuttiSum, c[0], NULL)), tuttiInvalidArgument,
	     "the buffers are on device 0, and this rank was made for device 1 (config.device)");
	CHECK(FAKE(tuttiAllReduce(here, here, N, tuttiFloat32, tuttiSum, c[0], NULL)) == tuttiSuccess);
	CHECK(tuttiCommSplit(c[0], 0, 0, &c[1], NULL) == tuttiSuccess);
	is_device(c[1], 1);
	destroy(c, 2);
}

static void current(void)
{
	tuttiUniqueId id;
	tuttiComm_t c[2];
	int which = 9, device = -1;
	void *p, *out[] = { &device };

	start();
	on_device(1);
	CHECK(tuttiGetUniqueId(&id) == tuttiSuccess && tuttiCommInitRank(&c[0], 1, id, 0) == tuttiSuccess);
	is_device(c[0], 1);
	CHECK(tuttiMemAlloc(&p, 100) == tuttiSuccess && !cuda.facts(1, &which, out, p));
	CHECKF(device == 1, "MemAlloc's is on device %d", device);
	CHECK(tuttiMemFree(p) == tuttiSuccess);
	CHECK(!cuda.set(NULL));
	CHECK(tuttiCommInitAll(&c[1], 1, NULL) == tuttiSuccess);
	is_device(c[1], -1);
	destroy(c, 2);
}

static void none(void)
{
	tuttiComm_t c[2];

	start();
	on_device(0);
	CHECK(tuttiCommInitAll(c, 2, (int[]){ -1, -1 }) == tuttiSuccess);
	is_device(c[0], -1);
	destroy(c, 2);
	says(tuttiCommInitAll(c, 2, (int[]){ 0, 2 }), tuttiInvalidArgument, "device 2 is asked for; here are 2");
	CHECK(tuttiCommInitAll(c, 2, NULL) == tuttiSuccess);
	destroy(c, 2);
}

static void off(void)
{
	tuttiComm_t c[1];

	setenv("FAKE_CUDA_STUB", "1", 1);
	says(tuttiCommInitAll(c, 1, (int[]){ 0 }), tuttiInvalidArgument, "but CUDA is off: ");
}

/* The scalar of the device counts when the stream comes to it. */
static void scalar(void)
{
	static _Atomic int go;
	tuttiComm_t c[1];
	tuttiRedOp_t op;
	float *x, *by, host[2] = { 1, 2 };
	void *q;

	start();
	x = memory(0);
	by = memory(0);
	CHECK(!cuda.stream_create(&q, 1) && tuttiCommInitAll(c, 1, (int[]){ 0 }) == tuttiSuccess);
	*(float *)fake_view(by) = 3;
	((float *)fake_view(x))[7] = 10;
	says(tuttiRedOpCreatePreMulSum(&op, by, tuttiFloat32, tuttiScalarHostImmediate, c[0]), tuttiInvalidArgument,
	     "tuttiScalarDevice alone");
	CHECK(tuttiRedOpCreatePreMulSum(&op, by, tuttiFloat32, tuttiScalarDevice, c[0]) == tuttiSuccess);
	says(tuttiAllReduce(host, host, 2, tuttiFloat32, op, c[0], NULL), tuttiInvalidArgument, "which is the host");
	fake_hold(q, &go);
	CHECK(FAKE(tuttiAllReduce(x, x, N, tuttiFloat32, op, c[0], q)) == tuttiSuccess);
	*(float *)fake_view(by) = 5;
	atomic_store(&go, 1);
	fake_queue_sync(q);
	CHECKF(((float *)fake_view(x))[7] == 50, "%g", (double)((float *)fake_view(x))[7]);
	says(FAKE(tuttiAllReduce(memory(1), memory(1), N, tuttiFloat32, op, c[0], NULL)), tuttiInvalidArgument,
	     "device");
	destroy(c, 1);
}

const struct test tests[] = {
	{ "a list of devices", list, 30 },
	{ "device links of a list of devices", links, 30 },
	{ "blocks of a list of devices", blocks, 30 },
	{ "stream NULL of two devices", null_streams, 30 },
	{ "a rank that was made for a device", bound, 30 },
	{ "the current device", current, 30 },
	{ "no device, a wrong one", none, 30 },
	{ "a device where CUDA is off", off, 30 },
	{ "a scalar in device memory", scalar, 30 },
};
const int ntests = sizeof(tests) / sizeof(tests[0]);
