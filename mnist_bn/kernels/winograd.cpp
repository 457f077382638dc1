// Winograd convolution F(4x4, 3x3): 36 products for 16 outputs, where direct convolution takes 144
// (Lavin and Gray 2016, "Fast Algorithms for Convolutional Neural Networks").
//
// An image is cut into tiles of 4x4 outputs. A tile's 6x6 inputs d, its outputs y and the kernel g
// become 6x6 elements each: y = A' [(G g G') * (B' d B)] A, `*` element by element. For each of the
// 36 elements, the sum over input channels is a product of two matrices, over all tiles at a time.
// Both gradients are the adjoints of these maps.
//
// The transforms are those of the points 0, +-5/8, +-3/2 and infinity, which are exact in float and
// round less than the usual 0, +-1, +-2.
#include "winograd.h"

#include <string.h>

#include "products.h"

constexpr int INPUTS = 6, OUTPUTS = 4, ELEMENTS = INPUTS * INPUTS;
// Floats of transformed tiles that are to stay in the L2 cache.
constexpr int TILE_FLOATS = 128 * 1024;

// ---- transforms of one axis

constexpr float P = 0.625f, P2 = P * P, P3 = P2 * P, Q = 1.5f, Q2 = Q * Q, Q3 = Q2 * Q;
constexpr float ZERO = 1 / (P2 * Q2);  // weights of the points: 1 / product of the differences
constexpr float AT_P = 1 / (2 * P2 * (P2 - Q2)), AT_Q = 1 / (2 * Q2 * (Q2 - P2));

INLINE void transform_inputs(const vfloat* d, vfloat* v) {  // B'
  vfloat p = d[4] - Q2 * d[2], p_odd = d[3] - Q2 * d[1];
  vfloat q = d[4] - P2 * d[2], q_odd = d[3] - P2 * d[1];
  v[0] = P2 * Q2 * d[0] - (P2 + Q2) * d[2] + d[4];
  v[1] = p + P * p_odd;
  v[2] = p - P * p_odd;
  v[3] = q + Q * q_odd;
  v[4] = q - Q * q_odd;
  v[5] = P2 * Q2 * d[1] - (P2 + Q2) * d[3] + d[5];
}

INLINE void transform_inputs_back(const vfloat* v, vfloat* d) {  // B
  vfloat p = v[1] + v[2], p_odd = v[1] - v[2], q = v[3] + v[4], q_odd = v[3] - v[4];
  d[0] = P2 * Q2 * v[0];
  d[1] = P2 * Q2 * v[5] - P * Q2 * p_odd - Q * P2 * q_odd;
  d[2] = -(P2 + Q2) * v[0] - Q2 * p - P2 * q;
  d[3] = P * p_odd + Q * q_odd - (P2 + Q2) * v[5];
  d[4] = v[0] + p + q;
  d[5] = v[5];
}

INLINE void transform_outputs(const vfloat* m, vfloat* y) {  // A'
  vfloat p = m[1] + m[2], p_odd = m[1] - m[2], q = m[3] + m[4], q_odd = m[3] - m[4];
  y[0] = m[0] + p + q;
  y[1] = P * p_odd + Q * q_odd;
  y[2] = P2 * p + Q2 * q;
  y[3] = P3 * p_odd + Q3 * q_odd + m[5];
}

INLINE void transform_outputs_back(const vfloat* y, vfloat* m) {  // A
  vfloat p = y[0] + P2 * y[2], p_odd = P * y[1] + P3 * y[3];
  vfloat q = y[0] + Q2 * y[2], q_odd = Q * y[1] + Q3 * y[3];
  m[0] = y[0];
  m[1] = p + p_odd;
  m[2] = p - p_odd;
  m[3] = q + q_odd;
  m[4] = q - q_odd;
  m[5] = y[3];
}

INLINE void transform_kernel(const vfloat* g, vfloat* u) {  // G
  vfloat p = AT_P * g[0] + AT_P * P2 * g[2], p_odd = AT_P * P * g[1];
  vfloat q = AT_Q * g[0] + AT_Q * Q2 * g[2], q_odd = AT_Q * Q * g[1];
  u[0] = ZERO * g[0];
  u[1] = p + p_odd;
  u[2] = p - p_odd;
  u[3] = q + q_odd;
  u[4] = q - q_odd;
  u[5] = g[2];
}

INLINE void transform_kernel_back(const vfloat* u, vfloat* g) {  // G'
  vfloat p = u[1] + u[2], p_odd = u[1] - u[2], q = u[3] + u[4], q_odd = u[3] - u[4];
  g[0] = ZERO * u[0] + AT_P * p + AT_Q * q;
  g[1] = AT_P * P * p_odd + AT_Q * Q * q_odd;
  g[2] = AT_P * P2 * p + AT_Q * Q2 * q + u[5];
}

// Both axes: calls get(row, column) for FROM x FROM vectors and set(row, column, vector) for
// TO x TO.
template <int FROM, int TO, void AXIS(const vfloat*, vfloat*), class Get, class Set>
INLINE void transform(Get get, Set set) {
  vfloat half[TO][FROM];
#pragma GCC unroll 6
  for (int column = 0; column < FROM; column++) {
    vfloat from[FROM], to[TO];
#pragma GCC unroll 6
    for (int row = 0; row < FROM; row++) from[row] = get(row, column);
    AXIS(from, to);
#pragma GCC unroll 6
    for (int row = 0; row < TO; row++) half[row][column] = to[row];
  }
#pragma GCC unroll 6
  for (int row = 0; row < TO; row++) {
    vfloat to[TO];
    AXIS(half[row], to);
#pragma GCC unroll 6
    for (int column = 0; column < TO; column++) set(row, column, to[column]);
  }
}

// ---- tiles of images

// Where the SIZE x SIZE pixels of a tile lie in images of `channels`, and which of them are there.
template <int SIZE>
struct Patch {
  int first_row, last_row, first_column, last_column;  // in the tile; last: the first not there
  ptrdiff_t corner, row;                               // of the tile, even if it is not there

  Patch(const Geometry& g, bool is_output, int image, int tile_row, int tile_column,
        int channels) {
    int height = is_output ? g.out_height : g.height, width = is_output ? g.out_width : g.width;
    int y = OUTPUTS * tile_row - (is_output ? 0 : g.pad_y);
    int x = OUTPUTS * tile_column - (is_output ? 0 : g.pad_x);
    first_row = larger(0, -y);
    last_row = smaller(SIZE, height - y);
    first_column = larger(0, -x);
    last_column = smaller(SIZE, width - x);
    row = (ptrdiff_t)width * channels;
    corner = ((ptrdiff_t)image * height + y) * row + (ptrdiff_t)x * channels;
  }

  bool is_whole() const {
    return first_row == 0 && first_column == 0 && last_row == SIZE && last_column == SIZE;
  }

  // The tile's pixels between others' or, if some are not there or have no whole vectors, in
  // `buffer` with zeros in their place. Sets the distance of rows.
  const float* read(const float* images, int channels, int whole_channels, float* buffer,
                    ptrdiff_t& distance) const {
    if (is_whole() && channels == whole_channels) {
      distance = row;
      return images + corner;
    }
    distance = (ptrdiff_t)SIZE * whole_channels;
    memset(buffer, 0, SIZE * distance * sizeof(float));
    for (int y = first_row; y < last_row; y++)
      for_pixels(y, channels, whole_channels, [&](ptrdiff_t at, ptrdiff_t in_buffer, size_t count) {
        memcpy(buffer + in_buffer, images + at, count * sizeof(float));
      });
    return buffer;
  }

  // Calls body(first in the images, first in a buffer, number of floats) for the pixels of a row
  // that are there.
  template <class Body>
  void for_pixels(int y, int channels, int whole_channels, Body body) const {
    int pixels = last_column - first_column;
    if (pixels <= 0) return;
    ptrdiff_t at = corner + y * row + (ptrdiff_t)first_column * channels;
    ptrdiff_t in_buffer = ((ptrdiff_t)y * SIZE + first_column) * whole_channels;
    if (channels == whole_channels) return body(at, in_buffer, (size_t)pixels * channels);
    for (int x = 0; x < pixels; x++, at += channels, in_buffer += whole_channels)
      body(at, in_buffer, channels);
  }
};

// An odd number of cache lines, so that the 36 elements of a tile do not share a set of the cache.
static size_t plane_size(size_t floats) { return ((floats + 15) / 16 | 1) * 16; }

// Calls body(tile, image, row, column) for `count` tiles from the `first` of all images on.
template <class Body>
static void for_tiles(int rows, int columns, int first, int count, Body body) {
  int column = first % columns, row = first / columns % rows, image = first / (columns * rows);
  for (int tile = 0; tile < count; tile++) {
    body(tile, image, row, column);
    if (++column < columns) continue;
    column = 0;
    if (++row < rows) continue;
    row = 0;
    image++;
  }
}

// ---- weights

// From kernels that are packed in blocks of one or two vectors, with the distances given in a
// block of one lane, to [36][block][element].
static void transform_weights(const float* packed, int lanes, int elements, ptrdiff_t kernel_row,
                              ptrdiff_t kernel_column, ptrdiff_t element, float* to, size_t plane) {
  for (int first = 0, block; first < lanes; first += block) {
    block = smaller(2 * WIDTH, lanes - first);
    for (int e = 0; e < elements; e++)
      for (int lane = 0; lane < block; lane += WIDTH, to += WIDTH) {
        const float* from = packed + e * element * block + lane;
        transform<3, INPUTS, transform_kernel>(
            [&](int row, int column) __attribute__((always_inline)) {
              return load(from + (row * kernel_row + column * kernel_column) * block);
            },
            [&](int row, int column, vfloat u) __attribute__((always_inline)) {
              store(to + (row * INPUTS + column) * plane, u);
            });
      }
    packed += (ptrdiff_t)9 * elements * block;
  }
}

Winograd::Winograd(const Geometry& g, int passes, int workers, int slices)
    : g(g),
      passes(passes),
      workers(workers),
      slices(slices),
      in(g.in_vectors() * WIDTH),
      out(g.out_vectors() * WIDTH),
      tile_rows((g.out_height + OUTPUTS - 1) / OUTPUTS),
      tile_columns((g.out_width + OUTPUTS - 1) / OUTPUTS),
      chunk(larger(1, TILE_FLOATS / (ELEMENTS * (in + out) * MOST_ROWS[0])) * MOST_ROWS[0]),
      x_plane(plane_size((size_t)chunk * in)),
      y_plane(plane_size((size_t)chunk * out)),
      weight_plane(plane_size((size_t)g.in_channels * out)),
      transposed_plane(plane_size((size_t)g.out_channels * in)),
      forward_weights(passes & FORWARD ? ELEMENTS * weight_plane : 0),
      backward_weights(passes & INPUT_GRADIENT ? ELEMENTS * transposed_plane : 0),
      weight_sums(passes & WEIGHT_GRADIENT ? ELEMENTS * weight_plane : 0, slices),
      x_tiles(passes ? ELEMENTS * x_plane : 0, workers),
      y_tiles(passes ? ELEMENTS * y_plane : 0, workers),
      patch(passes ? (size_t)ELEMENTS * larger(in, out) : 0, workers) {}

void Winograd::set_weights(const float* w, float* packed) {
  if (passes & FORWARD) {
    pack_forward(g, w, packed);
    transform_weights(packed, out, g.in_channels, 3 * g.in_channels, g.in_channels, 1,
                      forward_weights.data, weight_plane);
  }
  if (passes & INPUT_GRADIENT) {
    pack_backward(g, w, packed);
    transform_weights(packed, in, g.out_channels, 3 * g.out_channels, 1, 3, backward_weights.data,
                      transposed_plane);
  }
}

void Winograd::weight_gradient(float* packed) const {
  parallel(g.in_channels, workers, [&](int c, int) {
    for (int first = 0; first < out; first += WIDTH) {
      const float* sums = weight_sums[0] + (size_t)c * out + first;
      transform<INPUTS, 3, transform_kernel_back>(
          [&](int row, int column) __attribute__((always_inline)) {
            const float* at = sums + (row * INPUTS + column) * weight_plane;
            vfloat total = load(at);
            for (int s = 1; s < slices; s++) total += load(at + s * weight_sums.distance);
            return total;
          },
          [&](int row, int column, vfloat gw) __attribute__((always_inline)) {
            store(packed + ((size_t)(row * 3 + column) * g.in_channels + c) * out + first, gw);
          });
    }
  });
}

// ---- the passes

// Tiles of images to [36][tile][channel].
template <int SIZE, void AXIS(const vfloat*, vfloat*)>
static void to_tiles(const Geometry& g, int tile_rows, int tile_columns, int first, int count,
                     const float* images, int channels, int whole_channels, float* buffer,
                     float* tiles, size_t plane) {
  for_tiles(tile_rows, tile_columns, first, count, [&](int tile, int image, int row, int column) {
    ptrdiff_t distance;
    const float* from = Patch<SIZE>(g, SIZE == OUTPUTS, image, row, column, channels)
                            .read(images, channels, whole_channels, buffer, distance);
    float* to = tiles + (size_t)tile * whole_channels;
    for (int c = 0; c < whole_channels; c += WIDTH, from += WIDTH, to += WIDTH)
      transform<SIZE, INPUTS, AXIS>(
          [&](int y, int x) __attribute__((always_inline)) {
            return load(from + y * distance + x * whole_channels);
          },
          [&](int y, int x, vfloat v) __attribute__((always_inline)) {
            store(to + (y * INPUTS + x) * plane, v);
          });
  });
}

void Winograd::forward(const float* x, int images, const float* bias, bool relu, float* y,
                       int y_channels, int worker) const {
  float *x_tiles = this->x_tiles[worker], *y_tiles = this->y_tiles[worker];
  float* patch = this->patch[worker];
  int total = images * tile_rows * tile_columns;
  for (int first = 0; first < total; first += chunk) {
    int count = smaller(chunk, total - first);
    to_tiles<INPUTS, transform_inputs>(g, tile_rows, tile_columns, first, count, x, g.in_channels,
                                       in, patch, x_tiles, x_plane);
    for (int e = 0; e < ELEMENTS; e++)
      product_with_weights(
          {x_tiles + e * x_plane, in, 1, g.in_channels,
           forward_weights.data + e * weight_plane, 0, y_tiles + e * y_plane, out},
          count, out);
    for_tiles(tile_rows, tile_columns, first, count, [&](int tile, int image, int row, int column) {
      Patch<OUTPUTS> place(g, true, image, row, column, y_channels);
      bool is_direct = place.is_whole() && y_channels == out;
      float* to = is_direct ? y + place.corner : patch;
      ptrdiff_t distance = is_direct ? place.row : OUTPUTS * out;
      const float* from = y_tiles + (size_t)tile * out;
      for (int c = 0; c < out; c += WIDTH) {
        vfloat b = load(bias + c);
        transform<INPUTS, OUTPUTS, transform_outputs>(
            [&](int y, int x) __attribute__((always_inline)) {
              return load(from + c + (y * INPUTS + x) * y_plane);
            },
            [&](int y, int x, vfloat v) __attribute__((always_inline)) {
              v += b;
              if (relu) v = select(v < 0, vfloat{}, v);  // NaN stays
              store(to + c + y * distance + x * out, v);
            });
      }
      for (int r = 0; !is_direct && r < place.last_row; r++)
        place.for_pixels(r, y_channels, out, [&](ptrdiff_t at, ptrdiff_t in_patch, size_t size) {
          memcpy(y + at, patch + in_patch, size * sizeof(float));
        });
    });
  }
}

void Winograd::gradients(const float* x, const float* gy, int gy_channels, int images, float* gx,
                         int worker, int slice, bool is_first) const {
  float *x_tiles = this->x_tiles[worker], *y_tiles = this->y_tiles[worker];
  float* patch = this->patch[worker];
  int total = images * tile_rows * tile_columns;
  if (passes & INPUT_GRADIENT) memset(gx, 0, images * g.image() * sizeof(float));
  for (int first = 0; first < total; first += chunk) {
    int count = smaller(chunk, total - first);
    to_tiles<OUTPUTS, transform_outputs_back>(g, tile_rows, tile_columns, first, count, gy,
                                              gy_channels, out, patch, y_tiles, y_plane);
    if (passes & WEIGHT_GRADIENT) {
      to_tiles<INPUTS, transform_inputs>(g, tile_rows, tile_columns, first, count, x,
                                         g.in_channels, in, patch, x_tiles, x_plane);
      for (int e = 0; e < ELEMENTS; e++)
        product_with_rows({x_tiles + e * x_plane, 1, in, count, y_tiles + e * y_plane, out,
                           weight_sums[slice] + e * weight_plane, out},
                          g.in_channels, out, !is_first || first > 0);
    }
    if (passes & INPUT_GRADIENT) {
      for (int e = 0; e < ELEMENTS; e++)
        product_with_weights(
            {y_tiles + e * y_plane, out, 1, g.out_channels,
             backward_weights.data + e * transposed_plane, 0, x_tiles + e * x_plane, in},
            count, in);
      add_input_gradient(first, count, gx, worker);
    }
  }
}

void Winograd::add_input_gradient(int first, int count, float* gx, int worker) const {
  float *x_tiles = this->x_tiles[worker], *patch = this->patch[worker];
  for_tiles(tile_rows, tile_columns, first, count, [&](int tile, int image, int row, int column) {
    Patch<INPUTS> place(g, false, image, row, column, g.in_channels);
    const float* from = x_tiles + (size_t)tile * in;
    bool is_direct = place.is_whole() && g.in_channels == in;
    float* to = is_direct ? gx + place.corner : patch;
    ptrdiff_t distance = is_direct ? place.row : INPUTS * in;
    for (int c = 0; c < in; c += WIDTH, from += WIDTH, to += WIDTH)
      transform<INPUTS, INPUTS, transform_inputs_back>(
          [&](int y, int x) __attribute__((always_inline)) {
            return load(from + (y * INPUTS + x) * x_plane);
          },
          [&](int y, int x, vfloat v) __attribute__((always_inline)) {
            float* at = to + y * distance + x * in;
            store(at, is_direct ? load(at) + v : v);
          });
    for (int r = place.first_row; !is_direct && r < place.last_row; r++)
      place.for_pixels(r, g.in_channels, in, [&](ptrdiff_t at, ptrdiff_t in_patch, size_t size) {
        for (size_t i = 0; i < size; i++) gx[at + i] += patch[in_patch + i];
      });
  });
}

// ---- entry points of the separate functions, as convolution.cpp calls them

int winograd_forward(const Geometry& g, const float* x, const float* w, const float* b, float* y,
                     int n) {
  const Slices slices = image_slices(n);
  const int workers = workers_for(products(g, n));
  Winograd winograd(g, Winograd::FORWARD, workers, slices.count);
  Buffer<float> packed(packed_size(g)), bias(g.out_vectors() * WIDTH);
  if (!winograd || !packed || !bias) return 1;
  pad_channels(b, g.out_channels, bias.data);
  winograd.set_weights(w, packed.data);
  parallel(slices.count, workers, [&](int slice, int worker) {
    size_t first = slices.first(slice);
    winograd.forward(x + first * g.image(), slices.length(slice), bias.data, false,
                     y + first * g.out_pixels() * g.out_channels, g.out_channels, worker);
  });
  return 0;
}

int winograd_input_gradient(const Geometry& g, const float* gy, const float* w, float* gx, int n) {
  const Slices slices = image_slices(n);
  const int workers = workers_for(products(g, n));
  Winograd winograd(g, Winograd::INPUT_GRADIENT, workers, slices.count);
  Buffer<float> packed(packed_size(g));
  if (!winograd || !packed) return 1;
  winograd.set_weights(w, packed.data);
  parallel(slices.count, workers, [&](int slice, int worker) {
    size_t first = slices.first(slice);
    winograd.gradients(nullptr, gy + first * g.out_pixels() * g.out_channels, g.out_channels,
                       slices.length(slice), gx + first * g.image(), worker, slice, true);
  });
  return 0;
}

int winograd_weight_gradient(const Geometry& g, const float* x, const float* gy, float* gw, int n) {
  const Slices slices = image_slices(n, Winograd::sums(g));
  const int workers = workers_for(products(g, n));
  Winograd winograd(g, Winograd::WEIGHT_GRADIENT, workers, slices.count);
  Buffer<float> packed((size_t)g.taps() * g.in_channels * g.out_vectors() * WIDTH);
  if (!winograd || !packed) return 1;
  parallel(slices.count, workers, [&](int slice, int worker) {
    size_t first = slices.first(slice);
    winograd.gradients(x + first * g.image(), gy + first * g.out_pixels() * g.out_channels,
                       g.out_channels, slices.length(slice), nullptr, worker, slice, true);
  });
  winograd.weight_gradient(packed.data);
  unpack_weight_gradient(g, packed.data, gw);
  return 0;
}
