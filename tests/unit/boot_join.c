/* Rendezvous: what fails, many, late, strangers, other versions. SPDX-License-Identifier: Apache-2.0 */
#include <arpa/inet.h>
#include <netdb.h>

#include "boot_procs.h"
#include "tutti.h"

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

/* A listener whose queue is full: what connects hears nothing, as behind a firewall. */
static int black_hole(const struct tt_addr *a, uint16_t port)
{
	struct tt_addr self = *a;
	int fd, other, k;

	NEED(tt_sock_listen(&self, &port, &fd) == 0 && listen(fd, 0) == 0);
	for (k = 0; k < 4; k++)
		NEED(tt_sock_connect(&self, port, &other) == 0);
	return 0;
}

/* Ten addresses, of which the last leads to the root. */
static int last_of_ten(int i)
{
	struct tt_addr a = { .family = 4, .ip = { 127, 0, 0, 0 } };
	struct tt_root_id id;
	struct tt_table t;
	uint64_t start;

	setenv("TUTTI_ADDRS", "127.0.0.1", 1);
	NEED(tt_node_get(&events) == tuttiSuccess);
	if (open_root(i) != 0)
		return 1;
	id = board->id;
	id.used = 0;
	for (a.ip[3] = 11; i == 1 && a.ip[3] < 20; a.ip[3]++) {
		NEED(black_hole(&a, id.port) == 0);
		tt_id_put(&id, &a);
	}
	a.ip[3] = 1;
	tt_id_put(&id, &a);
	start = tt_now_ns();
	NEED(tt_root_join(&id, i, 2, "entry", 6, after(20), NULL, &t) == tuttiSuccess);
	NEED(i == 0 || tt_now_ns() - start < 4 * SEC);
	tt_table_free(&t);
	NEED(meet_all(0, 2));
	tt_node_put();
	return 0;
}

static void test_last_of_ten(void)
{
	run_all(2, last_of_ten);
}

/* ---- names ---- */

struct found {
	struct addrinfo ai;
	struct sockaddr_in to;
};

/* The resolver: literal addresses, and a name that becomes known at the third question. */
int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **out)
{
	static _Atomic int asked;
	bool late = strcmp(name, "late.test") == 0;
	struct found *f;

	if (late && atomic_fetch_add(&asked, 1) < 2)
		return asked == 1 ? EAI_AGAIN : EAI_NONAME;
	f = calloc(1, sizeof(*f));
	if (f == NULL || inet_pton(AF_INET, late ? "127.0.0.1" : name, &f->to.sin_addr) != 1) {
		free(f);
		return EAI_NONAME;
	}
	f->to.sin_family = AF_INET;
	f->ai.ai_family = AF_INET;
	f->ai.ai_addr = (struct sockaddr *)&f->to;
	f->ai.ai_addrlen = sizeof(f->to);
	*out = &f->ai;
	return 0;
}

void freeaddrinfo(struct addrinfo *ai)
{
	free(ai);
}

static int launched(int i)
{
	tuttiConfig_t config = TUTTI_CONFIG_INITIALIZER;
	char text[64];
	tuttiComm_t c;

	config.initDeadline = 10;
	setenv("TUTTI_ADDRS", "lo", 1);
	setenv("TUTTI_RANK", i == 0 ? "0" : "1", 1);
	setenv("TUTTI_SIZE", "2", 1);
	setenv("TUTTI_JOB", "names", 1);
	setenv("TUTTI_ROOT", "late.test:0", 1);
	NEED(tuttiCommInitFromEnv(&c, &config) == tuttiInvalidUsage);
	setenv("TUTTI_ROOT", "late.test:65536", 1);
	NEED(tuttiCommInitFromEnv(&c, &config) == tuttiInvalidUsage);
	snprintf(text, sizeof(text), "late.test:%u", board->id.port);
	setenv("TUTTI_ROOT", text, 1);
	NEED(tuttiCommInitFromEnv(&c, &config) == tuttiSuccess);
	NEED(tuttiCommDestroy(c) == tuttiSuccess);
	config.initDeadline = 0.5;
	setenv("TUTTI_ROOT", "nowhere.test:29400", 1);
	NEED(tuttiCommInitFromEnv(&c, &config) == tuttiSystemError);
	NEED(strstr(tt_last_error(), "\"nowhere.test\" is unknown to the resolver") != NULL);
	return 0;
}

/* The name of the root may become known only when its host is up. */
static void test_launched(void)
{
	struct tt_addr any = { .family = 4, .ip = { 127, 0, 0, 1 } };
	pid_t pids[2];
	uint16_t port = 0;
	int fd, i;

	new_board();
	CHECK(tt_sock_listen(&any, &port, &fd) == 0); /* the first port is taken, which stays so */
	board->id.port = port;
	spawn(2, launched, pids);
	for (i = 0; i < 2; i++)
		CHECK(reap(pids[i]) == 0);
	close(fd);
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
	struct tt_addr a;

	NEED(tt_id_get(&board->id, 0, &a) > 0);
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
		NEED(tt_root_join(&id, 1, 2, "x", 1, after(2), NULL, &t) == tuttiTimeout);
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

static const role roles[] = {
	missing, duplicate, other_size, dies_in_init, root_dies, threads, scanned, stops,
	strangers, wrong_secret, versions, nobody, last_of_ten,
	launched,
};

static role role_at(int k)
{
	return roles[k];
}

const struct test tests[] = {
	{ "missing", test_missing, 0 },
	{ "duplicate", test_duplicate, 0 },
	{ "other_size", test_other_size, 0 },
	{ "dies_in_init", test_dies_in_init, 0 },
	{ "root_dies", test_root_dies, 0 },
	{ "many_threads", test_many_threads, 0 },
	{ "scan", test_scan, 0 },
	{ "last_of_ten", test_last_of_ten, 0 },
	{ "launched", test_launched, 0 },
	{ "stop", test_stop, 0 },
	{ "strangers", test_strangers, 0 },
	{ "wrong_secret", test_wrong_secret, 0 },
	{ "versions", test_versions, 0 },
	{ "nobody", test_nobody, 0 },
};
const int ntests = sizeof(tests) / sizeof(tests[0]);
