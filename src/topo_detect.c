/* Topologies through hwloc, found at run time: of this machine, from its XML, from a synthetic string; what hwloc does
 * not say comes from /sys. Without hwloc, /sys alone. SPDX-License-Identifier: Apache-2.0 */
#include "topo_sys.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if !defined(TT_NO_HWLOC) && __has_include(<hwloc.h>)
#define TT_HAVE_HWLOC 1
#include <dlfcn.h>
#include <hwloc.h>
#include <pthread.h>
#else
#define TT_HAVE_HWLOC 0
#endif

static tuttiResult_t finish(struct tt_topo *t, struct tt_topo **out)
{
	tuttiResult_t r = tt_topo_finish(t);

	if (r == tuttiSuccess)
		*out = t;
	else
		tt_topo_free(t);
	return r;
}

#if TT_HAVE_HWLOC

#define FUNCTIONS(X)                                                                                                   \
	X(get_api_version) X(topology_init) X(topology_destroy) X(topology_load) X(topology_set_io_types_filter)       \
	X(topology_set_xmlbuffer) X(topology_set_synthetic) X(topology_set_components) X(get_obj_by_depth)             \
	X(get_type_depth) X(bitmap_list_asprintf) X(bitmap_first) X(distances_get_by_name) X(distances_release)

static struct {
#define MEMBER(name) __typeof__(hwloc_##name) *name;
	FUNCTIONS(MEMBER)
#undef MEMBER
	bool ok;
	char why[256];
} lib;

/* Structs are those of the headers: the same for all versions 2. */
static void load(void)
{
	const struct tt_symbol rows[] = {
#define ROW(name) { &lib.name, "hwloc_" #name },
		FUNCTIONS(ROW)
#undef ROW
	};
	void *so = dlopen("libhwloc.so.15", RTLD_NOW | RTLD_LOCAL);
	const char *missing;

	if (!so) {
		snprintf(lib.why, sizeof(lib.why), "no hwloc: %s (Debian package libhwloc15)", dlerror());
		return;
	}
	missing = tt_symbols(so, rows, sizeof(rows) / sizeof(rows[0]));
	if (missing) {
		snprintf(lib.why, sizeof(lib.why), "libhwloc.so.15 has no %s: it is too old", missing);
		return;
	}
	lib.ok = lib.get_api_version() >> 16 == HWLOC_API_VERSION >> 16;
	if (!lib.ok)
		snprintf(lib.why, sizeof(lib.why), "libhwloc.so.15 is of version %u, not %d",
			 lib.get_api_version() >> 16, HWLOC_API_VERSION >> 16);
}

static bool here(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, load);
	return lib.ok;
}

/* ---- CPUs ---- */

struct walk {
	struct tt_sys s;
	hwloc_topology_t topo;
};

static bool cpus_of(hwloc_const_bitmap_t set, struct tt_cpus *out)
{
	char *text = NULL;
	bool good;

	*out = (struct tt_cpus){ 0 };
	if (!set || lib.bitmap_list_asprintf(&text, set) < 0)
		return false;
	good = tt_cpus_list(text, out);
	free(text);
	return good;
}

static const char *info_of(const struct hwloc_obj *o, const char *name)
{
	for (unsigned i = 0; i < o->infos_count; i++)
		if (!strcmp(o->infos[i].name, name))
			return o->infos[i].value;
	return NULL;
}

/* The memory of a GPU is a NUMA node with the CPUs of another. */
static bool is_second(const struct walk *w, const struct tt_cpus *cpus)
{
	for (int i = 0; i < w->s.nnuma; i++)
		if (tt_cpus_common(&w->s.numa[i].cpus, cpus))
			return true;
	return !tt_cpus_count(cpus);
}

static void about_package(struct walk *w, int node, hwloc_obj_t o)
{
	static const char *const infos[][2] = { { "CPUVendor", "vendor" }, { "CPUFamilyNumber", "familyid" },
						{ "CPUModelNumber", "modelid" }, { "Architecture", "arch" } };

	for (; o; o = o->parent) {
		if (o->type == HWLOC_OBJ_PACKAGE)
			tt_topo_setf(w->s.t, node, "package", "%u", o->os_index);
		for (int i = 0; i < 4; i++)
			if (!tt_topo_attr(w->s.t, node, infos[i][1]))
				tt_topo_set(w->s.t, node, infos[i][1], info_of(o, infos[i][0]));
	}
}

static void find_numa(struct walk *w)
{
	hwloc_obj_t o;
	char id[32];

	for (unsigned i = 0; (o = lib.get_obj_by_depth(w->topo, HWLOC_TYPE_DEPTH_NUMANODE, i)) != NULL; i++) {
		struct tt_cpus cpus;

		snprintf(id, sizeof(id), "numa%u", o->os_index);
		if (!cpus_of(o->cpuset, &cpus) || is_second(w, &cpus)) {
			tt_topo_assume(w->s.t, "%s has no CPUs: left out (memory of a device, or memory alone)", id);
			tt_cpus_free(&cpus);
			continue;
		}
		tt_sys_numa(&w->s, id, &cpus);
		if (w->s.t->failed == tuttiSuccess)
			about_package(w, w->s.numa[w->s.nnuma - 1].node, o);
	}
}

static void add_core(struct walk *w, hwloc_obj_t o)
{
	struct tt_cpus threads, shared = { 0 };
	int level = 0;
	bool good = cpus_of(o->cpuset, &threads);

	for (hwloc_obj_t up = o->parent; up; up = up->parent)
		if (up->type >= HWLOC_OBJ_L2CACHE && up->type <= HWLOC_OBJ_L5CACHE) {
			tt_cpus_free(&shared);
			level = cpus_of(up->cpuset, &shared) ? (int)(up->type - HWLOC_OBJ_L2CACHE) + 2 : 0;
		}
	for (int i = 0; good && i < w->s.nnuma; i++)
		if (tt_cpus_common(&w->s.numa[i].cpus, &threads)) {
			tt_sys_core(&w->s, &w->s.numa[i], &threads, level, &shared);
			break;
		}
	tt_cpus_free(&threads);
	tt_cpus_free(&shared);
}

static void find_cores(struct walk *w)
{
	int depth = lib.get_type_depth(w->topo, HWLOC_OBJ_CORE);
	hwloc_obj_t o;

	if (depth < 0)
		depth = lib.get_type_depth(w->topo, HWLOC_OBJ_PU);
	for (unsigned i = 0; depth >= 0 && (o = lib.get_obj_by_depth(w->topo, depth, i)) != NULL; i++)
		add_core(w, o);
}

/* ---- devices ---- */

/* hwloc has GB/s without the encoding: the generation and width that make them, 16 lanes first. */
static void set_link(struct tt_topo *t, int node, double gbytes)
{
	static const struct {
		const char *text;
		double lane; /* GB/s */
	} gens[] = { { "2.5 GT/s", .25 }, { "5 GT/s", .5 }, { "8 GT/s", 8 / 8.125 }, { "16 GT/s", 16 / 8.125 },
		     { "32 GT/s", 32 / 8.125 }, { "64 GT/s", 64 / 8.125 } };

	for (int lanes = 16; lanes && gbytes > 0; lanes /= 2)
		for (size_t i = 0; i < sizeof(gens) / sizeof(gens[0]); i++) {
			double off = gens[i].lane * lanes / gbytes;

			if (off < 0.98 || off > 1.02)
				continue;
			t->nodes[node].bandwidth = tt_rate_pci(gens[i].text, lanes);
			tt_topo_set(t, node, "link_speed", gens[i].text);
			tt_topo_setf(t, node, "link_width", "%d", lanes);
			return;
		}
}

static void bus_of(const struct hwloc_pcidev_attr_s *p, char *out)
{
	snprintf(out, TT_BUS, "%04x:%02x:%02x.%x", p->domain, p->bus, p->dev, p->func);
}

static void set_pci(struct tt_topo *t, int node, const struct hwloc_pcidev_attr_s *p)
{
	if (tt_topo_attr(t, node, "class"))
		return;
	tt_topo_setf(t, node, "class", "0x%06x", p->class_id << 8);
	tt_topo_setf(t, node, "vendor", "0x%04x", p->vendor_id);
	tt_topo_setf(t, node, "device", "0x%04x", p->device_id);
	tt_topo_setf(t, node, "subsystem_vendor", "0x%04x", p->subvendor_id);
	tt_topo_setf(t, node, "subsystem_device", "0x%04x", p->subdevice_id);
	set_link(t, node, p->linkspeed);
}

static bool is_pci_bridge(const struct hwloc_obj *o)
{
	return o->type == HWLOC_OBJ_BRIDGE && o->attr->bridge.upstream_type == HWLOC_OBJ_BRIDGE_PCI;
}

/* The bridges above a device, from the root port down, and the host bridge. */
static int bridges_above(hwloc_obj_t o, char (*above)[TT_BUS], int max, char *host)
{
	int n = 0, k = 0;

	*host = 0;
	for (hwloc_obj_t up = o->parent; up && (is_pci_bridge(up) || up->type == HWLOC_OBJ_BRIDGE); up = up->parent) {
		if (is_pci_bridge(up))
			n++;
		else
			snprintf(host, TT_BUS, "pci%04x:%02x", up->attr->bridge.downstream.pci.domain,
				 up->attr->bridge.downstream.pci.secondary_bus);
	}
	for (hwloc_obj_t up = o->parent; up && is_pci_bridge(up); up = up->parent, k++)
		if (n - 1 - k < max)
			bus_of(&up->attr->bridge.upstream.pci, above[n - 1 - k]);
	return n < max ? n : max;
}

static int numa_of(struct walk *w, hwloc_obj_t o)
{
	struct tt_cpus cpus;
	int node = 0;

	while (o && !o->cpuset)
		o = o->parent;
	if (o && cpus_of(o->cpuset, &cpus)) {
		node = tt_sys_nearest(&w->s, &cpus);
		tt_cpus_free(&cpus);
	}
	return node > 0 ? node : w->s.nnuma == 1 ? w->s.numa[0].node : 0;
}

static bool has_osdev(hwloc_obj_t o, hwloc_obj_osdev_type_t a, hwloc_obj_osdev_type_t b)
{
	for (hwloc_obj_t c = o->io_first_child; c; c = c->next_sibling)
		if (c->type == HWLOC_OBJ_OS_DEVICE && (c->attr->osdev.type == a || c->attr->osdev.type == b))
			return true;
	return false;
}

static void set_bridges(struct walk *w, hwloc_obj_t o)
{
	for (hwloc_obj_t up = o->parent; up && is_pci_bridge(up); up = up->parent) {
		char bus[TT_BUS];
		int node;

		bus_of(&up->attr->bridge.upstream.pci, bus);
		node = tt_topo_find(w->s.t, bus);
		if (node > 0)
			set_pci(w->s.t, node, &up->attr->bridge.upstream.pci);
	}
}

/* Ports by name alone; their speeds are not hwloc's to say. RDMA devices before interfaces. */
static void add_ports(struct walk *w, int nic, hwloc_obj_t o)
{
	bool rdma = has_osdev(o, HWLOC_OBJ_OSDEV_OPENFABRICS, HWLOC_OBJ_OSDEV_OPENFABRICS);
	hwloc_obj_osdev_type_t type = rdma ? HWLOC_OBJ_OSDEV_OPENFABRICS : HWLOC_OBJ_OSDEV_NETWORK;
	char id[300];

	for (hwloc_obj_t c = o->io_first_child; c; c = c->next_sibling) {
		int port;

		if (c->type != HWLOC_OBJ_OS_DEVICE || c->attr->osdev.type != type || !c->name)
			continue;
		snprintf(id, sizeof(id), "%s/%.200s", w->s.t->nodes[nic].id, c->name);
		port = tt_topo_add(w->s.t, TT_NODE_PORT, id, nic);
		tt_topo_set(w->s.t, port, "name", c->name);
		tt_topo_assume(w->s.t, "%s: its speed is not known: no limit", c->name);
	}
}

static void add_device(struct walk *w, hwloc_obj_t o, bool live)
{
	const struct hwloc_pcidev_attr_s *p = &o->attr->pcidev;
	int kind = tt_device_kind((unsigned long)p->class_id << 8, p->vendor_id, p->device_id), node, n;
	char above[64][TT_BUS], host[TT_BUS], bus[TT_BUS];

	if (has_osdev(o, HWLOC_OBJ_OSDEV_NETWORK, HWLOC_OBJ_OSDEV_OPENFABRICS))
		kind = TT_NODE_NIC;
	if (kind != TT_NODE_GPU && kind != TT_NODE_NIC)
		return;
	bus_of(p, bus);
	if (live && kind == TT_NODE_NIC && tt_sys_idle_vf(&w->s, bus))
		return;
	n = bridges_above(o, above, 64, host);
	node = tt_sys_hang(&w->s, (enum tt_node_kind)kind, bus, numa_of(w, o), host, above, n);
	if (live)
		return;
	set_pci(w->s.t, node, p);
	set_bridges(w, o);
	for (hwloc_obj_t c = o->io_first_child; c && kind == TT_NODE_GPU; c = c->next_sibling)
		tt_topo_set(w->s.t, node, "name", info_of(c, "GPUModel"));
	if (kind == TT_NODE_NIC)
		add_ports(w, node, o);
	if (w->s.t->nodes[node].bandwidth == TT_NO_LIMIT)
		tt_topo_assume(w->s.t, "%s: the speed of its PCI link is not known: no limit", bus);
}

static void find_devices(struct walk *w, bool live)
{
	hwloc_obj_t o;

	for (unsigned i = 0; (o = lib.get_obj_by_depth(w->topo, HWLOC_TYPE_DEPTH_PCI_DEVICE, i)) != NULL; i++)
		if (w->s.t->failed == tuttiSuccess)
			add_device(w, o, live);
	for (int i = 0; live && i < w->s.t->nnodes; i++)
		if (w->s.t->nodes[i].kind == TT_NODE_PCI || w->s.t->nodes[i].kind == TT_NODE_GPU ||
		    w->s.t->nodes[i].kind == TT_NODE_NIC)
			tt_sys_device(&w->s, i);
}

/* ---- NVLinks, as hwloc's NVML part recorded them ---- */

/* The node of an end: a GPU, or the one NVSwitch that stands for all of the fabric; -1: something else. */
static int link_end(struct walk *w, hwloc_obj_t o)
{
	char bus[TT_BUS];
	int node;

	while (o && o->type != HWLOC_OBJ_PCI_DEVICE)
		o = o->parent;
	if (!o)
		return -1;
	bus_of(&o->attr->pcidev, bus);
	node = tt_topo_find(w->s.t, bus);
	return node < 0 && o->subtype && !strcmp(o->subtype, "NVSwitch") ? tt_topo_fabric(w->s.t, bus) : node;
}

/* MB/s as the maker states them: 25000 a link, 20000 of the first generation; counted at what is reached. */
static void add_links(struct walk *w, int from, int to, uint64_t mbytes)
{
	uint64_t one = mbytes % 25000 && !(mbytes % 20000) ? 20000 : 25000, n = mbytes / one ? mbytes / one : 1;

	if (from != to && n < 1000)
		tt_topo_link(w->s.t, TT_LINK_NVLINK, from, to, (uint32_t)n, (uint32_t)(mbytes / n * 4 / 5));
}

static void find_links(struct walk *w)
{
	struct hwloc_distances_s *d = NULL;
	unsigned n = 1;

	if (lib.distances_get_by_name(w->topo, "NVLinkBandwidth", &n, &d, 0) || !n)
		return;
	for (unsigned i = 0; i < d->nbobjs; i++)
		for (unsigned k = 0; k < d->nbobjs; k++) {
			uint64_t v = d->values[i * d->nbobjs + k];
			int from = v ? link_end(w, d->objs[i]) : -1, to = v ? link_end(w, d->objs[k]) : -1;

			if (from > 0 && to > 0)
				add_links(w, from, to, v);
		}
	lib.distances_release(w->topo, d);
}

/* ---- the three sources ---- */

/* Those that would open devices: a library that only wants to know must not. */
static void without_drivers(hwloc_topology_t topo)
{
	static const char *const names[] = { "cuda", "nvml", "opencl", "gl", "rsmi", "levelzero" };

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		lib.topology_set_components(topo, HWLOC_TOPOLOGY_COMPONENTS_FLAG_BLACKLIST, names[i]);
}

static bool walk_all(struct walk *w, bool live)
{
	if (lib.topology_load(w->topo))
		return false;
	find_numa(w);
	find_cores(w);
	find_devices(w, live);
	find_links(w);
	if (live) {
		tt_sys_about_cpu(&w->s);
		tt_sys_ports(&w->s);
		tt_sys_xgmi(&w->s);
		tt_sys_nvlinks(&w->s);
	}
	return true;
}

static bool begin(struct walk *w, struct tt_topo *t)
{
	*w = (struct walk){ .s = { .root = "", .t = t } };
	if (lib.topology_init(&w->topo))
		return false;
	lib.topology_set_io_types_filter(w->topo, HWLOC_TYPE_FILTER_KEEP_ALL);
	return true;
}

static void end(struct walk *w)
{
	lib.topology_destroy(w->topo);
	tt_sys_free(&w->s);
}

static bool detect(struct tt_topo *t)
{
	struct walk w;
	bool good;

	if (!here() || !begin(&w, t))
		return false;
	without_drivers(w.topo);
	good = walk_all(&w, true);
	if (good && !tt_sys_there(&w.s, "/sys/bus/pci/devices"))
		tt_topo_assume(t, "PCI devices are not listed: GPUs and NICs are not known");
	end(&w);
	tt_topo_source(t, "this machine, by hwloc %u.%u and /sys", lib.get_api_version() >> 16,
		       lib.get_api_version() >> 8 & 0xff);
	return good;
}

static tuttiResult_t by_hwloc(const char *text, size_t n, bool xml, struct tt_topo **out)
{
	struct tt_topo *t;
	struct walk w;
	bool good;

	if (!here())
		return tt_fail(tuttiUnsupported, "hwloc's %s cannot be read: %s",
			       xml ? "XML" : "synthetic strings", lib.why);
	TRY(tt_topo_new(&t));
	if (!begin(&w, t)) {
		tt_topo_free(t);
		return tt_fail(tuttiSystemError, "hwloc cannot begin a topology: no memory");
	}
	good = !(xml ? lib.topology_set_xmlbuffer(w.topo, text, (int)n) : lib.topology_set_synthetic(w.topo, text)) &&
	       walk_all(&w, false);
	if (!good)
		tt_topo_fail(t, tuttiInvalidArgument, "hwloc %u cannot read %s%.100s", lib.get_api_version() >> 16,
			     xml ? "this XML (it reads the versions up to its own)" : "the synthetic string ",
			     xml ? "" : text);
	end(&w);
	return finish(t, out);
}

#else

static struct {
	char why[256];
} lib = { "built without the headers of hwloc (Debian package libhwloc-dev)" };

static bool detect(struct tt_topo *t)
{
	return false;
}

static tuttiResult_t by_hwloc(const char *text, size_t n, bool xml, struct tt_topo **out)
{
	return tt_fail(tuttiUnsupported, "hwloc's %s cannot be read: %s", xml ? "XML" : "synthetic strings", lib.why);
}

#endif

tuttiResult_t tt_topo_from_hwloc(const char *text, size_t n, struct tt_topo **out)
{
	return by_hwloc(text, n, true, out);
}

tuttiResult_t tt_topo_from_synthetic(const char *text, struct tt_topo **out)
{
	return by_hwloc(text, 0, false, out);
}

static void count_node(struct tt_sys *s, const char *name)
{
	s->nnuma += !strncmp(name, "node", 4) && name[4] >= '0' && name[4] <= '9';
}

/* hwloc 2 asserts that a list of NUMA nodes has one in it; in a container it may be hidden. */
static bool hwloc_would_abort(struct tt_topo *t)
{
	struct tt_sys s = { .root = "", .t = t };

	return tt_sys_each(&s, "/sys/devices/system/node", count_node) && !s.nnuma;
}

tuttiResult_t tt_topo_here(struct tt_topo **out)
{
	struct tt_sys s = { .root = "" };
	bool sys = tt_sys_there(&s, "/sys/devices/system/cpu"), hidden;
	struct tt_topo *t;

	TRY(tt_topo_new(&t));
	hidden = hwloc_would_abort(t);
	if (sys && !hidden && detect(t))
		return finish(t, out);
	tt_topo_free(t);
	TRY(tt_topo_new(&t));
	if (!sys)
		tt_topo_source(t, "this machine, by /proc (no CPUs in /sys)");
	else
		tt_topo_source(t, "this machine, by /sys (%s)",
			       hidden ? "no hwloc: it does not bear an empty /sys/devices/system/node" :
			       *lib.why ? lib.why : "hwloc could not look at it");
	tt_topo_of_sysfs(t, "");
	return finish(t, out);
}
