/* How communicators come and go: one thread with many ranks, nonblocking init, InitAll, Split, destroying in
 * any order. SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "ranks.h"
#include "test.h"

enum { MANY = 5 };

static void ok(tuttiResult_t r, const char *what)
{
	CHECKF(r == tuttiSuccess, "%s: %s: %s", what, tuttiGetErrorString(r), tuttiGetLastError(NULL));
}

/* AllReduce and Broadcast of all ranks by one thread. */
static void group_works(tuttiComm_t *comm, int n)
{
	double v[16][100], sum = n * (n + 1) / 2.0;

	for (int i = 0; i < n; i++)
		for (int k = 0; k < 100; k++)
			v[i][k] = (i + 1) * (k + 1);
	ok(tuttiGroupStart(), "GroupStart");
	for (int i = 0; i < n; i++)
		ok(tuttiAllReduce(v[i], v[i], 100, tuttiFloat64, tuttiSum, comm[i], NULL), "AllReduce");
	ok(tuttiGroupStart(), "GroupStart"); /* nests */
	for (int i = n - 1; i >= 0; i--)
		ok(tuttiBroadcast(v[i], v[i], 50, tuttiFloat64, n - 1, comm[i], NULL), "Broadcast");
	ok(tuttiGroupEnd(), "inner GroupEnd");
	ok(tuttiGroupEnd(), "GroupEnd");
	for (int i = 0; i < n; i++)
		for (int k = 0; k < 100; k++)
			CHECKF(v[i][k] == sum * (k + 1), "rank %d element %d is %g", i, k, v[i][k]);
}

static void check_ranks(tuttiComm_t *comm, int n)
{
	for (int i = 0; i < n; i++) {
		int count = -1, rank = -1;

		ok(tuttiCommCount(comm[i], &count), "CommCount");
		ok(tuttiCommUserRank(comm[i], &rank), "CommUserRank");
		CHECKF(count == n && rank == i, "comm %d says rank %d of %d", i, rank, count);
	}
}

static void one_thread(void)
{
	tuttiComm_t comm[MANY];
	tuttiUniqueId id;

	ok(tuttiGetUniqueId(&id), "GetUniqueId");
	ok(tuttiGroupStart(), "GroupStart");
	for (int i = 0; i < MANY; i++)
		ok(tuttiCommInitRank(&comm[i], MANY, id, i), "CommInitRank");
	ok(tuttiGroupEnd(), "GroupEnd of init");
	check_ranks(comm, MANY);
	for (int k = 0; k < 10; k++)
		group_works(comm, MANY);
	for (int i = 0; i < MANY; i++)
		ok(tuttiCommDestroy(comm[(i + 2) % MANY]), "CommDestroy");
}

static void init_all(void)
{
	const int host[3] = { -1, -1, -1 };
	tuttiComm_t comm[8];

	for (int n = 1; n <= 8; n++) {
		ok(tuttiCommInitAll(comm, n, n == 3 ? host : NULL), "CommInitAll");
		check_ranks(comm, n);
		group_works(comm, n);
		for (int i = 0; i < n; i++)
			ok(tuttiCommDestroy(comm[i]), "CommDestroy");
	}
}

/* ---- nonblocking init ---- */

static void use(struct rank *r, tuttiComm_t comm, int n)
{
	int32_t one[33];

	for (int i = 0; i < 33; i++)
		one[i] = i;
	RANK_OK(r, tuttiAllReduce(one, one, 33, tuttiInt32, tuttiSum, comm, NULL));
	for (int i = 0; i < 33; i++)
		RANK_CHECKF(r, one[i] == n * i, "element %d is %d, want %d", i, one[i], n * i);
}

static void poll_until_done(struct rank *r, tuttiComm_t comm)
{
	double end = seconds_now() + 20;
	tuttiResult_t state;

	do {
		RANK_OK(r, tuttiCommGetAsyncError(comm, &state));
		RANK_CHECKF(r, state == tuttiSuccess || state == tuttiInProgress, "async error '%s': %s",
			    tuttiGetErrorString(state), tuttiGetLastError(comm));
		RANK_CHECKF(r, seconds_now() < end, "still in progress after 20 s");
		if (state == tuttiInProgress)
			sleep_s(0.001);
	} while (state == tuttiInProgress);
}

/* Init of rank 0 returns while the last rank has not begun its own. */
static _Atomic bool first_is_back;

static void nonblocking_rank(struct rank *r)
{
	tuttiConfig_t config = TUTTI_CONFIG_INITIALIZER;
	const tuttiUniqueId *id = r->arg;
	tuttiResult_t res;
	int32_t v = 1;

	config.blocking = 0;
	while (r->rank == r->n - 1 && !atomic_load(&first_is_back))
		sleep_s(0.01);
	res = tuttiCommInitRankConfig(&r->comm, r->n, *id, r->rank, &config);
	RANK_CHECKF(r, res == tuttiInProgress || res == tuttiSuccess, "init gives '%s': %s",
		    tuttiGetErrorString(res), tuttiGetLastError(NULL));
	if (r->rank == 0) {
		RANK_CHECKF(r, res == tuttiInProgress, "init gave '%s' before all ranks had come",
			    tuttiGetErrorString(res));
		res = tuttiAllReduce(&v, &v, 1, tuttiInt32, tuttiSum, r->comm, NULL);
		RANK_CHECKF(r, res == tuttiInvalidUsage, "a call during init gives '%s'",
			    tuttiGetErrorString(res));
		atomic_store(&first_is_back, true);
	}
	poll_until_done(r, r->comm);
	for (int k = 0; k < 5; k++) {
		res = tuttiAllReduce(&v, &v, 1, tuttiInt32, tuttiMax, r->comm, NULL);
		RANK_CHECKF(r, res == tuttiSuccess || res == tuttiInProgress, "AllReduce gives '%s': %s",
			    tuttiGetErrorString(res), tuttiGetLastError(NULL));
		poll_until_done(r, r->comm);
	}
}

static void nonblocking_init(void)
{
	tuttiUniqueId id;

	ok(tuttiGetUniqueId(&id), "GetUniqueId");
	setenv("TUTTI_LOG", "none", 0);
	ranks_run_bare(3, 40, nonblocking_rank, &id);
}

/* Nobody else ever comes: Abort ends it. */
static void abort_init(void)
{
	tuttiConfig_t config = TUTTI_CONFIG_INITIALIZER;
	tuttiUniqueId id;
	tuttiComm_t comm;
	tuttiResult_t res;

	setenv("TUTTI_LOG", "none", 0);
	ok(tuttiGetUniqueId(&id), "GetUniqueId");
	config.blocking = 0;
	res = tuttiCommInitRankConfig(&comm, 2, id, 0, &config);
	CHECKF(res == tuttiInProgress, "init gives '%s'", tuttiGetErrorString(res));
	sleep_s(0.1);
	ok(tuttiCommAbort(comm), "CommAbort");
}

/* ---- split ---- */

static void split_rank(struct rank *r)
{
	int color = r->rank == 5 ? TUTTI_SPLIT_NOCOLOR : r->rank % 2, count, rank;
	int size = color == 0 ? 3 : 2, want = color == 0 ? 2 - r->rank / 2 : 1 - r->rank / 2;
	tuttiComm_t child = (tuttiComm_t)1, grandchild;

	RANK_OK(r, tuttiCommSplit(r->comm, color, -r->rank, &child, NULL));
	use(r, r->comm, r->n);
	if (color < 0) {
		RANK_CHECKF(r, !child, "NOCOLOR gives a communicator");
		return;
	}
	RANK_OK(r, tuttiCommCount(child, &count));
	RANK_OK(r, tuttiCommUserRank(child, &rank));
	RANK_CHECKF(r, count == size && rank == want, "is %d of %d in the child, want %d of %d", rank,
		    count, want, size);
	use(r, child, size);
	RANK_OK(r, tuttiCommSplit(child, 0, 0, &grandchild, NULL)); /* equal keys: the order stays */
	RANK_OK(r, tuttiCommUserRank(grandchild, &rank));
	RANK_CHECKF(r, rank == want, "is %d in the grandchild, want %d", rank, want);
	use(r, grandchild, size);
	use(r, child, size);
	if (r->rank == 0) { /* any order */
		RANK_OK(r, tuttiCommDestroy(child));
		use(r, grandchild, size);
		RANK_OK(r, tuttiCommDestroy(grandchild));
	} else {
		use(r, grandchild, size);
		RANK_OK(r, tuttiCommDestroy(grandchild));
		RANK_OK(r, tuttiCommDestroy(child));
	}
}

static void split_threads(void)
{
	ranks_run(6, 40, split_rank, NULL);
}

static void split_in_group(void)
{
	tuttiComm_t comm[6], child[6], even[3], odd[3];

	ok(tuttiCommInitAll(comm, 6, NULL), "CommInitAll");
	ok(tuttiGroupStart(), "GroupStart");
	for (int i = 0; i < 6; i++)
		ok(tuttiCommSplit(comm[i], i % 2, i, &child[i], NULL), "CommSplit");
	ok(tuttiGroupEnd(), "GroupEnd of split");
	for (int i = 0; i < 3; i++) {
		even[i] = child[2 * i];
		odd[i] = child[2 * i + 1];
	}
	check_ranks(even, 3);
	check_ranks(odd, 3);
	group_works(odd, 3);
	for (int i = 0; i < 6; i++) /* the parent first */
		ok(tuttiCommDestroy(comm[i]), "CommDestroy of the parent");
	group_works(even, 3);
	for (int i = 0; i < 6; i++)
		ok(tuttiCommDestroy(child[i]), "CommDestroy of a child");
}

/* A parent destroyed while its child works, in an order of its own on each rank. */
static void order_rank(struct rank *r)
{
	tuttiComm_t c[3];

	RANK_OK(r, tuttiCommSplit(r->comm, 0, r->rank, &c[1], NULL));
	RANK_OK(r, tuttiCommSplit(c[1], 7, -r->rank, &c[2], NULL));
	c[0] = r->comm;
	r->comm = NULL;
	for (int i = 0; i < 3; i++)
		use(r, c[i], r->n);
	if (r->rank % 2)
		RANK_OK(r, tuttiCommFinalize(c[r->rank % 3]));
	for (int i = 0; i < 3; i++)
		RANK_OK(r, tuttiCommDestroy(c[(i + r->rank) % 3]));
}

static void destroy_any_order(void)
{
	for (int k = 0; k < 5; k++)
		ranks_run(4, 40, order_rank, NULL);
}

/* The first operation is the last: who sends is gone before the others look. */
static void early_rank(struct rank *r)
{
	int32_t v = r->rank ? 0 : 7;

	if (r->rank)
		sleep_s(0.2);
	RANK_OK(r, tuttiBroadcast(&v, &v, 1, tuttiInt32, 0, r->comm, NULL));
	RANK_CHECKF(r, v == 7, "broadcast gives %d", v);
}

static void leave_early(void)
{
	for (int n = 2; n < 7; n++)
		ranks_run(n, 15, early_rank, NULL);
}

/* Made and destroyed again and again: what stays is nothing. */
static void churn(void)
{
	tuttiComm_t comm[3];
	int fds = 0, threads = 0, rounds = test_setting("TEST_QUICK", 0) ? 20 : 100;

	for (int k = 0; k < rounds; k++) {
		if (k == 5) {
			fds = count_fds();
			threads = count_threads();
		}
		ok(tuttiCommInitAll(comm, 3, NULL), "CommInitAll");
		group_works(comm, 3);
		for (int i = 0; i < 3; i++)
			ok(tuttiCommDestroy(comm[(i + k) % 3]), "CommDestroy");
	}
	CHECKF(count_fds() == fds && count_threads() == threads,
	       "%d descriptors and %d threads after %d rounds, were %d and %d", count_fds(),
	       count_threads(), rounds, fds, threads);
}

/* The node's epoll set is the first of a process, shm's the second. */
static _Atomic int epolls, epoll_refused;

int epoll_create1(int flags)
{
	if (atomic_fetch_add(&epolls, 1) + 1 == atomic_load(&epoll_refused)) {
		errno = EMFILE;
		return -1;
	}
	return (int)syscall(SYS_epoll_create1, flags);
}

static void without_shm_rank(struct rank *r)
{
	int v = 1;

	setenv("TUTTI_DEADLINE", "4", 1);
	atomic_store(&epolls, 0);
	atomic_store(&epoll_refused, r->rank == 1 ? 2 : 0);
	RANK_OK(r, rank_init(r, NULL));
	RANK_OK(r, tuttiAllReduce(&v, &v, 1, tuttiInt32, tuttiSum, r->comm, NULL));
	RANK_CHECKF(r, v == 3, "the sum is %d", v);
	RANK_CHECKF(r, r->rank != 1 || epolls > 2, "shm was not refused");
	RANK_OK(r, tuttiCommDestroy(r->comm));
}

/* One process cannot have a transport: its peers take another for it. */
static void without_shm(void)
{
	static struct procs ps;

	procs_start(&ps, 3, 0, "all", without_shm_rank, NULL);
	procs_expect(&ps, 20, -1);
}

const struct test tests[] = {
	{ "one process without shm", without_shm, 40 },
	{ "one thread drives many ranks", one_thread, 40 },
	{ "InitAll", init_all, 40 },
	{ "nonblocking init", nonblocking_init, 50 },
	{ "Abort of an init that nobody joins", abort_init, 20 },
	{ "Split: colors, keys, no color", split_threads, 50 },
	{ "Split in a group", split_in_group, 40 },
	{ "destroying in any order", destroy_any_order, 60 },
	{ "leaving after the first operation", leave_early, 90 },
	{ "nothing stays of a hundred communicators", churn, 60 },
};
const int ntests = sizeof(tests) / sizeof(tests[0]);
