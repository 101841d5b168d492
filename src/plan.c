/* The cost model and the table made from it. SPDX-License-Identifier: Apache-2.0
 *
 * A schedule costs rounds * alpha + messages * overhead + bytes sent * beta + bytes reduced * gamma. Where
 * ranks share the cores of a host, all but the wire's latency is multiplied by ranks per core. */
#include "plan.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

struct cost {
	double rounds, messages, sent, reduced; /* per rank; sent and reduced in units of the block */
	bool pipelined; /* rounds beyond the first cost a window, not the whole */
};

static double log2_up(int p)
{
	double n = 0;

	for (int k = 1; k < p; k *= 2)
		n++;
	return n;
}

static struct cost shape_of(const char *name, enum tt_coll coll, int p)
{
	double lg = log2_up(p), all = p - 1, share = all / p;
	bool blocks = coll == TT_ALLGATHER || coll == TT_REDUCESCATTER;
	bool reduces = coll != TT_ALLGATHER && coll != TT_BROADCAST;

	if (!strcmp(name, "ring"))
		return blocks ? (struct cost){ all, all, all, reduces ? all : 0, false } :
				(struct cost){ 2 * all, 2 * all, 2 * share, share, false };
	if (!strcmp(name, "direct"))
		return blocks ? (struct cost){ 1, all, all, reduces ? all : 0, false } :
		       coll == TT_ALLREDUCE ? (struct cost){ 2, 2 * all, 2 * share, share, false } :
					      (struct cost){ 1, all, all, reduces ? all : 0, false };
	if (!strcmp(name, "direct1"))
		return (struct cost){ 1, all, all, all, false };
	if (!strcmp(name, "recdouble"))
		return (struct cost){ lg, lg, lg, lg, false };
	if (!strcmp(name, "circulant"))
		return blocks ? (struct cost){ lg, 1.5 * lg, all, reduces ? all : 0, false } :
				(struct cost){ 2 * lg, 3 * lg, 2 * share, share, false };
	if (!strcmp(name, "dbtree"))
		return (struct cost){ 2 * lg, 4, 2, 1, true };
	if (!strcmp(name, "knomial"))
		return (struct cost){ lg, lg, lg, reduces ? lg : 0, false };
	if (!strcmp(name, "tree"))
		return coll == TT_ALLREDUCE ? (struct cost){ 2 * lg, 6, 3, 2, true } :
					      (struct cost){ lg, 3, 2, reduces ? 2 : 0, true };
	if (!strcmp(name, "chain"))
		return (struct cost){ all, 1, 1, reduces ? 1 : 0, true };
	return (struct cost){ lg, lg, 0, 0, false };
}

static double price(const struct tt_facts *f, const struct cost *c, size_t bytes, size_t window)
{
	double crowd = f->per_host > f->cores ? (double)f->per_host / f->cores : 1;
	double beta = 1 / f->bandwidth, gamma = 1 / 8e9, overhead = 0.3 * f->latency;
	double b = (double)bytes, piece = (double)tt_min(bytes, window), work;

	work = c->messages * overhead + c->sent * b * beta + c->reduced * b * gamma;
	if (c->pipelined)
		work += c->rounds * piece * (beta + gamma) +
			c->messages * overhead * (b / (double)window);
	return c->rounds * f->latency + work * crowd;
}

static int by_cost(const void *a, const void *b)
{
	const struct tt_candidate *x = a, *y = b;

	if (x->forced != y->forced)
		return x->forced ? -1 : 1;
	if (x->seconds == y->seconds)
		return x->algo < y->algo ? -1 : x->algo > y->algo; /* the order of the table */
	return x->seconds < y->seconds ? -1 : 1;
}

/* TUTTI_ALGO: "ring" or "allreduce:ring,broadcast:chain". */
static bool forced(const char *algo, enum tt_coll coll)
{
	const char *list = tt_env_str("ALGO"), *name = tt_coll_name(coll);
	size_t nalgo = strlen(algo), ncoll = strlen(name);

	for (const char *p = list; *p; p += strcspn(p, ","), p += *p == ',') {
		size_t n = strcspn(p, ","), k = strcspn(p, ":,");

		if (k < n && (k != ncoll || strncasecmp(p, name, k)))
			continue;
		if (k < n) {
			p += k + 1;
			n -= k + 1;
		}
		if (n == nalgo && !memcmp(p, algo, n))
			return true;
	}
	return false;
}

/* A schedule that holds whole vectors of every rank must not be asked for large ones. */
static bool fits(const struct tt_algo *a, enum tt_coll coll, const struct tt_facts *f, size_t bytes)
{
	bool wide = !strcmp(a->name, "direct1") ||
		    (!strcmp(a->name, "circulant") && coll != TT_ALLREDUCE);

	if (!strcmp(a->name, "tree") || (!strcmp(a->name, "direct1") && f->nranks > 16))
		return false; /* trees need a shape to be good for anything */
	return !wide || bytes * (size_t)f->nranks <= 1 << 20;
}

static struct tt_row row_of(int algo, const char *name)
{
	uint32_t window = (uint32_t)tt_env_int("WINDOW");
	bool deep = !strcmp(name, "dbtree") || !strcmp(name, "tree") || !strcmp(name, "chain");

	return (struct tt_row){ .algo = (uint8_t)algo, .lanes = 1, .depth = deep ? 8 : 4,
				.window = window < 1024 ? 1024 : window };
}

int tt_plan_candidates(const struct tt_facts *f, enum tt_coll coll, size_t bytes, bool ordered,
		       struct tt_candidate *out, int max)
{
	int n = 0;

	for (int i = 0; i < tt_nalgos && n < max; i++) {
		const struct tt_algo *a = &tt_algos[i];
		struct cost c;

		if (!(a->colls >> coll & 1) || (ordered && !a->ordered && coll != TT_BROADCAST))
			continue;
		c = shape_of(a->name, coll, f->nranks);
		out[n].algo = a;
		out[n].row = row_of(i, a->name);
		out[n].forced = forced(a->name, coll);
		out[n].seconds = price(f, &c, bytes, out[n].row.window);
		n += out[n].forced || fits(a, coll, f, bytes);
	}
	qsort(out, (size_t)n, sizeof(*out), by_cost);
	return n;
}

int tt_plan_class(size_t bytes)
{
	int c = 0;

	for (; bytes && c < TT_CLASSES - 1; bytes >>= 1)
		c++;
	return c;
}

tuttiResult_t tt_plan_make(const struct tt_facts *f, struct tt_plan *plan)
{
	struct tt_candidate c[16];

	memset(plan, 0, sizeof(*plan));
	plan->size = sizeof(*plan);
	for (int ordered = 0; ordered < 2; ordered++)
		for (int coll = 0; coll <= TT_BARRIER; coll++)
			for (int k = 0; k < TT_CLASSES; k++) {
				size_t bytes = k ? ((size_t)3 << k) / 4 : 0; /* middle of the class */

				if (!tt_plan_candidates(f, (enum tt_coll)coll, bytes, ordered, c, 16))
					return tt_fail(tuttiInternalError, "no algorithm for %s",
						       tt_coll_name((enum tt_coll)coll));
				plan->rows[ordered][coll][k] = c[0].row;
			}
	return tuttiSuccess;
}

const struct tt_row *tt_plan_row(const struct tt_plan *p, enum tt_coll coll, size_t bytes, bool ordered)
{
	return &p->rows[ordered][coll][tt_plan_class(bytes)];
}
