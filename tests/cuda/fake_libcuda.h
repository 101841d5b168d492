/* What the fake libcuda.so.1 gives. Its handles are structures of its own. */
#ifndef TT_FAKE_LIBCUDA_H
#define TT_FAKE_LIBCUDA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { STUB = 34, NO_IMAGE = 209, BAD_CONTEXT = 201, BAD_HANDLE = 400, NOT_FOUND = 500, NOT_READY = 600 };
enum { MAX_DEVICES = 4, STACK = 16, PAGE = 4096, UNIFIED = 0, MANAGED = 1, PINNED = 2 };

struct ctx {
	int device;
};

struct queue;
struct kernel;
extern struct ctx contexts[MAX_DEVICES];

/* ---- of the two files ---- */
#define READY()                                                                                    \
	do {                                                                                       \
		int ready_ = ready();                                                              \
		if (ready_)                                                                        \
			return ready_;                                                             \
	} while (0)

#define IN_CONTEXT()                                                                               \
	do {                                                                                       \
		READY();                                                                           \
		if (!current())                                                                    \
			return BAD_CONTEXT;                                                        \
	} while (0)

void wrong(const char *text) __attribute__((noreturn));
long setting(const char *name, long otherwise);
int ready(void); /* or an error: a stub, before cuInit, in a child */
struct ctx *current(void);
void *reach(const void *p, size_t n, int device);
bool is_pinned(const void *p);
void wait_for_all(void);

/* Kernels of our tools (fake_gpu.c). */
const void *fake_gpu_find(const char *name);
bool fake_gpu_is(const void *kernel);
int fake_gpu_launch(const void *kernel, void *stream, void **args);
int fake_never(void);

/* No driver's: what the device has at an address, and a release that waits for no stream. */
void *cuFakeView(const void *p);
int cuFakeFree(void *p);

int cuInit(unsigned flags);
int cuDriverGetVersion(int *v);
int cuGetErrorName(int e, const char **text);
int cuGetErrorString(int e, const char **text);
int cuDeviceGetCount(int *n);
int cuDeviceGetName(char *name, int n, int device);
int cuDeviceGetAttribute(int *value, int attribute, int device);
int cuDevicePrimaryCtxRetain(struct ctx **ctx, int device);
int cuCtxGetCurrent(struct ctx **ctx);
int cuCtxSetCurrent(struct ctx *ctx);
int cuCtxPushCurrent(struct ctx *ctx);
int cuCtxPopCurrent(struct ctx **ctx);
int cuCtxGetDevice(int *device);
int cuThreadExchangeStreamCaptureMode(int *mode);
int cuMemGetInfo(size_t *left, size_t *all);
int cuMemAlloc_v2(void **p, size_t n);
int cuMemAllocManaged(void **p, size_t n, unsigned flags);
int cuMemHostAlloc(void **p, size_t n, unsigned flags);
int cuMemFree_v2(void *p);
int cuMemFreeHost(void *p);
int cuMemHostGetDevicePointer(void **out, void *p, unsigned flags);
int cuPointerGetAttributes(unsigned n, int *which, void **out, const void *p);
int cuStreamCreate(void **stream, unsigned flags);
int cuStreamDestroy_v2(struct queue *q);
int cuStreamQuery(void *stream);
int cuStreamSynchronize(void *stream);
int cuStreamGetCtx(void *stream, struct ctx **ctx);
int cuStreamIsCapturing(void *stream, int *status);
int cuStreamBeginCapture_v2(struct queue *q, int mode);
int cuStreamEndCapture(struct queue *q, void **graph);
int cuMemcpyAsync(char *dst, const char *src, size_t n, void *stream);
int cuStreamWaitValue32(void *stream, void *word, uint32_t value, unsigned flags);
int cuStreamWriteValue32(void *stream, void *word, uint32_t value, unsigned flags);
int cuLaunchHostFunc(void *stream, void (*fn)(void *), void *arg);
int cuLaunchKernel(struct kernel *k, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
		   unsigned shared, void *stream, void **args, void **extra);
int cuLibraryLoadData(void **lib, const void *code, int *jit, void **jit_values, unsigned njit, int *options,
		      void **values, unsigned n);
int cuLibraryGetKernel(void **kernel, void *lib, const char *name);
int cuKernelGetFunction(void **fn, void *kernel);
int cuFuncLoad(void *fn);
int cuGetProcAddress(const char *name, void **fn, int version, uint64_t flags);
int cuGetProcAddress_v2(const char *name, void **fn, int version, uint64_t flags, int *status);

#endif
