/* What goes wrong, and what other ranks have to say: deaths, goodbyes, differing calls, failures elsewhere.
 * Runs on the watcher thread and on drivers of operations. SPDX-License-Identifier: Apache-2.0 */
#include "comm.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MSG_ASK = 64, MSG_ANSWER, MSG_FAILED, MSG_BYE, MSG_WHERE, MSG_HERE, MSG_ABSENT };
enum { SAW_SAME, SAW_OTHER, NOT_YET };

struct message {
	uint64_t comm;
	int32_t from, to; /* to -1: every rank of the receiving process */
	uint32_t what, result;
	struct tt_sig sig, theirs;
	char text[TT_TEXT];
};

static struct {
	pthread_mutex_t lock;
	struct tuttiComm *first;
} all = { .lock = PTHREAD_MUTEX_INITIALIZER };

void tt_comm_enlist(struct tuttiComm *c)
{
	pthread_mutex_lock(&all.lock);
	c->next = all.first;
	all.first = c;
	pthread_mutex_unlock(&all.lock);
}

void tt_comm_delist(struct tuttiComm *c)
{
	pthread_mutex_lock(&all.lock);
	for (struct tuttiComm **p = &all.first; *p; p = &(*p)->next)
		if (*p == c) {
			*p = c->next;
			break;
		}
	pthread_mutex_unlock(&all.lock);
}

/* ---- words ---- */

uint64_t tt_sig_hash(const struct tt_sig *s)
{
	struct tt_sig k = *s;

	k.seq = k.pad = 0;
	if (k.coll == TT_SENDRECV)
		k.op = k.root = 0; /* both ends of a message mean the same call */
	return tt_hash64(&k, sizeof(k), 7);
}

int tt_sig_print(const struct tt_sig *s, char *out, size_t n)
{
	const char *type = tt_type_name((tuttiDataType_t)s->type);

	if (s->coll == TT_SENDRECV)
		return snprintf(out, n, "%s #%u(count %llu, %s, peer %d)", s->op ? "Send" : "Recv", s->seq,
				(unsigned long long)s->count, type, s->root);
	if (s->coll == TT_BARRIER)
		return snprintf(out, n, "Barrier #%u", s->seq);
	return snprintf(out, n, "%s #%u(count %llu, %s, op %s, root %d)", tt_coll_name(s->coll), s->seq,
			(unsigned long long)s->count, type, s->op < 0 ? "none" : tt_op_name(s->op), s->root);
}

const char *tt_comm_who(const struct tuttiComm *c, int rank, char *out, size_t n)
{
	const struct tt_proc *p = &c->procs[c->proc_of[rank]];

	snprintf(out, n, "rank %d (%s, pid %u)", rank, p->host, p->pid);
	return out;
}

/* ---- the sticky error ---- */

static void wake(struct tuttiComm *c)
{
	uint64_t one = 1;

	atomic_fetch_add_explicit(&c->events, 1, memory_order_release);
	if (write(c->wake_fd, &one, sizeof(one)) < 0)
		return; /* full: it is awake */
}

static void tell_procs(struct tuttiComm *c, const struct message *m, uint64_t except)
{
	uint64_t self = tt_node_self()->id;

	for (int i = 0; i < c->nprocs; i++)
		if (c->procs[i].id != self && c->procs[i].id != except)
			tt_node_send(c->procs[i].id, m->what, m, sizeof(*m)); /* those not met hear it of others */
}

static void fail_locally(const struct message *m);

static tuttiResult_t fail(struct tuttiComm *c, bool quiet, bool said, struct message *m)
{
	tuttiResult_t r = (tuttiResult_t)m->result;
	bool first = false;

	pthread_mutex_lock(&c->lock);
	if (!atomic_load_explicit(&c->error, memory_order_acquire)) {
		snprintf(c->text, sizeof(c->text), "%s", m->text);
		atomic_store_explicit(&c->error, (int)r, memory_order_release);
		first = true;
	}
	pthread_mutex_unlock(&c->lock);
	if (first) {
		if (!said)
			tt_log(r == tuttiAborted ? TT_LOG_INFO : TT_LOG_ERROR, "comm", "%s%s%s", c->name,
			       *c->name ? ": " : "", m->text);
		wake(c);
		if (!quiet && c->nranks > 1) { /* quiet: init may still be writing these */
			m->comm = c->id;
			tell_procs(c, m, 0);
			fail_locally(m);
		}
	}
	return (tuttiResult_t)atomic_load_explicit(&c->error, memory_order_acquire);
}

tuttiResult_t tt_comm_fail(struct tuttiComm *c, bool quiet, tuttiResult_t r, const char *fmt, ...)
{
	struct message m = { .from = c->rank, .to = -1, .what = MSG_FAILED, .result = (uint32_t)r };
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(m.text, sizeof(m.text), fmt, ap);
	va_end(ap);
	return fail(c, quiet, false, &m);
}

tuttiResult_t tt_comm_pass(struct tuttiComm *c, bool quiet, tuttiResult_t r)
{
	struct message m = { .from = c->rank, .to = -1, .what = MSG_FAILED, .result = (uint32_t)r };

	snprintf(m.text, sizeof(m.text), "%s", tt_last_error());
	return fail(c, quiet, tt_last_error_said(), &m);
}

tuttiResult_t tt_comm_error(struct tuttiComm *c)
{
	tuttiResult_t r = (tuttiResult_t)atomic_load_explicit(&c->error, memory_order_acquire);

	if (r == tuttiSuccess)
		return r;
	pthread_mutex_lock(&c->lock);
	tt_note_error(r, "%s", c->text);
	pthread_mutex_unlock(&c->lock);
	return r;
}

/* Another rank failed: its words, under our name for it. */
static void hear_failure(struct tuttiComm *c, const struct message *m)
{
	tuttiResult_t r = (tuttiResult_t)m->result;

	if (c->rank == m->from || atomic_load_explicit(&c->error, memory_order_acquire))
		return;
	if (r == tuttiPeerDead || r == tuttiMismatch)
		tt_comm_fail(c, true, r, "%s", m->text);
	else
		tt_comm_fail(c, true, tuttiRemoteError, "rank %d failed first: %s", m->from, m->text);
}

static void fail_locally(const struct message *m)
{
	struct tuttiComm *list[64];
	int n = 0;

	pthread_mutex_lock(&all.lock);
	for (struct tuttiComm *c = all.first; c; c = c->next)
		if (c->id == m->comm && n < 64 && c->rank != m->from &&
		    !atomic_load_explicit(&c->error, memory_order_acquire)) {
			atomic_fetch_add(&c->inside, 1);
			list[n++] = c;
		}
	pthread_mutex_unlock(&all.lock);
	for (int i = 0; i < n; i++) {
		hear_failure(list[i], m);
		atomic_fetch_sub(&list[i]->inside, 1);
	}
	if (n == 64)
		fail_locally(m);
}

/* ---- differing calls ---- */

enum { SIG_WORDS = sizeof(struct tt_sig) / 8 };

void tt_comm_record(struct tuttiComm *c, const struct tt_sig *sig)
{
	bool p2p = sig->coll == TT_SENDRECV;
	struct tt_sig_slot *s = p2p ? &c->p2p_sigs[c->p2p_at++ % 16] : &c->sigs[sig->seq % 32];
	uint32_t version = atomic_load_explicit(&s->version, memory_order_relaxed);
	uint64_t words[SIG_WORDS];

	memcpy(words, sig, sizeof(words));
	atomic_store_explicit(&s->version, version + 1, memory_order_relaxed);
	for (int i = 0; i < SIG_WORDS; i++)
		atomic_store_explicit(&s->words[i], words[i], memory_order_release); /* behind the odd version */
	atomic_store_explicit(&s->version, version + 2, memory_order_release);
}

static struct tt_sig recorded(struct tt_sig_slot *s)
{
	uint64_t words[SIG_WORDS];
	struct tt_sig sig;

	for (;;) {
		uint32_t version = atomic_load_explicit(&s->version, memory_order_acquire);

		for (int i = 0; i < SIG_WORDS; i++)
			words[i] = atomic_load_explicit(&s->words[i], memory_order_acquire);
		if (!(version & 1) && version == atomic_load_explicit(&s->version, memory_order_relaxed))
			break;
		tt_pause();
	}
	memcpy(&sig, words, sizeof(sig));
	return sig;
}

/* What this rank called where `from` called `sig`. */
static int look_up(struct tuttiComm *c, int from, const struct tt_sig *sig, struct tt_sig *mine)
{
	int saw = NOT_YET;

	if (sig->coll != TT_SENDRECV) {
		*mine = recorded(&c->sigs[sig->seq % 32]);
		if (mine->seq == sig->seq && mine->seq)
			saw = tt_sig_hash(mine) == tt_sig_hash(sig) ? SAW_SAME : SAW_OTHER;
	}
	for (int i = 0; sig->coll == TT_SENDRECV && i < 16; i++) {
		struct tt_sig s = recorded(&c->p2p_sigs[i]);

		if (s.seq == sig->seq && s.coll == TT_SENDRECV && s.root == from && !s.op != !sig->op) {
			*mine = s;
			saw = tt_sig_hash(&s) == tt_sig_hash(sig) ? SAW_SAME : SAW_OTHER;
		}
	}
	return saw;
}

tuttiResult_t tt_comm_mismatch(struct tuttiComm *c, int a, const struct tt_sig *called, int b,
			       const struct tt_sig *other)
{
	char one[128], two[128];

	tt_sig_print(called, one, sizeof(one));
	tt_sig_print(other, two, sizeof(two));
	return tt_comm_fail(c, false, tuttiMismatch,
			    "ranks called different things: rank %d called %s, rank %d called %s; all ranks must make "
			    "the same calls in the same order", a, one, b, two);
}

static void route(struct tuttiComm *c, int peer, struct message *m);

/* The last words of members that are gone, for those who ask them later. */
static struct {
	pthread_mutex_t lock;
	struct message said[128];
	uint32_t n;
} graves = { .lock = PTHREAD_MUTEX_INITIALIZER };

static void last_words(struct tuttiComm *c, struct message *m)
{
	*m = (struct message){ .comm = c->id, .from = c->rank, .to = -1, .what = MSG_BYE,
			       .sig = { .seq = atomic_load(&c->seq) } };
	m->result = (uint32_t)atomic_load_explicit(&c->error, memory_order_acquire);
	if (!m->result)
		return;
	m->what = MSG_FAILED;
	pthread_mutex_lock(&c->lock);
	snprintf(m->text, sizeof(m->text), "%.*s", (int)sizeof(m->text) - 1, c->text);
	pthread_mutex_unlock(&c->lock);
}

void tt_comm_bury(struct tuttiComm *c)
{
	pthread_mutex_lock(&graves.lock);
	last_words(c, &graves.said[graves.n++ % 128]);
	pthread_mutex_unlock(&graves.lock);
}

static bool find_grave(uint64_t comm, int rank, struct message *m)
{
	bool found = false;

	pthread_mutex_lock(&graves.lock);
	for (uint32_t i = 0; i < 128 && i < graves.n && !found; i++)
		if (graves.said[i].comm == comm && graves.said[i].from == rank) {
			*m = graves.said[i];
			found = true;
		}
	pthread_mutex_unlock(&graves.lock);
	return found;
}

/* ---- who has not called ----
 * A rank may wait for one that waits for one that has not called: all of them must know, or they take it for data
 * that stopped. Who hears "not yet" itself tells those who ask it, they tell theirs, and so on. */

#define ABSENT_FOR 2500000000ull

static void tell_absent(struct tuttiComm *c, int to, const struct tt_absent *a)
{
	struct message m = { .comm = c->id, .from = c->rank, .to = to, .what = MSG_ABSENT,
			     .result = (uint32_t)a->rank, .sig = { .seq = a->seq },
			     .theirs = { .seq = a->stamp, .root = a->origin } };

	route(c, to, &m);
}

/* A total order, or two ranks' news would chase each other for ever. */
static bool newer(const struct tt_absent *a, const struct tt_absent *b)
{
	if (a->seq != b->seq)
		return a->seq > b->seq;
	return a->stamp != b->stamp ? a->stamp > b->stamp : a->origin > b->origin;
}

static void note_absent(struct tuttiComm *c, const struct tt_absent *a)
{
	int to[32], n = 0;
	bool news;

	pthread_mutex_lock(&c->lock);
	news = newer(a, &c->absent);
	if (news) {
		c->absent = *a;
		c->absent.heard_ns = tt_now_ns();
		n = c->asked_seq == a->seq ? c->naskers : 0;
		memcpy(to, c->askers, sizeof(to));
	}
	pthread_mutex_unlock(&c->lock);
	for (int i = 0; i < n; i++)
		tell_absent(c, to[i], a);
	if (news)
		wake(c);
}

static void hear_not_yet(struct tuttiComm *c, const struct message *m)
{
	struct tt_absent a = { .seq = m->theirs.seq, .rank = m->from, .origin = c->rank };

	if (m->theirs.coll == TT_SENDRECV)
		return;
	pthread_mutex_lock(&c->lock);
	a.stamp = c->absent.seq == a.seq ? c->absent.stamp + 1 : 1;
	pthread_mutex_unlock(&c->lock);
	note_absent(c, &a);
}

static void hear_absent(struct tuttiComm *c, const struct message *m)
{
	struct tt_absent a = { .seq = m->sig.seq, .stamp = m->theirs.seq, .rank = (int)m->result,
			       .origin = m->theirs.root };

	if (a.rank >= 0 && a.rank < c->nranks && a.origin != c->rank)
		note_absent(c, &a);
}

/* It has asked after this call: it waits for this rank. */
static void note_asker(struct tuttiComm *c, int rank, uint32_t seq)
{
	struct tt_absent a = { .rank = -1 };
	int i = 0;

	pthread_mutex_lock(&c->lock);
	if (c->asked_seq != seq)
		c->naskers = 0;
	c->asked_seq = seq;
	while (i < c->naskers && c->askers[i] != rank)
		i++;
	if (i == c->naskers && i < 32)
		c->askers[c->naskers++] = rank;
	if (c->absent.seq == seq && tt_now_ns() - c->absent.heard_ns < ABSENT_FOR)
		a = c->absent;
	pthread_mutex_unlock(&c->lock);
	if (a.rank >= 0)
		tell_absent(c, rank, &a);
}

int tt_comm_absent(struct tuttiComm *c, uint32_t seq)
{
	int rank = -1;

	pthread_mutex_lock(&c->lock);
	if (c->absent.seq == seq && c->absent.heard_ns && tt_now_ns() - c->absent.heard_ns < ABSENT_FOR)
		rank = c->absent.rank;
	pthread_mutex_unlock(&c->lock);
	return rank;
}

static void answer(struct tuttiComm *c, const struct message *q)
{
	struct message m = { .comm = c->id, .from = c->rank, .to = q->from, .what = MSG_ANSWER,
			     .theirs = q->sig };

	if (atomic_load_explicit(&c->error, memory_order_acquire)) {
		last_words(c, &m);
		m.to = q->from;
		route(c, q->from, &m);
		return;
	}
	m.result = (uint32_t)look_up(c, q->from, &q->sig, &m.sig);
	if (m.result == SAW_OTHER)
		tt_comm_mismatch(c, c->rank, &m.sig, q->from, &q->sig);
	route(c, q->from, &m);
	if (m.result == SAW_SAME && q->sig.coll != TT_SENDRECV)
		note_asker(c, q->from, q->sig.seq);
}

static void hear_answer(struct tuttiComm *c, const struct message *m)
{
	if (m->result == SAW_OTHER)
		tt_comm_mismatch(c, c->rank, &m->theirs, m->from, &m->sig);
	if (m->result == NOT_YET)
		hear_not_yet(c, m);
	pthread_mutex_lock(&c->lock);
	if (m->result == SAW_SAME && c->absent.rank == m->from && c->absent.seq == m->theirs.seq)
		c->absent.heard_ns = 0; /* it has come */
	c->answer.there = m->result != NOT_YET;
	c->answer.from = m->from;
	c->answer.sig = m->theirs;
	pthread_mutex_unlock(&c->lock);
	wake(c);
}

static void hear_goodbye(struct tuttiComm *c, const struct message *m)
{
	if (m->from < 0 || m->from >= c->nranks)
		return;
	atomic_store(&c->left_seq[m->from], m->sig.seq);
	if (atomic_load(&c->state[m->from]) == TT_ALIVE)
		atomic_store(&c->state[m->from], TT_LEFT);
	wake(c);
}

/* How far this rank is: what the asker has sent until then has been taken. */
static void tell_where(struct tuttiComm *c, int to)
{
	struct message m = { .comm = c->id, .from = c->rank, .to = to, .what = MSG_HERE };

	m.sig.seq = atomic_load_explicit(&c->done_seq, memory_order_acquire);
	m.sig.count = atomic_load_explicit(&c->received[to], memory_order_acquire);
	route(c, to, &m);
}

static void hear_where(struct tuttiComm *c, const struct message *m)
{
	pthread_mutex_lock(&c->lock);
	c->where_from = m->from;
	c->where_seq = m->sig.seq;
	c->where_count = m->sig.count;
	pthread_mutex_unlock(&c->lock);
	wake(c);
}

static void deliver(struct tuttiComm *c, const struct message *m)
{
	if (m->from < 0 || m->from >= c->nranks)
		return;
	switch (m->what) {
	case MSG_ASK:
		answer(c, m);
		break;
	case MSG_ANSWER:
		hear_answer(c, m);
		break;
	case MSG_BYE:
		hear_goodbye(c, m);
		break;
	case MSG_FAILED:
		hear_failure(c, m);
		break;
	case MSG_WHERE:
		tell_where(c, m->from);
		break;
	case MSG_HERE:
		hear_where(c, m);
		break;
	case MSG_ABSENT:
		hear_absent(c, m);
		break;
	default:
		break;
	}
}

/* Finds a member and keeps it from being freed. */
static struct tuttiComm *hold(uint64_t id, int rank)
{
	struct tuttiComm *c;

	pthread_mutex_lock(&all.lock);
	for (c = all.first; c; c = c->next)
		if (c->id == id && c->rank == rank) {
			atomic_fetch_add(&c->inside, 1);
			break;
		}
	pthread_mutex_unlock(&all.lock);
	return c;
}

/* `proc`: where the message came from, 0: this process. */
static void deliver_here(const struct message *m, uint64_t proc)
{
	struct tuttiComm *c = hold(m->comm, m->to);
	struct message words;

	if (c) {
		deliver(c, m);
		atomic_fetch_sub(&c->inside, 1);
	} else if ((m->what == MSG_ASK || m->what == MSG_WHERE) && find_grave(m->comm, m->to, &words)) {
		words.to = m->from;
		if (proc)
			tt_node_send(proc, words.what, &words, sizeof(words));
		else
			deliver_here(&words, 0);
	}
}

static void route(struct tuttiComm *c, int peer, struct message *m)
{
	const struct tt_proc *p = &c->procs[c->proc_of[peer]];

	if (p->id == tt_node_self()->id)
		deliver_here(m, 0);
	else
		tt_node_send(p->id, m->what, m, sizeof(*m));
}

void tt_comm_ask(struct tuttiComm *c, int peer, const struct tt_sig *mine)
{
	struct message m = { .comm = c->id, .from = c->rank, .to = peer, .what = MSG_ASK, .sig = *mine };

	route(c, peer, &m);
}

/* Asks whether `peer` called the same, and waits for the verdict. */
static bool differs_at(struct tuttiComm *c, int peer, const struct tt_sig *mine, uint64_t end)
{
	bool same = false;

	tt_comm_ask(c, peer, mine);
	while (!same && !atomic_load_explicit(&c->error, memory_order_acquire) && tt_now_ns() < end) {
		pthread_mutex_lock(&c->lock);
		same = c->answer.there && c->answer.from == peer && c->answer.sig.seq == mine->seq &&
		       c->answer.sig.coll == mine->coll;
		pthread_mutex_unlock(&c->lock);
		if (!same)
			tt_net_sleep(NULL, 0, c->wake_fd, 10);
	}
	return atomic_load_explicit(&c->error, memory_order_acquire) != tuttiSuccess;
}

/* A message of another call came from `peer`: finds out which call of this rank, the present one or one of
 * those before it, was another on the peer. */
bool tt_comm_differs(struct tuttiComm *c, int peer, const struct tt_sig *mine, uint64_t wait_ns)
{
	uint64_t end = tt_now_ns() + wait_ns;
	struct tt_sig sig = *mine;

	for (uint32_t back = 0; back < 16 && tt_now_ns() < end; back++) {
		if (differs_at(c, peer, &sig, end))
			return true;
		if (mine->coll == TT_SENDRECV || mine->seq < back + 2)
			break;
		sig = recorded(&c->sigs[(mine->seq - back - 1) % 32]);
	}
	return false;
}

/* ---- what the watcher tells ---- */

static void forget_process(struct tuttiComm *c, uint64_t proc, bool dead, const char *why)
{
	for (int i = 0; i < c->nranks; i++) {
		if (c->procs[c->proc_of[i]].id != proc)
			continue;
		if (dead && atomic_load(&c->state[i]) == TT_ALIVE) {
			pthread_mutex_lock(&c->lock);
			if (c->dead_rank < 0) {
				c->dead_rank = i;
				snprintf(c->dead_why, sizeof(c->dead_why), "%s", why);
			}
			pthread_mutex_unlock(&c->lock);
			atomic_store(&c->state[i], TT_DEAD);
		} else if (atomic_load(&c->state[i]) == TT_ALIVE) {
			atomic_store(&c->left_seq[i], 0); /* left without a word about this communicator */
			atomic_store(&c->state[i], TT_LEFT);
		}
		wake(c);
	}
}

/* Somebody asks for news while nothing runs: a death that no operation has met yet. */
void tt_comm_notice(struct tuttiComm *c)
{
	char who[120], why[sizeof(c->dead_why)];
	int rank;

	if (atomic_load_explicit(&c->finished, memory_order_acquire) != c->issued)
		return;
	pthread_mutex_lock(&c->lock);
	rank = c->dead_rank;
	memcpy(why, c->dead_why, sizeof(why));
	pthread_mutex_unlock(&c->lock);
	if (rank >= 0)
		tt_comm_fail(c, false, tuttiPeerDead, "%s died while rank %d was idle after operation #%u: %s; abort "
			     "this communicator and make a new one of the survivors",
			     tt_comm_who(c, rank, who, sizeof(who)), c->rank, atomic_load(&c->seq), why);
}

static void gone(void *ctx, uint64_t proc, bool dead, const char *why)
{
	pthread_mutex_lock(&all.lock);
	for (struct tuttiComm *c = all.first; c; c = c->next)
		forget_process(c, proc, dead, why);
	pthread_mutex_unlock(&all.lock);
}

static void pass_on(const struct message *m, uint64_t proc)
{
	struct tuttiComm *c;

	pthread_mutex_lock(&all.lock);
	for (c = all.first; c; c = c->next)
		if (c->id == m->comm && !atomic_load_explicit(&c->error, memory_order_acquire))
			break;
	if (c)
		tell_procs(c, m, proc);
	pthread_mutex_unlock(&all.lock);
	fail_locally(m);
}

static void message(void *ctx, uint64_t proc, uint32_t type, const void *p, size_t n)
{
	struct message m;

	if (n != sizeof(m))
		return;
	memcpy(&m, p, sizeof(m));
	m.text[sizeof(m.text) - 1] = 0;
	m.what = type;
	if (type == MSG_FAILED && m.to < 0) {
		pass_on(&m, proc);
		return;
	}
	if (m.to >= 0) {
		deliver_here(&m, proc);
		return;
	}
	pthread_mutex_lock(&all.lock);
	for (struct tuttiComm *c = all.first; c; c = c->next)
		if (c->id == m.comm && type == MSG_BYE && c->rank != m.from)
			deliver(c, &m);
	pthread_mutex_unlock(&all.lock);
}

const struct tt_node_events tt_comm_events = { .gone = gone, .message = message };

static bool has_taken(struct tuttiComm *c, int peer)
{
	uint32_t seq = c->by_links ? atomic_load(c->by_links) : atomic_load(&c->seq);
	bool taken;

	if (atomic_load(&c->state[peer]) != TT_ALIVE || atomic_load(&c->error))
		return true;
	pthread_mutex_lock(&c->lock);
	taken = c->where_from == peer && c->where_seq >= seq &&
		c->where_count >= c->p2p_seq[2 * peer + 1];
	pthread_mutex_unlock(&c->lock);
	return taken;
}

/* Links end with this rank: stays until the peers have taken what it sent, or the time is over. */
void tt_comm_linger(struct tuttiComm *c, uint64_t ns)
{
	uint64_t end = tt_now_ns() + ns;

	for (int i = 0; c->links && i < c->nranks; i++) {
		struct message m = { .comm = c->id, .from = c->rank, .to = i, .what = MSG_WHERE };

		if (!c->links[i] || i == c->rank)
			continue;
		pthread_mutex_lock(&c->lock);
		c->where_from = -1;
		pthread_mutex_unlock(&c->lock);
		while (!has_taken(c, i) && tt_now_ns() < end) {
			route(c, i, &m);
			if (!has_taken(c, i))
				tt_net_sleep(NULL, 0, c->wake_fd, 5);
		}
	}
}

/* Leaving is not dying: the others hear up to which operation this rank took part. */
void tt_comm_goodbye(struct tuttiComm *c)
{
	struct message m = { .comm = c->id, .from = c->rank, .to = -1, .what = MSG_BYE,
			     .sig = { .seq = atomic_load(&c->seq) } };

	if (!c->procs || c->nranks < 2 || atomic_load(&c->error))
		return;
	tell_procs(c, &m, 0);
	pthread_mutex_lock(&all.lock);
	for (struct tuttiComm *o = all.first; o; o = o->next)
		if (o->id == c->id && o != c)
			deliver(o, &m);
	pthread_mutex_unlock(&all.lock);
}

/* A process that ends by exit() with live communicators leaves; it does not die. Bounded: peers that are busy
 * do not keep it for longer than this. */
__attribute__((destructor)) static void leave_at_exit(void)
{
	struct tuttiComm *list[64];
	int n = 0;

	if (atomic_load(&tt_forked))
		return;
	pthread_mutex_lock(&all.lock);
	for (struct tuttiComm *c = all.first; c && n < 64; c = c->next) {
		atomic_fetch_add(&c->inside, 1);
		list[n++] = c;
	}
	pthread_mutex_unlock(&all.lock);
	for (int i = 0; i < n; i++) {
		if (!atomic_load(&list[i]->error))
			tt_comm_linger(list[i], 1000000000ull / (uint64_t)n);
		tt_comm_goodbye(list[i]);
	}
	if (n)
		tt_node_exit(300000000ull);
}
