/* SPDX-License-Identifier: Apache-2.0
 * Edge-disjoint rings by exchange. As many links as the rings need are chosen such that each vertex has one in and
 * one out for each ring, and sorted into factors: sets of cycles that cover every vertex once. Then links change
 * places, within one factor against unused ones or between two, so that the number of cycles falls to one a factor. */
#include "topo_flow.h"
#include "topo_ring.h"

#include <stdlib.h>
#include <string.h>

enum { NONE = UINT32_MAX, WALK = 12, TRIES = 8 };

struct swap {
	uint32_t n, rings;
	uint32_t *succ, *pred, *cycles; /* of each factor: rings x n, rings */
	uint32_t *best, nbest;          /* the most factors so far that were rings */
	int64_t *left;                  /* n x n: capacity that no factor uses */
	bool spare;                     /* there is some */
	uint32_t *mark, *path, *to, epoch;
	uint64_t random;
};

static uint32_t draw(struct swap *s, uint32_t below)
{
	s->random ^= s->random << 13;
	s->random ^= s->random >> 7;
	s->random ^= s->random << 17;
	return (uint32_t)((s->random >> 32) * below >> 32);
}

static uint32_t count_cycles(struct swap *s, const uint32_t *succ)
{
	uint32_t count = 0;

	s->epoch++;
	for (uint32_t v = 0; v < s->n; v++) {
		count += s->mark[v] != s->epoch;
		for (uint32_t u = v; s->mark[u] != s->epoch; u = succ[u])
			s->mark[u] = s->epoch;
	}
	return count;
}

/* ---- the first factors ---- */

/* Which links: a flow that gives each vertex `rings` out and in. `used` has them; false: there are no such. */
static bool choose_links(const struct swap *s, const int64_t *cap, int64_t *used)
{
	uint32_t n = s->n, narcs = 0, source = 2 * n, sink = 2 * n + 1;
	struct tt_flow *f = tt_flow_new(2 * n + 2, n * n + 2 * n);
	bool all;

	if (!f)
		return false;
	for (uint32_t i = 0; i < n * n; i++)
		if (i / n != i % n && cap[i])
			tt_flow_arc(f, i / n, n + i % n, cap[i], 0);
	for (uint32_t v = 0; v < n; v++) {
		tt_flow_arc(f, source, v, s->rings, 0);
		tt_flow_arc(f, n + v, sink, s->rings, 0);
	}
	all = tt_flow_max(f, source, sink, (int64_t)s->rings * n) == (int64_t)s->rings * n;
	for (uint32_t i = 0; i < n * n; i++)
		used[i] = i / n != i % n && cap[i] ? tt_flow_used(f, narcs++) : 0;
	tt_flow_free(f);
	return all;
}

/* Kuhn's augmenting path over `used` links. */
static bool match(struct swap *s, const int64_t *used, uint32_t *pred, uint32_t u)
{
	uint32_t first = draw(s, s->n);

	for (uint32_t i = 0; i < s->n; i++) {
		uint32_t v = (first + i) % s->n;

		if (!used[u * s->n + v] || s->mark[v] == s->epoch)
			continue;
		s->mark[v] = s->epoch;
		if (pred[v] != NONE && !match(s, used, pred, pred[v]))
			continue;
		pred[v] = u;
		return true;
	}
	return false;
}

static void make_factor(struct swap *s, int64_t *used, uint32_t k)
{
	uint32_t *succ = s->succ + k * s->n, *pred = s->pred + k * s->n;

	memset(pred, 0xff, s->n * sizeof *pred);
	for (uint32_t u = 0; u < s->n; u++) {
		s->epoch++;
		match(s, used, pred, u);
	}
	for (uint32_t v = 0; v < s->n; v++) {
		succ[pred[v]] = v;
		used[pred[v] * s->n + v]--;
	}
	s->cycles[k] = count_cycles(s, succ);
}

/* Sorted anew at random; how many cycles too many. */
static uint32_t begin(struct swap *s, const int64_t *cap, const int64_t *used)
{
	int64_t *rest = s->left;
	uint32_t over = 0;

	memcpy(rest, used, (size_t)s->n * s->n * sizeof *rest);
	for (uint32_t k = 0; k < s->rings; k++) {
		make_factor(s, rest, k);
		over += s->cycles[k] - 1;
	}
	s->spare = false;
	for (uint32_t i = 0; i < s->n * s->n; i++) {
		s->left[i] = i / s->n == i % s->n ? 0 : cap[i] - used[i];
		s->spare = s->spare || s->left[i];
	}
	return over;
}

/* ---- exchanges ---- */

/* Mostly what is no worse; now and then a step back. */
static bool accept(struct swap *s, uint32_t before, uint32_t after)
{
	return after <= before || (after == before + 1 && !draw(s, 24)) || (after == before + 2 && !draw(s, 96));
}

static void set_next(struct swap *s, uint32_t k, uint32_t v, uint32_t to)
{
	s->succ[k * s->n + v] = to;
	s->pred[k * s->n + to] = v;
}

static void trade(struct swap *s, uint32_t a, uint32_t b, uint32_t len)
{
	for (uint32_t i = 0; i < len; i++) {
		uint32_t v = s->path[i], keep = s->succ[a * s->n + v];

		set_next(s, a, v, s->succ[b * s->n + v]);
		set_next(s, b, v, keep);
	}
}

/* Two factors: from v on, those vertices whose links must change places along with v's. */
static void swap_two(struct swap *s, uint32_t a, uint32_t b, uint32_t v)
{
	uint32_t len = 0, u = v, before = s->cycles[a] + s->cycles[b], new_a, new_b;

	do {
		s->path[len++] = u;
		u = s->pred[a * s->n + s->succ[b * s->n + u]];
	} while (u != v);
	if (len == 1 || len == s->n)
		return;
	trade(s, a, b, len);
	new_a = count_cycles(s, s->succ + a * s->n);
	new_b = count_cycles(s, s->succ + b * s->n);
	if (accept(s, before, new_a + new_b)) {
		s->cycles[a] = new_a;
		s->cycles[b] = new_b;
	} else {
		trade(s, a, b, len);
	}
}

/* A way out of u by an unused link, or NONE. */
static uint32_t unused_from(struct swap *s, uint32_t u)
{
	uint32_t first = draw(s, s->n);

	for (uint32_t i = 0; i < s->n; i++) {
		uint32_t v = first + i < s->n ? first + i : first + i - s->n;

		if (s->left[u * s->n + v])
			return v;
	}
	return NONE;
}

/* A closed walk of v's link, an unused one, the link it displaces, and so on: path and to; 0: none was found. */
static uint32_t find_walk(struct swap *s, uint32_t k, uint32_t v)
{
	uint32_t end = s->succ[k * s->n + v], u = v;

	s->epoch++;
	for (uint32_t len = 0; len < WALK; len++) {
		s->path[len] = u;
		s->mark[u] = s->epoch;
		if (len && s->left[u * s->n + end]) {
			s->to[len] = end;
			return len + 1;
		}
		s->to[len] = unused_from(s, u);
		if (s->to[len] == NONE)
			return 0;
		u = s->pred[k * s->n + s->to[len]];
		if (s->mark[u] == s->epoch)
			return 0;
	}
	return 0;
}

static void walk(struct swap *s, uint32_t k, uint32_t len)
{
	for (uint32_t i = 0; i < len; i++) {
		uint32_t v = s->path[i], old = s->succ[k * s->n + v];

		s->left[v * s->n + old]++;
		s->left[v * s->n + s->to[i]]--;
		s->succ[k * s->n + v] = s->to[i];
		s->to[i] = old;
	}
	for (uint32_t i = 0; i < len; i++)
		s->pred[k * s->n + s->succ[k * s->n + s->path[i]]] = s->path[i];
}

static void swap_unused(struct swap *s, uint32_t k, uint32_t v)
{
	uint32_t len = find_walk(s, k, v), now;

	if (!len)
		return;
	walk(s, k, len);
	now = count_cycles(s, s->succ + k * s->n);
	if (accept(s, s->cycles[k], now))
		s->cycles[k] = now;
	else
		walk(s, k, len);
}

/* ---- the search ---- */

static uint32_t count_rings(const struct swap *s)
{
	uint32_t count = 0;

	for (uint32_t k = 0; k < s->rings; k++)
		count += s->cycles[k] == 1;
	return count;
}

/* Keeps the factors that are rings, where they are more than were kept before. True: all are. */
static bool keep_best(struct swap *s)
{
	uint32_t count = count_rings(s);

	if (count <= s->nbest)
		return s->nbest == s->rings;
	s->nbest = 0;
	for (uint32_t k = 0; k < s->rings; k++)
		if (s->cycles[k] == 1)
			memcpy(s->best + s->nbest++ * s->n, s->succ + k * s->n, s->n * sizeof *s->best);
	return s->nbest == s->rings;
}

/* Factors of several cycles first; against unused links or another factor. */
static void step(struct swap *s)
{
	uint32_t a = draw(s, s->rings), b = draw(s, s->rings), v = draw(s, s->n);

	for (uint32_t i = 0; i < s->rings && s->cycles[a] == 1 && draw(s, 8); i++)
		a = (a + 1) % s->rings;
	if (s->spare && (s->rings == 1 || draw(s, 2)))
		swap_unused(s, a, v);
	else if (a != b)
		swap_two(s, a, b, v);
}

static void search(struct swap *s, const int64_t *cap, const int64_t *used, int64_t steps)
{
	for (uint32_t i = 0; i < TRIES; i++) {
		uint32_t over = begin(s, cap, used);

		/* Without unused links no exchange changes whether that is even. */
		for (uint32_t k = 0; k < 64 && !s->spare && over % 2; k++)
			over = begin(s, cap, used);
		for (int64_t left = steps / TRIES; left > 0; left--) {
			if (left % 8 == 0 && keep_best(s))
				return;
			step(s);
		}
		if (keep_best(s))
			return;
	}
}

static bool hand_over(struct swap *s, struct tt_cycles *out)
{
	for (uint32_t k = 0; k < s->nbest; k++) {
		uint32_t v = 0;

		for (uint32_t i = 0; i < s->n; i++) {
			s->path[i] = v;
			v = s->best[k * s->n + v];
		}
		if (!tt_cycles_add(out, s->path, 1))
			return false;
	}
	return true;
}

bool tt_ring_swap(uint32_t n, const int64_t *cap, uint32_t rings, int64_t steps, struct tt_cycles *out)
{
	size_t each = (size_t)rings * n, links = (size_t)n * n;
	struct swap s = { .n = n, .rings = rings, .random = 0x9e3779b97f4a7c15 };
	int64_t *used = malloc(links * sizeof *used);
	bool fine = false;

	s.succ = malloc((3 * each + rings + 3 * (n + WALK)) * sizeof *s.succ);
	s.left = malloc(links * sizeof *s.left);
	if (s.succ && s.left && used) {
		s.pred = s.succ + each;
		s.best = s.pred + each;
		s.cycles = s.best + each;
		s.mark = s.cycles + rings;
		s.path = s.mark + n + WALK;
		s.to = s.path + n + WALK;
		memset(s.mark, 0, n * sizeof *s.mark);
		if (choose_links(&s, cap, used))
			search(&s, cap, used, steps);
		fine = hand_over(&s, out);
	}
	free(s.succ);
	free(s.left);
	free(used);
	return fine;
}
