/* Floor 1: 16- and 8-bit floats from and to float32, the same bits on the host and on CUDA devices (C and C++).
 * Selections instead of branches, so that the loops over them vectorise. */
#ifndef TT_REDUCE_CONVERT_H
#define TT_REDUCE_CONVERT_H

#include <stdint.h>
#include <string.h>

#if defined(__CUDACC__)
#define TT_CONVERT static __device__ __forceinline__
#else
#define TT_CONVERT static inline __attribute__((unused))
#endif

TT_CONVERT uint32_t bits_of(float f)
{
	uint32_t u;

	memcpy(&u, &f, sizeof(u));
	return u;
}

TT_CONVERT float float_of(uint32_t u)
{
	float f;

	memcpy(&f, &u, sizeof(f));
	return f;
}

TT_CONVERT float bf16_to(uint16_t h)
{
	return float_of((uint32_t)h << 16);
}

TT_CONVERT uint16_t bf16_from(float f)
{
	uint32_t u = bits_of(f);
	uint32_t rounded = (u + 0x7fff + (u >> 16 & 1)) >> 16;
	uint32_t nan = u >> 16 | 0x40;

	return (uint16_t)((u & 0x7fffffff) > 0x7f800000 ? nan : rounded);
}

/* As the CPU's own instruction where there is one: NaN payloads are cut and made quiet. */
TT_CONVERT float f16_to(uint16_t h)
{
	uint32_t e = h >> 10 & 0x1f, m = h & 0x3ff;
	uint32_t normal = (e + 112) << 23 | m << 13;
	uint32_t small = bits_of((float)(int32_t)m * 0x1p-24f);
	uint32_t special = 0x7f800000 | m << 13 | (m ? 0x400000 : 0);
	uint32_t u = e == 0 ? small : normal;

	u = e == 0x1f ? special : u;
	return float_of(u | (uint32_t)(h & 0x8000) << 16);
}

/* Adding 0.5 to a number below 2^-14 rounds it to a multiple of 2^-24 in the low bits of the sum. */
TT_CONVERT uint16_t f16_from(float f)
{
	uint32_t u = bits_of(f), a = u & 0x7fffffff;
	uint32_t small = bits_of(float_of(a) + 0.5f) - 0x3f000000;
	uint32_t normal = (a + 0xfff + (a >> 13 & 1) - (112u << 23)) >> 13;
	uint32_t nan = 0x7e00 | (a >> 13 & 0x3ff);
	uint32_t r = a < 0x38800000 ? small : normal;

	r = a >= 0x47800000 ? 0x7c00 : r;
	r = a > 0x7f800000 ? nan : r;
	return (uint16_t)(r | (u >> 16 & 0x8000));
}

/* e4m3 has no infinity, and one NaN of each sign. */
TT_CONVERT float e4m3_to(uint8_t b)
{
	uint32_t e = b >> 3 & 0xf, m = b & 7;
	uint32_t normal = (e + 120) << 23 | m << 20;
	uint32_t small = bits_of((float)(int32_t)m * 0x1p-9f);
	uint32_t u = e == 0 ? small : normal;

	u = (b & 0x7f) == 0x7f ? 0x7fc00000 : u;
	return float_of(u | (uint32_t)(b & 0x80) << 24);
}

TT_CONVERT float e5m2_to(uint8_t b)
{
	uint32_t e = b >> 2 & 0x1f, m = b & 3;
	uint32_t normal = (e + 112) << 23 | m << 21;
	uint32_t small = bits_of((float)(int32_t)m * 0x1p-16f);
	uint32_t special = 0x7f800000 | m << 21 | (m ? 0x400000 : 0);
	uint32_t u = e == 0 ? small : normal;

	u = e == 0x1f ? special : u;
	return float_of(u | (uint32_t)(b & 0x80) << 24);
}

/* Both 8-bit types saturate, as CUDA's conversions do by default: what is beyond the largest finite
 * number, infinities included, becomes that number; NaN becomes 0x7f. */
TT_CONVERT uint8_t e4m3_from(float f)
{
	uint32_t u = bits_of(f), a = u & 0x7fffffff;
	uint32_t small = bits_of(float_of(a) + 0x1p14f) - 0x46800000;
	uint32_t normal = (a + 0x7ffff + (a >> 20 & 1) - (120u << 23)) >> 20;
	uint32_t r = a < 0x3c800000 ? small : normal;

	r = r > 0x7e ? 0x7e : r;
	r |= u >> 24 & 0x80;
	return (uint8_t)(a > 0x7f800000 ? 0x7f : r);
}

TT_CONVERT uint8_t e5m2_from(float f)
{
	uint32_t u = bits_of(f), a = u & 0x7fffffff;
	uint32_t small = bits_of(float_of(a) + 0x1p7f) - 0x43000000;
	uint32_t normal = (a + 0xfffff + (a >> 21 & 1) - (112u << 23)) >> 21;
	uint32_t r = a < 0x38800000 ? small : normal;

	r = r > 0x7b ? 0x7b : r;
	r |= u >> 24 & 0x80;
	return (uint8_t)(a > 0x7f800000 ? 0x7f : r);
}

#undef TT_CONVERT
#endif
