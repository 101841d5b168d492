/* The graph of a machine: order, digest, what is assumed, path classes, pairs, and the text form.
 * SPDX-License-Identifier: Apache-2.0 */
#include "test.h"
#include "topo_files.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct tt_topo *read_fixture(const char *name)
{
	char *text = test_fixture(name);
	struct tt_topo *t = test_topo_text(text);

	free(text);
	return t;
}

static void classes(void)
{
	struct tt_topo *t = read_fixture("two-sockets.topo");
	const char *const rows[][3] = {
		{ "0000:11:00.0", "0000:11:00.0", "LOC" }, { "0000:11:00.0", "0000:81:00.0", "NVL" },
		{ "0000:11:00.0", "0000:1c:00.0", "NVB" }, { "0000:11:00.0", "0000:12:00.0", "PIX" },
		{ "0000:14:00.0", "0000:12:00.0", "PXB" }, { "0000:18:00.0", "0000:12:00.0", "PHB" },
		{ "0000:1c:00.0", "0000:12:00.0", "NODE" }, { "0000:81:00.0", "0000:12:00.0", "SYS" },
		{ "0000:81:00.0", "virt:eth0", "PHB" },    { "core0", "core1", "CACHE" },
		{ "core0", "core2", "NODE" },              { "core0", "0000:11:00.0", "PHB" },
		{ "core0", "0000:81:00.0", "SYS" },        { "core0", "numa8", "SYS" },
	};
	struct tt_topo_path p;

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		CHECKF(!strcmp(test_between(t, rows[i][0], rows[i][1]), rows[i][2]), "%s to %s is %s, not %s",
		       rows[i][0], rows[i][1], test_between(t, rows[i][0], rows[i][1]), rows[i][2]);
	p = tt_topo_path(t, tt_topo_find(t, "0000:14:00.0"), tt_topo_find(t, "0000:12:00.0"));
	CHECK(p.switches == 2 && p.bandwidth == 6000 && p.latency == 1150);
	p = tt_topo_path(t, tt_topo_find(t, "0000:11:00.0"), tt_topo_find(t, "0000:81:00.0"));
	CHECK(p.bandwidth == 40000);
	p = tt_topo_path(t, tt_topo_find(t, "0000:11:00.0"), tt_topo_find(t, "virt:eth0"));
	CHECK(p.bandwidth == 10000); /* the socket link, as a Skylake has it */
	p = tt_topo_path(t, tt_topo_find(t, "virt:eth0"), tt_topo_find(t, "numa8"));
	CHECK(p.bandwidth == TT_NO_LIMIT);
	tt_topo_free(t);
}

static void round_trip(void)
{
	struct tt_topo *t = read_fixture("two-sockets.topo"), *u;
	char *first, *second;

	CHECK(!tt_topo_write(t, &first));
	u = test_topo_text(first);
	CHECK(!tt_topo_write(u, &second));
	CHECKF(!strcmp(first, second), "written twice:\n%s\n%s", first, second);
	CHECK(tt_topo_digest(t) == tt_topo_digest(u));
	CHECK(!strcmp(tt_topo_attr(u, tt_topo_find(u, "0000:81:00.0"), "name=of it"), "a \"card\" # of \\ ours\n"));
	free(first);
	free(second);
	tt_topo_free(t);
	tt_topo_free(u);
}

/* The lines of a text between the first and `last` in another order, parents still first. */
static void any_order(void)
{
	static const char a[] = "tutti-topology 1\nnuma numa1\nnuma numa0\ngpu 0000:02:00.0 in numa0 x=1 y=2\n"
				"gpu 0000:01:00.0 in numa1\nlink xgmi 0000:01:00.0 0000:02:00.0\n"
				"link xgmi 0000:02:00.0 0000:01:00.0 bw=36000\n";
	static const char b[] = "tutti-topology 1\r\n\nsource here\nnuma  numa0 # one\n"
				"gpu 0000:02:00.0 in numa0 y=2 x=1\nnuma numa1\ngpu 0000:01:00.0 in numa1\n"
				"link xgmi 0000:02:00.0 0000:01:00.0 bw=36000\n"
				"link xgmi 0000:01:00.0 0000:02:00.0 count=1";
	struct tt_topo *t = test_topo_text(a), *u = test_topo_text(b), *v;

	CHECK(tt_topo_digest(t) == tt_topo_digest(u));
	CHECK(t->nodes[1].kind == TT_NODE_NUMA && !strcmp(t->nodes[1].id, "numa0"));
	v = test_topo_text("tutti-topology 1\nnuma numa0\nnuma numa1\ngpu 0000:02:00.0 in numa0 x=1 y=3\n"
		      "gpu 0000:01:00.0 in numa1\n");
	CHECK(tt_topo_digest(v) != tt_topo_digest(u));
	tt_topo_free(t);
	tt_topo_free(u);
	tt_topo_free(v);
}

/* What is missing or contradictory: taken as something, and said. */
static void assumptions(void)
{
	struct tt_topo *t = test_topo_text("tutti-topology 1\nnuma numa0\nnuma numa3\ngpu 0000:01:00.0\n"
				      "nic 0000:02:00.0\ngpu 0000:03:00.0 in numa3\n"
				      "link nvlink 0000:01:00.0 0000:01:00.0 count=12\n"
				      "link nvlink 0000:01:00.0 0000:03:00.0 count=2\n"
				      "link nvlink 0000:03:00.0 0000:01:00.0\n"
				      "link nvlink 0000:03:00.0 0000:01:00.0 count=2\n"),
		       *u;

	CHECK(test_assumes(t, "0000:01:00.0: its NUMA node is not known"));
	CHECK(test_assumes(t, "0000:02:00.0: no port is listed"));
	CHECK(test_assumes(t, "0000:01:00.0: a link to itself"));
	CHECK(test_assumes(t, "0000:03:00.0 to 0000:01:00.0: 3 links there, 2 back"));
	CHECK(test_assumes(t, "numa3: the speed of its socket link is not known"));
	CHECK(t->nlinks == 2 && !strcmp(test_between(t, "0000:01:00.0", "0000:02:00.0"), "SYS"));
	tt_topo_free(t);
	u = test_topo_text("tutti-topology 1\ngpu 0000:01:00.0\n");
	CHECK(test_assumes(u, "no NUMA node") && tt_topo_above(u, tt_topo_find(u, "0000:01:00.0"), TT_NODE_NUMA) > 0);
	tt_topo_free(u);
}

static void wrong_texts(void)
{
	static const char *const rows[][2] = {
		{ "", "the first line" }, { "tutti-topology 2\n", "the first line" },
		{ "tutti-topology 1\ntoaster x\n", "line 2: toaster is no kind of line" },
		{ "tutti-topology 1\nnuma\n", "the id of the node is missing" },
		{ "tutti-topology 1\n\nnuma a\nnuma a\n", "line 4: a second a" },
		{ "tutti-topology 1\ngpu a in b\n", "there is no b above" },
		{ "tutti-topology 1\nport a\n", "a port in a host" },
		{ "tutti-topology 1\nnuma a\nnuma b in a\n", "a numa in a numa" },
		{ "tutti-topology 1\nhost b\n", "a host in a host" },
		{ "tutti-topology 1\nnuma a bw=0\n", "bw=0" }, { "tutti-topology 1\nnuma a bw=-1\n", "a number" },
		{ "tutti-topology 1\nnuma a bw=99999999999\n", "a number" },
		{ "tutti-topology 1\nnuma a x\n", "x has no value" }, { "tutti-topology 1\nnuma a x=\n", "no value" },
		{ "tutti-topology 1\nnuma \"a\n", "a quote" }, { "tutti-topology 1\nnuma \"a\\q\"\n", "escape" },
		{ "tutti-topology 1\nnuma \"a\\", "a quote" },
		{ "tutti-topology 1\nnuma \"\\x00\"\n", "escape" },
		{ "tutti-topology 1\nnuma a\nlink rope a a\n", "rope is no kind of link" },
		{ "tutti-topology 1\nnuma a\nlink xgmi a a count=0\n", "count=0" },
		{ "tutti-topology 1\nnuma a\nlink xgmi a\n", "is missing" },
		{ "tutti-topology 1\nnuma a\nlink xgmi a a colour=red\n", "no colour" },
		{ "tutti-topology 1\nassumed one two\n", "more than" },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct tt_topo *t;

		CHECKF(tt_topo_read(rows[i][0], strlen(rows[i][0]), &t) == tuttiInvalidArgument, "taken: %s",
		       rows[i][0]);
		CHECKF(strstr(tt_last_error(), rows[i][1]), "%s: %s", rows[i][0], tt_last_error());
	}
}

/* ---- pairs ---- */

static void paired(const char *text, const char *want)
{
	struct tt_topo *t = test_topo_text(text);
	struct tt_topo_pair *p;
	char got[512] = "";
	int n;

	CHECK(!tt_topo_pairs(t, &p, &n) && n == tt_topo_count(t, TT_NODE_GPU));
	for (int i = 0; i < n; i++)
		snprintf(got + strlen(got), sizeof(got) - strlen(got), "%s%s:%s%s", i ? " " : "",
			 t->nodes[p[i].gpu].id + 5, p[i].nic < 0 ? "none" : t->nodes[p[i].nic].id + 5,
			 p[i].nic < 0 ? "" : tt_path_word(p[i].path.cls));
	CHECKF(!strcmp(got, want), "%s, not %s", got, want);
	free(p);
	tt_topo_free(t);
}

#define NIC(id, in) "nic " id " in " in "\nport " id "/p in " id " bw=25000\n"

static void pairs(void)
{
	paired("tutti-topology 1\n", "");
	paired("tutti-topology 1\nnuma numa0\ngpu 0000:01:00.0 in numa0\n", "01:00.0:none");
	/* Two by two behind a switch: one each; the third has to share. */
	paired("tutti-topology 1\nnuma numa0\npci 0000:10:00.0 in numa0\ngpu 0000:11:00.0 in 0000:10:00.0\n"
	       "gpu 0000:12:00.0 in 0000:10:00.0\ngpu 0000:15:00.0 in 0000:10:00.0\n"
	       NIC("0000:13:00.0", "0000:10:00.0")
	       NIC("0000:14:00.0", "0000:10:00.0") NIC("0000:20:00.0", "numa0"),
	       "11:00.0:13:00.0PIX 12:00.0:14:00.0PIX 15:00.0:13:00.0PIX");
	/* Through a CPU, switches make no NIC farther than another: one each. */
	paired("tutti-topology 1\nnuma numa0\npci 0000:10:00.0 in numa0\ngpu 0000:01:00.0 in numa0\n"
	       "gpu 0000:02:00.0 in numa0\n" NIC("0000:03:00.0", "numa0") NIC("0000:11:00.0", "0000:10:00.0"),
	       "01:00.0:03:00.0PHB 02:00.0:11:00.0PHB");
	/* Nearer by fewer switches; a real NIC before a bridge of the kernel, the fast one before the slow one. */
	paired("tutti-topology 1\nnuma numa0\npci 0000:10:00.0 in numa0\npci 0000:11:00.0 in 0000:10:00.0\n"
	       "gpu 0000:12:00.0 in 0000:11:00.0\n" NIC("0000:01:00.0", "numa0") NIC("0000:1f:00.0", "0000:10:00.0"),
	       "12:00.0:1f:00.0PXB");
	paired("tutti-topology 1\nnuma numa0\ngpu 0000:01:00.0 in numa0\nnic virt:br0 in numa0\n"
	       "nic 0000:02:00.0 in numa0\nport x in 0000:02:00.0 bw=125\n" NIC("0000:03:00.0", "numa0"),
	       "01:00.0:03:00.0PHB");
}

/* What has no cable is for nobody; with nothing else it is better than none. */
static void pairs_down(void)
{
	paired("tutti-topology 1\nnuma numa0\nnuma numa1\ngpu 0000:01:00.0 in numa0\ngpu 0000:02:00.0 in numa0\n"
	       "nic 0000:03:00.0 in numa0\nport p in 0000:03:00.0 state=down\n" NIC("0000:81:00.0", "numa1"),
	       "01:00.0:81:00.0SYS 02:00.0:81:00.0SYS");
	paired("tutti-topology 1\nnuma numa0\ngpu 0000:01:00.0 in numa0\nnic 0000:03:00.0 in numa0\n"
	       "port p in 0000:03:00.0 state=down\n", "01:00.0:03:00.0PHB");
}

/* The first GPU could take either NIC and takes the one that is all the second has near: it gives way. */
static void pairs_give_way(void)
{
	paired("tutti-topology 1\nnuma numa0\npci 0000:10:00.0 in numa0\npci 0000:12:00.0 in 0000:10:00.0\n"
	       "pci 0000:16:00.0 in 0000:10:00.0\ngpu 0000:11:00.0 in 0000:10:00.0\ngpu 0000:13:00.0 in 0000:12:00.0\n"
	       NIC("0000:14:00.0", "0000:12:00.0") NIC("0000:17:00.0", "0000:16:00.0"),
	       "11:00.0:17:00.0PXB 13:00.0:14:00.0PIX");
}

/* ---- orders ---- */

/* Ranks bound to cores in turns, as schedulers hand them out: two sockets, two caches each, two cores each. */
static void orders(void)
{
	struct tt_topo *t = test_topo_text("tutti-topology 1\nnuma numa0\nnuma numa1\ncache l3-0 in numa0\n"
					   "cache l3-1 in numa0\ncache l3-2 in numa1\ncache l3-3 in numa1\n"
					   "core core0 in l3-0 cpus=0,8\ncore core1 in l3-2 cpus=1,9\n"
					   "core core2 in l3-1 cpus=2,10\ncore core3 in l3-3 cpus=3,11\n"
					   "core core4 in l3-0 cpus=4,12\ncore core5 in l3-2 cpus=5,13\n"
					   "core core6 in l3-1 cpus=6,14\ncore core7 in l3-3 cpus=7,15\n");
	static const uint32_t want[9] = { 0, 4, 2, 6, 1, 5, 3, 7, 8 }, as_is[8] = { 0, 1, 2, 3, 4, 5, 6, 7 };
	uint32_t order[9];
	int node[9];

	for (unsigned i = 0; i < 9; i++)
		node[i] = tt_topo_of_cpu(t, i < 8 ? i + 8 * (i & 1) : 99);
	CHECK(node[8] == -1 && !strcmp(t->nodes[node[3]].id, "core3"));
	tt_topo_order(node, 9, order);
	CHECK(!memcmp(order, want, sizeof(want)));
	CHECK(tt_topo_hops(t, node, order, 8, TT_PATH_SYS) == 2 && tt_topo_hops(t, node, as_is, 8, TT_PATH_SYS) == 8);
	CHECK(tt_topo_hops(t, node, order, 8, TT_PATH_NODE) == 4 && tt_topo_hops(t, node, order, 1, TT_PATH_LOC) == 0);
	CHECK(tt_topo_hops(t, node, order, 9, TT_PATH_SYS) == 3); /* what is not known counts as far */
	tt_topo_free(t);
}

/* Devices of which only the host bridge is known. */
static void strays(void)
{
	struct tt_topo *t = test_topo_text("tutti-topology 1\nnuma numa0\nnuma numa1\n"
					   "gpu 0000:01:00.0 bridge=pci0000:00\nnic 0000:02:00.0 bridge=pci0000:00\n"
					   "nic 0000:81:00.0 bridge=pci0000:80\nnic virt:eth0\n");

	CHECK(!strcmp(test_between(t, "0000:01:00.0", "0000:02:00.0"), "PHB"));
	CHECK(!strcmp(test_between(t, "0000:01:00.0", "0000:81:00.0"), "SYS"));
	CHECK(!strcmp(test_between(t, "0000:01:00.0", "virt:eth0"), "SYS"));
	tt_topo_free(t);
}

/* ---- words ---- */

static void bus_ids(void)
{
	static const char *const rows[][2] = {
		{ "0000:06:00.0", "0000:06:00.0" }, { "00000000:06:00.0", "0000:06:00.0" },
		{ "06:00.0", "0000:06:00.0" },      { "000D:AB:1f.7", "000d:ab:1f.7" },
		{ "10000:e1:00.0", "10000:e1:00.0" }, { "ffff:ff:01.0", "ffff:ff:01.0" },
		{ "0000:06:00", "0000:06:00.0" },   { "", NULL }, { "eth0", NULL }, { "0000:06:00.0x", NULL },
		{ "06:00", NULL },
	};
	char out[40];

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		bool good = tt_bus_id(rows[i][0], out, sizeof(out));

		CHECKF(good == (rows[i][1] != NULL), "%s", rows[i][0]);
		CHECKF(!good || !strcmp(out, rows[i][1]), "%s: %s", rows[i][0], out);
	}
}

static void same_cpus(bool list, const char *text, const char *want)
{
	struct tt_cpus c;
	char *got;

	CHECKF((list ? tt_cpus_list : tt_cpus_mask)(text, &c) == (want != NULL), "%s", text);
	if (!want)
		return;
	got = tt_cpus_text(&c);
	CHECKF(got && !strcmp(got, want), "%s: %s, not %s", text, got, want);
	free(got);
	tt_cpus_free(&c);
}

static void cpu_sets(void)
{
	struct tt_cpus a, b;

	same_cpus(true, "0-3,8,70\n", "0-3,8,70");
	same_cpus(true, "\n", "");
	same_cpus(true, "3-1", NULL);
	same_cpus(true, "0-99999999999", NULL);
	same_cpus(true, "zero", NULL);
	same_cpus(false, "000000ff,ffff0000,00ffffff", "0-23,48-71");
	same_cpus(false, "0000,0fffff00,000fffff", "0-19,40-59");
	same_cpus(false, "0xff", "0-7");
	same_cpus(false, "00000000", "");
	same_cpus(false, "12g", NULL);
	CHECK(tt_cpus_list("0-63,64-70", &a) && tt_cpus_mask("ff,00000000,00000001", &b));
	CHECK(tt_cpus_count(&a) == 71 && tt_cpus_common(&a, &b) == 8 && tt_cpus_has(&b, 0) && !tt_cpus_has(&b, 1));
	tt_cpus_free(&a);
	tt_cpus_free(&b);
}

static void rates(void)
{
	struct tt_topo *t = test_topo_text("tutti-topology 1\n");

	CHECK(tt_rate_pci("8 GT/s", 16) == 12000 && tt_rate_pci("8.0 GT/s PCIe", 16) == 12000);
	CHECK(tt_rate_pci("16 GT/s", 8) == 12000 && tt_rate_pci("5 GT/s", 16) == 6094);
	CHECK(tt_rate_pci("", 0) == TT_NO_LIMIT && tt_rate_pci("8 GT/s", 0) == TT_NO_LIMIT);
	CHECK(tt_rate_pci(NULL, 16) == TT_NO_LIMIT && tt_rate_pci("Unknown", 255) == TT_NO_LIMIT);
	CHECK(tt_rate_nvlink(70) == 20000 && tt_rate_nvlink(90) == 20600 && tt_rate_nvlink(0) == TT_NO_LIMIT);
	CHECK(tt_rate_xgmi("908") == 24000 && tt_rate_xgmi("910") == 36000 && tt_rate_xgmi("gfx90a") == 36000);
	CHECK(tt_rate_xgmi("gfx942") == 48000 && tt_rate_xgmi(NULL) == TT_NO_LIMIT);
	CHECK(tt_rate_net(t, "a", "100000") == 12500 && tt_rate_net(t, "a", "-1") == TT_NO_LIMIT);
	CHECK(!test_assumes(t, "a:"));
	CHECK(tt_rate_net(t, "b", "100000000") == 12500 && test_assumes(t, "b: a speed of 100000000"));
	CHECK(tt_rate_net(t, "mlx5_1", "200") == 25000 && test_assumes(t, "mlx5_1: a speed of 200 Mb/s"));
	CHECK(tt_rate_net(t, "eth0", "100") == 13 && tt_rate_net(t, "c", "1e300") == TT_NO_LIMIT);
	tt_topo_free(t);
}

/* As many nodes as a rack has, and deeper than any machine: no cap, and no time to speak of. */
static void large(void)
{
	struct tt_topo *t, *u;
	char id[32], *text;
	int last = 0;

	CHECK(!tt_topo_new(&t));
	for (int i = 0; i < 3000; i++) {
		snprintf(id, sizeof(id), "%04x:00:00.0", i);
		last = tt_topo_add(t, TT_NODE_PCI, id, last);
	}
	CHECK(!tt_topo_finish(t) && !tt_topo_write(t, &text));
	u = test_topo_text(text);
	CHECK(tt_topo_digest(t) == tt_topo_digest(u) && u->nnodes == 3002);
	free(text);
	tt_topo_free(t);
	tt_topo_free(u);
}

const struct test tests[] = {
	{ "classes", classes, 0 },         { "round_trip", round_trip, 0 }, { "any_order", any_order, 0 },
	{ "assumptions", assumptions, 0 }, { "wrong_texts", wrong_texts, 0 }, { "pairs", pairs, 0 },
	{ "pairs_give_way", pairs_give_way, 0 }, { "pairs_down", pairs_down, 0 }, { "orders", orders, 0 },
	{ "strays", strays, 0 }, { "bus_ids", bus_ids, 0 }, { "cpu_sets", cpu_sets, 0 },
	{ "rates", rates, 0 },             { "large", large, 0 },
};
const int ntests = sizeof(tests) / sizeof(tests[0]);
