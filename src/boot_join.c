/* The joiner's side of a rendezvous whose root is in another process, and tables.
 * SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "boot_node.h"

#define ANSWER_NS (2 * TT_NS) /* how long a joiner waits for the root's word after its deadline */

bool tt_stop_set(const _Atomic bool *stop)
{
	return stop != NULL && atomic_load_explicit(stop, memory_order_acquire);
}

tuttiResult_t tt_table_of(struct tt_shared *s, struct tt_table *out)
{
	const uint8_t *p = s->bytes + sizeof(struct tt_frame_head);
	int n = tt_table_check(p, s->size - sizeof(struct tt_frame_head));
	struct tt_shared **base;

	if (n == 0)
		return tt_fail(tuttiRemoteError, "the root sent a damaged table");
	base = malloc(sizeof(*base) + (size_t)n * (sizeof(void *) + sizeof(size_t)));
	if (base == NULL)
		return tt_fail(tuttiSystemError, "no memory for the table of %d ranks", n);
	*base = s;
	out->n = n;
	out->base = base;
	out->entries = (const void **)(base + 1);
	out->sizes = (size_t *)(out->entries + n);
	tt_table_point(p, out->entries, out->sizes, &out->blob, &out->blob_size);
	return tuttiSuccess;
}

void tt_table_free(struct tt_table *t)
{
	if (t == NULL || t->base == NULL)
		return;
	tt_shared_drop(*(struct tt_shared **)t->base);
	free(t->base);
	memset(t, 0, sizeof(*t));
}

static void root_targets(struct tt_dial *d, const struct tt_root_id *id)
{
	int ports = id->ports > 1 ? id->ports : 1, k;
	bool launched = id->ports > 0;
	struct tt_addr a;
	size_t at, n;

	for (k = 0; k < ports && id->port + k <= 65535; k++)
		for (at = 0; (n = tt_id_get(id, at, &a)) > 0; at += n) {
			if (!launched)
				a.scope = 0; /* the root's name of the link, not ours */
			tt_dial_add(d, &a, (uint16_t)(id->port + k));
		}
	d->over_is_final = !launched; /* a launcher's rendezvous may come again */
}

/* The root may start later than we do: refused now may be served in a moment. */
static tuttiResult_t reach_root(struct tt_dial *d)
{
	uint64_t pause = TT_NS / 50, start = tt_now_ns();

	while (!tt_dial_round(d)) {
		uint64_t now = tt_now_ns();
		struct timespec t;

		if (tt_stop_set(d->stop))
			return tt_fail(tuttiAborted, "init was aborted");
		if (d->fatal != tuttiSuccess)
			return tt_fail(d->fatal, "cannot join: %s", d->why);
		if (now >= d->deadline_ns)
			return tt_fail(tuttiTimeout, "no answer from the root in %.1f s; tried %s; is its process "
				       "running and reachable?", (double)(now - start) / 1e9,
				       d->why[0] != 0 ? d->why : "nothing");
		/* Not all joiners at the same moment. */
		t.tv_sec = 0;
		t.tv_nsec = (long)(pause / 2 + tt_hash64(&now, sizeof(now), d->hello.from) % (pause / 2));
		nanosleep(&t, NULL);
		pause = tt_min(2 * pause, TT_NS / 2);
		tt_dial_next(d);
	}
	return tuttiSuccess;
}

static tuttiResult_t lost_root(int fd, int e)
{
	char ends[TT_ENDS_TEXT];

	tt_sock_ends(fd, ends, sizeof(ends));
	if (e == ECANCELED)
		return tt_fail(tuttiAborted, "init was aborted");
	if (e == ETIMEDOUT)
		return tt_fail(tuttiTimeout, "the root (%s) was joined, but said nothing until the deadline", ends);
	return tt_fail(tuttiPeerDead, "the root's process died or left during init (%s: %s)", ends,
		       e == ENODATA ? "closed" : strerror(e));
}

static tuttiResult_t read_refusal(int fd, const struct tt_frame_head *h, uint64_t until, const _Atomic bool *stop)
{
	uint8_t raw[2048];
	char words[1024];
	uint32_t code;
	int e;

	if (h->len > sizeof(raw))
		return tt_fail(tuttiRemoteError, "the root refused with a damaged message");
	e = tt_sock_read(fd, raw, h->len, until, stop);
	if (e != 0)
		return lost_root(fd, e);
	if (!tt_words_parse(raw, h->len, sizeof(code), &code, words, sizeof(words)) || code == tuttiSuccess)
		return tt_fail(tuttiRemoteError, "the root refused with a damaged message");
	return tt_fail((tuttiResult_t)code, "%s", words);
}

static tuttiResult_t read_table(int fd, uint64_t until, const _Atomic bool *stop, struct tt_table *out)
{
	struct tt_frame_head h;
	struct tt_shared *s;
	tuttiResult_t r;
	int e = tt_sock_read(fd, &h, sizeof(h), until, stop);

	if (e != 0)
		return lost_root(fd, e);
	atomic_fetch_add_explicit(&tt_frames_received, 1, memory_order_relaxed);
	if (h.type == TT_FRAME_REFUSE)
		return read_refusal(fd, &h, until, stop);
	if (h.type != TT_FRAME_TABLE || h.len > TT_MAX_TABLE)
		return tt_fail(tuttiRemoteError, "the root sent something else than a table");
	s = malloc(sizeof(*s) + sizeof(h) + h.len);
	if (s == NULL)
		return tt_fail(tuttiSystemError, "no memory for a table of %u bytes", h.len);
	atomic_init(&s->refs, 1);
	s->size = sizeof(h) + h.len;
	e = tt_sock_read(fd, s->bytes + sizeof(h), h.len, until, stop);
	r = e != 0 ? lost_root(fd, e) : tt_table_of(s, out);
	if (r != tuttiSuccess)
		tt_shared_drop(s);
	return r;
}

static tuttiResult_t join_over(struct tt_dial *d, struct tt_join *j, const void *entry, size_t size,
			       struct tt_table *out)
{
	struct tt_frame_head h = { .len = (uint32_t)(sizeof(*j) + size), .type = TT_FRAME_JOIN };
	uint64_t until = d->deadline_ns + ANSWER_NS, now = tt_now_ns();
	int e;

	if (until < d->deadline_ns)
		until = UINT64_MAX;
	j->remaining_ns = d->deadline_ns > now ? d->deadline_ns - now : 0;
	e = tt_sock_write(d->fd, &h, sizeof(h), until, d->stop);
	if (e == 0)
		e = tt_sock_write(d->fd, j, sizeof(*j), until, d->stop);
	if (e == 0)
		e = tt_sock_write(d->fd, entry, size, until, d->stop);
	atomic_fetch_add_explicit(&tt_frames_sent, 1, memory_order_relaxed);
	/* A root that refuses early may close before all is written: its words come first. */
	if (e != 0 && e != EPIPE && e != ECONNRESET)
		return lost_root(d->fd, e);
	return read_table(d->fd, until, d->stop, out);
}

tuttiResult_t tt_join_there(const struct tt_root_id *id, struct tt_join *j, const void *entry, size_t size,
				uint64_t deadline_ns, const _Atomic bool *stop, struct tt_table *out)
{
	struct tt_dial *d = calloc(1, sizeof(*d));
	tuttiResult_t r;

	if (d == NULL)
		return tt_fail(tuttiSystemError, "no memory to join");
	d->hello.kind = TT_KIND_ROOT;
	d->hello.job = id->job;
	memcpy(d->secret, id->secret, sizeof(d->secret));
	d->deadline_ns = deadline_ns;
	d->stop = stop;
	root_targets(d, id);
	r = reach_root(d);
	if (r == tuttiSuccess) {
		r = join_over(d, j, entry, size, out);
		close(d->fd);
	}
	explicit_bzero(d->secret, sizeof(d->secret));
	free(d);
	return r;
}
