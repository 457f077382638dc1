// Products of matrices whose elements are gathered: convolution, a linear layer, and the gradients
// of both. One block computes a tile of TM x TN elements of the product, its threads a grid of
// 16 x 16; both factors pass through shared memory, DEPTH of the summed index at a time.
//
// Each sum has a fixed order: the same bits at every run, on every card. Where the tiles are few and
// the sums long, the summed index is split among blocks (blockIdx.z) that write sums of their own,
// and `reduce` adds those up in their order.
//
// Compiled with one of the other files for its sizes: the compiler divides by them without a division.
// Barriers stand outside all branches on threadIdx; every index is checked against its size.

#define THREADS 256
#define ROWS (TM / 16)
#define COLUMNS (TN / 16)

// Adds to `sum` the products a(m, k) * b(n, k) of the block's tile, k from k_begin to k_end.
// A_BY_K: elements of `a` that follow each other in memory differ in k, else in m; so B_BY_K.
template <bool A_BY_K, bool B_BY_K, typename A, typename B>
__device__ void product(int m_size, int n_size, int k_begin, int k_end, const A& a, const B& b,
                        float (&sum)[ROWS][COLUMNS]) {
  __shared__ float as[DEPTH][TM + 1], bs[DEPTH][TN + 1];  // + 1: no two threads in one bank
  const int thread = threadIdx.x, row = thread / 16, column = thread % 16;
  const int m0 = blockIdx.y * TM, n0 = blockIdx.x * TN;
  for (int k0 = k_begin; k0 < k_end; k0 += DEPTH) {
#pragma unroll
    for (int i = thread; i < TM * DEPTH; i += THREADS) {
      const int k = A_BY_K ? i % DEPTH : i / TM, m = A_BY_K ? i / DEPTH : i % TM;
      as[k][m] = m0 + m < m_size && k0 + k < k_end ? a(m0 + m, k0 + k) : 0.0f;
    }
#pragma unroll
    for (int i = thread; i < TN * DEPTH; i += THREADS) {
      const int k = B_BY_K ? i % DEPTH : i / TN, n = B_BY_K ? i / DEPTH : i % TN;
      bs[k][n] = n0 + n < n_size && k0 + k < k_end ? b(n0 + n, k0 + k) : 0.0f;
    }
    __syncthreads();
#pragma unroll
    for (int k = 0; k < DEPTH; k++) {
      float x[ROWS], y[COLUMNS];
#pragma unroll
      for (int i = 0; i < ROWS; i++) x[i] = as[k][row + 16 * i];
#pragma unroll
      for (int j = 0; j < COLUMNS; j++) y[j] = bs[k][column + 16 * j];
#pragma unroll
      for (int i = 0; i < ROWS; i++)
#pragma unroll
        for (int j = 0; j < COLUMNS; j++) sum[i][j] = fmaf(x[i], y[j], sum[i][j]);
    }
    __syncthreads();
  }
}

// Calls store(m, n, sum) for each element of the block's tile that the product has.
template <typename Store>
__device__ void store_tile(int m_size, int n_size, const float (&sum)[ROWS][COLUMNS],
                           const Store& store) {
#pragma unroll
  for (int i = 0; i < ROWS; i++)
#pragma unroll
    for (int j = 0; j < COLUMNS; j++) {
      const int m = blockIdx.y * TM + threadIdx.x / 16 + 16 * i;
      const int n = blockIdx.x * TN + threadIdx.x % 16 + 16 * j;
      if (m < m_size && n < n_size) store(m, n, sum[i][j]);
    }
}

// The part of the summed index that is this block's.
__device__ void part(int k_size, int k_each, int& k_begin, int& k_end) {
  k_begin = blockIdx.z * k_each;
  k_end = k_begin + k_each < k_size ? k_begin + k_each : k_size;
}
