// The step with AMX-BF16: matrix tiles, on one record of channels per pixel; see
// tile_activations.hpp.

#include <sys/syscall.h>
#include <unistd.h>

#include <cmath>

#include <memory>
#include <vector>

#include "vector_avx512.hpp"

#include "augmentation.hpp"
#include "instruction_set.hpp"
#include "pool.hpp"
#include "tile_activations.hpp"

namespace native {
namespace {

// Whether this processor and this system have matrix tiles; requests them from the system.
bool claimed() {
  if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
      !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512vl") ||
      !__builtin_cpu_supports("avx512bf16") || !__builtin_cpu_supports("avx512vbmi"))
    return false;
  // GCC 12 has no builtin for these: CPUID leaf 7, EDX 22 (AMX-BF16) and 24 (AMX-TILE).
  unsigned a = 7, b, c = 0, d;
  asm volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
  constexpr unsigned BF16 = 1u << 22, TILES = 1u << 24;
  if ((d & BF16) == 0 || (d & TILES) == 0) return false;
  // Linux lets a process use the tile registers after a request (Documentation/arch/x86/xstate).
  constexpr int REQUEST_PERMISSION = 0x1023, TILE_DATA = 18;
  return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
}

// Records per image of raw convolution outputs and of the gradients of activations. Those of the
// transitions are on the pooled grid: of the four outputs under a pixel only the largest after batch
// norm is stored, and the others are computed again. So are the stem's outputs.
constexpr int RECORDS[LAYERS] = {0, S28::FLAT, S14::FLAT, S14::FLAT, S7::FLAT, S7::FLAT, S7::FLAT};
constexpr int TAPS[LAYERS] = {1, 9, 1, 9, 1, 9, 1};
// Layers of 18 channels have sixteen of them in half 0 of a Pair, and two at the start of half 1.
constexpr int slot_of(int layer, int channel) {
  if (CHANNELS[layer] != 18) return channel;
  return channel < 16 ? side_by_side(0, channel) : side_by_side(1, channel - 16);
}
// Number of products of 16 by 16 channels in a layer's weight gradient.
constexpr int weight_tiles(int layer) { return 2 * (TAPS[layer] == 9 ? NINE_OF_18 : 2); }

// The stem's input around a pixel (its patch): item 4 r + k is r - 1 rows below the pixel and k - 1
// columns to the right of it. ONE_ITEM is 1 at every pixel, for sums over pixels. All are in half 0.
constexpr int PATCH = 12, ONE_ITEM = 3;
constexpr bool is_pixel(int item) { return item % 4 < 3; }
constexpr int patch_tap(int item) { return item / 4 * 3 + item % 4; }
// Indices of the bytes of a patch, as a record, in three rows of eight pixels and eight ones; the
// patch's first pixel is the k-th of each row.
struct PatchBytes {
  alignas(64) uint8_t index[6][64];
  __mmask64 used;
  constexpr PatchBytes() : index(), used(0) {
    for (int item = 0; item < PATCH; item++) {
      if (!is_pixel(item) && item != ONE_ITEM) continue;
      for (int byte = 0; byte < 2; byte++) {
        const int at = 2 * side_by_side(0, item) + byte;
        used |= 1ULL << at;
        for (int k = 0; k < 6; k++)
          index[k][at] = uint8_t(item == ONE_ITEM ? 48 + byte : item / 4 * 16 + 2 * (item % 4 + k) + byte);
      }
    }
  }
};
constexpr PatchBytes patch_bytes;
// Products of patches with patches are one tile; those of patches with 32 channels are two.
constexpr int STEM_WEIGHTS = 18 * 9 + 14;  // rounded up to a multiple of 16
constexpr int PATCH_SUMS = 256, STEM_SUMS = 2 * 256;

// One image's records; those between pixels stay zero. A tile of every second pixel of a short row
// extends beyond them.
template <class G>
struct Plane {
  Buffer<Record> buffer{size_t(G::FLAT) + 2 * G::LEAD + 32};
  Record* const at = buffer.start + G::LEAD;
};
// One image's pairs of pixels, (2 i, 2 i + 1) and (2 i + 1, 2 i + 2).
template <class G>
struct Pairs {
  static constexpr size_t EACH = G::FLAT / 2 + G::LEAD;
  Buffer<Pair> even{EACH}, odd{EACH};
  Pair* const at[2] = {even.start + G::LEAD / 2, odd.start + G::LEAD / 2};

  // Takes the even pixels of x.
  void read(const Record* x) {
    for (int i = 0; i < G::COUNT / 2; i++) {
      const __m512i first = load(x[2 * i]), second = load(x[2 * i + 1]);
      at[0][i].store(0, _mm512_unpacklo_epi16(first, second));
      at[0][i].store(1, _mm512_unpackhi_epi16(first, second));
    }
  }
  // Reads x, which has 18 channels and zeros before, between and after the rows. Half 0 gets the first
  // sixteen channels; half 1 gets the last two, one kernel column to the left, here, and one to the
  // right.
  void read_18(const Record* x) {
    constexpr int R = G::REACH;
    __m128i last_two[2 * R] = {};  // those of the previous pairs
    __m512i here = load(x[-1]);
    for (int p = -1; p < G::COUNT + 2 * R; p++) {
      const __m512i next = load(x[p + 1]);
      pair(p).store(0, _mm512_unpacklo_epi16(here, next));
      const __m128i two = _mm_move_epi64(
          _mm_unpackhi_epi16(_mm512_castsi512_si128(here), _mm512_castsi512_si128(next)));
      const __m128i left_and_here = _mm_unpacklo_epi64(last_two[0], last_two[R]);
      _mm256_store_si256(reinterpret_cast<__m256i*>(pair(p - R).half[1]),
                         _mm256_set_m128i(two, left_and_here));
      for (int k = 0; k + 1 < 2 * R; k++) last_two[k] = last_two[k + 1];
      last_two[2 * R - 1] = two;
      here = next;
    }
  }
  Pair& pair(int p) { return at[p & 1][p >> 1]; }
};
template <class G>
struct Scratch {
  Plane<G> x, d;
  Pairs<G> pairs;
  Buffer<u16> transposed{size_t(G::BLOCKS) * 2 * TILE};

  // Writes a plane's records to `transposed`, block by block, the first `halves` halves.
  void transpose_block(const Record* from, int block, int halves = 2) {
    Pair two[16];
    for (int k = 0; k < 16; k++) {
      const __m512i first = load(from[block * 32 + 2 * k]), second = load(from[block * 32 + 2 * k + 1]);
      two[k].store(0, _mm512_unpacklo_epi16(first, second));
      if (halves == 2) two[k].store(1, _mm512_unpackhi_epi16(first, second));
    }
    for (int h = 0; h < halves; h++)
      transpose(two, h, transposed.start + (halves * block + h) * TILE);
  }
  void transpose_all(const Record* from, int halves = 2) {
    for (int block = 0; block < G::BLOCKS; block++) transpose_block(from, block, halves);
  }
};

struct Worker {
  Scratch<S28> s28;
  Scratch<S14> s14;
  Scratch<S7> s7;
  Scratch<Two<S28>> two28;
  Scratch<Two<S14>> two14;
  Plane<S28> g28;
  Plane<S14> patches14;
};

// An image's pixels in bfloat16, with its zeros, and room for a load of eight at the last pixel.
constexpr int PLAIN = S28::FLAT + 2 * S28::LEAD + 32;

// The weights as the products read them, forward and for the gradients of inputs.
struct Packed {
  alignas(64) u16 forward[LAYERS][9 * 2 * TILE] = {}, backward[LAYERS][9 * 2 * TILE] = {};
  alignas(64) float stem[PATCH][32] = {};    // rounded to bfloat16
  alignas(64) float signs[LAYERS][32] = {};  // signs of batch norm's scales: -0 where negative
};

class AmxNetwork : public Network {
 public:
  explicit AmxNetwork(int capacity, Packed* packed = nullptr)
      : Network(capacity, Sums::FLOATS, weight_tiles(BLOCK1) * 256),
        own_packed_(packed ? nullptr : new Packed),
        packed_(packed ? packed : own_packed_.get()),
        skip_gradient_(size_t(capacity) * S14::FLAT),
        plain_pixels_(size_t(capacity) * PLAIN),
        choices28_(size_t(capacity) * S14::FLAT * 2),
        choices14_(size_t(capacity) * S7::FLAT * 2),
        patch_products_(size_t(capacity) * PATCH_SUMS),
        stem_sums_(size_t(pieces(capacity)) * STEM_SUMS) {
    claimed();  // requests the tiles; without that, their first use ends the process
    for (int l = 0; l < LAYERS; l++) {
      raw_[l] = static_cast<Record*>(zeroed(size_t(capacity) * RECORDS[l] * sizeof(Record)));
      gradient_[l] = static_cast<Record*>(zeroed(size_t(capacity) * RECORDS[l] * sizeof(Record)));
    }
  }
  ~AmxNetwork() override {
    for (int l = 0; l < LAYERS; l++) std::free(raw_[l]), std::free(gradient_[l]);
  }

  Network* sibling(int capacity) const override { return new AmxNetwork(capacity, packed_); }

  int slot(int layer, int channel) const override { return slot_of(layer, channel); }

  int weight_floats(int layer) const override {
    return layer == STEM ? STEM_WEIGHTS : weight_tiles(layer) * 256;
  }

  int place(int layer, int output, int input, int tap) const override {
    if (layer == STEM) return output * 9 + tap;
    const Place row = placed(slot_of(layer, output));
    Place column{input, tap};
    if (TAPS[layer] == 1)
      column = {placed(input).k, placed(input).half};
    else if (input >= 16)
      column = {tap % 3 * 2 + input - 16, 9 + tap / 3};
    const int tile = row.half * weight_tiles(layer) / 2 + column.half;
    return tile * 256 + row.k * 16 + column.k;
  }

  void pack(const Parameters& parameters) override {
    pool().run(LAYERS, [&](int, int l) {
      const int taps = TAPS[l], outputs = CHANNELS[l], inputs = FAN_IN[l] / taps;
      const float* k = parameters.weights[l];
      Packed& to = *packed_;
      for (int o = 0; o < outputs; o++)
        to.signs[l][slot_of(l, o)] = std::signbit(parameters.gamma[l][o]) ? -0.f : 0.f;
      if (l == STEM) {
        for (int item = 0; item < PATCH; item++)
          for (int o = 0; o < outputs; o++) {
            const float weight =
                is_pixel(item) ? from_bf16(to_bf16(k[o * 9 + patch_tap(item)])) : 0;
            to.stem[item][slot_of(l, o)] = weight;
            pack(to.forward[l], 0, side_by_side(0, item), slot_of(l, o), weight);
          }
        return;
      }
      // torch's [output][input][tap]; for gradients of inputs, inputs and outputs swap and the taps reverse.
      for (int o = 0; o < outputs; o++)
        for (int c = 0; c < inputs; c++)
          for (int t = 0; t < taps; t++) {
            const int from = slot_of(l - 1, c), into = slot_of(l, o);
            pack(to.forward[l], t, from, into, *k);
            pack(to.backward[l], taps - 1 - t, into, from, *k++);
          }
    });
  }

  void kept(int layer, int i, uint8_t* to) const override {
    const Dropout dropout = this->dropout(layer, i);
    const int side = layer <= BLOCK1 ? 28 : layer == BLOCK2 ? 14 : 7;
    const int pitch = layer <= BLOCK1 ? S28::PITCH : layer == BLOCK2 ? S14::PITCH : S7::PITCH;
    for (int c = 0; c < CHANNELS[layer]; c++)
      for (int y = 0; y < side; y++)
        for (int x = 0; x < side; x++) *to++ = kept_record(dropout, y * pitch + x) >> slot_of(layer, c) & 1;
  }

 protected:
  // torch's own kernels set other tile shapes on the same thread, and expect to find them again.
  void begin_turn() const override {
    before_ = TileShapes::now();
    TileShapes::all_full().load();
  }
  void end_turn() const override { before_.load(); }

  void grow_workers(int threads) override {
    while (int(workers_.size()) < threads) workers_.push_back(std::make_unique<Worker>());
  }

  double sum(const float* sums, int slot, int which) const override {
    return sums[which * 32 + slot];
  }

  void add(const float* from, int count, float* to) const override {
    for (int k = 0; k < count; k += WIDTH) native::store(to + k, native::load(to + k) + native::load(from + k));
  }

  // The stem's gradient follows from the sums of block 1's backward pass.
  bool sums_weights(int layer) const override { return layer != STEM; }

  void convolve_layer(int thread, int layer, int i, const float* image, float* sums) override {
    Worker& w = *workers_[thread];
    switch (layer) {
      case STEM:
        read_image(image, i);
        if (sums) multiply_patches(i, sums);
        return;
      case BLOCK1:
        activate_stem(w, i);
        return convolve_to_raw<S28, Nine<S28>>(layer, i, w.s28.x.at, sums);
      case TRANSITION1:
        return convolve_to_pooled<S28, S14>(layer, i, w.two28, sums);
      case BLOCK2:
        read_block2(w, i);
        return convolve_to_raw<S14, Nine<S14>>(layer, i, w.s14.x.at, sums);
      case TRANSITION2:
        return convolve_to_pooled<S14, S7>(layer, i, w.two14, sums);
      case BLOCK3:
        activate<S7>(TRANSITION2, i, w.s7.x.at);
        return convolve_to_raw<S7, Nine<S7>>(layer, i, w.s7.x.at, sums);
      case CLASSIFIER:
        activate<S7>(BLOCK3, i, w.s7.x.at);
        return convolve_to_raw<S7, One>(layer, i, w.s7.x.at, sums);
    }
  }

  void backward_layer(int thread, int layer, int i, float* sums, float* weight_sums) override {
    Worker& w = *workers_[thread];
    switch (layer) {
      case CLASSIFIER:
        activate<S7>(BLOCK3, i, w.s7.x.at);
        through_norm(layer, i, w.s7);
        return finish<S7, One>(layer, BLOCK3, i, w.s7, sums, weight_sums);
      case BLOCK3:
        activate<S7>(TRANSITION2, i, w.s7.x.at);
        through_norm(layer, i, w.s7);
        return finish<S7, Nine<S7>>(layer, TRANSITION2, i, w.s7, sums, weight_sums);
      case TRANSITION2:
        return finish_transition<S14, S7>(layer, i, w.two14, sums, weight_sums);
      case BLOCK2:
        read_block2(w, i);
        through_norm(layer, i, w.s14);
        return finish<S14, Nine<S14>>(layer, TRANSITION1, i, w.s14, sums, weight_sums);
      case TRANSITION1:
        return finish_transition<S28, S14>(layer, i, w.two28, sums, weight_sums);
      case BLOCK1:
        activate_stem(w, i);
        through_norm(layer, i, w.s28);
        return finish_with_stem(w, i, sums, weight_sums);
    }
  }

  void average_pixels(int i, float* logits) override {
    const Activation activation(norm_[CLASSIFIER], {});
    const Record* y = raw(CLASSIFIER, i);
    __m512 sum = _mm512_setzero_ps();
    each_pixel<S7>([&](int p) { sum = _mm512_add_ps(sum, activation(unpacked(y[p]), p).v[0]); });
    _mm512_mask_storeu_ps(logits, 0x3ff, _mm512_div_ps(sum, _mm512_set1_ps(S7::PIXELS)));
  }
  void spread_over_pixels(int i, const float* d_logits, float* sums) override {
    const Activation activation(norm_[CLASSIFIER], {});
    const Record* y = raw(CLASSIFIER, i);
    Record* to = gradient(CLASSIFIER, i);
    const Pixel d{{_mm512_div_ps(_mm512_maskz_loadu_ps(0x3ff, d_logits), _mm512_set1_ps(S7::PIXELS)),
                   _mm512_setzero_ps()}};
    Sums added;
    each_pixel<S7>([&](int p) {
      const Pixel raw = unpacked(y[p]);
      Record x;
      store(x, packed(activation(raw, p)));
      const Pixel gated = activation.gate(d, x);
      store(to[p], packed(gated));
      added.add(gated, raw);
    });
    added.add_to(sums);
  }

 private:
  Record* raw(int layer, int i) { return raw_[layer] + size_t(i) * RECORDS[layer]; }
  Record* gradient(int layer, int i) { return gradient_[layer] + size_t(i) * RECORDS[layer]; }
  Record* skip_gradient(int i) { return skip_gradient_.start + size_t(i) * S14::FLAT; }
  // Masks of the pixels that the pooling of a transition chose: [pixel][half of the channels].
  Choice* choices(int layer, int i) {
    return layer == TRANSITION1 ? choices28_.start + size_t(i) * S14::FLAT * 2
                                : choices14_.start + size_t(i) * S7::FLAT * 2;
  }
  u16* plain_pixels(int i) { return plain_pixels_.start + size_t(i) * PLAIN + S28::LEAD; }

  static void pack(u16* to, int tap, int input, int output, float weight) {
    to[((tap * 2 + output / 16) * 16 + input / 2) * 32 + output % 16 * 2 + input % 2] =
        u16(to_bf16(weight));
  }

  void read_image(const float* image, int i) {
    u16* plain = plain_pixels(i);
    for (int y = 0; y < 28; y++) {
      const float* row = image + y * 28;
      u16* to = plain + y * S28::PITCH;
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(to),
                          (__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(row)));
      _mm256_mask_storeu_epi16(
          to + 16, 0xfff, (__m256i)_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(0xfff, row + 16)));
    }
  }
  // The patches of COUNT pixels p, p + step, ... of a row. They lie within eight pixels from p - 1 on,
  // which are loaded for each of three rows, so each patch is one shuffle.
  template <int STEP, int COUNT>
  [[gnu::always_inline]] static void read_patches(const u16* plain, Record* to) {
    static_assert((COUNT - 1) * STEP + 2 < 8);
    auto row = [&](int r) {
      return _mm_loadu_si128(reinterpret_cast<const __m128i*>(plain + r * S28::PITCH - 1));
    };
    __m512i rows = _mm512_castsi128_si512(row(-1));
    rows = _mm512_inserti32x4(rows, row(0), 1);
    rows = _mm512_inserti32x4(rows, row(1), 2);
    rows = _mm512_inserti32x4(rows, _mm_set1_epi16(0x3f80), 3);
#pragma GCC unroll 4
    for (int k = 0; k < COUNT; k++)
      store(to[k], _mm512_maskz_permutexvar_epi8(patch_bytes.used,
                                                 _mm512_load_si512(patch_bytes.index[k * STEP]), rows));
  }
  // Index of tap t of the stem's kernel in a patch, and the pixel at that tap.
  static constexpr int tap_item(int t) { return t / 3 * 4 + t % 3; }
  static constexpr int tap_shift(int t) { return S28::tap(t); }
  // products[a][b] = sum over the pixels of item a times item b of their patches.
  void multiply_items(int i, float* products) {
    const u16* plain = plain_pixels(i);
    auto items = [&](int block, int t) { return plain + block * 32 + tap_shift(t); };
    std::memset(products, 0, PATCH_SUMS * sizeof(float));
    // Products of a row of taps with itself and with an earlier row, and the sums of the items.
    for (int r = 0; r < 3; r++)
      for (int q = 0; q <= r; q++) {
        __m512 with[3][3], alone[3];
        for (int k = 0; k < 3; k++) {
          alone[k] = _mm512_setzero_ps();
          for (int l = 0; l < 3; l++) with[k][l] = _mm512_setzero_ps();
        }
        const __m512bh ones = __m512bh(_mm512_set1_epi16(0x3f80));
        for (int block = 0; block < S28::BLOCKS; block++) {
          __m512bh other[3];
          for (int l = 0; l < 3; l++) other[l] = __m512bh(_mm512_loadu_si512(items(block, 3 * q + l)));
          for (int k = 0; k < 3; k++) {
            const __m512bh here =
                __m512bh(_mm512_maskz_loadu_epi16(S28::masks.m[block], items(block, 3 * r + k)));
            for (int l = 0; l < 3; l++) with[k][l] = _mm512_dpbf16_ps(with[k][l], here, other[l]);
            if (q == r) alone[k] = _mm512_dpbf16_ps(alone[k], here, ones);
          }
        }
        for (int k = 0; k < 3; k++) {
          const int a = tap_item(3 * r + k);
          for (int l = 0; l < 3; l++) {
            const int b = tap_item(3 * q + l);
            products[a * 16 + b] = products[b * 16 + a] = _mm512_reduce_add_ps(with[k][l]);
          }
          if (q == r)
            products[a * 16 + ONE_ITEM] = products[ONE_ITEM * 16 + a] =
                _mm512_reduce_add_ps(alone[k]);
        }
      }
    products[ONE_ITEM * 16 + ONE_ITEM] = S28::PIXELS;
  }
  // Computes the stem's sums of y and y * y over the image from those of its patches, in which y is
  // linear.
  void multiply_patches(int i, float* sums) {
    float* products = patch_products_.start + size_t(i) * PATCH_SUMS;
    multiply_items(i, products);
    Sums added;
    for (int c = 0; c < PATCH; c++) {
      const Pixel wc = channels(packed_->stem[c]);
      const __m512 one = _mm512_set1_ps(products[c * 16 + ONE_ITEM]);
      for (int h = 0; h < 2; h++) added.sum.v[h] = _mm512_fmadd_ps(wc.v[h], one, added.sum.v[h]);
      Pixel inner{};
      for (int k = 0; k < PATCH; k++) {
        const Pixel wk = channels(packed_->stem[k]);
        const __m512 product = _mm512_set1_ps(products[c * 16 + k]);
        for (int h = 0; h < 2; h++) inner.v[h] = _mm512_fmadd_ps(wk.v[h], product, inner.v[h]);
      }
      for (int h = 0; h < 2; h++)
        added.dot.v[h] = _mm512_fmadd_ps(wc.v[h], inner.v[h], added.dot.v[h]);
    }
    added.add_to(sums);
  }

  // Convolves the whole image of the layer, or its rows from one on.
  template <class G>
  void activate(int layer, int i, Record* to, int row = 0) {
    const Activation activation(norm_[layer], dropout(layer, i));
    const int start = row * G::PITCH;
    const Record* y = raw(layer, i) + start;
    each_pixel<G>([&](int p) { store(to[p], packed(activation(unpacked(y[p]), start + p))); });
  }
  void activate_stem(Worker& w, int i) {
    const Activation activation(norm_[STEM], dropout(STEM, i));
    const u16* plain = plain_pixels(i);
    Record* to = w.s28.x.at;
    alignas(64) Record patches[32];
    for (int block = 0; block < S28::BLOCKS; block++) {
      for (int k = 0; k < 32; k += 4) read_patches<1, 4>(plain + block * 32 + k, patches + k);
      convolve_block<S28, One>(block, patches, packed_->forward[STEM],
                               [&](int p, const Pixel& y) __attribute__((always_inline)) {
                                 store(to[p], packed(activation(y, p)));
                               });
    }
  }
  // Transition 1 pooled, plus the stem's output at every second pixel.
  void read_block2(Worker& w, int i) {
    auto source = [](int p) { return S28::at(2 * (p / S14::PITCH), 2 * (p % S14::PITCH)); };
    const u16* plain = plain_pixels(i);
    for (int y = 0; y < 14; y++)
      for (int x = 0; x < 14; x += 2) {
        const int p = S14::at(y, x);
        read_patches<2, 2>(plain + source(p), w.patches14.at + p);
      }
    const Activation pooled(norm_[TRANSITION1], {}), skipped(norm_[STEM], dropout(STEM, i));
    const Record* y = raw(TRANSITION1, i);
    Record* to = w.s14.x.at;
    convolve<S14, One>(w.patches14.at, packed_->forward[STEM],
                       [&](int p, const Pixel& stem) __attribute__((always_inline)) {
                         const Pixel a = pooled(unpacked(y[p]), p), b = skipped(stem, source(p));
                         store(to[p], packed({{_mm512_add_ps(a.v[0], b.v[0]),
                                               _mm512_add_ps(a.v[1], b.v[1])}}));
                       });
  }
  template <class G, class Taps>
  void convolve_to_raw(int layer, int i, const Record* x, float* sums) {
    Record* y = raw(layer, i);
    Sums added;
    convolve<G, Taps>(x, packed_->forward[layer], [&](int p, const Pixel& c) __attribute__((always_inline)) {
      store(y[p], packed(c));
      added.add(c, c);
    });
    if (sums) added.add_to(sums);
  }
  // Batch norm is monotonic: which output will be the largest follows from the sign of its scale,
  // which is known before the statistics. This takes two rows at a time, which stay in L1 cache.
  template <class G, class H>
  void convolve_to_pooled(int layer, int i, Scratch<Two<G>>& s, float* sums) {
    const Pixel sign = channels(packed_->signs[layer]);
    Sums added;
    for (int row = 0; row < H::SIDE; row++) {
      activate<Two<G>>(layer - 1, i, s.x.at, 2 * row);
      Record* to = raw(layer, i) + H::at(row, 0);
      Choice* choice = choices(layer, i) + 2 * H::at(row, 0);
      convolve_by_twos<G>(s.x.at, packed_->forward[layer], [&](int p, const Pixel (&y)[4])
                          __attribute__((always_inline)) {
        Pixel chosen;
        for (int h = 0; h < 2; h++) {
          __m512 signed_y[4];
          for (int q = 0; q < 4; q++) {
            signed_y[q] = _mm512_xor_ps(y[q].v[h], sign.v[h]);
            added.sum.v[h] = _mm512_add_ps(added.sum.v[h], y[q].v[h]);
            added.dot.v[h] = _mm512_fmadd_ps(y[q].v[h], y[q].v[h], added.dot.v[h]);
          }
          const __m512 upper = _mm512_max_ps(signed_y[0], signed_y[1]),
                       lower = _mm512_max_ps(signed_y[2], signed_y[3]);
          const __mmask16 high = _mm512_cmp_ps_mask(lower, upper, _CMP_GT_OQ),
                          right0 = _mm512_cmp_ps_mask(signed_y[1], signed_y[0], _CMP_GT_OQ),
                          right1 = _mm512_cmp_ps_mask(signed_y[3], signed_y[2], _CMP_GT_OQ);
          choice[2 * p + h] = {__mmask16((right0 & ~high) | (right1 & high)), high};
          chosen.v[h] = _mm512_xor_ps(_mm512_max_ps(upper, lower), sign.v[h]);
        }
        store(to[p], packed(chosen));
      });
    }
    if (sums) added.add_to(sums);
  }

  // Computes the gradient of the raw outputs, in place and transposed.
  template <class G>
  void through_norm(int layer, int i, Scratch<G>& s) {
    const ThroughNorm through(norm_[layer]);
    const Record *dy = gradient(layer, i), *y = raw(layer, i);
    for (int block = 0; block < G::BLOCKS; block++) {
      each_pixel<G>(block, [&](int p) {
        store(s.d.at[p], packed(through(unpacked(dy[p]), unpacked(y[p]))));
      });
      s.transpose_block(s.d.at, block);
    }
  }
  // Backward pass through a transition. Its outputs are computed again, because only the chosen ones
  // are stored. This also takes two rows at a time.
  template <class G, class H>
  void finish_transition(int layer, int i, Scratch<Two<G>>& s, float* sums, float* weight_sums) {
    const int before = layer - 1;
    const ThroughNorm through(norm_[layer]);
    const Activation activation(norm_[before], dropout(before, i));
    Sums added;
    for (int row = 0; row < H::SIDE; row++) {
      activate<Two<G>>(before, i, s.x.at, 2 * row);
      const Record* dy = gradient(layer, i) + H::at(row, 0);
      const Choice* choice = choices(layer, i) + 2 * H::at(row, 0);
      convolve_by_twos<G>(s.x.at, packed_->forward[layer], [&](int p, const Pixel (&y)[4])
                          __attribute__((always_inline)) {
        const Pixel chosen = unpacked(dy[p]);
        const Choice choices[2] = {choice[2 * p], choice[2 * p + 1]};
#pragma GCC unroll 4
        for (int q = 0; q < 4; q++) {
          Pixel all = affine(y[q], through.b, through.c);
          for (int h = 0; h < 2; h++)
            all.v[h] = _mm512_mask3_fmadd_ps(chosen.v[h], through.a.v[h], all.v[h], choices[h].is(q));
          store(s.d.at[G::at(q / 2, 2 * p + q % 2)], packed(all));
        }
      });
      s.transpose_all(s.d.at);
      s.pairs.read(s.x.at);
      weight_gradient<Two<G>>(s.transposed.start, s.pairs.at[0], weight_sums);
      const Record* y = raw(before, i) + G::at(2 * row, 0);
      Record* to = gradient(before, i) + G::at(2 * row, 0);
      convolve<Two<G>, One>(s.d.at, packed_->backward[layer], [&](int p, const Pixel& c)
                            __attribute__((always_inline)) {
        const Pixel raw = unpacked(y[p]), gated = activation.gate(c, s.x.at[p]);
        store(to[p], packed(gated));
        added.add(gated, raw);
      });
    }
    added.add_to(sums);
  }
  // Takes the gradient of `layer`'s raw outputs (s.d, and transposed) and its input (s.x). Adds to the
  // gradient of its weights, and computes the gradient of the layer before it.
  template <class G, class Taps>
  void finish(int layer, int before, int i, Scratch<G>& s, float* sums, float* weight_sums) {
    if constexpr (Taps::N == 9) {
      s.pairs.read_18(s.x.at);
      weight_gradient_18<G>(s.transposed.start, s.pairs.at, weight_sums);
    } else {
      s.pairs.read(s.x.at);
      weight_gradient<G>(s.transposed.start, s.pairs.at[0], weight_sums);
    }
    // x is the activation of the layer before, except for block 2, whose input is a sum.
    const bool sum = layer == BLOCK2;
    const Activation activation(norm_[before], dropout(before, i));
    const Record* y = raw(before, i);
    Record *to = gradient(before, i), *skip = skip_gradient(i);
    Sums added;
    convolve<G, Taps>(s.d.at, packed_->backward[layer], [&](int p, const Pixel& c)
                      __attribute__((always_inline)) {
      const Pixel raw = unpacked(y[p]);
      Record x;
      if (sum) {
        store(skip[p], packed(c));
        store(x, packed(activation(raw, p)));
      }
      const Pixel gated = activation.gate(c, sum ? x : s.x.at[p]);
      store(to[p], packed(gated));
      added.add(gated, raw);
    });
    added.add_to(sums);
  }
  // The patches of a block of pixels, [item][32 pixels]: the image, shifted by each tap.
  void transpose_patches(int i, u16* to) {
    const u16* plain = plain_pixels(i);
    for (int block = 0; block < S28::BLOCKS; block++, to += TILE) {
      for (int t = 0; t < 9; t++)
        _mm512_store_si512(to + tap_item(t) * 32,
                           _mm512_loadu_si512(plain + block * 32 + tap_shift(t)));
      _mm512_store_si512(to + ONE_ITEM * 32, _mm512_set1_epi16(0x3f80));
    }
  }
  // The same for block 1, and the whole backward pass of the stem. The stem's raw outputs are linear
  // in its patches, so its gradients follow from the products of patches with the gradient of its
  // activations.
  void finish_with_stem(Worker& w, int i, float* sums, float* weight_sums) {
    Scratch<S28>& s = w.s28;
    s.pairs.read_18(s.x.at);
    weight_gradient_18<S28>(s.transposed.start, s.pairs.at, weight_sums);
    const Activation activation(norm_[STEM], dropout(STEM, i));
    const Record* skip = skip_gradient(i);
    Record* to = w.g28.at;
    convolve<S28, Nine<S28>>(s.d.at, packed_->backward[BLOCK1], [&](int p, Pixel c)
                             __attribute__((always_inline)) {
      if (p / S28::PITCH % 2 == 0 && p % S28::PITCH % 2 == 0) {
        const Pixel more = unpacked(skip[S14::at(p / S28::PITCH / 2, p % S28::PITCH / 2)]);
        for (int h = 0; h < 2; h++) c.v[h] = _mm512_add_ps(c.v[h], more.v[h]);
      }
      store(to[p], packed(activation.gate(c, s.x.at[p])));
    });
    transpose_patches(i, s.transposed.start);
    s.pairs.read(w.g28.at);
    alignas(64) float products[STEM_SUMS];
    products_of_half<S28>(s.transposed.start, s.pairs.at[0], products, products + 256);
    float* all = stem_sums_.start + size_t(i / PIECE) * STEM_SUMS;
    if (i % PIECE == 0) std::memset(all, 0, STEM_SUMS * sizeof(float));
    for (int k = 0; k < STEM_SUMS; k++) all[k] += products[k];
    for (int o = 0; o < CHANNELS[STEM]; o++) {
      const int slot = slot_of(STEM, o);
      sums[slot] += stem_sum(products, ONE_ITEM, o);
      for (int c = 0; c < PATCH; c++) sums[32 + slot] += packed_->stem[c][slot] * stem_sum(products, c, o);
    }
  }
  static float stem_sum(const float* products, int item, int o) {
    const Place column = placed(slot_of(STEM, o));
    return products[column.half * 256 + item * 16 + column.k];
  }
  // d raw = a * dy + b * y + c, y = w . patch, all multiplied by the patch and summed.
  void add_weight_gradient(int, float* to) override {
    const Norm& norm = norm_[STEM];
    for (int k = 0; k < PATCH; k++) {
      if (!is_pixel(k)) continue;
      double with[PATCH] = {};
      for (int i = 0; i < count(); i++)
        for (int c = 0; c < PATCH; c++)
          with[c] += patch_products_.start[size_t(i) * PATCH_SUMS + k * 16 + c];
      for (int o = 0; o < CHANNELS[STEM]; o++) {
        const int slot = slot_of(STEM, o);
        double dy = 0, y = 0;
        for (int piece = 0; piece < pieces(count()); piece++)
          dy += stem_sum(stem_sums_.start + size_t(piece) * STEM_SUMS, k, o);
        for (int c = 0; c < PATCH; c++) y += double(packed_->stem[c][slot]) * with[c];
        to[o * 9 + patch_tap(k)] += float(norm.a[slot] * dy + norm.b[slot] * y + norm.c[slot] * with[ONE_ITEM]);
      }
    }
  }

  Record* raw_[LAYERS];
  Record* gradient_[LAYERS];
  const std::unique_ptr<Packed> own_packed_;
  Packed* const packed_;  // its own, or those of the network that it is a sibling of
  Buffer<Record> skip_gradient_;  // gradient of block 2's input
  Buffer<u16> plain_pixels_;
  Buffer<Choice> choices28_, choices14_;
  Buffer<float> patch_products_;  // products of patches with patches, per image
  Buffer<float> stem_sums_;       // per piece
  std::vector<std::unique_ptr<Worker>> workers_;  // one per thread
  static thread_local TileShapes before_;
};

thread_local TileShapes AmxNetwork::before_;

double multiply(long rounds) {
  const TileShapes before = TileShapes::now();
  TileShapes::all_full().load();
  tile_zero<4>(), tile_zero<5>(), tile_zero<6>(), tile_zero<7>();
  for (long r = 0; r < rounds; r++) tile_dot<0, 4, 6>(), tile_dot<1, 4, 7>(), tile_dot<2, 5, 6>(), tile_dot<3, 5, 7>();
  before.load();
  return 2. * double(rounds) * 4 * 16 * 16 * 32;
}

Network* make_network(int capacity) { return new AmxNetwork(capacity); }

void probe() {
  const TileShapes before = TileShapes::now();
  TileShapes::all_full().load();
  tile_zero<0>(), tile_zero<1>(), tile_zero<2>();
  tile_dot<0, 1, 2>();
  before.load();
}

}  // namespace

extern const InstructionSet amx;
const InstructionSet amx = {"amx", claimed, probe, multiply, make_network, warp};

}  // namespace native
