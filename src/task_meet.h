/* Floor 4: what ranks that meet in a call have between them (task_meet.c, task_meet_run.c). */
#ifndef TT_TASK_MEET_H
#define TT_TASK_MEET_H

#include "comm.h"
#include "sched_pieces.h"

enum { TT_OPEN, TT_LAUNCHED, TT_TO_LINKS, TT_BROKEN, TT_REFUSED };

struct tt_seat { /* written by its rank, read by the last to come */
	bool taken;
	struct tt_sig sig;
	const struct tt_mem_kind *kind;
	struct tt_mem_place at;
	const void *in;
	void *out;
	uint64_t scalar;
	const void *scalar_at;
	void *event; /* the launcher's is the end of the kernel as well */
	const struct tt_mem_kind *event_kind;
	void *event_at;
	char lacks[128]; /* captured: why that cannot be, or empty */
};

struct tt_meeting { /* of one call */
	struct tt_meeting *next;
	uint32_t seq;
	int users, here;
	_Atomic int state;
	int launcher;
	char why[192]; /* refused */
	struct tt_seat seats[];
};

struct tt_meet_member {
	_Alignas(64) _Atomic uint32_t by_links; /* the last call that went so */
	_Atomic uint64_t thread;                /* that has called last, 0: none */
};

struct tt_meet {
	struct tt_meet *next;
	uint64_t id;
	int refs, nranks;
	pthread_mutex_t lock;
	struct tt_meeting *open, *spare;
	struct tt_task_grid *grid; /* the launchers', one after the other */
	bool by_grid;
	struct tt_meet_member members[];
};

/* Why one kernel cannot do this rank's call, or NULL. */
const char *tt_meet_lacks(const struct tt_task *t);
/* Notes the call, which is to happen behind what the stream has now. */
tuttiResult_t tt_seat_take(const struct tt_task *t);
void tt_seat_free(struct tt_seat *s);
/* All have come: the last one sees what becomes of it, launches where all can, and tells. */
void tt_meeting_decide(struct tt_task *t);
/* The calling rank's stream goes on behind what the last one has launched. */
tuttiResult_t tt_meeting_follow(const struct tt_task *t);

#endif
