#include "lib/ucl/text_of.h"

#include <charconv>

#include "lib/base/text.h"

namespace uckpt::ucl {

namespace {

int precedence(Expr::Kind kind) {
  return kind == Expr::Kind::kSum ? 1 : kind == Expr::Kind::kProduct ? 2 : 3;
}

std::string_view operator_text(Expr::Kind kind, bool inverted, bool tight) {
  if (kind == Expr::Kind::kSum) return inverted ? " - " : " + ";
  if (tight) return inverted ? "/" : "*";
  return inverted ? " / " : " * ";
}

// Every operand binds tighter than the chain, or stands in parentheses (a first operand of the chain's own
// kind has become part of the chain when it was read).
std::string chain_text(const Expr& expr, bool tight) {
  std::string out;
  for (const Operand& operand : expr.operands) {
    const bool first = &operand == &expr.operands.front();
    if (!first) out += operator_text(expr.kind, operand.inverted, tight);
    const std::string text = text_of(operand.expr, tight);
    out += precedence(operand.expr.kind) > precedence(expr.kind) ? text : cat("(", text, ")");
  }
  return out;
}

std::string_view comparison_text(Comparison c) {
  switch (c) {
    case Comparison::kLess:
      return "<";
    case Comparison::kLessEqual:
      return "<=";
    case Comparison::kGreater:
      return ">";
    case Comparison::kGreaterEqual:
      return ">=";
    case Comparison::kEqual:
      return "==";
    case Comparison::kNotEqual:
      return "!=";
  }
  return {};
}

std::string atom_text(const Factor& factor) {
  switch (factor.kind) {
    case Factor::Kind::kAxis:
      return factor.axis.text;
    case Factor::Kind::kNumber:
      return std::to_string(factor.number);
    case Factor::Kind::kGroup:
      return cat("(", text_of(factor.blocks[0].dim), ")");
    case Factor::Kind::kConcat:
      break;
  }
  std::string out;
  for (const Block& b : factor.blocks)
    out += cat(out.empty() ? "(" : " | ", b.label.text, ": ", text_of(b.dim));
  return out + ")";
}

}  // namespace

std::string text_of(const Name& name) { return name.text; }

std::string text_of(const Factor& factor) {
  std::string out = atom_text(factor);
  if (factor.pad) out += cat(" pad(", text_of(*factor.pad, true), ")");
  if (factor.cut) out += cat(factor.pad ? " " : "", text_of(*factor.cut));
  return out;
}

std::string text_of(const CutAxis& axis) {
  switch (axis.share) {
    case ShareKind::kPlain:
      return axis.axis.text;
    case ShareKind::kEven:
      return axis.axis.text + "[even]";
    case ShareKind::kChunk:
      return axis.axis.text + "[chunk]";
    case ShareKind::kSizes:
      break;
  }
  std::string out;
  for (int64_t size : axis.sizes) out += cat(out.empty() ? "" : ",", size);
  return cat(axis.axis.text, "[", out, "]");
}

std::string text_of(const Place& place) {
  if (place.kind == Place::Kind::kNumber) return std::to_string(place.number);
  return place.kind == Place::Kind::kFirst ? "first" : "last";
}

std::string text_of(const Expr& expr, bool tight) {
  switch (expr.kind) {
    case Expr::Kind::kNumber:
      return std::to_string(expr.number);
    case Expr::Kind::kName:
      return expr.name;
    case Expr::Kind::kMin:
      return cat("min(", text_of(expr.operands[0].expr, tight), ", ", text_of(expr.operands[1].expr, tight),
                 ")");
    case Expr::Kind::kSum:
    case Expr::Kind::kProduct:
      break;
  }
  return chain_text(expr, tight);
}

std::string text_of(const Cut& cut) {
  if (cut.axes.size() == 1) return cat("@", text_of(cut.axes[0]));
  return cat("@(", joined(cut.axes), ")");
}

std::string text_of(const Dim& dim) { return joined(dim.factors, " "); }

std::string text_of(const Shape& shape) {
  std::string out = shape.ellipsis == Ellipsis::kFirst ? "..." : "";
  for (const Dim& d : shape.dims) out += cat(out.empty() ? "" : ", ", text_of(d));
  if (shape.ellipsis == Ellipsis::kLast) out += ", ...";
  return cat("[", out, "]");
}

std::string text_of(const Value& value) {
  if (!value.times) return cat("+ ", text_of(value.expr, true));
  const std::string text = text_of(value.expr, true);
  return value.expr.kind == Expr::Kind::kSum ? cat("* (", text, ")") : cat("* ", text);
}

std::string text_of(const Body& body) {
  const std::string value = body.value ? " " + text_of(*body.value) : "";
  const std::string partial = body.partial ? cat("partial mean over ", body.partial->text) : "";
  switch (body.kind) {
    case Body::Kind::kShape:
      return cat(text_of(body.shape), value, partial.empty() ? "" : " ", partial);
    case Body::Kind::kReplicate:
      return "replicate" + value;
    case Body::Kind::kPartial:
      return partial;
    case Body::Kind::kUnique:
      return "unique";
    case Body::Kind::kOpaque:
      return "opaque";
    case Body::Kind::kDrop:
      return "drop";
    case Body::Kind::kTied:
      return "tied to " + text_of(body.tied);
    case Body::Kind::kUnknown:
      break;
  }
  return "?";
}

std::string text_of(const On& on) { return cat("on ", on.axis.text, " ", joined(on.places)); }

std::string text_of(const Condition& c) {
  if (c.kind == Condition::Kind::kFalse) return "not " + text_of(c.left);
  if (c.kind == Condition::Kind::kTrue) return text_of(c.left);
  return cat(text_of(c.left), " ", comparison_text(c.comparison), " ", text_of(c.right));
}

std::string text_of(const std::vector<Condition>& when) { return when.empty() ? "" : "when " + joined(when); }

std::string text_of(const NamePattern& pattern) { return cat("\"", pattern.text, "\""); }

std::string text_of(const Part& part) {
  std::string out = part.label ? part.label->text + ": " : "";
  out += text_of(part.name);
  if (part.shape) out += " " + text_of(*part.shape);
  if (part.value) out += " " + text_of(*part.value);
  return out;
}

std::string text_of(const MeshAxis& axis) {
  if (!axis.parts) return axis.name.text;
  return cat(axis.name.text, " = ", axis.parts->first.text, " * ", axis.parts->second.text);
}

std::string text_of(const Key& key) {
  return cat(key.negated ? "not " : "", key.quoted ? ucl::quoted(key.text) : key.text,
             key.equals ? cat(" == ", ucl::quoted(*key.equals)) : "");
}

std::string text_of(const Setting& setting) {
  const auto* number = std::get_if<int64_t>(&setting.value);
  return cat(setting.name.text, " = ", number ? std::to_string(*number) : std::get<Name>(setting.value).text);
}

namespace {

std::string constant_text(bool value) { return value ? "true" : "false"; }
std::string constant_text(int64_t value) { return std::to_string(value); }
std::string constant_text(const std::string& value) { return ucl::quoted(value); }
std::string constant_text(const Expr& value) { return text_of(value); }

// The shortest text that reads as this number, and as no whole one.
std::string constant_text(double value) {
  char text[40];
  const auto end = std::to_chars(text, text + sizeof text, value).ptr;
  const std::string out(text, end);
  return out.find_first_of(".e") == std::string::npos ? out + ".0" : out;
}

std::string constant_text(const Constant::Texts& texts) {
  std::string out;
  for (const std::string& t : texts) out += cat(out.empty() ? "" : ", ", ucl::quoted(t));
  return cat("[", out, "]");
}

}  // namespace

std::string text_of(const Constant& constant) {
  return std::visit([](const auto& value) { return constant_text(value); }, constant.value);
}

std::string text_of(const ConfigSide& side) {
  if (side.drop) return "drop";
  if (side.off) return "off " + joined(side.keys);
  return joined(side.keys, " | ") +
         (side.values.empty() ? "" : (side.equals ? " == " : " = ") + joined(side.values, " | "));
}

std::string quoted(std::string_view text) {
  std::string out = "\"";
  for (char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out + "\"";
}

}  // namespace uckpt::ucl
