"""From an RGB array to a Segmentation: preprocess, backend, postprocess."""

from hybrid_seg_ros.inference.pipeline import SegmentationPipeline, load_pipeline

__all__ = ['SegmentationPipeline', 'load_pipeline']
