/* Connections that the watcher serves: the server's side of the handshake, control frames, liveness and how
 * deaths are told on. SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "boot_node.h"
#include "hmac.h"

#define MAX_STRANGERS 256
#define STRANGER_NS (5 * TT_NS)
#define BEAT_NS TT_NS
#define READS_PER_ROUND 16

/* What the watcher receives into; it alone reads. */
static uint8_t scratch[65536];

/* ---- buffers and lists ---- */

static bool append(struct tt_bytes *b, const void *p, size_t n)
{
	if (b->head > 0 && b->len + n > b->cap) {
		memmove(b->p, b->p + b->head, b->len - b->head);
		b->len -= b->head;
		b->head = 0;
	}
	if (b->len + n > b->cap) {
		size_t cap = tt_max(b->len + n, 2 * b->cap);
		uint8_t *new = realloc(b->p, cap);

		if (new == NULL)
			return false;
		b->p = new;
		b->cap = cap;
	}
	if (n > 0)
		memcpy(b->p + b->len, p, n);
	b->len += n;
	return true;
}

/* Moves the rest to the front, and gives back what one large frame has taken. */
static void compact(struct tt_bytes *b)
{
	size_t n = b->len - b->head;

	if (n == 0) {
		free(b->p);
		memset(b, 0, sizeof(*b));
	} else if (b->head > 0) {
		memmove(b->p, b->p + b->head, n);
		b->head = 0;
		b->len = n;
	}
}

static void link_in(struct tt_conn_list *l, struct tt_conn *c)
{
	c->next = NULL;
	c->prev = l->last;
	if (l->last != NULL)
		l->last->next = c;
	else
		l->first = c;
	l->last = c;
	l->n++;
}

static void link_out(struct tt_conn_list *l, struct tt_conn *c)
{
	if (c->prev != NULL)
		c->prev->next = c->next;
	else
		l->first = c->next;
	if (c->next != NULL)
		c->next->prev = c->prev;
	else
		l->last = c->prev;
	l->n--;
}

static bool stranger(const struct tt_conn *c)
{
	return c->state == TT_CONN_HELLO || c->state == TT_CONN_PROOF;
}

static void set_state(struct tt_conn *c, enum tt_conn_state s)
{
	bool was = stranger(c);

	c->state = s;
	c->deadline_ns = tt_now_ns() + STRANGER_NS;
	if (was && !stranger(c)) {
		link_out(&tt_node.half, c);
		link_in(&tt_node.full, c);
	}
}

void tt_shared_drop(struct tt_shared *s)
{
	if (s != NULL && atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) == 1)
		free(s);
}

/* ---- life of a connection ---- */

struct tt_conn *tt_conn_new(int fd, enum tt_conn_state state, bool local)
{
	struct tt_conn *c = calloc(1, sizeof(*c));

	if (c == NULL)
		return NULL;
	c->src.kind = TT_SRC_CONN;
	c->src.fd = fd;
	c->state = state;
	c->local = local;
	c->rx_ns = c->tx_ns = tt_now_ns();
	c->deadline_ns = c->rx_ns + STRANGER_NS;
	if (tt_node_watch(&c->src, EPOLLIN) != 0) {
		free(c);
		return NULL;
	}
	tt_sock_tune(fd, (double)tt_node.silence_ns / 1e9);
	if (stranger(c) && tt_node.half.n >= MAX_STRANGERS)
		tt_conn_close(tt_node.half.first);
	link_in(stranger(c) ? &tt_node.half : &tt_node.full, c);
	return c;
}

/* Takes it off all lists; the descriptor is closed or has been handed on. */
static void retire(struct tt_conn *c)
{
	struct tt_peer *p = c->peer;

	link_out(stranger(c) ? &tt_node.half : &tt_node.full, c);
	if (p != NULL && c->state == TT_CONN_TENTATIVE) {
		p->tentative--;
		pthread_cond_broadcast(&tt_node.changed);
	}
	if (p != NULL && p->conn == c)
		p->conn = NULL;
	c->peer = NULL;
	c->src.next = tt_node.dead;
	tt_node.dead = &c->src;
}

void tt_conn_close(struct tt_conn *c)
{
	if (c->src.fd < 0)
		return;
	tt_node_unwatch(&c->src);
	retire(c);
}

void tt_conn_free(struct tt_conn *c)
{
	explicit_bzero(c->secret, sizeof(c->secret));
	free(c->in.p);
	free(c->out.p);
	free(c->condemned);
	tt_shared_drop(c->tail);
	free(c);
}

static void want_out(struct tt_conn *c, bool want)
{
	struct epoll_event e = { .events = want ? EPOLLIN | EPOLLOUT : EPOLLIN, .data.ptr = c };

	if (c->want_out != want && epoll_ctl(tt_node.epoll, EPOLL_CTL_MOD, c->src.fd, &e) == 0)
		c->want_out = want;
}

/* Sends what the socket takes; false: it takes no more now. A broken one is found by reading. */
static bool send_some(struct tt_conn *c, const uint8_t *p, size_t n, size_t *at)
{
	while (*at < n) {
		ssize_t r = send(c->src.fd, p + *at, n - *at, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (r > 0) {
			*at += (size_t)r;
			c->tx_ns = tt_now_ns();
			if (c->state == TT_CONN_DRAIN)
				c->deadline_ns = c->tx_ns + STRANGER_NS;
		} else if (errno == EAGAIN) {
			return false;
		} else if (errno != EINTR) {
			*at = n;
		}
	}
	return true;
}

static void flush(struct tt_conn *c)
{
	int keep = errno;
	bool done = send_some(c, c->out.p, c->out.len, &c->out.head);

	if (done && c->tail != NULL)
		done = send_some(c, c->tail->bytes, c->tail->size, &c->tail_at);
	if (done) {
		compact(&c->out);
		tt_shared_drop(c->tail);
		c->tail = NULL;
	}
	if (done && c->shut && !c->shut_done) {
		c->shut_done = true;
		shutdown(c->src.fd, SHUT_WR);
	}
	want_out(c, !done);
	errno = keep;
}

bool tt_conn_queue(struct tt_conn *c, uint32_t type, const void *a, size_t an, const void *b, size_t bn)
{
	struct tt_frame_head h = { .len = (uint32_t)(an + bn), .type = type };
	bool idle = c->out.head == c->out.len && !c->want_out;

	if (c->shut || c->out.len - c->out.head + an + bn > TT_MAX_CONTROL)
		return false;
	if (!append(&c->out, &h, sizeof(h)) || !append(&c->out, a, an) || !append(&c->out, b, bn))
		return false;
	if (type != TT_FRAME_BEAT)
		atomic_fetch_add_explicit(&tt_frames_sent, 1, memory_order_relaxed);
	if (idle)
		flush(c);
	return true;
}

/* The last word was said: flush, then wait for the other side to close, so that nothing is lost. */
void tt_conn_drain(struct tt_conn *c)
{
	set_state(c, TT_CONN_DRAIN);
	c->shut = true;
	flush(c);
}

/* ---- peers ---- */

static void watch_process(struct tt_peer *p)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);

	if (!p->local || p->pid_src.fd >= 0 ||
	    getsockopt(p->conn->src.fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) != 0 || cred.pid <= 0)
		return;
	/* Shows the death also where a forked child keeps the socket open. */
	p->pid_src.fd = (int)syscall(SYS_pidfd_open, cred.pid, 0);
	if (p->pid_src.fd >= 0 && tt_node_watch(&p->pid_src, EPOLLIN) != 0)
		tt_node_unwatch(&p->pid_src);
}

void tt_conn_take(struct tt_conn *c, struct tt_peer *p)
{
	char who[128], ends[TT_ENDS_TEXT];

	set_state(c, TT_CONN_CONTROL);
	c->peer = p;
	c->rx_ns = tt_now_ns();
	p->conn = c;
	p->local = c->local;
	p->job = c->hello.job;
	memcpy(p->secret, c->secret, sizeof(p->secret));
	watch_process(p);
	pthread_cond_broadcast(&tt_node.changed);
	if (!tt_log_on(TT_LOG_DEBUG, "boot"))
		return;
	tt_proc_words(&p->proc, who, sizeof(who));
	tt_log(TT_LOG_DEBUG, "boot", "met %s by %s", who, tt_sock_ends(c->src.fd, ends, sizeof(ends)));
}

static void gossip_death(const struct tt_peer *p)
{
	struct tt_conn *c;

	for (c = tt_node.full.first; c != NULL; c = c->next)
		if (c->state == TT_CONN_CONTROL && c->peer != p)
			tt_conn_queue(c, TT_FRAME_DEAD, &p->id, sizeof(p->id), p->why, strlen(p->why));
}

void tt_conn_tell_deaths(struct tt_conn *c)
{
	uint32_t i = tt_node.ndeaths > TT_DEATHS ? tt_node.ndeaths - TT_DEATHS : 0;

	for (; i < tt_node.ndeaths; i++) {
		const struct tt_peer *p = tt_peer_find(tt_node.deaths[i % TT_DEATHS]);

		if (p != NULL)
			tt_conn_queue(c, TT_FRAME_DEAD, &p->id, sizeof(p->id), p->why, strlen(p->why));
	}
}

void tt_peer_gone(struct tt_peer *p, bool dead, bool gossip, const char *why)
{
	struct tt_event e = { .dead = dead };

	if (p->conn != NULL)
		tt_conn_close(p->conn);
	tt_node_unwatch(&p->pid_src);
	if (p->gone != TT_HERE || tt_node.leaving)
		return;
	p->gone = dead ? TT_DEAD : TT_LEFT;
	snprintf(p->why, sizeof(p->why), "%s", why);
	/* Of one that was never met we may hear long after, and it may be no concern of ours. */
	tt_log(!dead ? TT_LOG_DEBUG : p->known ? TT_LOG_WARN : TT_LOG_INFO, "boot", "%s", p->why);
	if (dead && gossip) {
		tt_node.deaths[tt_node.ndeaths++ % TT_DEATHS] = p->id;
		gossip_death(p);
	}
	tt_event_push(TT_EVENT_GONE, p->id, p->why, strlen(p->why), &e);
	pthread_cond_broadcast(&tt_node.changed);
}

static void declare_dead(struct tt_peer *p, const char *how)
{
	char who[128], me[128], ends[TT_ENDS_TEXT] = "?", why[TT_WHY];

	tt_proc_words(&p->proc, who, sizeof(who));
	tt_proc_words(&tt_node.self, me, sizeof(me));
	if (p->conn != NULL)
		tt_sock_ends(p->conn->src.fd, ends, sizeof(ends));
	snprintf(why, sizeof(why), "%s died: %s (%s, seen by %s)", who, how, ends, me);
	tt_peer_gone(p, true, true, why);
}

static void lost_control(struct tt_conn *c, int e)
{
	char how[128];

	if (tt_node.leaving || c->peer == NULL) {
		tt_conn_close(c);
		return;
	}
	if (e == ENODATA)
		snprintf(how, sizeof(how), "its control connection was closed without goodbye");
	else
		snprintf(how, sizeof(how), "its control connection failed: %s", strerror(e));
	declare_dead(c->peer, how);
}

static void lost(struct tt_conn *c, int e)
{
	if (c->state == TT_CONN_CONTROL) {
		lost_control(c, e);
	} else if (c->state == TT_CONN_JOINED) {
		tt_root_lost(c, e == ENODATA ? "its connection closed" : strerror(e));
		tt_conn_close(c);
	} else {
		tt_conn_close(c);
	}
}

/* ---- the server's side of the handshake ---- */

static bool send_now(struct tt_conn *c, const void *p, size_t n)
{
	return send(c->src.fd, p, n, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)n;
}

/* Who has no secret of ours gets no word. */
static void got_hello(struct tt_conn *c)
{
	struct tt_reply *r = &c->reply;
	const uint8_t *secret;

	memcpy(&c->hello, c->in.p, sizeof(c->hello));
	c->in.head = c->in.len;
	secret = tt_hello_valid(&c->hello) ? tt_secret_find(c->hello.job) : NULL;
	if (secret == NULL || tt_random_bytes(r->nonce, sizeof(r->nonce)) != tuttiSuccess) {
		tt_conn_close(c);
		return;
	}
	memcpy(c->secret, secret, sizeof(c->secret));
	r->magic = TT_WIRE_MAGIC;
	r->version = TT_WIRE_VERSION;
	r->job = c->hello.job;
	r->proc = tt_node.self.id;
	tt_wire_mac(c->secret, "server", &c->hello, r, r->mac);
	if (!send_now(c, r, sizeof(*r)) || c->hello.version != TT_WIRE_VERSION)
		tt_conn_close(c);
	else
		c->state = TT_CONN_PROOF;
}

static uint8_t admit_control(struct tt_conn *c)
{
	struct tt_peer *p = tt_peer_get(c->hello.from);

	if (p == NULL || tt_node.leaving)
		return TT_STATUS_LEAVING;
	if (p->gone == TT_DEAD)
		return TT_STATUS_FENCED;
	if (p->conn != NULL)
		return TT_STATUS_EXISTS;
	c->peer = p;
	p->tentative++;
	set_state(c, TT_CONN_TENTATIVE);
	return TT_STATUS_OK;
}

static uint8_t admit_data(struct tt_conn *c)
{
	const struct tt_peer *p = tt_peer_find(c->hello.from);

	if (tt_node.leaving)
		return TT_STATUS_LEAVING;
	return p != NULL && p->gone == TT_DEAD ? TT_STATUS_FENCED : TT_STATUS_OK;
}

static uint8_t admit(struct tt_conn *c)
{
	uint8_t status;

	if (c->hello.kind == TT_KIND_CONTROL)
		return admit_control(c);
	if (c->hello.kind == TT_KIND_DATA)
		return admit_data(c);
	status = tt_node.leaving ? TT_STATUS_LEAVING : tt_root_admit(c);
	if (status == TT_STATUS_OK)
		set_state(c, TT_CONN_JOIN);
	return status;
}

/* A proved data connection leaves the watcher. */
static void hand_on(struct tt_conn *c)
{
	struct tt_event e = { .index = c->hello.index, .fd = c->src.fd };

	memcpy(e.transport, c->hello.transport, sizeof(e.transport));
	epoll_ctl(tt_node.epoll, EPOLL_CTL_DEL, c->src.fd, NULL);
	tt_sock_blocking(c->src.fd);
	if (!tt_event_push(TT_EVENT_ACCEPT, c->hello.from, NULL, 0, &e))
		close(c->src.fd);
	c->src.fd = -1;
	retire(c);
}

static void got_proof(struct tt_conn *c)
{
	uint8_t mac[TT_MAC_BYTES], status;

	tt_wire_mac(c->secret, "client", &c->hello, &c->reply, mac);
	c->in.head = c->in.len;
	if (!tt_hmac_equal(mac, c->in.p) ||
	    (c->hello.to != tt_node.self.id && c->hello.kind != TT_KIND_ROOT)) {
		tt_conn_close(c);
		return;
	}
	status = admit(c);
	if (!send_now(c, &status, 1) || status != TT_STATUS_OK)
		tt_conn_close(c);
	else if (c->hello.kind == TT_KIND_DATA)
		hand_on(c);
}

/* Reads no byte too many: what follows may belong to a transport. */
static void read_handshake(struct tt_conn *c)
{
	size_t want = c->state == TT_CONN_HELLO ? sizeof(struct tt_hello) : TT_MAC_BYTES;
	size_t have = c->in.len - c->in.head;
	ssize_t r = recv(c->src.fd, scratch, want - have, MSG_DONTWAIT);

	if (r < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (r <= 0 || !append(&c->in, scratch, (size_t)r)) {
		tt_conn_close(c);
		return;
	}
	if (have + (size_t)r < want)
		return;
	if (c->state == TT_CONN_HELLO)
		got_hello(c);
	else
		got_proof(c);
}

/* ---- frames ---- */

static size_t max_frame(const struct tt_conn *c)
{
	return c->state == TT_CONN_TENTATIVE ? sizeof(struct tt_proc) : TT_MAX_CONTROL;
}

static void got_start(struct tt_conn *c, const struct tt_frame *f)
{
	struct tt_peer *p = c->peer;
	struct sockaddr_storage ss;
	socklen_t len = sizeof(ss);
	uint16_t port;

	if (f->type != TT_FRAME_START || p->conn != NULL || p->gone != TT_HERE ||
	    !tt_proc_parse(f->p, f->n, &p->proc) || p->proc.id != p->id) {
		tt_conn_close(c);
		return;
	}
	p->known = true;
	p->tentative--;
	if (!c->local && getpeername(c->src.fd, (struct sockaddr *)&ss, &len) == 0 &&
	    tt_addr_from((struct sockaddr *)&ss, &p->best, &port))
		p->best_port = p->proc.port;
	tt_conn_take(c, p);
	tt_conn_tell_deaths(c);
}

/* Words about a third process. Where we hold a connection to it, what it has sent is read first. */
static void got_dead(const struct tt_frame *f)
{
	char words[TT_WHY];
	struct tt_peer *p;
	uint64_t id;

	if (!tt_words_parse(f->p, f->n, sizeof(id), &id, words, sizeof(words)) || id == tt_node.self.id)
		return;
	p = tt_peer_get(id);
	if (p == NULL || p->gone != TT_HERE)
		return;
	if (p->conn == NULL) {
		tt_peer_gone(p, true, true, words);
	} else if (p->conn->condemned == NULL) {
		p->conn->condemned = strdup(words);
		p->conn->told = true;
	}
}

static void got_goodbye(struct tt_conn *c)
{
	char who[128], why[TT_WHY];

	tt_proc_words(&c->peer->proc, who, sizeof(who));
	snprintf(why, sizeof(why), "%s has left", who);
	tt_peer_gone(c->peer, false, false, why);
}

/* The peer counts this process as dead: to us it is gone, but that is not news for others. */
static void got_fenced(struct tt_conn *c, const struct tt_frame *f)
{
	char who[128], words[TT_WHY / 2], why[TT_WHY];

	if (!tt_words_parse(f->p, f->n, 0, NULL, words, sizeof(words)))
		return;
	tt_proc_words(&c->peer->proc, who, sizeof(who));
	snprintf(why, sizeof(why), "%s counts this process as dead: %s", who, words);
	tt_peer_gone(c->peer, true, false, why);
}

static void got_control(struct tt_conn *c, const struct tt_frame *f)
{
	struct tt_event e = { .type = f->type };

	if (f->type >= TT_FRAME_USER)
		tt_event_push(TT_EVENT_MESSAGE, c->peer->id, f->p, f->n, &e);
	else if (f->type == TT_FRAME_GOODBYE)
		got_goodbye(c);
	else if (f->type == TT_FRAME_DEAD)
		got_dead(f);
	else if (f->type == TT_FRAME_FENCED)
		got_fenced(c, f);
}

static void got_frame(struct tt_conn *c, const struct tt_frame *f)
{
	if (f->type != TT_FRAME_BEAT)
		atomic_fetch_add_explicit(&tt_frames_received, 1, memory_order_relaxed);
	if (c->state == TT_CONN_TENTATIVE)
		got_start(c, f);
	else if (c->state == TT_CONN_CONTROL)
		got_control(c, f);
	else if (c->state == TT_CONN_JOIN)
		tt_root_frame(c, f);
}

/* False: the connection is closed. */
static bool take_frames(struct tt_conn *c)
{
	struct tt_frame f;

	for (;;) {
		int64_t used = tt_frame_next(c->in.p + c->in.head, c->in.len - c->in.head, max_frame(c), &f);

		if (used < 0) {
			lost(c, EPROTO);
			return false;
		}
		if (used == 0)
			break;
		got_frame(c, &f);
		if (c->src.fd < 0)
			return false;
		c->in.head += (size_t)used;
	}
	compact(&c->in);
	return true;
}

static void read_frames(struct tt_conn *c)
{
	int i;

	for (i = 0; i < READS_PER_ROUND; i++) {
		ssize_t r = recv(c->src.fd, scratch, sizeof(scratch), MSG_DONTWAIT);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0 && errno == EAGAIN)
			return;
		if (r <= 0) {
			lost(c, r == 0 ? ENODATA : errno);
			return;
		}
		c->rx_ns = tt_now_ns();
		if (!append(&c->in, scratch, (size_t)r)) {
			lost(c, ENOMEM);
			return;
		}
		if (!take_frames(c))
			return;
	}
}

void tt_conn_ready(struct tt_conn *c, uint32_t events)
{
	if (events & EPOLLOUT)
		flush(c);
	if ((events & ~(uint32_t)EPOLLOUT) == 0)
		return;
	if (stranger(c))
		read_handshake(c);
	else
		read_frames(c);
}

/* ---- the tick ---- */

/* Its last words first: a goodbye among them, and it has left. */
static void execute(struct tt_conn *c)
{
	char *why = c->condemned;
	struct tt_peer *p = c->peer;

	read_frames(c);
	if (c->src.fd < 0)
		return;
	c->condemned = NULL;
	tt_conn_queue(c, TT_FRAME_FENCED, why, strlen(why), NULL, 0);
	if (c->told)
		tt_peer_gone(p, true, true, why);
	else
		declare_dead(p, why);
	free(why);
}

static void check_silence(struct tt_conn *c, uint64_t now)
{
	char why[96];

	if (tt_node.silence_ns == 0 || now < c->rx_ns + tt_node.silence_ns)
		return;
	read_frames(c);
	if (c->src.fd < 0 || now < c->rx_ns + tt_node.silence_ns || c->condemned != NULL)
		return;
	snprintf(why, sizeof(why), "no sign of life for %.1f s (TUTTI_SILENCE)",
		 (double)tt_node.silence_ns / 1e9);
	c->condemned = strdup(why);
}

static void tick_control(struct tt_conn *c, uint64_t now)
{
	if (tt_node.leaving) {
		tt_conn_queue(c, TT_FRAME_GOODBYE, NULL, 0, NULL, 0);
		if (!c->shut) {
			c->shut = true;
			flush(c);
		}
		return;
	}
	check_silence(c, now);
	if (c->src.fd >= 0 && c->condemned != NULL)
		execute(c);
	else if (c->src.fd >= 0 && now >= c->tx_ns + BEAT_NS && c->out.head == c->out.len)
		tt_conn_queue(c, TT_FRAME_BEAT, NULL, 0, NULL, 0);
}

static void tick_one(struct tt_conn *c, uint64_t now)
{
	if (c->state == TT_CONN_CONTROL)
		tick_control(c, now);
	else if (c->state != TT_CONN_JOINED &&
		 (now >= c->deadline_ns || (tt_node.leaving && c->state != TT_CONN_DRAIN)))
		tt_conn_close(c);
}

void tt_conns_tick(uint64_t now)
{
	uint64_t gap = now - tt_node.last_tick;
	struct tt_conn *c, *next;

	/* This process was stopped itself: the silence of others is not theirs. */
	gap = gap > 3 * TT_NS ? gap : 0;
	tt_node.last_tick = now;
	while (tt_node.half.first != NULL && (now >= tt_node.half.first->deadline_ns || tt_node.leaving))
		tt_conn_close(tt_node.half.first);
	for (c = tt_node.full.first; c != NULL; c = next) {
		next = c->next;
		c->rx_ns += gap;
		tick_one(c, now);
	}
}
