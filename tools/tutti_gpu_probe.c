/* tutti-gpu-probe: what this GPU and its driver do where documents are silent, each question in a process of its own
 * that is ended when it gives no answer. SPDX-License-Identifier: Apache-2.0 */
#include <getopt.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cuda_mem.h"
#include "gpu_probe.h"

enum { START_S = 40, NOT_RUN = 77 };

static const char usage[] =
	"Usage: tutti-gpu-probe [options] [question...]\n"
	"Asks a GPU and its driver what tutti's design rests on and no document says: a line an answer, at once.\n"
	"  -d, --device N      the device (default 0)\n"
	"  -t, --timeout S     seconds for a question; then its processes are killed (default 5)\n"
	"  -l, --list          the names of the questions\n"
	"  -h, --help          this text\n"
	"What the driver does not have is \"not offered\", with its own words. Exit status: 0; 77 where CUDA is off;\n"
	"1 no such question; 2 wrong usage.\n";

struct probe probe;

static const struct question *const all[] = { probe_device, probe_waits, probe_pairs };
static int limit_s = 5;

/* ---- in a question ---- */

void at(const char *what)
{
	snprintf(probe.shared->at[probe.side], sizeof(probe.shared->at[0]), "%s", what);
}

void answer(const char *what, const char *why, const char *fmt, ...)
{
	va_list ap;

	printf("%s.%s: ", probe.name, what);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	printf("%s%s\n", why ? " -- " : "", why ? why : "");
	fflush(stdout);
}

bool refused(const char *what, const char *call, int e)
{
	answer(what, NULL, "not offered: %s: %s", call, gpu_words(e));
	return false;
}

bool probe_pinned(const char *what, probe_word **out)
{
	void *p;

	ASK(what, cuMemHostAlloc, &p, 4096, GPU_PORTABLE | GPU_DEVICEMAP);
	memset(p, 0, 4096);
	*out = p;
	return true;
}

bool probe_streams(const char *what, void **out, int n)
{
	for (int i = 0; i < n; i++)
		ASK(what, cuStreamCreate, &out[i], GPU_NON_BLOCKING);
	return true;
}

bool probe_soon(const probe_word *w, uint32_t value, int ms)
{
	double end = gpu_now_us() + ms * 1e3;

	while (atomic_load_explicit(w, memory_order_acquire) != value) {
		if (gpu_now_us() > end)
			return false;
		usleep(100);
	}
	return true;
}

static void be(const struct question *q, int side, int sock)
{
	const char *why;
	int e;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	probe.side = side;
	probe.sock = sock;
	if (q->setting)
		setenv(q->setting, q->value, 1);
	at("cuInit");
	if (!gpu_load(&why)) {
		answer("cuda", NULL, "not offered: %s", why);
		_exit(1);
	}
	at("cuDevicePrimaryCtxRetain");
	e = gpu_use(probe.device);
	if (e)
		_exit(refused("context", "cuDevicePrimaryCtxRetain", e) ? 0 : 1);
	(void)GPU(cuDeviceGetAttribute, &probe.sms, GPU_SMS, probe.device);
	atomic_store(&probe.shared->ready[side], 1);
	_exit((side ? q->help : q->ask)() ? 0 : 1); /* no cleaning up: that may never end */
}

/* ---- the one that watches ---- */

struct child {
	pid_t pid;
	int status;
	bool ended;
};

static void look(struct child *c)
{
	if (!c->ended && waitpid(c->pid, &c->status, WNOHANG) == c->pid)
		c->ended = true;
}

/* A process inside a driver may take its time to die, or never do. */
static void put_down(struct child *c, int n)
{
	double end = gpu_now_us() + 2e6;

	for (int i = 0; i < n; i++)
		if (!c[i].ended)
			kill(c[i].pid, SIGKILL);
	for (int i = 0; i < n; i++)
		while (!c[i].ended && gpu_now_us() < end) {
			look(&c[i]);
			usleep(2000);
		}
}

static bool all_ready(int n)
{
	for (int i = 0; i < n; i++)
		if (!atomic_load(&probe.shared->ready[i]))
			return false;
	return true;
}

/* Until the one that asks has ended; the time counts from when CUDA is there. */
static void watch(struct child *c, int n)
{
	double start = gpu_now_us(), limit = START_S * 1e6;
	bool ready = false;

	while (!c[0].ended && gpu_now_us() - start < limit) {
		for (int i = 0; i < n; i++)
			look(&c[i]);
		if (!ready && all_ready(n)) {
			ready = true;
			start = gpu_now_us();
			limit = limit_s * 1e6;
		}
		usleep(2000);
	}
	if (!c[0].ended)
		answer("end", NULL, "no answer within %g s, at %s%s%s", limit * 1e-6, probe.shared->at[0],
		       n > 1 ? "; the other process at " : "", n > 1 ? probe.shared->at[1] : "");
	else if (WIFSIGNALED(c[0].status))
		answer("end", NULL, "ended by signal %d (%s), at %s", WTERMSIG(c[0].status),
		       strsignal(WTERMSIG(c[0].status)), probe.shared->at[0]);
}

static void *share(size_t n)
{
	void *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED) {
		perror("tutti-gpu-probe: mmap");
		exit(1);
	}
	return p;
}

static void put(const struct question *q)
{
	struct child c[2] = { { 0 } };
	int n = q->help ? 2 : 1, sock[2] = { -1, -1 };

	probe.name = q->name;
	probe.shared = share(sizeof(*probe.shared));
	probe.words = memfd_create("words", 0);
	if (probe.words < 0 || ftruncate(probe.words, 4096) || socketpair(AF_UNIX, SOCK_SEQPACKET, 0, sock)) {
		perror("tutti-gpu-probe");
		exit(1);
	}
	fflush(stdout);
	for (int i = 0; i < n; i++) {
		c[i].pid = fork();
		if (c[i].pid == 0) {
			close(sock[!i]);
			be(q, i, sock[i]);
		}
		c[i].ended = c[i].pid < 0;
	}
	close(sock[0]);
	close(sock[1]);
	if (c[0].pid > 0)
		watch(c, n);
	put_down(c, n);
	close(probe.words);
	munmap(probe.shared, sizeof(*probe.shared));
}

/* ---- the start ---- */

/* Of a process of its own, as this one must not use CUDA: its children could not. */
static bool first_line(void)
{
	struct utsname u;
	char words[512];
	int status;
	pid_t pid;

	uname(&u);
	printf("host.system: %s %s%s\n", u.sysname, u.release,
	       strcmp(u.release, "4.4.0") ? "" : " -- gVisor calls itself so: no sanitizer, no profiler");
	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		bool on = tt_cuda_describe(words, sizeof(words));

		printf("host.cuda: %s\n", words);
		fflush(stdout);
		_exit(!on);
	}
	return pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) && !WEXITSTATUS(status);
}

static int run(char **names, int n)
{
	int asked = 0;

	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		for (const struct question *q = all[i]; q->name; q++) {
			bool wanted = !n;

			for (int k = 0; k < n; k++)
				wanted = wanted || !strcmp(names[k], q->name);
			if (wanted)
				put(q);
			asked += wanted;
		}
	if (!asked)
		fprintf(stderr, "tutti-gpu-probe: no such question (-l lists them)\n");
	return !asked;
}

static int list(void)
{
	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		for (const struct question *q = all[i]; q->name; q++)
			puts(q->name);
	return 0;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "device", required_argument, NULL, 'd' }, { "timeout", required_argument, NULL, 't' },
		{ "list", no_argument, NULL, 'l' },         { "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	int letter;

	while ((letter = getopt_long(argc, argv, "d:t:lh", options, NULL)) != -1) {
		if (letter == 'l')
			return list();
		if (letter == 'h')
			return printf("%s", usage) < 0;
		if (letter == '?' || atoi(optarg) < (letter == 't')) {
			fprintf(stderr, "%s", usage);
			return 2;
		}
		*(letter == 'd' ? &probe.device : &limit_s) = atoi(optarg);
	}
	if (!first_line())
		return NOT_RUN;
	return run(argv + optind, argc - optind);
}
