/* Dialling other processes: the client's side of the handshake, meeting, data connections.
 * SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "boot_node.h"
#include "hmac.h"

#define STAGGER_NS (TT_NS / 10)
#define FIRST_LIMIT_NS TT_NS
#define LAST_LIMIT_NS (5 * TT_NS)
#define EXPECT_NS (2 * TT_NS)
#define HOPELESS_NS (10 * TT_NS) /* every pair refused or unreachable for so long: not worth waiting */

/* ---- one round over all targets ---- */

struct attempt {
	int fd;    /* -1: over */
	bool said; /* hello is sent: whoever proves himself first wins, a silent one holds up nobody */
	int target;
	uint64_t until_ns;
	char here[TT_ADDR_TEXT];
};

struct race {
	struct tt_dial *d;
	struct attempt at[TT_MAX_TARGETS];
	int started, open;
	bool unrouted; /* a target that no address of this host leads to */
	uint64_t next_ns;
};

static void note(struct tt_dial *d, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void note(struct tt_dial *d, const char *fmt, ...)
{
	va_list ap;
	size_t left = sizeof(d->why) - d->why_len;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(d->why + d->why_len, left, fmt, ap);
	va_end(ap);
	if (n > 0)
		d->why_len += tt_min((size_t)n, left - 1);
}

static void note_attempt(struct tt_dial *d, const struct attempt *a, const char *why)
{
	const struct tt_target *t = &d->targets[a->target];
	char there[TT_ADDR_TEXT];

	if (d->why_len > 0)
		note(d, "; ");
	if (t->local)
		note(d, "unix socket: %s", why);
	else
		note(d, "%s -> %s: %s", a->here, tt_addr_format(&t->addr, t->port, there, sizeof(there)), why);
}

/* Of a target without a route no address of ours was chosen: the pairs are those with all of them. */
static void note_own(struct tt_dial *d)
{
	char here[TT_ADDR_TEXT];

	for (int i = 0; i < tt_node.naddrs; i++)
		note(d, "%s%s", i ? ", " : "; no route from any of ",
		     tt_addr_format(&tt_node.addrs[i].addr, 0, here, sizeof(here)));
}

static void end_attempt(struct race *r, struct attempt *a, const char *why)
{
	if (why != NULL)
		note_attempt(r->d, a, why);
	if (a->fd >= 0)
		close(a->fd);
	a->fd = -1;
	r->open--;
}

static const char *handshake_words(int e)
{
	if (e == ENODATA || e == ECONNRESET)
		return "closed during the handshake (another job, another program, or not ready)";
	return e == ETIMEDOUT ? "no answer to the handshake" : strerror(e);
}

/* What the reply proves; NULL: it is who we want. */
static const char *check_reply(struct tt_dial *d, const struct tt_reply *r, char *buf, size_t n)
{
	uint8_t mac[TT_MAC_BYTES];

	if (r->magic != TT_WIRE_MAGIC || r->job != d->hello.job)
		return "something else answered";
	tt_wire_mac(d->secret, "server", &d->hello, r, mac);
	if (!tt_hmac_equal(mac, r->mac))
		return "it does not have the secret of this job";
	if (r->version != TT_WIRE_VERSION) {
		d->fatal = tuttiRemoteError;
		snprintf(buf, n, "it speaks version %u of the wire, this process version %u: use the same "
			 "version of tutti everywhere", r->version, TT_WIRE_VERSION);
		return buf;
	}
	if (d->hello.to != 0 && r->proc != d->hello.to)
		return "the wrong process answered";
	return NULL;
}

/* NULL: this status ends the race. */
static const char *check_status(struct tt_dial *d)
{
	switch (d->status) {
	case TT_STATUS_OK:
	case TT_STATUS_EXISTS:
		return NULL;
	case TT_STATUS_NOROOT:
		d->soft = true;
		return "the process has not opened this rendezvous";
	case TT_STATUS_OVER:
		d->soft = true;
		if (d->over_is_final)
			d->fatal = tuttiInvalidUsage;
		return "the rendezvous is over";
	case TT_STATUS_FENCED:
		d->fatal = tuttiPeerDead;
		return "it counts this process as dead";
	case TT_STATUS_LEAVING:
		if (d->hello.to != 0)
			d->fatal = tuttiPeerDead;
		return "the process is leaving";
	default:
		return "unknown answer";
	}
}

/* From the reply on. */
static const char *handshake(struct tt_dial *d, int fd, uint64_t until, char *buf, size_t n)
{
	struct tt_reply reply;
	uint8_t mac[TT_MAC_BYTES];
	const char *why;
	int e = tt_sock_read(fd, &reply, sizeof(reply), until, d->stop);

	if (e == 0) {
		why = check_reply(d, &reply, buf, n);
		if (why != NULL)
			return why;
		tt_wire_mac(d->secret, "client", &d->hello, &reply, mac);
		e = tt_sock_write(fd, mac, sizeof(mac), until, d->stop);
	}
	if (e == 0)
		e = tt_sock_read(fd, &d->status, 1, until, d->stop);
	if (e == 0)
		return check_status(d);
	d->soft = true;
	return handshake_words(e);
}

static void say_hello(struct race *r, struct attempt *a)
{
	int e = tt_sock_error(a->fd);
	uint64_t now = tt_now_ns();

	tt_sock_tune(a->fd, 0);
	a->said = true;
	a->until_ns = now + r->d->limit_ns;
	if (e == 0)
		e = tt_sock_write(a->fd, &r->d->hello, sizeof(r->d->hello), now + TT_NS / 10, r->d->stop);
	if (e != 0)
		end_attempt(r, a, strerror(e));
}

/* True: this one has won. */
static bool finish_attempt(struct race *r, struct attempt *a)
{
	struct tt_dial *d = r->d;
	char buf[160];
	const char *why = handshake(d, a->fd, tt_min(tt_now_ns() + d->limit_ns, d->deadline_ns), buf, sizeof(buf));

	if (why != NULL) {
		end_attempt(r, a, why);
		return false;
	}
	d->fd = a->fd;
	d->won = d->targets[a->target];
	a->fd = -1;
	r->open--;
	return true;
}

static bool advance(struct race *r, struct attempt *a)
{
	if (a->said)
		return finish_attempt(r, a);
	say_hello(r, a);
	return false;
}

static void local_text(int fd, char *buf, size_t n)
{
	struct sockaddr_storage ss = { 0 };
	socklen_t len = sizeof(ss);
	struct tt_addr a;
	uint16_t port;

	if (fd >= 0 && getsockname(fd, (struct sockaddr *)&ss, &len) == 0 &&
	    tt_addr_from((struct sockaddr *)&ss, &a, &port))
		tt_addr_format(&a, 0, buf, n);
	else
		snprintf(buf, n, "(no route)");
}

static void start_attempt(struct race *r, uint64_t now)
{
	struct attempt *a = &r->at[r->started];
	const struct tt_target *t = &r->d->targets[r->started];
	int e;

	a->target = r->started++;
	a->until_ns = now + r->d->limit_ns;
	r->next_ns = now + STAGGER_NS;
	r->open++;
	if (t->local)
		e = tt_sock_connect_unix(r->d->hello.to, &a->fd);
	else
		e = tt_sock_connect(&t->addr, t->port, &a->fd);
	local_text(a->fd, a->here, sizeof(a->here));
	r->unrouted = r->unrouted || e == ENETUNREACH || e == EHOSTUNREACH;
	if (e == EAGAIN) /* a unix socket whose backlog is full */
		r->d->soft = true;
	if (e != 0)
		end_attempt(r, a, strerror(e));
}

/* One wait for what is under way; true: somebody won. */
static bool race_step(struct race *r, uint64_t now)
{
	struct pollfd p[TT_MAX_TARGETS];
	struct attempt *who[TT_MAX_TARGETS];
	uint64_t until = tt_min(r->d->deadline_ns, now + TT_NS / 10);
	int i, n = 0;

	if (r->started < r->d->n)
		until = tt_min(until, r->next_ns);
	for (i = 0; i < r->started; i++) {
		if (r->at[i].fd < 0)
			continue;
		until = tt_min(until, r->at[i].until_ns);
		who[n] = &r->at[i];
		p[n++] = (struct pollfd){ .fd = r->at[i].fd, .events = r->at[i].said ? POLLIN : POLLOUT };
	}
	if (poll(p, (nfds_t)n, until > now ? (int)((until - now) / 1000000 + 1) : 0) < 0)
		return false;
	now = tt_now_ns();
	for (i = 0; i < n && r->d->fatal == tuttiSuccess; i++) {
		if (p[i].revents != 0 && advance(r, who[i]))
			return true;
		if (p[i].revents == 0 && now >= who[i]->until_ns) {
			r->d->soft = true;
			end_attempt(r, who[i], who[i]->said ? "no answer to the handshake" : "no answer");
		}
	}
	return false;
}

static bool stopped(const struct tt_dial *d, uint64_t now)
{
	return now >= d->deadline_ns || tt_stop_set(d->stop);
}

static bool run_race(struct race *r)
{
	for (;;) {
		uint64_t now = tt_now_ns();

		if (r->d->fatal != tuttiSuccess || stopped(r->d, now))
			return false;
		if (r->started < r->d->n && (r->open == 0 || now >= r->next_ns))
			start_attempt(r, now);
		else if (r->open == 0)
			return false;
		else if (race_step(r, now))
			return true;
	}
}

bool tt_dial_round(struct tt_dial *d)
{
	struct race r = { .d = d };
	bool won = false;
	int i;

	if (d->limit_ns == 0)
		d->limit_ns = FIRST_LIMIT_NS;
	d->fd = -1;
	d->fatal = tuttiSuccess;
	if (stopped(d, tt_now_ns()))
		return false; /* with the words of the round before */
	d->soft = false;
	d->why_len = 0;
	d->why[0] = 0;
	d->hello.magic = TT_WIRE_MAGIC;
	d->hello.version = TT_WIRE_VERSION;
	d->hello.from = tt_node.self.id;
	if (tt_random_bytes(d->hello.nonce, sizeof(d->hello.nonce)) != tuttiSuccess)
		d->fatal = tuttiSystemError;
	else
		won = run_race(&r);
	for (i = 0; i < r.started; i++)
		if (r.at[i].fd >= 0)
			end_attempt(&r, &r.at[i], won ? NULL : "no answer in time");
	if (r.unrouted && !won)
		note_own(d);
	return won;
}

void tt_dial_next(struct tt_dial *d)
{
	d->limit_ns = tt_min(2 * d->limit_ns, LAST_LIMIT_NS);
}

/* ---- which addresses of a peer, in which order ---- */

const char *tt_node_interface(void)
{
	for (int i = 1; i < tt_node.naddrs; i++)
		if (strcmp(tt_node.addrs[i].name, tt_node.addrs[0].name) != 0)
			return "";
	return tt_node.naddrs > 0 ? tt_node.addrs[0].name : "";
}

static bool same_host(const struct tt_proc *p)
{
	return memcmp(p->boot_id, tt_node.self.boot_id, sizeof(p->boot_id)) == 0;
}

/* Less is better; -1: no use. */
static int price(const struct tt_proc *p, const struct tt_addr *a)
{
	int i, best = 3;

	if (tt_addr_loopback(a))
		return same_host(p) ? 4 : -1;
	for (i = 0; i < tt_node.naddrs; i++) {
		const struct tt_local_addr *l = &tt_node.addrs[i];

		/* The same address here and there: reaches ourselves, unless both share it. */
		if (tt_addr_equal(&l->addr, a))
			return same_host(p) && !l->decoy ? 1 : 7;
		if (tt_addr_near(&l->addr, a))
			best = (int)tt_min((size_t)best, l->decoy ? 3 : 0);
	}
	return tt_addr_link_local(a) ? 5 : best;
}

static void add_target(struct tt_dial *d, const struct tt_addr *a, uint16_t port)
{
	if (d->n < TT_MAX_TARGETS)
		d->targets[d->n++] = (struct tt_target){ .addr = *a, .port = port };
}

void tt_dial_add(struct tt_dial *d, const struct tt_addr *a, uint16_t port)
{
	struct tt_addr scoped = *a;
	int i;

	if (a->family != 6 || !tt_addr_link_local(a) || a->scope != 0) {
		add_target(d, a, port);
		return;
	}
	for (i = 0; i < tt_node.nlinks; i++) {
		scoped.scope = tt_node.links[i];
		add_target(d, &scoped, port);
	}
}

static void add_targets(struct tt_dial *d, const struct tt_proc *p)
{
	int level, i;

	for (level = 0; level < 8; level++)
		for (i = 0; i < p->naddrs && i < TT_MAX_ADDRS; i++) {
			struct tt_addr a = p->addrs[i];

			a.scope = 0; /* the peer's name of the link */
			if (price(p, &a) == level)
				tt_dial_add(d, &a, p->port);
		}
}

static _Thread_local const _Atomic bool *given_up;

void tt_node_until(const _Atomic bool *stop)
{
	given_up = stop;
}

static struct tt_dial *new_dial(uint64_t to, uint64_t job, const uint8_t *secret, uint64_t deadline_ns)
{
	struct tt_dial *d = calloc(1, sizeof(*d));

	if (d == NULL)
		return NULL;
	d->hello.to = to;
	d->hello.job = job;
	d->deadline_ns = deadline_ns;
	d->stop = given_up;
	memcpy(d->secret, secret, sizeof(d->secret));
	return d;
}

static void free_dial(struct tt_dial *d)
{
	if (d == NULL)
		return;
	explicit_bzero(d->secret, sizeof(d->secret));
	free(d);
}

/* ---- meeting ---- */

struct meeting {
	struct tt_dial *d;
	uint64_t pause_ns, hard_since;
};

/* A connection that was proved becomes the control connection, unless the other side's is about to: of two that
 * cross, the one dialled by the smaller id stays. */
static void adopt(struct tt_peer *p, struct tt_dial *d)
{
	struct tt_conn *c = NULL;

	if (p->conn == NULL && p->gone == TT_HERE && !tt_node.leaving &&
	    (p->tentative == 0 || tt_node.self.id < p->id))
		c = tt_conn_new(d->fd, TT_CONN_CONTROL, d->won.local);
	if (c == NULL) {
		close(d->fd);
		return;
	}
	c->hello = d->hello;
	memcpy(c->secret, d->secret, sizeof(c->secret));
	p->best = d->won.addr;
	p->best_port = d->won.port;
	tt_conn_take(c, p);
	tt_conn_queue(c, TT_FRAME_START, &tt_node.self, sizeof(tt_node.self), NULL, 0);
	tt_conn_tell_deaths(c);
	tt_node_wake();
}

static tuttiResult_t meet_failed(struct tt_peer *p, struct meeting *m)
{
	uint64_t now = tt_now_ns();
	char who[128];

	tt_proc_words(&p->proc, who, sizeof(who));
	if (m->d->fatal != tuttiSuccess)
		return tt_fail(m->d->fatal, "cannot connect to %s: %s", who, m->d->why);
	if (m->d->soft || m->hard_since == 0)
		m->hard_since = now;
	if (now > m->hard_since + HOPELESS_NS)
		return tt_fail(tuttiSystemError, "cannot connect to %s; tried %s; check the network between "
			       "the hosts, or choose addresses by TUTTI_ADDRS", who, m->d->why);
	tt_dial_next(m->d);
	m->pause_ns = tt_min(2 * m->pause_ns, TT_NS / 2);
	tt_node_wait(tt_min(now + m->pause_ns, m->d->deadline_ns));
	return tuttiSuccess;
}

static tuttiResult_t meet_dial(struct tt_peer *p, struct meeting *m)
{
	bool won;

	p->dialing = true;
	pthread_mutex_unlock(&tt_node.lock);
	won = tt_dial_round(m->d);
	pthread_mutex_lock(&tt_node.lock);
	p->dialing = false;
	pthread_cond_broadcast(&tt_node.changed);
	if (won && m->d->status == TT_STATUS_OK)
		adopt(p, m->d);
	else if (won)
		close(m->d->fd);
	if (p->conn != NULL || p->gone != TT_HERE)
		return tuttiSuccess;
	if (!won)
		return meet_failed(p, m);
	tt_node_wait(tt_min(tt_now_ns() + TT_NS / 5, m->d->deadline_ns)); /* the crossing one arrives */
	return tuttiSuccess;
}

static tuttiResult_t meet_step(struct tt_peer *p, struct meeting *m)
{
	uint64_t now = tt_now_ns();
	char who[128];

	tt_proc_words(&p->proc, who, sizeof(who));
	if (p->gone != TT_HERE)
		return tt_fail(tuttiPeerDead, "cannot connect to %s: %s", who, p->why);
	if (tt_node.leaving)
		return tt_fail(tuttiAborted, "cannot connect to %s: this process is leaving", who);
	if (tt_stop_set(m->d->stop))
		return tt_note_error(tuttiAborted, "aborted while connecting to %s", who);
	if (now >= m->d->deadline_ns)
		return tt_fail(tuttiTimeout, "no connection to %s before the deadline; tried %s", who,
			       m->d->why[0] != 0 ? m->d->why : "nothing: another thread was dialling");
	if (!p->dialing && p->tentative == 0)
		return meet_dial(p, m);
	tt_node_wait(tt_min(now + TT_NS / 4, m->d->deadline_ns));
	return tuttiSuccess;
}

static tuttiResult_t meet_known(struct tt_peer *p, uint64_t job, uint64_t deadline_ns)
{
	const uint8_t *secret = tt_secret_find(job);
	struct meeting m = { .pause_ns = TT_NS / 100 };
	tuttiResult_t r = tuttiSuccess;

	if (p->conn != NULL)
		return tuttiSuccess;
	if (secret == NULL)
		return tt_fail(tuttiInternalError, "no secret for job %llx", (unsigned long long)job);
	m.d = new_dial(p->id, job, secret, deadline_ns);
	if (m.d == NULL)
		return tt_fail(tuttiSystemError, "no memory to connect to a process");
	m.d->hello.kind = TT_KIND_CONTROL;
	if (same_host(&p->proc))
		m.d->targets[m.d->n++].local = true;
	add_targets(m.d, &p->proc);
	while (r == tuttiSuccess && p->conn == NULL)
		r = meet_step(p, &m);
	free_dial(m.d);
	return r;
}

static tuttiResult_t meet(const struct tt_proc *peer, uint64_t job, uint64_t deadline_ns, bool *local)
{
	struct tt_peer *p;

	TRY(tt_node_check());
	if (peer->id == tt_node.self.id) {
		*local = true;
		return tuttiSuccess;
	}
	if (peer->version != TT_WIRE_VERSION)
		return tt_fail(tuttiRemoteError, "process %u on %.63s speaks version %u of the wire, this process "
			       "version %u: use the same version of tutti everywhere", peer->pid, peer->host,
			       peer->version, TT_WIRE_VERSION);
	p = tt_peer_get(peer->id);
	if (p == NULL)
		return tt_fail(tuttiSystemError, "no memory for a peer");
	if (!p->known && !tt_proc_parse((const uint8_t *)peer, sizeof(*peer), &p->proc))
		return tt_fail(tuttiInternalError, "a process description is damaged");
	p->known = true;
	TRY(meet_known(p, job, deadline_ns));
	*local = p->local;
	return tuttiSuccess;
}

tuttiResult_t tt_node_meet(const struct tt_proc *peer, uint64_t job, uint64_t deadline_ns, bool *local)
{
	tuttiResult_t r;

	pthread_mutex_lock(&tt_node.lock);
	r = meet(peer, job, deadline_ns, local);
	pthread_mutex_unlock(&tt_node.lock);
	return r;
}

tuttiResult_t tt_node_neighbour(const struct tt_proc *peer, uint64_t job, bool open, uint64_t deadline_ns)
{
	uint64_t until = open ? 0 : tt_min(deadline_ns, tt_now_ns() + EXPECT_NS);
	struct tt_peer *p = NULL;
	tuttiResult_t r;
	bool local;

	pthread_mutex_lock(&tt_node.lock);
	r = tt_node_check();
	if (r == tuttiSuccess)
		p = tt_peer_get(peer->id);
	while (p != NULL && p->conn == NULL && p->gone == TT_HERE && !tt_node.leaving && tt_now_ns() < until)
		tt_node_wait(until);
	if (r == tuttiSuccess && (p == NULL || p->gone != TT_LEFT))
		r = meet(peer, job, deadline_ns, &local);
	if (p != NULL && p->gone == TT_LEFT)
		r = tuttiSuccess;
	pthread_mutex_unlock(&tt_node.lock);
	return r;
}

/* ---- messages ---- */

static tuttiResult_t send_to(uint64_t proc, uint32_t type, const void *p, size_t n)
{
	struct tt_event e = { .type = type };
	struct tt_peer *peer;

	TRY(tt_node_check());
	if (type < TT_FRAME_USER || n > TT_MAX_CONTROL)
		return tt_fail(tuttiInternalError, "control message of type %u and %zu bytes", type, n);
	if (proc == tt_node.self.id) {
		if (!tt_event_push(TT_EVENT_MESSAGE, proc, p, n, &e))
			return tt_fail(tuttiSystemError, "no memory for a control message");
		tt_node_wake();
		return tuttiSuccess;
	}
	peer = tt_peer_find(proc);
	if (peer != NULL && peer->gone != TT_HERE)
		return tt_note_error(tuttiPeerDead, "%s", peer->why);
	if (peer == NULL || peer->conn == NULL)
		return tt_note_error(tuttiInternalError, "no control connection to process %llx",
				     (unsigned long long)proc);
	if (!tt_conn_queue(peer->conn, type, p, n, NULL, 0))
		return tt_note_error(tuttiSystemError, "cannot queue a control message of %zu bytes: the peer does "
				     "not take them, or this process is leaving", n);
	return tuttiSuccess;
}

tuttiResult_t tt_node_send(uint64_t proc, uint32_t type, const void *p, size_t n)
{
	tuttiResult_t r;

	pthread_mutex_lock(&tt_node.lock);
	r = send_to(proc, type, p, n);
	pthread_mutex_unlock(&tt_node.lock);
	return r;
}

bool tt_node_alive(uint64_t proc, char *why, size_t n)
{
	const struct tt_peer *p;
	bool alive;

	pthread_mutex_lock(&tt_node.lock);
	p = tt_peer_find(proc);
	alive = p == NULL || p->gone == TT_HERE;
	if (!alive && n > 0)
		snprintf(why, n, "%s", p->why);
	pthread_mutex_unlock(&tt_node.lock);
	return alive;
}

/* ---- data connections ---- */

static tuttiResult_t dial_self(const char *transport, int index, int *fd)
{
	struct tt_event e = { .index = index };
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
		return tt_fail(tuttiSystemError, "cannot connect this process to itself: %s", strerror(errno));
	snprintf(e.transport, sizeof(e.transport), "%s", transport);
	e.fd = pair[1];
	if (!tt_event_push(TT_EVENT_ACCEPT, tt_node.self.id, NULL, 0, &e)) {
		close(pair[0]);
		close(pair[1]);
		return tt_fail(tuttiSystemError, "no memory for a connection");
	}
	tt_node_wake();
	*fd = pair[0];
	return tuttiSuccess;
}

/* Where the control connection goes, a data connection goes. */
static void data_targets(struct tt_dial *d, const struct tt_peer *p)
{
	if (p->local) {
		d->targets[d->n++].local = true;
		return;
	}
	if (p->best_port != 0)
		tt_dial_add(d, &p->best, p->best_port);
	add_targets(d, &p->proc);
}

static tuttiResult_t dial_peer(struct tt_peer *p, struct tt_dial *d)
{
	uint64_t pause = TT_NS / 100;
	char who[128];
	bool won = false;

	tt_proc_words(&p->proc, who, sizeof(who));
	while (!won) {
		if (p->gone != TT_HERE)
			return tt_note_error(tuttiPeerDead, "cannot open a data connection: %s", p->why);
		pthread_mutex_unlock(&tt_node.lock);
		won = tt_dial_round(d);
		pthread_mutex_lock(&tt_node.lock);
		if (won)
			break;
		if (tt_stop_set(d->stop))
			return tt_note_error(tuttiAborted, "aborted while a data connection to %s was opened", who);
		if (d->fatal != tuttiSuccess)
			return tt_fail(d->fatal, "cannot open a data connection to %s: %s", who, d->why);
		if (tt_now_ns() >= d->deadline_ns)
			return tt_fail(tuttiTimeout, "no data connection to %s before the deadline; tried %s", who,
				       d->why);
		tt_dial_next(d);
		tt_node_wait(tt_min(tt_now_ns() + pause, d->deadline_ns));
		pause = tt_min(2 * pause, TT_NS / 2);
	}
	tt_sock_blocking(d->fd);
	return tuttiSuccess;
}

static tuttiResult_t dial(uint64_t proc, const char *transport, int index, uint64_t deadline_ns, int *fd)
{
	struct tt_peer *p;
	struct tt_dial *d;
	tuttiResult_t r;

	TRY(tt_node_check());
	if (proc == tt_node.self.id)
		return dial_self(transport, index, fd);
	p = tt_peer_find(proc);
	if (p != NULL && p->gone != TT_HERE)
		return tt_note_error(tuttiPeerDead, "cannot open a data connection: %s", p->why);
	if (p == NULL || p->conn == NULL)
		return tt_fail(tuttiInternalError, "no control connection to process %llx",
			       (unsigned long long)proc);
	d = new_dial(proc, p->job, p->secret, deadline_ns);
	if (d == NULL)
		return tt_fail(tuttiSystemError, "no memory to connect to a process");
	d->hello.kind = TT_KIND_DATA;
	d->hello.index = index;
	snprintf(d->hello.transport, sizeof(d->hello.transport), "%s", transport);
	data_targets(d, p);
	r = dial_peer(p, d);
	if (r == tuttiSuccess)
		*fd = d->fd;
	free_dial(d);
	return r;
}

tuttiResult_t tt_node_dial(uint64_t proc, const char *transport, int index, uint64_t deadline_ns, int *fd)
{
	tuttiResult_t r;

	pthread_mutex_lock(&tt_node.lock);
	r = dial(proc, transport, index, deadline_ns, fd);
	pthread_mutex_unlock(&tt_node.lock);
	return r;
}
