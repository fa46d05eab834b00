"""Vertices of PLY files, as ScanNet's scans are stored."""

import re
from pathlib import Path

import numpy as np

from replications.errors import UserError

TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2", "ushort": "u2",
    "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4", "float": "f4", "float32": "f4",
    "double": "f8", "float64": "f8",
}  # fmt: skip
FORMATS = ("ascii", "binary_little_endian")
BEGIN = re.compile(rb"(?:\xef\xbb\xbf)?ply[ \t]*(\r\n|\n|\r)")  # its line end is that of the whole header


def read_vertices(path: Path) -> np.ndarray:
    """Return the vertices of a PLY file as a structured array [n], a field a property; UserError for another file."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path} is missing: see what 'python -m replications list data' says of its set") from None
    begin = BEGIN.match(content)
    end = begin and re.search(rb"(?<=[\r\n])end_header[ \t]*" + begin[1], content)
    if not end:
        raise UserError(f"{path} is not a PLY file: it has no header that begins with 'ply' and has an end")
    head, body = content[begin.end() : end.start()], content[end.end() :]
    lines = [line.split() for line in head.decode("ascii", "replace").splitlines()]
    form = next((line[1] for line in lines if line[:1] == ["format"]), "")
    elements = [place for place, line in enumerate(lines) if line[:1] == ["element"]]
    if not elements or lines[elements[0]][1] != "vertex" or form not in FORMATS:
        raise UserError(f"{path} is '{form}' PLY: expected {' or '.join(FORMATS)} with the vertices first")
    properties = [line for line in lines[elements[0] : (*elements, None)[1]] if line[:1] == ["property"]]
    try:
        count = int(lines[elements[0]][2])
        kind = np.dtype([(line[-1], "<" + TYPES[line[1]]) for line in properties])
        if count < 0 or not kind.names:
            raise ValueError("no vertices")
        if form == "ascii":
            texts = [line for line in body.decode("ascii").splitlines() if line.strip()]
            body = np.array([tuple(line.split()[: len(kind)]) for line in texts[:count]], kind).tobytes()
    except (KeyError, ValueError, IndexError, OverflowError) as error:
        raise UserError(f"{path} is a damaged PLY file ({error}): download it again") from None
    if len(body) < count * kind.itemsize:
        raise UserError(f"{path} ends early: {len(body)} bytes of {count} vertices; download it again")
    return np.frombuffer(body, kind, count)


def positions(vertices: np.ndarray, where: Path | str = "the mesh") -> np.ndarray:
    """Return x y z ``[n, 3]`` of vertices; raises UserError where there are none."""
    if not len(vertices) or not {"x", "y", "z"} <= set(vertices.dtype.names):
        raise UserError(f"{where} has no vertices with x, y and z")
    return np.stack([vertices[axis] for axis in "xyz"], axis=1)
