#!/usr/bin/env bash
# Refuse changes of the contracts that break clients, against the baseline in protos/baseline (see protos/README.md).
# Usage: protos/breaking.sh BUF [--renew]; --renew makes the contracts of this tree the baseline.
set -euo pipefail
buf=$1 mode=${2:-}
cd "$(dirname "$0")"
baseline=baseline/v1.binpb
if [ "$mode" = --renew ]; then
  mkdir -p baseline
  "$buf" build . --exclude-source-info -o "$baseline"
  echo "breaking: protos/$baseline is renewed"
  exit 0
fi
"$buf" breaking . --against "$baseline" --exclude-imports && echo "breaking: none against protos/$baseline"
