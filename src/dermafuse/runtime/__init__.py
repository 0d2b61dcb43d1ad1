"""Prediction without TensorFlow: engine, bundle, predictor, explanations, uncertainty."""
