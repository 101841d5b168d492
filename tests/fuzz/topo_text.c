/* Any text: refused with a word, or a topology that is written, read and written again the same, and on which paths
 * and pairs can be asked for. SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "topo.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void ask(const struct tt_topo *t)
{
	struct tt_topo_pair *p = NULL;
	int n = 0;

	for (int i = 0; i < t->nnodes && i < 64; i++)
		if ((unsigned)tt_topo_path(t, i, t->nnodes - 1 - i).cls >= TT_PATH_NCLASSES)
			abort();
	if (tt_topo_pairs(t, &p, &n) == tuttiSuccess)
		free(p);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct tt_topo *t, *u;
	char *first, *second;

	setenv("TUTTI_LOG", "none", 1);
	if (tt_topo_read((const char *)data, size, &t) != tuttiSuccess)
		return 0;
	ask(t);
	if (tt_topo_write(t, &first) != tuttiSuccess || tt_topo_read(first, strlen(first), &u) != tuttiSuccess ||
	    tt_topo_write(u, &second) != tuttiSuccess || strcmp(first, second))
		abort();
	free(first);
	free(second);
	tt_topo_free(t);
	tt_topo_free(u);
	return 0;
}
