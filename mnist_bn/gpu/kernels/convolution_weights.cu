// x (images, C, H, W), gy (images, OC, OH, OW) -> gw (parts, OC, C, KH, KW)
extern "C" __global__ void __launch_bounds__(THREADS)
    convolution_weights(const float* __restrict__ x, const float* __restrict__ gy, float* __restrict__ gw,
              int images, int k_each) {
  int k_begin, k_end;
  part(images * OH * OW, k_each, k_begin, k_end);
  float sum[ROWS][COLUMNS] = {};
  product<true, true>(
      OC, C * KH * KW, k_begin, k_end,
      [&](int oc, int p) {
        const int image = p / (OH * OW), place = p % (OH * OW);
        return gy[(image * OC + oc) * (OH * OW) + place];
      },
      [&](int tap, int p) {
        const int image = p / (OH * OW), oh = p / OW % OH, ow = p % OW;
        const int c = tap / (KH * KW);
        const int h = oh * SY - PH + tap / KW % KH, v = ow * SX - PW + tap % KW;
        const bool is_inside = h >= 0 && h < H && v >= 0 && v < W;
        return is_inside ? x[((image * C + c) * H + h) * W + v] : 0.0f;
      },
      sum);
  float* own = gw + blockIdx.z * (OC * C * KH * KW);
  store_tile(OC, C * KH * KW, sum,
             [&](int oc, int tap, float value) { own[oc * (C * KH * KW) + tap] = value; });
}
