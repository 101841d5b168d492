/* tutti-info --topo FILE --hosts N: what collectives should cost on N such hosts, by the closed formulas of src/plan.c,
 * beside the bound that no algorithm beats. SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "info_hosts.h"

enum { MAX_CANDIDATES = 16, MAX_COSTS = USES * MAX_CANDIDATES };

struct cost { /* in seconds */
	const char *name;
	double all, latency, links, nics;
};

struct answer {
	enum tt_coll coll;
	size_t bytes; /* of a block */
	struct cost bound, cost[MAX_COSTS];
	int n;
};

/* ---- algorithms ---- */

static enum use use_of(const struct tt_algo *a)
{
	static const struct {
		const char *algo;
		enum use use;
	} rows[] = { { "ring", ALONG }, { "chain", ALONG }, { "tree", ONE }, { "knomial", ONE }, { "dbtree", ONE },
		     { "hier", RAILS } };

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		if (!strcmp(rows[i].algo, a->name))
			return rows[i].use;
	return ALL;
}

static double seconds_of(const struct tt_facts *f, const struct tt_algo *a, enum tt_coll coll, size_t bytes)
{
	struct tt_candidate c[MAX_CANDIDATES];
	int n = tt_plan_candidates(f, coll, bytes, false, c, MAX_CANDIDATES);

	for (int i = 0; i < n; i++)
		if (c[i].algo == a)
			return c[i].seconds;
	return 0;
}

/* Its parts: what it costs without bytes, and what is saved where nothing limits the NICs. */
static struct cost cost_of(const struct hosts *h, const struct tt_candidate *c, enum tt_coll coll, size_t bytes)
{
	struct tt_facts f = h->facts[use_of(c->algo)];
	struct cost w = { .name = c->algo->name, .all = c->seconds };

	w.latency = fmin(w.all, seconds_of(&f, c->algo, coll, 0));
	f.bandwidth = INFINITY;
	if (h->n > 1)
		w.nics = w.all - fmax(w.latency, seconds_of(&f, c->algo, coll, bytes));
	w.links = w.all - w.latency - w.nics;
	return w;
}

static void find_costs(const struct hosts *h, struct answer *a)
{
	struct tt_candidate c[MAX_CANDIDATES];

	for (enum use use = 0; use < USES; use++) {
		int n = tt_plan_candidates(&h->facts[use], a->coll, a->bytes, false, c, MAX_CANDIDATES);

		for (int i = 0; i < n; i++)
			if (use_of(c[i].algo) == use)
				a->cost[a->n++] = cost_of(h, &c[i], a->coll, a->bytes);
	}
}

/* ---- bounds ---- */

static bool has_blocks(enum tt_coll coll)
{
	return coll == TT_ALLGATHER || coll == TT_REDUCESCATTER;
}

/* Of p: what each of them must send or receive of all the data. */
static double share_of(enum tt_coll coll, double p)
{
	return coll == TT_ALLREDUCE ? 2 * (p - 1) / p : has_blocks(coll) ? (p - 1) / p : p > 1;
}

static double ranks_of(const struct hosts *h)
{
	return (double)h->n * h->ranks;
}

static double data_of(const struct hosts *h, enum tt_coll coll, size_t bytes)
{
	return coll == TT_BARRIER ? 0 : (double)bytes * (has_blocks(coll) ? ranks_of(h) : 1);
}

/* In one host the cut bounds of the search; what leaves a rank in any case. */
static double links_bound(const struct hosts *h, enum tt_coll coll, double data)
{
	double p = ranks_of(h), share = share_of(coll, p);
	double cut = coll == TT_ALLREDUCE ? h->trees : has_blocks(coll) ? h->allgather : h->root;

	if (h->n == 1 && isfinite(cut))
		return share * data / cut;
	if (coll == TT_ALLREDUCE)
		return fmax(share * data / h->average_out, (p > 1) * data / h->least_out);
	return share * data / h->least_out;
}

/* By messages that take time to send and time to arrive no more than twice as many ranks know each time one is sent;
 * the last one arrives. */
static double latency_bound(const struct hosts *h)
{
	struct tt_facts f = h->facts[ALONG];
	double near = h->ranks > 1 ? h->least_latency : f.latency, far = h->n > 1 ? f.latency : near;
	double units[TT_UNITS];

	f.latency = f.near_latency = near;
	tt_plan_units(&f, units);
	return ranks_of(h) > 1 ? far + log2(ranks_of(h)) * units[TT_MESSAGE] : 0;
}

static struct cost bound_of(const struct hosts *h, enum tt_coll coll, size_t bytes)
{
	double data = data_of(h, coll, bytes);
	struct cost w = { .name = "bound", .latency = latency_bound(h), .links = links_bound(h, coll, data) };

	if (h->n > 1)
		w.nics = share_of(coll, h->n) * data / h->nics;
	w.all = fmax(w.latency, fmax(w.links, w.nics));
	return w;
}

/* ---- answers ---- */

static int by_time(const void *a, const void *b)
{
	const struct cost *x = a, *y = b;

	return x->all == y->all ? strcmp(x->name, y->name) : x->all < y->all ? -1 : 1;
}

static void answer(const struct hosts *h, enum tt_coll coll, size_t bytes, struct answer *a)
{
	*a = (struct answer){ .coll = coll, .bytes = bytes, .bound = bound_of(h, coll, bytes) };
	find_costs(h, a);
	qsort(a->cost, (size_t)a->n, sizeof(a->cost[0]), by_time);
}

static const char *binds(const struct cost *w)
{
	if (w->latency >= w->links && w->latency >= w->nics)
		return "latency";
	return w->links > w->nics ? "links" : "NICs";
}

/* As NCCL's tests define it. */
static double busbw(const struct hosts *h, const struct answer *a, double seconds)
{
	double data = data_of(h, a->coll, a->bytes);

	return seconds > 0 ? share_of(a->coll, ranks_of(h)) * data / seconds : 0;
}

/* Without questions allreduce of some sizes. Stops the program where a question is wrong. */
static bool next_answer(const struct hosts *h, const struct question *q, int nq, int i, struct answer *a)
{
	static const size_t sizes[] = { 8, 64 << 10, 1 << 20, 16 << 20, 256 << 20, 1 << 30 };

	if (!nq && i < (int)(sizeof(sizes) / sizeof(sizes[0])))
		answer(h, TT_ALLREDUCE, sizes[i], a);
	else if (i < nq)
		answer(h, coll_of(q[i].part[0]), size_of(q[i].part[1]), a);
	else
		return false;
	return true;
}

static const char *part_text(double seconds, char *out, size_t room)
{
	return seconds > 0 ? time_text(seconds, out, room) : "-";
}

static void show_cost(const struct hosts *h, const struct answer *a, const struct cost *w, bool first)
{
	char text[4][32];

	printf("%s %-13s %8s %8.4g GB/s %4.0f %%  %8s %8s %8s  %s\n", first ? "  ->" : "    ", w->name,
	       time_text(w->all, text[0], sizeof(text[0])), busbw(h, a, w->all) / 1e9, 100 * a->bound.all / w->all,
	       part_text(w->latency, text[1], sizeof(text[1])), part_text(w->links, text[2], sizeof(text[2])),
	       part_text(w->nics, text[3], sizeof(text[3])), binds(w));
}

static void show_answer(const struct hosts *h, const struct answer *a)
{
	char size[32], text[32];

	printf("%s of %s, %.0f ranks on %d host%s: at best %s, busbw %.4g GB/s (%s)\n", tt_coll_name(a->coll),
	       size_text(a->bytes, size, sizeof(size)), ranks_of(h), h->n, h->n > 1 ? "s" : "",
	       time_text(a->bound.all, text, sizeof(text)), busbw(h, a, a->bound.all) / 1e9, binds(&a->bound));
	printf("%18s %8s %13s %6s  %8s %8s %8s  binds\n", "", "time", "busbw", "of it", "latency", "links", "NICs");
	for (int i = 0; i < a->n; i++)
		show_cost(h, a, &a->cost[i], !i);
}

void hosts_show(const struct hosts *h, const struct question *q, int nq)
{
	const struct way *near = &h->near[ALONG];
	struct answer a;

	printf("%-10s %d with %d rank%s each (%s)", "hosts", h->n, h->ranks, h->ranks > 1 ? "s" : "",
	       h->gpus ? "GPUs" : "cores");
	if (h->ranks > 1)
		printf("; in one %.3g us, %.4g GB/s along rings", near->latency * 1e6, near->bandwidth / 1e9);
	if (h->n > 1)
		printf("; between them %.3g us, %.4g GB/s each way", h->far[ALONG].latency * 1e6, h->nics / 1e9);
	puts("");
	if (*h->assumed)
		printf("%-10s %s\n", "", h->assumed);
	for (int i = 0; next_answer(h, q, nq, i, &a); i++)
		show_answer(h, &a);
}

static void json_cost(const struct hosts *h, const struct answer *a, const struct cost *w)
{
	printf("{");
	json_pair("algorithm", w->name);
	printf(", \"seconds\": %.9g, \"busbw_bytes_per_s\": %.9g, \"latency_s\": %.9g, \"links_s\": %.9g, "
	       "\"nics_s\": %.9g, ", w->all, busbw(h, a, w->all), w->latency, w->links, w->nics);
	json_pair("binds", binds(w));
	printf("}");
}

void hosts_json(const struct hosts *h, const struct question *q, int nq)
{
	bool several = h->n > 1;
	struct answer a;

	printf(",\n \"hosts\": {\"count\": %d, \"ranks\": %.0f, \"latency_s\": %.9g, \"links_bytes_per_s\": %.9g, "
	       "\"nics_latency_s\": %.9g, \"nics_bytes_per_s\": %.9g, ", h->n, ranks_of(h), h->near[ALONG].latency,
	       h->ranks > 1 ? h->near[ALONG].bandwidth : 0, several ? h->far[ALONG].latency : 0,
	       several ? h->nics : 0);
	json_pair("assumed", h->assumed);
	printf("},\n \"predicted\": [");
	for (int i = 0; next_answer(h, q, nq, i, &a); i++) {
		printf("%s\n  {", i ? "," : "");
		json_pair("collective", tt_coll_name(a.coll));
		printf(", \"bytes\": %zu, \"bound\": ", a.bytes);
		json_cost(h, &a, &a.bound);
		printf(", \"ways\": [");
		for (int k = 0; k < a.n; k++) {
			printf(k ? ",\n    " : "\n    ");
			json_cost(h, &a, &a.cost[k]);
		}
		printf("]}");
	}
	printf("]");
}
