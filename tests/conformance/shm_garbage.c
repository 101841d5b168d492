/* The shm transport does not trust the memory that it shares: whatever another process writes there, calls
 * return, and a message is delivered whole or its link fails. SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <sys/mman.h>

#include "rig.h"
#include "shm_conn.h"

enum { MAX = 200000 };

/* A value likely to be harmful: an edge, a neighbour of the true one, or anything. */
static uint64_t evil(uint64_t truth, uint64_t *seed)
{
	static const uint64_t edges[] = { 0, 1, 7, 40, 41, 1024, 1025, MAX, 131072, 131073,
					  UINT32_MAX, (uint64_t)1 << 63, UINT64_MAX };
	uint32_t how = test_rand(seed) % 3;

	if (how == 0)
		return edges[test_rand(seed) % (sizeof(edges) / sizeof(edges[0]))];
	if (how == 1)
		return truth ^ (uint64_t)1 << test_rand(seed) % 64;
	return (uint64_t)test_rand(seed) << 32 | test_rand(seed);
}

/* What endpoint 0 shares with endpoint 1, as the former sees it. */
static struct shm_area *area_of(struct rig *r, uint64_t key)
{
	struct shm_ep *ep = r->ep[0];

	return tt_shm_area_find(&ep->conns->out, key);
}

static void spoil(struct shm_area *a, uint64_t *seed)
{
	_Atomic uint64_t *w = a->ring[test_rand(seed) % SHM_RING];
	static const uint32_t which[] = { 0, 3, 4 }; /* those that say where the bytes are, and how many */
	uint32_t k = which[test_rand(seed) % 3], times = 1 + test_rand(seed) % 3;

	for (uint32_t i = 0; i < times; i++, k = which[test_rand(seed) % 3]) {
		uint64_t truth = atomic_load(&w[k]), value = evil(truth, seed);

		if (k == 0 && test_rand(seed) % 2 == 0) /* keep the sequence, so that it is believed */
			value = (value & ~(uint64_t)UINT32_MAX) | (truth & UINT32_MAX);
		atomic_store(&w[k], value);
	}
}

static void one_header(struct rig *r, uint64_t key, char *p, char *q, uint64_t *seed)
{
	void *a = rig_open(r, 0, 1, key), *b = rig_open(r, 1, 0, key);
	struct op s = { .link = a, .kind = OP_SEND, .p = p, .n = test_rand(seed) % MAX };
	struct op d = { .link = b, .kind = OP_RECV, .p = q, .n = s.n };

	op_post(r, &s);
	spoil(area_of(r, key), seed);
	for (int i = 0; i < 50; i++) {
		rig_poll(r);
		if (d.result == TT_AGAIN || i == 0)
			op_post(r, &d);
		op_over(&d);
		op_over(&s);
	}
	CHECK((unsigned char)q[MAX] == 0xa5);
	rig_close(r, a);
	rig_close(r, b);
}

static void headers(void)
{
	uint64_t seed = test_seed();
	struct rig r;
	char *p = calloc(1, MAX + 1), *q = calloc(1, MAX + 1);

	rig_begin(&r, &tt_shm);
	q[MAX] = (char)0xa5;
	for (uint64_t i = 0; i < 3000; i++)
		one_header(&r, 1000 + i, p, q, &seed);
	rig_end(&r);
	free(p);
	free(q);
}

/* The receiver claims to have given back what it never got. */
static void credit(void)
{
	static const uint32_t heads[] = { 9, 17, 1000, UINT32_MAX, 0x80000000u };
	struct tt_note note = { 0 };
	struct tt_req req = { 0 };
	char x[64] = { 0 };
	const char *why;
	struct rig r;

	rig_begin(&r, &tt_shm);
	for (uint64_t k = 0; k < 5; k++) {
		void *a = rig_open(&r, 0, 1, 50 + k);

		for (int i = 0; i < 4; i++)
			CHECK(r.t->send(a, x, 64, &note, &req) == TT_DONE);
		atomic_store(&area_of(&r, 50 + k)->head, heads[k]);
		for (int i = 0; i < 20; i++)
			r.t->send(a, x, 64, &note, &req);
		CHECKF(r.t->link_error(a, &why) != tuttiSuccess, "head %u is believed", heads[k]);
		rig_close(&r, a);
	}
	rig_end(&r);
}

static void refuse(struct shm_region *good, void (*harm)(struct shm_head *), bool seal, size_t size)
{
	int fd = memfd_create("t", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	struct shm_region r = { 0 };
	struct shm_head *h;

	CHECK(fd >= 0 && ftruncate(fd, (off_t)size) == 0);
	h = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK(h != MAP_FAILED);
	memcpy(h, good->head, sizeof(*h));
	harm(h);
	munmap(h, 4096);
	if (seal)
		CHECK(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) == 0);
	CHECK(tt_shm_map(&r, fd) != tuttiSuccess && r.head == NULL);
	close(fd);
}

static void harm_none(struct shm_head *h) {}
static void harm_version(struct shm_head *h) { h->version++; }
static void harm_slots(struct shm_head *h) { h->nslots += 1000; }
static void harm_slot_size(struct shm_head *h) { h->slot_size *= 2; }
static void harm_areas(struct shm_head *h) { h->nareas *= 2; }

static void regions(void)
{
	struct shm_region good = { 0 };
	struct shm_pool pool = { 0 };
	int fd;

	CHECK(tt_shm_create(&good, &pool, &fd) == tuttiSuccess);
	refuse(&good, harm_none, false, good.size);
	refuse(&good, harm_none, true, good.size - 65536);
	refuse(&good, harm_none, true, 4096);
	refuse(&good, harm_version, true, good.size);
	refuse(&good, harm_slots, true, good.size);
	refuse(&good, harm_slot_size, true, good.size);
	refuse(&good, harm_areas, true, good.size);
	tt_shm_unmap(&good);
	close(fd);
}

/* Not the message that a shm transport sends. */
static void hello(void)
{
	struct rig r;
	void *b;
	struct op d = { .kind = OP_RECV, .result = TT_AGAIN };

	rig_begin(&r, &tt_shm);
	for (int i = 0; i < 3; i++) {
		int sv[2];

		CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) == 0);
		if (i > 0)
			CHECK(send(sv[0], "nonsense", i == 1 ? 8 : 3, 0) > 0);
		r.t->accept(r.ep[1], i == 0 ? 1 : 3, 0, sv[1]);
		close(sv[0]);
		for (int k = 0; k < 200; k++)
			rig_poll(&r);
	}
	r.t->accept(r.ep[0], 2, 0, dup(0)); /* never answers */
	d.link = b = rig_open(&r, 1, 0, 7);
	ops_run(&r, &d, 1);
	CHECK(d.result == TT_FAILED);
	rig_close(&r, b);
	rig_end(&r);
}

/* Links come and go by the thousands in one region. */
static void churn(void)
{
	struct rig r;
	char x[8] = { 0 }, y[8];

	rig_begin(&r, &tt_shm);
	for (uint64_t i = 0; i < 40000; i++) {
		void *a = rig_open(&r, 0, 1, i * 7919), *b = rig_open(&r, 1, 0, i * 7919);

		if (i % 16 == 0)
			transfer(&r, a, b, x, y, 8);
		rig_close(&r, i % 2 ? a : b);
		rig_close(&r, i % 2 ? b : a);
	}
	rig_end(&r);
}

/* At most SHM_AHEAD slots of the pool are one link's; all come back when both ends have closed. */
static void pool(void)
{
	enum { N = 1 << 20 };
	struct op s = { .kind = OP_SEND, .p = calloc(1, N), .n = N };
	struct shm_pool *pool;
	struct rig r;
	void *b;

	rig_begin(&r, &tt_shm);
	s.link = rig_open(&r, 0, 1, 1);
	b = rig_open(&r, 1, 0, 1);
	op_post(&r, &s);
	rig_poll(&r);
	pool = &((struct shm_ep *)r.ep[0])->conns->pool;
	CHECK(pool->count == (uint32_t)tt_env_int("SHM_POOL") - SHM_AHEAD);
	rig_close(&r, s.link);
	rig_close(&r, b);
	s.link = rig_open(&r, 0, 1, 2); /* buries what has been closed */
	CHECK(pool->count == (uint32_t)tt_env_int("SHM_POOL"));
	rig_close(&r, s.link);
	rig_end(&r);
	free(s.p);
}

/* Runs the tuner on given costs (ps a byte, both sides together); returns the policy after `frags`. */
static enum tt_store tuned(struct shm_tuner *t, uint32_t plain, uint32_t stream, int frags, int *other)
{
	struct shm_meter reader[2] = { 0 };
	_Atomic uint32_t words[2] = { 0 };

	*other = 0;
	for (int i = 0; i < frags; i++) {
		struct shm_choice c = tt_shm_tune_next(t, words);
		uint64_t ns = (uint64_t)(c.store == TT_STORE_PLAIN ? plain : stream) * 100 / 2;

		*other += c.store != t->store;
		if (!c.measured)
			continue;
		if (i % 8 == 3)
			ns *= 1000; /* lost its core */
		tt_shm_meter_add(&t->own[c.store], c.burst, ns, 100000);
		tt_shm_meter_add(&reader[c.store], c.burst, ns, 100000);
		atomic_store(&words[c.store], tt_shm_meter_word(&reader[c.store]));
	}
	return t->store;
}

static void store_policy(void)
{
	struct shm_tuner t;
	int other;

	tt_shm_tune_begin(&t, 8);
	CHECK(tuned(&t, 300, 400, 100000, &other) == TT_STORE_PLAIN);
	CHECKF(other > 500 && other < 2500, "%d of 100000 fragments by the other policy", other);
	CHECK(tuned(&t, 700, 400, 100000, &other) == TT_STORE_PLAIN);
	CHECK(tuned(&t, 3000, 400, 5000, &other) == TT_STORE_STREAM);
	CHECK(tuned(&t, 700, 400, 100000, &other) == TT_STORE_STREAM);
	CHECK(tuned(&t, 300, 400, 5000, &other) == TT_STORE_PLAIN);
	tt_shm_tune_begin(&t, 8);
	CHECK(tuned(&t, 3000, 400, 100, &other) == TT_STORE_STREAM);
}

const struct test tests[] = {
	{ "shm_spoilt_headers", headers, 0 },
	{ "shm_spoilt_credit", credit, 0 },
	{ "shm_spoilt_regions", regions, 0 },
	{ "shm_spoilt_hello", hello, 0 },
	{ "shm_pool_is_shared_fairly", pool, 0 },
	{ "shm_store_policy_is_found", store_policy, 0 },
	{ "shm_links_come_and_go", churn, 0 },
};
const int ntests = sizeof(tests) / sizeof(tests[0]);
