// A field of images: evaluations and vector-Jacobian products.
//
// The field is f(t, y) = N_L(z_L) with z_l = conv(relu(N_l(z_{l-1}))) + bias + t * drift, z_0 = y: N normalises groups of
// channels, the convolutions are 3x3 with a border of zeros, and drift [channels height width] is what a constant channel
// of ones contributes. The caller gives the convolutions' weights by Winograd's points (winograd.hpp).
//
// Images are independent of one another. As many as a vector has lanes go through together, one in each lane: norms and
// Winograd's maps are then sums of vectors, and the products have a column for each tile and lane.
#pragma once

#include "steps.hpp"
#include "winograd.hpp"

namespace convolution {

// A norm, and unless it is the last one what follows it up to the next: weight [25][n_out][n_in].
template <class T>
struct Layer {
  const T *weight, *bias, *drift, *gain, *offset;
  T *grad_weight, *grad_bias, *grad_drift, *grad_gain, *grad_offset;
  int64_t n_in, n_out;
};

template <class T>
struct Problem {
  const Layer<T>* layers;  // [n_layers]
  int64_t n_layers, groups, height, across, rows, apart;
  T eps;

  int64_t plane() const { return height * across; }
  int64_t width() const { return layers[0].n_in * plane(); }

  Layer<T> layer(int64_t stage, int64_t l) const {
    Layer<T> found = layers[l];
    for (T** grad : {&found.grad_weight, &found.grad_bias, &found.grad_drift, &found.grad_gain, &found.grad_offset})
      if (*grad) *grad += stage * apart;
    return found;
  }
};

// Numbers that the convolutions' results take for one row.
template <class T>
static int64_t product_numbers(const Problem<T>& problem) {
  int64_t numbers = 0;
  for (int64_t l = 0; l + 1 < problem.n_layers; ++l) numbers += problem.layers[l].n_out * problem.plane();
  return numbers;
}

// That is kept of one stage: whole vectors of rows.
template <class T>
static int64_t kept_numbers(const Problem<T>& problem) {
  return padded<T>(problem.rows) * product_numbers(problem);
}

// Sum of n terms, in as many sums as hide an addition's latency.
template <class V, class Term>
static V sum_over(int64_t n, Term term) {
  V sums[4] = {};
  int64_t i = 0;
  for (; i + 4 <= n; i += 4)
    UNROLL
    for (int j = 0; j < 4; ++j) sums[j] += term(i + j);
  for (; i < n; ++i) sums[0] += term(i);
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

// The field, as steps.hpp has it. A block's numbers lie in vectors: those of all its rows at one place together.
template <class T>
class Field {
  using V = Vec<T>;
  static constexpr int64_t L = LANES<T>;
  static constexpr int64_t CHUNK = 4 * TILE_ROWS;  // channels whose products are in the cache until they are used

 public:
  const int64_t block = L;
  const bool recalls;

  Field(const Problem<T>& problem, const Step<T>& step, Use use, int64_t)
      : recalls(use != Use::ADJOINT),
        problem_(problem),
        step_(step),
        apart_(use == Use::ADJOINT),
        last_(problem.n_layers - 1),
        most_(most_channels(problem)),
        tiles_(problem.height, problem.across),
        plane_(problem.plane() * L),
        far_(most_ * tiles_.columns() + L),  // or the points of a channel would share a set of the cache
        own_(buffers<T>(use == Use::REPLAY ? step.n_stages : 1, product_numbers(problem) * L)),
        points_(PRODUCTS * far_),
        chunk_(PRODUCTS * (CHUNK * tiles_.columns() + L)),
        by_points_(use == Use::STEPS ? 0 : PRODUCTS * far_),
        across_(use == Use::STEPS ? 0 : tiles_.columns() * padded<T>(most_)),
        cotangents_(buffers<T>(2, use == Use::STEPS ? 0 : most_ * plane_)) {
    for (int64_t l = 0; l <= last_; ++l) {
      activated_.emplace_back(problem.layers[l].n_in * plane_);
      means_.emplace_back(problem.groups * L);
      scales_.emplace_back(problem.groups * L);
    }
    for (int64_t s = 0; s < step.n_stages; ++s) {
      maps_.emplace_back();
      by_map_.emplace_back();
      for (int64_t l = 0; l < last_; ++l) {
        maps_[s].push_back(map_at(problem.layers[l], step.time[s]));
        by_map_[s].emplace_back(use == Use::STEPS ? 0 : maps_[s][l].size());
      }
    }
    const int64_t n_sums = use == Use::STEPS ? 0 : apart_ ? step.n_stages : 1;
    for (int64_t n = 0; n < n_sums; ++n) sums_.emplace_back(problem);
  }

  int64_t numbers(int64_t) const { return problem_.width() * L; }
  T* place(T*, int64_t, int64_t, T* room) const { return room; }

  // Lanes without a row repeat the first: of zeros a norm would be without bounds.
  const T* read(const T* all, int64_t first, int64_t rows, T* room) const {
    read_cotangent(all, first, rows, room);
    if (rows < L)
      for (int64_t i = 0; i < problem_.width(); ++i) std::fill(room + i * L + rows, room + (i + 1) * L, room[i * L]);
    return room;
  }

  const T* read_cotangent(const T* all, int64_t first, int64_t rows, T* room) const {
    const int64_t width = problem_.width();
    if (rows < L) std::fill_n(room, width * L, T(0));
    transpose(rows, width, all + first * width, width, room, L);
    return room;
  }

  void write(const T* from, T* all, int64_t first, int64_t rows) const {
    const int64_t width = problem_.width();
    transpose(width, rows, from, L, all + first * width, width);
  }

  void evaluate(int64_t s, int64_t first, int64_t, const T* y, T* dy, T* kept) {
    find_products(s, first, kept);
    const T* z = start_ = y;
    for (int64_t l = 0; l < last_; ++l) {
      normalise(l, z, true, activated_[l].data());
      convolve(s, l);
      z = products_[l];
    }
    normalise(last_, z, false, dy);
  }

  void values(int64_t s, int64_t first, int64_t, T* kept, T* dy) {
    find_products(s, first, kept);
    normalise(last_, products_.back(), false, dy);
  }

  void recall(int64_t s, int64_t first, int64_t, const T* y, T* kept) {
    find_products(s, first, kept);
    start_ = y;
    for (int64_t l = 0; l <= last_; ++l)
      normalise(l, l ? products_[l - 1] : y, l < last_, l < last_ ? activated_[l].data() : nullptr);
  }

  void pull(int64_t s, int64_t, const T* g, T* gy) {
    Sums& sums = sums_[apart_ ? s : 0];
    T *above = cotangents_[0].data(), *below = cotangents_[1].data();
    pull_norm(last_, last_ ? products_[last_ - 1] : start_, g, above, sums);
    for (int64_t l = last_ - 1; l >= 0; --l) {
      pull_convolution(s, l, above, below, sums);
      const V* active = (const V*)activated_[l].data();
      for (int64_t i = 0; i < problem_.layers[l].n_in * plane_ / L; ++i) {
        V& own = ((V*)below)[i];
        own = active[i] > 0 ? own : V{};
      }
      pull_norm(l, l ? products_[l - 1] : start_, below, above, sums);
    }
    for (int64_t i = 0; i < numbers(0); ++i) gy[i] += above[i];
  }

  void collect(int64_t begin, int64_t end) const {
    for (int64_t l = 0; l <= last_; ++l) {
      for (int64_t s = begin; s < end && l < last_; ++s) {
        const Layer<T> layer = problem_.layer(s, l);
        for (int64_t i = 0; i < layer.n_out * problem_.plane(); ++i) {
          layer.grad_bias[i / problem_.plane()] += by_map_[s][l][i];
          layer.grad_drift[i] += step_.time[s] * by_map_[s][l][i];
        }
      }
      for (int64_t s = apart_ ? begin : 0; s < (apart_ ? end : 1); ++s) sums_[s].add_to(problem_.layer(s, l), l);
    }
  }

 private:
  // Gradients that are summed over rows, and over stages unless they are apart.
  struct Sums {
    std::vector<Buffer<T>> weight, gain, offset;  // of norms: a vector for each channel

    explicit Sums(const Problem<T>& problem) {
      for (int64_t l = 0; l < problem.n_layers; ++l) {
        const Layer<T>& layer = problem.layers[l];
        const int64_t size = layer.weight ? PRODUCTS * layer.n_out * padded<T>(layer.n_in) : 0;
        std::fill_n(weight.emplace_back(size).data(), size, T(0));
        for (auto* sums : {&gain, &offset}) std::fill_n(sums->emplace_back(layer.n_in * L).data(), layer.n_in * L, T(0));
      }
    }

    void add_to(const Layer<T>& layer, int64_t l) const {
      for (int64_t c = 0; c < layer.n_in; ++c) {
        layer.grad_gain[c] += sum_of<T>(((const V*)gain[l].data())[c]);
        layer.grad_offset[c] += sum_of<T>(((const V*)offset[l].data())[c]);
      }
      if (!layer.weight) return;
      for (int64_t o = 0; o < PRODUCTS * layer.n_out; ++o)
        for (int64_t i = 0; i < layer.n_in; ++i)
          layer.grad_weight[o * layer.n_in + i] += weight[l].data()[o * padded<T>(layer.n_in) + i];
    }
  };

  static int64_t most_channels(const Problem<T>& problem) {
    int64_t most = 0;
    for (int64_t l = 0; l < problem.n_layers; ++l) most = std::max(most, problem.layers[l].n_in);
    return most;
  }

  std::vector<T> map_at(const Layer<T>& layer, T time) const {
    std::vector<T> map(layer.n_out * problem_.plane());
    for (size_t i = 0; i < map.size(); ++i) map[i] = layer.bias[i / problem_.plane()] + time * layer.drift[i];
    return map;
  }

  // Have the convolutions' results of a block where the caller keeps them, or here for null.
  void find_products(int64_t s, int64_t first, T* kept) {
    T* next = kept ? kept + first * product_numbers(problem_) : own_[own_.size() > 1 ? s : 0].data();
    products_.clear();
    for (int64_t l = 0; l < last_; ++l) {
      products_.push_back(next);
      next += problem_.layers[l].n_out * plane_;
    }
  }

  // Normalise groups of channels, whose means and scales are kept; what comes out too, if there is a place for it.
  void normalise(int64_t l, const T* x, bool relu, T* to) {
    const Layer<T>& layer = problem_.layers[l];
    const int64_t plane = plane_ / L, n = layer.n_in / problem_.groups * plane;
    for (int64_t group = 0; group < problem_.groups; ++group) {
      const V* in = (const V*)x + group * n;
      const V mean = sum_over<V>(n, [=](int64_t i) { return in[i]; }) / T(n);
      V scale = sum_over<V>(n, [=](int64_t i) { return (in[i] - mean) * (in[i] - mean); }) / T(n) + problem_.eps;
      for (int lane = 0; lane < L; ++lane) scale[lane] = T(1) / std::sqrt(scale[lane]);
      ((V*)means_[l].data())[group] = mean;
      ((V*)scales_[l].data())[group] = scale;
      if (!to) continue;
      V* out = (V*)to + group * n;
      for (int64_t i = 0; i < n; i += plane) {
        const int64_t channel = (group * n + i) / plane;
        const V slope = scale * layer.gain[channel], shift = layer.offset[channel] - mean * slope;
        for (int64_t place = i; place < i + plane; ++place) {
          const V value = in[place] * slope + shift;
          out[place] = relu ? (value < 0 ? V{} : value) : value;  // what is no number stays none
        }
      }
    }
  }

  // From the cotangent of what a norm gives to that of what it takes.
  void pull_norm(int64_t l, const T* taken, const T* given, T* to, Sums& sums) {
    const Layer<T>& layer = problem_.layers[l];
    const int64_t plane = plane_ / L, n = layer.n_in / problem_.groups * plane;
    for (int64_t group = 0; group < problem_.groups; ++group) {
      const V mean = ((const V*)means_[l].data())[group], scale = ((const V*)scales_[l].data())[group];
      const V *in = (const V*)taken + group * n, *by_out = (const V*)given + group * n;
      V by_mean{}, by_scale{};
      for (int64_t i = 0; i < n; i += plane) {
        const int64_t channel = (group * n + i) / plane;
        const V *x = in + i, *g = by_out + i;
        const V by_offset = sum_over<V>(plane, [=](int64_t j) { return g[j]; });
        const V by_gain = sum_over<V>(plane, [=](int64_t j) { return g[j] * (x[j] - mean); }) * scale;
        ((V*)sums.offset[l].data())[channel] += by_offset;
        ((V*)sums.gain[l].data())[channel] += by_gain;
        by_mean += layer.gain[channel] * by_offset;
        by_scale += layer.gain[channel] * by_gain;
      }
      const V slope = by_scale * scale * scale / T(n), shift = by_mean * scale / T(n);
      V* out = (V*)to + group * n;
      for (int64_t i = 0; i < n; i += plane) {
        const V gain = scale * layer.gain[(group * n + i) / plane];
        for (int64_t place = i; place < i + plane; ++place)
          out[place] = by_out[place] * gain - shift - (in[place] - mean) * slope;
      }
    }
  }

  void convolve(int64_t s, int64_t l) {
    const Layer<T>& layer = problem_.layers[l];
    const int64_t columns = tiles_.columns(), near = CHUNK * columns + L;
    take_all(l);
    for (int64_t o = 0; o < layer.n_out; o += CHUNK) {
      const int64_t many = std::min(CHUNK, layer.n_out - o);
      for (int64_t p = 0; p < PRODUCTS; ++p)
        multiply<T>(many, columns, layer.n_in, layer.weight + (p * layer.n_out + o) * layer.n_in, layer.n_in, 1,
                    points_.data() + p * far_, columns, chunk_.data() + p * near, columns, false);
      for (int64_t i = 0; i < many; ++i)
        tiles_.give(chunk_.data() + i * columns, near, maps_[s][l].data() + (o + i) * problem_.plane(),
                    products_[l] + (o + i) * plane_);
    }
  }

  // Bring what convolution l takes to its points.
  void take_all(int64_t l) {
    for (int64_t c = 0; c < problem_.layers[l].n_in; ++c)
      tiles_.take(activated_[l].data() + c * plane_, points_.data() + c * tiles_.columns(), far_);
  }

  // From the cotangent g of what a convolution gives to that of what it takes.
  void pull_convolution(int64_t s, int64_t l, const T* g, T* to, Sums& sums) {
    const Layer<T>& layer = problem_.layers[l];
    const int64_t columns = tiles_.columns(), near = CHUNK * columns + L, ld = padded<T>(layer.n_in);
    T *by_points = by_points_.data(), *across = across_.data();
    for (int64_t o = 0; o < layer.n_out; ++o) tiles_.give_adjoint(g + o * plane_, by_points + o * columns, far_);
    add_sums<T>(layer.n_out * problem_.plane(), (const V*)g, by_map_[s][l].data());
    take_all(l);
    for (int64_t p = 0; p < PRODUCTS; ++p) {
      transpose(layer.n_in, columns, points_.data() + p * far_, columns, across, ld);
      multiply<T>(layer.n_out, layer.n_in, columns, by_points + p * far_, columns, 1, across, ld,
                  sums.weight[l].data() + p * layer.n_out * ld, ld, true);
    }
    for (int64_t c = 0; c < layer.n_in; c += CHUNK) {
      const int64_t many = std::min(CHUNK, layer.n_in - c);
      for (int64_t p = 0; p < PRODUCTS; ++p)
        multiply<T>(many, columns, layer.n_out, layer.weight + p * layer.n_out * layer.n_in + c, 1, layer.n_in,
                    by_points + p * far_, columns, chunk_.data() + p * near, columns, false);
      for (int64_t i = 0; i < many; ++i) tiles_.take_adjoint(chunk_.data() + i * columns, near, to + (c + i) * plane_);
    }
  }

  const Problem<T>& problem_;
  const Step<T>& step_;
  const bool apart_;
  const int64_t last_, most_;
  Tiles<T> tiles_;
  const int64_t plane_, far_;
  std::vector<Buffer<T>> own_;
  Buffer<T> points_, chunk_, by_points_, across_;
  std::vector<Buffer<T>> cotangents_, activated_, means_, scales_;
  std::vector<std::vector<std::vector<T>>> maps_, by_map_;  // [stage][layer]
  std::vector<Sums> sums_;
  std::vector<T*> products_;
  const T* start_ = nullptr;
};

}  // namespace convolution
