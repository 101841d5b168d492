/* SPDX-License-Identifier: Apache-2.0
 * From graphs to schedules: the rings and trees that the search finds become lanes of schedules, which the checker
 * proves, which use no link that is not there, and each link in the share that the search gave it. */
#include "sched_shape.h"
#include "topo_rig.h"

#include <stdio.h>

enum { MAX = 16 };

static void prove(struct tt_sched *const *s, int p)
{
	for (int i = 0; i < 8; i++) {
		struct tt_check how = { .windows = i % 2 ? 3 : 1, .depth = (uint32_t)i / 4, .aliased = i / 2 % 2,
					.queued = i == 6, .seed = (uint64_t)i };

		CHECKF(tt_sched_check(s, p, &how) == tuttiSuccess, "%s %s: %s", tt_coll_name(s[0]->coll), s[0]->algo,
		       tt_last_error());
	}
}

/* The share of the data that each link carries, in 1/(sum of weights), from the schedules themselves. */
static void traffic(struct tt_sched *const *s, uint32_t p, const struct tt_shape *shape, uint64_t *carried)
{
	for (uint32_t r = 0; r < p; r++)
		for (uint32_t i = 0; i < s[r]->nsteps; i++) {
			const struct tt_step *st = &s[r]->steps[i];
			const struct tt_ref *ref = &s[r]->refs[st->src];

			if (st->op != TT_SEND)
				continue;
			for (uint32_t k = 0; k < ref->n; k++) {
				uint32_t c = (ref->chunk + k) % s[r]->per_block;
				uint32_t lane = c / (s[r]->per_block / shape->nlanes);

				carried[r * p + st->peer] += shape->weights[lane];
			}
		}
}

/* Nothing over links that are not there; over those that are, at most `most` times what a unit of capacity stands
 * for: the search's total, in the same units, is what all lanes together carry. */
static void check_traffic(const struct tt_graph *g, struct tt_sched *const *s, const struct tt_shape *shape,
			  uint32_t den, uint64_t most)
{
	uint64_t *carried = calloc((size_t)g->n * g->n, sizeof *carried);

	traffic(s, g->n, shape, carried);
	for (uint32_t i = 0; i < g->n * g->n && g->total == g->n; i++)
		CHECKF(carried[i] * g->unit <= (uint64_t)g->cap[i] * den * most, "%s %s: link %u-%u carries %lu, not "
		       "%u x %u x %lu", tt_coll_name(s[0]->coll), s[0]->algo, i / g->n, i % g->n, carried[i],
		       g->cap[i], den, most);
	free(carried);
}

static void run(const struct tt_graph *g, const char *name, enum tt_coll coll, int root, const struct tt_shape *shape,
		uint32_t den, uint64_t most)
{
	const struct tt_algo *a = tt_algo_find(name, coll);
	struct tt_sched *s[MAX];

	for (uint32_t r = 0; r < g->n; r++)
		CHECKF(a->build(coll, (int)r, (int)g->n, root, shape, &s[r]) == tuttiSuccess, "%s", tt_last_error());
	prove(s, (int)g->n);
	if (most)
		check_traffic(g, s, shape, den, most);
	for (uint32_t r = 0; r < g->n; r++)
		tt_sched_free(s[r]);
}

/* A link in a ring carries p-1 chunks of p in each of two phases of an allreduce; blocks alike in one. */
static void run_rings(const struct tt_graph *g)
{
	struct tt_shape shape;
	struct tt_rings *r;

	CHECK(tt_rings_find(g, true, &r) == tuttiSuccess);
	if (r->count) {
		CHECK(tt_shape_of_rings(r, 255, &shape) == tuttiSuccess && shape.nlanes == r->count);
		run(g, "ring", TT_ALLREDUCE, 0, &shape, r->den, 2 * (g->n - 1));
		run(g, "ring", TT_ALLGATHER, 0, &shape, r->den, g->n - 1);
		run(g, "ring", TT_REDUCESCATTER, 0, &shape, r->den, g->n - 1);
		run(g, "chain", TT_BROADCAST, (int)g->n - 1, &shape, r->den, 1);
		tt_shape_free(&shape);
	}
	tt_rings_free(r);
}

/* Over a link in a tree the data go once each way; turned to another root they still arrive. */
static void run_trees(const struct tt_graph *g, int root)
{
	struct tt_shape shape;
	struct tt_trees *t;

	CHECK(tt_trees_find(g, root, &t) == tuttiSuccess);
	if (t->count) {
		CHECK(tt_shape_of_trees(t, 255, &shape) == tuttiSuccess && shape.nlanes == t->count);
		run(g, "tree", TT_ALLREDUCE, 0, &shape, t->den, root < 0 ? 2 : 0);
		run(g, "tree", TT_BROADCAST, root < 0 ? 0 : root, &shape, t->den, root < 0 ? 0 : 1);
		run(g, "tree", TT_REDUCE, (int)g->n / 2, &shape, t->den, 0);
		tt_shape_free(&shape);
	}
	tt_trees_free(t);
}

static void both(struct tt_graph *g)
{
	run_rings(g);
	run_trees(g, TT_ROOT_ANY);
	run_trees(g, 0);
	run_trees(g, (int)g->n - 1);
	tt_graph_free(g);
}

static void machines(void)
{
	both(rig_dgx1v());
	both(rig_mi250x());
	both(rig_complete(4));
	both(rig_complete(6));
	both(rig_star(8, 1, 6));
	both(rig_star(16, 2, 3));
	both(rig_torus(4, 4));
}

static void random_graphs(void)
{
	uint64_t rnd = test_seed();

	for (int i = 0; i < 60; i++) {
		uint32_t n = 2 + test_rand(&rnd) % 7;

		both(i % 2 ? rig_regular(&rnd, n, 3, true) : rig_random(&rnd, n, 0, 3, true));
	}
}

/* Fewer lanes than were found: the heaviest. */
static void fewer_lanes(void)
{
	struct tt_graph *g = rig_mi250x();
	struct tt_shape shape;
	struct tt_trees *t;

	CHECK(tt_trees_find(g, TT_ROOT_ANY, &t) == tuttiSuccess);
	CHECK(t->count > 4 && tt_shape_of_trees(t, 4, &shape) == tuttiSuccess && shape.nlanes == 4);
	for (uint32_t k = 0; k < t->count; k++)
		CHECK(t->weight[k] <= shape.weights[0]);
	for (uint32_t k = 1; k < 4; k++)
		CHECK(shape.weights[k] <= shape.weights[k - 1]);
	run(g, "tree", TT_ALLREDUCE, 0, &shape, t->den, 2);
	tt_shape_free(&shape);
	tt_trees_free(t);
	tt_graph_free(g);
}

/* No ring, no shape: said in words. */
static void none(void)
{
	struct tt_graph *g = rig_graph(3, 0);
	struct tt_shape shape;
	struct tt_rings *r;

	CHECK(tt_rings_find(g, true, &r) == tuttiSuccess && !r->count);
	CHECK(tt_shape_of_rings(r, 8, &shape) == tuttiInvalidArgument);
	tt_rings_free(r);
	tt_graph_free(g);
}

const struct test tests[] = {
	{ "machines", machines, 0 }, { "random_graphs", random_graphs, 0 }, { "fewer_lanes", fewer_lanes, 0 },
	{ "none", none, 0 },
};
const int ntests = sizeof tests / sizeof tests[0];
