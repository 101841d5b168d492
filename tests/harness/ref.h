/* What every collective must give, computed plainly: inputs are a function of (seed, rank, index), so that
 * any rank can check any element without having seen the others' buffers. SPDX-License-Identifier: Apache-2.0
 *
 * Tolerance. Integers, min, max and user operators are exact. Sums and products of floats round once per
 * step, in an order that the schedule chooses: with s steps of unit roundoff u the result may differ from
 * the true value by ((1 + u)^s - 1) * (sum of the magnitudes). Because that says little where u is large
 * (fp8), half of the cases use data whose partial results are all representable: there, equality. */
#ifndef TT_REF_H
#define TT_REF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tutti.h"

enum { REF_PREMULSUM = 5, REF_USER = 6, REF_COPY = 7, REF_NOPS = 7 }; /* after tuttiSum .. tuttiAvg */

struct ref_case {
	uint64_t seed;
	tuttiDataType_t type;
	int op;            /* tuttiSum .. tuttiAvg, REF_PREMULSUM, REF_USER, or REF_COPY: any bits */
	int n;             /* ranks */
	bool wide;         /* floats: values that round; else all partial results are representable */
	bool nans;         /* floats: some elements are NaN on one rank; the result must be */
	bool commutative;  /* user operator: xor, else the composition of affine maps */
};

uint64_t ref_mix(uint64_t a, uint64_t b);
size_t ref_size(tuttiDataType_t type);
const char *ref_type_name(tuttiDataType_t type);
const char *ref_op_name(int op);
bool ref_is_float(tuttiDataType_t type);
double ref_decode(uint64_t bits, tuttiDataType_t type);   /* float types */
uint64_t ref_encode(double value, tuttiDataType_t type);  /* to nearest, ties to even */

/* Elements first .. first+count-1 of what `rank` puts in; dst may be unaligned. */
void ref_fill(const struct ref_case *c, int rank, size_t first, size_t count, void *dst);
/* The scalar of REF_PREMULSUM of `rank`, one element. */
void ref_scalar(const struct ref_case *c, int rank, void *dst);
/* The function of REF_USER; context is the const struct ref_case. */
void ref_user(const void *in, void *inout, size_t count, tuttiDataType_t type, void *context);
/* Is *got what reducing element i over all ranks may give? Else *why says what was expected. */
bool ref_check(const struct ref_case *c, size_t i, const void *got, char *why, size_t size);
/* The index of the first bad element of count, or count; got[0] is element `first`. */
size_t ref_check_all(const struct ref_case *c, size_t first, size_t count, const void *got, char *why,
		     size_t size);
/* The same for moved data: got[0] must be element `first` of `rank`, bit by bit. */
size_t ref_check_copy(const struct ref_case *c, int rank, size_t first, size_t count, const void *got,
		      char *why, size_t size);
uint64_t ref_hash(const void *p, size_t n);

#endif
