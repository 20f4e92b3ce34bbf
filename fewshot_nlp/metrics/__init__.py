"""Metrics, thin over libraries; every name says its definition."""
