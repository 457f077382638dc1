// Vectors as wide as this CPU's registers, in GCC's and Clang's vector extensions: one source for
// AVX-512, AVX2, SSE4.2 and NEON. No intrinsics, no C++ run-time library.
#pragma once

#include <stdint.h>

#define INLINE static inline __attribute__((always_inline))

// WIDTH floats in a vector register, REGISTERS such registers: what every tile size follows from.
#if defined(__AVX512F__)
constexpr int WIDTH = 16, REGISTERS = 32;
#elif defined(__AVX2__)
constexpr int WIDTH = 8, REGISTERS = 16;
#elif defined(__aarch64__)
constexpr int WIDTH = 4, REGISTERS = 32;
#else
constexpr int WIDTH = 4, REGISTERS = 16;
#endif

typedef float vfloat __attribute__((vector_size(4 * WIDTH)));
typedef int32_t vint __attribute__((vector_size(4 * WIDTH)));
typedef double vdouble __attribute__((vector_size(8 * WIDTH)));
typedef float vfloat_unaligned __attribute__((vector_size(4 * WIDTH), aligned(4), may_alias));
typedef double vdouble_unaligned __attribute__((vector_size(8 * WIDTH), aligned(8), may_alias));
typedef uint16_t vshort __attribute__((vector_size(2 * WIDTH)));
typedef uint8_t vbyte __attribute__((vector_size(WIDTH)));
typedef uint8_t vbyte_unaligned __attribute__((vector_size(WIDTH), aligned(1), may_alias));

INLINE vfloat load(const float* p) { return *(const vfloat_unaligned*)p; }
INLINE void store(float* p, vfloat v) { *(vfloat_unaligned*)p = v; }
INLINE vdouble load(const double* p) { return *(const vdouble_unaligned*)p; }
INLINE void store(double* p, vdouble v) { *(vdouble_unaligned*)p = v; }
INLINE vfloat broadcast(float x) { return x - vfloat{}; }  // x - 0 keeps the sign of zero

// GCC 12 makes one instruction of `vint{p[0], p[1], ...}`, and dozens of a conversion.
template <int... LANES>
struct Lanes {
  INLINE vint widen(const uint8_t* p) { return vint{p[LANES]...}; }
  // a[from], b[from], a[from + 1], b[from + 1], ...
  template <int FROM>
  INLINE vfloat interleave(vfloat a, vfloat b) {
#if defined(__clang__)
    return __builtin_shufflevector(a, b, (FROM + LANES / 2 + LANES % 2 * WIDTH)...);
#else
    return __builtin_shuffle(a, b, vint{(FROM + LANES / 2 + LANES % 2 * WIDTH)...});
#endif
  }
};
template <int COUNT, int... LANES>
struct LanesFrom0 : LanesFrom0<COUNT - 1, COUNT - 1, LANES...> {};
template <int... LANES>
struct LanesFrom0<0, LANES...> : Lanes<LANES...> {};
INLINE vint load_bytes(const uint8_t* p) { return LanesFrom0<WIDTH>::widen(p); }

// Exchanges rows and columns of WIDTH vectors: each pass interleaves the first half of them with the
// second.
INLINE void transpose(vfloat* square) {
  for (int pass = 1; pass < WIDTH; pass *= 2) {
    vfloat next[WIDTH];
#pragma GCC unroll 16
    for (int i = 0; i < WIDTH / 2; i++) {
      next[2 * i] = LanesFrom0<WIDTH>::template interleave<0>(square[i], square[i + WIDTH / 2]);
      next[2 * i + 1] =
          LanesFrom0<WIDTH>::template interleave<WIDTH / 2>(square[i], square[i + WIDTH / 2]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < WIDTH; i++) square[i] = next[i];
  }
}
INLINE void store_bytes(uint8_t* p, vint v) {
#if defined(__AVX512F__)
  *(vbyte_unaligned*)p = __builtin_convertvector(v, vbyte);
#else  // half the instructions in two steps
  *(vbyte_unaligned*)p = __builtin_convertvector(__builtin_convertvector(v, vshort), vbyte);
#endif
}

// The first n (at most WIDTH) lanes; the others are zero, and memory behind them is not touched.
static __attribute__((noinline)) vfloat load_lanes(const float* p, int n) {
  float lanes[WIDTH] = {};
  for (int i = 0; i < n; i++) lanes[i] = p[i];
  return load(lanes);
}
static __attribute__((noinline)) void store_lanes(float* p, vfloat v, int n) {
  float lanes[WIDTH];
  store(lanes, v);
  for (int i = 0; i < n; i++) p[i] = lanes[i];
}
INLINE vfloat load_partial(const float* p, int n) {
  return n >= WIDTH ? load(p) : load_lanes(p, n);
}
INLINE void store_partial(float* p, vfloat v, int n) {
  if (n >= WIDTH)
    store(p, v);
  else
    store_lanes(p, v, n);
}

// A comparison gives a mask: all bits of a lane where it holds.
INLINE vfloat select(vint mask, vfloat a, vfloat b) { return mask ? a : b; }
INLINE vint select(vint mask, vint a, vint b) { return mask ? a : b; }

INLINE vdouble to_double(vfloat v) { return __builtin_convertvector(v, vdouble); }
INLINE vfloat to_float(vdouble v) { return __builtin_convertvector(v, vfloat); }

INLINE constexpr int round_up(int n, int multiple) {
  return (n + multiple - 1) / multiple * multiple;
}
INLINE constexpr int smaller(int a, int b) { return a < b ? a : b; }
INLINE constexpr int larger(int a, int b) { return a > b ? a : b; }
