// Softmax attention inside cuboids and to global vectors, and its gradient.
//
// Each head of each cuboid is taken from the rows of its projections to the rows of the
// result without leaving the core's cache. Scores are turned: keys by queries, so that
// vectors hold queries, and maxima and sums over keys need no sums inside vectors.
//
// The arguments are those of `ops.attention.attend`, described in attention.py.

#include <cfloat>

#include "dropout.h"
#include "vectors.h"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;
namespace earthformer {
namespace {

using F32 = ffi::Buffer<ffi::F32>;
using U32 = ffi::Buffer<ffi::U32>;
using Bools = ffi::Buffer<ffi::PRED>;
using Out = ffi::ResultBuffer<ffi::F32>;

// Where to write a result; if it is empty, what it is part of.
float* data_of(Out out, float* whole = nullptr) {
  return out->element_count() ? out->typed_data() : whole;
}

struct Options {
  int64_t heads, width;
  int64_t query_column, key_column, value_column;  // of the first head in its rows
  float scale;
  int64_t threshold;  // dropout drops where 32 random bits are less; 0: nowhere
  float factor;       // of what is not dropped
  int64_t numbers;    // drawn for all scores of one call
};

struct Arguments {
  F32 query, key, value, bias;
  Bools mask;
  F32 far_query, far_key, far_value;
  U32 example, cuboid, words;

  bool far() const { return far_key.element_count() > 0; }
  bool far_queries() const { return far_query.element_count() > 0; }
  bool biased() const { return bias.element_count() > 0; }
  bool masked() const { return mask.element_count() > 0; }
};

struct Sizes {
  int64_t examples, cuboids, queries, near_keys, far_keys, heads, width;

  Sizes(const Arguments& given, const Options& options)
      : examples(given.query.dimensions()[0]),
        cuboids(given.query.dimensions()[1]),
        queries(given.query.dimensions()[2]),
        near_keys(given.key.dimensions()[2]),
        far_keys(given.far() ? given.far_key.dimensions()[1] : 0),
        heads(options.heads),
        width(options.width) {}

  int64_t keys() const { return near_keys + far_keys; }
  int64_t across() const { return whole_vectors(queries); }  // a row of scores
  int64_t wide() const { return whole_vectors(width); }      // a row of one head
  int64_t scores() const { return keys() * across(); }
};

// The place of one head of one cuboid of one example.
struct Place {
  int64_t example, cuboid, head;
};

// A head's columns of an array `[examples, cuboids, rows, channels]`.
Rows columns_of(const float* data, int64_t rows, int64_t channels, int64_t column,
                const Sizes& sizes, const Place& place) {
  const int64_t first = (place.example * sizes.cuboids + place.cuboid) * rows;
  return {const_cast<float*>(data) + first * channels + column + place.head * sizes.width,
          channels};
}

Rows columns_of(const F32& array, int64_t column, const Sizes& sizes, const Place& place) {
  const auto shape = array.dimensions();
  return columns_of(array.typed_data(), shape[2], shape[3], column, sizes, place);
}

// A head's columns of an array `[examples, vectors, channels]` of global vectors.
Rows columns_of_far(const float* data, const Sizes& sizes, const Place& place) {
  const int64_t channels = sizes.heads * sizes.width;
  return {const_cast<float*>(data) + place.example * sizes.far_keys * channels +
              place.head * sizes.width,
          channels};
}

void copy(Rows from, int64_t rows, int64_t columns, Rows to, float scale = 1.0f,
          bool add = false) {
  for (int64_t row = 0; row < rows; row++)
    for (int64_t column = 0; column < columns; column++) {
      const float before = add ? to.row(row)[column] : 0.0f;
      to.row(row)[column] = before + scale * from.row(row)[column];
    }
}

// Rows that consist of whole vectors: the given ones, or a copy with zeros after them.
class Widened {
 public:
  Widened(const Sizes& sizes, int64_t rows, Scratch& scratch)
      : sizes_(sizes), rows_(rows), own_{nullptr, sizes.wide()} {
    if (sizes.wide() != sizes.width) own_.at = scratch.take(rows * sizes.wide());
  }

  static int64_t floats(const Sizes& sizes, int64_t rows) { return rows * sizes.wide(); }

  Rows operator()(Rows given) const {
    if (!own_.at) return given;
    copy(given, rows_, sizes_.width, own_);
    return own_;
  }

  // Where to compute what belongs into `wanted`, before `finish` takes it there.
  Rows begin(Rows wanted) const { return own_.at ? own_ : wanted; }

  void finish(Rows wanted, bool add = false) const {
    if (own_.at) copy(own_, rows_, sizes_.width, wanted, 1.0f, add);
  }

 private:
  const Sizes& sizes_;
  const int64_t rows_;
  Rows own_;
};

// What dropout multiplies the turned attention weights of a head by.
class WeightDropout {
 public:
  WeightDropout(const Arguments& given, const Options& options, const Sizes& sizes)
      : given_(given),
        sizes_(sizes),
        dropout_(given.words.typed_data(), given.words.element_count(), options.numbers,
                 options.threshold, options.factor) {}

  bool on() const { return dropout_.on(); }

  // Calls use(offset, factors) for every vector of turned scores.
  template <typename Use>
  void each(const Place& place, Use use) const {
    const uint32_t keys = sizes_.keys(), queries = sizes_.queries;
    const uint32_t example = given_.example.typed_data()[place.example];
    const uint32_t cuboid = given_.cuboid.typed_data()[place.cuboid];
    const uint32_t before = (example * sizes_.cuboids + cuboid) * sizes_.heads + place.head;
    const Words query = counted(keys);
    for (uint32_t key = 0; key < keys; key++)
      for (uint32_t first = 0; first < queries; first += kLanes) {
        const uint32_t position = (before * queries + first) * keys + key;
        use(key * sizes_.across() + first, dropout_.factors(query + position));
      }
  }

 private:
  const Arguments& given_;
  const Sizes& sizes_;
  const Dropout dropout_;
};

// Turned biases of each share of the examples and head: what scores begin with.
class Biases {
 public:
  Biases(const Arguments& given, const Sizes& sizes, Scratch& scratch)
      : sizes_(sizes), biased_(given.biased()) {
    if (!biased_) return;
    const auto shape = given.bias.dimensions();
    shares_ = shape[0];
    heads_ = shape[1];
    turned_ = scratch.take(shares_ * heads_ * sizes.scores());
    for (int64_t n = 0; n < shares_ * heads_; n++) {
      const float* bias = given.bias.typed_data() + n * sizes.queries * sizes.near_keys;
      turn({const_cast<float*>(bias), sizes.near_keys}, sizes.queries, sizes.near_keys,
           1.0f, {turned_ + n * sizes.scores(), sizes.across()});
    }
  }

  static int64_t floats(const Arguments& given, const Sizes& sizes) {
    if (!given.biased()) return 0;
    return given.bias.dimensions()[0] * given.bias.dimensions()[1] * sizes.scores();
  }

  // Of the turned biases of a place among all.
  int64_t offset(const Place& place) const {
    const int64_t share = place.example * shares_ / sizes_.examples;
    return (share * heads_ + (heads_ == 1 ? 0 : place.head)) * sizes_.scores();
  }

  void begin(const Place& place, float* scores) const {
    const int64_t bytes = sizeof(float) * sizes_.scores();
    if (biased_)
      std::memcpy(scores, turned_ + offset(place), bytes);
    else
      std::memset(scores, 0, bytes);
  }

 private:
  const Sizes& sizes_;
  const bool biased_;
  int64_t shares_ = 1, heads_ = 1;
  float* turned_ = nullptr;
};

// Attention weights of one head, turned, before dropout.
class Weights {
 public:
  Weights(const Arguments& given, const Options& options, const Sizes& sizes,
          Scratch& scratch)
      : given_(given),
        options_(options),
        sizes_(sizes),
        biases_(given, sizes, scratch),
        query_(turned(scratch)),
        far_query_(given.far_queries() ? turned(scratch) : query_) {}

  static int64_t floats(const Arguments& given, const Sizes& sizes) {
    return Biases::floats(given, sizes) + 2 * sizes.width * sizes.across();
  }

  const Biases& biases() const { return biases_; }

  void compute(const Place& place, float* out) const {
    const int64_t queries = sizes_.queries, near_keys = sizes_.near_keys;
    const int64_t far_keys = sizes_.far_keys, width = sizes_.width;
    const int64_t across = sizes_.across();
    const Rows scores{out, across};
    turn(columns_of(given_.query, options_.query_column, sizes_, place), queries, width,
         options_.scale, query_);
    biases_.begin(place, out);
    const Rows key = columns_of(given_.key, options_.key_column, sizes_, place);
    multiply(key.matrix(), near_keys, width, query_, across, scores, true);
    if (given_.masked()) hide(place, out);
    if (far_keys) {
      if (given_.far_queries())
        turn(columns_of(given_.far_query, 0, sizes_, place), queries, width,
             options_.scale, far_query_);
      const Rows far_key = columns_of_far(given_.far_key.typed_data(), sizes_, place);
      multiply(far_key.matrix(), far_keys, width, far_query_, across,
               scores.from_row(near_keys), true);
    }
    softmax(out);
  }

 private:
  Rows turned(Scratch& scratch) const {
    return {scratch.take(sizes_.width * sizes_.across()), sizes_.across()};
  }

  void hide(const Place& place, float* scores) const {
    const int64_t count = sizes_.queries * sizes_.near_keys;
    const bool* visible = given_.mask.typed_data() + place.cuboid * count;
    for (int64_t query = 0; query < sizes_.queries; query++)
      for (int64_t key = 0; key < sizes_.near_keys; key++)
        if (!*visible++) scores[key * sizes_.across() + query] = -FLT_MAX;
  }

  void softmax(float* scores) const {
    const int64_t across = sizes_.across(), end = sizes_.scores();
    for (float* column = scores; column < scores + across; column += kLanes) {
      Floats highest = all(-FLT_MAX), total{};
      for (int64_t n = 0; n < end; n += across) {
        const Floats score = load(column + n);
        highest = score > highest ? score : highest;
      }
      for (int64_t n = 0; n < end; n += across) {
        const Floats weight = exp(load(column + n) - highest);
        total += weight;
        store(column + n, weight);
      }
      const Floats share = 1.0f / total;
      for (int64_t n = 0; n < end; n += across)
        store(column + n, load(column + n) * share);
    }
  }

  const Arguments& given_;
  const Options& options_;
  const Sizes& sizes_;
  const Biases biases_;
  const Rows query_, far_query_;  // turned and scaled
};

template <typename Use>
void each_place(const Sizes& sizes, Use use) {
  for (int64_t example = 0; example < sizes.examples; example++)
    for (int64_t cuboid = 0; cuboid < sizes.cuboids; cuboid++)
      for (int64_t head = 0; head < sizes.heads; head++) use(Place{example, cuboid, head});
}

void forward(const Arguments& given, const Options& options, float* out) {
  const Sizes sizes(given, options);
  const int64_t across = sizes.across(), wide = sizes.wide(), near = sizes.near_keys;
  Scratch scratch(Weights::floats(given, sizes) + sizes.scores() +
                  (sizes.keys() + sizes.queries) * wide);
  const Weights weights(given, options, sizes, scratch);
  const WeightDropout dropout(given, options, sizes);
  const Rows kept{scratch.take(sizes.scores()), across};
  const Widened value(sizes, near, scratch), far_value(sizes, sizes.far_keys, scratch),
      gathered(sizes, sizes.queries, scratch);
  const Matrix of_near = kept.matrix().turned();
  const Matrix of_far = kept.from_row(near).matrix().turned();
  each_place(sizes, [&](const Place& place) {
    weights.compute(place, kept.at);
    if (dropout.on())
      dropout.each(place, [&](int64_t n, Floats factors) {
        store(kept.at + n, load(kept.at + n) * factors);
      });
    const Rows wanted = columns_of(out, sizes.queries, sizes.heads * sizes.width, 0, sizes, place);
    const Rows found = gathered.begin(wanted);
    multiply(of_near, sizes.queries, near,
             value(columns_of(given.value, options.value_column, sizes, place)), wide,
             found);
    if (sizes.far_keys)
      multiply(of_far, sizes.queries, sizes.far_keys,
               far_value(columns_of_far(given.far_value.typed_data(), sizes, place)),
               wide, found, true);
    gathered.finish(wanted);
  });
}

struct Gradients {
  float *query, *key, *value, *bias, *far_query, *far_key, *far_value;
};

// The gradient of `forward` (Dao et al. 2022, appendix B), from weights that are
// computed again.
void backward(const Arguments& given, const Options& options, const F32& dout,
              const Gradients& found) {
  const Sizes sizes(given, options);
  const int64_t queries = sizes.queries, near = sizes.near_keys, far = sizes.far_keys;
  const int64_t width = sizes.width, across = sizes.across(), wide = sizes.wide(), scores = sizes.scores();
  Scratch scratch(Weights::floats(given, sizes) + Biases::floats(given, sizes) +
                  3 * scores + width * across + (4 * queries + sizes.keys()) * wide);
  const Weights weights(given, options, sizes, scratch);
  const WeightDropout dropout(given, options, sizes);
  float* const dbiases = scratch.take(Biases::floats(given, sizes));
  const Rows before{scratch.take(scores), across}, dscores{scratch.take(scores), across};
  const Rows after = dropout.on() ? Rows{scratch.take(scores), across} : before;
  const Rows turned{scratch.take(width * across), across};
  const Rows query{scratch.take(queries * wide), wide};
  const Rows far_query =
      given.far_queries() ? Rows{scratch.take(queries * wide), wide} : query;
  const Widened of_queries(sizes, queries, scratch), dqueries(sizes, queries, scratch);
  const Widened of_keys(sizes, near, scratch), of_far(sizes, far, scratch);
  // The columns in the gradient of an array, which is laid out as the array is.
  const auto columns = [&](float* gradient, const F32& of, int64_t column,
                           const Place& place) {
    const auto shape = of.dimensions();
    return columns_of(gradient, shape[2], shape[3], column, sizes, place);
  };
  for (float* sum : {found.far_key, found.far_value})
    if (sum) std::memset(sum, 0, sizeof(float) * given.far_key.element_count());

  each_place(sizes, [&](const Place& place) {
    const Rows gradient = columns_of(dout, 0, sizes, place);
    turn(gradient, queries, width, 1.0f, turned);
    weights.compute(place, before.at);
    const Rows value = columns_of(given.value, options.value_column, sizes, place);
    multiply(value.matrix(), near, width, turned, across, dscores);
    const Rows far_value = columns_of_far(given.far_value.typed_data(), sizes, place);
    if (far)
      multiply(far_value.matrix(), far, width, turned, across, dscores.from_row(near));
    if (dropout.on())
      dropout.each(place, [&](int64_t n, Floats factors) {
        store(dscores.at + n, load(dscores.at + n) * factors);
        store(after.at + n, load(before.at + n) * factors);
      });

    const Rows wide_gradient = of_queries(gradient);
    const Rows dvalue = columns(found.value, given.value, options.value_column, place);
    multiply(after.matrix(), near, queries, wide_gradient, wide, of_keys.begin(dvalue));
    of_keys.finish(dvalue);
    if (far) {
      const Rows dfar = columns_of_far(found.far_value, sizes, place);
      multiply(after.from_row(near).matrix(), far, queries, wide_gradient, wide,
               of_far.begin(dfar), of_far.begin(dfar).at == dfar.at);
      of_far.finish(dfar, true);
    }

    float* const dbias = dbiases + (given.biased() ? weights.biases().offset(place) : 0);
    for (int64_t first = 0; first < across; first += kLanes) {
      Floats along{};
      for (int64_t n = first; n < scores; n += across)
        along += load(before.at + n) * load(dscores.at + n);
      for (int64_t n = first; n < scores; n += across) {
        const Floats change = load(before.at + n) * (load(dscores.at + n) - along);
        store(dscores.at + n, change);
        if (given.biased()) store(dbias + n, load(dbias + n) + change);
      }
    }

    const Rows of_query = columns_of(given.query, options.query_column, sizes, place);
    copy(of_query, queries, width, query, options.scale);
    const Rows dkey = columns(found.key, given.key, options.key_column, place);
    multiply(dscores.matrix(), near, queries, query, wide, of_keys.begin(dkey));
    of_keys.finish(dkey);
    const Rows dquery = columns(found.query, given.query, options.query_column, place);
    const Rows own_dquery = dqueries.begin(dquery);
    const Rows key = columns_of(given.key, options.key_column, sizes, place);
    multiply(dscores.matrix().turned(), queries, near, of_keys(key), wide, own_dquery);
    if (far) {
      if (given.far_queries())
        copy(columns_of(given.far_query, 0, sizes, place), queries, width, far_query,
             options.scale);
      const Matrix dfar_scores = dscores.from_row(near).matrix();
      const Rows dfar = columns_of_far(found.far_key, sizes, place);
      multiply(dfar_scores, far, queries, far_query, wide, of_far.begin(dfar),
               of_far.begin(dfar).at == dfar.at);
      of_far.finish(dfar, true);
      const Rows far_key = of_far(columns_of_far(given.far_key.typed_data(), sizes, place));
      if (given.far_queries()) {
        const Rows wanted = columns(found.far_query, given.far_query, 0, place);
        multiply(dfar_scores.turned(), queries, far, far_key, wide,
                 of_queries.begin(wanted));
        of_queries.finish(wanted);
        copy(wanted, queries, width, wanted, options.scale);
      } else {
        multiply(dfar_scores.turned(), queries, far, far_key, wide, own_dquery, true);
      }
    }
    dqueries.finish(dquery);
    copy(dquery, queries, width, dquery, options.scale);
  });

  if (!given.biased()) return;
  const int64_t of_head = queries * near;
  for (int64_t n = 0; n * of_head < int64_t(given.bias.element_count()); n++)
    turn({dbiases + n * scores, across}, near, queries, 1.0f,
         {found.bias + n * of_head, near});
}

ffi::Error call_forward(F32 query, F32 key, F32 value, F32 bias, Bools mask,
                        F32 far_query, F32 far_key, F32 far_value, U32 example,
                        U32 cuboid, U32 words, Out out, Options options) {
  forward({query, key, value, bias, mask, far_query, far_key, far_value, example, cuboid,
           words},
          options, data_of(out));
  return ffi::Error::Success();
}

ffi::Error call_backward(F32 query, F32 key, F32 value, F32 bias, Bools mask,
                         F32 far_query, F32 far_key, F32 far_value, U32 example,
                         U32 cuboid, U32 words, F32 dout, Out dquery, Out dkey,
                         Out dvalue, Out dbias, Out dfar_query, Out dfar_key,
                         Out dfar_value, Options options) {
  float* const of_query = data_of(dquery);
  float* const of_key = data_of(dkey, of_query);
  backward({query, key, value, bias, mask, far_query, far_key, far_value, example, cuboid,
            words},
           options, dout,
           {of_query, of_key, data_of(dvalue, of_key), data_of(dbias),
            data_of(dfar_query), data_of(dfar_key), data_of(dfar_value)});
  return ffi::Error::Success();
}

}  // namespace
}  // namespace earthformer

XLA_FFI_REGISTER_STRUCT_ATTR_DECODING(
    earthformer::Options, ffi::StructMember<int64_t>("heads"),
    ffi::StructMember<int64_t>("width"), ffi::StructMember<int64_t>("query_column"),
    ffi::StructMember<int64_t>("key_column"), ffi::StructMember<int64_t>("value_column"),
    ffi::StructMember<float>("scale"), ffi::StructMember<int64_t>("threshold"),
    ffi::StructMember<float>("factor"), ffi::StructMember<int64_t>("numbers"));

#define ARGUMENTS                                        \
  Arg<F32>().Arg<F32>().Arg<F32>().Arg<F32>()            \
      .Arg<Bools>()                                      \
      .Arg<F32>().Arg<F32>().Arg<F32>()                  \
      .Arg<U32>().Arg<U32>().Arg<U32>()
namespace earthformer {
XLA_FFI_DEFINE_HANDLER_SYMBOL(attention, call_forward,
                              ffi::Ffi::Bind().ARGUMENTS.Ret<F32>().Attrs<Options>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(attention_gradient, call_backward,
                              ffi::Ffi::Bind()
                                  .ARGUMENTS.Arg<F32>()
                                  .Ret<F32>().Ret<F32>().Ret<F32>().Ret<F32>()
                                  .Ret<F32>().Ret<F32>().Ret<F32>()
                                  .Attrs<Options>());
}  // namespace earthformer
