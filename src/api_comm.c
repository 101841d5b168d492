/* The public calls that make, split and end communicators. SPDX-License-Identifier: Apache-2.0 */
#include "group.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LINGER_NS 1000000000ull

_Static_assert(sizeof(struct tt_root_id) <= sizeof(tuttiUniqueId), "the id holds a root");

tuttiResult_t tuttiGetUniqueId(tuttiUniqueId *id)
{
	struct tt_root_id root = { 0 };

	if (!id)
		return tt_fail(tuttiInvalidArgument, "GetUniqueId: id is NULL");
	TRY(tt_comm_root(&root, NULL, 0, false));
	memset(id, 0, sizeof(*id));
	memcpy(id, &root, sizeof(root));
	return tuttiSuccess;
}

/* ---- init ---- */

static tuttiResult_t check_config(const char *call, const tuttiConfig_t *g)
{
	if (g && (g->magic != TUTTI_CONFIG_MAGIC || g->size < sizeof(size_t) + 2 * sizeof(int)))
		return tt_fail(tuttiInvalidArgument, "%s: config was not set with TUTTI_CONFIG_INITIALIZER", call);
	if (g && g->blocking != TUTTI_UNDEF_INT && g->blocking != 0 && g->blocking != 1)
		return tt_fail(tuttiInvalidArgument, "%s: config.blocking is %d, not 0 or 1", call, g->blocking);
	return tuttiSuccess;
}

/* A caller built against another release may know fewer or more fields. */
static tuttiConfig_t known_part(const tuttiConfig_t *g)
{
	tuttiConfig_t known = TUTTI_CONFIG_INITIALIZER;

	if (g)
		memcpy(&known, g, tt_min(g->size, sizeof(known)));
	known.size = sizeof(known);
	return known;
}

static tuttiResult_t run_init(struct tt_job *j)
{
	tuttiResult_t r = tt_comm_join(j->comm, &j->id, j->nranks, j->rank);

	if (r == tuttiSuccess) {
		*j->out = j->comm;
		return r;
	}
	tt_comm_free(j->comm);
	return r;
}

struct background {
	struct tuttiComm *comm;
	struct tt_root_id id;
	int nranks, rank;
};

static void *init_in_background(void *arg)
{
	struct background *b = arg;
	struct tuttiComm *c = b->comm;
	tuttiResult_t r = tt_comm_join(c, &b->id, b->nranks, b->rank);

	if (r != tuttiSuccess)
		tt_comm_pass(c, true, r);
	free(b);
	atomic_store_explicit(&c->init_state, (int)r, memory_order_release);
	atomic_fetch_sub_explicit(&c->inside, 1, memory_order_release);
	return NULL;
}

static tuttiResult_t init_nonblocking(const struct tt_job *j)
{
	struct background *b = malloc(sizeof(*b));
	struct tuttiComm *c = j->comm;
	pthread_attr_t attr;
	pthread_t thread;
	int e;

	if (!b) {
		tt_comm_free(c);
		return tt_fail(tuttiSystemError, "no memory for init");
	}
	*b = (struct background){ c, j->id, j->nranks, j->rank };
	atomic_store(&c->init_state, tuttiInProgress);
	atomic_fetch_add(&c->inside, 1);
	*j->out = c;
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	e = pthread_create(&thread, &attr, init_in_background, b);
	pthread_attr_destroy(&attr);
	if (!e)
		return tuttiInProgress;
	free(b);
	*j->out = NULL;
	atomic_fetch_sub(&c->inside, 1);
	tt_comm_free(c);
	return tt_fail(tuttiSystemError, "cannot start a thread for init: %s", strerror(e));
}

tuttiResult_t tuttiCommInitRankConfig(tuttiComm_t *comm, int nranks, tuttiUniqueId id, int rank,
				      tuttiConfig_t *config)
{
	struct tt_job j = { .run = run_init, .out = comm, .nranks = nranks, .rank = rank };
	tuttiConfig_t known;
	int device;

	if (!comm || nranks < 1 || rank < 0 || rank >= nranks)
		return tt_group_error(tt_fail(tuttiInvalidArgument, "CommInitRank: comm is NULL, or rank %d is not in "
					      "0..%d", rank, nranks - 1));
	TRY(check_config("CommInitRankConfig", config));
	known = known_part(config);
	memcpy(&j.id, &id, sizeof(j.id));
	*comm = NULL;
	tt_mem_look();
	TRY(tt_group_error(tt_mem_home(known.device, &device)));
	TRY(tt_comm_new(&known, NULL, &j.comm));
	j.comm->rank = rank;
	j.comm->device = device;
	if (!j.comm->blocking && !tt_group_open())
		return init_nonblocking(&j);
	return tt_submit_job(&j);
}

tuttiResult_t tuttiCommInitRank(tuttiComm_t *comm, int nranks, tuttiUniqueId id, int rank)
{
	return tuttiCommInitRankConfig(comm, nranks, id, rank, NULL);
}

tuttiResult_t tuttiCommInitAll(tuttiComm_t *comms, int ndev, const int *devlist)
{
	tuttiConfig_t config = TUTTI_CONFIG_INITIALIZER;
	tuttiUniqueId id;
	int device;

	if (!comms || ndev < 1)
		return tt_fail(tuttiInvalidArgument, "CommInitAll: comms is NULL or ndev is %d", ndev);
	for (int i = 0; devlist && i < ndev; i++)
		TRY(tt_mem_home(devlist[i], &device));
	TRY(tuttiGetUniqueId(&id));
	TRY(tuttiGroupStart());
	for (int i = 0; i < ndev; i++) {
		if (devlist)
			config.device = devlist[i];
		tuttiCommInitRankConfig(&comms[i], ndev, id, i, &config);
	}
	return tuttiGroupEnd();
}

/* ---- split ---- */

struct choice {
	int32_t color, key;
};

static tuttiResult_t gather(struct tuttiComm *c, const void *in, void *out, size_t bytes)
{
	struct tt_task t = { .comm = c, .coll = TT_ALLGATHER, .in = in, .out = out, .count = bytes,
			     .type = tuttiInt8, .opcode = -1, .root = -1, .op = { .commutative = true } };

	tt_task_submit(&t);
	return tt_task_drive(&t);
}

/* The ranks of one color by key, then rank; returns how many, and where this rank is. */
static int members_of(const struct choice *all, int n, int color, int rank, int *members, int *mine)
{
	int m = 0;

	for (int i = 0; i < n; i++) {
		int at = m;

		if (all[i].color != color)
			continue;
		for (; at > 0 && all[members[at - 1]].key > all[i].key; at--)
			members[at] = members[at - 1];
		members[at] = i;
		m++;
	}
	for (int i = 0; i < m; i++)
		if (members[i] == rank)
			*mine = i;
	return m;
}

/* Each part's rank 0 decides its plan; all parts' plans travel in one allgather, to which whoever failed comes as well:
 * with size 0, so that its part fails together and nobody waits. */
static tuttiResult_t share_plan(struct tuttiComm *parent, struct tuttiComm *child, const int *members,
				tuttiResult_t failed)
{
	size_t size = sizeof(struct tt_plan);
	struct tt_plan *mine = calloc(1, size), *all = malloc(size * (size_t)parent->nranks);
	tuttiResult_t r = failed;

	if (!mine || !all) {
		free(mine);
		free(all);
		return tt_fail(tuttiSystemError, "no memory for the plans of a split");
	}
	if (r == tuttiSuccess && child && child->rank == 0)
		r = tt_comm_plan(child, mine);
	mine->size = r == tuttiSuccess ? (uint32_t)size : 0;
	failed = r;
	r = gather(parent, mine, all, size);
	for (int i = 0; r == tuttiSuccess && failed == tuttiSuccess && child && i < child->nranks; i++)
		if (!all[members[i]].size)
			r = tt_fail(tuttiRemoteError, "CommSplit: rank %d could not make its part, its error says why",
				    members[i]);
	if (r == tuttiSuccess && failed == tuttiSuccess && child)
		child->plan = all[members[0]];
	free(mine);
	free(all);
	return failed != tuttiSuccess ? failed : r;
}

static tuttiResult_t make_part(struct tt_job *j, const struct choice *all, int *members,
			       struct tuttiComm **child)
{
	struct tuttiComm *p = j->parent;
	uint64_t key[3] = { p->id, atomic_load(&p->seq), (uint64_t)(int64_t)j->color };
	int mine = 0, m = members_of(all, p->nranks, j->color, p->rank, members, &mine);

	TRY(tt_comm_new(j->has_config ? &j->config : NULL, p, child));
	return tt_comm_adopt(*child, p, tt_hash64(key, sizeof(key), 3), members, m, mine);
}

static tuttiResult_t split(struct tt_job *j)
{
	struct tuttiComm *p = j->parent, *child = NULL;
	struct choice mine = { j->color, j->key }, *all = calloc((size_t)p->nranks, sizeof(*all));
	int *members = calloc((size_t)p->nranks, sizeof(*members));
	tuttiResult_t r = tuttiSuccess;

	if (!all || !members)
		r = tt_fail(tuttiSystemError, "no memory for a split of %d ranks", p->nranks);
	if (r == tuttiSuccess)
		r = gather(p, &mine, all, sizeof(mine));
	if (r == tuttiSuccess) {
		tuttiResult_t made = j->color < 0 ? tuttiSuccess : make_part(j, all, members, &child);

		r = share_plan(p, child, members, made);
		if (r == tuttiSuccess && child)
			r = tt_comm_open_peers(child);
	}
	free(all);
	free(members);
	if (r != tuttiSuccess)
		tt_comm_free(child);
	else
		*j->out = child;
	return r;
}

/* Between its two gathers too, Abort of the parent on another thread must wait. */
static tuttiResult_t run_split(struct tt_job *j)
{
	tuttiResult_t r;

	atomic_fetch_add_explicit(&j->parent->inside, 1, memory_order_relaxed);
	r = split(j);
	atomic_fetch_sub_explicit(&j->parent->inside, 1, memory_order_release);
	return r;
}

tuttiResult_t tuttiCommSplit(tuttiComm_t comm, int color, int key, tuttiComm_t *newcomm,
			     tuttiConfig_t *config)
{
	struct tt_job j = { .run = run_split, .out = newcomm, .parent = comm, .color = color, .key = key };
	int init, device;

	if (!tt_comm_valid(comm) || !newcomm || (color < 0 && color != TUTTI_SPLIT_NOCOLOR))
		return tt_group_error(tt_fail(tuttiInvalidArgument, "CommSplit: comm or newcomm is NULL, or color "
					      "%d is negative", color));
	init = atomic_load_explicit(&comm->init_state, memory_order_acquire);
	if (init == tuttiInProgress || comm->finalized)
		return tt_group_error(tt_fail(tuttiInvalidUsage, "CommSplit: the communicator is %s",
					      comm->finalized ? "finalized" : "not initialized yet"));
	if (atomic_load(&comm->error))
		return tt_group_error(tt_comm_error(comm));
	TRY(check_config("CommSplit", config));
	j.has_config = config != NULL;
	j.config = known_part(config);
	if (j.config.device != TUTTI_UNDEF_INT)
		TRY(tt_group_error(tt_mem_home(j.config.device, &device)));
	*newcomm = NULL;
	return tt_submit_job(&j);
}

/* ---- registered memory ---- */

static tuttiResult_t check_registering(const char *call, tuttiComm_t c)
{
	if (!tt_comm_valid(c))
		return tt_fail(tuttiInvalidArgument, "%s: not a communicator", call);
	if (atomic_load(&tt_forked))
		return tt_fail(tuttiForked, "%s: the communicator is the parent's", call);
	if (atomic_load_explicit(&c->init_state, memory_order_acquire) == tuttiInProgress)
		return tt_fail(tuttiInvalidUsage, "%s: init has not finished", call);
	return tuttiSuccess;
}

tuttiResult_t tuttiCommRegister(const tuttiComm_t c, void *buff, size_t size, void **handle)
{
	TRY(check_registering("CommRegister", c));
	if (!buff || !size || !handle)
		return tt_fail(tuttiInvalidArgument, "CommRegister: %s", !buff ? "buff is NULL" : !size ? "size is 0" :
			       "handle is NULL");
	if (size > UINTPTR_MAX - (uintptr_t)buff)
		return tt_fail(tuttiInvalidArgument, "CommRegister: %zu bytes at %p go past the end of memory", size,
			       buff);
	if (c->finalized)
		return tt_fail(tuttiInvalidUsage, "CommRegister: the communicator is finalized");
	return tt_mem_range_add(c, buff, size, false, handle);
}

tuttiResult_t tuttiCommDeregister(const tuttiComm_t c, void *handle)
{
	TRY(check_registering("CommDeregister", c));
	if (handle && !tt_mem_range_drop(c, handle))
		return tt_fail(tuttiInvalidArgument, "CommDeregister: %p is not a handle of this communicator, or has "
			       "ended before", handle);
	return tuttiSuccess;
}

/* ---- the end ---- */

static void wait_outside(struct tuttiComm *c)
{
	while (tt_comm_busy(c))
		usleep(100);
}

tuttiResult_t tuttiCommFinalize(tuttiComm_t c)
{
	if (!tt_comm_valid(c))
		return tt_fail(tuttiInvalidArgument, "CommFinalize: not a communicator");
	if (atomic_load(&tt_forked))
		return tt_fail(tuttiForked, "CommFinalize: the communicator is the parent's");
	if (atomic_load(&c->init_state) == tuttiInProgress)
		return tt_fail(tuttiInvalidUsage, "CommFinalize: init has not finished");
	if (!c->finalized) {
		wait_outside(c);
		tt_comm_linger(c, LINGER_NS);
		tt_comm_goodbye(c);
		c->finalized = true;
	}
	return tt_comm_error(c);
}

tuttiResult_t tuttiCommDestroy(tuttiComm_t c)
{
	tuttiResult_t r;

	if (!c)
		return tuttiSuccess;
	if (!tt_comm_valid(c))
		return tt_fail(tuttiInvalidArgument, "CommDestroy: not a communicator");
	if (atomic_load(&tt_forked))
		return tt_fail(tuttiForked, "CommDestroy: the communicator is the parent's");
	if (atomic_load(&c->init_state) == tuttiInProgress)
		return tuttiCommAbort(c);
	r = tuttiCommFinalize(c);
	tt_comm_free(c);
	return r == tuttiInvalidArgument ? r : tuttiSuccess;
}

tuttiResult_t tuttiCommAbort(tuttiComm_t c)
{
	if (!c)
		return tuttiSuccess;
	if (!tt_comm_valid(c))
		return tt_fail(tuttiInvalidArgument, "CommAbort: not a communicator");
	if (atomic_load(&tt_forked))
		return tt_fail(tuttiForked, "CommAbort: the communicator is the parent's");
	atomic_store(&c->aborting, true);
	tt_comm_fail(c, atomic_load(&c->init_state) == tuttiInProgress, tuttiAborted,
		     "rank %d aborted the communicator", c->rank);
	wait_outside(c);
	tt_comm_free(c);
	return tuttiSuccess;
}

tuttiResult_t tuttiCommGetAsyncError(tuttiComm_t c, tuttiResult_t *asyncError)
{
	if (!tt_comm_valid(c) || !asyncError)
		return tt_fail(tuttiInvalidArgument, "CommGetAsyncError: comm or asyncError is NULL");
	if (atomic_load_explicit(&c->init_state, memory_order_acquire) == tuttiSuccess) {
		tt_comm_notice(c);
		tt_comm_hear_peers(c, 1000);
	}
	*asyncError = (tuttiResult_t)atomic_load_explicit(&c->error, memory_order_acquire);
	if (*asyncError == tuttiSuccess)
		*asyncError = (tuttiResult_t)atomic_load_explicit(&c->init_state, memory_order_acquire);
	return tuttiSuccess;
}

tuttiResult_t tuttiCommCount(const tuttiComm_t c, int *count)
{
	if (!tt_comm_valid(c) || !count || atomic_load(&c->init_state) == tuttiInProgress)
		return tt_fail(tuttiInvalidArgument, "CommCount: comm or count is NULL, or init has not finished");
	*count = c->nranks;
	return tuttiSuccess;
}

tuttiResult_t tuttiCommUserRank(const tuttiComm_t c, int *rank)
{
	if (!tt_comm_valid(c) || !rank || atomic_load(&c->init_state) == tuttiInProgress)
		return tt_fail(tuttiInvalidArgument, "CommUserRank: comm or rank is NULL, or init has not finished");
	*rank = c->rank;
	return tuttiSuccess;
}

tuttiResult_t tuttiCommCuDevice(const tuttiComm_t c, int *device)
{
	if (!tt_comm_valid(c) || !device || atomic_load(&c->init_state) == tuttiInProgress)
		return tt_fail(tuttiInvalidArgument, "CommCuDevice: comm or device is NULL, or init has not finished");
	*device = c->device;
	return tuttiSuccess;
}
