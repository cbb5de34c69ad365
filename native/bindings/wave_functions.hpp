// Functions of derived pages, ready to be called: what each is given is the same from call to call.
#pragma once

#include <nanobind/nanobind.h>

#include <cstdint>
#include <unordered_map>
#include <utility>
#include <vector>

class WaveFunctions {
 public:
  // One page's function, its inputs and its output, then the values of `names`.
  struct Call {
    nanobind::object whole, function, out, names;
    std::vector<nanobind::object> given;
  };

  // `call` is a stoker.pages.graph.calling.Call.
  void keep(std::uint64_t page, const nanobind::object& call) {
    Call made{call, call.attr("function"), call.attr("out"), {}, {}};
    made.given = {nanobind::object(call.attr("inputs")), made.out};
    const auto parameters = nanobind::dict(call.attr("parameters"));
    nanobind::list names;
    for (const auto& [name, value] : parameters) {
      names.append(name);
      made.given.push_back(nanobind::borrow(value));
    }
    if (made.given.size() > 2) made.names = nanobind::tuple(names);
    calls_.insert_or_assign(page, std::move(made));
  }
  void drop(std::uint64_t page) { calls_.erase(page); }
  void clear() { calls_.clear(); }
  bool any() const { return !calls_.empty(); }

  const Call* find(std::uint64_t page) const {
    const auto found = calls_.find(page);
    return found == calls_.end() ? nullptr : &found->second;
  }

  // Leaves the page's new bytes in the output; returns the exception that kept it from that, nothing where none did.
  // What ends programs, and is no Exception, is thrown.
  static nanobind::object made(const Call& call, std::uint64_t page) {
    // The function may have the call forgotten: what it works with is held here, for `whole` holds all but the names.
    const nanobind::object whole = call.whole, names = call.names;
    PyObject* const out = call.out.ptr();
    PyObject* few[kFew];
    std::vector<PyObject*> many;
    PyObject** given = few;
    if (call.given.size() > kFew) {
      many.resize(call.given.size());
      given = many.data();
    }
    for (std::size_t at = 0; at < call.given.size(); ++at) given[at] = call.given[at].ptr();
    PyObject* const made = PyObject_Vectorcall(call.function.ptr(), given, 2, names.ptr());
    if (made == Py_None || (made != nullptr && made == out)) {
      Py_DECREF(made);
      return {};
    }
    const nanobind::object other = nanobind::steal(made);
    try {
      if (made == nullptr) throw nanobind::python_error();
      whole.attr("take")(other, page);
      return {};
    } catch (nanobind::python_error& error) {
      if (!error.matches(PyExc_Exception)) throw;
      return nanobind::borrow(error.value());
    }
  }

  int visit(visitproc visit, void* arg) const {
    for (const auto& [page, call] : calls_) {
      Py_VISIT(call.whole.ptr());
      Py_VISIT(call.function.ptr());
      Py_VISIT(call.out.ptr());
      Py_VISIT(call.names.ptr());
      for (const nanobind::object& one : call.given) Py_VISIT(one.ptr());
    }
    return 0;
  }

 private:
  static constexpr std::size_t kFew = 8;
  std::unordered_map<std::uint64_t, Call> calls_;
};
