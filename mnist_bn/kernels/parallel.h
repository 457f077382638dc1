// Work on several threads with the bits of one.
//
// What is to be done is cut into tasks by its shape alone. Each task's sums are its own, and are
// added in the order of the tasks when all are done. Which thread does a task changes nothing.
#pragma once

#include "convolution.h"

constexpr int MOST_THREADS = 64;
// More parts of a batch would only take more memory; fewer would leave threads idle.
constexpr int MOST_SLICES = 8;

#pragma GCC visibility push(hidden)

// Threads for so many multiplications or loads, this one among them: 1 if they take less time than
// it takes to wake another.
int workers_for(double operations);

// Calls call(body, task, worker) for each task, in any order. worker is below `workers`.
void run_tasks(int tasks, int workers, void (*call)(void* body, int task, int worker), void* body);

#pragma GCC visibility pop

// `size` things in a row, in at most `most` parts of at least `least`, as equal as can be.
struct Slices {
  int64_t size;
  int count;

  Slices(int64_t size, int64_t least, int most = MOST_SLICES) : size(size) {
    int64_t whole = size / least;
    count = whole < 1 ? 1 : whole > most ? most : (int)whole;
  }
  int64_t first(int slice) const { return size * slice / count; }
  int64_t length(int slice) const { return first(slice + 1) - first(slice); }
};

// The slices of a batch of images, each of which has sums of so many floats: 4 MiB in all at most.
// Weights are read anew for each slice: in a small batch more of them cost a few percent.
INLINE Slices image_slices(int images, size_t sums = 0) {
  constexpr size_t MOST_SUMS = 1 << 20;
  const int most = images < 256 ? MOST_SLICES / 2 : MOST_SLICES;
  return Slices(images, 16, sums * most <= MOST_SUMS ? most : larger(1, (int)(MOST_SUMS / sums)));
}

// Calls body(task, worker) for each task, by at most `workers` threads. Two calls at a time have
// two workers: each can have memory of its own.
template <class Body>
INLINE void parallel(int tasks, int workers, Body body) {
  run_tasks(
      tasks, workers, [](void* b, int task, int worker) { (*(Body*)b)(task, worker); }, &body);
}

// Memory for each of several tasks or workers, in cache lines of its own.
template <typename T>
struct Each : Buffer<T> {
  size_t distance;

  Each(size_t floats, int owners, bool zero = false)
      : Buffer<T>((floats * sizeof(T) + 63) / 64 * 64 / sizeof(T) * owners, zero),
        distance((floats * sizeof(T) + 63) / 64 * 64 / sizeof(T)) {}
  T* operator[](int owner) const { return this->data + owner * distance; }
};
