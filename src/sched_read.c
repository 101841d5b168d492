/* SPDX-License-Identifier: Apache-2.0
 * Reads what sched_print.c writes, and what a person writes in that form: numbers of steps, lanes, skews and
 * dependencies may be left out, as the builder derives what is needed to be right. docs/schedules.md */
#include "sched_file.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_RANKS = 4096, MAX_CHUNKS = 1 << 20, MAX_NAME = 64 };

struct reader {
	struct tt_sched_file *file;
	const char *what, *p; /* p: in the line */
	uint32_t line, head_line;
	size_t least, most;   /* for the sets that follow */
	/* the schedule that is being read */
	struct tt_sched_set *set;
	struct tt_builder *b;
	int rank;
	uint32_t nsteps, nbufs, places; /* nsteps, nbufs: as the head says, UINT32_MAX: it does not */
	bool one_window;
	struct tt_origin *origin;
	uint32_t norigin;
	struct tt_ref *refs; /* of a reduce */
	uint32_t crefs;
};

__attribute__((format(printf, 2, 3))) static tuttiResult_t wrong(const struct reader *r, const char *fmt, ...)
{
	char text[400], step[32] = "";
	const char *error;
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	if (r->b)
		snprintf(step, sizeof step, "rank %d step %u: ", r->rank, tt_sched_so_far(r->b, &error)->nsteps);
	return tt_fail(tuttiInvalidUsage, "%s:%u: %s%s", r->what, r->line, step, text);
}

static tuttiResult_t no_memory(void)
{
	return tt_fail(tuttiSystemError, "no memory for schedules");
}

/* ---- words ---- */

static void skip(struct reader *r)
{
	r->p += strspn(r->p, " \t\r");
}

static bool is_name(char c)
{
	return isalnum((unsigned char)c) || c == '_' || c == '-' || c == '.';
}

static bool sign(struct reader *r, char c)
{
	skip(r);
	if (*r->p != c)
		return false;
	r->p++;
	return true;
}

static bool word(struct reader *r, const char *w)
{
	size_t n = strlen(w);

	skip(r);
	if (strncmp(r->p, w, n) || is_name(r->p[n]))
		return false;
	r->p += n;
	return true;
}

static bool number(struct reader *r, uint32_t *out)
{
	uint64_t v = 0;

	skip(r);
	if (!isdigit((unsigned char)*r->p))
		return false;
	for (; isdigit((unsigned char)*r->p); r->p++) {
		v = 10 * v + (uint64_t)(*r->p - '0');
		if (v >= UINT32_MAX)
			return false;
	}
	*out = (uint32_t)v;
	return true;
}

static bool name(struct reader *r, char *out)
{
	size_t n = 0;

	skip(r);
	while (is_name(*r->p) && n < MAX_NAME - 1)
		out[n++] = *r->p++;
	out[n] = 0;
	return n && !is_name(*r->p);
}

static bool at_end(struct reader *r)
{
	skip(r);
	return !*r->p || *r->p == '#';
}

/* Bytes, with K, M, G or T. */
static bool size(struct reader *r, size_t *out)
{
	static const char units[] = "KMGT";
	const char *unit;
	uint32_t v;
	int shift = 0;

	if (!number(r, &v))
		return false;
	unit = *r->p ? strchr(units, toupper((unsigned char)*r->p)) : NULL;
	if (unit) {
		shift = 10 * (int)(unit - units + 1);
		r->p++;
	}
	*out = (size_t)v << shift;
	return !is_name(*r->p) && *out >> shift == v;
}

/* ---- the end of a schedule ---- */

static tuttiResult_t end_sched(struct reader *r)
{
	const char *error;
	const struct tt_sched *so_far = r->b ? tt_sched_so_far(r->b, &error) : NULL;
	struct tt_sched *s;
	uint32_t step;

	if (!r->b)
		return tuttiSuccess;
	if (r->nsteps != UINT32_MAX && r->nsteps != so_far->nsteps)
		return wrong(r, "the head says %u steps, there are %u", r->nsteps, so_far->nsteps);
	if (r->nbufs != UINT32_MAX && r->nbufs != so_far->nbufs)
		return wrong(r, "the head says %u buffers, there are %u", r->nbufs, so_far->nbufs);
	r->origin[r->norigin] = (struct tt_origin){ r->head_line, -1, -1 };
	r->set->origin[r->rank] = r->origin;
	r->origin = NULL;
	tuttiResult_t res = tt_sched_try(r->b, &s, &step);
	r->b = NULL;
	if (res != tuttiSuccess)
		return tt_sched_wrong(r->set, r->rank, step, tt_last_error());
	s->one_window |= r->one_window;
	r->set->ranks[r->rank] = s;
	if (s->nranks == 1) /* the builder has made a copy of it, whatever there was */
		r->set->origin[0][s->nsteps] = (struct tt_origin){ r->head_line, -1, -1 };
	return tuttiSuccess;
}

static tuttiResult_t end_set(struct reader *r)
{
	TRY(end_sched(r));
	for (int i = 0; r->set && i < r->set->nranks; i++)
		if (!r->set->ranks[i])
			return wrong(r, "%s of %d ranks has no schedule of rank %d", r->set->algo, r->set->nranks, i);
	r->set = NULL;
	return tuttiSuccess;
}

/* ---- the head ---- */

struct head {
	int coll;
	char algo[MAX_NAME];
	uint32_t rank, nranks, root, nblocks, per_block, nlanes, nbufs, nsteps;
	bool ordered, one_window;
};

static bool head_item(struct reader *r, struct head *h)
{
	uint32_t n;

	if (word(r, "ordered"))
		return h->ordered = true;
	if (word(r, "one"))
		return h->one_window = word(r, "window");
	if (word(r, "block-runnable"))
		return true; /* found out anew */
	if (!number(r, &n))
		return false;
	if (word(r, "x")) {
		h->nblocks = n;
		return number(r, &h->per_block) && word(r, "chunks");
	}
	if (word(r, "lanes") || word(r, "lane"))
		h->nlanes = n;
	else if (word(r, "buffers"))
		h->nbufs = n;
	else if (word(r, "steps"))
		h->nsteps = n;
	else
		return false;
	return true;
}

static tuttiResult_t read_head(struct reader *r, struct head *h)
{
	uint32_t blocks;

	if (!name(r, h->algo) || !word(r, "rank") || !number(r, &h->rank) || !word(r, "of") ||
	    !number(r, &h->nranks))
		return wrong(r, "wanted: %s NAME rank R of P root K: B x C chunks, ...",
			     tt_coll_name((enum tt_coll)h->coll));
	if (word(r, "root") && !number(r, &h->root))
		return wrong(r, "the root is no number");
	if (!sign(r, ':'))
		return wrong(r, "a colon is missing before the chunks");
	do {
		if (!head_item(r, h))
			return wrong(r, "not understood: \"%.40s\"", r->p);
	} while (sign(r, ','));
	if (!at_end(r))
		return wrong(r, "not understood: \"%.40s\"", r->p);
	if (!h->nranks || h->nranks > MAX_RANKS || h->rank >= h->nranks || h->root >= h->nranks)
		return wrong(r, "rank %u of %u, root %u: there are at most %d ranks", h->rank, h->nranks, h->root,
			     MAX_RANKS);
	blocks = h->coll == TT_ALLGATHER || h->coll == TT_REDUCESCATTER ? h->nranks : 1;
	if (h->nblocks != blocks)
		return wrong(r, "%u blocks; %s of %u ranks has %u", h->nblocks, tt_coll_name((enum tt_coll)h->coll),
			     h->nranks, blocks);
	if (!h->per_block || (uint64_t)blocks * h->per_block > MAX_CHUNKS ||
	    (uint64_t)h->nranks * h->per_block > 16 * MAX_CHUNKS)
		return wrong(r, "%u x %u chunks: 1 to %d are possible", blocks, h->per_block, MAX_CHUNKS);
	if (!h->nlanes || h->nlanes > TT_MAX_LANES)
		return wrong(r, "%u lanes: 1 to %d are possible", h->nlanes, TT_MAX_LANES);
	return tuttiSuccess;
}

static bool of_set(const struct reader *r, const struct head *h)
{
	const struct tt_sched *first = NULL;

	for (int i = 0; r->set && i < r->set->nranks && !first; i++)
		first = r->set->ranks[i];
	return first && (int)first->coll == h->coll && first->nranks == (int)h->nranks &&
	       first->root == (int)h->root && !strcmp(first->algo, h->algo) && !r->set->ranks[h->rank];
}

static tuttiResult_t begin_sched(struct reader *r, int coll)
{
	struct head h = { .coll = coll, .nlanes = 1, .nbufs = UINT32_MAX, .nsteps = UINT32_MAX };

	TRY(end_sched(r));
	TRY(read_head(r, &h));
	if (!of_set(r, &h)) {
		TRY(end_set(r));
		r->set = tt_sched_set_new(r->file, r->what, h.algo, (int)h.nranks);
		if (!r->set)
			return no_memory();
		r->set->least = r->least;
		r->set->most = r->most;
	}
	r->rank = (int)h.rank;
	r->nsteps = h.nsteps;
	r->nbufs = h.nbufs;
	r->places = h.nblocks * h.per_block;
	r->one_window = h.one_window;
	r->head_line = r->line;
	r->norigin = 0;
	r->origin = calloc(8, sizeof *r->origin);
	if (!r->origin)
		return no_memory();
	TRY(tt_sched_begin(&r->b, (enum tt_coll)coll, r->set->algo, r->rank, (int)h.nranks, (int)h.root, h.per_block,
			   h.nlanes));
	if (h.ordered)
		tt_sched_ordered(r->b);
	return tuttiSuccess;
}

/* ---- what is in a schedule ---- */

static tuttiResult_t read_weights(struct reader *r)
{
	const char *error;
	uint32_t n = tt_sched_so_far(r->b, &error)->per_block, *w = malloc(n * sizeof *w), k = 0;
	tuttiResult_t res = tuttiSuccess;

	if (!w)
		return no_memory();
	while (k < n && number(r, &w[k]))
		k++;
	if (k < n || !at_end(r))
		res = wrong(r, "%u weights are wanted, one for each chunk of a block", n);
	else
		tt_sched_weights(r->b, w);
	free(w);
	tt_sched_so_far(r->b, &error);
	return res == tuttiSuccess && error ? wrong(r, "%s", error) : res;
}

/* "[3]" or "[0+4]". */
static bool range(struct reader *r, uint32_t *first, uint32_t *n)
{
	*n = 1;
	if (*r->p != '[' || !r->p++ || !number(r, first))
		return false;
	if (sign(r, '+') && !number(r, n))
		return false;
	return sign(r, ']');
}

static tuttiResult_t read_buffer(struct reader *r)
{
	uint32_t id, first, n, want;
	const char *error;

	skip(r);
	if (strncmp(r->p, "tmp", 3))
		return wrong(r, "a temporary is tmp and a number, and a range of chunks");
	r->p += 3;
	want = tt_sched_so_far(r->b, &error)->nbufs - TT_TMP;
	if (!isdigit((unsigned char)*r->p) || !number(r, &id) || id != want || !range(r, &first, &n) || !at_end(r))
		return wrong(r, "wanted: buffer tmp%u[FIRST+N]", want);
	r->places += n;
	if (r->places > 4 * MAX_CHUNKS || n > MAX_CHUNKS)
		return wrong(r, "more than %d chunks in temporaries", 4 * MAX_CHUNKS);
	tt_sched_tmp(r->b, first, n);
	tt_sched_so_far(r->b, &error);
	return error ? wrong(r, "%s", error) : tuttiSuccess;
}

static tuttiResult_t read_ref(struct reader *r, struct tt_ref *ref)
{
	uint32_t id;

	skip(r);
	*ref = (struct tt_ref){ 0 };
	if (!strncmp(r->p, "in[", 3)) {
		ref->buf = TT_IN;
		r->p += 2;
	} else if (!strncmp(r->p, "out[", 4)) {
		ref->buf = TT_OUT;
		r->p += 3;
	} else if (!strncmp(r->p, "tmp", 3) && isdigit((unsigned char)r->p[3])) {
		r->p += 3;
		if (!number(r, &id) || id > MAX_CHUNKS)
			return wrong(r, "no such temporary");
		ref->buf = TT_TMP + id;
	} else {
		return wrong(r, "in[...], out[...] or tmpN[...] is wanted at \"%.20s\"", r->p);
	}
	if (!range(r, &ref->chunk, &ref->n))
		return wrong(r, "chunks are [FIRST] or [FIRST+N]");
	return tuttiSuccess;
}

static tuttiResult_t read_message(struct reader *r, bool send, uint32_t lane)
{
	uint32_t peer, skew = 0, nranks;
	const char *error;
	struct tt_ref ref;

	TRY(read_ref(r, &ref));
	if (!word(r, send ? "to" : "from") || !number(r, &peer))
		return wrong(r, "%s and a rank are missing", send ? "to" : "from");
	if (word(r, "skew") && (!number(r, &skew) || skew > UINT16_MAX))
		return wrong(r, "a skew is a number of 0 to %d", UINT16_MAX);
	nranks = (uint32_t)tt_sched_so_far(r->b, &error)->nranks;
	if (peer >= nranks || peer == (uint32_t)r->rank)
		return wrong(r, "rank %u is no other rank of %u", peer, nranks);
	if (send)
		tt_send(r->b, lane, skew, (int)peer, ref);
	else
		tt_recv(r->b, lane, skew, (int)peer, ref);
	return tuttiSuccess;
}

static tuttiResult_t read_local(struct reader *r, bool reduce)
{
	struct tt_ref dst;
	uint32_t n = 0;

	TRY(read_ref(r, &dst));
	if (!sign(r, '='))
		return wrong(r, "= is missing behind the target");
	while (!at_end(r) && strncmp(r->p, "after", 5)) {
		if (n == r->crefs) {
			void *more = realloc(r->refs, (2 * n + 8) * sizeof *r->refs);

			if (!more)
				return no_memory();
			r->refs = more;
			r->crefs = 2 * n + 8;
		}
		TRY(read_ref(r, &r->refs[n++]));
	}
	if (reduce ? n < 2 : n != 1)
		return wrong(r, reduce ? "a reduce has two or more sources" : "a copy has one source");
	if (reduce)
		tt_reducev(r->b, dst, r->refs, n);
	else
		tt_copy(r->b, dst, r->refs[0]);
	return tuttiSuccess;
}

static tuttiResult_t read_after(struct reader *r)
{
	uint32_t step;

	if (!word(r, "after"))
		return tuttiSuccess;
	do {
		if (!number(r, &step))
			return wrong(r, "numbers of steps are wanted behind after");
		tt_sched_after(r->b, step);
	} while (sign(r, ','));
	return tuttiSuccess;
}

static tuttiResult_t note_origin(struct reader *r)
{
	if (r->norigin >= 7 && !((r->norigin + 1) & r->norigin)) {
		void *more = realloc(r->origin, (2 * (size_t)r->norigin + 2) * sizeof *r->origin);

		if (!more)
			return no_memory();
		r->origin = more;
	}
	r->origin[r->norigin++] = (struct tt_origin){ r->line, -1, -1 };
	return tuttiSuccess;
}

static tuttiResult_t read_step(struct reader *r)
{
	const char *error;
	const struct tt_sched *s = tt_sched_so_far(r->b, &error);
	uint32_t at = s->nsteps, n, lane = 0;

	if (number(r, &n) && n != at)
		return wrong(r, "the number is %u", n);
	if (word(r, "lane") && (!number(r, &lane) || lane >= s->nlanes))
		return wrong(r, "lanes are 0 to %u", s->nlanes - 1);
	TRY(note_origin(r));
	if (word(r, "send"))
		TRY(read_message(r, true, lane));
	else if (word(r, "recv"))
		TRY(read_message(r, false, lane));
	else if (word(r, "copy"))
		TRY(read_local(r, false));
	else if (word(r, "reduce"))
		TRY(read_local(r, true));
	else
		return wrong(r, "send, recv, copy or reduce is wanted at \"%.20s\"", r->p);
	s = tt_sched_so_far(r->b, &error);
	if (error)
		return wrong(r, "%s", error);
	TRY(read_after(r));
	tt_sched_so_far(r->b, &error);
	if (error)
		return tt_fail(tuttiInvalidUsage, "%s:%u: rank %d: %s", r->what, r->line, r->rank, error);
	return at_end(r) ? tuttiSuccess : wrong(r, "not understood: \"%.40s\"", r->p);
}

static tuttiResult_t read_bytes(struct reader *r)
{
	TRY(end_set(r));
	r->most = SIZE_MAX;
	if (!size(r, &r->least) || (!at_end(r) && !size(r, &r->most)) || !at_end(r) || r->most < r->least)
		return wrong(r, "wanted: bytes LEAST MOST, or LEAST alone");
	return tuttiSuccess;
}

static tuttiResult_t read_line(struct reader *r)
{
	const char *start = r->p;
	char first[MAX_NAME];
	int coll = -1;

	if (at_end(r))
		return tuttiSuccess;
	if (word(r, "bytes"))
		return read_bytes(r);
	if (isalpha((unsigned char)*r->p) && name(r, first))
		coll = tt_coll_find(first);
	if (coll >= 0 && (!r->b || strchr(start, ':'))) /* "reduce tmp0[0] = ..." is a step */
		return begin_sched(r, coll);
	r->p = start;
	if (!r->b)
		return wrong(r, "a schedule begins with its collective: AllReduce NAME rank R of P root K: ...");
	if (word(r, "weights"))
		return read_weights(r);
	if (word(r, "buffer"))
		return read_buffer(r);
	return read_step(r);
}

static void drop(struct reader *r)
{
	if (r->b)
		tt_sched_drop(r->b);
	free(r->origin);
	free(r->refs);
}

tuttiResult_t tt_sched_read(const char *text, size_t n, const char *what, struct tt_sched_file *file)
{
	struct reader r = { .file = file, .what = what, .most = SIZE_MAX };
	tuttiResult_t res = tuttiSuccess;
	char *copy, *next;

	if (memchr(text, 0, n))
		return tt_fail(tuttiInvalidUsage, "%s: not a text", what);
	copy = strndup(text, n);
	if (!copy)
		return no_memory();
	for (char *line = copy; line && res == tuttiSuccess; line = next) {
		next = strchr(line, '\n');
		if (next)
			*next++ = 0;
		r.line++;
		r.p = line;
		res = read_line(&r);
	}
	if (res == tuttiSuccess)
		res = end_set(&r);
	drop(&r);
	free(copy);
	return res;
}
