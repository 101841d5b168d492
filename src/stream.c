/* Host streams and the progress thread that drives what is queued on them: started at first need, signals
 * blocked, gone when the last stream is. SPDX-License-Identifier: Apache-2.0 */
#include "comm.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#define MAX_EPS 6

struct tuttiStream {
	struct tuttiStream *next;
	_Atomic uint64_t issued, finished;
	_Atomic int error;
	char text[TT_TEXT]; /* of error; under the lock */
};

static struct {
	pthread_mutex_t life; /* starting and stopping the thread; taken before lock */
	pthread_mutex_t lock;
	pthread_cond_t idle; /* a task has finished */
	struct tuttiStream *streams;
	struct tt_task *fresh; /* submitted, not yet seen by the thread */
	struct tt_task **fresh_tail;
	bool running, stop;
	int holders; /* streams, and communicators with calls on queues of devices */
	pthread_t thread;
	pid_t pid; /* whose thread it is: a child after fork has none */
	int wake_fd;
} bg = { .life = PTHREAD_MUTEX_INITIALIZER, .lock = PTHREAD_MUTEX_INITIALIZER,
	 .idle = PTHREAD_COND_INITIALIZER };

bool tt_stream_valid(const struct tuttiStream *s)
{
	const struct tuttiStream *o;

	pthread_mutex_lock(&bg.lock);
	for (o = bg.streams; o && o != s; o = o->next)
		;
	pthread_mutex_unlock(&bg.lock);
	return o != NULL;
}

uint64_t tt_stream_issue(struct tuttiStream *s, uint64_t n)
{
	return atomic_fetch_add_explicit(&s->issued, n, memory_order_acq_rel);
}

bool tt_stream_turn(struct tuttiStream *s, uint64_t first)
{
	return atomic_load_explicit(&s->finished, memory_order_acquire) >= first;
}

void tt_stream_finished(struct tuttiStream *s, tuttiResult_t r)
{
	pthread_mutex_lock(&bg.lock);
	if (r != tuttiSuccess && atomic_load(&s->error) == tuttiSuccess) {
		snprintf(s->text, sizeof(s->text), "%s", tt_last_error());
		atomic_store(&s->error, (int)r);
	}
	atomic_fetch_add_explicit(&s->finished, 1, memory_order_release);
	pthread_cond_broadcast(&bg.idle);
	pthread_mutex_unlock(&bg.lock);
}

/* ---- the thread ---- */

static void take_fresh(struct tt_task **list)
{
	struct tt_task **tail = list;

	while (*tail)
		tail = &(*tail)->next;
	pthread_mutex_lock(&bg.lock);
	*tail = bg.fresh;
	bg.fresh = NULL;
	bg.fresh_tail = &bg.fresh;
	pthread_mutex_unlock(&bg.lock);
}

/* A finished task may still be the `after` of one of its unit: it goes when all before it have. */
static void drop_done(struct tt_task **list)
{
	while (*list && atomic_load_explicit(&(*list)->done, memory_order_acquire)) {
		struct tt_task *t = *list;
		bool needed = false;

		for (struct tt_task *o = t->next; o && !needed; o = o->next)
			needed = o->after == t && !atomic_load(&o->done);
		if (needed)
			return;
		*list = t->next;
		for (struct tt_task *o = *list; o; o = o->next)
			if (o->after == t)
				o->after = NULL;
		free(t);
	}
}

static bool step(struct tt_task *list)
{
	bool moved = false;

	for (struct tt_task *t = list; t; t = t->next)
		if (!atomic_load_explicit(&t->done, memory_order_acquire))
			moved |= tt_task_step(t);
	return moved;
}

static void rest(struct tt_task *list, uint64_t *since)
{
	struct tt_ep *eps[MAX_EPS];
	uint64_t now = tt_now_ns();
	bool queues = false;
	int n = 0;

	if (!*since)
		*since = now;
	for (struct tt_task *t = list; t; t = t->next)
		if (!atomic_load_explicit(&t->done, memory_order_acquire)) {
			tt_task_watch(t, now);
			n = tt_task_eps(t, eps, n, MAX_EPS);
			queues |= t->q != NULL;
		}
	if (!list)
		tt_net_sleep(NULL, 0, bg.wake_fd, tt_peers_tend() ? 1 : 1000);
	else if (now - *since > 2 * 1000000ull && queues) /* a word of a device wakes nobody */
		nanosleep(&(struct timespec){ .tv_nsec = 50000 }, NULL);
	else if (now - *since > 2 * 1000000ull)
		tt_net_sleep(eps, n, bg.wake_fd, 2);
	else
		sched_yield();
}

static void *work(void *arg)
{
	struct tt_task *list = NULL;
	uint64_t since = 0;
	bool stop;

	pthread_setname_np(pthread_self(), "tutti-progress");
	do {
		take_fresh(&list);
		(void)tt_peers_tend();
		if (list && step(list))
			since = 0;
		else
			rest(list, &since);
		drop_done(&list);
		pthread_mutex_lock(&bg.lock);
		stop = bg.stop && !list && !bg.fresh;
		pthread_mutex_unlock(&bg.lock);
	} while (!stop);
	return NULL;
}

static tuttiResult_t start_thread(void)
{
	sigset_t all, old;
	int e;

	bg.wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (bg.wake_fd < 0)
		return tt_fail(tuttiSystemError, "eventfd: %s; raise the limit of open files", strerror(errno));
	bg.fresh = NULL;
	bg.fresh_tail = &bg.fresh;
	bg.stop = false;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	e = pthread_create(&bg.thread, NULL, work, NULL);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (e) {
		close(bg.wake_fd);
		return tt_fail(tuttiSystemError, "cannot start the progress thread: %s", strerror(e));
	}
	bg.running = true;
	bg.pid = getpid();
	return tuttiSuccess;
}

static void kick(void)
{
	uint64_t one = 1;

	if (write(bg.wake_fd, &one, sizeof(one)) < 0)
		return; /* full: it is awake */
}

tuttiResult_t tt_stream_enqueue(struct tt_task *list)
{
	pthread_mutex_lock(&bg.lock);
	*bg.fresh_tail = list;
	for (; list; list = list->next)
		bg.fresh_tail = &list->next;
	kick();
	pthread_mutex_unlock(&bg.lock);
	return tuttiSuccess;
}

/* ---- the public calls ---- */

tuttiResult_t tt_progress_hold(void)
{
	tuttiResult_t r = tuttiSuccess;

	pthread_mutex_lock(&bg.life);
	pthread_mutex_lock(&bg.lock);
	if (!bg.running || bg.pid != getpid())
		r = start_thread();
	bg.holders += r == tuttiSuccess;
	pthread_mutex_unlock(&bg.lock);
	pthread_mutex_unlock(&bg.life);
	return r;
}

tuttiResult_t tuttiHostStreamCreate(tuttiStream_t *stream)
{
	struct tuttiStream *s;
	tuttiResult_t r;

	if (!stream)
		return tt_fail(tuttiInvalidArgument, "HostStreamCreate: stream is NULL");
	s = calloc(1, sizeof(*s));
	if (!s)
		return tt_fail(tuttiSystemError, "no memory for a stream");
	r = tt_progress_hold();
	if (r != tuttiSuccess) {
		free(s);
		return r;
	}
	pthread_mutex_lock(&bg.lock);
	s->next = bg.streams;
	bg.streams = s;
	pthread_mutex_unlock(&bg.lock);
	*stream = s;
	return tuttiSuccess;
}

static bool drained(struct tuttiStream *s)
{
	return atomic_load_explicit(&s->finished, memory_order_acquire) ==
	       atomic_load_explicit(&s->issued, memory_order_acquire);
}

tuttiResult_t tuttiHostStreamQuery(tuttiStream_t s)
{
	if (!tt_stream_valid(s))
		return tt_fail(tuttiInvalidArgument, "HostStreamQuery: not a live host stream");
	if (atomic_load(&s->error))
		return (tuttiResult_t)atomic_load(&s->error);
	return drained(s) ? tuttiSuccess : tuttiInProgress;
}

tuttiResult_t tuttiHostStreamSynchronize(tuttiStream_t s)
{
	tuttiResult_t r;

	if (!tt_stream_valid(s))
		return tt_fail(tuttiInvalidArgument, "HostStreamSynchronize: not a live host stream");
	pthread_mutex_lock(&bg.lock);
	if (!drained(s) && bg.pid != getpid()) {
		pthread_mutex_unlock(&bg.lock);
		return tt_fail(tuttiForked, "HostStreamSynchronize: the operations on it are the parent's");
	}
	while (!drained(s))
		pthread_cond_wait(&bg.idle, &bg.lock);
	r = (tuttiResult_t)atomic_exchange(&s->error, tuttiSuccess);
	if (r != tuttiSuccess)
		tt_note_error(r, "%s", s->text);
	pthread_mutex_unlock(&bg.lock);
	return r;
}

void tt_progress_drop(void)
{
	bool stop;

	pthread_mutex_lock(&bg.life);
	pthread_mutex_lock(&bg.lock);
	stop = !--bg.holders && bg.running && bg.pid == getpid();
	if (stop) {
		bg.stop = true;
		kick();
		bg.running = false;
	}
	pthread_mutex_unlock(&bg.lock);
	if (stop) {
		pthread_join(bg.thread, NULL);
		close(bg.wake_fd);
	}
	pthread_mutex_unlock(&bg.life);
}

tuttiResult_t tuttiHostStreamDestroy(tuttiStream_t s)
{
	tuttiResult_t r;

	if (!s)
		return tuttiSuccess;
	r = tuttiHostStreamSynchronize(s);
	if (r == tuttiInvalidArgument)
		return r;
	pthread_mutex_lock(&bg.lock);
	for (struct tuttiStream **p = &bg.streams; *p; p = &(*p)->next)
		if (*p == s) {
			*p = s->next;
			break;
		}
	pthread_mutex_unlock(&bg.lock);
	free(s);
	tt_progress_drop();
	return r;
}
