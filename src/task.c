/* One call of one rank, from its turn to its result: finds the program, runs it, watches the clock and the
 * dead while nothing moves. SPDX-License-Identifier: Apache-2.0 */
#include "comm.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WAITING, RUNNING };

#define MS 1000000ull
#define ASK_AFTER (100 * MS)
#define ASK_EVERY (1000 * MS)
#define NOTE_EVERY (30000 * MS)
#define DRAIN (300 * MS) /* a rank is dead and nothing has moved for so long */
#define GRACE (20 * MS)  /* another rank failed and nothing has moved for so long */
#define MAX_DRIVE_EPS 6
#define KEEP_FROM ((size_t)64 << 10) /* temporaries, registered: pages of their own */

/* ---- submit ---- */

struct tt_sig tt_task_sig(const struct tt_task *t, uint32_t seq)
{
	return (struct tt_sig){ .coll = t->coll, .type = t->type, .op = t->opcode, .root = t->root,
				.count = t->count, .seq = seq };
}

static void number(struct tt_task *t)
{
	struct tuttiComm *c = t->comm;

	t->sig = tt_task_sig(t, 0);
	if (t->coll == TT_SENDRECV) {
		t->sig.op = t->is_send;
		t->sig.seq = ++c->p2p_seq[2 * t->root + t->is_send];
	} else {
		t->sig.seq = atomic_load_explicit(&c->seq, memory_order_relaxed) + 1;
		atomic_store_explicit(&c->seq, t->sig.seq, memory_order_relaxed);
		if (c->by_links)
			atomic_store_explicit(c->by_links, t->sig.seq, memory_order_release);
	}
	if (!t->kind) /* on a queue the call happens when the queue comes to it */
		tt_comm_record(c, &t->sig);
}

/* Within a unit collectives of a communicator follow each other, and messages of one direction to a peer. */
static struct tt_task *chain_of(struct tt_task *list, const struct tt_task *t)
{
	struct tt_task *last = NULL;

	for (struct tt_task *o = list; o != t; o = o->next) {
		bool p2p = t->coll == TT_SENDRECV;

		if (o->comm != t->comm || p2p != (o->coll == TT_SENDRECV))
			continue;
		if (!p2p || (o->root == t->root && o->is_send == t->is_send))
			last = o;
	}
	return last;
}

/* How many tasks of this unit on the same communicator, or on the same stream, come before t. */
static uint64_t before(struct tt_task *list, const struct tt_task *t, bool stream)
{
	uint64_t n = 0;

	for (struct tt_task *o = list; o != t; o = o->next)
		n += stream ? o->stream == t->stream : o->comm == t->comm;
	return n;
}

/* Calls on a communicator come from one thread at a time: no need for an atomic increment. */
static uint64_t issue(struct tuttiComm *c)
{
	uint64_t n = atomic_load_explicit(&c->issued, memory_order_relaxed);

	atomic_store_explicit(&c->issued, n + 1, memory_order_release);
	return n;
}

void tt_task_submit(struct tt_task *list)
{
	for (struct tt_task *t = list; t; t = t->next) {
		number(t);
		t->phase = WAITING;
		t->result = tuttiSuccess;
		t->text = NULL;
		t->held_by = NULL;
		t->fed = false;
		atomic_store_explicit(&t->done, false, memory_order_relaxed);
		t->after = list->next ? chain_of(list, t) : NULL;
		t->first = issue(t->comm) - (list->next ? before(list, t, false) : 0);
		if (t->stream)
			t->stream_first = tt_stream_issue(t->stream, 1) - before(list, t, true);
	}
}

void tt_task_free(struct tt_task *list)
{
	while (list) {
		struct tt_task *next = list->next;

		free(list);
		list = next;
	}
}

/* ---- programs ---- */

static tuttiResult_t p2p_sched(const struct tt_task *t, struct tt_sched **out)
{
	struct tuttiComm *c = t->comm;
	struct tt_sched *s = calloc(1, sizeof(*s));

	if (!s)
		goto no_memory;
	*s = (struct tt_sched){ .coll = TT_SENDRECV, .algo = "sendrecv", .rank = c->rank, .nranks = 2,
				.nblocks = 1, .per_block = 1, .nlanes = 1, .nbufs = 2, .nsteps = 1, .nrefs = 1,
				.bufs = calloc(2, sizeof(*s->bufs)), .steps = calloc(1, sizeof(*s->steps)),
				.refs = calloc(1, sizeof(*s->refs)), .deps = calloc(1, sizeof(*s->deps)) };
	if (!s->bufs || !s->steps || !s->refs || !s->deps)
		goto no_memory;
	s->bufs[TT_IN] = s->bufs[TT_OUT] = (struct tt_buf){ 0, 1 };
	s->refs[0] = tt_ref(TT_IN, 0, 1);
	s->steps[0] = (struct tt_step){ .op = t->root == c->rank ? TT_COPY : t->is_send ? TT_SEND : TT_RECV,
					.lane = TT_P2P_LANE, .peer = (uint32_t)t->root,
					.dst = tt_ref(TT_OUT, 0, 1), .nsrc = 1 };
	if (s->steps[0].op == TT_RECV)
		s->steps[0].nsrc = 0;
	*out = s;
	return tuttiSuccess;
no_memory:
	tt_sched_free(s);
	return tt_fail(tuttiSystemError, "no memory for a schedule");
}

tuttiResult_t tt_task_sched(const struct tt_task *t, const struct tt_row *row, int rank, struct tt_sched **out)
{
	struct tt_shape shape;

	if (t->coll == TT_SENDRECV)
		return p2p_sched(t, out);
	if (row->algo >= TT_CUSTOM) {
		*out = tt_sched_copy(tt_plan_set(&t->comm->customs->file, row->algo, t->root)->ranks[rank]);
		return *out ? tuttiSuccess : tt_fail(tuttiSystemError, "no memory for a schedule");
	}
	shape = tt_row_shape(row, &t->comm->shape);
	return tt_algos[row->algo].build(t->coll, rank, t->comm->nranks, t->root < 0 ? 0 : t->root,
					 &shape, out);
}

static size_t block_bytes(const struct tt_task *t)
{
	return t->count * tt_type_size(t->type);
}

struct tt_row tt_task_row(const struct tt_task *t)
{
	bool reduces = t->coll == TT_ALLREDUCE || t->coll == TT_REDUCE || t->coll == TT_REDUCESCATTER;
	const struct tuttiComm *c = t->comm;
	const struct tt_row *row;

	if (t->coll == TT_SENDRECV)
		return (struct tt_row){ .lanes = 1, .depth = 4, .window = TT_P2P_WINDOW };
	row = tt_plan_row(&c->plan, t->coll, block_bytes(t), reduces && !t->op.commutative);
	if (row->algo >= TT_CUSTOM && !tt_plan_set(&c->customs->file, row->algo, t->root))
		row = tt_plan_row(&c->plan, t->coll, block_bytes(t), true); /* never of a file */
	return *row;
}

static tuttiResult_t find_prog(struct tt_task *t, const struct tt_row *row)
{
	struct tuttiComm *c = t->comm;
	int root = t->coll == TT_SENDRECV ? 2 * t->root + t->is_send : t->root;
	struct tt_prog_entry *e;
	struct tt_sched *s;

	for (e = c->progs; e; e = e->next)
		if (e->coll == t->coll && e->root == root && tt_row_same(&e->row, row))
			goto found;
	e = calloc(1, sizeof(*e));
	if (!e)
		return tt_fail(tuttiSystemError, "no memory for a program");
	e->coll = (uint8_t)t->coll;
	e->root = root;
	e->row = *row;
	tuttiResult_t r = tt_task_sched(t, row, c->rank, &s);
	if (r == tuttiSuccess)
		r = tt_prog_new(s, row->depth, tt_comm_link, c, &e->prog);
	if (r != tuttiSuccess) {
		free(e);
		return r;
	}
	e->next = c->progs;
	c->progs = e;
found:
	t->prog = e->prog;
	return tuttiSuccess;
}

static bool alike(const struct tt_recent *r, const struct tt_task *t)
{
	const struct tt_sig *a = &r->sig, *b = &t->sig;

	return a->seq && a->coll == b->coll && a->type == b->type && a->op == b->op && a->root == b->root &&
	       a->count == b->count && r->commutes == t->op.commutative;
}

static tuttiResult_t recall(struct tt_task *t, const struct tt_recent **out)
{
	struct tt_recent *r = &t->comm->recent[(t->count + t->coll) % 8];
	struct tt_row row;

	*out = r;
	t->prog = r->prog;
	if (alike(r, t))
		return tuttiSuccess;
	row = tt_task_row(t);
	TRY(find_prog(t, &row));
	*r = (struct tt_recent){ .sig = t->sig, .commutes = t->op.commutative, .hash = tt_sig_hash(&t->sig),
				 .prog = t->prog, .window = row.window };
	return tuttiSuccess;
}

static tuttiResult_t reserve(void **p, size_t *have, size_t want)
{
	if (want <= *have)
		return tuttiSuccess;
	tt_mem_range_forget(*p, *have);
	tt_block_free(*p, *have);
	*have = 0;
	*p = tt_block_new(want);
	if (!*p)
		return tt_fail(tuttiSystemError, "no memory: %zu bytes for temporaries", want);
	*have = want;
	if (want >= KEEP_FROM)
		(void)tt_mem_range_add(NULL, *p, want, true, NULL);
	return tuttiSuccess;
}

static bool by_queue(const struct tt_task *t)
{
	return t->q && !t->hosted;
}

/* PreMulSum scales a copy of the input, never the input. */
static tuttiResult_t scale(struct tt_task *t)
{
	struct tuttiComm *c = t->comm;
	size_t n = t->count * (t->coll == TT_REDUCESCATTER ? (size_t)c->nranks : 1);
	void *to = t->coll == TT_ALLREDUCE ? t->out : NULL;

	if (t->op.kind != TT_OP_PREMULSUM || !n || by_queue(t))
		return tuttiSuccess;
	if (!to) {
		TRY(reserve(&c->scratch, &c->scratch_size, n * tt_type_size(t->type)));
		to = c->scratch;
	}
	tt_reduce_pre(to, t->in, n, t->type, &t->op);
	t->in = to;
	return tuttiSuccess;
}

struct tt_call tt_task_call(const struct tt_task *t, uint64_t sig, size_t window)
{
	return (struct tt_call){ .in = t->in, .out = t->out, .count = t->count, .type = t->type, .op = t->op,
				 .sig = sig, .seq = t->sig.seq, .window_bytes = window,
				 .queue = t->hosted ? NULL : t->q };
}

static tuttiResult_t start(struct tt_task *t)
{
	struct tuttiComm *c = t->comm;
	const struct tt_recent *known;
	struct tt_call call;
	size_t tmp;

	TRY(recall(t, &known));
	TRY(scale(t));
	call = tt_task_call(t, known->hash, known->window);
	tmp = tt_run_tmp(t->prog, &call);
	if (!call.queue)
		TRY(reserve(&c->tmp, &c->tmp_size, tmp));
	tt_task_hold(t);
	tt_run_begin(t->prog, &call, c->tmp);
	return tuttiSuccess;
}

/* ---- the end of a task ---- */

static void average(const struct tt_task *t)
{
	bool here = t->coll == TT_ALLREDUCE || t->coll == TT_REDUCESCATTER ||
		    (t->coll == TT_REDUCE && t->root == t->comm->rank);

	if (t->op.kind == tuttiAvg && here && t->count && !by_queue(t))
		tt_reduce_post(t->out, t->out, t->count, t->type, &t->op);
}

/* Peers that leave ask how far this rank is. */
static void count(const struct tt_task *t)
{
	struct tuttiComm *c = t->comm;

	if (t->coll != TT_SENDRECV)
		atomic_store_explicit(&c->done_seq, t->sig.seq, memory_order_release);
	else if (!t->is_send)
		atomic_fetch_add_explicit(&c->received[t->root], 1, memory_order_release);
}

/* Closes all links, as the buffers are the caller's again, and keeps the error for tt_task_drive. */
static tuttiResult_t give_up(struct tt_task *t)
{
	struct tuttiComm *c = t->comm;
	tuttiResult_t r;

	tt_comm_close_links(c);
	c->cut = true;
	r = tt_comm_error(c);
	if (!t->stream && !t->q)
		t->text = strdup(tt_last_error());
	return r;
}

/* The communicator is not touched after the last line: Abort on another thread waits for that alone. */
static void finish(struct tt_task *t, tuttiResult_t r)
{
	struct tuttiComm *c = t->comm;
	struct tuttiStream *s = t->stream;

	if (r == tuttiSuccess) {
		if (t->staged && t->q && tt_task_out_bytes(t))
			memcpy(t->out, tt_qrun_out(t->q), tt_task_out_bytes(t));
		average(t);
		count(t);
	} else {
		r = give_up(t);
	}
	if (t->q)
		tt_qrun_close(t->q, r != tuttiSuccess);
	tt_task_release(t);
	t->result = r;
	atomic_store_explicit(&t->done, true, memory_order_release);
	if (s)
		tt_stream_finished(s, r);
	atomic_fetch_add_explicit(&c->finished, 1, memory_order_release);
}

tuttiResult_t tt_task_gone(struct tt_task *t, int rank)
{
	struct tuttiComm *c = t->comm;
	char who[120], what[128], why[sizeof(c->dead_why)];

	tt_comm_who(c, rank, who, sizeof(who));
	tt_sig_print(&t->sig, what, sizeof(what));
	pthread_mutex_lock(&c->lock);
	snprintf(why, sizeof(why), "%s", c->dead_why);
	pthread_mutex_unlock(&c->lock);
	if (atomic_load(&c->state[rank]) == TT_DEAD)
		return tt_comm_fail(c, false, tuttiPeerDead, "%s died during %s: %s; abort this communicator and "
				    "make a new one of the survivors", who, what, why);
	return tt_comm_fail(c, false, tuttiPeerDead, "%s had left after operation #%u and cannot take part in "
			    "%s; it finalized or exited too early", who, atomic_load(&c->left_seq[rank]), what);
}

/* Waits a moment for the watcher's word on why a link broke. */
static bool known_gone(struct tuttiComm *c, int rank)
{
	for (int i = 0; i < 150 && atomic_load(&c->state[rank]) == TT_ALIVE; i++) {
		if (atomic_load_explicit(&c->error, memory_order_acquire))
			return false;
		tt_net_sleep(NULL, 0, c->wake_fd, 10);
	}
	return atomic_load(&c->state[rank]) != TT_ALIVE;
}

static tuttiResult_t broken(struct tt_task *t)
{
	const struct tt_run_fault *f = tt_run_fault(t->prog);
	struct tuttiComm *c = t->comm;
	char who[120], what[128];
	int peer = f->link->peer;
	tuttiResult_t link = tuttiMismatch;
	const char *why = f->why;

	if (!f->differs)
		link = f->link->ep->t->link_error(f->link->priv, &why);
	if (link == tuttiMismatch && tt_comm_differs(c, peer, &t->sig, 1000 * MS))
		return tt_comm_error(c);
	if (!f->differs && link != tuttiMismatch && link != tuttiSystemError && known_gone(c, peer))
		return tt_task_gone(t, peer);
	tt_sig_print(&t->sig, what, sizeof(what));
	tt_comm_who(c, peer, who, sizeof(who));
	return tt_comm_fail(c, false, link == tuttiSuccess ? tuttiSystemError : link,
			    "%s on rank %d: the %s link to %s failed: %s", what, c->rank,
			    f->link->ep->t->name, who, why ? why : "no reason given");
}

/* No transport had a way for this link yet, and nothing has moved on it. */
static bool movable(const struct tt_task *t)
{
	const struct tt_run_fault *f = tt_run_fault(t->prog);
	const char *why;

	return !f->differs && f->link->ep->t->link_error(f->link->priv, &why) == tuttiUnsupported;
}

static tuttiResult_t move_link(struct tt_task *t)
{
	struct tt_link *link = tt_run_fault(t->prog)->link;
	tuttiResult_t r = tt_comm_reopen(t->comm, link);

	if (r == tuttiSuccess)
		t->moved_ns = 0;
	else if (known_gone(t->comm, link->peer))
		r = tt_task_gone(t, link->peer);
	else
		r = tt_comm_pass(t->comm, false, r);
	return r;
}

/* ---- stepping ---- */

static bool turn(const struct tt_task *t)
{
	if (atomic_load_explicit(&t->comm->finished, memory_order_acquire) < t->first)
		return false;
	if (t->after && !atomic_load_explicit(&t->after->done, memory_order_acquire))
		return false;
	return !t->stream || tt_stream_turn(t->stream, t->stream_first);
}

static tuttiResult_t error_of(struct tuttiComm *c)
{
	return (tuttiResult_t)atomic_load_explicit(&c->error, memory_order_acquire);
}

static void begin(struct tt_task *t)
{
	tuttiResult_t r = error_of(t->comm);

	if (t->kind)
		tt_comm_record(t->comm, &t->sig);
	if (r == tuttiSuccess)
		r = start(t);
	if (r != tuttiSuccess) {
		if (error_of(t->comm) == tuttiSuccess)
			tt_comm_pass(t->comm, false, r);
		finish(t, r);
		return;
	}
	tt_comm_tell_peers(t);
	t->phase = RUNNING;
	t->moved_ns = t->asked_ns = t->noted_ns = t->absent_ns = 0;
	t->peer_there = false;
}

/* Host memory for a device's queue: earlier calls on the same host stream may have written it just now. */
static void feed(struct tt_task *t)
{
	size_t n = t->staged && t->q && !t->fed ? tt_task_in_bytes(t) : 0;

	if (n)
		memcpy((void *)tt_qrun_in(t->q), t->in, n);
	if (t->staged && t->q)
		tt_qrun_feed(t->q);
	t->fed = true;
}

bool tt_task_step(struct tt_task *t)
{
	tuttiResult_t r;
	int moved;

	if (t->phase == WAITING) {
		if (!turn(t))
			return false;
		feed(t);
		if (t->q && !tt_qrun_begun(t->q))
			return false;
		begin(t);
		if (t->phase != RUNNING)
			return true;
	}
	if (t->comm->cut) { /* by another task of this unit */
		finish(t, error_of(t->comm));
		return true;
	}
	switch (tt_run_pass(t->prog, &moved)) {
	case TT_RUN_DONE:
		finish(t, tt_comm_meant_alike(t));
		return true;
	case TT_RUN_FAILED:
		r = movable(t) ? move_link(t) : broken(t);
		if (r != tuttiSuccess)
			finish(t, r);
		return true;
	default:
		if (moved)
			t->moved_ns = 0;
		return moved != 0;
	}
}

/* ---- watching ---- */

static void hang_up(struct tuttiComm *c)
{
	for (int i = 0; i < c->nranks; i++) {
		if (atomic_load(&c->state[i]) == TT_ALIVE || !c->links[i])
			continue;
		for (int l = 0; l < TT_LANES; l++) {
			struct tt_link *k = c->links[i][l];

			if (!k || !k->priv || k->ep == c->inproc || tt_node_alive(k->proc, NULL, 0))
				continue;
			tt_ep_lock(k->ep);
			k->ep->t->peer_gone(k->ep->priv, k->proc);
			tt_ep_unlock(k->ep);
			break;
		}
	}
}

/* Often enough to know before the deadline. */
static uint64_t ask_every(const struct tuttiComm *c)
{
	uint64_t ns = c->deadline_ns ? c->deadline_ns / 8 : ASK_EVERY;

	return ns < ASK_AFTER / 4 ? ASK_AFTER / 4 : tt_min(ns, ASK_EVERY);
}

static void ask_and_note(struct tt_task *t, const int *ranks, int n, int absent, uint64_t now)
{
	char what[128];

	if (t->asked_ns && now - t->asked_ns < ask_every(t->comm))
		return;
	t->asked_ns = now;
	for (int i = 0; i < n; i++)
		if (ranks[i] != t->comm->rank)
			tt_comm_ask(t->comm, ranks[i], &t->sig);
	if (now - t->noted_ns < NOTE_EVERY)
		return;
	t->noted_ns = now;
	tt_sig_print(&t->sig, what, sizeof(what));
	tt_log(TT_LOG_WARN, "task", "rank %d has waited %.0f s in %s for rank %d%s", t->comm->rank,
	       (double)(now - t->begun_ns) / 1e9, what, absent >= 0 ? absent : n ? ranks[0] : -1,
	       absent >= 0 ? ", which has not called it" : n > 1 ? " and others" : "");
}

static void take_answer(struct tt_task *t)
{
	struct tuttiComm *c = t->comm;

	pthread_mutex_lock(&c->lock);
	if (c->answer.there && c->answer.sig.seq == t->sig.seq && c->answer.sig.coll == t->sig.coll)
		t->peer_there = true;
	pthread_mutex_unlock(&c->lock);
}

static int gone_rank(const struct tt_task *t, const int *ranks, int n)
{
	struct tuttiComm *c = t->comm;

	int dead_rank = atomic_load_explicit(&c->dead_rank, memory_order_acquire);

	if (dead_rank >= 0)
		return dead_rank;
	for (int i = 0; i < n; i++)
		if (atomic_load(&c->state[ranks[i]]) == TT_LEFT &&
		    (t->coll == TT_SENDRECV || atomic_load(&c->left_seq[ranks[i]]) < t->sig.seq))
			return ranks[i];
	return -1;
}

/* " by device rxe0 ..." of the first link to that rank. */
static const char *way_to(struct tuttiComm *c, int rank, char *out, size_t n)
{
	struct tt_link *l = NULL;

	for (int k = 0; k < TT_LANES && c->links[rank] && !l; k++)
		l = c->links[rank][k];
	*out = 0;
	if (!l || !l->priv || !l->ep->t->link_way)
		return out;
	*out = ' ';
	tt_ep_lock(l->ep);
	l->ep->t->link_way(l->priv, out + 1, n - 1);
	tt_ep_unlock(l->ep);
	return out;
}

static tuttiResult_t late(struct tt_task *t, const int *ranks, int n, int absent, bool moving)
{
	uint64_t limit = moving ? t->comm->deadline_ns : t->comm->arrival_ns;
	char who[120] = "nobody", what[128], way[TT_TEXT / 2] = "";

	tt_sig_print(&t->sig, what, sizeof(what));
	if (n || absent >= 0)
		tt_comm_who(t->comm, absent >= 0 ? absent : ranks[0], who, sizeof(who));
	if (moving && n)
		way_to(t->comm, ranks[0], way, sizeof(way));
	return tt_comm_fail(t->comm, false, tuttiTimeout, "%s on rank %d: %s %s%s for %.1f s%s; see whether that "
			    "process is stopped or busy%s, or raise the %s", what, t->comm->rank,
			    moving ? "no data from" : "no call by", who, n > 1 && absent < 0 ? " and others" : "",
			    (double)limit / 1e9, way, *way ? ", and whether the way loses data" : "",
			    moving ? "deadline" : "arrivalDeadline");
}

/* By device links; true: another rank has failed, and has not told why for too long. */
static bool watch_peers(struct tt_task *t, uint64_t now)
{
	if (!by_queue(t) || t->phase != RUNNING)
		return false;
	if (tt_comm_meant_alike(t) != tuttiSuccess)
		return true;
	if (tt_qrun_stirred(t->q))
		t->moved_ns = now;
	if (!tt_qrun_tainted(t->q) || now - t->moved_ns < 2000 * MS)
		return false;
	tt_comm_hear_peers(t->comm, 0);
	return true;
}

void tt_task_watch(struct tt_task *t, uint64_t now)
{
	struct tuttiComm *c = t->comm;
	tuttiResult_t r = error_of(c);
	bool moving;
	int ranks[32], n, who, absent;
	uint64_t still;
	uint32_t events;

	if (!t->moved_ns)
		t->moved_ns = now;
	if (watch_peers(t, now))
		r = error_of(c);
	if (r != tuttiSuccess) {
		/* elsewhere, in a later call, perhaps: what is on its way may still end this one well */
		bool patient = t->phase == RUNNING && !atomic_load(&c->aborting) && now - t->moved_ns < GRACE;

		if (!patient && (t->phase == RUNNING || turn(t)))
			finish(t, r);
		return;
	}
	if (t->phase != RUNNING)
		return;
	if (!t->begun_ns)
		t->begun_ns = t->noted_ns = now;
	events = atomic_load_explicit(&c->events, memory_order_acquire);
	if (events != t->events_seen) {
		t->events_seen = events;
		hang_up(c);
		take_answer(t);
	}
	if (now - t->moved_ns < ASK_AFTER)
		return;
	n = tt_run_waits(t->prog, ranks, 32);
	absent = t->coll == TT_SENDRECV ? -1 : tt_comm_absent(c, t->sig.seq);
	ask_and_note(t, ranks, n, absent, now);
	who = gone_rank(t, ranks, n);
	moving = absent < 0 && (tt_run_began(t->prog) || t->peer_there);
	if (absent >= 0)
		t->absent_ns = now;
	still = now - tt_max(t->moved_ns, moving ? t->absent_ns : 0);
	if (who >= 0 && now - t->moved_ns > DRAIN)
		finish(t, tt_task_gone(t, who));
	else if (moving && c->deadline_ns && still > c->deadline_ns)
		finish(t, late(t, ranks, n, -1, true));
	else if (!moving && c->arrival_ns && still > c->arrival_ns)
		finish(t, late(t, ranks, n, absent, false));
}

/* ---- driving ---- */

int tt_task_eps(struct tt_task *t, struct tt_ep **eps, int n, int max)
{
	struct tt_ep *mine[4];
	int k = t->phase == RUNNING && !t->done ? tt_prog_eps(t->prog, mine, 4) : 0;

	for (int i = 0; i < k; i++) {
		int j = 0;

		while (j < n && eps[j] != mine[i])
			j++;
		if (j == n && n < max)
			eps[n++] = mine[i];
	}
	return n;
}

static bool is_done(const struct tt_task *t)
{
	return atomic_load_explicit(&t->done, memory_order_acquire);
}

static bool step_all(struct tt_task *list, bool *moved)
{
	bool going = false;

	*moved = false;
	for (struct tt_task *t = list; t; t = t->next)
		if (!is_done(t)) {
			*moved |= tt_task_step(t);
			going |= !is_done(t);
		}
	return going;
}

/* Nothing moved: spin a little, then give the core away, then sleep. */
static void idle(struct tt_task *list, uint32_t idles, uint32_t pauses, uint64_t *since)
{
	struct tt_ep *eps[MAX_DRIVE_EPS];
	uint64_t now;
	uint64_t spin = 0;
	int n = 0, wake_fd = -1;

	if (idles <= pauses) {
		tt_pause();
		return;
	}
	sched_yield();
	if (idles & 15)
		return;
	now = tt_now_ns();
	if (!*since)
		*since = now;
	for (struct tt_task *t = list; t; t = t->next)
		if (!is_done(t)) {
			tt_task_watch(t, now);
			n = tt_task_eps(t, eps, n, MAX_DRIVE_EPS);
			if (wake_fd < 0 && !is_done(t)) { /* the communicator of a done task may be gone */
				wake_fd = t->comm->wake_fd;
				spin = t->comm->spin_ns;
			}
		}
	if (wake_fd >= 0 && now - *since > spin)
		tt_net_sleep(eps, n, wake_fd, list->next ? 1 : 50);
}

/* A wait is over that came to yield. Where one yield after another brings the message at once, its sender runs on
 * this very core; the kernel leaves two that yield to each other together, each call two switches long, though other
 * cores are idle. Then one of the two moves: ranks lose patience at different times, and ever later. */
static void apart(uint32_t yields, int rank)
{
	static _Thread_local uint32_t together, patience = 32;

	together = yields == 1 ? together + 1 : 0;
	if (together < patience + 8 * (uint32_t)(rank % 16))
		return;
	tt_next_core();
	together = 0;
	patience = patience < 1 << 15 ? 2 * patience : patience;
}

tuttiResult_t tt_task_drive(struct tt_task *list)
{
	tuttiResult_t r = tuttiSuccess;
	uint64_t since = 0;
	uint32_t idles = 0, pauses = list->comm->pauses;
	int rank = list->comm->rank;
	bool moved, going;

	do {
		going = step_all(list, &moved);
		if (moved && idles > pauses && pauses == TT_PATIENT)
			apart(idles - pauses, rank);
		if (moved) {
			idles = 0;
			since = 0;
		} else if (going) {
			idle(list, ++idles, pauses, &since);
		}
	} while (going);
	for (struct tt_task *t = list; t; t = t->next) {
		if (r == tuttiSuccess && t->result != tuttiSuccess)
			r = tt_note_error(t->result, "%s", t->text ? t->text : tt_result_text(t->result));
		free(t->text);
		t->text = NULL;
	}
	return r;
}
