/* Floor 1: what a machine is made of. A tree (host, NUMA nodes, then cache groups with their cores, PCI switches with
 * GPUs and NICs, NICs with their ports) and direct links between its nodes (NVLink, xGMI, C2C). Sources fill it, all
 * others read it: docs/topology.md. Numbers that no source gave are TT_NO_LIMIT, never 0. */
#ifndef TT_TOPO_H
#define TT_TOPO_H

#include "base.h"

#define TT_NO_LIMIT UINT32_MAX

/* X(enum, word in the text form). The order is that of siblings, but PCI switches, GPUs and NICs are by
 * bus id. */
#define TT_NODE_KINDS(X)                                                                                               \
	X(TT_NODE_HOST, "host") X(TT_NODE_NVSWITCH, "nvswitch") X(TT_NODE_NUMA, "numa") X(TT_NODE_CACHE, "cache")      \
	X(TT_NODE_CORE, "core") X(TT_NODE_PCI, "pci") X(TT_NODE_GPU, "gpu") X(TT_NODE_NIC, "nic")                      \
	X(TT_NODE_PORT, "port")
#define TT_LINK_KINDS(X) X(TT_LINK_NVLINK, "nvlink") X(TT_LINK_XGMI, "xgmi") X(TT_LINK_C2C, "c2c")
/* NCCL's classes, nearest first; CACHE is ours, for cores. PXN is a choice between paths, no class of one. */
#define TT_PATH_CLASSES(X)                                                                                             \
	X(TT_PATH_LOC, "LOC") X(TT_PATH_CACHE, "CACHE") X(TT_PATH_NVL, "NVL") X(TT_PATH_NVB, "NVB")                    \
	X(TT_PATH_PIX, "PIX") X(TT_PATH_PXB, "PXB") X(TT_PATH_PHB, "PHB") X(TT_PATH_NODE, "NODE")                      \
	X(TT_PATH_SYS, "SYS")
#define TT_TOPO_ENUM(value, word) value,
enum tt_node_kind { TT_NODE_KINDS(TT_TOPO_ENUM) TT_NODE_NKINDS };
enum tt_link_kind { TT_LINK_KINDS(TT_TOPO_ENUM) TT_LINK_NKINDS };
enum tt_path_class { TT_PATH_CLASSES(TT_TOPO_ENUM) TT_PATH_NCLASSES };
#undef TT_TOPO_ENUM
const char *tt_node_word(enum tt_node_kind k);
const char *tt_link_word(enum tt_link_kind k);
const char *tt_path_word(enum tt_path_class c);
int tt_node_kind_of(const char *word); /* -1: none */
int tt_link_kind_of(const char *word);

struct tt_topo_attr {
	char *name, *value; /* names are those of NCCL's XML where it has them */
};

/* The edge to the parent is the node's own: socket link (NUMA), memory (cache, core), PCI (PCI switch, GPU, NIC),
 * network (port). */
struct tt_topo_node {
	enum tt_node_kind kind;
	char *id;           /* unique: numa0, core4, for devices the bus id, for NICs without one virt:<name> */
	int parent;         /* index, less than the node's own; the host is node 0, its parent -1 */
	uint32_t bandwidth; /* MB/s in each direction, or TT_NO_LIMIT */
	uint32_t latency;   /* ns */
	struct tt_topo_attr *attrs; /* by name */
	int nattrs;
};

struct tt_topo_link { /* in one direction */
	enum tt_link_kind kind;
	int from, to;
	uint32_t count;     /* links side by side */
	uint32_t bandwidth; /* of one of them */
	uint32_t latency;
};

struct tt_topo {
	struct tt_topo_node *nodes; /* finished: parents first, siblings by kind and id */
	struct tt_topo_link *links; /* finished: by ends */
	char **assumed;             /* what was missing or contradictory, and what was taken instead */
	char *source;               /* one line: where it comes from */
	int nnodes, nlinks, nassumed;
	int host, hosts;      /* which of those that its source describes, from 0; 0 hosts: one */
	tuttiResult_t failed; /* the first error while it was filled; finish returns it */
};

/* ---- filling: every call does nothing after the first error, which tt_topo_finish returns ---- */
tuttiResult_t tt_topo_new(struct tt_topo **out); /* with a host */
void tt_topo_free(struct tt_topo *t);
void tt_topo_source(struct tt_topo *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The index of the new node (0 after an error); one that is there already is returned and noted as an assumption. */
int tt_topo_add(struct tt_topo *t, enum tt_node_kind kind, const char *id, int parent);
/* A NULL or empty value sets nothing. */
void tt_topo_set(struct tt_topo *t, int node, const char *name, const char *value);
void tt_topo_setf(struct tt_topo *t, int node, const char *name, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
void tt_topo_link(struct tt_topo *t, enum tt_link_kind kind, int from, int to, uint32_t count, uint32_t bandwidth);
/* The NVSwitch, made if there is none yet: all of a fabric are one, as nobody lists the links between them. */
int tt_topo_fabric(struct tt_topo *t, const char *bus);
/* One line; said twice it is kept once. */
void tt_topo_assume(struct tt_topo *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void tt_topo_fail(struct tt_topo *t, tuttiResult_t r, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* Settles what is missing (a NUMA node, ports of NICs, speeds), merges and sorts. Adding again is allowed, but needs
 * another finish. */
tuttiResult_t tt_topo_finish(struct tt_topo *t);

/* ---- reading ---- */
int tt_topo_find(const struct tt_topo *t, const char *id);                       /* -1: none */
int tt_topo_next(const struct tt_topo *t, enum tt_node_kind kind, int after);    /* from -1; -1: no more */
int tt_topo_count(const struct tt_topo *t, enum tt_node_kind kind);
const char *tt_topo_attr(const struct tt_topo *t, int node, const char *name);   /* NULL: none */
long tt_topo_number(const struct tt_topo *t, int node, const char *name, long missing); /* 10, 0x10 */
int tt_topo_above(const struct tt_topo *t, int node, enum tt_node_kind kind);    /* itself or an ancestor, or -1 */
uint64_t tt_topo_digest(const struct tt_topo *t); /* of nodes and links alone: the same machine, the same digest */

/* ---- paths (topo_path.c) ---- */
struct tt_topo_path {
	enum tt_path_class cls;
	int switches;                /* PCI switches passed */
	uint32_t bandwidth, latency; /* least, sum */
};
struct tt_topo_path tt_topo_path(const struct tt_topo *t, int a, int b);
/* Each GPU, in order, with a NIC of its nearest class; nic -1 where there is none. No NIC has two GPUs more than
 * another one that is as near could take; one whose ports are all down is taken only if all are. The caller frees
 * *out. */
struct tt_topo_pair {
	int gpu, nic;
	struct tt_topo_path path;
};
tuttiResult_t tt_topo_pairs(const struct tt_topo *t, struct tt_topo_pair **out, int *n);
/* The core of a CPU, -1: not known. An order of ranks that sit on nodes (-1: not known) in which neighbours are near.
 * How many hops of a ring in an order are of a class or farther: SYS counts what crosses between sockets. */
int tt_topo_of_cpu(const struct tt_topo *t, unsigned cpu);
void tt_topo_order(const int *node, uint32_t n, uint32_t *order);
uint32_t tt_topo_hops(const struct tt_topo *t, const int *node, const uint32_t *order, uint32_t n,
		      enum tt_path_class cls);

/* ---- for the search (topo_graph.c, topo_search.h): the GPUs in their order, NVSwitches, the links between them. At
 * least one GPU. ---- */
struct tt_graph;
tuttiResult_t tt_topo_graph(const struct tt_topo *t, struct tt_graph **out);
/* Of a GPU: its direct links to others of the host, by hashes of bus ids; none where a switch joins them, which makes
 * all orders alike. A member's entry in the table has it. */
struct tt_gpu_links {
	uint32_t id, n;
	struct {
		uint32_t id, width; /* half links of the machine's slowest kind */
	} to[16];
};
void tt_topo_gpu_links(const struct tt_topo *t, const char *bus, struct tt_gpu_links *out); /* between GPUs alone */
uint32_t tt_topo_unit(const struct tt_topo *t); /* MB/s of one whole ring in it: of the slowest link */

/* ---- the text form (topo_text.c): docs/topology.md ---- */
tuttiResult_t tt_topo_write(const struct tt_topo *t, char **text); /* to be freed */
tuttiResult_t tt_topo_read(const char *text, size_t n, struct tt_topo **out);

/* ---- NCCL's XML (topo_nccl.c, topo_nccl_write.c) ---- */
/* One host of the file, from 0. What it does not say is filled in by bus id from `machine`, which may be NULL. */
tuttiResult_t tt_topo_from_nccl(const char *text, size_t n, int host, const struct tt_topo *machine,
				struct tt_topo **out);
tuttiResult_t tt_topo_to_nccl(const struct tt_topo *t, char **text); /* to be freed */
/* Adds what `machine` has and `t` has not; what both have is as in `t`, with its gaps filled. Before finish. */
void tt_topo_fill(struct tt_topo *t, const struct tt_topo *machine);

/* ---- /sys and /proc (topo_sysfs.c) of a recorded tree; "" as root: of this machine ---- */
tuttiResult_t tt_topo_from_sysfs(const char *root, struct tt_topo **out);
void tt_topo_of_sysfs(struct tt_topo *t, const char *root); /* into one that is not finished */

/* ---- this machine, and hwloc's XML (n with the byte 0 at its end) and synthetic strings (topo_detect.c) ---- */
tuttiResult_t tt_topo_here(struct tt_topo **out); /* whatever is missing, there is one; its source says by what */
tuttiResult_t tt_topo_from_hwloc(const char *text, size_t n, struct tt_topo **out);
tuttiResult_t tt_topo_from_synthetic(const char *text, struct tt_topo **out);

/* ---- any source (topo_source.c) ---- */
/* A file of tutti's text, NCCL's or hwloc's XML; a folder with sys and proc in it; synthetic:<hwloc's words>. FILE#2 is
 * the second host in it. The machine, which may be NULL, fills in what NCCL's short forms leave open. */
tuttiResult_t tt_topo_load(const char *name, const struct tt_topo *machine, struct tt_topo **out);
/* What ranks here should use: TUTTI_TOPO_FILE, NCCL_TOPO_FILE, else this machine. */
tuttiResult_t tt_topo_used(struct tt_topo **out);
void tt_topo_dump(const struct tt_topo *t); /* to TUTTI_TOPO_DUMP_FILE, where that is set; a warning if it cannot */
tuttiResult_t tt_topo_local(struct tt_topo **out); /* both */

/* ---- of the calling thread (topo_place.c) ---- */
/* The least node that has all cores it may run on, -1 where these are all or are not known. The machine is looked at
 * once a process, and only if the thread is bound or a setting names a file. Fails where TUTTI_TOPO_FILE does. */
tuttiResult_t tt_topo_place(int *node);
tuttiResult_t tt_topo_machine(const struct tt_topo **out); /* tt_topo_used, once; kept */
uint32_t tt_topo_rate(const char *interface); /* MB/s, as the file or /sys has it; 0: not known */
/* The direct links of a GPU of this machine to others; none, if it is not there or hangs on a switch. */
void tt_topo_place_gpu(const char *bus, struct tt_gpu_links *out);
void tt_topo_place_dump(void); /* tt_topo_dump of the same */

/* ---- speeds that others measured (topo_rate.c), in MB/s; TT_NO_LIMIT: not known ---- */
uint32_t tt_rate_pci(const char *gts, long width);      /* "8 GT/s", "8.0 GT/s PCIe"; "" and 0 are unknown */
uint32_t tt_rate_nvlink(long sm);                       /* of one link; compute capability as 90 */
uint32_t tt_rate_xgmi(const char *gcn);                 /* 908, gfx942 */
uint32_t tt_rate_socket(const struct tt_topo *t, int numa);
uint32_t tt_rate_net(struct tt_topo *t, const char *name, const char *mbits); /* notes what cannot be */

/* ---- bus ids, classes of devices and sets of CPUs (topo_words.c) ---- */
/* GPU, NIC, PCI (a bridge) or NVSWITCH by the 24 bits of the PCI class (0x030200), or -1. Vendor and device 0:
 * not known. */
int tt_device_kind(unsigned long cls, unsigned long vendor, unsigned long device);
/* "06:00.0", "00000000:06:00.0" and "0000:06:00.0" are one; false: no bus id. */
bool tt_bus_id(const char *text, char *out, size_t n);
struct tt_cpus {
	uint64_t *word;
	size_t nwords;
};
bool tt_cpus_list(const char *text, struct tt_cpus *out);  /* "0-3,8"; false: no such list, or no memory */
bool tt_cpus_mask(const char *text, struct tt_cpus *out);  /* "000000ff,ffff0000" */
void tt_cpus_free(struct tt_cpus *c);
bool tt_cpus_add(struct tt_cpus *c, unsigned cpu);
bool tt_cpus_has(const struct tt_cpus *c, unsigned cpu);
size_t tt_cpus_count(const struct tt_cpus *c);
size_t tt_cpus_common(const struct tt_cpus *a, const struct tt_cpus *b);
char *tt_cpus_text(const struct tt_cpus *c);                 /* as a list, to be freed; NULL: no memory */
char *tt_cpus_hex(const struct tt_cpus *c);                  /* as a mask: one set, one text */

#endif
