"""Images with annotated boxes: COCO, VOC, and drawn scenes."""
