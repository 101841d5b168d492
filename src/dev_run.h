/* Floor 1: a block of a device runs its part of a program (dev_proto.h). Compiled for devices (dev_kernels.cu) and for
 * the host, where a block is a thread. Who includes it says how, in C or C++:
 *   DEV_FN                     what functions are
 *   DEV_THREAD, DEV_THREADS    the number of this thread in its block, and how many there are
 *   DEV_SOON, DEV_SPINS        looks at memory before the first at the word that aborts, a power of 2, and at most
 *                              between two later ones
 *   struct dev_shared          what the threads of a block share; has `const void *src[TT_DEV_SRCS]`
 *   dev_sync(), dev_any(bool)  all threads of the block come here; whether one of them says so
 *   dev_load, dev_store        a word of 32 bits with acquire and release, among devices and host
 *   dev_load2, dev_store2      two of 64 bits, each as one, without order
 *   dev_load4, dev_store4      four bytes anywhere
 *   dev_pause(n)               between looks
 *   dev_copy, dev_reduce       by all threads; sources of a reduction are in dev_shared
 * A step ends with all threads at one place, so that the next may use what it wrote.
 * SPDX-License-Identifier: Apache-2.0 */
#if defined(DEV_FN) && !defined(TT_DEV_RUN_H)
#define TT_DEV_RUN_H

#include "dev_proto.h"

struct dev_block { /* each thread has its own, all alike */
	const struct tt_dev_launch *launch;
	const struct tt_dev_rank *rank;
	const struct tt_dev_prog *prog;
	const struct tt_dev_bind *bind;
	const struct tt_dev_step *steps;
	const struct tt_dev_ref *refs;
	struct dev_shared *shared;
};

static DEV_FN const void *dev_array(const struct tt_dev_prog *p, uint32_t at)
{
	return (const char *)p + at;
}

/* ---- where the bytes are: sched.h's partition, looked up ---- */

static DEV_FN const uint64_t *dev_inside(const struct dev_block *b, uint32_t w)
{
	return (const uint64_t *)(b->bind + 1) + (w + 1 == b->bind->nwindows ? b->prog->per_block + 1 : 0);
}

static DEV_FN uint64_t dev_elements(const struct dev_block *b, const struct tt_dev_ref *r, uint32_t w)
{
	const uint64_t *inside = dev_inside(b, w);

	return r->blocks * b->bind->count + inside[r->end] - inside[r->chunk];
}

static DEV_FN uint64_t dev_bytes(const struct dev_block *b, const struct tt_dev_ref *r, uint32_t w)
{
	return dev_elements(b, r, w) * b->bind->elem;
}

/* Windows take turns with `depth` copies of the temporaries; the last, which is cut differently, has one of its own:
 * what a chunk has there may belong to another block's chunk in the others. */
static DEV_FN uint32_t dev_tmp_copy(const struct dev_block *b, uint32_t w)
{
	return w >= b->prog->depth && w + 1 == b->bind->nwindows ? b->prog->depth : w % b->prog->depth;
}

static DEV_FN char *dev_address(const struct dev_block *b, const struct tt_dev_ref *r, uint32_t w)
{
	const struct tt_dev_bind *d = b->bind;
	const uint64_t *inside = dev_inside(b, w), *tmp_at = (const uint64_t *)(d + 1) + 2 * (b->prog->per_block + 1);
	uint64_t at = inside[r->chunk];

	if (r->buf >= 2)
		return b->rank->tmp + dev_tmp_copy(b, w) * d->tmp_stride + tmp_at[r->buf] +
		       (at + r->block * d->window - inside[r->first]) * d->elem;
	at = (at + r->block * d->count + w * d->window) * d->elem;
	return r->buf ? b->rank->out + at : (char *)b->rank->in + at;
}

static DEV_FN bool dev_is_small(const struct dev_block *b, uint64_t bytes)
{
	return bytes < b->launch->small;
}

static DEV_FN char *dev_slot(const struct dev_block *b, const struct tt_dev_link *l, uint32_t pos)
{
	return l->slots + pos % TT_DEV_SLOTS * b->launch->slot_bytes;
}

static DEV_FN uint64_t *dev_packets(const struct dev_block *b, const struct tt_dev_link *l, uint32_t pos)
{
	return l->packets + pos % TT_DEV_SLOTS * 2 * (uint64_t)b->launch->packets;
}

/* Where a source is: of what came last on its link, in the slot. */
static DEV_FN const char *dev_source(const struct dev_block *b, const struct tt_dev_ref *r, uint32_t w)
{
	const struct tt_dev_link *l;

	if (r->link == TT_DEV_NONE || dev_is_small(b, dev_bytes(b, r, w)))
		return dev_address(b, r, w);
	l = &b->rank->links[r->link];
	return dev_slot(b, l, l->mine->pos - 1);
}

/* ---- waiting ---- */

/* Soon at first, then ever more seldom: what stands on a stream behind a call that was aborted ends at once, however
 * much of it there is, and who waits long does not keep the host's memory busy. */
static DEV_FN bool dev_give_up(const struct dev_block *b, uint32_t looks)
{
	bool is_time = looks % DEV_SPINS == 0 || (looks >= DEV_SOON && !(looks & (looks - 1)));

	dev_pause(looks);
	return is_time && dev_load(b->launch->abort);
}

/* Until the word has come to a value. One thread looks: more would only keep the memory busy. False: aborted. */
static DEV_FN bool dev_wait(const struct dev_block *b, const uint32_t *word, uint32_t value)
{
	bool up = false;

	if (DEV_THREAD == 0)
		for (uint32_t n = 1; !up && (int32_t)(dev_load(word) - value) < 0; n++)
			up = dev_give_up(b, n);
	return !dev_any(up);
}

/* ---- packets ---- */

static DEV_FN uint32_t dev_gather(const char *src, uint64_t at, uint64_t n)
{
	uint32_t x = 0;

	if (at + 4 <= n)
		return dev_load4(src + at);
	for (uint32_t k = 0; at + k < n; k++)
		x |= (uint32_t)(unsigned char)src[at + k] << (8 * k);
	return x;
}

static DEV_FN void dev_scatter(char *dst, uint64_t at, uint64_t n, uint32_t x)
{
	if (at + 4 <= n) {
		dev_store4(dst + at, x);
		return;
	}
	for (uint32_t k = 0; at + k < n; k++)
		dst[at + k] = (char)(x >> (8 * k));
}

/* An empty message has a packet too. */
static DEV_FN uint32_t dev_packets_of(uint64_t bytes)
{
	return bytes ? (uint32_t)((bytes + 7) / 8) : 1;
}

static DEV_FN void dev_put(uint64_t *to, uint32_t packets, const char *src, uint64_t n, uint32_t number)
{
	uint64_t mark = (uint64_t)number << 32;

	for (uint32_t i = DEV_THREAD; i < packets; i += DEV_THREADS)
		dev_store2(to + 2 * (uint64_t)i, mark | dev_gather(src, 8 * (uint64_t)i, n),
			   mark | dev_gather(src, 8 * (uint64_t)i + 4, n));
}

/* Each thread waits for packets of its own. */
static DEV_FN bool dev_get(const struct dev_block *b, const uint64_t *from, uint32_t packets, char *dst, uint64_t n,
			   uint32_t number)
{
	bool up = false;

	for (uint32_t i = DEV_THREAD; i < packets && !up; i += DEV_THREADS) {
		uint64_t x, y;
		uint32_t looks = 1;

		dev_load2(from + 2 * (uint64_t)i, &x, &y);
		for (; !up && ((uint32_t)(x >> 32) != number || (uint32_t)(y >> 32) != number); looks++) {
			up = dev_give_up(b, looks);
			dev_load2(from + 2 * (uint64_t)i, &x, &y);
		}
		if (up)
			break;
		dev_scatter(dst, 8 * (uint64_t)i, n, (uint32_t)x);
		dev_scatter(dst, 8 * (uint64_t)i + 4, n, (uint32_t)y);
	}
	return !dev_any(up);
}

/* ---- steps ---- */

static DEV_FN bool dev_send(const struct dev_block *b, const struct tt_dev_step *s, uint32_t w)
{
	const struct tt_dev_ref *r = &b->refs[s->src];
	const struct tt_dev_link *l = &b->rank->links[s->link];
	uint32_t pos = l->mine->pos;
	uint64_t n = dev_bytes(b, r, w);
	const char *src = dev_source(b, r, w);
	bool small = dev_is_small(b, n), renew = pos % TT_DEV_RENEW < TT_DEV_SLOTS;

	if (!dev_wait(b, &l->mine->word, pos + 1 - TT_DEV_SLOTS))
		return false;
	if (!small)
		dev_copy(dev_slot(b, l, pos), src, n);
	if (small || (renew && b->launch->small))
		dev_put(dev_packets(b, l, pos), renew ? b->launch->packets : dev_packets_of(n), src, small ? n : 0,
			pos + 1);
	dev_sync();
	if (DEV_THREAD == 0) {
		if (!small || renew)
			dev_store(l->theirs, pos + 1);
		l->mine->pos = pos + 1;
	}
	return true;
}

/* What stays in its slot is given back by the last step that reads it (dev_drop). */
static DEV_FN bool dev_recv(const struct dev_block *b, const struct tt_dev_step *s, uint32_t w)
{
	const struct tt_dev_ref *r = &b->refs[s->dst];
	const struct tt_dev_link *l = &b->rank->links[s->link];
	uint32_t pos = l->mine->pos;
	uint64_t n = dev_bytes(b, r, w);
	bool small = dev_is_small(b, n), stays = !small && r->link != TT_DEV_NONE;

	if (small ? !dev_get(b, dev_packets(b, l, pos), dev_packets_of(n), dev_address(b, r, w), n, pos + 1) :
		    !dev_wait(b, &l->mine->word, pos + 1))
		return false;
	if (!small && !stays) {
		dev_copy(dev_address(b, r, w), dev_slot(b, l, pos), n);
		dev_sync();
	}
	if (DEV_THREAD == 0) {
		if (!stays)
			dev_store(l->theirs, pos + 1);
		l->mine->pos = pos + 1;
	}
	return true;
}

static DEV_FN void dev_drop(const struct dev_block *b, const struct tt_dev_step *s, uint32_t w)
{
	const uint32_t *drops = (const uint32_t *)dev_array(b->prog, b->prog->drops) + s->drop;

	for (uint32_t k = DEV_THREAD; k < s->ndrops; k += DEV_THREADS) {
		const struct tt_dev_ref *r = &b->refs[drops[k]];
		const struct tt_dev_link *l = &b->rank->links[r->link];

		if (!dev_is_small(b, dev_bytes(b, r, w)))
			dev_store(l->theirs, l->mine->pos);
	}
}

static DEV_FN void dev_local(const struct dev_block *b, const struct tt_dev_step *s, uint32_t w)
{
	const struct tt_dev_ref *dst = &b->refs[s->dst];
	uint64_t n = dev_elements(b, dst, w);
	char *to = dev_address(b, dst, w);

	if (s->op == TT_DEV_COPY) {
		const char *from = dev_source(b, &b->refs[s->src], w);

		if (from != to)
			dev_copy(to, from, n * b->bind->elem);
		return;
	}
	for (uint32_t k = DEV_THREAD; k < s->nsrc; k += DEV_THREADS)
		b->shared->src[k] = dev_source(b, &b->refs[s->src + k], w);
	dev_sync();
	dev_reduce(b, to, s->nsrc, n);
}

static DEV_FN bool dev_step(const struct dev_block *b, const struct tt_dev_step *s, uint32_t w)
{
	if (s->op == TT_DEV_SEND) {
		if (!dev_send(b, s, w))
			return false;
	} else if (s->op == TT_DEV_RECV) {
		if (!dev_recv(b, s, w))
			return false;
	} else {
		dev_local(b, s, w);
	}
	dev_sync();
	if (s->ndrops)
		dev_drop(b, s, w);
	return true;
}

/* ---- a block ---- */

/* In the order in which both ends of a link know its messages: (batch of windows, window + skew, step). */
static DEV_FN bool dev_windows(const struct dev_block *b, const struct tt_dev_block *mine)
{
	const uint32_t *order = (const uint32_t *)dev_array(b->prog, b->prog->order);
	uint32_t nw = b->bind->nwindows, depth = b->prog->depth;
	bool one = nw == 1;

	for (uint32_t at = 0; at < nw; at += depth) {
		uint32_t nb = nw - at < depth ? nw - at : depth, turns = one ? 1 : nb + b->prog->max_skew;

		if (b->launch->beat && DEV_THREAD == 0)
			dev_store(b->launch->beat, at + 1);
		for (uint32_t turn = 0; turn < turns; turn++)
			for (uint32_t i = mine->first; i < mine->first + mine->n; i++) {
				const struct tt_dev_step *s = &b->steps[one ? order[i] : i];

				if (!one && (turn < s->skew || turn - s->skew >= nb))
					continue;
				if (!dev_step(b, s, one ? 0 : at + turn - s->skew))
					return false;
			}
	}
	return true;
}

/* Block `at` of a launch. False: aborted, and its links are of no more use. */
static DEV_FN bool dev_run(const struct tt_dev_launch *launch, uint32_t at, struct dev_shared *shared)
{
	const struct tt_dev_rank *r = launch->ranks + launch->nranks - 1;
	struct dev_block b;

	while (r->first > at)
		r--;
	b.launch = launch;
	b.rank = r;
	b.prog = r->prog;
	b.bind = r->bind;
	b.steps = (const struct tt_dev_step *)dev_array(r->prog, r->prog->steps);
	b.refs = (const struct tt_dev_ref *)dev_array(r->prog, r->prog->refs);
	b.shared = shared;
	return dev_windows(&b, (const struct tt_dev_block *)dev_array(r->prog, r->prog->blocks) + (at - r->first));
}

#endif
