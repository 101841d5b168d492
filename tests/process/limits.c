/* What a communicator may cost: messages of init, memory of a process. Every row has its limit.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "comm.h"
#include "ranks.h"
#include "test.h"

enum { FURTHER = 32, KIB = 1024, MIB = 1024 * 1024 };
static const size_t large = 8 * MIB; /* bytes of the allreduce in memory tests */
static struct procs ps;

static long pages_of(struct rank *r)
{
	FILE *f = fopen("/proc/self/statm", "re");
	long total = 0, pages = 0;

	RANK_CHECKF(r, f && fscanf(f, "%ld %ld", &total, &pages) == 2, "cannot read /proc/self/statm");
	fclose(f);
	return pages * sysconf(_SC_PAGESIZE);
}

static void sum(struct rank *r, tuttiComm_t c, void *buf, size_t bytes)
{
	memset(buf, 1, bytes);
	RANK_OK(r, tuttiAllReduce(buf, buf, bytes / 4, tuttiInt32, tuttiSum, c, NULL));
}

/* ---- messages ---- */

struct counts {
	_Atomic int there; /* of entry 0: ranks whose init is over */
	uint64_t init, used; /* messages sent and received */
};

static uint64_t messages(void)
{
	uint64_t sent, received;

	tt_node_counts(&sent, &received);
	return sent + received;
}

static void meet_all(struct rank *r, struct counts *all, int many)
{
	all->there++;
	for (double end = seconds_now() + 30; all->there < many; sleep_s(0.001))
		RANK_CHECKF(r, seconds_now() < end, "%d of %d ranks came", all->there, many);
}

static void counting_rank(struct rank *r)
{
	struct counts *all = (struct counts *)r->procs->shared->user;
	int32_t v[2];

	RANK_OK(r, rank_init(r, NULL));
	meet_all(r, all, r->n);
	all[r->rank].init = messages();
	meet_all(r, all, 2 * r->n);
	sum(r, r->comm, v, sizeof(v));
	meet_all(r, all, 3 * r->n);
	all[r->rank].used = messages();
	meet_all(r, all, 4 * r->n);
	RANK_OK(r, tuttiCommDestroy(r->comm));
}

static uint64_t log2_up(int n)
{
	uint64_t k = 0;

	while (1 << k < n)
		k++;
	return k;
}

/* Init, and init with a first small operation that opens links. */
static void check_counts(int n, const struct counts *c)
{
	uint64_t few = 4 * log2_up(n) + 8, init = 0, used = 0;

	for (int i = 1; i < n; i++) {
		init = tt_max(init, c[i].init);
		used = tt_max(used, c[i].used);
	}
	printf("  %2d processes: init %llu messages at the root, %llu at most elsewhere; after a first allreduce "
	       "%llu and %llu; limits %llu and %llu\n", n, (unsigned long long)c->init, (unsigned long long)init,
	       (unsigned long long)c->used, (unsigned long long)used, (unsigned long long)(2 * (uint64_t)n + few),
	       (unsigned long long)few);
	CHECKF(c->init > 0 && init > 0, "nothing was counted");
	CHECKF(c->used <= 2 * (uint64_t)n + few, "%d processes: %llu messages at the root", n,
	       (unsigned long long)c->used);
	CHECKF(used <= few, "%d processes: %llu messages at a rank", n, (unsigned long long)used);
}

static void count_messages(void)
{
	static const int sizes[] = { 2, 3, 4, 5, 8, 13, 16, 32, 64 };

	for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
		struct counts c[RANKS_MAX];

		procs_start(&ps, sizes[i], 0, NULL, counting_rank, NULL);
		procs_wait(&ps, 60);
		memcpy(c, ps.shared->user, sizeof(c));
		procs_expect(&ps, 1, -1);
		check_counts(sizes[i], c);
	}
}

/* Ranks of one process need no message. */
static void thread_rank(struct rank *r)
{
	CHECKF(messages() == 0, "%llu messages among threads", (unsigned long long)messages());
}

static void count_threads_messages(void)
{
	static const int sizes[] = { 2, 7, 64 };

	for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++)
		ranks_run(sizes[i], 30, thread_rank, NULL);
}

/* ---- memory ---- */

struct memory {
	long first, large, transport, further, small, temporaries, after;
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
	char *buf = malloc(large);
	tuttiComm_t c[FURTHER];
	long start;

	memset(buf, 1, large);
	start = pages_of(r);
	c[0] = alone(r);
	sum(r, c[0], buf, large);
	m->first = pages_of(r) - start;
	for (int i = 1; i < FURTHER; i++) {
		c[i] = alone(r);
		sum(r, c[i], buf, 8);
	}
	m->further = (pages_of(r) - start - m->first) / (FURTHER - 1);
	for (int i = 0; i < FURTHER; i++)
		RANK_OK(r, tuttiCommDestroy(c[i]));
	m->after = pages_of(r) - start;
	free(buf);
}

static struct memory measure(int n, const char *transports, rank_fn fn)
{
	struct memory m;

	procs_start(&ps, n, n > 1 ? 0 : -1, transports, fn, NULL);
	procs_wait(&ps, 30);
	m = *(struct memory *)ps.shared->user;
	procs_expect(&ps, 1, -1);
	return m;
}

static void memory_alone(void)
{
	struct memory m = measure(1, NULL, memory_rank);

	printf("  one rank: %ld KiB the first in use, %ld KiB each further, %ld KiB after\n", m.first / KIB,
	       m.further / KIB, m.after / KIB);
	CHECKF(m.first < MIB, "a communicator of one rank takes %ld bytes", m.first);
	CHECKF(m.further < 64 * KIB, "each further one takes %ld bytes", m.further);
}

/* What the endpoints of the links say that they hold. */
static long held_by_transports(const struct tuttiComm *c)
{
	struct tt_ep *last = NULL;
	long held = 0;

	for (int p = 0; p < c->nranks; p++)
		for (int l = 0; c->links[p] && l < TT_LANES; l++) {
			const struct tt_link *k = c->links[p][l];

			if (!k || !k->priv || k->ep == last)
				continue;
			last = k->ep;
			held += (long)k->ep->t->memory(k->ep->priv);
		}
	return held;
}

/* Touched pages of an area; large operations need temporaries, a communicator without them none. */
static long touched(const void *p, size_t n)
{
	unsigned char in[4096] = { 0 };
	size_t page = (size_t)sysconf(_SC_PAGESIZE), lead = (uintptr_t)p % page;
	long pages = 0;

	if (!p || mincore((char *)(uintptr_t)p - lead, tt_min(n + lead, sizeof(in) * page), in) != 0)
		return 0;
	for (size_t i = 0; i < sizeof(in); i++)
		pages += in[i] & 1;
	return pages * (long)page;
}

/* Two processes: each further communicator shares their connection and slot pool. */
static void pair_rank(struct rank *r)
{
	struct memory *m = (struct memory *)r->procs->shared->user + r->rank;
	char *buf = malloc(large);
	tuttiComm_t c[FURTHER];
	long start;

	memset(buf, 1, large);
	start = pages_of(r);
	RANK_OK(r, rank_init(r, NULL));
	sum(r, r->comm, buf, 8);
	m->first = pages_of(r) - start;
	for (size_t n = 64; n <= large; n *= 8)
		sum(r, r->comm, buf, n);
	sum(r, r->comm, buf, large);
	m->large = pages_of(r) - start;
	m->transport = held_by_transports(r->comm);
	for (int i = 0; i < FURTHER; i++) {
		RANK_OK(r, tuttiCommSplit(r->comm, 0, r->rank, &c[i], NULL));
		sum(r, c[i], buf, 64);
	}
	m->small = (pages_of(r) - start - m->large) / FURTHER;
	for (int i = 0; i < FURTHER; i++)
		for (size_t n = 64; n <= 2 * MIB; n *= 8)
			sum(r, c[i], buf, n);
	m->temporaries = touched(c[0]->tmp, c[0]->tmp_size) + touched(c[0]->scratch, c[0]->scratch_size);
	m->further = (pages_of(r) - start - m->large) / FURTHER;
	for (int i = 0; i < FURTHER; i++)
		RANK_OK(r, tuttiCommDestroy(c[i]));
	RANK_OK(r, tuttiCommDestroy(r->comm));
	m->after = pages_of(r) - start;
	free(buf);
}

static void memory_pair(void)
{
	static const char *const transports[] = { "shm", "tcp" };

	for (int i = 0; i < 2; i++) {
		struct memory m = measure(2, transports[i], pair_rank);

		printf("  two processes over %s: %ld KiB after 8 B, %ld KiB after 8 MiB (the transport says %ld KiB); "
		       "each further %ld KiB after 64 B, %ld KiB after 2 MiB, of that %ld KiB temporaries of the "
		       "operation; %ld KiB at the end\n", transports[i], m.first / KIB, m.large / KIB,
		       m.transport / KIB, m.small / KIB, m.further / KIB, m.temporaries / KIB, m.after / KIB);
		CHECKF(m.transport > 0, "no link was used");
		CHECKF(tt_max(m.large, m.transport) <= 8 * MIB, "%s: %ld bytes resident, %ld said by the transport",
		       transports[i], m.large, m.transport);
		CHECKF(m.small <= (64 + 16) * KIB, "%s: a further communicator takes %ld bytes", transports[i],
		       m.small);
		CHECKF(m.further - m.temporaries <= (64 + 16) * KIB, "%s: a further communicator takes %ld bytes and "
		       "%ld of temporaries", transports[i], m.further - m.temporaries, m.temporaries);
	}
}

const struct test tests[] = {
	{ "messages of init", count_messages, 200 },
	{ "messages of threads", count_threads_messages, 60 },
	{ "memory of communicators of one rank", memory_alone, 40 },
	{ "memory of communicators of two processes", memory_pair, 80 },
};
const int ntests = sizeof(tests) / sizeof(tests[0]);
