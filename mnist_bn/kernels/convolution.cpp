// Convolution of NHWC images; by Winograd's algorithm it is in winograd.cpp.
//
// All of it is direct convolution in register tiles: a tile of output pixels times one or two
// vectors of output channels stays in registers while the kernel's elements go by. In NHWC a row of
// the kernel meets kernel_width * channels consecutive floats of the image, so the loop over the
// kernel's columns and the one over input channels are one.
#include "convolution.h"

#include <string.h>

#include "parallel.h"
#include "winograd.h"

// Accumulators of a tile: the registers less those for weights and the broadcast input.
constexpr int ACCUMULATORS = REGISTERS == 32 ? 24 : 12;
// Pixels of a tile that is one vector deep; more would only make the addresses costlier.
constexpr int MOST_COLUMNS = REGISTERS == 32 ? 14 : 12;
// Kernel elements of a tile of the weights' gradient.
constexpr int MOST_ELEMENTS = REGISTERS == 32 ? 12 : 6;

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

void pack_forward(const Geometry& g, const float* w, float* packed) {
  pack(w, g.out_channels, (ptrdiff_t)g.in_channels * g.taps(), {g.kernel_height, g.kernel_width},
       {g.kernel_width, 1}, {g.in_channels, g.taps()}, packed);
}

void pad_channels(const float* from, int count, float* to) {
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

void conv_images(const Geometry& g, const float* x, size_t x_image, int x_width, int images,
                 int rows, const float* packed, const float* bias, bool relu, const Target& to) {
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

void weight_gradient(const Geometry& g, const float* x, size_t x_image, int x_width,
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

// In squares of WIDTH outputs and elements: so whole cache lines are read and written, at whatever
// distances they lie.
void unpack_weight_gradient(const Geometry& g, const float* packed, float* gw, int slices,
                            size_t distance) {
  int channels = g.out_vectors() * WIDTH, filter = g.in_channels * g.taps();
  for (int first = 0; first < g.out_channels; first += WIDTH) {
    int lanes = smaller(WIDTH, g.out_channels - first);
    for (int start = 0; start < filter; start += WIDTH) {
      int elements = smaller(WIDTH, filter - start);
      float square[WIDTH][WIDTH];
      for (int e = 0; e < elements; e++) {
        int c = (start + e) / g.taps(), t = (start + e) % g.taps();
        const float* at = packed + ((size_t)t * g.in_channels + c) * channels + first;
        vfloat total = load(at);
        for (int s = 1; s < slices; s++) total += load(at + s * distance);
        store(square[e], total);
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
  int from;                // pixel of gy, or before it, that the first pixel meets first

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
void pack_backward(const Geometry& g, const float* w, float* packed) {
  ptrdiff_t taps = g.taps(), filter = taps * g.in_channels;
  if (scatters(g))
    return pack(w, g.in_channels, taps, {g.kernel_height, g.kernel_width}, {g.out_channels, filter},
                {g.kernel_width, 1}, packed);
  for_phases(g, [&](const Phase& rows, const Phase& columns, int y, int x, size_t at) {
    if (rows.taps * columns.taps == 0) return;
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

size_t gradient_frame_size(const Geometry& g) {
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

void input_gradient(const Geometry& g, const float* gy, int gy_channels, int images,
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
// `use_winograd`: 1 for Winograd convolution, which takes 3x3 kernels of stride 1 only.

#define GEOMETRY_ARGUMENTS                                                                       \
  int height, int width, int in_channels, int out_channels, int kernel_height, int kernel_width, \
      int stride_y, int stride_x, int pad_y, int pad_x, int out_height, int out_width,           \
      int use_winograd
#define GEOMETRY                                                               \
  {height,   width,    in_channels, out_channels, kernel_height, kernel_width, \
   stride_y, stride_x, pad_y,       pad_x,        out_height,    out_width}

extern "C" int convolution_forward(const float* x, const float* w, const float* b, float* y, int n,
                                   GEOMETRY_ARGUMENTS) {
  Geometry g = GEOMETRY;
  if (use_winograd) return winograd_forward(g, x, w, b, y, n);
  const Slices slices = image_slices(n);
  const int workers = workers_for(products(g, n));
  size_t y_image = g.out_pixels() * out_channels, framed = frame_size(g);
  Buffer<float> packed(packed_size(g)), bias(g.out_vectors() * WIDTH);
  Each<float> frames(framed, workers, true);
  if (!packed || !bias || !frames) return 1;
  pack_forward(g, w, packed.data);
  pad_channels(b, out_channels, bias.data);
  int most = framed ? 1 : larger(1, (int)(CHUNK_FLOATS / y_image));
  parallel(slices.count, workers, [&](int slice, int worker) {
    int end = slices.first(slice + 1);
    for (int i = slices.first(slice); i < end; i += most) {
      const float* from = x + i * g.image();
      if (framed) {
        put_in_frame(g, from, frames[worker]);
        from = frames[worker];
      }
      conv_images(g, from, g.image(), width + 2 * pad_x, smaller(most, end - i), out_height,
                  packed.data, bias.data, false, dense(g, y + i * y_image, out_channels));
    }
  });
  return 0;
}

extern "C" int convolution_input_gradient(const float* gy, const float* w, float* gx, int n,
                                          GEOMETRY_ARGUMENTS) {
  Geometry g = GEOMETRY;
  if (use_winograd) return winograd_input_gradient(g, gy, w, gx, n);
  const Slices slices = image_slices(n);
  const int workers = workers_for(products(g, n));
  size_t gy_image = g.out_pixels() * out_channels;
  Buffer<float> packed(packed_size(g)), zeros(g.in_vectors() * WIDTH, true);
  Each<float> frames(gradient_frame_size(g), workers, true);
  if (!packed || !frames || !zeros) return 1;
  pack_backward(g, w, packed.data);
  int most = larger(1, (int)(CHUNK_FLOATS / gy_image));
  parallel(slices.count, workers, [&](int slice, int worker) {
    int end = slices.first(slice + 1);
    for (int i = slices.first(slice); i < end; i += most)
      input_gradient(g, gy + i * gy_image, out_channels, smaller(most, end - i), packed.data,
                     frames[worker], zeros.data, gx + i * g.image());
  });
  return 0;
}

extern "C" int convolution_weight_gradient(const float* x, const float* gy, float* gw, int n,
                                           GEOMETRY_ARGUMENTS) {
  Geometry g = GEOMETRY;
  if (use_winograd) return winograd_weight_gradient(g, x, gy, gw, n);
  int channels = g.out_vectors() * WIDTH;
  const Slices slices = image_slices(n, (size_t)g.taps() * in_channels * channels);
  const int workers = workers_for(products(g, n));
  size_t framed = frame_size(g), gy_image = g.out_pixels() * out_channels;
  size_t whole_image = g.out_pixels() * channels;
  Each<float> packed((size_t)g.taps() * in_channels * channels, slices.count, true);
  Each<float> frames(framed, workers, true);
  Each<float> wholes(channels == out_channels ? 0 : whole_image, workers, true);
  if (!packed || !frames || !wholes) return 1;
  bool one_by_one = framed || channels != out_channels;
  int most = one_by_one ? 1 : larger(1, (int)(CHUNK_FLOATS / whole_image));
  parallel(slices.count, workers, [&](int slice, int worker) {
    int end = slices.first(slice + 1);
    for (int i = slices.first(slice); i < end; i += most) {
      const float *from = x + i * g.image(), *to = gy + i * gy_image;
      if (framed) {
        put_in_frame(g, from, frames[worker]);
        from = frames[worker];
      }
      if (channels != out_channels) {
        float* whole = wholes[worker];
        for (size_t p = 0; p < g.out_pixels(); p++)
          memcpy(whole + p * channels, to + p * out_channels, out_channels * sizeof(float));
        to = whole;
      }
      weight_gradient(g, from, g.image(), width + 2 * pad_x, to, whole_image,
                      smaller(most, end - i), out_height, packed[slice]);
    }
  });
  unpack_weight_gradient(g, packed[0], gw, slices.count, packed.distance);
  return 0;
}

// Sums over pixels, the gradient of a bias: in floats over 256 pixels, in doubles over all.
extern "C" int channel_sums(const float* x, int64_t pixels, int channels, float* sums) {
  const Slices slices(pixels, 16 * 256);
  const int workers = workers_for((double)pixels * channels);
  int vectors = (channels + WIDTH - 1) / WIDTH;
  Each<double> totals((size_t)vectors * WIDTH, slices.count, true);
  if (!totals) return 1;
  parallel(slices.count, workers, [&](int slice, int) {
    int64_t end = slices.first(slice + 1);
    for (int64_t first = slices.first(slice); first < end; first += 256) {
      int count = end - first < 256 ? (int)(end - first) : 256;
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
        double* to = totals[slice] + v * WIDTH;
        store(to, load(to) + to_double(even + odd));
      }
    }
  });
  for (int c = 0; c < channels; c++) {
    double total = 0;
    for (int s = 0; s < slices.count; s++) total += totals[s][c];
    sums[c] = (float)total;
  }
  return 0;
}
