// Linear layers: products of matrices, in tasks whose results do not depend on one another.
//
// Each element is a sum in the order of its index, DEPTH terms at a time, whoever computes it. Of
// the second matrix, two vectors of columns are copied first, so that a tile reads them in a row.
#include <string.h>

#include "parallel.h"
#include "products.h"

constexpr int DEPTH = 256, LANES = 2 * WIDTH;
// Rows of a product whose last columns are no whole vectors, at a time.
constexpr int NARROW_ROWS = 48;

struct Matrix {
  const float* data;
  ptrdiff_t row, column;  // distances

  const float* at(ptrdiff_t r, ptrdiff_t c) const { return data + r * row + c * column; }
};

// [row][lane] of `count` rows and `lanes` columns, from their first on; zeros up to `width`.
static void copy_columns(const Matrix& m, int first_row, int count, int first_lane, int lanes,
                         int width, float* to) {
  const float* from = m.at(first_row, first_lane);
  int row = 0;
  if (m.column == 1 && lanes == width) {
    for (; row < count; row++)
      for (int v = 0; v < width; v += WIDTH)
        store(to + row * width + v, load(from + row * m.row + v));
    return;
  }
  if (m.row == 1 && lanes == width)
    for (; row + WIDTH <= count; row += WIDTH)
      for (int v = 0; v < width; v += WIDTH) {
        vfloat square[WIDTH];
#pragma GCC unroll 16
        for (int i = 0; i < WIDTH; i++) square[i] = load(from + row + (v + i) * m.column);
        transpose(square);
#pragma GCC unroll 16
        for (int i = 0; i < WIDTH; i++) store(to + (row + i) * width + v, square[i]);
      }
  for (; row < count; row++)
    for (int lane = 0; lane < width; lane++)
      to[row * width + lane] = lane < lanes ? from[row * m.row + lane * m.column] : 0;
}

// As product_block(), for `lanes` that are no whole vectors.
template <int VECTORS>
static void narrow_product(Product t, int rows, int lanes, bool add) {
  float part[NARROW_ROWS * VECTORS * WIDTH];
  const ptrdiff_t c_row = t.c_row;
  float* c = t.c;
  t.c = part;
  t.c_row = VECTORS * WIDTH;
  for (; rows > 0; rows -= NARROW_ROWS, t.a += NARROW_ROWS * t.a_row) {
    int now = smaller(rows, NARROW_ROWS);
    product_block<VECTORS, false>(t, now);
    for (int r = 0; r < now; r++, c += c_row)
      for (int i = 0; i < lanes; i++)
        c[i] = add ? c[i] + part[r * t.c_row + i] : part[r * t.c_row + i];
  }
}

// c (rows, columns) = a (rows, depth) * b (depth, columns). after(first column, columns) is called
// for each part of c when it is done.
template <class After>
static void multiply(const Matrix& a, const Matrix& b, int rows, int depth, int columns, float* c,
                     After after) {
  const int workers = workers_for((double)rows * depth * columns);
  parallel((columns + LANES - 1) / LANES, workers, [&](int task, int) {
    alignas(64) float packed[DEPTH * LANES];
    const int first = task * LANES, lanes = smaller(LANES, columns - first);
    const int width = round_up(lanes, WIDTH);
    for (int k = 0; k < depth; k += DEPTH) {
      const int now = smaller(DEPTH, depth - k);
      copy_columns(b, k, now, first, lanes, width, packed);
      const Product t = {a.at(0, k), a.row, a.column, now, packed, width, c + first, columns};
      if (lanes < width)
        width > WIDTH ? narrow_product<2>(t, rows, lanes, k > 0)
                      : narrow_product<1>(t, rows, lanes, k > 0);
      else if (width > WIDTH)
        k > 0 ? product_block<2, true>(t, rows) : product_block<2, false>(t, rows);
      else
        k > 0 ? product_block<1, true>(t, rows) : product_block<1, false>(t, rows);
    }
    after(first, lanes);
  });
}

extern "C" {

// y (n, outputs) = x (n, inputs) * w' + b, w (outputs, inputs). b may be null.
void linear_forward(const float* x, const float* w, const float* b, float* y, int n, int inputs,
                    int outputs) {
  multiply({x, inputs, 1}, {w, 1, inputs}, n, inputs, outputs, y, [&](int first, int lanes) {
    for (int r = 0; b && r < n; r++)
      for (int i = first; i < first + lanes; i++) y[(ptrdiff_t)r * outputs + i] += b[i];
  });
}

// gx (n, inputs) = gy (n, outputs) * w
void linear_input_gradient(const float* gy, const float* w, float* gx, int n, int inputs,
                           int outputs) {
  multiply({gy, outputs, 1}, {w, inputs, 1}, n, outputs, inputs, gx, [](int, int) {});
}

// gw (outputs, inputs) = gy' * x
void linear_weight_gradient(const float* x, const float* gy, float* gw, int n, int inputs,
                            int outputs) {
  multiply({gy, 1, outputs}, {x, inputs, 1}, outputs, n, inputs, gw, [](int, int) {});
}
}  // extern "C"
