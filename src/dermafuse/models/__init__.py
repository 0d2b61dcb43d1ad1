"""Keras models: backbones, pretrained weights, fusion, classifier."""
