/* SPDX-License-Identifier: Apache-2.0
 * Skews of messages, found from what waits for what on all ranks together. */
#include "sched_file.h"

#include <stdlib.h>

struct work {
	struct tt_sched *const *ranks;
	int n;
	int32_t **level;  /* [rank][step]; of what is not a message: the message before it, or -1 */
	uint32_t **mate;  /* [rank][step]: of a message its step at the other end */
	uint32_t messages;
};

static bool is_message(const struct tt_step *st)
{
	return st->op == TT_SEND || st->op == TT_RECV;
}

static bool meets(const struct tt_step *recv, const struct tt_step *send, int from)
{
	return recv->op == TT_RECV && recv->peer == (uint32_t)from && recv->lane == send->lane;
}

/* The n-th send of a link meets the n-th receive. `next`: where to look on, per peer and lane. */
static bool match(struct work *w, int rank, uint32_t *next)
{
	const struct tt_sched *s = w->ranks[rank];

	for (uint32_t i = 0; i < (uint32_t)w->n * s->nlanes; i++)
		next[i] = 0;
	for (uint32_t i = 0; i < s->nsteps; i++) {
		const struct tt_step *st = &s->steps[i];
		const struct tt_sched *o = w->ranks[st->peer];
		uint32_t *k = &next[st->peer * s->nlanes + st->lane];

		if (st->op != TT_SEND)
			continue;
		while (*k < o->nsteps && !meets(&o->steps[*k], st, rank))
			++*k;
		if (*k == o->nsteps)
			return false;
		w->mate[rank][i] = *k;
		w->mate[st->peer][*k] = i;
		++*k;
		w->messages++;
	}
	return true;
}

static int32_t later(int32_t a, int32_t b)
{
	return a > b ? a : b;
}

/* One pass over a rank; true if something changed. `last`: of the messages of each direction of a link. */
static bool raise_levels(const struct work *w, int rank, int32_t *last)
{
	const struct tt_sched *s = w->ranks[rank];
	bool changed = false;

	for (uint32_t i = 0; i < 2 * (uint32_t)w->n * s->nlanes; i++)
		last[i] = -1;
	for (uint32_t i = 0; i < s->nsteps; i++) {
		const struct tt_step *st = &s->steps[i];
		int32_t *link = &last[2 * (st->peer * s->nlanes + st->lane) + (st->op == TT_RECV)];
		int32_t *mine = &w->level[rank][i], level = is_message(st) ? 0 : -1;

		for (uint32_t k = 0; k < st->ndeps; k++)
			level = later(level, w->level[rank][s->deps[st->dep + k]] + is_message(st));
		if (is_message(st)) {
			level = later(level, later(*link + 1, w->level[st->peer][w->mate[rank][i]]));
			*link = level;
		}
		changed = changed || level != *mine;
		*mine = level;
	}
	return changed;
}

static bool settle(struct work *w, int32_t *scratch)
{
	bool changed = true;

	for (int i = 0; i < w->n; i++)
		if (!match(w, i, (uint32_t *)scratch))
			return false;
	for (uint32_t pass = 0; changed; pass++) {
		if (pass > w->messages + 2) /* a circle */
			return false;
		changed = false;
		for (int i = 0; i < w->n; i++)
			changed |= raise_levels(w, i, scratch);
	}
	for (int i = 0; i < w->n; i++)
		for (uint32_t k = 0; k < w->ranks[i]->nsteps; k++)
			if (w->level[i][k] > UINT16_MAX)
				return false;
	return true;
}

bool tt_sched_settle_skews(struct tt_sched *const *ranks, int n)
{
	struct work w = { .ranks = ranks, .n = n };
	int32_t *scratch = calloc(2 * (size_t)n * ranks[0]->nlanes + 1, sizeof *scratch);
	bool good;

	w.level = calloc((size_t)n, sizeof *w.level);
	w.mate = calloc((size_t)n, sizeof *w.mate);
	good = scratch && w.level && w.mate;
	for (int i = 0; i < n && good; i++) {
		w.level[i] = calloc(ranks[i]->nsteps + 1, sizeof **w.level);
		w.mate[i] = calloc(ranks[i]->nsteps + 1, sizeof **w.mate);
		good = w.level[i] && w.mate[i];
	}
	good = good && settle(&w, scratch);
	for (int i = 0; i < n && good; i++)
		for (uint32_t k = 0; k < ranks[i]->nsteps; k++)
			ranks[i]->steps[k].skew = (uint16_t)later(w.level[i][k], 0);
	for (int i = 0; i < n; i++) {
		free(w.level ? w.level[i] : NULL);
		free(w.mate ? w.mate[i] : NULL);
	}
	free(w.level);
	free(w.mate);
	free(scratch);
	return good;
}
