/* Floor 2: schedules from outside, in tutti's text or MSCCL's XML: read, written, proved. A *set* has the schedules of
 * all ranks for one collective; a file has sets for one or more collectives, numbers of ranks and roots. */
#ifndef TT_SCHED_FILE_H
#define TT_SCHED_FILE_H

#include "sched.h"

struct tt_origin { /* where a step was written */
	uint32_t line;
	int32_t tb, step; /* MSCCL: thread block and step in it; text: tb -1 */
};

struct tt_sched_set {
	struct tt_sched **ranks;   /* their algo is the set's */
	struct tt_origin **origin; /* [rank][step]; behind the last step: of the schedule */
	char *algo, *what;         /* what: the file, for errors */
	int nranks;
	size_t least, most;        /* bytes of a block for which it is meant */
};

struct tt_sched_file {
	struct tt_sched_set **sets;
	int nsets;
};

/* Each adds to `file`, which begins as zeros; on an error what was added stays, to be freed. `what` names the text. */
tuttiResult_t tt_sched_read(const char *text, size_t n, const char *what, struct tt_sched_file *file);
tuttiResult_t tt_sched_from_msccl(const char *text, size_t n, const char *what, struct tt_sched_file *file);
/* Files of a comma list, by their contents the one or the other. */
tuttiResult_t tt_sched_load(const char *paths, struct tt_sched_file *file, uint64_t *digest);
void tt_sched_file_clear(struct tt_sched_file *file);

/* In all ways in which it may run: in place and apart, one and several windows, as one program of a queue. */
tuttiResult_t tt_sched_prove(const struct tt_sched_set *set);
tuttiResult_t tt_sched_to_msccl(struct tt_sched *const *ranks, int n, void *file); /* FILE * */

/* For the readers. A new set of `file`, without schedules. */
struct tt_sched_set *tt_sched_set_new(struct tt_sched_file *file, const char *what, const char *algo, int nranks);
/* InvalidUsage: what is wrong, at a step of a set or at its beginning (UINT32_MAX). */
tuttiResult_t tt_sched_wrong(const struct tt_sched_set *set, int rank, uint32_t step, const char *why);
/* Skews for schedules that have none: each message one later than what it waits for and than the one before it on its
 * link, so that windows follow each other. False where they wait for each other in a circle: all stay 0. */
bool tt_sched_settle_skews(struct tt_sched *const *ranks, int n);
int tt_coll_find(const char *name); /* in any case, '_' or not; -1: none */

#endif
