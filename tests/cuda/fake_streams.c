/* Streams and kernels of the fake driver: a thread does one thing after the other, late now and then. Each stream has
 * one; or FAKE_CUDA_QUEUES=n of them are all there are, the hardware's queues: streams share them in turn, in the order
 * in which work was given, and what waits holds up all that stands behind it. With FAKE_CUDA_LAUNCH_BLOCKING=1 copies
 * and launches come back when they are done. SPDX-License-Identifier: Apache-2.0 */
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cuda_kernels.h"
#include "fake_stream.h"
#include "reduce.h"

struct hardware { /* a queue of it, which streams feed */
	pthread_mutex_t lock;
	pthread_cond_t news;
	pthread_t thread;
	struct op *first, **last;
	bool stop;
	uint64_t random;
};

enum { MAX_QUEUES = 32 };

static struct {
	pthread_mutex_t lock;
	struct queue *queues;
	struct queue *legacy[MAX_DEVICES];
	struct hardware *shared[MAX_QUEUES];
	_Atomic int made;
} fake = { .lock = PTHREAD_MUTEX_INITIALIZER };

/* Then those of all ranks, and, in the place of a type, copies of elements of 1, 2, 4 and 8 bytes. */
enum { PRE = 4, POST, ALL_SUM, ALL_COPY = ALL_SUM + 4, OPS };
static const char *const ops[OPS] = { "sum", "prod", "max", "min", "pre", "post", "all_sum", "all_prod", "all_max",
				      "all_min", "all_copy" };
static struct kernel kernels[OPS][tuttiNumTypes];
static _Atomic int launches;
static _Thread_local struct queue *own[MAX_DEVICES]; /* per-thread default streams */

/* As a driver does, which a caller that others wait for must not ask for. */
void wait_for_all(void)
{
	for (int i = 0; i < 20000; i++) {
		bool busy = false;

		pthread_mutex_lock(&fake.lock);
		for (struct queue *q = fake.queues; q; q = q->next)
			busy |= atomic_load(&q->left) > 0;
		pthread_mutex_unlock(&fake.lock);
		if (!busy)
			return;
		usleep(1000);
	}
	wrong("a release of memory waits for streams that never end");
}

bool is_busy(int device)
{
	bool busy = false;

	pthread_mutex_lock(&fake.lock);
	for (struct queue *q = fake.queues; q; q = q->next)
		busy |= q->ctx->device == device && atomic_load(&q->left) > 0;
	pthread_mutex_unlock(&fake.lock);
	return busy;
}

static void run_fold(const struct op *o)
{
	const struct tt_cuda_fold *f = o->arg;
	struct tt_op op = { .kind = o->kernel.op, .commutative = true };
	tuttiDataType_t type = (tuttiDataType_t)o->kernel.type;
	size_t bytes = f->n * tt_type_size(type);
	const void *src[TT_CUDA_SRCS];

	for (int i = 0; i < f->nsrc; i++)
		src[i] = reach(f->src[i], bytes, o->device);
	tt_reduce_run(reach(f->dst, bytes, o->device), src, f->nsrc, f->n, type, &op, TT_STORE_PLAIN);
}

static void run_scale(const struct op *o)
{
	const struct tt_cuda_scale *s = o->arg;
	const void *at = s->factor_at ? reach(s->factor_at, tt_type_size((tuttiDataType_t)o->kernel.type), o->device) :
					NULL;
	struct tt_op op = { .kind = o->kernel.op == PRE ? TT_OP_PREMULSUM : tuttiAvg, .scalar = s->factor,
			    .scalar_at = at,
			    .nranks = s->divisor };
	tuttiDataType_t type = (tuttiDataType_t)o->kernel.type;
	size_t bytes = s->n * tt_type_size(type);
	void *dst = reach(s->dst, bytes, o->device);
	const void *src = reach(s->src, bytes, o->device);

	if (o->kernel.op == PRE)
		tt_reduce_pre(dst, src, s->n, type, &op);
	else
		tt_reduce_post(dst, src, s->n, type, &op);
}

void run(const struct op *o)
{
	switch (o->what) {
	case COPY:
		memmove(reach(o->dst, o->n, o->device), reach(o->src, o->n, o->device), o->n);
		if (!copies_well(o->dst, o->src))
			*(char *)reach(o->dst, 1, o->device) ^= 1;
		break;
	case FOLD:
		run_fold(o);
		break;
	case SCALE:
		run_scale(o);
		break;
	case ALL:
		run_all(o->arg, o->kernel.op - ALL_SUM, o->kernel.type, o->device);
		break;
	case WAIT:
		for (int n = 0; (int32_t)(atomic_load_explicit(o->word, memory_order_acquire) - o->value) < 0; n++)
			if (n < 50)
				sched_yield();
			else
				usleep(20);
		break;
	case WRITE:
		atomic_store_explicit(o->word, o->value, memory_order_release);
		break;
	case CALL:
		o->fn(o->arg);
	}
}

/* Now and then late, as devices are. */
static void lag(struct hardware *h)
{
	uint32_t r;

	h->random = h->random * 6364136223846793005u + 1442695040888963407u;
	r = (uint32_t)(h->random >> 33);
	if (r % 64 == 0)
		usleep(r / 64 % 200);
	else if (r % 8 == 0)
		sched_yield();
}

static void *work(void *arg)
{
	struct hardware *h = arg;

	pthread_mutex_lock(&h->lock);
	while (h->first || !h->stop) {
		struct op *o = h->first;

		if (!o) {
			pthread_cond_wait(&h->news, &h->lock);
			continue;
		}
		h->first = o->next;
		if (!h->first)
			h->last = &h->first;
		pthread_mutex_unlock(&h->lock);
		lag(h);
		run(o);
		atomic_fetch_sub(&o->of->left, 1);
		if (o->own)
			free(o->arg);
		free(o);
		pthread_mutex_lock(&h->lock);
	}
	pthread_mutex_unlock(&h->lock);
	return NULL;
}

static struct hardware *open_hardware(int number)
{
	struct hardware *h = calloc(1, sizeof(*h));

	if (!h)
		wrong("no memory");
	h->last = &h->first;
	h->random = (uint64_t)setting("TEST_SEED", 1) + (uint64_t)number;
	pthread_mutex_init(&h->lock, NULL);
	pthread_cond_init(&h->news, NULL);
	if (pthread_create(&h->thread, NULL, work, h))
		wrong("no thread");
	return h;
}

static void close_hardware(struct hardware *h)
{
	pthread_mutex_lock(&h->lock);
	h->stop = true;
	pthread_cond_signal(&h->news);
	pthread_mutex_unlock(&h->lock);
	pthread_join(h->thread, NULL);
	free(h);
}

static bool is_shared(const struct hardware *h)
{
	bool shared = false;

	for (int i = 0; i < MAX_QUEUES; i++)
		shared |= fake.shared[i] == h;
	return shared;
}

static struct queue *open_queue(struct ctx *ctx)
{
	struct queue *q = calloc(1, sizeof(*q));
	int number = atomic_fetch_add(&fake.made, 1), n = (int)tt_min(setting("FAKE_CUDA_QUEUES", 0), MAX_QUEUES);
	struct hardware **at = &fake.shared[n ? number % n : 0];

	if (!q)
		wrong("no memory");
	q->ctx = ctx;
	pthread_mutex_lock(&fake.lock);
	if (n && !*at)
		*at = open_hardware(number);
	q->by = n ? *at : open_hardware(number);
	q->next = fake.queues;
	fake.queues = q;
	pthread_mutex_unlock(&fake.lock);
	return q;
}

static struct queue *legacy(struct ctx *ctx)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	struct queue *q;

	pthread_mutex_lock(&lock);
	q = fake.legacy[ctx->device];
	if (!q)
		q = fake.legacy[ctx->device] = open_queue(ctx);
	pthread_mutex_unlock(&lock);
	return q;
}

bool is_legacy(const struct queue *q)
{
	return fake.legacy[q->ctx->device] == q;
}

void each_queue(void (*fn)(struct queue *q, void *arg), void *arg)
{
	pthread_mutex_lock(&fake.lock);
	for (struct queue *q = fake.queues; q; q = q->next)
		fn(q, arg);
	pthread_mutex_unlock(&fake.lock);
}

/* 0 and 1: the context's; 2: the thread's there. */
struct queue *queue_of(void *stream)
{
	struct ctx *ctx = current();
	struct queue *q;

	if ((uintptr_t)stream <= 2 && !ctx)
		return NULL;
	if ((uintptr_t)stream < 2)
		return legacy(ctx);
	if ((uintptr_t)stream == 2) {
		if (!own[ctx->device])
			own[ctx->device] = open_queue(ctx);
		return own[ctx->device];
	}
	pthread_mutex_lock(&fake.lock);
	for (q = fake.queues; q && q != stream; q = q->next)
		;
	pthread_mutex_unlock(&fake.lock);
	return q;
}

int cuStreamCreate(void **stream, unsigned flags)
{
	struct queue *q;

	IN_CONTEXT();
	UNSAFE();
	q = open_queue(current());
	q->blocking = !(flags & 1);
	*stream = q;
	return 0;
}

int cuStreamCreateWithPriority(void **stream, unsigned flags, int priority)
{
	return cuStreamCreate(stream, flags);
}

static void await(struct queue *q)
{
	while (atomic_load(&q->left))
		usleep(50);
}

int cuStreamDestroy_v2(struct queue *q)
{
	struct queue **at;
	bool shared;

	READY();
	pthread_mutex_lock(&fake.lock);
	shared = is_shared(q->by);
	pthread_mutex_unlock(&fake.lock);
	if (shared)
		await(q);
	else
		close_hardware(q->by);
	pthread_mutex_lock(&fake.lock);
	for (at = &fake.queues; *at != q; at = &(*at)->next)
		;
	*at = q->next;
	pthread_mutex_unlock(&fake.lock);
	free(q);
	return 0;
}

int cuStreamQuery(void *stream)
{
	struct queue *q = queue_of(stream);

	READY();
	UNSAFE();
	if (!q)
		return BAD_HANDLE;
	if (break_capture(stream))
		return NOT_IN_CAPTURE;
	return atomic_load(&q->left) ? NOT_READY : 0;
}

int cuStreamSynchronize(void *stream)
{
	int e;

	while ((e = cuStreamQuery(stream)) == NOT_READY)
		usleep(50);
	return e;
}

int cuStreamGetCtx(void *stream, struct ctx **ctx)
{
	struct queue *q = queue_of(stream);

	READY();
	if (!q)
		return BAD_HANDLE;
	*ctx = q->ctx;
	return 0;
}

/* ---- what is enqueued ---- */

void *copy_of(const void *args, size_t n)
{
	void *p = malloc(n);

	if (!p)
		wrong("no memory");
	return memcpy(p, args, n);
}

static void give(struct queue *q, struct op *o)
{
	struct hardware *h = q->by;

	o->next = NULL;
	o->of = q;
	o->device = q->ctx->device;
	atomic_fetch_add(&q->left, 1);
	pthread_mutex_lock(&h->lock);
	*h->last = o;
	h->last = &o->next;
	pthread_cond_signal(&h->news);
	pthread_mutex_unlock(&h->lock);
}

int put(void *stream, const struct op *what)
{
	bool blocks = what->what <= ALL;
	struct queue *q;
	struct op *o;
	int e;

	IN_CONTEXT();
	q = queue_of(stream);
	if (!q || q->ctx != current())
		return BAD_HANDLE;
	if (capture_op(q, what, &e))
		return e;
	o = copy_of(what, sizeof(*o));
	if (o->own)
		o->arg = copy_of(what->arg, o->own);
	give(q, o);
	if (blocks && setting("FAKE_CUDA_LAUNCH_BLOCKING", 0))
		await(q);
	return 0;
}

int enqueue(void *stream, void (*fn)(void *), void *arg, size_t n)
{
	return put(stream, &(struct op){ .what = CALL, .fn = fn, .arg = arg, .own = n });
}

int cuMemcpyAsync(char *dst, const char *src, size_t n, void *stream)
{
	return put(stream, &(struct op){ .what = COPY, .dst = dst, .src = src, .n = n });
}

int cuStreamWaitValue32(void *stream, void *word, uint32_t value, unsigned flags)
{
	if (!is_pinned(word) || !may_wait(flags))
		return 1;
	return put(stream, &(struct op){ .what = WAIT, .word = word, .value = value });
}

int cuStreamWriteValue32(void *stream, void *word, uint32_t value, unsigned flags)
{
	if (!is_pinned(word) || flags)
		return 1;
	return put(stream, &(struct op){ .what = WRITE, .word = word, .value = value });
}

int cuLaunchHostFunc(void *stream, void (*fn)(void *), void *arg)
{
	return enqueue(stream, fn, arg, 0);
}

int cuLaunchKernel(struct kernel *k, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
		   unsigned shared, void *stream, void **args, void **extra)
{
	struct op o;

	if (fake_gpu_is(k))
		return fake_gpu_launch(k, stream, args);
	if (fake_grid_is(k))
		return fake_grid_launch(stream, gx, bx, false, args);
	if (!gx || gy != 1 || gz != 1 || bx != TT_CUDA_THREADS || by != 1 || bz != 1 || extra)
		return BAD_VALUE;
	o = (struct op){ .what = k->op < PRE ? FOLD : k->op < ALL_SUM ? SCALE : ALL, .kernel = *k, .arg = args[0] };
	o.own = o.what == FOLD ? sizeof(struct tt_cuda_fold) : o.what == SCALE ? sizeof(struct tt_cuda_scale) :
		sizeof(struct tt_cuda_all);
	if (o.what == ALL && (!((struct tt_cuda_all *)o.arg)->npieces || gx % ((struct tt_cuda_all *)o.arg)->npieces))
		return BAD_VALUE;
	atomic_fetch_add(&launches, 1);
	return put(stream, &o);
}

int cuFakeLaunches(void)
{
	return atomic_load(&launches);
}

/* ---- kernels, by name ---- */

int cuLibraryLoadData(void **lib, const void *code, int *jit, void **jit_values, unsigned njit, int *options,
		      void **values, unsigned n)
{
	READY();
	if (setting("FAKE_CUDA_NO_IMAGE", 0) || *(const uint32_t *)code != 0xba55ed50) /* of a fatbin */
		return NO_IMAGE;
	*lib = kernels;
	return 0;
}

static void name_of(int op, int type, char *out, size_t n)
{
	if (op == ALL_COPY)
		snprintf(out, n, "tt_all_copy_%d", 1 << type);
	else
		snprintf(out, n, "tt_%s_%s", ops[op], tt_type_name((tuttiDataType_t)type));
}

int cuLibraryGetKernel(void **kernel, void *lib, const char *name)
{
	char want[64];

	*kernel = (void *)fake_gpu_find(name);
	if (*kernel)
		return 0;
	*kernel = (void *)cuLaunchCooperativeKernel; /* of which there is one */
	if (!strcmp(name, "tt_dev_run"))
		return 0;
	for (int i = 0; i < OPS; i++)
		for (int t = 0; t < (i == ALL_COPY ? 4 : (int)tuttiNumTypes); t++) {
			name_of(i, t, want, sizeof(want));
			if (strcmp(name, want))
				continue;
			pthread_mutex_lock(&fake.lock);
			kernels[i][t] = (struct kernel){ i, t };
			pthread_mutex_unlock(&fake.lock);
			*kernel = &kernels[i][t];
			return 0;
		}
	return NOT_FOUND;
}

int cuKernelGetFunction(void **fn, void *kernel)
{
	IN_CONTEXT();
	*fn = kernel;
	return 0;
}

int cuFuncLoad(void *fn)
{
	IN_CONTEXT();
	return 0;
}
