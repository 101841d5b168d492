/* Lanes for devices that have links of their own to each other: in each lane the ranks of a host follow each other
 * along a ring of such links that no other lane uses. SPDX-License-Identifier: Apache-2.0 */
#include "plan.h"
#include "sched_shape.h"
#include "topo.h"
#include "topo_search.h"

#include <stdlib.h>
#include <string.h>

enum { KNOWN = 8 }; /* different hosts that are searched; of a cluster of more kinds the order stays as it is */

struct found { /* of hosts that are joined alike; ranks by their number in the host */
	struct tt_graph *graph;
	struct tt_shape shape;
};

struct host {
	const uint32_t *rank; /* its ranks */
	uint32_t n;
	const struct tt_shape *rings; /* NULL: of one rank, which goes with any */
};

struct finder {
	const struct tt_place *at;
	uint32_t n, nhosts, nknown, lanes;
	uint32_t *seq; /* the ranks, those of a host together */
	struct host *hosts;
	struct found known[KNOWN];
};

/* ---- one host ---- */

static uint32_t width(const struct tt_gpu_links *from, const struct tt_gpu_links *to)
{
	for (uint32_t k = 0; k < from->n; k++)
		if (from->to[k].id == to->id)
			return from->to[k].width;
	return 0;
}

/* False: a rank has no device with such links, or shares it. */
static bool fill_graph(const struct finder *f, const struct host *h, struct tt_graph *g)
{
	for (uint32_t i = 0; i < h->n; i++)
		for (uint32_t k = 0; k < h->n; k++) {
			const struct tt_gpu_links *a = f->at[h->rank[i]].gpu, *b = f->at[h->rank[k]].gpu;

			if (!a || !a->n || !b || (i != k && a->id == b->id))
				return false;
			if (i != k)
				tt_graph_arc(g, i, k, width(a, b));
		}
	return true;
}

static bool alike(const struct tt_graph *a, const struct tt_graph *b)
{
	return a->n == b->n && !memcmp(a->cap, b->cap, (size_t)a->total * a->total * sizeof(*a->cap));
}

static tuttiResult_t search(struct found *k)
{
	struct tt_rings *rings;
	tuttiResult_t r;

	TRY(tt_rings_find(k->graph, true, &rings));
	r = rings->count ? tt_shape_of_rings(rings, TT_RING_LANES, &k->shape) : tuttiSuccess;
	tt_rings_free(rings);
	return r;
}

/* h->rings stays NULL where there are none. */
static tuttiResult_t look_at(struct finder *f, struct host *h)
{
	struct tt_graph *g;
	uint32_t i = 0;
	bool good;

	TRY(tt_graph_new(h->n, 0, 2, &g));
	good = fill_graph(f, h, g);
	while (i < f->nknown && !alike(g, f->known[i].graph))
		i++;
	if (!good || i < f->nknown || i == KNOWN) {
		tt_graph_free(g);
	} else {
		f->known[f->nknown++] = (struct found){ .graph = g };
		TRY(search(&f->known[i]));
	}
	if (good && i < KNOWN && f->known[i].shape.order)
		h->rings = &f->known[i].shape;
	return tuttiSuccess;
}

/* ---- all hosts ---- */

static void list_hosts(struct finder *f, const struct tt_shape *s)
{
	for (uint32_t i = 0; i < f->n; i++) {
		f->seq[i] = (uint32_t)tt_shape_rank(s, 0, (int)f->n, (int)i);
		if (!i || f->at[f->seq[i]].host != f->at[f->seq[i - 1]].host)
			f->hosts[f->nhosts++] = (struct host){ .rank = f->seq + i };
		f->hosts[f->nhosts - 1].n++;
	}
}

/* As many lanes as all hosts have; none where one of several ranks has none. */
static tuttiResult_t count_lanes(struct finder *f)
{
	for (uint32_t i = 0; i < f->nhosts; i++) {
		struct host *h = &f->hosts[i];

		if (h->n == 1)
			continue;
		TRY(look_at(f, h));
		if (!h->rings) {
			f->lanes = 0;
			break;
		}
		f->lanes = !f->lanes || h->rings->nlanes < f->lanes ? h->rings->nlanes : f->lanes;
	}
	return tuttiSuccess;
}

/* A ring among several hosts leaves this one from another device in each lane: they have NICs of their own. */
static void lay(const struct finder *f, const struct host *h, uint32_t lane, uint32_t *out)
{
	uint32_t last = lane * h->n / f->lanes, pos = 0;

	if (f->nhosts > 1 && h->rings)
		pos = (uint32_t)tt_shape_pos(h->rings, lane, (int)h->n, (int)last) + 1;
	for (uint32_t k = 0; k < h->n; k++)
		out[k] = h->rank[h->rings ? h->rings->order[lane * h->n + (pos + k) % h->n] : 0];
}

static uint32_t *compose(const struct finder *f)
{
	uint32_t *order = malloc((size_t)f->lanes * f->n * sizeof(*order)), *out = order;

	for (uint32_t lane = 0; order && lane < f->lanes; lane++)
		for (uint32_t i = 0; i < f->nhosts; out += f->hosts[i++].n)
			lay(f, &f->hosts[i], lane, out);
	return order;
}

static tuttiResult_t add(const struct finder *f, struct tt_shape *s)
{
	uint32_t *weights = NULL, *order;

	if (f->nhosts == 1) {
		weights = malloc(f->lanes * sizeof(*weights));
		if (weights)
			memcpy(weights, f->hosts[0].rings->weights, f->lanes * sizeof(*weights));
	}
	order = compose(f);
	if (order && (weights || f->nhosts > 1))
		return tt_shape_widen(s, (int)f->n, f->lanes, order, weights);
	free(order);
	free(weights);
	return tt_fail(tuttiSystemError, "no memory for the shape of %u ranks", f->n);
}

tuttiResult_t tt_shape_add_rings(const struct tt_place *at, int nranks, struct tt_shape *s)
{
	struct finder f = { .at = at, .n = (uint32_t)nranks };
	tuttiResult_t r = tuttiSuccess;

	f.seq = malloc(f.n * sizeof(*f.seq));
	f.hosts = calloc(f.n, sizeof(*f.hosts));
	if (!f.seq || !f.hosts)
		r = tt_fail(tuttiSystemError, "no memory for the shape of %d ranks", nranks);
	if (r == tuttiSuccess) {
		list_hosts(&f, s);
		r = count_lanes(&f);
	}
	if (r == tuttiSuccess && f.lanes)
		r = add(&f, s);
	for (uint32_t i = 0; i < f.nknown; i++) {
		tt_graph_free(f.known[i].graph);
		tt_shape_free(&f.known[i].shape);
	}
	free(f.hosts);
	free(f.seq);
	return r;
}

/* ---- also of parts ---- */

/* Trees are not made of these links: those of all lanes are that of the first. */
tuttiResult_t tt_shape_widen(struct tt_shape *s, int nranks, uint32_t nlanes, uint32_t *order, uint32_t *weights)
{
	size_t n = (size_t)nranks;
	uint32_t *parent = s->parent ? malloc(nlanes * n * sizeof(*parent)) : NULL;

	if (s->parent && !parent) {
		free(order);
		free(weights);
		return tt_fail(tuttiSystemError, "no memory for the shape of %d ranks", nranks);
	}
	for (uint32_t lane = 0; parent && lane < nlanes; lane++)
		memcpy(parent + lane * n, s->parent, n * sizeof(*parent));
	free((void *)(uintptr_t)s->order);
	free((void *)(uintptr_t)s->parent);
	s->order = order;
	s->parent = parent;
	s->weights = weights;
	s->nlanes = nlanes;
	return tuttiSuccess;
}
