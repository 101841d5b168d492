/* Device links: slots in device memory of the receiver, words in pinned memory, one writer each. A word counts
 * messages for the life of the group and is compared cyclically, so that calls need not know of each other.
 * SPDX-License-Identifier: Apache-2.0 */
#include "peer.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "boot.h"

#define LINE 16             /* words in a cache line: writers do not share one */
#define CALLS 8             /* of each rank that the others see, in a line */
#define FIRST (UINT32_MAX - 40) /* words begin here, so that each link soon counts beyond their end */
#define RELEASED (1u << 30) /* ahead of all that is enqueued */
enum { PATIENT_MS = 2000, BRIEF_MS = 200 };

struct tt_peer_dir {
	const struct tt_mem_kind *kind;
	_Atomic uint32_t *mine, *theirs; /* what this rank's queue writes, and what it waits for */
	char *slots;                     /* NULL: no such link */
	size_t slot;
	bool is_send;
	const void *line;                /* the queue of the last message */
	_Atomic uint64_t *said, *heard;  /* the last Sends or Recvs, this end's and the other's */
	uint32_t chain;                  /* a hash of all of this end's */
	_Atomic uint32_t pos;            /* messages enqueued */
};

struct tt_peers {
	struct tt_peers *next; /* of those that have failed */
	const struct tt_mem_kind *kind;
	void *where;
	tuttiStream_t queue;
	bool blocks; /* links of theirs as well */
	int n, me, *ranks;
	uint64_t *procs, users; /* users: a bit for each that has this rank's slots open */
	uint32_t types;
	size_t slot, words_size;
	_Atomic uint32_t *words;
	bool pinned;
	struct tt_share share[TT_PEERS_MAX];
	void *open[TT_PEERS_MAX]; /* the others' slots, as this rank sees them */
	struct tt_peer_dir *dirs; /* [peer][lane][is_send] */
	_Atomic bool failed;
};

static struct {
	pthread_mutex_t lock;
	struct tt_peers *first;
	_Atomic int count;
} failed = { .lock = PTHREAD_MUTEX_INITIALIZER };

/* ---- where things are ---- */

/* The first line says who has failed; then each rank has one, whether it has closed and how its blocks come along, and
 * one for its last calls; two for each direction follow, and two more for its last messages. */
static size_t words_of(int n)
{
	return (1 + 2 * (size_t)n + 2 * (size_t)n * (size_t)n * (TT_PEER_LANES + 1)) * LINE * sizeof(uint32_t);
}

static _Atomic uint32_t *closed(const struct tt_peers *p, int i)
{
	return p->words + LINE * (1 + 2 * (size_t)i);
}

static _Atomic uint32_t *beat_of(const struct tt_peers *p, int i)
{
	return closed(p, i) + 1;
}

static _Atomic uint64_t *call_of(const struct tt_peers *p, int i, uint32_t seq)
{
	return (_Atomic uint64_t *)(p->words + LINE * (2 + 2 * (size_t)i)) + seq % CALLS;
}

static _Atomic uint32_t *word(const struct tt_peers *p, int from, int to, uint32_t lane, bool receivers)
{
	size_t n = (size_t)p->n, at = ((size_t)from * n + (size_t)to) * TT_PEER_LANES + lane;

	return p->words + LINE * (1 + 2 * n + 2 * at + receivers);
}

static _Atomic uint64_t *messages_of(const struct tt_peers *p, int from, int to, bool receivers)
{
	size_t at = (size_t)from * (size_t)p->n + (size_t)to;

	return (_Atomic uint64_t *)(word(p, p->n, 0, 0, receivers) + LINE * 2 * at);
}

static size_t slots_of(const struct tt_peers *p, int from, uint32_t lane)
{
	return ((size_t)from * TT_PEER_LANES + lane) * TT_PEER_SLOTS * p->slot;
}

/* Behind the slots: for each rank and lane the ends of both directions, packets, and the slots of blocks. */
static size_t fresh_of(const struct tt_peers *p) /* bytes that begin as zeros */
{
	return (size_t)p->n * TT_PEER_PIPES * (2 * sizeof(struct tt_dev_end) + TT_DEV_PACKETS_BYTES);
}

static size_t bytes_of(const struct tt_peers *p)
{
	size_t pipes = p->blocks ? fresh_of(p) + (size_t)p->n * TT_PEER_PIPES * TT_DEV_SLOTS_BYTES : 0;

	return slots_of(p, p->n, 0) + pipes;
}

static struct tt_peer_dir *dir_of(const struct tt_peers *p, int peer, uint32_t lane, bool is_send)
{
	return &p->dirs[((size_t)peer * TT_PEER_LANES + lane) * 2 + is_send];
}

void *tt_peers_where(const struct tt_peers *p)
{
	return p->where;
}

tuttiStream_t tt_peers_queue(const struct tt_peers *p)
{
	return p->queue;
}

const struct tt_mem_kind *tt_peers_kind(const struct tt_peers *p)
{
	return p->kind;
}

bool tt_peers_reduce(const struct tt_peers *p, tuttiDataType_t type)
{
	return p->types >> type & 1;
}

size_t tt_peers_message(const struct tt_peers *p)
{
	return p->slot * (TT_PEER_SLOTS / 2);
}

struct tt_peer_dir *tt_peers_dir(struct tt_peers *p, int rank, uint32_t lane, bool is_send)
{
	struct tt_peer_dir *d;

	if (lane == TT_MAX_LANES) /* of Send and Recv */
		lane = TT_PEER_LANES - 1;
	else if (lane >= TT_PEER_LANES - 1)
		return NULL;
	for (int i = 0; i < p->n; i++)
		if (p->ranks[i] == rank) {
			d = dir_of(p, i, lane, is_send);
			return d->slots ? d : NULL;
		}
	return NULL;
}

/* ---- opening ---- */

static void copy_config(struct tt_peers *p, const struct tt_peers_config *g)
{
	p->kind = g->kind;
	p->where = g->where;
	p->n = g->n;
	p->me = g->me;
	p->blocks = g->blocks;
	p->slot = (g->message + 4096 + 63) & ~(size_t)63; /* windows are rounded to lines */
	p->types = UINT32_MAX;
	for (int i = 0; i < g->n; i++) {
		p->ranks[i] = g->members[i].rank;
		p->procs[i] = g->members[i].proc;
		p->types &= g->members[i].device.types;
	}
}

static struct tt_peers *new_peers(const struct tt_peers_config *g)
{
	size_t n = (size_t)g->n;
	struct tt_peers *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	p->ranks = calloc(n, sizeof(*p->ranks));
	p->procs = calloc(n, sizeof(*p->procs));
	p->dirs = calloc(n * TT_PEER_LANES * 2, sizeof(*p->dirs));
	if (p->ranks && p->procs && p->dirs) {
		copy_config(p, g);
		return p;
	}
	free(p->ranks);
	free(p->procs);
	free(p->dirs);
	free(p);
	return NULL;
}

static void free_peers(struct tt_peers *p)
{
	free(p->ranks);
	free(p->procs);
	free(p->dirs);
	free(p);
}

static bool is_here(const struct tt_peers *p, int i)
{
	return p->procs[i] == p->procs[p->me];
}

static tuttiResult_t give_slots(const struct tt_peers *p, struct tt_share *s, int *fd)
{
	tuttiResult_t r = tuttiSuccess;

	TRY(p->kind->sharing->give(bytes_of(p), s, fd));
	if (p->blocks)
		r = p->kind->sharing->clear((char *)s->at + slots_of(p, p->n, 0), fresh_of(p));
	if (r == tuttiSuccess)
		return r;
	p->kind->sharing->take_back(s);
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
	return r;
}

/* Between enter and leave. Whoever has none can still send. */
static void make_slots(struct tt_peers *p, int *fd)
{
	struct tt_share *s = &p->share[p->me];

	if (give_slots(p, s, fd) == tuttiSuccess)
		return;
	*s = (struct tt_share){ .way = TT_SHARE_NONE };
	tt_log(TT_LOG_WARN, "device", "rank %d has no device memory to share: %s; what it receives goes by the host",
	       p->ranks[p->me], tt_last_error());
}

static tuttiResult_t map_words(struct tt_peers *p, int fd)
{
	void *at;

	p->words_size = words_of(p->n);
	at = mmap(NULL, p->words_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (at == MAP_FAILED)
		return tt_note_error(tuttiSystemError, "mmap: %s", strerror(errno));
	p->words = at;
	for (_Atomic uint32_t *w = word(p, 0, 0, 0, false); p->me == 0 && w < word(p, p->n, 0, 0, false); w += LINE)
		atomic_store_explicit(w, FIRST, memory_order_relaxed);
	TRY(p->kind->sharing->pin(at, p->words_size));
	p->pinned = true;
	return tuttiSuccess;
}

/* One process and one device have better ways. */
static bool is_wanted(const struct tt_peers *p, const struct tt_peers_config *g, int i)
{
	const uint8_t *uuid = g->members[i].device.uuid;

	if (i == p->me || p->share[i].way == TT_SHARE_NONE)
		return false;
	return !is_here(p, i) || memcmp(uuid, g->members[p->me].device.uuid, 16);
}

static void say_apart(const struct tt_peers *p, const struct tt_peers_config *g, int i, const char *why)
{
	tt_log(TT_LOG_WARN, "device", "rank %d on device %s and rank %d on device %s do not copy to each other, but by "
	       "the host: %s", p->ranks[p->me], g->members[p->me].device.words, p->ranks[i],
	       g->members[i].device.words, why);
}

/* Of two the first tries, for both. */
static bool is_mine_to_try(const struct tt_peers *p, const struct tt_peers_config *g, int i)
{
	const uint8_t *mine = g->members[p->me].device.uuid, *theirs = g->members[i].device.uuid;

	return p->me < i && memcmp(mine, theirs, 16) && p->kind->sharing->reaches(theirs);
}

static uint64_t refused(const struct tt_peers *p, const struct tt_peers_config *g)
{
	uint64_t mask = 0;
	char why[160];

	for (int i = 0; i < p->n; i++)
		if (is_mine_to_try(p, g, i) && !tt_pair_works(g->members[p->me].device.uuid,
							      g->members[i].device.uuid, why, sizeof(why))) {
			say_apart(p, g, i, why);
			mask |= 1ull << i;
		}
	return mask;
}

static uint64_t open_slots(struct tt_peers *p, const struct tt_peers_config *g, const int *fds, uint64_t but)
{
	const struct tt_mem_sharing *s = p->kind->sharing;
	uint64_t mask = 0;

	for (int i = 0; i < p->n; i++) {
		if (!is_wanted(p, g, i) || but >> i & 1)
			continue;
		tt_note_error(tuttiUnsupported, "the driver says that they do not reach each other");
		if (s->reaches(g->members[i].device.uuid) &&
		    s->open(&p->share[i], fds[i], is_here(p, i), &p->open[i]) == tuttiSuccess)
			mask |= 1ull << i;
		else
			say_apart(p, g, i, tt_last_error());
	}
	return mask;
}

static struct tt_peer_says take_table(struct tt_peers *p, const struct tt_peers_config *g,
				      const struct tt_peer_table *t)
{
	tuttiResult_t r = map_words(p, t->words_fd);
	struct tt_peer_says says = { 0 };

	memcpy(p->share, t->shares, sizeof(p->share));
	if (r == tuttiSuccess) {
		says.refuses = refused(p, g);
		says.can = open_slots(p, g, t->fds, says.refuses) | 1ull << p->me;
		return says;
	}
	tt_log(TT_LOG_WARN, "device", "rank %d has no device links: %s", p->ranks[p->me], tt_last_error());
	return says;
}

static bool goes(const struct tt_peer_says *says, int from, int to)
{
	return from != to && says[from].can >> to & 1 && says[to].can >> to & 1 && says[from].can >> from & 1 &&
	       !(says[from].refuses >> to & 1) && !(says[to].refuses >> from & 1);
}

static void make_dir(struct tt_peers *p, int peer, uint32_t lane, bool is_send)
{
	int from = is_send ? p->me : peer, to = is_send ? peer : p->me;
	char *slots = is_send ? p->open[peer] : p->share[p->me].at;

	*dir_of(p, peer, lane, is_send) = (struct tt_peer_dir){
		.kind = p->kind, .is_send = is_send, .slot = p->slot,
		.mine = word(p, from, to, lane, !is_send), .theirs = word(p, from, to, lane, is_send),
		.pos = FIRST, .slots = slots + slots_of(p, from, lane),
		.said = messages_of(p, from, to, !is_send), .heard = messages_of(p, from, to, is_send),
	};
}

/* The same answer on all ranks. */
static bool all_go(const struct tt_peers *p, const struct tt_peer_says *says)
{
	for (int i = 0; i < p->n * p->n; i++)
		if (i / p->n != i % p->n && !goes(says, i / p->n, i % p->n))
			return false;
	return true;
}

/* Returns how many ranks this one sends to or receives from. */
static int make_dirs(struct tt_peers *p, const struct tt_peer_says *says)
{
	int peers = 0;

	for (int i = 0; i < p->n; i++)
		p->users |= i != p->me && says[i].can >> p->me & 1 ? 1ull << i : 0;

	for (int i = 0; i < p->n; i++) {
		bool out = goes(says, p->me, i), in = goes(says, i, p->me);

		for (uint32_t lane = 0; lane < TT_PEER_LANES; lane++) {
			if (out)
				make_dir(p, i, lane, true);
			if (in)
				make_dir(p, i, lane, false);
		}
		peers += out || in;
	}
	p->blocks = p->blocks && all_go(p, says);
	tt_log(TT_LOG_INFO, "device", "rank %d has device links to %d of %d ranks%s", p->ranks[p->me], peers, p->n - 1,
	       p->blocks ? ", for blocks of the devices as well" : "");
	return peers;
}

static tuttiResult_t meet(struct tt_peers *p, const struct tt_peers_config *g, bool *any)
{
	struct tt_peer_table t;
	struct tt_meeting *m = NULL;
	tuttiResult_t r;
	int fd = -1;

	make_slots(p, &fd);
	r = tt_peers_meet(g, words_of(p->n), &p->share[p->me], fd, &t, &m);
	if (r == tuttiSuccess)
		r = tt_peers_agree(m, take_table(p, g, &t), &t);
	tt_peers_part(m, &t);
	*any = r == tuttiSuccess && make_dirs(p, t.says) > 0;
	if (*any)
		r = p->kind->sharing->queue_new(&p->queue);
	return r;
}

tuttiResult_t tt_peers_open(const struct tt_peers_config *g, struct tt_peers **out)
{
	struct tt_peers *p = new_peers(g);
	tuttiResult_t r;
	bool any = false;

	*out = NULL;
	if (!p)
		return tt_fail(tuttiSystemError, "no memory for device links");
	r = p->kind->enter(p->where);
	if (r == tuttiSuccess) {
		r = meet(p, g, &any);
		p->kind->leave();
	}
	if (r == tuttiSuccess && any)
		*out = p;
	else
		(void)tt_peers_close(p, true, true);
	return r;
}

/* ---- enqueueing ---- */

/* A direction is one queue's after the other's, in the order of calls. */
static tuttiResult_t follow(struct tt_peer_dir *d, tuttiStream_t queue, const void *line, uint32_t pos)
{
	bool same = line && line == d->line;

	d->line = line;
	return same ? tuttiSuccess : d->kind->stream_wait(queue, d->mine, pos);
}

static tuttiResult_t enqueue_one(struct tt_peer_dir *d, tuttiStream_t queue, const void *line, char *dst,
				 const char *src, size_t n)
{
	uint32_t pos = atomic_load_explicit(&d->pos, memory_order_relaxed);
	char *slot = d->slots + d->slot * (pos % TT_PEER_SLOTS);

	TRY(follow(d, queue, line, pos));
	TRY(d->kind->stream_wait(queue, d->theirs, d->is_send ? pos + 1 - TT_PEER_SLOTS : pos + 1));
	if (n)
		TRY(d->kind->copy(queue, d->is_send ? slot : dst, d->is_send ? src : slot, n));
	atomic_store_explicit(&d->pos, pos + 1, memory_order_relaxed);
	return d->kind->stream_signal(queue, d->mine, pos + 1);
}

/* One of dst and src is NULL. */
static tuttiResult_t enqueue(struct tt_peer_dir *d, tuttiStream_t queue, const void *line, char *dst, const char *src,
			     size_t n)
{
	size_t at = 0, m;

	do {
		m = tt_min(n - at, d->slot);
		TRY(enqueue_one(d, queue, line, dst ? dst + at : NULL, src ? src + at : NULL, m));
		at += m;
	} while (at < n);
	return tuttiSuccess;
}

tuttiResult_t tt_peer_send(struct tt_peer_dir *d, tuttiStream_t queue, const void *line, const void *src, size_t n)
{
	return enqueue(d, queue, line, NULL, src, n);
}

tuttiResult_t tt_peer_recv(struct tt_peer_dir *d, tuttiStream_t queue, const void *line, void *dst, size_t n)
{
	return enqueue(d, queue, line, dst, NULL, n);
}

/* ---- links of blocks ---- */

bool tt_peers_drive(const struct tt_peers *p)
{
	return p && p->blocks;
}

/* In the memory of rank `at`, towards another. */
static struct tt_dev_link pipe_in(const struct tt_peers *p, int at, int other, uint32_t lane, struct tt_dev_end **ends)
{
	size_t i = (size_t)other * TT_PEER_PIPES + lane, all = (size_t)p->n * TT_PEER_PIPES;
	char *memory = (at == p->me ? (char *)p->share[at].at : p->open[at]) + slots_of(p, p->n, 0);
	char *packets = memory + all * 2 * sizeof(struct tt_dev_end);

	*ends = (struct tt_dev_end *)memory + 2 * i;
	return (struct tt_dev_link){ .packets = (uint64_t *)(packets + i * TT_DEV_PACKETS_BYTES),
				     .slots = packets + all * TT_DEV_PACKETS_BYTES + i * TT_DEV_SLOTS_BYTES };
}

/* A rank has two ends for each: of what it sends, then of what it receives. */
tuttiResult_t tt_peers_pipe(const struct tt_peers *p, int rank, uint32_t lane, bool is_send, struct tt_dev_link *out)
{
	struct tt_dev_end *mine, *theirs;
	struct tt_dev_link here, there;
	int i = 0;

	while (i < p->n && p->ranks[i] != rank)
		i++;
	if (!p->blocks || i == p->n || lane >= TT_PEER_PIPES)
		return tt_fail(tuttiInternalError, "blocks have no link to rank %d on lane %u", rank, lane);
	here = pipe_in(p, p->me, i, lane, &mine);
	there = pipe_in(p, i, p->me, lane, &theirs);
	*out = is_send ? there : here;
	out->mine = &mine[!is_send];
	out->theirs = &theirs[is_send].word;
	return tuttiSuccess;
}

void tt_peers_words(const struct tt_peers *p, const uint32_t **stop, uint32_t **beat)
{
	*stop = (const uint32_t *)p->words;
	*beat = (uint32_t *)beat_of(p, p->me);
}

uint64_t tt_peers_beats(const struct tt_peers *p)
{
	uint64_t sum = 0;

	for (int i = 0; i < p->n; i++) {
		sum += atomic_load_explicit(beat_of(p, i), memory_order_relaxed);
		for (uint32_t k = 0; k < CALLS; k++)
			sum += atomic_load_explicit(call_of(p, i, k), memory_order_relaxed) >> 32;
	}
	return sum;
}

int tt_peers_absent(const struct tt_peers *p, int rank, uint32_t seq)
{
	int n = 0;

	for (int i = 0; i < p->n; i++)
		if (rank < 0 || p->ranks[i] == rank) {
			uint64_t last = atomic_load_explicit(call_of(p, i, seq), memory_order_acquire);

			n += (int32_t)((uint32_t)(last >> 32) - seq) < 0;
		}
	return n;
}

/* ---- looking ---- */

struct tt_peer_seen tt_peer_look(const struct tt_peer_dir *d)
{
	struct tt_peer_seen s = { .enqueued = atomic_load_explicit(&d->pos, memory_order_relaxed),
				  .done = atomic_load_explicit(d->mine, memory_order_acquire),
				  .theirs = atomic_load_explicit(d->theirs, memory_order_acquire) };

	s.waits = s.done != s.enqueued && (d->is_send ? s.done - s.theirs == TT_PEER_SLOTS : s.done == s.theirs);
	return s;
}

int tt_peers_failed(const struct tt_peers *p)
{
	return (int)atomic_load_explicit(&p->words[0], memory_order_acquire) - 1;
}

void tt_peers_note(struct tt_peers *p, uint32_t seq, uint64_t sig)
{
	atomic_store_explicit(call_of(p, p->me, seq), (uint64_t)seq << 32 | (uint32_t)sig, memory_order_release);
}

int tt_peers_differ(const struct tt_peers *p, uint32_t seq, uint64_t sig)
{
	for (int i = 0; i < p->n; i++) {
		uint64_t theirs = atomic_load_explicit(call_of(p, i, seq), memory_order_acquire);

		if (theirs >> 32 == seq && (uint32_t)theirs != (uint32_t)sig)
			return p->ranks[i];
	}
	return -1;
}

void tt_peer_note(struct tt_peer_dir *d, uint32_t seq, uint64_t sig)
{
	d->chain = (uint32_t)tt_hash64(&sig, sizeof(sig), d->chain);
	atomic_store_explicit(&d->said[seq % CALLS], (uint64_t)seq << 32 | d->chain, memory_order_release);
}

bool tt_peer_differs(const struct tt_peer_dir *d, uint32_t seq)
{
	uint64_t mine = atomic_load_explicit(&d->said[seq % CALLS], memory_order_relaxed);
	uint64_t theirs = atomic_load_explicit(&d->heard[seq % CALLS], memory_order_acquire);

	return mine >> 32 == seq && theirs >> 32 == seq && mine != theirs;
}

/* ---- failing ---- */

static void release(struct tt_peers *p)
{
	for (size_t i = 0; i < (size_t)p->n * TT_PEER_LANES * 2; i++) {
		struct tt_peer_dir *d = &p->dirs[i];

		if (d->slots)
			atomic_store_explicit(d->theirs, atomic_load_explicit(&d->pos, memory_order_relaxed) + RELEASED,
					      memory_order_release);
	}
}

/* Who reads a word that a released queue has written reads the first one after it. */
void tt_peers_fail(struct tt_peers *p)
{
	uint32_t none = 0;

	if (atomic_exchange(&p->failed, true))
		return;
	atomic_compare_exchange_strong(&p->words[0], &none, (uint32_t)p->ranks[p->me] + 1);
	release(p);
	pthread_mutex_lock(&failed.lock);
	p->next = failed.first;
	failed.first = p;
	atomic_fetch_add(&failed.count, 1);
	pthread_mutex_unlock(&failed.lock);
}

bool tt_peers_tend(void)
{
	if (!atomic_load_explicit(&failed.count, memory_order_relaxed))
		return false;
	pthread_mutex_lock(&failed.lock);
	for (struct tt_peers *p = failed.first; p; p = p->next)
		release(p);
	pthread_mutex_unlock(&failed.lock);
	return true;
}

static void forget_failure(struct tt_peers *p)
{
	struct tt_peers **at;

	pthread_mutex_lock(&failed.lock);
	for (at = &failed.first; *at && *at != p; at = &(*at)->next)
		;
	if (*at) {
		*at = p->next;
		atomic_fetch_sub(&failed.count, 1);
	}
	pthread_mutex_unlock(&failed.lock);
}

/* ---- closing ---- */

static bool in_use(const struct tt_peers *p)
{
	for (int i = 0; i < p->n; i++)
		if (p->users >> i & 1 && !atomic_load_explicit(closed(p, i), memory_order_acquire) &&
		    (is_here(p, i) || tt_node_alive(p->procs[i], NULL, 0)))
			return true;
	return false;
}

/* Memory that is shared by name must not go before the others have closed it. */
static void take_slots_back(struct tt_peers *p, int ms)
{
	const struct tt_share *s = &p->share[p->me];

	if (s->way == TT_SHARE_NONE)
		return;
	for (int i = 0; i < ms && s->way == TT_SHARE_NAME && in_use(p); i++)
		usleep(1000);
	if (s->way == TT_SHARE_NAME && in_use(p))
		tt_log(TT_LOG_WARN, "device", "rank %d leaves %zu MiB on its device, which another rank still has open",
		       p->ranks[p->me], (size_t)s->n >> 20);
	else
		p->kind->sharing->take_back(s);
}

static void close_slots(struct tt_peers *p, int ms)
{
	const struct tt_mem_sharing *s = p->kind->sharing;

	for (int i = 0; i < p->n; i++)
		if (p->open[i])
			s->close(&p->share[i], is_here(p, i), p->open[i]);
	if (p->words)
		atomic_store_explicit(closed(p, p->me), 1, memory_order_release);
	take_slots_back(p, ms);
	if (p->queue)
		s->queue_free(p->queue);
	if (p->pinned)
		s->unpin((void *)p->words);
}

bool tt_peers_close(struct tt_peers *p, bool drained, bool brief)
{
	if (!p)
		return true;
	if (!drained)
		return false;
	forget_failure(p);
	if (p->kind->enter(p->where) == tuttiSuccess) {
		close_slots(p, brief ? BRIEF_MS : PATIENT_MS);
		p->kind->leave();
	}
	if (p->words)
		munmap((void *)p->words, p->words_size);
	free_peers(p);
	return true;
}
