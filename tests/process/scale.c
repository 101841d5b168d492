/* Many ranks. TEST_LONG: 512 threads and 64 processes.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "ranks.h"
#include "test.h"

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

const struct test tests[] = {
	{ "many processes", many_processes, 130 },
	{ "many threads", many_threads, 110 },
};
const int ntests = sizeof(tests) / sizeof(tests[0]);
