/* Calls that blocks of each rank's device run (TUTTI_CUDA_DEVICE_DRIVEN), over the fake driver, ranks as processes on a
 * device each: what the host sees of them while nothing but kernels moves. Run by peers.sh.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "comm.h"
#include "fake.h"
#include "ranks.h"
#include "test.h"

enum { N = 50000 };

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
	RANK_CHECKF(r, fake_queue_wait(b->q, 10), "the stream still waits");
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

	while (state == tuttiSuccess && seconds_now() - t < 20)
		tuttiCommGetAsyncError(r->comm, &state);
	RANK_CHECKF(r, state == want && strstr(tuttiGetLastError(r->comm), words), "'%s': %s",
		    tuttiGetErrorString(state), tuttiGetLastError(r->comm));
}

static void start(int n, rank_fn fn)
{
	static struct procs ps;

	procs_start(&ps, n, 0, "shm,tcp", fn, NULL);
	procs_wait(&ps, 60);
	procs_expect(&ps, 1, -1);
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

const struct test tests[] = {
	{ "a rank that does not call is named", late, 60 },
	{ "ranks that call different things", different, 120 },
	{ "many calls on two streams", steady, 120 },
};
const int ntests = sizeof(tests) / sizeof(tests[0]);
