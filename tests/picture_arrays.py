"""Arrays as the runs of each task leave them beside their records, made up: what the tasks' pictures are drawn from."""

import numpy as np

SCENES, QUERIES = 5, 4


def set_arrays(task: str) -> dict[str, np.ndarray]:
    """Arrays of the prepared set that the pictures open."""
    draws = np.random.default_rng(0)
    if task == "face_verification":
        return {"images": draws.integers(0, 255, (9000, 4, 4, 3), dtype=np.uint8)}
    return {
        "images": draws.integers(0, 255, (SCENES, 16, 16, 3), dtype=np.uint8),
        "image_size": np.full((SCENES, 2), 16),
        "boxes": np.tile(np.array([2.0, 3.0, 9.0, 12.0], np.float32), (SCENES, 2, 1)),
        "labels": np.zeros((SCENES, 2), np.int16),
        "crowd": np.zeros((SCENES, 2), bool),
    }


def run_arrays(task: str) -> dict[str, np.ndarray]:
    """Arrays of a run of the task; those of all its methods together."""
    draws = np.random.default_rng(1)
    if task == "detection_2d":
        boxes = np.sort(draws.random((SCENES, QUERIES, 4)), axis=-1)
        return {
            "row": np.arange(SCENES), "boxes": boxes, "scores": draws.random((SCENES, QUERIES)),
            "labels": np.zeros((SCENES, QUERIES)), "raw_boxes": boxes, "query_boxes": boxes,
            "raw_logits": draws.normal(size=(SCENES, QUERIES, 4)),
            "decoder_attention": draws.random((SCENES, QUERIES, 2, 2)),
            "encoder_attention": draws.random((SCENES, 4, 2, 2)),
        }  # fmt: skip
    if task == "detection_3d":
        box = np.array([0.0, 0.0, 0.5, 1.0, 0.6, 0.8, 0.1], np.float32)
        return {
            "true_boxes": np.tile(box, (2, 3, 1)), "true_label": np.array([[0, 1, -1], [1, 2, 3]], np.int8),
            "detected_boxes": np.tile(box, (3, 1)), "detected_scene": np.array([0, 0, 1], np.int32),
            "detected_scores": draws.random((3, 4)).astype(np.float32) / 2 + 0.5,
            "classes": np.array(["bed", "chair", "desk", "sofa"]),
            "shown_points": draws.normal(size=(2, 30, 3)).astype(np.float16),
            "shown_seeds": draws.normal(size=(2, 8, 3)).astype(np.float16),
            "shown_votes": draws.normal(size=(2, 8, 3)).astype(np.float16),
            "shown_on_object": draws.random((2, 8)) < 0.5,
        }  # fmt: skip
    if task == "image_classification":
        found = {
            "picture_image": draws.integers(0, 255, (4, 12, 12, 3), dtype=np.uint8),
            "picture_attention": draws.random((4, 3, 3)).astype(np.float16),
        }
        for name in ("50", "75", "90"):
            found[f"picture_mask_{name}"] = draws.random((4, 3, 3)) < 0.75
            found[f"picture_reconstruction_{name}"] = found["picture_image"]
        return found
    if task == "point_classification":
        clouds = draws.normal(size=(6, 20, 3)).astype(np.float16)
        return {
            "segmented_points": clouds, "segmented_part": draws.integers(0, 3, (6, 20)),
            "segmented_predicted": draws.integers(0, 3, (6, 20)),
            "density_points": clouds, "density": draws.random((6, 20)),
            "map_points": clouds, "map_nodes": draws.normal(size=(6, 9, 3)),
            "original": clouds, "reconstructed": clouds,
            "predicted": np.arange(8) % 4, "label": np.arange(8) % 3, "copy": np.arange(8) > 6,
        }  # fmt: skip
    if task == "language_modelling":
        return {"attention": np.tril(draws.normal(size=(2, 16, 16))).astype(np.float16)}
    return {}
