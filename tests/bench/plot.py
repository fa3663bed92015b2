"""The rows as bars, in SVG: how long uckpt took of what the copy takes, the goal, and the other converters in words."""
from xml.sax.saxutils import escape

from goals import COPY, OURS

LEFT, WIDTH, RIGHT, STEP, TOP = 390, 420, 420, 26, 56
MET, MISSED, COLD, INK, LINE = "#3a7d5d", "#b8502f", "#c9d3cf", "#222", "#999"


def _text(x, y, text, anchor="start", color=INK):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{color}">{escape(text)}</text>'


def _rect(x, y, width, height, color):
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{color}"/>'


def _line(x, top, bottom, color, width=1.0, dashes=""):
    return (f'<line x1="{x:.1f}" y1="{top:.1f}" x2="{x:.1f}" y2="{bottom:.1f}" stroke="{color}" stroke-width="{width}"'
            f'{f" stroke-dasharray={chr(34)}{dashes}{chr(34)}" if dashes else ""}/>')


def _ratio(entry, name, heat):
    return entry["commands"].get(name, {}).get(heat, {}).get("ratio")


def _others(entry):
    """The converters' ratios; the copies and our own runs have none here."""
    return "   ".join(f"{name} {_ratio(entry, name, 'warm'):.1f}" for name in entry["rivals"] if _ratio(entry, name, "warm"))


def _row(entry, y, scale):
    goal = next((g for g in entry["goals"] if g["command"] == OURS), None)
    ratio, cold = (_ratio(entry, OURS, heat) for heat in ("warm", "cold"))
    yield _text(LEFT - 10, y + 14, entry["about"], "end")
    if ratio is None:
        yield _text(LEFT + 6, y + 14, "failed", color=MISSED)
        return
    if cold is not None:
        yield _rect(LEFT, y + 13, cold * scale, 6, COLD)
    yield _rect(LEFT, y + 3, ratio * scale, 10 if cold is not None else 15, MET if not goal or goal["met"] else MISSED)
    if goal:
        yield _line(LEFT + goal["limit"] * scale, y, y + STEP - 4, INK, 2.5)
    yield _text(LEFT + max(ratio, cold or 0, goal["limit"] if goal else 0) * scale + 6, y + 14, f"{ratio:.2f}")
    yield _text(LEFT + WIDTH + 60, y + 14, _others(entry), color="#555")


def drawn(entries, about):
    """The SVG's text."""
    most = max([1.2] + [r for e in entries for heat in ("warm", "cold") if (r := _ratio(e, OURS, heat))])
    scale, bottom = WIDTH / most, TOP + STEP * len(entries)
    parts = [_rect(0, 0, LEFT + WIDTH + RIGHT, bottom + 20, "#fff"), _text(10, 20, about),
             _text(LEFT, 42, f"time of uckpt / time of {COPY}"), _text(LEFT + WIDTH + 60, 42, "others / " + COPY, color="#555")]
    parts += [_line(LEFT + at * scale, TOP - 4, bottom, LINE, 1, "" if at == 0 else "3 3") for at in (0, 1)]
    for n, entry in enumerate(entries):
        parts += _row(entry, TOP + n * STEP, scale)
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + RIGHT}" height="{bottom + 20}" '
            f'font-family="sans-serif" font-size="13">\n' + "\n".join(parts) + "\n</svg>\n")
