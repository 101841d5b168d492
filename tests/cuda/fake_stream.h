/* What the fake driver's streams are made of, for fake_streams.c and fake_graph.c. */
#ifndef TT_FAKE_STREAM_H
#define TT_FAKE_STREAM_H

#include <pthread.h>
#include <stdatomic.h>

#include "fake_libcuda.h"

enum what { COPY, FOLD, SCALE, ALL, WAIT, WRITE, CALL };

struct kernel {
	int op, type;
};

struct op {
	struct op *next;
	struct queue *of;
	enum what what;
	int device;
	char *dst;
	const char *src;
	size_t n;
	_Atomic uint32_t *word;
	uint32_t value;
	void (*fn)(void *);
	void *arg; /* of fn, or what follows */
	struct kernel kernel;
	size_t own; /* bytes of the arguments, which each run has a copy of; 0: none */
};

struct nodes { /* of a graph, by number */
	int *at, n;
};

struct queue {
	struct queue *next;
	struct hardware *by;
	_Atomic int left; /* given, and not done */
	bool blocking;    /* towards the legacy stream */
	struct ctx *ctx;
	/* fake_graph.c's */
	struct capture *capture; /* or NULL */
	struct nodes last;       /* what comes next is behind these */
};

struct queue *queue_of(void *stream); /* NULL: no such stream, or no context */
bool is_legacy(const struct queue *q);
void each_queue(void (*fn)(struct queue *q, void *arg), void *arg);
int put(void *stream, const struct op *what); /* copies the arguments */
void run(const struct op *o);
/* True: the stream is captured, so that *e is the answer, and nothing is to be given to it. */
bool capture_op(struct queue *q, const struct op *what, int *e);

#endif
