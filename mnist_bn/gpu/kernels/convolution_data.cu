// gy (images, OC, OH, OW), w (OC, C, KH, KW), b (C,) or null -> gx (images, C, H, W)
extern "C" __global__ void __launch_bounds__(THREADS)
    convolution_data(const float* __restrict__ gy, const float* __restrict__ w,
              const float* __restrict__ b, float* __restrict__ gx, int images) {
  const int pixels = images * H * W;
  float sum[ROWS][COLUMNS] = {};
  product<false, false>(
      C, pixels, 0, OC * KH * KW,
      [&](int c, int k) { return w[(k / (KH * KW) * C + c) * (KH * KW) + k % (KH * KW)]; },
      [&](int p, int k) {
        const int image = p / (H * W), h = p / W % H, v = p % W;
        const int oc = k / (KH * KW), top = h + PH - k / KW % KH, left = v + PW - k % KW;
        const int oh = top / SY, ow = left / SX;
        const bool is_inside = top >= 0 && top % SY == 0 && oh < OH && left >= 0 &&
                               left % SX == 0 && ow < OW;
        return is_inside ? gy[((image * OC + oc) * OH + oh) * OW + ow] : 0.0f;
      },
      sum);
  store_tile(C, pixels, sum, [&](int c, int p, float value) {
    const int image = p / (H * W), place = p % (H * W);
    gx[(image * C + c) * (H * W) + place] = b ? value + b[c] : value;
  });
}
