/* What a TCP peer may send: raw bytes, and frames with fields near the valid ones, on both sockets of a peer
 * while posts are in flight. Sanitizers watch the posted spans. SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tcp_conn.h"

#define T (&tt_tcp)

enum { NPOSTS = 8 };

struct input {
	const uint8_t *p;
	size_t n;
};

struct world {
	void *ep, *link;
	int to_link, answers;              /* the peer's ends: where it writes messages, where answers */
	struct tt_req req[2 * NPOSTS];
	void *span[2 * NPOSTS];
};

static const size_t sizes[NPOSTS] = { 4, 9000, 0, 4096, 300000, 1, 5000, 4097 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint8_t take(struct input *in)
{
	if (!in->n)
		return 0;
	in->n--;
	return *in->p++;
}

/* Small numbers mostly; the top bits make large ones. */
static uint64_t take_number(struct input *in)
{
	uint8_t b = take(in);

	if (b < 0xc0)
		return b;
	return b < 0xf0 ? sizes[b % NPOSTS] : UINT64_MAX >> (b & 3) * 16;
}

static tuttiResult_t dial(void *ctx, uint64_t peer, const char *transport, int index, int *fd)
{
	struct world *w = ctx;
	int sv[2];

	(void)peer, (void)transport, (void)index;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv))
		return tuttiSystemError;
	*fd = sv[0];
	w->answers = sv[1];
	return tuttiSuccess;
}

static bool open_world(struct world *w)
{
	struct tt_ep_config config = { .self = 1, .ctx = w, .dial = dial };
	int sv[2];

	setenv("TUTTI_TCP_SOCKETS", "1", 1);
	setenv("TUTTI_TCP_EAGER", "4096", 1);
	w->ep = calloc(1, T->ep_size);
	w->link = calloc(1, T->link_size);
	if (!w->ep || !w->link || T->ep_open(w->ep, &config))
		return false;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv))
		return false;
	w->to_link = sv[0];
	T->accept(w->ep, 2, 0, sv[1]);
	return T->link_open(w->ep, w->link, 2, 5) == tuttiSuccess;
}

static void close_world(struct world *w)
{
	T->link_close(w->link);
	T->ep_close(w->ep);
	close(w->to_link);
	close(w->answers);
	for (int i = 0; i < 2 * NPOSTS; i++) {
		if (w->span[i] && atomic_load(&w->req[i].state) == TT_REQ_POSTED)
			abort(); /* every post completes */
		free(w->span[i]);
	}
	free(w->link);
	free(w->ep);
}

static void post(struct world *w, int i, bool sends)
{
	int k = sends ? NPOSTS + i : i;
	size_t n = sizes[i];
	struct tt_note note = { 1, 2, 3 };
	enum tt_post got;

	if (w->span[k])
		return;
	w->span[k] = calloc(1, n ? n : 1);
	if (sends)
		got = T->send(w->link, w->span[k], n, &note, &w->req[k]);
	else
		got = T->recv(w->link, w->span[k], n, &w->req[k]);
	if (got != TT_POSTED)
		atomic_store(&w->req[k].state, TT_REQ_DONE);
}

static void frame(struct world *w, struct input *in, int fd)
{
	static uint8_t b[MSG_HEADER + 9000];
	struct msg_frame f = { .type = take(in) % 9 };
	uint8_t key = take(in);
	size_t n;

	f.key = key < 0xe0 ? 5 : key;
	f.side = key == 0xff;
	f.seq = (uint32_t)take_number(in);
	f.len = (uint32_t)take_number(in);
	f.credit = (uint32_t)take_number(in) / 8;
	f.token = 1 + (uint32_t)take_number(in) / 64;
	f.off = take_number(in);
	f.total = take(in) & 1 ? take_number(in) : f.len;
	tt_msg_pack(b, &f);
	n = tt_min(f.len, sizeof(b) - MSG_HEADER);
	(void)!send(fd, b, MSG_HEADER + n, MSG_DONTWAIT | MSG_NOSIGNAL);
	(void)w;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct world w = { 0 };
	struct input in = { data, size };

	if (!open_world(&w))
		return -1;
	while (in.n) {
		uint8_t what = take(&in);
		int fd = what & 1 ? w.answers : w.to_link;
		size_t n;

		switch (what >> 1 & 3) {
		case 0:
			n = tt_min(take(&in), in.n);
			(void)!send(fd, in.p, n, MSG_DONTWAIT | MSG_NOSIGNAL);
			in.p += n;
			in.n -= n;
			break;
		case 1:
			post(&w, what >> 3 & (NPOSTS - 1), what & 64);
			break;
		case 2:
		case 3:
			frame(&w, &in, fd);
			break;
		}
		if (what & 128 || (what >> 1 & 3) == 0)
			T->poll(w.ep);
	}
	for (int i = 0; i < 4; i++)
		T->poll(w.ep);
	close_world(&w);
	return 0;
}
