"""Object detection."""

from lightning_adabelief.recipes.object_detection.annotated_images import AnnotatedImagesDataModule
from lightning_adabelief.recipes.object_detection.detection_data import DetectionDataModule
from lightning_adabelief.recipes.object_detection.module import ObjectDetector
from lightning_adabelief.recipes.object_detection.networks import Detector, ResNet50FasterRCNN, SmallFasterRCNN
from lightning_adabelief.recipes.object_detection.pictures import Pictures
from lightning_adabelief.recipes.object_detection.scenes import ScenesDataModule

__all__ = [
    "AnnotatedImagesDataModule",
    "DetectionDataModule",
    "Detector",
    "ObjectDetector",
    "Pictures",
    "ResNet50FasterRCNN",
    "ScenesDataModule",
    "SmallFasterRCNN",
]
