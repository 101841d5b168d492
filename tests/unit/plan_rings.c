/* Lanes of communicators from the links between devices: along links alone, none used twice, on one host and over
 * several, and what else stays as it was. SPDX-License-Identifier: Apache-2.0 */
#include "plan.h"
#include "sched_shape.h"
#include "test.h"
#include "topo.h"

#include <stdlib.h>
#include <string.h>

enum { GPUS = 8, MAX = 32 };

static struct tt_gpu_links links[GPUS]; /* of the machine below, in the order of its devices */

static void look(const char *machine)
{
	struct tt_topo *t;
	int k = 0;

	CHECKF(tt_topo_load(machine, NULL, &t) == tuttiSuccess, "%s", tt_last_error());
	for (int i = tt_topo_next(t, TT_NODE_GPU, -1); i >= 0 && k < GPUS; i = tt_topo_next(t, TT_NODE_GPU, i))
		tt_topo_gpu_links(t, t->nodes[i].id, &links[k++]);
	tt_topo_free(t);
}

/* Ranks of each host in turn, with the devices that `gpu` names, GPUS for each host; -1 ends a host. */
static int places(struct tt_place *at, const int (*gpu)[GPUS], int hosts)
{
	int n = 0;

	for (int h = 0; h < hosts; h++)
		for (int i = 0; i < GPUS && gpu[h][i] >= 0; i++)
			at[n++] = (struct tt_place){ .host = (uint32_t)h, .node = -1, .gpu = &links[gpu[h][i]] };
	return n;
}

static tuttiResult_t shape_of(const struct tt_place *at, int n, struct tt_shape *s)
{
	CHECK(tt_shape_of_places(at, n, s) == tuttiSuccess);
	return tt_shape_add_rings(at, n, s);
}

static uint32_t width(const struct tt_gpu_links *a, const struct tt_gpu_links *b)
{
	for (uint32_t k = 0; k < a->n; k++)
		if (a->to[k].id == b->id)
			return a->to[k].width;
	return 0;
}

/* How many half links all lanes use; each lane's steps inside a host follow links. */
static uint32_t check_lanes(const struct tt_shape *s, const struct tt_place *at, int n)
{
	uint32_t used[MAX][MAX] = { 0 }, all = 0;

	for (uint32_t l = 0; l < s->nlanes; l++) {
		bool seen[MAX] = { false };

		for (int pos = 0; pos < n; pos++) {
			int a = tt_shape_rank(s, l, n, pos), b = tt_shape_rank(s, l, n, (pos + 1) % n);

			CHECK(!seen[a]);
			seen[a] = true;
			if (at[a].host != at[b].host)
				continue;
			used[a][b] += 2;
			all += 2;
			CHECKF(used[a][b] <= width(at[a].gpu, at[b].gpu), "lane %u: the link of ranks %d and %d is "
			       "used once too often", l, a, b);
		}
	}
	return all;
}

/* All collectives of the ring over these lanes, as the plan asks for them. */
static void check_schedules(const struct tt_shape *s, int n)
{
	static const enum tt_coll colls[] = { TT_ALLREDUCE, TT_ALLGATHER, TT_REDUCESCATTER };
	struct tt_facts f = { .nranks = n, .lanes = (int)s->nlanes, .latency = 1e-6, .bandwidth = 1e9, .cores = n };
	struct tt_sched *ranks[MAX];
	struct tt_plan plan;

	setenv("TUTTI_ALGO", "ring", 1);
	CHECK(tt_plan_make(&f, &plan) == tuttiSuccess);
	unsetenv("TUTTI_ALGO");
	for (int c = 0; c < 3; c++) {
		struct tt_shape lanes = tt_row_shape(&plan.rows[0][colls[c]][20], s);

		CHECK(lanes.nlanes == s->nlanes);
		for (int i = 0; i < n; i++)
			CHECK(tt_build_ring(colls[c], i, n, 0, &lanes, &ranks[i]) == tuttiSuccess);
		CHECK(ranks[0]->nlanes == s->nlanes && ranks[0]->block_runnable);
		CHECKF(!tt_sched_check(ranks, n, &(struct tt_check){ .windows = 3, .depth = 1, .queued = true }), "%s",
		       tt_last_error());
		for (int i = 0; i < n; i++)
			tt_sched_free(ranks[i]);
	}
}

/* Eight devices in a cube mesh: six rings over all of its 48 links. */
static void one_host(void)
{
	static const int all[1][GPUS] = { { 5, 2, 7, 0, 1, 4, 3, 6 } };
	struct tt_place at[GPUS];
	struct tt_shape s, copy;
	uint32_t *words, used;
	size_t n;

	look("tests/fixtures/topo/cube-mesh.topo");
	CHECK(places(at, all, 1) == GPUS && shape_of(at, GPUS, &s) == tuttiSuccess);
	used = check_lanes(&s, at, GPUS);
	CHECKF(s.nlanes == 6 && used == 2 * 48, "%u lanes over %u half links", s.nlanes, used);
	check_schedules(&s, GPUS);
	CHECK(tt_shape_pack(&s, GPUS, &words, &n) == tuttiSuccess);
	CHECK(tt_shape_unpack(words, n, GPUS, &copy) == tuttiSuccess && copy.nlanes == 6);
	CHECK(tt_shape_digest(&copy, GPUS) == tt_shape_digest(&s, GPUS));
	free(words);
	tt_shape_free(&copy);
	tt_shape_free(&s);
}

/* A host of all, one of a quad and one of one device: as many lanes as the quad has rings. */
static void several_hosts(void)
{
	static const int three[3][GPUS] = { { 0, 1, 2, 3, 4, 5, 6, 7 }, { 3, 1, 0, 2, -1 }, { 4, -1 } };
	static const int members[] = { 11, 8, 9, 10 }, some[] = { 0, 1, 8, 9, 10, 11 };
	struct tt_shape s, part;
	struct tt_place at[MAX], sub[MAX];
	uint32_t exits = 0;
	int n = places(at, three, 3);

	look("tests/fixtures/topo/cube-mesh.topo");
	CHECK(n == 13 && shape_of(at, n, &s) == tuttiSuccess);
	CHECKF(s.nlanes > 1 && s.nlanes <= 6, "%u lanes", s.nlanes);
	check_lanes(&s, at, n);
	check_schedules(&s, n);
	for (uint32_t l = 0; l < s.nlanes; l++)
		for (int pos = 0; pos < n; pos++) {
			int a = tt_shape_rank(&s, l, n, pos), b = tt_shape_rank(&s, l, n, (pos + 1) % n);

			CHECK(s.parent[l * 13 + (uint32_t)pos] == s.parent[pos]);
			if (!at[a].host && at[b].host)
				exits |= 1u << a;
		}
	CHECKF(__builtin_popcount(exits) == (int)s.nlanes, "devices %x of the first host send to the next", exits);
	CHECK(tt_shape_part(&s, n, members, 4, &part) == tuttiSuccess && part.nlanes == s.nlanes);
	for (int i = 0; i < 4; i++)
		sub[i] = at[members[i]];
	check_lanes(&part, sub, 4);
	tt_shape_free(&part);
	CHECK(tt_shape_part(&s, n, some, 6, &part) == tuttiSuccess && part.nlanes == 1); /* half a host */
	tt_shape_free(&part);
	tt_shape_free(&s);
}

static void expect_none(const struct tt_place *at, int n)
{
	struct tt_shape s;

	CHECK(shape_of(at, n, &s) == tuttiSuccess);
	CHECKF(s.nlanes == 1 && !s.order, "%u lanes", s.nlanes);
	tt_shape_free(&s);
}

/* A rank without device, two on one, two devices without a link, a switch: the order of ranks. */
static void none(void)
{
	static const int all[1][GPUS] = { { 0, 1, 2, 3, 4, 5, 6, 7 } }, apart[1][GPUS] = { { 0, 5, -1 } };
	struct tt_place at[GPUS];

	look("tests/fixtures/topo/cube-mesh.topo");
	places(at, all, 1);
	at[3].gpu = NULL;
	expect_none(at, GPUS);
	at[3].gpu = at[2].gpu;
	expect_none(at, GPUS);
	CHECK(!width(&links[0], &links[5]) && places(at, apart, 1) == 2);
	expect_none(at, 2);
	look("tests/fixtures/topo/nvswitch.xml");
	CHECK(!links[0].n && !links[1].n);
}

const struct test tests[] = {
	{ "one_host", one_host, 0 }, { "several_hosts", several_hosts, 0 }, { "none", none, 0 },
};
const int ntests = sizeof(tests) / sizeof(tests[0]);
