// Update rules: Chainer's formulas, one pass over memory. p parameter, g gradient, the rest state.
// Nothing is checked here: the callers in updates.py answer for shapes and memory.
#include <float.h>
#include <math.h>
#include <stdint.h>

#include "parallel.h"

// Zero for what is too small for a normal float, such as a running average whose gradients have
// long been zero: a CPU takes tens of times as long to compute with such numbers. NaN stays.
static inline float flushed(float x) { return x > -FLT_MIN && x < FLT_MIN ? 0 : x; }

#define ARRAY float* __restrict
#define GRADIENT const float* __restrict

static void sgd(ARRAY p, int64_t size, GRADIENT g, float lr) {
  for (int64_t i = 0; i < size; i++) p[i] -= lr * g[i];
}

static void momentum_sgd(ARRAY p, ARRAY v, int64_t size, GRADIENT g, float lr, float momentum) {
  for (int64_t i = 0; i < size; i++) {
    v[i] = flushed(momentum * v[i] - lr * g[i]);
    p[i] += v[i];
  }
}

static void nesterov_ag(ARRAY p, ARRAY v, int64_t size, GRADIENT g, float lr, float momentum,
                        float momentum_squared, float lr_ahead) {
  for (int64_t i = 0; i < size; i++) {
    v[i] = flushed(momentum * v[i] - lr * g[i]);
    p[i] = p[i] + momentum_squared * v[i] - lr_ahead * g[i];
  }
}

static void ada_grad(ARRAY p, ARRAY h, int64_t size, GRADIENT g, float lr, float eps) {
  for (int64_t i = 0; i < size; i++) {
    h[i] += g[i] * g[i];
    p[i] -= lr * g[i] / (sqrtf(h[i]) + eps);
  }
}

static void ada_delta(ARRAY p, ARRAY msg, ARRAY msdx, int64_t size, GRADIENT g, float rho,
                      float one_minus_rho, float eps) {
  for (int64_t i = 0; i < size; i++) {
    msg[i] = flushed(rho * msg[i] + one_minus_rho * g[i] * g[i]);
    const float dx = sqrtf((msdx[i] + eps) / (msg[i] + eps)) * g[i];
    msdx[i] = flushed(rho * msdx[i] + one_minus_rho * dx * dx);
    p[i] -= dx;
  }
}

static void rmsprop(ARRAY p, ARRAY ms, int64_t size, GRADIENT g, float lr, float alpha,
                    float one_minus_alpha, float eps_inside_sqrt, float eps_outside) {
  for (int64_t i = 0; i < size; i++) {
    ms[i] = flushed(alpha * ms[i] + one_minus_alpha * g[i] * g[i]);
    p[i] -= lr * g[i] / (sqrtf(ms[i] + eps_inside_sqrt) + eps_outside);
  }
}

static void rmsprop_graves(ARRAY p, ARRAY n, ARRAY average, ARRAY delta, int64_t size, GRADIENT g,
                           float lr, float alpha, float one_minus_alpha, float momentum,
                           float eps) {
  for (int64_t i = 0; i < size; i++) {
    n[i] = flushed(alpha * n[i] + one_minus_alpha * g[i] * g[i]);
    average[i] = flushed(alpha * average[i] + one_minus_alpha * g[i]);
    const float step = lr * g[i] / sqrtf(n[i] - average[i] * average[i] + eps);
    delta[i] = flushed(momentum * delta[i] - step);
    p[i] += delta[i];
  }
}

static void smorms3(ARRAY p, ARRAY mem, ARRAY average, ARRAY average2, int64_t size, GRADIENT g,
                    float lr, float eps) {
  for (int64_t i = 0; i < size; i++) {
    const float r = 1 / (mem[i] + 1);
    average[i] = flushed((1 - r) * average[i] + r * g[i]);
    average2[i] = flushed((1 - r) * average2[i] + r * g[i] * g[i]);
    const float x = average[i] * average[i] / (average2[i] + eps);
    p[i] -= g[i] * (x > lr ? lr : x) / (sqrtf(average2[i]) + eps);  // NaN stays NaN
    mem[i] = 1 + mem[i] * (1 - x);
  }
}

static void adam(ARRAY p, ARRAY m, ARRAY v, int64_t size, GRADIENT g, float alpha_t,
                 float one_minus_beta1, float one_minus_beta2, float eps, float eta, float keep) {
  for (int64_t i = 0; i < size; i++) {
    m[i] = flushed(m[i] + one_minus_beta1 * (g[i] - m[i]));
    v[i] = flushed(v[i] + one_minus_beta2 * (g[i] * g[i] - v[i]));
    p[i] = keep * p[i] - eta * (alpha_t / (sqrtf(v[i]) + eps) * m[i]);
  }
}

#undef ARRAY
#undef GRADIENT

// One parameter of many that one call updates; n are the numbers of the rule.
struct Parameter {
  float *p, *state[3];
  int64_t size;
  const float* g;
};

// Elements that a thread takes at a time: whole vectors, so that each element is computed by the
// same instructions, however many threads there are.
constexpr int64_t PIECE = 4096;

// Calls update(part) for parts of all parameters.
template <class Update>
INLINE void for_parts(const Parameter* parameters, int64_t count, Update update) {
  int64_t pieces = 0;
  for (int64_t i = 0; i < count; i++) pieces += (parameters[i].size + PIECE - 1) / PIECE;
  const Slices slices(pieces, 4);
  parallel(slices.count, workers_for(4.0 * pieces * PIECE), [&](int slice, int) {
    int64_t first = slices.first(slice), end = slices.first(slice + 1);
    for (const Parameter* t = parameters; end > 0 && t < parameters + count; t++) {
      const int64_t own = (t->size + PIECE - 1) / PIECE;
      const int64_t begin = first > 0 ? first * PIECE : 0;
      const int64_t stop = end < own ? end * PIECE : t->size;
      if (begin < stop) {
        Parameter part = {t->p + begin, {}, stop - begin, t->g + begin};
        for (int k = 0; k < 3; k++) part.state[k] = t->state[k] ? t->state[k] + begin : nullptr;
        update(&part);
      }
      first -= own;
      end -= own;
    }
  });
}

extern "C" {

void update_sgd(const Parameter* all, int64_t count, const float* n) {
  for_parts(all, count, [=](const Parameter* t) { sgd(t->p, t->size, t->g, n[0]); });
}

void update_momentum_sgd(const Parameter* all, int64_t count, const float* n) {
  for_parts(all, count, [=](const Parameter* t) {
    momentum_sgd(t->p, t->state[0], t->size, t->g, n[0], n[1]);
  });
}

void update_nesterov_ag(const Parameter* all, int64_t count, const float* n) {
  for_parts(all, count, [=](const Parameter* t) {
    nesterov_ag(t->p, t->state[0], t->size, t->g, n[0], n[1], n[2], n[3]);
  });
}

void update_ada_grad(const Parameter* all, int64_t count, const float* n) {
  for_parts(all, count,
            [=](const Parameter* t) { ada_grad(t->p, t->state[0], t->size, t->g, n[0], n[1]); });
}

void update_ada_delta(const Parameter* all, int64_t count, const float* n) {
  for_parts(all, count, [=](const Parameter* t) {
    ada_delta(t->p, t->state[0], t->state[1], t->size, t->g, n[0], n[1], n[2]);
  });
}

void update_rmsprop(const Parameter* all, int64_t count, const float* n) {
  for_parts(all, count, [=](const Parameter* t) {
    rmsprop(t->p, t->state[0], t->size, t->g, n[0], n[1], n[2], n[3], n[4]);
  });
}

void update_rmsprop_graves(const Parameter* all, int64_t count, const float* n) {
  for_parts(all, count, [=](const Parameter* t) {
    rmsprop_graves(t->p, t->state[0], t->state[1], t->state[2], t->size, t->g, n[0], n[1], n[2],
                   n[3], n[4]);
  });
}

void update_smorms3(const Parameter* all, int64_t count, const float* n) {
  for_parts(all, count, [=](const Parameter* t) {
    smorms3(t->p, t->state[0], t->state[1], t->state[2], t->size, t->g, n[0], n[1]);
  });
}

void update_adam(const Parameter* all, int64_t count, const float* n) {
  for_parts(all, count, [=](const Parameter* t) {
    adam(t->p, t->state[0], t->state[1], t->size, t->g, n[0], n[1], n[2], n[3], n[4], n[5]);
  });
}
}  // extern "C"
