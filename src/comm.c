/* The life of a communicator: rendezvous, who is where, links on first use, the end.
 * SPDX-License-Identifier: Apache-2.0 */
#include "comm.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

_Atomic bool tt_forked;

static void after_fork(void)
{
	atomic_store(&tt_forked, true);
	tt_mem_after_fork();
}

static void watch_forks(void)
{
	pthread_atfork(NULL, NULL, after_fork);
}

bool tt_comm_valid(const struct tuttiComm *c)
{
	return c && c->magic == TT_COMM_MAGIC;
}

bool tt_comm_busy(struct tuttiComm *c)
{
	return atomic_load_explicit(&c->inside, memory_order_acquire) > 0 ||
	       atomic_load_explicit(&c->finished, memory_order_acquire) != c->issued;
}

/* ---- making ---- */

static double seconds_of(double value, const char *setting)
{
	return value >= 0 ? value : tt_env_seconds(setting);
}

static void configure(struct tuttiComm *c, const tuttiConfig_t *g, const struct tuttiComm *parent)
{
	tuttiConfig_t none = TUTTI_CONFIG_INITIALIZER;

	if (!g)
		g = &none;
	c->blocking = g->blocking != 0;
	c->device = g->device != TUTTI_UNDEF_INT ? g->device : parent ? parent->device : -1;
	c->bound = g->device != TUTTI_UNDEF_INT ? g->device : parent ? parent->bound : -1;
	if (g->commName)
		snprintf(c->name, sizeof(c->name), "%s", g->commName);
	c->init_deadline = seconds_of(g->initDeadline, "INIT_DEADLINE");
	c->spin_ns = 1000 * (uint64_t)tt_env_int("SPIN");
	c->deadline_ns = (uint64_t)(1e9 * seconds_of(g->deadline, "DEADLINE"));
	c->arrival_ns = (uint64_t)(1e9 * seconds_of(g->arrivalDeadline, "ARRIVAL_DEADLINE"));
	if (parent && g->deadline < 0)
		c->deadline_ns = parent->deadline_ns;
	if (parent && g->arrivalDeadline < 0)
		c->arrival_ns = parent->arrival_ns;
}

tuttiResult_t tt_comm_new(const tuttiConfig_t *config, const struct tuttiComm *parent,
			  struct tuttiComm **out)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	struct tuttiComm *c = calloc(1, sizeof(*c));
	tuttiResult_t r;

	if (!c)
		return tt_fail(tuttiSystemError, "no memory for a communicator");
	configure(c, config, parent);
	pthread_mutex_init(&c->lock, NULL);
	pthread_mutex_init(&c->queue_lock, NULL);
	c->magic = TT_COMM_MAGIC;
	c->dead_rank = -1;
	c->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (c->wake_fd < 0) {
		r = tt_fail(tuttiSystemError, "eventfd: %s; raise the limit of open files", strerror(errno));
		free(c);
		return r;
	}
	r = tt_net_get(&tt_comm_events);
	if (r != tuttiSuccess) {
		close(c->wake_fd);
		free(c);
		return r;
	}
	pthread_once(&once, watch_forks);
	tt_comm_find_device(c, parent);
	*out = c;
	return tuttiSuccess;
}

/* ---- the rendezvous ---- */

/* Roots of this process that no communicator has taken over yet. */
static struct open_root {
	struct open_root *next;
	uint64_t job;
} *open_roots;
static pthread_mutex_t roots_lock = PTHREAD_MUTEX_INITIALIZER;

static bool take_root(uint64_t job)
{
	struct open_root *found = NULL;

	pthread_mutex_lock(&roots_lock);
	for (struct open_root **p = &open_roots; *p; p = &(*p)->next)
		if ((*p)->job == job) {
			found = *p;
			*p = found->next;
			break;
		}
	pthread_mutex_unlock(&roots_lock);
	free(found);
	return found != NULL;
}

static void keep_root(struct open_root *root, uint64_t job)
{
	root->job = job;
	pthread_mutex_lock(&roots_lock);
	root->next = open_roots;
	open_roots = root;
	pthread_mutex_unlock(&roots_lock);
}

/* Holds the node until a communicator of this id has taken that over. */
tuttiResult_t tt_comm_root(struct tt_root_id *id, const char *addr, uint16_t port, bool at)
{
	struct open_root *root = malloc(sizeof(*root));
	tuttiResult_t r;

	if (!root)
		return tt_fail(tuttiSystemError, "no memory for a root");
	TRY_GOTO(r, tt_net_get(&tt_comm_events), free_root);
	TRY_GOTO(r, at ? tt_root_open_at(id, addr, port, true, tt_comm_decide) : tt_root_open(id, tt_comm_decide),
		 put_net);
	keep_root(root, id->job);
	return r;
put_net:
	tt_net_put();
free_root:
	free(root);
	return r;
}

static tuttiResult_t arrays(struct tuttiComm *c, int nranks)
{
	size_t n = (size_t)nranks;

	c->nranks = nranks;
	c->proc_of = calloc(n, sizeof(*c->proc_of));
	c->procs = calloc(1, sizeof(*c->procs));
	c->links = calloc(n, sizeof(*c->links));
	c->state = calloc(n, sizeof(*c->state));
	c->left_seq = calloc(n, sizeof(*c->left_seq));
	c->p2p_seq = calloc(2 * n, sizeof(*c->p2p_seq));
	c->received = calloc(n, sizeof(*c->received));
	c->devices = calloc(n, sizeof(*c->devices));
	if (!c->proc_of || !c->procs || !c->links || !c->state || !c->left_seq || !c->p2p_seq ||
	    !c->received || !c->devices)
		return tt_fail(tuttiSystemError, "no memory for a communicator of %d ranks", nranks);
	return tt_ep_new(tt_transport_find("inproc"), c->id, &c->inproc);
}

static tuttiResult_t add_proc(struct tuttiComm *c, int rank, const struct tt_proc *p)
{
	struct tt_proc *procs;

	for (int i = c->nprocs; i-- > 0;)
		if (c->procs[i].id == p->id) {
			c->proc_of[rank] = i;
			return tuttiSuccess;
		}
	procs = realloc(c->procs, (size_t)(c->nprocs + 1) * sizeof(*procs));
	if (!procs)
		return tt_fail(tuttiSystemError, "no memory for a communicator");
	c->procs = procs;
	c->procs[c->nprocs] = *p;
	c->proc_of[rank] = c->nprocs++;
	return tuttiSuccess;
}

/* Where ranks outnumber the cores, the one that is waited for may wait for the core. A rank that has a core of
 * its own, but sees only that one, still looks a few times. */
static void set_patience(struct tuttiComm *c)
{
	const struct tt_proc *mine = &c->procs[c->proc_of[c->rank]];
	int here = 0;

	for (int i = 0; i < c->nranks; i++)
		here += tt_same_host(&c->procs[c->proc_of[i]], mine);
	c->pauses = here > tt_usable_cores() ? 4 : TT_PATIENT;
}

/* Control connections at distances of powers of two: deaths reach everybody along them, each member has
 * O(log n). The lower end opens; the other waits for it, as it must not leave unseen. */
static tuttiResult_t meet_each(struct tuttiComm *c, uint64_t deadline_ns)
{
	int me = c->proc_of[c->rank], n = c->nprocs;

	for (int open = 1; open >= 0; open--)
		for (int d = 1; d < n; d *= 2) {
			int a = (me + d) % n, b = (me + n - d) % n;

			if ((a > me) == open)
				TRY(tt_node_neighbour(&c->procs[a], c->job, open, deadline_ns));
			if ((b > me) == open)
				TRY(tt_node_neighbour(&c->procs[b], c->job, open, deadline_ns));
		}
	return tuttiSuccess;
}

static tuttiResult_t meet_neighbours(struct tuttiComm *c, uint64_t deadline_ns)
{
	tuttiResult_t r;

	tt_node_until(&c->aborting);
	r = meet_each(c, deadline_ns);
	tt_node_until(NULL);
	return r;
}

static tuttiResult_t take_table(struct tuttiComm *c, const struct tt_table *t)
{
	for (int i = 0; i < t->n; i++) {
		if (t->sizes[i] != sizeof(struct tt_member))
			return tt_fail(tuttiRemoteError, "rank %d sent an entry of another version", i);
		TRY(add_proc(c, i, &((const struct tt_member *)t->entries[i])->proc));
		c->devices[i] = ((const struct tt_member *)t->entries[i])->device;
	}
	return tt_comm_take_plan(c, t->blob, t->blob_size);
}

/* Where a process has no transport that works, all its members' inits fail, each rank knowing it from the table: by
 * whose fault is told by the process itself, and not by who happens to speak first. */
static tuttiResult_t all_have_ways(const struct tuttiComm *c)
{
	int me = c->proc_of[c->rank], other = 0;
	char who[120], why[TT_TEXT / 2] = "";

	if (c->nprocs < 2)
		return tuttiSuccess;
	if (!c->procs[me].transports) {
		while (c->proc_of[other] == me)
			other++;
		(void)tt_net_reach(&c->procs[c->proc_of[other]], false, NULL, why, sizeof(why));
		return tt_fail(tuttiSystemError, "no transport between rank %d and %s: %s", c->rank,
			       tt_comm_who(c, other, who, sizeof(who)), why);
	}
	for (int i = 0; i < c->nranks; i++)
		if (!c->procs[c->proc_of[i]].transports)
			return tt_fail(tuttiRemoteError, "no transport between rank %d and %s: none works there, the "
				       "error of that rank says why", c->rank, tt_comm_who(c, i, who, sizeof(who)));
	return tuttiSuccess;
}

static tuttiResult_t hold_secret(struct tuttiComm *c, const uint8_t secret[32])
{
	memcpy(c->secret, secret, sizeof(c->secret));
	TRY(tt_node_secret_add(c->job, secret));
	c->has_secret = true;
	return tuttiSuccess;
}

tuttiResult_t tt_comm_join(struct tuttiComm *c, const struct tt_root_id *id, int nranks, int rank)
{
	uint64_t end = tt_now_ns() + (uint64_t)(1e9 * c->init_deadline);
	struct tt_member me;
	struct tt_table table = { 0 };
	tuttiResult_t r;

	c->job = id->job;
	c->id = tt_hash64("tutti", 5, id->job);
	c->root_owner = take_root(id->job);
	TRY(tt_customs_load(&c->customs));
	TRY(arrays(c, nranks));
	TRY(tt_comm_introduce(&me, nranks, &c->home.self));
	me.schedules = c->customs ? c->customs->digest : 0;
	TRY(hold_secret(c, id->secret));
	TRY(tt_root_join(id, rank, nranks, &me, sizeof(me), end, &c->aborting, &table));
	r = take_table(c, &table);
	tt_table_free(&table);
	TRY(r);
	TRY(tt_meet_open(c));
	TRY(all_have_ways(c));
	set_patience(c);
	tt_comm_enlist(c);
	TRY(meet_neighbours(c, end));
	TRY(tt_comm_calibrate(c));
	TRY(tt_comm_open_peers(c));
	if (c->rank == 0)
		tt_comm_say(c);
	return tuttiSuccess;
}

/* A part keeps what was measured of the whole. */
static tuttiResult_t keep_calibration(struct tuttiComm *c, const struct tuttiComm *parent)
{
	if (!parent->cal)
		return tuttiSuccess;
	c->cal = malloc(sizeof(*c->cal));
	if (!c->cal)
		return tt_fail(tuttiSystemError, "no memory for a communicator");
	*c->cal = *parent->cal;
	return tuttiSuccess;
}

/* A part of another communicator: nothing new to learn but the plan, which the caller brings. */
tuttiResult_t tt_comm_adopt(struct tuttiComm *c, const struct tuttiComm *parent, uint64_t id,
			    const int *members, int n, int rank)
{
	c->rank = rank;
	c->job = parent->job;
	c->id = id;
	TRY(hold_secret(c, parent->secret));
	c->customs = tt_customs_share(parent->customs);
	TRY(arrays(c, n));
	c->plan.cores = parent->plan.cores;
	TRY(keep_calibration(c, parent));
	TRY(tt_shape_part(&parent->shape, parent->nranks, members, n, &c->shape));
	for (int i = 0; i < n; i++) {
		TRY(add_proc(c, i, &parent->procs[parent->proc_of[members[i]]]));
		c->devices[i] = parent->devices[members[i]];
	}
	TRY(tt_meet_open(c));
	set_patience(c);
	tt_comm_enlist(c);
	return meet_neighbours(c, tt_now_ns() + (uint64_t)(1e9 * c->init_deadline));
}

/* ---- links ---- */

/* The first that reaches, behind `after` if that is there. Both ends come to the same choice: it rests on the one
 * control connection between them, and a transport that finds no way tells both. `tried`: what was said of it. */
static tuttiResult_t choose(struct tuttiComm *c, int peer, const struct tt_ep *after, const char *tried,
			    struct tt_ep **ep)
{
	const struct tt_proc *p = &c->procs[c->proc_of[peer]];
	char why[TT_TEXT / 2] = "";
	bool local;

	*ep = c->inproc;
	if (p->id == tt_node_self()->id)
		return tuttiSuccess;
	TRY(tt_node_meet(p, c->job, tt_now_ns() + (uint64_t)(1e9 * c->init_deadline), &local));
	*ep = tt_net_reach(p, local, after, why, sizeof(why));
	if (!*ep)
		return tt_fail(tuttiSystemError, "no transport between rank %d and rank %d (%s, pid %u): %s%s%s",
			       c->rank, peer, p->host, p->pid, tried, *tried && *why ? "; " : "", why);
	return tuttiSuccess;
}

/* One line for each peer. */
static void say_fall(const struct tuttiComm *c, const struct tt_link *l, const char *tried)
{
	char who[120];

	for (int k = 0; k < TT_LANES; k++)
		if (c->links[l->peer][k] && c->links[l->peer][k] != l && c->links[l->peer][k]->fell)
			return;
	tt_log(TT_LOG_WARN, "comm", "rank %d and %s go by %s instead: %s", c->rank,
	       tt_comm_who(c, l->peer, who, sizeof(who)), l->ep->t->name, tried);
}

/* On the first transport that takes it, behind the one that it fell from. */
static tuttiResult_t open_link(struct tuttiComm *c, struct tt_link *l, char *tried, size_t n)
{
	struct tt_ep *ep = NULL;
	tuttiResult_t r;

	tt_node_until(&c->aborting);
	do {
		r = choose(c, l->peer, l->fell, tried, &ep);
		if (r != tuttiSuccess)
			break;
		r = tt_link_open(l, ep);
		if (r == tuttiUnsupported) {
			snprintf(tried, n, "%s: %s", ep->t->name, tt_last_error());
			l->fell = ep;
		}
	} while (r == tuttiUnsupported);
	tt_node_until(NULL);
	if (r == tuttiSuccess && l->fell)
		say_fall(c, l, tried);
	return r;
}

tuttiResult_t tt_comm_link(void *comm, int peer, uint32_t lane, struct tt_link **out)
{
	struct tuttiComm *c = comm;
	uint64_t key[4] = { c->id, (uint64_t)(peer < c->rank ? peer : c->rank),
			    (uint64_t)(peer < c->rank ? c->rank : peer), lane };
	char tried[TT_TEXT / 2] = "";
	struct tt_link *l;
	tuttiResult_t r;

	if (lane >= TT_LANES)
		return tt_fail(tuttiInternalError, "lane %u is beyond %d", lane, TT_LANES);
	if (!c->links[peer] && !(c->links[peer] = calloc(TT_LANES, sizeof(**c->links))))
		return tt_fail(tuttiSystemError, "no memory for links");
	if (!c->links[peer][lane]) {
		l = calloc(1, sizeof(*l));
		if (!l)
			return tt_fail(tuttiSystemError, "no memory for a link to rank %d", peer);
		l->peer = peer;
		l->proc = c->procs[c->proc_of[peer]].id;
		l->key = tt_hash64(key, sizeof(key), 1);
		r = open_link(c, l, tried, sizeof(tried));
		if (r != tuttiSuccess) {
			free(l);
			return r;
		}
		c->links[peer][lane] = l;
	}
	*out = c->links[peer][lane];
	return tuttiSuccess;
}

tuttiResult_t tt_comm_reopen(struct tuttiComm *c, struct tt_link *l)
{
	char tried[TT_TEXT / 2];
	const char *why = "";

	(void)l->ep->t->link_error(l->priv, &why);
	snprintf(tried, sizeof(tried), "%s: %s", l->ep->t->name, why);
	tt_link_close(l);
	l->fell = l->ep;
	TRY(open_link(c, l, tried, sizeof(tried)));
	for (struct tt_prog_entry *e = c->progs; e; e = e->next)
		tt_prog_rebind(e->prog, l);
	return tuttiSuccess;
}

void tt_comm_close_links(struct tuttiComm *c)
{
	for (int i = 0; c->links && i < c->nranks; i++)
		for (int l = 0; c->links[i] && l < TT_LANES; l++)
			tt_link_close(c->links[i][l]);
}

/* ---- the end ---- */

static void free_progs(struct tuttiComm *c)
{
	while (c->progs) {
		struct tt_prog_entry *e = c->progs;

		c->progs = e->next;
		tt_prog_free(e->prog);
		free(e);
	}
}

static void free_links(struct tuttiComm *c)
{
	tt_comm_close_links(c);
	for (int i = 0; c->links && i < c->nranks; i++) {
		for (int l = 0; c->links[i] && l < TT_LANES; l++)
			free(c->links[i][l]);
		free(c->links[i]);
	}
	free(c->links);
}

void tt_comm_free(struct tuttiComm *c)
{
	if (!c)
		return;
	if (c->procs && c->nranks > 1)
		tt_comm_bury(c);
	tt_comm_delist(c);
	while (tt_comm_busy(c))
		usleep(50); /* the watcher is telling it something */
	tt_meet_close(c);
	tt_queue_free(c);
	free_progs(c);
	free_links(c);
	tt_customs_drop(c->customs);
	free(c->cal);
	tt_ep_free(c->inproc);
	if (c->has_secret)
		tt_node_secret_drop(c->job);
	if (c->root_owner)
		tt_net_put();
	tt_net_put();
	close(c->wake_fd);
	pthread_mutex_destroy(&c->lock);
	pthread_mutex_destroy(&c->queue_lock);
	tt_shape_free(&c->shape);
	free(c->procs);
	free(c->proc_of);
	free((void *)c->state);
	free((void *)c->left_seq);
	free(c->p2p_seq);
	free((void *)c->received);
	free(c->devices);
	tt_mem_range_drop_all(c);
	tt_mem_range_forget(c->tmp, c->tmp_size);
	tt_block_free(c->tmp, c->tmp_size);
	tt_mem_range_forget(c->scratch, c->scratch_size);
	tt_block_free(c->scratch, c->scratch_size);
	c->magic = 0;
	free(c);
}
