/* The cost model and the table made from it. SPDX-License-Identifier: Apache-2.0
 *
 * A schedule costs rounds * alpha + messages * overhead + bytes sent * beta + bytes copied and reduced * gammas. Where
 * ranks share the cores of a host, all but the wire's latency is multiplied by ranks per core, and in each round a
 * core goes from rank to rank. Where ranks share hosts and there are several, alpha and beta are those within a
 * host, and what crosses between hosts costs more. What was measured (plan_cal.c) corrects the sum. */
#include "plan.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define OVERHEAD 0.3 /* of a message, in latencies, where a transport does not say */
#define TURN 1e-6    /* seconds until another rank has the core */
#define CACHE (4 << 20) /* bytes, of a core */
#define DEPTH 4      /* windows under way to a peer, where the schedule is no tree */

struct cost { /* per rank; bytes in units of the block */
	double rounds, messages, sent;
	double copied, reduced; /* of what arrives: put into place as it is, combined with what is there */
	double largest;         /* message: windows are cut by it */
	bool tree;              /* rounds beyond the first cost a window, not the whole; part of the ranks take part */
};

static double log2_up(int p)
{
	double n = 0;

	for (int k = 1; k < p; k *= 2)
		n++;
	return n;
}

static struct cost cost_of_blocks(const char *name, enum tt_coll coll, const struct tt_facts *f)
{
	int p = f->nranks;
	double lg = log2_up(p), all = p - 1, g = f->per_host, h = f->hosts > 1 ? f->hosts : 1;
	double levels = p - p / g + h - 1, in = coll == TT_ALLGATHER, red = coll == TT_REDUCESCATTER;

	if (!strcmp(name, "direct"))
		return (struct cost){ 1, all, all, all, red * all, 1, false };
	if (!strcmp(name, "circulant"))
		return (struct cost){ lg, 1.5 * lg, all, in * all, red * all, p / 2.0, false };
	if (!strcmp(name, "hier"))
		return (struct cost){ h, levels, levels, in * levels, red * levels, 1, false };
	return (struct cost){ all, all, all, in * all, red * all, 1, false }; /* ring */
}

static struct cost cost_of_rooted(const char *name, enum tt_coll coll, const struct tt_facts *f)
{
	double lg = log2_up(f->nranks), all = f->nranks - 1, in = coll == TT_BROADCAST, red = coll == TT_REDUCE;

	if (!strcmp(name, "direct"))
		return (struct cost){ 1, all, all, in + red * all, red * all, 1, false };
	if (!strcmp(name, "tree"))
		return (struct cost){ lg, 3, 2, in, red * 2, 1, true };
	if (!strcmp(name, "chain"))
		return (struct cost){ all, 1, 1, in, red, 1, true };
	return (struct cost){ lg, lg, lg, in, red * lg, 1, false }; /* knomial */
}

static double crowd_of(const struct tt_facts *f)
{
	return f->per_host > f->cores ? (double)f->per_host / f->cores : 1;
}

static struct cost cost_of_allreduce(const char *name, const struct tt_facts *f)
{
	double p = f->nranks, lg = log2_up(f->nranks), all = p - 1, share = all / p, g = f->per_host;
	double h = f->hosts > 1 ? f->hosts : 1, up = (g - 1) / g, over = (h - 1) / h / g;
	/* Of two trees the ranks inside have more to do; where they share cores the average counts. */
	double busy = crowd_of(f) > 1 ? share : 1;

	if (!strcmp(name, "ring"))
		return (struct cost){ 2 * all, 2 * all, 2 * share, share, share, 1 / p, false };
	if (!strcmp(name, "direct"))
		return (struct cost){ 2, 2 * all, 2 * share, 2 * share, share, 1 / p, false };
	if (!strcmp(name, "direct1"))
		return (struct cost){ 1, all, all, all, all, 1, false };
	if (!strcmp(name, "circulant"))
		return (struct cost){ 2 * lg, 3 * lg, 2 * share, share, share, 0.5, false };
	if (!strcmp(name, "dbtree"))
		return (struct cost){ 2 * lg, 4, 2 * busy, busy, busy, 0.5, true };
	if (!strcmp(name, "tree"))
		return (struct cost){ 2 * lg, 6, 3, 1, 2, 1, true };
	if (!strcmp(name, "hier"))
		return (struct cost){ 2 * h, 2 * (g + h - 2), 2 * (up + over), up + over, up + over, 1 / g, false };
	return (struct cost){ lg, lg, lg, 0, lg, 1, false }; /* recdouble */
}

static struct cost cost_of(const char *name, enum tt_coll coll, const struct tt_facts *f)
{
	double lg = log2_up(f->nranks);

	if (coll == TT_ALLREDUCE)
		return cost_of_allreduce(name, f);
	if (coll == TT_ALLGATHER || coll == TT_REDUCESCATTER)
		return cost_of_blocks(name, coll, f);
	if (coll == TT_BROADCAST || coll == TT_REDUCE)
		return cost_of_rooted(name, coll, f);
	return (struct cost){ lg, lg, 0, 0, 0, 1, false };
}

/* The part of a cost that crosses between hosts, where ranks share some. */
struct far {
	double rounds, messages, across; /* across: units of the block that leave the busiest host */
};

static struct far far_of(const char *name, enum tt_coll coll, const struct tt_facts *f)
{
	double p = f->nranks, h = f->hosts, g = f->per_host, lg = log2_up(f->nranks), lh = log2_up(f->hosts);
	double by_rank = f->scattered ? lg : lh; /* of those that take ranks in their own order */
	double share = (p - 1) / p, twice = coll == TT_ALLREDUCE ? 2 : 1;
	bool blocks = coll == TT_ALLGATHER || coll == TT_REDUCESCATTER;

	if (!strcmp(name, "hier"))
		return (struct far){ twice * (h - 1), twice * (h - 1), blocks ? p - p / h : 2 * (h - 1) / h };
	if (!strcmp(name, "ring")) /* its order has the ranks of a host together: one of them sends to the next */
		return (struct far){ twice * h, twice * (p - 1), blocks ? p - 1 : 2 * share };
	if (!strcmp(name, "direct"))
		return (struct far){ twice, twice * (p - g), blocks ? g * (p - g) :
				     coll == TT_ALLREDUCE ? 2 * g * (p - g) / p : p - g };
	if (!strcmp(name, "direct1"))
		return (struct far){ 1, p - g, g * (p - g) };
	if (!strcmp(name, "recdouble"))
		return (struct far){ by_rank, by_rank, g * by_rank };
	if (!strcmp(name, "circulant"))
		return (struct far){ twice * lg, twice * 1.5 * lg, blocks ? g * (p - g) : 2 * g * share };
	if (!strcmp(name, "dbtree"))
		return (struct far){ 2 * (lh + 1), 4, 3 };
	if (!strcmp(name, "knomial"))
		return (struct far){ by_rank, by_rank, by_rank };
	if (!strcmp(name, "chain"))
		return (struct far){ h - 1, 1, 1 };
	if (!strcmp(name, "tree"))
		return (struct far){ twice * lh, 2, h < 3 ? 1 : h < 4 ? 2 : 3 };
	return (struct far){ lh, lh, 0 };
}

static bool some_share_hosts(const struct tt_facts *f)
{
	return f->hosts > 1 && f->per_host > 1;
}

void tt_plan_units(const struct tt_facts *f, double units[TT_UNITS])
{
	bool mixed = some_share_hosts(f);
	double alpha = mixed ? f->near_latency : f->latency, own = mixed ? f->near_overhead : f->overhead;

	units[TT_ROUND] = alpha;
	units[TT_TURN] = TURN;
	units[TT_MESSAGE] = own > 0 ? own : OVERHEAD * alpha;
	units[TT_SENT] = 1 / (mixed ? f->near_bandwidth : f->bandwidth);
	units[TT_COPIED] = f->copied > 0 ? 1 / f->copied : 0;
	units[TT_REDUCED] = 1 / (f->reduce > 0 ? f->reduce : 13e9);
	units[TT_FAR_ROUND] = f->latency;
	units[TT_FAR_MESSAGE] = f->overhead > 0 ? f->overhead : OVERHEAD * f->latency;
	units[TT_ACROSS] = 1 / f->bandwidth;
}

static void amounts(const struct tt_facts *f, const struct cost *c, const struct far *far, size_t bytes, size_t window,
		    double v[TT_UNITS])
{
	bool mixed = some_share_hosts(f);
	double crowd = crowd_of(f), b = (double)bytes, largest = c->largest * b;
	double times = largest > (double)window ? largest / (double)window : 1;
	double piece = c->tree ? largest / times : 0; /* what a round beyond the first costs */
	double turns = crowd > 1 ? (c->tree ? c->rounds / 2 + 1 : c->rounds) * crowd : 0;
	double far_messages = !mixed ? 0 : far->messages < c->messages ? far->messages : c->messages;

	v[TT_ROUND] = c->rounds - (mixed ? far->rounds : 0);
	v[TT_FAR_ROUND] = mixed ? far->rounds : 0;
	v[TT_TURN] = turns;
	v[TT_MESSAGE] = (c->messages - far_messages) * times * crowd + turns;
	v[TT_FAR_MESSAGE] = far_messages * times * crowd;
	v[TT_SENT] = (c->sent * b + c->rounds * piece) * crowd;
	v[TT_COPIED] = c->copied * b * crowd;
	v[TT_REDUCED] = c->reduced * b * crowd;
	v[TT_ACROSS] = mixed ? far->across * b + far->rounds * piece : 0;
}

/* A message of it is made of blocks of several ranks, which no window cuts. */
static bool is_whole(const struct tt_algo *a, enum tt_coll coll)
{
	return !strcmp(a->name, "circulant") && coll != TT_ALLREDUCE;
}

/* A schedule that holds whole vectors of every rank must not be asked for large ones: a MiB for a core at most. */
bool tt_plan_fits(const struct tt_algo *a, enum tt_coll coll, const struct tt_facts *f, size_t bytes)
{
	if (!strcmp(a->name, "direct1") && f->nranks > 16)
		return false;
	if (!strcmp(a->name, "tree") || !strcmp(a->name, "hier"))
		return some_share_hosts(f); /* what they are made for is in the shape then */
	return (strcmp(a->name, "direct1") && !is_whole(a, coll)) || (double)bytes * f->nranks * crowd_of(f) <= 1 << 20;
}

/* Even if it is forced: of all sizes of the class that begins with these bytes. */
static bool is_possible(const struct tt_algo *a, enum tt_coll coll, const struct tt_facts *f, size_t bytes)
{
	double largest = cost_of(a->name, coll, f).largest * 2 * (double)bytes;

	return !f->most || !is_whole(a, coll) || largest <= (double)f->most;
}

/* What the ranks of a core have under way to all others at once, in slots, is read again there: if it no longer fits
 * the cache, each byte costs more. Both are nominal. */
static void strain(struct cost *c, const struct tt_facts *f, double bytes, double window)
{
	double largest = c->largest * bytes, to_one = largest < DEPTH * window ? largest : DEPTH * window;

	if ((f->nranks - 1) * to_one * crowd_of(f) <= CACHE)
		return;
	c->sent *= 1.5;
	c->copied *= 1.5;
}

double tt_plan_seconds(const struct tt_facts *f, const struct tt_algo *a, enum tt_coll coll, size_t bytes,
		       size_t window)
{
	double v[TT_UNITS], units[TT_UNITS], sum = 0;
	struct cost c = cost_of(a->name, coll, f);
	struct far far = far_of(a->name, coll, f);

	if (!strcmp(a->name, "direct"))
		strain(&c, f, (double)bytes, (double)window);
	amounts(f, &c, &far, bytes, window, v);
	tt_plan_units(f, units);
	for (int k = 0; k < TT_UNITS; k++)
		sum += v[k] * units[k];
	return sum;
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

/* Where the shape has several rings each is one program, which a block of a device can run. */
static struct tt_row row_of(const struct tt_facts *f, int algo, const char *name, bool ordered)
{
	bool several = f->lanes > 1 && !ordered && !strcmp(name, "ring");
	uint32_t window = (uint32_t)tt_env_int("WINDOW");
	bool deep = !strcmp(name, "dbtree") || !strcmp(name, "tree") || !strcmp(name, "chain");

	return (struct tt_row){ .algo = (uint8_t)algo, .lanes = several ? (uint8_t)f->lanes : 1,
				.depth = deep ? 8 : DEPTH, .param = several, .flat = ordered,
				.window = window < 1024 ? 1024 : window };
}

/* What was measured scatters: what the formulas choose gives way only to what is faster by more than that. */
#define CLEARLY 1.06

static void keep_choice(struct tt_candidate *c, int n, const struct tt_algo *choice)
{
	int k = 0;

	while (k < n && c[k].algo != choice)
		k++;
	if (k < n && !c[0].forced && c[k].seconds < CLEARLY * c[0].seconds) {
		struct tt_candidate kept = c[k];

		memmove(c + 1, c, (size_t)k * sizeof(*c));
		c[0] = kept;
	}
}

int tt_plan_candidates(const struct tt_facts *f, enum tt_coll coll, size_t bytes, bool ordered,
		       struct tt_candidate *out, int max)
{
	const struct tt_algo *choice = NULL;
	double least = 0;
	int n = 0;

	for (int i = 0; i < tt_nalgos && n < max; i++) {
		const struct tt_algo *a = &tt_algos[i];
		if (!(a->colls >> coll & 1) || (ordered && !a->ordered && coll != TT_BROADCAST))
			continue;
		out[n].algo = a;
		out[n].row = row_of(f, i, a->name, ordered);
		out[n].forced = forced(a->name, coll);
		out[n].seconds = tt_plan_seconds(f, a, coll, bytes, out[n].row.window);
		if (!is_possible(a, coll, f, bytes) || (!out[n].forced && !tt_plan_fits(a, coll, f, bytes)))
			continue;
		if (!choice || out[n].seconds < least) {
			choice = a;
			least = out[n].seconds;
		}
		out[n++].seconds *= tt_cal_factor(f->cal, coll, i, bytes);
	}
	qsort(out, (size_t)n, sizeof(*out), by_cost);
	keep_choice(out, n, choice);
	return n;
}

int tt_plan_class(size_t bytes)
{
	int c = 0;

	for (; bytes && c < TT_CLASSES - 1; bytes >>= 1)
		c++;
	return c;
}

/* The powers of two: sizes are that more often than anything between. */
size_t tt_plan_bytes(int class)
{
	return class ? (size_t)1 << (class - 1) : 0;
}

tuttiResult_t tt_plan_make(const struct tt_facts *f, struct tt_plan *plan)
{
	struct tt_candidate c[16];

	memset(plan, 0, sizeof(*plan));
	plan->size = sizeof(*plan);
	plan->cores = (uint32_t)f->cores;
	for (int ordered = 0; ordered < 2; ordered++)
		for (int coll = 0; coll <= TT_BARRIER; coll++)
			for (int k = 0; k < TT_CLASSES; k++) {
				if (!tt_plan_candidates(f, (enum tt_coll)coll, tt_plan_bytes(k), ordered, c, 16))
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
