/* A file that names devices alone, completed by what this machine says of them. SPDX-License-Identifier: Apache-2.0 */
#include "topo.h"

#include <stdlib.h>
#include <string.h>

static bool is_leaf(const struct tt_topo *t, int node)
{
	for (int i = 0; i < t->nnodes; i++)
		if (t->nodes[i].parent == node)
			return false;
	return true;
}

static void fill_node(struct tt_topo *t, int node, const struct tt_topo *machine, int from)
{
	const struct tt_topo_node *m = &machine->nodes[from];

	if (t->nodes[node].kind == TT_NODE_PCI && !tt_topo_attr(t, node, "class") && m->kind != TT_NODE_PCI &&
	    is_leaf(t, node)) {
		t->nodes[node].kind = m->kind;
		tt_topo_assume(t, "%s: taken from this machine, as the file does not say what it is", m->id);
	}
	if (t->nodes[node].bandwidth == TT_NO_LIMIT)
		t->nodes[node].bandwidth = m->bandwidth;
	for (int i = 0; i < m->nattrs; i++)
		if (!tt_topo_attr(t, node, m->attrs[i].name))
			tt_topo_set(t, node, m->attrs[i].name, m->attrs[i].value);
}

static int add_node(struct tt_topo *t, int parent, const struct tt_topo_node *m)
{
	int node = tt_topo_add(t, m->kind, m->id, parent);

	t->nodes[node].bandwidth = m->bandwidth;
	t->nodes[node].latency = m->latency;
	for (int i = 0; i < m->nattrs; i++)
		tt_topo_set(t, node, m->attrs[i].name, m->attrs[i].value);
	return node;
}

/* A NIC whose ports the file lists has those; one that it only names has the machine's. */
static bool has_ports(const struct tt_topo *t, int nic)
{
	return t->nodes[nic].kind != TT_NODE_NIC || !is_leaf(t, nic);
}

void tt_topo_fill(struct tt_topo *t, const struct tt_topo *machine)
{
	int *at = calloc((size_t)machine->nnodes, sizeof(*at)), links = t->nlinks;
	bool *closed = calloc((size_t)machine->nnodes, sizeof(*closed));

	for (int i = 1; at && closed && i < machine->nnodes && t->failed == tuttiSuccess; i++) {
		const struct tt_topo_node *m = &machine->nodes[i];

		at[i] = tt_topo_find(t, m->id);
		if (at[i] >= 0) {
			fill_node(t, at[i], machine, i);
			closed[i] = m->kind == TT_NODE_NIC && has_ports(t, at[i]);
		} else if (at[m->parent] >= 0 && !(m->kind == TT_NODE_PORT && closed[m->parent])) {
			at[i] = add_node(t, at[m->parent], m);
		}
	}
	for (int i = 0; at && closed && !links && i < machine->nlinks; i++) {
		const struct tt_topo_link *l = &machine->links[i];

		if (at[l->from] >= 0 && at[l->to] >= 0)
			tt_topo_link(t, l->kind, at[l->from], at[l->to], l->count, l->bandwidth);
	}
	if (!at || !closed)
		tt_topo_fail(t, tuttiSystemError, "no memory to fill in a topology of %d nodes", machine->nnodes);
	free(at);
	free(closed);
}
