"""The original Mask2Former, imported from a checkout as it is."""
