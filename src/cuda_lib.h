/* Floor 1: CUDA's driver API, found at run time. Prototypes are written by hand, so that a build needs no CUDA
 * header; each is that of the version beside it, and that version is asked for: others may have another one. */
#ifndef TT_CUDA_LIB_H
#define TT_CUDA_LIB_H

#include "base.h"

typedef uintptr_t tt_cuda_ptr; /* CUdeviceptr; contexts, streams, libraries, kernels and functions are void * */

/* Numbers of cuda.h. */
enum {
	TT_CUDA_INVALID_VALUE = 1, TT_CUDA_OUT_OF_MEMORY = 2, TT_CUDA_NOT_INITIALIZED = 3, TT_CUDA_STUB = 34,
	TT_CUDA_NO_DEVICE = 100, TT_CUDA_INVALID_CONTEXT = 201, TT_CUDA_NO_BINARY = 209, TT_CUDA_OLD_PTX = 222,
	TT_CUDA_NOT_READY = 600, TT_CUDA_PEER_IS_ON = 704, TT_CUDA_NO_FABRIC = 802, TT_CUDA_MISMATCH = 803,
	TT_CUDA_CAPTURE_IMPLICIT = 906,
};
enum {
	TT_CUDA_ATTR_SMS = 16, TT_CUDA_ATTR_VMM = 102, TT_CUDA_ATTR_VMM_FD = 103, TT_CUDA_ATTR_VMM_RDMA = 110,
	TT_CUDA_ATTR_HOST_NODE = 134,
};
enum {
	TT_CUDA_PTR_CONTEXT = 1, TT_CUDA_PTR_TYPE = 2, TT_CUDA_PTR_DEVICE_POINTER = 3, TT_CUDA_PTR_SYNC_MEMOPS = 6,
	TT_CUDA_PTR_MANAGED = 8,
	TT_CUDA_PTR_ORDINAL = 9,
};
enum { TT_CUDA_TYPE_HOST = 1, TT_CUDA_TYPE_DEVICE = 2 };
enum { TT_CUDA_HOST_PORTABLE = 1, TT_CUDA_HOST_DEVICEMAP = 2 };
enum { TT_CUDA_CAPTURE_ACTIVE = 1, TT_CUDA_CAPTURE_INVALIDATED = 2 };
enum { TT_CUDA_WAIT_GEQ = 0, TT_CUDA_CAPTURE_RELAXED = 2, TT_CUDA_EVENT_NO_TIMING = 2 };
enum { TT_CUDA_WAIT_FLUSH = 1 << 30, TT_CUDA_DMA_BUF = 1 };
/* Of memory that is created, then mapped (VMM): on a device, for others by descriptor. */
enum { TT_CUDA_PINNED = 1, TT_CUDA_DEVICE = 1, TT_CUDA_BY_FD = 1, TT_CUDA_READ_WRITE = 3, TT_CUDA_RECOMMENDED = 1 };
enum { TT_CUDA_LAZY_PEERS = 1, TT_CUDA_NON_BLOCKING = 1 };

struct tt_cuda_location {
	int type, id;
};
struct tt_cuda_prop {
	int type, handles;
	struct tt_cuda_location location;
	void *win32;
	unsigned char compression, rdma;
	unsigned short usage;
	unsigned char reserved[4];
};
struct tt_cuda_access {
	struct tt_cuda_location location;
	int flags;
};
struct tt_cuda_ipc {
	char bytes[64];
};
typedef unsigned long long tt_cuda_handle;

/* Must be there, from CUDA 11.8 on. */
#define TT_CUDA_FUNCTIONS(X)                                                                       \
	X(cuInit, 2000, (unsigned flags))                                                          \
	X(cuDeviceGetCount, 2000, (int *n))                                                        \
	X(cuDeviceGetName, 2000, (char *name, int n, int device))                                  \
	X(cuDeviceGetAttribute, 2000, (int *value, int attribute, int device))                     \
	X(cuDevicePrimaryCtxRetain, 7000, (void **ctx, int device))                                \
	X(cuCtxGetCurrent, 4000, (void **ctx))                                                     \
	X(cuCtxPushCurrent, 4000, (void *ctx))                                                     \
	X(cuCtxPopCurrent, 4000, (void **ctx))                                                     \
	X(cuCtxGetDevice, 2000, (int *device))                                                     \
	X(cuThreadExchangeStreamCaptureMode, 10010, (int *mode))                                   \
	X(cuMemGetInfo, 3020, (size_t *free, size_t *total))                                       \
	X(cuMemAlloc, 3020, (tt_cuda_ptr *p, size_t n))                                            \
	X(cuMemFree, 3020, (tt_cuda_ptr p))                                                        \
	X(cuMemHostAlloc, 2020, (void **p, size_t n, unsigned flags))                              \
	X(cuMemFreeHost, 2000, (void *p))                                                          \
	X(cuMemHostGetDevicePointer, 3020, (tt_cuda_ptr *out, void *p, unsigned flags))            \
	X(cuPointerGetAttributes, 7000, (unsigned n, int *attributes, void **data, tt_cuda_ptr p)) \
	X(cuStreamGetCtx, 9020, (void *stream, void **ctx))                                        \
	X(cuStreamGetCaptureInfo, 10010, (void *stream, int *status, uint64_t *id))                \
	X(cuMemcpyAsync, 4000, (tt_cuda_ptr dst, tt_cuda_ptr src, size_t n, void *stream))         \
	X(cuStreamWaitValue32, 11070, (void *stream, tt_cuda_ptr p, uint32_t v, unsigned flags))   \
	X(cuStreamWriteValue32, 11070, (void *stream, tt_cuda_ptr p, uint32_t v, unsigned flags))  \
	X(cuEventCreate, 2000, (void **event, unsigned flags))                                     \
	X(cuEventDestroy, 4000, (void *event))                                                     \
	X(cuEventRecord, 2000, (void *event, void *stream))                                        \
	X(cuStreamWaitEvent, 3020, (void *stream, void *event, unsigned flags))                    \
	X(cuLaunchHostFunc, 10000, (void *stream, void (*fn)(void *), void *arg))                  \
	X(cuLaunchKernel, 4000, (void *fn, unsigned gx, unsigned gy, unsigned gz, unsigned bx,     \
				 unsigned by, unsigned bz, unsigned shared, void *stream,          \
				 void **args, void **extra))
/* NULL in older drivers: then there are no kernels. */
#define TT_CUDA_OPTIONAL(X)                                                                        \
	X(cuLibraryLoadData, 12000, (void **lib, const void *code, int *jit, void **jit_values,    \
				     unsigned njit, int *options, void **values, unsigned n))      \
	X(cuLibraryGetKernel, 12000, (void **kernel, void *lib, const char *name))                 \
	X(cuKernelGetFunction, 12000, (void **fn, void *kernel))                                   \
	X(cuFuncLoad, 12040, (void *fn))                                                           \
	X(cuOccupancyMaxActiveBlocksPerMultiprocessor, 6050, (int *n, void *fn, int threads,       \
							      size_t shared))                      \
	X(cuLaunchCooperativeKernel, 9000, (void *fn, unsigned gx, unsigned gy, unsigned gz,       \
					    unsigned bx, unsigned by, unsigned bz, unsigned shared, \
					    void *stream, void **args))
/* For memory that ranks of a host share: NULL as well. */
#define TT_CUDA_SHARING(X)                                                                         \
	X(cuStreamCreateWithPriority, 5050, (void **stream, unsigned flags, int priority))         \
	X(cuStreamDestroy, 4000, (void *stream))                                                   \
	X(cuStreamSynchronize, 2000, (void *stream))                                               \
	X(cuMemsetD8Async, 3020, (tt_cuda_ptr p, unsigned char value, size_t n, void *stream))     \
	X(cuCtxSynchronize, 2000, (void))                                                          \
	X(cuDeviceGetUuid, 11040, (unsigned char *uuid, int device))                               \
	X(cuDeviceGetPCIBusId, 4010, (char *id, int n, int device))                                \
	X(cuDeviceCanAccessPeer, 4000, (int *can, int device, int peer))                           \
	X(cuCtxEnablePeerAccess, 4000, (void *peer, unsigned flags))                               \
	X(cuMemHostRegister, 6050, (void *p, size_t n, unsigned flags))                            \
	X(cuMemHostUnregister, 4000, (void *p))                                                    \
	X(cuIpcGetMemHandle, 4010, (struct tt_cuda_ipc *h, tt_cuda_ptr p))                         \
	X(cuIpcOpenMemHandle, 11000, (tt_cuda_ptr *p, struct tt_cuda_ipc h, unsigned flags))       \
	X(cuIpcCloseMemHandle, 4010, (tt_cuda_ptr p))                                              \
	X(cuMemGetAllocationGranularity, 10020, (size_t *n, const struct tt_cuda_prop *prop, int option)) \
	X(cuMemCreate, 10020, (tt_cuda_handle *h, size_t n, const struct tt_cuda_prop *prop, uint64_t flags)) \
	X(cuMemRelease, 10020, (tt_cuda_handle h))                                                 \
	X(cuMemExportToShareableHandle, 10020, (void *out, tt_cuda_handle h, int type, uint64_t flags)) \
	X(cuMemImportFromShareableHandle, 10020, (tt_cuda_handle *h, void *fd, int type))          \
	X(cuMemAddressReserve, 10020, (tt_cuda_ptr *p, size_t n, size_t align, tt_cuda_ptr wish, uint64_t flags)) \
	X(cuMemAddressFree, 10020, (tt_cuda_ptr p, size_t n))                                      \
	X(cuMemMap, 10020, (tt_cuda_ptr p, size_t n, size_t offset, tt_cuda_handle h, uint64_t flags)) \
	X(cuMemUnmap, 10020, (tt_cuda_ptr p, size_t n))                                            \
	X(cuMemSetAccess, 10020, (tt_cuda_ptr p, size_t n, const struct tt_cuda_access *a, size_t count))

/* For memory that NICs read and write: NULL as well. */
#define TT_CUDA_RDMA(X)                                                                            \
	X(cuPointerSetAttribute, 6000, (const void *value, int attribute, tt_cuda_ptr p))          \
	X(cuMemGetHandleForAddressRange, 11070, (void *fd, tt_cuda_ptr p, size_t n, int type, uint64_t flags))

struct tt_cuda {
#define TT_CUDA_MEMBER(name, version, args) int (*name) args;
	TT_CUDA_FUNCTIONS(TT_CUDA_MEMBER)
	TT_CUDA_OPTIONAL(TT_CUDA_MEMBER)
	TT_CUDA_SHARING(TT_CUDA_MEMBER)
	TT_CUDA_RDMA(TT_CUDA_MEMBER)
#undef TT_CUDA_MEMBER
	int version, devices; /* of the driver: 13000 is CUDA 13.0 */
	bool shares;          /* all of TT_CUDA_SHARING is there */
};

/* Loads the driver's library. `in_use`: only where this process has it loaded already: memory and streams of devices
 * come from nowhere else, and whoever uses none pays nothing. NULL: CUDA is off, tt_cuda_why says why and what to do.
 * An answer stays, but that the library is not loaded. */
const struct tt_cuda *tt_cuda_open(bool in_use);
const char *tt_cuda_why(void);
/* Into the current context. An error of CUDA's. */
int tt_cuda_load(void *kernel);
/* "CUDA_ERROR_NAME (number): the driver's own words" */
const char *tt_cuda_words(int e, char *out, size_t n);

#endif
