"""Models: what the engine differentiates and the optimizer updates."""
