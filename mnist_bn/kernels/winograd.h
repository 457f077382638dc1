// Winograd convolution of NHWC images, as winograd.cpp offers it to convolution.cpp and blocks.cpp.
#pragma once

#include "parallel.h"

// F(4x4, 3x3) for a 3x3 kernel of stride 1. Channels in its own memory are in whole vectors.
class __attribute__((visibility("hidden"))) Winograd {
 public:
  enum Pass { NONE = 0, FORWARD = 1, INPUT_GRADIENT = 2, WEIGHT_GRADIENT = 4 };

  // Takes memory for the passes, any of them together. Each of `workers` has memory to work in, and
  // each of `slices` of the batch has its own sum of the weights' gradient.
  Winograd(const Geometry& g, int passes, int workers, int slices);

  // Floats of a slice's sum of the weights' gradient.
  static size_t sums(const Geometry& g) {
    return (size_t)36 * g.in_channels * g.out_vectors() * WIDTH;
  }
  // Whether there was memory.
  explicit operator bool() const {
    return forward_weights && backward_weights && weight_sums && x_tiles && y_tiles && patch;
  }
  // Images that are worked on at a time, so that what comes next finds them in the cache.
  int images() const { return larger(1, chunk / (tile_rows * tile_columns)); }

  // Sets the weights, (output, input, kernel row, kernel column). `packed`: packed_size() floats.
  void set_weights(const float* w, float* packed);

  // Sets `images` images y of y_channels. Channels behind out_channels, if there are any, are set
  // to zero. `bias`: whole vectors.
  void forward(const float* x, int images, const float* bias, bool relu, float* y, int y_channels,
               int worker) const;

  // Sets gx, and adds to the slice's sum of the weights' gradient: each if its pass was asked for.
  // `is_first`: the sum begins with these images.
  void gradients(const float* x, const float* gy, int gy_channels, int images, float* gx,
                 int worker, int slice, bool is_first) const;

  // The weights' gradient, as unpack_weight_gradient() reads it.
  void weight_gradient(float* packed) const;

 private:
  void add_input_gradient(int first, int count, float* gx, int worker) const;

  const Geometry g;
  const int passes, workers, slices;
  const int in, out;  // channels in whole vectors
  const int tile_rows, tile_columns, chunk;
  const size_t x_plane, y_plane, weight_plane, transposed_plane;
  const Buffer<float> forward_weights, backward_weights;
  const Each<float> weight_sums, x_tiles, y_tiles, patch;
};

#pragma GCC visibility push(hidden)
// They return 0, or 1 if memory is short.
int winograd_forward(const Geometry& g, const float* x, const float* w, const float* b, float* y,
                     int n);
int winograd_input_gradient(const Geometry& g, const float* gy, const float* w, float* gx, int n);
int winograd_weight_gradient(const Geometry& g, const float* x, const float* gy, float* gw, int n);
#pragma GCC visibility pop
