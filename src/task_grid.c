/* The device-driven path, where TUTTI_CUDA_DEVICE_DRIVEN asks for it: calls as blocks that run schedules, of all ranks,
 * where they are of this process and on one device, or of this rank. SPDX-License-Identifier: Apache-2.0 */
#include "comm.h"
#include "exec_grid.h"

#include <stdlib.h>

struct codes { /* of the grid's ranks, for a row of the plan */
	struct codes *next;
	struct tt_row row;
	uint8_t coll;
	int root, n;
	struct tt_dev_code *of[];
};

/* Where the last call ends. Calls share the links: each comes behind the one before, on whatever stream; and in a graph
 * behind the one before in that graph, as nothing else can be waited for there. */
struct end {
	void *event; /* or NULL: there was none */
	uint64_t capture;
};

struct tt_task_grid {
	const struct tt_mem_kind *kind;
	void *where;
	struct tt_grid *grid;
	int first, n; /* ranks */
	struct codes *codes;
	struct end ends[2]; /* of calls, of captured ones */
};

static void free_codes(struct codes *c)
{
	for (int r = 0; r < c->n; r++)
		tt_dev_code_free(c->of[r]);
	free(c);
}

static tuttiResult_t make_codes(const struct tt_task_grid *g, const struct tt_task *t, const struct tt_row *row,
				struct codes **out)
{
	struct codes *c = calloc(1, sizeof(*c) + (size_t)g->n * sizeof(c->of[0]));
	struct tt_sched *s;
	tuttiResult_t r = tuttiSuccess;

	if (!c)
		return tt_fail(tuttiSystemError, "no memory for a program");
	*c = (struct codes){ .row = *row, .coll = (uint8_t)t->coll, .root = t->root };
	for (; c->n < g->n && r == tuttiSuccess; c->n += r == tuttiSuccess) {
		r = tt_task_sched(t, row, g->first + c->n, &s);
		if (r == tuttiSuccess)
			r = tt_dev_code_new(s, row->depth, &c->of[c->n]);
	}
	if (r != tuttiSuccess) {
		free_codes(c);
		return r;
	}
	*out = c;
	return tuttiSuccess;
}

static tuttiResult_t find_codes(struct tt_task_grid *g, const struct tt_task *t, const struct tt_row *row,
				struct codes **out)
{
	struct codes *c = g->codes;

	while (c && !(c->coll == t->coll && c->root == t->root && tt_row_same(&c->row, row)))
		c = c->next;
	if (!c) {
		TRY(make_codes(g, t, row, &c));
		c->next = g->codes;
		g->codes = c;
	}
	*out = c;
	return tuttiSuccess;
}

/* `peers`: of this rank alone. */
static tuttiResult_t open_here(struct tt_task_grid **at, const struct tt_task *t, struct tt_peers *peers)
{
	struct tt_task_grid *g = *at;
	tuttiResult_t r;

	if (g)
		return g->kind == t->kind && g->where == t->at.where ? tuttiSuccess :
			tt_note_error(tuttiUnsupported, "the ranks have moved to another device");
	g = calloc(1, sizeof(*g));
	if (!g)
		return tt_fail(tuttiSystemError, "no memory for a grid");
	g->kind = t->kind;
	g->where = t->at.where;
	g->first = peers ? t->comm->rank : 0;
	g->n = peers ? 1 : t->comm->nranks;
	r = peers ? tt_grid_new_apart(peers, &g->grid) : tt_grid_new(t->kind, g->n, &g->grid);
	if (r != tuttiSuccess)
		free(g);
	else
		*at = g;
	return r;
}

/* Avg divides here; PreMulSum, whose ranks multiply by numbers of their own, is left to others. */
static tuttiResult_t divide(const struct tt_task *t, const struct tt_call *call, int rank)
{
	const void *out = call->out;

	if (t->op.kind != tuttiAvg || !t->count || (t->coll == TT_REDUCE && rank != t->root))
		return tuttiSuccess;
	return t->kind->reduce(t->queue, call->out, &out, 1, t->count, t->type, &t->op, TT_SCALE_POST);
}

static tuttiResult_t come_after(const struct tt_task *t, const struct end *e)
{
	return e->event && e->capture == t->at.capture ? t->kind->event_wait(t->queue, e->event) : tuttiSuccess;
}

static tuttiResult_t note_end(const struct tt_task *t, struct end *e)
{
	if (!e->event)
		TRY(t->kind->event_new(&e->event));
	e->capture = UINT64_MAX; /* nobody's, should this fail */
	TRY(t->kind->event_record(t->queue, e->event));
	e->capture = t->at.capture;
	return tuttiSuccess;
}

tuttiResult_t tt_task_grid_run(struct tt_task_grid **at, const struct tt_task *t, const void *const *in,
			       void *const *out)
{
	struct tt_row row = tt_task_row(t);
	struct tt_call calls[TT_DEV_RANKS];
	struct codes *c;

	if (!t->kind->grid || t->comm->nranks > TT_DEV_RANKS || t->op.kind == TT_OP_PREMULSUM)
		return tt_note_error(tuttiUnsupported, "%s memory has no blocks for this call", t->kind->name);
	TRY(open_here(at, t, NULL));
	TRY(find_codes(*at, t, &row, &c));
	for (int r = 0; r < t->comm->nranks; r++) {
		calls[r] = tt_task_call(t, 0, row.window);
		calls[r].in = in[r];
		calls[r].out = out[r];
	}
	TRY(come_after(t, &(*at)->ends[t->at.capture != 0]));
	TRY(tt_grid_run((*at)->grid, t->queue, t->at.capture != 0, c->of, calls));
	TRY(note_end(t, &(*at)->ends[t->at.capture != 0]));
	for (int r = 0; r < t->comm->nranks; r++)
		TRY(divide(t, &calls[r], r));
	return tuttiSuccess;
}

tuttiResult_t tt_task_grid_own(struct tt_task_grid **at, const struct tt_task *t, const struct tt_call *call)
{
	struct tt_row row = tt_task_row(t);
	struct codes *c;

	TRY(open_here(at, t, t->comm->peers));
	TRY(find_codes(*at, t, &row, &c));
	TRY(come_after(t, &(*at)->ends[0]));
	TRY(tt_grid_run((*at)->grid, t->queue, false, c->of, call));
	return note_end(t, &(*at)->ends[0]);
}

void tt_task_grid_abort(struct tt_task_grid *g)
{
	if (g)
		tt_grid_abort(g->grid);
}

static void free_ends(struct tt_task_grid *g)
{
	if (g->kind->enter && g->kind->enter(g->where) != tuttiSuccess)
		return; /* the context is gone, and events with it */
	for (int i = 0; i < 2; i++)
		if (g->ends[i].event)
			g->kind->event_free(g->ends[i].event);
	if (g->kind->leave)
		g->kind->leave();
}

void tt_task_grid_free(struct tt_task_grid *g)
{
	if (!g)
		return;
	tt_grid_free(g->grid);
	free_ends(g);
	for (struct codes *c = g->codes, *next; c; c = next) {
		next = c->next;
		free_codes(c);
	}
	free(g);
}
