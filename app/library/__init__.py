"""The functions of `import stillscan`: from images in memory or on disk to denoised ones."""
