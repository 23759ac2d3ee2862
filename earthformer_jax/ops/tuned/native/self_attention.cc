// A layer of cuboid self-attention: layer norm, projections to queries, keys and
// values, attention inside cuboids, and the projection of its result; and its gradient.
//
// A few cuboids at a time are taken from the rows of the field, wherever they lie, to
// the rows of the update, without leaving the core's cache. Only the field is kept for
// the gradient, which takes the cuboids through the layer again.
//
// The arguments are described in self_attention.py.

#include "head.h"
#include "layer.h"
#include "threads.h"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;
namespace earthformer {
namespace {

using F32 = ffi::Buffer<ffi::F32>;
using S32 = ffi::Buffer<ffi::S32>;
using U32 = ffi::Buffer<ffi::U32>;
using Bools = ffi::Buffer<ffi::PRED>;
using Out = ffi::ResultBuffer<ffi::F32>;

constexpr int64_t kRows = 96;  // about so many rows are taken through the layer at once

struct Options {
  int64_t heads;
  float scale, epsilon;
  int64_t threshold, out_threshold;  // dropout drops where 32 random bits are less
  float factor, out_factor;          // of what is not dropped
  int64_t numbers, out_numbers;      // drawn by the call for weights, and in the end
  int64_t threads;
};

struct Arguments {
  F32 x;         // [examples, rows, channels]
  S32 position;  // [cuboids, queries]: their rows
  F32 norm_scale, norm_offset, qkv, proj, proj_bias, bias;
  Bools mask;
  U32 example, cuboid, words, out_words;

  int64_t examples() const { return x.dimensions()[0]; }
  int64_t rows() const { return x.dimensions()[1]; }
  int64_t channels() const { return x.dimensions()[2]; }
  int64_t cuboids() const { return position.dimensions()[0]; }
  int64_t queries() const { return position.dimensions()[1]; }
  int64_t biases() const {
    return bias.element_count() ? bias.dimensions()[0] * bias.dimensions()[1] : 0;
  }
};

// A few cuboids of one example.
struct Group {
  int64_t example, first, cuboids;
};

class Layer {
 public:
  Layer(const Arguments& given, const Options& options, Scratch& scratch)
      : norm{given.norm_scale.typed_data(), given.norm_offset.typed_data(),
             options.epsilon, given.channels()},
        sizes{given.queries(), given.queries(), 0, given.channels() / options.heads},
        biases(sizes, given.bias.typed_data(), given.biases(), scratch),
        dropout(given.words.typed_data(), given.words.element_count(), options.numbers,
                options.threshold, options.factor),
        given_(given),
        options_(options),
        out_dropout_(given.out_words.typed_data(), given.out_words.element_count(),
                     options.out_numbers, options.out_threshold, options.out_factor) {}

  const Norm norm;
  const HeadSizes sizes;
  const Biases biases;
  const Dropout dropout;

  static int64_t cuboids_at_once(const Arguments& given) {
    return std::max<int64_t>(1, kRows / given.queries());
  }

  int64_t groups() const { return given_.examples() * groups_of_example(); }

  // Calls use(group) for some of the groups.
  template <typename Use>
  void each_group(int64_t begin, int64_t end, Use use) const {
    const int64_t at_once = cuboids_at_once(given_), of_example = groups_of_example();
    for (int64_t n = begin; n < end; n++) {
      const int64_t first = n % of_example * at_once;
      use(Group{n / of_example, first, std::min(at_once, given_.cuboids() - first)});
    }
  }

  int64_t rows(const Group& group) const { return group.cuboids * sizes.queries; }

  // Where a row of a group lies in an array `[examples, rows, channels]`.
  int64_t offset(const Group& group, int64_t row) const {
    const int64_t position =
        given_.position.typed_data()[group.first * sizes.queries + row];
    return (group.example * given_.rows() + position) * given_.channels();
  }

  // Dropout of the update: a row's numbers follow those of all rows before it, in the
  // order of cuboids.
  Floats out_factors(const Group& group, int64_t row, int64_t column) const {
    if (!out_dropout_.on()) return all(1.0f);
    const uint32_t cuboid = number(group, row / sizes.queries);
    const uint32_t place = cuboid * sizes.queries + row % sizes.queries;
    return out_dropout_.factors(
        counted(1) + static_cast<uint32_t>(place * given_.channels() + column));
  }

  // Calls use(place, rows of this head, column of this head, number of the bias).
  template <typename Use>
  void each_head(const Group& group, Use use) const {
    const int64_t pairs = sizes.queries * sizes.queries, heads = options_.heads;
    for (int64_t cuboid = 0; cuboid < group.cuboids; cuboid++)
      for (int64_t head = 0; head < heads; head++) {
        const int64_t bias = bias_of(group.example, head);
        const bool* visible =
            given_.mask.element_count()
                ? given_.mask.typed_data() + (group.first + cuboid) * pairs
                : nullptr;
        const uint32_t count = number(group, cuboid) * heads + head;
        use(HeadPlace{biases.at(bias), visible, count}, cuboid * sizes.queries,
            head * sizes.width, bias);
      }
  }

 private:
  int64_t groups_of_example() const {
    const int64_t at_once = cuboids_at_once(given_);
    return (given_.cuboids() + at_once - 1) / at_once;
  }

  // Of a cuboid among all of the call.
  uint32_t number(const Group& group, int64_t cuboid) const {
    return given_.example.typed_data()[group.example] * given_.cuboids() +
           given_.cuboid.typed_data()[group.first + cuboid];
  }

  int64_t bias_of(int64_t example, int64_t head) const {
    if (!given_.biases()) return 0;
    const int64_t shares = given_.bias.dimensions()[0],
                  heads = given_.bias.dimensions()[1];
    return example * shares / given_.examples() * heads + (heads == 1 ? 0 : head);
  }

  const Arguments& given_;
  const Options& options_;
  const Dropout out_dropout_;
};

// Views of one head in blocks of projections and of results.
HeadRows head_of(Rows projections, int64_t row, int64_t column, int64_t channels) {
  const auto from = [&](int64_t first) {
    return Rows{projections.row(row) + first + column, projections.step};
  };
  return {from(0), from(channels), from(2 * channels), Rows{}, Rows{}, Rows{}};
}

Rows result_of(Rows results, int64_t row, int64_t column) {
  return {results.row(row) + column, results.step};
}

void forward(const Arguments& given, const Options& options, float* out) {
  const int64_t c = given.channels(), count = given.biases();
  const HeadSizes sizes{given.queries(), given.queries(), 0, c / options.heads};
  const int64_t most = Layer::cuboids_at_once(given) * given.queries();
  Scratch weights(Biases::floats(sizes, count) + 4 * c * c);
  const Layer layer(given, options, weights);
  const Panels qkv({given.qkv.typed_data(), 3 * c, 1}, c, 3 * c, weights);
  const Panels proj({given.proj.typed_data(), c, 1}, c, c, weights);
  in_shares(layer.groups(), options.threads, [&](int64_t begin, int64_t end, int64_t) {
    Scratch scratch(HeadAttention::floats(sizes) + 3 * floats_of_block(most, c) +
                    floats_of_block(most, 3 * c));
    const HeadAttention attention(sizes, options.scale, false, layer.dropout, scratch);
    const Rows normed = block(most, c, scratch), gathered = block(most, c, scratch);
    const Rows update = block(most, c, scratch);
    const Rows projections = block(most, 3 * c, scratch);
    layer.each_group(begin, end, [&](const Group& group) {
      const int64_t rows = layer.rows(group);
      for (int64_t row = 0; row < rows; row++)
        layer.norm.forward(given.x.typed_data() + layer.offset(group, row),
                           update.row(row), normed.row(row));
      qkv.multiply_by(normed, rows, projections);
      layer.each_head(
          group, [&](const HeadPlace& place, int64_t row, int64_t column, int64_t) {
            attention.forward(head_of(projections, row, column, c), place,
                              result_of(gathered, row, column));
          });
      proj.multiply_by(gathered, rows, update);
      for (int64_t row = 0; row < rows; row++)
        for (int64_t i = 0; i < c; i += kLanes) {
          const Floats y =
              load(update.row(row) + i) + load(given.proj_bias.typed_data() + i);
          store(out + layer.offset(group, row) + i,
                y * layer.out_factors(group, row, i));
        }
    });
  });
}

struct Gradients {
  float *x, *norm_scale, *norm_offset, *qkv, *proj, *proj_bias, *bias;
};

void backward(const Arguments& given, const Options& options, const float* dout,
              const Gradients& found) {
  const int64_t c = given.channels(), count = given.biases();
  const HeadSizes sizes{given.queries(), given.queries(), 0, c / options.heads};
  const int64_t most = Layer::cuboids_at_once(given) * given.queries();
  Scratch weights(Biases::floats(sizes, count) + 7 * c * c);
  const Layer layer(given, options, weights);
  const Panels qkv({given.qkv.typed_data(), 3 * c, 1}, c, 3 * c, weights);
  const Panels qkv_turned({given.qkv.typed_data(), 1, 3 * c}, 3 * c, c, weights);
  const Panels proj_turned({given.proj.typed_data(), 1, c}, c, c, weights);
  const int64_t parts = shares(layer.groups(), options.threads);
  Sums dscale(found.norm_scale, c, parts), doffset(found.norm_offset, c, parts);
  Sums dqkv(found.qkv, 3 * c * c, parts), dproj(found.proj, c * c, parts);
  Sums dproj_bias(found.proj_bias, c, parts);
  Sums dbias(found.bias, given.bias.element_count(), parts);
  in_shares(
      layer.groups(), options.threads, [&](int64_t begin, int64_t end, int64_t part) {
        const Gradients sums{found.x,       dscale.of(part), doffset.of(part),
                             dqkv.of(part), dproj.of(part),  dproj_bias.of(part),
                             dbias.of(part)};
        Scratch scratch(Biases::floats(sizes, count) + HeadGradient::floats(sizes) +
                        6 * floats_of_block(most, c) +
                        2 * floats_of_block(most, 3 * c) + most);
        const Biases dbiases(sizes, nullptr, count, scratch);
        const HeadGradient attention(sizes, options.scale, false, layer.dropout,
                                     scratch);
        const Rows standard = block(most, c, scratch), normed = block(most, c, scratch);
        const Rows gathered = block(most, c, scratch),
                   dgathered = block(most, c, scratch);
        const Rows dupdate = block(most, c, scratch), dnormed = block(most, c, scratch);
        const Rows projections = block(most, 3 * c, scratch);
        const Rows dprojections = block(most, 3 * c, scratch);
        float* const inverse = scratch.take(most);
        layer.each_group(begin, end, [&](const Group& group) {
          const int64_t rows = layer.rows(group);
          for (int64_t row = 0; row < rows; row++) {
            const int64_t offset = layer.offset(group, row);
            inverse[row] = layer.norm.forward(given.x.typed_data() + offset,
                                              standard.row(row), normed.row(row));
            for (int64_t i = 0; i < c; i += kLanes) {
              const Floats y =
                  load(dout + offset + i) * layer.out_factors(group, row, i);
              store(dupdate.row(row) + i, y);
              add_to(sums.proj_bias + i, y);
            }
          }
          qkv.multiply_by(normed, rows, projections);
          proj_turned.multiply_by(dupdate, rows, dgathered);
          layer.each_head(group, [&](const HeadPlace& place, int64_t row,
                                     int64_t column, int64_t bias) {
            const Rows out = result_of(gathered, row, column);
            attention.backward(head_of(projections, row, column, c), place,
                               result_of(dgathered, row, column),
                               head_of(dprojections, row, column, c), dbiases.at(bias),
                               &out);
          });
          multiply(gathered.matrix().turned(), c, rows, dupdate, c, {sums.proj, c},
                   true);
          multiply(normed.matrix().turned(), c, rows, dprojections, 3 * c,
                   {sums.qkv, 3 * c}, true);
          qkv_turned.multiply_by(dprojections, rows, dnormed);
          for (int64_t row = 0; row < rows; row++) {
            layer.norm.backward(standard.row(row), inverse[row], dnormed.row(row),
                                sums.norm_scale, sums.norm_offset);
            std::memcpy(sums.x + layer.offset(group, row), dnormed.row(row),
                        sizeof(float) * c);
          }
        });
        dbiases.write(sums.bias);
      });
  for (Sums* sum : {&dscale, &doffset, &dqkv, &dproj, &dproj_bias, &dbias})
    sum->add_up();
}

ffi::Error call_forward(F32 x, S32 position, F32 norm_scale, F32 norm_offset, F32 qkv,
                        F32 proj, F32 proj_bias, F32 bias, Bools mask, U32 example,
                        U32 cuboid, U32 words, U32 out_words, Out out,
                        Options options) {
  forward({x, position, norm_scale, norm_offset, qkv, proj, proj_bias, bias, mask,
           example, cuboid, words, out_words},
          options, out->typed_data());
  return ffi::Error::Success();
}

ffi::Error call_backward(F32 x, S32 position, F32 norm_scale, F32 norm_offset, F32 qkv,
                         F32 proj, F32 proj_bias, F32 bias, Bools mask, U32 example,
                         U32 cuboid, U32 words, U32 out_words, F32 dout, Out dx,
                         Out dnorm_scale, Out dnorm_offset, Out dqkv, Out dproj,
                         Out dproj_bias, Out dbias, Options options) {
  backward({x, position, norm_scale, norm_offset, qkv, proj, proj_bias, bias, mask,
            example, cuboid, words, out_words},
           options, dout.typed_data(),
           {dx->typed_data(), dnorm_scale->typed_data(), dnorm_offset->typed_data(),
            dqkv->typed_data(), dproj->typed_data(), dproj_bias->typed_data(),
            dbias->typed_data()});
  return ffi::Error::Success();
}

}  // namespace
}  // namespace earthformer

XLA_FFI_REGISTER_STRUCT_ATTR_DECODING(
    earthformer::Options, ffi::StructMember<int64_t>("heads"),
    ffi::StructMember<float>("scale"), ffi::StructMember<float>("epsilon"),
    ffi::StructMember<int64_t>("threshold"),
    ffi::StructMember<int64_t>("out_threshold"), ffi::StructMember<float>("factor"),
    ffi::StructMember<float>("out_factor"), ffi::StructMember<int64_t>("numbers"),
    ffi::StructMember<int64_t>("out_numbers"), ffi::StructMember<int64_t>("threads"));

#define ARGUMENTS   \
  Arg<F32>()        \
      .Arg<S32>()   \
      .Arg<F32>()   \
      .Arg<F32>()   \
      .Arg<F32>()   \
      .Arg<F32>()   \
      .Arg<F32>()   \
      .Arg<F32>()   \
      .Arg<Bools>() \
      .Arg<U32>()   \
      .Arg<U32>()   \
      .Arg<U32>()   \
      .Arg<U32>()
namespace earthformer {
XLA_FFI_DEFINE_HANDLER_SYMBOL(self_attention, call_forward,
                              ffi::Ffi::Bind().ARGUMENTS.Ret<F32>().Attrs<Options>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(self_attention_gradient, call_backward,
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
