/* SPDX-License-Identifier: Apache-2.0
 * MSCCL XML: the algorithm as it stands in the file. Of each GPU thread blocks, each with at most one peer to send to,
 * one to receive from, a channel, and steps in order; depid and deps name a thread block and the step in it that must
 * be done before. What the attributes proto, hasdep and nthreadblocks say is of no use here. */
#include "sched_msccl.h"
#include "xml.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_GPUS = 4096, MAX_CHUNKS = 1 << 16, MAX_CHANNELS = 1024 };

struct import {
	struct tt_malgo m;
	int channels[TT_MAX_LANES];
};

__attribute__((format(printf, 3, 4))) static tuttiResult_t wrong(const struct import *im, const struct tt_xml *e,
								 const char *fmt, ...)
{
	char text[400];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	return tt_fail(tuttiInvalidUsage, "%s:%d: %s: %s", im->m.what, e->line, e->name, text);
}

/* An error in a step names its place too. */
static tuttiResult_t wrong_step(const struct import *im, const struct tt_xml *e, const char *text)
{
	const char *gpu = tt_xml_attr(e->parent->parent, "id"), *tb = tt_xml_attr(e->parent, "id");
	const char *s = tt_xml_attr(e, "s");

	return tt_fail(tuttiInvalidUsage, "%s:%d: gpu %.20s tb %.20s step %.20s: %s", im->m.what, e->line,
		       gpu ? gpu : "?", tb ? tb : "?", s ? s : "?", text);
}

static bool number(const char *text, int64_t lo, int64_t hi, int64_t *out)
{
	char *end;
	long long v = text ? strtoll(text, &end, 10) : 0;

	if (!text || end == text || *end || v < lo || v > hi)
		return false;
	*out = v;
	return true;
}

/* An attribute within limits; where there is none, `otherwise`, or an error if that is out of the limits. */
static tuttiResult_t attr(const struct import *im, const struct tt_xml *e, const char *name, int lo, int hi,
			  int otherwise, int *out)
{
	const char *text = tt_xml_attr(e, name);
	int64_t v = otherwise;
	char why[128];

	if ((text || otherwise < lo) && !number(text, lo, hi, &v)) {
		snprintf(why, sizeof why, "%s is %.20s, and should be %d to %d", name, text ? text : "missing", lo, hi);
		return strcmp(e->name, "step") ? wrong(im, e, "%s", why) : wrong_step(im, e, why);
	}
	*out = (int)v;
	return tuttiSuccess;
}

static tuttiResult_t no_memory(void)
{
	return tt_fail(tuttiSystemError, "no memory for schedules");
}

static uint32_t count(const struct tt_xml *e, const char *name)
{
	uint32_t n = 0;

	for (const struct tt_xml *c = e->child; c; c = c->next)
		n += !strcmp(c->name, name);
	return n;
}

/* ---- steps ---- */

static int type_of(const char *name)
{
	static const char *const names[TT_M_NTYPES] = { "s", "r", "rrc", "rrs", "rrcs", "rcs", "cpy", "re", "nop" };

	for (int i = 0; name && i < TT_M_NTYPES; i++)
		if (!strcmp(name, names[i]))
			return i;
	return -1;
}

static tuttiResult_t buffer(const struct import *im, const struct tt_xml *e, const char *name, char *out)
{
	const char *text = tt_xml_attr(e, name);
	char why[64];

	if (text && strlen(text) == 1 && strchr("ios", *text)) {
		*out = *text;
		return tuttiSuccess;
	}
	snprintf(why, sizeof why, "%s is %.20s, and should be i, o or s", name, text ? text : "missing");
	return wrong_step(im, e, why);
}

/* depid is a thread block's id: its place is found when all are known. */
static tuttiResult_t read_step(const struct import *im, const struct tt_xml *e, uint32_t at, const struct tt_mtb *tb,
			       struct tt_mstep *st)
{
	const char *name = tt_xml_attr(e, "type");
	int type = type_of(name), s;
	char why[96];

	TRY(attr(im, e, "s", 0, INT32_MAX, -1, &s));
	if ((uint32_t)s != at)
		return wrong_step(im, e, "the steps of a thread block are numbered from 0 on");
	if (type < 0) {
		snprintf(why, sizeof why, "type %.20s is none that can be run", name ? name : "missing");
		return wrong_step(im, e, why);
	}
	st->type = (enum tt_mtype)type;
	st->line = (uint32_t)e->line;
	TRY(buffer(im, e, "srcbuf", &st->srcbuf));
	TRY(buffer(im, e, "dstbuf", &st->dstbuf));
	TRY(attr(im, e, "srcoff", -1, MAX_CHUNKS, -2, &st->srcoff));
	TRY(attr(im, e, "dstoff", -1, MAX_CHUNKS, -2, &st->dstoff));
	TRY(attr(im, e, "cnt", type == TT_M_NOP ? 0 : 1, MAX_CHUNKS, -1, &st->cnt));
	TRY(attr(im, e, "depid", -1, INT32_MAX, -1, &st->depid));
	TRY(attr(im, e, "deps", -1, INT32_MAX, -1, &st->deps));
	if (tb->send < 0 && (type == TT_M_S || type == TT_M_RRS || type == TT_M_RRCS || type == TT_M_RCS))
		return wrong_step(im, e, "sends, and its thread block has nobody to send to");
	if (tb->recv < 0 && type != TT_M_S && type < TT_M_CPY)
		return wrong_step(im, e, "receives, and its thread block has nobody to receive from");
	return tuttiSuccess;
}

/* ---- thread blocks ---- */

static tuttiResult_t read_channel(struct import *im, const struct tt_xml *e, uint32_t *lane)
{
	int chan;

	TRY(attr(im, e, "chan", 0, MAX_CHANNELS, -1, &chan));
	for (*lane = 0; *lane < im->m.nlanes; (*lane)++)
		if (im->channels[*lane] == chan)
			return tuttiSuccess;
	if (im->m.nlanes == TT_MAX_LANES)
		return wrong(im, e, "more than %d channels are used", TT_MAX_LANES);
	im->channels[im->m.nlanes++] = chan;
	return tuttiSuccess;
}

static tuttiResult_t read_tb(struct import *im, const struct tt_xml *e, int rank, struct tt_mtb *tb)
{
	const struct tt_mgpu *g = &im->m.gpus[rank];
	uint32_t n = count(e, "step");

	TRY(attr(im, e, "id", 0, INT32_MAX, -1, &tb->id));
	for (const struct tt_mtb *o = g->tbs; o != tb; o++)
		if (o->id == tb->id)
			return wrong(im, e, "gpu %d has thread block %d twice", rank, tb->id);
	TRY(attr(im, e, "send", -1, im->m.ngpus - 1, -2, &tb->send));
	TRY(attr(im, e, "recv", -1, im->m.ngpus - 1, -2, &tb->recv));
	if (tb->send == rank || tb->recv == rank)
		return wrong(im, e, "gpu %d has itself as a peer", rank);
	TRY(read_channel(im, e, &tb->lane));
	tb->line = (uint32_t)e->line;
	tb->steps = calloc(n + 1, sizeof *tb->steps);
	tb->sent = calloc(n + 1, sizeof *tb->sent);
	if (!tb->steps || !tb->sent)
		return no_memory();
	for (const struct tt_xml *c = e->child; c; c = c->next)
		if (!strcmp(c->name, "step")) {
			TRY(read_step(im, c, tb->nsteps, tb, &tb->steps[tb->nsteps]));
			tb->nsteps++;
		}
	return tuttiSuccess;
}

static tuttiResult_t resolve_deps(const struct import *im, const struct tt_mgpu *g, int rank)
{
	for (uint32_t t = 0; t < g->ntbs; t++)
		for (uint32_t k = 0; k < g->tbs[t].nsteps; k++) {
			struct tt_mstep *st = &g->tbs[t].steps[k];
			uint32_t on = 0;

			if (st->depid < 0)
				continue;
			while (on < g->ntbs && g->tbs[on].id != st->depid)
				on++;
			if (on == g->ntbs || st->deps < 0 || (uint32_t)st->deps >= g->tbs[on].nsteps)
				return tt_fail(tuttiInvalidUsage, "%s:%u: gpu %d tb %d step %u: waits for step %d of "
					       "tb %d, which is not there", im->m.what, st->line, rank, g->tbs[t].id, k,
					       st->deps, st->depid);
			st->depid = (int)on;
		}
	return tuttiSuccess;
}

static tuttiResult_t read_gpu(struct import *im, const struct tt_xml *e)
{
	struct tt_mgpu *g;
	int rank, n;

	TRY(attr(im, e, "id", 0, im->m.ngpus - 1, -1, &rank));
	g = &im->m.gpus[rank];
	if (g->line)
		return wrong(im, e, "gpu %d is there twice", rank);
	g->line = (uint32_t)e->line;
	TRY(attr(im, e, "s_chunks", 0, MAX_CHUNKS, -1, &n));
	g->nscratch = (uint32_t)n;
	g->tbs = calloc(count(e, "tb") + 1, sizeof *g->tbs);
	if (!g->tbs)
		return no_memory();
	for (const struct tt_xml *c = e->child; c; c = c->next)
		if (!strcmp(c->name, "tb"))
			TRY(read_tb(im, c, rank, &g->tbs[g->ntbs++]));
	return resolve_deps(im, g, rank);
}

/* ---- the algorithm ---- */

/* Steps of thread blocks that receive from a GPU on a channel meet those of the one there that sends. */
static tuttiResult_t connect_tbs(const struct import *im)
{
	const struct tt_malgo *m = &im->m;

	for (int a = 0; a < m->ngpus; a++)
		for (uint32_t t = 0; t < m->gpus[a].ntbs; t++) {
			struct tt_mtb *s = &m->gpus[a].tbs[t];
			struct tt_mgpu *to = s->send < 0 ? NULL : &m->gpus[s->send];

			for (const struct tt_mtb *o = m->gpus[a].tbs; o != s; o++)
				if (o->lane == s->lane && ((s->send >= 0 && o->send == s->send) ||
							   (s->recv >= 0 && o->recv == s->recv)))
					return tt_fail(tuttiInvalidUsage, "%s:%u: gpu %d tb %d: another thread block "
						       "has the same peer and channel", m->what, s->line, a, s->id);
			for (uint32_t k = 0; to && k < to->ntbs; k++)
				if (to->tbs[k].recv == a && to->tbs[k].lane == s->lane)
					to->tbs[k].from = s;
		}
	return tuttiSuccess;
}

static void read_name(struct import *im, const struct tt_xml *root)
{
	const char *name = tt_xml_attr(root, "name");
	char *to = im->m.name;

	if (!name || !*name)
		name = "msccl";
	for (; *name && to < im->m.name + sizeof im->m.name - 1; name++)
		*to++ = (char)((*name | 0x20) >= 'a' && (*name | 0x20) <= 'z') || (*name >= '0' && *name <= '9') ||
			*name == '-' ? *name : '_';
}

static tuttiResult_t read_sizes(struct import *im, const struct tt_xml *root, int blocks)
{
	const char *least = tt_xml_attr(root, "minBytes"), *most = tt_xml_attr(root, "maxBytes");
	int64_t lo = 0, hi = 0;

	if ((least && !number(least, 0, INT64_MAX, &lo)) || (most && !number(most, 0, INT64_MAX, &hi)) ||
	    (hi && hi < lo))
		return wrong(im, root, "minBytes %.20s and maxBytes %.20s are no range", least ? least : "0",
			     most ? most : "0");
	im->m.least = tt_div_up((size_t)lo, (size_t)blocks);
	im->m.most = hi ? (size_t)hi / (size_t)blocks : SIZE_MAX;
	return tuttiSuccess;
}

static tuttiResult_t read_algo(struct import *im, const struct tt_xml *root)
{
	const char *coll = tt_xml_attr(root, "coll");
	int chunks, in_place, apart, blocks;
	int c = coll ? tt_coll_find(coll) : -1;

	if (c < 0 || c == TT_BARRIER)
		return wrong(im, root, "coll is %.40s: allreduce, allgather, reducescatter, broadcast and reduce can "
			     "be run", coll ? coll : "missing");
	im->m.coll = (enum tt_coll)c;
	im->m.line = (uint32_t)root->line;
	read_name(im, root);
	TRY(attr(im, root, "ngpus", 1, MAX_GPUS, 0, &im->m.ngpus));
	TRY(attr(im, root, "nchunksperloop", 1, MAX_CHUNKS, 0, &chunks));
	TRY(attr(im, root, "root", 0, im->m.ngpus - 1, 0, &im->m.root));
	TRY(attr(im, root, "inplace", 0, 1, 0, &in_place));
	TRY(attr(im, root, "outofplace", 0, 1, !in_place, &apart));
	if (!in_place && !apart)
		return wrong(im, root, "it is neither for buffers in place nor for others");
	im->m.in_place_only = !apart;
	blocks = c == TT_ALLGATHER || c == TT_REDUCESCATTER ? im->m.ngpus : 1;
	if (chunks % blocks)
		return wrong(im, root, "nchunksperloop %d is no multiple of the %d blocks of %s", chunks, blocks,
			     tt_coll_name(im->m.coll));
	im->m.per_block = (uint32_t)(chunks / blocks);
	TRY(read_sizes(im, root, blocks));
	if (count(root, "gpu") != (uint32_t)im->m.ngpus)
		return wrong(im, root, "ngpus is %d, and %u are there", im->m.ngpus, count(root, "gpu"));
	im->m.gpus = calloc((size_t)im->m.ngpus, sizeof *im->m.gpus);
	if (!im->m.gpus)
		return no_memory();
	for (const struct tt_xml *e = root->child; e; e = e->next)
		if (!strcmp(e->name, "gpu"))
			TRY(read_gpu(im, e));
	return connect_tbs(im);
}

static void drop(struct tt_malgo *m)
{
	for (int i = 0; m->gpus && i < m->ngpus; i++) {
		for (uint32_t t = 0; t < m->gpus[i].ntbs; t++) {
			free(m->gpus[i].tbs[t].steps);
			free(m->gpus[i].tbs[t].sent);
		}
		free(m->gpus[i].tbs);
	}
	free(m->gpus);
}

tuttiResult_t tt_sched_from_msccl(const char *text, size_t n, const char *what, struct tt_sched_file *file)
{
	struct import im = { .m.what = what };
	struct tt_xml *root;
	tuttiResult_t r;

	TRY(tt_xml_parse(text, n, what, &root));
	if (strcmp(root->name, "algo"))
		r = wrong(&im, root, "this is no MSCCL algorithm, which begins with <algo>");
	else
		r = read_algo(&im, root);
	tt_xml_free(root);
	if (r == tuttiSuccess && !im.m.nlanes)
		im.m.nlanes = 1;
	if (r == tuttiSuccess)
		r = tt_msccl_run(&im.m, file);
	drop(&im.m);
	return r;
}
