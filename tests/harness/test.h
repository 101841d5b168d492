/* A test program defines `tests` and `ntests`; it is linked with criterion_main.c (make check) or
 * with plain_main.c (sanitizers: Criterion crashes under ThreadSanitizer). Bodies are plain functions. */
#ifndef TT_TEST_H
#define TT_TEST_H

#include <stdbool.h>
#include <stdint.h>

struct test {
	const char *name;
	void (*run)(void);
	double timeout_s; /* 0: 60 */
};
extern const struct test tests[];
extern const int ntests;

/* Ends the test as failed, from any thread. */
void test_fail(const char *file, int line, const char *fmt, ...)
	__attribute__((format(printf, 3, 4), noreturn));
#define CHECK(cond)                                                                                \
	do {                                                                                       \
		if (!(cond))                                                                       \
			test_fail(__FILE__, __LINE__, "%s", #cond);                                \
	} while (0)
#define CHECKF(cond, ...)                                                                          \
	do {                                                                                       \
		if (!(cond))                                                                       \
			test_fail(__FILE__, __LINE__, __VA_ARGS__);                                \
	} while (0)

/* The seed of random cases: TEST_SEED, else from the clock; printed once by the main. */
uint64_t test_seed(void);
/* A small deterministic generator. */
uint32_t test_rand(uint64_t *state);
/* TEST_ONLY: only the tests with this in their names; empty: all. */
bool test_named(const char *name);
/* TEST_TRANSPORT: only this one is tested; NULL: all. */
const char *test_transport(void);
/* Seconds that something may take at most: more under sanitizers and in emulated machines (TEST_TIMEOUT_SCALE). */
double test_limit(double seconds);
/* TEST_DEVICES: of these one or two RDMA devices, what is opened next uses the one whose turn is `i`. */
void test_device(int i);
/* Runs fn(i, arg) in n threads and joins them. */
void test_threads(int n, void (*fn)(int i, void *arg), void *arg);

#endif
