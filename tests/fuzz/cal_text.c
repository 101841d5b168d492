/* Any text: refused with a word, or figures that are written and read again the same.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "plan.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1), *first, *second;
	struct tt_cal c, d;
	int n;

	if (!text)
		return 0;
	memcpy(text, data, size);
	text[size] = 0;
	(void)tt_cal_read(text, "k", NULL, &c, &n);
	free(text);
	for (int coll = 0; coll <= TT_NCOLLS; coll++)
		for (int a = 0; a < 16; a++)
			if (!(tt_cal_factor(&c, (enum tt_coll)coll, a, size) > 0))
				abort();
	first = tt_cal_write("k", &c);
	if (!first || tt_cal_read(first, "k", NULL, &d, &n) != tuttiSuccess || n != 1)
		abort();
	second = tt_cal_write("k", &d);
	if (!second || strcmp(first, second))
		abort();
	free(first);
	free(second);
	return 0;
}
