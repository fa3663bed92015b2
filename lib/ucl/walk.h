// Visiting all nodes of one kind below another.
#pragma once

#include "lib/ucl/tree.h"

namespace uckpt::ucl {

// Calls `see(const Factor&)` for every factor, outer ones first.
template <class See>
void each_factor(const Dim& dim, const See& see) {
  for (const Factor& f : dim.factors) {
    see(f);
    for (const Block& b : f.blocks) each_factor(b.dim, see);
  }
}
template <class See>
void each_factor(const Shape& shape, const See& see) {
  for (const Dim& d : shape.dims) each_factor(d, see);
}

// Calls `see(name, span)` for every name in an expression.
template <class See>
void each_name(const Expr& expr, const See& see) {
  if (expr.kind == Expr::Kind::kName) see(expr.name, expr.span);
  for (const Operand& o : expr.operands) each_name(o.expr, see);
}

// Calls `see(const Item&)` for every item of one type, in order.
template <class Item, class Items, class See>
void each(const Items& items, const See& see) {
  for (const auto& item : items)
    if (const auto* wanted = std::get_if<Item>(&item)) see(*wanted);
}

}  // namespace uckpt::ucl
