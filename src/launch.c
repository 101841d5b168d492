/* Communicators from what a launcher left in the environment. SPDX-License-Identifier: Apache-2.0 */
#include "group.h"
#include "hmac.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NAME_S 30.0 /* how long a name may take to become known */

struct launch {
	const char *launcher;
	int rank, size;
	char host[128];
	int port;
	bool served; /* somebody else listens on `port`: begin behind it */
	char secret[512]; /* what the job's key is made of */
};

static int number(const char *name)
{
	const char *v = getenv(name);
	char *end;
	long n = v && *v ? strtol(v, &end, 10) : -1;

	return v && *v && !*end && n >= 0 && n < 1 << 24 ? (int)n : -1;
}

static bool from_tutti(struct launch *l)
{
	const char *root = tt_env_str("ROOT"), *colon = strrchr(root, ':');
	size_t n;

	l->launcher = "tutti";
	l->rank = (int)tt_env_int("RANK");
	l->size = (int)tt_env_int("SIZE");
	if (l->rank < 0 || l->size < 1 || !colon)
		return false;
	n = (size_t)(colon - root);
	if (root[0] == '[' && n > 2 && colon[-1] == ']') { /* [v6]:port */
		root++;
		n -= 2;
	}
	snprintf(l->host, sizeof(l->host), "%.*s", (int)n, root);
	l->port = atoi(colon + 1);
	snprintf(l->secret, sizeof(l->secret), "%s", tt_env_str("JOB"));
	return true;
}

static bool from_torchrun(struct launch *l)
{
	const char *addr = getenv("MASTER_ADDR"), *run = getenv("TORCHELASTIC_RUN_ID");
	const char *restart = getenv("TORCHELASTIC_RESTART_COUNT");
	const char *served = getenv("TORCHELASTIC_USE_AGENT_STORE");

	l->launcher = "torchrun";
	l->rank = number("RANK");
	l->size = number("WORLD_SIZE");
	l->port = number("MASTER_PORT");
	if (l->rank < 0 || l->size < 1 || l->port < 1 || !addr)
		return false;
	l->served = served && !strcmp(served, "True");
	snprintf(l->host, sizeof(l->host), "%s", addr);
	snprintf(l->secret, sizeof(l->secret), "torchrun %s %d %s %s", addr, l->port, run ? run : "",
		 restart ? restart : "");
	return true;
}

static tuttiResult_t find(struct launch *l)
{
	const char *want = tt_env_str("LAUNCHER");

	memset(l, 0, sizeof(*l));
	if ((!*want || !strcmp(want, "tutti")) && from_tutti(l))
		return tuttiSuccess;
	if ((!*want || !strcmp(want, "torchrun")) && from_torchrun(l))
		return tuttiSuccess;
	return tt_fail(tuttiInvalidUsage, "no launcher found: neither TUTTI_RANK, TUTTI_SIZE, TUTTI_ROOT (tutti-run) "
		       "nor RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT (torchrun) are set; start with tutti-run, or "
		       "use tuttiGetUniqueId and tuttiCommInitRank");
}

/* In clusters a host's name may become known only some time after the host's peers have started. Without an answer
 * in time the resolver is asked once more by those who tell of it. */
static void await_name(const char *host, const tuttiConfig_t *g)
{
	bool told = g && g->magic == TUTTI_CONFIG_MAGIC && g->size >= offsetof(tuttiConfig_t, deadline) &&
		    g->initDeadline >= 0;
	double seconds = told ? g->initDeadline : tt_env_seconds("INIT_DEADLINE");
	uint64_t end = tt_now_ns() + (uint64_t)(1e9 * (seconds < NAME_S ? seconds : NAME_S));
	struct tt_addr a;

	for (bool said = false; tt_addr_resolve(host, &a, 1) == 0 && tt_now_ns() < end; said = true) {
		if (!said)
			tt_log(TT_LOG_WARN, "launch", "the root's address \"%s\" is unknown to the resolver, "
			       "asking again", host);
		usleep(200000);
	}
}

static tuttiResult_t check_port(const struct launch *l)
{
	int port = l->port + l->served;

	if (port >= 1 && port <= UINT16_MAX)
		return tuttiSuccess;
	return tt_fail(tuttiInvalidUsage, "%s: the root's port is %d; a port is 1 to %d", l->launcher, port,
		       UINT16_MAX);
}

tuttiResult_t tuttiCommInitFromEnv(tuttiComm_t *comm, tuttiConfig_t *config)
{
	static _Atomic uint32_t generation; /* the n-th call of each process is one communicator */
	struct tt_root_id id = { 0 };
	char seed[600];
	struct launch l;
	tuttiUniqueId unique;
	uint16_t port;

	if (!comm)
		return tt_fail(tuttiInvalidArgument, "CommInitFromEnv: comm is NULL");
	TRY(find(&l));
	TRY(check_port(&l));
	await_name(l.host, config);
	snprintf(seed, sizeof(seed), "%s %d %u", l.secret, l.size, atomic_fetch_add(&generation, 1));
	tt_sha256(seed, strlen(seed), id.secret);
	id.job = tt_hash64(id.secret, sizeof(id.secret), 11);
	port = (uint16_t)(l.port + l.served);
	TRY(l.rank == 0 ? tt_comm_root(&id, l.host, port, true) : tt_root_id_set(&id, l.host, port, true));
	memset(&unique, 0, sizeof(unique));
	memcpy(&unique, &id, sizeof(id));
	tt_log(TT_LOG_INFO, "launch", "%s: rank %d of %d, root %s port %u", l.launcher, l.rank, l.size, l.host,
	       id.port);
	return tuttiCommInitRankConfig(comm, l.size, unique, l.rank, config);
}
