// Softmax attention inside cuboids and to global vectors, and its gradient.
//
// Each head of each cuboid is taken from the rows of its projections to the rows of the
// result without leaving the core's cache.
//
// The arguments are those of `ops.attention.attend`, described in attention.py.

#include "arrays.h"
#include "head.h"
#include "threads.h"

namespace earthformer {
namespace {

struct Options {
  int64_t heads, width;
  int64_t query_column, key_column, value_column;  // of the first head in its rows
  float scale;
  int64_t threshold;  // dropout drops where 32 random bits are less
  float factor;       // of what is not dropped
  int64_t numbers;    // drawn for all scores of one call
  int64_t threads;
};

struct Arguments {
  F32 query, key, value, bias;
  Bools mask;
  F32 far_query, far_key, far_value;
  U32 example, cuboid, words;

  bool far_queries() const { return far_query.element_count() > 0; }
  HeadSizes sizes(const Options& options) const {
    const bool far = far_key.element_count() > 0;
    return {int64_t(query.dimensions()[2]), int64_t(key.dimensions()[2]),
            far ? int64_t(far_key.dimensions()[1]) : 0, options.width};
  }
  Dropout dropout(const Options& options) const {
    return dropout_of(words, options.numbers, options.threshold, options.factor);
  }
};

// Pointers to arrays that are laid out as the arguments are.
struct Data {
  float *query, *key, *value, *far_query, *far_key, *far_value;
};

// One head of one cuboid of one example.
class Places {
 public:
  Places(const Arguments& given, const Options& options)
      : given_(given),
        options_(options),
        examples_(given.query.dimensions()[0]),
        cuboids_(given.query.dimensions()[1]) {}

  int64_t examples() const { return examples_; }

  // Calls use(example, cuboid, head) for some of the heads.
  template <typename Use>
  void each(int64_t begin, int64_t end, Use use) const {
    for (int64_t example = 0; example < examples_; example++)
      for (int64_t cuboid = 0; cuboid < cuboids_; cuboid++)
        for (int64_t head = begin; head < end; head++) use(example, cuboid, head);
  }

  HeadRows rows(const Data& data, int64_t example, int64_t cuboid, int64_t head) const {
    const auto near = [&](float* from, const F32& like, int64_t column) {
      return from ? near_rows(from, like.dimensions()[2], like.dimensions()[3],
                              column + head * options_.width, example, cuboid)
                  : Rows{};
    };
    const auto far = [&](float* from) {
      const int64_t channels = options_.heads * options_.width;
      const int64_t vectors = from ? given_.far_key.dimensions()[1] : 0;
      return Rows{from + (example * vectors * channels + head * options_.width),
                  channels};
    };
    return {near(data.query, given_.query, options_.query_column),
            near(data.key, given_.key, options_.key_column),
            near(data.value, given_.value, options_.value_column),
            given_.far_queries() ? near(data.far_query, given_.far_query, 0) : Rows{},
            far(data.far_key),
            far(data.far_value)};
  }

  // A head's rows of an array `[examples, cuboids, queries, channels]`.
  Rows result(float* data, int64_t example, int64_t cuboid, int64_t head) const {
    return near_rows(data, given_.query.dimensions()[2],
                     options_.heads * options_.width, head * options_.width, example,
                     cuboid);
  }

  HeadPlace place(const Biases& biases, int64_t example, int64_t cuboid,
                  int64_t head) const {
    const int64_t pairs = given_.query.dimensions()[2] * given_.key.dimensions()[2];
    const bool masked = given_.mask.element_count() > 0;
    const uint32_t before = given_.example.typed_data()[example] * cuboids_ +
                            given_.cuboid.typed_data()[cuboid];
    return {biases.at(example, head),
            masked ? given_.mask.typed_data() + cuboid * pairs : nullptr,
            static_cast<uint32_t>(before * options_.heads + head)};
  }

 private:
  Rows near_rows(float* data, int64_t rows, int64_t channels, int64_t column,
                 int64_t example, int64_t cuboid) const {
    return {data + (example * cuboids_ + cuboid) * rows * channels + column, channels};
  }

  const Arguments& given_;
  const Options& options_;
  const int64_t examples_, cuboids_;
};

Data data_of(const Arguments& given) {
  return {given.query.typed_data(),   given.key.typed_data(),
          given.value.typed_data(),   given.far_query.typed_data(),
          given.far_key.typed_data(), given.far_value.typed_data()};
}

void forward(const Arguments& given, const Options& options, Cores cores, float* out) {
  const HeadSizes sizes = given.sizes(options);
  const Biases::Shape shape = shape_of(given.bias);
  Scratch turned(Biases::floats(sizes, shape));
  const Places places(given, options);
  const Biases biases(sizes, shape, places.examples(), turned);
  biases.read(given.bias.typed_data());
  const Data data = data_of(given);
  in_shares(options.heads, cores, [&](int64_t begin, int64_t end, int64_t) {
    Scratch scratch(HeadAttention::floats(sizes));
    const HeadAttention attention(sizes, options.scale, given.far_queries(),
                                  given.dropout(options), scratch);
    places.each(begin, end, [&](int64_t example, int64_t cuboid, int64_t head) {
      attention.forward(places.rows(data, example, cuboid, head),
                        places.place(biases, example, cuboid, head),
                        places.result(out, example, cuboid, head));
    });
  });
}

void backward(const Arguments& given, const Options& options, Cores cores, float* dout,
              const Data& found, float* dbias) {
  const HeadSizes sizes = given.sizes(options);
  const Biases::Shape shape = shape_of(given.bias);
  Scratch turned(2 * Biases::floats(sizes, shape));
  const Places places(given, options);
  const Biases biases(sizes, shape, places.examples(), turned);
  const Biases dbiases(sizes, shape, places.examples(), turned);
  biases.read(given.bias.typed_data());
  const Data data = data_of(given);
  for (float* sum : {found.far_key, found.far_value})
    if (sum) std::memset(sum, 0, sizeof(float) * given.far_key.element_count());
  // Heads share nothing that is added to, unless all have one bias.
  const bool apart = !shape.heads || shape.heads == options.heads;
  if (!apart) cores.count = 1;
  in_shares(options.heads, cores, [&](int64_t begin, int64_t end, int64_t) {
    Scratch scratch(HeadGradient::floats(sizes));
    const HeadGradient attention(sizes, options.scale, given.far_queries(),
                                 given.dropout(options), scratch);
    places.each(begin, end, [&](int64_t example, int64_t cuboid, int64_t head) {
      attention.backward(places.rows(data, example, cuboid, head),
                         places.place(biases, example, cuboid, head),
                         places.result(dout, example, cuboid, head),
                         places.rows(found, example, cuboid, head),
                         dbiases.at(example, head));
    });
  });
  dbiases.write(dbias);
}

ffi::Error call_forward(ffi::ThreadPool pool, F32 query, F32 key, F32 value, F32 bias,
                        Bools mask, F32 far_query, F32 far_key, F32 far_value,
                        U32 example, U32 cuboid, U32 words, Out out, Options options) {
  forward({query, key, value, bias, mask, far_query, far_key, far_value, example,
           cuboid, words},
          options, {pool, options.threads}, out->typed_data());
  return ffi::Error::Success();
}

// Where to write a result; if it is empty, what it is part of.
float* data_of(Out out, float* whole = nullptr) {
  return out->element_count() ? out->typed_data() : whole;
}

ffi::Error call_backward(ffi::ThreadPool pool, F32 query, F32 key, F32 value, F32 bias,
                         Bools mask, F32 far_query, F32 far_key, F32 far_value,
                         U32 example, U32 cuboid, U32 words, F32 dout, Out dquery,
                         Out dkey, Out dvalue, Out dbias, Out dfar_query, Out dfar_key,
                         Out dfar_value, Options options) {
  float* const of_query = data_of(dquery);
  float* const of_key = data_of(dkey, of_query);
  backward({query, key, value, bias, mask, far_query, far_key, far_value, example,
            cuboid, words},
           options, {pool, options.threads}, dout.typed_data(),
           {of_query, of_key, data_of(dvalue, of_key), data_of(dfar_query),
            data_of(dfar_key), data_of(dfar_value)},
           data_of(dbias));
  return ffi::Error::Success();
}

}  // namespace
}  // namespace earthformer

XLA_FFI_REGISTER_STRUCT_ATTR_DECODING(
    earthformer::Options, ffi::StructMember<int64_t>("heads"),
    ffi::StructMember<int64_t>("width"), ffi::StructMember<int64_t>("query_column"),
    ffi::StructMember<int64_t>("key_column"),
    ffi::StructMember<int64_t>("value_column"), ffi::StructMember<float>("scale"),
    ffi::StructMember<int64_t>("threshold"), ffi::StructMember<float>("factor"),
    ffi::StructMember<int64_t>("numbers"), ffi::StructMember<int64_t>("threads"));

#define ARGUMENTS        \
  Ctx<ffi::ThreadPool>() \
      .Arg<F32>()        \
      .Arg<F32>()        \
      .Arg<F32>()        \
      .Arg<F32>()        \
      .Arg<Bools>()      \
      .Arg<F32>()        \
      .Arg<F32>()        \
      .Arg<F32>()        \
      .Arg<U32>()        \
      .Arg<U32>()        \
      .Arg<U32>()
namespace earthformer {
XLA_FFI_DEFINE_HANDLER_SYMBOL(attention, call_forward,
                              ffi::Ffi::Bind().ARGUMENTS.Ret<F32>().Attrs<Options>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(attention_gradient, call_backward,
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
