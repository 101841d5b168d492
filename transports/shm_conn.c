/* Endpoint and connections of the shm transport. A connection is set up by one message from the sender,
 * without an answer: layout, memfd and eventfds. SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "shm_conn.h"

static const uint64_t hello_magic = 0x6f6c6c6568736d74;
enum { HELLO_FDS = 3 };

static tuttiResult_t no_fd(const char *what)
{
	return tt_fail(tuttiSystemError, "shm: no %s: %s; raise the limit of open files", what,
		       strerror(errno));
}

/* Edge triggered: the counter of an eventfd need never be read, each write wakes again. */
static bool watch(struct shm_ep *ep, int fd)
{
	struct epoll_event ev = { .events = EPOLLIN | EPOLLET };

	return epoll_ctl(ep->epfd, EPOLL_CTL_ADD, fd, &ev) == 0;
}

tuttiResult_t tt_shm_ep_open(struct shm_ep *ep, const struct tt_ep_config *config)
{
	ep->config = *config;
	ep->efd = ep->epfd = -1;
	ep->open = true;
	ep->efd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (ep->efd < 0)
		return no_fd("eventfd");
	ep->epfd = epoll_create1(EPOLL_CLOEXEC);
	if (ep->epfd < 0 || !watch(ep, ep->efd))
		return no_fd("epoll");
	return tuttiSuccess;
}

static void close_fd(int *fd)
{
	int e = errno;

	if (*fd >= 0)
		close(*fd);
	*fd = -1;
	errno = e;
}

static void conn_free(struct shm_conn *c)
{
	while (c->zombies != NULL) {
		struct shm_tx *tx = c->zombies;

		c->zombies = tx->next;
		free(tx);
	}
	tt_shm_unmap(&c->out);
	tt_shm_unmap(&c->in);
	close_fd(&c->out_bell);
	close_fd(&c->in_bell);
	close_fd(&c->in_wake);
	close_fd(&c->sock);
	free(c);
}

void tt_shm_ep_close(struct shm_ep *ep)
{
	struct shm_arrival *a;

	if (!ep->open)
		return;
	a = atomic_exchange_explicit(&ep->arrivals, NULL, memory_order_acq_rel);
	while (a != NULL) {
		struct shm_arrival *next = a->next;

		close_fd(&a->fd);
		free(a);
		a = next;
	}
	while (ep->conns != NULL) {
		struct shm_conn *c = ep->conns;

		ep->conns = c->next;
		conn_free(c);
	}
	close_fd(&ep->epfd);
	close_fd(&ep->efd);
	ep->open = false;
}

struct shm_conn *tt_shm_conn_get(struct shm_ep *ep, uint64_t peer)
{
	struct shm_conn *c;

	for (c = ep->conns; c != NULL; c = c->next) {
		if (c->peer == peer)
			return c;
	}
	c = calloc(1, sizeof(*c));
	if (c == NULL)
		return NULL;
	c->peer = peer;
	c->out_bell = c->in_bell = c->in_wake = c->sock = -1;
	c->next = ep->conns;
	ep->conns = c;
	return c;
}

/* ---- the one message ---- */

static tuttiResult_t hello_send(int sock, const int fds[HELLO_FDS])
{
	union {
		char buf[CMSG_SPACE(HELLO_FDS * sizeof(int))];
		struct cmsghdr align;
	} control = { .buf = { 0 } };
	uint64_t magic = hello_magic;
	struct iovec iov = { &magic, sizeof(magic) };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.buf,
			    .msg_controllen = sizeof(control.buf) };
	struct cmsghdr *h = CMSG_FIRSTHDR(&m);
	int domain = 0;
	socklen_t len = sizeof(domain);

	if (getsockopt(sock, SOL_SOCKET, SO_DOMAIN, &domain, &len) != 0 || domain != AF_UNIX)
		return tt_fail(tuttiUnsupported, "shm: the peer was not reached by a unix socket; "
			       "leave shm out of TUTTI_TRANSPORTS or share the network namespace");
	h->cmsg_level = SOL_SOCKET;
	h->cmsg_type = SCM_RIGHTS;
	h->cmsg_len = CMSG_LEN(HELLO_FDS * sizeof(int));
	memcpy(CMSG_DATA(h), fds, HELLO_FDS * sizeof(int));
	if (sendmsg(sock, &m, MSG_NOSIGNAL | MSG_DONTWAIT) != sizeof(magic))
		return tt_fail(tuttiSystemError, "shm: cannot pass memory to the peer: %s",
			       strerror(errno));
	return tuttiSuccess;
}

/* Returns 1 with the descriptors, 0 when it has not come yet, -1 when it will not. */
static int hello_receive(int sock, int fds[HELLO_FDS])
{
	union {
		char buf[CMSG_SPACE(HELLO_FDS * sizeof(int))];
		struct cmsghdr align;
	} control;
	uint64_t magic = 0;
	struct iovec iov = { &magic, sizeof(magic) };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.buf,
			    .msg_controllen = sizeof(control.buf) };
	ssize_t n = recvmsg(sock, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	struct cmsghdr *h;
	size_t got = 0;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	h = n > 0 ? CMSG_FIRSTHDR(&m) : NULL;
	if (h != NULL && h->cmsg_level == SOL_SOCKET && h->cmsg_type == SCM_RIGHTS) {
		got = (h->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		memcpy(fds, CMSG_DATA(h), tt_min(got, HELLO_FDS) * sizeof(int));
	}
	if (n == sizeof(magic) && magic == hello_magic && got == HELLO_FDS)
		return 1;
	for (size_t i = 0; i < tt_min(got, HELLO_FDS); i++)
		close(fds[i]);
	return -1;
}

static tuttiResult_t dial(struct shm_ep *ep, struct shm_conn *c, int memfd)
{
	int sock = -1, fds[HELLO_FDS];
	tuttiResult_t r;

	c->out_bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (c->out_bell < 0)
		return no_fd("eventfd");
	TRY(ep->config.dial(ep->config.ctx, c->peer, "shm", 0, &sock));
	fds[0] = memfd;
	fds[1] = c->out_bell;
	fds[2] = ep->efd;
	r = hello_send(sock, fds);
	close_fd(&sock);
	return r;
}

tuttiResult_t tt_shm_conn_dial(struct shm_ep *ep, struct shm_conn *c)
{
	int memfd = -1;
	tuttiResult_t r;

	if (c->out.head != NULL)
		return tuttiSuccess;
	TRY(tt_shm_create(&c->out, &c->pool, &memfd));
	r = dial(ep, c, memfd);
	close_fd(&memfd);
	if (r != tuttiSuccess) {
		close_fd(&c->out_bell);
		tt_shm_unmap(&c->out);
		memset(&c->pool, 0, sizeof(c->pool));
	}
	return r;
}

static void conn_listen(struct shm_ep *ep, struct shm_conn *c)
{
	int fds[HELLO_FDS], r = hello_receive(c->sock, fds);

	if (r == 0)
		return;
	close_fd(&c->sock);
	ep->nsocks--;
	if (r > 0 && tt_shm_map(&c->in, fds[0]) == tuttiSuccess && watch(ep, fds[1])) {
		c->in_wake = fds[1];
		c->in_bell = fds[2];
		close_fd(&fds[0]);
		return;
	}
	for (int i = 0; r > 0 && i < HELLO_FDS; i++)
		close_fd(&fds[i]);
	c->gone = true;
	c->why_gone = "its shared memory could not be set up";
}

static void take_arrival(struct shm_ep *ep, struct shm_arrival *a)
{
	struct shm_conn *c = tt_shm_conn_get(ep, a->peer);

	if (c == NULL || c->sock >= 0 || c->in.head != NULL) {
		tt_log(TT_LOG_WARN, "shm", "a second connection from one process is dropped");
		close_fd(&a->fd);
		return;
	}
	c->sock = a->fd;
	ep->nsocks++;
	if (!watch(ep, c->sock))
		tt_log(TT_LOG_WARN, "shm", "cannot watch a socket: %s", strerror(errno));
	conn_listen(ep, c);
}

/* The stack of arrivals turned round, so that they are taken in the order in which they came. */
static struct shm_arrival *take_all(struct shm_ep *ep)
{
	struct shm_arrival *a, *out = NULL;

	a = atomic_exchange_explicit(&ep->arrivals, NULL, memory_order_acq_rel);
	while (a != NULL) {
		struct shm_arrival *next = a->next;

		a->next = out;
		out = a;
		a = next;
	}
	return out;
}

void tt_shm_take_in(struct shm_ep *ep)
{
	struct shm_arrival *a = NULL;

	if (atomic_load_explicit(&ep->arrivals, memory_order_relaxed) != NULL)
		a = take_all(ep);
	while (a != NULL) {
		struct shm_arrival *next = a->next;

		take_arrival(ep, a);
		free(a);
		a = next;
	}
	if (ep->nsocks == 0 || (!ep->check && ++ep->polls % 64 != 0))
		return;
	ep->check = false;
	for (struct shm_conn *c = ep->conns; c != NULL; c = c->next) {
		if (c->sock >= 0)
			conn_listen(ep, c);
	}
}

void tt_shm_arrive(struct shm_ep *ep, uint64_t peer, int fd)
{
	struct shm_arrival *a = malloc(sizeof(*a)), *old;

	if (a == NULL) {
		close_fd(&fd);
		return;
	}
	a->peer = peer;
	a->fd = fd;
	old = atomic_load_explicit(&ep->arrivals, memory_order_relaxed);
	do {
		a->next = old;
	} while (!atomic_compare_exchange_weak_explicit(&ep->arrivals, &old, a,
							memory_order_seq_cst,
							memory_order_relaxed));
	eventfd_write(ep->efd, 1);
}

/* ---- sending ends ---- */

static bool other_closed(const struct shm_tx *tx)
{
	return atomic_load_explicit(&tx->area->rx_closed, memory_order_acquire) != 0;
}

/* The receiver has gone, so what it did not take is taken back. */
static void tx_free(struct shm_conn *c, struct shm_tx *tx)
{
	for (; tx->head != tx->tail; tx->head++) {
		uint16_t slot = tx->slot[tx->head % SHM_RING];

		if (tx->kind[tx->head % SHM_RING] != SHM_IN_POOL)
			continue;
		c->pool.free[(c->pool.first + c->pool.count++) % SHM_MAX_SLOTS] = slot;
		c->pool.owner[slot] = NULL;
	}
	tt_shm_area_remove(&c->out, tx->area);
	free(tx);
}

static void bury_zombies(struct shm_conn *c)
{
	for (struct shm_tx **p = &c->zombies; *p != NULL;) {
		struct shm_tx *tx = *p;

		if (!other_closed(tx)) {
			p = &tx->next;
			continue;
		}
		*p = tx->next;
		tx_free(c, tx);
	}
}

struct shm_tx *tt_shm_tx_open(struct shm_conn *c, uint64_t key)
{
	struct shm_tx *tx = calloc(1, sizeof(*tx));

	if (tx == NULL)
		return NULL;
	bury_zombies(c);
	tx->region = &c->out;
	tx->pool = &c->pool;
	tx->area = tt_shm_area_add(&c->out, key);
	if (tx->area != NULL)
		return tx;
	free(tx);
	return NULL;
}

void tt_shm_tx_close(struct shm_conn *c, struct shm_tx *tx)
{
	atomic_store_explicit(&tx->area->tx_closed, 1, memory_order_seq_cst);
	tt_shm_sent(c);
	tx->next = c->zombies;
	c->zombies = tx;
	bury_zombies(c);
}

void tt_shm_ring(_Atomic uint32_t *asleep, int bell)
{
	int e = errno;

	if (atomic_exchange_explicit(asleep, 0, memory_order_seq_cst) != 0)
		eventfd_write(bell, 1);
	errno = e;
}

size_t tt_shm_ep_memory(const struct shm_ep *ep)
{
	size_t n = 0;

	for (const struct shm_conn *c = ep->conns; c != NULL; c = c->next) {
		n += sizeof(*c);
		if (c->out.head == NULL)
			continue;
		n += sizeof(struct shm_head) + SHM_AREAS * sizeof(struct shm_dir);
		n += c->out.nused * (sizeof(struct shm_area) + sizeof(struct shm_tx));
		n += c->out.nslots * c->out.slot_size;
	}
	return n;
}
