#!/bin/sh
# What both container recipes run: Python and remime in /opt/venv, from the files in /opt/remime.
set -eu
cd /opt/remime

apt-get update
DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends ca-certificates python3-venv
rm -rf /var/lib/apt/lists/*

python3 -m venv /opt/venv
pip="/opt/venv/bin/python -m pip install --no-cache-dir --constraint constraints.txt"
# torch first, as in the Makefile.
$pip torch
$pip '.[slurm,download]'
