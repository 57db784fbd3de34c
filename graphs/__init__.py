"""The patterns, one a file: edges and policies. The work is in ``nodes``."""
