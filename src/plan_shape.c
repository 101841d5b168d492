/* The shape of a communicator from where its ranks are; of a part of it; on the wire.
 * SPDX-License-Identifier: Apache-2.0 */
#include "plan.h"
#include "sched_shape.h"
#include "topo.h"

#include <stdlib.h>
#include <string.h>

enum { ORDER = 1, PARENT = 2, WEIGHTS = 4, GROUP = 8, RATE = 16, FIELDS = 5 };
enum { HEAD = 2 }; /* words: which of them, lanes */

/* ---- made ---- */

/* A heap in the order of the hosts over the first rank of each, and below each a heap of its host's others. `first`
 * is where a host begins in the order. */
static void grow_trees(const uint32_t *order, const uint32_t *group, uint32_t n, uint32_t *first, uint32_t *parent)
{
	uint32_t hosts = 0, from = 0;

	for (uint32_t i = 0; i < n; i++) {
		uint32_t rank = order[i];

		if (!i || group[rank] != group[order[i - 1]]) {
			first[hosts] = from = i;
			parent[rank] = order[hosts ? first[(hosts - 1) / 2] : i];
			hosts++;
		} else {
			parent[rank] = order[from + (i - from - 1) / 2];
		}
	}
}

static bool identity(const uint32_t *order, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		if (order[i] != i)
			return false;
	return true;
}

/* Takes order and group, in which those of a group are neighbours; keeps what is not trivial. */
static tuttiResult_t complete(uint32_t *order, uint32_t *group, uint32_t n, struct tt_shape *out)
{
	bool several = false;
	uint32_t *parent = NULL, *first = NULL;

	*out = (struct tt_shape){ .nlanes = 1, .order = order, .group = group };
	for (uint32_t i = 1; i < n; i++)
		several |= group[i] != group[0];
	if (several) {
		out->parent = parent = malloc(n * sizeof(*parent));
		first = malloc(n * sizeof(*first));
		if (!parent || !first) {
			tt_shape_free(out);
			free(first);
			return tt_fail(tuttiSystemError, "no memory for the shape of %u ranks", n);
		}
		grow_trees(order, group, n, first, parent);
		free(first);
	} else {
		free(group);
		out->group = NULL;
	}
	if (identity(order, n)) {
		free(order);
		out->order = NULL;
	}
	return tuttiSuccess;
}

static tuttiResult_t room(uint32_t n, uint32_t **order, uint32_t **group, int **more)
{
	*order = malloc(n * sizeof(**order));
	*group = malloc(n * sizeof(**group));
	*more = malloc(n * sizeof(**more));
	if (*order && *group && *more)
		return tuttiSuccess;
	free(*order);
	free(*group);
	free(*more);
	return tt_fail(tuttiSystemError, "no memory for the shape of %u ranks", n);
}

/* Ranks that go out by the same NIC share it. Nothing, where one of them is not known, or all are alike. */
static tuttiResult_t add_rates(const struct tt_place *at, uint32_t n, struct tt_shape *s)
{
	uint32_t *rate;
	bool differ = false;

	for (uint32_t i = 0; i < n; i++)
		if (!s->group || !at[i].rate)
			return tuttiSuccess;
	rate = malloc(n * sizeof(*rate));
	if (!rate)
		return tt_fail(tuttiSystemError, "no memory for the shape of %u ranks", n);
	for (uint32_t i = 0; i < n; i++) {
		uint32_t sharing = 0;

		for (uint32_t k = 0; k < n; k++)
			sharing += at[k].host == at[i].host && at[k].nic == at[i].nic;
		rate[i] = at[i].rate > sharing ? at[i].rate / sharing : 1;
		differ |= rate[i] != rate[0];
	}
	if (differ)
		s->rate = rate;
	else
		free(rate);
	return tuttiSuccess;
}

tuttiResult_t tt_shape_of_places(const struct tt_place *at, int nranks, struct tt_shape *out)
{
	uint32_t *order, *group, n = (uint32_t)nranks;
	int *key;

	TRY(room(n, &order, &group, &key));
	for (uint32_t i = 0; i < n; i++) {
		uint32_t node = at[i].node < 0 ? 0xffff : (uint32_t)tt_min((size_t)at[i].node, 0xfffe);

		group[i] = at[i].host;
		key[i] = (int)(at[i].host << 16 | node);
	}
	tt_topo_order(key, n, order);
	free(key);
	TRY(complete(order, group, n, out));
	if (add_rates(at, n, out) == tuttiSuccess)
		return tuttiSuccess;
	tt_shape_free(out);
	return tuttiSystemError;
}

static tuttiResult_t part_rates(const struct tt_shape *all, const int *members, int n, struct tt_shape *out)
{
	uint32_t *rate;

	if (!all->rate || !out->group)
		return tuttiSuccess;
	out->rate = rate = malloc((size_t)n * sizeof(*rate));
	if (!rate) {
		tt_shape_free(out);
		return tt_fail(tuttiSystemError, "no memory for the shape of %d ranks", n);
	}
	for (int i = 0; i < n; i++)
		rate[i] = all->rate[members[i]];
	return tuttiSuccess;
}

/* No member shares its host with a rank that is none. */
static bool whole_hosts(const struct tt_shape *all, int nall, const uint32_t *place)
{
	for (int i = 0; i < nall; i++)
		for (int k = 0; k < nall && place[i] != UINT32_MAX; k++)
			if (place[k] == UINT32_MAX && (!all->group || all->group[k] == all->group[i]))
				return false;
	return true;
}

static tuttiResult_t part_lanes(const struct tt_shape *all, int nall, const uint32_t *place, int n,
				struct tt_shape *out)
{
	uint32_t *order, *weights = NULL, k = 0;

	if (all->nlanes == 1 || n == 1 || !whole_hosts(all, nall, place))
		return tuttiSuccess;
	order = malloc((size_t)all->nlanes * (size_t)n * sizeof(*order));
	if (all->weights)
		weights = malloc(all->nlanes * sizeof(*weights));
	if (!order || (all->weights && !weights)) {
		free(order);
		free(weights);
		return tt_fail(tuttiSystemError, "no memory for the shape of %d ranks", n);
	}
	for (uint32_t lane = 0; lane < all->nlanes; lane++)
		for (int pos = 0; pos < nall; pos++) {
			uint32_t mine = place[tt_shape_rank(all, lane, nall, pos)];

			if (mine != UINT32_MAX)
				order[k++] = mine;
		}
	if (weights)
		memcpy(weights, all->weights, all->nlanes * sizeof(*weights));
	return tt_shape_widen(out, n, all->nlanes, order, weights);
}

tuttiResult_t tt_shape_part(const struct tt_shape *all, int nall, const int *members, int n, struct tt_shape *out)
{
	uint32_t *order, *group, *place = malloc((size_t)nall * sizeof(*place)), k = 0;
	tuttiResult_t r;
	int *more;

	if (!place)
		return tt_fail(tuttiSystemError, "no memory for the shape of %d ranks", n);
	r = room((uint32_t)n, &order, &group, &more);
	if (r == tuttiSuccess) {
		memset(place, 0xff, (size_t)nall * sizeof(*place));
		for (int i = 0; i < n; i++) {
			place[members[i]] = (uint32_t)i;
			group[i] = all->group ? all->group[members[i]] : 0;
		}
		for (int pos = 0; pos < nall; pos++) {
			uint32_t mine = place[tt_shape_rank(all, 0, nall, pos)];

			if (mine != UINT32_MAX)
				order[k++] = mine;
		}
		free(more);
		r = complete(order, group, (uint32_t)n, out);
	}
	if (r == tuttiSuccess)
		r = part_rates(all, members, n, out);
	if (r == tuttiSuccess && (r = part_lanes(all, nall, place, n, out)) != tuttiSuccess)
		tt_shape_free(out);
	free(place);
	return r;
}

/* ---- on the wire ---- */

struct field {
	uint32_t bit;
	const uint32_t **array;
	size_t n;
};

static void fields_of(struct tt_shape *s, uint32_t nlanes, int nranks, struct field f[FIELDS])
{
	size_t n = (size_t)nranks;

	f[0] = (struct field){ ORDER, &s->order, nlanes * n };
	f[1] = (struct field){ PARENT, &s->parent, nlanes * n };
	f[2] = (struct field){ WEIGHTS, &s->weights, nlanes };
	f[3] = (struct field){ GROUP, &s->group, n };
	f[4] = (struct field){ RATE, &s->rate, n };
}

tuttiResult_t tt_shape_pack(const struct tt_shape *s, int nranks, uint32_t **words, size_t *n)
{
	struct tt_shape shape = *s;
	struct field f[FIELDS];
	uint32_t *w;

	fields_of(&shape, s->nlanes, nranks, f);
	*n = HEAD;
	for (int i = 0; i < FIELDS; i++)
		*n += *f[i].array ? f[i].n : 0;
	*words = w = malloc(*n * sizeof(*w));
	if (!w)
		return tt_fail(tuttiSystemError, "no memory for the shape of %d ranks", nranks);
	w[0] = 0;
	w[1] = s->nlanes;
	for (int i = 0, at = HEAD; i < FIELDS; i++) {
		if (!*f[i].array)
			continue;
		w[0] |= f[i].bit;
		memcpy(w + at, *f[i].array, f[i].n * sizeof(*w));
		at += (int)f[i].n;
	}
	return tuttiSuccess;
}

static bool are_ranks(const uint32_t *array, size_t n, uint32_t nranks)
{
	for (size_t i = 0; array && i < n; i++)
		if (array[i] >= nranks)
			return false;
	return true;
}

static bool sound(const struct tt_shape *s, int nranks)
{
	size_t n = (size_t)nranks;

	return are_ranks(s->order, s->nlanes * n, (uint32_t)nranks) &&
	       are_ranks(s->parent, s->nlanes * n, (uint32_t)nranks);
}

tuttiResult_t tt_shape_unpack(const uint32_t *words, size_t n, int nranks, struct tt_shape *out)
{
	bool whole = n >= HEAD && words[1] >= 1 && words[1] <= 255;
	struct field f[FIELDS];
	size_t at = HEAD;

	*out = (struct tt_shape){ .nlanes = whole ? words[1] : 1 };
	fields_of(out, out->nlanes, nranks, f);
	for (int i = 0; i < FIELDS && whole; i++) {
		uint32_t *copy;

		if (!(words[0] & f[i].bit))
			continue;
		whole = n - at >= f[i].n;
		copy = whole ? malloc(f[i].n * sizeof(*copy)) : NULL;
		if (!copy)
			break;
		memcpy(copy, words + at, f[i].n * sizeof(*copy));
		*f[i].array = copy;
		whole = true;
		at += f[i].n;
	}
	if (whole && at == n && sound(out, nranks))
		return tuttiSuccess;
	tt_shape_free(out);
	return tt_fail(tuttiRemoteError, "the shape of %d ranks came damaged, or there is no memory for it", nranks);
}

uint64_t tt_shape_digest(const struct tt_shape *s, int nranks)
{
	uint64_t digest = 0;
	uint32_t *words;
	size_t n;

	if (!s->order && !s->parent && !s->weights && !s->group && !s->rate)
		return 0;
	if (tt_shape_pack(s, nranks, &words, &n) == tuttiSuccess) {
		digest = tt_hash64(words, n * sizeof(*words), 0);
		free(words);
	}
	return digest;
}
