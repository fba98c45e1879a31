"""From graphs to plans: memory, resolved calls, runs and profiles."""
from engine.runtime.plan import Plan

__all__ = ["Plan"]
