/* Is the planner's choice the fastest? Times every algorithm that can serve a collective, forced, each on a
 * communicator of its own, in turns within one run, and sets the planner's beside the best.
 * SPDX-License-Identifier: Apache-2.0 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "comm.h"
#include "tutti.h"

enum { MAX_ALGOS = 12, MAX_ROUNDS = 99 };

#define NEVER 1e12

struct side {
	const char *name;
	tuttiComm_t comm;
	double us[MAX_ROUNDS];
};

static struct {
	enum tt_coll coll;
	size_t min, max, factor;
	int rounds;
	double turn_us; /* that a turn should last */
	int rank, nranks, nsides;
	tuttiComm_t comm; /* as the planner would have it, by TUTTI_CALIBRATION where that is set */
	tuttiComm_t plain; /* by the formulas alone */
	struct side sides[MAX_ALGOS];
	char *in, *out;
} b = { .coll = TT_ALLREDUCE, .min = 8, .max = 64 << 20, .factor = 4, .rounds = 9, .turn_us = 5000 };

static void must(tuttiResult_t r, const char *what)
{
	if (r == tuttiSuccess)
		return;
	fprintf(stderr, "plan_perf: %s: %s: %s\n", what, tuttiGetErrorString(r), tuttiGetLastError(NULL));
	exit(1);
}

static double now_us(void)
{
	return (double)tt_now_ns() * 1e-3;
}

/* `bytes` as the perf programs count: of the whole vector. */
static void call(tuttiComm_t comm, size_t bytes)
{
	size_t n = bytes / sizeof(float), each = n / (size_t)b.nranks;

	switch (b.coll) {
	case TT_ALLREDUCE:
		must(tuttiAllReduce(b.in, b.out, n, tuttiFloat32, tuttiSum, comm, NULL), "AllReduce");
		break;
	case TT_ALLGATHER:
		must(tuttiAllGather(b.in, b.out, each, tuttiFloat32, comm, NULL), "AllGather");
		break;
	case TT_REDUCESCATTER:
		must(tuttiReduceScatter(b.in, b.out, each, tuttiFloat32, tuttiSum, comm, NULL), "ReduceScatter");
		break;
	case TT_BROADCAST:
		must(tuttiBroadcast(b.in, b.out, n, tuttiFloat32, 0, comm, NULL), "Broadcast");
		break;
	default:
		must(tuttiReduce(b.in, b.out, n, tuttiFloat32, tuttiSum, 0, comm, NULL), "Reduce");
	}
}

/* Bytes that the plan is asked for: of a block. */
static size_t block(size_t bytes)
{
	bool blocks = b.coll == TT_ALLGATHER || b.coll == TT_REDUCESCATTER;

	return blocks ? bytes / (size_t)b.nranks : bytes;
}

static double slowest(double us)
{
	must(tuttiAllReduce(&us, &us, 1, tuttiFloat64, tuttiMax, b.comm, NULL), "AllReduce of the time");
	return us;
}

/* Ends with a barrier, so that calls which some ranks leave early are paid for in full. */
static double turn(tuttiComm_t comm, size_t bytes, int iters)
{
	double start;

	call(comm, bytes);
	must(tuttiBarrier(b.comm, NULL), "Barrier");
	start = now_us();
	for (int i = 0; i < iters; i++)
		call(comm, bytes);
	must(tuttiBarrier(b.comm, NULL), "Barrier");
	return slowest(now_us() - start) / iters;
}

static int by_value(const void *x, const void *y)
{
	double d = *(const double *)x - *(const double *)y;

	return d < 0 ? -1 : d > 0;
}

static double median(const double *v, int n)
{
	double sorted[MAX_ROUNDS];

	memcpy(sorted, v, (size_t)n * sizeof(*v));
	qsort(sorted, (size_t)n, sizeof(*v), by_value);
	return n & 1 ? sorted[n / 2] : (sorted[n / 2 - 1] + sorted[n / 2]) / 2;
}

static const char *chosen(tuttiComm_t comm, size_t bytes)
{
	const struct tt_row *row = tt_plan_row(&comm->plan, b.coll, block(bytes), false);

	return row->algo >= TT_CUSTOM ? "file" : tt_algos[row->algo].name;
}

static void print_size(size_t bytes)
{
	if (bytes >= 1 << 20)
		printf("| %zu MiB |", bytes >> 20);
	else if (bytes >= 1024)
		printf("| %zu KiB |", bytes >> 10);
	else
		printf("| %zu B |", bytes);
}

static int side_of(const char *name)
{
	for (int i = 0; i < b.nsides; i++)
		if (!strcmp(b.sides[i].name, name))
			return i;
	return -1;
}

static void put_choice(const char *name, int best)
{
	double ratio[MAX_ROUNDS];
	int mine = side_of(name);

	for (int k = 0; k < b.rounds && mine >= 0; k++)
		ratio[k] = b.sides[mine].us[k] / b.sides[best].us[k];
	printf(" %s | %.2f |", name, mine < 0 ? 0 : median(ratio, b.rounds));
}

static void report(size_t bytes)
{
	int best = 0;

	for (int i = 0; i < b.nsides; i++)
		if (median(b.sides[i].us, b.rounds) < median(b.sides[best].us, b.rounds))
			best = i;
	print_size(bytes);
	put_choice(chosen(b.plain, bytes), best);
	put_choice(chosen(b.comm, bytes), best);
	printf(" %s |", b.sides[best].name);
	for (int i = 0; i < b.nsides; i++)
		if (median(b.sides[i].us, b.rounds) < NEVER)
			printf(" %.4g |", median(b.sides[i].us, b.rounds));
		else
			printf(" - |");
	printf("\n");
	fflush(stdout);
}

/* A forced algorithm gives way where it cannot do it. */
static bool can(const struct side *s, size_t bytes)
{
	return !strcmp(chosen(s->comm, bytes), s->name);
}

static void measure(size_t bytes)
{
	int iters[MAX_ALGOS];

	for (int i = 0; i < b.nsides; i++) {
		double us;

		if (!can(&b.sides[i], bytes))
			continue;
		us = turn(b.sides[i].comm, bytes, 1);
		for (int k = 0; k < 3; k++) /* the first turns touch pages for the first time: too few calls by them */
			us = turn(b.sides[i].comm, bytes, us * 10 < b.turn_us ? 10 : 1);
		iters[i] = us * 2000 < b.turn_us ? 2000 : us > b.turn_us ? 1 : (int)(b.turn_us / us);
	}
	for (int k = 0; k < b.rounds; k++)
		for (int i = 0; i < b.nsides; i++)
			b.sides[i].us[k] = can(&b.sides[i], bytes) ? turn(b.sides[i].comm, bytes, iters[i]) : NEVER;
	if (b.rank == 0)
		report(bytes);
}

/* Those of several hosts do nothing of their own within one. */
static bool serves(const struct tt_algo *a)
{
	bool several = b.comm->shape.group != NULL;

	return (a->colls >> b.coll & 1) && (several || (strcmp(a->name, "tree") && strcmp(a->name, "hier")));
}

static void open_one(tuttiComm_t *comm, const char *algo)
{
	tuttiUniqueId id;

	if (b.rank == 0)
		must(tuttiGetUniqueId(&id), "GetUniqueId");
	must(tuttiBroadcast(&id, &id, sizeof(id), tuttiUint8, 0, b.comm, NULL), "Broadcast of the id");
	setenv("TUTTI_ALGO", algo, 1);
	must(tuttiCommInitRank(comm, b.nranks, id, b.rank), algo);
	unsetenv("TUTTI_ALGO");
}

static void open_sides(void)
{
	unsetenv("TUTTI_CALIBRATION");
	open_one(&b.plain, "");
	for (int i = 0; i < tt_nalgos; i++)
		if (serves(&tt_algos[i])) {
			b.sides[b.nsides].name = tt_algos[i].name;
			open_one(&b.sides[b.nsides++].comm, tt_algos[i].name);
		}
}

static void head(void)
{
	printf("%s, %d ranks: median us of a call over %d turns; x: divided by the best\n\n"
	       "| size | by formulas | x | calibrated | x | best |", tt_coll_name(b.coll), b.nranks, b.rounds);
	for (int i = 0; i < b.nsides; i++)
		printf(" %s |", b.sides[i].name);
	printf("\n|---|---|---|---|---|---|");
	for (int i = 0; i < b.nsides; i++)
		printf("---|");
	printf("\n");
}

static size_t size_arg(const char *s)
{
	char *end;
	size_t n = strtoull(s, &end, 0);

	return n << (*end == 'K' ? 10 : *end == 'M' ? 20 : *end == 'G' ? 30 : 0);
}

static enum tt_coll coll_arg(const char *s)
{
	for (int c = 0; c <= TT_REDUCE; c++)
		if (!strcasecmp(tt_coll_name((enum tt_coll)c), s))
			return (enum tt_coll)c;
	fprintf(stderr, "-c %s: allreduce, allgather, reducescatter, broadcast or reduce\n", s);
	exit(2);
}

static void parse(int argc, char **argv)
{
	static const char usage[] =
		"Usage: tutti-run -n N plan_perf [-c COLLECTIVE] [-b SIZE] [-e SIZE] [-f FACTOR] [-n ROUNDS] [-t US]\n"
		"Times each algorithm in turns and sets the planner's choice beside the best, as a table.\n"
		"  -c  allreduce (default), allgather, reducescatter, broadcast, reduce\n"
		"  -b, -e, -f  sizes of the whole vector: 8, 64M, times 4\n"
		"  -n  turns a side (9); -t  microseconds that a turn lasts, at least one call (5000)\n";
	int c;

	while ((c = getopt(argc, argv, "c:b:e:f:n:t:h")) != -1) {
		if (c == 'c')
			b.coll = coll_arg(optarg);
		else if (c == 'b')
			b.min = size_arg(optarg);
		else if (c == 'e')
			b.max = size_arg(optarg);
		else if (c == 'f')
			b.factor = size_arg(optarg);
		else if (c == 'n')
			b.rounds = atoi(optarg);
		else if (c == 't')
			b.turn_us = atof(optarg);
		else {
			fputs(usage, c == 'h' ? stdout : stderr);
			exit(c == 'h' ? 0 : 2);
		}
	}
	if (b.factor < 2 || b.rounds < 1 || b.rounds > MAX_ROUNDS || b.min < sizeof(float) || b.max < b.min) {
		fputs(usage, stderr);
		exit(2);
	}
}

int main(int argc, char **argv)
{
	parse(argc, argv);
	must(tuttiCommInitFromEnv(&b.comm, NULL), "CommInitFromEnv");
	must(tuttiCommUserRank(b.comm, &b.rank), "CommUserRank");
	must(tuttiCommCount(b.comm, &b.nranks), "CommCount");
	if (posix_memalign((void **)&b.in, 4096, b.max) || posix_memalign((void **)&b.out, 4096, b.max)) {
		fprintf(stderr, "plan_perf: no memory for buffers of %zu bytes\n", b.max);
		return 1;
	}
	memset(b.in, 0, b.max);
	memset(b.out, 0, b.max);
	open_sides();
	if (b.rank == 0)
		head();
	for (size_t bytes = b.min; bytes < b.max; bytes *= b.factor)
		measure(bytes);
	measure(b.max);
	for (int i = 0; i < b.nsides; i++)
		must(tuttiCommDestroy(b.sides[i].comm), "CommDestroy");
	must(tuttiCommDestroy(b.plain), "CommDestroy");
	must(tuttiCommDestroy(b.comm), "CommDestroy");
	free(b.in);
	free(b.out);
	return 0;
}
