/* Floor 1: reading /sys and /proc of this machine ("" as root) or of a recorded one into a topology. */
#ifndef TT_TOPO_SYS_H
#define TT_TOPO_SYS_H

#include "topo.h"

struct tt_sys {
	const char *root;
	struct tt_topo *t;
	struct tt_sys_numa {
		int node; /* in t */
		struct tt_cpus cpus;
	} *numa; /* those with CPUs */
	int nnuma;
};

/* One line of a file without its end, or "". At most n - 1 bytes. */
const char *tt_sys_line(const struct tt_sys *s, char *out, size_t n, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
/* The number of a file's line "key number", -1: there is none. */
long tt_sys_number(const struct tt_sys *s, const char *key, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
bool tt_sys_there(const struct tt_sys *s, const char *path);
/* Calls see for each entry of a directory, sorted by name, but those that begin with a dot; false: no directory. */
bool tt_sys_each(struct tt_sys *s, const char *path, void (*see)(struct tt_sys *s, const char *name));
/* The text of a link, or "": what it names may be missing in a recorded tree. */
const char *tt_sys_link(const struct tt_sys *s, char *out, size_t n, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

/* ---- NUMA nodes, cache groups, cores (topo_cpu.c) ---- */
void tt_sys_cpus(struct tt_sys *s);
void tt_sys_about_cpu(struct tt_sys *s); /* arch, vendor, family and model on all NUMA nodes, by /proc/cpuinfo */
/* For other sources, so that all call things alike. The set is the callee's then. */
void tt_sys_numa(struct tt_sys *s, const char *id, struct tt_cpus *cpus);
/* Level 0: no cache is known. */
void tt_sys_core(struct tt_sys *s, const struct tt_sys_numa *numa, const struct tt_cpus *threads, int level,
		 const struct tt_cpus *shared);

/* ---- devices (topo_pci.c) ---- */
void tt_sys_pci(struct tt_sys *s); /* GPUs, NICs and the switches above them */
/* A device below the PCI bridges above it, from the root port down, which are made switches; its node. Numa 0: not
 * known; bridge: the host bridge. */
enum { TT_BUS = 64 };
int tt_sys_hang(struct tt_sys *s, enum tt_node_kind kind, const char *bus, int numa, const char *bridge,
		char (*above)[TT_BUS], int n);
void tt_sys_device(struct tt_sys *s, int node);           /* class, vendor, link speed of a device that is in t */
bool tt_sys_idle_vf(struct tt_sys *s, const char *bus);
int tt_sys_nearest(struct tt_sys *s, const struct tt_cpus *cpus); /* the NUMA node, -1: several are as near */

/* ---- ports (topo_port.c) ---- */
void tt_sys_ports(struct tt_sys *s); /* of the NICs in t, and NICs that are no PCI devices */
void tt_sys_nvlinks(struct tt_sys *s); /* and C2C, of this machine, as NVIDIA's driver says (topo_nvml.c) */
void tt_sys_xgmi(struct tt_sys *s);    /* as AMD's says in /sys (topo_kfd.c) */
void tt_sys_free(struct tt_sys *s);

#endif
