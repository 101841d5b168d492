/* The endpoints of this process: which transports are on, their locks, sleeping on them.
 * SPDX-License-Identifier: Apache-2.0 */
#include "net.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define MAX_EPS 8
#define DIAL_NS 15000000000ull /* a machine that is busy is slower than a network */

static struct {
	pthread_mutex_t lock; /* starting and stopping only */
	int users;
	struct tt_ep *eps[MAX_EPS];
	char why[MAX_EPS][TT_TEXT / 2];
	struct tt_node_events events; /* the owner's */
} net = { .lock = PTHREAD_MUTEX_INITIALIZER };

bool tt_net_enabled(const char *name)
{
	const char *list = tt_env_str("TRANSPORTS");
	size_t n = strlen(name);

	if (!*list || !strcmp(list, "all"))
		return true;
	for (const char *p = list; *p; p += strcspn(p, ","), p += *p == ',')
		if (strcspn(p, ",") == n && !memcmp(p, name, n))
			return true;
	return false;
}

static tuttiResult_t dial(void *ctx, uint64_t peer, const char *transport, int index, int *fd)
{
	return tt_node_dial(peer, transport, index, tt_now_ns() + DIAL_NS, fd);
}

tuttiResult_t tt_ep_new(const struct tt_transport *t, uint64_t group, struct tt_ep **out)
{
	struct tt_ep_config config = { .self = tt_node_self()->id, .group = group, .dial = dial };
	struct tt_ep *ep = calloc(1, sizeof(*ep));
	char why[TT_TEXT / 2] = "";
	tuttiResult_t r;

	if (!ep || !(ep->priv = calloc(1, t->ep_size))) {
		free(ep);
		return tt_fail(tuttiSystemError, "no memory for a %s endpoint", t->name);
	}
	ep->t = t;
	if (!t->probe(&ep->caps, why, sizeof(why))) {
		r = tt_note_error(tuttiUnsupported, "%s", why);
		goto free_priv;
	}
	TRY_GOTO(r, t->ep_open(ep->priv, &config), free_priv);
	*out = ep;
	return tuttiSuccess;
free_priv:
	free(ep->priv);
	free(ep);
	return r;
}

void tt_ep_free(struct tt_ep *ep)
{
	if (!ep)
		return;
	ep->t->ep_close(ep->priv);
	free(ep->priv);
	free(ep);
}

static void accepted(void *ctx, uint64_t proc, const char *transport, int index, int fd)
{
	for (int i = 0; i < tt_ntransports; i++) {
		struct tt_ep *ep = net.eps[i];

		if (ep && !strcmp(ep->t->name, transport) && ep->t->accept) {
			ep->t->accept(ep->priv, proc, index, fd);
			return;
		}
	}
	close(fd);
}

/* Which transport carries what another would have. */
static const char *behind(int i)
{
	while (++i < tt_ntransports && i < MAX_EPS)
		if (net.eps[i])
			return tt_transports[i]->name;
	return "no other";
}

static void say_off(int i)
{
	const struct tt_transport *t = tt_transports[i];
	bool missed = tt_net_enabled(t->name) && (!t->present || t->present());

	if (t->ep_per_rank || net.eps[i])
		return;
	if (missed)
		tt_log(TT_LOG_WARN, "net", "%s is off, %s takes its place: %s", t->name, behind(i), net.why[i]);
	else
		tt_log(TT_LOG_INFO, "net", "%s is off: %s", t->name, net.why[i]);
}

/* ---- registered memory ---- */

void *tt_ep_reg(struct tt_ep *ep, void *p, size_t n, unsigned how)
{
	void *handle = NULL;

	tt_ep_lock(ep);
	if (ep->t->reg(ep->priv, p, n, how, &handle) != tuttiSuccess)
		handle = NULL;
	tt_ep_unlock(ep);
	return handle;
}

void tt_ep_dereg(struct tt_ep *ep, void *handle)
{
	tt_ep_lock(ep);
	ep->t->dereg(ep->priv, handle);
	tt_ep_unlock(ep);
}

static struct tt_ep *ep_of(struct tt_mem_watcher *w)
{
	return (struct tt_ep *)((char *)w - offsetof(struct tt_ep, watcher));
}

static void *range_added(struct tt_mem_watcher *w, void *p, size_t n, bool sole)
{
	return tt_ep_reg(ep_of(w), p, n, sole ? TT_REG_SOLE : 0);
}

static void range_dropped(struct tt_mem_watcher *w, void *handle)
{
	tt_ep_dereg(ep_of(w), handle);
}

static void watch_memory(struct tt_ep *ep)
{
	ep->watcher = (struct tt_mem_watcher){ .add = range_added, .drop = range_dropped };
	(void)tt_mem_watch(&ep->watcher);
}

/* ---- starting and stopping ---- */

static void open_all(void)
{
	uint32_t open = 0;

	for (int i = 0; i < tt_ntransports && i < MAX_EPS; i++) {
		const struct tt_transport *t = tt_transports[i];

		if (t->ep_per_rank || net.eps[i])
			continue;
		if (!tt_net_enabled(t->name))
			strcpy(net.why[i], "not in TUTTI_TRANSPORTS");
		else if (tt_ep_new(t, 0, &net.eps[i]) != tuttiSuccess)
			strncpy(net.why[i], tt_last_error(), sizeof(net.why[i]) - 1);
		if (net.eps[i] && t->reg)
			watch_memory(net.eps[i]);
		open |= (uint32_t)(net.eps[i] != NULL) << i;
	}
	for (int i = 0; i < tt_ntransports && i < MAX_EPS; i++)
		say_off(i);
	tt_node_offer(open);
}

tuttiResult_t tt_net_get(const struct tt_node_events *events)
{
	struct tt_node_events all = *events;
	tuttiResult_t r = tuttiSuccess;

	all.accept = accepted;
	pthread_mutex_lock(&net.lock);
	if (!net.users) {
		tt_env_check();
		r = tt_node_get(&all);
		if (r == tuttiSuccess)
			open_all();
	}
	if (r == tuttiSuccess)
		net.users++;
	pthread_mutex_unlock(&net.lock);
	return r;
}

void tt_net_put(void)
{
	pthread_mutex_lock(&net.lock);
	if (!--net.users) {
		for (int i = 0; i < MAX_EPS; i++) {
			struct tt_ep *ep = net.eps[i];

			if (!ep)
				continue;
			tt_mem_unwatch(&ep->watcher);
			tt_far_forget(ep);
			ep->t->ep_close(ep->priv); /* sends what is unsent while peers listen */
		}
		tt_node_linger(500000000ull);
		tt_node_put(); /* ends the watcher: nobody calls accept from here on */
		for (int i = 0; i < MAX_EPS; i++) {
			if (net.eps[i])
				free(net.eps[i]->priv);
			free(net.eps[i]);
			net.eps[i] = NULL;
		}
	}
	pthread_mutex_unlock(&net.lock);
}

/* The first of the registry that reaches; the others' reasons go into `why`. */
struct tt_ep *tt_net_reach(const struct tt_proc *peer, bool local, const struct tt_ep *after, char *why, size_t n)
{
	bool behind = !after;
	size_t at = 0;

	for (int i = 0; i < tt_ntransports && i < MAX_EPS; i++) {
		struct tt_ep *ep = net.eps[i];
		bool there = peer->transports >> i & 1, passed = behind;

		behind |= ep && ep == after;
		if (!passed || tt_transports[i]->ep_per_rank)
			continue;
		if (ep && there && (local || ep->caps.across_hosts))
			return ep;
		at += (size_t)snprintf(why + tt_min(at, n), n - tt_min(at, n), "%s%s: %s", at ? "; " : "",
				       tt_transports[i]->name,
				       !ep ? net.why[i] : !there ? "does not work in the other process" :
				       "not the same host, or unix sockets do not reach");
	}
	return NULL;
}

void tt_ep_lock(struct tt_ep *ep)
{
	while (!tt_ep_trylock(ep))
		sched_yield();
}

tuttiResult_t tt_link_open(struct tt_link *l, struct tt_ep *ep)
{
	tuttiResult_t r;

	l->ep = ep;
	l->priv = calloc(1, ep->t->link_size);
	if (!l->priv)
		return tt_fail(tuttiSystemError, "no memory for a link to rank %d", l->peer);
	tt_ep_lock(ep);
	r = ep->t->link_open(ep->priv, l->priv, l->proc, l->key);
	tt_ep_unlock(ep);
	if (r == tuttiSuccess)
		return r;
	free(l->priv);
	l->priv = NULL;
	return r;
}

void tt_link_close(struct tt_link *l)
{
	if (!l || !l->priv)
		return;
	tt_ep_lock(l->ep);
	l->ep->t->link_close(l->priv);
	tt_ep_unlock(l->ep);
	free(l->priv);
	l->priv = NULL;
}

/* Arms all; if one has something already, undoes and says so. */
static int arm(struct tt_ep *const *eps, int n)
{
	int i;

	for (i = 0; i < n; i++) {
		bool ok;

		tt_ep_lock(eps[i]);
		atomic_fetch_add_explicit(&eps[i]->sleepers, 1, memory_order_acq_rel);
		ok = eps[i]->t->arm(eps[i]->priv);
		tt_ep_unlock(eps[i]);
		if (!ok)
			return i + 1;
	}
	return -n;
}

bool tt_net_sleep(struct tt_ep *const *eps, int n, int wake_fd, int timeout_ms)
{
	struct pollfd fds[MAX_EPS + 1];
	int armed = arm(eps, n), got = 1;
	uint64_t sink;

	if (armed <= 0) {
		for (int i = 0; i < n; i++)
			fds[i] = (struct pollfd){ .fd = eps[i]->t->wait_fd(eps[i]->priv), .events = POLLIN };
		fds[n] = (struct pollfd){ .fd = wake_fd, .events = POLLIN };
		got = poll(fds, (nfds_t)n + 1, timeout_ms);
		if (got > 0 && fds[n].revents && read(wake_fd, &sink, sizeof(sink)) < 0)
			got = 1; /* another sleeper took it: as good as awake */
	}
	for (int i = 0, m = armed < 0 ? -armed : armed; i < m; i++) {
		tt_ep_lock(eps[i]);
		if (atomic_fetch_sub_explicit(&eps[i]->sleepers, 1, memory_order_acq_rel) == 1)
			eps[i]->t->disarm(eps[i]->priv);
		tt_ep_unlock(eps[i]);
	}
	return got > 0;
}
