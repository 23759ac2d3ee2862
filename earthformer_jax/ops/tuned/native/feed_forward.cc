// The feed-forward layer of a transformer block, x + drop(drop(gelu(n W1 + b1)) W2 +
// b2) with n the layer norm of x, and its gradient.
//
// A block of rows goes through the layer without leaving the core's cache. Only the
// input is kept for the gradient, which takes the blocks through the layer again.
//
// The arguments are described in feed_forward.py.

#include "dropout.h"
#include "layer.h"
#include "threads.h"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;
namespace earthformer {
namespace {

using F32 = ffi::Buffer<ffi::F32>;
using U32 = ffi::Buffer<ffi::U32>;
using Out = ffi::ResultBuffer<ffi::F32>;

constexpr int64_t kBlock = 96;  // rows

struct Options {
  float epsilon;
  int64_t threshold;                // dropout drops where 32 random bits are less
  float factor;                     // of what is not dropped
  int64_t hidden_numbers, numbers;  // drawn by the call after GELU, and in the end
  int64_t threads;
};

struct Arguments {
  F32 x;  // [examples, places, channels]
  F32 scale, offset, widen, widen_bias, narrow, narrow_bias;
  U32 example, hidden_words, words;

  int64_t places() const { return x.dimensions()[1]; }
  int64_t channels() const { return x.dimensions()[2]; }
  int64_t hidden() const { return widen.dimensions()[1]; }
  int64_t rows() const { return x.dimensions()[0] * places(); }
};

// The normal distribution function and density. The function is that of Abramowitz and
// Stegun 1964, formula 7.1.26, within 1e-7.
struct Normal {
  Floats below, density;

  explicit Normal(Floats x) {
    const Floats z = (x < 0.0f ? -x : x) * 0.70710678f;
    const Floats tail = exp(z * -z);
    const Floats t = 1.0f / (1.0f + 0.3275911f * z);
    Floats y = all(0.5f * 1.061405429f);
    y = y * t + 0.5f * -1.453152027f;
    y = y * t + 0.5f * 1.421413741f;
    y = y * t + 0.5f * -0.284496736f;
    y = y * t + 0.5f * 0.254829592f;
    const Floats beyond = y * t * tail;  // the probability of more than |x|
    below = x < 0.0f ? beyond : 1.0f - beyond;
    density = tail * 0.39894228f;
  }
};

class Layer {
 public:
  const Norm norm;

  Layer(const Arguments& given, const Options& options)
      : norm{given.scale.typed_data(), given.offset.typed_data(), options.epsilon,
             given.channels()},
        given_(given),
        hidden_dropout_(given.hidden_words.typed_data(),
                        given.hidden_words.element_count(), options.hidden_numbers,
                        options.threshold, options.factor),
        dropout_(given.words.typed_data(), given.words.element_count(), options.numbers,
                 options.threshold, options.factor) {}

  int64_t channels() const { return given_.channels(); }
  int64_t hidden() const { return given_.hidden(); }

  int64_t blocks() const { return (given_.rows() + kBlock - 1) / kBlock; }

  // Calls use(first row, number of rows) for some of the blocks.
  template <typename Use>
  void each_block(int64_t first, int64_t last, Use use) const {
    for (int64_t row = first * kBlock; row < std::min(last * kBlock, given_.rows());
         row += kBlock)
      use(row, std::min(kBlock, given_.rows() - row));
  }

  Floats hidden_factors(int64_t row, int64_t column) const {
    return factors(hidden_dropout_, row, hidden(), column);
  }
  Floats factors_at(int64_t row, int64_t column) const {
    return factors(dropout_, row, channels(), column);
  }

 private:
  Floats factors(const Dropout& dropout, int64_t row, int64_t width,
                 int64_t column) const {
    if (!dropout.on()) return all(1.0f);
    const uint32_t places = given_.places();
    const uint32_t example = given_.example.typed_data()[row / places];
    const uint32_t place = example * places + static_cast<uint32_t>(row % places);
    return dropout.factors(counted(1) + (place * static_cast<uint32_t>(width) +
                                         static_cast<uint32_t>(column)));
  }

  const Arguments& given_;
  const Dropout hidden_dropout_, dropout_;
};

void forward(const Arguments& given, const Options& options, float* out) {
  const Layer layer(given, options);
  const int64_t c = given.channels(), h = given.hidden();
  Scratch weights(2 * c * h);
  const Panels widen({given.widen.typed_data(), h, 1}, c, h, weights);
  const Panels narrow({given.narrow.typed_data(), c, 1}, h, c, weights);
  in_shares(layer.blocks(), options.threads, [&](int64_t begin, int64_t end, int64_t) {
    Scratch scratch(2 * floats_of_block(kBlock, c) + floats_of_block(kBlock, h));
    const Rows normed = block(kBlock, c, scratch), result = block(kBlock, c, scratch);
    const Rows hidden = block(kBlock, h, scratch);
    layer.each_block(begin, end, [&](int64_t first, int64_t rows) {
      const float* x = given.x.typed_data() + first * c;
      for (int64_t row = 0; row < rows; row++)
        layer.norm.forward(x + row * c, result.row(row), normed.row(row));
      widen.multiply_by(normed, rows, hidden);
      for (int64_t row = 0; row < rows; row++)
        for (int64_t i = 0; i < h; i += kLanes) {
          const Floats up =
              load(hidden.row(row) + i) + load(given.widen_bias.typed_data() + i);
          store(hidden.row(row) + i,
                up * Normal(up).below * layer.hidden_factors(first + row, i));
        }
      narrow.multiply_by(hidden, rows, result);
      for (int64_t row = 0; row < rows; row++)
        for (int64_t i = 0; i < c; i += kLanes) {
          const Floats down =
              load(result.row(row) + i) + load(given.narrow_bias.typed_data() + i);
          store(out + (first + row) * c + i,
                load(x + row * c + i) + down * layer.factors_at(first + row, i));
        }
    });
  });
}

struct Gradients {
  float *x, *scale, *offset, *widen, *widen_bias, *narrow, *narrow_bias;
};

void backward(const Arguments& given, const Options& options, const float* dout,
              const Gradients& found) {
  const Layer layer(given, options);
  const int64_t c = given.channels(), h = given.hidden();
  Scratch weights(3 * c * h);
  const Panels widen({given.widen.typed_data(), h, 1}, c, h, weights);
  const Panels widen_turned({given.widen.typed_data(), 1, h}, h, c, weights);
  const Panels narrow_turned({given.narrow.typed_data(), 1, c}, c, h, weights);
  const int64_t parts = shares(layer.blocks(), options.threads);
  Sums dscale(found.scale, c, parts), doffset(found.offset, c, parts);
  Sums dwiden(found.widen, c * h, parts), dwiden_bias(found.widen_bias, h, parts);
  Sums dnarrow(found.narrow, c * h, parts), dnarrow_bias(found.narrow_bias, c, parts);
  in_shares(
      layer.blocks(), options.threads, [&](int64_t begin, int64_t end, int64_t part) {
        const Gradients sums{found.x,
                             dscale.of(part),
                             doffset.of(part),
                             dwiden.of(part),
                             dwiden_bias.of(part),
                             dnarrow.of(part),
                             dnarrow_bias.of(part)};
        Scratch scratch(4 * floats_of_block(kBlock, c) +
                        3 * floats_of_block(kBlock, h) + kBlock);
        const Rows normed = block(kBlock, c, scratch),
                   standard = block(kBlock, c, scratch);
        const Rows dresult = block(kBlock, c, scratch),
                   dnormed = block(kBlock, c, scratch);
        const Rows slope = block(kBlock, h, scratch),
                   hidden = block(kBlock, h, scratch);
        const Rows dhidden = block(kBlock, h, scratch);
        float* const inverse = scratch.take(kBlock);
        layer.each_block(begin, end, [&](int64_t first, int64_t rows) {
          const float* x = given.x.typed_data() + first * c;
          const float* gradient = dout + first * c;
          for (int64_t row = 0; row < rows; row++)
            inverse[row] =
                layer.norm.forward(x + row * c, standard.row(row), normed.row(row));
          widen.multiply_by(normed, rows, slope);
          for (int64_t row = 0; row < rows; row++) {
            for (int64_t i = 0; i < h; i += kLanes) {
              const Floats up =
                  load(slope.row(row) + i) + load(given.widen_bias.typed_data() + i);
              const Normal normal(up);
              const Floats factors = layer.hidden_factors(first + row, i);
              store(hidden.row(row) + i, up * normal.below * factors);
              store(slope.row(row) + i, (normal.below + up * normal.density) * factors);
            }
            for (int64_t i = 0; i < c; i += kLanes) {
              const Floats down =
                  load(gradient + row * c + i) * layer.factors_at(first + row, i);
              store(dresult.row(row) + i, down);
              add_to(sums.narrow_bias + i, down);
            }
          }
          multiply(hidden.matrix().turned(), h, rows, dresult, c, {sums.narrow, c},
                   true);
          narrow_turned.multiply_by(dresult, rows, dhidden);
          for (int64_t row = 0; row < rows; row++)
            for (int64_t i = 0; i < h; i += kLanes) {
              const Floats up = load(dhidden.row(row) + i) * load(slope.row(row) + i);
              store(dhidden.row(row) + i, up);
              add_to(sums.widen_bias + i, up);
            }
          multiply(normed.matrix().turned(), c, rows, dhidden, h, {sums.widen, h},
                   true);
          widen_turned.multiply_by(dhidden, rows, dnormed);
          for (int64_t row = 0; row < rows; row++) {
            layer.norm.backward(standard.row(row), inverse[row], dnormed.row(row),
                                sums.scale, sums.offset);
            for (int64_t i = 0; i < c; i += kLanes)
              store(sums.x + (first + row) * c + i,
                    load(gradient + row * c + i) + load(dnormed.row(row) + i));
          }
        });
      });
  for (Sums* sum : {&dscale, &doffset, &dwiden, &dwiden_bias, &dnarrow, &dnarrow_bias})
    sum->add_up();
}

ffi::Error call_forward(F32 x, F32 scale, F32 offset, F32 widen, F32 widen_bias,
                        F32 narrow, F32 narrow_bias, U32 example, U32 hidden_words,
                        U32 words, Out out, Options options) {
  forward({x, scale, offset, widen, widen_bias, narrow, narrow_bias, example,
           hidden_words, words},
          options, out->typed_data());
  return ffi::Error::Success();
}

ffi::Error call_backward(F32 x, F32 scale, F32 offset, F32 widen, F32 widen_bias,
                         F32 narrow, F32 narrow_bias, U32 example, U32 hidden_words,
                         U32 words, F32 dout, Out dx, Out dscale, Out doffset,
                         Out dwiden, Out dwiden_bias, Out dnarrow, Out dnarrow_bias,
                         Options options) {
  backward({x, scale, offset, widen, widen_bias, narrow, narrow_bias, example,
            hidden_words, words},
           options, dout.typed_data(),
           {dx->typed_data(), dscale->typed_data(), doffset->typed_data(),
            dwiden->typed_data(), dwiden_bias->typed_data(), dnarrow->typed_data(),
            dnarrow_bias->typed_data()});
  return ffi::Error::Success();
}

}  // namespace
}  // namespace earthformer

XLA_FFI_REGISTER_STRUCT_ATTR_DECODING(earthformer::Options,
                                      ffi::StructMember<float>("epsilon"),
                                      ffi::StructMember<int64_t>("threshold"),
                                      ffi::StructMember<float>("factor"),
                                      ffi::StructMember<int64_t>("hidden_numbers"),
                                      ffi::StructMember<int64_t>("numbers"),
                                      ffi::StructMember<int64_t>("threads"));

#define ARGUMENTS \
  Arg<F32>()      \
      .Arg<F32>() \
      .Arg<F32>() \
      .Arg<F32>() \
      .Arg<F32>() \
      .Arg<F32>() \
      .Arg<F32>() \
      .Arg<U32>() \
      .Arg<U32>() \
      .Arg<U32>()
namespace earthformer {
XLA_FFI_DEFINE_HANDLER_SYMBOL(feed_forward, call_forward,
                              ffi::Ffi::Bind().ARGUMENTS.Ret<F32>().Attrs<Options>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(feed_forward_gradient, call_backward,
                              ffi::Ffi::Bind()
                                  .ARGUMENTS.Arg<F32>()
                                  .Ret<F32>()
                                  .Ret<F32>()
                                  .Ret<F32>()
                                  .Ret<F32>()
                                  .Ret<F32>()
                                  .Ret<F32>()
                                  .Ret<F32>()
                                  .Attrs<Options>());
}  // namespace earthformer
