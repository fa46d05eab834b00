"""The Vision Transformer under the suite's data and budget; the network itself is common ground of the task."""

from replications.layers.images.vision_transformer import VisionTransformer


def build(
    num_classes: int,
    image_size: int,
    *,
    vit: dict,
    pool: str = "token",
    positions: str = "learned",
    coarser: int = 1,
    drop_path: float = 0.0,
) -> VisionTransformer:
    """ViT of the task's size; the class token and learned 1-D positions are the paper's choice.

    `coarser` multiplies the side of the patches.
    """
    form = vit | {"patch": coarser * vit["patch"]}
    return VisionTransformer(num_classes, image_size, pool=pool, positions=positions, drop_path=drop_path, **form)
