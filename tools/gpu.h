/* What our tools, benchmarks and GPU tests call of CUDA's driver, as programs of a user do: found at run time, the
 * library knows nothing of it. Each call is of the version beside it, NULL where this driver has none. */
#ifndef TT_GPU_H
#define TT_GPU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uintptr_t gpu_ptr;

struct gpu_ipc {
	char bytes[64];
};
struct gpu_prop { /* CUmemAllocationProp */
	int type, handles;
	int where, device; /* location */
	void *windows;
	unsigned char compression, rdma;
	unsigned short usage;
	unsigned char reserved[4];
};
struct gpu_access { /* CUmemAccessDesc */
	int where, device, flags;
};

/* Numbers of cuda.h. */
enum { GPU_NONE = -1, GPU_NOT_READY = 600, GPU_FD = 1, GPU_PINNED = 1, GPU_ON_DEVICE = 1, GPU_READ_WRITE = 3 };
enum { GPU_PORTABLE = 1, GPU_DEVICEMAP = 2, GPU_ATTACH_GLOBAL = 1, GPU_NON_BLOCKING = 1, GPU_LAZY_PEER = 1 };
enum { GPU_NO_TIMING = 2, GPU_INTERPROCESS = 4, GPU_GEQ = 0, GPU_DMA_BUF = 1, GPU_SMS = 16 };
enum { GPU_GLOBAL, GPU_THREAD, GPU_RELAXED }; /* modes of capture */

#define GPU_CALLS(X)                                                                               \
	X(cuInit, 2000, (unsigned flags))                                                          \
	X(cuGetErrorName, 6000, (int e, const char **text))                                        \
	X(cuGetErrorString, 6000, (int e, const char **text))                                      \
	X(cuDeviceGetCount, 2000, (int *n))                                                        \
	X(cuDeviceGetName, 2000, (char *name, int n, int device))                                  \
	X(cuDeviceGetAttribute, 2000, (int *value, int attribute, int device))                     \
	X(cuDeviceGetPCIBusId, 4010, (char *out, int n, int device))                               \
	X(cuDeviceCanAccessPeer, 4000, (int *can, int device, int peer))                           \
	X(cuDevicePrimaryCtxRetain, 7000, (void **ctx, int device))                                \
	X(cuCtxSetCurrent, 4000, (void *ctx))                                                      \
	X(cuCtxPushCurrent, 4000, (void *ctx))                                                     \
	X(cuCtxPopCurrent, 4000, (void **ctx))                                                     \
	X(cuMemGetInfo, 3020, (size_t *left, size_t *all))                                         \
	X(cuMemAlloc, 3020, (gpu_ptr *p, size_t n))                                                \
	X(cuMemFree, 3020, (gpu_ptr p))                                                            \
	X(cuMemAllocManaged, 6000, (gpu_ptr *p, size_t n, unsigned flags))                         \
	X(cuMemHostAlloc, 2020, (void **p, size_t n, unsigned flags))                              \
	X(cuMemFreeHost, 2000, (void *p))                                                          \
	X(cuMemHostRegister, 6050, (void *p, size_t n, unsigned flags))                            \
	X(cuMemHostGetDevicePointer, 3020, (gpu_ptr *out, void *p, unsigned flags))                \
	X(cuPointerGetAttributes, 7000, (unsigned n, int *attributes, void **data, gpu_ptr p))     \
	X(cuMemAddressReserve, 10020, (gpu_ptr *p, size_t n, size_t align, gpu_ptr at, uint64_t f)) \
	X(cuMemCreate, 10020, (uint64_t *h, size_t n, const struct gpu_prop *p, uint64_t flags))   \
	X(cuMemMap, 10020, (gpu_ptr p, size_t n, size_t offset, uint64_t h, uint64_t flags))       \
	X(cuMemSetAccess, 10020, (gpu_ptr p, size_t n, const struct gpu_access *a, size_t count))  \
	X(cuMemGetAllocationGranularity, 10020, (size_t *n, const struct gpu_prop *p, int option)) \
	X(cuMemExportToShareableHandle, 10020, (void *out, uint64_t h, int type, uint64_t flags))  \
	X(cuMemImportFromShareableHandle, 10020, (uint64_t *h, void *in, int type))                \
	X(cuMemGetHandleForAddressRange, 11070, (void *out, gpu_ptr p, size_t n, int t, uint64_t f)) \
	X(cuIpcGetMemHandle, 4010, (struct gpu_ipc *h, gpu_ptr p))                                 \
	X(cuIpcOpenMemHandle, 11000, (gpu_ptr *p, struct gpu_ipc h, unsigned flags))               \
	X(cuIpcGetEventHandle, 4010, (struct gpu_ipc *h, void *event))                             \
	X(cuIpcOpenEventHandle, 4010, (void **event, struct gpu_ipc h))                            \
	X(cuStreamCreate, 2000, (void **stream, unsigned flags))                                   \
	X(cuStreamDestroy, 4000, (void *stream))                                                   \
	X(cuStreamQuery, 2000, (void *stream))                                                     \
	X(cuStreamSynchronize, 2000, (void *stream))                                               \
	X(cuStreamGetCtx, 9020, (void *stream, void **ctx))                                        \
	X(cuStreamWaitEvent, 3020, (void *stream, void *event, unsigned flags))                    \
	X(cuStreamWaitValue32, 11070, (void *stream, gpu_ptr p, uint32_t v, unsigned flags))       \
	X(cuStreamWriteValue32, 11070, (void *stream, gpu_ptr p, uint32_t v, unsigned flags))      \
	X(cuThreadExchangeStreamCaptureMode, 10010, (int *mode))                                   \
	X(cuStreamBeginCapture, 10010, (void *stream, int mode))                                   \
	X(cuStreamEndCapture, 10000, (void *stream, void **graph))                                 \
	X(cuGraphInstantiateWithFlags, 11040, (void **exec, void *graph, uint64_t flags))          \
	X(cuGraphLaunch, 10000, (void *exec, void *stream))                                        \
	X(cuGraphGetNodes, 10000, (void *graph, void **nodes, size_t *n))                          \
	X(cuGraphExecDestroy, 10000, (void *exec))                                                 \
	X(cuGraphDestroy, 10000, (void *graph))                                                    \
	X(cuEventCreate, 2000, (void **event, unsigned flags))                                     \
	X(cuEventDestroy, 4000, (void *event))                                                     \
	X(cuEventQuery, 2000, (void *event))                                                       \
	X(cuEventRecord, 2000, (void *event, void *stream))                                        \
	X(cuMemcpyAsync, 4000, (gpu_ptr dst, gpu_ptr src, size_t n, void *stream))                 \
	X(cuMemcpyDtoDAsync, 3020, (gpu_ptr dst, gpu_ptr src, size_t n, void *stream))             \
	X(cuLaunchHostFunc, 10000, (void *stream, void (*fn)(void *), void *arg))                  \
	X(cuLaunchKernel, 4000, (void *fn, unsigned gx, unsigned gy, unsigned gz, unsigned bx,     \
				 unsigned by, unsigned bz, unsigned shared, void *stream,          \
				 void **args, void **extra))                                       \
	X(cuLaunchCooperativeKernel, 9000, (void *fn, unsigned gx, unsigned gy, unsigned gz,       \
					    unsigned bx, unsigned by, unsigned bz, unsigned shared, \
					    void *stream, void **args))                            \
	X(cuLibraryLoadData, 12000, (void **lib, const void *code, int *jit, void **jit_values,    \
				     unsigned njit, int *options, void **values, unsigned n))      \
	X(cuLibraryGetKernel, 12000, (void **kernel, void *lib, const char *name))                 \
	X(cuKernelGetFunction, 12000, (void **fn, void *kernel))                                   \
	X(cuFuncLoad, 12040, (void *fn))

struct gpu_calls {
#define GPU_MEMBER(name, version, args) int (*name) args;
	GPU_CALLS(GPU_MEMBER)
#undef GPU_MEMBER
};
extern struct gpu_calls gpu;
/* GPU_NONE where this driver has no such call. */
#define GPU(name, ...) (gpu.name ? gpu.name(__VA_ARGS__) : GPU_NONE)

/* The driver and how many devices there are, or 0 and why. Once a process. */
int gpu_load(const char **why);
/* Makes the primary context of the device the thread's. An error of CUDA's. */
int gpu_use(int device);
const char *gpu_words(int e); /* until the thread's next call */

/* Our own kernels (gpu_kernels.h). An error of CUDA's, GPU_NONE where the build has none. */
int gpu_kernel(const char *name, void **fn);
int gpu_launch(void *fn, unsigned blocks, unsigned threads, void *stream, void *args);
int gpu_kernel_again(const char *name, void **fn); /* of code that is loaded once more */
extern const unsigned char tt_gpu_image[];
extern const size_t tt_gpu_image_size; /* 0: built without nvcc */

double gpu_now_us(void);

#endif
