// The feed-forward layer of a transformer block, x + drop(drop(gelu(n W1 + b1)) W2 +
// b2) with n the layer norm of x, and its gradient.
//
// A block of rows goes through the layer without leaving the core's cache. Only the
// input is kept for the gradient, which takes the blocks through the layer again.
//
// The arguments are described in feed_forward.py.

#include "arrays.h"
#include "layer.h"
#include "threads.h"

namespace earthformer {
namespace {

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

// GELU, x times the normal distribution function, and its slope. The function is that
// of Abramowitz and Stegun 1964, formula 7.1.26, within 1e-7.
struct Gelu {
  Floats value, slope;

  explicit Gelu(Floats x) {
    const Floats size = (Floats)((Ints)x & 0x7fffffff);
    const Floats bell = exp2(at_least(-100.0f, x * x * (-0.5f * 1.44269504f)));
    const Floats t = 1.0f / (1.0f + 0.3275911f * 0.70710678f * size);
    Floats y = all(0.5f * 1.061405429f);
    y = y * t + 0.5f * -1.453152027f;
    y = y * t + 0.5f * 1.421413741f;
    y = y * t + 0.5f * -0.284496736f;
    y = y * t + 0.5f * 0.254829592f;
    const Floats beyond = y * t * bell;  // the probability of more than |x|
    const Ints positive = x > 0.0f;
    value = only_where(positive, x) - size * beyond;
    const Floats below_zero = beyond - size * (bell * 0.39894228f);  // slope at -|x|
    slope = positive ? 1.0f - below_zero : below_zero;
  }
};

// The weights of the layer, and what its rows are.
class Layer {
 public:
  Layer(const Arguments& given, const Options& options, Scratch& scratch)
      : norm{given.scale.typed_data(), given.offset.typed_data(), options.epsilon,
             given.channels()},
        widen({given.widen.typed_data(), given.hidden(), 1}, given.channels(),
              given.hidden(), scratch),
        given_(given),
        hidden_dropout_(dropout_of(given.hidden_words, options.hidden_numbers,
                                   options.threshold, options.factor)),
        dropout_(dropout_of(given.words, options.numbers, options.threshold,
                            options.factor)) {}

  const Norm norm;
  const Panels widen;

  int64_t channels() const { return given_.channels(); }
  int64_t hidden() const { return given_.hidden(); }
  const float* x() const { return given_.x.typed_data(); }
  const float* widen_bias() const { return given_.widen_bias.typed_data(); }
  int64_t blocks() const { return (given_.rows() + kBlock - 1) / kBlock; }

  // Calls use(first row, number of rows) for some of the blocks.
  template <typename Use>
  void each_block(int64_t begin, int64_t end, Use use) const {
    for (int64_t n = begin; n < end; n++)
      use(n * kBlock, std::min(kBlock, given_.rows() - n * kBlock));
  }

  // Dropout of a row: calls use(column, factors).
  template <typename Use>
  void each_hidden_factor(int64_t row, Use use) const {
    const uint32_t width = hidden();
    hidden_dropout_.each(place(row) * width, width, use);
  }
  template <typename Use>
  void each_factor(int64_t row, Use use) const {
    const uint32_t width = channels();
    dropout_.each(place(row) * width, width, use);
  }

 private:
  // Of a row among all of the call.
  uint32_t place(int64_t row) const {
    const uint32_t places = given_.places();
    const uint32_t example = given_.example.typed_data()[row / places];
    return example * places + static_cast<uint32_t>(row % places);
  }

  const Arguments& given_;
  const Dropout hidden_dropout_, dropout_;
};

void forward(const Arguments& given, const Options& options, Cores cores, float* out) {
  const int64_t c = given.channels(), h = given.hidden();
  Scratch weights(2 * c * h);
  const Layer layer(given, options, weights);
  const Panels narrow({given.narrow.typed_data(), c, 1}, h, c, weights);
  in_shares(layer.blocks(), cores, [&](int64_t begin, int64_t end, int64_t) {
    Scratch scratch(2 * floats_of_block(kBlock, c) + floats_of_block(kBlock, h));
    const Rows normed = block(kBlock, c, scratch), result = block(kBlock, c, scratch);
    const Rows hidden = block(kBlock, h, scratch);
    layer.each_block(begin, end, [&](int64_t first, int64_t rows) {
      const float* x = layer.x() + first * c;
      for (int64_t row = 0; row < rows; row++)
        layer.norm.forward(x + row * c, result.row(row), normed.row(row));
      layer.widen.multiply_by(normed, rows, hidden);
      for (int64_t row = 0; row < rows; row++) {
        float* const at = hidden.row(row);
        layer.each_hidden_factor(first + row, [&](int64_t i, Floats factors) {
          const Floats up = load(at + i) + load(layer.widen_bias() + i);
          store(at + i, Gelu(up).value * factors);
        });
      }
      narrow.multiply_by(hidden, rows, result);
      for (int64_t row = 0; row < rows; row++)
        layer.each_factor(first + row, [&](int64_t i, Floats factors) {
          const Floats down =
              load(result.row(row) + i) + load(given.narrow_bias.typed_data() + i);
          store(out + (first + row) * c + i, load(x + row * c + i) + down * factors);
        });
    });
  });
}

struct Gradients {
  float *x, *scale, *offset, *widen, *widen_bias, *narrow, *narrow_bias;
};

// Gradients of some of the blocks; those of weights are added to what is there.
class SharedGradient {
 public:
  SharedGradient(const Layer& layer, const Panels& widen_turned,
                 const Panels& narrow_turned, const float* dout, const Gradients& sums)
      : layer_(layer),
        widen_turned_(widen_turned),
        narrow_turned_(narrow_turned),
        dout_(dout),
        sums_(sums),
        scratch_(4 * floats_of_block(kBlock, layer.channels()) +
                 3 * floats_of_block(kBlock, layer.hidden()) + kBlock),
        normed_(block(kBlock, layer.channels(), scratch_)),
        standard_(block(kBlock, layer.channels(), scratch_)),
        dresult_(block(kBlock, layer.channels(), scratch_)),
        dnormed_(block(kBlock, layer.channels(), scratch_)),
        slope_(block(kBlock, layer.hidden(), scratch_)),
        hidden_(block(kBlock, layer.hidden(), scratch_)),
        dhidden_(block(kBlock, layer.hidden(), scratch_)),
        inverse_(scratch_.take(kBlock)) {}

  void add(int64_t begin, int64_t end) {
    layer_.each_block(begin, end, [&](int64_t first, int64_t rows) {
      to_hidden(first, rows);
      from_hidden(rows);
      to_field(first, rows);
    });
  }

 private:
  // The hidden layer, its slope, and the gradient of the result.
  void to_hidden(int64_t first, int64_t rows) {
    const int64_t c = layer_.channels();
    for (int64_t row = 0; row < rows; row++)
      inverse_[row] = layer_.norm.forward(layer_.x() + (first + row) * c,
                                          standard_.row(row), normed_.row(row));
    layer_.widen.multiply_by(normed_, rows, slope_);
    for (int64_t row = 0; row < rows; row++) {
      float *const slope = slope_.row(row), *const hidden = hidden_.row(row);
      layer_.each_hidden_factor(first + row, [&](int64_t i, Floats factors) {
        const Floats up = load(slope + i) + load(layer_.widen_bias() + i);
        const Gelu gelu(up);
        store(hidden + i, gelu.value * factors);
        store(slope + i, gelu.slope * factors);
      });
      layer_.each_factor(first + row, [&](int64_t i, Floats factors) {
        const Floats down = load(dout_ + (first + row) * c + i) * factors;
        store(dresult_.row(row) + i, down);
        add_to(sums_.narrow_bias + i, down);
      });
    }
  }

  // Gradients of weights, and of the norm of the field.
  void from_hidden(int64_t rows) {
    const int64_t c = layer_.channels(), h = layer_.hidden();
    multiply(hidden_.matrix().turned(), h, rows, dresult_, c, {sums_.narrow, c}, true);
    narrow_turned_.multiply_by(dresult_, rows, dhidden_);
    for (int64_t row = 0; row < rows; row++)
      for (int64_t i = 0; i < h; i += kLanes) {
        const Floats up = load(dhidden_.row(row) + i) * load(slope_.row(row) + i);
        store(dhidden_.row(row) + i, up);
        add_to(sums_.widen_bias + i, up);
      }
    multiply(normed_.matrix().turned(), c, rows, dhidden_, h, {sums_.widen, h}, true);
    widen_turned_.multiply_by(dhidden_, rows, dnormed_);
  }

  void to_field(int64_t first, int64_t rows) {
    const int64_t c = layer_.channels();
    for (int64_t row = 0; row < rows; row++) {
      layer_.norm.backward(standard_.row(row), inverse_[row], dnormed_.row(row),
                           sums_.scale, sums_.offset);
      const int64_t offset = (first + row) * c;
      for (int64_t i = 0; i < c; i += kLanes)
        store(sums_.x + offset + i,
              load(dout_ + offset + i) + load(dnormed_.row(row) + i));
    }
  }

  const Layer& layer_;
  const Panels &widen_turned_, &narrow_turned_;
  const float* const dout_;
  const Gradients sums_;
  Scratch scratch_;
  const Rows normed_, standard_, dresult_, dnormed_, slope_, hidden_, dhidden_;
  float* const inverse_;
};

void backward(const Arguments& given, const Options& options, Cores cores,
              const float* dout, const Gradients& found) {
  const int64_t c = given.channels(), h = given.hidden();
  Scratch weights(3 * c * h);
  const Layer layer(given, options, weights);
  const Panels widen_turned({given.widen.typed_data(), 1, h}, h, c, weights);
  const Panels narrow_turned({given.narrow.typed_data(), 1, c}, c, h, weights);
  const int64_t parts = shares(layer.blocks(), cores.count);
  Sums dscale(found.scale, c, parts), doffset(found.offset, c, parts);
  Sums dwiden(found.widen, c * h, parts), dwiden_bias(found.widen_bias, h, parts);
  Sums dnarrow(found.narrow, c * h, parts), dnarrow_bias(found.narrow_bias, c, parts);
  in_shares(layer.blocks(), cores, [&](int64_t begin, int64_t end, int64_t part) {
    const Gradients sums{found.x,
                         dscale.of(part),
                         doffset.of(part),
                         dwiden.of(part),
                         dwiden_bias.of(part),
                         dnarrow.of(part),
                         dnarrow_bias.of(part)};
    SharedGradient(layer, widen_turned, narrow_turned, dout, sums).add(begin, end);
  });
  for (Sums* sum : {&dscale, &doffset, &dwiden, &dwiden_bias, &dnarrow, &dnarrow_bias})
    sum->add_up();
}

ffi::Error call_forward(ffi::ThreadPool pool, F32 x, F32 scale, F32 offset, F32 widen,
                        F32 widen_bias, F32 narrow, F32 narrow_bias, U32 example,
                        U32 hidden_words, U32 words, Out out, Options options) {
  forward({x, scale, offset, widen, widen_bias, narrow, narrow_bias, example,
           hidden_words, words},
          options, {pool, options.threads}, out->typed_data());
  return ffi::Error::Success();
}

ffi::Error call_backward(ffi::ThreadPool pool, F32 x, F32 scale, F32 offset, F32 widen,
                         F32 widen_bias, F32 narrow, F32 narrow_bias, U32 example,
                         U32 hidden_words, U32 words, F32 dout, Out dx, Out dscale,
                         Out doffset, Out dwiden, Out dwiden_bias, Out dnarrow,
                         Out dnarrow_bias, Options options) {
  backward({x, scale, offset, widen, widen_bias, narrow, narrow_bias, example,
            hidden_words, words},
           options, {pool, options.threads}, dout.typed_data(),
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

#define ARGUMENTS        \
  Ctx<ffi::ThreadPool>() \
      .Arg<F32>()        \
      .Arg<F32>()        \
      .Arg<F32>()        \
      .Arg<F32>()        \
      .Arg<F32>()        \
      .Arg<F32>()        \
      .Arg<F32>()        \
      .Arg<U32>()        \
      .Arg<U32>()        \
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
