/* Kinds of memory, and the memory that tutti hands out. SPDX-License-Identifier: Apache-2.0 */
#include "cuda_mem.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define MAX_KINDS 4

static const struct tt_mem_kind *kinds[MAX_KINDS];
static _Atomic int nkinds;
static pthread_mutex_t adding = PTHREAD_MUTEX_INITIALIZER;

static bool is_added(const struct tt_mem_kind *kind, int n)
{
	for (int i = 0; i < n; i++)
		if (kinds[i] == kind)
			return true;
	return false;
}

void tt_mem_add(const struct tt_mem_kind *kind)
{
	int n;

	pthread_mutex_lock(&adding);
	n = atomic_load_explicit(&nkinds, memory_order_relaxed);
	if (n < MAX_KINDS && !is_added(kind, n)) {
		kinds[n] = kind;
		atomic_store_explicit(&nkinds, n + 1, memory_order_release);
	}
	pthread_mutex_unlock(&adding);
}

void tt_mem_look(void)
{
	tt_cuda_look();
}

tuttiResult_t tt_mem_home(int wanted, int *device)
{
	*device = -1;
	return wanted == -1 ? tuttiSuccess : tt_cuda_home(wanted, device);
}

void tt_mem_trim(void)
{
	int n = atomic_load_explicit(&nkinds, memory_order_acquire);

	for (int i = 0; i < n; i++)
		if (kinds[i]->trim)
			kinds[i]->trim();
}

int tt_mem_kinds(void)
{
	return atomic_load_explicit(&nkinds, memory_order_acquire);
}

const struct tt_mem_kind *tt_mem_kind_of(const void *p)
{
	int n = atomic_load_explicit(&nkinds, memory_order_acquire);

	for (int i = 0; p && i < n; i++)
		if (kinds[i]->query(p))
			return kinds[i];
	return NULL;
}

const struct tt_mem_kind *tt_mem_queue_kind(tuttiStream_t queue)
{
	int n = atomic_load_explicit(&nkinds, memory_order_acquire);

	for (int i = 0; i < n; i++)
		if (kinds[i]->is_queue(queue))
			return kinds[i];
	return NULL;
}

const struct tt_mem_kind *tt_mem_at(int device)
{
	int n = atomic_load_explicit(&nkinds, memory_order_acquire);

	for (int i = 0; i < n; i++)
		if (device >= 0 ? kinds[i]->here != NULL : kinds[i]->current())
			return kinds[i];
	return NULL;
}

struct range {
	struct range *next;
	void *p;
	size_t size;
	const struct tt_mem_kind *kind; /* NULL: host */
};

static struct {
	pthread_mutex_t lock;
	struct range *first;
} ranges = { .lock = PTHREAD_MUTEX_INITIALIZER };

static tuttiResult_t map_shared(void **ptr, size_t size)
{
	*ptr = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	return *ptr != MAP_FAILED ? tuttiSuccess :
				    tt_fail(tuttiSystemError, "cannot map %zu bytes: %s", size, strerror(errno));
}

static tuttiResult_t hand_out(const char *call, void **ptr, size_t size, const struct tt_mem_kind *kind)
{
	struct range *r;
	tuttiResult_t res;
	void *p;

	if (!ptr)
		return tt_fail(tuttiInvalidArgument, "%s: ptr is NULL", call);
	if (size > PTRDIFF_MAX)
		return tt_fail(tuttiSystemError, "%s: no memory of %zu bytes", call, size);
	r = malloc(sizeof(*r));
	if (!r)
		return tt_fail(tuttiSystemError, "no memory");
	r->size = size ? size : 1;
	r->kind = kind;
	res = kind ? kind->alloc(r->size, TT_MEM_USERS, &p) : map_shared(&p, r->size);
	if (res != tuttiSuccess) {
		free(r);
		return res;
	}
	r->p = *ptr = p;
	pthread_mutex_lock(&ranges.lock);
	r->next = ranges.first;
	ranges.first = r;
	pthread_mutex_unlock(&ranges.lock);
	if (!kind)
		(void)tt_mem_range_add(NULL, p, size ? size : 1, false, NULL); /* without, it is copied as any other */
	return tuttiSuccess;
}

tuttiResult_t tuttiMemAllocHost(void **ptr, size_t size)
{
	return hand_out("MemAllocHost", ptr, size, NULL);
}

tuttiResult_t tuttiMemAlloc(void **ptr, size_t size)
{
	tt_mem_look();
	return hand_out("MemAlloc", ptr, size, tt_mem_at(-1));
}

tuttiResult_t tuttiMemFree(void *ptr)
{
	struct range **p, *r;

	if (!ptr)
		return tuttiSuccess;
	pthread_mutex_lock(&ranges.lock);
	for (p = &ranges.first; *p && (*p)->p != ptr; p = &(*p)->next)
		;
	r = *p;
	if (r)
		*p = r->next;
	pthread_mutex_unlock(&ranges.lock);
	if (!r)
		return tt_fail(tuttiInvalidArgument, "MemFree: %p was not given by MemAlloc or MemAllocHost, or is "
			       "freed already", ptr);
	tt_mem_range_forget(r->p, r->size);
	if (r->kind)
		r->kind->release(r->p, r->size, TT_MEM_USERS);
	else
		munmap(r->p, r->size);
	free(r);
	return tuttiSuccess;
}
