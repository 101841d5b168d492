/* What the fake libcuda.so.1 gives. Its handles are structures of its own. */
#ifndef TT_FAKE_LIBCUDA_H
#define TT_FAKE_LIBCUDA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	BAD_VALUE = 1, STUB = 34, BAD_CONTEXT = 201, NO_IMAGE = 209, BAD_HANDLE = 400, NOT_FOUND = 500,
	NOT_READY = 600, NOT_IN_CAPTURE = 900,
};
enum { WAIT_FLUSH = 1 << 30 }; /* of a wait for a value */
enum { MAX_DEVICES = 8, STACK = 16, PAGE = 4096, UNIFIED = 0, MANAGED = 1, PINNED = 2 };

struct ctx {
	int device;
};

/* What the device reaches: `at` for whoever names it, `view` for what runs. */
enum { OURS, REGISTERED, MAPPED, OPENED }; /* how it came */
struct range {
	struct range *next;
	char *at, *view;
	size_t n;
	int kind, device, how, fd;
	unsigned access; /* devices that may, besides those with a peer's access */
};

struct queue;
struct kernel;
struct event;
struct graph;
struct exec;
struct tt_cuda_all;
extern struct ctx contexts[MAX_DEVICES];

/* ---- between the files ---- */
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
		wait_for_load(current()->device);                                                  \
	} while (0)

/* What is not for a thread while it, or another one, captures, unless its mode says so: it ends the capture. */
#define UNSAFE()                                                                                   \
	do {                                                                                       \
		if (is_unsafe())                                                                   \
			return NOT_IN_CAPTURE;                                                     \
	} while (0)

void wrong(const char *text) __attribute__((noreturn));
long setting(const char *name, long otherwise);
int ready(void); /* or an error: a stub, before cuInit, in a child */
struct ctx *current(void);
void *reach(const void *p, size_t n, int device);
bool is_pinned(const void *p);
void wait_for_all(void);
bool is_busy(int device);
void start_loads(void); /* fake_loads.c */
void wait_for_load(int device);
void link_range(const struct range *r);               /* a copy */
bool look_up(const void *p, struct range *out);       /* whose address lies in it */
bool unlink_range(const void *at, int how, struct range *out);
bool overlaps(const void *p, size_t n);
bool charge(int device, size_t n); /* false: more than there is */
void discharge(int device, size_t n);
/* Of fake_ipc.c. */
bool may_reach(int device, int owner); /* by cuCtxEnablePeerAccess */
int sharing_attribute(int attribute);
bool copies_well(const void *dst, const void *src); /* stalls, or false: brings other bytes */
void check_openers(const struct range *r); /* nobody else has it open when it is freed */
void run_all(const struct tt_cuda_all *a, int op, int type, int device); /* sum .. min; 4: copies of 1 << type bytes */
/* For the device's thread, at the stream's turn; n: so many bytes of arg are copied. */
int enqueue(void *stream, void (*fn)(void *), void *arg, size_t n);
void *copy_of(const void *p, size_t n); /* malloc'ed */
/* Of fake_graph.c. */
struct moment; /* of a captured stream: what it has so far */
struct moment *moment_of(void *stream, int *e); /* NULL: it is not captured, or an error */
struct moment *moment_copy(const struct moment *m); /* of NULL: NULL */
void moment_free(struct moment *m);
int wait_for_moment(void *stream, const struct moment *m);
bool break_capture(void *stream); /* by a call that has no place there; false: it is not captured */
bool is_unsafe(void);
bool told_attribute(int which, int *value); /* fake_attributes.c */
void check_near(bool pinned);
bool may_wait(unsigned flags); /* fake_rdma.c */

/* Kernels of our tools (fake_gpu.c). */
const void *fake_gpu_find(const char *name);
bool fake_gpu_is(const void *kernel);
int fake_gpu_launch(const void *kernel, void *stream, void **args);
int fake_never(void);
/* The kernel of schedules (fake_grid.c). */
bool fake_grid_is(const void *kernel);
int fake_grid_launch(void *stream, unsigned blocks, unsigned threads, bool together, void **args);

/* No driver's: what the device has at an address, a release that waits for no stream, a count. */
void *cuFakeView(const void *p);
int cuFakeFree(void *p);
/* Handles, mappings, reservations, opened and registered memory that there are. */
int cuFakeLive(void);
int cuFakeLaunches(void); /* of kernels, so far */
int cuFakeFlushes(void);  /* waits that flush, so far */

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
int cuCtxSynchronize(void);
int cuThreadExchangeStreamCaptureMode(int *mode);
int cuMemGetInfo(size_t *left, size_t *all);
int cuMemAlloc_v2(void **p, size_t n);
int cuMemAllocManaged(void **p, size_t n, unsigned flags);
int cuMemHostAlloc(void **p, size_t n, unsigned flags);
int cuMemFree_v2(void *p);
int cuMemFreeHost(void *p);
int cuMemHostGetDevicePointer(void **out, void *p, unsigned flags);
int cuDeviceGetUuid_v2(unsigned char uuid[16], int device);
int cuDeviceGetPCIBusId(char *id, int n, int device);
int cuDeviceCanAccessPeer(int *can, int device, int peer);
int cuDeviceGetP2PAttribute(int *value, int attribute, int device, int peer);
int cuCtxEnablePeerAccess(struct ctx *peer, unsigned flags);
int cuMemHostRegister_v2(void *p, size_t n, unsigned flags);
int cuMemHostUnregister(void *p);
struct ipc {
	char bytes[64];
};
int cuIpcGetMemHandle(struct ipc *h, void *p);
int cuIpcOpenMemHandle_v2(void **p, struct ipc h, unsigned flags);
int cuIpcCloseMemHandle(void *p);
struct prop {
	int type, handles;
	struct {
		int type, id;
	} location;
	void *win32;
	unsigned char compression, rdma;
	unsigned short usage;
	unsigned char reserved[4];
};
struct access {
	struct {
		int type, id;
	} location;
	int flags;
};
struct handle;
int cuMemGetAllocationGranularity(size_t *n, const struct prop *p, int option);
int cuMemCreate(struct handle **h, size_t n, const struct prop *p, uint64_t flags);
int cuMemRelease(struct handle *h);
int cuMemExportToShareableHandle(void *out, struct handle *h, int type, uint64_t flags);
int cuMemImportFromShareableHandle(struct handle **h, void *fd, int type);
int cuMemAddressReserve(void **p, size_t n, size_t align, void *wish, uint64_t flags);
int cuMemAddressFree(void *p, size_t n);
int cuMemMap(void *p, size_t n, size_t offset, struct handle *h, uint64_t flags);
int cuMemUnmap(void *p, size_t n);
int cuMemSetAccess(void *p, size_t n, const struct access *a, size_t count);
int cuPointerGetAttributes(unsigned n, int *which, void **out, const void *p);
int cuPointerSetAttribute(const void *value, int attribute, void *p);
int cuMemGetHandleForAddressRange(void *fd, void *p, size_t n, int type, uint64_t flags);
int cuStreamCreate(void **stream, unsigned flags);
int cuStreamCreateWithPriority(void **stream, unsigned flags, int priority);
int cuStreamDestroy_v2(struct queue *q);
int cuStreamQuery(void *stream);
int cuStreamSynchronize(void *stream);
int cuStreamGetCtx(void *stream, struct ctx **ctx);
int cuStreamIsCapturing(void *stream, int *status);
int cuStreamBeginCapture_v2(struct queue *q, int mode);
int cuStreamEndCapture(struct queue *q, struct graph **graph);
int cuStreamGetCaptureInfo(void *stream, int *status, uint64_t *id);
int cuGraphInstantiateWithFlags(struct exec **out, const struct graph *g, uint64_t flags);
int cuGraphLaunch(struct exec *x, void *stream);
int cuGraphExecDestroy(struct exec *x);
int cuGraphDestroy(struct graph *g);
int cuGraphGetNodes(struct graph *g, void **nodes, size_t *n);
int cuMemsetD8Async(void *p, unsigned char value, size_t n, void *stream);
int cuMemcpyAsync(char *dst, const char *src, size_t n, void *stream);
int cuStreamWaitValue32(void *stream, void *word, uint32_t value, unsigned flags);
int cuStreamWriteValue32(void *stream, void *word, uint32_t value, unsigned flags);
int cuEventCreate(struct event **event, unsigned flags);
int cuEventDestroy_v2(struct event *event);
int cuEventRecord(struct event *event, void *stream);
int cuStreamWaitEvent(void *stream, struct event *event, unsigned flags);
int cuEventQuery(struct event *event);
int cuEventSynchronize(struct event *event);
int cuLaunchHostFunc(void *stream, void (*fn)(void *), void *arg);
int cuLaunchKernel(struct kernel *k, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
		   unsigned shared, void *stream, void **args, void **extra);
int cuLibraryLoadData(void **lib, const void *code, int *jit, void **jit_values, unsigned njit, int *options,
		      void **values, unsigned n);
int cuLibraryGetKernel(void **kernel, void *lib, const char *name);
int cuKernelGetFunction(void **fn, void *kernel);
int cuFuncLoad(void *fn);
int cuOccupancyMaxActiveBlocksPerMultiprocessor(int *n, void *fn, int threads, size_t shared);
int cuLaunchCooperativeKernel(void *fn, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
			      unsigned shared, void *stream, void **args);
int cuGetProcAddress(const char *name, void **fn, int version, uint64_t flags);
int cuGetProcAddress_v2(const char *name, void **fn, int version, uint64_t flags, int *status);

#endif
