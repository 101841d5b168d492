/* Floor 5: a group is a list that the outermost GroupEnd submits. */
#ifndef TT_GROUP_H
#define TT_GROUP_H

#include "comm.h"

/* Something collective that is not an operation: init or split; runs on a thread of its own. */
struct tt_job {
	struct tt_job *next;
	tuttiResult_t (*run)(struct tt_job *job);
	tuttiComm_t *out;
	struct tuttiComm *comm, *parent; /* what is made, what it is split from */
	struct tt_root_id id;
	int nranks, rank, color, key;
	tuttiConfig_t config;
	bool has_config;
	tuttiResult_t result;
	char text[TT_TEXT];
	pthread_t thread;
};

bool tt_group_open(void);                     /* inside GroupStart .. GroupEnd on this thread */
tuttiResult_t tt_group_error(tuttiResult_t r); /* a call inside failed: so does the group */
tuttiResult_t tt_submit(struct tt_task *task); /* record, enqueue, or run to the end; copied where it stays */
tuttiResult_t tt_submit_job(const struct tt_job *job); /* record, or run */
tuttiResult_t tt_jobs_run(struct tt_job *list); /* together; the first error, in this thread's text */
#endif
