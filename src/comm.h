/* Floor 4: a communicator owns and wires what lies below: who is where, links, programs, the plan, errors. */
#ifndef TT_COMM_H
#define TT_COMM_H

#include <pthread.h>

#include "exec.h"
#include "peer.h"
#include "plan.h"
#include "topo.h"

#define TT_COMM_MAGIC 0x7a77c033u
#define TT_USER_OPS 64
#define TT_PATIENT 20
#define TT_LANES (TT_MAX_LANES + 1) /* links to a peer: lanes of schedules ... */
#define TT_P2P_LANE (TT_LANES - 1) /* ... and one for Send and Recv */
#define TT_P2P_WINDOW ((size_t)128 << 10)

enum tt_peer_state { TT_ALIVE, TT_LEFT, TT_DEAD };

/* The full signature of a call; its hash travels with each message, itself only when something differs. */
struct tt_sig {
	uint32_t coll, type;
	int32_t op, root; /* Send, Recv: op 1 for the sender, root the peer */
	uint64_t count;
	uint32_t seq, pad;
};

/* One of the last calls: written by the calling thread, read by the watcher; odd while it is being written. */
struct tt_sig_slot {
	_Atomic uint32_t version;
	_Atomic uint64_t words[sizeof(struct tt_sig) / 8];
};

struct tt_prog_entry {
	struct tt_prog_entry *next;
	struct tt_prog *prog;
	struct tt_row row;
	uint8_t coll;
	int root; /* Send, Recv: peer * 2 + is_send */
};

struct tt_qprog_entry {
	struct tt_qprog_entry *next;
	struct tt_qprog *prog;
	struct tt_row row;
	uint8_t coll;
	int root;
	bool in_use; /* a call is being enqueued from it */
	bool drives; /* tt_comm_drives */
};

/* What a call like this needed last time: steady calls find it at once. */
struct tt_recent {
	struct tt_sig sig; /* seq 0: none */
	bool commutes;
	uint64_t hash;
	struct tt_prog *prog;
	size_t window;
};

/* How this rank waits for the answer to a question. */
struct tt_answer {
	bool there;
	int from;
	struct tt_sig sig;
};

/* A rank that has not called collective `seq`, as `origin` heard it itself; news has a higher stamp. */
struct tt_absent {
	uint32_t seq, stamp;
	int rank, origin;
	uint64_t heard_ns;
};

/* What TUTTI_SCHEDULE_FILE held when a communicator was made; its parts have it as well. */
struct tt_customs {
	_Atomic int refs;
	uint64_t digest;
	struct tt_sched_file file;
};

struct tuttiComm {
	uint32_t magic;
	int rank, nranks;
	uint64_t id, job;
	char name[64];
	bool blocking;
	int device, bound; /* -1: none; bound: it was asked for, and nothing else will do */
	double init_deadline;
	uint64_t deadline_ns, arrival_ns, spin_ns;
	uint32_t pauses; /* TT_PATIENT, or fewer: how often a waiting rank looks before it gives its core away */
	struct tuttiComm *next; /* in the table of all */

	struct tt_proc *procs; /* unique processes of the members */
	int nprocs, *proc_of;
	struct tt_plan plan;
	struct tt_shape shape; /* as the one that decides made it, the same on all ranks */
	struct tt_customs *customs; /* or NULL */
	struct tt_cal *cal;    /* what was measured of it or of the one it is a part of, or NULL */
	struct tt_ep *inproc;
	struct tt_link ***links; /* [peer][lane], opened on first use */
	struct tt_prog_entry *progs;
	struct tt_recent recent[8];
	void *tmp, *scratch;
	size_t tmp_size, scratch_size;
	pthread_mutex_t queue_lock; /* of the pools for calls on queues of devices */
	struct tt_qprog_entry *qprogs;
	struct tt_qrun *qruns;
	bool on_queues; /* holds the progress thread, and is in task_queue.c's list */
	struct tuttiComm *next_on_queue;
	struct {
		const struct tt_mem_kind *kind;
		void *where;
		struct tt_mem_device self;
	} home;                        /* of this rank, where device links are asked for */
	struct tt_mem_device *devices; /* of each rank */
	struct tt_peers *peers;        /* or NULL */
	struct tt_task_grid *grid;     /* of this rank's blocks, or NULL */
	const void *line; /* of the queue that a call is about to join */
	int joining;      /* such calls */
	struct tt_meet *meet; /* with the other ranks, all of this process; or NULL */
	_Atomic uint32_t *by_links; /* there: the last collective of this rank that went by links */
	int misses;       /* calls in a row that looked for the others there in vain */
	struct tt_op user_ops[TT_USER_OPS];
	tuttiDataType_t user_types[TT_USER_OPS];
	bool user_used[TT_USER_OPS];

	/* order of operations: one ticket each; tasks of a unit share the first */
	_Atomic uint64_t issued;
	_Atomic uint64_t finished;
	_Atomic uint32_t seq;   /* collectives */
	uint32_t *p2p_seq;      /* [peer * 2 + is_send] */
	bool cut;               /* links were closed after an error: no task can go on */
	bool root_owner, has_secret;
	_Atomic bool finalized;
	uint8_t secret[32]; /* of the job: proves connections */

	/* what other threads write */
	_Atomic int inside;    /* calls that may touch it; tasks may until `finished` is `issued` */
	_Atomic int error;     /* sticky tuttiResult_t */
	_Atomic int init_state; /* tuttiInProgress while a nonblocking init runs, then its result */
	_Atomic bool aborting;
	_Atomic uint32_t events; /* counts news: deaths, goodbyes, answers */
	int wake_fd;
	_Atomic uint32_t done_seq, *received; /* collectives done; messages received, per peer */
	pthread_mutex_t lock; /* of what follows; never held on the path of an operation */
	char text[TT_TEXT]; /* of error: written once, before it */
	_Atomic uint8_t *state;
	_Atomic uint32_t *left_seq; /* valid where state is TT_LEFT */
	_Atomic int dead_rank;
	char dead_why[640];
	struct tt_answer answer;
	struct tt_absent absent;
	uint32_t asked_seq; /* who asked after it, to be told of absent ranks */
	int askers[32], naskers;
	int where_from; /* answer to: how far are you? */
	uint32_t where_seq;
	uint64_t where_count;
	struct tt_sig_slot sigs[32], p2p_sigs[16];
	uint32_t p2p_at;
};

/* ---- life (comm.c) ---- */
struct tt_member { /* what a rank brings to the rendezvous; begins with its process */
	struct tt_proc proc;
	uint64_t settings, schedules; /* schedules: digest of TUTTI_SCHEDULE_FILE's contents, 0: none */
	uint32_t version, cores;
	int32_t node;       /* where it may run, in its host's topology; -1: anywhere */
	uint32_t nic, rate; /* if all its addresses are of one interface: which, and MB/s; else 0 */
	uint32_t reserved;
	char setting_text[256];
	struct tt_mem_device device;
	struct tt_gpu_links links; /* of the device */
};
tuttiResult_t tt_comm_new(const tuttiConfig_t *config, const struct tuttiComm *parent,
			  struct tuttiComm **out);
tuttiResult_t tt_comm_join(struct tuttiComm *c, const struct tt_root_id *id, int nranks, int rank);
tuttiResult_t tt_comm_adopt(struct tuttiComm *c, const struct tuttiComm *parent, uint64_t id,
			    const int *members, int n, int rank);
/* ---- schedules from files (comm_sched.c) ---- */
tuttiResult_t tt_customs_load(struct tt_customs **out); /* NULL: none are asked for */
struct tt_customs *tt_customs_share(struct tt_customs *customs);
void tt_customs_drop(struct tt_customs *customs);
/* At the root, which has the word for all: all ranks have the same, it is right, and the plan uses it. */
tuttiResult_t tt_customs_decide(const struct tt_member *const *members, int n, struct tt_plan *plan);
void tt_comm_goodbye(struct tuttiComm *c);
void tt_comm_free(struct tuttiComm *c);
tuttiResult_t tt_comm_root(struct tt_root_id *id, const char *addr, uint16_t port, bool at);
bool tt_comm_valid(const struct tuttiComm *c);
bool tt_comm_busy(struct tuttiComm *c); /* other threads may touch it */
tuttiResult_t tt_comm_link(void *comm, int peer, uint32_t lane, struct tt_link **link);
/* A link that has failed with tuttiUnsupported, so nothing has moved on it, goes on over another transport: its
 * messages of the running operations are issued anew. */
tuttiResult_t tt_comm_reopen(struct tuttiComm *c, struct tt_link *link);
void tt_comm_close_links(struct tuttiComm *c);
extern _Atomic bool tt_forked; /* this is a child of the process that made the communicators */

/* ---- what members tell, and what one decides from it (comm_plan.c) ---- */
tuttiResult_t tt_comm_introduce(struct tt_member *m, int nranks, const struct tt_mem_device *device);
bool tt_same_host(const struct tt_proc *a, const struct tt_proc *b);
/* Runs at the root when all have joined: are they compatible, and what are the plan and the shape? */
tuttiResult_t tt_comm_decide(const void *const *entries, const size_t *sizes, int n, void **blob, size_t *size);
tuttiResult_t tt_comm_take_plan(struct tuttiComm *c, const void *blob, size_t size);
tuttiResult_t tt_comm_facts(const struct tuttiComm *c, struct tt_facts *facts); /* of its members */
tuttiResult_t tt_comm_plan(struct tuttiComm *c, struct tt_plan *out); /* decides for these members, of known shape */
void tt_comm_say(const struct tuttiComm *c); /* one line about both */
/* ---- device links (comm_peers.c) ---- */
void tt_comm_find_device(struct tuttiComm *c, const struct tuttiComm *parent);
tuttiResult_t tt_comm_open_peers(struct tuttiComm *c); /* on all ranks, when the plan is known */
/* An error that is known on this host is this rank's, too; waits so long for its reason to come by the network. */
void tt_comm_hear_peers(struct tuttiComm *c, unsigned wait_ms);
/* ---- TUTTI_CALIBRATION (comm_cal.c): at the end of init, on all ranks; a new plan by what was measured ---- */
tuttiResult_t tt_comm_calibrate(struct tuttiComm *c);

/* ---- failure (comm_fail.c) ---- */
extern const struct tt_node_events tt_comm_events;
void tt_comm_enlist(struct tuttiComm *c);
void tt_comm_delist(struct tuttiComm *c);
void tt_comm_linger(struct tuttiComm *c, uint64_t ns);
void tt_comm_notice(struct tuttiComm *c);
void tt_comm_bury(struct tuttiComm *c); /* keeps its last words for those who ask later */
/* The first error sticks; wakes the drivers; tells the other ranks unless `quiet`. Returns the sticky one. */
tuttiResult_t tt_comm_fail(struct tuttiComm *c, bool quiet, tuttiResult_t r, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
/* The same with this thread's last error, which is not logged twice. */
tuttiResult_t tt_comm_pass(struct tuttiComm *c, bool quiet, tuttiResult_t r);
tuttiResult_t tt_comm_error(struct tuttiComm *c); /* sticky error, its text into this thread's last error */
void tt_comm_record(struct tuttiComm *c, const struct tt_sig *sig);
/* The rank that has not called collective `seq`, as far as is known these days; -1: none. */
int tt_comm_absent(struct tuttiComm *c, uint32_t seq);
void tt_comm_ask(struct tuttiComm *c, int peer, const struct tt_sig *mine);
bool tt_comm_differs(struct tuttiComm *c, int peer, const struct tt_sig *mine, uint64_t wait_ns);
/* Ranks a and b have called different things. */
tuttiResult_t tt_comm_mismatch(struct tuttiComm *c, int a, const struct tt_sig *called, int b,
			       const struct tt_sig *other);
int tt_sig_print(const struct tt_sig *s, char *out, size_t n);
uint64_t tt_sig_hash(const struct tt_sig *s);
const char *tt_comm_who(const struct tuttiComm *c, int rank, char *out, size_t n); /* rank, host, pid */

/* ---- tasks (task.c): one call of one rank ---- */
struct tuttiStream;
struct tt_task {
	struct tuttiComm *comm;
	struct tuttiStream *stream;
	enum tt_coll coll;
	bool is_send, paired; /* paired: a receive from oneself that has its send */
	const void *in;
	void *out;
	size_t count;
	tuttiDataType_t type;
	struct tt_op op;
	int opcode, root;
	const struct tt_mem_kind *kind; /* NULL: on host memory */
	tuttiStream_t queue;            /* of that kind */
	struct tt_mem_place at;
	struct tt_qrun *q;
	bool hosted;                    /* on copies in host memory */
	bool staged;                    /* of host memory, on the queue of the communicator's own */
	bool fed;                       /* a staged one whose queue has its input */
	struct tt_meeting *meeting;
	uint64_t first, stream_first; /* start when so many before it have finished */
	struct tt_task *after; /* in this unit, or NULL */
	struct tt_task *next;
	/* the run */
	int phase;
	struct tt_prog *prog;
	struct tt_ep *held_by; /* where its memory is registered for the time of the run, or NULL */
	void *held[2];
	struct tt_sig sig;
	uint64_t moved_ns, asked_ns, noted_ns, begun_ns, absent_ns;
	uint32_t events_seen;
	bool peer_there;
	tuttiResult_t result;
	char *text; /* of result; the communicator may go as soon as the task is done */
	_Atomic bool done;
};
/* Numbers the tasks of one unit (list by next) in call order; nothing runs yet. */
void tt_task_submit(struct tt_task *list);
struct tt_sig tt_task_sig(const struct tt_task *t, uint32_t seq); /* of a collective */
tuttiResult_t tt_task_gone(struct tt_task *t, int rank); /* fails: it has died, or left too early */
/* Moves what can be moved; true if something did. Sets done. */
bool tt_task_step(struct tt_task *t);
/* Looks after time, deaths and errors; called while nothing moves. */
void tt_task_watch(struct tt_task *t, uint64_t now);
/* Runs a list to its end on the calling thread; the first error, its text into this thread's last error. */
tuttiResult_t tt_task_drive(struct tt_task *list);
int tt_task_eps(struct tt_task *t, struct tt_ep **eps, int n, int max);
struct tt_row tt_task_row(const struct tt_task *t);
/* By which device links a call goes as far as they reach, or NULL: the same on all ranks that have them
 * (comm_peers.c). The first: as far as the operator has a say. */
bool tt_comm_may_peer(const struct tt_task *t);
struct tt_peers *tt_comm_peers(const struct tt_task *t, const struct tt_row *row, const struct tt_sched *s);
/* Messages of device links say nothing of their call: ranks tell each other beside them, when a call begins. */
void tt_comm_tell_peers(const struct tt_task *t);
tuttiResult_t tt_comm_meant_alike(const struct tt_task *t); /* as far as is known; else it fails */
/* Whether blocks of all ranks' devices can run this schedule; what remains to be seen is tt_dev_fits. */
bool tt_comm_drives(const struct tt_task *t, const struct tt_row *row, const struct tt_sched *s);
void tt_task_free(struct tt_task *list); /* malloc'ed ones that were not submitted, or are done */
size_t tt_task_in_bytes(const struct tt_task *t); /* what this rank gives and gets (task_mem.c) */
size_t tt_task_out_bytes(const struct tt_task *t);
/* Of a rank; of a message, of this one. */
tuttiResult_t tt_task_sched(const struct tt_task *t, const struct tt_row *row, int rank, struct tt_sched **out);
/* Registers the memory of a large call, after `prog` is known; ended by release, which may be called twice. */
void tt_task_hold(struct tt_task *t);
void tt_task_release(struct tt_task *t);
struct tt_call tt_task_call(const struct tt_task *t, uint64_t sig, size_t window);

/* ---- on queues of devices (task_queue.c) ---- */
/* Enqueues the device's part of the tasks here and now, and gives their network part to the progress thread.
 * Takes the malloc'ed tasks, on error as well; those without a kind run beside them. */
tuttiResult_t tt_queue_run(struct tt_task *list);
void tt_queue_free(struct tuttiComm *c);
/* Why the device cannot do it alone, or NULL. */
const char *tt_queue_lacks(const struct tt_task *t);
tuttiResult_t tt_queue_enter(const struct tt_task *t); /* where the call runs, until left, which passes r on */
tuttiResult_t tt_queue_left(const struct tt_task *t, tuttiResult_t r);

/* ---- one kernel for all ranks (task_meet.c) ---- */
/* Of a communicator whose ranks are all in this process; before its first call. */
tuttiResult_t tt_meet_open(struct tuttiComm *c);
void tt_meet_close(struct tuttiComm *c);
/* Runs the calls of a unit that one kernel does for all ranks, and waits for the ranks; takes them, and those of
 * communicators that have failed, out of the list. */
tuttiResult_t tt_meet_run(struct tt_task **list);

/* ---- under capture (task_capture.c) ---- */
#define TT_GRAPHS "collectives of ranks of one process on one device, with all streams in one capture"
tuttiResult_t tt_capture_check(const char *call, const struct tt_task *t); /* refuses what can never be captured */
tuttiResult_t tt_capture_refuse(const struct tt_task *t, const char *why);

/* ---- the same by blocks that run schedules (task_grid.c) ---- */
struct tt_task_grid;
/* Enqueues the call of all ranks on the task's stream; buffers by rank. *grid is NULL at first, and belongs to one
 * communicator. Unsupported: nothing has happened. */
tuttiResult_t tt_task_grid_run(struct tt_task_grid **grid, const struct tt_task *t, const void *const *in,
			       void *const *out);
void tt_task_grid_abort(struct tt_task_grid *g); /* any thread: what runs, and what graphs replay, ends */
/* The same for this rank alone, whose device has links to all others (tt_comm_drives); `call` has the buffers. */
tuttiResult_t tt_task_grid_own(struct tt_task_grid **grid, const struct tt_task *t, const struct tt_call *call);
void tt_task_grid_free(struct tt_task_grid *g); /* waits a second for calls that have not ended */

/* ---- streams (stream.c) ---- */
bool tt_stream_valid(const struct tuttiStream *s);
uint64_t tt_stream_issue(struct tuttiStream *s, uint64_t n);
bool tt_stream_turn(struct tuttiStream *s, uint64_t first);
void tt_stream_finished(struct tuttiStream *s, tuttiResult_t r); /* r's text: this thread's last error */
tuttiResult_t tt_stream_enqueue(struct tt_task *list); /* takes the malloc'ed tasks */
tuttiResult_t tt_progress_hold(void); /* the progress thread runs until all who hold it let go */
void tt_progress_drop(void);
#endif
