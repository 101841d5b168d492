/* GPUs and NICs in /sys/bus/pci, the switches above them, their sockets and link speeds.
 * SPDX-License-Identifier: Apache-2.0 */
#include "topo_sys.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PCI "/sys/bus/pci/devices"
enum { LINE = 32768, WORD = TT_BUS };

/* ---- one device's own files ---- */

static void copy_file(struct tt_sys *s, int node, const char *bus, const char *name)
{
	char text[WORD];

	if (!tt_topo_attr(s->t, node, name))
		tt_topo_set(s->t, node, name, tt_sys_line(s, text, sizeof(text), PCI "/%s/%s", bus, name));
}

/* The slower of the device and the port above it, as each may be more than the other can. Not the current speed: idle
 * devices are slow to save power. */
static void link_of(struct tt_sys *s, int node, const char *bus, const char *port)
{
	char speed[2][WORD], width[2][WORD];
	uint32_t rate[2] = { TT_NO_LIMIT, TT_NO_LIMIT };

	for (int i = 0; i < 2; i++) {
		const char *dev = i ? port : bus;

		if (!*dev)
			continue;
		tt_sys_line(s, speed[i], WORD, PCI "/%s/max_link_speed", dev);
		tt_sys_line(s, width[i], WORD, PCI "/%s/max_link_width", dev);
		rate[i] = tt_rate_pci(speed[i], atol(width[i]));
	}
	if (rate[1] < rate[0]) {
		memcpy(speed[0], speed[1], WORD);
		memcpy(width[0], width[1], WORD);
		rate[0] = rate[1];
	}
	if (rate[0] == TT_NO_LIMIT)
		return;
	s->t->nodes[node].bandwidth = rate[0];
	tt_topo_set(s->t, node, "link_speed", speed[0]);
	tt_topo_set(s->t, node, "link_width", width[0]);
}

/* The bridges above a device, nearest last, as its path under /sys/devices has them. */
struct chain {
	char bridge[WORD]; /* pci0000:00, the host bridge; "": not said */
	char (*bus)[WORD];
	int n;
};

static bool read_chain(struct tt_sys *s, const char *bus, struct chain *c)
{
	char text[4096], *save = NULL;

	*c = (struct chain){ .n = 0 };
	tt_sys_link(s, text, sizeof(text), PCI "/%s", bus);
	for (char *p = strtok_r(text, "/", &save); p; p = strtok_r(NULL, "/", &save)) {
		char id[WORD], (*list)[WORD];

		if (!strncmp(p, "pci", 3) && strchr(p, ':')) {
			snprintf(c->bridge, WORD, "%.60s", p);
			c->n = 0;
		}
		if (!tt_bus_id(p, id, sizeof(id)) || !strcmp(id, bus))
			continue;
		list = realloc(c->bus, (size_t)(c->n + 1) * sizeof(*list));
		if (!list) {
			tt_topo_fail(s->t, tuttiSystemError, "no memory for the bridges above %s", bus);
			return false;
		}
		c->bus = list;
		memcpy(list[c->n++], id, WORD);
	}
	return true;
}

void tt_sys_device(struct tt_sys *s, int node)
{
	static const char *const names[] = { "class", "vendor", "device", "subsystem_vendor", "subsystem_device" };
	char bus[WORD];
	struct chain c;

	snprintf(bus, sizeof(bus), "%.60s", s->t->nodes[node].id);
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		copy_file(s, node, bus, names[i]);
	if (read_chain(s, bus, &c))
		link_of(s, node, bus, c.n ? c.bus[c.n - 1] : "");
	free(c.bus);
	if (s->t->nodes[node].bandwidth == TT_NO_LIMIT)
		tt_topo_assume(s->t, "%s: the speed of its PCI link is not known: no limit", bus);
}

/* ---- where it sits ---- */

/* The NUMA node with most of these CPUs; -1: all have as many. */
int tt_sys_nearest(struct tt_sys *s, const struct tt_cpus *cpus)
{
	size_t best = 0, second = 0;
	int node = -1;

	for (int i = 0; i < s->nnuma; i++) {
		size_t n = tt_cpus_common(cpus, &s->numa[i].cpus);

		if (n > best) {
			second = best;
			best = n;
			node = s->numa[i].node;
		} else if (n > second) {
			second = n;
		}
	}
	return best > second ? node : -1;
}

/* local_cpus before numa_node, as the kernel knows the first even where firmware left the second out. */
static int numa_of(struct tt_sys *s, const char *bus)
{
	char mask[LINE], word[WORD], id[WORD];
	struct tt_cpus cpus = { 0 };
	int by_cpus = -1, by_node;

	if (*tt_sys_line(s, mask, sizeof(mask), PCI "/%s/local_cpus", bus) && tt_cpus_mask(mask, &cpus))
		by_cpus = tt_sys_nearest(s, &cpus);
	tt_cpus_free(&cpus);
	snprintf(id, sizeof(id), "numa%.50s", tt_sys_line(s, word, sizeof(word), PCI "/%s/numa_node", bus));
	by_node = tt_topo_find(s->t, id);
	if (by_cpus > 0 && by_node > 0 && by_cpus != by_node)
		tt_topo_assume(s->t, "%s: numa_node says %s, local_cpus %s: taken as the second", bus, id,
			       s->t->nodes[by_cpus].id);
	return by_cpus > 0 ? by_cpus : by_node > 0 ? by_node : s->nnuma == 1 ? s->numa[0].node : 0;
}

static int add_below(struct tt_sys *s, enum tt_node_kind kind, const char *bus, int numa, int parent,
		     const char *bridge)
{
	int node = tt_topo_find(s->t, bus);

	if (node >= 0)
		return node;
	node = tt_topo_add(s->t, kind, bus, parent);
	if (parent == numa)
		tt_topo_set(s->t, node, "bridge", bridge);
	return node;
}

/* The first bridge is the root port, which is no switch. The others are pairs of an upstream and a downstream port,
 * one switch each, called by the first; one left over, at the top, is a bridge by itself. */
int tt_sys_hang(struct tt_sys *s, enum tt_node_kind kind, const char *bus, int numa, const char *bridge,
		char (*above)[TT_BUS], int n)
{
	int node = numa;

	if (n > 1 && n % 2 == 0)
		node = add_below(s, TT_NODE_PCI, above[1], numa, node, bridge);
	for (int i = n % 2 ? 1 : 2; i < n; i += 2)
		node = add_below(s, TT_NODE_PCI, above[i], numa, node, bridge);
	return add_below(s, kind, bus, numa, node, bridge);
}

static void add_device(struct tt_sys *s, const char *bus, enum tt_node_kind kind)
{
	struct chain c;

	if (read_chain(s, bus, &c))
		tt_sys_hang(s, kind, bus, numa_of(s, bus), c.bridge, c.bus, c.n);
	free(c.bus);
}

/* A virtual function that has no interface here is for a guest: pairing GPUs with it would lead nowhere. */
bool tt_sys_idle_vf(struct tt_sys *s, const char *bus)
{
	char text[512], path[128];
	bool idle = *tt_sys_link(s, text, sizeof(text), PCI "/%s/physfn", bus);

	for (int i = 0; i < 2 && idle; i++) {
		snprintf(path, sizeof(path), PCI "/%.60s/%s", bus, i ? "infiniband" : "net");
		idle = !tt_sys_there(s, path);
	}
	if (idle)
		tt_topo_assume(s->t, "%s is a virtual function without interface: left out", bus);
	return idle;
}

static void see_device(struct tt_sys *s, const char *name)
{
	char bus[WORD], class[WORD], vendor[WORD], device[WORD];
	int kind;

	if (!tt_bus_id(name, bus, sizeof(bus)))
		return;
	kind = tt_device_kind(strtoul(tt_sys_line(s, class, WORD, PCI "/%s/class", name), NULL, 16),
			      strtoul(tt_sys_line(s, vendor, WORD, PCI "/%s/vendor", name), NULL, 16),
			      strtoul(tt_sys_line(s, device, WORD, PCI "/%s/device", name), NULL, 16));
	if ((kind != TT_NODE_GPU && kind != TT_NODE_NIC) || (kind == TT_NODE_NIC && tt_sys_idle_vf(s, bus)))
		return;
	add_device(s, bus, (enum tt_node_kind)kind);
	if (kind == TT_NODE_GPU && !*vendor)
		tt_topo_assume(s->t, "%s: its vendor is not known: taken as a GPU by its class", bus);
}

void tt_sys_pci(struct tt_sys *s)
{
	if (!tt_sys_each(s, PCI, see_device))
		tt_topo_assume(s->t, "PCI devices are not listed: GPUs and NICs are not known");
	for (int i = 0; i < s->t->nnodes && s->t->failed == tuttiSuccess; i++)
		if (s->t->nodes[i].kind == TT_NODE_PCI || s->t->nodes[i].kind == TT_NODE_GPU ||
		    s->t->nodes[i].kind == TT_NODE_NIC)
			tt_sys_device(s, i);
}
