/* SPDX-License-Identifier: Apache-2.0
 * Symbolic values of the checker: leaves (rank, chunk) and reductions of a list in order, each
 * kept once. */
#include "sched_check.h"

#include <stdlib.h>
#include <string.h>

struct node {
	uint32_t kids, nkids; /* into `kids`; leaves have none */
	uint32_t chunk, next; /* next: in the hash chain */
	int lo, hi;	      /* first and last rank, left to right */
	bool twice, mixed, in_order;
};

struct tt_exprs {
	struct node *nodes; /* 0 is not used */
	uint64_t *ranks;    /* per node: who contributes */
	uint32_t *kids, *heads;
	size_t n, cap, nkids, cap_kids, words, nheads;
	int p;
	uint32_t nchunks;
};

static bool reserve_nodes(struct tt_exprs *e, size_t need)
{
	size_t cap = tt_max(need, e->cap * 2);
	void *p;

	if (need <= e->cap)
		return true;
	p = realloc(e->nodes, cap * sizeof *e->nodes);
	if (!p)
		return false;
	e->nodes = p;
	p = realloc(e->ranks, cap * e->words * sizeof *e->ranks);
	if (!p)
		return false;
	e->ranks = p;
	e->cap = cap;
	return true;
}

static bool reserve_kids(struct tt_exprs *e, size_t need)
{
	size_t cap = tt_max(need, e->cap_kids * 2);
	void *p;

	if (need <= e->cap_kids)
		return true;
	p = realloc(e->kids, cap * sizeof *e->kids);
	if (!p)
		return false;
	e->kids = p;
	e->cap_kids = cap;
	return true;
}

static void make_leaves(struct tt_exprs *e)
{
	for (int r = 0; r < e->p; r++)
		for (uint32_t c = 0; c < e->nchunks; c++) {
			uint64_t *ranks = e->ranks + e->n * e->words;

			memset(ranks, 0, e->words * sizeof *ranks);
			ranks[r / 64] = 1ull << (r % 64);
			e->nodes[e->n++] =
				(struct node){ .chunk = c, .lo = r, .hi = r, .in_order = true };
		}
}

struct tt_exprs *tt_exprs_new(int nranks, uint32_t nchunks)
{
	struct tt_exprs *e = calloc(1, sizeof *e);

	if (!e)
		return NULL;
	e->p = nranks;
	e->nchunks = nchunks;
	e->words = tt_div_up((size_t)nranks, 64);
	e->nheads = 1 << 12;
	e->n = 1;
	e->heads = calloc(e->nheads, sizeof *e->heads);
	if (!e->heads || !reserve_nodes(e, (size_t)nranks * nchunks + 64) ||
	    !reserve_kids(e, 256)) {
		tt_exprs_free(e);
		return NULL;
	}
	make_leaves(e);
	return e;
}

void tt_exprs_free(struct tt_exprs *e)
{
	if (!e)
		return;
	free(e->nodes);
	free(e->ranks);
	free(e->kids);
	free(e->heads);
	free(e);
}

uint32_t tt_expr_leaf(const struct tt_exprs *e, int rank, uint32_t chunk)
{
	return 1 + (uint32_t)rank * e->nchunks + chunk;
}

static size_t hash(const struct tt_exprs *e, const uint32_t *kids, uint32_t n)
{
	uint64_t h = n;

	for (uint32_t i = 0; i < n; i++)
		h = (h ^ kids[i]) * 0x9e3779b97f4a7c15ull;
	return (size_t)(h >> 40) & (e->nheads - 1);
}

/* Takes the facts of a kid into the node: who, in which order. */
static void absorb(struct tt_exprs *e, uint32_t into, uint32_t kid, bool first)
{
	struct node *a = &e->nodes[into], *k = &e->nodes[kid];
	uint64_t *all = e->ranks + into * e->words, *ranks = e->ranks + kid * e->words;

	if (first) {
		a->chunk = k->chunk;
		a->lo = k->lo;
		a->in_order = true;
		memset(all, 0, e->words * sizeof *all);
	} else if (a->hi + 1 != k->lo) {
		a->in_order = false;
	}
	a->hi = k->hi;
	a->in_order = a->in_order && k->in_order;
	a->mixed = a->mixed || k->mixed || a->chunk != k->chunk;
	a->twice = a->twice || k->twice;
	for (size_t w = 0; w < e->words; w++) {
		a->twice = a->twice || (all[w] & ranks[w]);
		all[w] |= ranks[w];
	}
}

uint32_t tt_expr_reduce(struct tt_exprs *e, const uint32_t *kids, uint32_t n)
{
	uint32_t *head = &e->heads[hash(e, kids, n)], id;

	for (id = *head; id; id = e->nodes[id].next)
		if (e->nodes[id].nkids == n &&
		    !memcmp(e->kids + e->nodes[id].kids, kids, n * sizeof *kids))
			return id;
	if (e->n >= UINT32_MAX || e->nkids >= UINT32_MAX - n || !reserve_nodes(e, e->n + 1) ||
	    !reserve_kids(e, e->nkids + n))
		return 0;
	id = (uint32_t)e->n++;
	e->nodes[id] = (struct node){ .kids = (uint32_t)e->nkids, .nkids = n, .next = *head };
	memcpy(e->kids + e->nkids, kids, n * sizeof *kids);
	e->nkids += n;
	*head = id;
	for (uint32_t i = 0; i < n; i++)
		absorb(e, id, kids[i], i == 0);
	return id;
}

uint32_t tt_expr_ranks(const struct tt_exprs *e, uint32_t id)
{
	uint32_t n = 0;

	for (size_t w = 0; w < e->words; w++)
		n += (uint32_t)__builtin_popcountll(e->ranks[id * e->words + w]);
	return n;
}

const char *tt_expr_wrong(const struct tt_exprs *e, uint32_t id, uint32_t chunk, bool ordered)
{
	const struct node *n = &e->nodes[id];

	if (n->mixed || n->chunk != chunk)
		return "holds another chunk";
	if (n->twice)
		return "holds a contribution twice";
	if (tt_expr_ranks(e, id) != (uint32_t)e->p)
		return "lacks a contribution";
	if (ordered && !n->in_order)
		return "is not reduced in the order of ranks";
	return NULL;
}
