/* NVLinks and C2C of this machine's GPUs, through NVIDIA's management library, found at run time. It opens no GPU for
 * work and makes no context. SPDX-License-Identifier: Apache-2.0 */
#include "topo_sys.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

/* The part of libnvidia-ml.so.1 that is used; its versions keep what a name with a number means. */
struct pci {
	char legacy[16];
	unsigned domain, bus, device, id, subsystem;
	char bus_id[32];
};
struct field {
	unsigned id, scope;
	long long time, latency;
	int type, result;
	union {
		double real;
		unsigned number;
		unsigned long long wide;
	} value;
};
enum { MAX_LINKS = 64, DEVICE_GPU = 0, DEVICE_SWITCH = 2, C2C_COUNT = 170, C2C_ACTIVE = 171, C2C_MBYTES = 172 };

struct nvml {
	int (*init)(void);
	int (*shutdown)(void);
	int (*count)(unsigned *n);
	int (*by_index)(unsigned i, void **dev);
	int (*pci)(void *dev, struct pci *out);
	int (*name)(void *dev, char *out, unsigned n);
	int (*capability)(void *dev, int *major, int *minor);
	int (*link_state)(void *dev, unsigned link, unsigned *active);
	int (*link_pci)(void *dev, unsigned link, struct pci *out);
	int (*link_type)(void *dev, unsigned link, int *type); /* NULL in drivers before 2021 */
	int (*fields)(void *dev, int n, struct field *f);      /* or NULL */
	struct tt_sys *s;
};

static bool load(struct nvml *n, void *so)
{
	const struct tt_symbol rows[] = {
		{ &n->link_type, "nvmlDeviceGetNvLinkRemoteDeviceType" }, { &n->fields, "nvmlDeviceGetFieldValues" },
		{ &n->init, "nvmlInit_v2" }, { &n->shutdown, "nvmlShutdown" }, { &n->count, "nvmlDeviceGetCount_v2" },
		{ &n->by_index, "nvmlDeviceGetHandleByIndex_v2" }, { &n->pci, "nvmlDeviceGetPciInfo_v3" },
		{ &n->name, "nvmlDeviceGetName" }, { &n->capability, "nvmlDeviceGetCudaComputeCapability" },
		{ &n->link_state, "nvmlDeviceGetNvLinkState" }, { &n->link_pci, "nvmlDeviceGetNvLinkRemotePciInfo_v2" },
	};

	for (int i = 0; i < 2; i++)
		(void)tt_symbols(so, rows + i, 1); /* older ones do without */
	return !tt_symbols(so, rows + 2, sizeof(rows) / sizeof(rows[0]) - 2);
}

/* ---- GPUs ---- */

static int gpu_of(struct nvml *n, unsigned i, void *dev)
{
	struct tt_topo *t = n->s->t;
	char bus[TT_BUS], name[128] = "";
	struct pci p = { .domain = 0 };
	int major, minor, node;

	if (n->pci(dev, &p) || !tt_bus_id(p.bus_id, bus, sizeof(bus)))
		return -1;
	node = tt_topo_find(t, bus);
	if (node < 0) {
		tt_topo_assume(t, "%s: a GPU that only its driver lists: its place is not known", bus);
		node = tt_topo_add(t, TT_NODE_GPU, bus, 0);
	}
	tt_topo_setf(t, node, "dev", "%u", i);
	if (!n->name(dev, name, sizeof(name)))
		tt_topo_set(t, node, "name", name);
	if (!n->capability(dev, &major, &minor))
		tt_topo_setf(t, node, "sm", "%d", 10 * major + minor);
	return node;
}

/* ---- links ---- */

/* A VM may show neither kind nor address of what is at the other end: then it is a switch, which VMs do not see. */
static int far_end(struct nvml *n, void *dev, unsigned link, int gpu)
{
	struct tt_topo *t = n->s->t;
	struct pci p = { .domain = 0 };
	char bus[TT_BUS] = "", class[32];
	int type = -1, node;

	if (!n->link_type || n->link_type(dev, link, &type))
		type = -1;
	if (!n->link_pci(dev, link, &p) && !tt_bus_id(p.bus_id, bus, sizeof(bus)))
		*bus = 0;
	node = *bus ? tt_topo_find(t, bus) : -1;
	if (node >= 0 && t->nodes[node].kind == TT_NODE_GPU)
		return node;
	tt_sys_line(n->s, class, sizeof(class), "/sys/bus/pci/devices/%s/class", *bus ? bus : "none");
	if (type == DEVICE_SWITCH || !strncmp(class, "0x068000", 8))
		return tt_topo_fabric(t, bus);
	if (type == DEVICE_GPU || *class) {
		tt_topo_assume(t, "%s: a link to %s, which is not listed: left out", t->nodes[gpu].id, bus);
		return -1;
	}
	tt_topo_assume(t, "%s: its driver does not say where its links lead: taken as to an NVSwitch",
		       t->nodes[gpu].id);
	return tt_topo_fabric(t, bus);
}

static void add_links(struct nvml *n, void *dev, int gpu)
{
	uint32_t bandwidth = tt_rate_nvlink(tt_topo_number(n->s->t, gpu, "sm", 0));

	for (unsigned link = 0; link < MAX_LINKS; link++) {
		unsigned active = 0;
		int to;

		if (n->link_state(dev, link, &active) || !active)
			continue;
		to = far_end(n, dev, link, gpu);
		if (to < 0)
			continue;
		tt_topo_link(n->s->t, TT_LINK_NVLINK, gpu, to, 1, bandwidth);
		if (n->s->t->nodes[to].kind == TT_NODE_NVSWITCH)
			tt_topo_link(n->s->t, TT_LINK_NVLINK, to, gpu, 1, bandwidth);
	}
}

/* False: this driver or this GPU does not know it. */
static bool field(struct nvml *n, void *dev, unsigned id, unsigned link, unsigned *out)
{
	struct field f = { .id = id, .scope = link };
	bool good = n->fields && !n->fields(dev, 1, &f) && !f.result;

	*out = good ? f.value.number : 0;
	return good;
}

/* To the CPU that the GPU is at; where its place is not known, to the only one. */
static int cpu_of(const struct tt_topo *t, int gpu)
{
	int numa = tt_topo_above(t, gpu, TT_NODE_NUMA);

	return numa < 0 && tt_topo_count(t, TT_NODE_NUMA) == 1 ? tt_topo_next(t, TT_NODE_NUMA, -1) : numa;
}

static void add_c2c(struct nvml *n, void *dev, int gpu)
{
	unsigned links, active, mbytes, count = 0, speed = 0;
	int cpu = cpu_of(n->s->t, gpu);

	field(n, dev, C2C_COUNT, 0, &links);
	for (unsigned l = 0; l < links && l < MAX_LINKS; l++)
		if (field(n, dev, C2C_ACTIVE, l, &active) && active == 1 && field(n, dev, C2C_MBYTES, l, &mbytes)) {
			speed = mbytes;
			count++;
		}
	if (count && cpu < 0)
		tt_topo_assume(n->s->t, "%s: its C2C links lead to a CPU that is not known: left out",
			       n->s->t->nodes[gpu].id);
	if (!count || cpu < 0)
		return;
	tt_topo_link(n->s->t, TT_LINK_C2C, gpu, cpu, count, speed ? speed : TT_NO_LIMIT);
	tt_topo_link(n->s->t, TT_LINK_C2C, cpu, gpu, count, speed ? speed : TT_NO_LIMIT);
}

static void read_all(struct nvml *n)
{
	unsigned count = 0;
	void *dev;

	if (n->count(&count))
		tt_topo_assume(n->s->t, "NVIDIA's driver does not list its GPUs: NVLinks are not known");
	for (unsigned i = 0; i < count; i++)
		if (!n->by_index(i, &dev))
			gpu_of(n, i, dev);
	for (unsigned i = 0; i < count; i++) {
		int gpu = n->by_index(i, &dev) ? -1 : gpu_of(n, i, dev);

		if (gpu > 0) {
			add_links(n, dev, gpu);
			add_c2c(n, dev, gpu);
		}
	}
}

static bool has_nvidia(const struct tt_topo *t)
{
	for (int i = tt_topo_next(t, TT_NODE_GPU, -1); i >= 0; i = tt_topo_next(t, TT_NODE_GPU, i))
		if (tt_topo_number(t, i, "vendor", 0) == 0x10de)
			return true;
	return false;
}

void tt_sys_nvlinks(struct tt_sys *s)
{
	struct nvml n = { .s = s };
	void *so = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
	bool good = so && load(&n, so) && !n.init();

	if (good) {
		read_all(&n);
		n.shutdown();
	} else if (has_nvidia(s->t)) {
		tt_topo_assume(s->t, "NVLinks are not known: libnvidia-ml.so.1, which comes with NVIDIA's driver, %s",
			       so ? "does not work here" : "is not here");
	}
	if (so)
		dlclose(so);
}
