/* Floor 3: a schedule as a program for the blocks of a device (dev_proto.h). A block runs a lane of a rank's schedule;
 * lanes with a dependency between them are one block's. */
#ifndef TT_EXEC_DEV_H
#define TT_EXEC_DEV_H

#include "dev_proto.h"
#include "exec.h"

struct tt_dev_dir { /* of a link */
	uint32_t peer, lane;
	bool is_send;
};

struct tt_dev_code;
bool tt_dev_can(const struct tt_sched *s); /* no reduction has too many sources */
/* Takes over `s`, on error as well. Unsupported: it cannot. */
tuttiResult_t tt_dev_code_new(struct tt_sched *s, uint32_t depth, struct tt_dev_code **out);
void tt_dev_code_free(struct tt_dev_code *c);
const struct tt_sched *tt_dev_code_sched(const struct tt_dev_code *c);
const struct tt_dev_prog *tt_dev_code_prog(const struct tt_dev_code *c);
const struct tt_dev_dir *tt_dev_code_dirs(const struct tt_dev_code *c); /* of the program's links, in order */
uint32_t tt_dev_code_joined(const struct tt_dev_code *c); /* lanes that share a block with an earlier one */
size_t tt_dev_bind_bytes(const struct tt_dev_code *c);
/* Whether the call's messages fit slots of `slot_bytes`: the same answer on all ranks. Windows are cut to fit; what
 * must run as one window does where all its data is as small. Then `bind` and the bytes of temporaries. */
bool tt_dev_fits(const struct tt_sched *s, const struct tt_call *call, size_t slot_bytes);
size_t tt_dev_bind(struct tt_dev_code *c, const struct tt_call *call, size_t slot_bytes, struct tt_dev_bind *bind);

#endif
