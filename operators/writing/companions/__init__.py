"""Objects beside a derived series: parametric maps and the measurement report."""
