/* How far two nodes are from each other, and which NIC a GPU should use. SPDX-License-Identifier: Apache-2.0 */
#include "topo.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

static uint32_t least(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

static uint32_t wide(const struct tt_topo_link *l)
{
	return l->bandwidth == TT_NO_LIMIT || l->count > TT_NO_LIMIT / (l->bandwidth ? l->bandwidth : 1) ?
		       TT_NO_LIMIT : l->bandwidth * l->count;
}

/* ---- direct links ---- */

/* Links are sorted by where they begin. */
static int first_link(const struct tt_topo *t, int from)
{
	int lo = 0, hi = t->nlinks;

	while (lo < hi) {
		int mid = lo + (hi - lo) / 2;

		if (t->links[mid].from < from)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static bool direct(const struct tt_topo *t, int a, int b, struct tt_topo_path *p)
{
	for (int i = first_link(t, a); i < t->nlinks && t->links[i].from == a; i++) {
		const struct tt_topo_link *l = &t->links[i];

		if (l->to != b)
			continue;
		*p = (struct tt_topo_path){ TT_PATH_NVL, 0, wide(l), l->latency };
		return true;
	}
	return false;
}

/* Over one node of the kind: an NVSwitch, or a GPU that passes on. The widest. */
static bool over(const struct tt_topo *t, int a, int b, enum tt_node_kind kind, struct tt_topo_path *p)
{
	struct tt_topo_path first, second;
	bool any = false;

	for (int i = first_link(t, a); i < t->nlinks && t->links[i].from == a; i++) {
		int via = t->links[i].to;

		if (t->nodes[via].kind != kind || !direct(t, a, via, &first) || !direct(t, via, b, &second))
			continue;
		first.bandwidth = least(first.bandwidth, second.bandwidth);
		first.latency += second.latency;
		if (!any || first.bandwidth > p->bandwidth)
			*p = first;
		any = true;
	}
	return any;
}

static bool linked(const struct tt_topo *t, int a, int b, struct tt_topo_path *p)
{
	if (direct(t, a, b, p) || over(t, a, b, TT_NODE_NVSWITCH, p))
		return true;
	if (!over(t, a, b, TT_NODE_GPU, p))
		return false;
	p->cls = TT_PATH_NVB;
	return true;
}

/* ---- the tree ---- */

static int depth(const struct tt_topo *t, int node)
{
	int d = 0;

	while ((node = t->nodes[node].parent) >= 0)
		d++;
	return d;
}

struct climb {
	int at, below; /* below: the node under `at` on the way */
	int switches;
	uint32_t bandwidth, latency;
};

static void step(const struct tt_topo *t, struct climb *c)
{
	const struct tt_topo_node *n = &t->nodes[c->at];

	c->bandwidth = least(c->bandwidth, n->bandwidth);
	c->latency += n->latency;
	c->switches += n->kind == TT_NODE_PCI;
	c->below = c->at;
	c->at = n->parent;
}

/* Through one host bridge, or between two; `unsaid` where nobody said. */
static bool same_bridge(const struct tt_topo *t, int a, int b, bool unsaid)
{
	const char *x = tt_topo_attr(t, a, "bridge"), *y = tt_topo_attr(t, b, "bridge");

	return x && y ? !strcmp(x, y) : unsaid;
}

static bool is_device(enum tt_node_kind k)
{
	return k == TT_NODE_PCI || k == TT_NODE_GPU || k == TT_NODE_NIC || k == TT_NODE_PORT;
}

static enum tt_path_class class_of(const struct tt_topo *t, const struct climb *a, const struct climb *b)
{
	enum tt_node_kind top = t->nodes[a->at].kind;
	bool da = is_device(t->nodes[a->below].kind), db = is_device(t->nodes[b->below].kind);

	if (top == TT_NODE_HOST)
		return da && db && same_bridge(t, a->below, b->below, false) ? TT_PATH_PHB : TT_PATH_SYS;
	if (top == TT_NODE_CACHE || top == TT_NODE_CORE)
		return TT_PATH_CACHE;
	if (top == TT_NODE_NUMA && (da || db))
		return da && db && !same_bridge(t, a->below, b->below, true) ? TT_PATH_NODE : TT_PATH_PHB;
	if (top == TT_NODE_NUMA)
		return TT_PATH_NODE;
	return a->switches + b->switches + (top == TT_NODE_PCI) > 1 ? TT_PATH_PXB : TT_PATH_PIX;
}

static struct tt_topo_path over_tree(const struct tt_topo *t, int a, int b)
{
	struct climb x = { a, a, 0, TT_NO_LIMIT, 0 }, y = { b, b, 0, TT_NO_LIMIT, 0 };
	struct tt_topo_path p;
	int da = depth(t, a), db = depth(t, b);

	for (; da > db; da--)
		step(t, &x);
	for (; db > da; db--)
		step(t, &y);
	while (x.at != y.at) {
		step(t, &x);
		step(t, &y);
	}
	p.cls = class_of(t, &x, &y);
	p.switches = x.switches + y.switches + (t->nodes[x.at].kind == TT_NODE_PCI);
	p.bandwidth = least(x.bandwidth, y.bandwidth);
	p.latency = x.latency + y.latency;
	return p;
}

struct tt_topo_path tt_topo_path(const struct tt_topo *t, int a, int b)
{
	struct tt_topo_path p;

	if (a == b)
		return (struct tt_topo_path){ TT_PATH_LOC, 0, TT_NO_LIMIT, 0 };
	return linked(t, a, b, &p) ? p : over_tree(t, a, b);
}

/* ---- pairs of GPU and NIC ---- */

struct match {
	const struct tt_topo *t;
	int ngpus, nnics;
	int *gpu, *nic;  /* their nodes */
	int *choice;     /* of each GPU, into nic */
	int *load;       /* GPUs of each NIC */
	bool *near;      /* ngpus x nnics */
	bool *up;        /* NICs that may be used */
	int *from;       /* of each NIC in a search: the GPU by which it was reached, -1: not yet */
	int *queue;
};

/* Below a common switch fewer of them are nearer; through a CPU they make no difference. */
static bool nearer(const struct tt_topo_path *a, const struct tt_topo_path *b)
{
	return a->cls != b->cls ? a->cls < b->cls : a->cls <= TT_PATH_PXB && a->switches < b->switches;
}

static void find_near(struct match *m, int g)
{
	struct tt_topo_path best = { .cls = TT_PATH_NCLASSES }, p;

	for (int k = 0; k < m->nnics; k++) {
		p = over_tree(m->t, m->gpu[g], m->nic[k]);
		if (m->up[k] && nearer(&p, &best))
			best = p;
	}
	for (int k = 0; k < m->nnics; k++) {
		p = over_tree(m->t, m->gpu[g], m->nic[k]);
		m->near[g * m->nnics + k] = m->up[k] && !nearer(&best, &p);
	}
}

static bool is_up(const struct tt_topo *t, int nic)
{
	for (int i = nic + 1; i < t->nnodes && t->nodes[i].parent == nic; i++) {
		const char *state = tt_topo_attr(t, i, "state");

		if (!state || strcmp(state, "down"))
			return true;
	}
	return false;
}

/* NICs without a cable are for nobody, unless there are no others. */
static void find_up(struct match *m)
{
	bool any = false;

	for (int k = 0; k < m->nnics; k++)
		any |= m->up[k] = is_up(m->t, m->nic[k]);
	for (int k = 0; k < m->nnics; k++)
		m->up[k] |= !any;
}

/* What it is good for, among NICs as near: a bridge of the kernel least, RDMA most, then a known speed. */
static uint64_t worth(const struct match *m, int k)
{
	const struct tt_topo *t = m->t;
	int nic = m->nic[k];
	long class = tt_topo_number(t, nic, "class", 0) >> 8;
	bool rdma = class == 0x0207 || class == 0x0c06, real = strncmp(t->nodes[nic].id, "virt:", 5);
	uint64_t speed = 0;

	for (int i = nic + 1; i < t->nnodes && t->nodes[i].parent == nic; i++) {
		rdma |= tt_topo_number(t, i, "guid", 0) > 0xffff;
		if (t->nodes[i].bandwidth != TT_NO_LIMIT)
			speed += t->nodes[i].bandwidth;
	}
	if (speed > t->nodes[nic].bandwidth)
		speed = t->nodes[nic].bandwidth;
	return (uint64_t)real << 41 | (uint64_t)rdma << 40 | speed;
}

/* Of one load, by worth, then by the order of ids. */
static bool better(const struct match *m, int a, int b)
{
	uint64_t wa = worth(m, a), wb = worth(m, b);

	if (m->load[a] != m->load[b])
		return m->load[a] < m->load[b];
	return wa != wb ? wa > wb : a < b;
}

/* NICs that the GPU could have, or that others could leave for it by taking another near one. */
static int reach(struct match *m, int g)
{
	int n = 0, best = -1;

	for (int k = 0; k < m->nnics; k++)
		m->from[k] = -1;
	m->queue[n++] = g;
	for (int i = 0; i < n; i++)
		for (int k = 0; k < m->nnics; k++) {
			if (m->from[k] >= 0 || !m->near[m->queue[i] * m->nnics + k])
				continue;
			m->from[k] = m->queue[i];
			if (best < 0 || better(m, k, best))
				best = k;
			for (int h = 0; h < g; h++)
				if (m->choice[h] == k)
					m->queue[n++] = h;
		}
	return best;
}

/* The one more goes to the NIC of least load within reach; those on the way move on. */
static void place(struct match *m, int g)
{
	int k = reach(m, g);

	if (k < 0)
		return;
	m->load[k]++;
	for (;;) {
		int h = m->from[k], old = m->choice[h];

		m->choice[h] = k;
		if (h == g)
			return;
		k = old;
	}
}

static void match_all(struct match *m)
{
	for (int i = 0, g = 0, k = 0; i < m->t->nnodes; i++) {
		if (m->t->nodes[i].kind == TT_NODE_GPU)
			m->gpu[g++] = i;
		if (m->t->nodes[i].kind == TT_NODE_NIC)
			m->nic[k++] = i;
	}
	find_up(m);
	for (int g = 0; g < m->ngpus; g++)
		m->choice[g] = -1;
	for (int g = 0; g < m->ngpus; g++)
		find_near(m, g);
	for (int g = 0; g < m->ngpus; g++)
		place(m, g);
}

static bool match_room(struct match *m)
{
	size_t g = (size_t)m->ngpus + 1, k = (size_t)m->nnics + 1;

	m->gpu = calloc(g, sizeof(int));
	m->nic = calloc(k, sizeof(int));
	m->choice = calloc(g, sizeof(int));
	m->load = calloc(k, sizeof(int));
	m->from = calloc(k, sizeof(int));
	m->near = calloc(g * k, sizeof(bool));
	m->queue = calloc(g, sizeof(int));
	m->up = calloc(k, sizeof(bool));
	return m->gpu && m->nic && m->choice && m->load && m->from && m->near && m->queue && m->up;
}

tuttiResult_t tt_topo_pairs(const struct tt_topo *t, struct tt_topo_pair **out, int *n)
{
	struct match m = { .t = t, .ngpus = tt_topo_count(t, TT_NODE_GPU), .nnics = tt_topo_count(t, TT_NODE_NIC) };
	struct tt_topo_pair *p = calloc((size_t)m.ngpus + 1, sizeof(*p));
	bool room = match_room(&m) && p;

	if (room)
		match_all(&m);
	for (int g = 0; room && g < m.ngpus; g++) {
		p[g] = (struct tt_topo_pair){ m.gpu[g], m.choice[g] < 0 ? -1 : m.nic[m.choice[g]], { 0 } };
		if (p[g].nic >= 0)
			p[g].path = over_tree(t, p[g].gpu, p[g].nic);
	}
	free(m.gpu);
	free(m.nic);
	free(m.choice);
	free(m.load);
	free(m.from);
	free(m.near);
	free(m.queue);
	free(m.up);
	if (!room) {
		free(p);
		return tt_fail(tuttiSystemError, "no memory to pair %d GPUs and %d NICs", m.ngpus, m.nnics);
	}
	*out = p;
	*n = m.ngpus;
	return tuttiSuccess;
}

/* ---- orders ---- */

int tt_topo_of_cpu(const struct tt_topo *t, unsigned cpu)
{
	for (int i = tt_topo_next(t, TT_NODE_CORE, -1); i >= 0; i = tt_topo_next(t, TT_NODE_CORE, i)) {
		const char *list = tt_topo_attr(t, i, "cpus");
		struct tt_cpus cpus;
		bool has;

		if (!list || !tt_cpus_list(list, &cpus))
			continue;
		has = tt_cpus_has(&cpus, cpu);
		tt_cpus_free(&cpus);
		if (has)
			return i;
	}
	return -1;
}

/* Nodes are numbered from the host downwards, so what is below one cache, switch or NUMA node is in a row. */
void tt_topo_order(const int *node, uint32_t n, uint32_t *order)
{
	for (uint32_t i = 0; i < n; i++) {
		unsigned key = (unsigned)node[i]; /* -1: last */
		uint32_t k = i;

		for (; k && (unsigned)node[order[k - 1]] > key; k--)
			order[k] = order[k - 1];
		order[k] = i;
	}
}

uint32_t tt_topo_hops(const struct tt_topo *t, const int *node, const uint32_t *order, uint32_t n,
		      enum tt_path_class cls)
{
	uint32_t hops = 0;

	for (uint32_t i = 0; i < n && n > 1; i++) {
		int a = node[order[i]], b = node[order[(i + 1) % n]];

		hops += a < 0 || b < 0 || tt_topo_path(t, a, b).cls >= cls;
	}
	return hops;
}
