"""Delivers derived series by C-STORE, STOW-RS or into a folder."""
