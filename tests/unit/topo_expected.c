/* SPDX-License-Identifier: Apache-2.0
 * The search against the answers that are kept beside the checkout, in TEST_TOPOLOGIES (../shared/topologies):
 * link matrices of real machines, the most rings of them and the cut bound. Skipped with a notice without them. */
#include "topo_rig.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static char *read_answers(void)
{
	const char *folder = getenv("TEST_TOPOLOGIES");
	char path[4096], *text = NULL;
	FILE *f;

	snprintf(path, sizeof path, "%s/expected.json", folder ? folder : "../shared/topologies");
	f = fopen(path, "r");
	if (!f) {
		printf("skipped: there is no %s\n", path);
		return NULL;
	}
	text = calloc(1, 4 << 20);
	CHECK(text && fread(text, 1, (4 << 20) - 1, f) > 0 && feof(f));
	fclose(f);
	return text;
}

/* The numbers of a matrix, of which there are `n` squared. */
static uint32_t read_matrix(const char *text, uint8_t *links, uint32_t most)
{
	uint32_t count = 0, n = 0;
	int depth = 0;

	for (const char *p = text; *p && (p == text || depth); p++) {
		char *end = (char *)(uintptr_t)p + 1;

		depth += (*p == '[') - (*p == ']');
		if (*p < '0' || *p > '9')
			continue;
		CHECK(count < most);
		links[count++] = (uint8_t)strtoul(p, &end, 10);
		p = end - 1;
	}
	while (n * n < count)
		n++;
	CHECK(n * n == count);
	return n;
}

/* The number behind a key of this machine's entry; -1: it has none. */
static double number(const char *text, const char *end, const char *key)
{
	const char *at = strstr(text, key);

	return at && at < end ? strtod(at + strlen(key), NULL) : -1;
}

static void near(const char *name, const char *what, struct tt_frac got, double want)
{
	CHECKF(want < 0 || fabs(tt_frac_value(got) - want) < 1e-3, "%s: %s %g, not %g", name, what,
	       tt_frac_value(got), want);
}

static void compare(const char *name, struct tt_graph *g, const char *text, const char *end)
{
	struct tt_rings *whole, *parts;
	struct tt_frac bound;

	CHECK(tt_cut_bound(g, &bound) == tuttiSuccess);
	CHECK(tt_rings_find(g, false, &whole) == tuttiSuccess && tt_rings_find(g, true, &parts) == tuttiSuccess);
	near(name, "bound", bound, number(text, end, "\"bound_ring_equiv\":"));
	near(name, "whole rings", whole->total, number(text, end, "\"rings_integer\":"));
	near(name, "rings", parts->total, number(text, end, "\"rings_fractional\":"));
	tt_rings_free(whole);
	tt_rings_free(parts);
	tt_graph_free(g);
}

/* Each entry has a matrix and, of small machines without switches, the answers after it. */
static void machines(void)
{
	char *text = read_answers(), name[256] = "?";
	static uint8_t links[64 * 64];
	int compared = 0;

	if (!text)
		return;
	for (const char *at = strstr(text, "\"matrix\":"), *next; at; at = next) {
		const char *start = at;
		uint32_t n = read_matrix(strchr(at, '['), links, sizeof links);

		next = strstr(at + 1, "\"matrix\":");
		while (start > text && strncmp(start, ".xml\"", 5) != 0)
			start--;
		while (start > text && start[-1] != '"')
			start--;
		sscanf(start, "%255[^\"]", name);
		compare(name, rig_matrix(n, links), at, next ? next : at + strlen(at));
		compared += number(at, next ? next : at + strlen(at), "\"rings_integer\":") >= 0;
	}
	printf("%d machines compared\n", compared);
	CHECK(compared > 10);
	free(text);
}

const struct test tests[] = { { "machines", machines, 0 } };
const int ntests = 1;
