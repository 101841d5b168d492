/* The graph of a machine: filling it, settling what is missing, putting it in order.
 * SPDX-License-Identifier: Apache-2.0 */
#include "topo.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ns; what is not listed by a source. */
static const uint32_t latencies[TT_NODE_NKINDS] = {
	[TT_NODE_NUMA] = 500, [TT_NODE_CACHE] = 30, [TT_NODE_CORE] = 20, [TT_NODE_PCI] = 150,
	[TT_NODE_GPU] = 500, [TT_NODE_NIC] = 500, [TT_NODE_PORT] = 1000,
};
enum { LINK_LATENCY = 700 };

/* ---- filling ---- */

void tt_topo_fail(struct tt_topo *t, tuttiResult_t r, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	if (t->failed != tuttiSuccess)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	t->failed = tt_fail(r, "%s", text);
}

static void no_memory(struct tt_topo *t)
{
	tt_topo_fail(t, tuttiSystemError, "no memory for the topology (%d nodes, %d links)", t->nnodes, t->nlinks);
}

/* Room for one more of n objects: sizes double, so that no length is too long. */
static void *grown(struct tt_topo *t, void *p, int n, size_t size)
{
	void *q = p;

	if (!(n & (n - 1))) {
		q = realloc(p, (n ? 2 * (size_t)n : 1) * size);
		if (!q)
			no_memory(t);
	}
	return q;
}

static char *copied(struct tt_topo *t, const char *text)
{
	char *p = strdup(text);

	if (!p)
		no_memory(t);
	return p;
}

tuttiResult_t tt_topo_new(struct tt_topo **out)
{
	struct tt_topo *t = calloc(1, sizeof(*t));

	if (!t)
		return tt_fail(tuttiSystemError, "no memory for a topology");
	tt_topo_add(t, TT_NODE_HOST, "host", -1);
	if (t->failed != tuttiSuccess) {
		tt_topo_free(t);
		return tuttiSystemError;
	}
	*out = t;
	return tuttiSuccess;
}

static void free_node(struct tt_topo_node *n)
{
	for (int i = 0; i < n->nattrs; i++) {
		free(n->attrs[i].name);
		free(n->attrs[i].value);
	}
	free(n->attrs);
	free(n->id);
}

void tt_topo_free(struct tt_topo *t)
{
	if (!t)
		return;
	for (int i = 0; i < t->nnodes; i++)
		free_node(&t->nodes[i]);
	for (int i = 0; i < t->nassumed; i++)
		free(t->assumed[i]);
	free(t->nodes);
	free(t->links);
	free(t->assumed);
	free(t->source);
	free(t);
}

void tt_topo_source(struct tt_topo *t, const char *fmt, ...)
{
	char text[1024], *p;
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	p = copied(t, text);
	if (!p)
		return;
	free(t->source);
	t->source = p;
}

void tt_topo_assume(struct tt_topo *t, const char *fmt, ...)
{
	char text[512], **list;
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	for (int i = 0; i < t->nassumed; i++)
		if (!strcmp(t->assumed[i], text))
			return;
	list = grown(t, t->assumed, t->nassumed, sizeof(*list));
	if (!list)
		return;
	t->assumed = list;
	list[t->nassumed] = copied(t, text);
	t->nassumed += list[t->nassumed] != NULL;
}

int tt_topo_add(struct tt_topo *t, enum tt_node_kind kind, const char *id, int parent)
{
	int there = tt_topo_find(t, id);
	struct tt_topo_node *list;
	char *name;

	if (t->failed != tuttiSuccess)
		return 0;
	if (there >= 0) {
		tt_topo_assume(t, "%s is listed twice: taken as one, where it was first", id);
		return there;
	}
	list = grown(t, t->nodes, t->nnodes, sizeof(*list));
	if (!list)
		return 0;
	t->nodes = list;
	name = copied(t, id);
	if (!name)
		return 0;
	list[t->nnodes] = (struct tt_topo_node){ .kind = kind, .id = name, .parent = parent,
						 .bandwidth = TT_NO_LIMIT, .latency = latencies[kind] };
	return t->nnodes++;
}

/* Where a name is or belongs among the sorted ones. */
static int slot_of(const struct tt_topo_node *n, const char *name, bool *there)
{
	int i = 0, order = 1;

	while (i < n->nattrs && (order = strcmp(name, n->attrs[i].name)) > 0)
		i++;
	*there = i < n->nattrs && !order;
	return i;
}

void tt_topo_set(struct tt_topo *t, int node, const char *name, const char *value)
{
	struct tt_topo_node *n = &t->nodes[node];
	struct tt_topo_attr *list, new;
	bool there;
	int i;

	if (!value || !*value || t->failed != tuttiSuccess)
		return;
	i = slot_of(n, name, &there);
	new.value = copied(t, value);
	if (there && new.value) {
		free(n->attrs[i].value);
		n->attrs[i].value = new.value;
		return;
	}
	new.name = new.value ? copied(t, name) : NULL;
	list = new.name ? grown(t, n->attrs, n->nattrs, sizeof(*list)) : NULL;
	if (!list) {
		free(new.name);
		free(new.value);
		return;
	}
	memmove(list + i + 1, list + i, (size_t)(n->nattrs - i) * sizeof(*list));
	list[i] = new;
	n->attrs = list;
	n->nattrs++;
}

void tt_topo_setf(struct tt_topo *t, int node, const char *name, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	tt_topo_set(t, node, name, text);
}

void tt_topo_link(struct tt_topo *t, enum tt_link_kind kind, int from, int to, uint32_t count, uint32_t bandwidth)
{
	struct tt_topo_link *list;

	if (t->failed != tuttiSuccess)
		return;
	list = grown(t, t->links, t->nlinks, sizeof(*list));
	if (!list)
		return;
	t->links = list;
	list[t->nlinks++] = (struct tt_topo_link){ .kind = kind, .from = from, .to = to, .count = count,
						   .bandwidth = bandwidth, .latency = LINK_LATENCY };
}

int tt_topo_fabric(struct tt_topo *t, const char *bus)
{
	int node = tt_topo_find(t, "nvswitch");

	if (node < 0) {
		node = tt_topo_add(t, TT_NODE_NVSWITCH, "nvswitch", 0);
		tt_topo_set(t, node, "busid", bus);
	}
	return node;
}

/* ---- reading ---- */

int tt_topo_find(const struct tt_topo *t, const char *id)
{
	for (int i = 0; i < t->nnodes; i++)
		if (!strcmp(t->nodes[i].id, id))
			return i;
	return -1;
}

int tt_topo_next(const struct tt_topo *t, enum tt_node_kind kind, int after)
{
	for (int i = after + 1; i < t->nnodes; i++)
		if (t->nodes[i].kind == kind)
			return i;
	return -1;
}

int tt_topo_count(const struct tt_topo *t, enum tt_node_kind kind)
{
	int n = 0;

	for (int i = 0; i < t->nnodes; i++)
		n += t->nodes[i].kind == kind;
	return n;
}

const char *tt_topo_attr(const struct tt_topo *t, int node, const char *name)
{
	bool there;
	int i = slot_of(&t->nodes[node], name, &there);

	return there ? t->nodes[node].attrs[i].value : NULL;
}

long tt_topo_number(const struct tt_topo *t, int node, const char *name, long missing)
{
	const char *text = tt_topo_attr(t, node, name);
	char *end = NULL;
	long v = text ? strtol(text, &end, strncmp(text, "0x", 2) ? 10 : 16) : 0;

	return end && end > text ? v : missing;
}

int tt_topo_above(const struct tt_topo *t, int node, enum tt_node_kind kind)
{
	while (node >= 0 && t->nodes[node].kind != kind)
		node = t->nodes[node].parent;
	return node;
}

/* ---- settling ---- */

/* What hangs on the host itself, because nobody said where it belongs. */
static bool is_stray(const struct tt_topo_node *n)
{
	return n->parent == 0 && n->kind != TT_NODE_NUMA && n->kind != TT_NODE_NVSWITCH;
}

static void place_strays(struct tt_topo *t)
{
	int nnuma = tt_topo_count(t, TT_NODE_NUMA), numa = tt_topo_next(t, TT_NODE_NUMA, -1);

	if (!nnuma) {
		tt_topo_assume(t, "no NUMA node is listed: taken as one");
		numa = tt_topo_add(t, TT_NODE_NUMA, "numa0", 0);
	}
	for (int i = 1; i < t->nnodes; i++) {
		if (!is_stray(&t->nodes[i]))
			continue;
		if (nnuma > 1)
			tt_topo_assume(t, "%s: its NUMA node is not known: taken as far from all", t->nodes[i].id);
		else
			t->nodes[i].parent = numa;
	}
}

static bool has_port(const struct tt_topo *t, int nic)
{
	for (int i = 0; i < t->nnodes; i++)
		if (t->nodes[i].kind == TT_NODE_PORT && t->nodes[i].parent == nic)
			return true;
	return false;
}

static void add_ports(struct tt_topo *t)
{
	char id[300];

	for (int i = 0, n = t->nnodes; i < n; i++) {
		if (t->nodes[i].kind != TT_NODE_NIC || has_port(t, i))
			continue;
		tt_topo_assume(t, "%s: no port is listed: taken as one of unknown speed", t->nodes[i].id);
		snprintf(id, sizeof(id), "%.290s/port", t->nodes[i].id);
		tt_topo_add(t, TT_NODE_PORT, id, i);
	}
}

static void rate_sockets(struct tt_topo *t)
{
	bool several = tt_topo_count(t, TT_NODE_NUMA) > 1;

	for (int i = 0; i < t->nnodes && several; i++) {
		if (t->nodes[i].kind != TT_NODE_NUMA || t->nodes[i].bandwidth != TT_NO_LIMIT)
			continue;
		t->nodes[i].bandwidth = tt_rate_socket(t, i);
		if (t->nodes[i].bandwidth == TT_NO_LIMIT)
			tt_topo_assume(t, "%s: the speed of its socket link is not known: no limit", t->nodes[i].id);
	}
}

/* ---- links ---- */

static int by_ends(const void *a, const void *b)
{
	const struct tt_topo_link *x = a, *y = b;

	if (x->from != y->from)
		return x->from < y->from ? -1 : 1;
	if (x->to != y->to)
		return x->to < y->to ? -1 : 1;
	return x->kind != y->kind ? (x->kind < y->kind ? -1 : 1) : 0;
}

static uint32_t sum(uint32_t a, uint32_t b)
{
	return a > TT_NO_LIMIT - b ? TT_NO_LIMIT : a + b;
}

/* Sorted already. A link to oneself carries nothing; equal ones are one that is wider. */
static void merge_links(struct tt_topo *t)
{
	int n = 0;

	for (int i = 0; i < t->nlinks; i++) {
		struct tt_topo_link *l = &t->links[i], *last = n ? &t->links[n - 1] : NULL;

		if (l->from == l->to) {
			tt_topo_assume(t, "%s: a link to itself is left out", t->nodes[l->from].id);
		} else if (last && !by_ends(l, last)) {
			last->count = sum(last->count, l->count);
			last->bandwidth = last->bandwidth < l->bandwidth ? last->bandwidth : l->bandwidth;
		} else {
			t->links[n++] = *l;
		}
	}
	t->nlinks = n;
}

static void check_reverse(struct tt_topo *t)
{
	for (int i = 0; i < t->nlinks; i++) {
		struct tt_topo_link *l = &t->links[i], *r, key = *l;

		key.from = l->to;
		key.to = l->from;
		r = bsearch(&key, t->links, (size_t)t->nlinks, sizeof(key), by_ends);
		if (!r || (r->count != l->count && l->from < l->to))
			tt_topo_assume(t, "%s to %s: %u links there, %u back: taken as listed", t->nodes[l->from].id,
				       t->nodes[l->to].id, l->count, r ? r->count : 0);
	}
}

/* ---- order ---- */

static enum tt_node_kind order_of(enum tt_node_kind k)
{
	return k == TT_NODE_GPU || k == TT_NODE_NIC ? TT_NODE_PCI : k;
}

/* Shorter ids first: numa2 before numa10; bus ids are of one length but for their domains. Devices by them alone. */
static int by_name(const struct tt_topo_node *a, const struct tt_topo_node *b)
{
	size_t na = strlen(a->id), nb = strlen(b->id);

	if (order_of(a->kind) != order_of(b->kind))
		return order_of(a->kind) < order_of(b->kind) ? -1 : 1;
	if (na != nb)
		return na < nb ? -1 : 1;
	return strcmp(a->id, b->id);
}

static int by_name_at(const void *a, const void *b)
{
	return by_name(*(struct tt_topo_node *const *)a, *(struct tt_topo_node *const *)b);
}

struct family {
	int child, last, next; /* first child, last one so far, next sibling; -1: none */
};

static void find_families(const struct tt_topo *t, struct tt_topo_node **sorted, struct family *f)
{
	for (int i = 0; i < t->nnodes; i++)
		f[i] = (struct family){ -1, -1, -1 };
	for (int i = 0; i < t->nnodes; i++) {
		int node = (int)(sorted[i] - t->nodes), parent = sorted[i]->parent;

		if (parent < 0)
			continue;
		if (f[parent].child < 0)
			f[parent].child = node;
		else
			f[f[parent].last].next = node;
		f[parent].last = node;
	}
}

/* From the host downwards, without recursion: a file may be deep. */
static void number(const struct tt_topo *t, const struct family *f, int *new)
{
	int n = 0;

	for (int i = 0; i >= 0;) {
		new[i] = n++;
		if (f[i].child >= 0) {
			i = f[i].child;
			continue;
		}
		while (i >= 0 && f[i].next < 0)
			i = t->nodes[i].parent;
		if (i >= 0)
			i = f[i].next;
	}
}

static void move(struct tt_topo *t, struct tt_topo_node *nodes, const int *new)
{
	for (int i = 0; i < t->nnodes; i++) {
		nodes[new[i]] = t->nodes[i];
		if (i)
			nodes[new[i]].parent = new[t->nodes[i].parent];
	}
	memcpy(t->nodes, nodes, (size_t)t->nnodes * sizeof(*nodes));
	for (int i = 0; i < t->nlinks; i++) {
		t->links[i].from = new[t->links[i].from];
		t->links[i].to = new[t->links[i].to];
	}
}

static void put_in_order(struct tt_topo *t)
{
	size_t n = (size_t)t->nnodes;
	struct tt_topo_node **sorted = calloc(n, sizeof(*sorted)), *nodes = calloc(n, sizeof(*nodes));
	struct family *f = calloc(n, sizeof(*f));
	int *new = calloc(n, sizeof(*new));

	if (sorted && nodes && f && new) {
		for (size_t i = 0; i < n; i++)
			sorted[i] = &t->nodes[i];
		qsort(sorted, n, sizeof(*sorted), by_name_at);
		find_families(t, sorted, f);
		number(t, f, new);
		move(t, nodes, new);
	} else {
		no_memory(t);
	}
	free(sorted);
	free(nodes);
	free(f);
	free(new);
}

static int by_text(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

tuttiResult_t tt_topo_finish(struct tt_topo *t)
{
	if (t->failed == tuttiSuccess)
		place_strays(t);
	if (t->failed == tuttiSuccess)
		add_ports(t);
	if (t->failed == tuttiSuccess)
		rate_sockets(t);
	if (t->failed == tuttiSuccess)
		put_in_order(t);
	if (t->failed != tuttiSuccess)
		return t->failed;
	if (t->nlinks)
		qsort(t->links, (size_t)t->nlinks, sizeof(*t->links), by_ends);
	merge_links(t);
	check_reverse(t);
	if (t->nassumed)
		qsort(t->assumed, (size_t)t->nassumed, sizeof(*t->assumed), by_text);
	return t->failed;
}
