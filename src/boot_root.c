/* Rendezvous: a root gathers one entry per rank and answers all with one table. Ranks of the root's own process
 * join without a socket. SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "boot_node.h"

#define KEEP_OVER 64 /* roots that are over but still answered for */
#define SCAN_PORTS 16
#define ROOT_NAMES 8 /* addresses of the root's name that are looked at; each with SCAN_PORTS is a target */
_Static_assert(ROOT_NAMES * SCAN_PORTS <= TT_MAX_TARGETS, "every port of every address is tried");

enum root_state { ROOT_GATHER, ROOT_READY, ROOT_FINISHING, ROOT_OVER };

struct member {
	bool joined;
	void *entry;
	size_t size;
	struct tt_conn *conn; /* NULL: a thread of this process */
};

struct tt_root {
	struct tt_root *next;
	uint64_t job;
	enum root_state state;
	int n, joined, users; /* users: threads that wait, or the one that finishes */
	struct member *members;
	uint64_t deadline_ns;
	tt_root_finish finish;
	pthread_cond_t changed;
	tuttiResult_t result;
	char text[1024];
	struct tt_shared *table; /* a whole TABLE frame */
};

/* ---- list of roots ---- */

/* The open one of this job, else the newest that is over. */
static struct tt_root *find_root(uint64_t job)
{
	struct tt_root *r, *over = NULL;

	for (r = tt_node.roots; r != NULL; r = r->next) {
		if (r->job != job)
			continue;
		if (r->state != ROOT_OVER)
			return r;
		if (over == NULL)
			over = r;
	}
	return over;
}

static void drop_entries(struct tt_root *r)
{
	int i;

	for (i = 0; r->members != NULL && i < r->n; i++)
		free(r->members[i].entry);
	free(r->members);
	r->members = NULL;
}

static void free_root(struct tt_root *r)
{
	drop_entries(r);
	tt_shared_drop(r->table);
	pthread_cond_destroy(&r->changed);
	tt_secret_release(r->job);
	free(r);
}

static void prune(void)
{
	struct tt_root **at = &tt_node.roots;
	int over = 0;

	while (*at != NULL) {
		struct tt_root *r = *at;

		if (r->state == ROOT_OVER && r->users == 0 && ++over > KEEP_OVER) {
			*at = r->next;
			free_root(r);
		} else {
			at = &r->next;
		}
	}
}

void tt_roots_free(void)
{
	while (tt_node.roots != NULL) {
		struct tt_root *r = tt_node.roots;

		tt_node.roots = r->next;
		free_root(r);
	}
}

/* ---- words ---- */

static void member_words(const struct tt_root *r, int rank, char *buf, size_t n)
{
	const struct member *m = &r->members[rank];
	struct tt_proc p;
	char who[128];

	if (m->entry != NULL && tt_proc_parse(m->entry, m->size, &p) && p.version == TT_WIRE_VERSION) {
		tt_proc_words(&p, who, sizeof(who));
		snprintf(buf, n, "rank %d (%s)", rank, who);
	} else {
		snprintf(buf, n, "rank %d", rank);
	}
}

static void entry_words(const void *entry, size_t size, char *buf, size_t n)
{
	struct tt_proc p;

	if (tt_proc_parse(entry, size, &p) && p.version == TT_WIRE_VERSION)
		tt_proc_words(&p, buf, n);
	else
		snprintf(buf, n, "another process");
}

/* "5 of 8 ranks joined, missing 2,6,7" */
static void roll_call(const struct tt_root *r, char *buf, size_t n)
{
	size_t at = (size_t)snprintf(buf, n, "%d of %d ranks joined, missing ", r->joined, r->n);
	int i, shown = 0, missing = r->n - r->joined;

	for (i = 0; i < r->n && shown < 32 && at < n; i++)
		if (!r->members[i].joined)
			at += (size_t)snprintf(buf + at, n - at, "%s%d", shown++ > 0 ? "," : "", i);
	if (missing > shown && at < n)
		snprintf(buf + at, n - at, " and %d more", missing - shown);
}

/* ---- the end of a rendezvous ---- */

static void refuse(struct tt_conn *c, tuttiResult_t result, const char *text)
{
	uint32_t code = (uint32_t)result;

	c->root = NULL;
	tt_conn_queue(c, TT_FRAME_REFUSE, &code, sizeof(code), text, strlen(text));
	tt_conn_drain(c);
}

static void answer(struct tt_root *r, struct tt_conn *c)
{
	if (r->result != tuttiSuccess) {
		refuse(c, r->result, r->text);
		return;
	}
	c->root = NULL;
	c->tail = r->table;
	c->tail_at = 0;
	atomic_fetch_add_explicit(&r->table->refs, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&tt_frames_sent, 1, memory_order_relaxed);
	tt_conn_drain(c);
}

/* result and text, or the table, are set: tells all. */
static void end_root(struct tt_root *r)
{
	int i;

	r->state = ROOT_OVER;
	for (i = 0; r->members != NULL && i < r->n; i++)
		if (r->members[i].conn != NULL)
			answer(r, r->members[i].conn);
	drop_entries(r);
	pthread_cond_broadcast(&r->changed);
}

static void fail_root(struct tt_root *r, tuttiResult_t result, const char *text)
{
	r->result = result;
	snprintf(r->text, sizeof(r->text), "%s", text);
	end_root(r);
}

static struct tt_shared *make_table(const void *const *entries, const size_t *sizes, int n,
				    const void *blob, size_t blob_size)
{
	size_t bytes = tt_table_bytes(sizes, n, blob_size);
	struct tt_frame_head h = { .len = (uint32_t)bytes, .type = TT_FRAME_TABLE };
	struct tt_shared *s;

	if (bytes > TT_MAX_TABLE)
		return NULL;
	s = malloc(sizeof(*s) + sizeof(h) + bytes);
	if (s == NULL)
		return NULL;
	atomic_init(&s->refs, 1);
	s->size = sizeof(h) + bytes;
	memcpy(s->bytes, &h, sizeof(h));
	tt_table_write(s->bytes + sizeof(h), entries, sizes, n, blob, blob_size);
	return s;
}

/* Without the lock; entries do not change while the root is finishing. */
static tuttiResult_t build(struct tt_root *r, struct tt_shared **table)
{
	const void **entries = calloc((size_t)r->n, sizeof(*entries));
	size_t *sizes = calloc((size_t)r->n, sizeof(*sizes)), blob_size = 0;
	tuttiResult_t result = tuttiSuccess;
	void *blob = NULL;
	int i;

	if (entries == NULL || sizes == NULL) {
		result = tt_fail(tuttiSystemError, "no memory for the table of %d ranks", r->n);
		goto out;
	}
	for (i = 0; i < r->n; i++) {
		entries[i] = r->members[i].entry;
		sizes[i] = r->members[i].size;
	}
	if (r->finish != NULL)
		TRY_GOTO(result, r->finish(entries, sizes, r->n, &blob, &blob_size), out);
	*table = make_table(entries, sizes, r->n, blob, blob_size);
	if (*table == NULL)
		result = tt_fail(tuttiSystemError, "no memory for the table of %d ranks", r->n);
out:
	free(blob);
	free(entries);
	free(sizes);
	return result;
}

static void finish_root(struct tt_root *r)
{
	struct tt_shared *table = NULL;
	tuttiResult_t result;
	char text[1024];

	r->state = ROOT_FINISHING;
	r->users++;
	pthread_mutex_unlock(&tt_node.lock);
	result = build(r, &table);
	snprintf(text, sizeof(text), "%s", result != tuttiSuccess ? tt_last_error() : "");
	pthread_mutex_lock(&tt_node.lock);
	r->users--;
	r->table = table;
	if (result == tuttiSuccess)
		end_root(r);
	else
		fail_root(r, result, text);
}

static void expire(struct tt_root *r)
{
	char roll[512], text[768];

	roll_call(r, roll, sizeof(roll));
	snprintf(text, sizeof(text), "the init deadline passed: %s; look whether they run and reach the root "
		 "(TUTTI_INIT_DEADLINE sets the time)", roll);
	fail_root(r, tuttiTimeout, text);
}

bool tt_roots_tick(uint64_t now)
{
	struct tt_root *r;
	bool open = false;

	for (r = tt_node.roots; r != NULL; r = r->next) {
		if (r->state == ROOT_GATHER && r->joined > 0 && now >= r->deadline_ns)
			expire(r);
		if (r->state == ROOT_READY)
			finish_root(r); /* the list only grows at its front meanwhile */
		if (r->state == ROOT_GATHER && r->joined > 0)
			open = true;
	}
	if (tt_node.leaving)
		tt_roots_leave();
	prune();
	return open;
}

void tt_roots_leave(void)
{
	struct tt_root *r;

	for (r = tt_node.roots; r != NULL; r = r->next)
		if (r->state != ROOT_OVER)
			fail_root(r, tuttiRemoteError, "the process that made the unique id has left before all "
				  "ranks had joined");
}

/* ---- joining ---- */

/* Why this entry cannot join; NULL: it can. */
static const char *objection(struct tt_root *r, const struct tt_join *j, const void *entry, size_t size,
			     char *buf, size_t n)
{
	char who[128], other[192];
	int i = 0;

	entry_words(entry, size, who, sizeof(who));
	if (r->joined == 0)
		return NULL;
	if ((int)j->n != r->n) {
		while (!r->members[i].joined)
			i++;
		member_words(r, i, other, sizeof(other));
		snprintf(buf, n, "ranks disagree about their number: rank %u (%s) says %u, %s says %d", j->rank,
			 who, j->n, other, r->n);
		return buf;
	}
	if (!r->members[j->rank].joined)
		return NULL;
	member_words(r, (int)j->rank, other, sizeof(other));
	snprintf(buf, n, "rank %u was given twice: to %s and to %s; every rank must join once", j->rank, other,
		 who);
	return buf;
}

static bool first_join(struct tt_root *r, int n)
{
	if (r->members != NULL)
		return true;
	r->members = calloc((size_t)n, sizeof(*r->members));
	r->n = n;
	r->deadline_ns = UINT64_MAX;
	return r->members != NULL;
}

/* Success: joined, or the whole rendezvous has failed by it, which its state tells. */
static tuttiResult_t add_member(struct tt_root *r, const struct tt_join *j, const void *entry, size_t size,
				struct tt_conn *c)
{
	char text[640];
	struct member *m;
	uint64_t now = tt_now_ns();
	void *copy;

	if (objection(r, j, entry, size, text, sizeof(text)) != NULL) {
		if (c != NULL)
			refuse(c, tuttiInvalidUsage, text);
		fail_root(r, tuttiInvalidUsage, text);
		return tuttiSuccess;
	}
	copy = malloc(size + 1);
	if (copy == NULL || !first_join(r, (int)j->n)) {
		free(copy);
		return tuttiSystemError;
	}
	memcpy(copy, entry, size);
	m = &r->members[j->rank];
	*m = (struct member){ .joined = true, .entry = copy, .size = size, .conn = c };
	if (j->remaining_ns < UINT64_MAX - now)
		r->deadline_ns = tt_min(r->deadline_ns, now + j->remaining_ns);
	if (++r->joined == r->n)
		r->state = ROOT_READY;
	return tuttiSuccess;
}

uint8_t tt_root_admit(struct tt_conn *c)
{
	const struct tt_root *r = find_root(c->hello.job);

	if (r == NULL)
		return TT_STATUS_NOROOT;
	return r->state == ROOT_OVER && r->result == tuttiSuccess ? TT_STATUS_OVER : TT_STATUS_OK;
}

void tt_root_frame(struct tt_conn *c, const struct tt_frame *f)
{
	struct tt_root *r = find_root(c->hello.job);
	const uint8_t *entry;
	struct tt_join j;
	size_t size;

	if (f->type != TT_FRAME_JOIN || r == NULL || !tt_join_parse(f->p, f->n, &j, &entry, &size)) {
		tt_conn_close(c);
		return;
	}
	tt_sock_reserve(j.n);
	if (r->state == ROOT_OVER && r->result != tuttiSuccess) {
		refuse(c, r->result, r->text);
	} else if (r->state != ROOT_GATHER) {
		refuse(c, tuttiInvalidUsage, "all ranks have joined already: this one is one too many");
	} else if (add_member(r, &j, entry, size, c) != tuttiSuccess) {
		refuse(c, tuttiSystemError, "the root has no memory for another rank");
	} else if (r->state != ROOT_OVER) {
		c->state = TT_CONN_JOINED;
		c->root = r;
		c->rank = (int)j.rank;
	}
}

void tt_root_lost(struct tt_conn *c, const char *why)
{
	struct tt_root *r = c->root;
	char who[192], text[384];

	if (r == NULL)
		return;
	c->root = NULL;
	r->members[c->rank].conn = NULL;
	member_words(r, c->rank, who, sizeof(who));
	snprintf(text, sizeof(text), "%s died or gave up during init: %s", who, why);
	if (r->state == ROOT_GATHER)
		fail_root(r, tuttiPeerDead, text);
}

/* ---- opening ---- */

static struct tt_root *new_root(const struct tt_root_id *id, tt_root_finish finish)
{
	struct tt_root *r = calloc(1, sizeof(*r));
	pthread_condattr_t attr;

	if (r == NULL || tt_secret_hold(id->job, id->secret) != tuttiSuccess) {
		free(r);
		return NULL;
	}
	r->job = id->job;
	r->finish = finish;
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&r->changed, &attr);
	pthread_condattr_destroy(&attr);
	r->next = tt_node.roots;
	tt_node.roots = r;
	return r;
}

/* How much an address of this host promises to others, less is more. */
static int promise(int i)
{
	const struct tt_local_addr *a = &tt_node.addrs[i], *b;

	if (a->link_local)
		return 4; /* the last resort, but all that there is between some hosts */
	if (a->decoy || !a->carrier)
		return 3;
	for (b = tt_node.addrs; b < a; b++)
		if (b->addr.family == a->addr.family && strcmp(b->name, a->name) == 0)
			return 2; /* one of IPv6's many */
	return a->routed ? 0 : 1;
}

static void put_node_addrs(struct tt_root_id *id)
{
	int level, i;

	for (level = 0; level <= 4; level++)
		for (i = 0; i < tt_node.naddrs; i++) {
			struct tt_addr a = tt_node.addrs[i].addr;

			a.scope = 0; /* our name of the link, not theirs */
			if (tt_node.addrs[i].listens && promise(i) == level)
				tt_id_put(id, &a);
		}
}

tuttiResult_t tt_root_open(struct tt_root_id *id, tt_root_finish finish)
{
	tuttiResult_t r;

	memset(id, 0, sizeof(*id));
	id->magic = TT_ROOT_MAGIC;
	TRY(tt_random_bytes(&id->job, sizeof(id->job)));
	TRY(tt_random_bytes(id->secret, sizeof(id->secret)));
	pthread_mutex_lock(&tt_node.lock);
	r = tt_node_check();
	if (r == tuttiSuccess) {
		id->port = tt_node.self.port;
		put_node_addrs(id);
		if (new_root(id, finish) == NULL)
			r = tt_fail(tuttiSystemError, "no memory for a rendezvous");
	}
	pthread_mutex_unlock(&tt_node.lock);
	return r;
}

tuttiResult_t tt_root_id_set(struct tt_root_id *id, const char *addr, uint16_t port, bool scan)
{
	static const struct tt_addr any4 = { .family = 4 }, any6 = { .family = 6 };
	struct tt_addr found[ROOT_NAMES];
	int i, n = tt_addr_resolve(addr, found, ROOT_NAMES);

	id->magic = TT_ROOT_MAGIC;
	id->port = port;
	id->used = 0;
	memset(id->addrs, 0, sizeof(id->addrs));
	id->ports = scan ? SCAN_PORTS : 1;
	for (i = 0; i < n; i++) {
		if (tt_addr_equal(&found[i], &any4) || tt_addr_equal(&found[i], &any6))
			return tt_fail(tuttiInvalidUsage, "\"%s\" is no address that others could connect to", addr);
		tt_id_put(id, &found[i]);
	}
	if (n == 0)
		return tt_fail(tuttiSystemError, "the root's address \"%s\" is unknown to the resolver", addr);
	return tuttiSuccess;
}

/* An id does not tell the scopes of the node's addresses. */
static struct tt_addr own_scope(struct tt_addr a)
{
	int i;

	for (i = 0; i < tt_node.naddrs && a.scope == 0; i++)
		if (tt_addr_equal(&tt_node.addrs[i].addr, &a))
			a.scope = tt_node.addrs[i].addr.scope;
	return a;
}

/* One port on all addresses of the id that are ours; 0, or why not. The caller undoes. */
static int listen_port(const struct tt_root_id *id, uint16_t *port)
{
	int e, first = EADDRNOTAVAIL;
	struct tt_addr a;
	bool any = false;
	size_t at, n;

	for (at = 0; (n = tt_id_get(id, at, &a)) > 0; at += n) {
		a = own_scope(a);
		tt_node_listen(&a, port, &e);
		if (e == EADDRINUSE || e == EACCES)
			return e;
		any = any || e == 0;
		if (e != 0)
			first = e;
	}
	return any ? 0 : first;
}

static tuttiResult_t listen_at(struct tt_root_id *id, const char *addr, uint16_t port, bool scan)
{
	int tries = port == 0 ? 32 : scan ? SCAN_PORTS : 1, i, e = 0;
	const struct tt_source *mark = tt_node.listeners;

	struct tt_addr wish = tt_node.self.addrs[0];

	tt_id_get(id, 0, &wish);
	/* A launcher may know this host by a name for loopback alone: others come by the real addresses. */
	put_node_addrs(id);
	/* The next rendezvous at the same place shares the sockets: a job tells them apart. */
	if (port != 0 && tt_node.at_base == port && tt_addr_equal(&tt_node.at_addr, &wish)) {
		id->port = tt_node.at_port;
		return tuttiSuccess;
	}
	for (i = 0; i < tries && (port == 0 || port + i <= 65535); i++) {
		uint16_t p = (uint16_t)(port == 0 ? 0 : port + i);

		e = listen_port(id, &p);
		if (e == 0) {
			id->port = tt_node.at_port = p;
			tt_node.at_base = port;
			tt_node.at_addr = wish;
			return tuttiSuccess;
		}
		tt_node_unlisten(mark);
	}
	if (tries > 1)
		return tt_fail(tuttiSystemError, "cannot listen at %s on any of ports %u to %u: %s", addr, port,
			       port + tries - 1u, strerror(e));
	return tt_fail(tuttiSystemError, "cannot listen at %s on port %u: %s", addr, port, strerror(e));
}

tuttiResult_t tt_root_open_at(struct tt_root_id *id, const char *addr, uint16_t port, bool scan,
			      tt_root_finish finish)
{
	struct tt_root_id wish = *id;
	tuttiResult_t r;

	if (addr == NULL) {
		wish.magic = TT_ROOT_MAGIC;
		wish.used = wish.ports = 0;
	} else {
		TRY(tt_root_id_set(&wish, addr, port, scan)); /* may ask the resolver: not under the lock */
	}
	pthread_mutex_lock(&tt_node.lock);
	r = tt_node_check();
	if (r == tuttiSuccess && addr == NULL && port == 0) {
		wish.port = tt_node.self.port;
		put_node_addrs(&wish);
	} else if (r == tuttiSuccess) {
		r = listen_at(&wish, addr != NULL ? addr : "this host's addresses", port, scan);
	}
	if (r == tuttiSuccess && new_root(&wish, finish) == NULL)
		r = tt_fail(tuttiSystemError, "no memory for a rendezvous");
	pthread_mutex_unlock(&tt_node.lock);
	if (r == tuttiSuccess)
		*id = wish;
	return r;
}

bool tt_root_over(const struct tt_root_id *id)
{
	const struct tt_root *r;
	bool over;

	pthread_mutex_lock(&tt_node.lock);
	r = find_root(id->job);
	over = r == NULL || (r->state == ROOT_OVER && r->users == 0);
	pthread_mutex_unlock(&tt_node.lock);
	return over;
}

/* ---- the joiner: in the root's own process ---- */

static void wait_root(struct tt_root *r, uint64_t until_ns)
{
	struct timespec t = { .tv_sec = (time_t)(until_ns / TT_NS), .tv_nsec = (long)(until_ns % TT_NS) };

	pthread_cond_timedwait(&r->changed, &tt_node.lock, &t);
}

/* Waits for the end; a thread that gives up takes all others with it. */
static tuttiResult_t await_root(struct tt_root *r, int rank, uint64_t deadline_ns, const _Atomic bool *stop)
{
	char who[192], text[256];

	while (r->state != ROOT_OVER) {
		if (tt_stop_set(stop) && r->state == ROOT_GATHER) {
			member_words(r, rank, who, sizeof(who));
			snprintf(text, sizeof(text), "%s was aborted during init", who);
			fail_root(r, tuttiRemoteError, text);
			return tt_fail(tuttiAborted, "init was aborted");
		}
		if (tt_now_ns() >= deadline_ns && r->state == ROOT_GATHER)
			expire(r);
		else
			wait_root(r, tt_min(deadline_ns, tt_now_ns() + (stop != NULL ? TT_NS / 20 : TT_NS)));
	}
	return r->result == tuttiSuccess ? tuttiSuccess : tt_fail(r->result, "%s", r->text);
}

static tuttiResult_t join_here(struct tt_root *r, const struct tt_join *j, const void *entry, size_t size,
			       uint64_t deadline_ns, const _Atomic bool *stop, struct tt_table *out)
{
	tuttiResult_t result;

	if (r->state == ROOT_OVER && r->result != tuttiSuccess)
		return tt_fail(r->result, "%s", r->text);
	if (r->state != ROOT_GATHER)
		return tt_fail(tuttiInvalidUsage, "all ranks of this id have joined already: rank %u is one too "
			       "many", j->rank);
	if (add_member(r, j, entry, size, NULL) != tuttiSuccess)
		return tt_fail(tuttiSystemError, "no memory for another rank");
	tt_node_wake();
	r->users++;
	result = await_root(r, (int)j->rank, deadline_ns, stop);
	if (result == tuttiSuccess) {
		atomic_fetch_add_explicit(&r->table->refs, 1, memory_order_relaxed);
		result = tt_table_of(r->table, out);
		if (result != tuttiSuccess)
			tt_shared_drop(r->table);
	}
	r->users--;
	return result;
}

tuttiResult_t tt_root_join(const struct tt_root_id *id, int rank, int n, const void *entry, size_t size,
			   uint64_t deadline_ns, const _Atomic bool *stop, struct tt_table *out)
{
	struct tt_join j = { .rank = (uint32_t)rank, .n = (uint32_t)n };
	uint64_t now = tt_now_ns();
	struct tt_root *here;
	tuttiResult_t r;

	if (!tt_id_valid(id))
		return tt_fail(tuttiInvalidArgument, "the unique id is damaged or comes from another library or "
			       "version");
	if (n < 1 || (unsigned int)n > TT_MAX_RANKS || rank < 0 || rank >= n || size > TT_MAX_CONTROL - 64)
		return tt_fail(tuttiInvalidArgument, "rank %d of %d ranks (at most %u)", rank, n, TT_MAX_RANKS);
	j.remaining_ns = deadline_ns > now ? deadline_ns - now : 0;
	pthread_mutex_lock(&tt_node.lock);
	r = tt_node_check();
	here = r == tuttiSuccess ? find_root(id->job) : NULL;
	if (here != NULL)
		r = join_here(here, &j, entry, size, deadline_ns, stop, out);
	pthread_mutex_unlock(&tt_node.lock);
	if (here == NULL && r == tuttiSuccess)
		r = tt_join_there(id, &j, entry, size, deadline_ns, stop, out);
	return r;
}
