/* Collectives as pieces, for 1 .. 64 ranks and every mixture of ranks that are in place: that no order of the elements
 * can show (nobody touches what another piece's element writes), and then, by one run with symbolic values, that the
 * outputs hold what the checker of schedules asks for. TEST_QUICK=1 stops at 17 ranks.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "sched_check.h"
#include "sched_pieces.h"
#include "test.h"

enum { COUNT = 2, CELLS = TT_PIECE_RANKS * COUNT };

static struct {
	enum tt_coll coll;
	int p, root, npieces;
	struct tt_piece pieces[TT_PIECE_RANKS];
	bool in_place[TT_PIECE_RANKS];
	struct tt_exprs *exprs;
	/* Of each rank the input, then the output, cell by cell. */
	uint32_t value[TT_PIECE_RANKS][2 * CELLS], writer[TT_PIECE_RANKS][2 * CELLS], reader[TT_PIECE_RANKS][2 * CELLS];
} it;

static uint32_t blocks(bool out)
{
	return it.coll == (out ? TT_ALLGATHER : TT_REDUCESCATTER) ? (uint32_t)it.p : 1;
}

/* Where a cell of an input is; in place it is one of the output, or the output one of it. */
static uint32_t in_cell(int rank, size_t i)
{
	size_t shift = it.coll == TT_ALLGATHER ? (size_t)rank * COUNT : 0;

	return (uint32_t)(it.in_place[rank] ? CELLS + shift + i : i);
}

static uint32_t out_cell(int rank, size_t i)
{
	size_t shift = it.in_place[rank] && it.coll == TT_REDUCESCATTER ? (size_t)rank * COUNT : 0;

	return (uint32_t)(CELLS + shift + i);
}

/* The chunk, as the checker counts, that an input holds at i. */
static uint32_t chunk_in(int rank, size_t i)
{
	return (uint32_t)(it.coll == TT_ALLGATHER ? (size_t)rank * COUNT + i : i);
}

static void begin(void)
{
	memset(it.value, 0, sizeof(it.value));
	memset(it.writer, 0, sizeof(it.writer));
	memset(it.reader, 0, sizeof(it.reader));
	for (int r = 0; r < it.p; r++)
		for (size_t i = 0; i < blocks(false) * COUNT; i++)
			if (it.coll != TT_BROADCAST || r == it.root)
				it.value[r][in_cell(r, i)] = tt_expr_leaf(it.exprs, r, chunk_in(r, i));
	it.npieces = tt_pieces(it.coll, it.p, it.root, COUNT, it.pieces);
	CHECK(it.npieces >= 0 && it.npieces <= it.p);
}

/* An element is read whole before it is written; marks are numbers of elements. */
static void run_element(const struct tt_piece *p, size_t i, uint32_t mark)
{
	uint32_t kids[TT_PIECE_RANKS], x;

	CHECK(p->nsrc >= 1 && p->ndst >= 1 && p->src + p->nsrc <= it.p && p->dst + p->ndst <= it.p);
	CHECK(p->src_at + i < blocks(false) * COUNT && p->dst_at + i < blocks(true) * COUNT);
	for (int k = 0; k < p->nsrc; k++) {
		uint32_t c = in_cell(p->src + k, p->src_at + i);

		kids[k] = it.value[p->src + k][c];
		CHECKF(kids[k], "an input that is not there is read");
		CHECKF(!it.writer[p->src + k][c], "what another element writes is read");
		it.reader[p->src + k][c] = it.reader[p->src + k][c] ? UINT32_MAX : mark; /* by many: nobody's */
	}
	x = p->nsrc == 1 ? kids[0] : tt_expr_reduce(it.exprs, kids, p->nsrc);
	for (int k = 0; k < p->ndst; k++) {
		uint32_t c = out_cell(p->dst + k, p->dst_at + i), by = it.reader[p->dst + k][c];

		CHECKF(!it.writer[p->dst + k][c], "written twice");
		CHECKF(!by || by == mark, "what another element reads is written");
		it.writer[p->dst + k][c] = mark;
		it.value[p->dst + k][c] = x;
	}
}

static void run(void)
{
	uint32_t mark = 0;

	for (int b = 0; b < it.npieces; b++)
		for (size_t i = 0; i < it.pieces[b].n; i++)
			run_element(&it.pieces[b], i, ++mark);
}

static void check_cell(int r, size_t i)
{
	uint32_t got = it.value[r][out_cell(r, i)], first = it.value[0][out_cell(0, i)];
	uint32_t chunk = (uint32_t)i + (it.coll == TT_REDUCESCATTER ? (uint32_t)r * COUNT : 0);
	const char *wrong = NULL;

	CHECKF(it.writer[r][out_cell(r, i)], "rank %d's output %zu is not written", r, i);
	if (it.coll == TT_ALLGATHER || it.coll == TT_BROADCAST)
		CHECK(got == tt_expr_leaf(it.exprs, it.coll == TT_BROADCAST ? it.root : (int)(i / COUNT), chunk));
	else
		wrong = tt_expr_wrong(it.exprs, got, chunk, true); /* in the order of ranks */
	CHECKF(!wrong, "rank %d's output %zu %s", r, i, wrong);
	if (it.coll == TT_ALLREDUCE)
		CHECK(got == first);
}

static void check_results(void)
{
	for (int r = 0; r < it.p; r++)
		for (size_t i = 0; i < blocks(true) * COUNT; i++)
			if (it.coll != TT_REDUCE || r == it.root)
				check_cell(r, i);
			else
				CHECKF(!it.writer[r][out_cell(r, i)], "rank %d, not the root, is written to", r);
	for (int r = 0; r < it.p; r++)
		for (size_t i = 0; !it.in_place[r] && i < blocks(false) * COUNT; i++)
			CHECKF(!it.writer[r][in_cell(r, i)], "rank %d's input is written to", r);
}

static void prove(uint64_t *random)
{
	int way = (int)(test_rand(random) % 3);

	for (int r = 0; r < it.p; r++)
		it.in_place[r] = way == 2 ? test_rand(random) % 2 == 1 : way == 1;
	it.exprs = tt_exprs_new(it.p, CELLS);
	CHECK(it.exprs);
	begin();
	run();
	check_results();
	tt_exprs_free(it.exprs);
}

static void collectives(void)
{
	static const enum tt_coll colls[] = { TT_ALLREDUCE, TT_ALLGATHER, TT_REDUCESCATTER, TT_BROADCAST, TT_REDUCE };
	int most = getenv("TEST_QUICK") ? 17 : TT_PIECE_RANKS;
	uint64_t random = test_seed();

	for (it.p = 1; it.p <= most; it.p++)
		for (int c = 0; c < 5; c++)
			for (int k = 0; k < 4; k++) {
				it.coll = colls[c];
				it.root = (int)(test_rand(&random) % (uint32_t)it.p);
				prove(&random);
			}
}

static void nothing(void)
{
	struct tt_piece none[TT_PIECE_RANKS];

	CHECK(tt_pieces(TT_BARRIER, 5, 0, 0, none) == 0);
	CHECK(tt_pieces(TT_ALLREDUCE, 5, 0, 0, none) == 0 && tt_pieces(TT_ALLGATHER, 5, 0, 0, none) == 0);
}

const struct test tests[] = {
	{ "every collective", collectives, 60 },
	{ "nothing to do", nothing, 0 },
};
const int ntests = sizeof(tests) / sizeof(tests[0]);
