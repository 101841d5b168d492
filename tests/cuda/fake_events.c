/* Events of the fake driver. Strict where drivers are not: a wait for an event that was never recorded, which a driver
 * lets pass, and an event that is no more, end the program. SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include "fake_libcuda.h"

struct mark { /* a record of an event */
	_Atomic bool done;
	_Atomic int used; /* by the event, and by streams */
};

struct event {
	struct event *next;
	struct ctx *ctx;
	struct mark *last;     /* under the lock; or, recorded on a captured stream: */
	struct moment *moment;
};

static struct {
	pthread_mutex_t lock;
	struct event *first;
} events = { .lock = PTHREAD_MUTEX_INITIALIZER };

static void check(const struct event *event)
{
	const struct event *e;

	pthread_mutex_lock(&events.lock);
	for (e = events.first; e && e != event; e = e->next)
		;
	pthread_mutex_unlock(&events.lock);
	if (!e)
		wrong("an event that is none, or was destroyed");
}

static void drop(struct mark *m)
{
	if (m && atomic_fetch_sub(&m->used, 1) == 1)
		free(m);
}

int cuEventCreate(struct event **event, unsigned flags)
{
	struct event *e = calloc(1, sizeof(*e));

	IN_CONTEXT();
	UNSAFE();
	if (!e)
		wrong("no memory");
	if (flags & ~3u)
		return BAD_VALUE;
	e->ctx = current();
	pthread_mutex_lock(&events.lock);
	e->next = events.first;
	events.first = e;
	pthread_mutex_unlock(&events.lock);
	*event = e;
	return 0;
}

/* What streams have of it goes on. */
int cuEventDestroy_v2(struct event *event)
{
	struct event **at;

	READY();
	check(event);
	pthread_mutex_lock(&events.lock);
	for (at = &events.first; *at != event; at = &(*at)->next)
		;
	*at = event->next;
	pthread_mutex_unlock(&events.lock);
	drop(event->last);
	moment_free(event->moment);
	free(event);
	return 0;
}

static void come_to(void *arg)
{
	struct mark *m = arg;

	atomic_store(&m->done, true);
	drop(m);
}

static void wait_for(void *arg)
{
	struct mark *m = arg;

	for (int n = 0; !atomic_load(&m->done); n++)
		if (n < 50)
			sched_yield();
		else
			usleep(20);
	drop(m);
}

static void keep(struct event *event, struct mark *m, struct moment *moment)
{
	struct mark *old;
	struct moment *past;

	pthread_mutex_lock(&events.lock);
	old = event->last;
	past = event->moment;
	event->last = m;
	event->moment = moment;
	pthread_mutex_unlock(&events.lock);
	drop(old);
	moment_free(past);
}

int cuEventRecord(struct event *event, void *stream)
{
	struct moment *moment;
	struct mark *m;
	struct ctx *ctx;
	int e = cuStreamGetCtx(stream, &ctx);

	check(event);
	if (e)
		return e;
	if (ctx != event->ctx)
		wrong("an event of one context recorded on a stream of another");
	moment = moment_of(stream, &e);
	if (moment)
		keep(event, NULL, moment);
	if (moment || e)
		return e;
	m = copy_of(&(struct mark){ .used = 2 }, sizeof(*m));
	e = enqueue(stream, come_to, m, 0);
	if (e)
		free(m);
	else
		keep(event, m, NULL);
	return e;
}

static struct moment *moment_in(struct event *event)
{
	struct moment *m;

	pthread_mutex_lock(&events.lock);
	m = moment_copy(event->moment);
	pthread_mutex_unlock(&events.lock);
	return m;
}

static struct mark *last_of(struct event *event)
{
	struct mark *m;

	check(event);
	pthread_mutex_lock(&events.lock);
	m = event->last;
	if (m)
		atomic_fetch_add(&m->used, 1);
	pthread_mutex_unlock(&events.lock);
	return m;
}

/* For the last record as of now. */
int cuStreamWaitEvent(void *stream, struct event *event, unsigned flags)
{
	enum { CROSSES = 905 };
	struct moment *moment;
	struct mark *m;
	int e;

	READY();
	m = last_of(event);
	moment = moment_in(event);
	if (moment) {
		e = wait_for_moment(stream, moment);
		moment_free(moment);
		return e;
	}
	if (!m)
		wrong("a wait for an event that was never recorded");
	e = flags ? BAD_VALUE : break_capture(stream) ? CROSSES : enqueue(stream, wait_for, m, 0);
	if (e)
		drop(m);
	return e;
}

int cuEventQuery(struct event *event)
{
	struct mark *m;
	bool done, captured;

	READY();
	UNSAFE();
	m = last_of(event);
	pthread_mutex_lock(&events.lock);
	captured = event->moment != NULL;
	pthread_mutex_unlock(&events.lock);
	if (captured)
		return 907;
	done = !m || atomic_load(&m->done);
	drop(m);
	return done ? 0 : NOT_READY;
}

int cuEventSynchronize(struct event *event)
{
	int e;

	while ((e = cuEventQuery(event)) == NOT_READY)
		usleep(50);
	return e;
}
