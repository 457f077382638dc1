// Vectors as wide as this CPU's registers, in GCC's and Clang's vector extensions: one source for
// AVX-512, AVX2, SSE4.2 and NEON. No intrinsics, no C++ run-time library.
#include <float.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

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
};
template <int COUNT, int... LANES>
struct LanesFrom0 : LanesFrom0<COUNT - 1, COUNT - 1, LANES...> {};
template <int... LANES>
struct LanesFrom0<0, LANES...> : Lanes<LANES...> {};
INLINE vint load_bytes(const uint8_t* p) { return LanesFrom0<WIDTH>::widen(p); }
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

// Every library answers with this number: one that does not is not ours, or not whole.
extern "C" int mnist_bn_kernels_version() { return 1; }
extern "C" int vector_width() { return WIDTH; }

// Every layer but convolution, and the update rules.
//
// An array is seen as rows of channels: (N, H, W, C) in memory is N*H*W rows of C floats, (N, C) is
// N rows. Nothing is checked here: the callers in layers.py and updates.py answer for shapes and
// memory.

// ---------------------------------------------------------------------------------------------
// Channels go through the vector unit in tiles of WIDTH.

#define MEMBER __attribute__((always_inline))

// WIDTH channels. Where channels are no multiple of WIDTH, the last tile overlaps the one before
// it: the same lanes are computed twice, and sums leave out the first `skip` of them.
struct FullTile {
  int skip;
  MEMBER vfloat load(const float* p) const { return ::load(p); }
  MEMBER vfloat load_constant(const float* p) const { return ::load(p); }
  MEMBER void store(float* p, vfloat v) const { ::store(p, v); }
  MEMBER vint load_bytes(const uint8_t* p) const { return ::load_bytes(p); }
  MEMBER void store_bytes(uint8_t* p, vint v) const { ::store_bytes(p, v); }
  MEMBER int lanes() const { return WIDTH; }
};

// All channels of a row that has fewer than WIDTH.
struct NarrowTile {
  static constexpr int skip = 0;
  int count;
  MEMBER vfloat load(const float* p) const { return load_partial(p, count); }
  MEMBER vfloat load_constant(const float* p) const { return load_partial(p, count); }
  MEMBER void store(float* p, vfloat v) const { store_partial(p, v, count); }
  MEMBER vint load_bytes(const uint8_t* p) const {
    uint8_t bytes[WIDTH] = {};
    memcpy(bytes, p, count);
    return ::load_bytes(bytes);
  }
  MEMBER void store_bytes(uint8_t* p, vint v) const {
    uint8_t bytes[WIDTH];
    ::store_bytes(bytes, v);
    memcpy(p, bytes, count);
  }
  MEMBER int lanes() const { return count; }
};

// The same, much faster, where WIDTH floats from the row's first one on are the array's own: the
// lanes behind the row hold the next rows, are ignored, and are stored anew when those rows come.
struct LooseTile : NarrowTile {
  MEMBER vfloat load(const float* p) const { return ::load(p); }
  MEMBER void store(float* p, vfloat v) const { ::store(p, v); }
};

template <class Body>
INLINE void for_channel_tiles(int64_t channels, Body body) {
  if (channels < WIDTH) return body(0, NarrowTile{(int)channels});
  int64_t c = 0;
  for (; c + WIDTH <= channels; c += WIDTH) body(c, FullTile{0});
  if (c < channels) body(channels - WIDTH, FullTile{(int)(c + WIDTH - channels)});
}

// As many rows as are still in the L1 cache when they are read again: 4096 floats, 16 of its 32
// KiB.
INLINE int64_t rows_in_cache(int64_t channels) { return channels < 256 ? 4096 / channels : 16; }

// One row after the other, as memory lies; narrow ones many at once, to load their constants once.
INLINE int64_t rows_in_order(int64_t channels) {
  return channels <= WIDTH ? rows_in_cache(channels) : 1;
}

// Calls body(first row, number of rows, first channel, tile) for all rows and channels, rows
// ascending, at most `step` rows at once.
template <class Body>
INLINE void for_tiles(int64_t rows, int64_t channels, int64_t step, Body body) {
  int64_t first = 0;
  auto steps_to = [&](int64_t end, auto block) {
    for (; first < end; first += step) block(end - first < step ? end - first : step);
    first = end;
  };
  if (channels >= WIDTH)
    return steps_to(rows, [&](int64_t count) {
      for_channel_tiles(channels, [&](int64_t c, auto tile) { body(first, count, c, tile); });
    });
  const NarrowTile narrow{(int)channels};
  if (rows > WIDTH)
    steps_to(rows - WIDTH, [&](int64_t count) { body(first, count, 0, LooseTile{narrow}); });
  body(first, rows - first, 0, narrow);
}

// ---------------------------------------------------------------------------------------------
// Batch Normalization.

// Adds up what terms(row, a, b) adds to a and b: floats within 16 rows, doubles across them, so
// that the error is a few roundings of the sum however many rows there are.
template <class Terms>
INLINE void add_rows(int64_t count, vdouble& first, vdouble& second, Terms terms) {
  for (int64_t r = 0; r < count;) {
    const int64_t end = count - r < 16 ? count : r + 16;
    vfloat a[2] = {}, b[2] = {};  // two chains of additions hide the latency of one
    for (; r + 2 <= end; r += 2) terms(r, a[0], b[0]), terms(r + 1, a[1], b[1]);
    if (r < end) terms(r++, a[0], b[0]);
    first += to_double(a[0] + a[1]);
    second += to_double(b[0] + b[1]);
  }
}

// The sums over rows of (x - origin) and (x - origin)^2, origin being about the mean of the first
// rows.
//
// Within a block of rows, floats: deviations from the block's own mean, small whatever the mean is.
// Across blocks, doubles. So a large mean with a tiny variance costs no digits, and memory is read
// once.
static void bn_sums(const float* x, int64_t rows, int64_t channels, double* origin, double* sums,
                    double* squares) {
  memset(sums, 0, channels * sizeof(double));
  memset(squares, 0, channels * sizeof(double));
  for_tiles(rows, channels, rows_in_cache(channels),
            [&](int64_t first, int64_t count, int64_t c, auto tile) {
              const float* column = x + first * channels + c;
              vfloat total[4] = {};
              int64_t r = 0;
              for (; r + 4 <= count; r += 4)
                for (int k = 0; k < 4; k++) total[k] += tile.load(column + (r + k) * channels);
              for (; r < count; r++) total[0] += tile.load(column + r * channels);
              const vfloat mean =
                  ((total[0] + total[1]) + (total[2] + total[3])) / broadcast((float)count);

              vdouble deviation = {}, square = {};
              add_rows(count, deviation, square, [&](int64_t row, vfloat& a, vfloat& b) MEMBER {
                const vfloat d = tile.load(column + row * channels) - mean;
                a += d;
                b += d * d;
              });

              for (int k = tile.skip; k < tile.lanes(); k++) {
                // An infinite mean must stay one in the sum: its deviations are NaN, and so is the
                // variance.
                const bool finite = mean[k] - mean[k] == 0;
                if (first == 0) origin[c + k] = finite ? mean[k] : 0;
                const double offset = mean[k] - origin[c + k], rest = finite ? deviation[k] : 0;
                sums[c + k] += offset * count + rest;
                squares[c + k] += offset * (offset * count + 2 * rest) + square[k];
              }
            });
}

// y = (x - mean) * scale + shift
static void normalize(const float* x, int64_t rows, int64_t channels, const float* mean,
                      const float* scale, const float* shift, float* y) {
  for_tiles(rows, channels, rows_in_order(channels),
            [&](int64_t first, int64_t count, int64_t c, auto tile) {
              const vfloat m = tile.load_constant(mean + c), a = tile.load_constant(scale + c),
                           b = tile.load_constant(shift + c);
              const int64_t start = first * channels + c;
              for (int64_t i = start; i < start + count * channels; i += channels)
                tile.store(y + i, (tile.load(x + i) - m) * a + b);
            });
}

// The sums over rows of gy and of gy * (x - mean).
static void bn_gradient_sums(const float* x, const float* gy, int64_t rows, int64_t channels,
                             const float* mean, double* sums, double* products) {
  memset(sums, 0, channels * sizeof(double));
  memset(products, 0, channels * sizeof(double));
  for_tiles(rows, channels, rows_in_cache(channels),
            [&](int64_t first, int64_t count, int64_t c, auto tile) {
              const vfloat m = tile.load_constant(mean + c);
              const int64_t start = first * channels + c;
              vdouble sum = {}, product = {};
              add_rows(count, sum, product, [&](int64_t row, vfloat& a, vfloat& b) MEMBER {
                const int64_t i = start + row * channels;
                const vfloat g = tile.load(gy + i);
                a += g;
                b += g * (tile.load(x + i) - m);
              });
              for (int k = tile.skip; k < tile.lanes(); k++) {
                sums[c + k] += sum[k];
                products[c + k] += product[k];
              }
            });
}

extern "C" {

// y = gamma * (x - mean) / sqrt(var + eps) + beta with the batch's own statistics; the running
// ones, where given, move by 1 - decay. workspace: 4 * channels doubles.
void bn_forward(const float* x, int64_t rows, int64_t channels, const float* gamma,
                const float* beta, double eps, double decay, float* running_mean,
                float* running_var, float* mean, float* var, float* inv_std, float* y,
                double* workspace) {
  double *origin = workspace, *sums = origin + channels, *squares = sums + channels;
  float *scale = (float*)(squares + channels), *shift = scale + channels;
  bn_sums(x, rows, channels, origin, sums, squares);
  const double unbiased = rows > 1 ? rows / (rows - 1.0) : 1;
  for (int64_t c = 0; c < channels; c++) {
    const double offset = sums[c] / rows, exact_mean = origin[c] + offset;
    double variance = squares[c] / rows - offset * offset;
    if (variance < 0) variance = 0;  // NaN stays NaN
    const double exact_inv_std = 1 / sqrt(variance + eps);
    mean[c] = (float)exact_mean;
    var[c] = (float)variance;
    inv_std[c] = (float)exact_inv_std;
    scale[c] = (float)(gamma[c] * exact_inv_std);
    // What rounding took from the mean goes into the shift.
    shift[c] = (float)(beta[c] - (exact_mean - mean[c]) * scale[c]);
    if (running_mean) {
      running_mean[c] = (float)(running_mean[c] * decay + (1 - decay) * exact_mean);
      running_var[c] = (float)(running_var[c] * decay + (1 - decay) * unbiased * variance);
    }
  }
  normalize(x, rows, channels, mean, scale, shift, y);
}

// The gradients of bn_forward. workspace: 4 * channels doubles.
void bn_backward(const float* x, const float* gy, int64_t rows, int64_t channels,
                 const float* gamma, const float* mean, const float* inv_std, float* gx,
                 float* ggamma, float* gbeta, double* workspace) {
  double *sums = workspace, *products = sums + channels;
  float *scale = (float*)(products + channels), *average = scale + channels,
        *slope = average + channels;
  bn_gradient_sums(x, gy, rows, channels, mean, sums, products);
  for (int64_t c = 0; c < channels; c++) {
    gbeta[c] = (float)sums[c];
    ggamma[c] = (float)(products[c] * inv_std[c]);
    scale[c] = gamma[c] * inv_std[c];
    average[c] = (float)(sums[c] / rows);
    slope[c] = (float)(products[c] * inv_std[c] * inv_std[c] / rows);
  }
  for_tiles(rows, channels, rows_in_order(channels),
            [&](int64_t first, int64_t count, int64_t c, auto tile) {
              const vfloat a = tile.load_constant(scale + c), b = tile.load_constant(average + c),
                           s = tile.load_constant(slope + c), m = tile.load_constant(mean + c);
              const int64_t start = first * channels + c;
              for (int64_t i = start; i < start + count * channels; i += channels)
                tile.store(gx + i, a * (tile.load(gy + i) - b - (tile.load(x + i) - m) * s));
            });
}

// Batch Normalization with given statistics. workspace: channels doubles.
void bn_fixed_forward(const float* x, int64_t rows, int64_t channels, const float* gamma,
                      const float* beta, const float* mean, const float* var, double eps,
                      float* inv_var, float* inv_std, float* y, double* workspace) {
  float* scale = (float*)workspace;
  for (int64_t c = 0; c < channels; c++) {
    const double exact_inv_var = 1 / (var[c] + eps);
    inv_var[c] = (float)exact_inv_var;
    inv_std[c] = (float)sqrt(exact_inv_var);
    scale[c] = (float)(gamma[c] * sqrt(exact_inv_var));
  }
  normalize(x, rows, channels, mean, scale, beta, y);
}

// Its gradients for x, gamma and beta. workspace: 3 * channels doubles.
void bn_fixed_backward(const float* x, const float* gy, int64_t rows, int64_t channels,
                       const float* gamma, const float* mean, const float* inv_std, float* gx,
                       float* ggamma, float* gbeta, double* workspace) {
  double *sums = workspace, *products = sums + channels;
  float *scale = (float*)(products + channels), *zero = scale + channels;
  bn_gradient_sums(x, gy, rows, channels, mean, sums, products);
  for (int64_t c = 0; c < channels; c++) {
    gbeta[c] = (float)sums[c];
    ggamma[c] = (float)(products[c] * inv_std[c]);
    scale[c] = gamma[c] * inv_std[c];
    zero[c] = 0;
  }
  normalize(gy, rows, channels, zero, scale, zero, gx);
}

// ---------------------------------------------------------------------------------------------
// ReLU.

void relu_forward(const float* __restrict x, int64_t size, float* __restrict y) {
  for (int64_t i = 0; i < size; i++) y[i] = x[i] <= 0 ? 0 : x[i];  // NaN stays NaN
}

// A product and no selection: 0 * Inf and 0 * NaN are NaN, as in Chainer.
void relu_backward(const float* __restrict y, const float* __restrict gy, int64_t size,
                   float* __restrict gx) {
  for (int64_t i = 0; i < size; i++) gx[i] = gy[i] * (y[i] > 0 ? 1.0f : 0.0f);
}
}  // extern "C"

// ---------------------------------------------------------------------------------------------
// Max pooling over 2x2 windows, stride 2. A window's positions are numbered 0 1 / 2 3; at the right
// and lower edge of an odd map some of them do not exist.

INLINE void take_larger(vfloat value, int position, vfloat& largest, vint& index) {
  // The first of equals wins, and the first NaN over all: not (value <= largest) is true for NaN.
  const vint taken = ~(value <= largest) & (largest == largest);
  largest = select(taken, value, largest);
  index = (taken & position) | (~taken & index);
}

template <bool RIGHT, bool DOWN, class Tile>
INLINE void pool_window(const float* x, int64_t row, int64_t channels, Tile tile, float* y,
                        uint8_t* indexes) {
  vfloat largest = tile.load(x);
  vint index = {};
  if (RIGHT) take_larger(tile.load(x + channels), 1, largest, index);
  if (DOWN) take_larger(tile.load(x + row), 2, largest, index);
  if (RIGHT && DOWN) take_larger(tile.load(x + row + channels), 3, largest, index);
  tile.store(y, largest);
  tile.store_bytes(indexes, index);
}

template <bool RIGHT, bool DOWN, class Tile>
INLINE void unpool_window(const float* gy, const uint8_t* indexes, int64_t row, int64_t channels,
                          Tile tile, float* gx) {
  const vfloat gradient = tile.load(gy), zero = {};
  const vint index = tile.load_bytes(indexes);
  tile.store(gx, select(index == 0, gradient, zero));
  if (RIGHT) tile.store(gx + channels, select(index == 1, gradient, zero));
  if (DOWN) tile.store(gx + row, select(index == 2, gradient, zero));
  if (RIGHT && DOWN) tile.store(gx + row + channels, select(index == 3, gradient, zero));
}

struct Yes {
  static constexpr bool value = true;
};
struct No {
  static constexpr bool value = false;
};

// Calls window(input offset, output offset, is there a right column, a lower row) for every window
// of one image, the two flags as compile-time constants.
template <class Window>
INLINE void for_windows(int64_t height, int64_t width, int64_t channels, int64_t out_height,
                        int64_t out_width, Window window) {
  const int64_t row = width * channels, whole = width / 2 < out_width ? width / 2 : out_width;
  for (int64_t i = 0; i < out_height; i++) {
    const int64_t in = 2 * i * row, out = i * out_width * channels;
    auto line = [&](auto down) {
      for (int64_t j = 0; j < whole; j++)
        window(in + 2 * j * channels, out + j * channels, Yes{}, down);
      if (whole < out_width) window(in + 2 * whole * channels, out + whole * channels, No{}, down);
    };
    if (2 * i + 1 < height)
      line(Yes{});
    else
      line(No{});
  }
}

extern "C" {

void max_pool_forward(const float* x, int64_t images, int64_t height, int64_t width,
                      int64_t channels, int64_t out_height, int64_t out_width, float* y,
                      uint8_t* indexes) {
  const int64_t row = width * channels;
  for (int64_t n = 0; n < images; n++) {
    const int64_t out_image = n * out_height * out_width * channels;
    const float* image = x + n * height * row;
    for_windows(height, width, channels, out_height, out_width,
                [&](int64_t in, int64_t out, auto right, auto down) {
                  for_channel_tiles(channels, [&](int64_t c, auto tile) {
                    const int64_t o = out_image + out + c;
                    pool_window<decltype(right)::value, decltype(down)::value>(
                        image + in + c, row, channels, tile, y + o, indexes + o);
                  });
                });
  }
}

void max_pool_backward(const float* gy, const uint8_t* indexes, int64_t images, int64_t height,
                       int64_t width, int64_t channels, int64_t out_height, int64_t out_width,
                       float* gx) {
  const int64_t row = width * channels;
  for (int64_t n = 0; n < images; n++) {
    const int64_t out_image = n * out_height * out_width * channels;
    float* image = gx + n * height * row;
    for_windows(height, width, channels, out_height, out_width,
                [&](int64_t in, int64_t out, auto right, auto down) {
                  for_channel_tiles(channels, [&](int64_t c, auto tile) {
                    const int64_t o = out_image + out + c;
                    unpool_window<decltype(right)::value, decltype(down)::value>(
                        gy + o, indexes + o, row, channels, tile, image + in + c);
                  });
                });
    // An odd last column or row that no window covers.
    if (2 * out_width < width)
      for (int64_t i = 0; i < height; i++)
        memset(image + i * row + 2 * out_width * channels, 0, channels * sizeof(float));
    if (2 * out_height < height) memset(image + 2 * out_height * row, 0, row * sizeof(float));
  }
}

// ---------------------------------------------------------------------------------------------
// Average pooling over a whole map of `points` places.

void average_pool_forward(const float* x, int64_t images, int64_t points, int64_t channels,
                          float* y) {
  for (int64_t n = 0; n < images; n++)
    for_channel_tiles(channels, [&](int64_t c, auto tile) {
      const float* column = x + n * points * channels + c;
      vfloat total[2] = {};
      int64_t p = 0;
      for (; p + 2 <= points; p += 2)
        for (int k = 0; k < 2; k++) total[k] += tile.load(column + (p + k) * channels);
      if (p < points) total[0] += tile.load(column + p * channels);
      tile.store(y + n * channels + c, (total[0] + total[1]) / broadcast((float)points));
    });
}

void average_pool_backward(const float* gy, int64_t images, int64_t points, int64_t channels,
                           float* gx) {
  for (int64_t n = 0; n < images; n++)
    for_channel_tiles(channels, [&](int64_t c, auto tile) {
      const vfloat share = tile.load(gy + n * channels + c) / broadcast((float)points);
      for (int64_t p = 0; p < points; p++) tile.store(gx + (n * points + p) * channels + c, share);
    });
}

// ---------------------------------------------------------------------------------------------
// Dropout, with the bits that numpy.random.rand() would draw from the same generator.

struct MT19937 {  // NumPy's own layout, at bit_generator.ctypes.state_address
  uint32_t key[624];
  int32_t position;
};
}  // extern "C"

// One turn of the Mersenne Twister (Matsumoto and Nishimura, 1998): all 624 words anew.
static void mt19937_turn(MT19937* state) {
  uint32_t* key = state->key;
  auto twist = [](uint32_t upper, uint32_t lower) {
    const uint32_t y = (upper & 0x80000000u) | (lower & 0x7fffffffu);
    return (y >> 1) ^ (-(y & 1) & 0x9908b0dfu);
  };
  int i = 0;
  for (; i < 624 - 397; i++) key[i] = key[i + 397] ^ twist(key[i], key[i + 1]);
  for (; i < 623; i++) key[i] = key[i - (624 - 397)] ^ twist(key[i], key[i + 1]);
  key[623] = key[396] ^ twist(key[623], key[0]);
  state->position = 0;
}

INLINE uint32_t mt19937_temper(uint32_t y) {
  y ^= y >> 11;
  y ^= (y << 7) & 0x9d2c5680u;
  y ^= (y << 15) & 0xefc60000u;
  return y ^ (y >> 18);
}

INLINE uint32_t mt19937_word(MT19937* state) {
  if (state->position == 624) mt19937_turn(state);
  return mt19937_temper(state->key[state->position++]);
}

// rand() is the 53 bits of two words, over 2^53.
INLINE int64_t rand_bits(uint32_t first, uint32_t second) {
  return (int64_t)(first >> 5) << 26 | second >> 6;
}

extern "C" {

// mask = scale where rand() >= ratio, else 0; y = x * mask. least: ratio * 2^53, rounded up.
void dropout_forward(MT19937* state, const float* __restrict x, int64_t size, int64_t least,
                     float scale, float* __restrict mask, float* __restrict y) {
  uint32_t words[624];
  for (int64_t i = 0; i < size;) {
    if (state->position >= 623) {  // the two words of a number may lie in two turns
      const uint32_t first = mt19937_word(state), second = mt19937_word(state);
      mask[i] = rand_bits(first, second) >= least ? scale : 0;
      y[i] = x[i] * mask[i];
      i++;
      continue;
    }
    const int64_t pairs = (624 - state->position) / 2, count = size - i < pairs ? size - i : pairs;
    const uint32_t* key = state->key + state->position;
    for (int64_t k = 0; k < 2 * count; k++) words[k] = mt19937_temper(key[k]);
    for (int64_t k = 0; k < count; k++)
      mask[i + k] = rand_bits(words[2 * k], words[2 * k + 1]) >= least ? scale : 0;
    for (int64_t k = 0; k < count; k++) y[i + k] = x[i + k] * mask[i + k];
    state->position += 2 * count;
    i += count;
  }
}

// ---------------------------------------------------------------------------------------------
// Softmax cross-entropy and accuracy over (rows, classes).

// softmax is the probabilities, loss[0] the mean over the rows that count. Returns how many those
// are, or -1 where a label is neither ignored nor in 0 .. classes-1 (then nothing is to be used).
int64_t softmax_cross_entropy_forward(const float* x, const int32_t* labels, int64_t rows,
                                      int64_t classes, int64_t ignored, int64_t normalize_by_valid,
                                      float* softmax, float* loss) {
  double total = 0;
  int64_t valid = 0;
  for (int64_t r = 0; r < rows; r++, x += classes, softmax += classes) {
    float largest = x[0], sum = 0;
    for (int64_t c = 1; c < classes; c++) largest = x[c] > largest ? x[c] : largest;
    for (int64_t c = 0; c < classes; c++) sum += softmax[c] = expf(x[c] - largest);
    const float inverse = 1 / sum;
    for (int64_t c = 0; c < classes; c++) softmax[c] *= inverse;
    const int32_t label = labels[r];
    if (label != ignored && (label < 0 || label >= classes)) return -1;
    const double log_p = x[label == ignored ? 0 : label] - ((double)largest + logf(sum));
    total += log_p * (label != ignored);  // NaN in an ignored row is NaN in the sum, as in Chainer
    valid += label != ignored;
  }
  const int64_t count = normalize_by_valid ? valid : rows;
  loss[0] = (float)(-total / (count > 0 ? count : 1));
  return count;
}

// gx = (softmax - one_hot(label)) * factor, 0 in ignored rows. Returns 0, or -1 as above.
int32_t softmax_cross_entropy_backward(const float* softmax, const int32_t* labels, int64_t rows,
                                       int64_t classes, int64_t ignored, double factor, float* gx) {
  for (int64_t r = 0; r < rows; r++, softmax += classes, gx += classes) {
    const int32_t label = labels[r];
    if (label != ignored && (label < 0 || label >= classes)) return -1;
    const float f = (float)factor * (label != ignored);
    for (int64_t c = 0; c < classes; c++) gx[c] = (softmax[c] - (c == label)) * f;
  }
  return 0;
}

// The share of rows whose first largest score (or first NaN) stands at the label.
void accuracy(const float* y, const int32_t* labels, int64_t rows, int64_t classes, float* share) {
  int64_t right = 0;
  for (int64_t r = 0; r < rows; r++, y += classes) {
    int64_t best = 0;
    for (int64_t c = 1; c < classes; c++)
      if (!(y[c] <= y[best]) && y[best] == y[best]) best = c;
    right += best == labels[r];
  }
  share[0] = (float)right / (float)rows;
}

}  // extern "C"

// ---------------------------------------------------------------------------------------------
// Update rules: Chainer's formulas, one pass over memory. p parameter, g gradient, the rest state.

// Zero for what is too small for a normal float, such as a running average whose gradients have
// long been zero: a CPU takes tens of times as long to compute with such numbers. NaN stays.
INLINE float flushed(float x) { return x > -FLT_MIN && x < FLT_MIN ? 0 : x; }

#define ARRAY float* __restrict
#define GRADIENT const float* __restrict

static void sgd(ARRAY p, int64_t size, GRADIENT g, float lr) {
  for (int64_t i = 0; i < size; i++) p[i] -= lr * g[i];
}

static void momentum_sgd(ARRAY p, ARRAY v, int64_t size, GRADIENT g, float lr, float momentum) {
  for (int64_t i = 0; i < size; i++) {
    v[i] = flushed(momentum * v[i] - lr * g[i]);
    p[i] += v[i];
  }
}

static void nesterov_ag(ARRAY p, ARRAY v, int64_t size, GRADIENT g, float lr, float momentum,
                        float momentum_squared, float lr_ahead) {
  for (int64_t i = 0; i < size; i++) {
    v[i] = flushed(momentum * v[i] - lr * g[i]);
    p[i] = p[i] + momentum_squared * v[i] - lr_ahead * g[i];
  }
}

static void ada_grad(ARRAY p, ARRAY h, int64_t size, GRADIENT g, float lr, float eps) {
  for (int64_t i = 0; i < size; i++) {
    h[i] += g[i] * g[i];
    p[i] -= lr * g[i] / (sqrtf(h[i]) + eps);
  }
}

static void ada_delta(ARRAY p, ARRAY msg, ARRAY msdx, int64_t size, GRADIENT g, float rho,
                      float one_minus_rho, float eps) {
  for (int64_t i = 0; i < size; i++) {
    msg[i] = flushed(rho * msg[i] + one_minus_rho * g[i] * g[i]);
    const float dx = sqrtf((msdx[i] + eps) / (msg[i] + eps)) * g[i];
    msdx[i] = flushed(rho * msdx[i] + one_minus_rho * dx * dx);
    p[i] -= dx;
  }
}

static void rmsprop(ARRAY p, ARRAY ms, int64_t size, GRADIENT g, float lr, float alpha,
                    float one_minus_alpha, float eps_inside_sqrt, float eps_outside) {
  for (int64_t i = 0; i < size; i++) {
    ms[i] = flushed(alpha * ms[i] + one_minus_alpha * g[i] * g[i]);
    p[i] -= lr * g[i] / (sqrtf(ms[i] + eps_inside_sqrt) + eps_outside);
  }
}

static void rmsprop_graves(ARRAY p, ARRAY n, ARRAY average, ARRAY delta, int64_t size, GRADIENT g,
                           float lr, float alpha, float one_minus_alpha, float momentum,
                           float eps) {
  for (int64_t i = 0; i < size; i++) {
    n[i] = flushed(alpha * n[i] + one_minus_alpha * g[i] * g[i]);
    average[i] = flushed(alpha * average[i] + one_minus_alpha * g[i]);
    const float step = lr * g[i] / sqrtf(n[i] - average[i] * average[i] + eps);
    delta[i] = flushed(momentum * delta[i] - step);
    p[i] += delta[i];
  }
}

static void smorms3(ARRAY p, ARRAY mem, ARRAY average, ARRAY average2, int64_t size, GRADIENT g,
                    float lr, float eps) {
  for (int64_t i = 0; i < size; i++) {
    const float r = 1 / (mem[i] + 1);
    average[i] = flushed((1 - r) * average[i] + r * g[i]);
    average2[i] = flushed((1 - r) * average2[i] + r * g[i] * g[i]);
    const float x = average[i] * average[i] / (average2[i] + eps);
    p[i] -= g[i] * (x > lr ? lr : x) / (sqrtf(average2[i]) + eps);  // NaN stays NaN
    mem[i] = 1 + mem[i] * (1 - x);
  }
}

static void adam(ARRAY p, ARRAY m, ARRAY v, int64_t size, GRADIENT g, float alpha_t,
                 float one_minus_beta1, float one_minus_beta2, float eps, float eta, float keep) {
  for (int64_t i = 0; i < size; i++) {
    m[i] = flushed(m[i] + one_minus_beta1 * (g[i] - m[i]));
    v[i] = flushed(v[i] + one_minus_beta2 * (g[i] * g[i] - v[i]));
    p[i] = keep * p[i] - eta * (alpha_t / (sqrtf(v[i]) + eps) * m[i]);
  }
}

#undef ARRAY
#undef GRADIENT

extern "C" {

// One parameter of many that one call updates; n are the numbers of the rule.
struct Parameter {
  float *p, *state[3];
  int64_t size;
  const float* g;
};

void update_sgd(const Parameter* t, int64_t count, const float* n) {
  for (; count--; t++) sgd(t->p, t->size, t->g, n[0]);
}

void update_momentum_sgd(const Parameter* t, int64_t count, const float* n) {
  for (; count--; t++) momentum_sgd(t->p, t->state[0], t->size, t->g, n[0], n[1]);
}

void update_nesterov_ag(const Parameter* t, int64_t count, const float* n) {
  for (; count--; t++) nesterov_ag(t->p, t->state[0], t->size, t->g, n[0], n[1], n[2], n[3]);
}

void update_ada_grad(const Parameter* t, int64_t count, const float* n) {
  for (; count--; t++) ada_grad(t->p, t->state[0], t->size, t->g, n[0], n[1]);
}

void update_ada_delta(const Parameter* t, int64_t count, const float* n) {
  for (; count--; t++) ada_delta(t->p, t->state[0], t->state[1], t->size, t->g, n[0], n[1], n[2]);
}

void update_rmsprop(const Parameter* t, int64_t count, const float* n) {
  for (; count--; t++) rmsprop(t->p, t->state[0], t->size, t->g, n[0], n[1], n[2], n[3], n[4]);
}

void update_rmsprop_graves(const Parameter* t, int64_t count, const float* n) {
  for (; count--; t++)
    rmsprop_graves(t->p, t->state[0], t->state[1], t->state[2], t->size, t->g, n[0], n[1], n[2],
                   n[3], n[4]);
}

void update_smorms3(const Parameter* t, int64_t count, const float* n) {
  for (; count--; t++)
    smorms3(t->p, t->state[0], t->state[1], t->state[2], t->size, t->g, n[0], n[1]);
}

void update_adam(const Parameter* t, int64_t count, const float* n) {
  for (; count--; t++)
    adam(t->p, t->state[0], t->state[1], t->size, t->g, n[0], n[1], n[2], n[3], n[4], n[5]);
}
}  // extern "C"

// Convolution of NHWC images, and the blocks of convolution, normalization, ReLU and max pooling.
//
// All of it is direct convolution in register tiles: a tile of output pixels times one or two
// vectors of output channels stays in registers while the kernel's elements go by. In NHWC a row of
// the kernel meets kernel_width * channels consecutive floats of the image, so the loop over the
// kernel's columns and the one over input channels are one.

// Accumulators of a tile: the registers less those for weights and the broadcast input.
constexpr int ACCUMULATORS = REGISTERS == 32 ? 24 : 12;
// Pixels of a tile that is one vector deep; more would only make the addresses costlier.
constexpr int MOST_COLUMNS = REGISTERS == 32 ? 14 : 12;
// Kernel elements of a tile of the weights' gradient.
constexpr int MOST_ELEMENTS = REGISTERS == 32 ? 12 : 6;
// Output pixels that are worked on at a time are to stay in the L1 cache, with their inputs.
constexpr int CHUNK_FLOATS = 4096;

struct Geometry {
  int height, width, in_channels, out_channels, kernel_height, kernel_width;
  int stride_y, stride_x, pad_y, pad_x, out_height, out_width;

  int taps() const { return kernel_height * kernel_width; }
  int in_vectors() const { return (in_channels + WIDTH - 1) / WIDTH; }
  int out_vectors() const { return (out_channels + WIDTH - 1) / WIDTH; }
  size_t image() const { return (size_t)height * width * in_channels; }
  size_t out_pixels() const { return (size_t)out_height * out_width; }
};

// Memory that lives as long as a kernel runs; data is null where there is none to be had.
template <typename T>
struct Buffer {
  void* memory;
  T* data;
  explicit Buffer(size_t count, bool zero = false) {
    size_t bytes = count * sizeof(T) + 64;
    memory = zero ? calloc(bytes, 1) : malloc(bytes);
    data = memory ? (T*)(((uintptr_t)memory + 63) & ~(uintptr_t)63) : nullptr;
  }
  ~Buffer() { free(memory); }
  Buffer(const Buffer&) = delete;
  explicit operator bool() const { return data != nullptr; }
};

// ---- weights in the order in which a tile reads them

struct Loop {
  int count;
  ptrdiff_t stride;
};

// From any array: [block of one or two vectors of outputs][a][b][c][output in the block], the
// outputs rounded up to whole vectors with zeros. A vector takes WIDTH * a * b * c floats.
//
// It goes over all of a and b for a part of c only, so that what it reads stays in the L1 cache.
static void pack(const float* w, int outputs, ptrdiff_t out_stride, Loop a, Loop b, Loop c,
                 float* packed) {
  for (int first = 0; first < outputs;) {
    int lanes = outputs - first > WIDTH ? 2 * WIDTH : WIDTH;
    int valid = smaller(lanes, outputs - first);
    const float* block = w + first * out_stride;
    int part = larger(16, CHUNK_FLOATS / (lanes * a.count * b.count));
    for (int start = 0; start < c.count; start += part)
      for (int i = 0; i < a.count; i++)
        for (int j = 0; j < b.count; j++) {
          const float* from = block + i * a.stride + j * b.stride + start * c.stride;
          float* to = packed + (((ptrdiff_t)i * b.count + j) * c.count + start) * lanes;
          int end = smaller(part, c.count - start);
          for (int k = 0; k < end; k++, from += c.stride, to += lanes) {
            for (int o = 0; o < valid; o++) to[o] = from[o * out_stride];
            for (int o = valid; o < lanes; o++) to[o] = 0;
          }
        }
    packed += (ptrdiff_t)a.count * b.count * c.count * lanes;
    first += lanes;
  }
}

static void pack_forward(const Geometry& g, const float* w, float* packed) {
  pack(w, g.out_channels, (ptrdiff_t)g.in_channels * g.taps(), {g.kernel_height, g.kernel_width},
       {g.kernel_width, 1}, {g.in_channels, g.taps()}, packed);
}

// Floats of packed weights, in either direction.
static size_t packed_size(const Geometry& g) {
  return (size_t)WIDTH * g.taps() *
         larger(g.out_vectors() * g.in_channels, g.in_vectors() * g.out_channels);
}

// `count` floats and zeros up to whole vectors; zeros only where there is no array.
static void pad_channels(const float* from, int count, float* to) {
  for (int i = 0; i < round_up(count, WIDTH); i++) to[i] = from && i < count ? from[i] : 0;
}

// ---- forward

struct ConvTile {
  const float* x;
  ptrdiff_t x_row, x_column, x_kernel_row;  // of an output row, output column, kernel row
  int kernel_rows, kernel_row_length;
  const float *weights, *bias;
  float* y;
  ptrdiff_t y_row, y_column;
  int rows, lanes;  // output rows; channels in the last vector
  bool relu;
};

// All rows of a strip of COLUMNS output pixels, ROWS of them at a time. SMALL is a 3x3 kernel on
// one channel without stride: loops too short to be loops.
template <int ROWS, int COLUMNS, int VECTORS, bool SMALL>
static void conv_strip(const ConvTile& t) {
  constexpr int PIXELS = ROWS * COLUMNS;
  const ptrdiff_t x_column = SMALL ? 1 : t.x_column;
  for (int row = 0; row < t.rows; row += ROWS) {
    vfloat sum[PIXELS][VECTORS];
#pragma GCC unroll 32
    for (int p = 0; p < PIXELS; p++)
#pragma GCC unroll 2
      for (int v = 0; v < VECTORS; v++) sum[p][v] = load(t.bias + v * WIDTH);
    auto multiply = [&](const float* x, const float* w) __attribute__((always_inline)) {
      vfloat wk[VECTORS];
#pragma GCC unroll 2
      for (int v = 0; v < VECTORS; v++) wk[v] = load(w + v * WIDTH);
#pragma GCC unroll 32
      for (int p = 0; p < PIXELS; p++) {
        vfloat xp = broadcast(x[(p / COLUMNS) * t.x_row + (p % COLUMNS) * x_column]);
#pragma GCC unroll 2
        for (int v = 0; v < VECTORS; v++) sum[p][v] += xp * wk[v];
      }
    };
    const float *x = t.x + row * t.x_row, *w = t.weights;
    if constexpr (SMALL) {
#pragma GCC unroll 9
      for (int k = 0; k < 9; k++)
        multiply(x + k / 3 * t.x_kernel_row + k % 3, w + k * VECTORS * WIDTH);
    } else {
      for (int ky = 0; ky < t.kernel_rows; ky++, x += t.x_kernel_row)
        for (int k = 0; k < t.kernel_row_length; k++, w += VECTORS * WIDTH) multiply(x + k, w);
    }
#pragma GCC unroll 32
    for (int p = 0; p < PIXELS; p++) {
      float* y = t.y + (row + p / COLUMNS) * t.y_row + (p % COLUMNS) * t.y_column;
#pragma GCC unroll 2
      for (int v = 0; v < VECTORS; v++) {
        vfloat s = sum[p][v];
        if (t.relu) s = select(s < 0, vfloat{}, s);  // NaN stays
        store_partial(y + v * WIDTH, s, v == VECTORS - 1 ? t.lanes : WIDTH);
      }
    }
  }
}

template <int ROWS, int VECTORS, bool SMALL, int COLUMNS>
static void conv_strip_of(int columns, const ConvTile& t) {
  if (columns == COLUMNS) return conv_strip<ROWS, COLUMNS, VECTORS, SMALL>(t);
  if constexpr (COLUMNS > 1) conv_strip_of<ROWS, VECTORS, SMALL, COLUMNS - 1>(columns, t);
}

// Strips as equal as can be. Where a row is short, two rows make a tile.
template <int VECTORS>
static void conv_strips(ConvTile t, int columns) {
  constexpr int MOST = smaller(MOST_COLUMNS, ACCUMULATORS / VECTORS), MOST_OF_TWO = MOST / 2;
  if (columns <= MOST_OF_TWO && t.rows > 1) {
    ConvTile pairs = t;
    pairs.rows = t.rows / 2 * 2;
    conv_strip_of<2, VECTORS, false, MOST_OF_TWO>(columns, pairs);
    if (t.rows == pairs.rows) return;
    t.x += pairs.rows * t.x_row;
    t.y += pairs.rows * t.y_row;
    t.rows = 1;
  }
  for (int left = columns, strips = (columns + MOST - 1) / MOST; strips > 0; strips--) {
    int now = (left + strips - 1) / strips;
    if (t.kernel_rows == 3 && t.kernel_row_length == 3 && t.x_column == 1)
      conv_strip_of<1, VECTORS, true, MOST>(now, t);
    else
      conv_strip_of<1, VECTORS, false, MOST>(now, t);
    t.x += now * t.x_column;
    t.y += now * t.y_column;
    left -= now;
  }
}

// Where output pixels go: `channels` floats each, with the distances of images, rows and columns.
struct Target {
  float* y;
  size_t image;
  ptrdiff_t row, column;
  int channels;
};

static Target dense(const Geometry& g, float* y, int channels) {
  return {y, g.out_pixels() * channels, (ptrdiff_t)g.out_width * channels, channels, channels};
}

// `rows` output rows of each of `images` images. Images have their padding already, and rows of
// `x_width` pixels. Channels behind out_channels, if the target has any, are set to what the
// padded weights and bias give: zero.
static void conv_images(const Geometry& g, const float* x, size_t x_image, int x_width, int images,
                        int rows, const float* packed, const float* bias, bool relu,
                        const Target& to) {
  ConvTile t;
  t.x_kernel_row = (ptrdiff_t)x_width * g.in_channels;
  t.x_row = g.stride_y * t.x_kernel_row;
  t.x_column = (ptrdiff_t)g.stride_x * g.in_channels;
  t.kernel_rows = g.kernel_height;
  t.kernel_row_length = g.kernel_width * g.in_channels;
  t.y_row = to.row;
  t.y_column = to.column;
  t.rows = rows;
  t.relu = relu;
  for (int v = 0; v < g.out_vectors();) {
    int vectors = smaller(2, g.out_vectors() - v);
    t.weights = packed + (size_t)v * WIDTH * g.taps() * g.in_channels;
    t.bias = bias + v * WIDTH;
    t.lanes = smaller(WIDTH, to.channels - (v + vectors - 1) * WIDTH);
    for (int i = 0; i < images; i++) {
      t.x = x + i * x_image;
      t.y = to.y + i * to.image + v * WIDTH;
      if (vectors == 2)
        conv_strips<2>(t, g.out_width);
      else
        conv_strips<1>(t, g.out_width);
    }
    v += vectors;
  }
}

// An image in a frame of zeros: `frame` was zero, or held another image of this shape.
static void put_in_frame(const Geometry& g, const float* x, float* frame) {
  int frame_width = g.width + 2 * g.pad_x;
  size_t row = (size_t)g.width * g.in_channels;
  for (int y = 0; y < g.height; y++)
    memcpy(frame + ((size_t)(y + g.pad_y) * frame_width + g.pad_x) * g.in_channels, x + y * row,
           row * sizeof(float));
}

static size_t frame_size(const Geometry& g) {
  if (g.pad_y == 0 && g.pad_x == 0) return 0;
  return (size_t)(g.height + 2 * g.pad_y) * (g.width + 2 * g.pad_x) * g.in_channels;
}

// ---- gradient of the weights

struct WeightTile {
  const float* x;
  size_t x_image;
  ptrdiff_t x_row, x_column, x_kernel_row;
  const float* gy;
  size_t gy_image;
  ptrdiff_t gy_row, gy_column;
  int images, rows, columns;
  float* gw;
  ptrdiff_t gw_element, gw_kernel_row;
};

// ELEMENTS consecutive elements of each of KERNEL_ROWS kernel rows, for VECTORS of channels.
// The sum over these pixels is made apart and added to gw: long sums of floats lose digits.
template <int KERNEL_ROWS, int ELEMENTS, int VECTORS>
static void weight_tile(const WeightTile& t) {
  constexpr int SIZE = KERNEL_ROWS * ELEMENTS;
  vfloat sum[SIZE][VECTORS] = {};
  for (int i = 0; i < t.images; i++)
    for (int row = 0; row < t.rows; row++) {
      const float* x = t.x + i * t.x_image + row * t.x_row;
      const float* gy = t.gy + i * t.gy_image + row * t.gy_row;
      for (int column = 0; column < t.columns; column++, x += t.x_column, gy += t.gy_column) {
        vfloat g[VECTORS];
#pragma GCC unroll 2
        for (int v = 0; v < VECTORS; v++) g[v] = load(gy + v * WIDTH);
#pragma GCC unroll 32
        for (int e = 0; e < SIZE; e++) {
          vfloat xe = broadcast(x[(e / ELEMENTS) * t.x_kernel_row + e % ELEMENTS]);
#pragma GCC unroll 2
          for (int v = 0; v < VECTORS; v++) sum[e][v] += xe * g[v];
        }
      }
    }
#pragma GCC unroll 32
  for (int e = 0; e < SIZE; e++) {
    float* gw = t.gw + (e / ELEMENTS) * t.gw_kernel_row + (e % ELEMENTS) * t.gw_element;
#pragma GCC unroll 2
    for (int v = 0; v < VECTORS; v++) store(gw + v * WIDTH, load(gw + v * WIDTH) + sum[e][v]);
  }
}

template <int KERNEL_ROWS, int VECTORS, int ELEMENTS>
static void weight_tile_of(int elements, const WeightTile& t) {
  if (elements == ELEMENTS) return weight_tile<KERNEL_ROWS, ELEMENTS, VECTORS>(t);
  if constexpr (ELEMENTS > 1) weight_tile_of<KERNEL_ROWS, VECTORS, ELEMENTS - 1>(elements, t);
}

// Adds to gw, [kernel row][kernel column][input channel][output channel, whole vectors].
// Pixels of gy take whole vectors, too. Images x have their padding and rows of x_width pixels.
static void weight_gradient(const Geometry& g, const float* x, size_t x_image, int x_width,
                            const float* gy, size_t gy_image, int images, int rows, float* gw) {
  int row_length = g.kernel_width * g.in_channels;
  WeightTile t;
  t.x_image = x_image;
  t.x_kernel_row = (ptrdiff_t)x_width * g.in_channels;
  t.x_row = g.stride_y * t.x_kernel_row;
  t.x_column = (ptrdiff_t)g.stride_x * g.in_channels;
  t.gy_image = gy_image;
  t.gy_column = g.out_vectors() * WIDTH;
  t.gy_row = g.out_width * t.gy_column;
  t.images = images;
  t.rows = rows;
  t.columns = g.out_width;
  t.gw_element = t.gy_column;
  t.gw_kernel_row = row_length * t.gw_element;
  // A single input channel has too short a kernel row to fill a tile: all three rows at once.
  bool three_rows = g.kernel_height == 3 && row_length <= 3;
  for (int v = 0; v < g.out_vectors();) {
    int vectors = three_rows ? 1 : smaller(2, g.out_vectors() - v);
    t.gy = gy + v * WIDTH;
    for (int ky = 0; ky < (three_rows ? 1 : g.kernel_height); ky++)
      for (int k = 0, tiles = (row_length + MOST_ELEMENTS - 1) / MOST_ELEMENTS; tiles > 0;
           tiles--) {
        int elements = (row_length - k + tiles - 1) / tiles;
        t.x = x + ky * t.x_kernel_row + k;
        t.gw = gw + ky * t.gw_kernel_row + k * t.gw_element + v * WIDTH;
        if (three_rows)
          weight_tile_of<3, 1, 3>(elements, t);
        else if (vectors == 2)
          weight_tile_of<1, 2, MOST_ELEMENTS>(elements, t);
        else
          weight_tile_of<1, 1, MOST_ELEMENTS>(elements, t);
        k += elements;
      }
    v += vectors;
  }
}

// To Chainer's order, (output, input, kernel row, kernel column), in squares of WIDTH outputs and
// elements: so whole cache lines are read and written, at whatever distances they lie.
static void unpack_weight_gradient(const Geometry& g, const float* packed, float* gw) {
  int channels = g.out_vectors() * WIDTH, filter = g.in_channels * g.taps();
  for (int first = 0; first < g.out_channels; first += WIDTH) {
    int lanes = smaller(WIDTH, g.out_channels - first);
    for (int start = 0; start < filter; start += WIDTH) {
      int elements = smaller(WIDTH, filter - start);
      float square[WIDTH][WIDTH];
      for (int e = 0; e < elements; e++) {
        int c = (start + e) / g.taps(), t = (start + e) % g.taps();
        store(square[e], load(packed + ((size_t)t * g.in_channels + c) * channels + first));
      }
      for (int o = 0; o < lanes; o++) {
        float* to = gw + (size_t)(first + o) * filter + start;
        for (int e = 0; e < elements; e++) to[e] = square[e][o];
      }
    }
  }
}

// ---- gradient of the input

// A strip of COLUMNS pixels of one row of gy, with one kernel row of three columns: adds to
// COLUMNS + 2 pixels of a row of gx. Unlike a convolution of gy in a frame of zeros, this
// multiplies no zeros.
template <int COLUMNS, int VECTORS>
static void scatter_strip(const float* gy, ptrdiff_t gy_column, int gy_channels, const float* w,
                          float* gx, ptrdiff_t gx_column) {
  vfloat sum[COLUMNS + 2][VECTORS];
#pragma GCC unroll 32
  for (int p = 0; p < COLUMNS + 2; p++)
#pragma GCC unroll 2
    for (int v = 0; v < VECTORS; v++) sum[p][v] = load(gx + p * gx_column + v * WIDTH);
  for (int c = 0; c < gy_channels; c++, gy++, w += 3 * VECTORS * WIDTH) {
    vfloat wk[3][VECTORS];
#pragma GCC unroll 3
    for (int k = 0; k < 3; k++)
#pragma GCC unroll 2
      for (int v = 0; v < VECTORS; v++) wk[k][v] = load(w + (k * VECTORS + v) * WIDTH);
#pragma GCC unroll 32
    for (int p = 0; p < COLUMNS; p++) {
      vfloat g = broadcast(gy[p * gy_column]);
#pragma GCC unroll 3
      for (int k = 0; k < 3; k++)
#pragma GCC unroll 2
        for (int v = 0; v < VECTORS; v++) sum[p + k][v] += g * wk[k][v];
    }
  }
#pragma GCC unroll 32
  for (int p = 0; p < COLUMNS + 2; p++)
#pragma GCC unroll 2
    for (int v = 0; v < VECTORS; v++) store(gx + p * gx_column + v * WIDTH, sum[p][v]);
}

template <int VECTORS, int COLUMNS, typename... Arguments>
static void scatter_strip_of(int columns, Arguments... arguments) {
  if (columns == COLUMNS) return scatter_strip<COLUMNS, VECTORS>(arguments...);
  if constexpr (COLUMNS > 1) scatter_strip_of<VECTORS, COLUMNS - 1>(columns, arguments...);
}

template <int VECTORS>
static void scatter_row(const Geometry& g, const float* gy, ptrdiff_t gy_column, const float* w,
                        float* gx, ptrdiff_t gx_column) {
  // Three columns of weights and the broadcast take registers, too.
  constexpr int MOST = smaller(MOST_COLUMNS, (REGISTERS - 1) / VECTORS - 3 - 2);
  for (int left = g.out_width, strips = (left + MOST - 1) / MOST; strips > 0; strips--) {
    int now = (left + strips - 1) / strips;
    scatter_strip_of<VECTORS, MOST>(now, gy, gy_column, g.out_channels, w, gx, gx_column);
    gy += now * gy_column;
    gx += now * gx_column;
    left -= now;
  }
}

// Adds to the images gx, which have rows of `gx_width` pixels of `gx_channels`, whole vectors.
static void scatter_images(const Geometry& g, const float* gy, int gy_channels, int images,
                           const float* packed, float* gx, size_t gx_image, int gx_width,
                           int gx_channels) {
  size_t kernel_row = (size_t)g.out_channels * 3 * WIDTH;  // of one vector
  for (int v = 0; v < g.in_vectors();) {
    int vectors = smaller(2, g.in_vectors() - v);
    for (int ky = 0; ky < g.kernel_height; ky++) {
      const float* w = packed + (v * g.kernel_height + ky * vectors) * kernel_row;
      for (int i = 0; i < images; i++)
        for (int row = 0; row < g.out_height; row++) {
          const float* from = gy + (i * g.out_pixels() + (size_t)row * g.out_width) * gy_channels;
          float* to = gx + i * gx_image + (size_t)(row + ky) * gx_width * gx_channels + v * WIDTH;
          if (vectors == 2)
            scatter_row<2>(g, from, gy_channels, w, to, gx_channels);
          else
            scatter_row<1>(g, from, gy_channels, w, to, gx_channels);
        }
    }
    v += vectors;
  }
}

static bool scatters(const Geometry& g) {
  return g.kernel_width == 3 && g.stride_y == 1 && g.stride_x == 1;
}

// gx has pixels of whole vectors and no padding, so that it can be added to where it lies.
static bool scatters_in_place(const Geometry& g) {
  return g.pad_y == 0 && g.pad_x == 0 && g.in_channels % WIDTH == 0;
}

// Without scattering, gx is stride_y * stride_x interleaved images, each of the pixels that meet
// the same elements of the kernel: a convolution of gy, in a frame of zeros, with these elements
// turned round. This is one axis of such an image.
struct Phase {
  int taps, first, count;  // kernel elements; first pixel and number of pixels in gx
  int from;                // pixel of gy, maybe before the first one, that the first pixel meets first

  Phase(int size, int kernel, int stride, int pad, int phase) {
    int step = (larger(0, pad - phase) + stride - 1) / stride;
    taps = kernel > phase ? (kernel - phase + stride - 1) / stride : 0;
    first = step * stride + phase - pad;
    count = first < size ? (size - first + stride - 1) / stride : 0;
    from = step - (taps - 1);
  }
};

struct Phases {
  int margin_y, margin_x, frame_height, frame_width;  // margins before gy's first row and column

  explicit Phases(const Geometry& g) {
    margin_y = (g.kernel_height - 1) / g.stride_y;
    margin_x = (g.kernel_width - 1) / g.stride_x;
    frame_height = margin_y + larger(g.out_height, (g.height - 1 + g.pad_y) / g.stride_y + 1);
    frame_width = margin_x + larger(g.out_width, (g.width - 1 + g.pad_x) / g.stride_x + 1);
  }
  size_t frame_size(const Geometry& g) const {
    return (size_t)frame_height * frame_width * g.out_channels;
  }
};

// Calls body(rows, columns, first kernel row, first kernel column, where its packed weights are)
// for each phase.
template <class Body>
static void for_phases(const Geometry& g, Body body) {
  size_t packed = 0;
  for (int y = 0; y < g.stride_y; y++)
    for (int x = 0; x < g.stride_x; x++) {
      const Phase rows(g.height, g.kernel_height, g.stride_y, g.pad_y, y);
      const Phase columns(g.width, g.kernel_width, g.stride_x, g.pad_x, x);
      body(rows, columns, y, x, packed);
      packed += (size_t)rows.taps * columns.taps * g.out_channels * g.in_vectors() * WIDTH;
    }
}

// Output channels and input channels change places; rows and columns of the kernel are turned
// round unless the gradient is scattered.
static void pack_backward(const Geometry& g, const float* w, float* packed) {
  ptrdiff_t taps = g.taps(), filter = taps * g.in_channels;
  if (scatters(g))
    return pack(w, g.in_channels, taps, {g.kernel_height, g.kernel_width}, {g.out_channels, filter},
                {g.kernel_width, 1}, packed);
  for_phases(g, [&](const Phase& rows, const Phase& columns, int y, int x, size_t at) {
    int last_row = y + (rows.taps - 1) * g.stride_y;
    int last_column = x + (columns.taps - 1) * g.stride_x;
    pack(w + last_row * g.kernel_width + last_column, g.in_channels, taps,
         {rows.taps, -g.stride_y * g.kernel_width}, {columns.taps, -g.stride_x},
         {g.out_channels, filter}, packed + at);
  });
}

static void put_gradient_in_frame(const Geometry& g, const Phases& phases, const float* gy,
                                  int gy_channels, float* frame) {
  for (int row = 0; row < g.out_height; row++) {
    float* to = frame + ((size_t)(row + phases.margin_y) * phases.frame_width + phases.margin_x) *
                            g.out_channels;
    for (int column = 0; column < g.out_width; column++, gy += gy_channels, to += g.out_channels)
      memcpy(to, gy, g.out_channels * sizeof(float));
  }
}

static void gradient_by_phases(const Geometry& g, const Phases& phases, const float* frame,
                               const float* packed, const float* zeros, float* gx) {
  // Some pixels meet no element of a kernel that is smaller than its stride.
  if (g.kernel_height < g.stride_y || g.kernel_width < g.stride_x)
    memset(gx, 0, g.image() * sizeof(float));
  for_phases(g, [&](const Phase& rows, const Phase& columns, int, int, size_t at) {
    if (rows.taps * columns.taps == 0 || rows.count <= 0 || columns.count <= 0) return;
    Geometry t = {0, 0, g.out_channels, g.in_channels, rows.taps,  columns.taps,
                  1, 1, 0,              0,             rows.count, columns.count};
    ptrdiff_t pixel = (ptrdiff_t)(rows.from + phases.margin_y) * phases.frame_width +
                      columns.from + phases.margin_x;
    float* to = gx + ((size_t)rows.first * g.width + columns.first) * g.in_channels;
    conv_images(t, frame + pixel * g.out_channels, 0, phases.frame_width, 1, rows.count,
                packed + at, zeros, false,
                {to, 0, (ptrdiff_t)g.stride_y * g.width * g.in_channels,
                 (ptrdiff_t)g.stride_x * g.in_channels, g.in_channels});
  });
}

// Floats of the frame that input_gradient() works in.
static size_t gradient_frame_size(const Geometry& g) {
  if (!scatters(g)) return Phases(g).frame_size(g);
  if (scatters_in_place(g)) return 0;
  return (size_t)(g.height + 2 * g.pad_y) * (g.width + 2 * g.pad_x) * g.in_vectors() * WIDTH;
}

static void scatter_in_frame(const Geometry& g, const float* gy, int gy_channels,
                             const float* packed, float* frame, float* gx) {
  int channels = g.in_vectors() * WIDTH, frame_width = g.width + 2 * g.pad_x;
  memset(frame, 0, gradient_frame_size(g) * sizeof(float));
  scatter_images(g, gy, gy_channels, 1, packed, frame, 0, frame_width, channels);
  for (int y = 0; y < g.height; y++)
    for (int x = 0; x < g.width; x++, gx += g.in_channels)
      memcpy(gx, frame + ((size_t)(y + g.pad_y) * frame_width + x + g.pad_x) * channels,
             g.in_channels * sizeof(float));
}

// Sets gx of some images. `frame`: gradient_frame_size() floats, zero before the first call.
// `zeros`: one for each input channel, whole vectors.
static void input_gradient(const Geometry& g, const float* gy, int gy_channels, int images,
                           const float* packed, float* frame, const float* zeros, float* gx) {
  size_t gy_image = g.out_pixels() * gy_channels;
  if (scatters(g) && scatters_in_place(g)) {
    memset(gx, 0, images * g.image() * sizeof(float));
    scatter_images(g, gy, gy_channels, images, packed, gx, g.image(), g.width, g.in_channels);
    return;
  }
  const Phases phases(g);
  for (int i = 0; i < images; i++, gy += gy_image, gx += g.image()) {
    if (scatters(g)) {
      scatter_in_frame(g, gy, gy_channels, packed, frame, gx);
    } else {
      put_gradient_in_frame(g, phases, gy, gy_channels, frame);
      gradient_by_phases(g, phases, frame, packed, zeros, gx);
    }
  }
}

// ---- entry points of the separate functions. They return 0, or 1 where memory is short.

#define GEOMETRY_ARGUMENTS                                                                       \
  int height, int width, int in_channels, int out_channels, int kernel_height, int kernel_width, \
      int stride_y, int stride_x, int pad_y, int pad_x, int out_height, int out_width
#define GEOMETRY                                                               \
  {height,   width,    in_channels, out_channels, kernel_height, kernel_width, \
   stride_y, stride_x, pad_y,       pad_x,        out_height,    out_width}

extern "C" int convolution_forward(const float* x, const float* w, const float* b, float* y, int n,
                                   GEOMETRY_ARGUMENTS) {
  Geometry g = GEOMETRY;
  size_t y_image = g.out_pixels() * out_channels, framed = frame_size(g);
  Buffer<float> packed(packed_size(g)), bias(g.out_vectors() * WIDTH), frame(framed, true);
  if (!packed || !bias || !frame) return 1;
  pack_forward(g, w, packed.data);
  pad_channels(b, out_channels, bias.data);
  int images = larger(1, (int)(CHUNK_FLOATS / y_image));
  for (int i = 0; i < n; i += images) {
    const float* from = x + i * g.image();
    if (framed) {
      images = 1;
      put_in_frame(g, from, frame.data);
      from = frame.data;
    }
    conv_images(g, from, g.image(), width + 2 * pad_x, smaller(images, n - i), out_height,
                packed.data, bias.data, false, dense(g, y + i * y_image, out_channels));
  }
  return 0;
}

extern "C" int convolution_input_gradient(const float* gy, const float* w, float* gx, int n,
                                          GEOMETRY_ARGUMENTS) {
  Geometry g = GEOMETRY;
  size_t gy_image = g.out_pixels() * out_channels;
  Buffer<float> packed(packed_size(g)), frame(gradient_frame_size(g), true),
      zeros(g.in_vectors() * WIDTH, true);
  if (!packed || !frame || !zeros) return 1;
  pack_backward(g, w, packed.data);
  int images = larger(1, (int)(CHUNK_FLOATS / gy_image));
  for (int i = 0; i < n; i += images)
    input_gradient(g, gy + i * gy_image, out_channels, smaller(images, n - i), packed.data,
                   frame.data, zeros.data, gx + i * g.image());
  return 0;
}

extern "C" int convolution_weight_gradient(const float* x, const float* gy, float* gw, int n,
                                           GEOMETRY_ARGUMENTS) {
  Geometry g = GEOMETRY;
  int channels = g.out_vectors() * WIDTH;
  size_t framed = frame_size(g), gy_image = g.out_pixels() * out_channels;
  size_t whole_image = g.out_pixels() * channels;
  Buffer<float> packed((size_t)g.taps() * in_channels * channels, true), frame(framed, true),
      whole(channels == out_channels ? 0 : whole_image, true);
  if (!packed || !frame || !whole) return 1;
  int images = larger(1, (int)(CHUNK_FLOATS / whole_image));
  if (framed || channels != out_channels) images = 1;
  for (int i = 0; i < n; i += images) {
    const float *from = x + i * g.image(), *to = gy + i * gy_image;
    if (framed) {
      put_in_frame(g, from, frame.data);
      from = frame.data;
    }
    if (channels != out_channels) {
      for (size_t p = 0; p < g.out_pixels(); p++)
        memcpy(whole.data + p * channels, to + p * out_channels, out_channels * sizeof(float));
      to = whole.data;
    }
    weight_gradient(g, from, g.image(), width + 2 * pad_x, to, whole_image, smaller(images, n - i),
                    out_height, packed.data);
  }
  unpack_weight_gradient(g, packed.data, gw);
  return 0;
}

// Sums over pixels, the gradient of a bias: in floats over 256 pixels, in doubles over all.
extern "C" int channel_sums(const float* x, int64_t pixels, int channels, float* sums) {
  int vectors = (channels + WIDTH - 1) / WIDTH;
  Buffer<double> total((size_t)vectors * WIDTH, true);
  if (!total) return 1;
  for (int64_t first = 0; first < pixels; first += 256) {
    int count = pixels - first < 256 ? (int)(pixels - first) : 256;
    for (int v = 0; v < vectors; v++) {
      const float* from = x + first * channels + v * WIDTH;
      int lanes = smaller(WIDTH, channels - v * WIDTH);
      vfloat even = {}, odd = {};
      int p = 0;
      for (; p + 2 <= count; p += 2) {
        even += load_partial(from + (size_t)p * channels, lanes);
        odd += load_partial(from + (size_t)(p + 1) * channels, lanes);
      }
      if (p < count) even += load_partial(from + (size_t)p * channels, lanes);
      double* to = total.data + v * WIDTH;
      store(to, load(to) + to_double(even + odd));
    }
  }
  for (int c = 0; c < channels; c++) sums[c] = (float)total.data[c];
  return 0;
}

// ---- fused blocks: convolution, normalization or none, ReLU and 2x2 max pooling in any of the
// orders below. Work goes in chunks that stay in the L1 cache: several small images, or some rows
// of a large one. Channels are rounded up to whole vectors in all that is ours alone.

enum Order { RELU_POOL = 0, NORM_RELU_POOL = 1, RELU_NORM_POOL = 2 };
enum Statistics { NONE = 0, FIXED = 1, BATCH = 2 };
// An index of a pixel in its pooling window, where the ReLU cut it off.
constexpr int CUT_OFF = 4;

struct Chunks {
  int images, rows;  // all rows, unless images is 1

  Chunks(const Geometry& g, bool whole_images) {
    size_t row = (size_t)g.out_width * g.out_vectors() * WIDTH, image = g.out_height * row;
    images = larger(1, (int)(CHUNK_FLOATS / image));
    rows = g.out_height;
    if (image > CHUNK_FLOATS && !whole_images)
      rows = smaller(rows, larger(2, (int)(CHUNK_FLOATS / row) / 2 * 2));  // whole windows
  }
};

// Mean and sum of squared deviations of each channel, merged chunk by chunk (Chan et al. 1979):
// no digits cancel, however large the mean.
struct Moments {
  double count = 0, *mean, *squares;

  void add(const float* y, int pixels, int vectors) {
    double total = count + pixels, weight = pixels / total;
    for (int v = 0; v < vectors; v++) {
      const float* from = y + v * WIDTH;
      ptrdiff_t pixel = (ptrdiff_t)vectors * WIDTH;
      vfloat sum[4] = {}, deviation[2] = {}, square[2] = {};
      int p = 0;
      for (; p + 4 <= pixels; p += 4)
#pragma GCC unroll 4
        for (int k = 0; k < 4; k++) sum[k] += load(from + (p + k) * pixel);
      for (; p < pixels; p++) sum[0] += load(from + p * pixel);
      vfloat middle = ((sum[0] + sum[1]) + (sum[2] + sum[3])) / (float)pixels;
      for (p = 0; p + 2 <= pixels; p += 2)
#pragma GCC unroll 2
        for (int k = 0; k < 2; k++) {
          vfloat d = load(from + (p + k) * pixel) - middle;
          deviation[k] += d;
          square[k] += d * d;
        }
      if (p < pixels) {
        vfloat d = load(from + p * pixel) - middle;
        deviation[0] += d;
        square[0] += d * d;
      }
      vdouble d = to_double(deviation[0] + deviation[1]) / (double)pixels;
      vdouble here = to_double(middle) + d;
      vdouble squares_here = to_double(square[0] + square[1]) - d * d * (double)pixels;
      vdouble before = load(mean + v * WIDTH), delta = here - before;
      store(mean + v * WIDTH, before + delta * weight);
      store(squares + v * WIDTH,
            load(squares + v * WIDTH) + squares_here + delta * delta * (count * weight));
    }
    count = total;
  }
};

INLINE void take_better(const float* y, int at, vfloat sign, vfloat& best, vfloat& key,
                        vint& index) {
  vfloat candidate = load(y), its_key = candidate * sign;
  // As NumPy's argmax: the first of equals, and the first NaN before all.
  vint better = ~(its_key <= key) & (key == key);
  best = select(better, candidate, best);
  key = select(better, its_key, key);
  index = select(better, at - vint{}, index);
}

// The pixel of each pooling window that is the largest after the normalization, and its index in
// the window. The normalization is monotonic: `sign`, of gamma, says which way.
static void find_extremes(const float* y, int rows, int columns, int vectors, const float* sign,
                          float* extreme, uint8_t* index) {
  ptrdiff_t pixel = (ptrdiff_t)vectors * WIDTH, row_length = columns * pixel;
  for (int v = 0; v < vectors; v++) {
    vfloat s = load(sign + v * WIDTH);
    ptrdiff_t to = v * WIDTH;
    for (int row = 0; row < rows; row += 2) {
      bool below = row + 1 < rows;
      const float* corner = y + row * row_length + v * WIDTH;
      for (int column = 0; column < columns; column += 2, corner += 2 * pixel, to += pixel) {
        bool right = column + 1 < columns;
        vfloat best = load(corner), key = best * s;
        vint at = {};
        if (right) take_better(corner + pixel, 1, s, best, key, at);
        if (below) take_better(corner + row_length, 2, s, best, key, at);
        if (right && below) take_better(corner + row_length + pixel, 3, s, best, key, at);
        store(extreme + to, best);
        store_bytes(index + to, at);
      }
    }
  }
}

// Normalizes pooled pixels and, where it comes after the normalization, applies the ReLU.
static void finish(const float* extreme, uint8_t* index, size_t pixels, int vectors, int channels,
                   const float* mean, const float* scale, const float* beta, bool relu,
                   float* out) {
  for (size_t p = 0; p < pixels; p++, out += channels)
    for (int v = 0; v < vectors; v++, extreme += WIDTH, index += WIDTH) {
      int c = v * WIDTH;
      vfloat value = (load(extreme) - load(mean + c)) * load(scale + c) + load(beta + c);
      if (relu) {
        vint at = load_bytes(index);
        store_bytes(index, select(value > 0, at, at * 0 + CUT_OFF));
        value = select(value <= 0, vfloat{}, value);  // NaN stays
      }
      store_partial(out + c, value, channels - c);
    }
}

// Moves running statistics as Chainer's BatchNormalization link does.
static void update_running(const Moments& moments, int channels, double decay, float* avg_mean,
                           float* avg_var) {
  double adjust = moments.count / (moments.count > 2 ? moments.count - 1 : 1);
  for (int c = 0; c < channels; c++) {
    float mean = (float)moments.mean[c], var = (float)(moments.squares[c] / moments.count);
    avg_mean[c] = avg_mean[c] * (float)decay + (float)(1 - decay) * mean;
    avg_var[c] = avg_var[c] * (float)decay + (float)((1 - decay) * adjust) * var;
  }
}

#define BLOCK_ARGUMENTS                                                                       \
  int order, int statistics, int n, int height, int width, int in_channels, int out_channels, \
      int kernel_height, int kernel_width
#define BLOCK_GEOMETRY         \
  {height,                     \
   width,                      \
   in_channels,                \
   out_channels,               \
   kernel_height,              \
   kernel_width,               \
   1,                          \
   1,                          \
   0,                          \
   0,                          \
   height - kernel_height + 1, \
   width - kernel_width + 1}

// Channels C are out_channels in whole vectors; pixels PH, PW those after pooling. Arrays:
//   y (n, out_height, out_width, C): what is normalized, kept for the backward pass; may be null
//   extreme, index (n, PH, PW, C): see find_extremes(); may be null but for batch statistics
//   saved (2, C): mean and 1 / standard deviation
//   avg_mean, avg_var (out_channels,): read for fixed statistics; moved for batch statistics, or
//   null
extern "C" int block_forward(const float* x, const float* w, const float* b, const float* gamma,
                             const float* beta, float* avg_mean, float* avg_var, double eps,
                             double decay, float* y, float* extreme, uint8_t* index, float* saved,
                             float* out, BLOCK_ARGUMENTS) {
  Geometry g = BLOCK_GEOMETRY;
  Chunks chunks(g, false);
  int vectors = g.out_vectors(), channels = vectors * WIDTH;
  size_t pooled_row = (size_t)(g.out_width + 1) / 2 * channels;
  size_t pooled = (g.out_height + 1) / 2 * pooled_row, y_image = g.out_pixels() * channels;
  size_t pooled_pixels = (size_t)(g.out_height + 1) / 2 * ((g.out_width + 1) / 2);
  size_t chunk_rows = (size_t)chunks.images * chunks.rows;
  Buffer<float> packed(packed_size(g)), small(6 * channels, true);
  Buffer<float> y_chunk(y ? 0 : chunk_rows * g.out_width * channels);
  Buffer<float> extreme_chunk(extreme ? 0 : chunk_rows * pooled_row);
  Buffer<uint8_t> index_chunk(index ? 0 : chunk_rows * pooled_row);
  Buffer<double> doubles(2 * channels, true);
  if (!packed || !small || !y_chunk || !extreme_chunk || !index_chunk || !doubles) return 1;
  float *bias = small.data, *sign = bias + channels, *scale = sign + channels;
  float *mean = scale + channels, *shift = mean + channels;
  Moments moments;
  moments.mean = doubles.data;
  moments.squares = doubles.data + channels;
  pack_forward(g, w, packed.data);
  pad_channels(b, out_channels, bias);
  pad_channels(beta, out_channels, shift);
  for (int c = 0; c < out_channels; c++) {
    sign[c] = scale[c] = 1;
    if (statistics == NONE) continue;
    sign[c] = gamma[c] > 0 ? 1 : gamma[c] < 0 ? -1 : gamma[c];  // zero and NaN as they are
    if (statistics != FIXED) continue;
    saved[c] = mean[c] = avg_mean[c];
    saved[channels + c] = (float)(1 / sqrt((double)avg_var[c] + eps));
    scale[c] = gamma[c] * saved[channels + c];
  }
  bool relu_first = order == RELU_NORM_POOL, relu_last = !relu_first;
  for (int i = 0; i < n; i += chunks.images)
    for (int row = 0; row < g.out_height; row += chunks.rows) {
      int images = smaller(chunks.images, n - i), rows = smaller(chunks.rows, g.out_height - row);
      float* to = y ? y + i * y_image + (size_t)row * g.out_width * channels : y_chunk.data;
      conv_images(g, x + i * g.image() + (size_t)row * width * in_channels, g.image(), width,
                  images, rows, packed.data, bias, relu_first, dense(g, to, channels));
      if (statistics == BATCH) moments.add(to, images * rows * g.out_width, vectors);
      size_t pooled_at = i * pooled + row / 2 * pooled_row;
      float* best = extreme ? extreme + pooled_at : extreme_chunk.data;
      uint8_t* at = index ? index + pooled_at : index_chunk.data;
      for (int k = 0; k < images; k++)
        find_extremes(to + k * y_image, rows, g.out_width, vectors, sign, best + k * pooled,
                      at + k * pooled);
      if (statistics != BATCH) {
        size_t pixels = (size_t)images * ((rows + 1) / 2) * ((g.out_width + 1) / 2);
        finish(best, at, pixels, vectors, out_channels, mean, scale, shift, relu_last,
               out + pooled_at / channels * out_channels);
      }
    }
  if (statistics != BATCH) return 0;
  for (int c = 0; c < out_channels; c++) {
    saved[c] = mean[c] = (float)moments.mean[c];
    saved[channels + c] = (float)(1 / sqrt(moments.squares[c] / moments.count + eps));
    scale[c] = gamma[c] * saved[channels + c];
  }
  if (avg_mean) update_running(moments, out_channels, decay, avg_mean, avg_var);
  finish(extreme, index, n * pooled_pixels, vectors, out_channels, mean, scale, shift, relu_last,
         out);
  return 0;
}

// Sums over pooled pixels of the gradient, and of it times the deviation from the mean.
static void gradient_sums(const float* gout, const float* extreme, const uint8_t* index,
                          size_t pixels, int vectors, int channels, const float* mean, double* sums,
                          double* products) {
  for (size_t first = 0; first < pixels; first += 128) {
    int count = pixels - first < 128 ? (int)(pixels - first) : 128;
    for (int v = 0; v < vectors; v++) {
      int c = v * WIDTH;
      vfloat sum = {}, product = {}, m = load(mean + c);
      const float* g_at = gout + first * channels + c;
      size_t at = first * vectors * WIDTH + c;
      for (int p = 0; p < count; p++, g_at += channels, at += (size_t)vectors * WIDTH) {
        vfloat g = load_partial(g_at, channels - c);
        g = select(load_bytes(index + at) == CUT_OFF, vfloat{}, g);
        sum += g;
        product += g * (load(extreme + at) - m);
      }
      store(sums + c, load(sums + c) + to_double(sum));
      store(products + c, load(products + c) + to_double(product));
    }
  }
}

struct BlockGradient {
  const float *mean, *at_extreme, *deviation, *constant;  // coefficients of each channel
  float* sums;                                            // of the convolution's output gradient
};

// The gradient of some rows of an image of the convolution's output: at each window's extreme
// at_extreme * gout; with MOMENTS, everywhere deviation * (y - mean) + constant; with RELU, only
// where y was positive.
template <bool MOMENTS, bool RELU>
static void unpool(const float* y, const float* gout, const uint8_t* index, int rows, int columns,
                   int vectors, int channels, const BlockGradient& b, float* g) {
  ptrdiff_t pixel = (ptrdiff_t)vectors * WIDTH, row_length = columns * pixel;
  for (int v = 0; v < vectors; v++) {
    int c = v * WIDTH;
    vfloat mean = load(b.mean + c), at_extreme = load(b.at_extreme + c);
    vfloat deviation = load(b.deviation + c), constant = load(b.constant + c);
    vfloat sum = {};
    ptrdiff_t pooled = c;
    const float* from = gout + c;
    for (int row = 0; row < rows; row += 2) {
      bool below = row + 1 < rows;
      ptrdiff_t corner = row * row_length + c;
      for (int column = 0; column < columns; column += 2, corner += 2 * pixel) {
        bool right = column + 1 < columns;
        vint at = load_bytes(index + pooled);
        vfloat peak = at_extreme * load_partial(from, channels - c);
        pooled += pixel;
        from += channels;
        auto set = [&](int k, ptrdiff_t place) __attribute__((always_inline)) {
          vfloat value = select(at == k, peak, vfloat{});
          vfloat here = MOMENTS || RELU ? load(y + place) : vfloat{};
          if (MOMENTS) value += (here - mean) * deviation + constant;
          if (RELU) value = select(here > 0, value, vfloat{});
          store(g + place, value);
          sum += value;
        };
        set(0, corner);
        if (right) set(1, corner + pixel);
        if (below) set(2, corner + row_length);
        if (right && below) set(3, corner + row_length + pixel);
      }
    }
    store(b.sums + c, load(b.sums + c) + sum);
  }
}

// Arguments as of block_forward(). Any of gx, gw, gb may be null; ggamma and gbeta are set where
// there are statistics.
extern "C" int block_backward(const float* x, const float* w, const float* b, const float* gamma,
                              const float* y, const float* extreme, const uint8_t* index,
                              const float* saved, const float* gout, float* gx, float* gw,
                              float* gb, float* ggamma, float* gbeta, BLOCK_ARGUMENTS) {
  Geometry g = BLOCK_GEOMETRY;
  Chunks chunks(g, gx != nullptr);
  int vectors = g.out_vectors(), channels = vectors * WIDTH;
  size_t pooled_row = (size_t)(g.out_width + 1) / 2, y_image = g.out_pixels() * channels;
  size_t pooled = (g.out_height + 1) / 2 * pooled_row;  // pixels
  size_t chunk = (size_t)chunks.images * chunks.rows * g.out_width * channels;
  bool moments = statistics == BATCH, relu = order == RELU_NORM_POOL;
  bool again = (moments || relu) && !y;
  auto unpool_rows = moments ? (relu ? unpool<true, true> : unpool<true, false>)
                             : (relu ? unpool<false, true> : unpool<false, false>);
  Buffer<float> packed(gx ? packed_size(g) : 0), packed_forward(again ? packed_size(g) : 0);
  Buffer<float> y_chunk(again ? chunk : 0), g_chunk(chunk), small(6 * channels, true);
  Buffer<float> frame(gx ? gradient_frame_size(g) : 0, true), zeros(g.in_vectors() * WIDTH, true);
  Buffer<float> gw_packed((size_t)g.taps() * in_channels * channels, true);
  Buffer<double> doubles(3 * channels, true);
  if (!packed || !packed_forward || !y_chunk || !g_chunk || !small || !frame || !zeros ||
      !gw_packed || !doubles)
    return 1;
  double *sums = doubles.data, *products = sums + channels, *gb_total = products + channels;
  float *at_extreme = small.data, *deviation = at_extreme + channels;
  float *constant = deviation + channels, *mean = constant + channels, *bias = mean + channels;
  BlockGradient coefficients = {mean, at_extreme, deviation, constant, bias + channels};
  if (gx) pack_backward(g, w, packed.data);
  if (again) pack_forward(g, w, packed_forward.data);
  pad_channels(b, out_channels, bias);
  if (statistics != NONE) {
    memcpy(mean, saved, out_channels * sizeof(float));
    gradient_sums(gout, extreme, index, n * pooled, vectors, out_channels, mean, sums, products);
  }
  double count = (double)n * g.out_pixels();
  for (int c = 0; c < out_channels; c++) {
    at_extreme[c] = 1;
    if (statistics == NONE) continue;
    double inv_std = saved[channels + c], scale = gamma[c] * inv_std;
    gbeta[c] = (float)sums[c];
    ggamma[c] = (float)(products[c] * inv_std);
    at_extreme[c] = (float)scale;
    if (statistics != BATCH) continue;
    deviation[c] = (float)(-scale * inv_std * inv_std * products[c] / count);
    constant[c] = (float)(-scale * sums[c] / count);
  }
  for (int i = 0; i < n; i += chunks.images)
    for (int row = 0; row < g.out_height; row += chunks.rows) {
      int images = smaller(chunks.images, n - i), rows = smaller(chunks.rows, g.out_height - row);
      const float* from = x + i * g.image() + (size_t)row * width * in_channels;
      const float* here = y ? y + i * y_image + (size_t)row * g.out_width * channels : nullptr;
      if (again) {
        conv_images(g, from, g.image(), width, images, rows, packed_forward.data, bias,
                    order == RELU_NORM_POOL, dense(g, y_chunk.data, channels));
        here = y_chunk.data;
      }
      memset(coefficients.sums, 0, channels * sizeof(float));
      for (int k = 0; k < images; k++) {
        size_t pixel = (i + k) * pooled + row / 2 * pooled_row;
        unpool_rows(here ? here + k * y_image : here, gout + pixel * out_channels,
                    index + pixel * channels, rows, g.out_width, vectors, out_channels,
                    coefficients, g_chunk.data + k * y_image);
      }
      for (int c = 0; c < channels; c++) gb_total[c] += coefficients.sums[c];
      if (gw)
        weight_gradient(g, from, g.image(), width, g_chunk.data, y_image, images, rows,
                        gw_packed.data);
      if (gx)
        input_gradient(g, g_chunk.data, channels, images, packed.data, frame.data, zeros.data,
                       gx + i * g.image());
    }
  if (gw) unpack_weight_gradient(g, gw_packed.data, gw);
  // Batch normalization takes away whatever the bias adds.
  bool no_effect = statistics == BATCH && order == NORM_RELU_POOL;
  for (int c = 0; gb && c < out_channels; c++) gb[c] = no_effect ? 0 : (float)gb_total[c];
  return 0;
}
