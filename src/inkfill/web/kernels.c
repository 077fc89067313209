// The arithmetic of the page in WebAssembly, in place of torch's operators and numpy's generator.
//
// Feature maps are channels-last, float32 [rows, height, width, channels], with a multiple of 4 channels (one SIMD word).
// The order of summation does not depend on the batch, so a sample does not depend on the others. build.py compiles this
// file twice: with plain SIMD, and with relaxed SIMD for its fused multiply-add.

#include <stdint.h>
#include <wasm_simd128.h>

#define EXPORT(name) __attribute__((export_name(#name))) name
#define INLINE static inline __attribute__((always_inline))
typedef v128_t f4; // four floats

extern uint8_t __heap_base; // start of free memory
uint32_t EXPORT(heap)(void) { return (uint32_t)&__heap_base; }

INLINE f4 load(const float *p) { return wasm_v128_load(p); }
INLINE void store(float *p, f4 v) { wasm_v128_store(p, v); }
INLINE f4 all(float v) { return wasm_f32x4_splat(v); }
INLINE f4 add(f4 a, f4 b) { return wasm_f32x4_add(a, b); }
INLINE f4 sub(f4 a, f4 b) { return wasm_f32x4_sub(a, b); }
INLINE f4 mul(f4 a, f4 b) { return wasm_f32x4_mul(a, b); }
#ifdef __wasm_relaxed_simd__
INLINE f4 madd(f4 a, f4 b, f4 c) { return wasm_f32x4_relaxed_madd(a, b, c); }
#else
INLINE f4 madd(f4 a, f4 b, f4 c) { return add(mul(a, b), c); }
#endif
INLINE float total(f4 v) {
  return (wasm_f32x4_extract_lane(v, 0) + wasm_f32x4_extract_lane(v, 1)) +
         (wasm_f32x4_extract_lane(v, 2) + wasm_f32x4_extract_lane(v, 3));
}

// ---- matrix product -------------------------------------------------------------------------------------------------

// One step of the inner index: a row of b times one number of each row of a.
INLINE void inner(const int R, const int V, f4 sum[6][2], const f4 *left, const float *b) {
  f4 column[2];
  for (int v = 0; v < V; v++) column[v] = load(b + 4 * v);
  for (int r = 0; r < R; r++)
    for (int v = 0; v < V; v++) sum[r][v] = madd(left[r], column[v], sum[r][v]);
}

#define SPLAT(lane)                                                                              \
  for (int r = 0; r < R; r++) left[r] = wasm_i32x4_shuffle(four[r], four[r], lane, lane, lane, lane); \
  inner(R, V, sum, left, b + lane * ldb);

// R rows by 4 V columns of c = a b + bias, summed in registers. Four numbers of each row of a are loaded at once, because
// computing an address for each costs more than the arithmetic.
INLINE void block(const int R, const int V, int k, const float *a, int lda, const float *b, int ldb, float *c, int ldc,
                  const float *bias) {
  f4 sum[6][2];
  for (int v = 0; v < V; v++)
    for (int r = 0; r < R; r++) sum[r][v] = bias ? load(bias + 4 * v) : all(0);
  int i = 0;
  f4 four[6], left[6];
  for (; i + 4 <= k; i += 4, b += 4 * ldb) {
    for (int r = 0; r < R; r++) four[r] = load(a + r * lda + i);
    SPLAT(0) SPLAT(1) SPLAT(2) SPLAT(3)
  }
  for (; i < k; i++, b += ldb) {
    for (int r = 0; r < R; r++) left[r] = wasm_v128_load32_splat(a + r * lda + i);
    inner(R, V, sum, left, b);
  }
  for (int r = 0; r < R; r++)
    for (int v = 0; v < V; v++) store(c + r * ldc + 4 * v, sum[r][v]);
}

INLINE void columns(const int V, int m, int k, const float *a, int lda, const float *b, int ldb, float *c, int ldc,
                    const float *bias) {
  for (; m >= 6; m -= 6, a += 6 * lda, c += 6 * ldc) block(6, V, k, a, lda, b, ldb, c, ldc, bias);
  switch (m) {
  case 5: block(5, V, k, a, lda, b, ldb, c, ldc, bias); break;
  case 4: block(4, V, k, a, lda, b, ldb, c, ldc, bias); break;
  case 3: block(3, V, k, a, lda, b, ldb, c, ldc, bias); break;
  case 2: block(2, V, k, a, lda, b, ldb, c, ldc, bias); break;
  case 1: block(1, V, k, a, lda, b, ldb, c, ldc, bias); break;
  }
}

// c [m, n] = a [m, k] b [k, n] + bias [n] (or null), with the given distances between rows; n a multiple of 4.
void EXPORT(matmul)(int m, int n, int k, const float *a, int lda, const float *b, int ldb, float *c, int ldc,
                    const float *bias) {
  int j = 0;
  for (; j + 8 <= n; j += 8) columns(2, m, k, a, lda, b + j, ldb, c + j, ldc, bias ? bias + j : 0);
  for (; j < n; j += 4) columns(1, m, k, a, lda, b + j, ldb, c + j, ldc, bias ? bias + j : 0);
}

// ---- 3x3 convolution: Winograd F(4x4, 3x3) (Lavin and Gray 2016) ------------------------------------------------------

#define TILES 64 // processed together, so that intermediate values fit into a cache

// torch's weights [out, in, 3, 3] to [36, in, out]: G w G'.
void EXPORT(winograd)(const float *w, float *u, int in, int out) {
  const float G[6][3] = {{1 / 4.f, 0, 0},           {-1 / 6.f, -1 / 6.f, -1 / 6.f},  {-1 / 6.f, 1 / 6.f, -1 / 6.f},
                         {1 / 24.f, 1 / 12.f, 1 / 6.f}, {1 / 24.f, -1 / 12.f, 1 / 6.f}, {0, 0, 1}};
  for (int o = 0; o < out; o++)
    for (int i = 0; i < in; i++, w += 9)
      for (int y = 0; y < 6; y++)
        for (int x = 0; x < 6; x++) {
          double sum = 0;
          for (int a = 0; a < 3; a++)
            for (int b = 0; b < 3; b++) sum += (double)G[y][a] * w[3 * a + b] * G[x][b];
          u[((6 * y + x) * in + i) * out + o] = sum;
        }
}

// B' d, six values apart by `step`.
INLINE void into(f4 *d, int step) {
  f4 d0 = d[0], d1 = d[step], d2 = d[2 * step], d3 = d[3 * step], d4 = d[4 * step], d5 = d[5 * step];
  f4 four = all(4), two = all(2), five = all(5);
  f4 even = sub(d4, mul(four, d2)), odd = sub(d3, mul(four, d1));
  f4 near = sub(d4, d2), far = mul(two, sub(d3, d1));
  d[0] = add(sub(mul(four, d0), mul(five, d2)), d4);
  d[step] = add(even, odd);
  d[2 * step] = sub(even, odd);
  d[3 * step] = add(near, far);
  d[4 * step] = sub(near, far);
  d[5 * step] = add(sub(mul(four, d1), mul(five, d3)), d5);
}

// A' m: six values to four.
INLINE void out_of(f4 *m, int step) {
  f4 a = add(m[step], m[2 * step]), b = sub(m[step], m[2 * step]);
  f4 c = add(m[3 * step], m[4 * step]), d = sub(m[3 * step], m[4 * step]);
  m[0] = add(m[0], add(a, c));
  m[step] = add(b, mul(all(2), d));
  m[2 * step] = add(a, mul(all(4), c));
  m[3 * step] = add(add(b, mul(all(8), d)), m[5 * step]);
}

INLINE void tile_in(const float *x, float *v, int top, int left, int h, int w, int channels) {
  for (int c = 0; c < channels; c += 4) {
    f4 d[36];
    for (int i = 0; i < 36; i++) {
      int y = top + i / 6, at = left + i % 6;
      d[i] = y < 0 || at < 0 || y >= h || at >= w ? all(0) : load(x + (y * w + at) * channels + c);
    }
    for (int i = 0; i < 6; i++) into(d + i, 6);
    for (int i = 0; i < 6; i++) into(d + 6 * i, 1);
    for (int i = 0; i < 36; i++) store(v + i * TILES * channels + c, d[i]);
  }
}

INLINE void tile_out(const float *m, float *y, const float *bias, int top, int left, int h, int w, int channels) {
  for (int c = 0; c < channels; c += 4) {
    f4 d[36];
    for (int i = 0; i < 36; i++) d[i] = load(m + i * TILES * channels + c);
    for (int i = 0; i < 6; i++) out_of(d + i, 6);
    for (int i = 0; i < 4; i++) out_of(d + 6 * i, 1);
    for (int i = 0; i < 4 && top + i < h; i++)
      for (int j = 0; j < 4 && left + j < w; j++)
        store(y + ((top + i) * w + left + j) * channels + c, bias ? add(d[6 * i + j], load(bias + c)) : d[6 * i + j]);
  }
}

// y [rows, h, w, out] = x [rows, h, w, in] convolved with zero padding; `scratch` holds 36 * 64 * (in + out) floats.
void EXPORT(conv3x3)(const float *x, const float *u, const float *bias, float *y, float *scratch, int rows, int h,
                     int w, int in, int out) {
  int across = (w + 3) / 4, each = across * ((h + 3) / 4), tiles = rows * each;
  float *v = scratch, *m = scratch + 36 * TILES * in;
  for (int first = 0; first < tiles; first += TILES) {
    int count = tiles - first < TILES ? tiles - first : TILES;
    for (int i = 0; i < count; i++) {
      int row = (first + i) / each, place = (first + i) % each;
      tile_in(x + row * h * w * in, v + i * in, place / across * 4 - 1, place % across * 4 - 1, h, w, in);
    }
    for (int i = 0; i < 36; i++)
      matmul(count, out, in, v + i * TILES * in, in, u + i * in * out, out, m + i * TILES * out, out, 0);
    for (int i = 0; i < count; i++) {
      int row = (first + i) / each, place = (first + i) % each;
      tile_out(m + i * out, y + row * h * w * out, bias, place / across * 4, place % across * 4, h, w, out);
    }
  }
}

// ---- between the products ---------------------------------------------------------------------------------------------

// LayerNorm over the channels of every pixel.
void EXPORT(norm)(const float *x, const float *scale, const float *shift, float *y, int pixels, int channels) {
  for (; pixels--; x += channels, y += channels) {
    f4 sum = all(0), squares = all(0);
    for (int c = 0; c < channels; c += 4) sum = add(sum, load(x + c));
    f4 mean = all(total(sum) / channels);
    for (int c = 0; c < channels; c += 4) {
      f4 d = sub(load(x + c), mean);
      squares = add(squares, mul(d, d));
    }
    f4 factor = all(1 / __builtin_sqrtf(total(squares) / channels + 1e-5f));
    for (int c = 0; c < channels; c += 4)
      store(y + c, add(mul(mul(sub(load(x + c), mean), factor), load(scale + c)), load(shift + c)));
  }
}

// exp(x): 2^n times a polynomial in the remainder.
INLINE f4 exponential(f4 x) {
  x = wasm_f32x4_max(wasm_f32x4_min(x, all(88)), all(-87));
  f4 n = wasm_f32x4_nearest(mul(x, all(1.44269504f)));
  f4 r = sub(sub(x, mul(n, all(0.693359375f))), mul(n, all(-2.12194440e-4f)));
  const float coefficients[] = {1 / 720.f, 1 / 120.f, 1 / 24.f, 1 / 6.f, 1 / 2.f, 1, 1};
  f4 p = all(1 / 5040.f);
  for (int i = 0; i < 7; i++) p = add(mul(p, r), all(coefficients[i]));
  v128_t power = wasm_i32x4_shl(wasm_i32x4_add(wasm_i32x4_trunc_sat_f32x4(n), wasm_i32x4_splat(127)), 23);
  return mul(p, power);
}

// x / (1 + e^-x), in place; n a multiple of 4.
void EXPORT(silu)(float *x, int n) {
  for (int i = 0; i < n; i += 4) {
    f4 v = load(x + i);
    store(x + i, wasm_f32x4_div(v, add(all(1), exponential(wasm_f32x4_neg(v)))));
  }
}

// Softmax of rows of n values, `stride` apart (a multiple of 4; the rest of a row is set to 0), in place.
void EXPORT(softmax)(float *x, int rows, int n, int stride, float scale) {
  for (; rows--; x += stride) {
    float most = x[0], sum = 0;
    for (int i = 1; i < n; i++) most = x[i] > most ? x[i] : most;
    for (int i = 0; i < stride; i += 4) store(x + i, exponential(mul(sub(load(x + i), all(most)), all(scale))));
    for (int i = 0; i < n; i++) sum += x[i];
    for (int i = 0; i < n; i++) x[i] /= sum;
    for (int i = n; i < stride; i++) x[i] = 0;
  }
}

// x += y; n a multiple of 4.
void EXPORT(accumulate)(float *x, const float *y, int n) {
  for (int i = 0; i < n; i += 4) store(x + i, add(load(x + i), load(y + i)));
}

// 2x2 pixels into channels: [rows, h, w, c] to [rows, h / 2, w / 2, 2, 2, c]; or back.
void EXPORT(fold)(const float *from, float *to, int rows, int h, int w, int c, int back) {
  for (int y = 0; y < rows * h; y++)
    for (int x = 0; x < w; x++) {
      int open = (y * w + x) * c, folded = ((y / 2 * (w / 2) + x / 2) * 4 + y % 2 * 2 + x % 2) * c;
      for (int i = 0; i < c; i += 4)
        back ? store(to + open + i, load(from + folded + i)) : store(to + folded + i, load(from + open + i));
    }
}

// [n, m] to [m, stride]; the rest of a row is set to 0.
void EXPORT(transpose)(const float *from, int n, int m, int ld, float *to, int stride) {
  for (int j = 0; j < m; j++)
    for (int i = 0; i < stride; i++) to[j * stride + i] = i < n ? from[i * ld + j] : 0;
}

// ---- noise: numpy's Philox4x64-10 (Salmon et al. 2011) and its float32 ziggurat (Marsaglia and Tsang 2000) ------------

typedef struct {
  uint64_t key[2], counter[4], drawn[4];
  uint32_t used, half, waiting; // numbers used of the four drawn; the unused upper half of one, and whether there is one
} Stream;

__attribute__((import_module("math"), import_name("log1p"))) extern double log1p(double);
__attribute__((import_module("math"), import_name("exp"))) extern double exp(double);

INLINE uint64_t high(uint64_t a, uint64_t b) { // upper half of a 128-bit product
  uint64_t a0 = (uint32_t)a, a1 = a >> 32, b0 = (uint32_t)b, b1 = b >> 32;
  uint64_t low = a0 * b0, left = a1 * b0 + (low >> 32), right = a0 * b1 + (uint32_t)left;
  return a1 * b1 + (left >> 32) + (right >> 32);
}

static void philox(Stream *s) {
  uint64_t k0 = s->key[0], k1 = s->key[1], m0 = 0xD2E7470EE14C6C93u, m1 = 0xCA5A826395121157u;
  for (int i = 0; i < 4 && !++s->counter[i]; i++) continue;
  uint64_t a = s->counter[0], b = s->counter[1], c = s->counter[2], d = s->counter[3];
  for (int round = 0; round < 10; round++, k0 += 0x9E3779B97F4A7C15u, k1 += 0xBB67AE8584CAA73Bu) {
    uint64_t p0 = high(m0, a), p1 = high(m1, c), low0 = m0 * a, low1 = m1 * c;
    a = p1 ^ b ^ k0, b = low1, c = p0 ^ d ^ k1, d = low0;
  }
  s->drawn[0] = a, s->drawn[1] = b, s->drawn[2] = c, s->drawn[3] = d, s->used = 0;
}

static uint32_t bits(Stream *s) {
  if (s->waiting) return s->waiting = 0, s->half;
  if (s->used == 4) philox(s);
  uint64_t drawn = s->drawn[s->used++];
  s->half = drawn >> 32, s->waiting = 1;
  return (uint32_t)drawn;
}

INLINE float uniform(Stream *s) { return (bits(s) >> 8) * (1.0f / 16777216); }

// n standard normal numbers. `width` and `height` describe the ziggurat's 256 layers, `inside` the part accepted untested.
void EXPORT(normal)(Stream *s, float *out, int n, const uint32_t *inside, const float *width, const float *height) {
  const float R = 3.6541528853610088f, inverse = 0.27366123732975828f;
  while (n) {
    uint32_t r = bits(s), layer = r & 255, size = r >> 9;
    float x = size * width[layer];
    if (r & 256) x = -x;
    if (size < inside[layer]) {
      *out++ = x, n--;
    } else if (layer == 0) {
      float a, b;
      do {
        a = -inverse * (float)log1p(-uniform(s));
        b = -(float)log1p(-uniform(s));
      } while (!(b + b > a * a));
      *out++ = size >> 8 & 1 ? -(R + a) : R + a, n--;
    } else if ((height[layer - 1] - height[layer]) * uniform(s) + height[layer] < exp(-0.5 * x * x)) {
      *out++ = x, n--;
    }
  }
}
