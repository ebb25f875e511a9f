// A perceptron field with tangents: evaluations and vector-Jacobian products.
//
// The field is f(t, y) = z_L with z_l = W_l(t) h_{l-1} + b_l(t), h_0 = y, h_l = act(z_l); a layer's map depends on the
// time through an optional gate and shift, W(t) = gate(t) * W, b(t) = gate(t) * b + t * shift, where
// gate(t) = sigmoid(t gate_w + gate_b). Tangents follow by u_l = W_l v_{l-1}, v_l = act'(z_l) * u_l, from v_0 = probe;
// the state's last column, where there are probes, integrates scale * sum_p probe_p . u_L,p. Or, with two layers without
// gates (folded), it integrates the trace itself, sum_i act'(z_1,i) c_i with c_i = sum_d W_2,di W_1,id.
//
// Or the caller gives the maps of every stage (per_stage), where they depend on the time in another way. Or he wants
// the gradients of every stage by themselves (apart), in places that lie so many numbers apart.
//
// The values and tangents of a layer are one matrix product.
#pragma once

#include "steps.hpp"

namespace perceptron {

#ifndef CACHE_BYTES
constexpr int64_t CACHE_BYTES = 600 << 10;
#endif

template <class T>
struct Layer {
  const T *weight, *bias, *gate_weight, *gate_bias, *shift;  // gate and shift may be null
  T *grad_weight, *grad_bias, *grad_gate_weight, *grad_gate_bias, *grad_shift;
  int64_t n_in, n_out, stride;  // stride: of weight's rows
};

template <class T>
struct Problem {
  const Layer<T>* layers;  // [n_layers], or [stages n_layers]
  const T* noise;          // [probes rows dim]
  int64_t n_layers, dim, n_probes, rows, softplus, per_stage, folded, apart;
  T scale;

  int64_t width() const { return dim + (n_probes > 0 || folded); }

  Layer<T> layer(int64_t stage, int64_t l) const {
    Layer<T> found = layers[(per_stage ? stage : 0) * n_layers + l];
    for (T** grad : {&found.grad_weight, &found.grad_bias, &found.grad_gate_weight, &found.grad_gate_bias,
                     &found.grad_shift})
      if (*grad) *grad += stage * apart;
    return found;
  }
};

// ---- activations; float32 without branches, so that the loops below become vector code ----

static inline float exp_(float x) {
  x = std::min(std::max(x, -87.0f), 88.0f);
  const float n = std::nearbyint(x * 1.44269504088896341f);
  float r = x - n * 0.693359375f + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const int32_t bits = (static_cast<int32_t>(n) + 127) << 23;
  float power;
  std::memcpy(&power, &bits, sizeof power);
  return p * power;
}
static inline float tanh_(float x) {
  // x P(x^2) / Q(x^2), the minimax coefficients that Eigen has for float32; beyond the clamp tanh is 1 to rounding
  const float c = std::min(std::max(x, -7.90531110763549805f), 7.90531110763549805f), z = c * c;
  float p = -2.76076847742355e-16f;
  p = p * z + 2.00018790482477e-13f;
  p = p * z - 8.60467152213735e-11f;
  p = p * z + 5.12229709037114e-08f;
  p = p * z + 1.48572235717979e-05f;
  p = p * z + 6.37261928875436e-04f;
  p = p * z + 4.89352455891786e-03f;
  float q = 1.19825839466702e-06f;
  q = q * z + 1.18534705686654e-04f;
  q = q * z + 2.26843463243900e-03f;
  q = q * z + 4.89352518554385e-03f;
  return std::fabs(x) < 4e-4f ? x : c * p / q;
}
static inline float log1p_(float x) {  // for x in [0, 1]
  // log(1 + x) = 2 atanh(x / (2 + x)); its argument is at most 1/3
  const float s = x / (2.0f + x), z = s * s;
  float p = 2.0f / 13.0f;
  p = p * z + 2.0f / 11.0f;
  p = p * z + 2.0f / 9.0f;
  p = p * z + 2.0f / 7.0f;
  p = p * z + 2.0f / 5.0f;
  p = p * z + 2.0f / 3.0f;
  return s * (p * z + 2.0f);
}
static inline double exp_(double x) { return std::exp(x); }
static inline double tanh_(double x) { return std::tanh(x); }
static inline double log1p_(double x) { return std::log1p(x); }

template <class T>
static inline T sigmoid_(T x) {
  return T(1) / (T(1) + exp_(-x));
}
template <class T>
static inline T softplus_(T x) {  // torch's is x itself above 20
  return x > T(20) ? x : std::max(x, T(0)) + log1p_(exp_(-std::fabs(x)));
}
// ---- the layers ----

// The weights as matrix products read them, in panels of [in][out padded] and [out][in padded], without their gates: a
// gate scales the product's columns, so that all stages share the weights and the cache holds them once.
template <class T>
struct Weights {
  std::vector<Buffer<T>> forward, backward;

  Weights(const Problem<T>& problem, int64_t stage, bool both) {
    for (int64_t l = 0; l < problem.n_layers; ++l) {
      const Layer<T> layer = problem.layer(stage, l);
      const int64_t n_in = layer.n_in, n_out = layer.n_out, ld_out = padded<T>(n_out), ld_in = padded<T>(n_in);
      const T* from = layer.weight;
      const int64_t stride = layer.stride;
      pack_columns<T>(n_out, n_in, [=](int64_t i, int64_t o) { return from[o * stride + i]; },
              forward.emplace_back(n_in * ld_out).data());
      T* back = backward.emplace_back(both ? n_out * ld_in : 0).data();
      if (both) pack_columns<T>(n_in, n_out, [=](int64_t o, int64_t i) { return from[o * stride + i]; }, back);
    }
  }
};

// What depends on the time of one stage: gate and bias, and their gradients, summed over rows.
template <class T>
struct Columns {
  std::vector<std::vector<T>> gate, bias, grad_gate, grad_bias;
  std::vector<T> trace, grad_trace;  // c, if folded

  Columns(const Problem<T>& problem, int64_t stage, T time) {
    for (int64_t l = 0; l < problem.n_layers; ++l) {
      const Layer<T> layer = problem.layer(stage, l);
      std::vector<T> g(padded<T>(layer.n_out), T(1)), b(g.size());
      for (int64_t o = 0; o < layer.n_out; ++o) {
        if (layer.gate_weight) g[o] = sigmoid_(layer.gate_weight[o] * time + layer.gate_bias[o]);
        b[o] = layer.bias[o] * g[o] + (layer.shift ? layer.shift[o] * time : T(0));
      }
      grad_gate.emplace_back(g.size());
      grad_bias.emplace_back(g.size());
      gate.push_back(std::move(g));
      bias.push_back(std::move(b));
    }
    if (!problem.folded) return;
    const Layer<T> first = problem.layer(stage, 0), last = problem.layer(stage, 1);
    trace.resize(padded<T>(first.n_out));
    grad_trace.resize(trace.size());
    for (int64_t i = 0; i < first.n_out; ++i)
      for (int64_t d = 0; d < problem.dim; ++d)
        trace[i] += first.weight[i * first.stride + d] * last.weight[d * last.stride + i];
  }

  // Add the gradients to the parameters'.
  void fold(const Problem<T>& problem, int64_t stage, T time) const {
    for (int64_t l = 0; l < problem.n_layers; ++l) {
      const Layer<T> layer = problem.layer(stage, l);
      for (int64_t o = 0; o < layer.n_out; ++o) {
        const T g = gate[l][o], by_bias = grad_bias[l][o];
        layer.grad_bias[o] += g * by_bias;
        if (layer.shift) layer.grad_shift[o] += time * by_bias;
        if (!layer.gate_weight) continue;
        const T slope = (grad_gate[l][o] + by_bias * layer.bias[o]) * g * (T(1) - g);
        layer.grad_gate_weight[o] += slope * time;
        layer.grad_gate_bias[o] += slope;
      }
    }
    if (!problem.folded) return;
    const Layer<T> first = problem.layer(stage, 0), last = problem.layer(stage, 1);
    for (int64_t i = 0; i < first.n_out; ++i)
      for (int64_t d = 0; d < problem.dim; ++d) {
        first.grad_weight[i * first.n_in + d] += grad_trace[i] * last.weight[d * last.stride + i];
        last.grad_weight[d * last.n_in + i] += grad_trace[i] * first.weight[i * first.stride + d];
      }
  }
};

// ---- one evaluation of the field on a block of rows ----

// Numbers that the products of all layers take for one row.
template <class T>
static int64_t product_numbers(const Problem<T>& problem) {
  int64_t numbers = 0;
  for (int64_t l = 0; l < problem.n_layers; ++l) numbers += padded<T>(problem.layers[l].n_out) * (1 + problem.n_probes);
  return numbers;
}

// That is kept of one stage.
template <class T>
static int64_t kept_numbers(const Problem<T>& problem) {
  return problem.rows * product_numbers(problem);
}

// For each layer: `in`, what it multiplies (values, then tangents, each [rows][padded]); `out`, its product before gate
// and bias; `slope`, act' at its values. The products lie here, or where the caller keeps those of a stage.
template <class T>
struct Activations {
  std::vector<Buffer<T>> in, slope;
  std::vector<T*> out;
  Buffer<T> own;

  Activations(const Problem<T>& problem, int64_t rows) : own(rows * product_numbers(problem)) {
    const int64_t stacked = rows * (1 + problem.n_probes);
    for (int64_t l = 0; l < problem.n_layers; ++l) {
      in.emplace_back(stacked * padded<T>(problem.layers[l].n_in));
      slope.emplace_back(rows * padded<T>(problem.layers[l].n_out));
    }
    out.resize(problem.n_layers);
  }

  // Have the products of a block in a stage's kept numbers, or in the memory of this object for null.
  void place(const Problem<T>& problem, int64_t first, int64_t rows, T* kept) {
    T* next = kept ? kept + first * product_numbers(problem) : own.data();
    for (int64_t l = 0; l < problem.n_layers; ++l) {
      out[l] = next;
      next += rows * (1 + problem.n_probes) * padded<T>(problem.layers[l].n_out);
    }
  }
};

template <class T, bool SOFTPLUS>
static void activate(int64_t rows, int64_t probes, int64_t ld, const T* gate, const T* bias, const T* out, T* slope,
                     T* next) {
  for (int64_t r = 0; r < rows * ld; r += ld)
    for (int64_t i = 0; i < ld; ++i) {
      const T x = out[r + i] * gate[i] + bias[i];
      const T value = SOFTPLUS ? softplus_(x) : tanh_(x);
      next[r + i] = value;
      slope[r + i] = SOFTPLUS ? sigmoid_(x) : T(1) - value * value;
    }
  for (int64_t p = 1; p <= probes; ++p)
    for (int64_t r = 0; r < rows * ld; r += ld)
      for (int64_t i = 0; i < ld; ++i)
        next[p * rows * ld + r + i] = slope[r + i] * gate[i] * out[p * rows * ld + r + i];
}

// Go through the layers up to the last product; `known`: the products are there already.
template <class T>
static void go_through(const Problem<T>& problem, const Weights<T>& weights, const Columns<T>& columns, int64_t first,
                       int64_t rows, const T* y, Activations<T>& kept, bool known) {
  const int64_t dim = problem.dim, probes = problem.n_probes, width = problem.width();
  const int64_t stacked = rows * (1 + probes), last = problem.n_layers - 1, ld0 = padded<T>(dim);
  T* in = kept.in[0].data();
  for (int64_t r = 0; r < rows; ++r) std::copy_n(y + r * width, dim, in + r * ld0);
  for (int64_t p = 0; p < probes; ++p)
    for (int64_t r = 0; r < rows; ++r)
      std::copy_n(problem.noise + (p * problem.rows + first + r) * dim, dim, in + ((1 + p) * rows + r) * ld0);
  for (int64_t l = 0; l <= last; ++l) {
    const Layer<T>& layer = problem.layers[l];
    const int64_t ld = padded<T>(layer.n_out);
    if (!known)
      multiply_rows<T>(stacked, layer.n_out, layer.n_in, kept.in[l].data(), padded<T>(layer.n_in),
                       weights.forward[l].data(), kept.out[l], ld);
    if (l == last) break;
    auto* act = problem.softplus ? activate<T, true> : activate<T, false>;
    act(rows, probes, ld, columns.gate[l].data(), columns.bias[l].data(), kept.out[l], kept.slope[l].data(),
        kept.in[l + 1].data());
  }
}

// The field's values from the last product, without the trace.
template <class T>
static void read_values(const Problem<T>& problem, const Columns<T>& columns, int64_t rows, const Activations<T>& kept,
                        T* dy) {
  const int64_t last = problem.n_layers - 1, ld = padded<T>(problem.dim), width = problem.width();
  const T *out = kept.out[last], *gate = columns.gate[last].data(), *bias = columns.bias[last].data();
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t i = 0; i < problem.dim; ++i) dy[r * width + i] = out[r * ld + i] * gate[i] + bias[i];
}

template <class T>
static void evaluate(const Problem<T>& problem, const Weights<T>& weights, const Columns<T>& columns, int64_t first,
                     int64_t rows, const T* y, T* dy, Activations<T>& kept) {
  const int64_t dim = problem.dim, width = problem.width(), last = problem.n_layers - 1, ld0 = padded<T>(dim);
  go_through(problem, weights, columns, first, rows, y, kept, false);
  read_values(problem, columns, rows, kept, dy);
  if (width == dim) return;
  const T *in = kept.in[0].data(), *out = kept.out[last], *gate = columns.gate[last].data();
  for (int64_t r = 0; r < rows; ++r) {
    T trace = 0;
    if (problem.folded) {
      const T *slope = kept.slope[0].data(), *c = columns.trace.data();
      const int64_t ld = columns.trace.size();
      Vec<T> sum{};
      for (int64_t i = 0; i < ld; i += LANES<T>)
        sum += *(const Vec<T>*)(slope + r * ld + i) * *(const Vec<T>*)(c + i);
      trace += sum_of<T>(sum);
    }
    for (int64_t p = 1; p <= problem.n_probes; ++p)
      for (int64_t i = 0; i < dim; ++i)
        trace += in[(p * rows + r) * ld0 + i] * gate[i] * out[(p * rows + r) * ld0 + i];
    dy[r * width + dim] = problem.scale * trace;
  }
}

// Sum the gradients of gate and bias over rows, and go through the gate: g becomes the product's cotangent.
template <class T>
static void pull_columns(int64_t rows, int64_t stacked, int64_t ld, const T* gate, const T* out, T* grad_gate,
                         T* grad_bias, T* g) {
  using V = Vec<T>;
  constexpr int WIDTH = 4;  // vectors whose sums stay in registers, so many that a row is read in long pieces
  for (int64_t i = 0; i < ld; i += WIDTH * LANES<T>) {
    const int vectors = std::min<int64_t>(WIDTH, (ld - i) / LANES<T>);
    V by_gate[WIDTH] = {}, by_bias[WIDTH] = {};
    for (int64_t r = 0; r < stacked; ++r)
      for (int v = 0; v < vectors; ++v) {
        const int64_t column = i + v * LANES<T>;
        V& own = *(V*)(g + r * ld + column);
        by_gate[v] += own * *(const V*)(out + r * ld + column);
        if (r < rows) by_bias[v] += own;
        own *= *(const V*)(gate + column);
      }
    for (int v = 0; v < vectors; ++v) {
      *(V*)(grad_gate + i + v * LANES<T>) += by_gate[v];
      *(V*)(grad_bias + i + v * LANES<T>) += by_bias[v];
    }
  }
}

// Add the folded trace's share to the cotangent of the slopes, in `by_slope`, and that of c to its gradient.
template <class T>
static void pull_folded(const Problem<T>& problem, int64_t rows, const T* slope, const T* g, Columns<T>& columns,
                        T* by_slope) {
  const int64_t ld = columns.trace.size(), width = problem.width();
  for (int64_t r = 0; r < rows; ++r) {
    const T by_trace = g[r * width + problem.dim];
    for (int64_t i = 0; i < ld; ++i) {
      by_slope[r * ld + i] = by_trace * columns.trace[i];
      columns.grad_trace[i] += by_trace * slope[r * ld + i];
    }
  }
}

// Replace the cotangents g of what an activation gives (values, tangents) by those of what it takes.
template <class T, bool SOFTPLUS>
static void pull_activation(int64_t rows, int64_t probes, int64_t ld, const T* gate, const T* slope, const T* out,
                            const T* value, const T* folded, T* g) {
  using V = Vec<T>;
  const auto at = [](const T* x) { return *(const V*)x; };
  for (int64_t r = 0; r < rows * ld; r += ld)
    for (int64_t i = 0; i < ld; i += LANES<T>) {
      const V s = at(slope + r + i), scale = at(gate + i);
      V by_slope = folded ? at(folded + r + i) : V{};
      for (int64_t p = 1; p <= probes; ++p) {
        V& tangent = *(V*)(g + p * rows * ld + r + i);
        by_slope += tangent * scale * at(out + p * rows * ld + r + i);
        tangent *= s;
      }
      const V curvature = SOFTPLUS ? s * (T(1) - s) : T(-2) * at(value + r + i) * s;
      V& own = *(V*)(g + r + i);
      own = own * s + by_slope * curvature;
    }
}

// Whether a weight's gradient is summed as [in][out padded], because [out][in padded] is mostly padding.
template <class T>
static bool lies_across(const Layer<T>& layer) {
  return layer.n_in * padded<T>(layer.n_out) < layer.n_out * padded<T>(layer.n_in);
}

// Add the cotangent of y to gy, and the parameters', for the cotangent g of dy.
template <class T>
static void pull(const Problem<T>& problem, const Weights<T>& weights, Columns<T>& columns, int64_t rows, const T* g,
                 T* gy, const Activations<T>& kept, std::vector<Buffer<T>>& grads, Buffer<T>& above, Buffer<T>& below,
                 Buffer<T>& folded) {
  const int64_t dim = problem.dim, probes = problem.n_probes, width = problem.width();
  const int64_t stacked = rows * (1 + probes), last = problem.n_layers - 1, ld0 = padded<T>(dim);
  T* start = above.data();
  std::fill_n(start, stacked * ld0, T(0));
  for (int64_t r = 0; r < rows; ++r) {
    std::copy_n(g + r * width, dim, start + r * ld0);
    for (int64_t p = 1; p <= probes; ++p)
      for (int64_t i = 0; i < dim; ++i)
        start[(p * rows + r) * ld0 + i] = g[r * width + dim] * problem.scale * kept.in[0].data()[(p * rows + r) * ld0 + i];
  }
  for (int64_t l = last; l >= 0; --l) {
    const Layer<T>& layer = problem.layers[l];
    const int64_t ld_out = padded<T>(layer.n_out), ld_in = padded<T>(layer.n_in);
    pull_columns(rows, stacked, ld_out, columns.gate[l].data(), kept.out[l], columns.grad_gate[l].data(),
                 columns.grad_bias[l].data(), above.data());
    if (lies_across(layer))
      add_product<T>(layer.n_in, layer.n_out, stacked, kept.in[l].data(), ld_in, above.data(), ld_out, grads[l].data());
    else
      add_product<T>(layer.n_out, layer.n_in, stacked, above.data(), ld_out, kept.in[l].data(), ld_in, grads[l].data());
    // nobody asks for the cotangents of the probes
    multiply_rows<T>(l ? stacked : rows, layer.n_in, layer.n_out, above.data(), ld_out, weights.backward[l].data(),
                     below.data(), ld_in);
    if (l) {
      if (problem.folded) pull_folded(problem, rows, kept.slope[0].data(), g, columns, folded.data());
      auto* back = problem.softplus ? pull_activation<T, true> : pull_activation<T, false>;
      back(rows, probes, ld_in, columns.gate[l - 1].data(), kept.slope[l - 1].data(), kept.out[l - 1],
           kept.in[l].data(), problem.folded ? folded.data() : nullptr, below.data());
    }
    std::swap(above, below);
  }
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t i = 0; i < dim; ++i) gy[r * width + i] += above.data()[r * ld0 + i];
}

// Weights' gradients in rows of whole vectors (see `lies_across`), of every stage apart or of all together, before they
// go to the layers.
template <class T>
struct Sums {
  std::vector<std::vector<Buffer<T>>> of_stage;

  Sums(const Problem<T>& problem, int64_t n) : of_stage(n) {
    for (auto& buffers : of_stage)
      for (int64_t l = 0; l < problem.n_layers; ++l) {
        const Layer<T>& layer = problem.layers[l];
        const int64_t size =
            lies_across(layer) ? layer.n_in * padded<T>(layer.n_out) : layer.n_out * padded<T>(layer.n_in);
        std::fill_n(buffers.emplace_back(size).data(), size, T(0));
      }
  }

  void add_to(const Problem<T>& problem, int64_t stage) const {
    for (int64_t l = 0; l < problem.n_layers; ++l) {
      const Layer<T> layer = problem.layer(stage, l);
      const T* from = of_stage[stage][l].data();
      const bool across = lies_across(layer);
      const int64_t by_out = across ? 1 : padded<T>(layer.n_in), by_in = across ? padded<T>(layer.n_out) : 1;
      for (int64_t o = 0; o < layer.n_out; ++o)
        for (int64_t i = 0; i < layer.n_in; ++i) layer.grad_weight[o * layer.n_in + i] += from[o * by_out + i * by_in];
    }
  }
};

// ---- the field, as steps.hpp has it ----

template <class T>
static int64_t widest(const Problem<T>& problem) {
  int64_t n = padded<T>(problem.dim);
  for (int64_t l = 0; l < problem.n_layers; ++l) n = std::max(n, padded<T>(problem.layers[l].n_out));
  return n;
}

// Rows of a block: equal blocks, small enough for the second-level cache. Where the weights are too large for it, they
// come from further away for every block, which only many rows make up for.
template <class T>
static int64_t block_rows(const Problem<T>& problem, int64_t kept_stages, int64_t all) {
  int64_t numbers = 0, weights = 0;
  for (int64_t l = 0; l < problem.n_layers; ++l) {
    const int64_t n_in = padded<T>(problem.layers[l].n_in), n_out = padded<T>(problem.layers[l].n_out);
    numbers += (n_in + n_out) * (1 + problem.n_probes) + n_out;
    weights += n_in * n_out;
  }
  const int64_t bytes = numbers * kept_stages * sizeof(T), greatest = 16 * TILE_ROWS;
  const int64_t least = weights * static_cast<int64_t>(sizeof(T)) > CACHE_BYTES ? greatest : 2 * TILE_ROWS;
  const int64_t most = std::clamp<int64_t>(CACHE_BYTES / bytes, least, greatest);
  const int64_t blocks = (all + most - 1) / most;
  return (all + blocks - 1) / blocks;
}

// A row's numbers lie as the caller has them.
template <class T>
class Field {
 public:
  const int64_t block;
  const bool recalls;

  Field(const Problem<T>& problem, const Step<T>& step, Use use, int64_t rows)
      : block(block_rows(problem, use == Use::REPLAY ? step.n_stages : 1, rows)),
        recalls(use == Use::KEPT),
        problem_(problem),
        step_(step),
        apart_(use == Use::ADJOINT),
        stacked_(use == Use::STEPS ? 0 : block * (1 + problem.n_probes) * widest(problem)),
        sums_(problem, use == Use::STEPS ? 0 : apart_ ? step.n_stages : n_weights()),
        above_(stacked_),
        below_(stacked_),
        folded_(problem.folded ? stacked_ : 0) {
    for (int64_t s = 0; s < n_weights(); ++s) weights_.emplace_back(problem, s, use != Use::STEPS);
    for (int64_t s = 0; s < step.n_stages; ++s) columns_.emplace_back(problem, s, step.time[s]);
    for (int64_t s = 0; s < (use == Use::REPLAY ? step.n_stages : 1); ++s) activations_.emplace_back(problem, block);
  }

  int64_t numbers(int64_t rows) const { return rows * problem_.width(); }
  const T* read(const T* all, int64_t first, int64_t, T*) const { return all + first * problem_.width(); }
  const T* read_cotangent(const T* all, int64_t first, int64_t, T*) const { return all + first * problem_.width(); }
  T* place(T* all, int64_t first, int64_t, T*) const { return all + first * problem_.width(); }
  void write(const T* from, T* all, int64_t first, int64_t rows) const {
    T* to = place(all, first, rows, nullptr);
    if (from != to) std::copy_n(from, numbers(rows), to);
  }

  void evaluate(int64_t s, int64_t first, int64_t rows, const T* y, T* dy, T* kept) {
    Activations<T>& here = activations(s);
    here.place(problem_, first, rows, kept);
    perceptron::evaluate(problem_, weights(s), columns_[s], first, rows, y, dy, here);
  }

  void values(int64_t s, int64_t first, int64_t rows, T* kept, T* dy) {
    activations(s).place(problem_, first, rows, kept);
    read_values(problem_, columns_[s], rows, activations(s), dy);
  }

  void recall(int64_t s, int64_t first, int64_t rows, const T* y, T* kept) {
    activations(s).place(problem_, first, rows, kept);
    go_through(problem_, weights(s), columns_[s], first, rows, y, activations(s), true);
  }

  void pull(int64_t s, int64_t rows, const T* g, T* gy) {
    std::vector<Buffer<T>>& grads = sums_.of_stage[apart_ || problem_.per_stage ? s : 0];
    perceptron::pull(problem_, weights(s), columns_[s], rows, g, gy, activations(s), grads, above_, below_, folded_);
  }

  void collect(int64_t begin, int64_t end) const {
    for (int64_t s = begin; s < end; ++s) columns_[s].fold(problem_, s, step_.time[s]);
    for (int64_t s = apart_ ? begin : 0; s < (apart_ ? end : n_weights()); ++s) sums_.add_to(problem_, s);
  }

 private:
  // Of every stage, or one for all.
  int64_t n_weights() const { return problem_.per_stage ? step_.n_stages : 1; }
  const Weights<T>& weights(int64_t s) const { return weights_[problem_.per_stage ? s : 0]; }
  Activations<T>& activations(int64_t s) { return activations_[activations_.size() > 1 ? s : 0]; }

  const Problem<T>& problem_;
  const Step<T>& step_;
  const bool apart_;
  const int64_t stacked_;
  Sums<T> sums_;
  Buffer<T> above_, below_, folded_;
  std::vector<Weights<T>> weights_;
  std::vector<Columns<T>> columns_;
  std::vector<Activations<T>> activations_;
};

}  // namespace perceptron
