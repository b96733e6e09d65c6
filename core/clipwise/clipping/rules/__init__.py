"""Rules of single operations."""
