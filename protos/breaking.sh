#!/usr/bin/env bash
# Refuse changes that break clients of the contracts, against the newest released tag or else the branch main. Usage: protos/breaking.sh BUF
set -euo pipefail
buf=$1
cd "$(dirname "$0")/.."
base=$(git describe --tags --abbrev=0 --match 'v*' 2>/dev/null || git rev-parse --verify --quiet main || git rev-parse --verify --quiet origin/main || true)
if [ -z "$base" ] || [ -z "$(git ls-tree -r --name-only "$base" -- protos/buf.yaml)" ]; then
  echo "breaking: there is no earlier version of the contracts to compare with"
  exit 0
fi
old=$(mktemp -d)
trap 'rm -rf "$old"' EXIT
git archive "$base" protos | tar -x -C "$old"
"$buf" breaking protos --against "$old/protos" && echo "breaking: none against $base"
