/* SPDX-License-Identifier: Apache-2.0
 * Shapes of communicators: from places, of parts, packed and unpacked; what the model makes of hosts. */
#include "plan.h"
#include "test.h"
#include "topo.h"

#include <stdlib.h>
#include <string.h>

enum { MAX = 40 };

/* Each rank once in the order, hosts together and in it by nodes; one tree that enters a host once. */
static void check_shape(const struct tt_shape *s, const struct tt_place *at, int n)
{
	bool seen[MAX] = { false };
	uint32_t up[MAX], depth[MAX];
	int hosts = 1, entries = 0;

	CHECK(s->nlanes == 1);
	for (int i = 0; i < n; i++) {
		int rank = tt_shape_rank(s, 0, n, i), last = tt_shape_rank(s, 0, n, i ? i - 1 : 0);

		CHECK(!seen[rank]);
		seen[rank] = true;
		hosts += at[rank].host != at[last].host;
		CHECK(at[rank].host != at[last].host || (unsigned)at[last].node <= (unsigned)at[rank].node);
	}
	CHECK((hosts > 1) == (s->group != NULL) && (hosts > 1) == (s->parent != NULL));
	if (hosts == 1)
		return;
	CHECK(tt_shape_tree(s, 0, n, -1, up, depth) < (uint32_t)n);
	for (int i = 0; i < n; i++) {
		for (int k = 0; k < n; k++)
			CHECK((s->group[i] == s->group[k]) == (at[i].host == at[k].host));
		entries += at[up[i]].host != at[i].host;
	}
	CHECKF(entries == hosts - 1, "%d edges between %d hosts", entries, hosts);
}

static void check_wire(const struct tt_shape *s, int n)
{
	uint64_t digest = tt_shape_digest(s, n);
	struct tt_shape copy;
	uint32_t *words;
	size_t k;

	CHECK(tt_shape_pack(s, n, &words, &k) == tuttiSuccess);
	CHECK(tt_shape_unpack(words, k, n, &copy) == tuttiSuccess && tt_shape_digest(&copy, n) == digest);
	CHECK(!copy.order == !s->order && !copy.parent == !s->parent && !copy.group == !s->group &&
	      !copy.rate == !s->rate);
	tt_shape_free(&copy);
	for (size_t cut = 0; cut < k; cut++)
		CHECK(tt_shape_unpack(words, cut, n, &copy) == tuttiRemoteError && !copy.order && !copy.group);
	if (s->order) {
		words[2] = (uint32_t)n;
		CHECK(tt_shape_unpack(words, k, n, &copy) == tuttiRemoteError);
	}
	free(words);
}

/* Of a part the same is true as of the whole, whatever the order of its ranks. */
static void check_part(const struct tt_shape *s, const struct tt_place *at, int n, uint64_t *rnd)
{
	struct tt_place part[MAX];
	int members[MAX], m = 0;
	struct tt_shape sub;

	for (int i = 0; i < n; i++) {
		int k = m;

		if (test_rand(rnd) % 3 == 0)
			continue;
		if (m++ && test_rand(rnd) % 2) {
			k = (int)(test_rand(rnd) % (uint32_t)m);
			members[m - 1] = members[k];
		}
		members[k] = i;
	}
	if (!m)
		return;
	for (int i = 0; i < m; i++)
		part[i] = at[members[i]];
	CHECK(tt_shape_part(s, n, members, m, &sub) == tuttiSuccess);
	check_shape(&sub, part, m);
	check_wire(&sub, m);
	tt_shape_free(&sub);
}

static void of_places(void)
{
	uint64_t rnd = test_seed();

	for (int i = 0; i < 2000; i++) {
		int n = 1 + (int)(test_rand(&rnd) % MAX), hosts = 1 + (int)(test_rand(&rnd) % 5), next = 0;
		bool bound = test_rand(&rnd) % 2;
		struct tt_place at[MAX];
		struct tt_shape s;

		for (int r = 0; r < n; r++) { /* numbered in the order of their first ranks */
			int host = (int)(test_rand(&rnd) % (uint32_t)hosts);

			host = host < next ? host : next++;
			at[r] = (struct tt_place){ .host = (uint32_t)host,
						   .node = bound ? (int)(test_rand(&rnd) % 9) - 1 : -1,
						   .nic = (uint32_t)test_rand(&rnd) % 2,
						   .rate = test_rand(&rnd) % 20 ? 100 : 0 };
		}
		CHECK(tt_shape_of_places(at, n, &s) == tuttiSuccess);
		check_shape(&s, at, n);
		check_wire(&s, n);
		check_part(&s, at, n, &rnd);
		tt_shape_free(&s);
	}
}

/* Ranks bound to cores in the order in which they come, on one host: nothing to say. */
static void trivial(void)
{
	struct tt_place at[4] = { { .node = 1 }, { .node = 1 }, { .node = 5 }, { .node = -1 } };
	struct tt_shape s;

	CHECK(tt_shape_of_places(at, 4, &s) == tuttiSuccess);
	CHECK(!s.order && !s.group && !s.parent && !tt_shape_digest(&s, 4));
}

/* Two sockets, ranks bound in turn: in the order of the shape the ring crosses between them twice, in the order of
 * ranks eight times. */
static void sockets(void)
{
	static const char *const cpus[] = { "0", "1", "2", "3" };
	struct tt_place at[8];
	uint32_t plain[8], crossing;
	struct tt_shape s;
	struct tt_topo *t;
	int node[8];

	CHECK(tt_topo_new(&t) == tuttiSuccess);
	for (int i = 0; i < 2; i++) {
		int numa = tt_topo_add(t, TT_NODE_NUMA, i ? "numa1" : "numa0", 0);

		for (int k = 2 * i; k < 2 * i + 2; k++) {
			char name[8] = { 'c', 'o', 'r', 'e', cpus[k][0] };

			tt_topo_set(t, tt_topo_add(t, TT_NODE_CORE, name, numa), "cpus", cpus[k]);
		}
	}
	CHECK(tt_topo_finish(t) == tuttiSuccess);
	for (int i = 0; i < 8; i++) {
		plain[i] = (uint32_t)i;
		node[i] = tt_topo_of_cpu(t, (unsigned)(i % 2 * 2 + i / 4));
		at[i] = (struct tt_place){ .node = node[i] };
	}
	CHECK(tt_shape_of_places(at, 8, &s) == tuttiSuccess && s.order);
	crossing = tt_topo_hops(t, node, s.order, 8, TT_PATH_SYS);
	CHECKF(crossing == 2, "%u hops cross", crossing);
	CHECK(tt_topo_hops(t, node, plain, 8, TT_PATH_SYS) == 8);
	tt_shape_free(&s);
	tt_topo_free(t);
}

/* Two NICs on each of two hosts, the first of three ranks: they share it. Unknown or equal ones are left out. */
static void rates(void)
{
	static const uint32_t host[] = { 0, 0, 1, 0, 1, 1 };
	struct tt_place at[6];
	static const uint32_t wanted[] = { 100, 100, 150, 100, 150, 40 };
	static const int members[] = { 5, 0 };
	struct tt_shape s, part;

	for (int i = 0; i < 6; i++)
		at[i] = (struct tt_place){ .host = host[i], .node = -1, .nic = i < 5 ? 7 : 8,
					   .rate = i < 5 ? 300 : 40 };
	CHECK(tt_shape_of_places(at, 6, &s) == tuttiSuccess);
	CHECK(s.rate && !memcmp(s.rate, wanted, sizeof(wanted)));
	CHECK(tt_shape_part(&s, 6, members, 2, &part) == tuttiSuccess);
	CHECK(part.rate && part.rate[0] == 40 && part.rate[1] == 100);
	tt_shape_free(&part);
	tt_shape_free(&s);
	at[5].rate = 0;
	CHECK(tt_shape_of_places(at, 6, &s) == tuttiSuccess && !s.rate);
	tt_shape_free(&s);
	at[5] = at[4];
	CHECK(tt_shape_of_places(at, 6, &s) == tuttiSuccess && !s.rate);
	tt_shape_free(&s);
}

static const char *chosen(const struct tt_facts *f, enum tt_coll coll, size_t bytes)
{
	struct tt_candidate c[16];

	return tt_plan_candidates(f, coll, bytes, false, c, 16) ? c[0].algo->name : "none";
}

/* Levels only where ranks share hosts and there are several; rows for ordered operators do not use the shape. */
static void levels(void)
{
	struct tt_facts f = { .nranks = 16, .per_host = 8, .hosts = 2, .cores = 8, .latency = 6e-6, .bandwidth = 1.3e9,
			      .near_latency = 150e-9, .near_bandwidth = 10e9 };
	struct tt_candidate c[16];
	int n = tt_plan_candidates(&f, TT_ALLREDUCE, 64 << 20, true, c, 16);

	CHECK(n > 0);
	for (int i = 0; i < n; i++)
		CHECK(c[i].row.flat && c[i].algo->ordered);
	CHECK(!strcmp(chosen(&f, TT_ALLREDUCE, 64 << 20), "hier"));
	CHECK(strcmp(chosen(&f, TT_ALLREDUCE, 8), "hier") && strcmp(chosen(&f, TT_ALLREDUCE, 8), "ring"));
	CHECK(!strcmp(chosen(&f, TT_BROADCAST, 8), "tree") || !strcmp(chosen(&f, TT_BROADCAST, 8), "knomial"));
	f.hosts = 1;
	CHECK(strcmp(chosen(&f, TT_ALLREDUCE, 64 << 20), "hier"));
	f.hosts = 16;
	f.per_host = 1;
	CHECK(strcmp(chosen(&f, TT_ALLREDUCE, 64 << 20), "hier"));
}

/* Messages of a schedule without windows end where those of the transport do; smaller ones are forced as asked. */
static void too_long(void)
{
	struct tt_facts f = { .nranks = 8, .per_host = 8, .hosts = 1, .cores = 8, .latency = 6e-6, .bandwidth = 1.3e9,
			      .most = 16 << 20 };

	setenv("TUTTI_ALGO", "circulant", 1);
	CHECK(!strcmp(chosen(&f, TT_ALLGATHER, 2 << 20), "circulant"));
	CHECK(strcmp(chosen(&f, TT_ALLGATHER, 4 << 20), "circulant"));
	CHECK(!strcmp(chosen(&f, TT_ALLREDUCE, 1 << 30), "circulant"));
	f.most = 0;
	CHECK(!strcmp(chosen(&f, TT_ALLGATHER, 1 << 30), "circulant"));
	unsetenv("TUTTI_ALGO");
}

const struct test tests[] = {
	{ "of_places", of_places, 0 }, { "trivial", trivial, 0 }, { "sockets", sockets, 0 }, { "rates", rates, 0 }, 
	{ "levels", levels, 0 }, { "too_long", too_long, 0 },
};
const int ntests = sizeof(tests) / sizeof(tests[0]);
