/* What of a machine the search for rings and trees sees: its GPUs, the links between them, switches that pass on.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "topo.h"
#include "topo_search.h"

/* The vertex of each node, or -1: GPUs in their order, then NVSwitches. */
static int *vertices_of(const struct tt_topo *t, uint32_t *ngpus, uint32_t *nswitches)
{
	int *v = calloc((size_t)t->nnodes, sizeof(*v)), n = 0;

	for (int i = 0; v && i < t->nnodes; i++)
		v[i] = t->nodes[i].kind == TT_NODE_GPU ? n++ : -1;
	*ngpus = (uint32_t)n;
	for (int i = 0; v && i < t->nnodes; i++)
		if (t->nodes[i].kind == TT_NODE_NVSWITCH)
			v[i] = n++;
	*nswitches = (uint32_t)n - *ngpus;
	return v;
}

uint32_t tt_topo_unit(const struct tt_topo *t)
{
	uint32_t least = TT_NO_LIMIT;

	for (int i = 0; i < t->nlinks; i++)
		if (t->links[i].bandwidth && t->links[i].bandwidth < least)
			least = t->links[i].bandwidth;
	return least;
}

/* In half links of the slowest kind, so that one of half as much again is told from it. Where a speed is not known the
 * number of links is all that counts. */
static uint32_t width(const struct tt_topo_link *l, uint32_t least)
{
	uint64_t halves = l->bandwidth == TT_NO_LIMIT ? 2 : (2 * (uint64_t)l->bandwidth + least / 2) / least;

	return halves * l->count >= TT_NO_LIMIT ? TT_NO_LIMIT - 1 : (uint32_t)(halves * l->count);
}

tuttiResult_t tt_topo_graph(const struct tt_topo *t, struct tt_graph **out)
{
	uint32_t n, nswitches, least = tt_topo_unit(t);
	int *v = vertices_of(t, &n, &nswitches);
	struct tt_graph *g = NULL;
	tuttiResult_t r;

	if (!v)
		return tt_fail(tuttiSystemError, "no memory for the graph of %d nodes", t->nnodes);
	r = tt_graph_new(n, nswitches, 2, &g);
	for (int i = 0; r == tuttiSuccess && i < t->nlinks; i++) {
		const struct tt_topo_link *l = &t->links[i];

		if (v[l->from] >= 0 && v[l->to] >= 0)
			tt_graph_arc(g, (uint32_t)v[l->from], (uint32_t)v[l->to], width(l, least));
	}
	free(v);
	if (r == tuttiSuccess)
		*out = g;
	return r;
}

static uint32_t hash_of(const struct tt_topo *t, int node)
{
	return (uint32_t)tt_hash64(t->nodes[node].id, strlen(t->nodes[node].id), 0);
}

/* Several between two GPUs, of different kinds, are one entry. */
static bool add_link(const struct tt_topo *t, const struct tt_topo_link *l, struct tt_gpu_links *out)
{
	uint32_t id = hash_of(t, l->to), k = 0;

	while (k < out->n && out->to[k].id != id)
		k++;
	if (k == sizeof(out->to) / sizeof(out->to[0]))
		return false;
	out->to[k].id = id;
	out->to[k].width += width(l, tt_topo_unit(t));
	out->n += k == out->n;
	return true;
}

void tt_topo_gpu_links(const struct tt_topo *t, const char *bus, struct tt_gpu_links *out)
{
	char id[32];
	int gpu = tt_bus_id(bus, id, sizeof(id)) ? tt_topo_find(t, id) : -1;
	bool direct = gpu >= 0;

	memset(out, 0, sizeof(*out));
	for (int i = 0; i < t->nlinks && direct; i++) {
		const struct tt_topo_link *l = &t->links[i];

		if (l->from == gpu && t->nodes[l->to].kind == TT_NODE_NVSWITCH)
			direct = false;
		else if (l->from == gpu && t->nodes[l->to].kind == TT_NODE_GPU)
			direct = add_link(t, l, out);
	}
	if (direct)
		out->id = hash_of(t, gpu);
	else
		memset(out, 0, sizeof(*out));
}
