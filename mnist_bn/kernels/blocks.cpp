// Fused blocks: convolution, normalization or none, ReLU and 2x2 max pooling in any of the orders
// below. Work goes in chunks that stay in the L1 cache: several small images, or some rows of a
// large one. Winograd convolution has larger ones, for the L2 cache. Channels are rounded up to whole
// vectors in all that is ours alone.
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "convolution.h"
#include "parallel.h"
#include "winograd.h"

extern "C" int vector_width() { return WIDTH; }

enum Order { RELU_POOL = 0, NORM_RELU_POOL = 1, RELU_NORM_POOL = 2 };
enum Statistics { NONE = 0, FIXED = 1, BATCH = 2 };
// An index of a pixel in its pooling window, where the ReLU cut it off.
constexpr int CUT_OFF = 4;

struct Chunks {
  int images, rows;  // all rows, unless images is 1

  Chunks(const Geometry& g, bool whole_images, const Winograd* winograd) {
    size_t row = (size_t)g.out_width * g.out_vectors() * WIDTH, image = g.out_height * row;
    images = larger(1, (int)(CHUNK_FLOATS / image));
    rows = g.out_height;
    if (winograd)
      images = winograd->images();
    else if (image > CHUNK_FLOATS && !whole_images)
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

  void merge(const Moments& other, int channels) {
    double total = count + other.count, weight = other.count / total;
    for (int c = 0; c < channels; c++) {
      double delta = other.mean[c] - mean[c];
      mean[c] += delta * weight;
      squares[c] += other.squares[c] + delta * delta * (count * weight);
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
      int kernel_height, int kernel_width, int use_winograd
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
  const Slices slices = image_slices(n);
  const int workers = workers_for(products(g, n));
  Winograd winograd(g, use_winograd ? Winograd::FORWARD : Winograd::NONE, workers, slices.count);
  Chunks chunks(g, false, use_winograd ? &winograd : nullptr);
  int vectors = g.out_vectors(), channels = vectors * WIDTH;
  size_t pooled_row = (size_t)(g.out_width + 1) / 2 * channels;
  size_t pooled = (g.out_height + 1) / 2 * pooled_row, y_image = g.out_pixels() * channels;
  size_t pooled_pixels = (size_t)(g.out_height + 1) / 2 * ((g.out_width + 1) / 2);
  size_t chunk_rows = (size_t)chunks.images * chunks.rows;
  Buffer<float> packed(packed_size(g)), small(6 * channels, true);
  Each<float> y_chunks(y ? 0 : chunk_rows * g.out_width * channels, workers);
  Each<float> extreme_chunks(extreme ? 0 : chunk_rows * pooled_row, workers);
  Each<uint8_t> index_chunks(index ? 0 : chunk_rows * pooled_row, workers);
  Each<double> means(channels, slices.count, true), squares(channels, slices.count, true);
  if (!winograd || !packed || !small || !y_chunks || !extreme_chunks || !index_chunks || !means ||
      !squares)
    return 1;
  float *bias = small.data, *sign = bias + channels, *scale = sign + channels;
  float *mean = scale + channels, *shift = mean + channels;
  Moments parts[MOST_SLICES];
  if (use_winograd)
    winograd.set_weights(w, packed.data);
  else
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
  parallel(slices.count, workers, [&](int slice, int worker) {
    Moments moments;
    moments.mean = means[slice];
    moments.squares = squares[slice];
    int end = slices.first(slice + 1);
    for (int i = slices.first(slice); i < end; i += chunks.images)
      for (int row = 0; row < g.out_height; row += chunks.rows) {
        int images = smaller(chunks.images, end - i);
        int rows = smaller(chunks.rows, g.out_height - row);
        float* to = y ? y + i * y_image + (size_t)row * g.out_width * channels : y_chunks[worker];
        const float* from = x + i * g.image() + (size_t)row * width * in_channels;
        if (use_winograd)
          winograd.forward(from, images, bias, relu_first, to, channels, worker);
        else
          conv_images(g, from, g.image(), width, images, rows, packed.data, bias, relu_first,
                      dense(g, to, channels));
        int pixels = images * rows * g.out_width;
        int part = use_winograd ? larger(1, CHUNK_FLOATS / channels) : pixels;
        for (int p = 0; statistics == BATCH && p < pixels; p += part)
          moments.add(to + (size_t)p * channels, smaller(part, pixels - p), vectors);
        size_t pooled_at = i * pooled + row / 2 * pooled_row;
        float* best = extreme ? extreme + pooled_at : extreme_chunks[worker];
        uint8_t* at = index ? index + pooled_at : index_chunks[worker];
        for (int k = 0; k < images; k++)
          find_extremes(to + k * y_image, rows, g.out_width, vectors, sign, best + k * pooled,
                        at + k * pooled);
        if (statistics != BATCH) {
          size_t pixels = (size_t)images * ((rows + 1) / 2) * ((g.out_width + 1) / 2);
          finish(best, at, pixels, vectors, out_channels, mean, scale, shift, relu_last,
                 out + pooled_at / channels * out_channels);
        }
      }
    parts[slice] = moments;
  });
  if (statistics != BATCH) return 0;
  Moments& moments = parts[0];
  for (int s = 1; s < slices.count; s++) moments.merge(parts[s], channels);
  for (int c = 0; c < out_channels; c++) {
    saved[c] = mean[c] = (float)moments.mean[c];
    saved[channels + c] = (float)(1 / sqrt(moments.squares[c] / moments.count + eps));
    scale[c] = gamma[c] * saved[channels + c];
  }
  if (avg_mean) update_running(moments, out_channels, decay, avg_mean, avg_var);
  parallel(slices.count, workers, [&](int slice, int) {
    size_t first = slices.first(slice);
    finish(extreme + first * pooled, index + first * pooled, slices.length(slice) * pooled_pixels,
           vectors, out_channels, mean, scale, shift, relu_last,
           out + first * pooled_pixels * out_channels);
  });
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

// A channel's sum over all slices.
INLINE double in_order(const Each<double>& parts, const Slices& slices, int channel) {
  double total = 0;
  for (int s = 0; s < slices.count; s++) total += parts[s][channel];
  return total;
}

// Arguments as of block_forward(). Any of gx, gw, gb may be null; ggamma and gbeta are set where
// there are statistics.
extern "C" int block_backward(const float* x, const float* w, const float* b, const float* gamma,
                              const float* y, const float* extreme, const uint8_t* index,
                              const float* saved, const float* gout, float* gx, float* gw,
                              float* gb, float* ggamma, float* gbeta, BLOCK_ARGUMENTS) {
  Geometry g = BLOCK_GEOMETRY;
  int vectors = g.out_vectors(), channels = vectors * WIDTH;
  size_t filter = (size_t)g.taps() * in_channels * channels;
  const Slices slices = image_slices(n, use_winograd ? Winograd::sums(g) : filter);
  const int workers = workers_for(products(g, n));
  size_t pooled_row = (size_t)(g.out_width + 1) / 2, y_image = g.out_pixels() * channels;
  size_t pooled = (g.out_height + 1) / 2 * pooled_row;  // pixels
  bool moments = statistics == BATCH, relu = order == RELU_NORM_POOL;
  bool again = (moments || relu) && !y;
  Winograd winograd(g,
                    use_winograd ? (again ? Winograd::FORWARD : 0) |
                                       (gx ? Winograd::INPUT_GRADIENT : 0) |
                                       (gw ? Winograd::WEIGHT_GRADIENT : 0)
                                 : Winograd::NONE,
                    workers, slices.count);
  Chunks chunks(g, gx != nullptr, use_winograd ? &winograd : nullptr);
  size_t chunk = (size_t)chunks.images * chunks.rows * g.out_width * channels;
  auto unpool_rows = moments ? (relu ? unpool<true, true> : unpool<true, false>)
                             : (relu ? unpool<false, true> : unpool<false, false>);
  Buffer<float> packed(gx || use_winograd ? packed_size(g) : 0);
  Buffer<float> packed_forward(again && !use_winograd ? packed_size(g) : 0);
  Each<float> y_chunks(again ? chunk : 0, workers), g_chunks(chunk, workers);
  Buffer<float> small(5 * channels, true);
  Each<float> frames(gx && !use_winograd ? gradient_frame_size(g) : 0, workers, true);
  Buffer<float> zeros(g.in_vectors() * WIDTH, true);
  Each<float> gw_parts(gw ? filter : 0, use_winograd ? 1 : slices.count, !use_winograd);
  Each<float> gb_chunks(channels, slices.count);
  Each<double> sum_parts(channels, slices.count, true), product_parts(channels, slices.count, true);
  Each<double> gb_parts(channels, slices.count, true);
  if (!winograd || !packed || !packed_forward || !y_chunks || !g_chunks || !small || !frames ||
      !zeros || !gw_parts || !gb_chunks || !sum_parts || !product_parts || !gb_parts)
    return 1;
  float *at_extreme = small.data, *deviation = at_extreme + channels;
  float *constant = deviation + channels, *mean = constant + channels, *bias = mean + channels;
  if (use_winograd) winograd.set_weights(w, packed.data);
  if (gx && !use_winograd) pack_backward(g, w, packed.data);
  if (again && !use_winograd) pack_forward(g, w, packed_forward.data);
  pad_channels(b, out_channels, bias);
  if (statistics != NONE) {
    memcpy(mean, saved, out_channels * sizeof(float));
    parallel(slices.count, workers, [&](int slice, int) {
      size_t first = slices.first(slice) * pooled;
      gradient_sums(gout + first * out_channels, extreme + first * channels,
                    index + first * channels, slices.length(slice) * pooled, vectors, out_channels,
                    mean, sum_parts[slice], product_parts[slice]);
    });
  }
  double count = (double)n * g.out_pixels();
  for (int c = 0; c < out_channels; c++) {
    at_extreme[c] = 1;
    if (statistics == NONE) continue;
    double sum = in_order(sum_parts, slices, c), product = in_order(product_parts, slices, c);
    double inv_std = saved[channels + c], scale = gamma[c] * inv_std;
    gbeta[c] = (float)sum;
    ggamma[c] = (float)(product * inv_std);
    at_extreme[c] = (float)scale;
    if (statistics != BATCH) continue;
    deviation[c] = (float)(-scale * inv_std * inv_std * product / count);
    constant[c] = (float)(-scale * sum / count);
  }
  parallel(slices.count, workers, [&](int slice, int worker) {
    BlockGradient coefficients = {mean, at_extreme, deviation, constant, gb_chunks[slice]};
    float *y_chunk = y_chunks[worker], *g_chunk = g_chunks[worker];
    int start = slices.first(slice), end = slices.first(slice + 1);
    for (int i = start; i < end; i += chunks.images)
      for (int row = 0; row < g.out_height; row += chunks.rows) {
        int images = smaller(chunks.images, end - i);
        int rows = smaller(chunks.rows, g.out_height - row);
        const float* from = x + i * g.image() + (size_t)row * width * in_channels;
        const float* here = y ? y + i * y_image + (size_t)row * g.out_width * channels : nullptr;
        if (again) {
          if (use_winograd)
            winograd.forward(from, images, bias, relu, y_chunk, channels, worker);
          else
            conv_images(g, from, g.image(), width, images, rows, packed_forward.data, bias, relu,
                        dense(g, y_chunk, channels));
          here = y_chunk;
        }
        memset(coefficients.sums, 0, channels * sizeof(float));
        for (int k = 0; k < images; k++) {
          size_t pixel = (i + k) * pooled + row / 2 * pooled_row;
          unpool_rows(here ? here + k * y_image : here, gout + pixel * out_channels,
                      index + pixel * channels, rows, g.out_width, vectors, out_channels,
                      coefficients, g_chunk + k * y_image);
        }
        for (int c = 0; c < channels; c++) gb_parts[slice][c] += coefficients.sums[c];
        if (use_winograd) {
          float* to = gx ? gx + i * g.image() : gx;
          if (gw || gx)
            winograd.gradients(from, g_chunk, channels, images, to, worker, slice, i == start);
          continue;
        }
        if (gw)
          weight_gradient(g, from, g.image(), width, g_chunk, y_image, images, rows,
                          gw_parts[slice]);
        if (gx)
          input_gradient(g, g_chunk, channels, images, packed.data, frames[worker], zeros.data,
                         gx + i * g.image());
      }
  });
  if (gw && use_winograd) winograd.weight_gradient(gw_parts[0]);
  if (gw)
    unpack_weight_gradient(g, gw_parts[0], gw, use_winograd ? 1 : slices.count, gw_parts.distance);
  // Batch normalization takes away whatever the bias adds.
  bool no_effect = statistics == BATCH && order == NORM_RELU_POOL;
  for (int c = 0; gb && c < out_channels; c++)
    gb[c] = no_effect ? 0 : (float)in_order(gb_parts, slices, c);
  return 0;
}
