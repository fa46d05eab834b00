"""Pictures of detection: what was found, what queries and features look at, where queries put boxes, what is matched.

Images of a data set are shown on a report's own page only, and are never published; curves and distributions are.
"""

from collections.abc import Iterator

from replications.tasks.base import Album, Picture
from replications.tasks.detection_2d.pictures.curves import QUERY_IMAGES, curves, query_boxes
from replications.tasks.detection_2d.pictures.images import (
    Shown,
    decoder_attention,
    detections,
    encoder_attention,
    matching,
)


def draw(album: Album) -> Iterator[Picture]:
    """Yield the pictures that the records and arrays of a leaderboard allow."""
    yield from curves(album)
    shown = [found for address in album.addresses if (found := _shown(album, address))]
    main = [one for one in shown if album.role(one.address) != "ablation"]
    lead = next((one for one in main if "encoder_attention" in one.arrays), None) or (main[0] if main else None)
    if lead is None:
        return
    if "query_boxes" in lead.arrays:
        yield Picture(
            "queries",
            lambda: query_boxes(lead.arrays["query_boxes"].astype("float32"), album.width),
            "For each object query, the centres of the boxes that it predicted over the test images.",
            f"Where the object queries of {lead.address} put their boxes: centres over up to {QUERY_IMAGES} test "
            "images, whatever their score, coloured by the box: green small, red large and wide, blue large and tall "
            "(DETR, Figure 7).",
            publish=True,
        )
    data = album.open_set(lead.test)
    if data is None:
        return
    board = [one for one in main if one.test == lead.test]
    yield Picture(
        "detections",
        lambda: detections(data, board, album.width),
        "Test images with the annotated objects and with those that each method found.",
        "The first test images: what is annotated (crowds dashed), and each method's surest detections with scores, in "
        "all as many as there are annotated objects (lowest seed).",
    )
    if "decoder_attention" in lead.arrays:
        yield Picture(
            "decoder_attention",
            lambda: decoder_attention(data, lead, album.width),
            "Attention of the surest queries to the image, with the boxes they predict.",
            f"What the surest queries of {lead.address} look at: attention of the last decoder layer, mean over heads, "
            "over the image, and the box that the query predicts.",
        )
    if "encoder_attention" in lead.arrays:
        yield Picture(
            "encoder_attention",
            lambda: encoder_attention(data, lead, album.width),
            "Self-attention of points of the image in the last encoder layer.",
            f"Self-attention of points (crosses: centres of annotated objects) in the last encoder layer of "
            f"{lead.address}, mean over heads (DETR, Figure 3).",
        )
    if "raw_logits" in lead.arrays:
        yield Picture(
            "matching",
            lambda: matching(data, lead, album.width),
            "Predicted boxes of all queries of one image, and which object each was matched with.",
            f"The matching of one image, as the loss of {lead.address} would have it: annotated objects (solid), the "
            "boxes of all queries (dotted: unmatched), and the costs with the cheapest assignment outlined.",
        )


def _shown(album: Album, address: str) -> Shown | None:
    for seed, record in sorted(album.runs(address).items()):
        arrays = album.arrays(address, seed)
        if "row" in arrays:
            return Shown(address, record, arrays)
    return None
