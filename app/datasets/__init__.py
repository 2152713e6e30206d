"""Folders of noisy images as training and evaluation see them."""
