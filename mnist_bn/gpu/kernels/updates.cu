// The nine update rules, by Chainer's formulas: all parameters in one launch, float32.
//
// A block takes PIECE elements of one parameter, so no two threads touch the same element.

#define PIECE 1024
#define MOST_ROWS 64

struct Row {
  float* p;
  const float* g;
  float* state[3];
  int size;
  int first;  // block
};

struct Table {
  Row rows[MOST_ROWS];
};

struct Numbers {
  float n[6];
};

// What update(n, p, s0, s1, s2, g) does, for each element of this block's piece; a state that there
// is not is 0. `first` is the first number if it is not null: a CUDA graph keeps addresses.
template <class Update>
__device__ void each(const Table& table, int rows, Numbers numbers, const float* first,
                     Update update) {
  if (first) numbers.n[0] = first[0];
  int r = rows - 1;
  while (table.rows[r].first > (int)blockIdx.x) r--;
  const Row& row = table.rows[r];
  const int begin = ((int)blockIdx.x - row.first) * PIECE;
  const int end = min(row.size, begin + PIECE);
  for (int i = begin + threadIdx.x; i < end; i += blockDim.x) {
    float s[3];
    for (int k = 0; k < 3; k++) s[k] = row.state[k] ? row.state[k][i] : 0.0f;
    float p = row.p[i];
    update(numbers.n, p, s[0], s[1], s[2], row.g[i]);
    row.p[i] = p;
    for (int k = 0; k < 3; k++)
      if (row.state[k]) row.state[k][i] = s[k];
  }
}

#define ARGUMENTS const Table table, int rows, const Numbers numbers, const float* first
#define EACH const float *n, float &p, float &a, float &b, float &c, float g

extern "C" __global__ void update_sgd(ARGUMENTS) {
  each(table, rows, numbers, first, [](EACH) {
    p -= n[0] * g;
  });
}

extern "C" __global__ void update_momentum_sgd(ARGUMENTS) {
  each(table, rows, numbers, first, [](EACH) {
    a = n[1] * a - n[0] * g;
    p += a;
  });
}

// n: lr, momentum, momentum squared, (1 + momentum) * lr
extern "C" __global__ void update_nesterov_ag(ARGUMENTS) {
  each(table, rows, numbers, first, [](EACH) {
    a = n[1] * a - n[0] * g;
    p += n[2] * a - n[3] * g;
  });
}

extern "C" __global__ void update_ada_grad(ARGUMENTS) {
  each(table, rows, numbers, first, [](EACH) {
    a += g * g;
    p -= n[0] * g / (sqrtf(a) + n[1]);
  });
}

// n: rho, 1 - rho, eps
extern "C" __global__ void update_ada_delta(ARGUMENTS) {
  each(table, rows, numbers, first, [](EACH) {
    a = n[0] * a + n[1] * g * g;
    const float dx = sqrtf((b + n[2]) / (a + n[2])) * g;
    b = n[0] * b + n[1] * dx * dx;
    p -= dx;
  });
}

// n: lr, alpha, 1 - alpha, eps inside the root, eps outside
extern "C" __global__ void update_rmsprop(ARGUMENTS) {
  each(table, rows, numbers, first, [](EACH) {
    a = n[1] * a + n[2] * g * g;
    p -= n[0] * g / (sqrtf(a + n[3]) + n[4]);
  });
}

// n: lr, alpha, 1 - alpha, momentum, eps
extern "C" __global__ void update_rmsprop_graves(ARGUMENTS) {
  each(table, rows, numbers, first, [](EACH) {
    a = n[1] * a + n[2] * g * g;
    b = n[1] * b + n[2] * g;
    c = n[3] * c - n[0] * g * rsqrtf(a - b * b + n[4]);
    p += c;
  });
}

// n: lr, eps
extern "C" __global__ void update_smorms3(ARGUMENTS) {
  each(table, rows, numbers, first, [](EACH) {
    const float r = 1 / (a + 1);
    b = (1 - r) * b + r * g;
    c = (1 - r) * c + r * g * g;
    const float x = b * b / (c + n[1]);
    p -= g * (x > n[0] ? n[0] : x) / (sqrtf(c) + n[1]);
    a = 1 + a * (1 - x);
  });
}

// n: alpha_t, 1 - beta1, 1 - beta2, eps, eta, 1 - eta * weight decay
extern "C" __global__ void update_adam(ARGUMENTS) {
  each(table, rows, numbers, first, [](EACH) {
    a += n[1] * (g - a);
    b += n[2] * (g * g - b);
    p = n[5] * p - n[4] * (n[0] / (sqrtf(b) + n[3]) * a);
  });
}
