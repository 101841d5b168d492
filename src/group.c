/* Groups and submission: where a call goes after its arguments were checked.
 * SPDX-License-Identifier: Apache-2.0 */
#include "group.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static _Thread_local struct {
	int depth;
	struct tt_task *tasks, **tail;
	struct tt_job *jobs, **jobs_tail;
	tuttiResult_t error;
	char text[TT_TEXT];
} group;

bool tt_group_open(void)
{
	return group.depth > 0;
}

tuttiResult_t tt_group_error(tuttiResult_t r)
{
	if (group.depth && group.error == tuttiSuccess) {
		group.error = r;
		snprintf(group.text, sizeof(group.text), "%s", tt_last_error());
	}
	return r;
}

tuttiResult_t tuttiGroupStart(void)
{
	if (group.depth++)
		return tuttiSuccess;
	group.tasks = NULL;
	group.tail = &group.tasks;
	group.jobs = NULL;
	group.jobs_tail = &group.jobs;
	group.error = tuttiSuccess;
	return tuttiSuccess;
}

static tuttiResult_t run_tasks(struct tt_task *list);

static struct tt_task *copy_task(const struct tt_task *task)
{
	struct tt_task *t = malloc(sizeof(*t));

	if (t) {
		*t = *task;
		t->next = NULL;
	}
	return t;
}

tuttiResult_t tt_submit(struct tt_task *task)
{
	struct tt_task *t;

	if (!group.depth && !task->stream && !task->kind) {
		tt_task_submit(task);
		return tt_task_drive(task);
	}
	t = copy_task(task);
	if (!t)
		return tt_group_error(tt_fail(tuttiSystemError, "no memory for an operation"));
	if (group.depth) {
		*group.tail = t;
		group.tail = &t->next;
		return tuttiSuccess;
	}
	if (t->staged)
		return run_tasks(t);
	if (t->kind)
		return tt_queue_run(t);
	tt_task_submit(t);
	return tt_stream_enqueue(t);
}

/* ---- jobs ---- */

static void *job_main(void *arg)
{
	struct tt_job *j = arg;

	j->result = j->run(j);
	if (j->result != tuttiSuccess)
		snprintf(j->text, sizeof(j->text), "%s", tt_last_error());
	return NULL;
}

static bool job_thread(struct tt_job *j)
{
	pthread_attr_t attr;
	int e;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 256 << 10);
	e = pthread_create(&j->thread, &attr, job_main, j);
	pthread_attr_destroy(&attr);
	return !e;
}

tuttiResult_t tt_jobs_run(struct tt_job *list)
{
	tuttiResult_t r = tuttiSuccess;
	struct tt_job *j;

	if (list && !list->next) {
		job_main(list);
	} else {
		for (j = list; j; j = j->next)
			if (!job_thread(j)) {
				j->thread = 0;
				j->result = tuttiSystemError;
				snprintf(j->text, sizeof(j->text), "cannot start a thread for init");
			}
		for (j = list; j; j = j->next)
			if (j->thread)
				pthread_join(j->thread, NULL);
	}
	for (j = list; j && r == tuttiSuccess; j = j->next)
		if (j->result != tuttiSuccess)
			r = tt_note_error(j->result, "%s", j->text);
	return r;
}

tuttiResult_t tt_submit_job(const struct tt_job *job)
{
	struct tt_job *j;

	if (!group.depth) {
		struct tt_job one = *job;

		one.next = NULL;
		return tt_jobs_run(&one);
	}
	j = malloc(sizeof(*j));
	if (!j)
		return tt_group_error(tt_fail(tuttiSystemError, "no memory for a group"));
	*j = *job;
	j->next = NULL;
	*group.jobs_tail = j;
	group.jobs_tail = &j->next;
	return tuttiSuccess;
}

static void free_jobs(struct tt_job *j)
{
	while (j) {
		struct tt_job *next = j->next;

		free(j);
		j = next;
	}
}

/* ---- sends to oneself ---- */

static bool to_self(const struct tt_task *t)
{
	return t->coll == TT_SENDRECV && t->root == t->comm->rank;
}

/* The n-th send to oneself and the n-th receive become one copy. */
static tuttiResult_t pair_selves(struct tt_task **list)
{
	for (struct tt_task **p = list; *p;) {
		struct tt_task *s = *p, *r;

		if (!to_self(s) || !s->is_send) {
			p = &s->next;
			continue;
		}
		for (r = *list; r; r = r->next)
			if (to_self(r) && !r->is_send && r->comm == s->comm && !r->paired)
				break;
		if (!r)
			return tt_fail(tuttiInvalidUsage, "Send to the own rank %d without a Recv in the group",
				       s->root);
		if (r->count != s->count || r->type != s->type)
			return tt_fail(tuttiMismatch, "Send of %zu %s and Recv of %zu %s on the own rank %d",
				       s->count, tt_type_name(s->type), r->count, tt_type_name(r->type), s->root);
		r->in = s->in;
		if (r->staged && s->kind && !s->staged) { /* in the order of the one that has one */
			r->staged = false;
			r->queue = s->queue;
			r->at.line = s->at.line;
		}
		if (!r->queue)
			r->at.capture = s->at.capture;
		r->at.where = r->kind ? r->at.where : s->at.where;
		r->at.in_host = s->at.in_host || !s->kind;
		r->at.out_host |= !r->kind;
		r->kind = r->kind ? r->kind : s->kind;
		r->queue = r->queue ? r->queue : s->queue;
		r->paired = true;
		*p = s->next;
		free(s);
	}
	for (struct tt_task *t = *list; t; t = t->next)
		if (to_self(t) && !t->paired)
			return tt_fail(tuttiInvalidUsage, "Recv from the own rank %d without a Send in the group",
				       t->root);
	return tuttiSuccess;
}

/* ---- the end ---- */

/* Calls of communicators that have none on a device here. */
static struct tt_task *take_apart(struct tt_task **list)
{
	struct tt_task *taken = NULL, **tail = &taken;

	for (struct tt_task **at = list, *t; (t = *at);) {
		const struct tt_task *o = *list;

		while (o && !(o->comm == t->comm && o->kind))
			o = o->next;
		if (o) {
			at = &t->next;
			continue;
		}
		*at = t->next;
		*tail = t;
		tail = &t->next;
		t->next = NULL;
	}
	return taken;
}

/* Blocking ones get a stream for the while. */
static tuttiResult_t start_unit(struct tt_task *list, tuttiStream_t *own)
{
	for (struct tt_task *t = list; t; t = t->next) {
		if (t->stream || (t->kind && !t->staged))
			continue;
		if (!*own && tuttiHostStreamCreate(own) != tuttiSuccess) {
			tt_task_free(list);
			return tuttiSystemError;
		}
		t->stream = *own;
	}
	for (struct tt_task *t = list; t; t = t->next)
		if (t->kind)
			return tt_queue_run(list);
	tt_task_submit(list);
	return tt_stream_enqueue(list);
}

/* Blocking calls and calls on streams in one group. Those on devices may wait for other ranks before they are enqueued,
 * and those for a call of another communicator here: what none of these stands before is begun first. */
static tuttiResult_t run_mixed(struct tt_task *list)
{
	tuttiStream_t own[2] = { NULL };
	struct tt_task *first = take_apart(&list);
	tuttiResult_t r = tuttiSuccess, end;

	if (first)
		r = start_unit(first, &own[0]);
	if (list && r == tuttiSuccess)
		r = start_unit(list, &own[1]);
	else
		tt_task_free(list);
	for (int i = 0; i < 2; i++) {
		end = tuttiHostStreamDestroy(own[i]); /* waits */
		r = r == tuttiSuccess ? end : r;
	}
	return r;
}

static tuttiResult_t run_tasks(struct tt_task *list)
{
	bool any = false;
	tuttiResult_t r = pair_selves(&list);

	if (r != tuttiSuccess || !list) {
		tt_task_free(list);
		return r;
	}
	for (struct tt_task *t = list; t; t = t->next)
		any |= t->stream || t->kind;
	if (any)
		return run_mixed(list);
	tt_task_submit(list);
	r = tt_task_drive(list);
	tt_task_free(list);
	return r;
}

tuttiResult_t tuttiGroupEnd(void)
{
	tuttiResult_t r = group.error;

	if (!group.depth)
		return tt_fail(tuttiInvalidUsage, "GroupEnd without GroupStart");
	if (--group.depth)
		return tuttiSuccess;
	if (r != tuttiSuccess)
		tt_note_error(r, "nothing of the group was submitted, because of one call in it: %s", group.text);
	else
		r = tt_jobs_run(group.jobs);
	free_jobs(group.jobs);
	if (r != tuttiSuccess) {
		tt_task_free(group.tasks);
		return r;
	}
	return run_tasks(group.tasks);
}
