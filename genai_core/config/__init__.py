"""The settings of each stage.

Only descriptions, defaults and bounds live here, never formulas that a stage computes with: a stage's config values are
part of its cache key, so this package is left out of the code fingerprint.
"""
