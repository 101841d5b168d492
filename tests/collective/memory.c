/* Memory that comes and goes between calls: mapped, registered, unmapped, mapped anew at the same address with other
 * contents; over every transport between processes. A registration that outlived its memory would bring the bytes
 * of the old. SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "ranks.h"
#include "test.h"
#include "transport.h"

enum { AREAS = 3, ROOM = 8 << 20, KEPT = 4 };

enum kind { MAPPED, HEAP, ALLOCATED };
enum wish { NOT, WHOLE, PART, TWICE, WISHES };

/* One buffer at a time in each area; the mapped ones always at the same address. */
struct area {
	char *room, *p;
	size_t n;
	enum kind kind;
	void *handle[2];
	int left; /* calls that it lives for */
};

static uint32_t roll(uint64_t *seed, uint32_t n)
{
	*seed = *seed * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(*seed >> 33) % n;
}

static void area_free(struct rank *r, struct area *a)
{
	if (!a->p)
		return;
	for (int i = 0; i < 2; i++)
		if (a->handle[i] && (a->kind != ALLOCATED || i))
			RANK_OK(r, tuttiCommDeregister(r->comm, a->handle[i]));
	if (a->kind == MAPPED)
		RANK_CHECKF(r, mmap(a->room, ROOM, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE,
				    -1, 0) == a->room, "mmap");
	else if (a->kind == HEAP)
		free(a->p);
	else
		RANK_OK(r, tuttiMemFree(a->p));
	if (a->kind == ALLOCATED && a->handle[0]) /* one handle of memory that is freed */
		RANK_OK(r, tuttiCommDeregister(r->comm, a->handle[0]));
	memset(a->handle, 0, sizeof(a->handle));
	a->p = NULL;
}

static void area_register(struct rank *r, struct area *a, enum wish wish)
{
	if (wish == PART)
		RANK_OK(r, tuttiCommRegister(r->comm, a->p + a->n / 3, a->n / 2, &a->handle[0]));
	else if (wish != NOT)
		RANK_OK(r, tuttiCommRegister(r->comm, a->p, a->n, &a->handle[0]));
	if (wish == TWICE)
		RANK_OK(r, tuttiCommRegister(r->comm, a->p + a->n / 4, a->n - a->n / 4, &a->handle[1]));
}

/* At least n bytes; each rank chooses for itself whether and how they are registered. */
static void *area_get(struct rank *r, struct area *a, size_t n, uint64_t *seed)
{
	if (a->p && (a->left-- <= 0 || a->n < n))
		area_free(r, a);
	if (a->p)
		return a->p;
	a->kind = (enum kind)roll(seed, 3);
	a->n = n;
	a->left = (int)roll(seed, KEPT);
	if (a->kind == MAPPED)
		a->p = mmap(a->room, ROOM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	else if (a->kind == HEAP)
		a->p = malloc(n);
	else
		RANK_OK(r, tuttiMemAlloc((void **)&a->p, n));
	RANK_CHECKF(r, a->p && a->p != MAP_FAILED, "no memory");
	area_register(r, a, (enum wish)roll(seed, WISHES));
	return a->p;
}

static uint32_t value(int rank, long call, size_t i)
{
	return (uint32_t)((size_t)rank * 7919 + (size_t)call * 104729 + i * 31);
}

static void check(struct rank *r, const uint32_t *out, size_t n, long call, int from, int ranks)
{
	for (size_t i = 0; i < n; i++) {
		uint32_t want = 0;

		for (int k = from; k < from + ranks; k++)
			want += value(k, call, i);
		RANK_CHECKF(r, out[i] == want, "call %ld, element %zu of %zu is %u, want %u", call, i, n, out[i], want);
	}
}

/* The next rank's values come here. */
static void exchange(struct rank *r, const uint32_t *in, uint32_t *out, size_t n)
{
	RANK_OK(r, tuttiGroupStart());
	RANK_OK(r, tuttiSend(in, n, tuttiUint32, (r->rank + r->n - 1) % r->n, r->comm, NULL));
	RANK_OK(r, tuttiRecv(out, n, tuttiUint32, (r->rank + 1) % r->n, r->comm, NULL));
	RANK_OK(r, tuttiGroupEnd());
}

static void call(struct rank *r, struct area *a, long k, uint64_t *all, uint64_t *own)
{
	static const size_t sizes[] = { 100, 3000, 40000, 270000, 400000 };
	size_t n = sizes[roll(all, 5)] + roll(all, 50);
	int what = (int)roll(all, 3), in_at = (int)roll(own, AREAS), out_at = (in_at + 1) % AREAS;
	uint32_t *in = area_get(r, &a[in_at], n * 4, own), *out = area_get(r, &a[out_at], n * 4, own);

	for (size_t i = 0; i < n; i++)
		in[i] = value(r->rank, k, i);
	if (what == 0)
		RANK_OK(r, tuttiAllReduce(in, out, n, tuttiUint32, tuttiSum, r->comm, NULL));
	else if (what == 1)
		RANK_OK(r, tuttiBroadcast(in, out, n, tuttiUint32, 0, r->comm, NULL));
	else
		exchange(r, in, out, n);
	check(r, out, n, k, what == 2 ? (r->rank + 1) % r->n : 0, what ? 1 : r->n);
}

static void come_and_go(struct rank *r)
{
	uint64_t all = *(uint64_t *)r->arg, own = all + 1 + (uint64_t)r->rank;
	long calls = test_setting("TEST_CASES", 120);
	struct area a[AREAS];

	memset(a, 0, sizeof(a));
	for (int i = 0; i < AREAS; i++)
		a[i].room = mmap(NULL, ROOM, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	RANK_OK(r, rank_init(r, NULL));
	for (r->step = 0; r->step < calls; r->step++)
		call(r, a, r->step, &all, &own);
	for (int i = 1; i < AREAS; i++)
		area_free(r, &a[i]); /* what is left over ends with the communicator */
	RANK_OK(r, tuttiCommDestroy(r->comm));
}

static void memory_comes_and_goes(void)
{
	const char *only = getenv("TEST_TRANSPORT");
	uint64_t seed = test_seed();

	for (int i = 0; i < tt_ntransports; i++) {
		const struct tt_transport *t = tt_transports[i];
		struct tt_caps caps = { 0 };
		struct procs ps;
		char why[160];

		if (t->ep_per_rank || (only && strcmp(only, t->name)) || !t->probe(&caps, why, sizeof(why)))
			continue;
		for (int n = 2; n <= 3; n++) {
			procs_start(&ps, n, 0, t->name, come_and_go, &seed);
			procs_expect(&ps, 100, -1);
		}
	}
}

/* ---- handles ---- */

static void refuse(struct rank *r, tuttiResult_t got, tuttiResult_t want)
{
	RANK_CHECKF(r, got == want && *tuttiGetLastError(NULL), "%s, want %s", tuttiGetErrorString(got),
		    tuttiGetErrorString(want));
}

static void handles_of(struct rank *r)
{
	static char room[100000];
	void *h = NULL, *again = NULL, *p;
	tuttiComm_t other;

	refuse(r, tuttiCommRegister(NULL, room, 10, &h), tuttiInvalidArgument);
	refuse(r, tuttiCommRegister(r->comm, NULL, 10, &h), tuttiInvalidArgument);
	refuse(r, tuttiCommRegister(r->comm, room, 0, &h), tuttiInvalidArgument);
	refuse(r, tuttiCommRegister(r->comm, room, 10, NULL), tuttiInvalidArgument);
	refuse(r, tuttiCommRegister(r->comm, room, SIZE_MAX, &h), tuttiInvalidArgument);
	refuse(r, tuttiCommDeregister(r->comm, room), tuttiInvalidArgument);
	RANK_OK(r, tuttiCommDeregister(r->comm, NULL));
	RANK_OK(r, tuttiCommSplit(r->comm, 0, 0, &other, NULL));
	RANK_OK(r, tuttiCommRegister(r->comm, room, sizeof(room), &h));
	RANK_OK(r, tuttiCommRegister(r->comm, room, sizeof(room), &again));
	refuse(r, tuttiCommDeregister(other, h), tuttiInvalidArgument);
	RANK_CHECKF(r, h && again && h != again, "one handle twice");
	RANK_OK(r, tuttiCommDeregister(r->comm, h));
	refuse(r, tuttiCommDeregister(r->comm, h), tuttiInvalidArgument);
	RANK_OK(r, tuttiCommDeregister(r->comm, again));
	RANK_OK(r, tuttiMemAlloc(&p, 5000));
	RANK_OK(r, tuttiCommRegister(other, (char *)p + 100, 100, &h));
	RANK_OK(r, tuttiMemFree(p));
	RANK_OK(r, tuttiCommDeregister(other, h));
	RANK_OK(r, tuttiCommFinalize(other));
	refuse(r, tuttiCommRegister(other, room, 10, &h), tuttiInvalidUsage);
	RANK_OK(r, tuttiCommDestroy(other));
}

static void handles(void)
{
	ranks_run(2, 60, handles_of, NULL);
}

const struct test tests[] = {
	{ "memory comes and goes", memory_comes_and_goes, 300 },
	{ "handles of registrations", handles, 0 },
};
const int ntests = sizeof(tests) / sizeof(tests[0]);
