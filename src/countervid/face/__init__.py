"""Faces in a clip: found, followed, cropped upright, and put back."""

from countervid.face.align import crop, quads
from countervid.face.detect import Detections, Detector
from countervid.face.landmarks import LandmarkModel, LandmarkNet
from countervid.face.parse import FaceParser, MaskConfig, ParserNet, edit_mask
from countervid.face.paste import paste
from countervid.face.pipeline import Crops, CropSink, Edit, FaceConfig, FacePipeline, FaceTrack

__all__ = [
    "CropSink",
    "Crops",
    "Detections",
    "Detector",
    "Edit",
    "FaceConfig",
    "FaceParser",
    "FacePipeline",
    "FaceTrack",
    "LandmarkModel",
    "LandmarkNet",
    "MaskConfig",
    "ParserNet",
    "crop",
    "edit_mask",
    "paste",
    "quads",
]
