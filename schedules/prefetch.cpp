// SPDX-License-Identifier: Apache-2.0
#include "prefetch.h"

#include <vector>

namespace hrnn {
namespace {

using namespace Halide;
using namespace Halide::Internal;

// How far ahead of what is read once: twice as far as the hardware's prefetchers look, which stop at a page.
constexpr int kAheadBytes = 8192;

bool ends_with(const std::string &name, const std::string &end) {
  return name.size() >= end.size() && name.compare(name.size() - end.size(), end.size(), end) == 0;
}

// The index of the first value loaded from `name`.
class FirstLoad : public IRVisitor {
 public:
  explicit FirstLoad(const std::string &name) : name_(name) {}
  Expr index;
  int bytes = 0;

 private:
  using IRVisitor::visit;
  void visit(const Load *op) override {
    if (index.defined() || op->name != name_) return IRVisitor::visit(op);
    const auto *ramp = op->index.as<Ramp>();
    index = ramp != nullptr ? ramp->base : op->index;
    bytes = op->type.bytes();
  }
  const std::string name_;
};

class PrefetchWeights : public IRMutator {
 public:
  explicit PrefetchWeights(const WeightLoops &names) : names_(names) {}

 private:
  using IRMutator::visit;
  using Lets = std::vector<std::pair<std::string, Expr>>;

  Stmt visit(const LetStmt *op) override {
    if (!loops_.empty()) lets_.push_back({op->name, op->value});
    Stmt same = IRMutator::visit(op);
    if (!loops_.empty()) lets_.pop_back();
    return same;
  }

  Stmt visit(const For *op) override {
    if (loops_.empty()) return ends_with(op->name, names_.panel_loop) ? panel_loop(op) : IRMutator::visit(op);
    if (ends_with(op->name, names_.element_loop)) return element_loop(op);
    loops_.push_back(op);
    Stmt same = IRMutator::visit(op);
    loops_.pop_back();
    return same;
  }

  // Around the loop and at the top of its body: what the loops over k use.
  Stmt panel_loop(const For *op) {
    loops_.push_back(op);
    Stmt body = mutate(op->body);
    loops_.pop_back();
    body = with_lets(each_tile_, body);
    Stmt loop = with_body(op, body);
    loop = with_lets(once_, loop);
    each_tile_.clear(), once_.clear();
    return loop;
  }

  Stmt element_loop(const For *op) {
    FirstLoad load(names_.weights);
    op->body.accept(&load);
    if (!load.index.defined()) return op;
    // The index where the weights of a tile begin, of this one and of the next.
    Expr first = substitute(op->name, op->min, load.index);
    for (size_t i = lets_.size(); i > 0; i--) first = substitute(lets_[i - 1].first, lets_[i - 1].second, first);
    for (size_t i = 1; i < loops_.size(); i++) first = substitute(loops_[i]->name, loops_[i]->min, first);
    const Expr next = substitute(loops_[0]->name, variable(loops_[0]->name) + 1, first);
    // How often they are read, and which turn of all those of the tile it is.
    Expr times = 1, turn = 0;
    for (size_t i = 1; i <= loops_.size(); i++) {
      const For *loop = i < loops_.size() ? loops_[i] : op;
      if (loop != op) times *= loop->extent;
      turn = turn * loop->extent + (variable(loop->name) - loop->min);
    }
    const Expr tile = simplify((next - first) * load.bytes), once = times == 1;
    const Expr step = let(&once_, "prefetch_step", select(once, tile / names_.panels, tile) / (times * op->extent * names_.turn));
    const Expr ahead = let(&once_, "prefetch_ahead", select(once, kAheadBytes, tile));
    const Expr apart = let(&once_, "prefetch_apart", select(once, tile / names_.panels, 0));
    const Expr base = let(&each_tile_, "prefetch_base",
                          reinterpret(Int(64), Variable::make(Handle(), names_.weights)) +
                              cast(Int(64), first) * load.bytes + cast(Int(64), ahead));
    std::vector<Stmt> body;
    for (int i = 0; i < names_.turn; i++)
      body.push_back(prefetch(base + cast(Int(64), (turn * names_.turn + i) * step + i % names_.panels * apart)));
    body.push_back(op->body);
    return with_body(op, Block::make(body));
  }

  // LLVM's, whose declaration comes with Halide's runtime: to read, into the second-level cache, data.
  static Stmt prefetch(const Expr &address) {
    return Evaluate::make(Call::make(Int(32), "llvm.prefetch.p0", {reinterpret(Handle(), address), 0, 2, 1}, Call::Extern));
  }

  static Stmt with_body(const For *op, const Stmt &body) {
    return For::make(op->name, op->min, op->extent, op->for_type, op->partition_policy, op->device_api, body);
  }

  static Stmt with_lets(const Lets &lets, Stmt body) {
    for (size_t i = lets.size(); i > 0; i--) body = LetStmt::make(lets[i - 1].first, lets[i - 1].second, body);
    return body;
  }

  static Expr variable(const std::string &name) { return Variable::make(Int(32), name); }

  static Expr let(Lets *lets, const char *name, const Expr &value) {
    lets->push_back({unique_name(name), value});
    return Variable::make(value.type(), lets->back().first);
  }

  const WeightLoops names_;
  std::vector<const For *> loops_;  // that enclose the current statement, from that over tiles of panels inwards
  Lets lets_;                       // that do, within it
  Lets once_, each_tile_;           // to be made, around that loop and in it; each uses those before it
};

}  // namespace

void prefetch_weights(Pipeline pipeline, const WeightLoops &loops) { pipeline.add_custom_lowering_pass(new PrefetchWeights(loops)); }

}  // namespace hrnn
