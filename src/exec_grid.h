/* Floor 3: calls of ranks that are on one device, as one grid that holds the blocks of all of them (exec_dev.h). */
#ifndef TT_EXEC_GRID_H
#define TT_EXEC_GRID_H

#include "exec_dev.h"

/* Of the ranks of a communicator: their links, in memory of the device, and what was uploaded. Calls come one after
 * the other, on streams in whose order they run as well. New and run are between enter and leave of the kind. */
struct tt_grid;
tuttiResult_t tt_grid_new(const struct tt_mem_kind *kind, int nranks, struct tt_grid **out);
/* Waits a second for calls that have not ended, then gives their memory up. Graphs with calls are gone by then, or
 * the grid has been aborted. */
void tt_grid_free(struct tt_grid *g);
void tt_grid_abort(struct tt_grid *g); /* any thread: calls that wait end, and no later one makes sense */
/* Enqueues one call: codes and calls of rank 0 .. nranks - 1, alike but for the buffers; codes stay until the grid is
 * freed. Captured: into a graph, for which what the call reads stays as it is. Scaling is the caller's. Unsupported,
 * and nothing has happened: messages larger than slots that cannot be cut, or more blocks than the device runs at a
 * time. */
tuttiResult_t tt_grid_run(struct tt_grid *g, tuttiStream_t queue, bool captured, struct tt_dev_code *const *codes,
			  const struct tt_call *calls);

#endif
