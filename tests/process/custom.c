/* Schedules of TUTTI_SCHEDULE_FILE on processes: which one ran, that results are right, and that init refuses what is
 * wrong or differs. SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "comm.h"
#include "ranks.h"
#include "ref.h"
#include "test.h"
#include "xml.h"

#define FIXTURES "tests/fixtures/sched/"

/* Whether a program of this schedule was made. */
static bool ran(const struct rank *r, tuttiComm_t comm, const char *algo)
{
	for (const struct tt_prog_entry *e = comm->progs; e; e = e->next)
		if (!strcmp(tt_prog_sched(e->prog)->algo, algo))
			return true;
	return false;
}

static void init(struct rank *r, const char *files)
{
	setenv("TUTTI_SCHEDULE_FILE", files, 1);
	RANK_OK(r, rank_init(r, NULL));
}

static void reduce(struct rank *r, tuttiComm_t comm, int n, int rank, size_t count, bool in_place)
{
	struct ref_case c = { .seed = count, .type = tuttiFloat32, .op = tuttiSum, .n = n };
	float *in = malloc(count * sizeof(*in) + 1), *out = in_place ? in : malloc(count * sizeof(*out) + 1);
	char why[200] = "";

	ref_fill(&c, rank, 0, count, in);
	RANK_OK(r, tuttiAllReduce(in, out, count, tuttiFloat32, tuttiSum, comm, NULL));
	RANK_CHECKF(r, ref_check_all(&c, 0, count, out, why, sizeof(why)) == count, "%zu: %s", count, why);
	if (!in_place)
		free(out);
	free(in);
}

static void reduce_sizes(struct rank *r, tuttiComm_t comm, int n, int rank)
{
	static const size_t counts[] = { 0, 1, 2, 5, 1000, 12345, 300001, 2000003 };

	for (size_t i = 0; i < 2 * sizeof(counts) / sizeof(counts[0]); i++)
		reduce(r, comm, n, rank, counts[i / 2], i % 2);
}

static void broadcast(struct rank *r, int root, size_t count)
{
	struct ref_case c = { .seed = count, .type = tuttiInt32, .op = REF_COPY, .n = r->n };
	int32_t *p = malloc(count * sizeof(*p));
	char why[200] = "";

	ref_fill(&c, r->rank, 0, count, p);
	RANK_OK(r, tuttiBroadcast(p, p, count, tuttiInt32, root, r->comm, NULL));
	RANK_CHECKF(r, ref_check_copy(&c, root, 0, count, p, why, sizeof(why)) == count, "%s", why);
	free(p);
}

/* ---- by hand ---- */

static void star_rank(struct rank *r)
{
	init(r, FIXTURES "star.txt");
	for (size_t count = 1; count <= 8192; count *= 2)
		reduce(r, r->comm, r->n, r->rank, count, count % 3);
	RANK_CHECKF(r, ran(r, r->comm, "star"), "another schedule ran");
	broadcast(r, 0, 1000);
	RANK_CHECKF(r, !ran(r, r->comm, "fan"), "a schedule for root 2 ran for root 0");
	broadcast(r, 2, 1000);
	broadcast(r, 2, 1000000);
	RANK_CHECKF(r, ran(r, r->comm, "fan"), "another schedule ran");
	RANK_OK(r, tuttiCommDestroy(r->comm));
}

/* Beyond its sizes the plan goes on without it. */
static void large_rank(struct rank *r)
{
	init(r, FIXTURES "star.txt");
	reduce(r, r->comm, r->n, r->rank, 100000, false);
	RANK_CHECKF(r, !ran(r, r->comm, "star"), "a schedule for up to 64 KiB ran");
	RANK_OK(r, tuttiCommDestroy(r->comm));
}

static void by_hand(void)
{
	static struct procs ps;

	procs_start(&ps, 3, 0, NULL, star_rank, NULL);
	procs_expect(&ps, 30, -1);
	procs_start(&ps, 3, 1, NULL, large_rank, NULL);
	procs_expect(&ps, 30, -1);
}

/* ---- MSCCL ---- */

static bool have_xml(void)
{
	char why[200];
	bool have = tt_xml_here(why, sizeof(why));

	if (!have)
		printf("skipped: %s\n", why);
	return have;
}

static void msccl_rank(struct rank *r)
{
	init(r, r->n == 3 ? FIXTURES "ring3.xml" : FIXTURES "halves2.xml," FIXTURES "pairs2.xml");
	reduce_sizes(r, r->comm, r->n, r->rank);
	RANK_CHECKF(r, ran(r, r->comm, r->n == 3 ? "ring_three" : "pairs"), "another schedule ran");
	RANK_OK(r, tuttiCommDestroy(r->comm));
}

static void scatter_rank(struct rank *r)
{
	int64_t in[2000], out[1000];

	init(r, FIXTURES "halves2.xml");
	for (int count = 1; count <= 1000; count += 37) {
		for (int i = 0; i < 2 * count; i++)
			in[i] = 1000 * (r->rank + 1) + i;
		RANK_OK(r, tuttiReduceScatter(in, out, (size_t)count, tuttiInt64, tuttiSum, r->comm, NULL));
		for (int i = 0; i < count; i++)
			RANK_CHECKF(r, out[i] == 3000 + 2 * (r->rank * count + i), "%d: %lld", i, (long long)out[i]);
	}
	RANK_CHECKF(r, ran(r, r->comm, "halves"), "another schedule ran");
	RANK_OK(r, tuttiCommDestroy(r->comm));
}

static void imported(void)
{
	static const char *const transports[] = { "shm", "tcp" };
	static struct procs ps;

	for (int i = 0; i < 4 && have_xml(); i++) {
		procs_start(&ps, 2 + i / 2, 0, transports[i % 2], msccl_rank, NULL);
		procs_expect(&ps, 60, -1);
	}
	if (have_xml()) {
		procs_start(&ps, 2, 0, NULL, scatter_rank, NULL);
		procs_expect(&ps, 30, -1);
	}
}

/* ---- a part of a communicator has what its parent has read ---- */

static void split_rank(struct rank *r)
{
	tuttiComm_t part;
	int color = r->rank == 1, rank, n;

	init(r, FIXTURES "pairs2.xml");
	RANK_OK(r, tuttiCommSplit(r->comm, color, 0, &part, NULL));
	RANK_OK(r, tuttiCommDestroy(r->comm));
	RANK_OK(r, tuttiCommUserRank(part, &rank));
	RANK_OK(r, tuttiCommCount(part, &n));
	reduce(r, part, n, rank, 1000, false);
	RANK_CHECKF(r, ran(r, part, "pairs") == (n == 2), "%d ranks", n);
	RANK_OK(r, tuttiCommDestroy(part));
}

static void parts(void)
{
	static struct procs ps;

	if (!have_xml())
		return;
	procs_start(&ps, 3, 0, NULL, split_rank, NULL);
	procs_expect(&ps, 30, -1);
}

/* ---- refused ---- */

struct refusal {
	const char *files[3], *words; /* what each rank is given */
};

static void refused_rank(struct rank *r)
{
	const struct refusal *x = r->arg;
	tuttiResult_t res;

	setenv("TUTTI_LOG", "none", 1);
	setenv("TUTTI_SCHEDULE_FILE", x->files[r->rank], 1);
	res = rank_init(r, NULL);
	RANK_CHECKF(r, res == tuttiInvalidUsage, "%d: %s", res, tuttiGetLastError(NULL));
	RANK_CHECKF(r, strstr(tuttiGetLastError(NULL), x->words), "%s", tuttiGetLastError(NULL));
}

static void refused(void)
{
	static char folder[] = "/tmp/tutti-custom-XXXXXX", broken[64], unproved[64];
	static const struct refusal cases[] = {
		{ { FIXTURES "star.txt", "", FIXTURES "star.txt" }, "rank 1 (" },
		{ { FIXTURES "star.txt", FIXTURES "star.txt", FIXTURES "halves2.xml" }, "rank 2 (" },
		{ { broken, broken, broken }, "custom_broken.txt:2: rank 0 step 0: " },
		{ { unproved, unproved, unproved }, "custom_unproved.txt:3: rank 0 step 1: " },
		{ { "nowhere.txt", "nowhere.txt", "nowhere.txt" }, "nowhere.txt cannot be read: No such file" },
	};
	static const char *const heads[] = {
		"AllReduce bad rank 0 of 1: 1 x 1 chunks\n" "push in[0] to 1\n",
		"AllReduce bad rank 0 of 2: 1 x 1 chunks\n" "send in[0] to 1\n" "recv out[0] from 1\n"
		"AllReduce bad rank 1 of 2: 1 x 1 chunks\n" "copy out[0] = in[0]\n" "recv out[0] from 0\n",
	};
	static struct procs ps;

	CHECK(mkdtemp(folder));
	snprintf(broken, sizeof(broken), "%s/custom_broken.txt", folder);
	snprintf(unproved, sizeof(unproved), "%s/custom_unproved.txt", folder);
	for (int i = 0; i < 2; i++) {
		FILE *f = fopen(i ? unproved : broken, "w");

		CHECK(f && fputs(heads[i], f) >= 0 && !fclose(f));
	}
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		if (strstr(cases[i].files[2], ".xml") && !have_xml())
			continue;
		procs_start(&ps, 3, 0, NULL, refused_rank, (void *)&cases[i]);
		procs_expect(&ps, 30, -1);
	}
	CHECK(!unlink(broken) && !unlink(unproved) && !rmdir(folder));
}

const struct test tests[] = {
	{ "by hand", by_hand, 0 },
	{ "MSCCL", imported, 0 },
	{ "parts", parts, 0 },
	{ "refused", refused, 0 },
};
const int ntests = sizeof(tests) / sizeof(tests[0]);
