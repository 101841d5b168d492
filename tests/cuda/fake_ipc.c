/* What the fake driver shares between processes and devices: legacy handles, VMM by descriptors, registered host
 * memory, access of peers. Strict where gpu.md says that drivers are undefined: memory that is freed while another
 * process has it open ends the program. FAKE_CUDA_IPC=0 and _VMM=0 refuse the two ways, _PEERS=0 access between
 * devices; _CORRUPT=1 spoils copies between two, _STALL=1 never ends them; _FIRST makes device 0 another of the host's;
 * _OPEN is what opening a legacy handle gives, 208 where a mapping that is no more is in the way.
 * SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fake_libcuda.h"

enum { GRAIN = 2 << 20, OPENERS = 32, NO_PEERS = 217, PEER_IS_ON = 704, REFUSED = 801 };
enum { FD = 1, READ_WRITE = 3 };

/* The page behind memory that can be shared. */
struct tail {
	uint64_t id; /* 0: nobody has asked for a handle */
	int physical;
	_Atomic int opener[OPENERS]; /* processes */
};

struct name { /* in a legacy handle */
	int pid, fd, physical;
	uint64_t base, n, id;
};

struct handle {
	int fd, physical, refs;
	bool exportable;
	size_t n;
};

struct opened {
	struct opened *next;
	struct name name;
	void *at;
	int count;
};

static struct {
	pthread_mutex_t lock;
	unsigned peers[MAX_DEVICES];
	struct opened *opened;
	int live;
} fake = { .lock = PTHREAD_MUTEX_INITIALIZER };

static void live(int n)
{
	pthread_mutex_lock(&fake.lock);
	fake.live += n;
	pthread_mutex_unlock(&fake.lock);
}

int cuFakeLive(void)
{
	int n;

	pthread_mutex_lock(&fake.lock);
	n = fake.live;
	pthread_mutex_unlock(&fake.lock);
	return n;
}

/* ---- devices ---- */

static int count(void)
{
	return (int)setting("FAKE_CUDA_DEVICES", 1);
}

static int physical(int device)
{
	return device + (int)setting("FAKE_CUDA_FIRST", 0);
}

static int visible(int n) /* -1: not to this process */
{
	int device = n - (int)setting("FAKE_CUDA_FIRST", 0);

	return device >= 0 && device < count() ? device : -1;
}

int sharing_attribute(int attribute)
{
	enum { VMM = 102, VMM_FD = 103, VMM_RDMA = 110 };

	return attribute == VMM || attribute == VMM_FD || attribute == VMM_RDMA ? (int)setting("FAKE_CUDA_VMM", 1) :
										  -1;
}

int cuDeviceGetUuid_v2(unsigned char uuid[16], int device)
{
	READY();
	if (device < 0 || device >= count())
		return 101;
	memcpy(uuid, "fake device 0000", 16);
	uuid[15] = (unsigned char)('0' + physical(device));
	return 0;
}

int cuDeviceGetPCIBusId(char *id, int n, int device)
{
	READY();
	if (device < 0 || device >= count())
		return 101;
	snprintf(id, (size_t)n, "0000:%02x:00.0", 0x10 + physical(device));
	return 0;
}

static bool can_reach(int from, int to) /* physical */
{
	return from == to || setting("FAKE_CUDA_PEERS", 1);
}

int cuDeviceCanAccessPeer(int *can, int device, int peer)
{
	READY();
	if (device < 0 || device >= count() || peer < 0 || peer >= count())
		return 101;
	*can = device != peer && can_reach(physical(device), physical(peer));
	return 0;
}

int cuDeviceGetP2PAttribute(int *value, int attribute, int device, int peer)
{
	READY();
	if (device == peer || device < 0 || device >= count() || peer < 0 || peer >= count())
		return 101;
	*value = attribute == 2 ? can_reach(physical(device), physical(peer)) : 0;
	return 0;
}

bool copies_well(const void *dst, const void *src)
{
	struct range a, b;

	if (!look_up(dst, &a) || !look_up(src, &b) || a.kind != UNIFIED || b.kind != UNIFIED || a.device == b.device)
		return true;
	while (setting("FAKE_CUDA_STALL", 0))
		pause();
	return !setting("FAKE_CUDA_CORRUPT", 0);
}

bool may_reach(int device, int owner)
{
	bool may;

	pthread_mutex_lock(&fake.lock);
	may = fake.peers[device] >> owner & 1;
	pthread_mutex_unlock(&fake.lock);
	return may;
}

int cuCtxEnablePeerAccess(struct ctx *peer, unsigned flags)
{
	int device, e;

	IN_CONTEXT();
	device = current()->device;
	if (flags || !peer || peer->device == device)
		return 101;
	if (!can_reach(physical(device), physical(peer->device)))
		return NO_PEERS;
	pthread_mutex_lock(&fake.lock);
	e = fake.peers[device] >> peer->device & 1 ? PEER_IS_ON : 0;
	fake.peers[device] |= 1u << peer->device;
	pthread_mutex_unlock(&fake.lock);
	return e;
}

/* ---- registered memory of the host ---- */

int cuMemHostRegister_v2(void *p, size_t n, unsigned flags)
{
	IN_CONTEXT();
	if (!p || !n || flags != 3) /* PORTABLE, DEVICEMAP */
		return 1;
	if (overlaps(p, n))
		return 712;
	link_range(&(struct range){ .at = p, .view = p, .n = n, .kind = PINNED, .how = REGISTERED, .fd = -1,
				    .device = current()->device });
	live(1);
	return 0;
}

int cuMemHostUnregister(void *p)
{
	struct range r;

	IN_CONTEXT();
	if (!unlink_range(p, REGISTERED, &r))
		return 713;
	live(-1);
	return 0;
}

/* ---- mappings ---- */

static size_t whole(size_t n)
{
	return (n + PAGE - 1) / PAGE * PAGE;
}

static void *map(void *at, int fd, size_t n, int prot)
{
	void *p = mmap(at, n, prot, MAP_SHARED | (at ? MAP_FIXED : 0), fd, 0);

	if (p == MAP_FAILED)
		wrong("no memory");
	return p;
}

static struct tail *tail_of(const struct range *r)
{
	return (struct tail *)(r->view + whole(r->n));
}

/* ---- legacy handles ---- */

static bool is_alive(int pid)
{
	char path[64], state = 0;
	FILE *f;

	if (!pid || pid == getpid())
		return false;
	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	f = fopen(path, "r");
	if (f && fscanf(f, "%*d (%*[^)]) %c", &state) != 1)
		state = 0;
	if (f)
		fclose(f);
	return state && state != 'Z' && state != 'X';
}

void check_openers(const struct range *r)
{
	for (int i = 0; r->kind == UNIFIED && i < OPENERS; i++)
		if (is_alive(atomic_load(&tail_of(r)->opener[i])))
			wrong("memory is freed that another process has open");
}

int cuIpcGetMemHandle(struct ipc *h, void *p)
{
	static _Atomic uint64_t ids;
	struct name name = { .pid = getpid() };
	struct range r;
	struct tail *t;

	IN_CONTEXT();
	if (!setting("FAKE_CUDA_IPC", 1))
		return REFUSED;
	if (!look_up(p, &r) || r.how != OURS || r.kind != UNIFIED)
		return 1;
	t = tail_of(&r);
	pthread_mutex_lock(&fake.lock);
	if (!t->id)
		t->id = (uint64_t)getpid() << 32 | ++ids;
	t->physical = physical(r.device);
	pthread_mutex_unlock(&fake.lock);
	name.fd = r.fd;
	name.physical = t->physical;
	name.base = (uint64_t)(uintptr_t)r.at;
	name.n = r.n;
	name.id = t->id;
	memset(h, 0, sizeof(*h));
	memcpy(h, &name, sizeof(name));
	return 0;
}

/* Under the lock. */
static bool again(const struct name *name, void **p)
{
	for (struct opened *o = fake.opened; o; o = o->next)
		if (o->name.id == name->id) {
			o->count++;
			*p = o->at;
			return true;
		}
	return false;
}

static int open_name(const struct name *name, void **p)
{
	struct range r = { .n = name->n, .kind = UNIFIED, .device = visible(name->physical), .how = OPENED, .fd = -1,
			   .access = 1u << current()->device };
	struct opened *o;
	struct stat st;
	char path[64];
	int fd, i;

	snprintf(path, sizeof(path), "/proc/%d/fd/%d", name->pid, name->fd);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return 1;
	if (fstat(fd, &st) || st.st_size != (off_t)(whole(r.n) + PAGE)) {
		close(fd);
		return 1; /* freed */
	}
	r.view = map(NULL, fd, whole(r.n) + PAGE, PROT_READ | PROT_WRITE);
	r.at = map(NULL, fd, whole(r.n), PROT_NONE);
	close(fd);
	if (tail_of(&r)->id != name->id)
		wrong("a handle of memory that was freed is opened");
	for (i = 0; i < OPENERS && !atomic_compare_exchange_strong(&tail_of(&r)->opener[i], &(int){ 0 }, getpid()); i++)
		;
	o = malloc(sizeof(*o));
	if (i == OPENERS || !o)
		wrong("too many openers");
	*o = (struct opened){ fake.opened, *name, r.at, 1 };
	fake.opened = o;
	fake.live++;
	link_range(&r);
	*p = r.at;
	return 0;
}

int cuIpcOpenMemHandle_v2(void **p, struct ipc h, unsigned flags)
{
	struct name name;
	int e = 0;

	IN_CONTEXT();
	memcpy(&name, &h, sizeof(name));
	if (!setting("FAKE_CUDA_IPC", 1))
		return REFUSED;
	if (setting("FAKE_CUDA_OPEN", 0))
		return (int)setting("FAKE_CUDA_OPEN", 0);
	if (flags != 1 || !name.id) /* LAZY_ENABLE_PEER_ACCESS */
		return 1;
	if (name.pid == getpid())
		return BAD_CONTEXT;
	if (!can_reach(physical(current()->device), name.physical))
		return NO_PEERS;
	pthread_mutex_lock(&fake.lock);
	if (!again(&name, p))
		e = open_name(&name, p);
	pthread_mutex_unlock(&fake.lock);
	return e;
}

static void close_last(void *p)
{
	struct range r;

	if (!unlink_range(p, OPENED, &r))
		wrong("an opened handle has no memory");
	for (int i = 0; i < OPENERS; i++)
		if (atomic_compare_exchange_strong(&tail_of(&r)->opener[i], &(int){ getpid() }, 0))
			break;
	munmap(r.view, whole(r.n) + PAGE);
	munmap(r.at, whole(r.n));
}

int cuIpcCloseMemHandle(void *p)
{
	struct opened **at, *o;

	IN_CONTEXT();
	pthread_mutex_lock(&fake.lock);
	for (at = &fake.opened; *at && (*at)->at != p; at = &(*at)->next)
		;
	o = *at;
	if (o && --o->count == 0) {
		*at = o->next;
		fake.live--;
		close_last(p);
		free(o);
	}
	pthread_mutex_unlock(&fake.lock);
	return o ? 0 : 1;
}

/* ---- VMM ---- */

int cuMemGetAllocationGranularity(size_t *n, const struct prop *p, int option)
{
	READY();
	*n = GRAIN;
	return p->type == 1 && option >= 0 && option < 2 ? 0 : 1;
}

static struct handle *new_handle(int fd, int owner, size_t n, bool exportable)
{
	struct handle *h = malloc(sizeof(*h));

	if (!h)
		wrong("no memory");
	*h = (struct handle){ .fd = fd, .physical = owner, .refs = 1, .exportable = exportable, .n = n };
	live(1);
	return h;
}

int cuMemCreate(struct handle **h, size_t n, const struct prop *p, uint64_t flags)
{
	struct tail t = { .id = 1 };
	int fd;

	READY();
	if (!setting("FAKE_CUDA_VMM", 1))
		return REFUSED;
	if (!n || n % GRAIN || p->type != 1 || p->location.type != 1 || p->location.id < 0 ||
	    p->location.id >= count() || (p->handles & ~FD) || p->win32 || flags)
		return 1;
	if (!charge(p->location.id, n))
		return 2;
	t.physical = physical(p->location.id);
	fd = memfd_create("fake vmm", MFD_CLOEXEC);
	if (fd < 0 || ftruncate(fd, (off_t)n + PAGE) || pwrite(fd, &t, sizeof(t), (off_t)n) != sizeof(t))
		wrong("no memory");
	*h = new_handle(fd, t.physical, n, p->handles & FD);
	return 0;
}

static void drop(struct handle *h)
{
	bool last;

	pthread_mutex_lock(&fake.lock);
	last = !--h->refs;
	fake.live -= last;
	pthread_mutex_unlock(&fake.lock);
	if (!last)
		return;
	close(h->fd);
	free(h);
}

/* What is mapped stays, and is no longer counted. */
int cuMemRelease(struct handle *h)
{
	READY();
	if (!h)
		return 1;
	if (visible(h->physical) >= 0 && h->exportable)
		discharge(visible(h->physical), h->n);
	drop(h);
	return 0;
}

int cuMemExportToShareableHandle(void *out, struct handle *h, int type, uint64_t flags)
{
	READY();
	if (type != FD || flags || !h->exportable)
		return 1;
	*(int *)out = fcntl(h->fd, F_DUPFD_CLOEXEC, 0);
	return *(int *)out < 0 ? 1 : 0;
}

int cuMemImportFromShareableHandle(struct handle **h, void *fd, int type)
{
	struct tail t;
	struct stat st;
	int own;

	READY();
	if (!setting("FAKE_CUDA_VMM", 1))
		return REFUSED;
	if (type != FD || fstat((int)(intptr_t)fd, &st) || st.st_size % GRAIN != PAGE ||
	    pread((int)(intptr_t)fd, &t, sizeof(t), st.st_size - PAGE) != sizeof(t) || t.id != 1)
		return 1;
	own = fcntl((int)(intptr_t)fd, F_DUPFD_CLOEXEC, 0);
	if (own < 0)
		return 1;
	*h = new_handle(own, t.physical, (size_t)st.st_size - PAGE, false);
	return 0;
}

int cuMemAddressReserve(void **p, size_t n, size_t align, void *wish, uint64_t flags)
{
	READY();
	if (!n || n % GRAIN || flags || align > GRAIN)
		return 1;
	*p = mmap(NULL, n, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (*p == MAP_FAILED)
		return 2;
	live(1);
	return 0;
}

int cuMemAddressFree(void *p, size_t n)
{
	READY();
	if (overlaps(p, n))
		return 1;
	munmap(p, n);
	live(-1);
	return 0;
}

/* The mapping keeps the memory when the handle is released. */
int cuMemMap(void *p, size_t n, size_t offset, struct handle *h, uint64_t flags)
{
	struct range r = { .at = p, .n = n, .kind = UNIFIED, .how = MAPPED, .fd = -1 };

	READY();
	if (n != h->n || offset || flags || overlaps(p, n))
		return 1;
	r.device = visible(h->physical);
	r.view = map(NULL, h->fd, n + PAGE, PROT_READ | PROT_WRITE);
	map(p, h->fd, n, PROT_NONE);
	link_range(&r);
	live(1);
	return 0;
}

int cuMemUnmap(void *p, size_t n)
{
	struct range r;

	READY();
	if (!unlink_range(p, MAPPED, &r))
		return 1;
	if (r.n != n)
		wrong("part of a mapping is unmapped");
	munmap(r.view, n + PAGE);
	if (mmap(p, n, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == MAP_FAILED)
		wrong("no memory");
	live(-1);
	return 0;
}

int cuMemSetAccess(void *p, size_t n, const struct access *a, size_t number)
{
	struct range r;

	READY();
	if (!look_up(p, &r) || r.at != p || r.n != n || r.how != MAPPED)
		return 1;
	for (size_t i = 0; i < number; i++) {
		if (a[i].location.type != 1 || a[i].location.id < 0 || a[i].location.id >= count() ||
		    a[i].flags != READ_WRITE)
			return 1;
		if (!can_reach(physical(a[i].location.id), tail_of(&r)->physical))
			return 101;
		r.access |= 1u << a[i].location.id;
	}
	if (unlink_range(p, MAPPED, &(struct range){ 0 }))
		link_range(&r);
	return 0;
}
