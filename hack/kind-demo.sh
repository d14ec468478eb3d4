#!/usr/bin/env bash
# Gesso on a Kubernetes of its own in Docker: builds the images, makes a kind cluster, installs the chart and serves
# the tiny model on CPUs. Runs again over what is there. `kind delete cluster --name gesso` removes everything.
set -euo pipefail
cd "$(dirname "$0")/.."

cluster="${KIND_CLUSTER:-gesso}"
tag="${TAG:-demo}"
registry=gesso.local
namespace=gesso-system

for tool in docker kind helm kubectl; do
  if ! command -v "$tool" >/dev/null; then
    echo "make kind-demo needs $tool, which is not on the PATH (without Docker: make demo)" >&2
    exit 2
  fi
done
if ! docker info >/dev/null 2>&1; then
  echo "make kind-demo needs a running Docker: docker info fails (without Docker: make demo)" >&2
  exit 2
fi

echo "[kind-demo 1/4] images"
build() { # IMAGE FILE [FLAG...]
  local image="$1" file="$2"
  shift 2
  DOCKER_BUILDKIT=1 docker build --quiet --file "$file" --tag "$image" \
    --build-arg "VERSION=$tag" ${TORCH_INDEX_URL:+--build-arg "TORCH_INDEX_URL=$TORCH_INDEX_URL"} "$@" .
}
build "$registry/operator:$tag" images/operator/Dockerfile
build "$registry/router:$tag" images/router/Dockerfile
build "$registry/worker:$tag-cpu" images/worker/Dockerfile --target cpu

echo "[kind-demo 2/4] cluster $cluster"
if ! kind get clusters 2>/dev/null | grep -qx "$cluster"; then
  kind create cluster --name "$cluster" --wait 120s
fi
kind load docker-image --name "$cluster" \
  "$registry/operator:$tag" "$registry/router:$tag" "$registry/worker:$tag-cpu"
kubectl() { command kubectl --context "kind-$cluster" "$@"; }

echo "[kind-demo 3/4] chart"
helm upgrade --install gesso charts/gesso --kube-context "kind-$cluster" \
  --namespace "$namespace" --create-namespace --wait --timeout 5m \
  --set "images.registry=$registry,images.tag=$tag,images.worker=$registry/worker:$tag-cpu"
helm test gesso --kube-context "kind-$cluster" --namespace "$namespace"

echo "[kind-demo 4/4] service"
kubectl apply -f manifests/samples/tiny.yaml
kubectl wait --for=condition=Ready diffusionservice/tiny --timeout=10m
kubectl get diffusionservices

cat <<HINT

Ready. In one terminal:
  kubectl --context kind-$cluster port-forward service/tiny 7080:80
In another:
  curl -s localhost:7080/v1/images/generations -H 'content-type: application/json' \\
    -d '{"prompt": "a large red star above a small blue ring"}' | python3 -c \\
    'import base64, json, sys; open("star.png", "wb").write(base64.b64decode(json.load(sys.stdin)["data"][0]["b64_json"]))'
  kubectl --context kind-$cluster get dsvc --watch
HINT
