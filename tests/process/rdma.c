/* What RDMA connections cost and whether it comes back: queue pairs as the kernel counts them, pinned memory,
 * descriptors. Runs where TEST_TRANSPORT=verbs (tests/vm/suite). SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ranks.h"
#include "test.h"

enum { MANY = 64, KIB = 1024, MIB = 1024 * KIB, N = 64 * KIB };
static struct procs ps;

struct counted {
	int qp, cq, pd, mr, fds, threads;
	long pinned, resident; /* of the counting process, KiB */
};

static int summary(const char *line, const char *what)
{
	const char *at = strstr(line, what);

	return at ? atoi(at + strlen(what)) : 0;
}

/* Of all devices; the kernel's own are among them. */
static void count_devices(struct rank *r, struct counted *c)
{
	FILE *f = popen("rdma resource show", "re");
	char line[256];
	int devices = 0;

	RANK_CHECKF(r, f, "no rdma tool");
	while (fgets(line, sizeof(line), f)) {
		devices++;
		c->qp += summary(line, " qp ");
		c->cq += summary(line, " cq ");
		c->pd += summary(line, " pd ");
		c->mr += summary(line, " mr ");
	}
	RANK_CHECKF(r, pclose(f) == 0 && devices > 0, "rdma resource show tells nothing");
}

static long status(const char *what)
{
	FILE *f = fopen("/proc/self/status", "re");
	char line[256];
	long v = 0;

	while (f && fgets(line, sizeof(line), f))
		if (!strncmp(line, what, strlen(what)))
			v = atol(line + strlen(what));
	if (f)
		fclose(f);
	return v;
}

static struct counted count_all(struct rank *r)
{
	struct counted c = { .fds = count_fds(), .threads = count_threads(), .pinned = status("VmPin:"),
			     .resident = status("VmRSS:") };

	count_devices(r, &c);
	return c;
}

/* Common to the ranks: they meet, and have the first one's unique id for each round. */
struct table {
	_Atomic int there;
	tuttiUniqueId id;
	struct counted c[RANKS_MAX][3];
};

static struct table *table(struct rank *r)
{
	return (struct table *)r->procs->shared->user;
}

static void meet(struct rank *r, int *times)
{
	int want = ++*times * r->n;

	table(r)->there++;
	for (double end = seconds_now() + 60; table(r)->there < want; sleep_s(0.0002))
		RANK_CHECKF(r, seconds_now() < end, "%d of %d came", table(r)->there, want);
}

static void sum(struct rank *r, tuttiComm_t c)
{
	static int32_t v[N / 4];

	for (int i = 0; i < N / 4; i++)
		v[i] = i;
	RANK_OK(r, tuttiAllReduce(v, v, N / 4, tuttiInt32, tuttiSum, c, NULL));
	for (int i = 0; i < N / 4; i++)
		RANK_CHECKF(r, v[i] == i * r->n, "element %d is %d", i, (int)v[i]);
}

/* All ranks stand still while each counts. */
static void count_as(struct rank *r, int *times, int which)
{
	meet(r, times);
	table(r)->c[r->rank][which] = count_all(r);
	meet(r, times);
}

static struct table result(int n, rank_fn fn, double limit_s)
{
	static struct table t;

	procs_start(&ps, n, -1, "verbs", fn, NULL);
	procs_wait(&ps, limit_s);
	t = *(struct table *)ps.shared->user;
	procs_expect(&ps, 1, -1);
	return t;
}

static tuttiComm_t join(struct rank *r, int *times)
{
	tuttiComm_t c;

	if (r->rank == 0)
		RANK_OK(r, tuttiGetUniqueId(&table(r)->id));
	meet(r, times);
	RANK_OK(r, tuttiCommInitRank(&c, r->n, table(r)->id, r->rank));
	return c;
}

/* ---- connect and disconnect ---- */

static long cycles(void)
{
	return test_setting("TEST_QUICK", 0) ? 60 : 1000;
}

static void cycling_rank(struct rank *r)
{
	int times = 0;

	count_as(r, &times, 0);
	for (r->step = 0; r->step < cycles(); r->step++) {
		tuttiComm_t c = join(r, &times);

		sum(r, c);
		RANK_OK(r, tuttiCommDestroy(c));
		if (r->step == 20)
			count_as(r, &times, 1);
	}
	count_as(r, &times, 2);
}

static void say(int rank, const char *when, const struct counted *c)
{
	printf("  rank %d, %s: qp %d, cq %d, pd %d, mr %d, descriptors %d, threads %d, pinned %ld KiB, resident %ld "
	       "KiB\n", rank, when, c->qp, c->cq, c->pd, c->mr, c->fds, c->threads, c->pinned, c->resident);
}

static void come_and_go(void)
{
	struct table t = result(2, cycling_rank, 600);

	for (int i = 0; i < 2; i++) {
		const struct counted *b = &t.c[i][0], *a = &t.c[i][1], *c = &t.c[i][2];

		say(i, "before", b);
		say(i, "after 20 cycles", a);
		say(i, "after all", c);
		CHECKF(c->qp == b->qp && c->cq == b->cq && c->pd == b->pd && c->mr == b->mr,
		       "queue pairs, queues, domains or memory regions are left");
		CHECKF(c->fds == a->fds && c->threads == a->threads && c->pinned == b->pinned,
		       "descriptors, threads or pinned memory are left");
		CHECKF(c->resident <= a->resident + 512, "resident memory grows");
	}
}

/* ---- communicators of the same processes ---- */

static void sharing_rank(struct rank *r)
{
	tuttiComm_t c[MANY];
	int times = 0;

	c[0] = join(r, &times);
	sum(r, c[0]);
	count_as(r, &times, 0);
	for (int i = 1; i < MANY; i++) {
		r->step = i;
		if (i % 2)
			c[i] = join(r, &times);
		else
			RANK_OK(r, tuttiCommSplit(c[0], 0, r->rank, &c[i], NULL));
		sum(r, c[i]);
	}
	count_as(r, &times, 1);
	for (int i = MANY - 1; i >= 0; i--)
		RANK_OK(r, tuttiCommDestroy(c[i]));
	count_as(r, &times, 2);
}

static void share(void)
{
	struct table t = result(2, sharing_rank, 200);

	for (int i = 0; i < 2; i++) {
		const struct counted *a = &t.c[i][0], *b = &t.c[i][1];

		say(i, "one communicator", a);
		say(i, "all", b);
		/* Only temporaries, registered where they are 64 KiB and more. */
		CHECKF(a->qp == b->qp && a->cq == b->cq && a->pd == b->pd && b->mr - a->mr <= 2 * 63 &&
			       b->pinned - a->pinned <= 63 * 72,
		       "further communicators have queue pairs or memory of their own");
	}
}

/* ---- the cost of a peer: docs/transports.md ---- */

enum { PORT_KIB = 8 * KIB, PEER_KIB = 2 * (64 * (4 * KIB + 72) / KIB + 4), PEER_QPS = 2 };

static void costing_rank(struct rank *r)
{
	int32_t v[RANKS_MAX] = { 0 };
	int times = 0;
	tuttiComm_t c;

	count_as(r, &times, 0);
	c = join(r, &times);
	for (int i = 1; i < r->n; i++) { /* each with each */
		RANK_OK(r, tuttiGroupStart());
		RANK_OK(r, tuttiSend(v, 1, tuttiInt32, (r->rank + i) % r->n, c, NULL));
		RANK_OK(r, tuttiRecv(v + i, 1, tuttiInt32, (r->rank + r->n - i) % r->n, c, NULL));
		RANK_OK(r, tuttiGroupEnd());
	}
	count_as(r, &times, 1);
	RANK_OK(r, tuttiCommDestroy(c));
}

static void cost(void)
{
	for (int n = 2; n <= 4; n++) {
		struct table t = result(n, costing_rank, 60);
		const struct counted *a = t.c[0], *b = a + 1;
		long pinned = b->pinned - a->pinned;

		printf("  %d processes, each with each: %d queue pairs, %ld KiB pinned in the first\n", n,
		       b->qp - a->qp, pinned);
		CHECKF(b->qp - a->qp == n * (n - 1) * PEER_QPS, "%d queue pairs", b->qp - a->qp);
		CHECKF(pinned > PORT_KIB && pinned <= PORT_KIB + (n - 1) * PEER_KIB, "%ld KiB pinned", pinned);
	}
}

/* ---- */

static void if_asked(void (*fn)(void))
{
	if (test_transport() && !strcmp(test_transport(), "verbs"))
		fn();
}

static void come_and_go_test(void) { if_asked(come_and_go); }
static void share_test(void) { if_asked(share); }
static void cost_test(void) { if_asked(cost); }

const struct test tests[] = {
	{ "RDMA connections that come and go leave nothing", come_and_go_test, 160 },
	{ "communicators of the same processes share queue pairs", share_test, 60 },
	{ "queue pairs and pinned memory of a peer", cost_test, 60 },
};
const int ntests = sizeof(tests) / sizeof(tests[0]);
