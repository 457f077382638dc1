// Every layer but convolution and pooling.
//
// Nothing is checked here: the callers in layers.py answer for shapes and memory.
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "tiles.h"

// Every library answers with this number: one that does not is not ours, or not whole.
extern "C" int mnist_bn_kernels_version() { return 1; }

// ---------------------------------------------------------------------------------------------
// Batch Normalization (Ioffe and Szegedy, 2015). In training, for each channel of m rows x_i:
//
//   mean = sum(x_i) / m        var = sum((x_i - mean)^2) / m                       (algorithm 1)
//   normalized_i = (x_i - mean) / sqrt(var + eps)
//   y_i = gamma * normalized_i + beta
//
// and backwards, from the gradients gy_i of y_i (section 3):
//
//   gbeta = sum(gy_i)          ggamma = sum(gy_i * normalized_i)
//   gx_i = gamma / sqrt(var + eps) * (gy_i - gbeta / m - normalized_i * ggamma / m)
//
// After training, y_i is computed with fixed statistics (algorithm 2): averages over minibatches of
// mean and of m / (m - 1) * var, here running ones.

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
static void bn_sums_of(const float* x, int64_t rows, int64_t channels, double* origin, double* sums,
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

// All slices' sums, about the first's origin, after which `sums`, `squares` and room for those of
// MOST_SLICES lie.
static void bn_sums(const float* x, int64_t rows, int64_t channels, double* origin) {
  const Slices slices = row_slices(rows, channels);
  parallel(slices.count, workers_for((double)rows * channels), [&](int slice, int) {
    double* own = origin + 3 * channels * slice;
    bn_sums_of(x + slices.first(slice) * channels, slices.length(slice), channels, own,
               own + channels, own + 2 * channels);
  });
  double *sums = origin + channels, *squares = sums + channels;
  for (int s = 1; s < slices.count; s++) {
    const double* own = origin + 3 * channels * s;
    for (int64_t c = 0; c < channels; c++) {
      const double offset = own[c] - origin[c], sum = own[channels + c];
      sums[c] += sum + offset * slices.length(s);
      squares[c] += own[2 * channels + c] + offset * (2 * sum + offset * slices.length(s));
    }
  }
}

// y = after(tile, index, (x - mean) * scale + shift)
template <class After>
INLINE void normalize_and(const float* x, int64_t rows, int64_t channels, const float* mean,
                          const float* scale, const float* shift, float* y, After after) {
  for_slices(rows, channels, [&](int64_t begin, int64_t length) {
    for_tiles(length, channels, rows_in_order(channels),
              [&](int64_t first, int64_t count, int64_t c, auto tile) {
                const vfloat m = tile.load_constant(mean + c), a = tile.load_constant(scale + c),
                             b = tile.load_constant(shift + c);
                const int64_t start = (begin + first) * channels + c;
                for (int64_t i = start; i < start + count * channels; i += channels)
                  tile.store(y + i, after(tile, i, (tile.load(x + i) - m) * a + b));
              });
  });
}

static void normalize(const float* x, int64_t rows, int64_t channels, const float* mean,
                      const float* scale, const float* shift, float* y) {
  normalize_and(x, rows, channels, mean, scale, shift, y,
                [](auto, int64_t, vfloat v) MEMBER { return v; });
}

INLINE vfloat relu(vfloat v) { return select(v <= vfloat{}, vfloat{}, v); }  // NaN stays NaN

// What follows normalization: nothing, or a ReLU, before which `added` is added unless it is null.
static void normalize_and_relu(const float* x, int64_t rows, int64_t channels, const float* mean,
                               const float* scale, const float* shift, const float* added,
                               bool with_relu, float* y) {
  if (!with_relu)
    normalize(x, rows, channels, mean, scale, shift, y);
  else if (!added)
    normalize_and(x, rows, channels, mean, scale, shift, y,
                  [](auto, int64_t, vfloat v) MEMBER { return relu(v); });
  else
    normalize_and(x, rows, channels, mean, scale, shift, y,
                  [=](auto tile, int64_t i, vfloat v)
                      MEMBER { return relu(v + tile.load(added + i)); });
}

// The gradient of BN's output, as it is given.
struct Given {
  const float* gy;
  template <class Tile>
  MEMBER vfloat load(Tile tile, int64_t i) const {
    return tile.load(gy + i);
  }
};

// The same from that of a ReLU after it, which returned y. A product: 0 * Inf and 0 * NaN are NaN.
struct ThroughRelu {
  const float *gy, *y;
  template <class Tile>
  MEMBER vfloat load(Tile tile, int64_t i) const {
    return tile.load(gy + i) * select(tile.load(y + i) > vfloat{}, broadcast(1), vfloat{});
  }
};

template <class Gradient>
static void bn_gradient_sums_of(const float* x, Gradient gy, int64_t begin, int64_t rows,
                                int64_t channels, const float* mean, double* sums,
                                double* products) {
  memset(sums, 0, channels * sizeof(double));
  memset(products, 0, channels * sizeof(double));
  for_tiles(rows, channels, rows_in_cache(channels),
            [&](int64_t first, int64_t count, int64_t c, auto tile) {
              const vfloat m = tile.load_constant(mean + c);
              const int64_t start = (begin + first) * channels + c;
              vdouble sum = {}, product = {};
              add_rows(count, sum, product, [&](int64_t row, vfloat& a, vfloat& b) MEMBER {
                const int64_t i = start + row * channels;
                const vfloat g = gy.load(tile, i);
                a += g;
                b += g * (tile.load(x + i) - m);
              });
              for (int k = tile.skip; k < tile.lanes(); k++) {
                sums[c + k] += sum[k];
                products[c + k] += product[k];
              }
            });
}

// The sums over rows of gy and of gy * (x - mean), after which `products` and room for those of
// MOST_SLICES lie.
template <class Gradient>
static void bn_gradient_sums(const float* x, Gradient gy, int64_t rows, int64_t channels,
                             const float* mean, double* sums) {
  const Slices slices = row_slices(rows, channels);
  parallel(slices.count, workers_for((double)rows * channels), [&](int slice, int) {
    double* own = sums + 2 * channels * slice;
    bn_gradient_sums_of(x, gy, slices.first(slice), slices.length(slice), channels, mean, own,
                        own + channels);
  });
  for (int64_t i = 2 * channels; i < 2 * channels * slices.count; i++)
    sums[i % (2 * channels)] += sums[i];
}

template <class Gradient>
static void bn_gradients(const float* x, Gradient gy, int64_t rows, int64_t channels,
                         const float* gamma, const float* mean, const float* inv_std, float* gx,
                         float* ggamma, float* gbeta, double* workspace) {
  double *sums = workspace, *products = sums + channels;
  float *scale = (float*)(sums + 2 * MOST_SLICES * channels), *average = scale + channels,
        *slope = average + channels;
  bn_gradient_sums(x, gy, rows, channels, mean, sums);
  for (int64_t c = 0; c < channels; c++) {
    gbeta[c] = (float)sums[c];
    ggamma[c] = (float)(products[c] * inv_std[c]);
    scale[c] = gamma[c] * inv_std[c];
    average[c] = (float)(sums[c] / rows);
    slope[c] = (float)(products[c] * inv_std[c] * inv_std[c] / rows);
  }
  for_slices(rows, channels, [&](int64_t begin, int64_t length) {
    for_tiles(length, channels, rows_in_order(channels),
              [&](int64_t first, int64_t count, int64_t c, auto tile) {
                const vfloat a = tile.load_constant(scale + c), b = tile.load_constant(average + c),
                             s = tile.load_constant(slope + c), m = tile.load_constant(mean + c);
                const int64_t start = (begin + first) * channels + c;
                for (int64_t i = start; i < start + count * channels; i += channels)
                  tile.store(gx + i, a * (gy.load(tile, i) - b - (tile.load(x + i) - m) * s));
              });
  });
}

extern "C" {

// Algorithm 1, and what follows as in normalize_and_relu; running statistics, if given, move by
// 1 - decay. workspace: 25 * channels doubles.
void bn_forward(const float* x, int64_t rows, int64_t channels, const float* gamma,
                const float* beta, double eps, double decay, float* running_mean,
                float* running_var, float* mean, float* var, float* inv_std, const float* added,
                int with_relu, float* y, double* workspace) {
  double *origin = workspace, *sums = origin + channels, *squares = sums + channels;
  float *scale = (float*)(origin + 3 * MOST_SLICES * channels), *shift = scale + channels;
  bn_sums(x, rows, channels, origin);
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
  normalize_and_relu(x, rows, channels, mean, scale, shift, added, with_relu, y);
}

// The gradients of bn_forward: gy is that of y, or of a ReLU's output y if that is not null.
// workspace: 18 * channels doubles.
void bn_backward(const float* x, const float* gy, const float* y, int64_t rows, int64_t channels,
                 const float* gamma, const float* mean, const float* inv_std, float* gx,
                 float* ggamma, float* gbeta, double* workspace) {
  auto gradients = [&](auto gradient) {
    bn_gradients(x, gradient, rows, channels, gamma, mean, inv_std, gx, ggamma, gbeta, workspace);
  };
  if (y)
    gradients(ThroughRelu{gy, y});
  else
    gradients(Given{gy});
}

// Algorithm 2's y, with given statistics, and what follows as in normalize_and_relu. workspace:
// channels doubles.
void bn_fixed_forward(const float* x, int64_t rows, int64_t channels, const float* gamma,
                      const float* beta, const float* mean, const float* var, double eps,
                      float* inv_var, float* inv_std, const float* added, int with_relu, float* y,
                      double* workspace) {
  float* scale = (float*)workspace;
  for (int64_t c = 0; c < channels; c++) {
    const double exact_inv_var = 1 / (var[c] + eps);
    inv_var[c] = (float)exact_inv_var;
    inv_std[c] = (float)sqrt(exact_inv_var);
    scale[c] = (float)(gamma[c] * sqrt(exact_inv_var));
  }
  normalize_and_relu(x, rows, channels, mean, scale, beta, added, with_relu, y);
}

// Its gradients for x, gamma and beta. workspace: 17 * channels doubles.
void bn_fixed_backward(const float* x, const float* gy, int64_t rows, int64_t channels,
                       const float* gamma, const float* mean, const float* inv_std, float* gx,
                       float* ggamma, float* gbeta, double* workspace) {
  double *sums = workspace, *products = sums + channels;
  float *scale = (float*)(sums + 2 * MOST_SLICES * channels), *zero = scale + channels;
  bn_gradient_sums(x, Given{gy}, rows, channels, mean, sums);
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
  for_slices(size, 1, [=](int64_t first, int64_t count) {
    const float* __restrict from = x + first;
    float* __restrict to = y + first;
    for (int64_t i = 0; i < count; i++) to[i] = from[i] <= 0 ? 0 : from[i];  // NaN stays NaN
  });
}

// A product and no selection: 0 * Inf and 0 * NaN are NaN, as in Chainer.
void relu_backward(const float* __restrict y, const float* __restrict gy, int64_t size,
                   float* __restrict gx) {
  for_slices(size, 1, [=](int64_t first, int64_t count) {
    const float* __restrict value = y + first, * __restrict from = gy + first;
    float* __restrict to = gx + first;
    for (int64_t i = 0; i < count; i++) to[i] = from[i] * (value[i] > 0 ? 1.0f : 0.0f);
  });
}

// to = from, times the slope where `condition` is not above zero: leaky ReLU if both are x, and its
// gradient if `from` is that of the output. NaN is not below zero.
void leaky_relu(const float* condition, const float* from, int64_t size, float slope, float* to) {
  for_slices(size, 1, [=](int64_t first, int64_t count) {
    for (int64_t i = first; i < first + count; i += WIDTH) {
      const int64_t left = first + count - i;
      const int lanes = left < WIDTH ? (int)left : WIDTH;
      const vfloat x = load_partial(from + i, lanes), c = load_partial(condition + i, lanes);
      store_partial(to + i, select(c <= vfloat{}, x * slope, x), lanes);
    }
  });
}
}  // extern "C"

// ---------------------------------------------------------------------------------------------
// Dropout, with the bits that numpy.random.rand() would draw from the same generator.

struct MT19937 {  // NumPy's own layout, at bit_generator.ctypes.state_address
  uint32_t key[624];
  int32_t position;
};

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

// mask = scale where rand() >= ratio, else 0. least: ratio * 2^53, rounded up.
static void draw_mask(MT19937* state, int64_t size, int64_t least, float scale,
                      float* __restrict mask) {
  uint32_t words[624];
  for (int64_t i = 0; i < size;) {
    if (state->position >= 623) {  // the two words of a number may lie in two turns
      const uint32_t first = mt19937_word(state), second = mt19937_word(state);
      mask[i++] = rand_bits(first, second) >= least ? scale : 0;
      continue;
    }
    const int64_t pairs = (624 - state->position) / 2, count = size - i < pairs ? size - i : pairs;
    const uint32_t* key = state->key + state->position;
    for (int64_t k = 0; k < 2 * count; k++) words[k] = mt19937_temper(key[k]);
    for (int64_t k = 0; k < count; k++)
      mask[i + k] = rand_bits(words[2 * k], words[2 * k + 1]) >= least ? scale : 0;
    state->position += 2 * count;
    i += count;
  }
}

INLINE void multiply(const float* __restrict a, const float* __restrict b, int64_t size,
                     float* __restrict product) {
  for (int64_t i = 0; i < size; i++) product[i] = a[i] * b[i];
}

extern "C" {

// y = x * mask, drawn in the order of (N, C, H, W), where the arrays lie as (N, H, W, C). An array
// that lies in the order of its numbers has one channel.
void dropout_forward(MT19937* state, const float* x, int64_t images, int64_t channels,
                     int64_t points, int64_t least, float scale, float* mask, float* y) {
  constexpr int64_t PART = 2048;  // stays in the cache from the drawing to the product
  const int64_t size = channels * points;
  if (channels == 1)
    for (int64_t i = 0; i < images * size; i += PART) {
      const int64_t count = images * size - i < PART ? images * size - i : PART;
      draw_mask(state, count, least, scale, mask + i);
      multiply(x + i, mask + i, count, y + i);
    }
  else
    for (; images > 0; images--, x += size, mask += size, y += size) {
      draw_mask(state, size, least, scale, y);
      for (int64_t p = 0; p < points; p++)
        for (int64_t c = 0; c < channels; c++) mask[p * channels + c] = y[c * points + p];
      multiply(x, mask, size, y);
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
