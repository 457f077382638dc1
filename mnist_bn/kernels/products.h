// Products of matrices in register tiles, as winograd.cpp and linear.cpp take them.
#pragma once

#include <stddef.h>

#include "vector.h"

// Rows of a product that are in registers, for one vector and for two.
constexpr int MOST_ROWS[] = {12, REGISTERS == 32 ? 12 : 6};

// c[row][lane] = sum over k of a[row][k] * b[k][lane], or added to c.
struct Product {
  const float* a;
  ptrdiff_t a_row, a_k;
  int k;
  const float* b;
  ptrdiff_t b_k;
  float* c;
  ptrdiff_t c_row;
};

template <int ROWS, int VECTORS, bool ADD>
static void product_tile(const Product& t) {
  vfloat sum[ROWS][VECTORS] = {};
  const float *a = t.a, *b = t.b;
  for (int k = 0; k < t.k; k++, a += t.a_k, b += t.b_k) {
    vfloat bk[VECTORS];
#pragma GCC unroll 2
    for (int v = 0; v < VECTORS; v++) bk[v] = load(b + v * WIDTH);
#pragma GCC unroll 12
    for (int r = 0; r < ROWS; r++) {
      vfloat ar = broadcast(a[r * t.a_row]);
#pragma GCC unroll 2
      for (int v = 0; v < VECTORS; v++) sum[r][v] += ar * bk[v];
    }
  }
#pragma GCC unroll 12
  for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 2
    for (int v = 0; v < VECTORS; v++) {
      float* c = t.c + r * t.c_row + v * WIDTH;
      store(c, ADD ? load(c) + sum[r][v] : sum[r][v]);
    }
}

template <int VECTORS, bool ADD, int ROWS>
static void product_tile_of(int rows, const Product& t) {
  if (rows == ROWS) return product_tile<ROWS, VECTORS, ADD>(t);
  if constexpr (ROWS > 1) product_tile_of<VECTORS, ADD, ROWS - 1>(rows, t);
}

template <int VECTORS, bool ADD>
static void product_block(Product t, int rows) {
  constexpr int MOST = MOST_ROWS[VECTORS - 1];
  for (int strips = (rows + MOST - 1) / MOST; strips > 0; strips--) {
    int now = (rows + strips - 1) / strips;
    product_tile_of<VECTORS, ADD, MOST>(now, t);
    t.a += now * t.a_row;
    t.c += now * t.c_row;
    rows -= now;
  }
}

// For `lanes` of c, whole vectors. Of b, one or two vectors are a block with all its k.
INLINE void product_with_weights(Product t, int rows, int lanes) {
  for (int first = 0; first < lanes; first += t.b_k) {
    t.b_k = smaller(2 * WIDTH, lanes - first);
    if (t.b_k == WIDTH)
      product_block<1, false>(t, rows);
    else
      product_block<2, false>(t, rows);
    t.b += t.k * t.b_k;
    t.c += t.b_k;
  }
}

template <bool ADD>
static void product_with_rows_of(Product t, int rows, int lanes) {
  int first = 0;
  for (; first + 2 * WIDTH <= lanes; first += 2 * WIDTH, t.b += 2 * WIDTH, t.c += 2 * WIDTH)
    product_block<2, ADD>(t, rows);
  if (first < lanes) product_block<1, ADD>(t, rows);
}

// For `lanes` of b and c, whole vectors.
INLINE void product_with_rows(const Product& t, int rows, int lanes, bool add) {
  add ? product_with_rows_of<true>(t, rows, lanes) : product_with_rows_of<false>(t, rows, lanes);
}
