/* Calls on device memory, over the fake kind: order, many in flight, groups, and what goes wrong. The random suite
 * runs over it as well. SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fake.h"
#include "mem.h"
#include "ranks.h"
#include "test.h"

/* ---- memory ---- */

static int child_reads(const volatile int *p)
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		signal(SIGSEGV, SIG_DFL);
		_exit(*p == 12345);
	}
	CHECK(pid > 0 && waitpid(pid, &status, 0) == pid);
	return status;
}

static void memory(void)
{
	void *host, *device;

	fake_start();
	CHECK(tuttiMemAlloc(&host, 100) == tuttiSuccess);
	fake_use(true);
	CHECK(tuttiMemAlloc(&device, 100) == tuttiSuccess);
	fake_use(false);
	CHECK(fake_view(host) == host);
	CHECK(fake_view(device) != device);
	memset(host, 0, 100);
	memset(fake_view(device), 0, 100);
	CHECK(WIFEXITED(child_reads(host)));
	CHECK(WIFSIGNALED(child_reads(device)) || WEXITSTATUS(child_reads(device)) != 0);
	CHECK(tuttiMemFree(host) == tuttiSuccess && tuttiMemFree(device) == tuttiSuccess);
	CHECK(tuttiMemFree(device) == tuttiInvalidArgument);
}

/* ---- floats of a rank ---- */

struct vec {
	float *at, *view; /* the device's address, the test's */
	size_t n;
};

static struct vec vec_new(size_t n)
{
	struct vec v = { .at = fake_alloc(n * sizeof(float)), .n = n };

	v.view = fake_view(v.at);
	return v;
}

static void fill(struct vec v, float x)
{
	for (size_t i = 0; i < v.n; i++)
		v.view[i] = x + (float)(i % 7);
}

static void expect(struct rank *r, struct vec v, float x, float times, const char *what)
{
	for (size_t i = 0; i < v.n; i++)
		RANK_CHECKF(r, v.view[i] == x + times * (float)(i % 7), "%s: element %zu is %g, not %g", what, i,
			    (double)v.view[i], (double)(x + times * (float)(i % 7)));
}

static float sum_of_ranks(const struct rank *r)
{
	return (float)(r->n * (r->n - 1) / 2);
}

/* Each rank works on its own stream, and calls return at once, or all wait for one kernel. */
static void one_kernel(bool on)
{
	setenv("TUTTI_ONE_KERNEL", on ? "1" : "0", 1);
}

/* ---- order ---- */

enum { CALLS = 24 };

/* Many calls in flight on one queue, host calls between them, one wait at the end. */
static void in_flight_rank(struct rank *r)
{
	tuttiStream_t q = fake_queue_new();
	struct vec v[CALLS];
	float host[10];

	for (int i = 0; i < CALLS; i++) {
		v[i] = vec_new(i % 3 ? 1 + (size_t)i * 101 : (size_t)i * 20000 + 1);
		fill(v[i], (float)(r->rank + i));
	}
	for (int i = 0; i < CALLS; i++) {
		r->step = i;
		if (i % 4 == 3)
			RANK_OK(r, FAKE(tuttiBroadcast(v[i].at, v[i].at, v[i].n, tuttiFloat32, i % r->n, r->comm, q)));
		else
			RANK_OK(r, FAKE(tuttiAllReduce(v[i].at, v[i].at, v[i].n, tuttiFloat32, tuttiSum, r->comm, q)));
		if (i % 7)
			continue;
		for (int k = 0; k < 10; k++)
			host[k] = (float)r->rank;
		RANK_OK(r, tuttiAllReduce(host, host, 10, tuttiFloat32, tuttiSum, r->comm, NULL));
		RANK_CHECKF(r, host[3] == sum_of_ranks(r), "a host call among them gives %g", (double)host[3]);
	}
	fake_queue_sync(q);
	for (int i = 0; i < CALLS; i++) {
		r->step = i;
		if (i % 4 == 3)
			expect(r, v[i], (float)(i % r->n + i), 1, "broadcast");
		else
			expect(r, v[i], sum_of_ranks(r) + (float)(i * r->n), (float)r->n, "sum");
		fake_free(v[i].at);
	}
	fake_queue_free(q);
}

static void in_flight(void)
{
	fake_start();
	for (int n = 1; n < 11; n++) {
		one_kernel(n > 5);
		ranks_run(n > 5 ? n - 5 : n, 30, in_flight_rank, NULL);
	}
}

/* A call happens when its queue comes to it: a queue that is busy elsewhere is no rank that stands still. */
static void late_rank(struct rank *r)
{
	static _Atomic int go;
	tuttiStream_t q = fake_queue_new();
	struct vec v = vec_new(5000);
	tuttiResult_t state;

	atomic_store(&go, 0);
	RANK_OK(r, tuttiBarrier(r->comm, NULL));
	fill(v, (float)r->rank);
	if (r->rank == 0)
		fake_hold(q, &go);
	RANK_OK(r, FAKE(tuttiAllReduce(v.at, v.at, v.n, tuttiFloat32, tuttiSum, r->comm, q)));
	if (r->rank == 0) {
		sleep_s(test_limit(1));
		atomic_store(&go, 1);
	}
	fake_queue_sync(q);
	RANK_OK(r, tuttiCommGetAsyncError(r->comm, &state));
	RANK_CHECKF(r, state == tuttiSuccess, "%s", tuttiGetLastError(r->comm));
	expect(r, v, sum_of_ranks(r), (float)r->n, "sum");
	fake_free(v.at);
	fake_queue_free(q);
}

static void late(void)
{
	char deadline[16];

	fake_start();
	snprintf(deadline, sizeof(deadline), "%g", test_limit(0.4));
	setenv("TUTTI_DEADLINE", deadline, 1);
	for (int on = 1; on >= 0; on--) {
		one_kernel(on);
		ranks_run(3, 20, late_rank, NULL);
	}
	unsetenv("TUTTI_DEADLINE");
}

/* ---- groups ---- */

/* Everybody to everybody, itself included, beyond what slots hold; device and host memory in turn. */
static void exchange_rank(struct rank *r)
{
	tuttiStream_t q = fake_queue_new();
	struct vec out[8], in[8];

	for (int round = 0; round < 6; round++) {
		size_t n = round % 3 == 0 ? 300000 : round % 3 == 1 ? 1 : 5000;

		r->step = round;
		for (int k = 0; k < r->n; k++) {
			out[k] = vec_new(n + (size_t)(k + r->rank) * 1000);
			in[k] = vec_new(n + (size_t)(k + r->rank) * 1000);
			fill(out[k], (float)(100 * r->rank + k));
		}
		RANK_OK(r, tuttiGroupStart());
		for (int k = 0; k < r->n; k++) {
			int peer = round % 2 ? r->n - 1 - k : k;

			RANK_OK(r, tuttiRecv(in[peer].at, in[peer].n, tuttiFloat32, peer, r->comm, q));
			RANK_OK(r, tuttiSend(out[peer].at, out[peer].n, tuttiFloat32, peer, r->comm, q));
		}
		RANK_OK(r, FAKE(tuttiGroupEnd()));
		fake_queue_sync(q);
		for (int k = 0; k < r->n; k++) {
			expect(r, in[k], (float)(100 * k + r->rank), 1, "message");
			fake_free(in[k].at);
			fake_free(out[k].at);
		}
	}
	fake_queue_free(q);
}

static void exchange(void)
{
	fake_start();
	for (int n = 1; n < 5; n++)
		ranks_run(n, 30, exchange_rank, NULL);
}

/* Several messages to one rank in a group, beyond what slots hold, which it takes one by one. */
static void in_a_row_rank(struct rank *r)
{
	enum { N = 3 };
	tuttiStream_t q = fake_queue_new();
	int next = (r->rank + 1) % r->n, before = (r->rank + r->n - 1) % r->n;
	struct vec out[N], in[N];

	for (int i = 0; i < N; i++) {
		out[i] = vec_new((size_t)(400000 - 150000 * i));
		in[i] = vec_new(out[i].n);
		fill(out[i], (float)(10 * r->rank + i));
	}
	if (r->rank % 2 == 0) {
		RANK_OK(r, tuttiGroupStart());
		for (int i = 0; i < N; i++)
			RANK_OK(r, tuttiSend(out[i].at, out[i].n, tuttiFloat32, next, r->comm, q));
		RANK_OK(r, FAKE(tuttiGroupEnd()));
	}
	for (int i = 0; i < N; i++)
		RANK_OK(r, FAKE(tuttiRecv(in[i].at, in[i].n, tuttiFloat32, before, r->comm, q)));
	for (int i = 0; i < N && r->rank % 2; i++)
		RANK_OK(r, FAKE(tuttiSend(out[i].at, out[i].n, tuttiFloat32, next, r->comm, q)));
	fake_queue_sync(q);
	for (int i = 0; i < N; i++) {
		r->step = i;
		expect(r, in[i], (float)(10 * before + i), 1, "message");
		fake_free(in[i].at);
		fake_free(out[i].at);
	}
	fake_queue_free(q);
}

static void in_a_row(void)
{
	fake_start();
	ranks_run(2, 30, in_a_row_rank, NULL);
	ranks_run(4, 30, in_a_row_rank, NULL);
}

/* Two communicators, in another order on every other rank: in one group on one queue, and on two queues. */
static void two_comms_rank(struct rank *r)
{
	tuttiStream_t q[2] = { fake_queue_new(), fake_queue_new() };
	tuttiComm_t c[2] = { r->comm };
	struct vec v[2];

	RANK_OK(r, tuttiCommSplit(r->comm, 0, -r->rank, &c[1], NULL));
	for (int round = 0; round < 20; round++) {
		bool group = round % 2;

		for (int i = 0; i < 2; i++) {
			v[i] = vec_new((size_t)(1 + round * 3000));
			fill(v[i], (float)(r->rank + i));
		}
		if (group)
			RANK_OK(r, tuttiGroupStart());
		for (int k = 0; k < 2; k++) {
			int i = (k + r->rank) % 2;

			RANK_OK(r, FAKE(tuttiAllReduce(v[i].at, v[i].at, v[i].n, tuttiFloat32, tuttiSum, c[i],
						       q[group ? 0 : i])));
		}
		if (group)
			RANK_OK(r, FAKE(tuttiGroupEnd()));
		for (int i = 0; i < 2; i++)
			fake_queue_sync(q[i]);
		for (int i = 0; i < 2; i++) {
			expect(r, v[i], sum_of_ranks(r) + (float)(i * r->n), (float)r->n, "sum");
			fake_free(v[i].at);
		}
	}
	RANK_OK(r, tuttiCommDestroy(c[1]));
	fake_queue_free(q[0]);
	fake_queue_free(q[1]);
}

static void two_comms(void)
{
	fake_start();
	one_kernel(false);
	ranks_run(4, 30, two_comms_rank, NULL);
}

/* One thread drives all ranks, each on a queue of its own; host memory in the same group. */
static void one_thread(void)
{
	enum { N = 3 };
	tuttiComm_t c[N];
	tuttiStream_t q[N];
	struct vec v[N];
	float host[N];

	fake_start();
	one_kernel(false);
	CHECK(tuttiCommInitAll(c, N, NULL) == tuttiSuccess);
	for (int i = 0; i < N; i++) {
		q[i] = fake_queue_new();
		v[i] = vec_new(70000);
		fill(v[i], (float)i);
		host[i] = (float)i;
	}
	CHECK(tuttiGroupStart() == tuttiSuccess);
	for (int i = 0; i < N; i++)
		CHECK(tuttiAllReduce(v[i].at, v[i].at, v[i].n, tuttiFloat32, tuttiSum, c[i], q[i]) == tuttiSuccess);
	for (int i = 0; i < N; i++)
		CHECK(tuttiAllReduce(&host[i], &host[i], 1, tuttiFloat32, tuttiSum, c[i], NULL) == tuttiSuccess);
	CHECKF(FAKE(tuttiGroupEnd()) == tuttiSuccess, "%s", tuttiGetLastError(NULL));
	for (int i = 0; i < N; i++) {
		CHECK(host[i] == 3);
		fake_queue_sync(q[i]);
		CHECK(v[i].view[8] == 3 + 3 * 1.0f);
	}
	CHECK(tuttiGroupStart() == tuttiSuccess);
	for (int i = 0; i < N; i++)
		CHECK(tuttiAllReduce(v[i].at, v[i].at, 5, tuttiFloat32, tuttiSum, c[i], q[0]) == tuttiSuccess);
	CHECK(FAKE(tuttiGroupEnd()) == tuttiInvalidUsage);
	CHECK(strstr(tuttiGetLastError(NULL), "a stream of its own"));
	for (int i = 0; i < N; i++) {
		CHECK(tuttiCommDestroy(c[i]) == tuttiSuccess);
		fake_queue_free(q[i]);
		fake_free(v[i].at);
	}
}

/* ---- what RDMA may use of it ---- */

static struct {
	_Atomic int added, dropped;
} ranges;

static void *range_added(struct tt_mem_watcher *w, void *p, size_t n, bool sole)
{
	atomic_fetch_add(&ranges.added, 1);
	return p;
}

/* Its memory must still be there. */
static void range_dropped(struct tt_mem_watcher *w, void *p)
{
	(void)*(volatile char *)p;
	atomic_fetch_add(&ranges.dropped, 1);
}

static void slots_rank(struct rank *r)
{
	tuttiStream_t q = fake_queue_new();
	struct vec v = vec_new(200000);
	bool kept = false;
	int before;

	for (size_t n = 50000; n <= v.n; n *= 2) {
		fill(v, (float)r->rank);
		RANK_OK(r, FAKE(tuttiAllReduce(v.at, v.at, n, tuttiFloat32, tuttiSum, r->comm, q)));
		fake_queue_sync(q);
	}
	RANK_OK(r, tuttiBarrier(r->comm, NULL));
	before = atomic_load(&ranges.added) - atomic_load(&ranges.dropped);
	RANK_CHECKF(r, before >= r->n, "%d ranges", before);
	for (int i = 0; i < 20; i++) { /* a run may not be over yet, and another takes its place */
		RANK_OK(r, tuttiBarrier(r->comm, NULL));
		before = atomic_load(&ranges.added);
		RANK_OK(r, FAKE(tuttiAllReduce(v.at, v.at, v.n, tuttiFloat32, tuttiSum, r->comm, q)));
		fake_queue_sync(q);
		kept |= atomic_load(&ranges.added) == before;
	}
	RANK_CHECKF(r, kept, "each call has a range of its own");
	fake_queue_free(q);
	fake_free(v.at);
}

/* Pinned slots are ranges that stay, until before their memory is freed. */
static void slots(void)
{
	static struct tt_mem_watcher w = { .add = range_added, .drop = range_dropped };

	fake_start();
	one_kernel(false);
	CHECK(tt_mem_watch(&w));
	ranks_run(3, 30, slots_rank, NULL);
	CHECKF(atomic_load(&ranges.added) == atomic_load(&ranges.dropped), "%d ranges came, %d went",
	       atomic_load(&ranges.added), atomic_load(&ranges.dropped));
	tt_mem_unwatch(&w);
}

/* ---- what goes wrong ---- */

static void refused_rank(struct rank *r)
{
	struct vec v = vec_new(10);
	float host[10] = { 0 };
	tuttiStream_t s;
	tuttiRedOp_t op;
	int stray;

	RANK_OK(r, tuttiHostStreamCreate(&s));
	RANK_CHECKF(r, tuttiAllReduce(v.at, v.at, 10, tuttiFloat32, tuttiSum, r->comm, s) == tuttiInvalidArgument,
		    "device memory on a host stream");
	RANK_CHECKF(r, strstr(tuttiGetLastError(NULL), "host stream"), "%s", tuttiGetLastError(NULL));
	RANK_CHECKF(r, tuttiAllReduce(host, v.at, 10, tuttiFloat32, tuttiSum, r->comm, (tuttiStream_t)&stray) ==
			       tuttiInvalidArgument, "a stray stream");
	RANK_CHECKF(r, tuttiRedOpCreatePreMulSum(&op, v.at, tuttiFloat32, tuttiScalarHostImmediate, r->comm) ==
			       tuttiInvalidArgument, "a scalar of the device, to be read at once");
	RANK_OK(r, tuttiRedOpCreatePreMulSum(&op, v.at, tuttiFloat32, tuttiScalarDevice, r->comm));
	if (!getenv("TUTTI_DEVICE_LINKS")) /* with them the device takes host memory too */
		RANK_CHECKF(r, tuttiAllReduce(host, host, 10, tuttiFloat32, op, r->comm, NULL) == tuttiInvalidArgument,
			    "a scalar of the device, and a call of the host");
	RANK_OK(r, tuttiBarrier(r->comm, NULL));
	RANK_OK(r, tuttiHostStreamDestroy(s));
	fake_free(v.at);
}

static void refused(void)
{
	fake_start();
	ranks_run(2, 20, refused_rank, NULL);
}

/* Rank 0 is on its queue in a call that nobody else makes; Abort lets the queue go, whatever the others do. */
static _Atomic int aborted;

static void abort_rank(struct rank *r)
{
	tuttiStream_t q = fake_queue_new();
	struct vec v = vec_new(*(const size_t *)r->arg);

	if (r->rank == 0) {
		RANK_OK(r, FAKE(tuttiAllReduce(v.at, v.at, v.n, tuttiFloat32, tuttiSum, r->comm, q)));
		RANK_OK(r, FAKE(tuttiAllReduce(v.at, v.at, v.n, tuttiFloat32, tuttiSum, r->comm, q)));
		RANK_CHECKF(r, !fake_queue_wait(q, 0.3), "it came back alone");
		RANK_OK(r, tuttiCommAbort(r->comm));
		r->comm = NULL;
		RANK_CHECKF(r, fake_queue_wait(q, 15), "the queue still waits");
		atomic_store(&aborted, 1);
	} else {
		while (!atomic_load(&aborted))
			sleep_s(0.01);
		tuttiCommAbort(r->comm);
		r->comm = NULL;
	}
	fake_queue_free(q);
	fake_free(v.at);
}

static void abort_stuck(void)
{
	size_t sizes[] = { 3, 700000 };

	fake_start();
	one_kernel(false);
	setenv("TUTTI_LOG", "none", 0);
	for (int i = 0; i < 2; i++) {
		atomic_store(&aborted, 0);
		ranks_run(3, 20, abort_rank, &sizes[i]);
	}
}

/* Calls that differ end on both sides; the next call says so too. */
static void mismatch_rank(struct rank *r)
{
	tuttiStream_t q = fake_queue_new();
	struct vec v = vec_new(2000);
	tuttiResult_t state = tuttiSuccess;

	RANK_OK(r, FAKE(tuttiAllReduce(v.at, v.at, r->rank ? 2000 : 1999, tuttiFloat32, tuttiSum, r->comm, q)));
	while (state == tuttiSuccess) {
		sleep_s(0.001);
		tuttiCommGetAsyncError(r->comm, &state);
	}
	RANK_CHECKF(r, state == tuttiMismatch || state == tuttiRemoteError, "state '%s'", tuttiGetErrorString(state));
	RANK_CHECKF(r, strstr(tuttiGetLastError(r->comm), "1999") && strstr(tuttiGetLastError(r->comm), "2000"), "%s",
		    tuttiGetLastError(r->comm));
	RANK_CHECKF(r, fake_queue_wait(q, 15), "the queue still waits");
	RANK_CHECKF(r, FAKE(tuttiAllReduce(v.at, v.at, 5, tuttiFloat32, tuttiSum, r->comm, q)) == state,
		    "the next call");
	tuttiCommAbort(r->comm);
	r->comm = NULL;
	fake_queue_free(q);
	fake_free(v.at);
}

static void mismatch(void)
{
	fake_start();
	one_kernel(false);
	setenv("TUTTI_LOG", "none", 0);
	ranks_run(2, 20, mismatch_rank, NULL);
}

/* A process dies: the queues of the others are let go, and the error names it. */
static void death_rank(struct rank *r)
{
	tuttiResult_t state = tuttiSuccess;
	tuttiStream_t q;
	struct vec v;

	setenv("TUTTI_LOG", "none", 0);
	fake_start();
	RANK_OK(r, rank_init(r, NULL));
	q = fake_queue_new();
	v = vec_new(400000);
	for (int i = 0; i < 5; i++)
		RANK_OK(r, FAKE(tuttiAllReduce(v.at, v.at, v.n, tuttiFloat32, tuttiMax, r->comm, q)));
	fake_queue_sync(q);
	RANK_OK(r, tuttiBarrier(r->comm, NULL));
	if (r->rank == 1)
		kill(getpid(), SIGKILL);
	if (FAKE(tuttiAllReduce(v.at, v.at, v.n, tuttiFloat32, tuttiMax, r->comm, q)) == tuttiSuccess)
		RANK_CHECKF(r, fake_queue_wait(q, 30), "the queue still waits");
	while (state == tuttiSuccess) {
		sleep_s(0.001);
		tuttiCommGetAsyncError(r->comm, &state);
	}
	RANK_CHECKF(r, state == tuttiPeerDead && strstr(tuttiGetLastError(r->comm), "rank 1"), "'%s': %s",
		    tuttiGetErrorString(state), tuttiGetLastError(r->comm));
	RANK_OK(r, tuttiCommAbort(r->comm));
	fake_queue_free(q);
}

static void death(void)
{
	static struct procs ps;
	static const char *const transports[] = { "shm", "tcp" };

	for (int i = 0; i < 2; i++) {
		procs_start(&ps, 3, 0, transports[i], death_rank, NULL);
		procs_wait(&ps, 40);
		procs_expect(&ps, 1, 1);
	}
}

const struct test tests[] = {
	{ "a process that dies while queues wait", death, 100 }, /* first: it forks */
	{ "memory", memory, 20 },
	{ "many calls in flight", in_flight, 120 },
	{ "a queue that is busy elsewhere", late, 30 },
	{ "sends and receives in groups", exchange, 120 },
	{ "messages in a row, in a group on one side", in_a_row, 60 },
	{ "two communicators in another order", two_comms, 60 },
	{ "one thread drives all ranks", one_thread, 30 },
	{ "slots are ranges while they live", slots, 60 },
	{ "refused", refused, 30 },
	{ "abort of a stuck call", abort_stuck, 40 },
	{ "mismatch", mismatch, 30 },
};
const int ntests = sizeof(tests) / sizeof(tests[0]);
