/* TUTTI_CALIBRATION: at the end of init rank 0 looks for records of jobs like this one in the file. While there are
 * few, all ranks measure every algorithm at some sizes, in turns, and one is added. Rank 0 plans anew by the medians
 * and all take its plan. SPDX-License-Identifier: Apache-2.0 */
#include "comm.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { TURNS = 7, LOOKS = 3, MAX_CANDIDATES = 16 };
#define TURN_S 2e-3  /* that a turn of a side should last */
#define BUDGET_S 15.0/* of all measuring; points that come too late stay unmeasured */
#define HOPELESS 4   /* a call longer than a turn, and this much longer than the best: not measured further */
#define MOST_BYTES ((size_t)16 << 20)
#define HOST_BYTES ((size_t)1 << 30) /* for the buffers of all ranks of a host */

struct bench {
	struct tuttiComm *comm;
	struct tt_facts facts;
	struct tt_cal *cal;
	char *buf; /* of what goes in, and behind it of what comes out */
	size_t room; /* of each */
	double spent;
	/* the collective and size at hand */
	enum tt_coll coll;
	size_t bytes;
	struct tt_candidate side[MAX_CANDIDATES];
	int nsides;
};

/* What travels from rank 0. */
struct verdict {
	tuttiResult_t result;
	int records;
	bool stored;
	struct tt_cal cal;
	struct tt_plan plan;
};

/* ---- calls inside init ---- */

static tuttiResult_t run(struct tuttiComm *c, enum tt_coll coll, const void *in, void *out, size_t count,
			 tuttiDataType_t type, int kind)
{
	bool reduces = coll == TT_ALLREDUCE || coll == TT_REDUCE || coll == TT_REDUCESCATTER;
	struct tt_task t = { .comm = c, .coll = coll, .in = in, .out = out, .count = count, .type = type,
			     .opcode = reduces ? kind : -1,
			     .root = coll == TT_BROADCAST || coll == TT_REDUCE ? 0 : -1,
			     .op = { .kind = kind, .commutative = true, .nranks = c->nranks } };

	tt_task_submit(&t);
	return tt_task_drive(&t);
}

static tuttiResult_t greatest(struct tuttiComm *c, double *v, int n)
{
	return run(c, TT_ALLREDUCE, v, v, (size_t)n, tuttiFloat64, tuttiMax);
}

static bool of_blocks(enum tt_coll coll)
{
	return coll == TT_ALLGATHER || coll == TT_REDUCESCATTER;
}

static tuttiResult_t probe(const struct bench *b)
{
	struct tuttiComm *c = b->comm;

	return run(c, b->coll, b->buf, b->buf + b->room, b->bytes / sizeof(float), tuttiFloat32, tuttiSum);
}

static void use(const struct bench *b, const struct tt_row *row)
{
	struct tuttiComm *c = b->comm;

	for (int k = 0; k < TT_CLASSES; k++)
		c->plan.rows[0][b->coll][k] = *row;
	memset(c->recent, 0, sizeof(c->recent));
}

/* ---- measuring ---- */

/* Ends with a barrier, as some ranks leave some calls early. */
static tuttiResult_t turn(const struct bench *b, int side, int iters, double *seconds)
{
	uint64_t start;

	use(b, &b->side[side].row);
	TRY(run(b->comm, TT_BARRIER, NULL, NULL, 0, tuttiInt8, tuttiSum));
	start = tt_now_ns();
	for (int i = 0; i < iters; i++)
		TRY(probe(b));
	TRY(run(b->comm, TT_BARRIER, NULL, NULL, 0, tuttiInt8, tuttiSum));
	*seconds = (double)(tt_now_ns() - start) * 1e-9 / iters;
	return tuttiSuccess;
}

static int by_time(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

/* The lower quartile: what disturbs a turn makes it longer, never shorter. */
static double typical(double v[TURNS])
{
	qsort(v, TURNS, sizeof(*v), by_time);
	return v[TURNS / 4];
}

static int calls_in(double turn_s, double call_s, int most)
{
	return call_s * most < turn_s ? most : call_s > turn_s ? 1 : (int)(turn_s / call_s);
}

/* First looks at the sides, in turns, of which the first only sets up. The best one counts: a rank that loses its core,
 * or pages that nobody has touched yet, make any algorithm look slow. Agreed, so that all ranks go on alike. */
static tuttiResult_t look(struct bench *b, double first[MAX_CANDIDATES], double *best)
{
	for (int k = 0; k <= LOOKS; k++) {
		double now[MAX_CANDIDATES];

		for (int i = 0; i < b->nsides; i++)
			TRY(turn(b, i, k < 2 ? 1 : calls_in(TURN_S / 4, first[i], 16), &now[i]));
		TRY(greatest(b->comm, now, b->nsides));
		for (int i = 0; i < b->nsides; i++)
			first[i] = k < 2 || now[i] < first[i] ? now[i] : first[i];
	}
	*best = first[0];
	for (int i = 1; i < b->nsides; i++)
		*best = first[i] < *best ? first[i] : *best;
	return tuttiSuccess;
}

static void note(struct bench *b, int side, int point, double seconds)
{
	const struct tt_candidate *s = &b->side[side];
	double formula = tt_plan_seconds(&b->facts, s->algo, b->coll, b->bytes, s->row.window);

	if (s->row.algo < TT_CAL_ALGOS && formula > 0)
		b->cal->factor[b->coll][s->row.algo][point] = (float)(seconds / formula);
}

static tuttiResult_t measure_sides(struct bench *b, int point)
{
	double first[MAX_CANDIDATES], all[MAX_CANDIDATES * TURNS + 1], best;
	double(*us)[TURNS] = (void *)all, *took = &all[b->nsides * TURNS];
	uint64_t start = tt_now_ns();

	TRY(look(b, first, &best));
	for (int k = 0; k < TURNS; k++)
		for (int i = 0; i < b->nsides; i++) {
			us[i][k] = first[i];
			if (first[i] <= TURN_S || first[i] <= HOPELESS * best)
				TRY(turn(b, i, calls_in(TURN_S, first[i], 500), &us[i][k]));
		}
	*took = (double)(tt_now_ns() - start) * 1e-9;
	TRY(greatest(b->comm, all, b->nsides * TURNS + 1));
	b->spent += *took;
	for (int i = 0; i < b->nsides; i++)
		note(b, i, point, typical(us[i]));
	return tuttiSuccess;
}

static tuttiResult_t measure(struct bench *b)
{
	for (int point = 0; point < TT_CAL_POINTS; point++)
		for (int coll = 0; coll < TT_CAL_COLLS; coll++) {
			size_t blocks = of_blocks((enum tt_coll)coll) ? (size_t)b->comm->nranks : 1;
			size_t all = blocks * tt_cal_point(point);

			if (all > b->room || b->spent > BUDGET_S)
				continue;
			b->coll = (enum tt_coll)coll;
			b->bytes = tt_cal_point(point);
			b->nsides = tt_plan_candidates(&b->facts, b->coll, b->bytes, false, b->side, MAX_CANDIDATES);
			if (b->nsides > 1)
				TRY(measure_sides(b, point));
		}
	return tuttiSuccess;
}

static tuttiResult_t measure_all(struct tuttiComm *c, struct tt_cal *cal)
{
	struct bench b = { .comm = c, .cal = cal };
	struct tt_plan before = c->plan;
	tuttiResult_t r;

	TRY(tt_comm_facts(c, &b.facts));
	b.room = tt_min(MOST_BYTES, HOST_BYTES / 2 / (size_t)b.facts.per_host) & ~(size_t)4095;
	b.buf = malloc(2 * b.room);
	if (!b.buf)
		return tt_fail(tuttiSystemError, "no memory: %zu bytes for calibration", 2 * b.room);
	memset(b.buf, 1, 2 * b.room); /* pages that nobody has written are all the same one, and that is in the cache */
	r = measure(&b);
	free(b.buf);
	c->plan = before;
	memset(c->recent, 0, sizeof(c->recent));
	return r;
}

/* ---- the file, at rank 0 ---- */

/* Of the settings that all ranks have alike, but not of the file's own name. */
static uint64_t settings(void)
{
	static const char own[] = " CALIBRATION=";
	char text[1024], *cut;

	tt_env_shared(text, sizeof(text));
	cut = strstr(text, own);
	if (cut) {
		const char *rest = cut + strlen(own) + strlen(tt_env_str("CALIBRATION"));

		memmove(cut, rest, strlen(rest) + 1);
	}
	return tt_hash64(text, strlen(text), 0);
}

/* What makes figures comparable: the same ranks over the same path, with the same settings. */
static tuttiResult_t key_of(const struct tuttiComm *c, char *key, size_t n)
{
	struct tt_facts f;

	TRY(tt_comm_facts(c, &f));
	snprintf(key, n, "path=%s ranks=%d hosts=%d per_host=%d scattered=%d cores=%d settings=%016llx", f.path,
		 f.nranks, f.hosts, f.per_host, f.scattered, f.cores, (unsigned long long)settings());
	return tuttiSuccess;
}

static char *whole(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat s = { .st_size = 0 };
	char *text = NULL;
	ssize_t n = -1;

	if (fd < 0 || fstat(fd, &s) || s.st_size >= 64 << 20)
		errno = fd < 0 || s.st_size < 64 << 20 ? errno : EFBIG;
	else if ((text = malloc((size_t)s.st_size + 1)) != NULL)
		n = read(fd, text, (size_t)s.st_size);
	if (fd >= 0)
		close(fd);
	if (n >= 0)
		text[n] = 0;
	else
		free(text);
	return n >= 0 ? text : NULL;
}

static void look_up(const char *path, const char *key, const struct tt_cal *also, struct verdict *v)
{
	char *text = whole(path);

	if (!text && errno != ENOENT)
		tt_log(TT_LOG_WARN, "plan", "TUTTI_CALIBRATION: cannot read %s: %s", path, strerror(errno));
	if (tt_cal_read(text, key, also, &v->cal, &v->records) != tuttiSuccess)
		tt_log(TT_LOG_WARN, "plan", "TUTTI_CALIBRATION: %s: %s; what stands behind it does not count", path,
		       tt_last_error());
	free(text);
}

/* In one write, so that jobs which end together do not mix their records. */
static void store(const char *path, const char *key, const struct tt_cal *cal, struct verdict *v)
{
	char *text = tt_cal_write(key, cal);
	int fd = text ? open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666) : -1;

	v->stored = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
	if (!v->stored)
		tt_log(TT_LOG_WARN, "plan", "TUTTI_CALIBRATION: cannot write %s: %s; the next job measures again", path,
		       strerror(errno));
	if (fd >= 0)
		close(fd);
	free(text);
}

/* ---- all together ---- */

static tuttiResult_t share(struct tuttiComm *c, struct verdict *v)
{
	return run(c, TT_BROADCAST, v, v, sizeof(*v), tuttiInt8, tuttiSum);
}

/* Rank 0: by the records and, if this job is one of the first, by what it has measured. */
static tuttiResult_t decide(struct tuttiComm *c, const char *path, const char *key, const struct tt_cal *mine,
			    struct verdict *v)
{
	if (mine) {
		look_up(path, key, mine, v);
		store(path, key, mine, v);
	}
	*c->cal = v->cal;
	return tt_comm_plan(c, &v->plan);
}

static tuttiResult_t settle(struct tuttiComm *c, const char *path, struct tt_cal *mine, struct verdict *v)
{
	char key[256] = "";
	bool first;

	if (c->rank == 0)
		v->result = key_of(c, key, sizeof(key));
	if (c->rank == 0 && v->result == tuttiSuccess)
		look_up(path, key, NULL, v);
	TRY(share(c, v));
	if (v->result != tuttiSuccess)
		return tt_fail(tuttiRemoteError, "rank 0 could not calibrate, its error says why");
	first = v->records < TT_CAL_RECORDS;
	if (first)
		TRY(measure_all(c, mine));
	if (c->rank == 0)
		v->result = decide(c, path, key, first ? mine : NULL, v);
	TRY(share(c, v));
	return v->result == tuttiSuccess ? tuttiSuccess :
	       tt_fail(tuttiRemoteError, "rank 0 could not plan by the calibration, its error says why");
}

static void say(const struct tuttiComm *c, const char *path, const struct verdict *v)
{
	const char *how = !v->stored ? v->records >= TT_CAL_RECORDS ? "of" : "measured, not in" :
			  "measured, now in";

	tt_log(TT_LOG_INFO, "plan", "calibration %016llx of %d record%s, %s %s",
	       (unsigned long long)tt_cal_digest(c->cal), v->records, v->records == 1 ? "" : "s", how, path);
}

tuttiResult_t tt_comm_calibrate(struct tuttiComm *c)
{
	const char *path = tt_env_str("CALIBRATION");
	struct tt_cal *mine;
	struct verdict *v;
	tuttiResult_t r;

	if (!*path || c->nranks < 2)
		return tuttiSuccess;
	v = calloc(1, sizeof(*v));
	mine = calloc(1, sizeof(*mine));
	c->cal = calloc(1, sizeof(*c->cal));
	r = v && mine && c->cal ? settle(c, path, mine, v) : tt_fail(tuttiSystemError, "no memory for calibration");
	if (r == tuttiSuccess) {
		*c->cal = v->cal;
		c->plan = v->plan;
		memset(c->recent, 0, sizeof(c->recent));
	}
	if (r == tuttiSuccess && c->rank == 0)
		say(c, path, v);
	free(v);
	free(mine);
	return r;
}
