#!/usr/bin/env bash
# Train what lies in models/, from nothing: hours on a CPU (the cards say how long each took). Resumes where it was killed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
cores="${CORES:-$(nproc)}"

# train NAME OPTIONS [MORE ARGUMENTS]: one model without the workflow, straight into models/.
train() {
  local name=$1 options=$2
  shift 2
  python -m remime.stages.train --name "$name" --options "$options" --half "$@" \
    --notes "models/notes/$name.md" --output "models/$name.safetensors" --card "models/$name.md" \
    --history "results/models/$name/history.parquet" --state "results/state/train/$name"
}

# once NAME OPTIONS [MORE ARGUMENTS]: the same, if this has not been done yet.
once() {
  [ -f "results/models/$1/trained" ] && return
  train "$@"
  touch "results/models/$1/trained"
}

# workflow TARGETS: what the workflow can make, also where config.yaml names files of models/ that are not there yet.
workflow() {
  snakemake --cores "$cores" --configfile models/train.yaml -- "$@"
}

weights=resources/weights
workflow $weights/{mobile-ffhq,hopenet-lite,face-mesh,blendshapes}.safetensors
# Lower decodes first: everything else is trained through them.
once mobile-preview '{"kind": "preview", "resolutions": [128, 256], "batch": 2, "learning_rate": 2e-3,
  "ema": 0.98, "steps": 1300, "seed": 1, "validate_every": 200}'
regression=results/models/puppet-regression
if [ ! -f $regression/card.md ]; then
  python -m remime.stages.train --name puppet-directions --options '{"kind": "directions", "pool": 1200, "size": 256, "seed": 0}' \
    --output $regression/model.safetensors --card $regression/card.md --history $regression/history.parquet \
    --state results/state/train/puppet-regression
fi
# Then what closes lids, by descent, for as long as it gains.
workflow $weights/{lpips-alex,edgeface-s}.safetensors
once puppet-directions '{"kind": "directions", "steps": 4000, "batch": 4, "learning_rate": 1e-2, "ema": 0.95,
  "seed": 0, "validate_every": 40, "checkpoint_every": 40, "patience": 3}' --init $regression/model.safetensors

workflow shards
workflow models

# publish MODEL NAME OPTIONS: a model of the workflow, in half precision.
publish() {
  train "$2" "{$3, \"preset\": \"small\", \"steps\": 0}" \
    --init "results/models/$1/model.safetensors"
}
publish psp restyle-psp-small '"kind": "inverter", "method": "restyle-psp", "rank": 480, "refinements": 2'
publish e4e restyle-e4e-small '"kind": "inverter", "method": "restyle-e4e", "rank": 480, "refinements": 2'
publish mapping mapping-small '"kind": "method", "method": "mapping"'
