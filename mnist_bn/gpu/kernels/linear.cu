// a (m, k), or (k, m) if A_IS_BY_K is false, and b (n, k), or (k, n) -> c (parts, m, n), the sums
// over k; with `bias` (n,) added unless it is null.
extern "C" __global__ void __launch_bounds__(THREADS)
    linear(const float* __restrict__ a, const float* __restrict__ b,
              const float* __restrict__ bias, float* __restrict__ c, int m_size, int n_size,
              int k_size, int k_each) {
  int k_begin, k_end;
  part(k_size, k_each, k_begin, k_end);
  float sum[ROWS][COLUMNS] = {};
  product<A_IS_BY_K, B_IS_BY_K>(
      m_size, n_size, k_begin, k_end,
      [&](int m, int k) { return a[A_IS_BY_K ? m * k_size + k : k * m_size + m]; },
      [&](int n, int k) { return b[B_IS_BY_K ? n * k_size + k : k * n_size + n]; }, sum);
  float* own = c + blockIdx.z * (m_size * n_size);
  store_tile(m_size, n_size, sum, [&](int m, int n, float value) {
    own[m * n_size + n] = bias ? value + bias[n] : value;
  });
}
