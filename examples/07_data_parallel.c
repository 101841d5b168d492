/* Data-parallel training: each rank has its own part of the data, gradients are averaged by AllReduce,
 * and as the result has the same bits on all ranks, so have the models, for ever. Fits y = w.x + b by
 * gradient descent. Run it with tutti-run -n 4. SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <tutti.h>

enum { FEATURES = 16, SAMPLES = 256, STEPS = 300, PARAMS = FEATURES + 1 };

static tuttiComm_t comm;

/* Uniform in [-1, 1]. */
static float noise(uint64_t *state)
{
	*state = *state * 6364136223846793005ull + 1442695040888963407ull;
	return (float)((double)(*state >> 33) / 0x1p30 - 1);
}

static float truth(int i)
{
	return 0.25f * (float)(i % 7) - 0.5f;
}

static float predict(const float *model, const float *x)
{
	float y = model[FEATURES];

	for (int i = 0; i < FEATURES; i++)
		y += model[i] * x[i];
	return y;
}

static void make_data(int rank, float x[SAMPLES][FEATURES], float y[SAMPLES])
{
	uint64_t state = 12345 + (uint64_t)rank;
	float right[PARAMS];

	for (int i = 0; i < PARAMS; i++)
		right[i] = truth(i);
	for (int s = 0; s < SAMPLES; s++) {
		for (int i = 0; i < FEATURES; i++)
			x[s][i] = noise(&state);
		y[s] = predict(right, x[s]) + 0.01f * noise(&state);
	}
}

/* Adds up this rank's gradient; the last element is its loss. */
static void gradient(float x[SAMPLES][FEATURES], const float *y, const float *model, float *out)
{
	memset(out, 0, (PARAMS + 1) * sizeof *out);
	for (int s = 0; s < SAMPLES; s++) {
		float error = predict(model, x[s]) - y[s];

		for (int i = 0; i < FEATURES; i++)
			out[i] += 2 * error * x[s][i] / SAMPLES;
		out[FEATURES] += 2 * error / SAMPLES;
		out[PARAMS] += error * error / SAMPLES;
	}
}

/* The same bits on all ranks if the smallest and the largest, taken as integers, are equal. */
static int same_everywhere(const float *model)
{
	uint32_t lo[PARAMS], hi[PARAMS];

	if (tuttiAllReduce(model, lo, PARAMS, tuttiUint32, tuttiMin, comm, NULL) != tuttiSuccess ||
	    tuttiAllReduce(model, hi, PARAMS, tuttiUint32, tuttiMax, comm, NULL) != tuttiSuccess)
		return 0;
	return memcmp(lo, hi, sizeof lo) == 0;
}

int main(void)
{
	static float x[SAMPLES][FEATURES], y[SAMPLES];
	float model[PARAMS] = { 0 }, g[PARAMS + 1], worst = 0;
	int rank, same;

	if (tuttiCommInitFromEnv(&comm, NULL) != tuttiSuccess)
		goto fail;
	tuttiCommUserRank(comm, &rank);
	make_data(rank, x, y);
	for (int step = 0; step < STEPS; step++) {
		gradient(x, y, model, g);
		if (tuttiAllReduce(g, g, PARAMS + 1, tuttiFloat32, tuttiAvg, comm, NULL) != tuttiSuccess)
			goto fail;
		for (int i = 0; i < PARAMS; i++)
			model[i] -= 0.3f * g[i];
		if (rank == 0 && step % 50 == 0)
			printf("step %3d: loss %.6f\n", step, (double)g[PARAMS]);
	}
	for (int i = 0; i < PARAMS; i++)
		worst = fmaxf(worst, fabsf(model[i] - truth(i)));
	same = same_everywhere(model);
	if (rank == 0)
		printf("largest error %.4f, models %s on all ranks\n", (double)worst,
		       same ? "equal" : "NOT equal");
	tuttiCommDestroy(comm);
	return !(same && worst < 0.01f);
fail:
	fprintf(stderr, "%s\n", tuttiGetLastError(NULL));
	return 1;
}
