/* Steady state (the walk of one allreduce): no allocation, no lock and no system call in an operation whose
 * peers are there. Two ranks over shared memory links, driven by one thread, so that nobody ever waits; every
 * system call of that thread is caught by the kernel's syscall user dispatch, allocations and mutexes by
 * interposition. SPDX-License-Identifier: Apache-2.0 */
#include "../conformance/rig.h"

#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <ucontext.h>

#include "exec.h"

#ifndef PR_SET_SYSCALL_USER_DISPATCH
#define PR_SET_SYSCALL_USER_DISPATCH 59
#endif

static _Thread_local bool counting;
static volatile int allocations, locks, calls, last_call;
static volatile char selector; /* 0: allow, 1: catch */

void *__libc_malloc(size_t n);
void *__libc_calloc(size_t k, size_t n);
void *__libc_realloc(void *p, size_t n);
void *malloc(size_t n)
{
	allocations += counting;
	return __libc_malloc(n);
}

void *calloc(size_t k, size_t n)
{
	allocations += counting;
	return __libc_calloc(k, n);
}

void *realloc(void *p, size_t n)
{
	allocations += counting;
	return __libc_realloc(p, n);
}


int pthread_mutex_lock(pthread_mutex_t *m)
{
	static int (*real)(pthread_mutex_t *);

	locks += counting;
	if (!real)
		real = (int (*)(pthread_mutex_t *))dlsym(RTLD_NEXT, "pthread_mutex_lock");
	return real(m);
}

static void caught(int sig, siginfo_t *info, void *context)
{
	ucontext_t *u = context;

	calls++;
	last_call = info->si_syscall;
	selector = 0;
	u->uc_mcontext.gregs[REG_RIP] -= 2; /* once more, allowed */
}

/* ---- two ranks ---- */

struct pair {
	struct rig rig;
	struct tt_ep ep[2];
	struct tt_link *links[2][8];
	struct tt_prog *prog[2];
	void *tmp[2];
};
struct end {
	struct pair *p;
	int rank;
};

static tuttiResult_t link_of(void *ctx, int peer, uint32_t lane, struct tt_link **out)
{
	struct end *e = ctx;
	struct tt_link **l = &e->p->links[e->rank][lane];

	if (!*l) {
		*l = calloc(1, sizeof(**l));
		**l = (struct tt_link){ .ep = &e->p->ep[e->rank], .peer = peer,
					.priv = rig_open(&e->p->rig, e->rank, peer, 100 + lane) };
	}
	*out = *l;
	return tuttiSuccess;
}

static void begin_pair(struct pair *p, const struct tt_transport *t, const char *algo)
{
	struct tt_shape shape = { .nlanes = 1 };

	memset(p, 0, sizeof(*p));
	rig_begin(&p->rig, t);
	for (int i = 0; i < 2; i++)
		p->ep[i] = (struct tt_ep){ .t = t, .priv = p->rig.ep[i], .caps = p->rig.caps };
	for (int i = 0; i < 2; i++) {
		struct end e = { p, i };
		struct tt_sched *s;

		CHECK(tt_algo_find(algo, TT_ALLREDUCE)->build(TT_ALLREDUCE, i, 2, 0, &shape, &s) == tuttiSuccess);
		CHECK(tt_prog_new(s, 4, link_of, &e, &p->prog[i]) == tuttiSuccess);
		p->tmp[i] = aligned_alloc(64, 16 << 20);
	}
}

static void end_pair(struct pair *p)
{
	for (int i = 0; i < 2; i++) {
		tt_prog_free(p->prog[i]);
		free(p->tmp[i]);
	}
	for (int i = 0; i < 2; i++)
		for (int l = 0; l < 8; l++)
			if (p->links[i][l]) {
				rig_close(&p->rig, p->links[i][l]->priv);
				free(p->links[i][l]);
			}
	rig_end(&p->rig);
}

static void one_op(struct pair *p, float *in[2], float *out[2], size_t count, uint32_t seq)
{
	enum tt_run_state s[2] = { TT_RUN_GOING, TT_RUN_GOING };
	int moved;

	for (int i = 0; i < 2; i++) {
		struct tt_call call = { .in = in[i], .out = out[i], .count = count, .type = tuttiFloat32,
					.op = { .kind = tuttiSum, .commutative = true, .nranks = 2 },
					.sig = 9, .seq = seq, .window_bytes = 128 << 10 };

		tt_run_begin(p->prog[i], &call, p->tmp[i]);
	}
	for (int k = 0; k < 1000000 && (s[0] == TT_RUN_GOING || s[1] == TT_RUN_GOING); k++)
		for (int i = 0; i < 2; i++)
			if (s[i] == TT_RUN_GOING)
				s[i] = tt_run_pass(p->prog[i], &moved);
	CHECK(s[0] == TT_RUN_DONE && s[1] == TT_RUN_DONE);
}

static void count_over(const struct tt_transport *t, const char *algo, size_t count)
{
	float *in[2], *out[2];
	struct pair p;

	begin_pair(&p, t, algo);
	for (int i = 0; i < 2; i++) {
		in[i] = malloc(count * 4);
		out[i] = malloc(count * 4);
		for (size_t k = 0; k < count; k++)
			in[i][k] = (float)(i + 1);
	}
	for (uint32_t k = 0; k < 40; k++)
		one_op(&p, in, out, count, k);
	allocations = locks = calls = 0;
	counting = true;
	selector = 1;
	for (uint32_t k = 0; k < 20; k++)
		one_op(&p, in, out, count, 40 + k);
	selector = 0;
	counting = false;
	CHECKF(!allocations && !locks && !calls, "%s, %s of %zu floats: %d allocations, %d locks, %d system calls "
	       "(one was number %d)", t->name, algo, count, allocations, locks, calls, last_call);
	CHECK(out[0][count - 1] == 3 && out[1][0] == 3);
	for (int i = 0; i < 2; i++) {
		free(in[i]);
		free(out[i]);
	}
	end_pair(&p);
}

static bool catch_calls(void)
{
	struct sigaction sa = { .sa_sigaction = caught, .sa_flags = SA_SIGINFO };

	sigaction(SIGSYS, &sa, NULL);
	selector = 0;
	if (!prctl(PR_SET_SYSCALL_USER_DISPATCH, 1, 0, 0, &selector))
		return true;
	fprintf(stderr, "system calls are not counted: %s\n", strerror(errno));
	return false;
}

static void steady(void)
{
	static const size_t counts[] = { 2, 512, 16384, 1 << 20 };
	bool on = catch_calls();

	if (on) { /* that the counting counts */
		calls = 0;
		selector = 1;
		syscall(SYS_getppid);
		selector = 0;
		CHECKF(calls == 1 && last_call == SYS_getppid, "%d calls caught, the last %d", calls, last_call);
	}
	for (size_t i = 0; i < sizeof(counts) / sizeof(*counts); i++) {
		count_over(&tt_shm, "direct", counts[i]);
		count_over(&tt_shm, "ring", counts[i]);
	}
	count_over(&tt_shm, "direct1", 2);
	count_over(&tt_inproc, "direct", 512);
	if (on)
		prctl(PR_SET_SYSCALL_USER_DISPATCH, 0, 0, 0, 0);
}

const struct test tests[] = { { "steady state over shared memory", steady, 60 } };
const int ntests = 1;
