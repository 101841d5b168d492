/* TUTTI_CALIBRATION on processes: the first jobs measure and add a record each, later ones take the medians; all ranks
 * hold one plan, results are right, and no state of the file keeps a job from running.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "comm.h"
#include "ranks.h"
#include "test.h"

static struct procs ps;
static char path[64];

/* Lines of the file that begin so. */
static int lines(const char *beginning)
{
	FILE *f = fopen(path, "re");
	char line[512];
	int n = 0;

	while (f && fgets(line, sizeof(line), f))
		n += !strncmp(line, beginning, strlen(beginning));
	if (f)
		fclose(f);
	return n;
}

static void same_plan(struct rank *r, tuttiComm_t c, int n)
{
	uint64_t mine[2] = { tt_hash64(&c->plan, sizeof(c->plan), 0), tt_cal_digest(c->cal) }, all[2 * RANKS_MAX];

	RANK_OK(r, tuttiAllGather(mine, all, 2, tuttiUint64, c, NULL));
	for (int i = 0; i < n; i++)
		RANK_CHECKF(r, all[2 * i] == mine[0] && all[2 * i + 1] == mine[1], "rank %d has another plan", i);
}

static void sums(struct rank *r, tuttiComm_t c, int n)
{
	static const size_t counts[] = { 1, 100, 10000, 1000000 };
	int *v = malloc(4 * counts[3]);

	for (int k = 0; k < 4; k++) {
		for (size_t i = 0; i < counts[k]; i++)
			v[i] = (int)i;
		RANK_OK(r, tuttiAllReduce(v, v, counts[k], tuttiInt32, tuttiSum, c, NULL));
		for (size_t i = 0; i < counts[k]; i++)
			RANK_CHECKF(r, v[i] == n * (int)i, "element %zu of %zu is %d", i, counts[k], v[i]);
	}
	free(v);
}

/* arg: whether there are figures in the end. */
static void calibrated(struct rank *r)
{
	tuttiComm_t part;
	bool odd = r->rank % 2;

	setenv("TUTTI_CALIBRATION", path, 1);
	setenv("TUTTI_LOG", "error", 1);
	RANK_OK(r, rank_init(r, NULL));
	RANK_CHECKF(r, r->comm->cal && tt_cal_digest(r->comm->cal), "no figures");
	same_plan(r, r->comm, r->n);
	sums(r, r->comm, r->n);
	RANK_OK(r, tuttiCommSplit(r->comm, odd, 0, &part, NULL));
	RANK_CHECKF(r, tt_cal_digest(part->cal) == tt_cal_digest(r->comm->cal), "a part lost the figures");
	same_plan(r, part, odd ? r->n / 2 : (r->n + 1) / 2);
	sums(r, part, odd ? r->n / 2 : (r->n + 1) / 2);
	RANK_OK(r, tuttiCommDestroy(part));
	RANK_OK(r, tuttiCommDestroy(r->comm));
}

static void job(int n, const char *transports)
{
	procs_start(&ps, n, 0, transports, calibrated, NULL);
	procs_expect(&ps, 60, -1);
}

static void fresh(void)
{
	strcpy(path, "/tmp/tutti-calibrate-XXXXXX");
	close(mkstemp(path));
	unlink(path);
}

/* What is in the file, so many times more. */
static void repeat(int times)
{
	static char text[1 << 16];
	FILE *f = fopen(path, "re");
	size_t n;

	CHECK(f);
	n = fread(text, 1, sizeof(text), f);
	fclose(f);
	f = fopen(path, "ae");
	CHECK(f && n > 0 && n < sizeof(text));
	for (int i = 0; i < times; i++)
		CHECK(fwrite(text, 1, n, f) == n);
	CHECK(fclose(f) == 0);
}

static void first_jobs(void)
{
	fresh();
	job(2, "shm");
	CHECKF(lines("calibration ") == 1, "%d records after the first job", lines("calibration "));
	CHECK(lines("AllReduce ") == 6 && lines("Broadcast ") == 3);
	repeat(TT_CAL_RECORDS - 2);
	job(2, "shm");
	CHECKF(lines("calibration ") == TT_CAL_RECORDS, "%d records", lines("calibration "));
	job(2, "shm"); /* knows enough */
	CHECKF(lines("calibration ") == TT_CAL_RECORDS, "%d records", lines("calibration "));
	job(3, "tcp"); /* another kind of job */
	CHECK(lines("calibration path=tcp ranks=3 ") == 1 && lines("calibration ") == TT_CAL_RECORDS + 1);
	unlink(path);
}

/* What is not a calibration is said and left alone; what cannot be written is measured for this job. */
static void poor_files(void)
{
	FILE *f;

	fresh();
	f = fopen(path, "we");
	CHECK(f && fputs("calibration nobody\nrubbish\n", f) >= 0 && fclose(f) == 0);
	job(2, "shm");
	CHECK(lines("rubbish") == 1);
	unlink(path);
	strcpy(path, "/tmp/tutti-no-such-folder/file");
	job(2, "shm");
}

const struct test tests[] = {
	{ "the first jobs measure", first_jobs, 120 },
	{ "files that are none", poor_files, 60 },
};
const int ntests = sizeof(tests) / sizeof(tests[0]);
