"""The benchmark: crossfade beside its peers, interleaved in one run, reported as ratios."""
