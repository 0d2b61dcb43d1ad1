"""Why the model said that: Grad-CAM, Shapley values, what-if, overlay."""
