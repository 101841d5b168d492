/* What was measured on a communicator, as factors on the formulas of plan.c: looked up between the points, written as a
 * text record and read from one. SPDX-License-Identifier: Apache-2.0 */
#include "plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SCALE = 1000, MOST = 1000000 }; /* factors are written in thousandths, which no locale changes */

size_t tt_cal_point(int k)
{
	return (size_t)8 << 2 * k;
}

/* The nearest point that was measured from k on in direction `step`, or 0. */
static float near_factor(const float *f, int k, int step)
{
	for (; k >= 0 && k < TT_CAL_POINTS; k += step)
		if (f[k] > 0)
			return f[k];
	return 0;
}

/* Linear between points on a logarithmic scale; what was not measured is as its neighbour. */
double tt_cal_factor(const struct tt_cal *c, enum tt_coll coll, int algo, size_t bytes)
{
	const float *f;
	float low, high;
	int k = 0;

	if (!c || (int)coll >= TT_CAL_COLLS || algo >= TT_CAL_ALGOS)
		return 1;
	f = c->factor[coll][algo];
	while (k < TT_CAL_POINTS - 1 && tt_cal_point(k + 1) <= bytes)
		k++;
	low = near_factor(f, k, -1);
	high = near_factor(f, k + 1, 1);
	if (low <= 0 || high <= 0)
		return low > 0 ? low : high > 0 ? high : 1;
	if (bytes <= tt_cal_point(k))
		return low;
	return low + (high - low) * (double)(bytes - tt_cal_point(k)) / (double)(tt_cal_point(k + 1) - tt_cal_point(k));
}

uint64_t tt_cal_digest(const struct tt_cal *c)
{
	return c ? tt_hash64(c, sizeof(*c), 0) : 0;
}

/* ---- text: "calibration KEY", lines "COLLECTIVE ALGORITHM thousandth ...", "end" ---- */

static int find_coll(const char *name, size_t n)
{
	for (int c = 0; c < TT_CAL_COLLS; c++)
		if (strlen(tt_coll_name((enum tt_coll)c)) == n && !memcmp(tt_coll_name((enum tt_coll)c), name, n))
			return c;
	return -1;
}

static int find_algo(const char *name, size_t n)
{
	for (int i = 0; i < tt_nalgos && i < TT_CAL_ALGOS; i++)
		if (strlen(tt_algos[i].name) == n && !memcmp(tt_algos[i].name, name, n))
			return i;
	return -1;
}

static bool read_factors(const char *at, const char *end, float f[TT_CAL_POINTS])
{
	for (int k = 0; k < TT_CAL_POINTS; k++) {
		char *after;
		unsigned long v;

		at += strspn(at, " ");
		if (*at < '0' || *at > '9')
			return false;
		v = strtoul(at, &after, 10);
		if (after > end || v > MOST)
			return false;
		f[k] = (float)v / SCALE;
		at = after;
	}
	return at + strspn(at, " ") == end;
}

/* A line of a record; those of collectives and algorithms that another release has are passed over. */
static bool read_line(const char *line, const char *end, struct tt_cal *out)
{
	size_t n = strcspn(line, " \n"), m;
	const char *algo = line + n + 1;
	float f[TT_CAL_POINTS];
	int c, a;

	if (line + n >= end)
		return false;
	m = strcspn(algo, " \n");
	if (algo + m >= end || !read_factors(algo + m, end, f))
		return false;
	c = find_coll(line, n);
	a = find_algo(algo, m);
	if (c >= 0 && a >= 0)
		memcpy(out->factor[c][a], f, sizeof(f));
	return true;
}

/* ---- several records: one program runs in one of several modes from start to start, so no single one counts ---- */

struct pool {
	struct tt_cal cal[TT_CAL_RECORDS];
	int n; /* read; the last ones stand */
};

static int by_size(const void *a, const void *b)
{
	float x = *(const float *)a, y = *(const float *)b;

	return x < y ? -1 : x > y;
}

/* The median of n; none: 0. */
static float middle(float *v, int n)
{
	qsort(v, (size_t)n, sizeof(*v), by_size);
	return !n ? 0 : n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

/* One collective at one point. A machine that is slow for a while is so for all algorithms of a record alike: they are
 * compared within their record, and only what comes of that between records. */
static void combine(const struct pool *p, int c, int k, struct tt_cal *out)
{
	int records = tt_min(p->n, TT_CAL_RECORDS), nlevels = 0;
	float level[TT_CAL_RECORDS], v[tt_max(TT_CAL_RECORDS, TT_CAL_ALGOS)], all;

	for (int i = 0; i < records; i++) {
		int n = 0;

		for (int a = 0; a < TT_CAL_ALGOS; a++)
			if (p->cal[i].factor[c][a][k] > 0)
				v[n++] = p->cal[i].factor[c][a][k];
		level[i] = middle(v, n);
	}
	for (int a = 0; a < TT_CAL_ALGOS; a++) {
		int n = 0;

		for (int i = 0; i < records; i++)
			if (p->cal[i].factor[c][a][k] > 0)
				v[n++] = p->cal[i].factor[c][a][k] / level[i];
		out->factor[c][a][k] = middle(v, n);
	}
	for (int i = 0; i < records; i++)
		if (level[i] > 0)
			v[nlevels++] = level[i];
	all = middle(v, nlevels);
	for (int a = 0; a < TT_CAL_ALGOS; a++)
		out->factor[c][a][k] *= all;
}

static void medians(const struct pool *p, struct tt_cal *out)
{
	for (int c = 0; c < TT_CAL_COLLS; c++)
		for (int k = 0; k < TT_CAL_POINTS; k++)
			combine(p, c, k, out);
}

static tuttiResult_t read_all(const char *text, const char *key, struct pool *p)
{
	static const char head[] = "calibration ";
	bool mine = false, inside = false;
	struct tt_cal cal;
	int number = 0;

	for (const char *line = text, *end; *line; line = *end ? end + 1 : end) {
		size_t n;

		end = line + strcspn(line, "\n");
		n = (size_t)(end - line);
		number++;
		if (!inside && n > strlen(head) && !memcmp(line, head, strlen(head))) {
			line += strlen(head);
			mine = strlen(key) == (size_t)(end - line) && !memcmp(line, key, strlen(key));
			memset(&cal, 0, sizeof(cal));
			inside = true;
		} else if (inside && n == 3 && !memcmp(line, "end", 3)) {
			if (mine)
				p->cal[p->n++ % TT_CAL_RECORDS] = cal;
			inside = false;
		} else if (!inside ? n > 0 && *line != '#' : !read_line(line, end, &cal)) {
			return tt_note_error(tuttiInvalidArgument, "line %d: no line of a calibration: %.*s", number,
					     (int)tt_min(n, 60), line);
		}
	}
	if (inside)
		return tt_note_error(tuttiInvalidArgument, "line %d: the last record has no end", number);
	return tuttiSuccess;
}

tuttiResult_t tt_cal_read(const char *text, const char *key, const struct tt_cal *also, struct tt_cal *out,
			  int *records)
{
	struct pool p = { .n = 0 };
	tuttiResult_t r = text ? read_all(text, key, &p) : tuttiSuccess;

	if (also)
		p.cal[p.n++ % TT_CAL_RECORDS] = *also;
	*records = p.n;
	medians(&p, out);
	return r;
}

static bool any(const float *f)
{
	return near_factor(f, 0, 1) > 0;
}

static unsigned thousandths(float f)
{
	double v = (double)f * SCALE + 0.5;

	return f <= 0 ? 0 : v < 1 ? 1 : v > MOST ? MOST : (unsigned)v;
}

char *tt_cal_write(const char *key, const struct tt_cal *c)
{
	char *text = NULL;
	size_t size;
	FILE *f = open_memstream(&text, &size);

	if (!f)
		return NULL;
	fprintf(f, "calibration %s\n", key);
	for (int coll = 0; coll < TT_CAL_COLLS; coll++)
		for (int a = 0; a < tt_nalgos && a < TT_CAL_ALGOS; a++) {
			if (!any(c->factor[coll][a]))
				continue;
			fprintf(f, "%s %s", tt_coll_name((enum tt_coll)coll), tt_algos[a].name);
			for (int k = 0; k < TT_CAL_POINTS; k++)
				fprintf(f, " %u", thousandths(c->factor[coll][a][k]));
			fputc('\n', f);
		}
	fputs("end\n", f);
	if (fclose(f) == 0)
		return text;
	free(text);
	return NULL;
}
