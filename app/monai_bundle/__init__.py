"""Support for MONAI's bundle tools: files, checks and the two configs."""
