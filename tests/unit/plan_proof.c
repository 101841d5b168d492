/* SPDX-License-Identifier: Apache-2.0
 * The proof of a plan for the shape that is there: it takes nothing out of a plan for right shapes of any size, and
 * everything that a wrong one spoils. */
#include "plan.h"
#include "test.h"

#include <stdlib.h>
#include <string.h>

enum { MAX = 600 };

static const struct tt_facts *facts_of(const struct tt_place *at, int n)
{
	static struct tt_facts f;
	int ranks[MAX] = { 0 };

	f = (struct tt_facts){ .nranks = n, .cores = 4, .latency = 6e-6, .bandwidth = 1.3e9, .near_latency = 150e-9,
			       .near_bandwidth = 10e9 };
	for (int i = 0; i < n; i++) {
		f.hosts += !ranks[at[i].host]++;
		f.per_host = ranks[at[i].host] > f.per_host ? ranks[at[i].host] : f.per_host;
	}
	f.same_memory = f.hosts == 1;
	return &f;
}

static bool uses(const struct tt_plan *p, enum tt_coll coll, const char *algo)
{
	for (int k = 0; k < TT_CLASSES; k++)
		if (!strcmp(tt_algos[p->rows[0][coll][k].algo].name, algo) && !p->rows[0][coll][k].flat)
			return true;
	return false;
}

/* Hosts in turn, on each some cores in turn, of which nodes are counted down. */
static void place(struct tt_place *at, int n, int hosts, int cores, uint64_t *rnd)
{
	for (int i = 0; i < n; i++)
		at[i] = (struct tt_place){ .host = (uint32_t)(i % hosts), .node = cores - i / hosts % cores,
					   .nic = (uint32_t)(i / hosts % 2), .rate = test_rand(rnd) % 2 ? 100 : 30 };
}

static void right_ones(void)
{
	static const int sizes[][2] = { { 1, 1 }, { 2, 1 }, { 5, 2 }, { 16, 4 }, { 33, 3 }, { 64, 1 }, { 64, 8 },
					{ 65, 1 }, { 100, 50 }, { 512, 1 }, { 512, 64 } };
	uint64_t rnd = test_seed();
	struct tt_place at[MAX];

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		int n = sizes[i][0];
		struct tt_plan plan, before;
		struct tt_shape s;

		place(at, n, sizes[i][1], 3, &rnd);
		CHECK(tt_plan_make(facts_of(at, n), &plan) == tuttiSuccess);
		CHECK(tt_shape_of_places(at, n, &s) == tuttiSuccess);
		before = plan;
		tt_plan_prove(&plan, facts_of(at, n), &s);
		CHECKF(!memcmp(&plan, &before, sizeof(plan)), "%d ranks on %d hosts: %s", n, sizes[i][1],
		       tt_last_error());
		CHECKF(n < 16 || sizes[i][1] == 1 || uses(&plan, TT_ALLREDUCE, "hier"), "%d ranks have no levels", n);
		tt_shape_free(&s);
	}
}

/* What the plan has for this collective now is right in this shape. */
static void rows_are_right(const struct tt_plan *plan, enum tt_coll coll, const struct tt_shape *shape, int n)
{
	struct tt_sched *s[MAX];

	for (int k = 0; k < TT_CLASSES; k++) {
		const struct tt_row *row = &plan->rows[0][coll][k];
		struct tt_shape shown = tt_row_shape(row, shape);

		for (int r = 0; r < n; r++)
			CHECK(tt_algos[row->algo].build(coll, r, n, 1, &shown, &s[r]) == tuttiSuccess);
		CHECKF(tt_sched_check(s, n, &(struct tt_check){ .windows = 1 }) == tuttiSuccess, "%s %s: %s",
		       tt_coll_name(coll), tt_algos[row->algo].name, tt_last_error());
		for (int r = 0; r < n; r++)
			tt_sched_free(s[r]);
	}
}

/* Rings and chains that meet one rank twice and another one never. */
static void wrong_order(void)
{
	static const uint32_t order[] = { 0, 2, 1, 3, 3, 5 };
	struct tt_shape shape = { .nlanes = 1, .order = order };
	struct tt_place at[6] = { { 0 } };
	const struct tt_facts *f = facts_of(at, 6);
	struct tt_plan plan;

	setenv("TUTTI_ALGO", "ring,chain", 1);
	CHECK(tt_plan_make(f, &plan) == tuttiSuccess && uses(&plan, TT_ALLREDUCE, "ring"));
	tt_plan_prove(&plan, f, &shape);
	unsetenv("TUTTI_ALGO");
	for (int coll = 0; coll <= TT_BARRIER; coll++) {
		CHECK(!uses(&plan, (enum tt_coll)coll, "ring") && !uses(&plan, (enum tt_coll)coll, "chain"));
		rows_are_right(&plan, (enum tt_coll)coll, &shape, 6);
	}
}

/* Two hosts, and parents that go round; nothing but trees was to be had. */
static void wrong_tree(void)
{
	static const uint32_t parent[] = { 0, 2, 3, 1 }, group[] = { 0, 0, 1, 1 };
	struct tt_shape shape = { .nlanes = 1, .parent = parent, .group = group };
	struct tt_place at[4] = { { .host = 0 }, { .host = 0 }, { .host = 1 }, { .host = 1 } };
	const struct tt_facts *f = facts_of(at, 4);
	struct tt_plan plan;

	setenv("TUTTI_ALGO", "tree", 1);
	CHECK(tt_plan_make(f, &plan) == tuttiSuccess && uses(&plan, TT_BROADCAST, "tree"));
	tt_plan_prove(&plan, f, &shape);
	unsetenv("TUTTI_ALGO");
	CHECK(uses(&plan, TT_ALLREDUCE, "hier"));
	for (int coll = 0; coll <= TT_BARRIER; coll++) {
		CHECK(!uses(&plan, (enum tt_coll)coll, "tree"));
		rows_are_right(&plan, (enum tt_coll)coll, &shape, 4);
	}
}

/* A row of more lanes than the shape has orders uses those that there are. */
static void lanes(void)
{
	static const uint32_t order[] = { 1, 0, 2 };
	struct tt_shape shape = { .nlanes = 1, .order = order }, plain = { .nlanes = 1 };
	struct tt_row row = { .lanes = 3, .param = 2 }, flat = { .lanes = 3, .flat = 1 };

	CHECK(tt_row_shape(&row, &shape).nlanes == 1 && tt_row_shape(&row, &shape).order == order);
	CHECK(tt_row_shape(&row, &plain).nlanes == 3 && tt_row_shape(&row, &plain).param == 2);
	CHECK(tt_row_shape(&flat, &shape).nlanes == 3 && !tt_row_shape(&flat, &shape).order);
}

const struct test tests[] = {
	{ "right ones", right_ones, 0 },
	{ "wrong order", wrong_order, 0 },
	{ "wrong tree", wrong_tree, 0 },
	{ "lanes", lanes, 0 },
};
const int ntests = sizeof(tests) / sizeof(tests[0]);
