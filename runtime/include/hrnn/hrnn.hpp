// SPDX-License-Identifier: Apache-2.0
//
// The C++17 layer over hrnn.h: handles that own, results that cannot be overlooked, tensors without boilerplate.
// Header only; it adds nothing to what a program links.
//
//   hrnn::Session session(model);                                     // throws hrnn::Error
//   hrnn_tensor in[] = {hrnn::tensor(x, {time, batch, features})};
//   hrnn_tensor out[] = {hrnn::tensor(y)};                            // dims are filled in by run
//   session.reserve(in).check();
//   session.run(in, out).check();                                     // no allocation from here on
//
// Without exceptions (-fno-exceptions): `hrnn::Session::create(model)` gives a Result to be asked with ok().
#ifndef HRNN_HPP
#define HRNN_HPP

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <initializer_list>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>

#if defined(__cpp_exceptions)
#include <stdexcept>
#endif

#include "hrnn/hrnn.h"

namespace hrnn {
inline namespace v1 {

#if defined(__cpp_exceptions)
class Error : public std::runtime_error {
 public:
  Error(hrnn_status status, const std::string &message)
      : std::runtime_error(std::string(hrnn_status_name(status)) + ": " + message), status_(status) {}
  hrnn_status status() const noexcept { return status_; }

 private:
  hrnn_status status_;
};
#endif

// How a call went. The message is only kept, and memory for it only taken, when it failed.
class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(hrnn_status code, const hrnn_error &error) : code_(code) {
    if (code != HRNN_OK) message_ = error.message;
  }
  Status(hrnn_status code, std::string message) : code_(code), message_(std::move(message)) {}

  bool ok() const noexcept { return code_ == HRNN_OK; }
  explicit operator bool() const noexcept { return ok(); }
  hrnn_status code() const noexcept { return code_; }
  const std::string &message() const noexcept { return message_; }

  // Throws hrnn::Error when the call failed; without exceptions, ends the program: ask ok() first there.
  void check() const {
    if (ok()) return;
#if defined(__cpp_exceptions)
    throw Error(code_, message_);
#else
    std::abort();
#endif
  }

 private:
  hrnn_status code_ = HRNN_OK;
  std::string message_;
};

// A value, or why there is none.
template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::move(value)) {}
  Result(Status status) : status_(std::move(status)) {}

  bool ok() const noexcept { return value_.has_value(); }
  explicit operator bool() const noexcept { return ok(); }
  const Status &status() const noexcept { return status_; }
  // As Status::check when there is none.
  T &value() & {
    status_.check();
    return *value_;
  }
  T &&value() && {
    status_.check();
    return *std::move(value_);
  }
  T *operator->() noexcept { return &*value_; }

 private:
  std::optional<T> value_;
  Status status_;
};

// A descriptor of the C interface, zeroed and with its struct_size: auto problem = hrnn::make<hrnn_problem>();
template <typename Descriptor>
Descriptor make() {
  Descriptor descriptor = {};
  descriptor.struct_size = sizeof(descriptor);
  return descriptor;
}

// ---- Tensors --------------------------------------------------------------------------------------------------------

// The bits of 16-bit floating-point numbers: C++17 has no types for them.
struct float16 {
  std::uint16_t bits;
};
struct bfloat16 {
  std::uint16_t bits;
};

template <typename T>
constexpr hrnn_dtype dtype_of() {
  using Value = std::remove_cv_t<T>;
  static_assert(std::is_same_v<Value, float> || std::is_same_v<Value, double> || std::is_same_v<Value, std::int32_t> ||
                    std::is_same_v<Value, std::int64_t> || std::is_same_v<Value, float16> ||
                    std::is_same_v<Value, bfloat16> || std::is_same_v<Value, bool>,
                "tensors hold float, double, float16, bfloat16, int32_t, int64_t or bool");
  static_assert(sizeof(bool) == 1, "a HRNN_BOOL is one byte");
  if constexpr (std::is_same_v<Value, float>) return HRNN_F32;
  if constexpr (std::is_same_v<Value, double>) return HRNN_F64;
  if constexpr (std::is_same_v<Value, std::int32_t>) return HRNN_I32;
  if constexpr (std::is_same_v<Value, float16>) return HRNN_F16;
  if constexpr (std::is_same_v<Value, bfloat16>) return HRNN_BF16;
  if constexpr (std::is_same_v<Value, bool>) return HRNN_BOOL;
  return HRNN_I64;
}

// `count` values at `data`, which the caller keeps alive. Inputs need dims; those of outputs are filled in by run.
template <typename T>
hrnn_tensor tensor_at(T *data, std::size_t count, std::initializer_list<std::int64_t> dims = {}) {
  hrnn_tensor tensor = {};
  tensor.dtype = dtype_of<T>();
  for (std::int64_t dim : dims) {
    // A rank no tensor has is refused by name in run; further dims would not fit.
    if (tensor.rank < HRNN_MAX_RANK) tensor.dims[tensor.rank] = dim;
    ++tensor.rank;
  }
  tensor.data = const_cast<std::remove_cv_t<T> *>(data);  // inputs are not written
  tensor.bytes = count * sizeof(T);
  return tensor;
}
// A vector, array, span, ...
template <typename Container>
auto tensor(Container &values, std::initializer_list<std::int64_t> dims = {})
    -> decltype(tensor_at(std::data(values), std::size(values), dims)) {
  return tensor_at(std::data(values), std::size(values), dims);
}
// An output nobody wants.
inline hrnn_tensor skipped() { return {}; }
// Only a shape, for reserve.
template <typename T>
hrnn_tensor shape(std::initializer_list<std::int64_t> dims) {
  return tensor_at(static_cast<T *>(nullptr), 0, dims);
}

// ---- One recurrent layer --------------------------------------------------------------------------------------------

class Plan {
 public:
  static Result<Plan> create(const hrnn_problem &problem, const hrnn_weights &weights,
                             const hrnn_options *options = nullptr) {
    hrnn_plan *plan = nullptr;
    hrnn_error error;
    const hrnn_status status = hrnn_plan_create(&problem, &weights, options, &plan, &error);
    if (status != HRNN_OK) return Status(status, error);
    return Plan(plan);
  }
#if defined(__cpp_exceptions)
  Plan(const hrnn_problem &problem, const hrnn_weights &weights, const hrnn_options *options = nullptr)
      : Plan(create(problem, weights, options).value()) {}
#endif

  hrnn_selection selection() const {
    hrnn_selection selection = make<hrnn_selection>();
    hrnn_plan_selection(get(), &selection);
    return selection;
  }
  std::size_t bytes() const { return hrnn_plan_bytes(get()); }
  const hrnn_plan *get() const noexcept { return plan_.get(); }

 private:
  explicit Plan(hrnn_plan *plan) : plan_(plan) {}
  struct Destroy {
    void operator()(hrnn_plan *plan) const { hrnn_plan_destroy(plan); }
  };
  std::unique_ptr<hrnn_plan, Destroy> plan_;
};

// The state of up to max_batch sequences. The plan must outlive it.
class State {
 public:
  static Result<State> create(const Plan &plan, std::int64_t max_batch = 1) {
    hrnn_state *state = nullptr;
    hrnn_error error;
    const hrnn_status status = hrnn_state_create(plan.get(), max_batch, &state, &error);
    if (status != HRNN_OK) return Status(status, error);
    return State(plan.get(), state);
  }
#if defined(__cpp_exceptions)
  explicit State(const Plan &plan, std::int64_t max_batch = 1) : State(create(plan, max_batch).value()) {}
#endif

  void reset() { hrnn_state_reset(get()); }
  Status set(std::int64_t batch, const void *h) {
    hrnn_error error;
    return {hrnn_state_set(get(), batch, h, &error), error};
  }
  Status copy_to(std::int64_t batch, void *h) const {
    hrnn_error error;
    return {hrnn_state_get(state_.get(), batch, h, &error), error};
  }
  // Whole sequences from args.h0; see hrnn_plan_run.
  Status run(const hrnn_run_args &args) {
    hrnn_error error;
    return {hrnn_plan_run(plan_, get(), &args, &error), error};
  }
  // Goes on from the state; see hrnn_stream.
  Status stream(const hrnn_run_args &args) {
    hrnn_error error;
    return {hrnn_stream(plan_, get(), &args, &error), error};
  }
  std::size_t bytes() const { return hrnn_state_bytes(state_.get()); }
  hrnn_state *get() const noexcept { return state_.get(); }

 private:
  State(const hrnn_plan *plan, hrnn_state *state) : plan_(plan), state_(state) {}
  struct Destroy {
    void operator()(hrnn_state *state) const { hrnn_state_destroy(state); }
  };
  const hrnn_plan *plan_;
  std::unique_ptr<hrnn_state, Destroy> state_;
};

// ---- A whole model --------------------------------------------------------------------------------------------------

// The model (its program, weights and kernels) must outlive the session.
class Session {
 public:
  static Result<Session> create(const hrnn_model &model, const hrnn_options *options = nullptr) {
    hrnn_session *session = nullptr;
    hrnn_error error;
    const hrnn_status status = hrnn_session_create(&model, options, &session, &error);
    if (status != HRNN_OK) return Status(status, error);
    return Session(session);
  }
#if defined(__cpp_exceptions)
  explicit Session(const hrnn_model &model, const hrnn_options *options = nullptr)
      : Session(create(model, options).value()) {}
#endif

  std::size_t input_count() const { return hrnn_session_input_count(get()); }
  std::size_t output_count() const { return hrnn_session_output_count(get()); }
  // A name of nullptr: there is no such input or output.
  hrnn_tensor_info input(std::size_t index) const {
    hrnn_tensor_info info = {};
    (void)hrnn_session_input(get(), index, &info);
    return info;
  }
  hrnn_tensor_info output(std::size_t index) const {
    hrnn_tensor_info info = {};
    (void)hrnn_session_output(get(), index, &info);
    return info;
  }
  const char *symbol(std::size_t index) const { return hrnn_session_symbol(get(), index); }

  // Inputs and outputs: anything with contiguous hrnn_tensor (an array, a vector, a span).
  template <typename Inputs>
  Status reserve(const Inputs &inputs) {
    hrnn_error error;
    return {hrnn_session_reserve(get(), std::data(inputs), std::size(inputs), nullptr, 0, &error), error};
  }
  template <typename Inputs, typename Outputs>
  Status reserve(const Inputs &inputs, Outputs &outputs) {
    hrnn_error error;
    return {hrnn_session_reserve(get(), std::data(inputs), std::size(inputs), std::data(outputs), std::size(outputs),
                                 &error),
            error};
  }
  template <typename Inputs, typename Outputs>
  Status run(const Inputs &inputs, Outputs &outputs) {
    hrnn_error error;
    return {
        hrnn_session_run(get(), std::data(inputs), std::size(inputs), std::data(outputs), std::size(outputs), &error),
        error};
  }
  Status stream(bool on = true) {
    hrnn_error error;
    return {hrnn_session_stream(get(), on ? 1 : 0, &error), error};
  }
  void reset() { hrnn_session_reset(get()); }

  // Of recurrent layer `index`; nothing past the last one.
  std::optional<hrnn_selection> selection(std::size_t index) const {
    hrnn_selection selection = make<hrnn_selection>();
    if (hrnn_session_selection(get(), index, &selection) != HRNN_OK) return std::nullopt;
    return selection;
  }
  std::size_t bytes() const { return hrnn_session_bytes(get()); }
  hrnn_session *get() const noexcept { return session_.get(); }

 private:
  explicit Session(hrnn_session *session) : session_(session) {}
  struct Destroy {
    void operator()(hrnn_session *session) const { hrnn_session_destroy(session); }
  };
  std::unique_ptr<hrnn_session, Destroy> session_;
};

}  // namespace v1
}  // namespace hrnn

#endif  // HRNN_HPP
