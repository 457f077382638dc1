// A sum over the threads of a block, in the order of a tree. For the files that follow.

#define THREADS 256

// Returns the sum of `value` over the block's threads, to all of them.
__device__ float block_sum(float value) {
  __shared__ float sums[THREADS];
  __syncthreads();  // of a sum before, all have read
  sums[threadIdx.x] = value;
  __syncthreads();
  for (int half = THREADS / 2; half > 0; half /= 2) {
    if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
    __syncthreads();
  }
  return sums[0];
}
