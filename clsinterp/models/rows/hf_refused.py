"""Image encoders of `transformers` that no row of the family table describes, and why."""

_CONV = "it is a convolutional network: there are no tokens and no attention"
_WINDOWS = "its blocks attend within windows"
_SHRINKS = "the grid of tokens shrinks from stage to stage"
_VIDEO = "it reads videos"
_DETECTOR = "it is a detector, whose queries attend to the map of a convolutional network"
_NO_ROW = "no row describes it yet"

# Beginning of a class name -> the reason, as the end of a sentence. The longest beginning counts.
REFUSED: dict[str, str] = {
    "Align": _CONV,
    "BeitBackbone": "it has maps of several scales on top, for segmentation; load the checkpoint as BeitModel",
    "Bit": _CONV,
    "Blip2ForImageTextRetrieval": "its queries read the image; its vision tower, Blip2VisionModel, loads",
    "Cohere2Vision": "it is a language model that sees; its vision tower, SiglipVisionModel, loads",
    "ConditionalDetr": _DETECTOR,
    "ConvNext": _CONV,
    "Cvt": f"{_SHRINKS}, and its maps are convolutions",
    "DINOv3ConvNext": _CONV,
    "DPT": f"it makes a map of depths out of several layers; {_NO_ROW}",
    "DabDetr": _DETECTOR,
    "DeformableDetr": _DETECTOR,
    "DepthPro": "it runs a DINOv2 over many parts of one image",
    "Detr": _DETECTOR,
    "Dinat": f"its attention is between neighbours, and {_SHRINKS}",
    "Donut": f"{_WINDOWS}, and {_SHRINKS}",
    "EfficientNet": _CONV,
    "FocalNet": "it mixes tokens by modulation, not by attention",
    "GLPN": f"{_SHRINKS}, and keys and values are of fewer tokens than queries",
    "GroupViT": "it merges tokens into groups from stage to stage",
    "HGNetV2": _CONV,
    "Hiera": _SHRINKS,
    "ImageGPT": "it reads pixels one after another, each from those before it",
    "Levit": f"{_SHRINKS}, and its maps are convolutions",
    "Llama4Vision": f"it is part of a language model, with rotary positions of its own; {_NO_ROW}",
    "LwDetrViT": _WINDOWS,
    "MLCDVision": f"its rotary positions are of a kind of their own; {_NO_ROW}",
    "MaskFormerSwin": f"{_WINDOWS}, and {_SHRINKS}",
    "MllamaVision": f"it reads an image as tiles, and some of its blocks are gated; {_NO_ROW}",
    "MobileNet": _CONV,
    "MobileViT": "it is a convolutional network with transformer blocks between",
    "PPLCNet": _CONV,
    "Perceiver": "its latents attend to the pixels, and no token stands for a patch",
    "PoolFormer": "it mixes tokens by pooling, not by attention",
    "Pvt": f"{_SHRINKS}, and keys and values are of fewer tokens than queries",
    "RTDetrResNet": _CONV,
    "RegNet": _CONV,
    "ResNet": _CONV,
    "RfDetrDinov2": _WINDOWS,
    "Sam": _WINDOWS,
    "Sapiens2": f"its queries have more heads than its keys and values; {_NO_ROW}",
    "Segformer": f"{_SHRINKS}, and keys and values are of fewer tokens than queries",
    "ShieldGemma2": "it is a language model that sees, and its answers are words",
    "Siglip2": "its images have a size each, as patches with a mask (NaFlex); SigLIP 2 checkpoints of a fixed size are of the "
    "class SiglipModel and load",
    "SwiftFormer": f"{_SHRINKS}, and its attention is additive",
    "Swin": f"{_WINDOWS}, and {_SHRINKS}",
    "TableTransformer": _DETECTOR,
    "TextNet": _CONV,
    "Timesformer": _VIDEO,
    "TimmBackbone": "it gives maps of several layers; the timm model itself loads",
    "Tipsv2": _NO_ROW,
    "UVDoc": _CONV,
    "VideoMAE": _VIDEO,
    "VideoPrism": _VIDEO,
    "VitDet": _WINDOWS,
    "VitPose": f"it finds joints on a grid of tokens without a CLS token, and adds positions of its own; {_NO_ROW}",
    "Vivit": _VIDEO,
    "XCLIP": f"{_VIDEO}: its tokens pass between frames",
    "Yolos": f"its detection tokens stand after the patches; {_NO_ROW}",
}


def reason(name: str) -> str | None:
    """Why no row describes the class `name` of transformers; None where that is not known."""
    found = max((known for known in REFUSED if name.startswith(known)), key=len, default=None)
    return REFUSED[found] if found else None
