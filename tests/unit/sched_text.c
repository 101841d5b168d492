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

static bool same_words(const uint32_t *a, const uint32_t *b, size_t n)
{
	return a && b ? !memcmp(a, b, n * sizeof(*a)) : a == b;
}

/* Beside what the text says: what the executor reads. */
static bool same(const struct tt_sched *a, const struct tt_sched *b)
{
	return a->coll == b->coll && a->rank == b->rank && a->nranks == b->nranks && a->root == b->root &&
	       a->nblocks == b->nblocks && a->per_block == b->per_block && a->nlanes == b->nlanes &&
	       a->nbufs == b->nbufs && a->nsteps == b->nsteps && a->nrefs == b->nrefs && a->ndeps == b->ndeps &&
	       a->one_window == b->one_window && a->ordered == b->ordered &&
	       a->block_runnable == b->block_runnable && same_words(a->weights, b->weights, a->per_block) &&
	       !memcmp(a->bufs, b->bufs, a->nbufs * sizeof(*a->bufs)) &&
	       !memcmp(a->steps, b->steps, a->nsteps * sizeof(*a->steps)) &&
	       !memcmp(a->refs, b->refs, a->nrefs * sizeof(*a->refs)) &&
	       !memcmp(a->deps, b->deps, a->ndeps * sizeof(*a->deps));
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

const struct test tests[] = {
	{ "text of every algorithm", text_round_trip, 0 },
	{ "MSCCL of every algorithm", msccl_round_trip, 120 },
};
const int ntests = sizeof(tests) / sizeof(tests[0]);
