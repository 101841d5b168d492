/* SPDX-License-Identifier: Apache-2.0
 * Packing spanning arborescences after Edmonds and Lovasz. A batch is a tree in the making, worth some weight; at first
 * it is its root alone. A batch grows by a link if what is left still serves all others, which one flow tells, and
 * how much of the weight can go that way: the rest becomes a batch of its own. By Edmonds' theorem some link always
 * can be taken while the cuts allow what was promised. */
#include "topo_flow.h"

#include <stdlib.h>
#include <string.h>

enum {
	NONE = UINT32_MAX,
	LARGE = 16, /* more ends: whole units alone, as parts would make very many trees */
	LOOKS = 24, /* and so many links tried for one that takes the whole weight */
};
static const int64_t WORK = 300000000; /* flows times links: about a second or two */

struct batch {
	int64_t weight;
	uint32_t root, size;
	uint32_t *parent, *depth; /* NONE: not in it yet */
};

struct packing {
	struct tt_arcs a; /* what is left */
	struct batch *batches;
	uint32_t count, room;
	int64_t work;
	/* The network in which the batch that grows is tried. */
	struct tt_flow *f;
	uint32_t enter; /* the arc from the source to the first end; those to the others follow */
	int64_t others; /* weight of the batches besides it that are still growing */
	uint32_t *arc;  /* n x n: of a link */
};

static tuttiResult_t no_memory(const struct packing *p)
{
	return tt_fail(tuttiSystemError, "no memory for trees of %u ends", p->a.n);
}

/* A batch of the root alone. */
static tuttiResult_t add_batch(struct packing *p, uint32_t root, int64_t weight)
{
	struct batch b = { .weight = weight, .root = root, .size = 1 };

	if (p->count == p->room) {
		uint32_t room = p->room * 2 + 8;
		void *bigger = realloc(p->batches, room * sizeof *p->batches);

		if (!bigger)
			return no_memory(p);
		p->batches = bigger;
		p->room = room;
	}
	b.parent = malloc(2 * sizeof *b.parent * p->a.n);
	if (!b.parent)
		return no_memory(p);
	b.depth = b.parent + p->a.n;
	memset(b.parent, 0xff, sizeof *b.parent * p->a.n);
	b.parent[root] = root;
	b.depth[root] = 0;
	p->batches[p->count++] = b;
	return tuttiSuccess;
}

/* Leaves `weight` in batch i; the rest goes on by itself from the same tree. */
static tuttiResult_t split(struct packing *p, uint32_t i, int64_t weight)
{
	struct batch *b, *rest;

	TRY(add_batch(p, p->batches[i].root, p->batches[i].weight - weight));
	b = &p->batches[i];
	rest = &p->batches[p->count - 1];
	b->weight = weight;
	rest->size = b->size;
	memcpy(rest->parent, b->parent, 2 * sizeof *b->parent * p->a.n);
	return tuttiSuccess;
}

static void free_packing(struct packing *p)
{
	for (uint32_t i = 0; i < p->count; i++)
		free(p->batches[i].parent);
	free(p->batches);
	free(p->arc);
	tt_flow_free(p->f);
	tt_arcs_free(&p->a);
}

/* ---- how much of batch i may grow by a link ---- */

/* The source feeds each other batch with its weight, which flows out anywhere in it. */
static tuttiResult_t open_network(struct packing *p, uint32_t i)
{
	uint32_t n = p->a.n, narcs = n * n + n, extra = 0, at = 0;

	for (uint32_t k = 0; k < p->count; k++)
		extra += k != i && p->batches[k].size < n;
	tt_flow_free(p->f);
	p->f = tt_flow_new(n + 1 + extra, narcs + extra * (n + 1));
	if (!p->f)
		return no_memory(p);
	for (uint32_t u = 0; u < n; u++)
		for (uint32_t v = 0; v < n; v++)
			if (tt_arcs_cap(&p->a, u, v))
				p->arc[u * n + v] = tt_flow_arc(p->f, u, v, tt_arcs_cap(&p->a, u, v), 0);
	for (uint32_t u = 0; u < n; u++) {
		uint32_t arc = tt_flow_arc(p->f, n, u, 0, 0);

		p->enter = u ? p->enter : arc;
	}
	p->others = 0;
	for (uint32_t k = 0; k < p->count; k++) {
		const struct batch *b = &p->batches[k];

		if (k == i || b->size == n)
			continue;
		p->others += b->weight;
		tt_flow_arc(p->f, n, n + 1 + at, b->weight, 0);
		for (uint32_t v = 0; v < n; v++)
			if (b->parent[v] != NONE)
				tt_flow_arc(p->f, n + 1 + at, v, b->weight, 0);
		at++;
	}
	return tuttiSuccess;
}

static int64_t may_grow(struct packing *p, const struct batch *b, uint32_t x, uint32_t y)
{
	int64_t cap = tt_arcs_cap(&p->a, x, y), most = cap < b->weight ? cap : b->weight, flow;

	tt_flow_set(p->f, p->enter + x, most + p->others, 0);
	flow = tt_flow_max(p->f, p->a.n, y, most + p->others);
	tt_flow_set(p->f, p->enter + x, 0, 0);
	p->work -= (int64_t)p->a.n * p->a.n;
	return flow - p->others;
}

/* The link to grow by: near the root, and best one that takes the whole weight. */
static int64_t find_link(struct packing *p, const struct batch *b, uint32_t *x, uint32_t *y)
{
	uint32_t n = p->a.n, looks = 0, left = n;
	int64_t best = 0;

	for (uint32_t depth = 0; left && depth < n; depth++)
		for (uint32_t u = 0; u < n; u++) {
			if (b->parent[u] == NONE || b->depth[u] != depth)
				continue;
			for (uint32_t v = 0; v < n; v++) {
				int64_t grow, cap = tt_arcs_cap(&p->a, u, v);

				if (b->parent[v] != NONE || cap <= best)
					continue;
				grow = may_grow(p, b, u, v);
				if (grow > best) {
					best = grow;
					*x = u;
					*y = v;
				}
				if (best == b->weight || (best && n > LARGE && ++looks > LOOKS))
					return best;
			}
		}
	return best;
}

static tuttiResult_t grow(struct packing *p, uint32_t i)
{
	uint32_t x = 0, y = 0, n = p->a.n;
	int64_t weight = p->work > 0 ? find_link(p, &p->batches[i], &x, &y) : 0;
	struct batch *b;

	if (!weight) {
		p->work = 0; /* out of it, or of links: more than the cuts allow was asked for */
		return tuttiSuccess;
	}
	if (weight < p->batches[i].weight) {
		TRY(split(p, i, weight));
		TRY(open_network(p, i));
	}
	b = &p->batches[i];
	p->a.cap[(size_t)x * n + y] -= weight;
	tt_flow_set(p->f, p->arc[x * n + y], tt_arcs_cap(&p->a, x, y), 0);
	b->parent[y] = x;
	b->depth[y] = b->depth[x] + 1;
	b->size++;
	return tuttiSuccess;
}

/* Batch after batch; what is not finished when the work is used up is left out later. */
static tuttiResult_t pack(struct packing *p)
{
	for (uint32_t i = 0; i < p->count && p->work > 0; i++) {
		TRY(open_network(p, i));
		while (p->batches[i].size < p->a.n && p->work > 0)
			TRY(grow(p, i));
	}
	return tuttiSuccess;
}

/* ---- how much from which root ---- */

static tuttiResult_t one_root(struct packing *p, uint32_t root)
{
	struct tt_frac least;

	TRY(tt_cut_from(&p->a, root, &least));
	return least.num ? add_batch(p, root, (int64_t)least.num) : tuttiSuccess;
}

static void scale_by(struct packing *p, int64_t by)
{
	for (size_t i = 0; i < (size_t)p->a.n * p->a.n; i++)
		p->a.cap[i] *= by;
}

static tuttiResult_t each_root(struct packing *p, uint64_t *den)
{
	struct tt_frac ratio;

	TRY(tt_cut_ratio(&p->a, 0, &ratio));
	scale_by(p, (int64_t)ratio.den);
	*den *= ratio.den;
	for (uint32_t v = 0; v < p->a.n && ratio.num; v++)
		TRY(add_batch(p, v, (int64_t)ratio.num));
	return tuttiSuccess;
}

static tuttiResult_t any_root(struct packing *p, uint64_t *den)
{
	int64_t *roots = calloc(p->a.n, sizeof *roots);
	struct tt_frac most;
	tuttiResult_t r;

	if (!roots)
		return no_memory(p);
	r = tt_cut_roots(&p->a, 0, &most);
	if (p->a.n > LARGE && most.num >= most.den)
		most = tt_frac(most.num / most.den, 1);
	if (r == tuttiSuccess && most.num)
		r = tt_cut_place(&p->a, most, NULL, roots);
	if (r == tuttiSuccess) {
		scale_by(p, (int64_t)most.den);
		*den *= most.den;
	}
	for (uint32_t v = 0; v < p->a.n && r == tuttiSuccess; v++)
		if (roots[v])
			r = add_batch(p, v, roots[v]);
	free(roots);
	return r;
}

/* ---- the result ---- */

static tuttiResult_t hand_over(const struct packing *p, uint64_t den, struct tt_trees **out)
{
	struct tt_trees *t = calloc(1, sizeof *t);
	uint64_t common = den, sum = 0;

	if (t)
		*t = (struct tt_trees){ .n = p->a.n, .root = malloc((p->count + 1) * sizeof *t->root),
					.weight = malloc((p->count + 1) * sizeof *t->weight),
					.parent = malloc(((size_t)p->count * p->a.n + 1) * sizeof *t->parent) };
	if (!t || !t->root || !t->weight || !t->parent) {
		tt_trees_free(t);
		return no_memory(p);
	}
	for (uint32_t i = 0; i < p->count; i++)
		common = p->batches[i].size == p->a.n ? tt_gcd(common, (uint64_t)p->batches[i].weight) : common;
	for (uint32_t i = 0; i < p->count; i++) {
		const struct batch *b = &p->batches[i];

		if (b->size < p->a.n)
			continue;
		t->root[t->count] = b->root;
		t->weight[t->count] = (uint32_t)((uint64_t)b->weight / common);
		memcpy(t->parent + (size_t)t->count * p->a.n, b->parent, p->a.n * sizeof *t->parent);
		sum += t->weight[t->count++];
	}
	t->den = (uint32_t)(den / common);
	t->total = tt_frac(sum, t->den);
	*out = t;
	return tuttiSuccess;
}

static tuttiResult_t find(struct packing *p, int root, uint64_t den, struct tt_trees **out)
{
	p->arc = calloc((size_t)p->a.n * p->a.n, sizeof *p->arc);
	if (!p->arc)
		return no_memory(p);
	if (p->a.n > 1)
		TRY(root == TT_ROOT_ANY	 ? any_root(p, &den) :
		    root == TT_ROOT_EACH ? each_root(p, &den) :
					   one_root(p, (uint32_t)root));
	TRY(pack(p));
	return hand_over(p, den, out);
}

tuttiResult_t tt_trees_find(const struct tt_graph *g, int root, struct tt_trees **out)
{
	static const tt_measure measures[] = { tt_cut_ratio, tt_cut_roots, tt_cut_from };
	bool any = root == TT_ROOT_ANY;
	struct packing p = { .work = WORK };
	int64_t scale;
	tuttiResult_t r;

	if (root >= (int)g->n || root < TT_ROOT_EACH)
		return tt_fail(tuttiInvalidArgument, "no trees from root %d of %u ends", root, g->n);
	TRY(tt_arcs_direct(g, any ? TT_ARCS_BOTH : TT_ARCS_OUT, g->n > LARGE, measures[root < 0 ? root + 2 : 2],
			   root < 0 ? 0 : (uint32_t)root, &p.a, &scale));
	r = find(&p, root, (uint64_t)scale * g->unit, out);
	free_packing(&p);
	return r;
}

struct tt_frac tt_trees_rings(const struct tt_trees *t)
{
	return tt_frac(t->total.num * (t->n - 1), t->total.den * t->n);
}

void tt_trees_free(struct tt_trees *t)
{
	if (!t)
		return;
	free(t->root);
	free(t->weight);
	free(t->parent);
	free(t);
}
