/* nccl-tests' table on stdout, and the same as JSON. SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "perf_common.h"

static const char *op_text(const struct perf_report *r, const struct perf_case *c)
{
	return r->coll->has_op ? perf_op_names[c->op] : "none";
}

static int root_shown(const struct perf_report *r, const struct perf_case *c)
{
	return r->coll->has_root ? c->root : -1;
}

/* JSON's rules: quote, backslash and control characters; bytes that are no UTF-8 cannot be shown.
 */
static void json_string(FILE *f, const char *s)
{
	fputc('"', f);
	for (; *s; s++) {
		unsigned char ch = (unsigned char)*s;

		if (ch == '"' || ch == '\\')
			fprintf(f, "\\%c", ch);
		else if (ch < 0x20 || ch >= 0x7f)
			fprintf(f, "\\u%04x", ch);
		else
			fputc(ch, f);
	}
	fputc('"', f);
}

static void json_begin(struct perf_report *r, const struct perf_rank_info *ranks, int nranks)
{
	const struct perf_args *a = r->args;
	FILE *f = r->json;

	fprintf(f, "{\n  \"version\": \"%d.%d.%d\",\n  \"collective\": \"%s\",\n  \"args\": [",
		TUTTI_MAJOR, TUTTI_MINOR, TUTTI_PATCH, r->coll->name);
	for (int i = 0; i < a->argc; i++) {
		fputs(i ? ", " : "", f);
		json_string(f, a->argv[i]);
	}
	fprintf(f,
		"],\n  \"config\": {\"nthreads\": %d, \"min_bytes\": %zu, \"max_bytes\": %zu, "
		"\"step_bytes\": %zu, \"step_factor\": %zu, \"warmup_iters\": %d, \"iters\": %d, "
		"\"check\": %d, \"blocking\": %d, \"average\": %d, \"memory\": \"%s\"},\n  \"ranks\": [",
		a->nthreads, a->min_bytes, a->max_bytes, a->step_bytes, a->step_factor, a->warmup,
		a->iters, a->check, a->blocking, a->average, perf_memory_names[a->memory]);
	for (int i = 0; i < nranks; i++) {
		fprintf(f, "%s\n    {\"rank\": %d, \"pid\": %d, \"device\": %d, \"host\": ", i ? "," : "", i,
			ranks[i].pid, ranks[i].device);
		json_string(f, ranks[i].host);
		fputc('}', f);
	}
	fprintf(f, "\n  ],\n  \"results\": [");
}

static void json_timing(FILE *f, const char *name, const struct perf_timing *t)
{
	fprintf(f,
		"\"%s\": {\"time_us\": %.6g, \"algbw_gbs\": %.6g, \"busbw_gbs\": %.6g, \"wrong\": ",
		name, t->us, t->algbw, t->busbw);
	if (t->wrong < 0)
		fputs("null}", f);
	else
		fprintf(f, "%lld}", (long long)t->wrong);
}

static void json_row(struct perf_report *r, const struct perf_case *c, size_t bytes, size_t count,
		     const struct perf_timing t[2])
{
	FILE *f = r->json;

	fprintf(f,
		"%s\n    {\"size\": %zu, \"count\": %zu, \"type\": \"%s\", \"redop\": \"%s\", "
		"\"root\": %d, ",
		r->rows ? "," : "", bytes, count, perf_type_names[c->type], op_text(r, c),
		root_shown(r, c));
	json_timing(f, "out_of_place", &t[0]);
	fputs(", ", f);
	json_timing(f, "in_place", &t[1]);
	fputc('}', f);
}

static const char *how(const struct perf_args *a)
{
	if (a->memory != PERF_HOST)
		return a->blocking ? "each call waited for" : a->stream_null ? "on the default stream" : "on a stream";
	return a->blocking ? "blocking calls" : "on a host stream";
}

/* Devices of other hosts are taken for this one's. */
static void print_device(int device)
{
	char name[128] = "";

	if (device >= 0) {
		perf_mem_name(device, name, sizeof(name));
		printf(" device %2d %s", device, name);
	}
	putchar('\n');
}

void perf_report_begin(struct perf_report *r, const struct perf_rank_info *ranks, int nranks)
{
	const struct perf_args *a = r->args;
	static const char *const times[] = { "rank 0", "average over ranks", "min over ranks",
					     "max over ranks" };

	printf("# nThread %d nGpus %d minBytes %zu maxBytes %zu step: %zu(%s) warmup iters: %d iters: %d "
	       "agg iters: 1 validation: %d graph: %d\n#\n",
	       a->nthreads / a->ngpus, a->ngpus, a->min_bytes, a->max_bytes,
	       a->step_factor > 1 ? a->step_factor : a->step_bytes,
	       a->step_factor > 1 ? "factor" : "bytes", a->warmup, a->iters, a->check, a->graphs);
	printf("# tutti %d.%d.%d %s, %s memory, %s, time: %s\n#\n# Using ranks\n", TUTTI_MAJOR, TUTTI_MINOR,
	       TUTTI_PATCH, r->coll->name, perf_memory_names[a->memory], how(a), times[a->average]);
	for (int i = 0; i < nranks; i++) {
		printf("#  Rank %2d Group  0 Pid %6d on %s", i, ranks[i].pid, ranks[i].host);
		print_device(ranks[i].device);
	}
	printf("#\n# %10s  %12s  %8s  %6s  %6s  %32s  %32s\n", "", "", "", "", "",
	       "out-of-place          ", "in-place            ");
	printf("# %10s  %12s  %8s  %6s  %6s  %7s  %6s  %6s %6s  %7s  %6s  %6s %6s\n", "size",
	       "count", "type", "redop", "root", "time", "algbw", "busbw", "#wrong", "time",
	       "algbw", "busbw", "#wrong");
	printf("# %10s  %12s  %8s  %6s  %6s  %7s  %6s  %6s  %5s  %7s  %6s  %6s  %5s\n", "(B)",
	       "(elements)", "", "", "", "(us)", "(GB/s)", "(GB/s)", "", "(us)", "(GB/s)", "(GB/s)",
	       "");
	if (a->json_path) {
		r->json = fopen(a->json_path, "we");
		if (!r->json)
			perf_die("%s: %s", a->json_path, strerror(errno));
		json_begin(r, ranks, nranks);
	}
}

/* Seven characters, as many digits as fit, at most three behind the point. */
static void print_timing(const struct perf_timing *t)
{
	int digits = t->us < 100 ? 3 : t->us < 10000 ? 2 : t->us < 100000 ? 1 : 0;

	printf("  %7.*f  %6.2f  %6.2f", digits, t->us, t->algbw, t->busbw);
	if (t->wrong < 0)
		printf("  %5s", "N/A");
	else
		printf("  %5lld", (long long)t->wrong);
}

void perf_report_row(struct perf_report *r, const struct perf_case *c,
		     const struct perf_timing t[2])
{
	size_t count = c->sizes.send > c->sizes.recv ? c->sizes.send : c->sizes.recv;
	size_t bytes = count * perf_type_size(c->type);

	printf("%12zu  %12zu  %8s  %6s  %6d", bytes, c->sizes.param, perf_type_names[c->type],
	       op_text(r, c), root_shown(r, c));
	print_timing(&t[0]);
	print_timing(&t[1]);
	putchar('\n');
	fflush(stdout);
	if (r->json)
		json_row(r, c, bytes, c->sizes.param, t);
	r->rows++;
	for (int i = 0; i < 2; i++) {
		r->busbw_sum += t[i].busbw;
		r->timings++;
		r->wrong += t[i].wrong > 0 ? t[i].wrong : 0;
	}
}

void perf_report_skip(const struct perf_case *c, const struct perf_coll *coll)
{
	printf("# %s of %s%s%s is not supported\n", coll->name, perf_type_names[c->type],
	       coll->has_op ? " with " : "", coll->has_op ? perf_op_names[c->op] : "");
}

bool perf_report_end(struct perf_report *r)
{
	bool ok = !r->wrong && !r->out_of_bounds;
	double avg = r->timings ? r->busbw_sum / r->timings : 0;

	printf("# Out of bounds values : %lld %s\n", (long long)r->out_of_bounds,
	       ok ? "OK" : "FAILED");
	if (r->wrong)
		printf("# Wrong values : %lld FAILED\n", (long long)r->wrong);
	printf("# Avg bus bandwidth    : %g\n#\n", avg);
	if (r->json) {
		fprintf(r->json,
			"\n  ],\n  \"out_of_bounds\": {\"count\": %lld, \"okay\": %s},\n"
			"  \"wrong\": %lld,\n  \"average_bus_bandwidth_gbs\": %.6g\n}\n",
			(long long)r->out_of_bounds, r->out_of_bounds ? "false" : "true",
			(long long)r->wrong, avg);
		if (fclose(r->json))
			perf_die("%s: %s", r->args->json_path, strerror(errno));
	}
	fflush(stdout);
	return ok;
}
