"""The bundles as MONAI's own tools see them: their files, their checks, their two configs."""
