// Convolutions of planes with zeros around them, and the gradients of plane and kernel.
//
// A row of results is a sum of products, one for each row of the kernel: the windows of
// a row overlap in memory, so that the row itself serves as the matrix of its windows.
//
// The arguments are described in convolution.py.

#include <memory>

#include "layer.h"
#include "planes.h"
#include "threads.h"

namespace earthformer {
namespace {

constexpr int64_t kPositions = 128;  // about so many results are computed at once
constexpr int64_t kDepth = 128;      // at most so many rows of weights at once

struct Options {
  int64_t top, left;                    // rows and columns of zeros before the plane
  int64_t height, width;                // of the results, folded
  int64_t down, across;                 // phases of the results
  int64_t skip_top, skip_left;          // of their first rows and columns
  int64_t window_height, window_width;  // of a phase, in rows and columns of results
  int64_t threads;

  // Results, or gradients of them.
  Planes results(const F32& array) const {
    return {array, height, width, {down, across, skip_top, skip_left}};
  }
};

// Height and width of kernels.
struct Sides {
  int64_t height, width;
};

// Which points of the kernel the phases read: each its own window, which is smaller
// than the kernel for some. Other weights are zero, and their products are left out.
class Readers {
 public:
  // results: all of a position, in all phases.
  Readers(const Options& options, int64_t results)
      : phases(options.down * options.across),
        channels(results / phases),
        options_(options) {}

  const int64_t phases, channels;  // the channels are those of one phase

  // Whether any of some results reads the point.
  bool any(int64_t row, int64_t column, int64_t first, int64_t results) const {
    for (int64_t n = first / channels; n * channels < first + results; n++)
      if (row * options_.down < n / options_.across + options_.window_height &&
          column * options_.across < n % options_.across + options_.window_width)
        return true;
    return false;
  }

 private:
  const Options& options_;
};

// What the windows of a part of the results read, with zeros outside the planes.
class Surroundings {
 public:
  // top, left: rows and columns of zeros before the planes.
  // apart: floats between the channels of one position and those of the next.
  Surroundings(const Planes& planes, int64_t top, int64_t left, Sides kernel,
               const Parts& parts, int64_t apart, Scratch& scratch)
      : planes_(planes),
        top_(top),
        left_(left),
        kernel_(kernel),
        step_(planes.channels + apart),
        copy_(scratch.take(floats(planes, kernel, parts, apart))) {}

  static int64_t floats(const Planes& planes, Sides kernel, const Parts& parts,
                        int64_t apart) {
    return (parts.most_rows() + kernel.height - 1) *
           (parts.most_columns() + kernel.width - 1) * (planes.channels + apart);
  }

  // Floats from a position to the next.
  int64_t step() const { return step_; }

  // Where the window of the part's first result begins, and floats from a row to the
  // next. Nothing is copied where all windows lie inside the plane.
  Rows of(const Part& part) const {
    const int64_t top = part.top - top_, left = part.left - left_;
    const int64_t rows = part.height + kernel_.height - 1;
    const int64_t columns = part.width + kernel_.width - 1;
    const bool inside = top >= 0 && left >= 0 && top + rows <= planes_.height &&
                        left + columns <= planes_.width;
    if (inside && !planes_.folded() && step_ == planes_.channels)
      return {planes_.at(part.plane, top, left), planes_.width * planes_.channels};
    const Rows copied{copy_, columns * step_};
    for (int64_t row = 0; row < rows; row++)
      copy_row(part.plane, top + row, left, columns, copied.row(row));
    return copied;
  }

 private:
  void copy_row(int64_t plane, int64_t row, int64_t left, int64_t columns,
                float* to) const {
    const bool there = row >= 0 && row < planes_.height;
    const int64_t begin = there ? std::clamp<int64_t>(-left, 0, columns) : columns;
    const int64_t end =
        there ? std::clamp<int64_t>(planes_.width - left, begin, columns) : columns;
    std::fill(to, to + begin * step_, 0.0f);
    for (int64_t column = begin; column < end; column++)
      planes_.read(plane, row, left + column, 0, planes_.channels, to + column * step_);
    std::fill(to + end * step_, to + columns * step_, 0.0f);
  }

  const Planes& planes_;
  const int64_t top_, left_;
  const Sides kernel_;
  const int64_t step_;
  float* const copy_;
};

// A kernel `[height, width, channels, results]`, of whole vectors of results, and the
// biases of results.
class Kernel {
 public:
  // biases: null if there are none.
  // sections: of equally many channels, which are used or not.
  // used: whether some results use a section: used(row, column, section, first result,
  // number of results). All use at least one.
  template <typename Use>
  Kernel(const float* kernel, Sides sides, int64_t channels, int64_t results,
         const float* biases, int64_t sections, Use used)
      : sides(sides),
        depth_(sides.width * channels),
        results_(results),
        data_(const_cast<float*>(kernel)),
        biases_(biases) {
    const int64_t length = channels / sections;
    for (int64_t first = 0; first < results; first += kPanel)
      for (int64_t row = 0; row < sides.height; row++) {
        pieces_.emplace_back();
        for (int64_t n = 0; n < sides.width * sections; n++)
          if (used(row, n / sections, n % sections, first,
                   std::min(kPanel, results - first)))
            append(n * length, length);
        divide();
      }
  }

  const Sides sides;

  // Adds up the products of all rows of the kernel, and biases, for some results.
  // windows: as of `Surroundings`; `step` floats lie between positions.
  void multiply_by(Rows windows, int64_t step, const Part& part, int64_t first,
                   Rows out) const {
    const int64_t columns = std::min(kPanel, results_ - first);
    if (biases_)
      for (int64_t n = 0; n < part.height * part.width; n++)
        copy_floats(biases_ + first, columns, out.row(n));
    bool add = biases_;
    for (int64_t i = 0; i < sides.height; i++)
      for (const auto [begin, depth] : pieces_[first / kPanel * sides.height + i]) {
        const Rows own = rows(i, begin, first);
        for (int64_t row = 0; row < part.height; row++) {
          const Matrix left{windows.row(row + i) + begin, step, 1};
          multiply(left, part.width, depth, own, columns,
                   out.from_row(row * part.width), add);
        }
        add = true;
      }
  }

 private:
  // Some of the weights of a row of the kernel, and of the floats of its windows.
  struct Piece {
    int64_t begin, depth;
  };

  // To the last pieces.
  void append(int64_t begin, int64_t depth) {
    auto& pieces = pieces_.back();
    if (!pieces.empty() && pieces.back().begin + pieces.back().depth == begin)
      pieces.back().depth += depth;
    else
      pieces.push_back({begin, depth});
  }

  // The last pieces, to nearly equal ones that are not too deep.
  void divide() {
    std::vector<Piece> divided;
    for (const auto [begin, depth] : pieces_.back()) {
      const int64_t count = (depth + kDepth - 1) / kDepth;
      for (int64_t n = 0; n < count; n++) {
        const int64_t own = depth * n / count;
        divided.push_back({begin + own, depth * (n + 1) / count - own});
      }
    }
    pieces_.back() = divided;
  }

  Rows rows(int64_t row, int64_t begin, int64_t first) const {
    return {data_ + (row * depth_ + begin) * results_ + first, results_};
  }

  const int64_t depth_, results_;
  float* const data_;
  const float* const biases_;
  std::vector<std::vector<Piece>> pieces_;  // of each row, for each panel of results
};

// The kernel that takes results back to channels, `[taps, results, channels]`, with
// zeros after the channels up to whole vectors.
void turn_kernel(const float* kernel, int64_t taps, int64_t channels, int64_t results,
                 float* turned) {
  const int64_t wide = whole_vectors(channels);
  for (int64_t tap = 0; tap < taps; tap++) {
    const float* const from = kernel + (taps - 1 - tap) * channels * results;
    float* const to = turned + tap * results * wide;
    for (int64_t first = 0; first < wide; first += kLanes)
      for (int64_t result = 0; result < results; result++)
        for (int64_t channel = first; channel < first + kLanes; channel++)
          to[result * wide + channel] =
              channel < channels ? from[channel * results + result] : 0.0f;
  }
}

// results = planes convolved with the kernel.
void convolve(const Planes& planes, const Kernel& kernel, int64_t top, int64_t left,
              const Planes& results, Cores cores) {
  const Parts parts(results, kPositions);
  in_shares(parts.count(), cores, [&](int64_t begin, int64_t end, int64_t) {
    Scratch scratch(Surroundings::floats(planes, kernel.sides, parts, 0) +
                    parts.most_positions() * kPanel);
    const Surroundings surroundings(planes, top, left, kernel.sides, parts, 0, scratch);
    const Rows block{scratch.take(parts.most_positions() * kPanel), kPanel};
    for (int64_t n = begin; n < end; n++) {
      const Part part = parts(n);
      const Rows windows = surroundings.of(part);
      for (int64_t first = 0; first < results.channels; first += kPanel) {
        kernel.multiply_by(windows, surroundings.step(), part, first, block);
        const int64_t columns = std::min(kPanel, results.channels - first);
        for (int64_t row = 0; row < part.height; row++)
          for (int64_t column = 0; column < part.width; column++)
            results.write(part.plane, part.top + row, part.left + column, first,
                          columns, block.row(row * part.width + column));
      }
    }
  });
}

// Adds gradients of kernel and biases, of some parts of the results, to what is there.
class SharedGradient {
 public:
  SharedGradient(const Planes& planes, const Planes& dresults, Sides sides,
                 const Options& options, const Parts& parts, float* dkernel,
                 float* dbiases)
      : planes_(planes),
        dresults_(dresults),
        sides_(sides),
        parts_(parts),
        dkernel_(dkernel),
        dbiases_(dbiases),
        readers_(options, dresults.channels),
        scratch_(Surroundings::floats(planes, sides, parts, kApart) +
                 parts.most_positions() * kPanel),
        surroundings_(planes, options.top, options.left, sides, parts, kApart,
                      scratch_),
        block_{scratch_.take(parts.most_positions() * kPanel), kPanel} {}

  void add(int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; n++) {
      const Part part = parts_(n);
      const Rows windows = surroundings_.of(part);
      for (int64_t first = 0; first < dresults_.channels; first += kPanel) {
        const int64_t columns = std::min(kPanel, dresults_.channels - first);
        read_block(part, first, columns);
        for (int64_t tap = 0; tap < sides_.height * sides_.width; tap++)
          if (readers_.any(tap / sides_.width, tap % sides_.width, first, columns))
            add_tap(part, windows, tap, first, columns);
      }
    }
  }

 private:
  void read_block(const Part& part, int64_t first, int64_t columns) {
    for (int64_t row = 0; row < part.height; row++)
      for (int64_t column = 0; column < part.width; column++) {
        float* const to = block_.row(row * part.width + column);
        dresults_.read(part.plane, part.top + row, part.left + column, first, columns,
                       to);
        for (int64_t i = 0; i < columns; i += kLanes)
          add_to(dbiases_ + first + i, load(to + i));
      }
  }

  void add_tap(const Part& part, Rows windows, int64_t tap, int64_t first,
               int64_t columns) {
    const int64_t step = surroundings_.step(), channels = planes_.channels;
    const Rows to{dkernel_ + tap * channels * dresults_.channels + first,
                  dresults_.channels};
    const float* const from =
        windows.row(tap / sides_.width) + tap % sides_.width * step;
    multiply({from, 1, step}, channels, {part.width, part.height, windows.step}, block_,
             columns, to, true);
  }

  const Planes &planes_, &dresults_;
  const Sides sides_;
  const Parts& parts_;
  float *const dkernel_, *const dbiases_;
  const Readers readers_;
  Scratch scratch_;
  const Surroundings surroundings_;
  const Rows block_;
};

Sides sides_of(const F32& kernel) {
  return {kernel.dimensions()[0], kernel.dimensions()[1]};
}

ffi::Error call_convolution(ffi::ThreadPool pool, F32 x, F32 kernel, F32 bias, Out y,
                            Options options) {
  const Sides sides = sides_of(kernel);
  const Planes planes(x), results = options.results(*y);
  std::vector<float> biases;  // of all phases
  if (const int64_t count = bias.element_count())
    for (int64_t n = 0; n < results.channels; n++)
      biases.push_back(bias.typed_data()[n % count]);
  const Readers readers(options, results.channels);
  const auto used = [&](int64_t row, int64_t column, int64_t, int64_t first,
                        int64_t count) {
    return readers.any(row, column, first, count);
  };
  const Kernel own(kernel.typed_data(), sides, planes.channels, results.channels,
                   biases.empty() ? nullptr : biases.data(), 1, used);
  convolve(planes, own, options.top, options.left, results, {pool, options.threads});
  return ffi::Error::Success();
}

ffi::Error call_plane_gradient(ffi::ThreadPool pool, F32 dy, F32 kernel, Out dx,
                               Options options) {
  const Sides sides = sides_of(kernel);
  const Planes dresults = options.results(dy), planes(*dx);
  const int64_t wide = whole_vectors(planes.channels);
  const int64_t taps = sides.height * sides.width;
  const std::unique_ptr<float[]> data(new float[taps * dresults.channels * wide]);
  turn_kernel(kernel.typed_data(), taps, planes.channels, dresults.channels,
              data.get());
  const Readers readers(options, dresults.channels);
  const auto used = [&](int64_t row, int64_t column, int64_t phase, int64_t, int64_t) {
    return readers.any(sides.height - 1 - row, sides.width - 1 - column,
                       phase * readers.channels, readers.channels);
  };
  const Kernel turned(data.get(), sides, dresults.channels, wide, nullptr,
                      readers.phases, used);
  convolve(dresults, turned, sides.height - 1 - options.top,
           sides.width - 1 - options.left, planes, {pool, options.threads});
  return ffi::Error::Success();
}

ffi::Error call_kernel_gradient(ffi::ThreadPool pool, F32 x, F32 dy, Out dkernel,
                                Out dbias, Options options) {
  const Planes planes(x), dresults = options.results(dy);
  const Parts parts(dresults, kPositions);
  const int64_t count = shares(parts.count(), options.threads);
  Scratch folded(dresults.channels);
  float* const of_phases = folded.take(dresults.channels);
  Sums sums(dkernel->typed_data(), dkernel->element_count(), count);
  Sums bias_sums(of_phases, dresults.channels, count);
  in_shares(parts.count(), {pool, count},
            [&](int64_t begin, int64_t end, int64_t share) {
              SharedGradient(planes, dresults, sides_of(*dkernel), options, parts,
                             sums.of(share), bias_sums.of(share))
                  .add(begin, end);
            });
  sums.add_up();
  bias_sums.add_up();
  if (const int64_t biases = dbias->element_count()) {
    std::fill(dbias->typed_data(), dbias->typed_data() + biases, 0.0f);
    for (int64_t n = 0; n < dresults.channels; n++)
      dbias->typed_data()[n % biases] += of_phases[n];
  }
  return ffi::Error::Success();
}

}  // namespace
}  // namespace earthformer

XLA_FFI_REGISTER_STRUCT_ATTR_DECODING(
    earthformer::Options, ffi::StructMember<int64_t>("top"),
    ffi::StructMember<int64_t>("left"), ffi::StructMember<int64_t>("height"),
    ffi::StructMember<int64_t>("width"), ffi::StructMember<int64_t>("down"),
    ffi::StructMember<int64_t>("across"), ffi::StructMember<int64_t>("skip_top"),
    ffi::StructMember<int64_t>("skip_left"),
    ffi::StructMember<int64_t>("window_height"),
    ffi::StructMember<int64_t>("window_width"), ffi::StructMember<int64_t>("threads"));

#define ARGUMENTS ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().Arg<F32>().Arg<F32>()
namespace earthformer {
XLA_FFI_DEFINE_HANDLER_SYMBOL(convolution, call_convolution,
                              ARGUMENTS.Arg<F32>().Ret<F32>().Attrs<Options>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(convolution_plane_gradient, call_plane_gradient,
                              ARGUMENTS.Ret<F32>().Attrs<Options>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(convolution_kernel_gradient, call_kernel_gradient,
                              ARGUMENTS.Ret<F32>().Ret<F32>().Attrs<Options>());
}  // namespace earthformer
