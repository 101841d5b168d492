/* CUDA devices as a kind of memory: everything is enqueued on the user's stream by the thread that calls, in the
 * context of the stream. Words that streams wait for are pinned host memory. SPDX-License-Identifier: Apache-2.0 */
#include "cuda_mem.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cuda_code.h"
#include "cuda_dev.h"
#include "cuda_lib.h"
#include "cuda_rdma.h"
#include "cuda_share.h"

enum { MAX_PLACES = 64, MAX_DEVICES = 64 };

/* A context in which calls have run. */
struct place {
	void *ctx;
	int device, sms;
	int node; /* NUMA, of the host; -1: not known */
};

/* What an operation had as temporaries, for the next one: the driver's own release waits for all streams of the
 * device, some of which may wait for the very thread that releases. */
struct block {
	struct block *next;
	void *p;
	size_t n;
	const struct place *where; /* NULL: pinned */
	int node;                  /* pinned: asked for there */
	bool used;
};

static struct {
	pthread_mutex_t lock;
	const struct tt_cuda *f; /* set before the kind is added */
	struct place places[MAX_PLACES];
	int nplaces;
	void *primary[MAX_DEVICES];
	struct block *blocks;
} cuda = { .lock = PTHREAD_MUTEX_INITIALIZER };

static _Thread_local const struct place *here; /* between enter and leave */

static tuttiResult_t failed(int e, const char *what)
{
	char words[TT_TEXT / 4];

	return tt_fail(tuttiUnhandledCudaError, "%s: %s", what, tt_cuda_words(e, words, sizeof(words)));
}

#define CUDA_TRY(call)                                                                             \
	do {                                                                                       \
		int try_e = cuda.f->call;                                                          \
		if (try_e)                                                                         \
			return failed(try_e, #call);                                               \
	} while (0)

/* What the library does besides is no part of a capture that another thread may have under way; again: as it was. */
static void swap_capture_mode(int *mode)
{
	(void)cuda.f->cuThreadExchangeStreamCaptureMode(mode);
}

/* ---- pointers ---- */

enum where { NOWHERE, ON_HOST, PINNED, ON_DEVICE, MANAGED };

struct facts {
	enum where where;
	int device;
	tt_cuda_ptr device_pointer;
	void *ctx;
};

/* A call that reads eight bytes and then objects to its first argument. */
static bool readable(const void *p)
{
	const void *at = (const void *)((uintptr_t)p & ~(uintptr_t)7);

	return !(syscall(SYS_rt_sigprocmask, -1, at, NULL, 8) && errno == EFAULT);
}

static struct facts facts_of(const void *p)
{
	int attributes[] = { TT_CUDA_PTR_TYPE, TT_CUDA_PTR_MANAGED, TT_CUDA_PTR_ORDINAL, TT_CUDA_PTR_DEVICE_POINTER,
			     TT_CUDA_PTR_CONTEXT };
	struct facts f = { .device = -1 };
	unsigned type = 0, managed = 0;
	void *out[] = { &type, &managed, &f.device, &f.device_pointer, &f.ctx };

	if (cuda.f->cuPointerGetAttributes(5, attributes, out, (tt_cuda_ptr)p))
		type = managed = 0; /* CUDA is no help here: before its first call, or after a fork */
	if (managed)
		f.where = MANAGED;
	else if (type == TT_CUDA_TYPE_DEVICE)
		f.where = ON_DEVICE;
	else if (type == TT_CUDA_TYPE_HOST)
		f.where = PINNED;
	else
		f.where = readable(p) ? ON_HOST : NOWHERE;
	return f;
}

/* What nobody can read was freed, most likely from a device: place() refuses it, before the host touches it. */
static bool query(const void *p)
{
	enum where w = facts_of(p).where;

	return w != ON_HOST && w != PINNED;
}

/* Pinned memory may have another address on the device, where a program has registered it. */
static bool is_far(const struct facts *f, const void *p)
{
	return p && (f->where == ON_HOST || (f->where == PINNED && f->device_pointer != (tt_cuda_ptr)p));
}

/* ---- contexts and streams ---- */

static bool current(void)
{
	void *ctx = NULL;

	return !cuda.f->cuCtxGetCurrent(&ctx) && ctx;
}

/* 0, 1 and 2 are the default streams of the current context, or of the calling thread there. */
static bool is_special(tuttiStream_t queue)
{
	return (uintptr_t)queue <= 2;
}

static bool is_queue(tuttiStream_t queue)
{
	void *ctx;

	return is_special(queue) || !cuda.f->cuStreamGetCtx(queue, &ctx);
}

static struct place *find_place(void *ctx)
{
	for (int i = 0; i < cuda.nplaces; i++)
		if (cuda.places[i].ctx == ctx)
			return &cuda.places[i];
	return NULL;
}

/* In the context, which is current. A context's address may come back for another device. */
static tuttiResult_t learn_place(void *ctx, struct place **out)
{
	struct place *p = find_place(ctx);
	int device;

	CUDA_TRY(cuCtxGetDevice(&device));
	if (p && p->device == device) {
		*out = p;
		return tuttiSuccess;
	}
	if (!p && cuda.nplaces == MAX_PLACES)
		return tt_fail(tuttiUnsupported, "calls came from more than %d CUDA contexts", MAX_PLACES);
	if (!p)
		p = &cuda.places[cuda.nplaces];
	*p = (struct place){ .ctx = ctx, .device = device, .sms = 64, .node = -1 };
	(void)cuda.f->cuDeviceGetAttribute(&p->sms, TT_CUDA_ATTR_SMS, device);
	if (cuda.f->cuDeviceGetAttribute(&p->node, TT_CUDA_ATTR_HOST_NODE, device))
		p->node = -1; /* drivers before CUDA 12.2 do not know */
	cuda.nplaces += p == &cuda.places[cuda.nplaces];
	tt_cuda_code_load(device);
	tt_cuda_dev_load(device);
	*out = p;
	return tuttiSuccess;
}

static tuttiResult_t place_of(void *ctx, struct place **out)
{
	int mode = TT_CUDA_CAPTURE_RELAXED;
	tuttiResult_t r;

	CUDA_TRY(cuCtxPushCurrent(ctx));
	swap_capture_mode(&mode);
	pthread_mutex_lock(&cuda.lock);
	r = learn_place(ctx, out);
	pthread_mutex_unlock(&cuda.lock);
	swap_capture_mode(&mode);
	cuda.f->cuCtxPopCurrent(&ctx);
	return r;
}

/* The context that the runtime uses: for whoever calls with none, or with that of another device. */
static tuttiResult_t primary_of(int device, struct place **out)
{
	int e = 0;

	if (device >= MAX_DEVICES)
		return tt_fail(tuttiUnsupported, "device %d: at most %d devices", device, MAX_DEVICES);
	pthread_mutex_lock(&cuda.lock);
	if (!cuda.primary[device])
		e = cuda.f->cuDevicePrimaryCtxRetain(&cuda.primary[device], device);
	pthread_mutex_unlock(&cuda.lock);
	return e ? failed(e, "cuDevicePrimaryCtxRetain") : place_of(cuda.primary[device], out);
}

/* device -1: no buffer tells. A thread that has set no device works on the first, as in CUDA's runtime. */
static tuttiResult_t default_place(int device, struct place **out)
{
	void *ctx = NULL;

	CUDA_TRY(cuCtxGetCurrent(&ctx));
	if (ctx)
		TRY(place_of(ctx, out));
	if (ctx && (device < 0 || (*out)->device == device))
		return tuttiSuccess;
	return primary_of(device >= 0 ? device : 0, out);
}

/* A driver's number of a capture may be 0. */
static tuttiResult_t look_capture(const char *call, tuttiStream_t queue, uint64_t *capture)
{
	uint64_t id = 0;
	int status = 0, e = cuda.f->cuStreamGetCaptureInfo(queue, &status, &id);

	if (e == TT_CUDA_CAPTURE_IMPLICIT)
		return tt_fail(tuttiInvalidUsage, "%s: the default stream is of no use while a stream is captured that "
			       "waits for it; make that one with the flag NonBlocking", call);
	if (e)
		return failed(e, "cuStreamGetCaptureInfo");
	*capture = status == TT_CUDA_CAPTURE_ACTIVE ? id + 1 :
		   status == TT_CUDA_CAPTURE_INVALIDATED ? TT_MEM_CAPTURE_BROKEN : 0;
	return tuttiSuccess;
}

static tuttiResult_t check_buffer(const char *call, const char *name, const struct facts *f, const void *p)
{
	if (f->where == NOWHERE && p)
		return tt_fail(tuttiInvalidArgument, "%s: %s, %p, is neither memory of a device nor of the host: it "
			       "was freed, or belongs to another process", call, name, p);
	return tuttiSuccess;
}

static tuttiResult_t check_devices(const char *call, int in, int out)
{
	if (in >= 0 && out >= 0 && in != out)
		return tt_fail(tuttiInvalidArgument, "%s: sendbuff is on device %d and recvbuff on device %d; both "
			       "must be on one", call, in, out);
	return tuttiSuccess;
}

static tuttiResult_t enter(void *where)
{
	struct place *p = where;

	CUDA_TRY(cuCtxPushCurrent(p->ctx));
	here = p;
	return tuttiSuccess;
}

static void leave(void)
{
	void *ctx;

	cuda.f->cuCtxPopCurrent(&ctx);
	here = NULL;
}

/* `bound`: the device that this rank was made for. */
static tuttiResult_t check_bound(const char *call, int bound, int device, const char *what)
{
	if (bound >= 0 && device >= 0 && device != bound)
		return tt_fail(tuttiInvalidArgument, "%s: the %s on device %d, and this rank was made for device %d "
			       "(config.device)", call, what, device, bound);
	return tuttiSuccess;
}

static tuttiResult_t check_stream(const char *call, tuttiStream_t queue, int device, struct place *p,
				  uint64_t *capture)
{
	tuttiResult_t r;

	if (device >= 0 && device != p->device)
		return tt_fail(tuttiInvalidArgument, "%s: the buffers are on device %d, the stream on device %d; give "
			       "it a stream of the buffers' device", call, device, p->device);
	TRY(enter(p));
	r = look_capture(call, queue, capture);
	leave();
	return r;
}

/* 0 and 1 are one stream of a context, 2 one of each thread. */
static const void *line_of(tuttiStream_t queue, const struct place *p)
{
	return !is_special(queue) ? (const void *)queue : (uintptr_t)queue < 2 ? p->ctx : NULL;
}

static tuttiResult_t place(const char *call, tuttiStream_t queue, const void *in, const void *out,
			   struct tt_mem_place *at)
{
	struct facts f[2] = { { .device = -1 }, { .device = -1 } };
	int device[2], on, bound = at->device;
	struct place *p = NULL;
	void *ctx;

	if (in)
		f[0] = facts_of(in);
	if (out)
		f[1] = facts_of(out);
	TRY(check_buffer(call, "sendbuff", &f[0], in));
	TRY(check_buffer(call, "recvbuff", &f[1], out));
	for (int i = 0; i < 2; i++)
		device[i] = f[i].where == ON_DEVICE ? f[i].device : -1;
	TRY(check_devices(call, device[0], device[1]));
	on = device[0] >= 0 ? device[0] : device[1];
	TRY(check_bound(call, bound, on, "buffers are"));
	if (is_special(queue)) {
		if (on < 0 && bound >= 0)
			on = bound;
		if (on < 0) /* managed: the device that it was made on, where none is current */
			on = current() ? -1 : f[0].where == MANAGED ? f[0].device : f[1].device;
		TRY(default_place(on, &p));
	} else {
		CUDA_TRY(cuStreamGetCtx(queue, &ctx));
		TRY(place_of(ctx, &p));
	}
	TRY(check_bound(call, bound, p->device, "stream is"));
	*at = (struct tt_mem_place){ bound, p, line_of(queue, p), is_far(&f[0], in), is_far(&f[1], out), 0 };
	return check_stream(call, queue, on, p, &at->capture);
}

/* ---- memory ---- */

/* Where slots should be: half the way to a NIC of that node as well. */
static int node_here(void)
{
	return here ? here->node : -1;
}

static int alloc_now(size_t n, bool pinned, void **p)
{
	tt_cuda_ptr at = 0;
	bool near;
	int e;

	if (pinned) {
		near = tt_mem_near_begin(node_here());
		e = cuda.f->cuMemHostAlloc(p, n, TT_CUDA_HOST_PORTABLE | TT_CUDA_HOST_DEVICEMAP);
		tt_mem_near_end(near);
	} else {
		e = cuda.f->cuMemAlloc(&at, n);
		*p = (void *)at;
	}
	return e;
}

static tuttiResult_t no_memory(int e, size_t n, bool pinned)
{
	char words[TT_TEXT / 4];
	size_t left = 0, all = 0;
	int device = -1;

	(void)cuda.f->cuCtxGetDevice(&device);
	(void)cuda.f->cuMemGetInfo(&left, &all);
	tt_cuda_words(e, words, sizeof(words));
	if (pinned)
		return tt_fail(tuttiSystemError, "no %zu bytes of pinned host memory: %s; see ulimit -l and the "
			       "container's limits", n, words);
	return tt_fail(tuttiSystemError, "no %zu bytes on device %d: %s; %zu of %zu MiB are free there: use smaller "
		       "buffers, or leave tutti some", n, device, words, left >> 20, all >> 20);
}

/* Waits for the streams of the device. ctx NULL: the current one will do. */
static void free_now(void *p, void *ctx, bool pinned)
{
	if (ctx && cuda.f->cuCtxPushCurrent(ctx))
		return; /* the context is gone, and its memory with it */
	if (pinned)
		(void)cuda.f->cuMemFreeHost(p);
	else
		(void)cuda.f->cuMemFree((tt_cuda_ptr)p);
	if (ctx)
		(void)cuda.f->cuCtxPopCurrent(&ctx);
}

/* Streams and host know pinned memory by one address, as unified addressing has it. */
static bool same_address(void *p)
{
	tt_cuda_ptr at = 0;

	return !cuda.f->cuMemHostGetDevicePointer(&at, p, 0) && at == (tt_cuda_ptr)p;
}

static tuttiResult_t alloc_new(size_t n, bool pinned, void **p)
{
	int e = alloc_now(n, pinned, p);

	if (e)
		return no_memory(e, n, pinned);
	if (!pinned || same_address(*p))
		return tuttiSuccess;
	free_now(*p, NULL, true);
	return tt_fail(tuttiUnsupported, "pinned memory has another address on the device: no unified addressing here");
}

static struct block *find_block(const struct place *where, int node, size_t n)
{
	struct block *best = NULL;

	for (struct block *b = cuda.blocks; b; b = b->next)
		if (!b->used && b->where == where && b->node == node && b->n >= n && b->n / 2 <= n &&
		    (!best || b->n < best->n))
			best = b;
	if (best)
		best->used = true;
	return best;
}

static tuttiResult_t alloc_kept(size_t n, const struct place *where, void **p)
{
	int node = where ? -1 : node_here();
	struct block *b;
	tuttiResult_t r;

	pthread_mutex_lock(&cuda.lock);
	b = find_block(where, node, n);
	pthread_mutex_unlock(&cuda.lock);
	if (b) {
		*p = b->p;
		return tuttiSuccess;
	}
	b = malloc(sizeof(*b));
	if (!b)
		return tt_fail(tuttiSystemError, "no memory");
	r = alloc_new(n, !where, p);
	if (r != tuttiSuccess) {
		free(b);
		return r;
	}
	pthread_mutex_lock(&cuda.lock);
	*b = (struct block){ .next = cuda.blocks, .p = *p, .n = n, .where = where, .node = node,
			     .used = true };
	cuda.blocks = b;
	pthread_mutex_unlock(&cuda.lock);
	return tuttiSuccess;
}

/* By VMM where there is such. */
static tuttiResult_t alloc_users(size_t n, void **p)
{
	return tt_cuda_share_alloc(n, p) ? tuttiSuccess : alloc_new(n, false, p);
}

static tuttiResult_t alloc(size_t n, enum tt_mem_use use, void **p)
{
	int mode = TT_CUDA_CAPTURE_RELAXED;
	tuttiResult_t r;

	swap_capture_mode(&mode);
	r = use == TT_MEM_USERS ? alloc_users(n, p) : alloc_kept(n, use == TT_MEM_PINNED ? NULL : here, p);
	swap_capture_mode(&mode);
	return r;
}

static void free_users(void *p)
{
	int mode = TT_CUDA_CAPTURE_RELAXED;

	swap_capture_mode(&mode);
	if (!tt_cuda_share_free(p))
		free_now(p, facts_of(p).ctx, false);
	swap_capture_mode(&mode);
}

static void release(void *p, size_t n, enum tt_mem_use use)
{
	if (use == TT_MEM_USERS) {
		free_users(p);
		return;
	}
	pthread_mutex_lock(&cuda.lock);
	for (struct block *b = cuda.blocks; b; b = b->next)
		if (b->p == p)
			b->used = false;
	pthread_mutex_unlock(&cuda.lock);
}

static struct block *take_unused(void)
{
	struct block **at, *b;

	pthread_mutex_lock(&cuda.lock);
	for (at = &cuda.blocks; *at && (*at)->used; at = &(*at)->next)
		;
	b = *at;
	if (b)
		*at = b->next;
	pthread_mutex_unlock(&cuda.lock);
	return b;
}

static void trim(void)
{
	int mode = TT_CUDA_CAPTURE_RELAXED;

	swap_capture_mode(&mode);
	for (struct block *b = take_unused(); b; b = take_unused()) {
		free_now(b->p, b->where ? b->where->ctx : facts_of(b->p).ctx, !b->where);
		free(b);
	}
	tt_cuda_share_trim();
	swap_capture_mode(&mode);
}

/* ---- enqueueing ---- */

static tuttiResult_t copy(tuttiStream_t queue, void *dst, const void *src, size_t n)
{
	CUDA_TRY(cuMemcpyAsync((tt_cuda_ptr)dst, (tt_cuda_ptr)src, n, queue));
	return tuttiSuccess;
}

struct host_copy {
	void *dst;
	const void *src;
	size_t n;
};

static void copy_then(void *arg)
{
	struct host_copy *c = arg;

	memcpy(c->dst, c->src, c->n);
	free(c);
}

/* The driver's copy of pageable memory would keep the caller until the stream has come to it. */
static tuttiResult_t copy_host(tuttiStream_t queue, void *dst, const void *src, size_t n)
{
	struct host_copy *c = malloc(sizeof(*c));
	int e;

	if (!c)
		return tt_fail(tuttiSystemError, "no memory");
	*c = (struct host_copy){ dst, src, n };
	e = cuda.f->cuLaunchHostFunc(queue, copy_then, c);
	if (!e)
		return tuttiSuccess;
	free(c);
	return failed(e, "cuLaunchHostFunc");
}

static tuttiResult_t reduce(tuttiStream_t queue, void *dst, const void *const *src, int nsrc, size_t count,
			    tuttiDataType_t type, const struct tt_op *op, enum tt_scale scale)
{
	int e;

	if (nsrc > TT_CUDA_SRCS)
		return tt_fail(tuttiUnsupported, "a reduction of %d sources at once; kernels take %d", nsrc,
			       TT_CUDA_SRCS);
	if (nsrc == 1 && scale == TT_SCALE_NONE)
		return dst == src[0] ? tuttiSuccess : copy(queue, dst, src[0], count * tt_type_size(type));
	e = tt_cuda_code_run(queue, here->sms, dst, src, nsrc, count, type, op, scale);
	return e ? failed(e, "cuLaunchKernel") : tuttiSuccess;
}

static tuttiResult_t stream_wait(tuttiStream_t queue, const _Atomic uint32_t *word, uint32_t value)
{
	CUDA_TRY(cuStreamWaitValue32(queue, (tt_cuda_ptr)word, value, TT_CUDA_WAIT_GEQ));
	return tuttiSuccess;
}

static tuttiResult_t stream_signal(tuttiStream_t queue, _Atomic uint32_t *word, uint32_t value)
{
	CUDA_TRY(cuStreamWriteValue32(queue, (tt_cuda_ptr)word, value, 0));
	return tuttiSuccess;
}

static tuttiResult_t this_place(int device, void **where)
{
	struct place *p;

	TRY(default_place(device, &p));
	*where = p;
	return tuttiSuccess;
}

/* ---- all ranks at once ---- */

static tuttiResult_t event_new(void **event)
{
	int mode = TT_CUDA_CAPTURE_RELAXED, e;

	swap_capture_mode(&mode);
	e = cuda.f->cuEventCreate(event, TT_CUDA_EVENT_NO_TIMING);
	swap_capture_mode(&mode);
	return e ? failed(e, "cuEventCreate") : tuttiSuccess;
}

static void event_free(void *event)
{
	(void)cuda.f->cuEventDestroy(event);
}

static tuttiResult_t event_record(tuttiStream_t queue, void *event)
{
	CUDA_TRY(cuEventRecord(event, queue));
	return tuttiSuccess;
}

static tuttiResult_t event_wait(tuttiStream_t queue, void *event)
{
	CUDA_TRY(cuStreamWaitEvent(queue, event, 0));
	return tuttiSuccess;
}

static tuttiResult_t run_all(tuttiStream_t queue, const struct tt_mem_all *all)
{
	int e = tt_cuda_code_run_all(queue, here->sms, all);

	return e ? failed(e, "cuLaunchKernel") : tuttiSuccess;
}

static int copy_apart(void *stream, void *dst, const void *src, size_t n)
{
	int e = cuda.f->cuMemcpyAsync((tt_cuda_ptr)dst, (tt_cuda_ptr)src, n, stream);

	return e ? e : cuda.f->cuStreamSynchronize(stream);
}

static tuttiResult_t copy_now(void *dst, const void *src, size_t n)
{
	int mode = TT_CUDA_CAPTURE_RELAXED, e;
	void *stream;

	if (!cuda.f->shares) /* or some of what follows is missing */
		return tt_note_error(tuttiUnsupported, "an old driver");
	swap_capture_mode(&mode);
	e = cuda.f->cuStreamCreateWithPriority(&stream, TT_CUDA_NON_BLOCKING, 0);
	if (!e) {
		e = copy_apart(stream, dst, src, n);
		(void)cuda.f->cuStreamDestroy(stream);
	}
	swap_capture_mode(&mode);
	return e ? failed(e, "a copy beside a capture") : tuttiSuccess;
}

static tuttiResult_t grid(tuttiStream_t queue, const struct tt_dev_launch *launch, uint32_t blocks)
{
	return tt_cuda_dev_run(queue, here->sms, launch, blocks);
}

static const struct tt_mem_kind kind = {
	.size = sizeof(kind), .name = "cuda", .query = query, .current = current, .is_queue = is_queue, .alloc = alloc,
	.release = release, .trim = trim, .copy = copy, .reduce = reduce, .stream_wait = stream_wait,
	.stream_signal = stream_signal, .place = place, .enter = enter, .leave = leave, .copy_host = copy_host,
	.reduces = tt_cuda_code_has, .here = this_place, .sharing = &tt_cuda_sharing, .event_new = event_new,
	.event_free = event_free, .event_record = event_record, .event_wait = event_wait, .run_all = run_all,
	.copy_now = copy_now, .grid = grid, .rdma = &tt_cuda_rdma,
};

/* ---- whether there is any ---- */

static const struct tt_cuda *begin(bool in_use)
{
	const struct tt_cuda *f = tt_cuda_open(in_use);
	int mode = TT_CUDA_CAPTURE_RELAXED;

	pthread_mutex_lock(&cuda.lock);
	if (f && !cuda.f) {
		cuda.f = f;
		swap_capture_mode(&mode);
		tt_cuda_code_open(f);
		tt_cuda_share_open(f);
		tt_cuda_dev_open(f);
		tt_cuda_rdma_open(f);
		swap_capture_mode(&mode);
		tt_log(TT_LOG_INFO, "cuda", "CUDA %d.%d, %d device%s, %s", f->version / 1000, f->version % 1000 / 10,
		       f->devices, f->devices == 1 ? "" : "s", tt_cuda_code_words());
	}
	pthread_mutex_unlock(&cuda.lock);
	return f;
}

void tt_cuda_look(void)
{
	if (begin(true))
		tt_mem_add(&kind);
}

tuttiResult_t tt_cuda_home(int wanted, int *device)
{
	struct place *p;

	if (wanted == TUTTI_UNDEF_INT) {
		if (begin(true) && current())
			(void)cuda.f->cuCtxGetDevice(device);
		return tuttiSuccess;
	}
	if (!begin(false))
		return tt_fail(tuttiInvalidArgument, "device %d is asked for, but CUDA is off: %s", wanted,
			       tt_cuda_why());
	if (wanted < 0 || wanted >= cuda.f->devices)
		return tt_fail(tuttiInvalidArgument, "device %d is asked for; here are %d, counted from 0, or -1 for "
			       "none", wanted, cuda.f->devices);
	tt_mem_add(&kind);
	*device = wanted;
	return primary_of(wanted, &p);
}

bool tt_cuda_describe(char *out, size_t n)
{
	char name[128] = "";

	if (!begin(false)) {
		snprintf(out, n, "off: %s", tt_cuda_why());
		return false;
	}
	(void)cuda.f->cuDeviceGetName(name, sizeof(name), 0);
	snprintf(out, n, "on: the driver's CUDA %d.%d, %d device%s (the first: %s), %s", cuda.f->version / 1000,
		 cuda.f->version % 1000 / 10, cuda.f->devices, cuda.f->devices == 1 ? "" : "s", name,
		 tt_cuda_code_words());
	return true;
}
