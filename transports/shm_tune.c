/* Choosing the store policy of a shm connection: bursts with the other policy now and then, the cost being
 * writer's plus reader's time. A cycle is, in rounds of the pool: one with the policy in force that is not
 * counted (slots are as the policy before left them), one that is; two of the same with the other policy;
 * one to come back; then a long rest. SPDX-License-Identifier: Apache-2.0 */
#include <stdatomic.h>

#include "shm_tune.h"

/* Rest in rounds of the pool; the first cycles follow at once. */
enum { REST = 128, EARLY = 2, ROUNDS = 5 };

void tt_shm_tune_begin(struct shm_tuner *t, uint32_t around)
{
	*t = (struct shm_tuner){ .store = TT_STORE_PLAIN, .around = around, .burst = 1 };
}

void tt_shm_meter_add(struct shm_meter *m, uint32_t burst, uint64_t ns, size_t bytes)
{
	uint64_t cost = ns * 1000 / (bytes + 1);

	if (m->burst != burst)
		*m = (struct shm_meter){ .burst = burst };
	m->n++;
	m->sum += cost;
	if (cost > m->max)
		m->max = cost;
}

uint32_t tt_shm_meter_word(const struct shm_meter *m)
{
	uint64_t cost = m->n < 2 ? 0 : (m->sum - m->max) / (m->n - 1) + 1;

	return (uint32_t)tt_min(cost, (1 << 24) - 1) << 8 | (m->burst & 0xff);
}

/* Of both sides for one policy in this burst; 0: not known. */
static uint32_t cost_of(const struct shm_tuner *t, enum tt_store s, const _Atomic uint32_t *reader)
{
	uint32_t own = tt_shm_meter_word(&t->own[s]);
	uint32_t other = atomic_load_explicit(&reader[s], memory_order_relaxed);

	if ((own & 0xff) != t->burst || (other & 0xff) != t->burst || own >> 8 == 0 || other >> 8 == 0)
		return 0;
	return (own >> 8) + (other >> 8);
}

/* Streaming must be twice as cheap to be taken and stays until ordinary stores cost less than 1.5 times as
 * much; two verdicts must agree, as one may be a disturbance. */
static void judge(struct shm_tuner *t, const _Atomic uint32_t *reader)
{
	uint64_t plain = cost_of(t, TT_STORE_PLAIN, reader);
	uint64_t stream = cost_of(t, TT_STORE_STREAM, reader);
	bool change;

	if (plain == 0 || stream == 0)
		return;
	change = t->store == TT_STORE_PLAIN ? plain > 2 * stream : 2 * plain < 3 * stream;
	t->votes = change ? t->votes + 1 : 0;
	if (t->votes < 2)
		return;
	t->votes = 0;
	t->store = t->store == TT_STORE_PLAIN ? TT_STORE_STREAM : TT_STORE_PLAIN;
	tt_log(TT_LOG_DEBUG, "shm", "slots are now written by %s stores (%llu against %llu ps a byte)",
	       t->store == TT_STORE_PLAIN ? "ordinary" : "streaming", (unsigned long long)plain,
	       (unsigned long long)stream);
}

struct shm_choice tt_shm_tune_next(struct shm_tuner *t, const _Atomic uint32_t reader[2])
{
	uint32_t cycle = (t->burst <= EARLY ? ROUNDS : ROUNDS + REST) * t->around;
	struct shm_choice c = { .store = t->store, .burst = t->burst };
	uint32_t round = t->at / t->around;

	if (round == 2 || round == 3)
		c.store = t->store == TT_STORE_PLAIN ? TT_STORE_STREAM : TT_STORE_PLAIN;
	c.measured = round == 1 || round == 3;
	if (++t->at == ROUNDS * t->around)
		judge(t, reader);
	if (t->at < cycle)
		return c;
	t->at = 0;
	t->burst = t->burst < 255 ? t->burst + 1 : EARLY + 1; /* round, without early ones */
	return c;
}
