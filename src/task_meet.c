/* Ranks of one process whose buffers are on one device: one kernel does a collective for all of them. Each call records
 * an event on its stream and waits on the host until all ranks have called; the last one launches the kernel behind all
 * the events, and every stream goes on behind the kernel. So no stream waits for what is enqueued after it, whatever
 * queues the hardware has. A rank that cannot take part goes by links (task_queue.c), which the others see in its word
 * of the last call that did, and do as well: what a rank decides alone is right, as one decides for all.
 * SPDX-License-Identifier: Apache-2.0 */
#include "task_meet.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MISSES = 16 }; /* so many calls in a row that went by links: the rest does without asking */
/* Phases of a task; one that stayed away does not happen: it is captured, and others go by links. */
enum { ALONE, SEATED, MET, BY_LINKS, STAYED };

#define NOTE_EVERY 30000000000ull
#define ASK_EVERY 500000000ull

static struct {
	pthread_mutex_t lock;
	struct tt_meet *first;
} all = { .lock = PTHREAD_MUTEX_INITIALIZER };

/* ---- a communicator's ---- */

static struct tt_meet *find_or_make(uint64_t id, int nranks)
{
	size_t size = sizeof(struct tt_meet) + (size_t)nranks * sizeof(struct tt_meet_member);
	struct tt_meet *m = all.first;

	while (m && m->id != id)
		m = m->next;
	if (m)
		return m;
	m = aligned_alloc(64, (size + 63) & ~(size_t)63);
	if (!m)
		return NULL;
	memset(m, 0, size);
	m->id = id;
	m->nranks = nranks;
	m->by_grid = tt_env_int("CUDA_DEVICE_DRIVEN") != 0;
	pthread_mutex_init(&m->lock, NULL);
	m->next = all.first;
	all.first = m;
	return m;
}

tuttiResult_t tt_meet_open(struct tuttiComm *c)
{
	if (c->nprocs != 1 || c->nranks > TT_PIECE_RANKS || !tt_env_int("ONE_KERNEL"))
		return tuttiSuccess;
	pthread_mutex_lock(&all.lock);
	c->meet = find_or_make(c->id, c->nranks);
	if (c->meet)
		c->meet->refs++;
	pthread_mutex_unlock(&all.lock);
	if (!c->meet)
		return tt_fail(tuttiSystemError, "no memory for a communicator");
	c->by_links = &c->meet->members[c->rank].by_links;
	return tuttiSuccess;
}

static void free_meetings(struct tt_meeting *m, int nranks)
{
	while (m) {
		struct tt_meeting *next = m->next;

		for (int i = 0; i < nranks; i++)
			tt_seat_free(&m->seats[i]);
		free(m);
		m = next;
	}
}

/* What graphs replay ends as well. */
static void abort_grid(struct tt_meet *m)
{
	pthread_mutex_lock(&m->lock);
	tt_task_grid_abort(m->grid);
	pthread_mutex_unlock(&m->lock);
}

void tt_meet_close(struct tuttiComm *c)
{
	struct tt_meet *m = c->meet, **at;
	bool last;

	if (!m)
		return;
	c->meet = NULL;
	c->by_links = NULL;
	if (atomic_load(&c->aborting))
		abort_grid(m);
	pthread_mutex_lock(&all.lock);
	last = !--m->refs;
	for (at = &all.first; last && *at != m; at = &(*at)->next)
		;
	if (last)
		*at = m->next;
	pthread_mutex_unlock(&all.lock);
	if (!last)
		return;
	free_meetings(m->open, m->nranks);
	free_meetings(m->spare, m->nranks);
	tt_task_grid_free(m->grid);
	pthread_mutex_destroy(&m->lock);
	free(m);
}

/* ---- coming and going ---- */

static struct tt_meeting *join(struct tt_meet *meet, uint32_t seq)
{
	struct tt_meeting *m;

	pthread_mutex_lock(&meet->lock);
	for (m = meet->open; m && m->seq != seq; m = m->next)
		;
	if (!m) {
		m = meet->spare;
		if (m)
			meet->spare = m->next;
		else
			m = calloc(1, sizeof(*m) + (size_t)meet->nranks * sizeof(m->seats[0]));
		if (m) {
			m->seq = seq;
			m->users = m->here = 0;
			atomic_store_explicit(&m->state, TT_OPEN, memory_order_relaxed);
			m->next = meet->open;
			meet->open = m;
		}
	}
	if (m)
		m->users++;
	pthread_mutex_unlock(&meet->lock);
	return m;
}

/* Under the lock. */
static void drop(struct tt_meet *meet, struct tt_meeting *m)
{
	struct tt_meeting **at;

	if (--m->users)
		return;
	for (at = &meet->open; *at != m; at = &(*at)->next)
		;
	*at = m->next;
	m->next = meet->spare;
	meet->spare = m;
}

static void leave_meeting(struct tt_task *t)
{
	struct tt_meet *meet = t->comm->meet;

	pthread_mutex_lock(&meet->lock);
	t->meeting->seats[t->comm->rank].taken = false;
	drop(meet, t->meeting);
	pthread_mutex_unlock(&meet->lock);
	t->meeting = NULL;
}

/* False: all have come, and the last one decides. */
static bool withdraw(struct tt_task *t)
{
	struct tt_meet *meet = t->comm->meet;
	bool early;

	pthread_mutex_lock(&meet->lock);
	early = t->meeting->here < meet->nranks;
	if (early) {
		t->meeting->here--;
		t->meeting->seats[t->comm->rank].taken = false;
		drop(meet, t->meeting);
	}
	pthread_mutex_unlock(&meet->lock);
	if (early)
		t->meeting = NULL;
	return early;
}

static bool goes_by_links(const struct tt_task *t)
{
	const struct tt_meet *meet = t->comm->meet;

	for (int i = 0; i < meet->nranks; i++)
		if ((int32_t)(atomic_load_explicit(&meet->members[i].by_links, memory_order_acquire) - t->sig.seq) >= 0)
			return true;
	return false;
}

/* Told at once, though it is enqueued when the unit's meetings are over: others may come to those only after this. */
static void by_links(struct tt_task *t, uint32_t seq)
{
	if (t->comm->by_links && t->coll != TT_SENDRECV)
		atomic_store_explicit(t->comm->by_links, seq, memory_order_release);
	t->phase = BY_LINKS;
}

static void refuse(struct tt_task *t, int phase, const char *why)
{
	char text[TT_TEXT / 4];

	snprintf(text, sizeof(text), "%s", why); /* which may be this thread's last error */
	t->result = tt_capture_refuse(t, text);
	t->text = strdup(tt_last_error());
	t->phase = phase;
}

/* The others' calls wait for this one, which its caller may make again without a capture. */
static void stay(struct tt_task *t, uint32_t seq, const char *why)
{
	t->sig = tt_task_sig(t, seq);
	by_links(t, seq);
	refuse(t, STAYED, why);
}

static void in_vain(struct tt_task *t)
{
	t->comm->misses++;
	if (t->at.capture)
		stay(t, t->sig.seq, "another rank makes this call by links");
	else
		by_links(t, t->sig.seq);
}

/* On all ranks alike. */
static void count(const struct tt_task *t)
{
	struct tuttiComm *c = t->comm;

	c->misses = 0;
	atomic_store_explicit(&c->seq, t->sig.seq, memory_order_relaxed);
	tt_comm_record(c, &t->sig);
}

static void met(struct tt_task *t, tuttiResult_t r)
{
	if (r == tuttiSuccess)
		count(t);
	t->result = r;
	t->phase = MET;
}

/* ---- a call ---- */

static void sit_down(struct tt_task *t)
{
	struct tuttiComm *c = t->comm;
	bool last;

	t->sig = tt_task_sig(t, atomic_load_explicit(&c->seq, memory_order_relaxed) + 1);
	t->begun_ns = t->noted_ns = 0;
	atomic_store_explicit(&c->meet->members[c->rank].thread, (uint64_t)pthread_self(), memory_order_relaxed);
	if (atomic_load_explicit(&c->error, memory_order_acquire)) {
		met(t, tt_comm_error(c));
		return;
	}
	t->meeting = goes_by_links(t) ? NULL : join(c->meet, t->sig.seq);
	if (!t->meeting) { /* or no memory for it, which is no reason to fail */
		in_vain(t);
		return;
	}
	if (tt_seat_take(t) != tuttiSuccess) {
		leave_meeting(t);
		met(t, tt_comm_error(c));
		return;
	}
	pthread_mutex_lock(&c->meet->lock);
	t->meeting->seats[c->rank].taken = true;
	last = ++t->meeting->here == c->nranks;
	pthread_mutex_unlock(&c->meet->lock);
	t->phase = SEATED;
	if (last)
		tt_meeting_decide(t);
}

/* The news of what has failed there may still be on its way. */
static tuttiResult_t broken(const struct tt_task *t)
{
	tuttiResult_t r = tt_comm_error(t->comm);

	if (r == tuttiSuccess)
		r = tt_comm_fail(t->comm, true, tuttiRemoteError, "another rank failed in this call");
	return r;
}

/* Has nothing to wait for any more: an error, or others who go by links. */
static bool get_up(struct tt_task *t)
{
	bool failed = atomic_load_explicit(&t->comm->error, memory_order_acquire) != tuttiSuccess;

	if (!(failed || goes_by_links(t)) || !withdraw(t))
		return false;
	if (failed)
		met(t, tt_comm_error(t->comm));
	else
		in_vain(t);
	return true;
}

static bool look(struct tt_task *t)
{
	int state = atomic_load_explicit(&t->meeting->state, memory_order_acquire);
	tuttiResult_t r = tuttiSuccess;

	if (state == TT_OPEN)
		return get_up(t);
	if (state == TT_LAUNCHED || state == TT_BROKEN)
		r = state == TT_BROKEN ? broken(t) : tt_meeting_follow(t);
	if (state == TT_REFUSED || (state == TT_LAUNCHED && r != tuttiSuccess && t->at.capture)) {
		count(t);
		refuse(t, MET, state == TT_REFUSED ? t->meeting->why : tt_last_error());
	} else if (state != TT_TO_LINKS) {
		met(t, state == TT_LAUNCHED && r != tuttiSuccess ? tt_comm_pass(t->comm, false, r) : r);
	}
	leave_meeting(t);
	if (state == TT_TO_LINKS)
		in_vain(t);
	return true;
}

/* ---- while nobody comes ---- */

/* A bit for each. */
static uint64_t absent(const struct tt_task *t)
{
	struct tt_meet *meet = t->comm->meet;
	uint64_t ranks = 0;

	pthread_mutex_lock(&meet->lock);
	for (int i = 0; i < meet->nranks; i++)
		ranks |= (uint64_t)!t->meeting->seats[i].taken << i;
	pthread_mutex_unlock(&meet->lock);
	return ranks;
}

/* "rank 1", "ranks 1, 2, 5 and 7 more"; whether none of them is known to have a thread of its own. */
static bool missing(const struct tt_task *t, char *out, size_t n)
{
	struct tt_meet *meet = t->comm->meet;
	uint64_t me = (uint64_t)pthread_self(), thread, ranks = absent(t);
	int found = 0, many = __builtin_popcountll(ranks), len;
	bool mine = true;

	len = snprintf(out, n, "%s", !many ? "" : many > 1 ? "ranks " : "rank ");
	for (int i = 0; i < meet->nranks; i++) {
		if (!(ranks >> i & 1))
			continue;
		thread = atomic_load_explicit(&meet->members[i].thread, memory_order_relaxed);
		mine &= !thread || thread == me;
		if (found++ < 8)
			len += snprintf(out + len, n - (size_t)len, "%s%d", found > 1 ? ", " : "", i);
	}
	if (found > 8)
		snprintf(out + len, n - (size_t)len, " and %d more", found - 8);
	return mine;
}

static int gone(const struct tt_task *t)
{
	struct tuttiComm *c = t->comm;

	for (int i = 0; i < c->nranks; i++)
		if (atomic_load(&c->state[i]) == TT_LEFT &&
		    (int32_t)(atomic_load(&c->left_seq[i]) - t->sig.seq) < 0)
			return i;
	return -1;
}

/* Those who left before this rank could hear it say so when they are asked. */
static void ask_missing(struct tt_task *t)
{
	uint64_t ranks = absent(t);

	for (int i = 0; i < t->comm->nranks; i++)
		if (ranks >> i & 1)
			tt_comm_ask(t->comm, i, &t->sig);
}

/* A rank that another thread drives may come late, as ever; one that only this thread could drive never does. */
static void watch(struct tt_task *t, uint64_t now)
{
	struct tuttiComm *c = t->comm;
	char who[128] = "", what[128];
	int left_rank = gone(t);
	uint64_t limit;
	bool mine;

	if (!t->begun_ns)
		t->begun_ns = t->noted_ns = t->asked_ns = now;
	if (now - t->asked_ns > ASK_EVERY) {
		t->asked_ns = now;
		ask_missing(t);
	}
	if (left_rank >= 0) {
		tt_task_gone(t, left_rank);
		return;
	}
	mine = missing(t, who, sizeof(who));
	limit = mine && c->deadline_ns && (!c->arrival_ns || c->arrival_ns > c->deadline_ns) ? c->deadline_ns :
												  c->arrival_ns;
	tt_sig_print(&t->sig, what, sizeof(what));
	if (*who && limit && now - t->begun_ns > limit) {
		tt_comm_fail(c, false, tuttiTimeout, "%s on rank %d: no call by %s for %.1f s; ranks of one "
			     "thread make their calls in a group, ranks of several threads each its own; or raise "
			     "the %s", what, c->rank, who, (double)limit / 1e9,
			     limit == c->arrival_ns ? "arrivalDeadline" : "deadline");
	} else if (*who && now - t->noted_ns > NOTE_EVERY) {
		t->noted_ns = now;
		tt_log(TT_LOG_WARN, "task", "rank %d has waited %.0f s in %s for %s, not called there yet",
		       c->rank, (double)(now - t->begun_ns) / 1e9, what, who);
	}
}

static void rest(struct tt_task *list, uint32_t idles, uint64_t *since)
{
	const struct tuttiComm *c = list->comm;
	uint64_t now;

	if (idles <= c->pauses) {
		tt_pause();
		return;
	}
	sched_yield();
	if (idles & 15)
		return;
	now = tt_now_ns();
	if (!*since)
		*since = now;
	if (now - *since < c->spin_ns)
		return;
	for (struct tt_task *t = list; t; t = t->next)
		if (t->phase == SEATED)
			watch(t, now);
	nanosleep(&(struct timespec){ .tv_nsec = 200000 }, NULL);
}

/* ---- a unit ---- */

/* One that is captured does in any case, if only to say why it cannot be. */
static bool may_meet(const struct tt_task *t)
{
	if (!t->kind || t->coll == TT_SENDRECV || !t->comm->meet)
		return false;
	return t->at.capture || (t->comm->misses < MISSES && !tt_meet_lacks(t) && !tt_peers_drive(t->comm->peers));
}

/* The collective of the same communicator that comes before it in the unit. */
static const struct tt_task *before(const struct tt_task *list, const struct tt_task *t)
{
	const struct tt_task *last = NULL;

	for (; list != t; list = list->next)
		if (list->comm == t->comm && list->coll != TT_SENDRECV)
			last = list;
	return last;
}

/* The number that it will have, when those before it are over or go by links. */
static uint32_t seq_of(const struct tt_task *list, const struct tt_task *t)
{
	uint32_t seq = atomic_load_explicit(&t->comm->seq, memory_order_relaxed) + 1;

	for (; list != t; list = list->next)
		seq += list->comm == t->comm && list->coll != TT_SENDRECV &&
		       (list->phase == BY_LINKS || list->phase == STAYED);
	return seq;
}

/* What follows a call that goes by links goes so too, as that is enqueued later; and what follows one that does not
 * happen does not either. */
static bool step(struct tt_task *list, struct tt_task *t)
{
	const struct tt_task *first = t->phase == ALONE ? before(list, t) : NULL;
	int phase = first ? first->phase : MET;

	if (t->phase == SEATED)
		return look(t);
	if (t->phase != ALONE || phase == ALONE || phase == SEATED)
		return false;
	if (phase == STAYED || (phase == BY_LINKS && t->at.capture))
		stay(t, seq_of(list, t), "a call before it in the group goes by links, or does not happen");
	else if (!may_meet(t) || phase == BY_LINKS)
		by_links(t, seq_of(list, t));
	else
		sit_down(t);
	return true;
}

static void step_all(struct tt_task *list)
{
	uint32_t idles = 0;
	uint64_t since = 0;
	bool going;

	do {
		bool moved = false;

		going = false;
		for (struct tt_task *t = list; t; t = t->next) {
			moved |= step(list, t);
			going |= t->phase == ALONE || t->phase == SEATED;
		}
		if (moved) {
			idles = 0;
			since = 0;
		} else if (going) {
			rest(list, ++idles, &since);
		}
	} while (going);
}

static bool is_over(const struct tt_task *t)
{
	return t->phase == MET || t->phase == STAYED;
}

static bool has_failed(const struct tt_task *t)
{
	return is_over(t) ? t->result != tuttiSuccess :
			    atomic_load_explicit(&t->comm->error, memory_order_acquire) != tuttiSuccess;
}

static tuttiResult_t error_of(const struct tt_task *t)
{
	return t->text ? tt_note_error(t->result, "%s", t->text) : tt_comm_error(t->comm);
}

/* Takes those out that are over, and those of a communicator that has failed: its owner may be waiting to free it. */
static tuttiResult_t take_out(struct tt_task **list)
{
	tuttiResult_t r = tuttiSuccess;

	for (struct tt_task *t = *list; t && r == tuttiSuccess; t = t->next)
		if (has_failed(t))
			r = error_of(t);
	for (struct tt_task **at = list, *t; (t = *at);) {
		bool over = is_over(t) || has_failed(t);

		atomic_fetch_sub_explicit(&t->comm->inside, 1, memory_order_release);
		if (over) {
			*at = t->next;
			free(t->text);
			free(t);
		} else {
			at = &t->next;
		}
	}
	return r;
}

tuttiResult_t tt_meet_run(struct tt_task **list)
{
	bool any = false;

	for (struct tt_task *t = *list; t; t = t->next)
		any |= may_meet(t);
	if (!any)
		return tuttiSuccess;
	for (struct tt_task *t = *list; t; t = t->next) {
		atomic_fetch_add(&t->comm->inside, 1);
		t->phase = ALONE;
		t->meeting = NULL;
	}
	step_all(*list);
	return take_out(list);
}
