// Calls the kernels on several threads, for a sanitizer to look on; see sanitize.py.
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../mnist_bn/kernels/windows.h"

extern "C" {
int set_threads(int);
int vector_width();
int block_forward(const float*, const float*, const float*, const float*, const float*, float*,
                  float*, double, double, float*, float*, uint8_t*, float*, float*, int, int, int,
                  int, int, int, int, int, int, int);
int block_backward(const float*, const float*, const float*, const float*, const float*,
                   const float*, const uint8_t*, const float*, const float*, float*, float*, float*,
                   float*, float*, int, int, int, int, int, int, int, int, int, int);
int convolution_forward(const float*, const float*, const float*, float*, int, int, int, int, int,
                        int, int, int, int, int, int, int, int, int);
int convolution_input_gradient(const float*, const float*, float*, int, int, int, int, int, int,
                               int, int, int, int, int, int, int, int);
int convolution_weight_gradient(const float*, const float*, float*, int, int, int, int, int, int,
                                int, int, int, int, int, int, int, int);
int channel_sums(const float*, int64_t, int, float*);
void bn_forward(const float*, int64_t, int64_t, const float*, const float*, double, double, float*,
                float*, float*, float*, float*, const float*, int, float*, double*);
void bn_backward(const float*, const float*, const float*, int64_t, int64_t, const float*,
                 const float*, const float*, float*, float*, float*, double*);
void relu_forward(const float*, int64_t, float*);
void relu_backward(const float*, const float*, int64_t, float*);
void leaky_relu(const float*, const float*, int64_t, float, float*);
void max_pool_forward(const float*, const Windows*, float*, uint8_t*);
void max_pool_backward(const float*, const uint8_t*, const Windows*, float*);
void average_pool_forward(const float*, const Windows*, float*);
void average_pool_backward(const float*, const Windows*, float*);
void depthwise_forward(const float*, const float*, const float*, const Windows*, float*);
void depthwise_input_gradient(const float*, const float*, const Windows*, float*);
void depthwise_weight_gradient(const float*, const float*, const Windows*, double*, float*);
void linear_forward(const float*, const float*, const float*, float*, int, int, int);
void linear_input_gradient(const float*, const float*, float*, int, int, int);
void linear_weight_gradient(const float*, const float*, float*, int, int, int);
struct Parameter {
  float *p, *state[3];
  int64_t size;
  const float* g;
};
void update_adam(const Parameter*, int64_t, const float*);
}

// Exactly as long as the kernels may read and write, so that a sanitizer sees one element more.
template <typename T>
struct Array {
  T* data;
  explicit Array(size_t count) : data((T*)malloc(count * sizeof(T))) {
    for (size_t i = 0; i < count; i++) data[i] = (T)(rand() % 2001 - 1000) / (T)500;
  }
  ~Array() { free(data); }
  operator T*() const { return data; }
};

static int pick(int least, int most) { return least + rand() % (most - least + 1); }

static void blocks() {
  int n = pick(1, 40), in = pick(1, 34), out = pick(1, 34), size = pick(4, 14), rows = size - 2;
  int order = pick(0, 2), statistics = order == 0 ? 0 : pick(1, 2), winograd = pick(0, 1);
  int width = vector_width(), lanes = (out + width - 1) / width * width, pooled = (rows + 1) / 2;
  size_t pixels = (size_t)n * pooled * pooled;
  Array<float> x((size_t)n * size * size * in), w((size_t)out * in * 9), b(out), gamma(out);
  Array<float> beta(out), mean(out), var(out), y((size_t)n * rows * rows * lanes);
  Array<float> extreme(pixels * lanes), saved(2 * lanes), z(pixels * out), gz(pixels * out);
  Array<float> gx((size_t)n * size * size * in), gw((size_t)out * in * 9), gb(out), gg(out);
  Array<float> gbeta(out);
  Array<uint8_t> index(pixels * lanes);
  for (int i = 0; i < out; i++) var[i] = 1;
  block_forward(x, w, b, gamma, beta, mean, var, 1e-5, 0.9, y, extreme, index, saved, z, order,
                statistics, n, size, size, in, out, 3, 3, winograd);
  block_backward(x, w, b, gamma, pick(0, 1) ? y.data : nullptr, extreme, index, saved, gz, gx, gw,
                 gb, gg, gbeta, order, statistics, n, size, size, in, out, 3, 3, winograd);
}

static void convolutions() {
  int n = pick(1, 20), in = pick(1, 34), out = pick(1, 34), size = pick(5, 12),
      k = 2 * pick(0, 2) + 1;
  int stride = pick(1, 2), pad = pick(0, k / 2), rows = (size + 2 * pad - k) / stride + 1;
  int winograd = k == 3 && stride == 1 && pick(0, 1);
  Array<float> x((size_t)n * size * size * in), w((size_t)out * in * k * k), b(out);
  Array<float> y((size_t)n * rows * rows * out), sums(out);
  convolution_forward(x, w, b, y, n, size, size, in, out, k, k, stride, stride, pad, pad, rows,
                      rows, winograd);
  convolution_input_gradient(y, w, x, n, size, size, in, out, k, k, stride, stride, pad, pad, rows,
                             rows, winograd);
  convolution_weight_gradient(x, y, w, n, size, size, in, out, k, k, stride, stride, pad, pad, rows,
                              rows, winograd);
  channel_sums(y, (int64_t)n * rows * rows, out, sums);
}

static void layers() {
  int n = pick(2, 40), c = pick(1, 70), size = pick(2, 12);
  int64_t rows = (int64_t)n * size * size;
  Array<float> x(rows * c), y(rows * c), gamma(c), beta(c), mean(c), var(c), inv_std(c),
      gx(rows * c);
  Array<double> workspace(25 * c);
  for (int follows = 0; follows < 3; follows++) {  // nothing, a ReLU, a sum and a ReLU
    bn_forward(x, rows, c, gamma, beta, 1e-5, 0.9, nullptr, nullptr, mean, var, inv_std,
               follows == 2 ? (float*)gx : nullptr, follows > 0, y, workspace);
    bn_backward(x, y, follows == 1 ? (float*)y : nullptr, rows, c, gamma, mean, inv_std, gx, gamma,
                beta, workspace);
  }
  relu_forward(x, rows * c, y);
  relu_backward(y, x, rows * c, gx);
  leaky_relu(x, y, rows * c, 0.2f, gx);
}

static void windows() {
  int n = pick(1, 20), c = pick(1, 70), k = pick(1, 4), stride = pick(1, 3), pad = pick(0, 2);
  int size = pick(k, 14), out = (size + 2 * pad - k) / stride + 1;
  if (pick(0, 3) == 0) k = 2, stride = 2, pad = 0, size = pick(2, 14), out = (size + 1) / 2;
  const Windows w = {n, size, size, c, k, k, stride, stride, pad, pad, out, out};
  size_t ins = (size_t)n * size * size * c, outs = (size_t)n * out * out * c;
  Array<float> x(ins), gx(ins), y(outs), weights(k * k * c), bias(c), gw(k * k * c);
  Array<double> sums(8 * k * k * c);
  Array<uint8_t> index(outs);
  max_pool_forward(x, &w, y, index);
  max_pool_backward(y, index, &w, gx);
  average_pool_forward(x, &w, y);
  average_pool_backward(y, &w, gx);
  depthwise_forward(x, weights, bias, &w, y);
  depthwise_input_gradient(y, weights, &w, gx);
  depthwise_weight_gradient(x, y, &w, sums, gw);
}

static void linear_layers() {
  int n = pick(1, 90), in = pick(1, 300), out = pick(1, 300);
  Array<float> x((size_t)n * in), w((size_t)in * out), b(out), y((size_t)n * out);
  linear_forward(x, w, b, y, n, in, out);
  linear_input_gradient(y, w, x, n, in, out);
  linear_weight_gradient(x, y, w, n, in, out);
}

static void updates() {
  int64_t size = pick(1, 90000), other = pick(1, 5000);
  Array<float> p(size), m(size), v(size), g(size), p2(other), m2(other), v2(other), g2(other);
  for (int64_t i = 0; i < size; i++) v[i] = 1;
  for (int64_t i = 0; i < other; i++) v2[i] = 1;
  Parameter all[] = {{p, {m, v, nullptr}, size, g}, {p2, {m2, v2, nullptr}, other, g2}};
  float numbers[] = {0.001f, 0.1f, 0.001f, 1e-8f, 1, 1};
  update_adam(all, 2, numbers);
}

static void* call(void* rounds) {
  for (intptr_t i = 0; i < (intptr_t)rounds; i++) {
    blocks();
    convolutions();
    layers();
    windows();
    linear_layers();
    updates();
  }
  return nullptr;
}

int main(int, char** arguments) {
  intptr_t rounds = atoi(arguments[1]);
  set_threads(4);
  call((void*)rounds);
  pthread_t callers[2];  // as two threads of Python
  for (pthread_t& caller : callers) pthread_create(&caller, nullptr, call, (void*)(rounds / 4));
  set_threads(3);
  for (pthread_t& caller : callers) pthread_join(caller, nullptr);
  puts("no complaint");
}
