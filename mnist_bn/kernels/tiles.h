// Arrays as the layers' kernels see them: rows of channels, in tiles of a vector and in slices.
//
// (N, H, W, C) in memory is N*H*W rows of C floats, (N, C) is N rows.
#pragma once

#include <stdint.h>
#include <string.h>

#include "parallel.h"
#include "vector.h"

#define MEMBER __attribute__((always_inline))

// WIDTH channels. Where channels are no multiple of WIDTH, the last tile overlaps the one before
// it: the same lanes are computed twice, and sums leave out the first `skip` of them.
struct FullTile {
  int skip;
  MEMBER vfloat load(const float* p) const { return ::load(p); }
  MEMBER vfloat load_constant(const float* p) const { return ::load(p); }
  MEMBER void store(float* p, vfloat v) const { ::store(p, v); }
  MEMBER vint load_bytes(const uint8_t* p) const { return ::load_bytes(p); }
  MEMBER void store_bytes(uint8_t* p, vint v) const { ::store_bytes(p, v); }
  MEMBER int lanes() const { return WIDTH; }
};

// All channels of a row that has fewer than WIDTH.
struct NarrowTile {
  static constexpr int skip = 0;
  int count;
  MEMBER vfloat load(const float* p) const { return load_partial(p, count); }
  MEMBER vfloat load_constant(const float* p) const { return load_partial(p, count); }
  MEMBER void store(float* p, vfloat v) const { store_partial(p, v, count); }
  MEMBER vint load_bytes(const uint8_t* p) const {
    uint8_t bytes[WIDTH] = {};
    memcpy(bytes, p, count);
    return ::load_bytes(bytes);
  }
  MEMBER void store_bytes(uint8_t* p, vint v) const {
    uint8_t bytes[WIDTH];
    ::store_bytes(bytes, v);
    memcpy(p, bytes, count);
  }
  MEMBER int lanes() const { return count; }
};

// The same, much faster, where WIDTH floats from the row's first one on are the array's own: the
// lanes behind the row hold the next rows, are ignored, and are stored anew when those rows come.
struct LooseTile : NarrowTile {
  MEMBER vfloat load(const float* p) const { return ::load(p); }
  MEMBER void store(float* p, vfloat v) const { ::store(p, v); }
};

template <class Body>
INLINE void for_channel_tiles(int64_t channels, Body body) {
  if (channels < WIDTH) return body(0, NarrowTile{(int)channels});
  int64_t c = 0;
  for (; c + WIDTH <= channels; c += WIDTH) body(c, FullTile{0});
  if (c < channels) body(channels - WIDTH, FullTile{(int)(c + WIDTH - channels)});
}

// As many rows as are still in the L1 cache when they are read again: 4096 floats, 16 of its 32
// KiB.
INLINE int64_t rows_in_cache(int64_t channels) { return channels < 256 ? 4096 / channels : 16; }

// One row after the other, as memory lies; narrow ones many at once, to load their constants once.
INLINE int64_t rows_in_order(int64_t channels) {
  return channels <= WIDTH ? rows_in_cache(channels) : 1;
}

// Calls body(first row, number of rows, first channel, tile) for all rows and channels, rows
// ascending, at most `step` rows at once.
template <class Body>
INLINE void for_tiles(int64_t rows, int64_t channels, int64_t step, Body body) {
  int64_t first = 0;
  auto steps_to = [&](int64_t end, auto block) {
    for (; first < end; first += step) block(end - first < step ? end - first : step);
    first = end;
  };
  if (channels >= WIDTH)
    return steps_to(rows, [&](int64_t count) {
      for_channel_tiles(channels, [&](int64_t c, auto tile) { body(first, count, c, tile); });
    });
  const NarrowTile narrow{(int)channels};
  if (rows > WIDTH)
    steps_to(rows - WIDTH, [&](int64_t count) { body(first, count, 0, LooseTile{narrow}); });
  body(first, rows - first, 0, narrow);
}

// Rows in slices that are worth a task of their own.
INLINE Slices row_slices(int64_t rows, int64_t channels) {
  const int64_t least = (1 << 15) / channels;
  return Slices(rows, least < 1 ? 1 : least);
}

// Calls body(first row, number of rows) for the slices of an array.
template <class Body>
INLINE void for_slices(int64_t rows, int64_t channels, Body body) {
  const Slices slices = row_slices(rows, channels);
  parallel(slices.count, workers_for((double)rows * channels),
           [&](int slice, int) { body(slices.first(slice), slices.length(slice)); });
}

// Calls body(image) for each of the images, which have so many floats.
template <class Body>
INLINE void for_each_image(int64_t images, int64_t floats, Body body) {
  for_slices(images, floats, [&](int64_t first, int64_t count) {
    for (int64_t n = first; n < first + count; n++) body(n);
  });
}
