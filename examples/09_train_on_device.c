/* Data-parallel training with the gradients on a GPU: they are averaged there by AllReduce on a CUDA stream, the host
 * waits for the stream alone. Fits y = w.x + b as 07_data_parallel does; here the host works out the gradients, where
 * a real program has kernels. Run it with tutti-run -n 4: ranks may share a GPU. Where there is none, or with
 * EXAMPLE_HOST=1, it says so and uses host memory: MemAlloc gives that of the thread's device, or of the host.
 * SPDX-License-Identifier: Apache-2.0 */
#include <dlfcn.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tutti.h>

enum { FEATURES = 16, SAMPLES = 256, STEPS = 300, PARAMS = FEATURES + 1 };

/* A program that is linked with CUDA calls the same by their names. */
static struct {
	int (*init)(unsigned flags);
	int (*count)(int *n);
	int (*retain)(void **ctx, int device);
	int (*set)(void *ctx);
	int (*stream_create)(void **stream, unsigned flags);
	int (*stream_wait)(void *stream);
	int (*copy)(uintptr_t dst, uintptr_t src, size_t n, void *stream);
	int (*pinned)(void **p, size_t n, unsigned flags);
} cuda;

static int find(void *so, const char *name, void *slot)
{
	void *fn = dlsym(so, name);

	memcpy(slot, &fn, sizeof fn);
	return fn != NULL;
}

static int cuda_devices(void)
{
	void *so = getenv("EXAMPLE_HOST") ? NULL : dlopen("libcuda.so.1", RTLD_NOW);
	int n = 0;

	if (!so || !find(so, "cuInit", &cuda.init) || !find(so, "cuDeviceGetCount", &cuda.count) ||
	    !find(so, "cuDevicePrimaryCtxRetain", &cuda.retain) || !find(so, "cuCtxSetCurrent", &cuda.set) ||
	    !find(so, "cuStreamCreate", &cuda.stream_create) ||
	    !find(so, "cuStreamSynchronize", &cuda.stream_wait) || !find(so, "cuMemcpyAsync", &cuda.copy) ||
	    !find(so, "cuMemHostAlloc", &cuda.pinned) || cuda.init(0) || cuda.count(&n))
		return 0;
	return n;
}

/* Uniform in [-1, 1]. */
static float noise(uint64_t *state)
{
	*state = *state * 6364136223846793005ull + 1442695040888963407ull;
	return (float)((double)(*state >> 33) / 0x1p30 - 1);
}

static float truth(int i)
{
	return 0.25f * (float)(i % 7) - 0.5f;
}

static float predict(const float *model, const float *x)
{
	float y = model[FEATURES];

	for (int i = 0; i < FEATURES; i++)
		y += model[i] * x[i];
	return y;
}

static void make_data(int rank, float x[SAMPLES][FEATURES], float y[SAMPLES])
{
	uint64_t state = 12345 + (uint64_t)rank;
	float right[PARAMS];

	for (int i = 0; i < PARAMS; i++)
		right[i] = truth(i);
	for (int s = 0; s < SAMPLES; s++) {
		for (int i = 0; i < FEATURES; i++)
			x[s][i] = noise(&state);
		y[s] = predict(right, x[s]) + 0.01f * noise(&state);
	}
}

static void gradient(float x[SAMPLES][FEATURES], const float *y, const float *model, float *out)
{
	memset(out, 0, PARAMS * sizeof *out);
	for (int s = 0; s < SAMPLES; s++) {
		float error = predict(model, x[s]) - y[s];

		for (int i = 0; i < FEATURES; i++)
			out[i] += 2 * error * x[s][i] / SAMPLES;
		out[FEATURES] += 2 * error / SAMPLES;
	}
}

/* The stream has the order: there, the average, back again; the host waits once. */
static int average(float *host, float *device, tuttiComm_t comm, void *stream)
{
	size_t n = PARAMS * sizeof *host;

	if (!stream)
		return tuttiAllReduce(host, host, PARAMS, tuttiFloat32, tuttiAvg, comm, NULL) == tuttiSuccess;
	return !cuda.copy((uintptr_t)device, (uintptr_t)host, n, stream) &&
	       tuttiAllReduce(device, device, PARAMS, tuttiFloat32, tuttiAvg, comm, stream) == tuttiSuccess &&
	       !cuda.copy((uintptr_t)host, (uintptr_t)device, n, stream) && !cuda.stream_wait(stream);
}

/* The device of this rank, before the communicator: rank i of this host on device i modulo their number. */
static int prepare(float **host, void **stream)
{
	const char *local = getenv("TUTTI_LOCAL_RANK");
	int devices = cuda_devices();
	void *ctx;

	if (!devices) {
		*host = malloc(PARAMS * sizeof **host);
		return *host != NULL;
	}
	return !cuda.retain(&ctx, (local ? atoi(local) : 0) % devices) && !cuda.set(ctx) &&
	       !cuda.stream_create(stream, 1) && !cuda.pinned((void **)host, PARAMS * sizeof **host, 1);
}

int main(void)
{
	static float x[SAMPLES][FEATURES], y[SAMPLES];
	float model[PARAMS] = { 0 }, *g, *on_device, worst = 0;
	void *stream = NULL;
	tuttiComm_t comm;
	int rank, device;

	if (!prepare(&g, &stream)) {
		fprintf(stderr, "CUDA is here, and does not work\n");
		return 1;
	}
	if (tuttiCommInitFromEnv(&comm, NULL) != tuttiSuccess ||
	    tuttiMemAlloc((void **)&on_device, PARAMS * sizeof *g) != tuttiSuccess)
		goto fail;
	tuttiCommUserRank(comm, &rank);
	tuttiCommCuDevice(comm, &device);
	make_data(rank, x, y);
	for (int step = 0; step < STEPS; step++) {
		gradient(x, y, model, g);
		if (!average(g, on_device, comm, stream))
			goto fail;
		for (int i = 0; i < PARAMS; i++)
			model[i] -= 0.3f * g[i];
	}
	for (int i = 0; i < PARAMS; i++)
		worst = fmaxf(worst, fabsf(model[i] - truth(i)));
	printf("rank %d, gradients in %s memory, device %d: largest error %.4f\n", rank, stream ? "device" : "host",
	       device, (double)worst);
	tuttiMemFree(on_device);
	tuttiCommDestroy(comm);
	return !(worst < 0.01f);
fail:
	fprintf(stderr, "%s\n", tuttiGetLastError(NULL));
	return 1;
}
