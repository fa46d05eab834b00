"""Loaders of point clouds, on small files in the official layouts; and what they refuse."""

import io
import json
import pickle
import tarfile

import numpy as np
import pytest

from replications.datasets.points import (
    images,
    modelnet40,
    modelnet_voxels,
    scannet_blocks,
    scanobjectnn,
    shapenet_part,
)
from replications.datasets.points.clouds import check_cloud, first_points, normalise, splits_of, write_clouds
from replications.errors import UserError

h5py = pytest.importorskip("h5py")


def arrays(folder):
    return {path.stem: np.load(path) for path in folder.glob("*.npy")}


@pytest.fixture
def target(tmp_path):
    folder = tmp_path / "target"
    folder.mkdir()
    return folder


# A cloud


@pytest.mark.parametrize(
    ("points", "line"),
    [
        (np.empty((0, 3)), "x: the cloud is empty"),
        ([[0, 0, 0], [0, np.nan, 0], [np.inf, 0, 0]], r"x: point 1 is not finite \(2 such points\)"),
        (np.zeros((4, 2)), r"x: a cloud must be \[points, 3\], not \[4, 2\]"),
        (np.zeros(3), "x: a cloud must be"),
    ],
)
def test_clouds_that_are_none_are_refused_in_one_line(points, line):
    with pytest.raises(UserError, match=line) as error:
        check_cloud(points, "x")
    assert "\n" not in str(error.value)


def test_fewer_points_than_asked_are_repeated_in_turn():
    assert first_points(np.arange(3), 7).tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert first_points(np.arange(9), 4).tolist() == [0, 1, 2, 3]


def test_one_point_and_duplicates_lie_at_the_origin():
    assert (normalise(np.full((5, 3), 7.0)) == 0).all()
    found = normalise(np.random.default_rng(0).normal(size=(4, 9, 3)))
    np.testing.assert_allclose(np.linalg.norm(found, axis=-1).max(-1), 1)
    np.testing.assert_allclose(found.mean(1), 0, atol=1e-12)


def test_equal_clouds_fall_on_one_side():
    names = [str(i) for i in range(2000)]
    split = splits_of(names + names, 0.1)
    assert (split[:2000] == split[2000:]).all()
    assert 0.07 < split.mean() < 0.13


def test_labels_beyond_the_classes_are_refused(target):
    with pytest.raises(UserError, match="labels run from 0 to 3, for 2 classes"):
        write_clouds(target, ["a", "b"], label=np.array([0, 3]), split=np.array([0, 2]))


# ModelNet10 from voxels


def grids(count, seed=0):
    return (np.random.default_rng(seed).random((count, 32, 32, 32)) < 0.01).astype(np.int32)


def test_points_lie_in_surface_voxels():
    occupied = np.zeros((32, 32, 32), bool)
    occupied[4:9, 4:9, 4:9] = True
    points = modelnet_voxels.surface_points(occupied, 98, np.random.default_rng(0))
    voxels = np.floor(points).astype(int)
    assert len(np.unique(voxels, axis=0)) == 98  # 5^3 - 3^3, each once
    assert not ((voxels >= 5) & (voxels <= 7)).all(1).any()
    more = modelnet_voxels.surface_points(occupied, 200, np.random.default_rng(0))
    assert np.unique(np.floor(more), axis=0, return_counts=True)[1].tolist().count(3) == 4
    whole = modelnet_voxels.surface_points(np.ones((4, 4, 4), bool), 56, np.random.default_rng(0))
    assert len(np.unique(np.floor(whole), axis=0)) == 56  # the border of the grid is surface


def test_voxels_drop_empties_and_mark_copies(tmp_path, target):
    train, test = grids(30), grids(12, 1)
    train[3] = test[5] = 0
    test[7] = train[11]
    file = tmp_path / "voxels.npz"
    labels = {"y_train": np.arange(30) % 10, "y_test": np.arange(12) % 10}
    np.savez(file, X_train=train, X_test=test, **labels)
    facts = modelnet_voxels.prepare(target, {"points": 64, "validation": 0.3}, {"voxels": file}, 1)
    found = arrays(target)
    assert facts["empty_grids_dropped"] == 2 and facts["test_copies_of_training"] == 1
    assert found["points"].shape == (40, 64, 3)
    assert np.flatnonzero(found["copy"]).tolist() == [29 + 6]  # test row 7, after an empty one
    assert found["label"][29 + 6] == 7
    np.testing.assert_allclose(np.linalg.norm(found["points"], axis=-1).max(1), 1, rtol=1e-6)


def test_a_file_of_other_arrays_is_named(tmp_path, target):
    file = tmp_path / "voxels.npz"
    np.savez(file, X_train=grids(1), y_train=[0])
    with pytest.raises(UserError, match="has no array 'X_test'"):
        modelnet_voxels.prepare(target, {"points": 8, "validation": 0.3}, {"voxels": file}, 1)
    file.write_bytes(b"no zip")
    with pytest.raises(UserError, match=r"is not an \.npz file"):
        modelnet_voxels.prepare(target, {"points": 8, "validation": 0.3}, {"voxels": file}, 1)


# ModelNet40


def hdf5_tree(root, data=None, keys=("data", "label")):
    root.mkdir()
    (root / "shape_names.txt").write_text("airplane\nchair\n")
    rng = np.random.default_rng(0)
    for part, count in (("train0", 12), ("train1", 8), ("test0", 6)):
        with h5py.File(root / f"ply_data_{part}.h5", "w") as file:
            file[keys[0]] = rng.normal(size=(count, 20, 3)).astype(np.float32) if data is None else data
            file[keys[1]] = (np.arange(count) % 2)[:, None].astype(np.uint8)
    return root


def test_modelnet40_hdf5(tmp_path, target):
    root = hdf5_tree(tmp_path / "m")
    facts = modelnet40.prepare(target, {"layout": "hdf5", "points": 16, "validation": 0.3}, {"shapes": root}, 1)
    found = arrays(target)
    assert found["points"].shape == (26, 16, 3) and facts["classes"] == ["airplane", "chair"]
    assert (found["split"] == 2).sum() == 6 and found["label"][20:].tolist() == [0, 1] * 3
    assert 0 < (found["split"] == 1).sum() < 15


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"keys": ("points", "label")}, r"has no 'data' \(it has: label, points\)"),
        ({"data": np.full((12, 20, 3), np.nan)}, "shape 0: point 0 is not finite"),
        ({"data": np.zeros((12, 0, 3))}, "the cloud is empty"),
    ],
)
def test_wrong_hdf5_files_are_named(tmp_path, target, arguments, line):
    root = hdf5_tree(tmp_path / "m", **arguments)
    with pytest.raises(UserError, match=line):
        modelnet40.prepare(target, {"layout": "hdf5", "points": 16, "validation": 0.3}, {"shapes": root}, 1)


def test_a_folder_without_hdf5_files_and_a_file_that_is_none(tmp_path, target):
    root = hdf5_tree(tmp_path / "m")
    (root / "ply_data_train0.h5").write_bytes(b"text")
    wanted = {"layout": "hdf5", "points": 16, "validation": 0.3}
    with pytest.raises(UserError, match="is not an hdf5 file"):
        modelnet40.prepare(target, wanted, {"shapes": root}, 1)
    for path in root.glob("*train*.h5"):
        path.unlink()
    with pytest.raises(UserError, match=r"no ply_data_train\*\.h5"):
        modelnet40.prepare(target, wanted, {"shapes": root}, 1)


def normals_tree(root):
    root.mkdir()
    (root / "modelnet40_shape_names.txt").write_text("airplane\nnight_stand\n")
    rng = np.random.default_rng(0)
    lists = {"train": 14, "test": 4}
    for part, count in lists.items():
        names = [f"{name}_{i:04d}" for name in ("airplane", "night_stand") for i in range(count // 2)]
        if part == "test":
            names = [name.replace("_00", "_09") for name in names]
        (root / f"modelnet40_{part}.txt").write_text("\n".join(names) + "\n")
        for name in names:
            folder = root / name.rpartition("_")[0]
            folder.mkdir(exist_ok=True)
            np.savetxt(folder / f"{name}.txt", rng.normal(size=(12, 6)), fmt="%.6f", delimiter=",")
    return root


def test_modelnet40_with_normals_takes_the_first_rows(tmp_path, target):
    root = normals_tree(tmp_path / "m")
    wanted = {"layout": "normals", "points": 5, "validation": 0.3}
    modelnet40.prepare(target, wanted, {"shapes": root}, 1)
    found = arrays(target)
    assert found["label"].tolist() == [0] * 7 + [1] * 7 + [0, 0, 1, 1]
    rows = np.loadtxt(root / "night_stand" / "night_stand_0900.txt", delimiter=",")[:5]
    np.testing.assert_allclose(found["points"][16], normalise(rows[:, :3]), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found["normals"][16], rows[:, 3:], rtol=1e-5)


def test_wrong_text_files_are_named(tmp_path, target):
    root = normals_tree(tmp_path / "m")
    wanted = {"layout": "normals", "points": 5, "validation": 0.3}
    bad = root / "airplane" / "airplane_0000.txt"
    bad.write_text("1,2,3\n")
    with pytest.raises(UserError, match=r"airplane_0000\.txt has 3 columns, expected 6"):
        modelnet40.prepare(target, wanted, {"shapes": root}, 1)
    bad.write_text("")
    with pytest.warns(UserWarning), pytest.raises(UserError, match="the cloud is empty"):
        modelnet40.prepare(target, wanted, {"shapes": root}, 1)
    bad.write_text("1,2,nan,0,0,1\n")
    with pytest.raises(UserError, match="point 0 is not finite"):
        modelnet40.prepare(target, wanted, {"shapes": root}, 1)
    (root / "modelnet40_train.txt").write_text("sofa_0001\n")
    with pytest.raises(UserError, match="'sofa_0001' is of none of the classes"):
        modelnet40.prepare(target, wanted, {"shapes": root}, 1)


# ShapeNet part, ScanObjectNN


def test_shapenet_part(tmp_path, target):
    root = tmp_path / "s"
    (root / "train_test_split").mkdir(parents=True)
    (root / "synsetoffset2category.txt").write_text("Mug\t0379\nBag\t0277\n")
    rng = np.random.default_rng(0)
    for part in ("train", "val", "test"):
        names = [f"shape_data/{folder}/{part}{i}" for folder in ("0379", "0277") for i in range(2)]
        (root / "train_test_split" / f"shuffled_{part}_file_list.json").write_text(json.dumps(names))
        for name in names:
            folder, stem = name.split("/")[1:]
            (root / folder).mkdir(exist_ok=True)
            number = rng.integers(0, 2, (9, 1)) + (0 if folder == "0277" else 2)
            np.savetxt(root / folder / f"{stem}.txt", np.hstack([rng.normal(size=(9, 6)), number]), fmt="%.6f")
    facts = shapenet_part.prepare(target, {"points": 6}, {"shapes": root}, 1)
    found = arrays(target)
    assert facts["classes"] == ["Bag", "Mug"] and facts["class_parts"] == [[0, 1], [2, 3]]
    assert found["split"].tolist() == [0] * 4 + [1] * 4 + [2] * 4
    for label, part in zip(found["label"], found["part"], strict=True):
        assert set(part) <= set(facts["class_parts"][label])
    (root / "synsetoffset2category.txt").write_text("Boat\t0379\n")
    with pytest.raises(UserError, match="'Boat' is not a category"):
        shapenet_part.prepare(target, {"points": 6}, {"shapes": root}, 1)


def test_scanobjectnn(tmp_path, target):
    for part, count in (("training", 10), ("test", 5)):
        with h5py.File(tmp_path / f"{part}_objectdataset.h5", "w") as file:
            file["data"] = np.random.default_rng(0).normal(size=(count, 8, 3))
            file["label"] = np.arange(count) % 15
    wanted = {"points": 6, "validation": 0.3, "variant": ""}
    facts = scanobjectnn.prepare(target, wanted, {"objects": tmp_path}, 1)
    assert len(facts["classes"]) == 15 and facts["clouds"]["test"] == 5
    with pytest.raises(UserError, match=r"no file .*training_objectdataset_x\.h5"):
        scanobjectnn.prepare(target, wanted | {"variant": "_x"}, {"objects": tmp_path}, 1)


# Images


def cifar(path, names=None, content=None):
    with tarfile.open(path, "w:gz") as archive:
        for name in names or [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
            data = np.arange(4 * 3072, dtype=np.uint32).astype(np.uint8).reshape(4, 3072)
            body = pickle.dumps(content or {b"data": data, b"labels": [0, 1, 2, 9]}, protocol=2)
            entry = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            entry.size = len(body)
            archive.addfile(entry, io.BytesIO(body))
    return path


def test_cifar10_as_points(tmp_path, target):
    file = cifar(tmp_path / "c.tar.gz")
    facts = images.prepare(target, {"data": "cifar10", "validation": 5}, {"images": file}, 1)
    found = arrays(target)
    assert found["colours"].shape == (24, 1024, 3) and facts["images"] == [15, 5, 4]
    flat = np.arange(4 * 3072, dtype=np.uint32).astype(np.uint8).reshape(4, 3, 32, 32)
    test = found["colours"][20:].reshape(4, 32, 32, 3)
    np.testing.assert_array_equal(test, flat.transpose(0, 2, 3, 1))
    grid = found["points"][0].reshape(32, 32, 3)
    assert (
        grid[0, 0].tolist() == [-1, 1, 0] and grid[0, 31].tolist() == [1, 1, 0] and grid[31, 0].tolist() == [-1, -1, 0]
    )


class Evil:
    def __reduce__(self):
        return (print, ("run",))


def test_a_pickle_that_runs_code_and_a_missing_batch_are_refused(tmp_path, target):
    with pytest.raises(UserError, match="which no array needs"):
        images.read_cifar10(cifar(tmp_path / "a.tar.gz", content={b"data": Evil()}))
    with pytest.raises(UserError, match="has no file data_batch_2"):
        images.read_cifar10(cifar(tmp_path / "b.tar.gz", names=["data_batch_1", "test_batch"]))


def test_digits_have_one_split_whatever_is_taken_of_them(tmp_path):
    found = []
    for name, train in (("a", None), ("b", 50)):
        (tmp_path / name).mkdir()
        images.prepare(tmp_path / name, {"data": "digits", "validation": 100, "train": train}, {}, 1)
        found.append(arrays(tmp_path / name))
    tests = [x["colours"][x["split"] == 2] for x in found]
    np.testing.assert_array_equal(*tests)
    assert (found[1]["split"] == 0).sum() == 50 and found[0]["colours"].max() == 255
    with pytest.raises(UserError, match="data must be one of digits, cifar10"):
        images.prepare(tmp_path / "a", {"data": "mnist", "validation": 1}, {}, 1)


# ScanNet


def write_ply(path, **columns):
    kinds = {"f": "float", "u": "ushort"}
    array = np.rec.fromarrays(list(columns.values()), names=list(columns))
    lines = ["ply", "format binary_little_endian 1.0", f"element vertex {len(array)}"]
    lines += [f"property {kinds[c.dtype.kind]} {name}" for name, c in columns.items()]
    lines += ["element face 0", "property list uchar int vertex_indices", "end_header\n"]
    path.write_bytes("\n".join(lines).encode() + array.tobytes())


def scannet_tree(root):
    rng = np.random.default_rng(0)
    lists = {"train": [f"scene{i:04d}_00" for i in range(6)], "val": ["scene0100_00"]}
    for part, scenes in lists.items():
        (root / f"scannetv2_{part}.txt").write_text("\n".join(scenes))
        for scene in scenes:
            folder = root / "scans" / scene
            folder.mkdir(parents=True)
            xyz = (rng.random((400, 3)) * [4, 3, 2]).astype("<f4")
            columns = dict(zip("xyz", xyz.T, strict=True))
            write_ply(folder / f"{scene}_vh_clean_2.ply", **columns)
            label = np.where(xyz[:, 0] < 2, 2, 13).astype("<u2")  # floor, and an id that is no class
            write_ply(folder / f"{scene}_vh_clean_2.labels.ply", **columns, label=label)
    return root


def test_scannet_blocks(tmp_path, target):
    root = scannet_tree(tmp_path)
    wanted = {"points": 64, "train_blocks": 3, "test_blocks": 4, "validation": 0.4}
    facts = scannet_blocks.prepare(target, wanted, {"scans": root}, 1)
    found = arrays(target)
    assert found["points"].shape == (6 * 3 + 4, 64, 3) and facts["pooled"]
    assert (found["split"] == 2).sum() == 4 and set(found["split"]) == {0, 1, 2}
    assert np.abs(found["points"][..., :2]).max() <= 0.7501 and found["points"][..., 2].min() >= 0
    assert set(np.unique(found["part"])) == {-1, 1}
    cloud, part = scannet_blocks.read_scene(root, "scene0100_00")
    np.testing.assert_array_equal(part, np.where(cloud[:, 0] < 2, 1, -1))


def test_wrong_ply_files_are_named(tmp_path, target):
    root = scannet_tree(tmp_path)
    path = root / "scans" / "scene0000_00" / "scene0000_00_vh_clean_2.ply"
    whole = path.read_bytes()
    for content, line in (
        (whole[:-10], "ends early"),
        (b"text", "is not a PLY file"),
        (whole.replace(b"little", b"big"), "is 'binary_big_endian' PLY"),
        (whole.replace(b"binary_little_endian", b"ascii"), "is a damaged PLY file"),
        (whole.replace(b"vertex 400", b"vertex 399"), "399 vertices but 400 labels"),
    ):
        path.write_bytes(content)
        with pytest.raises(UserError, match=line):
            scannet_blocks.read_scene(root, "scene0000_00")


@pytest.mark.parametrize("bad", ["nan", "inf", "1e39"])
def test_a_normal_that_is_no_number_is_named(tmp_path, target, bad):
    root = normals_tree(tmp_path / "m")
    (root / "airplane" / "airplane_0000.txt").write_text(f"1,2,3,0,0,1\n1,2,3,0,{bad},1\n")
    wanted = {"layout": "normals", "points": 5, "validation": 0.3}
    with pytest.raises(UserError, match=r"airplane_0000\.txt.* row 1: not finite"):
        modelnet40.prepare(target, wanted, {"shapes": root}, 1)


def test_lists_and_clouds_with_a_mark_and_windows_line_ends(tmp_path, target):
    root = normals_tree(tmp_path / "m")
    wanted = {"layout": "normals", "points": 5, "validation": 0.3}
    modelnet40.prepare(target, wanted, {"shapes": root}, 1)
    before = arrays(target)
    for path in root.rglob("*.txt"):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    (tmp_path / "again").mkdir()
    modelnet40.prepare(tmp_path / "again", wanted, {"shapes": root}, 1)
    for name, array in arrays(tmp_path / "again").items():
        np.testing.assert_array_equal(array, before[name])


def test_labels_of_scannet_that_are_no_ids_are_named(tmp_path):
    root = scannet_tree(tmp_path)
    path = root / "scans" / "scene0000_00" / "scene0000_00_vh_clean_2.labels.ply"
    whole = path.read_bytes()
    for kind in (b"short", b"float"):
        changed = whole.replace(b"property ushort label", b"property " + kind + b" label")
        size = 2 if kind == b"short" else 4
        head, body = changed.split(b"end_header\n")
        rows = b"".join(body[i : i + 12] + b"\xff" * size for i in range(0, len(body), 14))
        path.write_bytes(head + b"end_header\n" + rows)
        with pytest.raises(UserError, match="labels must be whole numbers, 0 or more"):
            scannet_blocks.read_scene(root, "scene0000_00")


@pytest.mark.parametrize("label", [[0.5] * 12, [np.nan] * 12, [-1] * 12, [70_000] * 12, [0] * 11])
def test_labels_of_an_hdf5_file_that_fit_nothing_are_named(tmp_path, target, label):
    root = hdf5_tree(tmp_path / "m")
    with h5py.File(root / "ply_data_train0.h5", "a") as file:
        del file["label"]
        file["label"] = np.array(label)
    with pytest.raises(
        UserError, match=r"ply_data_train0\.h5: (its labels must be whole|data and label have 12 and 11)"
    ):
        modelnet40.prepare(target, {"layout": "hdf5", "points": 16, "validation": 0.3}, {"shapes": root}, 1)
