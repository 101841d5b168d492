/* Memory of CUDA devices that ranks of one host share: made by VMM and passed by descriptor, so that it lives as long
 * as anybody has it mapped, whoever dies; where a driver refuses that, by the older handles of cuMemAlloc's memory.
 * SPDX-License-Identifier: Apache-2.0 */
#include "cuda_share.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "cuda_code.h"
#include "cuda_dev.h"

enum { MAX_DEVICES = 64 };

static const struct tt_cuda *cuda;

void tt_cuda_share_open(const struct tt_cuda *f)
{
	cuda = f;
}

/* Said by whoever knows what is done instead. */
static tuttiResult_t failed(int e, const char *what)
{
	char words[TT_TEXT / 4];

	return tt_note_error(tuttiUnhandledCudaError, "%s: %s", what, tt_cuda_words(e, words, sizeof(words)));
}

#define CUDA_TRY(call)                                                                             \
	do {                                                                                       \
		int try_e = cuda->call;                                                            \
		if (try_e)                                                                         \
			return failed(try_e, #call);                                               \
	} while (0)

static bool has(int attribute, int device)
{
	int value = 0;

	return !cuda->cuDeviceGetAttribute(&value, attribute, device) && value;
}

static tuttiResult_t device(struct tt_mem_device *out)
{
	int here;

	memset(out, 0, sizeof(*out));
	if (!cuda->shares)
		return tt_note_error(tuttiUnsupported, "the driver, CUDA %d.%d, cannot share memory of devices",
				     cuda->version / 1000, cuda->version % 1000 / 10);
	CUDA_TRY(cuCtxGetDevice(&here));
	CUDA_TRY(cuDeviceGetUuid(out->uuid, here));
	CUDA_TRY(cuDeviceGetPCIBusId(out->words, sizeof(out->words) - 1, here));
	for (int t = 0; t < tuttiNumTypes; t++)
		out->types |= (uint32_t)tt_cuda_code_has((tuttiDataType_t)t) << t;
	out->blocks = tt_cuda_dev_room(here);
	return tuttiSuccess;
}

/* -1: not visible to this process. */
static int find_device(const uint8_t uuid[16])
{
	uint8_t other[16];

	for (int i = 0; i < cuda->devices; i++)
		if (!cuda->cuDeviceGetUuid(other, i) && !memcmp(uuid, other, sizeof(other)))
			return i;
	return -1;
}

/* What this process does not see may still be in reach: opening its memory tells. */
static bool reaches(const uint8_t uuid[16])
{
	int here, there = find_device(uuid), can = 0;

	if (cuda->cuCtxGetDevice(&here))
		return false;
	return there < 0 || there == here || (!cuda->cuDeviceCanAccessPeer(&can, here, there) && can);
}

/* ---- by descriptor ---- */

/* Those that the memory of this one is in reach of, itself the first. */
static size_t reach_of(int here, bool all, struct tt_cuda_access *access)
{
	size_t n = 0;
	int can;

	access[n++] = (struct tt_cuda_access){ { TT_CUDA_DEVICE, here }, TT_CUDA_READ_WRITE };
	for (int i = 0; all && i < cuda->devices && n < MAX_DEVICES; i++)
		if (i != here && !cuda->cuDeviceCanAccessPeer(&can, i, here) && can)
			access[n++] = (struct tt_cuda_access){ { TT_CUDA_DEVICE, i }, TT_CUDA_READ_WRITE };
	return n;
}

static tuttiResult_t map(tt_cuda_handle h, size_t n, bool all, tt_cuda_ptr *p)
{
	struct tt_cuda_access access[MAX_DEVICES];
	int e, here;

	CUDA_TRY(cuCtxGetDevice(&here));
	CUDA_TRY(cuMemAddressReserve(p, n, 0, 0, 0));
	e = cuda->cuMemMap(*p, n, 0, h, 0);
	if (e) {
		cuda->cuMemAddressFree(*p, n);
		return failed(e, "cuMemMap");
	}
	e = cuda->cuMemSetAccess(*p, n, access, reach_of(here, all, access));
	if (!e)
		return tuttiSuccess;
	cuda->cuMemUnmap(*p, n);
	cuda->cuMemAddressFree(*p, n);
	return failed(e, "cuMemSetAccess");
}

static void unmap(void *p, size_t n)
{
	(void)cuda->cuMemUnmap((tt_cuda_ptr)p, n);
	(void)cuda->cuMemAddressFree((tt_cuda_ptr)p, n);
}

/* An error of CUDA's. */
static int create(size_t *n, tt_cuda_handle *h)
{
	struct tt_cuda_prop prop = { .type = TT_CUDA_PINNED, .handles = TT_CUDA_BY_FD,
				     .location = { TT_CUDA_DEVICE, 0 } };
	size_t grain;
	int e = cuda->cuCtxGetDevice(&prop.location.id);

	prop.rdma = has(TT_CUDA_ATTR_VMM_RDMA, prop.location.id);
	if (!e)
		e = cuda->cuMemGetAllocationGranularity(&grain, &prop, TT_CUDA_RECOMMENDED);
	if (e)
		return e;
	*n = tt_div_up(*n, grain) * grain;
	return cuda->cuMemCreate(h, *n, &prop, 0);
}

static tuttiResult_t give_by_fd(size_t n, struct tt_share *s, int *fd)
{
	tt_cuda_handle h;
	tt_cuda_ptr p;
	tuttiResult_t r;
	int e = create(&n, &h);

	if (e)
		return failed(e, "cuMemCreate");
	r = map(h, n, false, &p);
	e = r == tuttiSuccess ? cuda->cuMemExportToShareableHandle(fd, h, TT_CUDA_BY_FD, 0) : 0;
	(void)cuda->cuMemRelease(h); /* the mapping keeps it */
	if (e) {
		unmap((void *)p, n);
		return failed(e, "cuMemExportToShareableHandle");
	}
	s->way = TT_SHARE_FD;
	s->n = n;
	s->at = (void *)p;
	return r;
}

static tuttiResult_t open_fd(const struct tt_share *s, int fd, void **p)
{
	tt_cuda_handle h;
	tt_cuda_ptr at = 0;
	tuttiResult_t r;

	CUDA_TRY(cuMemImportFromShareableHandle(&h, (void *)(intptr_t)fd, TT_CUDA_BY_FD));
	r = map(h, s->n, false, &at);
	(void)cuda->cuMemRelease(h);
	*p = (void *)at;
	return r;
}

/* ---- users' ---- */

static struct {
	pthread_mutex_t lock;
	struct piece {
		struct piece *next;
		void *p, *ctx;
		size_t n;
	} *first;
} pieces = { .lock = PTHREAD_MUTEX_INITIALIZER };

static bool new_piece(size_t n, struct piece *piece)
{
	tt_cuda_handle h;
	tt_cuda_ptr p;
	tuttiResult_t r;
	int here;

	if (!cuda->shares || cuda->cuCtxGetDevice(&here) || cuda->cuCtxGetCurrent(&piece->ctx) ||
	    !has(TT_CUDA_ATTR_VMM, here) || !has(TT_CUDA_ATTR_VMM_FD, here) || create(&n, &h))
		return false;
	r = map(h, n, true, &p);
	(void)cuda->cuMemRelease(h);
	piece->p = (void *)p;
	piece->n = n;
	return r == tuttiSuccess;
}

bool tt_cuda_share_alloc(size_t n, void **p)
{
	struct piece *piece = malloc(sizeof(*piece));

	if (!piece || !new_piece(n, piece)) {
		free(piece);
		return false;
	}
	pthread_mutex_lock(&pieces.lock);
	piece->next = pieces.first;
	pieces.first = piece;
	pthread_mutex_unlock(&pieces.lock);
	*p = piece->p;
	return true;
}

/* Waits for the device, as the driver does for memory of its own. */
bool tt_cuda_share_free(void *p)
{
	struct piece **at, *piece;

	pthread_mutex_lock(&pieces.lock);
	for (at = &pieces.first; *at && (*at)->p != p; at = &(*at)->next)
		;
	piece = *at;
	if (piece)
		*at = piece->next;
	pthread_mutex_unlock(&pieces.lock);
	if (!piece)
		return false;
	if (!cuda->cuCtxPushCurrent(piece->ctx)) {
		(void)cuda->cuCtxSynchronize();
		(void)cuda->cuCtxPopCurrent(&piece->ctx);
	}
	unmap(piece->p, piece->n);
	free(piece);
	return true;
}

/* ---- by name ---- */

/* Whole blocks of 2 MiB: the driver shares the block that smaller ones are cut from, with all that lies there. */
enum { BLOCK = 2 << 20 };

/* What was given and taken back, for the next: the driver's own release waits for all streams of the device, some of
 * which may wait for the very thread that releases. */
static struct {
	pthread_mutex_t lock;
	struct kept {
		struct kept *next;
		struct tt_share share;
		void *ctx;
	} *first;
} kept = { .lock = PTHREAD_MUTEX_INITIALIZER };

/* ctx NULL: any, of any size. */
static struct kept *take_kept(const void *ctx, size_t n)
{
	struct kept **at, *k;

	pthread_mutex_lock(&kept.lock);
	for (at = &kept.first; *at && ctx && ((*at)->ctx != ctx || (*at)->share.n != n); at = &(*at)->next)
		;
	k = *at;
	if (k)
		*at = k->next;
	pthread_mutex_unlock(&kept.lock);
	return k;
}

static void keep(const struct tt_share *s)
{
	struct kept *k = malloc(sizeof(*k));

	if (!k || cuda->cuCtxGetCurrent(&k->ctx)) {
		free(k);
		(void)cuda->cuMemFree((tt_cuda_ptr)s->at);
		return;
	}
	k->share = *s;
	pthread_mutex_lock(&kept.lock);
	k->next = kept.first;
	kept.first = k;
	pthread_mutex_unlock(&kept.lock);
}

void tt_cuda_share_trim(void)
{
	for (struct kept *k = take_kept(NULL, 0); k; k = take_kept(NULL, 0)) {
		if (!cuda->cuCtxPushCurrent(k->ctx)) {
			(void)cuda->cuMemFree((tt_cuda_ptr)k->share.at);
			(void)cuda->cuCtxPopCurrent(&k->ctx);
		}
		free(k);
	}
}

static tuttiResult_t give_by_name(size_t n, struct tt_share *s)
{
	struct tt_cuda_ipc h;
	struct kept *k;
	tt_cuda_ptr p;
	void *ctx;
	int e;

	s->n = tt_div_up(n, BLOCK) * BLOCK;
	CUDA_TRY(cuCtxGetCurrent(&ctx));
	k = take_kept(ctx, s->n);
	if (k) {
		*s = k->share;
		free(k);
		return tuttiSuccess;
	}
	CUDA_TRY(cuMemAlloc(&p, s->n));
	e = cuda->cuIpcGetMemHandle(&h, p);
	if (e) {
		(void)cuda->cuMemFree(p);
		return failed(e, "cuIpcGetMemHandle");
	}
	s->way = TT_SHARE_NAME;
	s->at = (void *)p;
	memcpy(s->name, &h, sizeof(s->name));
	return tuttiSuccess;
}

static tuttiResult_t open_here(const struct tt_share *s, void **p)
{
	int there = find_device(s->uuid), here, e = 0;
	void *ctx;

	*p = s->at;
	CUDA_TRY(cuCtxGetDevice(&here));
	if (there == here)
		return tuttiSuccess;
	CUDA_TRY(cuDevicePrimaryCtxRetain(&ctx, there));
	e = cuda->cuCtxEnablePeerAccess(ctx, 0);
	return e && e != TT_CUDA_PEER_IS_ON ? failed(e, "cuCtxEnablePeerAccess") : tuttiSuccess;
}

static tuttiResult_t open_name(const struct tt_share *s, void **p)
{
	struct tt_cuda_ipc h;
	tt_cuda_ptr at;

	memcpy(&h, s->name, sizeof(h));
	CUDA_TRY(cuIpcOpenMemHandle(&at, h, TT_CUDA_LAZY_PEERS));
	*p = (void *)at;
	return tuttiSuccess;
}

/* ---- both ---- */

static tuttiResult_t give(size_t n, struct tt_share *s, int *fd)
{
	tuttiResult_t r = tuttiUnsupported;
	int here;

	memset(s, 0, sizeof(*s));
	*fd = -1;
	CUDA_TRY(cuCtxGetDevice(&here));
	if (has(TT_CUDA_ATTR_VMM, here) && has(TT_CUDA_ATTR_VMM_FD, here))
		r = give_by_fd(n, s, fd);
	if (r != tuttiSuccess)
		TRY(give_by_name(n, s));
	CUDA_TRY(cuDeviceGetUuid(s->uuid, here));
	return tuttiSuccess;
}

/* On a stream of its own, as others may be in a wait. */
static tuttiResult_t clear(void *p, size_t n)
{
	void *stream;
	int e;

	CUDA_TRY(cuStreamCreateWithPriority(&stream, TT_CUDA_NON_BLOCKING, 0));
	e = cuda->cuMemsetD8Async((tt_cuda_ptr)p, 0, n, stream);
	if (!e)
		e = cuda->cuStreamSynchronize(stream);
	(void)cuda->cuStreamDestroy(stream);
	return e ? failed(e, "cuMemsetD8Async") : tuttiSuccess;
}

static void take_back(const struct tt_share *s)
{
	if (s->way == TT_SHARE_FD)
		unmap(s->at, s->n);
	else if (s->way == TT_SHARE_NAME)
		keep(s);
}

static tuttiResult_t open_one(const struct tt_share *s, int fd, bool here, void **p)
{
	if (s->way == TT_SHARE_FD)
		return open_fd(s, fd, p);
	return here ? open_here(s, p) : open_name(s, p);
}

static void close_one(const struct tt_share *s, bool here, void *p)
{
	if (s->way == TT_SHARE_FD)
		unmap(p, s->n);
	else if (!here)
		(void)cuda->cuIpcCloseMemHandle((tt_cuda_ptr)p);
}

static tuttiResult_t pin(void *p, size_t n)
{
	tt_cuda_ptr at = 0;

	CUDA_TRY(cuMemHostRegister(p, n, TT_CUDA_HOST_PORTABLE | TT_CUDA_HOST_DEVICEMAP));
	if (!cuda->cuMemHostGetDevicePointer(&at, p, 0) && at == (tt_cuda_ptr)p)
		return tuttiSuccess;
	(void)cuda->cuMemHostUnregister(p);
	return tt_note_error(tuttiUnsupported, "registered memory has another address on the device");
}

static void unpin(void *p)
{
	(void)cuda->cuMemHostUnregister(p);
}

static tuttiResult_t queue_new(tuttiStream_t *queue)
{
	void *stream;

	CUDA_TRY(cuStreamCreateWithPriority(&stream, TT_CUDA_NON_BLOCKING, 0));
	*queue = stream;
	return tuttiSuccess;
}

static void queue_free(tuttiStream_t queue)
{
	(void)cuda->cuStreamDestroy(queue);
}

const struct tt_mem_sharing tt_cuda_sharing = {
	.device = device, .reaches = reaches, .give = give, .clear = clear, .take_back = take_back,
	.open = open_one, .close = close_one, .pin = pin, .unpin = unpin, .queue_new = queue_new,
	.queue_free = queue_free,
};
