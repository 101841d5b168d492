/* Floor 1: memory and streams of CUDA devices as a kind of memory. */
#ifndef TT_CUDA_MEM_H
#define TT_CUDA_MEM_H

#include "mem.h"

/* Adds the kind where this process uses CUDA (cuda_lib.h). On a thread that is inside an API call, as all that the
 * kind does: the threads of the library never call CUDA, which may keep them waiting for the very stream that
 * waits for them. */
void tt_cuda_look(void);
/* As tt_mem_home; `wanted` TUTTI_UNDEF_INT: that of the thread's context, or -1. */
tuttiResult_t tt_cuda_home(int wanted, int *device);
/* One line for people: what CUDA is here, or why it is off; looks further than tt_cuda_look. True: it is on. */
bool tt_cuda_describe(char *out, size_t n);

#endif
