// Pooling. Nothing is checked here: the callers in pooling.py answer for shapes and memory.
#include <stdint.h>
#include <string.h>

#include "tiles.h"
#include "windows.h"

// ---------------------------------------------------------------------------------------------
// Max pooling over 2x2 windows, stride 2. A window's positions are numbered 0 1 / 2 3; at the right
// and lower edge of an odd map some of them do not exist.

INLINE void take_larger(vfloat value, int position, vfloat& largest, vint& index) {
  // The first of equals wins, and the first NaN over all: not (value <= largest) is true for NaN.
  const vint taken = ~(value <= largest) & (largest == largest);
  largest = select(taken, value, largest);
  index = (taken & position) | (~taken & index);
}

template <bool RIGHT, bool DOWN, class Tile>
INLINE void pool_window(const float* x, int64_t row, int64_t channels, Tile tile, float* y,
                        uint8_t* indexes) {
  vfloat largest = tile.load(x);
  vint index = {};
  if (RIGHT) take_larger(tile.load(x + channels), 1, largest, index);
  if (DOWN) take_larger(tile.load(x + row), 2, largest, index);
  if (RIGHT && DOWN) take_larger(tile.load(x + row + channels), 3, largest, index);
  tile.store(y, largest);
  tile.store_bytes(indexes, index);
}

template <bool RIGHT, bool DOWN, class Tile>
INLINE void unpool_window(const float* gy, const uint8_t* indexes, int64_t row, int64_t channels,
                          Tile tile, float* gx) {
  const vfloat gradient = tile.load(gy), zero = {};
  const vint index = tile.load_bytes(indexes);
  tile.store(gx, select(index == 0, gradient, zero));
  if (RIGHT) tile.store(gx + channels, select(index == 1, gradient, zero));
  if (DOWN) tile.store(gx + row, select(index == 2, gradient, zero));
  if (RIGHT && DOWN) tile.store(gx + row + channels, select(index == 3, gradient, zero));
}

struct Yes {
  static constexpr bool value = true;
};
struct No {
  static constexpr bool value = false;
};

// Calls window(input offset, output offset, is there a right column, a lower row) for every window
// of one image, the two flags as compile-time constants.
template <class Window>
INLINE void for_windows(int64_t height, int64_t width, int64_t channels, int64_t out_height,
                        int64_t out_width, Window window) {
  const int64_t row = width * channels, whole = width / 2 < out_width ? width / 2 : out_width;
  for (int64_t i = 0; i < out_height; i++) {
    const int64_t in = 2 * i * row, out = i * out_width * channels;
    auto line = [&](auto down) {
      for (int64_t j = 0; j < whole; j++)
        window(in + 2 * j * channels, out + j * channels, Yes{}, down);
      if (whole < out_width) window(in + 2 * whole * channels, out + whole * channels, No{}, down);
    };
    if (2 * i + 1 < height)
      line(Yes{});
    else
      line(No{});
  }
}

static void pool_2x2(const float* x, const Windows& w, float* y, uint8_t* indexes) {
  const int64_t row = w.width * w.channels;
  for_each_image(w.images, w.in_floats(), [&](int64_t n) {
    const float* image = x + n * w.in_floats();
    for_windows(w.height, w.width, w.channels, w.out_height, w.out_width,
                [&](int64_t in, int64_t out, auto right, auto down) {
                  for_channel_tiles(w.channels, [&](int64_t c, auto tile) {
                    const int64_t o = n * w.out_floats() + out + c;
                    pool_window<decltype(right)::value, decltype(down)::value>(
                        image + in + c, row, w.channels, tile, y + o, indexes + o);
                  });
                });
  });
}

static void unpool_2x2(const float* gy, const uint8_t* indexes, const Windows& w, float* gx) {
  const int64_t row = w.width * w.channels;
  for_each_image(w.images, w.in_floats(), [&](int64_t n) {
    float* image = gx + n * w.in_floats();
    for_windows(w.height, w.width, w.channels, w.out_height, w.out_width,
                [&](int64_t in, int64_t out, auto right, auto down) {
                  for_channel_tiles(w.channels, [&](int64_t c, auto tile) {
                    const int64_t o = n * w.out_floats() + out + c;
                    unpool_window<decltype(right)::value, decltype(down)::value>(
                        gy + o, indexes + o, row, w.channels, tile, image + in + c);
                  });
                });
    // An odd last column or row that no window covers.
    if (2 * w.out_width < w.width)
      for (int64_t i = 0; i < w.height; i++)
        memset(image + i * row + 2 * w.out_width * w.channels, 0, w.channels * sizeof(float));
    if (2 * w.out_height < w.height) memset(image + 2 * w.out_height * row, 0, row * sizeof(float));
  });
}

// ---------------------------------------------------------------------------------------------
// Pooling over windows of any size. Positions of a window are numbered by its rows.

extern "C" {

// What is padded is -infinity: a window of nothing else has index 0.
void max_pool_forward(const float* x, const Windows* windows, float* y, uint8_t* indexes) {
  const Windows& w = *windows;
  if (w.are_2x2()) return pool_2x2(x, w, y, indexes);
  for_each_image(w.images, w.in_floats() + w.out_floats(), [&](int64_t n) {
    const float* image = x + n * w.in_floats();
    for_outputs(w, [&](int64_t out, Range rows, Range columns, int64_t top, int64_t left) {
      for_channel_tiles(w.channels, [&](int64_t c, auto tile) {
        vfloat largest = broadcast(-__builtin_inff());
        vint index = {};
        for (int64_t r = rows.first; r < rows.end; r++)
          for (int64_t q = columns.first; q < columns.end; q++)
            take_larger(tile.load(image + (r * w.width + q) * w.channels + c),
                        (int)((r - top) * w.kernel_width + q - left), largest, index);
        const int64_t o = n * w.out_floats() + out + c;
        tile.store(y + o, largest);
        tile.store_bytes(indexes + o, index);
      });
    });
  });
}

// Each place adds up what the windows give back that took their largest from it.
void max_pool_backward(const float* gy, const uint8_t* indexes, const Windows* windows, float* gx) {
  const Windows& w = *windows;
  if (w.are_2x2()) return unpool_2x2(gy, indexes, w, gx);
  for_each_image(w.images, w.in_floats() + w.out_floats(), [&](int64_t n) {
    const int64_t image = n * w.out_floats();
    for_places(w, [&](int64_t place, int64_t r, int64_t q, Range rows, Range columns) {
      for_channel_tiles(w.channels, [&](int64_t c, auto tile) {
        vfloat sum = {};
        for (int64_t i = rows.first; i < rows.end; i++)
          for (int64_t j = columns.first; j < columns.end; j++) {
            const int64_t o = image + (i * w.out_width + j) * w.channels + c;
            const int64_t row = r + w.pad_y - i * w.stride_y, column = q + w.pad_x - j * w.stride_x;
            const vint is_it = tile.load_bytes(indexes + o) == (int)(row * w.kernel_width + column);
            sum += select(is_it, tile.load(gy + o), vfloat{});
          }
        tile.store(gx + n * w.in_floats() + place + c, sum);
      });
    });
  });
}

// The mean over all of a window, of which what is padded is 0.
void average_pool_forward(const float* x, const Windows* windows, float* y) {
  const Windows& w = *windows;
  const vfloat places = broadcast((float)(w.kernel_height * w.kernel_width));
  for_each_image(w.images, w.in_floats() + w.out_floats(), [&](int64_t n) {
    const float* image = x + n * w.in_floats();
    for_outputs(w, [&](int64_t out, Range rows, Range columns, int64_t, int64_t) {
      for_channel_tiles(w.channels, [&](int64_t c, auto tile) {
        vfloat total[2] = {};  // two chains of additions hide the latency of one
        for (int64_t r = rows.first; r < rows.end; r++) {
          const float* row = image + r * w.width * w.channels + c;
          int64_t q = columns.first;
          for (; q + 2 <= columns.end; q += 2)
            for (int k = 0; k < 2; k++) total[k] += tile.load(row + (q + k) * w.channels);
          if (q < columns.end) total[0] += tile.load(row + q * w.channels);
        }
        tile.store(y + n * w.out_floats() + out + c, (total[0] + total[1]) / places);
      });
    });
  });
}

void average_pool_backward(const float* gy, const Windows* windows, float* gx) {
  const Windows& w = *windows;
  const vfloat places = broadcast((float)(w.kernel_height * w.kernel_width));
  for_each_image(w.images, w.in_floats() + w.out_floats(), [&](int64_t n) {
    const float* image = gy + n * w.out_floats();
    for_places(w, [&](int64_t place, int64_t, int64_t, Range rows, Range columns) {
      for_channel_tiles(w.channels, [&](int64_t c, auto tile) {
        vfloat sum = {};
        for (int64_t i = rows.first; i < rows.end; i++)
          for (int64_t j = columns.first; j < columns.end; j++)
            sum += tile.load(image + (i * w.out_width + j) * w.channels + c);
        tile.store(gx + n * w.in_floats() + place + c, sum / places);
      });
    });
  });
}

}  // extern "C"
