/* GPUDirect RDMA: what is decided from facts, of machines as they are sold and of what is missing on them; the facts
 * that files and the topology give. SPDX-License-Identifier: Apache-2.0 */
#include "cuda_gdr.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "test.h"

/* Rows name a machine and then what is different. */
#pragma GCC diagnostic ignored "-Woverride-init"

/* H100 and ConnectX-7 below one switch, NVIDIA's open kernel modules. */
#define H100                                                                                                 \
	.capability = 90, .dma_buf = true, .rdma = true, .rdma_vmm = true, .wait_flush = true,               \
	.flush_options = TT_GDR_OPTION_HOST | TT_GDR_OPTION_WAIT, .writes_ordering = TT_GDR_ORDER_OWNER,     \
	.nvlink = true, .reg_errno = EBADF, .placed = true, .path = TT_PATH_PIX, .level = TT_PATH_PXB,       \
	.dma_buf_wanted = true
/* A100 with the closed modules and nvidia-peermem. */
#define A100                                                                                                  \
	.capability = 80, .rdma = true, .rdma_vmm = true, .wait_flush = true,                                 \
	.flush_options = TT_GDR_OPTION_HOST | TT_GDR_OPTION_WAIT, .writes_ordering = TT_GDR_ORDER_OWNER,      \
	.nvlink = true, .reg_errno = EBADF, .peermem = true, .placed = true, .path = TT_PATH_PXB,             \
	.level = TT_PATH_PXB, .dma_buf_wanted = true
/* V100 on PCIe with a kernel before dma-buf. */
#define V100                                                                                                   \
	.capability = 70, .rdma = true, .flush_options = TT_GDR_OPTION_HOST, .reg_errno = EPROTONOSUPPORT,     \
	.peermem = true, .placed = true, .path = TT_PATH_PIX, .level = TT_PATH_PXB, .dma_buf_wanted = true
/* Grace Hopper, the NIC at the CPU. */
#define GH200                                                                                                  \
	.capability = 90, .dma_buf = true, .rdma = true, .rdma_vmm = true, .wait_flush = true, .only = true,   \
	.flush_options = TT_GDR_OPTION_HOST | TT_GDR_OPTION_WAIT, .writes_ordering = TT_GDR_ORDER_OWNER,       \
	.c2c = true, .reg_errno = EBADF, .placed = true, .path = TT_PATH_PHB, .level = TT_PATH_PXB,            \
	.dma_buf_wanted = true

enum { STAGED = TT_GDR_STAGED, PEERMEM = TT_GDR_PEERMEM, DMABUF = TT_GDR_DMABUF };
enum { NONE = TT_GDR_NO_FLUSH, READ = TT_GDR_FLUSH_READ, WAIT = TT_GDR_FLUSH_WAIT };

static const struct row {
	const char *name;
	struct tt_gdr_facts f;
	int way, flush;
	bool reads;
	const char *says;
} rows[] = {
	{ "H100, open modules", { H100 }, DMABUF, NONE, true, "device and NIC are PIX apart" },
	{ "H100, cuMemMap", { H100, .made_by = TT_GDR_VMM }, DMABUF, NONE, true, "PIX" },
	{ "H100, without order", { H100, .writes_ordering = TT_GDR_ORDER_NONE }, DMABUF, WAIT, true, "PIX" },
	{ "H100, without order and option", { H100, .writes_ordering = 0, .flush_options = TT_GDR_OPTION_HOST }, DMABUF,
	  READ, true, "PIX" },
	{ "H100, without order and memory operation", { H100, .writes_ordering = 0, .wait_flush = false }, DMABUF, READ,
	  true, "PIX" },
	{ "H100, MIG", { H100, .nvlink = false }, DMABUF, NONE, true, "PIX" },
	{ "H100, PCIe across sockets", { H100, .path = TT_PATH_SYS }, STAGED, NONE, false,
	  "are SYS apart, farther than TUTTI_NET_GDR_LEVEL=PXB" },
	{ "the same, forced", { H100, .path = TT_PATH_SYS, .level = TT_PATH_SYS }, DMABUF, NONE, true, "SYS apart" },
	{ "a level of PIX", { H100, .path = TT_PATH_PXB, .level = TT_PATH_PIX }, STAGED, NONE, false, "LEVEL=PIX" },
	{ "a VM with one bridge", { H100, .path = TT_PATH_PHB }, STAGED, NONE, false, "PHB apart" },
	{ "a VM that hides the places", { H100, .placed = false, .path = TT_PATH_LOC }, STAGED, NONE, false,
	  "not in the topology" },
	{ "the same, taken all the same", { H100, .placed = false, .path = TT_PATH_LOC, .level = TT_PATH_SYS }, DMABUF,
	  NONE, true, "not known" },
	{ "a level of LOC", { H100, .path = TT_PATH_LOC, .level = TT_PATH_LOC }, STAGED, NONE, false, "LEVEL=LOC" },
	{ "closed modules, no peermem", { H100, .dma_buf = false }, STAGED, NONE, false,
	  "open kernel modules do, with CUDA 11.7 and Linux 5.12; and there is no nvidia-peermem: modprobe" },
	{ "closed modules, peermem", { H100, .dma_buf = false, .peermem = true }, PEERMEM, NONE, true,
	  "the device gives no dma-buf" },
	{ "both", { H100, .peermem = true }, DMABUF, NONE, true, "PIX" },
	{ "dma-buf unwanted", { H100, .dma_buf_wanted = false }, STAGED, NONE, false, "TUTTI_DMABUF_ENABLE=0; and" },
	{ "dma-buf unwanted, peermem", { H100, .dma_buf_wanted = false, .peermem = true }, PEERMEM, NONE, true,
	  "TUTTI_DMABUF_ENABLE=0" },
	{ "soft-RoCE", { H100, .reg_errno = EOPNOTSUPP }, STAGED, NONE, false, "the NIC's driver takes no dma-buf" },
	{ "soft-RoCE, which has no place", { H100, .reg_errno = EOPNOTSUPP, .placed = false }, STAGED, NONE, false,
	  "takes no dma-buf" },
	{ "an old library", { H100, .reg_errno = ENOSYS }, STAGED, NONE, false, "rdma-core 34" },
	{ "another refusal", { H100, .reg_errno = EPERM }, STAGED, NONE, false, "fails to take" },
	{ "registers what is none", { H100, .reg_errno = 0 }, STAGED, NONE, false, "fails to take" },
	{ "expandable segment", { H100, .made_by = TT_GDR_VMM, .incapable = true }, STAGED, NONE, false,
	  "expandable segments" },
	{ "no RDMA for cuMemMap", { H100, .made_by = TT_GDR_VMM, .rdma_vmm = false }, STAGED, NONE, false, "cuMemMap" },
	{ "and none is needed", { H100, .rdma_vmm = false }, DMABUF, NONE, true, "PIX" },
	{ "A100, peermem", { A100 }, PEERMEM, READ, true, "PXB apart; the device gives no dma-buf" },
	{ "A100, open modules", { A100, .dma_buf = true }, DMABUF, READ, true, "PXB" },
	{ "A100, missing module", { A100, .peermem = false }, STAGED, NONE, false, "modprobe nvidia-peermem" },
	{ "A100, no NVLink", { A100, .nvlink = false }, PEERMEM, READ, true, "PXB" },
	{ "V100, one of several", { V100 }, PEERMEM, READ, false, "takes no dma-buf" },
	{ "V100, NVLink", { V100, .nvlink = true }, PEERMEM, READ, true, "PIX" },
	{ "V100, the only one", { V100, .only = true }, PEERMEM, READ, true, "PIX" },
	{ "GH200, NIC at the CPU", { GH200 }, DMABUF, NONE, true, "PHB apart" },
	{ "GH200, NIC at the other CPU", { GH200, .path = TT_PATH_SYS }, STAGED, NONE, false, "SYS apart" },
	{ "GH200, NIC at a switch", { GH200, .path = TT_PATH_PXB }, DMABUF, READ, true, "PXB" },
	{ "GeForce", { H100, .capability = 89, .rdma = false, .rdma_vmm = false }, STAGED, NONE, false, "GeForce" },
};

static void decisions(void)
{
	struct tt_gdr d;

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		const struct row *r = &rows[i];

		tt_gdr_decide(&r->f, &d);
		CHECKF((int)d.way == r->way, "%s: way %d: %s", r->name, (int)d.way, d.why);
		CHECKF((int)d.flush == r->flush, "%s: flush %d", r->name, (int)d.flush);
		CHECKF(d.reads == r->reads, "%s: sends", r->name);
		CHECKF(strstr(d.why, r->says), "%s: %s", r->name, d.why);
	}
}

/* Messages go by two NICs. */
static void both(void)
{
	static const struct two {
		struct tt_gdr_facts a, b;
		int way, flush;
		bool reads;
	} two[] = {
		{ { H100 }, { H100 }, DMABUF, NONE, true },
		{ { H100 }, { H100, .path = TT_PATH_SYS }, STAGED, NONE, false },
		{ { H100, .peermem = true }, { H100, .reg_errno = ENOSYS, .peermem = true }, PEERMEM, NONE, true },
		{ { H100, .writes_ordering = 0 }, { A100 }, PEERMEM, READ, true },
		{ { H100, .writes_ordering = 0 }, { H100 }, DMABUF, WAIT, true },
		{ { A100 }, { V100 }, PEERMEM, READ, false },
	};
	struct tt_gdr d[2], a;

	for (size_t i = 0; i < sizeof(two) / sizeof(two[0]); i++) {
		tt_gdr_decide(&two[i].a, &d[0]);
		tt_gdr_decide(&two[i].b, &d[1]);
		for (int k = 0; k < 2; k++) {
			a = d[k];
			tt_gdr_also(&a, &d[!k]);
			CHECKF((int)a.way == two[i].way && a.reads == two[i].reads, "%zu: way %d", i, (int)a.way);
			CHECKF(a.way == TT_GDR_STAGED || (int)a.flush == two[i].flush, "%zu: flush %d", i,
			       (int)a.flush);
			CHECK(strcmp(a.why, d[a.way == d[0].way ? 0 : 1].why) == 0 || d[0].way == d[1].way);
		}
	}
}

static void words(void)
{
	struct tt_gdr d;
	char text[400];

	tt_gdr_decide(&(struct tt_gdr_facts){ V100 }, &d);
	tt_gdr_text(&d, text, sizeof(text));
	CHECKF(!strncmp(text, "nvidia-peermem, flush by a read of the NIC, sends staged through pinned memory: ", 80),
	       "%s", text);
	tt_gdr_decide(&(struct tt_gdr_facts){ H100, .rdma = false }, &d);
	tt_gdr_text(&d, text, sizeof(text));
	CHECKF(!strncmp(text, "staged through pinned memory: the device does no", 48), "%s", text);
	tt_gdr_decide(&(struct tt_gdr_facts){ H100 }, &d);
	CHECK(!strcmp(tt_gdr_text(&d, text, sizeof(text)), "dma-buf, no flush: device and NIC are PIX apart"));
}

static void settings(void)
{
	struct tt_gdr_facts f = { .dma_buf_wanted = false };

	unsetenv("TUTTI_NET_GDR_LEVEL");
	unsetenv("TUTTI_DMABUF_ENABLE");
	tt_gdr_settings(&f);
	CHECK(f.level == TT_PATH_PXB && f.dma_buf_wanted);
	setenv("TUTTI_NET_GDR_LEVEL", "SYS", 1);
	setenv("TUTTI_DMABUF_ENABLE", "0", 1);
	tt_gdr_settings(&f);
	CHECK(f.level == TT_PATH_SYS && !f.dma_buf_wanted);
	setenv("TUTTI_LOG", "none", 1);
	setenv("TUTTI_NET_GDR_LEVEL", "NEAR", 1);
	tt_gdr_settings(&f);
	CHECK(f.level == TT_PATH_PXB);
}

/* ---- modules, by the files that they have ---- */

static bool with_file(const char *folder, const char *file)
{
	char root[] = "/tmp/gdr.XXXXXX", path[300], command[400];
	bool found;

	CHECK(mkdtemp(root));
	snprintf(command, sizeof(command), "mkdir -p %s%s", root, folder);
	CHECK(!system(command));
	snprintf(path, sizeof(path), "%s%s/%s", root, folder, file);
	CHECK(*file == 0 || !mkdir(path, 0700));
	found = tt_gdr_peermem(root);
	snprintf(command, sizeof(command), "rm -r %s", root);
	CHECK(!system(command));
	return found;
}

static void modules(void)
{
	CHECK(with_file("/sys/kernel/mm/memory_peers/nv_mem", "version"));
	CHECK(with_file("/sys/kernel/mm/memory_peers/nv_mem_nc", "version"));
	CHECK(with_file("/sys/module/nvidia_peermem", "version"));
	CHECK(!with_file("/sys/module/nvidia_peermem", ""));
	CHECK(!with_file("/sys/kernel/mm/memory_peers/amd_mem", "version"));
}

/* ---- places ---- */

static const char machine[] =
	"tutti-topology 1\n"
	"numa numa0\n"
	"  pci 0000:10:00.0 in numa0\n"
	"    gpu 0000:11:00.0 in 0000:10:00.0\n"
	"    nic 0000:12:00.0 in 0000:10:00.0\n"
	"  nic 0000:20:00.0 in numa0\n"
	"numa numa1\n"
	"  gpu 0000:81:00.0 in numa1\n";

static void places(void)
{
	struct tt_gdr_facts f = { .placed = false };
	struct tt_topo *t;

	CHECKF(tt_topo_read(machine, strlen(machine), &t) == tuttiSuccess, "%s", tt_last_error());
	tt_gdr_place(t, "0000:11:00.0", "0000:12:00.0", &f);
	CHECK(f.placed && f.path == TT_PATH_PIX && !f.nvlink && !f.c2c);
	tt_gdr_place(t, "0000:11:00.0", "0000:20:00.0", &f);
	CHECK(f.placed && f.path == TT_PATH_PHB);
	tt_gdr_place(t, "0000:81:00.0", "0000:20:00.0", &f);
	CHECK(f.placed && f.path == TT_PATH_SYS);
	tt_gdr_place(t, "0000:99:00.0", "0000:20:00.0", &f);
	CHECK(!f.placed);
	tt_gdr_place(t, "0000:81:00.0", "", &f);
	CHECK(!f.placed);
	tt_topo_free(t);
	CHECK(tt_topo_read(machine, strlen(machine), &t) == tuttiSuccess);
	tt_topo_link(t, TT_LINK_NVLINK, tt_topo_find(t, "0000:11:00.0"), tt_topo_find(t, "0000:81:00.0"), 4, 25000);
	tt_topo_link(t, TT_LINK_C2C, tt_topo_find(t, "0000:81:00.0"), tt_topo_find(t, "numa1"), 1, 400000);
	CHECK(tt_topo_finish(t) == tuttiSuccess);
	tt_gdr_place(t, "0000:11:00.0", "0000:12:00.0", &f);
	CHECK(f.nvlink && !f.c2c);
	tt_gdr_place(t, "0000:81:00.0", "0000:12:00.0", &f);
	CHECK(!f.nvlink && f.c2c);
	tt_topo_free(t);
}

const struct test tests[] = {
	{ "what is decided", decisions, 0 }, { "two NICs", both, 0 },
	{ "words", words, 0 },   { "settings", settings, 0 },
	{ "modules", modules, 0 },	     { "places", places, 0 },
};
const int ntests = sizeof(tests) / sizeof(tests[0]);
