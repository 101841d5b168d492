/* Processes that die, stop, leave early or never come: what the others are told, how fast, and that nothing
 * stays behind. Children write what they saw into shared memory; the parent judges.
 * TEST_ROUNDS (6), TEST_JOBS (20). SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "comm.h"
#include "ranks.h"
#include "ref.h"
#include "test.h"

enum { N = 4, BIG = 1 << 18 };
static const char *const transports[] = { "shm", "tcp" };

struct report { /* of one survivor */
	_Atomic int done;
	int result, state;
	double failed_s, abort_s; /* when the call came back; how long leaving took */
	int fds, fds_before, threads, threads_before;
	char text[800], shm_file[200];
};
struct scene {
	_Atomic int ops[N], victim, go;
	struct report report[N];
};
static struct procs ps;

static struct scene *scene_of(const struct procs *p)
{
	return (struct scene *)p->shared->user;
}

/* ---- in the children ---- */

/* A mapping with a name in /dev/shm would stay after SIGKILL. */
static void find_shm_file(char *out, size_t n)
{
	FILE *f = fopen("/proc/self/maps", "re");
	char line[512];

	while (f && fgets(line, sizeof(line), f))
		if (strstr(line, "/dev/shm/") && !strstr(line, "/dev/shm/bxf_arena")) /* Criterion's own */
			snprintf(out, n, "%s", strstr(line, "/dev/shm/"));
	if (f)
		fclose(f);
}

static void leave(struct rank *r, struct report *p)
{
	double t = seconds_now();

	if (r->rank % 2)
		tuttiCommAbort(r->comm);
	else
		tuttiCommDestroy(r->comm);
	p->abort_s = seconds_now() - t;
	for (t = seconds_now() + 2; seconds_now() < t; sleep_s(0.005)) {
		p->fds = count_fds();
		p->threads = count_threads();
		if (p->fds <= p->fds_before && p->threads <= p->threads_before)
			break;
	}
	p->done = 1;
}

static void note_failure(struct rank *r, struct report *p, tuttiResult_t res)
{
	tuttiResult_t state;

	p->failed_s = seconds_now();
	p->result = (int)res;
	snprintf(p->text, sizeof(p->text), "%s", tuttiGetLastError(r->comm));
	tuttiCommGetAsyncError(r->comm, &state);
	p->state = (int)state;
	find_shm_file(p->shm_file, sizeof(p->shm_file));
}

/* Small and large in turn, until a call fails. */
static void work_rank(struct rank *r)
{
	struct scene *s = scene_of(r->procs);
	struct report *p = &s->report[r->rank];
	float *v = calloc(BIG, sizeof(*v));
	tuttiResult_t res = tuttiSuccess;

	RANK_CHECKF(r, v, "no memory");
	p->fds_before = r->fds;
	p->threads_before = r->threads;
	RANK_OK(r, rank_init(r, NULL));
	while (res == tuttiSuccess) {
		size_t count = s->ops[r->rank] % 3 ? 4 : BIG;

		res = tuttiAllReduce(v, v, count, tuttiFloat32, tuttiMax, r->comm, NULL);
		s->ops[r->rank] += res == tuttiSuccess;
	}
	note_failure(r, p, res);
	leave(r, p);
	free(v);
}

/* Does nothing while a rank dies; learns it by asking, then by the next call. */
static void idle_rank(struct rank *r)
{
	struct scene *s = scene_of(r->procs);
	struct report *p = &s->report[r->rank];
	tuttiResult_t state = tuttiSuccess;
	float v = 1;

	p->fds_before = r->fds;
	p->threads_before = r->threads;
	RANK_OK(r, rank_init(r, NULL));
	for (int i = 0; i < 10; i++)
		RANK_OK(r, tuttiAllReduce(&v, &v, 1, tuttiFloat32, tuttiMax, r->comm, NULL));
	s->ops[r->rank] = 100;
	while (state == tuttiSuccess) {
		sleep_s(0.002);
		RANK_OK(r, tuttiCommGetAsyncError(r->comm, &state));
	}
	note_failure(r, p, state);
	state = tuttiAllReduce(&v, &v, 1, tuttiFloat32, tuttiMax, r->comm, NULL);
	RANK_CHECKF(r, (int)state == p->result, "async error '%s', next call '%s'",
		    tuttiGetErrorString((tuttiResult_t)p->result), tuttiGetErrorString(state));
	leave(r, p);
}

/* ---- in the parent ---- */

static int leftovers(const char *dir)
{
	DIR *d = opendir(dir);
	int n = 0;

	if (!d)
		return 0;
	for (struct dirent *e = readdir(d); e; e = readdir(d))
		n += strncmp(e->d_name, "tutti", 5) == 0 || strstr(e->d_name, ".tutti") != NULL;
	closedir(d);
	return n;
}

static bool number_after_hash(const char *text)
{
	const char *p = strchr(text, '#');

	return p && p[1] >= '0' && p[1] <= '9';
}

/* Rank, host, pid; of what was running also its name and sequence number. */
static void check_text(const struct report *p, int who, int victim, pid_t pid, bool running)
{
	char rank[32], number[32], host[256] = "";

	snprintf(rank, sizeof(rank), "rank %d", victim);
	snprintf(number, sizeof(number), "%d", (int)pid);
	gethostname(host, sizeof(host) - 1);
	CHECKF(strstr(p->text, rank), "rank %d: the text does not name rank %d: %s", who, victim, p->text);
	CHECKF(strstr(p->text, number), "rank %d: the text lacks pid %s: %s", who, number, p->text);
	CHECKF(strstr(p->text, host), "rank %d: the text lacks the host: %s", who, p->text);
	if (running)
		CHECKF(strstr(p->text, "AllReduce") && number_after_hash(p->text),
		       "rank %d: the text lacks operation or sequence number: %s", who, p->text);
}

static void check_survivor(const struct report *p, int who, int victim, double killed_s, double within_s,
			   bool running)
{
	CHECKF(p->result == tuttiPeerDead && p->state == tuttiPeerDead,
	       "rank %d got '%s', async '%s' when rank %d died: %s", who,
	       tuttiGetErrorString((tuttiResult_t)p->result),
	       tuttiGetErrorString((tuttiResult_t)p->state), victim, p->text);
	CHECKF(p->failed_s - killed_s < within_s, "rank %d was told after %.2f s that rank %d died", who,
	       p->failed_s - killed_s, victim);
	CHECKF(p->abort_s < 1, "rank %d took %.2f s to leave", who, p->abort_s);
	check_text(p, who, victim, ps.p[victim].pid, running);
	CHECKF(!p->shm_file[0], "rank %d has a file that outlives it: %s", who, p->shm_file);
	CHECKF(p->fds <= p->fds_before, "rank %d has %d descriptors, had %d", who, p->fds,
	       p->fds_before);
	CHECKF(p->threads <= p->threads_before, "rank %d has %d threads, had %d", who, p->threads,
	       p->threads_before);
}

/* Until all ranks have made `ops` operations; a child that failed says why. */
static void wait_for_ops(struct scene *s, int ops)
{
	double end = seconds_now() + 30;
	int least = 0;

	while (least < ops) {
		int status;

		least = ops;
		for (int i = 0; i < N; i++) {
			least = s->ops[i] < least ? s->ops[i] : least;
			if (waitpid(ps.p[i].pid, &status, WNOHANG) == ps.p[i].pid) {
				ps.p[i].ended = true;
				ps.p[i].status = status ? status : 1 << 8;
				procs_expect(&ps, 1, -1);
			}
		}
		if (seconds_now() > end)
			procs_expect(&ps, 0.1, -1);
		sleep_s(0.001);
	}
}

static void one_death(const char *transport, rank_fn fn, bool running, uint64_t *seed)
{
	int before = leftovers("/dev/shm") + leftovers("/tmp"), victim = (int)(test_rand(seed) % N);
	struct scene s, *shared;
	double killed;

	procs_start(&ps, N, 0, transport, fn, NULL);
	shared = scene_of(&ps);
	wait_for_ops(shared, running ? 3 + (int)(test_rand(seed) % 20) : 100);
	sleep_s(test_rand(seed) % 30 * 0.001);
	killed = seconds_now();
	kill(ps.p[victim].pid, SIGKILL);
	procs_wait(&ps, 15);
	s = *shared;
	for (int i = 0; i < N; i++)
		if (i != victim && s.report[i].done)
			check_survivor(&s.report[i], i, victim, killed, 2, running);
	procs_expect(&ps, 1, victim);
	CHECKF(leftovers("/dev/shm") + leftovers("/tmp") <= before, "files stay in /dev/shm or /tmp");
}

static void deaths(const char *transport, rank_fn fn, bool running, long rounds)
{
	uint64_t seed = test_seed();

	for (long i = 0; i < rounds; i++)
		one_death(transport, fn, running, &seed);
}

static long rounds(void)
{
	return test_setting("TEST_ROUNDS", test_setting("TEST_LONG", 0) ? 100 : 6);
}

static void death_shm(void)
{
	deaths("shm", work_rank, true, rounds());
}

static void death_tcp(void)
{
	deaths("tcp", work_rank, true, rounds());
}

static void idle_death(void)
{
	for (int i = 0; i < 2; i++)
		deaths(transports[i], idle_rank, false, 2);
}

/* ---- stopped ---- */

static void stop_rank(struct rank *r)
{
	setenv("TUTTI_SILENCE", "2", 1);
	work_rank(r);
}

/* A stopped rank is dead after TUTTI_SILENCE; when it comes back it is told so. */
static void stopped(const char *transport)
{
	struct scene s, *shared;
	double t, end;
	int victim = 2, done;

	procs_start(&ps, N, 0, transport, stop_rank, NULL);
	shared = scene_of(&ps);
	wait_for_ops(shared, 5);
	kill(ps.p[victim].pid, SIGSTOP);
	t = seconds_now();
	end = t + 12;
	do {
		done = 0;
		for (int i = 0; i < N; i++)
			done += i != victim && shared->report[i].done;
		sleep_s(0.01);
	} while (done < N - 1 && seconds_now() < end);
	kill(ps.p[victim].pid, SIGCONT);
	procs_wait(&ps, 15);
	s = *shared;
	for (int i = 0; i < N; i++)
		if (i != victim && s.report[i].done) {
			check_survivor(&s.report[i], i, victim, t, 6, true);
			CHECKF(s.report[i].failed_s - t > 1, "rank %d gave up after %.2f s", i,
			       s.report[i].failed_s - t);
		}
	CHECKF(done == N - 1, "%d of %d survivors came back while the rank was stopped", done, N - 1);
	CHECKF(s.report[victim].done && s.report[victim].result != tuttiSuccess,
	       "the rank that was declared dead was not told: %s", s.report[victim].text);
	procs_expect(&ps, 1, -1);
}

/* Rank 1 stops before anybody has a connection to it; another thread of rank 0 aborts while it opens one. */
static void *abort_soon(void *arg)
{
	struct rank *r = arg;
	struct report *p = &scene_of(r->procs)->report[0];
	double t;

	while (!atomic_load(&r->comm->issued))
		sleep_s(0.01);
	sleep_s(0.3);
	t = seconds_now();
	p->state = (int)tuttiCommAbort(r->comm);
	p->abort_s = seconds_now() - t;
	return NULL;
}

static void connecting_rank(struct rank *r)
{
	struct scene *s = scene_of(r->procs);
	pthread_t thread;
	float v = 1;

	setenv("TUTTI_SILENCE", "60", 1);
	RANK_OK(r, rank_init(r, NULL));
	if (r->rank)
		raise(SIGSTOP);
	if (r->rank)
		return;
	while (!s->go)
		sleep_s(0.001);
	RANK_CHECKF(r, !pthread_create(&thread, NULL, abort_soon, r), "no thread");
	s->report[0].result = (int)tuttiAllReduce(&v, &v, 1, tuttiFloat32, tuttiMax, r->comm, NULL);
	pthread_join(thread, NULL);
	r->comm = NULL;
	s->report[0].done = 1;
}

static void abort_while_connecting(void)
{
	for (int i = 0; i < 2; i++) {
		struct report *p;
		siginfo_t seen;

		procs_start(&ps, 2, 0, transports[i], connecting_rank, NULL);
		p = &scene_of(&ps)->report[0];
		CHECK(!waitid(P_PID, (id_t)ps.p[1].pid, &seen, WSTOPPED | WNOWAIT));
		scene_of(&ps)->go = 1;
		for (double t = seconds_now(); !p->done && seconds_now() - t < 40; sleep_s(0.01))
			;
		CHECKF(p->done && p->result == tuttiAborted && p->state == tuttiSuccess, "the call: %d, Abort: %d",
		       p->result, p->state);
		CHECKF(p->abort_s < 5, "Abort waited %.1f s for a connection", p->abort_s);
		kill(ps.p[1].pid, SIGCONT);
		procs_expect(&ps, 15, 1);
	}
}

static void stopped_rank(void)
{
	for (int i = 0; i < 2; i++)
		stopped(transports[i]);
}

/* ---- leaving is not dying ---- */

/* Every rank exits at once when its part is done; rank 0 is first with the broadcast still on its way. */
static void short_rank(struct rank *r)
{
	static int32_t v[1 << 16];
	bool large = *(const long *)r->arg % 2;
	size_t count = large ? 1 << 16 : 3;

	RANK_OK(r, rank_init(r, NULL));
	for (int i = 0; i < 3; i++) {
		v[2] = 1;
		RANK_OK(r, tuttiAllReduce(v, v, count, tuttiInt32, tuttiSum, r->comm, NULL));
		RANK_CHECKF(r, v[2] == r->n, "sum is %d", v[2]);
	}
	v[2] = r->rank == 0 ? 77 : 0;
	if (r->rank == r->n - 1)
		sleep_s(0.02);
	RANK_OK(r, tuttiBroadcast(v, v, count, tuttiInt32, 0, r->comm, NULL));
	RANK_CHECKF(r, v[2] == 77, "broadcast gives %d", v[2]);
	RANK_OK(r, tuttiCommDestroy(r->comm));
	_exit(0);
}

static void short_jobs(void)
{
	long jobs = test_setting("TEST_JOBS", test_setting("TEST_LONG", 0) ? 1000 : 20);

	for (long i = 0; i < jobs; i++) {
		procs_start(&ps, 2 + (int)(i / 2 % 3), 0, transports[i / 4 % 2], short_rank, &i);
		procs_expect(&ps, 20, -1);
	}
}

/* The first operation is the last: rank 0 is gone before the others look for its message. */
static void one_rank(struct rank *r)
{
	int32_t v = r->rank ? 0 : 7;

	RANK_OK(r, rank_init(r, NULL));
	if (r->rank)
		sleep_s(0.2);
	RANK_OK(r, tuttiBroadcast(&v, &v, 1, tuttiInt32, 0, r->comm, NULL));
	RANK_CHECKF(r, v == 7, "broadcast gives %d", v);
	RANK_OK(r, tuttiCommDestroy(r->comm));
	_exit(0);
}

static void one_operation(void)
{
	for (int i = 0; i < 6; i++) {
		procs_start(&ps, 2 + i / 2, 0, transports[i % 2], one_rank, NULL);
		procs_expect(&ps, 15, -1);
	}
}

/* ---- init ---- */

static void init_rank(struct rank *r)
{
	int missing = *(const int *)r->arg;
	struct report *p = &scene_of(r->procs)->report[r->rank];
	tuttiConfig_t config = TUTTI_CONFIG_INITIALIZER;
	double t;

	if (r->rank == missing)
		_exit(0);
	config.initDeadline = 2;
	rank_id(r);
	t = seconds_now();
	p->result = (int)rank_init(r, &config);
	p->failed_s = seconds_now() - t;
	snprintf(p->text, sizeof(p->text), "%s", tuttiGetLastError(NULL));
	p->done = 1;
}

/* Says the text that a rank is missing? "rank 2", "missing 2", "missing: 2", "missing rank 2" all do. */
static bool names(const char *text, int rank)
{
	const char *p = strstr(text, "missing");
	char number[16];

	snprintf(number, sizeof(number), "rank %d", rank);
	if (strstr(text, number))
		return true;
	snprintf(number, sizeof(number), "%d", rank);
	return p && strstr(p, number);
}

static void missing_rank(void)
{
	for (int missing = 1; missing < N; missing += 2) {
		struct scene s;

		procs_start(&ps, N, 0, NULL, init_rank, &missing);
		procs_wait(&ps, 15);
		s = *scene_of(&ps);
		procs_expect(&ps, 1, -1);
		for (int i = 0; i < N; i++) {
			const struct report *p = &s.report[i];

			if (i == missing)
				continue;
			CHECKF(p->result == tuttiTimeout, "rank %d got '%s': %s", i,
			       tuttiGetErrorString((tuttiResult_t)p->result), p->text);
			CHECKF(p->failed_s > 1 && p->failed_s < 5, "rank %d gave up after %.2f s of 2", i,
			       p->failed_s);
			CHECKF(names(p->text, missing), "rank %d: the text does not name rank %d: %s", i,
			       missing, p->text);
		}
	}
}

/* Rank 3 comes late, and rank 2 dies while all wait for it. By then the root may have given up and gone. */
static void dying_rank(struct rank *r)
{
	struct scene *s = scene_of(r->procs);
	struct report *p = &s->report[r->rank];
	tuttiConfig_t config = TUTTI_CONFIG_INITIALIZER;

	config.initDeadline = 8;
	rank_id(r);
	while (r->rank == 3 && !s->go)
		sleep_s(0.002);
	s->ops[r->rank] = 1;
	p->result = (int)rank_init(r, &config);
	p->failed_s = seconds_now();
	snprintf(p->text, sizeof(p->text), "%s", tuttiGetLastError(NULL));
	p->done = 1;
}

static void death_in_init(void)
{
	struct scene s, *shared;
	double killed;

	procs_start(&ps, N, 0, NULL, dying_rank, NULL);
	shared = scene_of(&ps);
	for (double end = seconds_now() + 10; seconds_now() < end && !shared->ops[2]; sleep_s(0.001))
		;
	sleep_s(0.3);
	kill(ps.p[2].pid, SIGKILL);
	killed = seconds_now();
	sleep_s(0.3);
	shared->go = 1;
	procs_wait(&ps, 20);
	s = *shared;
	procs_expect(&ps, 1, 2);
	for (int i = 0; i < N; i++) {
		const struct report *p = &s.report[i];

		if (i == 2)
			continue;
		CHECKF(p->result == tuttiPeerDead || p->result == tuttiTimeout ||
			       p->result == tuttiRemoteError,
		       "rank %d got '%s': %s", i, tuttiGetErrorString((tuttiResult_t)p->result), p->text);
		CHECKF(p->failed_s - killed < 11, "rank %d took %.2f s", i, p->failed_s - killed);
		CHECKF(i == 3 || names(p->text, 2), "rank %d: the text does not name rank 2: %s", i, p->text);
	}
}

/* ---- fork ---- */

/* In a child of a process with a communicator calls are refused, and the parent goes on. */
static void forked_rank(struct rank *r)
{
	tuttiResult_t res;
	float v = 1;
	int status;
	pid_t pid;

	RANK_OK(r, rank_init(r, NULL));
	RANK_OK(r, tuttiAllReduce(&v, &v, 1, tuttiFloat32, tuttiSum, r->comm, NULL));
	pid = fork();
	RANK_CHECKF(r, pid >= 0, "no fork");
	if (pid == 0) {
		res = tuttiAllReduce(&v, &v, 1, tuttiFloat32, tuttiSum, r->comm, NULL);
		_exit(res == tuttiForked ? 0 : 10 + (int)res % 100);
	}
	RANK_CHECKF(r, waitpid(pid, &status, 0) == pid && status == 0,
		    "the call in the child gives result %d, want Forked", WEXITSTATUS(status) - 10);
	v = 1;
	RANK_OK(r, tuttiAllReduce(&v, &v, 1, tuttiFloat32, tuttiSum, r->comm, NULL));
	RANK_CHECKF(r, v == (float)r->n, "sum is %g", (double)v);
	RANK_OK(r, tuttiCommDestroy(r->comm));
}

static void forked(void)
{
	procs_start(&ps, 2, 0, NULL, forked_rank, NULL);
	procs_expect(&ps, 20, -1);
}

/* One rank has no file left for its communicator: its part fails as one, another part does not care. */
static void split_rank(struct rank *r)
{
	struct rlimit limit, before;
	tuttiComm_t part = NULL;
	tuttiResult_t res;

	setenv("TUTTI_LOG", "none", 1);
	RANK_OK(r, rank_init(r, NULL));
	RANK_OK(r, tuttiCommSplit(r->comm, 0, 0, &part, NULL)); /* opens the links that the next one needs */
	RANK_OK(r, tuttiCommDestroy(part));
	part = NULL;
	RANK_CHECKF(r, getrlimit(RLIMIT_NOFILE, &before) == 0, "getrlimit");
	limit = (struct rlimit){ r->rank == 2 ? 3 : before.rlim_cur, before.rlim_max };
	RANK_CHECKF(r, setrlimit(RLIMIT_NOFILE, &limit) == 0, "setrlimit");
	res = tuttiCommSplit(r->comm, r->rank % 2, 0, &part, NULL);
	RANK_CHECKF(r, setrlimit(RLIMIT_NOFILE, &before) == 0, "setrlimit");
	if (r->rank % 2)
		RANK_CHECKF(r, res == tuttiSuccess && part, "%d", res);
	else
		RANK_CHECKF(r, res == (r->rank == 2 ? tuttiSystemError : tuttiRemoteError) && !part &&
			    strstr(tuttiGetLastError(NULL), r->rank == 2 ? "open files" : "rank 2 could not"), "%d: %s",
			    res, tuttiGetLastError(NULL));
	tuttiCommDestroy(part);
	RANK_OK(r, tuttiCommSplit(r->comm, 0, 0, &part, NULL)); /* the parent is as good as before */
	RANK_OK(r, tuttiCommDestroy(part));
	RANK_OK(r, tuttiCommDestroy(r->comm));
}

static void failed_split(void)
{
	procs_start(&ps, N, 0, "shm", split_rank, NULL);
	procs_expect(&ps, 20, -1);
}

const struct test tests[] = {
	{ "a rank dies, shm", death_shm, 100 },
	{ "a rank dies, tcp", death_tcp, 100 },
	{ "a rank dies while all are idle", idle_death, 60 },
	{ "a rank is stopped", stopped_rank, 70 },
	{ "abort while connecting to a rank that is stopped", abort_while_connecting, 100 },
	{ "ranks that leave early disturb nobody", short_jobs, 120 },
	{ "a rank leaves after the first operation", one_operation, 60 },
	{ "a rank never comes to init", missing_rank, 40 },
	{ "a rank dies in init", death_in_init, 40 },
	{ "calls after fork", forked, 30 },
	{ "a split fails on one rank", failed_split, 30 },
};
const int ntests = sizeof(tests) / sizeof(tests[0]);
