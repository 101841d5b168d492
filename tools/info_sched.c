/* tutti-info --schedule: schedules of files and of algorithms, proved, listed and written.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "info.h"
#include "plan.h"

static int complain(const char *what, const char *why)
{
	fprintf(stderr, "tutti-info: --schedule %s: %s (--help)\n", what, why);
	return 2;
}

static int write_text(const struct tt_sched_set *set)
{
	if (set->least && set->most == SIZE_MAX)
		printf("bytes %zu\n", set->least);
	else if (set->most != SIZE_MAX)
		printf("bytes %zu %zu\n", set->least, set->most);
	for (int i = 0; i < set->nranks; i++) {
		int n = tt_sched_print(set->ranks[i], NULL, 0);
		char *text = malloc((size_t)n + 1);

		if (!text)
			return 1;
		tt_sched_print(set->ranks[i], text, (size_t)n + 1);
		fputs(text, stdout);
		free(text);
	}
	return 0;
}

static void list(const struct tt_sched_set *set)
{
	const struct tt_sched *s = set->ranks[0];
	uint32_t most = 0;

	for (int i = 0; i < set->nranks; i++)
		most = (uint32_t)tt_max(most, set->ranks[i]->nsteps);
	printf("%s %s, %d ranks", tt_coll_name(s->coll), set->algo, set->nranks);
	if (s->coll == TT_BROADCAST || s->coll == TT_REDUCE)
		printf(", root %d", s->root);
	printf(": %u x %u chunks, %u lanes, up to %u steps a rank; ", s->nblocks, s->per_block, s->nlanes, most);
	if (set->most != SIZE_MAX)
		printf("%zu to %zu bytes; ", set->least, set->most);
	else if (set->least)
		printf("from %zu bytes on; ", set->least);
	printf("proved\n");
}

static int show(const struct tt_sched_set *set, const char *form)
{
	if (!form)
		list(set);
	else if (!strcmp(form, "text"))
		return write_text(set);
	else
		return tt_sched_to_msccl(set->ranks, set->nranks, stdout) != tuttiSuccess;
	return 0;
}

static int of_files(const char *what, const char *form)
{
	struct tt_sched_file file = { 0 };
	uint64_t digest;
	int status = tt_sched_load(what, &file, &digest) != tuttiSuccess;

	for (int i = 0; i < file.nsets && !status; i++)
		status = tt_sched_prove(file.sets[i]) != tuttiSuccess;
	if (!status && file.nsets != 1 && form && !strcmp(form, "msccl"))
		status = complain(what, "MSCCL's XML has one collective, for one number of ranks");
	for (int i = 0; i < file.nsets && !status; i++)
		status = show(file.sets[i], form);
	tt_sched_file_clear(&file);
	return status;
}

static int of_algorithm(const char *what, const char *form)
{
	struct tt_sched_file file = { 0 };
	struct tt_shape shape = { .nlanes = 1 };
	char coll[32], algo[32], end;
	int nranks, root = 0, n, c, status = 0;
	struct tt_sched_set *set;
	const struct tt_algo *a;

	n = sscanf(what, "%31[^:]:%31[^:]:%d:%d%c", coll, algo, &nranks, &root, &end);
	if (n < 3 || n > 4 || (c = tt_coll_find(coll)) < 0)
		return complain(what, "no such file, and not COLL:ALGO:RANKS[:ROOT]");
	a = tt_algo_find(algo, (enum tt_coll)c);
	if (!a || nranks < 1 || nranks > 1024 || root < 0 || root >= nranks)
		return complain(what, "no such algorithm for this collective, or not 1 to 1024 ranks");
	set = tt_sched_set_new(&file, what, algo, nranks);
	if (!set)
		return complain(what, "no memory");
	for (int i = 0; i < nranks && !status; i++)
		status = a->build((enum tt_coll)c, i, nranks, root, &shape, &set->ranks[i]) != tuttiSuccess;
	if (!status)
		status = show(set, form);
	tt_sched_file_clear(&file);
	return status;
}

int info_schedule(const char *what, const char *form)
{
	char first[4096];

	if (form && strcmp(form, "text") && strcmp(form, "msccl"))
		return complain(what, "--as text or msccl is wanted");
	snprintf(first, sizeof(first), "%.*s", (int)strcspn(what, ","), what);
	return access(first, F_OK) && strchr(what, ':') ? of_algorithm(what, form) : of_files(what, form);
}

const struct tt_sched_file *info_custom(struct tt_plan *plan, int nranks)
{
	static struct tt_sched_file file;
	static bool loaded;
	uint64_t digest;

	if (!loaded && tt_sched_load(tt_env_str("SCHEDULE_FILE"), &file, &digest) != tuttiSuccess)
		exit(1);
	for (int i = 0; !loaded && i < file.nsets; i++)
		if (tt_sched_prove(file.sets[i]) != tuttiSuccess)
			exit(1);
	loaded = true;
	tt_plan_use(plan, &file, nranks);
	return &file;
}
