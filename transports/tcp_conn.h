/* Inside the TCP transport: a conn is one socket: frames to bytes and back (tcp_conn.c). What goes by which
 * and when: msg.h. SPDX-License-Identifier: Apache-2.0 */
#ifndef TT_TCP_CONN_H
#define TT_TCP_CONN_H

#include "msg.h"

#define TCP_CHUNK ((size_t)256 << 10)
#define TCP_IBUF ((size_t)32 << 10)   /* holds the longest eager frame */
#define TCP_OBUF ((size_t)4 << 10)
#define TCP_INLINE ((size_t)448)      /* payload up to here is copied behind its header */
#define TCP_SCRATCH ((size_t)64 << 10)

struct tcp_conn {
	struct msg_conn base;
	int fd;
	bool inet;
	bool armed;            /* epoll also watches for room to write */
	bool busy;             /* a frame is on its way out: the cur_ fields */
	/* Output: the current frame, then the control frames of obuf. */
	struct msg_flow *cur_flow; /* NULL: nobody is to be told when it is out */
	uint32_t cur_seq;
	bool cur_inline;       /* the payload stands behind the header in cur_head */
	uint8_t cur_head[MSG_HEADER + TCP_INLINE];
	const uint8_t *cur_body;
	void *cur_own;         /* cur_body when it is a private copy */
	size_t cur_len, cur_sent;
	size_t opos, olen;
	/* Input: `left` bytes of a chunk go to sink (NULL: nowhere), else frames are parsed in ibuf. */
	struct msg_flow *sink_flow;
	uint32_t sink_seq;
	uint8_t *sink;
	size_t left, sink_len;
	size_t ipos, ilen;
	uint8_t obuf[TCP_OBUF];
	uint8_t ibuf[TCP_IBUF];
};

struct tcp_ep {
	struct msg_ep base;
	bool open;
	int epoll;
	uint32_t polls;
	uint8_t *scratch;      /* where unwanted payload goes */
};

struct msg_conn *tt_tcp_conn_new(struct msg_peer *p, int fd, int index, bool outgoing);
static inline bool tt_tcp_conn_idle(const struct tcp_conn *c)
{
	return !c->busy && c->opos == c->olen;
}
/* The functions of struct msg_wire. */
bool tt_tcp_conn_put(struct msg_conn *c, const struct msg_frame *f);
void tt_tcp_conn_start(struct msg_conn *c, const struct msg_frame *f, const void *body, struct msg_flow *flow);
void tt_tcp_conn_write(struct msg_conn *c);
void tt_tcp_conn_forget(struct msg_conn *c, struct msg_flow *f);
void tt_tcp_conn_data(struct msg_conn *c, struct msg_flow *flow, const struct msg_frame *f, struct tt_req *req);
void tt_tcp_conn_close(struct msg_conn *c);
extern const struct msg_wire tt_tcp_wire;
void tt_tcp_conn_read(struct msg_conn *c, int rounds);
/* The socket has ended, with an errno or 0 for the end of the stream. */
void tt_tcp_conn_lost(struct tcp_conn *c, int err);

#endif
