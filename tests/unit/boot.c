/* A node: meeting, messages, data connections, deaths, restarts. SPDX-License-Identifier: Apache-2.0 */
#include <sys/resource.h>
#include <time.h>

#include "boot_procs.h"

#if defined(__SANITIZE_THREAD__)
#define THREAD_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define THREAD_SANITIZER 1
#endif
#endif

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

/* A line 0 - 1 - 2; 2 dies before 0 meets 1, and 0 is told then. */
static int late(int i)
{
	struct tt_table t;
	struct tt_proc p;
	bool local;

	if (start_and_join(i, 3, &t) != 0)
		return 1;
	p = as_peer(&t, i == 0 ? 1 : 2, i == 0);
	if (i == 1)
		NEED(tt_node_meet(&p, board->id.job, after(10), &local) == tuttiSuccess);
	NEED(meet_all(0, 3));
	if (i == 2)
		kill(getpid(), SIGKILL);
	if (i == 1)
		NEED(wait_int(&heard.dead, 1, 5));
	NEED(meet_all(1, 2));
	if (i == 0) {
		NEED(heard.dead == 0);
		NEED(tt_node_meet(&p, board->id.job, after(10), &local) == tuttiSuccess);
		NEED(wait_int(&heard.dead, 1, 5));
	}
	p = as_peer(&t, 2, false);
	NEED(heard.last_dead == p.id && strstr(heard.why, p.host) != NULL);
	NEED(meet_all(2, 2));
	NEED(heard.dead == 1);
	tt_table_free(&t);
	tt_node_put();
	return 0;
}

static void test_late(void)
{
	pid_t pids[3];

	new_board();
	spawn(3, late, pids);
	CHECK(reap(pids[0]) == 0);
	CHECK(reap(pids[1]) == 0);
	CHECK(WTERMSIG(reap(pids[2])) == SIGKILL);
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

/* ---- life ---- */

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

/* Out of descriptors while somebody connects: waits without spinning, and serves when there are some again. */
static int starved(int i)
{
	struct rlimit old, few;
	struct timespec a, b;
	struct tt_table t;
	int next;

	setenv("TUTTI_ADDRS", "lo", 1);
	NEED(tt_node_get(&events) == tuttiSuccess);
	if (i == 0) {
		NEED(tt_root_open(&board->id, finish) == tuttiSuccess);
		next = dup(0);
		NEED(next >= 0 && close(next) == 0 && getrlimit(RLIMIT_NOFILE, &old) == 0);
		few = (struct rlimit){ (rlim_t)next, old.rlim_max };
		NEED(setrlimit(RLIMIT_NOFILE, &few) == 0);
		atomic_store(&board->ready, 1);
		usleep(100000);
		clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &a);
		usleep(500000);
		clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &b);
		NEED((b.tv_sec - a.tv_sec) * 1000000000 + b.tv_nsec - a.tv_nsec < 50000000);
		NEED(setrlimit(RLIMIT_NOFILE, &old) == 0);
	}
	NEED(wait_int(&board->ready, 1, 20));
	NEED(join(i, 2, 10, &t) == tuttiSuccess);
	tt_table_free(&t);
	NEED(meet_all(0, 2));
	tt_node_put();
	return 0;
}

static void test_starved(void)
{
	run_all(2, starved);
}

static size_t count_addrs(const struct tt_root_id *id)
{
	struct tt_addr a;
	size_t at = 0, n, count = 0;

	for (; (n = tt_id_get(id, at, &a)) > 0; at += n)
		count++;
	return count;
}

static void test_id(void)
{
	struct tt_root_id id = { .magic = TT_ROOT_MAGIC };
	struct tt_addr four = { .family = 4, .ip = { 10 } }, six = { .family = 6, .ip = { 0xfd } }, got;
	size_t n;
	int i;

	CHECK(!tt_id_valid(&id));
	for (i = 0; i < 20; i++) {
		four.ip[3] = six.ip[15] = (uint8_t)(i / 2);
		tt_id_put(&id, &four);
		if (i < 6)
			tt_id_put(&id, &six);
	}
	CHECK(tt_id_valid(&id) && count_addrs(&id) == 8); /* 3 of IPv6, as many of IPv4 as fit */
	n = tt_id_get(&id, 0, &got);
	CHECK(tt_addr_equal(&got, &(struct tt_addr){ .family = 4, .ip = { 10 } }));
	CHECK(tt_id_get(&id, n, &got) > 0 && got.family == 6 && got.scope == 0);
	id.used = 0;
	for (i = 0; i < 40; i++) {
		four.ip[3] = (uint8_t)i;
		tt_id_put(&id, &four);
	}
	CHECK(tt_id_valid(&id) && count_addrs(&id) == 16);
	id.used = 0;
	six.scope = 70000;
	tt_id_put(&id, &six);
	CHECK(tt_id_get(&id, 0, &got) == id.used && got.scope == 70000 && tt_id_get(&id, id.used, &got) == 0);
}

/* Cut, too long, of an unknown kind, of another version. */
static void test_damaged_id(void)
{
	struct tt_root_id id = { .magic = TT_ROOT_MAGIC, .used = 22, .addrs = { [0] = 4, [5] = 6 } }, bad = id;
	struct tt_addr got;
	int used;

	CHECK(tt_id_valid(&id));
	for (used = 0; used <= UINT8_MAX; used++) {
		bad.used = (uint8_t)used;
		CHECKF(tt_id_valid(&bad) == (used == 22 || used == 5), "an id of %d bytes", used);
		CHECK(tt_id_get(&bad, 5, &got) == 0 || used >= 22);
		CHECK(tt_id_get(&bad, 200, &got) == 0);
	}
	bad = id;
	bad.addrs[5] = 5;
	CHECK(!tt_id_valid(&bad));
	bad = id;
	bad.magic--;
	CHECK(!tt_id_valid(&bad));
}

static const role roles[] = {
	mesh_unix, mesh_tcp, crossing, line, late, silence, restarts, forks, settings,
	starved,
};

static role role_at(int k)
{
	return roles[k];
}

const struct test tests[] = {
	{ "addresses", test_addresses, 0 },
	{ "id", test_id, 0 },
	{ "damaged_id", test_damaged_id, 0 },
	{ "mesh_unix", test_mesh_unix, 0 },
	{ "mesh_tcp", test_mesh_tcp, 0 },
	{ "crossing", test_crossing, 0 },
	{ "death", test_death, 0 },
	{ "late", test_late, 0 },
	{ "silence", test_silence, 0 },
	{ "restart", test_restart, 0 },
	{ "fork", test_fork, 0 },
	{ "settings", test_settings, 0 },
	{ "starved", test_starved, 0 },
};
const int ntests = sizeof(tests) / sizeof(tests[0]);
