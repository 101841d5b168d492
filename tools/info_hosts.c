/* N hosts like one machine: the speeds and latencies by which its ranks reach each other, inside a host and out of it,
 * from the graph. SPDX-License-Identifier: Apache-2.0 */
#include "info_hosts.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "transport.h"

#define GPU_REDUCES 1e12 /* bytes a second: two reads and a write of its memory */
#define NO_LIMIT_RATE 1e15

static double rate(uint32_t mbytes)
{
	return mbytes == TT_NO_LIMIT ? INFINITY : mbytes * 1e6;
}

/* ---- out of a host ---- */

static double nic_rate(const struct tt_topo *t, int nic)
{
	double ports = 0;

	for (int i = nic + 1; i < t->nnodes && t->nodes[i].parent == nic; i++) {
		const char *state = tt_topo_attr(t, i, "state");

		if (!state || strcmp(state, "down"))
			ports += rate(t->nodes[i].bandwidth);
	}
	return fmin(ports, rate(t->nodes[nic].bandwidth));
}

static double port_latency(const struct tt_topo *t, int nic)
{
	return nic + 1 < t->nnodes && t->nodes[nic + 1].parent == nic ? t->nodes[nic + 1].latency : 0;
}

static int users_of(const struct shown *s, int nic)
{
	int n = 0;

	for (int i = 0; i < s->npairs; i++)
		n += s->pair[i].nic == nic;
	return n;
}

/* Each GPU over the NIC of its pair, which it shares with those that have the same. */
static void nics_of_gpus(struct hosts *h, const struct shown *s)
{
	double least = INFINITY, best = 0, latency = 0;

	for (int i = 0; i < s->npairs; i++) {
		const struct tt_topo_pair *p = &s->pair[i];
		double whole, path, share;

		if (p->nic < 0)
			continue;
		whole = nic_rate(s->t, p->nic);
		path = fmin(rate(p->path.bandwidth), whole);
		share = fmin(path, whole / users_of(s, p->nic));
		h->nics += share;
		best = fmax(best, path);
		least = fmin(least, share);
		latency = fmax(latency, (2.0 * p->path.latency + port_latency(s->t, p->nic)) * 1e-9);
	}
	h->far[ALONG] = (struct way){ latency, h->nics };
	h->far[ONE] = (struct way){ latency, best };
	h->far[ALL] = (struct way){ latency, least * h->ranks };
	h->far[RAILS] = h->far[ALONG];
}

static struct tt_caps caps_of(const char *transport)
{
	const struct tt_transport *t = tt_transport_find(transport);
	struct tt_caps caps = { .latency = 1e-6, .bandwidth = 1e9 };
	char why[128];

	if (t)
		t->probe(&caps, why, sizeof(why));
	return caps;
}

/* Processes reach other hosts by TCP, at best as fast as the NICs. */
static void nics_of_cores(struct hosts *h, const struct tt_topo *t)
{
	double best = 0;

	for (int i = tt_topo_next(t, TT_NODE_NIC, -1); i >= 0; i = tt_topo_next(t, TT_NODE_NIC, i)) {
		h->nics += nic_rate(t, i);
		best = fmax(best, nic_rate(t, i));
	}
	for (int i = 0; i < USES; i++)
		h->far[i] = (struct way){ caps_of("tcp").latency, i == ONE ? best : h->nics };
}

/* ---- in a host ---- */

static void worse(struct way *f, const struct tt_topo_path *p)
{
	f->bandwidth = fmin(f->bandwidth, rate(p->bandwidth));
	f->latency = fmax(f->latency, p->latency * 1e-9);
}

/* Up from a to where the way to b turns down; cores that share a cache, and what is linked, take no edge. */
static void climb(const struct tt_topo *t, int a, int b, int *flows)
{
	if (tt_topo_path(t, a, b).cls <= TT_PATH_NVB)
		return;
	while (a != b) /* parents have lower numbers */
		if (a > b) {
			flows[a]++;
			a = t->nodes[a].parent;
		} else {
			b = t->nodes[b].parent;
		}
}

/* Where all send to all, many messages share an edge of the tree. */
static double crowded(const struct hosts *h, const struct tt_topo *t, const int *node)
{
	int *flows = calloc((size_t)t->nnodes, sizeof(*flows));
	double least = INFINITY;

	for (int i = 0; flows && i < h->ranks; i++)
		for (int k = 0; k < h->ranks; k++)
			if (i != k)
				climb(t, node[i], node[k], flows);
	for (int i = 0; flows && i < t->nnodes; i++)
		if (flows[i])
			least = fmin(least, rate(t->nodes[i].bandwidth) * (h->ranks - 1) / flows[i]);
	free(flows);
	return least;
}

/* The worst path between any two, and between neighbours in their order. */
static void find_paths(struct hosts *h, const struct tt_topo *t, const int *node)
{
	h->least_latency = INFINITY;
	h->near[ALONG].bandwidth = h->near[ALL].bandwidth = INFINITY;
	for (int i = 0; i < h->ranks; i++)
		for (int k = 0; k < h->ranks; k++) {
			struct tt_topo_path p = tt_topo_path(t, node[i], node[k]);

			if (i == k)
				continue;
			h->least_latency = fmin(h->least_latency, p.latency * 1e-9);
			worse(&h->near[ALL], &p);
			if (k == (i + 1) % h->ranks)
				worse(&h->near[ALONG], &p);
		}
	h->near[ONE] = h->near[ALL];
	h->near[ALL].bandwidth = fmin(h->near[ALL].bandwidth, crowded(h, t, node));
	h->near[RAILS] = h->near[ALL];
}

static void find_out(struct hosts *h, const struct shown *s)
{
	const struct tt_topo *t = s->t;
	double sum = 0;

	h->least_out = INFINITY;
	for (int i = 0; i < h->ranks; i++) {
		double out = rate(t->nodes[s->gpu[i]].bandwidth);

		for (int k = 0; k < t->nlinks; k++)
			if (t->links[k].from == s->gpu[i])
				out += rate(t->links[k].bandwidth) * t->links[k].count;
		h->least_out = fmin(h->least_out, out);
		sum += out;
	}
	h->average_out = sum / h->ranks;
}

static double cut(struct tt_frac f, double unit)
{
	return f.den && f.num ? tt_frac_value(f) * unit : INFINITY;
}

/* Rings over direct links where these make more than neighbours over whatever there is. */
static void use_links(struct hosts *h, const struct shown *s)
{
	double unit = rate(tt_topo_unit(s->t)), rings = isfinite(unit) ? tt_frac_value(s->most) * unit : 0;
	struct way *along = &h->near[ALONG];

	if (rings > 0 && (!isfinite(along->bandwidth) || rings > along->bandwidth))
		along->bandwidth = rings;
	h->allgather = cut(s->bound, unit);
	h->trees = cut(s->tree_bound, unit);
	h->root = cut(s->root_bound, unit);
}

/* What has to pass the one edge between some of the GPUs and the others: the vector each way; of all blocks those of
 * the larger part. */
static void cut_tree(struct hosts *h, const struct tt_topo *t)
{
	int *below = calloc((size_t)t->nnodes, sizeof(*below));

	for (int i = t->nnodes - 1; below && i > 0; i--) {
		double bw = rate(t->nodes[i].bandwidth), others;

		below[i] += t->nodes[i].kind == TT_NODE_GPU;
		below[t->nodes[i].parent] += below[i];
		others = h->ranks - below[i];
		if (!below[i] || others < 1)
			continue;
		h->root = fmin(h->root, bw);
		h->allgather = fmin(h->allgather, bw * (h->ranks - 1) / fmax(below[i], others));
		h->trees = fmin(h->trees, 2 * bw * (h->ranks - 1) / h->ranks);
	}
	free(below);
	h->trees = fmin(h->trees, h->average_out);
}

static void links_of_gpus(struct hosts *h, const struct shown *s)
{
	find_paths(h, s->t, s->gpu);
	find_out(h, s);
	if (s->t->nlinks && s->graph) {
		use_links(h, s);
	} else if (h->ranks > 1) {
		cut_tree(h, s->t);
		snprintf(h->assumed, sizeof(h->assumed), "no direct links between GPUs are listed: PCI alone is "
			 "counted");
	}
}

/* Processes: shared memory's own figures, but what crosses between sockets is as slow as their link. */
static void links_of_cores(struct hosts *h, const struct tt_topo *t, const int *core)
{
	struct tt_caps caps = caps_of("shm");

	find_paths(h, t, core);
	h->least_latency += caps.latency;
	for (int i = 0; i < USES; i++) {
		h->near[i].latency += caps.latency;
		h->near[i].bandwidth = fmin(h->near[i].bandwidth, caps.bandwidth);
	}
	h->least_out = h->average_out = caps.bandwidth;
}

/* ---- all of it ---- */

static bool refuse(const char *why)
{
	fprintf(stderr, "tutti-info: %s\n", why);
	return false;
}

/* What the file does not say cannot be computed with; where it is a part of the way, it is taken as no limit. */
static bool complete(struct hosts *h, const struct tt_topo *t)
{
	if (h->n > 1 && !tt_topo_count(t, TT_NODE_NIC))
		return refuse("no NIC is listed: nothing is known of several such hosts");
	if (h->n > 1 && (!isfinite(h->nics) || h->nics <= 0))
		return refuse("the speed of a NIC is not known: give its port a bw= (--as text writes the machine)");
	for (int i = 0; i < USES && h->ranks > 1; i++) {
		if (isfinite(h->near[i].bandwidth))
			continue;
		if (h->n == 1)
			return refuse("the speed of links is not known: give them a bw= (--as text writes the "
				      "machine)");
		h->near[i].bandwidth = NO_LIMIT_RATE;
		snprintf(h->assumed, sizeof(h->assumed), "the speed of links within a host is not known: taken as no "
			 "limit");
	}
	return true;
}

/* The GPUs; without any the cores, else the NUMA nodes. */
static int *ranks_of(const struct shown *s, int *n)
{
	enum tt_node_kind kind = tt_topo_count(s->t, TT_NODE_GPU)  ? TT_NODE_GPU :
				 tt_topo_count(s->t, TT_NODE_CORE) ? TT_NODE_CORE : TT_NODE_NUMA;
	int *node = calloc((size_t)s->t->nnodes, sizeof(*node));

	*n = 0;
	for (int i = tt_topo_next(s->t, kind, -1); node && i >= 0; i = tt_topo_next(s->t, kind, i))
		node[(*n)++] = i;
	return node;
}

/* Nobody is crowded: each has a core or a GPU to itself. */
static struct tt_facts facts_of(const struct hosts *h, enum use use)
{
	struct tt_facts f = { .nranks = h->n * h->ranks, .per_host = h->ranks, .hosts = h->n, .cores = h->ranks,
			      .reduce = h->gpus ? GPU_REDUCES : 0, .same_memory = h->n == 1 };
	const struct way *w = h->n > 1 ? &h->far[use] : &h->near[use];

	f.latency = w->latency;
	f.bandwidth = w->bandwidth;
	f.near_latency = h->near[use].latency;
	f.near_bandwidth = h->near[use].bandwidth;
	return f;
}

static void fill(struct hosts *h, const struct shown *s, const int *node)
{
	h->allgather = h->trees = h->root = INFINITY;
	h->gpus = s->t->nodes[node[0]].kind == TT_NODE_GPU;
	if (h->gpus) {
		links_of_gpus(h, s);
		nics_of_gpus(h, s);
	} else {
		links_of_cores(h, s->t, node);
		nics_of_cores(h, s->t);
	}
}

struct hosts *hosts_new(const struct shown *s, int n)
{
	struct hosts *h = calloc(1, sizeof(*h));
	int *node;

	if (!h)
		return NULL;
	h->n = n;
	node = ranks_of(s, &h->ranks);
	if (node)
		fill(h, s, node);
	if (!node || !complete(h, s->t)) {
		free(h);
		h = NULL;
	}
	free(node);
	for (enum use use = 0; h && use < USES; use++)
		h->facts[use] = facts_of(h, use);
	return h;
}

void hosts_free(struct hosts *h)
{
	free(h);
}
