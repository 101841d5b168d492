/* Schedules that the user brings in TUTTI_SCHEDULE_FILE. Every rank reads the files, and keeps the schedules for all
 * numbers of ranks, as it may be split; the root of the rendezvous sees that all have read the same, and proves it.
 * Why so: docs/decisions/0014. SPDX-License-Identifier: Apache-2.0 */
#include "comm.h"

#include <stdlib.h>

tuttiResult_t tt_customs_load(struct tt_customs **out)
{
	const char *paths = tt_env_str("SCHEDULE_FILE");
	struct tt_customs *c;
	tuttiResult_t r;

	*out = NULL;
	if (!*paths)
		return tuttiSuccess;
	c = calloc(1, sizeof(*c));
	if (!c)
		return tt_fail(tuttiSystemError, "no memory for schedules");
	atomic_init(&c->refs, 1);
	r = tt_sched_load(paths, &c->file, &c->digest);
	if (r == tuttiSuccess && c->file.nsets > 256 - TT_CUSTOM)
		r = tt_fail(tuttiInvalidUsage, "TUTTI_SCHEDULE_FILE=%s: %d schedules; %d are possible", paths,
			    c->file.nsets, 256 - TT_CUSTOM);
	if (r == tuttiSuccess)
		*out = c;
	else
		tt_customs_drop(c);
	return r;
}

struct tt_customs *tt_customs_share(struct tt_customs *c)
{
	if (c)
		atomic_fetch_add_explicit(&c->refs, 1, memory_order_relaxed);
	return c;
}

void tt_customs_drop(struct tt_customs *c)
{
	if (!c || atomic_fetch_sub_explicit(&c->refs, 1, memory_order_acq_rel) > 1)
		return;
	tt_sched_file_clear(&c->file);
	free(c);
}

static tuttiResult_t prove(const struct tt_customs *c)
{
	for (int i = 0; i < c->file.nsets; i++) {
		if (!tt_plan_sizes(c->file.sets[i]))
			return tt_sched_wrong(c->file.sets[i], 0, UINT32_MAX, "no size class has its middle in this "
					      "range of bytes: 3/4 of a power of two");
		TRY(tt_sched_prove(c->file.sets[i]));
	}
	return tuttiSuccess;
}

static tuttiResult_t compare(const struct tt_member *const *members, int n, uint64_t digest)
{
	for (int i = 0; i < n; i++)
		if (members[i]->schedules != members[0]->schedules)
			return tt_fail(tuttiInvalidUsage, "rank %d (%s, pid %u) has %s schedules in "
				       "TUTTI_SCHEDULE_FILE, and rank 0 (%s, pid %u) has %s; give all ranks files of "
				       "the same contents", i, members[i]->proc.host, members[i]->proc.pid,
				       members[i]->schedules ? "other" : "no", members[0]->proc.host,
				       members[0]->proc.pid, members[0]->schedules ? "some" : "none");
	if (members[0]->schedules != digest)
		return tt_fail(tuttiInvalidUsage, "the process that made the unique id has not the schedules in "
			       "TUTTI_SCHEDULE_FILE that the ranks have; give it the same files");
	return tuttiSuccess;
}

tuttiResult_t tt_customs_decide(const struct tt_member *const *members, int n, struct tt_plan *plan)
{
	struct tt_customs *c;
	tuttiResult_t r;
	int rows;

	TRY(tt_customs_load(&c));
	r = compare(members, n, c ? c->digest : 0);
	if (c && r == tuttiSuccess)
		r = prove(c);
	if (c && r == tuttiSuccess) {
		rows = tt_plan_use(plan, &c->file, n);
		tt_log(rows ? TT_LOG_INFO : TT_LOG_WARN, "plan", "%d ranks: TUTTI_SCHEDULE_FILE decides %d of the %d "
		       "rows of the plan", n, rows, (TT_BARRIER + 1) * TT_CLASSES);
	}
	tt_customs_drop(c);
	return r;
}
