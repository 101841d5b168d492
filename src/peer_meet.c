/* How the ranks of a device group meet: the first listens on a unix socket whose name only members know, and hands to
 * all what each has brought: how to get at its memory, with descriptors. SPDX-License-Identifier: Apache-2.0 */
#include "peer.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "hmac.h"

struct hello { /* of a member; from the first, once for each */
	uint8_t token[TT_SHA256_BYTES];
	uint32_t index, size;
	struct tt_share share;
};

struct tt_meeting {
	const struct tt_peers_config *g;
	int listener, socks[TT_PEERS_MAX]; /* at the first: by index; elsewhere socks[0] */
	uint8_t token[TT_SHA256_BYTES];
};

static void make_token(const struct tt_peers_config *g, const char *what, uint8_t out[TT_SHA256_BYTES])
{
	char text[64];
	int n = snprintf(text, sizeof(text), "device group %s %016llx %d", what, (unsigned long long)g->id,
			 g->members[0].rank);

	tt_hmac(g->secret, 32, text, (size_t)n, out);
}

static socklen_t name_of(const struct tt_peers_config *g, struct sockaddr_un *a)
{
	uint8_t token[TT_SHA256_BYTES];
	int n;

	make_token(g, "name", token);
	*a = (struct sockaddr_un){ .sun_family = AF_UNIX };
	n = snprintf(a->sun_path + 1, sizeof(a->sun_path) - 1, "tutti-device-");
	for (int i = 0; i < 16; i++)
		n += snprintf(a->sun_path + 1 + n, sizeof(a->sun_path) - 1 - (size_t)n, "%02x", token[i]);
	return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n);
}

static bool is_late(const struct tt_peers_config *g)
{
	return tt_now_ns() > g->deadline_ns || (g->stop && atomic_load(g->stop));
}

static tuttiResult_t lost(const struct tt_peers_config *g, int index, const char *why)
{
	return tt_fail(is_late(g) ? tuttiTimeout : tuttiRemoteError, "device links: rank %d did not meet rank %d: %s; "
		       "its own error says why", g->members[g->me].rank, g->members[index].rank, why);
}

static bool readable(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	return poll(&p, 1, 20) > 0;
}

/* ---- messages ---- */

static tuttiResult_t put(struct tt_meeting *m, int index, int sock, const void *p, size_t n, int fd)
{
	union {
		char buf[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = { .buf = { 0 } };
	struct iovec iov = { (void *)p, n };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	struct cmsghdr *h;

	if (fd >= 0) {
		msg.msg_control = control.buf;
		msg.msg_controllen = sizeof(control.buf);
		h = CMSG_FIRSTHDR(&msg);
		h->cmsg_level = SOL_SOCKET;
		h->cmsg_type = SCM_RIGHTS;
		h->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(h), &fd, sizeof(int));
	}
	if (sendmsg(sock, &msg, MSG_NOSIGNAL) == (ssize_t)n)
		return tuttiSuccess;
	return lost(m->g, index, strerror(errno));
}

static tuttiResult_t take(struct tt_meeting *m, int index, int sock, void *p, size_t n, int *fd)
{
	union {
		char buf[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec iov = { p, n };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.buf,
			      .msg_controllen = sizeof(control.buf) };
	struct cmsghdr *h;
	ssize_t got;

	*fd = -1;
	while (!readable(sock))
		if (is_late(m->g))
			return lost(m->g, index, "it is late");
	got = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);
	h = got > 0 ? CMSG_FIRSTHDR(&msg) : NULL;
	if (h && h->cmsg_level == SOL_SOCKET && h->cmsg_type == SCM_RIGHTS)
		memcpy(fd, CMSG_DATA(h), sizeof(int));
	if (got == (ssize_t)n)
		return tuttiSuccess;
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
	return lost(m->g, index, got < 0 ? strerror(errno) : "it has left");
}

/* ---- the first ---- */

static tuttiResult_t listen_for(struct tt_meeting *m)
{
	struct sockaddr_un a;
	socklen_t n = name_of(m->g, &a);

	m->listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (m->listener >= 0 && !bind(m->listener, (struct sockaddr *)&a, n) && !listen(m->listener, TT_PEERS_MAX))
		return tuttiSuccess;
	return tt_fail(tuttiSystemError, "device links: no socket to meet at: %s", strerror(errno));
}

/* Who does not know the token is no member, and is not waited for. */
static tuttiResult_t greet(struct tt_meeting *m, struct tt_peer_table *t, int *left)
{
	struct hello h;
	int fd, sock;

	if (!readable(m->listener))
		return is_late(m->g) ? tt_fail(tuttiTimeout, "device links: %d of %d ranks have not come", *left,
					       m->g->n) : tuttiSuccess;
	sock = accept4(m->listener, NULL, NULL, SOCK_CLOEXEC);
	if (sock < 0)
		return tuttiSuccess;
	if (take(m, 0, sock, &h, sizeof(h), &fd) != tuttiSuccess || !tt_hmac_equal(h.token, m->token) ||
	    h.index >= (uint32_t)m->g->n || m->socks[h.index] >= 0 || !h.index) {
		if (fd >= 0)
			close(fd);
		close(sock);
		return tuttiSuccess;
	}
	m->socks[h.index] = sock;
	t->shares[h.index] = h.share;
	t->fds[h.index] = fd;
	--*left;
	return tuttiSuccess;
}

static tuttiResult_t make_words(size_t n, int *out)
{
	*out = tt_memfd(n);
	if (*out < 0)
		return tt_fail(tuttiSystemError, "device links: no shared memory of %zu bytes: %s", n, strerror(errno));
	return tuttiSuccess;
}

static tuttiResult_t hand_out(struct tt_meeting *m, const struct tt_peer_table *t, int to, size_t words)
{
	struct hello h = { .size = (uint32_t)words };

	memcpy(h.token, m->token, sizeof(h.token));
	TRY(put(m, to, m->socks[to], &h, sizeof(h), t->words_fd));
	for (int i = 0; i < m->g->n; i++) {
		h.index = (uint32_t)i;
		h.share = t->shares[i];
		TRY(put(m, to, m->socks[to], &h, sizeof(h), t->fds[i]));
	}
	return tuttiSuccess;
}

static tuttiResult_t lead(struct tt_meeting *m, size_t words, struct tt_peer_table *t)
{
	int left = m->g->n - 1;

	TRY(make_words(words, &t->words_fd));
	TRY(listen_for(m));
	while (left)
		TRY(greet(m, t, &left));
	for (int i = 1; i < m->g->n; i++)
		TRY(hand_out(m, t, i, words));
	return tuttiSuccess;
}

/* ---- the others ---- */

static tuttiResult_t reach(struct tt_meeting *m)
{
	struct sockaddr_un a;
	socklen_t n = name_of(m->g, &a);

	m->socks[0] = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (m->socks[0] < 0)
		return tt_fail(tuttiSystemError, "socket: %s; raise the limit of open files", strerror(errno));
	while (connect(m->socks[0], (struct sockaddr *)&a, n)) {
		if (is_late(m->g) || (errno != ECONNREFUSED && errno != EAGAIN && errno != EINTR))
			return lost(m->g, 0, strerror(errno));
		usleep(1000);
	}
	return tuttiSuccess;
}

static tuttiResult_t come(struct tt_meeting *m, size_t words, struct tt_peer_table *t)
{
	struct hello h = { .index = (uint32_t)m->g->me, .share = t->shares[m->g->me] };
	int fd;

	memcpy(h.token, m->token, sizeof(h.token));
	TRY(reach(m));
	TRY(put(m, 0, m->socks[0], &h, sizeof(h), t->fds[m->g->me]));
	for (int i = -1; i < m->g->n; i++) {
		TRY(take(m, 0, m->socks[0], &h, sizeof(h), &fd));
		if (i < 0)
			t->words_fd = fd;
		else if (i != m->g->me)
			t->fds[i] = fd;
		else if (fd >= 0)
			close(fd);
		if (!tt_hmac_equal(h.token, m->token) || h.size != words || (i >= 0 && h.index != (uint32_t)i))
			return lost(m->g, 0, "it says something else");
		if (i >= 0)
			t->shares[i] = h.share;
	}
	return tuttiSuccess;
}

/* ---- both ---- */

tuttiResult_t tt_peers_meet(const struct tt_peers_config *g, size_t words, const struct tt_share *mine, int fd,
			    struct tt_peer_table *t, struct tt_meeting **out)
{
	struct tt_meeting *m = malloc(sizeof(*m));

	if (!m)
		return tt_fail(tuttiSystemError, "no memory to meet");
	*m = (struct tt_meeting){ .g = g, .listener = -1 };
	*out = m;
	make_token(g, "member", m->token);
	memset(t, 0, sizeof(*t));
	t->words_fd = -1;
	for (int i = 0; i < TT_PEERS_MAX; i++)
		m->socks[i] = t->fds[i] = -1;
	t->shares[g->me] = *mine;
	t->fds[g->me] = fd;
	return g->me ? come(m, words, t) : lead(m, words, t);
}

tuttiResult_t tt_peers_agree(struct tt_meeting *m, struct tt_peer_says mine, struct tt_peer_table *t)
{
	int n = m->g->n, fd;

	t->says[m->g->me] = mine;
	if (m->g->me) {
		TRY(put(m, 0, m->socks[0], &mine, sizeof(mine), -1));
		return take(m, 0, m->socks[0], t->says, sizeof(t->says), &fd);
	}
	for (int i = 1; i < n; i++)
		TRY(take(m, i, m->socks[i], &t->says[i], sizeof(t->says[i]), &fd));
	for (int i = 1; i < n; i++)
		TRY(put(m, i, m->socks[i], t->says, sizeof(t->says), -1));
	return tuttiSuccess;
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

void tt_peers_part(struct tt_meeting *m, struct tt_peer_table *t)
{
	if (!m)
		return;
	close_fd(&m->listener);
	close_fd(&t->words_fd);
	for (int i = 0; i < TT_PEERS_MAX; i++) {
		close_fd(&m->socks[i]);
		close_fd(&t->fds[i]);
	}
	free(m);
}
