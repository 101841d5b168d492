/* What tests of topologies share. SPDX-License-Identifier: Apache-2.0 */
#include "topo_files.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "test.h"

char *test_fixture(const char *name)
{
	char path[300], *text = malloc(1 << 20);
	size_t n;
	FILE *f;

	snprintf(path, sizeof(path), "tests/fixtures/topo/%s", name);
	f = fopen(path, "r");
	CHECKF(f && text, "%s is missing: run this from the root of the repository", path);
	n = fread(text, 1, (1 << 20) - 1, f);
	text[n] = 0;
	fclose(f);
	return text;
}

bool test_assumes(const struct tt_topo *t, const char *words)
{
	for (int i = 0; i < t->nassumed; i++)
		if (strstr(t->assumed[i], words))
			return true;
	return false;
}

const char *test_between(const struct tt_topo *t, const char *a, const char *b)
{
	int x = tt_topo_find(t, a), y = tt_topo_find(t, b);
	enum tt_path_class c;

	CHECKF(x >= 0 && y >= 0, "%s or %s is missing", a, b);
	c = tt_topo_path(t, x, y).cls;
	CHECKF(tt_topo_path(t, y, x).cls == c, "%s and %s: two classes", a, b);
	return tt_path_word(c);
}

struct tt_topo *test_topo_text(const char *text)
{
	struct tt_topo *t;

	CHECKF(!tt_topo_read(text, strlen(text), &t), "%s", tt_last_error());
	return t;
}

struct tt_topo *test_topo_nccl(const char *name, const struct tt_topo *machine)
{
	char *text = test_fixture(name);
	struct tt_topo *t;

	CHECKF(!tt_topo_from_nccl(text, strlen(text), 0, machine, &t), "%s: %s", name, tt_last_error());
	free(text);
	return t;
}
