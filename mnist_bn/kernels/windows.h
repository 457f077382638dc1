// Windows on a map: which places each output sees, and which outputs see a place. They may overlap,
// and reach beyond the map where it is padded.
#pragma once

#include "vector.h"

struct Windows {
  int64_t images, height, width, channels;
  int64_t kernel_height, kernel_width, stride_y, stride_x, pad_y, pad_x, out_height, out_width;

  int64_t in_floats() const { return height * width * channels; }
  int64_t out_floats() const { return out_height * out_width * channels; }
  bool are_2x2() const {
    return kernel_height == 2 && kernel_width == 2 && stride_y == 2 && stride_x == 2 && !pad_y &&
           !pad_x;
  }
};

// From `first` up to, not including, `end`.
struct Range {
  int64_t first, end;
};

INLINE Range within(int64_t first, int64_t end, int64_t size) {
  return {first > 0 ? first : 0, end < size ? end : size};
}

// Rows (or columns) of the map that the output's row i sees.
INLINE Range seen_by(int64_t i, int64_t kernel, int64_t stride, int64_t pad, int64_t size) {
  return within(i * stride - pad, i * stride - pad + kernel, size);
}

// Rows (or columns) of the output that see the map's row r.
INLINE Range that_see(int64_t r, int64_t kernel, int64_t stride, int64_t pad, int64_t out_size) {
  const int64_t late = r + pad - kernel;  // a window that begins here or before ends too early
  return within(late < 0 ? 0 : late / stride + 1, (r + pad) / stride + 1, out_size);
}

// Calls body(offset into an output image, rows seen, columns seen, first row, first column) for
// each output of an image; a window may begin before the map does.
template <class Body>
INLINE void for_outputs(const Windows& w, Body body) {
  for (int64_t i = 0; i < w.out_height; i++)
    for (int64_t j = 0; j < w.out_width; j++)
      body((i * w.out_width + j) * w.channels,
           seen_by(i, w.kernel_height, w.stride_y, w.pad_y, w.height),
           seen_by(j, w.kernel_width, w.stride_x, w.pad_x, w.width), i * w.stride_y - w.pad_y,
           j * w.stride_x - w.pad_x);
}

// Calls body(offset into an image, row, column, output rows that see it, and columns) for each
// place of an image.
template <class Body>
INLINE void for_places(const Windows& w, Body body) {
  for (int64_t r = 0; r < w.height; r++)
    for (int64_t q = 0; q < w.width; q++)
      body((r * w.width + q) * w.channels, r, q,
           that_see(r, w.kernel_height, w.stride_y, w.pad_y, w.out_height),
           that_see(q, w.kernel_width, w.stride_x, w.pad_x, w.out_width));
}
