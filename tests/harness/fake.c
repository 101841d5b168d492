/* The fake device: memory behind a locked door, and queues as threads. SPDX-License-Identifier: Apache-2.0 */
#include "fake.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "mem.h"
#include "ranks.h"
#include "test.h"

enum what { COPY, REDUCE, WAIT, SIGNAL, HOLD, RECORD, FOLLOW, ALL };
enum { MAX_SRC = 64 };

struct range {
	struct range *next;
	char *at, *view;
	size_t n;
};

struct mark { /* a record of an event */
	_Atomic bool done;
	_Atomic int used; /* by the event, and by queues */
};

struct event {
	struct mark *last;
};

struct op {
	struct op *next;
	enum what what;
	char *dst;
	const void *src[MAX_SRC];
	int nsrc;
	size_t n; /* bytes, REDUCE: elements */
	tuttiDataType_t type;
	struct tt_op op;
	enum tt_scale scale;
	_Atomic uint32_t *word;
	uint32_t value;
	const _Atomic int *hold;
	struct mark *mark;
	struct tt_mem_all *all;
};

struct queue {
	struct queue *next;
	pthread_mutex_t lock;
	pthread_cond_t news;
	pthread_t thread;
	struct op *first, **last;
	bool busy, stop;
	uint64_t random;
};

static struct {
	pthread_mutex_t lock;
	struct range *ranges;
	struct queue *queues;
	_Atomic int made;
} fake = { .lock = PTHREAD_MUTEX_INITIALIZER };

static pthread_key_t default_key;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static _Thread_local int inside;
static _Thread_local bool in_use;

static void wrong(const char *text)
{
	fprintf(stderr, "fake device: %s\n", text);
	abort();
}

/* ---- memory ---- */

static void *map(int fd, size_t n, int prot)
{
	void *p = mmap(NULL, n, prot, MAP_SHARED, fd, 0);

	if (p == MAP_FAILED)
		wrong("no memory");
	return p;
}

static tuttiResult_t alloc(size_t n, enum tt_mem_use use, void **p)
{
	struct range *r;
	int fd;

	if (use == TT_MEM_PINNED) {
		*p = aligned_alloc(4096, (n + 4095) & ~(size_t)4095);
		return *p ? tuttiSuccess : tt_fail(tuttiSystemError, "no memory");
	}
	r = calloc(1, sizeof(*r));
	fd = memfd_create("fake device", MFD_CLOEXEC);
	if (!r || fd < 0 || ftruncate(fd, (off_t)n))
		wrong("no memory");
	r->n = n;
	r->at = map(fd, n, PROT_NONE);
	r->view = map(fd, n, PROT_READ | PROT_WRITE);
	close(fd);
	pthread_mutex_lock(&fake.lock);
	r->next = fake.ranges;
	fake.ranges = r;
	pthread_mutex_unlock(&fake.lock);
	*p = r->at;
	return tuttiSuccess;
}

static void release(void *p, size_t n, enum tt_mem_use use)
{
	struct range **at, *r;

	if (use == TT_MEM_PINNED) {
		free(p);
		return;
	}
	pthread_mutex_lock(&fake.lock);
	for (at = &fake.ranges; *at && (*at)->at != p; at = &(*at)->next)
		;
	r = *at;
	if (!r)
		wrong("release of what was not given");
	*at = r->next;
	pthread_mutex_unlock(&fake.lock);
	munmap(r->at, r->n);
	munmap(r->view, r->n);
	free(r);
}

/* What the device reaches under an address; n bytes must be inside one range. */
static char *reach(const void *p, size_t n)
{
	char *view = (char *)p;

	pthread_mutex_lock(&fake.lock);
	for (struct range *r = fake.ranges; r; r = r->next) {
		size_t at = (size_t)((const char *)p - r->at);

		if ((const char *)p < r->at || at >= r->n)
			continue;
		if (n > r->n - at)
			wrong("access behind the end of device memory");
		view = r->view + at;
	}
	pthread_mutex_unlock(&fake.lock);
	return view;
}

static bool query(const void *p)
{
	return reach(p, 1) != p;
}

static bool current(void)
{
	return in_use;
}

/* ---- queues ---- */

static void run_reduce(const struct op *o)
{
	const void *src[MAX_SRC];
	size_t n = o->n * tt_type_size(o->type);
	struct tt_op op = o->op;
	char *dst = reach(o->dst, n);

	if (op.scalar_at)
		op.scalar_at = reach(op.scalar_at, tt_type_size(o->type));
	for (int i = 0; i < o->nsrc; i++)
		src[i] = reach(o->src[i], n);
	if (o->scale == TT_SCALE_PRE)
		tt_reduce_pre(dst, src[0], o->n, o->type, &op);
	else if (o->scale == TT_SCALE_POST)
		tt_reduce_post(dst, src[0], o->n, o->type, &op);
	else
		tt_reduce_run(dst, src, o->nsrc, o->n, o->type, &op, TT_STORE_PLAIN);
}

static void drop_mark(struct mark *m)
{
	if (m && atomic_fetch_sub(&m->used, 1) == 1)
		free(m);
}

static void run_piece(const struct tt_mem_all *a, const struct tt_piece *p)
{
	size_t size = tt_type_size(a->type), n = p->n * size;
	bool pre = a->op.kind == TT_OP_PREMULSUM, post = a->op.kind == tuttiAvg;
	char *out = malloc(n), *scaled = malloc(p->nsrc * n);
	const void *src[TT_PIECE_RANKS];

	if (!out || !scaled)
		wrong("no memory");
	for (int k = 0; k < p->nsrc; k++) {
		const void *at = a->scalar_at[p->src + k];
		struct tt_op op = { .kind = TT_OP_PREMULSUM, .scalar = a->scalar[p->src + k],
				    .scalar_at = at ? reach(at, size) : NULL };

		src[k] = reach((const char *)a->in[p->src + k] + p->src_at * size, n);
		if (pre)
			tt_reduce_pre(scaled + (size_t)k * n, src[k], p->n, a->type, &op);
		if (pre)
			src[k] = scaled + (size_t)k * n;
	}
	tt_reduce_run(out, src, p->nsrc, p->n, a->type, &a->op, TT_STORE_PLAIN);
	if (post)
		tt_reduce_post(out, out, p->n, a->type, &a->op);
	for (int k = 0; k < p->ndst; k++)
		memcpy(reach((char *)a->out[p->dst + k] + p->dst_at * size, n), out, n);
	free(out);
	free(scaled);
}

static void run(const struct op *o)
{
	switch (o->what) {
	case COPY:
		memmove(reach(o->dst, o->n), reach(o->src[0], o->n), o->n);
		break;
	case REDUCE:
		run_reduce(o);
		break;
	case WAIT:
		while ((int32_t)(atomic_load_explicit(o->word, memory_order_acquire) - o->value) < 0)
			sched_yield();
		break;
	case SIGNAL:
		atomic_store_explicit(o->word, o->value, memory_order_release);
		break;
	case HOLD:
		while (!atomic_load(o->hold))
			usleep(200);
		break;
	case RECORD:
		atomic_store(&o->mark->done, true);
		break;
	case FOLLOW:
		while (!atomic_load(&o->mark->done))
			sched_yield();
		break;
	case ALL:
		for (int i = 0; i < o->all->npieces; i++)
			run_piece(o->all, &o->all->pieces[i]);
	}
}

/* Now and then late, as devices are. */
static void lag(struct queue *q)
{
	uint32_t r = test_rand(&q->random);

	if (r % 64 == 0)
		usleep(r / 64 % 200);
	else if (r % 8 == 0)
		sched_yield();
}

static void *work(void *arg)
{
	struct queue *q = arg;

	pthread_mutex_lock(&q->lock);
	for (;;) {
		struct op *o = q->first;

		if (!o) {
			q->busy = false;
			if (q->stop)
				break;
			pthread_cond_wait(&q->news, &q->lock);
			continue;
		}
		q->first = o->next;
		if (!q->first)
			q->last = &q->first;
		q->busy = true;
		pthread_mutex_unlock(&q->lock);
		lag(q);
		run(o);
		drop_mark(o->mark);
		free(o->all);
		free(o);
		pthread_mutex_lock(&q->lock);
	}
	pthread_mutex_unlock(&q->lock);
	return NULL;
}

static struct queue *open_queue(void)
{
	struct queue *q = calloc(1, sizeof(*q));

	if (!q)
		wrong("no memory");
	q->last = &q->first;
	q->random = test_seed() + (uint64_t)atomic_fetch_add(&fake.made, 1);
	pthread_mutex_init(&q->lock, NULL);
	pthread_cond_init(&q->news, NULL);
	if (pthread_create(&q->thread, NULL, work, q))
		wrong("no thread");
	pthread_mutex_lock(&fake.lock);
	q->next = fake.queues;
	fake.queues = q;
	pthread_mutex_unlock(&fake.lock);
	return q;
}

static void close_queue(void *arg)
{
	struct queue *q = arg, **at;

	pthread_mutex_lock(&q->lock);
	q->stop = true;
	pthread_cond_signal(&q->news);
	pthread_mutex_unlock(&q->lock);
	pthread_join(q->thread, NULL);
	pthread_mutex_lock(&fake.lock);
	for (at = &fake.queues; *at != q; at = &(*at)->next)
		;
	*at = q->next;
	pthread_mutex_unlock(&fake.lock);
	free(q);
}

static struct queue *queue_of(tuttiStream_t stream)
{
	struct queue *q = (struct queue *)stream;

	if (q)
		return q;
	q = pthread_getspecific(default_key);
	if (!q) {
		q = open_queue();
		pthread_setspecific(default_key, q);
	}
	return q;
}

static bool is_queue(tuttiStream_t stream)
{
	struct queue *q;

	pthread_mutex_lock(&fake.lock);
	for (q = fake.queues; q && q != (struct queue *)stream; q = q->next)
		;
	pthread_mutex_unlock(&fake.lock);
	return q != NULL;
}

static tuttiResult_t put(tuttiStream_t stream, const struct op *what)
{
	struct op *o = malloc(sizeof(*o));
	struct queue *q;

	if (!inside)
		wrong("a call from a thread that is not inside an API call");
	q = queue_of(stream);
	if (!o)
		wrong("no memory");
	*o = *what;
	o->next = NULL;
	pthread_mutex_lock(&q->lock);
	*q->last = o;
	q->last = &o->next;
	q->busy = true;
	pthread_cond_signal(&q->news);
	pthread_mutex_unlock(&q->lock);
	return tuttiSuccess;
}

static tuttiResult_t copy(tuttiStream_t queue, void *dst, const void *src, size_t n)
{
	return put(queue, &(struct op){ .what = COPY, .dst = dst, .src = { src }, .n = n });
}

static tuttiResult_t reduce(tuttiStream_t queue, void *dst, const void *const *src, int nsrc, size_t count,
			    tuttiDataType_t type, const struct tt_op *op, enum tt_scale scale)
{
	struct op o = { .what = REDUCE, .dst = dst, .nsrc = nsrc, .n = count, .type = type, .op = *op,
			.scale = scale };

	if (nsrc > MAX_SRC || op->kind == TT_OP_USER)
		wrong("a reduction that no device does");
	memcpy(o.src, src, (size_t)nsrc * sizeof(*src));
	return put(queue, &o);
}

static tuttiResult_t stream_wait(tuttiStream_t queue, const _Atomic uint32_t *word, uint32_t value)
{
	return put(queue, &(struct op){ .what = WAIT, .word = (_Atomic uint32_t *)word, .value = value });
}

static tuttiResult_t stream_signal(tuttiStream_t queue, _Atomic uint32_t *word, uint32_t value)
{
	return put(queue, &(struct op){ .what = SIGNAL, .word = word, .value = value });
}

static tuttiResult_t event_new(void **event)
{
	*event = calloc(1, sizeof(struct event));
	if (!*event)
		wrong("no memory");
	return tuttiSuccess;
}

static void event_free(void *event)
{
	drop_mark(((struct event *)event)->last);
	free(event);
}

static tuttiResult_t event_record(tuttiStream_t queue, void *event)
{
	struct event *e = event;
	struct mark *m = calloc(1, sizeof(*m));

	if (!m)
		wrong("no memory");
	m->used = 2;
	drop_mark(e->last);
	e->last = m;
	return put(queue, &(struct op){ .what = RECORD, .mark = m });
}

static tuttiResult_t event_wait(tuttiStream_t queue, void *event)
{
	struct mark *m = ((struct event *)event)->last;

	if (!m)
		wrong("a wait for an event that was never recorded");
	atomic_fetch_add(&m->used, 1);
	return put(queue, &(struct op){ .what = FOLLOW, .mark = m });
}

static tuttiResult_t run_all(tuttiStream_t queue, const struct tt_mem_all *all)
{
	struct tt_mem_all *copy_of = malloc(sizeof(*copy_of));

	if (!copy_of || all->npieces < 1)
		wrong("a kernel of nothing");
	*copy_of = *all;
	return put(queue, &(struct op){ .what = ALL, .all = copy_of });
}

static const struct tt_mem_kind kind = {
	.size = sizeof(kind), .name = "fake", .query = query, .current = current, .is_queue = is_queue,
	.alloc = alloc, .release = release, .copy = copy, .reduce = reduce, .stream_wait = stream_wait,
	.stream_signal = stream_signal, .event_new = event_new, .event_free = event_free,
	.event_record = event_record, .event_wait = event_wait, .run_all = run_all,
};

/* ---- for tests ---- */

static void add_kind(void)
{
	pthread_key_create(&default_key, close_queue);
	tt_mem_add(&kind);
}

static void start(void)
{
	pthread_once(&once, add_kind);
}

static void use(bool on)
{
	in_use = on;
}

static void *alloc_for_test(size_t n)
{
	void *p;

	alloc(n, TT_MEM_USERS, &p);
	return p;
}

static void free_for_test(void *p)
{
	release(p, 0, TT_MEM_USERS);
}

static void *view(const void *p)
{
	return reach(p, 1);
}

static tuttiStream_t queue_new(void)
{
	return (tuttiStream_t)open_queue();
}

static void queue_free(tuttiStream_t queue)
{
	close_queue(queue);
}

static bool is_idle(tuttiStream_t queue)
{
	struct queue *q = queue_of(queue);
	bool idle;

	pthread_mutex_lock(&q->lock);
	idle = !q->busy && !q->first;
	pthread_mutex_unlock(&q->lock);
	return idle;
}

static void hold(tuttiStream_t queue, const _Atomic int *until_set)
{
	put(queue, &(struct op){ .what = HOLD, .hold = until_set });
}

static const struct fake_device ours = {
	.start = start, .use = use, .alloc = alloc_for_test, .free = free_for_test, .view = view,
	.queue_new = queue_new, .queue_free = queue_free, .is_idle = is_idle, .hold = hold,
};

static const struct fake_device *device(void)
{
	const char *name = getenv("TEST_DEVICE");

	if (name && !strcmp(name, "gpu"))
		return &fake_gpu;
	return name && !strcmp(name, "cuda") ? &fake_cuda : &ours;
}

void fake_place(struct rank *r)
{
	int n = (int)test_setting("TEST_DEVICES", 0), hosts = (int)test_setting("TEST_HOST_RANKS", 0);

	if (n && device()->place && !(hosts && r->rank % hosts == hosts - 1))
		device()->place(r->rank % n);
}

int fake_live(void)
{
	return device()->live ? device()->live() : 0;
}

void fake_start(void)
{
	device()->start();
	rank_prepare = fake_place;
}

void fake_use(bool on)
{
	device()->use(on);
}

void *fake_alloc(size_t n)
{
	return device()->alloc(n ? n : 1);
}

void fake_free(void *p)
{
	if (p)
		device()->free(p);
}

void *fake_view(const void *p)
{
	return p ? device()->view(p) : NULL;
}

tuttiStream_t fake_queue_default(void)
{
	return device()->queue_default;
}

tuttiStream_t fake_queue_new(void)
{
	return device()->queue_new();
}

void fake_queue_free(tuttiStream_t queue)
{
	if (queue)
		device()->queue_free(queue);
}

bool fake_queue_wait(tuttiStream_t queue, double seconds)
{
	double end = seconds_now() + seconds;
	bool idle = device()->is_idle(queue);

	for (int naps = 0; !idle && seconds_now() < end; idle = device()->is_idle(queue))
		usleep(naps++ < 100 ? 20 : 500);
	if (idle && device()->after)
		device()->after();
	return idle;
}

void fake_queue_sync(tuttiStream_t queue)
{
	while (!fake_queue_wait(queue, 10))
		;
}

void fake_hold(tuttiStream_t queue, const _Atomic int *until_set)
{
	fake_enter();
	device()->hold(queue, until_set);
	fake_leave();
}

void fake_enter(void)
{
	if (device()->before)
		device()->before();
	inside++;
}

void fake_leave(void)
{
	inside--;
}

tuttiResult_t fake_left(tuttiResult_t r)
{
	fake_leave();
	return r;
}
