/* Any bytes as NCCL's XML: refused with a word, or a topology that is written and read again the same, alone and
 * filled in by a machine. SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "topo.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char machine_text[] = "tutti-topology 1\nnuma numa0\ngpu 0000:84:00.0 in numa0 bw=5\n"
				   "nic 0101:00:00.0 in numa0\nport 0101:00:00.0/x in 0101:00:00.0\ncore c in numa0\n"
				   "gpu 0001:00:00.0 in numa0\nlink nvlink 0000:84:00.0 0001:00:00.0\n";

static void again(struct tt_topo *t)
{
	struct tt_topo *u;
	char *text;

	if (tt_topo_to_nccl(t, &text) != tuttiSuccess ||
	    tt_topo_from_nccl(text, strlen(text), 0, NULL, &u) != tuttiSuccess)
		abort();
	free(text);
	if (tt_topo_count(t, TT_NODE_GPU) != tt_topo_count(u, TT_NODE_GPU) || u->hosts != 1)
		abort();
	tt_topo_free(u);
	if (tt_topo_write(t, &text) != tuttiSuccess || tt_topo_read(text, strlen(text), &u) != tuttiSuccess ||
	    tt_topo_digest(t) != tt_topo_digest(u))
		abort();
	free(text);
	tt_topo_free(u);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct tt_topo *t, *machine;
	int hosts;

	setenv("TUTTI_LOG", "none", 1);
	if (tt_topo_from_nccl((const char *)data, size, 0, NULL, &t) != tuttiSuccess)
		return 0;
	again(t);
	hosts = t->hosts;
	tt_topo_free(t);
	if (hosts > 1 && tt_topo_from_nccl((const char *)data, size, hosts - 1, NULL, &t) == tuttiSuccess) {
		again(t);
		tt_topo_free(t);
	}
	if (tt_topo_read(machine_text, strlen(machine_text), &machine) != tuttiSuccess)
		abort();
	if (tt_topo_from_nccl((const char *)data, size, 0, machine, &t) == tuttiSuccess)
		tt_topo_free(t);
	tt_topo_free(machine);
	return 0;
}
