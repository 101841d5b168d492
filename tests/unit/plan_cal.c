/* Calibrations: factors between points, records written and read, medians of several, what is refused.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "plan.h"
#include "test.h"

enum { RING, DIRECT, DIRECT1 }; /* as in the table of algorithms */

static bool near(double a, double b)
{
	return fabs(a - b) <= 0.002 * fabs(b) + 1e-9;
}

static struct tt_cal some(float f)
{
	struct tt_cal c = { 0 };

	for (int k = 0; k < TT_CAL_POINTS; k++)
		c.factor[TT_ALLREDUCE][RING][k] = f * (float)(k + 1);
	c.factor[TT_REDUCE][DIRECT][3] = f;
	return c;
}

static void factors(void)
{
	struct tt_cal c = some(2);

	CHECK(tt_cal_point(0) == 8 && tt_cal_point(TT_CAL_POINTS - 1) == 8 << 20);
	CHECK(tt_cal_factor(NULL, TT_ALLREDUCE, RING, 8) == 1);
	CHECK(near(tt_cal_factor(&c, TT_ALLREDUCE, RING, 8), 2));
	CHECK(near(tt_cal_factor(&c, TT_ALLREDUCE, RING, 0), 2));
	CHECK(near(tt_cal_factor(&c, TT_ALLREDUCE, RING, 20), 3));
	CHECK(near(tt_cal_factor(&c, TT_ALLREDUCE, RING, 32), 4));
	CHECK(near(tt_cal_factor(&c, TT_ALLREDUCE, RING, (size_t)1 << 40), 22));
	/* One point speaks for all sizes, none for nothing. */
	CHECK(near(tt_cal_factor(&c, TT_REDUCE, DIRECT, 8), 2));
	CHECK(near(tt_cal_factor(&c, TT_REDUCE, DIRECT, 1 << 30), 2));
	CHECK(tt_cal_factor(&c, TT_ALLREDUCE, DIRECT, 8) == 1 && tt_cal_factor(&c, TT_BARRIER, RING, 8) == 1);
	CHECK(tt_cal_digest(NULL) == 0 && tt_cal_digest(&c) != 0);
}

static void records(void)
{
	struct tt_cal c = some(1.5f), back, also = some(9);
	char *text = tt_cal_write("ranks=2", &c), twice[8192];
	int n = -1;

	CHECK(text && tt_cal_read(text, "ranks=2", NULL, &back, &n) == tuttiSuccess && n == 1);
	for (int k = 0; k < TT_CAL_POINTS; k++)
		CHECK(near(back.factor[TT_ALLREDUCE][RING][k], c.factor[TT_ALLREDUCE][RING][k]));
	CHECK(near(back.factor[TT_REDUCE][DIRECT][3], 1.5) && back.factor[TT_REDUCE][DIRECT][2] == 0);
	CHECK(tt_cal_read(text, "ranks=3", NULL, &back, &n) == tuttiSuccess && n == 0);
	CHECK(tt_cal_factor(&back, TT_ALLREDUCE, RING, 8) == 1);
	CHECK(tt_cal_read(NULL, "ranks=2", NULL, &back, &n) == tuttiSuccess && n == 0);
	CHECK(tt_cal_read(text, "ranks=2", &also, &back, &n) == tuttiSuccess && n == 2);
	CHECK(near(back.factor[TT_ALLREDUCE][RING][0], (1.5 + 9) / 2));
	snprintf(twice, sizeof(twice), "# a comment\n\n%s%s", text, text);
	CHECK(tt_cal_read(twice, "ranks=2", &also, &back, &n) == tuttiSuccess && n == 3);
	CHECK(near(back.factor[TT_ALLREDUCE][RING][0], 1.5));
	free(text);
}

/* Of many records the last count. */
static void last_ones(void)
{
	char all[65536] = "";
	struct tt_cal back;
	int n;

	for (int i = 0; i < TT_CAL_RECORDS + 3; i++) {
		struct tt_cal c = some(i < 3 ? 500 : (float)(i - 2));
		char *text = tt_cal_write("k", &c);

		CHECK(text && strlen(all) + strlen(text) < sizeof(all));
		strcat(all, text);
		free(text);
	}
	CHECK(tt_cal_read(all, "k", NULL, &back, &n) == tuttiSuccess && n == TT_CAL_RECORDS + 3);
	CHECKF(near(back.factor[TT_ALLREDUCE][RING][0], 3), "%g", (double)back.factor[TT_ALLREDUCE][RING][0]);
}

static void refused(void)
{
	static const char *const texts[] = {
		"rubbish\n",
		"calibration k\nAllReduce ring 1 2 3 4 5 6 7 8 9 1\nend\n",
		"calibration k\nAllReduce ring 1 2 3 4 5 6 7 8 9 1 1 1\nend\n",
		"calibration k\nAllReduce ring 1 2 3 4 -5 6 7 8 9 1 1\nend\n",
		"calibration k\nAllReduce ring 1 2 3 4 5.5 6 7 8 9 1 1\nend\n",
		"calibration k\nAllReduce ring 1 2 3 4 x 6 7 8 9 1 1\nend\n",
		"calibration k\nAllReduce ring 1 2 3 4 99999999999 6 7 8 9 1 1\nend\n",
		"calibration k\nAllReduce\nend\n",
		"calibration k\nAllReduce ring 1 2 3 4 5 6 7 8 9 1 1\n",
		"calibration k\ncalibration k\nend\n",
		"calibration k\nAllReduce ring 1 2 3 4 5 6 7\n8 9 1 1\nend\n",
	};
	static const char mixed[] = "calibration k\nAllReduce ring 2000 1 1 1 1 1 1 1 1 1 1\n"
				    "AllReduce other 1 1 1 1 1 1 1 1 1 1 1\n"
				    "AllToAll ring 1 1 1 1 1 1 1 1 1 1 1\nend\nrubbish";
	struct tt_cal back;
	int n;

	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		CHECKF(tt_cal_read(texts[i], "k", NULL, &back, &n) == tuttiInvalidArgument && n == 0, "%s", texts[i]);
		CHECKF(strstr(tt_last_error(), "line "), "%s", tt_last_error());
	}
	/* What stands before counts; what another release knows is passed over. */
	CHECK(tt_cal_read(mixed, "k", NULL, &back, &n) == tuttiInvalidArgument);
	CHECK(n == 1 && near(back.factor[TT_ALLREDUCE][RING][0], 2));
}

/* A factor moves the choice, and only for its collective. */
static void choice(void)
{
	struct tt_facts f = { .nranks = 4, .per_host = 4, .hosts = 1, .cores = 4, .latency = 1e-6,
			      .bandwidth = 9e9 };
	struct tt_candidate before[16], after[16];
	struct tt_cal c = { 0 };
	int n = tt_plan_candidates(&f, TT_ALLREDUCE, 1 << 20, false, before, 16);

	CHECK(n > 2);
	for (int k = 0; k < TT_CAL_POINTS; k++)
		c.factor[TT_ALLREDUCE][before[0].row.algo][k] = 1000;
	f.cal = &c;
	CHECK(tt_plan_candidates(&f, TT_ALLREDUCE, 1 << 20, false, after, 16) == n);
	CHECK(after[0].algo == before[1].algo && after[n - 1].algo == before[0].algo);
	CHECK(near(after[n - 1].seconds, 1000 * before[0].seconds));
	/* By less than measurements scatter: the formulas' choice stays, and its time is told as measured. */
	for (int k = 0; k < TT_CAL_POINTS; k++)
		c.factor[TT_ALLREDUCE][before[0].row.algo][k] =
			(float)(1.05 * before[1].seconds / before[0].seconds);
	CHECK(tt_plan_candidates(&f, TT_ALLREDUCE, 1 << 20, false, after, 16) == n);
	CHECK(after[0].algo == before[0].algo && after[1].algo == before[1].algo);
	CHECK(near(after[0].seconds, 1.05 * before[1].seconds));
}

/* A record of a slow hour says nothing about which algorithm is the better one. */
static void slow_hour(void)
{
	static const float level[] = { 1, 10, 1 }, ratio[] = { 0.9f, 0.5f, 0.7f };
	char all[8192] = "";
	struct tt_cal back;
	int n;

	for (int i = 0; i < 3; i++) {
		struct tt_cal c = { 0 };
		char *text;

		c.factor[TT_ALLREDUCE][RING][2] = level[i];
		c.factor[TT_ALLREDUCE][DIRECT][2] = level[i] * ratio[i];
		c.factor[TT_ALLREDUCE][DIRECT1][2] = level[i] * 2;
		text = tt_cal_write("k", &c);
		CHECK(text && strlen(all) + strlen(text) < sizeof(all));
		strcat(all, text);
		free(text);
	}
	CHECK(tt_cal_read(all, "k", NULL, &back, &n) == tuttiSuccess && n == 3);
	CHECKF(near(back.factor[TT_ALLREDUCE][RING][2], 1), "%g", (double)back.factor[TT_ALLREDUCE][RING][2]);
	CHECKF(near(back.factor[TT_ALLREDUCE][DIRECT][2], 0.7), "%g", (double)back.factor[TT_ALLREDUCE][DIRECT][2]);
	CHECKF(near(back.factor[TT_ALLREDUCE][DIRECT1][2], 2), "%g", (double)back.factor[TT_ALLREDUCE][DIRECT1][2]);
}

const struct test tests[] = {
	{ "factors", factors, 0 },
	{ "records", records, 0 },
	{ "the last ones", last_ones, 0 },
	{ "refused", refused, 0 },
	{ "choice", choice, 0 },
	{ "a slow hour", slow_hour, 0 },
};
const int ntests = sizeof(tests) / sizeof(tests[0]);
