"""Evaluation rules: intervals, margins, completeness, and the verdict on a published number."""
