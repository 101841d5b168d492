/* Calls that blocks of each rank's device run (TUTTI_CUDA_DEVICE_DRIVEN), over the fake driver, ranks as processes on a
 * device each: what the host sees of them while nothing but kernels moves. Run by peers.sh.
 * SPDX-License-Identifier: Apache-2.0 */
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "comm.h"
#include "fake.h"
#include "ranks.h"
#include "test.h"

enum { N = 50000, LONG = 60 /* seconds, for what comes at once */ };

struct buffers {
	tuttiStream_t q;
	float *at, *view;
};

static struct buffers begin(struct rank *r, tuttiConfig_t *config)
{
	struct buffers b;

	fake_start();
	RANK_OK(r, rank_init(r, config));
	RANK_CHECKF(r, tt_peers_drive(r->comm->peers), "no blocks between devices: run by tests/cuda/peers.sh");
	b.q = fake_queue_new();
	b.at = fake_alloc((N + 1) * sizeof(float));
	b.view = fake_view(b.at);
	for (int i = 0; i <= N; i++)
		b.view[i] = (float)(r->rank + i % 5);
	return b;
}

static void end(struct rank *r, const struct buffers *b, tuttiResult_t (*over)(tuttiComm_t))
{
	RANK_CHECKF(r, fake_queue_wait(b->q, LONG), "the stream still waits");
	RANK_OK(r, over(r->comm));
	fake_queue_free(b->q);
	fake_free(b->at);
	RANK_CHECKF(r, !fake_live(), "%d things of the driver's are left", fake_live());
}

static tuttiResult_t sum(struct rank *r, const struct buffers *b, size_t n)
{
	return tuttiAllReduce(b->at, b->at, n, tuttiFloat32, tuttiSum, r->comm, b->q);
}

static void error_is(struct rank *r, tuttiResult_t want, const char *words)
{
	tuttiResult_t state = tuttiSuccess;
	double t = seconds_now();

	while (state == tuttiSuccess && seconds_now() - t < LONG)
		tuttiCommGetAsyncError(r->comm, &state);
	RANK_CHECKF(r, state == want && strstr(tuttiGetLastError(r->comm), words), "'%s': %s",
		    tuttiGetErrorString(state), tuttiGetLastError(r->comm));
}

static void start_but(int n, rank_fn fn, void *arg, int except)
{
	static struct procs ps;

	procs_start(&ps, n, 0, "shm,tcp", fn, arg);
	procs_wait(&ps, 3 * LONG);
	procs_expect(&ps, 1, except);
}

static void start(int n, rank_fn fn)
{
	start_but(n, fn, NULL, -1);
}

/* The kernels of all others wait for the last rank, which is there and does not call. */
static void late_rank(struct rank *r)
{
	tuttiConfig_t config = TUTTI_CONFIG_INITIALIZER;
	struct buffers b;
	char who[40];

	setenv("TUTTI_LOG", "none", 1);
	config.arrivalDeadline = 1;
	b = begin(r, &config);
	RANK_OK(r, sum(r, &b, N));
	fake_queue_sync(b.q);
	if (r->rank < r->n - 1)
		RANK_OK(r, sum(r, &b, N));
	snprintf(who, sizeof(who), "no call by rank %d", r->n - 1);
	error_is(r, r->rank ? tuttiRemoteError : tuttiTimeout, who);
	end(r, &b, tuttiCommAbort);
}

/* Whichever of the two that wait is the first to give up: the others hear its words. */
static void late(void)
{
	start(2, late_rank);
}

/* Their kernels wait for messages that never come, or take those of another call for their own. */
static void different_rank(struct rank *r)
{
	struct buffers b;

	setenv("TUTTI_LOG", "none", 1);
	b = begin(r, NULL);
	for (int i = 0; i < 3; i++)
		RANK_OK(r, sum(r, &b, 77));
	(void)sum(r, &b, r->rank ? N : N + 1);
	error_is(r, tuttiMismatch, "ranks called different things");
	end(r, &b, tuttiCommAbort);
}

static void different(void)
{
	for (int n = 2; n < 5; n++)
		start(n, different_rank);
}

/* The same sizes over and over, on two streams in turn: programs stay, and counts go on. */
static void steady_rank(struct rank *r)
{
	enum { CALLS = 60 };
	struct buffers b = begin(r, NULL);
	tuttiStream_t other = fake_queue_new();
	float times = 1;

	for (int i = 0; i < CALLS; i++) {
		size_t n = i % 3 ? 100 : 3000;

		RANK_OK(r, tuttiBroadcast(b.at, b.at, n, tuttiFloat32, i % r->n, r->comm, i % 4 < 2 ? b.q : other));
		if (i % 20 == 19) {
			fake_queue_sync(b.q);
			fake_queue_sync(other);
			RANK_OK(r, tuttiAllReduce(b.at, b.at, 3000, tuttiFloat32, tuttiSum, r->comm, b.q));
			fake_queue_sync(b.q);
			times *= (float)r->n;
			for (int k = 0; k < 3000; k++)
				RANK_CHECKF(r, b.view[k] == times * (float)(k % 5), "call %d, element %d: %g", i, k,
					    (double)b.view[k]);
		}
	}
	fake_queue_free(other);
	end(r, &b, tuttiCommDestroy);
}

static void steady(void)
{
	for (int n = 2; n < 5; n++)
		start(n, steady_rank);
}

/* Of three ranks number 1 is killed, when the kernels of so many calls of each stand on its stream, the first of them
 * begun; then the others call again. */
struct moment {
	const char *words;
	int calls[3], more[3];
};

/* All ranks come here, the n-th time. */
static void meet(struct rank *r, int n)
{
	_Atomic int *passed = (_Atomic int *)r->procs->shared->user;

	atomic_fetch_add(passed, 1);
	while (atomic_load(passed) < n * r->n)
		usleep(1000);
}

static void wait_and_die(struct rank *r, const struct moment *m)
{
	for (int i = 0; i < r->n; i++)
		while (m->calls[i] && tt_peers_absent(r->comm->peers, i, 2))
			usleep(1000);
	kill(getpid(), SIGKILL);
}

static void killed_rank(struct rank *r)
{
	const struct moment *m = r->arg;
	struct buffers b;

	setenv("TUTTI_LOG", "none", 1);
	b = begin(r, NULL);
	RANK_OK(r, sum(r, &b, N));
	fake_queue_sync(b.q);
	while (atomic_load(&r->comm->finished) < atomic_load(&r->comm->issued))
		usleep(1000); /* it makes connections */
	meet(r, 1);
	for (int i = 0; i < m->calls[r->rank]; i++)
		RANK_OK(r, sum(r, &b, N));
	meet(r, 2);
	if (r->rank == 1)
		wait_and_die(r, m);
	while (atomic_load(&r->comm->dead_rank) < 0)
		usleep(1000);
	for (int i = 0; i < m->more[r->rank]; i++)
		(void)sum(r, &b, N); /* may know already */
	error_is(r, tuttiPeerDead, "rank 1");
	end(r, &b, tuttiCommAbort);
}

static void killed(void)
{
	static struct moment moments[] = {
		{ "the others wait in their kernels", { 1, 0, 1 }, { 0, 0, 0 } },
		{ "it waits in its kernel", { 1, 1, 0 }, { 0, 0, 0 } },
		{ "it waits in its kernel, and who is late calls", { 1, 1, 0 }, { 0, 0, 1 } },
		{ "between calls", { 0, 0, 0 }, { 1, 0, 1 } },
		{ "much stands on streams, and more comes", { 50, 20, 50 }, { 10, 0, 10 } },
		{ "much stands on one stream alone", { 50, 0, 0 }, { 0, 0, 2 } },
	};

	for (size_t i = 0; i < sizeof(moments) / sizeof(moments[0]); i++) {
		fprintf(stderr, "killed: %s\n", moments[i].words);
		start_but(3, killed_rank, &moments[i], 1);
	}
}

const struct test tests[] = {
	{ "a rank that does not call is named", late, 60 },
	{ "ranks that call different things", different, 120 },
	{ "many calls on two streams", steady, 120 },
	{ "a rank is killed", killed, 10 * LONG },
};
const int ntests = sizeof(tests) / sizeof(tests[0]);
