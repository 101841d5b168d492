/* Floor 0: settings, log, results, hashes, names. The log is read once for each process, so cases that
 * set TUTTI_LOG run in a child. SPDX-License-Identifier: Apache-2.0 */
#include "base.h"
#include "test.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void integers(void)
{
	unsetenv("TUTTI_WINDOW");
	CHECK(tt_env_int("WINDOW") == 128 << 10);
	setenv("TUTTI_WINDOW", "65536", 1);
	CHECK(tt_env_int("WINDOW") == 65536);
	setenv("TUTTI_WINDOW", "2M", 1);
	CHECK(tt_env_int("WINDOW") == 2 << 20);
	setenv("TUTTI_WINDOW", "1GiB", 1);
	CHECK(tt_env_int("WINDOW") == 1 << 30);
	setenv("TUTTI_WINDOW", "0x100", 1);
	CHECK(tt_env_int("WINDOW") == 256);
	setenv("TUTTI_WINDOW", "", 1);
	CHECK(tt_env_int("WINDOW") == 128 << 10);
	CHECK(tt_env_int("RANK") == -1);
}

static void seconds(void)
{
	unsetenv("TUTTI_DEADLINE");
	CHECK(tt_env_seconds("DEADLINE") == 60);
	setenv("TUTTI_DEADLINE", "2.5", 1);
	CHECK(tt_env_seconds("DEADLINE") == 2.5);
	setenv("TUTTI_DEADLINE", "250ms", 1);
	CHECK(tt_env_seconds("DEADLINE") == 0.25);
	setenv("TUTTI_DEADLINE", "10s", 1);
	CHECK(tt_env_seconds("DEADLINE") == 10);
	setenv("TUTTI_DEADLINE", "2m", 1);
	CHECK(tt_env_seconds("DEADLINE") == 120);
}

static void strings(void)
{
	unsetenv("TUTTI_TRANSPORTS");
	CHECK(strcmp(tt_env_str("TRANSPORTS"), "all") == 0);
	setenv("TUTTI_TRANSPORTS", "tcp,shm", 1);
	CHECK(strcmp(tt_env_str("TRANSPORTS"), "tcp,shm") == 0);
	unsetenv("TUTTI_TRANSPORTS");
}

static void shared(void)
{
	char text[1024], again[1024];
	uint64_t digest;

	unsetenv("TUTTI_WINDOW");
	digest = tt_env_digest();
	CHECK(tt_env_shared(text, sizeof(text)) == (int)strlen(text));
	setenv("TUTTI_WINDOW", "131072", 1); /* the default in other words */
	CHECK(tt_env_digest() == digest);
	setenv("TUTTI_DEADLINE", "3", 1); /* each rank's own affair */
	CHECK(tt_env_digest() == digest);
	setenv("TUTTI_WINDOW", "64K", 1);
	CHECK(tt_env_digest() != digest);
	CHECK(tt_env_shared(again, sizeof(again)) > 0);
	CHECK(strstr(again, "WINDOW=65536") && strcmp(text, again) != 0);
	CHECK(tt_env_shared(again, 8) > 8 && strlen(again) == 7);
	unsetenv("TUTTI_WINDOW");
	unsetenv("TUTTI_DEADLINE");
}

/* What `fn` writes to stderr in a child with TUTTI_LOG=log. */
static void child_output(const char *log, void (*fn)(void), char *out, size_t size)
{
	int fds[2], status;
	size_t n = 0;
	ssize_t got;
	pid_t pid;

	CHECK(pipe(fds) == 0);
	pid = fork();
	CHECK(pid >= 0);
	if (pid == 0) {
		log ? setenv("TUTTI_LOG", log, 1) : unsetenv("TUTTI_LOG");
		dup2(fds[1], STDERR_FILENO);
		fn();
		_exit(0);
	}
	close(fds[1]);
	while (n < size - 1 && (got = read(fds[0], out + n, size - 1 - n)) > 0)
		n += (size_t)got;
	out[n] = '\0';
	close(fds[0]);
	CHECK(waitpid(pid, &status, 0) == pid && status == 0);
}

static void say_all(void)
{
	tt_log(TT_LOG_ERROR, "tcp", "the error");
	tt_log(TT_LOG_INFO, "tcp", "the tcp note");
	tt_log(TT_LOG_INFO, "shm", "the shm note");
	tt_log(TT_LOG_DEBUG, "tcp", "the detail");
}

static void levels(void)
{
	char out[4096];

	child_output(NULL, say_all, out, sizeof(out));
	CHECK(strstr(out, "the error") && !strstr(out, "note") && !strstr(out, "detail"));
	child_output("none", say_all, out, sizeof(out));
	CHECK(out[0] == '\0');
	child_output("error,tcp:info", say_all, out, sizeof(out));
	CHECK(strstr(out, "the tcp note") && !strstr(out, "shm note") && !strstr(out, "detail"));
	child_output("DEBUG", say_all, out, sizeof(out));
	CHECK(strstr(out, "the shm note") && strstr(out, "the detail"));
	child_output("loud", say_all, out, sizeof(out));
	CHECK(strstr(out, "'loud' is not understood") && strstr(out, "the error"));
}

static void say_long(void)
{
	char text[10000];

	memset(text, 'x', sizeof(text));
	text[sizeof(text) - 1] = '\0';
	tt_log(TT_LOG_ERROR, "test", "%s", text);
}

static void long_lines(void)
{
	char out[20000];

	child_output(NULL, say_long, out, sizeof(out));
	CHECK(strlen(out) > 1000 && strlen(out) <= 4096 && out[strlen(out) - 1] == '\n');
	CHECK(strchr(out, '\n') == out + strlen(out) - 1);
}

static void misspell(void)
{
	setenv("TUTTI_TRANSPORT", "tcp", 1);
	setenv("TUTTI_DEADLIEN", "1", 1);
	setenv("TUTTI_WINDOW", "plenty", 1);
	tt_env_check();
	tt_env_check();
	if (tt_env_int("WINDOW") != 128 << 10 || tt_env_int("WINDOW") != 128 << 10)
		_exit(1);
}

static int occurrences(const char *text, const char *word)
{
	int n = 0;

	for (const char *p = text; (p = strstr(p, word)) != NULL; p++)
		n++;
	return n;
}

static void misspelt(void)
{
	char out[4096];

	child_output(NULL, misspell, out, sizeof(out));
	CHECK(strstr(out, "TUTTI_TRANSPORT is not a setting; did you mean TUTTI_TRANSPORTS?"));
	CHECK(strstr(out, "TUTTI_DEADLIEN is not a setting; did you mean TUTTI_DEADLINE?"));
	CHECK(occurrences(out, "TUTTI_DEADLIEN") == 1);
	CHECK(occurrences(out, "TUTTI_WINDOW=plenty") == 1);
}

static void fail_in_child(void)
{
	errno = EPIPE;
	if (tt_fail(tuttiPeerDead, "rank %d died", 3) != tuttiPeerDead || errno != EPIPE)
		_exit(1);
	if (strcmp(tt_last_error(), "rank 3 died") != 0)
		_exit(2);
	tt_note_error(tuttiTimeout, "after: %s", tt_last_error());
	if (strcmp(tt_last_error(), "after: rank 3 died") != 0)
		_exit(3);
}

static void check_empty(int i, void *arg)
{
	CHECK(tt_last_error()[0] == '\0');
}

static void errors(void)
{
	char out[4096];

	child_output(NULL, fail_in_child, out, sizeof(out));
	CHECK(occurrences(out, "rank 3 died") == 1 && strstr(out, tt_result_text(tuttiPeerDead)));
	tt_note_error(tuttiTimeout, "of this thread");
	CHECK(strcmp(tt_last_error(), "of this thread") == 0);
	test_threads(2, check_empty, NULL);
	CHECK(strcmp(tt_result_text(tuttiSuccess), "success") == 0);
	CHECK(strcmp(tt_result_text((tuttiResult_t)12345), "unknown result code") == 0);
}

static void hashes(void)
{
	uint8_t bytes[64] = { 0 }, random[2][32];
	uint64_t h = tt_hash64(bytes, 64, 1);

	CHECK(tt_hash64(bytes, 64, 1) == h && tt_hash64(bytes, 64, 2) != h);
	CHECK(tt_hash64(bytes, 63, 1) != h && tt_hash64(bytes, 0, 1) != h);
	for (int i = 0; i < 64; i++) {
		bytes[i] = 1;
		CHECK(tt_hash64(bytes, 64, 1) != h);
		bytes[i] = 0;
	}
	CHECK(tt_random_bytes(random, sizeof(random)) == tuttiSuccess);
	CHECK(memcmp(random[0], random[1], 32) != 0);
}

static void small_things(void)
{
	uint64_t t = tt_now_ns();

	CHECK(tt_usable_cores() >= 1 && tt_usable_cores() <= sysconf(_SC_NPROCESSORS_CONF));
	CHECK(tt_now_ns() >= t && t > 0);
	CHECK(tt_type_size(tuttiBfloat16) == 2 && tt_type_size(tuttiFloat8e5m2) == 1);
	CHECK(tt_type_size(tuttiNumTypes) == 0 && tt_type_size((tuttiDataType_t)-1) == 0);
	CHECK(strcmp(tt_type_name(tuttiFloat32), "float") == 0);
	CHECK(strcmp(tt_op_name(tuttiAvg), "avg") == 0 && strcmp(tt_op_name(5), "premulsum") == 0);
	CHECK(tt_div_up(7, 4) == 2 && tt_div_up(8, 4) == 2 && tt_min(1, 2) == 1 && tt_max(1, 2) == 2);
}

/* The thread goes elsewhere where it may, and may go where it could before. */
static void next_core(void)
{
	cpu_set_t before, after;
	int cpu = sched_getcpu(), now = cpu;

	CHECK(!sched_getaffinity(0, sizeof(before), &before));
	for (int i = 0; i < 100 && now == cpu; i++) { /* the kernel may move it back at any time */
		tt_next_core();
		now = sched_getcpu();
	}
	CHECK(CPU_COUNT(&before) < 2 || now != cpu);
	CHECK(!sched_getaffinity(0, sizeof(after), &after) && CPU_EQUAL(&before, &after));
}

static void table(void)
{
	char *text = NULL;
	size_t size;
	FILE *f = open_memstream(&text, &size);

	CHECK(f);
	setenv("TUTTI_JOB", "sesame", 1);
	tt_env_print(f, true);
	tt_env_print(f, false);
	unsetenv("TUTTI_JOB");
	fclose(f);
	CHECK(strstr(text, "(hidden)") && !strstr(text, "sesame"));
	CHECK(strstr(text, "| `TUTTI_DEADLINE` | seconds | `60` |") && strstr(text, "TUTTI_LAUNCHER "));
	free(text);
}

const struct test tests[] = {
	{ "env: integers and sizes", integers, 0 },
	{ "env: seconds", seconds, 0 },
	{ "env: strings", strings, 0 },
	{ "env: settings that ranks share", shared, 0 },
	{ "env: misspelt names and wrong values are said once", misspelt, 0 },
	{ "env: table", table, 0 },
	{ "log: levels", levels, 0 },
	{ "log: long lines", long_lines, 0 },
	{ "result: last error", errors, 0 },
	{ "base: hashes and random bytes", hashes, 0 },
	{ "base: time, names, numbers", small_things, 0 },
	{ "base: moving to another core", next_core, 0 },
};
const int ntests = sizeof(tests) / sizeof(tests[0]);
