/* Many ranks, and what a communicator costs. TEST_LONG: 512 threads and 64 processes.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "ranks.h"
#include "test.h"

enum { FURTHER = 32 };
static struct procs ps;

static void sum_rank(struct rank *r)
{
	int64_t v[3] = { r->rank, 1, -r->rank };

	r->step = 1;
	RANK_OK(r, tuttiAllReduce(v, v, 3, tuttiInt64, tuttiSum, r->comm, NULL));
	RANK_CHECKF(r, v[0] == (int64_t)r->n * (r->n - 1) / 2 && v[1] == r->n && v[2] == -v[0],
		    "sums are %lld %lld %lld", (long long)v[0], (long long)v[1], (long long)v[2]);
	r->step = 2;
}

static void many_threads(void)
{
	int n = test_setting("TEST_LONG", 0) ? 512 : 128;
	double t = seconds_now();

	ranks_run(n, 100, sum_rank, NULL);
	t = seconds_now() - t;
	printf("  %d thread ranks: init, allreduce, destroy in %.2f s\n", n, t);
	CHECKF(t < 30, "%d thread ranks took %.1f s", n, t);
}

static void process_rank(struct rank *r)
{
	RANK_OK(r, rank_init(r, NULL));
	sum_rank(r);
	RANK_OK(r, tuttiCommDestroy(r->comm));
}

static void many_processes(void)
{
	static const char *const transports[] = { NULL, "tcp" };
	int n = test_setting("TEST_LONG", 0) ? 64 : 16;

	for (int i = 0; i < 2; i++) {
		double t = seconds_now();

		procs_start(&ps, n, 0, transports[i], process_rank, NULL);
		procs_expect(&ps, 60, -1);
		t = seconds_now() - t;
		printf("  %d processes over %s: start, init, allreduce, destroy in %.2f s\n", n,
		       transports[i] ? transports[i] : "what was chosen", t);
		CHECKF(t < 30, "%d processes took %.1f s", n, t);
	}
}

/* ---- memory ---- */

static long resident(struct rank *r)
{
	FILE *f = fopen("/proc/self/statm", "re");
	long total = 0, pages = 0;

	RANK_CHECKF(r, f && fscanf(f, "%ld %ld", &total, &pages) == 2, "cannot read /proc/self/statm");
	fclose(f);
	return pages * sysconf(_SC_PAGESIZE);
}

struct memory {
	long first, further, used, after;
};

static tuttiComm_t alone(struct rank *r)
{
	tuttiUniqueId id;
	tuttiComm_t c;

	RANK_OK(r, tuttiGetUniqueId(&id));
	RANK_OK(r, tuttiCommInitRank(&c, 1, id, 0));
	return c;
}

/* A process of its own, so that nothing was touched before. */
static void memory_rank(struct rank *r)
{
	struct memory *m = (struct memory *)r->procs->shared->user;
	tuttiComm_t c[FURTHER];
	long start = resident(r);

	c[0] = alone(r);
	m->first = resident(r) - start;
	for (int i = 1; i < FURTHER; i++)
		c[i] = alone(r);
	m->further = (resident(r) - start - m->first) / (FURTHER - 1);
	for (int i = 0; i < FURTHER; i++) {
		r->comm = c[i];
		sum_rank(r);
	}
	m->used = (resident(r) - start) / FURTHER;
	for (int i = 0; i < FURTHER; i++)
		RANK_OK(r, tuttiCommDestroy(c[i]));
	m->after = resident(r) - start;
}

static void memory_alone(void)
{
	struct memory m;

	procs_start(&ps, 1, -1, NULL, memory_rank, NULL);
	procs_wait(&ps, 30);
	m = *(struct memory *)ps.shared->user;
	procs_expect(&ps, 1, -1);
	printf("  one rank: %ld KiB the first, %ld KiB each further, %ld KiB each in use, %ld KiB after\n",
	       m.first >> 10, m.further >> 10, m.used >> 10, m.after >> 10);
	CHECKF(m.first < 1 << 20, "a communicator of one rank takes %ld bytes", m.first);
	CHECKF(m.further < 256 << 10, "each further one takes %ld bytes", m.further);
}

/* Two processes: each further communicator shares their connection and slot pool. */
static void pair_rank(struct rank *r)
{
	struct memory *m = (struct memory *)r->procs->shared->user + r->rank;
	tuttiComm_t c[FURTHER];
	long start = resident(r);

	RANK_OK(r, rank_init(r, NULL));
	sum_rank(r);
	m->first = resident(r) - start;
	for (int i = 0; i < FURTHER; i++)
		RANK_OK(r, tuttiCommSplit(r->comm, 0, r->rank, &c[i], NULL));
	m->further = (resident(r) - start - m->first) / FURTHER;
	for (int i = 0; i < FURTHER; i++) {
		struct rank child = { .rank = r->rank, .n = r->n, .comm = c[i], .procs = r->procs,
				      .out = r->out };

		sum_rank(&child);
	}
	m->used = (resident(r) - start - m->first) / FURTHER;
	for (int i = 0; i < FURTHER; i++)
		RANK_OK(r, tuttiCommDestroy(c[i]));
	RANK_OK(r, tuttiCommDestroy(r->comm));
	m->after = resident(r) - start;
}

static void memory_pair(void)
{
	static const char *const transports[] = { "shm", "tcp" };

	for (int i = 0; i < 2; i++) {
		struct memory m;

		procs_start(&ps, 2, 0, transports[i], pair_rank, NULL);
		procs_wait(&ps, 30);
		m = *(struct memory *)ps.shared->user;
		procs_expect(&ps, 1, -1);
		printf("  two processes over %s: %ld KiB the first, %ld KiB each further, %ld KiB each in "
		       "use, %ld KiB after\n", transports[i], m.first >> 10, m.further >> 10, m.used >> 10,
		       m.after >> 10);
		CHECKF(m.used < 1 << 20, "each further communicator takes %ld bytes", m.used);
	}
}

const struct test tests[] = {
	{ "memory of communicators of one rank", memory_alone, 40 },
	{ "memory of communicators of two processes", memory_pair, 80 },
	{ "many processes", many_processes, 130 },
	{ "many threads", many_threads, 110 },
};
const int ntests = sizeof(tests) / sizeof(tests[0]);
