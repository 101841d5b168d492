/* Ranges of memory that stay where they are, and those who watch them. SPDX-License-Identifier: Apache-2.0
 *
 * The lock is held while watchers are told, and they take the lock of their endpoint: nobody who has that may come
 * here. */
#include "mem.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct tt_mem_range {
	struct tt_mem_range *next;
	const void *owner;
	char *p;
	size_t n; /* 0: its memory is freed */
	bool sole;
	void *handle[TT_MEM_WATCHERS];
};

static struct {
	pthread_mutex_t lock;
	struct tt_mem_range *first;
	struct tt_mem_watcher *watcher[TT_MEM_WATCHERS];
} all = { .lock = PTHREAD_MUTEX_INITIALIZER };

static void tell_drop(struct tt_mem_range *r, int i)
{
	if (r->handle[i])
		all.watcher[i]->drop(all.watcher[i], r->handle[i]);
	r->handle[i] = NULL;
}

static void end(struct tt_mem_range *r)
{
	for (int i = 0; i < TT_MEM_WATCHERS; i++)
		tell_drop(r, i);
	r->n = 0;
}

tuttiResult_t tt_mem_range_add(const void *owner, void *p, size_t n, bool sole, void **range)
{
	struct tt_mem_range *r = calloc(1, sizeof(*r));

	if (!r)
		return tt_fail(tuttiSystemError, "no memory to register %zu bytes", n);
	r->owner = owner;
	r->p = p;
	r->n = n;
	r->sole = sole;
	pthread_mutex_lock(&all.lock);
	for (int i = 0; i < TT_MEM_WATCHERS; i++)
		if (all.watcher[i])
			r->handle[i] = all.watcher[i]->add(all.watcher[i], p, n, sole);
	r->next = all.first;
	all.first = r;
	pthread_mutex_unlock(&all.lock);
	if (range)
		*range = r;
	return tuttiSuccess;
}

static void take_out(struct tt_mem_range **at)
{
	struct tt_mem_range *r = *at;

	*at = r->next;
	end(r);
	free(r);
}

bool tt_mem_range_drop(const void *owner, void *range)
{
	struct tt_mem_range **at;
	bool found;

	pthread_mutex_lock(&all.lock);
	for (at = &all.first; *at && (*at != range || (*at)->owner != owner); at = &(*at)->next)
		;
	found = *at;
	if (found)
		take_out(at);
	pthread_mutex_unlock(&all.lock);
	return found;
}

void tt_mem_range_drop_all(const void *owner)
{
	pthread_mutex_lock(&all.lock);
	for (struct tt_mem_range **at = &all.first; *at;)
		if ((*at)->owner == owner)
			take_out(at);
		else
			at = &(*at)->next;
	pthread_mutex_unlock(&all.lock);
}

void tt_mem_range_forget(const void *p, size_t n)
{
	const char *from = p;

	pthread_mutex_lock(&all.lock);
	for (struct tt_mem_range **at = &all.first; *at;) {
		struct tt_mem_range *r = *at;
		bool touches = r->n && r->p < from + n && from < r->p + r->n;

		if (touches && !r->owner) {
			take_out(at);
			continue;
		}
		if (touches)
			end(r);
		at = &r->next;
	}
	pthread_mutex_unlock(&all.lock);
}

bool tt_mem_watch(struct tt_mem_watcher *w)
{
	int i = 0;

	pthread_mutex_lock(&all.lock);
	while (i < TT_MEM_WATCHERS && all.watcher[i])
		i++;
	if (i < TT_MEM_WATCHERS) {
		all.watcher[i] = w;
		for (struct tt_mem_range *r = all.first; r; r = r->next)
			if (r->n)
				r->handle[i] = w->add(w, r->p, r->n, r->sole);
	}
	pthread_mutex_unlock(&all.lock);
	return i < TT_MEM_WATCHERS;
}

void tt_mem_unwatch(struct tt_mem_watcher *w)
{
	pthread_mutex_lock(&all.lock);
	for (int i = 0; w && i < TT_MEM_WATCHERS; i++) {
		if (all.watcher[i] != w)
			continue;
		for (struct tt_mem_range *r = all.first; r; r = r->next)
			tell_drop(r, i);
		all.watcher[i] = NULL;
	}
	pthread_mutex_unlock(&all.lock);
}

void tt_mem_after_fork(void)
{
	pthread_mutex_init(&all.lock, NULL);
	memset(all.watcher, 0, sizeof(all.watcher));
	for (struct tt_mem_range *r = all.first; r; r = r->next)
		memset(r->handle, 0, sizeof(r->handle));
}
