// x (images, C, H, W), w (OC, C, KH, KW), b (OC,) or null -> y (images, OC, OH, OW)
extern "C" __global__ void __launch_bounds__(THREADS)
    convolution_forward(const float* __restrict__ x, const float* __restrict__ w,
              const float* __restrict__ b, float* __restrict__ y, int images) {
  const int pixels = images * OH * OW;
  float sum[ROWS][COLUMNS] = {};
  product<true, false>(
      OC, pixels, 0, C * KH * KW, [&](int oc, int k) { return w[oc * (C * KH * KW) + k]; },
      [&](int p, int k) {
        const int image = p / (OH * OW), oh = p / OW % OH, ow = p % OW;
        const int c = k / (KH * KW), h = oh * SY - PH + k / KW % KH, v = ow * SX - PW + k % KW;
        const bool is_inside = h >= 0 && h < H && v >= 0 && v < W;
        return is_inside ? x[((image * C + c) * H + h) * W + v] : 0.0f;
      },
      sum);
  store_tile(OC, pixels, sum, [&](int oc, int p, float value) {
    const int image = p / (OH * OW), place = p % (OH * OW);
    y[(image * OC + oc) * (OH * OW) + place] = b ? value + b[oc] : value;
  });
}
