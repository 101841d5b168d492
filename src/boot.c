/* The node of a process: its life, its listeners and its watcher thread. SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "boot_node.h"

#define BATCH 64
#define STARVED_NS (TT_NS / 10)       /* how long a listener without descriptors pauses */
#define STARVED_LOG_NS (60 * TT_NS)

struct tt_node tt_node = { .lock = PTHREAD_MUTEX_INITIALIZER, .epoll = -1, .wake.fd = -1 };
_Atomic uint64_t tt_frames_sent, tt_frames_received;

/* `life` orders get and put; `refs` counts them. Between linger and the last put nobody gets the node. */
static pthread_mutex_t life = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t departed = PTHREAD_COND_INITIALIZER;
static bool departing;
static int refs;

/* ---- sources ---- */

int tt_node_watch(struct tt_source *s, uint32_t events)
{
	struct epoll_event e = { .events = events, .data.ptr = s };

	return epoll_ctl(tt_node.epoll, EPOLL_CTL_ADD, s->fd, &e) == 0 ? 0 : errno;
}

void tt_node_unwatch(struct tt_source *s)
{
	if (s->fd < 0)
		return;
	epoll_ctl(tt_node.epoll, EPOLL_CTL_DEL, s->fd, NULL);
	close(s->fd);
	s->fd = -1;
}

void tt_node_wake(void)
{
	uint64_t one = 1;
	int keep = errno;

	if (write(tt_node.wake.fd, &one, sizeof(one)) < 0)
		errno = keep; /* the counter is full: it is awake */
}

static tuttiResult_t add_listener(int fd, bool local)
{
	struct tt_listener *l = calloc(1, sizeof(*l));

	if (l == NULL) {
		close(fd);
		return tt_fail(tuttiSystemError, "no memory for a listening socket");
	}
	l->src.kind = TT_SRC_LISTEN;
	l->src.fd = fd;
	l->local = local;
	if (tt_node_watch(&l->src, EPOLLIN) != 0) {
		close(fd);
		free(l);
		return tt_fail(tuttiSystemError, "cannot watch a listening socket: %s", strerror(errno));
	}
	l->src.next = tt_node.listeners;
	tt_node.listeners = &l->src;
	return tuttiSuccess;
}

/* *error is the errno of listening; the result is about all the rest. */
tuttiResult_t tt_node_listen(const struct tt_addr *a, uint16_t *port, int *error)
{
	int fd;

	*error = tt_sock_listen(a, port, &fd);
	return *error != 0 ? tuttiSystemError : add_listener(fd, false);
}

/* Freed later: the watcher may just have heard of one. */
void tt_node_unlisten(const struct tt_source *until)
{
	while (tt_node.listeners != until) {
		struct tt_source *s = tt_node.listeners;

		tt_node.listeners = s->next;
		tt_node_unwatch(s);
		s->next = tt_node.dead;
		tt_node.dead = s;
	}
}

/* ---- peers, secrets, events ---- */

struct tt_peer *tt_peer_find(uint64_t id)
{
	struct tt_peer *p = tt_node.peers[id % TT_PEER_BUCKETS];

	while (p != NULL && p->id != id)
		p = p->next;
	return p;
}

struct tt_peer *tt_peer_get(uint64_t id)
{
	struct tt_peer *p = tt_peer_find(id);

	if (p != NULL)
		return p;
	p = calloc(1, sizeof(*p));
	if (p == NULL)
		return NULL;
	p->id = id;
	p->pid_src.kind = TT_SRC_PID;
	p->pid_src.fd = -1;
	p->next = tt_node.peers[id % TT_PEER_BUCKETS];
	tt_node.peers[id % TT_PEER_BUCKETS] = p;
	return p;
}

static void free_peers(void)
{
	int i;

	for (i = 0; i < TT_PEER_BUCKETS; i++)
		while (tt_node.peers[i] != NULL) {
			struct tt_peer *p = tt_node.peers[i];

			tt_node.peers[i] = p->next;
			tt_node_unwatch(&p->pid_src);
			free(p);
		}
}

void tt_proc_words(const struct tt_proc *p, char *buf, size_t n)
{
	snprintf(buf, n, "process %u on %s", p->pid, p->host);
}

static struct tt_secret **secret_slot(uint64_t job)
{
	struct tt_secret **s = &tt_node.secrets;

	while (*s != NULL && (*s)->job != job)
		s = &(*s)->next;
	return s;
}

/* A control connection outlives the communicator that made it, and so does what proves its data
 * connections. */
const uint8_t *tt_secret_find(uint64_t job)
{
	struct tt_secret *s = *secret_slot(job);
	int i;

	if (s != NULL)
		return s->secret;
	for (i = 0; i < TT_PEER_BUCKETS; i++)
		for (struct tt_peer *p = tt_node.peers[i]; p != NULL; p = p->next)
			if (p->conn != NULL && p->job == job)
				return p->secret;
	return NULL;
}

tuttiResult_t tt_secret_hold(uint64_t job, const uint8_t secret[32])
{
	struct tt_secret **s = secret_slot(job);

	if (*s == NULL) {
		*s = calloc(1, sizeof(**s));
		if (*s == NULL)
			return tt_fail(tuttiSystemError, "no memory for the secret of a job");
		(*s)->job = job;
		memcpy((*s)->secret, secret, 32);
	}
	(*s)->refs++;
	return tuttiSuccess;
}

void tt_secret_release(uint64_t job)
{
	struct tt_secret **s = secret_slot(job), *old = *s;

	if (old == NULL || --old->refs > 0)
		return;
	*s = old->next;
	explicit_bzero(old, sizeof(*old));
	free(old);
}

tuttiResult_t tt_node_secret_add(uint64_t job, const uint8_t secret[32])
{
	tuttiResult_t r;

	pthread_mutex_lock(&tt_node.lock);
	r = tt_secret_hold(job, secret);
	pthread_mutex_unlock(&tt_node.lock);
	return r;
}

void tt_node_secret_drop(uint64_t job)
{
	pthread_mutex_lock(&tt_node.lock);
	tt_secret_release(job);
	pthread_mutex_unlock(&tt_node.lock);
}

bool tt_event_push(enum tt_event_kind kind, uint64_t proc, const void *p, size_t n,
		   const struct tt_event *more)
{
	struct tt_event *e = malloc(sizeof(*e) + n + 1);

	if (e == NULL)
		return false;
	memset(e, 0, sizeof(*e));
	if (more != NULL)
		*e = *more;
	e->next = NULL;
	e->kind = kind;
	e->proc = proc;
	e->n = n;
	if (n > 0)
		memcpy(e->bytes, p, n);
	e->bytes[n] = 0;
	*tt_node.events_end = e;
	tt_node.events_end = &e->next;
	return true;
}

static void deliver_one(const struct tt_node_events *ev, struct tt_event *e)
{
	if (e->kind == TT_EVENT_GONE && ev->gone != NULL)
		ev->gone(ev->ctx, e->proc, e->dead, (const char *)e->bytes);
	if (e->kind == TT_EVENT_MESSAGE && ev->message != NULL)
		ev->message(ev->ctx, e->proc, e->type, e->bytes, e->n);
	if (e->kind == TT_EVENT_ACCEPT && ev->accept != NULL)
		ev->accept(ev->ctx, e->proc, e->transport, e->index, e->fd);
	else if (e->kind == TT_EVENT_ACCEPT)
		close(e->fd);
	free(e);
}

/* Leaves the lock while it calls out. */
static void deliver(void)
{
	struct tt_event *e = tt_node.events_first;
	struct tt_node_events ev = tt_node.events;

	tt_node.events_first = NULL;
	tt_node.events_end = &tt_node.events_first;
	pthread_mutex_unlock(&tt_node.lock);
	while (e != NULL) {
		struct tt_event *next = e->next;

		deliver_one(&ev, e);
		e = next;
	}
	pthread_mutex_lock(&tt_node.lock);
}

static void drop_events(void)
{
	while (tt_node.events_first != NULL) {
		struct tt_event *e = tt_node.events_first;

		tt_node.events_first = e->next;
		if (e->kind == TT_EVENT_ACCEPT)
			close(e->fd);
		free(e);
	}
	tt_node.events_end = &tt_node.events_first;
}

void tt_node_wait(uint64_t until_ns)
{
	struct timespec t = { .tv_sec = (time_t)(until_ns / TT_NS), .tv_nsec = (long)(until_ns % TT_NS) };

	pthread_cond_timedwait(&tt_node.changed, &tt_node.lock, &t);
}

/* ---- the watcher ---- */

/* Out of descriptors: gives up the oldest stranger; without one, pauses, as the socket stays readable. */
static void accept_failed(struct tt_listener *l)
{
	struct epoll_event none = { .events = 0, .data.ptr = l };
	uint64_t before = tt_node.starved_ns;
	const char *words;

	if (errno != EMFILE && errno != ENFILE && errno != ENOMEM && errno != ENOBUFS)
		return;
	if (tt_node.half.first != NULL) {
		tt_conn_close(tt_node.half.first);
		return;
	}
	words = strerror(errno);
	l->paused = true;
	epoll_ctl(tt_node.epoll, EPOLL_CTL_MOD, l->src.fd, &none);
	tt_node.starved_ns = tt_now_ns();
	if (before == 0 || tt_node.starved_ns > before + STARVED_LOG_NS)
		tt_log(TT_LOG_WARN, "boot", "cannot accept connections: %s; raise the limit of open files", words);
}

static void accept_some(struct tt_listener *l)
{
	int i, fd;

	for (i = 0; i < BATCH; i++) {
		fd = accept4(l->src.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (fd < 0 && (errno == ECONNABORTED || errno == EINTR))
			continue;
		if (fd < 0) {
			accept_failed(l);
			return;
		}
		if (tt_node.leaving || tt_conn_new(fd, TT_CONN_HELLO, l->local) == NULL)
			close(fd);
	}
}

static bool pausing(uint64_t now)
{
	return tt_node.starved_ns != 0 && now < tt_node.starved_ns + STARVED_NS;
}

static void resume_listeners(uint64_t now)
{
	struct tt_source *s;

	if (pausing(now))
		return;
	for (s = tt_node.listeners; s != NULL; s = s->next) {
		struct epoll_event e = { .events = EPOLLIN, .data.ptr = s };
		struct tt_listener *l = (struct tt_listener *)s;

		if (l->paused && epoll_ctl(tt_node.epoll, EPOLL_CTL_MOD, s->fd, &e) == 0)
			l->paused = false;
	}
}

static void pid_ended(struct tt_peer *p)
{
	tt_node_unwatch(&p->pid_src);
	if (p->conn != NULL && p->conn->condemned == NULL)
		p->conn->condemned = strdup("its process ended without goodbye");
}

static void dispatch(struct tt_source *s, uint32_t events)
{
	uint64_t count;

	if (s->fd < 0)
		return;
	if (s->kind == TT_SRC_LISTEN)
		accept_some((struct tt_listener *)s);
	else if (s->kind == TT_SRC_CONN)
		tt_conn_ready((struct tt_conn *)s, events);
	else if (s->kind == TT_SRC_PID)
		pid_ended((struct tt_peer *)s);
	else if (read(s->fd, &count, sizeof(count)) < 0)
		return;
}

static void reap(void)
{
	while (tt_node.dead != NULL) {
		struct tt_source *s = tt_node.dead;

		tt_node.dead = s->next;
		if (s->kind == TT_SRC_CONN)
			tt_conn_free((struct tt_conn *)s);
		else
			free(s);
	}
}

static void check_lingered(uint64_t now)
{
	if (!tt_node.leaving || tt_node.lingered)
		return;
	if (tt_node.full.n > 0 && now < tt_node.linger_until)
		return;
	tt_node.lingered = true;
	pthread_cond_broadcast(&tt_node.changed);
}

/* Milliseconds until somebody's deadline may need a look. */
static int idle_ms(bool roots, uint64_t now)
{
	if (tt_node.events_first != NULL)
		return 0;
	if (tt_node.leaving)
		return 5;
	if (roots || tt_node.half.n > 0 || pausing(now))
		return 50;
	return tt_node.full.n > 0 ? 250 : 1000;
}

static void watch_round(void)
{
	struct epoll_event ev[BATCH];
	uint64_t now = tt_now_ns();
	bool roots;
	int i, n, ms;

	resume_listeners(now);
	tt_conns_tick(now);
	roots = tt_roots_tick(now);
	check_lingered(now);
	deliver();
	ms = idle_ms(roots, now);
	reap();
	pthread_mutex_unlock(&tt_node.lock);
	n = epoll_wait(tt_node.epoll, ev, BATCH, ms);
	pthread_mutex_lock(&tt_node.lock);
	for (i = 0; i < n; i++)
		dispatch(ev[i].data.ptr, ev[i].events);
	reap();
}

static void *watch(void *arg)
{
	pthread_mutex_lock(&tt_node.lock);
	while (!tt_node.stop)
		watch_round();
	pthread_mutex_unlock(&tt_node.lock);
	return NULL;
}

/* ---- fork: the child has none of this ---- */

static void before_fork(void)
{
	pthread_mutex_lock(&tt_node.lock);
}

static void after_fork_parent(void)
{
	pthread_mutex_unlock(&tt_node.lock);
}

static void close_list(struct tt_conn_list *l)
{
	struct tt_conn *c;

	for (c = l->first; c != NULL; c = c->next)
		close(c->src.fd);
	memset(l, 0, sizeof(*l));
}

/* Descriptors are closed, so that the parent's death shows at its peers; memory is left alone. The epoll set is
 * the parent's too and must not be changed. */
static void after_fork_child(void)
{
	static const pthread_mutex_t fresh = PTHREAD_MUTEX_INITIALIZER;
	struct tt_source *s;
	int i;

	pthread_mutex_unlock(&tt_node.lock);
	life = fresh;
	departing = false;
	if (!tt_node.running)
		return;
	for (s = tt_node.listeners; s != NULL; s = s->next)
		close(s->fd);
	close_list(&tt_node.half);
	close_list(&tt_node.full);
	for (i = 0; i < TT_PEER_BUCKETS; i++)
		for (struct tt_peer *p = tt_node.peers[i]; p != NULL; p = p->next)
			if (p->pid_src.fd >= 0)
				close(p->pid_src.fd);
	close(tt_node.epoll);
	close(tt_node.wake.fd);
	memset(&tt_node, 0, sizeof(tt_node));
	tt_node.lock = fresh;
	tt_node.epoll = tt_node.wake.fd = -1;
	tt_node.forked = true;
	refs = 0;
}

static void register_fork(void)
{
	pthread_atfork(before_fork, after_fork_parent, after_fork_child);
}

/* ---- start and end ---- */

static void read_boot_id(uint8_t out[16])
{
	FILE *f = fopen("/proc/sys/kernel/random/boot_id", "re");
	unsigned int v;
	int i = 0, dash;

	memset(out, 0, 16);
	if (f == NULL)
		return;
	while (i < 16) {
		if (fscanf(f, "%2x", &v) == 1)
			out[i++] = (uint8_t)v;
		else if ((dash = fgetc(f)) != '-')
			break;
	}
	fclose(f);
}

/* A host is where unix sockets reach: this boot of this machine, and in it this network namespace. */
static void read_host_id(uint8_t out[16])
{
	struct stat net = { .st_ino = 0 };

	read_boot_id(out);
	stat("/proc/self/ns/net", &net);
	uint64_t id = tt_hash64(out, 16, net.st_ino);
	memcpy(out, &id, sizeof(id));
}

static void find_links(void)
{
	struct tt_local_addr a[TT_MAX_ADDRS];
	int n = tt_addr_list("fe80::/10", a, TT_MAX_ADDRS), i, k;

	tt_node.nlinks = 0;
	for (i = 0; i < n; i++) {
		for (k = 0; k < tt_node.nlinks && tt_node.links[k] != a[i].addr.scope; k++)
			;
		if (k == tt_node.nlinks)
			tt_node.links[tt_node.nlinks++] = a[i].addr.scope;
	}
}

static tuttiResult_t describe_self(void)
{
	struct tt_proc *me = &tt_node.self;
	int i;

	memset(me, 0, sizeof(*me));
	do
		TRY(tt_random_bytes(&me->id, sizeof(me->id)));
	while (me->id == 0);
	me->version = TT_WIRE_VERSION;
	me->pid = (uint32_t)getpid();
	read_host_id(me->boot_id);
	if (gethostname(me->host, sizeof(me->host) - 1) != 0)
		strcpy(me->host, "unknown");
	tt_node.naddrs = tt_addr_list(tt_env_str("ADDRS"), tt_node.addrs, TT_MAX_ADDRS);
	if (tt_node.naddrs == 0)
		return tt_fail(tuttiSystemError, "no address to listen on: no interface of this host matches "
			       "TUTTI_ADDRS=\"%s\"", tt_env_str("ADDRS") != NULL ? tt_env_str("ADDRS") : "");
	find_links();
	me->naddrs = (uint16_t)tt_node.naddrs;
	for (i = 0; i < tt_node.naddrs; i++)
		me->addrs[i] = tt_node.addrs[i].addr;
	return tuttiSuccess;
}

/* The same port on every address. One that cannot be had at all (not the port's fault) is left out. */
static int listen_all(uint16_t want, uint16_t *got)
{
	struct tt_proc *me = &tt_node.self;
	uint16_t port = want, n = 0;
	int i, e = EADDRNOTAVAIL;

	for (i = 0; i < tt_node.naddrs; i++) {
		tt_node_listen(&tt_node.addrs[i].addr, &port, &e);
		if (e == EADDRINUSE || e == EACCES)
			return e;
		tt_node.addrs[i].listens = e == 0;
		if (e == 0)
			me->addrs[n++] = tt_node.addrs[i].addr;
	}
	me->naddrs = n;
	*got = port;
	return n > 0 ? 0 : e;
}

static tuttiResult_t open_listeners(void)
{
	const char *range = tt_env_str("PORT_RANGE");
	unsigned int lo = 0, hi = 0, tries = 32, i;
	int e = 0, fd;

	if (range != NULL && range[0] != 0) {
		if (sscanf(range, "%u-%u", &lo, &hi) != 2 || lo == 0 || hi < lo || hi > 65535)
			return tt_fail(tuttiInvalidUsage, "TUTTI_PORT_RANGE=\"%s\" is not lo-hi", range);
		tries = hi - lo + 1;
	}
	for (i = 0; i < tries; i++) {
		e = listen_all((uint16_t)(lo != 0 ? lo + i : 0), &tt_node.self.port);
		if (e == 0)
			break;
		tt_node_unlisten(NULL);
	}
	if (e != 0)
		return tt_fail(tuttiSystemError, "cannot listen on %d addresses%s%s: %s", tt_node.naddrs,
			       lo != 0 ? " in TUTTI_PORT_RANGE=" : "", lo != 0 ? range : "", strerror(e));
	e = tt_sock_listen_unix(tt_node.self.id, &fd);
	if (e == 0)
		return add_listener(fd, true);
	tt_log(TT_LOG_INFO, "boot", "no unix socket, same-host peers are met by TCP: %s", strerror(e));
	return tuttiSuccess;
}

static tuttiResult_t open_watch(void)
{
	pthread_condattr_t attr;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&tt_node.changed, &attr);
	pthread_condattr_destroy(&attr);
	tt_node.events_end = &tt_node.events_first;
	tt_node.silence_ns = (uint64_t)(tt_env_seconds("SILENCE") * 1e9);
	tt_node.wake.kind = TT_SRC_WAKE;
	tt_node.epoll = epoll_create1(EPOLL_CLOEXEC);
	tt_node.wake.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (tt_node.epoll < 0 || tt_node.wake.fd < 0 || tt_node_watch(&tt_node.wake, EPOLLIN) != 0)
		return tt_fail(tuttiSystemError, "cannot start the watcher: %s", strerror(errno));
	return tuttiSuccess;
}

static tuttiResult_t start_thread(void)
{
	sigset_t all, old;
	int e;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	e = pthread_create(&tt_node.watcher, NULL, watch, NULL);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (e != 0)
		return tt_fail(tuttiSystemError, "cannot start the watcher thread: %s", strerror(e));
	pthread_setname_np(tt_node.watcher, "tutti-watch");
	return tuttiSuccess;
}

/* Takes all down, half built or not; the watcher is gone. */
static void take_down(void)
{
	struct tt_node *n = &tt_node;

	while (n->half.first != NULL)
		tt_conn_close(n->half.first);
	while (n->full.first != NULL)
		tt_conn_close(n->full.first);
	tt_roots_free();
	drop_events();
	free_peers();
	tt_node_unlisten(NULL);
	reap();
	if (n->wake.fd >= 0)
		close(n->wake.fd);
	if (n->epoll >= 0)
		close(n->epoll);
	n->wake.fd = n->epoll = -1;
	n->at_base = n->at_port = 0;
	n->ndeaths = 0;
	n->starved_ns = 0;
	n->running = n->stop = n->leaving = n->lingered = false;
	pthread_cond_destroy(&n->changed);
}

static tuttiResult_t start(const struct tt_node_events *events)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	tuttiResult_t r;

	pthread_once(&once, register_fork);
	pthread_mutex_lock(&tt_node.lock);
	if (events != NULL)
		tt_node.events = *events;
	else
		memset(&tt_node.events, 0, sizeof(tt_node.events));
	TRY_GOTO(r, open_watch(), fail);
	TRY_GOTO(r, describe_self(), fail);
	TRY_GOTO(r, open_listeners(), fail);
	tt_node.running = true;
	tt_node.forked = false;
	tt_node.last_tick = tt_now_ns();
	TRY_GOTO(r, start_thread(), fail);
	pthread_mutex_unlock(&tt_node.lock);
	return tuttiSuccess;
fail:
	take_down();
	pthread_mutex_unlock(&tt_node.lock);
	return r;
}

tuttiResult_t tt_node_get(const struct tt_node_events *events)
{
	tuttiResult_t r = tuttiSuccess;

	pthread_mutex_lock(&life);
	while (departing)
		pthread_cond_wait(&departed, &life);
	if (refs == 0)
		r = start(events);
	if (r == tuttiSuccess)
		refs++;
	pthread_mutex_unlock(&life);
	return r;
}

/* Under the lock, by the last holder. */
static void linger(uint64_t ns)
{
	tt_node.leaving = true;
	tt_node.linger_until = tt_now_ns() + ns;
	tt_node_wake();
	while (!tt_node.lingered && tt_now_ns() < tt_node.linger_until + TT_NS)
		tt_node_wait(tt_node.linger_until + TT_NS);
}

void tt_node_linger(uint64_t ns)
{
	pthread_mutex_lock(&life);
	pthread_mutex_lock(&tt_node.lock);
	/* Others hold the node: this process is not leaving. */
	if (tt_node.running && refs == 1 && !tt_node.leaving) {
		departing = true;
		linger(tt_min(ns, TT_NS));
	}
	pthread_mutex_unlock(&tt_node.lock);
	pthread_mutex_unlock(&life);
}

/* The process ends with communicators alive: says goodbye whoever holds the node, if it can be had at once. */
void tt_node_exit(uint64_t ns)
{
	struct timespec until;

	clock_gettime(CLOCK_MONOTONIC, &until); /* that of the day may be set meanwhile */
	until.tv_sec += 1;
	if (pthread_mutex_clocklock(&tt_node.lock, CLOCK_MONOTONIC, &until))
		return;
	if (tt_node.running && !tt_node.leaving)
		linger(tt_min(ns, TT_NS));
	pthread_mutex_unlock(&tt_node.lock);
}

static void stop(void)
{
	pthread_mutex_lock(&tt_node.lock);
	if (!tt_node.running) {
		pthread_mutex_unlock(&tt_node.lock);
		return;
	}
	if (!tt_node.leaving)
		linger(TT_NS);
	tt_node.stop = true;
	tt_node_wake();
	pthread_mutex_unlock(&tt_node.lock);
	pthread_join(tt_node.watcher, NULL);
	pthread_mutex_lock(&tt_node.lock);
	take_down();
	pthread_mutex_unlock(&tt_node.lock);
}

void tt_node_put(void)
{
	pthread_mutex_lock(&life);
	if (refs > 0 && --refs == 0) {
		stop();
		departing = false;
		pthread_cond_broadcast(&departed);
	}
	pthread_mutex_unlock(&life);
}

const struct tt_proc *tt_node_self(void)
{
	return &tt_node.self;
}

void tt_node_offer(uint32_t transports)
{
	pthread_mutex_lock(&tt_node.lock);
	tt_node.self.transports = transports;
	pthread_mutex_unlock(&tt_node.lock);
}

tuttiResult_t tt_node_check(void)
{
	if (tt_node.running)
		return tuttiSuccess;
	if (tt_node.forked)
		return tt_fail(tuttiForked, "this process was forked from one that uses tutti; its "
			       "connections stay with the parent");
	return tt_fail(tuttiInternalError, "the node of this process is not running");
}

void tt_node_counts(uint64_t *sent, uint64_t *received)
{
	*sent = atomic_load_explicit(&tt_frames_sent, memory_order_relaxed);
	*received = atomic_load_explicit(&tt_frames_received, memory_order_relaxed);
}
