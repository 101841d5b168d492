/* Whether two devices copy to each other rightly, found out by a program of its own (tools/tutti_pair_probe.c): with
 * some IOMMUs such copies stall or bring other bytes while the driver says that all is well, and what stalls cannot be
 * taken back. Once for each pair and process. SPDX-License-Identifier: Apache-2.0 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "peer.h"

enum { KEPT = 64, PATH = 512 };
#define PROGRAM "tutti-pair-probe"

struct pair {
	uint8_t a[16], b[16];
	char words[128]; /* "": fine */
};

static struct {
	pthread_mutex_t lock;
	int n;
	struct pair pairs[KEPT];
} known = { .lock = PTHREAD_MUTEX_INITIALIZER };

extern char **environ;

/* As set, or in bin beside the library's folder. */
static const char *find_program(char out[PATH])
{
	const char *set = tt_env_str("PAIR_PROBE"), *slash;
	Dl_info info;

	if (*set) {
		snprintf(out, PATH, "%s", set);
	} else {
		if (!dladdr(&known, &info) || !info.dli_fname || !(slash = strrchr(info.dli_fname, '/')))
			return NULL;
		snprintf(out, PATH, "%.*s/../bin/" PROGRAM, (int)(slash - info.dli_fname), info.dli_fname);
	}
	return access(out, X_OK) ? NULL : out;
}

static void hex(const uint8_t uuid[16], char out[33])
{
	for (int i = 0; i < 16; i++)
		snprintf(out + 2 * i, 3, "%02x", uuid[i]);
}

/* The signals of this thread are not the program's. */
static int start(const char *path, const uint8_t a[16], const uint8_t b[16], pid_t *pid)
{
	char first[33], second[33];
	char *argv[] = { (char *)path, first, second, NULL };
	posix_spawn_file_actions_t files;
	posix_spawnattr_t attr;
	sigset_t none;
	int out[2], e;

	hex(a, first);
	hex(b, second);
	if (pipe2(out, O_CLOEXEC))
		return -1;
	sigemptyset(&none);
	posix_spawnattr_init(&attr);
	posix_spawnattr_setsigmask(&attr, &none);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK);
	posix_spawn_file_actions_init(&files);
	posix_spawn_file_actions_adddup2(&files, out[1], STDOUT_FILENO);
	e = posix_spawn(pid, path, &files, &attr, argv, environ);
	posix_spawn_file_actions_destroy(&files);
	posix_spawnattr_destroy(&attr);
	close(out[1]);
	if (!e)
		return out[0];
	close(out[0]);
	return -1;
}

/* A process that the driver holds does not even die: it is left behind. */
static void end(pid_t pid)
{
	kill(pid, SIGKILL);
	for (int i = 0; i < 1000 && waitpid(pid, NULL, WNOHANG) == 0; i++)
		usleep(1000);
}

static void listen_to(int fd, char *words, size_t n)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	double seconds = tt_env_seconds("PAIR_DEADLINE");
	uint64_t until = tt_now_ns() + (uint64_t)(1e9 * seconds);
	size_t len = 0;
	ssize_t got = 1;

	while (got > 0 && len < n - 1 && tt_now_ns() < until)
		if (poll(&p, 1, 100) > 0) {
			got = read(fd, words + len, n - 1 - len);
			len += got > 0 ? (size_t)got : 0;
		}
	words[len] = 0;
	if (got > 0) {
		snprintf(words, n, "a copy stalled for %.0f s", seconds);
	} else if (!strcmp(words, "fine\n")) {
		*words = 0;
	} else if (!strcmp(words, "corrupts\n")) {
		snprintf(words, n, "a copy brought other bytes");
	} else if (!strncmp(words, "cannot tell", 11)) {
		tt_log(TT_LOG_INFO, "device", "%s: %s", PROGRAM, words);
		*words = 0;
	} else {
		snprintf(words, n, "%s broke off", PROGRAM);
	}
}

static void probe(struct pair *p)
{
	char path[PATH];
	pid_t pid;
	int fd;

	if (!find_program(path)) {
		tt_log(TT_LOG_INFO, "device", "%s is not found: pairs of devices are not tried; see TUTTI_PAIR_PROBE",
		       PROGRAM);
		return;
	}
	fd = start(path, p->a, p->b, &pid);
	if (fd < 0)
		return;
	listen_to(fd, p->words, sizeof(p->words));
	close(fd);
	end(pid);
}

/* One pair after the other: what one stalls must not be said of another. */
bool tt_pair_works(const uint8_t a[16], const uint8_t b[16], char *why, size_t n)
{
	struct pair *p = NULL;

	pthread_mutex_lock(&known.lock);
	for (int i = 0; i < known.n && !p; i++)
		if ((!memcmp(known.pairs[i].a, a, 16) && !memcmp(known.pairs[i].b, b, 16)) ||
		    (!memcmp(known.pairs[i].a, b, 16) && !memcmp(known.pairs[i].b, a, 16)))
			p = &known.pairs[i];
	if (!p) {
		p = &known.pairs[known.n < KEPT ? known.n++ : 0];
		*p = (struct pair){ .words = "" };
		memcpy(p->a, a, 16);
		memcpy(p->b, b, 16);
		probe(p);
	}
	snprintf(why, n, "%s", p->words);
	pthread_mutex_unlock(&known.lock);
	return !*why;
}
