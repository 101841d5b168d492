/* A libcuda.so.1 for tests, without a GPU. Device memory is a mapping that nobody may touch, so that a host access
 * faults; what the device reaches is a second mapping of the same pages. Streams are threads, late now and then.
 * It is strict where drivers are not: functions come only for the version of their prototype, a call from a thread
 * of the library ends the program, and so does a copy of pageable memory, which a driver would wait for; releasing
 * memory waits for all streams. Figures of it are no device's figures.
 * FAKE_CUDA_STUB=1, _VERSION, _INIT (cuInit's result), _DEVICES, _MISSING (a function), _MEMORY (bytes a device),
 * _NO_IMAGE=1 (kernels are refused), _HANG (a function that never returns); _QUEUES and _LAUNCH_BLOCKING:
 * fake_streams.c; _LOADS: fake_loads.c; _ATTRIBUTES: fake_attributes.c; _RDMA: fake_rdma.c. Graphs: fake_graph.c.
 * SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base.h"
#include "fake_libcuda.h"

static struct {
	pthread_mutex_t lock;
	struct range *ranges;
	size_t used[MAX_DEVICES];
	_Atomic int pid; /* that has called cuInit */
} fake = { .lock = PTHREAD_MUTEX_INITIALIZER };

struct ctx contexts[MAX_DEVICES] = { { 0 }, { 1 }, { 2 }, { 3 }, { 4 }, { 5 }, { 6 }, { 7 } };
static _Thread_local struct ctx *stack[STACK];
static _Thread_local int depth;

void wrong(const char *text)
{
	fprintf(stderr, "fake libcuda: %s\n", text);
	abort();
}

long setting(const char *name, long otherwise)
{
	const char *s = getenv(name);

	return s && *s ? strtol(s, NULL, 0) : otherwise;
}

/* Those of the library are named so; CUDA may keep a thread waiting for a stream that waits for it. */
static void check_thread(void)
{
	char name[16] = "";

	pthread_getname_np(pthread_self(), name, sizeof(name));
	if (!strcmp(name, "tutti-watch") || !strcmp(name, "tutti-progress"))
		wrong("a call from a thread of the library");
}

int ready(void)
{
	check_thread();
	if (setting("FAKE_CUDA_STUB", 0))
		return STUB;
	return atomic_load(&fake.pid) == getpid() ? 0 : 3;
}

struct ctx *current(void)
{
	return depth ? stack[depth - 1] : NULL;
}

/* ---- the driver ---- */

int cuInit(unsigned flags)
{
	int e = (int)setting("FAKE_CUDA_INIT", 0), pid = atomic_load(&fake.pid);

	check_thread();
	if (setting("FAKE_CUDA_STUB", 0))
		return STUB;
	if (pid && pid != getpid())
		return 3;
	if (!e && atomic_exchange(&fake.pid, getpid()) != getpid())
		start_loads();
	return e;
}

int cuDriverGetVersion(int *v)
{
	if (setting("FAKE_CUDA_STUB", 0))
		return STUB;
	*v = (int)setting("FAKE_CUDA_VERSION", 13000);
	return 0;
}

int cuGetErrorName(int e, const char **text)
{
	*text = e == 2 ? "CUDA_ERROR_OUT_OF_MEMORY" : e == 100 ? "CUDA_ERROR_NO_DEVICE" : "CUDA_ERROR_OTHER";
	return 0;
}

int cuGetErrorString(int e, const char **text)
{
	*text = e == 2 ? "out of memory" : e == 100 ? "no CUDA-capable device is detected" : "another error";
	return 0;
}

int cuDeviceGetCount(int *n)
{
	READY();
	*n = (int)setting("FAKE_CUDA_DEVICES", 1);
	return 0;
}

int cuDeviceGetName(char *name, int n, int device)
{
	READY();
	snprintf(name, (size_t)n, "fake device %d", device);
	return 0;
}

int cuDeviceGetAttribute(int *value, int attribute, int device)
{
	READY();
	if (told_attribute(attribute, value))
		return 0;
	*value = attribute == 16 ? 4 /* processors */ : sharing_attribute(attribute);
	return *value < 0 ? 1 : 0;
}

int cuDevicePrimaryCtxRetain(struct ctx **ctx, int device)
{
	READY();
	if (device < 0 || device >= setting("FAKE_CUDA_DEVICES", 1))
		return 101;
	*ctx = &contexts[device];
	return 0;
}

int cuCtxGetCurrent(struct ctx **ctx)
{
	READY();
	*ctx = current();
	return 0;
}

int cuCtxSetCurrent(struct ctx *ctx)
{
	READY();
	if (!depth)
		depth = 1;
	stack[depth - 1] = ctx;
	depth -= !ctx;
	return 0;
}

int cuCtxPushCurrent(struct ctx *ctx)
{
	READY();
	if (!ctx || depth == STACK)
		return BAD_CONTEXT;
	stack[depth++] = ctx;
	return 0;
}

int cuCtxPopCurrent(struct ctx **ctx)
{
	READY();
	if (!depth)
		return BAD_CONTEXT;
	*ctx = stack[--depth];
	return 0;
}

int cuCtxGetDevice(int *device)
{
	READY();
	if (!current())
		return BAD_CONTEXT;
	*device = current()->device;
	return 0;
}

/* ---- memory ---- */

static char *map(int fd, size_t n, int prot)
{
	void *p = mmap(NULL, n, prot, MAP_SHARED, fd, 0);

	if (p == MAP_FAILED)
		wrong("no memory");
	return p;
}

void link_range(const struct range *what)
{
	struct range *r = malloc(sizeof(*r));

	if (!r)
		wrong("no memory");
	*r = *what;
	pthread_mutex_lock(&fake.lock);
	r->next = fake.ranges;
	fake.ranges = r;
	pthread_mutex_unlock(&fake.lock);
}

/* With a page behind it, for those who share it. */
static int add_range(size_t n, int kind, int device, void **out)
{
	size_t whole = (n + PAGE - 1) / PAGE * PAGE;
	struct range r = { .n = n, .kind = kind, .device = device, .access = 1u << device };

	r.fd = memfd_create("fake device", MFD_CLOEXEC);
	if (r.fd < 0 || ftruncate(r.fd, (off_t)whole + PAGE))
		wrong("no memory");
	r.view = map(r.fd, whole + PAGE, PROT_READ | PROT_WRITE);
	r.at = kind == UNIFIED ? map(r.fd, whole + PAGE, PROT_NONE) : r.view;
	link_range(&r);
	*out = r.at;
	return 0;
}

/* Under the lock. */
static struct range *find_range(const void *p)
{
	struct range *r;

	for (r = fake.ranges; r; r = r->next)
		if ((const char *)p >= r->at && (size_t)((const char *)p - r->at) < r->n)
			break;
	return r;
}

bool look_up(const void *p, struct range *out)
{
	struct range *r;

	pthread_mutex_lock(&fake.lock);
	r = find_range(p);
	if (r)
		*out = *r;
	pthread_mutex_unlock(&fake.lock);
	return r != NULL;
}

bool overlaps(const void *p, size_t n)
{
	const char *at = p;
	bool any = false;

	pthread_mutex_lock(&fake.lock);
	for (struct range *r = fake.ranges; r; r = r->next)
		any |= at < r->at + r->n && r->at < at + n;
	pthread_mutex_unlock(&fake.lock);
	return any;
}

bool unlink_range(const void *p, int how, struct range *out)
{
	struct range **at, *r;

	pthread_mutex_lock(&fake.lock);
	for (at = &fake.ranges; *at && ((*at)->at != p || (*at)->how != how); at = &(*at)->next)
		;
	r = *at;
	if (r) {
		*out = *r;
		*at = r->next;
	}
	pthread_mutex_unlock(&fake.lock);
	free(r);
	return r != NULL;
}

static int remove_range(void *p, bool device)
{
	struct range r;
	size_t whole;

	if (!look_up(p, &r) || r.at != p || r.how != OURS || device != (r.kind != PINNED))
		return 1;
	check_openers(&r);
	if (!unlink_range(p, OURS, &r))
		return 1;
	if (r.kind == UNIFIED)
		discharge(r.device, r.n);
	whole = (r.n + PAGE - 1) / PAGE * PAGE + PAGE;
	munmap(r.view, whole);
	if (r.view != r.at)
		munmap(r.at, whole);
	close(r.fd);
	return 0;
}

static long room(void)
{
	return setting("FAKE_CUDA_MEMORY", 1l << 34);
}

bool charge(int device, size_t n)
{
	bool fits;

	pthread_mutex_lock(&fake.lock);
	fits = fake.used[device] + n <= (size_t)room();
	if (fits)
		fake.used[device] += n;
	pthread_mutex_unlock(&fake.lock);
	return fits;
}

void discharge(int device, size_t n)
{
	pthread_mutex_lock(&fake.lock);
	fake.used[device] -= n;
	pthread_mutex_unlock(&fake.lock);
}

int cuMemGetInfo(size_t *left, size_t *all)
{
	IN_CONTEXT();
	*all = (size_t)room();
	pthread_mutex_lock(&fake.lock);
	*left = *all - tt_min(*all, fake.used[current()->device]);
	pthread_mutex_unlock(&fake.lock);
	return 0;
}

int cuMemAlloc_v2(void **p, size_t n)
{
	int device;

	IN_CONTEXT();
	UNSAFE();
	check_near(false);
	device = current()->device;
	return !n ? 1 : !charge(device, n) ? 2 : add_range(n, UNIFIED, device, p);
}

int cuMemAllocManaged(void **p, size_t n, unsigned flags)
{
	IN_CONTEXT();
	UNSAFE();
	return add_range(n, MANAGED, current()->device, p);
}

int cuMemHostAlloc(void **p, size_t n, unsigned flags)
{
	IN_CONTEXT();
	UNSAFE();
	check_near(true);
	return add_range(n, PINNED, current()->device, p);
}

int cuCtxSynchronize(void)
{
	IN_CONTEXT();
	UNSAFE();
	wait_for_all();
	return 0;
}

int cuMemFree_v2(void *p)
{
	IN_CONTEXT();
	UNSAFE();
	wait_for_all();
	return remove_range(p, true);
}

int cuMemFreeHost(void *p)
{
	IN_CONTEXT();
	UNSAFE();
	wait_for_all();
	return remove_range(p, false);
}

int cuFakeFree(void *p)
{
	return remove_range(p, true);
}

int cuMemHostGetDevicePointer(void **out, void *p, unsigned flags)
{
	READY();
	*out = p;
	return 0;
}

void *cuFakeView(const void *p)
{
	char *view = (char *)p;
	struct range *r;

	pthread_mutex_lock(&fake.lock);
	r = find_range(p);
	if (r)
		view = r->view + ((const char *)p - r->at);
	pthread_mutex_unlock(&fake.lock);
	return view;
}

static int attribute(int which, void *out, const struct range *r, const void *p)
{
	switch (which) {
	case 1:
		*(void **)out = r && r->device >= 0 && r->how != MAPPED ? &contexts[r->device] : NULL;
		return 0;
	case 2:
		*(unsigned *)out = !r ? 0 : r->kind == PINNED ? 1 : 2;
		return 0;
	case 3:
		*(const void **)out = r ? p : NULL;
		return 0;
	case 8:
		*(unsigned *)out = r && r->kind == MANAGED;
		return 0;
	case 9:
		*(int *)out = r ? r->device : -2;
		return 0;
	default:
		return 1;
	}
}

int cuPointerGetAttributes(unsigned n, int *which, void **out, const void *p)
{
	const struct range *r;
	int e = 0;

	READY();
	pthread_mutex_lock(&fake.lock);
	r = find_range(p);
	for (unsigned i = 0; i < n && !e; i++)
		e = attribute(which[i], out[i], r, p);
	pthread_mutex_unlock(&fake.lock);
	return e;
}

/* What a device reaches under an address, at the time when it does. */
void *reach(const void *p, size_t n, int device)
{
	struct range *r;
	char *view;

	pthread_mutex_lock(&fake.lock);
	r = find_range(p);
	if (!r)
		wrong("the device touches memory that it does not reach: pageable, or freed");
	if (n > r->n - (size_t)((const char *)p - r->at))
		wrong("the device touches what is behind the end of its memory");
	if (r->kind == UNIFIED && !(r->access >> device & 1) && (r->how != OURS || !may_reach(device, r->device)))
		wrong("a device touches the memory of another");
	view = r->view + ((const char *)p - r->at);
	pthread_mutex_unlock(&fake.lock);
	return view;
}

bool is_pinned(const void *p)
{
	struct range *r;

	pthread_mutex_lock(&fake.lock);
	r = find_range(p);
	pthread_mutex_unlock(&fake.lock);
	return r && r->kind == PINNED && (uintptr_t)p % 4 == 0;
}

/* ---- the way to the functions ---- */

#define FUNCTION(name, version, fn) { #name, version, (void (*)(void))fn }
static const struct {
	const char *name;
	int version;
	void (*fn)(void);
} functions[] = {
	FUNCTION(cuInit, 2000, cuInit), FUNCTION(cuDriverGetVersion, 2020, cuDriverGetVersion),
	FUNCTION(cuGetErrorName, 6000, cuGetErrorName), FUNCTION(cuGetErrorString, 6000, cuGetErrorString),
	FUNCTION(cuDeviceGetCount, 2000, cuDeviceGetCount), FUNCTION(cuDeviceGetName, 2000, cuDeviceGetName),
	FUNCTION(cuDeviceGetAttribute, 2000, cuDeviceGetAttribute),
	FUNCTION(cuDevicePrimaryCtxRetain, 7000, cuDevicePrimaryCtxRetain),
	FUNCTION(cuCtxGetCurrent, 4000, cuCtxGetCurrent), FUNCTION(cuCtxPushCurrent, 4000, cuCtxPushCurrent),
	FUNCTION(cuCtxPopCurrent, 4000, cuCtxPopCurrent), FUNCTION(cuCtxGetDevice, 2000, cuCtxGetDevice),
	FUNCTION(cuThreadExchangeStreamCaptureMode, 10010, cuThreadExchangeStreamCaptureMode),
	FUNCTION(cuMemGetInfo, 3020, cuMemGetInfo), FUNCTION(cuMemAlloc, 3020, cuMemAlloc_v2),
	FUNCTION(cuMemFree, 3020, cuMemFree_v2), FUNCTION(cuMemHostAlloc, 2020, cuMemHostAlloc),
	FUNCTION(cuMemFreeHost, 2000, cuMemFreeHost),
	FUNCTION(cuMemHostGetDevicePointer, 3020, cuMemHostGetDevicePointer),
	FUNCTION(cuPointerGetAttributes, 7000, cuPointerGetAttributes),
	/* fake_rdma.c */
	FUNCTION(cuPointerSetAttribute, 6000, cuPointerSetAttribute),
	FUNCTION(cuMemGetHandleForAddressRange, 11070, cuMemGetHandleForAddressRange),
	FUNCTION(cuStreamGetCtx, 9020, cuStreamGetCtx), FUNCTION(cuStreamIsCapturing, 10000, cuStreamIsCapturing),
	FUNCTION(cuMemcpyAsync, 4000, cuMemcpyAsync), FUNCTION(cuStreamWaitValue32, 11070, cuStreamWaitValue32),
	FUNCTION(cuStreamWriteValue32, 11070, cuStreamWriteValue32),
	FUNCTION(cuEventCreate, 2000, cuEventCreate), FUNCTION(cuEventDestroy, 4000, cuEventDestroy_v2),
	FUNCTION(cuEventRecord, 2000, cuEventRecord), FUNCTION(cuStreamWaitEvent, 3020, cuStreamWaitEvent),
	FUNCTION(cuEventQuery, 2000, cuEventQuery), FUNCTION(cuEventSynchronize, 2000, cuEventSynchronize),
	FUNCTION(cuLaunchHostFunc, 10000, cuLaunchHostFunc), FUNCTION(cuLaunchKernel, 4000, cuLaunchKernel),
	FUNCTION(cuLibraryLoadData, 12000, cuLibraryLoadData),
	FUNCTION(cuLibraryGetKernel, 12000, cuLibraryGetKernel),
	FUNCTION(cuKernelGetFunction, 12000, cuKernelGetFunction), FUNCTION(cuFuncLoad, 12040, cuFuncLoad),
	FUNCTION(cuCtxSetCurrent, 4000, cuCtxSetCurrent), FUNCTION(cuMemAllocManaged, 6000, cuMemAllocManaged),
	FUNCTION(cuStreamCreate, 2000, cuStreamCreate), FUNCTION(cuStreamDestroy, 4000, cuStreamDestroy_v2),
	FUNCTION(cuStreamQuery, 2000, cuStreamQuery), FUNCTION(cuStreamSynchronize, 2000, cuStreamSynchronize),
	FUNCTION(cuStreamCreateWithPriority, 5050, cuStreamCreateWithPriority),
	FUNCTION(cuCtxSynchronize, 2000, cuCtxSynchronize),
	/* fake_ipc.c */
	FUNCTION(cuDeviceGetUuid, 11040, cuDeviceGetUuid_v2),
	FUNCTION(cuDeviceGetPCIBusId, 4010, cuDeviceGetPCIBusId),
	FUNCTION(cuDeviceCanAccessPeer, 4000, cuDeviceCanAccessPeer),
	FUNCTION(cuDeviceGetP2PAttribute, 8000, cuDeviceGetP2PAttribute),
	FUNCTION(cuCtxEnablePeerAccess, 4000, cuCtxEnablePeerAccess),
	FUNCTION(cuMemHostRegister, 6050, cuMemHostRegister_v2),
	FUNCTION(cuMemHostUnregister, 4000, cuMemHostUnregister),
	FUNCTION(cuIpcGetMemHandle, 4010, cuIpcGetMemHandle),
	FUNCTION(cuIpcOpenMemHandle, 11000, cuIpcOpenMemHandle_v2),
	FUNCTION(cuIpcCloseMemHandle, 4010, cuIpcCloseMemHandle),
	FUNCTION(cuMemGetAllocationGranularity, 10020, cuMemGetAllocationGranularity),
	FUNCTION(cuMemCreate, 10020, cuMemCreate), FUNCTION(cuMemRelease, 10020, cuMemRelease),
	FUNCTION(cuMemExportToShareableHandle, 10020, cuMemExportToShareableHandle),
	FUNCTION(cuMemImportFromShareableHandle, 10020, cuMemImportFromShareableHandle),
	FUNCTION(cuMemAddressReserve, 10020, cuMemAddressReserve),
	FUNCTION(cuMemAddressFree, 10020, cuMemAddressFree), FUNCTION(cuMemMap, 10020, cuMemMap),
	FUNCTION(cuMemUnmap, 10020, cuMemUnmap), FUNCTION(cuMemSetAccess, 10020, cuMemSetAccess),
	FUNCTION(cuOccupancyMaxActiveBlocksPerMultiprocessor, 6050, cuOccupancyMaxActiveBlocksPerMultiprocessor),
	FUNCTION(cuLaunchCooperativeKernel, 9000, cuLaunchCooperativeKernel),
	/* fake_graph.c */
	FUNCTION(cuStreamBeginCapture, 10010, cuStreamBeginCapture_v2),
	FUNCTION(cuStreamEndCapture, 10000, cuStreamEndCapture),
	FUNCTION(cuStreamGetCaptureInfo, 10010, cuStreamGetCaptureInfo),
	FUNCTION(cuGraphInstantiateWithFlags, 11040, cuGraphInstantiateWithFlags),
	FUNCTION(cuGraphLaunch, 10000, cuGraphLaunch), FUNCTION(cuGraphExecDestroy, 10000, cuGraphExecDestroy),
	FUNCTION(cuGraphDestroy, 10000, cuGraphDestroy), FUNCTION(cuGraphGetNodes, 10000, cuGraphGetNodes),
	FUNCTION(cuMemsetD8Async, 3020, cuMemsetD8Async),
};

int cuGetProcAddress(const char *name, void **fn, int version, uint64_t flags)
{
	const char *missing = getenv("FAKE_CUDA_MISSING"), *hang = getenv("FAKE_CUDA_HANG");
	void (*never)(void) = (void (*)(void))fake_never;

	*fn = NULL;
	if (setting("FAKE_CUDA_STUB", 0))
		return STUB;
	if (version > setting("FAKE_CUDA_VERSION", 13000))
		return 1;
	if (flags != 1)
		wrong("functions with another default stream");
	for (size_t i = 0; i < sizeof(functions) / sizeof(functions[0]); i++)
		if (!strcmp(functions[i].name, name) && functions[i].version == version &&
		    !(missing && !strcmp(name, missing)))
			memcpy(fn, hang && !strcmp(name, hang) ? &never : &functions[i].fn, sizeof(*fn));
	return 0;
}

#ifndef FAKE_CUDA_11
int cuGetProcAddress_v2(const char *name, void **fn, int version, uint64_t flags, int *status)
{
	int e = cuGetProcAddress(name, fn, version, flags);

	*status = !*fn;
	return e;
}
#endif
