// A layer of cuboid self-attention: layer norm, projections to queries, keys and
// values, attention inside cuboids, and the projection of its result; and its gradient.
//
// A few cuboids at a time are taken from the rows of the field, wherever they lie, to
// the rows of the update, without leaving the core's cache. Only the field is kept for
// the gradient, which takes the cuboids through the layer again.
//
// The arguments are described in self_attention.py.

#include "arrays.h"
#include "head.h"
#include "layer.h"
#include "threads.h"

namespace earthformer {
namespace {

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
  HeadSizes sizes(const Options& options) const {
    return {queries(), queries(), 0, channels() / options.heads};
  }
};

// A few cuboids of one example.
struct Group {
  int64_t example, first, cuboids;
};

// The weights of the layer, and what its cuboids are.
class Layer {
 public:
  Layer(const Arguments& given, const Options& options, Scratch& scratch)
      : norm{given.norm_scale.typed_data(), given.norm_offset.typed_data(),
             options.epsilon, given.channels()},
        sizes(given.sizes(options)),
        biases(sizes, shape_of(given.bias), given.examples(), scratch),
        qkv({given.qkv.typed_data(), 3 * given.channels(), 1}, given.channels(),
            3 * given.channels(), scratch),
        given_(given),
        options_(options),
        out_dropout_(dropout_of(given.out_words, options.out_numbers,
                                options.out_threshold, options.out_factor)) {
    biases.read(given.bias.typed_data());
  }

  static int64_t floats(const Arguments& given, const Options& options) {
    return Biases::floats(given.sizes(options), shape_of(given.bias)) +
           3 * given.channels() * given.channels();
  }

  const Norm norm;
  const HeadSizes sizes;
  const Biases biases;
  const Panels qkv;

  int64_t channels() const { return given_.channels(); }
  const float* x() const { return given_.x.typed_data(); }
  int64_t groups() const { return given_.examples() * groups_of_example(); }
  int64_t most_rows() const { return cuboids_at_once() * sizes.queries; }

  template <typename Attention>
  Attention attention(Scratch& scratch) const {
    const Dropout dropout =
        dropout_of(given_.words, options_.numbers, options_.threshold, options_.factor);
    return Attention(sizes, options_.scale, false, dropout, scratch);
  }

  Biases sums_of_biases(Scratch& scratch) const {
    return {sizes, shape_of(given_.bias), given_.examples(), scratch};
  }
  int64_t floats_of_biases() const {
    return Biases::floats(sizes, shape_of(given_.bias));
  }

  // Calls use(group) for some of the groups.
  template <typename Use>
  void each_group(int64_t begin, int64_t end, Use use) const {
    const int64_t at_once = cuboids_at_once(), of_example = groups_of_example();
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
    return (group.example * given_.rows() + position) * channels();
  }

  // Dropout of a row of the update: calls use(column, factors). A row's numbers follow
  // those of all rows before it, in the order of cuboids.
  template <typename Use>
  void each_out_factor(const Group& group, int64_t row, Use use) const {
    const uint32_t cuboid = number(group, row / sizes.queries);
    const uint32_t place = cuboid * sizes.queries + row % sizes.queries;
    out_dropout_.each(place * static_cast<uint32_t>(channels()), channels(), use);
  }

  // Calls use(place, example, head, first row) for the heads of a group.
  template <typename Use>
  void each_head(const Group& group, Use use) const {
    const int64_t pairs = sizes.queries * sizes.queries, heads = options_.heads;
    const bool masked = given_.mask.element_count() > 0;
    for (int64_t cuboid = 0; cuboid < group.cuboids; cuboid++)
      for (int64_t head = 0; head < heads; head++) {
        const bool* visible =
            masked ? given_.mask.typed_data() + (group.first + cuboid) * pairs
                   : nullptr;
        const uint32_t count = number(group, cuboid) * heads + head;
        use(HeadPlace{biases.at(group.example, head), visible, count}, head,
            cuboid * sizes.queries);
      }
  }

 private:
  int64_t cuboids_at_once() const {
    return std::max<int64_t>(1, kRows / sizes.queries);
  }
  int64_t groups_of_example() const {
    return (given_.cuboids() + cuboids_at_once() - 1) / cuboids_at_once();
  }

  // Of a cuboid among all of the call.
  uint32_t number(const Group& group, int64_t cuboid) const {
    return given_.example.typed_data()[group.example] * given_.cuboids() +
           given_.cuboid.typed_data()[group.first + cuboid];
  }

  const Arguments& given_;
  const Options& options_;
  const Dropout out_dropout_;
};

// One head in a block of projections, and in a block of results.
HeadRows head_of(Rows projections, int64_t row, int64_t column, int64_t channels) {
  const auto from = [&](int64_t first) {
    return Rows{projections.row(row) + first + column, projections.step};
  };
  return {from(0), from(channels), from(2 * channels), Rows{}, Rows{}, Rows{}};
}

Rows result_of(Rows results, int64_t row, int64_t column) {
  return {results.row(row) + column, results.step};
}

void forward(const Arguments& given, const Options& options, Cores cores, float* out) {
  const int64_t c = given.channels();
  Scratch weights(Layer::floats(given, options) + c * c);
  const Layer layer(given, options, weights);
  const Panels proj({given.proj.typed_data(), c, 1}, c, c, weights);
  const int64_t most = layer.most_rows();
  in_shares(layer.groups(), cores, [&](int64_t begin, int64_t end, int64_t) {
    Scratch scratch(HeadAttention::floats(layer.sizes) + 3 * floats_of_block(most, c) +
                    floats_of_block(most, 3 * c));
    const auto attention = layer.attention<HeadAttention>(scratch);
    const Rows normed = block(most, c, scratch), gathered = block(most, c, scratch);
    const Rows update = block(most, c, scratch);
    const Rows projections = block(most, 3 * c, scratch);
    layer.each_group(begin, end, [&](const Group& group) {
      const int64_t rows = layer.rows(group);
      for (int64_t row = 0; row < rows; row++)
        layer.norm.forward(layer.x() + layer.offset(group, row), update.row(row),
                           normed.row(row));
      layer.qkv.multiply_by(normed, rows, projections);
      layer.each_head(group, [&](const HeadPlace& place, int64_t head, int64_t row) {
        const int64_t column = head * layer.sizes.width;
        attention.forward(head_of(projections, row, column, c), place,
                          result_of(gathered, row, column));
      });
      proj.multiply_by(gathered, rows, update);
      for (int64_t row = 0; row < rows; row++) {
        float* const to = out + layer.offset(group, row);
        layer.each_out_factor(group, row, [&](int64_t i, Floats factors) {
          const Floats bias = load(given.proj_bias.typed_data() + i);
          store(to + i, (load(update.row(row) + i) + bias) * factors);
        });
      }
    });
  });
}

struct Gradients {
  float *x, *norm_scale, *norm_offset, *qkv, *proj, *proj_bias, *bias;
};

// Gradients of some of the groups; those of weights are added to what is there.
class SharedGradient {
 public:
  SharedGradient(const Layer& layer, const Panels& qkv_turned,
                 const Panels& proj_turned, const float* dout, const Gradients& sums)
      : layer_(layer),
        qkv_turned_(qkv_turned),
        proj_turned_(proj_turned),
        dout_(dout),
        sums_(sums),
        scratch_(floats(layer)),
        dbiases_(layer.sums_of_biases(scratch_)),
        attention_(layer.attention<HeadGradient>(scratch_)),
        standard_(rows_of(1)),
        normed_(rows_of(1)),
        gathered_(rows_of(1)),
        dgathered_(rows_of(1)),
        dupdate_(rows_of(1)),
        dnormed_(rows_of(1)),
        projections_(rows_of(3)),
        dprojections_(rows_of(3)),
        inverse_(scratch_.take(layer.most_rows())) {}

  void add(int64_t begin, int64_t end) {
    layer_.each_group(begin, end, [&](const Group& group) {
      to_projections(group);
      layer_.each_head(group, [&](const HeadPlace& place, int64_t head, int64_t row) {
        const int64_t column = head * layer_.sizes.width, c = layer_.channels();
        const Rows out = result_of(gathered_, row, column);
        attention_.backward(head_of(projections_, row, column, c), place,
                            result_of(dgathered_, row, column),
                            head_of(dprojections_, row, column, c),
                            dbiases_.at(group.example, head), &out);
      });
      from_projections(group);
    });
    dbiases_.write(sums_.bias);
  }

 private:
  static int64_t floats(const Layer& layer) {
    const int64_t most = layer.most_rows(), c = layer.channels();
    return layer.floats_of_biases() + HeadGradient::floats(layer.sizes) +
           6 * floats_of_block(most, c) + 2 * floats_of_block(most, 3 * c) + most;
  }
  Rows rows_of(int64_t times) {
    return block(layer_.most_rows(), times * layer_.channels(), scratch_);
  }

  // The field's projections, and the gradient of what attention gives.
  void to_projections(const Group& group) {
    const int64_t rows = layer_.rows(group);
    for (int64_t row = 0; row < rows; row++) {
      const int64_t offset = layer_.offset(group, row);
      inverse_[row] = layer_.norm.forward(layer_.x() + offset, standard_.row(row),
                                          normed_.row(row));
      layer_.each_out_factor(group, row, [&](int64_t i, Floats factors) {
        const Floats y = load(dout_ + offset + i) * factors;
        store(dupdate_.row(row) + i, y);
        add_to(sums_.proj_bias + i, y);
      });
    }
    layer_.qkv.multiply_by(normed_, rows, projections_);
    proj_turned_.multiply_by(dupdate_, rows, dgathered_);
  }

  // Gradients of weights and of the field.
  void from_projections(const Group& group) {
    const int64_t rows = layer_.rows(group), c = layer_.channels();
    multiply(gathered_.matrix().turned(), c, rows, dupdate_, c, {sums_.proj, c}, true);
    multiply(normed_.matrix().turned(), c, rows, dprojections_, 3 * c,
             {sums_.qkv, 3 * c}, true);
    qkv_turned_.multiply_by(dprojections_, rows, dnormed_);
    for (int64_t row = 0; row < rows; row++) {
      layer_.norm.backward(standard_.row(row), inverse_[row], dnormed_.row(row),
                           sums_.norm_scale, sums_.norm_offset);
      std::memcpy(sums_.x + layer_.offset(group, row), dnormed_.row(row),
                  sizeof(float) * c);
    }
  }

  const Layer& layer_;
  const Panels &qkv_turned_, &proj_turned_;
  const float* const dout_;
  const Gradients sums_;
  Scratch scratch_;
  const Biases dbiases_;
  const HeadGradient attention_;
  const Rows standard_, normed_, gathered_, dgathered_, dupdate_, dnormed_;
  const Rows projections_, dprojections_;
  float* const inverse_;
};

void backward(const Arguments& given, const Options& options, Cores cores,
              const float* dout, const Gradients& found) {
  const int64_t c = given.channels();
  Scratch weights(Layer::floats(given, options) + 4 * c * c);
  const Layer layer(given, options, weights);
  const Panels qkv_turned({given.qkv.typed_data(), 1, 3 * c}, 3 * c, c, weights);
  const Panels proj_turned({given.proj.typed_data(), 1, c}, c, c, weights);
  const int64_t parts = shares(layer.groups(), cores.count);
  Sums dscale(found.norm_scale, c, parts), doffset(found.norm_offset, c, parts);
  Sums dqkv(found.qkv, 3 * c * c, parts), dproj(found.proj, c * c, parts);
  Sums dproj_bias(found.proj_bias, c, parts);
  Sums dbias(found.bias, given.bias.element_count(), parts);
  in_shares(layer.groups(), cores, [&](int64_t begin, int64_t end, int64_t part) {
    const Gradients sums{found.x,       dscale.of(part), doffset.of(part),
                         dqkv.of(part), dproj.of(part),  dproj_bias.of(part),
                         dbias.of(part)};
    SharedGradient(layer, qkv_turned, proj_turned, dout, sums).add(begin, end);
  });
  for (Sums* sum : {&dscale, &doffset, &dqkv, &dproj, &dproj_bias, &dbias})
    sum->add_up();
}

ffi::Error call_forward(ffi::ThreadPool pool, F32 x, S32 position, F32 norm_scale,
                        F32 norm_offset, F32 qkv, F32 proj, F32 proj_bias, F32 bias,
                        Bools mask, U32 example, U32 cuboid, U32 words, U32 out_words,
                        Out out, Options options) {
  forward({x, position, norm_scale, norm_offset, qkv, proj, proj_bias, bias, mask,
           example, cuboid, words, out_words},
          options, {pool, options.threads}, out->typed_data());
  return ffi::Error::Success();
}

ffi::Error call_backward(ffi::ThreadPool pool, F32 x, S32 position, F32 norm_scale,
                         F32 norm_offset, F32 qkv, F32 proj, F32 proj_bias, F32 bias,
                         Bools mask, U32 example, U32 cuboid, U32 words, U32 out_words,
                         F32 dout, Out dx, Out dnorm_scale, Out dnorm_offset, Out dqkv,
                         Out dproj, Out dproj_bias, Out dbias, Options options) {
  backward({x, position, norm_scale, norm_offset, qkv, proj, proj_bias, bias, mask,
            example, cuboid, words, out_words},
           options, {pool, options.threads}, dout.typed_data(),
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

#define ARGUMENTS        \
  Ctx<ffi::ThreadPool>() \
      .Arg<F32>()        \
      .Arg<S32>()        \
      .Arg<F32>()        \
      .Arg<F32>()        \
      .Arg<F32>()        \
      .Arg<F32>()        \
      .Arg<F32>()        \
      .Arg<F32>()        \
      .Arg<Bools>()      \
      .Arg<U32>()        \
      .Arg<U32>()        \
      .Arg<U32>()        \
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
