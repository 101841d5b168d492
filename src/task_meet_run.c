/* What ranks that meet in a call do on the device: events, one kernel for all of them or blocks that run schedules, and
 * what the last one who comes sees and decides. SPDX-License-Identifier: Apache-2.0 */
#include "task_meet.h"

#include <stdio.h>

void tt_seat_free(struct tt_seat *s)
{
	if (!s->event || (s->event_kind->enter && s->event_kind->enter(s->event_at) != tuttiSuccess))
		return; /* its context is gone */
	s->event_kind->event_free(s->event);
	if (s->event_kind->leave)
		s->event_kind->leave();
}

static tuttiResult_t renew_event(struct tt_seat *s, const struct tt_task *t)
{
	if (s->event && s->event_kind == t->kind && s->event_at == t->at.where)
		return tuttiSuccess;
	tt_seat_free(s);
	s->event = NULL;
	TRY(t->kind->event_new(&s->event));
	s->event_kind = t->kind;
	s->event_at = t->at.where;
	return tuttiSuccess;
}

/* The call is to happen behind what its stream has now. */
static tuttiResult_t record(struct tt_seat *s, const struct tt_task *t)
{
	if (t->comm->nranks == 1)
		return tuttiSuccess;
	TRY(renew_event(s, t));
	return t->kind->event_record(t->queue, s->event);
}

const char *tt_meet_lacks(const struct tt_task *t)
{
	const struct tt_mem_kind *k = t->kind;

	if (t->at.capture == TT_MEM_CAPTURE_BROKEN)
		return "its capture was ended by an error";
	if (!k->run_all || (k->reduces && !k->reduces(t->type)))
		return "there are no kernels (tutti-info says why)";
	return tt_queue_lacks(t);
}

tuttiResult_t tt_seat_take(const struct tt_task *t)
{
	struct tuttiComm *c = t->comm;
	struct tt_seat *s = &t->meeting->seats[c->rank];
	const char *lacks = t->at.capture ? tt_meet_lacks(t) : NULL;
	tuttiResult_t r;

	s->sig = t->sig;
	s->kind = t->kind;
	s->at = t->at;
	s->in = t->in;
	s->out = t->out;
	s->scalar = t->op.scalar;
	s->scalar_at = t->op.scalar_at;
	snprintf(s->lacks, sizeof(s->lacks), "%s", lacks ? lacks : "");
	if (lacks)
		return tuttiSuccess;
	r = tt_queue_enter(t);
	if (r == tuttiSuccess)
		r = tt_queue_left(t, record(s, t));
	if (r == tuttiSuccess || !t->at.capture)
		return r == tuttiSuccess ? r : tt_comm_pass(c, false, r);
	snprintf(s->lacks, sizeof(s->lacks), "%s", tt_last_error());
	return tuttiSuccess;
}

/* Behind the other's call on the other's stream: nothing to do on the same. */
static tuttiResult_t follow(const struct tt_task *t, const struct tt_seat *mine, const struct tt_seat *other)
{
	if (mine == other || (mine->at.line && mine->at.line == other->at.line))
		return tuttiSuccess;
	return t->kind->event_wait(t->queue, other->event);
}

/* Others look at the grid when they abort. */
static tuttiResult_t run_grid(const struct tt_task *t, const struct tt_meeting *m)
{
	struct tt_meet *meet = t->comm->meet;
	struct tt_task_grid *grid = meet->grid;
	const void *in[TT_PIECE_RANKS];
	void *out[TT_PIECE_RANKS];
	tuttiResult_t r;

	if (!meet->by_grid)
		return tuttiUnsupported;
	for (int i = 0; i < t->comm->nranks; i++) {
		in[i] = m->seats[i].in;
		out[i] = m->seats[i].out;
	}
	r = tt_task_grid_run(&grid, t, in, out);
	pthread_mutex_lock(&meet->lock);
	meet->grid = grid;
	pthread_mutex_unlock(&meet->lock);
	return r;
}

static tuttiResult_t run_pieces(const struct tt_task *t, const struct tt_meeting *m)
{
	struct tt_mem_all a = { .type = t->type, .op = t->op };
	int n = t->comm->nranks;

	a.npieces = tt_pieces(t->coll, n, t->root, t->count, a.pieces);
	if (!a.npieces)
		return tuttiSuccess;
	for (int i = 0; i < n; i++) {
		a.in[i] = m->seats[i].in;
		a.out[i] = m->seats[i].out;
		a.scalar[i] = m->seats[i].scalar;
		a.scalar_at[i] = m->seats[i].scalar_at;
	}
	return t->kind->run_all(t->queue, &a);
}

static tuttiResult_t launch(const struct tt_task *t, struct tt_meeting *m)
{
	struct tt_seat *mine = &m->seats[t->comm->rank];
	tuttiResult_t r;

	m->launcher = t->comm->rank;
	for (int i = 0; i < t->comm->nranks; i++)
		TRY(follow(t, mine, &m->seats[i]));
	r = run_grid(t, m);
	if (r == tuttiUnsupported)
		r = run_pieces(t, m);
	TRY(r);
	return t->comm->nranks > 1 ? t->kind->event_record(t->queue, mine->event) : tuttiSuccess;
}

tuttiResult_t tt_meeting_follow(const struct tt_task *t)
{
	const struct tt_meeting *m = t->meeting;

	if (m->launcher == t->comm->rank)
		return tuttiSuccess;
	TRY(tt_queue_enter(t));
	return tt_queue_left(t, follow(t, &m->seats[t->comm->rank], &m->seats[m->launcher]));
}

/* ---- all have come ---- */

static tuttiResult_t check_same(const struct tt_task *t, const struct tt_meeting *m)
{
	for (int i = 1; i < t->comm->nranks; i++)
		if (tt_sig_hash(&m->seats[i].sig) != tt_sig_hash(&m->seats[0].sig))
			return tt_comm_mismatch(t->comm, 0, &m->seats[0].sig, i, &m->seats[i].sig);
	return tuttiSuccess;
}

static bool one_place(const struct tt_task *t, const struct tt_meeting *m)
{
	for (int i = 0; i < t->comm->nranks; i++)
		if (m->seats[i].kind != t->kind || m->seats[i].at.where != t->at.where)
			return false;
	return true;
}

/* Some rank's stream is captured: all go into one graph, or nobody. */
static bool one_graph(const struct tt_task *t, struct tt_meeting *m)
{
	const struct tt_seat *s = m->seats;
	int other = -1;

	for (int i = 0; i < t->comm->nranks; i++) {
		if (*s[i].lacks) {
			snprintf(m->why, sizeof(m->why), "rank %d: %s", i, s[i].lacks);
			return false;
		}
		if (s[i].at.capture != s[0].at.capture)
			other = i;
	}
	if (other < 0 && one_place(t, m))
		return true;
	if (other < 0)
		snprintf(m->why, sizeof(m->why), "the ranks are on several devices or contexts");
	else if (s[0].at.capture && s[other].at.capture)
		snprintf(m->why, sizeof(m->why), "ranks 0 and %d are captured into two graphs; let streams wait for an "
			 "event of the one where the capture began", other);
	else
		snprintf(m->why, sizeof(m->why), "rank %d is being captured and rank %d is not",
			 s[0].at.capture ? 0 : other, s[0].at.capture ? other : 0);
	return false;
}

static bool is_captured(const struct tt_task *t, const struct tt_meeting *m)
{
	for (int i = 0; i < t->comm->nranks; i++)
		if (m->seats[i].at.capture)
			return true;
	return false;
}

/* What has gone wrong under capture has done nothing, and is no reason to end the communicator. */
static int launch_here(const struct tt_task *t, struct tt_meeting *m, bool captured)
{
	tuttiResult_t r = tt_queue_enter(t);

	if (r == tuttiSuccess)
		r = tt_queue_left(t, launch(t, m));
	if (r == tuttiSuccess)
		return TT_LAUNCHED;
	if (!captured)
		tt_comm_pass(t->comm, false, r);
	snprintf(m->why, sizeof(m->why), "%s", tt_last_error());
	return captured ? TT_REFUSED : TT_BROKEN;
}

void tt_meeting_decide(struct tt_task *t)
{
	struct tt_meeting *m = t->meeting;
	bool captured = is_captured(t, m);
	int state = TT_LAUNCHED;

	if (check_same(t, m) != tuttiSuccess)
		state = TT_BROKEN;
	else if (captured && !one_graph(t, m))
		state = TT_REFUSED;
	else if (!one_place(t, m))
		state = TT_TO_LINKS;
	if (state == TT_LAUNCHED)
		state = launch_here(t, m, captured);
	atomic_store_explicit(&m->state, state, memory_order_release);
}
