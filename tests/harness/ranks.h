/* Ranks for tests: n threads of this process, or n forked processes that report by pipe and shared memory.
 * A rank function serves both; it fails by RANK_CHECK, never by CHECK: a child that asserts inside the test
 * framework hangs it. SPDX-License-Identifier: Apache-2.0 */
#ifndef TT_RANKS_H
#define TT_RANKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "tutti.h"

enum { RANKS_MAX = 64, PROC_TEXT = 4096, PROC_SHARED = 1 << 18 };

struct procs;
struct rank {
	int rank, n;
	tuttiComm_t comm;      /* threads: made and destroyed around the function */
	void *arg;
	struct procs *procs;   /* NULL: a thread */
	int out;               /* processes: the pipe to the parent */
	int fds, threads;      /* processes: before tutti was used */
	_Atomic long step;     /* what it is at, told when it does not come back */
	_Atomic bool ended;
	tuttiResult_t closed;  /* what CommDestroy returned */
};
typedef void (*rank_fn)(struct rank *r);

/* Ends this rank as failed with its number, place and step. */
void rank_fail(struct rank *r, const char *file, int line, const char *fmt, ...)
	__attribute__((format(printf, 4, 5), noreturn));
#define RANK_CHECKF(r, cond, ...)                                                                  \
	do {                                                                                       \
		if (!(cond))                                                                       \
			rank_fail(r, __FILE__, __LINE__, __VA_ARGS__);                             \
	} while (0)
/* A call that must succeed. */
#define RANK_OK(r, call)                                                                           \
	do {                                                                                       \
		tuttiResult_t ok_ = (call);                                                        \
		RANK_CHECKF(r, ok_ == tuttiSuccess, "%s: %s: %s", #call,                           \
			    tuttiGetErrorString(ok_), tuttiGetLastError(NULL));                    \
	} while (0)

/* Called in the thread or process of a rank before its communicator is made, if it is set. */
extern void (*rank_prepare)(struct rank *r);

double seconds_now(void);               /* monotonic, the same clock in all processes */
void sleep_s(double s);
long test_setting(const char *name, long otherwise); /* TEST_CASES and its like */

/* ---- threads ---- */
/* Makes one communicator of n ranks, runs fn in n threads, destroys; within `limit_s` or the test fails. */
void ranks_run(int n, double limit_s, rank_fn fn, void *arg);
/* The same without a communicator: fn makes what it needs. */
void ranks_run_bare(int n, double limit_s, rank_fn fn, void *arg);

/* ---- processes ---- */
struct procs_shared {
	_Atomic int have_id; /* 1: yes, 2: GetUniqueId failed */
	tuttiUniqueId id;
	_Alignas(64) unsigned char user[PROC_SHARED];
};
struct proc {
	pid_t pid;
	int fd, status;        /* status as of waitpid */
	bool ended;
	size_t len;
	char text[PROC_TEXT];  /* what it said */
};
struct procs {
	int n, owner, here;    /* ranks; who makes the unique id; ranks on this host */
	int round;             /* starts of this process so far */
	rank_fn fn;
	struct procs_shared *shared;
	struct proc p[RANKS_MAX];
};
/* Forks n ranks, each with TUTTI_TRANSPORTS = transports (NULL: as it is). Rank `owner` makes the unique id
 * (-1: none). The calling process must not have used tutti, so that all state is the children's own.
 * Of TEST_HOSTS=2 machines, the one with TEST_HOST=i has the ranks that are i modulo 2; then only rank_init makes
 * communicators, by way of TEST_ROOT=address:port, the n-th start of this process n ports behind that. */
void procs_start(struct procs *ps, int n, int owner, const char *transports, rank_fn fn, void *arg);
tuttiUniqueId rank_id(struct rank *r);                        /* in a child: waits for the owner */
tuttiResult_t rank_init(struct rank *r, tuttiConfig_t *config); /* in a child: sets r->comm */
/* Waits until all ended. False: the time is over; those still there were killed and their texts say so. */
bool procs_wait(struct procs *ps, double limit_s);
/* procs_wait, then fails the test unless every rank but `except` (-1: none) ended with status 0; frees. */
void procs_expect(struct procs *ps, double limit_s, int except);
void procs_free(struct procs *ps);       /* kills what is left */
int count_fds(void);
/* Without its output. Its status as of waitpid. */
int shell(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
int count_threads(void);

#endif
