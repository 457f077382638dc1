// Softmax cross-entropy and accuracy of float32 scores (n, CLASSES) for int32 labels: a block each.

// y: softmax. coeff: one over the labels that count. loss: the mean of -log y of the label; NaN if
// a label is none of the classes.
extern "C" __global__ void softmax_cross_entropy(const float* __restrict__ x,
                                                 const int* __restrict__ t, float* __restrict__ y,
                                                 float* __restrict__ coeff,
                                                 float* __restrict__ loss, int n, int ignored,
                                                 int normalize) {
  float lost = 0.0f, counted = 0.0f;
  for (int row = threadIdx.x; row < n; row += THREADS) {
    const float* own = x + row * CLASSES;
    float most = own[0];
    for (int c = 1; c < CLASSES; c++) most = own[c] > most || own[c] != own[c] ? own[c] : most;
    float sum = 0.0f;
    for (int c = 0; c < CLASSES; c++) sum += expf(own[c] - most);
    const float log_sum = logf(sum) + most;
    for (int c = 0; c < CLASSES; c++) y[row * CLASSES + c] = expf(own[c] - log_sum);
    const int label = t[row];
    if (label == ignored) continue;
    counted += 1.0f;
    lost += label >= 0 && label < CLASSES ? log_sum - own[label] : nanf("");
  }
  const float total = block_sum(lost), count = block_sum(counted);
  if (threadIdx.x == 0) {
    const float share = 1.0f / fmaxf(normalize ? count : (float)n, 1.0f);
    coeff[0] = share;
    loss[0] = total * share;
  }
}

// The share of rows whose largest score, the first of several, is the label's. NaN is the largest.
extern "C" __global__ void accuracy(const float* __restrict__ x, const int* __restrict__ t,
                                    float* __restrict__ share, int n) {
  float right = 0.0f;
  for (int row = threadIdx.x; row < n; row += THREADS) {
    const float* own = x + row * CLASSES;
    int best = 0;
    for (int c = 1; c < CLASSES; c++)
      if (own[best] == own[best] && (own[c] > own[best] || own[c] != own[c])) best = c;
    right += best == t[row] ? 1.0f : 0.0f;
  }
  const float total = block_sum(right);
  if (threadIdx.x == 0) share[0] = total / n;
}
