/* nccl-tests' command line. SPDX-License-Identifier: Apache-2.0 */
#include <getopt.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "perf_common.h"

static const char usage[] =
	"Usage: %s [options]\n"
	"Times %s and checks its results. Start one process a rank with tutti-run or torchrun, or run\n"
	"it alone with -t N for N ranks as threads of one process.\n"
	"  -b, --minbytes SIZE     smallest size (default 32M); sizes take K, M, G\n"
	"  -e, --maxbytes SIZE     largest size (default 32M)\n"
	"  -i, --stepbytes SIZE    add this to the size each time (default 1M)\n"
	"  -f, --stepfactor N      multiply the size by N each time instead\n"
	"  -n, --iters N           timed calls a size (default 20)\n"
	"  -w, --warmup_iters N    calls before the clock starts (default 5)\n"
	"  -c, --check 0|1         check results and the bytes around them (default 1)\n"
	"  -o, --op OP             sum prod max min avg mulsum all (default sum)\n"
	"  -d, --datatype TYPE     int8 uint8 int32 uint32 int64 uint64 half float double bfloat16\n"
	"                          f8e4m3 f8e5m2 all (default float)\n"
	"  -r, --root RANK|all     root of rooted collectives (default 0)\n"
	"  -t, --nthreads N        ranks a process, each a thread (default 1)\n"
	"  -g, --ngpus N           ranks a thread of -t, each with a thread of its own (default 1)\n"
	"      --memory KIND       host (default); cuda, managed, pinned: on streams of CUDA devices, rank i of a\n"
	"                          host on device i modulo their number, so several ranks may share one\n"
	"  -z, --blocking 0|1      1: the clock waits for each call (default for host memory); 0: calls are queued on\n"
	"                          a stream (default for the others), one of the host for host memory\n"
	"  -y, --stream_null 0|1   1: on the default stream, NULL (default 0)\n"
	"  -a, --average 0|1|2|3   time shown: of rank 0, average, min, max over ranks (default 3)\n"
	"  -R, --local_register 0|1  1: buffers of MemAlloc, registered with CommRegister (default 0)\n"
	"  -G, --cudagraph N       the timed calls as one CUDA graph, launched N times (default 0: none);\n"
	"                          for ranks that are threads of one process on one device\n"
	"      --load              multiply-adds on rank 0's device beside the calls, and what they lose by it\n"
	"  -J, --output_file FILE  write the results as JSON too\n"
	"  -h, --help              this text\n"
	"Environment: TUTTI_PERF_CORRUPT=1 flips one bit of one rank's result before each check, to show\n"
	"that the check sees it.\n"
	"Columns: time is that of one call, the clock started after a barrier; algbw = size / time; busbw\n"
	"= algbw x the part that a rank must move (allreduce 2(n-1)/n, allgather and reduce-scatter\n"
	"(n-1)/n, broadcast and reduce 1); #wrong counts elements that differ from the exact result.\n"
	"Exit status: 0; 1 wrong data or an error; 2 wrong usage.\n";

static const struct option options[] = {
	{ "minbytes", required_argument, NULL, 'b' },     { "maxbytes", required_argument, NULL, 'e' },
	{ "stepbytes", required_argument, NULL, 'i' },    { "stepfactor", required_argument, NULL, 'f' },
	{ "iters", required_argument, NULL, 'n' },        { "warmup_iters", required_argument, NULL, 'w' },
	{ "check", required_argument, NULL, 'c' },        { "op", required_argument, NULL, 'o' },
	{ "datatype", required_argument, NULL, 'd' },     { "root", required_argument, NULL, 'r' },
	{ "nthreads", required_argument, NULL, 't' },     { "ngpus", required_argument, NULL, 'g' },
	{ "blocking", required_argument, NULL, 'z' },     { "average", required_argument, NULL, 'a' },
	{ "local_register", required_argument, NULL, 'R' },
	{ "cudagraph", required_argument, NULL, 'G' },    { "stream_null", required_argument, NULL, 'y' },
	{ "memory", required_argument, NULL, 'M' },       { "load", no_argument, NULL, 'L' },
	{ "output_file", required_argument, NULL, 'J' },  { "help", no_argument, NULL, 'h' },
	{ NULL, 0, NULL, 0 }
};

static void bad(int letter, const char *value, const char *wanted) __attribute__((noreturn));
static void bad(int letter, const char *value, const char *wanted)
{
	fprintf(stderr, "-%c %s: %s (-h for help)\n", letter, value, wanted);
	exit(2);
}

size_t perf_size(int letter, const char *s)
{
	char *end;
	double v = strtod(s, &end);
	const char *units = "KMG", *u = *end ? strchr(units, *end & ~0x20) : NULL;

	if (u && *u)
		v *= (double)((size_t)1 << (10 * (u - units + 1)));
	if (end == s || (*end && (!u || end[1])) || !isfinite(v) || v < 0 || v > 0x1p53)
		bad(letter, s, "a size like 8, 64K, 1.5M or 2G is wanted");
	return (size_t)v;
}

static int int_arg(int letter, const char *s, int lo, int hi)
{
	char *end, wanted[64];
	long v = strtol(s, &end, 10);

	snprintf(wanted, sizeof wanted, "a number from %d to %d is wanted", lo, hi);
	if (end == s || *end || v < lo || v > hi)
		bad(letter, s, wanted);
	return (int)v;
}

static int name_arg(int letter, const char *s, const char *const *names, int n)
{
	if (!strcmp(s, "all"))
		return -1;
	for (int i = 0; i < n; i++)
		if (!strcmp(s, names[i]))
			return i;
	bad(letter, s, "no such name");
}

static enum perf_memory memory_arg(const char *s)
{
	int i = name_arg('-', s, perf_memory_names, PERF_MEMORIES);

	if (i < 0)
		bad('-', s, "one kind of memory is wanted");
	return (enum perf_memory)i;
}

static bool registered_arg(const char *s)
{
	if (int_arg('R', s, 0, 2) == 2)
		bad('R', s, "there are no symmetric windows; 1 registers buffers");
	return s[0] == '1';
}

static void apply(struct perf_args *a, int letter, const char *s)
{
	switch (letter) {
	case 'b': a->min_bytes = perf_size(letter, s); break;
	case 'e': a->max_bytes = perf_size(letter, s); break;
	case 'i': a->step_bytes = perf_size(letter, s); break;
	case 'f': a->step_factor = (size_t)int_arg(letter, s, 1, 1 << 20); break;
	case 'n': a->iters = int_arg(letter, s, 1, 1 << 30); break;
	case 'w': a->warmup = int_arg(letter, s, 0, 1 << 30); break;
	case 'c': a->check = int_arg(letter, s, 0, 1 << 30); break;
	case 'o': a->op = name_arg(letter, s, perf_op_names, PERF_NOPS); break;
	case 'd': a->type = name_arg(letter, s, perf_type_names, tuttiNumTypes); break;
	case 'r': a->root = strcmp(s, "all") ? int_arg(letter, s, -1, 1 << 30) : -1; break;
	case 't': a->nthreads = int_arg(letter, s, 1, 1024); break;
	case 'g': a->ngpus = int_arg(letter, s, 1, 1024); break;
	case 'y': a->stream_null = int_arg(letter, s, 0, 1) == 1; break;
	case 'M': a->memory = memory_arg(s); break;
	case 'G': a->graphs = int_arg(letter, s, 0, 1 << 20); break;
	case 'L': a->load = true; break;
	case 'a': a->average = int_arg(letter, s, 0, 3); break;
	case 'R': a->registered = registered_arg(s); break;
	case 'J': a->json_path = s; break;
	default: exit(2); /* getopt has said why */
	}
}

void perf_parse(int argc, char **argv, const struct perf_coll *coll, struct perf_args *a)
{
	const char *corrupt = getenv("TUTTI_PERF_CORRUPT");
	int letter, blocking = -1;

	*a = (struct perf_args){ .min_bytes = 32 << 20, .max_bytes = 32 << 20, .step_bytes = 1 << 20,
				 .step_factor = 1, .iters = 20, .warmup = 5, .check = 1, .nthreads = 1,
				 .ngpus = 1, .average = 3, .type = tuttiFloat32,
				 .argc = argc, .argv = argv };
	a->corrupt = corrupt && *corrupt && strcmp(corrupt, "0");
	while ((letter = getopt_long(argc, argv, "b:e:i:f:n:w:c:o:d:r:t:g:z:y:a:R:G:J:h", options, NULL)) != -1) {
		if (letter == 'h') {
			printf(usage, argv[0], coll->name);
			exit(0);
		}
		if (letter == 'z')
			blocking = int_arg(letter, optarg, 0, 1);
		else
			apply(a, letter, optarg);
	}
	a->blocking = blocking < 0 ? a->memory == PERF_HOST : blocking;
	a->nthreads *= a->ngpus;
	if (a->load && a->memory == PERF_HOST)
		bad('-', "--load", "it needs a device: --memory cuda");
	if (a->graphs && (a->memory == PERF_HOST || a->blocking || a->stream_null || a->load))
		bad('G', "N", "graphs are of streams of a device: --memory cuda, without -z 1, -y 1 and --load");
	if (optind < argc)
		bad('h', argv[optind], "what should this word be?");
	if (a->max_bytes < a->min_bytes)
		a->max_bytes = a->min_bytes;
}

void perf_die(const char *fmt, ...)
{
	va_list ap;

	fflush(stdout);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	_Exit(1); /* other threads may be inside calls: run no exit handlers under them */
}
