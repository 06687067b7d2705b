#!/usr/bin/env bash
# Generate the Python code of all contracts into the folder $1, which is emptied first. Usage: protos/generate.sh OUT [PYTHON]
set -euo pipefail
out=$1 python=$(command -v "${2:-python3}")
cd "$(dirname "$0")"
rm -rf "$out" && mkdir -p "$out"
mapfile -t files < <(find leasegate -name '*.proto' | LC_ALL=C sort)
PATH="$(dirname "$python"):$PATH" "$python" -m grpc_tools.protoc -I . --python_out="$out" --grpc_python_out="$out" \
  --mypy_out=quiet:"$out" --mypy_grpc_out=quiet,only_sync:"$out" "${files[@]}"
# protoc writes an empty gRPC module for files without services.
for f in $(find "$out" -name '*_pb2_grpc.py'); do
  grep -q '^class ' "$f" || rm -f "$f" "${f%.py}.pyi"
done
# A regular package: of two folders named leasegate on sys.path, Python takes the first one.
echo '"""Generated from protos/leasegate by protos/generate.sh."""' > "$out/leasegate/__init__.py"
