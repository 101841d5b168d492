/* Runs the tests of one program under Criterion, each in a process of its own.
 * SPDX-License-Identifier: Apache-2.0 */
#include "test.h"

#include <criterion/criterion.h>
#include <criterion/hooks.h>
#include <criterion/parameterized.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Criterion's own assert jumps out of the test, which only its main thread may do. Another thread prints
 * the reason and ends the process of the test; Criterion reports that as a failure too. */
static pid_t main_tid;
static const char *current = "?";

void test_fail(const char *file, int line, const char *fmt, ...)
{
	char text[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (gettid() == main_tid)
		cr_assert_fail("%s: %s:%d: %s", current, file, line, text);
	fprintf(stderr, "%s: %s:%d: %s\n", current, file, line, text);
	_exit(99);
}

ParameterizedTestParameters(tutti, all)
{
	static int indexes[1024];
	size_t n = 0;

	for (int i = 0; i < ntests && n < 1024; i++)
		if (test_named(tests[i].name))
			indexes[n++] = i;
	return cr_make_param_array(int, indexes, n, NULL);
}

/* Says which test it was before the default action ends its process. */
static void give_up(int sig)
{
	static const char words[] = ": took too long, or crashed\n";
	ssize_t r = write(STDERR_FILENO, current, strlen(current));

	r += write(STDERR_FILENO, words, sizeof(words) - 1);
	signal(sig, SIG_DFL);
	raise(r < 0 ? SIGABRT : sig);
}

/* Criterion has one timeout for all parameters; each test's own is an alarm in its process. */
ParameterizedTest(int *index, tutti, all, .timeout = 600)
{
	const struct test *t = &tests[*index];

	main_tid = gettid();
	current = t->name;
	signal(SIGALRM, give_up);
	signal(SIGABRT, give_up);
	alarm((unsigned)test_limit(t->timeout_s > 0 ? t->timeout_s : 60) + 1);
	t->run();
	alarm(0);
}

/* Before the first worker starts, so that all of them inherit the seed. */
ReportHook(PRE_ALL)(struct criterion_test_set *set)
{
	printf("seed %llu (TEST_SEED repeats it)\n", (unsigned long long)test_seed());
	fflush(stdout);
}
