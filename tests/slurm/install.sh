#!/usr/bin/env bash
# SLURM's programs from Debian's or Ubuntu's packages, for the tests; needs root. Starts no service.
set -euo pipefail

if type slurmctld slurmd sbatch munged ip >/dev/null 2>&1; then
  exit
fi

# What dpkg asks whether it may start a service.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
  printf '#!/bin/sh\nexit 101\n' >$policy
  chmod 755 $policy
  trap 'rm $policy' EXIT
fi
apt-get update --quiet --quiet
DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet --quiet --no-install-recommends \
  slurmctld slurmd slurm-client slurm-wlm-basic-plugins munge iproute2 util-linux
