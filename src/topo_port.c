/* Ports of NICs: RDMA devices, else network interfaces, with their speeds, from /sys/class.
 * SPDX-License-Identifier: Apache-2.0 */
#include "topo_sys.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NET "/sys/class/net"
#define IB "/sys/class/infiniband"
enum { WORD = 256 };

/* The last bus id in the path of a device: what a virtio, a netdev or an RDMA device sits on. -1: no NIC of ours. */
static int nic_of(struct tt_sys *s, const char *class, const char *name)
{
	char text[4096], id[64], *save = NULL;
	int node = -1;

	for (int i = 0; i < 2 && node < 0; i++) {
		tt_sys_link(s, text, sizeof(text), i ? "%s/%s/device" : "%s/%s", class, name);
		for (char *p = strtok_r(text, "/", &save); p; p = strtok_r(NULL, "/", &save))
			if (tt_bus_id(p, id, sizeof(id)))
				node = tt_topo_find(s->t, id);
	}
	return node >= 0 && s->t->nodes[node].kind == TT_NODE_NIC ? node : -1;
}

static int add_port(struct tt_sys *s, int nic, const char *name, const char *port)
{
	char id[600];
	int node;

	snprintf(id, sizeof(id), "%.250s/%.200s%s%.20s", s->t->nodes[nic].id, name, *port ? ":" : "", port);
	node = tt_topo_add(s->t, TT_NODE_PORT, id, nic);
	tt_topo_set(s->t, node, "name", name);
	tt_topo_set(s->t, node, "port", *port ? port : "0");
	return node;
}

static void set_speed(struct tt_sys *s, int node, const char *name, double mbits)
{
	char text[64];

	if (!(mbits > 0)) {
		tt_topo_assume(s->t, "%s: its speed is not known: no limit", name);
		return;
	}
	snprintf(text, sizeof(text), "%.0f", mbits);
	tt_topo_set(s->t, node, "speed", text);
	s->t->nodes[node].bandwidth = tt_rate_net(s->t, name, text);
}

/* ---- RDMA ---- */

/* "248a:0703:00ab:cdef" as 0x248a070300abcdef. */
static void set_guid(struct tt_sys *s, int node, const char *dev)
{
	char text[WORD], out[WORD] = "0x", *o = out + 2;

	tt_sys_line(s, text, sizeof(text), IB "/%s/node_guid", dev);
	for (const char *p = text; *p && o < out + 20; p++)
		if (*p != ':')
			*o++ = *p;
	*o = 0;
	tt_topo_set(s->t, node, "guid", o > out + 2 ? out : NULL);
}

static void see_rdma(struct tt_sys *s, const char *dev)
{
	int nic = nic_of(s, IB, dev);
	char path[600], port[16], text[WORD];

	for (int i = 1; nic >= 0 && i < 256; i++) {
		int node;

		snprintf(path, sizeof(path), IB "/%.250s/ports/%d", dev, i);
		if (!tt_sys_there(s, path))
			break;
		snprintf(port, sizeof(port), "%d", i);
		node = add_port(s, nic, dev, port);
		set_guid(s, node, dev);
		if (atoi(tt_sys_line(s, text, sizeof(text), "%s/state", path)) != 4) {
			tt_topo_assume(s->t, "%s port %d is not active: its speed is not known", dev, i);
			tt_topo_set(s->t, node, "state", "down");
			continue;
		}
		set_speed(s, node, dev, 1000 * strtod(tt_sys_line(s, text, sizeof(text), "%s/rate", path), NULL));
	}
}

/* ---- interfaces ---- */

static bool has_ports(const struct tt_topo *t, int nic)
{
	for (int i = 0; i < t->nnodes; i++)
		if (t->nodes[i].parent == nic)
			return true;
	return false;
}

static void set_net_speed(struct tt_sys *s, int node, const char *name)
{
	char text[WORD];

	if (!strcmp(tt_sys_line(s, text, sizeof(text), NET "/%s/operstate", name), "down"))
		tt_topo_set(s->t, node, "state", "down");
	set_speed(s, node, name, strtod(tt_sys_line(s, text, sizeof(text), NET "/%s/speed", name), NULL));
}

/* One port of a NIC that is an RDMA device too is not two. */
static void see_net(struct tt_sys *s, const char *name)
{
	int nic = nic_of(s, NET, name);

	if (nic < 0)
		return;
	for (int i = nic; i < s->t->nnodes; i++)
		if (s->t->nodes[i].parent == nic && tt_topo_attr(s->t, i, "guid")) {
			tt_topo_set(s->t, i, "netdev", name);
			return;
		}
	set_net_speed(s, add_port(s, nic, name, ""), name);
}

/* A container's or a VM's only way out may be no PCI device. 1: Ethernet, 32: InfiniBand. */
static void see_virtual(struct tt_sys *s, const char *name)
{
	char text[WORD], id[300];
	int type = atoi(tt_sys_line(s, text, sizeof(text), NET "/%s/type", name)), nic;

	if ((type != 1 && type != 32) || strcmp(tt_sys_line(s, text, sizeof(text), NET "/%s/operstate", name), "up"))
		return;
	snprintf(id, sizeof(id), "virt:%.250s", name);
	nic = tt_topo_add(s->t, TT_NODE_NIC, id, 0);
	set_net_speed(s, add_port(s, nic, name, ""), name);
}

static void number_ports(struct tt_topo *t)
{
	int n = 0;

	for (int i = tt_topo_next(t, TT_NODE_PORT, -1); i >= 0; i = tt_topo_next(t, TT_NODE_PORT, i))
		tt_topo_setf(t, i, "dev", "%d", n++);
}

void tt_sys_ports(struct tt_sys *s)
{
	bool any = false;

	tt_sys_each(s, IB, see_rdma);
	tt_sys_each(s, NET, see_net);
	for (int i = tt_topo_next(s->t, TT_NODE_NIC, -1); i >= 0; i = tt_topo_next(s->t, TT_NODE_NIC, i))
		any |= has_ports(s->t, i);
	if (!any)
		tt_sys_each(s, NET, see_virtual);
	number_ports(s->t);
}
