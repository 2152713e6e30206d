"""What `python examples/denoise_then_segment` and the packager's image run."""

from app import DenoiseThenSegment

DenoiseThenSegment().run()
