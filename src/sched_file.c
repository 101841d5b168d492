/* SPDX-License-Identifier: Apache-2.0
 * Schedules from outside: files, what they hold, and the proof of it. */
#include "sched_file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { MAX_FILE = 256 << 20 };

int tt_coll_find(const char *name)
{
	char plain[32];
	size_t n = 0;

	for (; *name && n < sizeof plain - 1; name++)
		if (*name != '_')
			plain[n++] = *name;
	plain[n] = 0;
	for (int c = 0; c <= TT_BARRIER && !*name; c++)
		if (!strcasecmp(plain, tt_coll_name((enum tt_coll)c)))
			return c;
	return -1;
}

/* ---- sets ---- */

static void set_free(struct tt_sched_set *set)
{
	for (int i = 0; i < set->nranks; i++) {
		tt_sched_free(set->ranks ? set->ranks[i] : NULL);
		free(set->origin ? set->origin[i] : NULL);
	}
	free(set->ranks);
	free(set->origin);
	free(set->algo);
	free(set->what);
	free(set);
}

struct tt_sched_set *tt_sched_set_new(struct tt_sched_file *file, const char *what, const char *algo, int nranks)
{
	struct tt_sched_set *set = calloc(1, sizeof *set), **sets;

	sets = realloc(file->sets, ((size_t)file->nsets + 1) * sizeof(void *));
	if (sets)
		file->sets = sets;
	if (!set || !sets) {
		free(set);
		return NULL;
	}
	set->nranks = nranks;
	set->most = SIZE_MAX;
	set->algo = strdup(algo);
	set->what = strdup(what);
	set->ranks = calloc((size_t)nranks, sizeof *set->ranks);
	set->origin = calloc((size_t)nranks, sizeof *set->origin);
	if (!set->algo || !set->what || !set->ranks || !set->origin) {
		set_free(set);
		return NULL;
	}
	sets[file->nsets++] = set;
	return set;
}

void tt_sched_file_clear(struct tt_sched_file *file)
{
	for (int i = 0; i < file->nsets; i++)
		set_free(file->sets[i]);
	free(file->sets);
	*file = (struct tt_sched_file){ 0 };
}

tuttiResult_t tt_sched_wrong(const struct tt_sched_set *set, int rank, uint32_t step, const char *why)
{
	const struct tt_sched *s = set->ranks[rank];
	const struct tt_origin *o = set->origin[rank];
	char where[64] = "";

	if (o && step == UINT32_MAX && s)
		o += s->nsteps;
	else if (o && step != UINT32_MAX)
		o += step;
	if (step != UINT32_MAX && o && o->tb >= 0)
		snprintf(where, sizeof where, "gpu %d tb %d step %d: ", rank, o->tb, o->step);
	else if (step != UINT32_MAX)
		snprintf(where, sizeof where, "rank %d step %u: ", rank, step);
	return tt_fail(tuttiInvalidUsage, "%s:%u: %s%s", set->what, o ? o->line : 0, where, why);
}

/* ---- proof ---- */

static bool of_one_window(const struct tt_sched_set *set)
{
	for (int i = 0; i < set->nranks; i++)
		if (set->ranks[i]->one_window)
			return true;
	return false;
}

/* Which of its kind on its link a message is: the order of issue in one window. */
static uint32_t nth_of(const struct tt_sched *s, uint32_t step)
{
	const struct tt_step *st = &s->steps[step];
	uint32_t n = 0;

	for (uint32_t i = 0; i < s->nsteps; i++) {
		const struct tt_step *o = &s->steps[i];

		if (o->op == st->op && o->peer == st->peer && o->lane == st->lane)
			n += o->skew < st->skew || (o->skew == st->skew && i < step);
	}
	return n;
}

static uint32_t sender_of(const struct tt_sched *from, const struct tt_sched *to, uint32_t step)
{
	const struct tt_step *st = &to->steps[step];
	uint32_t i = 0, n = nth_of(to, step);

	for (; i < from->nsteps; i++) {
		const struct tt_step *o = &from->steps[i];

		if (o->op == TT_SEND && o->peer == (uint32_t)to->rank && o->lane == st->lane && nth_of(from, i) == n)
			break;
	}
	return i;
}

/* A wrong result that was received is followed to who made it: the last step that computed it. */
static void trace(const struct tt_sched_set *set, struct tt_blame *at)
{
	for (int hops = 0; hops < set->nranks && at->step != UINT32_MAX; hops++) {
		const struct tt_sched *s = set->ranks[at->rank], *from;
		const struct tt_step *st = &s->steps[at->step];
		uint32_t k;

		if (st->op != TT_RECV)
			return;
		from = set->ranks[st->peer];
		k = sender_of(from, s, at->step);
		if (k == from->nsteps)
			return;
		*at = (struct tt_blame){ (int)st->peer, k, true };
		struct tt_ref src = from->refs[from->steps[k].src];
		while (k-- > 0) {
			const struct tt_step *o = &from->steps[k];

			if (o->op != TT_SEND && o->dst.buf == src.buf && o->dst.chunk < src.chunk + src.n &&
			    src.chunk < o->dst.chunk + o->dst.n)
				break;
		}
		if (k == UINT32_MAX)
			return;
		at->step = k;
	}
}

tuttiResult_t tt_sched_prove(const struct tt_sched_set *set)
{
	uint32_t most = of_one_window(set) ? 1 : 3;
	struct tt_blame fault;
	char why[600];

	for (int way = 0; way < 6; way++) {
		bool queued = way > 3;
		struct tt_check how = { .windows = way % 2 ? most : 1, .aliased = way / 2 % 2, .depth = queued,
					.queued = queued, .fault = &fault };
		tuttiResult_t r;

		fault = (struct tt_blame){ 0, UINT32_MAX, false };
		r = tt_sched_check(set->ranks, set->nranks, &how);
		if (r == tuttiSystemError)
			return tt_fail(r, "%s: %s", set->what, tt_last_error());
		if (r == tuttiSuccess)
			continue;
		snprintf(why, sizeof why, "%s %s of %d ranks%s: %s", tt_coll_name(set->ranks[0]->coll), set->algo,
			 set->nranks, queued ? ", run in the order of skew and step, as the queue of a device does" :
			 how.aliased ? ", in place" : "", tt_last_error());
		if (fault.result)
			trace(set, &fault);
		return tt_sched_wrong(set, fault.rank, fault.step, why);
	}
	return tuttiSuccess;
}

/* ---- files ---- */

static char *read_file(const char *path, size_t *n)
{
	FILE *f = fopen(path, "re");
	char *text = NULL, *more;
	size_t room = 0, got = 1;

	*n = 0;
	while (f && got && *n < MAX_FILE) {
		if (*n == room) {
			more = realloc(text, room = 2 * room + 65536);
			if (!more)
				break;
			text = more;
		}
		got = fread(text + *n, 1, room - *n, f);
		*n += got;
	}
	if (f && !got && !ferror(f)) {
		fclose(f);
		return text;
	}
	tt_fail(tuttiInvalidUsage, "schedules of %s cannot be read: %s", path,
		*n >= MAX_FILE ? "larger than 256 MiB" : strerror(errno));
	free(text);
	if (f)
		fclose(f);
	return NULL;
}

static tuttiResult_t load(const char *path, struct tt_sched_file *file, uint64_t *digest)
{
	size_t n, at = 0;
	char *text = read_file(path, &n);
	tuttiResult_t r;

	if (!text)
		return tuttiInvalidUsage;
	*digest = tt_hash64(text, n, *digest);
	while (at < n && strchr(" \t\r\n\xef\xbb\xbf", text[at]) && text[at])
		at++;
	r = at < n && text[at] == '<' ? tt_sched_from_msccl(text, n, path, file) : tt_sched_read(text, n, path, file);
	free(text);
	return r;
}

tuttiResult_t tt_sched_load(const char *paths, struct tt_sched_file *file, uint64_t *digest)
{
	*digest = 1;
	while (*paths) {
		size_t n = strcspn(paths, ",");
		char *path = strndup(paths, n);
		tuttiResult_t r = path ? tuttiSuccess : tt_fail(tuttiSystemError, "no memory for schedules");

		if (r == tuttiSuccess && n)
			r = load(path, file, digest);
		free(path);
		TRY(r);
		paths += n + (paths[n] == ',');
	}
	return tuttiSuccess;
}
