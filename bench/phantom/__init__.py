"""A generated head: anatomy, imaging physics and DICOM series.

    fields       smooth and band-limited random fields: what makes every brain different
    shapes       signed distances of ellipsoids and tubes
    cortex       the folded sheet: gyri, sulci, insula, fissures
    cranium      scalp, muscle, skull, orbits, sinuses
    brain        everything inside the skull, in the order in which it is painted
    acquisition  spoiled gradient echo, coil array, k-space, Rician noise
    series       the images as classic MR instances, with the truth beside them

Coordinates are millimetres from the anterior commissure: z superior, y anterior, x left. The sizes
are those of an adult head as any atlas of sectional anatomy shows them; no scan was used.

It has less fine structure than a real head, which is kind to every denoiser: its figures compare
methods and catch faults, they do not say how good a method is on patients.
"""
