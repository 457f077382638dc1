// sums (parts, size) -> out (size,), with `bias` (n,) added to rows of n unless it is null.
// 16 lanes add up an element each: lane by lane in order, then the lanes in pairs.

#define LANES 16

extern "C" __global__ void reduce(const float* __restrict__ sums, const float* __restrict__ bias,
                                  float* __restrict__ out, int size, int parts, int n) {
  __shared__ float lanes[LANES][16];
  const int element = threadIdx.x % 16, lane = threadIdx.x / 16;
  const int i = blockIdx.x * 16 + element;
  float sum = 0.0f;
  if (i < size)
    for (int part = lane; part < parts; part += LANES) sum += sums[part * size + i];
  lanes[lane][element] = sum;
  __syncthreads();
  for (int half = LANES / 2; half > 0; half /= 2) {
    if (lane < half) lanes[lane][element] += lanes[lane + half][element];
    __syncthreads();
  }
  if (lane == 0 && i < size) out[i] = bias ? lanes[0][element] + bias[i % n] : lanes[0][element];
}
