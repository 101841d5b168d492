/* Ranks that come late: a rank that has not called is waited for, however the others wait for each other.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ranks.h"
#include "test.h"

struct lateness {
	size_t count;
	int who;
	double s;
	bool refused; /* there is a limit for arriving */
};

static void late_rank(struct rank *r)
{
	const struct lateness *l = r->arg;
	float *v = malloc(l->count * sizeof(*v));
	tuttiResult_t res;
	char name[16];

	RANK_CHECKF(r, v, "no memory");
	for (size_t i = 0; i < l->count; i++)
		v[i] = 1;
	RANK_OK(r, tuttiAllReduce(v, v, l->count, tuttiFloat32, tuttiMax, r->comm, NULL));
	if (r->rank == l->who)
		sleep_s(l->s);
	res = tuttiAllReduce(v, v, l->count, tuttiFloat32, tuttiSum, r->comm, NULL);
	snprintf(name, sizeof(name), "rank %d ", l->who);
	if (!l->refused)
		RANK_CHECKF(r, res == tuttiSuccess && v[l->count - 1] == (float)r->n, "'%s': %s",
			    tuttiGetErrorString(res), tuttiGetLastError(NULL));
	else if (r->rank != l->who)
		RANK_CHECKF(r, (res == tuttiTimeout || res == tuttiRemoteError) &&
				       strstr(tuttiGetLastError(NULL), "no call by") &&
				       strstr(tuttiGetLastError(NULL), name), "'%s': %s",
			    tuttiGetErrorString(res), tuttiGetLastError(NULL));
	free(v);
}

/* The others have moved data among themselves and wait for each other: still nobody's deadline has begun. */
static void late_without_limit(void)
{
	static const char *const algos[] = { "", "ring", "dbtree" };

	setenv("TUTTI_DEADLINE", "1.5", 1); /* enough for seven threads on a busy core */
	for (int i = 0; i < 3; i++) {
		struct lateness l = { i ? 300000 : 8, 2, 3.2, false };

		setenv("TUTTI_ALGO", algos[i], 1);
		ranks_run(7, 20, late_rank, &l);
	}
	unsetenv("TUTTI_ALGO");
	unsetenv("TUTTI_DEADLINE");
}

static void late_with_limit(void)
{
	struct lateness l = { 300000, 3, 2, true };

	setenv("TUTTI_LOG", "none", 0);
	setenv("TUTTI_ALGO", "ring", 1);
	setenv("TUTTI_ARRIVAL_DEADLINE", "0.8", 1);
	ranks_run(6, 20, late_rank, &l);
	unsetenv("TUTTI_ARRIVAL_DEADLINE");
	unsetenv("TUTTI_ALGO");
}

static void brief_rank(struct rank *r)
{
	tuttiConfig_t config = TUTTI_CONFIG_INITIALIZER;

	config.initDeadline = 4;
	RANK_OK(r, rank_init(r, &config));
	RANK_OK(r, tuttiCommDestroy(r->comm));
}

/* Who has nothing to do leaves at once; the others' init must not look for it in vain. */
static void leaves_at_once(void)
{
	static struct procs ps;

	for (int i = 0; i < 16; i++) {
		procs_start(&ps, i % 2 ? 3 : 2, 0, NULL, brief_rank, NULL);
		procs_wait(&ps, 20);
		procs_expect(&ps, 1, -1);
	}
}

const struct test tests[] = {
	{ "gone after init", leaves_at_once, 60 },
	{ "later than the deadline", late_without_limit, 60 },
	{ "later than it may be", late_with_limit, 40 },
};
const int ntests = sizeof(tests) / sizeof(tests[0]);
