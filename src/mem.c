/* Memory that tutti hands out: mappings of memfds, so that processes of a host can share them and nothing
 * stays behind in the file system. SPDX-License-Identifier: Apache-2.0 */
#include "base.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct range {
	struct range *next;
	void *p;
	size_t size;
};

static struct {
	pthread_mutex_t lock;
	struct range *first;
} ranges = { .lock = PTHREAD_MUTEX_INITIALIZER };

static tuttiResult_t map_shared(void **ptr, size_t size)
{
	int fd = memfd_create("tutti", MFD_CLOEXEC), e;

	if (fd < 0)
		return tt_fail(tuttiSystemError, "memfd_create: %s", strerror(errno));
	if (ftruncate(fd, (off_t)size)) {
		e = errno;
		close(fd);
		return tt_fail(tuttiSystemError, "no shared memory of %zu bytes: %s", size, strerror(e));
	}
	*ptr = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	e = errno;
	close(fd);
	return *ptr != MAP_FAILED ? tuttiSuccess :
				    tt_fail(tuttiSystemError, "cannot map %zu bytes: %s", size, strerror(e));
}

tuttiResult_t tuttiMemAllocHost(void **ptr, size_t size)
{
	struct range *r;
	void *p;

	if (!ptr)
		return tt_fail(tuttiInvalidArgument, "MemAllocHost: ptr is NULL");
	r = malloc(sizeof(*r));
	if (!r)
		return tt_fail(tuttiSystemError, "no memory");
	r->size = size ? size : 1;
	if (r->size > PTRDIFF_MAX || map_shared(&p, r->size) != tuttiSuccess) {
		free(r);
		return size > PTRDIFF_MAX ? tt_fail(tuttiSystemError, "no memory of %zu bytes", size) :
					    tuttiSystemError;
	}
	r->p = *ptr = p;
	pthread_mutex_lock(&ranges.lock);
	r->next = ranges.first;
	ranges.first = r;
	pthread_mutex_unlock(&ranges.lock);
	return tuttiSuccess;
}

tuttiResult_t tuttiMemAlloc(void **ptr, size_t size)
{
	return tuttiMemAllocHost(ptr, size); /* until there are devices */
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
	munmap(r->p, r->size);
	free(r);
	return tuttiSuccess;
}
