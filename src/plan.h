/* Floor 3: numbers choose, and one rank decides. The table says for each collective and size class which
 * algorithm runs, on how many lanes and in which windows; it is made on one rank and travels with init. */
#ifndef TT_PLAN_H
#define TT_PLAN_H

#include "sched_file.h"

#define TT_CUSTOM 128 /* row.algo from here on: set algo - TT_CUSTOM of the files in TUTTI_SCHEDULE_FILE */
#define TT_CLASSES 44 /* class c > 0: 2^(c-1) <= bytes of a block < 2^c */

struct tt_row {
	uint8_t algo;  /* index into tt_algos, or a schedule of a file */
	uint8_t lanes;
	uint8_t depth; /* windows in flight */
	uint8_t param : 7;
	uint8_t flat : 1; /* in the order of ranks, whatever the shape */
	uint32_t window; /* bytes of the largest message */
};

/* Whether programs of the one serve the other. */
static inline bool tt_row_same(const struct tt_row *a, const struct tt_row *b)
{
	return a->algo == b->algo && a->lanes == b->lanes && a->depth == b->depth && a->param == b->param &&
	       a->flat == b->flat;
}

struct tt_plan {
	uint32_t size, cores; /* cores: as in the facts, for those of parts */
	struct tt_row rows[2][TT_BARRIER + 1][TT_CLASSES]; /* [ordered] */
};

/* What a schedule is made of, and what one of each costs in seconds: a round, a turn of a core among ranks that share
 * it, a message, a byte sent, copied where it arrived, reduced; what crosses between hosts, where ranks share some. */
enum {
	TT_ROUND, TT_TURN, TT_MESSAGE, TT_SENT, TT_COPIED, TT_REDUCED, TT_FAR_ROUND, TT_FAR_MESSAGE, TT_ACROSS,
	TT_UNITS
};

/* What was measured on a communicator (plan_cal.c): by how much its algorithms differ from the formulas. */
enum { TT_CAL_COLLS = TT_REDUCE + 1, TT_CAL_ALGOS = 12, TT_CAL_POINTS = 11, TT_CAL_RECORDS = 5 };
struct tt_cal {
	float factor[TT_CAL_COLLS][TT_CAL_ALGOS][TT_CAL_POINTS]; /* measured / formula; 0: none */
};

/* What the decision rests on; the worst path of the communicator. */
struct tt_facts {
	int nranks, per_host; /* most ranks on one host */
	int hosts;
	bool scattered;       /* ranks that follow each other are on different ones */
	int cores;            /* that the ranks of the poorest host may use together */
	double latency, bandwidth;
	double near_latency, near_bandwidth; /* within a host, where there are several */
	size_t most;          /* bytes of a message, 0: no limit */
	bool same_memory;     /* all on one host: they share its bandwidth */
	double reduce;        /* bytes a second that a rank reduces, 0: as a core does */
	char path[16];        /* transport, for people */
	double overhead, near_overhead; /* seconds of processor for a message, 0: a part of the latency */
	int lanes;            /* rings of the shape */
	double copied;        /* bytes a second that the near path's processor puts into place, 0: it does not */
	const struct tt_cal *cal; /* or NULL */
};

struct tt_candidate {
	const struct tt_algo *algo;
	struct tt_row row;
	double seconds;
	bool forced;
};

void tt_plan_units(const struct tt_facts *f, double units[TT_UNITS]);
/* By the formulas alone; whether it may be used for such a size at all. */
double tt_plan_seconds(const struct tt_facts *f, const struct tt_algo *a, enum tt_coll coll, size_t bytes,
		       size_t window);
bool tt_plan_fits(const struct tt_algo *a, enum tt_coll coll, const struct tt_facts *f, size_t bytes);
/* The candidates of one size, cheapest first; returns how many. */
int tt_plan_candidates(const struct tt_facts *f, enum tt_coll coll, size_t bytes, bool ordered,
		       struct tt_candidate *out, int max);
tuttiResult_t tt_plan_make(const struct tt_facts *f, struct tt_plan *plan);
/* Rows for the sets of a file that are for so many ranks, for operators that commute (plan_file.c); the first set of a
 * file wins. Returns how many rows. */
int tt_plan_use(struct tt_plan *plan, const struct tt_sched_file *file, int nranks);
int tt_plan_sizes(const struct tt_sched_set *set); /* how many classes of sizes it is for */
/* The set of a row and root, or NULL: a row serves the roots for which there is a schedule. */
const struct tt_sched_set *tt_plan_set(const struct tt_sched_file *file, uint8_t algo, int root);
const struct tt_row *tt_plan_row(const struct tt_plan *p, enum tt_coll coll, size_t bytes, bool ordered);
int tt_plan_class(size_t bytes);
size_t tt_plan_bytes(int class); /* for which the row of a class is chosen */

/* ---- what was measured (plan_cal.c) ---- */
size_t tt_cal_point(int k); /* bytes of a block: 8 ... 8 MiB */
double tt_cal_factor(const struct tt_cal *c, enum tt_coll coll, int algo, size_t bytes); /* c NULL: 1 */
uint64_t tt_cal_digest(const struct tt_cal *c);
/* The medians of the last TT_CAL_RECORDS records of `key` in a file's text (NULL: none), and of one more where `also`
 * is not NULL; and how many records there are. An error names the line; what stands before it counts. */
tuttiResult_t tt_cal_read(const char *text, const char *key, const struct tt_cal *also, struct tt_cal *out,
			  int *records);
/* As a record; the caller frees it. NULL: no memory. */
char *tt_cal_write(const char *key, const struct tt_cal *c);

/* ---- the shape of a communicator (plan_shape.c): made by the one that decides, sent with the table ---- */
struct tt_gpu_links; /* topo.h */
struct tt_place {
	uint32_t host; /* numbered from 0 */
	int32_t node;  /* in the topology of the host; -1: not known */
	uint32_t nic;  /* by which it leaves the host: any number, equal for the same one */
	uint32_t rate; /* of it, MB/s; 0: not known */
	const struct tt_gpu_links *gpu; /* NULL: none */
};
/* Ranks of a host are neighbours in its order, among them those near each other in the machine. With several hosts
 * each is a group, and there is a tree: of the hosts' first ranks, and below each of its host's; rates where NICs
 * differ. What is trivial is left out. Shapes own their arrays: tt_shape_free. */
tuttiResult_t tt_shape_of_places(const struct tt_place *at, int nranks, struct tt_shape *out);
/* Puts lanes in it where the ranks have devices with links between them (plan_rings.c), at most TT_RING_LANES: on each
 * host as many rings as its links carry, by weight, joined to rings over all hosts. Where there are none, or it is not
 * known, the shape stays as it is. Ranks of a host must be neighbours in it. */
enum { TT_RING_LANES = 8 };
tuttiResult_t tt_shape_add_rings(const struct tt_place *at, int nranks, struct tt_shape *s);
/* Takes order and weights (or NULL) of so many lanes, even if it fails. */
tuttiResult_t tt_shape_widen(struct tt_shape *s, int nranks, uint32_t nlanes, uint32_t *order, uint32_t *weights);
/* The same of some of the ranks; with its lanes where these are all ranks of their hosts. */
tuttiResult_t tt_shape_part(const struct tt_shape *all, int nall, const int *members, int n, struct tt_shape *out);
/* On the wire; the caller frees *words. A damaged one is refused. */
tuttiResult_t tt_shape_pack(const struct tt_shape *s, int nranks, uint32_t **words, size_t *n);
tuttiResult_t tt_shape_unpack(const uint32_t *words, size_t n, int nranks, struct tt_shape *out);
uint64_t tt_shape_digest(const struct tt_shape *s, int nranks); /* 0: the trivial one */

/* ---- the proof (plan_proof.c) ---- */
/* What an algorithm is told for a row: the shape, or the order of ranks. Borrows its arrays. */
struct tt_shape tt_row_shape(const struct tt_row *row, const struct tt_shape *shape);
/* Rows whose schedules the checker refuses in this shape get the next candidate that is right, with a warning. */
void tt_plan_prove(struct tt_plan *plan, const struct tt_facts *f, const struct tt_shape *shape);

#endif
