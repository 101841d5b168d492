/* Ranks in containers. Where memory that processes share is refused, as by vm.memfd_noexec, they go over shm as long as
 * there is a way, else over tcp; and those of equal process ids and host names are two, as far as they may be made.
 * SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "comm.h"
#include "ranks.h"
#include "test.h"

enum { NOEXEC = 8, COUNT = 1 << 18 };

/* memfd_create fails, with `but` not where it has one of these flags. */
static void refuse(struct rank *r, uint32_t but)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_memfd_create, 0, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])),
		BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, but, 1, 0),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EACCES),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = { .len = sizeof(code) / sizeof(code[0]), .filter = code };

	RANK_CHECKF(r, !prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) && !prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog),
		    "no filter of system calls: %s", strerror(errno));
	RANK_CHECKF(r, memfd_create("t", 0) < 0 && errno == EACCES, "memfd_create is not refused");
}

struct wanted {
	uint32_t but;
	int from; /* the first rank to which it is refused */
	const char *transport;
};

static void check_transport(struct rank *r, int peer, const char *wanted)
{
	const struct tt_link *link = r->comm->links[peer] ? r->comm->links[peer][0] : NULL;

	RANK_CHECKF(r, link && !strcmp(link->ep->t->name, wanted), "not over %s to rank %d", wanted, peer);
}

static void sandbox_rank(struct rank *r)
{
	const struct wanted *w = r->arg;
	int32_t *v;

	if (r->rank >= w->from)
		refuse(r, w->but);
	RANK_OK(r, rank_init(r, NULL));
	RANK_OK(r, tuttiMemAllocHost((void **)&v, COUNT * sizeof(*v)));
	for (int i = 0; i < COUNT; i++)
		v[i] = r->rank + i;
	RANK_OK(r, tuttiAllReduce(v, v, COUNT, tuttiInt32, tuttiSum, r->comm, NULL));
	for (int i = 0; i < COUNT; i++)
		RANK_CHECKF(r, v[i] == 2 * i + 1, "element %d is %d", i, v[i]);
	check_transport(r, !r->rank, w->transport);
	RANK_OK(r, tuttiMemFree(v));
	RANK_OK(r, tuttiCommDestroy(r->comm));
}

static void run(struct wanted w)
{
	static struct procs ps;

	procs_start(&ps, 2, 0, "shm,tcp", sandbox_rank, &w);
	procs_expect(&ps, 30, -1);
}

static void may_be_executed(void)
{
	int fd = memfd_create("t", NOEXEC);

	if (fd < 0) {
		printf("skipped: this kernel is older than memory that cannot be executed\n");
		return;
	}
	close(fd);
	run((struct wanted){ NOEXEC, 0, "shm" });
}

static void none_at_all(void)
{
	run((struct wanted){ 0, 0, "tcp" });
	run((struct wanted){ 0, 1, "tcp" });
}

/* ---- equal names ---- */

static void twin_rank(struct rank *r)
{
	int32_t v = 1 << r->rank;
	tuttiResult_t res;

	RANK_OK(r, rank_init(r, NULL));
	RANK_OK(r, tuttiAllReduce(&v, &v, 1, tuttiInt32, tuttiSum, r->comm, NULL));
	RANK_CHECKF(r, v == 7, "the sum is %d", v);
	if (r->rank < 2)
		check_transport(r, !r->rank, "shm");
	RANK_OK(r, tuttiBarrier(r->comm, NULL));
	if (r->rank == 1)
		_exit(0);
	res = tuttiAllReduce(&v, &v, 1, tuttiInt32, tuttiSum, r->comm, NULL);
	RANK_CHECKF(r, res == tuttiPeerDead, "%d: %s", res, tuttiGetLastError(r->comm));
	RANK_CHECKF(r, strstr(tuttiGetLastError(r->comm), "rank 1 ("), "%s", tuttiGetLastError(r->comm));
	tuttiCommAbort(r->comm);
}

/* The first two are process 1, each of its own namespace; the third, who has made the id, is not. */
static void contained_rank(struct rank *r)
{
	int status = 0;
	pid_t pid;

	if (r->rank == 2) {
		twin_rank(r);
		return;
	}
	RANK_CHECKF(r, !unshare(CLONE_NEWPID), "unshare: %s", strerror(errno));
	pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		RANK_CHECKF(r, getpid() == 1, "process %d", getpid());
		twin_rank(r);
		_exit(0);
	}
	RANK_CHECKF(r, waitpid(pid, &status, 0) == pid && WIFEXITED(status), "the container ended with %d", status);
	_exit(WEXITSTATUS(status));
}

static bool may_contain(void)
{
	int status = -1;
	pid_t pid = fork();

	if (pid == 0)
		_exit(unshare(CLONE_NEWPID) != 0);
	return pid > 0 && waitpid(pid, &status, 0) == pid && !status;
}

static void equal_names(void)
{
	static struct procs ps;

	if (!may_contain()) {
		printf("skipped: no namespaces of processes for this user\n");
		return;
	}
	procs_start(&ps, 3, 2, "shm,tcp", contained_rank, NULL);
	procs_expect(&ps, 30, -1);
}

const struct test tests[] = {
	{ "memory that may be executed is refused", may_be_executed, 0 },
	{ "shared memory is refused", none_at_all, 0 },
	{ "equal process ids and host names", equal_names, 0 },
};
const int ntests = sizeof(tests) / sizeof(tests[0]);
