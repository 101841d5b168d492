/* Floor 1: whether a NIC may read and write the memory of a device itself (GPUDirect RDMA), and what has to be done so
 * that the device sees what a NIC has written. Decided from facts alone, so that it can be tested without either. */
#ifndef TT_CUDA_GDR_H
#define TT_CUDA_GDR_H

#include "topo.h"

enum tt_gdr_way { TT_GDR_STAGED, TT_GDR_PEERMEM, TT_GDR_DMABUF };
/* Nothing; a read of one byte by the NIC itself, which pushes its writes ahead; the stream's wait flushes. */
enum tt_gdr_flush { TT_GDR_NO_FLUSH, TT_GDR_FLUSH_READ, TT_GDR_FLUSH_WAIT };
enum { TT_GDR_ALLOC, TT_GDR_VMM }; /* cuMemAlloc, or mapped by cuMemMap */
enum { TT_GDR_OPTION_HOST = 1, TT_GDR_OPTION_WAIT = 2 };      /* attribute 117 */
enum { TT_GDR_ORDER_NONE = 0, TT_GDR_ORDER_OWNER = 100 };     /* attribute 118 */

struct tt_gdr_facts {
	/* The device, by attributes of cuda.h. */
	int capability;          /* 75, 76: as 90 */
	bool dma_buf;            /* 124 */
	bool rdma, rdma_vmm;     /* 116, 110 */
	bool wait_flush;         /* 98 */
	int flush_options, writes_ordering; /* 117, 118 */
	bool c2c, nvlink;        /* to a CPU, to another device */
	bool only;               /* there is no other device */
	/* Its memory. */
	int made_by;             /* TT_GDR_ALLOC, TT_GDR_VMM */
	bool incapable;          /* attribute 15 of the pointer is 0 */
	/* The NIC: errno of ibv_reg_dmabuf_mr with a descriptor of -1; ENOSYS: the library has no such call
	 * for it. */
	int reg_errno;
	bool peermem;            /* nvidia-peermem or nv_peer_mem is loaded */
	/* Both. */
	bool placed;             /* path is known */
	enum tt_path_class path;
	/* Settings. */
	enum tt_path_class level;
	bool dma_buf_wanted;
};

struct tt_gdr {
	enum tt_gdr_way way;
	bool reads;              /* the NIC reads there too: else what is sent is staged */
	enum tt_gdr_flush flush; /* behind a receive; of no meaning where all is staged */
	char why[320];
};

void tt_gdr_decide(const struct tt_gdr_facts *f, struct tt_gdr *out);
/* What serves both, as messages go by either NIC. Whoever may use dma-buf with one and nvidia-peermem with the other
 * has the latter for both. */
void tt_gdr_also(struct tt_gdr *d, const struct tt_gdr *other);
/* "dma-buf, no flush: <why>" */
const char *tt_gdr_text(const struct tt_gdr *d, char *out, size_t n);
/* TUTTI_NET_GDR_LEVEL and TUTTI_DMABUF_ENABLE. */
void tt_gdr_settings(struct tt_gdr_facts *f);
/* Of a recorded /sys, "" the one of this machine. */
bool tt_gdr_peermem(const char *root);
/* Attributes of a device; false: CUDA is off. bus: of 16 bytes, as the topology writes it. */
bool tt_gdr_device(int device, struct tt_gdr_facts *f, char *bus);
/* What lies between the two bus ids in this topology, with the links of the device. */
void tt_gdr_place(const struct tt_topo *t, const char *device, const char *nic, struct tt_gdr_facts *f);

#endif
