/* Any text: refused with a word, or schedules that are printed, read and printed again the same; small ones go through
 * the checker. SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sched_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char *text_of(const struct tt_sched_set *set)
{
	char *text = NULL;
	size_t n;
	FILE *f = open_memstream(&text, &n);

	for (int i = 0; f && i < set->nranks; i++) {
		int len = tt_sched_print(set->ranks[i], NULL, 0);
		char *one = malloc((size_t)len + 1);

		tt_sched_print(set->ranks[i], one, (size_t)len + 1);
		fputs(one, f);
		free(one);
	}
	if (!f || fclose(f))
		abort();
	return text;
}

static void again(const struct tt_sched_set *set)
{
	struct tt_sched_file file = { 0 };
	char *first = text_of(set), *second;

	if (tt_sched_read(first, strlen(first), "again", &file) != tuttiSuccess || file.nsets != 1)
		abort();
	second = text_of(file.sets[0]);
	if (strcmp(first, second))
		abort();
	free(first);
	free(second);
	tt_sched_file_clear(&file);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct tt_sched_file file = { 0 };

	setenv("TUTTI_LOG", "none", 1);
	if (tt_sched_read((const char *)data, size, "input", &file) == tuttiSuccess)
		for (int i = 0; i < file.nsets; i++) {
			const struct tt_sched *s = file.sets[i]->ranks[0];

			if (s->nblocks * s->per_block > 4096)
				continue;
			again(file.sets[i]);
			(void)tt_sched_prove(file.sets[i]);
		}
	tt_sched_file_clear(&file);
	return 0;
}
