/* Ranks bound to cores: what a ring carries across the links between NUMA nodes, counted in its schedules, in the order
 * that the machine gives and in one forced badly. On a machine made up here, and on recorded ones where they lie beside
 * the checkout (TEST_TOPOLOGIES). SPDX-License-Identifier: Apache-2.0 */
#include "plan.h"
#include "sched_shape.h"
#include "test.h"
#include "topo_files.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX = 128, ROOM = 64000 }; /* bytes of a chunk: borders fall on whole lines */

struct ranks {
	const struct tt_topo *t;
	int n, node[MAX]; /* the core of each */
};

/* Cores in the order in which schedulers hand them out: one of each NUMA node in turns. */
static void bind_in_turns(struct ranks *r, const struct tt_topo *t)
{
	int next[MAX], nodes = 0;
	bool any = true;

	*r = (struct ranks){ .t = t };
	for (int i = tt_topo_next(t, TT_NODE_NUMA, -1); i >= 0 && nodes < MAX; i = tt_topo_next(t, TT_NODE_NUMA, i))
		next[nodes++] = i;
	while (any) {
		any = false;
		for (int k = 0; k < nodes && r->n < MAX; k++) {
			int numa = tt_topo_above(t, next[k], TT_NODE_NUMA);
			int core = tt_topo_next(t, TT_NODE_CORE, next[k]);

			if (core < 0 || tt_topo_above(t, core, TT_NODE_NUMA) != numa)
				continue;
			r->node[r->n++] = next[k] = core;
			any = true;
		}
	}
}

/* Of one rank: what it sends to those on other NUMA nodes. */
static size_t sends(const struct ranks *r, const struct tt_sched *s, const struct tt_part *part)
{
	size_t bytes = 0;

	for (uint32_t i = 0; i < s->nsteps; i++) {
		const struct tt_step *st = &s->steps[i];
		const struct tt_ref *ref = &s->refs[st->src];

		if (st->op == TT_SEND && tt_topo_path(r->t, r->node[s->rank], r->node[st->peer]).cls >= TT_PATH_SYS)
			bytes += tt_part_len(part, 0, ref->chunk, ref->n);
	}
	return bytes;
}

static size_t across(const struct ranks *r, const struct tt_shape *shape)
{
	size_t bytes = 0, all = (size_t)r->n * ROOM;

	for (int i = 0; i < r->n; i++) {
		struct tt_sched *s;
		struct tt_part part;

		CHECK(!tt_build_ring(TT_ALLREDUCE, i, r->n, 0, shape, &s));
		part = (struct tt_part){ all, all, 1, s->per_block, s->weights, 64 };
		bytes += sends(r, s, &part);
		tt_sched_free(s);
	}
	return bytes;
}

static uint32_t hops(const struct ranks *r, const struct tt_shape *shape)
{
	uint32_t order[MAX];

	for (int i = 0; i < r->n; i++)
		order[i] = (uint32_t)tt_shape_rank(shape, 0, r->n, i);
	return tt_topo_hops(r->t, r->node, order, (uint32_t)r->n, TT_PATH_SYS);
}

/* Each hop of a ring carries all but one chunk, in either phase. */
static void compare(const struct tt_topo *t, const char *name)
{
	struct tt_shape bad = { .nlanes = 1 }, good;
	struct tt_place at[MAX];
	struct ranks r;
	uint32_t nodes = (uint32_t)tt_topo_count(t, TT_NODE_NUMA);
	size_t hop;

	bind_in_turns(&r, t);
	CHECKF(r.n > 2 && nodes > 1, "%s: %d cores, %u NUMA nodes", name, r.n, nodes);
	hop = 2 * ((size_t)r.n - 1) * ROOM;
	for (int i = 0; i < r.n; i++)
		at[i] = (struct tt_place){ .node = r.node[i] };
	CHECK(!tt_shape_of_places(at, r.n, &good));
	CHECKF(hops(&r, &good) == nodes && hops(&r, &bad) == (uint32_t)r.n, "%s: %u hops, forced badly %u", name,
	       hops(&r, &good), hops(&r, &bad));
	CHECKF(across(&r, &good) == nodes * hop && across(&r, &bad) == (size_t)r.n * hop,
	       "%s: %zu bytes, forced badly %zu", name, across(&r, &good), across(&r, &bad));
	printf("%s: %d ranks, %u of %d hops between NUMA nodes\n", name, r.n, nodes, r.n);
	tt_shape_free(&good);
}

static void made_up(void)
{
	struct tt_topo *t = test_topo_text("tutti-topology 1\nnuma numa0\nnuma numa1\ncache l3-0 in numa0\n"
					   "cache l3-1 in numa0\ncache l3-2 in numa1\ncache l3-3 in numa1\n"
					   "core core0 in l3-0 cpus=0\ncore core1 in l3-2 cpus=1\n"
					   "core core2 in l3-1 cpus=2\ncore core3 in l3-3 cpus=3\n"
					   "core core4 in l3-0 cpus=4\ncore core5 in l3-2 cpus=5\n"
					   "core core6 in l3-1 cpus=6\ncore core7 in l3-3 cpus=7\n");

	compare(t, "two sockets of four cores");
	tt_topo_free(t);
}

static void recorded(void)
{
	static const char *const names[] = { "24em64t-2n6c2t-pci.v2.xml", "32em64t-2n8c2t-pci-normalio.v2.xml",
					     "96em64t-4n4d3ca2co-pci.v2.xml" };
	const char *folder = getenv("TEST_TOPOLOGIES");
	char path[4096];

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		struct tt_topo *t;
		FILE *f;

		snprintf(path, sizeof(path), "%s/hwloc/%s", folder ? folder : "../shared/topologies", names[i]);
		f = fopen(path, "re");
		if (!f) {
			printf("skipped: there is no %s\n", path);
			continue;
		}
		fclose(f);
		if (tt_topo_load(path, NULL, &t) != tuttiSuccess) {
			CHECKF(strstr(tt_last_error(), "Debian package libhwloc"), "%s", tt_last_error());
			printf("skipped: %s\n", tt_last_error());
			return;
		}
		compare(t, names[i]);
		tt_topo_free(t);
	}
}

const struct test tests[] = { { "made_up", made_up, 0 }, { "recorded", recorded, 0 } };
const int ntests = sizeof(tests) / sizeof(tests[0]);
