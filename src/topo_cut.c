/* SPDX-License-Identifier: Apache-2.0
 * Bounds by cuts. Each is the least of a ratio over exponentially many sets; Newton's iteration takes a ratio, looks
 * by maximum flow for a set with a lower one, and goes on from there until there is none: exact, in few rounds. */
#include "topo_flow.h"

#include <stdlib.h>
#include <string.h>

/* ---- the graph in long integers ---- */

static uint32_t cap_of(const struct tt_graph *g, enum tt_arcs_how how, uint32_t u, uint32_t v)
{
	uint32_t there = tt_graph_cap(g, u, v), back = tt_graph_cap(g, v, u);

	if (u == v)
		return 0;
	return how == TT_ARCS_OUT ? there : how == TT_ARCS_IN ? back : there < back ? there : back;
}

tuttiResult_t tt_arcs_of(const struct tt_graph *g, enum tt_arcs_how how, struct tt_arcs *out)
{
	size_t total = g->total, sum = 0;

	for (size_t i = 0; i < total * total; i++)
		sum += g->cap[i] == TT_NO_LIMIT ? 0 : g->cap[i];
	if (sum > INT64_MAX / 16 / (total * total * total * total))
		return tt_fail(tuttiInvalidArgument, "the links of a graph of %u vertices sum up to %zu: too much to "
			       "count with; state them in larger units", g->total, sum);
	*out = (struct tt_arcs){ .n = g->n, .total = g->total, .wide = (int64_t)((2 * sum + 1) * total) };
	out->cap = calloc(total * total, sizeof *out->cap);
	if (!out->cap)
		return tt_fail(tuttiSystemError, "no memory for a graph of %u vertices", g->total);
	for (uint32_t u = 0; u < g->total; u++)
		for (uint32_t v = 0; v < g->total; v++) {
			uint32_t c = cap_of(g, how, u, v);

			out->cap[u * total + v] = c == TT_NO_LIMIT ? out->wide : c;
		}
	return tuttiSuccess;
}

void tt_arcs_free(struct tt_arcs *a)
{
	free(a->cap);
	a->cap = NULL;
}

tuttiResult_t tt_arcs_flow(const struct tt_arcs *a, uint32_t extra, uint32_t more, int64_t scale,
			   struct tt_flow **out)
{
	uint32_t narcs = more;

	for (uint32_t u = 0; u < a->total; u++)
		for (uint32_t v = 0; v < u; v++)
			narcs += tt_arcs_cap(a, u, v) || tt_arcs_cap(a, v, u);
	*out = tt_flow_new(a->total + extra, narcs);
	if (!*out)
		return tt_fail(tuttiSystemError, "no memory for a flow over %u links", narcs);
	for (uint32_t u = 0; u < a->total; u++)
		for (uint32_t v = 0; v < u; v++)
			if (tt_arcs_cap(a, u, v) || tt_arcs_cap(a, v, u))
				tt_flow_arc(*out, u, v, scale * tt_arcs_cap(a, u, v),
					    scale * tt_arcs_cap(a, v, u));
	return tuttiSuccess;
}

/* ---- allgather: out(S) / |S| ---- */

static struct tt_frac ratio_of(const struct tt_arcs *a, const bool *in_set)
{
	uint64_t out = 0, size = 0;

	for (uint32_t u = 0; u < a->total; u++) {
		size += u < a->n && in_set[u];
		for (uint32_t v = 0; v < a->total && in_set[u]; v++)
			out += in_set[v] ? 0 : (uint64_t)tt_arcs_cap(a, u, v);
	}
	return tt_frac(out < (uint64_t)a->wide ? out : (uint64_t)a->wide, size);
}

/* A set without v and with a lower ratio: each end feeds in `num`, and what cannot reach v is held back by it. */
static tuttiResult_t lower_ratio(const struct tt_arcs *a, bool *set, uint32_t v, struct tt_frac *ratio, bool *found)
{
	int64_t all = (int64_t)ratio->num * a->n;
	uint32_t source = a->total;
	struct tt_flow *f;

	TRY(tt_arcs_flow(a, 1, a->n, (int64_t)ratio->den, &f));
	for (uint32_t u = 0; u < a->n; u++)
		tt_flow_arc(f, source, u, (int64_t)ratio->num, 0);
	*found = tt_flow_max(f, source, v, all) < all;
	for (uint32_t u = 0; u < a->total; u++)
		set[u] = tt_flow_before(f, u);
	if (*found)
		*ratio = ratio_of(a, set);
	tt_flow_free(f);
	return tuttiSuccess;
}

tuttiResult_t tt_cut_ratio(const struct tt_arcs *a, uint32_t root, struct tt_frac *ratio)
{
	bool *set = calloc(a->total, sizeof *set), found = true;
	tuttiResult_t r = tuttiSuccess;

	if (!set)
		return tt_fail(tuttiSystemError, "no memory for a set of %u vertices", a->total);
	set[0] = true;
	*ratio = ratio_of(a, set);
	for (uint32_t v = 0; v < a->n && r == tuttiSuccess && ratio->num; v++)
		for (found = true; found && r == tuttiSuccess && ratio->num;)
			r = lower_ratio(a, set, v, ratio, &found);
	free(set);
	return r;
}

tuttiResult_t tt_cut_bound(const struct tt_graph *g, struct tt_frac *bound)
{
	struct tt_frac least = { 1, 0 };
	bool limited = false;

	for (int how = TT_ARCS_OUT; how <= TT_ARCS_IN && g->n > 1; how++) {
		struct tt_frac ratio;
		struct tt_arcs a;
		tuttiResult_t r;

		TRY(tt_arcs_of(g, how, &a));
		r = tt_cut_ratio(&a, 0, &ratio);
		limited = limited || ratio.num * g->n < (uint64_t)a.wide * ratio.den;
		tt_arcs_free(&a);
		TRY(r);
		if (tt_frac_cmp(ratio, least) < 0)
			least = ratio;
	}
	*bound = limited ? tt_frac(least.num * (g->n - 1), least.den * g->unit) : (struct tt_frac){ 1, 0 };
	return tuttiSuccess;
}

/* ---- one root ---- */

tuttiResult_t tt_cut_from(const struct tt_arcs *a, uint32_t root, struct tt_frac *out)
{
	int64_t least = a->wide;
	struct tt_flow *f;

	TRY(tt_arcs_flow(a, 0, 0, 1, &f));
	for (uint32_t v = 0; v < a->n; v++)
		if (v != root)
			least = tt_flow_max(f, root, v, least);
	tt_flow_free(f);
	*out = least < a->wide ? tt_frac((uint64_t)least, 1) : (struct tt_frac){ 1, 0 };
	return tuttiSuccess;
}

tuttiResult_t tt_cut_least(const struct tt_arcs *a, uint32_t root, struct tt_frac *out)
{
	int64_t least = a->wide;
	struct tt_flow *f;

	TRY(tt_arcs_flow(a, 0, 0, 1, &f));
	for (uint32_t v = 0; v < a->n; v++) {
		least = v != root ? tt_flow_max(f, root, v, least) : least;
		least = v != root ? tt_flow_max(f, v, root, least) : least;
	}
	tt_flow_free(f);
	*out = tt_frac((uint64_t)least, 1);
	return tuttiSuccess;
}

tuttiResult_t tt_cut_root(const struct tt_graph *g, uint32_t root, struct tt_frac *bound)
{
	struct tt_arcs a;
	tuttiResult_t r;

	TRY(tt_arcs_of(g, TT_ARCS_OUT, &a));
	r = tt_cut_from(&a, root, bound);
	tt_arcs_free(&a);
	if (r == tuttiSuccess && bound->den)
		*bound = tt_frac(bound->num, bound->den * g->unit);
	return r;
}

/* ---- free roots. Trees for k units, m(v) of them rooted at v, can be packed where m(X) + in(X) >= k for each set X
 * that has an end (Edmonds, Frank). m starts large and is lowered end by end as far as that allows. ---- */

struct placing {
	const struct tt_arcs *a;
	struct tt_flow *f;
	uint32_t first; /* of the arcs from the source, which is the last vertex */
	int64_t k, *m;
};

static tuttiResult_t open_placing(struct placing *p, const struct tt_arcs *a, struct tt_frac k, int64_t *m)
{
	*p = (struct placing){ .a = a, .k = (int64_t)k.num, .m = m };
	TRY(tt_arcs_flow(a, 1, a->n, (int64_t)k.den, &p->f));
	for (uint32_t v = 0; v < a->n; v++) {
		uint32_t arc = tt_flow_arc(p->f, a->total, v, p->k, 0);

		p->first = v ? p->first : arc;
		m[v] = p->k;
	}
	return tuttiSuccess;
}

static int64_t lower_all(struct placing *p, const uint32_t *order)
{
	int64_t sum = 0;

	for (uint32_t i = p->a->n; i-- > 0;) {
		uint32_t v = order ? order[i] : i;
		int64_t spare = tt_flow_max(p->f, p->a->total, v, p->k + p->m[v]) - p->k;

		p->m[v] -= spare;
		tt_flow_set(p->f, p->first + v, p->m[v], 0);
		sum += p->m[v];
	}
	return sum;
}

tuttiResult_t tt_cut_place(const struct tt_arcs *a, struct tt_frac k, const uint32_t *order, int64_t *roots)
{
	struct placing p;

	TRY(open_placing(&p, a, k, roots));
	lower_all(&p, order);
	tt_flow_free(p.f);
	return tuttiSuccess;
}

/* Adds the tight set around v to those found so far, which share no end; returns how many there are. */
static uint32_t add_tight(struct placing *p, bool *sets, uint32_t nsets, uint32_t v)
{
	uint32_t total = p->a->total, kept = 0;
	bool *mine = sets + (size_t)nsets * total;

	tt_flow_max(p->f, total, v, INT64_MAX);
	for (uint32_t u = 0; u < total; u++)
		mine[u] = !tt_flow_before(p->f, u);
	for (uint32_t i = 0; i < nsets; i++) {
		bool *set = sets + (size_t)i * total, meet = false;

		for (uint32_t u = 0; u < p->a->n; u++)
			meet = meet || (set[u] && mine[u]);
		for (uint32_t u = 0; u < total && meet; u++)
			mine[u] = mine[u] || set[u];
		if (!meet && kept++ != i)
			memcpy(sets + (size_t)(kept - 1) * total, set, total);
	}
	memmove(sets + (size_t)kept * total, mine, total);
	return kept + 1;
}

static uint64_t into(const struct tt_arcs *a, const bool *set)
{
	uint64_t sum = 0;

	for (uint32_t u = 0; u < a->total; u++)
		for (uint32_t v = 0; v < a->total && !set[u]; v++)
			sum += set[v] ? (uint64_t)tt_arcs_cap(a, u, v) : 0;
	return sum < (uint64_t)a->wide ? sum : (uint64_t)a->wide;
}

/* One round: is k possible? If not, a lower one that is not exceeded. */
static tuttiResult_t try_roots(const struct tt_arcs *a, int64_t *m, bool *sets, struct tt_frac *k, bool *possible)
{
	struct placing p;
	uint64_t sum = 0;
	uint32_t n = 0;

	TRY(open_placing(&p, a, *k, m));
	*possible = lower_all(&p, NULL) <= p.k;
	for (uint32_t v = 0; v < a->n && !*possible; v++)
		if (m[v])
			n = add_tight(&p, sets, n, v);
	for (uint32_t i = 0; i < n; i++)
		sum += into(a, sets + (size_t)i * a->total);
	if (!*possible)
		*k = tt_frac(sum, n - 1);
	tt_flow_free(p.f);
	return tuttiSuccess;
}

tuttiResult_t tt_cut_roots(const struct tt_arcs *a, uint32_t root, struct tt_frac *most)
{
	bool *sets = calloc((size_t)a->n + 1, a->total), possible = a->n < 2;
	int64_t *m = calloc(a->n, sizeof *m);
	tuttiResult_t r = tuttiSuccess;
	uint64_t sum = 0;

	for (uint32_t v = 0; v < a->n && sets; v++) {
		memset(sets, 0, a->total);
		sets[v] = true;
		sum += into(a, sets);
	}
	*most = a->n > 1 ? tt_frac(sum, a->n - 1) : (struct tt_frac){ 1, 0 };
	if (!sets || !m)
		r = tt_fail(tuttiSystemError, "no memory for sets of %u vertices", a->total);
	while (r == tuttiSuccess && !possible && most->num)
		r = try_roots(a, m, sets, most, &possible);
	if (r == tuttiSuccess && most->num * a->n >= (uint64_t)a->wide * most->den)
		*most = (struct tt_frac){ 1, 0 };
	free(sets);
	free(m);
	return r;
}

tuttiResult_t tt_cut_trees(const struct tt_graph *g, struct tt_frac *bound)
{
	struct tt_arcs a;
	tuttiResult_t r;

	TRY(tt_arcs_of(g, TT_ARCS_BOTH, &a));
	r = tt_cut_roots(&a, 0, bound);
	tt_arcs_free(&a);
	if (r == tuttiSuccess && bound->den)
		*bound = tt_frac(bound->num * (g->n - 1), bound->den * g->n * g->unit);
	return r;
}
