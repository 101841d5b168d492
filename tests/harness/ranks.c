/* Ranks as threads and as processes, for the tests. See ranks.h. SPDX-License-Identifier: Apache-2.0 */
#include "ranks.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "test.h"

double seconds_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

void sleep_s(double s)
{
	struct timespec t = { (time_t)s, (long)((s - (double)(time_t)s) * 1e9) };

	while (s > 0 && nanosleep(&t, &t) && errno == EINTR)
		;
}

long test_setting(const char *name, long otherwise)
{
	const char *v = getenv(name);

	return v && *v ? atol(v) : otherwise;
}

void rank_fail(struct rank *r, const char *file, int line, const char *fmt, ...)
{
	char text[1024], all[1400];
	va_list ap;
	int n;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	n = snprintf(all, sizeof(all), "rank %d of %d, step %ld: %s (%s:%d)", r->rank, r->n, r->step, text,
		     file, line);
	if (!r->procs)
		test_fail(file, line, "%s", all);
	if (write(r->out, all, (size_t)n < sizeof(all) ? (size_t)n : sizeof(all) - 1) < 0)
		_exit(3);
	_exit(2);
}

/* ---- threads ---- */

void (*rank_prepare)(struct rank *r);

struct thread_rank {
	struct rank r;
	rank_fn fn;
	tuttiUniqueId id;
	bool bare;
	pthread_t thread;
};

static void *thread_main(void *p)
{
	struct thread_rank *t = p;

	if (rank_prepare)
		rank_prepare(&t->r);
	if (!t->bare)
		RANK_OK(&t->r, tuttiCommInitRank(&t->r.comm, t->r.n, t->id, t->r.rank));
	t->fn(&t->r);
	if (t->r.comm)
		RANK_OK(&t->r, tuttiCommDestroy(t->r.comm));
	t->r.ended = true;
	return NULL;
}

static void join_until(struct thread_rank *t, int n, double limit_s)
{
	char late[512] = "";
	size_t len = 0;

	limit_s = test_limit(limit_s);
	for (double end = seconds_now() + limit_s; seconds_now() < end; sleep_s(0.001)) {
		int running = 0;

		for (int i = 0; i < n; i++)
			running += !t[i].r.ended;
		if (!running)
			return;
	}
	for (int i = 0; i < n && len < 480; i++)
		if (!t[i].r.ended)
			len += (size_t)snprintf(late + len, sizeof(late) - len, " %d(step %ld)", i, t[i].r.step);
	test_fail(__FILE__, __LINE__, "after %.0f s these of %d ranks are not back:%s", limit_s, n, late);
}

static void run_threads(int n, double limit_s, bool bare, rank_fn fn, void *arg)
{
	struct thread_rank *t = calloc((size_t)n, sizeof(*t));
	tuttiUniqueId id = { { 0 } };

	CHECK(t);
	if (!bare)
		CHECKF(tuttiGetUniqueId(&id) == tuttiSuccess, "GetUniqueId: %s", tuttiGetLastError(NULL));
	for (int i = 0; i < n; i++) {
		t[i].r = (struct rank){ .rank = i, .n = n, .arg = arg, .out = -1 };
		t[i].fn = fn;
		t[i].id = id;
		t[i].bare = bare;
		CHECK(!pthread_create(&t[i].thread, NULL, thread_main, &t[i]));
	}
	join_until(t, n, limit_s);
	for (int i = 0; i < n; i++)
		pthread_join(t[i].thread, NULL);
	free(t);
}

void ranks_run(int n, double limit_s, rank_fn fn, void *arg)
{
	run_threads(n, limit_s, false, fn, arg);
}

void ranks_run_bare(int n, double limit_s, rank_fn fn, void *arg)
{
	run_threads(n, limit_s, true, fn, arg);
}

/* ---- processes ---- */

static void make_id(struct rank *r)
{
	struct procs_shared *s = r->procs->shared;

	if (tuttiGetUniqueId(&s->id) == tuttiSuccess) {
		s->have_id = 1;
		return;
	}
	s->have_id = 2;
	rank_fail(r, __FILE__, __LINE__, "GetUniqueId: %s", tuttiGetLastError(NULL));
}

static void child_main(struct procs *ps, int rank, int out, const char *transports, void *arg)
{
	struct rank r = { .rank = rank, .n = ps->n, .arg = arg, .procs = ps, .out = out };

	prctl(PR_SET_PDEATHSIG, SIGKILL); /* nothing outlives a test that was killed */
	signal(SIGPIPE, SIG_DFL);
	test_device(rank);
	if (transports)
		setenv("TUTTI_TRANSPORTS", transports, 1);
	setenv("TUTTI_LOG", "none", 0); /* expected errors are no news */
	r.fds = count_fds();
	r.threads = count_threads();
	if (rank == ps->owner && ps->here == ps->n)
		make_id(&r);
	ps->fn(&r);
	_exit(0);
}

/* Of this process: the hosts count alike, and so have the same port and secret for each. */
static int rounds;

void procs_start(struct procs *ps, int n, int owner, const char *transports, rank_fn fn, void *arg)
{
	int hosts = (int)test_setting("TEST_HOSTS", 1), host = (int)test_setting("TEST_HOST", 0);

	memset(ps, 0, sizeof(*ps));
	ps->n = n;
	ps->round = ++rounds;
	ps->owner = owner;
	ps->fn = fn;
	ps->shared = mmap(NULL, sizeof(*ps->shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
			  0);
	CHECK(ps->shared != MAP_FAILED);
	fflush(NULL);
	for (int i = host; i < n; i += hosts)
		ps->here++;
	for (int i = 0; i < n; i++) {
		int fds[2];

		ps->p[i].fd = -1;
		ps->p[i].ended = i % hosts != host;
		if (ps->p[i].ended)
			continue;
		CHECK(!pipe2(fds, O_CLOEXEC));
		ps->p[i].pid = fork();
		CHECK(ps->p[i].pid >= 0);
		if (ps->p[i].pid == 0) {
			for (int j = 0; j < i; j++)
				if (ps->p[j].fd >= 0)
					close(ps->p[j].fd);
			close(fds[0]);
			child_main(ps, i, fds[1], transports, arg);
		}
		close(fds[1]);
		fcntl(fds[0], F_SETFL, O_NONBLOCK);
		ps->p[i].fd = fds[0];
	}
}

tuttiUniqueId rank_id(struct rank *r)
{
	struct procs_shared *s = r->procs->shared;

	for (double end = seconds_now() + test_limit(30); !s->have_id; sleep_s(0.0005))
		RANK_CHECKF(r, seconds_now() < end, "no unique id from rank %d", r->procs->owner);
	if (s->have_id == 2)
		_exit(4); /* the owner says why */
	return s->id;
}

static tuttiResult_t init_across_hosts(struct rank *r, tuttiConfig_t *config)
{
	const char *root = getenv("TEST_ROOT"), *colon = root ? strrchr(root, ':') : NULL;
	char text[160];

	RANK_CHECKF(r, colon, "no TEST_ROOT=address:port");
	snprintf(text, sizeof(text), "%.*s:%d", (int)(colon - root), root, atoi(colon + 1) + r->procs->round);
	setenv("TUTTI_ROOT", text, 1);
	snprintf(text, sizeof(text), "%d", r->rank);
	setenv("TUTTI_RANK", text, 1);
	snprintf(text, sizeof(text), "%d", r->n);
	setenv("TUTTI_SIZE", text, 1);
	return tuttiCommInitFromEnv(&r->comm, config);
}

tuttiResult_t rank_init(struct rank *r, tuttiConfig_t *config)
{
	if (rank_prepare)
		rank_prepare(r);
	if (r->procs->here < r->n)
		return init_across_hosts(r, config);
	return tuttiCommInitRankConfig(&r->comm, r->n, rank_id(r), r->rank, config);
}

static void gather(struct proc *p)
{
	ssize_t n = 1;

	while (p->fd >= 0 && p->len < PROC_TEXT - 1 && n > 0) {
		n = read(p->fd, p->text + p->len, PROC_TEXT - 1 - p->len);
		p->len += n > 0 ? (size_t)n : 0;
	}
	if (!p->ended && waitpid(p->pid, &p->status, WNOHANG) == p->pid)
		p->ended = true;
}

static void kill_late(struct proc *p, double limit_s)
{
	kill(p->pid, SIGKILL);
	waitpid(p->pid, &p->status, 0);
	p->ended = true;
	gather(p);
	snprintf(p->text + p->len, PROC_TEXT - p->len, " [did not end within %.0f s]", limit_s);
}

static int still_running(struct procs *ps, bool *failed)
{
	int left = 0;

	for (int i = 0; i < ps->n; i++) {
		gather(&ps->p[i]);
		left += !ps->p[i].ended;
		*failed |= ps->p[i].ended && WIFEXITED(ps->p[i].status) && ps->p[i].status;
	}
	return left;
}

bool procs_wait(struct procs *ps, double limit_s)
{
	double end = seconds_now() + test_limit(limit_s);
	bool failed = false, shortened = false;
	int left;

	while ((left = still_running(ps, &failed)) > 0 && seconds_now() < end) {
		if (failed && !shortened && end > seconds_now() + 3)
			end = seconds_now() + 3; /* the others would wait for the one that failed */
		shortened = failed;
		sleep_s(0.002);
	}
	for (int i = 0; i < ps->n; i++) {
		if (!ps->p[i].ended)
			kill_late(&ps->p[i], test_limit(limit_s));
		gather(&ps->p[i]);
	}
	return left == 0;
}

void procs_free(struct procs *ps)
{
	for (int i = 0; i < ps->n; i++) {
		if (!ps->p[i].ended) {
			kill(ps->p[i].pid, SIGKILL);
			waitpid(ps->p[i].pid, &ps->p[i].status, 0);
			ps->p[i].ended = true;
		}
		if (ps->p[i].fd >= 0)
			close(ps->p[i].fd);
	}
	munmap(ps->shared, sizeof(*ps->shared));
	ps->n = 0;
}

void procs_expect(struct procs *ps, double limit_s, int except)
{
	char all[2048] = "";
	size_t len = 0;

	procs_wait(ps, limit_s);
	for (int i = 0; i < ps->n && len < sizeof(all) - 1; i++) {
		struct proc *p = &ps->p[i];

		if (i == except || p->status == 0)
			continue;
		len += (size_t)snprintf(all + len, sizeof(all) - len, "\n  rank %d (%s %d): %s", i,
					WIFSIGNALED(p->status) ? "signal" : "exit",
					WIFSIGNALED(p->status) ? WTERMSIG(p->status) : WEXITSTATUS(p->status),
					p->text);
	}
	procs_free(ps);
	CHECKF(len == 0, "processes failed:%s", all);
}

int count_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	int n = -1; /* the directory's own */

	if (!d)
		return -1;
	for (struct dirent *e = readdir(d); e; e = readdir(d))
		n += e->d_name[0] != '.';
	closedir(d);
	return n;
}

int count_threads(void)
{
	FILE *f = fopen("/proc/self/status", "re");
	char line[256];
	int n = -1;

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "Threads: %d", &n) == 1)
			break;
	if (f)
		fclose(f);
	return n;
}

int shell(const char *fmt, ...)
{
	char command[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(command, sizeof(command), fmt, ap);
	va_end(ap);
	strncat(command, " > /dev/null 2>&1", sizeof(command) - strlen(command) - 1);
	return system(command);
}
