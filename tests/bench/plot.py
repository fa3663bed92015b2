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


def growth(rows):
    """The SVG's text of how planning grows: seconds over fragments, both by powers of ten, and the slope that is linear."""
    from math import log10
    left, top, size = 70, 30, 360
    most = rows[-1]["fragments"]
    low, high = log10(rows[0]["fragments"]) - 0.2, log10(most) + 0.2
    floor = min(-1.0, log10(min(row["seconds"] for row in rows)) - 0.2)

    def x(fragments):
        return left + (log10(fragments) - low) / (high - low) * size

    def y(seconds):
        return top + size - (log10(seconds) - floor) / (2.0 - floor) * size
    parts = [_rect(0, 0, left + size + 30, top + size + 50, "#fff"), _text(10, 18, "seconds of `uckpt plan` by fragments (dashed: linear)")]
    parts += [_line(x(10 ** n), top, top + size, LINE, 0.5) + _text(x(10 ** n), top + size + 18, f"10^{n}", "middle")
              for n in range(4, 8) if low <= n <= high]
    parts += [_text(left - 8, y(10 ** n) + 4, f"{10 ** n:g} s", "end") for n in range(-1, 3)]
    last = rows[-1]["seconds"]
    first = last * rows[0]["fragments"] / most
    parts.append(f'<line x1="{x(rows[0]["fragments"]):.1f}" y1="{y(max(first, 10 ** floor)):.1f}" x2="{x(most):.1f}" y2="{y(last):.1f}" '
                 f'stroke="{LINE}" stroke-dasharray="4 4"/>')
    for row in rows:
        parts.append(f'<circle cx="{x(row["fragments"]):.1f}" cy="{y(row["seconds"]):.1f}" r="5" fill="{MET}"/>')
        parts.append(_text(x(row["fragments"]) - 8, y(row["seconds"]) - 8, f'{row["seconds"]:.2f} s, {row["peak_mib"]:.0f} MiB', "end"))
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + size + 30}" height="{top + size + 50}" '
            f'font-family="sans-serif" font-size="13">\n' + "\n".join(parts) + "\n</svg>\n")
