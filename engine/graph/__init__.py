"""Graphs: what is to be computed, as nodes of ops over named values, and the passes that rewrite them."""
from engine.graph.gradients import gradients
from engine.graph.graph import Graph, Node, Value

__all__ = ["Graph", "Node", "Value", "gradients"]
