/* What the files behind tutti-info --topo share: a machine, and what was found in it. */
#ifndef INFO_TOPO_H
#define INFO_TOPO_H

#include <stdio.h>

#include "info.h"
#include "topo.h"
#include "topo_search.h"

struct shown {
	struct tt_topo *t;
	struct tt_topo_pair *pair; /* one for each GPU */
	int npairs;
	int *gpu;                  /* nodes, by vertex of the graph */
	struct tt_graph *graph;    /* NULL: no two GPUs, no rings */
	struct tt_rings *rings;    /* whole ones */
	struct tt_trees *trees;    /* for allreduce */
	struct tt_frac most, bound;            /* rings of any rate; the bound of allgather, in rings */
	struct tt_frac tree_bound, root_bound; /* of allreduce by trees, of broadcast from the first */
	unsigned links_used;
};

/* ---- several such hosts (info_hosts.c) ---- */
struct hosts;
/* NULL where nothing can be said of them; why not was said on stderr. */
struct hosts *hosts_new(const struct shown *s, int n);
void hosts_free(struct hosts *h);
void hosts_show(const struct hosts *h, const struct question *q, int nq);
void hosts_json(const struct hosts *h, const struct question *q, int nq); /* members of an object, a comma first */

#endif
