#!/usr/bin/env bash
# Installs what the peer table compares with, each in an environment of its own below .tools/peers (about 3 GB, minutes).
# DLIO_SOURCE names another DLIO, such as a checkout of it; arguments name single environments: torch s3dlio tensorflow.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
DLIO_SOURCE=${DLIO_SOURCE:-git+https://github.com/argonne-lcf/dlio_benchmark.git@e1919d7}
peers=("$@")
[ "${#peers[@]}" -gt 0 ] || peers=(torch s3dlio tensorflow)

# DLIO asks for TensorFlow and DALI when installed, and runs its PyTorch loader without them.
dlio_needs=(hydra-core==1.3.8 omegaconf==2.3.1 pandas==3.1.1 h5py==3.14.0 pillow==13.0.0 psutil==7.2.2 PyYAML==6.0.3
  mpich==5.0.2 mpi4py==4.1.2 pydftracer==2.0.6)

install() { # install NAME PACKAGE...
  local folder=".tools/peers/$1"
  [ -x "$folder/bin/python" ] || "$PYTHON" -m venv "$folder"
  "$folder/bin/python" -m pip --disable-pip-version-check -q install "${@:2}"
}

for peer in "${peers[@]}"; do
  case "$peer" in
    torch)
      install torch torch==2.13.0 numpy==2.4.6 "${dlio_needs[@]}" 'setuptools<81' wheel pybind11
      install torch --no-deps --no-build-isolation "$DLIO_SOURCE" ||
        echo "DLIO could not be installed from $DLIO_SOURCE: set DLIO_SOURCE to a checkout of it" >&2
      ;;
    s3dlio) install s3dlio s3dlio==0.10.0 dgen-py==0.3.0 boto3==1.44.5 numpy==2.4.6 ;;
    tensorflow) install tensorflow tensorflow-cpu==2.21.0 numpy==2.4.6 ;;
    *) echo "no such peer: $peer (torch s3dlio tensorflow)" >&2; exit 2 ;;
  esac
  echo "$peer: .tools/peers/$peer/bin/python"
done
