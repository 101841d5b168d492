/* SPDX-License-Identifier: Apache-2.0
 * Shapes: where a rank is in a lane's order or tree, and shapes made from the rings and trees of a graph. */
#include "sched_shape.h"

#include <stdlib.h>
#include <string.h>

int tt_shape_pos(const struct tt_shape *s, uint32_t lane, int nranks, int rank)
{
	int pos = 0;

	if (!s->order)
		return rank;
	while (pos < nranks - 1 && tt_shape_rank(s, lane, nranks, pos) != rank)
		pos++;
	return pos;
}

/* The parents as the shape has them; without any, a heap in the lane's order. */
static uint32_t parents(const struct tt_shape *s, uint32_t lane, int nranks, uint32_t *up)
{
	uint32_t n = (uint32_t)nranks, root = 0;

	for (uint32_t i = 0; i < n; i++) {
		uint32_t at = s->parent ? i : (uint32_t)tt_shape_rank(s, lane, nranks, (int)i);

		up[at] = s->parent ? s->parent[(size_t)lane * n + i] :
				     (uint32_t)tt_shape_rank(s, lane, nranks, i ? (int)(i - 1) / 2 : 0);
		root = up[at] == at ? at : root;
	}
	return root;
}

uint32_t tt_shape_tree(const struct tt_shape *s, uint32_t lane, int nranks, int root, uint32_t *up, uint32_t *depth)
{
	uint32_t top = parents(s, lane, nranks, up), n = (uint32_t)nranks, height = 0;

	/* From the new root up to the old one each link is turned round. */
	for (uint32_t at = root < 0 ? top : (uint32_t)root, below = at, next; ; below = at, at = next) {
		next = up[at];
		up[at] = below;
		if (next == at)
			break;
	}
	for (uint32_t i = 0; i < n; i++) {
		uint32_t steps = 0;

		for (uint32_t at = i; up[at] != at && steps < n; at = up[at])
			steps++;
		depth[i] = steps;
		height = steps > height ? steps : height;
	}
	return height;
}

/* ---- from the search ---- */

struct lane {
	uint32_t from, weight;
};

static int heavier(const void *a, const void *b)
{
	const struct lane *x = a, *y = b;

	if (x->weight != y->weight)
		return x->weight > y->weight ? -1 : 1;
	return (x->from > y->from) - (x->from < y->from);
}

/* The heaviest `most` of the lines, in their order by weight. */
static tuttiResult_t take_lanes(const uint32_t *lines, const uint32_t *weights, uint32_t count, uint32_t n,
				uint32_t most, uint32_t **out_lines, uint32_t **out_weights, uint32_t *nlanes)
{
	uint32_t k = count < most ? count : most;
	struct lane *lanes = malloc(count * sizeof *lanes + 1);
	uint32_t *l = malloc(((size_t)k * n + 1) * sizeof *l), *w = malloc((k + 1) * sizeof *w);

	if (!lanes || !l || !w) {
		free(lanes);
		free(l);
		free(w);
		return tt_fail(tuttiSystemError, "no memory for a shape of %u lanes", k);
	}
	for (uint32_t i = 0; i < count; i++)
		lanes[i] = (struct lane){ i, weights[i] };
	qsort(lanes, count, sizeof *lanes, heavier);
	for (uint32_t i = 0; i < k; i++) {
		memcpy(l + (size_t)i * n, lines + (size_t)lanes[i].from * n, n * sizeof *l);
		w[i] = lanes[i].weight;
	}
	free(lanes);
	*out_lines = l;
	*out_weights = w;
	*nlanes = k;
	return tuttiSuccess;
}

tuttiResult_t tt_shape_of_rings(const struct tt_rings *r, uint32_t most, struct tt_shape *out)
{
	uint32_t *order, *weights, n;

	if (!r->count || !most)
		return tt_fail(tuttiInvalidArgument, "no rings to make a shape of");
	TRY(take_lanes(r->order, r->weight, r->count, r->n, most, &order, &weights, &n));
	*out = (struct tt_shape){ .nlanes = n, .order = order, .weights = weights };
	return tuttiSuccess;
}

tuttiResult_t tt_shape_of_trees(const struct tt_trees *t, uint32_t most, struct tt_shape *out)
{
	uint32_t *parent, *weights, n;

	if (!t->count || !most)
		return tt_fail(tuttiInvalidArgument, "no trees to make a shape of");
	TRY(take_lanes(t->parent, t->weight, t->count, t->n, most, &parent, &weights, &n));
	*out = (struct tt_shape){ .nlanes = n, .parent = parent, .weights = weights };
	return tuttiSuccess;
}

void tt_shape_free(struct tt_shape *s)
{
	free((void *)(uintptr_t)s->order);
	free((void *)(uintptr_t)s->parent);
	free((void *)(uintptr_t)s->weights);
	free((void *)(uintptr_t)s->group);
	free((void *)(uintptr_t)s->rate);
	*s = (struct tt_shape){ .nlanes = 1 };
}
