"""Sets of scenes: simulated rooms, rooms of voxel shapes, the official layouts of SUN RGB-D and ScanNet in small."""

import json
import struct

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from replications.datasets import ply
from replications.datasets.rooms import composed, procedural, scannet, sunrgbd
from replications.datasets.rooms.box_points import memberships, points_inside
from replications.datasets.rooms.camera import camera_rays, hit_parts
from replications.datasets.rooms.furniture import BOX, CYLINDER, FURNITURE, draw_parts
from replications.datasets.rooms.scene import farthest_first
from replications.errors import UserError

SMALL = {"train": 8, "validation": 2, "test": 2, "points": 300, "pixels": [40, 30], "min_points": 8, "sampled": 32}


def read(folder):
    return {path.stem: np.load(path) for path in folder.glob("*.npy")}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    target = tmp_path_factory.mktemp("rooms")
    return procedural.prepare(target, {**SMALL, "classes": ["chair", "table"]}, {}, 1), read(target)


def test_rooms_are_the_same_again_and_hold_what_they_say(drawn, tmp_path):
    facts, arrays = drawn
    again = procedural.prepare(tmp_path, {**SMALL, "classes": ["chair", "table"]}, {}, 1)
    assert again == facts and facts["classes"] == ["chair", "table"] and facts["sampled"] == 32
    for name, value in read(tmp_path).items():
        assert np.array_equal(value, arrays[name]), name
    assert arrays["split"].tolist() == [0] * 8 + [1] * 2 + [2] * 2
    assert (arrays["label"] >= 0).any(1).all() and np.isfinite(arrays["points"]).all()
    there = arrays["label"] >= 0
    assert (arrays["boxes"][there][:, 3:6] > 0).all() and (np.abs(arrays["boxes"][there][:, 6]) <= np.pi + 1e-3).all()


def test_points_of_an_object_lie_on_its_box_and_there_are_enough(drawn):
    _, arrays = drawn
    for points, inside, boxes, label in zip(*(arrays[n] for n in ("points", "inside", "boxes", "label")), strict=True):
        wider = boxes.astype(float) + np.array([0, 0, 0, 0.15, 0.15, 0.15, 0])
        found = points_inside(points.astype(float), wider)
        for k in np.flatnonzero(label >= 0):
            own = inside[:, 0] == k
            assert own.sum() >= 8 and found[own, k].mean() > 0.97


def test_the_first_points_are_the_farthest_ones():
    points = np.random.default_rng(0).random((80, 3))
    order = farthest_first(points, 10)
    assert sorted(order.tolist()) == list(range(80)) and order[0] == 0
    for i in range(1, 10):
        nearest = ((points[:, None] - points[order[:i]]) ** 2).sum(-1).min(1)
        assert order[i] == nearest.argmax()


def test_a_ray_meets_the_near_side_of_boxes_and_cylinders():
    ahead = np.array([[1.0, 0, 0], [1.0, 0.3, 0], [0, 1.0, 0]])
    eye = np.array([-2.0, 0.0, 0.0])
    solid = hit_parts(np.array([[BOX, 0, 0, 0, 1, 1, 1.0]]))(eye, ahead)
    assert solid[:2] == pytest.approx([1.5, 1.5]) and np.isinf(solid[2])
    tube = hit_parts(np.array([[CYLINDER, 0, 0, 0, 1, 1, 1.0]]))
    assert tube(eye, ahead[:1])[0] == pytest.approx(1.5)
    assert tube(eye, np.array([[1.0, 0.25, 0]]))[0] > 1.5 and np.isinf(tube(eye, np.array([[1.0, 0.5, 0]]))[0])
    from_above = tube(np.array([0.2, 0.1, 3.0]), np.array([[0, 0, -1.0]]))
    assert from_above[0] == pytest.approx(2.5)


def test_the_middle_pixel_looks_along_the_axis():
    rays = camera_rays(np.zeros(3), np.pi / 2, 0.3, 3, 3, 1.0).reshape(3, 3, 3)
    assert rays[1, 1] == pytest.approx([0, np.cos(0.3), -np.sin(0.3)], abs=1e-12)
    assert rays[1, 0, 0] < 0 < rays[1, 2, 0] and rays[0, 1, 2] > rays[2, 1, 2]


@pytest.mark.parametrize("name", FURNITURE)
def test_furniture_fills_its_box(name):
    for seed in range(5):
        parts, size = draw_parts(name, np.random.default_rng(seed))
        assert (parts[:, 4:] > 0).all()
        assert (parts[:, 1:4] - parts[:, 4:] / 2).min(0) == pytest.approx(-size / 2)
        assert (parts[:, 1:4] + parts[:, 4:] / 2).max(0) == pytest.approx(size / 2)


def test_the_middle_of_a_corner_sofa_is_empty_and_that_of_a_chair_is_not_far():
    """Distances (m) of the centre from the solid parts: what a vote has to bridge, and what it need not."""
    gaps = {
        name: [np.linalg.norm(np.maximum(abs(p[:, 1:4]) - p[:, 4:] / 2, 0), axis=1).min() for p in drawn]
        for name in ("corner_sofa", "chair")
        for drawn in [[draw_parts(name, np.random.default_rng(seed))[0] for seed in range(50)]]
    }
    assert min(gaps["corner_sofa"]) > 0.14 and max(gaps["chair"]) < 0.15


def test_a_point_in_several_boxes_belongs_to_the_first_ones():
    boxes = np.array([[0, 0, 0, 1, 1, 1, 0], [0, 0, 0, 2, 2, 2, 0.4], [5, 0, 0, 1, 1, 1, 0], [0, 0, 0, 3, 3, 3, 0.0]])
    found = memberships(np.array([[0.1, 0, 0], [1.3, 0, 0], [9, 9, 9.0]]), boxes, 2)
    assert found.tolist() == [[0, 1], [3, -1], [-1, -1]]


@pytest.mark.parametrize(
    "options, says",
    [
        ({"sampled": 400}, "sampled 400"),
        ({"objects": [5, 2]}, "least and a most"),
        ({"classes": ["piano"]}, "no furniture"),
    ],
)
def test_wrong_options_of_rooms_are_refused(options, says, tmp_path):
    with pytest.raises(UserError, match=says):
        procedural.prepare(tmp_path, {**SMALL, **options}, {}, 1)


def test_rooms_in_which_nothing_can_be_seen_are_an_error(tmp_path):
    with pytest.raises(UserError, match="none showed an object"):
        procedural.prepare(tmp_path, {**SMALL, "min_points": 300}, {}, 1)


# Composed rooms


@pytest.fixture(scope="module")
def voxels(tmp_path_factory):
    path = tmp_path_factory.mktemp("voxels") / "v.npz"
    rng = np.random.default_rng(0)
    grids = np.zeros((60, 32, 32, 32), np.int32)
    for i, grid in enumerate(grids):
        low, high = rng.integers(0, 6, 3), rng.integers(20, 32, 3)
        grid[low[0] : high[0], low[1] : high[1], low[2] : high[2]] = 1
        grid[0, 0, i % 32] = 1
    grids[3] = 0  # an empty grid of the training part
    grids[45] = grids[5]  # a test grid that is a training grid, too
    labels = np.arange(60) % 10
    np.savez(path, X_train=grids[:40], y_train=labels[:40], X_test=grids[40:], y_test=labels[40:])
    return path


def test_composed_rooms_leave_out_empty_and_shared_grids(voxels, tmp_path):
    shapes = composed.read_shapes(voxels, 0.3)
    counts = [[len(of) for of in part] for part in shapes]
    assert counts[0][3] == 2 and counts[1][3] == 1 and counts[0][0] == 3
    assert counts[2][5] == 1 and counts[2][0] == 2
    facts = composed.prepare(
        tmp_path,
        {**SMALL, "train": 20, "objects": [5, 9], "validation_shapes": 0.3},
        {"voxels": voxels}, 1,
    )  # fmt: skip
    arrays = read(tmp_path)
    assert facts["classes"] == list(composed.CLASSES) and np.array(facts["mean_sizes"]).shape == (10, 3)
    assert (arrays["boxes"][arrays["label"] >= 0][:, 3:6] <= composed.LONGEST + 0.01).all()


def test_a_ray_stops_at_the_first_occupied_voxel():
    solid = np.zeros((4, 4, 4), bool)
    solid[2] = True  # a plate across x, from 0 to 0.25 of a unit box
    found = composed.hit_voxels(solid, np.ones(3))(np.array([-1.0, 0.1, 0.1]), np.array([[1.0, 0, 0], [0, 1.0, 0]]))
    assert found[0] == pytest.approx(1.0, abs=2 / composed.STEPS) and np.isinf(found[1])


def test_another_file_of_voxels_is_refused(tmp_path):
    np.savez(tmp_path / "v.npz", X=np.zeros(3))
    with pytest.raises(UserError, match="X_train"):
        composed.read_shapes(tmp_path / "v.npz", 0.1)


# SUN RGB-D


@pytest.fixture
def sun(tmp_path):
    camera = np.array([[20.0, 0, 8.5], [0, 20.0, 6.5], [0, 0, 1]])
    paths = [f"/n/fs/sun3d/data/SUNRGBD/kv1/NYUdata/NYU000{i}" for i in range(3)]
    entries = []
    for i, path in enumerate(paths):
        folder = tmp_path / path[len("/n/fs/sun3d/data/") :] / "depth"
        folder.mkdir(parents=True)
        millimetres = np.full((12, 16), 2000 + 100 * i, np.uint16)
        stored = (millimetres << 3) | (millimetres >> 13)
        stored[0] = 0  # pixels without depth
        Image.fromarray(stored).save(folder / "d.png")
        objects = {
            "classname": np.array(["bed", "piano"] if i < 2 else ["piano", "piano"], object),
            "basis": [np.eye(3)] * 2,
            "coeffs": [np.array([[0.5, 1.0, 0.3]])] * 2,
            "centroid": [np.array([[0.1, 2.0 + 0.1 * i, 0.0]])] * 2,
            "orientation": [np.array([[0.6, 0.8, 0.0]])] * 2,
        }
        boxes = np.zeros((1, 2), [(name, object) for name in objects])
        for name, values in objects.items():
            boxes[name][0, :] = values if name == "classname" else [None, None]
            if name != "classname":
                for place in range(2):
                    boxes[name][0, place] = values[place]
        entries.append((path, f"{path}/depth/d.png", camera, np.eye(3), boxes))
    meta = np.zeros((1, 3), [(n, object) for n in ("sequenceName", "depthpath", "K", "Rtilt", "groundtruth3DBB")])
    for i, entry in enumerate(entries):
        for name, value in zip(meta.dtype.names, entry, strict=True):
            meta[name][0, i] = value
    for name in ("SUNRGBDtoolbox/Metadata", "SUNRGBDtoolbox/traintestSUNRGBD"):
        (tmp_path / name).mkdir(parents=True)
    savemat(tmp_path / sunrgbd.META, {"SUNRGBDMeta": meta})
    split = {"alltrain": np.array([[paths[0], paths[2]]], object), "alltest": np.array([[paths[1]]], object)}
    savemat(tmp_path / sunrgbd.SPLIT, split)
    sunrgbd._table.cache_clear()
    return tmp_path


def test_sun_rgbd_is_read_without_matlab(sun, tmp_path_factory):
    target = tmp_path_factory.mktemp("sun")
    facts = sunrgbd.prepare(target, {"classes": ["bed"], "points": 100}, {"scans": sun}, 1)
    arrays = read(target)
    assert arrays["split"].tolist() == [0, 2]  # the image without a bed is left out
    box = arrays["boxes"][0, 0]
    assert box == pytest.approx([0.1, 2.0, 0.0, 2.0, 1.0, 0.6, np.arctan2(0.8, 0.6)], abs=1e-6)
    assert facts["mean_sizes"] == [[2.0, 1.0, 0.6]] and facts["oriented"]
    assert arrays["points"][0, :, 1] == pytest.approx(2.0)  # depth lies along y
    inside = points_inside(arrays["points"][0].astype(float), box[None].astype(float))[:, 0]
    assert np.array_equal(arrays["inside"][0, :, 0] == 0, inside) and inside.any() and not inside.all()


def test_depth_is_turned_into_upright_points():
    stored = np.array([[0, (1500 << 3) & 0xFFFF]], np.uint16)
    camera = np.array([[10.0, 0, 1.0], [0, 10.0, 2.0], [0, 0, 1]])
    (point,) = sunrgbd.depth_to_points(stored, camera, np.eye(3))
    assert point == pytest.approx([0.15, 1.5, 0.15])  # one pixel right of the middle, one above it
    tilt = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
    assert sunrgbd.depth_to_points(stored, camera, tilt)[0] == pytest.approx([0.15, -0.15, 1.5])


def test_missing_and_wrong_parts_of_sun_rgbd_are_named(sun, tmp_path):
    options = {"classes": ["bed"], "points": 10}
    with pytest.raises(UserError, match="expected 7"):
        sunrgbd.prepare(tmp_path, {**options, "train_scenes": 7}, {"scans": sun}, 1)
    depth = min(sun.glob("SUNRGBD/**/d.png"))
    depth.write_bytes(b"no image")
    with pytest.raises(UserError, match="unpack SUNRGBD"):
        sunrgbd.prepare(tmp_path, options, {"scans": sun}, 1)
    Image.fromarray(np.zeros((12, 16), np.uint16)).save(depth)
    with pytest.raises(UserError, match="no pixel with a depth"):
        sunrgbd.prepare(tmp_path, options, {"scans": sun}, 1)
    (sun / sunrgbd.SPLIT).unlink()
    with pytest.raises(UserError, match="is missing: unpack"):
        sunrgbd.prepare(tmp_path, options, {"scans": sun}, 1)


# ScanNet


def write_scan(root, name, vertices, segments, groups, alignment=None):
    folder = root / "scans" / name
    folder.mkdir(parents=True)
    head = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(vertices)}\n"
    head += "property float x\nproperty float y\nproperty float z\nproperty uchar red\nelement face 1\n"
    head += "property list uchar int vertex_indices\nend_header\n"
    body = b"".join(struct.pack("<fffB", *vertex, 7) for vertex in vertices) + struct.pack("<Biii", 3, 0, 1, 2)
    (folder / f"{name}_vh_clean_2.ply").write_bytes(head.encode() + body)
    (folder / f"{name}_vh_clean_2.0.010000.segs.json").write_text(json.dumps({"segIndices": segments}))
    (folder / f"{name}.aggregation.json").write_text(json.dumps({"segGroups": groups}))
    lines = [] if alignment is None else ["axisAlignment = " + " ".join(map(str, np.ravel(alignment)))]
    (folder / f"{name}.txt").write_text("\n".join([*lines, "colorHeight = 968"]))


@pytest.fixture
def scans(tmp_path):
    vertices = [(x, y, z) for x in (0, 1) for y in (0, 2) for z in (0, 3)] + [(9, 9, 9), (8, 8, 8)]
    segments = [4] * 4 + [7] * 4 + [11] * 2
    groups = [{"label": "big bed", "segments": [4, 7]}, {"label": "wall", "segments": [11]}]
    turn = np.array([[0, -1, 0, 10], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    write_scan(tmp_path, "scene0000_00", vertices, segments, groups, turn)
    write_scan(tmp_path, "scene0001_00", vertices, segments, groups)
    (tmp_path / scannet.LABELS).write_text("id\traw_category\tnyu40id\n1\tbig bed\t4\n2\twall\t1\n")
    for name, scene in zip(scannet.LISTS, ("scene0000_00", "scene0001_00"), strict=True):
        (tmp_path / name).write_text(scene + "\n")
    scannet._nyu40.cache_clear()
    return tmp_path


OPTIONS = {"classes": ["bed"], "nyu40_ids": [4], "points": 50}


def test_scannet_is_read_from_its_official_layout(scans, tmp_path_factory):
    target = tmp_path_factory.mktemp("scannet")
    facts = scannet.prepare(target, {**OPTIONS, "scenes": [1, 1]}, {"scans": scans}, 1)
    arrays = read(target)
    assert arrays["split"].tolist() == [0, 2] and not facts["oriented"]
    assert arrays["boxes"][:, 0].tolist() == [[9, 0.5, 1.5, 2, 1, 3, 0], [0.5, 1, 1.5, 1, 2, 3, 0]]
    assert (arrays["label"][:, 0] == 0).all() and (arrays["label"][:, 1:] == -1).all()
    on_wall = (arrays["points"][1] >= 8).all(-1)
    assert np.array_equal(arrays["inside"][1, :, 0], np.where(on_wall, -1, 0))


def test_missing_and_wrong_parts_of_scannet_are_named(scans, tmp_path):
    with pytest.raises(UserError, match="expected"):
        scannet.prepare(tmp_path, {**OPTIONS, "scenes": [1201, 312]}, {"scans": scans}, 1)
    folder = scans / "scans" / "scene0000_00"
    mesh = folder / "scene0000_00_vh_clean_2.ply"
    whole = mesh.read_bytes()
    mesh.write_bytes(whole[:-60])
    with pytest.raises(UserError, match="ends early"):
        scannet.prepare(tmp_path, OPTIONS, {"scans": scans}, 1)
    mesh.write_bytes(whole)
    (folder / "scene0000_00_vh_clean_2.0.010000.segs.json").write_text('{"segIndices": [1, 2]}')
    with pytest.raises(UserError, match="files of two scans"):
        scannet.prepare(tmp_path, OPTIONS, {"scans": scans}, 1)
    (folder / "scene0000_00_vh_clean_2.0.010000.segs.json").write_text(json.dumps({"segIndices": [4] * 10}))
    (scans / scannet.LABELS).unlink()
    scannet._nyu40.cache_clear()
    with pytest.raises(UserError, match="is missing"):
        scannet.prepare(tmp_path, OPTIONS, {"scans": scans}, 1)
    with pytest.raises(UserError, match="1 classes and 2 nyu40_ids"):
        scannet.prepare(tmp_path, {**OPTIONS, "nyu40_ids": [4, 5]}, {"scans": scans}, 1)


def test_ascii_ply_is_read_too(tmp_path):
    text = "ply\nformat ascii 1.0\nelement vertex 2\nproperty float x\nproperty float y\nproperty float z\nend_header\n"
    (tmp_path / "a.ply").write_text(text + "1 2 3\n4 5 6\n")
    assert ply.positions(ply.read_vertices(tmp_path / "a.ply")).tolist() == [[1, 2, 3], [4, 5, 6]]


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_ply_with_any_line_ends_is_read(tmp_path, newline, mark):
    lines = ["ply", "format {}", "comment end_header", "element vertex 2", *(f"property float {a}" for a in "xyz")]
    head = newline.join([*lines, "element face 0", "end_header", ""])
    text = mark + head.format("ascii 1.0").encode() + newline.join(["1 2 3", "", "4 5 6", ""]).encode()
    # of the binary numbers the first byte is that of a line end, which is not the header's
    first = struct.unpack("<f", b"\n\r\0\0")[0]
    binary = head.format("binary_little_endian 1.0").encode() + struct.pack("<6f", first, 2, 3, 4, 5, 6)
    for content, x in ((text, 1), (binary, first)):
        (tmp_path / "a.ply").write_bytes(content)
        if newline == "\r" and content is binary:
            continue  # cannot be told from a header with "\r\n"
        found = ply.positions(ply.read_vertices(tmp_path / "a.ply"), tmp_path)
        assert found.tolist() == [[x, 2, 3], [4, 5, 6]]


@pytest.mark.parametrize("newline", ["\r\n", "\n"])
def test_scannet_lists_with_a_mark_and_windows_line_ends(scans, tmp_path_factory, newline):
    target = tmp_path_factory.mktemp("scannet")
    paths = [*scans.glob("*.t*"), *scans.glob("scans/*/*.json"), *scans.glob("scans/*/scene0000_00.txt")]
    assert len(paths) == 8
    for path in paths:
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", newline.encode()))
    scannet.prepare(target, OPTIONS, {"scans": scans}, 1)
    assert read(target)["boxes"][:, 0].tolist() == [[9, 0.5, 1.5, 2, 1, 3, 0], [0.5, 1, 1.5, 1, 2, 3, 0]]


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("_vh_clean_2.ply", struct.pack("<f", 9), struct.pack("<f", np.nan), r"_00_vh_clean_2\.ply: vertices, row 8"),
        ("_vh_clean_2.ply", struct.pack("<f", 9), struct.pack("<f", np.inf), r"_00_vh_clean_2\.ply: vertices, row 8"),
        ("_vh_clean_2.ply", b"property float z", b"property float w", "has no vertices with x, y and z"),
        (".txt", b"axisAlignment = 0", b"axisAlignment = nan", r"_00\.txt: axisAlignment must be 16 finite numbers"),
        (".txt", b"axisAlignment = 0.0", b"axisAlignment =", r"_00\.txt: axisAlignment must be 16 finite numbers"),
        (".txt", b"axisAlignment = 0.0", b"axisAlignment = 1e60", "beyond what float32 holds"),
        (".aggregation.json", b'"segGroups"', b'"groups"', "has no list segGroups"),
        (".aggregation.json", b'"label": "big bed", ', b"", "group 0 has no label"),
        (".aggregation.json", b'"big bed"', b"null", "group 0 has no label"),
        (".aggregation.json", b"[4, 7]", b'["4", 7]', "group 0: segments must be a list of whole numbers"),
        (".aggregation.json", b"[4, 7]", b"[4.0, 7]", "group 0: segments must be a list of whole numbers"),
        ("_vh_clean_2.0.010000.segs.json", b'"segIndices"', b'"seg"', "segIndices must be a list of whole numbers"),
        ("_vh_clean_2.0.010000.segs.json", b"[4,", b"[99999999999999999999,", "beyond 64 bits"),
        ("_vh_clean_2.0.010000.segs.json", b"{", b"[", "is damaged"),
    ],
)
def test_faults_of_a_scan_are_one_line_that_names_its_file(scans, tmp_path_factory, file, old, new, message):
    path = scans / "scans" / "scene0000_00" / f"scene0000_00{file}"
    assert old in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(old, new))
    with pytest.raises(UserError, match=message) as error:
        scannet.prepare(tmp_path_factory.mktemp("scannet"), OPTIONS, {"scans": scans}, 1)
    assert "\n" not in str(error.value) and "scene0000_00" in str(error.value)


@pytest.mark.parametrize("field", ["coeffs", "centroid", "orientation", "K", "Rtilt"])
@pytest.mark.parametrize("value", [np.nan, np.inf, None])
def test_a_number_of_sun_rgbd_that_is_none_is_named(sun, tmp_path, field, value):
    entry = sunrgbd._table(sun)["SUNRGBD/kv1/NYUdata/NYU0000"]
    of = entry if field in ("K", "Rtilt") else entry.groundtruth3DBB[0]
    numbers = np.array(getattr(of, field), float)
    numbers.flat[0] = 0 if value is None else value
    setattr(of, field, numbers[:1] if value is None else numbers)
    with pytest.raises(UserError, match=rf"NYU0000.*its {field} must be \d finite numbers"):
        sunrgbd.prepare(tmp_path, {"classes": ["bed"], "points": 10}, {"scans": sun}, 1)
