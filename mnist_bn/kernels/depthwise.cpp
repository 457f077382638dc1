// Depthwise convolution: each channel has one kernel of its own (MobileNets; Howard et al., 2017).
//
// Arrays are (N, H, W, C), weights (KH * KW, C). Nothing is checked here: the callers in
// depthwise.py answer for shapes and memory.
#include <stdint.h>
#include <string.h>

#include "tiles.h"
#include "windows.h"

extern "C" {

void depthwise_forward(const float* x, const float* weights, const float* bias,
                       const Windows* windows, float* y) {
  const Windows& w = *windows;
  for_each_image(w.images, w.in_floats() + w.out_floats(), [&](int64_t n) {
    const float* image = x + n * w.in_floats();
    for_outputs(w, [&](int64_t out, Range rows, Range columns, int64_t top, int64_t left) {
      for_channel_tiles(w.channels, [&](int64_t c, auto tile) {
        vfloat sum = bias ? tile.load_constant(bias + c) : vfloat{};
        for (int64_t r = rows.first; r < rows.end; r++)
          for (int64_t q = columns.first; q < columns.end; q++)
            sum += tile.load(image + (r * w.width + q) * w.channels + c) *
                   tile.load_constant(weights +
                                      ((r - top) * w.kernel_width + q - left) * w.channels + c);
        tile.store(y + n * w.out_floats() + out + c, sum);
      });
    });
  });
}

void depthwise_input_gradient(const float* gy, const float* weights, const Windows* windows,
                              float* gx) {
  const Windows& w = *windows;
  for_each_image(w.images, w.in_floats() + w.out_floats(), [&](int64_t n) {
    const float* image = gy + n * w.out_floats();
    for_places(w, [&](int64_t place, int64_t r, int64_t q, Range rows, Range columns) {
      for_channel_tiles(w.channels, [&](int64_t c, auto tile) {
        vfloat sum = {};
        for (int64_t i = rows.first; i < rows.end; i++)
          for (int64_t j = columns.first; j < columns.end; j++) {
            const int64_t row = r + w.pad_y - i * w.stride_y, column = q + w.pad_x - j * w.stride_x;
            sum += tile.load(image + (i * w.out_width + j) * w.channels + c) *
                   tile.load_constant(weights + (row * w.kernel_width + column) * w.channels + c);
          }
        tile.store(gx + n * w.in_floats() + place + c, sum);
      });
    });
  });
}

// Floats within a row of an image, doubles across them. sums: room for those of MOST_SLICES.
void depthwise_weight_gradient(const float* x, const float* gy, const Windows* windows,
                               double* sums, float* gw) {
  const Windows& w = *windows;
  const int64_t weights = w.kernel_height * w.kernel_width * w.channels;
  const double floats = (double)w.images * (w.in_floats() + w.out_floats());
  const Slices slices = row_slices(w.images, w.in_floats() + w.out_floats());
  parallel(slices.count, workers_for(floats), [&](int slice, int) {
    double* own = sums + slice * weights;
    memset(own, 0, weights * sizeof(double));
    for (int64_t n = slices.first(slice); n < slices.first(slice + 1); n++) {
      const float *image = x + n * w.in_floats(), *gradients = gy + n * w.out_floats();
      for (int64_t k = 0; k < w.kernel_height * w.kernel_width; k++) {
        const int64_t top = k / w.kernel_width - w.pad_y, left = k % w.kernel_width - w.pad_x;
        for_channel_tiles(w.channels, [&](int64_t c, auto tile) {
          for (int64_t i = 0; i < w.out_height; i++) {
            const int64_t r = top + i * w.stride_y;
            if (r < 0 || r >= w.height) continue;
            vfloat sum = {};
            for (int64_t j = 0; j < w.out_width; j++) {
              const int64_t q = left + j * w.stride_x;
              if (q >= 0 && q < w.width)
                sum += tile.load(gradients + (i * w.out_width + j) * w.channels + c) *
                       tile.load(image + (r * w.width + q) * w.channels + c);
            }
            for (int lane = tile.skip; lane < tile.lanes(); lane++)
              own[k * w.channels + c + lane] += sum[lane];
          }
        });
      }
    }
  });
  for (int64_t i = 0; i < weights; i++) {
    double sum = 0;
    for (int s = 0; s < slices.count; s++) sum += sums[s * weights + i];
    gw[i] = (float)sum;
  }
}

}  // extern "C"
