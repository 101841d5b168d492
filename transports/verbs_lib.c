/* verbs: the RDMA libraries, found at run time, so that one libtutti.so serves machines with and without them.
 * SPDX-License-Identifier: Apache-2.0 */
#include "verbs_dev.h"

#include <stdio.h>

#if !TT_HAVE_VERBS

const struct tt_vb *tt_vb(char *why, size_t n)
{
	if (why)
		snprintf(why, n, "built without RDMA headers (packages libibverbs-dev and librdmacm-dev)");
	return NULL;
}

enum tt_vb_fork tt_vb_fork(void)
{
	return TT_VB_FORK_UNSAFE;
}

#else

#include <dlfcn.h>
#include <limits.h>
#include <link.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static struct {
	struct tt_vb vb;
	bool ok;
	char why[256], verbs_path[PATH_MAX], cm_path[PATH_MAX];
	enum tt_vb_fork fork;
} lib;

/* The version of the ABI that the headers describe; a newer default could take other structs. */
static void *symbol(void *so, const char *name, const char *version)
{
#ifdef __GLIBC__
	return dlvsym(so, name, version);
#else
	return dlsym(so, name);
#endif
}

/* Kept for the life of the process: devices have threads and pages that outlive any owner here. */
static void *load(const char *file, const char *package, char *path)
{
	void *so = dlopen(file, RTLD_NOW | RTLD_LOCAL);
	struct link_map *map;
	const char *text;

	if (so) {
		if (dlinfo(so, RTLD_DI_LINKMAP, &map) || !realpath(map->l_name, path))
			strcpy(path, file);
		return so;
	}
	text = dlerror();
	snprintf(lib.why, sizeof(lib.why), "%s cannot be loaded (%s): install the Debian package %s", file,
		 text ? text : "no reason given", package);
	return NULL;
}

/* One row for each function; object pointers, since ISO C has no cast from those to functions. */
struct row {
	void *slot;
	const char *name, *version;
	bool must;
};

static bool find_rows(void *so, const char *path, const struct row *rows, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		void *found = symbol(so, rows[i].name, rows[i].version);

		memcpy(rows[i].slot, &found, sizeof(found));
		if (found || !rows[i].must)
			continue;
		snprintf(lib.why, sizeof(lib.why), "%.150s has no %s (%s): it is too old or no RDMA library", path,
			 rows[i].name, rows[i].version);
		return false;
	}
	return true;
}

#define IBV(name, version) { &lib.vb.name, "ibv_" #name, "IBVERBS_" #version, true },
#define IBV_NEWER(name, version) { &lib.vb.name, "ibv_" #name, "IBVERBS_" #version, false },
#define CM(name, version) { &lib.vb.cm_##name, "rdma_" #name, "RDMACM_" #version, true },

static void load_all(void)
{
	const struct row verbs[] = { TT_VB_IBV(IBV) TT_VB_IBV_NEWER(IBV_NEWER){
		&lib.vb.query_gid_table, "_ibv_query_gid_table", "IBVERBS_1.11", false } };
	const struct row cm[] = { TT_VB_CM(CM) };
	void *so = load("libibverbs.so.1", "libibverbs1 (and ibverbs-providers)", lib.verbs_path);

	if (!so || !find_rows(so, lib.verbs_path, verbs, sizeof(verbs) / sizeof(verbs[0])))
		return;
	so = load("librdmacm.so.1", "librdmacm1", lib.cm_path);
	if (!so || !find_rows(so, lib.cm_path, cm, sizeof(cm) / sizeof(cm[0])))
		return;
	lib.vb.verbs_path = lib.verbs_path;
	lib.vb.cm_path = lib.cm_path;
	lib.ok = true;
}

const struct tt_vb *tt_vb(char *why, size_t n)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, load_all);
	if (!lib.ok && why)
		snprintf(why, n, "%s", lib.why);
	return lib.ok ? &lib.vb : NULL;
}

/* Not where the kernel copies: libraries up to 2022 would hide registered pages from children all the same. */
static void settle_fork(void)
{
	const struct tt_vb *vb = tt_vb(NULL, 0);

	if (!vb)
		lib.fork = TT_VB_FORK_UNSAFE;
	else if (vb->is_fork_initialized && vb->is_fork_initialized() == IBV_FORK_UNNEEDED)
		lib.fork = TT_VB_FORK_COPIED;
	else
		lib.fork = vb->fork_init() ? TT_VB_FORK_UNSAFE : TT_VB_FORK_HIDDEN;
}

enum tt_vb_fork tt_vb_fork(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, settle_fork);
	return lib.fork;
}

/* As the inline of verbs.h, which would need the symbol when linked: old libraries know only the symbol, which
 * fills less than the struct. */
int tt_vb_query_port(struct ibv_context *ctx, uint8_t port, struct ibv_port_attr *attr)
{
	struct verbs_context *v = verbs_get_ctx_op(ctx, query_port);

	memset(attr, 0, sizeof(*attr));
	if (v)
		return v->query_port(ctx, port, attr, sizeof(*attr));
	return lib.vb.query_port(ctx, port, (struct _compat_ibv_port_attr *)attr);
}

#endif

const char *tt_vb_fork_text(void)
{
	static const char *const text[] = {
		"safe: the kernel copies registered pages",
		"half safe: children may not touch registered memory (ibv_fork_init; kernel before 5.12)",
		"not safe: do not fork while communicators live (ibv_fork_init failed)",
	};

	return text[tt_vb_fork()];
}
