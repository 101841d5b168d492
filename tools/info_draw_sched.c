/* The picture of a schedule: a line for each rank, time from left to right, an arrow for each message. When things
 * happen is reckoned step by step with the unit costs of src/plan.c: a rank sends one message after another and adds
 * one vector after another, both at once. SPDX-License-Identifier: Apache-2.0 */
#include "info_draw.h"

#include <math.h>
#include <stdlib.h>

enum { WIDTH = 900, ROW = 60, TICKS = 5, NONE = -1 }; /* points */

struct act { /* one step of one rank */
	const struct tt_sched *s;
	const struct tt_step *step;
	int turn;          /* among the messages of its link and direction */
	int partner, prev; /* of a message: the other end; the one before it on its link */
	double start, end;
	bool done;
};

struct run {
	struct act *act;
	int *first;           /* of each rank, and the end */
	int nranks;
	double *port, *core;  /* until when they are busy */
	double units[TT_UNITS];
	struct tt_part part;
	double all;
};

/* ---- the order of messages: that of src/exec.c for one window ---- */

static bool is_message(const struct act *a)
{
	return a->step->op == TT_SEND || a->step->op == TT_RECV;
}

static bool same_link(const struct act *a, const struct act *b)
{
	return a->step->op == b->step->op && a->step->peer == b->step->peer && a->step->lane == b->step->lane;
}

static void find_turns(struct run *r, int rank)
{
	for (int i = r->first[rank]; i < r->first[rank + 1]; i++) {
		struct act *a = &r->act[i];

		a->turn = 0;
		a->prev = a->partner = NONE;
		for (int k = r->first[rank]; k < r->first[rank + 1] && is_message(a); k++) {
			const struct act *b = &r->act[k];
			bool before = b->step->skew < a->step->skew || (b->step->skew == a->step->skew && k < i);

			if (k == i || !same_link(a, b) || !before)
				continue;
			a->turn++;
			if (a->prev == NONE || b->step->skew > r->act[a->prev].step->skew ||
			    (b->step->skew == r->act[a->prev].step->skew && k > a->prev))
				a->prev = k;
		}
	}
}

static void find_partner(struct run *r, int rank, int recv)
{
	struct act *a = &r->act[recv];
	int peer = (int)a->step->peer;

	for (int k = r->first[peer]; k < r->first[peer + 1]; k++) {
		const struct tt_step *s = r->act[k].step;

		if (s->op == TT_SEND && (int)s->peer == rank && s->lane == a->step->lane && r->act[k].turn == a->turn)
			a->partner = k;
	}
}

/* ---- when ---- */

static double bytes_of(const struct run *r, const struct tt_ref *ref)
{
	return (double)tt_part_len(&r->part, 0, ref->chunk, ref->n);
}

/* When it can begin, INFINITY: not yet. */
static double ready(const struct run *r, int rank, const struct act *a)
{
	double at = a->step->op == TT_SEND ? r->port[rank] : a->step->op == TT_RECV ? 0 : r->core[rank];

	for (uint32_t i = 0; i < a->step->ndeps; i++) {
		const struct act *d = &r->act[r->first[rank] + (int)a->s->deps[a->step->dep + i]];

		if (!d->done)
			return INFINITY;
		at = fmax(at, d->end);
	}
	if (a->prev != NONE && !r->act[a->prev].done)
		return INFINITY;
	if (a->step->op != TT_RECV)
		return at;
	if (a->partner == NONE || !r->act[a->partner].done)
		return INFINITY;
	return fmax(at, r->act[a->partner].end + r->units[TT_ROUND]);
}

static void perform(struct run *r, int rank, struct act *a, double at)
{
	const struct tt_ref *ref = a->step->op == TT_RECV ? &a->step->dst : &a->s->refs[a->step->src];
	double bytes = bytes_of(r, ref);

	a->start = a->end = at;
	if (a->step->op == TT_SEND)
		r->port[rank] = a->end = at + r->units[TT_MESSAGE] + bytes * r->units[TT_SENT];
	else if (a->step->op != TT_RECV)
		r->core[rank] = a->end = at + bytes * r->units[TT_REDUCED] *
					      (a->step->op == TT_COPY ? 1 : a->step->nsrc - 1);
	a->done = true;
	r->all = fmax(r->all, a->end);
}

/* Always the step that can begin first. */
static void play(struct run *r)
{
	for (;;) {
		double least = INFINITY;
		int next = NONE, whose = 0;

		for (int rank = 0; rank < r->nranks; rank++)
			for (int i = r->first[rank]; i < r->first[rank + 1]; i++) {
				double at = r->act[i].done ? INFINITY : ready(r, rank, &r->act[i]);

				if (at >= least)
					continue;
				least = at;
				next = i;
				whose = rank;
			}
		if (next == NONE)
			return;
		perform(r, whose, &r->act[next], least);
	}
}

/* ---- the picture ---- */

static double x_of(const struct run *r, double seconds)
{
	return r->all > 0 ? WIDTH * seconds / r->all : 0;
}

static void put_line(FILE *f, const char *class, int from, int to, double x1, double x2, bool arrow, const char *rest)
{
	double y1 = -ROW * from, y2 = -ROW * to, len = hypot(x2 - x1, y2 - y1), tail = arrow ? 6 / fmax(len, 6) : 0;
	double x3 = x2 - tail * (x2 - x1), y3 = y2 - tail * (y2 - y1);

	fprintf(f, "r%d -> r%d [class=%s, pos=\"", from, to, class);
	if (arrow)
		fprintf(f, "e,%.1f,%.1f ", x2, y2);
	fprintf(f, "%.1f,%.1f %.1f,%.1f %.1f,%.1f %.1f,%.1f\"%s];\n", x1, y1, x1, y1, x3, y3, x3, y3, rest);
}

static void put_ranks(FILE *f, const struct run *r)
{
	char text[32];

	for (int i = 0; i < r->nranks; i++) {
		fprintf(f, "r%d [class=rank, label=\"rank %d\", pos=\"%d,%d\"];\n", i, i, -40, -ROW * i);
		put_line(f, "line", i, i, 0, WIDTH, false, ", dir=none, color=\"#bbbbbb\"");
	}
	for (int i = 0; i < TICKS; i++)
		fprintf(f, "t%d [class=tick, label=\"%s\", pos=\"%d,%d\"];\n", i,
			time_text(r->all * i / (TICKS - 1), text, sizeof(text)), WIDTH * i / (TICKS - 1),
			-ROW * r->nranks + ROW / 3);
}

static void put_acts(FILE *f, const struct run *r, int rank)
{
	char rest[96];

	for (int i = r->first[rank]; i < r->first[rank + 1]; i++) {
		const struct act *a = &r->act[i];

		if (a->step->op == TT_SEND || !a->done)
			continue;
		snprintf(rest, sizeof(rest), ", color=\"%s\"%s", draw_colour(a->step->lane),
			 is_message(a) ? "" : ", dir=none, penwidth=5");
		if (is_message(a))
			put_line(f, "message", (int)a->step->peer, rank, x_of(r, r->act[a->partner].start),
				 x_of(r, a->end), true, rest);
		else
			put_line(f, "work", rank, rank, x_of(r, a->start), x_of(r, a->end), false, rest);
	}
}

static void put_all(FILE *f, const struct run *r, const struct tt_sched *s, const struct tt_facts *facts)
{
	char size[32], time[32];

	fprintf(f, "digraph schedule {\ngraph [splines=line, fontname=Helvetica, fontsize=12, label=\"%s %s, %d ranks, "
		"%s over %s: %s by the model; messages as arrows, copies and sums as bars, a colour for each "
		"lane\"];\n",
		tt_coll_name(s->coll), s->algo, r->nranks, size_text(r->part.count, size, sizeof(size)), facts->path,
		time_text(r->all, time, sizeof(time)));
	fputs("node [shape=plaintext, fontname=Helvetica, fontsize=10, width=0.1, height=0.1, margin=0];\n"
	      "edge [arrowsize=0.5];\n", f);
	put_ranks(f, r);
	for (int i = 0; i < r->nranks; i++)
		put_acts(f, r, i);
	fputs("}\n", f);
}

static void begin(struct run *r, struct tt_sched *const *ranks)
{
	for (int i = 0, n = 0; i < r->nranks; i++)
		for (uint32_t k = 0; k < ranks[i]->nsteps; k++)
			r->act[n++] = (struct act){ .s = ranks[i], .step = &ranks[i]->steps[k] };
	for (int i = 0; i < r->nranks; i++)
		find_turns(r, i);
	for (int i = 0; i < r->nranks; i++)
		for (int k = r->first[i]; k < r->first[i + 1]; k++)
			if (r->act[k].step->op == TT_RECV)
				find_partner(r, i, k);
}

int draw_schedule(struct tt_sched *const *ranks, const struct tt_facts *f, size_t bytes, const char *file)
{
	int n = ranks[0]->nranks, status = 1;
	struct run r = { .nranks = n };
	FILE *dot = draw_begin(file);

	tt_plan_units(f, r.units);
	r.part = (struct tt_part){ bytes, bytes, 1, ranks[0]->per_block, ranks[0]->weights, 64 };
	r.first = calloc((size_t)n + 1, sizeof(*r.first));
	r.port = calloc((size_t)n, sizeof(*r.port));
	r.core = calloc((size_t)n, sizeof(*r.core));
	for (int i = 0; r.first && i < n; i++)
		r.first[i + 1] = r.first[i] + (int)ranks[i]->nsteps;
	r.act = r.first ? calloc((size_t)r.first[n] + 1, sizeof(*r.act)) : NULL;
	if (dot && r.act && r.port && r.core) {
		begin(&r, ranks);
		play(&r);
		put_all(dot, &r, ranks[0], f);
		status = draw_end(dot, file);
	} else if (dot) {
		fclose(dot);
	}
	free(r.act);
	free(r.first);
	free(r.port);
	free(r.core);
	return status;
}
