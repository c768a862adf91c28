"""Pretrained files: fetch, verify, convert. The only place that meets foreign formats."""
