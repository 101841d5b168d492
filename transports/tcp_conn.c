/* TCP: one socket: frames to bytes and back. What comes from the peer is checked here and in
 * msg_message.c; nothing it sends may reach memory that was not posted for it.
 * SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "tcp_conn.h"

static int epoll_of(const struct msg_peer *p)
{
	return ((struct tcp_ep *)p->ep)->epoll;
}

struct msg_conn *tt_tcp_conn_new(struct msg_peer *p, int fd, int index, bool outgoing)
{
	struct tcp_conn *c = calloc(1, sizeof(*c));
	struct epoll_event ev = { .events = EPOLLIN, .data.ptr = c };
	int one = 1;
	struct sockaddr_storage a = { 0 };
	socklen_t len = sizeof(a);

	if (!c || epoll_ctl(epoll_of(p), EPOLL_CTL_ADD, fd, &ev)) {
		free(c);
		return NULL;
	}
	/* Not for sockets of other families: those refuse, and need not. */
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	c->inet = !getsockname(fd, (struct sockaddr *)&a, &len) && a.ss_family != AF_UNIX;
	c->fd = fd;
	tt_msg_conn_join(&c->base, p, index, outgoing);
	return &c->base;
}

static void drop_output(struct tcp_conn *c)
{
	if (!tt_tcp_conn_idle(c))
		c->base.peer->ep->nwriting--;
	free(c->cur_own);
	c->cur_own = NULL;
	c->cur_flow = NULL;
	c->busy = false;
	c->opos = c->olen = 0;
}

void tt_tcp_conn_close(struct msg_conn *b)
{
	struct tcp_conn *c = (struct tcp_conn *)b;

	drop_output(c);
	/* A child of fork may hold it too: close alone would end neither the watch nor the stream. */
	(void)epoll_ctl(epoll_of(b->peer), EPOLL_CTL_DEL, c->fd, NULL);
	(void)shutdown(c->fd, SHUT_RDWR);
	close(c->fd);
	free(c);
}

void tt_tcp_conn_lost(struct tcp_conn *c, int err)
{
	struct msg_peer *p = c->base.peer;
	bool cut = c->left || c->ipos != c->ilen;

	if (c->base.lost)
		return;
	c->base.lost = true;
	drop_output(c);
	(void)epoll_ctl(epoll_of(p), EPOLL_CTL_DEL, c->fd, NULL);
	tt_msg_peer_closing(p, err, NULL);
	/* What the lost socket still owed cannot come; otherwise the others may hold the rest. */
	if (!c->base.outgoing && (err || cut))
		tt_msg_peer_break(p, p->error, "%s%s", p->why, cut ? " in the middle of a message" : "");
}

/* ---- output ---- */

bool tt_tcp_conn_put(struct msg_conn *b, const struct msg_frame *f)
{
	struct tcp_conn *c = (struct tcp_conn *)b;

	if (b->lost)
		return true;
	if (c->opos == c->olen)
		c->opos = c->olen = 0;
	if (c->olen + MSG_HEADER > TCP_OBUF) {
		memmove(c->obuf, c->obuf + c->opos, c->olen - c->opos);
		c->olen -= c->opos;
		c->opos = 0;
	}
	if (c->olen + MSG_HEADER > TCP_OBUF)
		return false;
	if (tt_tcp_conn_idle(c))
		c->base.peer->ep->nwriting++;
	tt_msg_pack(c->obuf + c->olen, f);
	c->olen += MSG_HEADER;
	return true;
}

void tt_tcp_conn_start(struct msg_conn *b, const struct msg_frame *f, const void *body, struct msg_flow *flow)
{
	struct tcp_conn *c = (struct tcp_conn *)b;

	c->base.peer->ep->nwriting++;
	c->busy = true;
	c->cur_flow = flow;
	c->cur_seq = f->seq;
	tt_msg_pack(c->cur_head, f);
	c->cur_body = body;
	c->cur_len = f->len;
	c->cur_sent = 0;
	c->cur_inline = f->len && f->len <= TCP_INLINE;
	if (c->cur_inline)
		memcpy(c->cur_head + MSG_HEADER, body, f->len);
}

static int output_spans(const struct tcp_conn *c, struct iovec v[3])
{
	size_t head = MSG_HEADER + (c->cur_inline ? c->cur_len : 0);
	int n = 0;

	if (c->busy && c->cur_sent < head)
		v[n++] = (struct iovec){ (void *)(c->cur_head + c->cur_sent), head - c->cur_sent };
	if (c->busy && c->cur_len && !c->cur_inline) {
		size_t off = c->cur_sent > MSG_HEADER ? c->cur_sent - MSG_HEADER : 0;

		v[n++] = (struct iovec){ (void *)(c->cur_body + off), c->cur_len - off };
	}
	if (c->olen > c->opos)
		v[n++] = (struct iovec){ (void *)(c->obuf + c->opos), c->olen - c->opos };
	return n;
}

static void output_sent(struct tcp_conn *c, size_t n)
{
	if (c->busy) {
		size_t k = tt_min(n, MSG_HEADER + c->cur_len - c->cur_sent);

		c->cur_sent += k;
		n -= k;
		if (c->cur_sent == MSG_HEADER + c->cur_len) {
			struct msg_flow *f = c->cur_flow;

			c->busy = false;
			c->cur_flow = NULL;
			free(c->cur_own);
			c->cur_own = NULL;
			if (f)
				tt_msg_written(f, c->cur_seq, c->cur_len);
		}
	}
	c->opos += n;
	if (n)
		c->base.peer->ep->owe_retry = true;
}

/* One span is the frequent case, and cheaper without a msghdr. */
static ssize_t push(int fd, struct iovec *v, int n)
{
	struct msghdr m = { .msg_iov = v, .msg_iovlen = (size_t)n };

	if (n == 1)
		return send(fd, v->iov_base, v->iov_len, MSG_DONTWAIT | MSG_NOSIGNAL);
	return sendmsg(fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
}

void tt_tcp_conn_write(struct msg_conn *b)
{
	struct tcp_conn *c = (struct tcp_conn *)b;
	struct msg_ep *ep = b->peer->ep;
	int kept = errno;

	while (!tt_tcp_conn_idle(c)) {
		struct iovec v[3];
		ssize_t n = push(c->fd, v, output_spans(c, v));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			if (errno != EAGAIN && errno != ENOBUFS)
				tt_tcp_conn_lost(c, errno);
			break;
		}
		ep->moved += (size_t)n;
		output_sent(c, (size_t)n);
		if (tt_tcp_conn_idle(c))
			ep->nwriting--;
	}
	errno = kept;
}

void tt_tcp_conn_forget(struct msg_conn *b, struct msg_flow *f)
{
	struct tcp_conn *c = (struct tcp_conn *)b;

	if (c->sink_flow == f) {
		c->sink_flow = NULL;
		c->sink = NULL;
	}
	if (c->cur_flow != f)
		return;
	c->cur_flow = NULL;
	if (!c->cur_len || c->cur_inline)
		return;
	c->cur_own = malloc(c->cur_len);
	if (!c->cur_own) {
		tt_msg_peer_break(c->base.peer, tuttiSystemError, "no memory to finish a frame to process %016llx",
			      (unsigned long long)c->base.peer->id);
		drop_output(c);
		return;
	}
	memcpy(c->cur_own, c->cur_body, c->cur_len);
	c->cur_body = c->cur_own;
}

/* ---- input ---- */

static void payload_in(struct tcp_conn *c, size_t n)
{
	c->left -= n;
	if (c->sink)
		c->sink += n;
	if (!c->left && c->sink_flow) {
		struct msg_flow *f = c->sink_flow;

		c->sink_flow = NULL;
		c->sink = NULL;
		tt_msg_chunk_done(f, c->sink_seq, c->sink_len);
	}
}

void tt_tcp_conn_data(struct msg_conn *b, struct msg_flow *flow, const struct msg_frame *f, struct tt_req *req)
{
	struct tcp_conn *c = (struct tcp_conn *)b;

	c->left = c->sink_len = f->len;
	c->sink = req ? (uint8_t *)req->p + f->off : NULL;
	c->sink_flow = req ? flow : NULL;
	c->sink_seq = f->seq;
}

/* One frame, or what is there of a chunk's payload; false: more bytes are needed. */
static bool parse_one(struct tcp_conn *c)
{
	struct msg_frame f;
	const uint8_t *b = c->ibuf + c->ipos;
	size_t have = c->ilen - c->ipos;
	const char *bad;

	if (c->left) {
		size_t n = tt_min(have, c->left);

		if (n && c->sink)
			memcpy(c->sink, b, n);
		c->ipos += n;
		if (n)
			payload_in(c, n);
		return n;
	}
	if (have < MSG_HEADER)
		return false;
	bad = tt_msg_unpack(&f, b, TCP_CHUNK);
	if (bad) {
		tt_msg_refuse(&c->base, bad);
		return false;
	}
	if (f.type == MSG_EAGER && have < MSG_HEADER + f.len)
		return false;
	c->ipos += MSG_HEADER + (f.type == MSG_EAGER ? f.len : 0);
	tt_msg_frame(&c->base, &f, b + MSG_HEADER);
	return true;
}

/* A chunk goes straight to its place, with room for the next header behind it. */
static int input_spans(struct tcp_conn *c, struct iovec v[2])
{
	if (c->ipos) {
		memmove(c->ibuf, c->ibuf + c->ipos, c->ilen - c->ipos);
		c->ilen -= c->ipos;
		c->ipos = 0;
	}
	if (!c->left) {
		v[0] = (struct iovec){ c->ibuf + c->ilen, TCP_IBUF - c->ilen };
		return 1;
	}
	if (c->sink)
		v[0] = (struct iovec){ c->sink, c->left };
	else
		v[0] = (struct iovec){ ((struct tcp_ep *)c->base.peer->ep)->scratch, tt_min(c->left, TCP_SCRATCH) };
	v[1] = (struct iovec){ c->ibuf, MSG_HEADER };
	return v[0].iov_len == c->left ? 2 : 1;
}

static void input_got(struct tcp_conn *c, size_t n, bool direct, size_t first)
{
	c->base.peer->ep->moved += n;
	if (direct) {
		size_t k = tt_min(n, first);

		payload_in(c, k);
		n -= k;
	}
	c->ilen += n;
	while (!c->base.lost && parse_one(c))
		;
}

static ssize_t pull(int fd, struct iovec *v, int n)
{
	struct msghdr m = { .msg_iov = v, .msg_iovlen = (size_t)n };

	if (n == 1)
		return recv(fd, v->iov_base, v->iov_len, MSG_DONTWAIT);
	return recvmsg(fd, &m, MSG_DONTWAIT);
}

void tt_tcp_conn_read(struct msg_conn *b, int rounds)
{
	struct tcp_conn *c = (struct tcp_conn *)b;
	int kept = errno;

	while (rounds-- > 0 && !c->base.lost) {
		struct iovec v[2];
		bool direct = c->left > 0;
		int spans = input_spans(c, v);
		size_t want = v[0].iov_len + (spans == 2 ? v[1].iov_len : 0);
		ssize_t n = pull(c->fd, v, spans);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			break;
		if (n <= 0) {
			tt_tcp_conn_lost(c, n ? errno : 0);
			break;
		}
		input_got(c, (size_t)n, direct, v[0].iov_len);
		if ((size_t)n < want)
			break;
	}
	errno = kept;
}
