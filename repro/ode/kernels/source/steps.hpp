// Explicit Runge-Kutta steps, their vector-Jacobian products, and the adjoint method's steps, of any field.
//
// Rows are independent of one another: a block of them goes through all stages of a step while it is in the cache. The
// caller may split the rows over threads. A field (perceptron.hpp, convolution.hpp) is made for one step and offers
//
//   block                                how many rows go through together
//   numbers(rows)                        how many numbers a block's state has, in the field's own order
//   read(all, first, rows, room)         a block of a state or slope; `room` is used where the order is another
//   read_cotangent(all, first, rows, room)    a block of a cotangent, zero wherever there is no row
//   place(all, first, rows, room)        where to compute a block of a result
//   write(from, all, first, rows)        have what was computed, there or elsewhere, in the result
//   evaluate(s, first, rows, y, dy, kept)    stage s; its products go to `kept`, or stay here where that is null
//   values(s, first, rows, kept, dy)     the same from kept products, but for what does not enter the field
//   recalls, recall(s, first, rows, y, kept)    if it must be told before it pulls stage s back, from where it was and
//                                               what was kept of it
//   pull(s, rows, g, gy)                 add the product of g and df/dy to gy, that of g and df/dp to the sums
//   collect(begin, end)                  add the sums of these stages to the caller's gradients
#pragma once

#include <utility>

#include "products.hpp"

constexpr int MAX_STAGES = 8;

// Stages with their times. given: the first stage's value is an input.
template <class T>
struct Step {
  int64_t n_stages, given;
  T dt, rtol, atol;
  T time[MAX_STAGES], beta[MAX_STAGES][MAX_STAGES], weights[MAX_STAGES], error[MAX_STAGES], mid[MAX_STAGES];
};

// What a field is made for, which says how many stages' products and sums it has to hold at once: steps; going back
// through a step that it evaluates again; the same with products that were kept; the adjoint method's steps.
enum class Use { STEPS, REPLAY, KEPT, ADJOINT };

// out = y + sum_j w[j] k[j] of N terms, y zero where it is null.
template <class T, int N>
static void add_terms(int64_t n, const T* y, const T* w, const T* const* k, T* out) {
  const int64_t whole = n / LANES<T> * LANES<T>;
  for (int64_t i = 0; i < whole; i += LANES<T>) {
    Vec<T> sum = y ? *(const Vec<T>*)(y + i) : Vec<T>{};
    UNROLL
    for (int j = 0; j < N; ++j) sum += w[j] * *(const Vec<T>*)(k[j] + i);
    *(Vec<T>*)(out + i) = sum;
  }
  for (int64_t i = whole; i < n; ++i) {
    T sum = y ? y[i] : T(0);
    for (int j = 0; j < N; ++j) sum += w[j] * k[j][i];
    out[i] = sum;
  }
}

template <class T, int N>
static void add_so_many(int64_t many, int64_t n, const T* y, const T* w, const T* const* k, T* out) {
  if (many == N)
    add_terms<T, N>(n, y, w, k, out);
  else if constexpr (N > 0)
    add_so_many<T, N - 1>(many, n, y, w, k, out);
}

// out = y + scale * sum_j weights[j] k[j]; a y or k that is null is zero.
template <class T>
static void combine(int64_t n, const T* y, T scale, const T* weights, int64_t many, const T* const* k, T* out) {
  T used[MAX_STAGES + 2];
  const T* given[MAX_STAGES + 2];
  int64_t found = 0;
  for (int64_t j = 0; j < many; ++j)
    if (k[j] && weights[j] != T(0)) {
      used[found] = scale * weights[j];
      given[found++] = k[j];
    }
  add_so_many<T, MAX_STAGES + 2>(found, n, y, used, given, out);
}

// Numbers of every stage.
template <class T>
static std::vector<Buffer<T>> buffers(int64_t stages, int64_t n) {
  std::vector<Buffer<T>> found;
  for (int64_t s = 0; s < stages; ++s) found.emplace_back(n);
  return found;
}

// A step's results for a block whose state is y, from its stages k; the middle and the error may be null.
template <class T, class Field>
class Results {
 public:
  explicit Results(Field& field) : field_(field), end_(field.numbers(field.block)), other_(field.numbers(field.block)) {}

  void write(const Step<T>& step, int64_t first, int64_t rows, const T* y, const T* const* k, T* y_end, T* f_end,
             T* y_mid, T* error) {
    const int64_t n = field_.numbers(rows), stages = step.n_stages;
    T* end = field_.place(y_end, first, rows, end_.data());
    combine(n, y, step.dt, step.weights, stages, k, end);
    field_.write(end, y_end, first, rows);
    field_.write(k[stages - 1], f_end, first, rows);
    if (y_mid) {
      T* mid = field_.place(y_mid, first, rows, other_.data());
      combine(n, y, step.dt, step.mid, stages, k, mid);
      field_.write(mid, y_mid, first, rows);
    }
    if (!error) return;
    T* scaled = field_.place(error, first, rows, other_.data());
    combine(n, static_cast<const T*>(nullptr), step.dt, step.error, stages, k, scaled);
    for (int64_t i = 0; i < n; ++i)
      scaled[i] /= step.atol + step.rtol * std::max(std::fabs(y[i]), std::fabs(end[i]));
    field_.write(scaled, error, first, rows);
  }

 private:
  Field& field_;
  Buffer<T> end_, other_;
};

// `kept`: for each stage, where to keep its products for `backward`, or null; a stage that is given keeps none.
template <class Field, class Problem, class T>
static void forward(const Problem& problem, const Step<T>& step, int64_t begin, int64_t end, const T* y, const T* f,
                    T* y_end, T* f_end, T* y_mid, T* error, T* const* kept) {
  Field field(problem, step, Use::STEPS, end - begin);
  const int64_t size = field.block, n_all = field.numbers(size);
  auto stages = buffers<T>(step.n_stages, n_all);
  Buffer<T> at(n_all), state(n_all);
  Results<T, Field> results(field);
  for (int64_t first = begin; first < end; first += size) {
    const int64_t rows = std::min(size, end - first), n = field.numbers(rows);
    const T *k[MAX_STAGES], *start = field.read(y, first, rows, state.data());
    for (int64_t s = 0; s < step.n_stages; ++s) {
      k[s] = stages[s].data();
      if (s == 0 && step.given) {
        k[0] = field.read(f, first, rows, stages[0].data());
        continue;
      }
      combine(n, start, step.dt, step.beta[s], s, k, at.data());
      field.evaluate(s, first, rows, at.data(), stages[s].data(), kept ? kept[s] : nullptr);
    }
    results.write(step, first, rows, start, k, y_end, f_end, y_mid, error);
  }
}

// Cotangents of the step's end, of its middle, of its first and last stage (those but the first may be null) to that of
// its start; the parameters' go to the caller's gradients. `kept`: the products of every stage by `forward` with as many
// rows, from which one stage after the other is brought back; null evaluates all stages again.
template <class Field, class Problem, class T>
static void backward(const Problem& problem, const Step<T>& step, int64_t begin, int64_t end, const T* y, const T* g_end,
                     const T* g_mid, const T* g_first, const T* g_last, T* gy, T* const* kept) {
  const int64_t stages = step.n_stages;
  Field field(problem, step, kept ? Use::KEPT : Use::REPLAY, end - begin);
  const int64_t size = field.block, n_all = field.numbers(size);
  auto slopes = buffers<T>(stages, n_all), pulled = buffers<T>(stages, n_all);
  Buffer<T> at(n_all), g(n_all), state(n_all), room_end(n_all), room_mid(n_all), room(n_all);
  for (int64_t first = begin; first < end; first += size) {
    const int64_t rows = std::min(size, end - first), n = field.numbers(rows);
    const T *k[MAX_STAGES], *start = field.read(y, first, rows, state.data());
    for (int64_t s = 0; s < stages; ++s) {
      k[s] = slopes[s].data();
      if (kept) {
        field.values(s, first, rows, kept[s], slopes[s].data());
        continue;
      }
      combine(n, start, step.dt, step.beta[s], s, k, at.data());
      field.evaluate(s, first, rows, at.data(), slopes[s].data(), nullptr);
    }
    // cotangents of the end and, from here on, of where the later stages were; null is zero
    const T* above[MAX_STAGES + 2] = {field.read_cotangent(g_end, first, rows, room_end.data())};
    if (g_mid) above[1] = field.read_cotangent(g_mid, first, rows, room_mid.data());
    for (int64_t s = stages - 1; s >= 0; --s) {
      T weights[MAX_STAGES + 2] = {step.weights[s], step.mid[s]};
      for (int64_t later = s + 1; later < stages; ++later) weights[2 + later] = step.beta[later][s];
      combine(n, static_cast<const T*>(nullptr), step.dt, weights, 2 + stages, above, g.data());
      for (const T* of_stage : {s == 0 ? g_first : nullptr, s == stages - 1 ? g_last : nullptr}) {
        if (!of_stage) continue;
        const T* more = field.read_cotangent(of_stage, first, rows, room.data());
        for (int64_t i = 0; i < n; ++i) g.data()[i] += more[i];
      }
      if (field.recalls) {
        combine(n, start, step.dt, step.beta[s], s, k, at.data());
        field.recall(s, first, rows, at.data(), kept ? kept[s] : nullptr);
      }
      std::fill_n(pulled[s].data(), n, T(0));
      field.pull(s, rows, g.data(), pulled[s].data());
      above[2 + s] = pulled[s].data();
    }
    T ones[MAX_STAGES + 2];
    std::fill_n(ones, MAX_STAGES + 2, T(1));
    T* by_start = field.place(gy, first, rows, room.data());
    combine(n, static_cast<const T*>(nullptr), T(1), ones, 2 + stages, above, by_start);
    field.write(by_start, gy, first, rows);
  }
  field.collect(0, stages);
}

// The adjoint method's step: the system d/dt [y, a] = [f, -(df/dy)^T a] and the integrand -(df/dp)^T a at each stage.
// Of `state` and all that is like it the first half is y's, the second a's. The integrand of stage s
// goes to the gradients of stage s; a stage that is given has none.
template <class Field, class Problem, class T>
static void adjoint(const Problem& problem, const Step<T>& step, int64_t begin, int64_t end, const T* state,
                    const T* f, T* s_end, T* s_last, T* s_mid, T* error) {
  const int64_t stages = step.n_stages, half = problem.rows * problem.width();
  Field field(problem, step, Use::ADJOINT, end - begin);
  const int64_t size = field.block, n_all = field.numbers(size);
  auto ky = buffers<T>(stages, n_all), ka = buffers<T>(stages, n_all);
  Buffer<T> at(n_all), g(n_all), y_room(n_all), a_room(n_all);
  Results<T, Field> results(field);
  const auto part = [](auto* all, int64_t from) { return all ? all + from : nullptr; };
  for (int64_t first = begin; first < end; first += size) {
    const int64_t rows = std::min(size, end - first), n = field.numbers(rows);
    const T *k[2][MAX_STAGES], *y = field.read(state, first, rows, y_room.data());
    const T* a = field.read_cotangent(state + half, first, rows, a_room.data());
    for (int64_t s = 0; s < stages; ++s) {
      k[0][s] = ky[s].data();
      k[1][s] = ka[s].data();
      if (s == 0 && step.given) {
        k[0][0] = field.read(f, first, rows, ky[0].data());
        k[1][0] = field.read_cotangent(f + half, first, rows, ka[0].data());
        continue;
      }
      combine(n, y, step.dt, step.beta[s], s, k[0], at.data());
      combine(n, a, step.dt, step.beta[s], s, k[1], g.data());
      for (int64_t i = 0; i < n; ++i) g.data()[i] = -g.data()[i];
      field.evaluate(s, first, rows, at.data(), ky[s].data(), nullptr);
      if (field.recalls) field.recall(s, first, rows, at.data(), nullptr);
      std::fill_n(ka[s].data(), n, T(0));
      field.pull(s, rows, g.data(), ka[s].data());
    }
    for (const int64_t from : {int64_t(0), half})
      results.write(step, first, rows, from ? a : y, k[from ? 1 : 0], s_end + from, s_last + from, part(s_mid, from),
                    part(error, from));
  }
  field.collect(step.given, stages);
}
