/* What the ..._perf programs share: nccl-tests' flags and columns over tutti. A program describes its
 * collective in a struct perf_coll and calls perf_main. SPDX-License-Identifier: Apache-2.0 */
#ifndef PERF_COMMON_H
#define PERF_COMMON_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "tutti.h"

enum { PERF_MULSUM = tuttiNumOps, PERF_NOPS };   /* PERF_MULSUM stands for a PreMulSum handle */
enum { PERF_GUARD = 4096 };                      /* bytes around a buffer that nobody may write */

struct perf_sizes {          /* elements */
	size_t send, recv;   /* of the two buffers */
	size_t param;        /* the count that the call takes */
	size_t send_offset;  /* in place: where rank r's part starts, times r */
	size_t recv_offset;
};

struct perf_case {           /* what one row of the table runs, as one rank sees it */
	int rank, nranks, root;
	tuttiDataType_t type;
	int op;              /* tuttiSum .. tuttiAvg, PERF_MULSUM */
	uint64_t seed;       /* the data differs from check to check */
	struct perf_sizes sizes;
};

struct perf_coll {
	const char *name;
	bool has_op, has_root;
	bool result_on_root; /* others get nothing */
	int passes;          /* busbw = algbw * passes * (n-1)/n; 0: algbw */
	struct perf_sizes (*sizes)(size_t count, int nranks); /* NULL: all that of the call */
	/* What this rank's result must be: sizes.recv elements; called where there is a result. */
	void (*expect)(const struct perf_case *c, void *out);
	tuttiResult_t (*run)(const void *send, void *recv, const struct perf_case *c, tuttiRedOp_t op,
			     tuttiComm_t comm, tuttiStream_t stream);
};

/* ---- perf_mem.c: where buffers are ---- */
enum perf_memory { PERF_HOST, PERF_CUDA, PERF_MANAGED, PERF_PINNED, PERF_MEMORIES };
extern const char *const perf_memory_names[PERF_MEMORIES];
struct perf_args;
struct perf_buf {
	uint8_t *at, *view;  /* as calls take it; as the host fills and reads it: the same, or put and get move it */
	size_t n;
	enum perf_memory memory;
	bool registered;
};
int perf_mem_start(enum perf_memory memory); /* before the first communicator; how many devices */
void perf_mem_use(int device);               /* on this thread */
void perf_mem_name(int device, char *out, size_t n);
void perf_buf_new(struct perf_buf *b, const struct perf_args *a, size_t n);
void perf_buf_free(struct perf_buf *b);
void perf_buf_put(struct perf_buf *b, size_t n, tuttiStream_t stream); /* the first n bytes; waits */
void perf_buf_get(struct perf_buf *b, size_t n, tuttiStream_t stream);
tuttiStream_t perf_stream_new(const struct perf_args *a);
void perf_stream_free(tuttiStream_t s);
tuttiResult_t perf_stream_wait(tuttiStream_t s, tuttiComm_t comm);

/* ---- perf_load.c: kernels beside the calls; one rank's thread ---- */
void perf_load_start(int device);
void perf_load_begin(void); /* from here to the end of the timed calls they are counted */
void perf_load_end(void);
void perf_load_stop(void);

/* ---- perf_graph.c: the calls of the ranks of this process, each by its number there, as one graph ---- */
void perf_graph_start(int ranks);
void perf_graph_begin(int i, tuttiStream_t s); /* from here to the end what is enqueued is captured */
void perf_graph_end(int i, tuttiStream_t s);
void perf_graph_launch(int i, tuttiStream_t s);
void perf_graph_free(int i);

int perf_main(int argc, char **argv, const struct perf_coll *coll);

/* ---- perf_data.c: inputs whose results are known exactly, in every type, for every operator ---- */
/* `count` elements of rank `rank`'s input from element `first` on; the reduction of all ranks' inputs. */
void perf_input(const struct perf_case *c, int rank, size_t first, size_t count, void *out);
void perf_reduced(const struct perf_case *c, size_t first, size_t count, void *out);
void perf_mulsum_scalar(tuttiDataType_t type, int rank, void *out);
size_t perf_type_size(tuttiDataType_t type);
extern const char *const perf_type_names[tuttiNumTypes];
extern const char *const perf_op_names[PERF_NOPS];

/* ---- perf_args.c ---- */
struct perf_args {
	size_t min_bytes, max_bytes, step_bytes, step_factor;
	int iters, warmup, check, nthreads, ngpus, average;
	int graphs;              /* launches of the captured calls; 0: no graph */
	int op, type, root;      /* -1: all */
	enum perf_memory memory;
	bool blocking, registered, corrupt, stream_null, load;
	const char *json_path;
	int argc;
	char **argv;
};
void perf_parse(int argc, char **argv, const struct perf_coll *coll, struct perf_args *a);
size_t perf_size(int letter, const char *s); /* of an option; a wrong one ends the program */

/* ---- perf_report.c: the table on stdout and the JSON file; rank 0 only ---- */
struct perf_rank_info {
	int32_t pid, device;     /* -1: none */
	char host[56];
};
struct perf_timing {
	double us, algbw, busbw;
	int64_t wrong;           /* -1: not checked */
};
struct perf_report {
	const struct perf_coll *coll;
	const struct perf_args *args;
	FILE *json;
	int rows, timings;
	double busbw_sum;
	int64_t wrong, out_of_bounds;
};
void perf_report_begin(struct perf_report *r, const struct perf_rank_info *ranks, int nranks);
void perf_report_row(struct perf_report *r, const struct perf_case *c, const struct perf_timing t[2]);
void perf_report_skip(const struct perf_case *c, const struct perf_coll *coll);
/* Prints the footer; true if no wrong and no out of bounds value was seen. */
bool perf_report_end(struct perf_report *r);

void perf_die(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));

#endif
