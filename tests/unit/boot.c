/* Rendezvous and liveness. A process has one node, so each test starts the processes it needs: this program again,
 * which runs one function of `roles` before main. SPDX-License-Identifier: Apache-2.0 */
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

#if defined(__SANITIZE_THREAD__)
#define THREAD_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define THREAD_SANITIZER 1
#endif
#endif

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

static uint64_t after(double s)
{
	return tt_now_ns() + (uint64_t)(s * 1e9);
}

static bool wait_int(_Atomic int *p, int want, double s)
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
static bool meet_all(int which, int n)
{
	atomic_fetch_add(&board->arrived[which], 1);
	return wait_int(&board->arrived[which], n, 20);
}

static void on_gone(void *ctx, uint64_t proc, bool dead, const char *why)
{
	if (dead) {
		snprintf(heard.why, sizeof(heard.why), "%s", why);
		atomic_store(&heard.last_dead, proc);
	}
	atomic_fetch_add(dead ? &heard.dead : &heard.left, 1);
}

static void on_message(void *ctx, uint64_t proc, uint32_t type, const void *p, size_t n)
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
static void on_accept(void *ctx, uint64_t proc, const char *transport, int index, int fd)
{
	char c = (char)index;

	if (strcmp(transport, "test") != 0 || write(fd, &c, 1) != 1)
		atomic_fetch_add(&heard.bad, 1);
	close(fd);
	atomic_fetch_add(&heard.accepts, 1);
}

static const struct tt_node_events events = { on_gone, on_message, on_accept, NULL };

static int board_fd;

static void map_board(void)
{
	board = mmap(NULL, sizeof(*board), PROT_READ | PROT_WRITE, MAP_SHARED, board_fd, 0);
}

static void new_board(void)
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
static void exec_role(role fn, int i)
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

static void spawn(int n, role fn, pid_t *pids)
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

static int reap(pid_t pid)
{
	int status = 0;

	CHECK(waitpid(pid, &status, 0) == pid);
	return status;
}

static void run_all(int n, role fn)
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

static tuttiResult_t finish(const void *const *entries, const size_t *sizes, int n, void **blob,
			    size_t *blob_size)
{
	*blob = strdup("the blob");
	*blob_size = 9;
	return tuttiSuccess;
}

static int open_root(int i)
{
	if (i == 0) {
		NEED(tt_root_open(&board->id, finish) == tuttiSuccess);
		atomic_store(&board->ready, 1);
	}
	NEED(wait_int(&board->ready, 1, 20));
	return 0;
}

/* Joins with the own description as entry. */
static tuttiResult_t join(int rank, int n, double s, struct tt_table *t)
{
	return tt_root_join(&board->id, rank, n, tt_node_self(), sizeof(struct tt_proc), after(s), NULL, t);
}

/* ---- tables, meeting, messages ---- */

static int start_and_join(int i, int n, struct tt_table *t)
{
	int k;

	NEED(tt_node_get(&events) == tuttiSuccess);
	if (open_root(i) != 0)
		return 1;
	NEED(tt_node_secret_add(board->id.job, board->id.secret) == tuttiSuccess);
	NEED(join(i, n, 20, t) == tuttiSuccess);
	NEED(t->n == n && t->blob_size == 9 && strcmp(t->blob, "the blob") == 0);
	for (k = 0; k < n; k++)
		NEED(t->sizes[k] == sizeof(struct tt_proc));
	NEED(memcmp(t->entries[i], tt_node_self(), sizeof(struct tt_proc)) == 0);
	return 0;
}

/* By TCP where this host has more than loopback. */
static struct tt_proc as_peer(const struct tt_table *t, int k, bool tcp)
{
	struct tt_proc p;

	memcpy(&p, t->entries[k], sizeof(p));
	if (tcp && !tt_addr_loopback(&p.addrs[0]))
		p.boot_id[0] ^= 1;
	return p;
}

static int say_all(int i, const struct tt_table *t)
{
	uint64_t message[125] = { tt_node_self()->id };
	int k, r, fd;

	for (k = 0; k < t->n; k++) {
		struct tt_proc p = as_peer(t, k, false);
		char c = 0;

		for (r = 0; r < 3; r++)
			NEED(tt_node_send(p.id, 77, message, 1000) == tuttiSuccess);
		NEED(tt_node_dial(p.id, "test", k + 1, after(10), &fd) == tuttiSuccess);
		NEED(read(fd, &c, 1) == 1 && c == k + 1);
		close(fd);
	}
	return 0;
}

static int mesh(int i, bool tcp)
{
	struct tt_table t;
	bool local;
	int k, n = 6;

	if (start_and_join(i, n, &t) != 0)
		return 1;
	for (k = 0; k < n; k++) {
		struct tt_proc p = as_peer(&t, k, tcp);

		NEED(tt_node_meet(&p, board->id.job, after(10), &local) == tuttiSuccess);
		NEED(tcp || local);
	}
	if (say_all(i, &t) != 0)
		return 1;
	NEED(wait_int(&heard.messages, 3 * n, 10));
	NEED(wait_int(&heard.accepts, n, 10));
	NEED(meet_all(0, n));
	NEED(heard.dead == 0 && heard.bad == 0);
	tt_table_free(&t);
	if (i == n - 1) {
		tt_node_linger(SEC);
		tt_node_put();
		return 0;
	}
	NEED(wait_int(&heard.left, 1, 5));
	NEED(meet_all(1, n - 1));
	tt_node_put();
	NEED(heard.dead == 0);
	return 0;
}

static int mesh_unix(int i)
{
	return mesh(i, false);
}

static int mesh_tcp(int i)
{
	return mesh(i, true);
}

static void test_mesh_unix(void)
{
	run_all(6, mesh_unix);
}

static void test_mesh_tcp(void)
{
	run_all(6, mesh_tcp);
}

/* All meet their neighbours at once, again and again: connections cross. */
static int crossing(int i)
{
	struct tt_table t;
	struct tt_proc p;
	bool local;

	if (start_and_join(i, 2, &t) != 0)
		return 1;
	NEED(meet_all(0, 2));
	p = as_peer(&t, 1 - i, false);
	NEED(tt_node_meet(&p, board->id.job, after(10), &local) == tuttiSuccess);
	NEED(meet_all(1, 2));
	NEED(heard.dead == 0);
	tt_table_free(&t);
	tt_node_put();
	NEED(heard.dead == 0);
	return 0;
}

static void test_crossing(void)
{
	int k;

	for (k = 0; k < 20; k++)
		run_all(2, crossing);
}

/* ---- death ---- */

/* A line 0 - 1 - 2 - 3; 3 dies, and 0 knows by being told. */
static int line(int i)
{
	struct tt_table t;
	struct tt_proc p;
	uint64_t start;
	bool local;

	if (start_and_join(i, 4, &t) != 0)
		return 1;
	if (i < 3) {
		p = as_peer(&t, i + 1, false);
		NEED(tt_node_meet(&p, board->id.job, after(10), &local) == tuttiSuccess);
	}
	NEED(meet_all(0, 4));
	if (i == 3) {
		/* A child that keeps the descriptors must not hide the death. */
		if (fork() == 0) {
			sleep(4);
			_exit(0);
		}
		kill(getpid(), SIGKILL);
	}
	start = tt_now_ns();
	NEED(wait_int(&heard.dead, 1, 5));
	NEED(tt_now_ns() - start < 2 * SEC);
	p = as_peer(&t, 3, false);
	NEED(heard.last_dead == p.id && strstr(heard.why, p.host) != NULL);
	NEED(!tt_node_alive(p.id, heard.why, sizeof(heard.why)));
	NEED(tt_node_meet(&p, board->id.job, after(10), &local) == tuttiPeerDead);
	NEED(meet_all(1, 3));
	NEED(heard.dead == 1);
	tt_table_free(&t);
	tt_node_put();
	NEED(heard.dead == 1);
	return 0;
}

static void test_death(void)
{
	pid_t pids[4];
	int i;

	new_board();
	spawn(4, line, pids);
	for (i = 0; i < 3; i++)
		CHECK(reap(pids[i]) == 0);
	CHECK(WTERMSIG(reap(pids[3])) == SIGKILL);
}

/* One that is stopped counts as dead after TUTTI_SILENCE, and is told when it returns. */
static int silence(int i)
{
	struct tt_table t;
	struct tt_proc p;
	bool local;

	setenv("TUTTI_SILENCE", "1.5", 1);
	if (start_and_join(i, 2, &t) != 0)
		return 1;
	p = as_peer(&t, 1 - i, false);
	NEED(tt_node_meet(&p, board->id.job, after(10), &local) == tuttiSuccess);
	NEED(meet_all(0, 2));
	if (i == 0)
		kill(atomic_load(&board->pids[1]), SIGSTOP);
	if (i == 0) {
		bool told = wait_int(&heard.dead, 1, 6);

		kill(board->pids[1], SIGCONT);
		NEED(told && strstr(heard.why, "no sign of life") != NULL);
	} else {
		NEED(wait_int(&heard.dead, 1, 12));
		NEED(strstr(heard.why, "counts this process as dead") != NULL);
	}
	NEED(meet_all(1, 2));
	tt_table_free(&t);
	tt_node_put();
	return 0;
}

static void test_silence(void)
{
	run_all(2, silence);
}

/* ---- rendezvous that fail ---- */

static int missing(int i)
{
	struct tt_table t;

	NEED(tt_node_get(&events) == tuttiSuccess);
	if (open_root(i) != 0)
		return 1;
	if (i != 2) {
		NEED(join(i, 4, 1.0, &t) == tuttiTimeout);
		NEED(strstr(tt_last_error(), "3 of 4 ranks joined, missing 2") != NULL);
	}
	NEED(meet_all(0, 4));
	tt_node_put();
	return 0;
}

static void test_missing(void)
{
	run_all(4, missing);
}

static int duplicate(int i)
{
	struct tt_table t;
	char pid[16];

	NEED(tt_node_get(&events) == tuttiSuccess);
	if (open_root(i) != 0)
		return 1;
	NEED(join(i == 2 ? 1 : i, 4, 10, &t) == tuttiInvalidUsage);
	snprintf(pid, sizeof(pid), "%d", board->pids[2]);
	NEED(strstr(tt_last_error(), "rank 1 was given twice") != NULL);
	NEED(strstr(tt_last_error(), pid) != NULL);
	NEED(meet_all(0, 3));
	tt_node_put();
	return 0;
}

static void test_duplicate(void)
{
	run_all(3, duplicate);
}

static int other_size(int i)
{
	struct tt_table t;

	NEED(tt_node_get(&events) == tuttiSuccess);
	if (open_root(i) != 0)
		return 1;
	NEED(join(i, i == 0 ? 3 : 4, 10, &t) == tuttiInvalidUsage);
	NEED(strstr(tt_last_error(), "disagree about their number") != NULL);
	NEED(meet_all(0, 2));
	tt_node_put();
	return 0;
}

static void test_other_size(void)
{
	run_all(2, other_size);
}

static int dies_in_init(int i)
{
	struct tt_table t;
	uint64_t start;

	NEED(tt_node_get(&events) == tuttiSuccess);
	if (open_root(i) != 0)
		return 1;
	if (i == 1) {
		alarm(1);
		join(1, 4, 20, &t);
		return 1;
	}
	start = tt_now_ns();
	NEED(join(i, 4, 20, &t) == tuttiPeerDead);
	NEED(tt_now_ns() - start < 4 * SEC);
	NEED(strstr(tt_last_error(), "rank 1 (process ") != NULL);
	NEED(meet_all(0, 2));
	tt_node_put();
	return 0;
}

static void test_dies_in_init(void)
{
	pid_t pids[3];

	new_board();
	spawn(3, dies_in_init, pids);
	CHECK(reap(pids[0]) == 0);
	CHECK(WTERMSIG(reap(pids[1])) == SIGALRM);
	CHECK(reap(pids[2]) == 0);
}

/* The root's process dies. */
static int root_dies(int i)
{
	struct tt_table t;

	NEED(tt_node_get(&events) == tuttiSuccess);
	if (open_root(i) != 0)
		return 1;
	if (i == 0) {
		NEED(wait_int(&board->arrived[0], 1, 20));
		usleep(200000);
		kill(getpid(), SIGKILL);
	}
	atomic_fetch_add(&board->arrived[0], 1);
	NEED(join(i, 2, 20, &t) == tuttiPeerDead);
	tt_node_put();
	return 0;
}

static void test_root_dies(void)
{
	pid_t pids[2];

	new_board();
	spawn(2, root_dies, pids);
	reap(pids[0]);
	CHECK(reap(pids[1]) == 0);
}

/* ---- many, late, scanned, again ---- */

#define THREADS 48

static void join_thread(int k, void *arg)
{
	int i = *(int *)arg;
	struct tt_table t;

	if (join(k * 2 + i, 2 * THREADS, 20, &t) != tuttiSuccess || t.n != 2 * THREADS) {
		atomic_fetch_add(&heard.bad, 1);
		return;
	}
	tt_table_free(&t);
}

static int threads(int i)
{
	NEED(tt_node_get(&events) == tuttiSuccess);
	if (open_root(i) != 0)
		return 1;
	test_threads(THREADS, join_thread, &i);
	NEED(heard.bad == 0);
	tt_node_put();
	return 0;
}

static void test_many_threads(void)
{
	run_all(2, threads);
}

static void launcher_id(struct tt_root_id *id)
{
	memset(id, 0, sizeof(*id));
	id->job = 4711;
	memset(id->secret, 7, sizeof(id->secret));
}

/* A launcher's root: late, at a port of which the first ones are taken. */
static int scanned(int i)
{
	uint16_t port = board->id.port;
	struct tt_root_id id;
	struct tt_table t;
	int round;

	NEED(tt_node_get(&events) == tuttiSuccess);
	for (round = 0; round < 20; round++) {
		launcher_id(&id);
		id.job += (uint64_t)round;
		if (i == 0) {
			usleep(round < 2 ? 300000 : 0);
			NEED(tt_root_open_at(&id, "127.0.0.1", port, true, finish) == tuttiSuccess);
			NEED(id.port > port && id.port < port + 16);
		} else {
			NEED(tt_root_id_set(&id, "127.0.0.1", port, true) == tuttiSuccess);
		}
		NEED(tt_root_join(&id, i, 3, "entry", 6, after(20), NULL, &t) == tuttiSuccess);
		NEED(t.n == 3 && strcmp(t.entries[1], "entry") == 0);
		tt_table_free(&t);
	}
	NEED(meet_all(0, 3));
	tt_node_put();
	return 0;
}

static void test_scan(void)
{
	struct tt_addr any = { .family = 4, .ip = { 127, 0, 0, 1 } };
	pid_t pids[3];
	uint16_t port = 0;
	int fd, i;

	new_board();
	CHECK(tt_sock_listen(&any, &port, &fd) == 0);
	board->id.port = port;
	spawn(3, scanned, pids);
	for (i = 0; i < 3; i++)
		CHECK(reap(pids[i]) == 0);
	close(fd);
}

static int restarts(int i)
{
	int k;

	for (k = 0; k < 5; k++) {
		uint64_t id;
		struct tt_table t;

		NEED(tt_node_get(&events) == tuttiSuccess);
		NEED(tt_node_get(&events) == tuttiSuccess);
		id = tt_node_self()->id;
		NEED(tt_root_open(&board->id, NULL) == tuttiSuccess);
		NEED(join(0, 1, 5, &t) == tuttiSuccess && t.blob_size == 0);
		NEED(tt_root_over(&board->id));
		tt_table_free(&t);
		tt_node_put();
		NEED(tt_node_self()->id == id);
		tt_node_put();
	}
	return 0;
}

static void test_restart(void)
{
	run_all(1, restarts);
}

/* The child of a fork has no node, and may make its own. */
static int forks(int i)
{
	struct tt_table t;
	pid_t child;
	int status;

	NEED(tt_node_get(&events) == tuttiSuccess);
	NEED(tt_root_open(&board->id, NULL) == tuttiSuccess);
	child = fork();
	if (child == 0) {
		bool fine = join(0, 1, 5, &t) == tuttiForked;

#ifndef THREAD_SANITIZER /* does not allow new threads here */
		fine = fine && tt_node_get(&events) == tuttiSuccess;
		tt_node_put();
#endif
		_exit(fine ? 0 : 1);
	}
	NEED(waitpid(child, &status, 0) == child && status == 0);
	NEED(join(0, 1, 5, &t) == tuttiSuccess);
	tt_table_free(&t);
	tt_node_put();
	return 0;
}

static void test_fork(void)
{
	run_all(1, forks);
}

static _Atomic bool stop_flag;

static void stop_soon(int k, void *arg)
{
	struct tt_table t;

	if (k == 0) {
		usleep(200000);
		atomic_store(&stop_flag, true);
	} else if (tt_root_join(&board->id, k, 8, "x", 1, after(20), k == 1 ? &stop_flag : NULL, &t) !=
		   (k == 1 ? tuttiAborted : tuttiRemoteError)) {
		atomic_fetch_add(&heard.bad, 1);
	}
}

static int stops(int i)
{
	uint64_t start = tt_now_ns();

	NEED(tt_node_get(&events) == tuttiSuccess);
	NEED(tt_root_open(&board->id, NULL) == tuttiSuccess);
	test_threads(3, stop_soon, NULL);
	NEED(heard.bad == 0 && tt_now_ns() - start < 3 * SEC);
	tt_node_put();
	return 0;
}

static void test_stop(void)
{
	run_all(1, stops);
}

/* ---- strangers ---- */

static int dial_root(int *fd)
{
	struct tt_addr a = { .family = board->id.addrs[0].family, .scope = board->id.addrs[0].scope };

	memcpy(a.ip, board->id.addrs[0].ip, sizeof(a.ip));
	return tt_sock_connect(&a, board->id.port, fd);
}

/* Garbage, silence, and true hellos with false proofs, while ranks join. */
static int strangers(int i)
{
	static int fds[600];
	struct tt_table t;
	uint64_t seed = 5;
	int k;

	NEED(tt_node_get(&events) == tuttiSuccess);
	if (open_root(i) != 0)
		return 1;
	for (k = 0; i == 1 && k < 600; k++) {
		struct tt_hello h = { .magic = TT_WIRE_MAGIC, .version = TT_WIRE_VERSION,
				      .job = board->id.job, .from = 1, .kind = TT_KIND_ROOT };
		uint32_t junk[64];
		int j;

		for (j = 0; j < 64; j++)
			junk[j] = test_rand(&seed);
		NEED(dial_root(&fds[k]) == 0);
		usleep(100);
		if (k % 3 == 1)
			send(fds[k], junk, sizeof(junk), MSG_NOSIGNAL);
		if (k % 3 == 2) {
			send(fds[k], &h, sizeof(h), MSG_NOSIGNAL);
			send(fds[k], junk, sizeof(junk), MSG_NOSIGNAL);
		}
	}
	NEED(join(i, 3, 20, &t) == tuttiSuccess);
	tt_table_free(&t);
	NEED(meet_all(0, 3));
	tt_node_put();
	return 0;
}

static void test_strangers(void)
{
	run_all(3, strangers);
}

static int wrong_secret(int i)
{
	struct tt_table t;

	NEED(tt_node_get(&events) == tuttiSuccess);
	if (open_root(i) != 0)
		return 1;
	if (i == 1) {
		struct tt_root_id id = board->id;

		id.secret[31] ^= 1;
		NEED(tt_root_join(&id, 1, 2, "x", 1, after(0.5), NULL, &t) == tuttiTimeout);
		NEED(strstr(tt_last_error(), "does not have the secret") != NULL);
	}
	NEED(meet_all(0, 2));
	tt_node_put();
	return 0;
}

static void test_wrong_secret(void)
{
	run_all(2, wrong_secret);
}

/* A root of another version, played by hand. */
static void play_old_root(int k, void *arg)
{
	int fd = -1, listener = *(int *)arg;
	struct tt_reply r = { .magic = TT_WIRE_MAGIC, .version = 99, .job = board->id.job, .proc = 12 };
	struct tt_hello h;
	struct tt_table t;

	if (k == 1) {
		if (join(0, 2, 5, &t) != tuttiRemoteError || strstr(tt_last_error(), "version 99") == NULL)
			atomic_fetch_add(&heard.bad, 1);
		return;
	}
	while (fd < 0)
		fd = accept(listener, NULL, NULL);
	tt_sock_read(fd, &h, sizeof(h), after(5), NULL);
	tt_wire_mac(board->id.secret, "server", &h, &r, r.mac);
	tt_sock_write(fd, &r, sizeof(r), after(5), NULL);
	usleep(100000);
	close(fd);
}

static int versions(int i)
{
	struct tt_addr a = { .family = 4, .ip = { 127, 0, 0, 1 } };
	struct tt_proc p;
	uint16_t port = 0;
	bool local;
	int fd;

	NEED(tt_node_get(&events) == tuttiSuccess);
	NEED(tt_sock_listen(&a, &port, &fd) == 0);
	tt_sock_blocking(fd);
	launcher_id(&board->id);
	NEED(tt_root_id_set(&board->id, "127.0.0.1", port, false) == tuttiSuccess);
	test_threads(2, play_old_root, &fd);
	close(fd);
	NEED(heard.bad == 0);
	p = *tt_node_self();
	p.id ^= 1;
	p.version = 98;
	NEED(tt_node_meet(&p, 1, after(1), &local) == tuttiRemoteError);
	NEED(strstr(tt_last_error(), "version 98") != NULL);
	tt_node_put();
	return 0;
}

static void test_versions(void)
{
	run_all(1, versions);
}

/* Nobody there: every pair is named. */
static int nobody(int i)
{
	uint8_t secret[32] = { 1 };
	struct tt_proc p;
	struct tt_table t;
	bool local;

	NEED(tt_node_get(&events) == tuttiSuccess);
	NEED(tt_node_secret_add(9, secret) == tuttiSuccess);
	p = *tt_node_self();
	p.id ^= 1;
	p.port = 1;
	NEED(tt_node_meet(&p, 9, after(0.5), &local) == tuttiTimeout);
	NEED(strstr(tt_last_error(), "unix socket: Connection refused") != NULL);
	NEED(strstr(tt_last_error(), ":1: Connection refused") != NULL ||
	     strstr(tt_last_error(), "]:1: Connection refused") != NULL);
	launcher_id(&board->id);
	NEED(tt_root_id_set(&board->id, "127.0.0.1", 1, false) == tuttiSuccess);
	NEED(join(0, 2, 0.5, &t) == tuttiTimeout);
	NEED(strstr(tt_last_error(), "127.0.0.1:1: Connection refused") != NULL);
	tt_node_secret_drop(9);
	tt_node_put();
	return 0;
}

static void test_nobody(void)
{
	run_all(1, nobody);
}

static int settings(int i)
{
	setenv("TUTTI_ADDRS", "lo", 1);
	setenv("TUTTI_PORT_RANGE", "34000-34099", 1);
	NEED(tt_node_get(&events) == tuttiSuccess);
	NEED(tt_node_self()->naddrs >= 1 && tt_addr_loopback(&tt_node_self()->addrs[0]));
	NEED(tt_node_self()->port >= 34000 && tt_node_self()->port <= 34099);
	NEED(meet_all(0, 2));
	tt_node_put();
	setenv("TUTTI_ADDRS", "no-such-interface", 1);
	return 0;
}

static void test_settings(void)
{
	run_all(2, settings);
}

static void test_addresses(void)
{
	struct tt_addr a[4], b = { .family = 4, .prefix = 20, .ip = { 10, 1, 16, 1 } };
	char text[TT_ADDR_TEXT];

	CHECK(tt_addr_resolve("10.1.31.255", a, 4) == 1);
	CHECK(tt_addr_near(&b, &a[0]));
	CHECK(tt_addr_resolve("10.1.32.0", a, 4) == 1);
	CHECK(!tt_addr_near(&b, &a[0]));
	CHECK(strcmp(tt_addr_format(&a[0], 80, text, sizeof(text)), "10.1.32.0:80") == 0);
	CHECK(tt_addr_resolve("fe80::1", a, 4) == 1 && tt_addr_link_local(&a[0]));
	CHECK(strcmp(tt_addr_format(&a[0], 80, text, sizeof(text)), "[fe80::1]:80") == 0);
	CHECK(tt_addr_resolve("::1", a, 4) == 1 && tt_addr_loopback(&a[0]));
}

static const role roles[] = {
	mesh_unix, mesh_tcp, crossing, line, silence, missing, duplicate, other_size, dies_in_init, root_dies,
	threads, scanned, restarts, forks, stops, strangers, wrong_secret, versions, nobody, settings,
};

static role role_at(int k)
{
	return roles[k];
}

const struct test tests[] = {
	{ "addresses", test_addresses, 0 },
	{ "mesh_unix", test_mesh_unix, 0 },
	{ "mesh_tcp", test_mesh_tcp, 0 },
	{ "crossing", test_crossing, 0 },
	{ "death", test_death, 0 },
	{ "silence", test_silence, 0 },
	{ "missing", test_missing, 0 },
	{ "duplicate", test_duplicate, 0 },
	{ "other_size", test_other_size, 0 },
	{ "dies_in_init", test_dies_in_init, 0 },
	{ "root_dies", test_root_dies, 0 },
	{ "many_threads", test_many_threads, 0 },
	{ "scan", test_scan, 0 },
	{ "restart", test_restart, 0 },
	{ "fork", test_fork, 0 },
	{ "stop", test_stop, 0 },
	{ "strangers", test_strangers, 0 },
	{ "wrong_secret", test_wrong_secret, 0 },
	{ "versions", test_versions, 0 },
	{ "nobody", test_nobody, 0 },
	{ "settings", test_settings, 0 },
};
const int ntests = sizeof(tests) / sizeof(tests[0]);
