"""Clip schedules."""
