/* What a plan composes from the shape of a communicator is proved before any rank may run it, on the one that decides.
 * Tests have proved random shapes; this proves the one that is really there. SPDX-License-Identifier: Apache-2.0 */
#include "plan.h"

#include <stdlib.h>

enum { MOST = 64, MOST_HOSTS = 16 }; /* ranks that are proved together, and the hosts of a larger communicator */
enum { ALL_ROOTS = 16, ROOTS = 8 };  /* of more ranks than this so many roots, and perhaps one or two more */

struct verdict {
	uint8_t coll, algo, lanes, param;
	bool good;
};

struct prover {
	const struct tt_facts *f;
	const struct tt_shape *shape;
	int n;
	struct tt_sched *ranks[MOST];
	struct verdict known[64]; /* more are proved again */
	int nknown, proved;
};

struct tt_shape tt_row_shape(const struct tt_row *row, const struct tt_shape *shape)
{
	struct tt_shape s = { 0 };

	if (!row->flat)
		s = *shape;
	s.nlanes = row->lanes;
	if ((s.order || s.parent || s.weights) && row->lanes > shape->nlanes)
		s.nlanes = shape->nlanes; /* its arrays have no more */
	s.param = row->param;
	return s;
}

/* ---- one row ---- */

static tuttiResult_t build(struct prover *p, enum tt_coll coll, const struct tt_row *row, int root)
{
	struct tt_shape shape = tt_row_shape(row, p->shape);
	tuttiResult_t r = tuttiSuccess;

	for (int i = 0; i < p->n && r == tuttiSuccess; i++)
		r = tt_algos[row->algo].build(coll, i, p->n, root, &shape, &p->ranks[i]);
	return r;
}

/* The strictest ways to run it: in place, each message waiting for its receive; apart; as the queue of a device. */
static tuttiResult_t check(struct prover *p)
{
	uint32_t most = 3;

	for (int i = 0; i < p->n; i++)
		most = p->ranks[i]->one_window ? 1 : most;
	TRY(tt_sched_check(p->ranks, p->n, &(struct tt_check){ .windows = most, .aliased = true }));
	TRY(tt_sched_check(p->ranks, p->n, &(struct tt_check){ .windows = 1 }));
	return tt_sched_check(p->ranks, p->n, &(struct tt_check){ .windows = most, .depth = 1, .queued = true });
}

static tuttiResult_t prove(struct prover *p, enum tt_coll coll, const struct tt_row *row)
{
	int roots = coll == TT_BROADCAST || coll == TT_REDUCE ? p->n : 1, step = p->n > ALL_ROOTS ? p->n / ROOTS : 1;
	tuttiResult_t r = tuttiSuccess;

	for (int root = 0; root < roots && r == tuttiSuccess; root += step) {
		r = build(p, coll, row, root);
		if (r == tuttiSuccess)
			r = check(p);
		for (int i = 0; i < p->n; i++) {
			tt_sched_free(p->ranks[i]);
			p->ranks[i] = NULL;
		}
	}
	return r;
}

static bool good(struct prover *p, enum tt_coll coll, const struct tt_row *row)
{
	struct verdict v = { (uint8_t)coll, row->algo, row->lanes, row->param, true };

	if (row->flat || row->algo >= TT_CUSTOM)
		return true;
	for (int i = 0; i < p->nknown; i++) {
		const struct verdict *k = &p->known[i];

		if (k->coll == v.coll && k->algo == v.algo && k->lanes == v.lanes && k->param == v.param)
			return k->good;
	}
	v.good = prove(p, coll, row) == tuttiSuccess;
	p->proved += v.good;
	if (!v.good)
		tt_log(TT_LOG_WARN, "plan", "%s %s cannot be proved for %d ranks in the shape %016llx and is left "
		       "out of the plan: %s", tt_coll_name(coll), tt_algos[row->algo].name, p->n,
		       (unsigned long long)tt_shape_digest(p->shape, p->n), tt_last_error());
	if (p->nknown < (int)(sizeof(p->known) / sizeof(p->known[0])))
		p->known[p->nknown++] = v;
	return v.good;
}

/* What is wrong gives way to the next candidate that is right; where there is none, to the order of ranks. */
static void settle(struct prover *p, enum tt_coll coll, int class, bool ordered, struct tt_row *row)
{
	struct tt_candidate c[16];
	int n;

	if (good(p, coll, row))
		return;
	n = tt_plan_candidates(p->f, coll, tt_plan_bytes(class), ordered, c, 16);
	for (int i = 0; i < n; i++)
		if (good(p, coll, &c[i].row)) {
			*row = c[i].row;
			return;
		}
	row->flat = true;
}

/* ---- which ranks ---- */

/* Of a large communicator the first ranks of the first hosts, of each as many. */
static int choose(const struct tt_shape *s, int n, int members[MOST])
{
	uint32_t ids[MOST_HOSTS];
	int taken[MOST_HOSTS] = { 0 }, hosts = 0, m = 0;

	for (int pass = 0; pass < 2; pass++)
		for (int i = 0; i < n; i++) {
			uint32_t id = s->group ? s->group[i] : 0;
			int k = 0;

			while (k < hosts && ids[k] != id)
				k++;
			if (!pass && k == hosts && k < MOST_HOSTS)
				ids[hosts++] = id;
			else if (pass && k < hosts && taken[k]++ < MOST / hosts)
				members[m++] = i;
		}
	return m;
}

static bool is_trivial(const struct tt_shape *s)
{
	return !s->order && !s->parent && !s->weights && !s->group && !s->rate;
}

void tt_plan_prove(struct tt_plan *plan, const struct tt_facts *f, const struct tt_shape *shape)
{
	struct prover p = { .f = f, .shape = shape, .n = f->nranks };
	struct tt_shape part = { .nlanes = 1 };
	uint64_t began = tt_now_ns();
	int members[MOST];

	if (is_trivial(shape))
		return;
	if (f->nranks > MOST) {
		p.n = choose(shape, f->nranks, members);
		p.shape = &part;
		if (tt_shape_part(shape, f->nranks, members, p.n, &part) != tuttiSuccess)
			return;
	}
	for (int ordered = 0; ordered < 2; ordered++)
		for (int coll = 0; coll <= TT_BARRIER; coll++)
			for (int k = 0; k < TT_CLASSES; k++)
				settle(&p, (enum tt_coll)coll, k, ordered, &plan->rows[ordered][coll][k]);
	tt_log(TT_LOG_INFO, "plan", "%d schedules proved for the shape of these %d ranks, with %d of them, in %.1f ms",
	       p.proved, f->nranks, p.n, (double)(tt_now_ns() - began) / 1e6);
	tt_shape_free(&part);
}
