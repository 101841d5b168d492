/* Schedules from outside: the text and MSCCL's XML of every algorithm are read back, by hand written ones are
 * proved, and broken ones are refused at their step. SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sched_file.h"
#include "test.h"
#include "xml.h"

static char *text_of(struct tt_sched *const *ranks, int p)
{
	char *text;
	size_t n;
	FILE *f = open_memstream(&text, &n);

	CHECK(f);
	for (int i = 0; i < p; i++) {
		int len = tt_sched_print(ranks[i], NULL, 0);
		char *one = malloc((size_t)len + 1);

		CHECK(one);
		tt_sched_print(ranks[i], one, (size_t)len + 1);
		fputs(one, f);
		free(one);
	}
	CHECK(!fclose(f));
	return text;
}

static char *xml_of(struct tt_sched *const *ranks, int p)
{
	char *text;
	size_t n;
	FILE *f = open_memstream(&text, &n);

	CHECK(f);
	CHECKF(tt_sched_to_msccl(ranks, p, f) == tuttiSuccess, "%s", tt_last_error());
	CHECK(!fclose(f));
	return text;
}

static bool same_bytes(const void *a, const void *b, size_t n)
{
	return !n || (a && b ? !memcmp(a, b, n) : a == b);
}

/* Beside what the text says: what the executor reads. */
static bool same(const struct tt_sched *a, const struct tt_sched *b)
{
	return a->coll == b->coll && a->rank == b->rank && a->nranks == b->nranks && a->root == b->root &&
	       a->nblocks == b->nblocks && a->per_block == b->per_block && a->nlanes == b->nlanes &&
	       a->nbufs == b->nbufs && a->nsteps == b->nsteps && a->nrefs == b->nrefs && a->ndeps == b->ndeps &&
	       a->one_window == b->one_window && a->ordered == b->ordered &&
	       a->block_runnable == b->block_runnable &&
	       same_bytes(a->weights, b->weights, a->per_block * sizeof(*a->weights)) &&
	       same_bytes(a->bufs, b->bufs, a->nbufs * sizeof(*a->bufs)) &&
	       same_bytes(a->steps, b->steps, a->nsteps * sizeof(*a->steps)) &&
	       same_bytes(a->refs, b->refs, a->nrefs * sizeof(*a->refs)) &&
	       same_bytes(a->deps, b->deps, a->ndeps * sizeof(*a->deps));
}

static void again_as_text(struct tt_sched *const *ranks, int p)
{
	struct tt_sched_file file = { 0 };
	char *text = text_of(ranks, p), *second;

	CHECKF(tt_sched_read(text, strlen(text), "text", &file) == tuttiSuccess, "%s\n%s", tt_last_error(), text);
	CHECK(file.nsets == 1 && file.sets[0]->nranks == p);
	second = text_of(file.sets[0]->ranks, p);
	CHECKF(!strcmp(text, second), "%s\nbecame\n%s", text, second);
	for (int i = 0; i < p; i++)
		CHECKF(same(ranks[i], file.sets[0]->ranks[i]), "rank %d of %s", i, text);
	free(text);
	free(second);
	tt_sched_file_clear(&file);
}

static void again_as_msccl(struct tt_sched *const *ranks, int p)
{
	struct tt_sched_file file = { 0 };
	char *text;

	if (ranks[0]->weights || ranks[0]->coll == TT_BARRIER)
		return;
	text = xml_of(ranks, p);
	CHECKF(tt_sched_from_msccl(text, strlen(text), "xml", &file) == tuttiSuccess, "%s\n%s", tt_last_error(), text);
	CHECK(file.nsets == 1 && file.sets[0]->nranks == p);
	CHECKF(tt_sched_prove(file.sets[0]) == tuttiSuccess, "%s\n%s", tt_last_error(), text);
	CHECK(file.sets[0]->ranks[0]->coll == ranks[0]->coll && file.sets[0]->ranks[0]->root == ranks[0]->root);
	free(text);
	tt_sched_file_clear(&file);
}

static void each_algorithm(void (*again)(struct tt_sched *const *ranks, int p))
{
	static const uint32_t weights[3] = { 3, 1, 2 };
	struct tt_sched *ranks[16];

	for (int i = 0; i < tt_nalgos * TT_SENDRECV * 16; i++) {
		enum tt_coll coll = (enum tt_coll)(i % TT_SENDRECV);
		const struct tt_algo *a = &tt_algos[i / TT_SENDRECV % tt_nalgos];
		int p = 1 + i / TT_SENDRECV / tt_nalgos, root = coll == TT_BROADCAST || coll == TT_REDUCE ? p / 2 : 0;

		for (uint32_t lanes = 1; lanes <= 3 && a->colls >> coll & 1; lanes += 2) {
			struct tt_shape shape = { .nlanes = lanes, .weights = p % 2 && lanes > 1 ? weights : NULL };

			for (int r = 0; r < p; r++)
				CHECK(a->build(coll, r, p, root, &shape, &ranks[r]) == tuttiSuccess);
			again(ranks, p);
			for (int r = 0; r < p; r++)
				tt_sched_free(ranks[r]);
		}
	}
}

static void text_round_trip(void)
{
	each_algorithm(again_as_text);
}

static void msccl_round_trip(void)
{
	char why[200];

	if (!tt_xml_here(why, sizeof(why)))
		printf("skipped: %s\n", why);
	else
		each_algorithm(again_as_msccl);
}

/* ---- fixtures ---- */

static char *fixture(const char *name)
{
	char path[200], *text = calloc(1, 1 << 16);
	FILE *f;

	snprintf(path, sizeof(path), "tests/fixtures/sched/%s", name);
	f = fopen(path, "r");
	CHECKF(f && text, "%s is missing: run this from the root of the repository", path);
	CHECK(fread(text, 1, (1 << 16) - 1, f) > 0);
	fclose(f);
	return text;
}

static tuttiResult_t read_and_prove(const char *name, const char *text, struct tt_sched_file *file)
{
	tuttiResult_t r = *text == '<' ? tt_sched_from_msccl(text, strlen(text), name, file) :
					 tt_sched_read(text, strlen(text), name, file);

	for (int i = 0; i < file->nsets && r == tuttiSuccess; i++)
		r = tt_sched_prove(file->sets[i]);
	return r;
}

static bool readable(const char *name)
{
	char why[200];

	if (!strstr(name, ".xml") || tt_xml_here(why, sizeof(why)))
		return true;
	printf("%s skipped: %s\n", name, why);
	return false;
}

static void fixtures(void)
{
	static const char *const names[] = { "star.txt", "ring3.xml", "pairs2.xml", "halves2.xml" };
	static const int sets[] = { 2, 1, 1, 1 };

	for (int i = 0; i < 4; i++) {
		struct tt_sched_file file = { 0 };
		char *text = readable(names[i]) ? fixture(names[i]) : NULL;

		if (!text)
			continue;
		CHECKF(read_and_prove(names[i], text, &file) == tuttiSuccess, "%s", tt_last_error());
		CHECK(file.nsets == sets[i]);
		if (i == 0)
			CHECK(!file.sets[0]->least && file.sets[0]->most == 65536 && file.sets[1]->most == SIZE_MAX);
		if (i == 2)
			CHECK(file.sets[0]->most == 1048576 && file.sets[0]->ranks[0]->nlanes == 2);
		if (i == 3)
			CHECK(file.sets[0]->ranks[0]->per_block == 2 && file.sets[0]->most == SIZE_MAX);
		tt_sched_file_clear(&file);
		free(text);
	}
}

/* A fixture with one thing broken is refused, and the error names file, line and step. */
struct broken {
	const char *file, *old, *new, *where, *why;
};

static const struct broken broken[] = {
#include "sched_broken.h"
};

static void one_broken(const struct broken *b)
{
	struct tt_sched_file file = { 0 };
	char *text = fixture(b->file), *at = strstr(text, b->old), *bad = malloc(strlen(text) + 400), where[300];
	tuttiResult_t r;

	CHECKF(at && bad, "%s has no %s", b->file, b->old);
	sprintf(bad, "%.*s%s%s", (int)(at - text), text, b->new, at + strlen(b->old));
	r = read_and_prove(b->file, bad, &file);
	snprintf(where, sizeof(where), "%s:%s", b->file, b->where);
	CHECKF(r == tuttiInvalidUsage, "%s, \"%s\" for \"%s\": result %d", b->file, b->new, b->old, r);
	CHECKF(!strncmp(tt_last_error(), where, strlen(where)) && strstr(tt_last_error(), b->why),
	       "\"%s\" for \"%s\": wanted %s ... %s, got\n%s", b->new, b->old, where, b->why, tt_last_error());
	tt_sched_file_clear(&file);
	free(text);
	free(bad);
}

static void broken_ones(void)
{
	int n = sizeof(broken) / sizeof(broken[0]), tried = 0;

	setenv("TUTTI_LOG", "none", 1);
	for (int i = 0; i < n; i++)
		if (readable(broken[i].file)) {
			one_broken(&broken[i]);
			tried++;
		}
	printf("%d broken schedules\n", tried);
}

const struct test tests[] = {
	{ "fixtures", fixtures, 0 },
	{ "broken ones are refused at their step", broken_ones, 0 },
	{ "text of every algorithm", text_round_trip, 0 },
	{ "MSCCL of every algorithm", msccl_round_trip, 120 },
};
const int ntests = sizeof(tests) / sizeof(tests[0]);
