/* tutti-run: starts N ranks of a program on this machine, and sees to it that none is left behind.
 * SPDX-License-Identifier: Apache-2.0 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char usage[] =
	"Usage: tutti-run -n N [options] [--] PROGRAM [ARGUMENT...]\n"
	"Starts N processes of PROGRAM on this machine; tuttiCommInitFromEnv makes them one communicator.\n"
	"  -n, --np N             number of ranks\n"
	"  -x, --env VAR=VALUE    set VAR for all ranks (may be repeated)\n"
	"  -l, --label            put \"[rank] \" before each line of output\n"
	"  -g, --grace SECONDS    once a rank has failed, how long the others may go on (default 10)\n"
	"  -h, --help             this text\n"
	"Each rank sees TUTTI_RANK, TUTTI_SIZE, TUTTI_LOCAL_RANK, TUTTI_LOCAL_SIZE, TUTTI_ROOT and\n"
	"TUTTI_JOB. Rank 0 has the standard input, the others /dev/null. SIGINT and SIGTERM are passed on.\n"
	"Exit status: 0 if all ranks ended with 0; else that of the rank that failed first, 128 + number\n"
	"for a signal; 126 or 127 where PROGRAM could not be run; 2 for wrong usage.\n";

enum { MAX_RANKS = 4096, LINE = 4096, KILL_AFTER_MS = 2000 };

struct line {             /* one output stream of a rank under -l */
	int fd;           /* -1: closed, or not used */
	FILE *to;
	size_t n;
	char text[LINE];
};

struct child {
	pid_t pid;        /* 0: not running */
	struct line out[2];
};

struct job {
	int n, running;
	bool label;
	double grace;
	char **argv;
	struct child *children;
	sigset_t old_mask;
	int signals;             /* signalfd */
	int status;              /* of the first that failed */
	int caught;              /* a signal that we passed on */
	int kill_stage;          /* 0 nothing planned, 1 TERM planned, 2 KILL planned, 3 sent */
	long long kill_at_ms;
};

static void quit(int status, const char *fmt, const char *a, const char *b)
{
	fputs("tutti-run: ", stderr);
	fprintf(stderr, fmt, a, b);
	fputc('\n', stderr);
	exit(status);
}

static long long now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000LL + t.tv_nsec / 1000000;
}

/* ---- the environment of the ranks ---- */

static void set_int(const char *name, int v)
{
	char text[16];

	snprintf(text, sizeof text, "%d", v);
	setenv(name, text, 1);
}

/* A port that is free now. Rank 0 binds it, or one of the next 15 if somebody was faster. */
static int free_port(void)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof a;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof a) ||
	    getsockname(fd, (struct sockaddr *)&a, &len))
		quit(1, "no free TCP port on 127.0.0.1: %s%s", strerror(errno), "");
	close(fd);
	return ntohs(a.sin_port);
}

static void set_job(int n)
{
	unsigned char secret[32];
	char text[65];

	if (getrandom(secret, sizeof secret, 0) != sizeof secret)
		quit(1, "getrandom: %s%s", strerror(errno), "");
	for (int i = 0; i < 32; i++)
		snprintf(text + 2 * i, 3, "%02x", secret[i]);
	setenv("TUTTI_JOB", text, 1);
	snprintf(text, sizeof text, "127.0.0.1:%d", free_port());
	setenv("TUTTI_ROOT", text, 1);
	set_int("TUTTI_SIZE", n);
	set_int("TUTTI_LOCAL_SIZE", n);
}

/* ---- starting ---- */

static void open_pipes(struct child *c, int write_end[2])
{
	for (int i = 0; i < 2; i++) {
		int p[2];

		if (pipe2(p, O_CLOEXEC))
			quit(1, "pipe: %s%s", strerror(errno), "");
		c->out[i].fd = p[0];
		c->out[i].to = i ? stderr : stdout;
		write_end[i] = p[1];
	}
}

static void run_child(const struct job *j, int rank, pid_t parent, const int write_end[2])
		      __attribute__((noreturn));
static void run_child(const struct job *j, int rank, pid_t parent, const int write_end[2])
{
	int e, null;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent) /* gone before the line above took effect */
		_exit(1);
	sigprocmask(SIG_SETMASK, &j->old_mask, NULL);
	set_int("TUTTI_RANK", rank);
	set_int("TUTTI_LOCAL_RANK", rank);
	if (rank > 0 && (null = open("/dev/null", O_RDONLY)) >= 0) {
		dup2(null, 0);
		close(null);
	}
	if (j->label) {
		dup2(write_end[0], 1);
		dup2(write_end[1], 2);
	}
	execvp(j->argv[0], j->argv);
	e = errno;
	fprintf(stderr, "tutti-run: cannot run %s: %s\n", j->argv[0], strerror(e));
	_exit(e == ENOENT ? 127 : 126);
}

static void start(struct job *j, int rank)
{
	struct child *c = &j->children[rank];
	int write_end[2] = { -1, -1 };
	pid_t parent = getpid();

	c->out[0].fd = c->out[1].fd = -1;
	if (j->label)
		open_pipes(c, write_end);
	c->pid = fork();
	if (c->pid == 0)
		run_child(j, rank, parent, write_end);
	if (c->pid < 0) /* the ranks that run die with this process */
		quit(1, "fork: %s%s", strerror(errno), "");
	j->running++;
	for (int i = 0; i < 2 && j->label; i++)
		close(write_end[i]);
}

/* ---- ending ---- */

static void signal_all(const struct job *j, int sig)
{
	for (int i = 0; i < j->n; i++)
		if (j->children[i].pid > 0)
			kill(j->children[i].pid, sig);
}

static void plan_kill(struct job *j, int stage, long long in_ms)
{
	j->kill_stage = stage;
	j->kill_at_ms = now_ms() + in_ms;
}

static void kill_if_due(struct job *j)
{
	if ((j->kill_stage != 1 && j->kill_stage != 2) || now_ms() < j->kill_at_ms)
		return;
	fprintf(stderr, "tutti-run: %d of %d ranks still run %s: sending them %s\n", j->running, j->n,
		j->kill_stage == 1 ? "after the grace period" : "after that",
		j->kill_stage == 1 ? "SIGTERM" : "SIGKILL");
	signal_all(j, j->kill_stage == 1 ? SIGTERM : SIGKILL);
	plan_kill(j, j->kill_stage + 1, KILL_AFTER_MS);
}

static void child_failed(struct job *j, int rank, pid_t pid, int wstatus)
{
	char how[96];

	if (WIFSIGNALED(wstatus))
		snprintf(how, sizeof how, "was killed by signal %d (%s)", WTERMSIG(wstatus),
			 strsignal(WTERMSIG(wstatus)));
	else
		snprintf(how, sizeof how, "ended with status %d", WEXITSTATUS(wstatus));
	fprintf(stderr, "tutti-run: rank %d (pid %d) %s\n", rank, (int)pid, how);
	if (j->status)
		return;
	j->status = WIFSIGNALED(wstatus) ? 128 + WTERMSIG(wstatus) : WEXITSTATUS(wstatus);
	if (j->running > 0 && j->kill_stage == 0) {
		fprintf(stderr, "tutti-run: the other %d have %g s to end\n", j->running, j->grace);
		plan_kill(j, 1, (long long)(j->grace * 1000));
	}
}

static void reap(struct job *j)
{
	int wstatus;
	pid_t pid;

	while ((pid = waitpid(-1, &wstatus, WNOHANG)) > 0) {
		int rank = 0;

		while (rank < j->n && j->children[rank].pid != pid)
			rank++;
		if (rank == j->n)
			continue;
		j->children[rank].pid = 0;
		j->running--;
		if (WIFSIGNALED(wstatus) || WEXITSTATUS(wstatus))
			child_failed(j, rank, pid, wstatus);
	}
}

/* What the terminal sends reaches the ranks by itself: they are in our process group. */
static void take_signal(struct job *j)
{
	struct signalfd_siginfo s;

	while (read(j->signals, &s, sizeof s) == sizeof s) {
		if (s.ssi_signo == SIGCHLD) {
			reap(j);
			continue;
		}
		if (s.ssi_code != SI_KERNEL)
			signal_all(j, (int)s.ssi_signo);
		if (j->caught) /* asked twice: no more patience */
			signal_all(j, SIGKILL);
		else
			plan_kill(j, 2, (long long)(j->grace * 1000));
		j->caught = (int)s.ssi_signo;
	}
}

/* ---- output with labels ---- */

static void put_line(int rank, struct line *l)
{
	if (!l->n)
		return;
	fprintf(l->to, "[%d] %.*s%s", rank, (int)l->n, l->text, l->text[l->n - 1] == '\n' ? "" : "\n");
	fflush(l->to);
	l->n = 0;
}

static void take_output(int rank, struct line *l)
{
	char buf[LINE];
	ssize_t got = read(l->fd, buf, sizeof buf);

	for (ssize_t i = 0; i < got; i++) {
		l->text[l->n++] = buf[i];
		if (buf[i] == '\n' || l->n == LINE)
			put_line(rank, l);
	}
	if (got > 0 || (got < 0 && errno == EINTR))
		return;
	put_line(rank, l);
	close(l->fd);
	l->fd = -1;
}

/* ---- waiting ---- */

static int wait_ms(const struct job *j)
{
	long long left = j->kill_at_ms - now_ms();

	if (j->kill_stage != 1 && j->kill_stage != 2)
		return -1;
	return left < 0 ? 0 : left > 60000 ? 60000 : (int)left + 1;
}

static int fill_poll(const struct job *j, struct pollfd *p)
{
	int n = 0;

	p[n++] = (struct pollfd){ .fd = j->signals, .events = POLLIN };
	for (int i = 0; i < j->n && j->label; i++)
		for (int k = 0; k < 2; k++)
			p[n++] = (struct pollfd){ .fd = j->children[i].out[k].fd, .events = POLLIN };
	return n;
}

/* Runs until all ranks are reaped, then takes what is left in the pipes; a grandchild may hold them open. */
static void serve(struct job *j)
{
	struct pollfd *p = calloc(1 + 2 * (size_t)j->n, sizeof *p);

	if (!p)
		quit(1, "no memory%s%s", "", "");
	for (;;) {
		bool last = j->running == 0;
		int n = fill_poll(j, p), ready = poll(p, (nfds_t)n, last ? 0 : wait_ms(j));

		if (last && ready <= 0)
			break;
		if (p[0].revents)
			take_signal(j);
		for (int i = 1; i < n && ready > 0; i++)
			if (p[i].revents)
				take_output((i - 1) / 2, &j->children[(i - 1) / 2].out[(i - 1) % 2]);
		kill_if_due(j);
	}
	free(p);
}

/* ---- the command line ---- */

static double number(const char *option, const char *text, double lo, double hi)
{
	char *end;
	double v = strtod(text, &end);

	if (end == text || *end || !(v >= lo && v <= hi))
		quit(2, "%s %s: not a number that makes sense there (--help)", option, text);
	return v;
}

static void set_variable(const char *text)
{
	const char *eq = strchr(text, '=');
	char *name = strdup(text);

	if (!eq || eq == text || !name)
		quit(2, "-x %s: VAR=VALUE is wanted%s", text, "");
	name[eq - text] = 0;
	setenv(name, eq + 1, 1);
	free(name);
}

static void parse(int argc, char **argv, struct job *j)
{
	static const struct option options[] = { { "np", required_argument, NULL, 'n' },
						 { "env", required_argument, NULL, 'x' },
						 { "label", no_argument, NULL, 'l' },
						 { "grace", required_argument, NULL, 'g' },
						 { "help", no_argument, NULL, 'h' },
						 { NULL, 0, NULL, 0 } };
	int c;

	while ((c = getopt_long(argc, argv, "+n:x:lg:h", options, NULL)) != -1) {
		switch (c) {
		case 'n': j->n = (int)number("-n", optarg, 1, MAX_RANKS); break;
		case 'x': set_variable(optarg); break;
		case 'l': j->label = true; break;
		case 'g': j->grace = number("-g", optarg, 0, 1e6); break;
		case 'h': fputs(usage, stdout); exit(0);
		default: exit(2);
		}
	}
	j->argv = argv + optind;
	if (!j->n || !*j->argv) {
		fputs(usage, stderr);
		exit(2);
	}
}

static void block_signals(struct job *j)
{
	static const int wanted[] = { SIGCHLD, SIGINT, SIGTERM, SIGHUP, SIGQUIT };
	sigset_t set;

	sigemptyset(&set);
	for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++)
		sigaddset(&set, wanted[i]);
	sigprocmask(SIG_BLOCK, &set, &j->old_mask);
	j->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (j->signals < 0)
		quit(1, "signalfd: %s%s", strerror(errno), "");
}

int main(int argc, char **argv)
{
	struct job j = { .grace = 10 };

	parse(argc, argv, &j);
	j.children = calloc((size_t)j.n, sizeof *j.children);
	if (!j.children)
		quit(1, "no memory%s%s", "", "");
	set_job(j.n);
	block_signals(&j);
	for (int i = 0; i < j.n; i++)
		start(&j, i);
	serve(&j);
	free(j.children);
	return j.status ? j.status : j.caught ? 128 + j.caught : 0;
}
