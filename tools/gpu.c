/* CUDA's driver for tools and benchmarks, found at run time. SPDX-License-Identifier: Apache-2.0 */
#include "gpu.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

struct gpu_calls gpu;

static struct {
	pthread_mutex_t lock;
	int devices;
	bool done;
	char why[200];
	void *lib;
} state = { .lock = PTHREAD_MUTEX_INITIALIZER };

static int (*get_new)(const char *name, void **fn, int version, uint64_t flags, int *status);
static int (*get_old)(const char *name, void **fn, int version, uint64_t flags);

static void find(const char *name, int version, void *slot)
{
	void *fn = NULL;
	int e = get_new ? get_new(name, &fn, version, 1, &(int){ 0 }) : get_old(name, &fn, version, 1);

	if (e)
		fn = NULL;
	memcpy(slot, &fn, sizeof(fn));
}

static void load(void)
{
	void *so = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL), *fn;
	int e;

	if (!so) {
		snprintf(state.why, sizeof(state.why), "no driver: %s", dlerror());
		return;
	}
	fn = dlsym(so, "cuGetProcAddress_v2");
	memcpy(&get_new, &fn, sizeof(fn));
	fn = dlsym(so, "cuGetProcAddress");
	memcpy(&get_old, &fn, sizeof(fn));
	if (!get_new && !get_old) {
		snprintf(state.why, sizeof(state.why), "the driver is older than CUDA 11.3");
		return;
	}
#define FIND(name, version, args) find(#name, version, &gpu.name);
	GPU_CALLS(FIND)
#undef FIND
	e = GPU(cuInit, 0);
	if (!e)
		e = GPU(cuDeviceGetCount, &state.devices);
	if (e || !state.devices)
		snprintf(state.why, sizeof(state.why), "cuInit: %s", e ? gpu_words(e) : "no device");
	if (e)
		state.devices = 0;
}

int gpu_load(const char **why)
{
	pthread_mutex_lock(&state.lock);
	if (!state.done)
		load();
	state.done = true;
	pthread_mutex_unlock(&state.lock);
	*why = state.why;
	return state.devices;
}

int gpu_use(int device)
{
	void *ctx = NULL;
	int e = GPU(cuDevicePrimaryCtxRetain, &ctx, device);

	return e ? e : GPU(cuCtxSetCurrent, ctx);
}

const char *gpu_words(int e)
{
	static _Thread_local char out[256];
	const char *name = NULL, *text = NULL;

	if (e == GPU_NONE)
		return "this driver has no such function, or this build no kernels";
	if (GPU(cuGetErrorName, e, &name) || !name || GPU(cuGetErrorString, e, &text) || !text)
		snprintf(out, sizeof(out), "CUDA's error %d", e);
	else
		snprintf(out, sizeof(out), "%s (%d): %s", name, e, text);
	return out;
}

static int load_code(void **lib)
{
	return tt_gpu_image_size ? GPU(cuLibraryLoadData, lib, tt_gpu_image, NULL, NULL, 0, NULL, NULL, 0) : GPU_NONE;
}

static int find_kernel(void *lib, const char *name, void **fn)
{
	void *kernel;
	int e = GPU(cuLibraryGetKernel, &kernel, lib, name);

	return e ? e : GPU(cuKernelGetFunction, fn, kernel);
}

int gpu_kernel_again(const char *name, void **fn)
{
	void *lib;
	int e = load_code(&lib);

	return e ? e : find_kernel(lib, name, fn);
}

/* Into the current context at once: a first launch that loads may wait for what runs. */
int gpu_kernel(const char *name, void **fn)
{
	int e = 0;

	pthread_mutex_lock(&state.lock);
	if (!state.lib)
		e = load_code(&state.lib);
	pthread_mutex_unlock(&state.lock);
	if (!e)
		e = find_kernel(state.lib, name, fn);
	if (!e && gpu.cuFuncLoad)
		e = gpu.cuFuncLoad(*fn);
	return e;
}

int gpu_launch(void *fn, unsigned blocks, unsigned threads, void *stream, void *args)
{
	void *list[] = { args };

	return GPU(cuLaunchKernel, fn, blocks, 1, 1, threads, 1, 1, 0, stream, list, NULL);
}

double gpu_now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}
