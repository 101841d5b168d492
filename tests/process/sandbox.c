/* Where memory that processes share is refused, as by vm.memfd_noexec or in containers: ranks of a host go over shm as
 * long as there is a way, else over tcp. SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
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
	const char *transport;
};

static void sandbox_rank(struct rank *r)
{
	const struct wanted *w = r->arg;
	const struct tt_link *link;
	int32_t *v;

	refuse(r, w->but);
	RANK_OK(r, rank_init(r, NULL));
	RANK_OK(r, tuttiMemAllocHost((void **)&v, COUNT * sizeof(*v)));
	for (int i = 0; i < COUNT; i++)
		v[i] = r->rank + i;
	RANK_OK(r, tuttiAllReduce(v, v, COUNT, tuttiInt32, tuttiSum, r->comm, NULL));
	for (int i = 0; i < COUNT; i++)
		RANK_CHECKF(r, v[i] == 2 * i + 1, "element %d is %d", i, v[i]);
	link = r->comm->links[!r->rank] ? r->comm->links[!r->rank][0] : NULL;
	RANK_CHECKF(r, link && !strcmp(link->ep->t->name, w->transport), "not over %s", w->transport);
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
	run((struct wanted){ NOEXEC, "shm" });
}

static void none_at_all(void)
{
	run((struct wanted){ 0, "tcp" });
}

const struct test tests[] = {
	{ "memory that may be executed is refused", may_be_executed, 0 },
	{ "shared memory is refused", none_at_all, 0 },
};
const int ntests = sizeof(tests) / sizeof(tests[0]);
