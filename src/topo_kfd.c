/* xGMI links between AMD's GPUs, and the generation of these, as the kernel's driver lists them under /sys/class/kfd:
 * of this machine or of a recorded tree, without a library. SPDX-License-Identifier: Apache-2.0 */
#include "topo_sys.h"

#include <stdio.h>
#include <string.h>

#define NODES "/sys/class/kfd/kfd/topology/nodes"
enum { XGMI = 11, MOST_LINKS = 64 };

/* The driver weighs a link by the hops that it stands for: these are one, in a package or out of it. */
static bool is_direct(long weight)
{
	return weight == 13 || weight == 15 || weight == 41;
}

/* 90010 is 9.0.10: gfx90a. */
static void name_generation(struct tt_topo *t, int gpu, long version)
{
	if (version >= 10000)
		tt_topo_setf(t, gpu, "gcn", "gfx%ld%lx%lx", version / 10000, version / 100 % 100, version % 100);
}

/* The GPU of a node of the driver's, -1 for a CPU. Parts of a divided GPU are the whole. */
static int gpu_of(struct tt_sys *s, const char *name)
{
	long version = tt_sys_number(s, "gfx_target_version", NODES "/%s/properties", name);
	long place = tt_sys_number(s, "location_id", NODES "/%s/properties", name);
	long domain = tt_sys_number(s, "domain", NODES "/%s/properties", name);
	char bus[TT_BUS];
	int gpu;

	if (version <= 0 || place < 0)
		return -1;
	snprintf(bus, sizeof(bus), "%04lx:%02lx:%02lx.0", domain < 0 ? 0 : domain, place >> 8 & 0xff,
		 place >> 3 & 0x1f);
	gpu = tt_topo_find(s->t, bus);
	if (gpu < 0) {
		tt_topo_assume(s->t, "%s: a GPU that only its driver lists: its place is not known", bus);
		gpu = tt_topo_add(s->t, TT_NODE_GPU, bus, 0);
	}
	name_generation(s->t, gpu, version);
	return gpu;
}

static bool is_there(const struct tt_topo *t, int from, int to)
{
	for (int i = 0; i < t->nlinks; i++)
		if (t->links[i].kind == TT_LINK_XGMI && t->links[i].from == from && t->links[i].to == to)
			return true;
	return false;
}

/* Drivers that know how many links a connection has say what one carries, and all. */
static uint32_t count_of(const struct tt_sys *s, const char *name, int link)
{
	long one = tt_sys_number(s, "min_bandwidth", NODES "/%s/io_links/%d/properties", name, link);
	long all = tt_sys_number(s, "max_bandwidth", NODES "/%s/io_links/%d/properties", name, link);

	return one > 0 && all >= one && all / one <= MOST_LINKS ? (uint32_t)(all / one) : 1;
}

static void see_link(struct tt_sys *s, const char *name, int link, int gpu)
{
	long weight = tt_sys_number(s, "weight", NODES "/%s/io_links/%d/properties", name, link);
	long to = tt_sys_number(s, "node_to", NODES "/%s/io_links/%d/properties", name, link);
	uint32_t bandwidth;
	char far[32];
	int end;

	snprintf(far, sizeof(far), "%ld", to);
	end = is_direct(weight) ? gpu_of(s, far) : -1;
	if (end < 0 || end == gpu || is_there(s->t, gpu, end))
		return;
	bandwidth = tt_rate_xgmi(tt_topo_attr(s->t, gpu, "gcn"));
	if (bandwidth == TT_NO_LIMIT)
		tt_topo_assume(s->t, "%s: the speed of its links is not known: no limit", s->t->nodes[gpu].id);
	tt_topo_link(s->t, TT_LINK_XGMI, gpu, end, count_of(s, name, link), bandwidth);
}

static void see_node(struct tt_sys *s, const char *name)
{
	int gpu = gpu_of(s, name);
	long type;

	for (int i = 0; gpu >= 0; i++) {
		type = tt_sys_number(s, "type", NODES "/%s/io_links/%d/properties", name, i);
		if (type < 0)
			break;
		if (type == XGMI)
			see_link(s, name, i, gpu);
	}
}

static int count_amd(const struct tt_topo *t)
{
	int n = 0;

	for (int i = tt_topo_next(t, TT_NODE_GPU, -1); i >= 0; i = tt_topo_next(t, TT_NODE_GPU, i))
		n += tt_topo_number(t, i, "vendor", 0) == 0x1002;
	return n;
}

void tt_sys_xgmi(struct tt_sys *s)
{
	if (!tt_sys_each(s, NODES, see_node) && count_amd(s->t) > 1)
		tt_topo_assume(s->t, "xGMI links are not known: the driver's " NODES " is not here");
}
