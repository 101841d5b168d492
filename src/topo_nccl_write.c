/* A graph as XML that NCCL reads. What is not known is left out, as in the short forms that clouds ship: NCCL then
 * fills it in on the machine. SPDX-License-Identifier: Apache-2.0 */
#include "topo.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "xml.h"

/* Which attributes of a GPU's node are <gpu>'s; the others are <pci>'s. NCCL's reader keeps 16 of an element. */
static const char *const gpu_attrs[] = { "dev", "sm", "gcn", "arch", "rank", "gdr" };
static const char *const pci_attrs[] = { "class", "vendor", "device", "subsystem_vendor", "subsystem_device",
					 "link_speed", "link_width" };
static const char *const cpu_attrs[] = { "affinity", "arch", "vendor", "familyid", "modelid" };
static const char *const net_attrs[] = { "name", "dev", "speed", "port", "latency", "guid", "maxconn", "gdr", "coll" };
#define N(array) (sizeof(array) / sizeof((array)[0]))

struct writer {
	const struct tt_topo *t;
	FILE *f;
};

static void put_attr(FILE *f, const char *name, const char *value)
{
	fprintf(f, " %s=\"", name);
	tt_xml_put(f, value);
	putc('"', f);
}

static void put_attrs(const struct writer *w, int node, const char *const *names, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		const char *value = tt_topo_attr(w->t, node, names[i]);

		if (value)
			put_attr(w->f, names[i], value);
	}
}

static bool any_attr(const struct writer *w, int node, const char *const *names, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (tt_topo_attr(w->t, node, names[i]))
			return true;
	return false;
}

static const char *class_of(const struct tt_topo *t, int node)
{
	const char *class = tt_topo_attr(t, node, "class");

	if (t->nodes[node].kind != TT_NODE_GPU)
		return t->nodes[node].kind == TT_NODE_NVSWITCH ? "0x068000" : "0x068001";
	return class ? class : "0x030200";
}

static void put_link(const struct writer *w, const struct tt_topo_link *l, int depth)
{
	const struct tt_topo_node *to = &w->t->nodes[l->to];
	const char *bus = to->kind == TT_NODE_GPU ? to->id : tt_topo_attr(w->t, l->to, "busid");

	fprintf(w->f, "%*s<%s", depth, "", tt_link_word(l->kind));
	if (l->kind != TT_LINK_C2C)
		put_attr(w->f, "target", bus ? bus : "fffffff:ffff:ff");
	else if (l->bandwidth != TT_NO_LIMIT)
		fprintf(w->f, " bw=\"%u\"", l->bandwidth);
	fprintf(w->f, " count=\"%u\"", l->count);
	if (l->kind != TT_LINK_C2C)
		put_attr(w->f, "tclass", class_of(w->t, l->to));
	fputs("/>\n", w->f);
}

static void put_links(const struct writer *w, int gpu, int depth)
{
	for (int i = 0; i < w->t->nlinks; i++)
		if (w->t->links[i].from == gpu)
			put_link(w, &w->t->links[i], depth);
}

static bool has_links(const struct tt_topo *t, int node)
{
	for (int i = 0; i < t->nlinks; i++)
		if (t->links[i].from == node)
			return true;
	return false;
}

static void put_gpu(const struct writer *w, int node, int depth)
{
	bool links = has_links(w->t, node);

	if (!links && !any_attr(w, node, gpu_attrs, N(gpu_attrs)))
		return;
	fprintf(w->f, "%*s<gpu", depth, "");
	put_attrs(w, node, gpu_attrs, N(gpu_attrs));
	fputs(links ? ">\n" : "/>\n", w->f);
	put_links(w, node, depth + 2);
	if (links)
		fprintf(w->f, "%*s</gpu>\n", depth, "");
}

/* NULL: it was only assumed, and is not written. */
static const char *port_name(const struct tt_topo *t, int port)
{
	const char *name = tt_topo_attr(t, port, "name"), *id = strrchr(t->nodes[port].id, '/');

	return name || !id || (!t->nodes[port].nattrs && !strcmp(id, "/port")) ? name : id + 1;
}

static void put_net(const struct writer *w, int port, int depth)
{
	uint32_t mbytes = w->t->nodes[port].bandwidth;

	fprintf(w->f, "%*s<net", depth, "");
	if (!tt_topo_attr(w->t, port, "name"))
		put_attr(w->f, "name", port_name(w->t, port));
	put_attrs(w, port, net_attrs, N(net_attrs));
	if (!tt_topo_attr(w->t, port, "speed") && mbytes != TT_NO_LIMIT)
		fprintf(w->f, " speed=\"%llu\"", 8ull * mbytes);
	fputs("/>\n", w->f);
}

static void put_nets(const struct writer *w, int nic, int depth)
{
	bool any = false;

	for (int i = nic + 1; i < w->t->nnodes && w->t->nodes[i].parent == nic; i++) {
		if (!port_name(w->t, i))
			continue;
		if (!any)
			fprintf(w->f, "%*s<nic>\n", depth, "");
		any = true;
		put_net(w, i, depth + 2);
	}
	if (any)
		fprintf(w->f, "%*s</nic>\n", depth, "");
}

static bool is_virtual(const struct tt_topo_node *n)
{
	return n->kind == TT_NODE_NIC && !strncmp(n->id, "virt:", 5);
}

static const char *pci_class(enum tt_node_kind k)
{
	return k == TT_NODE_GPU ? "0x030200" : k == TT_NODE_NIC ? "0x020000" : "0x060400";
}

/* A speed that the source gave as such, as a generation and lanes that make as much. */
static bool put_rate(const struct writer *w, int i, const char *class)
{
	static const char *const gens[] = { "2.5 GT/s PCIe", "5.0 GT/s PCIe", "8.0 GT/s PCIe", "16.0 GT/s PCIe",
					    "32.0 GT/s PCIe", "64.0 GT/s PCIe" };

	for (int lanes = 16; lanes; lanes /= 2)
		for (size_t k = 0; k < N(gens); k++) {
			uint32_t rate = tt_rate_pci(gens[k], lanes), mbytes = w->t->nodes[i].bandwidth;

			if (rate + 1 < mbytes || mbytes + 1 < rate)
				continue;
			if (!class)
				put_attr(w->f, "class", pci_class(w->t->nodes[i].kind));
			put_attr(w->f, "link_speed", gens[k]);
			fprintf(w->f, " link_width=\"%d\"", lanes);
			return true;
		}
	return false;
}

/* A device that the file knows has a link, if of unknown speed; one that it only names is for NCCL to look at. */
static void put_pci(const struct writer *w, int i, int depth)
{
	const char *class = tt_topo_attr(w->t, i, "class"), *speed = tt_topo_attr(w->t, i, "link_speed");
	const char *width = tt_topo_attr(w->t, i, "link_width");

	fprintf(w->f, "%*s<pci", depth, "");
	put_attr(w->f, "busid", w->t->nodes[i].id);
	put_attrs(w, i, pci_attrs, N(pci_attrs));
	if (!speed && !width && put_rate(w, i, class))
		speed = width = "";
	if (class && !speed)
		put_attr(w->f, "link_speed", "");
	if (class && !width)
		put_attr(w->f, "link_width", "0");
	fputs(">\n", w->f);
}

/* The same on all, or they would be hosts of their own: a file may have had some of them, this machine the others. */
static void put_host(const struct writer *w)
{
	for (int i = tt_topo_next(w->t, TT_NODE_NUMA, -1); i >= 0; i = tt_topo_next(w->t, TT_NODE_NUMA, i)) {
		const char *hash = tt_topo_attr(w->t, i, "host_hash");

		if (!hash)
			continue;
		put_attr(w->f, "host_hash", hash);
		return;
	}
}

/* Opens the element of a node, with all that is no node of the tree in it. */
static void open_node(const struct writer *w, int i, int depth)
{
	const struct tt_topo_node *n = &w->t->nodes[i];

	if (n->kind == TT_NODE_NUMA) {
		fprintf(w->f, "%*s<cpu", depth, "");
		put_attr(w->f, "numaid", n->id + (strncmp(n->id, "numa", 4) ? 0 : 4));
		put_host(w);
		put_attrs(w, i, cpu_attrs, N(cpu_attrs));
		fputs(">\n", w->f);
	} else if (is_virtual(n)) {
		put_nets(w, i, depth);
	} else {
		put_pci(w, i, depth);
		if (n->kind == TT_NODE_GPU)
			put_gpu(w, i, depth + 2);
		if (n->kind == TT_NODE_NIC)
			put_nets(w, i, depth + 2);
	}
}

static void close_node(const struct writer *w, int i, int depth)
{
	const struct tt_topo_node *n = &w->t->nodes[i];

	if (!is_virtual(n))
		fprintf(w->f, "%*s</%s>\n", depth, "", n->kind == TT_NODE_NUMA ? "cpu" : "pci");
}

static bool is_written(enum tt_node_kind k)
{
	return k == TT_NODE_NUMA || k == TT_NODE_PCI || k == TT_NODE_GPU || k == TT_NODE_NIC;
}

/* Nodes come parents first: an element is closed when one comes that is not below it. */
static void put_tree(const struct writer *w)
{
	int open = -1, depth = 2;

	for (int i = 1; i < w->t->nnodes; i++) {
		if (!is_written(w->t->nodes[i].kind))
			continue;
		while (open >= 0 && w->t->nodes[i].parent != open) {
			depth -= 2;
			close_node(w, open, depth);
			open = w->t->nodes[open].parent > 0 ? w->t->nodes[open].parent : -1;
		}
		open_node(w, i, depth);
		open = i;
		depth += 2;
	}
	for (; open > 0; open = w->t->nodes[open].parent)
		close_node(w, open, depth -= 2);
}

static bool has_xgmi(const struct tt_topo *t)
{
	for (int i = 0; i < t->nlinks; i++)
		if (t->links[i].kind == TT_LINK_XGMI)
			return true;
	return false;
}

tuttiResult_t tt_topo_to_nccl(const struct tt_topo *t, char **text)
{
	size_t size;
	struct writer w = { t, open_memstream(text, &size) };

	if (!w.f)
		return tt_fail(tuttiSystemError, "no memory for the XML of a topology");
	fprintf(w.f, "<system version=\"%d\">\n", has_xgmi(t) ? 2 : 1);
	put_tree(&w);
	fputs("</system>\n", w.f);
	if (!fclose(w.f))
		return tuttiSuccess;
	free(*text);
	return tt_fail(tuttiSystemError, "no memory for the XML of a topology");
}
