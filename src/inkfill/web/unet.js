// core/unet.py and evaluation/classifier.py: the networks, as calls of the kernels.

// The kernels and their memory: weights first, then scratch. Growing the memory detaches all views, so they are made on
// demand.
class Machine {
  constructor(module) {
    this.kernels = new WebAssembly.Instance(module, { math: { log1p: Math.log1p, exp: Math.exp } }).exports;
    this.top = Math.ceil(this.kernels.heap() / 16) * 16;
    const { inside, width, height } = ziggurat();
    this.tables = [inside, width, height].map((table) => this.put(table));
  }

  room(floats) {
    const at = this.top, { memory } = this.kernels;
    this.top += Math.ceil(floats / 4) * 16;
    if (this.top > memory.buffer.byteLength) memory.grow(Math.ceil((this.top - memory.buffer.byteLength) / 65536) + 64);
    return at;
  }

  put(array) {
    const at = this.room(array.byteLength / 4);
    const bytes = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
    new Uint8Array(this.kernels.memory.buffer).set(bytes, at);
    return at;
  }

  view(at, floats) {
    return new Float32Array(this.kernels.memory.buffer, at, floats);
  }

  // Run `work`, then free the memory that it allocated.
  scratch(work) {
    const mark = this.top;
    try {
      return work();
    } finally {
      this.top = mark;
    }
  }

  // The next `count` normal numbers of a stream.
  normal(state, count) {
    return this.scratch(() => {
      const at = this.put(state), out = this.room(count);
      this.kernels.normal(at, out, count, ...this.tables);
      state.set(new Uint8Array(this.kernels.memory.buffer, at, state.length));
      return this.view(out, count).slice();
    });
  }
}

const up4 = (n) => Math.ceil(n / 4) * 4;

// The layers that both networks use. Weights { shape, data }, by their names in torch, become addresses in memory.
class Network {
  constructor(machine, weights) {
    Object.assign(this, { machine, kernels: machine.kernels, at: {}, shape: {} });
    for (const [name, tensor] of Object.entries(weights)) {
      this.shape[name] = tensor.shape;
      this.at[name] = this.place(name, tensor);
    }
  }

  place(name, { shape, data }) {
    if (shape.length === 1) return this.machine.put(data);
    const [out, ins, ...area] = shape;
    if (area[0] !== 3) return this.machine.put(Network.turned(data, out, ins, area[0] ? area[0] * area[1] : 1));
    const u = this.machine.room(36 * ins * out);
    this.machine.scratch(() => this.kernels.winograd(this.machine.put(data), u, ins, out));
    return u;
  }

  // [out, in, area] to [area, in, out]: a convolution over folded pixels becomes a matrix product.
  static turned(data, out, ins, area) {
    const turned = new Float32Array(area * ins * up4(out));
    for (let o = 0; o < out; o++)
      for (let i = 0; i < ins; i++)
        for (let p = 0; p < area; p++) turned[(p * ins + i) * up4(out) + o] = data[(o * ins + i) * area + p];
    return turned;
  }

  // x W + b; output rows are padded to a multiple of 4.
  linear(name, x, rows, bias = this.at[`${name}.bias`] || 0) {
    const [out, ins, ...area] = this.shape[`${name}.weight`], inner = ins * (area[0] ? area[0] * area[1] : 1);
    const y = this.machine.room(rows * up4(out));
    this.kernels.matmul(rows, up4(out), inner, x, inner, this.at[`${name}.weight`], up4(out), y, up4(out), bias);
    return y;
  }

  conv3x3(name, x, [rows, height, width], bias = this.at[`${name}.bias`] || 0) {
    const [out, ins] = this.shape[`${name}.weight`], y = this.machine.room(rows * height * width * out);
    this.machine.scratch(() => {
      const scratch = this.machine.room(36 * 64 * (ins + out));
      this.kernels.conv3x3(x, this.at[`${name}.weight`], bias, y, scratch, rows, height, width, ins, out);
    });
    return y;
  }

  norm(name, x, pixels) {
    const [channels] = this.shape[`${name}.weight`], y = this.machine.room(pixels * channels);
    this.kernels.norm(x, this.at[`${name}.weight`], this.at[`${name}.bias`], y, pixels, channels);
    return y;
  }

  // 2x2 pixels into channels, or back.
  fold(x, [rows, height, width], channels, back) {
    const y = this.machine.room(rows * height * width * channels);
    this.kernels.fold(x, y, rows, height, width, channels, back);
    return y;
  }

  // Planes [rows, channels, height, width], padded by reflection to [tall, wide] and folded (torch's PixelUnshuffle).
  planes(values, rows, channels, height, width, [tall, wide]) {
    const at = this.machine.room(rows * channels * tall * wide), out = this.machine.view(at, rows * channels * tall * wide);
    for (let r = 0, i = 0; r < rows; r++)
      for (let y = 0; y < tall; y += 2)
        for (let x = 0; x < wide; x += 2)
          for (let c = 0; c < channels; c++)
            for (let p = 0; p < 4; p++) {
              const row = y + (p >> 1), column = x + (p & 1);
              const inner = mirrored(row, height), across = mirrored(column, width);
              out[i++] = values[((r * channels + c) * height + inner) * width + across];
            }
    return at;
  }
}

// Index i of a row of `length` that is reflected at both ends, repeatedly.
function mirrored(i, length) {
  const there = i % (2 * (length - 1));
  return there < length ? there : 2 * (length - 1) - there;
}

class UNet extends Network {
  constructor(machine, weights, config, [height, width]) {
    super(machine, weights);
    const times = 2 ** config.widths.length, padded = [height, width].map((side) => Math.ceil(side / times) * times);
    Object.assign(this, { config, height, width, padded, half: padded.map((side) => side / 2) });
  }

  place(name, tensor) {
    const { shape: [ins, out], data } = tensor;
    if (name.endsWith("grow.bias")) // one per output pixel of the 2x2 block
      return this.machine.put(Float32Array.from({ length: 4 * ins }, (_, i) => data[i % ins]));
    if (!name.endsWith("grow.weight")) return super.place(name, tensor);
    const turned = new Float32Array(ins * out * 4); // [in, out, 2, 2] in torch
    for (let i = 0; i < ins; i++)
      for (let o = 0; o < out; o++) for (let p = 0; p < 4; p++) turned[(i * 4 + p) * out + o] = data[(i * out + o) * 4 + p];
    this.shape[name] = [4 * out, ins];
    return this.machine.put(turned);
  }

  // Sinusoidal embedding of time = t / T in [0, 1], then two layers.
  time(time) {
    const count = this.shape["time.layers.0.weight"][1] / 2, features = new Float32Array(2 * count);
    for (let i = 0; i < count; i++) {
      const frequency = fround(Math.exp(fround(fround(fround(-Math.log(1e4)) * i) / count)));
      const angle = fround(fround(1000 * fround(time)) * frequency);
      features[i] = Math.sin(angle), features[count + i] = Math.cos(angle);
    }
    const width = this.shape["time.layers.0.bias"][0];
    const first = this.linear("time.layers.0", this.machine.put(features), 1);
    this.kernels.silu(first, up4(width));
    const second = this.linear("time.layers.2", first, 1);
    this.kernels.silu(second, up4(width));
    return second;
  }

  // Norm, 3x3 convolution, plus the time embedding, SiLU, convolution; added to x, in place.
  block(name, x, time, size) {
    const [rows, height, width] = size, pixels = rows * height * width;
    this.machine.scratch(() => {
      const channels = this.shape[`${name}.conv1.bias`][0], shift = this.linear(`${name}.time`, time, 1);
      this.kernels.accumulate(shift, this.at[`${name}.conv1.bias`], channels);
      const h = this.conv3x3(`${name}.conv1`, this.norm(`${name}.norm`, x, pixels), size, shift);
      this.kernels.silu(h, pixels * channels);
      const three = this.shape[`${name}.conv2.weight`][2] === 3;
      const y = three ? this.conv3x3(`${name}.conv2`, h, size) : this.linear(`${name}.conv2`, h, pixels);
      this.kernels.accumulate(x, y, pixels * channels);
    });
  }

  // Self-attention among all pixels of a row; added to x, in place.
  attention(name, x, [rows, height, width]) {
    const tokens = height * width, channels = this.config.widths.at(-1), each = this.config.head_width, stride = up4(tokens);
    this.machine.scratch(() => {
      const qkv = this.linear(`${name}.qkv`, this.norm(`${name}.norm`, x, rows * tokens), rows * tokens);
      const mixed = this.machine.room(rows * tokens * channels);
      const keys = this.machine.room(each * stride), weights = this.machine.room(tokens * stride);
      for (let r = 0; r < rows; r++)
        for (let head = 0; head < channels; head += each) {
          const q = qkv + 4 * (r * tokens * 3 * channels + head), k = q + 4 * channels, v = k + 4 * channels;
          this.kernels.transpose(k, tokens, each, 3 * channels, keys, stride);
          this.kernels.matmul(tokens, stride, each, q, 3 * channels, keys, stride, weights, stride, 0);
          this.kernels.softmax(weights, tokens, tokens, stride, each ** -0.5);
          const to = mixed + 4 * (r * tokens * channels + head);
          this.kernels.matmul(tokens, each, tokens, weights, stride, v, 3 * channels, to, channels, 0);
        }
      this.kernels.accumulate(x, this.linear(`${name}.out`, mixed, rows * tokens), rows * tokens * channels);
    });
  }

  // The stem of the observed pixels, computed once for all rows; pixels [C, H, W], known [H, W] of 0 and 1.
  embed(pixels, known) {
    return this.machine.scratch(() => {
      const channels = this.config.channels + 1, all = new Float32Array(channels * known.length);
      for (let c = 0; c < channels - 1; c++)
        known.forEach((is, p) => (all[c * known.length + p] = is ? pixels[c * known.length + p] : 0));
      all.set(known, (channels - 1) * known.length);
      const planes = this.planes(all, 1, channels, this.height, this.width, this.padded);
      const count = this.half[0] * this.half[1] * this.config.widths[0];
      return this.machine.view(this.conv3x3("stem_known", planes, [1, ...this.half]), count).slice();
    });
  }

  // The stem of x_t or of latent noise, which the network reads only where pixels are missing.
  stem(name, values, known, rows) {
    const hidden = values.map((value, i) => (known[i % known.length] ? 0 : value));
    const planes = this.planes(hidden, rows, this.config.channels, this.height, this.width, this.padded);
    return this.conv3x3(name, planes, [rows, ...this.half]);
  }

  // v for x_t [rows, C, H, W] at time t / T; `latent` is noise like x_t for few-step models, or null.
  forward(xt, known, t, embedded, latent) {
    return this.machine.scratch(() => {
      const { kernels, config: { widths, channels } } = this, rows = xt.length / (channels * known.length);
      const time = this.time(t), half = [rows, ...this.half];
      const pixels = rows * this.half[0] * this.half[1], count = pixels * widths[0];
      let h = this.stem("stem_noisy", xt, known, rows);
      const shared = this.machine.put(embedded);
      for (let r = 0; r < rows; r++) kernels.accumulate(h + 4 * r * embedded.length, shared, embedded.length);
      if (latent) kernels.accumulate(h, this.stem("stem_latent", latent, known, rows), count);
      h = this.norm("norm", this.within(0, h, time, half), pixels);
      kernels.silu(h, count);
      return this.unfolded(this.conv3x3("head", h, half), rows);
    });
  }

  // One resolution: down to the next and up again; attention is at the lowest.
  within(depth, h, time, size) {
    const { kernels, config: { widths, blocks } } = this, [rows, height, width] = size, pixels = rows * height * width;
    const name = depth ? `between.${depth - 1}.` : "", wide = widths[depth];
    if (depth === widths.length - 1) {
      for (let i = 0; i < blocks[depth]; i++) {
        this.block(`middle.${i}`, h, time, size);
        this.attention(`attention.${i}`, h, size);
      }
      return h;
    }
    for (let i = 0; i < blocks[depth]; i++) this.block(`${name}down.${i}`, h, time, size);
    const small = this.linear(`${name}shrink`, this.fold(h, size, wide, 0), pixels / 4);
    const low = this.within(depth + 1, small, time, [rows, height / 2, width / 2]);
    h = this.linear(`${name}skip`, h, pixels);
    kernels.accumulate(h, this.fold(this.linear(`${name}grow`, low, pixels / 4), size, wide, 1), pixels * wide);
    for (let i = 0; i < blocks[depth]; i++) this.block(`${name}up.${i}`, h, time, size);
    return h;
  }

  // torch's PixelShuffle, cropped to the size of the images: [rows, C, H, W].
  unfolded(at, rows) {
    const { height, width, config: { channels }, half } = this, [tall, wide] = half;
    const folded = this.machine.view(at, rows * tall * wide * 4 * channels), out = new Float32Array(rows * channels * height * width);
    for (let r = 0, i = 0; r < rows; r++)
      for (let c = 0; c < channels; c++)
        for (let y = 0; y < height; y++)
          for (let x = 0; x < width; x++)
            out[i++] = folded[((r * tall + (y >> 1)) * wide + (x >> 1)) * 4 * channels + 4 * c + 2 * (y & 1) + (x & 1)];
    return out;
  }
}

// Label probabilities of whole digits.
class Classifier extends Network {
  layer(name, x, size) {
    const count = size[0] * size[1] * size[2], channels = this.shape[`${name}.conv1.bias`][0];
    this.machine.scratch(() => {
      const h = this.conv3x3(`${name}.conv1`, this.norm(`${name}.norm`, x, count), size);
      this.kernels.silu(h, count * channels);
      this.kernels.accumulate(x, this.conv3x3(`${name}.conv2`, h, size), count * channels);
    });
  }

  // x0 [1, 28, 28] to probabilities [10].
  judge(x0) {
    return this.machine.scratch(() => {
      const both = new Float32Array(2 * 784).fill(1);
      both.set(x0);
      const x = this.conv3x3("stem", this.planes(both, 1, 2, 28, 28, [28, 28]), [1, 14, 14]);
      this.layer("fine", x, [1, 14, 14]);
      const small = this.linear("shrink", this.fold(x, [1, 14, 14], 64, 0), 49);
      for (const i of [0, 1]) this.layer(`coarse.${i}`, small, [1, 7, 7]);
      const h = this.machine.view(this.norm("norm", small, 49), 49 * 128), pooled = new Float32Array(256).fill(-Infinity, 128);
      for (let i = 0; i < h.length; i++) {
        pooled[i % 128] += h[i] / 49;
        pooled[128 + (i % 128)] = Math.max(pooled[128 + (i % 128)], h[i]);
      }
      const mixed = this.linear("mix", this.machine.put(pooled), 1);
      this.kernels.silu(mixed, 128);
      const logits = [...this.machine.view(this.linear("head", mixed, 1), 10)], most = Math.max(...logits);
      const odds = logits.map((logit) => Math.exp(logit - most)), sum = odds.reduce((a, b) => a + b);
      return odds.map((odd) => odd / sum);
    });
  }
}
