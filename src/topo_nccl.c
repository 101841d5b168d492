/* NCCL's topology XML, RCCL's of version 2 with xGMI links, and the short forms that clouds ship, into a graph.
 * SPDX-License-Identifier: Apache-2.0 */
#include "topo.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "xml.h"

enum { LEFT_OUT = -1 }; /* the tag of an element of which no node was made */

struct reader {
	struct tt_topo *t;
	int no_numa; /* cpu elements without a number so far */
	int host;
};

static void copy_attrs(struct reader *r, int node, const struct tt_xml *e, const char *but)
{
	for (char **a = e->attrs; *a; a += 2)
		if (strcmp(a[0], but) && (strcmp(a[0], "link_width") || strcmp(a[1], "0"))) /* 0: not known */
			tt_topo_set(r->t, node, a[0], a[1]);
}

static unsigned long hex_attr(const struct tt_xml *e, const char *name)
{
	const char *text = tt_xml_attr(e, name);

	return text ? strtoul(text, NULL, 16) : 0;
}

/* ---- elements ---- */

/* One set of CPUs has one text, however many empty groups a file gives it. */
static void settle_mask(struct reader *r, int node)
{
	const char *mask = tt_topo_attr(r->t, node, "affinity");
	struct tt_cpus cpus = { 0 };
	char *text;

	if (!mask || !tt_cpus_mask(mask, &cpus))
		return;
	text = tt_cpus_count(&cpus) ? tt_cpus_hex(&cpus) : NULL;
	tt_topo_set(r->t, node, "affinity", text);
	free(text);
	tt_cpus_free(&cpus);
}

static int read_cpu(struct reader *r, const struct tt_xml *e)
{
	const char *number = tt_xml_attr(e, "numaid");
	char id[64];
	int node;

	if (e->tag != r->host)
		return LEFT_OUT;
	if (!number) {
		snprintf(id, sizeof(id), "numa%d", r->no_numa++);
		tt_topo_assume(r->t, "line %d: a cpu without numaid: taken as %s", e->line, id);
	} else {
		snprintf(id, sizeof(id), "numa%.50s", number);
	}
	node = tt_topo_add(r->t, TT_NODE_NUMA, id, 0);
	copy_attrs(r, node, e, "numaid");
	settle_mask(r, node);
	return node;
}

static const char *class_of(const struct tt_xml *e)
{
	const char *class = tt_xml_attr(e, "class");

	return class && *class ? class : NULL;
}

/* What hangs below says more than the class, which short forms leave out. */
static int kind_of(const struct tt_xml *e)
{
	if (tt_xml_child(e, "gpu"))
		return TT_NODE_GPU;
	if (tt_xml_child(e, "nic"))
		return TT_NODE_NIC;
	if (tt_xml_child(e, "pci") || !class_of(e))
		return TT_NODE_PCI;
	return tt_device_kind(hex_attr(e, "class"), hex_attr(e, "vendor"), hex_attr(e, "device"));
}

/* The class that goes with what was decided, so that what is written says the same again. */
static void settle_class(struct reader *r, int node, const struct tt_xml *e)
{
	enum tt_node_kind kind = r->t->nodes[node].kind;
	const char *class = class_of(e);

	if (kind == TT_NODE_PCI && !class && !e->child)
		tt_topo_assume(r->t, "%s: the file does not say what device it is: taken as a switch",
			       r->t->nodes[node].id);
	else if (!class ||
		 tt_device_kind(hex_attr(e, "class"), hex_attr(e, "vendor"), hex_attr(e, "device")) != (int)kind)
		tt_topo_set(r->t, node, "class",
			    kind == TT_NODE_GPU ? "0x030200" : kind == TT_NODE_NIC ? "0x020000" : "0x060400");
	if (class && strcmp(class, tt_topo_attr(r->t, node, "class") ? tt_topo_attr(r->t, node, "class") : ""))
		tt_topo_assume(r->t, "%s: class %.20s, and what is below it says %s: taken as that",
			       r->t->nodes[node].id, class, tt_node_word(kind));
}

/* Some files have an element for each device below a switch: one switch. */
static int again(struct reader *r, int node, int kind, const struct tt_xml *e)
{
	bool same = kind == TT_NODE_PCI && r->t->nodes[node].kind == TT_NODE_PCI;

	tt_topo_assume(r->t, "%s is listed more than once: %s", r->t->nodes[node].id,
		       same ? "taken as one switch" : "the first is taken");
	return same ? node : LEFT_OUT;
}

static int read_pci(struct reader *r, const struct tt_xml *e)
{
	const char *bus = tt_xml_attr(e, "busid");
	int kind = kind_of(e), node;
	char id[64];

	if (!tt_bus_id(bus, id, sizeof(id))) {
		tt_topo_assume(r->t, "line %d: %.60s is no bus id: the device is left out", e->line,
			       bus ? bus : "nothing");
		return LEFT_OUT;
	}
	if (kind < 0 || kind == TT_NODE_NVSWITCH)
		return LEFT_OUT;
	node = tt_topo_find(r->t, id);
	if (node >= 0)
		return again(r, node, kind, e);
	node = tt_topo_add(r->t, (enum tt_node_kind)kind, id, e->parent->tag);
	copy_attrs(r, node, e, "busid");
	settle_class(r, node, e);
	r->t->nodes[node].bandwidth = tt_rate_pci(tt_xml_attr(e, "link_speed"),
						  tt_topo_number(r->t, node, "link_width", 0));
	if (r->t->nodes[node].bandwidth == TT_NO_LIMIT)
		tt_topo_assume(r->t, "%s: the speed of its PCI link is not known: no limit", id);
	return node;
}

static int read_gpu(struct reader *r, const struct tt_xml *e)
{
	int node = e->parent->tag;

	copy_attrs(r, node, e, "");
	return node;
}

/* A network device that is no PCI device (a bridge, a VM's) hangs on its CPU and is a NIC of its own. */
static int nic_of(struct reader *r, const struct tt_xml *net, const char *name)
{
	int at = net->parent->tag;
	char id[300];

	if (r->t->nodes[at].kind == TT_NODE_NIC)
		return at;
	snprintf(id, sizeof(id), "virt:%.250s", name);
	return tt_topo_add(r->t, TT_NODE_NIC, id, at);
}

static int read_net(struct reader *r, const struct tt_xml *e)
{
	const char *name = tt_xml_attr(e, "name"), *port = tt_xml_attr(e, "port"), *dev = tt_xml_attr(e, "dev");
	char id[600], unnamed[80];
	int nic, node;

	if (!name || !*name) {
		snprintf(unnamed, sizeof(unnamed), "net%.40s", dev ? dev : "");
		tt_topo_assume(r->t, "line %d: a net without name: taken as %s", e->line, unnamed);
		name = unnamed;
	}
	nic = nic_of(r, e, name);
	if (port && !strcmp(port, "0"))
		port = NULL;
	snprintf(id, sizeof(id), "%.300s/%.200s%s%.40s", r->t->nodes[nic].id, name, port ? ":" : "", port ? port : "");
	node = tt_topo_add(r->t, TT_NODE_PORT, id, nic);
	copy_attrs(r, node, e, "");
	r->t->nodes[node].bandwidth = tt_rate_net(r->t, name, tt_xml_attr(e, "speed"));
	return node;
}

static bool parent_is(const struct tt_xml *e, const char *a, const char *b)
{
	return e->parent && e->parent->tag != LEFT_OUT && (!strcmp(e->parent->name, a) || !strcmp(e->parent->name, b));
}

static int read_element(struct reader *r, const struct tt_xml *e)
{
	if (!strcmp(e->name, "cpu") && parent_is(e, "system", "system"))
		return read_cpu(r, e);
	if (!strcmp(e->name, "pci") && (parent_is(e, "cpu", "pci") || parent_is(e, "system", "system"))) {
		/* Below a GPU nothing is a device of its own: its audio, its USB. */
		if (r->t->nodes[e->parent->tag].kind == TT_NODE_NIC || r->t->nodes[e->parent->tag].kind == TT_NODE_GPU)
			return LEFT_OUT;
		return read_pci(r, e);
	}
	if (!strcmp(e->name, "gpu") && parent_is(e, "pci", "pci"))
		return read_gpu(r, e);
	if (!strcmp(e->name, "nic") && parent_is(e, "pci", "cpu"))
		return r->t->nodes[e->parent->tag].kind == TT_NODE_GPU ? LEFT_OUT : e->parent->tag;
	if (!strcmp(e->name, "net") && parent_is(e, "nic", "nic"))
		return read_net(r, e);
	if (tt_link_kind_of(e->name) >= 0 && parent_is(e, "gpu", "gpu"))
		return e->parent->tag;
	if (e->parent && e->parent->tag != LEFT_OUT)
		tt_topo_assume(r->t, "line %d: an element %.60s in a %.60s means nothing here: left out", e->line,
			       e->name, e->parent->name);
	return LEFT_OUT;
}

/* ---- links, once all nodes are there ---- */

/* The other end: a GPU, an NVSwitch or (POWER) a CPU; by the class of the target, or by what is listed. */
static int other_end(struct reader *r, const struct tt_xml *e, bool *both_ways)
{
	const char *target = tt_xml_attr(e, "target"), *word = tt_xml_attr(e, "tclass");
	unsigned long tclass = hex_attr(e, "tclass");
	char bus[64];
	int there;

	*both_ways = false;
	if (!tt_bus_id(target, bus, sizeof(bus)))
		snprintf(bus, sizeof(bus), "%.60s", target ? target : "");
	there = tt_topo_find(r->t, bus);
	if (there >= 0 && r->t->nodes[there].kind == TT_NODE_GPU)
		return there;
	*both_ways = true;
	if (word && tclass >> 8 == 0x0680 && (tclass & 0xff) == 0)
		return tt_topo_fabric(r->t, bus);
	if (word && tclass >> 16 == 0x06)
		return tt_topo_above(r->t, e->tag, TT_NODE_NUMA);
	tt_topo_assume(r->t, "%s: a link to %.60s, which is not listed: left out", r->t->nodes[e->tag].id,
		       *bus ? bus : "nothing");
	return -1;
}

static uint32_t count_of(struct reader *r, const struct tt_xml *e)
{
	const char *text = tt_xml_attr(e, "count");
	long n = text ? strtol(text, NULL, 10) : 1;

	if (!text)
		tt_topo_assume(r->t, "%s: a link without count: taken as one", r->t->nodes[e->tag].id);
	else if (n <= 0 || n > 1 << 20)
		tt_topo_assume(r->t, "%s: %.40s links to %.60s cannot be: left out", r->t->nodes[e->tag].id, text,
			       tt_xml_attr(e, "target") ? tt_xml_attr(e, "target") : "nothing");
	return n <= 0 || n > 1 << 20 ? 0 : (uint32_t)n;
}

/* Of one link. C2C, between a GPU and its CPU, is the only one that says it itself. */
static uint32_t bandwidth_of(struct reader *r, const struct tt_xml *e, enum tt_link_kind kind)
{
	const char *bw = tt_xml_attr(e, "bw");
	long mbytes = bw ? strtol(bw, NULL, 10) : 0;

	if (kind == TT_LINK_C2C)
		return mbytes > 0 && mbytes < TT_NO_LIMIT ? (uint32_t)mbytes : TT_NO_LIMIT;
	return kind == TT_LINK_XGMI ? tt_rate_xgmi(tt_topo_attr(r->t, e->tag, "gcn")) :
				      tt_rate_nvlink(tt_topo_number(r->t, e->tag, "sm", 0));
}

static void read_link(struct reader *r, const struct tt_xml *e, enum tt_link_kind kind)
{
	bool both_ways = kind == TT_LINK_C2C;
	uint32_t n = count_of(r, e), bandwidth = bandwidth_of(r, e, kind);
	int to = !n ? -1 : both_ways ? tt_topo_above(r->t, e->tag, TT_NODE_NUMA) : other_end(r, e, &both_ways);

	if (to < 0)
		return;
	if (bandwidth == TT_NO_LIMIT)
		tt_topo_assume(r->t, "%s: the speed of its links is not known: no limit", r->t->nodes[e->tag].id);
	tt_topo_link(r->t, kind, e->tag, to, n, bandwidth);
	if (both_ways)
		tt_topo_link(r->t, kind, to, e->tag, n, bandwidth);
}

/* ---- the file ---- */

static void check_version(struct tt_topo *t, const struct tt_xml *root)
{
	const char *v = tt_xml_attr(root, "version");

	if (!v || (strcmp(v, "1") && strcmp(v, "2")))
		tt_topo_assume(t, "version %.20s of NCCL's XML: read as 1", v ? v : "(none)");
}

static bool same_host(const struct tt_xml *a, const struct tt_xml *b)
{
	return !strcmp(a->name, b->name) && hex_attr(a, "host_hash") == hex_attr(b, "host_hash");
}

/* The hosts by host_hash, in the order in which they come, as the tags of their cpu elements. */
static int number_hosts(struct tt_xml *root)
{
	int n = 0;

	for (struct tt_xml *cpu = root->child; cpu; cpu = cpu->next) {
		const struct tt_xml *first = root->child;

		if (strcmp(cpu->name, "cpu"))
			continue;
		while (!same_host(first, cpu))
			first = first->next;
		cpu->tag = first == cpu ? n++ : first->tag;
	}
	return n ? n : 1;
}

static tuttiResult_t read_system(struct tt_topo *t, struct tt_xml *root, int host)
{
	struct reader r = { .t = t, .host = host };

	if (strcmp(root->name, "system"))
		return tt_fail(tuttiInvalidArgument, "topology XML: the root is <%.60s>, not <system>%s", root->name,
			       !strcmp(root->name, "graphs") ? ": what NCCL found in a machine, not the machine" : "");
	t->host = host;
	t->hosts = number_hosts(root);
	if (host >= t->hosts)
		return tt_fail(tuttiInvalidArgument, "topology XML: no host %d is in it, but %d of them", host + 1,
			       t->hosts);
	check_version(t, root);
	for (struct tt_xml *e = tt_xml_after(root); e && t->failed == tuttiSuccess; e = tt_xml_after(e))
		e->tag = read_element(&r, e);
	for (struct tt_xml *e = tt_xml_after(root); e && t->failed == tuttiSuccess; e = tt_xml_after(e))
		if (e->tag != LEFT_OUT && tt_link_kind_of(e->name) >= 0)
			read_link(&r, e, (enum tt_link_kind)tt_link_kind_of(e->name));
	if (t->hosts > 1 && tt_topo_count(t, TT_NODE_NVSWITCH))
		tt_topo_assume(t, "the NVSwitch is taken as this host's own, though the file has %d hosts",
			       t->hosts);
	return t->failed;
}

tuttiResult_t tt_topo_from_nccl(const char *text, size_t n, int host, const struct tt_topo *machine,
				struct tt_topo **out)
{
	struct tt_xml *root;
	struct tt_topo *t;
	tuttiResult_t r;

	TRY(tt_xml_parse(text, n, "topology XML", &root));
	r = tt_topo_new(&t);
	if (r == tuttiSuccess) {
		r = read_system(t, root, host);
		if (r == tuttiSuccess && machine)
			tt_topo_fill(t, machine);
		if (r == tuttiSuccess)
			r = tt_topo_finish(t);
		if (r == tuttiSuccess)
			*out = t;
		else
			tt_topo_free(t);
	}
	tt_xml_free(root);
	return r;
}
