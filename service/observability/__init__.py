"""Metrics, traces and agent status."""
