/* Captures and graphs of the fake driver. What is enqueued on a captured stream becomes a node, behind those that the
 * stream had; events carry such sets from stream to stream, which is how others join. A replay runs one node after the
 * other, in an order that chance picks among those that edges allow. Errors are those of cuda.h; calls that drivers
 * find unsafe during a capture (UNSAFE in fake_libcuda.h) end it. Graphs in graphs are missing.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "fake_stream.h"

enum { GLOBAL, THREAD_LOCAL, RELAXED };
enum {
	ILLEGAL = 401, NOT_SUPPORTED = 801, BROKEN = 901, MERGE = 902, UNMATCHED = 903, UNJOINED = 904, IMPLICIT = 906,
	OLD_EVENT = 907, WRONG_THREAD = 908,
};

struct node {
	struct op op;
	struct nodes after;
};

struct graph {
	struct node *nodes;
	int n, room;
};

struct capture {
	struct capture *next;
	uint64_t id;
	int mode;
	bool broken;
	struct queue *origin;
	pthread_t owner;
	struct graph *graph;
};

struct moment {
	uint64_t capture;
	struct nodes last;
};

struct exec {
	pthread_mutex_t lock; /* one run at a time */
	_Atomic int users;
	struct graph graph;
	uint64_t random;
};

static struct {
	pthread_mutex_t lock;
	struct capture *first;
	uint64_t ids;
} all = { .lock = PTHREAD_MUTEX_INITIALIZER };

static _Thread_local int mode_here;

int cuThreadExchangeStreamCaptureMode(int *mode)
{
	int was = mode_here;

	READY();
	mode_here = *mode;
	*mode = was;
	return 0;
}

bool is_unsafe(void)
{
	bool any = false;

	pthread_mutex_lock(&all.lock);
	for (struct capture *c = all.first; c; c = c->next) {
		bool mine = pthread_equal(c->owner, pthread_self());

		if (c->mode == RELAXED || mode_here == RELAXED || !(mine || (mode_here == GLOBAL && c->mode == GLOBAL)))
			continue;
		c->broken = any = true;
	}
	pthread_mutex_unlock(&all.lock);
	return any;
}

/* ---- sets of nodes, graphs ---- */

static void *grown(void *p, int n, size_t size)
{
	p = realloc(p, (size_t)n * size);
	if (!p)
		wrong("no memory");
	return p;
}

static void add(struct nodes *s, int node)
{
	for (int i = 0; i < s->n; i++)
		if (s->at[i] == node)
			return;
	s->at = grown(s->at, s->n + 1, sizeof(*s->at));
	s->at[s->n++] = node;
}

static void add_all(struct nodes *to, const struct nodes *from)
{
	for (int i = 0; i < from->n; i++)
		add(to, from->at[i]);
}

static void empty(struct nodes *s)
{
	free(s->at);
	*s = (struct nodes){ 0 };
}

static struct op own_op(const struct op *what)
{
	struct op o = *what;

	if (o.own)
		o.arg = copy_of(o.arg, o.own);
	return o;
}

static int add_node(struct graph *g, const struct op *what, const struct nodes *after)
{
	if (g->n == g->room) {
		g->room = 2 * g->room + 16;
		g->nodes = grown(g->nodes, g->room, sizeof(*g->nodes));
	}
	g->nodes[g->n] = (struct node){ .op = own_op(what) };
	add_all(&g->nodes[g->n].after, after);
	return g->n++;
}

static void clear(struct graph *g)
{
	for (int i = 0; i < g->n; i++) {
		empty(&g->nodes[i].after);
		if (g->nodes[i].op.own)
			free(g->nodes[i].op.arg);
	}
	free(g->nodes);
}

/* ---- captured streams ---- */

struct search {
	struct queue *legacy;
	bool breaks, found;
};

static void look_at(struct queue *q, void *arg)
{
	struct search *s = arg;

	if (!q->capture || !q->blocking || q->ctx != s->legacy->ctx)
		return;
	q->capture->broken |= s->breaks;
	s->found = true;
}

/* Under the lock: the legacy stream is behind all blocking ones, so it cannot be used while they are captured. */
static bool is_implicit(struct queue *q, bool breaks)
{
	struct search s = { q, breaks, false };

	if (is_legacy(q))
		each_queue(look_at, &s);
	return s.found;
}

static int add_op(struct queue *q, const struct op *what)
{
	struct op o = *what;
	int node;

	if (q->capture->broken)
		return BROKEN;
	o.device = q->ctx->device;
	node = add_node(q->capture->graph, &o, &q->last);
	empty(&q->last);
	add(&q->last, node);
	return 0;
}

bool capture_op(struct queue *q, const struct op *what, int *e)
{
	bool captured;

	pthread_mutex_lock(&all.lock);
	*e = is_implicit(q, true) ? IMPLICIT : q->capture ? add_op(q, what) : 0;
	captured = *e || q->capture;
	pthread_mutex_unlock(&all.lock);
	return captured;
}

bool break_capture(void *stream)
{
	struct queue *q = queue_of(stream);
	bool captured;

	pthread_mutex_lock(&all.lock);
	captured = q && q->capture;
	if (captured)
		q->capture->broken = true;
	pthread_mutex_unlock(&all.lock);
	return captured;
}

static int info(void *stream, int *status, uint64_t *id)
{
	struct queue *q = queue_of(stream);
	int e;

	READY();
	if (!q)
		return BAD_HANDLE;
	pthread_mutex_lock(&all.lock);
	e = is_implicit(q, false) ? IMPLICIT : 0;
	*status = !q->capture ? 0 : q->capture->broken ? 2 : 1;
	if (*status == 1 && id)
		*id = q->capture->id;
	pthread_mutex_unlock(&all.lock);
	return e;
}

int cuStreamIsCapturing(void *stream, int *status)
{
	return info(stream, status, NULL);
}

int cuStreamGetCaptureInfo(void *stream, int *status, uint64_t *id)
{
	return info(stream, status, id);
}

/* ---- events ---- */

struct moment *moment_of(void *stream, int *e)
{
	struct queue *q = queue_of(stream);
	struct moment *m = NULL;

	pthread_mutex_lock(&all.lock);
	*e = q && q->capture && q->capture->broken ? BROKEN : 0;
	if (q && q->capture && !*e) {
		m = copy_of(&(struct moment){ .capture = q->capture->id }, sizeof(*m));
		add_all(&m->last, &q->last);
	}
	pthread_mutex_unlock(&all.lock);
	return m;
}

struct moment *moment_copy(const struct moment *m)
{
	struct moment *c = m ? copy_of(&(struct moment){ .capture = m->capture }, sizeof(*c)) : NULL;

	if (m)
		add_all(&c->last, &m->last);
	return c;
}

void moment_free(struct moment *m)
{
	if (m)
		empty(&m->last);
	free(m);
}

/* Under the lock. */
static int join(struct queue *q, const struct moment *m)
{
	struct capture *c;

	for (c = all.first; c && c->id != m->capture; c = c->next)
		;
	if (!c)
		return OLD_EVENT;
	if (c->broken)
		return BROKEN;
	if (is_legacy(q)) {
		c->broken = true;
		return IMPLICIT;
	}
	if (q->capture && q->capture != c) {
		c->broken = q->capture->broken = true;
		return MERGE;
	}
	q->capture = c;
	add_all(&q->last, &m->last);
	return 0;
}

int wait_for_moment(void *stream, const struct moment *m)
{
	struct queue *q = queue_of(stream);
	int e;

	if (!q)
		return BAD_HANDLE;
	pthread_mutex_lock(&all.lock);
	e = join(q, m);
	pthread_mutex_unlock(&all.lock);
	return e;
}

/* ---- begin and end ---- */

int cuStreamBeginCapture_v2(struct queue *stream, int mode)
{
	struct queue *q = queue_of(stream);
	struct capture *c;

	READY();
	if (!q || mode < GLOBAL || mode > RELAXED)
		return q ? BAD_VALUE : BAD_HANDLE;
	if (is_legacy(q))
		return NOT_IN_CAPTURE;
	pthread_mutex_lock(&all.lock);
	if (q->capture) {
		pthread_mutex_unlock(&all.lock);
		return ILLEGAL;
	}
	c = copy_of(&(struct capture){ .id = ++all.ids, .mode = mode, .origin = q, .owner = pthread_self() },
		    sizeof(*c));
	c->graph = copy_of(&(struct graph){ 0 }, sizeof(*c->graph));
	c->next = all.first;
	all.first = q->capture = c;
	pthread_mutex_unlock(&all.lock);
	return 0;
}

static void mark(const struct graph *g, const struct nodes *from, bool *seen)
{
	for (int i = 0; i < from->n; i++)
		if (!seen[from->at[i]]) {
			seen[from->at[i]] = true;
			mark(g, &g->nodes[from->at[i]].after, seen);
		}
}

/* The stream where it began is behind all of it. */
static bool is_joined(const struct capture *c)
{
	bool *seen = grown(NULL, c->graph->n + 1, sizeof(*seen)), joined = true;

	memset(seen, 0, (size_t)c->graph->n + 1);
	mark(c->graph, &c->origin->last, seen);
	for (int i = 0; i < c->graph->n; i++)
		joined &= seen[i];
	free(seen);
	return joined;
}

static void leave(struct queue *q, void *arg)
{
	if (q->capture != arg)
		return;
	q->capture = NULL;
	empty(&q->last);
}

/* Under the lock. */
static int end(struct queue *q, struct graph **graph)
{
	struct capture *c = q->capture, **at;
	int e = 0;

	if (!c)
		return ILLEGAL;
	if (c->origin != q)
		return UNMATCHED;
	if (c->mode != RELAXED && !pthread_equal(c->owner, pthread_self()))
		return WRONG_THREAD;
	e = c->broken ? BROKEN : is_joined(c) ? 0 : UNJOINED;
	*graph = e ? NULL : c->graph;
	if (e) {
		clear(c->graph);
		free(c->graph);
	}
	each_queue(leave, c);
	for (at = &all.first; *at != c; at = &(*at)->next)
		;
	*at = c->next;
	free(c);
	return e;
}

int cuStreamEndCapture(struct queue *stream, struct graph **graph)
{
	struct queue *q = queue_of(stream);
	int e;

	READY();
	if (!q)
		return BAD_HANDLE;
	pthread_mutex_lock(&all.lock);
	e = end(q, graph);
	pthread_mutex_unlock(&all.lock);
	return e;
}

/* ---- graphs ---- */

int cuGraphGetNodes(struct graph *g, void **nodes, size_t *n)
{
	READY();
	if (nodes)
		return NOT_SUPPORTED;
	*n = (size_t)g->n;
	return 0;
}

int cuGraphDestroy(struct graph *g)
{
	READY();
	clear(g);
	free(g);
	return 0;
}

int cuGraphInstantiateWithFlags(struct exec **out, const struct graph *g, uint64_t flags)
{
	struct exec *x;

	IN_CONTEXT();
	UNSAFE();
	x = copy_of(&(struct exec){ .users = 1, .random = (uint64_t)setting("TEST_SEED", 1) }, sizeof(*x));
	pthread_mutex_init(&x->lock, NULL);
	for (int i = 0; i < g->n; i++)
		add_node(&x->graph, &g->nodes[i].op, &g->nodes[i].after);
	*out = x;
	return 0;
}

static void drop(struct exec *x)
{
	if (atomic_fetch_sub(&x->users, 1) > 1)
		return;
	clear(&x->graph);
	pthread_mutex_destroy(&x->lock);
	free(x);
}

/* What runs goes on. */
int cuGraphExecDestroy(struct exec *x)
{
	READY();
	drop(x);
	return 0;
}

static bool is_ready(const struct node *n, const bool *done)
{
	for (int i = 0; i < n->after.n; i++)
		if (!done[n->after.at[i]])
			return false;
	return true;
}

static int pick(struct exec *x, const bool *done)
{
	int ready = 0, chosen = -1;

	for (int i = 0; i < x->graph.n; i++) {
		if (done[i] || !is_ready(&x->graph.nodes[i], done))
			continue;
		x->random = x->random * 6364136223846793005u + 1442695040888963407u;
		if ((x->random >> 33) % (uint64_t)++ready == 0)
			chosen = i;
	}
	return chosen;
}

static void replay(void *arg)
{
	struct exec *x = arg;
	bool *done = grown(NULL, x->graph.n + 1, sizeof(*done));

	memset(done, 0, (size_t)x->graph.n + 1);
	pthread_mutex_lock(&x->lock);
	for (int k = 0; k < x->graph.n; k++) {
		int i = pick(x, done);
		struct op o = own_op(&x->graph.nodes[i].op);

		run(&o);
		if (o.own)
			free(o.arg);
		done[i] = true;
	}
	pthread_mutex_unlock(&x->lock);
	free(done);
	drop(x);
}

int cuGraphLaunch(struct exec *x, void *stream)
{
	int e, status;

	IN_CONTEXT();
	e = info(stream, &status, NULL);
	if (e || status)
		return e ? e : NOT_SUPPORTED;
	atomic_fetch_add(&x->users, 1);
	e = enqueue(stream, replay, x, 0);
	if (e)
		drop(x);
	return e;
}
