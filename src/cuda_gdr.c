/* GPUDirect RDMA: dma-buf, nvidia-peermem or staging, with the flush that is right.
 * SPDX-License-Identifier: Apache-2.0 */
#include "cuda_gdr.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cuda_lib.h"

static __attribute__((format(printf, 2, 3))) void say(struct tt_gdr *d, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(d->why, sizeof(d->why), fmt, ap);
	va_end(ap);
}

/* ---- whether ---- */

/* Over C2C the CPU is as near to a device as a switch would be. The farthest level takes what is not in the topology,
 * the nearest nothing. */
static bool is_near(const struct tt_gdr_facts *f)
{
	if (!f->placed || f->level == TT_PATH_LOC)
		return f->level == TT_PATH_SYS;
	return f->path <= f->level || (f->c2c && f->path == TT_PATH_PHB);
}

/* NULL: there is nothing against it. */
static const char *against_device(const struct tt_gdr_facts *f)
{
	if (!f->rdma)
		return "the device does no GPUDirect RDMA (GeForce cards and some virtual machines: attribute 116)";
	if (f->made_by == TT_GDR_VMM && !f->rdma_vmm)
		return "the device does no GPUDirect RDMA with memory of cuMemMap (attribute 110)";
	if (f->incapable)
		return "the memory was made without gpuDirectRDMACapable, as PyTorch's expandable segments may be";
	return NULL;
}

static const char *against_dma_buf(const struct tt_gdr_facts *f)
{
	switch (f->reg_errno) {
	case EBADF: /* it has looked at the descriptor */
		break;
	case ENOSYS:
		return "libibverbs has no ibv_reg_dmabuf_mr for this NIC: rdma-core 34 has, for mlx5, irdma and efa";
	case EOPNOTSUPP:
	case EPROTONOSUPPORT:
		return "the NIC's driver takes no dma-buf: Linux 5.12 and mlx5, irdma, bnxt or efa do";
	default:
		return "the NIC's driver fails to take a dma-buf";
	}
	if (!f->dma_buf)
		return "the device gives no dma-buf: NVIDIA's open kernel modules do, with CUDA 11.7 and Linux 5.12";
	return f->dma_buf_wanted ? NULL : "TUTTI_DMABUF_ENABLE=0";
}

static bool too_far(const struct tt_gdr_facts *f, struct tt_gdr *d)
{
	if (is_near(f))
		return false;
	if (f->level == TT_PATH_LOC)
		say(d, "TUTTI_NET_GDR_LEVEL=LOC");
	else if (!f->placed)
		say(d, "device or NIC is not in the topology: see tutti-info --topo; TUTTI_NET_GDR_LEVEL=SYS takes it "
		    "as it is");
	else
		say(d, "device and NIC are %s apart, farther than TUTTI_NET_GDR_LEVEL=%s", tt_path_word(f->path),
		    tt_path_word(f->level));
	return true;
}

static void find_way(const struct tt_gdr_facts *f, struct tt_gdr *d)
{
	const char *no = against_device(f), *no_buf = against_dma_buf(f);

	if (no) {
		say(d, "%s", no);
	} else if (no_buf && !f->peermem) {
		say(d, "%s; and there is no nvidia-peermem: modprobe nvidia-peermem", no_buf);
	} else if (too_far(f, d)) {
		d->way = TT_GDR_STAGED;
	} else {
		d->way = no_buf ? TT_GDR_PEERMEM : TT_GDR_DMABUF;
		say(d, "device and NIC are %s%s%s%s",
		    f->placed ? tt_path_word(f->path) : "at places that are not known", f->placed ? " apart" : "",
		    no_buf ? "; " : "", no_buf ? no_buf : "");
	}
}

/* ---- how ---- */

/* Older devices answer reads so slowly that other traffic on the bus suffers. */
static bool may_read(const struct tt_gdr_facts *f)
{
	return f->capability >= 80 || f->nvlink || f->only;
}

/* Over a switch the data goes another way than the completion, which takes C2C: only the NIC can push it ahead. Before
 * Hopper the same read is what is known to do. A stream's flush serves where writes have arrived but not in order. */
static enum tt_gdr_flush find_flush(const struct tt_gdr_facts *f)
{
	if (f->capability < 90 || (f->c2c && f->path <= TT_PATH_PXB))
		return TT_GDR_FLUSH_READ;
	if (f->writes_ordering >= TT_GDR_ORDER_OWNER)
		return TT_GDR_NO_FLUSH;
	return f->flush_options & TT_GDR_OPTION_WAIT && f->wait_flush ? TT_GDR_FLUSH_WAIT : TT_GDR_FLUSH_READ;
}

void tt_gdr_decide(const struct tt_gdr_facts *f, struct tt_gdr *out)
{
	*out = (struct tt_gdr){ .way = TT_GDR_STAGED };
	find_way(f, out);
	if (out->way == TT_GDR_STAGED)
		return;
	out->reads = may_read(f);
	out->flush = find_flush(f);
}

void tt_gdr_also(struct tt_gdr *d, const struct tt_gdr *other)
{
	static const int rank[] = { [TT_GDR_NO_FLUSH] = 0, [TT_GDR_FLUSH_WAIT] = 1, [TT_GDR_FLUSH_READ] = 2 };
	enum tt_gdr_flush flush = rank[other->flush] > rank[d->flush] ? other->flush : d->flush;
	bool reads = d->reads && other->reads;

	if (other->way < d->way)
		*d = *other;
	d->flush = flush;
	d->reads = reads;
}

const char *tt_gdr_text(const struct tt_gdr *d, char *out, size_t n)
{
	static const char *const way[] = { "staged through pinned memory", "nvidia-peermem", "dma-buf" };
	static const char *const flush[] = { "no flush", "flush by a read of the NIC", "flush by the stream's wait" };

	if (d->way == TT_GDR_STAGED)
		snprintf(out, n, "%s: %s", way[d->way], d->why);
	else
		snprintf(out, n, "%s, %s%s: %s", way[d->way], flush[d->flush],
			 d->reads ? "" : ", sends staged through pinned memory", d->why);
	return out;
}

/* ---- where the facts come from ---- */

void tt_gdr_settings(struct tt_gdr_facts *f)
{
	const char *level = tt_env_str("NET_GDR_LEVEL");
	int i = 0;

	while (i < TT_PATH_NCLASSES && strcmp(level, tt_path_word((enum tt_path_class)i)) != 0)
		i++;
	if (i == TT_PATH_NCLASSES)
		tt_log(TT_LOG_ERROR, "env", "TUTTI_NET_GDR_LEVEL=%s is not LOC, PIX, PXB, PHB, NODE or SYS; using the "
		       "default PXB", level);
	f->level = i < TT_PATH_NCLASSES ? (enum tt_path_class)i : TT_PATH_PXB;
	f->dma_buf_wanted = tt_env_int("DMABUF_ENABLE") != 0;
}

bool tt_gdr_peermem(const char *root)
{
	static const char *const file[] = { "/sys/kernel/mm/memory_peers/nv_mem/version",
					    "/sys/kernel/mm/memory_peers/nv_mem_nc/version",
					    "/sys/module/nvidia_peermem/version" };
	char path[512];

	for (size_t i = 0; i < sizeof(file) / sizeof(file[0]); i++) {
		snprintf(path, sizeof(path), "%s%s", root, file[i]);
		if (!access(path, F_OK))
			return true;
	}
	return false;
}

static int attribute(const struct tt_cuda *c, int which, int device)
{
	int value = 0;

	return c->cuDeviceGetAttribute(&value, which, device) ? 0 : value;
}

bool tt_gdr_device(int device, struct tt_gdr_facts *f, char *bus)
{
	const struct tt_cuda *c = tt_cuda_open(false);
	char text[32];

	if (!c || device >= c->devices)
		return false;
	f->capability = 10 * attribute(c, 75, device) + attribute(c, 76, device);
	f->dma_buf = attribute(c, 124, device);
	f->rdma = attribute(c, 116, device);
	f->rdma_vmm = attribute(c, 110, device);
	f->wait_flush = attribute(c, 98, device);
	f->flush_options = attribute(c, 117, device);
	f->writes_ordering = attribute(c, 118, device);
	f->only = c->devices == 1;
	snprintf(text, sizeof(text), "%04x:%02x:%02x.0", (unsigned)attribute(c, 50, device) & 0xffff,
		 (unsigned)attribute(c, 33, device) & 0xff, (unsigned)attribute(c, 34, device) & 0xff);
	memcpy(bus, text, 16);
	bus[15] = 0;
	return true;
}

void tt_gdr_place(const struct tt_topo *t, const char *device, const char *nic, struct tt_gdr_facts *f)
{
	int a = tt_topo_find(t, device), b = tt_topo_find(t, nic);

	f->placed = a >= 0 && b >= 0;
	f->c2c = f->nvlink = false;
	for (int i = 0; f->placed && i < t->nlinks; i++) {
		f->c2c |= t->links[i].from == a && t->links[i].kind == TT_LINK_C2C;
		f->nvlink |= t->links[i].from == a && t->links[i].kind == TT_LINK_NVLINK;
	}
	if (f->placed)
		f->path = tt_topo_path(t, a, b).cls;
}
