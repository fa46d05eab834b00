"""Make a figure's SVG small: two decimals, short names, a class a style, palettes, many equal marks as one line."""

import base64
import io
import re
from collections import Counter
from collections.abc import Iterable

FONTS = "DejaVu Sans, Verdana, sans-serif"  # of `style.RC`
SEVERAL = 3  # elements of one style, from which on it is worth a class
MANY = 20  # from this many marks of one clip path on, they are drawn as the vertices of a line
CLIPPED = re.compile(r'<g clip-path="url\(#([^"]*)\)"><use [^>]*/></g>(?:<g clip-path="url\(#\1\)"><use [^>]*/></g>)*')
MARK = re.compile(r'<use xlink:href="#([^"]*)" x="([^"]*)" y="([^"]*)" style="([^"]*)"/>')


def smaller(text: str) -> str:
    """Return a matplotlib SVG in fewer bytes, equal to within 0.01 points; a small one is returned unchanged.

    Many marks of several colours are drawn colour by colour.
    """
    text = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->|<!DOCTYPE.*?>", "", text, flags=re.S)
    text = re.sub(r"(?<=>)\s+(?=<)", "", text)
    text = re.sub(r' ((?:d|x|y|points)="|transform="translate\()([^")]*)', lambda f: f" {f[1]}{_short(f[2])}", text)
    text = re.sub(r'(?<= style=")[^"]*', lambda found: re.sub(r"([:;]) ", r"\1", found[0]), text)
    text = re.sub(r' transform="translate\(([^ "]*) 0\)"/>', r' x="\1"/>', text)  # of a letter
    text, named = re.subn(r"font-family:'DejaVu Sans'[^;\"]*;?", "", text)
    text = re.sub(r' transform="rotate\(-?0 [^)]*\)"', "", text)
    if named and " font-family=" not in text:
        text = text.replace("<svg ", f'<svg font-family="{FONTS}" ', 1)
    text = CLIPPED.sub(_one_clip, text)
    text = re.sub(r'(?<=base64,)[^"]*', _with_palette, text)
    used = dict.fromkeys(re.findall(r'(?:href="|url\()#([^")]*)', text))
    names = {name: f"_{number:x}" for number, name in enumerate(used)}
    text = re.sub(r' id="([^"]*)"', lambda found: f' id="{names[found[1]]}"' if found[1] in names else "", text)
    text = re.sub(r'((?:href="|url\()#)([^")]*)', lambda found: f"{found[1]}{names[found[2]]}", text)
    return CLIPPED.sub(_joined, _with_classes(_without_plain_groups(text))).strip() + "\n"


def _short(numbers: str) -> str:
    """Return a path or position with two decimals and no unnecessary spaces."""
    numbers = re.sub(r"-?\d*\.\d+", lambda found: f"{float(found[0]):.2f}".rstrip("0").rstrip("."), numbers)
    numbers = re.sub(r"-0(?![.\d])", "0", numbers)
    return re.sub(r"\s*([A-Za-z])\s*|\s+", lambda found: found[1] or " ", numbers).strip()


def _without_plain_groups(text: str) -> str:
    """Unwrap the groups without attributes, and remove those without content."""
    kept, closing = [], []
    for part in re.split(r"(<g\b[^>]*>|</g>)", re.sub(r"<g\b[^>]*/>", "", text)):
        if part.startswith("<g"):
            closing.append("" if part == "<g>" else "</g>")
            part = part.removesuffix("<g>")
        elif part == "</g>":
            part = closing.pop()
        kept.append(part)
    return "".join(kept)


def _with_classes(text: str) -> str:
    """Move each style that several elements have to the style sheet."""
    of_many = [style for style, count in Counter(re.findall(r' style="([^"]*)"', text)).items() if count >= SEVERAL]
    sheet, end, rest = text.partition("</style>")
    if not of_many or not end:
        return text
    first = sheet.count("{")  # a class is named by its place in the sheet
    names = {style: f"s{number:x}" for number, style in enumerate(of_many, first)}
    rules = "".join(f".{name}{{{style}}}" for style, name in names.items())
    rest = re.sub(r' style="([^"]*)"', lambda f: f' class="{names[f[1]]}"' if f[1] in names else f[0], rest)
    return f"{sheet}{rules}{end}{rest}"


def _joined(found: re.Match) -> str:
    """Join groups with the same clip path that lie side by side."""
    return _clipped(found[1], re.findall("<use [^>]*/>", found[0]))


def _one_clip(found: re.Match) -> str:
    """Group marks with the same clip path; many marks become one polyline per style."""
    uses, marks = re.findall("<use [^>]*/>", found[0]), MARK.findall(found[0])
    if len(uses) == len(marks) >= MANY:
        places: dict[tuple[str, str], list[str]] = {}
        for shape, x, y, style in marks:
            places.setdefault((shape, style), []).append(f"{x} {y}")
        uses = []
        for number, ((shape, style), points) in enumerate(places.items()):
            marker = f"{shape}-{number}"
            uses.append(
                f'<marker id="{marker}" markerUnits="userSpaceOnUse" overflow="visible">'
                f'<use xlink:href="#{shape}" style="{style}"/></marker>'
                f'<polyline points="{" ".join(points)}" style="fill:none;marker:url(#{marker})"/>'
            )
    return _clipped(found[1], uses)


def _clipped(path: str, content: Iterable[str]) -> str:
    return f'<g clip-path="url(#{path})">{"".join(content)}</g>'


def _with_palette(found: re.Match) -> str:
    """Convert an embedded PNG of up to 256 opaque colours to a palette image; leave others unchanged."""
    from PIL import Image

    image = Image.open(io.BytesIO(base64.b64decode(found[0])))
    pixels = image.convert("RGBA")
    if image.mode == "P" or not pixels.getcolors(256) or pixels.getextrema()[3][0] < 255:
        return found[0]
    stream = io.BytesIO()
    pixels.convert("RGB").convert("P", palette=Image.Palette.ADAPTIVE, colors=256).save(stream, "PNG", optimize=True)
    return base64.b64encode(stream.getvalue()).decode()
