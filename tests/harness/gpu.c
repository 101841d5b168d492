/* A real device behind the functions of fake.h (TEST_DEVICE=gpu): the host cannot see its memory, so a test sees a
 * shadow, which goes to the device when a call begins and comes back when a queue has ended. A driver may keep
 * whoever makes memory or streams waiting for what runs, so all are there from the start: one arena, some streams.
 * SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fake.h"
#include "gpu.h"
#include "ranks.h"

enum { STREAMS = 48, COPIERS = 20, STAGE = 1 << 20, LINE = 512 };

struct range {
	struct range *next; /* by address */
	size_t at, n;       /* in the arena */
	char *shadow;
	bool fresh;         /* the shadow is what counts */
	pthread_t owner;
};

struct copier {
	void *stream, *stage;
	bool used;
};

static struct {
	pthread_mutex_t lock;
	bool started;
	void *ctx;
	char *arena;
	size_t size;
	struct range *first;
	void *streams[STREAMS];
	int nstreams;
	struct copier copiers[COPIERS];
} dev = { .lock = PTHREAD_MUTEX_INITIALIZER };

static void must(int e, const char *what)
{
	if (!e)
		return;
	fprintf(stderr, "the test's own %s: %s\n", what, gpu_words(e));
	abort();
}

static void begin(void)
{
	must(GPU(cuCtxPushCurrent, dev.ctx), "cuCtxPushCurrent");
}

static void end(void)
{
	void *ctx;

	must(GPU(cuCtxPopCurrent, &ctx), "cuCtxPopCurrent");
}

static void load(void)
{
	const char *why;
	gpu_ptr p = 0;

	if (!gpu_load(&why)) {
		fprintf(stderr, "TEST_DEVICE=gpu: %s\n", why);
		abort();
	}
	must(GPU(cuDevicePrimaryCtxRetain, &dev.ctx, 0), "cuDevicePrimaryCtxRetain");
	begin();
	dev.size = (size_t)test_setting("TEST_ARENA", 512) << 20;
	must(GPU(cuMemAlloc, &p, dev.size), "cuMemAlloc");
	dev.arena = (char *)p;
	for (dev.nstreams = 0; dev.nstreams < STREAMS; dev.nstreams++)
		must(GPU(cuStreamCreate, &dev.streams[dev.nstreams], GPU_NON_BLOCKING), "cuStreamCreate");
	for (int i = 0; i < COPIERS; i++) {
		must(GPU(cuStreamCreate, &dev.copiers[i].stream, GPU_NON_BLOCKING), "cuStreamCreate");
		must(GPU(cuMemHostAlloc, &dev.copiers[i].stage, STAGE, GPU_PORTABLE | GPU_DEVICEMAP), "cuMemHostAlloc");
	}
	end();
}

static void start(void)
{
	pthread_mutex_lock(&dev.lock);
	if (!dev.started)
		load();
	dev.started = true;
	pthread_mutex_unlock(&dev.lock);
}

static void use(bool on)
{
	must(GPU(cuCtxSetCurrent, on ? dev.ctx : NULL), "cuCtxSetCurrent");
}

/* ---- memory ---- */

static void *alloc(size_t n)
{
	struct range *r = calloc(1, sizeof(*r)), **at;
	size_t from = 0, room = (n + LINE - 1) / LINE * LINE;

	pthread_mutex_lock(&dev.lock);
	for (at = &dev.first; *at && (*at)->at - from < room; at = &(*at)->next)
		from = (*at)->at + ((*at)->n + LINE - 1) / LINE * LINE;
	if (!r || (!*at && dev.size - from < room)) {
		fprintf(stderr, "the test's arena is full: TEST_ARENA=%zu MiB\n", dev.size >> 20);
		abort();
	}
	*r = (struct range){ *at, from, n, calloc(1, n), true, pthread_self() };
	*at = r;
	pthread_mutex_unlock(&dev.lock);
	return dev.arena + from;
}

/* Under the lock. */
static struct range **find(const void *p)
{
	size_t at = (size_t)((const char *)p - dev.arena);
	struct range **r;

	for (r = &dev.first; *r && (at < (*r)->at || at >= (*r)->at + (*r)->n); r = &(*r)->next)
		;
	return r;
}

static void release(void *p)
{
	struct range **at, *r;

	pthread_mutex_lock(&dev.lock);
	at = find(p);
	r = *at;
	if (r)
		*at = r->next;
	pthread_mutex_unlock(&dev.lock);
	if (r)
		free(r->shadow);
	free(r);
}

/* Whoever asks is about to write, or to read what came back. */
static void *view(const void *p)
{
	char *v = (char *)p;
	struct range *r;

	pthread_mutex_lock(&dev.lock);
	r = *find(p);
	if (r) {
		v = r->shadow + ((const char *)p - dev.arena) - r->at;
		r->fresh = true;
	}
	pthread_mutex_unlock(&dev.lock);
	return v;
}

static struct copier *take_copier(void)
{
	for (;;) {
		pthread_mutex_lock(&dev.lock);
		for (int i = 0; i < COPIERS; i++)
			if (!dev.copiers[i].used) {
				dev.copiers[i].used = true;
				pthread_mutex_unlock(&dev.lock);
				return &dev.copiers[i];
			}
		pthread_mutex_unlock(&dev.lock);
		usleep(100);
	}
}

static void move(struct copier *c, const struct range *r, bool in)
{
	for (size_t at = 0, part; at < r->n; at += part) {
		gpu_ptr there = (gpu_ptr)dev.arena + r->at + at, here = (gpu_ptr)c->stage;

		part = r->n - at < STAGE ? r->n - at : STAGE;
		if (in)
			memcpy(c->stage, r->shadow + at, part);
		must(GPU(cuMemcpyAsync, in ? there : here, in ? here : there, part, c->stream), "cuMemcpyAsync");
		must(GPU(cuStreamSynchronize, c->stream), "cuStreamSynchronize");
		if (!in)
			memcpy(r->shadow + at, c->stage, part);
	}
}

/* The calling thread's own ranges, which nobody else takes away meanwhile. */
static struct range *next_own(const struct range *after)
{
	struct range *r;

	pthread_mutex_lock(&dev.lock);
	for (r = after ? after->next : dev.first; r && !pthread_equal(r->owner, pthread_self()); r = r->next)
		;
	pthread_mutex_unlock(&dev.lock);
	return r;
}

static void move_all(bool in)
{
	struct copier *c;

	if (!dev.started)
		return;
	begin();
	c = take_copier();
	for (struct range *r = next_own(NULL); r; r = next_own(r)) {
		if (!in || r->fresh)
			move(c, r, in);
		r->fresh = false;
	}
	pthread_mutex_lock(&dev.lock);
	c->used = false;
	pthread_mutex_unlock(&dev.lock);
	end();
}

static void before(void)
{
	move_all(true);
}

static void after(void)
{
	move_all(false);
}

/* ---- queues ---- */

static tuttiStream_t queue_new(void)
{
	void *s = NULL;

	pthread_mutex_lock(&dev.lock);
	if (dev.nstreams)
		s = dev.streams[--dev.nstreams];
	pthread_mutex_unlock(&dev.lock);
	must(s ? 0 : GPU_NONE, "streams: too many are in use");
	return s;
}

static void queue_free(tuttiStream_t queue)
{
	pthread_mutex_lock(&dev.lock);
	if (dev.nstreams < STREAMS)
		dev.streams[dev.nstreams++] = queue;
	pthread_mutex_unlock(&dev.lock);
}

static bool is_idle(tuttiStream_t queue)
{
	int e;

	begin();
	e = GPU(cuStreamQuery, queue);
	end();
	must(e == GPU_NOT_READY ? 0 : e, "cuStreamQuery");
	return !e;
}

static void wait_until(void *arg)
{
	const _Atomic int *set = arg;

	while (!*set)
		usleep(200);
}

static void hold(tuttiStream_t queue, const _Atomic int *until_set)
{
	begin();
	must(GPU(cuLaunchHostFunc, queue, wait_until, (void *)until_set), "cuLaunchHostFunc");
	end();
}

const struct fake_device fake_gpu = {
	.start = start, .use = use, .alloc = alloc, .free = release, .view = view,
	.queue_default = (tuttiStream_t)2, /* CU_STREAM_PER_THREAD */
	.queue_new = queue_new, .queue_free = queue_free, .is_idle = is_idle, .hold = hold,
	.before = before, .after = after,
};
