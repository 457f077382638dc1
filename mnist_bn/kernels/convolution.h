// Convolution of NHWC images, as convolution.cpp offers it to blocks.cpp.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "vector.h"

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

// Products of one pass of direct convolution.
INLINE double products(const Geometry& g, int images) {
  return (double)images * g.out_pixels() * g.taps() * g.in_channels * g.out_channels;
}

// Floats of packed weights, in either direction.
INLINE size_t packed_size(const Geometry& g) {
  return (size_t)WIDTH * g.taps() *
         larger(g.out_vectors() * g.in_channels, g.in_vectors() * g.out_channels);
}

// Where output pixels go: `channels` floats each, with the distances of images, rows and columns.
struct Target {
  float* y;
  size_t image;
  ptrdiff_t row, column;
  int channels;
};

INLINE Target dense(const Geometry& g, float* y, int channels) {
  return {y, g.out_pixels() * channels, (ptrdiff_t)g.out_width * channels, channels, channels};
}

#pragma GCC visibility push(hidden)  // seen by the library's own files only

// `count` floats and zeros up to whole vectors; zeros only where there is no array.
void pad_channels(const float* from, int count, float* to);

// Weights, (output, input, kernel row, kernel column), in the order in which conv_images() and
// input_gradient() read them: packed_size() floats.
void pack_forward(const Geometry& g, const float* w, float* packed);
void pack_backward(const Geometry& g, const float* w, float* packed);

// `rows` output rows of each of `images` images. Images have their padding already, and rows of
// `x_width` pixels. Channels behind out_channels, if the target has any, are set to what the
// padded weights and bias give: zero.
void conv_images(const Geometry& g, const float* x, size_t x_image, int x_width, int images,
                 int rows, const float* packed, const float* bias, bool relu, const Target& to);

// Adds to gw, [kernel row][kernel column][input channel][output channel, whole vectors].
// Pixels of gy take whole vectors, too. Images x have their padding and rows of x_width pixels.
void weight_gradient(const Geometry& g, const float* x, size_t x_image, int x_width,
                     const float* gy, size_t gy_image, int images, int rows, float* gw);

// From that order to (output, input, kernel row, kernel column). `slices` sums lie at a distance.
void unpack_weight_gradient(const Geometry& g, const float* packed, float* gw, int slices = 1,
                            size_t distance = 0);

// Floats of the frame that input_gradient() works in.
size_t gradient_frame_size(const Geometry& g);

// Sets gx of some images. `frame`: gradient_frame_size() floats, zero before the first call.
// `zeros`: one for each input channel, whole vectors.
void input_gradient(const Geometry& g, const float* gy, int gy_channels, int images,
                    const float* packed, float* frame, const float* zeros, float* gx);

#pragma GCC visibility pop
