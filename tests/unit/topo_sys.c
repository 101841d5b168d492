/* Looking at a machine: trees of /sys and /proc made here with what real ones have in them, this machine with all,
 * part and none of its sources, hwloc's XML and synthetic strings. SPDX-License-Identifier: Apache-2.0 */
#include "test.h"
#include "topo_files.h"

#include <dirent.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- trees ---- */

static char root[64];

static void begin_tree(void)
{
	strcpy(root, "/tmp/tutti-topo-XXXXXX");
	CHECK(mkdtemp(root));
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return remove(path);
}

static void end_tree(void)
{
	nftw(root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* The full path of one in the tree, the folders above it made. */
static const char *full(const char *path)
{
	static char out[512];

	snprintf(out, sizeof(out), "%s%s", root, path);
	for (char *p = out + strlen(root) + 1; (p = strchr(p, '/')) != NULL; p++) {
		*p = 0;
		mkdir(out, 0755);
		*p = '/';
	}
	return out;
}

static void put(const char *path, const char *text)
{
	FILE *f = fopen(full(path), "w");

	CHECKF(f, "%s%s", root, path);
	fprintf(f, "%s\n", text);
	fclose(f);
}

static void numa(int n, const char *cpumap)
{
	char path[128];

	snprintf(path, sizeof(path), "/sys/devices/system/node/node%d/cpumap", n);
	put(path, cpumap);
}

static void cpu(int n, const char *siblings, const char *l3, int package)
{
	char path[128], text[16];

	snprintf(path, sizeof(path), "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", n);
	put(path, siblings);
	snprintf(path, sizeof(path), "/sys/devices/system/cpu/cpu%d/topology/physical_package_id", n);
	snprintf(text, sizeof(text), "%d", package);
	put(path, text);
	snprintf(path, sizeof(path), "/sys/devices/system/cpu/cpu%d/cache/index2/level", n);
	put(path, "2");
	snprintf(path, sizeof(path), "/sys/devices/system/cpu/cpu%d/cache/index3/level", n);
	put(path, "3");
	snprintf(path, sizeof(path), "/sys/devices/system/cpu/cpu%d/cache/index3/shared_cpu_list", n);
	put(path, l3);
}

struct device {
	const char *above, *bus, *class, *vendor, *speed, *width, *numa, *cpus; /* above: pci0000:00/0000:00:01.0 ... */
};

static void put_of(const char *bus, const char *name, const char *text, const char *above)
{
	char path[400];

	snprintf(path, sizeof(path), "/sys/devices/%s/%s/%s", above, bus, name);
	if (text)
		put(path, text);
}

static void device(const struct device *d)
{
	char path[128], target[300];

	put_of(d->bus, "class", d->class, d->above);
	put_of(d->bus, "vendor", d->vendor, d->above);
	put_of(d->bus, "max_link_speed", d->speed, d->above);
	put_of(d->bus, "max_link_width", d->width, d->above);
	put_of(d->bus, "numa_node", d->numa, d->above);
	put_of(d->bus, "local_cpus", d->cpus, d->above);
	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s", d->bus);
	snprintf(target, sizeof(target), "../../../devices/%s/%s", d->above, d->bus);
	CHECK(!symlink(target, full(path)));
}

static void entry(const char *class, const char *name, const char *device_path)
{
	char path[200], target[300];

	snprintf(path, sizeof(path), "/sys/class/%s/%s", class, name);
	snprintf(target, sizeof(target), "../../devices/%s/%s/%s", device_path, class, name);
	put_of(name, "uevent", "", device_path);
	CHECK(!symlink(target, full(path)));
}

static void put_at(const char *device_path, const char *class, const char *name, const char *file, const char *text)
{
	char path[400];

	snprintf(path, sizeof(path), "/sys/devices/%s/%s/%s/%s", device_path, class, name, file);
	put(path, text);
}

static struct tt_topo *look(void)
{
	struct tt_topo *t;

	CHECKF(!tt_topo_from_sysfs(root, &t), "%s", tt_last_error());
	return t;
}

static const char *parent_of(const struct tt_topo *t, const char *id)
{
	CHECKF(tt_topo_find(t, id) > 0, "no %s", id);
	return t->nodes[t->nodes[tt_topo_find(t, id)].parent].id;
}

static uint32_t bandwidth_of(const struct tt_topo *t, const char *id)
{
	CHECKF(tt_topo_find(t, id) > 0, "no %s", id);
	return t->nodes[tt_topo_find(t, id)].bandwidth;
}

/* ---- a server: sparse nodes, the memory of GPUs as nodes, root ports, switches, a board's VGA, two RDMA ports ---- */

#define SWITCH "pci0000:00/0000:00:01.0/0000:10:00.0"
#define ALONE "pci0000:80/0000:80:01.0"

static void server_cpus(void)
{
	numa(0, "00000000,0000000f");
	numa(8, "00000000,000000f0");
	numa(255, "00000000,00000000");
	put("/sys/devices/system/cpu/online", "0-7");
	for (int i = 0; i < 8; i++)
		cpu(i, i < 4 ? (i % 2 ? "1,3" : "0,2") : (i % 2 ? "5,7" : "4,6"), i < 4 ? "0-3" : "4-7", i / 4);
	put("/proc/cpuinfo", "processor\t: 0\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 85\n"
	    "model name\t: some");
}

static void server_devices(void)
{
	static const struct device rows[] = {
		{ "pci0000:00", "0000:00:01.0", "0x060400", "0x8086", "8.0 GT/s PCIe", "16", "0", "0000000f" },
		{ "pci0000:00/0000:00:01.0", "0000:10:00.0", "0x060400", "0x10b5", "8.0 GT/s PCIe", "16", "0", "0f" },
		{ SWITCH, "0000:11:04.0", "0x060400", "0x10b5", "8.0 GT/s PCIe", "8", "0", "0f" },
		{ SWITCH, "0000:11:08.0", "0x060400", "0x10b5", "8.0 GT/s PCIe", "16", "0", "0f" },
		{ SWITCH "/0000:11:04.0", "0000:12:00.0", "0x030200", "0x10de", "16.0 GT/s PCIe", "16", "0", "0f" },
		{ SWITCH "/0000:11:08.0", "0000:13:00.0", "0x020700", "0x15b3", "8.0 GT/s PCIe", "16", "0", "0f" },
		{ "pci0000:80", "0000:80:01.0", "0x060400", "0x8086", "Unknown", "255", "0", "f0" },
		/* numa_node and local_cpus say different things; a link that the machine does not say. */
		{ ALONE, "0000:81:00.0", "0x030200", "0x10de", "Unknown", "255", "0", "000000f0" },
		{ "pci0000:00", "0000:02:00.0", "0x030000", "0x1a03", "2.5 GT/s PCIe", "1", "0", "0f" },
		{ "pci0000:00", "0000:03:00.0", "0x020000", "0x8086", "5.0 GT/s PCIe", "4", "-1", "ff" },
		{ "pci0000:00", "0000:04:00.0", "0x010802", "0x8086", "5.0 GT/s PCIe", "4", "0", "ff" },
	};

	static const struct device vf = { "pci0000:00", "0000:03:10.0", "0x020000", "0x8086", NULL, NULL, "0", "0f" };

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		device(&rows[i]);
	device(&vf);
	CHECK(!symlink("../0000:03:00.0", full("/sys/devices/pci0000:00/0000:03:10.0/physfn")));
}

#define IB "pci0000:00/0000:00:01.0/0000:10:00.0/0000:11:08.0/0000:13:00.0"
#define ETH "pci0000:00/0000:03:00.0"

static void server_ports(void)
{
	entry("infiniband", "mlx5_0", IB);
	put_at(IB, "infiniband", "mlx5_0", "node_guid", "248a:0703:001e:39fe");
	put_at(IB, "infiniband", "mlx5_0", "ports/1/state", "4: ACTIVE");
	put_at(IB, "infiniband", "mlx5_0", "ports/1/rate", "100 Gb/sec (4X EDR)");
	put_at(IB, "infiniband", "mlx5_0", "ports/2/state", "1: DOWN");
	put_at(IB, "infiniband", "mlx5_0", "ports/2/rate", "2.5 Gb/sec (1X SDR)");
	entry("net", "ib0", IB);
	entry("net", "eth0", ETH);
	put_at(ETH, "net", "eth0", "speed", "10000");
	entry("net", "docker0", "virtual");
	put("/sys/devices/virtual/net/docker0/type", "1");
	put("/sys/devices/virtual/net/docker0/operstate", "up");
}

static void check_server(const struct tt_topo *t)
{
	CHECK(tt_topo_count(t, TT_NODE_NUMA) == 2 && tt_topo_find(t, "numa8") > 0);
	CHECK(test_assumes(t, "numa255 has no CPUs"));
	CHECK(tt_topo_count(t, TT_NODE_CORE) == 4 && tt_topo_count(t, TT_NODE_CACHE) == 2);
	CHECK(!strcmp(tt_topo_attr(t, tt_topo_find(t, "core1"), "cpus"), "1,3"));
	CHECK(!strcmp(parent_of(t, "core5"), "l3-4") && bandwidth_of(t, "numa0") == 10000);
	CHECK(tt_topo_count(t, TT_NODE_GPU) == 2 && tt_topo_count(t, TT_NODE_NIC) == 2);
	CHECK(tt_topo_count(t, TT_NODE_PCI) == 1 && !strcmp(parent_of(t, "0000:12:00.0"), "0000:10:00.0"));
	CHECK(!strcmp(parent_of(t, "0000:81:00.0"), "numa8") && !strcmp(parent_of(t, "0000:03:00.0"), "host"));
	CHECK(test_assumes(t, "0000:81:00.0: numa_node says numa0, local_cpus numa8"));
	CHECK(test_assumes(t, "0000:03:00.0: its NUMA node is not known"));
	CHECK(bandwidth_of(t, "0000:12:00.0") == 6000 && bandwidth_of(t, "0000:13:00.0") == 12000);
	CHECK(bandwidth_of(t, "0000:81:00.0") == TT_NO_LIMIT && test_assumes(t, "0000:81:00.0: the speed of its PCI"));
	CHECK(!strcmp(test_between(t, "0000:12:00.0", "0000:13:00.0"), "PIX"));
	CHECK(!strcmp(test_between(t, "0000:81:00.0", "0000:13:00.0"), "SYS"));
	CHECK(bandwidth_of(t, "0000:13:00.0/mlx5_0:1") == 12500 && tt_topo_count(t, TT_NODE_PORT) == 3);
	CHECK(bandwidth_of(t, "0000:13:00.0/mlx5_0:2") == TT_NO_LIMIT);
	CHECK(test_assumes(t, "mlx5_0 port 2 is not active"));
	CHECK(!strcmp(tt_topo_attr(t, tt_topo_find(t, "0000:13:00.0/mlx5_0:2"), "state"), "down"));
	CHECK(test_assumes(t, "0000:03:10.0 is a virtual function without interface"));
	CHECK(!strcmp(tt_topo_attr(t, tt_topo_find(t, "0000:13:00.0/mlx5_0:1"), "guid"), "0x248a0703001e39fe"));
	CHECK(bandwidth_of(t, "0000:03:00.0/eth0") == 1250 && tt_topo_find(t, "virt:docker0") < 0);
}

static void server(void)
{
	struct tt_topo *t, *u;
	char *text;

	begin_tree();
	server_cpus();
	server_devices();
	server_ports();
	t = look();
	check_server(t);
	CHECK(!tt_topo_write(t, &text));
	u = test_topo_text(text);
	check_server(u);
	CHECK(tt_topo_digest(t) == tt_topo_digest(u));
	free(text);
	tt_topo_free(u);
	CHECK(!tt_topo_load(root, NULL, &u) && tt_topo_digest(t) == tt_topo_digest(u));
	CHECK(strstr(u->source, root));
	tt_topo_free(t);
	tt_topo_free(u);
	end_tree();
}

/* One node, no list of nodes, no bridge, a NIC that is no PCI device. */
static void small_vm(void)
{
	static const struct device gpu = { "pci0001:00", "0001:00:00.0", "0x030200", "0x10de", NULL, NULL, "-1", NULL };
	struct tt_topo *t;

	begin_tree();
	put("/proc/cpuinfo", "processor\t: 0\n\nprocessor\t: 1\nCPU implementer\t: 0x41");
	device(&gpu);
	entry("net", "eth0", "virtual");
	put("/sys/devices/virtual/net/eth0/type", "1");
	put("/sys/devices/virtual/net/eth0/operstate", "up");
	put("/sys/devices/virtual/net/eth0/speed", "-1");
	entry("net", "lo", "virtual");
	put("/sys/devices/virtual/net/lo/type", "772");
	put("/sys/devices/virtual/net/lo/operstate", "up");
	t = look();
	CHECK(test_assumes(t, "no NUMA node is listed") && tt_topo_count(t, TT_NODE_CORE) == 2);
	CHECK(!strcmp(tt_topo_attr(t, tt_topo_find(t, "numa0"), "arch"), "arm64"));
	CHECK(tt_topo_count(t, TT_NODE_NIC) == 1 && !strcmp(test_between(t, "0001:00:00.0", "virt:eth0"), "PHB"));
	CHECK(bandwidth_of(t, "virt:eth0/eth0") == TT_NO_LIMIT && test_assumes(t, "eth0: its speed is not known"));
	tt_topo_free(t);
	end_tree();
}

static void nothing_at_all(void)
{
	struct tt_topo *t;

	begin_tree();
	t = look();
	CHECK(t->nnodes == 2 && test_assumes(t, "no CPU is listed") && test_assumes(t, "PCI devices are not listed"));
	tt_topo_free(t);
	CHECK(tt_topo_load(root, NULL, &t) == tuttiInvalidArgument && strstr(tt_last_error(), "without sys and proc"));
	end_tree();
}

/* ---- AMD's driver: a square of four GPUs, two links on two of its sides, none across; one GPU in two parts ---- */

static void kfd_node(int node, long version, long place)
{
	char path[128], text[200];

	snprintf(path, sizeof(path), "/sys/class/kfd/kfd/topology/nodes/%d/properties", node);
	snprintf(text, sizeof(text), "cpu_cores_count %d\nsimd_count %d\ngfx_target_version %ld\nlocation_id %ld\n"
		 "domain 0", version ? 0 : 8, version ? 440 : 0, version, place);
	put(path, text);
}

static void kfd_link(int from, int at, int to, int type, int weight, int count)
{
	char path[128], text[200];

	snprintf(path, sizeof(path), "/sys/class/kfd/kfd/topology/nodes/%d/io_links/%d/properties", from, at);
	snprintf(text, sizeof(text), "type %d\nversion_major 0\nnode_from %d\nnode_to %d\nweight %d\n"
		 "min_bandwidth %d\nmax_bandwidth %d", type, from, to, weight, count ? 50000 : 0, 50000 * count);
	put(path, text);
}

static void amd_gpus(void)
{
	for (int i = 0; i < 4; i++) {
		char bus[16];
		struct device gpu = { "pci0000:00", bus, "0x038000", "0x1002", "16.0 GT/s PCIe", "16", "0", "0f" };

		snprintf(bus, sizeof(bus), "0000:%02x:00.0", 0xc1 + i);
		device(&gpu);
		kfd_node(1 + i, 90010, (0xc1 + i) << 8);
		kfd_link(1 + i, 0, 0, 2, 20, 0); /* PCI to the CPU */
		kfd_link(1 + i, 1, 1 + (i + 1) % 4, 11, 15, i % 2 ? 0 : 2);
		kfd_link(1 + i, 2, 1 + (i + 2) % 4, 11, 30, 1);
		kfd_link(1 + i, 3, 1 + (i + 3) % 4, 11, 15, i % 2 ? 2 : 0);
	}
	kfd_node(0, 0, 0);
	kfd_node(5, 90010, 0xc1 << 8 | 1); /* the other part of the first */
	kfd_link(5, 0, 1, 11, 13, 0);
	kfd_link(5, 1, 2, 11, 15, 2);
}

static const struct tt_topo_link *find_link(const struct tt_topo *t, const char *from, const char *to)
{
	for (int i = 0; i < t->nlinks; i++)
		if (!strcmp(t->nodes[t->links[i].from].id, from) && !strcmp(t->nodes[t->links[i].to].id, to))
			return &t->links[i];
	return NULL;
}

static void xgmi(void)
{
	const struct tt_topo_link *l;
	struct tt_topo *t;
	char hidden[128];

	begin_tree();
	numa(0, "0f");
	amd_gpus();
	t = look();
	CHECKF(tt_topo_count(t, TT_NODE_GPU) == 4 && t->nlinks == 8, "%d GPUs, %d links", tt_topo_count(t, TT_NODE_GPU),
	       t->nlinks);
	CHECK(!strcmp(tt_topo_attr(t, tt_topo_find(t, "0000:c1:00.0"), "gcn"), "gfx90a"));
	l = find_link(t, "0000:c1:00.0", "0000:c2:00.0");
	CHECK(l && l->kind == TT_LINK_XGMI && l->count == 2 && l->bandwidth == 36000);
	l = find_link(t, "0000:c3:00.0", "0000:c2:00.0");
	CHECK(l && l->count == 1 && !find_link(t, "0000:c1:00.0", "0000:c3:00.0"));
	CHECK(!strcmp(test_between(t, "0000:c1:00.0", "0000:c3:00.0"), "NVB"));
	CHECK(!test_assumes(t, "links back") && !test_assumes(t, "xGMI links are not known"));
	tt_topo_free(t);
	/* A GPU that is no PCI device here, and without the driver's folder. */
	kfd_node(6, 90402, 0xd1 << 8);
	t = look();
	CHECK(test_assumes(t, "0000:d1:00.0: a GPU that only its driver lists"));
	CHECK(!strcmp(tt_topo_attr(t, tt_topo_find(t, "0000:d1:00.0"), "gcn"), "gfx942"));
	tt_topo_free(t);
	snprintf(hidden, sizeof(hidden), "%s/sys/class/other", root);
	CHECK(!rename(full("/sys/class/kfd"), hidden));
	t = look();
	CHECK(t->nlinks == 0 && test_assumes(t, "xGMI links are not known"));
	tt_topo_free(t);
	end_tree();
}

/* ---- this machine ---- */

static void this_machine(void)
{
	struct tt_topo *t, *u, *v;

	CHECK(!tt_topo_here(&t) && !tt_topo_here(&u) && !tt_topo_from_sysfs("", &v));
	CHECK(tt_topo_digest(t) == tt_topo_digest(u) && strstr(t->source, "this machine"));
	CHECK(tt_topo_count(t, TT_NODE_NUMA) >= 1 && tt_topo_count(t, TT_NODE_CORE) >= 1);
	CHECK(tt_topo_count(t, TT_NODE_NUMA) == tt_topo_count(v, TT_NODE_NUMA));
	CHECK(tt_topo_count(t, TT_NODE_NIC) == tt_topo_count(v, TT_NODE_NIC));
	tt_topo_free(t);
	tt_topo_free(u);
	tt_topo_free(v);
}

/* What ranks use: the setting, then NCCL's, else the machine; and what they write. */
static void settings(void)
{
	char dump[100];
	struct tt_topo *t, *u;

	begin_tree();
	snprintf(dump, sizeof(dump), "%s/dump.xml", root);
	setenv("TUTTI_TOPO_DUMP_FILE", dump, 1);
	setenv("NCCL_TOPO_FILE", "tests/fixtures/topo/xgmi.xml", 1);
	CHECK(!tt_topo_local(&t) && tt_topo_count(t, TT_NODE_GPU) == 4 && strstr(t->source, "from this machine"));
	CHECK(tt_topo_count(t, TT_NODE_CORE) >= 1);
	CHECK(!tt_topo_load(dump, NULL, &u) && tt_topo_count(u, TT_NODE_GPU) == 4);
	tt_topo_free(t);
	tt_topo_free(u);
	setenv("TUTTI_TOPO_FILE", "tests/fixtures/topo/nvswitch.xml", 1);
	setenv("TUTTI_TOPO_DUMP_FILE", "/nowhere/dump.xml", 1);
	CHECK(!tt_topo_local(&t) && tt_topo_count(t, TT_NODE_NVSWITCH) == 1);
	tt_topo_free(t);
	setenv("TUTTI_TOPO_FILE", "/nowhere/machine.xml", 1);
	CHECK(tt_topo_local(&t) == tuttiInvalidArgument && strstr(tt_last_error(), "/nowhere/machine.xml: No such"));
	unsetenv("TUTTI_TOPO_FILE");
	unsetenv("NCCL_TOPO_FILE");
	unsetenv("TUTTI_TOPO_DUMP_FILE");
	end_tree();
}

static void what_is_none(void)
{
	struct tt_topo *t;

	CHECK(tt_topo_load("README.md", NULL, &t) == tuttiInvalidArgument && strstr(tt_last_error(), "is no topology"));
	CHECK(tt_topo_load("src", NULL, &t) == tuttiInvalidArgument);
	CHECK(!tt_topo_load("tests/fixtures/topo/two-sockets.topo", NULL, &t) && strstr(t->source, "(text)"));
	tt_topo_free(t);
}

/* ---- hwloc: where it is not, a word that says so ---- */

static bool has_hwloc(void)
{
	struct tt_topo *t;

	if (!tt_topo_from_synthetic("pu:1", &t)) {
		tt_topo_free(t);
		return true;
	}
	CHECKF(strstr(tt_last_error(), "Debian package libhwloc"), "%s", tt_last_error());
	return false;
}

static void synthetic(void)
{
	struct tt_topo *t;

	if (!has_hwloc())
		return;
	CHECK(!tt_topo_load("synthetic:package:2 numa:2 l3:1 core:3 pu:2", NULL, &t));
	CHECK(tt_topo_count(t, TT_NODE_NUMA) == 4 && tt_topo_count(t, TT_NODE_CORE) == 12);
	CHECK(!strcmp(test_between(t, "core0", "core2"), "CACHE") && !strcmp(test_between(t, "core0", "core6"), "SYS"));
	CHECK(!strcmp(tt_topo_attr(t, tt_topo_find(t, "numa3"), "package"), "1"));
	tt_topo_free(t);
	CHECK(tt_topo_load("synthetic:no such thing", NULL, &t) == tuttiInvalidArgument);
}

/* NVSwitches whose trunks are not listed, a GPU and a NIC behind one switch, a root port that is none. */
static void hwloc_xml(void)
{
	struct tt_topo *t;

	if (!has_hwloc())
		return;
	CHECKF(!tt_topo_load("tests/fixtures/topo/hwloc2.xml", NULL, &t), "%s", tt_last_error());
	CHECK(tt_topo_count(t, TT_NODE_GPU) == 2 && tt_topo_count(t, TT_NODE_NIC) == 1);
	CHECK(tt_topo_count(t, TT_NODE_NVSWITCH) == 1 && t->nlinks == 4 && t->links[0].count == 2);
	CHECK(t->links[0].bandwidth == 20000 && !strcmp(test_between(t, "0000:12:00.0", "0000:81:00.0"), "NVL"));
	CHECK(!strcmp(test_between(t, "0000:12:00.0", "0000:13:00.0"), "PIX"));
	CHECK(bandwidth_of(t, "0000:12:00.0") == 12000 && bandwidth_of(t, "0000:81:00.0") == TT_NO_LIMIT);
	CHECK(!strcmp(parent_of(t, "0000:81:00.0"), "numa1") && tt_topo_find(t, "0000:13:00.0/mlx5_0") > 0);
	tt_topo_free(t);
	CHECK(tt_topo_load("tests/fixtures/topo/hwloc3.xml", NULL, &t) == tuttiInvalidArgument);
	CHECKF(strstr(tt_last_error(), "cannot read this XML"), "%s", tt_last_error());
}

const struct test tests[] = {
	{ "xgmi", xgmi, 0 },
	{ "server", server, 0 },         { "small_vm", small_vm, 0 },         { "nothing_at_all", nothing_at_all, 0 },
	{ "this_machine", this_machine, 0 }, { "settings", settings, 0 },     { "what_is_none", what_is_none, 0 },
	{ "synthetic", synthetic, 0 },   { "hwloc_xml", hwloc_xml, 0 },
};
const int ntests = sizeof(tests) / sizeof(tests[0]);
