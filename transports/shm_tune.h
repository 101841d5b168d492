/* How bulk is written into slots: by ordinary or by streaming stores. On one and the same machine either may
 * be several times faster, depending on which caches two processes share and where their pages lie, and it
 * changes while they run; so it is measured, and looked at again now and then.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TT_SHM_TUNE_H
#define TT_SHM_TUNE_H

#include "reduce.h"

/* Mean time of the samples of one burst, the longest left out: a thread may lose its core in one. */
struct shm_meter {
	uint32_t burst, n;
	uint64_t sum, max; /* picoseconds a byte */
};

struct shm_tuner { /* the sender's */
	enum tt_store store; /* in force */
	uint32_t around;     /* fragments that go once round the pool */
	uint32_t at, burst;  /* fragment of the cycle, number of the cycle */
	uint32_t votes;      /* for the other policy, one after another */
	struct shm_meter own[2];
};

/* What the next fragment is to be written with, and whether it counts (both sides then take the time). */
struct shm_choice {
	enum tt_store store;
	bool measured;
	uint32_t burst;
};

void tt_shm_tune_begin(struct shm_tuner *t, uint32_t around);
/* reader[]: costs that the receiver left, by policy. */
struct shm_choice tt_shm_tune_next(struct shm_tuner *t, const _Atomic uint32_t reader[2]);

void tt_shm_meter_add(struct shm_meter *m, uint32_t burst, uint64_t ns, size_t bytes);
/* Cost << 8 | burst; the cost is 0 until there are two samples. */
uint32_t tt_shm_meter_word(const struct shm_meter *m);

#endif
