// Group norm of planes with a leaky ReLU after it, and the gradient.
//
// A plane is read once for its means and variances and once for the result; the
// gradient reads it once more. Sums are those of pieces that stay in the core's cache,
// added up in double precision.
//
// The arguments are described in group_norm.py.

#include <cmath>

#include "arrays.h"
#include "layer.h"
#include "threads.h"

namespace earthformer {
namespace {

constexpr int64_t kPiece = 4096;  // floats

struct Options {
  int64_t groups;
  float epsilon, slope;  // added to variances; of the leaky ReLU where it is below zero
  int64_t threads;
};

struct Arguments {
  F32 x;  // [planes, height, width, channels]
  F32 scale, offset;

  int64_t planes() const { return x.dimensions()[0]; }
  int64_t positions() const { return x.dimensions()[1] * x.dimensions()[2]; }
  int64_t channels() const { return x.dimensions()[3]; }
  int64_t floats() const { return positions() * channels(); }
};

// Sums over a plane, for every channel.
using Totals = std::vector<double>;

// What a vector of channels of one plane is normalised with.
struct Channels {
  Floats mean, inverse, scale, offset;
  float slope;

  Floats standardised(Floats x) const { return (x - mean) * inverse; }
  // A gradient, back through the leaky ReLU.
  Floats before_relu(Floats dout, Floats standard) const {
    return standard * scale + offset >= 0.0f ? dout : dout * slope;
  }
};

// The norm of one plane after the other.
class Norms {
 public:
  Norms(const Arguments& given, const Options& options)
      : given_(given),
        options_(options),
        members_(given.channels() / options.groups),
        mean_(given.channels()),
        inverse_(given.channels()) {}

  void forward(int64_t plane, float* out) {
    const float* const x = measured(plane);
    const int64_t c = given_.channels();
    each_piece([&](int64_t first, int64_t end, int64_t channel) {
      const Channels own = channels(channel);
      for (int64_t n = first + channel; n < end; n += c) {
        const Floats y = own.standardised(load(x + n)) * own.scale + own.offset;
        store(out + n, y >= 0.0f ? y : y * own.slope);
      }
    });
  }

  // Adds to the gradients of scale and offset.
  void backward(int64_t plane, const float* dout, float* dx, float* dscale,
                float* doffset) {
    const float* const x = measured(plane);
    const int64_t c = given_.channels();
    Totals changes(c), along(c);
    each_piece([&](int64_t first, int64_t end, int64_t channel) {
      const Channels own = channels(channel);
      Floats change{}, tilt{};
      for (int64_t n = first + channel; n < end; n += c) {
        const Floats standard = own.standardised(load(x + n));
        const Floats dy = own.before_relu(load(dout + n), standard);
        change += dy;
        tilt += dy * standard;
      }
      for (int i = 0; i < kLanes; i++) {
        changes[channel + i] += change[i];
        along[channel + i] += tilt[i];
      }
    });
    for (int64_t n = 0; n < c; n++) {
      doffset[n] += changes[n];
      dscale[n] += along[n];
    }
    const std::vector<float> levels = of_groups(changes), tilts = of_groups(along);
    each_piece([&](int64_t first, int64_t end, int64_t channel) {
      const Channels own = channels(channel);
      const Floats level = load(&levels[channel]), tilt = load(&tilts[channel]);
      for (int64_t n = first + channel; n < end; n += c) {
        const Floats standard = own.standardised(load(x + n));
        const Floats dy = own.before_relu(load(dout + n), standard) * own.scale;
        store(dx + n, (dy - level - standard * tilt) * own.inverse);
      }
    });
  }

 private:
  // Calls use(first, end, channel) for pieces of a plane, for every vector of channels.
  template <typename Use>
  void each_piece(Use use) const {
    const int64_t c = given_.channels(), all = given_.floats();
    const int64_t piece = std::max<int64_t>(1, kPiece / c) * c;
    for (int64_t first = 0; first < all; first += piece)
      for (int64_t channel = 0; channel < c; channel += kLanes)
        use(first, std::min(first + piece, all), channel);
  }

  // A plane, after its means and deviations are computed.
  const float* measured(int64_t plane) {
    const float* const x = given_.x.typed_data() + plane * given_.floats();
    const int64_t c = given_.channels();
    Totals means(c), squares(c);  // of distances from the mean
    each_piece([&](int64_t first, int64_t end, int64_t channel) {
      Floats total{}, square{};
      for (int64_t n = first + channel; n < end; n += c) total += load(x + n);
      const double before = first / c, count = (end - first) / c;
      const Floats own = total / static_cast<float>(count);
      for (int64_t n = first + channel; n < end; n += c) {
        const Floats centred = load(x + n) - own;
        square += centred * centred;
      }
      // Chan et al. 1983, Algorithms for computing the sample variance.
      for (int i = 0; i < kLanes; i++) {
        double& mean = means[channel + i];
        const double apart = own[i] - mean;
        mean += apart * (count / (before + count));
        squares[channel + i] +=
            square[i] + apart * apart * (before * count / (before + count));
      }
    });
    for (int64_t first = 0; first < c; first += members_) {
      double mean = 0.0, square = 0.0;
      for (int64_t n = first; n < first + members_; n++) mean += means[n] / members_;
      for (int64_t n = first; n < first + members_; n++) {
        const double apart = means[n] - mean;
        square += squares[n] / given_.positions() + apart * apart;
      }
      const double inverse = 1.0 / std::sqrt(square / members_ + options_.epsilon);
      std::fill_n(&mean_[first], members_, static_cast<float>(mean));
      std::fill_n(&inverse_[first], members_, static_cast<float>(inverse));
    }
    return x;
  }

  // Of every channel the mean, over its group, of totals times scale.
  std::vector<float> of_groups(const Totals& totals) const {
    std::vector<float> found(totals.size());
    for (int64_t first = 0; first < given_.channels(); first += members_) {
      double sum = 0.0;
      for (int64_t n = first; n < first + members_; n++)
        sum += totals[n] * given_.scale.typed_data()[n];
      std::fill_n(&found[first], members_,
                  static_cast<float>(sum / members_ / given_.positions()));
    }
    return found;
  }

  Channels channels(int64_t first) const {
    return {load(&mean_[first]), load(&inverse_[first]),
            load(given_.scale.typed_data() + first),
            load(given_.offset.typed_data() + first), options_.slope};
  }

  const Arguments& given_;
  const Options& options_;
  const int64_t members_;              // channels of a group
  std::vector<float> mean_, inverse_;  // of every channel's group
};

ffi::Error call_forward(ffi::ThreadPool pool, F32 x, F32 scale, F32 offset, Out out,
                        Options options) {
  const Arguments given{x, scale, offset};
  in_shares(given.planes(), {pool, options.threads},
            [&](int64_t begin, int64_t end, int64_t) {
              Norms norms(given, options);
              for (int64_t n = begin; n < end; n++)
                norms.forward(n, out->typed_data() + n * given.floats());
            });
  return ffi::Error::Success();
}

ffi::Error call_backward(ffi::ThreadPool pool, F32 x, F32 scale, F32 offset, F32 dout,
                         Out dx, Out dscale, Out doffset, Options options) {
  const Arguments given{x, scale, offset};
  const int64_t c = given.channels(), parts = shares(given.planes(), options.threads);
  Sums scales(dscale->typed_data(), c, parts), offsets(doffset->typed_data(), c, parts);
  in_shares(given.planes(), {pool, parts},
            [&](int64_t begin, int64_t end, int64_t part) {
              Norms norms(given, options);
              for (int64_t n = begin; n < end; n++) {
                const int64_t first = n * given.floats();
                norms.backward(n, dout.typed_data() + first, dx->typed_data() + first,
                               scales.of(part), offsets.of(part));
              }
            });
  scales.add_up();
  offsets.add_up();
  return ffi::Error::Success();
}

}  // namespace
}  // namespace earthformer

XLA_FFI_REGISTER_STRUCT_ATTR_DECODING(earthformer::Options,
                                      ffi::StructMember<int64_t>("groups"),
                                      ffi::StructMember<float>("epsilon"),
                                      ffi::StructMember<float>("slope"),
                                      ffi::StructMember<int64_t>("threads"));

#define ARGUMENTS Ctx<ffi::ThreadPool>().Arg<F32>().Arg<F32>().Arg<F32>()
namespace earthformer {
XLA_FFI_DEFINE_HANDLER_SYMBOL(group_norm, call_forward,
                              ffi::Ffi::Bind().ARGUMENTS.Ret<F32>().Attrs<Options>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(group_norm_gradient, call_backward,
                              ffi::Ffi::Bind()
                                  .ARGUMENTS.Arg<F32>()
                                  .Ret<F32>()
                                  .Ret<F32>()
                                  .Ret<F32>()
                                  .Attrs<Options>());
}  // namespace earthformer
