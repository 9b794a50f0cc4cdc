"""Adapter for OpenMMLab: registers the core with mmengine's registries, scope ``cvplugins``."""
