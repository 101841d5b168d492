/* Processes of a test of rendezvous and liveness. A process has one node, so each test starts the processes it needs:
 * this program again, which runs one function of the program's `roles` before main. */
#ifndef BOOT_PROCS_H
#define BOOT_PROCS_H

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "boot.h"
#include "boot_wire.h"
#include "hmac.h"
#include "sock.h"
#include "test.h"

#define SEC 1000000000ull
#define MAX_PROCS 16

/* What the processes of a test share. */
static struct {
	_Atomic int ready, phase, arrived[8];
	_Atomic int pids[MAX_PROCS];
	struct tt_root_id id;
	struct tt_proc procs[MAX_PROCS];
} *board;

/* What a process has heard. */
static struct heard {
	_Atomic int messages, accepts, dead, left, bad;
	_Atomic uint64_t last_dead;
	char why[1024];
} heard;

#define NEED(cond)                                                                                 \
	do {                                                                                       \
		if (!(cond)) {                                                                     \
			fprintf(stderr, "%s:%d: process %d: %s [%s]\n", __FILE__, __LINE__,        \
				getpid(), #cond, tt_last_error());                                 \
			return 1;                                                                  \
		}                                                                                  \
	} while (0)

static inline uint64_t after(double s)
{
	return tt_now_ns() + (uint64_t)(s * 1e9);
}

static inline bool wait_int(_Atomic int *p, int want, double s)
{
	uint64_t end = after(s);

	while (atomic_load(p) < want) {
		if (tt_now_ns() > end)
			return false;
		usleep(1000);
	}
	return true;
}

/* A barrier of the test itself. */
static inline bool meet_all(int which, int n)
{
	atomic_fetch_add(&board->arrived[which], 1);
	return wait_int(&board->arrived[which], n, 20);
}

static inline void on_gone(void *ctx, uint64_t proc, bool dead, const char *why)
{
	if (dead) {
		snprintf(heard.why, sizeof(heard.why), "%s", why);
		atomic_store(&heard.last_dead, proc);
	}
	atomic_fetch_add(dead ? &heard.dead : &heard.left, 1);
}

static inline void on_message(void *ctx, uint64_t proc, uint32_t type, const void *p, size_t n)
{
	uint64_t sender;

	if (type != 77 || n != 1000) {
		atomic_fetch_add(&heard.bad, 1);
		return;
	}
	memcpy(&sender, p, sizeof(sender));
	if (sender != proc)
		atomic_fetch_add(&heard.bad, 1);
	atomic_fetch_add(&heard.messages, 1);
}

/* Echoes one byte, the index. */
static inline void on_accept(void *ctx, uint64_t proc, const char *transport, int index, int fd)
{
	char c = (char)index;

	if (strcmp(transport, "test") != 0 || write(fd, &c, 1) != 1)
		atomic_fetch_add(&heard.bad, 1);
	close(fd);
	atomic_fetch_add(&heard.accepts, 1);
}

static const struct tt_node_events events __attribute__((unused)) = { on_gone, on_message, on_accept, NULL };

static int board_fd;

static inline void map_board(void)
{
	board = mmap(NULL, sizeof(*board), PROT_READ | PROT_WRITE, MAP_SHARED, board_fd, 0);
}

static inline void new_board(void)
{
	board_fd = memfd_create("board", 0);
	CHECK(board_fd >= 0 && ftruncate(board_fd, sizeof(*board)) == 0);
	map_board();
	CHECK(board != MAP_FAILED);
	setenv("TUTTI_LOG", "none", 1);
}

typedef int (*role)(int i);
static role role_at(int k);

/* Runs again what a fork alone could not: sanitizers do not follow into the child of a process with threads. */
static inline void exec_role(role fn, int i)
{
	char program[] = "/proc/self/exe", text[64];
	char *argv[] = { program, NULL };
	int k = 0;

	while (role_at(k) != fn)
		k++;
	snprintf(text, sizeof(text), "%d %d %d", k, i, board_fd);
	setenv("BOOT_ROLE", text, 1);
	execv(program, argv);
	_exit(127);
}

__attribute__((constructor)) static void play_role(void)
{
	const char *text = getenv("BOOT_ROLE");
	int k, i;

	if (text == NULL || sscanf(text, "%d %d %d", &k, &i, &board_fd) != 3)
		return;
	map_board();
	unsetenv("BOOT_ROLE");
	_exit(board == MAP_FAILED ? 126 : role_at(k)(i));
}

static inline void spawn(int n, role fn, pid_t *pids)
{
	int i;

	for (i = 0; i < n; i++) {
		pids[i] = fork();
		if (pids[i] == 0)
			exec_role(fn, i);
		CHECK(pids[i] > 0);
		atomic_store(&board->pids[i], (int)pids[i]);
	}
}

static inline int reap(pid_t pid)
{
	int status = 0;

	CHECK(waitpid(pid, &status, 0) == pid);
	return status;
}

static inline void run_all(int n, role fn)
{
	pid_t pids[MAX_PROCS];
	int i;

	new_board();
	spawn(n, fn, pids);
	for (i = 0; i < n; i++) {
		int status = reap(pids[i]);

		CHECKF(status == 0, "process %d ended with status %x", i, status);
	}
	munmap(board, sizeof(*board));
	close(board_fd);
}

static inline tuttiResult_t finish(const void *const *entries, const size_t *sizes, int n, void **blob,
			    size_t *blob_size)
{
	*blob = strdup("the blob");
	*blob_size = 9;
	return tuttiSuccess;
}

static inline int open_root(int i)
{
	if (i == 0) {
		NEED(tt_root_open(&board->id, finish) == tuttiSuccess);
		atomic_store(&board->ready, 1);
	}
	NEED(wait_int(&board->ready, 1, 20));
	return 0;
}

/* Joins with the own description as entry. */
static inline tuttiResult_t join(int rank, int n, double s, struct tt_table *t)
{
	return tt_root_join(&board->id, rank, n, tt_node_self(), sizeof(struct tt_proc), after(s), NULL, t);
}

static inline void launcher_id(struct tt_root_id *id)
{
	memset(id, 0, sizeof(*id));
	id->job = 4711;
	memset(id->secret, 7, sizeof(id->secret));
}

#endif
