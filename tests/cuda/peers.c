/* Device links, over the fake driver: ranks as processes and threads on one device and on two, as TEST_DEVICES says;
 * TEST_LINKS=0: there must be none, and all goes well without. SPDX-License-Identifier: Apache-2.0 */
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

struct vec {
	float *at, *view;
	size_t n;
};

static struct vec vec_new(size_t n, float x)
{
	struct vec v = { .at = fake_alloc(n * sizeof(float)), .n = n };

	v.view = fake_view(v.at);
	for (size_t i = 0; i < n; i++)
		v.view[i] = x + (float)(i % 5);
	return v;
}

static void expect(struct rank *r, const float *p, size_t n, float x, float times, const char *what)
{
	for (size_t i = 0; i < n; i++)
		RANK_CHECKF(r, p[i] == x + times * (float)(i % 5), "%s: element %zu of %zu is %g, not %g", what, i, n,
			    (double)p[i], (double)(x + times * (float)(i % 5)));
}

static float sum_of_ranks(const struct rank *r)
{
	return (float)(r->n * (r->n - 1) / 2);
}

/* Each with its own device or process, as the harness places them. */
static bool has_link(const struct rank *r, int peer)
{
	bool one = (peer - r->rank) % (int)test_setting("TEST_DEVICES", 1) == 0;

	if (r->procs && test_setting("FAKE_CUDA_OPEN", 0))
		return false;
	return test_setting("TEST_LINKS", 1) && peer != r->rank && (r->procs || !one) &&
	       (one || (test_setting("FAKE_CUDA_PEERS", 1) && !test_setting("FAKE_CUDA_CORRUPT", 0) &&
			!test_setting("FAKE_CUDA_STALL", 0)));
}

/* Blocks run the calls where each rank has a device of its own, and nowhere else. */
static bool is_driven(const struct rank *r)
{
	bool all = test_setting("TUTTI_CUDA_DEVICE_DRIVEN", 0) && r->n <= test_setting("TEST_DEVICES", 1);

	for (int i = 0; i < r->n; i++)
		all &= i == r->rank || has_link(r, i);
	return all;
}

static void check_links(struct rank *r)
{
	bool any = false, used = is_driven(r);

	for (int i = 0; i < r->n; i++)
		for (int way = 0; way < 2; way++) {
			struct tt_peer_dir *d = r->comm->peers ? tt_peers_dir(r->comm->peers, i, 0, way) : NULL;

			RANK_CHECKF(r, !d == !has_link(r, i), "rank %d has %s device link to %d", r->rank,
				    d ? "a" : "no", i);
			any |= d != NULL;
			/* the lane 3 is of no use here */
			used |= d && tt_peer_look(d).enqueued !=
				     tt_peer_look(tt_peers_dir(r->comm->peers, i, 3, way)).enqueued;
		}
	RANK_CHECKF(r, tt_peers_drive(r->comm->peers) == is_driven(r) && !r->comm->grid == !is_driven(r),
		    "rank %d: blocks are %s", r->rank, is_driven(r) ? "not used" : "used");
	RANK_CHECKF(r, !any || used, "rank %d has not used its device links", r->rank);
}

static void collectives(struct rank *r)
{
	static const size_t sizes[] = { 0, 1, 1000, 32768, 32769, 300001 };
	tuttiStream_t q = fake_queue_new();
	struct vec v;

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		r->step = (long)i;
		v = vec_new(sizes[i] + 1, (float)r->rank);
		RANK_OK(r, tuttiAllReduce(v.at, v.at, sizes[i], tuttiFloat32, tuttiSum, r->comm, q));
		RANK_OK(r, tuttiBroadcast(v.at, v.at, sizes[i], tuttiFloat32, r->n - 1, r->comm, q));
		fake_queue_sync(q);
		expect(r, v.view, sizes[i], sum_of_ranks(r), (float)r->n, "sum");
		fake_free(v.at);
	}
	fake_queue_free(q);
}

/* Calls in turn on two streams, none of which is waited for. */
static void two_streams(struct rank *r)
{
	enum { CALLS = 20 };
	tuttiStream_t q[2] = { fake_queue_new(), fake_queue_new() };
	struct vec v[CALLS];

	for (int i = 0; i < CALLS; i++)
		v[i] = vec_new((size_t)(1 + i * 5000), (float)(r->rank + i));
	for (int i = 0; i < CALLS; i++)
		RANK_OK(r, tuttiAllReduce(v[i].at, v[i].at, v[i].n, tuttiFloat32, tuttiSum, r->comm, q[(i / 2) % 2]));
	fake_queue_sync(q[0]);
	fake_queue_sync(q[1]);
	for (int i = 0; i < CALLS; i++) {
		r->step = i;
		expect(r, v[i].view, v[i].n, sum_of_ranks(r) + (float)(i * r->n), (float)r->n, "sum");
		fake_free(v[i].at);
	}
	fake_queue_free(q[0]);
	fake_queue_free(q[1]);
}

/* Some call on host memory, blocking or in a group, where others call on a device. */
static void mixed(struct rank *r)
{
	tuttiStream_t q = fake_queue_new();
	static _Thread_local float host[2][40000];

	for (int round = 0; round < 8; round++) {
		size_t n = round % 2 ? 40000 : 77;
		struct vec v = vec_new(n, (float)r->rank);
		bool group = round & 2;

		r->step = round;
		memcpy(host[0], v.view, n * sizeof(float));
		if (group)
			RANK_OK(r, tuttiGroupStart());
		if ((r->rank + round) % 2)
			RANK_OK(r, tuttiAllReduce(host[0], host[1], n, tuttiFloat32, tuttiSum, r->comm, NULL));
		else
			RANK_OK(r, tuttiAllReduce(v.at, v.at, n, tuttiFloat32, tuttiSum, r->comm, q));
		if (group)
			RANK_OK(r, tuttiGroupEnd());
		fake_queue_sync(q);
		expect(r, (r->rank + round) % 2 ? host[1] : v.view, n, sum_of_ranks(r), (float)r->n, "sum");
		fake_free(v.at);
	}
	fake_queue_free(q);
}

/* Calls on host streams, each reading what the one before has written there, calls on a device between them; ranks go
 * to two communicators in another order, so a call that waited for others would wait for ever. */
static void host_streams(struct rank *r)
{
	enum { ROUNDS = 12, MOST = 60000 };
	static _Thread_local double host[2][MOST];
	/* With these what waits for one's stream stops calls of the other. */
	bool one_order = test_setting("FAKE_CUDA_LOADS", 0) || test_setting("FAKE_CUDA_QUEUES", 0) ||
			 test_setting("FAKE_CUDA_LAUNCH_BLOCKING", 0);
	tuttiComm_t comm[2] = { r->comm };
	tuttiStream_t s[2], q = fake_queue_new();
	struct vec v;

	RANK_OK(r, tuttiCommSplit(r->comm, 0, r->rank, &comm[1], NULL));
	RANK_OK(r, tuttiHostStreamCreate(&s[0]));
	RANK_OK(r, tuttiHostStreamCreate(&s[1]));
	v = vec_new(1000, (float)r->rank);
	for (int round = 0; round < ROUNDS; round++) {
		size_t n = round % 2 ? MOST : 3;

		r->step = round;
		for (size_t i = 0; i < n; i++)
			host[0][i] = host[1][i] = (double)(r->rank + round);
		for (int k = 0; k < 4; k++) {
			int i = one_order ? k % 2 : (k + r->rank) % 2;

			RANK_OK(r, tuttiAllReduce(host[i], host[i], n, tuttiFloat64, tuttiSum, comm[i], s[i]));
			if (i == 0)
				RANK_OK(r, tuttiAllReduce(v.at, v.at, v.n, tuttiFloat32, tuttiMax, comm[i], q));
		}
		for (int i = 0; i < 2; i++) {
			RANK_OK(r, tuttiHostStreamSynchronize(s[i]));
			fake_queue_sync(q);
			for (size_t k = 0; k < n; k++)
				RANK_CHECKF(r, host[i][k] == r->n * (r->n * (r->n - 1) / 2 + r->n * round),
					    "element %zu of stream %d is %g", k, i, host[i][k]);
		}
	}
	RANK_OK(r, tuttiCommDestroy(comm[1]));
	fake_free(v.at);
	RANK_OK(r, tuttiHostStreamDestroy(s[0]));
	RANK_OK(r, tuttiHostStreamDestroy(s[1]));
	fake_queue_free(q);
}

static void all_of_it(struct rank *r)
{
	host_streams(r);
	collectives(r);
	check_links(r);
	two_streams(r);
	mixed(r);
}

static void all_threads(void)
{
	fake_start();
	for (int n = 2; n < 5; n++)
		ranks_run(n, 60, all_of_it, NULL);
	CHECKF(!fake_live(), "%d things of the driver's are left", fake_live());
}

static void process_rank(struct rank *r)
{
	tuttiComm_t part;
	int fds;

	fake_start();
	fds = count_fds();
	RANK_OK(r, rank_init(r, NULL));
	all_of_it(r);
	RANK_OK(r, tuttiCommSplit(r->comm, r->rank / 2, 0, &part, NULL));
	RANK_OK(r, tuttiBarrier(part, NULL));
	RANK_OK(r, tuttiCommDestroy(part));
	RANK_OK(r, tuttiBarrier(r->comm, NULL));
	RANK_OK(r, tuttiCommDestroy(r->comm));
	RANK_CHECKF(r, count_fds() <= fds, "%d descriptors, %d before", count_fds(), fds);
	RANK_CHECKF(r, !fake_live(), "%d things of the driver's are left", fake_live());
}

static void all_processes(void)
{
	static struct procs ps;

	for (int n = 2; n < 9; n += n == 4 ? 4 : 1) {
		procs_start(&ps, n, 0, "shm,tcp", process_rank, NULL);
		procs_wait(&ps, 100);
		procs_expect(&ps, 1, -1);
	}
}

/* ---- what goes wrong ---- */

enum { LONG = 60 }; /* seconds, for what comes at once: a busy machine is no error */

/* When it went wrong; with TEST_TELL=1 each says how long after that something came, for docs/gpu.md. */
static _Atomic double *trouble(const struct rank *r)
{
	return (_Atomic double *)r->procs->shared->user;
}

static void tell(const struct rank *r, const char *what)
{
	if (test_setting("TEST_TELL", 0))
		fprintf(stderr, "rank %d of %d: %s after %.3f s\n", r->rank, r->n, what,
			seconds_now() - atomic_load(trouble(r)));
}

static tuttiResult_t wait_for_error(struct rank *r)
{
	tuttiResult_t state = tuttiSuccess;
	double t = seconds_now();

	while (state == tuttiSuccess && seconds_now() - t < LONG)
		tuttiCommGetAsyncError(r->comm, &state);
	return state;
}

/* Rank 1 goes in the midst of many calls; the streams of all others come to their end. */
static void killed_rank(struct rank *r)
{
	enum { CALLS = 30 };
	_Atomic int *passed = (_Atomic int *)(r->procs->shared->user + sizeof(*trouble(r)));
	tuttiStream_t q;
	struct vec v;
	tuttiResult_t state;

	setenv("TUTTI_LOG", "none", 1);
	fake_start();
	RANK_OK(r, rank_init(r, NULL));
	q = fake_queue_new();
	v = vec_new(100000, 0);
	RANK_OK(r, tuttiAllReduce(v.at, v.at, v.n, tuttiFloat32, tuttiMax, r->comm, q)); /* makes connections */
	fake_queue_sync(q);
	RANK_OK(r, tuttiBarrier(r->comm, NULL));
	atomic_fetch_add(passed, 1);
	while (atomic_load(passed) < r->n) /* the barrier makes connections as well */
		usleep(1000);
	for (int i = 0; i < CALLS; i++) {
		if (r->rank == 1 && i == CALLS / 2) {
			atomic_store(trouble(r), seconds_now());
			kill(getpid(), SIGKILL);
		}
		if (tuttiAllReduce(v.at, v.at, v.n, tuttiFloat32, tuttiMax, r->comm, q) != tuttiSuccess)
			break;
	}
	state = wait_for_error(r);
	RANK_CHECKF(r, state == tuttiPeerDead && strstr(tuttiGetLastError(r->comm), "rank 1"), "'%s': %s",
		    tuttiGetErrorString(state), tuttiGetLastError(r->comm));
	tell(r, "the error was seen");
	RANK_CHECKF(r, fake_queue_wait(q, LONG), "the stream still waits");
	tell(r, "the stream ended");
	RANK_OK(r, tuttiCommAbort(r->comm));
	tell(r, "abort came back");
	fake_queue_free(q);
	fake_free(v.at);
	RANK_CHECKF(r, !fake_live(), "%d things of the driver's are left", fake_live());
}

static void killed(void)
{
	static struct procs ps;

	for (int i = 0; i < 3; i++) {
		procs_start(&ps, 3, 0, "shm,tcp", killed_rank, NULL);
		procs_wait(&ps, 3 * LONG);
		procs_expect(&ps, 1, 1);
	}
}

/* The last rank does not call, and rank 0 gives up: the others' streams end as well, and not before they can know
 * that the result is none. */
static void given_up_rank(struct rank *r)
{
	_Atomic int *called = (_Atomic int *)(r->procs->shared->user + sizeof(*trouble(r)));
	tuttiStream_t q;
	struct vec v;
	tuttiResult_t state;

	setenv("TUTTI_LOG", "none", 1);
	fake_start();
	RANK_OK(r, rank_init(r, NULL));
	q = fake_queue_new();
	v = vec_new(50000, 0);
	RANK_OK(r, tuttiAllReduce(v.at, v.at, v.n, tuttiFloat32, tuttiSum, r->comm, q));
	fake_queue_sync(q);
	if (r->rank < r->n - 1)
		for (int i = 0; i < 3; i++)
			RANK_OK(r, tuttiAllReduce(v.at, v.at, v.n, tuttiFloat32, tuttiSum, r->comm, q));
	atomic_fetch_add(called, 1);
	while (r->rank == 0 && atomic_load(called) < r->n) /* calls after the abort fail */
		usleep(1000);
	if (r->rank == 0)
		RANK_CHECKF(r, !fake_queue_wait(q, 0.2), "it came back alone");
	if (r->rank == 0) {
		atomic_store(trouble(r), seconds_now());
		RANK_OK(r, tuttiCommAbort(r->comm));
		tell(r, "abort came back");
		RANK_CHECKF(r, fake_queue_wait(q, LONG), "the stream still waits");
		tell(r, "the aborter's stream ended");
	} else {
		if (r->rank < r->n - 1)
			RANK_CHECKF(r, fake_queue_wait(q, LONG), "the stream still waits");
		else
			wait_for_error(r);
		tell(r, r->rank < r->n - 1 ? "the stream ended" : "the error was seen");
		RANK_OK(r, tuttiCommGetAsyncError(r->comm, &state));
		RANK_CHECKF(r, state != tuttiSuccess, "a call that cannot have ended well has");
		RANK_OK(r, tuttiCommAbort(r->comm));
	}
	fake_queue_free(q);
	RANK_CHECKF(r, !fake_live(), "%d things of the driver's are left", fake_live());
}

static void given_up(void)
{
	static struct procs ps;

	for (int n = 2; n < 5; n++) {
		procs_start(&ps, n, 0, "shm,tcp", given_up_rank, NULL);
		procs_wait(&ps, 3 * LONG);
		procs_expect(&ps, 1, -1);
	}
}

/* A Send and its Recv that differ, after some that are alike, are noticed on both sides, whatever fits into whose
 * slots. */
struct pair_of_calls {
	size_t sent, received;
	tuttiDataType_t type; /* of the Recv */
	bool more;            /* further messages follow */
};

static void differ_rank(struct rank *r)
{
	const struct pair_of_calls *d = r->arg;
	tuttiResult_t state, res = tuttiSuccess;
	tuttiStream_t q;
	struct vec v;

	setenv("TUTTI_LOG", "none", 1);
	fake_start();
	RANK_OK(r, rank_init(r, NULL));
	q = fake_queue_new();
	v = vec_new(500000, 0);
	for (int i = 0; i < 30 && res == tuttiSuccess && (d->more || i < 15); i++) {
		struct pair_of_calls c = i == 14 ? *d : (struct pair_of_calls){ 10, 10, tuttiFloat32, false };

		res = r->rank ? tuttiRecv(v.at, c.received, c.type, 0, r->comm, q) :
				tuttiSend(v.at, c.sent, tuttiFloat32, 1, r->comm, q);
	}
	state = wait_for_error(r);
	RANK_CHECKF(r, state == tuttiMismatch && strstr(tuttiGetLastError(r->comm), "Send"), "'%s': %s",
		    tuttiGetErrorString(state), tuttiGetLastError(r->comm));
	RANK_CHECKF(r, fake_queue_wait(q, LONG), "the stream still waits");
	RANK_OK(r, tuttiCommAbort(r->comm));
	fake_queue_free(q);
	fake_free(v.at);
}

static void differing(void)
{
	static struct pair_of_calls cases[] = {
		{ 3, 5, tuttiFloat32, false }, { 10, 10, tuttiInt32, false }, { 10, 10, tuttiInt32, true },
		{ 100, 400000, tuttiFloat32, false }, { 400000, 100, tuttiFloat32, true },
		{ 0, 1, tuttiFloat32, true },
	};
	static struct procs ps;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		procs_start(&ps, 2, 0, "shm,tcp", differ_rank, &cases[i]);
		procs_wait(&ps, 3 * LONG);
		procs_expect(&ps, 1, -1);
	}
}

/* Memory for users is of the kind that can be shared, and goes when it is given back. */
static void memory(void)
{
	void *p;

	fake_start();
	fake_use(true);
	CHECK(tuttiMemAlloc(&p, 100) == tuttiSuccess);
	CHECK(fake_view(p) != p && (fake_live() > 0) == (test_setting("FAKE_CUDA_VMM", 1) != 0));
	memset(fake_view(p), 1, 100);
	CHECK(tuttiMemFree(p) == tuttiSuccess && fake_live() == 0);
	fake_use(false);
}

const struct test tests[] = {
	{ "processes", all_processes, 180 }, /* first those that fork */
	{ "a rank is killed", killed, 10 * LONG },
	{ "a rank gives up", given_up, 10 * LONG },
	{ "Send and Recv that differ", differing, 10 * LONG },
	{ "threads", all_threads, 120 },
	{ "memory for users", memory, 20 },
};
const int ntests = sizeof(tests) / sizeof(tests[0]);
