/* What test programs share under either main: the seed, random numbers, threads.
 * SPDX-License-Identifier: Apache-2.0 */
#include "test.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static uint64_t seed;
static pthread_once_t seed_once = PTHREAD_ONCE_INIT;

static void seed_init(void)
{
	const char *text = getenv("TEST_SEED");
	struct timespec ts;
	char number[32];
	uint64_t x;

	if (text && *text) {
		seed = strtoull(text, NULL, 0);
		return;
	}
	clock_gettime(CLOCK_REALTIME, &ts);
	x = (uint64_t)ts.tv_sec * 1000003u ^ (uint64_t)ts.tv_nsec;
	seed = (x & 0x7fffffff) + 1;
	/* Tests run in processes of their own: all of one run must have the seed that was printed. */
	snprintf(number, sizeof(number), "%llu", (unsigned long long)seed);
	setenv("TEST_SEED", number, 1);
}

uint64_t test_seed(void)
{
	pthread_once(&seed_once, seed_init);
	return seed;
}

/* splitmix64: any state is a good one, 0 included. */
uint32_t test_rand(uint64_t *state)
{
	uint64_t x = *state += 0x9e3779b97f4a7c15u;

	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
	return (uint32_t)((x ^ (x >> 31)) >> 16);
}

bool test_named(const char *name)
{
	const char *only = getenv("TEST_ONLY");

	return !only || strstr(name, only);
}

const char *test_transport(void)
{
	const char *name = getenv("TEST_TRANSPORT");

	return name && *name ? name : NULL;
}

double test_limit(double seconds)
{
	const char *scale = getenv("TEST_TIMEOUT_SCALE");

	return seconds * (scale ? atof(scale) : 1);
}

void test_device(int i)
{
	const char *all = getenv("TEST_DEVICES");
	char names[2][32];
	int n = all ? sscanf(all, "%31s %31s", names[0], names[1]) : 0;

	if (n > 0)
		setenv("TUTTI_IB_HCA", names[i % n], 1);
}

struct task {
	int i;
	void (*fn)(int i, void *arg);
	void *arg;
};

static void *run(void *p)
{
	struct task *t = p;

	t->fn(t->i, t->arg);
	return NULL;
}

void test_threads(int n, void (*fn)(int i, void *arg), void *arg)
{
	pthread_t *threads = calloc((size_t)n, sizeof(*threads));
	struct task *tasks = calloc((size_t)n, sizeof(*tasks));

	CHECK(threads && tasks);
	for (int i = 0; i < n; i++) {
		tasks[i] = (struct task){ i, fn, arg };
		CHECK(pthread_create(&threads[i], NULL, run, &tasks[i]) == 0);
	}
	for (int i = 0; i < n; i++)
		pthread_join(threads[i], NULL);
	free(threads);
	free(tasks);
}
