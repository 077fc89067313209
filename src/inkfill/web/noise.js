// core/rng.py: random streams by name, bit for bit those of numpy (SeedSequence, Philox4x64-10, float32 ziggurat).

// numpy.random.SeedSequence(seed, spawn_key=key).generate_state(4): four 32-bit words.
function seedSequence(seed, key) {
  const words = [Number(BigInt(seed) & 0xffffffffn), Number(BigInt(seed) >> 32n)];
  if (words[1] === 0) words.pop();
  while (words.length < 4) words.push(0);
  words.push(...key);
  let constant = 0x43b0d7e5;
  const hash = (value, factor) => {
    value ^= constant;
    constant = Math.imul(constant, factor);
    value = Math.imul(value, constant);
    return value ^ (value >>> 16);
  };
  const mix = (x, y) => {
    const both = Math.imul(0xca01f9dd, x) - Math.imul(0x4973f715, y);
    return both ^ (both >>> 16);
  };
  const pool = words.slice(0, 4).map((word) => hash(word, 0x931e8875));
  for (let from = 0; from < 4; from++)
    for (let to = 0; to < 4; to++) if (from !== to) pool[to] = mix(pool[to], hash(pool[from], 0x931e8875));
  for (const word of words.slice(4)) for (let to = 0; to < 4; to++) pool[to] = mix(pool[to], hash(word, 0x931e8875));
  constant = 0x8b51f9dd;
  return pool.map((word) => hash(word, 0x58f38ded) >>> 0);
}

// The ziggurat: 256 layers of equal area under the normal density.
function ziggurat() {
  const R = 3.6541528853610088, AREA = 0.0049286732339746519, SCALE = 2 ** 23;
  const density = (x) => Math.exp(-0.5 * x * x);
  const edge = new Float64Array(256);
  edge[255] = R;
  for (let i = 254; i > 0; i--) edge[i] = Math.sqrt(-2 * Math.log(density(edge[i + 1]) + AREA / edge[i + 1]));
  const inside = new Uint32Array(256), width = new Float32Array(256), height = new Float32Array(256);
  for (let i = 1; i < 256; i++) {
    inside[i] = Math.round((edge[i - 1] / edge[i]) * SCALE);
    width[i] = edge[i] / SCALE;
    height[i] = density(edge[i]);
  }
  inside[0] = Math.round(((R * density(R)) / AREA) * SCALE);
  width[0] = AREA / density(R) / SCALE;
  height[0] = 1;
  return { inside, width, height };
}

// One stream per row, fixed by (seed, image, sample); draw() returns the next numbers of every row.
class SampleNoise {
  constructor(machine, seed, image, samples, count) {
    Object.assign(this, { machine, count });
    this.rows = samples.map((sample) => {
      const state = new Uint8Array(96), words = new Uint32Array(state.buffer); // struct stream of kernels.c: key, counter, drawn, used, half, waiting
      words.set(seedSequence(seed, [image, sample]));
      words[20] = 4;
      return state;
    });
  }

  draw() {
    const { machine, count, rows } = this;
    const out = new Float32Array(rows.length * count);
    rows.forEach((state, r) => out.set(machine.normal(state, count), r * count));
    return out;
  }
}
