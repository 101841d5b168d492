/* One link of one transport: latency of a ping-pong and bandwidth of a one-way stream, between two threads
 * or (-p) two processes. Below schedules and the executor: what the transport itself costs.
 * SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "perf_common.h"
#include "transport.h"

static struct {
	const char *transport;
	bool processes, reduce, registered, one_way;
	size_t begin, end, factor;
	int iters, depth;
	char device[2][32]; /* RDMA, of each side */
} opt = { .begin = 8, .end = 32 << 20, .factor = 4, .depth = 1 };
enum { DEPTH_MAX = 64 };

/* One of the two sides. */
struct side {
	int id; /* 0 or 1; its process is id + 1 */
	const struct tt_transport *t;
	void *ep, *link;
	struct side *other;  /* threads: where dialled sockets go */
	int control;         /* processes: the socket over which they go */
	char *buf, *in;
	void *handles[2];
	struct tt_combine combine; /* lives until its receive is over */
	bool failed;
};

static struct shared {
	_Atomic int ready;   /* endpoints open */
	_Atomic int failed;
} *shared;

/* ---- dialling: hands the other end of a socket pair to the other side's accept ---- */

static int pass_fd(int control, int index, int fd)
{
	char room[CMSG_SPACE(sizeof(int))] = { 0 };
	struct iovec iov = { &index, sizeof(index) };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = room,
			    .msg_controllen = sizeof(room) };
	struct cmsghdr *h = CMSG_FIRSTHDR(&m);

	h->cmsg_level = SOL_SOCKET;
	h->cmsg_type = SCM_RIGHTS;
	h->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(h), &fd, sizeof(int));
	return sendmsg(control, &m, MSG_NOSIGNAL) == sizeof(index) ? 0 : -1;
}

static int take_fd(int control, int *index)
{
	char room[CMSG_SPACE(sizeof(int))] = { 0 };
	struct iovec iov = { index, sizeof(*index) };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = room,
			    .msg_controllen = sizeof(room) };
	int fd = -1;

	if (recvmsg(control, &m, MSG_CMSG_CLOEXEC) == sizeof(*index) && CMSG_FIRSTHDR(&m) != NULL)
		memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof(int));
	return fd;
}

static tuttiResult_t dial(void *ctx, uint64_t peer, const char *transport, int index, int *fd)
{
	struct side *s = ctx;
	int sv[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) != 0)
		return tt_fail(tuttiSystemError, "socketpair: %s", strerror(errno));
	*fd = sv[0];
	if (s->control < 0) {
		s->t->accept(s->other->ep, (uint64_t)s->id + 1, index, sv[1]);
		return tuttiSuccess;
	}
	if (pass_fd(s->control, index, sv[1]) != 0)
		return tt_fail(tuttiSystemError, "passing a socket: %s", strerror(errno));
	close(sv[1]);
	return tuttiSuccess;
}

static void *watch(void *arg)
{
	struct side *s = arg;
	int index, fd;

	while ((fd = take_fd(s->control, &index)) >= 0)
		s->t->accept(s->ep, (uint64_t)!s->id + 1, index, fd);
	return NULL;
}

/* ---- moving ---- */

static bool wait_req(struct side *s, struct tt_req *req, enum tt_post first)
{
	uint32_t idle = 0;

	if (first != TT_POSTED)
		return first == TT_DONE;
	while (atomic_load_explicit(&req->state, memory_order_acquire) == TT_REQ_POSTED) {
		if (s->t->poll(s->ep) == 0 && ++idle % 128 == 0)
			sched_yield();
	}
	return atomic_load_explicit(&req->state, memory_order_acquire) == TT_REQ_DONE;
}

static enum tt_post attempt(struct side *s, bool send, size_t n, struct tt_req *req)
{
	static const struct tt_op sum = { .kind = tuttiSum, .commutative = true };
	static const struct tt_note note = { 1, 2, 3 };

	if (send)
		return s->t->send(s->link, s->buf, n, &note, req);
	req->note = note;
	if (!opt.reduce || s->t->recv_reduce == NULL || n % 4 != 0)
		return s->t->recv(s->link, s->in, n, req);
	s->combine = (struct tt_combine){ s->in, s->in, false, tuttiFloat32, &sum };
	return s->t->recv_reduce(s->link, &s->combine, n, req);
}

static void say_failed(struct side *s)
{
	const char *why = "";

	s->t->link_error(s->link, &why);
	fprintf(stderr, "link_perf: %s\n", why);
	s->failed = true;
	atomic_store(&shared->failed, 1);
}

static void move(struct side *s, bool send, size_t n)
{
	struct tt_req req = { 0 };
	enum tt_post got;
	uint32_t idle = 0;

	if (s->failed)
		return;
	while ((got = attempt(s, send, n, &req)) == TT_AGAIN) {
		s->t->poll(s->ep);
		if (++idle % 128 == 0)
			sched_yield();
	}
	if (!wait_req(s, &req, got))
		say_failed(s);
}

static double ping_pong(struct side *s, size_t n, int iters)
{
	uint64_t t0 = 0;

	for (int i = -iters / 10 - 1; i < iters; i++) {
		if (i == 0)
			t0 = tt_now_ns();
		move(s, s->id == 0, n);
		move(s, s->id != 0, n);
	}
	return (double)(tt_now_ns() - t0) / iters / 2;
}

/* Moves iters messages, up to opt.depth of them posted at a time. */
static void stream_part(struct side *s, size_t n, int iters)
{
	struct tt_req req[DEPTH_MAX];
	enum tt_post got[DEPTH_MAX];
	int posted = 0, over = 0;

	while (over < iters && !s->failed) {
		for (; posted < iters && posted - over < opt.depth; posted++) {
			req[posted % opt.depth] = (struct tt_req){ 0 };
			got[posted % opt.depth] = attempt(s, s->id == 0, n, &req[posted % opt.depth]);
			if (got[posted % opt.depth] == TT_AGAIN)
				break;
		}
		if (posted == over)
			s->t->poll(s->ep);
		else if (wait_req(s, &req[over % opt.depth], got[over % opt.depth]))
			over++;
		else
			say_failed(s);
	}
}

static double stream(struct side *s, size_t n, int iters)
{
	uint64_t t0;

	stream_part(s, n, iters / 10 + 1);
	t0 = tt_now_ns();
	stream_part(s, n, iters);
	move(s, s->id != 0, 8); /* the last has arrived */
	return (double)(tt_now_ns() - t0) / iters;
}

static void measure(struct side *s)
{
	if (s->id == 0)
		printf("# transport %s, two %s%s%s\n#%11s %12s %12s %12s\n", s->t->name,
		       opt.processes ? "processes" : "threads", opt.reduce ? ", receive-reduce" : "",
		       opt.registered && s->t->reg != NULL ? ", registered memory" : "",
		       "size (B)", "latency (us)", "stream (us)", "GB/s");
	for (size_t n = opt.begin; n <= opt.end && !s->failed; n *= opt.factor) {
		size_t bytes = (size_t)1 << 28;
		int iters = opt.iters > 0 ? opt.iters : (int)tt_max(20, tt_min(20000, bytes / (n + 1)));
		double lat = opt.one_way ? 0 : ping_pong(s, n, iters), each = stream(s, n, iters);

		if (s->id == 0)
			printf("%12zu %12.3f %12.3f %12.3f\n", n, lat / 1e3, each / 1e3,
			       (double)n / each);
		fflush(stdout);
		if (n == 0)
			break;
	}
}

/* ---- the two sides ---- */

static tuttiResult_t side_open(struct side *s)
{
	struct tt_ep_config config = { .self = (uint64_t)s->id + 1, .ctx = s, .dial = dial };

	s->ep = aligned_alloc(64, (s->t->ep_size + 63) / 64 * 64);
	s->link = aligned_alloc(64, (s->t->link_size + 63) / 64 * 64);
	s->buf = aligned_alloc(4096, opt.end + 8192 - opt.end % 4096);
	s->in = aligned_alloc(4096, opt.end + 8192 - opt.end % 4096);
	if (s->ep == NULL || s->link == NULL || s->buf == NULL || s->in == NULL)
		return tt_fail(tuttiSystemError, "out of memory");
	memset(s->ep, 0, s->t->ep_size);
	memset(s->link, 0, s->t->link_size);
	memset(s->buf, 0, opt.end);
	memset(s->in, 0, opt.end);
	if (*opt.device[s->id])
		setenv("TUTTI_IB_HCA", opt.device[s->id], 1);
	TRY(s->t->ep_open(s->ep, &config));
	if (!opt.registered || s->t->reg == NULL)
		return tuttiSuccess;
	TRY(s->t->reg(s->ep, s->buf, opt.end + 1, 0, &s->handles[0]));
	return s->t->reg(s->ep, s->in, opt.end + 1, 0, &s->handles[1]);
}

static void side_run(struct side *s)
{
	atomic_fetch_add(&shared->ready, 1);
	while (atomic_load(&shared->ready) < 2) /* the other's endpoint takes our sockets */
		sched_yield();
	if (s->t->link_open(s->ep, s->link, (uint64_t)!s->id + 1, 1) != tuttiSuccess) {
		fprintf(stderr, "link_perf: %s\n", tt_last_error());
		_exit(1);
	}
	measure(s);
	s->t->link_close(s->link);
}

static void *side_thread(void *arg)
{
	side_run(arg);
	return NULL;
}

static int run_threads(const struct tt_transport *t)
{
	struct side s[2] = { { .id = 0, .t = t, .control = -1, .other = &s[1] },
			     { .id = 1, .t = t, .control = -1, .other = &s[0] } };
	pthread_t thread;

	if (side_open(&s[0]) != tuttiSuccess || side_open(&s[1]) != tuttiSuccess ||
	    pthread_create(&thread, NULL, side_thread, &s[1]) != 0) {
		fprintf(stderr, "link_perf: %s\n", tt_last_error());
		return 1;
	}
	side_run(&s[0]);
	pthread_join(thread, NULL);
	for (int i = 0; i < 2; i++) {
		t->ep_close(s[i].ep);
		free(s[i].ep);
		free(s[i].link);
		free(s[i].buf);
		free(s[i].in);
	}
	return atomic_load(&shared->failed);
}

static int run_side(const struct tt_transport *t, int id, int control)
{
	struct side s = { .id = id, .t = t, .control = control };
	pthread_t watcher;

	if (side_open(&s) != tuttiSuccess || pthread_create(&watcher, NULL, watch, &s) != 0) {
		fprintf(stderr, "link_perf: %s\n", tt_last_error());
		return 1;
	}
	side_run(&s);
	shutdown(control, SHUT_RDWR);
	pthread_join(watcher, NULL);
	t->ep_close(s.ep);
	return atomic_load(&shared->failed);
}

static int run_processes(const struct tt_transport *t)
{
	int sv[2], status = 0, r;
	pid_t child;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) != 0)
		return 1;
	fflush(stdout);
	child = fork();
	if (child == 0) {
		close(sv[0]);
		_exit(run_side(t, 1, sv[1]));
	}
	close(sv[1]);
	r = child < 0 ? 1 : run_side(t, 0, sv[0]);
	if (child > 0)
		waitpid(child, &status, 0);
	close(sv[0]);
	return r || status != 0;
}

static int run(const struct tt_transport *t)
{
	struct tt_caps caps;
	char why[128] = "";

	if (!t->probe(&caps, why, sizeof(why))) {
		printf("# transport %s does not work here: %s\n", t->name, why);
		return 0;
	}
	if (opt.processes && !caps.across_processes) {
		printf("# transport %s stays inside a process\n", t->name);
		return 0;
	}
	atomic_store(&shared->ready, 0);
	atomic_store(&shared->failed, 0);
	return opt.processes ? run_processes(t) : run_threads(t);
}

static int usage(void)
{
	fprintf(stderr, "usage: link_perf [-t transport] [-p] [-r] [-R] [-b bytes] [-e bytes] [-f factor] "
			"[-n iterations]\n"
			"                 [-q depth] [-d device,device] [-s]\n"
			"  -t  inproc, shm, verbs, tcp; all       -p  two processes instead of threads\n"
			"  -R  registered memory, where the transport can use it\n"
			"  -r  receive by recv_reduce, float sum  -b -e -f  sizes: 8, 32M, times 4\n"
			"  -q  messages in flight in a stream: 1  -d  RDMA devices of the two sides\n"
			"  -s  the stream alone, no latency\n");
	return 2;
}

static bool parse(int argc, char **argv)
{
	int c;

	while ((c = getopt(argc, argv, "t:prRsb:e:f:n:q:d:")) != -1) {
		switch (c) {
		case 't': opt.transport = optarg; break;
		case 'p': opt.processes = true; break;
		case 'r': opt.reduce = true; break;
		case 'R': opt.registered = true; break;
		case 's': opt.one_way = true; break;
		case 'b': opt.begin = perf_size(c, optarg); break;
		case 'e': opt.end = perf_size(c, optarg); break;
		case 'f': opt.factor = perf_size(c, optarg); break;
		case 'n': opt.iters = atoi(optarg); break;
		case 'q': opt.depth = atoi(optarg); break;
		case 'd': (void)sscanf(optarg, "%31[^,],%31s", opt.device[0], opt.device[1]); break;
		default: return false;
		}
	}
	return opt.depth > 0 && opt.depth <= DEPTH_MAX && optind == argc && opt.factor >= 2 && opt.begin <= opt.end;
}

int main(int argc, char **argv)
{
	int r = 0, found = 0;

	if (!parse(argc, argv))
		return usage();
	shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		return 1;
	for (int i = 0; i < tt_ntransports; i++) {
		if (opt.transport != NULL && strcmp(opt.transport, tt_transports[i]->name) != 0)
			continue;
		found++;
		r |= run(tt_transports[i]);
	}
	return found == 0 ? usage() : r;
}
