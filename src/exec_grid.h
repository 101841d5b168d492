/* Floor 3: calls as blocks of devices that run schedules (exec_dev.h): of ranks that are on one device, as one grid
 * that holds the blocks of all of them; or of one rank, whose blocks meet those of the others, each on a device of its
 * own. */
#ifndef TT_EXEC_GRID_H
#define TT_EXEC_GRID_H

#include "exec_dev.h"

/* Programs and bindings in memory of the device, and the links of ranks that share it. New and run are between enter
 * and leave of the kind. */
struct tt_grid;
tuttiResult_t tt_grid_new(const struct tt_mem_kind *kind, int nranks, struct tt_grid **out);
tuttiResult_t tt_grid_new_apart(struct tt_peers *peers, struct tt_grid **out); /* which stay until it is freed */
/* Waits a second for calls that have not ended, then gives their memory up. Graphs with calls are gone by then, or
 * the grid has been aborted. */
void tt_grid_free(struct tt_grid *g);
void tt_grid_abort(struct tt_grid *g); /* any thread: calls of one device that wait end, no later one makes sense */
/* Enqueues one call: codes and calls of its ranks, 0 .. nranks - 1 or the one, alike but for the buffers; codes stay
 * until the grid is freed. It comes behind the call before, which is the caller's to see to. Captured: into a graph,
 * for which what the call reads stays as it is. Scaling is the caller's. Unsupported, and nothing has happened:
 * messages larger than slots that cannot be cut, or more blocks than the device runs at a time. */
tuttiResult_t tt_grid_run(struct tt_grid *g, tuttiStream_t queue, bool captured, struct tt_dev_code *const *codes,
			  const struct tt_call *calls);

#endif
