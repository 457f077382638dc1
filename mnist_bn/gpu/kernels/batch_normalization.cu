// Batch Normalization over all but the channels of x (images, CHANNELS, PLACES), float32.
//
// A channel's sums are split among `parts` blocks, and every block of the second kernel adds up
// those of its channel, in their order: two launches each way, the same bits at every run.
//
// Ioffe & Szegedy 2015, algorithm 1; the gradients are those of section 3. Moments are merged as by
// Chan et al. 1979: the variance of values far from 0 loses no digits.

// Where number `i` of a channel's images * PLACES values lies.
__device__ int place_of(int i, int channel) {
  return (i / PLACES * CHANNELS + channel) * PLACES + i % PLACES;
}

// Which of a channel's values are those of a part, of `gridDim.y`.
__device__ void part_of(int size, int part, int& begin, int& end) {
  const int each = (size + gridDim.y - 1) / gridDim.y;
  begin = min(size, part * each);
  end = min(size, begin + each);
}

// partial (CHANNELS, parts, 2): mean, and the sum of squared distances from it. A block each.
extern "C" __global__ void __launch_bounds__(THREADS)
    bn_moments(const float* __restrict__ x, float* __restrict__ partial, int images) {
  const int channel = blockIdx.x;
  int begin, end;
  part_of(images * PLACES, blockIdx.y, begin, end);
  float sum = 0.0f;
  for (int i = begin + threadIdx.x; i < end; i += THREADS) sum += x[place_of(i, channel)];
  const float mean = block_sum(sum) / max(end - begin, 1);
  float squares = 0.0f;
  for (int i = begin + threadIdx.x; i < end; i += THREADS) {
    const float distance = x[place_of(i, channel)] - mean;
    squares += distance * distance;
  }
  squares = block_sum(squares);
  if (threadIdx.x == 0) {
    float* own = partial + (channel * gridDim.y + blockIdx.y) * 2;
    own[0] = mean;
    own[1] = squares;
  }
}

// y, and of each channel mean, var (biased) and inv_std; running_mean and running_var, unless they
// are null, get the part 1 - decay of mean and of the unbiased variance.
extern "C" __global__ void __launch_bounds__(THREADS)
    bn_normalize(const float* __restrict__ x, const float* __restrict__ gamma,
                 const float* __restrict__ beta, const float* __restrict__ partial,
                 float* __restrict__ y, float* __restrict__ mean, float* __restrict__ var,
                 float* __restrict__ inv_std, float* __restrict__ running_mean,
                 float* __restrict__ running_var, int images, float eps, float decay) {
  const int channel = blockIdx.x, size = images * PLACES;
  int begin, end;
  float all_mean = 0.0f, squares = 0.0f, count = 0.0f;
  for (int part = 0; part < gridDim.y; part++) {
    part_of(size, part, begin, end);
    if (begin == end) continue;
    const float here = end - begin;
    const float* own = partial + (channel * gridDim.y + part) * 2;
    const float distance = own[0] - all_mean, total = count + here;
    all_mean += distance * (here / total);
    squares += own[1] + distance * distance * (count * here / total);
    count = total;
  }
  const float variance = squares / count, scale = 1.0f / sqrtf(variance + eps);
  const float weight = gamma[channel] * scale, shift = beta[channel];
  part_of(size, blockIdx.y, begin, end);
  for (int i = begin + threadIdx.x; i < end; i += THREADS) {
    const int place = place_of(i, channel);
    y[place] = (x[place] - all_mean) * weight + shift;
  }
  if (threadIdx.x == 0 && blockIdx.y == 0) {
    mean[channel] = all_mean;
    var[channel] = variance;
    inv_std[channel] = scale;
    if (running_mean) {
      const float unbiased = squares / max(count - 1.0f, 1.0f);
      running_mean[channel] = running_mean[channel] * decay + all_mean * (1.0f - decay);
      running_var[channel] = running_var[channel] * decay + unbiased * (1.0f - decay);
    }
  }
}

// partial (CHANNELS, parts, 2): the sums of gy, and of gy times the normalized x.
extern "C" __global__ void __launch_bounds__(THREADS)
    bn_gradient_sums(const float* __restrict__ x, const float* __restrict__ gy,
                     const float* __restrict__ mean, const float* __restrict__ inv_std,
                     float* __restrict__ partial, int images) {
  const int channel = blockIdx.x;
  const float centre = mean[channel], scale = inv_std[channel];
  int begin, end;
  part_of(images * PLACES, blockIdx.y, begin, end);
  float beta = 0.0f, gamma = 0.0f;
  for (int i = begin + threadIdx.x; i < end; i += THREADS) {
    const int place = place_of(i, channel);
    beta += gy[place];
    gamma += gy[place] * ((x[place] - centre) * scale);
  }
  beta = block_sum(beta);
  gamma = block_sum(gamma);
  if (threadIdx.x == 0) {
    float* own = partial + (channel * gridDim.y + blockIdx.y) * 2;
    own[0] = beta;
    own[1] = gamma;
  }
}

// gx, and ggamma and gbeta (CHANNELS,).
extern "C" __global__ void __launch_bounds__(THREADS)
    bn_gradients(const float* __restrict__ x, const float* __restrict__ gy,
                 const float* __restrict__ gamma, const float* __restrict__ mean,
                 const float* __restrict__ inv_std, const float* __restrict__ partial,
                 float* __restrict__ gx, float* __restrict__ ggamma, float* __restrict__ gbeta,
                 int images) {
  const int channel = blockIdx.x, size = images * PLACES;
  const float centre = mean[channel], scale = inv_std[channel];
  float of_beta = 0.0f, of_gamma = 0.0f;
  for (int part = 0; part < gridDim.y; part++) {
    of_beta += partial[(channel * gridDim.y + part) * 2];
    of_gamma += partial[(channel * gridDim.y + part) * 2 + 1];
  }
  const float weight = gamma[channel] * scale, per_value = 1.0f / size;
  int begin, end;
  part_of(size, blockIdx.y, begin, end);
  for (int i = begin + threadIdx.x; i < end; i += THREADS) {
    const int place = place_of(i, channel);
    const float normalized = (x[place] - centre) * scale;
    gx[place] = weight * (gy[place] - (normalized * of_gamma + of_beta) * per_value);
  }
  if (threadIdx.x == 0 && blockIdx.y == 0) {
    ggamma[channel] = of_gamma;
    gbeta[channel] = of_beta;
  }
}

// out (CHANNELS,): the sums over all but the channels. A block each, a launch.
extern "C" __global__ void __launch_bounds__(THREADS)
    channel_sums(const float* __restrict__ x, float* __restrict__ partial, int images) {
  const int channel = blockIdx.x;
  int begin, end;
  part_of(images * PLACES, blockIdx.y, begin, end);
  float sum = 0.0f;
  for (int i = begin + threadIdx.x; i < end; i += THREADS) sum += x[place_of(i, channel)];
  sum = block_sum(sum);
  if (threadIdx.x == 0) partial[blockIdx.y * CHANNELS + channel] = sum;
}
