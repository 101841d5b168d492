/* NCCL's topology XML: what real files do, short forms, what is written, and files that are none.
 * SPDX-License-Identifier: Apache-2.0 */
#include "test.h"
#include "topo_files.h"
#include "topo_search.h"
#include "xml.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct tt_topo_link *link_of(const struct tt_topo *t, const char *from, const char *to)
{
	for (int i = 0; i < t->nlinks; i++)
		if (!strcmp(t->nodes[t->links[i].from].id, from) && !strcmp(t->nodes[t->links[i].to].id, to))
			return &t->links[i];
	test_fail(__FILE__, __LINE__, "no link from %s to %s", from, to);
}

static uint32_t bandwidth_of(const struct tt_topo *t, const char *id)
{
	CHECKF(tt_topo_find(t, id) >= 0, "no %s", id);
	return t->nodes[tt_topo_find(t, id)].bandwidth;
}

static void traps(void)
{
	struct tt_topo *t = test_topo_nccl("traps.xml", NULL);
	struct tt_topo_path p;
	int gpu = tt_topo_next(t, TT_NODE_GPU, -1);

	CHECK(tt_topo_count(t, TT_NODE_NUMA) == 2 && tt_topo_count(t, TT_NODE_GPU) == 3);
	CHECK(tt_topo_count(t, TT_NODE_NIC) == 2 && tt_topo_count(t, TT_NODE_PORT) == 3);
	CHECK(!strcmp(t->nodes[gpu].id, "0000:21:00.0") && tt_topo_number(t, gpu, "dev", -1) == 1);
	CHECK(bandwidth_of(t, "0000:84:00.0") == 23999 && bandwidth_of(t, "0000:85:00.0") == 23999);
	CHECK(bandwidth_of(t, "0000:21:00.0") == TT_NO_LIMIT && test_assumes(t, "0000:21:00.0: the speed of its PCI"));
	p = tt_topo_path(t, tt_topo_find(t, "0000:84:00.0"), tt_topo_find(t, "0000:85:00.0"));
	CHECK(p.cls == TT_PATH_PIX && p.bandwidth == 23999); /* the upstream port is not on the way */
	p = tt_topo_path(t, tt_topo_find(t, "0000:41:00.0"), tt_topo_find(t, "0000:85:00.0"));
	CHECK(p.cls == TT_PATH_SYS && p.bandwidth == 3047);
	CHECK(!strcmp(test_between(t, "0000:84:00.0", "virt:docker0"), "PHB"));
	CHECK(bandwidth_of(t, "0000:85:00.0/mlx5_1:2") == 12500 && test_assumes(t, "mlx5_1: a speed of 100000000"));
	CHECK(t->nlinks == 3 && link_of(t, "0000:84:00.0", "0000:41:00.0")->count == 1);
	CHECK(test_assumes(t, "a link to itself") && test_assumes(t, "a link to 0000:ff:00.0, which is not listed"));
	CHECK(test_assumes(t, "a link without count") && test_assumes(t, "0 links to 0000:c1:00.0 cannot be"));
	CHECK(test_assumes(t, "not one is no bus id") && test_assumes(t, "an element toaster in a cpu"));
	CHECK(test_assumes(t, "1 links there, 0 back") && tt_topo_find(t, "0000:42:00.0") < 0);
	tt_topo_free(t);
}

static void nvswitches(void)
{
	struct tt_topo *t = test_topo_nccl("nvswitch.xml", NULL);

	CHECK(tt_topo_count(t, TT_NODE_NVSWITCH) == 1);
	CHECK(link_of(t, "0000:10:00.0", "nvswitch")->count == 18);
	CHECK(link_of(t, "nvswitch", "0000:90:00.0")->count == 18);
	CHECK(link_of(t, "0000:10:00.0", "nvswitch")->bandwidth == 20600);
	CHECK(!strcmp(test_between(t, "0000:10:00.0", "0000:90:00.0"), "NVL"));
	CHECK(link_of(t, "0000:91:00.0", "numa1")->count == 3 && link_of(t, "numa1", "0000:91:00.0")->count == 3);
	CHECK(!strcmp(test_between(t, "0000:91:00.0", "0000:10:00.0"), "SYS"));
	CHECK(link_of(t, "0000:90:00.0", "numa1")->kind == TT_LINK_C2C);
	CHECK(link_of(t, "numa1", "0000:90:00.0")->count == 10);
	CHECK(link_of(t, "numa1", "0000:90:00.0")->bandwidth == 44000);
	tt_topo_free(t);
}

static void xgmi(void)
{
	struct tt_topo *t = test_topo_nccl("xgmi.xml", NULL);

	CHECK(t->nlinks == 8 && link_of(t, "0000:20:00.0", "0000:21:00.0")->count == 2);
	CHECK(link_of(t, "0000:23:00.0", "0000:20:00.0")->kind == TT_LINK_XGMI);
	CHECK(link_of(t, "0000:23:00.0", "0000:20:00.0")->bandwidth == 36000);
	CHECK(!strcmp(test_between(t, "0000:20:00.0", "0000:22:00.0"), "NVB"));
	CHECK(!strcmp(test_between(t, "0000:22:00.0", "virt:eth0"), "PHB"));
	tt_topo_free(t);
}

/* Alone a short form says little, and what it does not say is listed; on its machine the devices come from there. */
static void short_form(void)
{
	char *text = test_fixture("short-machine.topo");
	struct tt_topo *machine = test_topo_text(text), *t = test_topo_nccl("short.xml", NULL);
	int port;

	CHECK(tt_topo_count(t, TT_NODE_GPU) == 1 && tt_topo_count(t, TT_NODE_NIC) == 1);
	CHECK(test_assumes(t, "0001:00:00.0: the file does not say what device it is"));
	CHECK(test_assumes(t, "0102:00:00.0: no port is listed"));
	CHECK(test_assumes(t, "ffff:ff:01.0 is listed more than once: taken as one switch"));
	tt_topo_free(t);
	t = test_topo_nccl("short.xml", machine);
	CHECK(tt_topo_count(t, TT_NODE_GPU) == 3 && tt_topo_count(t, TT_NODE_NIC) == 2);
	CHECK(!strcmp(test_between(t, "0001:00:00.0", "0101:00:00.0"), "PIX"));
	CHECK(!strcmp(test_between(t, "0001:00:00.0", "0002:00:00.0"), "NVL"));
	CHECK(!strcmp(test_between(t, "0002:00:00.0", "0102:00:00.0"), "PHB"));
	CHECK(!strcmp(test_between(t, "core0", "0003:00:00.0"), "PHB") && tt_topo_find(t, "core0") > 0);
	CHECK(bandwidth_of(t, "0001:00:00.0") == 24000 && bandwidth_of(t, "0002:00:00.0") == 23999);
	CHECK(tt_topo_count(t, TT_NODE_PORT) == 2);
	port = tt_topo_find(t, "0102:00:00.0/mlx5_1:1");
	CHECK(port > 0 && t->nodes[port].bandwidth == 25000 && !strcmp(tt_topo_attr(t, port, "guid"), "0x8"));
	CHECK(test_assumes(t, "0101:00:00.0: taken from this machine"));
	CHECK(!strcmp(tt_topo_attr(t, tt_topo_find(t, "numa0"), "vendor"), "AuthenticAMD"));
	tt_topo_free(t);
	tt_topo_free(machine);
	free(text);
}

/* More devices than any table of a fixed size, some deep. */
static void many(void)
{
	size_t size;
	char *text;
	FILE *f = open_memstream(&text, &size);
	struct tt_topo *t;

	fputs("<system version=\"1\">", f);
	for (int c = 0; c < 40; c++) {
		fprintf(f, "<cpu numaid=\"%d\">", 2 * c);
		for (int d = 0; d < 30; d++)
			fprintf(f, "<pci busid=\"%04x:%02x:00.0\" class=\"0x060400\">", c, d);
		for (int d = 0; d < 30; d++)
			fprintf(f, "<pci busid=\"%04x:%02x:01.0\" class=\"%s\"/></pci>", c, d,
				d % 2 ? "0x030200" : "0x020000");
		fputs("</cpu>", f);
	}
	fputs("</system>", f);
	fclose(f);
	CHECKF(!tt_topo_from_nccl(text, size, 0, NULL, &t), "%s", tt_last_error());
	CHECK(tt_topo_count(t, TT_NODE_GPU) == 600 && tt_topo_count(t, TT_NODE_NIC) == 600);
	CHECK(!strcmp(test_between(t, "0000:00:01.0", "0000:01:01.0"), "PXB"));
	tt_topo_free(t);
	free(text);
}

/* What the search sees: GPUs in their order, switches behind them, half links of the slowest kind. */
static void graph(void)
{
	struct tt_topo *t = test_topo_nccl("nvswitch.xml", NULL), *u;
	struct tt_graph *g;

	CHECK(!tt_topo_graph(t, &g) && g->n == 4 && g->total == 5 && g->unit == 2);
	CHECK(tt_graph_cap(g, 0, 4) == 36 && tt_graph_cap(g, 4, 2) == 36 && !tt_graph_cap(g, 0, 1));
	CHECK(!tt_graph_cap(g, 3, 4)); /* its links lead to a CPU */
	tt_graph_free(g);
	tt_topo_free(t);
	u = test_topo_text("tutti-topology 1\ngpu a\ngpu b\ngpu c\nlink xgmi a b count=2 bw=24000\n"
			   "link xgmi b c bw=36000\nlink xgmi c a count=3\nlink nvlink c a bw=48000\n");
	CHECK(!tt_topo_graph(u, &g) && tt_graph_cap(g, 0, 1) == 4 && tt_graph_cap(g, 1, 2) == 3);
	CHECK(tt_graph_cap(g, 2, 0) == 10);
	tt_graph_free(g);
	tt_topo_free(u);
}

/* ---- writing ---- */

static void written_again(const char *name)
{
	struct tt_topo *t = test_topo_nccl(name, NULL), *u;
	char *first, *second;

	CHECK(!tt_topo_to_nccl(t, &first));
	CHECKF(!tt_topo_from_nccl(first, strlen(first), 0, NULL, &u), "%s: %s", name, tt_last_error());
	CHECKF(tt_topo_digest(t) == tt_topo_digest(u), "%s: another machine:\n%s", name, first);
	CHECK(!tt_topo_to_nccl(u, &second));
	CHECKF(!strcmp(first, second), "%s: written twice:\n%s\n%s", name, first, second);
	free(first);
	free(second);
	tt_topo_free(t);
	tt_topo_free(u);
}

static void text_again(const char *name)
{
	struct tt_topo *t = test_topo_nccl(name, NULL), *u;
	char *text;

	CHECK(!tt_topo_write(t, &text));
	u = test_topo_text(text);
	CHECKF(tt_topo_digest(t) == tt_topo_digest(u), "%s: another machine as text:\n%s", name, text);
	free(text);
	tt_topo_free(t);
	tt_topo_free(u);
}

static void round_trips(void)
{
	static const char *const names[] = { "traps.xml", "nvswitch.xml", "xgmi.xml", "short.xml" };

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		written_again(names[i]);
		text_again(names[i]);
	}
}

struct wanted {
	const char *element, *attrs; /* what NCCL's reader asks for: docs/topology.md */
};

static void check_attrs(const struct tt_xml *e, const struct wanted *w)
{
	char attrs[200], *save = NULL;

	snprintf(attrs, sizeof(attrs), "%s", w->attrs);
	for (char *a = strtok_r(attrs, " ", &save); a; a = strtok_r(NULL, " ", &save))
		CHECKF(tt_xml_attr(e, a), "line %d: <%s> has no %s", e->line, e->name, a);
}

/* The file of a whole machine has all that NCCL needs where it cannot look itself. */
static void schema(void)
{
	static const struct wanted rows[] = {
		{ "system", "version" }, { "cpu", "numaid affinity arch vendor familyid modelid" },
		{ "pci", "busid class link_speed link_width" }, { "gpu", "dev sm rank gdr" },
		{ "nic", "" }, { "net", "name dev speed port guid maxconn gdr" }, { "nvlink", "target count tclass" },
		{ "xgmi", "target count tclass" },
	};
	struct tt_topo *t = test_topo_nccl("xgmi.xml", NULL);
	struct tt_xml *root;
	char *text;

	CHECK(!tt_topo_to_nccl(t, &text) && !strncmp(text, "<system version=\"2\">", 20));
	CHECK(!tt_xml_parse(text, strlen(text), "what was written", &root));
	for (const struct tt_xml *e = root; e; e = tt_xml_after(e)) {
		size_t k = 0;

		while (k < sizeof(rows) / sizeof(rows[0]) && strcmp(rows[k].element, e->name))
			k++;
		CHECKF(k < sizeof(rows) / sizeof(rows[0]), "an element <%s>", e->name);
		check_attrs(e, &rows[k]);
	}
	tt_xml_free(root);
	free(text);
	tt_topo_free(t);
}

/* The same bus ids on two hosts, whose cpu elements are told apart by host_hash, whatever its letters. */
static void hosts(void)
{
	char *text = test_fixture("hosts.xml");
	struct tt_topo *a = test_topo_nccl("hosts.xml", NULL), *b;

	CHECKF(!tt_topo_from_nccl(text, strlen(text), 1, NULL, &b), "%s", tt_last_error());
	CHECK(a->hosts == 2 && !a->host && b->hosts == 2 && b->host == 1);
	CHECK(tt_topo_count(a, TT_NODE_GPU) == 2 && tt_topo_count(b, TT_NODE_GPU) == 3);
	CHECK(tt_topo_count(a, TT_NODE_NUMA) == 2 && tt_topo_count(b, TT_NODE_NUMA) == 2);
	CHECK(link_of(a, "0000:10:00.0", "nvswitch")->count == 18 && test_assumes(a, "though the file has 2 hosts"));
	CHECK(b->nlinks == 2 && link_of(b, "0000:11:00.0", "0000:10:00.0")->count == 4 && !b->nassumed);
	CHECK(bandwidth_of(a, "0000:12:00.0/mlx5_0:1") == 25000 && bandwidth_of(b, "0000:12:00.0/mlx5_0:1") == 50000);
	CHECK(!strcmp(test_between(b, "0000:90:00.0", "0000:12:00.0"), "SYS"));
	CHECK(tt_topo_from_nccl(text, strlen(text), 2, NULL, &b) == tuttiInvalidArgument);
	CHECKF(strstr(tt_last_error(), "no host 3 is in it, but 2"), "%s", tt_last_error());
	tt_topo_free(a);
	tt_topo_free(b);
	free(text);
}

/* A host of several, completed by a machine with another NUMA node, is written as one host. */
static void one_of_hosts(void)
{
	struct tt_topo *machine = test_topo_text("tutti-topology 1\nnuma numa0\nnuma numa7\n"), *t, *u;
	char *text, *xml = test_fixture("hosts.xml");

	CHECK(!tt_topo_from_nccl(xml, strlen(xml), 1, machine, &t) && tt_topo_count(t, TT_NODE_NUMA) == 3);
	free(xml);
	CHECK(!tt_topo_to_nccl(t, &xml) && !tt_topo_from_nccl(xml, strlen(xml), 0, NULL, &u));
	CHECK(u->hosts == 1 && tt_topo_digest(u) == tt_topo_digest(t));
	tt_topo_free(u);
	/* Which host it is does not make it another machine. */
	CHECK(!tt_topo_write(t, &text) && strstr(text, "host_hash=b2"));
	memcpy(strstr(text, "host_hash=b2"), "host_hash=c3", 12);
	u = test_topo_text(text);
	CHECK(tt_topo_digest(u) == tt_topo_digest(t));
	tt_topo_free(machine);
	tt_topo_free(t);
	tt_topo_free(u);
	free(text);
	free(xml);
}

static void wrong_files(void)
{
	static const char *const rows[][2] = {
		{ "", "no element found" }, { "<system>", "line 1" }, { "<system></cpu>", "mismatched" },
		{ "<graphs version=\"1\"><graph id=\"0\"/></graphs>", "what NCCL found in a machine" },
		{ "<topology version=\"2.0\"/>", "the root is <topology>" }, { "tutti-topology 1\n", "line 1" },
	};
	struct tt_topo *t;

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		CHECKF(tt_topo_from_nccl(rows[i][0], strlen(rows[i][0]), 0, NULL, &t) == tuttiInvalidArgument,
		       "taken: %s", rows[i][0]);
		CHECKF(strstr(tt_last_error(), rows[i][1]), "%s: %s", rows[i][0], tt_last_error());
	}
	CHECK(!tt_topo_from_nccl("<system/>", 9, 0, NULL, &t));
	CHECK(test_assumes(t, "version (none)") && test_assumes(t, "no NUMA node"));
	tt_topo_free(t);
}

const struct test tests[] = {
	{ "traps", traps, 0 },           { "nvswitches", nvswitches, 0 },   { "xgmi", xgmi, 0 },
	{ "short_form", short_form, 0 }, { "many", many, 0 },               { "graph", graph, 0 },
	{ "round_trips", round_trips, 0 },
	{ "schema", schema, 0 },         { "hosts", hosts, 0 },             { "one_of_hosts", one_of_hosts, 0 },
	{ "wrong_files", wrong_files, 0 },
};
const int ntests = sizeof(tests) / sizeof(tests[0]);
