/* Runs the tests of one program in order, in this process: for sanitizers, debuggers and where
 * Criterion is missing. Arguments: parts of the names of the tests to run.
 * SPDX-License-Identifier: Apache-2.0 */
#include "test.h"

#include <errno.h>
#include <stdarg.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed;
static const char *current; /* the running test, NULL after the last */
static double limit_s;
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

static struct timespec deadline(double s)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	ts.tv_sec += (time_t)s + 1;
	return ts;
}

/* One thread watches all tests: each must give way to the next within its limit. */
static void *watch(void *arg)
{
	pthread_mutex_lock(&lock);
	while (current) {
		const char *watched = current;
		struct timespec ts = deadline(limit_s);
		int r = 0;

		while (current == watched && r != ETIMEDOUT)
			r = pthread_cond_timedwait(&changed, &lock, &ts);
		if (current == watched)
			test_fail(__FILE__, __LINE__, "no end after %g s", limit_s);
	}
	pthread_mutex_unlock(&lock);
	return NULL;
}

static void announce(const char *name, double timeout_s)
{
	const char *scale = getenv("TEST_TIMEOUT_SCALE");

	pthread_mutex_lock(&lock);
	current = name;
	limit_s = (timeout_s > 0 ? timeout_s : 60) * (scale ? atof(scale) : 1);
	pthread_cond_signal(&changed);
	pthread_mutex_unlock(&lock);
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

static void watch_start(pthread_t *thread)
{
	pthread_condattr_t attr;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&changed, &attr);
	pthread_condattr_destroy(&attr);
	announce("start", 60);
	pthread_create(thread, NULL, watch, NULL);
}

int main(int argc, char **argv)
{
	pthread_t watcher;

	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("seed %llu (TEST_SEED repeats it)\n", (unsigned long long)test_seed());
	watch_start(&watcher);
	for (int i = 0; i < ntests; i++) {
		if (!wanted(tests[i].name, argc, argv))
			continue;
		announce(tests[i].name, tests[i].timeout_s);
		tests[i].run();
		passed++;
	}
	announce(NULL, 0);
	pthread_join(watcher, NULL);
	printf("%d passed, 0 failed\n", passed);
	return 0;
}
