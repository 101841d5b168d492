/* Runs the tests of one program in order, in this process: for sanitizers, debuggers and where
 * Criterion is missing. Arguments: parts of the names of the tests to run; --list.
 * SPDX-License-Identifier: Apache-2.0 */
#include "test.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *current; /* the running test */
static int passed;

/* A failed test leaves threads and connections behind that later ones would meet: it ends the run. */
void test_fail(const char *file, int line, const char *fmt, ...)
{
	va_list ap;

	flockfile(stdout);
	printf("FAIL %s\n  %s:%d: ", current ? current : "?", file, line);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	printf("\n%d passed, 1 failed\n", passed);
	fflush(stdout);
	_exit(1);
}

/* A signal and no thread: tests that fork must do so from a process of one thread under ThreadSanitizer. */
static void too_late(int sig)
{
	static const char text[] = "  no end within the limit\n0 passed, 1 failed\n";

	if (write(1, "FAIL ", 5) < 0 || write(1, current, strlen(current)) < 0 || write(1, "\n", 1) < 0 ||
	    write(1, text, sizeof(text) - 1) < 0)
		_exit(2);
	_exit(1);
}

static void announce(const char *name, double timeout_s)
{
	current = name;
	alarm((unsigned)test_limit(timeout_s > 0 ? timeout_s : 60) + 1);
}

static int wanted(const char *name, int argc, char **argv)
{
	int filters = 0;

	for (int i = 1; i < argc; i++) {
		if (argv[i][0] == '-') /* an option of the other main */
			continue;
		if (strstr(name, argv[i]))
			return 1;
		filters++;
	}
	return filters == 0;
}

int main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc == 2 && !strcmp(argv[1], "--list")) {
		for (int i = 0; i < ntests; i++)
			puts(tests[i].name);
		return 0;
	}
	printf("seed %llu (TEST_SEED repeats it)\n", (unsigned long long)test_seed());
	signal(SIGALRM, too_late);
	for (int i = 0; i < ntests; i++) {
		if (!wanted(tests[i].name, argc, argv) || !test_named(tests[i].name))
			continue;
		announce(tests[i].name, tests[i].timeout_s);
		tests[i].run();
		passed++;
	}
	alarm(0);
	printf("%d passed, 0 failed\n", passed);
	return 0;
}
