/* tutti-info --check-rdma: GPUDirect RDMA of each CUDA device with each RDMA device.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "cuda_gdr.h"
#include "cuda_lib.h"
#include "info.h"
#include "verbs_dev.h"

static void decide(const struct tt_topo *t, int device, const struct tt_vb_dev *nic, char *out, size_t n)
{
	struct tt_gdr_facts f = { .made_by = TT_GDR_ALLOC };
	struct tt_gdr d;
	char bus[16];

	tt_gdr_settings(&f);
	if (!tt_gdr_device(device, &f, bus))
		return;
	f.peermem = tt_gdr_peermem("");
	f.reg_errno = tt_vb_try_dmabuf(nic);
	if (t)
		tt_gdr_place(t, bus, nic->pci, &f);
	tt_gdr_decide(&f, &d);
	tt_gdr_text(&d, out, n);
}

static void show(int device, const struct tt_vb_dev *nic, const char *text, bool json, int count)
{
	if (!json) {
		printf("%-10s CUDA device %d with %s: %s\n", count ? "" : "gpudirect", device, nic->name, text);
		return;
	}
	printf("%s{\"cuda\": %d, ", count ? ",\n  " : "\n  ", device);
	json_pair("device", nic->name);
	printf(", ");
	json_pair("way", text);
	printf("}");
}

void info_gdr(const struct tt_vb_devs *devs, bool json)
{
	const struct tt_cuda *c = devs->n ? tt_cuda_open(false) : NULL;
	struct tt_topo *t = NULL;
	char text[512] = "";
	int count = 0;

	if (c && tt_topo_local(&t) != tuttiSuccess)
		t = NULL;
	for (int i = 0; c && i < c->devices; i++)
		for (int k = 0; k < devs->n; k++) {
			if (!devs->dev[k].ctx)
				continue;
			decide(t, i, &devs->dev[k], text, sizeof(text));
			show(i, &devs->dev[k], text, json, count++);
		}
	tt_topo_free(t);
}
