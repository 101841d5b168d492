/* Calls on device memory: what the queue of the device does is enqueued by the calling thread, at the call; the
 * network part goes to the progress thread. SPDX-License-Identifier: Apache-2.0 */
#include "comm.h"
#include "exec_dev.h"

#include <stdlib.h>
#include <string.h>

/* ---- what a call takes from its communicator's pools ---- */

static struct tt_qprog_entry *find_qprog(struct tuttiComm *c, const struct tt_task *t, const struct tt_row *row,
					 int root)
{
	for (struct tt_qprog_entry *e = c->qprogs; e; e = e->next)
		if (!e->in_use && e->coll == t->coll && e->root == root && tt_row_same(&e->row, row))
			return e;
	return NULL;
}

static tuttiResult_t take_qprog(const struct tt_task *t, const struct tt_row *row, struct tt_qprog_entry **out)
{
	struct tuttiComm *c = t->comm;
	int root = t->coll == TT_SENDRECV ? 2 * t->root + t->is_send : t->root;
	struct tt_qprog_entry *e = find_qprog(c, t, row, root);
	struct tt_sched *s;
	tuttiResult_t r;

	if (!e) {
		e = calloc(1, sizeof(*e));
		if (!e)
			return tt_fail(tuttiSystemError, "no memory for a program");
		*e = (struct tt_qprog_entry){ .coll = (uint8_t)t->coll, .root = root, .row = *row };
		r = tt_task_sched(t, row, c->rank, &s);
		if (r == tuttiSuccess) {
			e->drives = tt_comm_drives(t, row, s);
			r = tt_qprog_new(s, row->depth, &e->prog);
		}
		if (r != tuttiSuccess) {
			free(e);
			return r;
		}
		e->next = c->qprogs;
		c->qprogs = e;
	}
	e->in_use = true;
	*out = e;
	return tuttiSuccess;
}

/* ---- who is on which queue ---- */

static struct {
	pthread_mutex_t lock;
	struct tuttiComm *first; /* of those that have been on any */
} users = { .lock = PTHREAD_MUTEX_INITIALIZER };

/* A call of c there has not ended, or is about to begin. */
static bool is_on(struct tuttiComm *c, const void *line)
{
	bool on = c->joining && c->line == line;

	pthread_mutex_lock(&c->queue_lock);
	on = on || tt_qrun_any(c->qruns, line);
	pthread_mutex_unlock(&c->queue_lock);
	return on;
}

static tuttiResult_t check_alone(const struct tt_task *t)
{
	for (struct tuttiComm *o = users.first; o && t->at.line; o = o->next_on_queue)
		if (o != t->comm && o->id == t->comm->id && is_on(o, t->at.line))
			return tt_fail(tuttiInvalidUsage, "rank %d of this communicator has a call on the same stream, "
				       "for which rank %d's would wait for ever: give each rank a stream of its own "
				       "(NULL is one stream of a device for all threads)", o->rank, t->comm->rank);
	return tuttiSuccess;
}

static tuttiResult_t join(const struct tt_task *t)
{
	struct tuttiComm *c = t->comm;
	tuttiResult_t r;

	pthread_mutex_lock(&users.lock);
	r = check_alone(t);
	if (r == tuttiSuccess && !c->on_queues) {
		r = tt_progress_hold();
		if (r == tuttiSuccess) {
			c->on_queues = true;
			c->next_on_queue = users.first;
			users.first = c;
		}
	}
	if (r == tuttiSuccess) {
		c->line = t->at.line;
		c->joining++;
	}
	pthread_mutex_unlock(&users.lock);
	return r;
}

/* Its run tells from here on. */
static void joined(const struct tt_task *t)
{
	pthread_mutex_lock(&users.lock);
	t->comm->joining--;
	pthread_mutex_unlock(&users.lock);
}

/* True: it was the last. */
static bool depart(struct tuttiComm *c)
{
	struct tuttiComm **at;
	bool last;

	pthread_mutex_lock(&users.lock);
	for (at = &users.first; *at != c; at = &(*at)->next_on_queue)
		;
	*at = c->next_on_queue;
	last = !users.first;
	pthread_mutex_unlock(&users.lock);
	return last;
}

/* For streams that are busy with something else, whatever they have of this communicator. */
enum { PATIENT_MS = 1000, BRIEF_MS = 500 };

void tt_queue_free(struct tuttiComm *c)
{
	bool last = c->on_queues && depart(c), aborting = atomic_load(&c->aborting), drained;

	while (c->qprogs) {
		struct tt_qprog_entry *e = c->qprogs;

		c->qprogs = e->next;
		tt_qprog_free(e->prog);
		free(e);
	}
	drained = tt_qrun_free_all(&c->qruns, aborting ? BRIEF_MS : PATIENT_MS);
	if (drained) /* which is known for all runs, its kernels among them */
		tt_task_grid_free(c->grid);
	/* What others still write to is released by the progress thread, again and again. */
	drained = tt_peers_close(c->peers, drained, aborting);
	if (c->on_queues && drained)
		tt_progress_drop();
	/* An abort must not wait for streams, as a device does that takes memory back: then it is kept for the next. */
	if (last && !aborting)
		tt_mem_trim();
}

/* One call while it is enqueued; the task itself may end and go meanwhile. */
struct part {
	struct tt_task t; /* a copy; in and out as the device reaches them */
	const void *from; /* the user's, where they are copied on the way, or NULL */
	void *to;
	struct tt_qprog_entry *prog; /* NULL: hosted */
	struct tt_call call;
	size_t in_bytes;
	bool driven; /* by blocks: no batches */
	uint32_t batches, at;
};

tuttiResult_t tt_queue_enter(const struct tt_task *t)
{
	return t->kind->enter ? t->kind->enter(t->at.where) : tuttiSuccess;
}

tuttiResult_t tt_queue_left(const struct tt_task *t, tuttiResult_t r)
{
	if (t->kind->leave)
		t->kind->leave();
	return r;
}

static bool is_far(const struct tt_task *t)
{
	return t->kind->copy_host && (t->at.in_host || t->at.out_host);
}

/* Functions of the host, types that the device has no kernels for. */
static const char *needs_host(const struct tt_task *t)
{
	const struct tt_mem_kind *k = t->kind;

	if (t->op.kind == TT_OP_USER)
		return "its operator is a function of the host";
	return t->opcode >= 0 && k->reduces && !k->reduces(t->type) ? "there are no kernels for its type" : NULL;
}

const char *tt_queue_lacks(const struct tt_task *t)
{
	const char *why = needs_host(t);

	if (why)
		return why;
	return t->staged ? "its buffers are of the host" : is_far(t) ? "its buffers are pageable memory" : NULL;
}

static tuttiResult_t take_hosted(struct tt_task *t, struct part *p)
{
	struct tuttiComm *c = t->comm;

	p->in_bytes = tt_task_in_bytes(t);
	TRY(tt_qrun_open_hosted(&c->qruns, t->kind, &t->at, p->in_bytes, tt_task_out_bytes(t), &t->q));
	t->hosted = true;
	p->t = *t;
	t->in = tt_qrun_in(t->q);
	t->out = tt_qrun_out(t->q);
	if (t->op.scalar_at)
		t->op.scalar_at = tt_qrun_scalar(t->q);
	return tuttiSuccess;
}

/* Where memory is out of the device's reach, it works on pinned copies; those of a call on the host are made by the
 * progress thread, when the call's turn comes and when it ends. */
static void stage(struct part *p, const struct tt_qrun_needs *needs)
{
	struct tt_task *t = &p->t;

	if (t->at.in_host && needs->in_bytes) {
		p->from = t->staged ? NULL : t->in;
		t->in = tt_qrun_in(t->q);
	}
	if (t->at.out_host && needs->out_bytes) {
		p->to = t->staged ? NULL : t->out;
		t->out = tt_qrun_out(t->q);
	}
}

static tuttiResult_t take_direct(struct tt_task *t, struct part *p, const struct tt_row *row)
{
	struct tuttiComm *c = t->comm;
	const struct tt_sched *s = tt_qprog_sched(p->prog->prog);
	struct tt_qrun_needs needs = { .peers = tt_comm_peers(t, row, s) };
	bool far = is_far(t);

	if (far && !needs.peers) {
		p->prog->in_use = false;
		p->prog = NULL;
		return take_hosted(t, p);
	}
	p->in_bytes = tt_task_in_bytes(t);
	needs.in_bytes = far && t->at.in_host ? p->in_bytes : 0;
	needs.out_bytes = far && t->at.out_host ? tt_task_out_bytes(t) : 0;
	needs.scratch = t->op.kind == TT_OP_PREMULSUM && t->coll != TT_ALLREDUCE ? p->in_bytes : 0;
	p->call = tt_task_call(t, 0, row->window);
	needs.driven = p->driven = needs.peers && p->prog->drives && tt_dev_fits(s, &p->call, TT_DEV_SLOT);
	TRY(tt_qrun_open(&c->qruns, t->kind, &t->at, p->prog->prog, &p->call, &needs, &t->q));
	p->t = *t;
	stage(p, &needs);
	p->call.in = p->t.in;
	p->call.out = p->t.out;
	return tuttiSuccess;
}

static tuttiResult_t take(struct tt_task *t, struct part *p)
{
	struct tt_row row = tt_task_row(t);

	if (needs_host(t))
		return take_hosted(t, p);
	TRY(take_qprog(t, &row, &p->prog));
	return take_direct(t, p, &row);
}

/* Takes for all or for none. */
static tuttiResult_t take_all(struct tt_task *list, struct part *parts)
{
	tuttiResult_t r = tuttiSuccess;

	for (struct tt_task *t = list; t && r == tuttiSuccess; t = t->next) {
		if (!t->kind)
			continue;
		TRY(join(t));
		r = tt_queue_enter(t);
		if (r == tuttiSuccess) {
			pthread_mutex_lock(&t->comm->queue_lock);
			r = tt_queue_left(t, take(t, parts++));
			pthread_mutex_unlock(&t->comm->queue_lock);
		}
		joined(t);
		if (r == tuttiSuccess)
			atomic_fetch_add(&t->comm->inside, 1); /* until give_back */
	}
	return r;
}

static void give_back(struct part *p)
{
	struct tuttiComm *c = p->t.comm;

	pthread_mutex_lock(&c->queue_lock);
	if (p->prog)
		p->prog->in_use = false;
	pthread_mutex_unlock(&c->queue_lock);
	atomic_fetch_sub_explicit(&c->inside, 1, memory_order_release);
}

/* ---- enqueueing ---- */

static tuttiResult_t begin_here(struct part *p)
{
	const struct tt_task *t = &p->t;
	const void *in = t->in;

	if (!p->prog && t->op.scalar_at)
		TRY(t->kind->copy(t->queue, tt_qrun_scalar(t->q), t->op.scalar_at, tt_type_size(t->type)));
	if (!p->prog)
		return tt_qrun_hosted_begin(t->q, t->queue, in);
	if (p->from)
		TRY(t->kind->copy_host(t->queue, (void *)t->in, p->from, p->in_bytes));
	if (t->staged)
		TRY(tt_qrun_enqueue_await(t->q, t->queue));
	TRY(tt_qrun_enqueue_begin(t->q, t->queue));
	if (t->op.kind == TT_OP_PREMULSUM && t->count) {
		void *to = t->coll == TT_ALLREDUCE ? t->out : tt_qrun_scratch(t->q);

		TRY(t->kind->reduce(t->queue, to, &in, 1, p->in_bytes / tt_type_size(t->type), t->type, &t->op,
				    TT_SCALE_PRE));
		p->call.in = to;
	}
	if (p->driven)
		return tt_task_grid_own(&t->comm->grid, t, &p->call);
	tt_qrun_bind(t->q, &p->call);
	p->batches = tt_qrun_batches(t->q);
	return tuttiSuccess;
}

static tuttiResult_t step_here(struct part *p)
{
	tt_qrun_bind(p->t.q, &p->call);
	return tt_qrun_enqueue(p->t.q, p->t.queue, p->at++);
}

static tuttiResult_t end_here(struct part *p)
{
	const struct tt_task *t = &p->t;
	const void *out = t->out;

	if (!p->prog)
		return tt_qrun_hosted_end(t->q, t->queue, t->out);
	if (t->op.kind == tuttiAvg && tt_task_out_bytes(t))
		TRY(t->kind->reduce(t->queue, t->out, &out, 1, t->count, t->type, &t->op, TT_SCALE_POST));
	if (p->to)
		TRY(t->kind->copy_host(t->queue, p->to, out, tt_task_out_bytes(t)));
	return tt_qrun_enqueue_end(t->q, t->queue);
}

static tuttiResult_t whole_here(struct part *p)
{
	TRY(begin_here(p));
	while (p->at < p->batches)
		TRY(step_here(p));
	return end_here(p);
}

/* It ends where it is whole, as the network has the next of its direction after that. */
static tuttiResult_t part_of_message(struct part *p)
{
	if (p->at == p->batches) /* or hosted */
		return tuttiSuccess;
	TRY(step_here(p));
	return p->at == p->batches ? end_here(p) : tuttiSuccess;
}

static tuttiResult_t in_place(struct part *p, tuttiResult_t (*what)(struct part *p))
{
	TRY(tt_queue_enter(&p->t));
	return tt_queue_left(&p->t, what(p));
}

/* An earlier one of the same direction has not been enqueued whole: the other end may not have them in one group. */
static bool is_behind(const struct part *parts, int i)
{
	for (int k = 0; k < i; k++)
		if (parts[k].t.comm == parts[i].t.comm && parts[k].t.coll == TT_SENDRECV &&
		    parts[k].t.root == parts[i].t.root && parts[k].t.is_send == parts[i].t.is_send &&
		    parts[k].at < parts[k].batches)
			return true;
	return false;
}

/* Sends before receives, a batch of windows of each in turn: what two ranks want of each other never stands
 * behind what they wait for. */
static tuttiResult_t messages(struct part *parts, int n)
{
	bool more = true;

	for (int i = 0; i < n; i++)
		if (parts[i].t.coll == TT_SENDRECV)
			TRY(in_place(&parts[i], begin_here));
	while (more) {
		more = false;
		for (int way = 1; way >= 0; way--)
			for (int i = 0; i < n; i++)
				if (parts[i].t.coll == TT_SENDRECV && parts[i].t.is_send == way) {
					if (!is_behind(parts, i))
						TRY(in_place(&parts[i], part_of_message));
					more |= parts[i].at < parts[i].batches;
				}
	}
	for (int i = 0; i < n; i++)
		if (parts[i].t.coll == TT_SENDRECV && !parts[i].prog)
			TRY(in_place(&parts[i], end_here));
	return tuttiSuccess;
}

/* Within a unit communicators go in the order of their ids, the same on all ranks, as calls of one queue wait for
 * each other. */
static tuttiResult_t enqueue(struct part *parts, int n)
{
	uint64_t last = 0;
	bool any = true;

	for (bool first = true; any; first = false) {
		uint64_t id = UINT64_MAX;

		any = false;
		for (int i = 0; i < n; i++)
			if (parts[i].t.coll != TT_SENDRECV && (first || parts[i].t.comm->id > last)) {
				id = tt_min(id, parts[i].t.comm->id);
				any = true;
			}
		for (int i = 0; i < n; i++)
			if (parts[i].t.coll != TT_SENDRECV && parts[i].t.comm->id == id)
				TRY(in_place(&parts[i], whole_here));
		last = id;
	}
	return messages(parts, n);
}

/* NULL is a stream of each device. */
static bool same_queue(const struct tt_task *a, const struct tt_task *b)
{
	return a->kind == b->kind && ((a->queue == b->queue && a->at.where == b->at.where) ||
				      (a->at.line && a->at.line == b->at.line));
}

/* Ranks of one communicator that wait for each other must not stand in one queue. */
static tuttiResult_t check_queues(const struct tt_task *list)
{
	for (const struct tt_task *t = list; t; t = t->next)
		for (const struct tt_task *o = list; t->kind && o != t; o = o->next)
			if (same_queue(o, t) && o->comm != t->comm &&
			    o->comm->id == t->comm->id)
				return tt_fail(tuttiInvalidUsage, "ranks %d and %d of a communicator share a stream "
					       "in a group; give each rank a stream of its own",
					       o->comm->rank, t->comm->rank);
	return tuttiSuccess;
}

/* Calls on host memory that no rank makes by device links are the host's. */
static tuttiResult_t settle(struct tt_task *list)
{
	struct tt_qprog_entry *e;
	tuttiResult_t r = tuttiSuccess;
	bool stays;

	for (struct tt_task *t = list; t && r == tuttiSuccess; t = t->next) {
		struct tt_row row = tt_task_row(t);

		if (!t->staged)
			continue;
		stays = tt_comm_may_peer(t);
		pthread_mutex_lock(&t->comm->queue_lock);
		if (stays)
			r = take_qprog(t, &row, &e);
		if (stays && r == tuttiSuccess) {
			stays = tt_comm_peers(t, &row, tt_qprog_sched(e->prog)) != NULL;
			e->in_use = false;
		}
		pthread_mutex_unlock(&t->comm->queue_lock);
		t->staged = stays;
		t->kind = stays ? t->kind : NULL;
	}
	return r;
}

static tuttiResult_t run_by_links(struct tt_task *list)
{
	struct part *parts, one = { 0 };
	tuttiResult_t r = check_queues(list);
	int n = 0;

	if (r == tuttiSuccess)
		r = settle(list);

	for (struct tt_task *t = list; t; t = t->next)
		n += t->kind != NULL;
	parts = n > 1 ? calloc((size_t)n, sizeof(*parts)) : &one;
	if (!parts && r == tuttiSuccess)
		r = tt_fail(tuttiSystemError, "no memory for a group");
	if (r == tuttiSuccess)
		r = take_all(list, parts);
	if (r == tuttiSuccess) {
		tt_task_submit(list);
		tt_stream_enqueue(list);
		r = enqueue(parts, n);
		for (int i = 0; i < n && r != tuttiSuccess; i++)
			tt_comm_fail(parts[i].t.comm, false, r, "%s", tt_last_error());
	} else {
		for (int i = 0; parts && i < n && parts[i].t.q; i++)
			tt_qrun_cancel(parts[i].t.q);
		tt_task_free(list);
	}
	for (int i = 0; parts && i < n && parts[i].t.q; i++)
		give_back(&parts[i]);
	if (parts != &one)
		free(parts);
	return r;
}

/* What a rank sends to itself needs nobody else: a copy on its stream. */
static tuttiResult_t copy_itself(const struct tt_task *t)
{
	TRY(tt_queue_enter(t));
	return tt_queue_left(t, t->out == t->in || !t->count ? tuttiSuccess :
						t->kind->copy(t->queue, t->out, t->in, tt_task_out_bytes(t)));
}

static tuttiResult_t copies(struct tt_task **list)
{
	tuttiResult_t r = tuttiSuccess, one;

	for (struct tt_task **at = list, *t; (t = *at);) {
		const char *lacks = t->kind && t->paired ? tt_queue_lacks(t) : "";

		if (lacks && !(*lacks && t->at.capture)) {
			at = &t->next;
			continue;
		}
		t->sig = tt_task_sig(t, 0);
		t->sig.op = 0; /* a Recv */
		one = lacks ? tt_capture_refuse(t, lacks) : copy_itself(t);
		r = r == tuttiSuccess ? one : r;
		*at = t->next;
		free(t);
	}
	return r;
}

/* One kernel for all ranks comes first, on every rank alike: what waits on a stream for other streams stands behind. */
tuttiResult_t tt_queue_run(struct tt_task *list)
{
	tuttiResult_t r = tt_meet_run(&list), one = copies(&list);

	r = r != tuttiSuccess ? r : one;
	one = list ? run_by_links(list) : tuttiSuccess;
	return r != tuttiSuccess ? r : one;
}
