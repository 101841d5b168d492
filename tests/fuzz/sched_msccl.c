/* Any bytes as MSCCL's XML: refused with a word, or a schedule that the checker judges; what it finds right is written
 * as XML, and that is right as well. SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>

#include "sched_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void again(const struct tt_sched_set *set)
{
	struct tt_sched_file file = { 0 };
	char *text = NULL;
	size_t n;
	FILE *f = open_memstream(&text, &n);

	if (!f || tt_sched_to_msccl(set->ranks, set->nranks, f) != tuttiSuccess || fclose(f))
		abort();
	if (tt_sched_from_msccl(text, n, "again", &file) != tuttiSuccess ||
	    tt_sched_prove(file.sets[0]) != tuttiSuccess)
		abort();
	free(text);
	tt_sched_file_clear(&file);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct tt_sched_file file = { 0 };

	setenv("TUTTI_LOG", "none", 1);
	if (tt_sched_from_msccl((const char *)data, size, "input", &file) == tuttiSuccess &&
	    file.sets[0]->ranks[0]->per_block <= 4096 && tt_sched_prove(file.sets[0]) == tuttiSuccess)
		again(file.sets[0]);
	tt_sched_file_clear(&file);
	return 0;
}
